/* SPDX-License-Identifier: Apache-2.0
 *
 * Checking a directory layer against its list of contents, one directory at a time: each is on its own, so that many
 * threads can share a layer. Nothing is changed.
 */
#ifndef SNAPSHOT_DIR_CHECK_H
#define SNAPSHOT_DIR_CHECK_H

#include <stdatomic.h>

#include "snapshot/contents_index.h"

/* Something is not as it was written: the path in the layer ("" is its root) in any bytes, and what is wrong, one line
 * for a person. From any of the threads. */
typedef void (*check_found_fn)(void *payload, const char *path, const char *what);

struct check_sink {
	check_found_fn found;
	void *payload;
	atomic_bool *stop;            /* ends the check soon with CPULL_ERR_CANCELLED */
	atomic_uint_fast64_t *bytes;  /* of data that was read is added */
};

/* Of one thread. */
struct dir_checker;

MUST_CHECK int dir_checker_new(struct dir_checker **out, struct cpull_error *err);
void dir_checker_free(struct dir_checker *checker);

/* Checks directory `dir` of the index, which is open (root_fd is the layer's root), and all that has a name in it: what
 * is missing, what is there beside, kind, attributes, data. Nothing for one that is not there in the end, or whose own
 * name, which is its parent's business, leads to none. A negative code means that it could not be checked. */
MUST_CHECK int dir_check(struct dir_checker *checker, int root_fd, const struct contents_index *index, uint32_t dir,
			 const struct check_sink *sink, struct cpull_error *err);

/* Can a system call that failed with errno num be blamed on what is stored? */
bool check_is_damage(int num);

#endif
