/* See rlx_rt.h. The order here: status, the descriptor's check, instances,
   tensors, weights, and what only hosted builds have: mapping and threads. */
#if !defined(RLX_RT_FREESTANDING) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#if !defined(RLX_RT_FREESTANDING) && defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* for large pages, and the processors that a thread runs on */
#endif

#include "rlx_rt.h"

#include <stdbool.h>

#ifndef RLX_RT_FREESTANDING
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#endif

enum { OWNS_ARENA = 1, WEIGHTS_BOUND = 2 };

const char *rlx_status_string(int32_t status) {
  switch (status) {
  case RLX_OK: return "no error";
  case RLX_E_NULL: return "a pointer is null";
  case RLX_E_ABI: return "the object was compiled for another version of the runtime";
  case RLX_E_MODEL: return "the model's descriptor contradicts itself";
  case RLX_E_ARENA_SIZE: return "the arena is shorter than the model's arena_size";
  case RLX_E_ARENA_ALIGN: return "the arena is not aligned to the model's arena_align";
  case RLX_E_NAME: return "no tensor has this name";
  case RLX_E_INDEX: return "no tensor has this index";
  case RLX_E_BYTES: return "the byte count is not the tensor's";
  case RLX_E_NO_WEIGHTS: return "the model waits for weights that are not bound";
  case RLX_E_WEIGHTS_MODE: return "the model takes no weights from outside";
  case RLX_E_WEIGHTS_SIZE: return "the size of the weights is not the model's weights_size";
  case RLX_E_WEIGHTS_ALIGN: return "the weights are not aligned to 64 bytes";
  case RLX_E_WEIGHTS_FILE: return "the weights file is damaged, or not a weights file";
  case RLX_E_WEIGHTS_MODEL: return "the weights file belongs to another model or another build of it";
  case RLX_E_MEMORY: return "out of memory";
  case RLX_E_OPEN: return "the file cannot be opened or mapped";
  case RLX_E_THREAD: return "a thread cannot be started or pinned";
  case RLX_E_ARGUMENT: return "an argument is out of its range";
  case RLX_E_NOT_PREPARED: return "the model's parameters were not prepared in this arena";
  case RLX_E_PROCESSOR: return "the model was compiled for other processors than this one";
  case RLX_E_NO_REGION: return "the model waits for its second memory, which is not bound";
  case RLX_E_REGION_SIZE: return "the second memory is shorter than the model's region_size";
  case RLX_E_REGION_ALIGN: return "the second memory is not aligned to the model's arena_align";
  case RLX_E_NOT_BOUND: return "a tensor outside of the arena is not bound to memory";
  case RLX_E_OUTSIDE: return "the tensor is outside of the arena: bind its memory";
  case RLX_E_INSIDE: return "the tensor has its place in the arena: set it";
  case RLX_E_BOUND_ALIGN: return "the memory is not aligned to the tensor's elements";
  case RLX_E_GUARD: return "somebody wrote behind the end of a tensor";
  case RLX_E_DATA: return "an index in the model's data is out of range";
  default: return "unknown status";
  }
}

/* Copies between buffers that do not overlap, or are the same. */
static void copy(void *to, const void *from, uint64_t bytes) {
  if (to == from || bytes == 0)
    return;
#ifndef RLX_RT_FREESTANDING
  memcpy(to, from, (size_t)bytes);
#else
  /* Volatile, so that no compiler makes it a call of the memcpy that is not there. */
  volatile unsigned char *target = to;
  const unsigned char *source = from;
  for (uint64_t i = 0; i < bytes; i++)
    target[i] = source[i];
#endif
}

static void fill(void *data, unsigned char value, uint64_t bytes) {
#ifndef RLX_RT_FREESTANDING
  memset(data, value, (size_t)bytes);
#else
  volatile unsigned char *target = data;
  for (uint64_t i = 0; i < bytes; i++)
    target[i] = value;
#endif
}

static bool same_text(const char *a, const char *b) {
  for (; *a == *b; a++, b++)
    if (*a == 0)
      return true;
  return false;
}

/* ---- The descriptor ---------------------------------------------------- */

/* Whether a descriptor is long enough to have a field, and it is not zero there. */
#define HAS(model, field) \
  ((model)->size >= offsetof(rlx_model, field) + sizeof (model)->field && (model)->field != 0)

static int32_t check_abi(const rlx_model *model) {
  if (model == NULL)
    return RLX_E_NULL;
  return model->abi == RLX_ABI_VERSION && model->size >= offsetof(rlx_model, prepare) ? RLX_OK : RLX_E_ABI;
}

/* Whether begin .. begin + bytes lies in 0 .. size. */
static bool inside(uint64_t begin, uint64_t bytes, uint64_t size) {
  return bytes <= size && begin <= size - bytes;
}

static bool check_tensors(const rlx_tensor *tensors, uint32_t count, uint64_t arena_size) {
  if (count != 0 && tensors == NULL)
    return false;
  for (uint32_t i = 0; i < count; i++) {
    const rlx_tensor *tensor = &tensors[i];
    if (tensor->offset & RLX_OUTSIDE) {
      uint64_t place = tensor->offset & ~RLX_OUTSIDE;
      if (tensor->name == NULL || (tensor->dims == NULL && tensor->rank != 0) || place < sizeof(rlx_context) ||
          place % sizeof(uint64_t) != 0 || !inside(place, sizeof(uint64_t), arena_size))
        return false;
      continue;
    }
    if (tensor->name == NULL || (tensor->dims == NULL && tensor->rank != 0) || tensor->offset < sizeof(rlx_context) ||
        !inside(tensor->offset, tensor->bytes, arena_size))
      return false;
  }
  return true;
}

static bool check_states(const rlx_model *model) {
  if (!HAS(model, state_count))
    return true;
  if (model->states == NULL)
    return false;
  for (uint32_t i = 0; i < model->state_count; i++) {
    const rlx_state *state = &model->states[i];
    if (state->input >= model->input_count || state->output >= model->output_count)
      return false;
    const rlx_tensor *input = &model->inputs[state->input], *output = &model->outputs[state->output];
    /* The output of a second state is the first one's. */
    if (input->bytes != output->bytes)
      return false;
  }
  return true;
}

/* The bytes behind a tensor that nobody uses. */
static uint64_t guard_of(const rlx_model *model, const rlx_tensor *tensor) {
  if (!HAS(model, guard) || tensor->bytes == 0 || (tensor->offset & RLX_OUTSIDE))
    return 0;
  /* An output may be a parameter as it is, and parameters have none. */
  for (uint32_t i = 0; i < model->param_count; i++)
    if (model->params[i].offset == tensor->offset && model->params[i].bytes != 0)
      return 0;
  return model->guard;
}

static bool check_guard_places(const rlx_model *model, const rlx_tensor *tensors, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    uint64_t guard = guard_of(model, &tensors[i]);
    if (guard != 0 && !inside(tensors[i].offset + tensors[i].bytes, guard, model->arena_size))
      return false;
  }
  return true;
}

static int32_t check_model(const rlx_model *model) {
  int32_t status = check_abi(model);
  if (status != RLX_OK)
    return status;
  uint64_t align = model->arena_align;
  bool right = model->run != NULL && align >= _Alignof(rlx_context) && (align & (align - 1)) == 0 &&
               model->arena_size >= sizeof(rlx_context) && model->arena_size <= SIZE_MAX - align &&
               (!HAS(model, region_size) || model->region_size < SIZE_MAX / 4) &&
               check_tensors(model->inputs, model->input_count, model->arena_size) &&
               check_tensors(model->outputs, model->output_count, model->arena_size) &&
               check_tensors(model->params, model->param_count, model->arena_size) && check_states(model) &&
               check_guard_places(model, model->inputs, model->input_count) &&
               check_guard_places(model, model->outputs, model->output_count);
  switch (model->weights_mode) {
  case RLX_WEIGHTS_NONE:
  case RLX_WEIGHTS_EXTERNAL: break;
  case RLX_WEIGHTS_EMBEDDED: right = right && model->weights != NULL; break;
  case RLX_WEIGHTS_ARENA:
    right = right && model->weights_offset >= sizeof(rlx_context) &&
            inside(model->weights_offset, model->weights_size, model->arena_size);
    break;
  default: right = false;
  }
  return right ? RLX_OK : RLX_E_MODEL;
}

/* ---- Instances --------------------------------------------------------- */

static void clear_pace(rlx_pace *pace) {
  pace->shared_ns = 0;
  pace->alone_ns = 0;
  pace->spent_ns = 0;
  pace->turn = 0;
  pace->doubts = 0;
  pace->rest = 0;
  pace->last_rest = 0;
}

static void clear_instance(rlx_instance *instance) {
  instance->model = NULL;
  instance->arena = NULL;
  instance->mapping = NULL;
  instance->mapping_bytes = 0;
  instance->flags = 0;
  instance->reserved = 0;
  clear_pace(&instance->pace);
}

static void clear_context(rlx_context *context) {
  context->weights = NULL;
  context->parallel_for = NULL;
  context->parallel_argument = NULL;
  context->prepared = 0;
  context->processor = 0;
  context->region = NULL;
  for (size_t i = 0; i < sizeof context->reserved / sizeof context->reserved[0]; i++)
    ((volatile uint64_t *)context->reserved)[i] = 0;
}

static void clear_states(const rlx_instance *instance) {
  const rlx_model *model = instance->model;
  for (uint32_t i = 0; HAS(model, state_count) && i < model->state_count; i++) {
    const rlx_tensor *tensor = &model->inputs[model->states[i].input];
    fill((unsigned char *)instance->arena + tensor->offset, 0, tensor->bytes);
  }
}

static void fill_guards(const rlx_instance *instance, const rlx_tensor *tensors, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    uint64_t guard = guard_of(instance->model, &tensors[i]);
    if (guard != 0)
      fill((unsigned char *)instance->arena + tensors[i].offset + tensors[i].bytes, RLX_GUARD, guard);
  }
}

/* Whether a tensor lies where an input does. */
static bool is_input(const rlx_model *model, const rlx_tensor *tensor) {
  for (uint32_t i = 0; i < model->input_count; i++)
    if (model->inputs[i].offset == tensor->offset && model->inputs[i].bytes != 0)
      return true;
  return false;
}

/* Behind the outputs that are no inputs: their memory was others' before they were written. */
static void refill_guards(const rlx_instance *instance) {
  const rlx_model *model = instance->model;
  for (uint32_t i = 0; HAS(model, guard) && i < model->output_count; i++)
    if (!is_input(model, &model->outputs[i]))
      fill_guards(instance, &model->outputs[i], 1);
}

/* Where the pointer to a tensor outside of the arena is. */
static void **pointer_to(const rlx_instance *instance, const rlx_tensor *tensor) {
  return (void **)(void *)((unsigned char *)instance->arena + (tensor->offset & ~RLX_OUTSIDE));
}

static void clear_pointers(const rlx_instance *instance, const rlx_tensor *tensors, uint32_t count) {
  for (uint32_t i = 0; i < count; i++)
    if (tensors[i].offset & RLX_OUTSIDE)
      *pointer_to(instance, &tensors[i]) = NULL;
}

int32_t rlx_create_in(rlx_instance *instance, const rlx_model *model, void *arena, uint64_t bytes) {
  if (instance == NULL)
    return RLX_E_NULL;
  clear_instance(instance);
  int32_t status = check_model(model);
  if (status != RLX_OK)
    return status;
  if (arena == NULL)
    return RLX_E_NULL;
  if ((uintptr_t)arena & (model->arena_align - 1))
    return RLX_E_ARENA_ALIGN;
  if (bytes < model->arena_size)
    return RLX_E_ARENA_SIZE;
  clear_context(arena);
  instance->model = model;
  instance->arena = arena;
  clear_states(instance);
  clear_pointers(instance, model->inputs, model->input_count);
  clear_pointers(instance, model->outputs, model->output_count);
  clear_pointers(instance, model->params, model->param_count);
  return rlx_fill_guards(instance);
}

#ifndef RLX_RT_FREESTANDING
/* Zeroed memory, for free(), of so many bytes: a multiple of the alignment. From
   LARGE_PAGE bytes on it asks for large pages, where the system has such a call: they are
   zeroed in a quarter of the time, and a run misses fewer translations of addresses. The
   last page is a large one if that wastes no more than half of it. */
static void *allocate_zeroed(size_t align, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const size_t LARGE_PAGE = (size_t)1 << 21;
  if (bytes >= LARGE_PAGE && bytes <= SIZE_MAX - LARGE_PAGE && align <= LARGE_PAGE) {
    size_t large = (bytes + LARGE_PAGE / 2) & ~(LARGE_PAGE - 1);
    void *memory = aligned_alloc(LARGE_PAGE, (bytes + LARGE_PAGE - 1) & ~(LARGE_PAGE - 1));
    if (memory != NULL) {
      (void)madvise(memory, large, MADV_HUGEPAGE); /* An advice: without it the pages are small. */
      return memset(memory, 0, bytes);
    }
  }
#endif
  void *memory = aligned_alloc(align, bytes);
  return memory != NULL ? memset(memory, 0, bytes) : NULL;
}

int32_t rlx_create(rlx_instance *instance, const rlx_model *model) {
  if (instance == NULL)
    return RLX_E_NULL;
  clear_instance(instance);
  int32_t status = check_model(model);
  if (status != RLX_OK)
    return status;
  size_t align = (size_t)model->arena_align;
  size_t bytes = ((size_t)model->arena_size + align - 1) & ~(align - 1);
  size_t region = HAS(model, region_size) ? ((size_t)model->region_size + align - 1) & ~(align - 1) : 0;
  void *arena = allocate_zeroed(align, bytes + region);
  if (arena == NULL)
    return RLX_E_MEMORY;
  status = rlx_create_in(instance, model, arena, bytes);
  if (status == RLX_OK && region != 0)
    status = rlx_set_region(instance, (unsigned char *)arena + bytes, region);
  if (status != RLX_OK)
    free(arena);
  else
    instance->flags |= OWNS_ARENA;
  return status;
}
#endif

static void release_mapping(rlx_instance *instance) {
#ifndef RLX_RT_FREESTANDING
  if (instance->mapping != NULL)
    munmap(instance->mapping, (size_t)instance->mapping_bytes);
#endif
  instance->mapping = NULL;
  instance->mapping_bytes = 0;
}

int32_t rlx_destroy(rlx_instance *instance) {
  if (instance == NULL)
    return RLX_E_NULL;
  release_mapping(instance);
#ifndef RLX_RT_FREESTANDING
  if (instance->flags & OWNS_ARENA)
    free(instance->arena);
#endif
  clear_instance(instance);
  return RLX_OK;
}

/* Whether the instance was made and not destroyed. */
static int32_t check_instance(const rlx_instance *instance) {
  return instance == NULL || instance->model == NULL || instance->arena == NULL ? RLX_E_NULL : RLX_OK;
}

static int32_t check_weights(const rlx_instance *instance) {
  bool waits = instance->model->weights_mode >= RLX_WEIGHTS_EXTERNAL;
  return waits && !(instance->flags & WEIGHTS_BOUND) ? RLX_E_NO_WEIGHTS : RLX_OK;
}

/* What was computed from the parameters and the weights is no longer theirs. */
static void forget_prepared(const rlx_instance *instance) { ((rlx_context *)instance->arena)->prepared = 0; }

/* Calls the model, which makes its outputs and has used their guards until then. */
static int32_t call(const rlx_instance *instance, int32_t (*function)(void *arena)) {
  int32_t status = function(instance->arena);
  refill_guards(instance);
  return status;
}

#if defined(RLX_RT_THREADS) && !defined(RLX_RT_FREESTANDING)

/* Whether shared runs of `shared_ns` are worth the other threads: by a sixteenth. */
static bool pays(uint64_t shared_ns, uint64_t alone_ns) { return shared_ns < alone_ns - alone_ns / 16; }

/* Runs of each half of a trial, after which the other half begins; the half on one
   thread ends sooner if it has taken so long. Doubts that lead to another trial.
   Runs on one thread after the first trial that speaks for it, and after the last. */
enum { TRIALS = 3, LONG_NS = 5000000, DOUBTS = 4, SHORTEST_REST = 16, LONGEST_REST = 1024 };

static bool shares(const rlx_pace *pace) {
  return pace->rest == 0 && (pace->turn < TRIALS || pace->turn == 2 * TRIALS);
}

/* Notes how long a run took that went as `shares` says. A trial is the least time of some
   shared runs, the first of which wakes the threads, against that of some on one thread. */
static void note(rlx_pace *pace, uint64_t ns) {
  if (pace->turn == 2 * TRIALS) {
    if (!pays(ns, pace->alone_ns))
      pace->doubts++;
    else if (pace->doubts > 0)
      pace->doubts--;
    if (pace->doubts == DOUBTS)
      pace->turn = 0;
    return;
  }
  if (pace->turn < TRIALS) {
    pace->shared_ns = pace->turn == 0 || ns < pace->shared_ns ? ns : pace->shared_ns;
    pace->spent_ns = 0;
    pace->turn++;
    return;
  }
  pace->alone_ns = pace->turn == TRIALS || ns < pace->alone_ns ? ns : pace->alone_ns;
  pace->spent_ns += ns;
  if (++pace->turn < 2 * TRIALS && pace->spent_ns < LONG_NS)
    return;
  pace->doubts = 0;
  if (pays(pace->shared_ns, pace->alone_ns)) {
    pace->turn = 2 * TRIALS;
    pace->last_rest = 0;
    return;
  }
  pace->turn = 0;
  pace->last_rest = pace->last_rest == 0              ? SHORTEST_REST
                    : pace->last_rest < LONGEST_REST ? 2 * pace->last_rest
                                                     : LONGEST_REST;
  pace->rest = pace->last_rest;
}

static uint64_t nanoseconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* A run that may share its loops, and does where that has been found to be faster. */
static int32_t call_run(rlx_instance *instance) {
  rlx_context *context = instance->arena;
  rlx_pace *pace = &instance->pace;
  if (context->parallel_for != rlx_pool_parallel_for)
    return call(instance, instance->model->run);
  if (!shares(pace))
    context->parallel_for = NULL;
  bool rests = pace->rest != 0;
  uint64_t begin = rests ? 0 : nanoseconds();
  int32_t status = call(instance, instance->model->run);
  if (rests)
    pace->rest--;
  else if (status == RLX_OK)
    note(pace, nanoseconds() - begin);
  context->parallel_for = rlx_pool_parallel_for;
  return status;
}

#else

static int32_t call_run(rlx_instance *instance) { return call(instance, instance->model->run); }

#endif

int32_t rlx_run(rlx_instance *instance) {
  int32_t status = check_instance(instance);
  if (status != RLX_OK)
    return status;
  const rlx_model *model = instance->model;
  if (((const rlx_context *)instance->arena)->prepared == 0 && HAS(model, prepare))
    status = rlx_prepare(instance);
  else
    status = check_weights(instance);
  return status != RLX_OK ? status : call_run(instance);
}

int32_t rlx_prepare(rlx_instance *instance) {
  int32_t status = check_instance(instance);
  if (status == RLX_OK)
    status = check_weights(instance);
  return status == RLX_OK && HAS(instance->model, prepare) ? call(instance, instance->model->prepare) : status;
}

int32_t rlx_set_region(rlx_instance *instance, void *memory, uint64_t bytes) {
  int32_t status = check_instance(instance);
  if (status != RLX_OK || memory == NULL)
    return RLX_E_NULL;
  const rlx_model *model = instance->model;
  if (!HAS(model, region_size))
    return RLX_E_ARGUMENT;
  if ((uintptr_t)memory & (model->arena_align - 1))
    return RLX_E_REGION_ALIGN;
  if (bytes < model->region_size)
    return RLX_E_REGION_SIZE;
  ((rlx_context *)instance->arena)->region = memory;
  forget_prepared(instance); /* Some of it may lie there. */
  return RLX_OK;
}

int32_t rlx_reset(rlx_instance *instance) {
  int32_t status = check_instance(instance);
  if (status == RLX_OK)
    clear_states(instance);
  return status;
}

/* ---- Guards ------------------------------------------------------------ */

int32_t rlx_fill_guards(rlx_instance *instance) {
  int32_t status = check_instance(instance);
  if (status != RLX_OK)
    return status;
  fill_guards(instance, instance->model->inputs, instance->model->input_count);
  fill_guards(instance, instance->model->outputs, instance->model->output_count);
  return RLX_OK;
}

/* The first tensor with another byte behind it, or null. */
static const rlx_tensor *overrun(const rlx_instance *instance, const rlx_tensor *tensors, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    uint64_t guard = guard_of(instance->model, &tensors[i]);
    const unsigned char *arena = instance->arena;
    for (uint64_t at = 0; at < guard; at++)
      if (arena[tensors[i].offset + tensors[i].bytes + at] != RLX_GUARD)
        return &tensors[i];
  }
  return NULL;
}

int32_t rlx_check_guards(const rlx_instance *instance, const rlx_tensor **tensor) {
  int32_t status = check_instance(instance);
  if (tensor != NULL)
    *tensor = NULL;
  if (status != RLX_OK)
    return status;
  const rlx_model *model = instance->model;
  if (!HAS(model, guard))
    return RLX_E_ARGUMENT;
  const rlx_tensor *found = overrun(instance, model->inputs, model->input_count);
  if (found == NULL)
    found = overrun(instance, model->outputs, model->output_count);
  if (tensor != NULL)
    *tensor = found;
  return found != NULL ? RLX_E_GUARD : RLX_OK;
}

/* ---- Tensors ----------------------------------------------------------- */

enum role { INPUT, OUTPUT, PARAM };

static const rlx_tensor *tensors_of(const rlx_model *model, enum role role, uint32_t *count) {
  switch (role) {
  case INPUT: *count = model->input_count; return model->inputs;
  case OUTPUT: *count = model->output_count; return model->outputs;
  case PARAM: *count = model->param_count; return model->params;
  }
  *count = 0;
  return NULL;
}

static int32_t find(const rlx_model *model, enum role role, const char *name, uint32_t *index) {
  int32_t status = check_abi(model);
  if (status != RLX_OK)
    return status;
  if (name == NULL || index == NULL)
    return RLX_E_NULL;
  uint32_t count = 0;
  const rlx_tensor *tensors = tensors_of(model, role, &count);
  for (uint32_t i = 0; i < count; i++)
    if (same_text(tensors[i].name, name)) {
      *index = i;
      return RLX_OK;
    }
  return RLX_E_NAME;
}

/* A tensor and its memory in the arena. */
struct slot {
  void *data;
  uint64_t bytes;
};

static int32_t tensor_at(const rlx_instance *instance, enum role role, uint32_t index, const rlx_tensor **tensor) {
  int32_t status = check_instance(instance);
  if (status != RLX_OK)
    return status;
  uint32_t count = 0;
  const rlx_tensor *tensors = tensors_of(instance->model, role, &count);
  if (index >= count)
    return RLX_E_INDEX;
  *tensor = &tensors[index];
  return RLX_OK;
}

static int32_t locate(const rlx_instance *instance, enum role role, uint32_t index, struct slot *slot) {
  const rlx_tensor *tensor = NULL;
  int32_t status = tensor_at(instance, role, index, &tensor);
  if (status != RLX_OK)
    return status;
  slot->bytes = tensor->bytes;
  if (tensor->offset & RLX_OUTSIDE) {
    /* What is written is the program's own, which may be constant. */
    slot->data = *pointer_to(instance, tensor);
    return role != OUTPUT ? RLX_E_OUTSIDE : slot->data == NULL ? RLX_E_NOT_BOUND : RLX_OK;
  }
  slot->data = (unsigned char *)instance->arena + tensor->offset;
  return RLX_OK;
}

static int32_t set(const rlx_instance *instance, enum role role, uint32_t index, const void *data, uint64_t bytes) {
  struct slot slot;
  int32_t status = locate(instance, role, index, &slot);
  if (status != RLX_OK)
    return status;
  if (bytes != slot.bytes)
    return RLX_E_BYTES;
  if (data == NULL && bytes != 0)
    return RLX_E_NULL;
  copy(slot.data, data, bytes);
  if (role == PARAM)
    forget_prepared(instance);
  return RLX_OK;
}

static int32_t set_by_name(const rlx_instance *instance, enum role role, const char *name, const void *data,
                           uint64_t bytes) {
  uint32_t index = 0;
  int32_t status = check_instance(instance);
  if (status == RLX_OK)
    status = find(instance->model, role, name, &index);
  return status != RLX_OK ? status : set(instance, role, index, data, bytes);
}

int32_t rlx_find_input(const rlx_model *model, const char *name, uint32_t *index) {
  return find(model, INPUT, name, index);
}

int32_t rlx_find_output(const rlx_model *model, const char *name, uint32_t *index) {
  return find(model, OUTPUT, name, index);
}

int32_t rlx_find_param(const rlx_model *model, const char *name, uint32_t *index) {
  return find(model, PARAM, name, index);
}

int32_t rlx_set_input(rlx_instance *instance, uint32_t index, const void *data, uint64_t bytes) {
  return set(instance, INPUT, index, data, bytes);
}

int32_t rlx_set_param(rlx_instance *instance, uint32_t index, const void *data, uint64_t bytes) {
  return set(instance, PARAM, index, data, bytes);
}

int32_t rlx_set_input_by_name(rlx_instance *instance, const char *name, const void *data, uint64_t bytes) {
  return set_by_name(instance, INPUT, name, data, bytes);
}

int32_t rlx_set_param_by_name(rlx_instance *instance, const char *name, const void *data, uint64_t bytes) {
  return set_by_name(instance, PARAM, name, data, bytes);
}

int32_t rlx_get_output(const rlx_instance *instance, uint32_t index, void *data, uint64_t bytes) {
  struct slot slot;
  int32_t status = locate(instance, OUTPUT, index, &slot);
  if (status != RLX_OK)
    return status;
  if (bytes != slot.bytes)
    return RLX_E_BYTES;
  if (data == NULL && bytes != 0)
    return RLX_E_NULL;
  copy(data, slot.data, bytes);
  return RLX_OK;
}

int32_t rlx_get_output_by_name(const rlx_instance *instance, const char *name, void *data, uint64_t bytes) {
  uint32_t index = 0;
  int32_t status = check_instance(instance);
  if (status == RLX_OK)
    status = find(instance->model, OUTPUT, name, &index);
  return status != RLX_OK ? status : rlx_get_output(instance, index, data, bytes);
}

int32_t rlx_input(const rlx_instance *instance, uint32_t index, void **data) {
  struct slot slot;
  int32_t status = data == NULL ? RLX_E_NULL : locate(instance, INPUT, index, &slot);
  if (status == RLX_OK)
    *data = slot.data;
  return status;
}

int32_t rlx_param(rlx_instance *instance, uint32_t index, void **data) {
  struct slot slot;
  int32_t status = data == NULL ? RLX_E_NULL : locate(instance, PARAM, index, &slot);
  if (status != RLX_OK)
    return status;
  *data = slot.data;
  forget_prepared(instance);
  return RLX_OK;
}

int32_t rlx_output(const rlx_instance *instance, uint32_t index, const void **data) {
  struct slot slot;
  int32_t status = data == NULL ? RLX_E_NULL : locate(instance, OUTPUT, index, &slot);
  if (status == RLX_OK)
    *data = slot.data;
  return status;
}

static uint64_t element_bytes(uint32_t dtype) {
  switch (dtype) {
  case RLX_U8:
  case RLX_I8:
  case RLX_BOOL: return 1;
  case RLX_U16:
  case RLX_I16:
  case RLX_F16:
  case RLX_BF16: return 2;
  case RLX_I64:
  case RLX_F64:
  case RLX_U64: return 8;
  default: return 4;
  }
}

static int32_t bind(const rlx_instance *instance, enum role role, uint32_t index, const void *data, uint64_t bytes) {
  const rlx_tensor *tensor = NULL;
  int32_t status = tensor_at(instance, role, index, &tensor);
  if (status != RLX_OK)
    return status;
  if (!(tensor->offset & RLX_OUTSIDE))
    return RLX_E_INSIDE;
  if (data == NULL)
    return RLX_E_NULL;
  if (bytes != tensor->bytes)
    return RLX_E_BYTES;
  if ((uintptr_t)data & (element_bytes(tensor->dtype) - 1))
    return RLX_E_BOUND_ALIGN;
  *pointer_to(instance, tensor) = (void *)(uintptr_t)data;
  if (role == PARAM)
    forget_prepared(instance);
  return RLX_OK;
}

int32_t rlx_bind_input(rlx_instance *instance, uint32_t index, const void *data, uint64_t bytes) {
  return bind(instance, INPUT, index, data, bytes);
}

int32_t rlx_bind_param(rlx_instance *instance, uint32_t index, const void *data, uint64_t bytes) {
  return bind(instance, PARAM, index, data, bytes);
}

int32_t rlx_bind_output(rlx_instance *instance, uint32_t index, void *data, uint64_t bytes) {
  return bind(instance, OUTPUT, index, data, bytes);
}

/* ---- Weights ----------------------------------------------------------- */

int32_t rlx_bind_weights(rlx_instance *instance, const void *weights, uint64_t bytes) {
  int32_t status = check_instance(instance);
  if (status != RLX_OK || weights == NULL)
    return RLX_E_NULL;
  const rlx_model *model = instance->model;
  if (model->weights_mode < RLX_WEIGHTS_EXTERNAL)
    return RLX_E_WEIGHTS_MODE;
  if (bytes != model->weights_size)
    return RLX_E_WEIGHTS_SIZE;
  if (model->weights_mode == RLX_WEIGHTS_ARENA) {
    copy((unsigned char *)instance->arena + model->weights_offset, weights, bytes);
  } else {
    if ((uintptr_t)weights & (RLX_WEIGHTS_ALIGN - 1))
      return RLX_E_WEIGHTS_ALIGN;
    ((rlx_context *)instance->arena)->weights = weights;
  }
  release_mapping(instance);
  forget_prepared(instance);
  instance->flags |= WEIGHTS_BOUND;
  return RLX_OK;
}

int32_t rlx_set_parallel(rlx_instance *instance, rlx_parallel_for parallel_for, void *argument) {
  int32_t status = check_instance(instance);
  if (status != RLX_OK)
    return status;
  rlx_context *context = instance->arena;
  context->parallel_for = parallel_for;
  context->parallel_argument = argument;
  clear_pace(&instance->pace);
  return RLX_OK;
}

#ifndef RLX_RT_FREESTANDING

/* A reader for the header of a weights file, which is JSON:

     {"__metadata__":{"fingerprint":"<64 hex digits>", ...},
      "weights":{"dtype":"U8","shape":[N],"data_offsets":[0,N]}}

   Members may come in any order. Anything else is refused: no other writer
   makes these files. Every function returns false at the first byte that
   does not fit. */
typedef struct reader {
  const char *at;
  const char *end;
} reader;

typedef struct slice {
  const char *text;
  size_t length;
} slice;

static bool slice_is(slice s, const char *text) {
  return s.length == strlen(text) && memcmp(s.text, text, s.length) == 0;
}

static void skip_space(reader *r) {
  while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
    r->at++;
}

/* Whether the next character, after space, is `c`; passes it if so. */
static bool take(reader *r, char c) {
  skip_space(r);
  if (r->at == r->end || *r->at != c)
    return false;
  r->at++;
  return true;
}

/* Escapes stay as they are: what is looked for has none. */
static bool take_string(reader *r, slice *s) {
  if (!take(r, '"'))
    return false;
  s->text = r->at;
  while (r->at < r->end && *r->at != '"') {
    if (*r->at == '\\' && ++r->at == r->end)
      return false;
    r->at++;
  }
  s->length = (size_t)(r->at - s->text);
  return take(r, '"');
}

static bool take_number(reader *r, uint64_t *value) {
  skip_space(r);
  const char *begin = r->at;
  for (*value = 0; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++) {
    uint64_t digit = (uint64_t)(*r->at - '0');
    if (*value > (UINT64_MAX - digit) / 10)
      return false;
    *value = *value * 10 + digit;
  }
  return r->at != begin;
}

/* `"name":`, or the end of the object, where `more` becomes false. */
static bool take_member(reader *r, bool first, slice *name, bool *more) {
  *more = !take(r, '}');
  return !*more || ((first || take(r, ',')) && take_string(r, name) && take(r, ':'));
}

static bool take_metadata(reader *r, slice *fingerprint) {
  if (!take(r, '{'))
    return false;
  for (bool first = true;; first = false) {
    slice name, value;
    bool more;
    if (!take_member(r, first, &name, &more))
      return false;
    if (!more)
      return true;
    if (!take_string(r, &value))
      return false;
    if (slice_is(name, "fingerprint"))
      *fingerprint = value;
  }
}

/* Dtype, shape and range of the one tensor; `count` is its length. */
static bool take_tensor(reader *r, uint64_t *count) {
  bool dtype_seen = false, shape_seen = false, range_seen = false;
  uint64_t shape = 0, begin = 0, end = 0;
  if (!take(r, '{'))
    return false;
  for (bool first = true;; first = false) {
    slice name, text;
    bool more;
    if (!take_member(r, first, &name, &more))
      return false;
    if (!more)
      break;
    if (slice_is(name, "dtype")) {
      dtype_seen = take_string(r, &text) && slice_is(text, "U8");
      if (!dtype_seen)
        return false;
    } else if (slice_is(name, "shape")) {
      shape_seen = take(r, '[') && take_number(r, &shape) && take(r, ']');
      if (!shape_seen)
        return false;
    } else if (slice_is(name, "data_offsets")) {
      range_seen = take(r, '[') && take_number(r, &begin) && take(r, ',') && take_number(r, &end) && take(r, ']');
      if (!range_seen)
        return false;
    } else {
      return false;
    }
  }
  *count = shape;
  return dtype_seen && shape_seen && range_seen && begin == 0 && end == shape;
}

static bool take_header(reader *r, slice *fingerprint, uint64_t *count) {
  bool tensor_seen = false;
  if (!take(r, '{'))
    return false;
  for (bool first = true;; first = false) {
    slice name;
    bool more;
    if (!take_member(r, first, &name, &more))
      return false;
    if (!more)
      break;
    if (slice_is(name, "__metadata__")) {
      if (!take_metadata(r, fingerprint))
        return false;
    } else if (slice_is(name, "weights") && !tensor_seen) {
      tensor_seen = true;
      if (!take_tensor(r, count))
        return false;
    } else {
      return false;
    }
  }
  skip_space(r);
  return tensor_seen && r->at == r->end;
}

static bool is_fingerprint(slice hex, const uint8_t fingerprint[32]) {
  if (hex.length != 64)
    return false;
  for (size_t i = 0; i < 64; i++) {
    unsigned nibble = i % 2 == 0 ? fingerprint[i / 2] >> 4u : fingerprint[i / 2] & 15u;
    if (hex.text[i] != "0123456789abcdef"[nibble])
      return false;
  }
  return true;
}

/* Finds the weights in a mapped file and checks whose they are. */
static int32_t read_weights(const rlx_model *model, const unsigned char *file, uint64_t bytes,
                            const unsigned char **weights, uint64_t *count) {
  uint64_t header = 0;
  for (unsigned i = 0; i < 8; i++)
    header |= (uint64_t)file[i] << (8 * i);
  if (header > bytes - 8)
    return RLX_E_WEIGHTS_FILE;
  reader r = {(const char *)file + 8, (const char *)file + 8 + header};
  slice fingerprint = {"", 0};
  if (!take_header(&r, &fingerprint, count) || *count != bytes - 8 - header)
    return RLX_E_WEIGHTS_FILE;
  if (!is_fingerprint(fingerprint, model->fingerprint))
    return RLX_E_WEIGHTS_MODEL;
  *weights = file + 8 + header;
  return RLX_OK;
}

/* Maps a whole regular file to read it. */
static int32_t map_file(const char *path, void **mapping, uint64_t *bytes) {
  int descriptor;
  do
    descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  while (descriptor < 0 && errno == EINTR);
  if (descriptor < 0)
    return RLX_E_OPEN;
  struct stat status;
  int32_t result = RLX_OK;
  if (fstat(descriptor, &status) != 0)
    result = RLX_E_OPEN;
  else if (!S_ISREG(status.st_mode) || status.st_size < 8)
    result = RLX_E_WEIGHTS_FILE;
  if (result == RLX_OK) {
    *bytes = (uint64_t)status.st_size;
    *mapping = mmap(NULL, (size_t)*bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (*mapping == MAP_FAILED)
      result = RLX_E_OPEN;
  }
  close(descriptor);
  return result;
}

int32_t rlx_map_weights(rlx_instance *instance, const char *path) {
  int32_t status = check_instance(instance);
  if (status != RLX_OK || path == NULL)
    return RLX_E_NULL;
  if (instance->model->weights_mode < RLX_WEIGHTS_EXTERNAL)
    return RLX_E_WEIGHTS_MODE;
  void *mapping = NULL;
  uint64_t bytes = 0, count = 0;
  status = map_file(path, &mapping, &bytes);
  if (status != RLX_OK)
    return status;
  const unsigned char *weights = NULL;
  status = read_weights(instance->model, mapping, bytes, &weights, &count);
  if (status == RLX_OK)
    status = rlx_bind_weights(instance, weights, count);
  if (status == RLX_OK && instance->model->weights_mode == RLX_WEIGHTS_EXTERNAL) {
    instance->mapping = mapping;
    instance->mapping_bytes = bytes;
  } else {
    munmap(mapping, (size_t)bytes);
  }
  return status;
}

#endif /* RLX_RT_FREESTANDING */

/* ---- Threads ----------------------------------------------------------- */

#if defined(RLX_RT_THREADS) && !defined(RLX_RT_FREESTANDING)
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

enum { MOST_THREADS = 1024, CHUNKS_PER_THREAD = 6, CHUNK_BITS = 16, SPINS = 4000 };

/* What one thread has to do of a job, which is a loop cut into equal lanes. Every
   thread goes through its own, so that it goes on where it went in the loop before,
   and what it wrote then is near; a thread whose lane is empty takes from the
   others'. A lane is cut into chunks, each half of what is left, but for the last:
   few claims, and little to wait for at the end. `ticket` holds the number of the
   job and how many of the lane's chunks nobody has claimed; a claim is a decrement
   by compare-and-swap.

   Invariant: a lane's fields change only when every chunk of the job is done: the
   caller counts its own, the others count in `done`. So a claim that succeeds proves
   that the fields that were read before it belong to the same job; a thread that
   wakes up late fails its claim, and the caller waits for chunks, never for threads. */
struct lane {
  RLX_ALIGNAS(64) _Atomic uint64_t ticket;
  _Atomic(rlx_body) body;
  _Atomic(const void *const *) table;
  _Atomic int64_t extent;
  _Atomic uint32_t chunks; /* of each lane */
  _Atomic uint32_t lanes;  /* of the job */
  uint32_t index;
  rlx_pool *pool;
};

struct rlx_pool {
  RLX_ALIGNAS(64) _Atomic uint32_t done;
  /* The caller's line: threads that wait look at `stop`, which would take it away at every loop. */
  RLX_ALIGNAS(64) atomic_flag busy;
  uint64_t job;
  RLX_ALIGNAS(64) _Atomic uint32_t sleepers;
  _Atomic bool stop;
  uint32_t threads; /* the caller included */
  uint32_t started;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  pthread_t *workers; /* behind the lanes */
  struct lane lanes[];
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static uint32_t unclaimed(uint64_t ticket) { return (uint32_t)(ticket & ((1u << CHUNK_BITS) - 1)); }

/* Where lane `i` of so many begins in 0 .. extent. */
static int64_t begin_of(int64_t extent, uint32_t lanes, uint32_t i) {
  int64_t whole = extent / lanes, rest = extent % lanes;
  return whole * i + rest * i / lanes;
}

/* Claims and runs the chunks of one lane until none is left; gives how many it ran. */
static uint32_t drain(struct lane *lane) {
  uint32_t count = 0;
  uint64_t ticket = atomic_load_explicit(&lane->ticket, memory_order_acquire);
  while (unclaimed(ticket) != 0) {
    rlx_body body = atomic_load_explicit(&lane->body, memory_order_relaxed);
    const void *const *table = atomic_load_explicit(&lane->table, memory_order_relaxed);
    int64_t extent = atomic_load_explicit(&lane->extent, memory_order_relaxed);
    uint32_t chunks = atomic_load_explicit(&lane->chunks, memory_order_relaxed);
    uint32_t lanes = atomic_load_explicit(&lane->lanes, memory_order_relaxed);
    if (!atomic_compare_exchange_weak_explicit(&lane->ticket, &ticket, ticket - 1, memory_order_acq_rel,
                                               memory_order_acquire))
      continue;
    int64_t end = begin_of(extent, lanes, lane->index + 1);
    int64_t length = end - begin_of(extent, lanes, lane->index);
    uint32_t left = unclaimed(ticket);
    body(table, end - (length >> (chunks - left)), left == 1 ? end : end - (length >> (chunks - left + 1)));
    count++;
    /* The job does not end before this chunk is counted, so that there is no more to see. */
    if (left == 1)
      break;
    ticket = atomic_load_explicit(&lane->ticket, memory_order_acquire);
  }
  return count;
}

/* Runs what is left in the other lanes; gives how many chunks. */
static uint32_t help(const struct lane *own) {
  uint32_t count = 0, lanes = atomic_load_explicit(&own->lanes, memory_order_relaxed);
  for (uint32_t i = 1; i < lanes; i++)
    count += drain(&own->pool->lanes[(own->index + i) % lanes]);
  return count;
}

static void count_done(rlx_pool *pool, uint32_t count) {
  if (count != 0)
    atomic_fetch_add_explicit(&pool->done, count, memory_order_release);
}

static bool idle(const struct lane *lane) {
  return unclaimed(atomic_load(&lane->ticket)) == 0 && !atomic_load(&lane->pool->stop);
}

static void *worker(void *argument) {
  struct lane *lane = argument;
  rlx_pool *pool = lane->pool;
  while (!atomic_load(&pool->stop)) {
    for (unsigned spin = 0; spin < SPINS && idle(lane); spin++)
      relax();
    if (idle(lane)) {
      /* Either the caller sees this sleeper, or this sleeper sees the job. */
      pthread_mutex_lock(&pool->mutex);
      atomic_fetch_add(&pool->sleepers, 1);
      while (idle(lane))
        pthread_cond_wait(&pool->wake, &pool->mutex);
      atomic_fetch_sub(&pool->sleepers, 1);
      pthread_mutex_unlock(&pool->mutex);
    }
    /* At once, as the caller may wait for it. */
    count_done(pool, drain(lane));
    count_done(pool, help(lane));
  }
  return NULL;
}

static void wake_sleepers(rlx_pool *pool) {
  if (atomic_load(&pool->sleepers) != 0) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
  }
}

void rlx_pool_parallel_for(void *argument, rlx_body body, const void *const *table, int64_t extent, int64_t grain) {
  rlx_pool *pool = argument;
  if (extent <= 0)
    return;
  int64_t grains = grain > 1 ? extent / grain : extent;
  if (grains <= 1 || pool->threads == 1 || atomic_flag_test_and_set_explicit(&pool->busy, memory_order_acquire)) {
    body(table, 0, extent);
    return;
  }
  uint32_t lanes = grains < pool->threads ? (uint32_t)grains : pool->threads;
  uint32_t each = 1;
  while (each < CHUNKS_PER_THREAD && grains / lanes >> each != 0)
    each++;
  atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
  uint64_t ticket = ++pool->job << CHUNK_BITS | each;
  for (uint32_t i = lanes; i-- > 0;) {
    struct lane *lane = &pool->lanes[i];
    atomic_store_explicit(&lane->body, body, memory_order_relaxed);
    atomic_store_explicit(&lane->table, table, memory_order_relaxed);
    atomic_store_explicit(&lane->extent, extent, memory_order_relaxed);
    atomic_store_explicit(&lane->chunks, each, memory_order_relaxed);
    atomic_store_explicit(&lane->lanes, lanes, memory_order_relaxed);
    atomic_store_explicit(&lane->ticket, ticket, memory_order_release);
  }
  /* Before `sleepers` is read, as a sleeper reads its lane after it. */
  atomic_thread_fence(memory_order_seq_cst);
  wake_sleepers(pool);
  uint32_t others = lanes * each - drain(&pool->lanes[0]);
  others -= help(&pool->lanes[0]);
  for (unsigned spin = 0; atomic_load_explicit(&pool->done, memory_order_acquire) != others; spin++)
    if (spin < SPINS)
      relax();
    else
      sched_yield();
  atomic_flag_clear_explicit(&pool->busy, memory_order_release);
}

int32_t rlx_pool_create(rlx_pool **result, uint32_t threads) {
  if (result == NULL)
    return RLX_E_NULL;
  *result = NULL;
  if (threads < 1 || threads > MOST_THREADS)
    return RLX_E_ARGUMENT;
  size_t lanes = sizeof(rlx_pool) + threads * sizeof(struct lane);
  size_t bytes = lanes + threads * sizeof(pthread_t);
  size_t align = _Alignof(rlx_pool);
  rlx_pool *pool = aligned_alloc(align, (bytes + align - 1) & ~(align - 1));
  if (pool == NULL)
    return RLX_E_MEMORY;
  memset(pool, 0, bytes);
  atomic_flag_clear(&pool->busy);
  pool->threads = threads;
  pool->workers = (pthread_t *)(void *)((unsigned char *)pool + lanes);
  for (uint32_t i = 0; i < threads; i++) {
    pool->lanes[i].index = i;
    pool->lanes[i].pool = pool;
  }
  if (pthread_mutex_init(&pool->mutex, NULL) != 0) {
    free(pool);
    return RLX_E_THREAD;
  }
  if (pthread_cond_init(&pool->wake, NULL) != 0) {
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
    return RLX_E_THREAD;
  }
  /* Signals are for the program's own threads. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (pool->started + 1 < threads &&
         pthread_create(&pool->workers[pool->started], NULL, worker, &pool->lanes[pool->started + 1]) == 0)
    pool->started++;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (pool->started + 1 < threads) {
    rlx_pool_destroy(pool);
    return RLX_E_THREAD;
  }
  *result = pool;
  return RLX_OK;
}

int32_t rlx_pool_pin(rlx_pool *pool) {
  if (pool == NULL)
    return RLX_E_NULL;
#if defined(__linux__)
  cpu_set_t allowed;
  if (pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed) != 0 ||
      (uint32_t)CPU_COUNT(&allowed) < pool->threads)
    return RLX_E_THREAD;
  for (uint32_t i = 0, processor = 0; i < pool->threads; i++, processor++) {
    while (!CPU_ISSET(processor, &allowed))
      processor++;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    pthread_t thread = i == 0 ? pthread_self() : pool->workers[i - 1];
    if (pthread_setaffinity_np(thread, sizeof one, &one) != 0)
      return RLX_E_THREAD;
  }
  return RLX_OK;
#else
  return RLX_E_THREAD;
#endif
}

int32_t rlx_pool_destroy(rlx_pool *pool) {
  if (pool == NULL)
    return RLX_OK;
  atomic_store(&pool->stop, true);
  wake_sleepers(pool);
  for (uint32_t i = 0; i < pool->started; i++)
    pthread_join(pool->workers[i], NULL);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->mutex);
  free(pool);
  return RLX_OK;
}
#endif
