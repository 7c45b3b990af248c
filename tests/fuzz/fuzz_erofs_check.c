/* SPDX-License-Identifier: Apache-2.0
 *
 * The walk through a whole EROFS image on anything: it comes to an end, every path it tells is one, and what says that
 * an image is in order finds each of its inodes in its blocks.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "packed_image.h"
#include "snapshot/erofs_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define MAX_FOUND 4096u /* names of an image that makes many of little */

struct seen {
	atomic_bool stop;
	atomic_uint_fast64_t bytes;
	unsigned count;
};

static void require(bool good)
{
	if (!good)
		abort();
}

static void found(void *payload, const char *path, const char *what)
{
	struct seen *seen = payload;
	size_t len = strlen(path);

	require(*what && !strchr(what, '\n'));
	require(len < LIMIT_PATH_BYTES && path[0] != '/' && (!len || path[len - 1] != '/'));
	if (++seen->count == MAX_FOUND || seen->bytes > (64u << 20))
		seen->stop = true;
}

static int run(int fd, const struct block_run *runs, struct seen *seen)
{
	const struct check_sink sink = {found, seen, &seen->stop, &seen->bytes};
	struct cpull_error err = {0};
	int rc = runs ? erofs_check_owners(fd, runs, 1, &sink, &err) : erofs_check_structure(fd, &sink, &err);

	require(rc == err.code && (!rc || (rc == CPULL_ERR_CANCELLED && seen->stop)));
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	CLEANUP_FREE uint8_t *image = calloc(1, MAX_IMAGE);
	CLEANUP_FD int fd = memfd_create("image", MFD_CLOEXEC);
	struct seen structure = {0}, owners = {0};

	require(image && fd >= 0);
	if (!len)
		return 0;

	size_t bytes = unpack_image(data, len, image);
	const struct block_run all = {0, bytes / EROFS_BLOCK_BYTES + 1};

	require(pwrite(fd, image, bytes, 0) == (ssize_t)bytes);
	if (run(fd, NULL, &structure) || run(fd, &all, &owners))
		return 0;
	/* the root at least */
	require(structure.count || owners.count);
	return 0;
}
