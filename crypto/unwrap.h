/* SPDX-License-Identifier: Apache-2.0
 *
 * What the ways to unwrap a layer key have in common. An unwrap function is given one element of a scheme's annotation,
 * base64 already off, and gives back the private options' JSON text.
 */
#ifndef CRYPTO_UNWRAP_H
#define CRYPTO_UNWRAP_H

#include "crypto/key_ring.h"
#include "crypto/secret.h"

/* One layer's unwrapping. */
struct unwrap {
	const struct key_ring *ring;
	unsigned tries_left; /* wrapped copies still to be tried, LIMIT_KEY_WRAPS at the start */
};

/* CPULL_ERR_KEY: this one does not open, go on with the next. Anything else ends the unwrapping. */
typedef int unwrap_fn(struct unwrap *unwrap, const uint8_t *wrap, size_t len, struct secret *out,
		      struct cpull_error *err);

unwrap_fn jwe_unwrap;

/* Takes one try; CPULL_ERR_LIMIT when there is none left. */
MUST_CHECK int unwrap_take_try(struct unwrap *unwrap, struct cpull_error *err);

/* Why the attempts failed, joined by "; " and cut where the room ends. */
struct reasons {
	char text[640];
	size_t len;
};

void reasons_add(struct reasons *reasons, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
