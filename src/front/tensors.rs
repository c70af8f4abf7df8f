//! Tensor files of any kind, by what is in them.

use super::{file, npy, pb, safetensors};
use crate::error::{Error, ErrorKind, Errors};
use crate::tensor::Tensor;
use crate::types::Type;
use std::path::Path;

/// The tensor in a file: `.npy`, ONNX's `.pb`, a safetensors file with one tensor, or (with an expected
/// type) little-endian elements and nothing else. A tensor of the expected type in another shape of as many
/// elements is not taken.
///
/// # Errors
///
/// A file that cannot be read, or does not hold a tensor of the expected type.
pub fn read_tensor(path: &Path, expected: Option<&Type>) -> Result<Tensor, Errors> {
    let read = || {
        let data = file::named(path)?;
        let suffix = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let tensor = match suffix.as_deref() {
            _ if data.starts_with(b"\x93NUMPY") => npy::read(&data)?,
            Some("npy") => npy::read(&data)?,
            Some("npz") => {
                let kind = ErrorKind::unsupported("an archive of arrays");
                return Err(kind.help("save one array: numpy.save(\"x.npy\", x)"));
            }
            Some("pb") => pb::read(data)?,
            Some("safetensors") => {
                let weights = safetensors::Weights::new(data)?;
                let mut names = weights.names();
                match (names.next(), names.next()) {
                    (Some(name), None) => weights.tensor(name)?,
                    _ => return Err(ErrorKind::wrong("the file does not hold exactly one tensor")),
                }
            }
            _ => match expected {
                Some(ty) => super::onnx::exactly(ty.clone(), data)?,
                None => {
                    let kind = ErrorKind::wrong("it is not known what kind of tensor file this is");
                    return Err(kind.help("its name must end in .npy, .pb or .safetensors"));
                }
            },
        };
        match expected {
            Some(ty) if ty != tensor.ty() => {
                Err(ErrorKind::wrong(format!("the tensor is {}, and must be {ty}", tensor.ty())))
            }
            _ => Ok(tensor),
        }
    };
    read().map_err(|kind| Error::from(kind).in_file(path.display().to_string()).into())
}
