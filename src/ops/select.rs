//! Choices and bounds, element by element.

use super::formula::Formula;
use super::tools::{self, FLOATS, NUMBERS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Comparison};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// The second operand where the first (booleans) is true, else the third, with broadcasting.
#[derive(Clone, Debug, PartialEq)]
pub struct Where;

impl Op for Where {
    const NAME: &'static str = "Where";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Where)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(3, 3)?;
        let condition = inputs.ty(0)?;
        tools::dtype_in(condition, &[DType::Bool], &[DType::Bool])?;
        let ty = tools::broadcast_types(&[inputs.ty(1)?, inputs.ty(2)?])?;
        Ok(vec![tools::sized(ty.dtype, tools::broadcast_dims(&condition.dims, &ty.dims)?)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(condition), Some(a), Some(b)] = inputs else { return vec![] };
        let ty = &outputs[0];
        let [condition, a, b] = [condition, a, b].map(|x| tools::broadcast_to(x, &ty.dims));
        let mut data = Vec::with_capacity(ty.bytes());
        for (i, &holds) in condition.bytes().iter().enumerate() {
            data.extend_from_slice(if holds != 0 { &a } else { &b }.element(i));
        }
        Tensor::from_bytes(ty.clone(), data.into()).into_iter().collect()
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let &[Some(condition), Some(a), Some(b)] = inputs else { return vec![] };
        vec![mir.select(condition, a, b)]
    }
}

/// min(max(x, low), high): bounds are attributes before operator set 11, then optional scalar operands.
/// Of NaN, NaN; where the bounds cross, the upper one.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    low: Option<f64>,
    high: Option<f64>,
}

impl Op for Clip {
    const NAME: &'static str = "Clip";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        if attrs.opset() >= 11 {
            return Ok(Clip { low: None, high: None });
        }
        let clip = Clip { low: attrs.float("min")?, high: attrs.float("max")? };
        if [clip.low, clip.high].into_iter().flatten().any(f64::is_nan) {
            return Err(ErrorKind::wrong("a bound is NaN"));
        }
        Ok(clip)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, if self.low.is_some() || self.high.is_some() { 1 } else { 3 })?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &NUMBERS, &NUMBERS)?;
        for bound in [inputs.get(1), inputs.get(2)].into_iter().flatten() {
            tools::single(bound, "a bound")?;
            tools::broadcast_types(&[x, bound])?;
        }
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let Some(x) = inputs[0] else { return vec![] };
        let operand = |i: usize| inputs.get(i).copied().flatten();
        if x.ty().dtype.is_float() {
            // Bounds are rounded to the element type first.
            let round = |v: f64| Tensor::from_f64s(Type::scalar(x.ty().dtype), [v]).f64_at(0);
            let low = operand(1).map(|b| b.f64_at(0)).or(self.low.map(round));
            let high = operand(2).map(|b| b.f64_at(0)).or(self.high.map(round));
            let clip = |x: f64| {
                let x = if low.is_some_and(|low| x < low) { low.unwrap_or(x) } else { x };
                if high.is_some_and(|high| x > high) { high.unwrap_or(x) } else { x }
            };
            return vec![Tensor::from_f64s(outputs[0].clone(), x.f64s().into_iter().map(clip))];
        }
        let bound = |b: Option<&Tensor>, other| b.map_or(other, |b| tools::integers(b)[0]);
        let (low, high) = (bound(operand(1), i128::MIN), bound(operand(2), i128::MAX));
        let clipped = tools::integers(x).into_iter().map(|x| x.max(low).min(high));
        vec![tools::from_integers(&outputs[0], clipped)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let Some(x) = inputs[0] else { return vec![] };
        let dtype = mir.ty(x).dtype;
        let mut clipped = x;
        for (i, attribute, op) in [(1, self.low, Binary::Max), (2, self.high, Binary::Min)] {
            if let Some(bound) = attribute {
                clipped = mir.binary_scalar(op, clipped, bound);
            }
            if let Some(bound) = inputs.get(i).copied().flatten() {
                let literal = mir.constant_of(bound).map(|b| b.f64_at(0)).filter(|_| dtype.is_float());
                clipped = match literal {
                    Some(value) => mir.binary_scalar(op, clipped, value),
                    None => {
                        let bound = mir.reshape(bound, []);
                        mir.binary(op, clipped, bound)
                    }
                };
            }
        }
        vec![clipped]
    }
}

/// Whether an element is NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct IsNaN;

impl Op for IsNaN {
    const NAME: &'static str = "IsNaN";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(IsNaN)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let ty = inputs.ty(0)?;
        tools::dtype_in(ty, &FLOATS, &FLOATS)?;
        Ok(vec![ty.with_dtype(DType::Bool)])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let values = inputs[0].map_or(vec![], Tensor::f64s);
        let flags = values.into_iter().map(|x| f64::from(x.is_nan()));
        vec![Tensor::from_f64s(outputs[0].clone(), flags)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        inputs[0].map(|x| mir.compare(Comparison::NotEqual, x, x)).into_iter().collect()
    }
}

/// Whether an element is infinite; attributes leave out positive or negative ones.
#[derive(Clone, Debug, PartialEq)]
pub struct IsInf {
    negative: bool,
    positive: bool,
}

impl Op for IsInf {
    const NAME: &'static str = "IsInf";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        let negative = attrs.flag("detect_negative", true)?;
        Ok(IsInf { negative, positive: attrs.flag("detect_positive", true)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let ty = inputs.ty(0)?;
        tools::dtype_in(ty, &FLOATS, &FLOATS)?;
        Ok(vec![ty.with_dtype(DType::Bool)])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let found = |x: f64| x.is_infinite() && if x > 0.0 { self.positive } else { self.negative };
        let values = inputs[0].map_or(vec![], Tensor::f64s);
        let flags = values.into_iter().map(|x| f64::from(found(x)));
        vec![Tensor::from_f64s(outputs[0].clone(), flags)]
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        let expanded = inputs[0].map(|x| {
            let mut f = Formula::new(mir.ty(x).dtype);
            let operand = f.operand(0);
            let (low, high) = (f.lit(f64::NEG_INFINITY), f.lit(f64::INFINITY));
            let mut result = match (self.negative, self.positive) {
                (true, _) => f.equal(operand, low),
                (false, true) => f.equal(operand, high),
                (false, false) => f.less(operand, low),
            };
            if self.negative && self.positive {
                let positive = f.equal(operand, high);
                result = f.or(result, positive);
            }
            mir.map(f.finish(result), &[x])
        });
        expanded.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::infer;
    use crate::types::DType::*;

    #[test]
    fn types() {
        let operands: &[(_, &[usize])] = &[(Bool, &[2, 1]), (I64, &[3]), (I64, &[])];
        assert_eq!(infer("Where", operands).expect("fits")[0].to_string(), "i64[2, 3]");
        assert!(infer("Where", &[(I32, &[2]), (I64, &[2]), (I64, &[2])]).is_err());
        assert!(infer("Where", &[(Bool, &[2]), (I64, &[2]), (F32, &[2])]).is_err());
        assert!(infer("Clip", &[(F32, &[2]), (F32, &[2])]).is_err());
        assert!(infer("Clip", &[(F32, &[2]), (F64, &[])]).is_err());
        assert_eq!(infer("Clip", &[(F32, &[]), (F32, &[1])]).expect("fits")[0].to_string(), "f32[]");
    }
}
