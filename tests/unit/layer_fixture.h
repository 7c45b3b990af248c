/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests that write layers: a small tar builder, a place to write to (a file system of the test's own in its own
 * mount namespace), and looking at what came of it: a directory, or an image that is mounted there.
 */
#ifndef TESTS_LAYER_FIXTURE_H
#define TESTS_LAYER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "engine/base/ring.h"
#include "snapshot/dir_check.h"
#include "snapshot/dir_fs.h"
#include "snapshot/erofs_fs.h"
#include "snapshot/erofs_mount.h"
#include "snapshot/erofs_reader.h"
#include "snapshot/layer_writer.h"
#include "snapshot/recorded_fs.h"

#define MTIME 1500000000

/* ---- tar ---- */

struct item {
	char type; /* 0: regular */
	const char *name;
	const char *link;
	unsigned mode; /* 0: 0644, or 0755 for directories */
	bool mode_zero;
	unsigned uid, gid;
	long mtime; /* 0: MTIME */
	const char *data;
	size_t len; /* of data, 0: strlen */
	unsigned major, minor;
};

__attribute__((unused)) static void tar_raw(struct bytes *tar, const void *data, size_t len)
{
	static const char zero[512];

	assert_int_equal(bytes_append(tar, data, len, SIZE_MAX / 2), 0);
	assert_int_equal(bytes_append(tar, zero, (512 - len % 512) % 512, SIZE_MAX / 2), 0);
}

__attribute__((unused)) static void tar_header(struct bytes *tar, char type, const char *name, const char *link,
					       const struct item *i, size_t size)
{
	char h[512] = {0};
	unsigned sum = 0;

	strncpy(h, name, 100);
	snprintf(h + 100, 8, "%07o", i->mode_zero ? 0 : i->mode ? i->mode : type == '5' ? 0755 : 0644);
	snprintf(h + 108, 8, "%07o", i->uid);
	snprintf(h + 116, 8, "%07o", i->gid);
	snprintf(h + 124, 12, "%011lo", (long)size);
	snprintf(h + 136, 12, "%011lo", i->mtime ? i->mtime : (long)MTIME);
	memset(h + 148, ' ', 8);
	h[156] = type;
	strncpy(h + 157, link, 100);
	memcpy(h + 257, "ustar\0" "00", 8);
	snprintf(h + 329, 8, "%07o", i->major);
	snprintf(h + 337, 8, "%07o", i->minor);
	for (int k = 0; k < 512; k++)
		sum += (unsigned char)h[k];
	snprintf(h + 148, 8, "%06o", sum);
	tar_raw(tar, h, 512);
}

/* One pax record in a header of its own payload. */
__attribute__((unused)) static void pax_record(struct bytes *out, const char *key, const void *value, size_t len)
{
	size_t body = strlen(key) + len + 3, total = body + 1;
	char head[300];

	for (;;) {
		size_t digits = (size_t)snprintf(head, sizeof(head), "%zu", total);

		if (digits + body == total)
			break;
		total = digits + body;
	}
	int n = snprintf(head, sizeof(head), "%zu %s=", total, key);

	assert_int_equal(bytes_append(out, head, (size_t)n, SIZE_MAX / 2), 0);
	assert_int_equal(bytes_append(out, value, len, SIZE_MAX / 2), 0);
	assert_int_equal(bytes_append(out, "\n", 1, SIZE_MAX / 2), 0);
}

__attribute__((unused)) static void tar_pax(struct bytes *tar, const struct bytes *records)
{
	const struct item none = {0};

	tar_header(tar, 'x', "x", "", &none, records->len);
	tar_raw(tar, records->data, records->len);
}

__attribute__((unused)) static void tar_xattr(struct bytes *tar, const char *name, const void *value, size_t len)
{
	struct bytes records = {0};
	char key[280];

	snprintf(key, sizeof(key), "SCHILY.xattr.%s", name);
	pax_record(&records, key, value, len);
	tar_pax(tar, &records);
	bytes_free(&records);
}

__attribute__((unused)) static void tar_item(struct bytes *tar, struct item i)
{
	char type = i.type ? i.type : '0';
	size_t len = i.len ? i.len : i.data ? strlen(i.data) : 0;

	if (strlen(i.name) > 100) {
		struct bytes records = {0};

		pax_record(&records, "path", i.name, strlen(i.name));
		tar_pax(tar, &records);
		bytes_free(&records);
	}
	tar_header(tar, type, i.name, i.link ? i.link : "", &i, len);
	if (len)
		tar_raw(tar, i.data, len);
}

#define ADD(tar, ...) tar_item((tar), (struct item){__VA_ARGS__})
#define ADD_DIR(tar, ...) tar_item((tar), (struct item){.type = '5', __VA_ARGS__})
#define ADD_LINK(tar, from, to) tar_item((tar), (struct item){.type = '1', .name = (from), .link = (to)})
#define ADD_SYMLINK(tar, from, to) tar_item((tar), (struct item){.type = '2', .name = (from), .link = (to)})

__attribute__((unused)) static void tar_end(struct bytes *tar)
{
	static const char zero[1024];

	tar_raw(tar, zero, sizeof(zero));
}

/* ---- writing ---- */

struct outcome {
	int code;
	struct cpull_error err;
	struct layer_writer_stats stats;
	bool loose;
	unsigned warnings;
};

struct how {
	enum cpull_io io;
	size_t chunk_bytes; /* 0: 64 KiB */
	uint64_t max_entries;
	const struct lower_layer *lowers;
	size_t lower_count;
	bool tie;
	bool truncated; /* no end mark */
	bool disturbed; /* somebody else changes the layer meanwhile */
	enum file_helper helper; /* FILE_HELPER_AUTO: what fixture_helper says */
};

/* Set for whole groups of tests. */
__attribute__((unused)) static enum file_helper fixture_helper;
/* Layers are images, each beside the directory that it is mounted on. */
__attribute__((unused)) static bool fixture_images;

__attribute__((unused)) static void count_warning(enum cpull_log_level level, const char *line, void *payload)
{
	(void)line;
	*(unsigned *)payload += level <= CPULL_LOG_WARN;
}

/* The tar in chunks, as from the stage before: there are no more than two, which come back without another call. */
__attribute__((unused)) static int feed_all(struct layer_writer *w, const struct bytes *tar, size_t chunk_bytes,
					    struct cpull_error *err)
{
	struct pool *pool;
	struct pool_share *share;
	int rc = 0;

	assert_int_equal(pool_new(chunk_bytes, 2, &pool, err), 0);
	assert_int_equal(pool_share_open(pool, 2, 2, &share), 0);
	for (size_t at = 0; !rc && at < tar->len;) {
		struct chunk *chunk = pool_get(share, NULL);

		chunk->len = (uint32_t)MIN(chunk_bytes, tar->len - at);
		memcpy(chunk->data, tar->data + at, chunk->len);
		at += chunk->len;
		rc = layer_writer_feed(w, chunk, err);
		chunk_put(chunk);
	}
	/* after an error they go with the writer */
	if (rc)
		layer_writer_free(w);

	struct chunk *all[2] = {pool_get(share, NULL), pool_get(share, NULL)};

	chunk_put(all[0]);
	chunk_put(all[1]);
	pool_share_close(share);
	pool_free(pool);
	return rc;
}

__attribute__((unused)) static struct layer_writer *writer_on(struct layer_fs *fs, uint64_t max_entries)
{
	struct layer_writer_options options = {.fs = fs, .max_entries = max_entries};
	struct cpull_error err;
	struct layer_writer *writer;

	assert_int_equal(layer_writer_new(&options, &writer, &err), 0);
	return writer;
}

__attribute__((unused)) static struct layer_writer *new_writer(const struct dir_fs_options *place,
							       uint64_t max_entries, struct cpull_error *err)
{
	struct layer_fs *fs;

	assert_int_equal(dir_fs_new(place, &fs, err), 0);
	return writer_on(fs, max_entries);
}

/* The image of the layer whose name is `dir`. */
__attribute__((unused)) static void image_name(const char *dir, char out[128])
{
	assert_true(snprintf(out, 128, "%s.erofs", dir) < 128);
}

__attribute__((unused)) static void mount_written(const char *dir)
{
	char image[128], cwd[2048], from[2300], to[2300];
	const struct erofs_mount mount = {.image = from, .target = to};
	struct cpull_error err;

	image_name(dir, image);
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	snprintf(from, sizeof(from), "%s/%s", cwd, image);
	snprintf(to, sizeof(to), "%s/%s", cwd, dir);
	if (erofs_mount(&mount, NULL, NULL, &err))
		fail_msg("%s", err.message);
}

/* A file in which a layer becomes an image. */
struct image_place {
	int fd, spool_dirfd;
	struct layer_fs *fs;
};

__attribute__((unused)) static struct image_place begin_image(const char *dir, enum cpull_io io, struct log *log)
{
	static uint8_t serial[2];
	struct erofs_image_options options = {.io = io, .log = log, .uuid = {0x10}};
	struct image_place place;
	char name[128];
	struct cpull_error err;

	image_name(dir, name);
	unlink(name);
	place.fd = options.fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	place.spool_dirfd = options.spool_dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(options.fd >= 0 && options.spool_dirfd >= 0);
	options.uuid[1] = serial[0] += ++serial[1] == 0;
	options.uuid[2] = serial[1];
	if (erofs_fs_new(&options, &place.fs, &err))
		fail_msg("%s", err.message);
	return place;
}

__attribute__((unused)) static void end_image(const struct image_place *place)
{
	close(place->fd);
	close(place->spool_dirfd);
}

/* A layer for others to be tied to. */
struct lower {
	struct lower_layer layer;
	int fd;
};

__attribute__((unused)) static struct lower open_lower(const char *dir)
{
	struct lower lower = {0};
	struct cpull_error err;
	char name[128];

	image_name(dir, name);
	lower.fd = open(fixture_images ? name : dir, O_RDONLY | O_CLOEXEC);
	assert_true(lower.fd >= 0);
	lower.layer.dirfd = fixture_images ? -1 : lower.fd;
	if (fixture_images && erofs_reader_open(lower.fd, &lower.layer.image, &err))
		fail_msg("%s", err.message);
	return lower;
}

__attribute__((unused)) static void close_lower(struct lower *lower)
{
	erofs_reader_close(lower->layer.image);
	close(lower->fd);
}

/* Removes a layer, whether it came to be or not. */
__attribute__((unused)) static void discard_layer(const char *dir)
{
	char name[128];

	image_name(dir, name);
	if (fixture_images) {
		umount2(dir, MNT_DETACH);
		assert_int_equal(unlink(name), 0);
	}
	assert_int_equal(fs_remove_tree(AT_FDCWD, dir, NULL), 0);
}

/* A layer in a directory, and the list of it. */
struct list_place {
	int fd;
	struct layer_fs *fs;
	struct contents_facts facts; /* when it is complete */
};

__attribute__((unused)) static struct list_place begin_list(const struct dir_fs_options *options)
{
	static const char name[] = ".contents of a test";
	struct list_place list = {.fd = -1};
	struct layer_fs *disk;

	unlink(name);
	assert_int_equal(dir_fs_new(options, &disk, NULL), 0);
	assert_int_equal(recorded_fs_new(disk, AT_FDCWD, name, &list.fs, NULL), 0);
	list.fd = open(name, O_RDONLY | O_CLOEXEC);
	assert_true(list.fd >= 0);
	return list;
}

/* Frees the writer. */
__attribute__((unused)) static void complete_layer(struct layer_writer *w, const struct how *how, struct outcome *out,
						   struct list_place *list)
{
	out->code = layer_writer_finish(w, &out->stats, &out->err);
	if (!out->code) {
		out->loose = layer_writer_has_loose_ends(w);
		if (how->tie)
			out->code = layer_writer_tie(w, how->lowers, how->lower_count, &out->err);
		if (how->tie && !out->code)
			assert_false(layer_writer_has_loose_ends(w));
	}
	if (!out->code)
		out->code = layer_writer_seal(w, &out->err);
	if (!out->code && list->fs)
		list->facts = *recorded_fs_facts(list->fs);
	layer_writer_free(w);
}

/* ---- checking ---- */

__attribute__((unused)) static void count_finding(void *payload, const char *path, const char *what)
{
	print_message("\"%s\": %s\n", path, what);
	++*(unsigned *)payload;
}

/* Checks a layer against its list, and tells what is found. */
__attribute__((unused)) static void check_layer(int root_fd, int list_fd, const struct contents_facts *facts,
						check_found_fn found, void *payload)
{
	struct contents_index *index;
	struct dir_checker *checker;
	struct cpull_error err = {0};
	atomic_bool stop = false;
	atomic_uint_fast64_t bytes = 0;
	const struct check_sink sink = {found, payload, &stop, &bytes};

	if (contents_index_load(list_fd, facts, &index, &err))
		fail_msg("%s", err.message);
	assert_int_equal(dir_checker_new(&checker, NULL), 0);
	for (uint32_t dir = 0; dir < index->dir_count; dir++)
		if (dir_check(checker, root_fd, index, dir, &sink, &err))
			fail_msg("%s", err.message);
	dir_checker_free(checker);
	contents_index_free(index);
}

/* Whatever is written, the list of it has to be right. */
__attribute__((unused)) static void assert_sound(int root_fd, int list_fd, const struct contents_facts *facts)
{
	unsigned findings = 0;

	check_layer(root_fd, list_fd, facts, count_finding, &findings);
	assert_int_equal(findings, 0);
}

/* Consumes tar. */
__attribute__((unused)) static struct outcome write_layer(const char *dir, struct bytes *tar, struct how how)
{
	struct image_place image = {.fd = -1, .spool_dirfd = -1};
	struct dir_fs_options place = {.io = how.io, .helper = how.helper ? how.helper : fixture_helper};
	struct outcome out = {0};
	struct log log;
	struct layer_writer *w;
	struct list_place list = {.fd = -1};

	if (!how.truncated)
		tar_end(tar);
	log_init(&log, count_warning, &out.warnings, CPULL_LOG_DEBUG);
	assert_true(mkdir(dir, 0700) == 0 || errno == EEXIST);
	place.log = &log;
	place.dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(place.dirfd >= 0);
	if (fixture_images) {
		image = begin_image(dir, how.io, &log);
		w = writer_on(image.fs, how.max_entries);
	} else {
		list = begin_list(&place);
		w = writer_on(list.fs, how.max_entries);
	}
	out.code = feed_all(w, tar, how.chunk_bytes ? how.chunk_bytes : 65536, &out.err);
	bytes_free(tar);
	if (!out.code)
		complete_layer(w, &how, &out, &list);
	if (!out.code && list.fs && !how.disturbed)
		assert_sound(place.dirfd, list.fd, &list.facts);
	if (fixture_images)
		end_image(&image);
	else
		close(list.fd);
	close(place.dirfd);
	log_destroy(&log);
	if (fixture_images && !out.code)
		mount_written(dir);
	return out;
}

#define WRITE_OK(dir, tar, ...)                                                      \
	({                                                                           \
		struct outcome out_ = write_layer((dir), (tar), (struct how){__VA_ARGS__}); \
		if (out_.code)                                                       \
			print_error("%s\n", out_.err.message);                       \
		assert_int_equal(out_.code, 0);                                      \
		out_;                                                                \
	})
#define WRITE_FAILS(dir, tar, want, ...)                                             \
	({                                                                           \
		struct outcome out_ = write_layer((dir), (tar), (struct how){__VA_ARGS__}); \
		if (out_.code != (want))                                             \
			print_error("%d: %s\n", out_.code, out_.err.message);        \
		assert_int_equal(out_.code, (want));                                 \
		assert_true(out_.err.message[0]);                                    \
		out_;                                                                \
	})

/* ---- calls with an error, which they name `err` ---- */

#define OK(call)                                              \
	do {                                                  \
		struct cpull_error err_ = {0}, *err = &err_;  \
		if (call)                                     \
			fail_msg("%s", err_.message);         \
	} while (0)
#define FAILS(want, text, call)                               \
	do {                                                  \
		struct cpull_error err_ = {0}, *err = &err_;  \
		assert_int_equal((call), (want));             \
		if (!strstr(err_.message, (text)))            \
			fail_msg("%s", err_.message);         \
	} while (0)

/* ---- looking ---- */

__attribute__((unused)) static struct stat stat_of(const char *path)
{
	struct stat st;

	if (lstat(path, &st))
		perror(path); /* a format would make gcc warn of NULL, where the sanitizer looks for it */
	assert_int_equal(lstat(path, &st), 0);
	return st;
}

__attribute__((unused)) static bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

__attribute__((unused)) static bool has_content(const char *path, const char *want)
{
	char text[4096];
	CLEANUP_FD int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));

	return n == (ssize_t)strlen(want) && memcmp(text, want, (size_t)n) == 0;
}

__attribute__((unused)) static bool is_whiteout(const char *path)
{
	struct stat st = stat_of(path);

	return S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0);
}

__attribute__((unused)) static bool is_opaque(const char *path)
{
	char value = 0;

	return lgetxattr(path, "trusted.overlay.opaque", &value, 1) == 1 && value == 'y';
}

__attribute__((unused)) static bool links_to(const char *path, const char *want)
{
	char text[4096];
	ssize_t n = readlink(path, text, sizeof(text));

	return n == (ssize_t)strlen(want) && memcmp(text, want, (size_t)n) == 0;
}

#define CHECK_STAT(path, want_mode, want_uid, want_gid)                \
	do {                                                           \
		struct stat st_ = stat_of(path);                       \
		assert_int_equal(st_.st_mode & 07777, (want_mode));    \
		assert_int_equal(st_.st_uid, (want_uid));              \
		assert_int_equal(st_.st_gid, (want_gid));              \
	} while (0)

__attribute__((unused)) static unsigned count_names(const char *path)
{
	DIR *list = opendir(path);
	unsigned n = 0;

	assert_non_null(list);
	while (readdir(list))
		n++;
	closedir(list);
	return n - 2;
}

__attribute__((unused)) static unsigned count_fds(void)
{
	return count_names("/proc/self/fd");
}

/* ---- in another process ---- */

/* Runs a test in a child, where it may take limits or a filter upon itself. That it fails there fails it here. */
__attribute__((unused)) static void in_child(CMUnitTestFunction fn, void *state)
{
	const struct CMUnitTest tests[] = {{"in a child", fn, NULL, NULL, state}};
	int status = 0;

	fflush(NULL);

	pid_t pid = fork();

	if (pid == 0) {
		status = cmocka_run_group_tests_name("child", tests, NULL, NULL);
		fflush(NULL);
		_exit(status);
	}
	assert_true(pid > 0);
	while (waitpid(pid, &status, 0) < 0)
		assert_int_equal(errno, EINTR);
	if (status)
		print_error("the child ended with status %x\n", (unsigned)status);
	assert_int_equal(status, 0);
}

/* ---- a place of our own ---- */

/* Mounts go with the namespace; the directory is left behind empty. */
__attribute__((unused)) static bool own_namespace(void)
{
	if (geteuid() != 0 || unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		print_message("skipped: needs root and a mount namespace\n");
		return false;
	}
	return true;
}

/* Fresh file system on `at`, and the working directory in it. */
__attribute__((unused)) static bool fresh_tmpfs(const char *at)
{
	assert_int_equal(chdir("/"), 0);
	umount2(at, MNT_DETACH);
	assert_int_equal(mount("tmpfs", at, "tmpfs", 0, "size=256m,mode=0755"), 0);
	assert_int_equal(chdir(at), 0);
	return true;
}

__attribute__((unused)) static bool fresh_ext4(const char *at)
{
	char command[512];

	assert_int_equal(chdir("/"), 0);
	umount2(at, MNT_DETACH);
	snprintf(command, sizeof(command),
		 "f=$(mktemp /dev/shm/layer-XXXXXX) && truncate -s 192M $f && mkfs.ext4 -q -F $f >/dev/null 2>&1 && "
		 "mount -o loop $f %s 2>/dev/null; rc=$?; rm -f $f; exit $rc", at);
	if (system(command) != 0) {
		print_message("skipped: no loop-mounted ext4 here\n");
		return false;
	}
	assert_int_equal(chdir(at), 0);
	return true;
}

/* A new directory below `base`, for one test, which it is in from then on. 0 or -1. */
__attribute__((unused)) static int fresh_place(const char *base)
{
	static unsigned number;
	char name[16];

	snprintf(name, sizeof(name), "t%u", number++);
	return chdir(base) || mkdir(name, 0755) || chdir(name) ? -1 : 0;
}

/* Makes the directory that `at` (a template for mkdtemp) names, with a fresh tmpfs on it. */
__attribute__((unused)) static bool begin_at(char *at)
{
	return mkdtemp(at) && fresh_tmpfs(at);
}

__attribute__((unused)) static void end_at(const char *at)
{
	if (chdir("/") == 0 && umount2(at, MNT_DETACH) == 0)
		rmdir(at);
}

/* Where the kernel, a seccomp filter or qemu-user lets nobody have io_uring there is nothing to insist on. */
__attribute__((unused)) static bool has_uring(void)
{
	struct ring *ring = NULL;
	bool has = ring_new(CPULL_IO_URING, 4, &ring, NULL) == 0;

	ring_free(ring);
	return has;
}

/* From now on the system call fails with errno num. */
__attribute__((unused)) static bool refuse_syscall(int number, int num)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)num),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = ARRAY_LEN(code), .filter = code};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0) == 0;
}

#endif
