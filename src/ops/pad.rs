//! Borders.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::Tensor;
use crate::types::Type;

/// A border before and after each axis (of `axes`, or all): of a constant, of the outermost element
/// (`edge`), of the elements mirrored at the outermost ones (`reflect`), or of those of the other end
/// (`wrap`); the last two repeat where the border is wider than the tensor. A negative width takes
/// elements away, which happens first. Widths and the constant are attributes before operator set 11,
/// then operands; the border of an empty axis can be a constant only.
#[derive(Clone, Debug, PartialEq)]
pub struct Pad {
    mode: Mode,
    attributes: Option<(Vec<i64>, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

/// The elements of an axis that stay, and the widths of its border.
#[derive(Clone, Copy, Debug)]
struct Border {
    start: usize,
    count: usize,
    low: usize,
    high: usize,
}

impl Border {
    fn new(extent: usize, low: i64, high: i64) -> Result<Border, ErrorKind> {
        let size = |width: i64| usize::try_from(width).unwrap_or(0);
        let cut = |width: i64| if width < 0 { width.unsigned_abs() as usize } else { 0 };
        let start = cut(low);
        let count = extent.checked_sub(start).and_then(|rest| rest.checked_sub(cut(high)));
        let count = count.ok_or_else(|| {
            ErrorKind::wrong(format!("the widths {low} and {high} take more than {extent} elements"))
        })?;
        Ok(Border { start, count, low: size(low), high: size(high) })
    }

    fn extent(&self) -> usize {
        self.count.saturating_add(self.low).saturating_add(self.high)
    }
}

/// The border of each axis of a tensor with these dimensions.
fn borders(dims: &[usize], pads: &[i64], axes: Option<&[i64]>) -> Result<Vec<Border>, ErrorKind> {
    let axes = match axes {
        Some(axes) => tools::axes(axes, dims.len())?,
        None => (0..dims.len()).collect(),
    };
    let n = axes.len();
    if pads.len() != 2 * n {
        let kind = ErrorKind::wrong(format!("{} widths for {n} axes", pads.len()));
        return Err(kind.help("two for each axis: all before it, then all after it"));
    }
    let mut borders = vec![];
    for (axis, &extent) in dims.iter().enumerate() {
        let i = axes.iter().position(|&a| a == axis);
        let (low, high) = i.map_or((0, 0), |i| (pads[i], pads[n + i]));
        borders.push(Border::new(extent, low, high)?);
    }
    Ok(borders)
}

impl Pad {
    /// The borders, from operands that are known.
    fn borders<'a>(
        &self,
        dims: &[usize],
        operand: impl Fn(usize) -> Option<&'a Tensor>,
    ) -> Result<Vec<Border>, ErrorKind> {
        let (pads, axes) = match &self.attributes {
            Some((pads, _)) => (pads.clone(), None),
            None => (operand(1).map(Tensor::ints).unwrap_or_default(), operand(3).map(Tensor::ints)),
        };
        borders(dims, &pads, axes.as_deref())
    }
}

impl Op for Pad {
    const NAME: &'static str = "Pad";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let mode = attrs.choice("mode", &["constant", "reflect", "edge", "wrap"])?;
        let mode = [Mode::Constant, Mode::Reflect, Mode::Edge, Mode::Wrap][mode];
        let attributes = if attrs.opset() < 11 {
            let pads = tools::required(attrs.ints("pads")?, "pads")?;
            Some((pads, attrs.float_or("value", 0.0)?))
        } else {
            None
        };
        Ok(Pad { mode, attributes })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let ty = inputs.ty(0)?;
        if self.attributes.is_some() {
            inputs.arity(1, 1)?;
        } else {
            inputs.arity(2, 4)?;
            for (i, what) in [(1, "the list of widths"), (3, "the list of axes")] {
                if let Some(list) = inputs.known(i, what)? {
                    tools::int_list(list, what)?;
                }
            }
            if let Some(value) = inputs.get(2) {
                tools::single(value, "the constant")?;
                tools::broadcast_types(&[&Type::scalar(ty.dtype), &Type::scalar(value.dtype)])?;
            }
        }
        let borders = self.borders(&ty.dims, |i| inputs.constant(i))?;
        let empty = borders.iter().position(|b| b.count == 0 && b.extent() > 0);
        if let Some(axis) = empty.filter(|_| self.mode != Mode::Constant) {
            return Err(ErrorKind::wrong(format!("axis {axis} is empty, and its border is not a constant")));
        }
        Ok(vec![tools::sized(ty.dtype, borders.iter().map(Border::extent).collect::<Vec<_>>())?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let operand = |i: usize| inputs.get(i).copied().flatten();
        let borders = self.borders(x.dims(), operand).unwrap_or_default();
        let ty = &outputs[0];
        let fill = match (&self.attributes, operand(2)) {
            (Some((_, value)), _) => Tensor::from_f64s(Type::scalar(ty.dtype), [*value]),
            (None, Some(value)) => value.clone(),
            (None, None) => Tensor::zeros(Type::scalar(ty.dtype)),
        };
        // Where each position along each axis comes from.
        let sources: Vec<Vec<Option<usize>>> = borders
            .iter()
            .map(|b| (0..b.extent()).map(|i| source(self.mode, b, i)).collect())
            .collect();
        let strides = x.ty().strides();
        let mut data = Vec::with_capacity(ty.bytes());
        crate::tensor::for_each_index(&ty.dims, |index| {
            let place = index.iter().enumerate().try_fold(0, |flat, (axis, &i)| {
                sources[axis][i].map(|from| flat + from * strides[axis] as usize)
            });
            data.extend_from_slice(place.map_or(fill.element(0), |place| x.element(place)));
        });
        Tensor::from_bytes(ty.clone(), data.into()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let operand = |i: usize| inputs.get(i).copied().flatten().and_then(|v| mir.constant_of(v));
        let borders = self.borders(&mir.dims(x), operand).unwrap_or_default();
        let (starts, counts): (Vec<_>, Vec<_>) = borders.iter().map(|b| (b.start, b.count)).unzip();
        let steps = vec![1; starts.len()];
        let starts: Vec<_> = starts.iter().zip(&counts).map(|(&s, &n)| if n == 0 { 0 } else { s }).collect();
        let kept = mir.slice(x, &starts, &counts, &steps);
        if self.mode == Mode::Constant {
            let (low, high): (Vec<_>, Vec<_>) = borders.iter().map(|b| (b.low, b.high)).unzip();
            return vec![match (&self.attributes, inputs.get(2).copied().flatten()) {
                (None, Some(value)) => surround(mir, kept, &low, &high, value),
                (attributes, _) => {
                    mir.pad(kept, &low, &high, attributes.as_ref().map_or(0.0, |(_, value)| *value))
                }
            }];
        }
        let axes = borders.iter().enumerate().filter(|(_, b)| b.low > 0 || b.high > 0);
        vec![axes.fold(kept, |x, (axis, border)| extend(mir, x, axis, border, self.mode))]
    }
}

/// The element of the operand's axis that position `i` of the result's takes; none in a constant border.
fn source(mode: Mode, border: &Border, i: usize) -> Option<usize> {
    let (count, mut at) = (border.count as i64, i as i64 - border.low as i64);
    while at < 0 || at >= count {
        at = match mode {
            Mode::Constant => return None,
            Mode::Edge => at.clamp(0, count - 1),
            Mode::Wrap => at.rem_euclid(count),
            Mode::Reflect if count == 1 => 0,
            Mode::Reflect if at < 0 || at >= 2 * (count - 1) => at.rem_euclid(2 * (count - 1)),
            Mode::Reflect => 2 * (count - 1) - at,
        };
    }
    Some(border.start + at as usize)
}

/// A border of one value; one that is not known, or that a float does not hold, is put around in pieces.
fn surround(
    mir: &mut mir::Builder,
    x: mir::Value,
    low: &[usize],
    high: &[usize],
    value: mir::Value,
) -> mir::Value {
    let held = |value: &&Tensor| {
        let rounded = Tensor::from_f64s(value.ty().clone(), [value.f64_at(0)]);
        value.ty().dtype.is_float() || rounded.bytes() == value.bytes()
    };
    if let Some(value) = mir.constant_of(value).filter(held).map(|value| value.f64_at(0)) {
        return mir.pad(x, low, high, value);
    }
    let scalar = mir.reshape(value, []);
    (0..low.len()).fold(x, |x, axis| {
        let mut edge = |width| {
            let mut dims = mir.dims(x);
            dims[axis] = width;
            (width > 0).then(|| mir.broadcast(scalar, dims))
        };
        let pieces = [edge(low[axis]), Some(x), edge(high[axis])];
        mir.concat(&pieces.into_iter().flatten().collect::<Vec<_>>(), axis)
    })
}

/// The axis with its border, in runs of elements that lie at one distance.
fn extend(mir: &mut mir::Builder, x: mir::Value, axis: usize, border: &Border, mode: Mode) -> mir::Value {
    let (count, low) = (border.count, border.low);
    let period = if mode == Mode::Reflect { (2 * count - 2).max(1) } else { count };
    // Position i of a border that goes on for ever shows element (i - low) mod period, mirrored in its
    // second half.
    let phase = |i: usize| (i + period - low % period) % period;
    let mut runs: Vec<(usize, usize, i64)> = vec![];
    let total = border.extent();
    let mut i = 0;
    while i < total {
        let (start, length, step) = match mode {
            Mode::Edge if i < low => (0, low, 0),
            Mode::Edge if i >= low + count => (count - 1, border.high, 0),
            Mode::Constant | Mode::Edge => (0, count, 1),
            _ if count == 1 => (0, total, 0),
            Mode::Wrap => (phase(i), count - phase(i), 1),
            // Upwards to the last element, then downwards to the second.
            Mode::Reflect if phase(i) < count => (phase(i), count - phase(i), 1),
            Mode::Reflect => (period - phase(i), period - phase(i), -1),
        };
        let length = length.min(total - i);
        runs.push((start, length, step));
        i += length;
    }
    if runs.len() > MOST_RUNS {
        let run = |&(start, length, step): &(usize, usize, i64)| (0..length as i64).map(move |k| start as i64 + k * step);
        let indices: Vec<i64> = runs.iter().flat_map(run).collect();
        let indices = mir.constant(Tensor::from_i64s([indices.len()], &indices));
        return mir.gather(x, indices, axis);
    }
    let dims = mir.dims(x);
    let pieces: Vec<_> = runs
        .into_iter()
        .map(|(start, length, step)| {
            let (mut starts, mut steps, mut counts) = (vec![0; dims.len()], vec![1; dims.len()], dims.clone());
            (starts[axis], steps[axis]) = (start, if step == 0 { 1 } else { step });
            counts[axis] = if step == 0 { 1 } else { length };
            let piece = mir.slice(x, &starts, &counts, &steps);
            counts[axis] = length;
            mir.broadcast(piece, counts)
        })
        .collect();
    mir.concat(&pieces, axis)
}

/// More pieces than this are gathered instead.
const MOST_RUNS: usize = 16;

#[cfg(test)]
mod tests {
    use crate::error::ErrorKind;
    use crate::ops::tests::{Known, infer_known, text};
    use crate::types::DType::*;

    fn pad(mode: &str, dims: &[usize], pads: &[i64]) -> Result<String, ErrorKind> {
        let operands = [Known::Type(F32, dims), Known::Ints(pads)];
        infer_known("Pad", 21, &[("mode", text(mode))], &operands).map(|t| t[0].to_string())
    }

    #[test]
    fn widths() {
        assert_eq!(pad("constant", &[2, 3], &[1, 0, -1, 2]).expect("fits"), "f32[2, 5]");
        assert_eq!(pad("constant", &[0], &[1, 1]).expect("fits"), "f32[2]");
        assert_eq!(pad("wrap", &[2], &[5, 0]).expect("fits"), "f32[7]");
        assert!(pad("edge", &[0], &[1, 1]).is_err());
        assert!(pad("constant", &[2], &[-1, -2]).is_err());
        assert!(pad("constant", &[2], &[i64::MIN, 0]).is_err());
        assert!(pad("constant", &[2], &[i64::MAX, i64::MAX]).is_err());
        assert!(pad("constant", &[2], &[1]).is_err());
        assert!(pad("mirror", &[2], &[1, 1]).is_err());
    }
}
