/* SPDX-License-Identifier: Apache-2.0
 *
 * What it takes to hand a chunk from one stage to the next. The producer is a thread of its own, the consumer the main
 * thread; nothing else is done with the chunks, so a pass is all waiting and waking, the worst case of a pull.
 */
#include <poll.h>
#include <sys/eventfd.h>

#include "bench/micro/stages.h"
#include "engine/base/error.h"
#include "engine/base/queue.h"
#include "engine/base/ring.h"
#include "engine/base/thread.h"

#define CHUNK_BYTES ((size_t)4 << 10) /* they stay empty */
#define POOL_CHUNKS 16u
#define PASS_CHUNKS 4096u
#define WAKES 1024u

struct handover {
	struct pool *pool;
	struct pool_share *share;
	struct queue queue;
	struct ring *ring; /* the waker's target */
	int event_fd, answer_fd;
};

static void *produce(void *payload)
{
	struct handover *h = payload;

	for (unsigned i = 0; i < PASS_CHUNKS; i++)
		queue_push(&h->queue, pool_get(h->share, NULL));
	return NULL;
}

static int pass_queue(void *payload, struct cpull_error *err)
{
	struct handover *h = payload;
	struct chunk *chunk;
	pthread_t thread;
	int rc = thread_start(&thread, "bench-produce", produce, h, err);

	if (rc)
		return rc;
	for (unsigned i = 0; !rc && i < PASS_CHUNKS; i++) {
		rc = queue_pop(&h->queue, &chunk, NULL);
		chunk_put(chunk);
	}
	pthread_join(thread, NULL);
	return rc;
}

/* The same calls without anybody to wait for: what the locks take. */
static int pass_one_thread(void *payload, struct cpull_error *err)
{
	struct handover *h = payload;
	struct chunk *chunk;

	(void)err;
	for (unsigned i = 0; i < PASS_CHUNKS; i++) {
		queue_push(&h->queue, pool_get(h->share, NULL));

		int rc = queue_pop(&h->queue, &chunk, NULL);

		if (rc)
			return rc;
		chunk_put(chunk);
	}
	return 0;
}

/* A wake-up and its answer, each time. */
static void *wake_ring(void *payload)
{
	struct handover *h = payload;
	uint64_t value;

	for (unsigned i = 0; i < WAKES; i++) {
		ring_wake(h->ring);
		if (read(h->answer_fd, &value, sizeof(value)) < 0)
			break;
	}
	return NULL;
}

static void *wake_eventfd(void *payload)
{
	const struct handover *h = payload;
	uint64_t value = 1;

	for (unsigned i = 0; i < WAKES; i++)
		if (write(h->event_fd, &value, sizeof(value)) < 0 || read(h->answer_fd, &value, sizeof(value)) < 0)
			break;
	return NULL;
}

static int answer(const struct handover *h)
{
	uint64_t one = 1;

	return write(h->answer_fd, &one, sizeof(one)) < 0 ? CPULL_ERR_INTERNAL : 0;
}

static int pass_ring(void *payload, struct cpull_error *err)
{
	struct handover *h = payload;
	struct ring_event event;
	pthread_t thread;
	int rc = thread_start(&thread, "bench-wake", wake_ring, h, err);

	if (rc)
		return rc;
	for (unsigned i = 0; rc >= 0 && i < WAKES; i++) {
		while ((rc = ring_wait(h->ring, -1, &event, 1)) == 0)
			;
		rc = answer(h);
	}
	pthread_join(thread, NULL);
	return rc < 0 ? error_set(err, rc, "waiting on the ring") : 0;
}

static int pass_poll(void *payload, struct cpull_error *err)
{
	struct handover *h = payload;
	struct pollfd fd = {.fd = h->event_fd, .events = POLLIN};
	uint64_t value;
	pthread_t thread;
	int rc = thread_start(&thread, "bench-wake", wake_eventfd, h, err);

	if (rc)
		return rc;
	for (unsigned i = 0; !rc && i < WAKES; i++) {
		if (poll(&fd, 1, -1) < 0 || read(h->event_fd, &value, sizeof(value)) < 0)
			rc = error_set(err, CPULL_ERR_INTERNAL, "waiting on an eventfd");
		if (answer(h))
			rc = error_set(err, CPULL_ERR_INTERNAL, "answering on an eventfd");
	}
	pthread_join(thread, NULL);
	return rc;
}

int measure_handover(struct report *report, const struct corpus *corpus, struct cpull_error *err)
{
	struct handover h = {.event_fd = eventfd(0, EFD_CLOEXEC), .answer_fd = eventfd(0, EFD_CLOEXEC)};
	const struct bench_case cases[] = {
		{"handover", "pool and queue, two threads", true, COST_NONE, NS_PER_CHUNK, PASS_CHUNKS, pass_queue,
		 NULL, &h},
		{"handover", "pool and queue, one thread", false, COST_NONE, NS_PER_CHUNK, PASS_CHUNKS,
		 pass_one_thread, NULL, &h},
		{"handover", "wake-up and answer, ring", true, COST_NONE, NS_PER_CHUNK, WAKES, pass_ring, NULL, &h},
		{"handover", "wake-up and answer, eventfd and poll", false, COST_NONE, NS_PER_CHUNK, WAKES, pass_poll,
		 NULL, &h},
	};
	int rc = pool_new(CHUNK_BYTES, POOL_CHUNKS, &h.pool, err);

	(void)corpus;
	queue_init(&h.queue);
	if (!rc)
		rc = pool_share_open(h.pool, POOL_CHUNKS, POOL_CHUNKS, &h.share);
	if (!rc)
		rc = ring_new(CPULL_IO_AUTO, 8, &h.ring, err);
	if (!rc)
		rc = measure(report, cases, ARRAY_LEN(cases), err);
	queue_destroy(&h.queue);
	ring_free(h.ring);
	if (h.share)
		pool_share_close(h.share);
	pool_free(h.pool);
	close(h.event_fd);
	close(h.answer_fd);
	return rc;
}
