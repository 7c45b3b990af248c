/* SPDX-License-Identifier: Apache-2.0
 *
 * An encrypted layer, AES_256_CTR_HMAC_SHA256 of ocicrypt: its key, and the cipher. The HMAC goes over the same bytes
 * as the blob's digest, and is computed together with it (engine/layer_digests.h).
 */
#ifndef CRYPTO_LAYER_CIPHER_H
#define CRYPTO_LAYER_CIPHER_H

#include "crypto/digest.h"

/* A layer's key, in the secure heap. */
struct layer_key {
	uint8_t symkey[32]; /* AES-256 and HMAC key, both (ocicrypt has no key separation) */
	uint8_t nonce[16];  /* the whole initial counter block */
	uint8_t hmac[32];   /* expected, over the ciphertext */
};

struct layer_key *layer_key_new(void); /* secure heap; NULL when it is used up */
void layer_key_free(struct layer_key *key); /* wiped; NULL is fine */

#define LAYER_KEY_PRINT_BYTES (2 * 32 + 1)

/* Something that names the key and says nothing about it: a hash in hex, over 256 random bits and what goes with them.
 * Whoever comes with the same one may have what the key has opened before. CPULL_ERR_NOMEM when the secure heap is used
 * up: hashing copies the key. */
MUST_CHECK int layer_key_print(const struct layer_key *key, char out[LAYER_KEY_PRINT_BYTES], struct cpull_error *err);

struct layer_cipher;

/* The key is not needed afterwards: only what is derived from it is kept, and wiped when freed. */
MUST_CHECK int layer_cipher_new(const struct layer_key *key, struct layer_cipher **out, struct cpull_error *err);
/* Decrypts the next bytes, in place or to somewhere else. Nothing vouches for them yet. */
MUST_CHECK int layer_cipher_run(struct layer_cipher *cipher, const uint8_t *in, size_t len, uint8_t *out,
				struct cpull_error *err);
void layer_cipher_free(struct layer_cipher *cipher);

#endif
