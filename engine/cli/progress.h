/* SPDX-License-Identifier: Apache-2.0
 *
 * Progress and log lines on standard error: redrawn in place on a terminal, as plain lines, as JSON lines, or not at
 * all.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

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
/* The last tick, and the summary of a pull that went well (result is NULL for one that did not). */
void progress_finish(struct progress *progress, const struct cpull_result *result);

#endif
