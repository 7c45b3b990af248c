/* SPDX-License-Identifier: Apache-2.0
 *
 * What tree_hash() would say of an EROFS image if it were mounted, without a mount: everything in it is read. 0 when
 * something cannot be. Nothing of cmocka, since fuzz targets use it too.
 */
#ifndef TESTS_IMAGE_HASH_H
#define TESTS_IMAGE_HASH_H

#include "snapshot/erofs_reader.h"
#include "tests/tree_hash.h"

#define IMAGE_HASH_DEPTH 2100u /* a path has 4096 bytes */

struct image_hash {
	struct erofs_reader *reader;
	uint64_t hash;
	char path[2 * LIMIT_PATH_BYTES];
	size_t depth;
	struct {
		struct erofs_listing listing;
		size_t path_len;
	} levels[IMAGE_HASH_DEPTH];
};

static inline bool image_hash_xattrs(struct image_hash *h, const struct erofs_node *node, uint64_t *sum)
{
	static uint8_t value[UINT16_MAX];
	struct erofs_xattrs x;
	int rc;

	*sum = 0;
	erofs_reader_xattrs(node, &x);
	while ((rc = erofs_reader_xattr_next(h->reader, &x, NULL)) > 0) {
		uint64_t one = tree_hash_bytes(TREE_HASH_START, x.name, x.name_len + 1);

		if (erofs_reader_xattr_value(h->reader, &x, value, NULL))
			return false;
		*sum += tree_hash_bytes(one, value, x.value_len);
	}
	return rc == 0;
}

static inline bool image_hash_content(struct image_hash *h, const struct erofs_node *node)
{
	uint8_t piece[16384];
	size_t got;

	for (uint64_t at = 0; at < node->size; at += got) {
		if (erofs_reader_read(h->reader, node, piece, sizeof(piece), at, &got, NULL) || !got)
			return false;
		h->hash = tree_hash_bytes(h->hash, piece, got);
	}
	return true;
}

static inline bool image_hash_node(struct image_hash *h, const struct erofs_node *node)
{
	uint64_t facts[] = {node->mode, node->uid, node->gid, node->rdev, (uint64_t)node->mtime.tv_sec,
			    (uint64_t)node->mtime.tv_nsec, S_ISDIR(node->mode) ? 0 : node->nlink,
			    S_ISREG(node->mode) ? node->size : 0, 0};
	char target[LIMIT_PATH_BYTES];

	if (!image_hash_xattrs(h, node, &facts[8]))
		return false;
	if (S_ISCHR(node->mode) && node->rdev == 0)
		facts[4] = facts[5] = facts[6] = 0;
	h->hash = tree_hash_bytes(h->hash, h->path, strlen(h->path) + 1);
	h->hash = tree_hash_bytes(h->hash, facts, sizeof(facts));
	if (S_ISREG(node->mode) && node->size < 16 << 20 && !image_hash_content(h, node))
		return false;
	if (!S_ISLNK(node->mode))
		return true;
	if (erofs_reader_link(h->reader, node, target, NULL))
		return false;
	h->hash = tree_hash_bytes(h->hash, target, strlen(target));
	return true;
}

static inline bool image_hash_enter(struct image_hash *h, const struct erofs_node *dir)
{
	if (h->depth == IMAGE_HASH_DEPTH)
		return false;
	erofs_reader_list(dir, &h->levels[h->depth].listing);
	h->levels[h->depth++].path_len = strlen(h->path);
	return true;
}

/* The next name of the innermost directory, or out of it. */
static inline bool image_hash_step(struct image_hash *h)
{
	struct erofs_listing *listing = &h->levels[h->depth - 1].listing;
	size_t len = h->levels[h->depth - 1].path_len;
	struct erofs_node node;
	int rc = erofs_reader_next(h->reader, listing, NULL);

	if (rc <= 0) {
		h->depth--;
		return rc == 0;
	}
	if (len + 1 + listing->name_len >= sizeof(h->path))
		return false;
	h->path[len] = '/';
	memcpy(h->path + len + 1, listing->name, listing->name_len + 1);
	if (erofs_reader_node(h->reader, listing->nid, &node, NULL) || !image_hash_node(h, &node))
		return false;
	return !S_ISDIR(node.mode) || image_hash_enter(h, &node);
}

static inline uint64_t image_hash(struct erofs_reader *reader)
{
	struct image_hash *h = calloc(1, sizeof(*h));
	bool good = h != NULL;
	uint64_t hash;

	if (!h)
		return 0;
	h->reader = reader;
	h->hash = TREE_HASH_START;
	good = image_hash_node(h, erofs_reader_root(reader)) && image_hash_enter(h, erofs_reader_root(reader));
	while (good && h->depth)
		good = image_hash_step(h);
	hash = good ? h->hash : 0;
	free(h);
	return hash;
}

#endif
