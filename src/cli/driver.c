/* Runs one compiled model: what `rlx-aot run`, `verify` and `bench` build with
   the runtime, link with the object and start, for this machine or under an
   emulator. Compiled with

     -DRLX_DRIVER_MODEL=<prefix>_model
     -DRLX_RT_THREADS                         for --threads above 1
     -DRLX_DRIVER_PROFILE=<prefix>_run_profiled -DRLX_DRIVER_STEPS=<count>
                                              for the mode `profile`

   usage: driver run     LIST DIR [options]
          driver bench   LIST DIR WARMUP RUNS SECONDS [options]
          driver profile LIST DIR WARMUP RUNS SECONDS [options]

   LIST is a text file with a line for every input and every parameter: a key, a
   tab, and the path of a file with the tensor's bytes in the target's byte
   order. A key of digits only is an index, counted through the inputs and then
   the parameters; any other is a name. Each mode writes the outputs' bytes to
   DIR/out_<index>.bin; `bench` and `profile` warm up, run at least RUNS times and
   at least SECONDS long, and print one JSON object.

   options: --weights FILE   the weights file of a model that waits for one
            --threads N      a pool of N threads
            --pin            each thread on a processor of its own
            --fill BYTE      what the arena holds at first; 255, so that a read
                             of what nobody wrote is seen as NaN
            --repeat N       `run` runs N times
            --guard          the arena ends where memory ends
            --guard-start    the arena starts where memory starts

   exit code: 0 done, 2 usage, 4 a file or memory, 7 a status from the runtime;
   the reason is on stderr. */
#define _DEFAULT_SOURCE
#include "rlx_rt.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef RLX_DRIVER_MODEL
#error "RLX_DRIVER_MODEL names the model's descriptor"
#endif

extern const rlx_model RLX_DRIVER_MODEL;

#ifdef RLX_DRIVER_PROFILE
/* Runs as <prefix>_run does, and adds to nanoseconds[i] the time of step i. */
extern int32_t RLX_DRIVER_PROFILE(void *arena, uint64_t (*now)(void *argument), void *argument, uint64_t *nanoseconds);
#endif

enum { USAGE = 2, INPUT_OUTPUT = 4, RUNTIME = 7 };

typedef struct options {
  const char *mode;
  const char *list;
  const char *directory;
  unsigned long warmup;
  unsigned long runs;
  double seconds;
  const char *weights;
  unsigned long threads;
  unsigned long repeat;
  int fill;
  bool guard;
  bool guard_start;
  bool pin;
} options;

/* ---- Failing ----------------------------------------------------------- */

static _Noreturn void fail(int code, const char *format, ...) {
  va_list arguments;
  fputs("error: ", stderr);
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(code);
}

static _Noreturn void fail_file(const char *path) { fail(INPUT_OUTPUT, "%s: %s", path, strerror(errno)); }

/* Ends the program unless `status` is RLX_OK; `what` says what was tried. */
static void check(int32_t status, const char *what) {
  if (status == RLX_E_ABI)
    fail(RUNTIME, "%s: %s (object %lu, runtime %lu)", what, rlx_status_string(status),
         (unsigned long)RLX_DRIVER_MODEL.abi, (unsigned long)RLX_ABI_VERSION);
  if (status != RLX_OK)
    fail(RUNTIME, "%s: %s (status %ld)", what, rlx_status_string(status), (long)status);
}

static void *allocate(size_t bytes) {
  void *memory = malloc(bytes != 0 ? bytes : 1);
  if (memory == NULL)
    fail(INPUT_OUTPUT, "out of memory");
  return memory;
}

/* ---- Arguments --------------------------------------------------------- */

static _Noreturn void usage(const char *what) {
  fail(USAGE,
       "%s\nusage: driver run LIST DIR [options]\n"
       "       driver bench|profile LIST DIR WARMUP RUNS SECONDS [options]\n"
       "options: --weights FILE --threads N --pin --fill BYTE --repeat N --guard --guard-start",
       what);
}

static unsigned long parse_count(const char *text, unsigned long most) {
  char *end = NULL;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (errno != 0 || end == text || *end != 0 || text[0] == '-' || value > most)
    usage("a count is out of range");
  return value;
}

static options parse_arguments(int count, char **arguments) {
  options o = {.threads = 1, .repeat = 1, .fill = 255};
  if (count < 4)
    usage("arguments are missing");
  o.mode = arguments[1];
  o.list = arguments[2];
  o.directory = arguments[3];
  int at = 4;
  if (strcmp(o.mode, "bench") == 0 || strcmp(o.mode, "profile") == 0) {
    char *end = NULL;
    if (count < 7)
      usage("arguments are missing");
    o.warmup = parse_count(arguments[4], 1000000000);
    o.runs = parse_count(arguments[5], 1000000000);
    o.seconds = strtod(arguments[6], &end);
    if (end == arguments[6] || *end != 0 || !(o.seconds >= 0 && o.seconds < 1e6))
      usage("SECONDS is out of range");
    at = 7;
  } else if (strcmp(o.mode, "run") != 0) {
    usage("unknown mode");
  }
  for (; at < count; at++) {
    const char *name = arguments[at];
    if (strcmp(name, "--guard") == 0) {
      o.guard = true;
      continue;
    }
    if (strcmp(name, "--pin") == 0) {
      o.pin = true;
      continue;
    }
    if (strcmp(name, "--guard-start") == 0) {
      o.guard_start = true;
      continue;
    }
    if (at + 1 == count)
      usage("an option is unknown or wants a value");
    const char *value = arguments[++at];
    if (strcmp(name, "--weights") == 0)
      o.weights = value;
    else if (strcmp(name, "--threads") == 0)
      o.threads = parse_count(value, 1024);
    else if (strcmp(name, "--repeat") == 0)
      o.repeat = parse_count(value, 1000000000);
    else if (strcmp(name, "--fill") == 0)
      o.fill = (int)parse_count(value, 255);
    else
      usage("unknown option");
  }
  return o;
}

/* ---- The arena --------------------------------------------------------- */

static uintptr_t align_down(uintptr_t address, uintptr_t align) { return address & ~(align - 1); }

static uintptr_t align_up(uintptr_t address, uintptr_t align) { return align_down(address + align - 1, align); }

/* An arena that begins behind an inaccessible page, or ends before one, as near
   as the alignment allows. It lives as long as the program. */
static void *guarded_arena(size_t bytes, uintptr_t align, bool at_start) {
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  uintptr_t coarse = align > page ? align : page;
  size_t reserved = 2 * coarse + align_up(bytes, coarse) + coarse;
  void *region = mmap(NULL, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (region == MAP_FAILED)
    fail(INPUT_OUTPUT, "no memory for a guarded arena: %s", strerror(errno));
  uintptr_t first = align_up((uintptr_t)region + page, coarse);
  uintptr_t end = at_start ? align_up(first + bytes, page) : align_up(first + bytes, coarse);
  uintptr_t start = at_start ? first : align_down(end - bytes, align);
  uintptr_t open = align_down(start, page);
  if (mprotect((void *)open, end - open, PROT_READ | PROT_WRITE) != 0)
    fail(INPUT_OUTPUT, "no memory for a guarded arena: %s", strerror(errno));
  return (void *)start;
}

/* An instance in memory that holds o->fill: what rlx_create allocates, whose owner `owner` becomes,
   or guarded memory. */
static void make_instance(rlx_instance *instance, rlx_instance *owner, const rlx_model *model, const options *o) {
  memset(owner, 0, sizeof *owner);
  int32_t status = rlx_create(owner, model);
  if (status == RLX_E_MEMORY)
    fail(INPUT_OUTPUT, "out of memory: %llu bytes", (unsigned long long)model->arena_size);
  check(status, "create");
  void *arena = owner->arena, *region = ((rlx_context *)owner->arena)->region;
  if (o->guard || o->guard_start) {
    size_t align = (size_t)model->arena_align;
    arena = guarded_arena((size_t)model->arena_size, align, o->guard_start);
    if (region != NULL)
      region = guarded_arena((size_t)model->region_size, align, o->guard_start);
  }
  memset(arena, o->fill, (size_t)model->arena_size);
  check(rlx_create_in(instance, model, arena, model->arena_size), "create");
  if (region != NULL) {
    memset(region, o->fill, (size_t)model->region_size);
    check(rlx_set_region(instance, region, model->region_size), "region");
  }
}

/* ---- Inputs and outputs ------------------------------------------------ */

/* A name from the model, fit for a terminal. */
static const char *printable(const char *name) {
  static char text[200];
  size_t i = 0;
  for (; name[i] != 0 && i + 1 < sizeof text; i++) {
    unsigned char c = (unsigned char)name[i];
    text[i] = c < 32 || c >= 127 ? '?' : name[i];
  }
  text[i] = 0;
  return text;
}

/* The whole file, with a zero byte behind it. */
static char *read_file(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  if (file == NULL)
    fail_file(path);
  size_t capacity = 1 << 16;
  char *data = allocate(capacity);
  *bytes = 0;
  for (;;) {
    *bytes += fread(data + *bytes, 1, capacity - 1 - *bytes, file);
    if (ferror(file))
      fail_file(path);
    if (feof(file))
      break;
    if (*bytes + 1 == capacity) {
      capacity *= 2;
      data = realloc(data, capacity);
      if (data == NULL)
        fail(INPUT_OUTPUT, "%s: out of memory", path);
    }
  }
  fclose(file);
  data[*bytes] = 0;
  return data;
}

/* Index of the tensor that a key of the list means, through the inputs and then the parameters. */
static uint32_t find_key(const rlx_model *model, const char *key) {
  uint32_t index = 0;
  if (key[0] != 0 && strspn(key, "0123456789") == strlen(key)) {
    errno = 0;
    unsigned long value = strtoul(key, NULL, 10);
    if (errno != 0 || value >= (unsigned long)model->input_count + model->param_count)
      check(RLX_E_INDEX, key);
    return (uint32_t)value;
  }
  if (rlx_find_input(model, key, &index) == RLX_OK)
    return index;
  check(rlx_find_param(model, key, &index), printable(key));
  return model->input_count + index;
}

static void set_tensor(rlx_instance *instance, uint32_t index, const char *path) {
  const rlx_model *model = instance->model;
  bool is_input = index < model->input_count;
  const rlx_tensor *tensor = is_input ? &model->inputs[index] : &model->params[index - model->input_count];
  size_t bytes = 0;
  char *data = read_file(path, &bytes);
  /* Memory that lives as long as the program. */
  if (tensor->offset & RLX_OUTSIDE) {
    check(is_input ? rlx_bind_input(instance, index, data, bytes)
                   : rlx_bind_param(instance, index - model->input_count, data, bytes),
          printable(tensor->name));
    return;
  }
  int32_t status = is_input ? rlx_set_input(instance, index, data, bytes)
                            : rlx_set_param(instance, index - model->input_count, data, bytes);
  if (status == RLX_E_BYTES)
    fail(RUNTIME, "%s has %zu bytes, the tensor \"%s\" has %llu", path, bytes, printable(tensor->name),
         (unsigned long long)tensor->bytes);
  check(status, printable(tensor->name));
  free(data);
}

/* Sets every input and every parameter from the files that the list names. */
static void set_tensors(rlx_instance *instance, const char *list) {
  const rlx_model *model = instance->model;
  uint32_t count = model->input_count + model->param_count;
  bool *seen = allocate(count * sizeof *seen);
  memset(seen, 0, count * sizeof *seen);
  size_t bytes = 0;
  char *text = read_file(list, &bytes);
  for (char *line = text; *line != 0;) {
    char *end = line + strcspn(line, "\n");
    char *next = *end != 0 ? end + 1 : end;
    *end = 0;
    char *tab = strchr(line, '\t');
    if (tab != NULL) {
      *tab = 0;
      uint32_t index = find_key(model, line);
      set_tensor(instance, index, tab + 1);
      seen[index] = true;
    } else if (*line != 0) {
      fail(USAGE, "%s: a line without a tab", list);
    }
    line = next;
  }
  for (uint32_t i = 0; i < count; i++)
    if (!seen[i])
      fail(USAGE, "%s: no line for \"%s\"", list,
           printable(i < model->input_count ? model->inputs[i].name : model->params[i - model->input_count].name));
  free(text);
  free(seen);
}

static void write_outputs(const rlx_instance *instance, const char *directory) {
  size_t length = strlen(directory) + 32;
  char *path = allocate(length);
  for (uint32_t i = 0; i < instance->model->output_count; i++) {
    size_t bytes = (size_t)instance->model->outputs[i].bytes;
    char *data = allocate(bytes);
    check(rlx_get_output(instance, i, data, bytes), "get output");
    snprintf(path, length, "%s/out_%lu.bin", directory, (unsigned long)i);
    FILE *file = fopen(path, "wb");
    if (file == NULL)
      fail_file(path);
    bool written = fwrite(data, 1, bytes, file) == bytes;
    if (fclose(file) != 0 || !written)
      fail_file(path);
    free(data);
  }
  free(path);
}

/* ---- Measuring --------------------------------------------------------- */

static uint64_t now(void *argument) {
  struct timespec time;
  (void)argument;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The sample below which a share of `part` lies, of sorted samples. */
static double quantile(const double *sorted, size_t count, double part) {
  double position = part * (double)(count - 1);
  size_t below = (size_t)position;
  size_t above = below + 1 < count ? below + 1 : below;
  return sorted[below] + (position - (double)below) * (sorted[above] - sorted[below]);
}

/* Samples of `width` numbers each, in a table that grows. */
typedef struct samples {
  double *values;
  size_t width;
  size_t count;
  size_t capacity;
} samples;

static double *add_sample(samples *s) {
  if (s->count == s->capacity) {
    s->capacity = s->capacity != 0 ? 2 * s->capacity : 256;
    s->values = realloc(s->values, s->capacity * s->width * sizeof *s->values);
    if (s->values == NULL)
      fail(INPUT_OUTPUT, "out of memory");
  }
  return &s->values[s->count++ * s->width];
}

static void check_written(void) {
  if (fflush(stdout) != 0 || ferror(stdout))
    fail(INPUT_OUTPUT, "cannot write to the standard output");
}

/* Prints the distribution of times of one run. A model of less than 5 microseconds is timed
   in batches, so that reading the clock (some 25 ns) does not count. */
static void bench(rlx_instance *instance, const options *o) {
  uint64_t begin = now(NULL);
  check(rlx_run(instance), "run");
  double first = (double)(now(NULL) - begin) / 1e3;
  unsigned long warmup = o->warmup != 0 ? o->warmup : 1;
  begin = now(NULL);
  for (unsigned long i = 0; i < warmup; i++)
    check(rlx_run(instance), "run");
  double usual = (double)(now(NULL) - begin) / 1e3 / (double)warmup;
  unsigned long batch = usual >= 5 ? 1 : (unsigned long)(5 / (usual > 0.01 ? usual : 0.01)) + 1;
  samples times = {.width = 1};
  double sum = 0;
  uint64_t start = now(NULL);
  for (;;) {
    begin = now(NULL);
    for (unsigned long i = 0; i < batch; i++)
      check(rlx_run(instance), "run");
    uint64_t end = now(NULL);
    double time = (double)(end - begin) / 1e3 / (double)batch;
    *add_sample(&times) = time;
    sum += time;
    if (times.count * batch >= o->runs && (double)(end - start) >= o->seconds * 1e9)
      break;
  }
  qsort(times.values, times.count, sizeof(double), compare);
  printf("{\"median_us\":%.4f,\"min_us\":%.4f,\"mean_us\":%.4f,\"p10_us\":%.4f,\"p90_us\":%.4f,\"p99_us\":%.4f,"
         "\"first_us\":%.4f,\"runs\":%zu,\"batch\":%lu,\"threads\":%lu,\"arena_bytes\":%llu,\"weights_bytes\":%llu}\n",
         quantile(times.values, times.count, 0.5), times.values[0], sum / (double)times.count,
         quantile(times.values, times.count, 0.1), quantile(times.values, times.count, 0.9),
         quantile(times.values, times.count, 0.99), first, times.count * batch, batch, o->threads,
         (unsigned long long)instance->model->arena_size, (unsigned long long)instance->model->weights_size);
  check_written();
  free(times.values);
}

#ifdef RLX_DRIVER_PROFILE

/* How long threads are at work in the loops that they share. */
static struct meter {
  rlx_parallel_for parallel_for;
  rlx_body body;         /* of the loop that runs */
  _Atomic uint64_t busy; /* nanoseconds of all threads in it */
  uint64_t more;         /* that in all loops, less the time that they took; may wrap around */
} meter;

static void metered_body(const void *const *table, int64_t begin, int64_t end) {
  uint64_t start = now(NULL);
  meter.body(table, begin, end);
  atomic_fetch_add_explicit(&meter.busy, now(NULL) - start, memory_order_relaxed);
}

static void metered_for(void *argument, rlx_body body, const void *const *table, int64_t extent, int64_t grain) {
  meter.body = body;
  atomic_store_explicit(&meter.busy, 0, memory_order_relaxed);
  uint64_t start = now(NULL);
  meter.parallel_for(argument, metered_body, table, extent, grain);
  meter.more += atomic_load_explicit(&meter.busy, memory_order_relaxed) - (now(NULL) - start);
}

/* A clock that goes as fast as threads are at work. */
static uint64_t working(void *argument) { return now(argument) + meter.more; }

/* Prints a member: the quantile of each step's times. */
static void print_steps(const char *name, const samples *times, size_t steps, double part) {
  double *column = allocate(times->count * sizeof *column);
  printf(",\"%s\":[", name);
  for (size_t k = 0; k < steps; k++) {
    for (size_t i = 0; i < times->count; i++)
      column[i] = times->values[i * times->width + k];
    qsort(column, times->count, sizeof(double), compare);
    printf("%s%.4f", k != 0 ? "," : "", quantile(column, times->count, part));
  }
  printf("]");
  free(column);
}

/* Adds what each step of a run takes by a clock; gives what the run takes. */
static double profile_run(const rlx_instance *instance, uint64_t (*clock)(void *argument), samples *times) {
  static uint64_t ticks[RLX_DRIVER_STEPS + 1];
  memset(ticks, 0, sizeof ticks);
  uint64_t begin = now(NULL);
  check(RLX_DRIVER_PROFILE(instance->arena, clock, NULL, ticks), "run");
  uint64_t end = now(NULL);
  double *row = add_sample(times);
  for (size_t k = 0; k < RLX_DRIVER_STEPS; k++)
    row[k] = (double)ticks[k] / 1e3;
  return (double)(end - begin) / 1e3;
}

/* Prints the median and the least time of each step, and the time that all threads together were at work in it. */
static void profile(rlx_instance *instance, const options *o) {
  const size_t steps = RLX_DRIVER_STEPS;
  rlx_context *context = instance->arena;
  samples times = {.width = steps + 1}, busy = {.width = steps + 1}, whole = {.width = 1};
  check(rlx_run(instance), "run");
  meter.parallel_for = context->parallel_for;
  bool shares = meter.parallel_for != NULL;
  uint64_t start = now(NULL);
  for (unsigned long i = 0;; i++) {
    double took = profile_run(instance, now, &times);
    if (shares) {
      context->parallel_for = metered_for;
      profile_run(instance, working, &busy);
      context->parallel_for = meter.parallel_for;
    }
    if (i < o->warmup) {
      times.count = busy.count = 0;
      start = now(NULL);
      continue;
    }
    *add_sample(&whole) = took;
    if (whole.count >= o->runs && (double)(now(NULL) - start) >= o->seconds * 1e9)
      break;
  }
  qsort(whole.values, whole.count, sizeof(double), compare);
  printf("{\"median_us\":%.4f,\"runs\":%zu", quantile(whole.values, whole.count, 0.5), whole.count);
  print_steps("steps_us", &times, steps, 0.5);
  print_steps("steps_min_us", &times, steps, 0);
  print_steps("busy_us", shares ? &busy : &times, steps, 0.5);
  printf("}\n");
  check_written();
  free(times.values);
  free(busy.values);
  free(whole.values);
}
#endif

/* ---- The program ------------------------------------------------------- */

int main(int count, char **arguments) {
  options o = parse_arguments(count, arguments);
  const rlx_model *model = &RLX_DRIVER_MODEL;
  rlx_instance instance, owner;
  make_instance(&instance, &owner, model, &o);
  for (uint32_t i = 0; i < model->output_count; i++)
    if (model->outputs[i].offset & RLX_OUTSIDE) {
      size_t bytes = (size_t)model->outputs[i].bytes;
      void *data = allocate(bytes);
      memset(data, o.fill, bytes);
      check(rlx_bind_output(&instance, i, data, bytes), "bind output");
    }
  if (o.weights != NULL)
    check(rlx_map_weights(&instance, o.weights), o.weights);
#ifdef RLX_RT_THREADS
  rlx_pool *pool = NULL;
  if (o.threads > 1) {
    check(rlx_pool_create(&pool, (uint32_t)o.threads), "start threads");
    check(rlx_set_parallel(&instance, rlx_pool_parallel_for, pool), "start threads");
    if (o.pin)
      check(rlx_pool_pin(pool), "pin threads");
  }
#else
  if (o.threads > 1)
    usage("--threads: compiled without RLX_RT_THREADS");
#endif
  set_tensors(&instance, o.list);
  if (strcmp(o.mode, "run") == 0)
    for (unsigned long i = 0; i < o.repeat; i++)
      check(rlx_run(&instance), "run");
  else if (strcmp(o.mode, "bench") == 0)
    bench(&instance, &o);
  else
#ifdef RLX_DRIVER_PROFILE
    profile(&instance, &o);
#else
    usage("profile: the object was built without --profile");
#endif
  write_outputs(&instance, o.directory);
  check(rlx_destroy(&instance), "destroy");
#ifdef RLX_RT_THREADS
  check(rlx_pool_destroy(pool), "end threads");
#endif
  check(rlx_destroy(&owner), "destroy");
  return 0;
}
