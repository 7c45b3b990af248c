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

struct bulk_writer;

/* dirfd is a directory of the file system that is written to. io as in layer_writer_options. */
MUST_CHECK int bulk_writer_new(int dirfd, enum cpull_io io, struct bulk_writer **out, struct cpull_error *err);
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

/* Did data go through io_uring? */
bool bulk_writer_used_uring(const struct bulk_writer *writer);

#endif
