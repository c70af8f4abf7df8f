//! `rlx-aot inspect` and `rlx-aot ops`: what is in a model or an object, and what is supported.

use super::output::bytes;
use super::progress::Progress;
use super::{Outcome, model, output};
use rlx_aot::codegen::{inspect, manifest};
use rlx_aot::error::ErrorKind;
use rlx_aot::front::onnx::FUSED;
use rlx_aot::hir::Graph;
use rlx_aot::ops::AnyOp;
use rlx_aot::types::printable;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Arguments of `rlx-aot inspect`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    model: model::Args,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `rlx-aot ops`.
#[derive(clap::Args, Debug)]
pub(crate) struct OpsArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `inspect`.
pub(crate) fn run(args: &Args, quiet: bool) -> Outcome {
    let path = &args.model.model;
    let mut magic = [0; 4];
    let start = std::fs::File::open(path).and_then(|mut f| std::io::Read::read(&mut f, &mut magic));
    if start.is_ok() && magic == *b"\x7fELF" {
        return object(args);
    }
    let progress = Progress::new(quiet);
    let source = args.model.read(&progress)?;
    drop(progress);
    let files: Vec<String> = source.files.iter().map(|f| f.display().to_string()).collect();
    let description = describe(&source.graph, &files);
    if args.json { output::print(description) } else { output::print(as_text(&description)) }
}

fn object(args: &Args) -> Outcome {
    let path = &args.model.model;
    let data =
        std::fs::read(path).map_err(|e| ErrorKind::io(format!("{}: {e}", path.display())))?;
    let failed = |kind| rlx_aot::error::Error::from(kind).in_file(path.display().to_string());
    let contracts = inspect::inspect(&data).map_err(failed)?;
    let manifests: Vec<Value> = contracts.iter().map(manifest::contract).collect();
    match (args.json, &manifests[..]) {
        (true, [one]) => output::print(one),
        (true, all) => output::print(json!(all)),
        (false, all) => output::print(all.iter().map(manifest_text).collect::<Vec<_>>().join("\n")),
    }
}

fn manifest_text(manifest: &Value) -> String {
    let get = |key: &str| text(&manifest[key]);
    let mut lines = format!(
        "model        {} (prefix {}, ABI {})\narena        {} bytes, aligned to {}\nweights      {}, {} bytes\nfingerprint  {}\n",
        get("name"),
        get("prefix"),
        get("abi"),
        get("arena_size"),
        get("arena_align"),
        get("weights_mode"),
        get("weights_size"),
        get("fingerprint"),
    );
    let versions: Vec<String> =
        manifest["versions"].as_array().into_iter().flatten().map(text).collect();
    if !versions.is_empty() {
        lines += &format!("versions     for {}\n", versions.join(", "));
    }
    for (kind, label) in [("inputs", "input"), ("params", "parameter"), ("outputs", "output")] {
        for t in manifest[kind].as_array().into_iter().flatten() {
            let dims: Vec<String> = t["shape"].as_array().into_iter().flatten().map(text).collect();
            lines += &format!(
                "{label:<12} {}: {}[{}] at {}, {} bytes\n",
                text(&t["name"]),
                text(&t["dtype"]),
                dims.join(", "),
                text(&t["offset"]),
                text(&t["bytes"])
            );
        }
    }
    lines
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), printable)
}

fn describe(graph: &Graph, files: &[String]) -> Value {
    let mut operators: BTreeMap<&str, usize> = BTreeMap::new();
    graph.nodes.values().for_each(|n| *operators.entry(n.op.name()).or_default() += 1);
    let mut constants = (0usize, 0usize);
    for tensor in graph.values.values().filter_map(|v| v.constant.as_ref()) {
        constants = (constants.0 + 1, constants.1 + tensor.ty().bytes());
    }
    let input = |i: &rlx_aot::hir::Input| {
        let dims: Vec<String> = i.dims.iter().map(ToString::to_string).collect();
        json!({ "name": graph.values[i.value].name, "dtype": i.dtype.name(), "shape": dims, "parameter": i.parameter })
    };
    let outputs: Vec<_> = graph.outputs.iter().map(|&v| graph.values[v].name.clone()).collect();
    json!({
        "name": graph.name,
        "files": files,
        "inputs": graph.inputs.iter().map(input).collect::<Vec<_>>(),
        "outputs": outputs,
        "nodes": graph.nodes.len(),
        "operators": operators,
        "constants": constants.0,
        "constant_bytes": constants.1,
    })
}

fn as_text(d: &Value) -> String {
    let mut lines = format!("model     {}\n", text(&d["name"]));
    for i in d["inputs"].as_array().into_iter().flatten() {
        let label = if i["parameter"] == true { "parameter" } else { "input" };
        let dims: Vec<String> = i["shape"].as_array().into_iter().flatten().map(text).collect();
        lines += &format!(
            "{label:<9} {}: {}[{}]\n",
            text(&i["name"]),
            text(&i["dtype"]),
            dims.join(", ")
        );
    }
    for o in d["outputs"].as_array().into_iter().flatten() {
        lines += &format!("output    {}\n", text(o));
    }
    let operators = d["operators"].as_object().into_iter().flatten();
    let mut operators: Vec<(&String, u64)> =
        operators.map(|(k, v)| (k, v.as_u64().unwrap_or(0))).collect();
    operators.sort_by_key(|&(name, n)| (std::cmp::Reverse(n), name));
    let list: Vec<String> = operators.iter().map(|(name, n)| format!("{name} {n}")).collect();
    lines += &format!("nodes     {} ({})\n", d["nodes"], list.join(", "));
    lines += &format!(
        "constants {} ({})\n",
        d["constants"],
        bytes(d["constant_bytes"].as_u64().unwrap_or(0))
    );
    lines
}

/// Runs `ops`.
pub(crate) fn ops(args: &OpsArgs) -> Outcome {
    let mut names: Vec<String> = AnyOp::NAMES.iter().map(|&name| name.to_owned()).collect();
    names.extend(FUSED.iter().map(|name| format!("com.microsoft:{name}")));
    names.sort_unstable();
    if args.json { output::print(json!(names)) } else { output::print(names.join("\n")) }
}
