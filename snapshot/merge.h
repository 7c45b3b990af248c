/* SPDX-License-Identifier: Apache-2.0
 *
 * Moving the content of one directory of a layer into another one.
 */
#ifndef SNAPSHOT_MERGE_H
#define SNAPSHOT_MERGE_H

#include "snapshot/tree.h"

/* Moves what is in `from` into `to`, directories of the same name merged, and removes `from`. `to` is not below `from`.
 * CPULL_ERR_UNSUPPORTED when both have a file of the same name. */
MUST_CHECK int merge_dirs(struct tree *tree, uint32_t from, uint32_t to, struct cpull_error *err);

#endif
