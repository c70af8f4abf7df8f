//! Convolutions whose taps read between elements, at places that are computed.

use super::conv::Conv;
use super::formula::Formula;
use super::gather::ramp;
use super::tools::{self, FLOATS};
use super::window::Axis;
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir::{self, Binary};
use crate::tensor::Tensor;
use crate::types::{DType, Type, strides};

/// [`Conv`] of X `[N, C, spatial..]` by W `[K, C / group, taps..]`, plus B, where the place that a tap reads is moved by
/// an offset: a number of elements along each axis, of `[N, offset_group * taps * axes, windows..]`, for each group of
/// C / `offset_group` channels. What is read is joined of the nearest elements by linear weights, where elements outside
/// X are zeros, times the tap's mask `[N, offset_group * taps, windows..]` (1 where it is left out). An offset that is no
/// number reads zero.
#[derive(Clone, Debug, PartialEq)]
pub struct DeformConv {
    conv: Conv,
    offset_groups: usize,
}

const X: usize = 0;
const W: usize = 1;
const OFFSET: usize = 2;
const BIAS: usize = 3;
const MASK: usize = 4;

/// Axes at most: each doubles the elements that are read.
const AXES: usize = 3;

impl DeformConv {
    /// Offsets of the taps along each axis, in row-major order of the taps.
    fn taps(axes: &[Axis]) -> Vec<Vec<usize>> {
        let mut taps = vec![];
        let kernel: Vec<usize> = axes.iter().map(|a| a.kernel).collect();
        crate::tensor::for_each_index(&kernel, |index| {
            taps.push(index.iter().zip(axes).map(|(i, a)| i * a.dilation).collect());
        });
        taps
    }
}

impl Op for DeformConv {
    const NAME: &'static str = "DeformConv";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-4);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        if attrs.has("auto_pad") {
            return Err(ErrorKind::wrong("attribute \"auto_pad\" is not one of this operator"));
        }
        let conv = Conv::parse(attrs)?;
        let groups = super::window::positive("offset_group", &[attrs.int_or("offset_group", 1)?])?;
        Ok(DeformConv { conv, offset_groups: groups[0] })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(3, 5)?;
        let (x, w) = (inputs.ty(X)?, inputs.ty(W)?);
        tools::dtype_in(x, &FLOATS, &FLOATS)?;
        let dims = self.conv.result_dims(x, w, inputs.get(BIAS))?;
        let axes = x.rank() - 2;
        if axes > AXES {
            return Err(ErrorKind::unsupported(format!("pictures of {axes} axes")));
        }
        if !x.dims[1].is_multiple_of(self.offset_groups) {
            let (channels, groups) = (x.dims[1], self.offset_groups);
            return Err(ErrorKind::wrong(format!("{channels} channels in {groups} groups of offsets")));
        }
        if x.elements() == 0 {
            return Err(ErrorKind::wrong(format!("the operand {x} is empty")));
        }
        let taps = w.dims[2..].iter().try_fold(self.offset_groups, |n, &d| n.checked_mul(d));
        let taps = taps.filter(|&n| n < 1 << 40).ok_or_else(|| ErrorKind::limit("there are too many taps"))?;
        let of = |count: usize| tools::sized(x.dtype, [&[x.dims[0], count], &dims[2..]].concat());
        let bias = x.with_dims([w.dims[0]]);
        for (i, expected) in [(W, w.with_dtype(x.dtype)), (OFFSET, of(taps * axes)?), (BIAS, bias), (MASK, of(taps)?)] {
            if let Some(ty) = inputs.get(i)
                && *ty != expected
            {
                return Err(ErrorKind::wrong(format!("operand {i} is {ty}")).help(format!("it must be {expected}")));
            }
        }
        // What the windows read, and the numbers of the elements.
        tools::sized(DType::I64, [&[x.dims[0], x.dims[1], taps], &dims[2..]].concat())?;
        Ok(vec![tools::sized(x.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(w), Some(offsets), ..] = inputs else { return vec![] };
        let operand = |i: usize| inputs.get(i).copied().flatten().map(Tensor::f64s);
        let (dims, spatial) = (x.dims(), &x.dims()[2..]);
        let Ok(axes) = self.conv.axes(dims, w.dims()) else { return vec![] };
        let (per_group, depth) = (dims[1] / self.offset_groups, w.dims()[1]);
        let (taps, own) = (DeformConv::taps(&axes), strides(spatial));
        let plane: usize = spatial.iter().product();
        let windows: Vec<usize> = axes.iter().map(|a| a.windows).collect();
        let places: usize = windows.iter().product();
        let (bias, mask) = (operand(BIAS), operand(MASK));
        let (x, offsets, weights) = (x.f64s(), offsets.f64s(), w.f64s());
        let mut y = vec![];
        for n in 0..dims[0] {
            for k in 0..w.dims()[0] {
                let group = k / (w.dims()[0] / (dims[1] / depth));
                let mut place = 0;
                crate::tensor::for_each_index(&windows, |window| {
                    let mut sum = bias.as_ref().map_or(0.0, |b| b[k]);
                    for c in 0..depth {
                        let channel = group * depth + c;
                        let picture = &x[(n * dims[1] + channel) * plane..][..plane];
                        for (t, tap) in taps.iter().enumerate() {
                            let row = (n * self.offset_groups + channel / per_group) * taps.len() + t;
                            let at: Vec<f64> = (0..axes.len())
                                .map(|a| {
                                    let first = (window[a] * axes[a].stride + tap[a]) as f64 - axes[a].low as f64;
                                    first + offsets[(row * axes.len() + a) * places + place]
                                })
                                .collect();
                            let mut value = 0.0;
                            for corner in 0..1 << axes.len() {
                                let (mut weight, mut element) = (1.0, Some(0));
                                for (a, &at) in at.iter().enumerate() {
                                    let high = corner >> a & 1 == 1;
                                    let (low, rest) = (at.floor(), at - at.floor());
                                    weight *= if high { rest } else { 1.0 - rest };
                                    let i = low + f64::from(u8::from(high));
                                    let inside = i >= 0.0 && i < spatial[a] as f64;
                                    element = element.filter(|_| inside).map(|e| e + i as usize * own[a] as usize);
                                }
                                value += element.map_or(0.0, |e: usize| weight * picture[e]);
                            }
                            let mask = mask.as_ref().map_or(1.0, |m| m[row * places + place]);
                            sum += value * mask * weights[(k * depth + c) * taps.len() + t];
                        }
                    }
                    y.push(sum);
                    place += 1;
                });
            }
        }
        vec![Tensor::from_f64s(outputs[0].clone(), y)]
    }

    /// What the taps read is gathered, for all windows; the rest is a product of matrices.
    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(x), Some(w), Some(offsets), ref more @ ..] = inputs else { return vec![] };
        let operand = |i: usize| more.get(i - BIAS).copied().flatten();
        let (dims, dw, ty) = (mir.dims(x), mir.dims(w), &outputs[0]);
        let Ok(axes) = self.conv.axes(&dims, &dw) else { return vec![] };
        if ty.elements() == 0 {
            return vec![mir.constant(Tensor::zeros(ty.clone()))];
        }
        let (batch, channels, offset_groups) = (dims[0], dims[1], self.offset_groups);
        let plane: usize = dims[2..].iter().product();
        let windows: Vec<usize> = axes.iter().map(|a| a.windows).collect();
        let places: usize = windows.iter().product();
        let taps = DeformConv::taps(&axes);
        let per_group = channels / offset_groups;
        // Rows of the table are the channels of a group of offsets at an element.
        let last = mir.channels_last(x);
        let table = mir.reshape(last, [batch * plane * offset_groups, per_group]);
        let wide = ty.dtype == DType::F64 || i32::try_from(batch * plane * offset_groups).is_err();
        let (float, int) = if wide { (DType::F64, DType::I64) } else { (DType::F32, DType::I32) };
        // `[batch, places, taps, groups]` of one coordinate.
        let all = [batch, places, taps.len(), offset_groups];
        let by_place = |mir: &mut mir::Builder, x: mir::Value| {
            let x = mir.reshape(x, [batch, offset_groups, taps.len(), places]);
            mir.permute(x, &[0, 3, 2, 1])
        };
        let offsets = mir.cast(offsets, float);
        let offsets = mir.reshape(offsets, [batch, offset_groups * taps.len(), axes.len(), places]);
        let coordinates: Vec<mir::Value> = (0..axes.len())
            .map(|a| {
                let own = mir.narrow(offsets, 2, a, 1);
                let own = by_place(mir, own);
                let inner: usize = windows[a + 1..].iter().product();
                let mut firsts = vec![];
                for window in (0..places).map(|p| p / inner % windows[a]) {
                    let at = |tap: &Vec<usize>| (window * axes[a].stride + tap[a]) as f64 - axes[a].low as f64;
                    firsts.extend(taps.iter().map(at));
                }
                let firsts = Tensor::from_f64s(Type::new(float, [1, places, taps.len(), 1]), firsts);
                let firsts = mir.constant(firsts);
                mir.binary(Binary::Add, own, firsts)
            })
            .collect();
        let mut firsts = vec![];
        for (axis, extent, step) in [(0, batch, plane * offset_groups), (3, offset_groups, 1)] {
            if extent > 1 {
                let first = ramp(mir, 4, axis, extent, step as i64);
                firsts.push(mir.cast(first, int));
            }
        }
        let mask = operand(MASK).map(|mask| {
            let mask = mir.cast(mask, float);
            by_place(mir, mask)
        });
        let moves = strides(&dims[2..]);
        let (mut f, mut operands, mut sum) = (Formula::new(ty.dtype), vec![], None);
        for corner in 0..1usize << axes.len() {
            let (mut of_place, mut inputs) = (Formula::new(float), coordinates.clone());
            let (mut weight, mut inside, mut element) = (None, None, None);
            for (a, axis) in axes.iter().enumerate() {
                let g = &mut of_place;
                let at = g.operand(a);
                let low = g.floor(at);
                let rest = g.sub(at, low);
                let high = corner >> a & 1 == 1;
                let (one, zero, end) = (g.lit(1.0), g.lit(0.0), g.lit(axis.extent as f64 - 1.0));
                let own = if high { rest } else { g.sub(one, rest) };
                let i = if high { g.add(low, one) } else { low };
                weight = Some(weight.map_or(own, |w| g.mul(w, own)));
                let (from, to) = (g.greater_equal(i, zero), g.less_equal(i, end));
                let within = g.and(from, to);
                inside = Some(inside.map_or(within, |all| g.and(all, within)));
                let low = g.max(i, zero);
                let near = g.min(low, end);
                let near = g.cast(int, near);
                g.set_dtype(int);
                let term = g.scale(near, (moves[a] as usize * offset_groups) as f64);
                element = Some(element.map_or(term, |sum| g.add(sum, term)));
                g.set_dtype(float);
            }
            let (Some(mut weight), Some(inside), Some(mut element)) = (weight, inside, element) else { return vec![] };
            if mask.is_some() {
                let mask = of_place.operand(axes.len());
                weight = of_place.mul(weight, mask);
            }
            inputs.extend(mask);
            let [weight, inside] = [weight, inside].map(|part| of_place.copy(part));
            let mut numbered = coordinates.clone();
            for &first in &firsts {
                numbered.push(first);
                let first = of_place.operand(numbered.len() - 1);
                element = of_place.add(element, first);
            }
            let element = mir.map(of_place.finish(element), &numbered);
            let element = mir.broadcast(element, all);
            operands.push(mir.gather(table, element, 0));
            for part in [weight, inside] {
                let part = mir.map(part, &inputs);
                let dims = [&mir.dims(part)[..], &[1]].concat();
                operands.push(mir.reshape(part, dims));
            }
            let [value, weight, inside] = [0, 1, 2].map(|i| f.operand(3 * corner + i));
            let weight = if float == ty.dtype { weight } else { f.cast(ty.dtype, weight) };
            let (term, zero) = (f.mul(value, weight), f.lit(0.0));
            let term = f.select(inside, term, zero);
            sum = Some(sum.map_or(term, |sum| f.add(sum, term)));
        }
        let Some(sum) = sum else { return vec![] };
        let read = mir.map(f.finish(sum), &operands);
        // Channels of a group are summed with their weights: groups are batches of products.
        let (depth, results) = (dw[1], dw[0]);
        let groups = channels / depth;
        let read = mir.reshape(read, [batch, places, taps.len(), groups, depth]);
        let read = mir.permute(read, &[0, 3, 1, 2, 4]);
        let read = mir.reshape(read, [batch, groups, places, taps.len() * depth]);
        let weights = mir.reshape(w, [groups, results / groups, depth, taps.len()]);
        let weights = mir.permute(weights, &[0, 3, 2, 1]);
        let weights = mir.reshape(weights, [1, groups, taps.len() * depth, results / groups]);
        let products = mir.contract(read, weights);
        let products = mir.permute(products, &[0, 2, 1, 3]);
        let mut y = mir.reshape(products, [&[batch], &windows[..], &[results]].concat());
        if let Some(bias) = operand(BIAS) {
            y = mir.binary(Binary::Add, y, bias);
        }
        vec![mir.channels_first(y)]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{definition, refused};

    #[test]
    fn offsets_move_taps() {
        // Half an element to the right, and outside.
        let offsets = "f32[1,2,2,2]=0,0,0,0,0.5,0,0,2";
        let y = definition("DeformConv", &["f32[1,1,2,2]=1,2,3,4", "f32[1,1,1,1]=2", offsets]);
        assert_eq!(y[0].f64s(), [3.0, 4.0, 6.0, 0.0]);
    }

    #[test]
    fn misfits_are_refused() {
        let [x, w] = ["f32[1,4,5,5]", "f32[2,4,3,3]"];
        refused("DeformConv", &[x, w, "f32[1,18,5,5]"]);
        refused("DeformConv offset_group=3", &[x, w, "f32[1,54,3,3]"]);
        refused("DeformConv offset_group=2", &[x, w, "f32[1,18,3,3]"]);
        refused("DeformConv", &[x, w, "f32[1,18,3,3]", "-", "f32[1,18,3,3]"]);
        refused("DeformConv auto_pad=VALID", &[x, w, "f32[1,18,3,3]"]);
    }
}
