//! Softmax and its relatives.
//!
//! From version 13 of the operator set on they work along one axis (the last, if the model does not
//! say). Before, the operand is taken for a matrix whose rows are all axes from `axis` (1) on.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Comparison, Expr, Reduction, Unary};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// What is normalized together.
#[derive(Clone, Debug, PartialEq)]
struct Rows {
    axis: i64,
    /// All axes from `axis` on, else only that one.
    all: bool,
}

impl Rows {
    fn parse(attrs: &mut Attrs) -> Result<Rows, ErrorKind> {
        let all = attrs.opset() < 13;
        Ok(Rows { axis: attrs.int_or("axis", if all { 1 } else { -1 })?, all })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let x = inputs.ty(0)?;
        tools::dtype_in(x, &tools::FLOATS, &tools::FLOATS)?;
        // As rows of a matrix, an axis past the last one is allowed.
        if !(self.all && self.axis == x.rank() as i64) {
            tools::axis(self.axis, x.rank())?;
        }
        Ok(vec![x.clone()])
    }

    /// Extents before, along and behind what is normalized together.
    fn split(&self, dims: &[usize]) -> [usize; 3] {
        let rank = dims.len();
        let axis = if self.axis < 0 { self.axis + rank as i64 } else { self.axis } as usize;
        let end = if self.all { rank } else { axis + 1 };
        [0..axis, axis..end, end..rank].map(|part| dims[part].iter().product())
    }

    /// Every row replaced by what `f` gives for it.
    fn reference(&self, x: &Tensor, f: fn(&mut [f64])) -> Tensor {
        if x.ty().elements() == 0 {
            return x.clone();
        }
        let [outer, along, inner] = self.split(x.dims());
        let mut values = x.f64s();
        let mut row = vec![0.0; along];
        for o in 0..outer {
            for i in 0..inner {
                let at = |k: usize| (o * along + k) * inner + i;
                (0..along).for_each(|k| row[k] = values[at(k)]);
                f(&mut row);
                (0..along).for_each(|k| values[at(k)] = row[k]);
            }
        }
        Tensor::from_f64s(x.ty().clone(), values)
    }

    /// `f(x, axis)` for X in the dimensions that make one axis of what is normalized together.
    fn expand(
        &self,
        mir: &mut mir::Builder,
        x: mir::Value,
        f: fn(&mut mir::Builder, mir::Value, usize) -> mir::Value,
    ) -> mir::Value {
        let dims = mir.dims(x);
        if self.all {
            let [outer, along, _] = self.split(&dims);
            let x = mir.reshape(x, [outer, along]);
            let y = f(mir, x, 1);
            return mir.reshape(y, dims);
        }
        let axis = if self.axis < 0 { self.axis + dims.len() as i64 } else { self.axis } as usize;
        f(mir, x, axis)
    }
}

macro_rules! softmax {
    ($($(#[$doc:meta])* $Name:ident $tolerance:expr, $reference:expr, $expand:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name {
            rows: Rows,
        }

        impl Op for $Name {
            const NAME: &'static str = stringify!($Name);
            const TOLERANCE: Tolerance = $tolerance;

            fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
                Ok($Name { rows: Rows::parse(attrs)? })
            }

            fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
                self.rows.infer(inputs)
            }

            fn reference(&self, inputs: &[Option<&Tensor>], _: &[Type]) -> Vec<Tensor> {
                inputs[0].map(|x| self.rows.reference(x, $reference)).into_iter().collect()
            }

            fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
                inputs[0].map(|x| self.rows.expand(mir, x, $expand)).into_iter().collect()
            }
        }
    )*};
}

softmax! {
    /// `exp(x - max) / sum of exp(x - max)`. NaN for a row with a NaN or an infinity, and for one of
    /// minus infinities only.
    Softmax Tolerance::Relative(1e-5), |row| {
        let max = largest(row);
        row.iter_mut().for_each(|v| *v = (*v - max).exp());
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|v| *v /= sum);
    }, softmax;

    /// `x - max - log(sum of exp(x - max))`. NaN as for softmax.
    LogSoftmax Tolerance::Relative(1e-5), logarithms, log_softmax;

    /// 1 for the first of the largest elements (a NaN counts as larger than all others), 0 for the rest.
    Hardmax Tolerance::Exact, |row| {
        let best = (0..row.len()).fold(0, |best, i| {
            let (a, b) = (row[best], row[i]);
            if !a.is_nan() && (b.is_nan() || b > a) { i } else { best }
        });
        (0..row.len()).for_each(|i| row[i] = f64::from(u8::from(i == best)));
    }, |mir, x, axis| {
        let ty = mir.ty(x).clone();
        let best = mir.arg_reduce(x, true, axis, false);
        let extent = ty.dims[axis];
        let mut dims = vec![1; ty.rank()];
        dims[axis] = extent;
        let numbers = Tensor::from_ints(Type::new(DType::I64, dims), 0..extent as i64);
        let numbers = mir.constant(numbers);
        let hit = mir.compare(Comparison::Equal, best, numbers);
        mir.cast(hit, ty.dtype)
    };
}

/// Softmax along `axis`, in MIR.
pub(super) fn softmax(mir: &mut mir::Builder, x: mir::Value, axis: usize) -> mir::Value {
    let powers = powers(mir, x, axis).1;
    let sum = mir.reduce(Reduction::Sum, powers, &[axis]);
    mir.binary(Binary::Div, powers, sum)
}

/// The logarithm of softmax along `axis`, in MIR.
pub(super) fn log_softmax(mir: &mut mir::Builder, x: mir::Value, axis: usize) -> mir::Value {
    let (max, powers) = powers(mir, x, axis);
    let sum = mir.reduce(Reduction::Sum, powers, &[axis]);
    let mut e = Expr::new();
    let [x_, max_, sum_] = [0, 1, 2].map(|i| e.operand(i));
    let shifted = e.binary(Binary::Sub, x_, max_);
    let log = e.unary(Unary::Log, sum_);
    let result = e.binary(Binary::Sub, shifted, log);
    mir.map(e.returning(result), &[x, max, sum])
}

/// The logarithm of softmax along `axis`, by the definition.
pub(super) fn reference_log_softmax(x: &Tensor, axis: usize) -> Tensor {
    Rows { axis: axis as i64, all: false }.reference(x, logarithms)
}

fn logarithms(row: &mut [f64]) {
    let max = largest(row);
    let sum: f64 = row.iter().map(|v| (v - max).exp()).sum();
    row.iter_mut().for_each(|v| *v = *v - max - sum.ln());
}

fn largest(row: &[f64]) -> f64 {
    row.iter().fold(f64::NEG_INFINITY, |a, &b| if b.is_nan() || b > a { b } else { a })
}

/// The largest element along `axis`, and `exp(x - it)`.
fn powers(mir: &mut mir::Builder, x: mir::Value, axis: usize) -> (mir::Value, mir::Value) {
    let max = mir.reduce(Reduction::Max, x, &[axis]);
    let mut e = Expr::new();
    let (x_, max_) = (e.operand(0), e.operand(1));
    let shifted = e.binary(Binary::Sub, x_, max_);
    let result = e.unary(Unary::Exp, shifted);
    (max, mir.map(e.returning(result), &[x, max]))
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::refused;

    #[test]
    fn axes_are_checked() {
        refused("Softmax axis=2", &["f32[2,3]"]);
        refused("Softmax axis=-3", &["f32[2,3]"]);
        refused("Softmax", &["i32[2,3]"]);
    }
}
