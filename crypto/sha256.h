/* SPDX-License-Identifier: Apache-2.0
 *
 * A streaming SHA-256 of our own, for the two things that OpenSSL's cannot do: two states over one stream with one
 * message schedule, and two streams side by side. For digest.c, and only on CPUs for which algorithms_get() has
 * sha256_ni; everyone else takes a hasher.
 */
#ifndef CRYPTO_SHA256_H
#define CRYPTO_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BLOCK_BYTES 64u
#define SHA256_BYTES 32u

/* Whoever hashes a secret keeps it where secrets live, and wipes it. */
struct sha256 {
	uint32_t state[8];
	uint64_t len;                     /* of the message so far */
	uint8_t tail[SHA256_BLOCK_BYTES]; /* its last len % 64 bytes, which are in no block yet */
};

void sha256_init(struct sha256 *ctx);
void sha256_update(struct sha256 *ctx, const void *data, size_t len);
/* Both contexts get the same bytes. Their messages so far may differ, but not in how far they are from a block's
 * end. */
void sha256_update_shared(struct sha256 *a, struct sha256 *b, const void *data, size_t len);
/* sha256_update() of both, interleaved for as long as both have whole blocks. */
void sha256_update_pair(struct sha256 *a, const void *data_a, size_t len_a, struct sha256 *b, const void *data_b,
			size_t len_b);
/* The context is spent afterwards. */
void sha256_final(struct sha256 *ctx, uint8_t out[SHA256_BYTES]);
/* The hashes of two messages of one length: what `start` has had, and then len bytes of a or of b. Side by side up to
 * and with the padding. */
void sha256_finish_pair(const struct sha256 *start, const void *a, uint8_t out_a[SHA256_BYTES], const void *b,
			uint8_t out_b[SHA256_BYTES], size_t len);

#endif
