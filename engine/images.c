/* SPDX-License-Identifier: Apache-2.0
 *
 * The images of the store for the API's callers: list, find, remove, prune.
 */
#include <errno.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "engine/engine.h"
#include "engine/mounts.h"
#include "engine/record.h"
#include "fetch/reference.h"

struct loaded {
	struct record record;
	struct cpull_image image;
	struct cpull_layer *layers;
	struct cpull_erofs_layer *erofs; /* NULL for directories */
};

struct cpull_images {
	struct loaded *all;
	size_t count;
};

/* Calls fn for every sound record; an error of fn ends the walk. */
typedef int (*record_fn)(struct store *store, struct record *record, void *payload, struct cpull_error *err);

static int each_record(struct store *store, record_fn fn, void *payload, struct cpull_error *err)
{
	CLEANUP_DIR DIR *dir = fs_list(store->images_fd, ".");
	const char *name;
	int rc = 0;

	if (!dir)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "listing the images of store %s", store->path);
	while (!rc && (name = fs_next_name(dir))) {
		struct record record;

		if (name[0] == '.')
			continue;
		rc = record_load_file(store, name, &record, err);
		if (rc > 0) {
			rc = fn(store, &record, payload, err);
			record_free(&record);
		}
		/* what a failed look leaves unknown must not be acted on */
		if (rc)
			return rc;
	}
	return errno ? error_sys(err, CPULL_ERR_STORAGE, errno, "listing the images of store %s", store->path) : 0;
}

/* ---- list ---- */

static int fill_layers(struct store *store, struct loaded *l)
{
	const struct record *r = &l->record;

	l->layers = calloc(r->layer_count, sizeof(*l->layers));
	if (r->snapshot == CPULL_SNAPSHOT_EROFS)
		l->erofs = calloc(r->layer_count, sizeof(*l->erofs));
	if (!l->layers || (r->snapshot == CPULL_SNAPSHOT_EROFS && !l->erofs))
		return CPULL_ERR_NOMEM;
	for (size_t i = 0; i < r->layer_count; i++) {
		l->layers[i] = (struct cpull_layer){.digest = r->layers[i].digest,
						    .diff_id = r->layers[i].diff_id,
						    .media_type = r->layers[i].media_type,
						    .size = r->layers[i].size,
						    .encrypted = r->layers[i].encrypted,
						    .reused = true,
						    .path = store_layer_path(store, r->layers[i].key)};
		if (!l->layers[i].path)
			return CPULL_ERR_NOMEM;
		if (l->erofs)
			l->erofs[i] = layer_image_view(&r->layers[i].image);
	}
	return 0;
}

static void loaded_free(struct loaded *l)
{
	for (size_t i = 0; l->layers && i < l->record.layer_count; i++)
		free((char *)l->layers[i].path);
	free(l->layers);
	free(l->erofs);
	record_free(&l->record);
}

static int add_image(struct store *store, struct record *record, void *payload, struct cpull_error *err)
{
	struct cpull_images *images = payload;
	int rc = record_layers_ready(store, record, NULL, err);

	if (rc <= 0)
		return rc;

	struct loaded *grown = realloc(images->all, (images->count + 1) * sizeof(*grown));

	if (!grown)
		return error_nomem(err);
	images->all = grown;

	struct loaded *l = &grown[images->count];

	*l = (struct loaded){.record = *record};
	*record = (struct record){0};
	images->count++;
	return fill_layers(store, l) ? error_nomem(err) : 0;
}

static int by_reference(const void *a, const void *b)
{
	const struct loaded *x = a, *y = b;

	return strcmp(x->record.reference, y->record.reference);
}

/* After sorting: the views point into what no longer moves. */
static void fill_views(struct cpull_images *images)
{
	for (size_t i = 0; i < images->count; i++) {
		struct loaded *l = &images->all[i];
		const struct record *r = &l->record;

		l->image = (struct cpull_image){.reference = r->reference,
						.manifest_digest = r->manifest_digest,
						.config_digest = r->config_digest,
						.platform = r->platform,
						.layers = l->layers,
						.layer_count = r->layer_count,
						.pulled_at = r->pulled_at,
						.durable = r->durable,
						.manifest = r->manifest,
						.config = r->config,
						.snapshot = r->snapshot,
						.erofs_layers = l->erofs};
	}
}

int cpull_images_load(struct cpull_engine *engine, struct cpull_images **out, struct cpull_error *err)
{
	struct cpull_images *images = calloc(1, sizeof(*images));
	int rc;

	*out = NULL;
	if (!images)
		return error_nomem(err);
	rc = each_record(engine->store, add_image, images, err);
	if (rc) {
		cpull_images_free(images);
		return rc;
	}
	if (images->count)
		qsort(images->all, images->count, sizeof(*images->all), by_reference);
	fill_views(images);
	*out = images;
	return 0;
}

size_t cpull_images_count(const struct cpull_images *images)
{
	return images->count;
}

const struct cpull_image *cpull_images_get(const struct cpull_images *images, size_t index)
{
	return index < images->count ? &images->all[index].image : NULL;
}

void cpull_images_free(struct cpull_images *images)
{
	if (!images)
		return;
	for (size_t i = 0; i < images->count; i++)
		loaded_free(&images->all[i]);
	free(images->all);
	free(images);
}

/* ---- find ---- */

const struct cpull_image *cpull_images_find(const struct cpull_images *images, const char *name,
					    struct cpull_error *err)
{
	const struct cpull_image *found = NULL;
	struct reference reference;
	char quoted[256];

	if (!reference_parse(name, &reference, NULL)) {
		for (size_t i = 0; i < images->count; i++)
			if (strcmp(images->all[i].record.reference, reference.name) == 0)
				found = &images->all[i].image;
		reference_free(&reference);
	}
	for (size_t i = 0; !found && i < images->count; i++)
		if (record_digest_matches(images->all[i].record.manifest_digest, name))
			found = &images->all[i].image;
	if (!found)
		error_set(err, CPULL_ERR_NOT_FOUND, "image %s is not in the store; pull it first",
			  error_quote(name, strlen(name), quoted, sizeof(quoted)));
	return found;
}

/* ---- removal ---- */

/* The keys that must stay. */
struct keep {
	char **keys;
	size_t count;
};

static int keep_add(struct keep *keep, const char *key)
{
	char **grown = realloc(keep->keys, (keep->count + 1) * sizeof(*grown));

	if (!grown)
		return CPULL_ERR_NOMEM;
	keep->keys = grown;
	keep->keys[keep->count] = strdup(key);
	return keep->keys[keep->count] ? (keep->count++, 0) : CPULL_ERR_NOMEM;
}

static void keep_free(struct keep *keep)
{
	for (size_t i = 0; i < keep->count; i++)
		free(keep->keys[i]);
	free(keep->keys);
}

static bool keep_has(const struct keep *keep, const char *key)
{
	for (size_t i = 0; i < keep->count; i++)
		if (strcmp(keep->keys[i], key) == 0)
			return true;
	return false;
}

static int keep_record(struct store *store, struct record *record, void *payload, struct cpull_error *err)
{
	int rc = record_layers_ready(store, record, NULL, err);

	/* a record that cannot be used keeps nothing */
	if (rc <= 0)
		return rc;
	for (size_t i = 0; i < record->layer_count; i++)
		if (keep_add(payload, record->layers[i].key))
			return error_nomem(err);
	return 0;
}

static int keep_mounted(const char *key, void *payload)
{
	return keep_add(payload, key);
}

/* Moves every layer that nothing needs into the trash. The store is locked exclusive by the caller. */
static int collect(struct store *store, const struct keep *keep, struct cpull_removed *out, struct cpull_error *err)
{
	CLEANUP_DIR DIR *dir = fs_list(store->layers_fd, ".");
	const char *name;

	if (!dir)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "listing the layers of store %s", store->path);
	while ((name = fs_next_name(dir))) {
		if (name[0] == '.' || keep_has(keep, name))
			continue;

		int rc = store_layer_remove(store, name, err);

		if (rc < 0)
			return rc;
		out->layers += (size_t)rc;
	}
	return 0;
}

/* The store is locked exclusive by the caller: what a pull under way counts on is pinned, and what it has finished
 * is in a record by now. */
static int collect_unused(struct store *store, struct cpull_removed *out, struct cpull_error *err)
{
	struct keep keep = {0};
	int rc = each_record(store, keep_record, &keep, err);

	if (!rc)
		rc = mounts_each_key(store, keep_mounted, &keep, err);
	if (!rc)
		rc = collect(store, &keep, out, err);
	keep_free(&keep);
	return rc;
}

/* The store is locked exclusive by the caller, so that no mount comes between the look and the removal. */
static int remove_locked(struct cpull_engine *engine, const char *name, struct cpull_removed *out,
			 struct cpull_error *err)
{
	struct store *store = engine->store;
	struct cpull_images *images;
	int rc = cpull_images_load(engine, &images, err);

	if (rc)
		return rc;

	const struct cpull_image *image = cpull_images_find(images, name, err);

	rc = image ? mounts_refuse_if_used(store, image->reference, err) : CPULL_ERR_NOT_FOUND;
	if (!rc)
		rc = record_remove(store, image->reference, err);
	if (!rc) {
		out->images = 1;
		rc = collect_unused(store, out, err);
	}
	cpull_images_free(images);
	return rc;
}

int cpull_image_remove(struct cpull_engine *engine, const char *name, struct cpull_removed *out,
		       struct cpull_error *err)
{
	struct store *store = engine->store;
	struct cpull_removed removed = {0};
	int lock = store_lock(store, STORE_EXCLUSIVE, err);
	int rc = lock < 0 ? lock : remove_locked(engine, name, &removed, err);

	if (lock >= 0)
		close(lock);
	store_empty_trash(store);
	if (out)
		*out = removed;
	return rc;
}

/* Records that cannot be read, or whose layers are gone or not trusted. */
static int drop_dead_records(struct store *store, struct cpull_removed *out, struct cpull_error *err)
{
	CLEANUP_DIR DIR *dir = fs_list(store->images_fd, ".");
	const char *name;

	if (!dir)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "listing the images of store %s", store->path);
	while ((name = fs_next_name(dir))) {
		struct record record;
		int rc = record_load_file(store, name, &record, err);

		if (rc > 0) {
			rc = record_layers_ready(store, &record, NULL, err);
			record_free(&record);
		}
		if (rc < 0)
			return rc;
		if (!rc && unlinkat(store->images_fd, name, 0) == 0)
			out->images++;
	}
	return 0;
}

int cpull_prune(struct cpull_engine *engine, struct cpull_removed *out, struct cpull_error *err)
{
	struct store *store = engine->store;
	struct cpull_removed removed = {0};
	int lock = store_lock(store, STORE_EXCLUSIVE, err);
	int rc = lock < 0 ? lock : mounts_sweep(store, err);

	if (!rc)
		rc = drop_dead_records(store, &removed, err);
	if (!rc)
		rc = collect_unused(store, &removed, err);
	if (lock >= 0)
		close(lock);
	store_empty_trash(store);
	if (out)
		*out = removed;
	return rc;
}
