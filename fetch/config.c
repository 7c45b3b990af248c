/* SPDX-License-Identifier: Apache-2.0
 *
 * The image config, reduced to what a pull needs: the platform and the digests of the unpacked layers. Called by the
 * engine once a pull, on the caller's thread. A struct image_config owns the document that its strings are part of.
 */
#include <string.h>

#include "engine/base/error.h"
#include "fetch/document.h"
#include "fetch/platform.h"
#include "fetch/reference.h"

static const char *const config_names[] = {"os", "architecture", "variant", "rootfs", NULL};
static const char *const rootfs_names[] = {"type", "diff_ids", NULL};

/* A string member that may be absent or null; MANIFEST when it is something else. */
static int optional_string(const json_t *object, const char *key, const char **out, struct cpull_error *err)
{
	const json_t *value = json_member(object, key);

	*out = json_string_value(value);
	if (value && !*out)
		return error_set(err, CPULL_ERR_MANIFEST, "image config: %s is not a string", key);
	return 0;
}

/* Sparse configs without os are taken for linux, as nothing else was ever written without it. */
static int parse_platform(const json_t *root, struct platform *out, struct cpull_error *err)
{
	const char *os, *arch, *variant;
	int rc = optional_string(root, "os", &os, err);

	if (!rc)
		rc = optional_string(root, "architecture", &arch, err);
	if (!rc)
		rc = optional_string(root, "variant", &variant, err);
	if (rc)
		return rc;

	char quoted[QUOTE_BYTES];

	if (os && strcmp(os, "linux"))
		return error_set(err, CPULL_ERR_PLATFORM, "image config: the image is for os \"%s\", not linux",
				 quote_name(os, quoted));
	if (!platform_set(out, "linux", arch, variant))
		return error_set(err, CPULL_ERR_MANIFEST, "image config: architecture or variant is too long");
	return 0;
}

static int parse_diff_ids(const json_t *diff_ids, struct image_config *out, struct cpull_error *err)
{
	size_t count = json_array_size(diff_ids); /* 0 for what is no array */

	if (!count)
		return error_set(err, CPULL_ERR_MANIFEST, "image config: rootfs.diff_ids is missing, empty or no list");
	if (count > LIMIT_LAYERS)
		return error_set(err, CPULL_ERR_LIMIT, "image config: %zu diff_ids are above the limit of %u", count,
				 LIMIT_LAYERS);
	out->diff_ids = calloc(count, sizeof(*out->diff_ids));
	if (!out->diff_ids)
		return error_nomem(err);

	for (size_t i = 0; i < count; i++) {
		const char *id = json_string_value(json_array_get(diff_ids, i));
		char quoted[QUOTE_BYTES];

		if (!id || !reference_digest_valid(id))
			return error_set(err, CPULL_ERR_MANIFEST, "image config: diff_ids[%zu] \"%s\" is not a digest",
					 i, quote_name(id ? id : "", quoted));
		out->diff_ids[i] = id;
	}
	out->diff_id_count = count;
	return 0;
}

static int parse_rootfs(const json_t *root, struct image_config *out, struct cpull_error *err)
{
	const json_t *rootfs = json_member(root, "rootfs");

	if (!json_is_object(rootfs))
		return error_set(err, CPULL_ERR_MANIFEST, "image config: rootfs is missing or not an object");
	int rc = json_check_spelling(rootfs, rootfs_names, "image config's rootfs", err);

	if (rc)
		return rc;
	const char *type = json_string_at(rootfs, "type");

	if (!type || strcmp(type, "layers"))
		return error_set(err, CPULL_ERR_MANIFEST, "image config: rootfs.type is not \"layers\"");
	return parse_diff_ids(json_member(rootfs, "diff_ids"), out, err);
}

int image_config_parse(const char *text, size_t len, struct image_config *out, struct cpull_error *err)
{
	*out = (struct image_config){0};
	if (len > LIMIT_CONFIG_BYTES)
		return error_set(err, CPULL_ERR_LIMIT, "image config: %zu bytes are above the limit of %u", len,
				 LIMIT_CONFIG_BYTES);
	int rc = json_parse(text, len, CPULL_ERR_MANIFEST, "image config", &out->root, err);

	if (rc)
		return rc;
	if (!json_is_object(out->root))
		rc = error_set(err, CPULL_ERR_MANIFEST, "image config: not a JSON object");
	if (!rc)
		rc = json_check_spelling(out->root, config_names, "image config", err);
	if (!rc)
		rc = parse_platform(out->root, &out->platform, err);
	if (!rc)
		rc = parse_rootfs(out->root, out, err);
	if (rc)
		image_config_free(out);
	return rc;
}

void image_config_free(struct image_config *config)
{
	json_decref(config->root);
	free(config->diff_ids);
	*config = (struct image_config){0};
}
