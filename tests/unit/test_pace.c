/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch/pace: networks in numbers, and how many connections a blob gets on them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "fetch/pace.h"

#define TICK_NS (PACE_TICK_MS * 1000000ull)
#define MIB (1ull << 20)

/* A link with so many bytes a tick for each connection and for all; others take their share of it. */
struct network {
	uint64_t each;
	uint64_t all;
	unsigned others;
	bool waited;
};

static void run(struct pace *pace, const struct network *net, unsigned ticks)
{
	while (ticks--) {
		uint64_t per = MIN(net->each, net->all / (pace->connections + net->others));
		struct pace_sample sample = {.bytes = per * pace->connections,
					     .all_bytes = per * (pace->connections + net->others),
					     .ns = TICK_NS,
					     .waited = net->waited};

		pace_tick(pace, &sample);
		assert_in_range(pace->connections, 1, pace->max);
	}
}

static void what_is_limited_for_each_is_multiplied(void **state)
{
	struct pace pace;

	(void)state;
	pace_init(&pace, 8);
	run(&pace, &(struct network){.each = MIB, .all = 1000 * MIB}, 20);
	assert_int_equal(pace.connections, 8);
	/* and stays */
	run(&pace, &(struct network){.each = MIB, .all = 1000 * MIB}, 5000);
	assert_int_equal(pace.connections, 8);
	pace_init(&pace, 5);
	run(&pace, &(struct network){.each = MIB, .all = 1000 * MIB}, 20);
	assert_int_equal(pace.connections, 5);
	pace_init(&pace, 1);
	run(&pace, &(struct network){.each = MIB, .all = 1000 * MIB}, 20);
	assert_int_equal(pace.connections, 1);
	assert_true(pace_is_settled(&pace));
}

static void a_full_link_gets_one(void **state)
{
	struct network net = {.each = 10 * MIB, .all = 10 * MIB};
	struct pace pace;
	unsigned with_more = 0;

	(void)state;
	pace_init(&pace, 8);
	for (unsigned i = 0; i < 5000; i++) {
		run(&pace, &net, 1);
		with_more += pace.connections > 1;
	}
	assert_int_equal(pace.connections, 1);
	/* it was tried now and then, and less and less often */
	assert_in_range(with_more, 3, 60);
}

static void the_number_that_helped_is_kept(void **state)
{
	struct pace pace;

	(void)state;
	pace_init(&pace, 16);
	run(&pace, &(struct network){.each = MIB, .all = 4 * MIB}, 30);
	assert_int_equal(pace.connections, 4);
}

static void nothing_is_taken_from_other_blobs(void **state)
{
	struct pace pace;

	(void)state;
	pace_init(&pace, 8);
	run(&pace, &(struct network){.each = 10 * MIB, .all = 10 * MIB, .others = 3}, 20);
	assert_int_equal(pace.connections, 1);
	/* where there is something for all, others do not matter */
	pace_init(&pace, 8);
	run(&pace, &(struct network){.each = MIB, .all = 1000 * MIB, .others = 50}, 20);
	assert_int_equal(pace.connections, 8);
}

static void who_waits_for_room_needs_no_more(void **state)
{
	struct pace pace;

	(void)state;
	pace_init(&pace, 8);
	run(&pace, &(struct network){.each = MIB, .all = 1000 * MIB, .waited = true}, 1000);
	assert_int_equal(pace.connections, 1);
	/* until that is over */
	run(&pace, &(struct network){.each = MIB, .all = 1000 * MIB}, 4);
	assert_int_equal(pace.connections, 2);
}

static void connecting_is_not_measured(void **state)
{
	struct pace pace;
	struct pace_sample nothing = {.ns = TICK_NS, .settling = true};

	(void)state;
	pace_init(&pace, 8);
	run(&pace, &(struct network){.each = MIB, .all = 1000 * MIB}, 4);
	assert_int_equal(pace.connections, 2);
	for (int i = 0; i < 100; i++)
		pace_tick(&pace, &nothing);
	assert_int_equal(pace.connections, 2);
	run(&pace, &(struct network){.each = MIB, .all = 1000 * MIB}, 20);
	assert_int_equal(pace.connections, 8);
}

static void refusals_halve_and_end(void **state)
{
	struct network net = {.each = MIB, .all = 1000 * MIB};
	struct pace pace;

	(void)state;
	pace_init(&pace, 8);
	run(&pace, &net, 20);
	pace_refused(&pace, false);
	assert_int_equal(pace.connections, 1);
	run(&pace, &net, PACE_REFUSED_TICKS);
	assert_int_equal(pace.connections, 1);
	run(&pace, &net, 100);
	assert_int_equal(pace.connections, 4);
	pace_refused(&pace, false);
	run(&pace, &net, 100);
	assert_int_equal(pace.connections, 2);
	pace_refused(&pace, false);
	assert_true(pace_is_settled(&pace));
	run(&pace, &net, 100);
	assert_int_equal(pace.connections, 1);

	pace_init(&pace, 8);
	run(&pace, &net, 20);
	pace_refused(&pace, true);
	assert_true(pace_is_settled(&pace));
}

static void what_could_not_be_had_is_tried_later(void **state)
{
	struct network net = {.each = MIB, .all = 1000 * MIB};
	struct pace pace;

	(void)state;
	pace_init(&pace, 8);
	run(&pace, &net, 4);
	pace_give_back(&pace);
	run(&pace, &net, PACE_REST_TICKS);
	assert_int_equal(pace.connections, 1);
	run(&pace, &net, 20);
	assert_int_equal(pace.connections, 8);
}

static void silence_is_no_reason(void **state)
{
	struct network net = {0};
	struct pace pace;

	(void)state;
	pace_init(&pace, 8);
	run(&pace, &net, 1000); /* nothing arrives at all; no division by it */
	pace_tick(&pace, &(struct pace_sample){0});
	assert_in_range(pace.connections, 1, 8);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_limited_for_each_is_multiplied),
		cmocka_unit_test(a_full_link_gets_one),
		cmocka_unit_test(the_number_that_helped_is_kept),
		cmocka_unit_test(nothing_is_taken_from_other_blobs),
		cmocka_unit_test(who_waits_for_room_needs_no_more),
		cmocka_unit_test(connecting_is_not_measured),
		cmocka_unit_test(refusals_halve_and_end),
		cmocka_unit_test(what_could_not_be_had_is_tried_later),
		cmocka_unit_test(silence_is_no_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
