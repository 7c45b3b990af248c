/* SPDX-License-Identifier: Apache-2.0
 *
 * Merging two directories of one layer that turned out to be the same: a lower layer has a symlink where the first
 * one is (bin → usr/bin, and the layer brings bin/tool only). Called when loose ends are tied; owns its list of
 * pairs to do.
 */
#include "snapshot/merge.h"

#include <errno.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/whiteout.h"

#define FIRST_CAP 16u

struct pair {
	uint32_t from, to;
};

struct merge {
	struct tree *tree;
	struct pair *pairs; /* those that were met, in order: parents before children */
	size_t count, cap;
	struct tree_place from, to; /* the pair at work */
};

static int add_pair(struct merge *merge, uint32_t from, uint32_t to, struct cpull_error *err)
{
	if (merge->count == merge->cap) {
		size_t cap = merge->cap ? merge->cap * 2 : FIRST_CAP;
		struct pair *grown = realloc(merge->pairs, cap * sizeof(*grown));

		if (!grown)
			return error_nomem(err);
		merge->pairs = grown;
		merge->cap = cap;
	}
	merge->pairs[merge->count++] = (struct pair){from, to};
	return 0;
}

static int clash(const char *name, struct cpull_error *err)
{
	char quoted[256];

	return error_set(err, CPULL_ERR_UNSUPPORTED,
			 "a lower layer has a symlink there, and what it leads to has \"%s\" "
			 "in this layer too: which one counts is not known any more",
			 error_quote(name, strlen(name), quoted, sizeof(quoted)));
}

static bool same_attributes(const struct tree_dir *a, const struct tree_dir *b)
{
	return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid && a->acl == b->acl &&
	       a->mtime_sec == b->mtime_sec && a->mtime_nsec == b->mtime_nsec;
}

/* Two directories become one: the entry, if one of them has any, says what it is like. */
static int join_records(struct tree *tree, uint32_t from, uint32_t to, const char *name, struct cpull_error *err)
{
	const struct tree_dir *f = &tree->dirs[from];
	struct tree_dir *t = &tree->dirs[to];

	if (!(f->flags & TREE_IMPLICIT)) {
		if ((f->flags | t->flags) & TREE_XATTRS)
			return clash(name, err);
		if (!(t->flags & TREE_IMPLICIT) && !same_attributes(f, t))
			return clash(name, err);
		t->mode = f->mode;
		t->uid = f->uid;
		t->gid = f->gid;
		t->acl = f->acl;
		t->mtime_sec = f->mtime_sec;
		t->mtime_nsec = f->mtime_nsec;
		t->flags &= (uint16_t)~TREE_IMPLICIT;
	}
	t->flags |= (uint16_t)(TREE_TOUCHED | (f->flags & (TREE_WHITEOUTS | TREE_WANTED)));
	if (f->flags & TREE_OPAQUE)
		return whiteout_opaque(tree, to, f->flags & TREE_RECREATED, err);
	return 0;
}

/* A directory that is being emptied itself (b → /, and b/b) stands for where its content goes. */
static uint32_t now_at(const struct merge *merge, uint32_t dir)
{
	for (size_t i = 0; i < merge->count; i++)
		if (merge->pairs[i].from == dir)
			return merge->pairs[i].to;
	return dir;
}

/* The name is in both. */
static int merge_name(struct merge *merge, const char *name, struct cpull_error *err)
{
	struct tree *tree = merge->tree;
	const struct layer_fs_ops *ops = tree->fs->ops;
	struct stat a, b;
	int rc = ops->stat(tree->fs, merge->from.handle, name, &a);

	if (!rc)
		rc = ops->stat(tree->fs, merge->to.handle, name, &b);
	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "merging two directories");
	if (ops->is_whiteout(tree->fs, merge->from.handle, name, &a)) {
		/* it hides what lower layers have, not what this one has */
		rc = whiteout_make(tree, merge->to, name, err);
		if (rc)
			return rc;
		rc = ops->unlink(tree->fs, merge->from.handle, name);
		return rc ? error_sys(err, CPULL_ERR_STORAGE, -rc, "removing a whiteout") : 0;
	}
	if (ops->is_whiteout(tree->fs, merge->to.handle, name, &b)) {
		uint32_t dir = S_ISDIR(a.st_mode) ? tree_find(tree, a.st_ino) : TREE_NONE;

		rc = tree_clear(tree, merge->to, name, err);
		return rc || dir == TREE_NONE ? rc : whiteout_opaque(tree, dir, TREE_RECREATED, err);
	}
	if (!S_ISDIR(a.st_mode) || !S_ISDIR(b.st_mode))
		return clash(name, err);

	uint32_t from_dir = tree_find(tree, a.st_ino), to_dir = tree_find(tree, b.st_ino);

	if (from_dir == TREE_NONE || to_dir == TREE_NONE)
		return error_set(err, CPULL_ERR_STORAGE, "something else writes in the store");
	if (now_at(merge, to_dir) != to_dir) {
		/* by an entry of its own it would have replaced the link on the way */
		if (!(tree->dirs[from_dir].flags & TREE_IMPLICIT))
			return clash(name, err);
		to_dir = now_at(merge, to_dir);
	}

	rc = join_records(tree, from_dir, to_dir, name, err);
	return rc ? rc : add_pair(merge, from_dir, to_dir, err);
}

/* 1: another one has the name there. */
static int try_move(struct merge *merge, const char *name, struct cpull_error *err)
{
	struct tree *tree = merge->tree;
	const struct layer_fs_ops *ops = tree->fs->ops;
	struct stat st;
	int rc = ops->stat(tree->fs, merge->from.handle, name, &st);

	if (rc)
		return rc == -ENOENT ? 0 : error_sys(err, CPULL_ERR_STORAGE, -rc, "merging two directories");
	rc = ops->rename(tree->fs, merge->from.handle, name, merge->to.handle, name);
	if (rc == -EEXIST)
		return 1;
	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "moving a file to where a symlink leads");

	uint32_t dir = S_ISDIR(st.st_mode) ? tree_find(tree, st.st_ino) : TREE_NONE;

	if (dir != TREE_NONE) {
		tree->dirs[dir].parent = merge->to.dir;
		tree->dirs[dir].flags |= TREE_TOUCHED;
	}
	return 0;
}

static int move_name(void *payload, const char *name, struct cpull_error *err)
{
	struct merge *merge = payload;

	for (int i = 0; i < 2; i++) {
		size_t before = merge->count;
		int rc = try_move(merge, name, err);

		if (rc <= 0)
			return rc;
		rc = merge_name(merge, name, err);
		if (rc || merge->count > before)
			return rc;
		/* a whiteout made way for it: again; or it was one itself, and is gone */
	}
	return 0;
}

/* Moves what can be moved at once; directories that both have join the list. */
static int merge_pair(struct merge *merge, struct pair pair, struct cpull_error *err)
{
	struct tree *tree = merge->tree;
	CLEANUP_LAYER_DIR struct layer_dir from = {tree->fs, tree_open(tree, pair.from, LAYER_DIR_CONTENT)};
	CLEANUP_LAYER_DIR struct layer_dir to = {tree->fs, tree_open(tree, pair.to, LAYER_DIR_NAMES)};

	if (from.handle < 0 || to.handle < 0)
		return error_sys(err, CPULL_ERR_STORAGE, from.handle < 0 ? -from.handle : -to.handle,
				 "opening a directory");
	merge->from = (struct tree_place){.handle = from.handle, .dir = pair.from};
	merge->to = (struct tree_place){.handle = to.handle, .dir = pair.to};
	return tree->fs->ops->list(tree->fs, from.handle, move_name, merge, err);
}

/* Removes an empty directory whose content went to pair.to. */
static int retire(struct tree *tree, struct pair pair, bool first, struct cpull_error *err)
{
	struct tree_dir *from = &tree->dirs[pair.from];
	CLEANUP_LAYER_DIR struct layer_dir above = {tree->fs, tree_open(tree, from->parent, LAYER_DIR_NAMES)};
	struct tree_place at = {.handle = above.handle, .dir = from->parent};
	int rc = above.handle;

	if (rc >= 0)
		rc = tree->fs->ops->rmdir(tree->fs, above.handle, tree_dir_name(tree, pair.from));
	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "removing a directory that was merged");
	tree->dirs[from->parent].flags |= TREE_TOUCHED;
	from->flags |= TREE_DEAD | TREE_MOVED;
	from->parent = pair.to;
	/* c → /, and a whiteout c/c: it hid the link itself, in whose place the directory was */
	return first && (from->flags & TREE_RECREATED) ? whiteout_make(tree, at, tree_dir_name(tree, pair.from), err)
						       : 0;
}

int merge_dirs(struct tree *tree, uint32_t from, uint32_t to, struct cpull_error *err)
{
	struct merge merge = {.tree = tree};
	int rc = join_records(tree, from, to, tree_dir_name(tree, from), err);

	if (!rc)
		rc = add_pair(&merge, from, to, err);
	for (size_t i = 0; !rc && i < merge.count; i++)
		rc = merge_pair(&merge, merge.pairs[i], err);
	for (size_t i = merge.count; !rc && i-- > 0;)
		rc = retire(tree, merge.pairs[i], i == 0, err);
	free(merge.pairs);
	tree_forget_paths(tree);
	return rc;
}
