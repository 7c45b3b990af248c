/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch/manifest.h: platforms, and the choice of an entry from an index or a layout.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "fetch/document.h"
#include "fetch/platform.h"
#include "tests/unit/documents.h"
#include "tests/unit/vectors.h"

static void platforms_are_written_and_read(void **state)
{
	static const char *const good[] = {"linux/amd64", "linux/arm64/v8", "linux/arm/v7", "windows/amd64",
					   "a.b/c_d/e-f", "linux/abcdefghijklmnopqrstuvwxyz01234"};
	static const char *const bad[] = {
		"", "linux", "linux/", "/amd64", "linux//v8", "linux/arm/", "linux/arm/v7/", "linux/arm/v7/x",
		"Linux/amd64", "linux/AMD64", "linux amd64", "linux/am d64", "linux/amd64\n", "linux/\xc3\xb4",
		"linux/abcdefghijklmnopqrstuvwxyz012345", "abcdefghijklmnopqrstuvwxyz012345/amd64",
		"linux/arm/abcdefghijklmnopqrstuvwxyz012345",
	};
	struct platform p;
	char text[100];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(platform_parse(good[i], &p, NULL), 0);
		platform_format(&p, text);
		assert_string_equal(text, good[i]);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct cpull_error err = {0};

		if (!platform_parse(bad[i], &p, &err))
			fail_msg("platform \"%s\" was taken", bad[i]);
		assert_message(&err, CPULL_ERR_USAGE);
		assert_int_equal(p.os[0], 0);
	}
	assert_int_equal(platform_parse("linux/aarch64/v8", &p, NULL), 0);
	assert_string_equal(p.arch, "arm64");
	assert_int_equal(platform_parse("linux/x86_64", &p, NULL), 0);
	assert_string_equal(p.arch, "amd64");
}

static void amd64_levels_need_all_their_features(void **state)
{
	/* SSE3 SSSE3 FMA CX16 SSE4.1 SSE4.2 MOVBE POPCNT OSXSAVE AVX F16C; BMI1 AVX2 BMI2, AVX-512; LAHF LZCNT */
	const struct amd64_features all = {0x38d83201, 0xd0030128, 0x21, 0xe7};
	struct amd64_features some = all;

	(void)state;
	assert_int_equal(amd64_level(&all), 4);
	assert_int_equal(amd64_level(&(struct amd64_features){0}), 1);
	some.xcr0 = 0x07; /* AVX-512 in the CPU, but the kernel does not save it */
	assert_int_equal(amd64_level(&some), 3);
	some.xcr0 = 0;
	assert_int_equal(amd64_level(&some), 2);
	some = all;
	some.ext1_ecx = 0;
	assert_int_equal(amd64_level(&some), 1); /* no LAHF in 64-bit mode */
	some = all;
	some.leaf7_ebx &= ~(1u << 31);
	assert_int_equal(amd64_level(&some), 3);
	some.leaf7_ebx &= ~(1u << 5);
	assert_int_equal(amd64_level(&some), 2);
	for (unsigned bit = 0; bit < 32; bit++) {
		some = all;
		some.leaf1_ecx &= ~(1u << bit);
		if (some.leaf1_ecx != all.leaf1_ecx)
			assert_in_range(amd64_level(&some), 1, 2);
	}
}

#if defined(__x86_64__)
static bool has_flags(const char *flags, const char *const *names)
{
	for (; *names; names++) {
		CLEANUP_FREE char *word = format_string(" %s ", *names);

		if (!strstr(flags, word))
			return false;
	}
	return true;
}

/* What the kernel reports, which leaves out what it does not save. */
static unsigned kernel_level(void)
{
	static const char *const v2[] = {"pni", "ssse3", "cx16", "sse4_1", "sse4_2", "popcnt", "lahf_lm", NULL};
	static const char *const v3[] = {"fma", "movbe", "avx", "f16c", "bmi1", "avx2", "bmi2", "abm", NULL};
	static const char *const v4[] = {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl", NULL};
	CLEANUP_FILE FILE *f = fopen("/proc/cpuinfo", "r");
	char line[8192];

	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, "flags", 5))
			continue;
		line[strcspn(line, "\n")] = ' ';
		if (!has_flags(line, v2))
			return 1;
		if (!has_flags(line, v3))
			return 2;
		return has_flags(line, v4) ? 4 : 3;
	}
	return 0;
}
#endif

static void the_machine_knows_itself(void **state)
{
	struct platform p;

	(void)state;
	assert_int_equal(platform_parse(NULL, &p, NULL), 0);
	assert_string_equal(p.os, "linux");
#if defined(__x86_64__)
	unsigned level = kernel_level();
	char variant[8];

	assert_string_equal(p.arch, "amd64");
	snprintf(variant, sizeof(variant), "v%u", level);
	if (level)
		assert_string_equal(p.variant, variant);
#elif defined(__aarch64__)
	assert_string_equal(p.arch, "arm64");
	assert_string_equal(p.variant, "v8");
#endif
}

static int choose(const json_t *root, const char *platform, struct index_choice *out, struct cpull_error *err)
{
	struct platform want;

	assert_int_equal(platform_parse(platform, &want, NULL), 0);
	return index_choose(root, &want, out, err);
}

static void shared_platform_cases_choose_their_entry(void **state)
{
	const json_t *row;
	size_t i;

	(void)state;
	if (!vectors_present())
		skip();

	CLEANUP_JSON json_t *cases = vector_json("registry/platform/cases.json");
	CLEANUP_JSON json_t *index = vector_json("registry/manifests/ocilist-variants.json");
	const json_t *rows = json_object_get(cases, "cases");

	assert_true(json_array_size(rows) >= 8);
	json_array_foreach(rows, i, row) {
		const char *arch = json_string_value(json_array_get(row, 0));
		const char *variant = json_string_value(json_array_get(row, 1));
		const char *want = json_string_value(json_array_get(row, 2));
		CLEANUP_FREE char *platform = format_string("linux/%s%s%s", arch, *variant ? "/" : "", variant);
		struct index_choice choice;
		struct cpull_error err = {0};
		int rc = choose(index, platform, &choice, &err);

		if (rc != (want ? 0 : CPULL_ERR_PLATFORM) || (want && strcmp(choice.digest, want)))
			fail_msg("%s: got %d %s, want %s", platform, rc, rc ? err.message : choice.digest,
				 want ? want : "none");
		if (!want)
			assert_non_null(strstr(err.message, "linux/arm/v7"));
	}
}

/* An index of entries that are given as "os/arch[/variant]" (or "-" for no platform), with digests a, b, c … */
static json_t *index_of(const char *platforms)
{
	json_t *manifests = json_array();
	CLEANUP_FREE char *copy = strdup(platforms);
	char *rest = copy;
	char letter = 'a';

	for (char *name; (name = strsep(&rest, " ")); letter++) {
		char digest[72] = "sha256:";
		struct platform p;

		memset(digest + 7, letter, 64);
		json_t *entry = json_pack("{ss ss si}", "mediaType", MEDIA_OCI_MANIFEST, "digest", digest, "size", 5);

		if (strcmp(name, "-")) {
			assert_int_equal(platform_parse(name, &p, NULL), 0);
			json_object_set_new(entry, "platform",
					    p.variant[0] ? json_pack("{ss ss ss}", "os", p.os, "architecture", p.arch,
								     "variant", p.variant) :
							   json_pack("{ss ss}", "os", p.os, "architecture", p.arch));
		}
		json_array_append_new(manifests, entry);
	}
	return json_pack("{si so}", "schemaVersion", 2, "manifests", manifests);
}

static void the_best_entry_for_a_platform_is_chosen(void **state)
{
	static const struct {
		const char *entries;
		const char *want;
		char letter; /* 0: none */
	} rows[] = {
		/* arm64 with and without variant serve each other */
		{"linux/amd64 linux/arm64", "linux/arm64/v8", 'b'},
		{"linux/amd64 linux/arm64/v8", "linux/arm64", 'b'},
		{"linux/arm64/v8 linux/arm64", "linux/arm64", 'b'},
		{"linux/arm64 linux/arm64/v8", "linux/arm64/v8", 'b'},
		/* the best that the CPU can run */
		{"linux/amd64 linux/amd64/v2 linux/amd64/v4", "linux/amd64/v4", 'c'},
		{"linux/amd64 linux/amd64/v2 linux/amd64/v4", "linux/amd64/v3", 'b'},
		{"linux/amd64 linux/amd64/v2 linux/amd64/v4", "linux/amd64/v1", 'a'},
		{"linux/amd64/v4 linux/amd64/v2 linux/amd64", "linux/amd64/v2", 'b'},
		{"linux/amd64/v4 linux/amd64/v2", "linux/amd64/v1", 0},
		{"linux/amd64/v4", "linux/amd64/v3", 0},
		/* nothing asked for: never one that needs more than every CPU has */
		{"linux/amd64/v2 linux/amd64", "linux/amd64", 'b'},
		{"linux/amd64/v2 linux/amd64/v1", "linux/amd64", 'b'},
		{"linux/amd64/v2 linux/amd64/v3", "linux/amd64", 0},
		{"linux/arm/v5 linux/arm/v7", "linux/arm", 'b'},
		{"linux/arm/v5 linux/arm/v7", "linux/arm/v6", 'a'},
		{"linux/arm/v5 linux/arm/v7", "linux/arm/v8", 'b'},
		{"linux/arm/v7 linux/arm/v8", "linux/arm/v6", 0},
		/* attestations, the same twice, no platform */
		{"unknown/unknown linux/amd64", "linux/amd64", 'b'},
		{"linux/amd64 linux/amd64", "linux/amd64", 'a'},
		{"- linux/amd64", "linux/amd64", 'b'},
		{"- linux/amd64", "linux/s390x", 'a'},
		{"linux/amd64 - -", "linux/s390x", 'b'},
		{"unknown/unknown", "linux/amd64", 0},
		{"windows/amd64 linux/arm/v7", "linux/amd64", 0},
		{"linux/386", "linux/amd64", 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CLEANUP_JSON json_t *index = index_of(rows[i].entries);
		struct index_choice choice;
		struct cpull_error err = {0};
		int rc = choose(index, rows[i].want, &choice, &err);
		char got = rc ? 0 : choice.digest[7];

		if (got != rows[i].letter || (rc && rc != CPULL_ERR_PLATFORM))
			fail_msg("%s of %s: got %d %c (%s)", rows[i].want, rows[i].entries, rc, got ? got : '-',
				 err.message);
		if (rc) {
			assert_message(&err, CPULL_ERR_PLATFORM);
			assert_int_equal(choice.digest[0], 0);
			assert_non_null(strstr(err.message, rows[i].want));
		}
	}
}

static void a_choice_is_complete(void **state)
{
	CLEANUP_JSON json_t *index = index_of("linux/amd64 linux/arm64/v8 -");
	struct index_choice choice;
	struct cpull_error err = {0};
	char text[100];

	(void)state;
	assert_int_equal(choose(index, "linux/arm64", &choice, NULL), 0);
	assert_string_equal(choice.digest, DIGEST_B);
	assert_string_equal(choice.media_type, MEDIA_OCI_MANIFEST);
	assert_int_equal(choice.size, 5);
	platform_format(&choice.platform, text);
	assert_string_equal(text, "linux/arm64/v8");

	/* nested indexes may be chosen */
	json_t *entries = json_object_get(index, "manifests");
	json_object_set_new(json_array_get(entries, 2), "mediaType", json_string(MEDIA_OCI_INDEX));
	assert_int_equal(choose(index, "linux/s390x", &choice, NULL), 0);
	assert_string_equal(choice.media_type, MEDIA_OCI_INDEX);
	assert_int_equal(choice.platform.os[0], 0);

	/* what is attached to images is no image */
	json_object_set_new(json_array_get(entries, 2), "artifactType", json_string("application/vnd.example"));
	assert_int_equal(choose(index, "linux/s390x", &choice, &err), CPULL_ERR_PLATFORM);
	assert_non_null(strstr(err.message, "on offer: linux/amd64, linux/arm64/v8"));
	json_object_set_new(json_array_get(entries, 0), "annotations",
			    json_pack("{ss}", "vnd.docker.reference.type", "attestation-manifest"));
	assert_int_equal(choose(index, "linux/amd64", &choice, NULL), CPULL_ERR_PLATFORM);
	/* neither is an unknown media type */
	json_object_set_new(json_array_get(entries, 1), "mediaType", json_string("x-unknown"));
	assert_int_equal(choose(index, "linux/arm64", &choice, &err), CPULL_ERR_PLATFORM);
	assert_non_null(strstr(err.message, "on offer: nothing"));
}

static void zstd_is_preferred_within_a_platform(void **state)
{
	CLEANUP_JSON json_t *index = index_of("linux/arm/v6 linux/arm/v7 linux/arm/v7 linux/arm/v7");
	const json_t *entries = json_object_get(index, "manifests");
	struct index_choice choice;

	(void)state;
	for (size_t i = 0; i < 4; i += 2)
		json_object_set_new(json_array_get(entries, i), "annotations",
				    json_pack("{ss}", "io.github.containers.compression.zstd", "true"));
	json_object_set_new(json_array_get(entries, 3), "annotations",
			    json_pack("{ss}", "io.github.containers.compression.zstd", "true"));
	assert_int_equal(choose(index, "linux/arm/v7", &choice, NULL), 0);
	assert_string_equal(choice.digest, DIGEST_C);
	json_object_del(json_array_get(entries, 2), "annotations");
	json_object_del(json_array_get(entries, 3), "annotations");
	assert_int_equal(choose(index, "linux/arm/v7", &choice, NULL), 0);
	assert_string_equal(choice.digest, DIGEST_B); /* v6 in zstd is no reason to take less than v7 */
}

static const char good_index[] =
	"{\"schemaVersion\":2,\"mediaType\":\"" MEDIA_OCI_INDEX "\",\"manifests\":["
	"{\"mediaType\":\"" MEDIA_OCI_MANIFEST "\",\"digest\":\"" DIGEST_A "\",\"size\":7,"
	"\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}},"
	"{\"mediaType\":\"" MEDIA_OCI_MANIFEST "\",\"digest\":\"" DIGEST_B "\",\"size\":8,"
	"\"platform\":{\"os\":\"linux\",\"architecture\":\"arm64\",\"variant\":\"v8\"},"
	"\"annotations\":{\"org.opencontainers.image.ref.name\":\"two\"}}]}";

static void assert_index_gives(const char *text, int code)
{
	enum document_kind kind;
	struct index_choice choice;
	struct cpull_error err = {0};
	json_t *root;
	int rc = document_parse(text, strlen(text), NULL, &kind, &root, &err);

	if (!rc) {
		assert_int_equal(kind, DOCUMENT_INDEX);
		rc = choose(root, "linux/amd64", &choice, &err);
		json_decref(root);
	}
	if (rc != code)
		fail_msg("got %d (%s), want %d: %.400s", rc, err.message, code, text);
	if (rc)
		assert_message(&err, code);
}

static void indexes_are_taken_or_refused(void **state)
{
	static const struct change rows[] = {
		{"\"digest\":\"" DIGEST_B "\"", "\"digest\":5", 0}, /* another machine's entry */
		{"\"variant\":\"v8\"", "\"variant\":null,\"os.version\":\"1\",\"features\":[]", 0},
		{"\"manifests\"", "\"layers\":[],\"manifests\"", CPULL_ERR_MANIFEST},
		{"\"manifests\"", "\"config\":null,\"manifests\"", 0},
		{DIGEST_A, "sha256:../../x", CPULL_ERR_MANIFEST},
		{DIGEST_A, "sha256:" HEX32, CPULL_ERR_MANIFEST},
		/* an image may say what it is for, and stays one */
		{"\"size\":7", "\"size\":7,\"artifactType\":\"application/vnd.example\"", 0},
		{"\"size\":7", "\"size\":-7", CPULL_ERR_MANIFEST},
		{"\"size\":7", "\"size\":4194304", 0},
		{"\"size\":7", "\"size\":4194305", CPULL_ERR_LIMIT},
		{"\"size\":7", "\"size\":7,\"annotations\":[]", CPULL_ERR_MANIFEST},
		{"{\"os\":\"linux\",\"architecture\":\"amd64\"}", "\"linux/amd64\"", CPULL_ERR_MANIFEST},
		{"\"architecture\":\"arm64\"", "\"Architecture\":\"amd64\",\"architecture\":\"arm64\"",
		 CPULL_ERR_MANIFEST},
		{"\"size\":8", "\"size\":8,\"Platform\":{}", CPULL_ERR_MANIFEST},
		{"\"os\":\"linux\",\"architecture\":\"amd64\"", "\"os\":5,\"architecture\":\"amd64\"",
		 CPULL_ERR_PLATFORM},
		{"\"amd64\"", "\"amd64-and-a-name-that-is-longer-than-the-struct-has-room\\n\"", CPULL_ERR_PLATFORM},
		{"\"manifests\":[", "\"manifests\":[null,", CPULL_ERR_MANIFEST},
		{"\"manifests\":[", "\"manifests\":[{},", CPULL_ERR_MANIFEST},
		{"\"manifests\":[", "\"manifests\":[\"x\",", CPULL_ERR_MANIFEST},
		{MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST, CPULL_ERR_MEDIA_TYPE},
		{MEDIA_OCI_INDEX, MEDIA_DOCKER_LIST, 0},
	};

	(void)state;
	assert_index_gives(good_index, 0);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CLEANUP_FREE char *text = replaced(good_index, rows[i].from, rows[i].to);

		assert_index_gives(text, rows[i].code);
	}
	assert_index_gives("{\"schemaVersion\":2,\"manifests\":[]}", CPULL_ERR_PLATFORM);
}

static void indexes_have_limits(void **state)
{
	static const char entry[] = "{\"mediaType\":\"" MEDIA_OCI_MANIFEST "\",\"digest\":\"" DIGEST_A
				    "\",\"size\":7,\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}}";
	static const char head[] = "{\"schemaVersion\":2,\"manifests\":[";
	CLEANUP_FREE char *most = repeated(head, entry, LIMIT_INDEX_ENTRIES, "]}");
	CLEANUP_FREE char *more = repeated(head, entry, LIMIT_INDEX_ENTRIES + 1, "]}");

	(void)state;
	assert_index_gives(most, 0);
	assert_index_gives(more, CPULL_ERR_LIMIT);

	CLEANUP_FREE char *many = repeated(head, "{}", 100000, "]}");
	assert_index_gives(many, CPULL_ERR_LIMIT);

	/* the list of what is on offer ends before the message does */
	json_t *manifests = json_array();
	for (int i = 0; i < 200; i++) {
		char arch[32];

		snprintf(arch, sizeof(arch), "arch-%03d", i);
		json_array_append_new(manifests, json_pack("{ss ss si s{ss ss}}", "mediaType", MEDIA_OCI_MANIFEST,
							   "digest", DIGEST_A, "size", 1, "platform", "os", "linux",
							   "architecture", arch));
	}
	CLEANUP_JSON json_t *index = json_pack("{si so}", "schemaVersion", 2, "manifests", manifests);
	struct index_choice choice;
	struct cpull_error err = {0};
	assert_int_equal(choose(index, "linux/amd64", &choice, &err), CPULL_ERR_PLATFORM);
	assert_message(&err, CPULL_ERR_PLATFORM);
	assert_string_equal(err.message + strlen(err.message) - 4, " ...");
}

static void a_layout_is_asked_by_name(void **state)
{
	CLEANUP_JSON json_t *index = json_loads(good_index, 0, NULL);
	json_t *entries = json_object_get(index, "manifests");
	struct index_choice choice;
	struct cpull_error err = {0};

	(void)state;
	assert_int_equal(layout_choose(index, "two", &choice, NULL), 0);
	assert_string_equal(choice.digest, DIGEST_B);
	assert_int_equal(choice.size, 8);
	assert_string_equal(choice.platform.variant, "v8");
	assert_int_equal(layout_choose(index, DIGEST_A, &choice, NULL), 0);
	assert_string_equal(choice.digest, DIGEST_A);

	assert_int_equal(layout_choose(index, NULL, &choice, &err), CPULL_ERR_NOT_FOUND);
	assert_non_null(strstr(err.message, DIGEST_A ", two"));
	assert_int_equal(choice.digest[0], 0);
	assert_int_equal(layout_choose(index, "tw", &choice, &err), CPULL_ERR_NOT_FOUND);
	assert_non_null(strstr(err.message, "\"tw\""));
	assert_int_equal(layout_choose(index, DIGEST_C, &choice, &err), CPULL_ERR_NOT_FOUND);

	/* one name for two images is refused, the same image listed twice is not */
	json_object_set_new(json_array_get(entries, 0), "annotations",
			    json_pack("{ss}", "org.opencontainers.image.ref.name", "two"));
	assert_int_equal(layout_choose(index, "two", &choice, &err), CPULL_ERR_MANIFEST);
	json_object_set_new(json_array_get(entries, 0), "digest", json_string(DIGEST_B));
	assert_int_equal(layout_choose(index, "two", &choice, NULL), 0);
	assert_int_equal(layout_choose(index, NULL, &choice, NULL), 0);

	json_object_set_new(json_array_get(entries, 0), "mediaType", json_string("x-completely-unknown"));
	assert_int_equal(layout_choose(index, "two", &choice, NULL), CPULL_ERR_MEDIA_TYPE);
	json_object_set_new(json_array_get(entries, 0), "digest", json_string("sha256:../../x"));
	assert_int_equal(layout_choose(index, "sha256:../../x", &choice, NULL), CPULL_ERR_NOT_FOUND);

	json_array_clear(entries);
	assert_int_equal(layout_choose(index, NULL, &choice, &err), CPULL_ERR_NOT_FOUND);
	assert_message(&err, CPULL_ERR_NOT_FOUND);
	json_object_set_new(index, "manifests", json_object());
	assert_int_equal(layout_choose(index, NULL, &choice, NULL), CPULL_ERR_MANIFEST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(platforms_are_written_and_read),
		cmocka_unit_test(amd64_levels_need_all_their_features),
		cmocka_unit_test(the_machine_knows_itself),
		cmocka_unit_test(shared_platform_cases_choose_their_entry),
		cmocka_unit_test(the_best_entry_for_a_platform_is_chosen),
		cmocka_unit_test(a_choice_is_complete),
		cmocka_unit_test(zstd_is_preferred_within_a_platform),
		cmocka_unit_test(indexes_are_taken_or_refused),
		cmocka_unit_test(indexes_have_limits),
		cmocka_unit_test(a_layout_is_asked_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
