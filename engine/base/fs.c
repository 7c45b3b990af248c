/* SPDX-License-Identifier: Apache-2.0
 *
 * File system work on trees of our own making. Any thread; holds nothing.
 */
#include "engine/base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/error.h"

int fs_make_dir(int dirfd, const char *name, mode_t mode, struct cpull_error *err)
{
	if (mkdirat(dirfd, name, mode) == 0 || errno == EEXIST)
		return 0;
	return error_sys(err, CPULL_ERR_STORAGE, errno, "making directory %s", name);
}

int fs_open_dir(int dirfd, const char *name)
{
	return openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

DIR *fs_list(int dirfd, const char *name)
{
	return fs_list_fd(fs_open_dir(dirfd, name));
}

DIR *fs_list_fd(int fd)
{
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir && fd >= 0) {
		int num = errno;

		close(fd);
		errno = num;
	}
	return dir;
}

const char *fs_next_name(DIR *dir)
{
	const struct dirent *entry;

	do {
		errno = 0;
		entry = readdir(dir);
	} while (entry && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
	return entry ? entry->d_name : NULL;
}

int fs_is_empty(int fd)
{
	CLEANUP_DIR DIR *dir = fs_list(fd, ".");

	if (!dir)
		return -errno;
	return fs_next_name(dir) ? 0 : errno ? -errno : 1;
}

/* ---- removing a tree ---- */

/* Level by level, with two descriptors and without recursion, whatever the depth: directories that are not empty are
 * moved up into the top one, under numbers, and emptied there. */
struct removal {
	DIR *top;
	unsigned long serial;
	fs_gone_fn gone; /* or NULL */
	void *payload;
};

static int removal_error(const char *name, int num, struct cpull_error *err)
{
	char quoted[NAME_MAX + 1];

	return error_sys(err, CPULL_ERR_STORAGE, num, "removing %s",
			 error_quote(name, strlen(name), quoted, sizeof(quoted)));
}

static void tell(const struct removal *r, int dirfd, const char *name)
{
	struct stat st;

	if (r->gone && fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
		r->gone(r->payload, st.st_ino);
}

/* Moves a directory into the top one under the next number that is free there. */
static int move_up(struct removal *r, int fd, const char *name, struct cpull_error *err)
{
	char number[32];

	do {
		snprintf(number, sizeof(number), ".%lu", ++r->serial);
		if (renameat(fd, name, dirfd(r->top), number) == 0 || errno == ENOENT)
			return 0; /* gone: another process sweeps the same tree */
	} while (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR);
	return removal_error(name, errno, err);
}

static int empty_dir(struct removal *r, DIR *dir, struct cpull_error *err)
{
	const char *name;
	int fd = dirfd(dir);

	while ((name = fs_next_name(dir))) {
		if (unlinkat(fd, name, 0) == 0 || errno == ENOENT)
			continue;
		if (errno != EISDIR && errno != EPERM)
			return removal_error(name, errno, err);
		tell(r, fd, name);
		if (unlinkat(fd, name, AT_REMOVEDIR) == 0 || dir == r->top)
			continue;

		int rc = move_up(r, fd, name, err);

		if (rc)
			return rc;
	}
	return errno ? error_sys(err, CPULL_ERR_STORAGE, errno, "listing a directory that is being removed") : 0;
}

/* Empties every directory that stands directly in the top one. *left counts those that were there. */
static int empty_children(struct removal *r, size_t *left, struct cpull_error *err)
{
	const char *name;

	*left = 0;
	rewinddir(r->top);
	while ((name = fs_next_name(r->top))) {
		CLEANUP_DIR DIR *dir = fs_list(dirfd(r->top), name);

		if (!dir && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
			return removal_error(name, errno, err);
		if (!dir)
			continue; /* removing what has them all says why */
		(*left)++;

		int rc = empty_dir(r, dir, err);

		if (rc)
			return rc;
		/* empty, and yet it stays (a mount point, an immutable one): the next round would find the same */
		if (unlinkat(dirfd(r->top), name, AT_REMOVEDIR) && errno != ENOENT && errno != ENOTEMPTY &&
		    errno != EEXIST)
			return removal_error(name, errno, err);
	}
	return 0;
}

int fs_remove_tree_telling(int dirfd, const char *name, fs_gone_fn gone, void *payload, struct cpull_error *err)
{
	struct removal r = {.gone = gone, .payload = payload};
	size_t left = 1;

	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	tell(&r, dirfd, name);
	if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0)
		return 0;

	CLEANUP_DIR DIR *top = fs_list(dirfd, name);

	if (!top)
		return removal_error(name, errno, err);
	r.top = top;
	while (left) {
		rewinddir(top);

		int rc = empty_dir(&r, top, err);

		if (!rc)
			rc = empty_children(&r, &left, err);
		if (rc)
			return rc;
	}
	if (unlinkat(dirfd, name, AT_REMOVEDIR) && errno != ENOENT)
		return removal_error(name, errno, err);
	return 0;
}

int fs_remove_tree(int dirfd, const char *name, struct cpull_error *err)
{
	return fs_remove_tree_telling(dirfd, name, NULL, NULL, err);
}

/* ---- writing ---- */

int fs_write_all(int fd, const void *data, size_t len, uint64_t offset)
{
	const uint8_t *at = data;

	while (len) {
		ssize_t n = pwrite(fd, at, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		at += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

/* overlayfs before 6.1, NFS and others have no files without a name. */
static int named_temp_file(int dirfd)
{
	char name[64];
	int fd;

	do {
		snprintf(name, sizeof(name), ".spool.%d.%lx", (int)getpid(), (unsigned long)now_ns());
		fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	} while (fd < 0 && errno == EEXIST);
	if (fd >= 0)
		unlinkat(dirfd, name, 0);
	return fd;
}

int fs_temp_file(int dirfd)
{
	int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	return fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR) ? named_temp_file(dirfd) : fd;
}

int fs_replace_file(int dirfd, const char *name, const void *data, size_t len, bool sync, struct cpull_error *err)
{
	char beside[NAME_MAX + 32];

	snprintf(beside, sizeof(beside), ".%s.%d.%lx", name, (int)getpid(), (unsigned long)now_ns());

	CLEANUP_FD int fd = openat(dirfd, beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "writing %s", name);

	int num = -fs_write_all(fd, data, len, 0);

	if (!num && sync && fsync(fd))
		num = errno;
	if (!num && renameat(dirfd, beside, dirfd, name))
		num = errno;
	if (num) {
		unlinkat(dirfd, beside, 0);
		return error_sys(err, CPULL_ERR_STORAGE, num, "writing %s", name);
	}
	if (sync && fsync(dirfd))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "syncing the directory of %s", name);
	return 0;
}

bool fs_same_file(int fd, int dirfd, const char *name)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && fstatat(dirfd, name, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}
