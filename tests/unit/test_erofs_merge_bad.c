/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/erofs_merge on layers that are damaged, made to grow, or too much of something, and the builder's files
 * whose data is elsewhere: an error that says which layer it is, or an image. Mounts nothing.
 */
#include "made_stack.h"

static uint8_t large[65535];

/* ---- layers that are not right ---- */

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

/* The value of an attribute is 300 more once it has no length. */
static void many_attributes(void **state)
{
	static uint8_t value[3 + 300 * 8];
	const struct tar_xattr some[] = {{"user.x", value, sizeof(value)}};
	struct layer l;

	(void)state;
	for (unsigned i = 0; i < 300; i++)
		memcpy(value + 3 + i * 8, "\1\1\0\0a\0\0", 8);
	layer_begin(&l, 1);
	PUT(&l, "f", .xattrs = some, .xattr_count = 1);
	layer_write(&l, "l0.erofs");
	merge(1);
	change("l0.erofs", inode_at("l0.erofs", "f") + sizeof(struct erofs_inode) +
	       sizeof(struct erofs_xattr_header) + offsetof(struct erofs_xattr_entry, value_len), "\0", 2);
	merge_fails(1, CPULL_ERR_LIMIT, "has more than 256 extended attributes");
}

/* One attribute of a file, shared by another six times. */
static void large_attributes(void **state)
{
	const struct tar_xattr of_a[] = {{"user.l", large, 60000}}, of_b[] = {{"user.z", large, 19}};
	const size_t behind = sizeof(struct erofs_inode) + sizeof(struct erofs_xattr_header);
	uint32_t numbers[6];
	struct layer l;

	(void)state;
	layer_begin(&l, 1);
	PUT(&l, "a", .xattrs = of_a, .xattr_count = 1);
	PUT(&l, "b", .xattrs = of_b, .xattr_count = 1);
	PUT(&l, "data", .size = 1 << 20);
	layer_write(&l, "l0.erofs");

	uint64_t a = inode_at("l0.erofs", "a"), b = inode_at("l0.erofs", "b");

	for (unsigned i = 0; i < 6; i++)
		numbers[i] = htole32((uint32_t)((a + behind) / 4));
	change("l0.erofs", b + sizeof(struct erofs_inode) + offsetof(struct erofs_xattr_header, shared_count), "\1", 1);
	change("l0.erofs", b + behind, numbers, 4);
	change("l0.erofs", b + offsetof(struct erofs_inode, xattr_icount), "\2", 1);
	merge(1);
	change("l0.erofs", b + sizeof(struct erofs_inode) + offsetof(struct erofs_xattr_header, shared_count), "\6", 1);
	change("l0.erofs", b + behind, numbers, sizeof(numbers));
	change("l0.erofs", b + offsetof(struct erofs_inode, xattr_icount), "\7", 1);
	merge_fails(1, CPULL_ERR_LIMIT, "has extended attributes of more than 262148 bytes");
}

static void many_chunks(void **state)
{
	static const struct range one[] = {{8192, 8193}, {0, 0}};
	struct layer l;

	(void)state;
	layer_begin(&l, 1);
	PUT(&l, "a", .size = 256u << 20, .data = one);
	PUT(&l, "b", .size = 256u << 20, .data = one);
	layer_write(&l, "l0.erofs");
	merge(1);
	CHANGE("l0.erofs", "a", size, htole64((256u << 20) + 1));
	merge_fails(1, CPULL_ERR_LIMIT, "has 65537 chunks, and at most 65536");
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

/* ---- files of the builder that are elsewhere ---- */

/* One at a time. */
static struct erofs_image *new_image(const struct erofs_device *devices, size_t count, struct cpull_error *err)
{
	static struct log log;
	static int fd = -1;
	struct erofs_image_options options = {.uuid = "devices", .devices = devices, .device_count = count,
					      .log = &log};
	struct erofs_image *image = NULL;

	log_init(&log, NULL, NULL, CPULL_LOG_ERROR);
	unlink(IMAGE);
	if (fd >= 0)
		close(fd);
	fd = open(IMAGE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	options.fd = fd;
	options.spool_dirfd = AT_FDCWD;
	return erofs_image_new(&options, &image, err) ? NULL : image;
}

static void new_image_fails(const struct erofs_device *devices, size_t count, const char *why)
{
	struct cpull_error err = {0};

	assert_null(new_image(devices, count, &err));
	assert_int_equal(err.code, CPULL_ERR_LIMIT);
	if (!strstr(err.message, why))
		fail_msg("%s", err.message);
}

static void file_fails(struct erofs_elsewhere where, const struct tar_xattr *xattrs, int code, const char *why)
{
	static const struct erofs_device devices[] = {{.blocks = 10}, {.blocks = 20}};
	const struct erofs_attributes attributes = {.mode = S_IFREG | 0644, .xattrs = xattrs, .xattr_count = !!xattrs};
	struct erofs_image *image = new_image(devices, 2, NULL);
	uint64_t nid;

	if (code)
		FAILS(code, why, erofs_image_file_elsewhere(image, &attributes, &where, &nid, err));
	else
		OK(erofs_image_file_elsewhere(image, &attributes, &where, &nid, err));
	erofs_image_free(image);
}

#define FILE_FAILS(code, why, ...) file_fails((struct erofs_elsewhere){__VA_ARGS__}, NULL, (code), (why))

static void limits_of_the_builder(void **state)
{
	struct erofs_device *devices = calloc(LIMIT_LAYERS + 1, sizeof(*devices));
	const struct erofs_directory root = {.attributes.mode = ROOT_MODE, .root = true};
	const struct tar_xattr odd[] = {{"user.a", large, 11}}; /* 28 bytes behind a multiple of 32 */
	struct erofs_image_result result;
	struct erofs_image *image;
	uint32_t map[] = {10, EROFS_HOLE};
	uint64_t nid;

	(void)state;
	for (size_t i = 0; i <= LIMIT_LAYERS; i++)
		devices[i].blocks = 1;
	new_image_fails(devices, LIMIT_LAYERS + 1, "of 501 others: at most 500");
	devices[0].blocks = UINT32_MAX - 1;
	new_image_fails(devices, 2, "4294967295 blocks in all");
	/* three are left: the superblock, the table, and nothing for inodes of two blocks */
	devices[0].blocks = UINT32_MAX - 4;
	image = new_image(devices, 2, NULL);
	assert_non_null(image);
	OK(erofs_image_dir_place(image, &root, &nid, err));
	OK(erofs_image_dir_write(image, nid, &root, err));
	OK(erofs_image_finish(image, nid, &result, err));
	assert_int_equal(result.blocks, 3);
	erofs_image_free(image);
	image = new_image(devices, 3, NULL);
	OK(erofs_image_dir_place(image, &root, &nid, err));
	OK(erofs_image_dir_write(image, nid, &root, err));
	FAILS(CPULL_ERR_LIMIT, "3 blocks of an EROFS image, and 2 are left",
	      erofs_image_finish(image, nid, &result, err));
	erofs_image_free(image);
	free(devices);

	FILE_FAILS(0, "", .device = 1, .size = 4096 * 5, .block = 15);
	FILE_FAILS(CPULL_ERR_INTERNAL, "device 1 has not", .device = 1, .size = 4096 * 5, .block = 16);
	FILE_FAILS(CPULL_ERR_INTERNAL, "device 1 has not", .device = 1, .size = 4096 * 5 + 1, .block = 15);
	FILE_FAILS(CPULL_ERR_INTERNAL, "device 1 has not", .device = 1, .size = 4096 * 21);
	FILE_FAILS(CPULL_ERR_INTERNAL, "device 2 has not", .device = 2, .size = 4096);
	FILE_FAILS(CPULL_ERR_INTERNAL, "device 0 has not", .size = 8192, .map = map, .chunks = 2);
	map[0] = 9;
	FILE_FAILS(0, "", .size = 8192, .map = map, .chunks = 2);
	FILE_FAILS(0, "", .size = 8191, .tail = large);
	file_fails((struct erofs_elsewhere){.size = 8192 - 28, .tail = large}, odd, 0, "");
	file_fails((struct erofs_elsewhere){.size = 8192 - 27, .tail = large}, odd, CPULL_ERR_UNSUPPORTED,
		   "the last 4069 bytes of a file have no room");
}

/* ---- running ---- */

#define T(f) cmocka_unit_test_setup(f, clean)

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
		T(damaged_layers), T(a_block_as_tail), T(an_image_that_grows), T(deep_directories),
		T(many_attributes), T(large_attributes), T(many_chunks), T(limits_of_the_builder),
		T(devices_of_its_own), T(limits), T(every_byte),
	};

	return strcmp(name, "ext4") ? cmocka_run_group_tests_name(name, tests, NULL, NULL) : 0;
}

int main(void)
{
	return run_all(run);
}
