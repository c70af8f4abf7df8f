//! Tensors with their values: constants of a model, inputs, and what the interpreters compute.

mod later;
mod strided;

pub use later::Identity;

use crate::types::{DType, Type};
use bytes::Bytes;
use later::Later;
use std::fmt;
use std::sync::Arc;

/// A dense, row-major tensor. The bytes are little-endian and may be shared with a memory map, so
/// that cloning is cheap and weights are never copied on the way in. Those of a constant that is made of others
/// may be computed only when somebody asks for them ([`Tensor::later`]).
///
/// Invariant: there are `ty.bytes()` of them.
#[derive(Clone)]
pub struct Tensor {
    ty: Type,
    data: Data,
}

#[derive(Clone)]
enum Data {
    Known(Bytes),
    Later(Arc<Later>),
}

impl Tensor {
    /// The tensor of this type with these little-endian bytes; `None` unless there are as many as the
    /// type asks for.
    pub fn from_bytes(ty: Type, data: Bytes) -> Option<Tensor> {
        (data.len() == ty.bytes()).then_some(Tensor { ty, data: Data::Known(data) })
    }

    /// A tensor of f32.
    ///
    /// # Panics
    ///
    /// When `values` are not as many as `dims` ask for. The same holds for the other constructors.
    pub fn from_f32s(dims: impl Into<Vec<usize>>, values: &[f32]) -> Tensor {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        Tensor::from_bytes(Type::new(DType::F32, dims), data.into())
            .expect("as many values as elements")
    }

    /// A tensor of i64.
    pub fn from_i64s(dims: impl Into<Vec<usize>>, values: &[i64]) -> Tensor {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        Tensor::from_bytes(Type::new(DType::I64, dims), data.into())
            .expect("as many values as elements")
    }

    /// A tensor of any type from 64-bit floats, rounded (floats) or truncated with saturation
    /// (integers); `Bool` is true for what is not zero.
    pub fn from_f64s(ty: Type, values: impl IntoIterator<Item = f64>) -> Tensor {
        let mut data = Vec::with_capacity(ty.bytes());
        for v in values {
            push_f64(&mut data, ty.dtype, v);
        }
        Tensor::from_bytes(ty, data.into()).expect("as many values as elements")
    }

    /// A tensor of any type from 64-bit integers: wrapped to narrower integers, converted to floats.
    /// `U64` takes the bits.
    pub fn from_ints(ty: Type, values: impl IntoIterator<Item = i64>) -> Tensor {
        let mut data = Vec::with_capacity(ty.bytes());
        for v in values {
            push_int(&mut data, ty.dtype, v);
        }
        Tensor::from_bytes(ty, data.into()).expect("as many values as elements")
    }

    /// A tensor of this type with all elements zero.
    pub fn zeros(ty: Type) -> Tensor {
        let data = Data::Known(vec![0; ty.bytes()].into());
        Tensor { ty, data }
    }

    /// Its type.
    pub fn ty(&self) -> &Type {
        &self.ty
    }

    /// Its dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.ty.dims
    }

    /// Its bytes, little-endian.
    pub fn bytes(&self) -> &Bytes {
        match &self.data {
            Data::Known(bytes) => bytes,
            Data::Later(later) => later.bytes(),
        }
    }

    /// The bytes of element `index`.
    pub fn element(&self, index: usize) -> &[u8] {
        let size = self.ty.dtype.bytes();
        &self.bytes()[index * size..][..size]
    }

    /// Element `index` as a 64-bit float. Integers beyond 2^53 are rounded.
    pub fn f64_at(&self, index: usize) -> f64 {
        read_f64(self.ty.dtype, self.element(index))
    }

    /// Element `index` as a 64-bit integer. Floats are truncated; `U64` gives its bits.
    pub fn int_at(&self, index: usize) -> i64 {
        read_int(self.ty.dtype, self.element(index))
    }

    /// All elements as 64-bit floats.
    pub fn f64s(&self) -> Vec<f64> {
        let dtype = self.ty.dtype;
        self.bytes().chunks_exact(dtype.bytes()).map(|b| read_f64(dtype, b)).collect()
    }

    /// All elements as f32 (rounded where they are wider).
    pub fn f32s(&self) -> Vec<f32> {
        match self.ty.dtype {
            DType::F32 => self
                .bytes()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            _ => self.f64s().into_iter().map(|v| v as f32).collect(),
        }
    }

    /// All elements as 64-bit integers.
    pub fn ints(&self) -> Vec<i64> {
        let dtype = self.ty.dtype;
        self.bytes().chunks_exact(dtype.bytes()).map(|b| read_int(dtype, b)).collect()
    }

    /// The same elements in another shape of as many.
    pub fn reshaped(&self, dims: impl Into<Vec<usize>>) -> Option<Tensor> {
        let ty = self.ty.with_dims(dims);
        (ty.bytes() == self.ty.bytes()).then(|| Tensor { ty, data: self.data.clone() })
    }

    /// The value of all elements when they are bit for bit the same, as element 0's bytes.
    pub fn splat(&self) -> Option<&[u8]> {
        let size = self.ty.dtype.bytes();
        let data = self.bytes();
        let first = data.get(..size)?;
        data.chunks_exact(size).all(|e| e == first).then_some(first)
    }
}

/// One element as a 64-bit float.
pub fn read_f64(dtype: DType, b: &[u8]) -> f64 {
    match dtype {
        DType::F32 => f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        DType::F64 => f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
        DType::F16 => half::f16::from_le_bytes([b[0], b[1]]).to_f64(),
        DType::BF16 => half::bf16::from_le_bytes([b[0], b[1]]).to_f64(),
        DType::U64 => read_int(dtype, b) as u64 as f64,
        _ => read_int(dtype, b) as f64,
    }
}

/// One element as a 64-bit integer.
pub fn read_int(dtype: DType, b: &[u8]) -> i64 {
    match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => read_f64(dtype, b) as i64,
        DType::I8 => i64::from(b[0] as i8),
        DType::U8 => i64::from(b[0]),
        DType::Bool => i64::from(b[0] != 0),
        DType::I16 => i64::from(i16::from_le_bytes([b[0], b[1]])),
        DType::U16 => i64::from(u16::from_le_bytes([b[0], b[1]])),
        DType::I32 => i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        DType::U32 => i64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        DType::I64 | DType::U64 => {
            i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
        }
    }
}

/// Appends one element, converted from a 64-bit float.
pub fn push_f64(data: &mut Vec<u8>, dtype: DType, v: f64) {
    match dtype {
        DType::F32 => data.extend((v as f32).to_le_bytes()),
        DType::F64 => data.extend(v.to_le_bytes()),
        DType::F16 => data.extend(half::f16::from_f64(v).to_le_bytes()),
        DType::BF16 => data.extend(half::bf16::from_f64(v).to_le_bytes()),
        DType::I8 => data.push(v as i8 as u8),
        DType::U8 => data.push(v as u8),
        DType::Bool => data.push(u8::from(v != 0.0)),
        DType::I16 => data.extend((v as i16).to_le_bytes()),
        DType::U16 => data.extend((v as u16).to_le_bytes()),
        DType::I32 => data.extend((v as i32).to_le_bytes()),
        DType::U32 => data.extend((v as u32).to_le_bytes()),
        DType::I64 => data.extend((v as i64).to_le_bytes()),
        DType::U64 => data.extend((v as u64).to_le_bytes()),
    }
}

/// Appends one element, converted from a 64-bit integer.
pub fn push_int(data: &mut Vec<u8>, dtype: DType, v: i64) {
    match dtype {
        DType::F32 => data.extend((v as f32).to_le_bytes()),
        DType::F64 | DType::F16 | DType::BF16 => push_f64(data, dtype, v as f64),
        DType::Bool => data.push(u8::from(v != 0)),
        DType::I8 | DType::U8 => data.push(v as u8),
        DType::I16 | DType::U16 => data.extend((v as u16).to_le_bytes()),
        DType::I32 | DType::U32 => data.extend((v as u32).to_le_bytes()),
        DType::I64 | DType::U64 => data.extend(v.to_le_bytes()),
    }
}

/// Calls `visit` with every index of `dims`, in row-major order.
pub fn for_each_index(dims: &[usize], mut visit: impl FnMut(&[usize])) {
    if dims.contains(&0) {
        return;
    }
    let mut index = vec![0; dims.len()];
    loop {
        visit(&index);
        let Some(axis) = (0..dims.len()).rev().find(|&a| index[a] + 1 < dims[a]) else { return };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Tensor) -> bool {
        self.ty == other.ty
            && (self.identity() == other.identity() || self.bytes() == other.bytes())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<_> = (0..self.ty.elements().min(8)).map(|i| self.f64_at(i)).collect();
        let more = if self.ty.elements() > 8 { " .." } else { "" };
        write!(f, "{} {shown:?}{more}", self.ty)
    }
}

#[cfg(test)]
impl Tensor {
    /// Numbers from -1 to 1 that look random, for tests: f32, the same for the same seed.
    pub(crate) fn noise(dims: &[usize], seed: u32) -> Tensor {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        Tensor::from_f32s(dims, &(0..dims.iter().product()).map(|_| next()).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions() {
        let t = Tensor::from_f64s(Type::new(DType::I8, [3]), [1.9, -300.0, f64::NAN]);
        assert_eq!(t.ints(), [1, -128, 0]);
        let t = Tensor::from_ints(Type::new(DType::U8, [2]), [-1, 256]);
        assert_eq!(t.ints(), [255, 0]);
        assert_eq!(Tensor::from_f32s([2], &[0.5, -0.0]).f64s(), [0.5, -0.0]);
    }

    #[test]
    fn indices_are_row_major() {
        let mut seen = vec![];
        for_each_index(&[2, 2], |i| seen.push(i.to_vec()));
        assert_eq!(seen, [[0, 0], [0, 1], [1, 0], [1, 1]]);
        for_each_index(&[3, 0], |_| panic!("there is none"));
    }
}
