/* SPDX-License-Identifier: Apache-2.0
 *
 * What a layer takes over from one below it, both of them images. Used by one layer's writer on its thread when loose
 * ends are tied; owns nothing. The lower image is read without a mount, and may have been damaged meanwhile.
 */
#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "engine/base/error.h"
#include "snapshot/erofs_fs_internal.h"
#include "snapshot/erofs_reader.h"

#define COPY_BYTES ((size_t)256 << 10)
/* Of a file's extended attributes: their names are longer here than in an image. */
#define XATTRS_BYTES (2u * LIMIT_EROFS_XATTRS_BYTES)

struct lower_xattrs {
	struct bytes text; /* for each a name with its NUL, and a value */
	struct tar_xattr xattrs[LIMIT_XATTRS];
	size_t count;
	uint8_t value[UINT16_MAX];
};

static void free_xattrs(struct lower_xattrs **x)
{
	if (*x)
		bytes_free(&(*x)->text);
	free(*x);
}

static int lower_error(int rc, struct cpull_error *err)
{
	return rc && err ? error_wrap(err, "the lower layer's file") : rc;
}

static int find_lower(const struct lower_layer *from, const char *path, struct erofs_node *out,
		      struct cpull_error *err)
{
	int rc = erofs_reader_find(from->image, path, out, err);

	if (rc < 0)
		return lower_error(rc, err);
	return rc ? 0 : error_sys(err, CPULL_ERR_STORAGE, ENOENT, "finding the lower layer's file");
}

static int take_xattr(struct erofs_reader *image, const struct erofs_xattrs *at, struct lower_xattrs *x,
		      struct cpull_error *err)
{
	/* its own place in the stack says whether a directory is opaque */
	if (strncmp(at->name, "trusted.overlay.", strlen("trusted.overlay.")) == 0)
		return 0;
	if (x->count == LIMIT_XATTRS)
		return error_set(err, CPULL_ERR_LIMIT, "it has more than %u extended attributes", LIMIT_XATTRS);

	int rc = erofs_reader_xattr_value(image, at, x->value, err);

	if (rc)
		return rc;
	/* places come once the text does not move any more */
	x->xattrs[x->count++] = (struct tar_xattr){.len = at->value_len};
	rc = bytes_append(&x->text, at->name, at->name_len + 1, XATTRS_BYTES);
	if (!rc)
		rc = bytes_append(&x->text, x->value, at->value_len, XATTRS_BYTES);
	if (rc == CPULL_ERR_LIMIT)
		return error_set(err, rc, "its extended attributes take more than %u bytes", XATTRS_BYTES);
	return rc ? error_nomem(err) : 0;
}

static int read_xattrs(struct erofs_reader *image, const struct erofs_node *node, struct lower_xattrs **out,
		       struct cpull_error *err)
{
	struct lower_xattrs *x = *out = calloc(1, sizeof(*x));
	struct erofs_xattrs at;
	int rc;

	if (!x)
		return error_nomem(err);
	erofs_reader_xattrs(node, &at);
	while ((rc = erofs_reader_xattr_next(image, &at, err)) > 0) {
		rc = take_xattr(image, &at, x, err);
		if (rc)
			break;
	}
	if (rc)
		return lower_error(rc, err);

	char *text = x->text.data;

	for (size_t i = 0; i < x->count; i++) {
		x->xattrs[i].name = text;
		text += strlen(text) + 1;
		x->xattrs[i].value = (const uint8_t *)text;
		text += x->xattrs[i].len;
	}
	return 0;
}

int erofs_fs_inherit(struct layer_fs *fs, int dir, const struct lower_layer *from, const char *path,
		     struct cpull_error *err)
{
	__attribute__((cleanup(free_xattrs))) struct lower_xattrs *x = NULL;
	struct erofs_node node;
	int rc = find_lower(from, path, &node, err);

	if (!rc && node.xattr_bytes)
		rc = read_xattrs(from->image, &node, &x, err);
	if (rc || !x)
		return rc;
	return fs->ops->set_xattrs(fs, dir, x->xattrs, x->count, ATTRIBUTES_ALL, false, err);
}

/* ---- files ---- */

static int copy_extent(struct erofs_fs *fs, struct erofs_reader *image, const struct erofs_node *node, uint64_t offset,
		       uint64_t bytes, uint8_t *piece, struct cpull_error *err)
{
	while (bytes) {
		size_t len = (size_t)MIN(bytes, COPY_BYTES), got;
		int rc = lower_error(erofs_reader_read(image, node, piece, len, offset, &got, err), err);

		if (rc)
			return rc;
		if (got < len)
			return error_set(err, CPULL_ERR_STORAGE, "the lower layer's file ends too early");

		const struct tar_data data = {.data = piece, .len = len, .offset = offset};

		rc = erofs_image_file_data(fs->image, &data, err);
		if (rc)
			return rc;
		offset += len;
		bytes -= len;
	}
	return 0;
}

static int copy_data(struct erofs_fs *fs, struct erofs_reader *image, const struct erofs_node *node,
		     struct cpull_error *err)
{
	CLEANUP_FREE uint8_t *piece = malloc(COPY_BYTES);
	struct erofs_extent extent;

	if (!piece)
		return error_nomem(err);
	for (uint64_t at = 0; at < node->size; at += extent.bytes) {
		int rc = lower_error(erofs_reader_map(image, node, at, &extent, err), err);

		if (!rc && extent.place != EROFS_IN_HOLE)
			rc = copy_extent(fs, image, node, at, extent.bytes, piece, err);
		if (rc)
			return rc;
	}
	return 0;
}

static int copy_file(struct erofs_fs *fs, struct erofs_reader *image, const struct erofs_node *node,
		     const struct erofs_attributes *attributes, uint64_t *nid, struct cpull_error *err)
{
	bool sparse = node->layout == EROFS_CHUNK_BASED;
	int rc = erofs_image_file_begin(fs->image, attributes, node->size, sparse, err);

	if (!rc)
		rc = copy_data(fs, image, node, err);
	return rc ? rc : erofs_image_file_end(fs->image, nid, err);
}

/* target: of a symlink. */
static int copy_node(struct erofs_fs *fs, struct erofs_reader *image, const struct erofs_node *node,
		     const struct erofs_attributes *attributes, char *target, uint64_t *nid, struct cpull_error *err)
{
	int rc;

	switch (node->mode & S_IFMT) {
	case S_IFREG:
		return copy_file(fs, image, node, attributes, nid, err);
	case S_IFLNK:
		rc = lower_error(erofs_reader_link(image, node, target, err), err);
		return rc ? rc : erofs_image_symlink(fs->image, attributes, target, nid, err);
	case S_IFDIR:
		return error_sys(err, CPULL_ERR_STORAGE, EISDIR, "copying the lower layer's file");
	default:
		return erofs_image_node(fs->image, attributes, major(node->rdev), minor(node->rdev), nid, err);
	}
}

int erofs_fs_copy(struct layer_fs *fs, const struct lower_layer *from, const char *path, const struct stat *st,
		  int dir, const char *name, struct cpull_error *err)
{
	__attribute__((cleanup(free_xattrs))) struct lower_xattrs *x = NULL;
	struct erofs_fs *self = erofs_fs(fs);
	char target[LIMIT_PATH_BYTES];
	struct erofs_node node;
	uint64_t nid;

	(void)st;
	if (erofs_names_find(&self->names, (uint32_t)dir, name) != EROFS_NO_NAME)
		return 1;

	int rc = find_lower(from, path, &node, err);

	if (!rc && node.xattr_bytes)
		rc = read_xattrs(from->image, &node, &x, err);
	if (rc)
		return rc;

	const struct erofs_attributes attributes = {.mode = node.mode, .uid = node.uid, .gid = node.gid,
						    .mtime = node.mtime, .xattrs = x ? x->xattrs : NULL,
						    .xattr_count = x ? x->count : 0};
	enum erofs_type type = (enum erofs_type)erofs_type_of(node.mode);

	rc = copy_node(self, from->image, &node, &attributes, target, &nid, err);
	return rc ? rc : erofs_fs_add_made(self, dir, name, type, nid, type == EROFS_SYMLINK ? target : NULL, err);
}
