/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine object and the seams between the files of engine/.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "engine/base/pool.h"
#include "engine/store.h"
#include "engine/window_bank.h"
#include "fetch/source.h"

/* How the memory budget is split; see docs/internals.md. */
struct memory_plan {
	size_t chunk_bytes;
	size_t chunk_count;
	size_t share_max;     /* chunks one stage boundary may hold */
	size_t window_bytes;  /* all zstd windows together */
	unsigned jobs;        /* layers in progress at once */
};

#define SHARE_RESERVED 2u /* chunks promised to each stage boundary: one being filled, one being emptied */

struct job_place;

struct cpull_engine {
	struct log log;
	struct store *store;
	struct memory_plan plan;
	enum cpull_io io;
	bool durable;

	pthread_mutex_t lock; /* guards what follows */
	struct pool *pool;       /* made by the first layer, like the next */
	struct window_bank *windows;
	struct fetcher *fetcher; /* made by the first pull */
	unsigned jobs_running;
	struct job_place *waiting; /* pulls that want a place, in the order they asked */
	unsigned pulls;
};

/* Pure; memory and jobs as the caller gave them (0: default). CPULL_ERR_USAGE below the minimum. */
MUST_CHECK int memory_plan_make(uint64_t memory_bytes, unsigned jobs, struct memory_plan *out,
				struct cpull_error *err);
MUST_CHECK int engine_get_fetcher(struct cpull_engine *engine, struct fetcher **out, struct cpull_error *err);
/* Makes pool and windows when they are not there yet. */
MUST_CHECK int engine_get_memory(struct cpull_engine *engine, struct cpull_error *err);

/* A pull's turn for the places of layers in progress. Places go to pulls in turn, one layer each, so that an image
 * of hundreds of layers does not keep a small one waiting. */
struct job_place {
	struct job_place *next;
	bool waiting;
	/* Called on any thread, under the engine's lock, when it is worth asking again. */
	void (*wake)(void *payload);
	void *payload;
};

/* A place for one layer; false when all are taken, or it is another pull's turn: then the pull waits in the queue,
 * and has to ask again when it is woken, or leave. */
bool engine_job_begin(struct cpull_engine *engine, struct job_place *place);
void engine_job_end(struct cpull_engine *engine);
/* The pull does not want a place any more. */
void engine_job_leave(struct cpull_engine *engine, struct job_place *place);

#endif
