/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine object: options, the store, and what its pulls share (pool, fetcher, job places), made when first
 * needed. Called from the embedder's threads and the pull threads.
 */
#include "engine/engine.h"

#include <assert.h>
#include <string.h>

#include "config.h"
#include "crypto/keys.h"
#include "engine/base/error.h"

#define DEFAULT_STORE "/var/lib/coco-pull"
#define DEFAULT_MEMORY_BYTES (64ull << 20)
#define MIN_MEMORY_BYTES (16ull << 20)
#define DEFAULT_JOBS 4u
#define CHUNK_BYTES (256u << 10)
#define SMALL_CHUNK_BYTES (64u << 10)

const char *cpull_version(void)
{
	return CPULL_VERSION;
}

/* Of the budget, 3/16 are chunks and 1/2 (2/3 of a small one) are the zstd windows of all layers; code, TLS and
 * metadata have what is left, which at the default is enough for them. Windows that no layer asks for are never
 * touched. */
int memory_plan_make(uint64_t memory_bytes, unsigned jobs, struct memory_plan *out, struct cpull_error *err)
{
	if (!memory_bytes)
		memory_bytes = DEFAULT_MEMORY_BYTES;
	if (!jobs)
		jobs = DEFAULT_JOBS;
	if (memory_bytes < MIN_MEMORY_BYTES)
		return error_set(err, CPULL_ERR_USAGE, "a memory budget of %llu bytes is too small, give at least %llu",
				 (unsigned long long)memory_bytes, MIN_MEMORY_BYTES);
	if (jobs > LIMIT_JOBS)
		return error_set(err, CPULL_ERR_USAGE, "%u jobs are more than the %u that are possible", jobs,
				 LIMIT_JOBS);

	size_t budget = (size_t)(memory_bytes / 16 * 3); /* more gains nothing, see docs/internals.md */
	size_t per_job = 2 * SHARE_RESERVED;

	out->jobs = jobs;
	/* small chunks keep every promise where large ones would not go round */
	out->chunk_bytes = budget / CHUNK_BYTES >= 2 * per_job * jobs ? CHUNK_BYTES : SMALL_CHUNK_BYTES;
	out->chunk_count = budget / out->chunk_bytes;
	if (out->chunk_count < per_job * jobs)
		out->jobs = (unsigned)(out->chunk_count / per_job);
	out->share_max = MAX(out->chunk_count / 2, (size_t)SHARE_RESERVED);
	out->window_bytes = window_bank_share(memory_bytes);
	return 0;
}

/* Copies what the caller's version of the struct has; the rest is zero, which means default. */
static int read_options(const struct cpull_engine_options *given, struct cpull_engine_options *out,
			struct cpull_error *err)
{
	*out = (struct cpull_engine_options){0};
	if (!given)
		return 0;
	if (given->size < offsetof(struct cpull_engine_options, reserved) || given->size > 4096)
		return error_set(err, CPULL_ERR_USAGE, "engine options: size is not set to the size of the struct");
	memcpy(out, given, MIN(given->size, sizeof(*out)));
	if (!all_zero(out->reserved, sizeof(out->reserved)) || !tail_is_zero(given, given->size, sizeof(*out)))
		return error_set(err, CPULL_ERR_USAGE,
				 "engine options: members that this version does not know are not zero");
	if ((unsigned)out->io > CPULL_IO_SYNC)
		return error_set(err, CPULL_ERR_USAGE, "engine options: unknown io mode %d", (int)out->io);
	return 0;
}

int cpull_engine_new(const struct cpull_engine_options *options, struct cpull_engine **out, struct cpull_error *err)
{
	struct cpull_engine_options o;
	struct memory_plan plan;
	int rc = read_options(options, &o, err);

	*out = NULL;
	if (!rc)
		rc = memory_plan_make(o.memory_bytes, o.jobs, &plan, err);
	if (rc)
		return rc;

	struct cpull_engine *engine = calloc(1, sizeof(*engine));

	if (!engine)
		return error_nomem(err);
	log_init(&engine->log, o.log, o.log_payload, o.log_level);
	pthread_mutex_init(&engine->lock, NULL);
	engine->plan = plan;
	engine->io = o.io;
	engine->durable = o.durable;
	rc = store_open(o.store ? o.store : DEFAULT_STORE, &engine->log, &engine->store, err);
	if (rc) {
		cpull_engine_free(engine);
		return rc;
	}
	*out = engine;
	return 0;
}

void cpull_engine_free(struct cpull_engine *engine)
{
	if (!engine)
		return;
	assert(!engine->pulls);
	fetcher_free(engine->fetcher);
	pool_free(engine->pool);
	window_bank_free(engine->windows);
	store_close(engine->store);
	pthread_mutex_destroy(&engine->lock);
	log_destroy(&engine->log);
	free(engine);
}

int engine_get_fetcher(struct cpull_engine *engine, struct fetcher **out, struct cpull_error *err)
{
	int rc = 0;

	pthread_mutex_lock(&engine->lock);
	if (!engine->fetcher)
		rc = fetcher_new(engine->io, &engine->log, &engine->fetcher, err);
	*out = engine->fetcher;
	pthread_mutex_unlock(&engine->lock);
	return rc;
}

int engine_get_memory(struct cpull_engine *engine, struct cpull_error *err)
{
	int rc = 0;

	pthread_mutex_lock(&engine->lock);
	if (!engine->pool)
		rc = pool_new(engine->plan.chunk_bytes, engine->plan.chunk_count, &engine->pool, err);
	if (!rc && !engine->windows)
		rc = window_bank_new(engine->plan.window_bytes, &engine->windows, err);
	pthread_mutex_unlock(&engine->lock);
	return rc;
}

/* ---- places ---- */

/* Under the lock. */
static void wake_first(const struct cpull_engine *engine)
{
	if (engine->waiting && engine->jobs_running < engine->plan.jobs)
		engine->waiting->wake(engine->waiting->payload);
}

/* Under the lock. */
static void unqueue(struct cpull_engine *engine, struct job_place *place)
{
	struct job_place **at = &engine->waiting;

	if (!place->waiting)
		return;
	while (*at != place)
		at = &(*at)->next;
	*at = place->next;
	place->waiting = false;
}

/* Under the lock. */
static void enqueue(struct cpull_engine *engine, struct job_place *place)
{
	struct job_place **at = &engine->waiting;

	if (place->waiting)
		return;
	while (*at)
		at = &(*at)->next;
	place->next = NULL;
	place->waiting = true;
	*at = place;
}

bool engine_job_begin(struct cpull_engine *engine, struct job_place *place)
{
	pthread_mutex_lock(&engine->lock);
	bool mine = engine->jobs_running < engine->plan.jobs && (!engine->waiting || engine->waiting == place);

	if (mine) {
		engine->jobs_running++;
		unqueue(engine, place);
		wake_first(engine);
	} else {
		enqueue(engine, place);
	}
	pthread_mutex_unlock(&engine->lock);
	return mine;
}

void engine_job_end(struct cpull_engine *engine)
{
	pthread_mutex_lock(&engine->lock);
	engine->jobs_running--;
	wake_first(engine);
	pthread_mutex_unlock(&engine->lock);
}

void engine_job_leave(struct cpull_engine *engine, struct job_place *place)
{
	pthread_mutex_lock(&engine->lock);
	unqueue(engine, place);
	wake_first(engine);
	pthread_mutex_unlock(&engine->lock);
}
