/* SPDX-License-Identifier: Apache-2.0
 *
 * The names of a layer, until they are written as the directories of one image. A name costs 20 bytes, a place in a
 * hash table (5 to 11 bytes) and its text; a directory 48 bytes more. Nothing is given back before the end, and a
 * number never comes to mean something else. All of it grows by pieces, in which everything stays where it is, but for
 * the table, which is made anew: at that moment both are there, 8 bytes a name.
 */
#ifndef SNAPSHOT_EROFS_NAMES_H
#define SNAPSHOT_EROFS_NAMES_H

#include "engine/base/limits.h"
#include "engine/base/util.h"
#include "snapshot/erofs_format.h"

#define EROFS_ROOT_DIR 0u
/* The number of no name that can be found: the root's own. */
#define EROFS_NO_NAME 0u

struct erofs_name {
	uint32_t dir;  /* the one that it is in */
	uint32_t next; /* in the same directory, or EROFS_NO_NAME */
	uint32_t text; /* where in the texts; behind a symlink's name its target */
	uint32_t what; /* a directory's number, of others the inode's */
	uint8_t len;
	uint8_t type; /* enum erofs_type; 0: it was removed */
};

/* A directory. Root apart, it is there as long as its name is. */
struct erofs_dir {
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint32_t uid, gid;
	uint32_t xattrs; /* which set of them, 0: none; see erofs_xattr_sets.h */
	uint32_t name;   /* its own */
	uint32_t first;  /* in it, removed ones among them: the newest, and the first in order after sorting */
	uint32_t count;  /* those in it that are there */
	uint32_t nid;    /* of its inode, once it has a place */
	uint16_t mode;   /* permissions */
	bool opaque;
};

/* Pieces of memory that never move. */
struct erofs_pieces {
	char **pieces;
	uint32_t count, cap;
};

/* All 0: those of limits.h. */
struct erofs_names_limits {
	uint32_t names;
	uint32_t dirs;
	uint32_t text_bytes;
	uint32_t target_bytes; /* of symlinks */
};

struct erofs_names {
	struct erofs_names_limits limits;
	uint64_t seed;
	struct erofs_pieces names, dirs, texts;
	uint32_t name_count, dir_count, live;
	uint32_t text_end; /* where the next goes */
	uint32_t text_bytes, target_bytes;
	uint32_t *table; /* numbers of names, the highest byte some bits of the hash; 0: free */
	uint32_t table_cap, table_used;
};

#define EROFS_NAMES_A_PIECE 4096u
#define EROFS_DIRS_A_PIECE 1024u
#define EROFS_TEXT_PIECE_BYTES (256u << 10)

/* With the root in it. CPULL_ERR_NOMEM or 0; *out is to be freed either way. */
MUST_CHECK int erofs_names_init(struct erofs_names *out, const struct erofs_names_limits *limits);
void erofs_names_free(struct erofs_names *names);
/* All of the memory. */
size_t erofs_names_bytes(const struct erofs_names *names);

static inline struct erofs_name *erofs_name_at(const struct erofs_names *names, uint32_t name)
{
	struct erofs_name *piece = (struct erofs_name *)(void *)names->names.pieces[name / EROFS_NAMES_A_PIECE];

	return &piece[name % EROFS_NAMES_A_PIECE];
}

static inline struct erofs_dir *erofs_dir_at(const struct erofs_names *names, uint32_t dir)
{
	struct erofs_dir *piece = (struct erofs_dir *)(void *)names->dirs.pieces[dir / EROFS_DIRS_A_PIECE];

	return &piece[dir % EROFS_DIRS_A_PIECE];
}

/* Without a NUL. */
static inline const char *erofs_name_text(const struct erofs_names *names, const struct erofs_name *name)
{
	return names->texts.pieces[name->text / EROFS_TEXT_PIECE_BYTES] + name->text % EROFS_TEXT_PIECE_BYTES;
}

static inline bool erofs_dir_is_there(const struct erofs_names *names, uint32_t dir)
{
	return dir == EROFS_ROOT_DIR || erofs_name_at(names, erofs_dir_at(names, dir)->name)->type != 0;
}

/* The number of a name in a directory, or EROFS_NO_NAME. */
uint32_t erofs_names_find(const struct erofs_names *names, uint32_t dir, const char *text);
/* Adds one; `target` is a symlink's, else NULL. 0, 1 when it is taken, -ENOENT in a directory that is gone,
 * -ENAMETOOLONG, -ENOMEM, or -EFBIG when there are more than limits allow. */
MUST_CHECK int erofs_names_add(struct erofs_names *names, uint32_t dir, const char *text, enum erofs_type type,
			       uint32_t what, const char *target, uint32_t *name);
/* Adds a directory, 0700 and all else 0; likewise. */
MUST_CHECK int erofs_names_add_dir(struct erofs_names *names, uint32_t dir, const char *text, uint32_t *out);
/* A directory has to be empty. */
void erofs_names_remove(struct erofs_names *names, uint32_t name);
/* Another name for the same, in place of this one, whose number is not that of the new one. As erofs_names_add(), and
 * -EINVAL for a directory that would be below itself. */
MUST_CHECK int erofs_names_move(struct erofs_names *names, uint32_t name, uint32_t dir, const char *text);
/* The target of a symlink, NUL-terminated, into `out` of LIMIT_PATH_BYTES. */
void erofs_names_target(const struct erofs_names *names, uint32_t name, char *out);

/* The first name in a directory that is there, and the next one; EROFS_NO_NAME at the end. New names are not among
 * those that are still to come. */
uint32_t erofs_names_first(struct erofs_names *names, uint32_t dir);
uint32_t erofs_names_next(const struct erofs_names *names, uint32_t name);
/* Puts the names of a directory into the order of erofs_name_compare(), in place. */
void erofs_names_sort(struct erofs_names *names, uint32_t dir);
/* A directory's path in a buffer of `len`, the start cut off where that is too short. Returns where in out it is. */
const char *erofs_names_path(const struct erofs_names *names, uint32_t dir, char *out, size_t len);

#endif
