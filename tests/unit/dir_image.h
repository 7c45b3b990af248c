/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests: a directory tree as an EROFS image, by the image builder. Without extended attributes but the one that
 * makes a directory opaque. Include behind cmocka.h.
 */
#ifndef TESTS_DIR_IMAGE_H
#define TESTS_DIR_IMAGE_H

#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "engine/base/fs.h"
#include "snapshot/erofs_image.h"
#include "snapshot/overlay_marks.h"

#define DIR_IMAGE_NODES 1024u

/* What is in the tree, parents before children. */
struct dir_image_node {
	char path[512];
	char name[256];
	struct stat st;
	size_t parent;
	uint64_t nid;
};

struct dir_image {
	struct erofs_image *image;
	struct dir_image_node *nodes;
	size_t count;
};

static inline void dir_image_collect(struct dir_image *d)
{
	for (size_t at = 0; at < d->count; at++) {
		if (!S_ISDIR(d->nodes[at].st.st_mode))
			continue;

		CLEANUP_DIR DIR *list = fs_list(AT_FDCWD, d->nodes[at].path);
		const char *name;

		assert_non_null(list);
		while ((name = fs_next_name(list))) {
			struct dir_image_node *node = &d->nodes[d->count++];

			assert_true(d->count < DIR_IMAGE_NODES);
			*node = (struct dir_image_node){.parent = at};
			snprintf(node->name, sizeof(node->name), "%s", name);
			assert_true((size_t)snprintf(node->path, sizeof(node->path), "%.255s/%s", d->nodes[at].path,
						     name) < sizeof(node->path));
			assert_int_equal(lstat(node->path, &node->st), 0);
		}
	}
}

static inline struct erofs_attributes dir_image_attributes(const struct dir_image_node *node)
{
	struct erofs_attributes out = {.mode = node->st.st_mode, .uid = node->st.st_uid, .gid = node->st.st_gid,
				       .mtime = node->st.st_mtim};
	CLEANUP_FD int fd = S_ISDIR(out.mode) ? open(node->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	out.opaque = fd >= 0 && overlay_marks_opaque(fd);
	return out;
}

static inline int dir_image_file(struct dir_image *d, struct dir_image_node *node, struct cpull_error *err)
{
	static uint8_t bytes[65536];
	const struct erofs_attributes attributes = dir_image_attributes(node);
	CLEANUP_FD int fd = open(node->path, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, bytes, sizeof(bytes));
	const struct tar_data data = {.data = bytes, .len = (size_t)n};

	assert_int_equal(n, node->st.st_size);

	int rc = erofs_image_file_begin(d->image, &attributes, (uint64_t)n, false, err);

	if (!rc && n)
		rc = erofs_image_file_data(d->image, &data, err);
	return rc ? rc : erofs_image_file_end(d->image, &node->nid, err);
}

static inline int dir_image_add(struct dir_image *d, struct dir_image_node *node, struct cpull_error *err)
{
	const struct erofs_attributes attributes = dir_image_attributes(node);
	char target[4096];
	ssize_t n;

	switch (node->st.st_mode & S_IFMT) {
	case S_IFDIR:
		return 0;
	case S_IFREG:
		return dir_image_file(d, node, err);
	case S_IFLNK:
		n = readlink(node->path, target, sizeof(target) - 1);
		assert_true(n > 0);
		target[n] = 0;
		return erofs_image_symlink(d->image, &attributes, target, &node->nid, err);
	default:
		return erofs_image_node(d->image, &attributes, major(node->st.st_rdev), minor(node->st.st_rdev),
					&node->nid, err);
	}
}

static inline int dir_image_order(const void *a, const void *b)
{
	const struct erofs_entry *x = a, *y = b;

	return erofs_name_compare(x->name, x->len, y->name, y->len);
}

/* `place`: the first of the two passes. */
static inline int dir_image_dir(struct dir_image *d, size_t at, bool place, struct cpull_error *err)
{
	struct dir_image_node *dir = &d->nodes[at];
	CLEANUP_FREE struct erofs_entry *entries = calloc(d->count, sizeof(*entries));
	struct erofs_directory out = {.attributes = dir_image_attributes(dir), .entries = entries, .root = at == 0,
				      .parent = d->nodes[dir->parent].nid};

	assert_non_null(entries);
	for (size_t i = 1; i < d->count; i++) {
		const struct dir_image_node *node = &d->nodes[i];

		if (node->parent == at)
			entries[out.count++] = (struct erofs_entry){node->name, strlen(node->name), node->nid,
								    erofs_type_of(node->st.st_mode)};
	}
	qsort(entries, out.count, sizeof(*entries), dir_image_order);
	return place ? erofs_image_dir_place(d->image, &out, &dir->nid, err)
		     : erofs_image_dir_write(d->image, dir->nid, &out, err);
}

/* Makes the file `to` of what is in the directory `from`, and opens it for reading. */
static inline int dir_image_make(const char *from, const char *to)
{
	struct cpull_error err = {0};
	struct erofs_image_result result;
	struct dir_image d = {.nodes = calloc(DIR_IMAGE_NODES, sizeof(*d.nodes)), .count = 1};
	CLEANUP_FD int fd = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	CLEANUP_FD int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct log log;

	log_init(&log, NULL, NULL, CPULL_LOG_ERROR);

	const struct erofs_image_options options = {.fd = fd, .spool_dirfd = here, .uuid = {1}, .log = &log};

	assert_non_null(d.nodes);
	snprintf(d.nodes[0].path, sizeof(d.nodes[0].path), "%s", from);
	assert_int_equal(lstat(from, &d.nodes[0].st), 0);
	dir_image_collect(&d);

	int rc = erofs_image_new(&options, &d.image, &err);

	for (size_t i = 0; !rc && i < d.count; i++)
		rc = dir_image_add(&d, &d.nodes[i], &err);
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; !rc && i < d.count; i++)
			rc = S_ISDIR(d.nodes[i].st.st_mode) ? dir_image_dir(&d, i, pass == 0, &err) : 0;
	if (!rc)
		rc = erofs_image_finish(d.image, d.nodes[0].nid, &result, &err);
	if (rc)
		fail_msg("%s", err.message);
	erofs_image_free(d.image);
	free(d.nodes);
	log_destroy(&log);
	return open(to, O_RDONLY | O_CLOEXEC);
}

#endif
