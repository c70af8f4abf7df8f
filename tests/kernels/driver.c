/* Runs every kernel on operands that end at a page that must not be touched, and begin behind bytes
 * that must not change. Usage: driver INPUTS OUTPUTS. INPUTS holds what every operand of every kernel
 * starts with, in order; OUTPUTS gets what is in the operands that may be written. */

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels.h" /* OPERANDS, LARGEST, struct kernel, kernels, KERNELS */

enum { CANARY = 0xa5, CANARIES = 64 };

static uint8_t *ends[OPERANDS];

static void check(int holds, const char *what, int64_t kernel)
{
	if (!holds) {
		fprintf(stderr, "kernel %" PRId64 ": %s\n", kernel, what);
		exit(1);
	}
}

static void map_operands(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t size = (LARGEST + CANARIES + page - 1) / page * page;
	for (int i = 0; i < OPERANDS; i++) {
		void *memory = mmap(NULL, size + page, PROT_READ | PROT_WRITE,
		                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		check(memory != MAP_FAILED, "no memory", -1);
		ends[i] = (uint8_t *)memory + size;
		check(mprotect(ends[i], page, PROT_NONE) == 0, "no guard page", -1);
	}
}

static void run(const struct kernel *k, int64_t number, FILE *inputs, FILE *outputs)
{
	const uint8_t *table[OPERANDS];
	for (int i = 0; i < k->operands; i++) {
		size_t bytes = (size_t)k->bytes[i];
		uint8_t *start = ends[i] - bytes;
		memset(start - CANARIES, CANARY, CANARIES);
		check(fread(start, 1, bytes, inputs) == bytes, "inputs end early", number);
		table[i] = start;
	}
	/* In parts, as threads would, and not at all. */
	int64_t middle = k->extent / 3;
	k->function(table, middle, k->extent);
	k->function(table, 0, middle);
	k->function(table, 0, 0);
	for (int i = 0; i < k->operands; i++) {
		size_t bytes = (size_t)k->bytes[i];
		const uint8_t *start = ends[i] - bytes;
		for (int c = 1; c <= CANARIES; c++)
			check(start[-c] == CANARY, "something is written before an operand", number);
		if (k->written >> i & 1)
			check(fwrite(start, 1, bytes, outputs) == bytes, "outputs", number);
	}
	/* So that a crash tells which kernel it was. */
	check(fflush(outputs) == 0, "outputs", number);
}

int main(int argc, char **argv)
{
	check(argc == 3, "usage: driver INPUTS OUTPUTS", -1);
	FILE *inputs = fopen(argv[1], "rb"), *outputs = fopen(argv[2], "wb");
	check(inputs && outputs, "files", -1);
	map_operands();
	for (int64_t i = 0; i < KERNELS; i++)
		run(&kernels[i], i, inputs, outputs);
	check(fclose(outputs) == 0, "outputs", -1);
	return 0;
}
