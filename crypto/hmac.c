/* SPDX-License-Identifier: Apache-2.0
 *
 * HMAC-SHA-256 on top of hasher. Used by layer_digests on a layer's write thread; owns its two hashers. Either is as
 * good as the key to whoever wants to forge.
 */
#include "crypto/hmac.h"

#include <string.h>

#include <openssl/crypto.h>

#include "engine/base/error.h"

#define BLOCK_BYTES 64u

struct hmac {
	struct hasher *inner; /* has had the key, takes the message */
	struct hasher *outer; /* has had the key, takes the inner one's digest */
};

/* RFC 2104, section 2: a hash begins with the key, zeros up to a block, and every byte xored. `pad` is where that is
 * put together. */
static int begin_padded(struct hasher **out, uint8_t pad[BLOCK_BYTES], const uint8_t key[32], uint8_t xor,
			struct cpull_error *err)
{
	int rc = hasher_new_secret(DIGEST_SHA256, out, err);

	if (rc)
		return rc;
	memset(pad, xor, BLOCK_BYTES);
	for (size_t i = 0; i < 32; i++)
		pad[i] ^= key[i];
	rc = hasher_update(*out, pad, BLOCK_BYTES);
	return rc ? error_set(err, rc, "OpenSSL failed while starting an HMAC") : 0;
}

int hmac_new(const uint8_t key[32], struct hmac **out, struct cpull_error *err)
{
	struct hmac *hmac = calloc(1, sizeof(*hmac));
	uint8_t *pad;
	int rc;

	*out = NULL;
	if (!hmac)
		return error_nomem(err);
	pad = OPENSSL_secure_malloc(BLOCK_BYTES);
	rc = pad ? begin_padded(&hmac->inner, pad, key, 0x36, err)
		 : error_set(err, CPULL_ERR_NOMEM, "out of secure memory for an HMAC (%u bytes wanted)", BLOCK_BYTES);
	if (!rc)
		rc = begin_padded(&hmac->outer, pad, key, 0x5c, err);
	OPENSSL_secure_clear_free(pad, BLOCK_BYTES);
	if (rc) {
		hmac_free(hmac);
		return rc;
	}
	*out = hmac;
	return 0;
}

struct hasher *hmac_message(struct hmac *hmac)
{
	return hmac->inner;
}

int hmac_verify(struct hmac *hmac, const uint8_t want[HMAC_BYTES], bool *out)
{
	struct digest digest;
	int rc = hasher_final(hmac->inner, &digest);

	*out = false;
	if (!rc)
		rc = hasher_update(hmac->outer, digest.value, digest.len);
	if (!rc)
		rc = hasher_final(hmac->outer, &digest);
	if (!rc)
		*out = digest.len == HMAC_BYTES && !CRYPTO_memcmp(digest.value, want, HMAC_BYTES);
	/* what a forger would have to put beside the blob */
	OPENSSL_cleanse(&digest, sizeof(digest));
	return rc;
}

void hmac_free(struct hmac *hmac)
{
	if (!hmac)
		return;
	hasher_free(hmac->inner);
	hasher_free(hmac->outer);
	free(hmac);
}
