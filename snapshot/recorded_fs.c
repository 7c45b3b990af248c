/* SPDX-License-Identifier: Apache-2.0
 *
 * struct layer_fs in front of a dir_fs: hands every call on, and notes in the list what it did. Called on the thread of
 * one layer's writer, like what is behind it, which it owns; owns the list, too.
 *
 * Nothing is asked of the kernel for the list's sake where the entry says it all, which is nearly everywhere: a file
 * costs a hash of its data and some twenty bytes. What has extended attributes is read back, as is a copy.
 */
#include "snapshot/recorded_fs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "engine/base/error.h"
#include "snapshot/checksum.h"
#include "snapshot/xattr_sum.h"

/* Handles whose directory is known without a system call: more than tree.c has open at a time. */
#define KNOWN_HANDLES 16u
#define READ_BYTES ((size_t)64 << 10)

struct known {
	int handle; /* or -1 */
	uint64_t inode;
};

struct recorded_fs {
	struct layer_fs fs;
	struct layer_fs *disk;
	struct contents_writer *list;
	struct contents_facts facts;
	struct cpull_error failed; /* where there was no other way to say it */
	struct known known[KNOWN_HANDLES];
	unsigned next; /* of known, to be replaced */

	/* the file at work */
	struct checksum *sum;
	const struct tar_entry *entry; /* NULL: noted already */
	int dir;
	uint64_t whole; /* its sum, where it came in one piece */
	bool begun;     /* several */
	char name[LIMIT_NAME_BYTES + 1];
};

static struct recorded_fs *recorded(const struct layer_fs *fs)
{
	return (struct recorded_fs *)((char *)(uintptr_t)fs - offsetof(struct recorded_fs, fs));
}

/* ---- handles ---- */

static void forget(struct recorded_fs *r, int handle)
{
	for (unsigned i = 0; i < KNOWN_HANDLES; i++)
		if (r->known[i].handle == handle)
			r->known[i].handle = -1;
}

static void learn(struct recorded_fs *r, int handle, uint64_t inode)
{
	forget(r, handle);
	r->known[r->next++ % KNOWN_HANDLES] = (struct known){handle, inode};
}

static int inode_of(struct recorded_fs *r, int handle, uint64_t *out)
{
	struct stat st;

	for (unsigned i = 0; i < KNOWN_HANDLES; i++) {
		if (r->known[i].handle != handle)
			continue;
		*out = r->known[i].inode;
		return 0;
	}

	int rc = r->disk->ops->stat_dir(r->disk, handle, &st);

	if (rc)
		return rc;
	learn(r, handle, st.st_ino);
	*out = st.st_ino;
	return 0;
}

/* ---- notes ---- */

static struct contents_name name_of(const char *name)
{
	return (struct contents_name){name, strlen(name)};
}

static int note(struct recorded_fs *r, int dir, const struct contents_record *record, struct cpull_error *err)
{
	uint64_t inode;
	int rc = inode_of(r, dir, &inode);

	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "looking at a directory");
	return contents_writer_add(r->list, inode, record, err);
}

/* The same for calls that give an errno: the reason is told in the end. */
static int note_errno(struct recorded_fs *r, int dir, const struct contents_record *record)
{
	struct cpull_error err = {0};

	if (!note(r, dir, record, &err))
		return 0;
	if (!r->failed.code)
		r->failed = err;
	return err.sys_errno ? -err.sys_errno : -EIO;
}

static int note_name(struct recorded_fs *r, int dir, enum contents_type type, const char *name)
{
	const struct contents_record record = {.type = type, .name = name_of(name)};

	return note_errno(r, dir, &record);
}

static void take_stat(struct contents_record *record, const struct stat *st)
{
	record->mode = st->st_mode;
	record->uid = st->st_uid;
	record->gid = st->st_gid;
	record->mtime = st->st_mtim;
}

/* The attributes of something that is complete, as the file system has them. */
static int read_back(struct recorded_fs *r, int dir, const char *name, struct stat *st, struct contents_record *record,
		     struct cpull_error *err)
{
	const struct attributes_file file = {.fd = -1, .dirfd = dir, .name = name};
	int rc = r->disk->ops->stat(r->disk, dir, name, st);

	if (!rc)
		rc = xattr_sum(&file, &record->xattrs);
	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "reading its attributes back");
	take_stat(record, st);
	return 0;
}

/* What an entry says, or became of it. */
static int note_entry(struct recorded_fs *r, int dir, const char *name, const struct tar_entry *entry,
		      struct contents_record *record, struct cpull_error *err)
{
	struct stat st;

	record->name = name_of(name);
	record->mode |= entry->mode;
	record->uid = entry->uid;
	record->gid = entry->gid;
	record->mtime = entry->mtime;

	int rc = entry->xattr_count ? read_back(r, dir, name, &st, record, err) : 0;

	return rc ? rc : note(r, dir, record, err);
}

/* The attributes of a directory. */
static int note_dir(struct recorded_fs *r, int dir, struct contents_record *record, struct cpull_error *err)
{
	const struct attributes_file file = {.fd = dir, .type = S_IFDIR};
	int rc = xattr_sum(&file, &record->xattrs);

	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "reading a directory's attributes back");
	record->type = CONTENTS_SETTLED;
	return note(r, dir, record, err);
}

static int note_dir_anew(struct recorded_fs *r, int dir, struct cpull_error *err)
{
	struct contents_record record = {0};
	struct stat st;
	int rc = r->disk->ops->stat_dir(r->disk, dir, &st);

	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "reading a directory's attributes back");
	take_stat(&record, &st);
	return note_dir(r, dir, &record, err);
}

/* ---- directories ---- */

static int reset_root(struct layer_fs *fs, struct stat *out, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	int rc = r->disk->ops->reset_root(r->disk, out, err);

	if (rc)
		return rc;
	learn(r, fs->root, out->st_ino);
	/* so that the root comes first */
	return note_dir_anew(r, fs->root, err);
}

static int follow(struct layer_fs *fs, const char *path)
{
	struct recorded_fs *r = recorded(fs);

	return r->disk->ops->follow(r->disk, path);
}

struct asking {
	struct recorded_fs *r;
	resolve_missing_fn missing;
	void *payload;
};

/* The walk's own descriptor, which it closes by itself. */
static int ask(void *payload, int dirfd, const char *name)
{
	const struct asking *asking = payload;
	int rc = asking->missing(asking->payload, dirfd, name);

	forget(asking->r, dirfd);
	return rc;
}

static int follow_making(struct layer_fs *fs, const char *path, resolve_missing_fn missing, void *payload)
{
	struct recorded_fs *r = recorded(fs);
	struct asking asking = {r, missing, payload};

	return r->disk->ops->follow_making(r->disk, path, ask, &asking);
}

static int open_dir(struct layer_fs *fs, const char *path, enum layer_dir_use use)
{
	struct recorded_fs *r = recorded(fs);

	return r->disk->ops->open(r->disk, path, use);
}

static void close_dir(struct layer_fs *fs, int dir)
{
	struct recorded_fs *r = recorded(fs);

	forget(r, dir);
	r->disk->ops->close(r->disk, dir);
}

static int stat_dir(struct layer_fs *fs, int dir, struct stat *out)
{
	struct recorded_fs *r = recorded(fs);
	int rc = r->disk->ops->stat_dir(r->disk, dir, out);

	if (!rc)
		learn(r, dir, out->st_ino);
	return rc;
}

static int make_dir(struct layer_fs *fs, int dir, const char *name, struct stat *out)
{
	struct recorded_fs *r = recorded(fs);
	int rc = r->disk->ops->mkdir(r->disk, dir, name, out);

	if (rc)
		return rc;

	const struct contents_record record = {.type = CONTENTS_MKDIR, .name = name_of(name), .inode = out->st_ino};

	return note_errno(r, dir, &record);
}

static int list_dir(struct layer_fs *fs, int dir, layer_each_fn each, void *payload, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);

	return r->disk->ops->list(r->disk, dir, each, payload, err);
}

static int set_xattrs(struct layer_fs *fs, int dir, const struct tar_xattr *xattrs, size_t count,
		      enum attributes_part part, bool replace, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	int rc = r->disk->ops->set_xattrs(r->disk, dir, xattrs, count, part, replace, err);

	return rc ? rc : note_dir_anew(r, dir, err);
}

static int set_stat(struct layer_fs *fs, int dir, uid_t uid, gid_t gid, mode_t mode, struct timespec mtime,
		    struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	struct contents_record record = {.mode = mode, .uid = uid, .gid = gid, .mtime = mtime};
	int rc = r->disk->ops->set_stat(r->disk, dir, uid, gid, mode, mtime, err);

	return rc ? rc : note_dir(r, dir, &record, err);
}

static int set_opaque(struct layer_fs *fs, int dir, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	int rc = r->disk->ops->set_opaque(r->disk, dir, err);

	return rc ? rc : note_dir_anew(r, dir, err);
}

static int inherit(struct layer_fs *fs, int dir, const struct lower_layer *from, const char *path,
		   struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	int rc = r->disk->ops->inherit(r->disk, dir, from, path, err);

	return rc ? rc : note_dir_anew(r, dir, err);
}

/* ---- names ---- */

static int stat_name(struct layer_fs *fs, int dir, const char *name, struct stat *out)
{
	struct recorded_fs *r = recorded(fs);

	return r->disk->ops->stat(r->disk, dir, name, out);
}

static int read_link(struct layer_fs *fs, int dir, const char *name, char *out)
{
	struct recorded_fs *r = recorded(fs);

	return r->disk->ops->read_link(r->disk, dir, name, out);
}

static int unlink_name(struct layer_fs *fs, int dir, const char *name)
{
	struct recorded_fs *r = recorded(fs);
	int rc = r->disk->ops->unlink(r->disk, dir, name);

	return rc ? rc : note_name(r, dir, CONTENTS_GONE, name);
}

static int remove_dir(struct layer_fs *fs, int dir, const char *name)
{
	struct recorded_fs *r = recorded(fs);
	int rc = r->disk->ops->rmdir(r->disk, dir, name);

	return rc ? rc : note_name(r, dir, CONTENTS_GONE, name);
}

static int remove_tree(struct layer_fs *fs, int dir, const char *name, fs_gone_fn gone, void *payload,
		       struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	const struct contents_record record = {.type = CONTENTS_GONE, .name = name_of(name)};
	int rc = r->disk->ops->remove_tree(r->disk, dir, name, gone, payload, err);

	return rc ? rc : note(r, dir, &record, err);
}

static int rename_name(struct layer_fs *fs, int from, const char *from_name, int to, const char *to_name)
{
	struct recorded_fs *r = recorded(fs);
	struct contents_record record = {
		.type = CONTENTS_RENAME, .name = name_of(from_name), .other = name_of(to_name)};
	int rc = inode_of(r, to, &record.inode);

	if (!rc)
		rc = r->disk->ops->rename(r->disk, from, from_name, to, to_name);
	return rc ? rc : note_errno(r, from, &record);
}

static int make_whiteout(struct layer_fs *fs, int dir, const char *name, bool first, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	const struct contents_record record = {.type = CONTENTS_WHITEOUT, .name = name_of(name)};
	int rc = r->disk->ops->make_whiteout(r->disk, dir, name, first, err);

	return rc ? rc : note(r, dir, &record, err);
}

static bool is_whiteout(struct layer_fs *fs, int dir, const char *name, const struct stat *st)
{
	struct recorded_fs *r = recorded(fs);

	return r->disk->ops->is_whiteout(r->disk, dir, name, st);
}

/* ---- regular files ---- */

static int file_open(struct layer_fs *fs, int dir, const char *name, const struct tar_entry *entry,
		     struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	int rc = r->disk->ops->file_open(r->disk, dir, name, entry, err);

	if (rc)
		return rc;
	r->entry = entry;
	r->dir = dir;
	r->whole = 0;
	r->begun = false;
	snprintf(r->name, sizeof(r->name), "%s", name);
	return 0;
}

static bool file_is_open(const struct layer_fs *fs)
{
	const struct recorded_fs *r = recorded(fs);

	return r->disk->ops->file_is_open(r->disk);
}

static void sum_data(struct recorded_fs *r, const struct tar_data *data)
{
	bool sparse = r->entry->sparse;

	if (!sparse && data->len == r->entry->size) {
		r->whole = checksum_of(data->data, data->len);
		return;
	}
	if (!r->begun)
		(sparse ? checksum_sparse_begin : checksum_begin)(r->sum);
	r->begun = true;
	if (sparse)
		checksum_sparse_add(r->sum, data->data, data->len, data->offset);
	else
		checksum_add(r->sum, data->data, data->len);
}

static uint64_t take_sum(struct recorded_fs *r)
{
	if (r->entry->sparse) {
		if (!r->begun)
			checksum_sparse_begin(r->sum);
		return checksum_sparse_end(r->sum);
	}
	return r->begun ? checksum_end(r->sum) : r->entry->size ? r->whole : checksum_of("", 0);
}

static int note_file(struct recorded_fs *r, struct cpull_error *err)
{
	const struct tar_entry *entry = r->entry;
	struct contents_record record = {
		.type = CONTENTS_FILE, .size = entry->size, .sparse = entry->sparse, .sum = take_sum(r)};

	r->entry = NULL;
	return note_entry(r, r->dir, r->name, entry, &record, err);
}

static int file_data(struct layer_fs *fs, struct chunk *chunk, const struct tar_data *data, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);

	/* before it is another thread's, or the kernel's */
	sum_data(r, data);

	int rc = r->disk->ops->file_data(r->disk, chunk, data, err);

	return rc || r->disk->ops->file_is_open(r->disk) ? rc : note_file(r, err);
}

static int file_close(struct layer_fs *fs, const struct tar_entry *entry, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	int rc = r->disk->ops->file_close(r->disk, entry, err);

	return rc ? rc : note_file(r, err);
}

static int yield(struct layer_fs *fs, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);

	return r->disk->ops->yield(r->disk, err);
}

static int hand_over(struct layer_fs *fs, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);

	return r->disk->ops->hand_over(r->disk, err);
}

static int wait_all(struct layer_fs *fs, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);

	return r->disk->ops->wait(r->disk, err);
}

/* ---- the others ---- */

static int make_symlink(struct layer_fs *fs, int dir, const char *name, const struct tar_entry *entry,
			struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	size_t len = strlen(entry->link);
	struct contents_record record = {
		.type = CONTENTS_SYMLINK, .size = len, .sum = checksum_of(entry->link, len)};
	int rc = r->disk->ops->symlink(r->disk, dir, name, entry, err);

	return rc ? rc : note_entry(r, dir, name, entry, &record, err);
}

static int make_node(struct layer_fs *fs, int dir, const char *name, const struct tar_entry *entry,
		     struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	bool fifo = entry->type == TAR_FIFO;
	struct contents_record record = {
		.type = CONTENTS_NODE,
		.mode = fifo ? S_IFIFO : entry->type == TAR_CHAR ? S_IFCHR : S_IFBLK,
		.size = fifo ? 0 : makedev(entry->dev_major, entry->dev_minor)};
	int rc = r->disk->ops->node(r->disk, dir, name, entry, err);

	return rc ? rc : note_entry(r, dir, name, entry, &record, err);
}

static int make_link(struct layer_fs *fs, int from, const char *from_name, const struct stat *st, int dir,
		     const char *name, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	struct contents_record record = {
		.type = CONTENTS_LINK, .name = name_of(name), .other = name_of(from_name)};
	int rc = inode_of(r, from, &record.inode);

	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "looking at a directory");
	rc = r->disk->ops->link(r->disk, from, from_name, st, dir, name, err);
	return rc ? rc : note(r, dir, &record, err);
}

/* The sum of a whole file. */
static int sum_file(struct recorded_fs *r, int dir, const char *name, uint64_t *out)
{
	CLEANUP_FREE uint8_t *block = malloc(READ_BYTES);
	CLEANUP_FD int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	ssize_t n;

	if (!block)
		return -ENOMEM;
	if (fd < 0)
		return -errno;
	checksum_begin(r->sum);
	while ((n = read(fd, block, READ_BYTES)) > 0 || (n < 0 && errno == EINTR))
		checksum_add(r->sum, block, n < 0 ? 0 : (size_t)n);
	*out = checksum_end(r->sum);
	return n < 0 ? -errno : 0;
}

static int describe_copy(struct recorded_fs *r, int dir, const char *name, const struct stat *st,
			 struct contents_record *record)
{
	char target[LIMIT_PATH_BYTES];
	int rc;

	switch (st->st_mode & S_IFMT) {
	case S_IFREG:
		record->type = CONTENTS_FILE;
		record->size = (uint64_t)st->st_size;
		return sum_file(r, dir, name, &record->sum);
	case S_IFLNK:
		record->type = CONTENTS_SYMLINK;
		rc = r->disk->ops->read_link(r->disk, dir, name, target);
		record->size = rc ? 0 : strlen(target);
		record->sum = checksum_of(target, record->size);
		return rc;
	default:
		record->type = CONTENTS_NODE;
		record->size = st->st_rdev;
		return 0;
	}
}

static int copy(struct layer_fs *fs, const struct lower_layer *from, const char *path, const struct stat *st, int dir,
		const char *name, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	struct contents_record record = {.name = name_of(name)};
	struct stat made;
	int rc = r->disk->ops->copy(r->disk, from, path, st, dir, name, err);

	if (!rc)
		rc = read_back(r, dir, name, &made, &record, err);
	if (rc)
		return rc;
	rc = describe_copy(r, dir, name, &made, &record);
	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "reading a copy back");
	return note(r, dir, &record, err);
}

static bool says_the_same(const struct stat *st, const struct tar_entry *entry)
{
	return st->st_uid == entry->uid && st->st_gid == entry->gid && (st->st_mode & 07777) == entry->mode &&
	       st->st_mtim.tv_sec == entry->mtime.tv_sec && st->st_mtim.tv_nsec == entry->mtime.tv_nsec;
}

static int restat(struct layer_fs *fs, int dir, const char *name, const struct stat *st,
		  const struct tar_entry *entry, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	struct contents_record record = {.type = CONTENTS_RESTAT, .name = name_of(name)};
	struct stat now;
	int rc = r->disk->ops->restat(r->disk, dir, name, st, entry, err);

	if (rc || says_the_same(st, entry))
		return rc;
	rc = read_back(r, dir, name, &now, &record, err);
	return rc ? rc : note(r, dir, &record, err);
}

/* ---- life ---- */

static void end_files(struct layer_fs *fs, struct layer_fs_stats *out)
{
	struct recorded_fs *r = recorded(fs);

	r->disk->ops->end_files(r->disk, out);
}

static int rest(struct layer_fs *fs, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	int rc = r->disk->ops->rest(r->disk, err);

	return rc ? rc : contents_writer_rest(r->list, err);
}

static int finish(struct layer_fs *fs, struct cpull_error *err)
{
	struct recorded_fs *r = recorded(fs);
	int rc = r->failed.code ? error_copy(err, &r->failed) : r->disk->ops->finish(r->disk, err);

	return rc ? rc : contents_writer_finish(r->list, &r->facts, err);
}

static void free_fs(struct layer_fs *fs)
{
	struct recorded_fs *r = recorded(fs);

	r->disk->ops->free(r->disk);
	contents_writer_free(r->list);
	checksum_free(r->sum);
	free(r);
}

static const struct layer_fs_ops recorded_fs_ops = {
	.reset_root = reset_root,
	.follow = follow,
	.follow_making = follow_making,
	.open = open_dir,
	.close = close_dir,
	.stat_dir = stat_dir,
	.mkdir = make_dir,
	.list = list_dir,
	.set_xattrs = set_xattrs,
	.set_stat = set_stat,
	.set_opaque = set_opaque,
	.inherit = inherit,
	.stat = stat_name,
	.read_link = read_link,
	.unlink = unlink_name,
	.rmdir = remove_dir,
	.remove_tree = remove_tree,
	.rename = rename_name,
	.make_whiteout = make_whiteout,
	.is_whiteout = is_whiteout,
	.file_open = file_open,
	.file_is_open = file_is_open,
	.file_data = file_data,
	.file_close = file_close,
	.yield = yield,
	.hand_over = hand_over,
	.wait = wait_all,
	.symlink = make_symlink,
	.node = make_node,
	.link = make_link,
	.copy = copy,
	.restat = restat,
	.end_files = end_files,
	.rest = rest,
	.finish = finish,
	.free = free_fs,
};

static bool give_way(void *payload, int num)
{
	struct recorded_fs *r = payload;

	return r->fs.give_way && r->fs.give_way(r->fs.give_way_payload, num);
}

int recorded_fs_new(struct layer_fs *disk, int dirfd, const char *name, struct layer_fs **out,
		    struct cpull_error *err)
{
	struct recorded_fs *r = calloc(1, sizeof(*r));

	if (!r) {
		disk->ops->free(disk);
		return error_nomem(err);
	}
	r->fs = (struct layer_fs){.ops = &recorded_fs_ops, .root = disk->root, .notes.log = disk->notes.log};
	r->disk = disk;
	disk->give_way = give_way;
	disk->give_way_payload = r;
	for (unsigned i = 0; i < KNOWN_HANDLES; i++)
		r->known[i].handle = -1;

	int rc = contents_writer_new(dirfd, name, &r->list, err);

	if (!rc)
		rc = checksum_new(&r->sum, err);
	if (rc)
		free_fs(&r->fs);
	else
		*out = &r->fs;
	return rc;
}

const struct contents_facts *recorded_fs_facts(const struct layer_fs *fs)
{
	return &recorded(fs)->facts;
}
