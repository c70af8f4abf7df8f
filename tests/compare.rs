//! `rlx-aot plan --compare`: the other plans of a small model are those that one makes by hand.

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

fn compare(options: &[&str]) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compare");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("model.json"), MODEL).unwrap();
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
    let report: Value = serde_json::from_str(&compare(&["--json"])).unwrap();
    // x lives until the product; beside it s and r, then r and t, then t and y (64 bytes).
    assert_eq!(report["greedy_by_size"], 3 * 512);
    assert_eq!(report["greedy_fused"], 3 * 512);
    assert_eq!(report["without_reuse"], 4 * 512 + 64);
    let arena = report["arena"].as_f64().unwrap();
    assert!(arena > 0.0 && report["bound"].as_f64().unwrap() <= arena, "{report}");
    assert!((report["saved"].as_f64().unwrap() - (1.0 - arena / 1536.0)).abs() < 1e-9, "{report}");
    let table = compare(&[]);
    for word in ["this plan", "greedy by size", "activations fused", "no reuse", "1536"] {
        assert!(table.contains(word), "{word}: {table}");
    }
}
