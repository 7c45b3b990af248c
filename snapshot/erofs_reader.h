/* SPDX-License-Identifier: Apache-2.0
 *
 * An EROFS image, read without a mount. The image may lie on a disk that somebody else writes to: whatever it holds
 * gives an answer or an error, never a read outside of its blocks. What is not compressed is read, made by whomever;
 * what lies on other devices is not.
 *
 * Errors: CPULL_ERR_STORAGE for an image that is damaged, cut short or cannot be read, CPULL_ERR_UNSUPPORTED for what
 * is not read here, CPULL_ERR_LIMIT. The messages name the inode, not the file: who knows which image it is puts that
 * before them, and what to do about it. A directory may name one of those above it: who walks a tree has to bound how
 * deep and how long.
 */
#ifndef SNAPSHOT_EROFS_READER_H
#define SNAPSHOT_EROFS_READER_H

#include <sys/types.h>
#include <time.h>

#include "engine/base/limits.h"
#include "engine/base/util.h"
#include "snapshot/erofs_format.h"

/* For one thread. */
struct erofs_reader;

struct erofs_node {
	uint64_t nid;
	uint64_t size; /* 0 for devices, FIFOs and sockets; directories: bytes of their blocks */
	uint32_t mode; /* type and permissions */
	uint32_t uid, gid;
	uint32_t nlink;
	dev_t rdev;
	struct timespec mtime;
	enum erofs_layout layout;
	uint32_t data;         /* struct erofs_inode */
	uint32_t xattr_bytes;  /* header and all, from xattr_at on */
	uint64_t xattr_at;     /* byte of the image, as is the next */
	uint64_t behind;       /* the tail, or the map of chunks */
	uint64_t chunk_count;  /* EROFS_CHUNK_BASED */
};

/* `fd` (a regular file, whose offset is left alone, or a block device, open for reading) is borrowed. */
MUST_CHECK int erofs_reader_open(int fd, struct erofs_reader **out, struct cpull_error *err);
void erofs_reader_close(struct erofs_reader *reader);

/* All blocks of the image that the superblock speaks of. Nothing behind them is ever read. */
uint64_t erofs_reader_bytes(const struct erofs_reader *reader);
const uint8_t *erofs_reader_uuid(const struct erofs_reader *reader);
/* A directory, good as long as the reader. */
const struct erofs_node *erofs_reader_root(const struct erofs_reader *reader);
MUST_CHECK int erofs_reader_node(struct erofs_reader *reader, uint64_t nid, struct erofs_node *out,
				 struct cpull_error *err);

/* ---- data ---- */

enum erofs_place {
	EROFS_IN_HOLE,   /* nowhere: zeros */
	EROFS_IN_BLOCKS, /* at whole blocks, of which the file's last may be used in part */
	EROFS_IN_TAIL,   /* behind the inode */
};

struct erofs_extent {
	enum erofs_place place;
	uint64_t bytes; /* of the file, from the offset asked for; there may be more of the same behind it */
	uint64_t at;    /* byte of the image */
};

/* Where the data of a file, directory or symlink is, from an offset before its end. */
MUST_CHECK int erofs_reader_map(struct erofs_reader *reader, const struct erofs_node *node, uint64_t offset,
				struct erofs_extent *out, struct cpull_error *err);
/* *got is less than len only at the end. */
MUST_CHECK int erofs_reader_read(struct erofs_reader *reader, const struct erofs_node *node, void *out, size_t len,
				 uint64_t offset, size_t *got, struct cpull_error *err);
/* The target of a symlink, NUL-terminated, into `out` of LIMIT_PATH_BYTES. */
MUST_CHECK int erofs_reader_link(struct erofs_reader *reader, const struct erofs_node *node, char *out,
				 struct cpull_error *err);

/* ---- names ---- */

/* Looks one name up. 1, 0 when it is not there (or `dir` is no directory), or an error. "." and ".." are names like
 * others. */
MUST_CHECK int erofs_reader_lookup(struct erofs_reader *reader, const struct erofs_node *dir, const char *name,
				   size_t len, struct erofs_node *out, struct cpull_error *err);
/* Looks a path up from the root, as it is written: no symlink is followed. Empty parts and "." are passed over, ".."
 * is CPULL_ERR_USAGE. 1, 0 when there is nothing, or an error. */
MUST_CHECK int erofs_reader_find(struct erofs_reader *reader, const char *path, struct erofs_node *out,
				 struct cpull_error *err);

/* A place in a directory, and the entry before it. */
struct erofs_listing {
	struct erofs_node dir;
	uint64_t block;
	unsigned index; /* in the block */
	/* the entry */
	uint64_t nid;
	enum erofs_type type;
	size_t name_len;
	char name[LIMIT_NAME_BYTES + 1];
};

void erofs_reader_list(const struct erofs_node *dir, struct erofs_listing *out);
/* The next entry but "." and ".." (which lookup finds). They come in order and once each, and lookup finds them all:
 * anything else is an error. 1, 0 at the end, or an error, which ends the listing. The node is not looked at. */
MUST_CHECK int erofs_reader_next(struct erofs_reader *reader, struct erofs_listing *listing,
				 struct cpull_error *err);

/* ---- extended attributes ---- */

/* "security." and a name; "system.posix_acl_default" has none behind it. */
#define EROFS_XATTR_NAME_BYTES (sizeof("security.") + LIMIT_NAME_BYTES)

struct erofs_xattrs {
	uint64_t at, end;     /* what is left of the node's own */
	uint64_t shared_at;   /* the next of the shared ones' numbers */
	unsigned shared_left;
	bool begun;
	uint64_t nid;
	/* the attribute */
	uint64_t value_at;
	size_t value_len; /* at most UINT16_MAX */
	size_t name_len;
	char name[EROFS_XATTR_NAME_BYTES];
};

void erofs_reader_xattrs(const struct erofs_node *node, struct erofs_xattrs *out);
/* The next attribute with its whole name. 1, 0 at the end, or an error, which ends it. */
MUST_CHECK int erofs_reader_xattr_next(struct erofs_reader *reader, struct erofs_xattrs *xattrs,
				       struct cpull_error *err);
/* The value of the one that _next came to: value_len bytes. */
MUST_CHECK int erofs_reader_xattr_value(struct erofs_reader *reader, const struct erofs_xattrs *xattrs, void *out,
					struct cpull_error *err);
/* By name. 1, 0 when there is none, or an error: CPULL_ERR_LIMIT when the value is longer than `max`. */
MUST_CHECK int erofs_reader_xattr_get(struct erofs_reader *reader, const struct erofs_node *node, const char *name,
				      void *out, size_t max, size_t *len, struct cpull_error *err);

#endif
