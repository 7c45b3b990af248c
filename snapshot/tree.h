/* SPDX-License-Identifier: Apache-2.0
 *
 * The directories of one layer while it is written, by way of a layer_fs: finding and making the parents of entries,
 * what their own attributes will be once everything is in them, removing what a later entry replaces.
 *
 * Memory grows per directory (some 70 bytes and its name), never per file. A directory is known by its inode
 * number, so that it is the same one whichever symlinks an entry's path takes.
 */
#ifndef SNAPSHOT_TREE_H
#define SNAPSHOT_TREE_H

#include <sys/stat.h>
#include <sys/types.h>

#include "snapshot/attributes.h"
#include "snapshot/entry_path.h"
#include "snapshot/layer_fs.h"
#include "snapshot/map.h"

#define TREE_ROOT 0u
#define TREE_NONE UINT32_MAX

enum tree_flag {
	TREE_IMPLICIT = 1 << 0,  /* no entry of its own: attributes come from below, or are the default ones */
	TREE_OPAQUE = 1 << 1,    /* hides what lower layers have in it */
	TREE_RECREATED = 1 << 2, /* the lower directory of this name was deleted; with TREE_OPAQUE */
	TREE_WHITEOUTS = 1 << 3, /* has whiteout nodes in it */
	TREE_WANTED = 1 << 4,    /* something that is no whiteout is in it, or it has an entry */
	TREE_XATTRS = 1 << 5,    /* an entry set extended attributes */
	TREE_DEAD = 1 << 6,      /* removed; with TREE_MOVED `parent` is where its content went */
	TREE_MOVED = 1 << 7,
	TREE_TOUCHED = 1 << 8,   /* changed since its attributes were set */
};

struct tree_dir {
	uint64_t ino;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint32_t parent; /* index; the root's is TREE_NONE */
	uint32_t name;   /* offset into tree->names */
	uint32_t uid, gid;
	uint32_t acl;    /* offset into tree->acls, or TREE_NONE */
	uint16_t mode;
	uint16_t flags;
	uint16_t path_len; /* of its whole path when it was made */
};

struct tree_cached {
	int handle;
	uint32_t dir;
	uint32_t tick; /* when it was used last; 0: nothing in here */
	bool stale;    /* the path may lead elsewhere now; the handle is still good */
	uint16_t len;
	char path[LIMIT_PATH_BYTES];
};

/* Open parents. Layers come depth first, so few are enough. Where descriptors are scarce (RLIMIT_NOFILE) it is fewer,
 * down to the two that a hard link needs at a time. */
#define TREE_CACHE 6u
#define TREE_CACHE_MIN 2u

struct tree {
	struct layer_fs *fs; /* borrowed */
	uint64_t dev;
	uint64_t seed;
	struct tree_dir *dirs;
	uint32_t count, cap;
	struct map by_ino;   /* → index */
	struct map hidden;   /* names that are whited out and taken by a file; see tree_name_key() */
	struct bytes names;
	struct bytes acls;
	uint32_t last_acl;   /* most directories with ACLs have the same */
	struct timespec now; /* time of the entry at work, which new implicit directories take */
	bool wanted;         /* the entry at work is no whiteout */
	struct tree_cached *cache;
	uint32_t cache_count; /* of TREE_CACHE, those that are used */
	uint32_t tick;
};

/* A directory to work in. The handle (LAYER_DIR_NAMES) is borrowed and stays open for the next TREE_CACHE_MIN - 1 calls
 * of tree_parent() and tree_lookup(). */
struct tree_place {
	int handle;
	uint32_t dir;
};

/* fs is borrowed: empty; its root's owner, mode and default ACL are reset first. */
MUST_CHECK int tree_new(struct layer_fs *fs, struct tree **out, struct cpull_error *err);
void tree_free(struct tree *tree);

/* The directory at path[0…len), made with its parents where it is missing. */
MUST_CHECK int tree_parent(struct tree *tree, const char *path, size_t len, struct tree_place *out,
			   struct cpull_error *err);
/* The same without making anything: 1 when it is not there. */
MUST_CHECK int tree_lookup(struct tree *tree, const char *path, size_t len, struct tree_place *out,
			   struct cpull_error *err);
/* Makes a directory that is not there; it is implicit until tree_describe(). 1 when the name exists. */
MUST_CHECK int tree_mkdir(struct tree *tree, struct tree_place at, const char *name, uint32_t *out,
			  struct cpull_error *err);
/* The directory's own entry; xattrs are set at once, the rest with tree_settle(). */
MUST_CHECK int tree_describe(struct tree *tree, uint32_t dir, const struct tar_entry *entry, struct cpull_error *err);
/* Removes whatever has the name. A whiteout or an opaque directory is remembered in tree->hidden. */
MUST_CHECK int tree_clear(struct tree *tree, struct tree_place at, const char *name, struct cpull_error *err);
/* Sets the attributes of one directory. */
MUST_CHECK int tree_settle(struct tree *tree, uint32_t dir, struct cpull_error *err);
/* Sets those of all directories, deepest first, for which any of `flags` is set (0: of all). */
MUST_CHECK int tree_settle_all(struct tree *tree, unsigned flags, struct cpull_error *err);

/* Index of the directory with this inode, or TREE_NONE. */
uint32_t tree_find(const struct tree *tree, uint64_t ino);
/* Its path, into a buffer of LIMIT_PATH_BYTES. Returns out, or NULL when it does not fit. */
const char *tree_path(const struct tree *tree, uint32_t dir, char *out);
/* Opens it. Returns the handle or -errno. */
MUST_CHECK int tree_open(struct tree *tree, uint32_t dir, enum layer_dir_use use);
/* Is num a want of descriptors (EMFILE, ENFILE) and were there cached directories to close, so that it is worth another
 * try? The places of the last TREE_CACHE_MIN calls stay open. The layer_fs asks by itself. */
bool tree_give_way(struct tree *tree, int num);
/* Closes all of them; no place is good any more. */
void tree_close_cache(struct tree *tree);
static inline const char *tree_dir_name(const struct tree *tree, uint32_t dir)
{
	return tree->names.data + tree->dirs[dir].name;
}
/* Does any of its parents hide what lies below? */
bool tree_under_opaque(const struct tree *tree, uint32_t dir);
static inline void tree_set_time(struct tree *tree, uint32_t dir, struct timespec mtime)
{
	tree->dirs[dir].mtime_sec = mtime.tv_sec;
	tree->dirs[dir].mtime_nsec = (uint32_t)mtime.tv_nsec;
}
/* Key of a name in a directory for maps. */
uint64_t tree_name_key(const struct tree *tree, uint32_t dir, const char *name);
/* Marks a directory and its parents as being there for more than whiteouts. */
void tree_want(struct tree *tree, uint32_t dir);
/* The paths of open parents may lead elsewhere from now on. */
void tree_forget_paths(struct tree *tree);

#endif
