/* SPDX-License-Identifier: Apache-2.0
 *
 * A block of lines at the bottom of a terminal that is redrawn in place.
 */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include <stdbool.h>
#include <stdio.h>

#include "engine/cli/layer_view.h"

#define TERMINAL_LINES 128 /* more layers than that are never shown at once, however tall the window is */

struct terminal {
	bool color;
	unsigned columns; /* as of the last draw */
	unsigned rows;
	unsigned drawn_columns[TERMINAL_LINES]; /* of each line that stands there now */
	unsigned drawn_count;
};

/* Is standard error a terminal that can move its cursor? */
bool terminal_usable(void);
/* Appends to `out` what takes the block off the screen. */
void terminal_erase(struct terminal *terminal, FILE *out);
/* Appends to `out` what replaces the block by one line a layer and a line on the whole; when the window has not that
 * many rows, only layers under way are shown. Asks the window's size anew. Updates the layers' rates. */
void terminal_draw(struct terminal *terminal, FILE *out, struct layer_view *views, unsigned count,
		   struct rate *rate, uint64_t elapsed_ms, uint64_t now_ms);

/* Appends to `out` what replaces the block by one line, or by nothing where the text is empty. */
void terminal_draw_text(struct terminal *terminal, FILE *out, const char *text);

#endif
