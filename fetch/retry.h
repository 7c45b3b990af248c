/* SPDX-License-Identifier: Apache-2.0
 *
 * When to try again, and with what: the header fields Retry-After and Content-Range, and the delays between
 * attempts. Pure.
 */
#ifndef FETCH_RETRY_H
#define FETCH_RETRY_H

#include <time.h>

#include "engine/base/util.h"

#define RETRY_DELAY_FIRST_MS 500u
#define RETRY_DELAY_PROGRESS_MS 100u /* the connection broke, but had brought something */
#define RETRY_DELAY_THROTTLED_MS 2000u /* 429 without a Retry-After */
#define RETRY_DELAY_BRIEF_MS 250u
#define RETRY_DELAY_MAX_MS 60000u
#define RETRY_SPREAD_MS 250u /* those that were told to wait come back one after the other */
#define RETRY_BRIEF_ATTEMPTS 3u

/* What a failure leaves to hope for. */
enum retry_patience {
	RETRY_NEVER,
	RETRY_BRIEFLY, /* nobody there, as far as one can tell: RETRY_BRIEF_ATTEMPTS */
	RETRY_LONG,    /* it was there, and may be again soon */
};

/* Delta seconds or an HTTP date (RFC 9110, 10.2.3) against `now`, capped at RETRY_DELAY_MAX_MS. False for
 * what is neither, and for a date that is not ahead: then one's own delay counts. */
bool retry_after_parse(const char *value, time_t now, uint32_t *delay_ms);

struct content_range {
	uint64_t first;
	uint64_t last;
	uint64_t total;
	bool total_known;
};

/* "bytes <first>-<last>/<total or *>", exactly. */
bool content_range_parse(const char *value, struct content_range *out);

/* The delay before the attempt after `failures` (1 and up) in a row: `base_ms` doubled each time, up to the
 * maximum, of which the upper half is left to `random`, so that many clients do not come back together. */
uint32_t retry_delay_ms(unsigned failures, uint32_t base_ms, uint32_t random);

#endif
