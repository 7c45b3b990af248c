/* SPDX-License-Identifier: Apache-2.0
 *
 * One layer's tar bytes to one layer: drives the tar reader, says what each entry means (layers specification, section
 * 3 and 5), and leaves the directories to tree.c, whiteouts to whiteout.c, files to the layer_fs. Used by a layer's
 * write stage on its thread; owns all of these.
 */
#include "snapshot/layer_writer.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/loose_ends.h"
#include "snapshot/whiteout.h"

/* Where a hard link waits while what it replaces is removed. */
#define LINK_NAME ".wh..wh.link"
/* What the kernel's device numbers hold; beyond, they would be cut, 4096:0 to 0:0 for one. */
#define MAJOR_MAX 0xfffu
#define MINOR_MAX 0xfffffu

struct layer_writer {
	struct tar *tar;
	struct layer_fs *fs;
	struct tree *tree;
	struct loose_ends loose;
	uint64_t max_entries;
	struct layer_writer_stats stats;
	struct entry_path path; /* of the entry at work, and of a hard link's target */
	struct entry_path target;
	bool ended; /* the archive's end mark was there */
	bool finished;
};

int layer_writer_new(const struct layer_writer_options *options, struct layer_writer **out, struct cpull_error *err)
{
	struct layer_writer *writer = calloc(1, sizeof(*writer));

	if (!writer) {
		options->fs->ops->free(options->fs);
		return error_nomem(err);
	}
	writer->fs = options->fs;
	writer->max_entries = options->max_entries ? options->max_entries : LIMIT_LAYER_ENTRIES;

	int rc = tar_new(&writer->tar, err);

	if (!rc)
		rc = tree_new(writer->fs, &writer->tree, err);
	if (rc) {
		layer_writer_free(writer);
		return rc;
	}
	*out = writer;
	return 0;
}

void layer_writer_free(struct layer_writer *writer)
{
	if (!writer)
		return;
	tree_free(writer->tree);
	/* the entry of a file that is open is the tar reader's */
	writer->fs->ops->free(writer->fs);
	tar_free(writer->tar);
	loose_ends_free(&writer->loose);
	free(writer);
}

/* ---- entries ---- */

static int add_dir(struct layer_writer *writer, struct tree_place at, const char *name,
		   const struct tar_entry *entry, struct cpull_error *err)
{
	struct tree *tree = writer->tree;
	uint32_t dir;
	struct stat st;
	int rc = tree_mkdir(tree, at, name, &dir, err);

	if (rc == 1) {
		rc = writer->fs->ops->stat(writer->fs, at.handle, name, &st);
		if (rc)
			return error_sys(err, CPULL_ERR_STORAGE, -rc, "looking at what is there already");
		dir = S_ISDIR(st.st_mode) ? tree_find(tree, st.st_ino) : TREE_NONE;
		if (dir == TREE_NONE) {
			rc = tree_clear(tree, at, name, err);
			if (!rc)
				rc = tree_mkdir(tree, at, name, &dir, err);
		}
	}
	if (rc == 1)
		return error_set(err, CPULL_ERR_STORAGE, "something else writes in the store");
	return rc ? rc : tree_describe(tree, dir, entry, err);
}

static int check_node(const struct tar_entry *entry, struct cpull_error *err)
{
	if (entry->type != TAR_CHAR && entry->type != TAR_BLOCK)
		return 0;
	if (entry->dev_major > MAJOR_MAX || entry->dev_minor > MINOR_MAX)
		return error_set(err, CPULL_ERR_TAR, "device number %u:%u is out of range", entry->dev_major,
				 entry->dev_minor);
	if (entry->type == TAR_CHAR && entry->dev_major == 0 && entry->dev_minor == 0)
		return error_set(err, CPULL_ERR_WHITEOUT, "a character device 0:0, which an overlay would take for a "
				 "whiteout");
	return 0;
}

static int create(struct layer_writer *writer, struct tree_place at, const char *name,
		  const struct tar_entry *entry, struct cpull_error *err)
{
	struct layer_fs *fs = writer->fs;
	int rc;

	switch (entry->type) {
	case TAR_FILE:
		return fs->ops->file_open(fs, at.handle, name, entry, err);
	case TAR_SYMLINK:
		if (!*entry->link)
			return error_set(err, CPULL_ERR_TAR, "a symlink without a target");
		return fs->ops->symlink(fs, at.handle, name, entry, err);
	default:
		rc = check_node(entry, err);
		return rc ? rc : fs->ops->node(fs, at.handle, name, entry, err);
	}
}

static int add_file(struct layer_writer *writer, struct tree_place at, const char *name,
		    const struct tar_entry *entry, struct cpull_error *err)
{
	int rc = create(writer, at, name, entry, err);

	if (rc != 1)
		return rc;
	/* never written in place: the name may be a hard link, or a symlink to anywhere */
	rc = tree_clear(writer->tree, at, name, err);
	if (!rc)
		rc = create(writer, at, name, entry, err);
	return rc == 1 ? error_set(err, CPULL_ERR_STORAGE, "something else writes in the store") : rc;
}

/* The name is taken. What has it goes last, for the target may be below it. */
static int link_over(struct layer_writer *writer, struct tree_place from, const char *from_name,
		     const struct stat *st, struct tree_place at, const char *name, struct cpull_error *err)
{
	struct layer_fs *fs = writer->fs;
	struct stat old;
	int rc = fs->ops->stat(fs, at.handle, name, &old);

	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "looking at what is there already");
	if (old.st_ino == st->st_ino)
		return 0;
	rc = fs->ops->link(fs, from.handle, from_name, st, fs->root, LINK_NAME, err);
	if (!rc)
		rc = tree_clear(writer->tree, at, name, err);
	if (rc)
		return rc == 1 ? error_set(err, CPULL_ERR_STORAGE, "something else writes in the store") : rc;
	rc = fs->ops->rename(fs, fs->root, LINK_NAME, at.handle, name);
	return rc ? error_sys(err, CPULL_ERR_STORAGE, -rc, "putting a hard link into place") : 0;
}

/* The target is not in this layer: a lower one may have it. */
static int add_loose_link(struct layer_writer *writer, struct tree_place at, const char *name, const char *target,
			  const struct tar_entry *entry, struct cpull_error *err)
{
	int rc = tree_clear(writer->tree, at, name, err);

	return rc ? rc : loose_ends_add(&writer->loose, writer->tree, at, name, target, entry, err);
}

static int clean_target(struct layer_writer *writer, const struct tar_entry *entry, struct cpull_error *err)
{
	enum entry_kind kind;
	int rc = entry_path_clean(entry->link, &writer->target, err);

	if (!rc)
		rc = entry_path_kind(&writer->target, &kind, err);
	if (rc)
		return err ? error_wrap(err, "target of a hard link") : rc;
	if (!writer->target.len)
		return error_set(err, CPULL_ERR_TAR, "a hard link to the root directory");
	if (kind != ENTRY_PLAIN && kind != ENTRY_LINKED)
		return error_set(err, CPULL_ERR_TAR, "a hard link to a whiteout marker");
	return 0;
}

static int add_link(struct layer_writer *writer, struct tree_place at, const char *name,
		    const struct tar_entry *entry, struct cpull_error *err)
{
	const struct entry_path *target = &writer->target;
	struct layer_fs *fs = writer->fs;
	const char *target_name;
	struct tree_place from;
	struct stat st;
	int rc = clean_target(writer, entry, err);

	if (rc)
		return rc;
	/* what the target gets by its own entry comes first; first_error() tells what failed */
	rc = fs->ops->wait(fs, NULL);
	if (rc)
		return rc;
	target_name = entry_path_name(target);
	rc = tree_lookup(writer->tree, target->text, target->parent_len, &from, err);
	if (rc < 0)
		return rc;
	if (rc == 1)
		return add_loose_link(writer, at, name, target->text, entry, err);
	if (fs->ops->stat(fs, from.handle, target_name, &st) ||
	    fs->ops->is_whiteout(fs, from.handle, target_name, &st)) {
		const char *below = loose_ends_target(&writer->loose, writer->tree, from.dir, target_name);

		return add_loose_link(writer, at, name, below ? below : target->text, entry, err);
	}
	if (S_ISDIR(st.st_mode))
		return error_set(err, CPULL_ERR_TAR, "a hard link to a directory");

	rc = fs->ops->link(fs, from.handle, target_name, &st, at.handle, name, err);
	if (rc == 1)
		rc = link_over(writer, from, target_name, &st, at, name, err);
	return rc ? rc : fs->ops->restat(fs, at.handle, name, &st, entry, err);
}

static int add_marker(struct layer_writer *writer, enum entry_kind kind, struct tree_place at,
		      const struct tar_entry *entry, struct cpull_error *err)
{
	/* AUFS itself made its markers hard links */
	if (entry->type != TAR_FILE && entry->type != TAR_HARDLINK)
		return error_set(err, CPULL_ERR_WHITEOUT, "a whiteout marker that is not a regular file");
	if (kind == ENTRY_OPAQUE)
		return whiteout_opaque(writer->tree, at.dir, 0, err);
	return whiteout_make(writer->tree, at, entry_path_hidden(&writer->path), err);
}

static int add_root(struct layer_writer *writer, const struct tar_entry *entry, struct cpull_error *err)
{
	if (entry->type != TAR_DIR)
		return error_set(err, CPULL_ERR_ESCAPE, "the layer's root is to be replaced by something that is no "
				 "directory");
	return tree_describe(writer->tree, TREE_ROOT, entry, err);
}

static int apply(struct layer_writer *writer, const struct tar_entry *entry, struct cpull_error *err)
{
	const struct entry_path *path = &writer->path;
	const char *name = entry_path_name(path);
	enum entry_kind kind = ENTRY_PLAIN;
	struct tree_place at;
	int rc = entry_path_clean(entry->path, &writer->path, err);

	if (rc)
		return rc;
	if (entry->uid == UINT32_MAX || entry->gid == UINT32_MAX)
		return error_set(err, CPULL_ERR_TAR, "owner %u:%u is no owner", entry->uid, entry->gid);
	writer->tree->now = entry->mtime;
	if (!path->len)
		return add_root(writer, entry, err);
	rc = entry_path_kind(path, &kind, err);
	if (rc)
		return rc;
	if (kind == ENTRY_METADATA)
		return 0;
	writer->tree->wanted = kind == ENTRY_PLAIN || kind == ENTRY_LINKED;
	name = entry_path_name(path);
	rc = tree_parent(writer->tree, path->text, path->parent_len, &at, err);
	if (rc)
		return rc;
	if (kind == ENTRY_WHITEOUT || kind == ENTRY_OPAQUE)
		return add_marker(writer, kind, at, entry, err);
	switch (entry->type) {
	case TAR_DIR:
		return add_dir(writer, at, name, entry, err);
	case TAR_HARDLINK:
		return add_link(writer, at, name, entry, err);
	default:
		return add_file(writer, at, name, entry, err);
	}
}

/* ---- the stream ---- */

static int wrap_entry(const struct layer_writer *writer, int rc, struct cpull_error *err)
{
	return rc && err ? entry_path_blame(tar_entry(writer->tar)->path, err) : rc;
}

static int on_entry(struct layer_writer *writer, struct cpull_error *err)
{
	if (writer->stats.entries == writer->max_entries)
		return error_set(err, CPULL_ERR_LIMIT, "more than %llu entries in a layer",
				 (unsigned long long)writer->max_entries);
	/* a root without an entry: something that is the same at every unpacking */
	if (writer->stats.entries++ == 0)
		tree_set_time(writer->tree, TREE_ROOT, tar_entry(writer->tar)->mtime);
	return wrap_entry(writer, apply(writer, tar_entry(writer->tar), err), err);
}

static int on_data(struct layer_writer *writer, struct chunk *chunk, const struct tar_data *data,
		   struct cpull_error *err)
{
	/* the content of a marker does not matter */
	if (!writer->fs->ops->file_is_open(writer->fs))
		return 0;
	writer->stats.file_bytes += data->len;
	return wrap_entry(writer, writer->fs->ops->file_data(writer->fs, chunk, data, err), err);
}

static int on_end(struct layer_writer *writer, struct cpull_error *err)
{
	if (!writer->fs->ops->file_is_open(writer->fs))
		return 0;
	return wrap_entry(writer, writer->fs->ops->file_close(writer->fs, tar_entry(writer->tar), err), err);
}

/* At the end of a chunk: what came before it must not be held any more. */
static int yield(struct layer_writer *writer, struct cpull_error *err)
{
	int rc = wrap_entry(writer, writer->fs->ops->yield(writer->fs, err), err);

	return rc ? rc : writer->fs->ops->hand_over(writer->fs, err);
}

static int feed(struct layer_writer *writer, struct chunk *chunk, struct cpull_error *err)
{
	struct tar_input in = {.data = chunk->data, .len = chunk->len};
	struct tar_data data;
	int rc = 0;

	assert(!writer->finished);
	while (!writer->ended && !rc) {
		int event = tar_next(writer->tar, &in, &data, err);

		if (event < 0)
			return event;
		switch ((enum tar_event)event) {
		case TAR_MORE:
			return yield(writer, err);
		case TAR_ENTRY:
			rc = on_entry(writer, err);
			break;
		case TAR_DATA:
			rc = on_data(writer, chunk, &data, err);
			break;
		case TAR_ENTRY_END:
			rc = on_end(writer, err);
			break;
		case TAR_END:
			writer->ended = true;
			return yield(writer, err);
		}
	}
	return rc;
}

/* What an earlier entry's job failed with comes before rc. */
static int first_error(struct layer_writer *writer, int rc, struct cpull_error *err)
{
	struct cpull_error earlier = {0};

	if (rc && writer->fs->ops->wait(writer->fs, &earlier))
		return error_copy(err, &earlier);
	return rc;
}

int layer_writer_feed(struct layer_writer *writer, struct chunk *chunk, struct cpull_error *err)
{
	return first_error(writer, feed(writer, chunk, err), err);
}

int layer_writer_finish(struct layer_writer *writer, struct layer_writer_stats *out, struct cpull_error *err)
{
	const struct tree_place root = {.handle = writer->fs->root, .dir = TREE_ROOT};
	struct layer_fs_stats stats = {0};
	int rc = writer->fs->ops->wait(writer->fs, err);

	if (!rc)
		rc = tar_finish(writer->tar, err);
	if (rc)
		return rc;
	writer->finished = true;
	rc = tree_clear(writer->tree, root, PLNK_DIR, err);
	if (!rc)
		rc = whiteout_sweep(writer->tree, err);
	if (!rc)
		rc = tree_settle_all(writer->tree, 0, err);
	if (rc)
		return rc;
	tree_close_cache(writer->tree);
	writer->fs->ops->end_files(writer->fs, &stats);
	writer->stats.bulk_way = stats.bulk_way;
	writer->stats.helper = stats.helper;
	if (out)
		*out = writer->stats;
	/* it may wait long for the layers below */
	return layer_writer_has_loose_ends(writer) ? writer->fs->ops->rest(writer->fs, err) : 0;
}

bool layer_writer_has_loose_ends(const struct layer_writer *writer)
{
	return loose_ends_exist(&writer->loose, writer->tree);
}

int layer_writer_tie(struct layer_writer *writer, const struct lower_layer *lowers, size_t count,
		     struct cpull_error *err)
{
	assert(writer->finished);
	return loose_ends_tie(&writer->loose, writer->tree, lowers, count, err);
}

int layer_writer_seal(struct layer_writer *writer, struct cpull_error *err)
{
	assert(writer->finished);
	return writer->fs->ops->finish(writer->fs, err);
}
