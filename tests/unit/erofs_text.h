/* SPDX-License-Identifier: Apache-2.0
 *
 * Everything that the EROFS reader says of an image, as text: for tests that compare it, or that want to see an error.
 * Include behind cmocka.h.
 */
#ifndef TESTS_UNIT_EROFS_TEXT_H
#define TESTS_UNIT_EROFS_TEXT_H

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "engine/base/util.h"
#include "snapshot/erofs_reader.h"

#define MAX_NODES 20000u
#define MAX_TEXT (16u << 20)
#define MAX_CONTENT (1u << 20) /* a map of holes can say that there is any amount */

static inline void text_add(struct bytes *text, const char *fmt, ...) PRINTF_LIKE(2, 3);
static inline void text_add(struct bytes *text, const char *fmt, ...)
{
	CLEANUP_FREE char *line = NULL;
	va_list args;

	va_start(args, fmt);
	int len = vasprintf(&line, fmt, args);
	va_end(args);
	assert_true(len >= 0);
	assert_int_equal(bytes_append(text, line, (size_t)len, MAX_TEXT), 0);
}

/* A file's content; in pieces of an odd size, so that extents are cut. */
static inline int read_all(struct erofs_reader *r, const struct erofs_node *node, struct bytes *out,
			   struct cpull_error *err)
{
	char piece[5003];
	size_t got = sizeof(piece);

	for (uint64_t at = 0; got == sizeof(piece) && at < MAX_CONTENT; at += got) {
		int rc = erofs_reader_read(r, node, piece, sizeof(piece), at, &got, err);

		if (rc)
			return rc;
		assert_int_equal(bytes_append(out, piece, got, MAX_TEXT), 0);
	}
	assert_true(out->len == node->size || out->len >= MAX_CONTENT);
	return 0;
}

/* All attributes, sorted as they are. */
static inline int describe_xattrs(struct erofs_reader *r, const struct erofs_node *node, struct bytes *text,
			   struct cpull_error *err)
{
	static uint8_t value[UINT16_MAX];
	struct erofs_xattrs x;
	int rc;

	erofs_reader_xattrs(node, &x);
	while ((rc = erofs_reader_xattr_next(r, &x, err)) > 0) {
		rc = erofs_reader_xattr_value(r, &x, value, err);
		if (rc)
			return rc;
		text_add(text, " %s=%zu:%x", x.name, x.value_len, erofs_checksum(value, x.value_len));
	}
	return rc;
}

/* Everything about a node in one line, but its name. */
static inline int describe(struct erofs_reader *r, const struct erofs_node *node, struct bytes *text,
			   struct cpull_error *err)
{
	CLEANUP_BYTES struct bytes content = {0};
	char target[LIMIT_PATH_BYTES];
	int rc = 0;

	text_add(text, " %o %u:%u %" PRId64 ".%09ld n%u", node->mode, node->uid, node->gid, (int64_t)node->mtime.tv_sec,
		 node->mtime.tv_nsec, node->nlink);
	if (S_ISREG(node->mode)) {
		rc = read_all(r, node, &content, err);
		text_add(text, " %zu:%x", content.len, rc ? 0 : erofs_checksum(content.data, content.len));
	} else if (S_ISLNK(node->mode)) {
		rc = erofs_reader_link(r, node, target, err);
		text_add(text, " -> %s", rc ? "" : target);
	} else if (S_ISCHR(node->mode) || S_ISBLK(node->mode)) {
		text_add(text, " %u/%u", major(node->rdev), minor(node->rdev));
	}
	if (!rc)
		rc = describe_xattrs(r, node, text, err);
	text_add(text, "\n");
	return rc;
}

struct found {
	uint64_t nid;
	char *path;
};

struct walk {
	struct found nodes[MAX_NODES];
	size_t count;
};

/* Once it is known that all names are in order, each is found. */
static inline int lookup_all(struct erofs_reader *r, const struct erofs_node *dir, struct cpull_error *err)
{
	struct erofs_listing l;
	struct erofs_node node;
	int rc;

	erofs_reader_list(dir, &l);
	while ((rc = erofs_reader_next(r, &l, err)) > 0) {
		rc = erofs_reader_lookup(r, dir, l.name, l.name_len, &node, err);
		if (rc < 0)
			return rc;
		assert_int_equal(rc, 1);
		assert_int_equal(node.nid, l.nid);
		assert_int_equal(erofs_type_of(node.mode), l.type);
	}
	return rc;
}

/* A directory may name one of those above it. */
static inline bool seen_before(const struct walk *walk, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (walk->nodes[k].nid == walk->nodes[i].nid)
			return true;
	return false;
}

static inline int describe_dir(struct erofs_reader *r, struct walk *walk, const struct found *at,
			const struct erofs_node *dir, struct cpull_error *err)
{
	struct erofs_listing l;
	int rc;

	erofs_reader_list(dir, &l);
	while ((rc = erofs_reader_next(r, &l, err)) > 0) {
		assert_int_equal(strlen(l.name), l.name_len);
		assert_true(walk->count < MAX_NODES);
		walk->nodes[walk->count++] =
			(struct found){l.nid, format_string("%s%s%s", at->path, *at->path ? "/" : "", l.name)};
	}
	return rc ? rc : lookup_all(r, dir, err);
}

/* One line a node, the root first and directories before what is in them. The first error ends it. */
static inline int describe_image(int fd, struct bytes *text, struct cpull_error *err)
{
	struct walk *walk = calloc(1, sizeof(*walk));
	struct erofs_reader *r;
	struct erofs_node node;
	int rc = erofs_reader_open(fd, &r, err);

	assert_non_null(walk);
	assert_true(!r == (rc != 0));
	walk->nodes[walk->count++] = (struct found){r ? erofs_reader_root(r)->nid : 0, strdup("")};
	for (size_t i = 0; !rc && i < walk->count; i++) {
		struct found at = walk->nodes[i];

		rc = erofs_reader_node(r, at.nid, &node, err);
		text_add(text, "/%s", at.path);
		if (!rc)
			rc = describe(r, &node, text, err);
		if (!rc && S_ISDIR(node.mode) && !seen_before(walk, i))
			rc = describe_dir(r, walk, &at, &node, err);
		if (rc)
			continue;
		assert_int_equal(erofs_reader_find(r, at.path, &node, err), 1);
		assert_int_equal(node.nid, at.nid);
	}
	for (size_t i = 0; i < walk->count; i++)
		free(walk->nodes[i].path);
	free(walk);
	erofs_reader_close(r);
	return rc;
}

#endif
