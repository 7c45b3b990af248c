/* SPDX-License-Identifier: Apache-2.0
 *
 * pax extended headers (POSIX pax interchange, layers.md §2): the payload of an 'x' or 'g' header, parsed in place.
 */
#ifndef SNAPSHOT_PAX_H
#define SNAPSHOT_PAX_H

#include <time.h>

#include "engine/base/limits.h"
#include "snapshot/sparse.h"
#include "snapshot/tar.h"

enum pax_presence {
	PAX_ABSENT,
	PAX_EMPTY, /* present without a value: takes back what a global header said */
	PAX_GIVEN,
};

/* What both a global and a local header may say of an entry. */
struct pax_attrs {
	enum pax_presence has_mtime, has_uid, has_gid;
	struct timespec mtime;
	uint32_t uid, gid;
};

enum pax_sparse_format { PAX_NOT_SPARSE, PAX_SPARSE_0, PAX_SPARSE_1_0 };

struct pax_sparse {
	bool used;        /* any GNU.sparse.* record with a value */
	bool has_major, has_minor, has_blocks, has_size, has_map;
	bool offset_open; /* 0.0: an offset waits for its length */
	uint64_t major, minor, blocks, size, offset;
	const char *name; /* NULL: none */
};

/* One local header. Strings point into the parsed text. */
struct pax {
	struct pax_attrs attrs;
	const char *path, *link; /* NULL: none */
	bool has_size, has_dev_major, has_dev_minor;
	uint64_t size;
	uint32_t dev_major, dev_minor;
	struct pax_sparse sparse;
	struct tar_xattr xattrs[LIMIT_XATTRS];
	size_t xattr_count;
};

/* Parses the payload of an 'x' header; text[len] is written to as well. `map` takes the ranges of the 0.x sparse
 * formats. Ends of keys and values are overwritten by NUL. CPULL_ERR_TAR or CPULL_ERR_LIMIT. */
MUST_CHECK int pax_parse_local(struct pax *pax, struct sparse_map *map, char *text, size_t len,
			       struct cpull_error *err);
/* The payload of a 'g' header: of it only the attributes count, on top of what earlier ones said. A path or size for
 * all the rest of an archive makes no sense, and parsers differ about it. */
MUST_CHECK int pax_parse_global(struct pax_attrs *attrs, char *text, size_t len, struct cpull_error *err);
/* Which sparse format the header announces; CPULL_ERR_TAR when its records do not make a whole. */
MUST_CHECK int pax_sparse_format(const struct pax *pax, const struct sparse_map *map, enum pax_sparse_format *out,
				 struct cpull_error *err);

#endif
