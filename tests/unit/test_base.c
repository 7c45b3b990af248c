/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/base: error objects, buffers, the chunk pool, queues and the ring with its fallback.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/queue.h"
#include "engine/base/ring.h"

static void error_names_the_cause(void **state)
{
	struct cpull_error err = {0};

	(void)state;
	assert_int_equal(error_sys(&err, CPULL_ERR_STORAGE, ENOSPC, "writing %s", "x"), CPULL_ERR_SPACE);
	assert_string_equal(err.message, "writing x: No space left on device");
	assert_int_equal(error_wrap(&err, "layer %d", 3), CPULL_ERR_SPACE);
	assert_string_equal(err.message, "layer 3: writing x: No space left on device");
	assert_int_equal(cpull_code_class(CPULL_ERR_SPACE), 9);
}

static void base64_is_strict(void **state)
{
	uint8_t out[16];

	(void)state;
	assert_int_equal(base64_decode("Zm9v", 4, out), 3);
	assert_int_equal(base64_decode("Zg==", 4, out), 1);
	assert_int_equal(base64_decode("Zh==", 4, out), -1);
	assert_int_equal(base64_decode("Zg=", 3, out), -1);
	assert_int_equal(base64_decode("Z_9v", 4, out), -1);
	assert_int_equal(base64_decode("=g==", 4, out), -1);
}

static void json_refuses_what_two_parsers_read_differently(void **state)
{
	static const char *bad[] = {"{\"a\":1,\"a\":2}", "{} x", "{\"a\":\"\\u0000\"}", "", "3", "{\"a\":01}"};
	char deep[400];
	json_t *out;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(json_parse(bad[i], strlen(bad[i]), CPULL_ERR_MANIFEST, "t", &out, NULL),
				 CPULL_ERR_MANIFEST);
	memset(deep, '[', 200);
	memset(deep + 200, ']', 200);
	assert_int_equal(json_parse(deep, 400, CPULL_ERR_MANIFEST, "t", &out, NULL), CPULL_ERR_MANIFEST);
}

static void pool_keeps_its_promises(void **state)
{
	struct pool *pool;
	struct pool_share *a, *b;
	struct chunk *held[8];

	(void)state;
	assert_int_equal(pool_new(4096, 6, &pool, NULL), 0);
	assert_int_equal(pool_share_open(pool, 2, 6, &a), 0);
	assert_int_equal(pool_share_open(pool, 2, 6, &b), 0);
	struct pool_share *none;
	assert_int_equal(pool_share_open(pool, 3, 3, &none), CPULL_ERR_LIMIT);
	/* a greedy share gets its promise and the surplus, never what was promised to another */
	for (int i = 0; i < 4; i++)
		assert_non_null(held[i] = pool_try_get(a));
	assert_null(pool_try_get(a));
	assert_non_null(held[4] = pool_try_get(b));
	assert_non_null(held[5] = pool_try_get(b));
	assert_null(pool_try_get(b));
	chunk_put(held[0]); /* surplus comes back: now b may have it */
	assert_non_null(held[0] = pool_try_get(b));
	for (int i = 0; i < 6; i++)
		chunk_put(held[i]);
	pool_share_close(a);
	pool_share_close(b);
	pool_free(pool);
}

static void *producer(void *payload)
{
	void **args = payload;
	struct pool_share *share = args[0];
	struct queue *queue = args[1];

	for (uint32_t i = 0; i < 10000; i++) {
		struct chunk *c = pool_get(share, NULL);

		if (!c)
			return NULL;
		memcpy(c->data, &i, sizeof(i));
		c->len = sizeof(i);
		queue_push(queue, c);
	}
	queue_close(queue, 0);
	return NULL;
}

static void queue_hands_over_in_order(void **state)
{
	struct pool *pool;
	struct pool_share *share;
	struct queue queue;
	pthread_t thread;
	struct chunk *c;

	(void)state;
	assert_int_equal(pool_new(4096, 2, &pool, NULL), 0);
	assert_int_equal(pool_share_open(pool, 2, 2, &share), 0);
	queue_init(&queue);
	assert_int_equal(pthread_create(&thread, NULL, producer, (void *[]){share, &queue}), 0);
	for (uint32_t want = 0;; want++) {
		uint32_t got;

		assert_int_equal(queue_pop(&queue, &c, NULL), 0);
		if (!c) {
			assert_int_equal(want, 10000);
			break;
		}
		memcpy(&got, c->data, sizeof(got));
		assert_int_equal(got, want);
		chunk_put(c);
	}
	pthread_join(thread, NULL);
	queue_destroy(&queue);
	pool_share_close(share);
	pool_free(pool);
}

static void cancel_wakes_a_waiter(void **state)
{
	struct pool *pool;
	struct pool_share *share;
	struct queue queue;
	pthread_t thread;
	struct chunk *c;

	(void)state;
	assert_int_equal(pool_new(4096, 1, &pool, NULL), 0);
	assert_int_equal(pool_share_open(pool, 1, 1, &share), 0);
	queue_init(&queue);
	assert_int_equal(pthread_create(&thread, NULL, producer, (void *[]){share, &queue}), 0);
	assert_int_equal(queue_pop(&queue, &c, NULL), 0);
	pool_share_cancel(share);
	queue_close(&queue, CPULL_ERR_CANCELLED);
	pthread_join(thread, NULL);
	chunk_put(c);
	assert_int_equal(queue_pop(&queue, &c, NULL), CPULL_ERR_CANCELLED);
	queue_destroy(&queue);
	pool_share_close(share);
	pool_free(pool);
}

static void ring_writes_and_polls(enum cpull_io io)
{
	struct ring *ring;
	struct ring_event ev[8];
	char path[] = "/tmp/ring-XXXXXX", block[1000], back[1000];
	int fd = mkstemp(path), pipes[2];

	unlink(path);
	assert_int_equal(ring_new(io, 4, &ring, NULL), 0);
	memset(block, 'x', sizeof(block));
	for (int i = 0; i < 4; i++)
		assert_int_equal(ring_write(ring, fd, block, sizeof(block), (uint64_t)i * 1000, 7), 0);
	assert_int_equal(ring_write(ring, fd, block, 1, 0, 7), CPULL_ERR_LIMIT);
	for (int got = 0; got < 4;) {
		int n = ring_wait(ring, -1, ev, 8);

		assert_true(n > 0);
		for (int i = 0; i < n; i++)
			assert_int_equal(ev[i].result, 1000);
		got += n;
	}
	assert_int_equal(pread(fd, back, 1000, 3000), 1000);
	assert_memory_equal(back, block, 1000);

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(ring_poll(ring, pipes[0], POLLIN, 1), 0);
	assert_int_equal(ring_wait(ring, 10, ev, 8), 0);
	assert_int_equal(write(pipes[1], "a", 1), 1);
	assert_int_equal(ring_wait(ring, -1, ev, 8), 1);
	assert_true(ev[0].op == RING_POLL && (ev[0].result & POLLIN) && ev[0].token == 1);
	assert_int_equal(ring_poll(ring, pipes[0], POLLIN, 2), 0);
	ring_poll_cancel(ring, 2);
	assert_int_equal(ring_wait(ring, 10, ev, 8), 0);
	ring_wake(ring);
	assert_int_equal(ring_wait(ring, -1, ev, 8), 1);
	assert_int_equal(ev[0].op, RING_WAKE);

	/* a failing write is an event, not a crash */
	int read_only = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(ring_write(ring, read_only, block, 1, 0, 9), 0);
	assert_int_equal(ring_wait(ring, -1, ev, 8), 1);
	assert_int_equal(ev[0].result, -EBADF);
	close(read_only);
	close(pipes[0]);
	close(pipes[1]);
	ring_free(ring);
	close(fd);
}

/* From registered memory, from elsewhere, and across the border. */
static void ring_registered_memory(void **state)
{
	static const size_t starts[] = {0, 4096, 8191, 8192, 4097};
	uint8_t *memory = aligned_alloc(4096, 16384), back[4096];
	const struct iovec registered = {.iov_base = memory, .iov_len = 8192};
	char path[] = "/tmp/ring-XXXXXX";
	struct ring *ring;
	struct ring_event ev[8];

	(void)state;
	assert_non_null(memory);
	for (size_t i = 0; i < 16384; i++)
		memory[i] = (uint8_t)(i * 7 ^ i >> 8);
	for (enum cpull_io io = CPULL_IO_AUTO; io <= CPULL_IO_SYNC; io++) {
		CLEANUP_FD int fd = mkstemp(path);

		unlink(path);
		strcpy(path + strlen(path) - 6, "XXXXXX");
		if (ring_new(io, 4, &ring, NULL)) /* io_uring is refused here */
			continue;
		assert_int_equal(ring_register(ring, &registered), ring_is_uring(ring) ? 0 : -ENOSYS);
		for (size_t i = 0; i < ARRAY_LEN(starts); i++) {
			assert_int_equal(ring_write(ring, fd, memory + starts[i], 4096, i * 4096, i), 0);
			assert_int_equal(ring_wait(ring, -1, ev, 8), 1);
			assert_int_equal(ev[0].result, 4096);
			assert_int_equal(pread(fd, back, 4096, (off_t)i * 4096), 4096);
			assert_memory_equal(back, memory + starts[i], 4096);
		}
		ring_free(ring);
	}
	free(memory);
}

static void ring_auto(void **state)
{
	(void)state;
	ring_writes_and_polls(CPULL_IO_AUTO);
}

static void ring_sync(void **state)
{
	(void)state;
	ring_writes_and_polls(CPULL_IO_SYNC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(error_names_the_cause),
		cmocka_unit_test(base64_is_strict),
		cmocka_unit_test(json_refuses_what_two_parsers_read_differently),
		cmocka_unit_test(pool_keeps_its_promises),
		cmocka_unit_test(queue_hands_over_in_order),
		cmocka_unit_test(cancel_wakes_a_waiter),
		cmocka_unit_test(ring_registered_memory),
		cmocka_unit_test(ring_auto),
		cmocka_unit_test(ring_sync),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
