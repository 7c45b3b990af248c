/* SPDX-License-Identifier: Apache-2.0
 *
 * The superblock and where the levels are. Pure; for verity.c and verity_check.c.
 */
#include "snapshot/verity_format.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

/* The kernel never reads it, veritysetup does. */
struct super {
	uint8_t signature[8];
	uint32_t version;
	uint32_t hash_type; /* 1: the salt comes before the data */
	uint8_t uuid[16];
	char algorithm[32];
	uint32_t data_block_bytes;
	uint32_t hash_block_bytes;
	uint64_t data_blocks;
	uint16_t salt_len;
	uint8_t reserved[6];
	uint8_t salt[VERITY_SALT_BYTES];
	uint8_t reserved2[168];
} __attribute__((packed));
_Static_assert(sizeof(struct super) == 512, "struct super");

struct verity_shape verity_shape_of(uint64_t data_blocks)
{
	struct verity_shape out = {.data_blocks = data_blocks, .end = data_blocks + 1};
	uint64_t below = data_blocks;

	assert(data_blocks && data_blocks <= VERITY_DATA_BLOCKS);
	while (below > 1) {
		below = (below + VERITY_HASHES_PER_BLOCK - 1) / VERITY_HASHES_PER_BLOCK;
		out.level[out.levels++].blocks = below;
	}
	for (unsigned k = out.levels; k-- > 0;) {
		out.level[k].first = out.end;
		out.end += out.level[k].blocks;
	}
	return out;
}

void verity_super_fill(uint8_t out[VERITY_BLOCK_BYTES], const uint8_t uuid[16], uint64_t data_blocks, const void *salt,
		       size_t salt_len)
{
	struct super super = {
		.signature = "verity",
		.version = htole32(1),
		.hash_type = htole32(1),
		.algorithm = "sha256",
		.data_block_bytes = htole32(VERITY_BLOCK_BYTES),
		.hash_block_bytes = htole32(VERITY_BLOCK_BYTES),
		.data_blocks = htole64(data_blocks),
		.salt_len = htole16((uint16_t)salt_len),
	};

	assert(salt_len <= VERITY_SALT_BYTES);
	memcpy(super.uuid, uuid, sizeof(super.uuid));
	if (salt_len)
		memcpy(super.salt, salt, salt_len);
	memset(out, 0, VERITY_BLOCK_BYTES);
	memcpy(out, &super, sizeof(super));
}

const uint8_t *verity_super_uuid(const uint8_t block[VERITY_BLOCK_BYTES])
{
	return block + offsetof(struct super, uuid);
}
