/* SPDX-License-Identifier: Apache-2.0
 *
 * The directories of one layer: records, open parents, deferred attributes, removal. Used by one layer's writer on its
 * thread; owns the records and the cached handles, borrows the place that the layer is written to.
 *
 * A directory is made 0700 and without anything that new files inherit (set-group-id, default ACL); what its entry says
 * comes last.
 */
#include "snapshot/tree.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/base/error.h"
#include "snapshot/whiteout.h"

#define TREE_FIRST_CAP 64u
#define DEFAULT_MODE 0755u
/* One cached directory for so many descriptors that the process may have: the other layers, their sockets and the store
 * want theirs. */
#define FDS_PER_CACHED 32u

/* ---- records ---- */

uint64_t tree_name_key(const struct tree *tree, uint32_t dir, const char *name)
{
	uint64_t key = XXH3_64bits_withSeed(name, strlen(name), tree->seed ^ ((uint64_t)dir << 32 | dir));

	return key ? key : 1;
}

uint32_t tree_find(const struct tree *tree, uint64_t ino)
{
	uint32_t dir = map_get(&tree->by_ino, ino, TREE_NONE);

	return dir != TREE_NONE && (tree->dirs[dir].flags & TREE_DEAD) ? TREE_NONE : dir;
}

static int add_record(struct tree *tree, uint32_t parent, const char *name, uint64_t ino, uint32_t *out,
		      struct cpull_error *err)
{
	size_t len = strlen(name);
	size_t path_len = len;

	if (parent != TREE_NONE && tree->dirs[parent].path_len)
		path_len += 1u + tree->dirs[parent].path_len;
	if (path_len >= LIMIT_PATH_BYTES)
		return error_set(err, CPULL_ERR_LIMIT, "a directory whose path has %u bytes or more",
				 LIMIT_PATH_BYTES);
	if (tree->count == tree->cap) {
		uint32_t cap = tree->cap ? tree->cap * 2 : TREE_FIRST_CAP;
		struct tree_dir *grown = realloc(tree->dirs, cap * sizeof(*grown));

		if (!grown)
			return error_nomem(err);
		tree->dirs = grown;
		tree->cap = cap;
	}

	size_t at = tree->names.len;

	if (bytes_append(&tree->names, name, len + 1, UINT32_MAX) || map_put(&tree->by_ino, ino, tree->count))
		return error_nomem(err);
	*out = tree->count++;
	tree->dirs[*out] = (struct tree_dir){
		.ino = ino,
		.parent = parent,
		.name = (uint32_t)at,
		.path_len = (uint16_t)path_len,
		.mode = DEFAULT_MODE,
		.acl = TREE_NONE,
		.mtime_sec = tree->now.tv_sec,
		.mtime_nsec = (uint32_t)tree->now.tv_nsec,
		.flags = TREE_IMPLICIT,
	};
	return 0;
}

const char *tree_path(const struct tree *tree, uint32_t dir, char *out)
{
	size_t at = 0;

	/* path_len is not asked: it is out of date below a directory that was moved */
	for (uint32_t d = dir; d != TREE_ROOT; d = tree->dirs[d].parent)
		at += strlen(tree_dir_name(tree, d)) + (tree->dirs[d].parent != TREE_ROOT);
	if (at >= LIMIT_PATH_BYTES)
		return NULL;
	out[at] = 0;
	for (uint32_t d = dir; d != TREE_ROOT; d = tree->dirs[d].parent) {
		size_t len = strlen(tree_dir_name(tree, d));

		at -= len;
		memcpy(out + at, tree_dir_name(tree, d), len);
		if (at)
			out[--at] = '/';
	}
	return out;
}

int tree_open(struct tree *tree, uint32_t dir, enum layer_dir_use use)
{
	char path[LIMIT_PATH_BYTES];

	return tree_path(tree, dir, path) ? tree->fs->ops->open(tree->fs, path, use) : -ENAMETOOLONG;
}

bool tree_under_opaque(const struct tree *tree, uint32_t dir)
{
	while (dir != TREE_ROOT) {
		dir = tree->dirs[dir].parent;
		if (tree->dirs[dir].flags & TREE_OPAQUE)
			return true;
	}
	return false;
}

void tree_want(struct tree *tree, uint32_t dir)
{
	while (dir != TREE_NONE && !(tree->dirs[dir].flags & TREE_WANTED)) {
		tree->dirs[dir].flags |= TREE_WANTED;
		dir = tree->dirs[dir].parent;
	}
}

/* ---- beginning and end ---- */

static int add_root(struct tree *tree, struct cpull_error *err)
{
	struct stat st;
	uint32_t root;
	int rc = tree->fs->ops->reset_root(tree->fs, &st, err);

	if (rc)
		return rc;
	tree->dev = st.st_dev;
	rc = add_record(tree, TREE_NONE, "", st.st_ino, &root, err);
	if (!rc)
		tree->dirs[root].flags |= TREE_WANTED;
	return rc;
}

static uint32_t cache_size(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return TREE_CACHE_MIN;
	return (uint32_t)MIN(MAX(limit.rlim_cur / FDS_PER_CACHED, TREE_CACHE_MIN), TREE_CACHE);
}

static bool give_way(void *payload, int num)
{
	return tree_give_way(payload, num);
}

int tree_new(struct layer_fs *fs, struct tree **out, struct cpull_error *err)
{
	struct tree *tree = calloc(1, sizeof(*tree));

	if (!tree)
		return error_nomem(err);
	tree->fs = fs;
	fs->give_way = give_way;
	fs->give_way_payload = tree;
	tree->last_acl = TREE_NONE;
	tree->wanted = true;
	tree->cache = calloc(TREE_CACHE, sizeof(*tree->cache));
	tree->cache_count = cache_size();
	/* without a seed nothing breaks: collisions hurt only whoever made them */
	if (getrandom(&tree->seed, sizeof(tree->seed), GRND_NONBLOCK) < 0)
		tree->seed = now_ns();

	int rc = tree->cache ? add_root(tree, err) : error_nomem(err);

	if (rc) {
		tree_free(tree);
		return rc;
	}
	*out = tree;
	return 0;
}

void tree_free(struct tree *tree)
{
	if (!tree)
		return;
	tree->fs->give_way = NULL;
	if (tree->cache)
		tree_close_cache(tree);
	free(tree->cache);
	free(tree->dirs);
	map_free(&tree->by_ino);
	map_free(&tree->hidden);
	bytes_free(&tree->names);
	bytes_free(&tree->acls);
	free(tree);
}

/* ---- open parents ---- */

void tree_forget_paths(struct tree *tree)
{
	for (size_t i = 0; i < TREE_CACHE; i++)
		tree->cache[i].stale = true;
}

static void cache_close(struct tree *tree, struct tree_cached *cached)
{
	if (cached->tick)
		tree->fs->ops->close(tree->fs, cached->handle);
	cached->tick = 0;
}

void tree_close_cache(struct tree *tree)
{
	for (size_t i = 0; i < TREE_CACHE; i++)
		cache_close(tree, &tree->cache[i]);
}

bool tree_give_way(struct tree *tree, int num)
{
	bool closed = false;

	if (num != EMFILE && num != ENFILE)
		return false;

	for (size_t i = 0; i < TREE_CACHE; i++) {
		struct tree_cached *c = &tree->cache[i];

		/* only calls of place() count ticks: the last ones are what its callers hold */
		if (!c->tick || c->tick + TREE_CACHE_MIN > tree->tick)
			continue;
		cache_close(tree, c);
		closed = true;
	}
	return closed;
}

static struct tree_cached *cache_find(struct tree *tree, const char *path, size_t len)
{
	for (size_t i = 0; i < TREE_CACHE; i++) {
		struct tree_cached *c = &tree->cache[i];

		if (c->tick && !c->stale && c->len == len && memcmp(c->path, path, len) == 0)
			return c;
	}
	return NULL;
}

/* Takes over the handle. */
static struct tree_cached *cache_add(struct tree *tree, const char *path, size_t len, int handle, uint32_t dir)
{
	struct tree_cached *c = &tree->cache[0];

	for (size_t i = 1; i < tree->cache_count; i++)
		if (tree->cache[i].tick < c->tick)
			c = &tree->cache[i];
	cache_close(tree, c);
	c->handle = handle;
	c->dir = dir;
	c->stale = false;
	c->len = (uint16_t)len;
	memcpy(c->path, path, len);
	c->path[len] = 0;
	return c;
}

static int make_missing(void *payload, int handle, const char *name)
{
	struct tree *tree = payload;
	struct stat st;

	int rc = tree->fs->ops->stat_dir(tree->fs, handle, &st);

	if (rc)
		return rc;

	struct tree_place at = {.handle = handle, .dir = tree_find(tree, st.st_ino)};
	uint32_t dir;

	if (at.dir == TREE_NONE)
		return -EXDEV;
	if (tree->fs->ops->stat(tree->fs, handle, name, &st) == 0) {
		/* a node of a whiteout makes way; of a file the layer has to say so itself */
		if (!tree->fs->ops->is_whiteout(tree->fs, handle, name, &st))
			return -ENOTDIR;
		if (tree_clear(tree, at, name, NULL))
			return -EIO;
	}

	struct cpull_error err = {0};

	rc = tree_mkdir(tree, at, name, &dir, &err);
	if (rc < 0)
		return err.sys_errno ? -err.sys_errno : err.code == CPULL_ERR_LIMIT ? -ENAMETOOLONG : -ENOMEM;
	return rc ? -EEXIST : 0;
}

/* EFBIG: what is kept in memory until it is written has its limits. */
static int no_room(struct cpull_error *err)
{
	return error_sys(err, CPULL_ERR_LIMIT, EFBIG, "the layer has more directories, or names, than an EROFS image is "
			 "made of here; pull it with --snapshot overlay");
}

/* The image is to blame for a path that cannot be walked, the machine for the rest. */
static int parent_error(int num, struct cpull_error *err)
{
	switch (num) {
	case EFBIG:
		return no_room(err);
	case ENOTDIR:
		return error_set(err, CPULL_ERR_TAR, "a parent of it is not a directory");
	case ELOOP:
		return error_sys(err, CPULL_ERR_TAR, num, "too many symlinks on the way to it");
	case ENAMETOOLONG:
		return error_sys(err, CPULL_ERR_LIMIT, num, "finding its directory");
	default:
		return error_sys(err, CPULL_ERR_STORAGE, num, "finding its directory");
	}
}

static int open_parent(struct tree *tree, const char *path, size_t len, bool create)
{
	char text[LIMIT_PATH_BYTES];

	memcpy(text, path, len);
	text[len] = 0;

	int handle = tree->fs->ops->follow(tree->fs, text);

	if (create && (handle == -ENOENT || handle == -ENOTDIR))
		handle = tree->fs->ops->follow_making(tree->fs, text, make_missing, tree);
	return handle;
}

/* 1: not there. */
static int place(struct tree *tree, const char *path, size_t len, bool create, struct tree_place *out,
		 struct cpull_error *err)
{
	struct tree_cached *c = cache_find(tree, path, len);

	/* what is opened for this call may cost all places but the last one */
	tree->tick++;
	if (!c) {
		CLEANUP_LAYER_DIR struct layer_dir at = {tree->fs, open_parent(tree, path, len, create)};
		struct stat st;

		if (!create && (at.handle == -ENOENT || at.handle == -ENOTDIR))
			return 1;
		if (at.handle < 0)
			return parent_error(-at.handle, err);

		int rc = tree->fs->ops->stat_dir(tree->fs, at.handle, &st);

		if (rc)
			return error_sys(err, CPULL_ERR_STORAGE, -rc, "looking at its directory");

		uint32_t dir = tree_find(tree, st.st_ino);

		if (dir == TREE_NONE || st.st_dev != tree->dev)
			return error_set(err, CPULL_ERR_STORAGE, "its directory was not made by this layer: "
					 "something else writes in the store");
		c = cache_add(tree, path, len, steal_fd(&at.handle), dir);
	}
	c->tick = tree->tick;
	out->handle = c->handle;
	out->dir = c->dir;
	return 0;
}

int tree_parent(struct tree *tree, const char *path, size_t len, struct tree_place *out, struct cpull_error *err)
{
	int rc = place(tree, path, len, true, out, err);

	if (rc == 0 && tree->wanted)
		tree_want(tree, out->dir);
	return rc;
}

int tree_lookup(struct tree *tree, const char *path, size_t len, struct tree_place *out, struct cpull_error *err)
{
	return place(tree, path, len, false, out, err);
}

/* ---- making and describing ---- */

int tree_mkdir(struct tree *tree, struct tree_place at, const char *name, uint32_t *out, struct cpull_error *err)
{
	struct stat st;
	int rc = tree->fs->ops->mkdir(tree->fs, at.handle, name, &st);

	if (rc == -EEXIST)
		return 1;
	if (rc == -EFBIG)
		return no_room(err);
	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "making a directory");
	rc = add_record(tree, at.dir, name, st.st_ino, out, err);
	tree->dirs[at.dir].flags |= TREE_TOUCHED;
	if (rc || map_get(&tree->hidden, tree_name_key(tree, at.dir, name), 0) == 0)
		return rc;
	return whiteout_opaque(tree, *out, TREE_RECREATED, err);
}

struct acl_header {
	uint32_t access_len;
	uint32_t default_len;
};

static const struct tar_xattr *find_xattr(const struct tar_entry *entry, const char *name)
{
	for (size_t i = 0; i < entry->xattr_count; i++)
		if (strcmp(entry->xattrs[i].name, name) == 0)
			return &entry->xattrs[i];
	return NULL;
}

/* Keeps the ACLs of a directory for later; most of those that have any have the same. */
static int keep_acls(struct tree *tree, struct tree_dir *dir, const struct tar_entry *entry,
		     struct cpull_error *err)
{
	const struct tar_xattr *of_access = find_xattr(entry, "system.posix_acl_access");
	const struct tar_xattr *of_default = find_xattr(entry, "system.posix_acl_default");
	struct acl_header head = {of_access ? (uint32_t)of_access->len : 0, of_default ? (uint32_t)of_default->len : 0};
	size_t at = tree->acls.len, last = tree->last_acl;

	dir->acl = TREE_NONE;
	if (!head.access_len && !head.default_len)
		return 0;

	int rc = bytes_append(&tree->acls, &head, sizeof(head), LIMIT_ACL_BYTES);

	if (!rc && head.access_len)
		rc = bytes_append(&tree->acls, of_access->value, head.access_len, LIMIT_ACL_BYTES);
	if (!rc && head.default_len)
		rc = bytes_append(&tree->acls, of_default->value, head.default_len, LIMIT_ACL_BYTES);
	if (rc)
		return error_set(err, rc, "keeping ACLs of directories: more than %u bytes of them", LIMIT_ACL_BYTES);
	if (last != TREE_NONE && tree->acls.len - at == at - last &&
	    memcmp(tree->acls.data + last, tree->acls.data + at, at - last) == 0) {
		tree->acls.len = at;
		at = last;
	}
	tree->last_acl = (uint32_t)at;
	dir->acl = (uint32_t)at;
	return 0;
}

static int describe_xattrs(struct tree *tree, uint32_t dir, const struct tar_entry *entry, struct cpull_error *err)
{
	CLEANUP_LAYER_DIR struct layer_dir at = {tree->fs, tree_open(tree, dir, LAYER_DIR_CONTENT)};

	if (at.handle < 0)
		return error_sys(err, CPULL_ERR_STORAGE, -at.handle, "opening a directory to set its attributes");

	int rc = tree->fs->ops->set_xattrs(tree->fs, at.handle, entry->xattrs, entry->xattr_count, ATTRIBUTES_NO_ACL,
					   tree->dirs[dir].flags & TREE_XATTRS, err);

	return rc ? rc : keep_acls(tree, &tree->dirs[dir], entry, err);
}

int tree_describe(struct tree *tree, uint32_t dir, const struct tar_entry *entry, struct cpull_error *err)
{
	struct tree_dir *d = &tree->dirs[dir];

	d->mode = (uint16_t)(entry->mode & 07777);
	d->uid = entry->uid;
	d->gid = entry->gid;
	tree_set_time(tree, dir, entry->mtime);
	d->flags &= (uint16_t)~TREE_IMPLICIT;
	tree_want(tree, dir);
	if (!entry->xattr_count && !(d->flags & TREE_XATTRS))
		return 0;

	int rc = describe_xattrs(tree, dir, entry, err);

	d->flags |= TREE_XATTRS;
	return rc;
}

/* ---- removing ---- */

static void bury(void *payload, ino_t ino)
{
	struct tree *tree = payload;
	uint32_t dir = tree_find(tree, ino);

	if (dir != TREE_NONE)
		tree->dirs[dir].flags |= TREE_DEAD;
}

static int remember_hidden(struct tree *tree, struct tree_place at, const char *name, struct cpull_error *err)
{
	return map_put(&tree->hidden, tree_name_key(tree, at.dir, name), 1) ? error_nomem(err) : 0;
}

int tree_clear(struct tree *tree, struct tree_place at, const char *name, struct cpull_error *err)
{
	struct stat st;
	int rc = tree->fs->ops->stat(tree->fs, at.handle, name, &st);

	if (rc)
		return rc == -ENOENT ? 0 : error_sys(err, CPULL_ERR_STORAGE, -rc, "looking at what it replaces");
	if (S_ISDIR(st.st_mode)) {
		uint32_t dir = tree_find(tree, st.st_ino);

		if (dir != TREE_NONE && (tree->dirs[dir].flags & TREE_RECREATED))
			rc = remember_hidden(tree, at, name, err);
		tree_forget_paths(tree);
		return rc ? rc : tree->fs->ops->remove_tree(tree->fs, at.handle, name, bury, tree, err);
	}

	rc = tree->fs->ops->is_whiteout(tree->fs, at.handle, name, &st) ? remember_hidden(tree, at, name, err) : 0;
	if (S_ISLNK(st.st_mode))
		tree_forget_paths(tree);
	if (rc)
		return rc;
	rc = tree->fs->ops->unlink(tree->fs, at.handle, name);
	return rc ? error_sys(err, CPULL_ERR_STORAGE, -rc, "removing what it replaces") : 0;
}

/* ---- deferred attributes ---- */

static int settle_acl(struct tree *tree, const struct tree_dir *dir, int handle, struct cpull_error *err)
{
	struct acl_header head;
	const uint8_t *value = (const uint8_t *)tree->acls.data + dir->acl;
	struct tar_xattr acls[2];
	size_t count = 0;

	memcpy(&head, value, sizeof(head));
	value += sizeof(head);
	if (head.access_len)
		acls[count++] = (struct tar_xattr){"system.posix_acl_access", value, head.access_len};
	if (head.default_len)
		acls[count++] = (struct tar_xattr){"system.posix_acl_default", value + head.access_len,
						   head.default_len};
	return tree->fs->ops->set_xattrs(tree->fs, handle, acls, count, ATTRIBUTES_ALL, false, err);
}

int tree_settle(struct tree *tree, uint32_t dir, struct cpull_error *err)
{
	struct tree_dir *d = &tree->dirs[dir];
	struct timespec mtime = {.tv_sec = (time_t)d->mtime_sec, .tv_nsec = (long)d->mtime_nsec};
	CLEANUP_LAYER_DIR struct layer_dir at = {tree->fs, tree_open(tree, dir, LAYER_DIR_CONTENT)};

	if (at.handle < 0)
		return error_sys(err, CPULL_ERR_STORAGE, -at.handle, "opening it to set its attributes");

	int rc = tree->fs->ops->set_stat(tree->fs, at.handle, d->uid, d->gid, d->mode, mtime, err);

	if (!rc && d->acl != TREE_NONE)
		rc = settle_acl(tree, d, at.handle, err);
	d->flags &= (uint16_t)~TREE_TOUCHED;
	return rc;
}

int tree_settle_all(struct tree *tree, unsigned flags, struct cpull_error *err)
{
	char path[LIMIT_PATH_BYTES], quoted[256];

	/* a directory is made after its parent: backwards is children first */
	for (uint32_t i = tree->count; i-- > 0;) {
		const struct tree_dir *d = &tree->dirs[i];

		if ((d->flags & TREE_DEAD) || (flags && !(d->flags & flags)))
			continue;

		int rc = tree_settle(tree, i, err);

		if (rc && err && tree_path(tree, i, path))
			error_wrap(err, "directory \"%s\"", error_quote(path, strlen(path), quoted, sizeof(quoted)));
		if (rc)
			return rc;
	}
	return 0;
}
