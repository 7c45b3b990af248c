/* SPDX-License-Identifier: Apache-2.0
 *
 * Whiteouts of a layer: where one is needed, where the directory in its place has to be opaque, and where it has to go
 * again. Called by the layer writer and when loose ends are tied; owns nothing.
 */
#include "snapshot/whiteout.h"

#include <errno.h>
#include <string.h>

#include "engine/base/error.h"

int whiteout_opaque(struct tree *tree, uint32_t dir, unsigned how, struct cpull_error *err)
{
	struct tree_dir *d = &tree->dirs[dir];

	d->flags |= (uint16_t)how;
	if (d->flags & TREE_OPAQUE)
		return 0;
	d->flags |= TREE_OPAQUE;

	CLEANUP_LAYER_DIR struct layer_dir at = {tree->fs, tree_open(tree, dir, LAYER_DIR_CONTENT)};

	if (at.handle < 0)
		return error_sys(err, CPULL_ERR_STORAGE, -at.handle, "opening a directory to make it opaque");
	return tree->fs->ops->set_opaque(tree->fs, at.handle, err);
}

static int make(struct tree *tree, struct tree_place at, const char *name, struct cpull_error *err)
{
	bool first = !(tree->dirs[at.dir].flags & TREE_WHITEOUTS);
	int rc = tree->fs->ops->make_whiteout(tree->fs, at.handle, name, first, err);

	if (!rc)
		tree->dirs[at.dir].flags |= TREE_WHITEOUTS;
	return rc;
}

int whiteout_make(struct tree *tree, struct tree_place at, const char *name, struct cpull_error *err)
{
	struct stat st;
	int rc = tree->fs->ops->stat(tree->fs, at.handle, name, &st);

	if (rc) {
		if (rc != -ENOENT)
			return error_sys(err, CPULL_ERR_STORAGE, -rc, "looking for what is whited out");
		/* below an opaque directory there is nothing to hide */
		if ((tree->dirs[at.dir].flags & TREE_OPAQUE) || tree_under_opaque(tree, at.dir))
			return 0;
		return make(tree, at, name, err);
	}
	if (tree->fs->ops->is_whiteout(tree->fs, at.handle, name, &st))
		return 0;
	if (!S_ISDIR(st.st_mode)) {
		/* our file stays, but a directory that takes its name must not show the lower one's content */
		if (map_put(&tree->hidden, tree_name_key(tree, at.dir, name), 1))
			return error_nomem(err);
		return 0;
	}

	uint32_t dir = tree_find(tree, st.st_ino);

	if (dir == TREE_NONE)
		return error_set(err, CPULL_ERR_INTERNAL, "a directory that this layer did not make");
	return whiteout_opaque(tree, dir, TREE_RECREATED, err);
}

struct sweep {
	struct layer_fs *fs;
	int handle;
};

static int sweep_name(void *payload, const char *name, struct cpull_error *err)
{
	const struct sweep *sweep = payload;
	const struct layer_fs_ops *ops = sweep->fs->ops;
	struct stat st;

	if (ops->stat(sweep->fs, sweep->handle, name, &st) ||
	    !ops->is_whiteout(sweep->fs, sweep->handle, name, &st))
		return 0;

	int rc = ops->unlink(sweep->fs, sweep->handle, name);

	return rc ? error_sys(err, CPULL_ERR_STORAGE, -rc, "removing a whiteout from an opaque directory") : 0;
}

int whiteout_sweep_dir(struct tree *tree, uint32_t dir, struct cpull_error *err)
{
	CLEANUP_LAYER_DIR struct layer_dir at = {tree->fs, tree_open(tree, dir, LAYER_DIR_CONTENT)};
	struct sweep sweep = {.fs = tree->fs, .handle = at.handle};

	if (at.handle < 0)
		return error_sys(err, CPULL_ERR_STORAGE, -at.handle, "opening an opaque directory");

	int rc = tree->fs->ops->list(tree->fs, at.handle, sweep_name, &sweep, err);

	if (rc)
		return rc;
	tree->dirs[dir].flags &= (uint16_t)~TREE_WHITEOUTS;
	tree->dirs[dir].flags |= TREE_TOUCHED;
	return 0;
}

int whiteout_sweep(struct tree *tree, struct cpull_error *err)
{
	for (uint32_t i = 0; i < tree->count; i++) {
		const struct tree_dir *d = &tree->dirs[i];

		if ((d->flags & TREE_DEAD) || !(d->flags & TREE_WHITEOUTS))
			continue;
		if (!(d->flags & TREE_OPAQUE) && !tree_under_opaque(tree, i))
			continue;

		int rc = whiteout_sweep_dir(tree, i, err);

		if (rc)
			return rc;
	}
	return 0;
}
