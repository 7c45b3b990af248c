/* SPDX-License-Identifier: Apache-2.0
 *
 * A walk through an EROFS image by its reader, without recursion. Called by a thread of a check, and owns what it needs
 * for the length of a call: a level of the walk for each directory on the way, and the number of each directory it has
 * seen.
 *
 * The image may be damaged in any way: directories that are in one another end the walk there, and there is a maximum
 * of names.
 */
#include "snapshot/erofs_check.h"

#include <string.h>
#include <sys/stat.h>

#include "engine/base/error.h"
#include "snapshot/erofs_reader.h"

#define READ_BYTES ((size_t)256 << 10)
#define BLOCK_BYTES 4096u
#define INODE_BYTES 64u /* or 32: then what is before it counts, too */

struct level {
	struct erofs_listing list;
	size_t path_len; /* of the directory */
};

struct walk {
	struct erofs_reader *reader;
	const struct check_sink *sink;
	bool structure; /* else owners */
	const struct block_run *runs;
	size_t run_count;
	struct map seen; /* directories, by 1 + nid */
	struct level *levels;
	size_t depth, cap;
	uint64_t names;
	uint8_t *buffer;
	char path[LIMIT_PATH_BYTES];
};

static int cancelled(const struct walk *walk, struct cpull_error *err)
{
	return atomic_load_explicit(walk->sink->stop, memory_order_relaxed)
		       ? error_set(err, CPULL_ERR_CANCELLED, "cancelled")
		       : 0;
}

static void tell(const struct walk *walk, const char *what)
{
	walk->sink->found(walk->sink->payload, walk->path, what);
}

/* What the reader says of the image is found; what it says of the machine ends the check. */
static int judge(const struct walk *walk, int rc, const struct cpull_error *why, struct cpull_error *err)
{
	bool image = rc == CPULL_ERR_UNSUPPORTED || rc == CPULL_ERR_LIMIT ||
		     (rc == CPULL_ERR_STORAGE && (!why->sys_errno || check_is_damage(why->sys_errno)));

	if (!image)
		return error_copy(err, why);
	if (walk->structure)
		tell(walk, why->message);
	return 0;
}

/* ---- structure ---- */

static int read_xattrs(struct walk *walk, const struct erofs_node *node, struct cpull_error *err)
{
	struct erofs_xattrs xattrs;
	int rc;

	erofs_reader_xattrs(node, &xattrs);
	while ((rc = erofs_reader_xattr_next(walk->reader, &xattrs, err)) > 0) {
		rc = erofs_reader_xattr_value(walk->reader, &xattrs, walk->buffer, err);
		if (rc)
			break;
	}
	return rc;
}

static int read_data(struct walk *walk, const struct erofs_node *node, struct cpull_error *err)
{
	for (uint64_t at = 0; at < node->size;) {
		struct erofs_extent extent;
		size_t got;
		int rc = cancelled(walk, err);

		if (!rc)
			rc = erofs_reader_map(walk->reader, node, at, &extent, err);
		if (rc)
			return rc;
		if (extent.place == EROFS_IN_HOLE) {
			at += extent.bytes;
			continue;
		}
		size_t len = (size_t)MIN(extent.bytes, READ_BYTES);

		rc = erofs_reader_read(walk->reader, node, walk->buffer, len, at, &got, err);
		if (rc || !got)
			return rc;
		at += got;
		atomic_fetch_add_explicit(walk->sink->bytes, got, memory_order_relaxed);
	}
	return 0;
}

static int read_node(struct walk *walk, const struct erofs_node *node, struct cpull_error *err)
{
	char target[LIMIT_PATH_BYTES];
	int rc = read_xattrs(walk, node, err);

	if (!rc && S_ISREG(node->mode))
		rc = read_data(walk, node, err);
	if (!rc && S_ISLNK(node->mode))
		rc = erofs_reader_link(walk->reader, node, target, err);
	return rc;
}

/* ---- owners ---- */

static bool is_hit(const struct walk *walk, uint64_t byte, uint64_t len)
{
	uint64_t first = byte / BLOCK_BYTES, last = (byte + MAX(len, 1u) - 1) / BLOCK_BYTES;
	size_t low = 0, high = walk->run_count;

	/* the first run that does not end before it */
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (walk->runs[middle].first + walk->runs[middle].count <= first)
			low = middle + 1;
		else
			high = middle;
	}
	return low < walk->run_count && walk->runs[low].first <= last;
}

static int find_node(struct walk *walk, const struct erofs_node *node, struct cpull_error *err)
{
	bool data = false, inode = is_hit(walk, node->xattr_at - MIN(node->xattr_at, (uint64_t)INODE_BYTES),
					  node->behind - node->xattr_at + INODE_BYTES);

	for (uint64_t at = 0; !data && at < node->size;) {
		struct erofs_extent extent;
		int rc = erofs_reader_map(walk->reader, node, at, &extent, err);

		if (rc)
			return rc;
		data = extent.place != EROFS_IN_HOLE && is_hit(walk, extent.at, extent.bytes);
		at += extent.bytes;
	}
	if (data && inode)
		tell(walk, "its inode and its data are in damaged blocks");
	else if (data)
		tell(walk, S_ISDIR(node->mode) ? "its list of names is in damaged blocks"
					       : "its data is in damaged blocks");
	else if (inode)
		tell(walk, "its inode is in damaged blocks");
	return 0;
}

/* ---- the walk ---- */

static int look_at(struct walk *walk, const struct erofs_node *node, struct cpull_error *err)
{
	struct cpull_error why = {0};
	int rc = (walk->structure ? read_node : find_node)(walk, node, &why);

	return rc ? judge(walk, rc, &why, err) : 0;
}

/* Goes into a directory, unless it has been in it. */
static int enter(struct walk *walk, const struct erofs_node *dir, size_t path_len, struct cpull_error *err)
{
	if (map_get(&walk->seen, dir->nid + 1, 0)) {
		if (walk->structure)
			tell(walk, "a directory that has another name already");
		return 0;
	}
	if (map_put(&walk->seen, dir->nid + 1, 1))
		return error_nomem(err);
	if (walk->depth == walk->cap) {
		size_t cap = walk->cap ? walk->cap * 2 : 16;
		struct level *grown = realloc(walk->levels, cap * sizeof(*grown));

		if (!grown)
			return error_nomem(err);
		walk->levels = grown;
		walk->cap = cap;
	}

	struct level *level = &walk->levels[walk->depth++];

	erofs_reader_list(dir, &level->list);
	level->path_len = path_len;
	return 0;
}

/* The entry that the level's listing has come to; its path is in walk->path. */
static int visit(struct walk *walk, const struct erofs_listing *entry, size_t path_len, struct cpull_error *err)
{
	struct cpull_error why = {0};
	struct erofs_node node;
	int rc = erofs_reader_node(walk->reader, entry->nid, &node, &why);

	if (rc)
		return judge(walk, rc, &why, err);
	if (walk->structure && erofs_type_of(node.mode) != entry->type)
		tell(walk, "its name and its inode have different types");
	rc = look_at(walk, &node, err);
	/* `entry` moves with the levels */
	return rc || !S_ISDIR(node.mode) ? rc : enter(walk, &node, path_len, err);
}

static int step(struct walk *walk, struct cpull_error *err)
{
	struct level *level = &walk->levels[walk->depth - 1];
	struct cpull_error why = {0};
	size_t len = level->path_len;

	walk->path[len] = 0;

	int rc = erofs_reader_next(walk->reader, &level->list, &why);

	if (rc <= 0) {
		rc = rc ? judge(walk, rc, &why, err) : 0;
		walk->depth--;
		return rc;
	}
	if (++walk->names > LIMIT_CONTENTS_NAMES) {
		if (walk->structure)
			tell(walk, "the image has more names than a layer can have");
		walk->depth = 0;
		return 0;
	}
	if (len + 1 + level->list.name_len >= sizeof(walk->path)) {
		if (walk->structure)
			tell(walk, "a path in it is too long");
		return 0;
	}
	if (len)
		walk->path[len++] = '/';
	memcpy(walk->path + len, level->list.name, level->list.name_len + 1);
	return visit(walk, &level->list, len + level->list.name_len, err);
}

static int run(struct walk *walk, int fd, struct cpull_error *err)
{
	struct cpull_error why = {0};
	int rc = erofs_reader_open(fd, &walk->reader, &why);

	if (rc)
		return judge(walk, rc, &why, err);

	const struct erofs_node *root = erofs_reader_root(walk->reader);

	rc = look_at(walk, root, err);
	if (!rc)
		rc = enter(walk, root, 0, err);
	while (!rc && walk->depth) {
		rc = cancelled(walk, err);
		if (!rc)
			rc = step(walk, err);
	}
	return rc;
}

static int look_through(struct walk *walk, int fd, struct cpull_error *err)
{
	int rc;

	walk->buffer = malloc(READ_BYTES);
	rc = walk->buffer ? run(walk, fd, err) : error_nomem(err);
	erofs_reader_close(walk->reader);
	map_free(&walk->seen);
	free(walk->levels);
	free(walk->buffer);
	return rc;
}

int erofs_check_structure(int fd, const struct check_sink *sink, struct cpull_error *err)
{
	struct walk walk = {.sink = sink, .structure = true};

	return look_through(&walk, fd, err);
}

int erofs_check_owners(int fd, const struct block_run *runs, size_t count, const struct check_sink *sink,
		       struct cpull_error *err)
{
	struct walk walk = {.sink = sink, .runs = runs, .run_count = count};

	return look_through(&walk, fd, err);
}
