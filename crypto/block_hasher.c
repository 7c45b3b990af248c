/* SPDX-License-Identifier: Apache-2.0
 *
 * The hashes of blocks, for snapshot/verity.c on whatever thread it runs. A hasher is what comes of the salt, hashed
 * once: a state of our own SHA-256 where the CPU has the instructions, else an EVP context, with a second one that it
 * is copied to for each block.
 */
#include "crypto/block_hasher.h"

#include <openssl/evp.h>

#include "crypto/algorithms.h"
#include "crypto/sha256.h"
#include "engine/base/error.h"

struct block_hasher {
	struct sha256 salted;
	EVP_MD_CTX *evp_salted; /* NULL: salted is what is used */
	EVP_MD_CTX *evp;
};

_Static_assert(BLOCK_HASH_BYTES == SHA256_BYTES, "a block's hash is SHA-256");

static int start_evp(struct block_hasher *hasher, const void *salt, size_t salt_len, struct cpull_error *err)
{
	const EVP_MD *md = algorithms_get()->sha256;

	if (!md)
		return error_set(err, CPULL_ERR_INTERNAL, "OpenSSL's providers have no SHA-256");
	hasher->evp_salted = EVP_MD_CTX_new();
	hasher->evp = EVP_MD_CTX_new();
	if (!hasher->evp_salted || !hasher->evp || EVP_DigestInit_ex2(hasher->evp_salted, md, NULL) != 1 ||
	    EVP_DigestUpdate(hasher->evp_salted, salt, salt_len) != 1)
		return error_nomem(err);
	return 0;
}

int block_hasher_new(const void *salt, size_t salt_len, struct block_hasher **out, struct cpull_error *err)
{
	struct block_hasher *hasher = calloc(1, sizeof(*hasher));

	*out = NULL;
	if (!hasher)
		return error_nomem(err);
	if (algorithms_get()->sha256_ni) {
		sha256_init(&hasher->salted);
		sha256_update(&hasher->salted, salt, salt_len);
	} else {
		int rc = start_evp(hasher, salt, salt_len, err);

		if (rc) {
			block_hasher_free(hasher);
			return rc;
		}
	}
	*out = hasher;
	return 0;
}

static int run_evp(const struct block_hasher *hasher, const uint8_t *at, size_t block_bytes, size_t blocks,
		   uint8_t *out)
{
	for (; blocks; blocks--, at += block_bytes, out += BLOCK_HASH_BYTES)
		if (EVP_MD_CTX_copy_ex(hasher->evp, hasher->evp_salted) != 1 ||
		    EVP_DigestUpdate(hasher->evp, at, block_bytes) != 1 ||
		    EVP_DigestFinal_ex(hasher->evp, out, NULL) != 1)
			return CPULL_ERR_INTERNAL;
	return 0;
}

int block_hasher_run(struct block_hasher *hasher, const void *data, size_t block_bytes, size_t blocks, uint8_t *out)
{
	const uint8_t *at = data;

	if (hasher->evp)
		return run_evp(hasher, at, block_bytes, blocks, out);
	for (; blocks >= 2; blocks -= 2, at += 2 * block_bytes, out += 2 * BLOCK_HASH_BYTES)
		sha256_finish_pair(&hasher->salted, at, out, at + block_bytes, out + BLOCK_HASH_BYTES, block_bytes);
	if (blocks) {
		struct sha256 one = hasher->salted;

		sha256_update(&one, at, block_bytes);
		sha256_final(&one, out);
	}
	return 0;
}

void block_hasher_free(struct block_hasher *hasher)
{
	if (!hasher)
		return;
	EVP_MD_CTX_free(hasher->evp_salted);
	EVP_MD_CTX_free(hasher->evp);
	free(hasher);
}
