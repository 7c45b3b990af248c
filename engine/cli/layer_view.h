/* SPDX-License-Identifier: Apache-2.0
 *
 * What is known about each layer of a pull, as progress shows it, and transfer rates.
 */
#ifndef CLI_LAYER_VIEW_H
#define CLI_LAYER_VIEW_H

#include "engine/coco_pull.h"

/* Smoothed bytes per second, sampled by whoever shows it. */
struct rate {
	uint64_t at_ms;
	uint64_t bytes;
	double bytes_per_second;
};

struct layer_view {
	bool known; /* the library has spoken of it */
	bool changed; /* since it was last shown, for JSON */
	char digest[144]; /* sha512 is 135 */
	char short_digest[13];
	enum cpull_layer_state state;
	uint64_t fetched_bytes;
	uint64_t total_bytes;
	uint64_t unpacked_bytes;
	bool encrypted;
	struct rate rate;
	/* Plain lines: what was said last, and when. */
	enum cpull_layer_state said_state;
	uint64_t said_at_ms;
};

/* The sum over all layers; layers that were in the store already count as layers, not as bytes. */
struct layer_totals {
	unsigned done;
	uint64_t fetched_bytes;
	uint64_t total_bytes;
};

/* Takes a sample when the last is half a second old. */
void rate_update(struct rate *rate, uint64_t now_ms, uint64_t bytes);
void layer_view_update(struct layer_view *view, const struct cpull_progress *progress);
struct layer_totals layer_views_total(const struct layer_view *views, unsigned count);
/* "waiting", "pulling", "unpacking" when all is fetched, "verified", "in store", "failed". */
const char *layer_view_word(const struct layer_view *view);
/* The state as JSON says it: the enum's name in lower case. */
const char *layer_state_name(enum cpull_layer_state state);

#endif
