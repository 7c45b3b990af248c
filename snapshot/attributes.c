/* SPDX-License-Identifier: Apache-2.0
 *
 * Extended attributes of layers. Called by the writers and by the overlay code on their threads; owns nothing.
 *
 * An image must not bring overlayfs's own attributes (they redirect lookups into other directories of the lower
 * layers), nor labels that are the host's to give (SELinux, IMA, EVM): see the layers specification, section 4.
 */
#include "snapshot/attributes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>

#include "engine/base/error.h"

/* "/proc/self/fd/<number>/<name>" */
#define PROC_PATH_BYTES (sizeof("/proc/self/fd/2147483647/") + LIMIT_NAME_BYTES)
#define XATTR_LIST_BYTES (64u << 10) /* the kernel's XATTR_LIST_MAX */

static bool begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

bool attributes_is_acl(const char *name)
{
	return begins(name, "system.posix_acl_");
}

static bool forbidden(const char *name)
{
	return begins(name, "trusted.overlay.") || begins(name, "user.overlay.") ||
	       strcmp(name, "security.selinux") == 0 || strcmp(name, "security.ima") == 0 ||
	       strcmp(name, "security.evm") == 0;
}

/* Kinds of files that the kernel refuses an attribute for whatever our rights. */
static bool misplaced(const char *name, mode_t type)
{
	if (begins(name, "user."))
		return !S_ISREG(type) && !S_ISDIR(type);
	if (strcmp(name, "security.capability") == 0)
		return !S_ISREG(type);
	if (strcmp(name, "system.posix_acl_default") == 0)
		return !S_ISDIR(type);
	return attributes_is_acl(name) && S_ISLNK(type);
}

/* struct vfs_cap_data, little endian: revision in the top byte, then the sets, then (v3) the root uid. */
static bool capability_fits(const uint8_t *value, size_t len)
{
	if (len < 4)
		return false;
	switch (value[3]) {
	case 1:
		return len == 12;
	case 2:
		return len == 20;
	case 3:
		return len == 24;
	default:
		return false;
	}
}

static int set_one(const struct attributes_file *file, const char *name, const void *value, size_t len)
{
	char path[PROC_PATH_BYTES];

	if (file->fd >= 0)
		return fsetxattr(file->fd, name, value, len, 0) ? -errno : 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", file->dirfd, file->name);
	return lsetxattr(path, name, value, len, 0) ? -errno : 0;
}

static void note_dropped(struct attributes_notes *notes, const char *name)
{
	char quoted[128];

	if (notes->dropped)
		return;
	notes->dropped = true;
	log_warn(notes->log, "leaving out extended attribute %s (and others like it): not an image's to set",
		 error_quote(name, strlen(name), quoted, sizeof(quoted)));
}

/* A failure that is no reason to fail: the attribute has no effect where it cannot be stored. */
static bool tolerable(const char *name, int num)
{
	bool vital = strcmp(name, "security.capability") == 0 || begins(name, "trusted.");

	return num == EOPNOTSUPP && !vital;
}

int attributes_check(const struct tar_xattr *xattr, mode_t type, struct attributes_notes *notes,
		     struct cpull_error *err)
{
	if (forbidden(xattr->name) || misplaced(xattr->name, type)) {
		note_dropped(notes, xattr->name);
		return 0;
	}
	if (strcmp(xattr->name, "security.capability") == 0 && !capability_fits(xattr->value, xattr->len))
		return error_set(err, CPULL_ERR_XATTR, "security.capability is malformed (%zu bytes)", xattr->len);
	return 1;
}

void attributes_note_unsupported(struct attributes_notes *notes, const char *name)
{
	char quoted[128];

	if (notes->unsupported)
		return;
	notes->unsupported = true;
	log_warn(notes->log, "leaving out extended attribute %s (and others like it): the file system does not take it",
		 error_quote(name, strlen(name), quoted, sizeof(quoted)));
}

static int put(const struct attributes_file *file, const struct tar_xattr *xattr, struct attributes_notes *notes,
	       struct cpull_error *err)
{
	char quoted[128];
	int rc = attributes_check(xattr, file->type, notes, err);

	if (rc <= 0)
		return rc;
	rc = set_one(file, xattr->name, xattr->value, xattr->len);
	if (rc == 0)
		return 0;
	if (!tolerable(xattr->name, -rc))
		return error_sys(err, CPULL_ERR_XATTR, -rc, "setting extended attribute %s",
				 error_quote(xattr->name, strlen(xattr->name), quoted, sizeof(quoted)));
	attributes_note_unsupported(notes, xattr->name);
	return 0;
}

int attributes_set(const struct attributes_file *file, const struct tar_xattr *xattrs, size_t count,
		   enum attributes_part part, struct attributes_notes *notes, struct cpull_error *err)
{
	for (size_t i = 0; i < count; i++) {
		if (part == ATTRIBUTES_NO_ACL && attributes_is_acl(xattrs[i].name))
			continue;

		int rc = put(file, &xattrs[i], notes, err);

		if (rc)
			return rc;
	}
	return 0;
}

/* The names that a file has, as the kernel lists them: each with its NUL. */
static ssize_t list_names(const char *path, char **out)
{
	*out = malloc(XATTR_LIST_BYTES);
	if (!*out)
		return -ENOMEM;

	ssize_t n = listxattr(path, *out, XATTR_LIST_BYTES);

	if (n < 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	return n;
}

int attributes_clear(int fd, struct cpull_error *err)
{
	char path[PROC_PATH_BYTES];
	CLEANUP_FREE char *names = NULL;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);

	ssize_t len = list_names(path, &names);

	if (len < 0)
		return error_sys(err, CPULL_ERR_XATTR, (int)-len, "listing extended attributes");
	for (char *name = names; name < names + len; name += strlen(name) + 1)
		if (!forbidden(name) && fremovexattr(fd, name) && errno != ENODATA && errno != EOPNOTSUPP)
			return error_sys(err, CPULL_ERR_XATTR, errno, "removing extended attribute %s", name);
	return 0;
}

int attributes_copy(int from, const struct attributes_file *to, struct attributes_notes *notes,
		    struct cpull_error *err)
{
	char path[PROC_PATH_BYTES];
	CLEANUP_FREE char *names = NULL;
	CLEANUP_FREE uint8_t *value = malloc(LIMIT_XATTR_VALUE_BYTES);

	/* by path, for an O_PATH descriptor cannot be asked */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", from);

	ssize_t len = list_names(path, &names);

	if (len == -ENOMEM || !value)
		return error_nomem(err);
	if (len < 0)
		return error_sys(err, CPULL_ERR_XATTR, (int)-len, "listing extended attributes of a lower layer");
	for (char *name = names; name < names + len; name += strlen(name) + 1) {
		if (forbidden(name))
			continue;

		ssize_t n = getxattr(path, name, value, LIMIT_XATTR_VALUE_BYTES);

		if (n < 0 && errno == ENODATA)
			continue;
		if (n < 0)
			return error_sys(err, CPULL_ERR_XATTR, errno, "reading extended attribute %s", name);

		const struct tar_xattr xattr = {.name = name, .value = value, .len = (size_t)n};
		int rc = put(to, &xattr, notes, err);

		if (rc)
			return rc;
	}
	return 0;
}

int attributes_owner_error(uid_t uid, gid_t gid, int num, struct cpull_error *err)
{
	if (num == EINVAL)
		return error_sys(err, CPULL_ERR_PERMISSION, num,
				 "setting the owner to %u:%u, which this user namespace does "
				 "not have (see /proc/self/uid_map, gid_map)",
				 uid, gid);
	return error_sys(err, CPULL_ERR_STORAGE, num, "setting the owner to %u:%u", uid, gid);
}

bool attributes_mode_differs(const struct attributes_self *self, uint32_t mode)
{
	/* a chown takes set-id bits only, and those are never there at creation */
	return (mode & 07000) || (mode & self->umask & 0777);
}

int attributes_set_new(int fd, const struct attributes_self *self, const struct tar_entry *entry,
		       struct attributes_notes *notes, struct cpull_error *err)
{
	const struct timespec times[2] = {entry->mtime, entry->mtime};
	const struct attributes_file file = {.fd = fd, .type = S_IFREG};
	bool chown = entry->uid != self->uid || entry->gid != self->gid;

	if (chown && fchown(fd, entry->uid, entry->gid))
		return attributes_owner_error(entry->uid, entry->gid, errno, err);
	if (attributes_mode_differs(self, entry->mode) && fchmod(fd, entry->mode))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "setting the mode to %04o", entry->mode);

	int rc = attributes_set(&file, entry->xattrs, entry->xattr_count, ATTRIBUTES_ALL, notes, err);

	if (rc)
		return rc;
	if (futimens(fd, times))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "setting the time");
	return 0;
}

int attributes_set_stat(int fd, uid_t uid, gid_t gid, mode_t mode, struct timespec mtime, struct cpull_error *err)
{
	const struct timespec times[2] = {mtime, mtime};
	struct stat st;

	if (fstat(fd, &st))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "looking at its attributes");

	bool chowned = st.st_uid != uid || st.st_gid != gid;

	if (chowned && fchown(fd, uid, gid))
		return attributes_owner_error(uid, gid, errno, err);
	/* a change of owner took the set-id bits */
	if (((st.st_mode & 07777) != mode || (chowned && (mode & 06000))) && fchmod(fd, mode))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "setting the mode to %04o", mode);
	if (futimens(fd, times))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "setting the time");
	return 0;
}
