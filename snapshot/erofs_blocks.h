/* SPDX-License-Identifier: Apache-2.0
 *
 * The blocks of an EROFS image in the order of the file: one stream from block 1 on, in large aligned writes, with
 * block 0 last.
 */
#ifndef SNAPSHOT_EROFS_BLOCKS_H
#define SNAPSHOT_EROFS_BLOCKS_H

#include "engine/base/log.h"
#include "snapshot/bulk_writer.h"
#include "snapshot/erofs_format.h"

/* Sees every block of the image as it is written, while it is in the cache: from block 1 on in order, block 0 last. */
typedef int (*erofs_written_fn)(void *payload, uint64_t block, const void *data, size_t blocks,
				struct cpull_error *err);

struct erofs_blocks_options {
	int fd; /* a new, empty file, borrowed */
	enum cpull_io io;
	struct log *log;
	erofs_written_fn written; /* or NULL */
	void *payload;
};

/* Of buffers; unless the ring is not wanted, twice as much. */
#define EROFS_BLOCKS_MEMORY_BYTES ((size_t)512 << 10)

struct erofs_blocks;

MUST_CHECK int erofs_blocks_new(const struct erofs_blocks_options *options, struct erofs_blocks **out,
				struct cpull_error *err);
/* No write is under way after it. */
void erofs_blocks_free(struct erofs_blocks *blocks);

/* Bytes behind those before. */
MUST_CHECK int erofs_blocks_add(struct erofs_blocks *blocks, const void *data, size_t len, struct cpull_error *err);
MUST_CHECK int erofs_blocks_add_zeros(struct erofs_blocks *blocks, uint64_t len, struct cpull_error *err);
/* Zeros up to the next block. */
MUST_CHECK int erofs_blocks_align(struct erofs_blocks *blocks, struct cpull_error *err);
/* The block that comes next; the stream is aligned. */
uint64_t erofs_blocks_next(const struct erofs_blocks *blocks);
/* CPULL_ERR_LIMIT when the image has no numbers for so many bytes more. */
MUST_CHECK int erofs_blocks_check(const struct erofs_blocks *blocks, uint64_t bytes, struct cpull_error *err);
/* The stream is aligned: writes what is held, and holds no memory until more comes, which is written through the page
 * cache. */
MUST_CHECK int erofs_blocks_rest(struct erofs_blocks *blocks, struct cpull_error *err);
/* The stream is aligned and at its end: writes what is held, waits, cuts the file to its size. */
MUST_CHECK int erofs_blocks_flush(struct erofs_blocks *blocks, struct cpull_error *err);
/* Block 0, after erofs_blocks_flush(); `first` has EROFS_BLOCK_BYTES. */
MUST_CHECK int erofs_blocks_first(struct erofs_blocks *blocks, const void *first, struct cpull_error *err);

/* The best way that was taken so far. */
enum bulk_way erofs_blocks_way(const struct erofs_blocks *blocks);

#endif
