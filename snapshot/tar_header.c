/* SPDX-License-Identifier: Apache-2.0
 *
 * Checksum and strings of a tar header, for the tar reader of one layer. Pure; holds nothing.
 */
#include "snapshot/tar_header.h"

#include <string.h>

#include "engine/base/error.h"
#include "snapshot/tar_number.h"

bool tar_header_is_zero(const uint8_t *block)
{
	uint64_t bits = 0;

	for (size_t i = 0; i < TAR_BLOCK_BYTES; i += sizeof(bits)) {
		uint64_t word;

		memcpy(&word, block + i, sizeof(word));
		bits |= word;
	}
	return bits == 0;
}

int tar_header_check(const struct tar_header *h, struct cpull_error *err)
{
	const uint8_t *block = (const uint8_t *)h;
	uint32_t sum = 0, high = 0, field = 0, field_high = 0;
	int64_t stored = 0;
	int rc = tar_number_field(h->checksum, sizeof(h->checksum), "header checksum", &stored, err);

	if (rc)
		return rc;
	for (size_t i = 0; i < TAR_BLOCK_BYTES; i++)
		sum += block[i];
	for (size_t i = 0; i < sizeof(h->checksum); i++) {
		field += h->checksum[i];
		field_high += h->checksum[i] >> 7;
	}
	sum += 8 * ' ' - field;
	if (stored == (int64_t)sum)
		return 0;
	for (size_t i = 0; i < TAR_BLOCK_BYTES; i++)
		high += block[i] >> 7;
	if (stored == (int64_t)sum - 256 * (int64_t)(high - field_high))
		return 0;
	return error_set(err, CPULL_ERR_TAR, "the header's checksum is %lld, it should be %u", (long long)stored, sum);
}

/* Copies a field that ends in a NUL or fills its place; returns its length. */
static size_t copy_field(char *out, const uint8_t *field, size_t field_len)
{
	size_t len = strnlen((const char *)field, field_len);

	memcpy(out, field, len);
	out[len] = 0;
	return len;
}

const char *tar_header_name(const struct tar_header *h, char *out)
{
	size_t len = 0;

	if (tar_header_is_ustar(h) && h->prefix[0]) {
		len = copy_field(out, h->prefix, sizeof(h->prefix));
		out[len++] = '/';
	}
	copy_field(out + len, h->name, sizeof(h->name));
	return out;
}

const char *tar_header_link(const struct tar_header *h, char *out)
{
	copy_field(out, h->link, sizeof(h->link));
	return out;
}
