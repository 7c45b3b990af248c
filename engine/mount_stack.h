/* SPDX-License-Identifier: Apache-2.0
 *
 * An image's layers, directories or EROFS images, stacked on a directory.
 */
#ifndef ENGINE_MOUNT_STACK_H
#define ENGINE_MOUNT_STACK_H

#include "engine/record.h"

struct mount_stack {
	struct store *store;
	const char *id;             /* the mount's directory in mounts/, which the caller owns */
	const struct record *image; /* with its layers pinned */
	const char *target;
	bool read_write;            /* upper/ and work/ are in the mount's directory */
};

/* Mounts. One unmount of the target takes all of it down. After a failure nothing is mounted. */
MUST_CHECK int mount_stack_make(const struct mount_stack *stack, struct cpull_error *err);
/* Takes down what a mount that was cut short has left mounted in its own directory, which until then must not be
 * removed. The caller owns the directory. */
MUST_CHECK int mount_stack_clear(struct store *store, const char *id, struct cpull_error *err);

#endif
