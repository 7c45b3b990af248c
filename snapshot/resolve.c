/* SPDX-License-Identifier: Apache-2.0
 *
 * Path resolution confined to a root. Called by the layer writer and the overlay code on their threads; owns nothing
 * but the descriptors it returns.
 *
 * Kernel facts: openat2 is there since 5.6; seccomp filters answer ENOSYS or EPERM; RESOLVE_IN_ROOT gives EAGAIN when a
 * rename anywhere on the machine raced with a "..".
 */
#include "snapshot/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>

#include "snapshot/path_text.h"

#define STEP_FLAGS (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define EAGAIN_TRIES 16

/* The descriptor, -errno, or -ENOSYS when the caller has to do without. */
static int open2(struct resolve_root *root, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
			       .resolve = resolve | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV};

	if (root->no_openat2)
		return -ENOSYS;
	for (int i = 0; i < EAGAIN_TRIES; i++) {
		int fd = (int)syscall(SYS_openat2, root->fd, *path ? path : ".", &how, sizeof(how));

		if (fd >= 0)
			return fd;
		if (errno == ENOSYS || errno == EPERM) {
			root->no_openat2 = true;
			return -ENOSYS;
		}
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
	}
	return -ENOSYS;
}

struct walk {
	struct resolve_root *root;
	int fd;       /* the directory we are in, or -1 when `path` has to be opened first */
	char path[LIMIT_PATH_BYTES]; /* where that is: no symlink in it */
	size_t len;
	struct path_text todo;
	unsigned steps;
};

static void leave(struct walk *walk, int fd)
{
	if (walk->fd >= 0)
		close(walk->fd);
	walk->fd = fd;
}

static int step_limit(struct walk *walk)
{
	return ++walk->steps > PATH_TEXT_STEPS ? -ELOOP : 0;
}

/* Component by component from the root, no symlink followed. */
static int open_steps(struct resolve_root *root, const char *path, int flags)
{
	char name[LIMIT_NAME_BYTES + 1];
	int fd = openat(root->fd, ".", *path ? STEP_FLAGS : flags | O_NOFOLLOW | O_CLOEXEC);

	while (fd >= 0 && *path) {
		size_t len = strcspn(path, "/");

		if (len > LIMIT_NAME_BYTES) {
			close(fd);
			return -ENAMETOOLONG;
		}
		memcpy(name, path, len);
		name[len] = 0;
		path += len + (path[len] == '/');

		int next = openat(fd, name, *path ? STEP_FLAGS : flags | O_NOFOLLOW | O_CLOEXEC);
		int num = errno;

		close(fd);
		errno = num;
		fd = next;
	}
	return fd >= 0 ? fd : -errno;
}

int resolve_plain(struct resolve_root *root, const char *path, int flags)
{
	int fd = open2(root, path, flags | O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);

	return fd == -ENOSYS ? open_steps(root, path, flags) : fd;
}

/* The descriptor of where we are. */
static int here(struct walk *walk)
{
	if (walk->fd < 0)
		walk->fd = resolve_plain(walk->root, walk->path, STEP_FLAGS);
	return walk->fd;
}

static int go_down(struct walk *walk, const char *name, int fd)
{
	size_t n = strlen(name);

	if (walk->len + 1 + n >= sizeof(walk->path)) {
		close(fd);
		return -ENAMETOOLONG;
	}
	if (walk->len)
		walk->path[walk->len++] = '/';
	memcpy(walk->path + walk->len, name, n + 1);
	walk->len += n;
	leave(walk, fd);
	return 0;
}

static void go_up(struct walk *walk)
{
	while (walk->len && walk->path[--walk->len] != '/')
		;
	walk->path[walk->len] = 0;
	leave(walk, -1);
}

static void to_root(struct walk *walk)
{
	walk->len = 0;
	walk->path[0] = 0;
	leave(walk, -1);
}

/* 1: the rest of the path begins at the root, -EINVAL: no symlink has the name. */
static int follow_link(struct walk *walk, int dirfd, const char *name)
{
	char *out = path_text_room(&walk->todo);
	ssize_t n = readlinkat(dirfd, name, out, LIMIT_PATH_BYTES);

	if (n < 0)
		return -errno;
	if (n == LIMIT_PATH_BYTES)
		return -ENAMETOOLONG;
	out[n] = 0;
	return path_text_push(&walk->todo);
}

static int step(struct walk *walk, const char *name, resolve_missing_fn missing, void *payload)
{
	int dirfd = here(walk);

	if (dirfd < 0)
		return dirfd;

	int fd = openat(dirfd, name, STEP_FLAGS);

	if (fd >= 0)
		return go_down(walk, name, fd);
	if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
		return -errno;

	int why = -errno;
	int rc = follow_link(walk, dirfd, name);

	if (rc == 1)
		to_root(walk);
	if (rc != -ENOENT && rc != -EINVAL)
		return MIN(rc, 0);
	rc = missing ? missing(payload, dirfd, name) : why;
	if (rc)
		return rc;
	fd = openat(dirfd, name, STEP_FLAGS);
	return fd >= 0 ? go_down(walk, name, fd) : -errno;
}

static int run(struct walk *walk, resolve_missing_fn missing, void *payload)
{
	char name[LIMIT_NAME_BYTES + 1];
	int rc;

	while ((rc = path_text_next(&walk->todo, name)) > 0) {
		rc = step_limit(walk);
		if (rc)
			return rc;
		if (strcmp(name, "..") == 0) {
			go_up(walk);
			continue;
		}
		rc = step(walk, name, missing, payload);
		if (rc)
			return rc;
	}
	return rc < 0 ? rc : here(walk);
}

int resolve_walk(struct resolve_root *root, const char *path, resolve_missing_fn missing, void *payload)
{
	/* on the heap: 20 KB are much for an embedder's thread */
	CLEANUP_FREE struct walk *walk = malloc(sizeof(*walk));

	if (!walk)
		return -ENOMEM;
	walk->root = root;
	walk->fd = -1;
	walk->path[0] = 0;
	walk->len = walk->steps = 0;

	int rc = path_text_init(&walk->todo, path);

	if (!rc)
		rc = run(walk, missing, payload);

	if (rc < 0)
		leave(walk, -1);
	return rc;
}

int resolve_dir(struct resolve_root *root, const char *path)
{
	int fd = open2(root, path, O_PATH | O_DIRECTORY, RESOLVE_IN_ROOT);

	return fd == -ENOSYS ? resolve_walk(root, path, NULL, NULL) : fd;
}
