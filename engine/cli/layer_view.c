/* SPDX-License-Identifier: Apache-2.0
 *
 * The state of each layer as progress shows it. Called under the lock of progress.c; owns nothing.
 */
#include "engine/cli/layer_view.h"

#include <stdio.h>
#include <string.h>

#include "engine/cli/output.h"

#define RATE_SAMPLE_MS 500
#define RATE_NEW_SHARE 0.5 /* of a sample in the smoothed figure */

void rate_update(struct rate *rate, uint64_t now_ms, uint64_t bytes)
{
	if (!rate->at_ms) {
		rate->at_ms = now_ms;
		rate->bytes = bytes;
		return;
	}
	uint64_t elapsed_ms = now_ms - rate->at_ms;
	if (elapsed_ms < RATE_SAMPLE_MS)
		return;
	double sample = bytes > rate->bytes ? (double)(bytes - rate->bytes) * 1000 / (double)elapsed_ms : 0;
	rate->bytes_per_second = rate->bytes_per_second == 0 ? sample :
							       rate->bytes_per_second * (1 - RATE_NEW_SHARE) +
								       sample * RATE_NEW_SHARE;
	rate->at_ms = now_ms;
	rate->bytes = bytes;
}

void layer_view_update(struct layer_view *view, const struct cpull_progress *progress)
{
	if (!view->known) {
		snprintf(view->digest, sizeof(view->digest), "%s", progress->digest ? progress->digest : "");
		output_short_digest(view->digest, view->short_digest);
		view->known = true;
	}
	view->changed = true;
	view->state = progress->state;
	view->fetched_bytes = progress->fetched_bytes;
	view->total_bytes = progress->total_bytes;
	view->unpacked_bytes = progress->unpacked_bytes;
	view->encrypted = progress->encrypted;
}

struct layer_totals layer_views_total(const struct layer_view *views, unsigned count)
{
	struct layer_totals totals = {0};

	for (unsigned i = 0; i < count; i++) {
		totals.done += views[i].state == CPULL_LAYER_VERIFIED || views[i].state == CPULL_LAYER_REUSED;
		if (views[i].state == CPULL_LAYER_REUSED)
			continue;
		totals.fetched_bytes += views[i].fetched_bytes;
		totals.total_bytes += views[i].total_bytes;
	}
	return totals;
}

const char *layer_view_word(const struct layer_view *view)
{
	switch (view->state) {
	case CPULL_LAYER_WAITING:
		return "waiting";
	case CPULL_LAYER_PULLING:
		return view->total_bytes && view->fetched_bytes >= view->total_bytes ? "unpacking" : "pulling";
	case CPULL_LAYER_VERIFIED:
		return "verified";
	case CPULL_LAYER_REUSED:
		return "in store";
	case CPULL_LAYER_FAILED:
		return "failed";
	}
	return "unknown";
}

const char *layer_state_name(enum cpull_layer_state state)
{
	static const char *const names[] = {"waiting", "pulling", "verified", "reused", "failed"};

	return (unsigned)state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}
