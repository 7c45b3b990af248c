/* SPDX-License-Identifier: Apache-2.0
 *
 * dm-verity on disk, as far as it is used here: format 1, SHA-256, blocks of 4096 bytes for data and hashes, behind the
 * data in the same file. Source: the kernel's Documentation/admin-guide/device-mapper/verity.rst, and for the
 * superblock cryptsetup's "DMVerity" page.
 *
 *     data blocks | superblock, one block | top level, always one block | ... | leaves: the hashes of data blocks
 */
#ifndef SNAPSHOT_VERITY_FORMAT_H
#define SNAPSHOT_VERITY_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define VERITY_BLOCK_BYTES 4096u
#define VERITY_HASH_BYTES 32u
#define VERITY_HASHES_PER_BLOCK (VERITY_BLOCK_BYTES / VERITY_HASH_BYTES)
#define VERITY_SALT_BYTES 256u         /* at most */
#define VERITY_DATA_BLOCKS UINT32_MAX  /* at most, as EROFS counts them */
#define VERITY_LEVELS 5u               /* 128^5 is more than that */

/* Where what is. Numbers are of blocks of the file. */
struct verity_shape {
	uint64_t data_blocks; /* and where the superblock is */
	uint64_t end;         /* of the tree */
	unsigned levels;      /* 0 for one block of data, whose hash is the root */
	struct {
		uint64_t first;
		uint64_t blocks;
	} level[VERITY_LEVELS]; /* leaves first */
};

/* For 1 to VERITY_DATA_BLOCKS blocks. */
struct verity_shape verity_shape_of(uint64_t data_blocks);
/* The superblock's block. salt_len is VERITY_SALT_BYTES at most. */
void verity_super_fill(uint8_t out[VERITY_BLOCK_BYTES], const uint8_t uuid[16], uint64_t data_blocks, const void *salt,
		       size_t salt_len);
/* Of such a block. */
const uint8_t *verity_super_uuid(const uint8_t block[VERITY_BLOCK_BYTES]);

#endif
