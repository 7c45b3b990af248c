/* SPDX-License-Identifier: Apache-2.0
 *
 * The fsck command. Runs on the main thread, where the library also tells the progress; signals are looked for there.
 */
#include "engine/cli/fsck.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cli/interrupt.h"
#include "engine/cli/output.h"
#include "engine/cli/pull.h"

/* ---- progress ---- */

struct layer_state {
	enum cpull_fsck_state state;
	uint64_t checked_bytes, total_bytes, problems;
};

struct watch {
	struct progress *progress;
	struct layer_state *layers;
	size_t count;
};

static const char *state_name(enum cpull_fsck_state state)
{
	static const char *const names[] = {"waiting", "checking", "sound", "damaged", "unchecked"};

	return (unsigned)state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

static void tell_event(struct watch *watch, const struct cpull_fsck_progress *p)
{
	json_t *event = json_object();

	json_object_set_new(event, "event", json_string("layer"));
	json_object_set_new(event, "layer", json_integer((json_int_t)p->layer));
	json_object_set_new(event, "layer_count", json_integer((json_int_t)p->layer_count));
	json_object_set_new(event, "name", output_json_text(p->name));
	json_object_set_new(event, "state", json_string(state_name(p->state)));
	json_object_set_new(event, "checked_bytes", output_json_bytes(p->checked_bytes));
	json_object_set_new(event, "total_bytes", output_json_bytes(p->total_bytes));
	json_object_set_new(event, "problems", output_json_bytes(p->problems));
	progress_event(watch->progress, event);
}

static void tell_end(struct watch *watch, const struct cpull_fsck_progress *p)
{
	char text[512], size[16];

	if (p->state == CPULL_FSCK_DAMAGED)
		snprintf(text, sizeof(text), "layer %zu/%zu %s: damaged, %" PRIu64 " problem%s", p->layer + 1,
			 p->layer_count, p->name, p->problems, p->problems == 1 ? "" : "s");
	else if (p->state == CPULL_FSCK_UNCHECKED)
		snprintf(text, sizeof(text), "layer %zu/%zu %s: nothing is recorded to check it by", p->layer + 1,
			 p->layer_count, p->name);
	else
		snprintf(text, sizeof(text), "layer %zu/%zu %s: sound, %s", p->layer + 1, p->layer_count, p->name,
			 output_size(p->checked_bytes, size));
	progress_said(watch->progress, text);
}

static void tell_sum(struct watch *watch)
{
	struct progress_sum sum = {.count = watch->count};

	for (size_t i = 0; i < watch->count; i++) {
		sum.done += watch->layers[i].state > CPULL_FSCK_CHECKING;
		sum.bytes += watch->layers[i].checked_bytes;
		sum.total_bytes += watch->layers[i].total_bytes;
		sum.problems += watch->layers[i].problems;
	}
	progress_sum(watch->progress, &sum);
}

static int on_progress(const struct cpull_fsck_progress *p, void *payload)
{
	struct watch *watch = payload;

	if (p && !watch->layers) {
		watch->layers = calloc(p->layer_count + 1, sizeof(*watch->layers));
		watch->count = watch->layers ? p->layer_count : 0;
	}
	if (p && p->layer < watch->count) {
		watch->layers[p->layer] =
		    (struct layer_state){p->state, p->checked_bytes, p->total_bytes, p->problems};
		tell_event(watch, p);
		if (p->state > CPULL_FSCK_CHECKING)
			tell_end(watch, p);
	}
	tell_sum(watch);
	return interrupt_seen();
}

/* ---- the report ---- */

static const char *check_name(enum cpull_check check)
{
	static const char *const names[] = {"none", "structure", "sums", "verity"};

	return (unsigned)check < sizeof(names) / sizeof(names[0]) ? names[check] : "unknown";
}

static json_t *names_json(const char *const *names, size_t count)
{
	json_t *array = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(array, output_json_text(names[i]));
	return array;
}

static json_t *layer_json(const struct cpull_fsck_layer *layer)
{
	json_t *object = json_object();

	json_object_set_new(object, "name", output_json_text(layer->name));
	json_object_set_new(object, "diff_id", output_json_text(layer->diff_id));
	json_object_set_new(object, "images", names_json(layer->images, layer->image_count));
	json_object_set_new(object, "snapshot",
			    json_string(layer->snapshot == CPULL_SNAPSHOT_EROFS ? "erofs" : "overlay"));
	json_object_set_new(object, "check", json_string(check_name(layer->check)));
	json_object_set_new(object, "checked_bytes", output_json_bytes(layer->checked_bytes));
	json_object_set_new(object, "problems", output_json_bytes(layer->problems));
	return object;
}

static json_t *problem_json(const struct cpull_problem *problem)
{
	json_t *object = json_object();

	json_object_set_new(object, "images", names_json(problem->images, problem->image_count));
	json_object_set_new(object, "layer", output_json_text(problem->layer));
	json_object_set_new(object, "path", output_json_text(problem->path));
	json_object_set_new(object, "what", output_json_text(problem->what));
	json_object_set_new(object, "advice", output_json_text(problem->advice));
	return object;
}

static json_t *report_json(const struct cpull_fsck_report *report, const struct cpull_error *err)
{
	json_t *object = json_object(), *layers = json_array(), *problems = json_array();

	for (size_t i = 0; i < report->layer_count; i++)
		json_array_append_new(layers, layer_json(&report->layers[i]));
	for (size_t i = 0; i < report->problem_count; i++)
		json_array_append_new(problems, problem_json(&report->problems[i]));
	json_object_set_new(object, "sound", json_boolean(!report->problem_total));
	json_object_set_new(object, "images", json_integer((json_int_t)report->image_count));
	json_object_set_new(object, "layers", layers);
	json_object_set_new(object, "problems", problems);
	json_object_set_new(object, "problem_total", output_json_bytes(report->problem_total));
	json_object_set_new(object, "unchecked_layers", output_json_bytes(report->unchecked_layers));
	json_object_set_new(object, "checked_bytes", output_json_bytes(report->checked_bytes));
	json_object_set_new(object, "wall_ms", output_json_bytes(report->wall_ms));
	if (report->problem_total)
		json_object_set_new(object, "error", output_error_json(err));
	return object;
}

/* The layer, or the file of the store, with the images that it concerns. */
static void print_heading(const struct cpull_problem *problem)
{
	if (problem->layer)
		printf("layers/%s", problem->layer);
	else
		output_clean(stdout, problem->path);
	for (size_t i = 0; i < problem->image_count; i++) {
		fputs(i ? ", " : " (", stdout);
		output_clean(stdout, problem->images[i]);
	}
	puts(problem->image_count ? ")" : "");
}

static void print_problem(const struct cpull_problem *problem)
{
	fputs("  ", stdout);
	if (problem->layer && problem->path) {
		output_clean(stdout, *problem->path ? problem->path : "/");
		fputs(": ", stdout);
	}
	output_clean(stdout, problem->what);
	putchar('\n');
}

static bool same_thing(const struct cpull_problem *a, const struct cpull_problem *b)
{
	return a->layer && b->layer && !strcmp(a->layer, b->layer);
}

static uint64_t problems_of(const struct cpull_fsck_report *report, const char *layer)
{
	for (size_t i = 0; i < report->layer_count; i++)
		if (layer && !strcmp(report->layers[i].name, layer))
			return report->layers[i].problems;
	return 0;
}

static void print_problems(const struct cpull_fsck_report *report)
{
	uint64_t listed = 0;

	for (size_t i = 0; i < report->problem_count; i++) {
		const struct cpull_problem *p = &report->problems[i];
		bool first = !i || !same_thing(p - 1, p);
		bool last = i + 1 == report->problem_count || !same_thing(p, p + 1);

		listed = first ? 1 : listed + 1;
		if (first)
			print_heading(p);
		print_problem(p);
		if (!last)
			continue;
		if (problems_of(report, p->layer) > listed)
			printf("  and %" PRIu64 " more\n", problems_of(report, p->layer) - listed);
		fputs("  -> ", stdout);
		output_clean(stdout, p->advice);
		putchar('\n');
	}
}

static void print_report(const struct cpull_fsck_report *report)
{
	char size[16];

	print_problems(report);
	printf("%s: %zu image%s, %zu layer%s, %s checked", report->problem_total ? "damaged" : "sound",
	       report->image_count, report->image_count == 1 ? "" : "s", report->layer_count,
	       report->layer_count == 1 ? "" : "s", output_size(report->checked_bytes, size));
	if (report->unchecked_layers)
		printf("; of %" PRIu64 " layer%s nothing is recorded to check %s by: pulled by an older version",
		       report->unchecked_layers, report->unchecked_layers == 1 ? "" : "s",
		       report->unchecked_layers == 1 ? "it" : "them");
	putchar('\n');
}

/* ---- the command ---- */

static void tell_done(struct progress *progress, const struct cpull_fsck_report *report)
{
	json_t *event = json_object();

	json_object_set_new(event, "event", json_string("done"));
	json_object_set_new(event, "layers", json_integer((json_int_t)report->layer_count));
	json_object_set_new(event, "problems", output_json_bytes(report->problem_total));
	json_object_set_new(event, "checked_bytes", output_json_bytes(report->checked_bytes));
	json_object_set_new(event, "wall_ms", output_json_bytes(report->wall_ms));
	progress_event(progress, event);
}

static int check(struct cpull_engine *engine, struct options *options, struct progress *progress,
		 struct cpull_error *err)
{
	struct watch watch = {.progress = progress};
	struct cpull_fsck_options fsck = {.size = sizeof(fsck),
					  .images = options->operands,
					  .image_count = options->operand_count,
					  .progress = on_progress,
					  .progress_payload = &watch};
	const struct cpull_fsck_report *report = NULL;
	int code = cpull_fsck(engine, &fsck, &report, err);

	progress_sum(progress, NULL);
	if (report) {
		tell_done(progress, report);
		if (options->format == FORMAT_TEXT) {
			print_report(report);
		} else {
			struct cpull_error own = {0};
			int printed = output_json(report_json(report, err), false, &own);

			options->reported = true;
			if (printed)
				*err = own;
			code = printed ? printed : code;
		}
	}
	cpull_fsck_free(report);
	free(watch.layers);
	return code;
}

int fsck_run(struct options *options, struct cpull_error *err)
{
	struct cpull_engine *engine = NULL;

	interrupt_install();

	struct progress *progress =
		progress_new((enum progress_choice)options->progress, options->log_level >= CPULL_LOG_INFO);

	if (!progress)
		return output_error(err, CPULL_ERR_NOMEM, "out of memory");

	int code = pull_open_engine(options, progress, &engine, err);

	if (!code)
		code = check(engine, options, progress, err);
	cpull_engine_free(engine);
	progress_free(progress);
	return code;
}
