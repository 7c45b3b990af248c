/* SPDX-License-Identifier: Apache-2.0
 *
 * Manifests: what kind of document some bytes are, and the manifest of one image. Called by the engine once a pull and
 * by the store for its records, on the caller's thread. A struct manifest owns the document that its strings are part
 * of.
 */
#include "fetch/document.h"

#include <string.h>

#include "engine/base/error.h"

static const char *const document_names[] = {"schemaVersion", "mediaType", "config", "layers", "manifests", "fsLayers",
					     NULL};

static int check_schema(const json_t *doc, struct cpull_error *err)
{
	uint64_t version;

	if (!json_u64_at(doc, "schemaVersion", &version))
		return error_set(err, CPULL_ERR_MANIFEST, "manifest: schemaVersion is missing or not a number");
	if (version == 1)
		return error_set(err, CPULL_ERR_UNSUPPORTED,
				 "manifest: Docker schema 1 cannot be verified and is not supported; push the image "
				 "again with a current tool");
	if (version != 2)
		return error_set(err, CPULL_ERR_MANIFEST, "manifest: schemaVersion is %llu, not 2",
				 (unsigned long long)version);
	return 0;
}

/* Manifest or index by what it holds; never both (CVE-2021-41190), so that no other reader sees another image. */
static int check_shape(const json_t *doc, enum document_kind *kind, struct cpull_error *err)
{
	const json_t *config = json_member(doc, "config");
	const json_t *layers = json_member(doc, "layers");
	const json_t *manifests = json_member(doc, "manifests");

	if (json_member(doc, "fsLayers") || (manifests && (config || layers)))
		return error_set(err, CPULL_ERR_MANIFEST,
				 "manifest: it can be read as more than one kind of document; refused");
	if (!manifests && !config && !layers)
		return error_set(err, CPULL_ERR_MANIFEST, "manifest: neither an image manifest nor an index");
	if (manifests && !json_is_array(manifests))
		return error_set(err, CPULL_ERR_MANIFEST, "index: manifests is not an array");
	*kind = manifests ? DOCUMENT_INDEX : DOCUMENT_MANIFEST;
	return 0;
}

/* The type of a Content-Type header without parameters, in lower case; false when it is too long to be a known one. */
static bool header_type(const char *header, char out[128])
{
	header += strspn(header, " \t");
	size_t len = strcspn(header, "; \t");

	if (len >= 128)
		return false;
	for (size_t i = 0; i < len; i++)
		out[i] = header[i] >= 'A' && header[i] <= 'Z' ? (char)(header[i] - 'A' + 'a') : header[i];
	out[len] = 0;
	return true;
}

static int unknown_type(const char *where, const char *type, struct cpull_error *err)
{
	char quoted[QUOTE_BYTES];

	return error_set(err, CPULL_ERR_MEDIA_TYPE,
			 "manifest: %s \"%s\" is neither that of an image manifest nor of an index", where,
			 quote_name(type, quoted));
}

static bool kind_fits(enum media_kind media, enum document_kind kind)
{
	return media == (kind == DOCUMENT_INDEX ? MEDIA_INDEX : MEDIA_MANIFEST);
}

static int check_body_type(const json_t *doc, enum document_kind kind, struct cpull_error *err)
{
	const json_t *value = json_member(doc, "mediaType");
	const char *type = json_string_value(value);

	if (!value)
		return 0;
	if (!type)
		return error_set(err, CPULL_ERR_MANIFEST, "manifest: mediaType is not a string");
	if (!kind_fits(media_kind_of(type), kind))
		return error_set(err, CPULL_ERR_MEDIA_TYPE, "manifest: mediaType \"%s\" contradicts its content", type);
	return 0;
}

/* A header that says something must say what the body says: the registry's word must not turn one digest into two
 * different images (GHSA-5j5w-g665-5m35). */
static int check_header_type(const json_t *doc, const char *header, enum document_kind kind, struct cpull_error *err)
{
	char type[128];

	if (!header)
		return 0;
	if (!header_type(header, type))
		return unknown_type("content type", header, err);

	enum media_kind media = media_kind_of(type);
	const char *body = json_string_at(doc, "mediaType");

	if (media == MEDIA_GENERIC)
		return 0;
	if (media == MEDIA_OTHER || media == MEDIA_CONFIG)
		return unknown_type("content type", type, err);
	if (!kind_fits(media, kind) || (body && strcmp(body, type)))
		return error_set(err, CPULL_ERR_MEDIA_TYPE, "manifest: content type \"%s\" contradicts the content",
				 type);
	return 0;
}

int document_parse(const char *text, size_t len, const char *content_type, enum document_kind *kind, json_t **root,
		   struct cpull_error *err)
{
	CLEANUP_JSON json_t *doc = NULL;

	*root = NULL;
	if (len > LIMIT_MANIFEST_BYTES)
		return error_set(err, CPULL_ERR_LIMIT, "manifest: %zu bytes are above the limit of %u", len,
				 LIMIT_MANIFEST_BYTES);
	int rc = json_parse(text, len, CPULL_ERR_MANIFEST, "manifest", &doc, err);

	if (rc)
		return rc;
	if (!json_is_object(doc))
		return error_set(err, CPULL_ERR_MANIFEST, "manifest: not a JSON object");
	rc = json_check_spelling(doc, document_names, "manifest", err);
	if (!rc)
		rc = check_schema(doc, err);
	if (rc)
		return rc;

	/* An unknown type is the better answer than a shape that is unknown because of it. */
	const char *type = json_string_at(doc, "mediaType");
	enum media_kind media = type ? media_kind_of(type) : MEDIA_GENERIC;

	if (type && media != MEDIA_MANIFEST && media != MEDIA_INDEX)
		return unknown_type("mediaType", type, err);
	rc = check_shape(doc, kind, err);
	if (!rc)
		rc = check_body_type(doc, *kind, err);
	if (!rc)
		rc = check_header_type(doc, content_type, *kind, err);
	if (!rc)
		*root = STEAL(doc);
	return rc;
}

static int parse_layers(const json_t *layers, struct manifest *out, struct cpull_error *err)
{
	size_t count = json_array_size(layers); /* 0 for what is no array */

	if (!count)
		return error_set(err, CPULL_ERR_MANIFEST, "manifest: it has no layers, so there is nothing to run");
	if (count > LIMIT_LAYERS)
		return error_set(err, CPULL_ERR_LIMIT, "manifest: %zu layers are above the limit of %u", count,
				 LIMIT_LAYERS);
	out->layers = calloc(count, sizeof(*out->layers));
	if (!out->layers)
		return error_nomem(err);

	for (size_t i = 0; i < count; i++) {
		char what[32];

		snprintf(what, sizeof(what), "layer %zu", i);
		int rc = descriptor_parse(json_array_get(layers, i), DESCRIPTOR_LAYER, what, &out->layers[i], err);

		if (rc)
			return rc;
	}
	out->layer_count = count;
	return 0;
}

int manifest_from_json(json_t *root, struct manifest *out, struct cpull_error *err)
{
	*out = (struct manifest){.root = root};
	int rc = descriptor_parse(json_member(root, "config"), DESCRIPTOR_CONFIG, "manifest's config", &out->config,
				  err);

	if (!rc)
		rc = parse_layers(json_member(root, "layers"), out, err);
	if (rc) {
		manifest_free(out);
		return rc;
	}

	out->media_type = json_string_at(root, "mediaType");
	if (!out->media_type)
		out->media_type = strcmp(out->config.media_type, MEDIA_DOCKER_CONFIG) ? MEDIA_OCI_MANIFEST :
											MEDIA_DOCKER_MANIFEST;
	return 0;
}

void manifest_free(struct manifest *manifest)
{
	json_decref(manifest->root);
	free(manifest->layers);
	*manifest = (struct manifest){0};
}
