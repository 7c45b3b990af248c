/* SPDX-License-Identifier: Apache-2.0
 *
 * A stack of EROFS layers as one image: what the overlay of the layers shows, with one inode for each file, whose
 * blocks stay in the layers' images. These are the merged image's devices, THE LOWEST FIRST: the kernel goes through
 * them in this order, and the layers at the bottom tend to have the most files. Tails and symlinks' targets, which
 * layers have between their inodes, are copied, so that the merged image is about as long as the inodes of the layers
 * are; nothing else of the data is read.
 */
#ifndef SNAPSHOT_EROFS_MERGE_H
#define SNAPSHOT_EROFS_MERGE_H

#include "snapshot/erofs_image.h"
#include "snapshot/erofs_reader.h"

struct erofs_merge_layer {
	struct erofs_reader *image; /* of an image without devices; borrowed */
	const char *name;           /* for messages */
};

struct erofs_merge_options {
	const struct erofs_merge_layer *layers; /* the topmost first */
	size_t count; /* at least one */
	struct erofs_image_options image; /* what is written; its devices are the layers */
	uint64_t max_entries; /* of one layer; 0: LIMIT_LAYER_ENTRIES */
};

/* The rules are overlayfs's: the topmost of a name is shown; directories merge down to one that is opaque, to a
 * whiteout or to what is no directory, and the topmost gives its attributes. Nothing of whiteouts and opaque marks is
 * left. Names of one file in a layer are names of one file. An opaque root hides all layers below it.
 *
 * The same layers give the same bytes. Memory: 16 bytes and the name for each entry of the directories on the way from
 * the root to the one at work, 32 for each entry of the largest, some 24 for each file with more than one name.
 *
 * Layers may hold anything: CPULL_ERR_STORAGE for one that is damaged, CPULL_ERR_UNSUPPORTED, CPULL_ERR_LIMIT. */
MUST_CHECK int erofs_merge(const struct erofs_merge_options *options, struct erofs_image_result *out,
			   struct cpull_error *err);

#endif
