/* SPDX-License-Identifier: Apache-2.0
 *
 * A streaming tar reader: ustar, GNU, pax (with GNU sparse 0.0, 0.1, 1.0 and old GNU sparse), fed with the
 * bytes in any cut. Pure: no I/O, memory bounded by limits.h, no recursion.
 */
#ifndef SNAPSHOT_TAR_H
#define SNAPSHOT_TAR_H

#include <time.h>

#include "engine/base/limits.h"
#include "engine/base/util.h"

struct tar;

enum tar_type { TAR_FILE, TAR_HARDLINK, TAR_SYMLINK, TAR_CHAR, TAR_BLOCK, TAR_DIR, TAR_FIFO };

struct tar_xattr {
	const char *name;
	const uint8_t *value;
	size_t len;
};

/* One entry; everything lives until the next call of tar_next(). */
struct tar_entry {
	enum tar_type type;
	const char *path; /* as stored (not cleaned), NUL-terminated, at most LIMIT_PATH_BYTES */
	const char *link; /* hard link and symlink target, else "" */
	uint32_t mode;    /* & 07777 */
	uint32_t uid, gid;
	struct timespec mtime;
	uint64_t size;    /* logical size of a file */
	uint32_t dev_major, dev_minor;
	const struct tar_xattr *xattrs; /* SCHILY.xattr.*, last value wins, empty pax values deleted */
	size_t xattr_count;
	bool sparse;      /* data events may leave holes */
};

/* Input of tar_next(): it takes bytes from data[pos…len) and moves pos. */
struct tar_input {
	const uint8_t *data;
	size_t len;
	size_t pos;
};

enum tar_event {
	TAR_MORE,      /* the input is used up */
	TAR_ENTRY,     /* tar_entry() is the entry; for a file DATA events follow, always closed by TAR_ENTRY_END */
	TAR_DATA,      /* *data, *len (inside the input) belong at *offset of the file */
	TAR_ENTRY_END,
	TAR_END,       /* end of archive; what follows is to be hashed, not parsed */
};

struct tar_data {
	const uint8_t *data;
	size_t len;
	uint64_t offset;
};

MUST_CHECK int tar_new(struct tar **out, struct cpull_error *err);
void tar_free(struct tar *tar);
/* The next event, or a negative code (CPULL_ERR_TAR, CPULL_ERR_LIMIT) with byte offset and entry in the message. */
MUST_CHECK int tar_next(struct tar *tar, struct tar_input *in, struct tar_data *data, struct cpull_error *err);
const struct tar_entry *tar_entry(const struct tar *tar);
/* The input has ended: fine at an entry boundary, CPULL_ERR_TAR inside one. */
MUST_CHECK int tar_finish(struct tar *tar, struct cpull_error *err);

#endif
