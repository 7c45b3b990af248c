/* SPDX-License-Identifier: Apache-2.0
 *
 * The sum of a file's extended attributes, whatever order they are listed in. Called where a layer is written, for what
 * has any, and where one is checked, for all of it; owns nothing.
 *
 * Read back from the file even while it is written: the file system may not take an attribute, and the kernel changes
 * ACLs (one that says no more than the mode is not kept, another follows the mode).
 */
#include "snapshot/xattr_sum.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "snapshot/checksum.h"

/* "/proc/self/fd/<number>/<name>" */
#define PROC_PATH_BYTES (sizeof("/proc/self/fd/2147483647/") + LIMIT_NAME_BYTES)
/* Nearly all names of a file, and values, are within this; the kernel's maximum of both is 64 KiB. */
#define SMALL_BYTES 512u
#define LARGE_BYTES (64u << 10)

struct place {
	int fd; /* or negative */
	char path[PROC_PATH_BYTES];
	uint8_t *large; /* made when it is needed */
};

static ssize_t list_into(const struct place *place, void *out, size_t max)
{
	ssize_t n = place->fd >= 0 ? flistxattr(place->fd, out, max) : llistxattr(place->path, out, max);

	return n < 0 ? -errno : n;
}

static ssize_t get_into(const struct place *place, const char *name, void *out, size_t max)
{
	ssize_t n = place->fd >= 0 ? fgetxattr(place->fd, name, out, max) : lgetxattr(place->path, name, out, max);

	return n < 0 ? -errno : n;
}

static bool begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

static bool counts(const char *name)
{
	return begins(name, "user.") || begins(name, "trusted.") || attributes_is_acl(name) ||
	       (begins(name, "security.") && strcmp(name, "security.selinux") != 0 &&
		strcmp(name, "security.ima") != 0 && strcmp(name, "security.evm") != 0 &&
		!begins(name, "security.SMACK64"));
}

static int add_one(struct place *place, const char *name, uint64_t *sum)
{
	uint8_t small[SMALL_BYTES];
	const uint8_t *value = small;
	ssize_t n = get_into(place, name, small, sizeof(small));

	if (n == -ERANGE) {
		if (!place->large && !(place->large = malloc(LARGE_BYTES)))
			return -ENOMEM;
		value = place->large;
		n = get_into(place, name, place->large, LARGE_BYTES);
	}
	if (n < 0)
		return (int)n;
	*sum += checksum_seeded(value, (size_t)n, checksum_of(name, strlen(name)));
	return 0;
}

static int add_all(struct place *place, const char *names, size_t len, uint64_t *out)
{
	uint64_t sum = 0;
	bool any = false;

	for (const char *name = names; name < names + len; name += strlen(name) + 1) {
		int rc = counts(name) ? add_one(place, name, &sum) : 0;

		if (rc)
			return rc;
		any |= counts(name);
	}
	*out = any && !sum ? 1 : sum;
	return 0;
}

int xattr_sum(const struct attributes_file *file, uint64_t *out)
{
	struct place place = {.fd = file->fd};
	char small[SMALL_BYTES];
	CLEANUP_FREE char *large = NULL;
	const char *names = small;

	*out = 0;
	if (file->fd < 0)
		snprintf(place.path, sizeof(place.path), "/proc/self/fd/%d/%s", file->dirfd, file->name);

	ssize_t len = list_into(&place, small, sizeof(small));

	if (len == -ERANGE) {
		names = large = malloc(LARGE_BYTES);
		if (!large)
			return -ENOMEM;
		len = list_into(&place, large, LARGE_BYTES);
	}
	if (len <= 0)
		return len == -EOPNOTSUPP ? 0 : (int)len;

	int rc = add_all(&place, names, (size_t)len, out);

	free(place.large);
	return rc;
}
