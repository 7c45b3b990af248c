/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs a fuzz target over the files of its corpus without a fuzzer, so that every finding stays a regression test:
 * replay DIR. Besides each file as it is, every file is cut at a few places and gets single bytes changed, which
 * costs little and keeps the target's error paths in the normal test run.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_FILE_BYTES (1u << 20)
#define CUTS 16u
#define FLIPS 64u

/* The target gets memory of exactly the size, so that a sanitizer sees one byte too many. */
static void run(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		abort();
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static void run_variants(uint8_t *data, size_t size)
{
	run(data, size);
	for (unsigned i = 0; i < CUTS; i++)
		run(data, size * i / CUTS);
	for (unsigned i = 0; i < FLIPS && size; i++) {
		size_t at = (size_t)i * 2654435761u % size;

		data[at] ^= (uint8_t)(1u << (i % 8));
		run(data, size);
		data[at] ^= (uint8_t)(1u << (i % 8));
	}
}

static int run_file(const char *dir, const char *name)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "rb");
	if (!f) {
		perror(path);
		return 1;
	}

	uint8_t *data = malloc(MAX_FILE_BYTES);
	size_t size = data ? fread(data, 1, MAX_FILE_BYTES, f) : 0;

	fclose(f);
	if (data)
		run_variants(data, size);
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
	const struct dirent *entry;
	unsigned files = 0;
	int failed = 0;

	if (!dir) {
		fprintf(stderr, "usage: replay CORPUS_DIR\n");
		return 2;
	}
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.') {
			failed |= run_file(argv[1], entry->d_name);
			files++;
		}
	closedir(dir);
	printf("%u files\n", files);
	return failed || files == 0;
}
