/* SPDX-License-Identifier: Apache-2.0
 *
 * How a stage is measured: its alternatives take turns, so that whatever else the machine does hits all of them, and
 * each gets the median of its turns with the least and the most. What counts is the CPU time of this process, threads
 * and io_uring's workers included; helpers that only play the other side are processes of their own.
 */
#ifndef MICRO_MEASURE_H
#define MICRO_MEASURE_H

#include "bench/micro/report.h"

#define GIB 1073741824.0

/* One way to do a stage's work. */
struct bench_case {
	const char *stage, *name;
	bool chosen;       /* it is what the product does */
	enum cost cost;    /* what of the bound it may stand for; COST_NONE for a merged or unsuitable way */
	enum unit unit;
	double amount;     /* of the unit, in one pass */
	/* A pass, timed, and what comes before each, untimed (may be NULL). CPULL_ERR_UNSUPPORTED: the row is left out,
	 * with the message as the reason. */
	int (*pass)(void *payload, struct cpull_error *err);
	int (*prepare)(void *payload, struct cpull_error *err);
	void *payload;
};

/* Measures the cases that are wanted and adds a row for each. */
MUST_CHECK int measure(struct report *report, const struct bench_case *cases, size_t count, struct cpull_error *err);

/* CPU time of this process, all its threads. */
uint64_t cpu_ns(void);

#endif
