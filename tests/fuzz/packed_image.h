/* SPDX-License-Identifier: Apache-2.0
 *
 * EROFS images as fuzz input. An image is mostly zeros, so that an input is a flag byte and then, until its end: how
 * many zeros, how many bytes follow (two bytes each, little-endian), and those. With the flag's bit 0 the superblock's
 * checksum is set right.
 */
#ifndef TESTS_FUZZ_PACKED_IMAGE_H
#define TESTS_FUZZ_PACKED_IMAGE_H

#include <endian.h>
#include <string.h>

#include "engine/base/util.h"
#include "snapshot/erofs_format.h"

#define MAX_IMAGE (128u << 10)

/* Into MAX_IMAGE bytes of zeros; how many are used. len is not 0. */
static inline size_t unpack_image(const uint8_t *data, size_t len, uint8_t *image)
{
	size_t out = 0;

	for (size_t at = 1; at + 4 <= len;) {
		size_t zeros = data[at] | (size_t)data[at + 1] << 8, bytes = data[at + 2] | (size_t)data[at + 3] << 8;

		at += 4;
		out += MIN(zeros, MAX_IMAGE - out);
		bytes = MIN(MIN(bytes, len - at), MAX_IMAGE - out);
		memcpy(image + out, data + at, bytes);
		out += bytes;
		at += bytes;
	}
	if (out >= EROFS_BLOCK_BYTES && data[0] & 1) {
		struct erofs_super *super = (struct erofs_super *)(image + EROFS_SUPER_OFFSET);

		super->checksum = 0;
		super->checksum = htole32(erofs_checksum(super, EROFS_BLOCK_BYTES - EROFS_SUPER_OFFSET));
	}
	return out;
}

#endif
