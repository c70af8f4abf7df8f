//! Cropping and padding around the middle.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::{Tensor, for_each_index};
use crate::types::Type;

/// The middle of the operand with the extents that the second operand gives, of `axes` or of all. Where
/// it is smaller, zeros are around it. What is taken away or put around is equal on both sides; an odd
/// one more is taken from or put on the high side.
#[derive(Clone, Debug, PartialEq)]
pub struct CenterCropPad {
    axes: Option<Vec<i64>>,
}

impl Op for CenterCropPad {
    const NAME: &'static str = "CenterCropPad";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(CenterCropPad { axes: attrs.ints("axes")? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (ty, shape) = (inputs.ty(0)?, inputs.known(1, "the shape")?);
        let shape = shape.map_or(Ok(vec![]), |s| tools::int_list(s, "the shape"))?;
        let axes = match &self.axes {
            Some(axes) => tools::axes(axes, ty.rank())?,
            None => (0..ty.rank()).collect(),
        };
        if shape.len() != axes.len() {
            let message = format!("{} extents for {} axes", shape.len(), axes.len());
            return Err(ErrorKind::wrong(message));
        }
        let mut dims = ty.dims.clone();
        for (axis, extent) in axes.into_iter().zip(tools::dims(&shape)?) {
            dims[axis] = extent;
        }
        Ok(vec![tools::sized(ty.dtype, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let (Some(x), ty) = (inputs[0], &outputs[0]) else { return vec![] };
        let (dims, strides) = (x.dims(), x.ty().strides());
        let zero = vec![0; ty.dtype.bytes()];
        let mut data = Vec::with_capacity(ty.bytes());
        for_each_index(&ty.dims, |index| {
            let place = index.iter().enumerate().try_fold(0, |flat, (axis, &i)| {
                let (old, new) = (dims[axis] as i64, ty.dims[axis] as i64);
                // Of the element at the middle's start: half of what is cut off, or less half of what is added.
                let shift = if old >= new { (old - new) / 2 } else { -((new - old) / 2) };
                let from = i as i64 + shift;
                (0..old).contains(&from).then(|| flat + (from * strides[axis]) as usize)
            });
            data.extend_from_slice(place.map_or(&zero[..], |place| x.element(place)));
        });
        Tensor::from_bytes(ty.clone(), data.into()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let pairs: Vec<_> = mir.dims(x).into_iter().zip(outputs[0].dims.clone()).collect();
        let counts: Vec<_> = pairs.iter().map(|&(old, new)| old.min(new)).collect();
        let starts: Vec<_> =
            pairs.iter().map(|&(old, new)| if new == 0 { 0 } else { old.saturating_sub(new) / 2 }).collect();
        let low: Vec<_> = pairs.iter().map(|&(old, new)| new.saturating_sub(old) / 2).collect();
        let high: Vec<_> = pairs.iter().map(|&(old, new)| new.saturating_sub(old).div_ceil(2)).collect();
        let kept = mir.slice(x, &starts, &counts, &vec![1; counts.len()]);
        vec![mir.pad(kept, &low, &high, 0.0)]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{Known, infer_known, ints};
    use crate::types::DType::*;

    #[test]
    fn extents() {
        let crop = |axes: &[i64], shape| {
            let operands = [Known::Type(F32, &[4, 5]), Known::Ints(shape)];
            infer_known("CenterCropPad", 21, &[("axes", ints(axes))], &operands).map(|t| t[0].to_string())
        };
        assert_eq!(crop(&[-1], &[9]).expect("fits"), "f32[4, 9]");
        assert!(crop(&[0], &[1, 2]).is_err() && crop(&[0, 0], &[1, 2]).is_err() && crop(&[0], &[-1]).is_err());
    }
}
