/* Every function of the runtime, with what is right and with what is wrong.
   Allocation, mapping and thread creation are made to fail through the linker's
   --wrap. Prints the line of the first expectation that does not hold. The
   argument is a folder for files. */
#include "fake.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECT(condition)                                                                                              \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                  \
      exit(1);                                                                                                         \
    }                                                                                                                  \
  } while (0)

RLX_ARENA(buffer, FAKE_ARENA_SIZE + 64, 64);

static const float x[6] = {1, 2, 3, 4, 5, 6};
static const float p[3] = {10, 20, 30};
static const float expected[6] = {12, 26, 45, 18, 35, 60};

/* Inputs in, one run, and the outputs as they must be. */
static void expect_inference(rlx_instance *instance) {
  float y[6];
  unsigned char negate = 0;
  EXPECT(rlx_set_input(instance, 0, x, sizeof x) == RLX_OK);
  EXPECT(rlx_set_input_by_name(instance, "negate", &negate, 1) == RLX_OK);
  EXPECT(rlx_set_param(instance, 0, p, sizeof p) == RLX_OK);
  EXPECT(rlx_run(instance) == RLX_OK);
  memset(y, 0xff, sizeof y);
  EXPECT(rlx_get_output(instance, 0, y, sizeof y) == RLX_OK);
  EXPECT(memcmp(y, expected, sizeof y) == 0);
  negate = 1;
  EXPECT(rlx_set_input(instance, 1, &negate, 1) == RLX_OK);
  EXPECT(rlx_run(instance) == RLX_OK);
  EXPECT(rlx_get_output_by_name(instance, "y", y, sizeof y) == RLX_OK);
  for (int i = 0; i < 6; i++)
    EXPECT(fabsf(y[i] + expected[i]) < 1e-6f);
}

static void test_descriptors(void) {
  rlx_instance instance;
  rlx_model m = fake_model;
#define REFUSED(status) EXPECT(rlx_create_in(&instance, &m, buffer, sizeof buffer) == (status) && instance.model == NULL)
#define WITH(field, value, status)                                                                                     \
  m = fake_model;                                                                                                      \
  m.field = value;                                                                                                     \
  REFUSED(status)
  WITH(abi, RLX_ABI_VERSION + 1, RLX_E_ABI);
  WITH(abi, 0, RLX_E_ABI);
  WITH(size, offsetof(rlx_model, prepare) - 1, RLX_E_ABI);
  WITH(size, 0, RLX_E_ABI);
  WITH(run, NULL, RLX_E_MODEL);
  WITH(arena_align, 0, RLX_E_MODEL);
  WITH(arena_align, 4, RLX_E_MODEL);
  WITH(arena_align, 96, RLX_E_MODEL);
  WITH(arena_size, 63, RLX_E_MODEL);
  WITH(arena_size, UINT64_MAX, RLX_E_MODEL);
  WITH(arena_size, FAKE_Y + 23, RLX_E_MODEL);
  WITH(inputs, NULL, RLX_E_MODEL);
  WITH(weights_mode, 4, RLX_E_MODEL);
  WITH(weights, NULL, RLX_E_MODEL);
  rlx_tensor t = fake_model.params[0];
#define WITH_TENSOR(field, value)                                                                                      \
  t = fake_model.params[0];                                                                                            \
  t.field = value;                                                                                                     \
  WITH(params, &t, RLX_E_MODEL)
  WITH_TENSOR(name, NULL);
  WITH_TENSOR(dims, NULL);
  WITH_TENSOR(offset, 63);
  WITH_TENSOR(offset, UINT64_MAX);
  WITH_TENSOR(bytes, UINT64_MAX - FAKE_P);
  m = fake_arena_model;
  m.weights_offset = FAKE_ARENA_SIZE - FAKE_WEIGHTS_SIZE + 1;
  REFUSED(RLX_E_MODEL);
  m.weights_offset = 32;
  REFUSED(RLX_E_MODEL);

  /* A newer object, whose descriptor has grown, is taken. */
  m = fake_model;
  m.size = sizeof(rlx_model) + 8;
  EXPECT(rlx_create_in(&instance, &m, buffer, sizeof buffer) == RLX_OK);

  /* An older one says nothing about what was added since. */
  m = fake_prepared_model;
  m.size = offsetof(rlx_model, prepare);
  EXPECT(rlx_create_in(&instance, &m, buffer, sizeof buffer) == RLX_OK);
  EXPECT(rlx_prepare(&instance) == RLX_OK);
  EXPECT(rlx_run(&instance) == RLX_E_NOT_PREPARED);

  uint32_t index = 7;
  m.abi = 2;
  EXPECT(rlx_find_input(&m, "x", &index) == RLX_E_ABI && index == 7);
  EXPECT(rlx_find_output(&m, "y", &index) == RLX_E_ABI && index == 7);
  EXPECT(rlx_find_param(&m, "p", &index) == RLX_E_ABI && index == 7);
}

static void test_arena(void) {
  rlx_instance instance;
  EXPECT(rlx_create_in(NULL, &fake_model, buffer, sizeof buffer) == RLX_E_NULL);
  EXPECT(rlx_create_in(&instance, NULL, buffer, sizeof buffer) == RLX_E_NULL);
  EXPECT(rlx_create_in(&instance, &fake_model, NULL, sizeof buffer) == RLX_E_NULL);
  for (unsigned i = 1; i < 64; i++)
    EXPECT(rlx_create_in(&instance, &fake_model, buffer + i, FAKE_ARENA_SIZE) == RLX_E_ARENA_ALIGN);
  for (unsigned i = 0; i < FAKE_ARENA_SIZE; i++)
    EXPECT(rlx_create_in(&instance, &fake_model, buffer, i) == RLX_E_ARENA_SIZE);
  EXPECT(instance.model == NULL && instance.arena == NULL);
  EXPECT(rlx_destroy(&instance) == RLX_OK);

  /* Only the context is cleared. */
  memset(buffer, 0xff, sizeof buffer);
  EXPECT(rlx_create_in(&instance, &fake_model, buffer, FAKE_ARENA_SIZE) == RLX_OK);
  for (unsigned i = 0; i < sizeof buffer; i++)
    EXPECT(buffer[i] == (i < sizeof(rlx_context) ? 0 : 0xff));
  expect_inference(&instance);
  for (unsigned i = FAKE_ARENA_SIZE; i < sizeof buffer; i++)
    EXPECT(buffer[i] == 0xff);
  EXPECT(rlx_destroy(&instance) == RLX_OK);
  EXPECT(rlx_destroy(&instance) == RLX_OK);
  EXPECT(rlx_destroy(NULL) == RLX_E_NULL);
  EXPECT(rlx_run(&instance) == RLX_E_NULL);
  EXPECT(rlx_run(NULL) == RLX_E_NULL);
}

static float first_output(rlx_instance *instance) {
  const void *y = NULL;
  EXPECT(rlx_run(instance) == RLX_OK);
  EXPECT(rlx_output(instance, 0, &y) == RLX_OK);
  float value;
  memcpy(&value, y, sizeof value);
  return value;
}

static void test_prepared(void) {
  rlx_instance instance;
  float other[3] = {100, 0, 0};
  void *data = NULL;
  EXPECT(rlx_create_in(&instance, &fake_prepared_model, buffer, sizeof buffer) == RLX_OK);
  EXPECT(fake_prepared_model.run(buffer) == RLX_E_NOT_PREPARED);
  expect_inference(&instance);
  unsigned char negate = 0;
  EXPECT(rlx_set_input(&instance, 1, &negate, 1) == RLX_OK);
  /* A parameter that is set is prepared again, and only then. */
  EXPECT(rlx_set_param(&instance, 0, other, sizeof other) == RLX_OK);
  EXPECT(first_output(&instance) == 102.0f);
  EXPECT(rlx_param(&instance, 0, &data) == RLX_OK);
  memcpy(data, p, sizeof p);
  EXPECT(first_output(&instance) == 12.0f);
  memcpy(data, other, sizeof other);
  EXPECT(first_output(&instance) == 12.0f);
  EXPECT(rlx_prepare(&instance) == RLX_OK);
  EXPECT(first_output(&instance) == 102.0f);
  EXPECT(rlx_prepare(NULL) == RLX_E_NULL);
  EXPECT(rlx_create_in(&instance, &fake_external_model, buffer, sizeof buffer) == RLX_OK);
  EXPECT(rlx_prepare(&instance) == RLX_E_NO_WEIGHTS);
}

static void test_states(void) {
  rlx_instance instance;
  static const rlx_state states[] = {{0, 0}};
  rlx_model m = fake_model;
  m.states = states;
  m.state_count = 1;
  memset(buffer, 0xff, sizeof buffer);
  EXPECT(rlx_create_in(&instance, &m, buffer, FAKE_ARENA_SIZE) == RLX_OK);
  for (unsigned i = 0; i < sizeof buffer; i++)
    EXPECT(buffer[i] == (i < sizeof(rlx_context) || (i >= FAKE_X && i < FAKE_X + 24) ? 0 : 0xff));
  expect_inference(&instance);
  EXPECT(memcmp(buffer + FAKE_X, x, sizeof x) == 0);
  EXPECT(rlx_reset(&instance) == RLX_OK);
  for (unsigned i = FAKE_X; i < FAKE_X + 24; i++)
    EXPECT(buffer[i] == 0);
  EXPECT(rlx_reset(NULL) == RLX_E_NULL);
  m.states = NULL;
  EXPECT(rlx_create_in(&instance, &m, buffer, FAKE_ARENA_SIZE) == RLX_E_MODEL);
  static const rlx_state wrong[] = {{2, 0}, {0, 2}, {0, 1}};
  for (unsigned i = 0; i < 3; i++) {
    m.states = &wrong[i];
    EXPECT(rlx_create_in(&instance, &m, buffer, FAKE_ARENA_SIZE) == RLX_E_MODEL);
  }
  /* An older object has none. */
  m.size = offsetof(rlx_model, states);
  EXPECT(rlx_create_in(&instance, &m, buffer, FAKE_ARENA_SIZE) == RLX_OK);
}

static void test_region(void) {
  rlx_instance instance;
  rlx_model m = fake_model;
  RLX_ALIGNAS(64) unsigned char region[192];
  EXPECT(rlx_create_in(&instance, &m, buffer, FAKE_ARENA_SIZE) == RLX_OK);
  EXPECT(rlx_set_region(&instance, region, sizeof region) == RLX_E_ARGUMENT);
  m.region_size = 128;
  EXPECT(rlx_set_region(NULL, region, 128) == RLX_E_NULL);
  EXPECT(rlx_set_region(&instance, NULL, 128) == RLX_E_NULL);
  EXPECT(rlx_set_region(&instance, region + 32, 160) == RLX_E_REGION_ALIGN);
  EXPECT(rlx_set_region(&instance, region, 127) == RLX_E_REGION_SIZE);
  EXPECT(((rlx_context *)instance.arena)->region == NULL);
  EXPECT(rlx_set_region(&instance, region + 64, 128) == RLX_OK);
  EXPECT(((rlx_context *)instance.arena)->region == region + 64);
#ifndef RLX_RT_FREESTANDING
  EXPECT(rlx_create(&instance, &m) == RLX_OK);
  unsigned char *first = ((rlx_context *)instance.arena)->region;
  EXPECT(first != NULL && (uintptr_t)first % 64 == 0);
  memset(first, 1, 128);
  expect_inference(&instance);
  EXPECT(rlx_destroy(&instance) == RLX_OK);
#endif
  m.region_size = UINT64_MAX;
  EXPECT(rlx_create_in(&instance, &m, buffer, FAKE_ARENA_SIZE) == RLX_E_MODEL);
}

static void test_tensors(void) {
  rlx_instance instance;
  float y[7] = {0};
  uint32_t index = 7;
  EXPECT(rlx_create_in(&instance, &fake_model, buffer, sizeof buffer) == RLX_OK);
  EXPECT(rlx_find_input(&fake_model, "negate", &index) == RLX_OK && index == 1);
  EXPECT(rlx_find_output(&fake_model, "y", &index) == RLX_OK && index == 0);
  EXPECT(rlx_find_output(&fake_model, "empty", &index) == RLX_OK && index == 1);
  index = 7;
  EXPECT(rlx_find_input(&fake_model, "y", &index) == RLX_E_NAME && index == 7);
  EXPECT(rlx_find_input(&fake_model, "", &index) == RLX_E_NAME);
  EXPECT(rlx_find_input(&fake_model, "x ", &index) == RLX_E_NAME);
  EXPECT(rlx_find_param(&fake_model, "x", &index) == RLX_E_NAME);
  EXPECT(rlx_find_input(&fake_model, NULL, &index) == RLX_E_NULL);
  EXPECT(rlx_find_input(&fake_model, "x", NULL) == RLX_E_NULL);
  EXPECT(rlx_find_input(NULL, "x", &index) == RLX_E_NULL);

  /* A refused call writes nothing. */
  memset(buffer + FAKE_X, 0xee, 64);
  EXPECT(rlx_set_input(&instance, 2, x, sizeof x) == RLX_E_INDEX);
  EXPECT(rlx_set_input(&instance, UINT32_MAX, x, sizeof x) == RLX_E_INDEX);
  EXPECT(rlx_set_input(&instance, 0, x, sizeof x - 1) == RLX_E_BYTES);
  EXPECT(rlx_set_input(&instance, 0, x, sizeof x + 1) == RLX_E_BYTES);
  EXPECT(rlx_set_input(&instance, 0, x, 0) == RLX_E_BYTES);
  EXPECT(rlx_set_input(&instance, 0, NULL, sizeof x) == RLX_E_NULL);
  EXPECT(rlx_set_input(NULL, 0, x, sizeof x) == RLX_E_NULL);
  EXPECT(rlx_set_input_by_name(&instance, "z", x, sizeof x) == RLX_E_NAME);
  EXPECT(rlx_set_input_by_name(&instance, NULL, x, sizeof x) == RLX_E_NULL);
  EXPECT(rlx_set_input_by_name(NULL, "x", x, sizeof x) == RLX_E_NULL);
  for (unsigned i = 0; i < 64; i++)
    EXPECT(buffer[FAKE_X + i] == 0xee);
  EXPECT(rlx_set_param(&instance, 1, p, sizeof p) == RLX_E_INDEX);
  EXPECT(rlx_set_param(&instance, 0, p, 4) == RLX_E_BYTES);
  EXPECT(rlx_set_param(NULL, 0, p, 4) == RLX_E_NULL);
  EXPECT(rlx_set_param_by_name(&instance, "x", p, sizeof p) == RLX_E_NAME);
  EXPECT(rlx_set_param_by_name(&instance, "p", p, sizeof p) == RLX_OK);
  EXPECT(rlx_get_output(&instance, 2, y, 24) == RLX_E_INDEX);
  EXPECT(rlx_get_output(&instance, 0, y, 28) == RLX_E_BYTES);
  EXPECT(rlx_get_output(&instance, 0, NULL, 24) == RLX_E_NULL);
  EXPECT(rlx_get_output(NULL, 0, y, 24) == RLX_E_NULL);
  EXPECT(rlx_get_output_by_name(&instance, "x", y, 24) == RLX_E_NAME);
  EXPECT(rlx_get_output(&instance, 1, NULL, 0) == RLX_OK);
  for (unsigned i = 0; i < 7; i++)
    EXPECT(y[i] == 0.0f);

  /* Zero-copy: the slots themselves. */
  void *in = NULL;
  const void *out = NULL;
  EXPECT(rlx_input(&instance, 0, &in) == RLX_OK && in == buffer + FAKE_X);
  EXPECT(rlx_input(&instance, 2, &in) == RLX_E_INDEX);
  EXPECT(rlx_input(&instance, 0, NULL) == RLX_E_NULL);
  EXPECT(rlx_input(NULL, 0, &in) == RLX_E_NULL);
  EXPECT(rlx_set_input(&instance, 0, in, sizeof x) == RLX_OK);
  EXPECT(rlx_param(&instance, 0, &in) == RLX_OK && in == buffer + FAKE_P);
  EXPECT(rlx_param(&instance, 1, &in) == RLX_E_INDEX);
  EXPECT(rlx_param(&instance, 0, NULL) == RLX_E_NULL);
  EXPECT(rlx_output(&instance, 0, &out) == RLX_OK && out == buffer + FAKE_Y);
  EXPECT(rlx_output(&instance, 2, &out) == RLX_E_INDEX);
  EXPECT(rlx_output(&instance, 0, NULL) == RLX_E_NULL);

  /* What the model returns is handed on. */
  unsigned char negate = 2;
  EXPECT(rlx_set_input(&instance, 1, &negate, 1) == RLX_OK);
  EXPECT(rlx_run(&instance) == RLX_E_DATA);
}

static void test_bound_weights(void) {
  rlx_instance instance;
  RLX_ALIGNAS(64) static unsigned char weights[FAKE_WEIGHTS_SIZE + 64];
  memcpy(weights, fake_weights, FAKE_WEIGHTS_SIZE);

  EXPECT(rlx_create_in(&instance, &fake_external_model, buffer, sizeof buffer) == RLX_OK);
  EXPECT(rlx_run(&instance) == RLX_E_NO_WEIGHTS);
  EXPECT(rlx_bind_weights(NULL, weights, FAKE_WEIGHTS_SIZE) == RLX_E_NULL);
  EXPECT(rlx_bind_weights(&instance, NULL, FAKE_WEIGHTS_SIZE) == RLX_E_NULL);
  EXPECT(rlx_bind_weights(&instance, weights, FAKE_WEIGHTS_SIZE - 1) == RLX_E_WEIGHTS_SIZE);
  EXPECT(rlx_bind_weights(&instance, weights, FAKE_WEIGHTS_SIZE + 1) == RLX_E_WEIGHTS_SIZE);
  for (unsigned i = 1; i < 64; i++)
    EXPECT(rlx_bind_weights(&instance, weights + i, FAKE_WEIGHTS_SIZE) == RLX_E_WEIGHTS_ALIGN);
  EXPECT(rlx_run(&instance) == RLX_E_NO_WEIGHTS);
  EXPECT(rlx_bind_weights(&instance, weights, FAKE_WEIGHTS_SIZE) == RLX_OK);
  expect_inference(&instance);
  EXPECT(rlx_destroy(&instance) == RLX_OK);

  /* Copied into the arena, so neither aligned nor kept. */
  EXPECT(rlx_create_in(&instance, &fake_arena_model, buffer, sizeof buffer) == RLX_OK);
  EXPECT(rlx_run(&instance) == RLX_E_NO_WEIGHTS);
  memmove(weights + 1, weights, FAKE_WEIGHTS_SIZE);
  EXPECT(rlx_bind_weights(&instance, weights + 1, FAKE_WEIGHTS_SIZE) == RLX_OK);
  memset(weights, 0xff, sizeof weights);
  expect_inference(&instance);
  EXPECT(rlx_destroy(&instance) == RLX_OK);

  EXPECT(rlx_create_in(&instance, &fake_model, buffer, sizeof buffer) == RLX_OK);
  EXPECT(rlx_bind_weights(&instance, weights, FAKE_WEIGHTS_SIZE) == RLX_E_WEIGHTS_MODE);
  EXPECT(rlx_create_in(&instance, &fake_plain_model, buffer, sizeof buffer) == RLX_OK);
  EXPECT(rlx_bind_weights(&instance, weights, 0) == RLX_E_WEIGHTS_MODE);
  expect_inference(&instance);
}

static int calls;

static void backwards(void *argument, rlx_body body, const void *const *table, int64_t extent, int64_t grain) {
  EXPECT(argument == &calls && grain == 1);
  for (int64_t i = extent; i-- > 0; calls++)
    body(table, i, i + 1);
}

static void test_parallel(void) {
  rlx_instance instance;
  EXPECT(rlx_create_in(&instance, &fake_model, buffer, sizeof buffer) == RLX_OK);
  EXPECT(rlx_set_parallel(NULL, backwards, &calls) == RLX_E_NULL);
  EXPECT(rlx_set_parallel(&instance, backwards, &calls) == RLX_OK);
  expect_inference(&instance);
  EXPECT(calls == 2 * FAKE_ROWS);
  EXPECT(rlx_set_parallel(&instance, NULL, NULL) == RLX_OK);
  expect_inference(&instance);
  EXPECT(calls == 2 * FAKE_ROWS);
}

static void test_status_strings(void) {
  const char *unknown = rlx_status_string(-1);
  for (int32_t i = 0; i <= 255; i++) {
    bool known = i <= RLX_E_GUARD || i == RLX_E_DATA;
    EXPECT((strcmp(rlx_status_string(i), unknown) != 0) == known);
    for (int32_t k = 0; known && k < i; k++)
      EXPECT(strcmp(rlx_status_string(i), rlx_status_string(k)) != 0);
  }
}

#ifndef RLX_RT_FREESTANDING

/* Countdowns to the call that fails; 0 for none. */
static int allocations, mappings;

static bool fails(int *countdown) { return *countdown != 0 && --*countdown == 0; }

void *__real_aligned_alloc(size_t align, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes) {
  /* The sanitizers abort at a size that nobody has. */
  return fails(&allocations) || bytes >> 40 != 0 ? NULL : __real_aligned_alloc(align, bytes);
}

void *__real_mmap(void *address, size_t bytes, int protection, int flags, int file, long offset);
void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int file, long offset);
void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int file, long offset) {
  return fails(&mappings) ? (void *)-1 : __real_mmap(address, bytes, protection, flags, file, offset);
}

static void test_own_arena(void) {
  rlx_instance instance;
  EXPECT(rlx_create(NULL, &fake_model) == RLX_E_NULL);
  EXPECT(rlx_create(&instance, NULL) == RLX_E_NULL && instance.model == NULL);
  rlx_model m = fake_model;
  m.abi = 9;
  EXPECT(rlx_create(&instance, &m) == RLX_E_ABI);
  allocations = 1;
  EXPECT(rlx_create(&instance, &fake_model) == RLX_E_MEMORY && instance.arena == NULL);
  EXPECT(rlx_destroy(&instance) == RLX_OK);
  m = fake_model;
  m.arena_size = UINT64_C(1) << 62;
  EXPECT(rlx_create(&instance, &m) == RLX_E_MEMORY);
  for (uint64_t align = 8; align <= 1 << 16; align *= 4) {
    m = fake_model;
    m.arena_align = align;
    EXPECT(rlx_create(&instance, &m) == RLX_OK && (uintptr_t)instance.arena % align == 0);
    for (unsigned i = 0; i < FAKE_ARENA_SIZE; i++)
      EXPECT(((unsigned char *)instance.arena)[i] == 0);
    expect_inference(&instance);
    EXPECT(rlx_destroy(&instance) == RLX_OK && instance.arena == NULL);
  }
  /* Around whole and half large pages, and where there are none of them. */
  const uint64_t sizes[] = {2 << 20, (3 << 20) - 64, 3 << 20, (3 << 20) + 64};
  for (unsigned i = 0; i < 5; i++) {
    m = fake_model;
    m.arena_size = sizes[i % 4];
    allocations = i == 4;
    EXPECT(rlx_create(&instance, &m) == RLX_OK && (uintptr_t)instance.arena % m.arena_align == 0);
    for (uint64_t at = 0; at < m.arena_size; at++)
      EXPECT(((unsigned char *)instance.arena)[at] == 0);
    expect_inference(&instance);
    EXPECT(rlx_destroy(&instance) == RLX_OK);
  }
}

static char path[4096];

static void write_file(const void *data, size_t bytes) {
  FILE *file = fopen(path, "wb");
  EXPECT(file != NULL && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0);
}

#define PRINT "001fa5ff00000000000000000000000000000000000000000000000000000000"
#define TENSOR "\"weights\":{\"dtype\":\"U8\",\"shape\":[128],\"data_offsets\":[0,128]}"

/* Writes a weights file with this header, padded so that the weights begin at a multiple of 64, plus `shift`. */
static size_t write_weights(const char *json, size_t shift) {
  static unsigned char file[1024];
  size_t length = strlen(json);
  size_t header = (8 + length + 63) / 64 * 64 - 8 + shift;
  for (unsigned i = 0; i < 8; i++)
    file[i] = (unsigned char)(header >> (8 * i));
  memset(file + 8, ' ', header);
  memcpy(file + 8, json, length);
  memcpy(file + 8 + header, fake_weights, FAKE_WEIGHTS_SIZE);
  write_file(file, 8 + header + FAKE_WEIGHTS_SIZE);
  return 8 + header + FAKE_WEIGHTS_SIZE;
}

static void test_mapped_weights(const char *folder) {
  static const char right[] = "{\"__metadata__\":{\"fingerprint\":\"" PRINT "\"}," TENSOR "}";
  static const struct {
    const char *json;
    int32_t status;
  } headers[] = {
      {right, RLX_OK},
      {" { " TENSOR " , \"__metadata__\" : { \"a\\\"}\" : \"\\u0041\" , \"fingerprint\" : \"" PRINT "\" } } ", RLX_OK},
      {"{\"__metadata__\":{\"fingerprint\":\"" PRINT "\"},\"weights\":{\"data_offsets\":[0,128],\"shape\":[128],"
       "\"dtype\":\"U8\"}}",
       RLX_OK},
      {"{" TENSOR "}", RLX_E_WEIGHTS_MODEL},
      {"{\"__metadata__\":{}," TENSOR "}", RLX_E_WEIGHTS_MODEL},
      {"{\"__metadata__\":{\"fingerprint\":\"\"}," TENSOR "}", RLX_E_WEIGHTS_MODEL},
      {"{\"__metadata__\":{\"fingerprint\":\"101fa5ff00000000000000000000000000000000000000000000000000000000\"}," TENSOR
       "}",
       RLX_E_WEIGHTS_MODEL},
      {"", RLX_E_WEIGHTS_FILE},
      {"{}", RLX_E_WEIGHTS_FILE},
      {"[]", RLX_E_WEIGHTS_FILE},
      {"{" TENSOR "}}", RLX_E_WEIGHTS_FILE},
      {"{" TENSOR ",}", RLX_E_WEIGHTS_FILE},
      {"{" TENSOR "," TENSOR "}", RLX_E_WEIGHTS_FILE},
      {"{" TENSOR ",\"more\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[128,128]}}", RLX_E_WEIGHTS_FILE},
      {"{\"weights\":{\"dtype\":\"I8\",\"shape\":[128],\"data_offsets\":[0,128]}}", RLX_E_WEIGHTS_FILE},
      {"{\"weights\":{\"dtype\":\"U8\",\"shape\":[2,64],\"data_offsets\":[0,128]}}", RLX_E_WEIGHTS_FILE},
      {"{\"weights\":{\"dtype\":\"U8\",\"shape\":[127],\"data_offsets\":[0,127]}}", RLX_E_WEIGHTS_FILE},
      {"{\"weights\":{\"dtype\":\"U8\",\"shape\":[128],\"data_offsets\":[1,129]}}", RLX_E_WEIGHTS_FILE},
      {"{\"weights\":{\"dtype\":\"U8\",\"shape\":[128]}}", RLX_E_WEIGHTS_FILE},
      {"{\"weights\":{\"dtype\":\"U8\",\"shape\":[18446744073709551744],\"data_offsets\":[0,128]}}",
       RLX_E_WEIGHTS_FILE},
      {"{\"weights\":{\"dtype\":\"U8\",\"shape\":[-128],\"data_offsets\":[0,128]}}", RLX_E_WEIGHTS_FILE},
  };
  rlx_instance instance;
  EXPECT((size_t)snprintf(path, sizeof path, "%s/missing.safetensors", folder) < sizeof path);
  EXPECT(rlx_create(&instance, &fake_external_model) == RLX_OK);
  EXPECT(rlx_map_weights(NULL, path) == RLX_E_NULL);
  EXPECT(rlx_map_weights(&instance, NULL) == RLX_E_NULL);
  EXPECT(rlx_map_weights(&instance, path) == RLX_E_OPEN);
  EXPECT(rlx_map_weights(&instance, "") == RLX_E_OPEN);
  EXPECT(rlx_map_weights(&instance, folder) == RLX_E_WEIGHTS_FILE);
  EXPECT(rlx_map_weights(&instance, "/dev/zero") == RLX_E_WEIGHTS_FILE);
  EXPECT((size_t)snprintf(path, sizeof path, "%s/weights.safetensors", folder) < sizeof path);

  /* Cut at every byte; then one byte too many. */
  size_t bytes = write_weights(right, 0);
  char *whole = malloc(bytes + 1);
  FILE *file = fopen(path, "rb");
  EXPECT(whole != NULL && file != NULL && fread(whole, 1, bytes, file) == bytes);
  fclose(file);
  whole[bytes] = 0;
  for (size_t i = 0; i <= bytes + 1; i++)
    if (i != bytes) {
      write_file(whole, i);
      EXPECT(rlx_map_weights(&instance, path) == RLX_E_WEIGHTS_FILE);
    }
  free(whole);
  write_weights(right, 8);
  EXPECT(rlx_map_weights(&instance, path) == RLX_E_WEIGHTS_ALIGN);
  write_file("\377\377\377\377\377\377\377\377{}", 10);
  EXPECT(rlx_map_weights(&instance, path) == RLX_E_WEIGHTS_FILE);
  EXPECT(rlx_run(&instance) == RLX_E_NO_WEIGHTS);
  EXPECT(rlx_destroy(&instance) == RLX_OK);

  for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
    write_weights(headers[i].json, 0);
    EXPECT(rlx_create(&instance, &fake_external_model) == RLX_OK);
    if (rlx_map_weights(&instance, path) != headers[i].status) {
      fprintf(stderr, "header %zu: %s\n", i, headers[i].json);
      exit(1);
    }
    if (headers[i].status == RLX_OK) {
      expect_inference(&instance);
      EXPECT(rlx_map_weights(&instance, path) == RLX_OK);
      expect_inference(&instance);
      EXPECT(rlx_bind_weights(&instance, fake_weights, FAKE_WEIGHTS_SIZE) == RLX_OK && instance.mapping == NULL);
      expect_inference(&instance);
    } else {
      EXPECT(rlx_run(&instance) == RLX_E_NO_WEIGHTS && instance.mapping == NULL);
    }
    EXPECT(rlx_destroy(&instance) == RLX_OK);
  }

  write_weights(right, 0);
  rlx_model m = fake_external_model;
  m.weights_size = 64;
  EXPECT(rlx_create(&instance, &m) == RLX_OK);
  EXPECT(rlx_map_weights(&instance, path) == RLX_E_WEIGHTS_SIZE);
  EXPECT(rlx_destroy(&instance) == RLX_OK);
  EXPECT(rlx_create(&instance, &fake_external_model) == RLX_OK);
  mappings = 1;
  EXPECT(rlx_map_weights(&instance, path) == RLX_E_OPEN);
  EXPECT(rlx_destroy(&instance) == RLX_OK);
  EXPECT(rlx_create(&instance, &fake_arena_model) == RLX_OK);
  EXPECT(rlx_map_weights(&instance, path) == RLX_OK && instance.mapping == NULL);
  expect_inference(&instance);
  EXPECT(rlx_destroy(&instance) == RLX_OK);
  EXPECT(rlx_create(&instance, &fake_model) == RLX_OK);
  EXPECT(rlx_map_weights(&instance, path) == RLX_E_WEIGHTS_MODE);
  EXPECT(rlx_destroy(&instance) == RLX_OK);
}
#endif

#ifdef RLX_RT_THREADS
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static int threads_started;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
  return fails(&threads_started) ? 11 : __real_pthread_create(thread, attributes, start, argument);
}

enum { MOST = 10000 };

/* How often each iteration ran. */
static atomic_int counts[2][MOST];

static void count(const void *const *table, int64_t begin, int64_t end) {
  atomic_int *row = (atomic_int *)(uintptr_t)table[0];
  for (int64_t i = begin; i < end; i++)
    atomic_fetch_add_explicit(&row[i], 1, memory_order_relaxed);
}

static void nested(const void *const *table, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++)
    rlx_pool_parallel_for((rlx_pool *)(uintptr_t)table[1], count, table, MOST, 3);
}

static rlx_pool *pool;

static void *hammer(void *row) {
  static const int64_t extents[] = {0, 1, 2, 7, 64, 1000, MOST};
  static const int64_t grains[] = {0, 1, 3, 64, INT64_MAX};
  const void *table[] = {row, pool};
  for (int repeat = 0; repeat < 30; repeat++)
    for (size_t e = 0; e < sizeof extents / sizeof extents[0]; e++)
      for (size_t g = 0; g < sizeof grains / sizeof grains[0]; g++) {
        memset(row, 0, sizeof counts[0]);
        rlx_pool_parallel_for(pool, count, table, extents[e], grains[g]);
        for (int64_t i = 0; i < MOST; i++)
          EXPECT(atomic_load(&((atomic_int *)row)[i]) == (i < extents[e]));
      }
  return NULL;
}

static void test_pool(void) {
  static const uint32_t sizes[] = {1, 2, 3, 8};
  EXPECT(rlx_pool_create(NULL, 2) == RLX_E_NULL);
  EXPECT(rlx_pool_create(&pool, 0) == RLX_E_ARGUMENT && pool == NULL);
  EXPECT(rlx_pool_create(&pool, 1025) == RLX_E_ARGUMENT);
  EXPECT(rlx_pool_destroy(NULL) == RLX_OK);
  EXPECT(rlx_pool_pin(NULL) == RLX_E_NULL);
  allocations = 1;
  EXPECT(rlx_pool_create(&pool, 2) == RLX_E_MEMORY);
  for (int i = 1; i < 4; i++) {
    threads_started = i;
    EXPECT(rlx_pool_create(&pool, 4) == RLX_E_THREAD && pool == NULL);
  }
  for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
    EXPECT(rlx_pool_create(&pool, sizes[s]) == RLX_OK);
    hammer(counts[0]);

    /* Two callers share the pool, and a body calls it again. */
    pthread_t other;
    EXPECT(pthread_create(&other, NULL, hammer, counts[1]) == 0);
    hammer(counts[0]);
    EXPECT(pthread_join(other, NULL) == 0);
    memset(counts[0], 0, sizeof counts[0]);
    const void *table[] = {counts[0], pool};
    rlx_pool_parallel_for(pool, nested, table, 16, 1);
    for (int64_t i = 0; i < MOST; i++)
      EXPECT(atomic_load(&counts[0][i]) == 16);

    rlx_instance instance;
    EXPECT(rlx_create(&instance, &fake_model) == RLX_OK);
    EXPECT(rlx_set_parallel(&instance, rlx_pool_parallel_for, pool) == RLX_OK);
    for (int i = 0; i < 100; i++)
      expect_inference(&instance);
    EXPECT(rlx_destroy(&instance) == RLX_OK);
    EXPECT(rlx_pool_destroy(pool) == RLX_OK);
  }
}

/* What a run of the next model takes with and without its pool, and how many there were. */
static uint64_t takes_us[2];
static int runs[2];

static uint64_t microseconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000u + (uint64_t)time.tv_nsec / 1000u;
}

static int32_t timed_run(void *arena) {
  int way = ((const rlx_context *)arena)->parallel_for == NULL;
  runs[way]++;
  for (uint64_t begin = microseconds(); microseconds() - begin < takes_us[way];)
    continue;
  return RLX_OK;
}

/* How many of `count` runs went on one thread. */
static int alone(rlx_instance *instance, uint64_t shared_us, uint64_t alone_us, int count) {
  takes_us[0] = shared_us;
  takes_us[1] = alone_us;
  runs[0] = runs[1] = 0;
  for (int i = 0; i < count; i++)
    EXPECT(rlx_run(instance) == RLX_OK);
  EXPECT(runs[0] + runs[1] == count);
  return runs[1];
}

/* Runs go the way that is faster, also when that changes. (Hiccups of the machine are forgiven.) */
static void test_pace(void) {
  rlx_model m = fake_plain_model;
  m.run = timed_run;
  rlx_instance instance;
  EXPECT(rlx_create_in(&instance, &m, buffer, sizeof buffer) == RLX_OK);
  EXPECT(rlx_pool_create(&pool, 2) == RLX_OK);
  EXPECT(alone(&instance, 0, 0, 10) == 10);
  EXPECT(rlx_set_parallel(&instance, rlx_pool_parallel_for, pool) == RLX_OK);
  EXPECT(alone(&instance, 10, 100, 3) == 0);
  EXPECT(alone(&instance, 10, 100, 3) > 0);
  EXPECT(alone(&instance, 10, 100, 500) < 250);
  EXPECT(alone(&instance, 200, 10, 500) > 400);
  EXPECT(alone(&instance, 200, 10, 5000) > 4900);
  alone(&instance, 10, 100, 1100);
  EXPECT(alone(&instance, 10, 100, 500) < 250);
  /* A pool that is set is tried again; of long runs one on one thread is enough. */
  EXPECT(rlx_set_parallel(&instance, rlx_pool_parallel_for, pool) == RLX_OK);
  EXPECT(alone(&instance, 1000, 6000, 5) == 1);
  EXPECT(rlx_set_parallel(&instance, NULL, NULL) == RLX_OK);
  EXPECT(alone(&instance, 0, 0, 10) == 10);
  EXPECT(rlx_destroy(&instance) == RLX_OK);
  EXPECT(rlx_pool_destroy(pool) == RLX_OK);
}
#endif

int main(int argument_count, char **arguments) {
  test_descriptors();
  test_arena();
  test_prepared();
  test_states();
  test_region();
  test_tensors();
  test_bound_weights();
  test_parallel();
  test_status_strings();
#ifndef RLX_RT_FREESTANDING
  EXPECT(argument_count == 2);
  test_own_arena();
  test_mapped_weights(arguments[1]);
#else
  (void)argument_count, (void)arguments;
#endif
#ifdef RLX_RT_THREADS
  test_pool();
  test_pace();
#endif
  return 0;
}
