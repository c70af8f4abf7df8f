//! What follows from an operand's type alone.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// The operand's dimensions `start..end` as a list of i64; negative bounds count from the end, both
/// are clamped.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    start: i64,
    end: Option<i64>,
}

impl Shape {
    /// The result for an operand of this type.
    pub fn value(&self, ty: &Type) -> Tensor {
        let rank = ty.rank() as i64;
        let clamp = |i: i64| if i < 0 { i.saturating_add(rank) } else { i }.clamp(0, rank) as usize;
        let (start, end) = (clamp(self.start), clamp(self.end.unwrap_or(rank)));
        let dims: Vec<i64> = ty.dims[start..end.max(start)].iter().map(|&d| d as i64).collect();
        Tensor::from_i64s([dims.len()], &dims)
    }
}

impl Op for Shape {
    const NAME: &'static str = "Shape";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Shape { start: attrs.int_or("start", 0)?, end: attrs.int("end")? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        Ok(vec![self.value(inputs.ty(0)?).ty().clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], _: &[Type]) -> Vec<Tensor> {
        inputs[0].map(|x| self.value(x.ty())).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let value = inputs[0].map(|x| self.value(mir.ty(x)));
        value.map(|v| mir.constant(v)).into_iter().collect()
    }
}

/// The number of the operand's elements, as a scalar i64.
#[derive(Clone, Debug, PartialEq)]
pub struct Size;

impl Size {
    /// The result for an operand of this type.
    pub fn value(&self, ty: &Type) -> Tensor {
        Tensor::from_i64s([], &[ty.elements() as i64])
    }
}

impl Op for Size {
    const NAME: &'static str = "Size";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Size)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        Ok(vec![tools::sized(DType::I64, [])?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], _: &[Type]) -> Vec<Tensor> {
        inputs[0].map(|x| self.value(x.ty())).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let value = inputs[0].map(|x| self.value(mir.ty(x)));
        value.map(|v| mir.constant(v)).into_iter().collect()
    }
}
