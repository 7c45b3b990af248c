/* SPDX-License-Identifier: Apache-2.0
 *
 * A directory of a layer, compared with the list of what was written. Called by the threads of a check, each with a
 * checker of its own, which owns the buffers and the sum of one file.
 *
 * Data is read as the kernel gives it: what is in the page cache is not read from the disk. A file with several names
 * is read once, by the name that the list has first in its order.
 */
#include "snapshot/dir_check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "snapshot/checksum.h"
#include "snapshot/overlay_marks.h"
#include "snapshot/resolve.h"
#include "snapshot/xattr_sum.h"

#define READ_BYTES ((size_t)256 << 10)
#define WHAT_BYTES 512u

struct dir_checker {
	struct contents_view *view;
	struct checksum *sum;
	uint8_t *buffer;
	/* the directory at work */
	const struct contents_index *index;
	const struct check_sink *sink;
	uint32_t dir;
	int fd;
	uint8_t *seen; /* a bit an entry */
	char path[LIMIT_PATH_BYTES];
};

/* A list of differences, put together for one path. */
struct what {
	size_t len;
	char text[WHAT_BYTES];
};

int dir_checker_new(struct dir_checker **out, struct cpull_error *err)
{
	struct dir_checker *checker = calloc(1, sizeof(*checker));
	int rc;

	if (!checker)
		return error_nomem(err);
	checker->fd = -1;
	checker->buffer = malloc(READ_BYTES);
	rc = checker->buffer ? contents_view_new(&checker->view, err) : error_nomem(err);
	if (!rc)
		rc = checksum_new(&checker->sum, err);
	if (rc) {
		dir_checker_free(checker);
		return rc;
	}
	*out = checker;
	return 0;
}

void dir_checker_free(struct dir_checker *checker)
{
	if (!checker)
		return;
	contents_view_free(checker->view);
	checksum_free(checker->sum);
	free(checker->buffer);
	free(checker);
}

bool check_is_damage(int num)
{
	return num == EIO || num == EUCLEAN || num == EBADMSG || num == EILSEQ || num == ENODATA || num == EOVERFLOW ||
	       num == EREMOTEIO;
}

static bool stopped(const struct dir_checker *checker)
{
	return atomic_load_explicit(checker->sink->stop, memory_order_relaxed);
}

/* ---- what is found ---- */

static void add(struct what *what, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void add(struct what *what, const char *fmt, ...)
{
	va_list args;

	if (what->len && what->len + 2 < WHAT_BYTES)
		what->len += (size_t)snprintf(what->text + what->len, WHAT_BYTES - what->len, ", ");
	va_start(args, fmt);
	what->len += (size_t)vsnprintf(what->text + what->len, WHAT_BYTES - what->len, fmt, args);
	va_end(args);
	what->len = MIN(what->len, WHAT_BYTES - 1);
}

/* name NULL: the directory itself. */
static void tell(const struct dir_checker *checker, const char *name, const struct what *what)
{
	char path[LIMIT_PATH_BYTES + 1 + LIMIT_NAME_BYTES + 1];

	if (!what->len)
		return;
	snprintf(path, sizeof(path), "%s%s%s", checker->path, name && *checker->path ? "/" : "", name ? name : "");
	checker->sink->found(checker->sink->payload, path, what->text);
}

static void tell_text(const struct dir_checker *checker, const char *name, const char *text)
{
	struct what what = {0};

	add(&what, "%s", text);
	tell(checker, name, &what);
}

/* A failed system call: damage is told, anything else ends the check. */
static int blame(struct what *what, int num, const char *doing, struct cpull_error *err)
{
	if (!check_is_damage(num))
		return error_sys(err, CPULL_ERR_STORAGE, num, "%s", doing);
	add(what, "%s fails: %s", doing, strerrordesc_np(num));
	return 0;
}

/* ---- attributes ---- */

/* A file system has times of its own grain and range, and cuts what it is given. */
static bool same_time(struct timespec want, struct timespec is)
{
	/* ext4 with and without the extra bits, xfs likewise */
	static const int64_t latest[] = {INT32_MAX, 15032385535, 16299260424};

	if (is.tv_sec < want.tv_sec)
		for (size_t i = 0; i < ARRAY_LEN(latest); i++)
			if (is.tv_sec == latest[i])
				return true;
	if (is.tv_sec > want.tv_sec && (is.tv_sec == INT32_MIN || is.tv_sec == 0))
		return true;
	if (is.tv_sec != want.tv_sec)
		return false;
	return is.tv_nsec == want.tv_nsec || is.tv_nsec == 0 || is.tv_nsec == want.tv_nsec / 100 * 100;
}

static void compare_attributes(struct what *what, const struct contents_record *want, const struct stat *st)
{
	if (!S_ISLNK(st->st_mode) && (st->st_mode & 07777) != (want->mode & 07777))
		add(what, "mode %04o and not %04o", st->st_mode & 07777, want->mode & 07777);
	if (st->st_uid != want->uid || st->st_gid != want->gid)
		add(what, "owner %u:%u and not %u:%u", st->st_uid, st->st_gid, want->uid, want->gid);
	if (!same_time(want->mtime, st->st_mtim))
		add(what, "another time");
}

static int compare_xattrs(struct what *what, uint64_t want, const struct attributes_file *file, struct cpull_error *err)
{
	uint64_t is;
	int rc = xattr_sum(file, &is);

	if (rc)
		return blame(what, -rc, "reading its extended attributes", err);
	if (is != want)
		add(what, !is ? "no extended attributes" : want ? "other extended attributes" :
		    "extended attributes that it had not");
	return 0;
}

/* ---- data ---- */

/* Up to READ_BYTES at an offset; *got is 0 at the end. */
static int read_piece(struct dir_checker *checker, int fd, uint64_t at, size_t *got, struct what *what,
		      struct cpull_error *err)
{
	ssize_t n;

	*got = 0;
	if (stopped(checker))
		return error_set(err, CPULL_ERR_CANCELLED, "cancelled");
	do
		n = pread(fd, checker->buffer, READ_BYTES, (off_t)at);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return blame(what, errno, "reading it", err);
	*got = (size_t)n;
	atomic_fetch_add_explicit(checker->sink->bytes, *got, memory_order_relaxed);
	return 0;
}

static int sum_plain(struct dir_checker *checker, int fd, uint64_t *out, struct what *what, struct cpull_error *err)
{
	size_t got;
	uint64_t at = 0;
	int rc;

	checksum_begin(checker->sum);
	while (!(rc = read_piece(checker, fd, at, &got, what, err)) && got) {
		checksum_add(checker->sum, checker->buffer, got);
		at += got;
	}
	*out = checksum_end(checker->sum);
	return rc;
}

static int sum_sparse(struct dir_checker *checker, int fd, uint64_t *out, struct what *what, struct cpull_error *err)
{
	uint64_t at = 0;
	size_t got;
	int rc = 0;

	checksum_sparse_begin(checker->sum);
	for (;;) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);

		/* ENXIO: nothing but a hole is left */
		if (data < 0 && errno != ENXIO)
			rc = blame(what, errno, "looking for its data", err);
		if (data < 0)
			break;
		at = (uint64_t)data;
		rc = read_piece(checker, fd, at, &got, what, err);
		if (rc || !got)
			break;
		checksum_sparse_add(checker->sum, checker->buffer, got, at);
		at += got;
	}
	*out = checksum_sparse_end(checker->sum);
	return rc;
}

static int compare_file(struct dir_checker *checker, struct what *what, const char *name,
			const struct contents_record *made, uint64_t xattrs, bool data, struct cpull_error *err)
{
	CLEANUP_FD int fd = openat(checker->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	const struct attributes_file file = {.fd = fd, .type = S_IFREG};
	uint64_t sum;
	size_t len;

	if (fd < 0)
		return blame(what, errno, "opening it", err);

	int rc = compare_xattrs(what, xattrs, &file, err);

	if (rc || !data)
		return rc;
	len = what->len;
	rc = made->sparse ? sum_sparse(checker, fd, &sum, what, err) : sum_plain(checker, fd, &sum, what, err);
	if (!rc && what->len == len && sum != made->sum)
		add(what, "other data");
	return rc;
}

static int compare_link(struct dir_checker *checker, struct what *what, const char *name,
			const struct contents_record *made, struct cpull_error *err)
{
	char target[LIMIT_PATH_BYTES];
	ssize_t n = readlinkat(checker->fd, name, target, sizeof(target));

	if (n < 0)
		return blame(what, errno, "reading its target", err);
	if ((uint64_t)n != made->size || checksum_of(target, (size_t)n) != made->sum)
		add(what, "another target");
	return 0;
}

/* ---- names ---- */

static const char *kind_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "a file";
	case S_IFDIR:
		return "a directory";
	case S_IFLNK:
		return "a symlink";
	case S_IFCHR:
		return "a character device";
	case S_IFBLK:
		return "a block device";
	case S_IFIFO:
		return "a fifo";
	default:
		return "a socket";
	}
}

static mode_t type_of(const struct contents_record *made)
{
	switch (made->type) {
	case CONTENTS_FILE:
		return S_IFREG;
	case CONTENTS_SYMLINK:
		return S_IFLNK;
	default:
		return made->mode & S_IFMT;
	}
}

/* What is no directory, and has the right type. */
static int compare_node(struct dir_checker *checker, struct what *what, const char *name, const struct stat *st,
			const struct contents_record *made, uint64_t xattrs, bool first, struct cpull_error *err)
{
	const struct attributes_file file = {.fd = -1, .dirfd = checker->fd, .name = name};
	int rc;

	if (made->type == CONTENTS_FILE) {
		bool size = (uint64_t)st->st_size == made->size;

		if (!size)
			add(what, "%llu bytes and not %llu", (unsigned long long)st->st_size,
			    (unsigned long long)made->size);
		/* by another name it is the same file, unless that has become one of its own */
		return compare_file(checker, what, name, made, xattrs, size && (first || st->st_nlink == 1), err);
	}
	if (made->type == CONTENTS_NODE && st->st_rdev != made->size)
		add(what, "device %u:%u and not %u:%u", major(st->st_rdev), minor(st->st_rdev), major(made->size),
		    minor(made->size));
	rc = compare_xattrs(what, xattrs, &file, err);
	return rc || made->type != CONTENTS_SYMLINK ? rc : compare_link(checker, what, name, made, err);
}

static int compare_entry(struct dir_checker *checker, const char *name, const struct contents_entry *entry,
			 const struct stat *st, struct what *what, struct cpull_error *err)
{
	const struct contents_index *index = checker->index;
	struct contents_record made, attributes;
	uint32_t at = contents_index_attributes(index, entry);
	int rc = contents_view_read(checker->view, index, entry->node, &made, err);

	attributes = made;
	if (!rc && at != entry->node)
		rc = contents_view_read(checker->view, index, at, &attributes, err);
	if (rc)
		return rc;
	if (made.type == CONTENTS_WHITEOUT) {
		if (!overlay_marks_whiteout(checker->fd, name, st))
			add(what, "%s and not a whiteout", kind_of(st->st_mode));
		return 0;
	}
	if ((st->st_mode & S_IFMT) != type_of(&made)) {
		add(what, "%s and not %s", kind_of(st->st_mode), kind_of(type_of(&made)));
		return 0;
	}
	compare_attributes(what, &attributes, st);
	return compare_node(checker, what, name, st, &made, attributes.xattrs, contents_index_is_first(index, entry),
			    err);
}

static int check_name(struct dir_checker *checker, const char *name, struct cpull_error *err)
{
	const struct contents_index *index = checker->index;
	const struct contents_entry *entry = contents_index_find(index, checker->dir, name);
	struct what what = {0};
	struct stat st;
	int rc = 0;

	if (!entry) {
		tell_text(checker, name, "not written by the pull");
		return 0;
	}

	uint32_t number = (uint32_t)(entry - index->entries) - index->dirs[checker->dir].first;

	checker->seen[number / 8] |= (uint8_t)(1u << number % 8);
	if (fstatat(checker->fd, name, &st, AT_SYMLINK_NOFOLLOW)) {
		/* gone since it was listed: nobody may do that, and it is not there */
		if (errno == ENOENT)
			add(&what, "missing");
		else
			rc = blame(&what, errno, "looking at it", err);
	} else if (!entry->is_dir) {
		rc = compare_entry(checker, name, entry, &st, &what, err);
	} else if (!S_ISDIR(st.st_mode)) {
		add(&what, "%s and not a directory", kind_of(st.st_mode));
	}
	tell(checker, name, &what);
	return rc;
}

static int tell_missing(struct dir_checker *checker, struct cpull_error *err)
{
	const struct contents_index *index = checker->index;
	const struct contents_dir *dir = &index->dirs[checker->dir];

	for (uint32_t i = 0; i < dir->count; i++) {
		char name[LIMIT_NAME_BYTES + 1];

		if (checker->seen[i / 8] & 1u << i % 8)
			continue;

		int rc = contents_view_name(checker->view, index, index->entries[dir->first + i].name_at, name, err);

		if (rc)
			return rc;
		tell_text(checker, name, "missing");
	}
	return 0;
}

/* ---- directories ---- */

static int compare_dir(struct dir_checker *checker, struct cpull_error *err)
{
	const struct attributes_file file = {.fd = checker->fd, .type = S_IFDIR};
	uint32_t at = checker->index->dirs[checker->dir].settled_at;
	struct contents_record settled;
	struct what what = {0};
	struct stat st;
	int rc;

	if (!at)
		return 0;
	rc = contents_view_read(checker->view, checker->index, at, &settled, err);
	if (rc)
		return rc;
	if (fstat(checker->fd, &st)) {
		rc = blame(&what, errno, "looking at it", err);
	} else {
		compare_attributes(&what, &settled, &st);
		rc = compare_xattrs(&what, settled.xattrs, &file, err);
	}
	tell(checker, NULL, &what);
	return rc;
}

/* Takes the descriptor over. */
static int check_names(struct dir_checker *checker, int fd, struct cpull_error *err)
{
	CLEANUP_DIR DIR *dir = fs_list_fd(fd);
	struct what what = {0};
	const char *name;
	int rc = 0;

	if (!dir)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "listing a directory of a layer");
	while (!rc && (name = fs_next_name(dir)))
		rc = stopped(checker) ? error_set(err, CPULL_ERR_CANCELLED, "cancelled")
				      : check_name(checker, name, err);
	if (rc)
		return rc;
	if (!errno)
		return tell_missing(checker, err);
	rc = blame(&what, errno, "listing it", err);
	tell(checker, NULL, &what);
	return rc;
}

static int check_open(struct dir_checker *checker, struct cpull_error *err)
{
	int fd = fcntl(checker->fd, F_DUPFD_CLOEXEC, 3);
	int rc = fd < 0 ? error_sys(err, CPULL_ERR_STORAGE, errno, "opening a directory of a layer")
			: compare_dir(checker, err);

	if (!rc)
		rc = check_names(checker, steal_fd(&fd), err);
	if (fd >= 0)
		close(fd);
	return rc;
}

int dir_check(struct dir_checker *checker, int root_fd, const struct contents_index *index, uint32_t dir,
	      const struct check_sink *sink, struct cpull_error *err)
{
	struct resolve_root root = {.fd = root_fd};
	int rc;

	if (!contents_dir_lives(index, dir))
		return 0;
	checker->index = index;
	checker->sink = sink;
	checker->dir = dir;
	rc = contents_view_path(checker->view, index, dir, checker->path, err);
	if (rc)
		return rc;
	checker->fd = resolve_plain(&root, checker->path, O_RDONLY | O_DIRECTORY);
	if (checker->fd < 0) {
		struct what what = {0};

		/* its parent's business, or that of one above it */
		if (checker->fd == -ENOENT || checker->fd == -ENOTDIR || checker->fd == -ELOOP)
			return 0;
		rc = blame(&what, -checker->fd, "opening it", err);
		tell(checker, NULL, &what);
		return rc;
	}
	checker->seen = calloc(index->dirs[dir].count / 8 + 1, 1);
	rc = checker->seen ? check_open(checker, err) : error_nomem(err);
	free(STEAL(checker->seen));
	close(steal_fd(&checker->fd));
	return rc;
}
