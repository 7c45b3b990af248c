/* SPDX-License-Identifier: Apache-2.0
 *
 * Extended attributes: which of an entry's may be set, setting them, and copying a file's attributes to another.
 */
#ifndef SNAPSHOT_ATTRIBUTES_H
#define SNAPSHOT_ATTRIBUTES_H

#include <sys/stat.h>

#include "engine/base/log.h"
#include "snapshot/tar.h"

/* What is to be logged once a layer, not once a file. */
struct attributes_notes {
	struct log *log;
	bool dropped;     /* an attribute that no image may bring was left out */
	bool unsupported; /* the file system has no room for the kind */
};

/* The file whose attributes are set: fd, or where fd is negative the name in dirfd, which is not followed. */
struct attributes_file {
	int fd;
	int dirfd;
	const char *name;
	mode_t type; /* S_IFMT part */
};

/* What a new file has by itself. */
struct attributes_self {
	uid_t uid;
	gid_t gid;
	mode_t umask; /* 07777 when it could not be learnt */
};

enum attributes_part {
	ATTRIBUTES_ALL,
	ATTRIBUTES_NO_ACL, /* all but POSIX ACLs, which would rub off on new files in a directory */
};

bool attributes_is_acl(const char *name);
/* May an image give an attribute to a file of the type? 1, or 0 when it is to be left out, which is noted;
 * CPULL_ERR_XATTR for a value that says nothing. */
MUST_CHECK int attributes_check(const struct tar_xattr *xattr, mode_t type, struct attributes_notes *notes,
				struct cpull_error *err);
/* Logs, once, that there is no room for an attribute of the kind. */
void attributes_note_unsupported(struct attributes_notes *notes, const char *name);
/* Sets what the entry brings and the image may say. security.capability is lost by a later chown or write. */
MUST_CHECK int attributes_set(const struct attributes_file *file, const struct tar_xattr *xattrs, size_t count,
			      enum attributes_part part, struct attributes_notes *notes, struct cpull_error *err);
/* Takes off whatever attributes_set() could have set, except POSIX ACLs when the part says so. */
MUST_CHECK int attributes_clear(int fd, struct cpull_error *err);
/* Gives `to` the xattrs of `from` (both real descriptors of open files, or of what /proc/self/fd can lead to when
 * they are O_PATH), with the same exceptions as attributes_set(). */
MUST_CHECK int attributes_copy(int from, const struct attributes_file *to, struct attributes_notes *notes,
			       struct cpull_error *err);
/* Does the mode of a file that was created with `mode` need another call? */
bool attributes_mode_differs(const struct attributes_self *self, uint32_t mode);
/* Gives a new regular file, created with the entry's mode, what the entry says: the data is in it. notes may be NULL
 * where there are no extended attributes. */
MUST_CHECK int attributes_set_new(int fd, const struct attributes_self *self, const struct tar_entry *entry,
				  struct attributes_notes *notes, struct cpull_error *err);
/* What a chown that failed with errno num means. */
int attributes_owner_error(uid_t uid, gid_t gid, int num, struct cpull_error *err);
/* Owner, mode and times, in that order, and only where they differ from what fd has. */
MUST_CHECK int attributes_set_stat(int fd, uid_t uid, gid_t gid, mode_t mode, struct timespec mtime,
				   struct cpull_error *err);

#endif
