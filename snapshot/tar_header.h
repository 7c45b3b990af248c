/* SPDX-License-Identifier: Apache-2.0
 *
 * The 512-byte tar header (layers.md §2) and what can be said of it without knowing the headers before it. Pure.
 */
#ifndef SNAPSHOT_TAR_HEADER_H
#define SNAPSHOT_TAR_HEADER_H

#include <stddef.h>

#include "engine/base/util.h"
#include "snapshot/sparse.h"

#define TAR_BLOCK_BYTES 512u
#define TAR_SPARSE_PAIRS 4       /* old GNU sparse: in the header */
#define TAR_SPARSE_PAIRS_MORE 21 /* … and in each block after it */
#define TAR_HEADER_NAME_BYTES 257 /* prefix, slash, name, NUL */

struct tar_header {
	uint8_t name[100];
	uint8_t mode[8];
	uint8_t uid[8];
	uint8_t gid[8];
	uint8_t size[12];
	uint8_t mtime[12];
	uint8_t checksum[8];
	uint8_t type;
	uint8_t link[100];
	uint8_t magic[8]; /* and version */
	uint8_t uname[32];
	uint8_t gname[32];
	uint8_t dev_major[8];
	uint8_t dev_minor[8];
	union {
		uint8_t prefix[155]; /* ustar */
		struct {
			uint8_t atime[12], ctime[12], offset[12], longnames[4], unused;
			uint8_t sparse[TAR_SPARSE_PAIRS * SPARSE_PAIR_BYTES];
			uint8_t is_extended;
			uint8_t real_size[12];
		} gnu;
	};
	uint8_t pad[12];
};

_Static_assert(sizeof(struct tar_header) == TAR_BLOCK_BYTES, "header layout");
_Static_assert(offsetof(struct tar_header, gnu.sparse) == 386, "header layout");
_Static_assert(offsetof(struct tar_header, gnu.real_size) == 483, "header layout");

bool tar_header_is_zero(const uint8_t *block);
/* The checksum, CPULL_ERR_TAR when it is wrong. Both sums are accepted: some old writers added up signed chars. */
MUST_CHECK int tar_header_check(const struct tar_header *h, struct cpull_error *err);

static inline bool tar_header_is_ustar(const struct tar_header *h)
{
	return __builtin_memcmp(h->magic, "ustar", 6) == 0;
}

static inline bool tar_header_is_gnu(const struct tar_header *h)
{
	return __builtin_memcmp(h->magic, "ustar  ", 8) == 0;
}

/* Name and link target as C strings, in the caller's `out` of TAR_HEADER_NAME_BYTES, which is returned. */
const char *tar_header_name(const struct tar_header *h, char *out);
const char *tar_header_link(const struct tar_header *h, char *out);

#endif
