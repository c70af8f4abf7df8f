//! A module as JSON, and back.
//!
//! One object: `format` ([`FORMAT`]), `name`, `buffers`, `steps`, `io` and `plan`, with the names and
//! the nesting of [`Module`]'s fields. Constants are base64 of their little-endian bytes, or left
//! out. Equal modules give equal text.

use super::{Buffer, BufferInfo, BufferKind, Io, Module, Plan, StepInfo, verify};
use crate::error::ErrorKind;
use crate::tensor::Tensor;
use crate::types::Type;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cranelift_entity::PrimaryMap;
use serde::{Deserialize, Serialize};

/// Name and version of the format.
pub const FORMAT: &str = "rlx-aot-lir/1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    name: String,
    buffers: Vec<Storage>,
    steps: Vec<StepInfo>,
    io: Io,
    plan: Plan,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Storage {
    name: String,
    bytes: u64,
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    constant: Option<Type>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Input,
    Parameter,
    Output,
    State,
    Temporary,
    Constant,
}

/// The module as JSON, with the bytes of its constants or without.
pub fn to_json(module: &Module, constants: bool) -> String {
    let storage = |info: &BufferInfo| {
        let (kind, tensor) = match &info.kind {
            BufferKind::Input => (Kind::Input, None),
            BufferKind::Parameter => (Kind::Parameter, None),
            BufferKind::Output => (Kind::Output, None),
            BufferKind::State => (Kind::State, None),
            BufferKind::Temporary => (Kind::Temporary, None),
            BufferKind::Constant(tensor) => (Kind::Constant, Some(tensor)),
        };
        Storage {
            name: info.name.clone(),
            bytes: info.bytes,
            kind,
            constant: tensor.map(|t| t.ty().clone()),
            data: tensor.filter(|_| constants).map(|t| STANDARD.encode(t.bytes())),
        }
    };
    let document = Document {
        format: FORMAT.to_owned(),
        name: module.name.clone(),
        buffers: module.buffers.values().map(storage).collect(),
        steps: module.steps.values().cloned().collect(),
        io: module.io.clone(),
        plan: module.plan.clone(),
    };
    serde_json::to_string(&document).expect("numbers, strings, and maps with numbers as keys")
}

/// The module in this text, verified.
///
/// # Errors
///
/// What is no such text, has no constants, or breaks an invariant.
pub fn from_json(text: &str) -> Result<Module, ErrorKind> {
    let document: Document = serde_json::from_str(text)
        .map_err(|e| ErrorKind::wrong(format!("not a lowered module: {e}")))?;
    if document.format != FORMAT {
        let message = format!("the format is \"{}\"", document.format);
        return Err(ErrorKind::wrong(message).help(format!("this version reads \"{FORMAT}\"")));
    }
    let Document { name, buffers: storages, steps, io, plan, .. } = document;
    let mut buffers: PrimaryMap<Buffer, BufferInfo> = PrimaryMap::new();
    for storage in storages {
        let kind = match storage.kind {
            Kind::Input => BufferKind::Input,
            Kind::Parameter => BufferKind::Parameter,
            Kind::Output => BufferKind::Output,
            Kind::State => BufferKind::State,
            Kind::Temporary => BufferKind::Temporary,
            Kind::Constant => BufferKind::Constant(constant(&storage)?),
        };
        buffers.push(BufferInfo { name: storage.name, bytes: storage.bytes, kind });
    }
    let steps = steps.into_iter().collect();
    let module = Module { name, buffers, steps, io, plan };
    verify::verify(&module).map_err(|broken| {
        ErrorKind::wrong(format!("the module is broken: {}", broken.join("; ")))
    })?;
    Ok(module)
}

fn constant(storage: &Storage) -> Result<Tensor, ErrorKind> {
    let wrong = |what: &str| ErrorKind::wrong(format!("constant \"{}\" {what}", storage.name));
    let ty = storage.constant.clone().ok_or_else(|| wrong("has no type"))?;
    let ty = Type::try_new(ty.dtype, ty.dims).ok_or_else(|| wrong("is too large"))?;
    let data = storage.data.as_ref().ok_or_else(|| {
        wrong("has no bytes").help("write the module with its constants to read it back")
    })?;
    let data = STANDARD.decode(data).map_err(|_| wrong("is not base64"))?;
    Tensor::from_bytes(ty, data.into()).ok_or_else(|| wrong("has not the bytes of its type"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lir::{Options, lower};
    use crate::mir::{Binary, Builder, Output, Role};
    use crate::types::DType;

    #[test]
    fn there_and_back() {
        let mut mir = Builder::new("m");
        let x = mir.input("x", Role::Input, Type::new(DType::F32, [2, 3]));
        let w = mir.constant(Tensor::from_f32s([3], &[f32::NAN, -0.0, 1.0]));
        let y = mir.binary(Binary::Add, x, w);
        let y = mir.binary_scalar(Binary::Mul, y, f64::INFINITY);
        let p = mir.pad(y, &[1, 0], &[0, 1], f64::NEG_INFINITY);
        let outputs = [("y", y), ("p", p)];
        let outputs = outputs.map(|(name, value)| Output { name: name.into(), value });
        let graph = mir.finish(outputs.into());
        let module = lower(&graph, Options::default()).expect("it is small");
        let text = to_json(&module, true);
        let again = from_json(&text).expect("it was just written");
        assert_eq!(again.steps, module.steps);
        assert_eq!(again.plan, module.plan);
        assert_eq!(to_json(&again, true), text);
        let without = from_json(&to_json(&module, false)).expect_err("no constants");
        assert!(without.message.contains("has no bytes"), "{without}");
        assert!(from_json("{}").is_err());
        let mut small = module.clone();
        small.plan.arena_size = 64;
        assert!(from_json(&to_json(&small, true)).is_err());
    }
}
