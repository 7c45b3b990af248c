/* SPDX-License-Identifier: Apache-2.0
 *
 * The marks that overlayfs reads in its lower layers: a whiteout is a character device 0:0, or an empty file with an
 * attribute; a directory that hides what is below it has an attribute.
 */
#ifndef SNAPSHOT_OVERLAY_MARKS_H
#define SNAPSHOT_OVERLAY_MARKS_H

#include <sys/stat.h>

#include "engine/base/util.h"

/* trusted.* belongs to the initial user namespace; elsewhere overlayfs reads user.* (mount option userxattr). */
#define OVERLAY_TRUSTED_OPAQUE "trusted.overlay.opaque"
#define OVERLAY_TRUSTED_WHITEOUT "trusted.overlay.whiteout"
#define OVERLAY_USER_OPAQUE "user.overlay.opaque"
#define OVERLAY_USER_WHITEOUT "user.overlay.whiteout"

/* Both look at a directory on disk. st is what fstatat() gave for the name. */
bool overlay_marks_whiteout(int dirfd, const char *name, const struct stat *st);
bool overlay_marks_opaque(int fd);

#endif
