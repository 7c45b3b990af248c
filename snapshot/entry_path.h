/* SPDX-License-Identifier: Apache-2.0
 *
 * The names of tar entries: cleaned, and told apart from the whiteout markers that look like names. Pure; every
 * writer of layers shares it.
 */
#ifndef SNAPSHOT_ENTRY_PATH_H
#define SNAPSHOT_ENTRY_PATH_H

#include "engine/base/limits.h"
#include "engine/base/util.h"

/* Where AUFS kept the other names of hard links; only they keep working, and nothing of it is visible in the end. */
#define PLNK_DIR ".wh..wh.plnk"

/* A path without "/" at either end, "//" or "."; "" is the layer's root. The parent is text[0…parent_len). */
struct entry_path {
	char text[LIMIT_PATH_BYTES];
	size_t len;
	size_t parent_len;
	size_t name; /* where the last component begins */
};

enum entry_kind {
	ENTRY_PLAIN,
	ENTRY_WHITEOUT, /* the name behind ".wh." is whited out */
	ENTRY_OPAQUE,   /* the parent hides what lower layers have in it */
	ENTRY_LINKED,   /* inside PLNK_DIR: a hard link may refer to it */
	ENTRY_METADATA, /* other AUFS left-overs: to be skipped */
};

/* CPULL_ERR_ESCAPE for a ".." component, CPULL_ERR_LIMIT for too much of anything. */
MUST_CHECK int entry_path_clean(const char *raw, struct entry_path *out, struct cpull_error *err);
/* CPULL_ERR_WHITEOUT for a marker that names nothing (".wh.", ".wh..", ".wh...") or has something below it. */
MUST_CHECK int entry_path_kind(const struct entry_path *path, enum entry_kind *out, struct cpull_error *err);

/* Puts the entry's path, as it is in the archive, before an error's message. Returns its code. */
int entry_path_blame(const char *raw, struct cpull_error *err);

static inline const char *entry_path_name(const struct entry_path *path)
{
	return path->text + path->name;
}

/* The name that a whiteout hides. */
static inline const char *entry_path_hidden(const struct entry_path *path)
{
	return entry_path_name(path) + sizeof(".wh.") - 1;
}

#endif
