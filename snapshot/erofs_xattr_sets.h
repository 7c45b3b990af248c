/* SPDX-License-Identifier: Apache-2.0
 *
 * The extended attributes of directories until these are written: sets of them, of which equal ones are kept once, as
 * most directories that have any have the same. At most LIMIT_EROFS_DIR_XATTR_BYTES of all there ever were.
 */
#ifndef SNAPSHOT_EROFS_XATTR_SETS_H
#define SNAPSHOT_EROFS_XATTR_SETS_H

#include "snapshot/map.h"
#include "snapshot/tar.h"

#define EROFS_NO_XATTRS 0u

/* Zeroed is empty, but for the seed. */
struct erofs_xattr_sets {
	uint64_t seed; /* any number that no image knows */
	struct bytes data; /* EROFS_NO_XATTRS, then for each set its length and its attributes */
	struct map by_hash;
};

void erofs_xattr_sets_free(struct erofs_xattr_sets *sets);
/* The number of a set, which is in the order that it comes in. CPULL_ERR_LIMIT for too much of them all. The
 * attributes may be those of erofs_xattr_sets_get(). */
MUST_CHECK int erofs_xattr_sets_add(struct erofs_xattr_sets *sets, const struct tar_xattr *xattrs, size_t count,
				    uint32_t *out, struct cpull_error *err);
/* The attributes of a set, good until the next is added. Returns how many. */
size_t erofs_xattr_sets_get(const struct erofs_xattr_sets *sets, uint32_t set, struct tar_xattr out[LIMIT_XATTRS]);

#endif
