//! `rlx-aot plan` with placement problems in files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rlx_aot::placement::csv;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// At no time are more than 8 bytes alive, and 9 are needed.
const ABOVE_LIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/above_live.csv");

fn plan(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rlx-aot"));
    command.arg("--quiet").arg("plan").args(args).output().unwrap()
}

fn printed(args: &[&str]) -> String {
    let output = plan(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The exit code, and what was said.
fn refused(args: &[&str]) -> (i32, String) {
    let output = plan(args);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn problems_are_solved() {
    let text = printed(&[ABOVE_LIVE]);
    assert!(text.contains("height   9 (optimal)\nbound    9\n"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let solution = folder.path().join("solution.csv");
    let json = printed(&[ABOVE_LIVE, "--json", "-o", solution.to_str().unwrap()]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["height"], &json["optimal"]), (&9.into(), &true.into()));
    // The written placement holds, and is the printed one.
    let problem = csv::read(&std::fs::read_to_string(ABOVE_LIVE).unwrap()).unwrap();
    let solved = csv::read(&std::fs::read_to_string(&solution).unwrap()).unwrap();
    let offsets: Vec<u64> = solved.problem.items.iter().filter_map(|item| item.fixed).collect();
    assert_eq!(problem.problem.check(&offsets), Ok(()));
    assert_eq!((problem.problem.height(&offsets), &problem.ids), (9, &solved.ids));
    let printed: Vec<u64> =
        json["buffers"].as_array().unwrap().iter().map(|b| b["offset"].as_u64().unwrap()).collect();
    assert_eq!(printed, offsets);
}

#[test]
fn budgets_and_capacities_hold() {
    let text = printed(&[ABOVE_LIVE, "--plan-budget", "0"]);
    assert!(text.contains("bound    8\nsteps    0\n"), "{text}");
    let text = printed(&[ABOVE_LIVE, "--capacity", "9"]);
    assert!(text.contains("height   9"), "{text}");
    let (code, text) = refused(&[ABOVE_LIVE, "--capacity", "8"]);
    assert_eq!(code, 5);
    assert!(
        text.contains("no placement of at most 8 bytes") && text.contains("at least 9 bytes"),
        "{text}"
    );
}

#[test]
fn wrong_problems_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = |text: &str| {
        let path = file(folder.path(), "wrong.csv", text);
        refused(&[path.to_str().unwrap()])
    };
    let (code, text) = wrong("id,lower,upper,size\na,0,1,x\n");
    assert_eq!(code, 1);
    assert!(text.contains("\"x\" is no number of bytes at line 2 column 7"), "{text}");
    assert!(text.contains("wrong.csv"), "{text}");
    let (code, text) = wrong("id,lower,upper,size,offset\na,0,3,4,0\nb,1,2,4,2\n");
    assert_eq!(code, 1);
    assert!(text.contains("\"a\" and \"b\" are fixed where they share bytes"), "{text}");
    assert_eq!(wrong("id,lower,upper,size,gaps\na,0,9,4,1-2\n").0, 3);
    assert_eq!(refused(&[ABOVE_LIVE, "--html", "page.html"]).0, 2);
}

/// The problem of a model is that of its plan.
#[test]
fn models_are_written_as_problems() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/rlx/cnn.graph.json");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.csv");
    let json = printed(&[model, "--json", "--csv", path.to_str().unwrap()]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let solved = printed(&[path.to_str().unwrap(), "--json"]);
    let solved: serde_json::Value = serde_json::from_str(&solved).unwrap();
    assert_eq!((&json["bound"], &json["arena_size"]), (&solved["bound"], &solved["height"]));
}
