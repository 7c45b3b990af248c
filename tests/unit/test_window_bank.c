/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/window_bank: the sum of all zstd windows stays below the total, decoders are handed on, and waiting ends by
 * a return or a cancel.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include "engine/window_bank.h"

#define MIB ((size_t)1 << 20)

static atomic_bool never;
static uint64_t waited_ns; /* by whoever need not wait */

struct waiter {
	struct window_bank *bank;
	atomic_bool cancelled;
	atomic_bool got;
	atomic_int tid;
	uint64_t waited_ns;
	int rc;
};

static void *wait_for_window(void *payload)
{
	struct waiter *w = payload;
	struct window_lease lease = {0};

	atomic_store(&w->tid, gettid());
	w->rc = window_bank_take(w->bank, 6 * MIB, &w->cancelled, &lease, &w->waited_ns);
	atomic_store(&w->got, true);
	window_bank_give(w->bank, &lease);
	return NULL;
}

/* Returns when the waiter sleeps, which it does nowhere else. */
static void until_it_waits(const struct waiter *w)
{
	char path[64], state = 0;

	while (state != 'S') {
		int tid = atomic_load(&w->tid);
		CLEANUP_FILE FILE *f = NULL;

		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
		f = tid ? fopen(path, "re") : NULL;
		if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			state = 0;
		usleep(1000);
	}
}

static void decoders_are_handed_on(void **state)
{
	struct window_bank *bank;
	struct window_lease a = {0}, b = {0};

	(void)state;
	assert_int_equal(window_bank_new(8 * MIB, &bank, NULL), 0);
	assert_int_equal(window_bank_take(bank, 4 * MIB, &never, &a, &waited_ns), 0);

	void *decoder = a.decoder;

	window_bank_give(bank, &a);
	assert_null(a.decoder);
	assert_int_equal(window_bank_take(bank, 2 * MIB, &never, &b, &waited_ns), 0);
	assert_ptr_equal(b.decoder, decoder);
	assert_int_equal(b.window_bytes, 4 * MIB);
	window_bank_give(bank, &b);
	/* an idle one makes room for a larger one */
	assert_int_equal(window_bank_take(bank, 8 * MIB, &never, &a, &waited_ns), 0);
	assert_int_equal(a.window_bytes, 8 * MIB);
	window_bank_give(bank, &a);
	window_bank_free(bank);
}

static void wait_ends(bool by_cancel)
{
	struct window_bank *bank;
	struct window_lease a = {0};
	struct waiter w = {0};
	pthread_t thread;

	assert_int_equal(window_bank_new(8 * MIB, &bank, NULL), 0);
	assert_int_equal(window_bank_take(bank, 4 * MIB, &never, &a, &waited_ns), 0);
	w.bank = bank;
	assert_int_equal(pthread_create(&thread, NULL, wait_for_window, &w), 0);
	until_it_waits(&w);
	assert_false(atomic_load(&w.got)); /* 4 + 6 are more than 8 */
	if (by_cancel) {
		atomic_store(&w.cancelled, true);
		window_bank_wake(bank);
	} else {
		window_bank_give(bank, &a);
	}
	pthread_join(thread, NULL);
	assert_int_equal(w.rc, by_cancel ? CPULL_ERR_CANCELLED : 0);
	assert_true(w.waited_ns > 0);
	assert_int_equal(waited_ns, 0);
	window_bank_give(bank, &a);
	window_bank_free(bank);
}

static void wait_ends_by_return(void **state)
{
	(void)state;
	wait_ends(false);
}

static void wait_ends_by_cancel(void **state)
{
	(void)state;
	wait_ends(true);
}

static void idle_windows_give_way(void)
{
	struct window_bank *bank;
	struct window_lease a = {0}, b = {0};

	assert_int_equal(window_bank_new(8 * MIB, &bank, NULL), 0);
	assert_int_equal(window_bank_take(bank, 4 * MIB, &never, &a, &waited_ns), 0);
	window_bank_give(bank, &a);
	window_bank_set_aside(bank, 5 * MIB);
	/* alone, one may have all of the total, whatever was set aside, and after that whatever it gave back */
	assert_int_equal(window_bank_take(bank, 3 * MIB, &never, &a, &waited_ns), 0);
	assert_int_equal(a.window_bytes, 3 * MIB);
	window_bank_give(bank, &a);
	assert_int_equal(window_bank_take(bank, 8 * MIB, &never, &b, &waited_ns), 0);
	window_bank_give(bank, &b);
	window_bank_set_aside_end(bank, 5 * MIB);
	window_bank_free(bank);
}

static void what_is_set_aside_is_not_for_windows(void **state)
{
	struct window_bank *bank;
	struct window_lease a = {0};
	struct waiter w = {0};
	pthread_t thread;

	(void)state;
	idle_windows_give_way();
	assert_int_equal(window_bank_new(11 * MIB, &bank, NULL), 0);
	window_bank_set_aside(bank, 2 * MIB);
	assert_int_equal(window_bank_take(bank, 4 * MIB, &never, &a, &waited_ns), 0);
	w.bank = bank;
	assert_int_equal(pthread_create(&thread, NULL, wait_for_window, &w), 0);
	until_it_waits(&w);
	assert_false(atomic_load(&w.got)); /* 2 + 4 + 6 are more than 11 */
	window_bank_set_aside_end(bank, 2 * MIB);
	pthread_join(thread, NULL);
	assert_int_equal(w.rc, 0);
	window_bank_give(bank, &a);
	window_bank_free(bank);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decoders_are_handed_on),
		cmocka_unit_test(wait_ends_by_return),
		cmocka_unit_test(wait_ends_by_cancel),
		cmocka_unit_test(what_is_set_aside_is_not_for_windows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
