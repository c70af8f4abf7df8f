//! Memory besides the arena.

use super::*;

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
    let size = |arguments: &[&str]| arena_size(arguments, &folder);
    let alone = size(&[]);
    for bytes in ["8K", "6464", "8K,keep"] {
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
    assert!(size(&["--region=fast=8K,keep"]) < size(&["--region=fast=8K"]));
    let both = ["build", "m.json", "m.json", "--shared-arena", "--prefix", "a,b", "-o", "."];
    let wrong = refused(&[&both[..], &["--region", "fast=8K,keep"]].concat(), &folder);
    assert!(wrong.contains("leave out ,keep"), "{wrong}");
    let wrong = refused(&["build", "m.json", "--region", "fast=8K,kept"], &folder);
    assert!(wrong.contains("--region fast=256K"), "{wrong}");
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
    let state = ["m.json", "-o", "m.o", "--state", "sum=sum1"];
    let manifest = build(&[&state[..], &all].concat(), &folder);
    assert!(manifest["inputs"][0]["offset"].is_null() && manifest["inputs"][0]["pointer"].is_u64());
    // A state is always inside.
    assert!(manifest["inputs"][1]["offset"].is_u64() && manifest["outputs"][1]["offset"].is_u64());
}

/// A program that writes behind the end of a tensor is found, by the tensor.
#[test]
fn guards_find_who_writes_too_far() {
    let folder = folder("guards");
    write(&folder, "m.json", accumulator("m", 25, "v"));
    let main = r#"
#include "m.h"
#include "rlx_rt.h"
#include <string.h>
extern const rlx_model m_model;
RLX_ARENA(arena, M_ARENA_SIZE, M_ARENA_ALIGN);
static rlx_instance m;
/* Which tensor was written too far. */
static int is(const char *name) {
  const rlx_tensor *tensor;
  int32_t status = rlx_check_guards(&m, &tensor);
  if (name == NULL)
    return status == RLX_OK && tensor == NULL && rlx_check_guards(&m, NULL) == RLX_OK;
  return status == RLX_E_GUARD && tensor != NULL && strcmp(tensor->name, name) == 0;
}
int main(void) {
  static const float zeros[M_INPUT_X_COUNT];
  memset(arena, 0xff, sizeof arena);
  if (m_model.guard != M_GUARD || rlx_create_in(&m, &m_model, arena, sizeof arena) != RLX_OK || !is(NULL))
    return 1;
  for (int run = 0; run < 3; run++)
    if (rlx_set_input(&m, 0, zeros, sizeof zeros) != RLX_OK || rlx_run(&m) != RLX_OK || !is(NULL))
      return 2;
  const size_t ends[] = {M_INPUT_X_OFFSET + M_INPUT_X_BYTES, M_INPUT_SUM_OFFSET + M_INPUT_SUM_BYTES,
                         M_OUTPUT_Y_OFFSET + M_OUTPUT_Y_BYTES};
  static const char *const names[] = {"x", "sum", "y"};
  for (int i = 0; i < 3; i++)
    for (size_t at = 0; at < M_GUARD; at += M_GUARD - 1) {
      arena[ends[i] + at] = 0;
      if (!is(names[i]))
        return 3;
      /* A run hides nothing of what is behind inputs and states, and fills what is behind outputs. */
      if (rlx_run(&m) != RLX_OK || !is(i < 2 ? names[i] : NULL))
        return 4;
      if (rlx_fill_guards(&m) != RLX_OK || !is(NULL))
        return 5;
    }
  rlx_model broken = m_model;
  broken.guard = 1u << 30;
  if (rlx_create_in(&m, &broken, arena, sizeof arena) != RLX_E_MODEL)
    return 6;
  broken.guard = 0;
  if (rlx_create_in(&m, &broken, arena, sizeof arena) != RLX_OK || rlx_check_guards(&m, NULL) != RLX_E_ARGUMENT)
    return 7;
  return rlx_check_guards(NULL, NULL) != RLX_E_NULL || rlx_fill_guards(NULL) != RLX_E_NULL;
}
"#;
    for level in ["-O0", "-O1"] {
        let build = ["build", "m.json", "-o", "m.o", "--guard", "20", "--state", "sum=sum1", level];
        output(COMPILER, &[&build[..], &["-q"]].concat(), &folder);
        run_c(&folder, main, &["m.o"]);
        let files = ["-DRLX_RT_FREESTANDING", "-c", "rlx_rt.c", "-o", "free.o"];
        output("cc", &[FLAGS, &files].concat(), &folder);
    }
    // What is not in the arena, or a parameter as it is, has no guard.
    let header = |arguments: &[&str]| {
        let build = ["build", "m.json", "-o", "m.h", "-q"];
        output(COMPILER, &[&build[..], arguments].concat(), &folder);
        std::fs::read_to_string(folder.join("m.h")).unwrap()
    };
    assert!(header(&["--guard", "20"]).contains("#define M_GUARD 20"));
    assert!(!header(&[]).contains("_GUARD "));
}
