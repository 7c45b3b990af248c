/* SPDX-License-Identifier: Apache-2.0
 *
 * What a layer's whiteouts and opaque directories hide; their form is overlay_marks.h.
 */
#ifndef SNAPSHOT_WHITEOUT_H
#define SNAPSHOT_WHITEOUT_H

#include "snapshot/tree.h"

/* Hides `name` of the lower layers, unless this layer has something of that name. */
MUST_CHECK int whiteout_make(struct tree *tree, struct tree_place at, const char *name, struct cpull_error *err);
/* Hides what the lower layers have in the directory; TREE_RECREATED in `how` when they have lost it itself. */
MUST_CHECK int whiteout_opaque(struct tree *tree, uint32_t dir, unsigned how, struct cpull_error *err);
/* Takes all whiteouts out of a directory. */
MUST_CHECK int whiteout_sweep_dir(struct tree *tree, uint32_t dir, struct cpull_error *err);
/* Takes whiteouts out of opaque directories and from below them, where they would show up as names without a file. */
MUST_CHECK int whiteout_sweep(struct tree *tree, struct cpull_error *err);

#endif
