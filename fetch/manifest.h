/* SPDX-License-Identifier: Apache-2.0
 *
 * Docker schema 2 and OCI manifests, lists and indexes, and the image config: strict parsing and platform
 * selection. Pure: bytes in, structs out.
 */
#ifndef FETCH_MANIFEST_H
#define FETCH_MANIFEST_H

#include "engine/base/json.h"
#include "engine/base/limits.h"

struct platform {
	char os[32];
	char arch[32];
	char variant[32]; /* "" when none was asked for */
};

/* "os/arch[/variant]"; text NULL: this machine's. CPULL_ERR_USAGE. */
MUST_CHECK int platform_parse(const char *text, struct platform *out, struct cpull_error *err);
/* "linux/arm64/v8" into out. */
void platform_format(const struct platform *platform, char out[100]);

enum document_kind { DOCUMENT_MANIFEST, DOCUMENT_INDEX };

enum layer_compression { COMPRESSION_NONE, COMPRESSION_GZIP, COMPRESSION_ZSTD, COMPRESSION_UNKNOWN };

struct descriptor {
	const char *media_type;
	const char *digest;
	uint64_t size;
	json_t *annotations; /* object or NULL, borrowed from the document */
	json_t *urls;        /* array of strings or NULL, borrowed */
	/* layers only */
	enum layer_compression compression; /* what the media type says; a hint */
	bool encrypted;
};

/* A parsed manifest. Strings are borrowed from `root`. */
struct manifest {
	json_t *root;
	const char *media_type; /* of the manifest itself */
	struct descriptor config;
	struct descriptor *layers; /* lowest first */
	size_t layer_count;
};

/* A parsed index reduced to the entry that was chosen. */
struct index_choice {
	char digest[136];
	char media_type[128];
	uint64_t size;
	struct platform platform; /* of the entry, or zeroed when it has none */
};

/* Tells manifest from index by content_type (may be NULL or useless) and body; refuses schema 1, bodies that are
 * both, and a header that contradicts the body. *root is owned by the caller. */
MUST_CHECK int document_parse(const char *text, size_t len, const char *content_type, enum document_kind *kind,
			      json_t **root, struct cpull_error *err);
/* Takes over root (also on failure). Every descriptor is checked: media type known (CPULL_ERR_MEDIA_TYPE), digest
 * grammar, size range, layer count. */
MUST_CHECK int manifest_from_json(json_t *root, struct manifest *out, struct cpull_error *err);
void manifest_free(struct manifest *manifest);

/* Chooses the entry for `want` by the rules of the registry sheet, section 6. CPULL_ERR_PLATFORM lists what is
 * on offer. */
MUST_CHECK int index_choose(const json_t *root, const struct platform *want, struct index_choice *out,
			    struct cpull_error *err);
/* Of an OCI layout's index.json: the entry named ref (org.opencontainers.image.ref.name, or a digest), or when ref is
 * NULL the only one. CPULL_ERR_NOT_FOUND lists the names there are. */
MUST_CHECK int layout_choose(const json_t *root, const char *ref, struct index_choice *out,
			     struct cpull_error *err);

/* What a pull needs of an image config. diff_ids are borrowed from root. */
struct image_config {
	json_t *root;
	const char **diff_ids;
	size_t diff_id_count;
	struct platform platform;
};

/* rootfs.type must be "layers"; diff_ids must be valid digests; os linux (CPULL_ERR_PLATFORM). Null members are absent
 * ones; an absent os counts as linux, and platform.arch is "" when the config does not name one. */
MUST_CHECK int image_config_parse(const char *text, size_t len, struct image_config *out,
				  struct cpull_error *err);
void image_config_free(struct image_config *config);

#endif
