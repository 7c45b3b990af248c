/* SPDX-License-Identifier: Apache-2.0
 *
 * HMAC-SHA-256 (RFC 2104) of a stream, made of two hashers, so that its stream can be hashed beside others: OpenSSL's
 * HMAC has no way to do that.
 */
#ifndef CRYPTO_HMAC_H
#define CRYPTO_HMAC_H

#include "crypto/digest.h"

#define HMAC_BYTES 32u

struct hmac;

/* A key of 32 bytes, which is not needed afterwards. What is derived from it is in the secure heap, but for what is in
 * contexts of OpenSSL where that does the hashing. CPULL_ERR_NOMEM when the secure heap is used up. */
MUST_CHECK int hmac_new(const uint8_t key[32], struct hmac **out, struct cpull_error *err);
/* What the message is to be given to. It stands at the start of a block. Borrowed. */
struct hasher *hmac_message(struct hmac *hmac);
/* At the end, and once: in constant time, is this the message's HMAC? */
MUST_CHECK int hmac_verify(struct hmac *hmac, const uint8_t want[HMAC_BYTES], bool *out);
void hmac_free(struct hmac *hmac); /* wiped; NULL is fine */

#endif
