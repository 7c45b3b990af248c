/* SPDX-License-Identifier: Apache-2.0
 *
 * AES-256-CTR of one layer, and the keys of layers. A cipher is made and driven by the thread that opens the layer, and
 * owns its OpenSSL context, which holds what is derived from the key and wipes it when it is freed.
 */
#include "crypto/layer_cipher.h"

#include <limits.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "crypto/algorithms.h"
#include "engine/base/error.h"

#define CIPHER_PROBE_BYTES 4096u /* what starting it takes at once */

struct layer_cipher {
	EVP_CIPHER_CTX *ctr;
};

struct layer_key *layer_key_new(void)
{
	return OPENSSL_secure_zalloc(sizeof(struct layer_key));
}

void layer_key_free(struct layer_key *key)
{
	OPENSSL_secure_clear_free(key, sizeof(*key));
}

int layer_key_print(const struct layer_key *key, char out[LAYER_KEY_PRINT_BYTES], struct cpull_error *err)
{
	static const char purpose[] = "coco-pull layer key";
	struct hasher *hasher;
	struct digest digest;
	int rc = hasher_new_secret(DIGEST_SHA256, &hasher, err);

	if (rc)
		return rc;
	rc = hasher_update(hasher, purpose, sizeof(purpose));
	if (!rc)
		rc = hasher_update(hasher, key, sizeof(*key));
	if (!rc)
		rc = hasher_final(hasher, &digest);
	hasher_free(hasher);
	if (rc)
		return error_set(err, rc, "hashing the layer's key");
	hex_encode(digest.value, 32, out);
	return 0;
}

/* CTR mode has one direction: the keystream does not depend on what is crypted. */
static int start_ctr(struct layer_cipher *cipher, const struct layer_key *key)
{
	if (!algorithms_get()->aes_256_ctr)
		return CPULL_ERR_INTERNAL;
	cipher->ctr = EVP_CIPHER_CTX_new();
	if (!cipher->ctr)
		return CPULL_ERR_NOMEM;
	return EVP_EncryptInit_ex2(cipher->ctr, algorithms_get()->aes_256_ctr, key->symkey, key->nonce, NULL) == 1
		       ? 0
		       : CPULL_ERR_INTERNAL;
}

int layer_cipher_new(const struct layer_key *key, struct layer_cipher **out, struct cpull_error *err)
{
	struct layer_cipher *cipher = calloc(1, sizeof(*cipher));
	int rc;

	*out = NULL;
	if (!cipher)
		return error_nomem(err);
	rc = start_ctr(cipher, key);
	if (rc) {
		layer_cipher_free(cipher);
		return memory_is_there(CIPHER_PROBE_BYTES) ? error_set(err, rc, "OpenSSL cannot start AES-256-CTR")
							   : error_nomem(err);
	}
	*out = cipher;
	return 0;
}

int layer_cipher_run(struct layer_cipher *cipher, const uint8_t *in, size_t len, uint8_t *out, struct cpull_error *err)
{
	int out_len;

	if (len > INT_MAX || EVP_EncryptUpdate(cipher->ctr, out, &out_len, in, (int)len) != 1)
		return error_set(err, CPULL_ERR_INTERNAL, "OpenSSL failed while decrypting the blob");
	return 0;
}

void layer_cipher_free(struct layer_cipher *cipher)
{
	if (!cipher)
		return;
	EVP_CIPHER_CTX_free(cipher->ctr);
	free(cipher);
}
