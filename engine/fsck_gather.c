/* SPDX-License-Identifier: Apache-2.0
 *
 * What a check of the store has to look at: the records of images and mounts, which are checked here, and the layers
 * that they or nothing names. On the caller's thread; nothing is locked, for records are replaced whole, and a layer
 * that has gone meanwhile is asked for again (fsck_layers.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "engine/fsck.h"
#include "engine/mounts.h"
#include "engine/record.h"
#include "fetch/reference.h"
#include "snapshot/checksum.h"

#define NONE UINT32_MAX

struct gather {
	struct fsck *fsck;
	struct map by_key; /* hash of a layer's key → number */
	size_t layer_cap;
	bool *found;       /* of options->images */
	char **names;      /* of those, as references; NULL for what can only be a digest */
};

int fsck_trouble(struct fsck *fsck, const char *image, const char *path, const char *what, const char *advice)
{
	struct fsck_trouble *grown = realloc(fsck->troubles, (fsck->trouble_count + 1) * sizeof(*grown));

	if (!grown)
		return CPULL_ERR_NOMEM;
	fsck->troubles = grown;
	grown[fsck->trouble_count++] = (struct fsck_trouble){.image = image ? strdup(image) : NULL,
							     .path = strdup(path),
							     .what = strdup(what),
							     .advice = strdup(advice)};

	const struct fsck_trouble *t = &grown[fsck->trouble_count - 1];

	return (t->image || !image) && t->path && t->what && t->advice ? 0 : CPULL_ERR_NOMEM;
}

/* ---- layers ---- */

static struct fsck_layer *add_layer(struct gather *gather, const char *key)
{
	struct fsck *fsck = gather->fsck;
	uint64_t hash = checksum_of(key, strlen(key)) | 1;
	uint32_t number = map_get(&gather->by_key, hash, NONE);

	/* two keys may have one sum: then the second is looked at, too */
	if (number != NONE && strcmp(fsck->layers[number].key, key) == 0)
		return &fsck->layers[number];
	if (fsck->layer_count == gather->layer_cap) {
		size_t cap = gather->layer_cap ? gather->layer_cap * 2 : 16;
		struct fsck_layer *grown = realloc(fsck->layers, cap * sizeof(*grown));

		if (!grown)
			return NULL;
		fsck->layers = grown;
		gather->layer_cap = cap;
	}

	struct fsck_layer *layer = &fsck->layers[fsck->layer_count];

	memset(layer, 0, sizeof(*layer));
	layer->exam.ref.fd = layer->exam.contents_fd = -1;
	layer->key = strdup(key);
	if (!layer->key || map_put(&gather->by_key, hash, (uint32_t)fsck->layer_count)) {
		free(layer->key);
		return NULL;
	}
	fsck->layer_count++;
	return layer;
}

static bool same_image(const struct layer_image *a, const struct layer_image *b)
{
	return a->blocks == b->blocks && strcmp(a->root_hash, b->root_hash) == 0;
}

static int add_user(struct fsck_layer *layer, const char *image, const struct layer_image *recorded)
{
	const char **grown;

	if (!layer->needed)
		layer->recorded = *recorded;
	layer->disputed |= !same_image(&layer->recorded, recorded);

	/* an image may have a layer twice */
	if (layer->image_count && layer->images[layer->image_count - 1] == image)
		return 0;
	grown = realloc(layer->images, (layer->image_count + 1) * sizeof(*grown));
	if (!grown)
		return CPULL_ERR_NOMEM;
	layer->images = grown;
	grown[layer->image_count++] = image;
	layer->needed = true;
	return 0;
}

static int add_image(struct gather *gather, const struct record *record)
{
	struct fsck *fsck = gather->fsck;
	char **grown = realloc(fsck->images, (fsck->image_count + 1) * sizeof(*grown));

	if (!grown)
		return CPULL_ERR_NOMEM;
	fsck->images = grown;
	grown[fsck->image_count] = strdup(record->reference);
	if (!grown[fsck->image_count])
		return CPULL_ERR_NOMEM;

	const char *image = grown[fsck->image_count++];

	for (size_t i = 0; i < record->layer_count; i++) {
		struct fsck_layer *layer = add_layer(gather, record->layers[i].key);

		if (!layer || add_user(layer, image, &record->layers[i].image))
			return CPULL_ERR_NOMEM;
	}
	return 0;
}

/* ---- records ---- */

/* Was it asked for? Names it stands for are found. */
static bool wanted(struct gather *gather, const struct record *record)
{
	const struct cpull_fsck_options *o = gather->fsck->options;
	bool any = !o->image_count;

	for (size_t i = 0; i < o->image_count; i++) {
		const char *name = gather->names[i];

		if ((!name || strcmp(name, record->reference) != 0) &&
		    !record_digest_matches(record->manifest_digest, o->images[i]))
			continue;
		gather->found[i] = any = true;
	}
	return any;
}

/* A record that cannot be read: the reference that was asked for, "" when all are, NULL when it is another's. */
static const char *wanted_file(struct gather *gather, const char *file)
{
	const struct cpull_fsck_options *o = gather->fsck->options;

	for (size_t i = 0; i < o->image_count; i++) {
		if (!gather->names[i] || !record_has_name(gather->names[i], file))
			continue;
		gather->found[i] = true;
		return gather->names[i];
	}
	return o->image_count ? NULL : "";
}

static int damaged_record(struct gather *gather, const char *file, const char *why)
{
	const char *image = wanted_file(gather, file);
	CLEANUP_FREE char *path = format_string("images/%s", file);

	if (!image)
		return 0;
	if (!path)
		return CPULL_ERR_NOMEM;
	return fsck_trouble(gather->fsck, *image ? image : NULL, path, why,
			    *image ? "pull the image again" : "pull the image again, or run coco-pull prune");
}

static int gather_record(struct gather *gather, const char *file, struct cpull_error *err)
{
	struct fsck *fsck = gather->fsck;
	struct record record;
	const char *why;
	int rc = record_examine(fsck->store, file, &record, &why, err);

	if (rc < 0)
		return rc;
	if (rc == 0) {
		if (!why)
			log_info(&fsck->engine->log, "leftover: images/%s is of another boot", file);
		return why && damaged_record(gather, file, why) ? error_nomem(err) : 0;
	}
	if (!record_has_name(record.reference, file))
		rc = damaged_record(gather, file, "the record is of another image than its name says");
	else
		rc = wanted(gather, &record) ? add_image(gather, &record) : 0;
	record_free(&record);
	return rc ? error_nomem(err) : 0;
}

static int gather_records(struct gather *gather, struct cpull_error *err)
{
	struct store *store = gather->fsck->store;
	CLEANUP_DIR DIR *dir = fs_list(store->images_fd, ".");
	const char *file;
	int rc = 0;

	if (!dir)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "listing the images of store %s", store->path);
	while (!rc && (file = fs_next_name(dir)))
		rc = file[0] == '.' ? 0 : gather_record(gather, file, err);
	if (!rc && errno)
		rc = error_sys(err, CPULL_ERR_STORAGE, errno, "listing the images of store %s", store->path);
	return rc;
}

static int check_found(const struct gather *gather, struct cpull_error *err)
{
	const struct cpull_fsck_options *o = gather->fsck->options;
	char quoted[256];

	for (size_t i = 0; i < o->image_count; i++)
		if (!gather->found[i])
			return error_set(err, CPULL_ERR_NOT_FOUND, "image %s is not in the store; pull it first",
					 error_quote(o->images[i], strlen(o->images[i]), quoted, sizeof(quoted)));
	return 0;
}

/* ---- the rest of the store ---- */

static int gather_layers(struct gather *gather, struct cpull_error *err)
{
	struct store *store = gather->fsck->store;
	CLEANUP_DIR DIR *dir = fs_list(store->layers_fd, ".");
	const char *key;

	if (!dir)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "listing the layers of store %s", store->path);
	while ((key = fs_next_name(dir)))
		if (key[0] != '.' && strlen(key) < STORE_KEY_BYTES && !add_layer(gather, key))
			return error_nomem(err);
	return errno ? error_sys(err, CPULL_ERR_STORAGE, errno, "listing the layers of store %s", store->path) : 0;
}

static int wrong_mount(void *payload, const char *id, const char *dir, const char *reference, const char *what,
		       struct cpull_error *err)
{
	struct gather *gather = payload;
	CLEANUP_FREE char *path = format_string("mounts/%s/mount.json", id);
	CLEANUP_FREE char *advice = dir ? format_string("unmount %s, then pull %s again", dir, reference)
					: format_string("unmount by umount(8) what is mounted of this store, then run "
							"coco-pull prune");

	if (!path || !advice || fsck_trouble(gather->fsck, reference, path, what, advice))
		return error_nomem(err);
	return 0;
}

static void tell_leftovers(const struct fsck *fsck)
{
	CLEANUP_DIR DIR *dir = fs_list(fsck->store->staging_fd, ".");
	const char *name;

	while (dir && (name = fs_next_name(dir))) {
		CLEANUP_FD int fd = fs_open_dir(fsck->store->staging_fd, name);

		if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) == 0)
			log_info(&fsck->engine->log, "leftover: staging/%s, whose owner is gone", name);
	}
}

/* ---- all of it ---- */

static int parse_names(struct gather *gather, struct cpull_error *err)
{
	const struct cpull_fsck_options *o = gather->fsck->options;

	gather->found = calloc(o->image_count + 1, sizeof(*gather->found));
	gather->names = calloc(o->image_count + 1, sizeof(*gather->names));
	if (!gather->found || !gather->names)
		return error_nomem(err);
	for (size_t i = 0; i < o->image_count; i++) {
		struct reference reference;

		if (reference_parse(o->images[i], &reference, NULL))
			continue;
		gather->names[i] = strdup(reference.name);
		reference_free(&reference);
		if (!gather->names[i])
			return error_nomem(err);
	}
	return 0;
}

static int by_key(const void *a, const void *b)
{
	const struct fsck_layer *x = a, *y = b;

	return strcmp(x->key, y->key);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int gather_all(struct gather *gather, struct cpull_error *err)
{
	struct fsck *fsck = gather->fsck;
	bool all = !fsck->options->image_count;
	int rc = parse_names(gather, err);

	if (!rc)
		rc = gather_records(gather, err);
	if (!rc)
		rc = check_found(gather, err);
	if (!rc && all)
		rc = gather_layers(gather, err);
	if (!rc && all)
		rc = mounts_examine(fsck->store, wrong_mount, gather, err);
	if (!rc && all)
		tell_leftovers(fsck);
	if (rc)
		return rc;
	if (fsck->layer_count)
		qsort(fsck->layers, fsck->layer_count, sizeof(*fsck->layers), by_key);
	for (size_t i = 0; i < fsck->layer_count; i++)
		if (fsck->layers[i].image_count)
			qsort(fsck->layers[i].images, fsck->layers[i].image_count, sizeof(char *), by_text);
	return 0;
}

int fsck_gather(struct fsck *fsck, struct cpull_error *err)
{
	struct gather gather = {.fsck = fsck};
	int rc = gather_all(&gather, err);

	map_free(&gather.by_key);
	for (size_t i = 0; gather.names && i < fsck->options->image_count; i++)
		free(gather.names[i]);
	free(gather.names);
	free(gather.found);
	return rc;
}
