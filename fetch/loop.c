/* SPDX-License-Identifier: Apache-2.0
 *
 * The fetch thread's event loop over engine/base/ring. transfer.c puts libcurl's sockets and timer on it, exchange.c
 * its retries and deadlines; other threads only post tasks. It owns the thread and the ring, and none of the
 * objects that are registered with it.
 *
 * Timers and watches are plain lists: there are a few per transfer, and transfers are tens.
 */
#include "fetch/loop.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <time.h>

#include "engine/base/error.h"
#include "engine/base/ring.h"
#include "engine/base/thread.h"

/* Sockets that can be watched at once: TRANSFER_CONNECTIONS, the resolver's pipes, and polls that were
 * cancelled and have not come back yet. */
#define LOOP_RING_ENTRIES 256u
#define LOOP_EVENTS 32u
/* A pass gives way to the sockets after so many tasks or timers. */
#define LOOP_CALLS_PER_PASS 256u
/* How soon to ask again for a poll that the ring had no room for. */
#define LOOP_REARM_MS 10

struct loop {
	struct ring *ring;
	pthread_t thread;
	bool running;
	pthread_mutex_t lock; /* tasks, tail, stopping */
	struct loop_task *tasks;
	struct loop_task **tail;
	bool stopping;
	struct loop_timer *timers;
	struct loop_watch *watches;
	uint64_t last_token;
};

void loop_post(struct loop *loop, struct loop_task *task)
{
	pthread_mutex_lock(&loop->lock);
	bool wake = !loop->tasks;

	if (!task->queued) {
		task->queued = true;
		task->next = NULL;
		*loop->tail = task;
		loop->tail = &task->next;
	}
	pthread_mutex_unlock(&loop->lock);
	if (wake)
		ring_wake(loop->ring);
}

void loop_forget(struct loop *loop, struct loop_task *task)
{
	pthread_mutex_lock(&loop->lock);
	if (task->queued) {
		struct loop_task **at = &loop->tasks;

		while (*at != task)
			at = &(*at)->next;
		*at = task->next;
		if (loop->tail == &task->next)
			loop->tail = at;
		task->queued = false;
	}
	pthread_mutex_unlock(&loop->lock);
}

static struct loop_task *next_task(struct loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	struct loop_task *task = loop->tasks;

	if (task) {
		loop->tasks = task->next;
		if (!loop->tasks)
			loop->tail = &loop->tasks;
		task->queued = false;
	}
	pthread_mutex_unlock(&loop->lock);
	return task;
}

/* True when some were left over. */
static bool run_tasks(struct loop *loop)
{
	for (unsigned i = 0; i < LOOP_CALLS_PER_PASS; i++) {
		struct loop_task *task = next_task(loop);

		if (!task)
			return false;
		task->run(task->payload);
	}
	return true;
}

void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t at_ms)
{
	timer->at_ms = at_ms;
	if (timer->armed)
		return;
	timer->armed = true;
	timer->next = loop->timers;
	loop->timers = timer;
}

void loop_timer_clear(struct loop *loop, struct loop_timer *timer)
{
	struct loop_timer **at = &loop->timers;

	if (!timer->armed)
		return;
	while (*at != timer)
		at = &(*at)->next;
	*at = timer->next;
	timer->armed = false;
}

static struct loop_timer *first_timer(struct loop *loop)
{
	struct loop_timer *first = loop->timers;

	for (struct loop_timer *t = first; t; t = t->next)
		if (t->at_ms < first->at_ms)
			first = t;
	return first;
}

static void run_timers(struct loop *loop)
{
	uint64_t now = now_ms();

	for (unsigned i = 0; i < LOOP_CALLS_PER_PASS; i++) {
		struct loop_timer *timer = first_timer(loop);

		if (!timer || timer->at_ms > now)
			return;
		loop_timer_clear(loop, timer);
		timer->run(timer->payload);
	}
}

void loop_watch_add(struct loop *loop, struct loop_watch *watch)
{
	watch->token = ++loop->last_token;
	watch->armed = false;
	watch->next = loop->watches;
	loop->watches = watch;
}

void loop_watch_set(struct loop_watch *watch, short events)
{
	if (watch->events != events)
		watch->armed = false; /* arm_watches() replaces the poll by its token */
	watch->events = events;
}

void loop_watch_remove(struct loop *loop, struct loop_watch *watch)
{
	struct loop_watch **at = &loop->watches;

	while (*at != watch)
		at = &(*at)->next;
	*at = watch->next;
	ring_poll_cancel(loop->ring, watch->token);
}

/* Polls are one-shot: whatever fired or changed is asked for anew. False when the ring is full. */
static bool arm_watches(struct loop *loop)
{
	bool all = true;

	for (struct loop_watch *w = loop->watches; w; w = w->next) {
		if (!w->armed)
			w->armed = ring_poll(loop->ring, w->fd, w->events, w->token) == 0;
		all = all && w->armed;
	}
	return all;
}

static void run_watch(struct loop *loop, const struct ring_event *event)
{
	struct loop_watch *watch = loop->watches;

	while (watch && watch->token != event->token)
		watch = watch->next;
	if (!watch)
		return; /* removed by an event before it in the same batch */
	watch->armed = false;
	watch->run(watch->payload, watch->fd, event->result < 0 ? POLLERR : (short)event->result);
}

static int wait_ms(struct loop *loop, bool hurry, bool all_armed)
{
	const struct loop_timer *first = first_timer(loop);
	uint64_t now = now_ms(), limit = all_armed ? INT32_MAX : LOOP_REARM_MS;

	if (hurry)
		return 0;
	if (!first)
		return all_armed ? -1 : LOOP_REARM_MS;
	return first->at_ms <= now ? 0 : (int)MIN(first->at_ms - now, limit);
}

static bool stopping(struct loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	bool stop = loop->stopping;

	pthread_mutex_unlock(&loop->lock);
	return stop;
}

static void *loop_main(void *payload)
{
	struct loop *loop = payload;
	struct ring_event events[LOOP_EVENTS];
	bool hurry = false;

	while (!stopping(loop)) {
		bool all_armed = arm_watches(loop);
		int n = ring_wait(loop->ring, wait_ms(loop, hurry, all_armed), events, LOOP_EVENTS);

		/* a ring that refuses to wait must not become a busy loop; timers still end what hangs */
		if (n < 0)
			nanosleep(&(struct timespec){.tv_nsec = LOOP_REARM_MS * 1000000L}, NULL);
		for (int i = 0; i < n; i++)
			if (events[i].op == RING_POLL)
				run_watch(loop, &events[i]);
		hurry = run_tasks(loop);
		run_timers(loop);
	}
	return NULL;
}

int loop_new(enum cpull_io io, struct loop **out, struct cpull_error *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return error_nomem(err);
	pthread_mutex_init(&loop->lock, NULL);
	loop->tail = &loop->tasks;

	int rc = ring_new(io, LOOP_RING_ENTRIES, &loop->ring, err);

	if (rc) {
		loop_free(loop);
		return rc;
	}
	rc = thread_start(&loop->thread, "cpull-fetch", loop_main, loop, err);
	if (rc) {
		loop_free(loop);
		return rc;
	}
	loop->running = true;
	*out = loop;
	return 0;
}

void loop_stop(struct loop *loop)
{
	if (!loop->running)
		return;
	pthread_mutex_lock(&loop->lock);
	loop->stopping = true;
	pthread_mutex_unlock(&loop->lock);
	ring_wake(loop->ring);
	pthread_join(loop->thread, NULL);
	loop->running = false;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	loop_stop(loop);
	ring_free(loop->ring);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}
