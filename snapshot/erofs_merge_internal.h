/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of erofs_merge share: erofs_merge.c (directories and names) and erofs_merge_node.c (what has a name).
 */
#ifndef SNAPSHOT_EROFS_MERGE_INTERNAL_H
#define SNAPSHOT_EROFS_MERGE_INTERNAL_H

#include "snapshot/erofs_merge.h"
#include "snapshot/map.h"

/* What a layer has not given yet. All that is taken from an image lies in different places of it, but for shared
 * attributes: more than it is long is a sign of inodes and names that lie on each other, and a small image must not make
 * a large one. */
struct erofs_budget {
	uint64_t entries;
	uint64_t bytes;
};

/* The attributes of the inode at work. */
struct erofs_merge_xattrs {
	struct tar_xattr list[LIMIT_XATTRS];
	struct bytes text; /* their names and values */
	size_t shared_bytes; /* of those that other inodes may have, too */
};

struct erofs_merge {
	const struct erofs_merge_options *options;
	struct erofs_image *image;
	struct erofs_budget *budgets; /* of each layer */
	struct map links;             /* files with several names: their number in the merged image */
	struct erofs_merge_xattrs xattrs;
	uint32_t *chunks; /* LIMIT_EROFS_CHUNKS, once there is a sparse file */
	/* directories from the root to the one at work, on each other in the first two */
	struct erofs_item *items;
	size_t item_count, item_cap;
	struct bytes names;
	struct erofs_frame *frames;
	size_t depth, frame_cap;
	/* those of one as the builder wants them */
	struct erofs_entry *entries;
	size_t entry_cap;
};

/* The lowest layer comes first. */
static inline size_t erofs_merge_device(const struct erofs_merge *merge, size_t layer)
{
	return merge->options->count - 1 - layer;
}

/* Takes it from the layer's budget. */
MUST_CHECK int erofs_merge_charge(struct erofs_merge *merge, size_t layer, uint64_t bytes, struct cpull_error *err);
/* An inode of a layer, of the type that its name says. */
MUST_CHECK int erofs_merge_node(struct erofs_merge *merge, size_t layer, uint64_t nid, enum erofs_type type,
				struct erofs_node *out, struct cpull_error *err);
/* What the merged image's inode has of it; good until the next call. */
MUST_CHECK int erofs_merge_attributes(struct erofs_merge *merge, size_t layer, const struct erofs_node *node,
				      struct erofs_attributes *out, struct cpull_error *err);
/* Writes an inode that is no directory, unless another of its names has brought it. *nid: the layer's, then the merged
 * image's. */
MUST_CHECK int erofs_merge_copy(struct erofs_merge *merge, size_t layer, enum erofs_type type, uint64_t *nid,
				struct cpull_error *err);

#endif
