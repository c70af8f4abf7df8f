//! What a plan is good for besides one model's runs: state between runs, several models in one arena, two memories, parameters
//! at the same bytes in two plans. Each through a C program, as a user would write it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bands;
mod memories;
mod rust;
mod states;
mod together;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

const COMPILER: &str = env!("CARGO_BIN_EXE_rlx-aot");
const FLAGS: &[&str] = &["-std=c11", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror"];

/// An empty folder for what a test builds, with the runtime in it.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("uses").join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    for file in ["rlx_rt.h", "rlx_rt.c"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime").join(file);
        std::fs::copy(from, path.join(file)).unwrap();
    }
    path
}

/// Runs a command in a folder; what it prints.
fn output(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Builds a model; what `--json` says of it.
fn build(arguments: &[&str], folder: &Path) -> Value {
    let text = output(COMPILER, &[&["build", "--json"][..], arguments].concat(), folder);
    serde_json::from_str(&text).unwrap()
}

/// Bytes of the arena of `m.json` with these options, whose object is `m.o` then.
fn arena_size(options: &[&str], folder: &Path) -> u64 {
    let manifest = build(&[&["m.json", "-o", "m.o"][..], options].concat(), folder);
    manifest["arena_size"].as_u64().unwrap()
}

/// What the compiler says is wrong.
fn refused(arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(COMPILER).args(arguments).current_dir(folder).output().unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    std::fs::write(folder.join(name), text).unwrap();
}

/// Builds `main.c` with some objects and the runtime, and runs it.
fn run_c(folder: &Path, source: &str, objects: &[&str]) -> String {
    write(folder, "main.c", source);
    let files = ["main.c", "rlx_rt.c"];
    output("cc", &[FLAGS, &files, objects, &["-o", "main"]].concat(), folder);
    output("./main", &[], folder)
}

/// Numbers that look random and are the same everywhere.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + seed * 11) % 41) as f32 / 41.0 - 0.5).collect()
}

fn tensor(name: &str, shape: &[usize], seed: usize) -> Value {
    let data = numbers(shape.iter().product(), seed);
    json!({ "name": name, "dtype": "f32", "shape": shape, "data": data })
}

fn c_array(name: &str, values: &[f32]) -> String {
    let list: Vec<String> = values.iter().map(|v| format!("{v:?}f")).collect();
    format!("static const float {name}[] = {{{}}};\n", list.join(", "))
}

/// `y = x * w + v v`, where the product is prepared; `sum` grows by `16 exp(y)` from run to run.
fn accumulator(name: &str, elements: usize, v: &str) -> String {
    let vector = |name: &str| json!({ "name": name, "dtype": "f32", "shape": [elements] });
    json!({
        "format": "rlx-aot/1",
        "name": name,
        "inputs": [vector("x"), vector("sum")],
        "parameters": [
            vector("w"), vector(v),
            { "name": "wide", "dtype": "i64", "shape": [2], "data": [16, elements] },
            { "name": "axes", "dtype": "i64", "shape": [1], "data": [0] },
        ],
        "nodes": [
            { "op": "MatMul", "inputs": [v, v], "outputs": ["once"] },
            { "op": "Mul", "inputs": ["x", "w"], "outputs": ["xw"] },
            { "op": "Add", "inputs": ["xw", "once"], "outputs": ["y"] },
            { "op": "Expand", "inputs": ["y", "wide"], "outputs": ["rows"] },
            { "op": "Exp", "inputs": ["rows"], "outputs": ["exps"] },
            { "op": "ReduceSum", "inputs": ["exps", "axes"], "outputs": ["more"],
              "attributes": { "keepdims": 0 } },
            { "op": "Add", "inputs": ["sum", "more"], "outputs": ["sum1"] },
        ],
        "outputs": ["y", "sum1"],
    })
    .to_string()
}
