/* SPDX-License-Identifier: Apache-2.0
 *
 * SHA-2 digests in the form that OCI descriptors use. OpenSSL's algorithms are fetched once per process image
 * (thread-safe, no user-visible global state).
 */
#ifndef CRYPTO_DIGEST_H
#define CRYPTO_DIGEST_H

#include "engine/base/util.h"

#define DIGEST_MAX_BYTES 64u
#define DIGEST_TEXT_BYTES 136u /* "sha512:" + 128 hex + NUL */

enum digest_algorithm { DIGEST_SHA256 = 1, DIGEST_SHA384, DIGEST_SHA512 };

struct digest {
	enum digest_algorithm algorithm;
	uint8_t value[DIGEST_MAX_BYTES];
	uint32_t len;
};

/* "sha256:<hex>", lower case, exact length; anything else CPULL_ERR_MANIFEST, an algorithm that is not known
 * CPULL_ERR_UNSUPPORTED. */
MUST_CHECK int digest_parse(const char *text, struct digest *out, struct cpull_error *err);
void digest_format(const struct digest *digest, char out[DIGEST_TEXT_BYTES]);
bool digest_equal(const struct digest *a, const struct digest *b);

struct hasher; /* opaque, one stream */
MUST_CHECK int hasher_new(enum digest_algorithm algorithm, struct hasher **out, struct cpull_error *err);
/* For a message that is a secret, or begins with one: in the secure heap, as far as OpenSSL lets us. CPULL_ERR_NOMEM
 * when that is used up. */
MUST_CHECK int hasher_new_secret(enum digest_algorithm algorithm, struct hasher **out, struct cpull_error *err);
MUST_CHECK int hasher_update(struct hasher *hasher, const void *data, size_t len);
/* hasher_update() of two different hashers. Both SHA-256 on a CPU with SHA instructions: side by side as far as both
 * have data, half again as fast as one after the other. So give it about as much of both. */
MUST_CHECK int hasher_update_pair(struct hasher *a, const void *data_a, size_t len_a, struct hasher *b,
				  const void *data_b, size_t len_b);
/* hasher_update() of two different hashers with the same bytes, as far from the start of a block in both. Both SHA-256
 * on such a CPU: in one pass, with one message schedule. */
MUST_CHECK int hasher_update_shared(struct hasher *a, struct hasher *b, const void *data, size_t len);
MUST_CHECK int hasher_final(struct hasher *hasher, struct digest *out);
void hasher_free(struct hasher *hasher); /* wiped; NULL is fine */

/* CPULL_ERR_DIGEST with both values in the message, which begins with `what`, when they are not the same. */
MUST_CHECK int digest_verify(const struct digest *want, const struct digest *got, const char *what,
			     struct cpull_error *err);

/* One shot. `what` begins the message of a failure. */
MUST_CHECK int digest_compute(enum digest_algorithm algorithm, const void *data, size_t len, const char *what,
			      struct digest *out, struct cpull_error *err);
/* One shot: does data have this digest? As digest_verify(). */
MUST_CHECK int digest_check(const struct digest *want, const void *data, size_t len, const char *what,
			    struct cpull_error *err);

#endif
