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
	int fd = fs_open_dir(dirfd, name);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir && fd >= 0)
		close(fd);
	return dir;
}

static bool is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Moves a directory into `top` under the next number that is free there. */
static int move_up(int fd, const char *name, int top, unsigned long *serial)
{
	char number[32];

	do {
		snprintf(number, sizeof(number), ".%lu", ++*serial);
		if (renameat(fd, name, top, number) == 0 || errno == ENOENT)
			return 0; /* gone: another process sweeps the same tree */
	} while (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR);
	return -1;
}

/* Empties one directory: what cannot be removed at once (a directory with content) is moved into `top` under a
 * number, so that a tree of any depth is taken down level by level with two descriptors and no recursion. */
static int empty_dir(int top, int fd, bool is_top, unsigned long *serial, struct cpull_error *err)
{
	CLEANUP_DIR DIR *dir = fs_list(fd, ".");

	if (!dir)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "listing a directory that is being removed");
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(dir);

		if (!entry)
			return errno ? error_sys(err, CPULL_ERR_STORAGE, errno, "listing a directory that is being removed")
				     : 0;
		if (is_dot(entry->d_name) || unlinkat(fd, entry->d_name, 0) == 0 || errno == ENOENT)
			continue;
		if (errno != EISDIR && errno != EPERM)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "removing %s", entry->d_name);
		if (unlinkat(fd, entry->d_name, AT_REMOVEDIR) == 0 || is_top)
			continue;

		if (move_up(fd, entry->d_name, top, serial))
			return error_sys(err, CPULL_ERR_STORAGE, errno, "removing %s", entry->d_name);
	}
}

/* Empties every directory that stands directly in `top`. *left counts those that were there. */
static int empty_children(int top, unsigned long *serial, size_t *left, struct cpull_error *err)
{
	CLEANUP_DIR DIR *dir = fs_list(top, ".");
	const struct dirent *entry;

	if (!dir)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "listing a directory that is being removed");
	*left = 0;
	while ((entry = readdir(dir))) {
		if (is_dot(entry->d_name))
			continue;

		CLEANUP_FD int fd = fs_open_dir(top, entry->d_name);

		if (fd < 0)
			continue; /* the caller's next pass of empty_dir() says why */
		(*left)++;

		int rc = empty_dir(top, fd, false, serial, err);

		if (rc)
			return rc;
		unlinkat(top, entry->d_name, AT_REMOVEDIR);
	}
	return 0;
}

int fs_remove_tree(int dirfd, const char *name, struct cpull_error *err)
{
	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0)
		return 0;

	CLEANUP_FD int top = fs_open_dir(dirfd, name);
	unsigned long serial = 0;
	size_t left = 1;

	if (top < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "removing %s", name);
	while (left) {
		int rc = empty_dir(top, top, true, &serial, err);

		if (!rc)
			rc = empty_children(top, &serial, &left, err);
		if (rc)
			return rc;
	}
	if (unlinkat(dirfd, name, AT_REMOVEDIR) && errno != ENOENT)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "removing %s", name);
	return 0;
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

int fs_replace_file(int dirfd, const char *name, const void *data, size_t len, bool sync, struct cpull_error *err)
{
	char beside[NAME_MAX + 32];

	snprintf(beside, sizeof(beside), ".%s.%d.%lx", name, (int)getpid(), (unsigned long)now_ns());

	CLEANUP_FD int fd = openat(dirfd, beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "writing %s", name);

	int num = -write_all(fd, data, len);

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
