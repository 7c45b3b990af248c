/* SPDX-License-Identifier: Apache-2.0
 *
 * A layer's directories as a directory tree on disk: struct layer_fs by system calls. Handles are descriptors.
 */
#ifndef SNAPSHOT_DIR_FS_H
#define SNAPSHOT_DIR_FS_H

#include "snapshot/layer_fs.h"

struct dir_fs {
	struct layer_fs fs;
	struct resolve_root root;
	struct attributes_self self;
};

/* dirfd is borrowed: an empty directory. */
void dir_fs_init(struct dir_fs *out, int dirfd);

#endif
