/* SPDX-License-Identifier: Apache-2.0
 *
 * The metadata of an EROFS image until its place in the image is known: inodes and what follows them, each at a
 * multiple of EROFS_SLOT_BYTES.
 */
#ifndef SNAPSHOT_EROFS_SPOOL_H
#define SNAPSHOT_EROFS_SPOOL_H

#include "engine/base/util.h"

/* So much of it stays in memory. */
#define EROFS_SPOOL_MEMORY_BYTES ((size_t)1 << 20)

struct erofs_spool;

/* dirfd is borrowed: a file without a name is made in there when the memory does not hold it all. */
MUST_CHECK int erofs_spool_new(int dirfd, struct erofs_spool **out, struct cpull_error *err);
void erofs_spool_free(struct erofs_spool *spool);

/* Finds room for a record: `fixed` bytes and, behind them, `tail` bytes that have to share a block. *inlined is false
 * where the tail is better off in a block of its own (or there is none); then there is room for the fixed part only.
 * *at is where, and what is there reads as zeros. */
MUST_CHECK int erofs_spool_place(struct erofs_spool *spool, size_t fixed, size_t tail, uint64_t *at, bool *inlined,
				 struct cpull_error *err);
/* The same for a tail that has no other place than behind its record: as much room as it takes is left before. The two
 * share a block where fixed % EROFS_SLOT_BYTES + tail is not more than one has; else CPULL_ERR_UNSUPPORTED. */
MUST_CHECK int erofs_spool_place_inlined(struct erofs_spool *spool, size_t fixed, size_t tail, uint64_t *at,
					 struct cpull_error *err);
/* Would a tail behind a record of `fixed` bytes at `at` share a block? What erofs_spool_place() said of it is told
 * from its place. */
bool erofs_spool_inlines(uint64_t at, size_t fixed, size_t tail);
/* Any place that was found, in any order, best in that of the places. */
MUST_CHECK int erofs_spool_write(struct erofs_spool *spool, uint64_t at, const void *data, size_t len,
				 struct cpull_error *err);
/* Has the file take all of it: only what is written later takes memory. */
MUST_CHECK int erofs_spool_rest(struct erofs_spool *spool, struct cpull_error *err);
/* What was written there, zeros where nothing was. */
MUST_CHECK int erofs_spool_read(struct erofs_spool *spool, uint64_t at, void *out, size_t len, struct cpull_error *err);
/* Of all records. */
uint64_t erofs_spool_bytes(const struct erofs_spool *spool);
/* Gives all of it in order, in pieces; what was given is gone. Only erofs_spool_free() may follow. */
typedef int (*erofs_spool_fn)(void *payload, const void *data, size_t len, struct cpull_error *err);
MUST_CHECK int erofs_spool_drain(struct erofs_spool *spool, erofs_spool_fn take, void *payload,
				 struct cpull_error *err);

#endif
