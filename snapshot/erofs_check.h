/* SPDX-License-Identifier: Apache-2.0
 *
 * Looking through a whole EROFS image without mounting it: is all of it in order, or what is in blocks that are known
 * to be damaged? Nothing is changed.
 */
#ifndef SNAPSHOT_EROFS_CHECK_H
#define SNAPSHOT_EROFS_CHECK_H

#include "snapshot/dir_check.h"

/* Blocks first to first + count - 1 of the file. */
struct block_run {
	uint64_t first, count;
};

/* Every inode, name, extended attribute and byte of data: are they inside of the image, and can they be read? What is
 * wrong goes to the sink, with its path; what the bytes say is not judged. fd is borrowed. A negative code means that
 * it could not be checked. */
MUST_CHECK int erofs_check_structure(int fd, const struct check_sink *sink, struct cpull_error *err);
/* Tells the sink of everything, as far as it can still be found, that is in one of the runs, which are in order and do
 * not overlap. */
MUST_CHECK int erofs_check_owners(int fd, const struct block_run *runs, size_t count, const struct check_sink *sink,
				  struct cpull_error *err);

#endif
