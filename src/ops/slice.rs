//! Parts of a tensor at regular distances.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::Tensor;
use crate::types::Type;

/// Along each of `axes` (without them, the first ones), the elements from `start` on in steps of `step`
/// up to, and without, `end`. Negative bounds count from the end, then both are clamped. All are
/// attributes before operator set 10 (without steps), then operands.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    attributes: Option<Bounds>,
}

#[derive(Clone, Debug, PartialEq)]
struct Bounds {
    starts: Vec<i64>,
    ends: Vec<i64>,
    axes: Option<Vec<i64>>,
    steps: Option<Vec<i64>>,
}

/// One axis: the first element, how many, and their distance.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    count: usize,
    step: i64,
}

impl Part {
    /// By the specification, for an axis of this extent.
    fn new(extent: usize, start: i64, end: i64, step: i64) -> Part {
        // 128 bits hold every sum and difference of what comes from a file.
        let (extent, step) = (extent as i128, i128::from(step));
        let from_end = |i: i64| if i < 0 { i128::from(i) + extent } else { i128::from(i) };
        let (start, end) = (from_end(start), from_end(end));
        let (start, distance) = if step > 0 {
            let start = start.clamp(0, extent);
            (start, end.clamp(0, extent) - start)
        } else {
            let start = start.clamp(0, (extent - 1).max(0));
            (start, start - end.clamp(-1, extent - 1))
        };
        let count = if extent == 0 || distance <= 0 { 0 } else { (distance - 1) / step.abs() + 1 };
        if count == 0 {
            return Part { start: 0, count: 0, step: 1 };
        }
        // A step that leads nowhere may be any.
        let step = if count == 1 { 1 } else { step as i64 };
        Part { start: start as usize, count: count as usize, step }
    }
}

impl Bounds {
    /// What is taken of each axis of a tensor with these dimensions.
    fn parts(&self, dims: &[usize]) -> Result<Vec<Part>, ErrorKind> {
        let n = self.starts.len();
        let lengths = [
            ("ends", Some(&self.ends)),
            ("axes", self.axes.as_ref()),
            ("steps", self.steps.as_ref()),
        ];
        for (what, list) in lengths {
            let Some(list) = list.filter(|list| list.len() != n) else { continue };
            return Err(ErrorKind::wrong(format!("{n} starts and {} {what}", list.len())));
        }
        if n > dims.len() {
            let message = format!("{n} starts for an operand of rank {}", dims.len());
            return Err(ErrorKind::wrong(message));
        }
        let axes = match &self.axes {
            Some(axes) => tools::axes(axes, dims.len())?,
            None => (0..n).collect(),
        };
        let whole = |&count: &usize| Part { start: 0, count, step: 1 };
        let mut parts: Vec<_> = dims.iter().map(whole).collect();
        for (i, axis) in axes.into_iter().enumerate() {
            let step = self.steps.as_ref().map_or(1, |steps| steps[i]);
            if step == 0 {
                return Err(ErrorKind::wrong(format!("the step along axis {axis} is 0")));
            }
            parts[axis] = Part::new(dims[axis], self.starts[i], self.ends[i], step);
        }
        Ok(parts)
    }
}

/// The bounds from operands, as far as they are there.
fn from_operands<'a>(operand: impl Fn(usize) -> Option<&'a Tensor>) -> Bounds {
    let list = |i| operand(i).map(Tensor::ints);
    let (starts, ends) = (list(1).unwrap_or_default(), list(2).unwrap_or_default());
    Bounds { starts, ends, axes: list(3), steps: list(4) }
}

impl Op for Slice {
    const NAME: &'static str = "Slice";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        if attrs.opset() >= 10 {
            return Ok(Slice { attributes: None });
        }
        let starts = tools::required(attrs.ints("starts")?, "starts")?;
        let ends = tools::required(attrs.ints("ends")?, "ends")?;
        Ok(Slice { attributes: Some(Bounds { starts, ends, axes: attrs.ints("axes")?, steps: None }) })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        let ty = inputs.ty(0)?;
        let parts = match &self.attributes {
            Some(bounds) => {
                inputs.arity(1, 1)?;
                bounds.parts(&ty.dims)?
            }
            None => {
                inputs.arity(3, 5)?;
                for (i, what) in ["the list of starts", "the list of ends", "the list of axes", "the list of steps"].into_iter().enumerate() {
                    if let Some(list) = inputs.known(i + 1, what)? {
                        tools::int_list(list, what)?;
                    }
                }
                from_operands(|i| inputs.constant(i)).parts(&ty.dims)?
            }
        };
        Ok(vec![tools::sized(ty.dtype, parts.iter().map(|p| p.count).collect::<Vec<_>>())?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let bounds = from_operands(|i| inputs.get(i).copied().flatten());
        let parts = self.attributes.as_ref().unwrap_or(&bounds).parts(x.dims()).unwrap_or_default();
        let strides = x.ty().strides();
        let both = || parts.iter().zip(&strides);
        let base = both().map(|(part, stride)| part.start as i64 * stride).sum();
        let moves: Vec<_> = both().map(|(part, stride)| part.step.wrapping_mul(*stride)).collect();
        vec![x.strided(&outputs[0].dims[..], base, &moves)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let operand = |i: usize| inputs.get(i).copied().flatten().and_then(|v| mir.constant_of(v));
        let bounds = from_operands(operand);
        let bounds = self.attributes.as_ref().unwrap_or(&bounds);
        let parts = bounds.parts(&mir.dims(x)).unwrap_or_default();
        let starts: Vec<_> = parts.iter().map(|p| p.start).collect();
        let counts: Vec<_> = parts.iter().map(|p| p.count).collect();
        let steps: Vec<_> = parts.iter().map(|p| p.step).collect();
        vec![mir.slice(x, &starts, &counts, &steps)]
    }
}

#[cfg(test)]
mod tests {
    use crate::error::ErrorKind;
    use crate::ops::tests::{Known, infer_known};
    use crate::types::DType::*;

    fn slice(extent: usize, start: i64, end: i64, step: i64) -> Result<usize, ErrorKind> {
        let dims = [extent];
        let (start, end, step) = ([start], [end], [step]);
        let operands = [
            Known::Type(F32, &dims),
            Known::Ints(&start),
            Known::Ints(&end),
            Known::Ints(&[0]),
            Known::Ints(&step),
        ];
        infer_known("Slice", 13, &[], &operands).map(|types| types[0].dims[0])
    }

    #[test]
    fn bounds_are_clamped() {
        const MIN: i64 = i64::MIN;
        const MAX: i64 = i64::MAX;
        let cases = [
            (10, 0, 3, 1, 3),
            (10, -3, MAX, 1, 3),
            (10, MAX, MIN, -1, 10),
            (10, 9, MIN, MIN, 1),
            (10, MIN, MAX, MAX, 1),
            (10, 8, 2, -2, 3),
            (10, 2, 8, -1, 0),
            (10, 10, MAX, 1, 0),
            (0, 0, MAX, 1, 0),
            (0, MAX, MIN, -1, 0),
            (10, -1, -4, -1, 3),
            (1, 0, 1, 5, 1),
        ];
        for (extent, start, end, step, count) in cases {
            assert_eq!(slice(extent, start, end, step).ok(), Some(count), "{extent} {start} {end} {step}");
        }
        assert!(slice(10, 0, 3, 0).is_err());
    }
}
