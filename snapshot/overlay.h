/* SPDX-License-Identifier: Apache-2.0
 *
 * Mounting a stack of layer directories as an overlay.
 */
#ifndef SNAPSHOT_OVERLAY_H
#define SNAPSHOT_OVERLAY_H

#include "engine/base/log.h"

struct overlay_mount {
	const char *const *lowers; /* absolute paths, LOWEST FIRST, repeats allowed (the topmost of each counts) */
	size_t lower_count;        /* at least 1 */
	const char *upper;         /* with work: absolute, exist, empty; or NULL for a read-only mount */
	const char *work;
	const char *target;        /* an existing directory */
};

/* Mounts: the new mount API with lowerdir+ (by descriptor where a path is too long), else one option string with
 * relative paths. A single lower without upper becomes a read-only bind mount. The upper's root takes the owner,
 * mode and xattrs of the topmost lower's root. */
MUST_CHECK int overlay_mount(const struct overlay_mount *mount, struct log *log, struct cpull_error *err);
/* Unmounts whatever is mounted last on target. */
MUST_CHECK int overlay_unmount(const char *target, struct cpull_error *err);
/* Is something mounted exactly there? Reads /proc/self/mountinfo. */
bool overlay_is_mounted(const char *target);

#endif
