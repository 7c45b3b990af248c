/* SPDX-License-Identifier: Apache-2.0
 *
 * Media types and descriptors, the pieces that every image document is made of. Called by the document parsers of
 * fetch/, on their caller's thread; what comes out borrows from the document.
 */
#include "fetch/document.h"

#include <string.h>

#include "engine/base/error.h"
#include "fetch/reference.h"

#define ENCRYPTED_SUFFIX "+encrypted"

const char *const descriptor_names[] = {"mediaType", "digest", "size", "annotations", "urls", "platform", NULL};

static const struct {
	const char *type;
	enum media_kind kind;
} media_kinds[] = {
	{MEDIA_OCI_MANIFEST, MEDIA_MANIFEST},
	{MEDIA_DOCKER_MANIFEST, MEDIA_MANIFEST},
	{MEDIA_OCI_INDEX, MEDIA_INDEX},
	{MEDIA_DOCKER_LIST, MEDIA_INDEX},
	{MEDIA_OCI_CONFIG, MEDIA_CONFIG},
	{MEDIA_DOCKER_CONFIG, MEDIA_CONFIG},
	{"application/vnd.docker.distribution.manifest.v1+prettyjws", MEDIA_SCHEMA1},
	{"application/vnd.docker.distribution.manifest.v1+json", MEDIA_SCHEMA1},
	{"", MEDIA_GENERIC},
	{"text/plain", MEDIA_GENERIC},
	{"application/json", MEDIA_GENERIC},
	{"application/octet-stream", MEDIA_GENERIC},
	{"binary/octet-stream", MEDIA_GENERIC}, /* what object stores say when nobody told them */
};

static const struct {
	const char *type;
	enum layer_compression compression;
} layer_types[] = {
	{"application/vnd.oci.image.layer.v1.tar", COMPRESSION_NONE},
	{"application/vnd.oci.image.layer.v1.tar+gzip", COMPRESSION_GZIP},
	{"application/vnd.oci.image.layer.v1.tar+zstd", COMPRESSION_ZSTD},
	{"application/vnd.oci.image.layer.nondistributable.v1.tar", COMPRESSION_NONE},
	{"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", COMPRESSION_GZIP},
	{"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", COMPRESSION_ZSTD},
	{"application/vnd.docker.image.rootfs.diff.tar", COMPRESSION_NONE},
	{"application/vnd.docker.image.rootfs.diff.tar.gzip", COMPRESSION_GZIP},
	{"application/vnd.docker.image.rootfs.diff.tar.zstd", COMPRESSION_ZSTD},
	{"application/vnd.docker.image.rootfs.foreign.diff.tar", COMPRESSION_NONE},
	{"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", COMPRESSION_GZIP},
};

enum media_kind media_kind_of(const char *type)
{
	for (size_t i = 0; i < ARRAY_LEN(media_kinds); i++)
		if (!strcmp(media_kinds[i].type, type))
			return media_kinds[i].kind;
	return MEDIA_OTHER;
}

const char *quote_name(const char *text, char out[QUOTE_BYTES])
{
	return error_quote(text, strnlen(text, QUOTE_BYTES), out, QUOTE_BYTES);
}

json_t *json_member(const json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	return json_is_null(value) ? NULL : value;
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Go's encoding/json folds by Unicode: the long s and the Kelvin sign count as letters of ours. */
static bool folds_to(const char *key, const char *name)
{
	for (; *name; name++) {
		char c = *key;
		size_t len = 1;

		if (!strncmp(key, "\xc5\xbf", 2)) {
			c = 's';
			len = 2;
		} else if (!strncmp(key, "\xe2\x84\xaa", 3)) {
			c = 'k';
			len = 3;
		}
		if (lower(c) != lower(*name))
			return false;
		key += len;
	}
	return !*key;
}

int json_check_spelling(const json_t *object, const char *const *names, const char *what, struct cpull_error *err)
{
	json_t *o = (json_t *)object; /* jansson's iterators want it writable, and leave it alone */

	for (void *i = json_object_iter(o); i; i = json_object_iter_next(o, i)) {
		const char *key = json_object_iter_key(i);

		for (const char *const *name = names; *name; name++) {
			char quoted[QUOTE_BYTES];

			if (strcmp(key, *name) && folds_to(key, *name))
				return error_set(err, CPULL_ERR_MANIFEST,
						 "%s: key \"%s\" would be taken for \"%s\" by some readers", what,
						 quote_name(key, quoted), *name);
		}
	}
	return 0;
}

static bool layer_type_parse(const char *type, struct descriptor *out)
{
	size_t len = strlen(type);
	size_t suffix_len = strlen(ENCRYPTED_SUFFIX);

	/* Exactly one suffix is stripped; what is left with two is no known type. */
	out->encrypted = len > suffix_len && !strcmp(type + len - suffix_len, ENCRYPTED_SUFFIX);
	if (out->encrypted)
		len -= suffix_len;
	for (size_t i = 0; i < ARRAY_LEN(layer_types); i++) {
		if (strlen(layer_types[i].type) == len && !memcmp(layer_types[i].type, type, len)) {
			out->compression = layer_types[i].compression;
			return true;
		}
	}
	return false;
}

static int check_media_type(enum descriptor_use use, const char *what, struct descriptor *out,
			    struct cpull_error *err)
{
	static const char *const why[] = {
		[DESCRIPTOR_CONFIG] = "is not that of an image config: this is an artifact, not a container image",
		[DESCRIPTOR_LAYER] = "is not that of a container image's layer",
		[DESCRIPTOR_DOCUMENT] = "is neither that of an image manifest nor of an index",
	};
	enum media_kind kind = media_kind_of(out->media_type);
	bool known = false;
	char quoted[QUOTE_BYTES];

	switch (use) {
	case DESCRIPTOR_CONFIG:
		known = kind == MEDIA_CONFIG;
		break;
	case DESCRIPTOR_LAYER:
		known = layer_type_parse(out->media_type, out);
		break;
	case DESCRIPTOR_DOCUMENT:
		known = kind == MEDIA_MANIFEST || kind == MEDIA_INDEX;
		break;
	}
	if (known)
		return 0;
	return error_set(err, CPULL_ERR_MEDIA_TYPE, "%s: media type \"%s\" %s", what,
			 quote_name(out->media_type, quoted), why[use]);
}

static int check_size(const json_t *object, enum descriptor_use use, const char *what, uint64_t *out,
		      struct cpull_error *err)
{
	static const uint64_t max[] = {
		[DESCRIPTOR_CONFIG] = LIMIT_CONFIG_BYTES,
		[DESCRIPTOR_LAYER] = LIMIT_BLOB_BYTES,
		[DESCRIPTOR_DOCUMENT] = LIMIT_MANIFEST_BYTES,
	};

	if (!json_u64_at(object, "size", out))
		return error_set(err, CPULL_ERR_MANIFEST, "%s: size is not a whole number from 0 to 2^53", what);
	if (*out > max[use])
		return error_set(err, CPULL_ERR_LIMIT, "%s: size %llu is above the limit of %llu bytes", what,
				 (unsigned long long)*out, (unsigned long long)max[use]);
	return 0;
}

static int check_annotations(const json_t *object, const char *what, json_t **out, struct cpull_error *err)
{
	size_t bytes = 0;

	*out = json_member(object, "annotations");
	if (!*out)
		return 0;
	if (!json_is_object(*out))
		return error_set(err, CPULL_ERR_MANIFEST, "%s: annotations are not an object", what);
	for (void *i = json_object_iter(*out); i; i = json_object_iter_next(*out, i)) {
		const json_t *value = json_object_iter_value(i);

		if (!json_is_string(value))
			return error_set(err, CPULL_ERR_MANIFEST, "%s: an annotation is not a string", what);
		bytes += strlen(json_object_iter_key(i)) + json_string_length(value);
		if (bytes > LIMIT_ANNOTATION_BYTES)
			return error_set(err, CPULL_ERR_LIMIT, "%s: annotations are larger than %u bytes", what,
					 LIMIT_ANNOTATION_BYTES);
	}
	return 0;
}

static int check_urls(const json_t *object, const char *what, json_t **out, struct cpull_error *err)
{
	const json_t *url;
	size_t i;

	*out = json_member(object, "urls");
	if (!*out)
		return 0;
	if (!json_is_array(*out))
		return error_set(err, CPULL_ERR_MANIFEST, "%s: urls are not an array", what);
	json_array_foreach(*out, i, url)
		if (!json_is_string(url))
			return error_set(err, CPULL_ERR_MANIFEST, "%s: urls[%zu] is not a string", what, i);
	return 0;
}

int descriptor_parse(const json_t *object, enum descriptor_use use, const char *what, struct descriptor *out,
		     struct cpull_error *err)
{
	*out = (struct descriptor){0};
	if (!json_is_object(object))
		return error_set(err, CPULL_ERR_MANIFEST, "%s: missing, or not an object", what);

	int rc = json_check_spelling(object, descriptor_names, what, err);

	if (rc)
		return rc;
	out->media_type = json_string_at(object, "mediaType");
	if (!out->media_type)
		return error_set(err, CPULL_ERR_MANIFEST, "%s: mediaType is missing or not a string", what);
	rc = check_media_type(use, what, out, err);
	if (rc)
		return rc;

	char quoted[QUOTE_BYTES];

	out->digest = json_string_at(object, "digest");
	if (!out->digest)
		return error_set(err, CPULL_ERR_MANIFEST, "%s: digest is missing or not a string", what);
	if (!reference_digest_valid(out->digest))
		return error_set(err, CPULL_ERR_MANIFEST,
				 "%s: digest \"%s\" is not sha256:, sha384: or sha512: and lower-case hex digits",
				 what, quote_name(out->digest, quoted));
	rc = check_size(object, use, what, &out->size, err);
	if (!rc)
		rc = check_annotations(object, what, &out->annotations, err);
	return rc ? rc : check_urls(object, what, &out->urls, err);
}
