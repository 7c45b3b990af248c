/* SPDX-License-Identifier: Apache-2.0
 *
 * The plan of a pull: one step a layer, made before the first layer byte is asked for. Runs on the pull's thread.
 */
#include <string.h>

#include "engine/base/error.h"
#include "engine/pull.h"
#include "snapshot/erofs_mount.h"

/* An image that is asked for as EROFS comes as EROFS, for its files may be wanted elsewhere. */
static int choose_form(struct cpull_pull *pull, struct cpull_error *err)
{
	struct log *log = &pull->engine->log;
	struct cpull_error why = {0};

	pull->form = LAYER_DIRECTORY;
	if (pull->snapshot == CPULL_SNAPSHOT_OVERLAY)
		return 0;

	bool possible = erofs_mount_possible(pull->engine->store->fd, &why) == 0;

	if (!possible && pull->snapshot == CPULL_SNAPSHOT_AUTO && pull->verity)
		return error_set(err, CPULL_ERR_UNSUPPORTED,
				 "hash trees are of EROFS images, which cannot be mounted here: %s", why.message);
	if (!possible && pull->snapshot == CPULL_SNAPSHOT_AUTO) {
		log_info(log, "layers become directories, as EROFS cannot be mounted here: %s", why.message);
		return 0;
	}
	if (!possible)
		log_warn(log, "layers become EROFS images, which cannot be mounted here: %s", why.message);
	pull->form = pull->verity ? LAYER_EROFS_VERITY : LAYER_EROFS;
	return 0;
}

/* The chain id names a layer together with all below it (image-spec, "Layer ChainID"). */
static int next_chain(char chain[DIGEST_TEXT_BYTES], const char *diff_id)
{
	char text[2 * DIGEST_TEXT_BYTES + 2];
	struct digest digest;

	if (!chain[0]) {
		snprintf(chain, DIGEST_TEXT_BYTES, "%s", diff_id);
		return 0;
	}
	snprintf(text, sizeof(text), "%s %s", chain, diff_id);

	int rc = digest_compute(DIGEST_SHA256, text, strlen(text), "chain id", &digest, NULL);

	if (!rc)
		digest_format(&digest, chain);
	return rc;
}

static int fill_layers(struct cpull_pull *pull, struct cpull_error *err)
{
	char chain[DIGEST_TEXT_BYTES] = "";

	for (size_t i = 0; i < pull->layer_count; i++) {
		struct pull_layer *l = &pull->layers[i];

		l->desc = &pull->resolved.manifest.layers[i];
		l->blob_digest = &pull->resolved.blob_digests[i];
		l->diff_id = &pull->resolved.diff_ids[i];
		l->diff_id_text = pull->resolved.config.diff_ids[i];
		l->ref.fd = -1;
		l->same_as = -1;
		for (size_t k = 0; k < i && l->same_as < 0; k++)
			if (digest_equal(l->diff_id, pull->layers[k].diff_id))
				l->same_as = (ssize_t)k;
		/* "base": content that has no layers below it is content of its own kind */
		snprintf(l->parents, sizeof(l->parents), "%.*s", STORE_PARENTS_HEX,
			 chain[0] ? strchr(chain, ':') + 1 : "base");
		if (next_chain(chain, l->diff_id_text))
			return error_nomem(err);
	}
	return 0;
}

static int check_encrypted(const struct cpull_pull *pull, struct cpull_error *err)
{
	for (size_t i = 0; pull->require_encrypted && i < pull->layer_count; i++)
		if (!pull->layers[i].desc->encrypted)
			return error_set(err, CPULL_ERR_POLICY,
					 "layer %zu/%zu %s is not encrypted, and encryption is required", i + 1,
					 pull->layer_count, pull->layers[i].desc->digest);
	return 0;
}

/* Every key is unwrapped before the first layer byte, also for layers that are in the store: whoever has no key gets
 * nothing, however warm the store is. The store holds what came encrypted back from anyone who has not got that very
 * key, since a manifest that names a layer's diff_id, plain or with a wrap of another key, is easily made. */
static int unwrap_keys(struct cpull_pull *pull, struct cpull_error *err)
{
	for (size_t i = 0; i < pull->layer_count; i++) {
		struct pull_layer *l = &pull->layers[i];

		if (!l->desc->encrypted)
			continue;

		int rc = ocicrypt_unwrap(pull->keys, l->desc->annotations, &l->key, err);

		if (!rc)
			rc = layer_key_print(l->key, l->key_print, err);
		if (rc)
			return error_wrap(err, "layer %zu/%zu %s", i + 1, pull->layer_count, l->desc->digest);
	}
	return 0;
}

static int find_present(struct cpull_pull *pull, struct cpull_error *err)
{
	for (size_t i = 0; i < pull->layer_count; i++) {
		struct pull_layer *l = &pull->layers[i];
		struct layer_wish wish = pull_layer_wish(pull, l);
		int rc = store_layer_find(pull->engine->store, &wish, &l->ref, err);

		if (rc < 0)
			return rc;
		if (!rc)
			continue;
		l->step = STEP_READY;
		l->reused = true;
	}
	return 0;
}

/* Largest first: a big layer that starts last is what everybody waits for at the end. */
static int compare_size(const void *a, const void *b, void *payload)
{
	const struct pull_layer *layers = payload;
	uint64_t x = layers[*(const size_t *)a].desc->size, y = layers[*(const size_t *)b].desc->size;

	return x < y ? 1 : x > y ? -1 : 0;
}

int pull_plan(struct cpull_pull *pull, struct cpull_error *err)
{
	int rc = choose_form(pull, err);

	if (rc)
		return rc;
	pull->layer_count = pull->resolved.manifest.layer_count;
	pull->layers = calloc(pull->layer_count, sizeof(*pull->layers));
	pull->order = calloc(pull->layer_count, sizeof(*pull->order));
	if (!pull->layers || !pull->order)
		return error_nomem(err);

	rc = fill_layers(pull, err);
	if (!rc)
		rc = check_encrypted(pull, err);
	if (!rc)
		rc = unwrap_keys(pull, err);
	if (!rc)
		rc = find_present(pull, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < pull->layer_count; i++)
		pull->order[i] = i;
	qsort_r(pull->order, pull->layer_count, sizeof(*pull->order), compare_size, pull->layers);
	return 0;
}
