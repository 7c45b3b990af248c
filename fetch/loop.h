/* SPDX-License-Identifier: Apache-2.0
 *
 * The fetch thread: one thread that owns a ring and runs tasks posted from anywhere, timers, and watches on
 * descriptors. Whatever is called back is called on that thread, one at a time, never from inside loop_post() or
 * loop_timer_set(), so code that runs here needs no locks among itself.
 */
#ifndef FETCH_LOOP_H
#define FETCH_LOOP_H

#include "engine/base/util.h"

struct loop;

/* A call to be made on the loop's thread. The object belongs to whoever embeds it. */
struct loop_task {
	void (*run)(void *payload);
	void *payload;
	struct loop_task *next;
	bool queued;
};

/* One-shot. */
struct loop_timer {
	void (*run)(void *payload);
	void *payload;
	uint64_t at_ms; /* on now_ms()'s clock */
	struct loop_timer *next;
	bool armed;
};

/* Level-triggered interest in a descriptor; run() gets poll(2) events. */
struct loop_watch {
	void (*run)(void *payload, int fd, short events);
	void *payload;
	int fd;
	short events;
	bool armed;
	uint64_t token;
	struct loop_watch *next;
};

/* Starts the thread, with all signals blocked. */
MUST_CHECK int loop_new(enum cpull_io io, struct loop **out, struct cpull_error *err);
/* Ends the thread. What is still watched or armed is the caller's to take out, before loop_free(). */
void loop_stop(struct loop *loop);
void loop_free(struct loop *loop);

/* From any thread, also under a lock that tasks take. A task that is queued already stays where it is. */
void loop_post(struct loop *loop, struct loop_task *task);

/* The rest on the loop's thread alone. */
void loop_forget(struct loop *loop, struct loop_task *task);
void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t at_ms);
void loop_timer_clear(struct loop *loop, struct loop_timer *timer);
void loop_watch_add(struct loop *loop, struct loop_watch *watch);
void loop_watch_set(struct loop_watch *watch, short events);
/* No call for the watch comes after this. Before fd is closed. */
void loop_watch_remove(struct loop *loop, struct loop_watch *watch);

#endif
