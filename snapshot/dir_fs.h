/* SPDX-License-Identifier: Apache-2.0
 *
 * A layer as a directory tree on disk: struct layer_fs by system calls. Handles are descriptors.
 */
#ifndef SNAPSHOT_DIR_FS_H
#define SNAPSHOT_DIR_FS_H

#include "snapshot/layer_fs.h"

struct dir_fs_options {
	int dirfd;               /* the empty directory that becomes the layer's root; borrowed */
	enum cpull_io io;        /* how bulk data is written */
	enum file_helper helper; /* a thread for the data and the attributes of small files */
	struct log *log;
};

/* *out is freed by its free(). */
MUST_CHECK int dir_fs_new(const struct dir_fs_options *options, struct layer_fs **out, struct cpull_error *err);

#endif
