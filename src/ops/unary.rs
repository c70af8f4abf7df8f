//! Functions of one argument without attributes, element by element. Each row of the table is an
//! operator: the element types that it has, its tolerance, its definition on 64-bit floats and on
//! integers, and its expansion as a scalar expression.

use super::formula::Formula;
use super::tools::{self, FLOATS, INTEGERS, NUMBERS, SIGNED};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir::expr::Ref;
use crate::mir::{self, Unary};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

macro_rules! unary {
    ($($(#[$doc:meta])* $Name:ident $dtypes:expr, $tolerance:expr, $float:expr, $int:expr, $expand:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name;

        impl Op for $Name {
            const NAME: &'static str = stringify!($Name);
            const TOLERANCE: Tolerance = $tolerance;

            fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
                Ok($Name)
            }

            fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
                inputs.arity(1, 1)?;
                let ty = inputs.ty(0)?;
                tools::dtype_in(ty, &$dtypes, &$dtypes)?;
                Ok(vec![ty.clone()])
            }

            fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
                let (float, int): (fn(f64) -> f64, fn(i128) -> i128) = ($float, $int);
                inputs[0].map(|x| tools::map_one(x, &outputs[0], float, int)).into_iter().collect()
            }

            fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
                let build: fn(&mut Formula, Ref) -> Ref = $expand;
                inputs[0].map(|x| {
                    let mut f = Formula::new(mir.ty(x).dtype);
                    let operand = f.operand(0);
                    let result = build(&mut f, operand);
                    mir.map(f.finish(result), &[x])
                }).into_iter().collect()
            }
        }
    )*};
}

/// The definition on integers of what is defined on floats only.
const FLOATS_ONLY: fn(i128) -> i128 = |x| x;

unary! {
    /// Magnitude; of NaN, NaN; of -0, 0; of the lowest integer, itself.
    Abs NUMBERS, Tolerance::Exact, f64::abs, i128::abs, |f, x| {
        if f.dtype().is_float() || f.dtype().is_signed() { f.abs(x) } else { x }
    };
    /// Negation; of the lowest integer, itself.
    Neg SIGNED, Tolerance::Exact, |x| -x, |x| -x, Formula::neg;
    /// -1, 0 or 1; of NaN, NaN; of -0, -0.
    Sign NUMBERS, Tolerance::Exact, |x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x },
        i128::signum, |f, x| f.unary(Unary::Sign, x);
    /// 1 / x; of zeros, infinities.
    Reciprocal FLOATS, Tolerance::Ulps(1), |x| 1.0 / x, FLOATS_ONLY, |f, x| {
        let one = f.lit(1.0);
        f.div(one, x)
    };
    /// Square root; NaN below zero; of -0, -0.
    Sqrt FLOATS, Tolerance::Ulps(1), f64::sqrt, FLOATS_ONLY, Formula::sqrt;
    /// e to the power of x.
    Exp FLOATS, Tolerance::Ulps(2), f64::exp, FLOATS_ONLY, Formula::exp;
    /// Natural logarithm; NaN below zero; of zero, minus infinity.
    Log FLOATS, Tolerance::Ulps(2), f64::ln, FLOATS_ONLY, Formula::log;
    /// The largest integer that is not larger; of -0, infinities and NaN, the same.
    Floor FLOATS, Tolerance::Exact, f64::floor, FLOATS_ONLY, |f, x| f.unary(Unary::Floor, x);
    /// The smallest integer that is not smaller; of -0, infinities and NaN, the same.
    Ceil FLOATS, Tolerance::Exact, f64::ceil, FLOATS_ONLY, |f, x| f.unary(Unary::Ceil, x);
    /// The nearest integer, ties to even; of -0, infinities and NaN, the same.
    Round FLOATS, Tolerance::Exact, f64::round_ties_even, FLOATS_ONLY, Formula::round;
    /// The error function.
    Erf FLOATS, Tolerance::Ulps(4), tools::erf, FLOATS_ONLY, Formula::erf;
    /// Sine; of infinities, NaN.
    Sin FLOATS, Tolerance::Relative(1e-6), f64::sin, FLOATS_ONLY, |f, x| f.unary(Unary::Sin, x);
    /// Cosine; of infinities, NaN.
    Cos FLOATS, Tolerance::Relative(1e-6), f64::cos, FLOATS_ONLY, |f, x| f.unary(Unary::Cos, x);
    /// Tangent; of infinities, NaN.
    Tan FLOATS, Tolerance::Relative(1e-5), f64::tan, FLOATS_ONLY, |f, x| f.unary(Unary::Tan, x);
    /// Arc sine; NaN beyond -1 and 1.
    Asin FLOATS, Tolerance::Relative(1e-6), f64::asin, FLOATS_ONLY, |f, x| f.unary(Unary::Asin, x);
    /// Arc cosine; NaN beyond -1 and 1.
    Acos FLOATS, Tolerance::Relative(1e-6), f64::acos, FLOATS_ONLY, |f, x| f.unary(Unary::Acos, x);
    /// Arc tangent.
    Atan FLOATS, Tolerance::Relative(1e-6), f64::atan, FLOATS_ONLY, |f, x| f.unary(Unary::Atan, x);
    /// Hyperbolic sine.
    Sinh FLOATS, Tolerance::Relative(1e-6), f64::sinh, FLOATS_ONLY, |f, x| f.unary(Unary::Sinh, x);
    /// Hyperbolic cosine.
    Cosh FLOATS, Tolerance::Relative(1e-6), f64::cosh, FLOATS_ONLY, |f, x| f.unary(Unary::Cosh, x);
    /// Inverse hyperbolic sine.
    Asinh FLOATS, Tolerance::Relative(1e-6), f64::asinh, FLOATS_ONLY, |f, x| f.unary(Unary::Asinh, x);
    /// Inverse hyperbolic cosine; NaN below 1.
    Acosh FLOATS, Tolerance::Relative(1e-6), f64::acosh, FLOATS_ONLY, |f, x| f.unary(Unary::Acosh, x);
    /// Inverse hyperbolic tangent; of -1 and 1, infinities; NaN beyond.
    Atanh FLOATS, Tolerance::Relative(1e-6), f64::atanh, FLOATS_ONLY, |f, x| f.unary(Unary::Atanh, x);
    /// Hyperbolic tangent.
    Tanh FLOATS, Tolerance::Ulps(4), f64::tanh, FLOATS_ONLY, Formula::tanh;
    /// 1 / (1 + exp(-x)).
    Sigmoid FLOATS, Tolerance::Ulps(4), |x| 1.0 / (1.0 + (-x).exp()), FLOATS_ONLY, Formula::sigmoid;
    /// max(x, 0); of NaN, NaN; of -0, a zero of either sign.
    Relu SIGNED, Tolerance::Exact, |x| if x < 0.0 { 0.0 } else { x }, |x| x.max(0), |f, x| {
        let zero = f.lit(0.0);
        f.max(x, zero)
    };
    /// x max(0, min(1, x / 6 + 1 / 2)); of minus infinity, NaN.
    HardSwish FLOATS, Tolerance::Relative(1e-6), |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0), FLOATS_ONLY, |f, x| {
        let scaled = f.scale(x, 1.0 / 6.0);
        let (shifted, zero, one) = (f.offset(scaled, 0.5), f.lit(0.0), f.lit(1.0));
        let below = f.min(shifted, one);
        let gate = f.max(below, zero);
        f.mul(x, gate)
    };
    /// log(1 + exp(x)), without overflow.
    Softplus FLOATS, Tolerance::Relative(1e-6), |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), FLOATS_ONLY, Formula::softplus;
    /// x / (1 + |x|); of infinities, NaN.
    Softsign FLOATS, Tolerance::Ulps(4), |x| x / (1.0 + x.abs()), FLOATS_ONLY, |f, x| {
        let magnitude = f.abs(x);
        let sum = f.offset(magnitude, 1.0);
        f.div(x, sum)
    };
    /// x tanh(softplus(x)); of minus infinity, NaN. With n = e^x (e^x + 2) it is x n / (n + 2), and
    /// beyond 20 the fraction is 1.
    Mish FLOATS, Tolerance::Relative(1e-6), |x| x * (x.max(0.0) + (-x.abs()).exp().ln_1p()).tanh(), FLOATS_ONLY, |f, x| {
        let most = f.lit(20.0);
        let bounded = f.min(x, most);
        let e = f.exp(bounded);
        let plus_two = f.offset(e, 2.0);
        let n = f.mul(e, plus_two);
        let denominator = f.offset(n, 2.0);
        let fraction = f.div(n, denominator);
        f.mul(x, fraction)
    };
    /// Negation of booleans.
    Not [DType::Bool], Tolerance::Exact, |x| x, |x| 1 - x, Formula::not;
    /// Negation of every bit of integers.
    BitwiseNot INTEGERS, Tolerance::Exact, |x| x, |x| !x, Formula::not;
}

#[cfg(test)]
mod tests {
    use crate::error::Class;
    use crate::ops::tests::infer;
    use crate::types::DType::*;

    #[test]
    fn types() {
        assert_eq!(infer("Abs", &[(I8, &[2, 3])]).expect("fits")[0].to_string(), "i8[2, 3]");
        assert_eq!(infer("Exp", &[(I32, &[2])]).expect_err("integers").class, Class::Wrong);
        assert_eq!(infer("Neg", &[(U8, &[2])]).expect_err("unsigned").class, Class::Wrong);
        assert_eq!(infer("Not", &[(F32, &[2])]).expect_err("floats").class, Class::Wrong);
        assert!(infer("Exp", &[]).is_err() && infer("Exp", &[(F32, &[]), (F32, &[])]).is_err());
    }
}
