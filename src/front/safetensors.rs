//! Safetensors files: weights by name, shared with the file's bytes.

use crate::error::{ErrorKind, Errors, nearest};
use crate::hir::Dim;
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use bytes::Bytes;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The tensors of a file, by name.
#[derive(Debug)]
pub struct Weights(BTreeMap<String, (Dtype, Vec<usize>, Bytes)>);

impl Weights {
    /// The tensors in a file with these bytes.
    ///
    /// # Errors
    ///
    /// When they are no safetensors file.
    pub fn new(data: Bytes) -> Result<Weights, ErrorKind> {
        let file = SafeTensors::deserialize(&data)
            .map_err(|e| ErrorKind::wrong(format!("not a valid safetensors file: {e}")))?;
        let entry = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
            let bytes = data.slice_ref(view.data());
            (name.to_owned(), (view.dtype(), view.shape().to_vec(), bytes))
        };
        Ok(Weights(file.iter().map(entry).collect()))
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The tensor called `name`, as it is in the file.
    ///
    /// # Errors
    ///
    /// When there is none, or its element type is not ours.
    pub fn tensor(&self, name: &str) -> Result<Tensor, ErrorKind> {
        let Some((dtype, shape, data)) = self.0.get(name) else {
            let kind = ErrorKind::wrong(format!("it has no tensor \"{name}\""));
            return Err(match nearest(name, self.names()) {
                Some(near) => kind.help(format!("did you mean \"{near}\"?")),
                None => kind,
            });
        };
        let dtype = match dtype {
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::I8 => DType::I8,
            Dtype::I16 => DType::I16,
            Dtype::I32 => DType::I32,
            Dtype::I64 => DType::I64,
            Dtype::U8 => DType::U8,
            Dtype::U16 => DType::U16,
            Dtype::U32 => DType::U32,
            Dtype::U64 => DType::U64,
            Dtype::BOOL => DType::Bool,
            other => return Err(ErrorKind::unsupported(format!("\"{name}\" is of {other}"))),
        };
        let ty = Type::try_new(dtype, shape.clone())
            .ok_or_else(|| ErrorKind::limit(format!("\"{name}\" is too large")))?;
        super::onnx::exactly(ty, data.clone())
    }

    /// The tensor called `name`, which has to have this type. Floats may be narrower in the file: widening
    /// them changes no value.
    ///
    /// # Errors
    ///
    /// As [`Weights::tensor`], and when the type is another one.
    pub fn get(&self, name: &str, dtype: DType, dims: &[Dim]) -> Result<Tensor, ErrorKind> {
        let tensor = self.tensor(name)?;
        let found = tensor.ty();
        let same = |(dim, &n): (&Dim, &usize)| match dim {
            Dim::Fixed(m) => *m == n,
            Dim::Symbol(_) | Dim::Unknown => true,
        };
        let shaped = found.rank() == dims.len() && dims.iter().zip(&found.dims).all(same);
        let wider =
            dtype.is_float() && found.dtype.is_float() && dtype.bytes() > found.dtype.bytes();
        match shaped && (found.dtype == dtype || wider) {
            true if wider => Ok(Tensor::from_f64s(found.with_dtype(dtype), tensor.f64s())),
            true => Ok(tensor),
            false => {
                let dims: Vec<_> = dims.iter().map(ToString::to_string).collect();
                Err(ErrorKind::wrong(format!(
                    "\"{name}\" is {found} there, and must be {dtype}[{}]",
                    dims.join(", ")
                )))
            }
        }
    }
}

/// The file that `--params` names, if any.
#[derive(Debug, Default)]
pub(super) struct Params {
    file: Option<(PathBuf, Weights)>,
    /// Parameters of the model so far.
    known: BTreeSet<String>,
}

impl Params {
    pub(super) fn open(path: Option<&Path>) -> Result<Params, Errors> {
        let Some(path) = path else { return Ok(Params::default()) };
        let weights = super::file::named(path)
            .and_then(Weights::new)
            .map_err(|e| Errors::from(e).in_file(&path.display().to_string()))?;
        Ok(Params { file: Some((path.to_owned(), weights)), known: BTreeSet::new() })
    }

    /// The value of a parameter, if the file has it.
    pub(super) fn get(
        &mut self,
        name: &str,
        dtype: DType,
        dims: &[Dim],
    ) -> Result<Option<Tensor>, ErrorKind> {
        self.known.insert(name.to_owned());
        match &self.file {
            Some((path, weights)) if weights.0.contains_key(name) => weights
                .get(name, dtype, dims)
                .map(Some)
                .map_err(|e| super::of(&format!("\"{}\"", path.display()), e)),
            _ => Ok(None),
        }
    }

    /// What was read.
    ///
    /// # Errors
    ///
    /// A file that has no value for any parameter of the model.
    pub(super) fn into_files(self) -> Result<Vec<PathBuf>, ErrorKind> {
        let Some((path, weights)) = self.file else { return Ok(vec![]) };
        if weights.names().any(|name| self.known.contains(name)) {
            return Ok(vec![path]);
        }
        let kind =
            ErrorKind::usage(format!("\"{}\" has no parameter of the model", path.display()));
        let known: Vec<_> = self.known.iter().map(String::as_str).take(8).collect();
        Err(match known.is_empty() {
            true => kind.help("all its parameters have values in the model"),
            false => kind.help(format!("its parameters are: {}", known.join(", "))),
        })
    }
}
