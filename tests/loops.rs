//! The inner loops for machines that are not at hand to be timed: what Cranelift makes of a contraction and of a depthwise
//! convolution on aarch64 and riscv64, in `data/loops`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const TARGETS: [&str; 2] = ["aarch64", "riscv64"];

fn model(inputs: Value, weights: &[usize], node: Value) -> Value {
    let count: usize = weights.iter().product();
    let data: Vec<f32> = (0..count).map(|i| (i * 37 % 41) as f32 / 41.0 - 0.5).collect();
    json!({
        "format": "rlx-aot/1",
        "name": "model",
        "inputs": [{ "name": "x", "dtype": "f32", "shape": inputs }],
        "parameters": [{ "name": "w", "dtype": "f32", "shape": weights, "data": data }],
        "nodes": [node],
        "outputs": ["y"],
    })
}

fn contraction() -> Value {
    let node = json!({ "op": "MatMul", "inputs": ["x", "w"], "outputs": ["y"] });
    model(json!([64, 64]), &[64, 64], node)
}

fn depthwise(stride: usize, taps: usize) -> Value {
    let pad = taps / 2;
    let node = json!({
        "op": "Conv", "inputs": ["x", "w"], "outputs": ["y"],
        "attributes": {
            "group": 32, "kernel_shape": [taps, taps], "strides": [stride, stride], "pads": [pad, pad, pad, pad]
        },
    });
    model(json!([1, 32, 16, 16]), &[32, 1, taps, taps], node)
}

/// The assembler text of a model.
fn listing(model: &Value, target: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.json"), model.to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_rlx-aot"))
        .args([
            "build",
            "model.json",
            "--target",
            target,
            "--cpu",
            "generic",
            "--emit",
            "asm=text.s",
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read_to_string(folder.path().join("text.s")).unwrap()
}

/// The blocks of the function whose name ends so, by their numbers.
fn blocks<'a>(text: &'a str, name: &str) -> BTreeMap<usize, Vec<&'a str>> {
    let mut lines =
        text.lines().skip_while(|line| line.strip_suffix(':').is_none_or(|l| !l.ends_with(name)));
    lines.next().unwrap();
    let mut blocks: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        if let Some(number) = line.strip_prefix("block").and_then(|l| l.strip_suffix(':')) {
            blocks.insert(number.parse().unwrap(), vec![]);
        } else if let Some(mut block) = blocks.last_entry() {
            block.get_mut().push(line.trim());
        }
    }
    blocks
}

/// The blocks that a line may jump to.
fn labels(line: &str) -> impl Iterator<Item = usize> {
    line.split("label").skip(1).map(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().unwrap()
    })
}

/// The loops without a loop inside: blocks that jump to themselves, perhaps through one that only jumps.
fn innermost<'a>(blocks: &BTreeMap<usize, Vec<&'a str>>) -> Vec<Vec<&'a str>> {
    let next = |line: &str| -> Vec<usize> {
        let through = |label| match blocks[&label][..] {
            [only] => labels(only).next().unwrap_or(label),
            _ => label,
        };
        labels(line).map(through).collect()
    };
    let is_loop = |(number, lines): &(&usize, &Vec<&str>)| {
        lines.len() > 1 && lines.last().is_some_and(|last| next(last).contains(number))
    };
    blocks.iter().filter(is_loop).map(|(_, lines)| lines.clone()).collect()
}

/// Whether something is written to the stack or read from it.
fn is_spill(line: &str) -> bool {
    ["[sp", "[fp", "(sp)", "(fp)", "(slot)"].iter().any(|address| line.contains(address))
}

/// Whether a register is copied to another.
fn is_move(line: &str) -> bool {
    let name = line.split(' ').next().unwrap();
    matches!(name, "mov" | "fmov" | "mv" | "vmv.v.v" | "vmv1r.v") || name.starts_with("fmv.")
}

/// Compares the innermost loops of a kernel with those in the file; they have no spills and no moves.
fn check(name: &str, kernel: &str, model: &Value) {
    for target in TARGETS {
        let text = listing(model, target);
        let loops = innermost(&blocks(&text, kernel));
        assert!(!loops.is_empty(), "{text}");
        let count = |is: fn(&str) -> bool| loops.iter().flatten().filter(|l| is(l)).count();
        let found = (count(is_spill), count(is_move));
        let mut text = format!("{name}, {target}: {} spills, {} moves\n", found.0, found.1);
        for lines in &loops {
            text += &format!("\nloop:\n  {}\n", lines.join("\n  "));
        }
        let file = format!("tests/data/loops/{name}.{target}.txt");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        } else {
            let expected = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text, expected, "UPDATE_EXPECT=1 cargo test --test loops writes the file");
        }
        assert_eq!(found, (0, 0), "{text}");
    }
}

#[test]
fn contractions() {
    check("contraction", ".contract", &contraction());
}

#[test]
fn depthwise_convolutions() {
    check("depthwise3", ".conv", &depthwise(1, 3));
    check("depthwise3_stride2", ".conv", &depthwise(2, 3));
    check("depthwise5", ".conv", &depthwise(1, 5));
}
