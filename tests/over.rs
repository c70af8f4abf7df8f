//! Results over operands that die: chains of convolutions, depthwise and of single places, and of pools, with odd extents,
//! borders, strides and dilations, computed by what each code emitter makes of them in the room of little more than one tensor.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Numbers that look random and are the same everywhere.
struct Noise(u64);

impl Noise {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n.max(1)
    }

    fn parameter(&mut self, name: &str, shape: &[usize]) -> Value {
        let data: Vec<f64> =
            (0..shape.iter().product()).map(|_| self.below(1000) as f64 / 2000.0 - 0.2).collect();
        json!({ "name": name, "shape": shape, "data": data })
    }
}

fn chain(seed: u64) -> Value {
    let mut noise = Noise(seed);
    let channels = [8, 16, 20, 33, 48, 64];
    let mut now = 2;
    let mut size = [17 + noise.below(16), 15 + noise.below(18)];
    let input = [1, now, size[0], size[1]];
    let (mut parameters, mut nodes) = (vec![], vec![]);
    for i in 0..6 {
        let [x, y, w] = [format!("t{i}"), format!("t{}", i + 1), format!("w{i}")];
        let step = 1 + noise.below(2);
        let kind = if i % 2 == 0 { noise.below(2) } else { 2 + noise.below(3) };
        let mut node = |op: &str, inputs: &[&str], attributes: Value| {
            nodes.push(
                json!({ "op": op, "inputs": inputs, "outputs": [y], "attributes": attributes }),
            );
        };
        let window = json!([step, step]);
        if kind >= 2 && size.iter().any(|&extent| extent < 6) {
            node("Relu", &[&x], json!({}));
            continue;
        }
        let halved = size.map(|extent| (extent - 1) / step + 1);
        match kind {
            0 | 1 => {
                let next = channels[noise.below(channels.len())];
                parameters.push(noise.parameter(&w, &[next, now, 1, 1]));
                node("Conv", &[&x, &w], json!({}));
                now = next;
            }
            2 => {
                parameters.push(noise.parameter(&w, &[now, 1, 3, 3]));
                let attributes = match noise.below(3) {
                    0 => json!({ "group": now, "dilations": [2, 2], "pads": [2, 2, 2, 2] }),
                    _ => json!({ "group": now, "strides": window, "pads": [1, 1, 1, 1] }),
                };
                if attributes.get("strides").is_some() {
                    size = halved;
                }
                node("Conv", &[&x, &w], attributes);
            }
            3 => {
                let next = channels[noise.below(4)];
                parameters.push(noise.parameter(&w, &[next, now, 3, 3]));
                node("Conv", &[&x, &w], json!({ "strides": window, "pads": [1, 1, 1, 1] }));
                (now, size) = (next, halved);
            }
            _ => {
                let op = if noise.below(2) == 0 { "MaxPool" } else { "AveragePool" };
                let attributes = json!({ "kernel_shape": [3, 3], "strides": window });
                node(op, &[&x], attributes);
                size = size.map(|extent| (extent - 3) / step + 1);
            }
        }
    }
    nodes.push(
        json!({ "op": "GlobalAveragePool", "inputs": ["t6"], "outputs": ["y"], "attributes": {} }),
    );
    json!({
        "format": "rlx-aot/1", "name": "chain",
        "inputs": [{ "name": "t0", "shape": input }],
        "parameters": parameters, "nodes": nodes, "outputs": ["y"],
    })
}

fn run(folder: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rlx-aot"));
    let output = command.args(words).current_dir(folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{words:?}: {text}{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        std::fs::read_to_string(folder.join("model.json")).unwrap()
    );
    text
}

#[test]
fn chains_are_what_they_mean() {
    let folder = tempfile::tempdir().unwrap();
    let mut over = 0;
    for seed in 0..12 {
        std::fs::write(folder.path().join("model.json"), chain(seed).to_string()).unwrap();
        #[cfg(target_arch = "x86_64")]
        let cpu = ["x86-64-v2", "x86-64-v3", "native"][seed as usize % 3];
        #[cfg(not(target_arch = "x86_64"))]
        let cpu = "native";
        let options = ["model.json", "--no-threads", "--overwrite-inputs", "--cpu", cpu];
        run(folder.path(), &[&["verify"], &options[..]].concat());
        let listing = ["-q", "-o", "model.o", "--emit", "lir=model.lir"];
        run(folder.path(), &[&["build"], &options[..], &listing[..]].concat());
        let lir = std::fs::read_to_string(folder.path().join("model.lir")).unwrap();
        // Steps whose result is in the buffer of their first operand, at another place.
        let is_over = |line: &&str| {
            let word = |text: &str| text.split_whitespace().next().map(str::to_owned);
            let Some((result, rest)) = line.split_once(": ").and_then(|(_, l)| l.split_once(" = "))
            else {
                return false;
            };
            let operand = rest.split_once(" of ").and_then(|(_, operands)| word(operands));
            (rest.starts_with("conv") || rest.starts_with("pool")) && word(result) == operand
        };
        over += lir.lines().filter(is_over).count();
    }
    assert!(over > 8, "{over}");
}
