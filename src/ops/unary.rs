//! Functions of one argument, element by element, on floats. Each row of the table is an operator: its
//! definition on 64-bit floats, and its expansion as a scalar expression.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir::{self, Expr, Unary};
use crate::tensor::Tensor;
use crate::types::Type;

macro_rules! unary {
    ($($(#[$doc:meta])* $Name:ident $tolerance:expr, $reference:expr, $expand:expr;)*) => {$(
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
                tools::dtype_in(ty, &tools::FLOATS, &tools::FLOATS)?;
                Ok(vec![ty.clone()])
            }

            fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
                let f: fn(f64) -> f64 = $reference;
                let values = inputs[0].map_or(vec![], Tensor::f64s);
                vec![Tensor::from_f64s(outputs[0].clone(), values.into_iter().map(f))]
            }

            fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
                let build: fn(&mut Expr, mir::expr::Ref) -> mir::expr::Ref = $expand;
                let mut e = Expr::new();
                let x = e.operand(0);
                let result = build(&mut e, x);
                inputs[0].map(|x| mir.map(e.returning(result), &[x])).into_iter().collect()
            }
        }
    )*};
}

unary! {
    /// Magnitude; of NaN, NaN; of -0, 0.
    Abs Tolerance::Exact, f64::abs, |e, x| e.unary(Unary::Abs, x);
    /// Negation.
    Neg Tolerance::Exact, |x| -x, |e, x| e.unary(Unary::Neg, x);
    /// Square root; NaN below zero; of -0, -0.
    Sqrt Tolerance::Ulps(1), f64::sqrt, |e, x| e.unary(Unary::Sqrt, x);
    /// e to the power of x.
    Exp Tolerance::Ulps(2), f64::exp, |e, x| e.unary(Unary::Exp, x);
    /// Natural logarithm; NaN below zero; of zero, minus infinity.
    Log Tolerance::Ulps(2), f64::ln, |e, x| e.unary(Unary::Log, x);
}
