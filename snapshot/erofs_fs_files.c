/* SPDX-License-Identifier: Apache-2.0
 *
 * Everything but directories in a layer that becomes an image. Used by one layer's writer on its thread; owns nothing.
 *
 * An inode is written once, as its entry comes; of names and links the names in memory tell. The targets of symlinks
 * stay with their names, for paths that lead through them: in most layers that is less than a hundred KB, where reading
 * them back from the spool, and long ones from the image, would be code of its own.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/erofs_fs_internal.h"

static const char adding[] = "adding a name";

static bool taken(const struct erofs_fs *fs, int dir, const char *name)
{
	return erofs_names_find(&fs->names, (uint32_t)dir, name) != EROFS_NO_NAME;
}

static struct erofs_attributes attributes_of(const struct tar_entry *entry, mode_t type)
{
	return (struct erofs_attributes){
		.mode = type | (S_ISLNK(type) ? 0777 : entry->mode & 07777),
		.uid = entry->uid,
		.gid = entry->gid,
		.mtime = entry->mtime,
		.xattrs = entry->xattrs,
		.xattr_count = entry->xattr_count,
	};
}

int erofs_fs_add_made(struct erofs_fs *fs, int dir, const char *name, enum erofs_type type, uint64_t nid,
		      const char *target, struct cpull_error *err)
{
	uint32_t added;

	assert(nid <= UINT32_MAX);

	int rc = erofs_names_add(&fs->names, (uint32_t)dir, name, type, (uint32_t)nid, target, &added);

	return rc < 0 ? erofs_fs_error(rc, adding, err) : rc;
}

/* ---- regular files ---- */

int erofs_fs_file_open(struct layer_fs *fs, int dir, const char *name, const struct tar_entry *entry,
		       struct cpull_error *err)
{
	struct erofs_fs *self = erofs_fs(fs);
	uint32_t added;
	int rc = erofs_names_add(&self->names, (uint32_t)dir, name, EROFS_REGULAR, 0, NULL, &added);

	assert(self->file == EROFS_NO_NAME);
	if (rc)
		return rc < 0 ? erofs_fs_error(rc, adding, err) : rc;
	self->file = added;
	self->attributes = attributes_of(entry, S_IFREG);
	return erofs_image_file_begin(self->image, &self->attributes, entry->size, entry->sparse, err);
}

bool erofs_fs_file_is_open(const struct layer_fs *fs)
{
	return ((const struct erofs_fs *)(const void *)((const char *)fs - offsetof(struct erofs_fs, fs)))->file !=
	       EROFS_NO_NAME;
}

int erofs_fs_file_data(struct layer_fs *fs, struct chunk *chunk, const struct tar_data *data,
		       struct cpull_error *err)
{
	(void)chunk;
	return erofs_image_file_data(erofs_fs(fs)->image, data, err);
}

int erofs_fs_file_close(struct layer_fs *fs, const struct tar_entry *entry, struct cpull_error *err)
{
	struct erofs_fs *self = erofs_fs(fs);
	uint64_t nid;
	int rc = erofs_image_file_end(self->image, &nid, err);

	(void)entry;
	if (rc)
		return rc;
	assert(nid <= UINT32_MAX);
	erofs_name_at(&self->names, self->file)->what = (uint32_t)nid;
	self->file = EROFS_NO_NAME;
	return 0;
}

/* ---- the others ---- */

int erofs_fs_symlink(struct layer_fs *fs, int dir, const char *name, const struct tar_entry *entry,
		     struct cpull_error *err)
{
	struct erofs_fs *self = erofs_fs(fs);
	const struct erofs_attributes attributes = attributes_of(entry, S_IFLNK);
	uint64_t nid;

	if (taken(self, dir, name))
		return 1;

	int rc = erofs_image_symlink(self->image, &attributes, entry->link, &nid, err);

	return rc ? rc : erofs_fs_add_made(self, dir, name, EROFS_SYMLINK, nid, entry->link, err);
}

int erofs_fs_node(struct layer_fs *fs, int dir, const char *name, const struct tar_entry *entry,
		  struct cpull_error *err)
{
	struct erofs_fs *self = erofs_fs(fs);
	enum erofs_type type = entry->type == TAR_CHAR    ? EROFS_CHAR
			       : entry->type == TAR_BLOCK ? EROFS_BLOCK
							  : EROFS_FIFO;
	const struct erofs_attributes attributes = attributes_of(entry, erofs_fs_mode(type));
	uint64_t nid;

	if (taken(self, dir, name))
		return 1;

	int rc = erofs_image_node(self->image, &attributes, entry->dev_major, entry->dev_minor, &nid, err);

	return rc ? rc : erofs_fs_add_made(self, dir, name, type, nid, NULL, err);
}

int erofs_fs_link(struct layer_fs *fs, int from, const char *from_name, const struct stat *st, int dir,
		  const char *name, struct cpull_error *err)
{
	struct erofs_fs *self = erofs_fs(fs);
	uint32_t found = erofs_names_find(&self->names, (uint32_t)from, from_name);
	const struct erofs_name *file = erofs_name_at(&self->names, found);
	char target[LIMIT_PATH_BYTES];

	(void)st;
	if (found == EROFS_NO_NAME || file->type == EROFS_DIRECTORY)
		return error_sys(err, CPULL_ERR_STORAGE, found == EROFS_NO_NAME ? ENOENT : EPERM, "making a hard link");
	if (file->type == EROFS_SYMLINK)
		erofs_names_target(&self->names, found, target);

	int rc = erofs_fs_add_made(self, dir, name, (enum erofs_type)file->type, file->what,
				   file->type == EROFS_SYMLINK ? target : NULL, err);

	if (!rc && map_put(&self->links, file->what, map_get(&self->links, file->what, 1) + 1))
		rc = error_nomem(err);
	return rc;
}

int erofs_fs_restat(struct layer_fs *fs, int dir, const char *name, const struct stat *st,
		    const struct tar_entry *entry, struct cpull_error *err)
{
	struct erofs_fs *self = erofs_fs(fs);
	uint32_t found = erofs_names_find(&self->names, (uint32_t)dir, name);
	const struct erofs_name *file = erofs_name_at(&self->names, found);

	(void)st;
	if (found == EROFS_NO_NAME || file->type == EROFS_DIRECTORY)
		return error_sys(err, CPULL_ERR_STORAGE, found == EROFS_NO_NAME ? ENOENT : EISDIR,
				 "setting attributes of a hard link");

	const struct erofs_attributes attributes = attributes_of(entry, erofs_fs_mode((enum erofs_type)file->type));

	return erofs_image_set_stat(self->image, file->what, &attributes, err);
}

/* ---- whiteouts ---- */

/* One inode is enough for all of them, as overlayfs itself has it in its upper layers. */
static int make_whiteout_inode(struct erofs_fs *fs, struct cpull_error *err)
{
	static const struct erofs_attributes attributes = {.mode = S_IFCHR};
	uint64_t nid;
	int rc = erofs_image_node(fs->image, &attributes, 0, 0, &nid, err);

	if (rc)
		return rc;
	assert(nid <= UINT32_MAX);
	if (map_put(&fs->links, nid, 0))
		return error_nomem(err);
	fs->whiteout = (uint32_t)nid;
	return 0;
}

int erofs_fs_make_whiteout(struct layer_fs *fs, int dir, const char *name, bool first, struct cpull_error *err)
{
	struct erofs_fs *self = erofs_fs(fs);
	int rc = self->whiteout ? 0 : make_whiteout_inode(self, err);

	(void)first;
	if (!rc)
		rc = erofs_fs_add_made(self, dir, name, EROFS_CHAR, self->whiteout, NULL, err);
	if (rc)
		return rc < 0 ? rc : error_sys(err, CPULL_ERR_STORAGE, EEXIST, "making a whiteout");
	++*map_find(&self->links, self->whiteout);
	return 0;
}

bool erofs_fs_is_whiteout(struct layer_fs *fs, int dir, const char *name, const struct stat *st)
{
	(void)fs;
	(void)dir;
	(void)name;
	return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}
