/* SPDX-License-Identifier: Apache-2.0
 *
 * The fixed chunk pool and its shares. Any thread takes and gives back; one lock, held for a few instructions. The
 * memory is one anonymous mapping that is touched only as chunks are first used, most recently used first, so a
 * small pull keeps a small resident set and a warm cache.
 */
#include "engine/base/pool.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#include "engine/base/error.h"

struct pool {
	pthread_mutex_t lock;
	size_t chunk_bytes;
	size_t count;
	size_t promised; /* sum of the reserved of all open shares */
	size_t surplus;  /* free chunks beyond those that back a share's grant; none while a promise is not granted */
	uint8_t *memory;
	struct chunk *chunks;
	struct chunk *free; /* most recently used first */
	struct pool_share *shares;
};

struct pool_share {
	struct pool *pool;
	struct pool_share *next;
	pthread_cond_t cond;
	size_t reserved;
	size_t granted; /* of the reserved: chunks that are there for this share alone, free or held */
	size_t max;
	size_t held;
	bool hungry; /* somebody found nothing and wants to be woken */
	bool cancelled;
	bool closed;
	void (*wake)(void *payload);
	void *wake_payload;
};

int pool_new(size_t chunk_bytes, size_t count, struct pool **out, struct cpull_error *err)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return error_nomem(err);
	pool->chunks = calloc(count, sizeof(*pool->chunks));
	pool->memory = pool->chunks ? mmap(NULL, chunk_bytes * count, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
				    : MAP_FAILED;
	if (pool->memory == MAP_FAILED) {
		free(pool->chunks);
		free(pool);
		return error_nomem(err);
	}
	pthread_mutex_init(&pool->lock, NULL);
	pool->chunk_bytes = chunk_bytes;
	pool->count = count;
	pool->surplus = count;
	for (size_t i = count; i-- > 0;) {
		pool->chunks[i].data = pool->memory + i * chunk_bytes;
		pool->chunks[i].next = pool->free;
		pool->free = &pool->chunks[i];
	}
	*out = pool;
	return 0;
}

void pool_free(struct pool *pool)
{
	if (!pool)
		return;
	assert(!pool->shares);
	munmap(pool->memory, pool->chunk_bytes * pool->count);
	free(pool->chunks);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

size_t pool_chunk_bytes(const struct pool *pool)
{
	return pool->chunk_bytes;
}

size_t pool_share_chunk_bytes(const struct pool_share *share)
{
	return share->pool->chunk_bytes;
}

size_t pool_share_max(const struct pool_share *share)
{
	return share->max;
}

/* Under the lock: lets a waiter of the share look again. */
static void feed(struct pool_share *share)
{
	if (!share->hungry)
		return;
	share->hungry = false;
	pthread_cond_broadcast(&share->cond);
	if (share->wake)
		share->wake(share->wake_payload);
}

/* Under the lock, after surplus came back: promises that could not be granted yet come first, for they are what a
 * young share needs to move at all; the rest is for whoever wants more than its promise. A share that waits for its
 * grant holds no more than it was granted, since what is beyond comes from the surplus and there was none. */
static void hand_out(struct pool *pool)
{
	for (struct pool_share *s = pool->shares; s && pool->surplus; s = s->next) {
		size_t given = MIN(s->reserved - s->granted, pool->surplus);

		pool->surplus -= given;
		s->granted += given;
		if (given)
			feed(s);
	}
	for (struct pool_share *s = pool->shares; s && pool->surplus; s = s->next)
		if (s->held < s->max)
			feed(s);
}

int pool_share_open(struct pool *pool, size_t reserved, size_t max, struct pool_share **out)
{
	struct pool_share *share = calloc(1, sizeof(*share));

	if (!share)
		return CPULL_ERR_NOMEM;
	pthread_mutex_lock(&pool->lock);
	if (reserved > pool->count - pool->promised) {
		pthread_mutex_unlock(&pool->lock);
		free(share);
		return CPULL_ERR_LIMIT;
	}
	pool->promised += reserved;
	share->pool = pool;
	share->reserved = reserved;
	share->granted = MIN(reserved, pool->surplus);
	pool->surplus -= share->granted;
	share->max = MAX(max, reserved);
	pthread_cond_init(&share->cond, NULL);

	/* at the end: the eldest is granted its promise first */
	struct pool_share **at = &pool->shares;

	while (*at)
		at = &(*at)->next;
	*at = share;
	pthread_mutex_unlock(&pool->lock);
	*out = share;
	return 0;
}

/* Under the lock. */
static struct chunk *take(struct pool_share *share)
{
	struct pool *pool = share->pool;

	if (share->held >= share->max)
		return NULL;
	if (share->held >= share->granted) {
		if (!pool->surplus)
			return NULL;
		pool->surplus--;
	}

	struct chunk *chunk = pool->free;

	assert(chunk);
	pool->free = chunk->next;
	share->held++;
	chunk->next = NULL;
	chunk->len = 0;
	chunk->kind = 0;
	chunk->share = share;
	atomic_store_explicit(&chunk->refs, 1, memory_order_relaxed);
	return chunk;
}

struct chunk *pool_get(struct pool_share *share, uint64_t *wait_ns)
{
	struct pool *pool = share->pool;
	struct chunk *chunk = NULL;
	uint64_t since = 0;

	pthread_mutex_lock(&pool->lock);
	while (!share->cancelled && !(chunk = take(share))) {
		if (!since)
			since = now_ns();
		share->hungry = true;
		pthread_cond_wait(&share->cond, &pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	if (since && wait_ns)
		*wait_ns += now_ns() - since;
	return chunk;
}

struct chunk *pool_try_get(struct pool_share *share)
{
	struct pool *pool = share->pool;

	pthread_mutex_lock(&pool->lock);
	struct chunk *chunk = share->cancelled ? NULL : take(share);

	if (!chunk)
		share->hungry = true;
	pthread_mutex_unlock(&pool->lock);
	return chunk;
}

void pool_share_set_wake(struct pool_share *share, void (*wake)(void *payload), void *payload)
{
	pthread_mutex_lock(&share->pool->lock);
	share->wake = wake;
	share->wake_payload = payload;
	pthread_mutex_unlock(&share->pool->lock);
}

void pool_share_cancel(struct pool_share *share)
{
	pthread_mutex_lock(&share->pool->lock);
	share->cancelled = true;
	share->hungry = true;
	feed(share);
	pthread_mutex_unlock(&share->pool->lock);
}

/* Under the lock. The promise is kept until the last chunk is back, then it becomes surplus again. */
static void remove_share(struct pool_share *share)
{
	struct pool *pool = share->pool;
	struct pool_share **at = &pool->shares;

	while (*at != share)
		at = &(*at)->next;
	*at = share->next;
	pool->promised -= share->reserved;
	pool->surplus += share->granted;
	pthread_cond_destroy(&share->cond);
	free(share);
}

void pool_share_close(struct pool_share *share)
{
	if (!share)
		return;

	struct pool *pool = share->pool;

	pthread_mutex_lock(&pool->lock);
	share->closed = true;
	share->wake = NULL;
	if (share->held == 0) {
		remove_share(share);
		hand_out(pool);
	}
	pthread_mutex_unlock(&pool->lock);
}

void chunk_ref(struct chunk *chunk)
{
	atomic_fetch_add_explicit(&chunk->refs, 1, memory_order_relaxed);
}

void chunk_put(struct chunk *chunk)
{
	if (!chunk || atomic_fetch_sub_explicit(&chunk->refs, 1, memory_order_acq_rel) != 1)
		return;

	struct pool_share *share = chunk->share;
	struct pool *pool = share->pool;

	pthread_mutex_lock(&pool->lock);
	chunk->share = NULL;
	chunk->next = pool->free;
	pool->free = chunk;
	bool was_surplus = share->held > share->granted;

	share->held--;
	if (was_surplus)
		pool->surplus++;
	if (share->closed && share->held == 0) {
		remove_share(share);
		hand_out(pool);
	} else if (was_surplus) {
		hand_out(pool);
	} else {
		feed(share);
	}
	pthread_mutex_unlock(&pool->lock);
}
