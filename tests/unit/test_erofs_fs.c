/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/erofs_fs by itself: what is written is what the reader finds and fsck.erofs accepts, what comes from a lower
 * image, limits, the same bytes for the same calls, and the memory of a large layer. Needs no rights. That it does what
 * a directory does is test_layer_fs.c's.
 */
#include "layer_fixture.h"

#include <malloc.h>

#include "erofs_text.h"
#include "snapshot/erofs_fs_internal.h"

/* In memory where there is some: the limit of symlinks' targets is tens of megabytes. */
static char base[32];
static bool can_check;

static int fresh(void **state)
{
	(void)state;
	return fresh_place(base);
}

/* ---- making one ---- */

struct maker {
	struct image_place place;
	struct layer_fs *fs;
	struct log log;
	unsigned warnings;
	char name[32];
};

static void begin(struct maker *m, const char *name)
{
	struct stat st;

	*m = (struct maker){0};
	snprintf(m->name, sizeof(m->name), "%s", name);
	log_init(&m->log, count_warning, &m->warnings, CPULL_LOG_WARN);
	m->place = begin_image(name, CPULL_IO_SYNC, &m->log);
	m->fs = m->place.fs;
	assert_int_equal(m->fs->ops->reset_root(m->fs, &st, NULL), 0);
}

static void done(struct maker *m)
{
	m->fs->ops->free(m->fs);
	end_image(&m->place);
	log_destroy(&m->log);
}

static void check_image(const char *name)
{
	char command[200];

	snprintf(command, sizeof(command), "fsck.erofs %s.erofs >fsck.log 2>&1", name);
	if (can_check && system(command) != 0) {
		(void)!system("cat fsck.log >&2");
		fail_msg("fsck.erofs does not like the image");
	}
}

static void finish(struct maker *m)
{
	struct cpull_error err;

	if (m->fs->ops->finish(m->fs, &err))
		fail_msg("%s", err.message);
	assert_int_equal(erofs_fs_result(m->fs)->blocks * 4096, lseek(m->place.fd, 0, SEEK_END));
	done(m);
	check_image(m->name);
}

static const struct tar_entry usual = {.type = TAR_FILE, .link = "", .mode = 0640, .uid = 70000, .gid = 4000000000u,
				       .mtime = {.tv_sec = MTIME, .tv_nsec = 123456789}};

static void put_data(struct maker *m, int dir, const char *name, struct tar_entry entry, const void *data)
{
	const struct tar_data all = {.data = data, .len = (size_t)entry.size};

	OK(m->fs->ops->file_open(m->fs, dir, name, &entry, err));
	if (entry.size)
		OK(m->fs->ops->file_data(m->fs, NULL, &all, err));
	OK(m->fs->ops->file_close(m->fs, &entry, err));
}

static void put_file(struct maker *m, int dir, const char *name, const char *text)
{
	struct tar_entry entry = usual;

	entry.size = strlen(text);
	put_data(m, dir, name, entry, text);
}

static void put_symlink(struct maker *m, int dir, const char *name, const char *target)
{
	struct tar_entry entry = usual;

	entry.type = TAR_SYMLINK;
	entry.link = target;
	OK(m->fs->ops->symlink(m->fs, dir, name, &entry, err));
}

static void put_node(struct maker *m, int dir, const char *name, enum tar_type type, uint32_t major_, uint32_t minor_)
{
	struct tar_entry entry = usual;

	entry.type = type;
	entry.dev_major = major_;
	entry.dev_minor = minor_;
	OK(m->fs->ops->node(m->fs, dir, name, &entry, err));
}

static int put_dir(struct maker *m, int dir, const char *name)
{
	char path[16];
	struct stat st;
	int rc = m->fs->ops->mkdir(m->fs, dir, name, &st);

	snprintf(path, sizeof(path), "mkdir: %d", rc);
	assert_string_equal(path, "mkdir: 0");
	return (int)(st.st_ino & INT32_MAX);
}

static void put_stat(struct maker *m, int dir, mode_t mode)
{
	OK(m->fs->ops->set_stat(m->fs, dir, 3, 4, mode, (struct timespec){.tv_sec = -5, .tv_nsec = 6}, err));
}

static struct bytes text_of(const char *name)
{
	struct bytes text = {0};
	struct cpull_error err;
	char image[128];

	image_name(name, image);

	CLEANUP_FD int fd = open(image, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	if (describe_image(fd, &text, &err))
		fail_msg("%s", err.message);
	return text;
}

static struct erofs_reader *read_image(const char *name, int *fd)
{
	struct erofs_reader *reader;
	char image[128];

	image_name(name, image);
	*fd = open(image, O_RDWR | O_CLOEXEC);
	assert_true(*fd >= 0);
	OK(erofs_reader_open(*fd, &reader, err));
	return reader;
}

static uint32_t sum(const char *text)
{
	return erofs_checksum(text, strlen(text));
}

/* ---- all kinds of things ---- */

static void everything_is_written(void **state)
{
	const struct tar_xattr xattrs[] = {{"user.note", (const uint8_t *)"n", 1},
					   {"security.selinux", (const uint8_t *)"label", 5},
					   {"trusted.overlay.redirect", (const uint8_t *)"/", 1}};
	struct tar_entry entry = usual;
	struct maker m;
	struct stat st;

	(void)state;
	begin(&m, "i");

	int d = put_dir(&m, 0, "d"), e = put_dir(&m, d, "-");

	put_file(&m, d, "f", "content");
	put_file(&m, e, "empty", "");
	put_symlink(&m, 0, "s", "../nowhere");
	put_node(&m, 0, "null", TAR_CHAR, 1, 3);
	put_node(&m, 0, "disk", TAR_BLOCK, 259, 300);
	put_node(&m, d, "pipe", TAR_FIFO, 0, 0);
	entry.xattrs = xattrs;
	entry.xattr_count = ARRAY_LEN(xattrs);
	put_data(&m, 0, "labelled", entry, "");
	OK(m.fs->ops->set_xattrs(m.fs, e, xattrs, ARRAY_LEN(xattrs), ATTRIBUTES_NO_ACL, false, err));
	OK(m.fs->ops->set_opaque(m.fs, e, err));
	put_stat(&m, e, 01777);
	put_stat(&m, 0, 0755);
	put_stat(&m, d, 0711);
	for (int i = 0; i < 3; i++)
		OK(m.fs->ops->make_whiteout(m.fs, i == 2 ? e : d, i ? "gone" : "g", i == 0, err));
	assert_int_equal(m.fs->ops->stat(m.fs, d, "g", &st), 0);
	assert_true(m.fs->ops->is_whiteout(m.fs, d, "g", &st));
	assert_int_equal(m.fs->ops->stat(m.fs, 0, "null", &st), 0);
	assert_false(m.fs->ops->is_whiteout(m.fs, 0, "null", &st));
	finish(&m);
	assert_int_equal(m.warnings, 1); /* however many are left out */

	CLEANUP_BYTES struct bytes text = text_of("i"), want = {0};

#define FILE_AS "70000:4000000000 1500000000.123456789"
#define DIR_AS "3:4 -5.000000006"
	text_add(&want, "/ 40755 " DIR_AS " n3\n"
			"/d 40711 " DIR_AS " n3\n"
			"/disk 60640 " FILE_AS " n1 259/300\n"
			"/labelled 100640 " FILE_AS " n1 0:%x user.note=1:%x\n", sum(""), sum("n"));
	text_add(&want, "/null 20640 " FILE_AS " n1 1/3\n"
			"/s 120777 " FILE_AS " n1 -> ../nowhere\n"
			"/d/- 41777 " DIR_AS " n2 trusted.overlay.opaque=1:%x user.note=1:%x\n", sum("y"), sum("n"));
	text_add(&want, "/d/f 100640 " FILE_AS " n1 7:%x\n"
			"/d/g 20000 0:0 0.000000000 n3 0/0\n"
			"/d/gone 20000 0:0 0.000000000 n3 0/0\n"
			"/d/pipe 10640 " FILE_AS " n1\n"
			"/d/-/empty 100640 " FILE_AS " n1 0:%x\n"
			"/d/-/gone 20000 0:0 0.000000000 n3 0/0\n", sum("content"), sum(""));
	assert_string_equal(text.data, want.data);
}

/* Names go and come; an inode is as often linked as it has names, and what has none takes no part. */
static void links_are_counted(void **state)
{
	struct tar_entry other = usual;
	struct maker m;
	struct stat st;

	(void)state;
	begin(&m, "i");

	int d = put_dir(&m, 0, "d");

	put_file(&m, 0, "a", "first");
	assert_int_equal(m.fs->ops->stat(m.fs, 0, "a", &st), 0);
	for (int i = 0; i < 3; i++)
		OK(m.fs->ops->link(m.fs, 0, "a", &st, i == 1 ? d : 0, i ? "c" : "b", err));
	FAILS(1, "", m.fs->ops->link(m.fs, 0, "a", &st, 0, "c", err));
	assert_int_equal(m.fs->ops->unlink(m.fs, 0, "a"), 0);
	put_file(&m, 0, "a", "second");
	put_symlink(&m, 0, "s", "t");
	OK(m.fs->ops->link(m.fs, 0, "s", &st, d, "s", err));
	assert_int_equal(m.fs->ops->unlink(m.fs, 0, "s"), 0);
	assert_int_equal(m.fs->ops->rename(m.fs, d, "s", 0, "moved"), 0);
	put_node(&m, 0, "p", TAR_FIFO, 0, 0);
	OK(m.fs->ops->link(m.fs, 0, "p", &st, 0, "q", err));
	OK(m.fs->ops->remove_tree(m.fs, 0, "p", NULL, NULL, err));
	OK(m.fs->ops->remove_tree(m.fs, 0, "q", NULL, NULL, err));
	other.mode = 04755;
	other.uid = 1;
	OK(m.fs->ops->restat(m.fs, d, "c", &st, &other, err));
	OK(m.fs->ops->restat(m.fs, 0, "moved", &st, &other, err));
	assert_int_equal(m.fs->ops->stat(m.fs, 0, "b", &st), 0);
	assert_int_equal(st.st_nlink, 3);
	FAILS(CPULL_ERR_STORAGE, "hard link", m.fs->ops->link(m.fs, 0, "none", &st, 0, "x", err));
	FAILS(CPULL_ERR_PERMISSION, "hard link", m.fs->ops->link(m.fs, 0, "d", &st, 0, "x", err));
	FAILS(CPULL_ERR_STORAGE, "hard link", m.fs->ops->restat(m.fs, 0, "none", &st, &other, err));
	FAILS(CPULL_ERR_STORAGE, "hard link", m.fs->ops->restat(m.fs, 0, "d", &st, &other, err));
	finish(&m);

	CLEANUP_BYTES struct bytes text = text_of("i"), want = {0};

	text_add(&want, "/ 40700 0:0 0.000000000 n3\n"
			"/a 100640 " FILE_AS " n1 6:%x\n", sum("second"));
	for (int i = 0; i < 2; i++)
		text_add(&want, "/%c 104755 1:4000000000 1500000000.123456789 n3 5:%x\n", 'b' + i, sum("first"));
	text_add(&want, "/d 40700 0:0 0.000000000 n2\n"
			"/moved 120777 1:4000000000 1500000000.123456789 n1 -> t\n"
			"/d/c 104755 1:4000000000 1500000000.123456789 n3 5:%x\n", sum("first"));
	assert_string_equal(text.data, want.data);
}

/* Also of a file whose inode is in the temporary file already, or partly. */
static void acls_follow_the_mode(void **state)
{
	/* user::rwx user:5:rw- group::r-x mask::rwx other::--- */
	static uint8_t acl[] = {2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 6, 0, 5, 0, 0, 0,
				4, 0, 5, 0, 255, 255, 255, 255, 16, 0, 7, 0, 255, 255, 255, 255,
				32, 0, 0, 0, 255, 255, 255, 255};
	const struct tar_xattr xattrs[] = {{"user.z", acl, sizeof(acl)}, {"system.posix_acl_access", acl, sizeof(acl)},
					   {"security.a", acl, 3}};
	enum { FILES = 30000 };
	struct tar_entry entry = usual;
	struct maker m;
	struct stat st;
	char name[32];

	(void)state;
	begin(&m, "i");
	entry.xattrs = xattrs;
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "%u", i);
		entry.xattr_count = ARRAY_LEN(xattrs) - i % 2;
		put_data(&m, 0, name, entry, "");
	}
	entry.mode = 0615;
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "%u", i);
		OK(m.fs->ops->restat(m.fs, 0, name, &st, &entry, err));
	}
	finish(&m);

	uint32_t before = erofs_checksum(acl, sizeof(acl));

	acl[6] = 6;
	acl[30] = 1;
	acl[38] = 5;

	uint32_t after = erofs_checksum(acl, sizeof(acl));
	int fd;
	struct erofs_reader *reader = read_image("i", &fd);

	for (unsigned i = 0; i < FILES; i++) {
		struct erofs_node node;
		struct bytes text = {0};
		char want[200];

		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(erofs_reader_find(reader, name, &node, NULL), 1);
		OK(describe(reader, &node, &text, err));
		snprintf(want, sizeof(want), " 100615 " FILE_AS " n1 0:%x%s", sum(""), i % 2 ? "" : " security.a=3:");
		assert_int_equal(strncmp(text.data, want, strlen(want)), 0);
		snprintf(want, sizeof(want), " system.posix_acl_access=%zu:%x user.z=%zu:%x\n", sizeof(acl), after,
			 sizeof(acl), before);
		assert_non_null(strstr(text.data, want));
		bytes_free(&text);
	}
	erofs_reader_close(reader);
	close(fd);
}

/* ---- paths ---- */

static int never(void *payload, int handle, const char *name)
{
	(void)payload;
	(void)handle;
	(void)name;
	return -EXDEV;
}

static void walks_end(void **state)
{
	char path[LIMIT_PATH_BYTES + 8] = "", name[LIMIT_NAME_BYTES + 2];
	struct maker m;
	int at = 0;

	(void)state;
	begin(&m, "i");
	memset(name, 'n', sizeof(name));
	name[LIMIT_NAME_BYTES + 1] = 0;
	assert_int_equal(m.fs->ops->follow(m.fs, name), -ENAMETOOLONG);
	assert_int_equal(m.fs->ops->open(m.fs, name, LAYER_DIR_NAMES), -ENAMETOOLONG);
	assert_int_equal(m.fs->ops->follow_making(m.fs, "x/y", never, NULL), -EXDEV);
	/* LIMIT_SYMLINK_HOPS in a row, and one more */
	put_dir(&m, 0, "s0");
	for (unsigned i = 1; i <= LIMIT_SYMLINK_HOPS + 1; i++) {
		snprintf(path, sizeof(path), "s%u", i);
		snprintf(name, sizeof(name), "s%u", i - 1);
		put_symlink(&m, 0, path, name);
	}
	assert_true(m.fs->ops->follow(m.fs, name) > 0);
	assert_int_equal(m.fs->ops->follow(m.fs, path), -ELOOP);
	/* a directory deeper than a path is long: by way of a link its name is short enough, and it is too far */
	memset(name, 'n', LIMIT_NAME_BYTES);
	name[LIMIT_NAME_BYTES] = 0;
	for (unsigned i = 0; i < 17; i++)
		at = put_dir(&m, at, name);
	snprintf(path, sizeof(path), "%s/%s/%s/%s", name, name, name, name);
	put_symlink(&m, 0, "four", path);
	strcpy(path, "four");
	for (unsigned i = 0; i < 12; i++)
		snprintf(path + strlen(path), sizeof(path) - strlen(path), "/%s", name);
	assert_true(m.fs->ops->follow(m.fs, path) > 0);
	snprintf(path + strlen(path), sizeof(path) - strlen(path), "/%s", name);
	assert_int_equal(m.fs->ops->follow(m.fs, path), -ENAMETOOLONG);
	finish(&m);
}

/* As many steps as a walk may have, all of them good. */
static void steps_are_limited(void **state)
{
	char target[LIMIT_PATH_BYTES] = "", last[8] = "d", name[8];
	struct maker m;

	(void)state;
	begin(&m, "i");
	put_dir(&m, 0, "d");
	/* each link goes up and down some hundred times, and then to the one before it */
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "l%u", i);
		strcpy(target, "d");
		while (strlen(target) < 4000)
			strcat(target, "/../d");
		snprintf(target + strlen(target), sizeof(target) - strlen(target), "/../%s", last);
		put_symlink(&m, 0, name, target);
		strcpy(last, name);
	}
	assert_true(m.fs->ops->follow(m.fs, "l9") > 0);
	assert_int_equal(m.fs->ops->follow(m.fs, "l19"), -ELOOP);
	finish(&m);
}

static unsigned gone_count;

static void count_gone(void *payload, ino_t ino)
{
	ino_t *before = payload;

	assert_true(*before != ino && ino >> 63);
	*before = ino;
	gone_count++;
}

static void deep_trees_are_removed(void **state)
{
	struct maker m;
	struct stat st;
	ino_t before = 0;
	int at = 0;

	(void)state;
	gone_count = 0;
	begin(&m, "i");
	put_file(&m, 0, "kept", "");
	for (int i = 0; i < 20000; i++) {
		at = put_dir(&m, at, "d");
		put_file(&m, at, "a", "");
		put_file(&m, at, "z", "");
	}
	OK(m.fs->ops->remove_tree(m.fs, 0, "d", count_gone, &before, err));
	assert_int_equal(gone_count, 20000);
	assert_int_equal(m.fs->ops->stat(m.fs, 0, "d", &st), -ENOENT);
	assert_int_equal(m.fs->ops->mkdir(m.fs, at, "x", &st), -ENOENT);
	OK(m.fs->ops->remove_tree(m.fs, 0, "d", count_gone, &before, err));
	finish(&m);

	CLEANUP_BYTES struct bytes text = text_of("i");

	assert_non_null(strstr(text.data, "n2\n/kept "));
}

/* ---- attributes of directories ---- */

static void attributes_that_do_not_fit(void **state)
{
	static uint8_t large[LIMIT_XATTR_VALUE_BYTES];
	struct tar_xattr many[LIMIT_XATTRS + 1], x = {"user.large", large, sizeof(large)};
	char names[LIMIT_XATTRS + 1][16];
	struct maker m;

	(void)state;
	begin(&m, "i");
	FAILS(CPULL_ERR_XATTR, "--snapshot overlay",
	      m.fs->ops->set_xattrs(m.fs, 0, &x, 1, ATTRIBUTES_ALL, false, err));
	large[0] = 2; /* the version */
	x.len = 5;
	x.name = "system.posix_acl_default";
	FAILS(CPULL_ERR_XATTR, "ACL", m.fs->ops->set_xattrs(m.fs, 0, &x, 1, ATTRIBUTES_ALL, false, err));
	OK(m.fs->ops->set_xattrs(m.fs, 0, &x, 1, ATTRIBUTES_NO_ACL, false, err));
	for (size_t i = 0; i <= LIMIT_XATTRS; i++) {
		snprintf(names[i], sizeof(names[i]), "user.%zu", i);
		many[i] = (struct tar_xattr){names[i], large, i == 7};
	}
	OK(m.fs->ops->set_xattrs(m.fs, 0, many, LIMIT_XATTRS, ATTRIBUTES_ALL, false, err));
	OK(m.fs->ops->set_xattrs(m.fs, 0, many, LIMIT_XATTRS, ATTRIBUTES_ALL, false, err));
	FAILS(CPULL_ERR_LIMIT, "extended attributes",
	      m.fs->ops->set_xattrs(m.fs, 0, many + LIMIT_XATTRS, 1, ATTRIBUTES_ALL, false, err));
	OK(m.fs->ops->set_xattrs(m.fs, 0, many + 7, 2, ATTRIBUTES_ALL, true, err));
	finish(&m);

	CLEANUP_BYTES struct bytes text = text_of("i"), want = {0};

	text_add(&want, "/ 40700 0:0 0.000000000 n2 user.7=1:%x user.8=0:%x\n", erofs_checksum(large, 1), sum(""));
	assert_string_equal(text.data, want.data);
}

/* ---- from a lower image ---- */

static const uint8_t capability[20] = {1, 0, 0, 2, 0, 0x20};

/* One of each kind; more data than goes in a piece; holes; a directory with everything. */
static void make_lower(struct maker *m, uint8_t *data, size_t len)
{
	const struct tar_xattr xattrs[] = {{"user.note", (const uint8_t *)"n", 1},
					   {"security.capability", capability, sizeof(capability)}};
	struct tar_entry entry = usual;
	const struct tar_data end = {.data = data, .len = 10, .offset = (3u << 20) - 10};

	begin(m, "low");
	put_file(m, 0, "small", "some text");
	put_symlink(m, 0, "s", "nowhere");
	put_node(m, 0, "disk", TAR_BLOCK, 259, 300);
	put_node(m, 0, "pipe", TAR_FIFO, 0, 0);
	entry.xattrs = xattrs;
	entry.xattr_count = 2;
	entry.size = len;
	put_data(m, 0, "large", entry, data);
	entry.size = 3u << 20;
	entry.sparse = true;
	OK(m->fs->ops->file_open(m->fs, 0, "holes", &entry, err));
	OK(m->fs->ops->file_data(m->fs, NULL, &end, err));
	OK(m->fs->ops->file_close(m->fs, &entry, err));

	int d = put_dir(m, 0, "d");

	OK(m->fs->ops->set_xattrs(m->fs, d, xattrs, 1, ATTRIBUTES_ALL, false, err));
	OK(m->fs->ops->set_opaque(m->fs, d, err));
	put_stat(m, d, 0755);
	finish(m);
}

/* The line of a path, or NULL. */
static const char *line_of(const struct bytes *text, const char *path, char out[512])
{
	char begins[64];

	snprintf(begins, sizeof(begins), "%s ", path);

	const char *line = strncmp(text->data, begins, strlen(begins)) ? strstr(text->data, begins) : text->data;

	assert_non_null(line);
	line += strlen(path);
	snprintf(out, 512, "%.*s", (int)strcspn(line, "\n"), line);
	return out;
}

static void copies_of_a_lower_image(void **state)
{
	static const char *const names[] = {"small", "s", "disk", "pipe", "large", "holes"};
	size_t len = 600001;
	CLEANUP_FREE uint8_t *data = malloc(len);
	struct lower_layer low = {.dirfd = -1};
	struct maker m;
	struct stat st = {0};
	int fd;

	(void)state;
	assert_non_null(data);
	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 11);
	make_lower(&m, data, len);
	low.image = read_image("low", &fd);
	begin(&m, "i");

	int d = put_dir(&m, 0, "d");

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		OK(m.fs->ops->copy(m.fs, &low, names[i], &st, 0, names[i], err));
	FAILS(1, "", m.fs->ops->copy(m.fs, &low, "small", &st, 0, "s", err));
	FAILS(CPULL_ERR_STORAGE, "lower layer's file", m.fs->ops->copy(m.fs, &low, "no", &st, 0, "x", err));
	FAILS(CPULL_ERR_STORAGE, "lower layer's file", m.fs->ops->copy(m.fs, &low, "d", &st, 0, "x", err));
	FAILS(CPULL_ERR_STORAGE, "lower layer's file", m.fs->ops->inherit(m.fs, d, &low, "no", err));
	OK(m.fs->ops->inherit(m.fs, d, &low, "d", err));
	put_stat(&m, d, 0755);
	/* a target that can be followed */
	assert_int_equal(m.fs->ops->follow(m.fs, "s"), -ENOENT);
	finish(&m);

	CLEANUP_BYTES struct bytes text = text_of("i"), want = text_of("low");

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char path[16], a[512], b[512];

		snprintf(path, sizeof(path), "/%s", names[i]);
		assert_string_equal(line_of(&text, path, a), line_of(&want, path, b));
	}
	/* what it hides is for its own layer */
	assert_non_null(strstr(text.data, "/d 40755 " DIR_AS " n2 user.note="));
	assert_null(strstr(text.data, "opaque"));
	/* holes are holes */
	assert_true(stat_of("i.erofs").st_size < (off_t)len + (1 << 20));
	erofs_reader_close(low.image);
	close(fd);
}

/* Somebody writes to the store: any byte may be any other. */
static void damaged_lower_images(void **state)
{
	uint8_t data[9000], block[512];
	struct maker m;
	uint32_t random = 1;
	int fd;

	(void)state;
	memset(data, 'x', sizeof(data));
	make_lower(&m, data, sizeof(data));
	for (unsigned round = 0; round < 300; round++) {
		static const char *const names[] = {"small", "s", "disk", "pipe", "large", "holes"};
		struct lower_layer low = {.dirfd = -1, .image = read_image("low", &fd)};
		/* behind the data: the inodes, and the directories among them */
		off_t at = lseek(fd, 0, SEEK_END) - 4096 + (off_t)(round * 13 % 4096), from = at & ~(off_t)511;

		assert_int_equal(pread(fd, block, sizeof(block), from), sizeof(block));
		random = random * 1664525u + 1013904223u;

		uint8_t byte = (uint8_t)(random >> 24);

		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		begin(&m, "i");

		int d = put_dir(&m, 0, "dir");
		struct stat st = {0};
		struct cpull_error err = {0};
		int rc = m.fs->ops->inherit(m.fs, d, &low, "d", &err);

		for (size_t i = 0; !rc && i < ARRAY_LEN(names); i++)
			rc = m.fs->ops->copy(m.fs, &low, names[i], &st, 0, names[i], &err);
		assert_true(rc == 0 || (rc == err.code && err.message[0]));
		if (rc)
			done(&m);
		else
			finish(&m);
		assert_int_equal(pwrite(fd, block, sizeof(block), from), sizeof(block));
		erofs_reader_close(low.image);
		close(fd);
	}
}

/* ---- limits ---- */

static void targets_of_symlinks(void **state)
{
	char target[LIMIT_PATH_BYTES + 1], name[16];
	struct tar_entry entry = usual;
	unsigned most = LIMIT_EROFS_TARGET_BYTES / (LIMIT_PATH_BYTES - 1);
	struct maker m;

	(void)state;
	memset(target, 't', sizeof(target));
	target[LIMIT_PATH_BYTES] = 0;
	entry.type = TAR_SYMLINK;
	entry.link = target;
	begin(&m, "i");
	FAILS(CPULL_ERR_LIMIT, "target", m.fs->ops->symlink(m.fs, 0, "s", &entry, err));
	target[LIMIT_PATH_BYTES - 1] = 0;
	for (unsigned i = 0; i < most; i++) {
		snprintf(name, sizeof(name), "%u", i);
		OK(m.fs->ops->symlink(m.fs, 0, name, &entry, err));
	}
	FAILS(CPULL_ERR_LIMIT, "--snapshot overlay", m.fs->ops->symlink(m.fs, 0, "s", &entry, err));
	done(&m);
	unlink("i.erofs");
}

/* A thousand for the price of one entry. */
static void directories(void **state)
{
	struct bytes t = {0};
	char path[LIMIT_PATH_BYTES], name[LIMIT_PATH_BYTES + 16];
	struct outcome out;
	unsigned at = 0;

	(void)state;
	while (at < 2 * (LIMIT_PATH_DEPTH - 2))
		at += (unsigned)snprintf(path + at, sizeof(path) - at, "d/");
	for (unsigned i = 0; i <= LIMIT_EROFS_DIRS / (LIMIT_PATH_DEPTH - 1); i++) {
		snprintf(name, sizeof(name), "%x/%sf", i, path);
		ADD(&t, .name = name);
	}
	fixture_images = true;
	out = WRITE_FAILS("l", &t, CPULL_ERR_LIMIT);
	fixture_images = false;
	if (!strstr(out.err.message, "--snapshot overlay"))
		fail_msg("%s", out.err.message);
	unlink("l.erofs");
}

/* ---- the same bytes ---- */

static void make_some(struct maker *m, const char *name)
{
	char text[32];

	begin(m, name);
	for (unsigned i = 0; i < 3000; i++) {
		struct stat st;
		int at = 0;

		snprintf(text, sizeof(text), "d%u", i * 7 % 50);
		at = m->fs->ops->follow(m->fs, text);
		if (at < 0)
			at = put_dir(m, 0, text);
		snprintf(text, sizeof(text), "%u", i * 977 % 1000);
		if (m->fs->ops->stat(m->fs, at, text, &st) == 0)
			assert_int_equal(m->fs->ops->unlink(m->fs, at, text), 0);
		put_file(m, at, text, text);
		if (i % 5 == 0) {
			char link[32];

			snprintf(link, sizeof(link), "l%u", i);
			OK(m->fs->ops->link(m->fs, at, text, &st, 0, link, err));
		}
		if (i % 11 == 0)
			OK(m->fs->ops->remove_tree(m->fs, 0, "d14", NULL, NULL, err));
	}
	finish(m);
}

static void the_same_bytes(void **state)
{
	struct maker m;
	struct bytes a = {0}, b = {0};
	const size_t uuid_at = 1024 + 48, sum_at = 1024 + 4;

	(void)state;
	make_some(&m, "a");
	make_some(&m, "b");
	assert_int_equal(file_read("a.erofs", 64u << 20, "image", &a, NULL), 0);
	assert_int_equal(file_read("b.erofs", 64u << 20, "image", &b, NULL), 0);
	assert_int_equal(a.len, b.len);
	/* the fixture gives each another identity */
	memset(a.data + uuid_at, 0, 16);
	memset(b.data + uuid_at, 0, 16);
	memset(a.data + sum_at, 0, 4);
	memset(b.data + sum_at, 0, 4);
	assert_memory_equal(a.data, b.data, a.len);
	bytes_free(&a);
	bytes_free(&b);
}

/* ---- a large layer ---- */

#define MANY_DIRS 4000u
#define MANY_IN_ONE 100000u
#define MANY 500000u

static void put_many(struct maker *m, size_t *text_bytes)
{
	struct tar_entry entry = usual;
	char name[64];
	int dirs[MANY_DIRS];

	entry.type = TAR_FIFO; /* an inode, and no data to write */
	for (unsigned i = 0; i < MANY_DIRS; i++) {
		snprintf(name, sizeof(name), "directory-%u", i);
		*text_bytes += strlen(name);
		dirs[i] = put_dir(m, i ? dirs[i / 10] : 0, name);
	}
	for (unsigned i = 0; i < MANY - MANY_DIRS; i++) {
		int dir = i < MANY_IN_ONE ? dirs[1] : dirs[i % MANY_DIRS];

		*text_bytes += (size_t)snprintf(name, sizeof(name), "some-name-%u.of-a-file", i * 7919);
		OK(m->fs->ops->node(m->fs, dir, name, &entry, err));
	}
}

static size_t allocated(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

/* Half a million names, one directory with a hundred thousand. */
static void a_large_layer(void **state)
{
	struct maker m;
	size_t text = 0, before, names, all;

	(void)state;
	begin(&m, "i");
	before = allocated();
	put_many(&m, &text);
	names = erofs_names_bytes(&erofs_fs(m.fs)->names);
	all = allocated() - before;
	/* 31 bytes and its text for a name, 48 for a directory, and what is begun of the pieces */
	assert_true(names <= MANY * 31 + MANY_DIRS * 48 + text + text / 1000 + (600u << 10));
	/* nothing else grows (other than in a sanitizer's allocator) */
#ifndef __SANITIZE_ADDRESS__
	assert_true(all <= names + (64u << 10));
#else
	(void)all;
#endif
	finish(&m);

	struct erofs_listing listing;
	struct erofs_node node;
	unsigned count = 0;
	int fd;
	struct erofs_reader *reader = read_image("i", &fd);

	assert_int_equal(erofs_reader_find(reader, "directory-0/directory-1/some-name-7919.of-a-file", &node, NULL), 1);
	assert_int_equal(erofs_reader_find(reader, "directory-0/directory-1", &node, NULL), 1);
	erofs_reader_list(&node, &listing);
	while (erofs_reader_next(reader, &listing, NULL) > 0)
		count++;
	assert_true(count >= MANY_IN_ONE);
	erofs_reader_close(reader);
	close(fd);
	unlink("i.erofs");
}

#define T(f) cmocka_unit_test_setup(f, fresh)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(everything_is_written), T(links_are_counted), T(acls_follow_the_mode), T(walks_end),
		T(steps_are_limited), T(deep_trees_are_removed), T(attributes_that_do_not_fit),
		T(copies_of_a_lower_image), T(damaged_lower_images), T(targets_of_symlinks), T(directories),
		T(the_same_bytes), T(a_large_layer),
	};

	can_check = system("command -v fsck.erofs >/dev/null") == 0;
	if (!can_check)
		print_message("skipped: no fsck.erofs\n");
	snprintf(base, sizeof(base), "%s/erofs-fs-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	if (!mkdtemp(base))
		return 1;

	int failed = cmocka_run_group_tests_name("erofs_fs", tests, NULL, NULL);

	assert_int_equal(chdir("/"), 0);
	return failed + (fs_remove_tree(AT_FDCWD, base, NULL) != 0);
}
