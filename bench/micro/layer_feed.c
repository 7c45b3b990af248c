/* SPDX-License-Identifier: Apache-2.0
 *
 * A made-up layer and the writer that takes it. It lies in chunks of a pool as in a pull, filled once: each run lends
 * them to a new writer, so that nothing is copied for the benchmark's sake. Used by the stages create and write.
 */
#include "bench/micro/layer_feed.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/dir_fs.h"
#include "snapshot/erofs_fs.h"
#include "snapshot/layer_writer.h"
#include "snapshot/recorded_fs.h"

#define BLOCK_BYTES 512u
#define CHUNK_BYTES ((size_t)256 << 10)

struct layer_feed {
	struct log log;
	struct pool *pool;
	struct pool_share *share;
	struct chunk **chunks;
	size_t count;
};

static uint8_t *put_header(uint8_t *at, const char *name, char type, size_t size)
{
	char *h = (char *)at;
	unsigned sum = 0;

	memset(h, 0, BLOCK_BYTES);
	snprintf(h, 100, "%s", name);
	snprintf(h + 100, 8, "%07o", type == '5' ? 0755u : 0644u);
	snprintf(h + 108, 8, "%07o", (unsigned)geteuid() & 07777777u);
	snprintf(h + 116, 8, "%07o", (unsigned)getegid() & 07777777u);
	snprintf(h + 124, 12, "%011zo", size & 077777777777u);
	snprintf(h + 136, 12, "%011o", 1700000000u);
	memset(h + 148, ' ', 8);
	h[156] = type;
	memcpy(h + 257, "ustar\0" "00", 8);
	for (unsigned i = 0; i < BLOCK_BYTES; i++)
		sum += at[i];
	snprintf(h + 148, 8, "%06o", sum & 0777777u);
	return at + BLOCK_BYTES;
}

static void fill(uint8_t *at, unsigned dirs, unsigned files, size_t file_bytes, size_t data)
{
	char name[100];

	for (unsigned d = 0; d < dirs; d++) {
		snprintf(name, sizeof(name), "d%05u/", d);
		at = put_header(at, name, '5', 0);
		for (unsigned f = 0; f < files; f++) {
			snprintf(name, sizeof(name), "d%05u/f%05u", d, f);
			at = put_header(at, name, '0', file_bytes);
			memset(at, (int)f + 1, file_bytes);
			at += data;
		}
	}
}

static int feed_load(struct layer_feed *feed, const uint8_t *tar, size_t len, struct cpull_error *err)
{
	feed->count = (len + CHUNK_BYTES - 1) / CHUNK_BYTES;
	feed->chunks = calloc(feed->count, sizeof(struct chunk *));

	int rc = feed->chunks ? pool_new(CHUNK_BYTES, feed->count, &feed->pool, err) : error_nomem(err);

	if (!rc && (rc = pool_share_open(feed->pool, feed->count, feed->count, &feed->share)))
		error_set(err, rc, "sharing the pool");
	if (rc)
		return rc;
	for (size_t i = 0; i < feed->count; i++) {
		struct chunk *chunk = feed->chunks[i] = pool_get(feed->share, NULL);

		chunk->len = (uint32_t)MIN(len - i * CHUNK_BYTES, CHUNK_BYTES);
		memcpy(chunk->data, tar + i * CHUNK_BYTES, chunk->len);
	}
	return 0;
}

int layer_feed_new(unsigned dirs, unsigned files, size_t file_bytes, struct layer_feed **out, struct cpull_error *err)
{
	size_t data = (file_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
	size_t len = dirs * (BLOCK_BYTES + files * (BLOCK_BYTES + data)) + 2 * BLOCK_BYTES;
	CLEANUP_FREE uint8_t *tar = calloc(1, len);
	struct layer_feed *feed = calloc(1, sizeof(*feed));
	int rc;

	if (!tar || !feed) {
		free(feed);
		return error_nomem(err);
	}
	log_init(&feed->log, NULL, NULL, CPULL_LOG_ERROR);
	fill(tar, dirs, files, file_bytes, data);
	rc = feed_load(feed, tar, len, err);
	if (rc)
		layer_feed_free(feed);
	else
		*out = feed;
	return rc;
}

/* fs is taken over. */
static int feed_writer(struct layer_feed *feed, struct layer_fs *fs, struct cpull_error *err)
{
	const struct layer_writer_options options = {.fs = fs};
	struct layer_writer_stats stats;
	struct layer_writer *writer = NULL;
	int rc = layer_writer_new(&options, &writer, err);

	for (size_t i = 0; !rc && i < feed->count; i++)
		rc = layer_writer_feed(writer, feed->chunks[i], err);
	if (!rc)
		rc = layer_writer_finish(writer, &stats, err);
	if (!rc)
		rc = layer_writer_seal(writer, err);
	layer_writer_free(writer);
	return rc;
}

int layer_feed_run(struct layer_feed *feed, int dirfd, enum cpull_io io, struct cpull_error *err)
{
	static const char list[] = ".contents";
	const struct dir_fs_options options = {.dirfd = dirfd, .io = io, .log = &feed->log};
	CLEANUP_FD int beside = openat(dirfd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct layer_fs *disk, *fs;
	int rc = beside < 0 ? error_sys(err, CPULL_ERR_STORAGE, errno, "opening a directory")
			    : dir_fs_new(&options, &disk, err);

	if (!rc)
		rc = recorded_fs_new(disk, beside, list, &fs, err);
	if (!rc)
		rc = feed_writer(feed, fs, err);
	if (beside >= 0)
		unlinkat(beside, list, 0);
	return rc;
}

int layer_feed_image(struct layer_feed *feed, int dirfd, enum cpull_io io, struct cpull_error *err)
{
	CLEANUP_FD int fd = openat(dirfd, "layer.erofs", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	const struct erofs_image_options options = {.fd = fd, .spool_dirfd = dirfd, .uuid = {1}, .io = io,
						    .log = &feed->log};
	struct layer_fs *fs;

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "making a file");

	int rc = erofs_fs_new(&options, &fs, err);

	return rc ? rc : feed_writer(feed, fs, err);
}

void layer_feed_free(struct layer_feed *feed)
{
	if (!feed)
		return;
	for (size_t i = 0; feed->chunks && i < feed->count; i++)
		chunk_put(feed->chunks[i]);
	free(feed->chunks);
	if (feed->share)
		pool_share_close(feed->share);
	pool_free(feed->pool);
	log_destroy(&feed->log);
	free(feed);
}
