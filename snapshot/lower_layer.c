/* SPDX-License-Identifier: Apache-2.0
 *
 * Looking into one complete layer, by system calls or by the reader of EROFS images. Called while the layer above it is
 * tied, on that one's thread; owns nothing.
 */
#include "snapshot/lower_layer.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "snapshot/erofs_reader.h"
#include "snapshot/overlay_marks.h"

/* ---- a directory ---- */

static int dir_find(int dirfd, const char *path, struct lower_node *out)
{
	out->whiteout = false;
	if (!*path)
		return fstat(dirfd, &out->st) ? -errno : 0;
	if (fstatat(dirfd, path, &out->st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	out->whiteout = overlay_marks_whiteout(dirfd, path, &out->st);
	return 0;
}

static int dir_opaque(int dirfd, const char *path)
{
	CLEANUP_FD int fd = openat(dirfd, *path ? path : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : overlay_marks_opaque(fd);
}

static int dir_link(int dirfd, const char *path, char *out)
{
	ssize_t n = readlinkat(dirfd, path, out, LIMIT_PATH_BYTES);

	if (n < 0)
		return -errno;
	if (n == LIMIT_PATH_BYTES)
		return -ENAMETOOLONG;
	out[n] = 0;
	return 0;
}

/* ---- an image ---- */

static int image_error(int rc)
{
	return rc == CPULL_ERR_NOMEM ? -ENOMEM : -EIO;
}

static int image_node(struct erofs_reader *image, const char *path, struct erofs_node *out)
{
	*out = *erofs_reader_root(image);
	while (*path) {
		size_t len = strcspn(path, "/");

		if (!S_ISDIR(out->mode))
			return -ENOTDIR;
		if (len > LIMIT_NAME_BYTES)
			return -ENAMETOOLONG;

		int rc = erofs_reader_lookup(image, out, path, len, out, NULL);

		if (rc <= 0)
			return rc ? image_error(rc) : -ENOENT;
		path += len + (path[len] == '/');
	}
	return 0;
}

/* One of the two attributes. 1 when it is there, its value `value` unless that is 0; 0, or -errno. */
static int image_mark(struct erofs_reader *image, const struct erofs_node *node, const char *name, char value)
{
	char found = 0;
	size_t len;
	int rc = erofs_reader_xattr_get(image, node, name, &found, 1, &len, NULL);

	if (rc == CPULL_ERR_LIMIT) /* longer than the one byte */
		return value == 0;
	if (rc < 0)
		return image_error(rc);
	return rc && (!value || (len == 1 && found == value));
}

static int image_either_mark(struct erofs_reader *image, const struct erofs_node *node, const char *trusted,
			     const char *user, char value)
{
	int rc = image_mark(image, node, trusted, value);

	return rc ? rc : image_mark(image, node, user, value);
}

static int image_whiteout(struct erofs_reader *image, const struct erofs_node *node)
{
	if (S_ISCHR(node->mode))
		return node->rdev == 0;
	if (!S_ISREG(node->mode) || node->size)
		return 0;
	return image_either_mark(image, node, OVERLAY_TRUSTED_WHITEOUT, OVERLAY_USER_WHITEOUT, 0);
}

static int image_find(struct erofs_reader *image, const char *path, struct lower_node *out)
{
	struct erofs_node node;
	int rc = image_node(image, path, &node);

	if (rc)
		return rc;
	rc = image_whiteout(image, &node);
	if (rc < 0)
		return rc;
	out->whiteout = rc;
	out->st = (struct stat){
		.st_ino = node.nid,
		.st_mode = node.mode,
		.st_nlink = node.nlink,
		.st_uid = node.uid,
		.st_gid = node.gid,
		.st_rdev = node.rdev,
		.st_size = (off_t)node.size,
		.st_mtim = node.mtime,
	};
	return 0;
}

static int image_opaque(struct erofs_reader *image, const char *path)
{
	struct erofs_node node;
	int rc = image_node(image, path, &node);

	if (!rc && !S_ISDIR(node.mode))
		rc = -ENOTDIR;
	return rc ? rc : image_either_mark(image, &node, OVERLAY_TRUSTED_OPAQUE, OVERLAY_USER_OPAQUE, 'y');
}

static int image_link(struct erofs_reader *image, const char *path, char *out)
{
	struct erofs_node node;
	int rc = image_node(image, path, &node);

	if (!rc && !S_ISLNK(node.mode))
		rc = -EINVAL;
	if (rc)
		return rc;
	rc = erofs_reader_link(image, &node, out, NULL);
	return rc == CPULL_ERR_LIMIT ? -ENAMETOOLONG : rc ? image_error(rc) : 0;
}

/* ---- either ---- */

int lower_layer_find(const struct lower_layer *layer, const char *path, struct lower_node *out)
{
	return layer->image ? image_find(layer->image, path, out) : dir_find(layer->dirfd, path, out);
}

int lower_layer_opaque(const struct lower_layer *layer, const char *path)
{
	return layer->image ? image_opaque(layer->image, path) : dir_opaque(layer->dirfd, path);
}

int lower_layer_link(const struct lower_layer *layer, const char *path, char *out)
{
	return layer->image ? image_link(layer->image, path, out) : dir_link(layer->dirfd, path, out);
}
