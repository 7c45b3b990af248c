/* SPDX-License-Identifier: Apache-2.0
 *
 * Progress and log lines. The library's threads note layers under `state_lock`, which is held for moments; only the
 * main thread writes them out, so that a reader of standard error who stops reading does not stop the pull. Log lines
 * are written where they arise, under `output_lock`. The lock order is output before state. Owned by the command that
 * pulls.
 */
#include "engine/cli/progress.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/cli/interrupt.h"
#include "engine/cli/layer_view.h"
#include "engine/cli/output.h"
#include "engine/cli/terminal.h"

#define PLAIN_INTERVAL_MS 5000
#define STUCK_MS 1000 /* a non-blocking standard error that takes nothing for so long is given up */

enum progress_mode { MODE_NONE, MODE_PLAIN, MODE_JSON, MODE_TERMINAL };

struct progress {
	enum progress_mode mode;
	bool summary;
	uint64_t started_ms;

	pthread_mutex_t output_lock;
	struct terminal terminal;
	bool output_gone; /* the reader closed its end */

	pthread_mutex_t state_lock;
	struct layer_view *views;
	unsigned count;
	struct rate rate;
};

static uint64_t clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

struct progress *progress_new(enum progress_choice choice, bool summary)
{
	struct progress *progress = calloc(1, sizeof(*progress));
	const char *no_color = getenv("NO_COLOR");

	if (!progress)
		return NULL;
	switch (choice) {
	case PROGRESS_AUTO:
		progress->mode = terminal_usable() ? MODE_TERMINAL : MODE_PLAIN;
		break;
	case PROGRESS_PLAIN:
		progress->mode = MODE_PLAIN;
		break;
	case PROGRESS_JSON:
		progress->mode = MODE_JSON;
		break;
	case PROGRESS_NONE:
		progress->mode = MODE_NONE;
		break;
	}
	progress->summary = summary || progress->mode != MODE_NONE;
	progress->terminal.color = !no_color || !*no_color;
	progress->started_ms = clock_ms();
	pthread_mutex_init(&progress->output_lock, NULL);
	pthread_mutex_init(&progress->state_lock, NULL);
	return progress;
}

void progress_free(struct progress *progress)
{
	if (!progress)
		return;
	pthread_mutex_destroy(&progress->output_lock);
	pthread_mutex_destroy(&progress->state_lock);
	free(progress->views);
	free(progress);
}

/* Writes all of it or gives standard error up for good: progress is never a reason to fail or to hang. */
static void write_out(struct progress *progress, const char *data, size_t len)
{
	while (len && !progress->output_gone) {
		ssize_t wrote = write(STDERR_FILENO, data, len);

		if (wrote >= 0) {
			data += wrote;
			len -= (size_t)wrote;
		} else if (errno == EAGAIN) {
			struct pollfd wait = {.fd = STDERR_FILENO, .events = POLLOUT};

			progress->output_gone = poll(&wait, 1, STUCK_MS) <= 0;
		} else if (errno != EINTR || interrupt_seen()) {
			progress->output_gone = true;
		}
	}
}

void progress_on_layer(const struct cpull_progress *layer, void *payload)
{
	struct progress *progress = payload;

	pthread_mutex_lock(&progress->state_lock);
	if (!progress->views && layer->layer_count) {
		progress->views = calloc(layer->layer_count, sizeof(*progress->views));
		progress->count = progress->views ? layer->layer_count : 0;
	}
	if (layer->layer < progress->count)
		layer_view_update(&progress->views[layer->layer], layer);
	pthread_mutex_unlock(&progress->state_lock);
}

/* Prints {"event": …} and frees it. */
static void print_event(FILE *out, json_t *event)
{
	char *text = event ? json_dumps(event, JSON_ENSURE_ASCII | JSON_COMPACT) : NULL;

	if (text)
		fprintf(out, "%s\n", text);
	free(text);
	json_decref(event);
}

void progress_on_log(enum cpull_log_level level, const char *line, void *payload)
{
	static const char *const names[] = {"error", "warn", "info", "debug"};
	const char *name = (unsigned)level < sizeof(names) / sizeof(names[0]) ? names[level] : "log";
	struct progress *progress = payload;
	char *text = NULL;
	size_t len = 0;

	pthread_mutex_lock(&progress->output_lock);
	FILE *out = open_memstream(&text, &len);
	if (out) {
		if (progress->mode == MODE_JSON) {
			json_t *event = json_object();

			json_object_set_new(event, "event", json_string("log"));
			json_object_set_new(event, "level", json_string(name));
			json_object_set_new(event, "message", output_json_text(line));
			print_event(out, event);
		} else {
			terminal_erase(&progress->terminal, out);
			/* "coco-pull: error:" is kept for the one line that says how it ended. */
			fprintf(out, "coco-pull: [%s] ", name);
			output_clean(out, line);
			fputc('\n', out);
		}
		fclose(out);
		write_out(progress, text, len);
		free(text);
	}
	pthread_mutex_unlock(&progress->output_lock);
}

static void print_json_layers(struct progress *progress, FILE *out)
{
	for (unsigned i = 0; i < progress->count; i++) {
		struct layer_view *view = &progress->views[i];

		if (!view->changed)
			continue;
		view->changed = false;

		json_t *event = json_object();
		json_object_set_new(event, "event", json_string("layer"));
		json_object_set_new(event, "layer", json_integer(i));
		json_object_set_new(event, "layer_count", json_integer(progress->count));
		json_object_set_new(event, "digest", output_json_text(view->digest));
		json_object_set_new(event, "state", json_string(layer_state_name(view->state)));
		json_object_set_new(event, "fetched_bytes", output_json_bytes(view->fetched_bytes));
		json_object_set_new(event, "total_bytes", output_json_bytes(view->total_bytes));
		json_object_set_new(event, "unpacked_bytes", output_json_bytes(view->unpacked_bytes));
		json_object_set_new(event, "encrypted", json_boolean(view->encrypted));
		print_event(out, event);
	}
}

static void print_plain_state(FILE *out, const struct layer_view *view)
{
	char size[16];

	switch (view->state) {
	case CPULL_LAYER_WAITING:
		fputs("waiting", out);
		break;
	case CPULL_LAYER_PULLING:
		fprintf(out, "pulling %s%s", output_size(view->total_bytes, size),
			view->encrypted ? ", encrypted" : "");
		break;
	case CPULL_LAYER_VERIFIED:
		fprintf(out, "verified, %s unpacked", output_size(view->unpacked_bytes, size));
		break;
	case CPULL_LAYER_REUSED:
		fputs("already in the store", out);
		break;
	case CPULL_LAYER_FAILED:
		fputs("failed", out);
		break;
	}
}

static void print_plain_layers(struct progress *progress, FILE *out, uint64_t now_ms)
{
	for (unsigned i = 0; i < progress->count; i++) {
		struct layer_view *view = &progress->views[i];
		bool state_changed = view->state != view->said_state;
		bool is_long = view->state == CPULL_LAYER_PULLING && now_ms - view->said_at_ms >= PLAIN_INTERVAL_MS;

		rate_update(&view->rate, now_ms, view->fetched_bytes);
		if (!state_changed && !is_long)
			continue;
		fprintf(out, "coco-pull: layer %u/%u %s: ", i + 1, progress->count, view->short_digest);
		if (state_changed) {
			print_plain_state(out, view);
		} else {
			char fetched[16], total[16], speed[16];

			fprintf(out, "%s of %s, %s/s", output_size(view->fetched_bytes, fetched),
				output_size(view->total_bytes, total),
				output_size((uint64_t)view->rate.bytes_per_second, speed));
		}
		fputc('\n', out);
		view->said_state = view->state;
		view->said_at_ms = now_ms;
	}
}

void progress_tick(struct progress *progress)
{
	uint64_t now = clock_ms();
	char *text = NULL;
	size_t len = 0;

	if (progress->mode == MODE_NONE)
		return;
	FILE *out = open_memstream(&text, &len);
	if (!out)
		return;
	pthread_mutex_lock(&progress->output_lock);
	pthread_mutex_lock(&progress->state_lock);
	if (progress->mode == MODE_JSON)
		print_json_layers(progress, out);
	else if (progress->mode == MODE_PLAIN)
		print_plain_layers(progress, out, now);
	else if (progress->count)
		terminal_draw(&progress->terminal, out, progress->views, progress->count, &progress->rate,
			      now - progress->started_ms, now);
	pthread_mutex_unlock(&progress->state_lock);
	fclose(out);
	write_out(progress, text, len);
	pthread_mutex_unlock(&progress->output_lock);
	free(text);
}

/* Takes what was printed into a stream in memory. */
static void write_stream(struct progress *progress, FILE *out, char **text, size_t *len)
{
	fclose(out);
	pthread_mutex_lock(&progress->output_lock);
	write_out(progress, *text, *len);
	pthread_mutex_unlock(&progress->output_lock);
	free(*text);
}

void progress_event(struct progress *progress, json_t *event)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = progress->mode == MODE_JSON ? open_memstream(&text, &len) : NULL;

	if (!out) {
		json_decref(event);
		return;
	}
	print_event(out, event);
	write_stream(progress, out, &text, &len);
}

void progress_said(struct progress *progress, const char *line)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = progress->mode == MODE_PLAIN ? open_memstream(&text, &len) : NULL;

	if (!out)
		return;
	fputs("coco-pull: ", out);
	output_clean(out, line);
	fputc('\n', out);
	write_stream(progress, out, &text, &len);
}

void progress_sum(struct progress *progress, const struct progress_sum *sum)
{
	char line[256] = "", bytes[16], total[16], speed[16];
	uint64_t now = clock_ms();
	char *text = NULL;
	size_t len = 0;
	FILE *out = progress->mode == MODE_TERMINAL ? open_memstream(&text, &len) : NULL;

	if (!out)
		return;
	if (sum) {
		rate_update(&progress->rate, now, sum->bytes);
		snprintf(line, sizeof(line), "%zu of %zu layer%s, %s of %s, %s/s, %u s", sum->done, sum->count,
			 sum->count == 1 ? "" : "s", output_size(sum->bytes, bytes),
			 output_size(sum->total_bytes, total),
			 output_size((uint64_t)progress->rate.bytes_per_second, speed),
			 (unsigned)((now - progress->started_ms) / 1000));
	}
	if (sum && sum->problems)
		snprintf(line + strlen(line), sizeof(line) - strlen(line), ", %llu problem%s",
			 (unsigned long long)sum->problems, sum->problems == 1 ? "" : "s");
	pthread_mutex_lock(&progress->output_lock);
	terminal_draw_text(&progress->terminal, out, line);
	fclose(out);
	write_out(progress, text, len);
	pthread_mutex_unlock(&progress->output_lock);
	free(text);
}

void progress_finish(struct progress *progress, const struct cpull_result *result)
{
	char *text = NULL;
	size_t len = 0;

	progress_tick(progress);
	if (!result || !progress->summary)
		return;
	FILE *out = open_memstream(&text, &len);
	if (!out)
		return;
	if (progress->mode == MODE_JSON) {
		json_t *event = json_object();

		json_object_set_new(event, "event", json_string("done"));
		json_object_set_new(event, "reference", output_json_text(result->reference));
		json_object_set_new(event, "manifest_digest", output_json_text(result->manifest_digest));
		json_object_set_new(event, "bytes_fetched", output_json_bytes(result->stats.bytes_fetched));
		json_object_set_new(event, "bytes_unpacked", output_json_bytes(result->stats.bytes_unpacked));
		json_object_set_new(event, "wall_ms", output_json_bytes(result->stats.wall_ms));
		print_event(out, event);
	} else {
		fputs("coco-pull: ", out);
		output_summary(out, result);
		fputc('\n', out);
	}
	fclose(out);
	pthread_mutex_lock(&progress->output_lock);
	write_out(progress, text, len);
	pthread_mutex_unlock(&progress->output_lock);
	free(text);
}
