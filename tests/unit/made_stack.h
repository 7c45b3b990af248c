/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests of merged EROFS layers: stacks of images l0.erofs (the topmost) and on in the working directory, merged and
 * mounted.
 */
#ifndef TESTS_MADE_STACK_H
#define TESTS_MADE_STACK_H

#include "made_layers.h"

#include "snapshot/erofs_merge.h"
#include "snapshot/erofs_mount.h"

#define MERGED "merged.erofs"

__attribute__((unused)) static char *layer_path(size_t i)
{
	char *path = format_string("l%zu.erofs", i);

	assert_non_null(path);
	return path;
}

__attribute__((unused)) static char *absolute(const char *name)
{
	CLEANUP_FREE char *cwd = getcwd(NULL, 0);
	char *path = format_string("%s/%s", cwd, name);

	assert_non_null(path);
	return path;
}

__attribute__((unused)) static void change(const char *path, uint64_t at, const void *data, size_t len)
{
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_int_equal(pwrite(fd, data, len, (off_t)at), (ssize_t)len);
}

__attribute__((unused)) static void put_many(size_t i)
{
	CLEANUP_FREE char *name = layer_path(i), *own = format_string("own/%zu", i), *dir = format_string("dir %zu", i);
	CLEANUP_FREE char *in_dir = format_string("dir %zu/file", i), *gone = format_string("own/%zu", i + 1);
	struct layer l;

	layer_begin(&l, (uint8_t)i);
	PUT_DIR(&l, "own");
	PUT_DIR(&l, "both", .mtime = (int64_t)i + 1);
	PUT(&l, own, .size = 4096 + i);
	if (i % 10 == 0)
		PUT_WHITEOUT(&l, gone);
	PUT(&l, "both/replaced", .size = 100 + i);
	PUT_DIR(&l, dir);
	PUT(&l, in_dir, .size = 3 * 4096);
	layer_write(&l, name);
}

/* ---- merging ---- */

struct stack {
	struct erofs_merge_layer layers[LIMIT_LAYERS + 1];
	int fds[LIMIT_LAYERS + 1];
	size_t count;
};

/* Layers 0 (the topmost) to count - 1. */
__attribute__((unused)) static void open_stack(struct stack *s, size_t count)
{
	struct rlimit files;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	s->count = count;
	for (size_t i = 0; i < count; i++) {
		char *path = layer_path(i);

		s->fds[i] = open(path, O_RDONLY | O_CLOEXEC);
		assert_true(s->fds[i] >= 0);
		s->layers[i].name = path;
		OK(erofs_reader_open(s->fds[i], &s->layers[i].image, err));
	}
}

__attribute__((unused)) static void close_stack(struct stack *s)
{
	for (size_t i = 0; i < s->count; i++) {
		erofs_reader_close(s->layers[i].image);
		close(s->fds[i]);
		free((char *)s->layers[i].name);
	}
}

__attribute__((unused)) static int merge_to(struct stack *s, const char *path, uint64_t max_entries,
					    struct erofs_image_result *result, struct cpull_error *err)
{
	struct erofs_merge_options options = {.layers = s->layers, .count = s->count, .max_entries = max_entries,
					      .image.uuid = "merged"};
	struct log log;
	int rc;

	unlink(path);
	log_init(&log, NULL, NULL, CPULL_LOG_ERROR);
	options.image.log = &log;
	options.image.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	options.image.spool_dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rc = erofs_merge(&options, result, err);
	log_destroy(&log);
	close(options.image.fd);
	close(options.image.spool_dirfd);
	return rc;
}

__attribute__((unused)) static struct erofs_image_result merge(size_t count)
{
	struct erofs_image_result result;
	struct stack *s = calloc(1, sizeof(*s));

	open_stack(s, count);
	OK(merge_to(s, MERGED, 0, &result, err));
	close_stack(s);
	free(s);
	assert_int_equal(stat_of(MERGED).st_size, result.blocks * BLOCK);
	return result;
}

__attribute__((unused)) static void merge_fails(size_t count, int code, const char *why)
{
	struct erofs_image_result result;
	struct stack *s = calloc(1, sizeof(*s));

	open_stack(s, count);
	FAILS(code, why, merge_to(s, MERGED, 0, &result, err));
	close_stack(s);
	free(s);
}

/* ---- mounting ---- */

__attribute__((unused)) static int mount_stack(size_t count, enum erofs_way *way, struct cpull_error *err)
{
	char **devices = calloc(count, sizeof(*devices));
	CLEANUP_FREE char *image = absolute(MERGED), *target = absolute("merged");
	struct erofs_mount m = {.image = image, .target = target, .devices = (const char *const *)devices,
				.device_count = count};

	for (size_t i = 0; i < count; i++) {
		CLEANUP_FREE char *name = layer_path(count - 1 - i);

		devices[i] = absolute(name);
	}
	assert_true(mkdir("merged", 0700) == 0 || errno == EEXIST);

	int rc = erofs_mount(&m, NULL, way, err);

	for (size_t i = 0; i < count; i++)
		free(devices[i]);
	free(devices);
	return rc;
}

__attribute__((unused)) static void mount_merged(size_t count)
{
	enum erofs_way way;

	OK(mount_stack(count, &way, err));
}

__attribute__((unused)) static void mount_one(size_t i)
{
	CLEANUP_FREE char *name = layer_path(i), *image = absolute(name), *at = format_string("m%zu", i);
	CLEANUP_FREE char *target = absolute(at);
	const struct erofs_mount m = {.image = image, .target = target};

	assert_int_equal(mkdir(at, 0700), 0);
	OK(erofs_mount(&m, NULL, NULL, err));
}

/* What overlayfs makes of the layers, at "overlay". */
__attribute__((unused)) static void mount_overlay(size_t count)
{
	CLEANUP_BYTES struct bytes options = {0};

	for (size_t i = 0; i < count; i++) {
		char text[32];

		mount_one(i);
		snprintf(text, sizeof(text), "%sm%zu", i ? ":" : "lowerdir=", i);
		assert_int_equal(bytes_append(&options, text, strlen(text), 4000), 0);
	}
	assert_int_equal(mkdir("overlay", 0700), 0);
	assert_int_equal(mount("none", "overlay", "overlay", MS_RDONLY, options.data), 0);
}

__attribute__((unused)) static void unmount_all(size_t count)
{
	umount2("merged", MNT_DETACH);
	umount2("overlay", MNT_DETACH);
	rmdir("overlay");
	for (size_t i = 0; i < count; i++) {
		CLEANUP_FREE char *at = format_string("m%zu", i);

		umount2(at, MNT_DETACH);
		rmdir(at);
	}
}

#endif
