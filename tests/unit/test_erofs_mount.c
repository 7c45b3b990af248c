/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/erofs_mount and loop_device: the test vectors' images mounted from tmpfs (by loop device) and from ext4 (as
 * files, where the kernel can), and compared with what GNU tar makes of their layers; what is refused; what is left
 * behind. Runs as root in a mount namespace of its own; further rounds have parts of the kernel's interfaces refused by
 * seccomp filters.
 */
#include "layer_fixture.h"

#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>

#include "snapshot/erofs_format.h"
#include "snapshot/erofs_mount.h"
#include "snapshot/loop_device.h"
#include "snapshot/overlay.h"
#include "tests/tree_hash.h"
#include "vectors.h"

static char base[] = "/tmp/erofs-mount-XXXXXX";
static bool file_backed; /* the kernel mounts files that are not on tmpfs */
static bool new_api;
/* Where a tree to compare with is unpacked: tmpfs has user.* attributes since 6.6 only, ext4 long ones when told. */
static const char *plain_place = "mount -t tmpfs -o mode=0755 none $d";

/* ---- places ---- */

static bool on_tmpfs(void)
{
	return fresh_tmpfs(base) && mkdir("view", 0755) == 0;
}

static bool on_ext4(void)
{
	return fresh_ext4(base) && mkdir("view", 0755) == 0;
}

static int done(void **state)
{
	(void)state;
	return chdir("/");
}

static char *absolute(const char *name)
{
	char *out = format_string("%s/%s", base, name);

	assert_non_null(out);
	return out;
}

static void put_file(const char *path, const void *data, size_t len)
{
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), (ssize_t)len);
}

static void put_vector(const char *name, const char *path)
{
	CLEANUP_FREE char *vector = format_string("erofs/%s", name);
	CLEANUP_BYTES struct bytes data = vector_read(vector);

	put_file(path, data.data, data.len);
}

static void change(const char *path, uint64_t offset, const void *data, size_t len)
{
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_int_equal(pwrite(fd, data, len, (off_t)offset), (ssize_t)len);
}

/* ---- mounting ---- */

static int mount_at(const char *image, const char *target, bool direct, enum erofs_way *way, struct cpull_error *err)
{
	CLEANUP_FREE char *from = absolute(image), *to = absolute(target);
	const struct erofs_mount m = {.image = from, .target = to, .direct = direct};

	return erofs_mount(&m, NULL, way, err);
}

static enum erofs_way must_mount(const char *image, const char *target, bool direct)
{
	struct cpull_error err;
	enum erofs_way way;

	if (mount_at(image, target, direct, &way, &err))
		fail_msg("%s", err.message);
	return way;
}

static void must_unmount(const char *target)
{
	CLEANUP_FREE char *to = absolute(target);
	struct cpull_error err;

	if (overlay_unmount(to, &err))
		fail_msg("%s", err.message);
}

static void must_fail(const char *image, const char *target, int code, const char *why)
{
	struct cpull_error err = {0};
	enum erofs_way way;

	assert_int_equal(mount_at(image, target, false, &way, &err), code);
	if (err.code != code || !strstr(err.message, why) || strchr(err.message, '\n'))
		fail_msg("code %d, \"%s\" does not say \"%s\"", err.code, err.message, why);
}

static bool by_loop(enum erofs_way way)
{
	return way == EROFS_BY_LOOP || way == EROFS_BY_LOOP_DIRECT;
}

/* How many loop devices have the file? */
static unsigned bound_now(const struct stat *st)
{
	DIR *dev = opendir("/dev");
	struct dirent *e;
	unsigned n = 0;

	assert_non_null(dev);
	while ((e = readdir(dev))) {
		struct loop_info64 info;
		int number;
		char end;

		if (sscanf(e->d_name, "loop%d%c", &number, &end) != 1)
			continue;

		CLEANUP_FD int fd = openat(dirfd(dev), e->d_name, O_RDONLY | O_CLOEXEC);

		if (fd >= 0 && ioctl(fd, LOOP_GET_STATUS64, &info) == 0 && info.lo_inode == st->st_ino &&
		    info.lo_device == st->st_dev)
			n++;
	}
	closedir(dev);
	return n;
}

/* The kernel lets go of a device a little after the unmount, and others may look at it meanwhile. */
static void must_be_bound(const char *image, unsigned want)
{
	struct stat st = stat_of(image);
	unsigned n = bound_now(&st);

	for (unsigned i = 0; i < 200 && n != want; i++) {
		usleep(10000);
		n = bound_now(&st);
	}
	assert_int_equal(n, want);
}

/* ---- the vectors ---- */

/* What GNU tar makes of a layer, and what overlay wants of whiteouts. */
static uint64_t unpack_vector(const char *vector)
{
	CLEANUP_FREE char *command = format_string(
		"d=$(mktemp -d /tmp/erofs-expected-XXXXXX) && %s && ln -sfn $d expected && "
		"tar --numeric-owner --xattrs --xattrs-include='*' --acls --same-owner -xpf "
		"\"$COCO_PULL_SHARED/vectors/erofs/%s.tar\" -C $d 2>/dev/null", plain_place, vector);

	assert_int_equal(system(command), 0);
	if (strcmp(vector, "v4-whiteout") == 0)
		assert_int_equal(system("cd expected && rm .wh.gone o/.wh..wh..opq && mknod -m 0 gone c 0 0 && "
					"touch -d @1700000000 . o"), 0);
	if (strcmp(vector, "v4-whiteout") == 0)
		assert_int_equal(setxattr("expected/o", "trusted.overlay.opaque", "y", 1, 0), 0);
	if (strcmp(vector, "v6-dup") == 0) {
		assert_int_equal(system("touch -d @0 expected/deep/er expected/deep && touch -d @1700000000 expected"),
				 0);
	}

	uint64_t hash = tree_hash("expected/.");

	assert_int_equal(system("d=$(readlink expected) && umount $d && rmdir $d && rm expected"), 0);
	return hash;
}

static const char *const vectors[] = {"v1-empty", "v2-basic", "v3-xattr", "v4-whiteout", "v5-sparse", "v6-dup"};

/* Each is unpacked once. */
static uint64_t expected_tree(const char *vector)
{
	static uint64_t known[ARRAY_LEN(vectors)];
	size_t i = 0;

	while (strcmp(vectors[i], vector) != 0)
		i++;
	if (!known[i])
		known[i] = unpack_vector(vector);
	return known[i];
}

static void compare_vectors(bool direct, bool want_file)
{
	for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
		uint64_t want = expected_tree(vectors[i]);

		for (unsigned layout = 0; layout < 2; layout++) {
			enum erofs_way way;
			char name[64];

			snprintf(name, sizeof(name), "%s.%s.img", vectors[i], layout ? "inter" : "spool");
			put_vector(name, name);
			way = must_mount(name, "view", direct);
			assert_int_equal(by_loop(way), !want_file);
			if (want_file)
				assert_int_equal(way, direct ? EROFS_BY_FILE_DIRECT : EROFS_BY_FILE);
			must_be_bound(name, want_file ? 0 : 1);
			if (tree_hash("view/.") != want)
				fail_msg("%s by %s: not as GNU tar has it", name, erofs_way_text(way));
			assert_int_equal(open("view/new", O_WRONLY | O_CREAT, 0600), -1);
			assert_int_equal(errno, EROFS);
			must_unmount("view");
			assert_int_equal(count_names("view"), 0);
			must_be_bound(name, 0);
		}
	}
}

static void vectors_on_tmpfs(void **state)
{
	(void)state;
	if (!on_tmpfs() || !vectors_present())
		skip();
	compare_vectors(false, false);
	compare_vectors(true, false);
}

static void vectors_on_ext4(void **state)
{
	(void)state;
	if (!on_ext4() || !vectors_present())
		skip();
	compare_vectors(false, file_backed);
	compare_vectors(true, file_backed);
}

/* ---- more than one, and long names ---- */

static void check_two_mounts(void)
{
	put_vector("v2-basic.spool.img", "image");
	assert_int_equal(mkdir("second", 0755), 0);
	must_mount("image", "view", false);
	must_mount("image", "second", false);
	assert_true(exists("view/d/+plus") && exists("second/d/+plus"));
	must_unmount("view");
	assert_true(tree_hash("second/.") == expected_tree("v2-basic") && !exists("view/d"));
	/* one over the other */
	must_mount("image", "second", false);
	must_unmount("second");
	assert_true(exists("second/d"));
	must_unmount("second");
	assert_false(exists("second/d"));
	must_be_bound("image", 0);
}

static void two_mounts_of_one_image(void **state)
{
	(void)state;
	if (!vectors_present() || !on_tmpfs())
		skip();
	check_two_mounts();
	if (!on_ext4())
		skip();
	check_two_mounts();
}

static void check_long_paths(void)
{
	char dir[256], image[512], target[512];

	snprintf(dir, sizeof(dir), "%0200d", 1);
	snprintf(image, sizeof(image), "%s/%0120d", dir, 2);
	snprintf(target, sizeof(target), "%s/%0120d-view", dir, 3);
	assert_int_equal(mkdir(dir, 0755) | mkdir(target, 0755), 0);
	put_vector("v2-basic.spool.img", image);
	must_mount(image, target, false);
	strcat(target, "/d/+plus");
	assert_true(exists(target));
	*strstr(target, "/d/+plus") = 0;
	must_unmount(target);
	must_mount(image, "view", true);
	assert_true(exists("view/d"));
	must_unmount("view");
	must_be_bound(image, 0);
	/* there is room for everything that matters in a message */
	change(image, EROFS_SUPER_OFFSET + offsetof(struct erofs_super, epoch), "x", 1);
	must_fail(image, target, CPULL_ERR_STORAGE, strrchr(image, '/'));
	must_fail(image, target, CPULL_ERR_STORAGE, strrchr(target, '/'));
	must_fail(image, target, CPULL_ERR_STORAGE, strerrordesc_np(EBADMSG));
}

static void long_paths(void **state)
{
	(void)state;
	if (!vectors_present() || !on_tmpfs())
		skip();
	check_long_paths();
	if (!on_ext4())
		skip();
	check_long_paths();
}

static void odd_names(void **state)
{
	static const char *const names[] = {"with space", "com,ma", "back\\slash", "new\nline", "a:b=c", "\xff\xfe"};

	(void)state;
	if (!vectors_present() || !on_ext4())
		skip();
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		CLEANUP_FREE char *target = format_string("%s-view", names[i]);

		assert_int_equal(mkdir(target, 0755), 0);
		put_vector("v2-basic.spool.img", names[i]);
		must_mount(names[i], target, false);
		must_unmount(target);
	}
}

/* As an image behind dm-verity is. */
static void a_device_is_mounted_itself(void **state)
{
	struct loop_device loop;
	struct cpull_error err;
	enum erofs_way way;

	(void)state;
	if (!vectors_present() || !on_tmpfs())
		skip();
	put_vector("v2-basic.spool.img", "image");

	CLEANUP_FD int fd = open("image", O_RDONLY | O_CLOEXEC);

	if (loop_device_bind(fd, &loop, &err))
		fail_msg("%s", err.message);

	CLEANUP_FREE char *target = absolute("view");
	const struct erofs_mount m = {.image = loop.path, .target = target, .direct = true};

	if (erofs_mount(&m, NULL, &way, &err))
		fail_msg("%s", err.message);
	assert_int_equal(way, EROFS_BY_DEVICE);
	assert_true(exists("view/d"));
	must_unmount("view");
	close(loop.fd);
	must_be_bound("image", 0);
}

/* ---- what is refused ---- */

static void check_refusals(const char *tried)
{
	const uint32_t unknown = htole32(1u << 30);
	char zeros[8192] = {0};

	put_file("empty", "", 0);
	must_fail("empty", "view", CPULL_ERR_STORAGE, "not an EROFS image");
	put_file("zeros", zeros, sizeof(zeros));
	must_fail("zeros", "view", CPULL_ERR_STORAGE, "not an EROFS image");
	put_vector("v2-basic.spool.img", "image");
	/* 8 blocks of image, and a hash tree that nobody needs here */
	assert_int_equal(truncate("image", 8 * 4096 - 1), 0);
	must_fail("image", "view", CPULL_ERR_SIZE, "it is cut, 32767 bytes of 32768 are left");
	assert_int_equal(truncate("image", 1100), 0);
	must_fail("image", "view", CPULL_ERR_STORAGE, "not an EROFS image");
	put_vector("v2-basic.spool.img", "image");
	change("image", EROFS_SUPER_OFFSET + offsetof(struct erofs_super, block_bits), "\x09", 1);
	must_fail("image", "view", CPULL_ERR_UNSUPPORTED, "blocks of 2^9 bytes");
	put_vector("v2-basic.spool.img", "image");
	change("image", EROFS_SUPER_OFFSET + offsetof(struct erofs_super, epoch), "x", 1);
	must_fail("image", "view", CPULL_ERR_STORAGE, strerrordesc_np(EBADMSG));
	must_fail("image", "view", CPULL_ERR_STORAGE, tried);
	put_vector("v2-basic.spool.img", "image");
	change("image", EROFS_SUPER_OFFSET + offsetof(struct erofs_super, feature_incompat), &unknown, 4);
	change("image", EROFS_SUPER_OFFSET + offsetof(struct erofs_super, feature_compat), zeros, 4);
	must_fail("image", "view", CPULL_ERR_STORAGE, tried);
	/* EINVAL, which need not be the image's fault */
	must_fail("image", "view", CPULL_ERR_STORAGE, "by /dev/loop");
	must_be_bound("image", 0);
	assert_int_equal(count_names("view"), 0);
}

static void refused_images(void **state)
{
	(void)state;
	if (!vectors_present() || !on_tmpfs())
		skip();
	check_refusals("as a file: ");
	if (!on_ext4())
		skip();
	check_refusals("as a file: ");
}

static void refused_places(void **state)
{
	(void)state;
	if (!vectors_present() || !on_tmpfs())
		skip();
	put_vector("v1-empty.spool.img", "image");
	must_fail("missing", "view", CPULL_ERR_NOT_FOUND, "opening image");
	must_fail("image", "missing", CPULL_ERR_NOT_FOUND, "opening mount point");
	must_fail("image", "image", CPULL_ERR_STORAGE, "it must be a directory");
	must_fail("view", "view", CPULL_ERR_STORAGE, "neither a file nor a block device");
	assert_int_equal(symlink("view", "link") | mkfifo("fifo", 0600), 0);
	must_fail("image", "link", CPULL_ERR_STORAGE, "it must be a directory");
	must_fail("fifo", "view", CPULL_ERR_STORAGE, "neither a file nor a block device");
	must_be_bound("image", 0);
}

/* ---- without what it takes ---- */

static void check_unprivileged(void **state)
{
	struct cpull_error err;

	(void)state;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) {
		print_message("skipped: no user namespaces here\n");
		skip();
	}
	assert_int_equal(chmod(base, 0777), 0);
	must_fail("image", "view", CPULL_ERR_PERMISSION, "needs CAP_SYS_ADMIN");
	assert_int_equal(erofs_mount_possible(AT_FDCWD, &err), CPULL_ERR_PERMISSION);
}

static void no_permission(void **state)
{
	(void)state;
	if (!vectors_present() || !on_tmpfs())
		skip();
	put_vector("v1-empty.spool.img", "image");
	assert_int_equal(chmod("image", 0644), 0);
	in_child(check_unprivileged, NULL);
	must_be_bound("image", 0);
	if (!on_ext4())
		skip();
	put_vector("v1-empty.spool.img", "image");
	assert_int_equal(chmod("image", 0644), 0);
	in_child(check_unprivileged, NULL);
	must_be_bound("image", 0);
}

static void hide_dev(void)
{
	assert_int_equal(unshare(CLONE_NEWNS), 0);
	assert_int_equal(mount("none", "/dev", "tmpfs", 0, "mode=0755"), 0);
}

static void check_without_loop(void **state)
{
	bool possible = file_backed && *state;
	struct cpull_error err = {0};
	unsigned fds = count_fds();

	hide_dev();
	assert_int_equal(erofs_mount_possible(AT_FDCWD, &err),
			 possible && new_api ? 0 : CPULL_ERR_UNSUPPORTED);
	if (err.code)
		assert_non_null(strstr(err.message, "opening /dev/loop-control: No such file"));
	assert_int_equal(count_fds(), fds);
	if (possible) {
		must_mount("image", "view", false);
		must_unmount("view");
		return;
	}
	must_fail("image", "view", CPULL_ERR_STORAGE, "as a file: Block device required");
	must_fail("image", "view", CPULL_ERR_STORAGE,
		  "; by a loop device: opening /dev/loop-control: No such file");
}

static void no_loop_devices(void **state)
{
	(void)state;
	if (!vectors_present() || !on_tmpfs())
		skip();
	put_vector("v1-empty.spool.img", "image");
	in_child(check_without_loop, NULL);
	if (!on_ext4())
		skip();
	put_vector("v1-empty.spool.img", "image");
	in_child(check_without_loop, "ext4");
}

static unsigned count_mounts(void)
{
	CLEANUP_FILE FILE *file = fopen("/proc/self/mountinfo", "re");
	unsigned n = 0;
	int c;

	assert_non_null(file);
	while ((c = getc(file)) != EOF)
		n += c == '\n';
	return n;
}

static void possible_here(void **state)
{
	struct cpull_error err;

	(void)state;
	if (!on_tmpfs())
		skip();

	unsigned fds = count_fds(), mounts = count_mounts();
	CLEANUP_FD int dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (erofs_mount_possible(dirfd, &err))
		fail_msg("%s", err.message);
	assert_int_equal(count_names("."), 1); /* view */
	assert_int_equal(count_fds(), fds + 1);
	assert_int_equal(count_mounts(), mounts);
}

/* ---- loop devices ---- */

static void a_crash_frees_the_device(void **state)
{
	int ready[2];
	char byte;

	(void)state;
	if (!vectors_present() || !on_tmpfs() || pipe2(ready, O_CLOEXEC))
		skip();
	put_vector("v1-empty.spool.img", "image");
	for (int mounted = 0; mounted < 2; mounted++) {
		pid_t pid = fork();

		if (pid == 0) {
			struct loop_device loop;
			int fd = open("image", O_RDONLY | O_CLOEXEC), rc;

			if (mounted)
				rc = unshare(CLONE_NEWNS) ? -1 : mount_at("image", "view", false, NULL, NULL);
			else
				rc = loop_device_bind(fd, &loop, NULL);
			if (write(ready[1], rc ? "n" : "y", 1) == 1)
				pause();
			_exit(1);
		}
		assert_int_equal(read(ready[0], &byte, 1), 1);
		assert_int_equal(byte, 'y');
		must_be_bound("image", 1);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		must_be_bound("image", 0);
	}
	close(ready[0]);
	close(ready[1]);
}

#define RACERS 6
#define BINDS 20

/* Everybody asks for a free device at once. */
static void many_at_once(void **state)
{
	pid_t pids[RACERS];
	int status;

	(void)state;
	if (!vectors_present() || !on_tmpfs())
		skip();
	put_vector("v1-empty.spool.img", "image");
	for (int i = 0; i < RACERS; i++) {
		pids[i] = fork();
		if (pids[i])
			continue;

		struct cpull_error err;
		struct loop_device loop;
		int fd = open("image", O_RDONLY | O_CLOEXEC), rc = 0;

		for (int k = 0; k < BINDS && !rc; k++) {
			rc = loop_device_bind(fd, &loop, &err);
			if (!rc)
				close(loop.fd);
			else
				print_error("%s\n", err.message);
		}
		fflush(NULL);
		_exit(rc ? 1 : 0);
	}
	for (int i = 0; i < RACERS; i++) {
		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	must_be_bound("image", 0);
}

static void a_device_reads_as_the_file(void **state)
{
	char from_file[4096], from_device[4096];
	struct loop_device loop;
	struct cpull_error err;
	uint64_t bytes;

	(void)state;
	if (!vectors_present() || !on_ext4())
		skip();
	put_vector("v2-basic.spool.img", "image");

	CLEANUP_FD int fd = open("image", O_RDONLY | O_CLOEXEC);
	CLEANUP_FD int direct = open("image", O_RDONLY | O_DIRECT | O_CLOEXEC);

	if (loop_device_bind(fd, &loop, &err))
		fail_msg("%s", err.message);
	assert_true(fcntl(loop.fd, F_GETFD) & FD_CLOEXEC);
	for (int block = 0; block < 10; block++) {
		assert_int_equal(pread(fd, from_file, sizeof(from_file), block * 4096), sizeof(from_file));
		assert_int_equal(pread(loop.fd, from_device, sizeof(from_device), block * 4096), sizeof(from_device));
		assert_memory_equal(from_file, from_device, sizeof(from_file));
	}
	assert_int_equal(loop.direct, direct >= 0);
	assert_int_equal(ioctl(loop.fd, BLKGETSIZE64, &bytes), 0);
	assert_int_equal(bytes, stat_of("image").st_size);

	/* some kernels refuse the open, all refuse the write */
	int again = open(loop.path, O_RDWR | O_CLOEXEC);

	assert_int_equal(write(again, from_file, sizeof(from_file)), -1);
	if (again >= 0)
		close(again);
	close(loop.fd);
	must_be_bound("image", 0);
}

static void a_file_that_cannot_be_bound(void **state)
{
	struct cpull_error err;
	struct loop_device loop;
	CLEANUP_FD int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_int_equal(loop_device_bind(fd, &loop, &err), CPULL_ERR_STORAGE);
	assert_non_null(strstr(err.message, "binding the image to /dev/loop"));
	assert_int_equal(loop.fd, -1);
}

static void nothing_is_left_open(void **state)
{
	unsigned fds;

	(void)state;
	if (!vectors_present() || !on_tmpfs())
		skip();
	put_vector("v2-basic.spool.img", "image");
	put_file("bad", "bad", 3);
	fds = count_fds();
	for (int i = 0; i < 3; i++) {
		must_mount("image", "view", i & 1);
		must_unmount("view");
		must_fail("bad", "view", CPULL_ERR_STORAGE, "not an EROFS");
		must_fail("image", "missing", CPULL_ERR_NOT_FOUND, "mount point");
	}
	assert_int_equal(count_fds(), fds);
}

/* ---- rounds ---- */

#define T(f) cmocka_unit_test_teardown(f, done)

static int run_group(const char *name)
{
	const struct CMUnitTest tests[] = {
		T(vectors_on_tmpfs), T(vectors_on_ext4), T(two_mounts_of_one_image), T(long_paths), T(odd_names),
		T(a_device_is_mounted_itself), T(refused_images), T(refused_places), T(no_permission),
		T(no_loop_devices), T(possible_here), T(a_crash_frees_the_device), T(many_at_once),
		T(a_device_reads_as_the_file), T(a_file_that_cannot_be_bound), T(nothing_is_left_open),
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

/* As a kernel before 5.8. */
static bool refuse_loop_configure(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, LOOP_CONFIGURE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = ARRAY_LEN(code), .filter = code};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0) == 0;
}

static void mount_file_without_loop(void **state)
{
	struct cpull_error err;

	(void)state;
	hide_dev();
	assert_int_equal(erofs_mount_possible(AT_FDCWD, &err), 0);
}

/* In a child, since that hides /dev. */
static bool kernel_mounts_files(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(mount_file_without_loop)};
	int status = 1;

	if (!on_ext4())
		return false;
	fflush(NULL);

	pid_t pid = fork();

	if (pid == 0) {
		/* that it fails is no failure */
		if (!freopen("/dev/null", "w", stderr) || !freopen("/dev/null", "w", stdout))
			_exit(1);
		_exit(cmocka_run_group_tests(tests, NULL, NULL));
	}
	waitpid(pid, &status, 0);
	return status == 0;
}

int main(void)
{
	struct cpull_error err;
	int failed = 0;

	if (!own_namespace())
		return 0;
	if (!begin_at(base))
		return 1;
	if (setxattr(base, "user.test", "", 0, 0))
		plain_place = "f=$(mktemp /tmp/erofs-ext4-XXXXXX) && truncate -s 32M $f && "
			      "mkfs.ext4 -q -F -O ea_inode $f && mount -o loop $f $d && rm $f && "
			      "rmdir $d/lost+found";
	if (erofs_mount_possible(AT_FDCWD, &err)) {
		print_message("skipped: %s\n", err.message);
		end_at(base);
		return 0;
	}
	file_backed = kernel_mounts_files();
	print_message("this kernel mounts files%s\n", file_backed ? "" : " by loop devices only");
	new_api = true;
	failed += run_group("erofs_mount");
	if (refuse_syscall(SYS_fsopen, ENOSYS)) {
		new_api = false;
		failed += run_group("erofs_mount by mount(2)");
	}
	if (refuse_loop_configure())
		failed += run_group("erofs_mount by mount(2), loop devices bound in steps");
	end_at(base);
	return failed;
}
