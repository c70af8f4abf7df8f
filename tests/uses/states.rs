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
