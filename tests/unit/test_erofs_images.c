/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/erofs_reader on images that others made: the shared vectors against their archives, and what mkfs.erofs
 * makes of a tree against the tree.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <fts.h>
#include <sys/xattr.h>

#include "erofs_text.h"
#include "snapshot/tar.h"
#include "vectors.h"

/* ---- the shared vectors ---- */

static struct bytes vector_text(const char *name)
{
	CLEANUP_FREE char *path = format_string("%s/vectors/erofs/%s", getenv("COCO_PULL_SHARED"), name);
	struct bytes text = {0};
	struct cpull_error err = {0};

	assert_non_null(path);

	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	if (describe_image(fd, &text, &err))
		fail_msg("%s: %s", name, err.message);
	return text;
}

static uint32_t mode_of(enum tar_type type)
{
	static const uint32_t modes[] = {
		[TAR_FILE] = S_IFREG, [TAR_HARDLINK] = S_IFREG, [TAR_SYMLINK] = S_IFLNK, [TAR_CHAR] = S_IFCHR,
		[TAR_BLOCK] = S_IFBLK, [TAR_DIR] = S_IFDIR, [TAR_FIFO] = S_IFIFO,
	};

	return modes[type];
}

/* Tar entries as lines like those of describe(); hard links are the line of what they are tied to. */
struct archive {
	struct archived {
		char path[256];
		char *line;
		struct bytes content;
	} entries[64];
	size_t count;
};

static struct archived *archived_find(struct archive *a, const char *path)
{
	for (size_t i = 0; i < a->count; i++)
		if (strcmp(a->entries[i].path, path) == 0)
			return &a->entries[i];
	return NULL;
}

static struct archived *archived_take(struct archive *a, const struct tar_entry *e)
{
	CLEANUP_FREE char *path = strdup(strcmp(e->path, ".") && strcmp(e->path, "./") ? e->path : "");
	CLEANUP_BYTES struct bytes line = {0};

	assert_non_null(path);
	for (size_t len = strlen(path); len && path[len - 1] == '/'; len--)
		path[len - 1] = 0;

	struct archived *out = archived_find(a, path);

	if (!out) {
		assert_true(a->count < ARRAY_LEN(a->entries));
		out = &a->entries[a->count++];
		snprintf(out->path, sizeof(out->path), "%s", path);
	}
	free(out->line);
	free(out->content.data);
	out->content = (struct bytes){0};
	if (e->type == TAR_HARDLINK) {
		const struct archived *target = archived_find(a, e->link);

		assert_non_null(target);
		out->line = strdup(target->line);
		return out;
	}
	text_add(&line, " %o %u:%u %" PRId64 ".%09ld", mode_of(e->type) | e->mode, e->uid, e->gid,
		 (int64_t)e->mtime.tv_sec, e->mtime.tv_nsec);
	if (e->type == TAR_SYMLINK)
		text_add(&line, " -> %s", e->link);
	if (e->type == TAR_CHAR || e->type == TAR_BLOCK)
		text_add(&line, " %u/%u", e->dev_major, e->dev_minor);
	for (size_t i = 0; i < e->xattr_count; i++)
		text_add(&line, " %s=%zu:%x", e->xattrs[i].name, e->xattrs[i].len,
			 erofs_checksum(e->xattrs[i].value, e->xattrs[i].len));
	out->line = STEAL(line.data);
	if (e->type == TAR_FILE && e->size) {
		out->content.data = calloc(1, e->size);
		out->content.len = e->size;
	}
	return out;
}

/* Behind a file's data: its size and sum, where describe() has them. */
static void archived_end(struct archived *at)
{
	CLEANUP_FREE char *line = at->line;
	size_t stat_len;
	const char *p = line;

	for (unsigned field = 0; field < 3; field++)
		p += 1 + strcspn(p + 1, " ");
	stat_len = (size_t)(p - line);
	at->line = format_string("%.*s %zu:%x%s", (int)stat_len, line, at->content.len,
				 erofs_checksum(at->content.data, at->content.len), p);
}

static struct archive *archive_read(const char *name)
{
	CLEANUP_FREE char *path = format_string("erofs/%s", name);
	CLEANUP_BYTES struct bytes tar_bytes = vector_read(path);
	struct tar_input in = {(const uint8_t *)tar_bytes.data, tar_bytes.len, 0};
	struct archive *a = calloc(1, sizeof(*a));
	struct archived *at = NULL;
	struct tar_data data;
	struct tar *tar;
	int event;

	assert_int_equal(tar_new(&tar, NULL), 0);
	assert_non_null(a);
	while ((event = tar_next(tar, &in, &data, NULL)) != TAR_END && event != TAR_MORE) {
		assert_true(event >= 0);
		if (event == TAR_ENTRY)
			at = archived_take(a, tar_entry(tar));
		else if (event == TAR_DATA)
			memcpy(at->content.data + data.offset, data.data, data.len);
		else if (event == TAR_ENTRY_END)
			archived_end(at);
	}
	tar_free(tar);
	return a;
}

static void archive_free(struct archive *a)
{
	for (size_t i = 0; i < a->count; i++) {
		free(a->entries[i].line);
		free(a->entries[i].content.data);
	}
	free(a);
}

/* The line of a path in an image's text, without path and link count. NULL: not there. */
static char *line_of(const char *text, const char *path)
{
	CLEANUP_FREE char *head = format_string("/%s ", path);
	const char *p = text;

	while (strncmp(p, head, strlen(head))) {
		p = strchr(p, '\n');
		if (!p || !*++p)
			return NULL;
	}
	p += strlen(head) - 1;

	const char *links = strstr(p, " n"), *end = strchr(p, '\n');
	const char *rest = links + 1 + strcspn(links + 1, " \n");

	return format_string("%.*s%.*s", (int)(links - p), p, (int)(end - rest), rest);
}

/* Every entry of the archive is in the image as the archive has it, with its attributes. */
static void check_archive(const char *tar_name, const char *text)
{
	struct archive *a = archive_read(tar_name);

	for (size_t i = 0; i < a->count; i++) {
		const struct archived *e = &a->entries[i];
		CLEANUP_FREE char *line = line_of(text, e->path);
		size_t known = strcspn(e->line, "=");

		if (strstr(e->path, ".wh.")) {
			assert_null(line);
			continue;
		}
		assert_non_null(line);
		/* attributes have an order of the writer's, and ACLs are text in an archive */
		while (e->line[known] && e->line[known] != ' ')
			known--;
		if (strncmp(line, e->line, known))
			fail_msg("%s %s:\n%s\n%s", tar_name, e->path, line, e->line);
		for (const char *x = e->line + known; *x;) {
			size_t len = 1 + strcspn(x + 1, " ");
			CLEANUP_FREE char *one = format_string("%.*s", (int)len, x);

			if (!strstr(line, one))
				fail_msg("%s %s: no%s in%s", tar_name, e->path, one, line);
			x += len;
		}
	}
	archive_free(a);
}

/* What the table in the vectors' README says beyond the archive. */
static const struct {
	const char *vector, *part;
} expected[] = {
	{"v1-empty", "/ 40755 0:0 1700000000.000000000 n2\n"},
	{"v2-basic", "/d/f 100644 70000:0 1700000000.000000000 n2 6:"},
	{"v2-basic", "/hl 100644 70000:0 1700000000.000000000 n2 6:"},
	{"v2-basic", "/d 41777 1000:100000 "},
	{"v2-basic", "/neg 100644 0:0 -101.750000000 n1 1:"},
	{"v2-basic", "/null 20666 0:0 1700000000.000000000 n1 1/3\n"},
	{"v2-basic", "/big 20644 0:0 1700000000.000000000 n1 4095/1048575\n"},
	{"v2-basic", "/fifo 10644 0:0 "},
	{"v2-basic", "/\xff\xfe 100644 "},
	{"v2-basic", "/suid 106755 "},
	{"v2-basic", "/sl 120777 0:0 1700000000.000000000 n1 -> d/f\n"},
	{"v3-xattr", "/acl "},
	{"v3-xattr", " user.empty=0:"},
	{"v3-xattr", " user.big=5000:"},
	{"v3-xattr", " system.posix_acl_access="},
	{"v3-xattr", " system.posix_acl_default="},
	{"v4-whiteout", "/gone 20000 0:0 "},
	{"v4-whiteout", " trusted.overlay.opaque=1:"},
	{"v5-sparse", "/allhole 100644 0:0 1700000000.000000000 n1 12288:"},
	{"v6-dup", "/a 100644 0:0 1700000000.000000000 n1 6:"},
	{"v6-dup", "/b 100644 0:0 1700000000.000000000 n1 5:"},
	{"v6-dup", "/x 120777 0:0 1700000000.000000000 n1 -> a\n"},
	{"v6-dup", "/d 40700 5:0 "},
	{"v6-dup", "/deep/er 40755 0:0 0.000000000 "},
};

static void check_table(const char *vector, const struct bytes *text)
{
	for (size_t i = 0; i < ARRAY_LEN(expected); i++)
		if (strcmp(expected[i].vector, vector) == 0 && !memmem(text->data, text->len, expected[i].part,
								       strlen(expected[i].part)))
			fail_msg("%s: row %zu of what is expected is not there", vector, i);
}

static void test_vectors(void **state)
{
	static const char *const names[] = {"v1-empty", "v2-basic", "v3-xattr", "v4-whiteout", "v5-sparse", "v6-dup"};
	(void)state;

	if (!vectors_present()) {
		skip();
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		CLEANUP_FREE char *spool = format_string("%s.spool.img", names[i]);
		CLEANUP_FREE char *inter = format_string("%s.inter.img", names[i]);
		CLEANUP_FREE char *archive = format_string("%s.tar", names[i]);
		CLEANUP_BYTES struct bytes text = vector_text(spool);
		CLEANUP_BYTES struct bytes same = vector_text(inter);

		assert_true(text.data && same.data);
		assert_string_equal(text.data, same.data);
		check_archive(archive, text.data);
		check_table(names[i], &text);
	}
}

/* ---- mkfs.erofs ---- */

static void write_file(int dirfd, const char *name, size_t bytes, bool hole)
{
	CLEANUP_FREE char *content = malloc(bytes + 1);
	CLEANUP_FD int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);

	assert_true(fd >= 0 && content);
	for (size_t i = 0; i < bytes; i++)
		content[i] = hole && i / 4096 % 3 ? 0 : (char)(i * 31 + i / 4096 + bytes);
	assert_int_equal(write(fd, content, bytes), bytes);
}

static void make_tree(int dirfd)
{
	static const size_t sizes[] = {0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 8193, 300000};
	char target[LIMIT_PATH_BYTES], name[64];

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		snprintf(name, sizeof(name), "size%zu", sizes[i]);
		write_file(dirfd, name, sizes[i], i + 1 == ARRAY_LEN(sizes));
	}
	memset(target, 't', sizeof(target));
	for (size_t len = 1; len < sizeof(target); len += 1364) {
		target[len] = 0;
		snprintf(name, sizeof(name), "link%zu", len);
		assert_int_equal(symlinkat(target, dirfd, name), 0);
		target[len] = 't';
	}
	assert_int_equal(linkat(dirfd, "size1", dirfd, "+hard", 0), 0);
	assert_int_equal(mkfifoat(dirfd, "fifo", 0600), 0);
	assert_int_equal(mkdirat(dirfd, "many", 0700), 0);
	for (unsigned i = 0; i < 1500; i++) {
		snprintf(name, sizeof(name), "many/%u-a-file-in-a-big-directory", i * 7919 % 1500);
		assert_int_equal(linkat(dirfd, "size4097", dirfd, name, 0), 0);
	}
	assert_int_equal(mkdirat(dirfd, "many/empty", 01755), 0);
}

/* Where the file system has no such attributes they are not compared. */
static void add_xattrs(const char *root)
{
	static const char *const names[] = {"size1", "size4097", "size8192", "many"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		CLEANUP_FREE char *path = format_string("%s/%s", root, names[i]);

		if (setxattr(path, "user.common", "the same", 8, 0) || setxattr(path, "user.own", names[i], 4, 0))
			printf("not compared: no user attributes in %s\n", root);
	}
}

static void compare_xattrs(struct erofs_reader *r, const struct erofs_node *n, const char *path)
{
	char names[1024], value[64], got[64];
	ssize_t len = llistxattr(path, names, sizeof(names));
	size_t got_len;

	for (const char *name = names; name < names + MAX(len, 0); name += strlen(name) + 1) {
		ssize_t bytes = lgetxattr(path, name, value, sizeof(value));

		if (strncmp(name, "user.", 5) || bytes < 0)
			continue;
		assert_int_equal(erofs_reader_xattr_get(r, n, name, got, sizeof(got), &got_len, NULL), 1);
		assert_int_equal(got_len, bytes);
		assert_memory_equal(got, value, got_len);
	}
}

static void compare_content(struct erofs_reader *r, const struct erofs_node *n, const char *path)
{
	CLEANUP_BYTES struct bytes ours = {0}, theirs = {0};
	char target[LIMIT_PATH_BYTES] = "", got[LIMIT_PATH_BYTES];

	if (S_ISREG(n->mode)) {
		assert_int_equal(read_all(r, n, &ours, NULL), 0);
		assert_int_equal(file_read(path, MAX_TEXT, "file", &theirs, NULL), 0);
		assert_int_equal(ours.len, theirs.len);
		assert_memory_equal(ours.data, theirs.data, ours.len);
	} else if (S_ISLNK(n->mode)) {
		assert_true(readlink(path, target, sizeof(target)) > 0);
		assert_int_equal(erofs_reader_link(r, n, got, NULL), 0);
		assert_string_equal(got, target);
	}
}

/* Every entry of the tree is in the image, and the image has no more of them. Compact inodes have no time. */
static void compare_tree(const char *root, int fd, bool times)
{
	char *const paths[] = {(char *)(uintptr_t)root, NULL};
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	struct cpull_error err = {0};
	CLEANUP_BYTES struct bytes text = {0};
	struct erofs_reader *r;
	size_t count = 0, lines = 0;
	FTSENT *e;

	if (erofs_reader_open(fd, &r, &err) || describe_image(fd, &text, &err))
		fail_msg("%s", err.message);
	assert_non_null(fts);
	while ((e = fts_read(fts))) {
		struct erofs_node n;

		if (e->fts_info == FTS_DP)
			continue;
		count++;
		assert_int_equal(erofs_reader_find(r, e->fts_path + strlen(root), &n, &err), 1);
		assert_int_equal(n.mode, e->fts_statp->st_mode);
		assert_int_equal(n.uid, e->fts_statp->st_uid);
		assert_int_equal(n.gid, e->fts_statp->st_gid);
		assert_int_equal(n.nlink, S_ISDIR(n.mode) ? n.nlink : e->fts_statp->st_nlink);
		if (times)
			assert_int_equal(n.mtime.tv_sec, e->fts_statp->st_mtim.tv_sec);
		compare_content(r, &n, e->fts_path);
		compare_xattrs(r, &n, e->fts_path);
	}
	fts_close(fts);
	for (size_t i = 0; i < text.len; i++)
		lines += text.data[i] == '\n';
	assert_int_equal(lines, count);
	erofs_reader_close(r);
}

static void check_mkfs(const char *dir, const char *options, int want)
{
	CLEANUP_FREE char *image = format_string("%s/image", dir);
	CLEANUP_FREE char *root = format_string("%s/tree", dir);
	CLEANUP_FREE char *command = format_string("mkfs.erofs %s %s %s >%s/log 2>&1", options, image, root, dir);
	struct cpull_error err = {0};
	struct erofs_reader *r;

	if (system(command)) {
		printf("skipped: this mkfs.erofs does not take %s\n", options);
		return;
	}

	CLEANUP_FD int fd = open(image, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	if (!want) {
		compare_tree(root, fd, !strstr(options, "compact"));
	} else {
		assert_int_equal(erofs_reader_open(fd, &r, &err), want);
		assert_non_null(strstr(err.message, "compressed"));
	}
}

static void test_mkfs(void **state)
{
	(void)state;
	char dir[] = "/tmp/test_erofs_reader.XXXXXX";

	if (system("command -v mkfs.erofs >/dev/null 2>&1")) {
		printf("skipped: no mkfs.erofs\n");
		skip();
		return;
	}
	assert_non_null(mkdtemp(dir));

	CLEANUP_FREE char *root = format_string("%s/tree", dir);
	CLEANUP_FREE char *remove = format_string("rm -rf %s", dir);

	assert_true(root && remove);
	assert_int_equal(mkdir(root, 0755), 0);

	CLEANUP_FD int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	make_tree(fd);
	add_xattrs(root);
	check_mkfs(dir, "-Eforce-inode-extended", 0);
	check_mkfs(dir, "-Eforce-inode-compact", 0);
	check_mkfs(dir, "-Eforce-inode-extended,noinline_data", 0);
	check_mkfs(dir, "-x 1 -Eforce-inode-extended", 0);
	check_mkfs(dir, "--chunksize=4096 -Eforce-inode-extended,force-inode-blockmap", 0);
	check_mkfs(dir, "--chunksize=8192 -Eforce-inode-extended,force-chunk-indexes", 0);
	check_mkfs(dir, "-zlz4", CPULL_ERR_UNSUPPORTED);
	assert_int_equal(system(remove), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_mkfs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
