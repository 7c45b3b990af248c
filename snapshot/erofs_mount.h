/* SPDX-License-Identifier: Apache-2.0
 *
 * Mounting one EROFS image.
 */
#ifndef SNAPSHOT_EROFS_MOUNT_H
#define SNAPSHOT_EROFS_MOUNT_H

#include "engine/base/log.h"

struct erofs_mount {
	const char *image;  /* absolute; a block device, or a file, which nobody may write to while it is mounted */
	const char *target; /* an existing directory, no link to one */
	bool direct;        /* past the page cache of the image's file system, where that is possible */
	/* those that the image has a table of, in its order, as `image`: a merged image's layers, the lowest first */
	const char *const *devices;
	size_t device_count;
};

/* How an image was mounted. */
enum erofs_way {
	EROFS_BY_DEVICE, /* it is one */
	EROFS_BY_FILE,
	EROFS_BY_FILE_DIRECT,
	EROFS_BY_LOOP,
	EROFS_BY_LOOP_DIRECT,
};

/* Mounts read-only: the file itself where the kernel can (6.12, and neither on tmpfs nor on overlayfs), else by way of
 * a loop device, which frees itself when it is unmounted. `devices` go the way of the image, each with a loop device of
 * its own. One has to be the image that the table says, and as long. The message of a failure says what was tried and
 * why each did not work. CPULL_ERR_SIZE for an image that is cut, CPULL_ERR_UNSUPPORTED where the kernel has no EROFS
 * or the image has features that are not ours, CPULL_ERR_PERMISSION, CPULL_ERR_NOT_FOUND for a missing image or target,
 * CPULL_ERR_LIMIT for more than LIMIT_LAYERS devices, or more than mount(2) takes where the kernel has nothing better,
 * else CPULL_ERR_STORAGE. way may be NULL. overlay_unmount() takes it all down. */
MUST_CHECK int erofs_mount(const struct erofs_mount *mount, struct log *log, enum erofs_way *way,
			   struct cpull_error *err);
/* "device", "file", "file+direct", "loop", "loop+direct" */
const char *erofs_way_text(enum erofs_way way);

/* Could an image in this directory be mounted? 0, or why not. A handful of system calls; mounts and binds nothing, may
 * have the kernel load its modules. */
MUST_CHECK int erofs_mount_possible(int dirfd, struct cpull_error *err);

#endif
