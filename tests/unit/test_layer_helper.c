/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/file_jobs by way of the layer writer: with a second thread for small files everything is as with one, the
 * last entry of a name wins, the first error in the archive's order is told, and nothing stays open or held.
 */
#include "layer_fixture.h"

#include "tests/tree_hash.h"

#define FILES 3000u

static char base[] = "/tmp/layer-helper-XXXXXX";

static int fresh(void **state)
{
	(void)state;
	return fresh_place(base);
}

static void copy_of(struct bytes *to, const struct bytes *from)
{
	assert_int_equal(bytes_append(to, from->data, from->len, SIZE_MAX / 2), 0);
}

/* Writes the archive by one thread and by two, and wants the same. Consumes it. Returns what two threads gave, in
 * "2". */
static struct outcome same_with_two(struct bytes *tar, size_t chunk_bytes)
{
	struct bytes again = {0};
	unsigned fds = count_fds();

	assert_int_equal(system("rm -rf 1 2"), 0);
	copy_of(&again, tar);

	const struct how alone = {.helper = FILE_HELPER_NEVER, .chunk_bytes = chunk_bytes};
	const struct how helped = {.helper = FILE_HELPER_FIRST, .chunk_bytes = chunk_bytes};
	struct outcome one = write_layer("1", tar, alone), two = write_layer("2", &again, helped);

	assert_int_equal(one.code, two.code);
	assert_string_equal(one.err.message, two.err.message);
	assert_int_equal(one.stats.helper.files, 0);
	assert_int_equal(one.stats.entries, two.stats.entries);
	assert_int_equal(one.stats.file_bytes, two.stats.file_bytes);
	assert_int_equal(one.loose, two.loose);
	if (!one.code)
		assert_true(tree_hash("1") == tree_hash("2"));
	assert_int_equal(count_fds(), fds);
	return two;
}

/* ---- many files ---- */

/* Sizes on both sides of what a job may have, attributes that need every call. */
static struct bytes many_files(void)
{
	struct bytes t = {0};
	char name[64], *data = malloc(200000);

	assert_non_null(data);
	for (size_t i = 0; i < 200000; i++)
		data[i] = (char)(i * 2654435761u >> 13);
	for (unsigned i = 0; i < FILES; i++) {
		static const unsigned modes[] = {0644, 04755, 0600, 02711, 0444};
		size_t len = i % 97 == 0 ? 60000 + i * 5 : i % 5 == 0 ? 0 : i * 7 % 4000;

		snprintf(name, sizeof(name), "d%u/e%u/file-%u", i / 100, i / 20, i);
		tar_item(&t, (struct item){.name = name, .data = len ? data + i : NULL, .len = len, .uid = i % 3,
					   .gid = i % 2, .mode = modes[i % ARRAY_LEN(modes)],
					   .mtime = 1000000000 + (long)i});
	}
	free(data);
	return t;
}

static void trees_are_the_same(void **state)
{
	/* headers, data and padding are cut everywhere */
	static const size_t chunks[] = {65536, 262144, 4096, 1000};
	uint64_t helped = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(chunks); i++) {
		struct bytes t = many_files();
		struct outcome out = same_with_two(&t, chunks[i]);

		assert_int_equal(out.code, 0);
		helped += out.stats.helper.files;
	}
	/* however busy the machine is */
	assert_true(helped > 0);
}

static void started_when_it_pays(void **state)
{
	struct bytes t = many_files(), again = many_files();

	(void)state;
	struct outcome out = WRITE_OK("auto", &t);

	/* whether it does is for the machine to say */
	assert_true(out.stats.helper.files <= FILES);
	WRITE_OK("never", &again, .helper = FILE_HELPER_NEVER);
	assert_true(tree_hash("auto") == tree_hash("never"));
}

/* ---- what depends on the order ---- */

static void last_entry_wins(void **state)
{
	struct bytes t = {0};

	(void)state;
	for (unsigned i = 0; i < 200; i++) {
		char f[32], g[32], w[32], under[40];

		snprintf(f, sizeof(f), "d/%u", i);
		snprintf(g, sizeof(g), "d/%u-other", i);
		snprintf(w, sizeof(w), "d/.wh.%u", i);
		snprintf(under, sizeof(under), "d/%u/under", i);
		ADD(&t, .name = f, .data = "first", .mode = 0600, .uid = 1);
		switch (i % 8) {
		case 0:
			ADD(&t, .name = f, .data = "second", .uid = 2);
			ADD(&t, .name = f, .data = "third", .mode = 04755);
			break;
		case 1:
			ADD_DIR(&t, .name = f, .mode = 0711);
			ADD(&t, .name = under, .data = "under");
			break;
		case 2:
			ADD_SYMLINK(&t, f, g);
			ADD(&t, .name = g, .data = "g");
			break;
		case 3: /* what the link's entry says is the last word on both names */
			ADD(&t, .type = '1', .name = g, .link = f, .mode = 0751, .uid = 7, .gid = 8, .mtime = 77);
			break;
		case 4: /* hides what lies below, not this */
			ADD(&t, .name = w);
			break;
		case 5:
			ADD(&t, .name = w);
			ADD_DIR(&t, .name = f);
			ADD(&t, .name = under);
			break;
		case 6:
			ADD_DIR(&t, .name = g);
			ADD(&t, .name = g, .data = "no directory");
			break;
		default: /* replaces a name while the other is at work */
			ADD(&t, .name = g, .data = "g", .mtime = 5);
			ADD_LINK(&t, f, g);
			break;
		}
	}
	struct outcome out = same_with_two(&t, 0);

	assert_int_equal(out.code, 0);
	assert_true(has_content("2/d/0", "third"));
	CHECK_STAT("2/d/0", 04755, 0, 0);
	CHECK_STAT("2/d/1", 0711, 0, 0);
	assert_true(has_content("2/d/1/under", "under") && links_to("2/d/2", "d/2-other"));
	CHECK_STAT("2/d/3", 0751, 7, 8);
	assert_int_equal(stat_of("2/d/3").st_mtime, 77);
	assert_int_equal(stat_of("2/d/3").st_nlink, 2);
	assert_true(has_content("2/d/4", "first") && is_opaque("2/d/5"));
	assert_true(has_content("2/d/6-other", "no directory") && has_content("2/d/7", "g"));
}

static void later_errors(void **state)
{
	static const struct item bad[] = {
		{.name = "d/../x"}, {.name = "f/under", .data = "x"}, {.type = '1', .name = "l", .link = "d"},
		{.name = "d/.wh."}, {.type = '2', .name = "s"},
	};
	char name[400];

	(void)state;
	for (size_t i = 0; i <= ARRAY_LEN(bad); i++) {
		struct bytes t = {0};

		ADD_DIR(&t, .name = "d");
		for (unsigned k = 0; k < 50; k++) {
			snprintf(name, sizeof(name), "d/%u", k);
			ADD(&t, .name = name, .data = "data");
		}
		ADD(&t, .name = "f", .data = "file");
		memset(name, 'n', sizeof(name));
		name[sizeof(name) - 1] = 0;
		tar_item(&t, i < ARRAY_LEN(bad) ? bad[i] : (struct item){.name = name, .data = "x"});

		struct outcome out = same_with_two(&t, 0);

		assert_true(out.code < 0);
		assert_non_null(strstr(out.err.message, "entry \""));
		assert_true(has_content("2/f", "file") && has_content("2/d/49", "data"));
	}
}

/* ---- errors in jobs ---- */

static char block[16384];

static void small_tmpfs(const char *at, const char *options)
{
	assert_true(mkdir(at, 0755) == 0 || errno == EEXIST);
	assert_int_equal(mount("tmpfs", at, "tmpfs", 0, options), 0);
}

static void no_room_in_a_job(void **state)
{
	(void)state;
	for (int round = 0; round < 20; round++) {
		struct bytes t = {0};
		char name[64], want[64];
		unsigned fds = count_fds();

		small_tmpfs("small", "size=400k");
		for (unsigned i = 0; i < 200; i++) {
			snprintf(name, sizeof(name), "d/file-%u", i);
			ADD(&t, .name = name, .data = block, .len = 4096);
		}
		struct outcome out = WRITE_FAILS("small/l", &t, CPULL_ERR_SPACE, .helper = FILE_HELPER_FIRST);

		assert_int_equal(out.err.sys_errno, ENOSPC);
		assert_int_equal(count_fds(), fds);
		/* the first that failed: all before it are whole */
		for (unsigned i = 0; i < 200; i++) {
			snprintf(name, sizeof(name), "small/l/d/file-%u", i);
			snprintf(want, sizeof(want), "entry \"d/file-%u\"", i);
			if (strstr(out.err.message, want)) {
				assert_true(i > 0);
				break;
			}
			assert_int_equal(stat_of(name).st_size, 4096);
			assert_int_equal(stat_of(name).st_mtime, MTIME);
		}
		assert_non_null(strstr(out.err.message, "writing its data"));
		assert_int_equal(umount2("small", 0), 0);
	}
}

/* The job's error is the one to tell, though the thread that makes the names sees the other one first. */
static void a_jobs_error_comes_first(void **state)
{
	(void)state;
	for (int round = 0; round < 20; round++) {
		struct bytes t = {0};

		small_tmpfs("small", "size=32k");
		ADD(&t, .name = "a", .data = "a");
		for (int i = 0; i < 3; i++)
			ADD(&t, .name = i == 0 ? "b0" : i == 1 ? "b1" : "b2", .data = block, .len = sizeof(block));
		if (round % 2)
			ADD(&t, .name = "../c", .data = "c");
		else
			ADD_LINK(&t, "c", "b2");
		struct outcome out = WRITE_FAILS("small/l", &t, CPULL_ERR_SPACE, .helper = FILE_HELPER_FIRST);

		assert_non_null(strstr(out.err.message, "entry \"b"));
		assert_null(strstr(out.err.message, "\"c\""));
		assert_int_equal(umount2("small", 0), 0);
	}
}

static void an_owner_that_is_none(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD(&t, .name = "fine", .data = "fine");
	ADD(&t, .name = "foreign", .data = "x", .uid = 5);
	struct outcome out = WRITE_FAILS("l", &t, CPULL_ERR_PERMISSION, .helper = FILE_HELPER_FIRST);

	assert_non_null(strstr(out.err.message, "entry \"foreign\""));
	assert_non_null(strstr(out.err.message, "5:0"));
	assert_true(has_content("l/fine", "fine"));
}

/* Given up in the midst of it: whatever was taken goes. */
static void given_up(void **state)
{
	(void)state;
	for (unsigned entries = 1; entries < 60; entries += 7) {
		struct bytes t = many_files();
		unsigned fds = count_fds();
		struct outcome out = WRITE_FAILS("l", &t, CPULL_ERR_LIMIT, .max_entries = entries,
						 .helper = FILE_HELPER_FIRST);

		assert_non_null(strstr(out.err.message, "entries"));
		assert_int_equal(count_fds(), fds);
		assert_int_equal(system("rm -rf l"), 0);
	}
	for (unsigned cut = 512; cut < 5000; cut += 500) {
		struct bytes t = many_files();
		unsigned fds = count_fds();

		t.len = cut;
		WRITE_FAILS("l", &t, CPULL_ERR_TAR, .truncated = true, .helper = FILE_HELPER_FIRST);
		assert_int_equal(count_fds(), fds);
		assert_int_equal(system("rm -rf l"), 0);
	}
}

/* ---- no helper to be had ---- */

static void without_help(const char *why, enum file_helper helper)
{
	struct bytes t = many_files(), again = many_files();
	struct outcome out = WRITE_OK("l", &t, .helper = helper);

	print_message("%s\n", why);
	assert_int_equal(out.stats.helper.files, 0);
	assert_int_equal(out.warnings, 0);
	WRITE_OK("never", &again, .helper = FILE_HELPER_NEVER);
	assert_true(tree_hash("l") == tree_hash("never"));
}

static void descriptors_are_scarce(void **state)
{
	const struct rlimit limit = {200, 200};

	(void)state;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	without_help("with 200 descriptors", FILE_HELPER_FIRST);
}

static void threads_are_refused(void **state)
{
	(void)state;
	if (!refuse_syscall(SYS_clone3, EAGAIN)) /* qemu-user */
		skip();
	without_help("without clone3", FILE_HELPER_FIRST);
}

static void one_cpu(void **state)
{
	cpu_set_t all, one;
	int cpu = 0;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	without_help("with one CPU", FILE_HELPER_AUTO);
}

/* Not before it has been seen that it pays. */
static void few_files(void **state)
{
	struct bytes t = {0};
	char name[32];

	(void)state;
	for (unsigned i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		ADD(&t, .name = name, .data = "data");
	}
	struct outcome out = WRITE_OK("l", &t);

	assert_int_equal(out.stats.helper.busy_ns + out.stats.helper.wait_ns, 0);
}

static void goes_on_without(void **state)
{
	(void)state;
	in_child(descriptors_are_scarce, NULL);
	assert_int_equal(system("rm -rf l never"), 0);
	in_child(threads_are_refused, NULL);
	assert_int_equal(system("rm -rf l never"), 0);
	in_child(one_cpu, NULL);
}

static void refuse_foreign_owner(void **state)
{
	(void)state;
	if (!refuse_syscall(SYS_fchown, EINVAL)) /* qemu-user */
		skip();
	an_owner_that_is_none(state);
}

static void owners(void **state)
{
	(void)state;
	in_child(refuse_foreign_owner, NULL);
}

#define T(f) cmocka_unit_test_setup(f, fresh)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(trees_are_the_same), T(started_when_it_pays), T(last_entry_wins), T(later_errors),
		T(no_room_in_a_job), T(a_jobs_error_comes_first), T(owners), T(given_up), T(goes_on_without),
		T(few_files),
	};

	if (!own_namespace())
		return 0;
	if (!begin_at(base))
		return 1;

	int failed = cmocka_run_group_tests_name("layer_helper", tests, NULL, NULL);

	end_at(base);
	return failed;
}
