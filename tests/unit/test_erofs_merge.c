/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/erofs_merge: stacks of layers merged, mounted as one image, and compared entry by entry with what overlayfs
 * makes of the same layers, each mounted by itself. As root, with loop devices on tmpfs and, where the kernel can,
 * without any on ext4.
 */
#include "made_stack.h"

/* ---- the judge ---- */

static void run_fsck_on(size_t count)
{
	CLEANUP_BYTES struct bytes command = {0};

	if (!can_check || count > 100)
		return;
	assert_int_equal(bytes_append(&command, "fsck.erofs", 10, 65536), 0);
	for (size_t i = count; i-- > 0;) {
		char text[32];

		snprintf(text, sizeof(text), " --device=l%zu.erofs", i);
		assert_int_equal(bytes_append(&command, text, strlen(text), 65536), 0);
	}

	static const char end[] = " " MERGED " >fsck.log 2>&1";

	assert_int_equal(bytes_append(&command, end, strlen(end), 65536), 0);
	if (system(command.data) != 0) {
		assert_int_equal(system("cat fsck.log >&2"), 0);
		fail_msg("fsck.erofs does not like the merged image");
	}
}

/* The judge: one image against the overlay of `shown` layers, of which there are `count`. */
static size_t judge_shown(size_t count, size_t shown)
{
	size_t entries;

	merge(count);
	run_fsck_on(count);
	if (!can_mount)
		return 0;
	mount_merged(count);
	mount_overlay(shown);
	entries = check_same_trees("overlay", "merged");
	unmount_all(count);
	return entries;
}

static size_t judge(size_t count)
{
	return judge_shown(count, count);
}

/* ---- what hides what ---- */

static void names_that_hide(void **state)
{
	struct layer l;

	(void)state;
	layer_begin(&l, 1);
	PUT_DIR(&l, "both", .mode = S_IFDIR | 01777, .uid = 7, .mtime = 99);
	PUT(&l, "both/top", .size = 10);
	PUT(&l, "both/same", .size = 11, .uid = 5);
	PUT_WHITEOUT(&l, "both/gone");
	PUT_WHITEOUT(&l, "both/gonedir");
	PUT_WHITEOUT(&l, "nothing below");
	PUT_WHITEOUT(&l, "dir gone");
	PUT(&l, "file over dir", .size = 3);
	PUT_DIR(&l, "dir over file");
	PUT(&l, "dir over file/a", .size = 1);
	PUT_LINK(&l, "link over dir", "both");
	PUT_DIR(&l, "opaque", .opaque = true);
	PUT(&l, "opaque/new", .size = 1);
	PUT_DIR(&l, "opaque/sub");
	PUT_DIR(&l, "empty");
	PUT(&l, "real device", .mode = S_IFCHR | 0600, .major = 1, .minor = 3);
	PUT(&l, "!before", .size = 4097);
	PUT_DIR(&l, "three");
	layer_write(&l, "l0.erofs");

	layer_begin(&l, 2);
	PUT_DIR(&l, "both", .mode = S_IFDIR | 0700);
	PUT(&l, "both/same", .size = 12);
	PUT(&l, "both/gone", .size = 1);
	PUT(&l, "both/middle", .size = 5000);
	PUT_DIR(&l, "both/gonedir");
	PUT(&l, "both/gonedir/file", .size = 1);
	PUT_DIR(&l, "dir gone");
	PUT(&l, "dir gone/x", .size = 1);
	PUT_DIR(&l, "file over dir");
	PUT(&l, "file over dir/x", .size = 1);
	PUT(&l, "dir over file", .size = 1);
	PUT_DIR(&l, "link over dir");
	PUT_DIR(&l, "opaque", .opaque = true);
	PUT(&l, "opaque/old", .size = 1);
	PUT_DIR(&l, "opaque/sub");
	PUT(&l, "opaque/sub/hidden", .size = 1);
	PUT_DIR(&l, "empty");
	/* whiteout below which there was a directory, and below that another */
	PUT_WHITEOUT(&l, "three");
	PUT_DIR(&l, "made again", .mode = S_IFDIR | 0711);
	PUT(&l, "made again/new", .size = 1);
	PUT_DIR(&l, "opaque below", .opaque = true);
	PUT(&l, "opaque below/kept", .size = 1);
	layer_write(&l, "l1.erofs");

	layer_begin(&l, 3);
	PUT_WHITEOUT(&l, "made again");
	PUT_DIR(&l, "three");
	PUT(&l, "three/not shown", .size = 1);
	PUT_DIR(&l, "opaque below");
	PUT(&l, "opaque below/hidden", .size = 1);
	PUT_WHITEOUT(&l, "only whiteout");
	PUT_DIR(&l, "both");
	PUT_WHITEOUT(&l, "both/old");
	PUT_DIR(&l, "dir over file");
	PUT(&l, "dir over file/below the file", .size = 1);
	layer_write(&l, "l2.erofs");

	layer_begin(&l, 4);
	PUT_DIR(&l, "made again");
	PUT(&l, "made again/old", .size = 1);
	PUT_DIR(&l, "opaque below");
	PUT_DIR(&l, "both");
	PUT(&l, "both/old", .size = 1);
	PUT(&l, "both/deep", .size = 9000);
	PUT_DIR(&l, "three");
	PUT_DIR(&l, "opaque");
	PUT(&l, "opaque/oldest", .size = 1);
	PUT(&l, "only whiteout", .size = 1);
	layer_write(&l, "l3.erofs");
	for (size_t count = 2; count <= 4; count++)
		judge(count);
}

/* The overlay is mounted without what an opaque root hides, as overlay.c does it. */
static void an_opaque_root(void **state)
{
	struct layer l;

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		CLEANUP_FREE char *name = layer_path(i), *file = format_string("file %zu", i);

		layer_begin(&l, (uint8_t)i);
		PUT_DIR(&l, "", .opaque = i == 1, .mode = S_IFDIR | (i == 0 ? 0750 : 0700), .uid = (uint32_t)i);
		PUT_DIR(&l, "dir");
		PUT(&l, file, .size = 5000);
		layer_write(&l, name);
	}
	assert_true(!can_mount || judge_shown(4, 2) == 4);
}

static void one_layer(void **state)
{
	struct layer l;

	(void)state;
	layer_begin(&l, 1);
	PUT_DIR(&l, "a");
	PUT(&l, "a/b", .size = 4096 * 3 + 5);
	layer_write(&l, "l0.erofs");
	merge(1);
	run_fsck_on(1);
	if (!can_mount)
		skip();
	mount_merged(1);
	mount_one(0);
	assert_int_equal(check_same_trees("m0", "merged"), 3);
	unmount_all(1);
}

/* ---- kinds of files ---- */

static void sizes_and_tails(void **state)
{
	struct layer l;

	(void)state;
	layer_begin(&l, 1);
	PUT_DIR(&l, "small");
	PUT_DIR(&l, "large");
	for (unsigned i = 0; i < 4096; i++) {
		char path[32];

		snprintf(path, sizeof(path), "small/%u", i);
		PUT(&l, path, .size = i);
		snprintf(path, sizeof(path), "large/%u", i);
		PUT(&l, path, .size = i + 4096 * (1 + i % 3));
	}
	layer_write(&l, "l0.erofs");
	layer_begin(&l, 2);
	PUT_DIR(&l, "blocks");
	for (unsigned i = 0; i < 40; i++) {
		char path[32];

		snprintf(path, sizeof(path), "blocks/%u", i);
		PUT(&l, path, .size = 4096 * i);
	}
	PUT(&l, "blocks/many", .size = 9u << 20);
	PUT(&l, "blocks/odd", .size = (3u << 20) + 4095);
	layer_write(&l, "l1.erofs");
	judge(2);

	/* no data but tails is copied: 4095 of half a block, each once in two directories */
	assert_in_range(stat_of(MERGED).st_size, 16u << 20, 19u << 20);
}

static void sparse_files(void **state)
{
	static const struct range far[] = {{0, 10}, {5ull << 30, (5ull << 30) + 4096}, {(6ull << 30) - 100, 6ull << 30},
					   {0, 0}};
	static const struct range near[] = {{4096, 8192}, {40960, 45000}, {0, 0}};
	static const struct range none[] = {{0, 0}};
	static const struct range huge[] = {{1ull << 42, (1ull << 42) + 5}, {0, 0}};
	struct layer l;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		CLEANUP_FREE char *name = layer_path(i), *file = format_string("far %zu", i);

		layer_begin(&l, (uint8_t)(3 + i));
		PUT(&l, file, .size = 6ull << 30, .data = far);
		PUT(&l, "near", .size = 50000, .data = near);
		PUT(&l, "hole", .size = 1ull << 33, .data = none);
		PUT(&l, "small hole", .size = 10, .data = none);
		PUT(&l, "huge", .size = (1ull << 42) + 5, .data = huge);
		PUT(&l, "dense", .size = 123456);
		layer_write(&l, name);
	}
	judge(2);
}

static void links_and_nodes(void **state)
{
	char longest[4096], middle[4033];
	struct layer l;

	(void)state;
	memset(longest, 'l', sizeof(longest) - 1);
	longest[4095] = 0;
	memset(middle, 'm', sizeof(middle) - 1);
	middle[4032] = 0;
	for (size_t i = 0; i < 2; i++) {
		CLEANUP_FREE char *name = layer_path(i);

		layer_begin(&l, (uint8_t)(1 + i));
		PUT_DIR(&l, "a");
		PUT_DIR(&l, "b");
		PUT_DIR(&l, "b/c");
		PUT(&l, "a/one", .size = 5000);
		PUT(&l, "b/two", .to = "a/one");
		PUT(&l, "b/c/three", .to = "a/one");
		PUT(&l, "b/empty", .size = 0);
		PUT(&l, "b/also empty", .to = "b/empty");
		PUT(&l, i ? "zz below" : "zz above", .size = 4);
		PUT(&l, i ? "a/zz below" : "a/zz above", .to = i ? "zz below" : "zz above");
		if (i) {
			PUT(&l, "gone", .size = 8000);
			PUT(&l, "kept", .to = "gone");
		} else {
			PUT_WHITEOUT(&l, "gone");
		}
		PUT_LINK(&l, "short", "x");
		PUT_LINK(&l, "longest", longest);
		PUT_LINK(&l, "middle", middle);
		PUT(&l, "fifo", .mode = S_IFIFO | 0622);
		PUT(&l, "socket", .mode = S_IFSOCK | 0755);
		PUT(&l, "block", .mode = S_IFBLK | 0660, .major = 259, .minor = 300, .gid = 6);
		PUT(&l, "char", .mode = S_IFCHR | 0666, .major = 4095, .minor = 1048575);
		PUT(&l, "setuid", .mode = S_IFREG | 04755, .size = 3, .uid = 4000000000u, .gid = 70000, .mtime = -5);
		layer_write(&l, name);
	}
	judge(2);
}

/* ---- extended attributes ---- */

static uint8_t acl[] = {2, 0, 0, 0, 1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, 2, 0, 6, 0, 0xe8, 3, 0, 0, 4, 0, 5, 0, 0xff,
			0xff, 0xff, 0xff, 0x10, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, 0x20, 0, 4, 0, 0xff, 0xff, 0xff, 0xff};
static uint8_t capability[20] = {1, 0, 0, 2, 0, 0x24};
static uint8_t large[65535];

static void extended_attributes(void **state)
{
	const struct tar_xattr some[] = {
		{"user.a", (const uint8_t *)"1", 1}, {"user.empty", (const uint8_t *)"", 0},
		{"user.large", large, 60000}, {"user.other", large, 65535}, {"trusted.t", (const uint8_t *)"\0\n", 2},
		{"security.capability", capability, sizeof(capability)},
		{"system.posix_acl_access", acl, sizeof(acl)},
	};
	const struct tar_xattr of_dirs[] = {{"user.d", (const uint8_t *)"dir", 3},
					    {"system.posix_acl_default", acl, sizeof(acl)}};
	struct layer l;

	(void)state;
	for (size_t i = 0; i < sizeof(large); i++)
		large[i] = byte_at(i);
	for (size_t i = 0; i < 2; i++) {
		CLEANUP_FREE char *name = layer_path(i);

		layer_begin(&l, (uint8_t)(1 + i));
		PUT_DIR(&l, "", .xattrs = of_dirs, .xattr_count = i ? 0 : 2);
		PUT_DIR(&l, "d", .xattrs = of_dirs, .xattr_count = i ? 1 : 2);
		PUT_DIR(&l, "opaque", .xattrs = of_dirs, .xattr_count = 2, .opaque = !i);
		PUT_DIR(&l, "just opaque", .opaque = true);
		PUT_LINK(&l, "link", "x");
		for (unsigned k = 0; k <= ARRAY_LEN(some); k++) {
			CLEANUP_FREE char *path = format_string("d/%zu-%u", i, k);

			PUT(&l, path, .size = 4000 + 1000 * k, .xattrs = some, .xattr_count = k);
		}
		layer_write(&l, name);
	}
	judge(2);
	if (!can_mount)
		skip();
	mount_merged(2);
	assert_false(is_opaque("merged/opaque") || is_opaque("merged/just opaque"));
	unmount_all(2);
}

/* ---- many ---- */

static void large_directories(void **state)
{
	unsigned count = *state ? 4000 : 20000;
	struct layer l;

	for (unsigned i = 0; i < 2; i++) {
		CLEANUP_FREE char *name = layer_path(i);

		layer_begin(&l, (uint8_t)(1 + i));
		PUT_DIR(&l, "d");
		for (unsigned k = i * count / 4; k < count + i * count / 4; k++) {
			char path[64];

			/* one order of names is not the other's */
			snprintf(path, sizeof(path), "d/%08x-%u", k * 2654435761u, k);
			if (i == 0 && k % 100 == 50)
				PUT_WHITEOUT(&l, path);
			else
				PUT(&l, path, .size = k % 7);
		}
		layer_write(&l, name);
	}
	judge(2);
}

static void hundreds_of_layers(void **state)
{
	size_t count = *state ? 300 : 30, entries;

	for (size_t i = 0; i < count; i++)
		put_many(i);
	entries = judge(count);
	assert_true(!can_mount || entries == 4 + 2 * count + count - count / 10);
}

static void the_same_bytes(void **state)
{
	struct erofs_image_result result;
	struct stack *s = calloc(1, sizeof(*s));

	(void)state;
	for (size_t i = 0; i < 20; i++)
		put_many(i);
	open_stack(s, 20);
	OK(merge_to(s, "once", 0, &result, err));
	OK(merge_to(s, "twice", 0, &result, err));
	close_stack(s);
	free(s);
	assert_int_equal(system("cmp once twice"), 0);
}

/* As layers with dm-verity's trees behind them are. */
static void longer_layers(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		put_many(i);

		CLEANUP_FREE char *path = layer_path(i);

		assert_int_equal(truncate(path, stat_of(path).st_size + 3 * BLOCK), 0);
	}
	judge(2);
}

/* ---- read without a mount ---- */

static void read_by_the_reader(void **state)
{
	struct erofs_reader *reader;
	struct erofs_node node;
	struct erofs_extent extent;
	char text[64];
	size_t got;

	(void)state;
	for (size_t i = 0; i < 3; i++)
		put_many(i);
	merge(3);

	CLEANUP_FD int fd = open(MERGED, O_RDONLY | O_CLOEXEC);

	OK(erofs_reader_open(fd, &reader, err));
	assert_true(erofs_reader_root(reader)->nid != 0);
	/* a tail is here, blocks are not */
	assert_int_equal(erofs_reader_find(reader, "both/replaced", &node, NULL), 1);
	OK(erofs_reader_read(reader, &node, text, sizeof(text), 40, &got, err));
	assert_int_equal(got, 60);
	assert_int_equal((uint8_t)text[0], byte_at(100 + 40));
	assert_int_equal(erofs_reader_find(reader, "own/2", &node, NULL), 1);
	FAILS(CPULL_ERR_UNSUPPORTED, "on another device", erofs_reader_map(reader, &node, 0, &extent, err));
	OK(erofs_reader_map(reader, &node, 4096, &extent, err));
	assert_int_equal(extent.place, EROFS_IN_TAIL);
	assert_int_equal(erofs_reader_find(reader, "own/1", &node, NULL), 0);
	erofs_reader_close(reader);
}

/* ---- running ---- */

#define T(f) cmocka_unit_test_setup(f, clean)

/* Hundreds of layers where they need no loop devices, if there is such a place; many names on the other one. */
static int run(const char *name)
{
	static char is_ext4[] = "ext4";
	void *state = strcmp(name, is_ext4) ? NULL : is_ext4;
	struct CMUnitTest tests[] = {
		T(names_that_hide), T(an_opaque_root), T(one_layer), T(sizes_and_tails), T(sparse_files),
		T(links_and_nodes), T(extended_attributes), T(the_same_bytes), T(read_by_the_reader),
		T(longer_layers),
		{"large_directories", large_directories, clean, NULL, state},
		{"hundreds_of_layers", hundreds_of_layers, clean, NULL, state},
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	return run_all(run);
}
