/* SPDX-License-Identifier: Apache-2.0
 *
 * A layer's directories, names and whiteouts by system calls; files are dir_writer.c's. Called on the thread of one
 * layer's writer; owns the descriptors it gives out until they are closed, borrows the layer's root.
 *
 * Nothing here can reach outside the root: paths are resolved by resolve.c, and everything else is a single name in
 * an open directory. For want of descriptors (EMFILE, ENFILE) those are closed that can be opened again.
 *
 * Kernel facts: mknod of a 0:0 character device needs no privilege since 5.8, yet seccomp filters and device cgroups
 * may refuse it; whiteouts by attribute are known since 6.7, in directories with overlay.opaque = "x" only.
 */
#include "snapshot/dir_fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "engine/base/error.h"
#include "snapshot/overlay_marks.h"

/* ---- descriptors ---- */

bool dir_fs_give_way(struct dir_fs *dir, int num)
{
	if (num != EMFILE && num != ENFILE)
		return false;

	bool closed = dir->jobs && file_jobs_give_way(dir->jobs);

	return (dir->fs.give_way && dir->fs.give_way(dir->fs.give_way_payload, num)) || closed;
}

int dir_fs_openat(struct dir_fs *dir, int dirfd, const char *name, int flags, mode_t mode)
{
	int fd;

	do
		fd = openat(dirfd, name, flags | O_CLOEXEC, mode);
	while (fd < 0 && dir_fs_give_way(dir, errno));
	return fd;
}

/* ---- directories ---- */

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
	struct dir_fs *dir = dir_fs(fs);
	int fd;

	do
		fd = resolve_dir(&dir->root, path);
	while (fd < 0 && dir_fs_give_way(dir, -fd));
	return fd;
}

static int follow_making(struct layer_fs *fs, const char *path, resolve_missing_fn missing, void *payload)
{
	struct dir_fs *dir = dir_fs(fs);
	int fd;

	do
		fd = resolve_walk(&dir->root, path, missing, payload);
	while (fd < 0 && dir_fs_give_way(dir, -fd));
	return fd;
}

static int open_dir(struct layer_fs *fs, const char *path, enum layer_dir_use use)
{
	struct dir_fs *dir = dir_fs(fs);
	/* an O_PATH descriptor is enough for names, and can neither be listed nor changed */
	int fd, flags = (use == LAYER_DIR_NAMES ? O_PATH : O_RDONLY) | O_DIRECTORY;

	do
		fd = resolve_plain(&dir->root, path, flags);
	while (fd < 0 && dir_fs_give_way(dir, -fd));
	return fd;
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

static int make_dir(struct layer_fs *fs, int dir, const char *name, struct stat *out)
{
	if (mkdirat(dir, name, 0700))
		return -errno;
	if ((dir_fs(fs)->self.umask & 0700) && fchmodat(dir, name, 0700, 0))
		return -errno;
	return fstatat(dir, name, out, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int list_dir(struct layer_fs *fs, int dir, layer_each_fn each, void *payload, struct cpull_error *err)
{
	CLEANUP_DIR DIR *list = fs_list_fd(dir_fs_openat(dir_fs(fs), dir, ".", O_RDONLY | O_DIRECTORY, 0));
	const char *name;
	int rc = 0;

	if (!list)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "listing a directory");
	while (rc >= 0 && (name = fs_next_name(list)))
		rc = each(payload, name, err);
	if (rc >= 0 && errno)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "listing a directory");
	return MIN(rc, 0);
}

static int set_xattrs(struct layer_fs *fs, int dir, const struct tar_xattr *xattrs, size_t count,
		      enum attributes_part part, bool replace, struct cpull_error *err)
{
	const struct attributes_file file = {.fd = dir, .type = S_IFDIR};
	int rc = replace ? attributes_clear(dir, err) : 0;

	return rc ? rc : attributes_set(&file, xattrs, count, part, &fs->notes, err);
}

static int set_stat(struct layer_fs *fs, int dir, uid_t uid, gid_t gid, mode_t mode, struct timespec mtime,
		    struct cpull_error *err)
{
	(void)fs;
	return attributes_set_stat(dir, uid, gid, mode, mtime, err);
}

static int inherit(struct layer_fs *fs, int dir, const struct lower_layer *from, const char *path,
		   struct cpull_error *err)
{
	const struct attributes_file file = {.fd = dir, .type = S_IFDIR};
	CLEANUP_FD int fd = dir_fs_openat(dir_fs(fs), from->dirfd, *path ? path : ".",
					  O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening it to copy attributes");
	return attributes_copy(fd, &file, &fs->notes, err);
}

/* ---- names ---- */

static int stat_name(struct layer_fs *fs, int dir, const char *name, struct stat *out)
{
	(void)fs;
	return fstatat(dir, name, out, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int read_link(struct layer_fs *fs, int dir, const char *name, char *out)
{
	ssize_t n = readlinkat(dir, name, out, LIMIT_PATH_BYTES);

	(void)fs;
	if (n < 0)
		return -errno;
	if (n == LIMIT_PATH_BYTES)
		return -ENAMETOOLONG;
	out[n] = 0;
	return 0;
}

static int unlink_name(struct layer_fs *fs, int dir, const char *name)
{
	(void)fs;
	return unlinkat(dir, name, 0) ? -errno : 0;
}

static int remove_tree(struct layer_fs *fs, int dir, const char *name, fs_gone_fn gone, void *payload,
		       struct cpull_error *err)
{
	struct cpull_error own = {0};
	int rc;

	do
		rc = fs_remove_tree_telling(dir, name, gone, payload, &own);
	while (rc && dir_fs_give_way(dir_fs(fs), own.sys_errno));
	if (rc && err)
		*err = own;
	return rc;
}

static int remove_dir(struct layer_fs *fs, int dir, const char *name)
{
	(void)fs;
	return unlinkat(dir, name, AT_REMOVEDIR) ? -errno : 0;
}

static int rename_name(struct layer_fs *fs, int from, const char *from_name, int to, const char *to_name)
{
	struct stat st;
	int rc;

	if (renameat2(from, from_name, to, to_name, RENAME_NOREPLACE) == 0)
		return 0;
	/* file systems and filters that do not know the flag, NFS for one: nobody else is in the layer */
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	rc = stat_name(fs, to, to_name, &st);
	if (rc != -ENOENT)
		return rc ? rc : -EEXIST;
	return renameat(from, from_name, to, to_name) ? -errno : 0;
}

/* ---- whiteouts ---- */

static int set_mark(struct dir_fs *dir, int fd, const char *trusted, const char *user, const char *value)
{
	if (!dir->trusted_fails) {
		if (fsetxattr(fd, trusted, value, strlen(value), 0) == 0)
			return 0;
		if (errno != EPERM)
			return -errno;
		dir->trusted_fails = true;
	}
	return fsetxattr(fd, user, value, strlen(value), 0) ? -errno : 0;
}

static int mark_opaque(struct dir_fs *dir, int fd, const char *value, struct cpull_error *err)
{
	int rc = set_mark(dir, fd, OVERLAY_TRUSTED_OPAQUE, OVERLAY_USER_OPAQUE, value);

	if (rc)
		return error_sys(err, CPULL_ERR_XATTR, -rc, "making a directory opaque (hidden files would come back "
				 "without; the store's file system must take trusted.* or user.* attributes)");
	return 0;
}

static int set_opaque(struct layer_fs *fs, int dir, struct cpull_error *err)
{
	return mark_opaque(dir_fs(fs), dir, "y", err);
}

/* Says of the directory that files in it may be whiteouts. */
static int expect_whiteouts(struct dir_fs *dir, int at, struct cpull_error *err)
{
	CLEANUP_FD int fd = dir_fs_openat(dir, at, ".", O_RDONLY | O_DIRECTORY, 0);

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening a directory to make it opaque");
	return mark_opaque(dir, fd, "x", err);
}

static int whiteout_by_attribute(struct dir_fs *dir, int at, const char *name, bool first, struct cpull_error *err)
{
	int rc = first ? expect_whiteouts(dir, at, err) : 0;

	if (rc)
		return rc;

	CLEANUP_FD int fd = dir_fs_openat(dir, at, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "making a whiteout");
	rc = set_mark(dir, fd, OVERLAY_TRUSTED_WHITEOUT, OVERLAY_USER_WHITEOUT, "y");
	if (rc)
		return error_sys(err, CPULL_ERR_XATTR, -rc, "making a whiteout (neither device node nor attribute "
				 "is permitted here)");
	return 0;
}

static int make_whiteout(struct layer_fs *fs, int at, const char *name, bool first, struct cpull_error *err)
{
	struct dir_fs *dir = dir_fs(fs);

	if (!dir->mknod_fails) {
		if (mknodat(at, name, S_IFCHR, makedev(0, 0)) == 0)
			return 0;
		if (errno != EPERM)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "making a whiteout");
		dir->mknod_fails = true;
		log_info(fs->notes.log, "device nodes are not permitted here: whiteouts become attributes "
			 "(Linux 6.7 or later reads them)");
	}
	return whiteout_by_attribute(dir, at, name, first, err);
}

static bool is_whiteout(struct layer_fs *fs, int dir, const char *name, const struct stat *st)
{
	(void)fs;
	return overlay_marks_whiteout(dir, name, st);
}

/* ---- life ---- */

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

static int nothing(struct layer_fs *fs, struct cpull_error *err)
{
	(void)fs;
	(void)err;
	return 0;
}

static void free_fs(struct layer_fs *fs)
{
	dir_writer_destroy(dir_fs(fs));
	free(dir_fs(fs));
}

static const struct layer_fs_ops dir_fs_ops = {
	.reset_root = reset_root,
	.follow = follow,
	.follow_making = follow_making,
	.open = open_dir,
	.close = close_dir,
	.stat_dir = stat_dir,
	.mkdir = make_dir,
	.list = list_dir,
	.set_xattrs = set_xattrs,
	.set_stat = set_stat,
	.set_opaque = set_opaque,
	.inherit = inherit,
	.stat = stat_name,
	.read_link = read_link,
	.unlink = unlink_name,
	.rmdir = remove_dir,
	.remove_tree = remove_tree,
	.rename = rename_name,
	.make_whiteout = make_whiteout,
	.is_whiteout = is_whiteout,
	.file_open = dir_writer_open,
	.file_is_open = dir_writer_is_open,
	.file_data = dir_writer_data,
	.file_close = dir_writer_close,
	.yield = dir_writer_yield,
	.hand_over = dir_writer_hand_over,
	.wait = dir_writer_wait,
	.symlink = dir_writer_symlink,
	.node = dir_writer_node,
	.link = dir_writer_link,
	.copy = dir_writer_copy,
	.restat = dir_writer_restat,
	.end_files = dir_writer_end_files,
	.rest = nothing,
	.finish = nothing,
	.free = free_fs,
};

int dir_fs_new(const struct dir_fs_options *options, struct layer_fs **out, struct cpull_error *err)
{
	struct dir_fs *dir = calloc(1, sizeof(*dir));

	if (!dir)
		return error_nomem(err);
	dir->fs = (struct layer_fs){.ops = &dir_fs_ops, .root = options->dirfd, .notes.log = options->log};
	dir->root.fd = options->dirfd;
	dir->self = (struct attributes_self){
		.uid = (uid_t)setfsuid((uid_t)-1), .gid = (gid_t)setfsgid((gid_t)-1), .umask = read_umask()};

	int rc = dir_writer_init(dir, options, err);

	if (rc)
		free_fs(&dir->fs);
	else
		*out = &dir->fs;
	return rc;
}
