//! Tensors as ONNX's test data have them: a `TensorProto` by itself.

use super::file::Folder;
use super::onnx::{TensorProto, read_tensor, write_tensor};
use crate::error::ErrorKind;
use crate::tensor::Tensor;
use bytes::Bytes;
use prost::Message;

/// The tensor in these bytes.
///
/// # Errors
///
/// Bytes that are none; a type that is not ours; data that do not fit the shape, or are elsewhere.
pub fn read(data: Bytes) -> Result<Tensor, ErrorKind> {
    let proto = TensorProto::decode(data)
        .map_err(|_| ErrorKind::wrong("not a valid tensor file (TensorProto)"))?;
    read_tensor(&proto, &mut Folder::of(None))
}

/// The tensor as a file.
pub fn write(name: &str, tensor: &Tensor) -> Vec<u8> {
    write_tensor(name, tensor).encode_to_vec()
}
