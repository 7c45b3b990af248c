/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing and recognizing overlayfs's whiteouts. Called by the layer writer and when loose ends are tied; owns nothing.
 *
 * Kernel facts: mknod of a 0:0 character device needs no privilege since 5.8, yet seccomp filters and device cgroups
 * may refuse it; whiteouts by attribute are known since 6.7, in directories with overlay.opaque = "x" only.
 */
#include "snapshot/whiteout.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"

#define TRUSTED_OPAQUE "trusted.overlay.opaque"
#define TRUSTED_WHITEOUT "trusted.overlay.whiteout"
#define USER_OPAQUE "user.overlay.opaque"
#define USER_WHITEOUT "user.overlay.whiteout"

/* trusted.* belongs to the initial user namespace; elsewhere overlayfs reads user.* (mount option userxattr). */
static int set_mark(struct tree *tree, int fd, const char *trusted, const char *user, const char *value)
{
	if (!tree->trusted_fails) {
		if (fsetxattr(fd, trusted, value, strlen(value), 0) == 0)
			return 0;
		if (errno != EPERM)
			return -errno;
		tree->trusted_fails = true;
	}
	return fsetxattr(fd, user, value, strlen(value), 0) ? -errno : 0;
}

static int mark_opaque(struct tree *tree, uint32_t dir, const char *value, struct cpull_error *err)
{
	CLEANUP_FD int fd = tree_open(tree, dir, LAYER_DIR_CONTENT);

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, -fd, "opening a directory to make it opaque");

	int rc = set_mark(tree, fd, TRUSTED_OPAQUE, USER_OPAQUE, value);

	if (rc)
		return error_sys(err, CPULL_ERR_XATTR, -rc, "making a directory opaque (hidden files would come back "
				 "without; the store's file system must take trusted.* or user.* attributes)");
	return 0;
}

int whiteout_opaque(struct tree *tree, uint32_t dir, unsigned how, struct cpull_error *err)
{
	struct tree_dir *d = &tree->dirs[dir];

	d->flags |= (uint16_t)how;
	if (d->flags & TREE_OPAQUE)
		return 0;
	d->flags |= TREE_OPAQUE;
	return mark_opaque(tree, dir, "y", err);
}

static int make_by_attribute(struct tree *tree, struct tree_place at, const char *name, struct cpull_error *err)
{
	if (!(tree->dirs[at.dir].flags & TREE_WHITEOUTS)) {
		int rc = mark_opaque(tree, at.dir, "x", err);

		if (rc)
			return rc;
	}

	CLEANUP_FD int fd = tree_openat(tree, at.fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "making a whiteout");

	int rc = set_mark(tree, fd, TRUSTED_WHITEOUT, USER_WHITEOUT, "y");

	if (rc)
		return error_sys(err, CPULL_ERR_XATTR, -rc, "making a whiteout (neither device node nor attribute "
				 "is permitted here)");
	return 0;
}

static int make(struct tree *tree, struct tree_place at, const char *name, struct cpull_error *err)
{
	int rc = 0;

	if (!tree->mknod_fails && mknodat(at.fd, name, S_IFCHR, makedev(0, 0))) {
		if (errno != EPERM)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "making a whiteout");
		tree->mknod_fails = true;
		log_info(tree->notes.log, "device nodes are not permitted here: whiteouts become attributes "
			 "(Linux 6.7 or later reads them)");
	}
	if (tree->mknod_fails)
		rc = make_by_attribute(tree, at, name, err);
	if (!rc)
		tree->dirs[at.dir].flags |= TREE_WHITEOUTS;
	return rc;
}

int whiteout_make(struct tree *tree, struct tree_place at, const char *name, struct cpull_error *err)
{
	struct stat st;

	if (fstatat(at.fd, name, &st, AT_SYMLINK_NOFOLLOW)) {
		if (errno != ENOENT)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "looking for what is whited out");
		/* below an opaque directory there is nothing to hide */
		if ((tree->dirs[at.dir].flags & TREE_OPAQUE) || tree_under_opaque(tree, at.dir))
			return 0;
		return make(tree, at, name, err);
	}
	if (whiteout_is(at.fd, name, &st))
		return 0;
	if (!S_ISDIR(st.st_mode)) {
		/* our file stays, but a directory that takes its name must not show the lower one's content */
		if (map_put(&tree->hidden, tree_name_key(tree, at.dir, name), 1))
			return error_nomem(err);
		return 0;
	}

	uint32_t dir = tree_find(tree, st.st_ino);

	if (dir == TREE_NONE)
		return error_set(err, CPULL_ERR_INTERNAL, "a directory that this layer did not make");
	return whiteout_opaque(tree, dir, TREE_RECREATED, err);
}

bool whiteout_is(int dirfd, const char *name, const struct stat *st)
{
	if (S_ISCHR(st->st_mode))
		return st->st_rdev == makedev(0, 0);
	if (!S_ISREG(st->st_mode) || st->st_size != 0)
		return false;

	char path[64 + LIMIT_PATH_BYTES];

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dirfd, name);
	return lgetxattr(path, TRUSTED_WHITEOUT, NULL, 0) >= 0 || lgetxattr(path, USER_WHITEOUT, NULL, 0) >= 0;
}

bool whiteout_is_opaque(int fd)
{
	char value = 0;

	return (fgetxattr(fd, TRUSTED_OPAQUE, &value, 1) == 1 && value == 'y') ||
	       (fgetxattr(fd, USER_OPAQUE, &value, 1) == 1 && value == 'y');
}

int whiteout_sweep_dir(struct tree *tree, uint32_t dir, struct cpull_error *err)
{
	int fd = tree_open(tree, dir, LAYER_DIR_CONTENT);
	CLEANUP_DIR DIR *list = fs_list_fd(fd);
	const char *name;
	struct stat st;

	if (!list)
		return error_sys(err, CPULL_ERR_STORAGE, fd < 0 ? -fd : errno, "opening an opaque directory");
	while ((name = fs_next_name(list))) {
		if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) || !whiteout_is(fd, name, &st))
			continue;
		if (unlinkat(fd, name, 0))
			return error_sys(err, CPULL_ERR_STORAGE, errno, "removing a whiteout from an opaque directory");
	}
	if (errno)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "listing an opaque directory");
	tree->dirs[dir].flags &= (uint16_t)~TREE_WHITEOUTS;
	tree->dirs[dir].flags |= TREE_TOUCHED;
	return 0;
}

int whiteout_sweep(struct tree *tree, struct cpull_error *err)
{
	for (uint32_t i = 0; i < tree->count; i++) {
		const struct tree_dir *d = &tree->dirs[i];

		if ((d->flags & TREE_DEAD) || !(d->flags & TREE_WHITEOUTS))
			continue;
		if (!(d->flags & TREE_OPAQUE) && !tree_under_opaque(tree, i))
			continue;

		int rc = whiteout_sweep_dir(tree, i, err);

		if (rc)
			return rc;
	}
	return 0;
}
