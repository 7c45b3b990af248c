/* SPDX-License-Identifier: Apache-2.0
 *
 * What one layer leaves open until the layers below it are there, and tying it: see layer_writer_tie().
 */
#ifndef SNAPSHOT_LOOSE_ENDS_H
#define SNAPSHOT_LOOSE_ENDS_H

#include "snapshot/tree.h"

/* A hard link to a file that this layer does not have. */
struct loose_link {
	uint32_t dir;
	uint32_t name;   /* offsets into text */
	uint32_t target; /* path, cleaned */
	uint32_t mode;
	uint32_t uid, gid;
	struct timespec mtime;
};

struct loose_ends {
	struct loose_link *links;
	uint32_t count, cap;
	struct bytes text;
	bool tied;
	struct map by_name; /* tree_name_key() → the last link of that name */
};

void loose_ends_free(struct loose_ends *ends);
/* Notes a link `name` in `at` to target. */
MUST_CHECK int loose_ends_add(struct loose_ends *ends, const struct tree *tree, struct tree_place at,
			      const char *name, const char *target, const struct tar_entry *entry,
			      struct cpull_error *err);
/* The target of a link noted before, or NULL. */
const char *loose_ends_target(const struct loose_ends *ends, const struct tree *tree, uint32_t dir,
			      const char *name);
/* Is there anything to tie: links, directories without entries of their own, whiteouts? */
bool loose_ends_exist(const struct loose_ends *ends, const struct tree *tree);
/* Ties against the lower layers, topmost first. Afterwards nothing is left. */
MUST_CHECK int loose_ends_tie(struct loose_ends *ends, struct tree *tree, const struct lower_layer *lowers,
			      size_t count, struct cpull_error *err);

#endif
