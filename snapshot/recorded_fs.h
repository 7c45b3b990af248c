/* SPDX-License-Identifier: Apache-2.0
 *
 * A layer on disk that a list of its contents (contents_record.h) is written of while it is written.
 */
#ifndef SNAPSHOT_RECORDED_FS_H
#define SNAPSHOT_RECORDED_FS_H

#include "snapshot/contents_writer.h"
#include "snapshot/layer_fs.h"

/* `disk` is a dir_fs, which is taken over, also when it fails. The list is made as `name` in dirfd, both borrowed. *out
 * is freed by its free(). */
MUST_CHECK int recorded_fs_new(struct layer_fs *disk, int dirfd, const char *name, struct layer_fs **out,
			       struct cpull_error *err);
/* After finish(). */
const struct contents_facts *recorded_fs_facts(const struct layer_fs *fs);

#endif
