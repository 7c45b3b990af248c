/* SPDX-License-Identifier: Apache-2.0
 *
 * What a stack of layers shows, as overlayfs would: lookups by path without a mount.
 */
#ifndef SNAPSHOT_STACK_VIEW_H
#define SNAPSHOT_STACK_VIEW_H

#include "snapshot/lower_layer.h"

#define STACK_WORDS ((LIMIT_LAYERS + 63u) / 64u)

/* A directory on the way: the layers that have a part in it. */
struct stack_level {
	uint64_t layers[STACK_WORDS];
	uint16_t path_len;
};

struct stack_view {
	const struct lower_layer *layers; /* topmost first, borrowed */
	size_t count;
	struct stack_level *levels; /* of the directory at `path` and its parents, the root first */
	size_t depth, cap;
	char path[LIMIT_PATH_BYTES];
};

struct stack_node {
	size_t layer; /* the topmost that shows it; the view's count: nothing is there */
	struct stat st;
};

/* 0 or -errno, E2BIG for more layers than overlayfs takes. */
MUST_CHECK int stack_view_init(struct stack_view *view, const struct lower_layer *layers, size_t count);
void stack_view_free(struct stack_view *view);
/* Looks a path up that is taken as it is: no symlink on the way is followed. Returns 0 or -errno; nothing there is 0
 * with out->layer == count. */
MUST_CHECK int stack_view_find(struct stack_view *view, const char *path, struct stack_node *out);
/* Follows symlinks (the last one only if `follow`) inside the stack. `out` (LIMIT_PATH_BYTES) gets the path that
 * it comes to; what is not there is taken as it is written. Returns 0 or -errno (ELOOP, ENOTDIR, …). */
MUST_CHECK int stack_view_resolve(struct stack_view *view, const char *path, bool follow, char *out,
				  struct stack_node *node);

#endif
