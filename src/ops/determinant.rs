//! Determinants of matrices.

use super::formula::Formula;
use super::tools::{self, FLOATS};
use super::{Attrs, Op, Operands, Tolerance};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Comparison, Reduction, Unary};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// The determinants of the square matrices that the last two axes hold; 1 for those without elements. By elimination,
/// the element of the column that is largest in magnitude being the pivot.
#[derive(Clone, Debug, PartialEq)]
pub struct Det;

/// The most rows that are eliminated: each is a step of its own.
const MOST: usize = 128;

impl Op for Det {
    const NAME: &'static str = "Det";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-4);

    fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(Det)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(1, 1)?;
        let ty = inputs.ty(0)?;
        tools::dtype_in(ty, &FLOATS, &FLOATS)?;
        let [outer @ .., rows, columns] = &ty.dims[..] else {
            return Err(ErrorKind::wrong(format!("the operand is {ty}")).help("it must have two axes"));
        };
        if rows != columns {
            return Err(ErrorKind::wrong(format!("matrices of {rows} rows and {columns} columns"))
                .help("they must be square"));
        }
        if *rows > MOST {
            return Err(ErrorKind::limit(format!("matrices of {rows} rows")).help(format!("at most {MOST} are done")));
        }
        Ok(vec![ty.with_dims(outer)])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let &[Some(x)] = inputs else { return vec![] };
        let n = x.dims().last().copied().unwrap_or(0);
        let mut values = x.f64s();
        let determinant = |m: &mut [f64]| {
            let mut product = 1.0;
            for k in 0..n {
                let size = |&r: &usize| m[r * n + k].abs();
                let Some(pivot) = (k..n).max_by(|a, b| size(a).total_cmp(&size(b)).then(b.cmp(a))) else { break };
                if pivot != k {
                    (0..n).for_each(|j| m.swap(k * n + j, pivot * n + j));
                    product = -product;
                }
                product *= m[k * n + k];
                if m[k * n + k] == 0.0 {
                    return product;
                }
                for r in k + 1..n {
                    let factor = m[r * n + k] / m[k * n + k];
                    (k..n).for_each(|j| m[r * n + j] -= factor * m[k * n + j]);
                }
            }
            product
        };
        let count = outputs[0].elements();
        let all = (0..count).map(|i| determinant(&mut values[i * n * n..][..n * n]));
        let all: Vec<f64> = all.collect();
        vec![Tensor::from_f64s(outputs[0].clone(), all)]
    }

    /// Each step takes the pivot's row out, puts the first one into its place, and subtracts it from the others.
    fn expand(&self, mir: &mut mir::Builder, inputs: &[Option<mir::Value>], outputs: &[Type]) -> Vec<mir::Value> {
        let &[Some(x)] = inputs else { return vec![] };
        let ty = &outputs[0];
        let n = mir.dims(x).last().copied().unwrap_or(0);
        if ty.elements() == 0 || n == 0 {
            let ones = vec![1.0; ty.elements()];
            return vec![mir.constant(Tensor::from_f64s(ty.clone(), ones))];
        }
        let (count, float) = (ty.elements(), if ty.dtype == DType::F64 { DType::F64 } else { DType::F32 });
        let x = mir.cast(x, float);
        let mut rest = mir.reshape(x, [count, n, n]);
        let zero = mir.scalar(float, 0.0);
        let mut product: Option<mir::Value> = None;
        for size in (1..=n).rev() {
            let mut factor = mir.narrow(rest, 2, 0, 1);
            if size > 1 {
                let sizes = mir.unary(Unary::Abs, factor);
                let place = mir.arg_reduce(sizes, true, 1, false);
                let numbers = mir.constant(Tensor::from_i64s([1, size, 1], &(0..size as i64).collect::<Vec<_>>()));
                let is_pivot = mir.compare(Comparison::Equal, numbers, place);
                let only = mir.select(is_pivot, rest, zero);
                let pivot = mir.reduce(Reduction::Sum, only, &[1]);
                let first = mir.narrow(rest, 1, 0, 1);
                let swapped = mir.select(is_pivot, first, rest);
                let others = mir.narrow(swapped, 1, 1, size - 1);
                let lead = mir.narrow(pivot, 2, 0, 1);
                let mut f = Formula::new(float);
                let [other, column, pivot_, lead_] = [0, 1, 2, 3].map(|i| f.operand(i));
                let (ratio, none) = (f.div(column, lead_), f.lit(0.0));
                let singular = f.equal(lead_, none);
                let ratio = f.select(singular, none, ratio);
                let away = f.mul(ratio, pivot_);
                let result = f.sub(other, away);
                let column = mir.narrow(others, 2, 0, 1);
                let next = mir.map(f.finish(result), &[others, column, pivot, lead]);
                rest = mir.narrow(next, 2, 1, size - 1);
                // A row that changes places turns the sign.
                let mut f = Formula::new(float);
                let lead_ = f.operand(0);
                f.set_dtype(DType::I64);
                let (place_, none) = (f.operand(1), f.lit(0.0));
                let (stays, turned) = (f.equal(place_, none), f.neg(lead_));
                let signed = f.select(stays, lead_, turned);
                factor = mir.map(f.finish(signed), &[lead, place]);
            }
            product = Some(product.map_or(factor, |product| mir.binary(Binary::Mul, product, factor)));
        }
        let Some(product) = product else { return vec![] };
        let product = mir.reshape(product, ty.dims.clone());
        vec![mir.cast(product, ty.dtype)]
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{definition, refused};

    #[test]
    fn rows_change_places() {
        assert_eq!(definition("Det", &["f32[2,2]=0,1,1,0"])[0].f64s(), [-1.0]);
        assert_eq!(definition("Det", &["f32[2,2,2]=1,2,2,4,1,2,3,4"])[0].f64s(), [0.0, -2.0]);
        assert_eq!(definition("Det", &["f64[0,0]"])[0].f64s(), [1.0]);
        refused("Det", &["f32[2,3]"]);
        refused("Det", &["f32[3]"]);
        refused("Det", &["f32[129,129]"]);
    }
}
