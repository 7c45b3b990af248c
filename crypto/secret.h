/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that holds keys: from OpenSSL's secure heap where it can be, wiped on every way out.
 */
#ifndef CRYPTO_SECRET_H
#define CRYPTO_SECRET_H

#include <jansson.h>

#include "engine/base/util.h"

struct secret {
	uint8_t *data; /* NUL-terminated behind len */
	size_t len;
	size_t cap;
};

/* Room for cap bytes, len 0. */
MUST_CHECK int secret_new(struct secret *secret, size_t cap, struct cpull_error *err);
void secret_free(struct secret *secret);
#define CLEANUP_SECRET __attribute__((cleanup(secret_free)))

/* Wipes every string in or under node. The document is of no use afterwards, and strings it shares with another are
 * wiped there too. NULL is fine. */
void secret_wipe_json(json_t *node);

/* Wipes, then drops. */
void secret_json_free(json_t **node);
#define CLEANUP_SECRET_JSON __attribute__((cleanup(secret_json_free)))

void secret_bytes_free(struct bytes *bytes);
#define CLEANUP_SECRET_BYTES __attribute__((cleanup(secret_bytes_free)))

#endif
