/* SPDX-License-Identifier: Apache-2.0
 *
 * OCI image layouts. Called by source.c on the pullers' threads; owns the directory's descriptor. A layout may come
 * from a stranger's archive: names are resolved beneath the directory by the kernel, only regular files are read,
 * and opening never blocks on a FIFO.
 */
#include "fetch/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "engine/base/error.h"

#define LAYOUT_OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
/* openat2() says EAGAIN when a rename raced with it. */
#define LAYOUT_OPEN_TRIES 16
#define LAYOUT_VERSION_FILE_BYTES 4096u

struct layout {
	int fd;
	char *dir;
};

/* For kernels before 5.6 and seccomp filters that do not know openat2(): piece by piece, no symlink at all. */
static int open_walking(int dir, const char *path)
{
	CLEANUP_FD int at = fcntl(dir, F_DUPFD_CLOEXEC, 0);
	char piece[LIMIT_NAME_BYTES + 1];

	while (at >= 0) {
		size_t len = strcspn(path, "/");

		if (len >= sizeof(piece)) {
			errno = ENAMETOOLONG;
			return -1;
		}
		memcpy(piece, path, len);
		piece[len] = 0;

		bool last = !path[len];
		int next = openat(at, piece, LAYOUT_OPEN_FLAGS | O_NOFOLLOW | (last ? 0 : O_DIRECTORY));
		int num = errno;

		close(at);
		at = -1;
		errno = num;
		if (last || next < 0)
			return next;
		at = next;
		path += len + 1;
	}
	return -1;
}

static int open_beneath(int dir, const char *path)
{
	struct open_how how = {
		.flags = LAYOUT_OPEN_FLAGS,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};

	for (int i = 0; i < LAYOUT_OPEN_TRIES; i++) {
		int fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));

		if (fd >= 0)
			return fd;
		/* EPERM is how older container runtimes refuse system calls they do not know */
		if (errno == ENOSYS || errno == EPERM)
			return open_walking(dir, path);
		if (errno != EAGAIN)
			return -1;
	}
	return -1;
}

/* Opens a regular file and tells its size. */
static int open_regular(struct layout *layout, const char *path, int *out, uint64_t *size, struct cpull_error *err)
{
	CLEANUP_FD int fd = open_beneath(layout->fd, path);
	struct stat st;

	if (fd < 0 && errno == EXDEV)
		return error_set(err, CPULL_ERR_STORAGE, "opening %s of the layout %s: it leads out of the directory",
				 path, layout->dir);
	if (fd < 0)
		return error_sys(err, errno == ENOENT || errno == ENOTDIR ? CPULL_ERR_NOT_FOUND : CPULL_ERR_STORAGE,
				 errno, "opening %s of the layout %s", path, layout->dir);
	if (fstat(fd, &st) < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "reading %s of the layout %s", path, layout->dir);
	if (!S_ISREG(st.st_mode))
		return error_set(err, CPULL_ERR_STORAGE, "reading %s of the layout %s: not a regular file", path,
				 layout->dir);
	*size = (uint64_t)st.st_size;
	*out = steal_fd(&fd);
	return 0;
}

static int read_rest(struct layout *layout, const char *path, int fd, size_t max, struct bytes *out,
		     struct cpull_error *err)
{
	char block[16384];

	for (;;) {
		ssize_t n = read(fd, block, sizeof(block));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "reading %s of the layout %s", path,
					 layout->dir);

		int rc = bytes_append(out, block, (size_t)n, max);

		if (rc == CPULL_ERR_LIMIT)
			return error_set(err, rc, "reading %s of the layout %s: more than %zu bytes", path, layout->dir,
					 max);
		if (rc)
			return error_nomem(err);
		if (n == 0)
			return 0;
	}
}

static int read_small(struct layout *layout, const char *path, size_t max, struct bytes *out,
		      struct cpull_error *err)
{
	CLEANUP_FD int fd = -1;
	uint64_t size;
	int rc = open_regular(layout, path, &fd, &size, err);

	if (!rc)
		rc = read_rest(layout, path, fd, max, out, err);
	if (rc)
		bytes_free(out);
	return rc;
}

static int check_version(struct layout *layout, struct cpull_error *err)
{
	CLEANUP_BYTES struct bytes text = {0};
	CLEANUP_JSON json_t *root = NULL;
	char quoted[64];
	int rc = read_small(layout, "oci-layout", LAYOUT_VERSION_FILE_BYTES, &text, err);

	if (rc == CPULL_ERR_NOT_FOUND)
		return error_set(err, rc, "%s is not an OCI layout: there is no file oci-layout in it", layout->dir);
	if (rc)
		return rc;
	rc = json_parse(text.data, text.len, CPULL_ERR_MANIFEST, "oci-layout", &root, err);
	if (rc) {
		error_wrap(err, "layout %s", layout->dir);
		return rc;
	}

	const char *version = json_string_at(root, "imageLayoutVersion");

	if (!version)
		return error_set(err, CPULL_ERR_MANIFEST, "layout %s: oci-layout has no imageLayoutVersion",
				 layout->dir);
	if (strncmp(version, "1.", 2) != 0)
		return error_set(err, CPULL_ERR_UNSUPPORTED, "layout %s has version %s, supported is 1.0.0",
				 layout->dir, error_quote(version, strlen(version), quoted, sizeof(quoted)));
	return 0;
}

int layout_open(const char *dir, struct layout **out, struct cpull_error *err)
{
	struct layout *layout = calloc(1, sizeof(*layout));

	if (!layout)
		return error_nomem(err);
	layout->fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	layout->dir = strdup(dir);

	int rc = 0;

	if (layout->fd < 0)
		rc = error_sys(err, errno == ENOENT || errno == ENOTDIR ? CPULL_ERR_NOT_FOUND : CPULL_ERR_STORAGE,
			       errno, "opening the layout %s", dir);
	else if (!layout->dir)
		rc = error_nomem(err);
	else
		rc = check_version(layout, err);
	if (rc) {
		layout_close(layout);
		return rc;
	}
	*out = layout;
	return 0;
}

void layout_close(struct layout *layout)
{
	if (!layout)
		return;
	if (layout->fd >= 0)
		close(layout->fd);
	free(layout->dir);
	free(layout);
}

int layout_read_index(struct layout *layout, struct bytes *out, struct cpull_error *err)
{
	return read_small(layout, "index.json", LIMIT_MANIFEST_BYTES, out, err);
}

/* "blobs/sha256/<hex>"; the longest digest has 135 characters. */
static void blob_path(const char *digest, char out[160])
{
	const char *colon = strchr(digest, ':');

	snprintf(out, 160, "blobs/%.*s/%s", (int)(colon - digest), digest, colon + 1);
}

int layout_read_manifest(struct layout *layout, const char *digest, struct bytes *out, struct cpull_error *err)
{
	char path[160];

	blob_path(digest, path);
	return read_small(layout, path, LIMIT_MANIFEST_BYTES, out, err);
}

static int size_error(struct layout *layout, const char *path, uint64_t have, uint64_t size, struct cpull_error *err)
{
	return error_set(err, CPULL_ERR_SIZE, "%s of the layout %s has %" PRIu64 " bytes, the manifest says %" PRIu64,
			 path, layout->dir, have, size);
}

int layout_open_blob(struct layout *layout, const char *digest, uint64_t size, int *fd, struct cpull_error *err)
{
	char path[160];
	uint64_t have;

	blob_path(digest, path);

	int rc = open_regular(layout, path, fd, &have, err);

	if (rc || have == size)
		return rc;
	close(steal_fd(fd));
	return size_error(layout, path, have, size, err);
}

int layout_read_blob(struct layout *layout, const char *digest, size_t size, struct bytes *out,
		     struct cpull_error *err)
{
	CLEANUP_FD int fd = -1;
	char path[160];
	int rc = layout_open_blob(layout, digest, size, &fd, err);

	if (rc)
		return rc;
	blob_path(digest, path);
	rc = read_rest(layout, path, fd, size, out, err);
	if (!rc && out->len != size)
		rc = size_error(layout, path, out->len, size, err);
	if (rc)
		bytes_free(out);
	return rc;
}
