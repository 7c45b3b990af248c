/* SPDX-License-Identifier: Apache-2.0
 *
 * The stream of an EROFS image's blocks. Used by the image's builder on its thread; owns the ring, if there is one, and
 * the buffers that every byte goes through: with a ring two, one being filled while the other is written, past the page
 * cache where the file system takes aligned direct writes.
 *
 * On a disk that takes them, direct writes cost half the CPU of plain ones, and leave nothing in the page cache, where a
 * direct mount would not look for data (docs/performance.md has the figures). What comes behind the data is metadata,
 * which is read through the page cache at the first look at the image: that is written plainly.
 *
 * Data of large files could be written from where it lies. Measured on tmpfs, that is 4 % less CPU while the data is
 * in the processor's cache, and 12 % more when it is not: the kernel copies what is aligned to pages faster.
 */
#include "snapshot/erofs_blocks.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "engine/base/limits.h"
#include "engine/base/ring.h"

#define BUFFER_BYTES EROFS_BLOCKS_MEMORY_BYTES
#define BUFFERS 2u

struct erofs_blocks {
	struct erofs_blocks_options options;
	struct ring *ring; /* NULL: plain writes */
	bool ring_later;   /* with the first buffer that is full: a small image does without */
	uint8_t *buffers;  /* BUFFERS with a ring, else one */
	bool preallocate;
	bool direct;
	enum bulk_way way;
	uint64_t reserved; /* the file has room for so many bytes; UINT64_MAX where it reserves none */
	uint64_t offset;   /* in the file, of the buffer's first byte */
	unsigned filling;  /* which buffer */
	size_t filled;
	bool busy[BUFFERS]; /* the kernel reads from it */
	int failed;         /* errno of the first write through the ring that failed */
};

static int set_up_ring(struct erofs_blocks *blocks, struct cpull_error *err)
{
	const struct iovec all = {.iov_base = blocks->buffers, .iov_len = BUFFERS * BUFFER_BYTES};
	int rc = ring_new(blocks->options.io, BUFFERS, &blocks->ring, err);

	if (rc)
		return rc;

	int refused = ring_register(blocks->ring, &all);

	if (refused)
		log_debug(blocks->options.log, "image writes without registered buffers: %s",
			  strerrordesc_np(-refused));
	blocks->direct = blocks->preallocate && bulk_takes_direct(blocks->options.fd);
	return 0;
}

/* Where the kernel has no io_uring for us, writes stay plain. */
static int set_up_ring_later(struct erofs_blocks *blocks, struct cpull_error *err)
{
	int rc = set_up_ring(blocks, err);

	blocks->ring_later = false;
	if (rc || ring_is_uring(blocks->ring))
		return rc;
	ring_free(STEAL(blocks->ring));
	blocks->direct = false;
	return 0;
}

int erofs_blocks_new(const struct erofs_blocks_options *options, struct erofs_blocks **out, struct cpull_error *err)
{
	bool ring = options->io == CPULL_IO_URING;
	struct erofs_blocks *blocks = calloc(1, sizeof(*blocks));
	struct statfs fs;

	if (!blocks)
		return error_nomem(err);
	blocks->options = *options;
	blocks->offset = EROFS_BLOCK_BYTES;
	/* tmpfs clears preallocated pages before they are written over */
	blocks->preallocate = fstatfs(options->fd, &fs) == 0 && fs.f_type != TMPFS_MAGIC;
	blocks->reserved = blocks->preallocate ? 0 : UINT64_MAX;
	blocks->ring_later = options->io == CPULL_IO_AUTO && blocks->preallocate && bulk_takes_direct(options->fd);
	blocks->buffers = aligned_alloc(EROFS_BLOCK_BYTES,
					ring || blocks->ring_later ? BUFFERS * BUFFER_BYTES : BUFFER_BYTES);

	int rc = !blocks->buffers ? error_nomem(err) : ring ? set_up_ring(blocks, err) : 0;

	if (rc) {
		erofs_blocks_free(blocks);
		return rc;
	}
	*out = blocks;
	return 0;
}

void erofs_blocks_free(struct erofs_blocks *blocks)
{
	if (!blocks)
		return;
	/* waits until the kernel has let go of the buffers */
	ring_free(blocks->ring);
	free(blocks->buffers);
	free(blocks);
}

enum bulk_way erofs_blocks_way(const struct erofs_blocks *blocks)
{
	return blocks->way;
}

uint64_t erofs_blocks_next(const struct erofs_blocks *blocks)
{
	assert(blocks->filled % EROFS_BLOCK_BYTES == 0);
	return (blocks->offset + blocks->filled) / EROFS_BLOCK_BYTES;
}

int erofs_blocks_check(const struct erofs_blocks *blocks, uint64_t bytes, struct cpull_error *err)
{
	uint64_t end = blocks->offset + blocks->filled;

	if (bytes <= LIMIT_EROFS_BYTES && end + bytes <= LIMIT_EROFS_BYTES)
		return 0;
	return error_set(err, CPULL_ERR_LIMIT, "%llu bytes more than the %llu that are there, and an EROFS image has "
			 "at most %llu; pull it with --snapshot overlay", (unsigned long long)bytes,
			 (unsigned long long)end, (unsigned long long)LIMIT_EROFS_BYTES);
}

static uint8_t *buffer_at(const struct erofs_blocks *blocks, unsigned i)
{
	return blocks->buffers + i * BUFFER_BYTES;
}

static int write_error(int num, struct cpull_error *err)
{
	return error_sys(err, CPULL_ERR_STORAGE, num, "writing an EROFS image");
}

/* Has room for `end` bytes of the file and some more, though never for twice of what is there: many images may be under
 * way. Where there is not so much, it may still be enough: writing says when it is not. */
static void reserve(struct erofs_blocks *blocks, uint64_t end)
{
	if (end <= blocks->reserved)
		return;

	uint64_t from = blocks->reserved, bytes = MAX(end - from, MIN(end, (uint64_t)RESERVE_BYTES));
	int mode = blocks->direct ? 0 : FALLOC_FL_KEEP_SIZE, rc;

	do
		rc = fallocate(blocks->options.fd, mode, (off_t)from, (off_t)bytes);
	while (rc && errno == EINTR);
	blocks->reserved = rc ? UINT64_MAX : from + bytes;
}

static int tell(struct erofs_blocks *blocks, uint64_t offset, const void *data, size_t len, struct cpull_error *err)
{
	if (!blocks->options.written || !len)
		return 0;
	return blocks->options.written(blocks->options.payload, offset / EROFS_BLOCK_BYTES, data,
				       len / EROFS_BLOCK_BYTES, err);
}

/* ---- the ring ---- */

/* Hands what is queued to the kernel and takes what is done; waits for something to be done, or not at all. */
static int reap(struct erofs_blocks *blocks, bool wait, struct cpull_error *err)
{
	struct ring_event events[BUFFERS];
	int n = ring_wait(blocks->ring, wait ? -1 : 0, events, BUFFERS);

	if (n < 0)
		return error_set(err, n, "writing an EROFS image: io_uring failed");
	for (int i = 0; i < n; i++) {
		if (events[i].op != RING_WRITE)
			continue;
		if (events[i].result < 0 && !blocks->failed)
			blocks->failed = -events[i].result;
		blocks->busy[events[i].token] = false;
	}
	return blocks->failed ? write_error(blocks->failed, err) : 0;
}

static int wait_for(struct erofs_blocks *blocks, unsigned buffer, struct cpull_error *err)
{
	int rc = blocks->failed ? write_error(blocks->failed, err) : 0;

	while (!rc && blocks->busy[buffer])
		rc = reap(blocks, true, err);
	return rc;
}

/* The flag stays until the end of the image: all that comes is whole blocks of aligned memory. */
static void go_direct(struct erofs_blocks *blocks)
{
	int flags = fcntl(blocks->options.fd, F_GETFL);

	blocks->direct = flags >= 0 && fcntl(blocks->options.fd, F_SETFL, flags | O_DIRECT) == 0;
}

static int submit(struct erofs_blocks *blocks, size_t len, struct cpull_error *err)
{
	unsigned i = blocks->filling;
	int rc;

	if (blocks->direct && blocks->way != BULK_URING_DIRECT)
		go_direct(blocks);
	rc = ring_write(blocks->ring, blocks->options.fd, buffer_at(blocks, i), len, blocks->offset, i);
	if (rc)
		return error_set(err, rc, "writing an EROFS image: io_uring takes no more");
	blocks->busy[i] = true;
	blocks->way = blocks->direct ? BULK_URING_DIRECT : BULK_URING;
	blocks->filling = (i + 1) % BUFFERS;
	rc = reap(blocks, false, err);
	return rc ? rc : wait_for(blocks, blocks->filling, err);
}

/* ---- the buffer ---- */

/* The buffer, of whole blocks. */
static int write_out(struct erofs_blocks *blocks, struct cpull_error *err)
{
	const uint8_t *data = buffer_at(blocks, blocks->filling);
	size_t len = blocks->filled;
	uint64_t end = blocks->offset + len;
	int rc = end <= LIMIT_EROFS_BYTES ? 0 : erofs_blocks_check(blocks, 0, err);

	assert(len % EROFS_BLOCK_BYTES == 0);
	if (!rc)
		rc = tell(blocks, blocks->offset, data, len, err);
	if (!rc && blocks->ring_later && len == BUFFER_BYTES)
		rc = set_up_ring_later(blocks, err);
	if (rc)
		return rc;
	reserve(blocks, end);
	if (blocks->ring) {
		rc = submit(blocks, len, err);
	} else {
		rc = fs_write_all(blocks->options.fd, data, len, blocks->offset);
		if (rc)
			rc = write_error(-rc, err);
	}
	blocks->offset = end;
	blocks->filled = 0;
	return rc;
}

/* ---- the interface ---- */

/* The next `len` bytes of room in the buffer, at least one; they count as filled. */
static uint8_t *take_room(struct erofs_blocks *blocks, size_t *len)
{
	uint8_t *at = buffer_at(blocks, blocks->filling) + blocks->filled;

	*len = MIN(BUFFER_BYTES - blocks->filled, *len);
	blocks->filled += *len;
	return at;
}

int erofs_blocks_add(struct erofs_blocks *blocks, const void *data, size_t len, struct cpull_error *err)
{
	const uint8_t *from = data;
	int rc = 0;

	while (!rc && len) {
		size_t n = len;
		uint8_t *to = take_room(blocks, &n);

		memcpy(to, from, n);
		from += n;
		len -= n;
		if (blocks->filled == BUFFER_BYTES)
			rc = write_out(blocks, err);
	}
	return rc;
}

int erofs_blocks_add_zeros(struct erofs_blocks *blocks, uint64_t len, struct cpull_error *err)
{
	int rc = 0;

	while (!rc && len) {
		size_t n = (size_t)MIN(len, BUFFER_BYTES);
		uint8_t *to = take_room(blocks, &n);

		memset(to, 0, n);
		len -= n;
		if (blocks->filled == BUFFER_BYTES)
			rc = write_out(blocks, err);
	}
	return rc;
}

int erofs_blocks_align(struct erofs_blocks *blocks, struct cpull_error *err)
{
	return erofs_blocks_add_zeros(blocks, -blocks->filled % EROFS_BLOCK_BYTES, err);
}

static int leave_direct(struct erofs_blocks *blocks, struct cpull_error *err)
{
	int flags = fcntl(blocks->options.fd, F_GETFL);

	if (flags < 0 || fcntl(blocks->options.fd, F_SETFL, flags & ~O_DIRECT))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "taking O_DIRECT off an EROFS image");
	blocks->direct = false;
	return 0;
}

/* Writes what is held, waits, and cuts the file to what is in it: what was reserved beyond goes back. */
static int settle(struct erofs_blocks *blocks, struct cpull_error *err)
{
	int rc = blocks->filled ? write_out(blocks, err) : 0;

	for (unsigned i = 0; !rc && i < BUFFERS; i++)
		rc = wait_for(blocks, i, err);
	if (!rc && blocks->direct && blocks->way == BULK_URING_DIRECT)
		rc = leave_direct(blocks, err);
	if (!rc && ftruncate(blocks->options.fd, (off_t)blocks->offset))
		rc = write_error(errno, err);
	if (blocks->reserved != UINT64_MAX)
		blocks->reserved = blocks->offset;
	return rc;
}

int erofs_blocks_rest(struct erofs_blocks *blocks, struct cpull_error *err)
{
	size_t bytes = blocks->ring || blocks->ring_later ? BUFFERS * BUFFER_BYTES : BUFFER_BYTES;
	int rc = settle(blocks, err);

	if (rc)
		return rc;
	ring_free(STEAL(blocks->ring));
	blocks->ring_later = blocks->direct = false;
	blocks->filling = 0;
	madvise(blocks->buffers, bytes, MADV_DONTNEED);
	return 0;
}

int erofs_blocks_flush(struct erofs_blocks *blocks, struct cpull_error *err)
{
	/* an image that fits the buffer needs no room ahead */
	if (blocks->offset == EROFS_BLOCK_BYTES) {
		blocks->reserved = UINT64_MAX;
		blocks->direct = false;
	}
	return settle(blocks, err);
}

int erofs_blocks_first(struct erofs_blocks *blocks, const void *first, struct cpull_error *err)
{
	int rc = tell(blocks, 0, first, EROFS_BLOCK_BYTES, err);

	if (rc)
		return rc;
	rc = fs_write_all(blocks->options.fd, first, EROFS_BLOCK_BYTES, 0);
	return rc ? write_error(-rc, err) : 0;
}
