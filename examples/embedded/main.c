/* A model without a runtime, a heap or a libc: a static arena, the header that
   the compiler wrote, and one call. The exit code is 0 if the results are right. */
#include "xor.h"

#include <stdint.h>

/* All zero, as an arena starts. */
static _Alignas(XOR_ARENA_ALIGN) uint8_t arena[XOR_ARENA_SIZE];

_Static_assert(XOR_INPUT_X_COUNT == 8, "x is 4 pairs");
_Static_assert(XOR_OUTPUT_Y_COUNT == 4, "y is 4 numbers");

int compute(void);
int compute(void) {
  static const float pairs[8] = {0, 0, 0, 1, 1, 0, 1, 1};
  static const float expected[4] = {0, 1, 1, 0};
  float *x = (float *)(arena + XOR_INPUT_X_OFFSET);
  const float *y = (const float *)(arena + XOR_OUTPUT_Y_OFFSET);

  for (int i = 0; i < 8; i++)
    x[i] = pairs[i];
  if (xor_run(arena) != 0)
    return 2;
  for (int i = 0; i < 4; i++)
    if (y[i] != expected[i])
      return 1;
  return 0;
}
