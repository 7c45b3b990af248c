/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/overlay: stacks of every size and spelling, both ways to mount, and what is refused. Runs as root in a mount
 * namespace of its own; a second round has the new mount API refused by a seccomp filter.
 */
#include "layer_fixture.h"

#include <pthread.h>
#include <sys/resource.h>

#include "engine/base/limits.h"
#include "snapshot/overlay.h"

static char base[] = "/tmp/overlay-XXXXXX";
static char place[64];
static char target[96];

static int fresh(void **state)
{
	(void)state;
	if (fresh_place(base) || !getcwd(place, sizeof(place)) || mkdir("view", 0755))
		return -1;
	snprintf(target, sizeof(target), "%s/view", place);
	return 0;
}

static int done(void **state)
{
	(void)state;
	while (umount2("view", MNT_DETACH) == 0)
		;
	return 0;
}

static void write_file(const char *path, const char *text)
{
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

static char *absolute(const char *name)
{
	char *out = format_string("%s/%s", place, name);

	assert_non_null(out);
	return out;
}

/* A layer directory with one file of its own and one that all layers have. */
static char *make_layer(const char *name)
{
	char path[4096];

	assert_int_equal(mkdir(name, 0755), 0);
	snprintf(path, sizeof(path), "%s/f-%.100s", name, strrchr(name, '/') ? strrchr(name, '/') + 1 : name);
	write_file(path, name);
	snprintf(path, sizeof(path), "%s/same", name);
	write_file(path, name);
	return absolute(name);
}

static int mount_it(char **lowers, size_t count, const char *upper, const char *work, struct cpull_error *err)
{
	struct overlay_mount m = {.lowers = (const char *const *)lowers, .lower_count = count, .upper = upper,
				  .work = work, .target = target};

	return overlay_mount(&m, NULL, err);
}

static void must_mount(char **lowers, size_t count, const char *upper, const char *work)
{
	struct cpull_error err;
	int rc = mount_it(lowers, count, upper, work, &err);

	if (rc)
		print_error("%s\n", err.message);
	assert_int_equal(rc, 0);
}

static void free_all(char **paths, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(paths[i]);
}

static void topmost_wins(void **state)
{
	char *lowers[] = {make_layer("a"), make_layer("b:with,odd\\ name"), make_layer("c")};

	(void)state;
	assert_false(overlay_is_mounted(target));
	must_mount(lowers, 3, NULL, NULL);
	assert_true(overlay_is_mounted(target));
	assert_true(overlay_is_mounted("view/.")); /* any spelling */
	assert_false(overlay_is_mounted(place));
	assert_true(has_content("view/same", "c"));
	assert_true(exists("view/f-a") && exists("view/f-c"));
	assert_int_equal(open("view/new", O_WRONLY | O_CREAT, 0600), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(overlay_unmount(target, NULL), 0);
	assert_false(overlay_is_mounted(target));
	free_all(lowers, 3);
}

/* A, B, A: as if A had been applied last again. */
static void repeated_layers_count_once(void **state)
{
	char *a = make_layer("a"), *b = make_layer("b"), *lowers[] = {a, b, a, a};

	(void)state;
	must_mount(lowers, 4, NULL, NULL);
	assert_true(has_content("view/same", "a") && exists("view/f-b"));
	assert_int_equal(overlay_unmount(target, NULL), 0);
	/* all the same: one is left, and bound */
	lowers[1] = a;
	must_mount(lowers, 4, NULL, NULL);
	assert_true(has_content("view/same", "a") && !exists("view/f-b"));
	free(a);
	free(b);
}

static void one_layer_is_bound_read_only(void **state)
{
	char *lowers[] = {make_layer("a")};

	(void)state;
	must_mount(lowers, 1, NULL, NULL);
	assert_true(has_content("view/same", "a"));
	assert_int_equal(open("view/new", O_WRONLY | O_CREAT, 0600), -1);
	assert_int_equal(errno, EROFS);
	write_file("a/new", "the layer itself is as before");
	free_all(lowers, 1);
}

static void upper_takes_the_topmost_root(void **state)
{
	char *lowers[] = {make_layer("a"), make_layer("b")}, *upper = absolute("u"), *work = absolute("w");
	char value[8];

	(void)state;
	assert_int_equal(mkdir("u", 0700) | mkdir("w", 0700), 0);
	assert_int_equal(chown("b", 5, 6) | chmod("b", 02751), 0);
	assert_int_equal(setxattr("b", "trusted.note", "b", 1, 0), 0);
	assert_int_equal(setxattr("b", "trusted.overlay.opaque", "y", 1, 0), 0);
	const struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};

	assert_int_equal(utimensat(AT_FDCWD, "b", times, 0), 0);
	must_mount(lowers, 2, upper, work);
	CHECK_STAT("view", 02751, 5, 6);
	assert_int_equal(stat_of("view").st_mtime, 1000);
	assert_int_equal(lgetxattr("u", "trusted.note", value, sizeof(value)), 1);
	assert_int_equal(lgetxattr("u", "trusted.overlay.opaque", value, sizeof(value)), -1);
	write_file("view/new", "new");
	assert_true(has_content("u/new", "new") && !exists("b/new"));
	assert_int_equal(overlay_unmount(target, NULL), 0);
	/* one lower and an upper are an overlay */
	assert_int_equal(system("rm -r u w && mkdir u w"), 0);
	must_mount(lowers, 1, upper, work);
	write_file("view/same", "changed");
	assert_true(has_content("a/same", "a"));
	free_all(lowers, 2);
	free(upper);
	free(work);
}

static void long_paths(void **state)
{
	char *lowers[3];
	char name[700];

	(void)state;
	for (int i = 0; i < 3; i++) {
		int n = snprintf(name, sizeof(name), "%0200d", i);

		assert_int_equal(mkdir(name, 0755), 0);
		snprintf(name + n, sizeof(name) - (size_t)n, "/%0200d", i);
		lowers[i] = make_layer(name);
		assert_true(strlen(lowers[i]) > 255);
	}
	char *upper = format_string("%s-upper", lowers[2]), *work = format_string("%s-work", lowers[2]);

	must_mount(lowers, 3, NULL, NULL);
	assert_true(has_content("view/same", name));
	assert_int_equal(overlay_unmount(target, NULL), 0);
	assert_int_equal(mkdir(upper, 0700) | mkdir(work, 0700), 0);
	must_mount(lowers, 3, upper, work);
	write_file("view/new", "new");
	free_all(lowers, 3);
	free(upper);
	free(work);
}

/* The kernel takes backslashes out of the text of upperdir and workdir, and a name without them may be there, too. */
static void odd_upper_and_work(void **state)
{
	static const char *const names[] = {"u\\p", "u\\\\p", "\\", "u:p,=\\,x"};
	char *lowers[] = {make_layer("a"), make_layer("b\\")};

	(void)state;
	assert_int_equal(mkdir("up", 0700), 0);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char *upper = absolute(names[i]), *work = format_string("%s-work", upper);
		char made[300];

		assert_int_equal(mkdir(upper, 0700) | mkdir(work, 0700), 0);
		must_mount(lowers, 2, upper, work);
		write_file("view/new", names[i]);
		snprintf(made, sizeof(made), "%s/new", names[i]);
		assert_true(has_content(made, names[i]) && !exists("up/new"));
		assert_int_equal(overlay_unmount(target, NULL), 0);
		free(upper);
		free(work);
	}
	free_all(lowers, 2);
}

static void five_hundred_layers(void **state)
{
	static char *lowers[LIMIT_LAYERS + 1];
	struct rlimit files, few = {.rlim_cur = 0};
	struct cpull_error err;
	char name[32];

	(void)state;
	for (size_t i = 0; i <= LIMIT_LAYERS; i++) {
		snprintf(name, sizeof(name), "layer-%zu", i);
		lowers[i] = make_layer(name);
	}
	must_mount(lowers, LIMIT_LAYERS, NULL, NULL);
	assert_true(exists("view/f-layer-0") && has_content("view/same", "layer-499"));
	assert_int_equal(overlay_unmount(target, NULL), 0);
	assert_int_equal(mount_it(lowers, LIMIT_LAYERS + 1, NULL, NULL, &err), CPULL_ERR_LIMIT);
	assert_non_null(strstr(err.message, "501"));
	/* few descriptors are no reason to fail as long as the kernel takes paths one by one */
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	few = (struct rlimit){.rlim_cur = 48, .rlim_max = files.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	int rc = mount_it(lowers, 130, NULL, NULL, &err);

	assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
	/* the second round, kernels before 6.8 and qemu-user have only the way that needs descriptors */
	if (*state || rc)
		assert_int_equal(err.sys_errno, EMFILE);
	free_all(lowers, LIMIT_LAYERS + 1);
}

static void refusals(void **state)
{
	char *a = make_layer("a"), *b = make_layer("b"), *missing = absolute("missing"), *in_a = absolute("a/in");
	char *lowers[] = {a, b}, *with_missing[] = {a, missing}, *nested[] = {a, in_a};
	struct cpull_error err;
	struct overlay_mount m = {.lowers = (const char *const *)lowers, .lower_count = 2};

	(void)state;
	assert_int_equal(mount_it(lowers, 0, NULL, NULL, &err), CPULL_ERR_USAGE);
	assert_int_equal(mount_it(lowers, 2, b, NULL, &err), CPULL_ERR_USAGE);
	assert_int_equal(mount_it(lowers, 2, NULL, b, &err), CPULL_ERR_USAGE);
	assert_int_equal(mount_it(with_missing, 2, NULL, NULL, &err), CPULL_ERR_STORAGE);
	assert_int_equal(err.sys_errno, ENOENT);
	assert_int_equal(mkdir("a/in", 0755), 0);
	assert_int_equal(mount_it(nested, 2, NULL, NULL, &err), CPULL_ERR_STORAGE);
	assert_non_null(strstr(err.message, target));
	m.target = missing;
	assert_int_equal(overlay_mount(&m, NULL, &err), CPULL_ERR_NOT_FOUND);
	assert_int_equal(symlink("view", "link"), 0);
	char *link = absolute("link"), *file = absolute("a/same");

	m.target = link;
	assert_int_equal(overlay_mount(&m, NULL, &err), CPULL_ERR_STORAGE);
	m.target = file;
	assert_int_equal(overlay_mount(&m, NULL, &err), CPULL_ERR_STORAGE);
	assert_int_equal(overlay_unmount(target, &err), CPULL_ERR_USAGE);
	assert_int_equal(overlay_unmount(missing, &err), CPULL_ERR_NOT_FOUND);
	assert_false(overlay_is_mounted(target) || overlay_is_mounted(missing));
	must_mount(lowers, 2, NULL, NULL);
	int fd = open("view/same", O_RDONLY | O_CLOEXEC);

	assert_int_equal(overlay_unmount(target, &err), CPULL_ERR_USAGE);
	assert_int_equal(err.sys_errno, EBUSY);
	close(fd);
	assert_int_equal(overlay_unmount(target, &err), 0);
	free(a);
	free(b);
	free(missing);
	free(in_a);
	free(link);
	free(file);
}

static void odd_mount_points_are_found(void **state)
{
	static const char *names[] = {"with space", "tab\there", "new\nline", "back\\slash", "a#b", "\xff\xfe"};
	char *lowers[] = {make_layer("a"), make_layer("b")};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char *path = absolute(names[i]), *longer = format_string("%s/x", path);
		struct overlay_mount m = {.lowers = (const char *const *)lowers, .lower_count = 2, .target = path};

		assert_int_equal(mkdir(path, 0755), 0);
		assert_false(overlay_is_mounted(path));
		assert_int_equal(overlay_mount(&m, NULL, NULL), 0);
		assert_true(overlay_is_mounted(path) && !overlay_is_mounted(longer));
		assert_int_equal(overlay_unmount(path, NULL), 0);
		free(path);
		free(longer);
	}
	free_all(lowers, 2);
}

static void the_process_is_left_alone(void **state)
{
	char *lowers[] = {make_layer("a"), make_layer("b")};
	char before[4096], after[4096];
	unsigned fds = count_fds();

	(void)state;
	assert_non_null(getcwd(before, sizeof(before)));
	for (int i = 0; i < 3; i++) {
		must_mount(lowers, 2, NULL, NULL);
		assert_int_equal(overlay_unmount(target, NULL), 0);
	}
	assert_non_null(getcwd(after, sizeof(after)));
	assert_string_equal(before, after);
	assert_int_equal(count_fds(), fds);
	free_all(lowers, 2);
}

#define T(f) {#f, f, fresh, done, second}

static int run_group(const char *name, void *second)
{
	const struct CMUnitTest tests[] = {
		T(topmost_wins), T(repeated_layers_count_once), T(one_layer_is_bound_read_only),
		T(upper_takes_the_topmost_root), T(long_paths), T(odd_upper_and_work),
		T(five_hundred_layers), T(refusals),
		T(odd_mount_points_are_found), T(the_process_is_left_alone),
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
	failed += run_group("overlay", NULL);
	fresh_tmpfs(base);
	/* as a kernel before 6.8, and without open_tree */
	if (refuse_syscall(SYS_fsconfig, EINVAL) && refuse_syscall(SYS_open_tree, ENOSYS))
		failed += run_group("overlay by mount(2)", base);
	end_at(base);
	return failed;
}
