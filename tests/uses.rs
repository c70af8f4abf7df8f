//! What a plan is good for besides one model's runs: state between runs. Each through a C program, as a user
//! would write it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

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

const IN: usize = 5;
const HIDDEN: usize = 7;

/// An LSTM over so many steps, which starts from `h` and `c`.
fn lstm(steps: usize) -> String {
    let input =
        |name: &str, shape: [usize; 3]| json!({ "name": name, "dtype": "f32", "shape": shape });
    json!({
        "format": "rlx-aot/1",
        "name": "lstm",
        "inputs": [
            input("x", [steps, 1, IN]), input("h", [1, 1, HIDDEN]), input("c", [1, 1, HIDDEN])
        ],
        "parameters": [
            tensor("w", &[1, 4 * HIDDEN, IN], 1),
            tensor("r", &[1, 4 * HIDDEN, HIDDEN], 2),
            tensor("b", &[1, 8 * HIDDEN], 3),
        ],
        "nodes": [
            { "op": "LSTM", "inputs": ["x", "w", "r", "b", "", "h", "c"],
              "outputs": ["y", "h1", "c1"], "attributes": { "hidden_size": HIDDEN } },
        ],
        "outputs": ["y", "h1", "c1"],
    })
    .to_string()
}

fn c_array(name: &str, values: &[f32]) -> String {
    let list: Vec<String> = values.iter().map(|v| format!("{v:?}f")).collect();
    format!("static const float {name}[] = {{{}}};\n", list.join(", "))
}

/// Three steps with the state in the arena are what the model of three steps computes by its definition.
#[test]
fn recurrent_steps() {
    let folder = folder("recurrent");
    let x = numbers(3 * IN, 7);
    let zeros = vec![0u8; 4 * HIDDEN];
    write(&folder, "lstm.json", lstm(1));
    write(&folder, "unrolled.json", lstm(3));
    write(&folder, "x.bin", x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    write(&folder, "zeros.bin", zeros);
    let inputs = ["-i", "x=x.bin", "-i", "h=zeros.bin", "-i", "c=zeros.bin"];
    let unrolled = ["run", "unrolled.json", "--engine", "reference", "--json"];
    let text = output(COMPILER, &[&unrolled[..], &inputs].concat(), &folder);
    let unrolled: Value = serde_json::from_str(&text).unwrap();
    let expected: Vec<f32> = unrolled["outputs"][0]["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap() as f32)
        .collect();
    let main = r#"
#include "lstm.h"
#include "rlx_rt.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
RLX_ARENA(arena, LSTM_ARENA_SIZE, LSTM_ARENA_ALIGN);
extern const rlx_model lstm_model;
static int differ(const void *found, int step) {
  float y[LSTM_OUTPUT_Y_COUNT];
  memcpy(y, found, sizeof y);
  for (int i = 0; i < LSTM_OUTPUT_Y_COUNT; i++)
    if (fabsf(y[i] - expected[step * LSTM_OUTPUT_Y_COUNT + i]) > 1e-5f)
      return 1;
  return 0;
}
int main(void) {
  /* Without the runtime: a zeroed arena starts at zero. */
  for (int step = 0; step < 3; step++) {
    memcpy(arena + LSTM_INPUT_X_OFFSET, x + step * LSTM_INPUT_X_COUNT, LSTM_INPUT_X_BYTES);
    if (lstm_run(arena) != 0 || differ(arena + LSTM_OUTPUT_Y_OFFSET, step))
      return 1;
  }
  if (LSTM_STATES != 2 || LSTM_STATE_0_INPUT != LSTM_INPUT_H_INDEX || LSTM_STATE_1_OUTPUT != LSTM_OUTPUT_C1_INDEX ||
      LSTM_STATE_0_OFFSET != LSTM_INPUT_H_OFFSET || LSTM_INPUT_H_OFFSET != LSTM_OUTPUT_H1_OFFSET)
    return 2;
  /* With it, in an arena full of something else, twice from the start. */
  rlx_instance model;
  memset(arena, 0xff, sizeof arena);
  if (rlx_create_in(&model, &lstm_model, arena, sizeof arena) != RLX_OK || lstm_model.state_count != 2)
    return 3;
  float h[LSTM_OUTPUT_H1_COUNT];
  for (int step = 0; step < 6; step++) {
    const void *y;
    if (step == 3 && rlx_reset(&model) != RLX_OK)
      return 4;
    if (rlx_set_input(&model, 0, x + step % 3 * LSTM_INPUT_X_COUNT, LSTM_INPUT_X_BYTES) != RLX_OK ||
        rlx_run(&model) != RLX_OK || rlx_output(&model, 0, &y) != RLX_OK || differ(y, step % 3))
      return 5;
    if (step == 1 && rlx_get_output(&model, LSTM_OUTPUT_H1_INDEX, h, sizeof h) != RLX_OK)
      return 6;
  }
  /* A state is set as any input: back to the second step. */
  if (rlx_set_input(&model, LSTM_INPUT_H_INDEX, h, sizeof h) != RLX_OK || rlx_reset(NULL) != RLX_E_NULL)
    return 7;
  const void *again;
  return rlx_run(&model) != RLX_OK || rlx_output(&model, 1, &again) != RLX_OK || memcmp(again, h, sizeof h) == 0;
}
"#;
    let main = [c_array("x", &x), c_array("expected", &expected), main.to_owned()].concat();
    let states = ["--state", "h=h1", "--state", "c=c1"];
    for level in ["-O0", "-O1"] {
        let build = ["build", "lstm.json", "-o", "lstm.o", level, "-q"];
        output(COMPILER, &[&build[..], &states].concat(), &folder);
        let main = main.replace("#include <math.h>", "#include <math.h>\n#include <stdint.h>");
        write(&folder, "main.c", &main);
        let files = ["main.c", "rlx_rt.c", "lstm.o", "-lm", "-o", "main"];
        output("cc", &[FLAGS, &files].concat(), &folder);
        output("./main", &[], &folder);
        output(COMPILER, &[&["verify", "lstm.json", level][..], &states].concat(), &folder);
        let arena = ["verify", "lstm.json", "--engine", "arena", "--steps", "4", level];
        output(COMPILER, &[&arena[..], &states].concat(), &folder);
    }
    let wrong = refused(&["build", "lstm.json", "--state", "h=y2"], &folder);
    assert!(wrong.contains("the model has no output \"y2\""), "{wrong}");
    let wrong = refused(&["build", "unrolled.json", "--state", "h=y"], &folder);
    assert!(wrong.contains("f32[1, 1, 7]") && wrong.contains("f32[3, 1, 1, 7]"), "{wrong}");
}
