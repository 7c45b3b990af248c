/* SPDX-License-Identifier: Apache-2.0
 *
 * Paths and names of a layer in memory: walking, looking up, removing, moving. Used by one layer's writer on its
 * thread; owns nothing. As resolve.c walks, and with the kernel's answers.
 */
#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "engine/base/error.h"
#include "snapshot/erofs_fs_internal.h"
#include "snapshot/path_text.h"

/* ---- paths ---- */

struct walk {
	struct erofs_fs *fs;
	uint32_t dir;
	size_t len; /* of the path to it */
	struct path_text todo;
	unsigned steps;
};

static void to_root(struct walk *walk)
{
	walk->dir = EROFS_ROOT_DIR;
	walk->len = 0;
}

static void go_up(struct walk *walk)
{
	const struct erofs_names *names = &walk->fs->names;

	if (walk->dir == EROFS_ROOT_DIR)
		return;

	const struct erofs_name *name = erofs_name_at(names, erofs_dir_at(names, walk->dir)->name);

	walk->dir = name->dir;
	walk->len -= name->len + (walk->dir != EROFS_ROOT_DIR);
}

static int go_down(struct walk *walk, const struct erofs_name *name)
{
	walk->len += name->len + (walk->dir != EROFS_ROOT_DIR);
	if (walk->len >= LIMIT_PATH_BYTES)
		return -ENAMETOOLONG;
	walk->dir = name->what;
	return 0;
}

/* EROFS_NO_NAME's type is of a directory, but it is the root's. */
static enum erofs_type type_of(const struct erofs_fs *fs, uint32_t name)
{
	return name == EROFS_NO_NAME ? 0 : (enum erofs_type)erofs_name_at(&fs->names, name)->type;
}

static int follow_link(struct walk *walk, uint32_t name)
{
	int rc;

	erofs_names_target(&walk->fs->names, name, path_text_room(&walk->todo));
	rc = path_text_push(&walk->todo);
	if (rc == 1)
		to_root(walk);
	return MIN(rc, 0);
}

static int step(struct walk *walk, const char *text, resolve_missing_fn missing, void *payload)
{
	struct erofs_fs *fs = walk->fs;
	uint32_t name = erofs_names_find(&fs->names, walk->dir, text);
	enum erofs_type type = type_of(fs, name);

	if (type == EROFS_SYMLINK)
		return follow_link(walk, name);
	if (type != EROFS_DIRECTORY) {
		int why = type ? -ENOTDIR : -ENOENT, rc = missing ? missing(payload, (int)walk->dir, text) : why;

		if (rc)
			return rc;
		name = erofs_names_find(&fs->names, walk->dir, text);
		if (type_of(fs, name) != EROFS_DIRECTORY)
			return why;
	}
	return go_down(walk, erofs_name_at(&fs->names, name));
}

static int run(struct walk *walk, resolve_missing_fn missing, void *payload)
{
	char text[LIMIT_NAME_BYTES + 1];
	int rc;

	while ((rc = path_text_next(&walk->todo, text)) > 0) {
		if (++walk->steps > PATH_TEXT_STEPS)
			return -ELOOP;
		if (strcmp(text, "..") == 0) {
			go_up(walk);
			continue;
		}
		rc = step(walk, text, missing, payload);
		if (rc)
			return rc;
	}
	return rc < 0 ? rc : (int)walk->dir;
}

int erofs_fs_follow_making(struct layer_fs *fs, const char *path, resolve_missing_fn missing, void *payload)
{
	/* on the heap: 16 KB are much for an embedder's thread */
	CLEANUP_FREE struct walk *walk = malloc(sizeof(*walk));

	if (!walk)
		return -ENOMEM;
	walk->fs = erofs_fs(fs);
	walk->steps = 0;
	to_root(walk);

	int rc = path_text_init(&walk->todo, path);

	return rc ? rc : run(walk, missing, payload);
}

int erofs_fs_follow(struct layer_fs *fs, const char *path)
{
	return erofs_fs_follow_making(fs, path, NULL, NULL);
}

int erofs_fs_open(struct layer_fs *fs, const char *path, enum layer_dir_use use)
{
	struct erofs_fs *self = erofs_fs(fs);
	uint32_t dir = EROFS_ROOT_DIR;
	char text[LIMIT_NAME_BYTES + 1];

	(void)use;
	while (*path) {
		size_t len = strcspn(path, "/");

		if (len > LIMIT_NAME_BYTES)
			return -ENAMETOOLONG;
		memcpy(text, path, len);
		text[len] = 0;
		path += len + (path[len] == '/');

		uint32_t name = erofs_names_find(&self->names, dir, text);
		enum erofs_type type = type_of(self, name);

		if (type != EROFS_DIRECTORY)
			return !type ? -ENOENT : type == EROFS_SYMLINK && *path ? -ELOOP : -ENOTDIR;
		dir = erofs_name_at(&self->names, name)->what;
	}
	return (int)dir;
}

/* ---- names ---- */

int erofs_fs_stat(struct layer_fs *fs, int dir, const char *name, struct stat *out)
{
	struct erofs_fs *self = erofs_fs(fs);
	uint32_t found = erofs_names_find(&self->names, (uint32_t)dir, name);

	if (found == EROFS_NO_NAME)
		return -ENOENT;

	const struct erofs_name *n = erofs_name_at(&self->names, found);
	enum erofs_type type = (enum erofs_type)n->type;

	if (type == EROFS_DIRECTORY)
		return fs->ops->stat_dir(fs, (int)n->what, out);
	*out = (struct stat){.st_ino = n->what, .st_mode = erofs_fs_mode(type),
			     .st_nlink = map_get(&self->links, n->what, 1)};
	/* the numbers of devices are only in the image: something that is no whiteout's */
	if ((type == EROFS_CHAR || type == EROFS_BLOCK) && n->what != self->whiteout)
		out->st_rdev = makedev(0, 1);
	return 0;
}

int erofs_fs_read_link(struct layer_fs *fs, int dir, const char *name, char *out)
{
	struct erofs_fs *self = erofs_fs(fs);
	uint32_t found = erofs_names_find(&self->names, (uint32_t)dir, name);

	if (found == EROFS_NO_NAME)
		return -ENOENT;
	if (type_of(self, found) != EROFS_SYMLINK)
		return -EINVAL;
	erofs_names_target(&self->names, found, out);
	return 0;
}

/* Of anything but a directory. */
static void drop(struct erofs_fs *fs, uint32_t name)
{
	uint32_t *links = map_find(&fs->links, erofs_name_at(&fs->names, name)->what);

	if (links)
		--*links;
	erofs_names_remove(&fs->names, name);
}

int erofs_fs_unlink(struct layer_fs *fs, int dir, const char *name)
{
	struct erofs_fs *self = erofs_fs(fs);
	uint32_t found = erofs_names_find(&self->names, (uint32_t)dir, name);

	if (found == EROFS_NO_NAME)
		return -ENOENT;
	if (type_of(self, found) == EROFS_DIRECTORY)
		return -EISDIR;
	drop(self, found);
	return 0;
}

int erofs_fs_rmdir(struct layer_fs *fs, int dir, const char *name)
{
	struct erofs_fs *self = erofs_fs(fs);
	uint32_t found = erofs_names_find(&self->names, (uint32_t)dir, name);

	if (found == EROFS_NO_NAME)
		return -ENOENT;
	if (type_of(self, found) != EROFS_DIRECTORY)
		return -ENOTDIR;
	if (erofs_dir_at(&self->names, erofs_name_at(&self->names, found)->what)->count)
		return -ENOTEMPTY;
	erofs_names_remove(&self->names, found);
	return 0;
}

/* Down to where nothing is in a directory, and up again, removing what was come to. */
static void remove_dir(struct erofs_fs *fs, uint32_t top, fs_gone_fn gone, void *payload)
{
	struct erofs_names *names = &fs->names;
	uint32_t dir = top, removed = EROFS_ROOT_DIR;

	while (removed != top) {
		uint32_t first = erofs_names_first(names, dir), own = erofs_dir_at(names, dir)->name;

		if (first == EROFS_NO_NAME) {
			if (gone)
				gone(payload, erofs_fs_dir_ino(dir));
			erofs_names_remove(names, own);
			removed = dir;
			dir = erofs_name_at(names, own)->dir;
		} else if (type_of(fs, first) == EROFS_DIRECTORY) {
			dir = erofs_name_at(names, first)->what;
		} else {
			drop(fs, first);
		}
	}
}

int erofs_fs_remove_tree(struct layer_fs *fs, int dir, const char *name, fs_gone_fn gone, void *payload,
			 struct cpull_error *err)
{
	struct erofs_fs *self = erofs_fs(fs);
	uint32_t found = erofs_names_find(&self->names, (uint32_t)dir, name);
	enum erofs_type type = type_of(self, found);

	(void)err;
	if (type == EROFS_DIRECTORY)
		remove_dir(self, erofs_name_at(&self->names, found)->what, gone, payload);
	else if (type)
		drop(self, found);
	return 0;
}

int erofs_fs_rename(struct layer_fs *fs, int from, const char *from_name, int to, const char *to_name)
{
	struct erofs_names *names = &erofs_fs(fs)->names;
	uint32_t found = erofs_names_find(names, (uint32_t)from, from_name);
	int rc = found == EROFS_NO_NAME ? -ENOENT : erofs_names_move(names, found, (uint32_t)to, to_name);

	return rc == 1 ? -EEXIST : rc;
}
