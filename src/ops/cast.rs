//! Conversions, and operators that hand their operand on.

use super::tools;
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// The definition of conversion: floats to integers truncate (what does not fit gives any value),
/// integers to narrower ones wrap, to `Bool` it is whether an element is not zero, floats are rounded to
/// nearest even.
fn convert(x: &Tensor, ty: &Type) -> Tensor {
    if x.ty().dtype == ty.dtype {
        x.clone()
    } else if x.ty().dtype.is_float() {
        Tensor::from_f64s(ty.clone(), x.f64s())
    } else if x.ty().dtype == DType::U64 && ty.dtype.is_float() {
        Tensor::from_f64s(ty.clone(), tools::integers(x).into_iter().map(|v| v as f64))
    } else {
        Tensor::from_ints(ty.clone(), x.ints())
    }
}

/// The element type with this number in ONNX's `TensorProto.DataType`.
pub(super) fn element_type(number: i64, attribute: &str) -> Result<DType, ErrorKind> {
    let dtype = u32::try_from(number).ok().and_then(DType::from_onnx);
    dtype.ok_or_else(|| {
        let message = format!("attribute \"{attribute}\" is {number}");
        let all: Vec<_> = DType::ALL.iter().map(|t| format!("{} ({t})", t.onnx())).collect();
        // Texts, complex numbers, and floats and integers of 8 bits and less are ONNX's too.
        let known = matches!(number, 8 | 14 | 15 | 17..=26);
        let kind = if known { ErrorKind::unsupported(message) } else { ErrorKind::wrong(message) };
        kind.help(format!("element types are: {}", all.join(", ")))
    })
}

/// Conversion of every element to the element type with the number `to` in ONNX (see [`convert`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Cast {
    to: DType,
}

impl Op for Cast {
    const NAME: &'static str = "Cast";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        // Both matter for floats of 8 bits only.
        attrs.ignore("saturate");
        attrs.ignore("round_mode");
        Ok(Cast { to: element_type(tools::required(attrs.int("to")?, "to")?, "to")? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        Ok(vec![tools::sized(self.to, inputs.ty(0)?.dims.clone())?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        inputs[0].map(|x| convert(x, &outputs[0])).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        inputs[0].map(|x| mir.cast(x, self.to)).into_iter().collect()
    }
}

/// Conversion of every element of the first operand to the second's element type (see [`convert`]).
#[derive(Clone, Debug, PartialEq)]
pub struct CastLike;

impl Op for CastLike {
    const NAME: &'static str = "CastLike";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        attrs.ignore("saturate");
        attrs.ignore("round_mode");
        Ok(CastLike)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        Ok(vec![tools::sized(inputs.ty(1)?.dtype, inputs.ty(0)?.dims.clone())?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        inputs[0].map(|x| convert(x, &outputs[0])).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        inputs[0].map(|x| mir.cast(x, outputs[0].dtype)).into_iter().collect()
    }
}

/// The same bits as elements of another type of the same width. Between floats and integers, they have to be known
/// when the model is compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct BitCast {
    to: DType,
}

impl Op for BitCast {
    const NAME: &'static str = "BitCast";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(BitCast { to: element_type(tools::required(attrs.int("to")?, "to")?, "to")? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let ty = inputs.ty(0)?;
        if ty.dtype.bytes() != self.to.bytes() {
            let kind = ErrorKind::wrong(format!("{} as {}", ty.dtype, self.to));
            return Err(kind.help("both must have the same width"));
        }
        // Bytes that are no booleans would be made ones.
        let integers = ty.dtype.is_integer() && self.to.is_integer() || ty.dtype == DType::Bool && self.to != DType::Bool;
        if ty.dtype != self.to && !integers && inputs.constant(0).is_none() {
            let kind = ErrorKind::unsupported(format!("bits of {} as {}, known only at run time", ty.dtype, self.to));
            return Err(kind.help("integers as others of their width can be done"));
        }
        Ok(vec![ty.with_dtype(self.to)])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        inputs[0].and_then(|x| Tensor::from_bytes(outputs[0].clone(), x.bytes().clone())).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let known = mir.constant_of(x).map(|x| x.bytes().clone());
        match known.and_then(|bytes| Tensor::from_bytes(outputs[0].clone(), bytes)) {
            Some(tensor) => vec![mir.constant(tensor)],
            None => vec![mir.cast(x, self.to)],
        }
    }
}

/// The operand.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity;

impl Op for Identity {
    const NAME: &'static str = "Identity";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Identity)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        Ok(vec![inputs.ty(0)?.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], _: &[Type]) -> Vec<Tensor> {
        inputs[0].into_iter().cloned().collect()
    }

    fn expand(&self, _: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        inputs[0].into_iter().collect()
    }
}

/// The operand, as in inference; the second result, the mask of what is kept, is true everywhere
/// (before operator set 10: 1, of the operand's type). Training with a ratio is not done.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    boolean_mask: bool,
}

impl Op for Dropout {
    const NAME: &'static str = "Dropout";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        attrs.ignore("seed");
        if attrs.opset() < 12 {
            attrs.ignore("ratio");
        }
        Ok(Dropout { boolean_mask: attrs.opset() >= 10 })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 3)?;
        let ty = inputs.ty(0)?;
        tools::dtype_in(ty, &tools::FLOATS, &tools::FLOATS)?;
        if let Some(training) = inputs.known(2, "training_mode")? {
            tools::single(training.ty(), "training_mode")?;
            if training.int_at(0) != 0 && ratio(inputs)? != Some(0.0) {
                return Err(ErrorKind::unsupported("training")
                    .help("leave training_mode out, or make it false, or make the ratio 0"));
            }
        }
        let mask = if self.boolean_mask { DType::Bool } else { ty.dtype };
        Ok(vec![ty.clone(), ty.with_dtype(mask)])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let ones = std::iter::repeat_n(1.0, outputs[1].elements());
        let mask = Tensor::from_f64s(outputs[1].clone(), ones);
        inputs[0].map(|x| vec![x.clone(), mask]).unwrap_or_default()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let one = mir.scalar(outputs[1].dtype, 1.0);
        vec![x, mir.broadcast(one, outputs[1].dims.clone())]
    }
}

/// The ratio, where it is known; half where it is left out.
fn ratio(inputs: &Operands<'_>) -> Result<Option<f64>, ErrorKind> {
    if let Some(ty) = inputs.get(1) {
        tools::single(ty, "the ratio")?;
        return Ok(inputs.constant(1).map(|r| r.f64_at(0)));
    }
    Ok(Some(0.5))
}

#[cfg(test)]
mod tests {
    use crate::error::Class;
    use crate::ops::tests::{infer, infer_with, int};
    use crate::types::DType::*;

    #[test]
    fn types() {
        let cast = |to| infer_with("Cast", &[("to", int(to))], &[(F32, &[2])]);
        assert_eq!(cast(7).expect("i64")[0].to_string(), "i64[2]");
        assert_eq!(cast(8).expect_err("text").class, Class::Unsupported);
        assert_eq!(cast(99).expect_err("nothing").class, Class::Wrong);
        assert_eq!(infer("Cast", &[(F32, &[2])]).expect_err("no type").class, Class::Wrong);
        assert_eq!(infer("Dropout", &[(F32, &[2])]).expect("fits")[1].to_string(), "bool[2]");
    }
}
