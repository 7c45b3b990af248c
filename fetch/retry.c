/* SPDX-License-Identifier: Apache-2.0
 *
 * Retry-After, Content-Range and the delays between attempts. Called by exchange.c on the fetch thread; pure, and
 * fuzzed together with auth.c.
 */
#include "fetch/retry.h"

#include <string.h>

/* At least one digit, no sign, no overflow. */
static bool take_number(const char **at, uint64_t *out)
{
	const char *p = *at;
	uint64_t value = 0;

	for (; *p >= '0' && *p <= '9'; p++) {
		uint64_t digit = (uint64_t)(*p - '0');

		if (value > (UINT64_MAX - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	if (p == *at)
		return false;
	*at = p;
	*out = value;
	return true;
}

static bool take_text(const char **at, const char *text)
{
	size_t len = strlen(text);

	if (strncmp(*at, text, len) != 0)
		return false;
	*at += len;
	return true;
}

static bool take_two_digits(const char **at, int max, int *out)
{
	const char *p = *at;

	if (p[0] < '0' || p[0] > '9' || p[1] < '0' || p[1] > '9')
		return false;
	*out = (p[0] - '0') * 10 + (p[1] - '0');
	*at = p + 2;
	return *out <= max;
}

static bool take_month(const char **at, int *out)
{
	static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

	for (int i = 0; i < 12; i++)
		if (!strncmp(*at, names + 3 * i, 3)) {
			*out = i;
			*at += 3;
			return true;
		}
	return false;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT", the one form that is generated today; strptime() would read the names of days and
 * months in the process's locale. */
static bool http_date_parse(const char *value, time_t *out)
{
	const char *at = strstr(value, ", ");
	struct tm tm = {0};
	int century, year;

	if (!at || at != value + 3)
		return false;
	at += 2;
	if (!take_two_digits(&at, 31, &tm.tm_mday) || !take_text(&at, " ") || !take_month(&at, &tm.tm_mon) ||
	    !take_text(&at, " ") || !take_two_digits(&at, 99, &century) || !take_two_digits(&at, 99, &year) ||
	    !take_text(&at, " ") || !take_two_digits(&at, 23, &tm.tm_hour) || !take_text(&at, ":") ||
	    !take_two_digits(&at, 59, &tm.tm_min) || !take_text(&at, ":") || !take_two_digits(&at, 60, &tm.tm_sec) ||
	    !take_text(&at, " GMT") || *at)
		return false;
	tm.tm_year = century * 100 + year - 1900;
	*out = timegm(&tm);
	return *out != (time_t)-1;
}

static uint32_t capped_ms(uint64_t seconds)
{
	return (uint32_t)(MIN(seconds, RETRY_DELAY_MAX_MS / 1000) * 1000);
}

bool retry_after_parse(const char *value, time_t now, uint32_t *delay_ms)
{
	const char *at = value;
	uint64_t seconds;
	time_t date;

	if (take_number(&at, &seconds) && !*at) {
		*delay_ms = capped_ms(seconds);
		return true;
	}
	if (!http_date_parse(value, &date) || date <= now)
		return false;
	*delay_ms = capped_ms((uint64_t)(date - now));
	return true;
}

bool content_range_parse(const char *value, struct content_range *out)
{
	const char *at = value;

	*out = (struct content_range){0};
	if (!take_text(&at, "bytes ") || !take_number(&at, &out->first) || !take_text(&at, "-") ||
	    !take_number(&at, &out->last) || !take_text(&at, "/"))
		return false;
	if (take_text(&at, "*"))
		return !*at && out->first <= out->last;
	out->total_known = true;
	return take_number(&at, &out->total) && !*at && out->first <= out->last && out->last < out->total;
}

uint32_t retry_delay_ms(unsigned failures, uint32_t base_ms, uint32_t random)
{
	uint64_t delay = base_ms;

	for (unsigned i = 1; i < failures && delay < RETRY_DELAY_MAX_MS; i++)
		delay *= 2;
	delay = MIN(delay, RETRY_DELAY_MAX_MS);
	return (uint32_t)(delay / 2 + random % (delay / 2 + 1));
}
