/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch/source over HTTP: what a registry demands and refuses. Tokens, Basic, redirects, throttling, an image's own
 * URLs, certificates, and that no secret gets to where it does not belong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "engine/base/json.h"
#include "engine/base/limits.h"
#include "fetch/retry.h"
#include "fetch/source.h"
#include "tests/unit/fetch_tests.h"
#include "tests/unit/http_server.h"

#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define BLOB_PATH "/v2/team/app/blobs/" DIGEST
#define USER_HEADER "Basic dTpzZWNyZXQ=" /* u:secret */

static const char blob_text[] = "blob of ten bytes or so";

struct fixture {
	struct server server, other;
	struct fetcher *fetcher;
	struct source *source;
	struct pool *pool;
	struct pool_share *share;
	struct reference reference;
	char domain[64];
	struct source_options options;
	struct cpull_error err;
	struct log log;
	char logged[16384];
	bool has_other;
	size_t choice; /* what the server is to do; set before the first request */
};

static void keep_log(enum cpull_log_level level, const char *line, void *payload)
{
	struct fixture *f = payload;
	size_t len = strlen(f->logged);

	(void)level;
	snprintf(f->logged + len, sizeof(f->logged) - len, "%s\n", line);
}

/* The servers' functions get the fixture, to know each other's ports. */
static void set_up(struct fixture *f, void **state, server_fn fn, server_fn other)
{
	memset(f, 0, sizeof(*f));
	assert_int_equal(server_start(&f->server, fn, f), 0);
	f->has_other = other;
	if (other)
		assert_int_equal(server_start(&f->other, other, f), 0);
	snprintf(f->domain, sizeof(f->domain), "127.0.0.1:%u", f->server.port);
	f->reference = (struct reference){.domain = f->domain, .path = "team/app", .tag = "1"};
	f->options = (struct source_options){.reference = &f->reference, .plain_http = true, .retries = 2,
					     .stall_timeout_ms = 10000};
	log_init(&f->log, keep_log, f, CPULL_LOG_DEBUG);
	assert_int_equal(fetcher_new(io_of(state), &f->log, &f->fetcher, NULL), 0);
	assert_int_equal(pool_new(4096, 4, &f->pool, NULL), 0);
	assert_int_equal(pool_share_open(f->pool, 2, 2, &f->share), 0);
}

static void open_source(struct fixture *f)
{
	assert_int_equal(source_open(f->fetcher, &f->options, &f->source, &f->err), 0);
}

static void tear_down(struct fixture *f)
{
	source_close(f->source);
	fetcher_free(f->fetcher);
	pool_share_close(f->share);
	pool_free(f->pool);
	server_stop(&f->server);
	if (f->has_other)
		server_stop(&f->other);
	/* whatever was tested: never in the log, never in an error */
	assert_null(strstr(f->logged, "secret"));
	assert_null(strstr(f->logged, "dTpzZWNyZXQ="));
	assert_null(strstr(f->logged, "tok-"));
	assert_null(strstr(f->err.message, "secret"));
	log_destroy(&f->log);
}

static int get_manifest(struct fixture *f)
{
	struct source_document document;
	int rc = source_get_manifest(f->source, NULL, &document, &f->err);

	source_document_free(&document);
	return rc;
}

static int get_blob(struct fixture *f, json_t *urls)
{
	struct descriptor desc = {.digest = DIGEST, .size = sizeof(blob_text) - 1, .urls = urls};
	struct blob *blob;
	struct chunk *chunk = NULL;

	assert_int_equal(source_open_blob(f->source, &desc, f->share, &blob, &f->err), 0);

	int rc = blob_read(blob, &chunk, NULL, &f->err);

	if (!rc) {
		assert_int_equal(chunk->len, desc.size);
		assert_memory_equal(chunk->data, blob_text, chunk->len);
		chunk_put(chunk);
		assert_int_equal(blob_read(blob, &chunk, NULL, &f->err), 0);
		assert_null(chunk);
	}
	blob_close(blob);
	return rc;
}

static unsigned seen(struct server *server, const char *path)
{
	unsigned count = 0;

	pthread_mutex_lock(&server->lock);
	for (size_t i = 0; i < ARRAY_LEN(server->paths); i++)
		if (!strncmp(server->paths[i].path, path, strlen(path)))
			count += server->paths[i].count;
	pthread_mutex_unlock(&server->lock);
	return count;
}

static bool content(struct server *server, int fd, const struct request *request)
{
	return server_reply(server, fd, 200, "", strstr(request->path, "/blobs/") ? blob_text : "{}");
}

static bool challenge(struct server *server, int fd, const char *parameters)
{
	char fields[512];

	snprintf(fields, sizeof(fields), "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:%u/token\"%s\r\n",
		 server->port, parameters);
	return server_reply(server, fd, 401, fields,
			    "{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"authentication required\"}]}");
}

/* ---- tokens ---- */

static bool bearer_without_scope(struct server *server, int fd, const struct request *request)
{
	if (!strncmp(request->path, "/token", 6)) {
		bool ok = strstr(request->path, "service=svc") &&
			  strstr(request->path, "scope=repository%3Ateam%2Fapp%3Apull") &&
			  strstr(request->path, "account=u") && !strcmp(request->authorization, USER_HEADER);

		return server_reply(server, fd, ok ? 200 : 400, "", "{\"access_token\":\"tok-1\"}");
	}
	if (strcmp(request->authorization, "Bearer tok-1") != 0)
		return challenge(server, fd, ",service=\"svc\"");
	return content(server, fd, request);
}

static void a_token_is_got_once(void **state)
{
	struct fixture f;

	set_up(&f, state, bearer_without_scope, NULL);
	f.options.creds = "u:secret";
	open_source(&f);
	assert_int_equal(get_manifest(&f), 0);
	assert_int_equal(get_blob(&f, NULL), 0);
	assert_int_equal(get_blob(&f, NULL), 0);
	assert_int_equal(seen(&f.server, "/token"), 1);
	assert_int_equal(server_requests(&f.server), 5);
	/* another source of the same fetcher learns the challenge anew, and finds the token */
	source_close(f.source);
	open_source(&f);
	assert_int_equal(get_manifest(&f), 0);
	assert_int_equal(seen(&f.server, "/token"), 1);
	/* but not with other credentials */
	source_close(f.source);
	f.options.creds = "u:wrong";
	open_source(&f);
	assert_int_equal(get_manifest(&f), CPULL_ERR_AUTH);
	assert_int_equal(seen(&f.server, "/token"), 2);
	tear_down(&f);
}

/* A token is good for two requests. */
static bool expiring(struct server *server, int fd, const struct request *request)
{
	static _Atomic unsigned issued, left;
	char want[32], body[64];

	if (request->number == 1)
		issued = left = 0;
	if (!strncmp(request->path, "/token", 6)) {
		left = 2;
		snprintf(body, sizeof(body), "{\"token\":\"tok-%u\",\"expires_in\":3600}", ++issued);
		return server_reply(server, fd, 200, "", body);
	}
	snprintf(want, sizeof(want), "Bearer tok-%u", issued);
	if (!issued || strcmp(request->authorization, want) != 0 || left == 0)
		return challenge(server, fd, ",scope=\"repository:team/app:pull\"");
	left--;
	/* every blob takes two requests: cut in the middle */
	if (strstr(request->path, "/blobs/") && !request->ranged)
		return server_printf(server, fd, "HTTP/1.1 200 X\r\nContent-Length: %zu\r\n\r\n%.5s", strlen(blob_text),
				     blob_text) && false;
	if (request->ranged)
		return server_printf(
		    server, fd, "HTTP/1.1 206 X\r\nContent-Length: %zu\r\nContent-Range: bytes %u-%zu/%zu\r\n\r\n%s",
		    strlen(blob_text) - request->from, (unsigned)request->from, strlen(blob_text) - 1,
		    strlen(blob_text), blob_text + request->from);
	return content(server, fd, request);
}

static void expired_tokens_are_renewed_in_the_middle(void **state)
{
	struct fixture f;

	set_up(&f, state, expiring, NULL);
	open_source(&f);
	assert_int_equal(get_manifest(&f), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(get_blob(&f, NULL), 0);
	/* seven good requests, two a token */
	assert_int_equal(seen(&f.server, "/token"), 4);
	tear_down(&f);
}

static bool never_satisfied(struct server *server, int fd, const struct request *request)
{
	if (!strncmp(request->path, "/token", 6))
		return server_reply(server, fd, 200, "", "{\"token\":\"tok-1\"}");
	return challenge(server, fd, ",scope=\"repository:team/app:pull\"");
}

static void refused_tokens_do_not_loop(void **state)
{
	struct fixture f;

	set_up(&f, state, never_satisfied, NULL);
	f.options.creds = "u:secret";
	open_source(&f);
	assert_int_equal(get_manifest(&f), CPULL_ERR_AUTH);
	assert_int_equal(f.err.http_status, 401);
	assert_non_null(strstr(f.err.message, f.domain));
	assert_non_null(strstr(f.err.message, "team/app"));
	assert_non_null(strstr(f.err.message, "authentication required"));
	assert_non_null(strstr(f.err.message, "--creds"));
	assert_in_range(server_requests(&f.server), 2, 8);
	tear_down(&f);
}

static bool widening(struct server *server, int fd, const struct request *request)
{
	if (strstr(request->path, "scope=wide"))
		return server_reply(server, fd, 200, "", "{\"token\":\"tok-wide\"}");
	if (!strncmp(request->path, "/token", 6))
		return server_reply(server, fd, 200, "", "{\"token\":\"tok-1\"}");
	if (!strcmp(request->authorization, "Bearer tok-wide"))
		return content(server, fd, request);
	if (!request->authorization[0])
		return challenge(server, fd, "");

	char fields[256];

	snprintf(fields, sizeof(fields),
		 "WWW-Authenticate: Bearer "
		 "realm=\"http://127.0.0.1:%u/token\",scope=\"wide\",error=\"insufficient_scope\"\r\n",
		 server->port);
	return server_reply(server, fd, 403, fields, "{}");
}

static void more_scope_is_asked_for_once(void **state)
{
	struct fixture f;

	set_up(&f, state, widening, NULL);
	open_source(&f);
	assert_int_equal(get_manifest(&f), 0);
	assert_int_equal(seen(&f.server, "/token"), 2);
	tear_down(&f);
}

static bool identity(struct server *server, int fd, const struct request *request)
{
	if (!strncmp(request->path, "/token", 6)) {
		bool ok = !strcmp(request->method, "POST") && !request->authorization[0] &&
			  strstr(request->body, "grant_type=refresh_token") &&
			  strstr(request->body, "refresh_token=id-secret") && strstr(request->body, "service=svc") &&
			  strstr(request->body, "scope=repository%3Ateam%2Fapp%3Apull");

		return server_reply(server, fd, ok ? 200 : 400, "", "{\"access_token\":\"tok-1\"}");
	}
	if (strcmp(request->authorization, "Bearer tok-1") != 0)
		return challenge(server, fd, ",service=\"svc\"");
	return content(server, fd, request);
}

static bool redirect_post(struct server *server, int fd, const struct request *request)
{
	char fields[128];
	const struct fixture *f = server->payload;

	if (strncmp(request->path, "/token", 6) != 0)
		return challenge(server, fd, "");
	snprintf(fields, sizeof(fields), "Location: http://127.0.0.1:%u/steal\r\n", f->other.port);
	return server_reply(server, fd, 307, fields, "");
}

static void with_auth_file(struct fixture *f, const char *entry, char path[64])
{
	snprintf(path, 64, "/tmp/test_registry.XXXXXX");

	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_true(dprintf(fd, "{\"auths\":{\"%s/team\":%s}}", f->domain, entry) > 0);
	close(fd);
	f->options.authfile = path;
}

static void identity_tokens_are_posted(void **state)
{
	struct fixture f;
	char path[64];

	set_up(&f, state, identity, NULL);
	with_auth_file(&f, "{\"auth\":\"MDAw\",\"identitytoken\":\"x\"}", path);
	open_source(&f); /* "000" has no colon: no credentials at all, and the token with them */
	assert_int_equal(get_manifest(&f), CPULL_ERR_AUTH);
	source_close(f.source);
	unlink(path);
	with_auth_file(&f, "{\"auth\":\"MDAwOg==\",\"identitytoken\":\"id-secret\"}", path);
	open_source(&f);
	assert_int_equal(get_manifest(&f), 0);
	unlink(path);
	tear_down(&f);
	assert_int_equal(f.err.code, CPULL_ERR_AUTH);

	/* the form holds the secret: it is not sent on */
	set_up(&f, state, redirect_post, content);
	with_auth_file(&f, "{\"identitytoken\":\"id-secret\"}", path);
	open_source(&f);
	assert_int_equal(get_manifest(&f), CPULL_ERR_AUTH);
	assert_int_equal(server_requests(&f.other), 0);
	unlink(path);
	tear_down(&f);
}

static bool bad_token_server(struct server *server, int fd, const struct request *request)
{
	char block[8192];
	const struct fixture *f = server->payload;

	if (strncmp(request->path, "/token", 6) != 0)
		return challenge(server, fd, "");
	if (!f->options.creds) {
		memset(block, ' ', sizeof(block));
		server_printf(server, fd, "HTTP/1.1 200 OK\r\n\r\n{\"pad\":\"");
		while (server_send(server, fd, block, sizeof(block)))
			;
		return false;
	}
	return server_reply(server, fd, 401, "", "{}");
}

/* LIMIT_TOKEN_BYTES, by a server that never stops; and one that refuses. */
static void bad_token_servers_are_errors(void **state)
{
	struct fixture f;

	set_up(&f, state, bad_token_server, NULL);
	open_source(&f);
	assert_int_equal(get_manifest(&f), CPULL_ERR_LIMIT);
	assert_non_null(strstr(f.err.message, "token"));
	source_close(f.source);
	f.options.creds = "u:secret";
	open_source(&f);
	assert_int_equal(get_manifest(&f), CPULL_ERR_AUTH);
	assert_non_null(strstr(f.err.message, "--creds"));
	assert_int_equal(seen(&f.server, "/token"), 2);
	tear_down(&f);
}

static bool bad_realm(struct server *server, int fd, const struct request *request)
{
	(void)request;
	return server_reply(server, fd, 401, "WWW-Authenticate: Bearer realm=\"file:///etc/passwd\"\r\n", "");
}

static void realms_that_cannot_be_used_are_errors(void **state)
{
	struct fixture f;

	set_up(&f, state, bad_realm, NULL);
	open_source(&f);
	assert_int_equal(get_manifest(&f), CPULL_ERR_AUTH);
	assert_non_null(strstr(f.err.message, "token server"));
	assert_int_equal(server_requests(&f.server), 1);
	tear_down(&f);
}

/* ---- Basic, and odd challenges ---- */

static bool basic(struct server *server, int fd, const struct request *request)
{
	if (strcmp(request->authorization, USER_HEADER) != 0)
		return server_reply(server, fd, 401, "WWW-Authenticate: Basic realm=\"r\"\r\n", "");
	return content(server, fd, request);
}

static void basic_is_sent_when_asked_for(void **state)
{
	struct fixture f;

	set_up(&f, state, basic, NULL);
	open_source(&f);
	assert_int_equal(get_manifest(&f), CPULL_ERR_AUTH);
	assert_non_null(strstr(f.err.message, "no credentials were used"));
	assert_int_equal(server_requests(&f.server), 1);
	source_close(f.source);
	f.options.creds = "u:secret";
	open_source(&f);
	assert_int_equal(get_manifest(&f), 0);
	assert_int_equal(get_blob(&f, NULL), 0);
	assert_int_equal(server_requests(&f.server), 4);
	source_close(f.source);
	f.options.creds = "u:other";
	open_source(&f);
	assert_int_equal(get_manifest(&f), CPULL_ERR_AUTH);
	assert_null(strstr(f.err.message, "other"));
	assert_non_null(strstr(f.err.message, "credentials of u"));
	assert_int_equal(server_requests(&f.server), 6);
	tear_down(&f);
}

static bool only_the_root_challenges(struct server *server, int fd, const struct request *request)
{
	if (!strcmp(request->path, "/v2/"))
		return server_reply(server, fd, 401, "WWW-Authenticate: Basic\r\n", "");
	if (strcmp(request->authorization, USER_HEADER) != 0)
		return server_reply(server, fd, 401, "", "");
	return content(server, fd, request);
}

static void the_root_is_asked_for_a_challenge(void **state)
{
	struct fixture f;

	set_up(&f, state, only_the_root_challenges, NULL);
	f.options.creds = "u:secret";
	open_source(&f);
	assert_int_equal(get_manifest(&f), 0);
	assert_int_equal(server_requests(&f.server), 3);
	tear_down(&f);
}

static bool refuse_silently(struct server *server, int fd, const struct request *request)
{
	(void)request;
	return server_reply(server, fd, 401, "", "<html>no</html>");
}

static void a_refusal_without_challenge_is_final(void **state)
{
	struct fixture f;

	set_up(&f, state, refuse_silently, NULL);
	open_source(&f);
	assert_int_equal(get_manifest(&f), CPULL_ERR_AUTH);
	assert_null(strstr(f.err.message, "<html>"));
	assert_int_equal(server_requests(&f.server), 2);
	tear_down(&f);
}

/* With an old token it offers Basic, which it never takes. */
static bool loop_of_two(struct server *server, int fd, const struct request *request)
{
	static _Atomic unsigned issued;
	char body[64], want[32];

	if (request->number == 1)
		issued = 0;
	if (!strncmp(request->path, "/token", 6)) {
		snprintf(body, sizeof(body), "{\"token\":\"tok-%u\"}", ++issued);
		return server_reply(server, fd, 200, "", body);
	}
	if (!request->authorization[0])
		return challenge(server, fd, "");
	/* the first token is stale at its second use */
	snprintf(want, sizeof(want), "Bearer tok-%u", strstr(request->path, "/blobs/") ? 2 : 1);
	if (strcmp(request->authorization, want) != 0)
		return server_reply(server, fd, 401, "WWW-Authenticate: Basic realm=\"x\"\r\n", "");
	return content(server, fd, request);
}

static void a_stale_token_does_not_lead_to_basic(void **state)
{
	struct fixture f;

	set_up(&f, state, loop_of_two, NULL);
	f.options.creds = "u:secret";
	open_source(&f);
	assert_int_equal(get_manifest(&f), 0);
	assert_int_equal(get_blob(&f, NULL), 0);
	assert_int_equal(seen(&f.server, "/token"), 2);
	tear_down(&f);
}

/* ---- redirects ---- */

static bool redirect_blobs(struct server *server, int fd, const struct request *request)
{
	const struct fixture *f = server->payload;
	char fields[128];

	if (strcmp(request->authorization, USER_HEADER) != 0)
		return server_reply(server, fd, 401, "WWW-Authenticate: Basic realm=\"r\"\r\n", "");
	if (!strstr(request->path, "/blobs/"))
		return content(server, fd, request);
	snprintf(fields, sizeof(fields), "Location: http://127.0.0.1:%u/cdn/blobs/x?sig=secret-%u\r\n", f->other.port,
		 request->path_number);
	return server_reply(server, fd, 307, fields, "<a>body of its own</a>");
}

/* A signed URL works once, and its host answers 400 to credentials. */
static bool storage(struct server *server, int fd, const struct request *request)
{
	if (request->authorization[0])
		return server_reply(server, fd, 400, "", "<Error/>");
	if (request->path_number > 1)
		return server_reply(server, fd, 403, "WWW-Authenticate: Basic realm=\"phish\"\r\n",
				    "<Error>expired</Error>");
	if (request->number == 1)
		return server_printf(server, fd, "HTTP/1.1 200 X\r\nContent-Length: %zu\r\n\r\n%.5s", strlen(blob_text),
				     blob_text) && false;
	if (request->ranged)
		return server_printf(
		    server, fd, "HTTP/1.1 206 X\r\nContent-Length: %zu\r\nContent-Range: bytes %u-%zu/%zu\r\n\r\n%s",
		    strlen(blob_text) - request->from, (unsigned)request->from, strlen(blob_text) - 1,
		    strlen(blob_text), blob_text + request->from);
	return content(server, fd, request);
}

static void credentials_do_not_follow_a_redirect(void **state)
{
	struct fixture f;

	set_up(&f, state, redirect_blobs, storage);
	f.options.creds = "u:secret";
	open_source(&f);
	assert_int_equal(get_manifest(&f), 0);
	/* cut in the middle: the registry is asked again, for a fresh URL */
	assert_int_equal(get_blob(&f, NULL), 0);
	assert_int_equal(f.other.authorized, 0);
	assert_int_equal(server_requests(&f.other), 2);
	assert_int_equal(seen(&f.server, BLOB_PATH), 2);
	tear_down(&f);
}

static bool storage_refuses(struct server *server, int fd, const struct request *request)
{
	(void)request;
	return server_reply(server, fd, 401, "WWW-Authenticate: Basic realm=\"phish\"\r\n", "");
}

static void a_storage_host_cannot_ask_for_credentials(void **state)
{
	struct fixture f;

	set_up(&f, state, redirect_blobs, storage_refuses);
	f.options.creds = "u:secret";
	open_source(&f);
	assert_int_equal(get_blob(&f, NULL), CPULL_ERR_REGISTRY);
	assert_int_equal(f.err.http_status, 401);
	assert_int_equal(f.other.authorized, 0);
	tear_down(&f);
}

static bool redirect_wildly(struct server *server, int fd, const struct request *request)
{
	static const char *const places[] = {"file:///etc/passwd", "ftp://127.0.0.1/x", "/v2/team/app/manifests/1",
					     "http://u:p@127.0.0.1:1/", "gopher://127.0.0.1/"};
	char fields[128];

	snprintf(fields, sizeof(fields), "Location: %s\r\n",
		 places[((const struct fixture *)server->payload)->choice]);
	(void)request;
	return server_reply(server, fd, 302, fields, "");
}

static void wild_redirects_end(void **state)
{
	for (size_t i = 0; i < 5; i++) {
		struct fixture f;

		set_up(&f, state, redirect_wildly, NULL);
		open_source(&f);
		f.choice = i;
		assert_int_equal(get_manifest(&f), CPULL_ERR_REGISTRY);
		assert_int_equal(server_requests(&f.server), i == 2 ? LIMIT_REDIRECTS + 1 : 1);
		tear_down(&f);
	}
}

/* ---- errors and throttling ---- */

static bool fail_with(struct server *server, int fd, const struct request *request)
{
	const struct fixture *f = server->payload;
	int status = (int)f->choice;

	(void)request;
	return server_reply(server, fd, status, "",
			    "{\"errors\":[{\"code\":\"X\",\"message\":\"evil\\nline \\u001b[0m\"}]}");
}

static void statuses_become_codes(void **state)
{
	static const struct {
		int status, code;
		unsigned requests;
	} rows[] = {
		{404, CPULL_ERR_NOT_FOUND, 1}, {403, CPULL_ERR_AUTH, 1},   {400, CPULL_ERR_REGISTRY, 1},
		{405, CPULL_ERR_REGISTRY, 1},  {500, CPULL_ERR_REGISTRY, 2}, {503, CPULL_ERR_REGISTRY, 2},
		{204, CPULL_ERR_REGISTRY, 1},  {304, CPULL_ERR_REGISTRY, 1},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct fixture f;

		set_up(&f, state, fail_with, NULL);
		f.choice = (size_t)rows[i].status;
		open_source(&f);
		assert_int_equal(get_manifest(&f), rows[i].code);
		assert_int_equal(f.err.http_status, rows[i].status);
		assert_int_equal(server_requests(&f.server), rows[i].requests);
		if (rows[i].status >= 400)
			assert_non_null(strstr(f.err.message, "evil\\x0aline \\x1b[0m"));
		tear_down(&f);
	}
}

static bool throttle(struct server *server, int fd, const struct request *request)
{
	if (request->path_number == 1)
		return server_reply(server, fd, 429, "Retry-After: 1\r\n", "{}");
	return content(server, fd, request);
}

static void retry_after_is_kept(void **state)
{
	struct fixture f;

	set_up(&f, state, throttle, NULL);
	open_source(&f);
	uint64_t since = now_ms();
	assert_int_equal(get_blob(&f, NULL), 0);
	assert_in_range(now_ms() - since, 1000, 3000);
	assert_int_equal(server_requests(&f.server), 2);
	tear_down(&f);
}

static bool throttle_the_first(struct server *server, int fd, const struct request *request)
{
	if (request->number == 1)
		return server_reply(server, fd, 429, "Retry-After: 1\r\n", "{}");
	return content(server, fd, request);
}

/* Whoever asks the same host of this fetcher: here another pull, of another repository. */
static void retry_after_is_kept_by_all(void **state)
{
	struct fixture f;
	struct descriptor desc = {.digest = DIGEST, .size = sizeof(blob_text) - 1};
	struct source *second;
	struct source_document document;
	struct blob *blob;

	set_up(&f, state, throttle_the_first, NULL);
	open_source(&f);
	assert_int_equal(source_open_blob(f.source, &desc, f.share, &blob, &f.err), 0);
	uint64_t since = now_ms();
	assert_int_equal(server_requests_soon(&f.server, 1), 1);
	poll(NULL, 0, 50); /* until the answer was read */

	struct reference reference = f.reference;

	reference.path = "other/app";
	f.options.reference = &reference;
	assert_int_equal(source_open(f.fetcher, &f.options, &second, &f.err), 0);
	assert_int_equal(source_get_manifest(second, NULL, &document, &f.err), 0);
	assert_in_range(now_ms() - since, 900, 3000);
	source_document_free(&document);
	source_close(second);
	blob_close(blob);
	tear_down(&f);
}

/* A token server that is asked for two repositories. */
static bool throttle_tokens(struct server *server, int fd, const struct request *request)
{
	static _Atomic uint64_t first_ms;

	if (!strstr(request->path, "/token"))
		return content(server, fd, request);
	if (request->number == 1) {
		first_ms = now_ms();
		return server_reply(server, fd, 429, "Retry-After: 1\r\n", "{}");
	}
	return server_reply(server, fd, now_ms() - first_ms > 900 ? 200 : 400, "", "{\"token\":\"tok-1\"}");
}

static bool tokens_elsewhere(struct server *server, int fd, const struct request *request)
{
	const struct fixture *f = server->payload;
	char fields[200];

	if (*request->authorization)
		return content(server, fd, request);
	snprintf(fields, sizeof(fields), "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:%u/token\"\r\n",
		 f->other.port);
	return server_reply(server, fd, 401, fields, "{}");
}

static void token_servers_are_left_alone_as_well(void **state)
{
	struct fixture f;
	struct descriptor desc = {.digest = DIGEST, .size = sizeof(blob_text) - 1};
	struct source *second;
	struct source_document document;
	struct blob *blob;

	set_up(&f, state, tokens_elsewhere, throttle_tokens);
	open_source(&f);
	assert_int_equal(source_open_blob(f.source, &desc, f.share, &blob, &f.err), 0);
	assert_int_equal(server_requests_soon(&f.other, 1), 1);
	poll(NULL, 0, 50);

	struct reference reference = f.reference;

	reference.path = "other/app";
	f.options.reference = &reference;
	assert_int_equal(source_open(f.fetcher, &f.options, &second, &f.err), 0);
	assert_int_equal(source_get_manifest(second, NULL, &document, &f.err), 0);
	source_document_free(&document);
	source_close(second);
	blob_close(blob);
	tear_down(&f);
}

static unsigned count_text(const char *text, const char *what)
{
	unsigned count = 0;

	for (const char *at = text; (at = strstr(at, what)); at++)
		count++;
	return count;
}

static void a_dead_port_is_given_up_soon(void **state)
{
	struct fixture f;
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* bound and not listening: nobody else gets the port meanwhile */
	assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	set_up(&f, state, content, NULL);
	f.options.retries = 0; /* as many as usual */
	snprintf(f.domain, sizeof(f.domain), "127.0.0.1:%u", ntohs(address.sin_port));
	open_source(&f);
	uint64_t since = now_ms();
	assert_int_equal(get_manifest(&f), CPULL_ERR_NETWORK);
	assert_in_range(now_ms() - since, 100, 2000);
	assert_int_equal(count_text(f.logged, "again from"), RETRY_BRIEF_ATTEMPTS - 1);
	close(fd);
	tear_down(&f);
}

static void names_that_are_not_there_are_no_riddle(void **state)
{
	struct fixture f;

	set_up(&f, state, content, NULL);
	snprintf(f.domain, sizeof(f.domain), "registry.invalid");
	open_source(&f);
	assert_int_equal(get_manifest(&f), CPULL_ERR_NETWORK);
	assert_non_null(strstr(f.err.message, "registry.invalid; the name cannot be resolved"));
	assert_int_equal(count_text(f.logged, "again from"), 0);
	tear_down(&f);
}

/* Serves the manifest, and then goes away for a second. */
static void a_registry_that_comes_back_is_waited_for(void **state)
{
	struct fixture f;

	set_up(&f, state, content, NULL);
	f.options.retries = 6;
	open_source(&f);
	assert_int_equal(get_manifest(&f), 0);
	server_stop(&f.server);

	struct descriptor desc = {.digest = DIGEST, .size = sizeof(blob_text) - 1};
	struct chunk *chunk = NULL;
	struct blob *blob;

	assert_int_equal(source_open_blob(f.source, &desc, f.share, &blob, &f.err), 0);
	poll(NULL, 0, 1200); /* longer than a host is waited for that was never there */
	assert_int_equal(server_start_at(&f.server, content, &f, f.server.port), 0);
	assert_int_equal(blob_read(blob, &chunk, NULL, &f.err), 0);
	assert_non_null(chunk);
	chunk_put(chunk);
	blob_close(blob);
	tear_down(&f);
}

/* ---- an image's own URLs ---- */

static bool need_basic_and_have_nothing(struct server *server, int fd, const struct request *request)
{
	if (strcmp(request->authorization, USER_HEADER) != 0)
		return server_reply(server, fd, 401, "WWW-Authenticate: Basic realm=\"r\"\r\n", "");
	return server_reply(server, fd, 404, "", "{}");
}

static bool foreign_host(struct server *server, int fd, const struct request *request)
{
	if (!strcmp(request->path, "/login"))
		return server_reply(server, fd, 401, "WWW-Authenticate: Basic realm=\"phish\"\r\n", "");
	if (!strcmp(request->path, "/none"))
		return server_reply(server, fd, 404, "", "");
	return server_reply(server, fd, 200, "", blob_text);
}

static json_t *own_urls(const struct fixture *f, const char *first, const char *second)
{
	CLEANUP_FREE char *a = format_string("http://127.0.0.1:%u%s", f->other.port, first);
	CLEANUP_FREE char *b = format_string("http://127.0.0.1:%u%s", f->other.port, second);

	return json_pack("[s, i, s, s]", "ftp://127.0.0.1/x", 5, a, b);
}

static void own_urls_get_no_credentials(void **state)
{
	struct fixture f;

	set_up(&f, state, need_basic_and_have_nothing, foreign_host);
	f.options.creds = "u:secret";
	open_source(&f);
	json_t *good = own_urls(&f, "/none", "/blob"), *bad = own_urls(&f, "/none", "/login");
	assert_int_equal(get_blob(&f, good), 0);
	assert_int_equal(get_blob(&f, bad), CPULL_ERR_AUTH);
	assert_int_equal(get_blob(&f, NULL), CPULL_ERR_NOT_FOUND);
	assert_int_equal(f.other.authorized, 0);
	json_decref(good);
	json_decref(bad);
	tear_down(&f);
}

/* ---- opening ---- */

static void unusable_options_are_errors_at_once(void **state)
{
	struct fixture f;
	char path[64], dir[] = "/tmp/test_registry.XXXXXX";

	set_up(&f, state, content, NULL);
	with_auth_file(&f, "5", path);
	assert_int_equal(source_open(f.fetcher, &f.options, &f.source, &f.err), CPULL_ERR_AUTH);
	unlink(path);
	assert_int_equal(source_open(f.fetcher, &f.options, &f.source, &f.err), CPULL_ERR_AUTH);
	f.options.authfile = NULL;
	f.options.creds = ":x";
	assert_int_equal(source_open(f.fetcher, &f.options, &f.source, &f.err), CPULL_ERR_USAGE);
	f.options.creds = NULL;

	assert_non_null(mkdtemp(dir));
	f.options.cert_dir = dir;
	CLEANUP_FREE char *cert = format_string("%s/client.cert", dir), *key = format_string("%s/client.key", dir);
	assert_int_equal(close(creat(cert, 0600)), 0);
	assert_int_equal(source_open(f.fetcher, &f.options, &f.source, &f.err), CPULL_ERR_USAGE);
	assert_non_null(strstr(f.err.message, "client.cert"));
	assert_int_equal(rename(cert, key), 0);
	assert_int_equal(source_open(f.fetcher, &f.options, &f.source, &f.err), CPULL_ERR_USAGE);
	assert_int_equal(unlink(key), 0);
	open_source(&f);
	source_close(f.source);
	assert_int_equal(rmdir(dir), 0);
	assert_int_equal(source_open(f.fetcher, &f.options, &f.source, &f.err), CPULL_ERR_NOT_FOUND);
	f.source = NULL;
	assert_int_equal(server_requests(&f.server), 0);
	tear_down(&f);
}

/* In one file, or in all. */
static void more_certificates_than_are_read(void **state)
{
	struct fixture f;
	char dir[] = "/tmp/test_registry.XXXXXX";

	set_up(&f, state, content, NULL);
	assert_non_null(mkdtemp(dir));
	f.options.cert_dir = dir;
	CLEANUP_FREE char *one = format_string("%s/one.crt", dir), *two = format_string("%s/two.crt", dir);

	assert_int_equal(close(creat(one, 0600)), 0);
	assert_int_equal(truncate(one, LIMIT_ROOTS_BYTES + 1), 0);
	assert_int_equal(source_open(f.fetcher, &f.options, &f.source, &f.err), CPULL_ERR_LIMIT);
	assert_int_equal(close(creat(two, 0600)), 0);
	assert_int_equal(truncate(one, LIMIT_ROOTS_BYTES / 2), 0);
	assert_int_equal(truncate(two, LIMIT_ROOTS_BYTES / 2), 0);
	assert_int_equal(source_open(f.fetcher, &f.options, &f.source, &f.err), CPULL_ERR_LIMIT);
	assert_non_null(strstr(f.err.message, "certificates"));
	assert_int_equal(unlink(one), 0);
	assert_int_equal(unlink(two), 0);
	assert_int_equal(rmdir(dir), 0);
	f.source = NULL;
	tear_down(&f);
}

static void https_to_a_plain_server_is_told(void **state)
{
	struct fixture f;

	set_up(&f, state, content, NULL);
	f.options.plain_http = false;
	open_source(&f);
	assert_int_equal(get_manifest(&f), CPULL_ERR_NETWORK);
	assert_non_null(strstr(f.err.message, "--plain-http"));
	tear_down(&f);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
	    EACH(a_token_is_got_once),
	    EACH(expired_tokens_are_renewed_in_the_middle),
	    EACH(refused_tokens_do_not_loop),
	    EACH(more_scope_is_asked_for_once),
	    EACH(identity_tokens_are_posted),
	    EACH(bad_token_servers_are_errors),
	    EACH(realms_that_cannot_be_used_are_errors),
	    EACH(basic_is_sent_when_asked_for),
	    EACH(the_root_is_asked_for_a_challenge),
	    EACH(a_refusal_without_challenge_is_final),
	    EACH(a_stale_token_does_not_lead_to_basic),
	    EACH(credentials_do_not_follow_a_redirect),
	    EACH(a_storage_host_cannot_ask_for_credentials),
	    EACH(wild_redirects_end),
	    EACH(statuses_become_codes),
	    EACH(retry_after_is_kept),
	    EACH(retry_after_is_kept_by_all),
	    EACH(token_servers_are_left_alone_as_well),
	    EACH(a_dead_port_is_given_up_soon),
	    EACH(names_that_are_not_there_are_no_riddle),
	    EACH(a_registry_that_comes_back_is_waited_for),
	    EACH(own_urls_get_no_credentials),
	    EACH(unusable_options_are_errors_at_once),
	    EACH(more_certificates_than_are_read),
	    EACH(https_to_a_plain_server_is_told),
	};

	return run_on_both_loops(tests, ARRAY_LEN(tests), argc, argv);
}
