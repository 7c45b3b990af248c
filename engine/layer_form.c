/* SPDX-License-Identifier: Apache-2.0
 *
 * The forms that a layer can have, in keys and in the JSON files of the store. Pure; any thread.
 */
#include "engine/layer_form.h"

#include <string.h>

/* As veritysetup calls it. */
#define ALGORITHM "sha256"

static const char *const suffixes[] = {
	[LAYER_DIRECTORY] = "", [LAYER_EROFS] = ".erofs", [LAYER_EROFS_VERITY] = ".verity.erofs"};

const char *layer_form_suffix(enum layer_form form)
{
	return suffixes[form];
}

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), end_len = strlen(end);

	return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

enum layer_form layer_form_of_key(const char *key)
{
	if (ends_with(key, suffixes[LAYER_EROFS_VERITY]))
		return LAYER_EROFS_VERITY;
	return ends_with(key, suffixes[LAYER_EROFS]) ? LAYER_EROFS : LAYER_DIRECTORY;
}

const char *layer_form_content(enum layer_form form)
{
	return layer_form_is_erofs(form) ? "layer.erofs" : "fs";
}

const char *snapshot_text(enum cpull_snapshot snapshot)
{
	return snapshot == CPULL_SNAPSHOT_EROFS ? "erofs" : "overlay";
}

bool snapshot_read(const json_t *object, enum cpull_snapshot *out)
{
	const json_t *member = json_object_get(object, "snapshot");
	const char *text = json_string_value(member);

	*out = CPULL_SNAPSHOT_OVERLAY;
	if (!member || (text && strcmp(text, snapshot_text(CPULL_SNAPSHOT_OVERLAY)) == 0))
		return true;
	*out = CPULL_SNAPSHOT_EROFS;
	return text && strcmp(text, snapshot_text(CPULL_SNAPSHOT_EROFS)) == 0;
}

int layer_image_put(json_t *object, const struct layer_image *image)
{
	json_int_t blocks = (json_int_t)image->blocks;

	if (!image->blocks)
		return 0;
	if (json_object_set_new(object, "blocks", json_integer(blocks)))
		return -1;
	if (!image->root_hash[0])
		return 0;
	return json_object_set_new(object, "verity",
				   json_pack("{s:s, s:I, s:I, s:s, s:s}", "root_hash", image->root_hash, "data_blocks",
					     blocks, "hash_offset", blocks * VERITY_BLOCK_BYTES, "salt", "",
					     "algorithm", ALGORITHM));
}

static bool text_is(const json_t *object, const char *key, const char *want)
{
	const char *text = json_string_at(object, key);

	return text && strcmp(text, want) == 0;
}

static bool number_is(const json_t *object, const char *key, uint64_t want)
{
	uint64_t number;

	return json_u64_at(object, key, &number) && number == want;
}

/* Nothing but trees as they are made here. */
static bool read_verity(const json_t *verity, struct layer_image *out)
{
	const char *root = json_string_at(verity, "root_hash");

	if (!root || strlen(root) != 2 * VERITY_HASH_BYTES || root[strspn(root, "0123456789abcdef")] != 0)
		return false;
	memcpy(out->root_hash, root, sizeof(out->root_hash));
	return number_is(verity, "data_blocks", out->blocks) &&
	       number_is(verity, "hash_offset", out->blocks * VERITY_BLOCK_BYTES) && text_is(verity, "salt", "") &&
	       text_is(verity, "algorithm", ALGORITHM);
}

bool layer_image_read(const json_t *object, enum layer_form form, struct layer_image *out)
{
	*out = (struct layer_image){0};
	if (form == LAYER_DIRECTORY)
		return true;
	if (!json_u64_at(object, "blocks", &out->blocks) || !out->blocks || out->blocks > VERITY_DATA_BLOCKS)
		return false;
	return form == LAYER_EROFS || read_verity(json_object_get(object, "verity"), out);
}

int layer_contents_put(json_t *object, const struct contents_facts *contents)
{
	char sum[17];

	if (!contents->bytes)
		return 0;
	snprintf(sum, sizeof(sum), "%016llx", (unsigned long long)contents->sum);
	return json_object_set_new(object, "contents",
				   json_pack("{s:I, s:s}", "bytes", (json_int_t)contents->bytes, "xxh3", sum));
}

bool layer_contents_read(const json_t *object, struct contents_facts *out)
{
	const json_t *contents = json_object_get(object, "contents");
	const char *sum = json_string_at(contents, "xxh3");

	*out = (struct contents_facts){0};
	if (!contents)
		return true;
	if (!sum || strlen(sum) != 16 || sum[strspn(sum, "0123456789abcdef")] != 0 ||
	    !json_u64_at(contents, "bytes", &out->bytes) || !out->bytes || out->bytes > LIMIT_CONTENTS_BYTES)
		return false;
	out->sum = strtoull(sum, NULL, 16);
	return true;
}

uint64_t layer_image_bytes(const struct layer_image *image)
{
	if (!image->root_hash[0])
		return image->blocks * VERITY_BLOCK_BYTES;
	return verity_shape_of(image->blocks).end * VERITY_BLOCK_BYTES;
}

static unsigned digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

bool layer_image_root(const struct layer_image *image, uint8_t out[VERITY_HASH_BYTES])
{
	if (strlen(image->root_hash) != 2 * VERITY_HASH_BYTES)
		return false;
	for (size_t i = 0; i < VERITY_HASH_BYTES; i++)
		out[i] = (uint8_t)(digit(image->root_hash[2 * i]) << 4 | digit(image->root_hash[2 * i + 1]));
	return true;
}

struct cpull_erofs_layer layer_image_view(const struct layer_image *image)
{
	return (struct cpull_erofs_layer){.file_bytes = layer_image_bytes(image),
					  .data_blocks = image->blocks,
					  .root_hash = image->root_hash[0] ? image->root_hash : NULL};
}
