/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/verity_device: images with a hash tree, mounted by dm-verity and read; blocks that are changed before and
 * while they are mounted; what is refused; what is left behind. Runs as root in a mount namespace of its own, and where
 * there is no device-mapper (tests/guest has one) tests only that this is said.
 */
#include "made_erofs.h"

#include "snapshot/erofs_mount.h"
#include "snapshot/overlay.h"
#include "snapshot/verity.h"
#include "snapshot/verity_device.h"
#include "snapshot/loop_device.h"

#define HASH VERITY_HASH_BYTES
#define DEV_NODES 32

static const char salt[] = "salt of this test";

/* What an image is made of: a root with three files. */
struct verified {
	struct maker maker;
	struct verity_image image;
};

/* ---- images ---- */

static void append_tree(struct verified *v, size_t salt_len)
{
	const struct verity_options options = {.salt = salt, .salt_len = salt_len, .spool_dirfd = AT_FDCWD};
	uint64_t blocks = v->maker.result.blocks;
	struct verity_result result;
	struct verity *verity;
	uint8_t block[BLOCK];
	int fd = v->image.fd;

	OK(verity_new(&options, &verity, err));
	for (uint64_t i = 0; i < blocks; i++) {
		assert_int_equal(pread(fd, block, BLOCK, (off_t)(i * BLOCK)), BLOCK);
		OK(verity_add(verity, i, block, 1, err));
	}
	OK(verity_finish(verity, fd, blocks, &result, err));
	verity_free(verity);
	v->image.data_blocks = blocks;
	v->image.salt = salt;
	v->image.salt_len = salt_len;
	memcpy(v->image.root, result.root, HASH);
}

/* In the working directory. */
static void make_image(struct verified *v, uint64_t file_bytes, size_t salt_len)
{
	*v = (struct verified){0};
	begin(&v->maker);
	for (const char *name = "abc"; *name && file_bytes; name++)
		add_file(&v->maker, (char[]){*name, 0}, file_bytes);
	end(&v->maker);
	v->image.fd = open(IMAGE, O_RDWR | O_CLOEXEC);
	assert_true(v->image.fd >= 0);
	append_tree(v, salt_len);
	assert_true(mkdir("view", 0755) == 0 || errno == EEXIST);
}

static void forget(struct verified *v)
{
	close(v->image.fd);
	done(&v->maker);
}

static void flip(const struct verified *v, uint64_t offset)
{
	uint8_t byte;

	assert_int_equal(pread(v->image.fd, &byte, 1, (off_t)offset), 1);
	byte ^= 1;
	assert_int_equal(pwrite(v->image.fd, &byte, 1, (off_t)offset), 1);
}

/* Where in the image the byte at an offset of the file is, which is one of a full block. */
static uint64_t find_byte(const struct verified *v, const char *name, uint64_t offset)
{
	const struct made *made = &v->maker.made[name[0] - 'a'];
	uint8_t block[BLOCK], want[BLOCK];

	for (uint64_t i = 0; i < BLOCK; i++)
		want[i] = byte_at(made->seed + offset / BLOCK * BLOCK + i);
	for (uint64_t i = 1; i < v->image.data_blocks; i++) {
		assert_int_equal(pread(v->image.fd, block, BLOCK, (off_t)(i * BLOCK)), BLOCK);
		if (memcmp(block, want, BLOCK) == 0)
			return i * BLOCK + offset % BLOCK;
	}
	fail_msg("no block %llu of %s in the image", (unsigned long long)(offset / BLOCK), name);
	return 0;
}

/* ---- devices ---- */

/* Of this program's, by their names. */
static unsigned mapped_now(void)
{
	DIR *list = opendir("/sys/block");
	struct dirent *e;
	unsigned n = 0;

	assert_non_null(list);
	while ((e = readdir(list))) {
		CLEANUP_FREE char *path = format_string("/sys/block/%s/dm/name", e->d_name);
		CLEANUP_BYTES struct bytes name = {0};

		if (strncmp(e->d_name, "dm-", 3) == 0 && file_read(path, 256, "name", &name, NULL) == 0)
			n += strncmp(name.data, "coco-pull-", 10) == 0;
	}
	closedir(list);
	return n;
}

/* Loop devices that have the image. */
static unsigned bound_now(const struct stat *st)
{
	unsigned n = 0;

	for (unsigned i = 0; i < DEV_NODES; i++) {
		CLEANUP_FREE char *path = format_string("/dev/loop%u", i);
		CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
		struct loop_info64 info;

		n += fd >= 0 && ioctl(fd, LOOP_GET_STATUS64, &info) == 0 && info.lo_inode == st->st_ino &&
		     info.lo_device == st->st_dev;
	}
	return n;
}

/* The kernel removes them a little after their last user has gone. */
static void must_be_there(const struct verified *v, unsigned want)
{
	struct stat st;

	assert_int_equal(fstat(v->image.fd, &st), 0);
	for (unsigned i = 0; i < 3000 && (mapped_now() != want || bound_now(&st) != want); i++)
		usleep(10000);
	assert_int_equal(mapped_now(), want);
	assert_int_equal(bound_now(&st), want);
}

static int open_device(const struct verified *v, struct verity_device *out, struct cpull_error *err)
{
	return verity_device_open(&v->image, "sha256-0123", out, err);
}

static int mount_view(const struct verity_device *device, struct cpull_error *err)
{
	CLEANUP_FREE char *here = getcwd(NULL, 0);
	CLEANUP_FREE char *target = format_string("%s/view", here);
	const struct erofs_mount m = {.image = device->path, .target = target};
	enum erofs_way way = EROFS_BY_FILE;
	int rc = erofs_mount(&m, NULL, &way, err);

	if (!rc)
		assert_int_equal(way, EROFS_BY_DEVICE);
	return rc;
}

static void must_mount(const struct verified *v)
{
	struct verity_device device;

	OK(open_device(v, &device, err));
	OK(mount_view(&device, err));
	verity_device_close(&device);
	must_be_there(v, 1);
}

static void must_unmount(void)
{
	CLEANUP_FREE char *here = getcwd(NULL, 0);
	CLEANUP_FREE char *target = format_string("%s/view", here);

	OK(overlay_unmount(target, err));
}

static void check_files(const struct verified *v)
{
	const struct maker *m = &v->maker;

	assert_int_equal(count_names("view"), m->count);
	assert_int_equal(chdir("view"), 0);
	for (const struct made *made = m->made; made < m->made + m->count; made++)
		check_made(made);
	assert_int_equal(chdir(".."), 0);
}

static void must_fail(const struct verified *v, int code, const char *why)
{
	struct verity_device device;
	unsigned fds = count_fds();

	FAILS(code, why, open_device(v, &device, err));
	assert_int_equal(device.fd, -1);
	assert_int_equal(count_fds(), fds);
	must_be_there(v, 0);
}

/* ---- as it should be ---- */

/* Of one block, which is its own tree; with one level of hashes; with two. */
static void images_of_every_shape(void **state)
{
	static const struct {
		uint64_t file_bytes;
		uint64_t min_blocks, max_blocks;
	} rows[] = {{0, 1, 2}, {3000, 2, 127}, {50000, 30, 127}, {300000, 200, 16384}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		for (size_t salt_len = 0; salt_len < sizeof(salt); salt_len += sizeof(salt) - 1) {
			struct verified v;

			make_image(&v, rows[i].file_bytes, salt_len);
			assert_in_range(v.image.data_blocks, rows[i].min_blocks, rows[i].max_blocks);
			must_mount(&v);
			check_files(&v);
			must_unmount();
			must_be_there(&v, 0);
			forget(&v);
		}
	}
}

/* Whose hash is the root hash: there is no tree. */
static void one_block(void **state)
{
	struct verified v;
	struct verity_device device;
	uint8_t from_file[BLOCK], from_device[BLOCK];

	(void)state;
	make_image(&v, 0, 0);
	v.maker.result.blocks = 1;
	append_tree(&v, 0);
	OK(open_device(&v, &device, err));
	assert_int_equal(lseek(device.fd, 0, SEEK_END), BLOCK);
	assert_int_equal(pread(device.fd, from_device, BLOCK, 0), BLOCK);
	assert_int_equal(pread(v.image.fd, from_file, BLOCK, 0), BLOCK);
	assert_memory_equal(from_file, from_device, BLOCK);
	verity_device_close(&device);
	flip(&v, 100);
	must_fail(&v, CPULL_ERR_DIGEST, "its first block does not match");
	forget(&v);
}

static void nobody_writes(void **state)
{
	struct verified v;
	struct verity_device device;
	int read_only = 0;

	(void)state;
	make_image(&v, 10000, 0);
	OK(open_device(&v, &device, err));
	assert_true(fcntl(device.fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(ioctl(device.fd, BLKROGET, &read_only), 0);
	assert_int_equal(read_only, 1);

	CLEANUP_FD int fd = open(device.path, O_RDWR | O_CLOEXEC);

	assert_int_equal(write(fd, "x", 1), -1);
	verity_device_close(&device);
	if (fd >= 0)
		close(steal_fd(&fd));
	must_be_there(&v, 0);
	forget(&v);
}

static void two_of_one_image(void **state)
{
	struct verified v;
	struct verity_device one, two;
	char byte;

	(void)state;
	make_image(&v, 10000, 0);
	OK(open_device(&v, &one, err));
	OK(open_device(&v, &two, err));
	assert_string_not_equal(one.path, two.path);
	must_be_there(&v, 2);
	verity_device_close(&one);
	must_be_there(&v, 1);
	assert_int_equal(pread(two.fd, &byte, 1, 5000), 1);
	verity_device_close(&two);
	verity_device_close(&two);
	must_be_there(&v, 0);
	forget(&v);
}

static void odd_hints(void **state)
{
	static const char *const hints[] = {"", "a/b c\n%s\xff", NULL};
	char longest[1000];

	(void)state;
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	for (size_t i = 0; i < ARRAY_LEN(hints); i++) {
		struct verified v;
		struct verity_device device;

		make_image(&v, 100, 0);
		OK(verity_device_open(&v.image, hints[i] ? hints[i] : longest, &device, err));
		must_be_there(&v, 1);
		verity_device_close(&device);
		must_be_there(&v, 0);
		forget(&v);
	}
}

/* ---- changed blocks ---- */

static int read_error(const char *name, uint64_t offset)
{
	CLEANUP_FD int fd = open(name, O_RDONLY | O_CLOEXEC);
	uint8_t block[BLOCK];
	ssize_t n = fd < 0 ? -1 : pread(fd, block, BLOCK, (off_t)(offset / BLOCK * BLOCK));

	return n < 0 ? errno : 0;
}

static void check_others(const struct verified *v, const char *but)
{
	assert_int_equal(chdir("view"), 0);
	for (const struct made *made = v->maker.made; made < v->maker.made + v->maker.count; made++)
		if (strcmp(made->name, but) != 0)
			check_made(made);
	assert_int_equal(chdir(".."), 0);
}

static void a_changed_byte_is_an_error(void **state)
{
	struct verified v;

	(void)state;
	make_image(&v, 300000, 8);
	flip(&v, find_byte(&v, "b", 100001));
	must_mount(&v);
	assert_int_equal(read_error("view/b", 100001), EIO);
	/* the block alone */
	assert_int_equal(read_error("view/b", 0), 0);
	assert_int_equal(read_error("view/b", 200000), 0);
	check_others(&v, "b");
	must_unmount();
	must_be_there(&v, 0);
	forget(&v);
}

static void drop_caches(void)
{
	CLEANUP_FD int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	sync();
	assert_int_equal(write(fd, "3", 1), 1);
}

/* As who owns the disk of the store might. */
static void a_change_under_a_mount_is_one_too(void **state)
{
	struct verified v;

	(void)state;
	make_image(&v, 300000, 0);
	must_mount(&v);
	check_files(&v);
	flip(&v, find_byte(&v, "c", 250000));
	drop_caches();
	assert_int_equal(read_error("view/c", 250000), EIO);
	assert_int_equal(read_error("view/c", 150000), 0);
	check_others(&v, "c");
	must_unmount();
	must_be_there(&v, 0);
	forget(&v);
}

static void a_changed_tree_is_an_error(void **state)
{
	struct verified v;

	(void)state;
	make_image(&v, 300000, 0);

	struct verity_shape shape = verity_shape_of(v.image.data_blocks);

	assert_int_equal(shape.levels, 2);
	flip(&v, shape.level[1].first * BLOCK);
	must_fail(&v, CPULL_ERR_DIGEST, "this is not its root hash");
	flip(&v, shape.level[1].first * BLOCK);
	flip(&v, shape.level[0].first * BLOCK + 40);
	must_fail(&v, CPULL_ERR_DIGEST, "its first block does not match");
	flip(&v, shape.level[0].first * BLOCK + 40);
	/* that vouches for others: they are not readable, the first is */
	flip(&v, (shape.level[0].first + 1) * BLOCK);

	struct verity_device device;
	uint8_t block[BLOCK];

	OK(open_device(&v, &device, err));
	assert_int_equal(pread(device.fd, block, BLOCK, 127 * BLOCK), BLOCK);
	assert_int_equal(pread(device.fd, block, BLOCK, 128 * BLOCK), -1);
	assert_int_equal(errno, EIO);
	verity_device_close(&device);
	must_be_there(&v, 0);
	forget(&v);
}

/* ---- what is refused ---- */

static void other_facts_do_not_fit(void **state)
{
	struct verified v;

	(void)state;
	make_image(&v, 10000, 8);

	const struct verity_image image = v.image;

	v.image.root[31] ^= 1;
	must_fail(&v, CPULL_ERR_DIGEST, "this is not its root hash");
	v.image = image;
	v.image.salt_len = 7;
	must_fail(&v, CPULL_ERR_DIGEST, "this is not its root hash");
	v.image = image;
	v.image.data_blocks--;
	must_fail(&v, CPULL_ERR_DIGEST, "this is not its root hash");
	v.image.data_blocks = 0;
	must_fail(&v, CPULL_ERR_USAGE, "verity: 0 blocks");
	v.image.data_blocks = (uint64_t)VERITY_DATA_BLOCKS + 1;
	must_fail(&v, CPULL_ERR_USAGE, "verity: 4294967296 blocks");
	v.image.data_blocks = VERITY_DATA_BLOCKS;
	must_fail(&v, CPULL_ERR_SIZE, "it is cut");
	v.image = image;
	v.image.salt_len = VERITY_SALT_BYTES + 1;
	must_fail(&v, CPULL_ERR_USAGE, "salt of 257 bytes");
	v.image = image;
	assert_int_equal(ftruncate(image.fd, lseek(image.fd, 0, SEEK_END) - 1), 0);
	must_fail(&v, CPULL_ERR_SIZE, "it is cut: ");
	forget(&v);
}

static void check_unprivileged(void **state)
{
	struct verity_device device;

	if (unshare(CLONE_NEWUSER)) {
		print_message("no user namespaces here\n");
		return;
	}
	FAILS(CPULL_ERR_PERMISSION, "ermission denied", open_device(*state, &device, err));
	FAILS(CPULL_ERR_PERMISSION, "ermission denied", verity_device_possible(err));
}

static void no_permission(void **state)
{
	struct verified v;

	(void)state;
	make_image(&v, 100, 0);
	in_child(check_unprivileged, &v);
	must_be_there(&v, 0);
	forget(&v);
}

/* ---- other places of devices ---- */

/* /dev as of a container: loop devices, no others, and nobody who makes them. */
static void hide_dev(bool with_control)
{
	struct stat st;

	if (with_control)
		st = stat_of("/dev/mapper/control");
	assert_int_equal(unshare(CLONE_NEWNS), 0);
	assert_int_equal(mount("none", "/dev", "tmpfs", 0, "mode=0755"), 0);
	assert_int_equal(mknod("/dev/loop-control", S_IFCHR | 0600, makedev(10, 237)), 0);
	for (unsigned i = 0; i < DEV_NODES; i++) {
		CLEANUP_FREE char *path = format_string("/dev/loop%u", i);

		assert_int_equal(mknod(path, S_IFBLK | 0600, makedev(7, i)), 0);
	}
	if (with_control) {
		assert_int_equal(mkdir("/dev/mapper", 0755), 0);
		assert_int_equal(mknod("/dev/mapper/control", S_IFCHR | 0600, st.st_rdev), 0);
	}
}

static unsigned own_nodes(void)
{
	DIR *dev = opendir("/dev");
	struct dirent *e;
	unsigned n = 0;

	assert_non_null(dev);
	while ((e = readdir(dev)))
		n += strncmp(e->d_name, "coco-pull", 9) == 0 || strncmp(e->d_name, "dm-", 3) == 0;
	closedir(dev);
	return n;
}

static void check_without_nodes(void **state)
{
	struct verified *v = *state;
	struct verity_device device;

	hide_dev(true);
	OK(open_device(v, &device, err));
	assert_non_null(strstr(device.path, "/dev/coco-pull-dm-"));
	OK(mount_view(&device, err));
	assert_int_equal(own_nodes(), 1);
	verity_device_close(&device);
	assert_int_equal(own_nodes(), 0);
	check_files(v);
	must_unmount();
	must_be_there(v, 0);

	/* both names are taken by something else; numbers are given again, from the lowest */
	for (unsigned i = 0; i < 4; i++) {
		CLEANUP_FREE char *ours = format_string("/dev/coco-pull-dm-%u", i);
		CLEANUP_FREE char *theirs = format_string("/dev/dm-%u", i);

		assert_int_equal(symlink("loop0", theirs), 0);
		assert_int_equal(mknod(ours, S_IFBLK | 0600, makedev(7, 1)), 0);
	}
	must_fail(v, CPULL_ERR_STORAGE, "making the device node /dev/coco-pull-dm-");
}

static void no_nodes(void **state)
{
	struct verified v;

	(void)state;
	make_image(&v, 10000, 0);
	in_child(check_without_nodes, &v);
	must_be_there(&v, 0);
	forget(&v);
}

static void check_without_control(void **state)
{
	struct verity_device device;

	hide_dev(false);
	FAILS(CPULL_ERR_UNSUPPORTED, "device-mapper", verity_device_possible(err));
	if (*state)
		FAILS(CPULL_ERR_UNSUPPORTED, "device-mapper", open_device(*state, &device, err));
}

static void no_control(void **state)
{
	struct verified v;

	(void)state;
	make_image(&v, 100, 0);
	in_child(check_without_control, &v);
	must_be_there(&v, 0);
	forget(&v);
}

/* ---- the end of a process ---- */

static void a_crash_takes_all_down(void **state)
{
	struct verified v;
	int ready[2];
	char byte;

	(void)state;
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	make_image(&v, 10000, 0);
	for (int mounted = 0; mounted < 2; mounted++) {
		pid_t pid = fork();

		if (pid == 0) {
			struct verity_device device;
			int rc = unshare(CLONE_NEWNS) ? -1 : open_device(&v, &device, NULL);

			if (!rc && mounted) {
				rc = mount_view(&device, NULL);
				verity_device_close(&device);
			}
			if (write(ready[1], rc ? "n" : "y", 1) == 1)
				pause();
			_exit(1);
		}
		assert_int_equal(read(ready[0], &byte, 1), 1);
		assert_int_equal(byte, 'y');
		must_be_there(&v, 1);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		must_be_there(&v, 0);
	}
	close(ready[0]);
	close(ready[1]);
	forget(&v);
}

static void possible_here(void **state)
{
	unsigned fds = count_fds(), before = mapped_now();

	(void)state;
	OK(verity_device_possible(err));
	assert_int_equal(count_fds(), fds);
	assert_int_equal(mapped_now(), before);
}

/* ---- where there is no device-mapper ---- */

static void impossible(void **state)
{
	struct cpull_error err;

	(void)state;
	assert_int_equal(verity_device_possible(&err), CPULL_ERR_UNSUPPORTED);
	assert_non_null(strstr(err.message, "device-mapper"));
	in_child(check_without_control, NULL);
}

/* ---- rounds ---- */

static int fresh(void **state)
{
	(void)state;
	return fresh_place(base);
}

#define T(f) cmocka_unit_test_setup(f, fresh)

static int run_group(const char *name)
{
	const struct CMUnitTest tests[] = {
		T(possible_here), T(images_of_every_shape), T(one_block), T(nobody_writes), T(two_of_one_image),
		T(odd_hints), T(a_changed_byte_is_an_error), T(a_change_under_a_mount_is_one_too),
		T(a_changed_tree_is_an_error), T(other_facts_do_not_fit), T(no_permission), T(no_nodes), T(no_control),
		T(a_crash_takes_all_down),
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	const struct CMUnitTest without[] = {cmocka_unit_test(impossible)};
	struct cpull_error err;
	int failed;

	if (!own_namespace())
		return 0;
	if (!begin_at(base))
		return 1;
	if (verity_device_possible(&err)) {
		print_message("skipped: %s\n", err.message);
		failed = cmocka_run_group_tests_name("without device-mapper", without, NULL, NULL);
		end_at(base);
		return failed;
	}
	failed = run_group("verity_device on tmpfs");
	if (fresh_ext4(base))
		failed += run_group("verity_device on ext4");
	end_at(base);
	return failed;
}
