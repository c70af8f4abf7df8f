/* What comes before and behind compute(). Linux stands in for the bare machine:
   _start is the reset vector, and the only system call ends the program. */
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

int compute(void);
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
