/* SPDX-License-Identifier: Apache-2.0
 *
 * A queue of chunks between two stages, one producer and one consumer. It is bounded by the share that its chunks
 * come from, so pushing never waits.
 */
#ifndef BASE_QUEUE_H
#define BASE_QUEUE_H

#include "engine/base/pool.h"

struct queue {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct chunk *head;
	struct chunk **tail;
	bool closed;
	int code; /* why it was closed: 0 for a complete stream */
};

void queue_init(struct queue *queue);
/* Drops whatever is still queued. */
void queue_destroy(struct queue *queue);
/* Drops whatever is queued. */
void queue_drain(struct queue *queue);
/* Takes over the caller's reference; a chunk pushed into a closed queue is dropped. */
void queue_push(struct queue *queue, struct chunk *chunk);
/* Ends the stream: with 0 after the last chunk was pushed (what is queued is still handed out), with a negative code
 * at once (what is queued is dropped). The first negative code counts. From any thread. */
void queue_close(struct queue *queue, int code);
/* Waits. Returns 0 with *out set (the caller owns the reference), 0 with *out NULL at the end, or the code of
 * queue_close(). Adds the time waited to *wait_ns when not NULL. */
MUST_CHECK int queue_pop(struct queue *queue, struct chunk **out, uint64_t *wait_ns);

#endif
