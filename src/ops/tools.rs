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

/// The flat index, in a tensor of `dims`, of the element that broadcasting reads for element `index`
/// of a result of the same or higher rank.
pub fn broadcast_index(index: &[usize], dims: &[usize]) -> usize {
    let skipped = index.len() - dims.len();
    dims.iter()
        .zip(&index[skipped..])
        .fold(0, |flat, (&d, &i)| flat * d + if d == 1 { 0 } else { i })
}
