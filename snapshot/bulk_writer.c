/* SPDX-License-Identifier: Apache-2.0
 *
 * The data of large files. Used by a layer's dir_writer on its thread; owns the ring, and a reference to each chunk
 * that the kernel still reads from.
 */
#include "snapshot/bulk_writer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "engine/base/ring.h"

#define BULK_WRITES 8u
/* Chunks that may stay with us while the caller waits for the next one. */
#define HELD_CHUNKS 1u

struct bulk_writer {
	struct ring *ring; /* NULL: plain writes */
	bool used_uring;
	bool preallocate;
	int fd; /* borrowed */
	struct chunk *held[BULK_WRITES];
	unsigned held_count;
	int failed; /* errno of the first write through the ring that failed */
};

int bulk_writer_new(int dirfd, enum cpull_io io, struct bulk_writer **out, struct cpull_error *err)
{
	struct bulk_writer *writer = calloc(1, sizeof(*writer));
	struct statfs fs;

	if (!writer)
		return error_nomem(err);
	/* tmpfs clears preallocated pages before they are written over */
	writer->preallocate = fstatfs(dirfd, &fs) == 0 && fs.f_type != TMPFS_MAGIC;
	if (io == CPULL_IO_URING) {
		int rc = ring_new(io, BULK_WRITES, &writer->ring, err);

		if (rc) {
			free(writer);
			return rc;
		}
	}
	*out = writer;
	return 0;
}

void bulk_writer_free(struct bulk_writer *writer)
{
	if (!writer)
		return;
	/* waits until the kernel has let go of every chunk */
	ring_free(writer->ring);
	for (unsigned i = 0; i < BULK_WRITES; i++)
		chunk_put(writer->held[i]);
	free(writer);
}

bool bulk_writer_used_uring(const struct bulk_writer *writer)
{
	return writer->used_uring;
}

/* Takes completions until at most `most` writes are under way. */
static int wait_writes(struct bulk_writer *writer, unsigned most, struct cpull_error *err)
{
	struct ring_event events[BULK_WRITES];

	while (writer->held_count > most) {
		int n = ring_wait(writer->ring, -1, events, BULK_WRITES);

		if (n < 0)
			return error_set(err, n, "waiting for writes: io_uring failed");
		for (int i = 0; i < n; i++) {
			if (events[i].op != RING_WRITE)
				continue;
			if (events[i].result < 0 && !writer->failed)
				writer->failed = -events[i].result;
			assert(events[i].token < BULK_WRITES && writer->held[events[i].token]);
			chunk_put(writer->held[events[i].token]);
			writer->held[events[i].token] = NULL;
			writer->held_count--;
		}
	}
	if (writer->failed)
		return error_sys(err, CPULL_ERR_STORAGE, writer->failed, "writing its data");
	return 0;
}

static int write_ring(struct bulk_writer *writer, struct chunk *chunk, const struct tar_data *data,
		      struct cpull_error *err)
{
	unsigned slot = 0;
	int rc = wait_writes(writer, BULK_WRITES - 1, err);

	if (rc)
		return rc;
	while (writer->held[slot])
		slot++;
	rc = ring_write(writer->ring, writer->fd, data->data, data->len, data->offset, slot);
	if (rc)
		return error_set(err, rc, "writing its data: io_uring takes no more");
	chunk_ref(chunk);
	writer->held[slot] = chunk;
	writer->held_count++;
	writer->used_uring |= ring_is_uring(writer->ring);

	/* hand it to the kernel now; what is done already is taken along */
	struct ring_event event;
	int n = ring_wait(writer->ring, 0, &event, 1);

	if (n > 0 && event.op == RING_WRITE) {
		if (event.result < 0 && !writer->failed)
			writer->failed = -event.result;
		chunk_put(writer->held[event.token]);
		writer->held[event.token] = NULL;
		writer->held_count--;
	}
	return n < 0 ? error_set(err, n, "submitting a write: io_uring failed") : 0;
}

int bulk_writer_data(struct bulk_writer *writer, struct chunk *chunk, const struct tar_data *data,
		     struct cpull_error *err)
{
	if (writer->ring)
		return write_ring(writer, chunk, data, err);

	int rc = fs_write_all(writer->fd, data->data, data->len, data->offset);

	return rc ? error_sys(err, CPULL_ERR_STORAGE, -rc, "writing its data") : 0;
}

int bulk_writer_yield(struct bulk_writer *writer, struct cpull_error *err)
{
	return writer->held_count > HELD_CHUNKS ? wait_writes(writer, HELD_CHUNKS, err) : 0;
}

static int preallocate(const struct bulk_writer *writer, uint64_t size, struct cpull_error *err)
{
	int rc;

	do
		rc = fallocate(writer->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)size);
	while (rc && errno == EINTR);
	/* only a lack of room matters; writing says what else is wrong */
	if (rc && (errno == ENOSPC || errno == EDQUOT))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "reserving %llu bytes for its data",
				 (unsigned long long)size);
	return 0;
}

int bulk_writer_begin(struct bulk_writer *writer, int fd, uint64_t size, struct cpull_error *err)
{
	writer->fd = fd;
	return writer->preallocate ? preallocate(writer, size, err) : 0;
}

int bulk_writer_end(struct bulk_writer *writer, struct cpull_error *err)
{
	return writer->ring ? wait_writes(writer, 0, err) : 0;
}
