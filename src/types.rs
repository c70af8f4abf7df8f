//! Element types and the types of tensors.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The type of an element.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum DType {
    F32,
    F64,
    F16,
    BF16,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    /// One byte: 0 or 1.
    Bool,
}

impl DType {
    /// All of them.
    pub const ALL: [DType; 13] = {
        use DType::*;
        [F32, F64, F16, BF16, I8, I16, I32, I64, U8, U16, U32, U64, Bool]
    };

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            DType::I8 | DType::U8 | DType::Bool => 1,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 | DType::I64 | DType::U64 => 8,
        }
    }

    /// Whether it is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
    }

    /// Whether it is an integer type; `Bool` is none.
    pub fn is_integer(self) -> bool {
        !self.is_float() && self != DType::Bool
    }

    /// Whether it is a signed integer type.
    pub fn is_signed(self) -> bool {
        matches!(self, DType::I8 | DType::I16 | DType::I32 | DType::I64)
    }

    /// The spelling in listings and JSON models.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I8 => "i8",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::Bool => "bool",
        }
    }

    /// The number of `onnx.TensorProto.DataType`, which is also the one in an object's descriptor.
    pub fn onnx(self) -> u32 {
        match self {
            DType::F32 => 1,
            DType::U8 => 2,
            DType::I8 => 3,
            DType::U16 => 4,
            DType::I16 => 5,
            DType::I32 => 6,
            DType::I64 => 7,
            DType::Bool => 9,
            DType::F16 => 10,
            DType::F64 => 11,
            DType::U32 => 12,
            DType::U64 => 13,
            DType::BF16 => 16,
        }
    }

    /// The type with this number in ONNX, if it is one of ours.
    pub fn from_onnx(number: u32) -> Option<DType> {
        DType::ALL.into_iter().find(|t| t.onnx() == number)
    }

    /// The type with this [`DType::name`].
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|t| t.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The largest tensor, in bytes: sizes and strides then fit in 64 signed bits everywhere.
pub const MAX_BYTES: u64 = 1 << 40;

/// A dense, row-major tensor's element type and shape.
///
/// Invariant: the bytes of a tensor of this type are at most [`MAX_BYTES`] (readers and operators
/// make types with [`Type::new`] from shapes that they have checked by [`Type::try_new`]).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Type {
    /// Type of the elements.
    pub dtype: DType,
    /// Extent of each axis, the outermost first. Empty for a scalar.
    pub dims: Vec<usize>,
}

impl Type {
    /// The type with these dimensions.
    pub fn new(dtype: DType, dims: impl Into<Vec<usize>>) -> Type {
        Type { dtype, dims: dims.into() }
    }

    /// The same for dimensions that may be too large: `None` when the bytes exceed [`MAX_BYTES`].
    pub fn try_new(dtype: DType, dims: impl Into<Vec<usize>>) -> Option<Type> {
        let ty = Type { dtype, dims: dims.into() };
        // Zero extents do not hide an overflow of the others: strides are products of them.
        let limit =
            ty.dims.iter().try_fold(dtype.bytes() as u64, |n, &d| n.checked_mul(d.max(1) as u64));
        limit.filter(|&n| n <= MAX_BYTES).map(|_| ty)
    }

    /// A scalar.
    pub fn scalar(dtype: DType) -> Type {
        Type::new(dtype, [])
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.bytes()
    }

    /// The same elements' type with other dimensions.
    #[must_use]
    pub fn with_dims(&self, dims: impl Into<Vec<usize>>) -> Type {
        Type::new(self.dtype, dims)
    }

    /// The same dimensions with another element type.
    #[must_use]
    pub fn with_dtype(&self, dtype: DType) -> Type {
        Type::new(dtype, self.dims.clone())
    }

    /// Row-major strides in elements.
    pub fn strides(&self) -> Vec<i64> {
        strides(&self.dims)
    }
}

/// Row-major strides of these dimensions, in elements.
pub fn strides(dims: &[usize]) -> Vec<i64> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis].max(1) as i64;
    }
    strides
}

/// The common shape of `a` and `b` by NumPy's rule: aligned at the last axis, extents equal or 1.
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], axis: usize| {
        (axis + dims.len()).checked_sub(rank).map_or(1, |axis| dims[axis])
    };
    (0..rank)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (a, b) if a == b => Some(a),
            (1, b) => Some(b),
            (a, 1) => Some(a),
            _ => None,
        })
        .collect()
}

/// Names come from files: control and direction characters are escaped, and long ones cut.
pub fn printable(text: &str) -> String {
    const LONGEST: usize = 600;
    let mut out = String::new();
    for c in text.chars() {
        if out.len() >= LONGEST {
            out.push_str("...");
            break;
        }
        let hidden = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if hidden { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, d) in self.dims.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting() {
        assert_eq!(broadcast(&[2, 1, 3], &[4, 1]), Some(vec![2, 4, 3]));
        assert_eq!(broadcast(&[0], &[1]), Some(vec![0]));
        assert_eq!(broadcast(&[2], &[3]), None);
        assert_eq!(broadcast(&[], &[3]), Some(vec![3]));
    }

    #[test]
    fn sizes_are_bounded() {
        assert!(Type::try_new(DType::F32, [1 << 20, 1 << 18]).is_some());
        assert!(Type::try_new(DType::F32, [1 << 20, 1 << 20]).is_none());
        assert!(Type::try_new(DType::F32, [0, usize::MAX, usize::MAX]).is_none());
    }

    #[test]
    fn names_are_printable() {
        assert_eq!(printable("a\u{1b}[31m\n"), "a\\u{1b}[31m\\u{a}");
    }
}
