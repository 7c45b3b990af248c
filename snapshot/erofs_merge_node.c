/* SPDX-License-Identifier: Apache-2.0
 *
 * Inodes of layers in a merged EROFS image: their attributes, and where their data is. On the thread of erofs_merge();
 * owns nothing.
 *
 * Link counts are the layer's, as overlayfs shows them: names that are hidden count, too.
 */
#include <assert.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "engine/base/error.h"
#include "snapshot/erofs_merge_internal.h"
#include "snapshot/overlay_marks.h"

/* The least that an inode takes on disk: a compact one. */
#define INODE_BYTES 32u
/* Of a file with several names: its layer, in the bits that node numbers leave free. */
#define LAYER_BITS 9u
_Static_assert(LIMIT_LAYERS < 1u << LAYER_BITS, "LAYER_BITS");

static struct erofs_reader *reader_of(const struct erofs_merge *merge, size_t layer)
{
	return merge->options->layers[layer].image;
}

int erofs_merge_charge(struct erofs_merge *merge, size_t layer, uint64_t bytes, struct cpull_error *err)
{
	struct erofs_budget *budget = &merge->budgets[layer];

	if (bytes > budget->bytes)
		return error_set(err, CPULL_ERR_STORAGE, "the EROFS image is damaged: its names and inodes are more "
				 "than its %llu bytes have room for",
				 (unsigned long long)erofs_reader_bytes(reader_of(merge, layer)));
	budget->bytes -= bytes;
	return 0;
}

int erofs_merge_node(struct erofs_merge *merge, size_t layer, uint64_t nid, enum erofs_type type,
		     struct erofs_node *out, struct cpull_error *err)
{
	int rc = erofs_reader_node(reader_of(merge, layer), nid, out, err);

	if (!rc && erofs_type_of(out->mode) != type)
		return error_set(err, CPULL_ERR_STORAGE, "EROFS inode %llu is damaged: a name has another type than it",
				 (unsigned long long)nid);
	return rc;
}

/* ---- attributes ---- */

/* The merged image has nothing to hide. */
static bool is_mark(const char *name)
{
	return strcmp(name, OVERLAY_TRUSTED_OPAQUE) == 0;
}

/* Name and value behind those that are there. */
static int add_xattr(struct erofs_merge_xattrs *all, struct erofs_reader *reader, const struct erofs_xattrs *x,
		     struct cpull_error *err)
{
	const size_t max = LIMIT_XATTRS * (EROFS_XATTR_NAME_BYTES + 1) + LIMIT_EROFS_XATTRS_BYTES;
	static const char zeros[256];
	size_t at = all->text.len + x->name_len + 1;
	int rc = bytes_append(&all->text, x->name, x->name_len + 1, max);

	for (size_t left = x->value_len, n; !rc && left; left -= n) {
		n = MIN(left, sizeof(zeros));
		rc = bytes_append(&all->text, zeros, n, max);
	}
	if (rc == CPULL_ERR_LIMIT)
		return error_set(err, CPULL_ERR_LIMIT, "EROFS inode %llu has extended attributes of more than %u bytes",
				 (unsigned long long)x->nid, LIMIT_EROFS_XATTRS_BYTES);
	return rc ? error_nomem(err) : erofs_reader_xattr_value(reader, x, all->text.data + at, err);
}

/* It is not the inode's own. */
static bool is_shared(const struct erofs_node *node, const struct erofs_xattrs *x)
{
	return x->value_at < node->xattr_at || x->value_at > node->xattr_at + node->xattr_bytes;
}

static int take_xattrs(struct erofs_merge_xattrs *all, struct erofs_reader *reader, const struct erofs_node *node,
		       size_t *count, struct cpull_error *err)
{
	struct erofs_xattrs x;
	size_t at = 0;
	int rc;

	all->text.len = 0;
	all->shared_bytes = 0;
	*count = 0;
	erofs_reader_xattrs(node, &x);
	while ((rc = erofs_reader_xattr_next(reader, &x, err)) > 0) {
		if (is_mark(x.name))
			continue;
		if (*count == LIMIT_XATTRS)
			return error_set(err, CPULL_ERR_LIMIT, "EROFS inode %llu has more than %u extended attributes",
					 (unsigned long long)node->nid, LIMIT_XATTRS);
		rc = add_xattr(all, reader, &x, err);
		if (rc)
			return rc;
		all->list[(*count)++].len = x.value_len;
		if (is_shared(node, &x))
			all->shared_bytes += x.name_len + x.value_len;
	}
	for (size_t i = 0; i < *count; i++) {
		struct tar_xattr *xattr = &all->list[i];

		xattr->name = all->text.data + at;
		at += strlen(xattr->name) + 1;
		xattr->value = (const uint8_t *)all->text.data + at;
		at += xattr->len;
	}
	return rc;
}

int erofs_merge_attributes(struct erofs_merge *merge, size_t layer, const struct erofs_node *node,
			   struct erofs_attributes *out, struct cpull_error *err)
{
	*out = (struct erofs_attributes){.mode = node->mode, .uid = node->uid, .gid = node->gid, .mtime = node->mtime,
					 .xattrs = merge->xattrs.list};
	if (!node->xattr_bytes)
		return 0;

	int rc = take_xattrs(&merge->xattrs, reader_of(merge, layer), node, &out->xattr_count, err);

	return rc ? rc : erofs_merge_charge(merge, layer, merge->xattrs.shared_bytes, err);
}

/* ---- data ---- */

/* What no block of the layer has: all of it. */
static int copy_small(struct erofs_merge *merge, size_t layer, const struct erofs_node *node,
		      const struct erofs_attributes *attributes, uint64_t *nid, struct cpull_error *err)
{
	uint8_t tail[EROFS_BLOCK_BYTES];
	struct tar_data data = {.data = tail};
	int rc = erofs_reader_read(reader_of(merge, layer), node, tail, sizeof(tail), 0, &data.len, err);

	if (!rc)
		rc = erofs_merge_charge(merge, layer, data.len, err);
	if (!rc)
		rc = erofs_image_file_begin(merge->image, attributes, data.len, false, err);
	if (!rc)
		rc = erofs_image_file_data(merge->image, &data, err);
	return rc ? rc : erofs_image_file_end(merge->image, nid, err);
}

static int copy_flat(struct erofs_merge *merge, size_t layer, const struct erofs_node *node,
		     const struct erofs_attributes *attributes, uint64_t *nid, struct cpull_error *err)
{
	struct erofs_reader *reader = reader_of(merge, layer);
	struct erofs_elsewhere where = {.device = erofs_merge_device(merge, layer), .size = node->size};
	struct erofs_extent extent;
	uint8_t tail[EROFS_BLOCK_BYTES];
	size_t len = 0;
	int rc = erofs_reader_map(reader, node, 0, &extent, err);

	if (!rc && node->layout == EROFS_FLAT_INLINE && node->size % EROFS_BLOCK_BYTES == 0)
		return error_set(err, CPULL_ERR_UNSUPPORTED, "EROFS inode %llu cannot be merged: it has a whole block "
				 "behind it", (unsigned long long)node->nid);
	if (rc)
		return rc;
	where.block = (uint32_t)(extent.at / EROFS_BLOCK_BYTES);
	if (extent.bytes < node->size) {
		where.tail = tail;
		rc = erofs_reader_read(reader, node, tail, sizeof(tail), extent.bytes, &len, err);
	}
	if (!rc)
		rc = erofs_merge_charge(merge, layer, len, err);
	return rc ? rc : erofs_image_file_elsewhere(merge->image, attributes, &where, nid, err);
}

static int take_chunks(struct erofs_merge *merge, size_t layer, const struct erofs_node *node, uint64_t chunk_bytes,
		       struct cpull_error *err)
{
	struct erofs_extent extent;

	if (node->chunk_count > LIMIT_EROFS_CHUNKS)
		return error_set(err, CPULL_ERR_LIMIT, "EROFS inode %llu has %llu chunks, and at most %u are taken",
				 (unsigned long long)node->nid, (unsigned long long)node->chunk_count,
				 LIMIT_EROFS_CHUNKS);
	if (!merge->chunks)
		merge->chunks = malloc(LIMIT_EROFS_CHUNKS * sizeof(*merge->chunks));
	if (!merge->chunks)
		return error_nomem(err);
	for (uint64_t at = 0; at < node->size; at += extent.bytes) {
		int rc = erofs_reader_map(reader_of(merge, layer), node, at, &extent, err);

		for (uint64_t in = 0; !rc && in < extent.bytes; in += chunk_bytes)
			merge->chunks[(at + in) / chunk_bytes] =
				extent.place == EROFS_IN_HOLE ? EROFS_HOLE
							      : (uint32_t)((extent.at + in) / EROFS_BLOCK_BYTES);
		if (rc)
			return rc;
	}
	return erofs_merge_charge(merge, layer, node->chunk_count * sizeof(*merge->chunks), err);
}

static int copy_chunked(struct erofs_merge *merge, size_t layer, const struct erofs_node *node,
			const struct erofs_attributes *attributes, uint64_t *nid, struct cpull_error *err)
{
	struct erofs_elsewhere where = {.device = erofs_merge_device(merge, layer), .size = node->size,
					.chunks = (size_t)node->chunk_count, .bits = node->data & EROFS_CHUNK_BITS};
	int rc = take_chunks(merge, layer, node, (uint64_t)EROFS_BLOCK_BYTES << where.bits, err);

	where.map = merge->chunks;
	return rc ? rc : erofs_image_file_elsewhere(merge->image, attributes, &where, nid, err);
}

static int copy_file(struct erofs_merge *merge, size_t layer, const struct erofs_node *node,
		     const struct erofs_attributes *attributes, uint64_t *nid, struct cpull_error *err)
{
	if (!node->size || (node->layout == EROFS_FLAT_INLINE && node->size < EROFS_BLOCK_BYTES))
		return copy_small(merge, layer, node, attributes, nid, err);
	if (node->layout == EROFS_CHUNK_BASED)
		return copy_chunked(merge, layer, node, attributes, nid, err);
	return copy_flat(merge, layer, node, attributes, nid, err);
}

static int copy_symlink(struct erofs_merge *merge, size_t layer, const struct erofs_node *node,
			const struct erofs_attributes *attributes, uint64_t *nid, struct cpull_error *err)
{
	char target[LIMIT_PATH_BYTES];
	int rc = erofs_reader_link(reader_of(merge, layer), node, target, err);

	if (!rc)
		rc = erofs_merge_charge(merge, layer, node->size, err);
	return rc ? rc : erofs_image_symlink(merge->image, attributes, target, nid, err);
}

/* ---- inodes ---- */

static int copy_node(struct erofs_merge *merge, size_t layer, const struct erofs_node *node, uint64_t *nid,
		     struct cpull_error *err)
{
	struct erofs_attributes attributes;
	int rc = erofs_merge_charge(merge, layer, INODE_BYTES + node->xattr_bytes, err);

	if (!rc)
		rc = erofs_merge_attributes(merge, layer, node, &attributes, err);
	if (rc)
		return rc;
	if (S_ISREG(node->mode))
		rc = copy_file(merge, layer, node, &attributes, nid, err);
	else if (S_ISLNK(node->mode))
		rc = copy_symlink(merge, layer, node, &attributes, nid, err);
	else
		rc = erofs_image_node(merge->image, &attributes, major(node->rdev), minor(node->rdev), nid, err);
	if (!rc && node->nlink != 1)
		rc = erofs_image_set_links(merge->image, *nid, node->nlink, err);
	return rc;
}

int erofs_merge_copy(struct erofs_merge *merge, size_t layer, enum erofs_type type, uint64_t *nid,
		     struct cpull_error *err)
{
	uint64_t key = *nid << LAYER_BITS | (layer + 1);
	struct erofs_node node;
	int rc = erofs_merge_node(merge, layer, *nid, type, &node, err);

	if (rc)
		return rc;
	if (node.nlink < 2)
		return copy_node(merge, layer, &node, nid, err);
	*nid = map_get(&merge->links, key, 0);
	if (*nid)
		return 0;
	rc = copy_node(merge, layer, &node, nid, err);
	if (rc)
		return rc;
	/* LIMIT_EROFS_SPOOL_BYTES of slots have numbers of 31 bits */
	assert(*nid && *nid <= UINT32_MAX);
	return map_put(&merge->links, key, (uint32_t)*nid) ? error_nomem(err) : 0;
}
