/* SPDX-License-Identifier: Apache-2.0
 *
 * What a layer is written to: a directory tree on disk (dir_fs.h), or names that are kept in memory until they are
 * written, behind the data, as one EROFS image (erofs_fs.h). tree.c, whiteout.c, merge.c, loose_ends.c and
 * layer_writer.c know what the entries of a layer mean; what is done about it goes through here. A table of functions
 * and no switch, as those who call are many and small.
 *
 * A directory is held by a handle, which is ≥ 0 and has to be closed; a name is a single component. Functions without
 * an error give 0 or -errno as the kernel would. Of struct stat only st_ino (which one it is), st_mode (the type is
 * always right, permissions of a file on disk only), st_nlink of directories not, and st_rdev count; st_dev is the same
 * for all of a layer. Where something is made 1 says that the name is taken.
 *
 * One thread, but for the helper that a dir_fs may have.
 */
#ifndef SNAPSHOT_LAYER_FS_H
#define SNAPSHOT_LAYER_FS_H

#include <sys/stat.h>

#include "engine/base/fs.h"
#include "engine/base/pool.h"
#include "snapshot/attributes.h"
#include "snapshot/bulk_writer.h"
#include "snapshot/file_jobs.h"
#include "snapshot/lower_layer.h"
#include "snapshot/resolve.h"

struct layer_fs;

/* What a handle is for. */
enum layer_dir_use {
	LAYER_DIR_NAMES,   /* names in it are looked up, made and removed */
	LAYER_DIR_CONTENT, /* that, too, and it is listed, or its attributes are set */
};

/* Negative ends the listing, with err set. */
typedef int (*layer_each_fn)(void *payload, const char *name, struct cpull_error *err);

struct layer_fs_stats {
	enum bulk_way bulk_way;        /* the best that large files were written by */
	struct file_jobs_stats helper; /* of a dir_fs */
};

struct layer_fs_ops {
	/* ---- directories ---- */

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
	/* A directory 0700 that inherits nothing; -EEXIST when the name is taken, -EFBIG when there are too many. */
	int (*mkdir)(struct layer_fs *fs, int dir, const char *name, struct stat *out);
	/* Calls each for all names of a directory (LAYER_DIR_CONTENT). It may remove or move the name it is called for;
	 * names that are added meanwhile may be left out. */
	int (*list)(struct layer_fs *fs, int dir, layer_each_fn each, void *payload, struct cpull_error *err);
	/* A directory's extended attributes (LAYER_DIR_CONTENT), those of an earlier entry taken off first where
	 * `replace`. */
	int (*set_xattrs)(struct layer_fs *fs, int dir, const struct tar_xattr *xattrs, size_t count,
			  enum attributes_part part, bool replace, struct cpull_error *err);
	/* A directory's owner, mode and time (LAYER_DIR_CONTENT). */
	int (*set_stat)(struct layer_fs *fs, int dir, uid_t uid, gid_t gid, mode_t mode, struct timespec mtime,
			struct cpull_error *err);
	/* Hides what lower layers have in the directory (LAYER_DIR_CONTENT). */
	int (*set_opaque)(struct layer_fs *fs, int dir, struct cpull_error *err);
	/* Gives it (LAYER_DIR_CONTENT) the extended attributes of a lower layer's directory. */
	int (*inherit)(struct layer_fs *fs, int dir, const struct lower_layer *from, const char *path,
		       struct cpull_error *err);

	/* ---- names ---- */

	/* Symlinks are not followed. */
	int (*stat)(struct layer_fs *fs, int dir, const char *name, struct stat *out);
	/* The target, NUL-terminated, into `out` of LIMIT_PATH_BYTES. */
	int (*read_link)(struct layer_fs *fs, int dir, const char *name, char *out);
	/* Of anything but a directory. */
	int (*unlink)(struct layer_fs *fs, int dir, const char *name);
	/* Of an empty directory. */
	int (*rmdir)(struct layer_fs *fs, int dir, const char *name);
	/* As fs_remove_tree_telling(): after an error it can be called again. */
	int (*remove_tree)(struct layer_fs *fs, int dir, const char *name, fs_gone_fn gone, void *payload,
			   struct cpull_error *err);
	/* -EEXIST when the new name is taken. */
	int (*rename)(struct layer_fs *fs, int from, const char *from_name, int to, const char *to_name);
	/* The name is free. `first`: there is no other whiteout in the directory. */
	int (*make_whiteout)(struct layer_fs *fs, int dir, const char *name, bool first, struct cpull_error *err);
	/* Is it a whiteout in overlayfs's eyes? st is what stat() gave. */
	bool (*is_whiteout)(struct layer_fs *fs, int dir, const char *name, const struct stat *st);

	/* ---- files ---- */

	/* A new regular file for file_data(); one at a time. The entry is used until file_close(). */
	int (*file_open)(struct layer_fs *fs, int dir, const char *name, const struct tar_entry *entry,
			 struct cpull_error *err);
	bool (*file_is_open)(const struct layer_fs *fs);
	/* data lies in chunk, of which a reference is kept where it is needed longer. */
	int (*file_data)(struct layer_fs *fs, struct chunk *chunk, const struct tar_data *data,
			 struct cpull_error *err);
	/* What can be done later may be: then its error comes from hand_over() or wait(), and the file may no longer be
	 * open once the last of its data is here. */
	int (*file_close)(struct layer_fs *fs, const struct tar_entry *entry, struct cpull_error *err);
	/* Waits until at most one chunk is still held: called when the caller wants the next chunk, which may need to
	 * come out of those that are held here. */
	int (*yield)(struct layer_fs *fs, struct cpull_error *err);
	/* As file_jobs_hand_over() and file_jobs_wait(): what was left for later is begun, is done. The error of an
	 * earlier file has its path. */
	int (*hand_over)(struct layer_fs *fs, struct cpull_error *err);
	int (*wait)(struct layer_fs *fs, struct cpull_error *err);
	/* The entry's target is not empty. */
	int (*symlink)(struct layer_fs *fs, int dir, const char *name, const struct tar_entry *entry,
		       struct cpull_error *err);
	/* Devices and fifos; the numbers are in range, and it is no whiteout. */
	int (*node)(struct layer_fs *fs, int dir, const char *name, const struct tar_entry *entry,
		    struct cpull_error *err);
	/* Another name for a file; a copy when it has as many as it can have. st is the file's. */
	int (*link)(struct layer_fs *fs, int from, const char *from_name, const struct stat *st, int dir,
		    const char *name, struct cpull_error *err);
	/* A copy of a lower layer's file of any kind but a directory, with its attributes; path has no symlink in it,
	 * st is what the lower layer says. */
	int (*copy)(struct layer_fs *fs, const struct lower_layer *from, const char *path, const struct stat *st,
		    int dir, const char *name, struct cpull_error *err);
	/* Owner, mode and time of a file, as the entry says. st is what stat() gives for it. */
	int (*restat)(struct layer_fs *fs, int dir, const char *name, const struct stat *st,
		      const struct tar_entry *entry, struct cpull_error *err);

	/* ---- the end ---- */

	/* No more tar: gives back what only files need. wait() was the last call. Tying may follow. */
	void (*end_files)(struct layer_fs *fs, struct layer_fs_stats *out);
	/* After it: the layer waits for those below it, for long maybe and with many others. */
	int (*rest)(struct layer_fs *fs, struct cpull_error *err);
	/* Nothing will be changed any more: what is not written yet is written. */
	int (*finish)(struct layer_fs *fs, struct cpull_error *err);
	void (*free)(struct layer_fs *fs);
};

struct layer_fs {
	const struct layer_fs_ops *ops;
	int root; /* handle of the root directory: not to be closed */
	struct attributes_notes notes;
	/* Called when something fails with errno num: is it worth another try, as it was for want of descriptors and
	 * there were some to close? Set by tree.c. */
	bool (*give_way)(void *payload, int num);
	void *give_way_payload;
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
