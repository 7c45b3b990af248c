/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch/source over HTTP: streaming, backpressure, resumption, limits of time and size, cancellation. Against a
 * server inside of the test; everything runs with io_uring where there is one, and with plain calls.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/resource.h>

#include "engine/base/limits.h"
#include "fetch/source.h"
#include "tests/unit/fetch_tests.h"
#include "tests/unit/http_server.h"

#define CHUNK_BYTES (64u << 10)
#define BLOB_BYTES ((1u << 20) + 12345u)
#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define BLOB_PATH "/v2/team/app/blobs/" DIGEST

static uint8_t content[BLOB_BYTES];

struct fixture {
	struct server server;
	struct log log;
	struct fetcher *fetcher;
	struct source *source;
	struct pool *pool;
	struct pool_share *share;
	struct reference reference;
	char domain[64];
	struct source_options options;
	struct cpull_error err;
};

static void set_up(struct fixture *f, void **state, server_fn fn, void *payload)
{
	memset(f, 0, sizeof(*f));
	log_init(&f->log, getenv("TEST_LOG") ? show_log : NULL, NULL, CPULL_LOG_DEBUG);
	assert_int_equal(server_start(&f->server, fn, payload), 0);
	snprintf(f->domain, sizeof(f->domain), "127.0.0.1:%u", f->server.port);
	f->reference = (struct reference){.domain = f->domain, .path = "team/app", .tag = "1"};
	f->options = (struct source_options){.reference = &f->reference, .plain_http = true, .retries = 3,
					     .stall_timeout_ms = 10000};
	assert_int_equal(fetcher_new(io_of(state), &f->log, &f->fetcher, NULL), 0);
	assert_int_equal(pool_new(CHUNK_BYTES, 32, &f->pool, NULL), 0);
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
	log_destroy(&f->log);
}

static struct blob *open_blob(struct fixture *f, uint64_t size)
{
	struct descriptor desc = {.digest = DIGEST, .size = size};
	struct blob *blob = NULL;

	assert_int_equal(source_open_blob(f->source, &desc, f->share, &blob, &f->err), 0);
	return blob;
}

/* Reads to the end or to an error, and compares with `content`. Every chunk but the last must be full. */
static int read_blob(struct fixture *f, struct blob *blob, uint64_t *total, struct pool *pool)
{
	size_t full = pool_chunk_bytes(pool);
	struct chunk *chunk;
	bool short_one = false;
	int rc;

	*total = 0;
	while ((rc = blob_read(blob, &chunk, NULL, &f->err)) == 0 && chunk) {
		assert_false(short_one);
		short_one = chunk->len < full;
		assert_true(chunk->len > 0 && *total + chunk->len <= BLOB_BYTES);
		assert_memory_equal(chunk->data, content + *total, chunk->len);
		*total += chunk->len;
		chunk_put(chunk);
	}
	return rc;
}

static int fetch_blob(struct fixture *f, uint64_t size)
{
	struct blob *blob = open_blob(f, size);
	uint64_t total;
	int rc = read_blob(f, blob, &total, f->pool);

	if (!rc) {
		assert_int_equal(total, size);
		assert_int_equal(blob_received(blob), size);
	}
	blob_close(blob);
	return rc;
}

/* ---- answers ---- */

/* As a registry does it: 200 or 206, at most `most` bytes before the connection is cut. */
static bool send_content(struct server *server, int fd, const struct request *request, uint64_t most)
{
	uint64_t from = request->ranged ? request->from : 0, left = BLOB_BYTES - from;
	char range[96] = "";

	if (request->ranged)
		snprintf(range, sizeof(range), "Content-Range: bytes %llu-%u/%u\r\n", (unsigned long long)from,
			 BLOB_BYTES - 1, BLOB_BYTES);
	return server_printf(server, fd, "HTTP/1.1 %d X\r\nContent-Length: %llu\r\n%s\r\n", request->ranged ? 206 : 200,
			     (unsigned long long)left, range) &&
	       server_send(server, fd, content + from, MIN(left, most)) && left <= most;
}

static bool answer_plainly(struct server *server, int fd, const struct request *request)
{
	return send_content(server, fd, request, UINT64_MAX);
}

static bool answer_manifest(struct server *server, int fd, const struct request *request)
{
	if (strcmp(request->method, "GET") != 0 || strcmp(request->path, "/v2/team/app/manifests/1") != 0 ||
	    !strstr(request->head, "application/vnd.oci.image.manifest.v1+json") ||
	    !strstr(request->head, "application/vnd.oci.image.index.v1+json") ||
	    !strstr(request->head, "application/vnd.docker.distribution.manifest.v2+json") ||
	    !strstr(request->head, "application/vnd.docker.distribution.manifest.list.v2+json") ||
	    !strcasestr(request->head, "Accept-Encoding: identity\r\n"))
		return server_reply(server, fd, 400, "", "not what a registry expects");
	/* the first time the connection breaks in the middle */
	if (request->number == 1)
		return server_printf(server, fd, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"old") && false;
	return server_reply(server, fd, 200,
			    "Content-Type: application/vnd.oci.image.manifest.v1+json; charset=utf-8\r\n"
			    "docker-content-digest:  sha512:0123 \r\n",
			    "{\"x\":1}");
}

static void manifest_comes_with_its_type(void **state)
{
	struct fixture f;
	struct source_document document;

	set_up(&f, state, answer_manifest, NULL);
	open_source(&f);
	assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), 0);
	assert_string_equal(document.text.data, "{\"x\":1}");
	assert_string_equal(document.content_type, "application/vnd.oci.image.manifest.v1+json; charset=utf-8");
	assert_string_equal(document.digest, "sha512:0123");
	source_document_free(&document);
	tear_down(&f);
}

static void blobs_stream_in_full_chunks(void **state)
{
	struct fixture f;
	struct bytes small = {0};

	set_up(&f, state, answer_plainly, NULL);
	open_source(&f);
	assert_int_equal(fetch_blob(&f, BLOB_BYTES), 0);
	assert_int_equal(fetch_blob(&f, BLOB_BYTES), 0);
	assert_int_equal(source_get_blob(f.source, DIGEST, BLOB_BYTES, 2 << 20, &small, &f.err), 0);
	assert_int_equal(small.len, BLOB_BYTES);
	assert_memory_equal(small.data, content, BLOB_BYTES);
	bytes_free(&small);
	/* one connection did for all */
	assert_int_equal(f.server.connection_count, 1);
	tear_down(&f);
}

static void memory_stays_within_the_share(void **state)
{
	struct fixture f;
	uint64_t total;

	set_up(&f, state, answer_plainly, NULL);
	f.options.stall_timeout_ms = 100; /* not reading is no stall */
	open_source(&f);
	struct blob *blob = open_blob(&f, BLOB_BYTES);
	uint64_t end = now_ms() + 300;
	while (now_ms() < end)
		usleep(10000);
	assert_int_equal(blob_received(blob), 2 * CHUNK_BYTES);
	assert_int_equal(read_blob(&f, blob, &total, f.pool), 0);
	assert_int_equal(total, BLOB_BYTES);
	blob_close(blob);
	assert_int_equal(server_requests(&f.server), 1);
	tear_down(&f);
}

/* Chunks smaller than what libcurl hands over at once: each of its pieces is taken in parts. */
static void small_chunks_lose_nothing(void **state)
{
	struct fixture f;
	struct pool *pool;
	struct pool_share *share, *usual;
	uint64_t total;

	set_up(&f, state, answer_plainly, NULL);
	open_source(&f);
	assert_int_equal(pool_new(5000, 4, &pool, NULL), 0);
	assert_int_equal(pool_share_open(pool, 2, 3, &share), 0);
	usual = f.share;
	f.share = share;
	struct blob *blob = open_blob(&f, BLOB_BYTES);
	assert_int_equal(read_blob(&f, blob, &total, pool), 0);
	assert_int_equal(total, BLOB_BYTES);
	blob_close(blob);
	f.share = usual;
	pool_share_close(share);
	pool_free(pool);
	tear_down(&f);
}

static void closing_early_gives_everything_back(void **state)
{
	struct fixture f;
	struct chunk *chunk;

	set_up(&f, state, answer_plainly, NULL);
	open_source(&f);
	struct blob *blob = open_blob(&f, BLOB_BYTES);
	assert_int_equal(blob_read(blob, &chunk, NULL, &f.err), 0);
	blob_close(blob);
	chunk_put(chunk);
	assert_int_equal(fetch_blob(&f, BLOB_BYTES), 0);
	tear_down(&f);
}

/* ---- broken connections ---- */

static bool cut_every_time(struct server *server, int fd, const struct request *request)
{
	return send_content(server, fd, request, 170000);
}

static void cut_connections_are_resumed(void **state)
{
	struct fixture f;

	/* more cuts than there are attempts without progress */
	set_up(&f, state, cut_every_time, NULL);
	open_source(&f);
	assert_int_equal(fetch_blob(&f, BLOB_BYTES), 0);
	assert_int_equal(server_requests(&f.server), (BLOB_BYTES + 169999) / 170000);
	tear_down(&f);
}

static bool ignore_range(struct server *server, int fd, const struct request *request)
{
	struct request whole = *request;

	whole.ranged = false;
	return send_content(server, fd, &whole, request->ranged ? UINT64_MAX : 100001);
}

static void whole_answers_to_a_range_are_skipped_into(void **state)
{
	struct fixture f;

	set_up(&f, state, ignore_range, NULL);
	open_source(&f);
	assert_int_equal(fetch_blob(&f, BLOB_BYTES), 0);
	tear_down(&f);
}

/* payload: the Content-Range to lie with. */
static bool wrong_range(struct server *server, int fd, const struct request *request)
{
	if (!request->ranged)
		return send_content(server, fd, request, request->number == 1 ? 100001 : UINT64_MAX);
	return server_printf(server, fd, "HTTP/1.1 206 X\r\nContent-Length: 5\r\n%s\r\nxxxxx",
			     (const char *)server->payload);
}

static void other_ranges_are_not_taken(void **state)
{
	char *const lies[] = {
		"Content-Range: bytes 0-4/1060921\r\n", "Content-Range: bytes 100001-100005/7\r\n", "",
		"Content-Range: bytes 100001-100005/99999999\r\n", "Content-Range: bytes */1060921\r\n",
		"Content-Range: bytes 100001-100005/1060921\r\nContent-Range: bytes 100001-100005/1060921\r\n",
	};

	assert_int_equal(BLOB_BYTES, 1060921);
	/* each costs a delay: half of them with either kind of I/O */
	for (size_t i = io_of(state) == CPULL_IO_SYNC; i < ARRAY_LEN(lies); i += 2) {
		struct fixture f;

		set_up(&f, state, wrong_range, lies[i]);
		open_source(&f);
		assert_int_equal(fetch_blob(&f, BLOB_BYTES), 0);
		/* the cut one, the lie, and then without a Range */
		assert_int_equal(server_requests(&f.server), 3);
		tear_down(&f);
	}
}

static bool range_unasked(struct server *server, int fd, const struct request *request)
{
	(void)request;
	return server_printf(
	    server, fd, "HTTP/1.1 206 X\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/%u\r\n\r\nxxxxx", BLOB_BYTES);
}

static void a_range_that_was_not_asked_for_is_refused(void **state)
{
	struct fixture f;

	set_up(&f, state, range_unasked, NULL);
	open_source(&f);
	assert_int_equal(fetch_blob(&f, BLOB_BYTES), CPULL_ERR_REGISTRY);
	assert_int_equal(f.err.http_status, 206);
	assert_int_equal(server_requests(&f.server), 3);
	tear_down(&f);
}

/* The blob is shorter than the manifest says. */
static bool too_short(struct server *server, int fd, const struct request *request)
{
	if (request->ranged)
		return server_reply(server, fd, 416, "Content-Range: bytes */5\r\n", "");
	return server_printf(server, fd, "HTTP/1.1 200 X\r\nContent-Length: 5\r\n\r\n") &&
	       server_send(server, fd, content, 5);
}

static void short_blobs_are_a_size_error(void **state)
{
	struct fixture f;
	struct bytes small = {0};

	set_up(&f, state, too_short, NULL);
	open_source(&f);
	assert_int_equal(fetch_blob(&f, BLOB_BYTES), CPULL_ERR_SIZE);
	assert_int_equal(source_get_blob(f.source, DIGEST, 6, 100, &small, &f.err), CPULL_ERR_SIZE);
	assert_null(small.data);
	assert_int_equal(source_get_blob(f.source, DIGEST, 5, 100, &small, &f.err), 0);
	bytes_free(&small);
	tear_down(&f);
}

static bool without_end(struct server *server, int fd, const struct request *request)
{
	char block[8192];

	(void)request;
	memset(block, ' ', sizeof(block));
	if (!server_printf(server, fd, "%s", (const char *)server->payload))
		return false;
	while (server_send(server, fd, block, sizeof(block)))
		;
	return false;
}

static bool too_long(struct server *server, int fd, const struct request *request)
{
	(void)request;
	return server_printf(server, fd, "HTTP/1.1 200 X\r\n%s\r\n", (const char *)server->payload) &&
	       server_send(server, fd, content, 2000) && false;
}

static void long_blobs_are_stopped(void **state)
{
	/* told in advance; found out */
	char *const fields[] = {"Content-Length: 2000\r\n", "Connection: close\r\n"};

	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		struct fixture f;
		struct bytes small = {0};

		set_up(&f, state, too_long, fields[i]);
		open_source(&f);
		assert_int_equal(fetch_blob(&f, 1999), CPULL_ERR_SIZE);
		assert_int_equal(source_get_blob(f.source, DIGEST, 1000, 2000, &small, &f.err), CPULL_ERR_SIZE);
		assert_int_equal(source_get_blob(f.source, DIGEST, 0, 2000, &small, &f.err), CPULL_ERR_SIZE);
		assert_int_equal(server_requests(&f.server), 3);
		assert_int_equal(source_get_blob(f.source, DIGEST, 2001, 2000, &small, &f.err), CPULL_ERR_LIMIT);
		assert_int_equal(server_requests(&f.server), 3);
		tear_down(&f);
	}
}

/* All bytes are there, but the end of the chunked body never comes. */
static bool chunked_without_last(struct server *server, int fd, const struct request *request)
{
	(void)request;
	return server_printf(server, fd, "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n", (size_t)2000) &&
	       server_send(server, fd, content, 2000) && server_printf(server, fd, "\r\n") && false;
}

static void a_complete_blob_needs_no_more(void **state)
{
	struct fixture f;

	set_up(&f, state, chunked_without_last, NULL);
	open_source(&f);
	assert_int_equal(fetch_blob(&f, 2000), 0);
	assert_int_equal(server_requests(&f.server), 1);
	tear_down(&f);
}

static bool empty(struct server *server, int fd, const struct request *request)
{
	(void)request;
	return server_reply(server, fd, 200, "", "");
}

static void empty_blobs_are_empty(void **state)
{
	struct fixture f;

	set_up(&f, state, empty, NULL);
	open_source(&f);
	assert_int_equal(fetch_blob(&f, 0), 0);
	tear_down(&f);
}

/* ---- limits ---- */

static void manifests_are_cut_at_their_limit(void **state)
{
	char *const heads[] = {
		"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4194305\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX-Long: ", "HTTP/1.1 100 Continue\r\nX-Long: ",
	};

	for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
		struct fixture f;
		struct source_document document;

		set_up(&f, state, without_end, heads[i]);
		open_source(&f);
		assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), CPULL_ERR_LIMIT);
		assert_null(document.text.data);
		assert_int_equal(server_requests(&f.server), 1);
		tear_down(&f);
	}
}

static bool many_headers(struct server *server, int fd, const struct request *request)
{
	(void)request;
	if (!server_printf(server, fd, "HTTP/1.1 200 OK\r\n"))
		return false;
	while (server_printf(server, fd, "X-Field: %0100d\r\n", 1))
		;
	return false;
}

/* LIMIT_HEADER_BYTES, in lines of a fraction of it. */
static void headers_are_cut_at_their_limit(void **state)
{
	struct fixture f;
	struct source_document document;

	set_up(&f, state, many_headers, NULL);
	open_source(&f);
	assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), CPULL_ERR_LIMIT);
	assert_non_null(strstr(f.err.message, "header"));
	tear_down(&f);
}

/* LIMIT_ERROR_BODY_BYTES: the server never stops, and is not listened to for ever. */
static void error_bodies_are_cut_at_their_limit(void **state)
{
	struct fixture f;
	struct source_document document;

	set_up(&f, state, without_end, "HTTP/1.1 404 Not Found\r\n\r\n");
	open_source(&f);
	assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), CPULL_ERR_NOT_FOUND);
	tear_down(&f);
}

static void digests_are_checked_before_they_are_sent(void **state)
{
	static const char *const bad[] = {
		"sha256:../../../../v2/private/x", "sha256:abc", "", "sha1:0123456789abcdef0123456789abcdef01234567",
		"sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef", DIGEST "0", DIGEST "\n",
	};
	struct fixture f;
	struct bytes out = {0};
	struct source_document document;

	set_up(&f, state, empty, NULL);
	open_source(&f);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct descriptor desc = {.digest = bad[i], .size = 1};
		struct blob *blob;

		assert_int_equal(source_get_manifest(f.source, bad[i], &document, &f.err), CPULL_ERR_MANIFEST);
		assert_int_equal(source_get_blob(f.source, bad[i], 1, 1, &out, &f.err), CPULL_ERR_MANIFEST);
		assert_int_equal(source_open_blob(f.source, &desc, f.share, &blob, &f.err), CPULL_ERR_MANIFEST);
	}
	assert_int_equal(server_requests(&f.server), 0);
	tear_down(&f);
}

/* ---- time ---- */

static bool stall(struct server *server, int fd, const struct request *request)
{
	const uint64_t *after = server->payload;

	if (request->number == 1 || !request->ranged)
		send_content(server, fd, request, *after);
	server_hang(server, fd);
	return false;
}

/* Hangs before the first byte of the answer; after some of the body. */
static uint64_t stalls[] = {0, 100000};

static void *cancel_soon(void *payload)
{
	usleep(150000);
	source_cancel(payload);
	return NULL;
}

static void cancel_ends_a_stalled_read(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(stalls); i++) {
		struct fixture f;
		uint64_t total, since;
		pthread_t thread;
		struct source_document document;

		set_up(&f, state, stall, &stalls[i]);
		open_source(&f);
		struct blob *blob = open_blob(&f, BLOB_BYTES);
		since = now_ms();
		assert_int_equal(pthread_create(&thread, NULL, cancel_soon, f.source), 0);
		assert_int_equal(read_blob(&f, blob, &total, f.pool), CPULL_ERR_CANCELLED);
		assert_in_range(now_ms() - since, 100, 900);
		pthread_join(thread, NULL);
		/* and from now on */
		struct chunk *chunk;
		assert_int_equal(blob_read(blob, &chunk, NULL, &f.err), CPULL_ERR_CANCELLED);
		assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), CPULL_ERR_CANCELLED);
		blob_close(blob);
		tear_down(&f);
	}
}

/* A listener whose queue is full lets connections hang. */
static void cancel_ends_a_connect(void **state)
{
	struct fixture f;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fillers[8];
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	struct source_document document;
	pthread_t thread;

	set_up(&f, state, empty, NULL);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
	assert_int_equal(listen(listener, 0), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
	for (size_t i = 0; i < ARRAY_LEN(fillers); i++) {
		fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		(void)!connect(fillers[i], (struct sockaddr *)&address, len);
	}
	snprintf(f.domain, sizeof(f.domain), "127.0.0.1:%u", ntohs(address.sin_port));
	open_source(&f);
	uint64_t since = now_ms();
	assert_int_equal(pthread_create(&thread, NULL, cancel_soon, f.source), 0);
	assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), CPULL_ERR_CANCELLED);
	assert_in_range(now_ms() - since, 100, 900);
	pthread_join(thread, NULL);
	source_close(f.source);

	/* the time for connecting is limited, too */
	f.options.connect_timeout_ms = 50;
	f.options.retries = 2;
	open_source(&f);
	assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), CPULL_ERR_NETWORK);
	for (size_t i = 0; i < ARRAY_LEN(fillers); i++)
		close(fillers[i]);
	close(listener);
	tear_down(&f);
}

static void the_deadline_ends_a_stalled_read(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(stalls); i++) {
		struct fixture f;
		struct source_document document;

		set_up(&f, state, stall, &stalls[i]);
		f.options.deadline_ms = now_ms() + 200;
		open_source(&f);
		assert_int_equal(fetch_blob(&f, BLOB_BYTES), CPULL_ERR_DEADLINE);
		assert_in_range(now_ms() - f.options.deadline_ms, 0, 700);
		assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), CPULL_ERR_DEADLINE);
		tear_down(&f);
	}
}

static void silence_is_limited(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(stalls); i++) {
		struct fixture f;

		set_up(&f, state, stall, &stalls[i]);
		/* long enough for a server's thread on a busy machine: what it sends late is progress, and not
		 * silence */
		f.options.stall_timeout_ms = 400;
		f.options.retries = 2;
		open_source(&f);
		assert_int_equal(fetch_blob(&f, BLOB_BYTES), CPULL_ERR_STALLED);
		assert_int_equal(server_requests_soon(&f.server, 2), 2);
		tear_down(&f);
	}
}

#define LATE_BYTES 2000u
#define LATE_LIMIT_MS 1000

struct lateness {
	atomic_bool asked; /* for the manifest */
	atomic_bool sent;  /* the second half of the blob */
};

/* The second half of a blob comes soon after somebody asked for the manifest. */
static bool answer_late(struct server *server, int fd, const struct request *request)
{
	struct lateness *lateness = server->payload;

	if (strstr(request->path, "/manifests/")) {
		atomic_store(&lateness->asked, true);
		return server_reply(server, fd, 200, "", "{}");
	}
	if (!server_printf(server, fd, "HTTP/1.1 200 X\r\nContent-Length: %u\r\n\r\n", LATE_BYTES) ||
	    !server_send(server, fd, content, LATE_BYTES / 2))
		return false;
	while (!atomic_load(&lateness->asked) && !server_stopping(server))
		poll(NULL, 0, 5);
	poll(NULL, 0, 100); /* until the fetch thread is busy */
	if (!server_send(server, fd, content + LATE_BYTES / 2, LATE_BYTES / 2))
		return false;
	atomic_store(&lateness->sent, true);
	return true;
}

static void dawdle(enum cpull_log_level level, const char *line, void *payload)
{
	struct lateness *lateness = payload;

	(void)level;
	if (!strstr(line, "/manifests/"))
		return;
	for (int i = 0; i < 1000 && !atomic_load(&lateness->sent); i++)
		poll(NULL, 0, 5);
	poll(NULL, 0, LATE_LIMIT_MS);
}

/* The fetch thread is kept from its sockets for longer than the limit, while bytes arrive: that is no silence. */
static void lateness_is_no_silence(void **state)
{
	struct fixture f;
	struct lateness lateness = {false};
	struct source_document document;
	uint64_t total;

	set_up(&f, state, answer_late, &lateness);
	log_destroy(&f.log);
	log_init(&f.log, dawdle, &lateness, CPULL_LOG_DEBUG);
	f.options.stall_timeout_ms = LATE_LIMIT_MS;
	open_source(&f);
	struct blob *blob = open_blob(&f, LATE_BYTES);
	while (blob_received(blob) < LATE_BYTES / 2)
		poll(NULL, 0, 5);
	/* no timer of libcurl's own, which is set for 200 ms after the start, may look at the socket first */
	poll(NULL, 0, 300);
	assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), 0);
	source_document_free(&document);
	assert_int_equal(read_blob(&f, blob, &total, f.pool), 0);
	assert_int_equal(total, LATE_BYTES);
	assert_int_equal(server_requests(&f.server), 2);
	blob_close(blob);
	tear_down(&f);
}

static bool drip(struct server *server, int fd, const struct request *request)
{
	(void)request;
	if (!server_printf(server, fd, "HTTP/1.1 200 X\r\nContent-Length: 12\r\n\r\n"))
		return false;
	for (size_t i = 0; i < 12; i++) {
		if (!server_send(server, fd, content + i, 1))
			return false;
		usleep(60000);
	}
	return true;
}

static void slowness_is_not(void **state)
{
	struct fixture f;

	set_up(&f, state, drip, NULL);
	f.options.stall_timeout_ms = 300; /* the whole takes 700 */
	open_source(&f);
	assert_int_equal(fetch_blob(&f, 12), 0);
	assert_int_equal(server_requests(&f.server), 1);
	tear_down(&f);
}

/* ---- descriptors ---- */

/* From now on no descriptor can be made; returns the limit before. */
static struct rlimit take_descriptors(void)
{
	struct rlimit before, none;
	int lowest = dup(0);

	assert_true(lowest >= 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = (struct rlimit){.rlim_cur = (rlim_t)lowest, .rlim_max = before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(close(lowest), 0);
	return before;
}

static bool once_and_close(struct server *server, int fd, const struct request *request)
{
	(void)request;
	return server_reply(server, fd, 200, "Connection: close\r\n", "") && false;
}

/* Waiting for descriptors helps nobody: others hold them for as long as they need. */
static void no_descriptors_are_told_at_once(void **state)
{
	/* before the fetch thread is there; for a socket; for looking up a name */
	for (int i = 0; i < 3; i++) {
		struct source_document document;
		struct fixture f;

		set_up(&f, state, once_and_close, NULL);
		f.options.retries = 5;
		if (i == 2)
			snprintf(f.domain, sizeof(f.domain), "registry.invalid:%u", f.server.port);
		open_source(&f);
		if (i == 1)
			assert_int_equal(fetch_blob(&f, 0), 0);
		if (i == 2)
			assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), CPULL_ERR_NETWORK);
		memset(&f.err, 0, sizeof(f.err));

		uint64_t since = now_ms();
		struct rlimit before = take_descriptors();
		int rc = source_get_manifest(f.source, NULL, &document, &f.err);

		assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
		assert_int_equal(rc, CPULL_ERR_STORAGE);
		assert_non_null(strstr(f.err.message, "RLIMIT_NOFILE"));
		assert_in_range(now_ms() - since, 0, 1000);
		/* and it works again once there are some */
		if (i != 2) {
			assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), 0);
			source_document_free(&document);
		}
		tear_down(&f);
	}
}

/* ---- many at once ---- */

static void *fetch_one(void *payload)
{
	struct fixture *f = payload;
	struct descriptor desc = {.digest = DIGEST, .size = BLOB_BYTES};
	struct pool_share *share;
	struct blob *blob;
	uint64_t total = 0;
	struct fixture own = {.pool = f->pool};

	if (pool_share_open(f->pool, 2, 4, &share))
		return "share";
	if (source_open_blob(f->source, &desc, share, &blob, NULL))
		return "open";

	int rc = read_blob(&own, blob, &total, f->pool);

	blob_close(blob);
	pool_share_close(share);
	return rc || total != BLOB_BYTES ? "read" : NULL;
}

static bool cut_sometimes(struct server *server, int fd, const struct request *request)
{
	return send_content(server, fd, request, request->number % 3 ? UINT64_MAX : 300000);
}

static void many_blobs_share_the_thread(void **state)
{
	struct fixture f;
	pthread_t threads[12];

	set_up(&f, state, cut_sometimes, NULL);
	open_source(&f);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, fetch_one, &f), 0);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
		void *failed;

		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	tear_down(&f);
}

/* As many layers as there can be, none of which is read: others get through all the same, with a token of their own,
 * and so do all of them in the end. */
static bool answer_with_token(struct server *server, int fd, const struct request *request)
{
	char fields[128];

	if (strstr(request->path, "/token"))
		return server_reply(server, fd, 200, "", "{\"token\":\"t\"}");
	if (!strstr(request->path, "/locked/"))
		return send_content(server, fd, request, UINT64_MAX);
	if (*request->authorization)
		return server_reply(server, fd, 200, "", "{}");
	snprintf(fields, sizeof(fields), "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:%u/token\"\r\n",
		 server->port);
	return server_reply(server, fd, 401, fields, "");
}

static void as_many_as_can_be(void **state)
{
	struct descriptor desc = {.digest = DIGEST, .size = BLOB_BYTES};
	struct source_document document;
	struct pool_share *shares[LIMIT_JOBS];
	struct blob *blobs[LIMIT_JOBS];
	struct source *locked;
	struct fixture f;
	struct pool *pool;

	set_up(&f, state, answer_with_token, NULL);
	open_source(&f);
	assert_int_equal(pool_new(CHUNK_BYTES, 2 * LIMIT_JOBS, &pool, NULL), 0);
	for (size_t i = 0; i < LIMIT_JOBS; i++) {
		assert_int_equal(pool_share_open(pool, 2, 2, &shares[i]), 0);
		assert_int_equal(source_open_blob(f.source, &desc, shares[i], &blobs[i], &f.err), 0);
	}
	for (size_t i = 0; i < LIMIT_JOBS; i++)
		while (blob_received(blobs[i]) < 2 * CHUNK_BYTES)
			poll(NULL, 0, 5);

	struct reference reference = f.reference;

	reference.path = "locked/app";
	f.options.reference = &reference;
	assert_int_equal(source_open(f.fetcher, &f.options, &locked, &f.err), 0);
	assert_int_equal(source_get_manifest(locked, NULL, &document, &f.err), 0);
	source_document_free(&document);
	source_close(locked);
	for (size_t i = 0; i < LIMIT_JOBS; i++) {
		uint64_t total;

		assert_int_equal(read_blob(&f, blobs[i], &total, pool), 0);
		assert_int_equal(total, BLOB_BYTES);
		blob_close(blobs[i]);
		pool_share_close(shares[i]);
	}
	assert_int_equal(server_requests(&f.server), LIMIT_JOBS + 3);
	pool_free(pool);
	tear_down(&f);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		EACH(manifest_comes_with_its_type),
		EACH(blobs_stream_in_full_chunks),
		EACH(memory_stays_within_the_share),
		EACH(small_chunks_lose_nothing),
		EACH(closing_early_gives_everything_back),
		EACH(cut_connections_are_resumed),
		EACH(whole_answers_to_a_range_are_skipped_into),
		EACH(other_ranges_are_not_taken),
		EACH(a_range_that_was_not_asked_for_is_refused),
		EACH(short_blobs_are_a_size_error),
		EACH(long_blobs_are_stopped),
		EACH(a_complete_blob_needs_no_more),
		EACH(empty_blobs_are_empty),
		EACH(manifests_are_cut_at_their_limit),
		EACH(headers_are_cut_at_their_limit),
		EACH(error_bodies_are_cut_at_their_limit),
		EACH(digests_are_checked_before_they_are_sent),
		EACH(cancel_ends_a_stalled_read),
		EACH(cancel_ends_a_connect),
		EACH(the_deadline_ends_a_stalled_read),
		EACH(silence_is_limited),
		EACH(lateness_is_no_silence),
		EACH(slowness_is_not),
		EACH(no_descriptors_are_told_at_once),
		EACH(many_blobs_share_the_thread),
		EACH(as_many_as_can_be),
	};

	fill_content(content, sizeof(content));
	return run_on_both_loops(tests, ARRAY_LEN(tests), argc, argv);
}
