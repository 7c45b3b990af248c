/* SPDX-License-Identifier: Apache-2.0
 *
 * Option values from text. Called by the option parser on the main thread; owns nothing. Digits are read by hand
 * because strtoull() takes signs, blanks and leading junk that a person did not mean, and strtod() asks the locale.
 */
#include "engine/cli/values.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

/* Reads digits into *out and moves *text past them; -1 when there are none or the number is too large. */
static int read_digits(const char **text, uint64_t *out)
{
	const char *p = *text;
	uint64_t value = 0;

	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return -1;
	if (p == *text)
		return -1;
	*text = p;
	*out = value;
	return 0;
}

int value_bytes(const char *text, uint64_t *out)
{
	/* "MB" is left out: half of its readers take it for 10^6. */
	static const struct {
		const char *suffix;
		unsigned shift;
	} units[] = {{"", 0},     {"b", 0},  {"k", 10},   {"kib", 10}, {"m", 20},
		     {"mib", 20}, {"g", 30}, {"gib", 30}, {"t", 40},   {"tib", 40}};
	uint64_t value;

	if (read_digits(&text, &value) || !value)
		return -1;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcasecmp(text, units[i].suffix))
			continue;
		if (value > UINT64_MAX >> units[i].shift)
			return -1;
		*out = value << units[i].shift;
		return 0;
	}
	return -1;
}

int value_duration_ms(const char *text, uint32_t *out)
{
	uint64_t whole = 0, fraction = 0, scale = 1, unit_ms;

	if (*text != '.' && read_digits(&text, &whole))
		return -1;
	if (*text == '.') {
		if (text[1] < '0' || text[1] > '9')
			return -1;
		/* Nine digits are more than a millisecond needs; the rest only has to be digits. */
		for (text++; *text >= '0' && *text <= '9'; text++) {
			if (scale == 1000000000)
				continue;
			fraction = fraction * 10 + (uint64_t)(*text - '0');
			scale *= 10;
		}
	}
	if (!*text || !strcmp(text, "s"))
		unit_ms = 1000;
	else if (!strcmp(text, "m"))
		unit_ms = 60 * 1000;
	else if (!strcmp(text, "h"))
		unit_ms = 3600 * 1000;
	else
		return -1;

	if (whole > UINT32_MAX / unit_ms)
		return -1;
	uint64_t total = whole * unit_ms + (fraction * unit_ms + scale - 1) / scale;
	if (total > UINT32_MAX)
		return -1;
	*out = (uint32_t)total;
	return 0;
}

int value_bool(const char *text, bool *out)
{
	bool yes = !strcmp(text, "true") || !strcmp(text, "1");

	if (!yes && strcmp(text, "false") && strcmp(text, "0"))
		return -1;
	*out = yes;
	return 0;
}

int value_count(const char *text, unsigned *out)
{
	uint64_t value;

	if (read_digits(&text, &value) || *text || !value || value > UINT32_MAX)
		return -1;
	*out = (unsigned)value;
	return 0;
}
