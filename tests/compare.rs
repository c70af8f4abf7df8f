//! `rlx-aot plan --compare`: the other plans of a small model are those that one makes by hand.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

const MODEL: &str = r#"{ "format": "rlx-aot/1", "name": "compare",
  "inputs": [{ "name": "x", "shape": [4, 32] }],
  "parameters": [],
  "nodes": [
    { "op": "Softmax", "inputs": ["x"], "outputs": ["s"] },
    { "op": "Relu", "inputs": ["s"], "outputs": ["r"] },
    { "op": "Transpose", "inputs": ["r"], "outputs": ["t"] },
    { "op": "MatMul", "inputs": ["x", "t"], "outputs": ["y"] } ],
  "outputs": ["y"] }"#;

/// Nobody reads the input after the first step.
const CHAIN: &str = r#"{ "format": "rlx-aot/1", "name": "chain",
  "inputs": [{ "name": "x", "shape": [4, 32] }],
  "parameters": [],
  "nodes": [
    { "op": "Softmax", "inputs": ["x"], "outputs": ["s"] },
    { "op": "Transpose", "inputs": ["s"], "outputs": ["t"] },
    { "op": "Softmax", "inputs": ["t"], "outputs": ["y"] } ],
  "outputs": ["y"] }"#;

fn compare(model: &str, options: &[&str]) -> String {
    let name = if model == MODEL { "compare" } else { "chain" };
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("model.json"), model).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_rlx-aot"))
        .args(["plan", "model.json", "--compare"])
        .args(options)
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn other_plans() {
    let report: Value = serde_json::from_str(&compare(MODEL, &["--json"])).unwrap();
    // x lives until the product; beside it s and r, then r and t, then t and y (64 bytes).
    assert_eq!(report["greedy_by_size"], 3 * 512);
    assert_eq!(report["greedy_fused"], 3 * 512);
    assert_eq!(report["without_reuse"], 4 * 512 + 64);
    let arena = report["arena"].as_f64().unwrap();
    assert!(arena > 0.0 && report["bound"].as_f64().unwrap() <= arena, "{report}");
    assert!((report["saved"].as_f64().unwrap() - (1.0 - arena / 1536.0)).abs() < 1e-9, "{report}");
    assert_eq!(report["greedy_inputs_kept"], 3 * 512);
    let table = compare(MODEL, &[]);
    for word in ["inputs kept", "inputs overwritten", "inputs freed", "RLX"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    for word in ["this plan", "greedy by size", "activations fused", "no reuse", "1536"] {
        assert!(table.contains(word), "{word}: {table}");
    }
}

#[test]
fn inputs_kept_and_overwritten() {
    let report =
        |options: &[&str]| -> Value { serde_json::from_str(&compare(CHAIN, options)).unwrap() };
    let (kept, overwritten) = (report(&["--json"]), report(&["--json", "--overwrite-inputs"]));
    // Two of the tensors at a time, and the input beside them.
    assert_eq!(kept["greedy_by_size"], 2 * 512);
    assert_eq!(kept["greedy_inputs_kept"], 3 * 512);
    for row in ["inputs_kept", "inputs_overwritten", "greedy_by_size", "greedy_inputs_kept"] {
        assert_eq!(kept[row], overwritten[row], "{row}");
    }
    assert_eq!(kept["arena"], kept["inputs_kept"]);
    assert_eq!(overwritten["arena"], kept["inputs_overwritten"]);
    assert!(kept["inputs_overwritten"].as_u64() < kept["inputs_kept"].as_u64(), "{kept}");
}
