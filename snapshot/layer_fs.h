/* SPDX-License-Identifier: Apache-2.0
 *
 * The place that a layer is written to, as far as its directories go: one interface for a directory tree on disk and
 * for names that are kept in memory until they are written as one file.
 *
 * A directory is held by a handle, which is ≥ 0 and has to be closed; a name is a single component. Functions give 0 or
 * -errno as the kernel would. Of struct stat st_ino says which one it is; st_dev is the same for all of a layer.
 */
#ifndef SNAPSHOT_LAYER_FS_H
#define SNAPSHOT_LAYER_FS_H

#include <sys/stat.h>

#include "engine/base/fs.h"
#include "snapshot/attributes.h"
#include "snapshot/resolve.h"

struct layer_fs;

/* What a handle is for. */
enum layer_dir_use {
	LAYER_DIR_NAMES,   /* names in it are looked up, made and removed */
	LAYER_DIR_CONTENT, /* it is listed, or its attributes are set */
};

struct layer_fs_ops {
	/* The root has no attributes that new files inherit, is ours, and 0700. */
	int (*reset_root)(struct layer_fs *fs, struct stat *out, struct cpull_error *err);

	/* The directory (LAYER_DIR_NAMES) that path leads to, symlinks followed inside the root; a handle or -errno. */
	int (*follow)(struct layer_fs *fs, const char *path);
	/* The same; `missing` is asked about what is not there. */
	int (*follow_making)(struct layer_fs *fs, const char *path, resolve_missing_fn missing, void *payload);
	/* The directory at a path without any symlink; a handle or -errno. */
	int (*open)(struct layer_fs *fs, const char *path, enum layer_dir_use use);
	void (*close)(struct layer_fs *fs, int dir);

	int (*stat_dir)(struct layer_fs *fs, int dir, struct stat *out);
	/* Symlinks are not followed. */
	int (*stat)(struct layer_fs *fs, int dir, const char *name, struct stat *out);
	/* A directory 0700 that inherits nothing; EEXIST when the name is taken. */
	int (*mkdir)(struct layer_fs *fs, int dir, const char *name, struct stat *out);
	/* Of anything but a directory. */
	int (*unlink)(struct layer_fs *fs, int dir, const char *name);
	/* As fs_remove_tree_telling(): after an error it can be called again. */
	int (*remove_tree)(struct layer_fs *fs, int dir, const char *name, fs_gone_fn gone, void *payload,
			   struct cpull_error *err);

	/* A directory's extended attributes (a LAYER_DIR_CONTENT handle), those of an earlier entry taken off first
	 * where `replace`. */
	int (*set_xattrs)(struct layer_fs *fs, int dir, const struct tar_xattr *xattrs, size_t count,
			  enum attributes_part part, bool replace, struct attributes_notes *notes,
			  struct cpull_error *err);
	/* A directory's owner, mode and time (a LAYER_DIR_CONTENT handle). */
	int (*set_stat)(struct layer_fs *fs, int dir, uid_t uid, gid_t gid, mode_t mode, struct timespec mtime,
			struct cpull_error *err);
};

struct layer_fs {
	const struct layer_fs_ops *ops;
	int root; /* handle of the root directory, borrowed: not to be closed */
};

/* A handle that is closed at the end of its scope. */
struct layer_dir {
	struct layer_fs *fs;
	int handle; /* or -errno */
};

static inline void cleanup_layer_dir(struct layer_dir *dir)
{
	if (dir->handle >= 0)
		dir->fs->ops->close(dir->fs, dir->handle);
}
#define CLEANUP_LAYER_DIR __attribute__((cleanup(cleanup_layer_dir)))

#endif
