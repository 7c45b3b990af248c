/* SPDX-License-Identifier: Apache-2.0
 *
 * Files of a layer as files of a directory tree. Used by one layer's writer on its thread; owns the file
 * that is being written, the bulk writer that takes the data of large ones, and the jobs that small ones may be.
 *
 * A small file costs openat, write, futimens and close: creating with the final mode saves fchmod unless the umask or a
 * set-id bit is in the way, and files of our own user need no fchown. The order is data, owner, mode, extended
 * attributes, times, because a write and a chown clear set-id bits and capabilities.
 */
#include "snapshot/dir_writer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"

#define COPY_BYTES (128u << 10)
/* What the kernel's device numbers hold; beyond, they would be cut, 4096:0 to 0:0 for one. */
#define MAJOR_MAX 0xfffu
#define MINOR_MAX 0xfffffu

struct dir_writer {
	struct tree *tree;
	const struct attributes_self *self;
	struct bulk_writer *bulk;
	struct file_jobs *jobs;
	int fd; /* the file at work, or -1 */
	bool is_bulk;
	const struct tar_entry *job; /* its entry, when it is to be a job: its data is not written here */
	uint64_t end; /* the highest byte written so far */
};

static bool close_jobs(void *payload)
{
	struct dir_writer *writer = payload;

	return writer->jobs && file_jobs_give_way(writer->jobs);
}

int dir_writer_new(struct tree *tree, const struct attributes_self *self, enum cpull_io io, enum file_helper helper,
		   struct dir_writer **out, struct cpull_error *err)
{
	struct dir_writer *writer = calloc(1, sizeof(*writer));

	if (!writer)
		return error_nomem(err);
	writer->tree = tree;
	writer->self = self;
	writer->fd = -1;

	const struct bulk_writer_options bulk = {.dirfd = tree->fs->root, .io = io, .log = tree->notes.log};
	int rc = bulk_writer_new(&bulk, &writer->bulk, err);

	if (!rc)
		rc = file_jobs_new(helper, self, tree->notes.log, &writer->jobs, err);
	if (rc) {
		dir_writer_free(writer);
		return rc;
	}
	tree->close_more = close_jobs;
	tree->close_payload = writer;
	*out = writer;
	return 0;
}

void dir_writer_free(struct dir_writer *writer)
{
	if (!writer)
		return;
	/* no write is under way after this, and no job */
	file_jobs_free(writer->jobs);
	bulk_writer_free(writer->bulk);
	if (writer->fd >= 0)
		close(writer->fd);
	free(writer);
}

bool dir_writer_is_open(const struct dir_writer *writer)
{
	return writer->fd >= 0;
}

void dir_writer_end_files(struct dir_writer *writer, enum bulk_way *way, struct file_jobs_stats *jobs)
{
	assert(writer->fd < 0);
	*way = bulk_writer_way(writer->bulk);
	bulk_writer_free(STEAL(writer->bulk));
	*jobs = file_jobs_end(writer->jobs);
	file_jobs_free(STEAL(writer->jobs));
}

/* ---- regular files ---- */

static void add_job(struct dir_writer *writer, struct chunk *chunk, const uint8_t *data)
{
	if (chunk)
		chunk_ref(chunk);
	file_jobs_add(writer->jobs, steal_fd(&writer->fd), STEAL(writer->job), chunk, data);
}

int dir_writer_data(struct dir_writer *writer, struct chunk *chunk, const struct tar_data *data,
		    struct cpull_error *err)
{
	writer->end = MAX(writer->end, data->offset + data->len);
	if (writer->job && data->len == writer->job->size) {
		add_job(writer, chunk, data->data);
		return 0;
	}
	writer->job = NULL;
	if (writer->is_bulk)
		return bulk_writer_data(writer->bulk, chunk, data, err);
	return bulk_write_plain(writer->fd, data->data, data->len, data->offset, err);
}

int dir_writer_yield(struct dir_writer *writer, struct cpull_error *err)
{
	return writer->is_bulk ? bulk_writer_yield(writer->bulk, err) : 0;
}

int dir_writer_hand_over(struct dir_writer *writer, struct cpull_error *err)
{
	return file_jobs_hand_over(writer->jobs, err);
}

int dir_writer_wait(struct dir_writer *writer, struct cpull_error *err)
{
	return file_jobs_wait(writer->jobs, err);
}

int dir_writer_open(struct dir_writer *writer, struct tree_place at, const char *name,
		    const struct tar_entry *entry, struct cpull_error *err)
{
	assert(writer->fd < 0);
	writer->fd = tree_openat(writer->tree, at.fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY,
				 entry->mode & 0777);
	if (writer->fd < 0)
		return errno == EEXIST ? 1 : error_sys(err, CPULL_ERR_STORAGE, errno, "creating a file");
	writer->end = 0;
	writer->job = file_jobs_takes(writer->jobs, entry) ? entry : NULL;
	writer->is_bulk = !entry->sparse && entry->size >= BULK_BYTES;
	return writer->is_bulk ? bulk_writer_begin(writer->bulk, writer->fd, entry->size, err) : 0;
}

int dir_writer_close(struct dir_writer *writer, const struct tar_entry *entry, struct cpull_error *err)
{
	/* an empty file: there was no data */
	if (writer->job) {
		add_job(writer, NULL, NULL);
		return 0;
	}

	int rc = writer->is_bulk ? bulk_writer_end(writer->bulk, err) : 0;

	/* a hole at the end */
	if (!rc && writer->end < entry->size && ftruncate(writer->fd, (off_t)entry->size))
		rc = error_sys(err, CPULL_ERR_STORAGE, errno, "setting its size to %llu",
			       (unsigned long long)entry->size);
	if (!rc)
		rc = attributes_set_new(writer->fd, writer->self, entry, &writer->tree->notes, err);
	if (rc)
		return rc; /* the descriptor is closed with the writer: writes may still use it */
	if (close(steal_fd(&writer->fd)) && errno != EINTR)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "closing it");
	return 0;
}

/* ---- the others ---- */

static int set_times(struct tree_place at, const char *name, struct timespec mtime, struct cpull_error *err)
{
	const struct timespec times[2] = {mtime, mtime};

	if (utimensat(at.fd, name, times, AT_SYMLINK_NOFOLLOW))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "setting the time");
	return 0;
}

static int set_owner(struct dir_writer *writer, struct tree_place at, const char *name, uid_t uid, gid_t gid,
		     struct cpull_error *err)
{
	if (uid == writer->self->uid && gid == writer->self->gid)
		return 0;
	if (fchownat(at.fd, name, uid, gid, AT_SYMLINK_NOFOLLOW))
		return attributes_owner_error(uid, gid, errno, err);
	return 0;
}

static int set_mode(struct tree_place at, const char *name, uint32_t mode, struct cpull_error *err)
{
	/* never called for symlinks; without /proc glibc cannot do it the safe way on older kernels */
	if (fchmodat(at.fd, name, mode, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	if (errno == EOPNOTSUPP && fchmodat(at.fd, name, mode, 0) == 0)
		return 0;
	return error_sys(err, CPULL_ERR_STORAGE, errno, "setting the mode to %04o", mode);
}

static int finish_node(struct dir_writer *writer, struct tree_place at, const char *name, mode_t type,
		       const struct tar_entry *entry, struct cpull_error *err)
{
	const struct attributes_file file = {.fd = -1, .dirfd = at.fd, .name = name, .type = type};
	int rc = set_owner(writer, at, name, entry->uid, entry->gid, err);

	if (!rc && !S_ISLNK(type) && attributes_mode_differs(writer->self, entry->mode))
		rc = set_mode(at, name, entry->mode, err);
	if (!rc)
		rc = attributes_set(&file, entry->xattrs, entry->xattr_count, ATTRIBUTES_ALL, &writer->tree->notes,
				    err);
	return rc ? rc : set_times(at, name, entry->mtime, err);
}

int dir_writer_symlink(struct dir_writer *writer, struct tree_place at, const char *name,
		       const struct tar_entry *entry, struct cpull_error *err)
{
	if (!*entry->link)
		return error_set(err, CPULL_ERR_TAR, "a symlink without a target");
	if (symlinkat(entry->link, at.fd, name)) {
		if (errno == EEXIST)
			return 1;
		return error_sys(err, errno == ENAMETOOLONG ? CPULL_ERR_LIMIT : CPULL_ERR_STORAGE, errno,
				 "making a symlink");
	}
	return finish_node(writer, at, name, S_IFLNK, entry, err);
}

static int make_node(struct tree_place at, const char *name, mode_t type, uint32_t mode, dev_t dev,
		     struct cpull_error *err)
{
	if (mknodat(at.fd, name, type | (mode & 0777), dev) == 0)
		return 0;
	if (errno == EEXIST)
		return 1;
	return error_sys(err, CPULL_ERR_STORAGE, errno, "making a device node or fifo (devices need CAP_MKNOD in the "
			 "initial user namespace)");
}

int dir_writer_node(struct dir_writer *writer, struct tree_place at, const char *name,
		    const struct tar_entry *entry, struct cpull_error *err)
{
	mode_t type = entry->type == TAR_CHAR ? S_IFCHR : entry->type == TAR_BLOCK ? S_IFBLK : S_IFIFO;
	dev_t dev = 0;

	if (type != S_IFIFO) {
		if (entry->dev_major > MAJOR_MAX || entry->dev_minor > MINOR_MAX)
			return error_set(err, CPULL_ERR_TAR, "device number %u:%u is out of range", entry->dev_major,
					 entry->dev_minor);
		dev = makedev(entry->dev_major, entry->dev_minor);
	}
	if (type == S_IFCHR && dev == 0)
		return error_set(err, CPULL_ERR_WHITEOUT, "a character device 0:0, which an overlay would take for a "
				 "whiteout");

	int rc = make_node(at, name, type, entry->mode, dev, err);

	return rc ? rc : finish_node(writer, at, name, type, entry, err);
}

/* ---- links and copies ---- */

int dir_writer_link(struct dir_writer *writer, struct tree_place from, const char *from_name, const struct stat *st,
		    struct tree_place at, const char *name, struct cpull_error *err)
{
	if (linkat(from.fd, from_name, at.fd, name, 0) == 0)
		return 0;
	if (errno == EEXIST)
		return 1;
	/* EPERM: fs.protected_hardlinks and no CAP_FOWNER */
	if (errno == EMLINK || errno == EPERM) {
		log_debug(writer->tree->notes.log, "a hard link becomes a copy: %s",
			  errno == EMLINK ? "too many links to one file" : "the kernel does not permit it");
		return dir_writer_copy(writer, from.fd, from_name, st, at, name, err);
	}
	return error_sys(err, CPULL_ERR_STORAGE, errno, "making a hard link");
}

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

static int copy_file(struct dir_writer *writer, int from_fd, const char *from_name, const struct stat *st,
		     struct tree_place at, const char *name, struct cpull_error *err)
{
	CLEANUP_FD int from = tree_openat(writer->tree, from_fd, from_name,
					  O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);

	if (from < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening the file it is a copy of");

	CLEANUP_FD int to = tree_openat(writer->tree, at.fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);

	if (to < 0)
		return errno == EEXIST ? 1 : error_sys(err, CPULL_ERR_STORAGE, errno, "creating a file");

	const struct attributes_file file = {.fd = to, .type = S_IFREG};
	int rc = copy_data(from, to, err);

	if (!rc)
		rc = attributes_set_stat(to, st->st_uid, st->st_gid, st->st_mode & 07777, st->st_mtim, err);
	return rc ? rc : attributes_copy(from, &file, &writer->tree->notes, err);
}

static int copy_link(int from_fd, const char *from_name, struct tree_place at, const char *name,
		     struct cpull_error *err)
{
	char target[LIMIT_PATH_BYTES];
	ssize_t n = readlinkat(from_fd, from_name, target, sizeof(target) - 1);

	if (n < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "reading the symlink it is a copy of");
	target[n] = 0;
	if (symlinkat(target, at.fd, name) == 0)
		return 0;
	return errno == EEXIST ? 1 : error_sys(err, CPULL_ERR_STORAGE, errno, "making a symlink");
}

int dir_writer_copy(struct dir_writer *writer, int from_fd, const char *from_name, const struct stat *st,
		    struct tree_place at, const char *name, struct cpull_error *err)
{
	mode_t type = st->st_mode & S_IFMT;
	int rc;

	if (type == S_IFREG)
		return copy_file(writer, from_fd, from_name, st, at, name, err);
	rc = type == S_IFLNK ? copy_link(from_fd, from_name, at, name, err)
			     : make_node(at, name, type, st->st_mode, st->st_rdev, err);
	if (rc)
		return rc;

	CLEANUP_FD int from = tree_openat(writer->tree, from_fd, from_name, O_PATH | O_NOFOLLOW, 0);
	const struct attributes_file file = {.fd = -1, .dirfd = at.fd, .name = name, .type = type};

	if (from < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening the file it is a copy of");
	rc = set_owner(writer, at, name, st->st_uid, st->st_gid, err);
	if (!rc && type != S_IFLNK)
		rc = set_mode(at, name, st->st_mode & 07777, err);
	if (!rc)
		rc = attributes_copy(from, &file, &writer->tree->notes, err);
	return rc ? rc : set_times(at, name, st->st_mtim, err);
}

/* A change of owner takes the capabilities of a file that has some: they are put back. */
static int chown_existing(struct tree_place at, const char *name, const struct stat *st,
			  const struct tar_entry *entry, struct cpull_error *err)
{
	static const char capability[] = "security.capability";
	char path[64 + LIMIT_NAME_BYTES];
	uint8_t value[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", at.fd, name);

	ssize_t n = S_ISREG(st->st_mode) ? lgetxattr(path, capability, value, sizeof(value)) : -1;

	if (fchownat(at.fd, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW))
		return attributes_owner_error(entry->uid, entry->gid, errno, err);
	if (n > 0 && lsetxattr(path, capability, value, (size_t)n, 0))
		return error_sys(err, CPULL_ERR_XATTR, errno, "setting %s again", capability);
	return 0;
}

int dir_writer_restat(struct dir_writer *writer, struct tree_place at, const char *name, const struct stat *st,
		      const struct tar_entry *entry, struct cpull_error *err)
{
	bool chown = st->st_uid != entry->uid || st->st_gid != entry->gid;
	bool chmod = !S_ISLNK(st->st_mode) && ((st->st_mode & 07777) != entry->mode || (chown && entry->mode & 06000));
	int rc = 0;

	(void)writer;
	/* mode before capability: chmod does not take it */
	if (chown)
		rc = chown_existing(at, name, st, entry, err);
	if (!rc && chmod)
		rc = set_mode(at, name, entry->mode, err);
	if (!rc && (st->st_mtim.tv_sec != entry->mtime.tv_sec || st->st_mtim.tv_nsec != entry->mtime.tv_nsec))
		rc = set_times(at, name, entry->mtime, err);
	return rc;
}
