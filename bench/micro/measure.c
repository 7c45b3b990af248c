/* SPDX-License-Identifier: Apache-2.0
 *
 * The measuring loop. Called by every stage on the main thread.
 */
#include "bench/micro/measure.h"

#include <time.h>

#include "engine/base/error.h"

/* The turns of one case. A slow pass may make a turn longer than asked for, never shorter. */
struct turns {
	bool skipped;
	unsigned count;
	double cpu[REPORT_TURNS], wall[REPORT_TURNS];
};

uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int take_turn(const struct bench_case *c, uint64_t turn_ns, struct turns *turns, struct cpull_error *err)
{
	uint64_t cpu = 0, wall = 0, passes = 0;

	do {
		int rc = c->prepare ? c->prepare(c->payload, err) : 0;

		if (rc)
			return rc;

		uint64_t wall_from = now_ns(), cpu_from = cpu_ns();

		rc = c->pass(c->payload, err);
		cpu += cpu_ns() - cpu_from;
		wall += now_ns() - wall_from;
		if (rc)
			return rc;
		passes++;
	} while (wall < turn_ns);

	turns->cpu[turns->count] = (double)cpu / 1e9 / ((double)passes * c->amount);
	turns->wall[turns->count++] = (double)wall / 1e9 / ((double)passes * c->amount);
	return 0;
}

static bool is_wanted(const struct report *report, const struct bench_case *c)
{
	return report_wants(report, c->stage) && (!report->bound_only || c->cost != COST_NONE);
}

static int measure_once(const struct report *report, const struct bench_case *c, uint64_t turn_ns,
			struct turns *turns, struct cpull_error *err)
{
	struct cpull_error why = {0};

	if (turns->skipped || !is_wanted(report, c))
		return 0;

	int rc = take_turn(c, turn_ns, turns, &why);

	if (rc == CPULL_ERR_UNSUPPORTED) {
		report_skip(report, c->stage, c->name, why.message);
		turns->skipped = true;
		return 0;
	}
	if (rc) {
		error_copy(err, &why);
		return error_wrap(err, "%s, %s", c->stage, c->name);
	}
	return 0;
}

int measure(struct report *report, const struct bench_case *cases, size_t count, struct cpull_error *err)
{
	CLEANUP_FREE struct turns *turns = calloc(count, sizeof(*turns));

	if (!turns)
		return error_nomem(err);
	/* turn 0 warms caches, page tables and connections, and does not count */
	for (unsigned turn = 0; turn <= report->turns; turn++)
		for (size_t i = 0; i < count; i++) {
			int rc = measure_once(report, &cases[i], turn ? report->turn_ns : 0, &turns[i], err);

			if (rc)
				return rc;
			if (!turn)
				turns[i].count = 0;
		}
	for (size_t i = 0; i < count; i++) {
		struct row row = {.stage = cases[i].stage, .name = cases[i].name, .chosen = cases[i].chosen,
				  .cost = cases[i].cost, .unit = cases[i].unit};

		if (!turns[i].count || turns[i].skipped)
			continue;
		row.cpu = spread_of(turns[i].cpu, turns[i].count);
		row.wall = spread_of(turns[i].wall, turns[i].count);

		int rc = report_row(report, &row, err);

		if (rc)
			return rc;
	}
	return 0;
}
