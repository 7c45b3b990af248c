/* SPDX-License-Identifier: Apache-2.0
 *
 * Checking a file with a dm-verity tree against its root hash, without device-mapper.
 */
#ifndef SNAPSHOT_VERITY_CHECK_H
#define SNAPSHOT_VERITY_CHECK_H

#include "engine/base/util.h"
#include "snapshot/verity_format.h"

/* A file, and what is known of it from elsewhere: none of it is taken from the file. */
struct verity_image {
	int fd; /* borrowed; its offset is not used */
	uint64_t data_blocks;
	const void *salt;
	size_t salt_len;
	uint8_t root[VERITY_HASH_BYTES];
};

/* Checks data blocks first to first + count - 1, which the file has, and the part of the tree that vouches for them;
 * with the last block also the superblock. Ranges are independent of each other and may be checked by as many threads; one
 * that begins and ends at multiples of VERITY_HASHES_PER_BLOCK reads nothing twice but a few blocks above the leaves.
 * CPULL_ERR_DIGEST with the first block that is wrong in the message, CPULL_ERR_SIZE where the file ends too early,
 * CPULL_ERR_STORAGE where it cannot be read. Takes 0.6 MiB. */
MUST_CHECK int verity_check(const struct verity_image *image, uint64_t first, uint64_t count, struct cpull_error *err);

#endif
