/* SPDX-License-Identifier: Apache-2.0
 *
 * Tying a layer to those below it: directories without an entry take the attributes that the lower layers show for
 * them; where those show a symlink, the content goes to where the link leads; hard links to files of lower layers
 * become copies. Called once a layer after it is complete, on one thread; owns the list of links.
 *
 * Unpacking layer by layer onto one tree (what the image's author saw) gives all of this by itself; layers that are
 * unpacked apart have to make up for it.
 */
#include "snapshot/loose_ends.h"

#include <errno.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/merge.h"
#include "snapshot/stack_view.h"
#include "snapshot/whiteout.h"

#define FIRST_CAP 16u

struct tie {
	struct loose_ends *ends;
	struct tree *tree;
	struct stack_view view;
	struct map copies; /* file of a lower layer → index of the link that became its copy */
	char path[LIMIT_PATH_BYTES];
	char target[LIMIT_PATH_BYTES];
};

/* ---- the list ---- */

void loose_ends_free(struct loose_ends *ends)
{
	free(ends->links);
	bytes_free(&ends->text);
	map_free(&ends->by_name);
	*ends = (struct loose_ends){0};
}

static int add_text(struct loose_ends *ends, const char *text, uint32_t *out)
{
	*out = (uint32_t)ends->text.len;
	return bytes_append(&ends->text, text, strlen(text) + 1, LIMIT_LOOSE_LINK_BYTES);
}

static int grow(struct loose_ends *ends)
{
	uint32_t cap = ends->cap ? ends->cap * 2 : FIRST_CAP;
	struct loose_link *grown;

	if (ends->count == LIMIT_LOOSE_LINKS)
		return CPULL_ERR_LIMIT;
	if (ends->count < ends->cap)
		return 0;
	grown = realloc(ends->links, cap * sizeof(*grown));
	if (!grown)
		return CPULL_ERR_NOMEM;
	ends->links = grown;
	ends->cap = cap;
	return 0;
}

int loose_ends_add(struct loose_ends *ends, const struct tree *tree, struct tree_place at, const char *name,
		   const char *target, const struct tar_entry *entry, struct cpull_error *err)
{
	struct loose_link link = {.dir = at.dir, .mode = entry->mode & 07777, .uid = entry->uid, .gid = entry->gid,
				  .mtime = entry->mtime};
	/* the target may be text of another link, and text moves when it grows */
	CLEANUP_FREE char *copy = strdup(target);
	int rc = copy ? grow(ends) : CPULL_ERR_NOMEM;

	if (!rc)
		rc = add_text(ends, name, &link.name);
	if (!rc)
		rc = add_text(ends, copy, &link.target);
	if (!rc)
		rc = map_put(&ends->by_name, tree_name_key(tree, at.dir, name), ends->count);
	if (rc == CPULL_ERR_LIMIT)
		return error_set(err, rc,
				 "more than %u hard links (or %u bytes of their names) to files that the layer "
				 "does not have",
				 LIMIT_LOOSE_LINKS, LIMIT_LOOSE_LINK_BYTES);
	if (rc)
		return error_nomem(err);
	ends->links[ends->count++] = link;
	return 0;
}

const char *loose_ends_target(const struct loose_ends *ends, const struct tree *tree, uint32_t dir, const char *name)
{
	uint32_t i = map_get(&ends->by_name, tree_name_key(tree, dir, name), UINT32_MAX);

	return i == UINT32_MAX ? NULL : ends->text.data + ends->links[i].target;
}

static bool is_implicit(const struct tree_dir *dir)
{
	return (dir->flags & (TREE_IMPLICIT | TREE_DEAD)) == TREE_IMPLICIT;
}

/* Whether they show up as names without a file is for the lower layers to say: see sweep_unmerged(). */
static bool has_whiteouts(const struct tree_dir *dir)
{
	return (dir->flags & (TREE_WHITEOUTS | TREE_DEAD)) == TREE_WHITEOUTS;
}

bool loose_ends_exist(const struct loose_ends *ends, const struct tree *tree)
{
	if (ends->tied)
		return false;
	if (ends->count)
		return true;
	for (uint32_t i = 0; i < tree->count; i++)
		if (is_implicit(&tree->dirs[i]) || has_whiteouts(&tree->dirs[i]))
			return true;
	return false;
}

/* ---- directories ---- */

static int wrap_path(const char *what, const char *path, int rc, struct cpull_error *err)
{
	char quoted[512];

	if (rc && err)
		error_wrap(err, "%s \"%s\"", what, error_quote(path, strlen(path), quoted, sizeof(quoted)));
	return rc;
}

/* What the lower layers show where the directory is; nothing where this layer hides it. */
static int look_below(struct tie *tie, uint32_t dir, struct stack_node *out, struct cpull_error *err)
{
	if (!tree_path(tie->tree, dir, tie->path))
		return error_set(err, CPULL_ERR_LIMIT, "a path of %u bytes or more", LIMIT_PATH_BYTES);
	if ((tie->tree->dirs[dir].flags & TREE_RECREATED) || tree_under_opaque(tie->tree, dir)) {
		out->layer = tie->view.count;
		return 0;
	}

	int rc;

	do
		rc = stack_view_find(&tie->view, tie->path, out);
	while (rc && tree_give_way(tie->tree, -rc));
	return rc ? error_sys(err, CPULL_ERR_STORAGE, -rc, "looking into the lower layers") : 0;
}

/* Follows symlinks in the lower layers; the path that it comes to is in tie->target. */
static int resolve_below(struct tie *tie, const char *path, bool follow, struct stack_node *out)
{
	int rc;

	do
		rc = stack_view_resolve(&tie->view, path, follow, tie->target, out);
	while (rc && tree_give_way(tie->tree, -rc));
	return rc;
}

static bool is_below(const struct tree *tree, uint32_t dir, uint32_t above)
{
	while (dir != TREE_NONE && dir != above)
		dir = tree->dirs[dir].parent;
	return dir == above;
}

/* Does this layer itself make room for a directory at path: by one, or by a whiteout of what is below? */
static bool makes_room(struct tie *tie, const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	struct tree_place at;
	struct stat st;

	struct layer_fs *fs = tie->tree->fs;

	if (tree_lookup(tie->tree, path, slash ? (size_t)(slash - path) : 0, &at, NULL) ||
	    fs->ops->stat(fs, at.handle, name, &st))
		return false;
	return S_ISDIR(st.st_mode) || fs->ops->is_whiteout(fs, at.handle, name, &st);
}

/* Where the lower layers have a symlink, our directory's content belongs to what that leads to. */
static int relocate(struct tie *tie, uint32_t dir, struct cpull_error *err)
{
	struct tree *tree = tie->tree;
	struct stack_node node;
	struct tree_place to;
	int rc = look_below(tie, dir, &node, err);

	if (rc || node.layer == tie->view.count || !S_ISLNK(node.st.st_mode))
		return rc;
	rc = resolve_below(tie, tie->path, true, &node);
	if (rc)
		return error_sys(err, CPULL_ERR_UNSUPPORTED, -rc, "a lower layer has a symlink there that cannot be "
				 "followed");
	if (node.layer < tie->view.count && !S_ISDIR(node.st.st_mode) && !makes_room(tie, tie->target))
		return 0; /* no directory to go to: ours stays, as over any other file */
	if (node.layer == tie->view.count && !(tree->dirs[dir].flags & TREE_WANTED))
		return 0; /* whiteouts with nothing to hide */

	tree->wanted = tree->dirs[dir].flags & TREE_WANTED;
	tree->now = (struct timespec){.tv_sec = (time_t)tree->dirs[dir].mtime_sec,
				      .tv_nsec = (long)tree->dirs[dir].mtime_nsec};
	rc = tree_parent(tree, tie->target, strlen(tie->target), &to, err);
	if (rc || to.dir == dir)
		return rc;
	if (is_below(tree, to.dir, dir))
		return error_set(err, CPULL_ERR_UNSUPPORTED, "a lower layer has a symlink there that leads below the "
				 "directory itself");
	return merge_dirs(tree, dir, to.dir, err);
}

static int relocate_all(struct tie *tie, struct cpull_error *err)
{
	/* targets that are made on the way join the list at its end */
	for (uint32_t i = 1; i < tie->tree->count; i++) {
		if (!is_implicit(&tie->tree->dirs[i]))
			continue;

		int rc = relocate(tie, i, err);

		if (rc)
			return wrap_path("directory", tie->path, rc, err);
	}
	return 0;
}

static bool shows_dir(const struct tie *tie, const struct stack_node *node)
{
	return node->layer < tie->view.count && S_ISDIR(node->st.st_mode);
}

/* Removes a directory; what hid the lower one of its name still does. */
static int drop_dir(struct tie *tie, uint32_t dir, struct cpull_error *err)
{
	struct tree *tree = tie->tree;
	struct tree_dir *d = &tree->dirs[dir];
	const char *name = tree_dir_name(tree, dir);
	CLEANUP_LAYER_DIR struct layer_dir above = {tree->fs, tree_open(tree, d->parent, LAYER_DIR_NAMES)};
	struct tree_place at = {.handle = above.handle, .dir = d->parent};

	if (above.handle < 0)
		return error_sys(err, CPULL_ERR_STORAGE, -above.handle, "opening the parent of a needless directory");

	int rc = tree_clear(tree, at, name, err);

	tree->dirs[at.dir].flags |= TREE_TOUCHED;
	return rc || !(d->flags & TREE_RECREATED) ? rc : whiteout_make(tree, at, name, err);
}

/* Directories that only whiteouts asked for, with nothing below for these to hide. */
static int drop_useless(struct tie *tie, struct cpull_error *err)
{
	struct tree *tree = tie->tree;
	struct stack_node node;

	for (uint32_t i = tree->count; i-- > 1;) {
		if (!is_implicit(&tree->dirs[i]) || (tree->dirs[i].flags & TREE_WANTED))
			continue;

		int rc = look_below(tie, i, &node, err);

		if (!rc && !shows_dir(tie, &node))
			rc = drop_dir(tie, i, err);
		if (rc)
			return wrap_path("directory", tie->path, rc, err);
	}
	return 0;
}

/* A directory that no lower layer has is not merged: overlayfs then lists its whiteouts as names without a file. */
static int sweep_unmerged(struct tie *tie, struct cpull_error *err)
{
	struct tree *tree = tie->tree;
	struct stack_node node;

	for (uint32_t i = 0; i < tree->count; i++) {
		if (!has_whiteouts(&tree->dirs[i]))
			continue;

		int rc = look_below(tie, i, &node, err);

		if (!rc && !shows_dir(tie, &node))
			rc = whiteout_sweep_dir(tree, i, err);
		if (rc)
			return wrap_path("directory", tie->path, rc, err);
	}
	return 0;
}

/* Owner, mode, time and extended attributes of the lower directory, when there is one. */
static int inherit(struct tie *tie, uint32_t dir, struct cpull_error *err)
{
	struct tree_dir *d = &tie->tree->dirs[dir];
	struct stack_node node;
	int rc = look_below(tie, dir, &node, err);

	if (rc)
		return rc;
	d->flags &= (uint16_t)~TREE_IMPLICIT;
	if (!shows_dir(tie, &node))
		return tree_settle(tie->tree, dir, err);
	d->mode = (uint16_t)(node.st.st_mode & 07777);
	d->uid = node.st.st_uid;
	d->gid = node.st.st_gid;
	tree_set_time(tie->tree, dir, node.st.st_mtim);
	rc = tree_settle(tie->tree, dir, err);
	if (rc)
		return rc;

	struct layer_fs *fs = tie->tree->fs;
	CLEANUP_LAYER_DIR struct layer_dir to = {fs, tree_open(tie->tree, dir, LAYER_DIR_CONTENT)};

	if (to.handle < 0)
		return error_sys(err, CPULL_ERR_STORAGE, -to.handle, "opening it to copy attributes");
	return fs->ops->inherit(fs, to.handle, &tie->view.layers[node.layer], tie->path, err);
}

static int inherit_all(struct tie *tie, struct cpull_error *err)
{
	for (uint32_t i = tie->tree->count; i-- > 0;) {
		if (!is_implicit(&tie->tree->dirs[i]))
			continue;

		int rc = inherit(tie, i, err);

		if (rc)
			return wrap_path("directory", tie->path, rc, err);
	}
	return 0;
}

/* ---- links ---- */

/* Where a link's directory is now; TREE_NONE when a later entry removed it. */
static uint32_t dir_now(const struct tree *tree, uint32_t dir)
{
	while (tree->dirs[dir].flags & TREE_DEAD) {
		if (!(tree->dirs[dir].flags & TREE_MOVED))
			return TREE_NONE;
		dir = tree->dirs[dir].parent;
	}
	return dir;
}

/* Finds the lower file. */
static int find_target(struct tie *tie, const struct loose_link *link, struct stack_node *node,
		       struct cpull_error *err)
{
	const char *target = tie->ends->text.data + link->target;
	char quoted[512];
	int rc = resolve_below(tie, target, false, node);

	error_quote(target, strlen(target), quoted, sizeof(quoted));
	if (rc == -ENOTDIR || rc == -ENOENT || rc == -ELOOP || (!rc && node->layer == tie->view.count))
		return error_set(err, CPULL_ERR_TAR, "its target \"%s\" is neither in the layer nor in those below",
				 quoted);
	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "looking for its target \"%s\"", quoted);
	if (S_ISDIR(node->st.st_mode))
		return error_set(err, CPULL_ERR_TAR, "its target \"%s\" is a directory", quoted);
	return 0;
}

/* A copy of the lower file, or another name for the copy that an earlier link became. */
static int copy_or_link(struct tie *tie, uint32_t index, struct tree_place at, const char *name,
			const struct stack_node *node, struct cpull_error *err)
{
	struct tree *tree = tie->tree;
	uint64_t key = tree_name_key(tree, (uint32_t)node->layer, "") ^ node->st.st_ino * 0x9e3779b97f4a7c15ull;
	uint32_t first = map_get(&tie->copies, key ? key : 1, UINT32_MAX);

	if (first != UINT32_MAX) {
		const struct loose_link *other = &tie->ends->links[first];
		uint32_t dir = dir_now(tree, other->dir);
		CLEANUP_LAYER_DIR struct layer_dir from = {
		    tree->fs, dir == TREE_NONE ? -ENOENT : tree_open(tree, dir, LAYER_DIR_NAMES)};

		if (from.handle < 0)
			return error_sys(err, CPULL_ERR_STORAGE, -from.handle, "opening the directory of another link");
		return tree->fs->ops->link(tree->fs, from.handle, tie->ends->text.data + other->name, &node->st,
					   at.handle, name, err);
	}
	if (map_put(&tie->copies, key ? key : 1, index))
		return error_nomem(err);
	return tree->fs->ops->copy(tree->fs, &tie->view.layers[node->layer], tie->target, &node->st, at.handle, name,
				   err);
}

/* Has a later entry taken the link's name? A whiteout does not count, and goes. */
static int name_taken(struct tree *tree, struct tree_place at, const char *name, struct cpull_error *err)
{
	struct stat st;
	int rc = tree->fs->ops->stat(tree->fs, at.handle, name, &st);

	if (rc)
		return rc == -ENOENT ? 0 : error_sys(err, CPULL_ERR_STORAGE, -rc, "looking at what is there");
	if (!tree->fs->ops->is_whiteout(tree->fs, at.handle, name, &st))
		return 1;
	return tree_clear(tree, at, name, err);
}

static int tie_link(struct tie *tie, uint32_t index, struct cpull_error *err)
{
	struct tree *tree = tie->tree;
	const struct loose_link *link = &tie->ends->links[index];
	const char *name = tie->ends->text.data + link->name;
	const struct tar_entry entry = {.mode = link->mode, .uid = link->uid, .gid = link->gid, .mtime = link->mtime};
	uint32_t dir = dir_now(tree, link->dir);
	struct stack_node node;
	struct stat st;

	if (dir == TREE_NONE || map_get(&tie->ends->by_name, tree_name_key(tree, link->dir, name), index) != index)
		return 0;

	CLEANUP_LAYER_DIR struct layer_dir in = {tree->fs, tree_open(tree, dir, LAYER_DIR_NAMES)};
	struct tree_place at = {.handle = in.handle, .dir = dir};

	if (in.handle < 0)
		return error_sys(err, CPULL_ERR_STORAGE, -in.handle, "opening its directory");

	int rc = name_taken(tree, at, name, err);

	if (rc)
		return rc < 0 ? rc : 0;
	rc = find_target(tie, link, &node, err);
	if (!rc)
		rc = copy_or_link(tie, index, at, name, &node, err);
	if (rc == 1)
		return error_set(err, CPULL_ERR_STORAGE, "something else writes in the store");
	if (rc)
		return rc;
	tree->dirs[dir].flags |= TREE_TOUCHED;
	rc = tree->fs->ops->stat(tree->fs, at.handle, name, &st);
	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "looking at it");
	return tree->fs->ops->restat(tree->fs, at.handle, name, &st, &entry, err);
}

static int tie_links(struct tie *tie, struct cpull_error *err)
{
	for (uint32_t i = 0; i < tie->ends->count; i++) {
		int rc = tie_link(tie, i, err);

		if (rc)
			return wrap_path("hard link", tie->ends->text.data + tie->ends->links[i].name, rc, err);
	}
	tie->ends->count = 0;
	return 0;
}

int loose_ends_tie(struct loose_ends *ends, struct tree *tree, const struct lower_layer *lowers, size_t count,
		   struct cpull_error *err)
{
	CLEANUP_FREE struct tie *tie = calloc(1, sizeof(*tie));

	if (!tie)
		return error_nomem(err);
	tie->ends = ends;
	tie->tree = tree;

	int rc = stack_view_init(&tie->view, lowers, count);

	if (rc)
		return error_sys(err, rc == -E2BIG ? CPULL_ERR_LIMIT : CPULL_ERR_STORAGE, -rc,
				 "tying a layer to %zu lower ones (at most %u)", count, LIMIT_LAYERS);
	rc = relocate_all(tie, err);
	if (!rc)
		rc = tie_links(tie, err);
	if (!rc)
		rc = drop_useless(tie, err);
	if (!rc)
		rc = whiteout_sweep(tree, err);
	if (!rc)
		rc = sweep_unmerged(tie, err);
	if (!rc)
		rc = inherit_all(tie, err);
	if (!rc)
		rc = tree_settle_all(tree, TREE_TOUCHED, err);
	ends->tied = rc == 0;
	stack_view_free(&tie->view);
	map_free(&tie->copies);
	return rc;
}
