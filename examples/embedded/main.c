/* A model without a runtime, a heap or a libc: a static arena, the header that
   the compiler wrote, and one call. The exit code is 0 if the results are right.
   (Linux stands in for the bare machine: _start is the reset vector, and the
   only system call ends the program.) */
#include "xor.h"

#include <stdint.h>

/* All zero, as an arena starts. */
static _Alignas(XOR_ARENA_ALIGN) uint8_t arena[XOR_ARENA_SIZE];

_Static_assert(XOR_INPUT_X_COUNT == 8, "x is 4 pairs");
_Static_assert(XOR_OUTPUT_Y_COUNT == 4, "y is 4 numbers");

static int compute(void) {
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

static _Noreturn void leave(int code) {
#if defined(__x86_64__)
  __asm__ volatile("syscall" : : "a"(60L), "D"((long)code) : "rcx", "r11", "memory");
#elif defined(__aarch64__)
  register long number __asm__("x8") = 93;
  register long argument __asm__("x0") = code;
  __asm__ volatile("svc 0" : : "r"(number), "r"(argument) : "memory");
#elif defined(__riscv)
  register long number __asm__("a7") = 93;
  register long argument __asm__("a0") = code;
  __asm__ volatile("ecall" : : "r"(number), "r"(argument) : "memory");
#else
#error "the system call that ends a program is not written for this machine"
#endif
  for (;;) {
  }
}

void start(void);
void start(void) { leave(compute()); }

/* Calls start() on an aligned stack. */
#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n  xor %ebp, %ebp\n  and $-16, %rsp\n  call start\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n  mov x29, #0\n  bl start\n");
#else
__asm__(".globl _start\n_start:\n  .option push\n  .option norelax\n  la gp, __global_pointer$\n  .option pop\n  call start\n");
#endif
