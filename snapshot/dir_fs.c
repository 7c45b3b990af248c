/* SPDX-License-Identifier: Apache-2.0
 *
 * A layer's directories by system calls. Called by tree.c on the thread of one layer's writer; owns the descriptors it
 * gives out until they are closed, borrows the layer's root.
 *
 * Nothing here can reach outside the root: paths are resolved by resolve.c, and everything else is a single name in
 * an open directory. Want of descriptors (EMFILE, ENFILE) is the caller's, who has some that can be closed.
 */
#include "snapshot/dir_fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/xattr.h>

#include "engine/base/error.h"

static struct dir_fs *dir_fs(struct layer_fs *fs)
{
	return (struct dir_fs *)((char *)fs - offsetof(struct dir_fs, fs));
}

/* The umask cannot be asked without being set, except here. */
static mode_t read_umask(void)
{
	char text[512];
	unsigned mask;
	CLEANUP_FD int fd = open("/proc/thread-self/status", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (n <= 0)
		return 07777;
	text[n] = 0;

	const char *line = strstr(text, "\nUmask:");

	return line && sscanf(line, "\nUmask: %o", &mask) == 1 ? (mode_t)mask : 07777;
}

/* What the store's directories hand down to new ones must not end up in a layer. */
static int reset_root(struct layer_fs *fs, struct stat *st, struct cpull_error *err)
{
	const struct attributes_self *self = &dir_fs(fs)->self;
	CLEANUP_FD int fd = openat(fs->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, st))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening the layer's directory");
	if ((st->st_uid != self->uid || st->st_gid != self->gid) && fchown(fd, self->uid, self->gid))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "setting the owner of the layer's directory");
	if ((st->st_mode & 07700) != 0700 && fchmod(fd, 0700))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "setting the mode of the layer's directory");
	if (fremovexattr(fd, "system.posix_acl_default") && errno != ENODATA && errno != EOPNOTSUPP)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "removing the default ACL of the layer's directory");
	return 0;
}

static int follow(struct layer_fs *fs, const char *path)
{
	return resolve_dir(&dir_fs(fs)->root, path);
}

static int follow_making(struct layer_fs *fs, const char *path, resolve_missing_fn missing, void *payload)
{
	return resolve_walk(&dir_fs(fs)->root, path, missing, payload);
}

static int open_dir(struct layer_fs *fs, const char *path, enum layer_dir_use use)
{
	/* an O_PATH descriptor is enough for names, and can neither be listed nor changed */
	return resolve_plain(&dir_fs(fs)->root, path, (use == LAYER_DIR_NAMES ? O_PATH : O_RDONLY) | O_DIRECTORY);
}

static void close_dir(struct layer_fs *fs, int dir)
{
	(void)fs;
	close(dir);
}

static int stat_dir(struct layer_fs *fs, int dir, struct stat *out)
{
	(void)fs;
	return fstat(dir, out) ? -errno : 0;
}

static int stat_name(struct layer_fs *fs, int dir, const char *name, struct stat *out)
{
	(void)fs;
	return fstatat(dir, name, out, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int make_dir(struct layer_fs *fs, int dir, const char *name, struct stat *out)
{
	if (mkdirat(dir, name, 0700))
		return -errno;
	if ((dir_fs(fs)->self.umask & 0700) && fchmodat(dir, name, 0700, 0))
		return -errno;
	return stat_name(fs, dir, name, out);
}

static int unlink_name(struct layer_fs *fs, int dir, const char *name)
{
	(void)fs;
	return unlinkat(dir, name, 0) ? -errno : 0;
}

static int remove_tree(struct layer_fs *fs, int dir, const char *name, fs_gone_fn gone, void *payload,
		       struct cpull_error *err)
{
	(void)fs;
	return fs_remove_tree_telling(dir, name, gone, payload, err);
}

static int set_xattrs(struct layer_fs *fs, int dir, const struct tar_xattr *xattrs, size_t count,
		      enum attributes_part part, bool replace, struct attributes_notes *notes,
		      struct cpull_error *err)
{
	const struct attributes_file file = {.fd = dir, .type = S_IFDIR};
	int rc = replace ? attributes_clear(dir, err) : 0;

	(void)fs;
	return rc ? rc : attributes_set(&file, xattrs, count, part, notes, err);
}

static int set_stat(struct layer_fs *fs, int dir, uid_t uid, gid_t gid, mode_t mode, struct timespec mtime,
		    struct cpull_error *err)
{
	(void)fs;
	return attributes_set_stat(dir, uid, gid, mode, mtime, err);
}

static const struct layer_fs_ops dir_fs_ops = {
	.reset_root = reset_root,
	.follow = follow,
	.follow_making = follow_making,
	.open = open_dir,
	.close = close_dir,
	.stat_dir = stat_dir,
	.stat = stat_name,
	.mkdir = make_dir,
	.unlink = unlink_name,
	.remove_tree = remove_tree,
	.set_xattrs = set_xattrs,
	.set_stat = set_stat,
};

void dir_fs_init(struct dir_fs *out, int dirfd)
{
	*out = (struct dir_fs){
		.fs = {.ops = &dir_fs_ops, .root = dirfd},
		.root = {.fd = dirfd},
		.self = {.uid = (uid_t)setfsuid((uid_t)-1), .gid = (gid_t)setfsgid((gid_t)-1), .umask = read_umask()},
	};
}
