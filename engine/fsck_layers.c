/* SPDX-License-Identifier: Apache-2.0
 *
 * Checking layers by several threads. A layer is opened by one of them, which pins it and loads what it is checked by;
 * its work (directories, ranges of blocks) is then taken bit by bit by whoever has nothing to do, and the last one
 * closes it. A thread opens the next layer only where no open one has work left, so that few are open at a time, and
 * what their indexes take of memory stays within what the engine has for zstd windows, unless one alone takes more.
 *
 * The caller's thread tells the progress meanwhile.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "engine/base/error.h"
#include "engine/base/thread.h"
#include "engine/fsck.h"
#include "engine/record.h"
#include "snapshot/image_sums.h"
#include "snapshot/verity_check.h"

#define TICK_NS 100000000l
/* Of a hash tree, whole blocks of leaves: 8 MiB. Of sums, the same. */
#define VERITY_UNIT (16u * VERITY_HASHES_PER_BLOCK)
#define SUMS_UNIT 8u
/* Where more of a unit's groups are damaged it is not worth telling which blocks. */
#define NARROW_GROUPS 2u
/* An entry of an index takes about as many bytes as its record, and the table to find it by a third. */
#define INDEX_BYTES(list) ((list) + (list) / 2)

/* What one thread needs. */
struct worker {
	struct fsck *fsck;
	struct dir_checker *checker;
	uint8_t *buffer; /* of IMAGE_SUMS_BLOCKS blocks */
	pthread_t thread;
};

struct sink_place {
	struct fsck *fsck;
	struct fsck_layer *layer;
};

/* ---- findings ---- */

static int by_path(const void *a, const void *b)
{
	const struct finding *x = a, *y = b;
	int order = x->path && y->path ? strcmp(x->path, y->path) : !!x->path - !!y->path;

	return order ? order : strcmp(x->what, y->what);
}

static void keep_first(struct findings *findings, size_t count)
{
	if (findings->count)
		qsort(findings->all, findings->count, sizeof(*findings->all), by_path);
	for (; findings->count > count; findings->count--) {
		free(findings->all[findings->count - 1].path);
		free(findings->all[findings->count - 1].what);
	}
}

int findings_add(struct findings *findings, const char *path, const char *what)
{
	if (findings->count == 2 * LIMIT_FSCK_LAYER_PROBLEMS)
		keep_first(findings, LIMIT_FSCK_LAYER_PROBLEMS);
	if (findings->count == findings->cap) {
		size_t cap = findings->cap ? findings->cap * 2 : 8;
		struct finding *grown = realloc(findings->all, cap * sizeof(*grown));

		if (!grown)
			return CPULL_ERR_NOMEM;
		findings->all = grown;
		findings->cap = cap;
	}

	struct finding finding = {path ? strdup(path) : NULL, strdup(what)};

	if ((path && !finding.path) || !finding.what) {
		free(finding.path);
		free(finding.what);
		return CPULL_ERR_NOMEM;
	}
	findings->all[findings->count++] = finding;
	findings->total++;
	return 0;
}

void findings_end(struct findings *findings)
{
	keep_first(findings, LIMIT_FSCK_LAYER_PROBLEMS);
}

void findings_free(struct findings *findings)
{
	keep_first(findings, 0);
	free(findings->all);
}

/* With the lock held. */
static void fail(struct fsck *fsck, const struct cpull_error *err)
{
	if (!fsck->err.code)
		fsck->err = *err;
	atomic_store(&fsck->stop, true);
	pthread_cond_broadcast(&fsck->changed);
}

static void found_locked(struct fsck *fsck, struct fsck_layer *layer, const char *path, const char *what)
{
	struct cpull_error err = {0};

	if (!findings_add(&layer->findings, path, what))
		return;
	error_nomem(&err);
	fail(fsck, &err);
}

static void found(void *payload, const char *path, const char *what)
{
	const struct sink_place *place = payload;

	pthread_mutex_lock(&place->fsck->lock);
	found_locked(place->fsck, place->layer, path, what);
	pthread_mutex_unlock(&place->fsck->lock);
}

/* Of the layer as a whole. */
static void found_of_layer(struct fsck *fsck, struct fsck_layer *layer, const char *what)
{
	struct sink_place place = {fsck, layer};

	found(&place, NULL, what);
}

static struct check_sink sink_of(struct sink_place *place)
{
	return (struct check_sink){.found = found,
				   .payload = place,
				   .stop = &place->fsck->stop,
				   .bytes = &place->layer->checked_bytes};
}

/* ---- opening ---- */

/* Does the record still name it? The image may have been removed since. */
static int still_named(struct fsck *fsck, const struct fsck_layer *layer, struct cpull_error *err)
{
	for (size_t i = 0; i < layer->image_count; i++) {
		struct record record;
		int rc = record_load(fsck->store, layer->images[i], &record, err);
		bool named = false;

		if (rc < 0)
			return rc;
		if (rc == 0)
			continue;
		for (size_t k = 0; k < record.layer_count; k++)
			named |= strcmp(record.layers[k].key, layer->key) == 0;
		record_free(&record);
		if (named)
			return 1;
	}
	return 0;
}

static const char *state_text(enum layer_state state)
{
	switch (state) {
	case LAYER_ABSENT:
		return "the layer is missing";
	case LAYER_STALE:
		return "the layer is of another boot, and was not synced then";
	case LAYER_UNKNOWN:
		return "its layer.json is missing or makes no sense";
	case LAYER_EMPTY:
		return "its content is missing";
	case LAYER_CUT:
		return "its image has not the size that it was written with";
	case LAYER_READY:
		break;
	}
	return "the layer cannot be used";
}

/* Who does not need it cannot miss it, and what nobody trusts is only in the way. */
static int judge_unusable(struct fsck *fsck, struct fsck_layer *layer, struct cpull_error *err)
{
	enum layer_state state = layer->exam.state;
	int rc = layer->needed ? still_named(fsck, layer, err) : state == LAYER_EMPTY || state == LAYER_CUT;

	if (rc > 0)
		found_of_layer(fsck, layer, state_text(state));
	else if (!rc && !layer->needed && state != LAYER_ABSENT)
		log_info(&fsck->engine->log, "leftover: layers/%s: %s", layer->key, state_text(state));
	return MIN(rc, 0);
}

/* Is the layer, by its key, of that diff_id? */
static bool fits_key(const char *key, const char *diff_id)
{
	const char *colon = strchr(diff_id, ':');
	size_t algorithm = colon ? (size_t)(colon - diff_id) : 0, hex = colon ? strlen(colon + 1) : 0;

	return colon && strncmp(key, diff_id, algorithm) == 0 && key[algorithm] == '-' &&
	       strncmp(key + algorithm + 1, colon + 1, hex) == 0 &&
	       (key[algorithm + 1 + hex] == 0 || key[algorithm + 1 + hex] == '.');
}

/* The root hash that a result and `inspect` show is the record's. */
static bool fits_record(const struct fsck_layer *layer)
{
	const struct layer_image *image = &layer->exam.ref.image;

	return !layer->needed || (!layer->disputed && image->blocks == layer->recorded.blocks &&
				  strcmp(image->root_hash, layer->recorded.root_hash) == 0);
}

/* What it says about a list or sums that are damaged is found; other errors end the check. */
static int judge_contents(struct fsck *fsck, struct fsck_layer *layer, int rc, const struct cpull_error *why,
			  struct cpull_error *err)
{
	if (rc != CPULL_ERR_DIGEST && !(rc == CPULL_ERR_STORAGE && check_is_damage(why->sys_errno)))
		return error_copy(err, why);
	found_of_layer(fsck, layer, why->message);
	return 0;
}

static int load_dir(struct fsck *fsck, struct fsck_layer *layer, struct cpull_error *err)
{
	struct cpull_error why = {0};
	int rc = contents_index_load(layer->exam.contents_fd, &layer->exam.contents, &layer->index, &why);

	if (rc)
		return judge_contents(fsck, layer, rc, &why, err);
	layer->units = layer->index->dir_count;
	return 0;
}

static int load_sums(struct fsck *fsck, struct fsck_layer *layer, struct cpull_error *err)
{
	uint64_t blocks = layer->exam.ref.image.blocks;
	struct cpull_error why = {0};
	int rc = image_sums_load(layer->exam.contents_fd, &layer->exam.contents, blocks, &layer->sums, &why);

	if (rc)
		return judge_contents(fsck, layer, rc, &why, err);
	layer->units = (image_sums_count(blocks) + SUMS_UNIT - 1) / SUMS_UNIT;
	return 0;
}

static int load(struct fsck *fsck, struct fsck_layer *layer, struct cpull_error *err)
{
	const struct layer_image *image = &layer->exam.ref.image;

	if (image->blocks)
		atomic_store(&layer->total_bytes, layer_image_bytes(image));
	else
		atomic_store(&layer->total_bytes, layer->exam.unpacked_bytes);
	if (image->root_hash[0]) {
		layer->check = CPULL_CHECK_VERITY;
		layer->units = (image->blocks + VERITY_UNIT - 1) / VERITY_UNIT;
		return 0;
	}
	if (layer->exam.contents.bytes && layer->exam.contents_fd >= 0) {
		layer->check = CPULL_CHECK_SUMS;
		return image->blocks ? load_sums(fsck, layer, err) : load_dir(fsck, layer, err);
	}
	if (layer->exam.contents.bytes)
		found_of_layer(fsck, layer, "what it is checked by is missing");
	layer->check = image->blocks ? CPULL_CHECK_STRUCTURE : CPULL_CHECK_NONE;
	layer->units = image->blocks ? 1 : 0;
	return 0;
}

/* Waits until there is room for its index; nobody waits who has work to do. */
static void take_memory(struct fsck *fsck, struct fsck_layer *layer)
{
	layer->memory = layer->exam.ref.image.blocks ? layer->exam.contents.bytes
						     : INDEX_BYTES(layer->exam.contents.bytes);
	pthread_mutex_lock(&fsck->lock);
	while (!atomic_load(&fsck->stop) && fsck->memory &&
	       fsck->memory + layer->memory > fsck->engine->plan.window_bytes)
		pthread_cond_wait(&fsck->changed, &fsck->lock);
	fsck->memory += layer->memory;
	pthread_mutex_unlock(&fsck->lock);
}

static int open_layer(struct fsck *fsck, struct fsck_layer *layer, struct cpull_error *err)
{
	int rc = store_layer_examine(fsck->store, layer->key, &layer->exam, err);

	if (rc)
		return rc;
	if (*layer->exam.diff_id && !(layer->diff_id = strdup(layer->exam.diff_id)))
		return error_nomem(err);
	if (layer->diff_id && !fits_key(layer->key, layer->diff_id)) {
		found_of_layer(fsck, layer, "its layer.json is another layer's");
		return 0;
	}
	if (layer->exam.state != LAYER_READY)
		return judge_unusable(fsck, layer, err);
	if (!fits_record(layer))
		found_of_layer(fsck, layer, "its layer.json is not what the record of an image says of it");
	take_memory(fsck, layer);
	return load(fsck, layer, err);
}

/* ---- work on an image ---- */

/* With the lock held. Blocks that are damaged, for whoever asks what is in them. */
static void add_run(struct fsck_layer *layer, struct block_run run)
{
	struct block_run *grown;

	if (layer->run_count >= LIMIT_FSCK_LAYER_PROBLEMS) {
		layer->runs_cut = true;
		return;
	}
	/* without memory the files are not told, the blocks are */
	grown = realloc(layer->runs, (layer->run_count + 1) * sizeof(*grown));
	if (!grown)
		return;
	layer->runs = grown;
	grown[layer->run_count++] = run;
}

static void damaged_blocks(struct sink_place *place, struct block_run run, const char *what)
{
	pthread_mutex_lock(&place->fsck->lock);
	found_locked(place->fsck, place->layer, NULL, what);
	add_run(place->layer, run);
	pthread_mutex_unlock(&place->fsck->lock);
}

static bool is_found(int rc, const struct cpull_error *why)
{
	return rc == CPULL_ERR_DIGEST || rc == CPULL_ERR_SIZE ||
	       (rc == CPULL_ERR_STORAGE && check_is_damage(why->sys_errno));
}

static int check_sums(struct worker *worker, struct sink_place *place, uint64_t unit, struct cpull_error *err)
{
	struct fsck_layer *layer = place->layer;
	uint64_t blocks = layer->exam.ref.image.blocks, end = MIN((unit + 1) * SUMS_UNIT, image_sums_count(blocks));

	for (uint64_t i = unit * SUMS_UNIT; i < end && !atomic_load(&worker->fsck->stop); i++) {
		struct cpull_error why = {0};
		struct block_run run;
		int rc = image_sums_check(layer->exam.ref.fd, layer->sums, blocks, i, worker->buffer, &why);

		image_sums_range(blocks, i, &run.first, &run.count);
		if (rc && !is_found(rc, &why))
			return error_copy(err, &why);
		if (rc)
			damaged_blocks(place, run, why.message);
		atomic_fetch_add(&layer->checked_bytes, run.count * IMAGE_SUMS_BLOCK_BYTES);
	}
	return 0;
}

static void damaged_run(struct sink_place *place, struct block_run run, const struct cpull_error *first)
{
	char what[CPULL_MESSAGE_BYTES + 64];

	snprintf(what, sizeof(what), "blocks %llu to %llu: %s", (unsigned long long)run.first,
		 (unsigned long long)(run.first + run.count - 1), first->message);
	damaged_blocks(place, run, run.count > 1 ? what : first->message);
}

/* Tells which blocks of a range are damaged. */
static int narrow(const struct verity_image *image, struct sink_place *place, struct block_run range,
		  struct cpull_error *err)
{
	struct block_run run = {0};
	struct cpull_error first = {0};
	uint64_t end = range.first + range.count;

	for (uint64_t at = range.first; at <= end && !atomic_load(&place->fsck->stop); at++) {
		struct cpull_error why = {0};
		int rc = at < end ? verity_check(image, at, 1, &why) : 0;

		if (rc && !is_found(rc, &why))
			return error_copy(err, &why);
		if (!rc && run.count) {
			damaged_run(place, run, &first);
			run.count = 0;
		}
		if (rc && !run.count) {
			run.first = at;
			first = why;
		}
		run.count += rc != 0;
	}
	return 0;
}

/* The blocks below one block of leaves. */
struct group {
	struct block_run run;
	struct cpull_error why; /* code 0: sound */
};

/* A unit in which something is damaged: in a few groups which blocks, or which groups. */
static int look_closer(const struct verity_image *image, struct sink_place *place, uint64_t first, uint64_t end,
		       struct cpull_error *err)
{
	struct group groups[VERITY_UNIT / VERITY_HASHES_PER_BLOCK];
	size_t count = 0, bad = 0;
	int rc = 0;

	for (; first < end; first += VERITY_HASHES_PER_BLOCK) {
		struct group *g = &groups[count++];

		*g = (struct group){.run = {first, MIN((uint64_t)VERITY_HASHES_PER_BLOCK, end - first)}};
		g->why.code = verity_check(image, g->run.first, g->run.count, &g->why);
		if (g->why.code && !is_found(g->why.code, &g->why))
			return error_copy(err, &g->why);
		bad += g->why.code != 0;
	}
	for (size_t i = 0; !rc && i < count; i++) {
		if (!groups[i].why.code)
			continue;
		if (bad <= NARROW_GROUPS)
			rc = narrow(image, place, groups[i].run, err);
		else
			damaged_run(place, groups[i].run, &groups[i].why);
	}
	return rc;
}

static int check_verity(struct sink_place *place, uint64_t unit, struct cpull_error *err)
{
	struct fsck_layer *layer = place->layer;
	const struct layer_image *facts = &layer->exam.ref.image;
	struct verity_image image = {.fd = layer->exam.ref.fd, .data_blocks = facts->blocks};
	uint64_t first = unit * VERITY_UNIT, end = MIN(first + VERITY_UNIT, facts->blocks);
	struct cpull_error why = {0};
	int rc;

	if (!layer_image_root(facts, image.root))
		return error_set(err, CPULL_ERR_INTERNAL, "a root hash that is none");
	rc = verity_check(&image, first, end - first, &why);
	atomic_fetch_add(&layer->checked_bytes, (end - first) * VERITY_BLOCK_BYTES);
	if (rc && !is_found(rc, &why))
		return error_copy(err, &why);
	return rc ? look_closer(&image, place, first, end, err) : 0;
}

/* ---- work ---- */

static int check_dir(struct worker *worker, struct sink_place *place, uint64_t unit, struct cpull_error *err)
{
	struct fsck_layer *layer = place->layer;
	const struct check_sink sink = sink_of(place);
	struct cpull_error why = {0};
	int rc = dir_check(worker->checker, layer->exam.ref.fd, layer->index, (uint32_t)unit, &sink, &why);

	/* the list is damaged, and was not when it was loaded */
	return rc ? judge_contents(worker->fsck, layer, rc, &why, err) : 0;
}

static int work_on(struct worker *worker, struct fsck_layer *layer, uint64_t unit, struct cpull_error *err)
{
	struct sink_place place = {worker->fsck, layer};
	const struct check_sink sink = sink_of(&place);

	switch (layer->check) {
	case CPULL_CHECK_VERITY:
		return check_verity(&place, unit, err);
	case CPULL_CHECK_STRUCTURE:
		return erofs_check_structure(layer->exam.ref.fd, &sink, err);
	case CPULL_CHECK_SUMS:
		break;
	case CPULL_CHECK_NONE:
		return 0;
	}
	return layer->sums ? check_sums(worker, &place, unit, err) : check_dir(worker, &place, unit, err);
}

static int by_first(const void *a, const void *b)
{
	const struct block_run *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* What of the image is in the blocks that are damaged. */
static int name_owners(struct fsck *fsck, struct fsck_layer *layer, struct cpull_error *err)
{
	struct sink_place place = {fsck, layer};
	const struct check_sink sink = sink_of(&place);

	if (!layer->run_count || layer->runs_cut)
		return 0;
	qsort(layer->runs, layer->run_count, sizeof(*layer->runs), by_first);
	return erofs_check_owners(layer->exam.ref.fd, layer->runs, layer->run_count, &sink, err);
}

void fsck_release_layer(struct fsck_layer *layer)
{
	contents_index_free(STEAL(layer->index));
	free(STEAL(layer->sums));
	free(STEAL(layer->runs));
	layer_exam_end(&layer->exam);
}

/* By the thread that was the last at it. */
static int close_layer(struct fsck *fsck, struct fsck_layer *layer, struct cpull_error *err)
{
	int rc = name_owners(fsck, layer, err);

	fsck_release_layer(layer);
	findings_end(&layer->findings);
	return rc;
}

/* ---- threads ---- */

/* With the lock held, which it lets go of meanwhile. */
static void run_unlocked(struct worker *worker, struct fsck_layer *layer,
			 int (*run)(struct worker *worker, struct fsck_layer *layer, struct cpull_error *err))
{
	struct fsck *fsck = worker->fsck;
	struct cpull_error err = {0};

	layer->active++;
	pthread_mutex_unlock(&fsck->lock);

	int rc = run(worker, layer, &err);

	pthread_mutex_lock(&fsck->lock);
	layer->active--;
	if (rc)
		fail(fsck, &err);
}

static int run_open(struct worker *worker, struct fsck_layer *layer, struct cpull_error *err)
{
	return open_layer(worker->fsck, layer, err);
}

static int run_close(struct worker *worker, struct fsck_layer *layer, struct cpull_error *err)
{
	return close_layer(worker->fsck, layer, err);
}

struct unit {
	struct fsck_layer *layer;
	uint64_t number;
};

/* With the lock held: closes the layer if that was the last of it. */
static void leave(struct worker *worker, struct fsck_layer *layer)
{
	struct fsck *fsck = worker->fsck;

	if (layer->active || (layer->next < layer->units && !atomic_load(&fsck->stop)))
		return;
	layer->open = false;
	run_unlocked(worker, layer, run_close);
	fsck->memory -= layer->memory;
	layer->state = layer->findings.total	       ? CPULL_FSCK_DAMAGED
		       : layer->check == CPULL_CHECK_NONE ? CPULL_FSCK_UNCHECKED
							  : CPULL_FSCK_SOUND;
	fsck->done++;
	pthread_cond_broadcast(&fsck->changed);
}

/* With the lock held. */
static bool take_unit(struct fsck *fsck, struct unit *out)
{
	for (size_t i = 0; i < fsck->opened; i++) {
		struct fsck_layer *layer = &fsck->layers[i];

		if (!layer->open || layer->next >= layer->units)
			continue;
		*out = (struct unit){layer, layer->next++};
		return true;
	}
	return false;
}

static void work_unit(struct worker *worker, struct unit unit)
{
	struct fsck *fsck = worker->fsck;
	struct cpull_error err = {0};

	unit.layer->active++;
	pthread_mutex_unlock(&fsck->lock);

	int rc = work_on(worker, unit.layer, unit.number, &err);

	pthread_mutex_lock(&fsck->lock);
	unit.layer->active--;
	if (rc)
		fail(fsck, &err);
	leave(worker, unit.layer);
}

static void work(struct worker *worker)
{
	struct fsck *fsck = worker->fsck;
	struct unit unit;

	while (!atomic_load(&fsck->stop)) {
		if (take_unit(fsck, &unit)) {
			work_unit(worker, unit);
		} else if (fsck->opened < fsck->layer_count) {
			struct fsck_layer *layer = &fsck->layers[fsck->opened++];

			layer->state = CPULL_FSCK_CHECKING;
			run_unlocked(worker, layer, run_open);
			layer->open = true;
			pthread_cond_broadcast(&fsck->changed);
			leave(worker, layer);
		} else if (fsck->done < fsck->layer_count) {
			pthread_cond_wait(&fsck->changed, &fsck->lock);
		} else {
			return;
		}
	}
}

static int prepare(struct worker *worker, struct cpull_error *err)
{
	worker->buffer = malloc((size_t)IMAGE_SUMS_BLOCKS * IMAGE_SUMS_BLOCK_BYTES);
	return worker->buffer ? dir_checker_new(&worker->checker, err) : error_nomem(err);
}

static void *worker_main(void *payload)
{
	struct worker *worker = payload;
	struct fsck *fsck = worker->fsck;
	struct cpull_error err = {0};
	int rc = prepare(worker, &err);

	pthread_mutex_lock(&fsck->lock);
	if (rc)
		fail(fsck, &err);
	else
		work(worker);
	fsck->left--;
	pthread_cond_broadcast(&fsck->changed);
	pthread_mutex_unlock(&fsck->lock);
	dir_checker_free(worker->checker);
	free(worker->buffer);
	return NULL;
}

/* ---- progress ---- */

/* With the lock held. Anything to tell of the layer? */
static bool note(struct fsck_layer *layer, size_t number, size_t count, struct cpull_fsck_progress *out)
{
	uint64_t bytes = atomic_load(&layer->checked_bytes);

	if (layer->state == layer->told_state && (layer->state != CPULL_FSCK_CHECKING || bytes == layer->told_bytes))
		return false;
	layer->told_state = layer->state;
	layer->told_bytes = bytes;
	*out = (struct cpull_fsck_progress){.layer = number,
					    .layer_count = count,
					    .name = layer->key,
					    .state = layer->state,
					    .checked_bytes = bytes,
					    .total_bytes = atomic_load(&layer->total_bytes),
					    .problems = layer->findings.total};
	/* what was known before is what the tar had */
	if (layer->state != CPULL_FSCK_CHECKING)
		out->total_bytes = bytes;
	return true;
}

/* Without the lock. */
static void tell(struct fsck *fsck)
{
	const struct cpull_fsck_options *o = fsck->options;
	struct cpull_error err = {0};
	bool any = false;
	int rc = 0;

	if (!o->progress)
		return;
	for (size_t i = 0; !rc && i < fsck->layer_count; i++) {
		struct cpull_fsck_progress progress;

		pthread_mutex_lock(&fsck->lock);
		bool news = note(&fsck->layers[i], i, fsck->layer_count, &progress);
		pthread_mutex_unlock(&fsck->lock);
		if (news)
			rc = o->progress(&progress, o->progress_payload);
		any |= news;
	}
	if (!any)
		rc = o->progress(NULL, o->progress_payload);
	if (!rc)
		return;
	error_set(&err, CPULL_ERR_CANCELLED, "the check was cancelled");
	pthread_mutex_lock(&fsck->lock);
	fail(fsck, &err);
	pthread_mutex_unlock(&fsck->lock);
}

static void wait_for_all(struct fsck *fsck)
{
	bool more = true;

	while (more) {
		struct timespec until;

		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += TICK_NS;
		if (until.tv_nsec >= 1000000000l) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000l;
		}
		pthread_mutex_lock(&fsck->lock);
		while (fsck->left && pthread_cond_timedwait(&fsck->changed, &fsck->lock, &until) == 0)
			;
		more = fsck->left > 0;
		pthread_mutex_unlock(&fsck->lock);
		tell(fsck);
	}
}

static void start_all(struct fsck *fsck, struct worker *workers, unsigned *count)
{
	struct cpull_error err = {0};
	unsigned i = 0;

	fsck->left = *count;
	while (i < *count && !thread_start(&workers[i].thread, "cpull-fsck", worker_main, &workers[i], &err))
		i++;
	if (i == *count)
		return;
	/* with fewer it takes longer */
	pthread_mutex_lock(&fsck->lock);
	fsck->left -= *count - i;
	if (!i)
		fail(fsck, &err);
	pthread_mutex_unlock(&fsck->lock);
	*count = i;
}

int fsck_check_layers(struct fsck *fsck, struct cpull_error *err)
{
	struct worker workers[LIMIT_JOBS];
	unsigned count = MAX(MIN(fsck->engine->plan.jobs, LIMIT_JOBS), 1u);

	for (unsigned i = 0; i < count; i++)
		workers[i] = (struct worker){.fsck = fsck};
	start_all(fsck, workers, &count);
	wait_for_all(fsck);
	for (unsigned i = 0; i < count; i++)
		pthread_join(workers[i].thread, NULL);
	return fsck->err.code ? error_copy(err, &fsck->err) : 0;
}
