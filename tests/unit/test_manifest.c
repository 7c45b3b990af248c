/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch/manifest.h: documents, manifests and image configs. Most rows replace one piece of a document that is good, so
 * that each shows the effect of that piece alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "fetch/document.h"
#include "tests/unit/documents.h"
#include "tests/unit/vectors.h"

#define LAYER "application/vnd.oci.image.layer.v1.tar"
#define DOCKER_LAYER "application/vnd.docker.image.rootfs.diff.tar"

/* Document and manifest in one, as a pull does it. */
static int parse_text(const char *text, size_t len, const char *content_type, struct manifest *out,
		      struct cpull_error *err)
{
	enum document_kind kind;
	json_t *root;

	*out = (struct manifest){0};
	int rc = document_parse(text, len, content_type, &kind, &root, err);

	if (rc) {
		assert_null(root);
		return rc;
	}
	assert_int_equal(kind, DOCUMENT_MANIFEST);
	rc = manifest_from_json(root, out, err);
	if (rc) {
		assert_null(out->root);
		assert_null(out->layers);
	}
	return rc;
}

static void assert_parses_to(const char *text, int code)
{
	struct manifest manifest;
	struct cpull_error err = {0};
	int rc = parse_text(text, strlen(text), NULL, &manifest, &err);

	if (rc != code)
		fail_msg("got %d (%s), want %d: %.300s", rc, err.message, code, text);
	if (rc)
		assert_message(&err, code);
	else
		manifest_free(&manifest);
}

static const char good_manifest[] =
	"{\"schemaVersion\":2,\"mediaType\":\"" MEDIA_OCI_MANIFEST "\","
	"\"config\":{\"mediaType\":\"" MEDIA_OCI_CONFIG "\",\"digest\":\"" DIGEST_A "\",\"size\":7},"
	"\"layers\":[{\"mediaType\":\"" LAYER "+gzip\",\"digest\":\"" DIGEST_B "\",\"size\":11,"
	"\"annotations\":{\"k\":\"v\"},\"urls\":[\"https://h.example/x\"]},"
	"{\"mediaType\":\"" LAYER "\",\"digest\":\"" DIGEST_C "\",\"size\":12}]}";

static void a_manifest_is_read(void **state)
{
	struct manifest m;

	(void)state;
	assert_int_equal(parse_text(good_manifest, strlen(good_manifest), MEDIA_OCI_MANIFEST, &m, NULL), 0);
	assert_string_equal(m.media_type, MEDIA_OCI_MANIFEST);
	assert_string_equal(m.config.digest, DIGEST_A);
	assert_int_equal(m.config.size, 7);
	assert_int_equal(m.layer_count, 2);
	assert_string_equal(m.layers[0].media_type, LAYER "+gzip");
	assert_string_equal(m.layers[0].digest, DIGEST_B);
	assert_int_equal(m.layers[0].size, 11);
	assert_int_equal(m.layers[0].compression, COMPRESSION_GZIP);
	assert_string_equal(json_string_at(m.layers[0].annotations, "k"), "v");
	assert_string_equal(json_string_value(json_array_get(m.layers[0].urls, 0)), "https://h.example/x");
	assert_string_equal(m.layers[1].digest, DIGEST_C);
	assert_int_equal(m.layers[1].compression, COMPRESSION_NONE);
	assert_null(m.layers[1].annotations);
	assert_null(m.layers[1].urls);
	assert_false(m.layers[1].encrypted);
	manifest_free(&m);
	assert_null(m.root);
}

static const struct change manifest_changes[] = {
	/* harmless */
	{"\"schemaVersion\"", "\"unknown\":{\"Layers\":[],\"manifests\":1},\"schemaVersion\"", 0},
	{"\"mediaType\":\"" MEDIA_OCI_MANIFEST "\",", "", 0},
	{"\"mediaType\":\"" MEDIA_OCI_MANIFEST "\",", "\"mediaType\":null,\"manifests\":null,", 0},
	{"\"mediaType\":\"" MEDIA_OCI_MANIFEST "\",", "\"artifactType\":\"x/y\",\"subject\":{},", 0},
	{DIGEST_B, DIGEST_C, 0}, /* one layer twice */
	{DIGEST_B, "sha512:" HEX64 HEX64, 0},
	{"\"annotations\":{\"k\":\"v\"},\"urls\":[\"https://h.example/x\"]", "\"annotations\":null,\"urls\":null", 0},
	/* two documents in one, or one that two readers read differently */
	{"\"config\"", "\"manifests\":[],\"config\"", CPULL_ERR_MANIFEST},
	{"\"layers\"", "\"layers\":[],\"layers\"", CPULL_ERR_MANIFEST},
	{"\"layers\"", "\"Layers\":[],\"layers\"", CPULL_ERR_MANIFEST},
	{"\"layers\"", "\"layer\xc5\xbf\":[],\"layers\"", CPULL_ERR_MANIFEST},
	{"\"config\"", "\"MANIFESTS\":[],\"config\"", CPULL_ERR_MANIFEST},
	{"\"config\"", "\"fsLayers\":[],\"config\"", CPULL_ERR_MANIFEST},
	{"\"digest\"", "\"Digest\":\"" DIGEST_D "\",\"digest\"", CPULL_ERR_MANIFEST},
	{"\"size\":12", "\"size\":12,\"\xc5\xbfize\":13", CPULL_ERR_MANIFEST},
	{"\"size\":12}]}", "\"size\":12}]} {}", CPULL_ERR_MANIFEST},
	{"\"size\":12}]}", "\"size\":12}]", CPULL_ERR_MANIFEST},
	/* versions and types */
	{":2,", ":1,", CPULL_ERR_UNSUPPORTED},
	{":2,", ":3,", CPULL_ERR_MANIFEST},
	{":2,", ":\"2\",", CPULL_ERR_MANIFEST},
	{":2,", ":null,", CPULL_ERR_MANIFEST},
	{":2,", ":2.0,", CPULL_ERR_MANIFEST},
	{"\"schemaVersion\":2,", "", CPULL_ERR_MANIFEST},
	{MEDIA_OCI_MANIFEST, MEDIA_OCI_INDEX, CPULL_ERR_MEDIA_TYPE},
	{MEDIA_OCI_MANIFEST, "application/vnd.oci.artifact.manifest.v1+json", CPULL_ERR_MEDIA_TYPE},
	{MEDIA_OCI_MANIFEST, "", CPULL_ERR_MEDIA_TYPE},
	{MEDIA_OCI_MANIFEST, "Application/vnd.oci.image.manifest.v1+json", CPULL_ERR_MEDIA_TYPE},
	{MEDIA_OCI_MANIFEST, "application/json", CPULL_ERR_MEDIA_TYPE},
	{"\"" MEDIA_OCI_MANIFEST "\"", "5", CPULL_ERR_MANIFEST},
	/* not a container image */
	{MEDIA_OCI_CONFIG, "application/vnd.oci.empty.v1+json", CPULL_ERR_MEDIA_TYPE},
	{MEDIA_OCI_CONFIG, "application/vnd.wasm.config.v0+json", CPULL_ERR_MEDIA_TYPE},
	{MEDIA_OCI_CONFIG, "application/octet-stream", CPULL_ERR_MEDIA_TYPE},
	{LAYER "+gzip", "application/octet-stream", CPULL_ERR_MEDIA_TYPE},
	{LAYER "+gzip", "application/vnd.wasm.content.layer.v1+wasm", CPULL_ERR_MEDIA_TYPE},
	{LAYER "+gzip", "\\n\\u001b[31m", CPULL_ERR_MEDIA_TYPE},
	/* members missing or of another type */
	{"\"config\"", "\"x\"", CPULL_ERR_MANIFEST},
	{"\"layers\"", "\"x\"", CPULL_ERR_MANIFEST},
	{"\"layers\":[", "\"layers\":[null,", CPULL_ERR_MANIFEST},
	{"\"layers\":[", "\"layers\":[[],", CPULL_ERR_MANIFEST},
	{"\"mediaType\":\"" LAYER "+gzip\",", "", CPULL_ERR_MANIFEST},
	{"\"" LAYER "+gzip\"", "1", CPULL_ERR_MANIFEST},
	{"\"digest\":\"" DIGEST_B "\",", "", CPULL_ERR_MANIFEST},
	{"\"digest\":\"" DIGEST_A "\",", "", CPULL_ERR_MANIFEST},
	{"\"" DIGEST_B "\"", "null", CPULL_ERR_MANIFEST},
	{"{\"k\":\"v\"}", "{\"k\":1}", CPULL_ERR_MANIFEST},
	{"{\"k\":\"v\"}", "[\"k\"]", CPULL_ERR_MANIFEST},
	{"[\"https://h.example/x\"]", "\"https://h.example/x\"", CPULL_ERR_MANIFEST},
	{"[\"https://h.example/x\"]", "[{}]", CPULL_ERR_MANIFEST},
	/* digests */
	{DIGEST_B, "sha256:../../../../v2/private/secret/manifests/latest", CPULL_ERR_MANIFEST},
	{DIGEST_B, DIGEST_B "\\u0000x", CPULL_ERR_MANIFEST},
	{DIGEST_B, DIGEST_B "x", CPULL_ERR_MANIFEST},
	{DIGEST_B, "sha256:" HEX32, CPULL_ERR_MANIFEST},
	{DIGEST_B, "sha256:ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef0123456789", CPULL_ERR_MANIFEST},
	{DIGEST_B, "sha1:0123456789012345678901234567890123456789", CPULL_ERR_MANIFEST},
	{DIGEST_B, "", CPULL_ERR_MANIFEST},
	{DIGEST_A, "md5:" HEX32, CPULL_ERR_MANIFEST},
	/* sizes */
	{":11,", ":-1,", CPULL_ERR_MANIFEST},
	{":11,", ":9223372036854775808,", CPULL_ERR_MANIFEST},
	{":11,", ":9007199254740993,", CPULL_ERR_MANIFEST},
	{":11,", ":1e30,", CPULL_ERR_MANIFEST},
	{":11,", ":1e400,", CPULL_ERR_MANIFEST},
	{":11,", ":11.5,", CPULL_ERR_MANIFEST},
	{":11,", ":\"11\",", CPULL_ERR_MANIFEST},
	{":11,", ":null,", CPULL_ERR_MANIFEST},
	{"\"size\":7", "\"x\":7", CPULL_ERR_MANIFEST},
	{":11,", ":1099511627776,", 0},
	{":11,", ":1099511627777,", CPULL_ERR_LIMIT}, /* LIMIT_BLOB_BYTES + 1 */
	{":7}", ":4194304}", 0},
	{":7}", ":4194305}", CPULL_ERR_LIMIT},
	{":7}", ":3221225472}", CPULL_ERR_LIMIT},
};

static void manifests_are_taken_or_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(manifest_changes); i++) {
		CLEANUP_FREE char *text = replaced(good_manifest, manifest_changes[i].from, manifest_changes[i].to);

		assert_parses_to(text, manifest_changes[i].code);
	}
}

static void what_is_no_object_is_refused(void **state)
{
	static const char *const rows[] = {"", "[]", "null", "2", "\"x\"", "{}", "[{\"schemaVersion\":2}]", "<html>",
					   "{\"schemaVersion\":2}", "{\"schemaVersion\":2,\"manifests\":{}}",
					   "{\"schemaVersion\":2,\"config\":null,\"layers\":null,\"manifests\":null}",
					   "\xef\xbb\xbf{\"schemaVersion\":2,\"manifests\":[]}"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_parses_to(rows[i], CPULL_ERR_MANIFEST);
}

static void the_header_must_agree(void **state)
{
	static const struct {
		const char *content_type;
		int code;
	} rows[] = {
		{NULL, 0},
		{"", 0},
		{MEDIA_OCI_MANIFEST, 0},
		{" Application/VND.oci.image.manifest.v1+json ; charset=utf-8", 0},
		{"application/json", 0},
		{"text/plain; charset=utf-8", 0},
		{"application/octet-stream", 0},
		{"binary/octet-stream", 0},
		{"text/html", CPULL_ERR_MEDIA_TYPE},
		{"application/json2", CPULL_ERR_MEDIA_TYPE},
		{MEDIA_OCI_INDEX, CPULL_ERR_MEDIA_TYPE},
		{MEDIA_DOCKER_LIST, CPULL_ERR_MEDIA_TYPE},
		{MEDIA_DOCKER_MANIFEST, CPULL_ERR_MEDIA_TYPE}, /* the body says OCI */
		{MEDIA_OCI_CONFIG, CPULL_ERR_MEDIA_TYPE},
		{"application/vnd.docker.distribution.manifest.v1+prettyjws", CPULL_ERR_MEDIA_TYPE},
		{"application/vnd.oci.image.manifest.v1+json,application/json", CPULL_ERR_MEDIA_TYPE},
	};
	char endless[400];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct manifest m;
		struct cpull_error err = {0};
		int rc = parse_text(good_manifest, strlen(good_manifest), rows[i].content_type, &m, &err);

		if (rc != rows[i].code)
			fail_msg("\"%s\": got %d (%s), want %d", rows[i].content_type, rc, err.message, rows[i].code);
		if (!rc)
			manifest_free(&m);
	}
	memset(endless, 'a', sizeof(endless) - 1);
	endless[sizeof(endless) - 1] = 0;
	struct manifest m;
	assert_int_equal(parse_text(good_manifest, strlen(good_manifest), endless, &m, NULL), CPULL_ERR_MEDIA_TYPE);

	/* an index under a manifest's name */
	enum document_kind kind;
	json_t *root;
	const char *index = "{\"schemaVersion\":2,\"manifests\":[]}";
	assert_int_equal(document_parse(index, strlen(index), MEDIA_OCI_MANIFEST, &kind, &root, NULL),
			 CPULL_ERR_MEDIA_TYPE);
	assert_null(root);
	assert_int_equal(document_parse(index, strlen(index), MEDIA_DOCKER_LIST, &kind, &root, NULL), 0);
	assert_int_equal(kind, DOCUMENT_INDEX);
	json_decref(root);
}

static void every_layer_type_has_its_meaning(void **state)
{
	static const struct {
		const char *type;
		int compression; /* -1: unknown type */
	} rows[] = {
		{LAYER, COMPRESSION_NONE},
		{LAYER "+gzip", COMPRESSION_GZIP},
		{LAYER "+zstd", COMPRESSION_ZSTD},
		{"application/vnd.oci.image.layer.nondistributable.v1.tar", COMPRESSION_NONE},
		{"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", COMPRESSION_GZIP},
		{"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", COMPRESSION_ZSTD},
		{DOCKER_LAYER, COMPRESSION_NONE},
		{DOCKER_LAYER ".gzip", COMPRESSION_GZIP},
		{DOCKER_LAYER ".zstd", COMPRESSION_ZSTD},
		{"application/vnd.docker.image.rootfs.foreign.diff.tar", COMPRESSION_NONE},
		{"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", COMPRESSION_GZIP},
		{"", -1},
		{LAYER "+bzip2", -1},
		{LAYER "+gzip; x=y", -1},
		{"application/octet-stream", -1},
		{"application/vnd.wasm.content.layer.v1+wasm", -1},
		{"application/vnd.oci.empty.v1+json", -1},
		{"application/vnd.in-toto+json", -1},
		{MEDIA_OCI_CONFIG, -1},
		{MEDIA_OCI_MANIFEST, -1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		for (int suffixes = 0; suffixes < 3; suffixes++) {
			static const char *const suffix[] = {"", "+encrypted", "+encrypted+encrypted"};
			CLEANUP_FREE char *type = format_string("%s%s", rows[i].type, suffix[suffixes]);
			CLEANUP_FREE char *text = replaced(good_manifest, LAYER "+gzip", type);
			struct manifest m;

			if (rows[i].compression < 0 || suffixes == 2) {
				assert_parses_to(text, CPULL_ERR_MEDIA_TYPE);
				continue;
			}
			assert_int_equal(parse_text(text, strlen(text), NULL, &m, NULL), 0);
			assert_int_equal(m.layers[0].compression, rows[i].compression);
			assert_int_equal(m.layers[0].encrypted, suffixes);
			assert_string_equal(m.layers[0].media_type, type);
			manifest_free(&m);
		}
	}
}

static void the_manifests_type_is_known_without_being_told(void **state)
{
	struct manifest m;
	CLEANUP_FREE char *oci = replaced(good_manifest, "\"mediaType\":\"" MEDIA_OCI_MANIFEST "\",", "");
	CLEANUP_FREE char *docker = replaced(oci, MEDIA_OCI_CONFIG, MEDIA_DOCKER_CONFIG);

	(void)state;
	assert_int_equal(parse_text(oci, strlen(oci), NULL, &m, NULL), 0);
	assert_string_equal(m.media_type, MEDIA_OCI_MANIFEST);
	manifest_free(&m);
	assert_int_equal(parse_text(docker, strlen(docker), NULL, &m, NULL), 0);
	assert_string_equal(m.media_type, MEDIA_DOCKER_MANIFEST);
	manifest_free(&m);
}

static void manifests_have_limits(void **state)
{
	static const char head[] = "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"" MEDIA_OCI_CONFIG
				   "\",\"digest\":\"" DIGEST_A "\",\"size\":7},\"layers\":[";
	static const char layer[] = "{\"mediaType\":\"" LAYER "\",\"digest\":\"" DIGEST_B "\",\"size\":1}";
	CLEANUP_FREE char *none = repeated(head, layer, 0, "]}");
	CLEANUP_FREE char *most = repeated(head, layer, LIMIT_LAYERS, "]}");
	CLEANUP_FREE char *more = repeated(head, layer, LIMIT_LAYERS + 1, "]}");

	(void)state;
	assert_parses_to(none, CPULL_ERR_MANIFEST);
	assert_parses_to(most, 0);
	assert_parses_to(more, CPULL_ERR_LIMIT);

	/* the whole document, filled up with blanks */
	CLEANUP_FREE char *full = malloc(LIMIT_MANIFEST_BYTES + 2);
	assert_non_null(full);
	memset(full, ' ', LIMIT_MANIFEST_BYTES + 1);
	memcpy(full, good_manifest, strlen(good_manifest));
	full[LIMIT_MANIFEST_BYTES] = 0;
	assert_parses_to(full, 0);
	full[LIMIT_MANIFEST_BYTES] = ' ';
	full[LIMIT_MANIFEST_BYTES + 1] = 0;
	assert_parses_to(full, CPULL_ERR_LIMIT);

	/* annotations of one layer: "k" and its value */
	CLEANUP_FREE char *value = malloc(LIMIT_ANNOTATION_BYTES + 1);
	assert_non_null(value);
	memset(value, 'v', LIMIT_ANNOTATION_BYTES);
	value[LIMIT_ANNOTATION_BYTES] = 0;
	CLEANUP_FREE char *too_long = replaced(good_manifest, "\"v\"", "\"VALUE\"");
	CLEANUP_FREE char *large = replaced(too_long, "VALUE", value + 1);
	CLEANUP_FREE char *larger = replaced(too_long, "VALUE", value);
	assert_parses_to(large, 0);
	assert_parses_to(larger, CPULL_ERR_LIMIT);

	/* an unknown member, nested so deep that a recursive reader would run out of stack */
	static const struct {
		size_t depth;
		int code;
	} nests[] = {{LIMIT_JSON_DEPTH - 1, 0}, {LIMIT_JSON_DEPTH, CPULL_ERR_MANIFEST}, {100000, CPULL_ERR_MANIFEST}};

	for (size_t i = 0; i < ARRAY_LEN(nests); i++) {
		CLEANUP_FREE char *nest = calloc(2 * nests[i].depth + 1, 1);
		assert_non_null(nest);
		memset(nest, '[', nests[i].depth);
		memset(nest + nests[i].depth, ']', nests[i].depth);
		CLEANUP_FREE char *member = format_string("\"x\":%s,\"schemaVersion\"", nest);
		CLEANUP_FREE char *deep = replaced(good_manifest, "\"schemaVersion\"", member);
		assert_parses_to(deep, nests[i].code);
	}
}

/* ---- shared manifests ---- */

static void shared_documents_have_their_type(void **state)
{
	const char *name;
	json_t *type;

	(void)state;
	if (!vectors_present())
		skip();

	CLEANUP_JSON json_t *rows = vector_json("registry/guess-type.json");

	assert_true(json_object_size(rows) >= 10);
	json_object_foreach(rows, name, type) {
		CLEANUP_FREE char *path = format_string("registry/manifests/%s", name);
		CLEANUP_BYTES struct bytes text = vector_read(path);
		const char *want = json_string_value(type);
		enum media_kind media = want ? media_kind_of(want) : MEDIA_OTHER;
		enum document_kind kind;
		struct cpull_error err = {0};
		json_t *root;
		int rc = document_parse(text.data, text.len, want, &kind, &root, &err);

		if (media != MEDIA_MANIFEST && media != MEDIA_INDEX) {
			assert_int_equal(rc, media == MEDIA_SCHEMA1 ? CPULL_ERR_UNSUPPORTED : CPULL_ERR_MANIFEST);
			continue;
		}
		if (rc)
			fail_msg("%s: %s", name, err.message);
		assert_int_equal(kind, media == MEDIA_INDEX ? DOCUMENT_INDEX : DOCUMENT_MANIFEST);

		/* without header, and by the other's header */
		json_decref(root);
		assert_int_equal(document_parse(text.data, text.len, NULL, &kind, &root, NULL), 0);
		json_decref(root);
		assert_int_equal(document_parse(text.data, text.len,
						media == MEDIA_INDEX ? MEDIA_OCI_MANIFEST : MEDIA_OCI_INDEX, &kind,
						&root, NULL),
				 CPULL_ERR_MEDIA_TYPE);
	}
}

static void upstream_manifests_are_read(void **state)
{
	static const struct {
		const char *name;
		int code;
		size_t layers;
		enum layer_compression compression;
		bool encrypted;
	} rows[] = {
		{"ociv1.manifest.json", 0, 3, COMPRESSION_GZIP, false},
		{"ociv1nomime.manifest.json", 0, 3, COMPRESSION_GZIP, false},
		{"ociv1.zstd.manifest.json", 0, 3, COMPRESSION_ZSTD, false},
		{"ociv1.uncompressed.manifest.json", 0, 3, COMPRESSION_NONE, false},
		{"ociv1.encrypted.manifest.json", 0, 3, COMPRESSION_GZIP, true},
		{"ociv1.nondistributable.manifest.json", 0, 1, COMPRESSION_NONE, false},
		{"ociv1.nondistributable.gzip.manifest.json", 0, 1, COMPRESSION_GZIP, false},
		{"ociv1.nondistributable.zstd.manifest.json", 0, 1, COMPRESSION_ZSTD, false},
		{"v2s2.manifest.json", 0, 3, COMPRESSION_GZIP, false},
		{"v2s2.uncompressed.manifest.json", 0, 3, COMPRESSION_NONE, false},
		{"v2s2.nondistributable.manifest.json", 0, 1, COMPRESSION_NONE, false},
		{"v2s2.nondistributable.gzip.manifest.json", 0, 1, COMPRESSION_GZIP, false},
		{"v2s2.everything.json", 0, 1, COMPRESSION_GZIP, false},
		{"ociv1.invalid.mediatype.manifest.json", CPULL_ERR_MEDIA_TYPE, 0, 0, false},
		{"ociv1.artifact.json", CPULL_ERR_MEDIA_TYPE, 0, 0, false},
		{"ociv1nomime.artifact.json", CPULL_ERR_MEDIA_TYPE, 0, 0, false},
		{"ociv1.everything.json", CPULL_ERR_MEDIA_TYPE, 0, 0, false},
		{"v2s2nomime.manifest.json", CPULL_ERR_MANIFEST, 0, 0, false},
		{"v2s1.manifest.json", CPULL_ERR_UNSUPPORTED, 0, 0, false},
		{"v2s1-unsigned.manifest.json", CPULL_ERR_UNSUPPORTED, 0, 0, false},
		{"v2s1.everything.json", CPULL_ERR_UNSUPPORTED, 0, 0, false},
		{"unknown-version.manifest.json", CPULL_ERR_MANIFEST, 0, 0, false},
		{"non-json.manifest.json", CPULL_ERR_MANIFEST, 0, 0, false},
		{"schema2-to-schema1-by-docker.json", CPULL_ERR_MANIFEST, 0, 0, false},
	};

	(void)state;
	if (!vectors_present())
		skip();
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CLEANUP_FREE char *path =
			format_string("upstream/containers-image/manifest/fixtures/%s", rows[i].name);
		CLEANUP_BYTES struct bytes text = vector_read(path);
		struct manifest m;
		struct cpull_error err = {0};
		int rc = parse_text(text.data, text.len, NULL, &m, &err);

		if (rc != rows[i].code)
			fail_msg("%s: got %d (%s), want %d", rows[i].name, rc, err.message, rows[i].code);
		if (rc)
			continue;
		if (m.layer_count != rows[i].layers)
			fail_msg("%s: %zu layers", rows[i].name, m.layer_count);
		for (size_t l = 0; l < m.layer_count; l++) {
			assert_int_equal(m.layers[l].compression, rows[i].compression);
			assert_int_equal(m.layers[l].encrypted, rows[i].encrypted);
			assert_true(!rows[i].encrypted || json_is_object(m.layers[l].annotations));
		}
		manifest_free(&m);
	}
}

static void read_layout(const char *name, bool encrypted)
{
	CLEANUP_FREE char *index_path = format_string("upstream/generated/%s/index.json", name);
	CLEANUP_JSON json_t *index = vector_json(index_path);
	struct index_choice choice;
	struct cpull_error err = {0};

	assert_int_equal(layout_choose(index, "t", &choice, NULL), 0);
	assert_int_equal(layout_choose(index, NULL, &choice, NULL), 0);
	assert_int_equal(layout_choose(index, "u", &choice, &err), CPULL_ERR_NOT_FOUND);
	assert_non_null(strstr(err.message, "there are: t"));
	assert_int_equal(layout_choose(index, "t", &choice, NULL), 0);

	CLEANUP_FREE char *path = format_string("upstream/generated/%s/blobs/sha256/%s", name, choice.digest + 7);
	CLEANUP_BYTES struct bytes text = vector_read(path);
	struct manifest m;

	assert_int_equal(text.len, choice.size);
	assert_int_equal(parse_text(text.data, text.len, choice.media_type, &m, NULL), 0);
	assert_int_equal(m.layers[0].encrypted, encrypted);

	CLEANUP_FREE char *config_path =
		format_string("upstream/generated/%s/blobs/sha256/%s", name, m.config.digest + 7);
	CLEANUP_BYTES struct bytes config_text = vector_read(config_path);
	struct image_config config;

	assert_int_equal(config_text.len, m.config.size);
	assert_int_equal(image_config_parse(config_text.data, config_text.len, &config, NULL), 0);
	assert_int_equal(config.diff_id_count, m.layer_count);
	assert_string_equal(config.platform.arch, "amd64");
	image_config_free(&config);
	manifest_free(&m);
}

static void upstream_layouts_are_read(void **state)
{
	(void)state;
	if (!vectors_present())
		skip();
	read_layout("oci-plain", false);
	read_layout("oci-enc-jwe", true);
	read_layout("oci-enc-jwe-2recipients", true);
	read_layout("oci-enc-attestation-agent", true);

	CLEANUP_BYTES struct bytes text = vector_read("upstream/rust-oci-client/tests/fixtures/config.json");
	struct image_config config;

	assert_int_equal(image_config_parse(text.data, text.len, &config, NULL), 0);
	assert_int_equal(config.diff_id_count, 1);
	assert_string_equal(config.diff_ids[0],
			    "sha256:2e112031b4b923a873c8b3d685d48037e4d5ccd967b658743d93a6e56c3064b9");
	image_config_free(&config);
}

/* ---- image config ---- */

static const char good_config[] =
	"{\"architecture\":\"arm64\",\"variant\":\"v8\",\"os\":\"linux\",\"config\":{\"Env\":[\"A=b\"]},"
	"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" DIGEST_A "\",\"" DIGEST_B "\"]},"
	"\"history\":[{\"empty_layer\":true}]}";

static void assert_config_gives(const char *text, int code)
{
	struct image_config config;
	struct cpull_error err = {0};
	int rc = image_config_parse(text, strlen(text), &config, &err);

	if (rc != code)
		fail_msg("got %d (%s), want %d: %.400s", rc, err.message, code, text);
	if (rc) {
		assert_message(&err, code);
		assert_null(config.root);
		assert_null(config.diff_ids);
		return;
	}
	assert_string_equal(config.platform.os, "linux");
	assert_true(config.diff_id_count > 0);
	image_config_free(&config);
}

static void an_image_config_is_read(void **state)
{
	struct image_config config;
	char text[100];

	(void)state;
	assert_int_equal(image_config_parse(good_config, strlen(good_config), &config, NULL), 0);
	platform_format(&config.platform, text);
	assert_string_equal(text, "linux/arm64/v8");
	assert_int_equal(config.diff_id_count, 2);
	assert_string_equal(config.diff_ids[0], DIGEST_A);
	assert_string_equal(config.diff_ids[1], DIGEST_B);
	image_config_free(&config);
	assert_null(config.root);

	/* rootfs alone is enough */
	const char *sparse = "{\"os\":null,\"config\":null,"
			     "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" DIGEST_C "\"]}}";
	assert_int_equal(image_config_parse(sparse, strlen(sparse), &config, NULL), 0);
	assert_string_equal(config.platform.os, "linux");
	assert_string_equal(config.platform.arch, "");
	assert_string_equal(config.diff_ids[0], DIGEST_C);
	image_config_free(&config);
}

static void image_configs_are_taken_or_refused(void **state)
{
	static const struct change rows[] = {
		{"{\"Env\":[\"A=b\"]}", "null", 0},
		{"[\"A=b\"]", "null", 0},
		{"\"history\":[{\"empty_layer\":true}]", "\"history\":null,\"Size\":0", 0},
		{DIGEST_B, DIGEST_A, 0},
		{DIGEST_B, "sha512:" HEX64 HEX64, 0},
		{"\"os\":\"linux\"", "\"os\":\"windows\"", CPULL_ERR_PLATFORM},
		{"\"os\":\"linux\"", "\"os\":\"wasip1\"", CPULL_ERR_PLATFORM},
		{"\"os\":\"linux\"", "\"os\":\"\"", CPULL_ERR_PLATFORM},
		{"\"os\":\"linux\"", "\"os\":[]", CPULL_ERR_MANIFEST},
		{"\"os\":\"linux\"", "\"os\":\"linux\",\"OS\":\"x\"", CPULL_ERR_MANIFEST},
		{"\"arm64\"", "5", CPULL_ERR_MANIFEST},
		{"\"arm64\"", "\"abcdefghijklmnopqrstuvwxyz012345\"", CPULL_ERR_MANIFEST},
		{"\"v8\"", "\"abcdefghijklmnopqrstuvwxyz012345\"", CPULL_ERR_MANIFEST},
		{"\"rootfs\"", "\"rootFS\"", CPULL_ERR_MANIFEST},
		{"\"rootfs\"", "\"x\"", CPULL_ERR_MANIFEST},
		{"\"rootfs\"", "\"rootfs\":null,\"x\"", CPULL_ERR_MANIFEST},
		{"\"rootfs\"", "\"rootfs\":[],\"x\"", CPULL_ERR_MANIFEST},
		{"\"type\":\"layers\",", "", CPULL_ERR_MANIFEST},
		{"\"layers\"", "\"layers+base\"", CPULL_ERR_MANIFEST},
		{"\"layers\"", "null", CPULL_ERR_MANIFEST},
		{"\"diff_ids\"", "\"Diff_IDs\":[],\"diff_ids\"", CPULL_ERR_MANIFEST},
		{"\"diff_ids\"", "\"x\"", CPULL_ERR_MANIFEST},
		{"\"diff_ids\"", "\"diff_ids\":null,\"x\"", CPULL_ERR_MANIFEST},
		{"\"diff_ids\"", "\"diff_ids\":[],\"x\"", CPULL_ERR_MANIFEST},
		{"\"diff_ids\"", "\"diff_ids\":{},\"x\"", CPULL_ERR_MANIFEST},
		{"\"" DIGEST_B "\"", "null", CPULL_ERR_MANIFEST},
		{"\"" DIGEST_B "\"", "[\"" DIGEST_B "\"]", CPULL_ERR_MANIFEST},
		{DIGEST_B, "", CPULL_ERR_MANIFEST},
		{DIGEST_B, "sha256:../../x", CPULL_ERR_MANIFEST},
		{DIGEST_B, DIGEST_B "\\u0000", CPULL_ERR_MANIFEST},
		{"\"history\"", "\"rootfs\":{},\"history\"", CPULL_ERR_MANIFEST},
	};

	(void)state;
	assert_config_gives(good_config, 0);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CLEANUP_FREE char *text = replaced(good_config, rows[i].from, rows[i].to);

		assert_config_gives(text, rows[i].code);
	}
	assert_config_gives("", CPULL_ERR_MANIFEST);
	assert_config_gives("[]", CPULL_ERR_MANIFEST);
	assert_config_gives("{}", CPULL_ERR_MANIFEST);
}

static void image_configs_have_limits(void **state)
{
	static const char head[] = "{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[";
	CLEANUP_FREE char *most = repeated(head, "\"" DIGEST_A "\"", LIMIT_LAYERS, "]}}");
	CLEANUP_FREE char *more = repeated(head, "\"" DIGEST_A "\"", LIMIT_LAYERS + 1, "]}}");
	CLEANUP_FREE char *full = malloc(LIMIT_CONFIG_BYTES + 2);

	(void)state;
	assert_config_gives(most, 0);
	assert_config_gives(more, CPULL_ERR_LIMIT);

	assert_non_null(full);
	memset(full, ' ', LIMIT_CONFIG_BYTES + 1);
	memcpy(full, good_config, strlen(good_config));
	full[LIMIT_CONFIG_BYTES] = 0;
	assert_config_gives(full, 0);
	full[LIMIT_CONFIG_BYTES] = ' ';
	full[LIMIT_CONFIG_BYTES + 1] = 0;
	assert_config_gives(full, CPULL_ERR_LIMIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_manifest_is_read),
		cmocka_unit_test(manifests_are_taken_or_refused),
		cmocka_unit_test(what_is_no_object_is_refused),
		cmocka_unit_test(the_header_must_agree),
		cmocka_unit_test(every_layer_type_has_its_meaning),
		cmocka_unit_test(the_manifests_type_is_known_without_being_told),
		cmocka_unit_test(manifests_have_limits),
		cmocka_unit_test(shared_documents_have_their_type),
		cmocka_unit_test(upstream_manifests_are_read),
		cmocka_unit_test(upstream_layouts_are_read),
		cmocka_unit_test(an_image_config_is_read),
		cmocka_unit_test(image_configs_are_taken_or_refused),
		cmocka_unit_test(image_configs_have_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
