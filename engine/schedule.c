/* SPDX-License-Identifier: Apache-2.0
 *
 * Running the layers of a pull: which starts when, what happens when one ends, and what a failure does to the others.
 * Everything here is on the pull's thread; the layers' own threads only nudge it.
 *
 * A layer is started when a job place of the engine is free and nobody else owns its stage. It is committed when it
 * is complete: at once when it stands alone, else in its turn from below, and until then its stage is set aside, so
 * that only pulls with the same layers below it wait for it. Nothing waits for anything above it, so pulls that wait
 * for each other's layers cannot form a circle.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/pull.h"

#define TICK_MS 100u      /* progress */
#define POLL_MS 10u       /* while another owner is in the way; longer every time, up to a tick */

/* ---- waiting ---- */

void pull_nudge(void *payload)
{
	struct cpull_pull *pull = payload;

	pthread_mutex_lock(&pull->lock);
	pull->nudged = true;
	pthread_cond_broadcast(&pull->changed);
	pthread_mutex_unlock(&pull->lock);
}

static void sleep_until_changed(struct cpull_pull *pull, unsigned ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += (long)ms * 1000000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	pthread_mutex_lock(&pull->lock);
	while (!pull->nudged && pthread_cond_timedwait(&pull->changed, &pull->lock, &t) != ETIMEDOUT)
		;
	pull->nudged = false;
	pthread_mutex_unlock(&pull->lock);
}

/* ---- progress ---- */

static enum cpull_layer_state state_of(const struct pull_layer *l)
{
	switch (l->step) {
	case STEP_WAITING:
		return CPULL_LAYER_WAITING;
	case STEP_RUNNING:
	case STEP_STAGED:
		return CPULL_LAYER_PULLING;
	case STEP_READY:
		break;
	}
	return l->reused ? CPULL_LAYER_REUSED : CPULL_LAYER_VERIFIED;
}

static void report(struct cpull_pull *pull, size_t i, enum cpull_layer_state state)
{
	struct pull_layer *l = &pull->layers[i];
	struct layer_progress now = {l->shown_fetched, l->shown_unpacked};

	if (!pull->progress)
		return;
	if (l->job)
		layer_job_progress(l->job, &now);
	if (l->shown_once && l->shown == state &&
	    ((l->shown_fetched == now.fetched_bytes && l->shown_unpacked == now.unpacked_bytes) ||
	     now_ms() < l->shown_ms + TICK_MS))
		return;
	l->shown_once = true;
	l->shown_ms = now_ms();
	l->shown = state;
	l->shown_fetched = now.fetched_bytes;
	l->shown_unpacked = now.unpacked_bytes;

	struct cpull_progress p = {.layer = (unsigned)i,
				   .layer_count = (unsigned)pull->layer_count,
				   .digest = l->desc->digest,
				   .state = state,
				   .fetched_bytes = now.fetched_bytes,
				   .total_bytes = l->desc->size,
				   .unpacked_bytes = now.unpacked_bytes,
				   .encrypted = l->desc->encrypted};

	pull->progress(&p, pull->progress_payload);
}

static void report_all(struct cpull_pull *pull)
{
	for (size_t i = 0; i < pull->layer_count; i++)
		report(pull, i, state_of(&pull->layers[i]));
}

/* ---- ending ---- */

/* The layer is what the pull fails for. */
static int fail_layer(struct cpull_pull *pull, size_t i, struct cpull_error *err)
{
	if (!pull_stop_code(pull))
		report(pull, i, CPULL_LAYER_FAILED);
	return error_wrap(err, "layer %zu/%zu %s", i + 1, pull->layer_count, pull->layers[i].desc->digest);
}

static void drop_layer(struct cpull_pull *pull, struct pull_layer *l)
{
	layer_job_free(STEAL(l->job)); /* before the stage: the writer holds descriptors in it */
	store_stage_drop(pull->engine->store, STEAL(l->stage));
	layer_ref_drop(&l->ref);
}

void pull_release_layers(struct cpull_pull *pull)
{
	for (size_t i = 0; i < pull->layer_count && pull->layers; i++) {
		drop_layer(pull, &pull->layers[i]);
		layer_key_free(STEAL(pull->layers[i].key));
	}
	free(pull->layers);
	free(pull->order);
	pull->layers = NULL;
	pull->order = NULL;
	pull->layer_count = 0;
}

/* Ends everything that runs and waits for it. */
static void stop_all(struct cpull_pull *pull)
{
	source_cancel(pull->source);
	for (size_t i = 0; i < pull->layer_count; i++)
		if (pull->layers[i].step == STEP_RUNNING)
			layer_job_cancel(pull->layers[i].job, CPULL_ERR_CANCELLED);
	for (size_t i = 0; i < pull->layer_count; i++) {
		struct pull_layer *l = &pull->layers[i];

		if (l->step != STEP_RUNNING)
			continue;
		layer_job_finish(l->job, NULL);
		engine_job_end(pull->engine);
		l->step = STEP_WAITING;
	}
}

/* ---- committing ---- */

/* Ties layer i to those below it, and seals it. */
static int tie(struct cpull_pull *pull, size_t i, struct cpull_error *err)
{
	struct layer_output *output = layer_job_output(pull->layers[i].job);
	CLEANUP_FREE const struct layer_ref **lowers = calloc(i + 1, sizeof(*lowers));
	size_t count = 0;

	if (!lowers)
		return error_nomem(err);
	for (size_t k = i; k-- > 0;)
		lowers[count++] = &pull->layers[k].ref;

	int rc = layer_output_tie(output, lowers, count, err);

	return rc ? rc : layer_output_seal(output, err);
}

static int commit(struct cpull_pull *pull, size_t i, bool loose, struct cpull_error *err)
{
	struct pull_layer *l = &pull->layers[i];
	struct layer_progress done;
	char key[STORE_KEY_BYTES];
	int rc = loose ? tie(pull, i, err) : 0;

	if (rc)
		return rc;
	layer_job_progress(l->job, &done);
	l->shown_fetched = done.fetched_bytes;
	l->shown_unpacked = done.unpacked_bytes;

	struct layer_facts facts = {.diff_id = l->diff_id_text,
				    .blob_digest = l->desc->digest,
				    .key_print = l->key ? l->key_print : NULL,
				    .unpacked_bytes = done.unpacked_bytes,
				    .entries = layer_job_entries(l->job),
				    .image = *layer_output_image(layer_job_output(l->job)),
				    .contents = *layer_output_contents(layer_job_output(l->job))};

	layer_job_free(STEAL(l->job));
	store_layer_key(l->diff_id_text, loose ? l->parents : NULL, pull->form, key);
	rc = store_stage_commit(pull->engine->store, STEAL(l->stage), key, &facts, &l->ref, err);
	if (!rc)
		l->step = STEP_READY;
	return rc;
}

/* A layer that stands there twice: the second mention is the first one's directory. */
static int share(struct cpull_pull *pull, struct pull_layer *l, struct cpull_error *err)
{
	const struct pull_layer *first = &pull->layers[l->same_as];

	if (first->step != STEP_READY)
		return 0;
	l->ref.fd = fcntl(first->ref.fd, F_DUPFD_CLOEXEC, 0);
	if (l->ref.fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "duplicating a descriptor");
	memcpy(l->ref.key, first->ref.key, sizeof(l->ref.key));
	l->ref.image = first->ref.image;
	l->step = STEP_READY;
	l->reused = true;
	return 0;
}

static bool has_loose_ends(const struct pull_layer *l)
{
	return layer_writer_has_loose_ends(layer_output_writer(layer_job_output(l->job)));
}

/* From below: what is complete becomes visible as soon as it can. *left counts what is not ready. */
static int commit_complete(struct cpull_pull *pull, size_t *left, struct cpull_error *err)
{
	*left = 0;
	for (size_t i = 0; i < pull->layer_count; i++) {
		struct pull_layer *l = &pull->layers[i];
		int rc = 0;

		if (l->step == STEP_WAITING && l->same_as >= 0)
			rc = share(pull, l, err);
		if (l->step == STEP_STAGED) {
			bool loose = has_loose_ends(l);
			struct layer_wish wish = pull_layer_wish(pull, l);

			if (!loose || *left == 0)
				rc = commit(pull, i, loose, err);
			else
				rc = store_stage_set_aside(pull->engine->store, l->stage, &wish, err);
		}
		if (rc)
			return fail_layer(pull, i, err);
		if (l->step != STEP_READY)
			(*left)++;
	}
	return 0;
}

/* ---- running ---- */

/* Looks at the jobs that changed. The first error ends the walk. */
static int collect(struct cpull_pull *pull, struct cpull_error *err)
{
	for (size_t i = 0; i < pull->layer_count; i++) {
		struct pull_layer *l = &pull->layers[i];

		if (l->step != STEP_RUNNING)
			continue;

		enum layer_job_state state = layer_job_state(l->job);

		if (state == JOB_RUNNING || state == JOB_JUDGING)
			continue;
		/* its threads may still wait for bytes that no one wants */
		if (state == JOB_FAILED)
			source_cancel(pull->source);

		int rc = layer_job_finish(l->job, err);

		engine_job_end(pull->engine);
		l->step = rc ? STEP_WAITING : STEP_STAGED;
		layer_job_add_stats(l->job, &pull->stats);
		if (rc)
			return fail_layer(pull, i, err);
	}
	return 0;
}

/* With the stage owned: it may have been committed by the owner before. */
static int start_owned(struct cpull_pull *pull, struct pull_layer *l, struct cpull_error *err)
{
	struct cpull_engine *engine = pull->engine;

	struct layer_wish wish = pull_layer_wish(pull, l);
	int rc = store_layer_find(engine->store, &wish, &l->ref, err);

	if (rc) {
		store_stage_drop(engine->store, STEAL(l->stage));
		engine_job_end(engine);
	}
	if (rc < 0)
		return rc;
	if (rc) {
		l->step = STEP_READY;
		l->reused = true;
		return 0;
	}

	struct layer_job_options o = {.engine = engine,
				      .source = pull->source,
				      .descriptor = l->desc,
				      .blob_digest = l->blob_digest,
				      .diff_id = l->diff_id,
				      .diff_id_text = l->diff_id_text,
				      .key = l->key,
				      .stage = l->stage,
				      .changed = pull_nudge,
				      .changed_payload = pull};

	rc = layer_job_start(&o, &l->job, err);
	if (rc)
		engine_job_end(engine);
	else
		l->step = STEP_RUNNING;
	return rc;
}

/* Starts what can be started. *blocked tells that something could not be because it has another owner; for a place
 * the pull is in the engine's queue and will be nudged. */
static int start_waiting(struct cpull_pull *pull, bool *blocked, struct cpull_error *err)
{
	*blocked = false;
	for (size_t n = 0; n < pull->layer_count; n++) {
		size_t i = pull->order[n];
		struct pull_layer *l = &pull->layers[i];

		if (l->step != STEP_WAITING || l->same_as >= 0)
			continue;
		if (!engine_job_begin(pull->engine, &pull->place))
			return 0;

		struct layer_wish wish = pull_layer_wish(pull, l);
		int rc = store_stage(pull->engine->store, &wish, &l->stage, err);

		if (rc <= 0)
			engine_job_end(pull->engine);
		if (rc == 0)
			*blocked = true;
		else if (rc > 0)
			rc = start_owned(pull, l, err);
		if (rc < 0)
			return fail_layer(pull, i, err);
	}
	engine_job_leave(pull->engine, &pull->place);
	return 0;
}

static bool judging(struct cpull_pull *pull)
{
	for (size_t i = 0; i < pull->layer_count; i++)
		if (pull->layers[i].step == STEP_RUNNING && layer_job_state(pull->layers[i].job) == JOB_JUDGING)
			return true;
	return false;
}

int pull_stop_error(const struct cpull_pull *pull, int code, struct cpull_error *err)
{
	if (code == CPULL_ERR_DEADLINE)
		return error_set(err, code, "not done within %llu ms; give it more time with a longer timeout",
				 (unsigned long long)(pull->deadline_ms - pull->started_ms));
	return error_set(err, code, "cancelled");
}

/* One round. *left counts the layers that are not ready yet. */
static int step(struct cpull_pull *pull, size_t *left, bool *blocked, struct cpull_error *err)
{
	int rc = pull_stop_code(pull);

	if (rc)
		return pull_stop_error(pull, rc, err);
	rc = collect(pull, err);
	if (!rc)
		rc = commit_complete(pull, left, err);
	*blocked = false;
	if (!rc && *left && !judging(pull))
		return start_waiting(pull, blocked, err);
	/* nobody is to wait behind a pull that wants nothing */
	engine_job_leave(pull->engine, &pull->place);
	return rc;
}

int pull_run_layers(struct cpull_pull *pull, struct cpull_error *err)
{
	unsigned pause_ms = POLL_MS;
	size_t left = 0;
	bool blocked;
	int rc;

	report_all(pull);
	while (!(rc = step(pull, &left, &blocked, err)) && left) {
		report_all(pull);
		sleep_until_changed(pull, blocked ? pause_ms : TICK_MS);
		pause_ms = blocked ? MIN(2 * pause_ms, TICK_MS) : POLL_MS;
	}
	engine_job_leave(pull->engine, &pull->place);
	if (rc)
		stop_all(pull);
	else
		report_all(pull);
	return rc;
}
