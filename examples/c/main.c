/* A network of two layers that computes "exclusive or", called by the runtime. */
#include "rlx_rt.h"

#include "xor.h"

#include <stdio.h>

/* Ends the program with the reason if a call failed. */
#define CHECK(call)                                                                                                    \
  do {                                                                                                                 \
    int32_t status = (call);                                                                                           \
    if (status != RLX_OK) {                                                                                            \
      fprintf(stderr, "%s: %s\n", #call, rlx_status_string(status));                                                   \
      return 1;                                                                                                        \
    }                                                                                                                  \
  } while (0)

int main(void) {
  static const float x[4][2] = {{0, 0}, {0, 1}, {1, 0}, {1, 1}};
  float y[4];
  rlx_instance model;

  CHECK(rlx_create(&model, &xor_model));
  CHECK(rlx_set_input_by_name(&model, "x", x, sizeof x));
  CHECK(rlx_run(&model));
  CHECK(rlx_get_output_by_name(&model, "y", y, sizeof y));
  for (int i = 0; i < 4; i++)
    printf("%g xor %g = %g\n", (double)x[i][0], (double)x[i][1], (double)y[i]);
  CHECK(rlx_destroy(&model));
  return 0;
}
