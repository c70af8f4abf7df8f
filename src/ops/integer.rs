//! Products of integers of 8 bits: sums of 32 bits, and those quantized again.

use super::conv::Conv;
use super::quantize::quantized;
use super::{Attrs, Op, Operands, Tolerance, matmul, tools};
use crate::error::ErrorKind;
use crate::mir::{self, Binary, Expr};
use crate::tensor::Tensor;
use crate::types::{DType, Type};

/// What the operands are.
const BYTES: [DType; 2] = [DType::U8, DType::I8];
/// What scales may be.
const SCALES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// `(A - a_zero_point) (B - b_zero_point)` by the rules of `MatMul`, in `i32`, which wraps. Zero points: one for
/// all elements, or one for each row of A and for each column of B.
#[derive(Clone, Debug, PartialEq)]
pub struct MatMulInteger;

impl Op for MatMulInteger {
    const NAME: &'static str = "MatMulInteger";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(MatMulInteger)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 4)?;
        let (a, b) = (inputs.ty(0)?, inputs.ty(1)?);
        let ty = product_type(a, b)?;
        check_zero(inputs.get(2), a, &Side::Rows.dims(&a.dims))?;
        check_zero(inputs.get(3), b, &Side::Columns.dims(&b.dims))?;
        Ok(vec![ty])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(a), Some(b), ..] = inputs else { return vec![] };
        let zero = |i: usize| inputs.get(i).copied().flatten();
        vec![sums(a, zero(2), b, zero(3), &outputs[0])]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(a), Some(b), ..] = *inputs else { return vec![] };
        let zero = |i: usize| inputs.get(i).copied().flatten();
        vec![expand_sums(mir, [a, b], [zero(2), zero(3)], &outputs[0])]
    }
}

/// Which of its axes an operand of a matrix product has a number of its own for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// All but the last axis.
    Rows,
    /// All but the one before the last.
    Columns,
}

impl Side {
    /// The dimensions of as many numbers, which broadcast to the operand.
    fn dims(self, operand: &[usize]) -> Vec<usize> {
        let mut dims = operand.to_vec();
        let summed = match self {
            Side::Rows => operand.len().checked_sub(1),
            Side::Columns => Some(operand.len().saturating_sub(2)),
        };
        if let Some(axis) = summed.and_then(|axis| dims.get_mut(axis)) {
            *axis = 1;
        }
        dims
    }

    /// The dimensions with which numbers of this type broadcast to an operand of these, or to the product.
    fn broadcasting(self, numbers: &Type) -> Vec<usize> {
        match (self, &numbers.dims[..]) {
            _ if tools::single(numbers, "").is_ok() => vec![],
            (Side::Rows, &[rows]) => vec![rows, 1],
            (_, dims) => dims.to_vec(),
        }
    }
}

/// An error unless scales or zero points are one, or have these dimensions but for leading axes (and, of rows,
/// the last one).
fn check_numbers(ty: &Type, dims: &[usize], what: &str) -> Result<(), ErrorKind> {
    let list = dims.last() == Some(&1) && ty.dims.len() == 1 && dims.len() > 1;
    let fits = match list {
        true => ty.dims[0] == dims[dims.len() - 2],
        false => dims.ends_with(&ty.dims) || ty.dims.iter().eq(dims.iter()),
    };
    if tools::single(ty, what).is_ok() || fits && !ty.dims.is_empty() {
        return Ok(());
    }
    let kind = ErrorKind::wrong(format!("{what} is {ty}"));
    Err(kind.help(format!("it must be a scalar or {}{dims:?}", ty.dtype)))
}

fn check_zero(zero: Option<&Type>, operand: &Type, dims: &[usize]) -> Result<(), ErrorKind> {
    let Some(zero) = zero else { return Ok(()) };
    if zero.dtype != operand.dtype {
        return Err(ErrorKind::wrong(format!("the zero point of {operand} is {zero}")));
    }
    check_numbers(zero, dims, "a zero point")
}

fn check_scale(scale: &Type, dims: &[usize]) -> Result<(), ErrorKind> {
    tools::dtype_in(scale, &SCALES, &[])?;
    check_numbers(scale, dims, "a scale")
}

fn product_type(a: &Type, b: &Type) -> Result<Type, ErrorKind> {
    tools::dtype_in(a, &BYTES, &[])?;
    tools::dtype_in(b, &BYTES, &[])?;
    matmul::product_type(&a.with_dtype(DType::I32), &b.with_dtype(DType::I32))
}

/// The numbers as `i32`, minus a zero point.
fn shifted(x: &Tensor, zero: Option<&Tensor>, side: Side) -> Tensor {
    let ty = x.ty().with_dtype(DType::I32);
    let zeros = zero.map(|zero| {
        let zero = zero.reshaped(side.broadcasting(zero.ty())).expect("as many elements");
        tools::broadcast_to(&zero, x.dims()).ints()
    });
    let zero = |i: usize| zeros.as_ref().map_or(0, |z| z[i]);
    Tensor::from_ints(ty, x.ints().into_iter().enumerate().map(|(i, v)| v - zero(i)))
}

fn sums(a: &Tensor, a_zero: Option<&Tensor>, b: &Tensor, b_zero: Option<&Tensor>, ty: &Type) -> Tensor {
    let [a, b] = [shifted(a, a_zero, Side::Rows), shifted(b, b_zero, Side::Columns)];
    matmul::product(&a, &b, ty)
}

/// `x - zero` in MIR, as `i32`.
fn expand_shifted(
    mir: &mut mir::Builder,
    x: mir::Value,
    zero: Option<mir::Value>,
    dims: Option<Vec<usize>>,
) -> mir::Value {
    let mut e = Expr::new();
    let operand = e.operand(0);
    let whole = e.cast(DType::I32, operand);
    let Some(zero) = zero else { return mir.map(e, &[x]) };
    let zero = match dims {
        Some(dims) => mir.reshape(zero, dims),
        None => zero,
    };
    let operand = e.operand(1);
    let by = e.cast(DType::I32, operand);
    e.binary(Binary::Sub, whole, by);
    mir.map(e, &[x, zero])
}

fn expand_sums(
    mir: &mut mir::Builder,
    operands: [mir::Value; 2],
    zeros: [Option<mir::Value>; 2],
    ty: &Type,
) -> mir::Value {
    let sides = [Side::Rows, Side::Columns];
    let [a, b] = [0, 1].map(|i| {
        let dims = zeros[i].map(|zero| sides[i].broadcasting(mir.ty(zero)));
        expand_shifted(mir, operands[i], zeros[i], dims)
    });
    matmul::expand_product(mir, a, b, ty)
}

/// `ConvInteger`: `Conv` of `x - x_zero_point` and `w - w_zero_point`, in `i32`, which wraps. The first zero
/// point is one for all elements, the second one for all or one for each result channel.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvInteger {
    conv: Conv,
}

impl Op for ConvInteger {
    const NAME: &'static str = "ConvInteger";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(ConvInteger { conv: Conv::parse(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(2, 4)?;
        let (x, w) = (inputs.ty(0)?, inputs.ty(1)?);
        let dims = convolution(&self.conv, x, w, None)?;
        check_zero(inputs.get(2), x, &[1])?;
        check_zero(inputs.get(3), w, &w.dims[..1])?;
        Ok(vec![tools::sized(DType::I32, dims)?])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let [Some(x), Some(w), ..] = inputs else { return vec![] };
        let zero = |i: usize| inputs.get(i).copied().flatten();
        let sums = convolved(&self.conv, [x, w], [zero(2), zero(3)], None);
        vec![Tensor::from_ints(outputs[0].clone(), sums)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        _: &[Type],
    ) -> Vec<mir::Value> {
        let [Some(x), Some(w), ..] = *inputs else { return vec![] };
        let zero = |i: usize| inputs.get(i).copied().flatten();
        let sums = expand_convolved(&self.conv, mir, [x, w], [zero(2), zero(3)]);
        sums.map(|y| mir.channels_first(y)).into_iter().collect()
    }
}

fn convolution(conv: &Conv, x: &Type, w: &Type, bias: Option<&Type>) -> Result<Vec<usize>, ErrorKind> {
    tools::dtype_in(x, &BYTES, &[])?;
    tools::dtype_in(w, &BYTES, &[])?;
    conv.result_dims(x, w, bias)
}

/// The sums of products, which 64-bit floats hold exactly.
fn convolved(
    conv: &Conv,
    [x, w]: [&Tensor; 2],
    zeros: [Option<&Tensor>; 2],
    bias: Option<&Tensor>,
) -> Vec<i64> {
    let shifted = |tensor: &Tensor, zero: Option<&Tensor>| -> Vec<f64> {
        let each = tensor.ty().elements() / tensor.dims()[0].max(1);
        let zeros = zero.map_or(vec![0.0], Tensor::f64s);
        let zero = |i: usize| if zeros.len() == 1 { zeros[0] } else { zeros[i / each] };
        tensor.f64s().into_iter().enumerate().map(|(i, v)| v - zero(i)).collect()
    };
    let bias = bias.map(Tensor::f64s);
    let (dx, dw) = (x.dims(), w.dims());
    let sums = conv.sums((&shifted(x, zeros[0]), dx), (&shifted(w, zeros[1]), dw), bias.as_deref());
    sums.unwrap_or_default().into_iter().map(|v| v as i64).collect()
}

/// The same in MIR, channels last.
fn expand_convolved(
    conv: &Conv,
    mir: &mut mir::Builder,
    [x, w]: [mir::Value; 2],
    [x_zero, w_zero]: [Option<mir::Value>; 2],
) -> Option<mir::Value> {
    let per_channel = |mir: &mir::Builder, numbers: mir::Value, rank: usize| {
        let ty = mir.ty(numbers);
        if tools::single(ty, "").is_ok() {
            return vec![];
        }
        [&ty.dims[..], &vec![1; rank - 1]].concat()
    };
    let rank = mir.ty(w).rank();
    let dims = w_zero.map(|zero| per_channel(mir, zero, rank));
    let x = expand_shifted(mir, x, x_zero, x_zero.map(|_| vec![]));
    let w = expand_shifted(mir, w, w_zero, dims);
    conv.expand_sums(mir, x, w)
}

/// [`MatMulInteger`], quantized: `saturate(round(f32(sum) * (a_scale * b_scale / y_scale)) + y_zero_point)`, in
/// f32, ties to even. Operands: a, its scale and zero point, b, its two, and those of the result. They are one
/// for all elements, or one for each row of A, column of B, row of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct QLinearMatMul;

impl Op for QLinearMatMul {
    const NAME: &'static str = "QLinearMatMul";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(_: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(QLinearMatMul)
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(8, 8)?;
        let (a, b) = (inputs.ty(0)?, inputs.ty(3)?);
        let ty = product_type(a, b)?;
        let rows = Side::Rows.dims(&a.dims);
        let columns = Side::Columns.dims(&b.dims);
        check_scale(inputs.ty(1)?, &rows)?;
        check_zero(Some(inputs.ty(2)?), a, &rows)?;
        check_scale(inputs.ty(4)?, &columns)?;
        check_zero(Some(inputs.ty(5)?), b, &columns)?;
        let of_result = Side::Rows.dims(&ty.dims);
        check_scale(inputs.ty(6)?, &of_result)?;
        let ty = ty.with_dtype(inputs.ty(7)?.dtype);
        tools::dtype_in(&ty, &BYTES, &[])?;
        check_zero(Some(inputs.ty(7)?), &ty, &of_result)?;
        Ok(vec![ty])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let all: Vec<&Tensor> = inputs.iter().copied().flatten().collect();
        let [a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero] = all[..] else {
            return vec![];
        };
        let ty = &outputs[0];
        let sums = sums(a, Some(a_zero), b, Some(b_zero), &ty.with_dtype(DType::I32));
        let numbers = |numbers: &Tensor, side: Side| {
            let numbers = numbers.reshaped(side.broadcasting(numbers.ty()));
            numbers.map(|n| tools::broadcast_to(&n, &ty.dims).f32s()).unwrap_or_default()
        };
        let [a_scale, y_scale, y_zero] = [a_scale, y_scale, y_zero].map(|n| numbers(n, Side::Rows));
        let b_scale = numbers(b_scale, Side::Columns);
        let factor = |i: usize| a_scale[i] * b_scale[i] / y_scale[i];
        vec![requantized(&sums.ints(), factor, |i| y_zero[i], ty)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let all: Vec<mir::Value> = inputs.iter().copied().flatten().collect();
        let [a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero] = all[..] else {
            return vec![];
        };
        let ty = &outputs[0];
        let sums =
            expand_sums(mir, [a, b], [Some(a_zero), Some(b_zero)], &ty.with_dtype(DType::I32));
        let mut numbers = |numbers: mir::Value, side: Side| {
            // A product of vectors lacks axes.
            let mut dims = side.broadcasting(mir.ty(numbers));
            let lacks = mir.ty(numbers).elements() > 1 && ty.rank() < mir.ty(a).rank();
            if lacks && side == Side::Rows {
                dims.pop();
            }
            mir.reshape(numbers, dims)
        };
        let [a_scale, y_scale, y_zero] = [a_scale, y_scale, y_zero].map(|n| numbers(n, Side::Rows));
        let b_scale = numbers(b_scale, Side::Columns);
        vec![expand_requantized(mir, sums, [a_scale, b_scale, y_scale], y_zero, ty.dtype)]
    }
}

/// [`ConvInteger`] plus a bias in `i32`, quantized as in [`QLinearMatMul`]. Operands: x, its scale and zero
/// point, w, its two (one for all, or one for each result channel), those of the result, and the bias.
#[derive(Clone, Debug, PartialEq)]
pub struct QLinearConv {
    conv: Conv,
}

impl Op for QLinearConv {
    const NAME: &'static str = "QLinearConv";
    const TOLERANCE: Tolerance = Tolerance::Exact;

    fn parse(attrs: &mut Attrs) -> Result<Self, ErrorKind> {
        Ok(QLinearConv { conv: Conv::parse(attrs)? })
    }

    fn infer(&self, inputs: &Operands<'_>) -> Result<Vec<Type>, ErrorKind> {
        inputs.arity(8, 9)?;
        let (x, w, bias) = (inputs.ty(0)?, inputs.ty(3)?, inputs.get(8));
        let dims = convolution(&self.conv, x, w, bias)?;
        check_scale(inputs.ty(1)?, &[1])?;
        check_zero(Some(inputs.ty(2)?), x, &[1])?;
        check_scale(inputs.ty(4)?, &w.dims[..1])?;
        check_zero(Some(inputs.ty(5)?), w, &w.dims[..1])?;
        check_scale(inputs.ty(6)?, &[1])?;
        if let Some(bias) = bias {
            tools::dtype_in(bias, &[DType::I32], &[])?;
        }
        let ty = tools::sized(inputs.ty(7)?.dtype, dims)?;
        tools::dtype_in(&ty, &BYTES, &[])?;
        check_zero(Some(inputs.ty(7)?), &ty, &[1])?;
        Ok(vec![ty])
    }

    fn reference(&self, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Vec<Tensor> {
        let all: Vec<&Tensor> = inputs.iter().copied().flatten().collect();
        let [x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, ref bias @ ..] = all[..] else {
            return vec![];
        };
        let bias = bias.first().copied();
        let sums = convolved(&self.conv, [x, w], [Some(x_zero), Some(w_zero)], bias);
        // A sum that wraps, as in i32.
        let sums: Vec<i64> = sums.into_iter().map(|v| i64::from(v as i32)).collect();
        let ty = &outputs[0];
        let plane: usize = ty.dims[2..].iter().product();
        let (scales, x_scale, y_scale) = (w_scale.f32s(), x_scale.f32s()[0], y_scale.f32s()[0]);
        let factor = |i: usize| {
            let channel = i / plane % ty.dims[1];
            x_scale * scales[if scales.len() == 1 { 0 } else { channel }] / y_scale
        };
        let zero = y_zero.f32s()[0];
        vec![requantized(&sums, factor, |_| zero, ty)]
    }

    fn expand(
        &self,
        mir: &mut mir::Builder,
        inputs: &[Option<mir::Value>],
        outputs: &[Type],
    ) -> Vec<mir::Value> {
        let all: Vec<mir::Value> = inputs.iter().copied().flatten().collect();
        let [x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, ref bias @ ..] = all[..] else {
            return vec![];
        };
        let zeros = [Some(x_zero), Some(w_zero)];
        let Some(mut sums) = expand_convolved(&self.conv, mir, [x, w], zeros) else {
            return vec![];
        };
        if let Some(&bias) = bias.first() {
            sums = mir.binary(Binary::Add, sums, bias);
        }
        let [x_scale, y_scale, y_zero] = [x_scale, y_scale, y_zero].map(|v| mir.reshape(v, []));
        let w_scale = match tools::single(mir.ty(w_scale), "").is_ok() {
            true => mir.reshape(w_scale, []),
            false => w_scale,
        };
        let scales = [x_scale, w_scale, y_scale];
        let y = expand_requantized(mir, sums, scales, y_zero, outputs[0].dtype);
        vec![mir.channels_first(y)]
    }
}

fn requantized(
    sums: &[i64],
    factor: impl Fn(usize) -> f32,
    zero: impl Fn(usize) -> f32,
    ty: &Type,
) -> Tensor {
    let y = sums.iter().enumerate().map(|(i, &sum)| {
        let scaled = (sum as f32 * factor(i)).round_ties_even();
        f64::from(scaled + zero(i))
    });
    Tensor::from_f64s(ty.clone(), y)
}

/// The same in MIR, with scales and a zero point that broadcast to the sums.
fn expand_requantized(
    mir: &mut mir::Builder,
    sums: mir::Value,
    scales: [mir::Value; 3],
    zero: mir::Value,
    to: DType,
) -> mir::Value {
    let [left, right, result] = scales.map(|scale| mir.cast(scale, DType::F32));
    let factor = mir.binary(Binary::Mul, left, right);
    let factor = mir.binary(Binary::Div, factor, result);
    let mut e = Expr::new();
    let [sum, factor_of, zero_of] = [0, 1, 2].map(|n| e.operand(n));
    let number = e.cast(DType::F32, sum);
    let scaled = e.binary(Binary::Mul, number, factor_of);
    let result = quantized(&mut e, DType::F32, scaled, Some(zero_of), to);
    mir.map(e.returning(result), &[sums, factor, zero])
}

#[cfg(test)]
mod tests {
    use crate::ops::tests::{definition, refused};

    #[test]
    fn sums_are_exact() {
        let a = "u8[2,3]=255,255,255,0,1,2";
        let b = "i8[3,2]=-128,127,-128,127,-128,127";
        let y = definition("MatMulInteger", &[a, b]);
        assert_eq!(y[0].ints(), [-97920, 97155, -384, 381]);
        let y = definition("MatMulInteger", &[a, b, "u8[2]=255,0", "i8[2]=-128,127"]);
        assert_eq!(y[0].ints(), [0; 4]);
        let y = definition("ConvInteger pads=[1,1]", &["u8[1,1,2]=5,7", "i8[1,1,2]=1,-2", "u8[]=5"]);
        assert_eq!(y[0].ints(), [0, -4, 2]);
    }

    #[test]
    fn results_are_quantized() {
        let y = definition(
            "QLinearMatMul",
            &["u8[1,2]=10,20", "f32[]=0.5", "u8[]=0", "i8[2,3]=1,2,90,0,1,90", "f32[3]=1,1,1",
              "i8[]=0", "f32[]=2", "i8[]=1"],
        );
        // 2.5, 10 and 675 (a tie goes to 2).
        assert_eq!(y[0].ints(), [3, 11, 127]);
    }

    #[test]
    fn misfits_are_refused() {
        refused("MatMulInteger", &["u8[2,3]", "u8[2,3]"]);
        refused("MatMulInteger", &["f32[2,3]", "u8[3,2]"]);
        refused("MatMulInteger", &["u8[2,3]", "u8[3,2]", "i8[]"]);
        refused("MatMulInteger", &["u8[2,3]", "u8[3,2]", "u8[3]"]);
        refused("ConvInteger", &["u8[1,2,3]", "u8[1,2,3]", "u8[2]"]);
        refused("ConvInteger group=2", &["u8[1,2,3]", "u8[1,2,3]"]);
        let all = ["u8[1,2]", "f32[]", "u8[]", "i8[2,3]", "f32[3]", "i8[]", "f32[]", "i8[]"];
        let with = |i: usize, text| {
            let mut all = all;
            all[i] = text;
            refused("QLinearMatMul", &all)
        };
        with(4, "f32[2]");
        with(5, "u8[]");
        with(6, "i32[]");
        with(7, "i32[]");
    }
}
