/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/erofs_merge, and erofs_mount with devices: stacks of layers merged, mounted as one image, and compared
 * entry by entry with what overlayfs makes of the same layers, each mounted by itself. As root, with loop devices on
 * tmpfs and, where the kernel can, without any on ext4.
 */
#include "made_layers.h"

#include <glob.h>

#include "snapshot/erofs_merge.h"
#include "snapshot/erofs_mount.h"
#include "snapshot/overlay.h"

#define MERGED "merged.erofs"

static char *layer_path(size_t i)
{
	char *path = format_string("l%zu.erofs", i);

	assert_non_null(path);
	return path;
}

static char *absolute(const char *name)
{
	CLEANUP_FREE char *cwd = getcwd(NULL, 0);
	char *path = format_string("%s/%s", cwd, name);

	assert_non_null(path);
	return path;
}

/* ---- merging ---- */

struct stack {
	struct erofs_merge_layer layers[LIMIT_LAYERS + 1];
	int fds[LIMIT_LAYERS + 1];
	size_t count;
};

/* Layers 0 (the topmost) to count - 1. */
static void open_stack(struct stack *s, size_t count)
{
	struct rlimit files;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	s->count = count;
	for (size_t i = 0; i < count; i++) {
		char *path = layer_path(i);

		s->fds[i] = open(path, O_RDONLY | O_CLOEXEC);
		assert_true(s->fds[i] >= 0);
		s->layers[i].name = path;
		OK(erofs_reader_open(s->fds[i], &s->layers[i].image, err));
	}
}

static void close_stack(struct stack *s)
{
	for (size_t i = 0; i < s->count; i++) {
		erofs_reader_close(s->layers[i].image);
		close(s->fds[i]);
		free((char *)s->layers[i].name);
	}
}

static int merge_to(struct stack *s, const char *path, uint64_t max_entries, struct erofs_image_result *result,
		    struct cpull_error *err)
{
	struct erofs_merge_options options = {.layers = s->layers, .count = s->count, .max_entries = max_entries,
					      .image.uuid = "merged"};
	struct log log;
	int rc;

	unlink(path);
	log_init(&log, NULL, NULL, CPULL_LOG_ERROR);
	options.image.log = &log;
	options.image.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	options.image.spool_dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rc = erofs_merge(&options, result, err);
	log_destroy(&log);
	close(options.image.fd);
	close(options.image.spool_dirfd);
	return rc;
}

static struct erofs_image_result merge(size_t count)
{
	struct erofs_image_result result;
	struct stack *s = calloc(1, sizeof(*s));

	open_stack(s, count);
	OK(merge_to(s, MERGED, 0, &result, err));
	close_stack(s);
	free(s);
	assert_int_equal(stat_of(MERGED).st_size, result.blocks * BLOCK);
	return result;
}

static void merge_fails(size_t count, int code, const char *why)
{
	struct erofs_image_result result;
	struct stack *s = calloc(1, sizeof(*s));

	open_stack(s, count);
	FAILS(code, why, merge_to(s, MERGED, 0, &result, err));
	close_stack(s);
	free(s);
}

/* ---- mounting ---- */

static int mount_stack(size_t count, enum erofs_way *way, struct cpull_error *err)
{
	char **devices = calloc(count, sizeof(*devices));
	CLEANUP_FREE char *image = absolute(MERGED), *target = absolute("merged");
	struct erofs_mount m = {.image = image, .target = target, .devices = (const char *const *)devices,
				.device_count = count};

	for (size_t i = 0; i < count; i++) {
		CLEANUP_FREE char *name = layer_path(count - 1 - i);

		devices[i] = absolute(name);
	}
	assert_true(mkdir("merged", 0700) == 0 || errno == EEXIST);

	int rc = erofs_mount(&m, NULL, way, err);

	for (size_t i = 0; i < count; i++)
		free(devices[i]);
	free(devices);
	return rc;
}

static void mount_merged(size_t count)
{
	enum erofs_way way;

	OK(mount_stack(count, &way, err));
}

static void mount_one(size_t i)
{
	CLEANUP_FREE char *name = layer_path(i), *image = absolute(name), *at = format_string("m%zu", i);
	CLEANUP_FREE char *target = absolute(at);
	const struct erofs_mount m = {.image = image, .target = target};

	assert_int_equal(mkdir(at, 0700), 0);
	OK(erofs_mount(&m, NULL, NULL, err));
}

/* What overlayfs makes of the layers, at "overlay". */
static void mount_overlay(size_t count)
{
	CLEANUP_BYTES struct bytes options = {0};

	for (size_t i = 0; i < count; i++) {
		char text[32];

		mount_one(i);
		snprintf(text, sizeof(text), "%sm%zu", i ? ":" : "lowerdir=", i);
		assert_int_equal(bytes_append(&options, text, strlen(text), 4000), 0);
	}
	assert_int_equal(mkdir("overlay", 0700), 0);
	assert_int_equal(mount("none", "overlay", "overlay", MS_RDONLY, options.data), 0);
}

static void unmount_all(size_t count)
{
	umount2("merged", MNT_DETACH);
	umount2("overlay", MNT_DETACH);
	rmdir("overlay");
	for (size_t i = 0; i < count; i++) {
		CLEANUP_FREE char *at = format_string("m%zu", i);

		umount2(at, MNT_DETACH);
		rmdir(at);
	}
}

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

static void put_many(size_t i)
{
	CLEANUP_FREE char *name = layer_path(i), *own = format_string("own/%zu", i), *dir = format_string("dir %zu", i);
	CLEANUP_FREE char *in_dir = format_string("dir %zu/file", i), *gone = format_string("own/%zu", i + 1);
	struct layer l;

	layer_begin(&l, (uint8_t)i);
	PUT_DIR(&l, "own");
	PUT_DIR(&l, "both", .mtime = (int64_t)i + 1);
	PUT(&l, own, .size = 4096 + i);
	if (i % 10 == 0)
		PUT_WHITEOUT(&l, gone);
	PUT(&l, "both/replaced", .size = 100 + i);
	PUT_DIR(&l, dir);
	PUT(&l, in_dir, .size = 3 * 4096);
	layer_write(&l, name);
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

/* ---- layers that are not right ---- */

static void change(const char *path, uint64_t at, const void *data, size_t len)
{
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_int_equal(pwrite(fd, data, len, (off_t)at), (ssize_t)len);
}

/* Where the inode of a path is in a layer's image. */
static uint64_t inode_at(const char *image, const char *path)
{
	CLEANUP_FD int fd = open(image, O_RDONLY | O_CLOEXEC);
	struct erofs_reader *reader;
	struct erofs_node node;
	struct erofs_super super;

	OK(erofs_reader_open(fd, &reader, err));
	assert_int_equal(erofs_reader_find(reader, path, &node, NULL), 1);
	erofs_reader_close(reader);
	assert_int_equal(pread(fd, &super, sizeof(super), EROFS_SUPER_OFFSET), sizeof(super));
	return (uint64_t)le32toh(super.meta_block) * BLOCK + node.nid * EROFS_SLOT_BYTES;
}

#define CHANGE(image, path, field, ...)                                                           \
	do {                                                                                      \
		const __typeof__(((struct erofs_inode *)0)->field) value_ = (__VA_ARGS__);         \
		change((image), inode_at((image), (path)) + offsetof(struct erofs_inode, field), &value_, \
		       sizeof(value_));                                                           \
	} while (0)

/* Two layers, of which tests damage the lower one. */
static void two_layers(void)
{
	struct layer l;

	layer_begin(&l, 1);
	PUT_DIR(&l, "d");
	PUT(&l, "d/above", .size = 5);
	layer_write(&l, "l0.erofs");
	layer_begin(&l, 2);
	PUT_DIR(&l, "d");
	PUT_DIR(&l, "d/e");
	PUT_DIR(&l, "d/e/f");
	PUT(&l, "d/e/file", .size = 5000);
	PUT(&l, "d/e/blocks", .size = 8192);
	PUT_LINK(&l, "link", "target");
	PUT_WHITEOUT(&l, "d/char");
	layer_write(&l, "l1.erofs");
}

/* The name's number in the directory is another's. */
static void point_at(const char *image, const char *dir, const char *name, const char *other)
{
	CLEANUP_FD int fd = open(image, O_RDWR | O_CLOEXEC);
	struct erofs_reader *reader;
	struct erofs_node node, to;
	struct erofs_extent extent;
	uint8_t data[BLOCK];
	uint64_t nid;

	OK(erofs_reader_open(fd, &reader, err));
	assert_int_equal(erofs_reader_find(reader, dir, &node, NULL), 1);
	assert_int_equal(erofs_reader_find(reader, other, &to, NULL), 1);
	OK(erofs_reader_map(reader, &node, 0, &extent, err));
	erofs_reader_close(reader);
	assert_true(pread(fd, data, extent.bytes, (off_t)extent.at) == (ssize_t)extent.bytes);
	for (unsigned i = 0;; i++) {
		struct erofs_dirent *entry = (struct erofs_dirent *)data + i;

		if (memcmp(data + le16toh(entry->name_offset), name, strlen(name)))
			continue;
		nid = htole64(to.nid);
		assert_int_equal(pwrite(fd, &nid, sizeof(nid), (off_t)(extent.at + i * sizeof(*entry))), sizeof(nid));
		return;
	}
}

static void damaged_layers(void **state)
{
	(void)state;
	two_layers();
	point_at("l1.erofs", "d/e", "f", "d");
	merge_fails(2, CPULL_ERR_STORAGE, "layer l1.erofs: the EROFS image is damaged: its names and inodes are more");
	two_layers();
	point_at("l1.erofs", "d/e", "file", "d");
	merge_fails(2, CPULL_ERR_STORAGE, "layer l1.erofs: EROFS inode");
	two_layers();
	point_at("l1.erofs", "d", "char", "d/e/file");
	merge_fails(2, CPULL_ERR_STORAGE, "a name has another type than it");
	two_layers();
	point_at("l1.erofs", "d", "e", "link");
	merge_fails(2, CPULL_ERR_STORAGE, "a name has another type than it");
	two_layers();
	CHANGE("l1.erofs", "d/e/blocks", data, htole32(1000));
	merge_fails(2, CPULL_ERR_STORAGE, "its data is not inside of the image");
	two_layers();
	CHANGE("l1.erofs", "d/e/file", size, htole64(1ull << 40));
	merge_fails(2, CPULL_ERR_STORAGE, "is damaged");
	two_layers();
	CHANGE("l1.erofs", "d/e/file", format, htole16(EROFS_FORMAT(3)));
	merge_fails(2, CPULL_ERR_UNSUPPORTED, "compressed");
	two_layers();
	CHANGE("l1.erofs", "d/e/f", xattr_icount, htole16(UINT16_MAX));
	merge_fails(2, CPULL_ERR_STORAGE, "its attributes are not inside");
	two_layers();
	CHANGE("l1.erofs", "link", size, htole64(5000));
	merge_fails(2, CPULL_ERR_STORAGE, "is damaged");
	two_layers();
	CHANGE("l1.erofs", "d/e/file", mode, htole16(0));
	merge_fails(2, CPULL_ERR_STORAGE, "its type is none");
	/* what nobody shows is nobody's business */
	two_layers();
	CHANGE("l0.erofs", "d", mode, htole16(S_IFDIR | 0700));
	assert_int_equal(merge(2).inodes, 8);
}

/* A whole block behind an inode, as nobody writes it. */
static void a_block_as_tail(void **state)
{
	struct layer l;

	(void)state;
	layer_begin(&l, 1);
	PUT(&l, "f", .size = 4032);
	layer_write(&l, "l0.erofs");

	uint64_t at = inode_at("l0.erofs", "f"), bytes = (uint64_t)stat_of("l0.erofs").st_size;
	struct erofs_inode inode;
	CLEANUP_FD int fd = open("l0.erofs", O_RDWR | O_CLOEXEC);
	struct erofs_super super;
	const uint32_t blocks = htole32((uint32_t)(bytes / BLOCK) + 2);
	uint8_t block[BLOCK];

	/* moved so that it ends at a block's end, behind which there is one more; root's only name follows it */
	assert_int_equal(pread(fd, &inode, sizeof(inode), (off_t)at), sizeof(inode));
	assert_int_equal(pread(fd, &super, sizeof(super), EROFS_SUPER_OFFSET), sizeof(super));
	inode.size = htole64(BLOCK);
	assert_int_equal(ftruncate(fd, (off_t)(bytes + 2 * BLOCK)), 0);
	assert_int_equal(pwrite(fd, &inode, sizeof(inode), (off_t)(bytes + BLOCK - sizeof(inode))), sizeof(inode));
	change("l0.erofs", EROFS_SUPER_OFFSET + offsetof(struct erofs_super, blocks), &blocks, sizeof(blocks));
	change("l0.erofs", EROFS_SUPER_OFFSET + offsetof(struct erofs_super, feature_compat), "\0", 1);

	uint64_t meta = (uint64_t)le32toh(super.meta_block) * BLOCK, nid = htole64((bytes + BLOCK - 64 - meta) / 32);
	const struct erofs_dirent *entries = (const void *)(block + EROFS_SLOT_BYTES + sizeof(inode));

	assert_int_equal(pread(fd, block, sizeof(block), (off_t)meta), sizeof(block));
	for (unsigned i = 0; i < 3; i++)
		if (entries[i].type == EROFS_REGULAR)
			change("l0.erofs", meta + EROFS_SLOT_BYTES + sizeof(inode) + i * sizeof(*entries), &nid, 8);
	merge_fails(1, CPULL_ERR_UNSUPPORTED, "has a whole block behind it");
}

/* Many names of one file with large attributes, whose count of links says that it has one name. */
static void an_image_that_grows(void **state)
{
	const struct tar_xattr some[] = {{"user.l", large, 60000}};
	struct layer l;

	(void)state;
	layer_begin(&l, 1);
	PUT(&l, "a", .size = 5, .xattrs = some, .xattr_count = 1);
	for (unsigned i = 0; i < 100; i++) {
		CLEANUP_FREE char *path = format_string("b%u", i);

		PUT(&l, path, .to = "a");
	}
	layer_write(&l, "l0.erofs");
	assert_int_equal(merge(1).inodes, 2);
	CHANGE("l0.erofs", "a", nlink, htole32(1));
	merge_fails(1, CPULL_ERR_STORAGE, "more than its");
}

static void deep_directories(void **state)
{
	char path[2 * LIMIT_PATH_DEPTH + 10];
	struct layer l;

	(void)state;
	for (size_t depth = LIMIT_PATH_DEPTH - 1; depth <= LIMIT_PATH_DEPTH; depth++) {
		layer_begin(&l, 1);
		for (size_t i = 0; i < depth; i++) {
			path[2 * i] = 'd';
			path[2 * i + 1] = 0;
			PUT_DIR(&l, path);
			path[2 * i + 1] = '/';
		}
		layer_write(&l, "l0.erofs");
		if (depth < LIMIT_PATH_DEPTH)
			assert_int_equal(merge(1).inodes, depth + 1);
		else
			merge_fails(1, CPULL_ERR_LIMIT, "more than 1024 directories in each other");
	}
}

static void devices_of_its_own(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++)
		put_many(i);
	merge(3);
	assert_int_equal(rename(MERGED, "l0.erofs"), 0);
	merge_fails(3, CPULL_ERR_UNSUPPORTED, "layer l0.erofs: EROFS inode");
}

static void limits(void **state)
{
	struct erofs_image_result result;
	struct stack *s = calloc(1, sizeof(*s));

	(void)state;
	two_layers();
	open_stack(s, 2);
	OK(merge_to(s, MERGED, 7, &result, err));
	FAILS(CPULL_ERR_LIMIT, "layer l1.erofs: it has more than 6 entries", merge_to(s, MERGED, 6, &result, err));
	s->count = 0;
	FAILS(CPULL_ERR_LIMIT, "1 to 500 can be", merge_to(s, MERGED, 0, &result, err));
	s->count = LIMIT_LAYERS + 1;
	FAILS(CPULL_ERR_LIMIT, "merging 501 EROFS layers", merge_to(s, MERGED, 0, &result, err));
	s->count = 2;
	close_stack(s);
	free(s);
}

/* Any one byte of a layer's inodes changed: an image or an error, and an image is one that can be read. */
static void every_byte(void **state)
{
	struct stack *s = calloc(1, sizeof(*s));
	struct erofs_image_result result;
	unsigned merged = 0, refused = 0;

	(void)state;
	two_layers();
	open_stack(s, 2);

	CLEANUP_FD int fd = open("l1.erofs", O_RDWR | O_CLOEXEC);
	uint64_t bytes = (uint64_t)stat_of("l1.erofs").st_size;

	for (uint64_t at = bytes - 2 * BLOCK; at < bytes; at++) {
		struct cpull_error err = {0};
		uint8_t byte, other;

		assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
		if (!byte)
			continue;
		other = byte ^ (uint8_t)(1u << at % 8);
		assert_int_equal(pwrite(fd, &other, 1, (off_t)at), 1);
		erofs_reader_close(s->layers[1].image);
		s->layers[1].image = NULL;

		int rc = erofs_reader_open(s->fds[1], &s->layers[1].image, &err);

		if (!rc)
			rc = merge_to(s, MERGED, 0, &result, &err);
		assert_true(rc == 0 || (*err.message && rc == err.code));
		rc ? refused++ : merged++;
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	}
	assert_true(merged > 20 && refused > 20);
	close_stack(s);
	free(s);
}

/* ---- mounting what does not fit ---- */

static void mount_fails(size_t count, int code, const char *why)
{
	FAILS(code, why, mount_stack(count, NULL, err));
	assert_int_equal(count_names("merged"), 0);
}

static void refused_devices(void **state)
{
	char magic[4] = {0};

	(void)state;
	if (!can_mount)
		skip();
	for (size_t i = 0; i < 3; i++)
		put_many(i);
	merge(3);

	unsigned fds = count_fds();

	mount_fails(2, CPULL_ERR_STORAGE, "it has 3 devices, not 2");
	mount_fails(0, CPULL_ERR_STORAGE, "it has 3 devices, not 0");
	mount_fails(LIMIT_LAYERS + 1, CPULL_ERR_LIMIT, "501 devices, and at most 500");
	assert_int_equal(rename("l1.erofs", "x") | link("l2.erofs", "l1.erofs"), 0);
	mount_fails(3, CPULL_ERR_STORAGE, "l1.erofs is not its device 2");
	assert_int_equal(unlink("l1.erofs"), 0);
	mount_fails(3, CPULL_ERR_NOT_FOUND, "l1.erofs");
	assert_int_equal(rename("x", "l1.erofs"), 0);
	assert_int_equal(truncate("l2.erofs", stat_of("l2.erofs").st_size - 1), 0);
	mount_fails(3, CPULL_ERR_SIZE, "l2.erofs: it is cut");
	put_many(2);
	change("l2.erofs", EROFS_SUPER_OFFSET, magic, sizeof(magic));
	mount_fails(3, CPULL_ERR_STORAGE, "l2.erofs: not an EROFS image");
	put_many(2);
	mount_merged(3);
	unmount_all(3);
	/* found only when all devices are there already */
	change(MERGED, EROFS_SUPER_OFFSET + offsetof(struct erofs_super, epoch), "x", 1);
	mount_fails(3, CPULL_ERR_STORAGE, strerrordesc_np(EBADMSG));
	assert_int_equal(count_fds(), fds);
}

/* Loop devices of our images. */
static unsigned count_bound(void)
{
	glob_t found;
	unsigned n = 0;

	if (glob("/sys/block/loop*/loop/backing_file", 0, NULL, &found))
		return 0;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		char path[512] = "";
		CLEANUP_FD int fd = open(found.gl_pathv[i], O_RDONLY | O_CLOEXEC);

		if (fd >= 0 && read(fd, path, sizeof(path) - 1) > 0)
			n += strstr(path, ".erofs") && strstr(path, base);
	}
	globfree(&found);
	return n;
}

/* The kernel lets go of them a little later. */
static void must_be_bound(unsigned want)
{
	for (unsigned i = 0; i < 300 && count_bound() != want; i++)
		usleep(10000);
	assert_int_equal(count_bound(), want);
}

static bool by_loop(enum erofs_way way)
{
	return way == EROFS_BY_LOOP || way == EROFS_BY_LOOP_DIRECT;
}

static void loop_devices_go(void **state)
{
	enum erofs_way way;

	(void)state;
	if (!can_mount)
		skip();
	for (size_t i = 0; i < 5; i++)
		put_many(i);
	merge(5);
	must_be_bound(0);
	OK(mount_stack(5, &way, err));
	assert_int_equal(count_bound(), by_loop(way) ? 6 : 0);
	unmount_all(5);
	must_be_bound(0);
	/* not a file system any more when the last of them is bound */
	change(MERGED, EROFS_SUPER_OFFSET + offsetof(struct erofs_super, epoch), "x", 1);
	mount_fails(5, CPULL_ERR_STORAGE, strerrordesc_np(EBADMSG));
	must_be_bound(0);
}

/* As a kernel before 5.2, or a filter on system calls. */
static void check_old_api(void **state)
{
	enum erofs_way way;

	(void)state;
	if (!refuse_syscall(SYS_fsopen, ENOSYS))
		return;
	OK(mount_stack(120, &way, err));
	assert_true(exists("merged/own/119"));
	unmount_all(120);
	merge(200);
	mount_fails(200, CPULL_ERR_LIMIT, "more devices than mount(2) takes");
	must_be_bound(0);
}

static void devices_by_mount(void **state)
{
	(void)state;
	if (!can_mount)
		skip();
	for (size_t i = 0; i < 200; i++)
		put_many(i);
	merge(120);
	in_child(check_old_api, NULL);
}

/* A layer, or the merged image, is a block device already, as those behind dm-verity are. */
static void block_devices(void **state)
{
	char name[64], device[64];

	(void)state;
	if (!can_mount)
		skip();
	for (unsigned which = 0; which < 2; which++) {
		const char *image = which ? "l1.erofs" : MERGED;
		enum erofs_way way;

		for (size_t i = 0; i < 3; i++)
			put_many(i);
		merge(3);

		int loop = loop_for(image);

		assert_true(loop >= 0);
		snprintf(name, sizeof(name), "/proc/self/fd/%d", loop);
		assert_in_range(readlink(name, device, sizeof(device)), 1, sizeof(device) - 1);
		device[readlink(name, device, sizeof(device))] = 0;
		assert_int_equal(rename(image, "file"), 0);
		assert_int_equal(symlink(device, image), 0);
		OK(mount_stack(3, &way, err));
		assert_true(which ? by_loop(way) : way == EROFS_BY_DEVICE);
		assert_true(exists("merged/own/2"));
		assert_int_equal(system("cat merged/*/* >/dev/null"), 0);
		unmount_all(3);
		close(loop);
		assert_int_equal(unlink(image), 0);
		must_be_bound(0);
	}
}

/* The merged image on ext4, for one, and the layers in memory. */
static void layers_elsewhere(void **state)
{
	enum erofs_way way, before;

	(void)state;
	if (!can_mount)
		skip();
	for (size_t i = 0; i < 3; i++)
		put_many(i);
	merge(3);
	OK(mount_stack(3, &before, err));
	unmount_all(3);
	assert_int_equal(mkdir("tiny", 0700), 0);
	assert_int_equal(mount("tmpfs", "tiny", "tmpfs", 0, NULL), 0);
	assert_int_equal(system("for i in 0 1 2; do mv l$i.erofs tiny/ && ln -s tiny/l$i.erofs; done"), 0);
	OK(mount_stack(3, &way, err));
	assert_int_equal(way, before);
	mount_overlay(3);
	check_same_trees("overlay", "merged");
	unmount_all(3);
	assert_int_equal(umount2("tiny", MNT_DETACH) | rmdir("tiny"), 0);
	assert_int_equal(system("rm l?.erofs"), 0);
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

/* ---- running ---- */

#define T(f) cmocka_unit_test_setup(f, clean)

/* Hundreds of layers where they need no loop devices, if there is such a place; many names on the other one. */
static int run(const char *name)
{
	static char is_ext4[] = "ext4";
	void *state = strcmp(name, is_ext4) ? NULL : is_ext4;
	struct CMUnitTest tests[] = {
		T(names_that_hide), T(an_opaque_root), T(one_layer), T(sizes_and_tails), T(sparse_files),
		T(links_and_nodes), T(extended_attributes), T(the_same_bytes),
		T(read_by_the_reader), T(damaged_layers), T(a_block_as_tail), T(an_image_that_grows),
		T(deep_directories), T(devices_of_its_own), T(limits), T(every_byte), T(refused_devices),
		T(longer_layers), T(loop_devices_go), T(block_devices), T(layers_elsewhere), T(devices_by_mount),
		{"large_directories", large_directories, clean, NULL, state},
		{"hundreds_of_layers", hundreds_of_layers, clean, NULL, state},
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	return run_all(run);
}
