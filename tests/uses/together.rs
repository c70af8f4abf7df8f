//! Several models over the same bytes.

use super::*;

/// Two models that run alternately in one arena keep their parameters, what was prepared and their states.
#[test]
fn two_models_in_one_arena() {
    let folder = folder("together");
    write(&folder, "one.json", accumulator("one", 40, "v"));
    write(&folder, "two.json", accumulator("two", 100, "v"));
    let both = ["one.json", "two.json", "--shared-arena=both", "--state", "sum=sum1", "-o", "."];
    let manifest = build(&both, &folder);
    let alone: Vec<u64> = ["one", "two"]
        .map(|name| {
            let file = format!("{name}.json");
            let alone = build(&[&file, "-o", "alone.o"], &folder);
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
