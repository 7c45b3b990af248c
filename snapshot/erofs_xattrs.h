/* SPDX-License-Identifier: Apache-2.0
 *
 * The extended attributes of an inode as EROFS has them behind it.
 */
#ifndef SNAPSHOT_EROFS_XATTRS_H
#define SNAPSHOT_EROFS_XATTRS_H

#include "snapshot/attributes.h"

struct erofs_attributes {
	uint32_t mode; /* type and permissions */
	uint32_t uid, gid;
	struct timespec mtime; /* before 1970 the seconds are negative, the nanoseconds never */
	const struct tar_xattr *xattrs; /* as an image brings them: what is not its to set is left out */
	size_t xattr_count;
	bool opaque; /* a directory that hides what lower layers have of it (trusted.overlay.opaque) */
};

/* Puts header and entries into *out, sorted by name, in place of what is there; nothing when there are none. *mode is
 * the inode's mode, whose permissions an access ACL replaces, as the kernel does when one is set. */
MUST_CHECK int erofs_xattrs_encode(const struct erofs_attributes *attributes, struct bytes *out, uint32_t *mode,
				   struct attributes_notes *notes, struct cpull_error *err);
/* Gives an access ACL that is among them (header and entries, as they are encoded) the permissions of a new mode, as the
 * kernel does when a mode is set. Returns whether there is one. */
bool erofs_xattrs_chmod(void *encoded, size_t len, uint32_t mode);

#endif
