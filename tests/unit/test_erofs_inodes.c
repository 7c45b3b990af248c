/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/erofs_image: extended attributes, ACLs, and directories.
 */
#include "made_erofs.h"

#include <linux/posix_acl.h>

/* ---- extended attributes ---- */

#define XATTR(n, v, l) {.name = (n), .value = (const uint8_t *)(v), .len = (l)}

static struct made *add_with(struct maker *m, const char *name, uint32_t mode, uint64_t size,
			     const struct tar_xattr *xattrs, size_t count)
{
	struct made *made = add(m, name, mode);

	made->size = size;
	made->attributes.xattrs = xattrs;
	made->attributes.xattr_count = count;
	OK(put_file(m, made, err));
	return made;
}

/* How a file that ends there takes them. */
static int try_xattrs(const struct tar_xattr *xattrs, size_t count, struct cpull_error *err)
{
	const struct erofs_attributes attributes = {.mode = S_IFREG, .xattrs = xattrs, .xattr_count = count};
	struct maker m;

	begin(&m);

	int rc = erofs_image_file_begin(m.image, &attributes, 1, false, err);

	done(&m);
	return rc;
}

static void check_xattr(const char *path, const struct tar_xattr *want)
{
	static uint8_t value[65536];

	assert_int_equal(lgetxattr(path, want->name, value, sizeof(value)), want->len);
	assert_memory_equal(value, want->value, want->len);
}

static void xattrs(void **state)
{
	static uint8_t big[65535];
	static char long_name[256] = "user.";
	static const char capability[20] = "\1\0\0\2\0\x24";
	struct tar_xattr some[] = {
		XATTR("user.z", "last", 4),
		XATTR("user.empty", "", 0),
		XATTR("trusted.t", "v\0\n", 3),
		XATTR("security.capability", capability, 20),
		XATTR(long_name, "x", 1),
		XATTR("user.big", big, 60000),
		XATTR("user.largest", big, 65535),
		XATTR("user.1", "a", 1),
	};
	struct maker m;
	char list[1024];

	(void)state;
	memset(long_name + 5, 'n', 250);
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = byte_at(i);
	begin(&m);
	add_with(&m, "all", S_IFREG | 0755, 5000, some, ARRAY_LEN(some));
	for (uint64_t size = 3800; size < 4100; size += 7) {
		char name[16];

		snprintf(name, sizeof(name), "s%llu", (unsigned long long)size);
		add_with(&m, name, S_IFREG | 0644, size, some, size % 5);
	}

	struct made *link = add(&m, "link", S_IFLNK | 0777);

	link->target = "t";
	link->size = 1;
	link->attributes.xattrs = some + 2;
	link->attributes.xattr_count = 1;
	OK(erofs_image_symlink(m.image, &link->attributes, "t", nid_of(&m, link), err));
	m.root.xattrs = some + 1;
	m.root.xattr_count = 2;
	m.root.opaque = true;
	end(&m);
	assert_int_equal(m.warnings, 0);
	if (m.mounted) {
		for (size_t i = 0; i < ARRAY_LEN(some); i++)
			check_xattr("all", &some[i]);
		check_xattr("link", &some[2]);
		check_xattr(".", &some[1]);
		assert_true(is_opaque("."));
		assert_int_equal(llistxattr("link", list, sizeof(list)), sizeof("trusted.t"));
		assert_int_equal(lgetxattr("s3800", "user.z", list, sizeof(list)), -1);
		check_xattr("s3821", &some[0]);
	}
	done(&m);
}

static void xattrs_left_out(void **state)
{
	static const struct tar_xattr bad[] = {
		XATTR("trusted.overlay.opaque", "y", 1), XATTR("user.overlay.redirect", "/", 1),
		XATTR("security.selinux", "x", 1),       XATTR("system.posix_acl_default", "\2\0\0\0", 4),
		XATTR("lustre.lov", "x", 1),             XATTR("system.other", "x", 1),
	};
	struct maker m;
	char list[64];

	(void)state;
	begin(&m);
	add_with(&m, "f", S_IFREG | 0644, 10, bad, ARRAY_LEN(bad));
	end(&m);
	assert_int_equal(m.warnings, 2); /* once for each reason */
	if (m.mounted)
		assert_int_equal(llistxattr("f", list, sizeof(list)), 0);
	done(&m);
}

static void xattrs_refused(void **state)
{
	static uint8_t big[65536];
	static char name[257] = "user.";
	static const struct tar_xattr rows[] = {
		XATTR("user.big", big, 65536), XATTR("security.capability", "abc", 3), XATTR("user.", "x", 1),
		XATTR(name, "x", 1),
	};
	static const struct tar_xattr full[] = {
		XATTR("user.1", big, 65535), XATTR("user.2", big, 65535), XATTR("user.3", big, 65535),
		XATTR("user.4", big, 65535),
	};
	static struct tar_xattr many[LIMIT_XATTRS + 1];
	struct cpull_error err;

	(void)state;
	memset(name + 5, 'n', 251);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_int_equal(try_xattrs(&rows[i], 1, &err), CPULL_ERR_XATTR);
	assert_int_equal(try_xattrs(full, 3, &err), 0);
	assert_int_equal(try_xattrs(full, 4, &err), CPULL_ERR_XATTR);
	assert_non_null(strstr(err.message, "262148"));
	for (size_t i = 0; i < ARRAY_LEN(many); i++)
		many[i] = rows[0];
	assert_int_equal(try_xattrs(many, ARRAY_LEN(many), &err), CPULL_ERR_LIMIT);
}

/* As many bytes as an inode can have. */
static void xattrs_full(void **state)
{
	static uint8_t big[65535];
	/* 12 of header; four entries of 4 + 1 and a value */
	const struct tar_xattr full[] = {
		XATTR("user.1", big, 65535), XATTR("user.2", big, 65535), XATTR("user.3", big, 65535),
		XATTR("user.4", big, LIMIT_EROFS_XATTRS_BYTES - 12 - 3 * 65540 - 5),
	};
	struct maker m;

	(void)state;
	begin(&m);
	add_with(&m, "full", S_IFREG | 0644, 100, full, ARRAY_LEN(full));
	add_file(&m, "after", 100);
	end(&m);
	if (m.mounted)
		for (size_t i = 0; i < ARRAY_LEN(full); i++)
			check_xattr("full", &full[i]);
	done(&m);
}

/* More than the root's place takes: it goes to the end while that is near, and fails when it is not. */
static void xattrs_of_the_root(void **state)
{
	static uint8_t big[60000];
	const struct tar_xattr large[] = {XATTR("user.large", big, sizeof(big))};
	struct erofs_directory root;
	struct maker m;
	uint64_t nid;

	(void)state;
	begin(&m);
	add_file(&m, "f", 100);
	m.root.xattrs = large;
	m.root.xattr_count = 1;
	end(&m);
	if (m.mounted)
		check_xattr(".", &large[0]);
	done(&m);

	begin(&m);
	for (unsigned i = 0; i < 40; i++) {
		char name[8];

		snprintf(name, sizeof(name), "%u", i);
		add_with(&m, name, S_IFREG | 0644, 1, large, 1);
	}
	root = root_of(&m);
	root.attributes.xattrs = large;
	root.attributes.xattr_count = 1;
	FAILS(CPULL_ERR_XATTR, "layer's root", erofs_image_dir_place(m.image, &root, &nid, err));
	done(&m);
}

/* ---- ACLs ---- */

#define E(tag, perm, id) (tag), 0, (perm), 0, (id) & 0xff, (id) >> 8 & 0xff, (id) >> 16 & 0xff, (id) >> 24
#define NOBODY 0xffffffffu

static const uint8_t acl_mode_only[] = {2, 0, 0, 0, E(ACL_USER_OBJ, 7, NOBODY), E(ACL_GROUP_OBJ, 5, NOBODY),
					E(ACL_OTHER, 1, NOBODY)};
static const uint8_t acl_named[] = {2, 0, 0, 0, E(ACL_USER_OBJ, 6, NOBODY), E(ACL_USER, 7, 1000u),
				    E(ACL_USER, 4, 1001u), E(ACL_GROUP_OBJ, 4, NOBODY), E(ACL_GROUP, 2, 7u),
				    E(ACL_MASK, 5, NOBODY), E(ACL_OTHER, 0, NOBODY)};

static void acls(void **state)
{
	const struct tar_xattr equal = XATTR("system.posix_acl_access", acl_mode_only, sizeof(acl_mode_only));
	const struct tar_xattr named = XATTR("system.posix_acl_access", acl_named, sizeof(acl_named));
	const struct tar_xattr both[] = {XATTR("system.posix_acl_default", acl_mode_only, sizeof(acl_mode_only)),
					 named};
	struct maker m;
	char list[64];

	(void)state;
	begin(&m);
	m.root.xattrs = both;
	m.root.xattr_count = 2;
	/* the ACL's permissions are the mode's, as they would be after setxattr() */
	add_with(&m, "equal", S_IFREG | 04600, 3, &equal, 1)->attributes.mode = S_IFREG | 04751;
	add_with(&m, "named", S_IFREG | 0777, 3, &named, 1)->attributes.mode = S_IFREG | 0650;
	end(&m);
	if (m.mounted) {
		assert_int_equal(llistxattr("equal", list, sizeof(list)), 0);
		check_xattr("named", &named);
		check_xattr(".", &both[0]);
		check_xattr(".", &both[1]);
		CHECK_STAT(".", 0650, 0, 0);
	}
	done(&m);
}

static void acls_refused(void **state)
{
	static const uint8_t no_mask[] = {2, 0, 0, 0, E(ACL_USER_OBJ, 6, NOBODY), E(ACL_USER, 7, 1000u),
					  E(ACL_GROUP_OBJ, 4, NOBODY), E(ACL_OTHER, 0, NOBODY)};
	static const uint8_t order[] = {2, 0, 0, 0, E(ACL_GROUP_OBJ, 6, NOBODY), E(ACL_USER_OBJ, 7, NOBODY),
					E(ACL_OTHER, 0, NOBODY)};
	static const uint8_t no_group[] = {2, 0, 0, 0, E(ACL_USER_OBJ, 6, NOBODY), E(ACL_OTHER, 0, NOBODY)};
	static const uint8_t no_other[] = {2, 0, 0, 0, E(ACL_USER_OBJ, 6, NOBODY), E(ACL_GROUP_OBJ, 0, NOBODY)};
	static const uint8_t twice[] = {2, 0, 0, 0, E(ACL_USER_OBJ, 6, NOBODY), E(ACL_USER_OBJ, 6, NOBODY),
					E(ACL_GROUP_OBJ, 0, NOBODY), E(ACL_OTHER, 0, NOBODY)};
	static const uint8_t perm[] = {2, 0, 0, 0, E(ACL_USER_OBJ, 8, NOBODY), E(ACL_GROUP_OBJ, 0, NOBODY),
				       E(ACL_OTHER, 0, NOBODY)};
	static const uint8_t tag[] = {2, 0, 0, 0, E(ACL_USER_OBJ, 6, NOBODY), E(ACL_GROUP_OBJ, 0, NOBODY),
				      E(0x11, 1, NOBODY), E(ACL_OTHER, 0, NOBODY)};
	static const uint8_t id[] = {2, 0, 0, 0, E(ACL_USER_OBJ, 6, NOBODY), E(ACL_USER, 7, NOBODY),
				     E(ACL_GROUP_OBJ, 4, NOBODY), E(ACL_MASK, 4, NOBODY), E(ACL_OTHER, 0, NOBODY)};
	static const struct tar_xattr rows[] = {
#define ROW(v) XATTR("system.posix_acl_access", v, sizeof(v))
		ROW(no_mask), ROW(order), ROW(no_group), ROW(no_other), ROW(twice), ROW(perm), ROW(tag), ROW(id),
		XATTR("system.posix_acl_access", acl_named, sizeof(acl_named) - 1),
		XATTR("system.posix_acl_access", acl_named, 3),
	};
	/* the kernel takes these for "no ACL", or for a kind it does not know */
	static const struct tar_xattr none[] = {
		XATTR("system.posix_acl_access", "", 0), XATTR("system.posix_acl_access", acl_named, 4),
		XATTR("system.posix_acl_access", "\1\0\0\0", 4),
	};
	struct cpull_error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(try_xattrs(&rows[i], 1, &err), CPULL_ERR_XATTR);
		/* and the kernel thinks so, too */
		if (can_mount) {
			CLEANUP_FD int fd = open("acl", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

			assert_int_equal(fsetxattr(fd, rows[i].name, rows[i].value, rows[i].len, 0), -1);
			assert_int_equal(errno, EINVAL);
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(none); i++)
		assert_int_equal(try_xattrs(&none[i], 1, &err), 0);
}

/* ---- directories ---- */

static void order_of_names(void **state)
{
	static const char *const names[] = {
		"!", "+plus", "-", ",", "\"", ".-", "...", "..x", ".a", ".\x01", "0", "\xff\xfe\x80", "\x01\n", "a", "aa",
		"ab", "a\x80", "Z",
	};
	struct maker m;

	(void)state;
	begin(&m);
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		add_node(&m, names[i], S_IFIFO | 0600, 0, 0);
	end(&m);
	if (m.mounted)
		assert_int_equal(count_names("."), ARRAY_LEN(names));
	done(&m);
}

/* Entries that fill blocks to the last byte, and one byte more. */
static void full_blocks(void **state)
{
	(void)state;
	/* "." and ".." take 27 of 4096 */
	for (unsigned last = 200; last <= 255; last++) {
		struct maker m;
		char name[256];

		begin(&m);
		for (unsigned i = 0; i < 32; i++) {
			memset(name, 'n', sizeof(name));
			name[0] = (char)('A' + i);
			name[i % 16 == 15 ? last : 255] = 0;
			add_node(&m, name, S_IFIFO | 0600, 0, 0);
		}
		end(&m);
		if (m.mounted)
			assert_int_equal(count_names("."), 32);
		done(&m);
	}
}

static void many_names(void **state)
{
	const unsigned count = 100000;
	struct maker m;
	char name[64];
	uint64_t nid = 0;

	(void)state;
	begin(&m);
	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "%u-%.*s", i * 7919 % count, (int)(i % 23), "abcdefghijklmnopqrstuvw");
		add(&m, name, S_IFIFO | 0600);
		if (!i)
			OK(erofs_image_node(m.image, &m.made[0].attributes, 0, 0, &nid, err));
		m.entries[i].nid = nid;
		m.made[i].links = count;
	}
	OK(erofs_image_set_links(m.image, nid, count, err));
	end(&m);
	if (m.mounted)
		assert_int_equal(count_names("."), count);
	done(&m);
}

/* Sub-directories of every size around a block's end, in one image: two passes in the same order. */
static void tree_of_directories(void **state)
{
	enum { DIRS = 300 };
	static struct erofs_entry entries[DIRS][256];
	static char names[256][256], dir_names[DIRS][8];
	struct erofs_directory dirs[DIRS];
	uint64_t nids[DIRS];
	struct maker m;

	(void)state;
	begin(&m);

	uint64_t leaf = *nid_of(&m, add_file(&m, "leaf", 10));
	unsigned links = 1;

	for (unsigned i = 0; i < 256; i++) {
		memset(names[i], 'x', 16 + i % 16);
		snprintf(names[i], 4, "%03u", i);
		names[i][3] = 'x';
	}
	for (unsigned d = 0; d < DIRS; d++) {
		size_t count = d < 256 ? d : d - 256;

		for (size_t i = 0; i < count; i++)
			entries[d][i] = (struct erofs_entry){names[i], strlen(names[i]), leaf, EROFS_REGULAR};
		links += (unsigned)count;
		dirs[d] = (struct erofs_directory){.attributes = {.mode = S_IFDIR | 0700, .uid = d}, .count = count,
						   .entries = entries[d]};
		OK(erofs_image_dir_place(m.image, &dirs[d], &nids[d], err));
		snprintf(dir_names[d], sizeof(dir_names[d]), "d%u", d);
		add(&m, dir_names[d], S_IFDIR | 0700);
		m.entries[m.count - 1].nid = nids[d];
	}
	OK(erofs_image_set_links(m.image, leaf, links, err));
	m.made[0].links = links;

	struct erofs_directory root = root_of(&m);
	uint64_t nid;

	OK(erofs_image_dir_place(m.image, &root, &nid, err));
	for (unsigned d = 0; d < DIRS; d++) {
		dirs[d].parent = nid;
		OK(erofs_image_dir_write(m.image, nids[d], &dirs[d], err));
	}
	OK(erofs_image_dir_write(m.image, nid, &root, err));
	end_root(&m, nid);
	assert_int_equal(m.result.inodes, 2 + DIRS);
	for (unsigned d = 0; m.mounted && d < DIRS; d++) {
		char path[300];

		assert_int_equal(count_names(dir_names[d]), dirs[d].count);
		assert_int_equal(stat_of(dir_names[d]).st_uid, d);
		for (size_t i = 0; i < dirs[d].count; i += 37) {
			snprintf(path, sizeof(path), "d%u/%.255s", d, names[i]);
			assert_int_equal(stat_of(path).st_size, 10);
		}
	}
	if (m.mounted) {
		assert_int_equal(stat_of(".").st_nlink, 2 + DIRS);
		assert_int_equal(stat_of("d100/..").st_ino, stat_of(".").st_ino);
	}
	done(&m);
}

static void bad_names(void **state)
{
	static const struct {
		const char *a, *b;
	} rows[] = {{"b", "a"}, {"a", "a"}, {"ab", "a"}, {"", "a"}, {"a", "a/b"}, {".", "a"}, {"..", "a"}};
	static char long_name[257];
	uint64_t nid;

	(void)state;
	memset(long_name, 'x', 256);
	for (size_t i = 0; i <= ARRAY_LEN(rows); i++) {
		const char *a = i < ARRAY_LEN(rows) ? rows[i].a : "a", *b = i < ARRAY_LEN(rows) ? rows[i].b : long_name;
		const struct erofs_entry entries[] = {{a, strlen(a), 0, EROFS_FIFO}, {b, strlen(b), 0, EROFS_FIFO}};
		const struct erofs_directory dir = {.attributes.mode = ROOT_MODE, .entries = entries, .count = 2,
						    .root = true};
		struct maker m;

		begin(&m);
		FAILS(CPULL_ERR_INTERNAL, "no name, or out of order", erofs_image_dir_place(m.image, &dir, &nid, err));
		done(&m);
	}
}

/* ---- */

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
		TEST(xattrs),
		TEST(xattrs_left_out),
		TEST(xattrs_refused),
		TEST(xattrs_full),
		TEST(xattrs_of_the_root),
		TEST(acls),
		TEST(acls_refused),
		TEST(order_of_names),
		TEST(full_blocks),
		TEST(many_names),
		TEST(tree_of_directories),
		TEST(bad_names),
	};

	print_message("on %s\n", name);
	return cmocka_run_group_tests_name("erofs_inodes", tests, NULL, NULL);
}

int main(void)
{
	return run_all(run);
}
