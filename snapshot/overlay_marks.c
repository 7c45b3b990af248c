/* SPDX-License-Identifier: Apache-2.0
 *
 * Recognizing overlayfs's marks in a directory on disk. Called by a layer's writer and for the layers below it, on
 * their threads; owns nothing.
 */
#include "snapshot/overlay_marks.h"

#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "engine/base/limits.h"

bool overlay_marks_whiteout(int dirfd, const char *name, const struct stat *st)
{
	if (S_ISCHR(st->st_mode))
		return st->st_rdev == makedev(0, 0);
	if (!S_ISREG(st->st_mode) || st->st_size != 0)
		return false;

	char path[64 + LIMIT_PATH_BYTES];

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dirfd, name);
	return lgetxattr(path, OVERLAY_TRUSTED_WHITEOUT, NULL, 0) >= 0 ||
	       lgetxattr(path, OVERLAY_USER_WHITEOUT, NULL, 0) >= 0;
}

bool overlay_marks_opaque(int fd)
{
	char value = 0;

	return (fgetxattr(fd, OVERLAY_TRUSTED_OPAQUE, &value, 1) == 1 && value == 'y') ||
	       (fgetxattr(fd, OVERLAY_USER_OPAQUE, &value, 1) == 1 && value == 'y');
}
