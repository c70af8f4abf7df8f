//! Matrix products.

use super::{Attrs, Op, Operands, Tolerance, tools};
use crate::error::ErrorKind;
use crate::mir::{self, Binary};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// Types that matrix products are specified for, all of which are done.
const NUMBERS: [DType; 8] = [
    DType::F32,
    DType::F64,
    DType::F16,
    DType::BF16,
    DType::I32,
    DType::I64,
    DType::U32,
    DType::U64,
];

/// NumPy's `matmul`: the product of the matrices in the last two axes, the other axes broadcast. An
/// operand of rank 1 is a row on the left and a column on the right, and its axis is not in the
/// result. Integers wrap. Over no elements, 0.
#[derive(Clone, Debug, PartialEq)]
pub struct MatMul;

impl Op for MatMul {
    const NAME: &'static str = "MatMul";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(MatMul)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 2)?;
        let (a, b) = (inputs.ty(0)?, inputs.ty(1)?);
        Ok(vec![product_type(a, b)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(a), Some(b)] = inputs else { return vec![] };
        vec![product(a, b, &outputs[0])]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(a), Some(b)] = *inputs else { return vec![] };
        vec![expand_product(mir, a, b, &outputs[0])]
    }
}

/// `alpha * A' B' + beta * C`, A' and B' transposed where `transA` and `transB` say so, C broadcast to
/// the result. Integers wrap; alpha and beta must be whole for them.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    alpha: f64,
    beta: f64,
    trans_a: bool,
    trans_b: bool,
}

impl Op for Gemm {
    const NAME: &'static str = "Gemm";
    const TOLERANCE: Tolerance = Tolerance::Relative(1e-5);

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        if attrs.opset() < 7 {
            attrs.ignore("broadcast"); // It allows what later versions always do.
        }
        Ok(Gemm {
            alpha: attrs.float_or("alpha", 1.0)?,
            beta: attrs.float_or("beta", 1.0)?,
            trans_a: attrs.flag("transA", false)?,
            trans_b: attrs.flag("transB", false)?,
        })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 3)?;
        let (a, b) = (inputs.ty(0)?, inputs.ty(1)?);
        if a.rank() != 2 || b.rank() != 2 {
            let kind = ErrorKind::wrong(format!("operands are {a} and {b}"));
            return Err(kind.help("both must be matrices"));
        }
        let turned = |ty: &Type, turn: bool| match turn {
            true => ty.with_dims([ty.dims[1], ty.dims[0]]),
            false => ty.clone(),
        };
        let ty = product_type(&turned(a, self.trans_a), &turned(b, self.trans_b))?;
        if let Some(c) = inputs.get(2) {
            let fits = crate::types::broadcast(&c.dims, &ty.dims).is_some_and(|dims| dims == ty.dims);
            if c.dtype != ty.dtype || !fits {
                let kind = ErrorKind::wrong(format!("operand 2 is {c}"));
                return Err(kind.help(format!("it must broadcast to the result {ty}")));
            }
        }
        if ty.dtype.is_integer() && (self.alpha.fract() != 0.0 || self.beta.fract() != 0.0) {
            return Err(ErrorKind::unsupported("fractions of integers (alpha or beta)"));
        }
        Ok(vec![ty])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(a), Some(b), ..] = inputs else { return vec![] };
        let a = if self.trans_a { transposed(a) } else { (*a).clone() };
        let b = if self.trans_b { transposed(b) } else { (*b).clone() };
        let ty = &outputs[0];
        let (rows, columns) = (ty.dims[0], ty.dims[1]);
        let c = inputs.get(2).copied().flatten();
        // Where element [i, j] of the result finds its own in C.
        let c_dims = c.map_or(vec![], |c| [&vec![1; 2 - c.ty().rank()][..], c.dims()].concat());
        let at = |i: usize, j: usize| {
            let i = if c_dims[0] == 1 { 0 } else { i };
            i * c_dims[1] + if c_dims[1] == 1 { 0 } else { j }
        };
        if ty.dtype.is_integer() {
            let mut y = product(&a, &b, ty).ints();
            let c = c.map(Tensor::ints);
            for (index, v) in y.iter_mut().enumerate() {
                *v = v.wrapping_mul(self.alpha as i64);
                if let Some(c) = &c {
                    let own = c[at(index / columns, index % columns)];
                    *v = v.wrapping_add(own.wrapping_mul(self.beta as i64));
                }
            }
            return vec![Tensor::from_ints(ty.clone(), y)];
        }
        let mut y = product(&a, &b, &ty.with_dtype(DType::F64)).f64s();
        y.iter_mut().for_each(|v| *v *= self.alpha);
        if let Some(c) = c.map(Tensor::f64s) {
            for i in 0..rows {
                for j in 0..columns {
                    y[i * columns + j] += self.beta * c[at(i, j)];
                }
            }
        }
        vec![Tensor::from_f64s(ty.clone(), y)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        _: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(a), Some(b), ..] = *inputs else { return vec![] };
        let a = if self.trans_a { mir.permute(a, &[1, 0]) } else { a };
        let b = if self.trans_b { mir.permute(b, &[1, 0]) } else { b };
        let mut y = mir.contract(a, b);
        if self.alpha != 1.0 {
            y = mir.binary_scalar(Binary::Mul, y, self.alpha);
        }
        if let Some(c) = inputs.get(2).copied().flatten() {
            let c = match self.beta {
                1.0 => c,
                beta => mir.binary_scalar(Binary::Mul, c, beta),
            };
            y = mir.binary(Binary::Add, y, c);
        }
        vec![y]
    }
}

/// The type of the product of two operands by [`MatMul`]'s rule.
///
/// # Errors
///
/// When they do not fit.
pub(super) fn product_type(a: &Type, b: &Type) -> Result<Type, ErrorKind> {
    tools::dtype_in(a, &NUMBERS, &NUMBERS)?;
    if a.dtype != b.dtype {
        return Err(ErrorKind::wrong(format!("element types differ: {} and {}", a.dtype, b.dtype)));
    }
    if a.rank() == 0 || b.rank() == 0 {
        return Err(ErrorKind::wrong("an operand is a scalar").help("operands have at least one axis"));
    }
    let (inner, rows) = (a.dims[a.rank() - 1], a.rank().checked_sub(2).map(|i| a.dims[i]));
    let columns = if b.rank() > 1 { Some(b.dims[b.rank() - 1]) } else { None };
    let other = b.dims[b.rank().saturating_sub(2)];
    if inner != other {
        let kind = ErrorKind::wrong(format!("inner dimensions differ: {inner} and {other}"));
        let n = columns.map_or(String::new(), |n| format!(", {n}"));
        return Err(kind.help(format!("the second operand must be {}[.., {inner}{n}]", b.dtype)));
    }
    let batch = |ty: &Type| ty.dims[..ty.rank().saturating_sub(2)].to_vec();
    let mut dims = tools::broadcast_dims(&batch(a), &batch(b))?;
    dims.extend(rows);
    dims.extend(columns);
    tools::sized(a.dtype, dims)
}

/// Both operands as matrices with batch axes: `[batch.., M, K]` and `[batch.., K, N]`.
fn as_matrices(a: &[usize], b: &[usize]) -> [Vec<usize>; 2] {
    let a = if let [k] = *a { vec![1, k] } else { a.to_vec() };
    let b = if let [k] = *b { vec![k, 1] } else { b.to_vec() };
    [a, b]
}

/// The product, row by row, in 64-bit floats or wrapping 64-bit integers.
pub(super) fn product(a: &Tensor, b: &Tensor, ty: &Type) -> Tensor {
    if ty.elements() == 0 {
        return Tensor::zeros(ty.clone());
    }
    let [da, db] = as_matrices(a.dims(), b.dims());
    let (ba, bb) = (&da[..da.len() - 2], &db[..db.len() - 2]);
    let (m, k, n) = (da[da.len() - 2], da[da.len() - 1], db[db.len() - 1]);
    let batch = crate::types::broadcast(ba, bb).unwrap_or_default();
    let mut places = vec![];
    crate::tensor::for_each_index(&batch, |index| {
        places.push([tools::broadcast_index(index, ba) * m * k, tools::broadcast_index(index, bb) * k * n]);
    });
    if ty.dtype.is_integer() {
        let (a, b) = (a.ints(), b.ints());
        let add = |sum: &mut i64, x: i64, y: i64| *sum = sum.wrapping_add(x.wrapping_mul(y));
        return Tensor::from_ints(ty.clone(), sums(&a, &b, &places, [m, k, n], add));
    }
    let (a, b) = (a.f64s(), b.f64s());
    let add = |sum: &mut f64, x: f64, y: f64| *sum += x * y;
    Tensor::from_f64s(ty.clone(), sums(&a, &b, &places, [m, k, n], add))
}

fn sums<T: Copy + Default>(
    a: &[T],
    b: &[T],
    places: &[[usize; 2]],
    [m, k, n]: [usize; 3],
    add: impl Fn(&mut T, T, T),
) -> Vec<T> {
    let mut y = vec![T::default(); places.len() * m * n];
    for (p, &[a_at, b_at]) in places.iter().enumerate() {
        for i in 0..m {
            let row = &mut y[(p * m + i) * n..][..n];
            for j in 0..k {
                let x = a[a_at + i * k + j];
                let other = &b[b_at + j * n..][..n];
                row.iter_mut().zip(other).for_each(|(sum, &y)| add(sum, x, y));
            }
        }
    }
    y
}

fn transposed(x: &Tensor) -> Tensor {
    let (rows, columns) = (x.dims()[0], x.dims()[1]);
    let size = x.ty().dtype.bytes();
    let mut data = Vec::with_capacity(rows * columns * size);
    for j in 0..columns {
        (0..rows).for_each(|i| data.extend_from_slice(x.element(i * columns + j)));
    }
    let ty = x.ty().with_dims([columns, rows]);
    Tensor::from_bytes(ty, data.into()).expect("as many bytes as before")
}

/// The product in MIR, of the type that `product_type` gives.
pub(super) fn expand_product(
    mir: &mut mir::Builder,
    a: mir::Value,
    b: mir::Value,
    ty: &Type,
) -> mir::Value {
    let [da, db] = as_matrices(&mir.dims(a), &mir.dims(b));
    let (a, b) = (mir.reshape(a, da), mir.reshape(b, db));
    let y = mir.contract(a, b);
    mir.reshape(y, ty.dims.clone())
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::refused;

    #[test]
    fn misfits_are_refused() {
        refused("MatMul", &["f32[2,3]", "f32[2,3]"]);
        refused("MatMul", &["f32[2,2,3]", "f32[3,3,3]"]);
        refused("MatMul", &["f32[]", "f32[3]"]);
        refused("MatMul", &["f32[2]", "f64[2]"]);
        refused("Gemm", &["f32[2,3]", "f32[3,4]", "f32[2]"]);
        refused("Gemm", &["f32[2,3,3]", "f32[3,4]"]);
    }
}
