/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/erofs_mount of an image with devices: which are refused, loop devices that come and go, mount(2), devices
 * that are block devices already or on another file system. As root; what the files then are is test_erofs_merge's.
 */
#include "made_stack.h"

#include <glob.h>

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

/* ---- running ---- */

#define T(f) cmocka_unit_test_setup(f, clean)

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
		T(refused_devices), T(loop_devices_go), T(block_devices), T(layers_elsewhere), T(devices_by_mount),
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
	return run_all(run);
}
