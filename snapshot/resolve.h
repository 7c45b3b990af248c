/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening directories by path inside a root directory, whatever symlinks lie on the way: absolute ones and ".." stay
 * inside. By openat2(2); where that is refused by a walk of our own.
 */
#ifndef SNAPSHOT_RESOLVE_H
#define SNAPSHOT_RESOLVE_H

#include "engine/base/limits.h"
#include "engine/base/util.h"

struct resolve_root {
	int fd;          /* borrowed */
	bool no_openat2; /* refused before (old kernel, seccomp filter): walk */
};

/* What a walk does about a component that is not there or is no directory. Returns 0 when a directory is there now,
 * else -errno. dirfd is the directory (O_PATH) that name is missing in. */
typedef int (*resolve_missing_fn)(void *payload, int dirfd, const char *name);

/* Opens (O_PATH) the directory that path leads to. Returns the descriptor or -errno. */
MUST_CHECK int resolve_dir(struct resolve_root *root, const char *path);
/* The same by our own walk; `missing` (or NULL) is asked about what is not there. */
MUST_CHECK int resolve_walk(struct resolve_root *root, const char *path, resolve_missing_fn missing,
			    void *payload);
/* Opens a path that must not have a symlink anywhere, the last component included; flags as for open(2). Returns
 * the descriptor or -errno. */
MUST_CHECK int resolve_plain(struct resolve_root *root, const char *path, int flags);

#endif
