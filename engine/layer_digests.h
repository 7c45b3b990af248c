/* SPDX-License-Identifier: Apache-2.0
 *
 * The digests of a layer, blob and tar, hashed side by side: SHA-256 waits for itself, so two streams at once cost
 * little more than one.
 */
#ifndef ENGINE_LAYER_DIGESTS_H
#define ENGINE_LAYER_DIGESTS_H

#include "crypto/digest.h"
#include "engine/base/pool.h"

struct layer_digests;

/* `blob` is what the descriptor promises of the bytes as fetched, NULL when they are hashed elsewhere (of an encrypted
 * layer they are, together with the HMAC); `diff_id` what the config promises of the tar. Both are borrowed. */
MUST_CHECK int layer_digests_new(const struct digest *blob, const struct digest *diff_id, struct layer_digests **out,
				 struct cpull_error *err);
/* The next bytes of the blob. Takes over the chunk's reference, and keeps at most one chunk until bytes of the tar come
 * to be hashed with it. */
MUST_CHECK int layer_digests_blob(struct layer_digests *digests, struct chunk *chunk, struct cpull_error *err);
/* The next bytes of the tar. */
MUST_CHECK int layer_digests_tar(struct layer_digests *digests, const struct chunk *chunk, struct cpull_error *err);
/* At the end, and once each. CPULL_ERR_DIGEST, or CPULL_ERR_DIFF_ID, with both values in the message. */
MUST_CHECK int layer_digests_check_blob(struct layer_digests *digests, struct cpull_error *err);
MUST_CHECK int layer_digests_check_diff_id(struct layer_digests *digests, struct cpull_error *err);
/* NULL is fine. */
void layer_digests_free(struct layer_digests *digests);

#endif
