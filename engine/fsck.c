/* SPDX-License-Identifier: Apache-2.0
 *
 * cpull_fsck(): gathers what is to be checked, has it checked, and makes the report. On the caller's thread; the report
 * owns the check whose strings it shows.
 */
#include "engine/fsck.h"

#include <string.h>

#include "engine/base/error.h"

struct report {
	struct cpull_fsck_report view;
	struct fsck fsck;
	struct cpull_fsck_options options;
	struct cpull_fsck_layer *layers;
	struct cpull_problem *problems;
};

static int read_options(const struct cpull_fsck_options *given, struct cpull_fsck_options *out,
			struct cpull_error *err)
{
	*out = (struct cpull_fsck_options){0};
	if (!given)
		return 0;
	if (given->size < offsetof(struct cpull_fsck_options, reserved) || given->size > 4096)
		return error_set(err, CPULL_ERR_USAGE, "fsck options: size is not set to the size of the struct");
	memcpy(out, given, MIN(given->size, sizeof(*out)));
	if (!all_zero(out->reserved, sizeof(out->reserved)) || !tail_is_zero(given, given->size, sizeof(*out)))
		return error_set(err, CPULL_ERR_USAGE,
				 "fsck options: members that this version does not know are not zero");
	for (size_t i = 0; i < out->image_count; i++)
		if (!out->images || !out->images[i])
			return error_set(err, CPULL_ERR_USAGE, "fsck options: the name of an image is missing");
	return 0;
}

/* ---- advice ---- */

/* "a, b and c". */
static char *join(const char *const *names, size_t count)
{
	CLEANUP_BYTES struct bytes text = {0};

	for (size_t i = 0; i < count; i++) {
		const char *before = !i ? "" : i + 1 == count ? " and " : ", ";

		if (bytes_append(&text, before, strlen(before), SIZE_MAX / 2) ||
		    bytes_append(&text, names[i], strlen(names[i]), SIZE_MAX / 2))
			return NULL;
	}
	return STEAL(text.data);
}

/* A pull takes a layer that it trusts for what it is; one that it does not trust it replaces. */
static char *advice_of(const struct fsck_layer *layer)
{
	bool trusted = layer->exam.state == LAYER_READY;

	if (!layer->image_count)
		return strdup("no image uses it: run coco-pull prune");

	CLEANUP_FREE char *names = join(layer->images, layer->image_count);

	if (!names)
		return NULL;
	if (!trusted)
		return format_string("pull %s again", names);
	return layer->image_count == 1 ? format_string("remove %s by coco-pull rm, then pull it again", names)
				       : format_string("remove %s, which share the layer, by coco-pull rm, then pull "
						       "them again", names);
}

/* ---- the report ---- */

static void view_layer(struct report *report, size_t i)
{
	const struct fsck_layer *layer = &report->fsck.layers[i];

	report->layers[i] = (struct cpull_fsck_layer){
		.name = layer->key,
		.diff_id = layer->diff_id,
		.images = layer->images,
		.image_count = layer->image_count,
		.snapshot = layer_form_snapshot(layer_form_of_key(layer->key)),
		.check = layer->check,
		.checked_bytes = atomic_load(&layer->checked_bytes),
		.problems = layer->findings.total,
	};
	report->view.checked_bytes += report->layers[i].checked_bytes;
	report->view.problem_total += layer->findings.total;
	report->view.unchecked_layers += layer->state == CPULL_FSCK_UNCHECKED;
}

static void view_troubles(struct report *report)
{
	for (size_t i = 0; i < report->fsck.trouble_count; i++) {
		const struct fsck_trouble *t = &report->fsck.troubles[i];

		report->problems[report->view.problem_count++] =
		    (struct cpull_problem){.images = t->image ? (const char *const *)&t->image : NULL,
					   .image_count = t->image != NULL,
					   .path = t->path,
					   .what = t->what,
					   .advice = t->advice};
	}
	report->view.problem_total += report->fsck.trouble_count;
}

static int view_findings(struct report *report, struct fsck_layer *layer)
{
	if (!layer->findings.count)
		return 0;
	layer->advice = advice_of(layer);
	if (!layer->advice)
		return CPULL_ERR_NOMEM;
	for (size_t i = 0; i < layer->findings.count && report->view.problem_count < LIMIT_FSCK_PROBLEMS; i++)
		report->problems[report->view.problem_count++] =
		    (struct cpull_problem){.images = layer->images,
					   .image_count = layer->image_count,
					   .layer = layer->key,
					   .path = layer->findings.all[i].path,
					   .what = layer->findings.all[i].what,
					   .advice = layer->advice};
	return 0;
}

static int by_trouble(const void *a, const void *b)
{
	const struct fsck_trouble *x = a, *y = b;

	return strcmp(x->path, y->path);
}

static int make_report(struct report *report, struct cpull_error *err)
{
	struct fsck *fsck = &report->fsck;
	size_t most = fsck->trouble_count + LIMIT_FSCK_PROBLEMS;

	report->layers = calloc(fsck->layer_count + 1, sizeof(*report->layers));
	report->problems = calloc(most, sizeof(*report->problems));
	if (!report->layers || !report->problems)
		return error_nomem(err);
	if (fsck->trouble_count)
		qsort(fsck->troubles, fsck->trouble_count, sizeof(*fsck->troubles), by_trouble);
	view_troubles(report);
	for (size_t i = 0; i < fsck->layer_count; i++) {
		view_layer(report, i);
		if (view_findings(report, &fsck->layers[i]))
			return error_nomem(err);
	}
	report->view.image_count = fsck->image_count;
	report->view.layers = report->layers;
	report->view.layer_count = fsck->layer_count;
	report->view.problems = report->problems;
	return 0;
}

/* ---- life ---- */

static void free_layer(struct fsck_layer *layer)
{
	fsck_release_layer(layer);
	findings_free(&layer->findings);
	free(layer->key);
	free(layer->images);
	free(layer->diff_id);
	free(layer->advice);
}

void cpull_fsck_free(const struct cpull_fsck_report *view)
{
	struct report *report = (struct report *)(uintptr_t)view;

	if (!report)
		return;

	struct fsck *fsck = &report->fsck;

	for (size_t i = 0; i < fsck->layer_count; i++)
		free_layer(&fsck->layers[i]);
	for (size_t i = 0; i < fsck->image_count; i++)
		free(fsck->images[i]);
	for (size_t i = 0; i < fsck->trouble_count; i++) {
		free(fsck->troubles[i].image);
		free(fsck->troubles[i].path);
		free(fsck->troubles[i].what);
		free(fsck->troubles[i].advice);
	}
	free(fsck->layers);
	free(fsck->images);
	free(fsck->troubles);
	free(report->layers);
	free(report->problems);
	pthread_cond_destroy(&fsck->changed);
	pthread_mutex_destroy(&fsck->lock);
	free(report);
}

static struct report *new_report(struct cpull_engine *engine)
{
	struct report *report = calloc(1, sizeof(*report));
	pthread_condattr_t attr;

	if (!report)
		return NULL;
	report->fsck.engine = engine;
	report->fsck.store = engine->store;
	report->fsck.options = &report->options;
	pthread_mutex_init(&report->fsck.lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&report->fsck.changed, &attr);
	pthread_condattr_destroy(&attr);
	return report;
}

static int run(struct report *report, struct cpull_error *err)
{
	uint64_t since = now_ms();
	int rc = fsck_gather(&report->fsck, err);

	if (!rc)
		rc = fsck_check_layers(&report->fsck, err);
	if (!rc)
		rc = make_report(report, err);
	report->view.wall_ms = now_ms() - since;
	return rc;
}

/* What goes with a report of problems. */
static int say_it(const struct report *report, struct cpull_error *err)
{
	const struct cpull_problem *first = report->view.problems;
	char quoted[256];

	return error_set(err, CPULL_ERR_DIGEST, "checking the store: %llu problem%s; the first: %s%s%s%s%s",
			 (unsigned long long)report->view.problem_total, report->view.problem_total == 1 ? "" : "s",
			 first->layer ? first->layer : "", first->layer ? " " : "",
			 first->path ? error_quote(first->path, strlen(first->path), quoted, sizeof(quoted)) : "",
			 first->path ? ": " : "", first->what);
}

int cpull_fsck(struct cpull_engine *engine, const struct cpull_fsck_options *options,
	       const struct cpull_fsck_report **out, struct cpull_error *err)
{
	struct report *report = new_report(engine);
	int rc;

	*out = NULL;
	if (!report)
		return error_nomem(err);
	rc = read_options(options, &report->options, err);
	if (!rc)
		rc = run(report, err);
	if (rc) {
		cpull_fsck_free(&report->view);
		return rc;
	}
	*out = &report->view;
	return report->view.problem_total ? say_it(report, err) : 0;
}
