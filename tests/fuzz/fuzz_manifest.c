/* SPDX-License-Identifier: Apache-2.0
 *
 * Image documents: the same bytes as manifest, index, layout and image config. Beyond not crashing: what is handed out
 * has valid digests and is within its limits, and what the registry says never turns a manifest into an index.
 */
#include <string.h>

#include "fetch/document.h"
#include "fetch/reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void check_manifest(json_t *root)
{
	struct manifest m;
	struct cpull_error err;

	if (manifest_from_json(root, &m, &err)) {
		require(!m.root && !m.layers && err.message[0]);
		return;
	}
	require(media_kind_of(m.media_type) == MEDIA_MANIFEST);
	require(m.layer_count > 0 && m.layer_count <= LIMIT_LAYERS);
	require(reference_digest_valid(m.config.digest) && m.config.size <= LIMIT_CONFIG_BYTES);
	for (size_t i = 0; i < m.layer_count; i++) {
		require(reference_digest_valid(m.layers[i].digest) && m.layers[i].size <= LIMIT_BLOB_BYTES);
		require(m.layers[i].encrypted == !!strstr(m.layers[i].media_type, "+encrypted"));
	}
	manifest_free(&m);
}

static void check_choice(int rc, const struct index_choice *choice, const struct cpull_error *err)
{
	if (rc) {
		require(!choice->digest[0] && err->message[0]);
		return;
	}
	enum media_kind kind = media_kind_of(choice->media_type);

	require(kind == MEDIA_MANIFEST || kind == MEDIA_INDEX);
	require(reference_digest_valid(choice->digest) && choice->size <= LIMIT_MANIFEST_BYTES);
}

static void check_index(const json_t *root)
{
	static const char *const wants[] = {NULL, "linux/amd64", "linux/arm64/v8", "linux/arm/v7"};
	struct index_choice choice;
	struct cpull_error err;

	for (size_t i = 0; i < ARRAY_LEN(wants); i++) {
		struct platform want;

		require(!platform_parse(wants[i], &want, NULL));
		check_choice(index_choose(root, &want, &choice, &err), &choice, &err);
	}
	check_choice(layout_choose(root, NULL, &choice, &err), &choice, &err);
	check_choice(layout_choose(root, "t", &choice, &err), &choice, &err);
}

static void check_config(const char *text, size_t len)
{
	struct image_config config;
	struct cpull_error err;

	if (image_config_parse(text, len, &config, &err)) {
		require(!config.root && !config.diff_ids && err.message[0]);
		return;
	}
	require(config.diff_id_count > 0 && config.diff_id_count <= LIMIT_LAYERS);
	for (size_t i = 0; i < config.diff_id_count; i++)
		require(reference_digest_valid(config.diff_ids[i]));
	require(!strcmp(config.platform.os, "linux"));
	image_config_free(&config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const types[] = {NULL, "text/plain", MEDIA_OCI_MANIFEST, MEDIA_OCI_INDEX, MEDIA_DOCKER_LIST};
	const char *text = (const char *)data;
	enum document_kind plain = DOCUMENT_MANIFEST;
	struct cpull_error err;
	json_t *root;
	int plain_rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		enum document_kind kind = DOCUMENT_MANIFEST;
		int rc = document_parse(text, size, types[i], &kind, &root, &err);

		require(!rc == !!root);
		if (i == 0) {
			plain = kind;
			plain_rc = rc;
		}
		if (rc)
			continue;
		require(!plain_rc && kind == plain);
		if (kind == DOCUMENT_MANIFEST) {
			check_manifest(root);
			continue;
		}
		check_index(root);
		json_decref(root);
	}
	check_config(text, size);
	return 0;
}
