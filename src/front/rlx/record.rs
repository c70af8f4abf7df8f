//! Recorded values: `NAME.io.json` beside a module, with what RLX computed.

use crate::error::{ErrorKind, Errors};
use crate::tensor::Tensor;
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
    let called = path.display();
    let text = std::fs::read(path).map_err(|e| ErrorKind::io(format!("{called}: {e}")))?;
    let file: File =
        serde_json::from_slice(&text).map_err(|e| ErrorKind::wrong(format!("{called}: {e}")))?;
    let tensors = |entries: Vec<Entry>| {
        entries.into_iter().map(tensor).collect::<Result<Vec<_>, ErrorKind>>()
    };
    let (inputs, params, outputs) =
        (tensors(file.inputs)?, tensors(file.params)?, tensors(file.outputs)?);
    Ok(Record { inputs, params, outputs })
}

fn tensor(entry: Entry) -> Result<(String, Tensor), ErrorKind> {
    let Entry { name, shape, data } = entry;
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if count != Some(data.len()) {
        return Err(ErrorKind::wrong(format!(
            "\"{name}\" has {} values for the shape {shape:?}",
            data.len()
        )));
    }
    Ok((name, Tensor::from_f32s(shape, &data)))
}
