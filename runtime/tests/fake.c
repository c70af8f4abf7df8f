#include "fake.h"

RLX_ALIGNAS(64) const float fake_weights[FAKE_WEIGHTS_SIZE / sizeof(float)] = {2, 3, 5};

static const int64_t matrix[] = {FAKE_ROWS, FAKE_COLUMNS};
static const int64_t row[] = {FAKE_COLUMNS};
static const int64_t nothing[] = {0, 4};

static const rlx_tensor inputs[] = {
    {"x", matrix, 2, RLX_F32, FAKE_X, 24},
    {"negate", NULL, 0, RLX_BOOL, FAKE_NEGATE, 1},
};
static const rlx_tensor params[] = {{"p", row, 1, RLX_F32, FAKE_P, 12}};
static const rlx_tensor outputs[] = {
    {"y", matrix, 2, RLX_F32, FAKE_Y, 24},
    {"empty", nothing, 2, RLX_F32, FAKE_EMPTY, 0},
};

static void kernel(const void *const *table, int64_t begin, int64_t end) {
  const float *x = table[0], *weights = table[1], *p = table[2];
  float sign = *(const unsigned char *)table[3] != 0 ? -1.0f : 1.0f;
  float *y = (float *)(uintptr_t)table[4];
  for (int64_t r = begin; r < end; r++)
    for (int64_t c = 0; c < FAKE_COLUMNS; c++)
      y[r * FAKE_COLUMNS + c] = sign * (x[r * FAKE_COLUMNS + c] * weights[c] + p[c]);
}

static int32_t run_with(void *arena, const void *weights) {
  const rlx_context *context = arena;
  unsigned char *bytes = arena;
  const void *table[] = {bytes + FAKE_X, weights, bytes + FAKE_P, bytes + FAKE_NEGATE, bytes + FAKE_Y};
  if (context->parallel_for != NULL)
    context->parallel_for(context->parallel_argument, kernel, table, FAKE_ROWS, 1);
  else
    kernel(table, 0, FAKE_ROWS);
  return bytes[FAKE_NEGATE] > 1 ? RLX_E_DATA : RLX_OK;
}

static int32_t run_embedded(void *arena) { return run_with(arena, fake_weights); }

static int32_t run_external(void *arena) { return run_with(arena, ((const rlx_context *)arena)->weights); }

static int32_t run_arena(void *arena) { return run_with(arena, (unsigned char *)arena + FAKE_WEIGHTS); }

/* What is prepared is a copy of p, at the empty output. */
static int32_t prepare(void *arena) {
  unsigned char *bytes = arena;
  for (unsigned i = 0; i < FAKE_COLUMNS * sizeof(float); i++)
    bytes[FAKE_EMPTY + i] = bytes[FAKE_P + i];
  ((rlx_context *)arena)->prepared = 1;
  return RLX_OK;
}

static int32_t run_prepared(void *arena) {
  unsigned char *bytes = arena;
  const void *table[] = {bytes + FAKE_X, fake_weights, bytes + FAKE_EMPTY, bytes + FAKE_NEGATE, bytes + FAKE_Y};
  if (((const rlx_context *)arena)->prepared == 0)
    return RLX_E_NOT_PREPARED;
  kernel(table, 0, FAKE_ROWS);
  return RLX_OK;
}

int32_t fake_run_profiled(void *arena, uint64_t (*now)(void *argument), void *argument, uint64_t *nanoseconds) {
  uint64_t begin = now(argument);
  int32_t status = run_embedded(arena);
  uint64_t end = now(argument);
  nanoseconds[0] += end - begin;
  nanoseconds[1] += now(argument) - end;
  return status;
}

/* clang-format off */
#define MODEL(mode, data, bytes, place, function, once)                                                                \
  {RLX_ABI_VERSION, sizeof(rlx_model), "fake", FAKE_ARENA_SIZE, 64, inputs, outputs, params, 2, 2, 1, mode, data,      \
   bytes, place, {0x00, 0x1f, 0xa5, 0xff}, function, once, NULL, 0, 0, 0}
/* clang-format on */

const rlx_model fake_model = MODEL(RLX_WEIGHTS_EMBEDDED, fake_weights, FAKE_WEIGHTS_SIZE, 0, run_embedded, NULL);
const rlx_model fake_external_model = MODEL(RLX_WEIGHTS_EXTERNAL, NULL, FAKE_WEIGHTS_SIZE, 0, run_external, NULL);
const rlx_model fake_arena_model = MODEL(RLX_WEIGHTS_ARENA, NULL, FAKE_WEIGHTS_SIZE, FAKE_WEIGHTS, run_arena, NULL);
const rlx_model fake_plain_model = MODEL(RLX_WEIGHTS_NONE, NULL, 0, 0, run_embedded, NULL);
const rlx_model fake_prepared_model =
    MODEL(RLX_WEIGHTS_EMBEDDED, fake_weights, FAKE_WEIGHTS_SIZE, 0, run_prepared, prepare);
