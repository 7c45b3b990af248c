/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing the data of a large file that lies in memory in chunks: plain calls, io_uring through the page cache and past
 * it, a mapping; each also with the file preallocated; and the product's layer writer. A pass writes one file; removing
 * the one before is not timed. On the main thread; CPU of io_uring's workers counts.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/micro/layer_feed.h"
#include "bench/micro/stages.h"
#include "engine/base/error.h"
#include "engine/base/fs.h"

#define FILE_BYTES ((size_t)64 << 20)
#define CHUNK_BYTES ((size_t)256 << 10)
#define CUT_BYTES ((size_t)1024)
#define DIRECT_BYTES ((size_t)1 << 20)
#define RING_WRITES 8u
#define DIRECT_WRITES 4u
#define SOURCE_BYTES ((size_t)4 << 20) /* what the writes take turns in: DIRECT_WRITES of DIRECT_BYTES */
/* One of the layer writer's files: its chunks, all different, have to stay in cache as those of a pull do. */
#define LAYER_FILE_BYTES ((size_t)16 << 20)
#define NAME "write"

enum way { WAY_PWRITE, WAY_PWRITE_CUT, WAY_RING, WAY_DIRECT, WAY_MMAP, WAY_PRODUCT, WAY_IMAGE };

struct write_job {
	enum way way;
	bool preallocate;
	enum cpull_io io;
	int parent;
	uint8_t *source;
	struct layer_feed *feed;
};

/* A tar's header puts a file's data at any multiple of 512 bytes, so a chunk ends in the middle of one of its pages. */
static int write_plain(const struct write_job *job, int fd)
{
	size_t piece = job->way == WAY_PWRITE_CUT ? CHUNK_BYTES - CUT_BYTES : CHUNK_BYTES;
	int rc = 0;

	for (size_t at = 0; !rc && at < FILE_BYTES; at += piece, piece = MIN(CHUNK_BYTES, FILE_BYTES - at))
		rc = fs_write_all(fd, job->source + at % (SOURCE_BYTES / 2), piece, at);
	return rc;
}

static int write_mapping(const struct write_job *job, int fd)
{
	if (ftruncate(fd, (off_t)FILE_BYTES))
		return -errno;

	uint8_t *map = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return -errno;
	for (size_t at = 0; at < FILE_BYTES; at += CHUNK_BYTES)
		memcpy(map + at, job->source + at % SOURCE_BYTES, CHUNK_BYTES);
	munmap(map, FILE_BYTES);
	return 0;
}

/* Waits for one write; 0 or -errno. */
static int reap(struct io_uring *ring, size_t piece)
{
	struct io_uring_cqe *cqe;
	int rc;

	while ((rc = io_uring_wait_cqe(ring, &cqe)) == -EINTR)
		;
	if (rc)
		return rc;
	rc = cqe->res < 0 ? cqe->res : (size_t)cqe->res == piece ? 0 : -EIO;
	io_uring_cqe_seen(ring, cqe);
	return rc;
}

static int write_pieces(const struct write_job *job, struct io_uring *ring, int fd, bool fixed)
{
	size_t piece = fixed ? DIRECT_BYTES : CHUNK_BYTES;
	unsigned depth = fixed ? DIRECT_WRITES : RING_WRITES, flying = 0;
	int rc = 0;

	for (size_t at = 0; !rc && at < FILE_BYTES; at += piece) {
		const uint8_t *from = job->source + at % SOURCE_BYTES;
		struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

		if (fixed)
			io_uring_prep_write_fixed(sqe, fd, from, (unsigned)piece, at, 0);
		else
			io_uring_prep_write(sqe, fd, from, (unsigned)piece, at);
		rc = io_uring_submit(ring);
		rc = rc < 0 ? rc : 0;
		if (!rc && ++flying == depth) {
			rc = reap(ring, piece);
			flying--;
		}
	}
	while (flying--) {
		int late = reap(ring, piece);

		rc = rc ? rc : late;
	}
	return rc;
}

static int write_ring(const struct write_job *job, int fd, bool fixed)
{
	const struct iovec all = {.iov_base = job->source, .iov_len = SOURCE_BYTES};
	struct io_uring ring;
	int rc = io_uring_queue_init(RING_WRITES, &ring, 0);

	if (rc)
		return -EOPNOTSUPP;
	if (fixed && io_uring_register_buffers(&ring, &all, 1))
		rc = -EOPNOTSUPP;
	if (!rc)
		rc = write_pieces(job, &ring, fd, fixed);
	io_uring_queue_exit(&ring);
	return rc;
}

static int write_file(const struct write_job *job, int fd)
{
	if (job->preallocate && fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)FILE_BYTES))
		return -errno;
	switch (job->way) {
	case WAY_PWRITE:
	case WAY_PWRITE_CUT:
		return write_plain(job, fd);
	case WAY_MMAP:
		return write_mapping(job, fd);
	default:
		return write_ring(job, fd, job->way == WAY_DIRECT);
	}
}

static int pass_write(void *payload, struct cpull_error *err)
{
	const struct write_job *job = payload;
	int direct = job->way == WAY_DIRECT ? O_DIRECT : 0;
	CLEANUP_FD int fd = openat(job->parent, NAME, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | direct, 0644);
	int rc = fd < 0 ? -errno : write_file(job, fd);

	/* a file system that does not take O_DIRECT or fallocate, a kernel without io_uring */
	if (rc == -EOPNOTSUPP || rc == -EPERM || (direct && rc == -EINVAL))
		return error_set(err, CPULL_ERR_UNSUPPORTED, "the kernel or the file system refuses");
	return rc ? error_sys(err, CPULL_ERR_STORAGE, -rc, "writing a file") : 0;
}

static int remove_file(void *payload, struct cpull_error *err)
{
	const struct write_job *job = payload;

	return fs_remove_tree(job->parent, NAME, err);
}

static int pass_product(void *payload, struct cpull_error *err)
{
	const struct write_job *job = payload;
	CLEANUP_FD int dir = fs_open_dir(job->parent, NAME);

	return job->way == WAY_IMAGE ? layer_feed_image(job->feed, dir, job->io, err)
				     : layer_feed_run(job->feed, dir, job->io, err);
}

static int new_dir(void *payload, struct cpull_error *err)
{
	const struct write_job *job = payload;
	int rc = fs_remove_tree(job->parent, NAME, err);

	return rc ? rc : fs_make_dir(job->parent, NAME, 0755, err);
}

static int measure_ways(struct report *report, struct write_job base, struct cpull_error *err)
{
	static const struct {
		const char *name;
		bool chosen;
		enum way way;
		bool preallocate;
		enum cost cost;
		enum cpull_io io;
	} ways[] = {
		{"layer_writer, --io auto", true, WAY_PRODUCT, false, COST_NONE, CPULL_IO_AUTO},
		{"layer_writer, --io uring", false, WAY_PRODUCT, false, COST_NONE, CPULL_IO_URING},
		{"layer_writer, an EROFS image", true, WAY_IMAGE, false, COST_NONE, CPULL_IO_AUTO},
		{"layer_writer, an image, --io uring", false, WAY_IMAGE, false, COST_NONE, CPULL_IO_URING},
		{"pwrite 256 KiB", false, WAY_PWRITE, false, COST_WRITE, 0},
		{"pwrite 256 KiB, fallocate", false, WAY_PWRITE, true, COST_WRITE, 0},
		{"pwrite 256 KiB, cut within pages", false, WAY_PWRITE_CUT, false, COST_NONE, 0},
		{"pwrite 256 KiB, cut, fallocate", false, WAY_PWRITE_CUT, true, COST_NONE, 0},
		{"io_uring 256 KiB", false, WAY_RING, false, COST_WRITE, 0},
		{"io_uring 256 KiB, fallocate", false, WAY_RING, true, COST_WRITE, 0},
		{"io_uring O_DIRECT 1 MiB", false, WAY_DIRECT, false, COST_WRITE, 0},
		{"io_uring O_DIRECT 1 MiB, fallocate", false, WAY_DIRECT, true, COST_WRITE, 0},
		{"mmap", false, WAY_MMAP, false, COST_NONE, 0},
		{"mmap, fallocate", false, WAY_MMAP, true, COST_NONE, 0},
	};
	struct write_job jobs[ARRAY_LEN(ways)];
	struct bench_case cases[ARRAY_LEN(ways)];

	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		bool product = ways[i].way == WAY_PRODUCT || ways[i].way == WAY_IMAGE;

		jobs[i] = base;
		jobs[i].way = ways[i].way;
		jobs[i].preallocate = ways[i].preallocate;
		jobs[i].io = ways[i].io;
		cases[i] = (struct bench_case){.stage = "write", .name = ways[i].name, .chosen = ways[i].chosen,
					       .cost = ways[i].cost, .unit = S_PER_GIB,
					       .amount = (double)(product ? LAYER_FILE_BYTES : FILE_BYTES) / GIB,
					       .pass = product ? pass_product : pass_write,
					       .prepare = product ? new_dir : remove_file, .payload = &jobs[i]};
	}
	return measure(report, cases, ARRAY_LEN(cases), err);
}

int measure_write(struct report *report, const struct corpus *corpus, struct cpull_error *err)
{
	struct write_job base = {.parent = open(report->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
	int rc;

	(void)corpus;
	if (base.parent < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening %s", report->dir);
	base.source = aligned_alloc(DIRECT_BYTES, SOURCE_BYTES);
	if (base.source)
		memset(base.source, 0x5a, SOURCE_BYTES);
	rc = base.source ? layer_feed_new(1, 1, LAYER_FILE_BYTES, &base.feed, err) : error_nomem(err);
	if (!rc)
		rc = measure_ways(report, base, err);
	if (!rc)
		rc = fs_remove_tree(base.parent, NAME, err);
	layer_feed_free(base.feed);
	free(base.source);
	close(base.parent);
	return rc;
}
