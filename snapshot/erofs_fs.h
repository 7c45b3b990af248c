/* SPDX-License-Identifier: Apache-2.0
 *
 * A layer as one EROFS image: names and directories in memory until layer_fs_ops.finish(), everything else in the image
 * as it comes. Some 30 bytes and its text for a name, 250 for a directory; see LIMIT_EROFS_NAMES.
 */
#ifndef SNAPSHOT_EROFS_FS_H
#define SNAPSHOT_EROFS_FS_H

#include "snapshot/erofs_image.h"
#include "snapshot/layer_fs.h"

/* Options as of erofs_image_new(). *out is freed by its free(). */
MUST_CHECK int erofs_fs_new(const struct erofs_image_options *options, struct layer_fs **out, struct cpull_error *err);
/* After finish(). */
const struct erofs_image_result *erofs_fs_result(const struct layer_fs *fs);

#endif
