/* SPDX-License-Identifier: Apache-2.0
 *
 * A complete layer, looked into while the one above it is tied to it: a directory, or an EROFS image that is read
 * without a mount. All layers of a stack are of one kind.
 */
#ifndef SNAPSHOT_LOWER_LAYER_H
#define SNAPSHOT_LOWER_LAYER_H

#include <sys/stat.h>

#include "engine/base/limits.h"
#include "engine/base/util.h"

struct erofs_reader;

struct lower_layer {
	int dirfd;                  /* of a directory, borrowed; else -1 */
	struct erofs_reader *image; /* of an image, borrowed; else NULL */
};

struct lower_node {
	struct stat st; /* st_dev of an image is 0 */
	bool whiteout;  /* in overlayfs's eyes */
};

/* Paths are relative to the layer's root ("" is the root), the parents of the last name directories, as the caller has
 * seen. 0 or -errno: -ENOENT, -ENOTDIR; -EIO for a damaged image. A symlink is not followed. */
MUST_CHECK int lower_layer_find(const struct lower_layer *layer, const char *path, struct lower_node *out);
/* Does the directory hide what is below it in the stack? 1, 0 or -errno. */
MUST_CHECK int lower_layer_opaque(const struct lower_layer *layer, const char *path);
/* The target of a symlink into `out` of LIMIT_PATH_BYTES, NUL-terminated; 0 or -errno (-EINVAL: it is none). */
MUST_CHECK int lower_layer_link(const struct lower_layer *layer, const char *path, char *out);

#endif
