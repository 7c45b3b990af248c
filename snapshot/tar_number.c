/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers of tar headers, pax records and sparse maps, for the tar reader of one layer. Pure; holds nothing.
 */
#include "snapshot/tar_number.h"

#include "engine/base/error.h"

/* Big-endian two's complement in all bits but the first (GNU's way for what octal cannot hold). */
static int base256(const uint8_t *field, size_t len, const char *what, int64_t *out, struct cpull_error *err)
{
	bool negative = field[0] & 0x40;
	uint64_t value = negative ? UINT64_MAX : 0;

	for (size_t i = 0; i < len; i++) {
		uint8_t byte = field[i];

		if (i == 0)
			byte = negative ? byte | 0x80 : byte & 0x7f;
		/* the next shift must not push out anything but copies of the sign */
		if ((int64_t)value >> 55 != (negative ? -1 : 0))
			return error_set(err, CPULL_ERR_TAR, "the %s does not fit 64 bits", what);
		value = value << 8 | byte;
	}
	*out = (int64_t)value;
	return 0;
}

int tar_number_field(const uint8_t *field, size_t len, const char *what, int64_t *out, struct cpull_error *err)
{
	uint64_t value = 0;
	size_t i = 0, start;

	if (field[0] & 0x80)
		return base256(field, len, what, out, err);
	while (i < len && field[i] == ' ')
		i++;
	start = i;
	/* the longest field has 12 digits, that is 36 bits: no overflow */
	for (; i < len && field[i] >= '0' && field[i] <= '7'; i++)
		value = value << 3 | (uint64_t)(field[i] - '0');
	/* Behind a NUL that ended a number some writers leave what was there before. In front of one it would
	 * be read by some parsers and not by others. */
	bool blank = i == start;
	for (; i < len && (field[i] || blank); i++)
		if (field[i] && field[i] != ' ')
			return error_set(err, CPULL_ERR_TAR, "the %s is not a number", what);
	*out = (int64_t)value;
	return 0;
}

int tar_number_unsigned(const uint8_t *field, size_t len, const char *what, uint64_t *out, struct cpull_error *err)
{
	int64_t value = 0;
	int rc = tar_number_field(field, len, what, &value, err);

	if (rc)
		return rc;
	if (value < 0)
		return error_set(err, CPULL_ERR_TAR, "the %s is negative", what);
	*out = (uint64_t)value;
	return 0;
}

int tar_number_u32(const uint8_t *field, size_t len, const char *what, uint32_t *out, struct cpull_error *err)
{
	uint64_t value = 0;
	int rc = tar_number_unsigned(field, len, what, &value, err);

	if (rc)
		return rc;
	if (value >= UINT32_MAX)
		return error_set(err, CPULL_ERR_TAR, "the %s %llu is out of range", what, (unsigned long long)value);
	*out = (uint32_t)value;
	return 0;
}

int tar_number_decimal(const char *text, size_t len, const char *what, uint64_t *out, struct cpull_error *err)
{
	uint64_t value = 0;

	if (!len)
		return error_set(err, CPULL_ERR_TAR, "the %s is empty", what);
	for (size_t i = 0; i < len; i++) {
		unsigned digit = (unsigned)(text[i] - '0');

		if (digit > 9)
			return error_set(err, CPULL_ERR_TAR, "the %s is not a decimal number", what);
		if (value > ((uint64_t)INT64_MAX - digit) / 10)
			return error_set(err, CPULL_ERR_TAR, "the %s does not fit 64 bits", what);
		value = value * 10 + digit;
	}
	*out = value;
	return 0;
}
