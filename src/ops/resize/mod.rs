//! Resampling along axes.

mod axis;

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir::{self, Binary};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use axis::*;

/// Every axis by itself: element `o` of the result is a weighted sum of the elements near a coordinate that
/// follows from `o`. `nearest` takes one of them, `linear` two, `cubic` four; with `antialias` and a scale
/// below 1, more. What is near and outside is the element at the edge or, with `exclude_outside`, nothing.
///
/// Scales, sizes and the region of interest have to be known when the model is compiled. NaN and infinities
/// spread to all results that have a part of them, be it 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    mode: Mode,
    coordinates: Coordinates,
    nearest: Nearest,
    cubic: f64,
    exclude_outside: bool,
    antialias: bool,
    extrapolation: f64,
    axes: Option<Vec<i64>>,
    policy: usize,
    /// In version 10, scales are the second operand.
    scales_only: bool,
}

/// Weights are made for every element along an axis, so there is a bound.
const LONGEST: usize = 1 << 24;

/// Every element so many times along each axis: a view.
fn repeated(mir: &mut mir::Builder, x: mir::Value, times: &[usize]) -> mir::Value {
    let dims = mir.dims(x);
    let (mut single, mut each, mut all) = (vec![], vec![], vec![]);
    for (&d, &times) in dims.iter().zip(times) {
        single.push(d);
        each.push(d);
        all.push(d * times);
        if times > 1 {
            single.push(1);
            each.push(times);
        }
    }
    let single = mir.reshape(x, single);
    let each = mir.broadcast(single, each);
    mir.reshape(each, all)
}

/// The sums that the runs say, the phases' results in turn.
fn interleaved(mir: &mut mir::Builder, x: mir::Value, axis: usize, phases: &[Vec<Run>]) -> mir::Value {
    let dims = mir.dims(x);
    let [before, behind] = [&dims[..axis], &dims[axis + 1..]];
    let mut each = vec![];
    for runs in phases {
        let mut parts = vec![];
        for run in runs {
            let mut sum = None;
            for &(first, weight) in &run.taps {
                let elements = mir.narrow(x, axis, first, run.count);
                let part = mir.binary_scalar(Binary::Mul, elements, weight);
                sum = Some(sum.map_or(part, |sum| mir.binary(Binary::Add, sum, part)));
            }
            parts.extend(sum);
        }
        let all = mir.concat(&parts, axis);
        each.push(mir.reshape(all, [before, &[dims[axis], 1], behind].concat()));
    }
    let all = mir.concat(&each, axis + 1);
    mir.reshape(all, [before, &[dims[axis] * phases.len()], behind].concat())
}

impl Resize {
    /// What changes, for these operands.
    fn plan(&self, x: &Type, operands: [Option<&Tensor>; 3]) -> Result<Vec<Axis>, ErrorKind> {
        let [roi, scales, sizes] = operands.map(|t| t.filter(|t| t.ty().elements() > 0));
        let axes = match &self.axes {
            Some(list) => tools::axes(list, x.rank())?,
            None => (0..x.rank()).collect(),
        };
        let count = axes.len();
        let check = |what: &str, tensor: &Tensor, expected: usize| match tensor.ty().elements() {
            n if n == expected => Ok(()),
            n => Err(ErrorKind::wrong(format!("{what} have {n} entries for {count} axes"))),
        };
        let crop = self.coordinates == Coordinates::CropAndResize;
        let roi = match roi.filter(|_| crop) {
            Some(roi) => {
                check("regions of interest", roi, 2 * count)?;
                roi.f64s()
            }
            None if crop => return Err(ErrorKind::wrong("the region of interest (operand 1) is left out")),
            None => [vec![0.0; count], vec![1.0; count]].concat(),
        };
        let extents: Vec<_> = axes.iter().map(|&a| x.dims[a]).collect();
        let scaled: Vec<(f64, f64)> = match (scales, sizes) {
            (Some(scales), None) => {
                check("scales", scales, count)?;
                let scales = scales.f64s();
                if let Some(bad) = scales.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
                    return Err(ErrorKind::wrong(format!("a scale of {bad}")).help("it must be above 0"));
                }
                scales.iter().zip(&extents).map(|(&s, &d)| (s, (s * d as f64).floor())).collect()
            }
            (None, Some(sizes)) => {
                check("sizes", sizes, count)?;
                let sizes = tools::dims(&tools::int_list(sizes, "the list of sizes")?)?;
                let own = |(&n, &d): (&usize, &usize)| if d == 0 { 1.0 } else { n as f64 / d as f64 };
                let scales: Vec<_> = sizes.iter().zip(&extents).map(own).collect();
                let common = match self.policy {
                    0 => None,
                    1 => scales.iter().copied().reduce(f64::min),
                    _ => scales.iter().copied().reduce(f64::max),
                };
                let each = |((&s, &n), &d): ((&f64, &usize), &usize)| match common {
                    Some(common) => (common, (common * d as f64 + 0.5).floor()),
                    None => (s, n as f64),
                };
                scales.iter().zip(&sizes).zip(&extents).map(each).collect()
            }
            _ => return Err(ErrorKind::wrong("exactly one of scales and sizes must be given")),
        };
        let mut plan = vec![];
        for (i, (&axis, &(scale, result))) in axes.iter().zip(&scaled).enumerate() {
            let extent = extents[i];
            let result = result as usize; // Saturates.
            if extent == 0 && result > 0 {
                return Err(ErrorKind::wrong(format!("axis {axis} has no elements")));
            }
            if result == extent && scale == 1.0 && !crop {
                continue;
            }
            if result.max(extent) > LONGEST {
                let kind = ErrorKind::limit(format!("axis {axis} goes from {extent} to {result} elements"));
                return Err(kind.help(format!("at most {LONGEST} are resampled")));
            }
            plan.push(self.axis(axis, Scaled { extent, result, scale, roi: [roi[i], roi[count + i]] }));
        }
        Ok(plan)
    }

    /// Operands as they are called from version 11 on.
    fn named<'a>(&self, inputs: &[Option<&'a Tensor>]) -> [Option<&'a Tensor>; 3] {
        let get = |i: usize| inputs.get(i).copied().flatten();
        if self.scales_only { [None, get(1), None] } else { [get(1), get(2), get(3)] }
    }

    fn infer_type(&self, x: &Type, operands: [Option<&Tensor>; 3]) -> Result<Vec<Type>, ErrorKind> {
        if self.mode != Mode::Nearest {
            tools::dtype_in(x, &tools::FLOATS, &DType::ALL)?;
        }
        let mut dims = x.dims.clone();
        for axis in self.plan(x, operands)? {
            dims[axis.axis] = axis.taps.len();
        }
        Ok(vec![tools::sized(x.dtype, dims)?])
    }

    fn resample(&self, x: &Tensor, operands: [Option<&Tensor>; 3], ty: &Type) -> Tensor {
        let Ok(plan) = self.plan(x.ty(), operands) else { return Tensor::zeros(ty.clone()) };
        if plan.iter().all(|a| a.indices().is_some() && !a.outside.contains(&true)) && !ty.dtype.is_float() {
            return picked(x, &plan, ty);
        }
        let (mut dims, mut values) = (x.dims().to_vec(), x.f64s());
        for Axis { axis, taps, outside } in plan {
            let (outer, inner) =
                (dims[..axis].iter().product::<usize>(), dims[axis + 1..].iter().product::<usize>());
            let mut next = Vec::with_capacity(outer * taps.len() * inner);
            for o in 0..outer {
                let block = &values[o * dims[axis] * inner..];
                for (taps, &outside) in taps.iter().zip(&outside) {
                    for i in 0..inner {
                        let sum = || taps.iter().map(|&(at, w)| block[at * inner + i] * w).sum::<f64>();
                        next.push(if outside { self.extrapolation } else { sum() });
                    }
                }
            }
            dims[axis] = taps.len();
            values = next;
        }
        Tensor::from_f64s(ty.clone(), values)
    }

    fn expand_plan(&self, mir: &mut mir::Builder, x: mir::Value, operands: [Option<&Tensor>; 3]) -> mir::Value {
        let dims = mir.dims(x);
        let Ok(plan) = self.plan(&mir.ty(x).clone(), operands) else { return x };
        let (repeats, rest): (Vec<_>, Vec<_>) =
            plan.into_iter().partition(|axis| axis.repeats(dims[axis.axis]).is_some());
        let mut times = vec![1; dims.len()];
        for axis in &repeats {
            times[axis.axis] = axis.repeats(dims[axis.axis]).unwrap_or(1);
        }
        let mut y = if repeats.is_empty() { x } else { repeated(mir, x, &times) };
        // What gets smaller comes first. Neighbours of a row that grows lie in turn, which is dear: there are few rows
        // while the axes before it have not grown.
        let (shrinking, growing): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|axis| axis.taps.len() <= dims[axis.axis]);
        for axis in shrinking.iter().chain(growing.iter().rev()) {
            y = self.expand_axis(mir, y, axis);
        }
        y
    }

    fn expand_axis(&self, mir: &mut mir::Builder, x: mir::Value, plan: &Axis) -> mir::Value {
        let ty = mir.ty(x).clone();
        let (axis, result) = (plan.axis, plan.taps.len());
        let mut along = vec![1; ty.rank()];
        along[axis] = result;
        let gathered = |mir: &mut mir::Builder, indices: Vec<usize>| {
            let indices: Vec<_> = indices.into_iter().map(|i| i as i64).collect();
            let indices = mir.constant(Tensor::from_i64s([result], &indices));
            mir.gather(x, indices, axis)
        };
        let count = plan.taps.first().map_or(1, Vec::len);
        let y = if let Some(indices) = plan.indices() {
            gathered(mir, indices)
        } else if ty.dims[axis] == 1 && let Some(weight) = plan.weight() {
            let single = mir.binary_scalar(Binary::Mul, x, weight);
            mir.broadcast(single, [&ty.dims[..axis], &[result], &ty.dims[axis + 1..]].concat())
        } else if count <= 4 && let Some(phases) = plan.phases(ty.dims[axis]) {
            interleaved(mir, x, axis, &phases)
        } else if count <= 4 {
            let mut sum = None;
            for t in 0..count {
                let own = gathered(mir, plan.taps.iter().map(|taps| taps[t].0).collect());
                let weights = plan.taps.iter().map(|taps| taps[t].1);
                let weights = Tensor::from_f64s(Type::new(ty.dtype, along.clone()), weights);
                let weights = mir.constant(weights);
                let part = mir.binary(Binary::Mul, own, weights);
                sum = Some(sum.map_or(part, |sum| mir.binary(Binary::Add, sum, part)));
            }
            sum.unwrap_or(x)
        } else {
            // Many taps: a product with the matrix of weights.
            let mut matrix = vec![0.0; ty.dims[axis] * result];
            for (o, taps) in plan.taps.iter().enumerate() {
                taps.iter().for_each(|&(i, w)| matrix[i * result + o] += w);
            }
            let matrix = Tensor::from_f64s(Type::new(ty.dtype, [ty.dims[axis], result]), matrix);
            let matrix = mir.constant(matrix);
            let mut perm: Vec<_> = (0..ty.rank()).filter(|&a| a != axis).collect();
            perm.push(axis);
            let turned = mir.permute(x, &perm);
            let dims = mir.dims(turned);
            let rows: usize = dims[..ty.rank() - 1].iter().product();
            let turned = mir.reshape(turned, [rows, ty.dims[axis]]);
            let product = mir.contract(turned, matrix);
            let product = mir.reshape(product, [&dims[..ty.rank() - 1], &[result]].concat());
            let back: Vec<_> =
                (0..ty.rank()).map(|a| perm.iter().position(|&p| p == a).unwrap_or(a)).collect();
            mir.permute(product, &back)
        };
        if !plan.outside.contains(&true) {
            return y;
        }
        let outside = plan.outside.iter().map(|&o| i64::from(o));
        let outside = mir.constant(Tensor::from_ints(Type::new(DType::Bool, along), outside));
        let value = mir.scalar(ty.dtype, self.extrapolation);
        mir.select(outside, value, y)
    }
}

/// The result where every element is one of the operand's, bit for bit.
fn picked(x: &Tensor, plan: &[Axis], ty: &Type) -> Tensor {
    let mut from: Vec<Vec<usize>> = ty.dims.iter().map(|&d| (0..d).collect()).collect();
    for axis in plan {
        from[axis.axis] = axis.indices().unwrap_or_default();
    }
    let mut data = Vec::with_capacity(ty.bytes());
    crate::tensor::for_each_index(&ty.dims, |index| {
        let at = index.iter().zip(&from).zip(x.dims()).fold(0, |at, ((&i, from), d)| at * d + from[i]);
        data.extend_from_slice(x.element(at));
    });
    Tensor::from_bytes(ty.clone(), data.into()).unwrap_or_else(|| Tensor::zeros(ty.clone()))
}

impl Op for Resize {
    const NAME: &'static str = "Resize";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let scales_only = attrs.opset() < 11;
        let mode = match attrs.choice("mode", &["nearest", "linear", "cubic"])? {
            0 => Mode::Nearest,
            1 => Mode::Linear,
            _ => Mode::Cubic,
        };
        let names = [
            "half_pixel",
            "half_pixel_symmetric",
            "pytorch_half_pixel",
            "align_corners",
            "asymmetric",
            "tf_crop_and_resize",
        ];
        let coordinates = match attrs.choice("coordinate_transformation_mode", &names)? {
            _ if scales_only => Coordinates::Asymmetric,
            0 => Coordinates::HalfPixel,
            1 => Coordinates::HalfPixelSymmetric,
            2 => Coordinates::PytorchHalfPixel,
            3 => Coordinates::AlignCorners,
            4 => Coordinates::Asymmetric,
            _ => Coordinates::CropAndResize,
        };
        let names = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"];
        let nearest = match attrs.choice("nearest_mode", &names)? {
            _ if scales_only => Nearest::Floor,
            0 => Nearest::PreferFloor,
            1 => Nearest::PreferCeil,
            2 => Nearest::Floor,
            _ => Nearest::Ceil,
        };
        Ok(Resize {
            mode,
            coordinates,
            nearest,
            cubic: attrs.float_or("cubic_coeff_a", -0.75)?,
            exclude_outside: attrs.flag("exclude_outside", false)?,
            antialias: attrs.flag("antialias", false)?,
            extrapolation: attrs.float_or("extrapolation_value", 0.0)?,
            axes: attrs.ints("axes")?,
            policy: attrs
                .choice("keep_aspect_ratio_policy", &["stretch", "not_larger", "not_smaller"])?,
            scales_only,
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, if self.scales_only { 2 } else { 4 })?;
        let names: &[&str] =
            if self.scales_only { &["scales"] } else { &["the region of interest", "scales", "sizes"] };
        let mut known = vec![inputs.constant(0)];
        for (i, name) in names.iter().enumerate() {
            known.push(match (i, self.scales_only) {
                // Only one of the ways to say coordinates looks at the region.
                (0, false) if self.coordinates != Coordinates::CropAndResize => None,
                _ => inputs.known(i + 1, name)?,
            });
        }
        self.infer_type(inputs.ty(0)?, self.named(&known))
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        vec![self.resample(x, self.named(inputs), &outputs[0])]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let known: Vec<Option<Tensor>> =
            inputs.iter().map(|v| v.and_then(|v| mir.constant_of(v).cloned())).collect();
        let known: Vec<_> = known.iter().map(Option::as_ref).collect();
        vec![self.expand_plan(mir, x, self.named(&known))]
    }
}

/// What [`Resize`] was before version 10: asymmetric coordinates, the floor of which is the nearest. Scales are
/// an attribute (7), or the second operand (9).
#[derive(Clone, Debug, PartialEq)]
pub struct Upsample {
    resize: Resize,
    scales: Option<Vec<f64>>,
}

impl Upsample {
    fn scales(&self) -> Option<Tensor> {
        let scales = self.scales.as_ref()?;
        Some(Tensor::from_f64s(Type::new(DType::F64, [scales.len()]), scales.iter().copied()))
    }
}

impl Op for Upsample {
    const NAME: &'static str = "Upsample";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let scales = match attrs.opset() < 9 {
            true => {
                let missing = || ErrorKind::wrong("attribute \"scales\" is missing");
                Some(attrs.floats("scales")?.ok_or_else(missing)?)
            }
            false => None,
        };
        let linear = attrs.choice("mode", &["nearest", "linear"])? == 1;
        let resize = Resize {
            mode: if linear { Mode::Linear } else { Mode::Nearest },
            coordinates: Coordinates::Asymmetric,
            nearest: Nearest::Floor,
            cubic: -0.75,
            exclude_outside: false,
            antialias: false,
            extrapolation: 0.0,
            axes: None,
            policy: 0,
            scales_only: true,
        };
        Ok(Upsample { resize, scales })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let own = self.scales();
        let count = if own.is_some() { 1 } else { 2 };
        inputs.arity(count, count)?;
        let scales = match &own {
            Some(scales) => Some(scales),
            None => inputs.known(1, "scales")?,
        };
        self.resize.infer_type(inputs.ty(0)?, [None, scales, None])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let own = self.scales();
        let scales = own.as_ref().or(inputs.get(1).copied().flatten());
        vec![self.resize.resample(x, [None, scales, None], &outputs[0])]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let given = inputs.get(1).copied().flatten().and_then(|v| mir.constant_of(v).cloned());
        let scales = self.scales().or(given);
        vec![self.resize.expand_plan(mir, x, [None, scales.as_ref(), None])]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{definition, refused};

    #[test]
    fn coordinates() {
        let x = "f32[1,1,4]=1,2,3,4";
        let sizes = |n: usize| format!("const i64[3]=1,1,{n}");
        let y = definition("Resize mode=linear", &[x, "-", "-", &sizes(2)]);
        assert_eq!(y[0].f64s(), [1.5, 3.5]);
        let node = "Resize mode=linear coordinate_transformation_mode=align_corners";
        assert_eq!(definition(node, &[x, "-", "-", &sizes(2)])[0].f64s(), [1.0, 4.0]);
        let y = definition("Upsample mode=nearest @7 scales=[1.0,1.0,2.0]", &[x]);
        assert_eq!(y[0].f64s(), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
    }

    #[test]
    fn misfits_are_refused() {
        refused("Resize", &["f32[1,2]", "-", "const f32[1]=2"]);
        refused("Resize", &["f32[1,2]", "-", "const f32[2]=1,-2"]);
        refused("Resize", &["f32[1,2]", "-", "f32[2]=1,2"]);
        refused("Resize", &["f32[1,2]"]);
        refused("Resize", &["f32[1,0]", "-", "-", "const i64[2]=1,3"]);
        refused("Resize", &["f32[1,2]", "-", "const f32[2]=1,1e30"]);
        refused("Resize", &["f32[1,2]", "-", "-", "const i64[2]=1,99999999"]);
        refused("Upsample @7", &["f32[1,2]"]);
    }
}
