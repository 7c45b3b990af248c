/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch/reference: the grammar of image names, by the shared cases and by rows of names that must be refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/limits.h"
#include "fetch/reference.h"
#include "tests/unit/vectors.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HEX32 "0123456789abcdef0123456789abcdef"

static void assert_text_equal(const char *got, const char *want, const char *input)
{
	if (got && want ? strcmp(got, want) : got != want)
		fail_msg("\"%s\": got %s, want %s", input, got ? got : "(null)", want ? want : "(null)");
}

static void assert_refused(const char *text)
{
	struct reference ref;
	struct cpull_error err = {0};
	int rc = reference_parse(text, &ref, &err);

	if (rc != CPULL_ERR_USAGE)
		fail_msg("\"%s\": got %d (%s), want it refused", text, rc, rc ? err.message : ref.name);
	assert_int_equal(err.code, CPULL_ERR_USAGE);
	assert_true(strlen(err.message) > 20);
	for (const char *c = err.message; *c; c++)
		assert_true((unsigned char)*c >= ' ');
	assert_null(ref.name);
	assert_null(ref.path);
}

static void check_case(const char *in, const json_t *want)
{
	struct reference ref;
	struct cpull_error err = {0};

	if (json_object_get(want, "error")) {
		assert_refused(in);
		return;
	}
	if (reference_parse(in, &ref, &err))
		fail_msg("\"%s\": %s", in, err.message);
	const char *tag = json_string_at(want, "tag");
	const char *digest = json_string_at(want, "digest");

	assert_int_equal(ref.transport, REFERENCE_REGISTRY);
	assert_text_equal(ref.domain, json_string_at(want, "host"), in);
	assert_text_equal(ref.path, json_string_at(want, "repository"), in);
	assert_text_equal(ref.tag, tag || digest ? tag : "latest", in);
	assert_text_equal(ref.digest, digest, in);
	assert_text_equal(ref.digest ? ref.digest : ref.tag, json_string_at(want, "fetch"), in);

	struct reference again;

	assert_int_equal(reference_parse(ref.name, &again, NULL), 0);
	assert_text_equal(again.name, ref.name, in);
	reference_free(&again);
	reference_free(&ref);
}

static void shared_cases_parse_as_they_say(void **state)
{
	(void)state;
	if (!vectors_present())
		skip();

	CLEANUP_JSON json_t *cases = vector_json("registry/reference-cases.json");
	const json_t *one;
	size_t i;

	assert_true(json_array_size(cases) >= 59);
	json_array_foreach(cases, i, one)
		check_case(json_string_at(one, "in"), json_object_get(one, "out"));
}

static void names_get_their_defaults(void **state)
{
	static const struct {
		const char *in;
		const char *name;
	} rows[] = {
		{"debian", "docker.io/library/debian:latest"},
		{"debian:12", "docker.io/library/debian:12"},
		{"index.docker.io/debian", "docker.io/library/debian:latest"},
		{"a/b@sha256:" HEX64, "docker.io/a/b@sha256:" HEX64},
		/* the port is not a tag, and the digest decides beside a tag */
		{"127.0.0.1:5000/a/b:t@sha256:" HEX64, "127.0.0.1:5000/a/b:t@sha256:" HEX64},
		{"127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"},
		{"h.example/a@sha384:" HEX64 HEX32, "h.example/a@sha384:" HEX64 HEX32},
		{"h.example/a@sha512:" HEX64 HEX64, "h.example/a@sha512:" HEX64 HEX64},
		{"[FC00::1]:1/a__b---c.d", "[FC00::1]:1/a__b---c.d:latest"},
		{"a-1.b-2.example/x:_", "a-1.b-2.example/x:_"},
		{"oci/x", "docker.io/oci/x:latest"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct reference ref;

		assert_int_equal(reference_parse(rows[i].in, &ref, NULL), 0);
		assert_text_equal(ref.name, rows[i].name, rows[i].in);
		reference_free(&ref);
	}
}

static void malformed_names_are_refused(void **state)
{
	static const char *const rows[] = {
		"", " ", "a ", "a\t", "a\n", "a\x7f", "a\x1b[31m", "h\xc3\xb4st.example/a", "\xff",
		"https://h.example/a", "docker://debian", HEX64,
		"/", "/a", "a/", "a//b", ":t", "@sha256:" HEX64, "h.example/", "h.example/:t",
		"h.example:/a", "h.example:5x/a", "h.example:5:6/a", "-h.example/a", "h-.example/a", "h.-example/a",
		".example/a", "h..example/a", "h.example./a", "h_x.example/a", "h.ex%61mple/a",
		"[]/a", "[]:5/a", "[:5/a", "[::1/a", "[::1]x/a", "[::1]:/a", "[::g]/a", "[fe80::1%eth0]/a", "::1/a",
		"A", "h.example/A", "h.example/a/B", "a..b", "a._b", "a___b", "a-", "a-_b", "_a", ".a", "a/.b",
		"a/../b", "h.example/a/../b", "a%2e", "a?b", "a#b", "a\\b",
		"a:", "a:-t", "a:.t", "a:t/", "a:t:u", "a:t t", "a:t%",
		"a@", "a@sha256", "a@sha256:", "a@sha256:" HEX32, "a@sha256:" HEX64 "0", "a@sha256:" HEX64 ":t",
		"a@sha256:" HEX64 "@sha256:" HEX64, "a@SHA256:" HEX64,
		"a@sha1:0123456789012345678901234567890123456789",
		"a@md5:" HEX32, "a@sha512:" HEX64, "a@sha256:../../../../v2/private/secret/manifests/latest0000000000",
		"a@sha256:ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef0123456789",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_refused(rows[i]);
}

/* "h.example/" and `n` times "a", then `tail`. */
static char *long_name(size_t n, const char *tail)
{
	char *text = malloc(n + 32 + strlen(tail));

	if (!text)
		abort();
	strcpy(text, "h.example/");
	memset(text + 10, 'a', n);
	strcpy(text + 10 + n, tail);
	return text;
}

static void lengths_have_limits(void **state)
{
	struct reference ref;
	char tag[160] = ":";

	(void)state;
	memset(tag + 1, 't', 128);
	CLEANUP_FREE char *longest = long_name(255, tag);
	assert_int_equal(reference_parse(longest, &ref, NULL), 0);
	assert_int_equal(strlen(ref.path), 255);
	reference_free(&ref);

	CLEANUP_FREE char *path = long_name(256, "");
	assert_refused(path);
	tag[129] = 't';
	CLEANUP_FREE char *long_tag = long_name(1, tag);
	assert_refused(long_tag);

	/* library/ counts */
	CLEANUP_FREE char *short_name = strndup(longest + 10, 247);
	assert_int_equal(reference_parse(short_name, &ref, NULL), 0);
	assert_int_equal(strlen(ref.path), 255);
	reference_free(&ref);
	CLEANUP_FREE char *longer = strndup(longest + 10, 248);
	assert_refused(longer);

	CLEANUP_FREE char *huge = long_name(1u << 20, "");
	assert_refused(huge);

	/* every piece in its own limit, all together past LIMIT_REFERENCE_BYTES */
	tag[129] = 0;
	CLEANUP_FREE char *digest = format_string("%s@sha512:" HEX64 HEX64, tag);
	CLEANUP_FREE char *sum = long_name(255, digest);
	assert_true(strlen(sum) > LIMIT_REFERENCE_BYTES);
	assert_refused(sum);

	char host[300];

	memset(host, 'h', sizeof(host));
	strcpy(host + 262 - 8, ".example/a");
	assert_refused(host);
}

static void digests_are_compared_whole(void **state)
{
	static const char *const good[] = {"sha256:" HEX64, "sha384:" HEX64 HEX32, "sha512:" HEX64 HEX64};
	static const char *const bad[] = {
		"", "sha256", "sha256:", "sha256:" HEX32, "sha256:" HEX64 "0", "sha256:" HEX64 " ", " sha256:" HEX64,
		"sha256:" HEX64 "\n", "SHA256:" HEX64, "sha512:" HEX64, "sha384:" HEX64 HEX64,
		"sha512-256:" HEX64, HEX64,
		"sha1:0123456789012345678901234567890123456789", "sha256:../../../../etc/passwd", "sha256+b64:" HEX64,
		"sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
		"sha256:g123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		assert_true(reference_digest_valid(good[i]));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (reference_digest_valid(bad[i]))
			fail_msg("digest \"%s\" was taken", bad[i]);
}

static char start_dir[PATH_MAX];

/* Each layout test runs in a directory of its own, with "dir" and a symlink "link" to it. */
static int enter_dir(void **state)
{
	static char name[] = "/tmp/test-reference-XXXXXX";

	strcpy(name + strlen(name) - 6, "XXXXXX");
	if (!getcwd(start_dir, sizeof(start_dir)) || !mkdtemp(name) || chdir(name) || mkdir("dir", 0755) ||
	    mkdir("co:lon", 0755) || symlink("dir", "link"))
		return -1;
	*state = realpath(name, NULL);
	return *state ? 0 : -1;
}

static int leave_dir(void **state)
{
	char *name = *state;
	bool gone = !chdir(name) && !unlink("link") && !rmdir("dir") && !rmdir("co:lon") && !chdir(start_dir) &&
		    !rmdir(name);

	free(name);
	return gone ? 0 : -1;
}

static void assert_layout(const char *text, const char *path, const char *tag, const char *digest)
{
	struct reference ref;
	struct cpull_error err = {0};

	if (reference_parse(text, &ref, &err))
		fail_msg("\"%s\": %s", text, err.message);
	assert_int_equal(ref.transport, REFERENCE_LAYOUT);
	assert_null(ref.domain);
	assert_text_equal(ref.path, path, text);
	assert_text_equal(ref.tag, tag, text);
	assert_text_equal(ref.digest, digest, text);

	const char *suffix = digest ? digest : tag;
	CLEANUP_FREE char *name = format_string("oci:%s%s%s", path, suffix ? ":" : "", suffix ? suffix : "");

	assert_text_equal(ref.name, name, text);
	reference_free(&ref);
}

static void layouts_are_made_absolute(void **state)
{
	CLEANUP_FREE char *dir = format_string("%s/dir", (char *)*state);
	CLEANUP_FREE char *gone = format_string("%s/gone/x", (char *)*state);
	CLEANUP_FREE char *given = format_string("oci:%s", dir);

	assert_layout(given, dir, NULL, NULL);
	assert_layout("oci:dir", dir, NULL, NULL);
	assert_layout("oci:./dir/", dir, NULL, NULL);
	assert_layout("oci:link:v1", dir, "v1", NULL);
	assert_layout("oci:dir:h.example:5000/a/b:v1", dir, "h.example:5000/a/b:v1", NULL);
	assert_layout("oci:dir:a--b", dir, "a--b", NULL);
	assert_layout("oci:dir:sha256:" HEX64, dir, NULL, "sha256:" HEX64);
	/* what looks like a digest and is none stays a name, which will not be found */
	assert_layout("oci:dir:sha256:" HEX32, dir, "sha256:" HEX32, NULL);
	assert_layout("oci:gone/x:t", gone, "t", NULL);
	assert_layout("oci:/nowhere/at-all", "/nowhere/at-all", NULL, NULL);
	assert_int_equal(chdir("/"), 0);
	assert_layout("oci:nowhere/at-all", "/nowhere/at-all", NULL, NULL);
	assert_int_equal(chdir(*state), 0);
}

static void malformed_layouts_are_refused(void **state)
{
	static const char *const rows[] = {
		"oci:", "oci::t", "oci:dir:", "oci:dir:-t", "oci:dir:t-", "oci:dir:a..b", "oci:dir:a//b", "oci:dir:/a",
		"oci:dir:a b", "oci:dir:a\nb", "oci:dir:a---b", "oci:di\nr", "oci:dir\x7f", "oci:dir:t\xc3\xb4",
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_refused(rows[i]);

	/* the name of a layout has to be readable again */
	assert_int_equal(chdir("co:lon"), 0);
	assert_refused("oci:.");
	assert_refused("oci:gone");
	assert_int_equal(chdir(*state), 0);

	char text[LIMIT_PATH_BYTES + LIMIT_REFERENCE_BYTES];

	memset(text, 'a', sizeof(text));
	memcpy(text, "oci:", 4);
	text[4 + LIMIT_PATH_BYTES] = 0;
	assert_refused(text);
	strcpy(text, "oci:dir:");
	memset(text + 8, 'a', LIMIT_REFERENCE_BYTES + 1);
	text[8 + LIMIT_REFERENCE_BYTES + 1] = 0;
	assert_refused(text);
	text[8 + LIMIT_REFERENCE_BYTES] = 0;
	struct reference ref;
	assert_int_equal(reference_parse(text, &ref, NULL), 0);
	reference_free(&ref);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shared_cases_parse_as_they_say),
		cmocka_unit_test(names_get_their_defaults),
		cmocka_unit_test(malformed_names_are_refused),
		cmocka_unit_test(lengths_have_limits),
		cmocka_unit_test(digests_are_compared_whole),
		cmocka_unit_test_setup_teardown(layouts_are_made_absolute, enter_dir, leave_dir),
		cmocka_unit_test_setup_teardown(malformed_layouts_are_refused, enter_dir, leave_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
