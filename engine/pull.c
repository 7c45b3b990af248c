/* SPDX-License-Identifier: Apache-2.0
 *
 * A pull's life: start, wait, cancel, result, free. The embedder's threads call the API; one thread a pull resolves
 * the image, runs its layers (schedule.c) and writes its record.
 */
#include "engine/pull.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "engine/base/error.h"
#include "engine/base/thread.h"

/* ---- result ---- */

/* VmHWM, not ru_maxrss: the latter starts with what the process was before exec(). */
static uint64_t peak_rss_bytes(void)
{
	CLEANUP_FILE FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	unsigned long long kib = 0;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmHWM: %llu kB", &kib) == 1)
			return kib << 10;

	struct rusage usage;

	return getrusage(RUSAGE_SELF, &usage) ? 0 : (uint64_t)usage.ru_maxrss << 10;
}

/* Copies: the layers go before the result. */
static int make_erofs_result(struct cpull_pull *pull, struct cpull_error *err)
{
	struct cpull_result *r = &pull->result;

	r->snapshot = layer_form_snapshot(pull->form);
	if (!layer_form_is_erofs(pull->form))
		return 0;
	pull->result_erofs = calloc(pull->layer_count, sizeof(*pull->result_erofs));
	pull->result_images = calloc(pull->layer_count, sizeof(*pull->result_images));
	if (!pull->result_erofs || !pull->result_images)
		return error_nomem(err);
	for (size_t i = 0; i < pull->layer_count; i++) {
		pull->result_images[i] = pull->layers[i].ref.image;
		pull->result_erofs[i] = layer_image_view(&pull->result_images[i]);
	}
	r->erofs_layers = pull->result_erofs;
	return 0;
}

static int make_result(struct cpull_pull *pull, struct cpull_error *err)
{
	struct cpull_result *r = &pull->result;

	pull->result_layers = calloc(pull->layer_count, sizeof(*pull->result_layers));
	if (!pull->result_layers)
		return error_nomem(err);
	r->layers = pull->result_layers;
	r->layer_count = pull->layer_count;
	for (size_t i = 0; i < pull->layer_count; i++) {
		const struct pull_layer *l = &pull->layers[i];

		pull->result_layers[i] =
			(struct cpull_layer){.digest = l->desc->digest,
					     .diff_id = l->diff_id_text,
					     .media_type = l->desc->media_type,
					     .size = l->desc->size,
					     .encrypted = l->desc->encrypted,
					     .reused = l->reused,
					     .path = store_layer_path(pull->engine->store, l->ref.key)};
		if (!pull->result_layers[i].path)
			return error_nomem(err);
	}
	r->reference = pull->reference.name;
	r->manifest_digest = pull->resolved.manifest_digest;
	r->config_digest = pull->resolved.manifest.config.digest;
	r->platform = pull->resolved.platform;
	r->stats = pull->stats;
	if (!r->stats.io)
		r->stats.io = "sync";
	r->stats.wall_ms = now_ms() - pull->started_ms;
	r->stats.peak_rss_bytes = peak_rss_bytes();
	return make_erofs_result(pull, err);
}

/* ---- the pull thread ---- */

/* What is recorded durable already is left as it is: a pull that finds all of it need not wait for a disk, and one that
 * asks for less must not make it less. */
static int write_record(struct cpull_pull *pull, const struct record *record, const struct layer_ref *refs,
			struct cpull_error *err)
{
	struct store *store = pull->engine->store;
	int rc = record_is_durable(store, record, err);

	if (rc)
		return MIN(rc, 0);
	if (record->durable)
		rc = store_make_durable(store, refs, record->layer_count, err);
	return rc ? rc : record_save(store, record, err);
}

static int save_record(struct cpull_pull *pull, struct cpull_error *err)
{
	struct record_layer *layers = calloc(pull->layer_count, sizeof(*layers));
	struct layer_ref *refs = calloc(pull->layer_count, sizeof(*refs));
	struct record record = {.reference = pull->reference.name,
				.manifest_digest = pull->resolved.manifest_digest,
				.config_digest = pull->resolved.manifest.config.digest,
				.platform = pull->resolved.platform,
				.wanted = pull->wanted,
				.manifest = pull->resolved.manifest_text.data,
				.config = pull->resolved.config_text.data,
				.pulled_at = time(NULL),
				.durable = pull->engine->durable,
				.snapshot = layer_form_snapshot(pull->form),
				.layers = layers,
				.layer_count = pull->layer_count};
	int rc = layers && refs ? 0 : error_nomem(err);

	for (size_t i = 0; !rc && i < pull->layer_count; i++) {
		const struct pull_layer *l = &pull->layers[i];

		refs[i] = l->ref;
		layers[i] = (struct record_layer){.digest = l->desc->digest,
						  .diff_id = l->diff_id_text,
						  .media_type = l->desc->media_type,
						  .key = l->ref.key,
						  .size = l->desc->size,
						  .encrypted = l->desc->encrypted,
						  .image = l->ref.image};
	}
	if (!rc)
		rc = write_record(pull, &record, refs, err);
	free(layers);
	free(refs);
	return rc;
}

/* A reference by digest that is in the store needs nobody. 1, 0 or an error. */
static int known_by_digest(const struct cpull_pull *pull, const struct record *known, struct cpull_error *err)
{
	if (pull->reference.transport != REFERENCE_REGISTRY || !pull->reference.digest)
		return 0;
	return record_layers_ready(pull->engine->store, known, NULL, err);
}

static int resolve(struct cpull_pull *pull, struct cpull_error *err)
{
	struct record known;
	int have = record_load(pull->engine->store, pull->reference.name, &known, err);

	if (have < 0)
		return have;
	/* a record made for another platform says nothing about this one */
	if (have && strcmp(known.wanted, pull->wanted) != 0) {
		record_free(&known);
		have = 0;
	}

	int rc = have ? known_by_digest(pull, &known, err) : 0;

	if (rc > 0)
		rc = resolve_record(&known, &pull->resolved, err);
	else if (rc == 0)
		rc = resolve_image(pull->source, &pull->reference, &pull->platform, have ? &known : NULL,
				   &pull->engine->log, &pull->resolved, err);
	if (have)
		record_free(&known);
	return rc;
}

static int run(struct cpull_pull *pull, struct cpull_error *err)
{
	int rc = resolve(pull, err);

	if (!rc)
		rc = pull_plan(pull, err);
	if (!rc)
		rc = pull_run_layers(pull, err);
	if (!rc)
		rc = save_record(pull, err);
	return rc ? rc : make_result(pull, err);
}

/* What is wrong with the image, or with the keys for it: no cancel and no deadline brings that about, nor may they
 * hide it when they come while the pull is being wound up. */
static bool is_verdict(int code)
{
	switch (cpull_code_class(code)) {
	case CPULL_CLASS_DIGEST:
	case CPULL_CLASS_KEY:
	case CPULL_CLASS_POLICY:
	case CPULL_CLASS_IMAGE:
		return true;
	default:
		return false;
	}
}

static void *pull_main(void *payload)
{
	struct cpull_pull *pull = payload;
	struct cpull_error err = {0};
	int rc = run(pull, &err);
	int stop = rc ? pull_stop_code(pull) : 0;

	/* a cancel that ended a blocking call is a cancel, whatever the call made of it */
	if (stop && !is_verdict(rc))
		rc = pull_stop_error(pull, stop, &err);
	if (rc)
		error_wrap(&err, "pulling %s", pull->reference.name);
	/* whoever sees the end finds nothing of ours under way, locked or in memory */
	pull_release_layers(pull);

	pthread_mutex_lock(&pull->lock);
	pull->err = err;
	pull->ended = true;
	pthread_cond_broadcast(&pull->changed);
	pthread_mutex_unlock(&pull->lock);
	return NULL;
}

int pull_stop_code(struct cpull_pull *pull)
{
	pthread_mutex_lock(&pull->lock);
	if (!pull->stop_code && pull->deadline_ms && now_ms() >= pull->deadline_ms)
		pull->stop_code = CPULL_ERR_DEADLINE;

	int code = pull->stop_code;

	pthread_mutex_unlock(&pull->lock);
	return code;
}

/* ---- API ---- */

static int read_options(const struct cpull_pull_options *given, struct cpull_pull_options *out,
			struct cpull_error *err)
{
	*out = (struct cpull_pull_options){0};
	if (!given || given->size < offsetof(struct cpull_pull_options, connections) || given->size > 4096)
		return error_set(err, CPULL_ERR_USAGE, "pull options: size is not set to the size of the struct");
	memcpy(out, given, MIN(given->size, sizeof(*out)));
	if (!all_zero(out->reserved_bytes, sizeof(out->reserved_bytes)) ||
	    !all_zero(out->reserved, sizeof(out->reserved)) || !tail_is_zero(given, given->size, sizeof(*out)))
		return error_set(err, CPULL_ERR_USAGE,
				 "pull options: members that this version does not know are not zero");
	if (out->connections > LIMIT_CONNECTIONS)
		return error_set(err, CPULL_ERR_USAGE, "%u connections are more than the %u that are possible",
				 out->connections, LIMIT_CONNECTIONS);
	if ((unsigned)out->snapshot > CPULL_SNAPSHOT_AUTO)
		return error_set(err, CPULL_ERR_USAGE, "pull options: unknown snapshot %d", (int)out->snapshot);
	if (out->verity && out->snapshot == CPULL_SNAPSHOT_OVERLAY)
		return error_set(err, CPULL_ERR_USAGE, "hash trees (verity) are of EROFS images: ask for a snapshot "
				 "that is erofs or auto");
	if (!out->image)
		return error_set(err, CPULL_ERR_USAGE, "pull options: no image is given");
	return 0;
}

static int add_keys(struct cpull_pull *pull, const struct cpull_pull_options *o, struct cpull_error *err)
{
	int rc = key_ring_new(&pull->keys, err);

	if (o->decryption_key_count)
		secure_heap_init(&pull->engine->log);

	for (size_t i = 0; !rc && i < o->decryption_key_count; i++)
		rc = key_ring_add(pull->keys, o->decryption_keys[i], err);
	return rc;
}

static int open_source(struct cpull_pull *pull, const struct cpull_pull_options *o, struct cpull_error *err)
{
	struct source_options source = {.reference = &pull->reference,
					.creds = o->creds,
					.authfile = o->authfile,
					.cert_dir = o->cert_dir,
					.plain_http = o->plain_http,
					.tls_no_verify = o->tls_no_verify,
					.deadline_ms = pull->deadline_ms,
					.connections = o->connections};
	struct fetcher *fetcher;
	int rc = engine_get_fetcher(pull->engine, &fetcher, err);

	return rc ? rc : source_open(fetcher, &source, &pull->source, err);
}

static int set_up(struct cpull_pull *pull, const struct cpull_pull_options *o, struct cpull_error *err)
{
	char quoted[256];
	int rc = reference_parse(o->image, &pull->reference, err);

	if (!rc)
		rc = platform_parse(o->platform, &pull->platform, err);
	if (!rc) {
		platform_format(&pull->platform, pull->wanted);
		rc = add_keys(pull, o, err);
	}
	if (!rc)
		rc = open_source(pull, o, err);
	if (rc)
		error_wrap(err, "pulling %s", error_quote(o->image, strlen(o->image), quoted, sizeof(quoted)));
	return rc;
}

static struct cpull_pull *pull_new(struct cpull_engine *engine)
{
	struct cpull_pull *pull = calloc(1, sizeof(*pull));
	pthread_condattr_t attr;

	if (!pull)
		return NULL;
	pull->engine = engine;
	pull->place = (struct job_place){.wake = pull_nudge, .payload = pull};
	pthread_mutex_init(&pull->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pull->changed, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_lock(&engine->lock);
	engine->pulls++;
	pthread_mutex_unlock(&engine->lock);
	return pull;
}

int cpull_pull_start(struct cpull_engine *engine, const struct cpull_pull_options *options, struct cpull_pull **out,
		     struct cpull_error *err)
{
	struct cpull_pull_options o;
	struct cpull_error own = {0};
	int rc = read_options(options, &o, err);

	*out = NULL;
	if (!err)
		err = &own;
	if (rc)
		return rc;

	struct cpull_pull *pull = pull_new(engine);

	if (!pull)
		return error_nomem(err);
	pull->started_ms = now_ms();
	pull->deadline_ms = o.timeout_ms ? pull->started_ms + o.timeout_ms : 0;
	pull->require_encrypted = o.require_encrypted;
	pull->snapshot = o.snapshot;
	pull->verity = o.verity;
	pull->progress = o.progress;
	pull->progress_payload = o.progress_payload;
	rc = set_up(pull, &o, err);
	if (!rc)
		rc = thread_start(&pull->thread, "cpull-pull", pull_main, pull, err);
	if (rc) {
		cpull_pull_free(pull);
		return rc;
	}
	pull->thread_started = true;
	*out = pull;
	return 0;
}

int cpull_pull_wait(struct cpull_pull *pull, int timeout_ms, struct cpull_error *err)
{
	uint64_t end = now_ms() + (uint64_t)MAX(timeout_ms, 0);
	struct timespec t = {.tv_sec = (time_t)(end / 1000), .tv_nsec = (long)(end % 1000) * 1000000};
	int rc = 0;

	pthread_mutex_lock(&pull->lock);
	while (!pull->ended && rc != ETIMEDOUT)
		rc = timeout_ms < 0 ? pthread_cond_wait(&pull->changed, &pull->lock)
				    : pthread_cond_timedwait(&pull->changed, &pull->lock, &t);
	rc = pull->ended ? pull->err.code : 1;
	if (rc < 0 && err)
		*err = pull->err;
	pthread_mutex_unlock(&pull->lock);
	return rc;
}

void cpull_pull_cancel(struct cpull_pull *pull)
{
	pthread_mutex_lock(&pull->lock);
	if (!pull->stop_code)
		pull->stop_code = CPULL_ERR_CANCELLED;
	pull->nudged = true;
	pthread_cond_broadcast(&pull->changed);
	pthread_mutex_unlock(&pull->lock);
	source_cancel(pull->source);
}

const struct cpull_result *cpull_pull_result(const struct cpull_pull *pull)
{
	/* not const: the lock is the pull's, and asking early is allowed */
	pthread_mutex_t *lock = (pthread_mutex_t *)&pull->lock;

	pthread_mutex_lock(lock);
	bool done = pull->ended && !pull->err.code;

	pthread_mutex_unlock(lock);
	return done ? &pull->result : NULL;
}

void cpull_pull_free(struct cpull_pull *pull)
{
	if (!pull)
		return;
	if (pull->thread_started) {
		cpull_pull_cancel(pull);
		pthread_join(pull->thread, NULL);
	}
	for (size_t i = 0; pull->result_layers && i < pull->result.layer_count; i++)
		free((char *)pull->result_layers[i].path);
	free(pull->result_layers);
	free(pull->result_erofs);
	free(pull->result_images);
	resolved_free(&pull->resolved);
	source_close(pull->source);
	key_ring_free(pull->keys);
	reference_free(&pull->reference);
	pthread_cond_destroy(&pull->changed);
	pthread_mutex_destroy(&pull->lock);
	pthread_mutex_lock(&pull->engine->lock);
	pull->engine->pulls--;
	pthread_mutex_unlock(&pull->engine->lock);
	free(pull);
}
