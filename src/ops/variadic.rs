//! Element-wise functions of any number of operands, with broadcasting. Each row of the table is an
//! operator: its element types, its tolerance, how two are combined (on 64-bit floats, on integers, in
//! MIR), and whether the result is divided by the number of operands.

use super::tools::{self, FLOATS, NUMBERS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir::{self, Binary};
use crate::tensor::Tensor;
use crate::types::Type;

macro_rules! variadic {
    ($($(#[$doc:meta])* $Name:ident $dtypes:expr, $tolerance:expr, $float:expr, $int:expr, $binary:expr, $mean:expr;)*) => {$(
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
                inputs.arity(1, usize::MAX)?;
                let types = inputs.types()?;
                tools::dtype_in(types[0], &$dtypes, &$dtypes)?;
                Ok(vec![tools::broadcast_types(&types)?])
            }

            fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
                let (float, int): (fn(f64, f64) -> f64, fn(i128, i128) -> i128) = ($float, $int);
                let dims = &outputs[0].dims;
                let operands: Vec<_> = inputs.iter().flatten().map(|x| tools::broadcast_to(x, dims)).collect();
                let elements = 0..outputs[0].elements();
                if !outputs[0].dtype.is_float() {
                    let columns: Vec<_> = operands.iter().map(tools::integers).collect();
                    let combined = elements.filter_map(|i| columns.iter().map(|c| c[i]).reduce(int));
                    return vec![tools::from_integers(&outputs[0], combined)];
                }
                let columns: Vec<_> = operands.iter().map(Tensor::f64s).collect();
                let count = if $mean { columns.len() as f64 } else { 1.0 };
                let combined = elements.filter_map(|i| columns.iter().map(|c| c[i]).reduce(float));
                vec![Tensor::from_f64s(outputs[0].clone(), combined.map(|v| v / count))]
            }

            fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], _: &[Type]) -> Vec<mir::Value> {
                let combined = inputs.iter().copied().flatten().reduce(|a, b| mir.binary($binary, a, b));
                combined.map(|v| {
                    if $mean { mir.binary_scalar(Binary::Mul, v, 1.0 / inputs.len() as f64) } else { v }
                }).into_iter().collect()
            }
        }
    )*};
}

variadic! {
    /// The smallest; NaN if one is NaN.
    Min NUMBERS, Tolerance::Exact, |a, b| if a.is_nan() || a < b { a } else { b }, i128::min, Binary::Min, false;
    /// The largest; NaN if one is NaN.
    Max NUMBERS, Tolerance::Exact, |a, b| if a.is_nan() || a > b { a } else { b }, i128::max, Binary::Max, false;
    /// The sum.
    Sum FLOATS, Tolerance::Relative(1e-6), |a, b| a + b, |a, _| a, Binary::Add, false;
    /// The sum divided by the number of operands.
    Mean FLOATS, Tolerance::Relative(1e-6), |a, b| a + b, |a, _| a, Binary::Add, true;
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::infer;
    use crate::types::DType::*;

    #[test]
    fn types() {
        let operands: &[(_, &[usize])] = &[(F32, &[2, 1]), (F32, &[3]), (F32, &[])];
        assert_eq!(infer("Max", operands).expect("fits")[0].to_string(), "f32[2, 3]");
        assert!(infer("Max", &[]).is_err());
        assert!(infer("Max", &[(F32, &[2]), (F32, &[3])]).is_err());
        assert!(infer("Sum", &[(I32, &[2])]).is_err());
    }
}
