/* SPDX-License-Identifier: Apache-2.0
 *
 * The data of large files. Used by a layer's dir_writer on its thread; owns the ring, the buffers of direct writes, and
 * a reference to each chunk that the kernel still reads from.
 *
 * Three ways: plain writes; through the ring; through the ring and past the page cache (O_DIRECT). Direct writes start
 * and end at multiples of BLOCK_BYTES of the file; what remains after the last of them is written plainly, with
 * O_DIRECT taken off. They come from buffers of our own: a file starts anywhere in a chunk, so its blocks are not
 * aligned there. The copy costs less than what ext4 does for data that is aligned to the device's sectors only.
 *
 * Kernel facts it leans on (6.18): a direct write that makes the file longer keeps out all others, so the size is set
 * by fallocate() before; so does one that starts or ends inside a block of the file system or, on ext4, comes from
 * memory that is not aligned to blocks; a block that was allocated and not written reads as zeros.
 */
#include "snapshot/bulk_writer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "engine/base/ring.h"

#define BULK_WRITES 8u
/* Chunks that may stay with us while the caller waits for the next one. */
#define HELD_CHUNKS 1u
/* What direct writes are made of: blocks of the usual file systems, pages of the usual machines. */
#define BLOCK_BYTES 4096u
#define DIRECT_BUFFERS 2u
#define DIRECT_BUFFER_BYTES ((size_t)512 << 10)
#define NO_SLOT BULK_WRITES

/* A place for a write under way, or for one that is being put together. */
struct slot {
	bool busy;
	struct chunk *chunk; /* NULL: the data is in the slot's buffer */
};

struct bulk_writer {
	struct log *log;
	bool preallocate;
	struct ring *ring; /* NULL: plain writes */
	uint8_t *buffers;  /* of direct writes, made for the first; one for each slot that these use */
	enum bulk_way way; /* the best that was taken so far */
	int failed;        /* errno of the first write through the ring that failed */

	/* the file at work */
	int fd; /* borrowed */
	uint64_t size;
	uint64_t reserved; /* room for so many bytes of it is there; `size` where the file system reserves none */
	bool direct;
	uint64_t next;    /* direct: where the data has to go on */
	unsigned filling; /* direct: the slot whose buffer is not full yet, or NO_SLOT */
	size_t filled;    /* bytes in there */

	struct slot slots[BULK_WRITES];
	unsigned busy; /* writes under way */
	unsigned held; /* chunks among them */
};

int bulk_writer_new(const struct bulk_writer_options *options, struct bulk_writer **out, struct cpull_error *err)
{
	struct bulk_writer *writer = calloc(1, sizeof(*writer));
	struct statfs fs;

	if (!writer)
		return error_nomem(err);
	writer->log = options->log;
	writer->filling = NO_SLOT;
	/* tmpfs clears preallocated pages before they are written over */
	writer->preallocate = fstatfs(options->dirfd, &fs) == 0 && fs.f_type != TMPFS_MAGIC;
	if (options->io == CPULL_IO_URING) {
		int rc = ring_new(options->io, BULK_WRITES, &writer->ring, err);

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
	/* waits until the kernel has let go of every chunk and buffer */
	ring_free(writer->ring);
	for (unsigned i = 0; i < BULK_WRITES; i++)
		chunk_put(writer->slots[i].chunk);
	free(writer->buffers);
	free(writer);
}

enum bulk_way bulk_writer_way(const struct bulk_writer *writer)
{
	return writer->way;
}

const char *bulk_way_text(enum bulk_way way)
{
	switch (way) {
	case BULK_URING:
		return "uring";
	case BULK_URING_DIRECT:
		return "uring+direct";
	default:
		return "sync";
	}
}

int bulk_write_plain(int fd, const void *data, size_t len, uint64_t offset, struct cpull_error *err)
{
	int rc = fs_write_all(fd, data, len, offset);

	return rc ? error_sys(err, CPULL_ERR_STORAGE, -rc, "writing its data") : 0;
}

/* ---- the ring ---- */

static void release_slot(struct bulk_writer *writer, unsigned i)
{
	struct slot *slot = &writer->slots[i];

	assert(i < BULK_WRITES && slot->busy);
	if (slot->chunk)
		writer->held--;
	chunk_put(slot->chunk);
	*slot = (struct slot){0};
}

/* Hands what is queued to the kernel and takes what is done; waits for something to be done, or not at all. */
static int reap(struct bulk_writer *writer, bool wait, struct cpull_error *err)
{
	struct ring_event events[BULK_WRITES];
	int n = ring_wait(writer->ring, wait ? -1 : 0, events, BULK_WRITES);

	if (n < 0)
		return error_set(err, n, "writing its data: io_uring failed");
	for (int i = 0; i < n; i++) {
		if (events[i].op != RING_WRITE)
			continue;
		if (events[i].result < 0 && !writer->failed)
			writer->failed = -events[i].result;
		release_slot(writer, (unsigned)events[i].token);
		writer->busy--;
	}
	return 0;
}

static int check_failed(const struct bulk_writer *writer, struct cpull_error *err)
{
	return writer->failed ? error_sys(err, CPULL_ERR_STORAGE, writer->failed, "writing its data") : 0;
}

static int wait_all(struct bulk_writer *writer, struct cpull_error *err)
{
	int rc = 0;

	while (!rc && writer->busy)
		rc = reap(writer, true, err);
	return rc ? rc : check_failed(writer, err);
}

/* One of the first `count` slots. */
static int take_slot(struct bulk_writer *writer, unsigned count, unsigned *out, struct cpull_error *err)
{
	unsigned i = 0;
	int rc = 0;

	while (!rc && writer->busy >= count)
		rc = reap(writer, true, err);
	if (!rc)
		rc = check_failed(writer, err);
	if (rc)
		return rc;
	while (writer->slots[i].busy)
		i++;
	assert(i < count);
	writer->slots[i].busy = true;
	*out = i;
	return 0;
}

static int submit(struct bulk_writer *writer, unsigned i, const void *data, size_t len, uint64_t offset,
		  struct cpull_error *err)
{
	int rc = ring_write(writer->ring, writer->fd, data, len, offset, i);

	if (rc)
		return error_set(err, rc, "writing its data: io_uring takes no more");
	writer->busy++;
	writer->way = MAX(writer->way, writer->direct ? BULK_URING_DIRECT : BULK_URING);
	return reap(writer, false, err);
}

static int write_ring(struct bulk_writer *writer, struct chunk *chunk, const struct tar_data *data,
		      struct cpull_error *err)
{
	unsigned i;
	int rc = take_slot(writer, BULK_WRITES, &i, err);

	if (rc)
		return rc;
	chunk_ref(chunk);
	writer->slots[i].chunk = chunk;
	writer->held++;
	return submit(writer, i, data->data, data->len, data->offset, err);
}

/* ---- O_DIRECT ---- */

bool bulk_takes_direct(int fd)
{
	struct statx st;

	/* since Linux 6.1; where it is not known, direct writes may be refused or be worse than none */
	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) || !(st.stx_mask & STATX_DIOALIGN))
		return false;
	return st.stx_dio_mem_align && st.stx_dio_offset_align && BLOCK_BYTES % st.stx_dio_mem_align == 0 &&
	       BLOCK_BYTES % st.stx_dio_offset_align == 0;
}

/* The kernel keeps hold of the buffers, or looks up their pages for every write. */
static bool make_buffers(struct bulk_writer *writer)
{
	struct iovec all = {.iov_len = DIRECT_BUFFERS * DIRECT_BUFFER_BYTES};

	if (writer->buffers)
		return true;
	writer->buffers = aligned_alloc(BLOCK_BYTES, all.iov_len);
	if (!writer->buffers)
		return false;
	all.iov_base = writer->buffers;

	int rc = ring_register(writer->ring, &all);

	if (rc)
		log_debug(writer->log, "direct writes without registered buffers: %s", strerrordesc_np(-rc));
	return true;
}

static uint8_t *buffer_at(const struct bulk_writer *writer, unsigned slot)
{
	return writer->buffers + slot * DIRECT_BUFFER_BYTES;
}

static int submit_full(struct bulk_writer *writer, struct cpull_error *err)
{
	unsigned i = writer->filling;

	writer->filling = NO_SLOT;
	writer->filled = 0;
	return submit(writer, i, buffer_at(writer, i), DIRECT_BUFFER_BYTES, writer->next - DIRECT_BUFFER_BYTES, err);
}

static int write_direct(struct bulk_writer *writer, const struct tar_data *data, struct cpull_error *err)
{
	size_t done = 0;
	int rc = 0;

	while (!rc && done < data->len) {
		if (writer->filling == NO_SLOT)
			rc = take_slot(writer, DIRECT_BUFFERS, &writer->filling, err);
		if (rc)
			return rc;

		size_t n = MIN(DIRECT_BUFFER_BYTES - writer->filled, data->len - done);

		memcpy(buffer_at(writer, writer->filling) + writer->filled, data->data + done, n);
		done += n;
		writer->filled += n;
		writer->next += n;
		if (writer->filled == DIRECT_BUFFER_BYTES)
			rc = submit_full(writer, err);
	}
	return rc;
}

/* Writes what is in the buffer that is not full, and waits for all that is under way. What comes after goes through the
 * page cache. */
static int leave_direct(struct bulk_writer *writer, struct cpull_error *err)
{
	unsigned i = writer->filling;
	size_t rest = writer->filled % BLOCK_BYTES, whole = writer->filled - rest;
	int rc = 0;

	if (whole)
		rc = submit(writer, i, buffer_at(writer, i), whole, writer->next - writer->filled, err);
	else if (i != NO_SLOT)
		release_slot(writer, i);
	writer->filling = NO_SLOT;
	writer->filled = 0;
	if (!rc)
		rc = wait_all(writer, err);
	writer->direct = false;
	if (rc)
		return rc;
	if (fcntl(writer->fd, F_SETFL, 0))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "taking O_DIRECT off its descriptor");
	/* it is still there: nobody has taken the buffer since */
	return rest ? bulk_write_plain(writer->fd, buffer_at(writer, i) + whole, rest, writer->next - rest, err) : 0;
}

/* ---- the interface ---- */

/* Has room for `end` bytes of the file and some more. 1: the file system reserves none. */
static int reserve(struct bulk_writer *writer, int mode, uint64_t end, struct cpull_error *err)
{
	uint64_t from = writer->reserved, bytes = MIN(MAX(end - from, (uint64_t)RESERVE_BYTES), writer->size - from);
	int rc;

	do
		rc = fallocate(writer->fd, mode, (off_t)from, (off_t)bytes);
	while (rc && errno == EINTR);
	/* only a lack of room matters; writing says what else is wrong */
	if (rc && (errno == ENOSPC || errno == EDQUOT))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "reserving %llu bytes for its data",
				 (unsigned long long)bytes);
	writer->reserved = rc ? writer->size : from + bytes;
	return rc ? 1 : 0;
}

int bulk_writer_begin(struct bulk_writer *writer, int fd, uint64_t size, struct cpull_error *err)
{
	bool direct = writer->ring && writer->preallocate && size >= DIRECT_BYTES && bulk_takes_direct(fd) &&
		      make_buffers(writer);

	assert(!writer->busy && writer->filling == NO_SLOT);
	writer->fd = fd;
	writer->size = size;
	writer->reserved = writer->preallocate ? 0 : size;
	writer->direct = false;
	writer->next = 0;
	if (!writer->preallocate)
		return 0;

	int rc = reserve(writer, direct ? 0 : FALLOC_FL_KEEP_SIZE, 0, err);

	writer->direct = rc == 0 && direct && fcntl(fd, F_SETFL, O_DIRECT) == 0;
	return MIN(rc, 0);
}

/* Before data up to `end` is taken. */
static int reserve_more(struct bulk_writer *writer, uint64_t end, struct cpull_error *err)
{
	if (end <= writer->reserved || writer->reserved == writer->size)
		return 0;

	int rc = reserve(writer, writer->direct ? 0 : FALLOC_FL_KEEP_SIZE, end, err);

	return rc > 0 && writer->direct ? leave_direct(writer, err) : MIN(rc, 0);
}

int bulk_writer_data(struct bulk_writer *writer, struct chunk *chunk, const struct tar_data *data,
		     struct cpull_error *err)
{
	int rc = reserve_more(writer, data->offset + data->len, err);

	if (rc)
		return rc;
	if (!writer->ring)
		return bulk_write_plain(writer->fd, data->data, data->len, data->offset, err);
	if (writer->direct && data->offset == writer->next)
		return write_direct(writer, data, err);
	if (writer->direct)
		rc = leave_direct(writer, err);

	return rc ? rc : write_ring(writer, chunk, data, err);
}

int bulk_writer_yield(struct bulk_writer *writer, struct cpull_error *err)
{
	int rc = 0;

	if (writer->held <= HELD_CHUNKS)
		return 0;
	while (!rc && writer->held > HELD_CHUNKS)
		rc = reap(writer, true, err);
	return rc ? rc : check_failed(writer, err);
}

int bulk_writer_end(struct bulk_writer *writer, struct cpull_error *err)
{
	if (!writer->ring)
		return 0;
	return writer->direct ? leave_direct(writer, err) : wait_all(writer, err);
}
