/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch/stream: a blob in parts over several connections, against a server inside of the test that gives each of them
 * only so much, and misbehaves.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "fetch/source.h"
#include "tests/unit/fetch_tests.h"
#include "tests/unit/http_server.h"

#define CHUNK_BYTES (16u << 10)
#define CHUNKS 64u
#define SHARE_MAX 32u
#define BLOB_BYTES ((4u << 20) + 12345u)
#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define RATE (4u << 20) /* bytes a second for each connection */
#define PIECE_BYTES (8u << 10)

static uint8_t content[BLOB_BYTES];

/* What the server does with a request for a range; the first request of a blob is always for all of it. */
enum trick {
	SERVE,
	SERVE_SLOWLY_BY_TURNS, /* so that later parts come first */
	IGNORE_RANGES,
	LIE_ABOUT_THE_RANGE,
	SAY_416,
	SAY_404,
	THROTTLE,
	BE_UNAVAILABLE,
	RESET,
	HANG,
	SEND_LESS,
	BREAK,
	BREAK_AND_REFUSE, /* a range is broken off, and after that nobody gets anything */
	TWO_AT_ONCE,
	ASK_FOR_A_TOKEN,
	FORGET_RANGES,    /* after some time */
};

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
	enum trick trick;
	atomic_uint rate;
	atomic_uint serving, ranges, refused, tokens;
	atomic_uint_fast64_t sent;
	struct cpull_stage_stats stats;
	unsigned connections;
};

/* ---- the server ---- */

static bool send_at_rate(struct fixture *f, int fd, uint64_t from, uint64_t end, unsigned rate)
{
	uint64_t since = now_ns(), at = from;

	while (at < end) {
		size_t n = (size_t)MIN(end - at, (uint64_t)PIECE_BYTES);
		uint64_t due = rate ? since + (at - from) * 1000000000 / rate : 0, now = now_ns();

		if (due > now)
			usleep((useconds_t)((due - now) / 1000));
		if (!server_send(&f->server, fd, content + at, n))
			return false;
		at += n;
		atomic_fetch_add(&f->sent, n);
	}
	return true;
}

static bool head_of_range(struct fixture *f, int fd, uint64_t from, uint64_t end)
{
	return server_printf(&f->server, fd,
			     "HTTP/1.1 206 X\r\nContent-Length: %llu\r\nContent-Range: bytes %llu-%llu/%u\r\n\r\n",
			     (unsigned long long)(end - from), (unsigned long long)from, (unsigned long long)end - 1,
			     BLOB_BYTES);
}

static bool serve_all(struct fixture *f, int fd)
{
	return server_printf(&f->server, fd, "HTTP/1.1 200 X\r\nContent-Length: %u\r\n\r\n", BLOB_BYTES) &&
	       send_at_rate(f, fd, 0, BLOB_BYTES, f->rate);
}

static bool serve_range(struct fixture *f, int fd, const struct request *request)
{
	uint64_t end = MIN(request->to, (uint64_t)BLOB_BYTES - 1) + 1, from = request->from;
	unsigned number = atomic_fetch_add(&f->ranges, 1), rate = f->rate;

	switch (f->trick) {
	case IGNORE_RANGES:
		return serve_all(f, fd);
	case FORGET_RANGES:
		if (number >= 6)
			return serve_all(f, fd);
		break;
	case LIE_ABOUT_THE_RANGE:
		return head_of_range(f, fd, from + 1, end) && send_at_rate(f, fd, from + 1, end, 0);
	case SAY_416:
		return server_reply(&f->server, fd, 416, "", "");
	case SAY_404:
		return server_reply(&f->server, fd, 404, "", "");
	case THROTTLE:
		if (number > 0)
			break;
		return server_reply(&f->server, fd, 429, "Retry-After: 1\r\n", "");
	case BE_UNAVAILABLE:
		return server_reply(&f->server, fd, 503, "", "");
	case RESET:
		return false;
	case HANG:
		server_hang(&f->server, fd);
		return false;
	case SEND_LESS:
		end = number % 8 == 1 ? MIN(end, from + 20000) : end;
		break;
	case BREAK:
		if (number % 8 != 1)
			break;
		return head_of_range(f, fd, from, end) && send_at_rate(f, fd, from, MIN(end, from + 20000), rate) &&
		       false;
	case BREAK_AND_REFUSE:
		if (number > 8)
			return server_reply(&f->server, fd, 404, "", "");
		return head_of_range(f, fd, from, end) && send_at_rate(f, fd, from, MIN(end, from + 20000), rate) &&
		       false;
	case SERVE_SLOWLY_BY_TURNS:
		rate = number % 2 ? rate * 4 : rate / 2;
		break;
	default:
		break;
	}
	return head_of_range(f, fd, from, end) && send_at_rate(f, fd, from, end, rate);
}

static bool answer(struct server *server, int fd, const struct request *request)
{
	struct fixture *f = server->payload;
	bool kept;

	if (!strncmp(request->path, "/token", 6)) {
		atomic_fetch_add(&f->tokens, 1);
		return server_reply(server, fd, 200, "", "{\"token\":\"tok-1\"}");
	}
	if (f->trick == ASK_FOR_A_TOKEN && strcmp(request->authorization, "Bearer tok-1") != 0) {
		char fields[120];

		snprintf(fields, sizeof(fields), "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:%u/token\"\r\n",
			 server->port);
		return server_reply(server, fd, 401, fields, "");
	}
	if (atomic_fetch_add(&f->serving, 1) >= 2 && f->trick == TWO_AT_ONCE) {
		atomic_fetch_add(&f->refused, 1);
		kept = server_reply(server, fd, 503, "", "");
	} else {
		kept = request->ranged ? serve_range(f, fd, request) : serve_all(f, fd);
	}
	atomic_fetch_sub(&f->serving, 1);
	return kept;
}

/* ---- the client ---- */

static bool is_sync(void **state)
{
	return io_of(state) == CPULL_IO_SYNC;
}

static void set_up(struct fixture *f, void **state, enum trick trick)
{
	memset(f, 0, sizeof(*f));
	f->trick = trick;
	f->rate = RATE;
	log_init(&f->log, getenv("TEST_LOG") ? show_log : NULL, NULL, CPULL_LOG_DEBUG);
	assert_int_equal(server_start(&f->server, answer, f), 0);
	snprintf(f->domain, sizeof(f->domain), "127.0.0.1:%u", f->server.port);
	f->reference = (struct reference){.domain = f->domain, .path = "team/app", .tag = "1"};
	f->options = (struct source_options){.reference = &f->reference, .plain_http = true, .retries = 3,
					     .stall_timeout_ms = 10000, .ranges_bytes = 256 << 10, .pace_ms = 25};
	assert_int_equal(fetcher_new(io_of(state), &f->log, &f->fetcher, NULL), 0);
	assert_int_equal(pool_new(CHUNK_BYTES, CHUNKS, &f->pool, NULL), 0);
	assert_int_equal(pool_share_open(f->pool, 2, SHARE_MAX, &f->share), 0);
}

static void tear_down(struct fixture *f)
{
	source_close(f->source);
	fetcher_free(f->fetcher);
	pool_share_close(f->share);
	pool_free(f->pool); /* asserts that no chunk is missing */
	server_stop(&f->server);
	log_destroy(&f->log);
}

static struct blob *open_blob(struct fixture *f)
{
	struct descriptor desc = {.digest = DIGEST, .size = BLOB_BYTES};
	struct blob *blob = NULL;

	if (!f->source)
		assert_int_equal(source_open(f->fetcher, &f->options, &f->source, &f->err), 0);
	assert_int_equal(source_open_blob(f->source, &desc, f->share, &blob, &f->err), 0);
	return blob;
}

/* Whether another connection is worth it is found out by the clock, and a machine that is busy may have it wrong. */
#define BUSY_MACHINE_TRIES 5u

/* Reads `most` bytes or to the end, and compares: every chunk but the last is full, and progress never goes back. */
static int read_blob(struct fixture *f, struct blob *blob, uint64_t most, unsigned pause_us, uint64_t *total)
{
	struct chunk *chunk = NULL;
	uint64_t shown = 0;
	int rc = 0;

	*total = 0;
	while (*total < most && (rc = blob_read(blob, &chunk, NULL, &f->err)) == 0 && chunk) {
		assert_true(chunk->len == CHUNK_BYTES || *total + chunk->len == BLOB_BYTES);
		assert_memory_equal(chunk->data, content + *total, chunk->len);
		*total += chunk->len;
		assert_in_range(blob_received(blob), shown, BLOB_BYTES);
		shown = blob_received(blob);
		chunk_put(chunk);
		if (pause_us)
			usleep(pause_us);
	}
	return rc;
}

static int fetch(struct fixture *f)
{
	struct blob *blob = open_blob(f);
	uint64_t total;
	int rc = read_blob(f, blob, UINT64_MAX, 0, &total);

	if (!rc) {
		assert_int_equal(total, BLOB_BYTES);
		assert_int_equal(blob_received(blob), BLOB_BYTES);
	}
	blob_stats(blob, &f->stats, &f->connections);
	blob_close(blob);
	return rc;
}

/* ---- more is faster ---- */

/* True when further connections were taken and helped, which needs a machine that keeps up; the content has to be right
 * whether or not. */
static bool several_help(void **state, enum trick trick)
{
	struct fixture f;

	set_up(&f, state, trick);
	uint64_t since = now_ns();
	assert_int_equal(fetch(&f), 0);
	uint64_t took = now_ns() - since;
	bool help = f.connections >= 2 && took < (uint64_t)BLOB_BYTES * 1000000000 / RATE * 3 / 4;

	assert_in_range(f.connections, 1, 8);
	assert_int_equal(f.stats.bytes, BLOB_BYTES);
	assert_in_range(f.stats.busy_ns + f.stats.wait_input_ns + f.stats.wait_output_ns, took / 2, took);
	assert_int_equal(f.tokens, trick == ASK_FOR_A_TOKEN);
	tear_down(&f);
	return help || (trick != SERVE && f.connections >= 2);
}

static void parts_come_in_order(void **state)
{
	static const enum trick tricks[] = {SERVE, SERVE_SLOWLY_BY_TURNS, ASK_FOR_A_TOKEN};

	for (size_t i = 0; i < ARRAY_LEN(tricks); i++) {
		unsigned tries = 1;

		while (!several_help(state, tricks[i]))
			assert_in_range(++tries, 2, BUSY_MACHINE_TRIES);
	}
}

static void one_is_enough_when_told(void **state)
{
	struct fixture f;

	set_up(&f, state, SERVE);
	f.rate = 4 * RATE;
	f.options.connections = 1;
	assert_int_equal(fetch(&f), 0);
	assert_int_equal(f.connections, 1);
	assert_int_equal(server_requests(&f.server), 1);
	tear_down(&f);
	/* and when little is left */
	set_up(&f, state, SERVE);
	f.rate = 4 * RATE;
	f.options.ranges_bytes = BLOB_BYTES;
	assert_int_equal(fetch(&f), 0);
	assert_int_equal(server_requests(&f.server), 1);
	tear_down(&f);
}

static void a_slow_reader_needs_no_more(void **state)
{
	struct fixture f;
	uint64_t total;

	set_up(&f, state, SERVE);
	f.rate = 0;
	struct blob *blob = open_blob(&f);
	assert_int_equal(read_blob(&f, blob, UINT64_MAX, 2000, &total), 0);
	assert_int_equal(total, BLOB_BYTES);
	blob_stats(blob, &f.stats, &f.connections);
	assert_int_equal(f.connections, 1);
	assert_true(f.stats.wait_output_ns > f.stats.wait_input_ns);
	blob_close(blob);
	assert_int_equal(server_requests(&f.server), 1);
	tear_down(&f);
}

/* ---- little room ---- */

static void two_chunks_do(void **state)
{
	struct fixture f;

	set_up(&f, state, SERVE);
	f.rate = 4 * RATE;
	pool_share_close(f.share);
	assert_int_equal(pool_share_open(f.pool, 2, 2, &f.share), 0);
	assert_int_equal(fetch(&f), 0);
	assert_int_equal(f.connections, 1);
	tear_down(&f);
}

/* The share may have more, but others have it: whatever the parts were planned for, two chunks have to do. */
static void two_of_many_chunks_do(void **state)
{
	struct fixture f;
	struct pool_share *others;
	struct chunk *taken[CHUNKS];
	size_t count = 0;

	set_up(&f, state, SERVE_SLOWLY_BY_TURNS);
	f.rate = 4 * RATE;
	assert_int_equal(pool_share_open(f.pool, 2, CHUNKS, &others), 0);
	while ((taken[count] = pool_try_get(others)))
		count++;
	assert_int_equal(count, CHUNKS - 2);
	assert_int_equal(fetch(&f), 0);
	/* and when they come and go */
	struct blob *blob = open_blob(&f);
	uint64_t total, sum = 0;
	for (unsigned i = 0; sum < BLOB_BYTES; i++) {
		struct chunk *chunk;

		if (i % 7 == 0 && count)
			chunk_put(taken[--count]);
		if (i % 11 == 0 && count < CHUNKS && (taken[count] = pool_try_get(others)))
			count++;
		assert_int_equal(blob_read(blob, &chunk, NULL, &f.err), 0);
		assert_memory_equal(chunk->data, content + sum, chunk->len);
		sum += chunk->len;
		chunk_put(chunk);
	}
	assert_int_equal(read_blob(&f, blob, UINT64_MAX, 0, &total), 0);
	assert_int_equal(total, 0);
	blob_close(blob);
	while (count)
		chunk_put(taken[--count]);
	pool_share_close(others);
	tear_down(&f);
}

/* ---- servers that will not ---- */

/* What came over the first connection is used, and the first connection is used to the end. */
static void refusals_leave_the_first_alone(void **state)
{
	static const enum trick tricks[] = {
		IGNORE_RANGES, LIE_ABOUT_THE_RANGE, SAY_416, SAY_404, BE_UNAVAILABLE, RESET};

	/* half of them with either kind of I/O */
	for (size_t i = is_sync(state); i < ARRAY_LEN(tricks); i += 2) {
		struct fixture f;

		set_up(&f, state, tricks[i]);
		f.rate = 2 * RATE;
		assert_int_equal(fetch(&f), 0);
		assert_int_equal(f.ranges, 1);
		assert_int_equal(server_requests(&f.server), 2);
		assert_int_equal(f.stats.bytes, BLOB_BYTES);
		if (tricks[i] == IGNORE_RANGES || tricks[i] == LIE_ABOUT_THE_RANGE) {
			assert_int_equal(fetch(&f), 0); /* known by now */
			assert_int_equal(f.ranges, 1);
		}
		tear_down(&f);
	}
}

static void who_keeps_a_second_one_waiting_gets_none(void **state)
{
	struct fixture f;

	if (is_sync(state))
		return; /* takes seconds, and is the same */
	set_up(&f, state, HANG);
	assert_int_equal(fetch(&f), 0);
	assert_int_equal(f.ranges, 1);
	/* the next blob does not ask again */
	f.rate = 4 * RATE;
	assert_int_equal(fetch(&f), 0);
	assert_int_equal(f.ranges, 1);
	tear_down(&f);
}

static void two_are_kept_where_more_are_refused(void **state)
{
	struct fixture f = {0};

	for (unsigned tries = 1; !f.refused; tries++) {
		assert_in_range(tries, 1, BUSY_MACHINE_TRIES);
		set_up(&f, state, TWO_AT_ONCE);
		assert_int_equal(fetch(&f), 0);
		tear_down(&f);
	}
	assert_in_range(f.refused, 1, 12);
	assert_in_range(f.connections, 2, 4);
}

/* Nobody else may ask for what the extra connection was told to wait for; the first one goes on meanwhile. */
static void retry_after_holds_the_host(void **state)
{
	struct fixture f;
	struct source_document document;

	set_up(&f, state, THROTTLE);
	f.rate = 2 * RATE;
	struct blob *blob = open_blob(&f);
	while (f.ranges == 0) {
		struct chunk *chunk;

		assert_int_equal(blob_read(blob, &chunk, NULL, &f.err), 0);
		assert_non_null(chunk);
		chunk_put(chunk);
	}
	uint64_t since = now_ms();
	usleep(50000);
	assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), CPULL_ERR_LIMIT);
	assert_in_range(now_ms() - since, 900, 3000);
	blob_close(blob);
	tear_down(&f);
}

static void ranges_may_be_forgotten(void **state)
{
	struct fixture f;

	set_up(&f, state, FORGET_RANGES);
	f.rate = 2 * RATE;
	assert_int_equal(fetch(&f), 0);
	assert_true(f.connections > 1);
	tear_down(&f);
}

/* ---- parts that break ---- */

static void short_and_broken_parts_are_resumed(void **state)
{
	static const enum trick tricks[] = {SEND_LESS, BREAK};

	for (size_t i = 0; i < ARRAY_LEN(tricks); i++) {
		struct fixture f;

		set_up(&f, state, tricks[i]);
		assert_int_equal(fetch(&f), 0);
		assert_true(f.connections > 1 && f.ranges > 4);
		assert_int_equal(f.stats.bytes, BLOB_BYTES);
		tear_down(&f);
	}
}

static void what_fails_for_good_says_so(void **state)
{
	struct fixture f;

	set_up(&f, state, BREAK_AND_REFUSE);
	assert_int_equal(fetch(&f), CPULL_ERR_NOT_FOUND);
	assert_non_null(strstr(f.err.message, "blob " DIGEST " of 127.0.0.1:"));
	assert_non_null(strstr(f.err.message, "not found (404)"));
	tear_down(&f);
}

/* ---- the end comes early ---- */

/* Until there are several connections at work. */
static uint64_t read_until_split(struct fixture *f, struct blob *blob)
{
	uint64_t sum = 0;

	do {
		struct chunk *chunk;

		assert_int_equal(blob_read(blob, &chunk, NULL, &f->err), 0);
		assert_non_null(chunk);
		sum += chunk->len;
		chunk_put(chunk);
		blob_stats(blob, &f->stats, &f->connections);
	} while (f->connections < 2);
	return sum;
}

static void closing_ends_all_parts(void **state)
{
	struct fixture f;

	set_up(&f, state, SERVE);
	struct blob *blob = open_blob(&f);
	read_until_split(&f, blob);
	blob_close(blob);
	f.rate = 0;
	assert_int_equal(fetch(&f), 0);
	tear_down(&f);
}

static void cancelling_ends_all_parts(void **state)
{
	struct fixture f;
	struct chunk *chunk;
	int rc;

	set_up(&f, state, SERVE);
	struct blob *blob = open_blob(&f);
	read_until_split(&f, blob);
	uint64_t since = now_ms();
	source_cancel(f.source);
	while ((rc = blob_read(blob, &chunk, NULL, &f.err)) == 0 && chunk)
		chunk_put(chunk);
	assert_int_equal(rc, CPULL_ERR_CANCELLED);
	assert_in_range(now_ms() - since, 0, 500);
	blob_close(blob);
	tear_down(&f);
}

static void the_deadline_ends_all_parts(void **state)
{
	struct fixture f;
	struct chunk *chunk;
	int rc;

	set_up(&f, state, SERVE);
	f.rate = RATE / 4;
	f.options.deadline_ms = now_ms() + 600;
	struct blob *blob = open_blob(&f);
	read_until_split(&f, blob);
	while ((rc = blob_read(blob, &chunk, NULL, &f.err)) == 0 && chunk)
		chunk_put(chunk);
	assert_int_equal(rc, CPULL_ERR_DEADLINE);
	assert_in_range(now_ms(), f.options.deadline_ms, f.options.deadline_ms + 500);
	blob_close(blob);
	tear_down(&f);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
	    EACH(parts_come_in_order),
	    EACH(one_is_enough_when_told),
	    EACH(a_slow_reader_needs_no_more),
	    EACH(two_chunks_do),
	    EACH(two_of_many_chunks_do),
	    EACH(refusals_leave_the_first_alone),
	    EACH(who_keeps_a_second_one_waiting_gets_none),
	    EACH(two_are_kept_where_more_are_refused),
	    EACH(retry_after_holds_the_host),
	    EACH(ranges_may_be_forgotten),
	    EACH(short_and_broken_parts_are_resumed),
	    EACH(what_fails_for_good_says_so),
	    EACH(closing_ends_all_parts),
	    EACH(cancelling_ends_all_parts),
	    EACH(the_deadline_ends_all_parts),
	};

	fill_content(content, sizeof(content));
	return run_on_both_loops(tests, ARRAY_LEN(tests), argc, argv);
}
