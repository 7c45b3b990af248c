/* SPDX-License-Identifier: Apache-2.0
 *
 * The inside of a key ring, for keys.c and the unwrap functions. Read-only once it is filled, so that layers on
 * several threads may unwrap from one ring.
 */
#ifndef CRYPTO_KEY_RING_H
#define CRYPTO_KEY_RING_H

#include <openssl/evp.h>

#include "crypto/keys.h"
#include "crypto/secret.h"

struct private_key {
	EVP_PKEY *pkey;
	const char *curve; /* JOSE's name ("P-256", "P-384", "P-521"), static; NULL: an RSA key */
};

struct key_ring {
	struct private_key *keys;
	size_t count;
};

/* Adds the private key that a file holds, given as its bytes; password NULL: none. `name` is for messages. */
MUST_CHECK int key_ring_add_bytes(struct key_ring *ring, const char *name, const char *data, size_t len,
				  const struct secret *password, struct cpull_error *err);

#endif
