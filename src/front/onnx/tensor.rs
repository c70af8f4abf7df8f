//! `TensorProto`: the encodings of a tensor's elements, in the file or beside it.

use super::narrow::narrow;
use super::proto::TensorProto;
use crate::error::ErrorKind;
use crate::front::file::Folder;
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use bytes::Bytes;

/// Names of the types that are not ours, by number.
const OTHER_TYPES: [(i32, &str); 16] = [
    (8, "string"),
    (14, "complex64"),
    (15, "complex128"),
    (17, "float8e4m3fn"),
    (18, "float8e4m3fnuz"),
    (19, "float8e5m2"),
    (20, "float8e5m2fnuz"),
    (21, "uint4"),
    (22, "int4"),
    (23, "float4e2m1"),
    (24, "float8e8m0"),
    (25, "uint2"),
    (26, "int2"),
    (27, "float6e2m3"),
    (28, "float6e3m2"),
    (0, "undefined"),
];

/// The element type with this number.
///
/// # Errors
///
/// Unsupported ones, by name; numbers that mean nothing.
pub(super) fn dtype(number: i32) -> Result<DType, ErrorKind> {
    if let Some(dtype) = u32::try_from(number).ok().and_then(DType::from_onnx) {
        return Ok(dtype);
    }
    match OTHER_TYPES.iter().find(|(n, _)| *n == number) {
        Some((0, _)) => Err(ErrorKind::wrong("the element type is not given")),
        Some((_, name)) => Err(ErrorKind::unsupported(format!("the element type {name}"))),
        None => Err(ErrorKind::wrong(format!("there is no element type {number}"))),
    }
}

/// The type with these dimensions.
///
/// # Errors
///
/// Negative dimensions, and too many bytes.
pub(super) fn shaped(dtype: DType, dims: &[i64]) -> Result<Type, ErrorKind> {
    let checked: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let Some(checked) = checked else {
        return Err(ErrorKind::wrong(format!("a dimension is negative: {dtype}{dims:?}")));
    };
    Type::try_new(dtype, checked)
        .ok_or_else(|| ErrorKind::limit(format!("{dtype}{dims:?} is too large")))
}

/// The tensor. Raw data, in the file or beside it, is shared and not copied; elements of types narrower than ours are
/// widened.
///
/// # Errors
///
/// A type that is not ours, no data, two kinds of data, and data that do not fit the shape.
pub(in crate::front) fn read(
    proto: &TensorProto,
    folder: &mut Folder,
) -> Result<Tensor, ErrorKind> {
    let narrow = narrow(proto.data_type);
    let dtype = narrow.map_or_else(|| dtype(proto.data_type), |narrow| Ok(narrow.wide))?;
    let ty = shaped(dtype, &proto.dims)?;
    if let Some(narrow) = narrow {
        // The packed bytes, read like elements of their own.
        let packed = TensorProto {
            data_type: DType::U8.onnx() as i32,
            dims: vec![narrow.bytes(ty.elements()) as i64],
            int32_data: proto.int32_data.iter().map(|v| v & 0xff).collect(),
            ..proto.clone()
        };
        let packed = read(&packed, folder)?;
        return exactly(ty.clone(), narrow.widened(packed.bytes(), ty.elements()).into());
    }
    if proto.segment.is_some() {
        return Err(ErrorKind::unsupported("a tensor in segments"));
    }
    let typed = [
        ("float_data", proto.float_data.len()),
        ("int32_data", proto.int32_data.len()),
        ("int64_data", proto.int64_data.len()),
        ("double_data", proto.double_data.len()),
        ("uint64_data", proto.uint64_data.len()),
    ];
    let raw = proto.raw_data.as_ref().filter(|raw| !raw.is_empty());
    let mut kinds: Vec<&str> =
        typed.iter().filter(|(_, n)| *n > 0).map(|(name, _)| *name).collect();
    kinds.extend(raw.map(|_| "raw_data"));
    match proto.data_location {
        0 if proto.external_data.is_empty() => {}
        1 => kinds.push("external data"),
        0 => {
            return Err(ErrorKind::wrong(
                "external data are named, and the location is \"default\"",
            ));
        }
        n => return Err(ErrorKind::wrong(format!("there is no data location {n}"))),
    }
    if let [first, second, ..] = kinds[..] {
        return Err(ErrorKind::wrong(format!("it has both {first} and {second}")));
    }
    if proto.data_location == 1 {
        return exactly(ty.clone(), external(proto, &ty, folder)?);
    }
    if let Some(raw) = raw {
        return exactly(ty, raw.clone());
    }
    let field = match ty.dtype {
        DType::F32 => "float_data",
        DType::F64 => "double_data",
        DType::I64 => "int64_data",
        DType::U32 | DType::U64 => "uint64_data",
        _ => "int32_data",
    };
    if let Some(other) = kinds.first().filter(|kind| **kind != field) {
        return Err(ErrorKind::wrong(format!("{} elements are not stored as {other}", ty.dtype)));
    }
    let data = match ty.dtype {
        DType::F32 => proto.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F64 => proto.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I64 => proto.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U64 => proto.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I32 => proto.int32_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U32 => {
            fitted(&proto.uint64_data, ty.dtype, |v| u32::try_from(v).map(u32::to_le_bytes).ok())?
        }
        DType::I8 => {
            fitted(&proto.int32_data, ty.dtype, |v| i8::try_from(v).map(i8::to_le_bytes).ok())?
        }
        DType::U8 => {
            fitted(&proto.int32_data, ty.dtype, |v| u8::try_from(v).map(u8::to_le_bytes).ok())?
        }
        DType::Bool => fitted(&proto.int32_data, ty.dtype, |v| Some([u8::from(v != 0)]))?,
        DType::I16 => {
            fitted(&proto.int32_data, ty.dtype, |v| i16::try_from(v).map(i16::to_le_bytes).ok())?
        }
        // The bits of 16-bit floats are stored as integers.
        DType::U16 | DType::F16 | DType::BF16 => {
            fitted(&proto.int32_data, ty.dtype, |v| u16::try_from(v).map(u16::to_le_bytes).ok())?
        }
    };
    exactly(ty, data.into())
}

/// The elements in their own width.
fn fitted<T: Copy + std::fmt::Display, const N: usize>(
    values: &[T],
    dtype: DType,
    convert: impl Fn(T) -> Option<[u8; N]>,
) -> Result<Vec<u8>, ErrorKind> {
    let mut data = Vec::with_capacity(values.len() * N);
    for &v in values {
        match convert(v) {
            Some(bytes) => data.extend(bytes),
            None => {
                return Err(ErrorKind::wrong(format!("the element {v} does not fit in {dtype}")));
            }
        }
    }
    Ok(data)
}

/// The tensor, if there are as many bytes as its type asks for.
pub(in crate::front) fn exactly(ty: Type, data: Bytes) -> Result<Tensor, ErrorKind> {
    let (needed, found) = (ty.bytes(), data.len());
    // A truth value is one byte, 0 or 1, everywhere behind the readers.
    let data = match ty.dtype {
        DType::Bool if data.iter().any(|&b| b > 1) => {
            data.iter().map(|&b| u8::from(b != 0)).collect()
        }
        _ => data,
    };
    Tensor::from_bytes(ty.clone(), data).ok_or_else(|| {
        ErrorKind::wrong(format!("{ty} needs {needed} bytes, and the file has {found} for it"))
    })
}

/// The bytes beside the file that `external_data` names.
fn external(proto: &TensorProto, ty: &Type, folder: &mut Folder) -> Result<Bytes, ErrorKind> {
    let (mut location, mut offset, mut length) = (None, None, None);
    for entry in &proto.external_data {
        let number = || {
            entry.value.parse::<usize>().map_err(|_| {
                let (key, value) = (&entry.key, &entry.value);
                ErrorKind::wrong(format!("{key} of its external data is \"{value}\", not a number"))
            })
        };
        let again = match entry.key.as_str() {
            "location" => location.replace(entry.value.as_str()).is_some(),
            "offset" => offset.replace(number()?).is_some(),
            "length" => length.replace(number()?).is_some(),
            "checksum" => false,
            other => {
                let kind = ErrorKind::wrong(format!("its external data have the key \"{other}\""));
                return Err(kind.help("there are: location, offset, length, checksum"));
            }
        };
        if again {
            return Err(ErrorKind::wrong(format!("its external data have two of {}", entry.key)));
        }
    }
    let Some(location) = location else {
        return Err(ErrorKind::wrong("its external data name no file"));
    };
    let (needed, offset) = (ty.bytes(), offset.unwrap_or(0));
    if let Some(length) = length.filter(|&length| length != needed) {
        return Err(ErrorKind::wrong(format!(
            "{ty} needs {needed} bytes, and its external data have {length}"
        )));
    }
    let file = folder.open(location)?;
    match offset.checked_add(needed).filter(|&end| end <= file.len()) {
        Some(end) => Ok(file.slice(offset..end)),
        None => Err(ErrorKind::wrong(format!(
            "{ty} needs {needed} bytes at {offset} of \"{location}\", which has {}",
            file.len()
        ))),
    }
}

/// The tensor as ONNX stores it, in raw form.
pub(in crate::front) fn write(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        data_type: tensor.ty().dtype.onnx() as i32,
        dims: tensor.dims().iter().map(|&d| d as i64).collect(),
        raw_data: Some(tensor.bytes().clone()),
        ..TensorProto::default()
    }
}
