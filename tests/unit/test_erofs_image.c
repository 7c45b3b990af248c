/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/erofs_image: data of files in every layout and at the edges of each, symlinks, nodes, holes; and the image
 * as a whole.
 */
#include <linux/magic.h>
#include <sys/vfs.h>

#include "made_erofs.h"

/* ---- tests ---- */

static void empty_image(void **state)
{
	struct maker m;

	(void)state;
	begin(&m);
	m.root = (struct erofs_attributes){.mode = S_IFDIR | 01750, .uid = 3, .gid = 4, .mtime = {-101, 750000000}};
	end(&m);
	assert_int_equal(m.result.blocks, 2);
	assert_int_equal(m.result.inodes, 1);
	if (m.mounted) {
		struct stat st = stat_of(".");

		CHECK_STAT(".", 01750, 3, 4);
		assert_int_equal(st.st_nlink, 2);
		assert_int_equal(st.st_mtim.tv_sec, -101);
		assert_int_equal(st.st_mtim.tv_nsec, 750000000);
		assert_int_equal(count_names("."), 0);
	}
	done(&m);
}

static const uint64_t sizes[] = {0,    1,    31,   4031, 4032,  4033,  4095,  4096,   4097,    8128,   8129,
				 8191, 8192, 8193, 65535, 65536, 65537, 262144, 300001, 1048575, 3000000};

static void add_sizes(struct maker *m)
{
	char name[32];

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		snprintf(name, sizeof(name), "%llu", (unsigned long long)sizes[i]);
		add_file(m, name, sizes[i]);
	}
}

static void sizes_of_files(void **state)
{
	static const size_t cuts[] = {1u << 20, 65536 - 512, 4096, 4095, 100000, 511};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
		struct maker m;

		begin(&m);
		m.cut = cuts[i];
		add_sizes(&m);
		end(&m);
		done(&m);
	}
}

/* A tail lies in one block, a file of whole blocks has none, and what fits is inlined. */
static void layouts(void **state)
{
	static const struct {
		uint64_t size;
		uint16_t format;
	} rows[] = {{0, 1}, {1, 5}, {4032, 5}, {4033, 1}, {4095, 1}, {4096, 1}, {4097, 5},
		    {8128, 5}, {8129, 1}, {8192, 1}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct maker m;
		struct erofs_inode inode;
		struct erofs_super super;

		begin(&m);
		add_file(&m, "f", rows[i].size);
		end(&m);
		assert_int_equal(pread(m.options.fd, &super, sizeof(super), EROFS_SUPER_OFFSET), sizeof(super));
		assert_int_equal(pread(m.options.fd, &inode, sizeof(inode),
				       (off_t)(le32toh(super.meta_block) * BLOCK + m.entries[0].nid * 32)),
				 sizeof(inode));
		assert_int_equal(le16toh(inode.format), rows[i].format);
		assert_int_equal(le32toh(super.feature_incompat), 0);
		assert_int_equal(le64toh(super.inodes), 2);
		assert_int_equal(le32toh(super.blocks), m.result.blocks);
		done(&m);
	}
}

static void times_and_owners(void **state)
{
	static const struct timespec times[] = {{0, 0}, {-1, 0}, {-101, 750000000}, {8000000000, 999999999},
						{INT64_MIN / 2, 1}};
	struct maker m;

	(void)state;
	begin(&m);
	for (size_t i = 0; i < ARRAY_LEN(times); i++) {
		char name[8];

		snprintf(name, sizeof(name), "t%zu", i);

		struct made *made = add(&m, name, S_IFREG | (i & 1 ? 06751 : 01000));

		made->attributes.mtime = times[i];
		made->attributes.uid = i & 1 ? UINT32_MAX - 1 : 0;
		made->attributes.gid = i & 1 ? 65536 : 65535;
		OK(put_file(&m, made, err));
	}
	end(&m);
	done(&m);

	begin(&m);
	const struct erofs_attributes bad = {.mode = S_IFREG, .mtime = {0, 1000000000}};

	FAILS(CPULL_ERR_INTERNAL, "nanoseconds", erofs_image_file_begin(m.image, &bad, 0, false, err));
	done(&m);
}

static void symlinks(void **state)
{
	static const size_t lens[] = {1, 2, 4031, 4032, 4033, 4094, 4095};
	static char targets[ARRAY_LEN(lens)][4097];
	struct maker m;
	uint64_t nid;
	char name[16];

	(void)state;
	begin(&m);
	for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
		memset(targets[i], 'a' + (int)i, lens[i]);
		targets[i][0] = '\xff';
		targets[i][lens[i]] = 0;
		snprintf(name, sizeof(name), "l%zu", i);
		add_symlink(&m, name, targets[i]);
	}
	end(&m);
	done(&m);

	const struct erofs_attributes attributes = {.mode = S_IFLNK | 0777};

	begin(&m);
	FAILS(CPULL_ERR_TAR, "without a target", erofs_image_symlink(m.image, &attributes, "", &nid, err));
	done(&m);
	begin(&m);
	targets[0][0] = 'x';
	memset(targets[0], 'x', 4096);
	FAILS(CPULL_ERR_LIMIT, "4096 bytes", erofs_image_symlink(m.image, &attributes, targets[0], &nid, err));
	done(&m);
}

static void nodes(void **state)
{
	static const uint32_t bad[][2] = {{4096, 0}, {0, 1u << 20}};
	const struct erofs_attributes attributes = {.mode = S_IFCHR | 0600};
	struct maker m;
	uint64_t nid;

	(void)state;
	begin(&m);
	add_node(&m, "null", S_IFCHR | 0666, 1, 3);
	add_node(&m, "last", S_IFCHR | 0600, 4095, 1048575);
	add_node(&m, "disk", S_IFBLK | 0660, 259, 300);
	add_node(&m, "gone", S_IFCHR, 0, 0);
	add_node(&m, "pipe", S_IFIFO | 0600, 0, 0);
	add_node(&m, "sock", S_IFSOCK | 0600, 0, 0);
	end(&m);
	if (m.mounted)
		assert_true(is_whiteout("gone"));
	done(&m);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		begin(&m);
		FAILS(CPULL_ERR_TAR, "out of range",
		      erofs_image_node(m.image, &attributes, bad[i][0], bad[i][1], &nid, err));
		done(&m);
	}
}

static void links_and_patches(void **state)
{
	struct maker m;

	(void)state;
	begin(&m);

	struct made *first = add_file(&m, "first", 5000);
	uint64_t nid = *nid_of(&m, first);
	struct made *again = add(&m, "again", S_IFREG | 0644);

	/* the second name of the same file */
	first = &m.made[0];
	*nid_of(&m, again) = nid;
	again->size = first->size;
	again->seed = first->seed;
	again->links = first->links = 70001;
	OK(erofs_image_set_links(m.image, nid, 70001, err));

	const struct erofs_attributes changed = {.mode = S_IFREG | 04711, .uid = 1, .gid = 2, .mtime = {-5, 6}};

	again->attributes = first->attributes = changed;
	OK(erofs_image_set_stat(m.image, nid, &changed, err));
	end(&m);
	if (m.mounted)
		assert_int_equal(stat_of("first").st_ino, stat_of("again").st_ino);
	done(&m);
}

/* ---- sparse files ---- */

static struct made *add_sparse(struct maker *m, const char *name, uint64_t size, const struct range *data)
{
	struct made *made = add(m, name, S_IFREG | 0644);

	made->size = size;
	made->seed = 12345;
	made->data = data;
	OK(put_file(m, made, err));
	return made;
}

static void sparse_files(void **state)
{
	static const struct range none[] = {{0, 0}};
	static const struct range abc[] = {{0, 1}, {20480, 20481}, {32768, 32769}, {0, 0}};
	static const struct range middle[] = {{5000, 9000}, {0, 0}};
	static const struct range head[] = {{0, 8192}, {0, 0}};
	static const struct range touching[] = {{0, 5000}, {5000, 12287}, {12287, 12288}, {0, 0}};
	static const struct range whole[] = {{0, 70001}, {0, 0}};
	static const struct range small[] = {{10, 20}, {4000, 4095}, {0, 0}};
	static const struct range far[] = {{3, 4}, {300u << 20, (300u << 20) + 5},
					   {(700u << 20) + 4096, (700u << 20) + 9000},
					   {0, 0}};
	static const struct range vast[] = {{1ull << 42, (1ull << 42) + 1}, {0, 0}};
	struct maker m;

	(void)state;
	begin(&m);
	add_sparse(&m, "abc", 32769, abc);
	add_sparse(&m, "none", 32769, none);
	add_sparse(&m, "none-1", 4097, none);
	add_sparse(&m, "middle", 20000, middle);
	add_sparse(&m, "middle-end", 9000, middle);
	add_sparse(&m, "head", 1000000, head);
	add_sparse(&m, "touching", 40000, touching);
	add_sparse(&m, "whole", 70001, whole);
	add_sparse(&m, "small", 4096, small);
	add_sparse(&m, "small-1", 4095, small);
	add_sparse(&m, "empty", 0, none);
	add_sparse(&m, "hole-4096", 4096, none);
	add_sparse(&m, "hole-100", 100, none);
	add_sparse(&m, "far", 1u << 30, far);
	add_sparse(&m, "nothing", LIMIT_FILE_BYTES, none);
	add_sparse(&m, "vast", LIMIT_FILE_BYTES / 4 - 1, vast + 1);
	add_file(&m, "after", 4097);
	end(&m);
	assert_true(m.result.blocks < 2000);
	done(&m);
}

/* Zeros that are data are holes as well, and the map is no larger than need be. */
static void zeros_in_a_sparse_file(void **state)
{
	static const uint8_t zeros[3 * BLOCK];
	const struct erofs_attributes attributes = {.mode = S_IFREG | 0644};
	struct erofs_super super;
	struct erofs_inode inode;
	struct maker m;
	uint64_t nid;

	(void)state;
	begin(&m);
	OK(erofs_image_file_begin(m.image, &attributes, 64u << 20, true, err));
	for (uint64_t at = 0; at < 1u << 20; at += sizeof(zeros) / 2)
		OK(erofs_image_file_data(m.image, &(struct tar_data){zeros, sizeof(zeros) / 2, at}, err));
	OK(erofs_image_file_end(m.image, &nid, err));
	end(&m);
	assert_int_equal(m.result.blocks, 3);
	assert_int_equal(pread(m.options.fd, &super, sizeof(super), EROFS_SUPER_OFFSET), sizeof(super));
	assert_int_equal(le32toh(super.feature_incompat), EROFS_INCOMPAT_CHUNKED_FILE);
	assert_int_equal(pread(m.options.fd, &inode, sizeof(inode),
			       (off_t)(le32toh(super.meta_block) * BLOCK + nid * 32)),
			 sizeof(inode));
	assert_int_equal(le16toh(inode.format), EROFS_FORMAT(EROFS_CHUNK_BASED));
	assert_int_equal(le32toh(inode.data), 14); /* one chunk */
	done(&m);
}

static void holes_are_limited(void **state)
{
	/* chunks of 2 MiB, of which each gets a byte at its end */
	struct range data[9] = {{0, 0}};
	struct made *made;
	struct maker m;

	(void)state;
	for (size_t i = 0; i < 8; i++)
		data[i] = (struct range){((uint64_t)i + 1) * (4u << 20) - 1, ((uint64_t)i + 1) * (4u << 20)};
	begin_with(&m, (struct erofs_image_options){.max_hole_bytes = 10u << 20});
	made = add(&m, "f", S_IFREG | 0644);
	made->size = 128ull << 30;
	made->data = data;
	FAILS(CPULL_ERR_LIMIT, "sparse files", put_file(&m, made, err));
	done(&m);
}

/* ---- the whole ---- */

/* So many inodes that they do not fit memory, and patches of those that are in the file. */
static void large_spool(void **state)
{
	const unsigned count = 12000;
	struct maker m;
	char name[32];

	(void)state;
	begin(&m);
	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "f%05u", i);
		add_file(&m, name, i * 37 % 2000);
	}
	for (unsigned i = 0; i < count; i += 97) {
		m.made[i].links = 5;
		m.made[i].attributes.mode = S_IFREG | 0400;
		OK(erofs_image_set_links(m.image, m.entries[i].nid, 5, err));
		OK(erofs_image_set_stat(m.image, m.entries[i].nid, &m.made[i].attributes, err));
	}
	end(&m);
	assert_true(m.result.blocks * BLOCK > 2 * EROFS_SPOOL_MEMORY_BYTES);
	/* 1000 bytes of tail on average, 64 of inode, 16 to the next slot, 18 of entry, and little lost before cuts */
	assert_true(m.result.blocks * BLOCK < (uint64_t)count * (1000 + 64 + 16 + 18 + 80));
	done(&m);
}

/* At rest an image holds no more of the disk than it has, and goes on as before. */
static void rest_of(struct maker *m)
{
	struct stat st;

	OK(erofs_image_rest(m->image, err));
	assert_int_equal(fstat(m->options.fd, &st), 0);
	assert_true(st.st_blocks * 512 <= st.st_size + (1 << 16));
}

static void rests_in_between(void **state)
{
	(void)state;
	for (int uring = 0; uring <= has_uring(); uring++) {
		struct maker m;
		char name[32];

		begin_with(&m, (struct erofs_image_options){.io = uring ? CPULL_IO_URING : CPULL_IO_SYNC});
		rest_of(&m);
		for (unsigned i = 0; i < 2000; i++) {
			snprintf(name, sizeof(name), "f%05u", i);
			add_file(&m, name, i % 500 == 0 ? 3000000 + i : i * 37 % 2000);
			if (i % 450 == 0)
				rest_of(&m);
		}
		for (unsigned i = 0; i < 2000; i += 97) {
			m.made[i].links = 5;
			OK(erofs_image_set_links(m.image, m.entries[i].nid, 5, err));
		}
		rest_of(&m);
		rest_of(&m);
		end(&m);
		done(&m);
	}
}

static bool on_tmpfs(void)
{
	struct statfs fs;

	assert_int_equal(statfs(".", &fs), 0);
	return fs.f_type == TMPFS_MAGIC;
}

/* `rest`: between the data and what is behind it, as a layer that waits for those below. */
static void make_image(struct maker *m, enum cpull_io io, size_t cut, bool rest)
{
	static const struct range data[] = {{5000, 9000}, {900000, 1000000}, {0, 0}};

	begin_with(m, (struct erofs_image_options){.io = io});
	m->cut = cut;
	add_sizes(m);
	add_file(m, "large", (20u << 20) + 5);
	add_sparse(m, "sparse", 2000000, data);
	add_symlink(m, "link", "target");
	if (rest)
		rest_of(m);
	end(m);
}

static void same_bytes(void **state)
{
	static const size_t cuts[] = {65536, 262144 - 512, 1u << 20, 5000};
	enum cpull_io ios[] = {CPULL_IO_AUTO, CPULL_IO_SYNC, CPULL_IO_URING};
	/* plainly in memory, and past the page cache on a disk */
	enum bulk_way ring = on_tmpfs() ? BULK_URING : BULK_URING_DIRECT;
	const enum bulk_way ways[] = {on_tmpfs() || !has_uring() ? BULK_SYNC : ring, BULK_SYNC, ring};
	uint64_t sum = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cuts); i++)
		for (size_t k = 0; k < ARRAY_LEN(ios) - !has_uring(); k++) {
			struct maker m;

			make_image(&m, ios[k], cuts[i], i % 2);
			if (!sum)
				sum = m.sum;
			assert_int_equal(m.sum, sum);
			assert_int_equal(m.result.way, ways[k]);
			assert_int_equal(fcntl(m.options.fd, F_GETFL) & O_DIRECT, 0);
			done(&m);
		}
}

/* Nothing is left of an image that is given up, wherever. */
static void given_up(void **state)
{
	unsigned fds = count_fds();

	(void)state;
	for (unsigned at = 0; at < 3; at++)
		for (int uring = 0; uring <= has_uring(); uring++) {
			const struct erofs_attributes attributes = {.mode = S_IFREG};
			struct maker m;

			begin_with(&m, (struct erofs_image_options){.io = uring ? CPULL_IO_URING : CPULL_IO_SYNC});
			if (at)
				add_sizes(&m);
			OK(erofs_image_file_begin(m.image, &attributes, 10u << 20, at == 2, err));

			const struct made made = {0};

			OK(feed_range(&m, &made, (struct range){0, 3000001}, err));
			done(&m);

			uint8_t super[4] = {0};
			CLEANUP_FD int fd = open(IMAGE, O_RDONLY | O_CLOEXEC);

			assert_int_equal(pread(fd, super, 4, 1024), 4);
			assert_memory_equal(super, "\0\0\0\0", 4);
		}
	assert_int_equal(count_fds(), fds);
}

static int fail_late(void *payload, uint64_t block, const void *data, size_t blocks, struct cpull_error *err)
{
	(void)payload;
	(void)data;
	(void)blocks;
	return block > 200 ? error_set(err, CPULL_ERR_STORAGE, "no more hashes") : 0;
}

static void failing_hook(void **state)
{
	struct made *made;
	struct maker m;

	(void)state;
	begin(&m);
	erofs_image_free(m.image);
	m.options.written = fail_late;
	OK(erofs_image_new(&m.options, &m.image, err));
	made = add(&m, "f", S_IFREG);
	made->size = 4u << 20;
	FAILS(CPULL_ERR_STORAGE, "no more hashes", put_file(&m, made, err));
	done(&m);
}

static void no_room(void **state)
{
	enum cpull_io ios[] = {CPULL_IO_SYNC, CPULL_IO_URING};

	(void)state;
	if (!can_mount)
		skip();
	assert_true(mkdir("tiny", 0700) == 0 || errno == EEXIST);
	assert_int_equal(mount("tmpfs", "tiny", "tmpfs", 0, "size=1m"), 0);
	assert_int_equal(chdir("tiny"), 0);
	for (size_t i = 0; i < ARRAY_LEN(ios) - !has_uring(); i++) {
		struct made *made;
		struct maker m;
		char name[16];
		int rc = 0;

		/* of data */
		begin_with(&m, (struct erofs_image_options){.io = ios[i]});
		made = add(&m, "f", S_IFREG);
		made->size = 3u << 20;
		FAILS(CPULL_ERR_SPACE, "writing an EROFS image", put_file(&m, made, err));
		done(&m);

		/* of the spool */
		begin_with(&m, (struct erofs_image_options){.io = ios[i]});
		for (unsigned k = 0; !rc && k < 6000; k++) {
			struct cpull_error err = {0};

			snprintf(name, sizeof(name), "%u", k);
			made = add(&m, name, S_IFREG);
			made->size = 1000;
			rc = put_file(&m, made, &err);
			assert_true(!rc || strstr(err.message, "temporary file"));
		}
		assert_int_equal(rc, CPULL_ERR_SPACE);
		done(&m);
	}
	assert_int_equal(chdir(".."), 0);
	assert_int_equal(umount2("tiny", MNT_DETACH), 0);
}

static void misused(void **state)
{
	const struct erofs_attributes attributes = {.mode = S_IFREG};
	const uint8_t byte[2] = {0};
	const struct tar_data one = {byte, 1, 0}, two = {byte, 2, 0}, far = {byte, 1, UINT64_MAX};
	struct maker m;
	uint64_t nid;

	(void)state;
	begin(&m);
	OK(erofs_image_file_begin(m.image, &attributes, 1, true, err));
	FAILS(CPULL_ERR_INTERNAL, "belong", erofs_image_file_data(m.image, &two, err));
	FAILS(CPULL_ERR_INTERNAL, "belong", erofs_image_file_data(m.image, &far, err));
	OK(erofs_image_file_data(m.image, &one, err));
	FAILS(CPULL_ERR_INTERNAL, "belong", erofs_image_file_data(m.image, &one, err));
	OK(erofs_image_file_end(m.image, &nid, err));
	OK(erofs_image_file_begin(m.image, &attributes, 2, false, err));
	OK(erofs_image_file_data(m.image, &one, err));
	FAILS(CPULL_ERR_INTERNAL, "missing", erofs_image_file_end(m.image, &nid, err));
	done(&m);
}

static void limits(void **state)
{
	const struct erofs_attributes attributes = {.mode = S_IFREG};
	struct erofs_blocks *blocks;
	struct erofs_spool *spool;
	struct maker m;
	bool inlined;
	uint64_t at;

	(void)state;
	begin(&m);
	FAILS(CPULL_ERR_LIMIT, "larger than",
	      erofs_image_file_begin(m.image, &attributes, LIMIT_FILE_BYTES + 1, true, err));
	done(&m);

	begin(&m);
	OK(erofs_blocks_new(&(struct erofs_blocks_options){.fd = m.options.fd}, &blocks, err));
	OK(erofs_blocks_check(blocks, LIMIT_EROFS_BYTES - BLOCK, err));
	FAILS(CPULL_ERR_LIMIT, "at most", erofs_blocks_check(blocks, LIMIT_EROFS_BYTES - BLOCK + 1, err));
	FAILS(CPULL_ERR_LIMIT, "at most", erofs_blocks_check(blocks, UINT64_MAX, err));
	erofs_blocks_free(blocks);
	OK(erofs_spool_new(m.options.spool_dirfd, &spool, err));
	OK(erofs_spool_place(spool, LIMIT_EROFS_SPOOL_BYTES, 0, &at, &inlined, err));
	FAILS(CPULL_ERR_LIMIT, "inodes", erofs_spool_place(spool, 64, 0, &at, &inlined, err));
	erofs_spool_free(spool);
	done(&m);
}

/* ---- */

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
		TEST(empty_image),
		TEST(sizes_of_files),
		TEST(layouts),
		TEST(times_and_owners),
		TEST(symlinks),
		TEST(nodes),
		TEST(links_and_patches),
		TEST(sparse_files),
		TEST(zeros_in_a_sparse_file),
		TEST(holes_are_limited),
		TEST(large_spool),
		TEST(rests_in_between),
		TEST(same_bytes),
		TEST(given_up),
		TEST(failing_hook),
		TEST(no_room),
		TEST(misused),
		TEST(limits),
	};

	print_message("on %s\n", name);
	return cmocka_run_group_tests_name("erofs_image", tests, NULL, NULL);
}

int main(void)
{
	return run_all(run);
}
