/* SPDX-License-Identifier: Apache-2.0
 *
 * What a layer of the store is: a directory, or an EROFS image with or without a hash tree, and what is recorded of an
 * image.
 */
#ifndef ENGINE_LAYER_FORM_H
#define ENGINE_LAYER_FORM_H

#include "engine/base/json.h"
#include "snapshot/contents_writer.h"
#include "snapshot/verity_format.h"

enum layer_form { LAYER_DIRECTORY, LAYER_EROFS, LAYER_EROFS_VERITY };

/* Of an EROFS image; all zero for a directory. */
struct layer_image {
	uint64_t blocks;                           /* without the hash tree, which lies behind them */
	char root_hash[2 * VERITY_HASH_BYTES + 1]; /* hex, "" without a tree */
};

static inline bool layer_form_is_erofs(enum layer_form form)
{
	return form != LAYER_DIRECTORY;
}

static inline enum cpull_snapshot layer_form_snapshot(enum layer_form form)
{
	return layer_form_is_erofs(form) ? CPULL_SNAPSHOT_EROFS : CPULL_SNAPSHOT_OVERLAY;
}

/* What the key of such a layer ends with: "", ".erofs", ".verity.erofs". */
const char *layer_form_suffix(enum layer_form form);
enum layer_form layer_form_of_key(const char *key);
/* The layer's content in its directory of the store: "fs", "layer.erofs". */
const char *layer_form_content(enum layer_form form);

/* "overlay", "erofs": the value of "snapshot" in JSON files. */
const char *snapshot_text(enum cpull_snapshot snapshot);
/* False when it is neither. A missing one is CPULL_SNAPSHOT_OVERLAY. */
bool snapshot_read(const json_t *object, enum cpull_snapshot *out);

/* Sets "blocks" and "verity" of a JSON object; nothing for a directory. Not 0 when memory is out. */
MUST_CHECK int layer_image_put(json_t *object, const struct layer_image *image);
/* Reads them. False when they are not what a layer of that form has. */
bool layer_image_read(const json_t *object, enum layer_form form, struct layer_image *out);
/* What a layer is checked by, if not by a hash tree, in its directory of the store. */
#define LAYER_CONTENTS_FILE "contents"
/* Sets "contents" of a JSON object; nothing where there is no such file. Not 0 when memory is out. */
MUST_CHECK int layer_contents_put(json_t *object, const struct contents_facts *contents);
/* Reads it: 0 bytes when there is none. False when it makes no sense. */
bool layer_contents_read(const json_t *object, struct contents_facts *out);
/* Size of the file, hash tree included. */
uint64_t layer_image_bytes(const struct layer_image *image);
/* The root hash as bytes. False when there is none. */
bool layer_image_root(const struct layer_image *image, uint8_t out[VERITY_HASH_BYTES]);
/* For the API; points into image. */
struct cpull_erofs_layer layer_image_view(const struct layer_image *image);

#endif
