/* SPDX-License-Identifier: Apache-2.0
 *
 * Files of a layer as files of a directory tree: the half of dir_fs that makes them. Called through its table on the
 * thread of one layer's writer; owns the file that is being written, the bulk writer that takes the data of large ones,
 * and the jobs that small ones may be.
 *
 * A small file costs openat, write, futimens and close: creating with the final mode saves fchmod unless the umask or a
 * set-id bit is in the way, and files of our own user need no fchown. The order is data, owner, mode, extended
 * attributes, times, because a write and a chown clear set-id bits and capabilities.
 */
#include "snapshot/dir_fs_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "engine/base/error.h"

#define COPY_BYTES (128u << 10)

int dir_writer_init(struct dir_fs *dir, const struct dir_fs_options *options, struct cpull_error *err)
{
	const struct bulk_writer_options bulk = {.dirfd = options->dirfd, .io = options->io, .log = options->log};
	int rc = bulk_writer_new(&bulk, &dir->bulk, err);

	dir->fd = -1;
	return rc ? rc : file_jobs_new(options->helper, &dir->self, options->log, &dir->jobs, err);
}

void dir_writer_destroy(struct dir_fs *dir)
{
	file_jobs_free(dir->jobs);
	bulk_writer_free(dir->bulk);
	if (dir->fd >= 0)
		close(dir->fd);
}

bool dir_writer_is_open(const struct layer_fs *fs)
{
	return dir_fs(fs)->fd >= 0;
}

void dir_writer_end_files(struct layer_fs *fs, struct layer_fs_stats *out)
{
	struct dir_fs *dir = dir_fs(fs);

	assert(dir->fd < 0);
	out->bulk_way = bulk_writer_way(dir->bulk);
	bulk_writer_free(STEAL(dir->bulk));
	out->helper = file_jobs_end(dir->jobs);
	file_jobs_free(STEAL(dir->jobs));
}

/* ---- regular files ---- */

static void add_job(struct dir_fs *dir, struct chunk *chunk, const uint8_t *data)
{
	if (chunk)
		chunk_ref(chunk);
	file_jobs_add(dir->jobs, steal_fd(&dir->fd), STEAL(dir->job), chunk, data);
}

int dir_writer_data(struct layer_fs *fs, struct chunk *chunk, const struct tar_data *data, struct cpull_error *err)
{
	struct dir_fs *dir = dir_fs(fs);

	dir->end = MAX(dir->end, data->offset + data->len);
	if (dir->job && data->len == dir->job->size) {
		add_job(dir, chunk, data->data);
		return 0;
	}
	dir->job = NULL;
	if (dir->is_bulk)
		return bulk_writer_data(dir->bulk, chunk, data, err);
	return bulk_write_plain(dir->fd, data->data, data->len, data->offset, err);
}

int dir_writer_yield(struct layer_fs *fs, struct cpull_error *err)
{
	struct dir_fs *dir = dir_fs(fs);

	return dir->is_bulk ? bulk_writer_yield(dir->bulk, err) : 0;
}

int dir_writer_hand_over(struct layer_fs *fs, struct cpull_error *err)
{
	return file_jobs_hand_over(dir_fs(fs)->jobs, err);
}

int dir_writer_wait(struct layer_fs *fs, struct cpull_error *err)
{
	return file_jobs_wait(dir_fs(fs)->jobs, err);
}

int dir_writer_open(struct layer_fs *fs, int at, const char *name, const struct tar_entry *entry,
		    struct cpull_error *err)
{
	struct dir_fs *dir = dir_fs(fs);

	assert(dir->fd < 0);
	dir->fd = dir_fs_openat(dir, at, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY,
				entry->mode & 0777);
	if (dir->fd < 0)
		return errno == EEXIST ? 1 : error_sys(err, CPULL_ERR_STORAGE, errno, "creating a file");
	dir->end = 0;
	dir->job = file_jobs_takes(dir->jobs, entry) ? entry : NULL;
	dir->is_bulk = !entry->sparse && entry->size >= BULK_BYTES;
	return dir->is_bulk ? bulk_writer_begin(dir->bulk, dir->fd, entry->size, err) : 0;
}

int dir_writer_close(struct layer_fs *fs, const struct tar_entry *entry, struct cpull_error *err)
{
	struct dir_fs *dir = dir_fs(fs);

	/* an empty file: there was no data */
	if (dir->job) {
		add_job(dir, NULL, NULL);
		return 0;
	}

	int rc = dir->is_bulk ? bulk_writer_end(dir->bulk, err) : 0;

	/* a hole at the end */
	if (!rc && dir->end < entry->size && ftruncate(dir->fd, (off_t)entry->size))
		rc = error_sys(err, CPULL_ERR_STORAGE, errno, "setting its size to %llu",
			       (unsigned long long)entry->size);
	if (!rc)
		rc = attributes_set_new(dir->fd, &dir->self, entry, &dir->fs.notes, err);
	if (rc)
		return rc; /* the descriptor is closed with the writer: writes may still use it */
	if (close(steal_fd(&dir->fd)) && errno != EINTR)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "closing it");
	return 0;
}

/* ---- the others ---- */

static int set_times(int at, const char *name, struct timespec mtime, struct cpull_error *err)
{
	const struct timespec times[2] = {mtime, mtime};

	if (utimensat(at, name, times, AT_SYMLINK_NOFOLLOW))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "setting the time");
	return 0;
}

static int set_owner(const struct attributes_self *self, int at, const char *name, uid_t uid, gid_t gid,
		     struct cpull_error *err)
{
	if (uid == self->uid && gid == self->gid)
		return 0;
	if (fchownat(at, name, uid, gid, AT_SYMLINK_NOFOLLOW))
		return attributes_owner_error(uid, gid, errno, err);
	return 0;
}

static int set_mode(int at, const char *name, uint32_t mode, struct cpull_error *err)
{
	/* never called for symlinks; without /proc glibc cannot do it the safe way on older kernels */
	if (fchmodat(at, name, mode, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	if (errno == EOPNOTSUPP && fchmodat(at, name, mode, 0) == 0)
		return 0;
	return error_sys(err, CPULL_ERR_STORAGE, errno, "setting the mode to %04o", mode);
}

static int finish_node(struct dir_fs *dir, int at, const char *name, mode_t type, const struct tar_entry *entry,
		       struct cpull_error *err)
{
	const struct attributes_file file = {.fd = -1, .dirfd = at, .name = name, .type = type};
	int rc = set_owner(&dir->self, at, name, entry->uid, entry->gid, err);

	if (!rc && !S_ISLNK(type) && attributes_mode_differs(&dir->self, entry->mode))
		rc = set_mode(at, name, entry->mode, err);
	if (!rc)
		rc = attributes_set(&file, entry->xattrs, entry->xattr_count, ATTRIBUTES_ALL, &dir->fs.notes, err);
	return rc ? rc : set_times(at, name, entry->mtime, err);
}

int dir_writer_symlink(struct layer_fs *fs, int at, const char *name, const struct tar_entry *entry,
		       struct cpull_error *err)
{
	if (symlinkat(entry->link, at, name)) {
		if (errno == EEXIST)
			return 1;
		return error_sys(err, errno == ENAMETOOLONG ? CPULL_ERR_LIMIT : CPULL_ERR_STORAGE, errno,
				 "making a symlink");
	}
	return finish_node(dir_fs(fs), at, name, S_IFLNK, entry, err);
}

static int make_node(int at, const char *name, mode_t type, uint32_t mode, dev_t dev, struct cpull_error *err)
{
	if (mknodat(at, name, type | (mode & 0777), dev) == 0)
		return 0;
	if (errno == EEXIST)
		return 1;
	return error_sys(err, CPULL_ERR_STORAGE, errno, "making a device node or fifo (devices need CAP_MKNOD in the "
			 "initial user namespace)");
}

int dir_writer_node(struct layer_fs *fs, int at, const char *name, const struct tar_entry *entry,
		    struct cpull_error *err)
{
	mode_t type = entry->type == TAR_CHAR ? S_IFCHR : entry->type == TAR_BLOCK ? S_IFBLK : S_IFIFO;
	dev_t dev = type == S_IFIFO ? 0 : makedev(entry->dev_major, entry->dev_minor);
	int rc = make_node(at, name, type, entry->mode, dev, err);

	return rc ? rc : finish_node(dir_fs(fs), at, name, type, entry, err);
}

/* ---- links and copies ---- */

/* Data only, holes not kept. */
static int copy_data(int from, int to, struct cpull_error *err)
{
	CLEANUP_FREE uint8_t *block = malloc(COPY_BYTES);
	uint64_t offset = 0;

	if (!block)
		return error_nomem(err);
	for (;;) {
		ssize_t n = read(from, block, COPY_BYTES);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "reading the file it is a copy of");
		if (n == 0)
			return 0;

		int rc = bulk_write_plain(to, block, (size_t)n, offset, err);

		if (rc)
			return rc;
		offset += (uint64_t)n;
	}
}

static int copy_file(struct dir_fs *dir, int from_fd, const char *from_name, const struct stat *st, int at,
		     const char *name, struct cpull_error *err)
{
	CLEANUP_FD int from =
	    dir_fs_openat(dir, from_fd, from_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);

	if (from < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening the file it is a copy of");

	CLEANUP_FD int to = dir_fs_openat(dir, at, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);

	if (to < 0)
		return errno == EEXIST ? 1 : error_sys(err, CPULL_ERR_STORAGE, errno, "creating a file");

	const struct attributes_file file = {.fd = to, .type = S_IFREG};
	int rc = copy_data(from, to, err);

	if (!rc)
		rc = attributes_set_stat(to, st->st_uid, st->st_gid, st->st_mode & 07777, st->st_mtim, err);
	return rc ? rc : attributes_copy(from, &file, &dir->fs.notes, err);
}

static int copy_link(int from_fd, const char *from_name, int at, const char *name, struct cpull_error *err)
{
	char target[LIMIT_PATH_BYTES];
	ssize_t n = readlinkat(from_fd, from_name, target, sizeof(target) - 1);

	if (n < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "reading the symlink it is a copy of");
	target[n] = 0;
	if (symlinkat(target, at, name) == 0)
		return 0;
	return errno == EEXIST ? 1 : error_sys(err, CPULL_ERR_STORAGE, errno, "making a symlink");
}

/* A file of any kind but a directory; from_fd is a directory anywhere. */
static int copy(struct dir_fs *dir, int from_fd, const char *from_name, const struct stat *st, int at,
		const char *name, struct cpull_error *err)
{
	mode_t type = st->st_mode & S_IFMT;
	int rc;

	if (type == S_IFREG)
		return copy_file(dir, from_fd, from_name, st, at, name, err);
	rc = type == S_IFLNK ? copy_link(from_fd, from_name, at, name, err)
			     : make_node(at, name, type, st->st_mode, st->st_rdev, err);
	if (rc)
		return rc;

	CLEANUP_FD int from = dir_fs_openat(dir, from_fd, from_name, O_PATH | O_NOFOLLOW, 0);
	const struct attributes_file file = {.fd = -1, .dirfd = at, .name = name, .type = type};

	if (from < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening the file it is a copy of");
	rc = set_owner(&dir->self, at, name, st->st_uid, st->st_gid, err);
	if (!rc && type != S_IFLNK)
		rc = set_mode(at, name, st->st_mode & 07777, err);
	if (!rc)
		rc = attributes_copy(from, &file, &dir->fs.notes, err);
	return rc ? rc : set_times(at, name, st->st_mtim, err);
}

int dir_writer_copy(struct layer_fs *fs, const struct lower_layer *from, const char *path, const struct stat *st,
		    int at, const char *name, struct cpull_error *err)
{
	return copy(dir_fs(fs), from->dirfd, path, st, at, name, err);
}

int dir_writer_link(struct layer_fs *fs, int from, const char *from_name, const struct stat *st, int at,
		    const char *name, struct cpull_error *err)
{
	if (linkat(from, from_name, at, name, 0) == 0)
		return 0;
	if (errno == EEXIST)
		return 1;
	/* EPERM: fs.protected_hardlinks and no CAP_FOWNER */
	if (errno == EMLINK || errno == EPERM) {
		log_debug(fs->notes.log, "a hard link becomes a copy: %s",
			  errno == EMLINK ? "too many links to one file" : "the kernel does not permit it");
		return copy(dir_fs(fs), from, from_name, st, at, name, err);
	}
	return error_sys(err, CPULL_ERR_STORAGE, errno, "making a hard link");
}

/* A change of owner takes the capabilities of a file that has some: they are put back. */
static int chown_existing(int at, const char *name, const struct stat *st, const struct tar_entry *entry,
			  struct cpull_error *err)
{
	static const char capability[] = "security.capability";
	char path[64 + LIMIT_NAME_BYTES];
	uint8_t value[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", at, name);

	ssize_t n = S_ISREG(st->st_mode) ? lgetxattr(path, capability, value, sizeof(value)) : -1;

	if (fchownat(at, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW))
		return attributes_owner_error(entry->uid, entry->gid, errno, err);
	if (n > 0 && lsetxattr(path, capability, value, (size_t)n, 0))
		return error_sys(err, CPULL_ERR_XATTR, errno, "setting %s again", capability);
	return 0;
}

int dir_writer_restat(struct layer_fs *fs, int at, const char *name, const struct stat *st,
		      const struct tar_entry *entry, struct cpull_error *err)
{
	bool chown = st->st_uid != entry->uid || st->st_gid != entry->gid;
	bool chmod = !S_ISLNK(st->st_mode) && ((st->st_mode & 07777) != entry->mode || (chown && entry->mode & 06000));
	int rc = 0;

	(void)fs;
	/* mode before capability: chmod does not take it */
	if (chown)
		rc = chown_existing(at, name, st, entry, err);
	if (!rc && chmod)
		rc = set_mode(at, name, entry->mode, err);
	if (!rc && (st->st_mtim.tv_sec != entry->mtime.tv_sec || st->st_mtim.tv_nsec != entry->mtime.tv_nsec))
		rc = set_times(at, name, entry->mtime, err);
	return rc;
}
