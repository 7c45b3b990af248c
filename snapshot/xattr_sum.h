/* SPDX-License-Identifier: Apache-2.0
 *
 * One number for all extended attributes of a file.
 */
#ifndef SNAPSHOT_XATTR_SUM_H
#define SNAPSHOT_XATTR_SUM_H

#include "snapshot/attributes.h"

/* Of what images bring and layers are given; labels that the machine sets by itself (SELinux, IMA, EVM, Smack) do not
 * count. 0 when there is none. Gives 0 or -errno; `type` of the file does not matter. */
MUST_CHECK int xattr_sum(const struct attributes_file *file, uint64_t *out);

#endif
