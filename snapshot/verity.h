/* SPDX-License-Identifier: Apache-2.0
 *
 * The dm-verity hash tree of a file, made while the file's blocks are written and appended to it.
 */
#ifndef SNAPSHOT_VERITY_H
#define SNAPSHOT_VERITY_H

#include "engine/base/util.h"
#include "snapshot/verity_format.h"

struct verity_options {
	uint8_t uuid[16]; /* for the superblock */
	const void *salt; /* copied */
	size_t salt_len;  /* VERITY_SALT_BYTES at most; 0: none */
	int spool_dirfd;  /* borrowed; where hashes go for which there is no room in memory: a file without a name */
};

struct verity_result {
	uint8_t root[VERITY_HASH_BYTES];
	uint64_t file_blocks; /* data, superblock and tree */
};

/* For one file, used by one thread at a time. Takes so much at most, whatever the file's size, and 0.3 MiB more to
 * finish. */
struct verity;
#define VERITY_MEMORY_BYTES ((size_t)1 << 20)

MUST_CHECK int verity_new(const struct verity_options *options, struct verity **out, struct cpull_error *err);
/* Blocks as they are in the file from block `first` on. In any order, best in that of the file and an even number at a
 * time; what is handed in again counts as it is then. What lies between blocks and is not handed in is zeros. */
MUST_CHECK int verity_add(struct verity *verity, uint64_t first, const void *data, size_t blocks,
			  struct cpull_error *err);
/* Writes superblock and tree to fd behind `data_blocks` blocks, which is at least as many as were handed in. In whole,
 * aligned blocks: O_DIRECT may be set. Only verity_free() may follow. */
MUST_CHECK int verity_finish(struct verity *verity, int fd, uint64_t data_blocks, struct verity_result *out,
			     struct cpull_error *err);
void verity_free(struct verity *verity);

#endif
