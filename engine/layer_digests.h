/* SPDX-License-Identifier: Apache-2.0
 *
 * What vouches for a layer, hashed side by side: the digest of its blob, the HMAC of an encrypted one, and the diff_id
 * of its tar. SHA-256 waits for itself, so two streams at once cost little more than one.
 */
#ifndef ENGINE_LAYER_DIGESTS_H
#define ENGINE_LAYER_DIGESTS_H

#include "crypto/layer_cipher.h"
#include "engine/base/pool.h"

struct layer_digests;

/* `blob` is what the descriptor promises of the bytes as fetched; `key` that of an encrypted layer, with the HMAC that
 * is promised of the same bytes, or NULL; `diff_id` what the config promises of the tar. Digests are borrowed, of the
 * key nothing is needed afterwards. */
MUST_CHECK int layer_digests_new(const struct digest *blob, const struct layer_key *key, const struct digest *diff_id,
				 struct layer_digests **out, struct cpull_error *err);
/* The next bytes of the blob. Takes over the chunk's reference, and keeps at most one chunk until bytes of the tar come
 * to be hashed with it. */
MUST_CHECK int layer_digests_blob(struct layer_digests *digests, struct chunk *chunk, struct cpull_error *err);
/* The next bytes of the tar. */
MUST_CHECK int layer_digests_tar(struct layer_digests *digests, const struct chunk *chunk, struct cpull_error *err);
/* At the end, and once each. CPULL_ERR_DIGEST, or CPULL_ERR_DIFF_ID, with both values in the message; CPULL_ERR_DECRYPT
 * when the digest is right and the HMAC is not. */
MUST_CHECK int layer_digests_check_blob(struct layer_digests *digests, struct cpull_error *err);
MUST_CHECK int layer_digests_check_diff_id(struct layer_digests *digests, struct cpull_error *err);
/* NULL is fine. */
void layer_digests_free(struct layer_digests *digests);

#endif
