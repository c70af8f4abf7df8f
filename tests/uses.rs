//! What a plan is good for besides one model's runs: state between runs, several models in one arena, two memories, parameters
//! at the same bytes in two plans. Each through a C program, as a user would write it.
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

/// Two models that run alternately in one arena keep their parameters, what was prepared and their states.
#[test]
fn two_models_in_one_arena() {
    let folder = folder("together");
    write(&folder, "one.json", accumulator("one", 40, "v"));
    write(&folder, "two.json", accumulator("two", 100, "v"));
    let build = ["build", "one.json", "two.json", "--shared-arena=both", "--state", "sum=sum1"];
    let text = output(COMPILER, &[&build[..], &["-o", ".", "--json"]].concat(), &folder);
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let alone: Vec<u64> = ["one", "two"]
        .map(|name| {
            let file = format!("{name}.json");
            let text = output(COMPILER, &["build", &file, "-o", "alone.o", "--json"], &folder);
            let alone: Value = serde_json::from_str(&text).unwrap();
            alone["arena_size"].as_u64().unwrap()
        })
        .into();
    let size = manifest["arena_size"].as_u64().unwrap();
    assert!(size < alone[0] + alone[1] - 400, "{size} for {alone:?}");
    let main = r#"
#include "both.h"
#include "rlx_rt.h"
#include <math.h>
#include <string.h>
extern const rlx_model one_model, two_model;
RLX_ARENA(arena, BOTH_ARENA_SIZE + 64, BOTH_ARENA_ALIGN);
static float numbers[100];
static float *fill(float value) {
  for (int i = 0; i < 100; i++)
    numbers[i] = value + (float)i / 100;
  return numbers;
}
static int right(const float *sums, int count, float w, float v, float x, int times) {
  float dot = 0;
  for (int i = 0; i < count; i++)
    dot += (v + (float)i / 100) * (v + (float)i / 100);
  for (int i = 0; i < count; i++) {
    float f = (float)i / 100, y = (x + f) * (w + f) + dot, sum = (float)times * 16 * expf(y);
    if (!(fabsf(sums[i] - sum) <= 1e-4f * sum))
      return 0;
  }
  return 1;
}
int main(void) {
  rlx_instance one, two;
  float sums[100];
  memset(arena, 0xff, sizeof arena);
  if (rlx_create_in(&one, &one_model, arena + BOTH_ONE_BASE, BOTH_ARENA_SIZE - BOTH_ONE_BASE) != RLX_OK ||
      rlx_create_in(&two, &two_model, arena + BOTH_TWO_BASE, BOTH_ARENA_SIZE - BOTH_TWO_BASE) != RLX_OK)
    return 1;
  if (rlx_set_param(&one, 0, fill(1), ONE_PARAM_W_BYTES) != RLX_OK ||
      rlx_set_param(&one, 1, fill(-1), ONE_PARAM_V_BYTES) != RLX_OK ||
      rlx_set_param(&two, 0, fill(-2), TWO_PARAM_W_BYTES) != RLX_OK ||
      rlx_set_param(&two, 1, fill(0), TWO_PARAM_V_BYTES) != RLX_OK)
    return 2;
  for (int turn = 1; turn < 6; turn++) {
    if (rlx_set_input(&one, 0, fill(0.5f), ONE_INPUT_X_BYTES) != RLX_OK || rlx_run(&one) != RLX_OK ||
        rlx_get_output(&one, 1, sums, ONE_OUTPUT_SUM1_BYTES) != RLX_OK || !right(sums, 40, 1, -1, 0.5f, turn))
      return 3;
    if (rlx_set_input(&two, 0, fill(-1), TWO_INPUT_X_BYTES) != RLX_OK || rlx_run(&two) != RLX_OK ||
        rlx_get_output(&two, 1, sums, TWO_OUTPUT_SUM1_BYTES) != RLX_OK || !right(sums, 100, -2, 0, -1, turn))
      return 4;
  }
  for (size_t i = BOTH_ARENA_SIZE; i < sizeof arena; i++)
    if (arena[i] != 0xff)
      return 5;
  return BOTH_ONE_BASE % BOTH_ARENA_ALIGN + BOTH_TWO_BASE % BOTH_ARENA_ALIGN;
}
"#;
    run_c(&folder, main, &["one.o", "two.o", "-lm"]);
    let named = ["build", "one.json", "one.json", "--shared-arena", "--prefix", "a,b", "-o", "."];
    output(COMPILER, &named, &folder);
    assert!(folder.join("b.o").is_file() && folder.join("shared.h").is_file());
    let wrong = refused(&["build", "one.json", "one.json", "--shared-arena"], &folder);
    assert!(wrong.contains("--prefix a,b"), "{wrong}");
    let wrong = refused(&["build", "one.json", "two.json"], &folder);
    assert!(wrong.contains("--shared-arena"), "{wrong}");
    let build = ["build", "one.json", "two.json", "--shared-arena", "--state", "h=y", "-o", "."];
    assert!(refused(&build, &folder).contains("no model has an input \"h\""));
}

/// The parameters of a second graph lie where the first has them, and both run over one arena.
#[test]
fn parameters_of_two_plans_at_the_same_bytes() {
    let folder = folder("parameters");
    write(&folder, "forward.json", accumulator("forward", 40, "v"));
    // The other one's inputs are twice as long, and its own parameter has another name.
    let vector = |name: &str, n: usize| json!({ "name": name, "dtype": "f32", "shape": [n] });
    let backward = json!({
        "format": "rlx-aot/1", "name": "backward",
        "inputs": [vector("long", 80), vector("dy", 40)],
        "parameters": [vector("own", 40), vector("w", 40), vector("v", 40),
            { "name": "axes", "dtype": "i64", "shape": [1], "data": [0] }],
        "nodes": [
            { "op": "Mul", "inputs": ["dy", "w"], "outputs": ["a"] },
            { "op": "Mul", "inputs": ["a", "own"], "outputs": ["b"] },
            { "op": "Add", "inputs": ["b", "v"], "outputs": ["c"] },
            { "op": "ReduceMax", "inputs": ["long"], "outputs": ["most"] },
            { "op": "Add", "inputs": ["c", "most"], "outputs": ["dx"] },
        ],
        "outputs": ["dx"],
    });
    write(&folder, "backward.json", backward.to_string());
    let forward = ["build", "forward.json", "--no-prepare", "-o", "forward.o", "-q", "--emit"];
    output(COMPILER, &[&forward[..], &["obj,header,manifest,lir-json"]].concat(), &folder);
    std::fs::write(
        folder.join("plan.json"),
        output(COMPILER, &["plan", "forward.json", "--no-prepare", "--json", "-q"], &folder),
    )
    .unwrap();
    let main = r#"
#include "backward.h"
#include "forward.h"
#include <string.h>
#define MOST (FORWARD_ARENA_SIZE > BACKWARD_ARENA_SIZE ? FORWARD_ARENA_SIZE : BACKWARD_ARENA_SIZE)
static _Alignas(64) unsigned char arena[MOST];
static void set(size_t offset, int count, float value) {
  for (int i = 0; i < count; i++, value += 1)
    memcpy(arena + offset + 4 * (size_t)i, &value, 4);
}
int main(void) {
  if (FORWARD_PARAM_W_OFFSET != BACKWARD_PARAM_W_OFFSET || FORWARD_PARAM_V_OFFSET != BACKWARD_PARAM_V_OFFSET)
    return 1;
  set(FORWARD_PARAM_W_OFFSET, 40, 3);
  set(FORWARD_PARAM_V_OFFSET, 40, -20);
  for (int turn = 0; turn < 3; turn++) {
    set(FORWARD_INPUT_X_OFFSET, 40, 0);
    set(FORWARD_INPUT_SUM_OFFSET, 40, 0);
    if (forward_run(arena) != 0)
      return 2;
    float y;
    memcpy(&y, arena + FORWARD_OUTPUT_Y_OFFSET + 4 * 5, 4);
    /* 5 * 8, and the squares from -20 to 19 */
    if (y != 5380)
      return 3;
    set(BACKWARD_PARAM_OWN_OFFSET, 40, 1);
    set(BACKWARD_INPUT_DY_OFFSET, 40, 1);
    set(BACKWARD_INPUT_LONG_OFFSET, 80, 0);
    if (backward_run(arena) != 0)
      return 4;
    memcpy(&y, arena + BACKWARD_OUTPUT_DX_OFFSET + 4 * 2, 4);
    /* 3 * 5 * 3 - 18 + 79 */
    if (y != 106)
      return 5;
  }
  return 0;
}
"#;
    let build =
        ["build", "backward.json", "--no-prepare", "-o", "backward.o", "-q", "--share-params"];
    for plan in ["forward.manifest.json", "forward.lir.json", "plan.json"] {
        output(COMPILER, &[&build[..], &[plan]].concat(), &folder);
        run_c(&folder, main, &["forward.o", "backward.o"]);
    }
    let plan = ["plan", "backward.json", "--share-params", "plan.json"];
    assert!(output(COMPILER, &plan, &folder).contains("parameter"));
    write(&folder, "longer.json", accumulator("longer", 41, "v"));
    let wrong = refused(&["build", "longer.json", "--share-params", "plan.json"], &folder);
    assert!(wrong.contains("the parameter \"w\" has 164 bytes, and 160"), "{wrong}");
    let wrong = refused(&["build", "longer.json", "--share-params", "longer.json"], &folder);
    assert!(wrong.contains("nothing of a plan's parameters"), "{wrong}");
}

/// The most touched tensors lie in a second array, and the results are the same.
#[test]
fn arena_in_two_regions() {
    let folder = folder("regions");
    write(&folder, "m.json", accumulator("m", 100, "v"));
    let main = r#"
#include "m.h"
#include "rlx_rt.h"
#include <math.h>
#include <string.h>
extern const rlx_model m_model;
RLX_ARENA(arena, M_ARENA_SIZE, M_ARENA_ALIGN);
static _Alignas(M_ARENA_ALIGN) unsigned char fast[M_REGION_SIZE + M_ARENA_ALIGN];
static float at(size_t offset) {
  float value;
  memcpy(&value, arena + offset, sizeof value);
  return value;
}
static int right(void) { return fabsf(at(M_OUTPUT_SUM1_OFFSET) - 16) < 1e-3f; }
int main(void) {
  memset(fast, 0xff, sizeof fast);
  /* Without the runtime: the pointer is written into the arena. */
  if (m_prepare(arena) != RLX_E_NO_REGION || m_run(arena) != RLX_E_NOT_PREPARED)
    return 1;
  unsigned char *wrong = fast + 1, *address = fast;
  memcpy(arena + M_REGION_POINTER, &wrong, sizeof wrong);
  if (m_prepare(arena) != RLX_E_REGION_ALIGN)
    return 2;
  memcpy(arena + M_REGION_POINTER, &address, sizeof address);
  if (m_prepare(arena) != 0 || m_run(arena) != 0 || !right())
    return 3;
  int touched = 0;
  for (size_t i = 0; i < sizeof fast; i++) {
    touched += fast[i] != 0xff;
    if (i >= M_REGION_SIZE && fast[i] != 0xff)
      return 4;
  }
  /* With it. */
  rlx_instance model;
  if (rlx_create_in(&model, &m_model, arena, sizeof arena) != RLX_OK || rlx_run(&model) != RLX_E_NO_REGION)
    return 5;
  if (rlx_set_region(&model, fast + 4, M_REGION_SIZE) != RLX_E_REGION_ALIGN ||
      rlx_set_region(&model, fast, M_REGION_SIZE - 1) != RLX_E_REGION_SIZE ||
      rlx_set_region(&model, NULL, M_REGION_SIZE) != RLX_E_NULL ||
      rlx_set_region(&model, fast, M_REGION_SIZE) != RLX_OK || rlx_run(&model) != RLX_OK || !right())
    return 6;
  if (rlx_destroy(&model) != RLX_OK || rlx_create(&model, &m_model) != RLX_OK || rlx_run(&model) != RLX_OK)
    return 7;
  const void *sum = NULL;
  if (rlx_output(&model, 1, &sum) != RLX_OK || memcmp(sum, arena + M_OUTPUT_SUM1_OFFSET, M_OUTPUT_SUM1_BYTES) != 0)
    return 8;
  return rlx_destroy(&model) != RLX_OK || touched < 64;
}
"#;
    let size = |arguments: &[&str]| -> u64 {
        let build = ["build", "m.json", "-o", "m.o", "--json"];
        let text = output(COMPILER, &[&build[..], arguments].concat(), &folder);
        let manifest: Value = serde_json::from_str(&text).unwrap();
        manifest["arena_size"].as_u64().unwrap()
    };
    let alone = size(&[]);
    for bytes in ["8K", "6464"] {
        let region = format!("--region=fast={bytes}");
        assert!(size(&[&region]) < alone, "{bytes}");
        run_c(&folder, main, &["m.o", "-lm"]);
        output(COMPILER, &["verify", "m.json", &region], &folder);
        output(COMPILER, &["verify", "m.json", "--engine", "arena", &region], &folder);
        let text = output(COMPILER, &["plan", "m.json", &region], &folder);
        assert!(text.contains("fast"), "{text}");
        let plan = output(COMPILER, &["plan", "m.json", "--json", &region], &folder);
        let plan: Value = serde_json::from_str(&plan).unwrap();
        assert_eq!(plan["regions"][1]["name"], "fast");
        let picture = output(COMPILER, &["plan", "m.json", "--svg", "-", &region], &folder);
        assert!(picture.contains("fast over time"), "{picture}");
    }
    let wrong = refused(&["build", "m.json", "--region", "fast"], &folder);
    assert!(wrong.contains("--region fast=256K"), "{wrong}");
}

/// Inputs, outputs and parameters in memory of the program, which ends where they end.
#[test]
fn tensors_outside_of_the_arena() {
    let folder = folder("outside");
    write(&folder, "m.json", accumulator("m", 100, "v"));
    let main = r#"
#define _GNU_SOURCE
#include "m.h"
#include "rlx_rt.h"
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
extern const rlx_model m_model;
RLX_ARENA(arena, M_ARENA_SIZE, M_ARENA_ALIGN);
/* Memory that ends before a page that cannot be touched. */
static float *vector(float value) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  unsigned char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED || mprotect(pages + page, page, PROT_NONE) != 0)
    _exit(99);
  float *vector = (float *)(void *)(pages + page - M_INPUT_X_BYTES);
  for (int i = 0; i < M_INPUT_X_COUNT; i++)
    vector[i] = value;
  return vector;
}
static void bind(size_t pointer, float *to) { memcpy(arena + pointer, &to, sizeof to); }
static int right(const float *y, const float *sum, float v) {
  for (int i = 0; i < M_OUTPUT_Y_COUNT; i++) {
    float expected = 2 * 3 + 100 * v * v;
    if (fabsf(y[i] - expected) > 1e-4f || fabsf(sum[i] / (1 + 16 * expf(expected)) - 1) > 1e-3f)
      return 0;
  }
  return 1;
}
int main(void) {
  float *x = vector(2), *one = vector(1), *w = vector(3), *v = vector(0.1f), *y = vector(0), *sum = vector(0);
  /* Without the runtime. */
  if (m_prepare(arena) != RLX_E_NOT_BOUND)
    return 1;
  bind(M_PARAM_W_POINTER, w);
  bind(M_PARAM_V_POINTER, v);
  if (m_prepare(arena) != 0 || m_run(arena) != RLX_E_NOT_BOUND)
    return 2;
  bind(M_INPUT_X_POINTER, x);
  bind(M_INPUT_SUM_POINTER, one);
  bind(M_OUTPUT_Y_POINTER, y);
  bind(M_OUTPUT_SUM1_POINTER, sum);
  if (m_run(arena) != 0 || !right(y, sum, 0.1f))
    return 3;
  /* With it. */
  rlx_instance m;
  memset(y, 0, M_OUTPUT_Y_BYTES);
  if (rlx_create_in(&m, &m_model, arena, sizeof arena) != RLX_OK || rlx_run(&m) != RLX_E_NOT_BOUND)
    return 4;
  const void *data;
  void *own;
  if (rlx_set_input(&m, 0, x, M_INPUT_X_BYTES) != RLX_E_OUTSIDE || rlx_param(&m, 0, &own) != RLX_E_OUTSIDE ||
      rlx_output(&m, 0, &data) != RLX_E_NOT_BOUND || rlx_bind_input(&m, 0, x, 4) != RLX_E_BYTES ||
      rlx_bind_input(&m, 9, x, M_INPUT_X_BYTES) != RLX_E_INDEX ||
      rlx_bind_input(&m, 0, (unsigned char *)x - 1, M_INPUT_X_BYTES) != RLX_E_BOUND_ALIGN ||
      rlx_bind_input(&m, 0, NULL, M_INPUT_X_BYTES) != RLX_E_NULL)
    return 5;
  if (rlx_bind_input(&m, 0, x, M_INPUT_X_BYTES) != RLX_OK || rlx_bind_input(&m, 1, one, M_INPUT_X_BYTES) != RLX_OK ||
      rlx_bind_param(&m, 0, w, M_PARAM_W_BYTES) != RLX_OK || rlx_bind_param(&m, 1, v, M_PARAM_V_BYTES) != RLX_OK ||
      rlx_bind_output(&m, 0, y, M_OUTPUT_Y_BYTES) != RLX_OK ||
      rlx_bind_output(&m, 1, sum, M_OUTPUT_SUM1_BYTES) != RLX_OK || rlx_run(&m) != RLX_OK || !right(y, sum, 0.1f))
    return 6;
  /* Another parameter is prepared, another output written. */
  float *other = vector(0);
  if (rlx_bind_param(&m, 1, vector(0.2f), M_PARAM_V_BYTES) != RLX_OK ||
      rlx_bind_output(&m, 0, other, M_OUTPUT_Y_BYTES) != RLX_OK || rlx_run(&m) != RLX_OK || !right(other, sum, 0.2f))
    return 7;
  if (rlx_output(&m, 0, &data) != RLX_OK || data != other)
    return 8;
  return x[0] != 2 || one[99] != 1 || w[0] != 3 || y[0] > 7.01f;
}
"#;
    let all = ["--outside", "inputs,outputs,params"];
    for level in ["-O0", "-O1"] {
        let build = ["build", "m.json", "-o", "m.o", "-q", level];
        output(COMPILER, &[&build[..], &all].concat(), &folder);
        run_c(&folder, main, &["m.o", "-lm"]);
        for kinds in ["inputs", "outputs", "params", "inputs,outputs,params"] {
            for engine in ["object", "arena"] {
                let verify = ["verify", "m.json", level, "--engine", engine, "--outside", kinds];
                output(COMPILER, &verify, &folder);
            }
        }
    }
    output(COMPILER, &[&["build", "m.json", "--bundle", "."][..], &all].concat(), &folder);
    output("cc", &["-O1", "main.c", "rlx_rt.c", "m.o", "-o", "bundled"], &folder);
    assert!(output("./bundled", &[], &folder).contains("sum1: 16 16"));
    let build = ["build", "m.json", "-o", "m.o", "--json", "--state", "sum=sum1"];
    let text = output(COMPILER, &[&build[..], &all].concat(), &folder);
    let manifest: Value = serde_json::from_str(&text).unwrap();
    assert!(manifest["inputs"][0]["offset"].is_null() && manifest["inputs"][0]["pointer"].is_u64());
    // A state is always inside.
    assert!(manifest["inputs"][1]["offset"].is_u64() && manifest["outputs"][1]["offset"].is_u64());
}

/// Two blocks that widen an image, filter it and make it narrow again, with what is left over at its borders.
fn blocks() -> Value {
    let mut state = 1u64;
    let mut parameter = |name: String, shape: [usize; 4]| {
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as f64 / (1u64 << 31) as f64 - 0.5
        };
        let data: Vec<f64> = (0..shape.iter().product()).map(|_| next()).collect();
        json!({ "name": name, "shape": shape, "data": data })
    };
    let (mut parameters, mut nodes, mut last) = (vec![], vec![], "x".to_owned());
    for block in 0..2 {
        let convolutions = [
            ("wide", [48, 6, 1, 1], json!({})),
            ("deep", [48, 1, 3, 3], json!({ "group": 48, "pads": [1, 1, 1, 1] })),
            ("narrow", [6, 48, 1, 1], json!({})),
        ];
        let first = last.clone();
        for (name, shape, attributes) in convolutions {
            let [weights, result] = ["w", "y"].map(|kind| format!("{name}{block}.{kind}"));
            nodes.push(json!({ "op": "Conv", "inputs": [last, weights], "outputs": [result], "attributes": attributes }));
            parameters.push(parameter(weights, shape));
            last = result;
        }
        let sum = format!("sum{block}");
        nodes.push(json!({ "op": "Add", "inputs": [first, last], "outputs": [sum] }));
        last = sum;
    }
    json!({
        "format": "rlx-aot/1", "name": "blocks", "parameters": parameters, "nodes": nodes,
        "inputs": [{ "name": "x", "shape": [1, 6, 37, 29] }], "outputs": [last],
    })
}

/// What is wide is computed in bands of rows: the arena is less than half, and the results are the same.
#[test]
fn arena_of_a_given_size() {
    let folder = folder("bands");
    write(&folder, "m.json", blocks().to_string());
    let size = |limit: &[&str]| -> u64 {
        let build = ["build", "m.json", "-o", "m.o", "--json"];
        let text = output(COMPILER, &[&build[..], limit].concat(), &folder);
        let manifest: Value = serde_json::from_str(&text).unwrap();
        manifest["arena_size"].as_u64().unwrap()
    };
    let plain = size(&[]);
    for part in [2, 3] {
        let limit = format!("--max-arena={}", plain / part);
        assert!(size(&[&limit]) <= plain / part);
        output(COMPILER, &["verify", "m.json", &limit], &folder);
        output(COMPILER, &["verify", "m.json", &limit, "--cpu", "x86-64"], &folder);
        output(COMPILER, &["verify", "m.json", "--engine", "arena", &limit], &folder);
        let first = std::fs::read(folder.join("m.o")).unwrap();
        size(&[&limit]);
        assert!(first == std::fs::read(folder.join("m.o")).unwrap(), "the same every time");
    }
    assert_eq!(size(&["--max-arena", "1M"]), plain);
    let wrong = refused(&["build", "m.json", "--max-arena", "40K"], &folder);
    assert!(wrong.contains("no plan fits into 40960 bytes"), "{wrong}");
    assert!(wrong.contains("it is held by \"") && wrong.contains("bytes or more"), "{wrong}");
    let wrong = refused(&["build", "m.json", "--max-arena", "half"], &folder);
    assert!(wrong.contains("a size is"), "{wrong}");
    let wrong = refused(&["build", "m.json", "-O0", "--max-arena", "40K"], &folder);
    assert!(wrong.contains("no plan fits"), "{wrong}");
}
