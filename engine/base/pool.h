/* SPDX-License-Identifier: Apache-2.0
 *
 * The fixed chunk pool: all bytes that are in flight between stages live in its chunks, so the memory of a
 * pull does not depend on the image.
 *
 * Why it cannot lock up: each stage boundary (fetch→open, open→write) of each layer in progress owns a share. A
 * share is promised `reserved` chunks; the sum of all promises never passes the pool's size. What is left over is
 * the surplus, given to whoever asks first up to the share's `max`. A promise is granted when the share opens, as
 * far as there is surplus, and the rest as the surplus of others comes back, before anybody gets surplus again; what
 * was granted is there for that share alone, at once, until it is closed. The stage that empties a share needs no
 * chunk of the same share to do so, hence every share whose promise is granted drains, its surplus makes the grants
 * of the younger ones, and whoever waits on one is woken.
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/base/util.h"

struct pool;
struct pool_share;

/* One block. `data` has pool_chunk_bytes() of room and is page-aligned. */
struct chunk {
	uint8_t *data;
	uint32_t len;  /* bytes filled, set by the producer */
	uint32_t kind; /* the producer's note to the consumer, 0 at first */
	atomic_int refs;
	struct pool_share *share;
	struct chunk *next; /* for the queue or free list that holds it */
};

/* Maps memory for count chunks of chunk_bytes each (touched only when first used). */
MUST_CHECK int pool_new(size_t chunk_bytes, size_t count, struct pool **out, struct cpull_error *err);
/* All shares must have been closed. */
void pool_free(struct pool *pool);
size_t pool_chunk_bytes(const struct pool *pool);
/* The same of the pool that a share belongs to. */
size_t pool_share_chunk_bytes(const struct pool_share *share);
/* How many chunks the share may hold at most. */
size_t pool_share_max(const struct pool_share *share);

/* Opens a share with a promise of `reserved` chunks. CPULL_ERR_LIMIT when the promise cannot be kept. */
MUST_CHECK int pool_share_open(struct pool *pool, size_t reserved, size_t max, struct pool_share **out);
/* Blocks until a chunk is there (refs 1, len 0), or returns NULL once the share is cancelled. Adds the time
 * spent waiting to *wait_ns when that is not NULL. */
struct chunk *pool_get(struct pool_share *share, uint64_t *wait_ns);
/* The same without waiting: NULL when there is none now; then `wake` (set below) is called, on the thread that
 * gives a chunk back, when it is worth asking again. */
struct chunk *pool_try_get(struct pool_share *share);
void pool_share_set_wake(struct pool_share *share, void (*wake)(void *payload), void *payload);
/* Wakes a waiter for good: pool_get() returns NULL from now on. */
void pool_share_cancel(struct pool_share *share);
/* The share goes when its last chunk has come back; the caller does not touch it again. */
void pool_share_close(struct pool_share *share);

void chunk_ref(struct chunk *chunk);
/* Drops a reference; the last one gives the chunk back. NULL is fine. */
void chunk_put(struct chunk *chunk);

#endif
