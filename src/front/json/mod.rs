//! The JSON format of this project: models written by hand, or by a program in a few lines.
//!
//! ```json
//! {
//!   "format": "rlx-aot/1",
//!   "name": "mlp",
//!   "inputs": [{ "name": "x", "shape": ["batch", 4] }],
//!   "parameters": [
//!     { "name": "w", "shape": [4, 2], "data": [[1, 2], [3, 4], [5, 6], [7, 8]] },
//!     { "name": "b", "shape": [2], "file": "weights.safetensors", "tensor": "fc1.bias" }
//!   ],
//!   "nodes": [{ "op": "Gemm", "inputs": ["x", "w", "b"], "outputs": ["y"], "attributes": { "alpha": 0.5 } }],
//!   "outputs": ["y"]
//! }
//! ```
//!
//! Operators and attributes are ONNX's. A dimension is a number, or the name of a symbolic one. A parameter
//! has its elements as numbers (flat, or in nested lists), as base64 of little-endian bytes, or in a
//! safetensors file beside the model; without any it is set when the program runs. [`schema`] says it all.

mod data;
#[cfg(test)]
mod tests;

use super::file::Folder;
use super::safetensors::{Params, Weights};
use super::{merged, of};
use crate::error::{Error, ErrorKind, Errors, NodeContext};
use crate::hir::{Builder, Dim, Graph};
use crate::ops::{AnyOp, Attrs, DEFAULT_OPSET};
use crate::tensor::Tensor;
use crate::types::{DType, Type};
use base64::Engine;
use data::{Attributes, Data};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// What the `format` field says.
pub const FORMAT: &str = "rlx-aot/1";

/// The format as a JSON Schema (draft 2020-12).
pub fn schema() -> &'static str {
    include_str!("schema.json")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    #[serde(rename = "$schema")]
    _schema: Option<String>,
    format: String,
    #[serde(rename = "doc")]
    _doc: Option<String>,
    name: Option<String>,
    opset: Option<i64>,
    #[serde(default)]
    inputs: Vec<Input>,
    #[serde(default)]
    parameters: Vec<Parameter>,
    nodes: Vec<Node>,
    outputs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    name: String,
    #[serde(default = "f32")]
    dtype: DType,
    shape: Vec<Extent>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameter {
    name: String,
    #[serde(default = "f32")]
    dtype: DType,
    shape: Vec<Extent>,
    data: Option<Data>,
    base64: Option<String>,
    file: Option<String>,
    tensor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    op: String,
    #[serde(default)]
    name: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Clone, Deserialize)]
#[serde(untagged, expecting = "a dimension is a number, or the name of a symbolic one")]
enum Extent {
    Fixed(u64),
    Symbol(String),
}

fn f32() -> DType {
    DType::F32
}

/// The model in `text`; `name` is what it is called if it does not say.
///
/// # Errors
///
/// Text that is not of this format, with its line and column; otherwise all that is wrong.
pub(super) fn read(
    name: &str,
    text: &[u8],
    folder: &mut Folder,
    params: &mut Params,
) -> Result<Graph, Errors> {
    let model: Model = serde_json::from_slice(text).map_err(|e| syntax(&e))?;
    if model.format != FORMAT {
        let kind = ErrorKind::unsupported(format!("the format \"{}\"", model.format));
        return Err(kind.help(format!("this version reads \"{FORMAT}\"")).into());
    }
    let opset = model.opset.unwrap_or(DEFAULT_OPSET);
    let mut errors: Vec<Error> = vec![];
    if !(1..=super::onnx::NEWEST_OPSET).contains(&opset) {
        let newest = super::onnx::NEWEST_OPSET;
        errors
            .push(ErrorKind::unsupported(format!("opset {opset}; there are 1 to {newest}")).into());
    }
    let mut builder = Builder::new(model.name.as_deref().unwrap_or(name));
    let mut types = BTreeMap::new();
    for Input { name, dtype, shape } in model.inputs {
        match dims(dtype, &shape) {
            Ok(dims) => {
                if let Some(ty) = fixed(dtype, &dims) {
                    types.insert(name.clone(), ty);
                }
                builder.input(name, dtype, dims, false);
            }
            Err(kind) => {
                errors.push(of(&format!("input \"{name}\""), kind).into());
                builder.input(name, dtype, vec![], false);
            }
        }
    }
    let mut files = BTreeMap::new();
    for parameter in model.parameters {
        let Parameter { name, dtype, .. } = &parameter;
        let read = dims(*dtype, &parameter.shape).and_then(|dims| {
            types.extend(fixed(*dtype, &dims).map(|ty| (name.clone(), ty)));
            Ok((value(&parameter, &dims, folder, &mut files, params)?, dims))
        });
        match read {
            Ok((Some(tensor), _)) => builder.constant(name, tensor),
            Ok((None, dims)) => builder.input(name, *dtype, dims, true),
            Err(kind) => {
                errors.push(of(&format!("parameter \"{name}\""), kind).into());
                builder.input(name, *dtype, vec![], true);
            }
        }
    }
    nodes(model.nodes, &model.outputs, opset, &types, &mut builder, &mut errors);
    model.outputs.into_iter().for_each(|name| builder.output(name));
    merged(errors).into_iter().for_each(|e| builder.error(e));
    builder.finish()
}

/// What `serde_json` found, with line and column.
pub(super) fn syntax(e: &serde_json::Error) -> ErrorKind {
    let kind = ErrorKind::wrong(e.to_string());
    match e.to_string().contains("recursion limit") {
        true => ErrorKind::limit(e.to_string()).help("lists may be nested 128 deep"),
        false => kind,
    }
}

fn dims(dtype: DType, shape: &[Extent]) -> Result<Vec<Dim>, ErrorKind> {
    let dim = |extent: &Extent| match extent {
        Extent::Fixed(n) => usize::try_from(*n)
            .map(Dim::Fixed)
            .map_err(|_| ErrorKind::limit(format!("the dimension {n} is too large"))),
        Extent::Symbol(name) if name.is_empty() => {
            Err(ErrorKind::wrong("the name of a symbolic dimension is empty"))
        }
        Extent::Symbol(name) => Ok(Dim::Symbol(name.clone())),
    };
    let dims = shape.iter().map(dim).collect::<Result<Vec<_>, _>>()?;
    // What is symbolic is bound later and checked then.
    let known = dims.iter().map(|d| if let Dim::Fixed(n) = d { *n } else { 1 });
    match Type::try_new(dtype, known.collect::<Vec<_>>()) {
        Some(_) => Ok(dims),
        None => Err(ErrorKind::limit("the tensor is too large")),
    }
}

/// The type, if no dimension is symbolic.
fn fixed(dtype: DType, dims: &[Dim]) -> Option<Type> {
    let dims = dims.iter().map(|d| if let Dim::Fixed(n) = d { Some(*n) } else { None });
    dims.collect::<Option<Vec<_>>>().map(|dims| Type::new(dtype, dims))
}

/// The parameter's value, if the model or the parameters' file has one.
fn value(
    parameter: &Parameter,
    dims: &[Dim],
    folder: &mut Folder,
    files: &mut BTreeMap<String, Weights>,
    params: &mut Params,
) -> Result<Option<Tensor>, ErrorKind> {
    let Parameter { name, dtype, data, base64, file, tensor, .. } = parameter;
    let given = [("data", data.is_some()), ("base64", base64.is_some()), ("file", file.is_some())];
    let given: Vec<_> = given.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    if let [first, second, ..] = given[..] {
        return Err(ErrorKind::wrong(format!("it has both \"{first}\" and \"{second}\"")));
    }
    if let Some(file) = file {
        let within = |e| of(&format!("\"{file}\""), e);
        if !files.contains_key(file) {
            files.insert(file.clone(), Weights::new(folder.open(file)?).map_err(within)?);
        }
        let tensor = tensor.as_ref().unwrap_or(name);
        return files[file].get(tensor, *dtype, dims).map(Some).map_err(within);
    }
    if tensor.is_some() {
        return Err(ErrorKind::wrong("it has \"tensor\" and no \"file\""));
    }
    if given.is_empty() {
        return params.get(name, *dtype, dims);
    }
    let Some(ty) = fixed(*dtype, dims) else {
        let kind = ErrorKind::wrong("it has a value, and a symbolic dimension");
        return Err(kind.help("give its shape in numbers"));
    };
    if let Some(data) = data {
        return data.tensor(&ty).map(Some);
    }
    let data = base64::engine::general_purpose::STANDARD
        .decode(base64.as_deref().unwrap_or_default())
        .map_err(|e| ErrorKind::wrong(format!("\"base64\" is not valid: {e}")))?;
    super::onnx::exactly(ty, data.into()).map(Some)
}

fn nodes(
    nodes: Vec<Node>,
    outputs: &[String],
    opset: i64,
    types: &BTreeMap<String, Type>,
    builder: &mut Builder,
    errors: &mut Vec<Error>,
) {
    let used: BTreeSet<String> =
        nodes.iter().flat_map(|n| &n.inputs).chain(outputs).cloned().collect();
    for node in nodes {
        let Node { op, name, inputs, outputs, attributes } = node;
        let parsed = attributes.values().and_then(|values| {
            let used = outputs.iter().map(|o| !o.is_empty() && used.contains(o)).collect();
            AnyOp::parse(&op, &mut Attrs::new(values, opset, used))
        });
        match parsed {
            Ok(op) => builder.node(name, op, inputs, outputs),
            Err(kind) => {
                let label = if name.is_empty() { outputs.first().cloned() } else { Some(name) };
                let typed = |name: String| {
                    let ty = types.get(&name).cloned();
                    (name, ty)
                };
                let inputs = inputs.into_iter().map(typed).collect();
                let context = NodeContext { name: label.unwrap_or_default(), op, inputs };
                errors.push(Error::from(kind).at(context));
                for output in outputs.into_iter().filter(|o| !o.is_empty()) {
                    builder.input(output, DType::F32, vec![], false);
                }
            }
        }
    }
}
