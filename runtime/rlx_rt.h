/* The runtime for models compiled by rlx-aot: the descriptor that an object
   carries, and a small API over it. C11 or C++11, 64-bit targets.

   A program with one model needs four calls:

       rlx_instance mlp;
       rlx_create(&mlp, &mlp_model);
       rlx_set_input(&mlp, 0, x, sizeof x);
       rlx_run(&mlp);
       rlx_get_output(&mlp, 0, y, sizeof y);
       rlx_destroy(&mlp);

   Macros, given alike to this header and to rlx_rt.c:

     RLX_RT_FREESTANDING  no libc at all: no rlx_create, no rlx_map_weights,
                          no thread pool; rlx_create_in takes a static arena
     RLX_RT_THREADS       adds the thread pool (POSIX threads)

   Every function returns a status: RLX_OK or one of the values below. A call
   that fails changes nothing, unless its comment says otherwise. Of pointers,
   "borrows" means until the call returns, "keeps" until rlx_destroy, "fills"
   that the call writes what it points to; null is answered by RLX_E_NULL.
   "Per instance" means that calls on different instances may run at the same
   time in different threads and calls on one instance may not; "pure" that
   any number of threads may call it at any time. */
#ifndef RLX_RT_H
#define RLX_RT_H

#include <stddef.h>
#include <stdint.h>

#ifndef RLX_API
#define RLX_API
#endif

#if defined(__cplusplus) && __cplusplus >= 201703L
#define RLX_NODISCARD [[nodiscard]]
#elif defined(__GNUC__)
#define RLX_NODISCARD __attribute__((warn_unused_result))
#else
#define RLX_NODISCARD
#endif

#ifdef __cplusplus
#define RLX_ALIGNAS(bytes) alignas(bytes)
#define RLX_STATIC_ASSERT(condition, text) static_assert(condition, text)
extern "C" {
#else
#define RLX_ALIGNAS(bytes) _Alignas(bytes)
#define RLX_STATIC_ASSERT(condition, text) _Static_assert(condition, text)
#endif

/* ---- What an object carries ------------------------------------------- */

/* Raised when the layout or the meaning of a field below changes. A field that
   is added goes to the end of rlx_model and raises only `size`, the producer's
   sizeof: a newer object works with an older runtime, which does not look at
   what it does not know, and a newer runtime looks at a field only if `size`
   reaches behind it. Reserved fields are zero. */
#define RLX_ABI_VERSION 1

/* Element types, numbered as ONNX's TensorProto.DataType. */
enum {
  RLX_F32 = 1,
  RLX_U8 = 2,
  RLX_I8 = 3,
  RLX_U16 = 4,
  RLX_I16 = 5,
  RLX_I32 = 6,
  RLX_I64 = 7,
  RLX_BOOL = 9, /* one byte, 0 or 1 */
  RLX_F16 = 10,
  RLX_F64 = 11,
  RLX_U32 = 12,
  RLX_U64 = 13,
  RLX_BF16 = 16
};

/* Where a model's constant weights are. */
enum {
  RLX_WEIGHTS_NONE = 0,
  RLX_WEIGHTS_EMBEDDED = 1, /* in the object */
  RLX_WEIGHTS_EXTERNAL = 2, /* in memory that the program binds */
  RLX_WEIGHTS_ARENA = 3     /* in a slot of the arena, copied in once */
};

/* The bit of an offset that says that the tensor is the program's own memory,
   and that what is there is a pointer to it (null until it is bound). */
#define RLX_OUTSIDE (UINT64_C(1) << 63)

/* A tensor of the model's interface: dense, row-major, in the byte order of
   the target. */
typedef struct rlx_tensor {
  const char *name;    /* UTF-8 */
  const int64_t *dims; /* rank many; may be null for a scalar */
  uint32_t rank;
  uint32_t dtype;
  uint64_t offset; /* bytes from the arena's start; with RLX_OUTSIDE, to a pointer to it */
  uint64_t bytes;
} rlx_tensor;

/* An input that has in each run the value that an output had in the run before:
   both are one tensor at one offset. It is zero at first (rlx_create_in and
   rlx_reset see to it; so does a zeroed arena), and may be set as any input. */
typedef struct rlx_state {
  uint32_t input;  /* index in `inputs` */
  uint32_t output; /* index in `outputs` */
} rlx_state;

/* What the symbol <prefix>_model is. */
typedef struct rlx_model {
  uint32_t abi;  /* RLX_ABI_VERSION of the producer */
  uint32_t size; /* its sizeof(rlx_model) */
  const char *name;
  uint64_t arena_size; /* bytes, all included: context, slots, slack */
  uint64_t arena_align;
  const rlx_tensor *inputs;
  const rlx_tensor *outputs;
  const rlx_tensor *params; /* set by the program; they stay between runs */
  uint32_t input_count;
  uint32_t output_count;
  uint32_t param_count;
  uint32_t weights_mode;
  const void *weights;     /* embedded weights, or null */
  uint64_t weights_size;   /* bytes, slack included unless they are in the arena */
  uint64_t weights_offset; /* RLX_WEIGHTS_ARENA: their slot in the arena */
  uint8_t fingerprint[32]; /* of everything that the object depends on */
  int32_t (*run)(void *arena);
  /* From here on only if `size` says so. */
  int32_t (*prepare)(void *arena); /* null: a run needs no preparation */
  const rlx_state *states;
  uint32_t state_count;
  uint32_t guard;       /* bytes behind inputs, states and outputs that nobody uses (--guard); 0: none */
  uint64_t region_size; /* bytes of a second memory, slack included; 0: there is none */
} rlx_model;

/* Runs iterations begin..end of a kernel's outermost loop. */
typedef void (*rlx_body)(const void *const *table, int64_t begin, int64_t end);

/* Covers 0..extent by calls of `body`, each iteration once, and returns when
   all are done. Calls may run in parallel; a call should get `grain` iterations
   at least, as fewer are not worth a thread. The model gives the same bits
   however the range is cut. It must return (no longjmp) and may be called from
   several threads when `argument` is shared by several instances. */
typedef void (*rlx_parallel_for)(void *argument, rlx_body body, const void *const *table, int64_t extent,
                                 int64_t grain);

/* The first 64 bytes of an arena. All zero means embedded weights, one thread
   and not prepared, so a zeroed buffer is a valid arena. */
typedef struct rlx_context {
  const void *weights; /* RLX_WEIGHTS_EXTERNAL: 64-byte aligned */
  rlx_parallel_for parallel_for;
  void *parallel_argument;
  uint64_t prepared; /* set by <prefix>_prepare, and waited for by the runs of a model that has it */
  uint64_t processor; /* what the processor can do: noted by the first run of a model with several versions */
  void *region;       /* the second memory: region_size bytes, aligned to arena_align */
  uint64_t reserved[2];
} rlx_context;

/* Alignment of weights, and bytes behind the last slot and the last weight
   that arena_size and weights_size include; they may be read and mean nothing. */
#define RLX_WEIGHTS_ALIGN 64
#define RLX_SLACK 64

#if UINTPTR_MAX > 0xffffffffu
RLX_STATIC_ASSERT(sizeof(rlx_tensor) == 40, "rlx_tensor");
RLX_STATIC_ASSERT(offsetof(rlx_tensor, rank) == 16, "rlx_tensor.rank");
RLX_STATIC_ASSERT(offsetof(rlx_tensor, offset) == 24, "rlx_tensor.offset");
RLX_STATIC_ASSERT(sizeof(rlx_model) == 168, "rlx_model");
RLX_STATIC_ASSERT(offsetof(rlx_model, arena_size) == 16, "rlx_model.arena_size");
RLX_STATIC_ASSERT(offsetof(rlx_model, inputs) == 32, "rlx_model.inputs");
RLX_STATIC_ASSERT(offsetof(rlx_model, input_count) == 56, "rlx_model.input_count");
RLX_STATIC_ASSERT(offsetof(rlx_model, weights) == 72, "rlx_model.weights");
RLX_STATIC_ASSERT(offsetof(rlx_model, fingerprint) == 96, "rlx_model.fingerprint");
RLX_STATIC_ASSERT(offsetof(rlx_model, run) == 128, "rlx_model.run");
RLX_STATIC_ASSERT(offsetof(rlx_model, prepare) == 136, "rlx_model.prepare");
RLX_STATIC_ASSERT(sizeof(rlx_state) == 8, "rlx_state");
RLX_STATIC_ASSERT(offsetof(rlx_model, states) == 144, "rlx_model.states");
RLX_STATIC_ASSERT(offsetof(rlx_model, guard) == 156, "rlx_model.guard");
RLX_STATIC_ASSERT(offsetof(rlx_model, region_size) == 160, "rlx_model.region_size");
RLX_STATIC_ASSERT(offsetof(rlx_context, region) == 40, "rlx_context.region");
RLX_STATIC_ASSERT(sizeof(rlx_context) == 64, "rlx_context");
RLX_STATIC_ASSERT(offsetof(rlx_context, prepared) == 24, "rlx_context.prepared");
RLX_STATIC_ASSERT(offsetof(rlx_context, processor) == 32, "rlx_context.processor");
#endif

/* ---- Status ----------------------------------------------------------- */

/* These values never change their meaning. */
enum {
  RLX_OK = 0,
  RLX_E_NULL = 1,           /* a pointer is null */
  RLX_E_ABI = 2,            /* the object is for another version of this runtime */
  RLX_E_MODEL = 3,          /* the descriptor contradicts itself */
  RLX_E_ARENA_SIZE = 4,     /* the arena is too short */
  RLX_E_ARENA_ALIGN = 5,    /* the arena is misaligned */
  RLX_E_NAME = 6,           /* no tensor has this name */
  RLX_E_INDEX = 7,          /* no tensor has this index */
  RLX_E_BYTES = 8,          /* the byte count is not the tensor's */
  RLX_E_NO_WEIGHTS = 9,     /* weights are missing */
  RLX_E_WEIGHTS_MODE = 10,  /* the model takes no weights from outside */
  RLX_E_WEIGHTS_SIZE = 11,  /* the weights' size is not the model's */
  RLX_E_WEIGHTS_ALIGN = 12, /* the weights are misaligned */
  RLX_E_WEIGHTS_FILE = 13,  /* damaged, or no weights file */
  RLX_E_WEIGHTS_MODEL = 14, /* the weights are of another model or build */
  RLX_E_MEMORY = 15,        /* out of memory */
  RLX_E_OPEN = 16,          /* the file cannot be opened or mapped */
  RLX_E_THREAD = 17,        /* a thread cannot be started or pinned */
  RLX_E_ARGUMENT = 18,      /* an argument is out of its range */
  RLX_E_NOT_PREPARED = 19,  /* from <prefix>_run: <prefix>_prepare was not called on this arena */
  RLX_E_PROCESSOR = 20,     /* from <prefix>_run: the processor can run none of the model's versions */
  RLX_E_NO_REGION = 21,     /* the model waits for its second memory */
  RLX_E_REGION_SIZE = 22,   /* the second memory is too short */
  RLX_E_REGION_ALIGN = 23,  /* the second memory is misaligned */
  RLX_E_NOT_BOUND = 24,     /* a tensor outside of the arena is not bound */
  RLX_E_OUTSIDE = 25,       /* the tensor is outside of the arena: it is bound, not set */
  RLX_E_INSIDE = 26,        /* the tensor has its place in the arena: it is set, not bound */
  RLX_E_BOUND_ALIGN = 27,   /* the memory is not aligned to the tensor's elements */
  RLX_E_GUARD = 28,         /* somebody wrote behind a tensor */
  RLX_E_DATA = 64           /* from <prefix>_run: an index in the data is out of range */
};

/* A sentence for a status, never null. Pure. */
RLX_API const char *rlx_status_string(int32_t status);

/* ---- Instances -------------------------------------------------------- */

/* What rlx_run has learned about whether a pool makes this instance's runs
   shorter. All zero: nothing yet. */
typedef struct rlx_pace {
  uint64_t shared_ns; /* of a run whose loops the pool's threads share */
  uint64_t alone_ns;  /* of a run on one thread */
  uint64_t spent_ns;  /* by the runs of the trial on one thread */
  uint32_t turn;      /* of the trial; the last one: it is over */
  uint32_t doubts;    /* shared runs that took longer than on one thread, lately */
  uint32_t rest;      /* runs on one thread until the next trial */
  uint32_t last_rest;
} rlx_pace;

/* A model with its arena. The program may read `model` and `arena`. */
typedef struct rlx_instance {
  const rlx_model *model;
  void *arena;
  void *mapping; /* of the weights' file */
  uint64_t mapping_bytes;
  uint32_t flags;
  uint32_t reserved;
  rlx_pace pace;
} rlx_instance;

/* A static buffer for rlx_create_in: RLX_ARENA(buffer, MLP_ARENA_SIZE, MLP_ARENA_ALIGN); */
#define RLX_ARENA(name, bytes, align) RLX_ALIGNAS(align) static unsigned char name[bytes]

#ifndef RLX_RT_FREESTANDING
/* Makes an instance with an arena of its own, zeroed; the only allocation that
   there is. On Linux an arena of 2 MB or more asks for large pages (madvise), for
   at most 1 MB more memory. Fills `instance` (with zeros on failure), keeps `model`. Pure. */
RLX_NODISCARD RLX_API int32_t rlx_create(rlx_instance *instance, const rlx_model *model);
#endif

/* Makes an instance in the caller's buffer of `bytes` bytes and clears its
   context and its states, nothing else. Fills `instance` (with zeros on failure), keeps
   `model` and `arena`. Pure. */
RLX_NODISCARD RLX_API int32_t rlx_create_in(rlx_instance *instance, const rlx_model *model, void *arena,
                                            uint64_t bytes);

/* Releases what the instance owns and zeroes it; harmless on a zeroed one.
   Per instance. */
RLX_API int32_t rlx_destroy(rlx_instance *instance);

/* One inference. RLX_E_NO_WEIGHTS before weights are bound that the model
   waits for; else what the model's function returns. Calls rlx_prepare first
   when weights or a parameter were set since the last run. Neither allocates
   nor calls anything but parallel_for. Per instance. */
RLX_NODISCARD RLX_API int32_t rlx_run(rlx_instance *instance);

/* Computes now what depends on the parameters only and stays the same from run
   to run; RLX_OK if the model has nothing of that kind. Inputs keep their
   values, outputs do not. Need be called only by a program that writes to a
   parameter through a pointer that it got from rlx_param before the last run,
   or that wants its first run to be as fast as the others. Per instance. */
RLX_NODISCARD RLX_API int32_t rlx_prepare(rlx_instance *instance);

/* Gives the model its second memory (--region): `bytes` bytes, at least
   model->region_size, aligned to model->arena_align. Instances whose runs do not overlap in
   time may have it in common, unless it keeps what is prepared (--region NAME=BYTES,keep).
   RLX_E_ARGUMENT if the model has none. rlx_create allocates it with the arena. What was
   prepared is prepared anew. Keeps `memory`. Per instance. */
RLX_NODISCARD RLX_API int32_t rlx_set_region(rlx_instance *instance, void *memory, uint64_t bytes);

/* Sets all states to zero: the next run is the first of a new sequence. Inputs,
   parameters and what was prepared from them stay. Per instance. */
RLX_API int32_t rlx_reset(rlx_instance *instance);

/* ---- Tensors ---------------------------------------------------------- */

/* The index of the input, output or parameter called `name`. Borrows `model`
   and `name`, fills `index`. Pure. */
RLX_NODISCARD RLX_API int32_t rlx_find_input(const rlx_model *model, const char *name, uint32_t *index);
RLX_NODISCARD RLX_API int32_t rlx_find_output(const rlx_model *model, const char *name, uint32_t *index);
RLX_NODISCARD RLX_API int32_t rlx_find_param(const rlx_model *model, const char *name, uint32_t *index);

/* Copies a whole tensor in; `bytes` must be the tensor's. Borrows `data`, which
   does not overlap the arena (the tensor's own slot is allowed) and may be null
   if `bytes` is 0. Per instance. */
RLX_NODISCARD RLX_API int32_t rlx_set_input(rlx_instance *instance, uint32_t index, const void *data, uint64_t bytes);
RLX_NODISCARD RLX_API int32_t rlx_set_param(rlx_instance *instance, uint32_t index, const void *data, uint64_t bytes);
RLX_NODISCARD RLX_API int32_t rlx_set_input_by_name(rlx_instance *instance, const char *name, const void *data,
                                                    uint64_t bytes);
RLX_NODISCARD RLX_API int32_t rlx_set_param_by_name(rlx_instance *instance, const char *name, const void *data,
                                                    uint64_t bytes);

/* Copies a whole tensor out, likewise. Fills `data`. Per instance. */
RLX_NODISCARD RLX_API int32_t rlx_get_output(const rlx_instance *instance, uint32_t index, void *data, uint64_t bytes);
RLX_NODISCARD RLX_API int32_t rlx_get_output_by_name(const rlx_instance *instance, const char *name, void *data,
                                                     uint64_t bytes);

/* The tensor's own memory in the arena, `model->inputs[index].bytes` long, good
   until rlx_destroy. Outputs hold their values until the next rlx_run or
   rlx_prepare. A parameter counts as set when its pointer is asked for. Fills
   `data`. Per instance. */
RLX_NODISCARD RLX_API int32_t rlx_input(const rlx_instance *instance, uint32_t index, void **data);
RLX_NODISCARD RLX_API int32_t rlx_param(rlx_instance *instance, uint32_t index, void **data);
RLX_NODISCARD RLX_API int32_t rlx_output(const rlx_instance *instance, uint32_t index, const void **data);

/* Gives a tensor that is outside of the arena (its offset has RLX_OUTSIDE) its
   memory: the tensor's `bytes`, aligned to its elements, which overlaps no other of the
   model's. An input or parameter is only read. A parameter counts as set. Keeps `data`. Per
   instance. */
RLX_NODISCARD RLX_API int32_t rlx_bind_input(rlx_instance *instance, uint32_t index, const void *data, uint64_t bytes);
RLX_NODISCARD RLX_API int32_t rlx_bind_param(rlx_instance *instance, uint32_t index, const void *data, uint64_t bytes);
RLX_NODISCARD RLX_API int32_t rlx_bind_output(rlx_instance *instance, uint32_t index, void *data, uint64_t bytes);

/* ---- Guards ----------------------------------------------------------- */

/* A model that was built with --guard N has N bytes behind every input, state and
   output in the arena that neither the model nor any other tensor uses while the
   tensor holds something. The runtime fills them with RLX_GUARD, and a program that
   writes behind the end of a tensor is found by looking at them: after it has set
   the inputs, after a run, whenever it suspects itself.

   rlx_create and rlx_create_in fill all of them, rlx_run and rlx_prepare those behind
   outputs again, whose memory others use until the outputs are written. Where others
   use the arena between runs (several models in one), or a run may overwrite its
   inputs (--overwrite-inputs), the program fills them again. */
#define RLX_GUARD 0xA5

/* Fills all guards; RLX_OK if the model has none. Per instance. */
RLX_API int32_t rlx_fill_guards(rlx_instance *instance);

/* Looks for a byte behind a tensor that is not RLX_GUARD: RLX_E_GUARD, and `*tensor`
   is the first tensor that was written over its end. RLX_E_ARGUMENT if the model has no
   guards. `tensor` may be null; else fills it (with null where all is right). Per
   instance. */
RLX_NODISCARD RLX_API int32_t rlx_check_guards(const rlx_instance *instance, const rlx_tensor **tensor);

/* ---- Weights ---------------------------------------------------------- */

/* Binds packed weights that the program has in memory: the bytes of the tensor
   "weights" of the file that the compiler wrote. `bytes` must be the model's
   weights_size. RLX_WEIGHTS_EXTERNAL keeps `weights`, which is aligned to
   RLX_WEIGHTS_ALIGN; RLX_WEIGHTS_ARENA borrows it and copies. That they are this
   model's is for the caller to know. Per instance. */
RLX_NODISCARD RLX_API int32_t rlx_bind_weights(rlx_instance *instance, const void *weights, uint64_t bytes);

#ifndef RLX_RT_FREESTANDING
/* Binds the weights in a file that the compiler wrote: safetensors with one U8
   tensor "weights" and, in its metadata, the model's fingerprint. The file is
   mapped, and must not be written or truncated until rlx_destroy (with
   RLX_WEIGHTS_ARENA: until this returns). Borrows `path`. Per instance. */
RLX_NODISCARD RLX_API int32_t rlx_map_weights(rlx_instance *instance, const char *path);
#endif

/* ---- Threads ---------------------------------------------------------- */

/* Lets runs of this instance share their loops through `parallel_for`; null for
   one thread. Keeps both pointers; `argument` may be null. Per instance. */
RLX_NODISCARD RLX_API int32_t rlx_set_parallel(rlx_instance *instance, rlx_parallel_for parallel_for, void *argument);

#if defined(RLX_RT_THREADS) && !defined(RLX_RT_FREESTANDING)
typedef struct rlx_pool rlx_pool;

/* Starts threads - 1 threads, that spin for some microseconds after work and
   then sleep; the calling thread is the last one. 1 to 1024 threads. Fills
   `pool`. Pure. */
RLX_NODISCARD RLX_API int32_t rlx_pool_create(rlx_pool **pool, uint32_t threads);

/* Pins every thread, the calling one too, to a processor of its own: the first
   ones of those that the calling thread may run on. RLX_E_THREAD if there are
   fewer, or the system has no such call. Per pool. */
RLX_NODISCARD RLX_API int32_t rlx_pool_pin(rlx_pool *pool);

/* Ends the threads; no run may be using the pool. Null is allowed. */
RLX_API int32_t rlx_pool_destroy(rlx_pool *pool);

/* An rlx_parallel_for whose argument is a pool:
   rlx_set_parallel(&instance, rlx_pool_parallel_for, pool). A pool serves any
   number of instances; one that finds it busy runs its loop by itself. With this
   one rlx_run watches the time of the runs: where they take longer than on one
   thread (short loops, and processors that are far apart or have other work)
   they go on with one, and try again from time to time. Pure. */
RLX_API void rlx_pool_parallel_for(void *pool, rlx_body body, const void *const *table, int64_t extent, int64_t grain);
#endif

#ifdef __cplusplus
}
#endif

#endif
