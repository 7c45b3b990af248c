/* SPDX-License-Identifier: Apache-2.0
 *
 * The caller's private keys, and the one small interface behind which every way to unwrap a layer's key lives.
 */
#ifndef CRYPTO_KEYS_H
#define CRYPTO_KEYS_H

#include <jansson.h>

#include "crypto/layer_cipher.h"
#include "engine/base/log.h"

struct key_ring;

/* Reserves OpenSSL's secure heap when the process has none yet. Idempotent, thread-safe, never fails the
 * caller: without locked memory it warns once through log. */
void secure_heap_init(struct log *log);

MUST_CHECK int key_ring_new(struct key_ring **out, struct cpull_error *err);
/* Adds "FILE", "FILE:PASS", "FILE:pass=…", "FILE:file=…", "FILE:fd=N": PEM (PKCS#1, PKCS#8, SEC1, encrypted ones
 * too), DER of the same, or a private JWK. CPULL_ERR_KEY names the file and what is wrong, never the content. */
MUST_CHECK int key_ring_add(struct key_ring *ring, const char *spec, struct cpull_error *err);
size_t key_ring_count(const struct key_ring *ring);
void key_ring_free(struct key_ring *ring);

/* Unwraps the key of one encrypted layer from its descriptor annotations (org.opencontainers.image.enc.*). Every
 * wrap is tried; when none opens, CPULL_ERR_KEY lists why each failed. Malformed options (cipher, nonce, hmac, base64)
 * are CPULL_ERR_DECRYPT. *out is owned by the caller. */
MUST_CHECK int ocicrypt_unwrap(const struct key_ring *ring, const json_t *annotations, struct layer_key **out,
			       struct cpull_error *err);

#endif
