/* SPDX-License-Identifier: Apache-2.0
 *
 * The decision how many connections a blob gets. stream.c calls it on the fetch thread, a few times a second; pure.
 *
 * A measurement is a few ticks long. From one connection it goes up only if nothing but the network was waited for
 * all that time. The new number stays if the blob came faster, and if that was not merely taken from other blobs: the
 * sum over all of them has to have grown by at least half of what this one gained.
 */
#include "fetch/pace.h"

void pace_init(struct pace *p, unsigned max)
{
	*p = (struct pace){.connections = 1, .max = MAX(max, 1u), .next_rest = PACE_REST_TICKS};
}

static void begin_measurement(struct pace *p)
{
	p->ticks = 0;
	p->bytes = p->all_bytes = p->ns = 0;
}

static uint64_t per_second(uint64_t bytes, uint64_t ns)
{
	return ns ? (uint64_t)((double)bytes * 1e9 / (double)ns) : 0;
}

/* True when a measurement is complete. */
static bool measure(struct pace *p, const struct pace_sample *s)
{
	if (++p->ticks <= PACE_SETTLE_TICKS)
		return false;
	p->bytes += s->bytes;
	p->all_bytes += s->all_bytes;
	p->ns += s->ns;
	return p->ticks >= PACE_SETTLE_TICKS + PACE_MEASURE_TICKS;
}

static void go_back(struct pace *p, unsigned connections, unsigned rest)
{
	p->connections = connections;
	p->before = 0;
	p->rest = rest;
	begin_measurement(p);
}

static void judge(struct pace *p)
{
	uint64_t rate = per_second(p->bytes, p->ns), all_rate = per_second(p->all_bytes, p->ns);

	if (p->before && (rate < p->rate + p->rate / 100 * PACE_GAIN_PERCENT ||
			  all_rate < p->all_rate + (rate - p->rate) / 2)) {
		go_back(p, p->before, p->next_rest);
		p->next_rest = MIN(2 * p->next_rest, PACE_REST_TICKS_MAX);
		return;
	}
	p->rate = rate;
	p->all_rate = all_rate;
	p->before = 0;
	if (p->connections < p->max) {
		p->before = p->connections;
		p->connections = MIN(2 * p->connections, p->max);
	}
	begin_measurement(p);
}

void pace_tick(struct pace *p, const struct pace_sample *s)
{
	if (p->rest) {
		p->rest--;
		return;
	}
	if (s->settling || (p->connections == 1 && s->waited)) {
		begin_measurement(p);
		return;
	}
	if (!p->before && p->connections == p->max)
		return;
	if (measure(p, s))
		judge(p);
}

void pace_refused(struct pace *p, bool for_good)
{
	p->max = for_good ? 1 : MIN(p->max, MAX(p->connections / 2, 1u));
	go_back(p, 1, PACE_REFUSED_TICKS);
}

void pace_give_back(struct pace *p)
{
	go_back(p, 1, p->next_rest);
	p->next_rest = MIN(2 * p->next_rest, PACE_REST_TICKS_MAX);
}

bool pace_is_settled(const struct pace *p)
{
	return p->max == 1;
}
