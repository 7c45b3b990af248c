/* SPDX-License-Identifier: Apache-2.0
 *
 * A layer as one EROFS image: what layer_fs.h asks for, over names in memory and the builder of images. Used by one
 * layer's writer on its thread; owns both.
 *
 * The data of files and all inodes but those of directories leave as they come; directories stay until the end, as any
 * later entry may change them. What a later entry replaces is left behind in the image, without a name.
 */
#include "snapshot/erofs_fs.h"

#include <errno.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/erofs_fs_internal.h"

int erofs_fs_error(int num, const char *what, struct cpull_error *err)
{
	if (num == -ENOMEM)
		return error_nomem(err);
	if (num == -EFBIG)
		return error_set(err, CPULL_ERR_LIMIT, "more than %u names, %u directories, %u bytes of names or %u of "
				 "symlinks' targets, which are kept in memory for an EROFS image; pull it with "
				 "--snapshot overlay", LIMIT_EROFS_NAMES, LIMIT_EROFS_DIRS, LIMIT_EROFS_NAME_BYTES,
				 LIMIT_EROFS_TARGET_BYTES);
	return error_sys(err, CPULL_ERR_STORAGE, -num, "%s", what);
}

mode_t erofs_fs_mode(enum erofs_type type)
{
	static const mode_t modes[] = {[EROFS_REGULAR] = S_IFREG, [EROFS_DIRECTORY] = S_IFDIR, [EROFS_CHAR] = S_IFCHR,
				       [EROFS_BLOCK] = S_IFBLK, [EROFS_FIFO] = S_IFIFO, [EROFS_SOCKET] = S_IFSOCK,
				       [EROFS_SYMLINK] = S_IFLNK};

	return modes[type];
}

/* ---- directories ---- */

static int stat_dir(struct layer_fs *fs, int dir, struct stat *out)
{
	(void)fs;
	*out = (struct stat){.st_ino = erofs_fs_dir_ino((uint32_t)dir), .st_mode = S_IFDIR, .st_nlink = 1};
	return 0;
}

static int reset_root(struct layer_fs *fs, struct stat *out, struct cpull_error *err)
{
	(void)err;
	return stat_dir(fs, fs->root, out);
}

static void close_dir(struct layer_fs *fs, int dir)
{
	(void)fs;
	(void)dir;
}

static int make_dir(struct layer_fs *fs, int dir, const char *name, struct stat *out)
{
	uint32_t made;
	int rc = erofs_names_add_dir(&erofs_fs(fs)->names, (uint32_t)dir, name, &made);

	if (rc)
		return rc == 1 ? -EEXIST : rc;
	return stat_dir(fs, (int)made, out);
}

static int list(struct layer_fs *fs, int dir, layer_each_fn each, void *payload, struct cpull_error *err)
{
	struct erofs_names *names = &erofs_fs(fs)->names;
	char text[LIMIT_NAME_BYTES + 1];
	int rc = 0;

	for (uint32_t i = erofs_names_first(names, (uint32_t)dir); rc >= 0 && i != EROFS_NO_NAME;
	     i = erofs_names_next(names, i)) {
		const struct erofs_name *name = erofs_name_at(names, i);

		memcpy(text, erofs_name_text(names, name), name->len);
		text[name->len] = 0;
		rc = each(payload, text, err);
	}
	return MIN(rc, 0);
}

/* In place of one of the same name. */
static int put_xattr(struct tar_xattr set[LIMIT_XATTRS], size_t *count, const struct tar_xattr *xattr,
		     struct cpull_error *err)
{
	size_t i = 0;

	while (i < *count && strcmp(set[i].name, xattr->name) != 0)
		i++;
	if (i == LIMIT_XATTRS)
		return error_set(err, CPULL_ERR_LIMIT, "it has more than %u extended attributes", LIMIT_XATTRS);
	set[i] = *xattr;
	*count += i == *count;
	return 0;
}

static int set_xattrs(struct layer_fs *fs, int dir, const struct tar_xattr *xattrs, size_t count,
		      enum attributes_part part, bool replace, struct cpull_error *err)
{
	struct erofs_fs *self = erofs_fs(fs);
	struct erofs_dir *d = erofs_dir_at(&self->names, (uint32_t)dir);
	struct tar_xattr set[LIMIT_XATTRS];
	size_t kept = replace ? 0 : erofs_xattr_sets_get(&self->xattrs, d->xattrs, set);

	for (size_t i = 0; i < count; i++) {
		if (part == ATTRIBUTES_NO_ACL && attributes_is_acl(xattrs[i].name))
			continue;

		int rc = attributes_check(&xattrs[i], S_IFDIR, &fs->notes, err);

		if (rc > 0)
			rc = put_xattr(set, &kept, &xattrs[i], err);
		if (rc < 0)
			return rc;
	}

	/* while it is known whose they are: at the end they must be no surprise */
	const struct erofs_attributes attributes = {.mode = S_IFDIR, .xattrs = set, .xattr_count = kept};
	uint32_t mode;
	int rc = erofs_xattrs_encode(&attributes, &self->encoded, &mode, &fs->notes, err);

	return rc ? rc : erofs_xattr_sets_add(&self->xattrs, set, kept, &d->xattrs, err);
}

static int set_stat(struct layer_fs *fs, int dir, uid_t uid, gid_t gid, mode_t mode, struct timespec mtime,
		    struct cpull_error *err)
{
	struct erofs_dir *d = erofs_dir_at(&erofs_fs(fs)->names, (uint32_t)dir);

	(void)err;
	d->uid = uid;
	d->gid = gid;
	d->mode = (uint16_t)(mode & 07777);
	d->mtime_sec = mtime.tv_sec;
	d->mtime_nsec = (uint32_t)mtime.tv_nsec;
	return 0;
}

static int set_opaque(struct layer_fs *fs, int dir, struct cpull_error *err)
{
	(void)err;
	erofs_dir_at(&erofs_fs(fs)->names, (uint32_t)dir)->opaque = true;
	return 0;
}

/* ---- the whole ---- */

/* Nothing is held longer than a call. */
static int nothing(struct layer_fs *fs, struct cpull_error *err)
{
	(void)fs;
	(void)err;
	return 0;
}

static void end_files(struct layer_fs *fs, struct layer_fs_stats *out)
{
	*out = (struct layer_fs_stats){.bulk_way = erofs_image_way(erofs_fs(fs)->image)};
}

/* Names stay, everything else can wait in files. */
static int rest(struct layer_fs *fs, struct cpull_error *err)
{
	return erofs_image_rest(erofs_fs(fs)->image, err);
}

static void free_fs(struct layer_fs *fs)
{
	struct erofs_fs *self = erofs_fs(fs);

	erofs_image_free(self->image);
	erofs_names_free(&self->names);
	erofs_xattr_sets_free(&self->xattrs);
	bytes_free(&self->encoded);
	map_free(&self->links);
	free(self);
}

static const struct layer_fs_ops erofs_fs_ops = {
	.reset_root = reset_root,
	.follow = erofs_fs_follow,
	.follow_making = erofs_fs_follow_making,
	.open = erofs_fs_open,
	.close = close_dir,
	.stat_dir = stat_dir,
	.mkdir = make_dir,
	.list = list,
	.set_xattrs = set_xattrs,
	.set_stat = set_stat,
	.set_opaque = set_opaque,
	.inherit = erofs_fs_inherit,
	.stat = erofs_fs_stat,
	.read_link = erofs_fs_read_link,
	.unlink = erofs_fs_unlink,
	.rmdir = erofs_fs_rmdir,
	.remove_tree = erofs_fs_remove_tree,
	.rename = erofs_fs_rename,
	.make_whiteout = erofs_fs_make_whiteout,
	.is_whiteout = erofs_fs_is_whiteout,
	.file_open = erofs_fs_file_open,
	.file_is_open = erofs_fs_file_is_open,
	.file_data = erofs_fs_file_data,
	.file_close = erofs_fs_file_close,
	.yield = nothing,
	.hand_over = nothing,
	.wait = nothing,
	.symlink = erofs_fs_symlink,
	.node = erofs_fs_node,
	.link = erofs_fs_link,
	.copy = erofs_fs_copy,
	.restat = erofs_fs_restat,
	.end_files = end_files,
	.rest = rest,
	.finish = erofs_fs_finish,
	.free = free_fs,
};

int erofs_fs_new(const struct erofs_image_options *options, struct layer_fs **out, struct cpull_error *err)
{
	struct erofs_fs *self = calloc(1, sizeof(*self));
	struct erofs_image_options own = *options;

	if (!self)
		return error_nomem(err);
	self->fs.ops = &erofs_fs_ops;
	self->fs.root = EROFS_ROOT_DIR;
	self->fs.notes.log = options->log;
	own.notes = &self->fs.notes;

	int rc = erofs_image_new(&own, &self->image, err);

	if (!rc && erofs_names_init(&self->names, NULL))
		rc = error_nomem(err);
	if (rc) {
		free_fs(&self->fs);
		return rc;
	}
	self->xattrs.seed = self->names.seed;
	*out = &self->fs;
	return 0;
}

const struct erofs_image_result *erofs_fs_result(const struct layer_fs *fs)
{
	return &((const struct erofs_fs *)(const void *)((const char *)fs - offsetof(struct erofs_fs, fs)))->result;
}
