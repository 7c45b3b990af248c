/* SPDX-License-Identifier: Apache-2.0
 *
 * Image records: what a verified pull leaves behind so that an image can be listed, mounted and pulled again without
 * the network. A record holds the manifest and the config themselves, and is used only when their digests still
 * fit and every layer it names can be trusted.
 */
#ifndef ENGINE_RECORD_H
#define ENGINE_RECORD_H

#include "engine/store.h"

struct record_layer {
	const char *digest;
	const char *diff_id;
	const char *media_type;
	const char *key; /* of layers/ */
	uint64_t size;
	bool encrypted;
	struct layer_image image;
};

struct record {
	json_t *root; /* owns the strings */
	const char *reference;
	const char *manifest_digest;
	const char *config_digest;
	const char *platform;
	const char *wanted; /* the platform that was asked for, which for another choice means another image */
	const char *manifest;
	const char *config;
	int64_t pulled_at;
	bool durable;
	enum cpull_snapshot snapshot; /* what all layers are */
	struct record_layer *layers; /* lowest first */
	size_t layer_count;
};

/* Writes (replaces) the record of record->reference; `root` is not looked at. */
MUST_CHECK int record_save(struct store *store, const struct record *record, struct cpull_error *err);
/* 1 with *out set when there is a sound record for the reference, 0 when there is none or it is damaged, and an
 * error when that cannot be told now. Layers are not looked at. */
MUST_CHECK int record_load(struct store *store, const char *reference, struct record *out, struct cpull_error *err);
/* The same by file name in images/. */
MUST_CHECK int record_load_file(struct store *store, const char *name, struct record *out, struct cpull_error *err);
/* The same, and says why where it gives 0: a text for a person, or NULL for a record that is nobody's fault: of another
 * boot, or gone. */
MUST_CHECK int record_examine(struct store *store, const char *name, struct record *out, const char **why,
			      struct cpull_error *err);
/* Is it the name of the record of that reference? */
bool record_has_name(const char *reference, const char *name);
/* Is `name` the digest, or 12 hex digits of it at least? */
bool record_digest_matches(const char *digest, const char *name);
void record_free(struct record *record);
/* Is the same recorded already so that it outlives a reboot, layers included? Only the time may be another one. 1, 0 or
 * an error. */
MUST_CHECK int record_is_durable(struct store *store, const struct record *record, struct cpull_error *err);
/* Removes the record's file. The store must be locked exclusive. */
MUST_CHECK int record_remove(struct store *store, const char *reference, struct cpull_error *err);
/* Are all layers there and trusted? 1, 0 or an error. Pins them into refs[0…layer_count) when refs is not NULL;
 * unless all are ready none is pinned. */
MUST_CHECK int record_layers_ready(struct store *store, const struct record *record, struct layer_ref *refs,
				   struct cpull_error *err);

#endif
