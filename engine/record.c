/* SPDX-License-Identifier: Apache-2.0
 *
 * Image records. Called from pull threads and API callers; the files are replaced by rename, so a reader sees one
 * record or the other.
 */
#include "engine/record.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "crypto/digest.h"
#include "engine/base/error.h"
#include "engine/base/fs.h"

#define RECORD_VERSION 1
#define SHORT_DIGEST_HEX 12u /* shorter prefixes are ambiguous sooner or later */
#define RECORD_NAME_BYTES (64 + sizeof(".json"))

/* A reference may be longer than a file name and holds slashes: its hash names the file. */
static int record_name(const char *reference, char out[RECORD_NAME_BYTES])
{
	struct digest digest;
	int rc = digest_compute(DIGEST_SHA256, reference, strlen(reference), "record's name", &digest, NULL);

	if (rc)
		return rc;
	hex_encode(digest.value, 32, out);
	memcpy(out + 64, ".json", sizeof(".json"));
	return 0;
}

static json_t *pack_layers(const struct record *record)
{
	json_t *layers = json_array();

	for (size_t i = 0; layers && i < record->layer_count; i++) {
		const struct record_layer *l = &record->layers[i];
		json_t *one = json_pack("{s:s, s:s, s:s, s:s, s:I, s:b}", "digest", l->digest, "diff_id", l->diff_id,
					"media_type", l->media_type, "key", l->key, "size", (json_int_t)l->size,
					"encrypted", l->encrypted);

		if (one && layer_image_put(one, &l->image)) {
			json_decref(one);
			one = NULL;
		}
		if (json_array_append_new(layers, one)) {
			json_decref(layers);
			return NULL;
		}
	}
	return layers;
}

int record_save(struct store *store, const struct record *record, struct cpull_error *err)
{
	char name[RECORD_NAME_BYTES];
	json_t *layers = pack_layers(record);
	CLEANUP_JSON json_t *root =
	    json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:I, s:s, s:s, s:s, s:o}", "version", RECORD_VERSION,
		      "reference", record->reference, "manifest_digest", record->manifest_digest, "config_digest",
		      record->config_digest, "platform", record->platform, "wanted", record->wanted, "boot_id",
		      store->boot_id, "durable", record->durable, "pulled_at", (json_int_t)record->pulled_at,
		      "snapshot", snapshot_text(record->snapshot), "manifest", record->manifest, "config",
		      record->config, "layers", layers);
	CLEANUP_FREE char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;

	if (!text)
		return error_nomem(err);
	if (record_name(record->reference, name))
		return error_nomem(err);

	CLEANUP_FD int lock = store_lock(store, STORE_SHARED, err);

	if (lock < 0)
		return lock;
	return fs_replace_file(store->images_fd, name, text, strlen(text), record->durable, err);
}

/* The stored text must still be what its digest says (a damaged store is found, not believed). 1, 0 or an error. */
static int text_fits(const char *digest_text, const char *text, struct cpull_error *err)
{
	struct digest digest;

	if (!digest_text || !text || digest_parse(digest_text, &digest, NULL))
		return 0;

	struct cpull_error why = {0};
	int rc = digest_check(&digest, text, strlen(text), "record", &why);

	return rc == 0 ? 1 : rc == CPULL_ERR_DIGEST ? 0 : error_copy(err, &why);
}

static bool read_layer(const json_t *from, enum cpull_snapshot snapshot, struct record_layer *out)
{
	out->digest = json_string_at(from, "digest");
	out->diff_id = json_string_at(from, "diff_id");
	out->media_type = json_string_at(from, "media_type");
	out->key = json_string_at(from, "key");
	out->encrypted = json_is_true(json_object_get(from, "encrypted"));
	/* the key becomes a path */
	if (!out->digest || !out->diff_id || !out->media_type || !out->key || strchr(out->key, '/') ||
	    out->key[0] == '.' || strlen(out->key) >= STORE_KEY_BYTES || !json_u64_at(from, "size", &out->size))
		return false;

	enum layer_form form = layer_form_of_key(out->key);

	return layer_form_snapshot(form) == snapshot && layer_image_read(from, form, &out->image);
}

static int read_layers(const json_t *from, struct record *out, struct cpull_error *err)
{
	size_t count = json_array_size(from);

	if (count == 0 || count > LIMIT_LAYERS)
		return 0;
	out->layers = calloc(count, sizeof(*out->layers));
	if (!out->layers)
		return error_nomem(err);
	out->layer_count = count;
	for (size_t i = 0; i < count; i++)
		if (!read_layer(json_array_get(from, i), out->snapshot, &out->layers[i]))
			return 0;
	return 1;
}

static int read_record(struct store *store, struct record *out, const char **why, struct cpull_error *err)
{
	const char *boot = json_string_at(out->root, "boot_id");

	out->reference = json_string_at(out->root, "reference");
	out->manifest_digest = json_string_at(out->root, "manifest_digest");
	out->config_digest = json_string_at(out->root, "config_digest");
	out->platform = json_string_at(out->root, "platform");
	out->wanted = json_string_at(out->root, "wanted");
	out->manifest = json_string_at(out->root, "manifest");
	out->config = json_string_at(out->root, "config");
	out->pulled_at = json_integer_value(json_object_get(out->root, "pulled_at"));
	out->durable = json_is_true(json_object_get(out->root, "durable"));
	*why = "a member of the record is missing or of the wrong kind";
	if (!out->reference || !out->platform || !out->wanted || !boot || !snapshot_read(out->root, &out->snapshot))
		return 0;
	*why = NULL;
	if (!out->durable && strcmp(boot, store->boot_id) != 0)
		return 0;

	int rc = text_fits(out->manifest_digest, out->manifest, err);

	*why = "its manifest is not what its digest says";
	if (rc > 0) {
		rc = text_fits(out->config_digest, out->config, err);
		*why = "its configuration is not what its digest says";
	}
	if (rc > 0) {
		rc = read_layers(json_object_get(out->root, "layers"), out, err);
		*why = "its list of layers makes no sense";
	}
	return rc;
}

int record_examine(struct store *store, const char *name, struct record *out, const char **why,
		   struct cpull_error *err)
{
	CLEANUP_FREE char *path = format_string("%s/images/%s", store->path, name);
	CLEANUP_BYTES struct bytes text = {0};
	struct cpull_error failure = {0};
	int rc;

	*out = (struct record){0};
	*why = NULL;
	if (!path)
		return error_nomem(err);
	rc = file_read(path, LIMIT_RECORD_BYTES, "record", &text, &failure);
	if (rc == CPULL_ERR_LIMIT)
		*why = "the record is longer than any can be";
	if (rc)
		return rc == CPULL_ERR_NOT_FOUND || rc == CPULL_ERR_LIMIT ? 0 : error_copy(err, &failure);
	*why = "the record is no JSON";
	rc = json_parse(text.data, text.len, CPULL_ERR_STORAGE, "record", &out->root, &failure);
	if (rc)
		return rc == CPULL_ERR_NOMEM ? error_copy(err, &failure) : 0;
	rc = read_record(store, out, why, err);
	if (rc <= 0)
		record_free(out);
	return rc;
}

static bool is_hex(const char *text)
{
	return text[strspn(text, "0123456789abcdef")] == 0;
}

bool record_digest_matches(const char *digest, const char *name)
{
	const char *hex = strchr(digest, ':');

	if (strcmp(digest, name) == 0)
		return true;
	return hex && strlen(name) >= SHORT_DIGEST_HEX && is_hex(name) && strncmp(hex + 1, name, strlen(name)) == 0;
}

int record_load_file(struct store *store, const char *name, struct record *out, struct cpull_error *err)
{
	const char *why;

	return record_examine(store, name, out, &why, err);
}

bool record_has_name(const char *reference, const char *name)
{
	char want[RECORD_NAME_BYTES];

	return record_name(reference, want) == 0 && strcmp(want, name) == 0;
}

int record_load(struct store *store, const char *reference, struct record *out, struct cpull_error *err)
{
	char name[RECORD_NAME_BYTES];

	if (record_name(reference, name))
		return error_nomem(err);

	int rc = record_load_file(store, name, out, err);

	if (rc <= 0 || strcmp(out->reference, reference) == 0)
		return rc;
	record_free(out);
	return 0;
}

void record_free(struct record *record)
{
	free(record->layers);
	json_decref(record->root);
	*record = (struct record){0};
}

static bool same_image(const struct record *a, const struct record *b)
{
	bool same = strcmp(a->manifest_digest, b->manifest_digest) == 0 && strcmp(a->wanted, b->wanted) == 0 &&
		    a->layer_count == b->layer_count;

	for (size_t i = 0; same && i < a->layer_count; i++)
		same = strcmp(a->layers[i].key, b->layers[i].key) == 0;
	return same;
}

int record_is_durable(struct store *store, const struct record *record, struct cpull_error *err)
{
	struct record have;
	int rc = record_load(store, record->reference, &have, err);

	if (rc <= 0)
		return rc;
	rc = have.durable && same_image(&have, record);
	for (size_t i = 0; rc > 0 && i < have.layer_count; i++)
		rc = store_layer_durable(store, have.layers[i].key, err);
	record_free(&have);
	return rc;
}

int record_remove(struct store *store, const char *reference, struct cpull_error *err)
{
	char name[RECORD_NAME_BYTES];

	if (record_name(reference, name))
		return error_nomem(err);
	if (unlinkat(store->images_fd, name, 0) && errno != ENOENT)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "removing the record of %s", reference);
	return 0;
}

int record_layers_ready(struct store *store, const struct record *record, struct layer_ref *refs,
			struct cpull_error *err)
{
	for (size_t i = 0; i < record->layer_count; i++) {
		const char *key = record->layers[i].key;
		int rc = refs ? store_layer_pin(store, key, &refs[i], err) : store_layer_trusted(store, key, err);

		if (rc > 0)
			continue;
		while (refs && i-- > 0)
			layer_ref_drop(&refs[i]);
		return rc;
	}
	return 1;
}
