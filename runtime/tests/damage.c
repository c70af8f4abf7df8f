/* The reader of weights files over damaged headers, each in memory of exactly
   its size, for the address sanitizer to watch. */
#include "../rlx_rt.c"

#include <stdio.h>

static const char json[] = "{\"__metadata__\":{\"a\":\"\\\"\",\"fingerprint\":"
                           "\"0000000000000000000000000000000000000000000000000000000000000000\"},"
                           "\"weights\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,5]}}  ";
enum { HEADER = sizeof json - 1, BYTES = 8 + HEADER + 5 };

static uint64_t state = 1;

/* xorshift64 */
static uint64_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

static int32_t read_copy(const unsigned char *file, size_t bytes) {
  static const rlx_model model = {.fingerprint = {0}};
  const unsigned char *weights = NULL;
  uint64_t count = 0;
  unsigned char *exact = malloc(bytes);
  if (exact == NULL)
    abort();
  memcpy(exact, file, bytes);
  int32_t status = read_weights(&model, exact, bytes, &weights, &count);
  if (status == RLX_OK && (count != 5 || weights + count != exact + bytes))
    abort();
  free(exact);
  return status;
}

int main(void) {
  static const char pieces[] = "{}[]\":,\\ 0123456789aU8-.weightsdtypeshape";
  unsigned char whole[BYTES] = {0}, damaged[BYTES];
  whole[0] = (unsigned char)HEADER;
  memcpy(whole + 8, json, HEADER);
  if (read_copy(whole, BYTES) != RLX_OK)
    return 1;
  for (size_t bytes = 8; bytes < BYTES; bytes++)
    if (read_copy(whole, bytes) != RLX_E_WEIGHTS_FILE)
      return 2;
  for (unsigned length = 0; length < HEADER; length++) {
    memcpy(damaged, whole, BYTES);
    damaged[0] = (unsigned char)length;
    if (read_copy(damaged, BYTES) != RLX_E_WEIGHTS_FILE)
      return 3;
  }
  for (int round = 0; round < 200000; round++) {
    memcpy(damaged, whole, BYTES);
    for (uint64_t edits = 1 + next() % 4; edits-- != 0;) {
      size_t at = next() % (8 + HEADER);
      damaged[at] = next() % 2 != 0 ? (unsigned char)next() : (unsigned char)pieces[next() % (sizeof pieces - 1)];
    }
    int32_t status = read_copy(damaged, BYTES);
    if (status != RLX_OK && status != RLX_E_WEIGHTS_FILE && status != RLX_E_WEIGHTS_MODEL)
      return 4;
  }
  return 0;
}
