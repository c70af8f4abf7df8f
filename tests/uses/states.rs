//! What lives from run to run.

use super::*;

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

/// A decoder in small: keys and values of the last runs with those of this one, in heads, attended by a query.
fn decoder(past: usize) -> String {
    let input =
        |name: &str, shape: &[usize]| json!({ "name": name, "dtype": "f32", "shape": shape });
    json!({
        "format": "rlx-aot/1",
        "name": "decoder",
        "inputs": [
            input("x", &[1, 2, 1, 8]), input("mask", &[past + 1]),
            input("past_k", &[1, 2, past, 8]), input("past_v", &[1, 2, past, 8]),
        ],
        "parameters": [tensor("w", &[8, 8], 5)],
        "nodes": [
            { "op": "MatMul", "inputs": ["x", "w"], "outputs": ["k"] },
            { "op": "Tanh", "inputs": ["k"], "outputs": ["v"] },
            { "op": "Concat", "inputs": ["past_k", "k"], "outputs": ["present_k"], "attributes": { "axis": 2 } },
            { "op": "Concat", "inputs": ["past_v", "v"], "outputs": ["present_v"], "attributes": { "axis": 2 } },
            { "op": "Transpose", "inputs": ["present_k"], "outputs": ["kt"], "attributes": { "perm": [0, 1, 3, 2] } },
            { "op": "MatMul", "inputs": ["x", "kt"], "outputs": ["scores"] },
            { "op": "Add", "inputs": ["scores", "mask"], "outputs": ["masked"] },
            { "op": "Softmax", "inputs": ["masked"], "outputs": ["weights"], "attributes": { "axis": -1 } },
            { "op": "MatMul", "inputs": ["weights", "present_v"], "outputs": ["y"] },
        ],
        "outputs": ["y", "present_k", "present_v"],
    })
    .to_string()
}

/// What is remembered slides: after each run, the keys of the last ones, the newest last.
#[test]
fn windows_that_slide() {
    let folder = folder("window");
    write(&folder, "decoder.json", decoder(3));
    let main = r#"
#include "decoder.h"
#include <math.h>
#include <string.h>
static _Alignas(DECODER_ARENA_ALIGN) unsigned char arena[DECODER_ARENA_SIZE];
_Static_assert(DECODER_OUTPUT_PRESENT_K_BYTES == DECODER_INPUT_PAST_K_BYTES, "a window");
int main(void) {
  float kept[6][2][8], k[2][3][8], mask[4];
  for (int run = 0; run < 6; run++) {
    float x[2][8];
    for (int i = 0; i < 16; i++)
      x[i / 8][i % 8] = (float)((run + 2) * (i + 1) % 7) - 3;
    /* What no run has filled yet is left out. */
    for (int i = 0; i < 4; i++)
      mask[i] = i < 3 - run ? -1e30f : 0;
    memcpy(arena + DECODER_INPUT_X_OFFSET, x, sizeof x);
    memcpy(arena + DECODER_INPUT_MASK_OFFSET, mask, sizeof mask);
    if (decoder_run(arena) != 0)
      return 1;
    memcpy(k, arena + DECODER_OUTPUT_PRESENT_K_OFFSET, sizeof k);
    for (int head = 0; head < 2; head++) {
      memcpy(kept[run][head], k[head][2], sizeof k[head][2]);
      for (int back = 0; back < 3; back++) {
        static const float zeros[8];
        const float *expected = run < back ? zeros : kept[run - back][head];
        if (memcmp(k[head][2 - back], expected, sizeof zeros) != 0)
          return 2;
      }
    }
    float y[2][8];
    memcpy(y, arena + DECODER_OUTPUT_Y_OFFSET, sizeof y);
    /* The first run sees itself alone. */
    for (int i = 0; run == 0 && i < 16; i++)
      if (fabsf(y[i / 8][i % 8] - tanhf(kept[0][i / 8][i % 8])) > 1e-5f)
        return 3;
  }
  return DECODER_INPUT_PAST_V_OFFSET != DECODER_OUTPUT_PRESENT_V_OFFSET;
}
"#;
    let windows = ["--window", "past_k=present_k", "--window", "past_v=present_v"];
    for level in ["-O0", "-O1"] {
        let build = ["build", "decoder.json", "-o", "decoder.o", "-q", level];
        output(COMPILER, &[&build[..], &windows].concat(), &folder);
        run_c(&folder, main, &["decoder.o", "-lm"]);
        for engine in ["object", "arena"] {
            let verify = ["verify", "decoder.json", level, "--steps", "5", "--engine", engine];
            output(COMPILER, &[&verify[..], &windows].concat(), &folder);
        }
    }
    let wrong = refused(&["build", "decoder.json", "--state", "past_k=present_k"], &folder);
    assert!(wrong.contains("a state cannot grow") && wrong.contains("--window"), "{wrong}");
    let wrong = refused(&["build", "decoder.json", "--window", "past_k=y"], &folder);
    assert!(wrong.contains("it must be longer along that axis"), "{wrong}");
    let twice = ["--window", "past_k=present_k", "--window", "past_k=present_k"];
    let wrong = refused(&[&["build", "decoder.json"], &twice[..]].concat(), &folder);
    assert!(wrong.contains("already"), "{wrong}");
    let wrong = refused(&["build", "decoder.json", "--window", "past=present_k"], &folder);
    assert!(wrong.contains("no input \"past\""), "{wrong}");
}
