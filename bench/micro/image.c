/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing a layer's EROFS image: one stream of blocks, put together in buffers out of the chunks that it comes in. By
 * plain calls and by io_uring from registered buffers, through the page cache and past it, with more and fewer writes
 * in flight, preallocated as it goes or not; and the product's erofs_blocks. A pass writes one file of 64 MiB; removing
 * the one before is not timed. What is written back after a pass is nobody's bill: the rows that sync say what the disk
 * takes. On the main thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <string.h>

#include "bench/micro/stages.h"
#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "snapshot/erofs_blocks.h"
#include "snapshot/verity.h"

#define IMAGE_BYTES ((size_t)64 << 20)
#define SOURCE_BYTES ((size_t)4 << 20) /* as much as stays in the cache of a pull's chunks */
#define PIECE_BYTES ((size_t)64 << 10) /* what the tar reader gives at a time, at most */
#define AHEAD_BYTES ((size_t)16 << 20) /* preallocated at a time */
#define DEPTH_MOST 8u
#define BUFFERS_BYTES ((size_t)8 << 20)
#define NAME "image"

enum way { WAY_PLAIN, WAY_PLAIN_DIRECT, WAY_RING, WAY_RING_DIRECT, WAY_BLOCKS, WAY_BLOCKS_VERITY };

struct image_way {
	const char *name;
	bool chosen;
	enum way way;
	size_t buffer_bytes;
	unsigned depth;
	bool preallocate, sync;
	enum cpull_io io; /* of the product */
};

struct image_job {
	struct image_way how;
	int parent;
	const uint8_t *source;
	uint8_t *buffers;
	struct log *log;
};

/* A file at work. */
struct stream {
	const struct image_job *job;
	int fd;
	struct io_uring ring;
	bool busy[DEPTH_MOST];
	unsigned filling;
	size_t filled;
	uint64_t offset, reserved;
};

static bool is_direct(enum way way)
{
	return way == WAY_PLAIN_DIRECT || way == WAY_RING_DIRECT;
}

static bool by_ring(enum way way)
{
	return way == WAY_RING || way == WAY_RING_DIRECT;
}

static int take_one(struct stream *s)
{
	struct io_uring_cqe *cqe;
	int rc;

	while ((rc = io_uring_wait_cqe(&s->ring, &cqe)) == -EINTR)
		;
	if (rc)
		return rc;
	rc = cqe->res < 0 ? cqe->res : (size_t)cqe->res == s->job->how.buffer_bytes ? 0 : -EIO;
	s->busy[io_uring_cqe_get_data64(cqe)] = false;
	io_uring_cqe_seen(&s->ring, cqe);
	return rc;
}

static int wait_for(struct stream *s, unsigned buffer)
{
	int rc = 0;

	while (!rc && s->busy[buffer])
		rc = take_one(s);
	return rc;
}

static int submit(struct stream *s, const uint8_t *data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&s->ring);

	io_uring_prep_write_fixed(sqe, s->fd, data, (unsigned)s->job->how.buffer_bytes, s->offset, 0);
	io_uring_sqe_set_data64(sqe, s->filling);
	s->busy[s->filling] = true;

	int rc = io_uring_submit(&s->ring);

	s->filling = (s->filling + 1) % s->job->how.depth;
	return rc < 0 ? rc : wait_for(s, s->filling);
}

/* Direct writes that make a file longer keep out all others, so its size is set ahead as well. */
static int reserve(struct stream *s)
{
	uint64_t end = s->offset + s->job->how.buffer_bytes;

	if (!s->job->how.preallocate || end <= s->reserved)
		return 0;
	if (fallocate(s->fd, is_direct(s->job->how.way) ? 0 : FALLOC_FL_KEEP_SIZE, (off_t)s->reserved, AHEAD_BYTES))
		return -errno;
	s->reserved += AHEAD_BYTES;
	return 0;
}

static int write_buffer(struct stream *s)
{
	const uint8_t *data = s->job->buffers + s->filling * s->job->how.buffer_bytes;
	int rc = reserve(s);

	if (!rc)
		rc = by_ring(s->job->how.way) ? submit(s, data)
					      : fs_write_all(s->fd, data, s->job->how.buffer_bytes, s->offset);
	s->offset += s->job->how.buffer_bytes;
	s->filled = 0;
	return rc;
}

static int write_stream(struct stream *s)
{
	int rc = 0;

	for (size_t at = 0; !rc && at < IMAGE_BYTES; at += PIECE_BYTES) {
		memcpy(s->job->buffers + s->filling * s->job->how.buffer_bytes + s->filled,
		       s->job->source + at % SOURCE_BYTES, PIECE_BYTES);
		s->filled += PIECE_BYTES;
		if (s->filled == s->job->how.buffer_bytes)
			rc = write_buffer(s);
	}
	for (unsigned i = 0; i < s->job->how.depth; i++) {
		int late = wait_for(s, i);

		rc = rc ? rc : late;
	}
	return rc;
}

static int write_own(const struct image_job *job, int fd)
{
	const struct iovec all = {.iov_base = job->buffers, .iov_len = job->how.depth * job->how.buffer_bytes};
	struct stream s = {.job = job, .fd = fd};

	if (!by_ring(job->how.way))
		return write_stream(&s);
	if (io_uring_queue_init(DEPTH_MOST, &s.ring, 0))
		return -EOPNOTSUPP;

	int rc = io_uring_register_buffers(&s.ring, &all, 1) ? -EOPNOTSUPP : write_stream(&s);

	io_uring_queue_exit(&s.ring);
	return rc;
}

/* ---- the product ---- */

static int hash_blocks(void *payload, uint64_t block, const void *data, size_t blocks, struct cpull_error *err)
{
	return verity_add(payload, block, data, blocks, err);
}

static int feed_blocks(struct erofs_blocks *blocks, const struct image_job *job, struct cpull_error *err)
{
	int rc = 0;

	for (size_t at = 0; !rc && at < IMAGE_BYTES - EROFS_BLOCK_BYTES;) {
		size_t len = MIN(PIECE_BYTES, IMAGE_BYTES - EROFS_BLOCK_BYTES - at);

		rc = erofs_blocks_add(blocks, job->source + at % SOURCE_BYTES, len, err);
		at += len;
	}
	if (!rc)
		rc = erofs_blocks_flush(blocks, err);
	return rc ? rc : erofs_blocks_first(blocks, job->source, err);
}

static int write_blocks(const struct image_job *job, int fd, struct verity *verity, struct cpull_error *err)
{
	struct erofs_blocks_options options = {.fd = fd, .io = job->how.io, .log = job->log,
					       .written = verity ? hash_blocks : NULL, .payload = verity};
	struct erofs_blocks *blocks = NULL;
	int rc = erofs_blocks_new(&options, &blocks, err);

	if (!rc)
		rc = feed_blocks(blocks, job, err);
	erofs_blocks_free(blocks);
	return rc;
}

static int write_verity(const struct image_job *job, int fd, struct cpull_error *err)
{
	struct verity_options options = {.spool_dirfd = job->parent};
	struct verity_result result;
	struct verity *verity = NULL;
	int rc = verity_new(&options, &verity, err);

	if (!rc)
		rc = write_blocks(job, fd, verity, err);
	if (!rc)
		rc = verity_finish(verity, fd, IMAGE_BYTES / EROFS_BLOCK_BYTES, &result, err);
	verity_free(verity);
	return rc;
}

/* ---- the rows ---- */

static int pass_image(void *payload, struct cpull_error *err)
{
	const struct image_job *job = payload;
	int direct = is_direct(job->how.way) ? O_DIRECT : 0;
	CLEANUP_FD int fd = openat(job->parent, NAME, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | direct, 0644);

	if (fd >= 0 && job->how.way == WAY_BLOCKS_VERITY)
		return write_verity(job, fd, err);
	if (fd >= 0 && job->how.way == WAY_BLOCKS)
		return write_blocks(job, fd, NULL, err);

	int rc = fd < 0 ? -errno : write_own(job, fd);

	if (!rc && job->how.sync && fdatasync(fd))
		rc = -errno;
	/* a file system that does not take O_DIRECT or fallocate, a kernel without io_uring */
	if (rc == -EOPNOTSUPP || rc == -EPERM || (direct && rc == -EINVAL))
		return error_set(err, CPULL_ERR_UNSUPPORTED, "the kernel or the file system refuses");
	return rc ? error_sys(err, CPULL_ERR_STORAGE, -rc, "writing an image") : 0;
}

/* The blocks of a file that is removed are free once the file system has committed that: without it a small one runs
 * full, and looking for room is what is measured. */
static int remove_image(void *payload, struct cpull_error *err)
{
	const struct image_job *job = payload;
	int rc = fs_remove_tree(job->parent, NAME, err);

	if (!rc && syncfs(job->parent))
		rc = error_sys(err, CPULL_ERR_STORAGE, errno, "syncing a file system");
	return rc;
}

#define KIB ((size_t)1 << 10)

static const struct image_way ways[] = {
	{"erofs_blocks, --io auto", true, WAY_BLOCKS, 0, 0, false, false, CPULL_IO_AUTO},
	{"erofs_blocks, --io sync", false, WAY_BLOCKS, 0, 0, false, false, CPULL_IO_SYNC},
	{"erofs_blocks, --io uring", false, WAY_BLOCKS, 0, 0, false, false, CPULL_IO_URING},
	{"erofs_blocks, --io auto, dm-verity", false, WAY_BLOCKS_VERITY, 0, 0, false, false, CPULL_IO_AUTO},
	{"pwrite 512 KiB", false, WAY_PLAIN, 512 * KIB, 1, false, false, 0},
	{"pwrite 512 KiB, fallocate", false, WAY_PLAIN, 512 * KIB, 1, true, false, 0},
	{"pwrite 512 KiB, fallocate, sync", false, WAY_PLAIN, 512 * KIB, 1, true, true, 0},
	{"pwrite 512 KiB, O_DIRECT, fallocate", false, WAY_PLAIN_DIRECT, 512 * KIB, 1, true, false, 0},
	{"io_uring 2 x 512 KiB", false, WAY_RING, 512 * KIB, 2, false, false, 0},
	{"io_uring 2 x 512 KiB, fallocate", false, WAY_RING, 512 * KIB, 2, true, false, 0},
	{"O_DIRECT 2 x 512 KiB", false, WAY_RING_DIRECT, 512 * KIB, 2, false, false, 0},
	{"O_DIRECT 2 x 512 KiB, fallocate", false, WAY_RING_DIRECT, 512 * KIB, 2, true, false, 0},
	{"O_DIRECT 2 x 512 KiB, fallocate, sync", false, WAY_RING_DIRECT, 512 * KIB, 2, true, true, 0},
	{"O_DIRECT 4 x 512 KiB, fallocate", false, WAY_RING_DIRECT, 512 * KIB, 4, true, false, 0},
	{"O_DIRECT 8 x 256 KiB, fallocate", false, WAY_RING_DIRECT, 256 * KIB, 8, true, false, 0},
	{"O_DIRECT 4 x 1 MiB, fallocate", false, WAY_RING_DIRECT, 1024 * KIB, 4, true, false, 0},
};

static int measure_ways(struct report *report, struct image_job base, struct cpull_error *err)
{
	struct image_job jobs[ARRAY_LEN(ways)];
	struct bench_case cases[ARRAY_LEN(ways)];

	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		jobs[i] = base;
		jobs[i].how = ways[i];
		cases[i] = (struct bench_case){.stage = "image", .name = ways[i].name, .chosen = ways[i].chosen,
					       .unit = S_PER_GIB, .amount = (double)IMAGE_BYTES / GIB,
					       .pass = pass_image, .prepare = remove_image, .payload = &jobs[i]};
	}
	return measure(report, cases, ARRAY_LEN(cases), err);
}

int measure_image(struct report *report, const struct corpus *corpus, struct cpull_error *err)
{
	CLEANUP_FREE uint8_t *memory = aligned_alloc(EROFS_BLOCK_BYTES, SOURCE_BYTES + BUFFERS_BYTES);
	struct log log;

	(void)corpus;
	if (!memory)
		return error_nomem(err);
	memset(memory, 0x5a, SOURCE_BYTES + BUFFERS_BYTES);
	log_init(&log, NULL, NULL, CPULL_LOG_ERROR);

	struct image_job base = {.parent = open(report->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), .source = memory,
				 .buffers = memory + SOURCE_BYTES, .log = &log};
	int rc = base.parent < 0 ? error_sys(err, CPULL_ERR_STORAGE, errno, "opening %s", report->dir)
				 : measure_ways(report, base, err);

	if (!rc)
		rc = fs_remove_tree(base.parent, NAME, err);
	if (base.parent >= 0)
		close(base.parent);
	log_destroy(&log);
	return rc;
}
