/* SPDX-License-Identifier: Apache-2.0
 *
 * A made-up layer as one EROFS image: what the builder takes when names and attributes are at hand. Used by the stage
 * create; owns the names.
 */
#include "bench/micro/image_feed.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/error.h"
#include "snapshot/erofs_image.h"

#define NAME_BYTES 16

struct image_feed {
	struct log log;
	unsigned dirs, files;
	size_t file_bytes;
	struct erofs_directory root, *below;
	struct erofs_entry *entries; /* of the root, and then of each directory in turn */
	char (*names)[NAME_BYTES];   /* in the same order */
};

static const struct erofs_attributes of_file = {.mode = S_IFREG | 0644, .mtime = {.tv_sec = 1700000000}};
static const struct erofs_attributes of_dir = {.mode = S_IFDIR | 0755, .mtime = {.tv_sec = 1700000000}};

static void name_entries(struct image_feed *feed, size_t from, unsigned count, char letter, enum erofs_type type)
{
	for (unsigned i = 0; i < count; i++) {
		char *name = feed->names[from + i];
		int len = snprintf(name, NAME_BYTES, "%c%05u", letter, i);

		feed->entries[from + i] = (struct erofs_entry){.name = name, .len = (size_t)len, .type = type};
	}
}

int image_feed_new(unsigned dirs, unsigned files, size_t file_bytes, struct image_feed **out, struct cpull_error *err)
{
	struct image_feed *feed = calloc(1, sizeof(*feed));
	size_t entries = dirs + (size_t)dirs * files;

	if (!feed)
		return error_nomem(err);
	log_init(&feed->log, NULL, NULL, CPULL_LOG_ERROR);
	feed->dirs = dirs;
	feed->files = files;
	feed->file_bytes = file_bytes;
	feed->entries = calloc(entries, sizeof(*feed->entries));
	feed->names = calloc(entries, sizeof(*feed->names));
	feed->below = calloc(dirs, sizeof(*feed->below));
	if (!feed->entries || !feed->names || !feed->below) {
		image_feed_free(feed);
		return error_nomem(err);
	}
	feed->root = (struct erofs_directory){.attributes = of_dir, .entries = feed->entries, .count = dirs,
					      .root = true};
	name_entries(feed, 0, dirs, 'd', EROFS_DIRECTORY);
	for (unsigned d = 0; d < dirs; d++) {
		size_t from = dirs + (size_t)d * files;

		name_entries(feed, from, files, 'f', EROFS_REGULAR);
		feed->below[d] = (struct erofs_directory){.attributes = of_dir, .entries = feed->entries + from,
							  .count = files};
	}
	*out = feed;
	return 0;
}

void image_feed_free(struct image_feed *feed)
{
	if (!feed)
		return;
	log_destroy(&feed->log);
	free(feed->entries);
	free(feed->names);
	free(feed->below);
	free(feed);
}

static int put_files(struct image_feed *feed, struct erofs_image *image, const uint8_t *data, struct cpull_error *err)
{
	const struct tar_data all = {.data = data, .len = feed->file_bytes};
	int rc = 0;

	for (size_t i = feed->dirs; !rc && i < feed->dirs + (size_t)feed->dirs * feed->files; i++) {
		rc = erofs_image_file_begin(image, &of_file, feed->file_bytes, false, err);
		if (!rc)
			rc = erofs_image_file_data(image, &all, err);
		if (!rc)
			rc = erofs_image_file_end(image, &feed->entries[i].nid, err);
	}
	return rc;
}

static int put_dirs(struct image_feed *feed, struct erofs_image *image, uint64_t *root, struct cpull_error *err)
{
	int rc = erofs_image_dir_place(image, &feed->root, root, err);

	feed->root.parent = *root;
	for (unsigned d = 0; !rc && d < feed->dirs; d++) {
		feed->below[d].parent = *root;
		rc = erofs_image_dir_place(image, &feed->below[d], &feed->entries[d].nid, err);
	}
	if (!rc)
		rc = erofs_image_dir_write(image, *root, &feed->root, err);
	for (unsigned d = 0; !rc && d < feed->dirs; d++)
		rc = erofs_image_dir_write(image, feed->entries[d].nid, &feed->below[d], err);
	return rc;
}

int image_feed_run(struct image_feed *feed, int dirfd, const uint8_t *data, struct cpull_error *err)
{
	CLEANUP_FD int fd = openat(dirfd, "layer.erofs", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	const struct erofs_image_options options = {.fd = fd, .spool_dirfd = dirfd, .uuid = {1}, .log = &feed->log};
	struct erofs_image *image = NULL;
	struct erofs_image_result result;
	uint64_t root = 0;

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "making a file");

	int rc = erofs_image_new(&options, &image, err);

	if (!rc)
		rc = put_files(feed, image, data, err);
	if (!rc)
		rc = put_dirs(feed, image, &root, err);
	if (!rc)
		rc = erofs_image_finish(image, root, &result, err);
	erofs_image_free(image);
	return rc;
}
