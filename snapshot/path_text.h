/* SPDX-License-Identifier: Apache-2.0
 *
 * The text of a path that is walked by hand: taken off component by component, with the targets of symlinks put in
 * front of what is left. Knows nothing of where the walk is.
 */
#ifndef SNAPSHOT_PATH_TEXT_H
#define SNAPSHOT_PATH_TEXT_H

#include "engine/base/limits.h"
#include "engine/base/util.h"

/* A link's target and the rest behind it. */
#define PATH_TEXT_BYTES (2 * LIMIT_PATH_BYTES)
/* Component steps of one walk. A path and 40 links have at most as many good ones; "a/../a/../…" through deep
 * directories would otherwise buy an attacker hours. */
#define PATH_TEXT_STEPS 16384u

struct path_text {
	char text[2][PATH_TEXT_BYTES]; /* what is left to walk, and room to make the next one */
	unsigned which;
	char *rest;
	unsigned hops;
};

/* 0 or -ENAMETOOLONG. */
MUST_CHECK int path_text_init(struct path_text *path, const char *text);
/* Takes the next component that is neither empty nor "." off into name (LIMIT_NAME_BYTES + 1). 1, 0 at the end, or
 * -ENAMETOOLONG. */
MUST_CHECK int path_text_next(struct path_text *path, char *name);
/* Where the target of a symlink is put for path_text_push(): LIMIT_PATH_BYTES with its NUL. */
char *path_text_room(struct path_text *path);
/* Puts the target that lies in the room in front of the rest. 1 when it begins at the root, else 0; -ELOOP after too
 * many of them, -ENAMETOOLONG, -ENOENT for an empty one. */
MUST_CHECK int path_text_push(struct path_text *path);

#endif
