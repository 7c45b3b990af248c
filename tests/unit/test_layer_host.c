/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/layer_writer where the machine gives less or works against it: few descriptors, little room, limits, user
 * namespaces, file systems without attributes, system calls that are refused, somebody who moves directories about.
 */
#include "layer_fixture.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "snapshot/overlay.h"
#include "tests/tree_hash.h"

static char base[] = "/tmp/layer-host-XXXXXX";

static const uint8_t capability[20] = {1, 0, 0, 2, 0, 0x20};

static int fresh(void **state)
{
	(void)state;
	return fresh_place(base);
}

/* Mounts layers l0…, the lowest first, on "view". */
static void mount_view(size_t count)
{
	char paths[4][512], cwd[480], target[512];
	const char *lowers[4];
	struct cpull_error err;

	assert_non_null(getcwd(cwd, sizeof(cwd)));
	for (size_t i = 0; i < count; i++) {
		snprintf(paths[i], sizeof(paths[i]), "%s/l%zu", cwd, i);
		lowers[i] = paths[i];
	}
	snprintf(target, sizeof(target), "%s/view", cwd);
	assert_int_equal(mkdir("view", 0755), 0);

	struct overlay_mount m = {.lowers = lowers, .lower_count = count, .target = target};
	int rc = overlay_mount(&m, NULL, &err);

	if (rc)
		print_error("%s\n", err.message);
	assert_int_equal(rc, 0);
}

/* ---- descriptors ---- */

static void few_descriptors_are_enough(void **state)
{
	struct bytes t = {0};
	char name[64];
	unsigned before = count_fds();

	(void)state;
	for (int i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "d%d/e/f/g%d", i % 20, i);
		ADD(&t, .name = name, .data = "x");
	}
	ADD_DIR(&t, .name = "d3/e");
	ADD(&t, .name = "d4", .data = "x");
	WRITE_OK("l", &t, .tie = true);
	ADD(&t, .name = "a/b/c/d", .data = "x");
	ADD(&t, .name = "../x");
	WRITE_FAILS("m", &t, CPULL_ERR_ESCAPE);
	assert_int_equal(count_fds(), before);
}

/* Deep and wide, with links across, replaced trees and whiteouts: all that opens directories. */
static struct bytes many_directories(void)
{
	struct bytes t = {0};
	char name[96], target[96];

	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "a%d/b/c%d/f", i % 10, i);
		ADD(&t, .name = name, .data = "f");
		snprintf(target, sizeof(target), "x%d/link", i % 7);
		ADD_LINK(&t, target, name);
		snprintf(name, sizeof(name), "a%d/.wh.gone", i % 10);
		ADD(&t, .name = name);
	}
	ADD(&t, .name = "a1/b/.wh..wh..opq");
	ADD(&t, .name = "a2", .data = "file");
	ADD_SYMLINK(&t, "s", "a3/b");
	ADD_LINK(&t, "s/again", "a4/b/c4/f");
	ADD_LINK(&t, "a5/b", "a5/b/c5/f");
	return t;
}

/* Leaves so many to open. */
static void limit_fds(unsigned spare)
{
	int lowest_free = dup(0);
	struct rlimit limit = {(rlim_t)lowest_free + spare, (rlim_t)lowest_free + spare};

	close(lowest_free);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* What one entry takes at the most, whatever was cached: two parents, and a tree that is removed or a file. */
#define FDS_NEEDED 4u

static void with_spare_descriptors(void **state)
{
	unsigned spare = *(unsigned *)*state;
	struct bytes t = many_directories();
	struct outcome out = {0};
	struct log log;
	struct layer_writer *w;
	struct dir_fs_options place = {.log = &log, .helper = fixture_helper};

	assert_int_equal(mkdir("l", 0700), 0);
	place.dirfd = open("l", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	log_init(&log, count_warning, &out.warnings, CPULL_LOG_DEBUG);
	tar_end(&t);
	/* made under the usual limit, so that its cache is larger than what it finds later */
	w = new_writer(&place, 0, &out.err);
	limit_fds(spare);
	out.code = feed_all(w, &t, 65536, &out.err);
	if (!out.code) {
		out.code = layer_writer_finish(w, &out.stats, &out.err);
		if (!out.code)
			out.code = layer_writer_tie(w, NULL, 0, &out.err);
		layer_writer_free(w);
	}
	bytes_free(&t);
	close(place.dirfd);
	log_destroy(&log);
	if (spare < FDS_NEEDED) {
		/* too few to work with: said so */
		assert_int_equal(out.code, CPULL_ERR_STORAGE);
		assert_int_equal(out.err.sys_errno, EMFILE);
		return;
	}
	if (out.code)
		print_error("%u: %s\n", spare, out.err.message);
	assert_int_equal(out.code, 0);
	assert_true(has_content("l/a5/b", "f") && has_content("l/a3/b/again", "f") && has_content("l/a2", "file"));
	assert_int_equal(stat_of("l/a4/b/c4/f").st_nlink, 2);
	assert_true(is_opaque("l/a1/b"));
}

static void the_cache_gives_way(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 24; i++) {
		unsigned spare = i / 2;

		fixture_helper = i % 2 ? FILE_HELPER_FIRST : FILE_HELPER_NEVER;
		in_child(with_spare_descriptors, &spare);
		assert_int_equal(system("rm -rf l"), 0);
	}
	fixture_helper = FILE_HELPER_AUTO;
}

/* ---- limits and room ---- */

static void no_space_is_said_so(void **state)
{
	size_t len = 16u << 20;
	char *data = calloc(1, len);

	(void)state;
	for (int i = 0; i < 1 + has_uring(); i++) {
		struct bytes t = {0};

		assert_int_equal(mkdir("small", 0755), i ? -1 : 0);
		assert_int_equal(mount("tmpfs", "small", "tmpfs", 0, "size=8m"), 0);
		ADD(&t, .name = "etc/big", .data = data, .len = len);
		struct outcome out = WRITE_FAILS("small/l", &t, CPULL_ERR_SPACE,
						 .io = i ? CPULL_IO_URING : CPULL_IO_SYNC);

		assert_int_equal(out.err.sys_errno, ENOSPC);
		assert_non_null(strstr(out.err.message, "etc/big"));
		assert_int_equal(umount2("small", 0), 0); /* nothing is open any more */
	}
	free(data);
}

/* No inode is left: files, directories, links, each its turn. */
static void no_inodes_is_said_so(void **state)
{
	(void)state;
	assert_int_equal(mkdir("few", 0755), 0);
	for (unsigned kind = 0; kind < 4; kind++) {
		struct bytes t = {0};
		char name[32];

		assert_int_equal(mount("tmpfs", "few", "tmpfs", 0, "nr_inodes=12"), 0);
		for (int i = 0; i < 20; i++) {
			snprintf(name, sizeof(name), "name-%d", i);
			tar_item(&t, (struct item){.type = "05261"[kind], .name = name, .link = "x"});
		}
		struct outcome out = WRITE_FAILS("few/l", &t, CPULL_ERR_SPACE, .helper = FILE_HELPER_FIRST);

		assert_non_null(strstr(out.err.message, "name-"));
		assert_int_equal(umount2("few", 0), 0);
	}
}

static void beyond_the_file_size_limit(void **state)
{
	const enum cpull_io io = *(enum cpull_io *)*state;
	const struct rlimit limit = {1u << 20, 1u << 20};
	/* an image is more than what is in it */
	size_t len = (3u << 20) + 1000, fits = fixture_images ? 1000000 : 1u << 20;
	char *data = calloc(1, len);
	struct bytes t = {0};
	sigset_t set;

	/* as every thread of the engine has it; at its default the signal would end the process */
	sigemptyset(&set);
	sigaddset(&set, SIGXFSZ);
	assert_int_equal(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ADD(&t, .name = "fits", .data = data, .len = fits);
	ADD(&t, .name = "too/large", .data = data, .len = len);
	/* the chunks do not end at the limit: the last write is cut short */
	struct outcome out = WRITE_FAILS("l", &t, CPULL_ERR_STORAGE, .io = io, .chunk_bytes = 300000);

	assert_int_equal(out.err.sys_errno, EFBIG);
	assert_non_null(strstr(out.err.message, "too/large"));
	if (fixture_images) {
		free(data);
		return; /* where a hole takes no room */
	}
	assert_int_equal(stat_of("l/fits").st_size, fits);

	/* a hole at the end is no way round it */
	struct bytes r = {0};

	pax_record(&r, "GNU.sparse.size", "5000000", 7);
	pax_record(&r, "GNU.sparse.numblocks", "1", 1);
	pax_record(&r, "GNU.sparse.map", "0,4", 3);
	tar_pax(&t, &r);
	bytes_free(&r);
	ADD(&t, .name = "holes", .data = "four");
	out = WRITE_FAILS("s", &t, CPULL_ERR_STORAGE, .io = io);
	assert_int_equal(out.err.sys_errno, EFBIG);
	free(data);
}

static void file_size_limit(void **state)
{
	enum cpull_io ios[] = {CPULL_IO_SYNC, CPULL_IO_URING};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(ios) - !has_uring(); i++) {
		in_child(beyond_the_file_size_limit, &ios[i]);
		assert_int_equal(system("rm -rf l s l.erofs"), 0);
	}
}

/* ---- other settings of the host ---- */

static void without_a_working_directory(void **state)
{
	struct bytes t = {0};
	struct outcome out = {0};
	struct log log;
	struct layer_writer *w;
	struct dir_fs_options place = {.log = &log, .helper = fixture_helper};

	(void)state;
	assert_int_equal(mkdir("l", 0700) | mkdir("gone", 0700), 0);
	place.dirfd = open("l", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	mode_t mask = umask(0777);

	assert_int_equal(chdir("gone") | rmdir("../gone"), 0);
	log_init(&log, count_warning, &out.warnings, CPULL_LOG_DEBUG);
	ADD(&t, .name = "a/b/f", .data = "f", .mode = 0640);
	ADD(&t, .type = '1', .name = "a/g", .link = "a/b/f", .mode = 0640);
	ADD_DIR(&t, .name = "r/x");
	ADD(&t, .name = "r", .data = "file");
	ADD(&t, .name = "a/.wh.w");
	tar_end(&t);
	w = new_writer(&place, 0, &out.err);
	assert_int_equal(feed_all(w, &t, 65536, &out.err), 0);
	assert_int_equal(layer_writer_finish(w, &out.stats, &out.err), 0);
	layer_writer_free(w);
	assert_int_equal(umask(mask), 0777);
	assert_int_equal(fchdir(here), 0);
	close(here);
	close(place.dirfd);
	bytes_free(&t);
	log_destroy(&log);
	CHECK_STAT("l/a/b/f", 0640, 0, 0);
	CHECK_STAT("l/a/b", 0755, 0, 0);
	assert_true(has_content("l/r", "file") && is_whiteout("l/a/w") && has_content("l/a/g", "f"));
}

/* ---- what a user namespace refuses ---- */

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void as_root_of_a_namespace(void **state)
{
	struct bytes t = {0};
	uint8_t value[32];

	(void)state;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) {
		print_message("skipped: no user namespaces here\n");
		skip();
	}
	write_text("/proc/self/setgroups", "deny");
	write_text("/proc/self/uid_map", "0 0 1");
	write_text("/proc/self/gid_map", "0 0 1");
	assert_int_equal(mount("tmpfs", ".", "tmpfs", 0, "mode=0755"), 0);

	char cwd[512];

	assert_true(getcwd(cwd, sizeof(cwd)) && chdir("/") == 0 && chdir(cwd) == 0);
	ADD(&t, .name = "d/gone", .data = "x");
	ADD(&t, .name = "d/keep", .data = "x");
	ADD(&t, .name = "o/old", .data = "x");
	ADD(&t, .name = "r/old", .data = "x");
	tar_xattr(&t, "security.capability", capability, sizeof(capability));
	ADD(&t, .name = "cap", .data = "x", .mode = 0755);
	WRITE_OK("l0", &t);
	assert_true(lgetxattr("l0/cap", "security.capability", value, sizeof(value)) >= 20);
	ADD(&t, .name = "d/.wh.gone");
	ADD(&t, .name = "o/.wh..wh..opq");
	ADD(&t, .name = "o/new", .data = "new");
	ADD(&t, .name = ".wh.r");
	ADD(&t, .name = "r/new", .data = "new");
	WRITE_OK("l1", &t);
	assert_int_equal(lgetxattr("l1/o", "trusted.overlay.opaque", value, sizeof(value)), -1);
	assert_int_equal(lgetxattr("l1/o", "user.overlay.opaque", value, sizeof(value)), 1);
	mount_view(2);
	assert_true(exists("view/d/keep") && !exists("view/d/gone"));
	assert_true(has_content("view/o/new", "new") && !exists("view/o/old"));
	assert_true(has_content("view/r/new", "new") && !exists("view/r/old"));
	assert_int_equal(count_names("view/d"), 1);

	/* what cannot be is an error that names what, and which file */
	ADD(&t, .type = '3', .name = "dev/null", .major = 1, .minor = 3);
	struct outcome out = WRITE_FAILS("l2", &t, CPULL_ERR_PERMISSION);

	assert_non_null(strstr(out.err.message, "dev/null"));
	assert_non_null(strstr(out.err.message, "CAP_MKNOD"));
	ADD(&t, .name = "home/f", .uid = 1000, .gid = 1000);
	out = WRITE_FAILS("l3", &t, CPULL_ERR_PERMISSION);
	assert_non_null(strstr(out.err.message, "home/f"));
	assert_non_null(strstr(out.err.message, "user namespace"));
	tar_xattr(&t, "trusted.mine", "1", 1);
	ADD(&t, .name = "marked");
	out = WRITE_FAILS("l4", &t, CPULL_ERR_PERMISSION);
	assert_non_null(strstr(out.err.message, "trusted.mine"));
}

static void in_a_user_namespace(void **state)
{
	(void)state;
	in_child(as_root_of_a_namespace, NULL);
}

/* The same, and nodes are refused as well: whiteouts are attributes in the user's name. */
static void as_root_without_nodes(void **state)
{
	struct bytes t = {0};

	(void)state;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
		skip();
	write_text("/proc/self/setgroups", "deny");
	write_text("/proc/self/uid_map", "0 0 1");
	write_text("/proc/self/gid_map", "0 0 1");
	assert_int_equal(mount("tmpfs", ".", "tmpfs", 0, "mode=0755"), 0);

	char cwd[512];

	assert_true(getcwd(cwd, sizeof(cwd)) && chdir("/") == 0 && chdir(cwd) == 0);
	assert_true(refuse_syscall(SYS_mknodat, EPERM));
	ADD(&t, .name = "d/gone", .data = "x");
	ADD(&t, .name = "d/keep", .data = "x");
	WRITE_OK("l0", &t);
	ADD(&t, .name = "d/.wh.gone");
	WRITE_OK("l1", &t);
	assert_true(lgetxattr("l1/d/gone", "user.overlay.whiteout", NULL, 0) >= 0);
	mount_view(2);
	assert_true(exists("view/d/keep") && !exists("view/d/gone"));
	assert_int_equal(count_names("view/d"), 1);
}

static void in_a_user_namespace_without_nodes(void **state)
{
	(void)state;
	in_child(as_root_without_nodes, NULL);
}

/* ---- file systems and calls that are not there ---- */

static void without_attributes(void **state)
{
	static const uint8_t acl[] = {2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255,
				      32, 0, 0, 0, 255, 255, 255, 255};
	static const char *const vital[] = {"security.capability", "trusted.mine"};
	struct bytes t = {0};

	(void)state;
	assert_int_equal(mkdir("plain", 0755), 0);
	if (mount("ramfs", "plain", "ramfs", 0, NULL)) {
		print_message("skipped: no ramfs here\n");
		skip();
	}
	tar_xattr(&t, "user.note", "1", 1);
	ADD(&t, .name = "f", .data = "f", .uid = 5);
	tar_xattr(&t, "user.note", "1", 1);
	ADD(&t, .name = "g", .data = "g");
	tar_xattr(&t, "system.posix_acl_default", acl, sizeof(acl));
	ADD_DIR(&t, .name = "d", .mode = 0750);
	ADD(&t, .name = "d/.wh.x");
	struct outcome out = WRITE_OK("plain/l0", &t);

	assert_int_equal(out.warnings, 1);
	assert_true(has_content("plain/l0/f", "f") && has_content("plain/l0/g", "g") && is_whiteout("plain/l0/d/x"));
	CHECK_STAT("plain/l0/d", 0750, 0, 0);
	for (size_t i = 0; i < ARRAY_LEN(vital); i++) {
		tar_xattr(&t, vital[i], capability, sizeof(capability));
		ADD(&t, .name = "bin/ping", .mode = 0755);
		out = WRITE_FAILS(i ? "plain/l2" : "plain/l1", &t, CPULL_ERR_XATTR);
		assert_int_equal(out.err.sys_errno, EOPNOTSUPP);
		assert_non_null(strstr(out.err.message, "bin/ping"));
		assert_non_null(strstr(out.err.message, vital[i]));
	}
	/* hidden files would come back */
	ADD(&t, .name = "o/.wh..wh..opq");
	out = WRITE_FAILS("plain/l3", &t, CPULL_ERR_XATTR);
	assert_non_null(strstr(out.err.message, "opaque"));
	assert_int_equal(umount2("plain", 0), 0);
}

static void links_become_copies(void **state)
{
	struct bytes t = {0};
	uint8_t value[32];

	(void)state;
	if (!refuse_syscall(SYS_linkat, EPERM)) /* qemu-user */
		skip();
	tar_xattr(&t, "security.capability", capability, sizeof(capability));
	ADD(&t, .name = "f", .data = "content", .mode = 04755, .uid = 7, .gid = 8, .mtime = 99);
	tar_item(
	    &t, (struct item){.type = '1', .name = "d/h", .link = "f", .mode = 04755, .uid = 7, .gid = 8, .mtime = 99});
	ADD_SYMLINK(&t, "s", "f");
	ADD_LINK(&t, "s2", "s");
	ADD(&t, .type = '6', .name = "p", .mode = 0600);
	ADD(&t, .type = '1', .name = "p2", .link = "p", .mode = 0600);
	ADD(&t, .name = "over/x", .data = "x");
	ADD_LINK(&t, "over", "over/x"); /* replaces the directory that it is in */
	WRITE_OK("l", &t, .tie = true);
	assert_true(has_content("l/d/h", "content") && stat_of("l/d/h").st_nlink == 1);
	CHECK_STAT("l/d/h", 04755, 7, 8);
	assert_int_equal(stat_of("l/d/h").st_mtime, 99);
	assert_int_equal(lgetxattr("l/d/h", "security.capability", value, sizeof(value)), 20);
	assert_true(links_to("l/s2", "f") && S_ISFIFO(stat_of("l/p2").st_mode) && has_content("l/over", "x"));
}

static void hard_links_refused(void **state)
{
	(void)state;
	in_child(links_become_copies, NULL);
}

/* ---- somebody in between ---- */

struct swapper {
	atomic_bool stop;
	unsigned long swaps;
};

/* Puts a link to the canary where the layer's directory is, and back, as fast as it goes. */
static void *swap(void *payload)
{
	struct swapper *swapper = payload;

	while (!atomic_load(&swapper->stop)) {
		if (renameat2(AT_FDCWD, "l/d", AT_FDCWD, "outside", RENAME_EXCHANGE) == 0)
			swapper->swaps++;

		/* never through the link itself */
		CLEANUP_FD int dir = open("l/d", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

		if (dir >= 0 && renameat2(dir, "e", AT_FDCWD, "outside2", RENAME_EXCHANGE) == 0)
			swapper->swaps++;
	}
	return NULL;
}

static void directories_swapped_for_links(void **state)
{
	struct swapper swapper = {0};
	pthread_t thread;
	uint64_t end = now_ms() + 1000;
	unsigned good = 0, bad = 0;

	(void)state;
	assert_int_equal(system("mkdir -p canary/e/old && echo alive > canary/f0 && echo alive > canary/e/f1 && "
				"echo alive > canary/e/old/f2"), 0);
	uint64_t before = tree_hash("canary");

	while (now_ms() < end) {
		struct bytes t = {0};
		char name[32];

		assert_int_equal(
		    system("rm -rf l outside outside2; ln -s ../canary outside; ln -s ../../canary/e outside2"), 0);
		for (int i = 0; i < 60; i++) {
			snprintf(name, sizeof(name), i % 3 ? "d/e/f%d" : "d/f%d", i % 7);
			ADD(&t, .name = name, .data = "evil", .mode = 0666, .uid = 9);
			snprintf(name, sizeof(name), "d/e/.wh.f%d", i % 5);
			ADD(&t, .name = name);
			ADD_DIR(&t, .name = "d/e/old", .mode = 0777);
			ADD(&t, .name = "d/e/old/f2", .data = "evil");
			ADD(&t, .name = "d/e/old", .data = "a file"); /* removes the directory */
			ADD_DIR(&t, .name = "d/e", .mode = 0777, .uid = 9);
			ADD_LINK(&t, "h", "d/e/f1");
		}
		atomic_store(&swapper.stop, false);
		assert_int_equal(pthread_create(&thread, NULL, swap, &swapper), 0);

		struct outcome out = write_layer("l", &t, (struct how){.tie = true, .disturbed = true});

		atomic_store(&swapper.stop, true);
		pthread_join(thread, NULL);
		good += out.code == 0;
		bad += out.code != 0;
		if (out.code)
			assert_true(out.err.message[0]);
		assert_true(tree_hash("canary") == before);
	}
	assert_true(swapper.swaps > 100 && good + bad > 1);
}

/* ---- a file system that cannot rename without replacing ---- */

static void renames_are_plain(void **state)
{
	struct bytes t = {0};
	struct lower_layer low = {.dirfd = open("low", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};

	if (!refuse_syscall(SYS_renameat2, *(int *)*state)) /* qemu-user */
		skip();
	ADD(&t, .name = "f", .data = "f");
	ADD(&t, .name = "over/x", .data = "x");
	ADD_LINK(&t, "over", "f");
	/* bin → usr/bin below: the whiteout gives way to the file, the directories merge */
	ADD(&t, .name = "bin/tool", .data = "tool");
	ADD(&t, .name = "bin/both/a", .data = "a");
	ADD(&t, .name = "bin/.wh.w");
	ADD(&t, .name = "usr/bin/both/b", .data = "b");
	ADD(&t, .name = "usr/bin/w", .data = "w");
	WRITE_OK("l", &t, .tie = true, .lowers = &low, .lower_count = 1);
	close(low.dirfd);
	assert_int_equal(stat_of("l/over").st_nlink, 2);
	assert_true(has_content("l/usr/bin/tool", "tool") && has_content("l/usr/bin/both/a", "a"));
	assert_true(has_content("l/usr/bin/both/b", "b") && has_content("l/usr/bin/w", "w") && !exists("l/bin"));
	ADD(&t, .name = "bin/f", .data = "1");
	ADD(&t, .name = "usr/bin/f", .data = "2");
	low.dirfd = open("low", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	WRITE_FAILS("m", &t, CPULL_ERR_UNSUPPORTED, .tie = true, .lowers = &low, .lower_count = 1);
	close(low.dirfd);
}

static void renaming_without_a_flag(void **state)
{
	static int answers[] = {EINVAL, ENOSYS};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
		assert_int_equal(system("rm -rf l m low && mkdir -p low/usr/bin && ln -s usr/bin low/bin"), 0);
		in_child(renames_are_plain, &answers[i]);
	}
}

/* ---- order ---- */

static uint64_t written_in_order(const struct item *items, const unsigned *order, size_t count, const char *name,
				 const struct lower_layer *lowers)
{
	struct bytes t = {0};

	for (size_t i = 0; i < count; i++)
		tar_item(&t, items[order[i]]);
	WRITE_OK(name, &t, .tie = true, .lowers = lowers, .lower_count = 1);

	uint64_t hash = tree_hash(name);

	discard_layer(name);
	return hash;
}

/* One tree for all orders of what the specification lets come in any. */
static void entries_in_any_order(void **state)
{
	static const struct item items[] = {
		{.type = '5', .name = "d", .mode = 0711, .uid = 3},
		{.name = "d/f", .data = "f"},
		{.name = "d/sub/g", .data = "g"},
		{.name = "d/.wh.gone"},
		{.name = "d/sub/.wh.gone"},
		{.type = '5', .name = "o", .mode = 0700},
		{.name = "o/.wh..wh..opq"},
		{.name = "o/new", .data = "n"},
		{.name = "o/.wh.old"},
		{.name = "o/deep/er/x", .data = "x"},
		{.name = "o/deep/.wh.y"},
		{.name = ".wh.r"},
		{.name = "r/new", .data = "r"},
		{.name = ".wh.file"},
		{.name = ".wh.kept"},
		{.name = "kept", .data = "kept"},
		{.name = "none/.wh.nothing"},
		{.name = "implicit/h", .data = "h"},
		{.name = "bin/tool", .data = "tool"},
		{.name = "usr/bin/other", .data = "other"},
		{.name = "bin/.wh.old"},
		{.type = '1', .name = "usr/copy", .link = "low"},
	};
	unsigned order[ARRAY_LEN(items)];
	uint32_t random = 7;
	struct bytes t = {0};

	(void)state;
	ADD(&t, .name = "d/gone", .data = "x");
	ADD(&t, .name = "d/sub/gone", .data = "x");
	ADD(&t, .name = "o/old", .data = "x");
	ADD(&t, .name = "o/deep/y", .data = "x");
	ADD(&t, .name = "r/old", .data = "x");
	ADD(&t, .name = "file", .data = "x");
	ADD(&t, .name = "low", .data = "low");
	ADD_DIR(&t, .name = "implicit", .mode = 0750, .uid = 6, .mtime = 5);
	ADD(&t, .name = "usr/bin/old", .data = "x");
	ADD_SYMLINK(&t, "bin", "usr/bin");
	WRITE_OK("low", &t, .tie = true);

	struct lower low = open_lower("low");
	uint64_t want = 0;

	for (unsigned round = 0; round < 300; round++) {
		char name[16];

		for (unsigned i = 0; i < ARRAY_LEN(order); i++)
			order[i] = round == 1 ? (unsigned)ARRAY_LEN(order) - 1 - i : i;
		for (size_t i = ARRAY_LEN(order); round > 1 && i-- > 1;) {
			random = random * 1664525u + 1013904223u;

			size_t k = (random >> 8) % (i + 1);
			unsigned one = order[i];

			order[i] = order[k];
			order[k] = one;
		}
		snprintf(name, sizeof(name), "l%u", round);

		uint64_t got = written_in_order(items, order, ARRAY_LEN(items), name, &low.layer);

		if (round == 0)
			want = got;
		if (got != want)
			print_error("round %u differs\n", round);
		assert_true(got == want);
	}
	close_lower(&low);
}

#define T(f) cmocka_unit_test_setup(f, fresh)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(few_descriptors_are_enough), T(the_cache_gives_way), T(no_space_is_said_so), T(no_inodes_is_said_so),
		T(file_size_limit), T(without_a_working_directory), T(in_a_user_namespace),
		T(in_a_user_namespace_without_nodes), T(without_attributes), T(hard_links_refused),
		T(renaming_without_a_flag),
		T(directories_swapped_for_links), T(entries_in_any_order),
	};

	if (!own_namespace())
		return 0;
	if (!begin_at(base))
		return 1;

	int failed = cmocka_run_group_tests_name("layer_writer on odd hosts", tests, NULL, NULL);
	const struct CMUnitTest images[] = {T(few_descriptors_are_enough), T(no_space_is_said_so), T(file_size_limit),
					    T(entries_in_any_order)};

	fixture_images = true;
	failed += cmocka_run_group_tests_name("layers as images on odd hosts", images, NULL, NULL);
	fixture_images = false;

	const struct CMUnitTest walking[] = {T(directories_swapped_for_links), T(the_cache_gives_way)};

	if (refuse_syscall(SYS_openat2, EPERM))
		failed += cmocka_run_group_tests_name("without openat2", walking, NULL, NULL);
	end_at(base);
	return failed;
}
