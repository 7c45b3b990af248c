/* SPDX-License-Identifier: Apache-2.0
 *
 * Blob digest, HMAC and diff_id of one layer. Driven by the layer's write thread, which gets the chunks of blob and tar
 * in one queue; owns the hashers and the chunk that waits for a partner.
 *
 * A blob is shorter than its tar, so nearly all of it finds tar bytes to be hashed with, mostly even twice: the digest
 * beside some of them, the HMAC beside the next. What comes too thick is hashed without: a chunk that is held for long
 * would be one that fetch lacks.
 */
#include "engine/layer_digests.h"

#include <string.h>

#include "crypto/hmac.h"
#include "engine/base/error.h"

#define BLOB_STREAMS 2u

/* One of the hashes over the blob. */
struct blob_stream {
	struct hasher *hasher; /* borrowed */
	size_t at;             /* how far into the chunk that waits */
};

struct layer_digests {
	const struct digest *want_blob, *want_diff_id;
	uint8_t want_hmac[HMAC_BYTES];
	struct hasher *blob;
	struct hmac *hmac; /* NULL for a plain layer */
	struct hasher *tar;
	struct chunk *waiting; /* of the blob */
	struct blob_stream streams[BLOB_STREAMS];
	unsigned stream_count;
};

static int start_hmac(struct layer_digests *d, const struct layer_key *key, struct cpull_error *err)
{
	int rc = hmac_new(key->symkey, &d->hmac, err);

	if (rc)
		return err ? error_wrap(err, "starting the layer's HMAC") : rc;
	memcpy(d->want_hmac, key->hmac, sizeof(d->want_hmac));
	d->streams[d->stream_count++].hasher = hmac_message(d->hmac);
	return 0;
}

int layer_digests_new(const struct digest *blob, const struct layer_key *key, const struct digest *diff_id,
		      struct layer_digests **out, struct cpull_error *err)
{
	struct layer_digests *d = calloc(1, sizeof(*d));
	int rc;

	*out = NULL;
	if (!d)
		return error_nomem(err);
	d->want_blob = blob;
	d->want_diff_id = diff_id;
	rc = hasher_new(diff_id->algorithm, &d->tar, err);
	if (!rc)
		rc = hasher_new(blob->algorithm, &d->blob, err);
	d->streams[d->stream_count++].hasher = d->blob;
	if (!rc && key)
		rc = start_hmac(d, key, err);
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

/* Hashes what waits, without the tar. */
static int flush(struct layer_digests *d)
{
	const struct blob_stream *a = &d->streams[0], *b = &d->streams[1];
	const struct chunk *chunk = d->waiting;
	int rc;

	if (!chunk)
		return 0;
	if (d->stream_count == 1)
		rc = hasher_update(a->hasher, chunk->data + a->at, chunk->len - a->at);
	else if (a->at == b->at)
		rc = hasher_update_shared(a->hasher, b->hasher, chunk->data + a->at, chunk->len - a->at);
	else
		rc = hasher_update_pair(a->hasher, chunk->data + a->at, chunk->len - a->at, b->hasher,
					chunk->data + b->at, chunk->len - b->at);
	chunk_put(STEAL(d->waiting));
	return rc;
}

int layer_digests_blob(struct layer_digests *d, struct chunk *chunk, struct cpull_error *err)
{
	int rc = flush(d);

	d->waiting = chunk;
	for (unsigned i = 0; i < d->stream_count; i++)
		d->streams[i].at = 0;
	return failed(rc, err);
}

/* Hashes what waits beside as much of the tar, and moves *tar_at. */
static int hash_beside(struct layer_digests *d, const struct chunk *tar, size_t *tar_at)
{
	size_t left = 0;
	int rc = 0;

	for (unsigned i = 0; i < d->stream_count && !rc; i++) {
		struct blob_stream *s = &d->streams[i];
		size_t both = MIN(d->waiting->len - s->at, tar->len - *tar_at);

		if (both)
			rc = hasher_update_pair(s->hasher, d->waiting->data + s->at, both, d->tar,
						tar->data + *tar_at, both);
		s->at += both;
		*tar_at += both;
		left += d->waiting->len - s->at;
	}
	if (!left)
		chunk_put(STEAL(d->waiting));
	return rc;
}

int layer_digests_tar(struct layer_digests *d, const struct chunk *chunk, struct cpull_error *err)
{
	size_t at = 0;
	int rc = d->waiting ? hash_beside(d, chunk, &at) : 0;

	if (!rc)
		rc = hasher_update(d->tar, chunk->data + at, chunk->len - at);
	return failed(rc, err);
}

static int check_hmac(struct layer_digests *d, struct cpull_error *err)
{
	bool right;
	int rc = hmac_verify(d->hmac, d->want_hmac, &right);

	if (rc)
		return failed(rc, err);
	if (!right)
		return error_set(err, CPULL_ERR_DECRYPT,
				 "ciphertext is not authentic: its HMAC is not the one in the layer's annotations; "
				 "the blob or the annotations were changed");
	return 0;
}

int layer_digests_check_blob(struct layer_digests *d, struct cpull_error *err)
{
	struct digest got;
	int rc = flush(d);

	if (!rc)
		rc = hasher_final(d->blob, &got);
	if (rc)
		return failed(rc, err);
	rc = digest_verify(d->want_blob, &got, "blob", err);
	return rc || !d->hmac ? rc : check_hmac(d, err);
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
	hmac_free(d->hmac);
	hasher_free(d->blob);
	hasher_free(d->tar);
	free(d);
}
