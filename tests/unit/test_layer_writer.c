/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/layer_writer: what each entry becomes, that nothing gets out of the layer's directory, and that whiteouts do
 * not depend on the order. Runs as root on file systems of its own: tmpfs, ext4, and tmpfs without openat2.
 */
#include "layer_fixture.h"

#include <linux/magic.h>
#include <sys/vfs.h>

#include "engine/base/limits.h"

static char base[] = "/tmp/layer-writer-XXXXXX";

static int fresh(void **state)
{
	(void)state;
	/* with a canary beside the layer */
	return fresh_place(base) || mkdir("canary", 0700) ? -1 : 0;
}

/* ---- files and their attributes ---- */

static void entries_become_files(void **state)
{
	struct bytes t = {0};
	char target[] = "../../etc/passwd";

	(void)state;
	ADD_DIR(&t, .name = "./", .mode = 0711, .uid = 3, .gid = 4, .mtime = 1400000000);
	ADD_DIR(&t, .name = "bin/", .mode = 0555);
	ADD(&t, .name = "bin/su", .data = "#!su\n", .mode = 04755, .uid = 1000, .gid = 1000);
	ADD(&t, .name = "bin/sg", .data = "#!sg\n", .mode = 02711, .gid = 42, .mtime = 7);
	ADD(&t, .name = "/abs//x/./y", .data = "y");
	ADD_SYMLINK(&t, "bin/s", target);
	ADD(&t, .type = '2', .name = "bin/s2", .link = "/x", .uid = 1000, .gid = 1001);
	ADD_DIR(&t, .name = "tmp", .mode = 01777);
	ADD_DIR(&t, .name = "shared", .mode = 02775, .uid = 5, .gid = 50);
	ADD(&t, .name = "shared/f", .data = "f");
	ADD_DIR(&t, .name = "shared/d");
	ADD(&t, .name = "none", .mode_zero = true, .uid = 65534, .gid = 65534);
	ADD(&t, .name = "wide", .mode = 0777);
	ADD(&t, .type = '3', .name = "null", .mode = 0666, .major = 1, .minor = 3);
	ADD(&t, .type = '4', .name = "disk", .mode = 0660, .major = 8, .minor = 300, .gid = 6);
	ADD(&t, .type = '6', .name = "pipe", .mode = 0622);
	struct outcome out = WRITE_OK("l", &t);

	assert_int_equal(out.stats.entries, 16);
	assert_int_equal(out.stats.file_bytes, 12);
	assert_int_equal(out.warnings, 0);
	CHECK_STAT("l", 0711, 3, 4);
	assert_int_equal(stat_of("l").st_mtime, 1400000000);
	CHECK_STAT("l/bin", 0555, 0, 0);
	assert_int_equal(stat_of("l/bin").st_mtime, MTIME);
	CHECK_STAT("l/bin/su", 04755, 1000, 1000);
	CHECK_STAT("l/bin/sg", 02711, 0, 42);
	assert_int_equal(stat_of("l/bin/sg").st_mtime, 7);
	assert_true(has_content("l/bin/su", "#!su\n"));
	assert_true(has_content("l/abs/x/y", "y"));
	CHECK_STAT("l/abs/x", 0755, 0, 0);
	assert_true(links_to("l/bin/s", target));
	assert_int_equal(stat_of("l/bin/s").st_mtime, MTIME);
	CHECK_STAT("l/bin/s2", 0777, 1000, 1001);
	CHECK_STAT("l/tmp", 01777, 0, 0);
	CHECK_STAT("l/shared", 02775, 5, 50);
	/* nothing rubs off from the directory */
	CHECK_STAT("l/shared/f", 0644, 0, 0);
	CHECK_STAT("l/shared/d", 0755, 0, 0);
	CHECK_STAT("l/none", 0, 65534, 65534);
	CHECK_STAT("l/wide", 0777, 0, 0);
	CHECK_STAT("l/null", 0666, 0, 0);
	assert_true(stat_of("l/null").st_rdev == makedev(1, 3));
	CHECK_STAT("l/disk", 0660, 0, 6);
	assert_true(stat_of("l/disk").st_rdev == makedev(8, 300));
	CHECK_STAT("l/pipe", 0622, 0, 0);
	assert_true(out.loose); /* abs and abs/x have no entries */
}

static void host_settings_do_not_matter(void **state)
{
	static const mode_t masks[] = {0777, 0077, 0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(masks); i++) {
		struct bytes t = {0};
		char name[8], path[32];

		/* the store's directory hands its group down */
		snprintf(name, sizeof(name), "l%zu", i);
		assert_int_equal(mkdir(name, 0700), 0);
		assert_int_equal(chown(name, 0, 77), 0);
		assert_int_equal(chmod(name, 02700), 0);
		ADD(&t, .name = "a/b/f", .data = "f", .mode = 0666);
		ADD_DIR(&t, .name = "d");
		ADD(&t, .type = '6', .name = "d/p", .mode = 0666);
		mode_t old = umask(masks[i]);
		struct outcome out = write_layer(name, &t, (struct how){0});

		umask(old);
		assert_int_equal(out.code, 0);
		CHECK_STAT(name, 0755, 0, 0);
		snprintf(path, sizeof(path), "%s/a/b/f", name);
		CHECK_STAT(path, 0666, 0, 0);
		snprintf(path, sizeof(path), "%s/a/b", name);
		CHECK_STAT(path, 0755, 0, 0);
		snprintf(path, sizeof(path), "%s/d/p", name);
		CHECK_STAT(path, 0666, 0, 0);
	}
}

static void directory_attributes_come_last(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD(&t, .name = "d/early", .data = "e");
	ADD_DIR(&t, .name = "d", .mtime = 1500000001, .mode = 0500);
	ADD(&t, .name = "d/f", .data = "f");
	ADD_DIR(&t, .name = "d/s", .mtime = 1500000002);
	ADD_LINK(&t, "d/h", "d/f");
	ADD(&t, .name = "d/s/x", .data = "x");
	ADD_DIR(&t, .name = "d/s", .mtime = 1500000003, .mode = 0700); /* again: the last one counts */
	ADD(&t, .name = "d/.wh.gone");
	WRITE_OK("l", &t);
	CHECK_STAT("l/d", 0500, 0, 0);
	assert_int_equal(stat_of("l/d").st_mtime, 1500000001);
	assert_int_equal(stat_of("l/d/s").st_mtime, 1500000003);
	CHECK_STAT("l/d/s", 0700, 0, 0);
	assert_true(exists("l/d/s/x") && exists("l/d/early"));
	assert_true(is_whiteout("l/d/gone") && !exists("l/d/.wh.gone"));
}

static bool on_ext4(void)
{
	struct statfs fs;

	assert_int_equal(statfs(".", &fs), 0);
	return fs.f_type == EXT4_SUPER_MAGIC;
}

static void sizes_and_holes(void **state)
{
	size_t len = (3u << 20) + 12345;
	static const enum cpull_io ios[] = {CPULL_IO_SYNC, CPULL_IO_AUTO, CPULL_IO_URING};
	char *data = malloc(len);

	(void)state;
	assert_non_null(data);
	for (size_t i = 0; i < len; i++)
		data[i] = (char)(i * 2654435761u >> 13);
	for (size_t i = 0; i < ARRAY_LEN(ios) - !has_uring(); i++) {
		struct bytes t = {0}, back = {0};
		char name[8], path[16];

		snprintf(name, sizeof(name), "l%zu", i);
		ADD(&t, .name = "small", .data = data, .len = 700);
		ADD(&t, .name = "big", .data = data, .len = len, .mode = 04711, .uid = 7);
		ADD(&t, .name = "big2", .data = data, .len = len);
		ADD(&t, .name = "empty");
		struct outcome out = WRITE_OK(name, &t, .io = ios[i], .chunk_bytes = 300000);

		assert_int_equal(out.stats.file_bytes, 2 * len + 700);
		/* images on a disk are written past the page cache unless something else is asked for */
		bool direct = ios[i] == CPULL_IO_AUTO && fixture_images && on_ext4() && has_uring();

		assert_int_equal(out.stats.bulk_way != BULK_SYNC, ios[i] == CPULL_IO_URING || direct);
		snprintf(path, sizeof(path), "%s/big", name);
		assert_int_equal(file_read(path, 8u << 20, "test", &back, NULL), 0);
		assert_int_equal(back.len, len);
		assert_memory_equal(back.data, data, len);
		CHECK_STAT(path, 04711, 7, 0);
		bytes_free(&back);
	}
	free(data);

	/* pax sparse 0.1: 12 GiB with four bytes in it */
	struct bytes t = {0}, r = {0};

	pax_record(&r, "GNU.sparse.size", "12884901888", 11);
	pax_record(&r, "GNU.sparse.numblocks", "1", 1);
	pax_record(&r, "GNU.sparse.map", "1048576,4", 9);
	tar_pax(&t, &r);
	bytes_free(&r);
	ADD(&t, .name = "holes", .data = "four");
	WRITE_OK("s", &t);
	assert_true(stat_of("s/holes").st_size == 12884901888ll);
	/* EROFS itself counts holes as blocks; its image has the map of chunks, and a whole one */
	if (fixture_images)
		assert_true(stat_of("s.erofs").st_size < 1 << 20);
	else
		assert_true(stat_of("s/holes").st_blocks < 64);
	int fd = open("s/holes", O_RDONLY);
	char four[4];

	assert_int_equal(pread(fd, four, 4, 1048576), 4);
	assert_memory_equal(four, "four", 4);
	close(fd);
}

static const uint8_t capability[20] = {1, 0, 0, 2, 0, 0x20};

static void xattrs(void **state)
{
	struct bytes t = {0};
	uint8_t value[64];
	/* version 2; user::rwx user:5:rw- group::r-x mask::rwx other::--- */
	static const uint8_t acl[] = {2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 6, 0, 5, 0, 0, 0,
				      4, 0, 5, 0, 255, 255, 255, 255, 16, 0, 7, 0, 255, 255, 255, 255,
				      32, 0, 0, 0, 255, 255, 255, 255};

	(void)state;
	tar_xattr(&t, "security.capability", capability, sizeof(capability));
	ADD(&t, .name = "ping", .data = "x", .mode = 0755, .uid = 1000);
	tar_xattr(&t, "user.note", "a\nb", 3);
	ADD(&t, .name = "note");
	tar_xattr(&t, "user.note", "link", 4);
	ADD_SYMLINK(&t, "sym", "note");
	tar_xattr(&t, "trusted.overlay.redirect", "/etc", 4);
	ADD_DIR(&t, .name = "redirect");
	tar_xattr(&t, "user.overlay.opaque", "y", 1);
	ADD_DIR(&t, .name = "opaque");
	tar_xattr(&t, "security.selinux", "label", 5);
	ADD(&t, .name = "labelled");
	tar_xattr(&t, "trusted.mine", "1", 1);
	ADD_DIR(&t, .name = "mine");
	tar_xattr(&t, "user.first", "1", 1);
	ADD_DIR(&t, .name = "twice");
	tar_xattr(&t, "user.second", "2", 1);
	ADD_DIR(&t, .name = "twice");
	tar_xattr(&t, "system.posix_acl_default", acl, sizeof(acl));
	ADD_DIR(&t, .name = "acl", .mode = 0750);
	ADD(&t, .name = "acl/child", .mode = 0600);
	tar_xattr(&t, "system.posix_acl_default", acl, sizeof(acl));
	ADD_DIR(&t, .name = "acl2", .mode = 0750);
	struct outcome out = WRITE_OK("l", &t);

	assert_int_equal(out.warnings, 1); /* once, however many */
	assert_int_equal(lgetxattr("l/ping", "security.capability", value, sizeof(value)), 20);
	assert_memory_equal(value, capability, 20);
	CHECK_STAT("l/ping", 0755, 1000, 0);
	assert_int_equal(lgetxattr("l/note", "user.note", value, sizeof(value)), 3);
	assert_int_equal(lgetxattr("l/redirect", "trusted.overlay.redirect", value, 64), -1);
	assert_int_equal(lgetxattr("l/opaque", "user.overlay.opaque", value, 64), -1);
	assert_int_equal(lgetxattr("l/mine", "trusted.mine", value, 64), 1);
	assert_int_equal(lgetxattr("l/twice", "user.first", value, 64), -1);
	assert_int_equal(lgetxattr("l/twice", "user.second", value, 64), 1);
	assert_int_equal(lgetxattr("l/acl", "system.posix_acl_default", value, 64), sizeof(acl));
	assert_int_equal(lgetxattr("l/acl2", "system.posix_acl_default", value, 64), sizeof(acl));
	CHECK_STAT("l/acl", 0750, 0, 0);
	CHECK_STAT("l/acl/child", 0600, 0, 0);
	assert_int_equal(lgetxattr("l/acl/child", "system.posix_acl_access", value, 64), -1);

	tar_xattr(&t, "security.capability", capability, 19);
	ADD(&t, .name = "bad");
	WRITE_FAILS("m", &t, CPULL_ERR_XATTR);
}

/* ---- the same name again ---- */

static void last_entry_wins(void **state)
{
	struct bytes t = {0};
	char deep[3000] = "tree";

	(void)state;
	ADD(&t, .name = "twice", .data = "first");
	ADD(&t, .name = "twice", .data = "second", .mode = 0600);
	ADD(&t, .name = "d2f/a/b/c", .data = "x");
	ADD_DIR(&t, .name = "d2f/e");
	ADD(&t, .name = "d2f", .data = "file");
	ADD(&t, .name = "f2d", .data = "x");
	ADD_DIR(&t, .name = "f2d", .mode = 0700);
	ADD(&t, .name = "f2d/in", .data = "in");
	ADD_SYMLINK(&t, "s2f", "f2d/in");
	ADD(&t, .name = "s2f", .data = "not through");
	ADD_SYMLINK(&t, "s2d", "f2d");
	ADD_DIR(&t, .name = "s2d", .mode = 0711);
	ADD(&t, .name = "s2d/own", .data = "own");
	ADD(&t, .type = '6', .name = "p2f");
	ADD(&t, .name = "p2f", .data = "no pipe");
	for (int i = 0; i < 700; i++)
		strcat(deep, "/d");
	ADD_DIR(&t, .name = deep);
	ADD_SYMLINK(&t, "tree", "gone");
	WRITE_OK("l", &t);
	assert_true(has_content("l/twice", "second"));
	CHECK_STAT("l/twice", 0600, 0, 0);
	assert_true(has_content("l/d2f", "file"));
	CHECK_STAT("l/f2d", 0700, 0, 0);
	assert_true(has_content("l/f2d/in", "in"));
	assert_true(has_content("l/s2f", "not through"));
	CHECK_STAT("l/s2d", 0711, 0, 0);
	assert_true(has_content("l/s2d/own", "own") && !exists("l/f2d/own"));
	assert_true(has_content("l/p2f", "no pipe"));
	assert_true(links_to("l/tree", "gone"));
	assert_int_equal(count_names("l"), 7);
}

/* ---- hard links ---- */

static void hard_links(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD(&t, .name = "f", .data = "A\n");
	ADD_LINK(&t, "h", "f");
	ADD(&t, .name = "h", .data = "B\n", .mode = 0600);
	ADD(&t, .name = "a", .data = "chain\n");
	ADD_LINK(&t, "b", "/a");
	ADD_LINK(&t, "no/entry/c", "./b");
	ADD_LINK(&t, "a", "a"); /* to itself */
	ADD_SYMLINK(&t, "sym", "/etc/passwd");
	ADD_LINK(&t, "symlink", "sym");
	ADD(&t, .name = "dir/target", .data = "inside");
	ADD_LINK(&t, "dir", "dir/target"); /* replaces the directory that its target is in */
	ADD(&t, .name = "su", .mode = 04755, .uid = 9, .data = "s");
	ADD(&t, .type = '1', .name = "su2", .link = "su", .mode = 04755, .uid = 9);
	ADD_SYMLINK(&t, "lib", "usr/lib");
	ADD(&t, .name = "usr/lib/so", .data = "so");
	ADD_LINK(&t, "lib/so.1", "lib/so");
	tar_xattr(&t, "security.capability", capability, sizeof(capability));
	ADD(&t, .name = "cap", .data = "x");
	ADD(&t, .type = '1', .name = "cap2", .link = "cap", .uid = 12);
	WRITE_OK("l", &t);
	assert_true(has_content("l/f", "A\n") && has_content("l/h", "B\n"));
	ino_t a = stat_of("l/a").st_ino;

	assert_true(stat_of("l/b").st_ino == a && stat_of("l/no/entry/c").st_ino == a);
	assert_int_equal(stat_of("l/a").st_nlink, 3);
	assert_true(links_to("l/symlink", "/etc/passwd"));
	assert_true(stat_of("l/sym").st_ino == stat_of("l/symlink").st_ino);
	assert_true(has_content("l/dir", "inside"));
	CHECK_STAT("l/su2", 04755, 9, 0);
	assert_true(stat_of("l/usr/lib/so.1").st_ino == stat_of("l/usr/lib/so").st_ino);
	uint8_t value[32];

	CHECK_STAT("l/cap", 0644, 12, 0);
	assert_int_equal(lgetxattr("l/cap2", "security.capability", value, sizeof(value)), 20);
}

static void bad_hard_links(void **state)
{
	static const struct {
		const char *target;
		int code;
	} bad[] = {{"../canary/x", CPULL_ERR_ESCAPE},
		   {"d/../../canary/x", CPULL_ERR_ESCAPE},
		   {"d", CPULL_ERR_TAR},
		   {".", CPULL_ERR_TAR},
		   {"", CPULL_ERR_TAR},
		   {"missing", CPULL_ERR_TAR},
		   {"d/missing/x", CPULL_ERR_TAR},
		   {".wh.x", CPULL_ERR_TAR},
		   {"/etc/hostname", CPULL_ERR_TAR},
		   {"out/x", CPULL_ERR_TAR},
		   {"later", CPULL_ERR_TAR}};

	(void)state;
	close(creat("canary/x", 0600));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct bytes t = {0};
		char name[8], cwd[4096], canary[4200];

		snprintf(name, sizeof(name), "l%zu", i);
		snprintf(canary, sizeof(canary), "%s/canary", getcwd(cwd, sizeof(cwd)));
		ADD_DIR(&t, .name = "d");
		if (strlen(canary) < 100)
			ADD_SYMLINK(&t, "out", canary);
		ADD_LINK(&t, "h", bad[i].target);
		ADD(&t, .name = "later", .data = "x");
		WRITE_FAILS(name, &t, bad[i].code, .tie = true);
		assert_int_equal(stat_of("canary/x").st_nlink, 1);
	}
}

static void many_links_become_copies(void **state)
{
	struct bytes t = {0};
	char name[32];

	(void)state;
	if (!on_ext4() || fixture_images)
		skip(); /* others take any number */
	ADD(&t, .name = "f", .data = "content", .uid = 3, .mode = 0640);
	for (int i = 0; i < 65100; i++) {
		snprintf(name, sizeof(name), "h%d", i);
		tar_item(&t, (struct item){.type = '1', .name = name, .link = "f", .uid = 3, .mode = 0640});
	}
	WRITE_OK("l", &t);
	assert_int_equal(stat_of("l/f").st_nlink, 65000);
	assert_true(has_content("l/h65099", "content"));
	CHECK_STAT("l/h65099", 0640, 3, 0);
}

/* ---- escapes ---- */

static void nothing_gets_out(void **state)
{
	char cwd[4000], canary[4096], sibling[4096];

	(void)state;
	assert_non_null(getcwd(cwd, sizeof(cwd)));
	snprintf(canary, sizeof(canary), "%s/canary", cwd);
	assert_true(strlen(canary) < 100);
	close(creat("canary/alive", 0600));
	const char *links[] = {canary, "../canary", "../../../../../../../../tmp", "/", "..", "a/../../canary"};

	for (size_t i = 0; i < ARRAY_LEN(links); i++) {
		struct bytes t = {0};
		char name[8];

		snprintf(name, sizeof(name), "l%zu", i);
		ADD_SYMLINK(&t, "out", links[i]);
		ADD(&t, .name = "out/sub/evil", .data = "evil\n");
		ADD_DIR(&t, .name = "out/dir");
		ADD(&t, .name = "out/.wh.alive");
		ADD_LINK(&t, "out/link", "out/sub/evil");
		ADD_SYMLINK(&t, "alive", canary);
		ADD(&t, .name = "alive", .data = "replaced");
		WRITE_OK(name, &t);
		assert_int_equal(count_names("canary"), 1);
		assert_int_equal(stat_of("canary/alive").st_nlink, 1);
	}
	/* inside the layer that is where it went */
	snprintf(sibling, sizeof(sibling), "l0%s/sub/evil", canary);
	assert_true(has_content(sibling, "evil\n"));
	assert_true(has_content("l3/sub/evil", "evil\n"));
	assert_true(!exists("sub") && !exists("dir"));

	/* a prefix that was good before it became a link */
	struct bytes t = {0};

	ADD(&t, .name = "a/b/f", .data = "f");
	ADD_SYMLINK(&t, "a/b", canary);
	ADD(&t, .name = "a/b/g", .data = "g");
	WRITE_OK("m", &t);
	assert_int_equal(count_names("canary"), 1);
	assert_true(links_to("m/a/b", canary));

	/* a root whose name is the beginning of another's */
	assert_int_equal(mkdir("n-evil", 0700), 0);
	ADD_SYMLINK(&t, "s", "../n-evil");
	ADD(&t, .name = "s/x", .data = "x");
	WRITE_OK("n", &t);
	assert_int_equal(count_names("n-evil"), 0);
}

static void bad_names(void **state)
{
	static const struct {
		char type;
		const char *name;
		int code;
	} bad[] = {
		{'0', "../x", CPULL_ERR_ESCAPE},      {'0', "a/../../x", CPULL_ERR_ESCAPE},
		{'0', "a/../b", CPULL_ERR_ESCAPE},    {'5', "..", CPULL_ERR_ESCAPE},
		{'2', ".", CPULL_ERR_ESCAPE},         {'0', "./", CPULL_ERR_TAR},
		{'1', "/", CPULL_ERR_ESCAPE},         {'6', ".", CPULL_ERR_ESCAPE},
		{'0', ".", CPULL_ERR_ESCAPE},         {'0', "file/x", CPULL_ERR_TAR},
		{'0', "loop/x", CPULL_ERR_TAR},       {'0', ".wh.", CPULL_ERR_WHITEOUT},
		{'0', ".wh..", CPULL_ERR_WHITEOUT},   {'0', "d/.wh...", CPULL_ERR_WHITEOUT},
		{'5', ".wh.x/", CPULL_ERR_WHITEOUT},  {'0', ".wh.x/y", CPULL_ERR_WHITEOUT},
		{'2', ".wh.x", CPULL_ERR_WHITEOUT},   {'5', ".wh..wh..opq", CPULL_ERR_WHITEOUT},
		{'3', "zero", CPULL_ERR_WHITEOUT},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct bytes t = {0};
		char name[8];

		snprintf(name, sizeof(name), "l%zu", i);
		ADD(&t, .name = "file", .data = "x");
		ADD_SYMLINK(&t, "loop", "loop");
		tar_item(&t, (struct item){.type = bad[i].type, .name = bad[i].name, .link = "../canary"});
		WRITE_FAILS(name, &t, bad[i].code);
		assert_int_equal(count_names("canary"), 0);
	}
}

/* Default ACLs of directories, each another one and as long as an attribute can be. */
static void more_acls_than_are_kept(void **state)
{
	static uint8_t acl[LIMIT_XATTR_VALUE_BYTES];
	struct bytes t = {0};
	char name[16];

	(void)state;
	for (unsigned i = 0; i < LIMIT_ACL_BYTES / sizeof(acl); i++) {
		memset(acl, (int)i, sizeof(acl));
		snprintf(name, sizeof(name), "d%u", i);
		tar_xattr(&t, "system.posix_acl_default", acl, sizeof(acl));
		ADD_DIR(&t, .name = name);
	}
	struct outcome out = WRITE_FAILS("acls", &t, CPULL_ERR_LIMIT);

	assert_non_null(strstr(out.err.message, "ACLs"));
}

static void limits(void **state)
{
	struct bytes t = {0};
	char name[2300] = "";

	(void)state;
	for (int i = 0; i < 1100; i++)
		strcat(name, "d/");
	ADD_DIR(&t, .name = name);
	WRITE_FAILS("l0", &t, CPULL_ERR_LIMIT);

	/* short paths through links may get longer than a path can be */
	struct bytes record = {0};

	memset(name, 'x', sizeof(name));
	for (int i = 0; i < 9; i++)
		name[2 + 240 * i - (i == 0)] = '/';
	name[0] = 'a';
	name[2200] = 0;
	ADD_DIR(&t, .name = name);
	pax_record(&record, "linkpath", name, strlen(name));
	tar_pax(&t, &record);
	bytes_free(&record);
	ADD_SYMLINK(&t, "s", "");
	name[0] = 's';
	ADD_DIR(&t, .name = name);
	WRITE_FAILS("l1", &t, CPULL_ERR_LIMIT);

	ADD(&t, .name = "a");
	ADD(&t, .name = "b");
	/* what LIMIT_LAYER_ENTRIES is unless it is given */
	WRITE_OK("l2", &t, .max_entries = 2);
	ADD(&t, .name = "a");
	ADD(&t, .name = "b");
	WRITE_FAILS("l3", &t, CPULL_ERR_LIMIT, .max_entries = 1);

	ADD(&t, .type = '3', .name = "big", .major = 4096, .minor = 0); /* cut to 12 bits it would be 0:0 */
	WRITE_FAILS("l4", &t, CPULL_ERR_TAR);
	ADD(&t, .name = "cut", .data = "some data");
	t.len -= 512;
	WRITE_FAILS("l5", &t, CPULL_ERR_TAR, .truncated = true);
}

/* ---- whiteouts ---- */

static void whiteouts(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD(&t, .name = "z.wh", .data = "z");
	ADD(&t, .name = ".wh.plain");
	ADD(&t, .name = "file", .data = "ours");
	ADD(&t, .name = ".wh.file");
	ADD(&t, .name = ".wh.late");
	ADD(&t, .name = "late", .data = "late");
	ADD(&t, .name = ".wh.link");
	ADD_SYMLINK(&t, "link", "late");
	ADD_DIR(&t, .name = "dir");
	ADD(&t, .name = "dir/f", .data = "f");
	ADD(&t, .name = ".wh.dir");
	ADD(&t, .name = ".wh.ldir");
	ADD(&t, .name = "ldir/sub/f", .data = "f");
	ADD(&t, .type = '1', .name = ".wh.aufs", .link = ".wh..wh.aufs");
	ADD(&t, .name = "nope/.wh.x", .data = "content does not matter");
	WRITE_OK("l", &t);
	assert_true(is_whiteout("l/plain") && is_whiteout("l/aufs") && is_whiteout("l/nope/x"));
	assert_true(has_content("l/file", "ours") && has_content("l/late", "late") && links_to("l/link", "late"));
	assert_true(is_opaque("l/dir") && has_content("l/dir/f", "f"));
	assert_true(is_opaque("l/ldir") && has_content("l/ldir/sub/f", "f"));
	assert_false(is_opaque("l") || is_opaque("l/ldir/sub") || is_opaque("l/nope"));
	assert_int_equal(count_names("l"), 9);
}

static void opaque_in_any_order(void **state)
{
	(void)state;
	for (int order = 0; order < 6; order++) {
		struct bytes t = {0};
		char name[8], path[64];

		snprintf(name, sizeof(name), "l%d", order);
		if (order & 1)
			ADD_DIR(&t, .name = "d", .mtime = 5);
		for (int k = 0; k < 3; k++)
			switch ((order / 2 + k) % 3) {
			case 0:
				ADD(&t, .name = "d/.wh..wh..opq");
				break;
			case 1:
				ADD(&t, .name = "d/.wh.old");
				ADD(&t, .name = "d/sub/.wh.old");
				ADD(&t, .name = "d/old2", .data = "new");
				ADD(&t, .name = "d/.wh.old2");
				break;
			default:
				ADD(&t, .name = "d/new", .data = "new");
			}
		WRITE_OK(name, &t);
		snprintf(path, sizeof(path), "%s/d", name);
		assert_true(is_opaque(path));
		assert_int_equal(count_names(path), 3); /* new, old2, sub: no ghosts */
		if (order & 1)
			assert_int_equal(stat_of(path).st_mtime, 5);
		snprintf(path, sizeof(path), "%s/d/sub", name);
		assert_int_equal(count_names(path), 0);
	}
}

/* Whatever has the name in the end, a directory must not show what the whiteout hides. */
static void whiteouts_are_remembered(void **state)
{
	static const char *orders[] = {"wfd", "fwd", "fdw", "wdfd", "dwfd", "wfdfd"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
		struct bytes t = {0};
		char name[8], path[64];

		for (const char *o = orders[i]; *o; o++)
			if (*o == 'w')
				ADD(&t, .name = "p/.wh.x");
			else if (*o == 'f')
				ADD(&t, .name = "p/x", .data = "x");
			else
				ADD_DIR(&t, .name = "p/x");
		snprintf(name, sizeof(name), "l%zu", i);
		WRITE_OK(name, &t);
		snprintf(path, sizeof(path), "%s/p/x", name);
		assert_true(is_opaque(path));
	}
}

static void aufs_leftovers(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD(&t, .name = ".wh..wh.aufs");
	ADD_DIR(&t, .name = ".wh..wh.plnk");
	ADD(&t, .name = ".wh..wh.plnk/1.2", .data = "linked");
	ADD_DIR(&t, .name = ".wh..wh.orph");
	ADD(&t, .name = ".wh..wh.orph/x", .data = "x");
	ADD_LINK(&t, "a", ".wh..wh.plnk/1.2");
	ADD_LINK(&t, "d/b", ".wh..wh.plnk/1.2");
	ADD(&t, .name = "d/.wh..wh.plnk/3", .data = "not here");
	WRITE_OK("l", &t);
	assert_true(has_content("l/a", "linked") && stat_of("l/a").st_ino == stat_of("l/d/b").st_ino);
	assert_int_equal(count_names("l"), 2);
	assert_int_equal(count_names("l/d"), 1);
	assert_int_equal(stat_of("l/a").st_nlink, 2);
}

/* ---- odds and ends ---- */

static void odd_names(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD(&t, .name = "a\nb", .data = "1");
	ADD(&t, .name = "\xff\xfe", .data = "2");
	ADD(&t, .name = "//x", .data = "3");
	ADD(&t, .name = "...", .data = "4");
	ADD(&t, .name = ".wh", .data = "5");
	WRITE_OK("l", &t);
	assert_true(has_content("l/a\nb", "1") && has_content("l/\xff\xfe", "2") && has_content("l/x", "3") &&
		    has_content("l/...", "4") && has_content("l/.wh", "5"));
	/* in errors they are made harmless */
	ADD_SYMLINK(&t, "a\nb\x1b", "");
	struct outcome out = WRITE_FAILS("m", &t, CPULL_ERR_TAR);

	assert_null(strpbrk(out.err.message, "\n\x1b"));
	assert_non_null(strstr(out.err.message, "a\\x0ab\\x1b"));
}

static void any_cut_gives_the_same(void **state)
{
	static const size_t cuts[] = {1, 511, 512, 513, 4096};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
		struct bytes t = {0};
		char name[8], path[32];

		ADD_DIR(&t, .name = "d", .mode = 0700, .mtime = 9);
		ADD(&t, .name = "d/f", .data = "some text that is cut", .uid = 4);
		ADD_LINK(&t, "d/g", "d/f");
		snprintf(name, sizeof(name), "l%zu", i);
		WRITE_OK(name, &t, .chunk_bytes = cuts[i]);
		snprintf(path, sizeof(path), "%s/d/g", name);
		assert_true(has_content(path, "some text that is cut"));
	}
}

static void shared_vectors(void **state)
{
	static const struct {
		const char *name;
		int code;
	} cases[] = {
		{"l1-base", 0}, {"l2-whiteout", 0}, {"l3-opaque-last", 0}, {"wh-empty", CPULL_ERR_WHITEOUT},
		{"wh-dot", CPULL_ERR_WHITEOUT}, {"wh-dotdot", CPULL_ERR_WHITEOUT}, {"wh-then-file-same-layer", 0},
		{"file-then-wh-same-layer", 0}, {"pax-path-size", 0}, {"base256-uid", 0}, {"base256-neg-mtime", 0},
		{"pax-xattr", 0}, {"pax-xattr-cap3", 0}, {"hardlink", 0}, {"hardlink-forward", CPULL_ERR_TAR},
		{"hardlink-escape", CPULL_ERR_ESCAPE}, {"symlink-parent", 0}, {"symlink-replace-dir", 0},
		{"dotdot", CPULL_ERR_ESCAPE}, {"absolute", 0}, {"dot-root", 0}, {"dup-file", 0}, {"dup-dir-file", 0},
		{"devnodes", 0}, {"chardev00", CPULL_ERR_WHITEOUT}, {"dir-mtime", 0}, {"gnu-sparse-old", 0},
		{"pax-sparse-0.1", 0}, {"pax-sparse-1.0", 0}, {"truncated-body", CPULL_ERR_TAR}, {"empty", 0},
		{"no-eof-blocks", 0}, {"garbage-after-eof", 0}, {"v7", 0},
	};
	const char *shared = getenv("COCO_PULL_SHARED");
	char path[4096];

	(void)state;
	snprintf(path, sizeof(path), "%s/vectors/layers", shared ? shared : "");
	if (!shared || !exists(path)) {
		print_message("skipped: no shared vectors\n");
		skip();
	}
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct bytes t = {0};
		struct cpull_error err;

		snprintf(path, sizeof(path), "%s/vectors/layers/%s.tar", shared, cases[i].name);
		assert_int_equal(file_read(path, 1u << 20, "vector", &t, &err), 0);
		struct outcome out = write_layer(cases[i].name, &t, (struct how){.tie = true, .truncated = true});

		if (out.code != cases[i].code)
			print_error("%s: %d %s\n", cases[i].name, out.code, out.err.message);
		assert_int_equal(out.code, cases[i].code);
	}
	assert_int_equal(stat_of("dir-mtime/m").st_mtime, 1000000000);
	assert_true(is_opaque("l3-opaque-last/a") && exists("l3-opaque-last/a/b/foo"));
	assert_true(has_content("dup-file/x", "second") || exists("dup-file"));
	assert_true(S_ISREG(stat_of("dup-dir-file/x").st_mode));
	assert_true(S_ISREG(stat_of("wh-then-file-same-layer/z").st_mode));
	assert_true(S_ISREG(stat_of("file-then-wh-same-layer/z").st_mode));
	assert_true(exists("absolute/etc/abs"));
	assert_int_equal(stat_of("gnu-sparse-old").st_nlink > 0, 1);
}

/* Run with mknod refused. overlayfs reads this form since 6.7. */
static void whiteouts_without_nodes(void **state)
{
	struct bytes t = {0};
	char value = 0;

	(void)state;
	ADD(&t, .name = "d/gone", .data = "x");
	ADD(&t, .name = "d/keep", .data = "x");
	ADD(&t, .name = "o/old", .data = "x");
	ADD(&t, .name = "r/old", .data = "x");
	WRITE_OK("l0", &t);
	ADD(&t, .name = "d/.wh.gone");
	ADD(&t, .name = "o/.wh.old");
	ADD(&t, .name = "o/.wh..wh..opq");
	ADD(&t, .name = ".wh.r");
	ADD(&t, .name = "r/new", .data = "new");
	ADD(&t, .name = "empty");
	WRITE_OK("l1", &t);
	assert_true(S_ISREG(stat_of("l1/d/gone").st_mode) && stat_of("l1/d/gone").st_size == 0);
	assert_true(lgetxattr("l1/d/gone", "trusted.overlay.whiteout", NULL, 0) >= 0);
	assert_int_equal(lgetxattr("l1/d", "trusted.overlay.opaque", &value, 1), 1);
	assert_int_equal(value, 'x');
	assert_true(is_opaque("l1/o") && is_opaque("l1/r"));
	assert_int_equal(count_names("l1/o"), 0);
	assert_int_equal(mkdir("view", 0755), 0);
	if (mount("overlay", "view", "overlay", 0, "lowerdir=l1:l0"))
		skip();
	bool old_kernel = exists("view/d/gone");

	assert_true(exists("view/d/keep") && exists("view/empty") && has_content("view/r/new", "new"));
	assert_false(exists("view/o/old") || exists("view/r/old"));
	umount2("view", MNT_DETACH);
	if (old_kernel)
		skip();
	/* a device in the image is an error that says why */
	ADD(&t, .type = '3', .name = "null", .major = 1, .minor = 3);
	struct outcome out = WRITE_FAILS("l2", &t, CPULL_ERR_PERMISSION);

	assert_non_null(strstr(out.err.message, "CAP_MKNOD"));
}

#define T(f) cmocka_unit_test_setup(f, fresh)

static int run_group(const char *name)
{
	const struct CMUnitTest tests[] = {
		T(entries_become_files), T(host_settings_do_not_matter), T(directory_attributes_come_last),
		T(sizes_and_holes), T(xattrs), T(last_entry_wins), T(hard_links), T(bad_hard_links),
		T(many_links_become_copies), T(nothing_gets_out), T(bad_names), T(limits),
		T(more_acls_than_are_kept), T(whiteouts),
		T(opaque_in_any_order), T(whiteouts_are_remembered), T(aufs_leftovers), T(odd_names),
		T(any_cut_gives_the_same), T(shared_vectors),
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	int failed = 0;

	if (!own_namespace())
		return 0;
	if (!begin_at(base))
		return 1;
	failed += run_group("layer_writer on tmpfs");
	fixture_helper = FILE_HELPER_FIRST;
	fresh_tmpfs(base);
	failed += run_group("layer_writer on tmpfs with a helper");
	if (fresh_ext4(base))
		failed += run_group("layer_writer on ext4 with a helper");
	fixture_helper = FILE_HELPER_NEVER;
	if (fresh_ext4(base))
		failed += run_group("layer_writer on ext4");
	fixture_images = true;
	fresh_tmpfs(base);
	failed += run_group("layer_writer into images on tmpfs");
	if (fresh_ext4(base))
		failed += run_group("layer_writer into images on ext4");
	fixture_images = false;
	fresh_tmpfs(base);
	if (refuse_syscall(SYS_openat2, ENOSYS))
		failed += run_group("layer_writer without openat2");
	const struct CMUnitTest last[] = {T(whiteouts_without_nodes)};

	if (refuse_syscall(SYS_mknodat, EPERM))
		failed += cmocka_run_group_tests_name("layer_writer without mknod", last, NULL, NULL);
	end_at(base);
	return failed;
}
