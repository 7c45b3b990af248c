/* SPDX-License-Identifier: Apache-2.0
 *
 * Drawing progress on a terminal. Called by progress.c under its locks, on the main thread, and from a logging thread
 * for erasing; writes into a stream in memory that goes out in one write(). The cursor is hidden only within that
 * write and left below the block, so that a kill, a stop or a second Ctrl-C at any moment finds the terminal as it
 * should be.
 */
#include "engine/cli/terminal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/cli/output.h"

#define DIGEST_COLUMNS 12
#define STATE_COLUMNS 9
#define SIZE_COLUMNS 10
#define RATE_COLUMNS 12
#define GAP 2
#define BAR_MIN 10
#define BAR_MAX 40
#define LINE_BYTES 256

/* One line under construction: text without escapes, and where its coloured tail begins. */
struct line {
	char text[LINE_BYTES];
	unsigned len;
	const char *tail;
	const char *color; /* SGR parameters for the tail, or NULL */
};

bool terminal_usable(void)
{
	const char *term = getenv("TERM");

	return isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb");
}

static void query_size(struct terminal *terminal)
{
	struct winsize size;

	terminal->columns = 80;
	terminal->rows = 24;
	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size))
		return;
	if (size.ws_col)
		terminal->columns = size.ws_col;
	if (size.ws_row)
		terminal->rows = size.ws_row;
}

void terminal_erase(struct terminal *terminal, FILE *out)
{
	unsigned rows = 0;

	if (!terminal->drawn_count)
		return;
	/* A window that was made narrower has wrapped the lines that stand there. */
	query_size(terminal);
	for (unsigned i = 0; i < terminal->drawn_count; i++) {
		unsigned columns = terminal->drawn_columns[i];

		rows += columns ? (columns + terminal->columns - 1) / terminal->columns : 1;
	}
	if (rows >= terminal->rows)
		rows = terminal->rows - 1;
	if (rows)
		fprintf(out, "\033[%uA", rows);
	fputs("\r\033[J", out);
	terminal->drawn_count = 0;
}

static void add(struct line *line, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(struct line *line, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	int len = vsnprintf(line->text + line->len, sizeof(line->text) - line->len, fmt, args);
	va_end(args);
	if (len > 0)
		line->len += (unsigned)len;
	if (line->len >= sizeof(line->text))
		line->len = sizeof(line->text) - 1;
}

/* The last column stays free: writing it leaves some terminals on the next line. */
static void put_line(struct terminal *terminal, FILE *out, const struct line *line)
{
	unsigned room = terminal->columns > 1 ? terminal->columns - 1 : 1;
	unsigned len = line->len < room ? line->len : room;
	unsigned tail_len = line->tail ? (unsigned)strlen(line->tail) : 0;

	fwrite(line->text, 1, len, out);
	if (tail_len > room - len)
		tail_len = room - len;
	if (tail_len) {
		bool colored = terminal->color && line->color;

		fprintf(out, "%s%s%s%.*s%s", colored ? "\033[" : "", colored ? line->color : "", colored ? "m" : "",
			(int)tail_len, line->tail, colored ? "\033[0m" : "");
	}
	fputs("\033[K\n", out);
	if (terminal->drawn_count < TERMINAL_LINES)
		terminal->drawn_columns[terminal->drawn_count++] = len + tail_len;
}

static void add_bar(struct line *line, unsigned width, uint64_t done, uint64_t total)
{
	char bar[BAR_MAX + 1];
	unsigned inner = width - 2;
	double share = total ? (double)done / (double)total : 0;
	unsigned filled = share >= 1 ? inner : (unsigned)(share * inner);

	memset(bar, ' ', inner);
	memset(bar, '=', filled);
	if (filled && filled < inner)
		bar[filled - 1] = '>';
	add(line, "  [%.*s]", (int)inner, bar);
}

static const char *state_color(enum cpull_layer_state state)
{
	switch (state) {
	case CPULL_LAYER_VERIFIED:
	case CPULL_LAYER_REUSED:
		return "32";
	case CPULL_LAYER_FAILED:
		return "31";
	case CPULL_LAYER_WAITING:
		return "2";
	case CPULL_LAYER_PULLING:
		break;
	}
	return NULL;
}

/* Digest and state always; sizes, then the rate, then a bar as the width allows. */
static void draw_layer(struct terminal *terminal, FILE *out, const struct layer_view *view)
{
	struct line line = {.tail = layer_view_word(view), .color = state_color(view->state)};
	unsigned used = DIGEST_COLUMNS + GAP + STATE_COLUMNS + 1;
	unsigned sizes = 2 * SIZE_COLUMNS + 3 + GAP;
	unsigned rate = RATE_COLUMNS + GAP;
	bool with_sizes = terminal->columns >= used + sizes;
	bool with_rate = terminal->columns >= used + sizes + rate;
	bool reused = view->state == CPULL_LAYER_REUSED;
	char fetched[16], total[16];

	used += (with_sizes ? sizes : 0) + (with_rate ? rate : 0);
	add(&line, "%-12s", view->short_digest);
	if (terminal->columns >= used + BAR_MIN + GAP) {
		unsigned width = terminal->columns - used - GAP;

		add_bar(&line, width < BAR_MAX ? width : BAR_MAX, reused ? 1 : view->fetched_bytes,
			reused ? 1 : view->total_bytes);
	}
	if (with_sizes)
		add(&line, "  %10s %s %10s", reused ? "" : output_size(view->fetched_bytes, fetched),
		    reused ? " " : "/", output_size(view->total_bytes, total));
	if (with_rate && view->state == CPULL_LAYER_PULLING)
		add(&line, "  %10s/s", output_size((uint64_t)view->rate.bytes_per_second, fetched));
	else if (with_rate)
		add(&line, "%*s", (int)rate, "");
	add(&line, "  ");
	put_line(terminal, out, &line);
}

static void draw_summary(struct terminal *terminal, FILE *out, const struct layer_view *views, unsigned count,
			 const struct rate *rate, unsigned hidden, uint64_t elapsed_ms)
{
	struct layer_totals totals = layer_views_total(views, count);
	char fetched[16], total[16], speed[16];
	struct line line = {0};

	add(&line, "%u of %u layer%s, %s of %s, %s/s, %u s", totals.done, count, count == 1 ? "" : "s",
	    output_size(totals.fetched_bytes, fetched), output_size(totals.total_bytes, total),
	    output_size((uint64_t)rate->bytes_per_second, speed), (unsigned)(elapsed_ms / 1000));
	if (hidden)
		add(&line, " (%u not shown)", hidden);
	put_line(terminal, out, &line);
}

static bool is_active(const struct layer_view *view)
{
	return view->state == CPULL_LAYER_PULLING || view->state == CPULL_LAYER_FAILED;
}

void terminal_draw(struct terminal *terminal, FILE *out, struct layer_view *views, unsigned count,
		   struct rate *rate, uint64_t elapsed_ms, uint64_t now_ms)
{
	fputs("\033[?25l", out);
	terminal_erase(terminal, out);
	query_size(terminal);

	/* One row for the summary, one for the cursor below it. */
	unsigned room = terminal->rows > 2 ? terminal->rows - 2 : 0;
	if (room > TERMINAL_LINES - 1)
		room = TERMINAL_LINES - 1;
	bool all = count <= room;
	unsigned shown = 0;

	rate_update(rate, now_ms, layer_views_total(views, count).fetched_bytes);
	for (unsigned i = 0; i < count; i++) {
		rate_update(&views[i].rate, now_ms, views[i].fetched_bytes);
		if (!(all || is_active(&views[i])) || shown >= room)
			continue;
		draw_layer(terminal, out, &views[i]);
		shown++;
	}
	draw_summary(terminal, out, views, count, rate, count - shown, elapsed_ms);
	fputs("\033[?25h", out);
}

void terminal_draw_text(struct terminal *terminal, FILE *out, const char *text)
{
	struct line line = {0};

	terminal_erase(terminal, out);
	if (!*text)
		return;
	query_size(terminal);
	add(&line, "%s", text);
	put_line(terminal, out, &line);
}
