//! `rlx-aot bench`: its profile covers every step and holds it against the machine's peaks, and its
//! trace is one that Chrome reads.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// Steps of several kinds.
const MODEL: &str = r#"{ "format": "rlx-aot/1", "name": "bench",
  "inputs": [{ "name": "x", "shape": [4, 32] }],
  "parameters": [],
  "nodes": [
    { "op": "Softmax", "inputs": ["x"], "outputs": ["s"] },
    { "op": "Transpose", "inputs": ["s"], "outputs": ["t"] },
    { "op": "MatMul", "inputs": ["x", "t"], "outputs": ["y"] } ],
  "outputs": ["y"] }"#;

fn bench(folder: &str, arguments: &[&str]) -> (PathBuf, String) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("model.json"), MODEL).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_rlx-aot"))
        .args(["bench", "model.json", "--seconds", "0.001"])
        .args(arguments)
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (folder, String::from_utf8(output.stdout).unwrap())
}

#[test]
fn profile_and_trace_cover_all_steps() {
    let options = ["--profile", "--trace", "trace.json", "--json", "--threads", "2"];
    let (folder, text) = bench("profile", &options);
    let report: Value = serde_json::from_str(&text).unwrap();
    let steps = report["steps"].as_array().unwrap();
    assert!(!steps.is_empty(), "{report}");
    let number = |value: &Value, key: &str| value[key].as_f64().unwrap_or(f64::NAN);
    let total: f64 = steps.iter().map(|step| number(step, "share")).sum();
    assert!((total - 1.0).abs() < 1e-6, "{total}");
    for step in steps {
        assert!(number(step, "least_us") >= 0.0 && number(step, "bytes") > 0.0, "{step}");
        assert!(number(step, "busy_us") >= 0.0, "{step}");
    }
    let kinds = report["kinds"].as_array().unwrap().iter().map(|kind| number(kind, "step"));
    assert_eq!(kinds.sum::<f64>(), steps.len() as f64);
    assert!(number(&report["peaks"], "gflops") > 0.0, "{report}");
    let levels = report["peaks"]["levels"].as_array().unwrap();
    assert!(
        levels.iter().all(|l| number(l, "read_gbytes") > 0.0 && number(l, "write_gbytes") > 0.0)
    );

    let trace: Value =
        serde_json::from_slice(&std::fs::read(folder.join("trace.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let complete: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
    assert_eq!(complete.len(), steps.len());
    let mut end = 0.0;
    for (event, step) in complete.iter().zip(steps) {
        assert_eq!(event["args"]["step"], step["step"]);
        for key in ["flops", "gflops", "bytes", "gbytes", "share", "least_us", "peak"] {
            assert_eq!(event["args"][key], step[key], "{key}");
        }
        assert!((number(event, "ts") - end).abs() < 1e-6, "{event}");
        end = number(event, "ts") + number(event, "dur");
    }
}

#[test]
fn profile_is_a_table() {
    let (_, text) = bench("table", &["--profile"]);
    for word in ["latency", "peaks of 1 thread", "GFLOP/s", "memory", "by kind"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains("threads  "), "{text}");
    let (_, text) = bench("table", &["--profile", "--threads", "2"]);
    for word in ["peaks of 2 threads", "share threads"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}
