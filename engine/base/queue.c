/* SPDX-License-Identifier: Apache-2.0
 *
 * A queue of chunks between two stages. One lock; the consumer sleeps on a condition.
 */
#include "engine/base/queue.h"

void queue_init(struct queue *queue)
{
	*queue = (struct queue){0};
	queue->tail = &queue->head;
	pthread_mutex_init(&queue->lock, NULL);
	pthread_cond_init(&queue->cond, NULL);
}

static void drop_all(struct chunk *chunk)
{
	while (chunk) {
		struct chunk *next = chunk->next;

		chunk_put(chunk);
		chunk = next;
	}
}

void queue_drain(struct queue *queue)
{
	pthread_mutex_lock(&queue->lock);
	struct chunk *dropped = queue->head;

	queue->head = NULL;
	queue->tail = &queue->head;
	pthread_mutex_unlock(&queue->lock);
	drop_all(dropped);
}

void queue_destroy(struct queue *queue)
{
	drop_all(queue->head);
	pthread_mutex_destroy(&queue->lock);
	pthread_cond_destroy(&queue->cond);
}

void queue_push(struct queue *queue, struct chunk *chunk)
{
	chunk->next = NULL;
	pthread_mutex_lock(&queue->lock);
	bool closed = queue->closed;

	if (!closed) {
		*queue->tail = chunk;
		queue->tail = &chunk->next;
		pthread_cond_signal(&queue->cond);
	}
	pthread_mutex_unlock(&queue->lock);
	if (closed)
		chunk_put(chunk);
}

void queue_close(struct queue *queue, int code)
{
	struct chunk *dropped = NULL;

	pthread_mutex_lock(&queue->lock);
	if (!queue->closed || (code && !queue->code)) {
		queue->closed = true;
		queue->code = code;
		if (code) {
			dropped = queue->head;
			queue->head = NULL;
			queue->tail = &queue->head;
		}
		pthread_cond_broadcast(&queue->cond);
	}
	pthread_mutex_unlock(&queue->lock);
	drop_all(dropped);
}

int queue_pop(struct queue *queue, struct chunk **out, uint64_t *wait_ns)
{
	uint64_t since = 0;

	pthread_mutex_lock(&queue->lock);
	while (!queue->head && !queue->closed) {
		if (!since)
			since = now_ns();
		pthread_cond_wait(&queue->cond, &queue->lock);
	}
	struct chunk *chunk = queue->head;
	int code = queue->code;

	if (chunk) {
		queue->head = chunk->next;
		if (!queue->head)
			queue->tail = &queue->head;
		chunk->next = NULL;
		code = 0;
	}
	pthread_mutex_unlock(&queue->lock);
	if (since && wait_ns)
		*wait_ns += now_ns() - since;
	*out = chunk;
	return code;
}
