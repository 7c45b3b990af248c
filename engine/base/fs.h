/* SPDX-License-Identifier: Apache-2.0
 *
 * File system work on trees of our own making, always relative to a directory descriptor.
 */
#ifndef BASE_FS_H
#define BASE_FS_H

#include <dirent.h>

#include "engine/base/util.h"

static inline void cleanup_dir(DIR **d)
{
	if (*d)
		closedir(*d);
}
#define CLEANUP_DIR __attribute__((cleanup(cleanup_dir)))

/* mkdir that is content with a directory that is there. */
MUST_CHECK int fs_make_dir(int dirfd, const char *name, mode_t mode, struct cpull_error *err);
/* Opens a directory for reading, never through a symlink. -1 with errno. */
int fs_open_dir(int dirfd, const char *name);
/* A stream on a directory of our own (an independent descriptor), or NULL with errno. */
DIR *fs_list(int dirfd, const char *name);
/* The same for one that is open; takes the descriptor over, also when it fails. A negative one gives NULL, errno as
 * it is. */
DIR *fs_list_fd(int fd);
/* The next name in it but "." and "..", or NULL: at the end with errno 0. Good until the next call. */
const char *fs_next_name(DIR *dir);
/* Is the directory behind fd empty? 1, 0, or -errno. */
MUST_CHECK int fs_is_empty(int fd);
/* Removes name, whatever it is. Any depth, with two descriptors. Missing is fine; after an error it can be called
 * again. */
MUST_CHECK int fs_remove_tree(int dirfd, const char *name, struct cpull_error *err);
/* The same, and tells the inode number of every directory before it goes, of some more than once. */
typedef void (*fs_gone_fn)(void *payload, ino_t ino);
MUST_CHECK int fs_remove_tree_telling(int dirfd, const char *name, fs_gone_fn gone, void *payload,
				      struct cpull_error *err);
/* Writes all of it at offset. 0 or -errno; EIO where a write makes no progress. */
MUST_CHECK int fs_write_all(int fd, const void *data, size_t len, uint64_t offset);
/* A file without a name on the directory's file system, for reading and writing: gone when it is closed. -1 with
 * errno. */
int fs_temp_file(int dirfd);
/* Writes a whole file beside its place and renames it there; with sync it is on disk when this returns. */
MUST_CHECK int fs_replace_file(int dirfd, const char *name, const void *data, size_t len, bool sync,
			       struct cpull_error *err);
/* Is `name` still the file behind fd? */
bool fs_same_file(int fd, int dirfd, const char *name);

#endif
