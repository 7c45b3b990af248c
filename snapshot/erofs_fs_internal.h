/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of erofs_fs share: erofs_fs.c (the whole, directories), erofs_fs_names.c (paths and names),
 * erofs_fs_files.c, erofs_fs_lower.c (what comes from a lower layer), erofs_fs_finish.c.
 */
#ifndef SNAPSHOT_EROFS_FS_INTERNAL_H
#define SNAPSHOT_EROFS_FS_INTERNAL_H

#include "snapshot/erofs_fs.h"
#include "snapshot/erofs_names.h"
#include "snapshot/erofs_xattr_sets.h"

/* A handle is the number of a directory. */
struct erofs_fs {
	struct layer_fs fs;
	struct erofs_image *image;
	struct erofs_names names;
	struct erofs_xattr_sets xattrs; /* of directories */
	struct bytes encoded;           /* of them, to see whether an inode takes them */
	struct map links;               /* inode → its names, where there is or was more than one */
	uint32_t whiteout;              /* the inode of all whiteouts, 0: there is none yet */
	uint32_t file;                  /* the name of the file at work, or EROFS_NO_NAME */
	struct erofs_attributes attributes; /* its own */
	struct erofs_image_result result;
};

static inline struct erofs_fs *erofs_fs(struct layer_fs *fs)
{
	return (struct erofs_fs *)(void *)((char *)fs - offsetof(struct erofs_fs, fs));
}

/* What erofs_names_add() and others failed with. */
int erofs_fs_error(int num, const char *what, struct cpull_error *err);
/* The file type of st_mode. */
mode_t erofs_fs_mode(enum erofs_type type);
/* The inode of a directory as tree.c knows it. */
static inline ino_t erofs_fs_dir_ino(uint32_t dir)
{
	return (ino_t)1 << 63 | dir;
}

/* ---- erofs_fs_names.c ---- */

int erofs_fs_follow(struct layer_fs *fs, const char *path);
int erofs_fs_follow_making(struct layer_fs *fs, const char *path, resolve_missing_fn missing, void *payload);
int erofs_fs_open(struct layer_fs *fs, const char *path, enum layer_dir_use use);
int erofs_fs_stat(struct layer_fs *fs, int dir, const char *name, struct stat *out);
int erofs_fs_read_link(struct layer_fs *fs, int dir, const char *name, char *out);
int erofs_fs_unlink(struct layer_fs *fs, int dir, const char *name);
int erofs_fs_rmdir(struct layer_fs *fs, int dir, const char *name);
int erofs_fs_remove_tree(struct layer_fs *fs, int dir, const char *name, fs_gone_fn gone, void *payload,
			 struct cpull_error *err);
int erofs_fs_rename(struct layer_fs *fs, int from, const char *from_name, int to, const char *to_name);

/* ---- erofs_fs_files.c ---- */

/* Adds the name of an inode that is written. 1: it is taken. */
MUST_CHECK int erofs_fs_add_made(struct erofs_fs *fs, int dir, const char *name, enum erofs_type type, uint64_t nid,
				 const char *target, struct cpull_error *err);
int erofs_fs_file_open(struct layer_fs *fs, int dir, const char *name, const struct tar_entry *entry,
		       struct cpull_error *err);
bool erofs_fs_file_is_open(const struct layer_fs *fs);
int erofs_fs_file_data(struct layer_fs *fs, struct chunk *chunk, const struct tar_data *data,
		       struct cpull_error *err);
int erofs_fs_file_close(struct layer_fs *fs, const struct tar_entry *entry, struct cpull_error *err);
int erofs_fs_symlink(struct layer_fs *fs, int dir, const char *name, const struct tar_entry *entry,
		     struct cpull_error *err);
int erofs_fs_node(struct layer_fs *fs, int dir, const char *name, const struct tar_entry *entry,
		  struct cpull_error *err);
int erofs_fs_link(struct layer_fs *fs, int from, const char *from_name, const struct stat *st, int dir,
		  const char *name, struct cpull_error *err);
int erofs_fs_restat(struct layer_fs *fs, int dir, const char *name, const struct stat *st,
		    const struct tar_entry *entry, struct cpull_error *err);
int erofs_fs_make_whiteout(struct layer_fs *fs, int dir, const char *name, bool first, struct cpull_error *err);
bool erofs_fs_is_whiteout(struct layer_fs *fs, int dir, const char *name, const struct stat *st);

/* ---- erofs_fs_lower.c ---- */

int erofs_fs_inherit(struct layer_fs *fs, int dir, const struct lower_layer *from, const char *path,
		     struct cpull_error *err);
int erofs_fs_copy(struct layer_fs *fs, const struct lower_layer *from, const char *path, const struct stat *st,
		  int dir, const char *name, struct cpull_error *err);

/* ---- erofs_fs_finish.c ---- */

int erofs_fs_finish(struct layer_fs *fs, struct cpull_error *err);

#endif
