//! Any number of threads computes the same bits: products, convolutions (direct, filtered minimally,
//! of single channels), attention, softmax, reductions and pools.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A parameter with values of about `scale`.
fn parameter(name: &str, shape: &[usize], scale: f64) -> Value {
    let mut state = name.bytes().fold(1u64, |sum, byte| sum * 31 + u64::from(byte));
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        scale * ((state >> 33) as f64 / (1u64 << 30) as f64 - 1.0)
    };
    let data: Vec<f64> = (0..shape.iter().product()).map(|_| next()).collect();
    json!({ "name": name, "shape": shape, "data": data })
}

fn node(op: &str, inputs: &[&str], output: &str, attributes: Value) -> Value {
    json!({ "op": op, "inputs": inputs, "outputs": [output], "attributes": attributes })
}

fn image() -> Value {
    json!({
        "format": "rlx-aot/1", "name": "image",
        "inputs": [{ "name": "x", "shape": [1, 3, 99, 123] }],
        "parameters": [
            parameter("first", &[24, 3, 3, 3], 0.3), parameter("single", &[24, 1, 3, 3], 0.3),
            parameter("point", &[40, 24, 1, 1], 0.3), parameter("minimal", &[40, 40, 3, 3], 0.1),
            parameter("last", &[96, 40, 1, 1], 0.2), parameter("bias", &[40], 1.0),
        ],
        "nodes": [
            node("Conv", &["x", "first"], "a", json!({ "strides": [2, 2], "pads": [1, 1, 1, 1] })),
            node("Relu", &["a"], "b", json!({})),
            node("Conv", &["b", "single"], "c", json!({ "group": 24, "pads": [1, 1, 1, 1] })),
            node("Conv", &["c", "point", "bias"], "d", json!({})),
            node("Conv", &["d", "minimal"], "e", json!({ "pads": [1, 1, 1, 1] })),
            node("Add", &["d", "e"], "f", json!({})),
            node("MaxPool", &["f"], "g", json!({ "kernel_shape": [2, 2], "strides": [2, 2] })),
            node("Conv", &["g", "last"], "h", json!({})),
            node("GlobalAveragePool", &["h"], "mean", json!({})),
        ],
        "outputs": ["f", "h", "mean"],
    })
}

fn sequence() -> Value {
    json!({
        "format": "rlx-aot/1", "name": "sequence",
        "inputs": [{ "name": "x", "shape": [93, 192] }],
        "parameters": [
            parameter("q", &[192, 192], 0.2), parameter("k", &[192, 192], 0.2),
            parameter("v", &[192, 192], 0.2), parameter("wide", &[192, 700], 0.2),
            parameter("narrow", &[700, 192], 0.1),
            json!({ "name": "heads", "dtype": "i64", "shape": [3], "data": [93, 6, 32] }),
            json!({ "name": "rows", "dtype": "i64", "shape": [2], "data": [93, 192] }),
        ],
        "nodes": [
            node("MatMul", &["x", "q"], "xq", json!({})),
            node("MatMul", &["x", "k"], "xk", json!({})),
            node("MatMul", &["x", "v"], "xv", json!({})),
            node("Reshape", &["xq", "heads"], "rq", json!({})),
            node("Reshape", &["xk", "heads"], "rk", json!({})),
            node("Reshape", &["xv", "heads"], "rv", json!({})),
            node("Transpose", &["rq"], "hq", json!({ "perm": [1, 0, 2] })),
            node("Transpose", &["rk"], "hk", json!({ "perm": [1, 2, 0] })),
            node("Transpose", &["rv"], "hv", json!({ "perm": [1, 0, 2] })),
            node("MatMul", &["hq", "hk"], "scores", json!({})),
            node("Softmax", &["scores"], "shares", json!({ "axis": -1 })),
            node("MatMul", &["shares", "hv"], "mixed", json!({})),
            node("Transpose", &["mixed"], "turned", json!({ "perm": [1, 0, 2] })),
            node("Reshape", &["turned", "rows"], "flat", json!({})),
            node("Add", &["x", "flat"], "sum", json!({})),
            node("MatMul", &["sum", "wide"], "up", json!({})),
            node("Gelu", &["up"], "gelu", json!({})),
            node("MatMul", &["gelu", "narrow"], "y", json!({})),
            node("ReduceMax", &["y"], "peak", json!({ "keepdims": 0 })),
        ],
        "outputs": ["scores", "y", "peak"],
    })
}

/// The outputs' bytes of a run with so many threads.
fn outputs(folder: &Path, threads: usize, options: &[&str]) -> Vec<Vec<u8>> {
    let out = folder.join(format!("out{threads}"));
    let output = Command::new(env!("CARGO_BIN_EXE_rlx-aot"))
        .args(["bench", "model.json", "--seconds", "0", "--runs", "3", "--seed", "5"])
        .args(["--threads", &threads.to_string(), "--out-dir"])
        .arg(&out)
        .args(options)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (0..3).map(|i| std::fs::read(out.join(format!("out_{i}.bin"))).unwrap()).collect()
}

fn same_bits(name: &str, model: &Value, options: &[&str]) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("threads-{name}"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("model.json"), model.to_string()).unwrap();
    let one = outputs(&folder, 1, options);
    for threads in [2, 3, 4, 7] {
        let several = outputs(&folder, threads, options);
        for (i, (one, several)) in one.iter().zip(&several).enumerate() {
            assert!(one == several, "{name}, output {i}, with {threads} threads");
        }
    }
}

#[test]
fn images() {
    same_bits("image", &image(), &[]);
    same_bits("image-direct", &image(), &["--winograd", "off"]);
}

#[test]
fn sequences() {
    same_bits("sequence", &sequence(), &[]);
    same_bits("sequence-baseline", &sequence(), &["--cpu", "x86-64-v2"]);
}
