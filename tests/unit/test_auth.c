/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch/auth, fetch/authfile and fetch/retry: the registry vectors, and what they do not have.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/limits.h"
#include "fetch/auth.h"
#include "fetch/retry.h"

/* ---- vectors ---- */

static char *vector_path(const char *name)
{
	const char *shared = getenv("COCO_PULL_SHARED");

	return format_string("%s/vectors/registry/%s", shared ? shared : "../shared", name);
}

static json_t *load_vectors(const char *name)
{
	CLEANUP_FREE char *path = vector_path(name);
	json_t *root;

	if (access(path, R_OK) != 0) {
		print_message("no shared vectors at %s\n", path);
		skip();
	}
	root = json_load_file(path, 0, NULL);
	assert_non_null(root);
	return root;
}

static void assert_member(const json_t *want, const char *key, const char *have)
{
	const char *text = json_string_at(want, key);

	assert_string_equal(have, text ? text : "");
}

static void challenges_are_read_as_the_vectors_say(void **state)
{
	json_t *root = load_vectors("www-authenticate.json"), *row;
	size_t i;

	(void)state;
	json_array_foreach(root, i, row) {
		const char *at = json_string_at(row, "in");
		const json_t *out = json_object_get(row, "out");
		struct challenge got;

		for (size_t k = 0; k < json_array_size(out); k++) {
			const json_t *want = json_array_get(out, k);

			assert_true(challenge_next(&at, &got));
			assert_member(want, "scheme", got.scheme);
			assert_member(want, "realm", got.realm);
			assert_member(want, "service", got.service);
			assert_member(want, "scope", got.scope);
			assert_member(want, "error", got.error);
		}
		assert_false(challenge_next(&at, &got));
	}
	json_decref(root);
}

static void check_lookup(const json_t *row, const char *text, size_t len, bool legacy)
{
	struct credentials creds = {0};
	struct cpull_error err = {0};
	CLEANUP_FREE char *domain = strdup(json_string_at(row, "key"));
	char *slash = strchr(domain, '/');
	const char *path = slash ? slash + 1 : "repo";

	if (slash)
		*slash = 0;

	int rc = authfile_lookup(text, len, legacy, domain, path, &creds, &err);

	if (json_is_true(json_object_get(row, "error")) || json_object_get(row, "helper")) {
		assert_int_equal(rc, CPULL_ERR_AUTH);
		assert_false(credentials_known(&creds));
		if (json_object_get(row, "helper"))
			assert_non_null(strstr(err.message, json_string_at(row, "helper")));
		return;
	}
	assert_int_equal(rc, 0);
	if (json_is_true(json_object_get(row, "none"))) {
		assert_false(credentials_known(&creds));
		return;
	}
	assert_string_equal(creds.user, json_string_at(row, "user"));
	assert_string_equal(creds.password, json_string_at(row, "password"));
	assert_member(row, "identitytoken", creds.identity_token ? creds.identity_token : "");
	credentials_free(&creds);
}

static void auth_files_are_read_as_the_vectors_say(void **state)
{
	json_t *root = load_vectors("auth-cases.json"), *row;
	size_t i;

	(void)state;
	json_array_foreach(json_object_get(root, "upstream"), i, row) {
		CLEANUP_FREE char *name = format_string("authfiles/%s", json_string_at(row, "file"));
		CLEANUP_FREE char *path = vector_path(name);
		CLEANUP_BYTES struct bytes text = {0};

		assert_int_equal(file_read(path, LIMIT_AUTH_FILE_BYTES, "auth file", &text, NULL), 0);
		check_lookup(row, text.data, text.len, json_string_at(row, "format"));
	}
	json_array_foreach(json_object_get(root, "made"), i, row) {
		CLEANUP_FREE char *text = json_dumps(json_object_get(row, "json"), 0);

		check_lookup(row, text, strlen(text), false);
	}
	json_decref(root);
}

static void retry_after_vectors(const json_t *rows)
{
	const json_t *row;
	size_t i;

	json_array_foreach(rows, i, row) {
		const json_t *sleep = json_object_get(row, "sleep");
		uint32_t delay_ms = 1;
		bool ok = retry_after_parse(json_string_at(row, "in"), 1700000000, &delay_ms);

		if (json_is_integer(sleep)) {
			assert_true(ok);
			assert_int_equal(delay_ms, 1000 * json_integer_value(sleep));
		} else if (!strncmp(json_string_value(sleep), "cap", 3)) {
			assert_true(ok);
			assert_int_equal(delay_ms, 60000);
		} else {
			assert_false(ok);
		}
	}
}

static void content_range_vectors(const json_t *rows)
{
	const json_t *row;
	size_t i;

	json_array_foreach(rows, i, row) {
		const char *in = json_string_at(row, "in");
		struct content_range range;

		if (!in)
			continue;

		/* the vectors' blob has 200 bytes and its request begins at 100 */
		bool ok = content_range_parse(in, &range) && range.first == 100 && range.last < 200 &&
			  (!range.total_known || range.total == 200);

		assert_int_equal(ok, json_is_true(json_object_get(row, "ok")));
	}
}

static void token_vectors(const json_t *rows)
{
	const json_t *row;
	size_t i;

	json_array_foreach(rows, i, row) {
		const json_t *in = json_object_get(row, "in");
		CLEANUP_FREE char *text = json_is_string(in) ? strdup(json_string_value(in)) : json_dumps(in, 0);
		char *token = NULL;
		uint32_t lifetime_s = 0;
		int rc = token_reply_parse(text, strlen(text), &token, &lifetime_s, NULL);

		if (json_is_true(json_object_get(row, "error"))) {
			assert_int_equal(rc, CPULL_ERR_AUTH);
			assert_null(token);
			continue;
		}
		assert_int_equal(rc, 0);
		assert_string_equal(token, json_string_at(row, "use"));
		if (json_object_get(row, "lifetime"))
			assert_int_equal(lifetime_s, json_integer_value(json_object_get(row, "lifetime")));
		string_wipe(token);
	}
}

static void header_fields_are_read_as_the_vectors_say(void **state)
{
	json_t *root = load_vectors("http-cases.json");

	(void)state;
	retry_after_vectors(json_object_get(root, "retry-after"));
	content_range_vectors(json_object_get(root, "content-range"));
	token_vectors(json_object_get(root, "token-response"));
	json_decref(root);
}

/* ---- beyond the vectors ---- */

static void a_date_ahead_is_waited_for(void **state)
{
	uint32_t delay_ms = 0;

	(void)state;
	/* 1994-11-06 08:49:37 is 784111777 */
	assert_true(retry_after_parse("Sun, 06 Nov 1994 08:49:37 GMT", 784111770, &delay_ms));
	assert_int_equal(delay_ms, 7000);
	assert_true(retry_after_parse("Sun, 06 Nov 1994 08:49:37 GMT", 784000000, &delay_ms));
	assert_int_equal(delay_ms, RETRY_DELAY_MAX_MS);
	assert_true(retry_after_parse("99999999999", 0, &delay_ms));
	assert_int_equal(delay_ms, RETRY_DELAY_MAX_MS);
	static const char *const bad[] = {
		"", " 3", "3 ", "+3", "0x3", "99999999999999999999", "Sun, 06 Nov 1994 08:49:37",
		"Sun, 06 Nov 1994 08:49:37 GMT ", "Sun, 06 Noo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT",
		"Sunday, 06-Nov-94 08:49:37 GMT",
	};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(retry_after_parse(bad[i], 784111770, &delay_ms));
}

static void ranges_are_read_strictly(void **state)
{
	static const char *const bad[] = {
		"", "bytes", "bytes 1-0/5", "bytes 0-5/5", "bytes 0-4/", "bytes 0-4", "bytes -4/5", "bytes +0-4/5",
		"bytes 0-4/5 ", "bytes  0-4/5", "Bytes 0-4/5", "bytes 0-18446744073709551616/*", "bytes 0-4/**",
	};
	struct content_range range;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(content_range_parse(bad[i], &range));
	assert_true(content_range_parse("bytes 0-18446744073709551614/18446744073709551615", &range));
	assert_int_equal(range.last, UINT64_MAX - 1);
}

static void delays_double_up_to_a_maximum(void **state)
{
	(void)state;
	for (uint32_t random = 0; random < 5000; random += 77) {
		assert_in_range(retry_delay_ms(1, 500, random), 250, 500);
		assert_in_range(retry_delay_ms(3, 500, random), 1000, 2000);
		assert_in_range(retry_delay_ms(4000000000u, 500, random * 999983), 30000, 60000);
	}
	/* the whole upper half is used */
	assert_int_not_equal(retry_delay_ms(1, 500, 1), retry_delay_ms(1, 500, 200));
}

static void long_members_are_dropped_not_cut(void **state)
{
	char text[4096], filler[2100];
	const char *at = text;
	struct challenge got;

	(void)state;
	memset(filler, 'a', sizeof(filler) - 1);
	filler[sizeof(filler) - 1] = 0;
	snprintf(text, sizeof(text), "Bearer realm=\"https://%s\",service=\"s\"", filler);
	assert_true(challenge_next(&at, &got));
	assert_string_equal(got.realm, "");
	assert_string_equal(got.service, "s");
	snprintf(text, sizeof(text), "%s realm=x", filler);
	at = text;
	assert_false(challenge_next(&at, &got));
}

static void challenges_survive_their_neighbours(void **state)
{
	const char *at = "Negotiate abcd==, , Basic realm=\"a, b\",Bearer realm=\"https://r/\" , scope=\"x\\\\y\", realm=\"https://2/\"";
	struct challenge got;

	(void)state;
	assert_true(challenge_next(&at, &got));
	assert_string_equal(got.scheme, "negotiate");
	assert_true(challenge_next(&at, &got));
	assert_string_equal(got.scheme, "basic");
	assert_string_equal(got.realm, "a, b");
	assert_true(challenge_next(&at, &got));
	assert_string_equal(got.realm, "https://r/");
	assert_string_equal(got.scope, "x\\y");
	assert_false(challenge_next(&at, &got));
	at = "Bearer realm=\"https://r/\",scope=,service=s";
	assert_true(challenge_next(&at, &got));
	assert_string_equal(got.service, "s");
	assert_false(challenge_next(&at, &got));
}

static void realms_are_https_unless_allowed(void **state)
{
	(void)state;
	assert_true(realm_usable("https://a.example/token?x=1", false));
	assert_true(realm_usable("HTTPS://a.example", false));
	assert_false(realm_usable("http://a.example/token", false));
	assert_true(realm_usable("http://a.example/token", true));
	static const char *const bad[] = {
		"", "https", "https://", "https:///x", "ftp://a/", "file:///etc/passwd", "https://u:p@a/", "https://a/ b",
		"https://a/\r\nX: y", "https://a/#f", "//a/", "https://a/\x80",
	};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(realm_usable(bad[i], true));
}

static void token_requests_are_encoded(void **state)
{
	struct token_scope want = {.realm = "https://a/t?x=1", .service = "r&d", .scope = "repository:a/b:pull  repository:c:pull"};
	struct credentials none = {0}, user = {.user = "u ser", .password = "p", .identity_token = "i/d+t"};

	(void)state;
	CLEANUP_FREE char *anonymous = token_url(&want, &none);
	assert_string_equal(anonymous, "https://a/t?x=1&service=r%26d&scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ac%3Apull");
	want.realm = "https://a/t";
	want.service = "";
	want.scope = "s";
	CLEANUP_FREE char *named = token_url(&want, &user);
	assert_string_equal(named, "https://a/t?scope=s&account=u%20ser");
	want.service = "svc";
	char *form = token_form(&want, &user);
	assert_string_equal(form, "grant_type=refresh_token&client_id=coco-pull&service=svc&scope=s&refresh_token=i%2Fd%2Bt");
	string_wipe(form);
}

static void basic_is_base64(void **state)
{
	static const struct {
		char *user, *password;
		const char *want;
	} rows[] = {
		{"Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
		{"u", "p", "Basic dTpw"},
		{"u", "pa", "Basic dTpwYQ=="},
		{"u", "", "Basic dTo="},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct credentials creds = {.user = rows[i].user, .password = rows[i].password};
		char *got = basic_header(&creds);

		assert_string_equal(got, rows[i].want);
		string_wipe(got);
	}
}

static void tokens_that_would_break_a_header_are_refused(void **state)
{
	static const char *const bad[] = {
		"{\"token\":\"a\\r\\nX: y\"}", "{\"token\":\"a b\"}", "{\"token\":\"\"}", "{\"token\":5}", "[]", "",
		"{\"token\":\"a\",\"token\":\"b\"}", "{\"token\":\"\\u00e9\"}",
	};
	char *token = NULL;
	uint32_t lifetime_s;
	struct cpull_error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(token_reply_parse(bad[i], strlen(bad[i]), &token, &lifetime_s, &err), CPULL_ERR_AUTH);
		assert_null(token);
		assert_true(err.message[0]);
	}
	static const char forever[] = "{\"token\":\"a\",\"expires_in\":9007199254740992}";
	assert_int_equal(token_reply_parse(forever, strlen(forever), &token, &lifetime_s, NULL), 0);
	assert_int_equal(lifetime_s, AUTH_TOKEN_LIFETIME_MAX_S);
	string_wipe(token);
}

static void creds_option_is_split_at_the_first_colon(void **state)
{
	struct credentials creds = {0};
	struct cpull_error err = {0};
	char long_one[LIMIT_PASSWORD_BYTES + 10];

	(void)state;
	assert_int_equal(credentials_from_text("u:p:q", &creds, NULL), 0);
	assert_string_equal(creds.user, "u");
	assert_string_equal(creds.password, "p:q");
	credentials_free(&creds);
	assert_int_equal(credentials_from_text("u", &creds, NULL), 0);
	assert_string_equal(creds.password, "");
	credentials_free(&creds);
	assert_int_equal(credentials_from_text(":secret", &creds, &err), CPULL_ERR_USAGE);
	assert_null(strstr(err.message, "secret"));
	assert_int_equal(credentials_from_text("", &creds, NULL), CPULL_ERR_USAGE);
	memset(long_one, 'a', sizeof(long_one) - 1);
	long_one[sizeof(long_one) - 1] = 0;
	assert_int_equal(credentials_from_text(long_one, &creds, NULL), CPULL_ERR_USAGE);
	credentials_free(&creds);
}

static void bad_auth_files_are_errors(void **state)
{
	/* "bm8Adjpw" is "no\0v:p" */
	static const char *const bad[] = {
		"", "x", "[]", "{\"auths\":[]}", "{\"auths\":{\"h.example\":5}}", "{\"auths\":{\"h.example\":{\"auth\":5}}}",
		"{\"auths\":{\"h.example\":{\"auth\":\"dTpw=\"}}}", "{\"auths\":{\"h.example\":{\"auth\":\"bm8Adjpw\"}}}",
		"{\"credHelpers\":{\"h.example\":\"x\"}}", "{\"credHelpers\":[]}",
		"{\"auths\":{\"h.example\":{}},\"credsStore\":\"desktop\"}",
		"{\"auths\":{\"h.example\":{\"auth\":\"dTpw\"},\"h.example\":{\"auth\":\"dTpw\"}}}",
	};
	struct credentials creds = {0};
	struct cpull_error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		err = (struct cpull_error){0};
		assert_int_equal(authfile_lookup(bad[i], strlen(bad[i]), false, "h.example", "a/b", &creds, &err),
				 CPULL_ERR_AUTH);
		assert_false(credentials_known(&creds));
		assert_true(err.message[0]);
		assert_null(strstr(err.message, "dTpw"));
	}
	/* another registry's trouble is not ours */
	static const char other[] = "{\"auths\":{\"o.example\":{\"auth\":\"***\"}},\"credHelpers\":{\"o.example\":\"x\"}}";
	assert_int_equal(authfile_lookup(other, strlen(other), false, "h.example", "a", &creds, NULL), 0);
	assert_false(credentials_known(&creds));
}

static void write_file(const char *dir, const char *name, const char *text)
{
	CLEANUP_FREE char *path = format_string("%s/%s", dir, name);
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
	assert_int_equal(fclose(f), 0);
}

/* HOME, XDG_… point into a directory of our own. */
static void usual_places_are_tried_in_order(void **state)
{
	char dir[] = "/tmp/test_auth.XXXXXX";
	struct credentials creds = {0};
	struct cpull_error err = {0};

	(void)state;
	assert_non_null(mkdtemp(dir));
	setenv("HOME", dir, 1);
	setenv("XDG_RUNTIME_DIR", dir, 1);
	unsetenv("XDG_CONFIG_HOME");
	unsetenv("DOCKER_CONFIG");
	unsetenv("REGISTRY_AUTH_FILE");
	assert_int_equal(authfile_find(NULL, "h.example", "a", &creds, NULL), 0);
	assert_false(credentials_known(&creds));

	CLEANUP_FREE char *docker = format_string("%s/.docker", dir), *containers = format_string("%s/containers", dir);
	assert_int_equal(mkdir(docker, 0700), 0);
	assert_int_equal(mkdir(containers, 0700), 0);
	write_file(docker, "config.json", "{\"auths\":{\"h.example\":{\"auth\":\"dTpw\"}}}");
	write_file(containers, "auth.json", "{\"auths\":{\"o.example\":{\"auth\":\"bzpv\"}}}");
	assert_int_equal(authfile_find(NULL, "h.example", "a", &creds, NULL), 0);
	assert_string_equal(creds.user, "u");
	assert_non_null(strstr(creds.origin, "config.json"));
	credentials_free(&creds);

	/* the first file that cannot be read ends it */
	write_file(containers, "auth.json", "{");
	assert_int_equal(authfile_find(NULL, "h.example", "a", &creds, &err), CPULL_ERR_AUTH);
	assert_non_null(strstr(err.message, "containers/auth.json"));
	CLEANUP_FREE char *missing = format_string("%s/none", dir), *named = format_string("%s/config.json", docker);
	assert_int_equal(authfile_find(missing, "h.example", "a", &creds, NULL), CPULL_ERR_AUTH);
	assert_int_equal(authfile_find(named, "h.example", "a", &creds, NULL), 0);
	assert_string_equal(creds.password, "p");
	credentials_free(&creds);

	CLEANUP_FREE char *command = format_string("rm -r %s", dir);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(challenges_are_read_as_the_vectors_say),
		cmocka_unit_test(auth_files_are_read_as_the_vectors_say),
		cmocka_unit_test(header_fields_are_read_as_the_vectors_say),
		cmocka_unit_test(a_date_ahead_is_waited_for),
		cmocka_unit_test(ranges_are_read_strictly),
		cmocka_unit_test(delays_double_up_to_a_maximum),
		cmocka_unit_test(long_members_are_dropped_not_cut),
		cmocka_unit_test(challenges_survive_their_neighbours),
		cmocka_unit_test(realms_are_https_unless_allowed),
		cmocka_unit_test(token_requests_are_encoded),
		cmocka_unit_test(basic_is_base64),
		cmocka_unit_test(tokens_that_would_break_a_header_are_refused),
		cmocka_unit_test(creds_option_is_split_at_the_first_colon),
		cmocka_unit_test(bad_auth_files_are_errors),
		cmocka_unit_test(usual_places_are_tried_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
