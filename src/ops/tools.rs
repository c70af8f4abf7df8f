//! What the shape rules of many operators share.

use crate::error::ErrorKind;
use crate::tensor::Tensor;
use crate::types::{DType, Type, broadcast};

/// `axis` of a tensor of this rank, counted from the end where it is negative.
///
/// # Errors
///
/// When it is out of range.
pub fn axis(axis: i64, rank: usize) -> Result<usize, ErrorKind> {
    let signed = rank as i64;
    if axis < -signed || axis >= signed {
        let kind = ErrorKind::wrong(format!("axis {axis} of a tensor of rank {rank}"));
        return Err(kind.help(format!("it must be in {}..{rank}", -signed)));
    }
    Ok(if axis < 0 { axis + signed } else { axis } as usize)
}

/// Several axes, each once.
///
/// # Errors
///
/// When one is out of range or named twice.
pub fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, ErrorKind> {
    let mut found = vec![];
    for &a in list {
        let a = axis(a, rank)?;
        if found.contains(&a) {
            return Err(ErrorKind::wrong(format!("axis {a} is named twice")));
        }
        found.push(a);
    }
    Ok(found)
}

/// The common type of operands that broadcast: one element type, NumPy's rule for shapes.
///
/// # Errors
///
/// When they do not fit.
pub fn broadcast_types(types: &[&Type]) -> Result<Type, ErrorKind> {
    let (first, rest) =
        types.split_first().ok_or_else(|| ErrorKind::wrong("no operands are given"))?;
    rest.iter().try_fold((*first).clone(), |a, b| {
        if a.dtype != b.dtype {
            let kind =
                ErrorKind::wrong(format!("element types differ: {} and {}", a.dtype, b.dtype));
            return Err(kind.help("all operands must have one element type"));
        }
        sized(a.dtype, broadcast_dims(&a.dims, &b.dims)?)
    })
}

/// The common dimensions of two operands by NumPy's rule.
///
/// # Errors
///
/// When they do not broadcast.
pub fn broadcast_dims(a: &[usize], b: &[usize]) -> Result<Vec<usize>, ErrorKind> {
    broadcast(a, b).ok_or_else(|| {
        let kind = ErrorKind::wrong(format!("shapes do not broadcast: {a:?} and {b:?}"));
        kind.help("aligned at the last axis, extents must be equal or 1")
    })
}

/// A type whose size is within the limits.
///
/// # Errors
///
/// When it is too large.
pub fn sized(dtype: DType, dims: impl Into<Vec<usize>>) -> Result<Type, ErrorKind> {
    let dims = dims.into();
    let text = format!("{dims:?}");
    Type::try_new(dtype, dims)
        .ok_or_else(|| ErrorKind::limit(format!("the result {dtype}{text} is too large")))
}

/// An error unless `ty` has one of these element types: `wrong` where the operator's specification
/// does not have it, `unsupported` where it does.
///
/// # Errors
///
/// As said.
pub fn dtype_in(ty: &Type, done: &[DType], specified: &[DType]) -> Result<(), ErrorKind> {
    if done.contains(&ty.dtype) {
        return Ok(());
    }
    let list: Vec<_> = done.iter().map(|d| d.name()).collect();
    let message = format!("element type {}", ty.dtype);
    let kind = if specified.contains(&ty.dtype) {
        ErrorKind::unsupported(message)
    } else {
        ErrorKind::wrong(message)
    };
    Err(kind.help(format!("it must be one of: {}", list.join(", "))))
}

/// A tensor of integers that holds dimensions or axes: rank 0 or 1.
///
/// # Errors
///
/// When it is of another type or rank.
pub fn int_list(tensor: &Tensor, what: &str) -> Result<Vec<i64>, ErrorKind> {
    let ty = tensor.ty();
    if !matches!(ty.dtype, DType::I64 | DType::I32) || ty.rank() > 1 {
        return Err(ErrorKind::wrong(format!("{what} is {ty}")).help("it must be a list of i64"));
    }
    Ok(tensor.ints())
}

/// Dimensions from integers.
///
/// # Errors
///
/// When one is negative.
pub fn dims(list: &[i64]) -> Result<Vec<usize>, ErrorKind> {
    let dim =
        |&d: &i64| usize::try_from(d).map_err(|_| ErrorKind::wrong(format!("a dimension of {d}")));
    list.iter().map(dim).collect()
}

/// Floats that are done, and all that ONNX has.
pub const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// Integer types.
pub const INTEGERS: [DType; 8] =
    [DType::I8, DType::I16, DType::I32, DType::I64, DType::U8, DType::U16, DType::U32, DType::U64];

/// Floats and integers.
pub const NUMBERS: [DType; 12] = {
    use DType::*;
    [F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64]
};

/// Signed numbers.
pub const SIGNED: [DType; 8] = {
    use DType::*;
    [F32, F64, F16, BF16, I8, I16, I32, I64]
};

/// The flat index, in a tensor of `dims`, of the element that broadcasting reads for element `index`
/// of a result of the same or higher rank.
pub fn broadcast_index(index: &[usize], dims: &[usize]) -> usize {
    let skipped = index.len() - dims.len();
    dims.iter()
        .zip(&index[skipped..])
        .fold(0, |flat, (&d, &i)| flat * d + if d == 1 { 0 } else { i })
}

/// The attribute's value.
///
/// # Errors
///
/// When it is not there.
pub fn required<T>(value: Option<T>, name: &str) -> Result<T, ErrorKind> {
    value.ok_or_else(|| ErrorKind::wrong(format!("attribute \"{name}\" is missing")))
}

/// The one element of a tensor of rank 0 or 1.
///
/// # Errors
///
/// When it has another shape.
pub fn single<'a>(ty: &'a Type, what: &str) -> Result<&'a Type, ErrorKind> {
    if ty.rank() > 1 || ty.elements() != 1 {
        let kind = ErrorKind::wrong(format!("{what} is {ty}"));
        return Err(kind.help(format!("it must be a scalar, {}[]", ty.dtype)));
    }
    Ok(ty)
}

/// The tensor repeated to `dims` by NumPy's rule.
pub fn broadcast_to(x: &Tensor, dims: &[usize]) -> Tensor {
    if x.dims() == dims {
        return x.clone();
    }
    let mut strides = vec![0; dims.len() - x.dims().len()];
    let own = x.ty().strides().into_iter().zip(x.dims());
    strides.extend(own.map(|(stride, &d)| if d == 1 { 0 } else { stride }));
    x.strided(dims, 0, &strides)
}

/// The elements of a tensor of integers or booleans, exactly.
pub fn integers(x: &Tensor) -> Vec<i128> {
    let unsigned = x.ty().dtype == DType::U64;
    let exact = |v: i64| if unsigned { i128::from(v as u64) } else { i128::from(v) };
    x.ints().into_iter().map(exact).collect()
}

/// A tensor of integers or booleans; what does not fit wraps.
pub fn from_integers(ty: &Type, values: impl IntoIterator<Item = i128>) -> Tensor {
    Tensor::from_ints(ty.clone(), values.into_iter().map(|v| v as i64))
}

/// `float` or `int` of every element, by the operand's element type.
pub fn map_one(
    x: &Tensor,
    ty: &Type,
    float: impl Fn(f64) -> f64,
    int: impl Fn(i128) -> i128,
) -> Tensor {
    if x.ty().dtype.is_float() {
        Tensor::from_f64s(ty.clone(), x.f64s().into_iter().map(float))
    } else {
        from_integers(ty, integers(x).into_iter().map(int))
    }
}

/// `float` or `int` of every two elements that broadcasting brings together, by the operands' element
/// type.
pub fn map_two(
    a: &Tensor,
    b: &Tensor,
    ty: &Type,
    float: impl Fn(f64, f64) -> f64,
    int: impl Fn(i128, i128) -> i128,
) -> Tensor {
    let (a, b) = (broadcast_to(a, &ty.dims), broadcast_to(b, &ty.dims));
    if a.ty().dtype.is_float() {
        Tensor::from_f64s(ty.clone(), a.f64s().into_iter().zip(b.f64s()).map(|(a, b)| float(a, b)))
    } else {
        let pairs = integers(&a).into_iter().zip(integers(&b));
        from_integers(ty, pairs.map(|(a, b)| int(a, b)))
    }
}

/// The error function: its Taylor series near zero, else the continued fraction of its complement
/// (Abramowitz and Stegun 7.1.6 and 7.1.14); within 1e-15.
pub fn erf(x: f64) -> f64 {
    let magnitude = x.abs();
    if x.is_nan() || magnitude < 1e-300 {
        return x;
    }
    if magnitude > 6.0 {
        return x.signum();
    }
    let scale = (-x * x).exp() / std::f64::consts::PI.sqrt();
    if magnitude < 2.5 {
        let (mut term, mut sum) = (2.0 * x, 2.0 * x);
        for n in 1..100 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        return scale * sum;
    }
    let tail = (1..=60).rev().fold(magnitude, |rest, n| magnitude + f64::from(n) / 2.0 / rest);
    x.signum() * (1.0 - scale / tail)
}
