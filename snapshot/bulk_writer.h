/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes the data of large files, one file at a time: its size announced to the file system, several writes under way
 * at once where there is a ring.
 */
#ifndef SNAPSHOT_BULK_WRITER_H
#define SNAPSHOT_BULK_WRITER_H

#include "engine/base/log.h"
#include "engine/base/pool.h"
#include "snapshot/tar.h"

/* From here on a file is one for the bulk writer. */
#define BULK_BYTES (1u << 20)
/* And from here on its data may go past the page cache. */
#define DIRECT_BYTES (1u << 20)
/* How much room is reserved ahead of the data: what a header says of a file's size is not worth more before the blob is
 * verified, or a few bytes could claim a whole disk. */
#define RESERVE_BYTES (16u << 20)

struct bulk_writer;

struct bulk_writer_options {
	int dirfd; /* a directory of the file system that is written to, looked at by bulk_writer_new() only */
	enum cpull_io io;
	struct log *log;
};

/* How data was written, each better than the one before. */
enum bulk_way { BULK_SYNC, BULK_URING, BULK_URING_DIRECT };

/* CPULL_IO_URING is an error where the kernel refuses io_uring. */
MUST_CHECK int bulk_writer_new(const struct bulk_writer_options *options, struct bulk_writer **out,
			       struct cpull_error *err);
/* Lets go of chunks; no write is under way after it. */
void bulk_writer_free(struct bulk_writer *writer);

/* A new, empty file of `size` bytes to come, opened for writing only. fd is borrowed until bulk_writer_end() has given
 * 0, or the writer is freed. */
MUST_CHECK int bulk_writer_begin(struct bulk_writer *writer, int fd, uint64_t size, struct cpull_error *err);
/* data lies in chunk, of which a reference is kept until it is written. */
MUST_CHECK int bulk_writer_data(struct bulk_writer *writer, struct chunk *chunk, const struct tar_data *data,
				struct cpull_error *err);
/* Waits until at most one chunk is still held. */
MUST_CHECK int bulk_writer_yield(struct bulk_writer *writer, struct cpull_error *err);
/* Waits for the file's data. */
MUST_CHECK int bulk_writer_end(struct bulk_writer *writer, struct cpull_error *err);

/* Plain writes, for whoever has less data. */
MUST_CHECK int bulk_write_plain(int fd, const void *data, size_t len, uint64_t offset, struct cpull_error *err);

/* Does the file take direct writes of what starts and ends at multiples of 4096 bytes, in the file and in memory? */
bool bulk_takes_direct(int fd);
/* The best way that was taken so far. */
enum bulk_way bulk_writer_way(const struct bulk_writer *writer);
/* "sync", "uring", "uring+direct" */
const char *bulk_way_text(enum bulk_way way);

#endif
