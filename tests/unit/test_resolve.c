/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/resolve against a registry inside of the test: what the answer's own digest (Docker-Content-Digest) is worth.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "engine/resolve.h"
#include "tests/unit/documents.h"
#include "tests/unit/http_server.h"

static const char manifest_text[] =
    "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
    "\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"" DIGEST_A "\",\"size\":2},"
    "\"layers\":[{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"" DIGEST_C "\",\"size\":2}]}";

/* payload: the header field, or "". There is a manifest and nothing else. */
static bool answer(struct server *server, int fd, const struct request *request)
{
	if (strstr(request->path, "/manifests/"))
		return server_reply(server, fd, 200, server->payload, manifest_text);
	return server_reply(server, fd, 404, "", "{}");
}

/* Zero code: the manifest was taken, and the next thing that is asked for is not there. */
static int resolve_with(const char *field, const char *digest, struct cpull_error *err)
{
	struct server server;
	struct fetcher *fetcher;
	struct source *source;
	struct log log;
	struct resolved resolved;
	char domain[64];

	assert_int_equal(server_start(&server, answer, (void *)field), 0);
	snprintf(domain, sizeof(domain), "127.0.0.1:%u", server.port);

	struct reference reference = {.domain = domain, .path = "team/app", .tag = "1", .digest = (char *)digest};
	struct source_options options = {.reference = &reference, .plain_http = true};
	struct platform platform;

	log_init(&log, NULL, NULL, CPULL_LOG_ERROR);
	assert_int_equal(platform_parse(NULL, &platform, err), 0);
	assert_int_equal(fetcher_new(CPULL_IO_AUTO, &log, &fetcher, err), 0);
	assert_int_equal(source_open(fetcher, &options, &source, err), 0);

	int rc = resolve_image(source, &reference, &platform, NULL, &log, &resolved, err);

	assert_int_equal(server_requests(&server), rc == CPULL_ERR_DIGEST ? 1 : 2);
	source_close(source);
	fetcher_free(fetcher);
	log_destroy(&log);
	server_stop(&server);
	return rc == CPULL_ERR_NOT_FOUND ? 0 : rc;
}

static void true_digest(enum digest_algorithm algorithm, char out[DIGEST_TEXT_BYTES])
{
	struct hasher *hasher;
	struct digest digest;

	assert_int_equal(hasher_new(algorithm, &hasher, NULL), 0);
	assert_int_equal(hasher_update(hasher, manifest_text, strlen(manifest_text)), 0);
	assert_int_equal(hasher_final(hasher, &digest), 0);
	hasher_free(hasher);
	digest_format(&digest, out);
}

static void claims_that_are_true_are_taken(void **state)
{
	static const enum digest_algorithm algorithms[] = {DIGEST_SHA256, DIGEST_SHA384, DIGEST_SHA512};
	struct cpull_error err = {0};
	char digest[DIGEST_TEXT_BYTES], field[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
		true_digest(algorithms[i], digest);
		snprintf(field, sizeof(field), "Docker-Content-Digest: %s\r\n", digest);
		assert_int_equal(resolve_with(field, NULL, &err), 0);
	}
}

static void claims_that_say_nothing_are_passed_over(void **state)
{
	static const char *const fields[] = {
	    "",
	    "Docker-Content-Digest:\r\n",
	    "Docker-Content-Digest: nonsense\r\n",
	    "Docker-Content-Digest: blake3:" HEX64 "\r\n",
	    "Docker-Content-Digest: md5:d41d8cd98f00b204e9800998ecf8427e\r\n",
	    /* longer than any digest that is known */
	    "Docker-Content-Digest: sha512:" HEX64 HEX64 "0\r\n",
	};
	struct cpull_error err = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(fields); i++)
		assert_int_equal(resolve_with(fields[i], NULL, &err), 0);
}

static void claims_that_are_not_true_are_refused(void **state)
{
	static const char *const claims[] = {
		DIGEST_B, "sha512:" HEX64 HEX64, "sha384:" HEX64 HEX32, "sha256:abc", "sha256:",
	};
	struct cpull_error err = {0};
	char digest[DIGEST_TEXT_BYTES], field[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(claims); i++) {
		snprintf(field, sizeof(field), "Docker-Content-Digest: %s\r\n", claims[i]);
		assert_int_equal(resolve_with(field, NULL, &err), CPULL_ERR_DIGEST);
		assert_message(&err, CPULL_ERR_DIGEST);
		assert_non_null(strstr(err.message, claims[i]));
		assert_non_null(strstr(err.message, "Docker-Content-Digest"));
	}
	/* both values are said */
	true_digest(DIGEST_SHA256, digest);
	assert_int_equal(resolve_with("Docker-Content-Digest: " DIGEST_B "\r\n", NULL, &err), CPULL_ERR_DIGEST);
	assert_non_null(strstr(err.message, digest));
}

/* The header may then be of another algorithm, or of another document's: the reference decides. */
static void a_pinned_digest_needs_no_claim(void **state)
{
	struct cpull_error err = {0};
	char digest[DIGEST_TEXT_BYTES];

	(void)state;
	true_digest(DIGEST_SHA256, digest);
	assert_int_equal(resolve_with("Docker-Content-Digest: " DIGEST_B "\r\n", digest, &err), 0);
	assert_int_equal(resolve_with("Docker-Content-Digest: " DIGEST_B "\r\n", DIGEST_B, &err), CPULL_ERR_DIGEST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(claims_that_are_true_are_taken),
		cmocka_unit_test(claims_that_say_nothing_are_passed_over),
		cmocka_unit_test(claims_that_are_not_true_are_refused),
		cmocka_unit_test(a_pinned_digest_needs_no_claim),
	};

	/* the machine's own files and proxies stay out of it */
	setenv("HOME", "/nonexistent", 1);
	setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
	unsetenv("XDG_CONFIG_HOME");
	unsetenv("REGISTRY_AUTH_FILE");
	unsetenv("http_proxy");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
