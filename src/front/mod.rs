//! Readers: model files and tensor files.
//!
//! [`read`] looks at what is in a file, not at what it is called: ONNX, the JSON format of this project
//! (see [`json`]), or a module or graph that RLX wrote (see [`rlx`]). Everything in a file is untrusted: sizes are
//! checked before they are used, and nothing is allocated that the file's own size does not pay for.

mod file;
pub mod json;
pub mod npy;
pub mod onnx;
pub mod pb;
pub mod rlx;
pub mod safetensors;
mod tensors;

pub use tensors::read_tensor;

use self::safetensors::Params;
use crate::error::{Class, Error, ErrorKind, Errors};
use crate::hir::{Graph, NodeInfo};
use bytes::Bytes;
use file::Folder;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a model file may need besides itself.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct ReadOptions {
    /// A safetensors file with values of the model's parameters.
    pub params: Option<PathBuf>,
    /// Take over the plan in a lowered RLX module, checked.
    pub keep_plan: bool,
    /// How many rows `NonMaxSuppression` gives in an ONNX model: `rlx:NonMaxSuppression` takes its place.
    pub selections: Option<usize>,
}

/// A model, and where it comes from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The model.
    pub graph: Graph,
    /// All files that were read, the model first: what a build depends on.
    pub files: Vec<PathBuf>,
    /// The plan in the file, if it was asked for.
    pub plan: Option<rlx::Plan>,
}

/// Reads a model.
///
/// # Errors
///
/// A file that cannot be read or is no model, and all that is wrong with the model.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Source, Errors> {
    let called = path.display().to_string();
    let data = file::named(path)?;
    let stem = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let stem = stem.split('.').next().unwrap_or_default().to_owned();
    let mut folder = Folder::of(Some(path));
    let mut source =
        model(&stem, &called, data, &mut folder, options).map_err(|e| e.in_file(&called))?;
    source.files.insert(0, path.to_owned());
    source.files.extend(folder.into_files());
    Ok(source)
}

/// The model in these bytes. It can refer to no other file.
///
/// # Errors
///
/// As [`read`].
pub fn read_bytes(name: &str, data: Bytes, options: &ReadOptions) -> Result<Source, Errors> {
    model(name, name, data, &mut Folder::of(None), options)
}

fn model(
    name: &str,
    called: &str,
    data: Bytes,
    folder: &mut Folder,
    options: &ReadOptions,
) -> Result<Source, Errors> {
    if let Some(kind) = no_model(called, &data) {
        return Err(kind.into());
    }
    let mut params = Params::open(options.params.as_deref())?;
    let (graph, plan) = match data.trim_ascii_start().first() {
        Some(b'[') => {
            return Err(ErrorKind::wrong("the file is a list in JSON, not a model").into());
        }
        Some(b'{') => {
            let keys: Keys = serde_json::from_slice(&data).map_err(|e| json::syntax(&e))?;
            let keep = options.keep_plan;
            match (keys.format.is_some(), keys.mir.is_some(), keys.nodes.is_some()) {
                (true, ..) => (json::read(name, &data, folder, &mut params)?, None),
                (false, true, _) => rlx::read(&data, true, keep, &mut params)?,
                (false, false, true) => rlx::read(&data, false, keep, &mut params)?,
                (false, false, false) => {
                    let kind = ErrorKind::wrong("the file is JSON, and not a model");
                    let help = format!("a model starts with {{\"format\": \"{}\"", json::FORMAT);
                    return Err(kind.help(help).into());
                }
            }
        }
        _ => (onnx::read(name, data, folder, options.selections)?, None),
    };
    if options.keep_plan && plan.is_none() {
        let kind = ErrorKind::usage("the model has no plan that could be kept");
        return Err(kind.help("only lowered RLX modules have one").into());
    }
    let chooses = |node: &NodeInfo| node.op.name() == "rlx:NonMaxSuppression";
    if options.selections.is_some() && !graph.nodes.values().any(chooses) {
        let kind = ErrorKind::usage("the model has no NonMaxSuppression to make selections");
        return Err(kind.help("without --selections it is read as it is").into());
    }
    Ok(Source { graph, files: params.into_files()?, plan })
}

/// The keys that tell the JSON formats apart.
#[derive(serde::Deserialize)]
struct Keys {
    format: Option<serde::de::IgnoredAny>,
    mir: Option<serde::de::IgnoredAny>,
    nodes: Option<serde::de::IgnoredAny>,
}

/// What the bytes are, where they are clearly something else than a model.
fn no_model(called: &str, data: &[u8]) -> Option<ErrorKind> {
    let wrong = |what: &str, help: &str| {
        Some(ErrorKind::wrong(format!("the file is {what}, not a model")).help(help))
    };
    let starts = |magic: &[u8]| data.starts_with(magic);
    let text = data.trim_ascii_start();
    let markup =
        |tag: &str| text.get(..tag.len()).is_some_and(|t| t.eq_ignore_ascii_case(tag.as_bytes()));
    let onnx =
        "export the model to ONNX: torch.onnx.export(model, inputs, \"model.onnx\", dynamo=True)";
    if text.is_empty() {
        return Some(ErrorKind::wrong("the file is empty"));
    }
    if starts(b"version https://git-lfs") {
        return wrong("a Git LFS pointer", "fetch what it points to: git lfs pull");
    }
    if starts(b"RLXLIR") || called.ends_with(".lir.bin") {
        let kind = ErrorKind::unsupported("a lowered RLX module in binary form");
        return Some(kind.help(
            "its layout changes with RLX's versions; write JSON instead: rlx_ir::serialize::lir_to_json(&module)",
        ));
    }
    if starts(b"\x1f\x8b") {
        return wrong("compressed with gzip", "unpack it: gunzip");
    }
    if starts(b"\x28\xb5\x2f\xfd") {
        return wrong("compressed with zstd", "unpack it: unzstd");
    }
    if starts(b"PK\x03\x04") {
        let torch = data[..data.len().min(4096)].windows(8).any(|w| w == b"data.pkl");
        return match torch {
            true => wrong("a PyTorch checkpoint", onnx),
            false => wrong("a ZIP archive", "unpack it; models are plain files"),
        };
    }
    if matches!(data, [0x80, 2..=5, ..]) {
        return wrong("a Python pickle", onnx);
    }
    if starts(b"\x89HDF") {
        return wrong(
            "an HDF5 file (Keras)",
            "export the model to ONNX: model.export(\"model.onnx\", format=\"onnx\")",
        );
    }
    if data.get(4..8) == Some(b"TFL3") {
        return wrong(
            "a TensorFlow Lite model",
            "convert it to ONNX: python -m tf2onnx.convert --tflite",
        );
    }
    if starts(b"GGUF") {
        return wrong("a GGUF file", "it holds weights without a graph; export the model to ONNX");
    }
    if starts(b"\x7fELF") {
        return wrong("an ELF object or program", "what is inside one: rlx-aot inspect");
    }
    if starts(b"\x93NUMPY") {
        return wrong("a NumPy array", "arrays are given to `run` and `verify`");
    }
    if data.get(8) == Some(&b'{') && data.get(..8).is_some_and(|n| n[4..] == [0; 4]) {
        return wrong(
            "a safetensors file",
            "it holds weights without a graph; give it with --params",
        );
    }
    if markup("<!doctype") || markup("<html") || markup("<?xml") {
        return wrong("a web page", "the download went wrong: fetch the file itself");
    }
    if starts(b"\xef\xbb\xbf") || starts(b"\xff\xfe") || starts(b"\xfe\xff") {
        return wrong("text with a byte order mark", "JSON models are UTF-8 without one");
    }
    None
}

/// `what: message`.
fn of(what: &str, kind: ErrorKind) -> ErrorKind {
    ErrorKind { message: format!("{what}: {}", kind.message), ..kind }
}

/// The errors with those left out that say the same of another node: an operator that is not supported
/// is one piece of news, however often it occurs.
fn merged(errors: Vec<Error>) -> Vec<Error> {
    let mut kept: Vec<(Error, usize)> = vec![];
    let mut first: BTreeMap<(String, String), usize> = BTreeMap::new();
    for error in errors {
        if let (Class::Unsupported, Some(node)) = (error.kind.class, &error.node) {
            let key = (node.op.clone(), error.kind.message.clone());
            let at = *first.entry(key).or_insert(kept.len());
            if let Some((_, more)) = kept.get_mut(at) {
                *more += 1;
                continue;
            }
        }
        kept.push((error, 0));
    }
    let counted = |(mut error, more): (Error, usize)| {
        if more > 0 {
            let rest = error.kind.help.take().map_or_else(String::new, |help| format!("; {help}"));
            let nodes = if more == 1 { "node" } else { "nodes" };
            error.kind.help = Some(format!("the same at {more} more {nodes}{rest}"));
        }
        error
    };
    kept.into_iter().map(counted).collect()
}
