/* SPDX-License-Identifier: Apache-2.0
 *
 * SHA-256 of each of many blocks, behind a salt that all have in common, as hash trees want it: two blocks side by side
 * where the CPU has SHA instructions.
 */
#ifndef CRYPTO_BLOCK_HASHER_H
#define CRYPTO_BLOCK_HASHER_H

#include "engine/base/util.h"

#define BLOCK_HASH_BYTES 32u

/* Belongs to one thread at a time. */
struct block_hasher;

/* The salt may be of any length; 0: none. */
MUST_CHECK int block_hasher_new(const void *salt, size_t salt_len, struct block_hasher **out, struct cpull_error *err);
/* out gets the hashes of `blocks` blocks of block_bytes each, which lie in a row. The last of an odd
 * number is hashed alone, for half as much again. CPULL_ERR_INTERNAL when OpenSSL fails. */
MUST_CHECK int block_hasher_run(struct block_hasher *hasher, const void *data, size_t block_bytes, size_t blocks,
				uint8_t *out);
void block_hasher_free(struct block_hasher *hasher);

#endif
