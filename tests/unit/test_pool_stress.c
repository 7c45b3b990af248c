/* SPDX-License-Identifier: Apache-2.0
 *
 * The chunk pool and its queues as a pull uses them, in some hundred random shapes: layers of a few or many chunks,
 * plain ones (which hand chunks on) and packed ones (which fill chunks of their own), slow readers, layers that are
 * cancelled in the middle, more layers than places. The outcome that matters is that every shape ends, that no byte
 * is lost on the way, and that all chunks are back. An alarm ends the program when a shape does not end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/queue.h"

#define CHUNK_BYTES 64u
#define RESERVED 2u
#define SHAPES 250u
#define ALARM_SECONDS 100u

/* xorshift: each thread has its own, so that a seed names a shape whatever the threads do. */
static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

static void dawdle(uint32_t *seed, uint32_t one_in)
{
	if (one_in && next_random(seed) % one_in == 0)
		nanosleep(&(struct timespec){.tv_nsec = (long)(next_random(seed) % 50000)}, NULL);
}

/* One layer: three threads, as fetch, open and write are. */
struct layer {
	struct pool *pool;
	struct pool_share *in, *out;
	struct queue fetched, opened;
	size_t share_max;
	uint32_t seed;
	uint32_t fetch_pause, open_pause, write_pause; /* one in so many chunks */
	uint32_t chunks;   /* length of the blob */
	uint32_t growth;   /* chunks that one chunk unpacks to; 0: plain, handed on */
	uint32_t cancel_at; /* the reader gives up after so many; 0: never */
	uint32_t got;
	bool ok;
};

static void *fetch_main(void *payload)
{
	struct layer *l = payload;
	uint32_t seed = l->seed + 1;

	for (uint32_t i = 0; i < l->chunks; i++) {
		struct chunk *chunk = pool_get(l->in, NULL);

		if (!chunk)
			return NULL;
		chunk->len = 1;
		dawdle(&seed, l->fetch_pause);
		queue_push(&l->fetched, chunk);
	}
	queue_close(&l->fetched, 0);
	return NULL;
}

static bool unpack(struct layer *l)
{
	for (uint32_t i = 0; i < l->growth; i++) {
		struct chunk *chunk = pool_get(l->out, NULL);

		if (!chunk)
			return false;
		chunk->len = 1;
		queue_push(&l->opened, chunk);
	}
	return true;
}

static void *open_main(void *payload)
{
	struct layer *l = payload;
	uint32_t seed = l->seed + 2;
	struct chunk *chunk;

	while (!queue_pop(&l->fetched, &chunk, NULL) && chunk) {
		bool go_on = true;

		dawdle(&seed, l->open_pause);
		if (l->growth) {
			go_on = unpack(l);
			chunk_put(chunk);
		} else {
			queue_push(&l->opened, chunk);
		}
		if (!go_on)
			return NULL;
	}
	queue_close(&l->opened, 0);
	return NULL;
}

/* As a layer's job does when its writer fails. */
static void give_up(struct layer *l)
{
	queue_close(&l->opened, -1);
	queue_close(&l->fetched, -1);
	pool_share_cancel(l->out);
	pool_share_cancel(l->in);
}

static void write_all(struct layer *l)
{
	uint32_t seed = l->seed + 3;
	struct chunk *chunk, *kept = NULL;

	while (!queue_pop(&l->opened, &chunk, NULL) && chunk) {
		dawdle(&seed, l->write_pause);
		/* a bulk write keeps a chunk a while after the next one came */
		chunk_ref(chunk);
		chunk_put(kept);
		kept = chunk;
		chunk_put(chunk);
		if (++l->got == l->cancel_at) {
			give_up(l);
			break;
		}
		if (next_random(&seed) % 4 == 0) {
			chunk_put(kept);
			kept = NULL;
		}
	}
	chunk_put(kept);
}

static void run_layer(struct layer *l)
{
	pthread_t fetch, open;

	if (pool_share_open(l->pool, RESERVED, l->share_max, &l->in))
		return;
	if (pool_share_open(l->pool, RESERVED, l->share_max, &l->out)) {
		pool_share_close(l->in);
		return;
	}
	queue_init(&l->fetched);
	queue_init(&l->opened);
	if (!pthread_create(&fetch, NULL, fetch_main, l) && !pthread_create(&open, NULL, open_main, l)) {
		write_all(l);
		pthread_join(fetch, NULL);
		pthread_join(open, NULL);
		l->ok = l->cancel_at || l->got == l->chunks * (l->growth ? l->growth : 1);
	}
	queue_destroy(&l->fetched);
	queue_destroy(&l->opened);
	pool_share_close(l->in);
	pool_share_close(l->out);
}

/* Layers one after the other on each of `jobs` places. */
struct place {
	pthread_t thread;
	struct layer *layers;
	size_t count;
};

static void *place_main(void *payload)
{
	struct place *place = payload;

	for (size_t i = 0; i < place->count; i++)
		run_layer(&place->layers[i]);
	return NULL;
}

#define MAX_JOBS 6u
#define MAX_LAYERS 4u

static void fill_layer(struct layer *l, struct pool *pool, size_t share_max, uint32_t *seed)
{
	static const uint32_t pauses[] = {0, 0, 64, 8, 1};

	*l = (struct layer){.pool = pool,
			    .share_max = share_max,
			    .seed = next_random(seed) | 1,
			    .fetch_pause = pauses[next_random(seed) % 5],
			    .open_pause = pauses[next_random(seed) % 5],
			    .write_pause = pauses[next_random(seed) % 5],
			    .chunks = next_random(seed) % 120,
			    .growth = next_random(seed) % 4};
	if (next_random(seed) % 5 == 0)
		l->cancel_at = 1 + next_random(seed) % 60;
}

static void run_shape(uint32_t seed)
{
	unsigned jobs = 1 + next_random(&seed) % MAX_JOBS;
	/* down to the least that keeps every promise */
	size_t count = jobs * 2 * RESERVED + next_random(&seed) % 24;
	size_t share_max = next_random(&seed) % 2 ? count : count / 2;
	struct layer layers[MAX_JOBS][MAX_LAYERS];
	struct place places[MAX_JOBS];
	struct pool *pool;

	assert_int_equal(pool_new(CHUNK_BYTES, count, &pool, NULL), 0);
	for (unsigned j = 0; j < jobs; j++) {
		places[j] = (struct place){.layers = layers[j], .count = 1 + next_random(&seed) % MAX_LAYERS};
		for (size_t i = 0; i < places[j].count; i++)
			fill_layer(&layers[j][i], pool, share_max, &seed);
	}
	for (unsigned j = 0; j < jobs; j++)
		assert_int_equal(pthread_create(&places[j].thread, NULL, place_main, &places[j]), 0);
	for (unsigned j = 0; j < jobs; j++)
		pthread_join(places[j].thread, NULL);
	for (unsigned j = 0; j < jobs; j++)
		for (size_t i = 0; i < places[j].count; i++)
			assert_true(layers[j][i].ok);

	/* all is back: one share may have every chunk again */
	struct pool_share *all;

	assert_int_equal(pool_share_open(pool, count, count, &all), 0);
	struct chunk *chunks[MAX_JOBS * 2 * RESERVED + 24];

	for (size_t i = 0; i < count; i++)
		assert_non_null(chunks[i] = pool_try_get(all));
	assert_null(pool_try_get(all));
	for (size_t i = 0; i < count; i++)
		chunk_put(chunks[i]);
	pool_share_close(all);
	pool_free(pool);
}

static void every_shape_ends(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= SHAPES; seed++)
		run_shape(seed * 2654435761u);
}

/* Two layers hold all there is when a third and a fourth begin: those must not take what the first two were
 * promised. */
static void late_layers_do_not_starve_early_ones(void **state)
{
	struct pool_share *in[4], *out[4];
	struct chunk *held[64];
	struct pool *pool;
	size_t count = 20, n = 0;

	(void)state;
	assert_int_equal(pool_new(CHUNK_BYTES, count, &pool, NULL), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pool_share_open(pool, RESERVED, count / 2, &in[i]), 0);
		assert_int_equal(pool_share_open(pool, RESERVED, count / 2, &out[i]), 0);
	}
	for (int i = 0; i < 2; i++)
		while ((held[n] = pool_try_get(in[i])))
			n++;
	for (int i = 2; i < 4; i++) {
		assert_int_equal(pool_share_open(pool, RESERVED, count / 2, &in[i]), 0);
		assert_int_equal(pool_share_open(pool, RESERVED, count / 2, &out[i]), 0);
		while ((held[n] = pool_try_get(in[i])))
			n++;
	}
	/* what the early ones need to move on */
	for (int i = 0; i < 2; i++)
		for (unsigned k = 0; k < RESERVED; k++)
			assert_non_null(held[n++] = pool_try_get(out[i]));
	while (n)
		chunk_put(held[--n]);
	for (int i = 0; i < 4; i++) {
		pool_share_close(in[i]);
		pool_share_close(out[i]);
	}
	pool_free(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(late_layers_do_not_starve_early_ones),
		cmocka_unit_test(every_shape_ends),
	};

	alarm(ALARM_SECONDS);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
