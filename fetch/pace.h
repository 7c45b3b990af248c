/* SPDX-License-Identifier: Apache-2.0
 *
 * How many connections a blob gets: decided from what was measured. More only while the network is what everything
 * waits for, doubled as long as that makes it faster. Pure.
 */
#ifndef FETCH_PACE_H
#define FETCH_PACE_H

#include "engine/base/util.h"

/* How often a stream is to call pace_tick(). */
#define PACE_TICK_MS 200u
/* Ticks that are not looked at: after the start and after each change, while windows open. */
#define PACE_SETTLE_TICKS 1u
/* Ticks that make one measurement. */
#define PACE_MEASURE_TICKS 2u
/* More connections are kept when they bring this many percent. */
#define PACE_GAIN_PERCENT 20u
/* Ticks before it is tried again after it brought nothing, twice as many each time up to the maximum. */
#define PACE_REST_TICKS 50u
#define PACE_REST_TICKS_MAX 800u
/* The same after a server refused. */
#define PACE_REFUSED_TICKS 5u

struct pace {
	unsigned connections; /* what there should be now */
	unsigned max;
	unsigned before;      /* while more are tried: how many there were */
	uint64_t rate, all_rate; /* bytes a second, of the blob and of everything, with `before` */
	unsigned ticks;       /* of this measurement */
	unsigned rest, next_rest;
	uint64_t bytes, all_bytes, ns;
};

/* What happened since the last tick. */
struct pace_sample {
	uint64_t bytes;     /* of this blob */
	uint64_t all_bytes; /* of all that are fetched */
	uint64_t ns;
	bool waited;        /* for room, or this thread was busy: it is not the network that holds us up */
	bool settling;      /* the connections that were asked for are not there yet */
};

void pace_init(struct pace *pace, unsigned max);
/* Sets `connections`. */
void pace_tick(struct pace *pace, const struct pace_sample *sample);
/* The server refused more than one, for good or for this number: one it is. */
void pace_refused(struct pace *pace, bool for_good);
/* More than one could not be had for reasons of our own: one it is. */
void pace_give_back(struct pace *pace);
/* Nothing can change any more. */
bool pace_is_settled(const struct pace *pace);

#endif
