/* SPDX-License-Identifier: Apache-2.0
 *
 * The EROFS images of a stack, mounted in the mount's own directory.
 */
#ifndef ENGINE_MOUNT_IMAGES_H
#define ENGINE_MOUNT_IMAGES_H

#include "engine/mount_stack.h"

/* In a mount's directory: where images are mounted, as "0", "1" …, and what else is there of EROFS layers. */
#define MOUNT_LOWER_DIR "lower"

struct image_points {
	char **paths; /* lowest first */
	size_t count;
};

/* Mounts the layers, or one image that is all of them. Also after an error some may be mounted, and *out is to be
 * freed. */
MUST_CHECK int mount_images(const struct mount_stack *stack, struct image_points *out, struct cpull_error *err);
void image_points_free(struct image_points *points);

#endif
