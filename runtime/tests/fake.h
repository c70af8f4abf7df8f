/* Models written by hand as the compiler writes them, for the tests of the
   runtime and of the driver: y[r][c] = x[r][c] * weights[c] + p[c], negated if
   `negate` is set; and an empty output. */
#ifndef FAKE_H
#define FAKE_H

#include "rlx_rt.h"

enum {
  FAKE_X = 64,
  FAKE_P = 128,
  FAKE_Y = 192,
  FAKE_NEGATE = 256,
  FAKE_EMPTY = 320,
  FAKE_WEIGHTS = 384,
  FAKE_WEIGHTS_SIZE = 64 + RLX_SLACK,
  FAKE_ARENA_SIZE = FAKE_WEIGHTS + FAKE_WEIGHTS_SIZE + RLX_SLACK,
  FAKE_ROWS = 2,
  FAKE_COLUMNS = 3
};

extern const rlx_model fake_model, fake_external_model, fake_arena_model, fake_plain_model, fake_prepared_model;
extern const float fake_weights[FAKE_WEIGHTS_SIZE / sizeof(float)];

int32_t fake_run_profiled(void *arena, uint64_t (*now)(void *argument), void *argument, uint64_t *nanoseconds);

#endif
