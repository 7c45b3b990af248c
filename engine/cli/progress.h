/* SPDX-License-Identifier: Apache-2.0
 *
 * Progress and log lines on standard error: redrawn in place on a terminal, as plain lines, as JSON lines, or not at
 * all.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <jansson.h>

#include "engine/cli/options.h"

struct progress;

/* NULL when memory is out. `auto` looks at standard error, TERM and NO_COLOR now. */
struct progress *progress_new(enum progress_choice choice, bool summary);
void progress_free(struct progress *progress);

/* The library's callbacks, on its threads; the payload is the struct progress. The first only notes, the second
 * writes its line. */
void progress_on_layer(const struct cpull_progress *layer, void *payload);
void progress_on_log(enum cpull_log_level level, const char *line, void *payload);

/* Writes what has changed; the main thread calls it about ten times a second. */
void progress_tick(struct progress *progress);
/* For commands that have progress of another kind, on the main thread. */

/* One line of JSON; frees the event. Nothing in the other forms. */
void progress_event(struct progress *progress, json_t *event);
/* A line for good, where progress is plain lines. */
void progress_said(struct progress *progress, const char *text);
struct progress_sum {
	size_t done, count; /* layers */
	uint64_t bytes, total_bytes;
	uint64_t problems;
};
/* The line that is redrawn on a terminal; NULL takes it away. */
void progress_sum(struct progress *progress, const struct progress_sum *sum);

/* The last tick, and the summary of a pull that went well (result is NULL for one that did not). */
void progress_finish(struct progress *progress, const struct cpull_result *result);

#endif
