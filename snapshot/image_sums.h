/* SPDX-License-Identifier: Apache-2.0
 *
 * Checksums of an image file's blocks, made while they are written, and checking the file against them: where there is
 * no hash tree. In a file of its own, STORE/layers/KEY/contents, in the byte order of the machine:
 *
 *     header (16 bytes) | sum of block 0 | sum of each IMAGE_SUMS_BLOCKS blocks from block 1 on
 *
 * How long that file is and what its bytes sum up to stands in layer.json.
 */
#ifndef SNAPSHOT_IMAGE_SUMS_H
#define SNAPSHOT_IMAGE_SUMS_H

#include "snapshot/contents_writer.h"

#define IMAGE_SUMS_BLOCK_BYTES 4096u
#define IMAGE_SUMS_BLOCKS 256u /* 1 MiB: 8 bytes of sums for it */

/* For one image, used by one thread. */
struct image_sums;

MUST_CHECK int image_sums_new(struct image_sums **out, struct cpull_error *err);
void image_sums_free(struct image_sums *sums);
/* Blocks as they are in the file: in order from block 1 on, and block 0 last (struct erofs_image_options). */
MUST_CHECK int image_sums_add(struct image_sums *sums, uint64_t block, const void *data, size_t blocks,
			      struct cpull_error *err);
/* Writes the sums to an empty file. */
MUST_CHECK int image_sums_finish(struct image_sums *sums, int fd, struct contents_facts *out, struct cpull_error *err);

/* How many sums there are for so many blocks. */
uint64_t image_sums_count(uint64_t blocks);
/* The blocks that a sum is of. */
void image_sums_range(uint64_t blocks, uint64_t number, uint64_t *first, uint64_t *count);
/* Reads what _finish wrote for `blocks` blocks; to be freed. CPULL_ERR_DIGEST when the file is not what the facts
 * say. */
MUST_CHECK int image_sums_load(int fd, const struct contents_facts *facts, uint64_t blocks, uint64_t **out,
			       struct cpull_error *err);
/* Compares blocks of an image with their sum, by way of a buffer of IMAGE_SUMS_BLOCKS blocks. CPULL_ERR_DIGEST when
 * they are others or not there, CPULL_ERR_STORAGE when they cannot be read. */
MUST_CHECK int image_sums_check(int image_fd, const uint64_t *sums, uint64_t blocks, uint64_t number, void *buffer,
				struct cpull_error *err);

#endif
