/* SPDX-License-Identifier: Apache-2.0
 *
 * Checksums of what layers hold. Called by the writer of a layer on its thread, and by the threads that check one; owns
 * the state of one stream.
 *
 * Compiled in: the library's own XXH3 takes twice as long (20 GB/s and 37, in the cache), as it is not optimized as
 * far.
 */
#include "snapshot/checksum.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/base/error.h"
#include "snapshot/checksum_avx2.h"

struct checksum {
	XXH3_state_t state; /* aligned to 64 bytes */
	uint64_t block;     /* of a file with holes: the one that is put together */
	size_t filled;      /* some of it is there, up to here */
	uint8_t bytes[CHECKSUM_BLOCK_BYTES];
};

int checksum_new(struct checksum **out, struct cpull_error *err)
{
	*out = aligned_alloc(_Alignof(struct checksum), sizeof(struct checksum));
	return *out ? 0 : error_nomem(err);
}

void checksum_free(struct checksum *sum)
{
	free(sum);
}

void checksum_begin(struct checksum *sum)
{
	XXH3_64bits_reset(&sum->state);
}

void checksum_add(struct checksum *sum, const void *data, size_t len)
{
	if (checksum_avx2_usable())
		checksum_avx2_add(&sum->state, data, len);
	else
		XXH3_64bits_update(&sum->state, data, len);
}

uint64_t checksum_end(struct checksum *sum)
{
	return XXH3_64bits_digest(&sum->state);
}

uint64_t checksum_of(const void *data, size_t len)
{
	return checksum_avx2_usable() ? checksum_avx2_of(data, len) : XXH3_64bits(data, len);
}

uint64_t checksum_seeded(const void *data, size_t len, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, len, seed);
}

/* ---- files with holes ---- */

void checksum_sparse_begin(struct checksum *sum)
{
	checksum_begin(sum);
	sum->block = 0;
	sum->filled = 0;
}

static void add_block(struct checksum *sum, uint64_t number, const void *bytes)
{
	const uint8_t *b = bytes;

	if (!b[0] && memcmp(b, b + 1, CHECKSUM_BLOCK_BYTES - 1) == 0)
		return;
	checksum_add(sum, &number, sizeof(number));
	checksum_add(sum, bytes, CHECKSUM_BLOCK_BYTES);
}

static void end_block(struct checksum *sum)
{
	if (!sum->filled)
		return;
	memset(sum->bytes + sum->filled, 0, CHECKSUM_BLOCK_BYTES - sum->filled);
	add_block(sum, sum->block, sum->bytes);
	sum->filled = 0;
}

void checksum_sparse_add(struct checksum *sum, const void *data, size_t len, uint64_t offset)
{
	const uint8_t *from = data;

	while (len) {
		uint64_t block = offset / CHECKSUM_BLOCK_BYTES;
		size_t at = offset % CHECKSUM_BLOCK_BYTES, n = MIN(len, CHECKSUM_BLOCK_BYTES - at);

		if (block != sum->block)
			end_block(sum);
		sum->block = block;
		if (n == CHECKSUM_BLOCK_BYTES) {
			add_block(sum, block, from);
		} else {
			memset(sum->bytes + sum->filled, 0, at - sum->filled);
			memcpy(sum->bytes + at, from, n);
			sum->filled = at + n;
		}
		from += n;
		len -= n;
		offset += n;
	}
}

uint64_t checksum_sparse_end(struct checksum *sum)
{
	end_block(sum);
	return checksum_end(sum);
}
