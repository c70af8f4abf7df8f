//! Running sums and products along an axis.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// The attributes of both.
#[derive(Clone, Debug, PartialEq)]
struct Scan {
    exclusive: bool,
    reverse: bool,
}

/// Element types of both.
const TYPES: [DType; 8] = {
    use DType::*;
    [F32, F64, F16, BF16, I32, I64, U32, U64]
};

impl Scan {
    fn parse(attrs: &mut Attrs) -> Result<Scan, ErrorKind> {
        Ok(Scan { exclusive: attrs.flag("exclusive", false)?, reverse: attrs.flag("reverse", false)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (ty, axis) = (inputs.ty(0)?, inputs.ty(1)?);
        tools::dtype_in(ty, &TYPES, &TYPES)?;
        tools::dtype_in(axis, &[DType::I32, DType::I64], &[DType::I32, DType::I64])?;
        tools::single(axis, "the axis")?;
        if let Some(axis) = inputs.known(1, "the axis")? {
            tools::axis(axis.int_at(0), ty.rank())?;
        }
        Ok(vec![ty.clone()])
    }

    /// From the value of nothing, and how an element is added to it.
    fn reference(
        &self,
        inputs: &[Option<&Tensor>],
        nothing: u8,
        float: impl Fn(f64, f64) -> f64,
        int: impl Fn(i64, i64) -> i64,
    ) -> Vec<Tensor> {
        let &[Some(x), Some(axis)] = inputs else { return vec![] };
        let ty = x.ty();
        let axis = tools::axis(axis.int_at(0), ty.rank()).unwrap_or(0);
        let (extent, step) = (ty.dims[axis], ty.strides()[axis] as usize);
        // Each line of elements, in the order in which it is walked.
        let line = |start: usize| {
            let place = move |k: usize| start + if self.reverse { extent - 1 - k } else { k } * step;
            (0..extent).map(place)
        };
        let starts = (0..ty.elements()).filter(|i| i / step % extent == 0);
        if ty.dtype.is_float() {
            let values = x.f64s();
            let mut results = vec![0.0; values.len()];
            for start in starts {
                let mut running = f64::from(nothing);
                for i in line(start) {
                    let next = float(running, values[i]);
                    results[i] = if self.exclusive { running } else { next };
                    running = next;
                }
            }
            return vec![Tensor::from_f64s(ty.clone(), results)];
        }
        let values = x.ints();
        let mut results = vec![0; values.len()];
        for start in starts {
            let mut running = i64::from(nothing);
            for i in line(start) {
                let next = int(running, values[i]);
                results[i] = if self.exclusive { running } else { next };
                running = next;
            }
        }
        vec![Tensor::from_ints(ty.clone(), results)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        op: mir::Reduction,
    ) -> Vec<mir::Value> {
        let &[Some(x), Some(axis)] = inputs else { return vec![] };
        let axis = mir.constant_of(axis).map_or(0, |a| a.int_at(0));
        let axis = tools::axis(axis, mir.ty(x).rank()).unwrap_or(0);
        let Scan { exclusive, reverse } = *self;
        vec![mir.scan(x, mir::Scan { op, axis, reverse, exclusive })]
    }
}

/// For each element the sum of all up to it along the axis that the second operand names (known when the
/// model is compiled): with it, or with `exclusive` without it; with `reverse` from the end. Integers
/// wrap.
#[derive(Clone, Debug, PartialEq)]
pub struct CumSum(Scan);

impl Op for CumSum {
    const NAME: &'static str = "CumSum";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(CumSum(Scan::parse(attrs)?))
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        self.0.infer(inputs)
    }

    fn reference(&self, inputs: &[Option<&Tensor>], _: &[Type]) -> Vec<Tensor> {
        self.0.reference(inputs, 0, |sum, x| sum + x, i64::wrapping_add)
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        self.0.expand(mir, inputs, mir::Reduction::Sum)
    }
}

/// For each element the product of all up to it along an axis, as [`CumSum`].
#[derive(Clone, Debug, PartialEq)]
pub struct CumProd(Scan);

impl Op for CumProd {
    const NAME: &'static str = "CumProd";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(CumProd(Scan::parse(attrs)?))
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        self.0.infer(inputs)
    }

    fn reference(&self, inputs: &[Option<&Tensor>], _: &[Type]) -> Vec<Tensor> {
        self.0.reference(inputs, 1, |product, x| product * x, i64::wrapping_mul)
    }

    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
        self.0.expand(mir, inputs, mir::Reduction::Product)
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{Known, infer_known};
    use crate::types::DType::*;

    #[test]
    fn the_axis_is_known_and_in_range() {
        let scan = |axis| infer_known("CumSum", 21, &[], &[Known::Type(F32, &[2, 3]), axis]);
        assert_eq!(scan(Known::Ints(&[-1])).expect("fits")[0].to_string(), "f32[2, 3]");
        assert!(scan(Known::Ints(&[2])).is_err());
        assert!(scan(Known::Ints(&[0, 1])).is_err());
        assert!(scan(Known::Type(I64, &[])).is_err());
        assert!(scan(Known::Type(F32, &[])).is_err());
    }
}
