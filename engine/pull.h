/* SPDX-License-Identifier: Apache-2.0
 *
 * One pull: its public handle and what pull.c (life, result), plan.c (which layers) and schedule.c (running them)
 * share.
 */
#ifndef ENGINE_PULL_H
#define ENGINE_PULL_H

#include <pthread.h>
#include <stdatomic.h>

#include "crypto/keys.h"
#include "engine/layer.h"
#include "engine/resolve.h"

enum layer_step {
	STEP_WAITING, /* to be started, or another owner is at work on it */
	STEP_RUNNING,
	STEP_STAGED, /* complete and verified; waits for the layers below to tie its loose ends */
	STEP_READY,  /* in the store and pinned */
};

struct pull_layer {
	const struct descriptor *desc; /* of resolved.manifest */
	const struct digest *blob_digest;
	const struct digest *diff_id;
	const char *diff_id_text;
	char parents[STORE_PARENTS_HEX + 1];
	ssize_t same_as; /* the lowest layer with the same diff_id, when that is another one; else -1 */
	struct layer_key *key; /* with key_print; NULL for a plain layer */
	char key_print[LAYER_KEY_PRINT_BYTES];
	enum layer_step step;
	bool reused;
	struct stage *stage;
	struct layer_job *job;
	struct layer_ref ref;
	/* progress */
	enum cpull_layer_state shown;
	bool shown_once;
	uint64_t shown_ms;
	uint64_t shown_fetched;
	uint64_t shown_unpacked;
};

struct cpull_pull {
	struct cpull_engine *engine;
	struct reference reference;
	struct platform platform;
	char wanted[100];
	struct key_ring *keys;
	struct source *source;
	bool require_encrypted;
	enum cpull_snapshot snapshot; /* as it was asked for */
	bool verity;
	uint64_t started_ms;
	uint64_t deadline_ms; /* 0: none */
	cpull_progress_fn progress;
	void *progress_payload;

	/* the pull thread's own */
	struct resolved resolved;
	enum layer_form form; /* of all layers */
	struct pull_layer *layers; /* lowest first */
	size_t layer_count;
	size_t *order; /* layer numbers, largest first */
	struct cpull_stats stats;
	struct job_place place;

	pthread_t thread;
	bool thread_started;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* on CLOCK_MONOTONIC: a job changed, a cancel, the end */
	bool nudged;
	int stop_code; /* CANCELLED or DEADLINE once asked for; under lock */
	bool ended;
	struct cpull_error err;
	struct cpull_result result;
	struct cpull_layer *result_layers;
	struct cpull_erofs_layer *result_erofs;
	struct layer_image *result_images; /* what result_erofs points into */
};

static inline struct layer_wish pull_layer_wish(const struct cpull_pull *pull, const struct pull_layer *l)
{
	return (struct layer_wish){.diff_id = l->diff_id_text,
				   .parents = l->parents,
				   .form = pull->form,
				   .key_print = l->key ? l->key_print : NULL};
}

/* plan.c: fills pull->form and pull->layers from pull->resolved: duplicates, parents, keys, what is in the store
 * already. */
MUST_CHECK int pull_plan(struct cpull_pull *pull, struct cpull_error *err);
/* schedule.c: runs until every layer is STEP_READY, or everything has stopped after the first error. */
MUST_CHECK int pull_run_layers(struct cpull_pull *pull, struct cpull_error *err);
/* schedule.c: makes the pull's thread look again. Any thread; payload is the pull. */
void pull_nudge(void *payload);
/* schedule.c: drops what the layers hold. */
void pull_release_layers(struct cpull_pull *pull);
/* schedule.c: fills err for such a code. */
int pull_stop_error(const struct cpull_pull *pull, int code, struct cpull_error *err);
/* pull.c: CANCELLED or DEADLINE when the pull is to stop, else 0. */
int pull_stop_code(struct cpull_pull *pull);

#endif
