/* SPDX-License-Identifier: Apache-2.0
 *
 * The metadata spool of an EROFS image. Used by the image's builder on its thread; owns a window of memory over the
 * spool's end, and the unlinked file that has what is before the window.
 *
 * Files are written as their records are placed, so that the window moves on with them; only patches of older records
 * (link counts) and directories out of order go to the file one by one.
 */
#include "snapshot/erofs_spool.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "engine/base/limits.h"
#include "snapshot/erofs_format.h"

/* Places that were skipped because a tail would have been cut by the end of a block. Later records that fit go there. */
#define GAPS 16u
#define PIECE_BYTES ((size_t)256 << 10)

struct gap {
	uint64_t at;
	size_t len;
};

struct erofs_spool {
	int dirfd; /* borrowed */
	int fd;    /* of the file, or -1 */
	uint64_t end;   /* of all records */
	uint64_t start; /* the window's */
	uint8_t *window;
	struct gap gaps[GAPS];
};

int erofs_spool_new(int dirfd, struct erofs_spool **out, struct cpull_error *err)
{
	struct erofs_spool *spool = calloc(1, sizeof(*spool));

	if (!spool)
		return error_nomem(err);
	spool->dirfd = dirfd;
	spool->fd = -1;
	/* zeros, of which only what is used takes memory */
	spool->window = mmap(NULL, EROFS_SPOOL_MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0);
	if (spool->window == MAP_FAILED) {
		free(spool);
		return error_nomem(err);
	}
	*out = spool;
	return 0;
}

void erofs_spool_free(struct erofs_spool *spool)
{
	if (!spool)
		return;
	munmap(spool->window, EROFS_SPOOL_MEMORY_BYTES);
	if (spool->fd >= 0)
		close(spool->fd);
	free(spool);
}

uint64_t erofs_spool_bytes(const struct erofs_spool *spool)
{
	return spool->end;
}

/* ---- places ---- */

static uint64_t slot_up(uint64_t at)
{
	return (at + EROFS_SLOT_BYTES - 1) / EROFS_SLOT_BYTES * EROFS_SLOT_BYTES;
}

bool erofs_spool_inlines(uint64_t at, size_t fixed, size_t tail)
{
	return tail && (at + fixed) % EROFS_BLOCK_BYTES + tail <= EROFS_BLOCK_BYTES;
}

/* A gap lies within a block, so what fits in there is not cut. */
static bool take_gap(struct erofs_spool *spool, size_t len, uint64_t *at)
{
	for (unsigned i = 0; i < GAPS; i++) {
		struct gap *gap = &spool->gaps[i];

		if (gap->len < len || gap->at < spool->start)
			continue;
		*at = gap->at;
		gap->at = slot_up(gap->at + len);
		gap->len -= MIN(gap->len, (size_t)(gap->at - *at));
		return true;
	}
	return false;
}

/* In place of the smallest, or of one that the window has left behind. */
static void add_gap(struct erofs_spool *spool, uint64_t at, size_t len)
{
	struct gap *least = spool->gaps;

	/* only behind large attributes */
	if (at / EROFS_BLOCK_BYTES != (at + len - 1) / EROFS_BLOCK_BYTES)
		return;
	for (unsigned i = 0; i < GAPS; i++) {
		if (spool->gaps[i].at < spool->start)
			spool->gaps[i].len = 0;
		if (spool->gaps[i].len < least->len)
			least = &spool->gaps[i];
	}
	if (len > least->len)
		*least = (struct gap){.at = at, .len = len};
}

static int take_end(struct erofs_spool *spool, uint64_t at, size_t len, struct cpull_error *err)
{
	if (len > LIMIT_EROFS_SPOOL_BYTES || at > LIMIT_EROFS_SPOOL_BYTES - len)
		return error_set(err, CPULL_ERR_LIMIT, "the inodes of an EROFS image take more than %llu bytes; pull it "
				 "with --snapshot overlay", (unsigned long long)LIMIT_EROFS_SPOOL_BYTES);
	spool->end = slot_up(at + len);
	return 0;
}

/* So that what follows the record is the first in its block, or nearly. */
static uint64_t later_place(uint64_t end, size_t fixed)
{
	uint64_t cut = (end + fixed) / EROFS_BLOCK_BYTES * EROFS_BLOCK_BYTES + EROFS_BLOCK_BYTES;

	return slot_up(cut - fixed);
}

int erofs_spool_place(struct erofs_spool *spool, size_t fixed, size_t tail, uint64_t *at, bool *inlined,
		      struct cpull_error *err)
{
	uint64_t end = spool->end;

	assert(tail < EROFS_BLOCK_BYTES);
	if (take_gap(spool, fixed + tail, at)) {
		*inlined = tail > 0;
		return 0;
	}
	*at = end;
	*inlined = erofs_spool_inlines(end, fixed, tail);
	if (tail && !*inlined) {
		uint64_t later = later_place(end, fixed);

		/* what a block of its own would waste is the measure */
		if (later - end <= EROFS_BLOCK_BYTES - tail && erofs_spool_inlines(later, fixed, tail)) {
			add_gap(spool, end, (size_t)(later - end));
			*at = later;
			*inlined = true;
		}
	}
	return take_end(spool, *at, fixed + (*inlined ? tail : 0), err);
}

int erofs_spool_place_inlined(struct erofs_spool *spool, size_t fixed, size_t tail, uint64_t *at,
			      struct cpull_error *err)
{
	uint64_t end = spool->end;

	assert(tail && tail < EROFS_BLOCK_BYTES);
	if (take_gap(spool, fixed + tail, at))
		return 0;
	*at = erofs_spool_inlines(end, fixed, tail) ? end : later_place(end, fixed);
	if (!erofs_spool_inlines(*at, fixed, tail))
		return error_set(err, CPULL_ERR_UNSUPPORTED, "the last %zu bytes of a file have no room behind its "
				 "extended attributes; pull it with --snapshot overlay", tail);
	if (*at > end)
		add_gap(spool, end, (size_t)(*at - end));
	return take_end(spool, *at, fixed + tail, err);
}

/* ---- bytes ---- */

static int spool_error(int num, struct cpull_error *err)
{
	return error_sys(err, CPULL_ERR_STORAGE, num, "writing a temporary file for an EROFS image's inodes");
}

static int make_file(struct erofs_spool *spool, struct cpull_error *err)
{
	char name[64];

	spool->fd = openat(spool->dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (spool->fd >= 0)
		return 0;
	/* not every file system has nameless files */
	snprintf(name, sizeof(name), ".spool.%d.%llx", (int)getpid(), (unsigned long long)now_ns());
	spool->fd = openat(spool->dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (spool->fd < 0)
		return spool_error(errno, err);
	return unlinkat(spool->dirfd, name, 0) ? spool_error(errno, err) : 0;
}

static int write_file(struct erofs_spool *spool, uint64_t at, const void *data, size_t len, struct cpull_error *err)
{
	int rc = fs_write_all(spool->fd, data, len, at);

	return rc ? spool_error(-rc, err) : 0;
}

static int move_window(struct erofs_spool *spool, struct cpull_error *err)
{
	int rc = spool->fd < 0 ? make_file(spool, err) : 0;

	if (!rc)
		rc = write_file(spool, spool->start, spool->window, EROFS_SPOOL_MEMORY_BYTES, err);
	if (rc)
		return rc;
	memset(spool->window, 0, EROFS_SPOOL_MEMORY_BYTES);
	spool->start += EROFS_SPOOL_MEMORY_BYTES;
	return 0;
}

int erofs_spool_write(struct erofs_spool *spool, uint64_t at, const void *data, size_t len, struct cpull_error *err)
{
	const uint8_t *from = data;
	int rc = 0;

	assert(at + len <= spool->end);
	while (!rc && len) {
		size_t n = len;

		if (at < spool->start) {
			n = MIN(n, spool->start - at);
			rc = write_file(spool, at, from, n, err);
		} else if (at - spool->start >= EROFS_SPOOL_MEMORY_BYTES) {
			rc = move_window(spool, err);
			continue;
		} else {
			size_t offset = (size_t)(at - spool->start);

			n = MIN(n, EROFS_SPOOL_MEMORY_BYTES - offset);
			memcpy(spool->window + offset, from, n);
		}
		at += n;
		from += n;
		len -= n;
	}
	return rc;
}

int erofs_spool_rest(struct erofs_spool *spool, struct cpull_error *err)
{
	int rc = 0;

	/* places at the end that nothing was written to */
	while (!rc && spool->end > spool->start + EROFS_SPOOL_MEMORY_BYTES)
		rc = move_window(spool, err);
	if (!rc && spool->fd < 0)
		rc = make_file(spool, err);
	if (!rc)
		rc = write_file(spool, spool->start, spool->window, (size_t)(spool->end - spool->start), err);
	if (rc)
		return rc;
	/* zeros again */
	if (madvise(spool->window, EROFS_SPOOL_MEMORY_BYTES, MADV_DONTNEED))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "giving memory back");
	spool->start = spool->end;
	return 0;
}

static int read_file(struct erofs_spool *spool, uint64_t at, uint8_t *out, size_t len, struct cpull_error *err)
{
	while (len) {
		ssize_t got = pread(spool->fd, out, len, (off_t)at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return error_sys(err, CPULL_ERR_STORAGE, got ? errno : EIO,
					 "reading a temporary file with an EROFS image's inodes");
		out += got;
		at += (uint64_t)got;
		len -= (size_t)got;
	}
	return 0;
}

int erofs_spool_read(struct erofs_spool *spool, uint64_t at, void *out, size_t len, struct cpull_error *err)
{
	size_t before = at < spool->start ? (size_t)MIN(len, spool->start - at) : 0;
	uint64_t end = spool->start + EROFS_SPOOL_MEMORY_BYTES;
	int rc = before ? read_file(spool, at, out, before, err) : 0;
	uint8_t *to = (uint8_t *)out + before;

	assert(at + len <= spool->end);
	at += before;
	len -= before;

	size_t within = at < end ? (size_t)MIN(len, end - at) : 0;

	if (within)
		memcpy(to, spool->window + (at - spool->start), within);
	/* the window has not come so far */
	memset(to + within, 0, len - within);
	return rc;
}

static int drain_file(struct erofs_spool *spool, erofs_spool_fn take, void *payload, struct cpull_error *err)
{
	CLEANUP_FREE uint8_t *piece = malloc(PIECE_BYTES);
	int rc = 0;

	if (!piece)
		return error_nomem(err);
	for (uint64_t at = 0; !rc && at < spool->start;) {
		size_t n = MIN(PIECE_BYTES, spool->start - at);

		rc = read_file(spool, at, piece, n, err);
		if (!rc)
			rc = take(payload, piece, n, err);
		/* in a tmpfs it would be there twice; where holes cannot be made, it goes with the file */
		(void)!fallocate(spool->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)n);
		at += n;
	}
	return rc;
}

int erofs_spool_drain(struct erofs_spool *spool, erofs_spool_fn take, void *payload, struct cpull_error *err)
{
	int rc = 0;

	/* places at the end that nothing was written to */
	while (!rc && spool->end > spool->start + EROFS_SPOOL_MEMORY_BYTES)
		rc = move_window(spool, err);
	if (!rc && spool->start)
		rc = drain_file(spool, take, payload, err);
	return rc ? rc : take(payload, spool->window, (size_t)(spool->end - spool->start), err);
}
