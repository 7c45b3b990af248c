/* SPDX-License-Identifier: Apache-2.0
 *
 * From a reference to everything that vouches for its layers: manifest and config, each checked against what named
 * it.
 */
#ifndef ENGINE_RESOLVE_H
#define ENGINE_RESOLVE_H

#include "crypto/digest.h"
#include "engine/record.h"
#include "fetch/source.h"

struct resolved {
	struct bytes manifest_text;
	struct bytes config_text;
	struct manifest manifest;
	struct image_config config;
	struct digest *blob_digests; /* one a layer, lowest first */
	struct digest *diff_ids;
	char manifest_digest[DIGEST_TEXT_BYTES];
	char platform[100]; /* of the config */
};

/* Blocking. `known` is the record of an earlier pull of the reference or NULL: its manifest and config serve where
 * their digests are asked for, which saves the requests. On failure *out needs no freeing. */
MUST_CHECK int resolve_image(struct source *source, const struct reference *reference, const struct platform *want,
			     const struct record *known, struct log *log, struct resolved *out,
			     struct cpull_error *err);
/* The same from a record alone, without any source: for a reference by digest that is in the store. */
MUST_CHECK int resolve_record(const struct record *known, struct resolved *out, struct cpull_error *err);
void resolved_free(struct resolved *resolved);

#endif
