/* SPDX-License-Identifier: Apache-2.0
 *
 * The zstd decoders of an engine. A frame says how large its window is, and real layers ask for anything from 128
 * KiB to 128 MiB; the bank keeps the sum of all windows below its total, whoever asks, and hands used decoders on to
 * the next layer.
 *
 * What a layer needs for something else than a window, for as long as it is in progress, is taken out of the total.
 *
 * Why waiting here cannot lock up: a layer that waits holds no window (it gives its own back before it asks for a
 * larger one), and a layer that holds one needs nothing of those that wait. Where no window is on loan, one that fits
 * the total is given, whatever else was taken out of it.
 */
#ifndef ENGINE_WINDOW_BANK_H
#define ENGINE_WINDOW_BANK_H

#include <stdatomic.h>

#include "engine/base/util.h"

struct window_bank;

/* A decoder on loan. */
struct window_lease {
	void *decoder;       /* a ZSTD_DCtx; NULL when nothing is on loan */
	size_t window_bytes; /* what it has room for */
};

/* What the windows of all layers may take of a memory budget, and the least budget that has room for a window. */
size_t window_bank_share(uint64_t memory_bytes);
uint64_t window_bank_budget(uint64_t window_bytes);

MUST_CHECK int window_bank_new(size_t total_bytes, struct window_bank **out, struct cpull_error *err);
/* Everything must have been given back. NULL is fine. */
void window_bank_free(struct window_bank *bank);
size_t window_bank_total(const struct window_bank *bank);
/* Waits for room for a window of window_bytes (at most the total), and adds the time that took to *wait_ns.
 * CPULL_ERR_CANCELLED once *cancelled is set, see below; CPULL_ERR_NOMEM. */
MUST_CHECK int window_bank_take(struct window_bank *bank, size_t window_bytes, const atomic_bool *cancelled,
				struct window_lease *out, uint64_t *wait_ns);
/* Empties the lease. One that is empty is fine. */
void window_bank_give(struct window_bank *bank, struct window_lease *lease);
/* Memory for something else; waits for nothing. Windows that are on loan stay so. */
void window_bank_set_aside(struct window_bank *bank, size_t bytes);
void window_bank_set_aside_end(struct window_bank *bank, size_t bytes);
/* To be called after *cancelled of a waiter was set. */
void window_bank_wake(struct window_bank *bank);

#endif
