//! Recorded values: `NAME.io.json` beside a module, with what RLX computed.

use crate::error::{ErrorKind, Errors};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use serde::Deserialize;
use std::path::Path;

/// Named values, in the file's order.
#[derive(Clone, Debug)]
pub struct Record {
    /// Of the inputs.
    pub inputs: Vec<(String, Tensor)>,
    /// Of the parameters.
    pub params: Vec<(String, Tensor)>,
    /// Of the outputs, which have no names.
    pub outputs: Vec<(String, Tensor)>,
}

#[derive(Deserialize)]
struct File {
    inputs: Vec<Entry>,
    params: Vec<Entry>,
    outputs: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    /// Outputs have none.
    #[serde(default)]
    name: String,
    shape: Vec<usize>,
    data: Vec<f32>,
}

/// Reads such a file.
///
/// # Errors
///
/// A file that cannot be read, or is something else.
pub fn read_record(path: &Path) -> Result<Record, Errors> {
    let in_file = |e: ErrorKind| Errors::from(e).in_file(&path.display().to_string());
    let text = crate::front::file::named(path)?;
    let file: File =
        serde_json::from_slice(&text).map_err(|e| in_file(crate::front::json::syntax(&e)))?;
    let tensors = |entries: Vec<Entry>| {
        entries.into_iter().map(tensor).collect::<Result<Vec<_>, ErrorKind>>()
    };
    let record = |file: File| {
        let [inputs, params, outputs] = [file.inputs, file.params, file.outputs].map(tensors);
        Ok(Record { inputs: inputs?, params: params?, outputs: outputs? })
    };
    record(file).map_err(in_file)
}

fn tensor(entry: Entry) -> Result<(String, Tensor), ErrorKind> {
    let Entry { name, shape, data } = entry;
    let ty = Type::try_new(DType::F32, shape.clone());
    if ty.is_none_or(|ty| ty.elements() != data.len()) {
        return Err(ErrorKind::wrong(format!(
            "\"{name}\" has {} values for the shape {shape:?}",
            data.len()
        )));
    }
    Ok((name, Tensor::from_f32s(shape, &data)))
}
