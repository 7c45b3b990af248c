/* SPDX-License-Identifier: Apache-2.0
 *
 * The zstd decoders of an engine. Called by the open threads; one lock, held while a decoder is chosen. Decoders that
 * nobody uses are kept, since a fresh window costs its page faults again, and are freed when their room is needed.
 */
#include "engine/window_bank.h"

#include <assert.h>
#include <malloc.h>
#include <pthread.h>
#include <zstd.h>

#include "engine/base/error.h"
#include "engine/base/limits.h"

/* Two windows of 8 MiB, which is what most images ask for: with one, their layers would be inflated one by one. A small
 * budget gives up to two thirds for that. */
#define USUAL_WINDOWS_BYTES (16u << 20)

struct window_bank {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	size_t total;
	size_t used;  /* on loan and idle */
	size_t aside; /* not for windows */
	size_t idle_count;
	struct window_lease idle[LIMIT_JOBS];
};

size_t window_bank_share(uint64_t memory_bytes)
{
	return (size_t)MAX(memory_bytes / 2, MIN(memory_bytes / 3 * 2, USUAL_WINDOWS_BYTES));
}

uint64_t window_bank_budget(uint64_t window_bytes)
{
	return window_bytes > USUAL_WINDOWS_BYTES ? window_bytes * 2 : (window_bytes + 1) / 2 * 3;
}

int window_bank_new(size_t total_bytes, struct window_bank **out, struct cpull_error *err)
{
	struct window_bank *bank = calloc(1, sizeof(*bank));

	if (!bank)
		return error_nomem(err);
	pthread_mutex_init(&bank->lock, NULL);
	pthread_cond_init(&bank->changed, NULL);
	bank->total = total_bytes;
	*out = bank;
	return 0;
}

static void drop(struct window_bank *bank, struct window_lease *lease)
{
	ZSTD_freeDCtx(lease->decoder);
	bank->used -= lease->window_bytes;
	*lease = (struct window_lease){0};
}

void window_bank_free(struct window_bank *bank)
{
	if (!bank)
		return;
	for (size_t i = 0; i < bank->idle_count; i++)
		drop(bank, &bank->idle[i]);
	assert(bank->used == 0);
	pthread_cond_destroy(&bank->changed);
	pthread_mutex_destroy(&bank->lock);
	free(bank);
}

size_t window_bank_total(const struct window_bank *bank)
{
	return bank->total;
}

/* Under the lock: the smallest idle decoder that is large enough. */
static bool take_idle(struct window_bank *bank, size_t window_bytes, struct window_lease *out)
{
	size_t best = bank->idle_count;

	for (size_t i = 0; i < bank->idle_count; i++)
		if (bank->idle[i].window_bytes >= window_bytes &&
		    (best == bank->idle_count || bank->idle[i].window_bytes < bank->idle[best].window_bytes))
			best = i;
	if (best == bank->idle_count)
		return false;
	*out = bank->idle[best];
	bank->idle[best] = bank->idle[--bank->idle_count];
	return true;
}

/* Under the lock. malloc keeps what is freed here for the thread's next request, and that may never come: the budget
 * needs it back. */
static bool make_room(struct window_bank *bank, size_t window_bytes)
{
	bool dropped = false;

	while (bank->used + bank->aside + window_bytes > bank->total && bank->idle_count) {
		drop(bank, &bank->idle[--bank->idle_count]);
		dropped = true;
	}
#ifdef __GLIBC__
	if (dropped)
		malloc_trim(0);
#endif
	return bank->used + bank->aside + window_bytes <= bank->total || !bank->used;
}

/* Under the lock. */
static int make(struct window_bank *bank, size_t window_bytes, struct window_lease *out)
{
	ZSTD_DCtx *decoder = ZSTD_createDCtx();

	if (!decoder)
		return CPULL_ERR_NOMEM;
	/* our own check of the frame header comes first; this is libzstd's own limit raised to ours */
	ZSTD_DCtx_setParameter(decoder, ZSTD_d_windowLogMax, LIMIT_ZSTD_WINDOW_LOG);
	bank->used += window_bytes;
	*out = (struct window_lease){decoder, window_bytes};
	return 0;
}

int window_bank_take(struct window_bank *bank, size_t window_bytes, const atomic_bool *cancelled,
		     struct window_lease *out, uint64_t *wait_ns)
{
	uint64_t since = 0;
	int rc = 0;

	assert(window_bytes <= bank->total);
	pthread_mutex_lock(&bank->lock);
	for (;;) {
		if (atomic_load(cancelled))
			rc = CPULL_ERR_CANCELLED;
		else if (take_idle(bank, window_bytes, out))
			rc = 0;
		else if (make_room(bank, window_bytes))
			rc = make(bank, window_bytes, out);
		else {
			if (!since)
				since = now_ns();
			pthread_cond_wait(&bank->changed, &bank->lock);
			continue;
		}
		break;
	}
	pthread_mutex_unlock(&bank->lock);
	if (since)
		*wait_ns += now_ns() - since;
	return rc;
}

void window_bank_give(struct window_bank *bank, struct window_lease *lease)
{
	if (!lease->decoder)
		return;
	pthread_mutex_lock(&bank->lock);
	ZSTD_DCtx_reset(lease->decoder, ZSTD_reset_session_only);
	if (bank->idle_count < ARRAY_LEN(bank->idle)) {
		bank->idle[bank->idle_count++] = *lease;
		*lease = (struct window_lease){0};
	} else {
		drop(bank, lease);
	}
	pthread_cond_broadcast(&bank->changed);
	pthread_mutex_unlock(&bank->lock);
}

void window_bank_set_aside(struct window_bank *bank, size_t bytes)
{
	pthread_mutex_lock(&bank->lock);
	bank->aside += bytes;
	make_room(bank, 0);
	pthread_mutex_unlock(&bank->lock);
}

void window_bank_set_aside_end(struct window_bank *bank, size_t bytes)
{
	pthread_mutex_lock(&bank->lock);
	assert(bank->aside >= bytes);
	bank->aside -= bytes;
	pthread_cond_broadcast(&bank->changed);
	pthread_mutex_unlock(&bank->lock);
}

void window_bank_wake(struct window_bank *bank)
{
	pthread_mutex_lock(&bank->lock);
	pthread_cond_broadcast(&bank->changed);
	pthread_mutex_unlock(&bank->lock);
}
