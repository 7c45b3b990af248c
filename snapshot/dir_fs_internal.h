/* SPDX-License-Identifier: Apache-2.0
 *
 * What the two halves of dir_fs share: dir_fs.c (directories, names, whiteouts) and dir_writer.c (files). The functions
 * of dir_writer.c are entries of the table, and as it says.
 */
#ifndef SNAPSHOT_DIR_FS_INTERNAL_H
#define SNAPSHOT_DIR_FS_INTERNAL_H

#include "snapshot/dir_fs.h"

struct dir_fs {
	struct layer_fs fs;
	struct resolve_root root;
	struct attributes_self self;
	bool trusted_fails; /* overlay attributes have to be user.overlay.* here */
	bool mknod_fails;   /* whiteouts have to be attributes */

	/* until end_files() */
	struct bulk_writer *bulk;
	struct file_jobs *jobs;
	int fd; /* the file at work, or -1 */
	bool is_bulk;
	const struct tar_entry *job; /* its entry, when it is to be a job: its data is not written here */
	uint64_t end; /* the highest byte written so far */
};

static inline struct dir_fs *dir_fs(const struct layer_fs *fs)
{
	return (struct dir_fs *)((char *)(uintptr_t)fs - offsetof(struct dir_fs, fs));
}

/* Is num a want of descriptors, and were there some to close, so that it is worth another try? */
bool dir_fs_give_way(struct dir_fs *dir, int num);
/* openat(2) that closes what can be opened again rather than fail for want of descriptors. -1 with errno. */
int dir_fs_openat(struct dir_fs *dir, int dirfd, const char *name, int flags, mode_t mode);

/* What only files need. No write is under way after the second, and no job. */
MUST_CHECK int dir_writer_init(struct dir_fs *dir, const struct dir_fs_options *options, struct cpull_error *err);
void dir_writer_destroy(struct dir_fs *dir);

int dir_writer_open(struct layer_fs *fs, int at, const char *name, const struct tar_entry *entry,
		    struct cpull_error *err);
bool dir_writer_is_open(const struct layer_fs *fs);
int dir_writer_data(struct layer_fs *fs, struct chunk *chunk, const struct tar_data *data, struct cpull_error *err);
int dir_writer_close(struct layer_fs *fs, const struct tar_entry *entry, struct cpull_error *err);
int dir_writer_yield(struct layer_fs *fs, struct cpull_error *err);
int dir_writer_hand_over(struct layer_fs *fs, struct cpull_error *err);
int dir_writer_wait(struct layer_fs *fs, struct cpull_error *err);
int dir_writer_symlink(struct layer_fs *fs, int at, const char *name, const struct tar_entry *entry,
		       struct cpull_error *err);
int dir_writer_node(struct layer_fs *fs, int at, const char *name, const struct tar_entry *entry,
		    struct cpull_error *err);
int dir_writer_link(struct layer_fs *fs, int from, const char *from_name, const struct stat *st, int at,
		    const char *name, struct cpull_error *err);
int dir_writer_copy(struct layer_fs *fs, const struct lower_layer *from, const char *path, const struct stat *st,
		    int at, const char *name, struct cpull_error *err);
int dir_writer_restat(struct layer_fs *fs, int at, const char *name, const struct stat *st,
		      const struct tar_entry *entry, struct cpull_error *err);
void dir_writer_end_files(struct layer_fs *fs, struct layer_fs_stats *out);

#endif
