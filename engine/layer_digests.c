/* SPDX-License-Identifier: Apache-2.0
 *
 * Blob digest and diff_id of one layer. Driven by the layer's write thread, which gets the chunks of both streams in
 * one queue; owns the two hashers and the chunk that waits for a partner.
 *
 * A blob is shorter than its tar, so nearly all of it finds tar bytes to be hashed with. What comes too thick is
 * hashed alone: a chunk that is held for long would be one that fetch lacks.
 */
#include "engine/layer_digests.h"

#include "engine/base/error.h"

struct layer_digests {
	const struct digest *want_blob, *want_diff_id;
	struct hasher *blob; /* NULL: not ours */
	struct hasher *tar;
	struct chunk *waiting; /* of the blob, hashed up to waiting_at */
	size_t waiting_at;
};

int layer_digests_new(const struct digest *blob, const struct digest *diff_id, struct layer_digests **out,
		      struct cpull_error *err)
{
	struct layer_digests *d = calloc(1, sizeof(*d));
	int rc;

	*out = NULL;
	if (!d)
		return error_nomem(err);
	d->want_blob = blob;
	d->want_diff_id = diff_id;
	rc = hasher_new(diff_id->algorithm, &d->tar, err);
	if (!rc && blob)
		rc = hasher_new(blob->algorithm, &d->blob, err);
	if (rc) {
		layer_digests_free(d);
		return rc;
	}
	*out = d;
	return 0;
}

static int failed(int rc, struct cpull_error *err)
{
	return rc ? error_set(err, rc, "OpenSSL failed while hashing the layer") : 0;
}

/* Hashes what waits, alone. */
static int flush(struct layer_digests *d)
{
	struct chunk *chunk = STEAL(d->waiting);
	int rc = chunk ? hasher_update(d->blob, chunk->data + d->waiting_at, chunk->len - d->waiting_at) : 0;

	chunk_put(chunk);
	return rc;
}

int layer_digests_blob(struct layer_digests *d, struct chunk *chunk, struct cpull_error *err)
{
	int rc = flush(d);

	d->waiting = chunk;
	d->waiting_at = 0;
	return failed(rc, err);
}

int layer_digests_tar(struct layer_digests *d, const struct chunk *chunk, struct cpull_error *err)
{
	size_t both = d->waiting ? MIN(d->waiting->len - d->waiting_at, (size_t)chunk->len) : 0;
	int rc = 0;

	if (both) {
		rc = hasher_update_pair(d->blob, d->waiting->data + d->waiting_at, both, d->tar, chunk->data, both);
		d->waiting_at += both;
		if (d->waiting_at == d->waiting->len)
			chunk_put(STEAL(d->waiting));
	}
	if (!rc)
		rc = hasher_update(d->tar, chunk->data + both, chunk->len - both);
	return failed(rc, err);
}

int layer_digests_check_blob(struct layer_digests *d, struct cpull_error *err)
{
	struct digest got;
	int rc;

	if (!d->blob)
		return 0;
	rc = flush(d);
	if (!rc)
		rc = hasher_final(d->blob, &got);
	return rc ? failed(rc, err) : digest_verify(d->want_blob, &got, "blob", err);
}

int layer_digests_check_diff_id(struct layer_digests *d, struct cpull_error *err)
{
	struct digest got;
	char want_text[DIGEST_TEXT_BYTES], got_text[DIGEST_TEXT_BYTES];
	int rc = hasher_final(d->tar, &got);

	if (rc)
		return failed(rc, err);
	if (digest_equal(&got, d->want_diff_id))
		return 0;
	digest_format(d->want_diff_id, want_text);
	digest_format(&got, got_text);
	return error_set(err, CPULL_ERR_DIFF_ID, "the image config promises diff_id %s, but it unpacks to %s",
			 want_text, got_text);
}

void layer_digests_free(struct layer_digests *d)
{
	if (!d)
		return;
	chunk_put(d->waiting);
	hasher_free(d->blob);
	hasher_free(d->tar);
	free(d);
}
