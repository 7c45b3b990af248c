/* SPDX-License-Identifier: Apache-2.0
 *
 * Creating small files, as a layer of many is written: plain calls with more and fewer of them a file, io_uring chains,
 * two threads, the product's layer writer, and the same files in one EROFS image. Each pass fills a new tree; making its
 * directories and removing the tree before is not timed. On the main thread, and for one row on a second one.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/micro/image_feed.h"
#include "bench/micro/layer_feed.h"
#include "bench/micro/stages.h"
#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "engine/base/thread.h"

#define DIRS 128u
#define FILES 32u /* a directory; node_modules has fewer, /usr/share more */
#define TREE "create"
#define CHAINS 64u /* in flight; each has a descriptor slot of its own */
#define CHAIN_STEPS 3u

enum attributes { ATTRIBUTES_NONE, ATTRIBUTES_TIMES, ATTRIBUTES_ALL };

struct create {
	int parent, tree;
	int dirs[DIRS];
	char names[FILES][16];
	uint8_t data[CREATE_FILE_BYTES];
	struct layer_feed *feed;
	struct image_feed *image;
	struct io_uring ring;
	bool ring_ready;
};

static void close_tree(struct create *c)
{
	for (unsigned d = 0; d < DIRS; d++)
		if (c->dirs[d] >= 0)
			close(steal_fd(&c->dirs[d]));
	if (c->tree >= 0)
		close(steal_fd(&c->tree));
}

static int new_tree(void *payload, struct cpull_error *err)
{
	struct create *c = payload;

	close_tree(c);

	int rc = fs_remove_tree(c->parent, TREE, err);

	if (!rc)
		rc = fs_make_dir(c->parent, TREE, 0755, err);
	if (rc)
		return rc;
	c->tree = fs_open_dir(c->parent, TREE);
	return c->tree >= 0 ? 0 : error_sys(err, CPULL_ERR_STORAGE, errno, "opening a directory");
}

static int new_dirs(void *payload, struct cpull_error *err)
{
	struct create *c = payload;
	char name[16];
	int rc = new_tree(c, err);

	for (unsigned d = 0; !rc && d < DIRS; d++) {
		snprintf(name, sizeof(name), "d%05u", d);
		rc = fs_make_dir(c->tree, name, 0755, err);
		c->dirs[d] = fs_open_dir(c->tree, name);
	}
	return rc;
}

/* ---- plain calls ---- */

static int create_file(const struct create *c, int dir, const char *name, enum attributes attributes)
{
	static const struct timespec times[2] = {{.tv_sec = 1700000000}, {.tv_sec = 1700000000}};
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);

	if (fd < 0)
		return -1;

	bool ok = pwrite(fd, c->data, sizeof(c->data), 0) == (ssize_t)sizeof(c->data);

	if (ok && attributes == ATTRIBUTES_ALL)
		ok = !fchown(fd, geteuid(), getegid()) && !fchmod(fd, 0644);
	if (ok && attributes != ATTRIBUTES_NONE)
		ok = !futimens(fd, times);
	return close(fd) || !ok ? -1 : 0;
}

static int create_files(const struct create *c, unsigned from, unsigned to, enum attributes attributes)
{
	for (unsigned d = from; d < to; d++)
		for (unsigned f = 0; f < FILES; f++)
			if (create_file(c, c->dirs[d], c->names[f], attributes))
				return -errno;
	return 0;
}

static int pass_plain(struct create *c, enum attributes attributes, struct cpull_error *err)
{
	int rc = create_files(c, 0, DIRS, attributes);

	return rc ? error_sys(err, CPULL_ERR_STORAGE, -rc, "creating a file") : 0;
}

static int pass_none(void *payload, struct cpull_error *err)
{
	return pass_plain(payload, ATTRIBUTES_NONE, err);
}

static int pass_times(void *payload, struct cpull_error *err)
{
	return pass_plain(payload, ATTRIBUTES_TIMES, err);
}

static int pass_all(void *payload, struct cpull_error *err)
{
	return pass_plain(payload, ATTRIBUTES_ALL, err);
}

static void *create_half(void *payload)
{
	return create_files(payload, 0, DIRS / 2, ATTRIBUTES_TIMES) ? payload : NULL;
}

static int pass_two(void *payload, struct cpull_error *err)
{
	struct create *c = payload;
	pthread_t thread;
	void *failed = NULL;
	int rc = thread_start(&thread, "bench-create", create_half, c, err);

	if (rc)
		return rc;
	rc = create_files(c, DIRS / 2, DIRS, ATTRIBUTES_TIMES);
	pthread_join(thread, &failed);
	return rc || failed ? error_set(err, CPULL_ERR_STORAGE, "creating a file") : 0;
}

/* ---- io_uring ---- */

static int ring_open(struct create *c, struct cpull_error *err)
{
	if (c->ring_ready)
		return 0;

	int rc = io_uring_queue_init(CHAINS * CHAIN_STEPS, &c->ring, 0);

	if (rc)
		return error_set(err, CPULL_ERR_UNSUPPORTED, "no io_uring: %s", strerror(-rc));
	rc = io_uring_register_files_sparse(&c->ring, CHAINS);
	if (rc) {
		io_uring_queue_exit(&c->ring);
		return error_set(err, CPULL_ERR_UNSUPPORTED, "no descriptor slots: %s", strerror(-rc));
	}
	c->ring_ready = true;
	return 0;
}

/* openat, write, close, each when the one before is done; there is no operation that sets times. */
static void queue_chain(struct create *c, int dir, const char *name, unsigned slot)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&c->ring);

	io_uring_prep_openat_direct(sqe, dir, name, O_WRONLY | O_CREAT | O_EXCL, 0644, slot);
	sqe->flags |= IOSQE_IO_LINK;
	sqe = io_uring_get_sqe(&c->ring);
	io_uring_prep_write(sqe, (int)slot, c->data, sizeof(c->data), 0);
	sqe->flags |= IOSQE_IO_LINK | IOSQE_FIXED_FILE;
	sqe = io_uring_get_sqe(&c->ring);
	io_uring_prep_close_direct(sqe, slot);
}

static int finish_chains(struct create *c, unsigned chains, struct cpull_error *err)
{
	unsigned left = chains * CHAIN_STEPS;
	int failed = 0;

	io_uring_submit_and_wait(&c->ring, left);
	while (left) {
		struct io_uring_cqe *cqe;
		int rc = io_uring_wait_cqe(&c->ring, &cqe);

		if (rc == -EINTR)
			continue;
		if (rc)
			return error_sys(err, CPULL_ERR_INTERNAL, -rc, "waiting for io_uring");
		if (cqe->res < 0)
			failed = cqe->res;
		io_uring_cqe_seen(&c->ring, cqe);
		left--;
	}
	if (failed == -EINVAL)
		return error_set(err, CPULL_ERR_UNSUPPORTED, "this kernel does not open into slots");
	return failed ? error_sys(err, CPULL_ERR_STORAGE, -failed, "creating a file") : 0;
}

static int pass_uring(void *payload, struct cpull_error *err)
{
	struct create *c = payload;
	unsigned chains = 0;
	int rc = ring_open(c, err);

	for (unsigned i = 0; !rc && i < DIRS * FILES; i++) {
		queue_chain(c, c->dirs[i / FILES], c->names[i % FILES], chains);
		if (++chains == CHAINS || i + 1 == DIRS * FILES) {
			rc = finish_chains(c, chains, err);
			chains = 0;
		}
	}
	return rc;
}

static int pass_image(void *payload, struct cpull_error *err)
{
	struct create *c = payload;

	return image_feed_run(c->image, c->tree, c->data, err);
}

/* ---- the product ---- */

static int pass_writer(void *payload, struct cpull_error *err)
{
	struct create *c = payload;

	return layer_feed_run(c->feed, c->tree, CPULL_IO_AUTO, err);
}

static int pass_writer_image(void *payload, struct cpull_error *err)
{
	struct create *c = payload;

	return layer_feed_image(c->feed, c->tree, CPULL_IO_AUTO, err);
}

int measure_create(struct report *report, const struct corpus *corpus, struct cpull_error *err)
{
	CLEANUP_FREE struct create *c = calloc(1, sizeof(*c));
	const double files = DIRS * FILES, entries = DIRS * (FILES + 1);

	(void)corpus;
	if (!c)
		return error_nomem(err);

	const struct bench_case cases[] = {
		{"create", "layer_writer", true, COST_NONE, US_PER_FILE, entries, pass_writer, new_tree, c},
		{"create", "layer_writer, an EROFS image", true, COST_NONE, US_PER_FILE, entries, pass_writer_image,
		 new_tree, c},
		{"create", "openat, pwrite, futimens, close", false, COST_CREATE, US_PER_FILE, files, pass_times,
		 new_dirs, c},
		{"create", "the same, fchown and fchmod always", false, COST_NONE, US_PER_FILE, files, pass_all,
		 new_dirs, c},
		{"create", "the same, two threads", false, COST_NONE, US_PER_FILE, files, pass_two, new_dirs, c},
		{"create", "openat, pwrite, close", false, COST_NONE, US_PER_FILE, files, pass_none, new_dirs, c},
		{"create", "an EROFS image, without reading a tar", false, COST_NONE, US_PER_FILE, entries,
		 pass_image, new_tree, c},
		{"create", "io_uring: openat, write, close linked", false, COST_NONE, US_PER_FILE, files,
		 pass_uring, new_dirs, c},
	};
	int rc = layer_feed_new(DIRS, FILES, CREATE_FILE_BYTES, &c->feed, err);

	if (!rc)
		rc = image_feed_new(DIRS, FILES, CREATE_FILE_BYTES, &c->image, err);

	c->tree = -1;
	memset(c->dirs, 0xff, sizeof(c->dirs));
	for (unsigned f = 0; f < FILES; f++)
		snprintf(c->names[f], sizeof(c->names[f]), "f%05u", f);
	c->parent = open(report->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!rc && c->parent < 0)
		rc = error_sys(err, CPULL_ERR_STORAGE, errno, "opening %s", report->dir);
	if (!rc)
		rc = measure(report, cases, ARRAY_LEN(cases), err);
	close_tree(c);
	if (!rc)
		rc = fs_remove_tree(c->parent, TREE, err);
	if (c->parent >= 0)
		close(c->parent);
	if (c->ring_ready)
		io_uring_queue_exit(&c->ring);
	layer_feed_free(c->feed);
	image_feed_free(c->image);
	return rc;
}
