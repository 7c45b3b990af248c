/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams of any length and cut on top of the kernels, which take whole blocks. Called by digest.c on any thread; a
 * context belongs to the one that made it.
 */
#include "crypto/sha256.h"

#include <assert.h>
#include <string.h>

#include "crypto/sha256_ni.h"
#include "engine/base/util.h"

/* Padding (FIPS 180-4, section 5.1.1) ends with the message's length in bits. */
#define LENGTH_BYTES 8u

static size_t tail_len(const struct sha256 *ctx)
{
	return ctx->len % SHA256_BLOCK_BYTES;
}

/* Adds to the tail what fits, but begins no new block after one that is complete. Returns how much that was. */
static size_t tail_fill(struct sha256 *ctx, const uint8_t *data, size_t len)
{
	size_t have = tail_len(ctx);
	size_t take = MIN(SHA256_BLOCK_BYTES - have, len);

	if (take)
		memcpy(ctx->tail + have, data, take);
	ctx->len += take;
	return take;
}

/* Brings the stream to the start of a block, if data reaches so far. Returns how much of data that took. */
static size_t finish_block(struct sha256 *ctx, const uint8_t *data, size_t len)
{
	if (!tail_len(ctx))
		return 0;

	size_t taken = tail_fill(ctx, data, len);

	if (!tail_len(ctx) && taken)
		sha256_ni_blocks(ctx->state, ctx->tail, 1);
	return taken;
}

void sha256_init(struct sha256 *ctx)
{
	/* section 5.3.3 */
	*ctx = (struct sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
					 0x1f83d9ab, 0x5be0cd19}};
}

void sha256_update(struct sha256 *ctx, const void *data, size_t len)
{
	const uint8_t *bytes = data;
	size_t at = finish_block(ctx, bytes, len);
	size_t whole = (len - at) / SHA256_BLOCK_BYTES * SHA256_BLOCK_BYTES;

	if (whole)
		sha256_ni_blocks(ctx->state, bytes + at, whole / SHA256_BLOCK_BYTES);
	ctx->len += whole;
	at += whole;
	if (at < len)
		tail_fill(ctx, bytes + at, len - at);
}

void sha256_update_shared(struct sha256 *a, struct sha256 *b, const void *data, size_t len)
{
	const uint8_t *bytes = data;

	assert(a != b && tail_len(a) == tail_len(b));

	size_t at = finish_block(a, bytes, len);

	finish_block(b, bytes, len);

	size_t whole = (len - at) / SHA256_BLOCK_BYTES * SHA256_BLOCK_BYTES;

	if (whole)
		sha256_ni_blocks_shared(a->state, b->state, bytes + at, whole / SHA256_BLOCK_BYTES);
	a->len += whole;
	b->len += whole;
	at += whole;
	if (at < len) {
		tail_fill(a, bytes + at, len - at);
		tail_fill(b, bytes + at, len - at);
	}
}

void sha256_update_pair(struct sha256 *a, const void *data_a, size_t len_a, struct sha256 *b, const void *data_b,
			size_t len_b)
{
	const uint8_t *bytes_a = data_a;
	const uint8_t *bytes_b = data_b;

	assert(a != b);

	size_t at_a = finish_block(a, bytes_a, len_a);
	size_t at_b = finish_block(b, bytes_b, len_b);
	size_t whole = MIN(len_a - at_a, len_b - at_b) / SHA256_BLOCK_BYTES * SHA256_BLOCK_BYTES;

	if (!whole) {
		sha256_update(a, bytes_a ? bytes_a + at_a : NULL, len_a - at_a);
		sha256_update(b, bytes_b ? bytes_b + at_b : NULL, len_b - at_b);
		return;
	}
	sha256_ni_blocks_pair(a->state, bytes_a + at_a, b->state, bytes_b + at_b, whole / SHA256_BLOCK_BYTES);
	a->len += whole;
	b->len += whole;
	at_a += whole;
	at_b += whole;
	sha256_update(a, bytes_a + at_a, len_a - at_a);
	sha256_update(b, bytes_b + at_b, len_b - at_b);
}

/* The message's last blocks: its tail, 0x80, zeros, its length in bits. Returns how many there are, 1 or 2. */
static size_t last_blocks(const struct sha256 *ctx, uint8_t out[2 * SHA256_BLOCK_BYTES])
{
	size_t have = tail_len(ctx);
	size_t blocks = have + 1 + LENGTH_BYTES <= SHA256_BLOCK_BYTES ? 1 : 2;
	uint8_t *end = out + blocks * SHA256_BLOCK_BYTES;

	memcpy(out, ctx->tail, have);
	out[have] = 0x80;
	memset(out + have + 1, 0, blocks * SHA256_BLOCK_BYTES - have - 1 - LENGTH_BYTES);
	for (unsigned i = 0; i < LENGTH_BYTES; i++)
		*--end = (uint8_t)(ctx->len * 8 >> (8 * i));
	return blocks;
}

static void state_store(const struct sha256 *ctx, uint8_t out[SHA256_BYTES])
{
	for (unsigned i = 0; i < SHA256_BYTES; i++)
		out[i] = (uint8_t)(ctx->state[i / 4] >> (24 - 8 * (i % 4)));
}

void sha256_final(struct sha256 *ctx, uint8_t out[SHA256_BYTES])
{
	uint8_t last[2 * SHA256_BLOCK_BYTES];

	sha256_ni_blocks(ctx->state, last, last_blocks(ctx, last));
	/* the tail may be of a secret */
	explicit_bzero(last, sizeof(last));
	state_store(ctx, out);
}

void sha256_finish_pair(const struct sha256 *start, const void *a, uint8_t out_a[SHA256_BYTES], const void *b,
			uint8_t out_b[SHA256_BYTES], size_t len)
{
	struct sha256 ctx_a = *start;
	struct sha256 ctx_b = *start;
	uint8_t last_a[2 * SHA256_BLOCK_BYTES];
	uint8_t last_b[2 * SHA256_BLOCK_BYTES];

	sha256_update_pair(&ctx_a, a, len, &ctx_b, b, len);

	size_t blocks = last_blocks(&ctx_a, last_a);

	last_blocks(&ctx_b, last_b);
	sha256_ni_blocks_pair(ctx_a.state, last_a, ctx_b.state, last_b, blocks);
	state_store(&ctx_a, out_a);
	state_store(&ctx_b, out_b);
}
