/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of a layer that becomes an image: link counts, directories, the image itself. Used by one layer's writer on
 * its thread; owns one array, as long as the largest directory.
 */
#include <assert.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/erofs_fs_internal.h"

/* Of what has one name nothing needs to be said, and what has none is not there. */
static int set_links(struct erofs_fs *fs, struct cpull_error *err)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < fs->links.cap; i++)
		if (fs->links.keys[i] && fs->links.values[i] > 1)
			rc = erofs_image_set_links(fs->image, fs->links.keys[i], fs->links.values[i], err);
	return rc;
}

struct finish {
	struct erofs_fs *fs;
	struct erofs_entry *entries;
	struct tar_xattr xattrs[LIMIT_XATTRS];
};

static int make_room(struct finish *f, struct cpull_error *err)
{
	const struct erofs_names *names = &f->fs->names;
	uint32_t most = 1;

	for (uint32_t i = 0; i < names->dir_count; i++)
		most = MAX(most, erofs_dir_at(names, i)->count);
	f->entries = malloc(most * sizeof(*f->entries));
	return f->entries ? 0 : error_nomem(err);
}

static struct erofs_directory describe(struct finish *f, uint32_t dir)
{
	struct erofs_names *names = &f->fs->names;
	const struct erofs_dir *d = erofs_dir_at(names, dir);
	struct erofs_directory out = {
		.attributes = {.mode = S_IFDIR | d->mode, .uid = d->uid, .gid = d->gid, .opaque = d->opaque,
			       .mtime = {.tv_sec = (time_t)d->mtime_sec, .tv_nsec = (long)d->mtime_nsec},
			       .xattrs = f->xattrs},
		.entries = f->entries,
		.root = dir == EROFS_ROOT_DIR,
	};

	out.attributes.xattr_count = erofs_xattr_sets_get(&f->fs->xattrs, d->xattrs, f->xattrs);
	if (!out.root)
		out.parent = erofs_dir_at(names, erofs_name_at(names, d->name)->dir)->nid;
	for (uint32_t i = erofs_names_first(names, dir); i != EROFS_NO_NAME; i = erofs_names_next(names, i)) {
		const struct erofs_name *name = erofs_name_at(names, i);

		f->entries[out.count++] = (struct erofs_entry){
			.name = erofs_name_text(names, name),
			.len = name->len,
			.nid = name->type == EROFS_DIRECTORY ? erofs_dir_at(names, name->what)->nid : name->what,
			.type = (enum erofs_type)name->type,
		};
	}
	return out;
}

static int place(struct finish *f, uint32_t dir, struct cpull_error *err)
{
	uint64_t nid;

	erofs_names_sort(&f->fs->names, dir);

	const struct erofs_directory directory = describe(f, dir);
	int rc = erofs_image_dir_place(f->fs->image, &directory, &nid, err);

	if (rc)
		return rc;
	assert(nid <= UINT32_MAX);
	erofs_dir_at(&f->fs->names, dir)->nid = (uint32_t)nid;
	return 0;
}

static int write_dir(struct finish *f, uint32_t dir, struct cpull_error *err)
{
	const struct erofs_directory directory = describe(f, dir);

	return erofs_image_dir_write(f->fs->image, erofs_dir_at(&f->fs->names, dir)->nid, &directory, err);
}

/* In the order in which they were made: parents before what is in them, mostly. */
static int for_all(struct finish *f, int (*fn)(struct finish *f, uint32_t dir, struct cpull_error *err),
		   struct cpull_error *err)
{
	const struct erofs_names *names = &f->fs->names;
	char path[512], quoted[1024];

	for (uint32_t i = 0; i < names->dir_count; i++) {
		int rc = erofs_dir_is_there(names, i) ? fn(f, i, err) : 0;
		const char *shown;

		if (!rc)
			continue;
		shown = erofs_names_path(names, i, path, sizeof(path));
		return err ? error_wrap(err, "directory \"%s\"",
					error_quote(shown, strlen(shown), quoted, sizeof(quoted))) : rc;
	}
	return 0;
}

int erofs_fs_finish(struct layer_fs *fs, struct cpull_error *err)
{
	struct finish f = {.fs = erofs_fs(fs)};
	int rc = set_links(f.fs, err);

	assert(f.fs->file == EROFS_NO_NAME);
	if (!rc)
		rc = make_room(&f, err);
	if (!rc)
		rc = for_all(&f, place, err);
	if (!rc)
		rc = for_all(&f, write_dir, err);
	free(f.entries);
	return rc ? rc : erofs_image_finish(f.fs->image, erofs_dir_at(&f.fs->names, EROFS_ROOT_DIR)->nid,
					    &f.fs->result, err);
}
