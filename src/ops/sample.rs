//! Pictures that are read at places between their elements.

use super::formula::Formula;
use super::gather::ramp;
use super::tools::{self, FLOATS, NUMBERS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir::expr::Ref;
use crate::mir;
use crate::tensor::Tensor;
use crate::types::{DType, Type, strides};

#[derive(Clone, Copy, PartialEq, Debug)]
enum Mode {
    Linear,
    Nearest,
    Cubic,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// The picture `[N, C, spatial..]` at the places of a grid `[N, spatial'.., d]`: coordinates from -1 to 1, the last
/// axis' first, which mean the centres of the outermost elements (`align_corners`) or their outer edges. What is
/// near is joined by linear or cubic (a = -0.75) weights. Outside are zeros, the elements at the edge, or the
/// picture's reflections. A coordinate that is no number reads zeros, where these are outside, else any element.
#[derive(Clone, Debug, PartialEq)]
pub struct GridSample {
    mode: Mode,
    padding: Padding,
    align: bool,
}

/// The parameter of the cubic weights.
const CUBIC: f64 = -0.75;

/// Corners that are joined at once.
const AT_ONCE: usize = 4;

/// The weights of the four taps around a place with this fraction, from the definition.
fn cubic(t: f64) -> [f64; 4] {
    let a = CUBIC;
    let outer = |d: f64| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
    let inner = |d: f64| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
    [outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)]
}

impl GridSample {
    /// Taps along an axis, and the first one's distance from the place rounded down.
    fn taps(&self) -> (usize, f64) {
        match self.mode {
            Mode::Nearest => (1, 0.0),
            Mode::Linear => (2, 0.0),
            Mode::Cubic => (4, -1.0),
        }
    }

    /// Where the picture ends along an axis of this extent, for coordinates in elements.
    fn ends(&self, extent: usize) -> (f64, f64) {
        let last = extent as f64 - 1.0;
        if self.align { (0.0, last) } else { (-0.5, last + 0.5) }
    }

    /// A place outside, by the definition.
    fn inside(&self, x: f64, extent: usize) -> f64 {
        let (low, high) = self.ends(extent);
        match self.padding {
            _ if x >= low && x <= high => x,
            Padding::Zeros => x,
            Padding::Border => x.clamp(0.0, extent as f64 - 1.0),
            // Both ends are one place.
            Padding::Reflection if high <= low => low,
            Padding::Reflection => {
                let range = high - low;
                let beyond = if x < low { low - x } else { x - high };
                let turns = (beyond / range).trunc();
                let rest = beyond - turns * range;
                let from_low = (x < low) == (turns % 2.0 == 0.0);
                if from_low { low + rest } else { high - rest }
            }
        }
    }

    /// The same as an expression: a reflection counts from the low end.
    fn reflected(&self, f: &mut Formula, x: Ref, extent: usize) -> Ref {
        let (low, high) = self.ends(extent);
        if high <= low {
            return f.lit(low);
        }
        let moved = f.offset(x, -low);
        let away = f.abs(moved);
        let turns = f.scale(away, 1.0 / (high - low));
        let turns = f.trunc(turns);
        let whole = f.scale(turns, high - low);
        let rest = f.sub(away, whole);
        let half = f.scale(turns, 0.5);
        let even = f.trunc(half);
        let even = f.equal(half, even);
        let (low, high) = (f.lit(low), f.lit(high));
        let (up, down) = (f.add(low, rest), f.sub(high, rest));
        f.select(even, up, down)
    }

    /// The place along an axis, in elements, of a coordinate.
    fn place(&self, f: &mut Formula, coordinate: Ref, extent: usize) -> Ref {
        let (last, extent_f) = (extent as f64 - 1.0, extent as f64);
        let up = f.offset(coordinate, 1.0);
        let x = if self.align {
            f.scale(up, last / 2.0)
        } else {
            let scaled = f.scale(up, extent_f);
            let moved = f.offset(scaled, -1.0);
            f.scale(moved, 0.5)
        };
        let x = if self.mode == Mode::Nearest { f.round(x) } else { x };
        let (low, high) = self.ends(extent);
        let inside = match self.padding {
            // Where weights are not linear, taps are brought inside one by one.
            _ if self.mode == Mode::Cubic => return x,
            Padding::Zeros => return x,
            Padding::Border => clamped(f, x, extent),
            Padding::Reflection => self.reflected(f, x, extent),
        };
        let (low, high) = (f.lit(low), f.lit(high));
        let (below, above) = (f.less(x, low), f.greater(x, high));
        let outside = f.or(below, above);
        f.select(outside, inside, x)
    }

    /// The element that is a tap's, as a float: perhaps outside where there are zeros.
    fn tap(&self, f: &mut Formula, x: Ref, tap: usize) -> Ref {
        let base = f.floor(x);
        f.offset(base, self.taps().1 + tap as f64)
    }

    /// The weight of a tap.
    fn weight(&self, f: &mut Formula, x: Ref, tap: usize) -> Ref {
        let base = f.floor(x);
        let t = f.sub(x, base);
        match self.mode {
            Mode::Nearest => f.lit(1.0),
            Mode::Linear if tap == 1 => t,
            Mode::Linear => {
                let one = f.lit(1.0);
                f.sub(one, t)
            }
            Mode::Cubic => {
                // The distance from the tap, and the weight's polynomial in it.
                let a = CUBIC;
                let distance = match tap {
                    0 => f.offset(t, 1.0),
                    1 => t,
                    _ => {
                        let there = f.lit(tap as f64 - 1.0);
                        f.sub(there, t)
                    }
                };
                let terms = match tap {
                    0 | 3 => [a, -5.0 * a, 8.0 * a, -4.0 * a],
                    _ => [a + 2.0, -(a + 3.0), 0.0, 1.0],
                };
                let first = f.lit(terms[0]);
                terms[1..].iter().fold(first, |sum, &term| {
                    let product = f.mul(sum, distance);
                    f.offset(product, term)
                })
            }
        }
    }

    /// The taps of all axes, for each corner.
    fn corners(&self, axes: usize) -> Vec<Vec<usize>> {
        let count = self.taps().0;
        (0..count.pow(axes as u32))
            .map(|corner| (0..axes).map(|a| corner / count.pow((axes - 1 - a) as u32) % count).collect())
            .collect()
    }
}

/// The nearest element.
fn clamped(f: &mut Formula, x: Ref, extent: usize) -> Ref {
    let (zero, last) = (f.lit(0.0), f.lit(extent as f64 - 1.0));
    let low = f.max(x, zero);
    f.min(low, last)
}

impl Op for GridSample {
    const NAME: &'static str = "GridSample";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-4);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let modes = ["linear", "nearest", "cubic", "bilinear", "bicubic"];
        let all = [Mode::Linear, Mode::Nearest, Mode::Cubic, Mode::Linear, Mode::Cubic];
        let paddings = [Padding::Zeros, Padding::Border, Padding::Reflection];
        Ok(GridSample {
            mode: all[attrs.choice("mode", &modes)?],
            padding: paddings[attrs.choice("padding_mode", &["zeros", "border", "reflection"])?],
            align: attrs.flag("align_corners", false)?,
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (x, grid) = (inputs.ty(0)?, inputs.ty(1)?);
        tools::dtype_in(x, &FLOATS, &NUMBERS)?;
        tools::dtype_in(grid, &FLOATS, &FLOATS)?;
        let axes = x.rank().saturating_sub(2);
        let fits = axes > 0
            && grid.rank() == x.rank()
            && grid.dims[0] == x.dims[0]
            && grid.dims[axes + 1] == axes;
        if !fits {
            let kind = ErrorKind::wrong(format!("a grid {grid} does not fit a picture {x}"));
            return Err(kind.help("for [N, C, D1, .., Dr] it must be [N, E1, .., Er, r]"));
        }
        if axes > 3 || self.mode == Mode::Cubic && axes > 2 {
            return Err(ErrorKind::unsupported(format!("pictures of {axes} axes in this mode")));
        }
        if x.dims[2..].contains(&0) && grid.elements() > 0 {
            return Err(ErrorKind::wrong(format!("the picture {x} is empty")));
        }
        let dims = [&x.dims[..2], &grid.dims[1..=axes]].concat();
        Ok(vec![tools::sized(x.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x), Some(grid)] = inputs else { return vec![] };
        let (dims, axes) = (x.dims(), x.dims().len() - 2);
        let (pixels, coordinates) = (x.f64s(), grid.f64s());
        let spatial = &dims[2..];
        let size: usize = spatial.iter().product();
        let places: usize = outputs[0].dims[2..].iter().product();
        let (count, first) = self.taps();
        let mut values = Vec::with_capacity(outputs[0].elements());
        for row in 0..dims[0] * dims[1] {
            for place in 0..places {
                let at = ((row / dims[1].max(1)) * places + place) * axes;
                // The taps of each axis: their elements, if there are any, and weights.
                let taps: Vec<Vec<(Option<usize>, f64)>> = (0..axes)
                    .map(|a| {
                        let (extent, c) = (spatial[a], coordinates[at + axes - 1 - a]);
                        let n = extent as f64;
                        let x = if self.align { (c + 1.0) / 2.0 * (n - 1.0) } else { ((c + 1.0) * n - 1.0) / 2.0 };
                        let x = if self.mode == Mode::Nearest { x.round_ties_even() } else { x };
                        let x = if self.mode == Mode::Cubic { x } else { self.inside(x, extent) };
                        let t = x - x.floor();
                        let weights = match self.mode {
                            Mode::Nearest => vec![1.0],
                            Mode::Linear => vec![1.0 - t, t],
                            Mode::Cubic => cubic(t).to_vec(),
                        };
                        let element = |i: f64| match self.padding {
                            Padding::Zeros => (i >= 0.0 && i < n).then_some(i as usize),
                            Padding::Border => Some(i.clamp(0.0, n - 1.0) as usize),
                            Padding::Reflection => {
                                Some((self.inside(i, extent) as usize).min(extent - 1))
                            }
                        };
                        let tap = |i: usize| (element(x.floor() + first + i as f64), weights[i]);
                        (0..count).map(tap).collect()
                    })
                    .collect();
                let sum = self.corners(axes).into_iter().map(|corner| {
                    let mut at = Some(0);
                    let mut weight = 1.0;
                    for (a, &tap) in corner.iter().enumerate() {
                        let (element, w) = taps[a][tap];
                        at = at.zip(element).map(|(at, element)| at * spatial[a] + element);
                        weight *= w;
                    }
                    at.map_or(0.0, |at| pixels[row * size + at] * weight)
                });
                values.push(sum.sum());
            }
        }
        vec![Tensor::from_f64s(outputs[0].clone(), values)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(x), Some(grid)] = inputs else { return vec![] };
        let (dims, ty) = (mir.dims(x), &outputs[0]);
        let (axes, batch, channels) = (dims.len() - 2, dims[0], dims[1]);
        if ty.elements() == 0 {
            return vec![mir.constant(Tensor::zeros(ty.clone()))];
        }
        let spatial = &dims[2..];
        let (size, places) =
            (spatial.iter().product::<usize>(), ty.dims[2..].iter().product::<usize>());
        let last = mir.channels_last(x);
        let table = mir.reshape(last, [batch * size, channels]);
        // Elements are counted in lanes of the coordinates' width.
        let wide = mir.ty(grid).dtype == DType::F64 || i32::try_from(batch * size).is_err();
        let (float, int) = if wide { (DType::F64, DType::I64) } else { (DType::F32, DType::I32) };
        let grid = mir.cast(grid, float);
        let grid = mir.reshape(grid, [batch, places, axes]);
        let operands: Vec<mir::Value> = (0..axes)
            .map(|a| {
                let column = mir.narrow(grid, 2, axes - 1 - a, 1);
                mir.reshape(column, [batch, places])
            })
            .collect();
        let first = (batch > 1).then(|| {
            let first = ramp(mir, 2, 0, batch, size as i64);
            mir.cast(first, int)
        });
        let moves = strides(spatial);
        let mut sum: Option<mir::Value> = None;
        for corners in self.corners(axes).chunks(AT_ONCE) {
            let mut parts = vec![];
            for corner in corners {
                let mut f = Formula::new(float);
                let at: Vec<Ref> = (0..axes)
                    .map(|a| {
                        let coordinate = f.operand(a);
                        self.place(&mut f, coordinate, spatial[a])
                    })
                    .collect();
                // The same terms, for each of the three that follow from them.
                let (mut weight, mut there, mut flat) = (None, None, None);
                for (a, &tap) in corner.iter().enumerate() {
                    let mut element = self.tap(&mut f, at[a], tap);
                    let own = self.weight(&mut f, at[a], tap);
                    weight = Some(weight.map_or(own, |w| f.mul(w, own)));
                    if self.padding == Padding::Zeros {
                        let (zero, end) = (f.lit(0.0), f.lit(spatial[a] as f64 - 1.0));
                        let (low, high) = (f.greater_equal(element, zero), f.less_equal(element, end));
                        let inside = f.and(low, high);
                        there = Some(there.map_or(inside, |t| f.and(t, inside)));
                    }
                    if self.padding == Padding::Reflection {
                        element = self.reflected(&mut f, element, spatial[a]);
                    }
                    let element = clamped(&mut f, element, spatial[a]);
                    let element = f.cast(int, element);
                    f.set_dtype(int);
                    let term = f.scale(element, moves[a] as f64);
                    flat = Some(flat.map_or(term, |sum| f.add(sum, term)));
                    f.set_dtype(float);
                }
                let expr = |result: Option<Ref>, f: &Formula| result.map(|r| f.copy(r));
                let (weight, there) = (expr(weight, &f), expr(there, &f));
                let Some(flat) = flat else { return vec![] };
                let mut with_first = operands.clone();
                let flat = match first {
                    Some(first) => {
                        with_first.push(first);
                        let first = f.operand(axes);
                        f.add(flat, first)
                    }
                    None => flat,
                };
                let flat = mir.map(f.finish(flat), &with_first);
                let elements = mir.gather(table, flat, 0);
                let column = |mir: &mut mir::Builder, expr: mir::Expr| {
                    let value = mir.map(expr, &operands);
                    mir.reshape(value, [batch, places, 1])
                };
                let weight = match (self.mode, weight) {
                    (Mode::Nearest, _) | (_, None) => None,
                    (_, Some(weight)) => Some(column(mir, weight)),
                };
                let there = there.map(|there| column(mir, there));
                parts.push((elements, weight, there));
            }
            sum = Some(joined(mir, sum, &parts, ty.dtype, float));
        }
        let Some(sum) = sum else { return vec![] };
        let last = mir.reshape(sum, [&[batch], &ty.dims[2..], &[channels]].concat());
        vec![mir.channels_first(last)]
    }
}

/// What was summed so far, and the weighted elements of some corners.
fn joined(
    mir: &mut mir::Builder,
    sum: Option<mir::Value>,
    parts: &[(mir::Value, Option<mir::Value>, Option<mir::Value>)],
    dtype: DType,
    float: DType,
) -> mir::Value {
    let mut operands: Vec<mir::Value> = sum.into_iter().collect();
    let mut f = Formula::new(dtype);
    let mut total = sum.map(|_| f.operand(0));
    for &(elements, weight, there) in parts {
        let mut next = |f: &mut Formula, value| {
            operands.push(value);
            f.operand(operands.len() - 1)
        };
        let mut term = next(&mut f, elements);
        if let Some(weight) = weight {
            let weight = next(&mut f, weight);
            let weight = if float == dtype { weight } else { f.cast(dtype, weight) };
            term = f.mul(term, weight);
        }
        if let Some(there) = there {
            let (there, zero) = (next(&mut f, there), f.lit(0.0));
            term = f.select(there, term, zero);
        }
        total = Some(total.map_or(term, |sum| f.add(sum, term)));
    }
    let result = total.unwrap_or_else(|| f.lit(0.0));
    mir.map(f.finish(result), &operands)
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::infer;
    use crate::types::DType::*;

    #[test]
    fn dims() {
        let sample = |x: &[usize], grid: &[usize]| infer("GridSample", &[(F32, x), (F32, grid)]);
        let found = sample(&[2, 3, 4, 5], &[2, 6, 7, 2]).expect("fits");
        assert_eq!(found[0].to_string(), "f32[2, 3, 6, 7]");
        assert!(sample(&[2, 3, 4, 5], &[1, 6, 7, 2]).is_err());
        assert!(sample(&[2, 3, 4, 5], &[2, 6, 7, 3]).is_err());
        assert!(sample(&[2, 3, 4, 5], &[2, 6, 2]).is_err());
        assert!(sample(&[2, 3, 0, 5], &[2, 6, 7, 2]).is_err());
    }

    #[test]
    fn one_element_reflects_to_itself() {
        let padding = super::Padding::Reflection;
        let sample = super::GridSample { mode: super::Mode::Linear, padding, align: true };
        assert_eq!([-3.0, 0.0, 2.5].map(|x| sample.inside(x, 1)), [0.0; 3]);
    }
}
