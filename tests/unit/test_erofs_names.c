/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/erofs_names and erofs_xattr_sets: names are found, removed, moved and sorted like in an array; limits; what
 * they cost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/erofs_image.h"
#include "snapshot/erofs_names.h"
#include "snapshot/erofs_xattr_sets.h"

static struct erofs_names names;

static int begin(void **state)
{
	(void)state;
	return erofs_names_init(&names, NULL);
}

static int done(void **state)
{
	(void)state;
	erofs_names_free(&names);
	return 0;
}

static uint32_t add(uint32_t dir, const char *text, uint32_t what)
{
	uint32_t name;

	assert_int_equal(erofs_names_add(&names, dir, text, EROFS_REGULAR, what, NULL, &name), 0);
	return name;
}

static uint32_t add_dir(uint32_t dir, const char *text)
{
	uint32_t out;

	assert_int_equal(erofs_names_add_dir(&names, dir, text, &out), 0);
	return out;
}

/* ---- one by one ---- */

static void found_and_removed(void **state)
{
	uint32_t d = add_dir(EROFS_ROOT_DIR, "d"), e = add_dir(d, "e"), a = add(d, "a", 7), name;

	(void)state;
	assert_int_equal(erofs_names_find(&names, d, "a"), a);
	assert_int_equal(erofs_name_at(&names, a)->what, 7);
	assert_int_equal(erofs_names_find(&names, e, "a"), EROFS_NO_NAME);
	assert_int_equal(erofs_names_find(&names, d, "A"), EROFS_NO_NAME);
	assert_int_equal(erofs_names_find(&names, d, ""), EROFS_NO_NAME);
	assert_int_equal(erofs_names_add(&names, d, "a", EROFS_FIFO, 8, NULL, &name), 1);
	assert_int_equal(erofs_names_add_dir(&names, d, "a", &name), 1);
	erofs_names_remove(&names, a);
	assert_int_equal(erofs_names_find(&names, d, "a"), EROFS_NO_NAME);
	assert_int_equal(erofs_dir_at(&names, d)->count, 1);
	name = add(d, "a", 9);
	assert_true(name != a);
	assert_int_equal(erofs_name_at(&names, erofs_names_find(&names, d, "a"))->what, 9);
	/* nothing is made in a directory that is gone */
	erofs_names_remove(&names, erofs_dir_at(&names, e)->name);
	assert_int_equal(erofs_names_add(&names, e, "x", EROFS_FIFO, 8, NULL, &name), -ENOENT);
	assert_int_equal(erofs_names_add_dir(&names, e, "x", &name), -ENOENT);
}

static void moved(void **state)
{
	uint32_t d = add_dir(EROFS_ROOT_DIR, "d"), e = add_dir(d, "e"), deep = add_dir(e, "deep"), link, name;
	char target[LIMIT_PATH_BYTES], path[64];

	(void)state;
	assert_int_equal(erofs_names_add(&names, e, "link", EROFS_SYMLINK, 5, "../where", &link), 0);
	add(e, "taken", 6);
	assert_int_equal(erofs_names_move(&names, link, e, "taken"), 1);
	assert_int_equal(erofs_names_move(&names, link, d, "moved"), 0);
	assert_int_equal(erofs_names_find(&names, e, "link"), EROFS_NO_NAME);
	name = erofs_names_find(&names, d, "moved");
	assert_int_equal(erofs_name_at(&names, name)->what, 5);
	erofs_names_target(&names, name, target);
	assert_string_equal(target, "../where");
	/* a directory keeps its number and what is in it */
	assert_int_equal(erofs_names_move(&names, erofs_dir_at(&names, e)->name, deep, "e"), -EINVAL);
	assert_int_equal(erofs_names_move(&names, erofs_dir_at(&names, e)->name, e, "e"), -EINVAL);
	assert_int_equal(erofs_names_move(&names, erofs_dir_at(&names, e)->name, EROFS_ROOT_DIR, "top"), 0);
	assert_string_equal(erofs_names_path(&names, deep, path, sizeof(path)), "top/deep");
	assert_string_equal(erofs_names_path(&names, deep, path, 6), "deep");
	assert_string_equal(erofs_names_path(&names, EROFS_ROOT_DIR, path, 6), "");
	assert_true(erofs_names_find(&names, e, "taken") != EROFS_NO_NAME);
	assert_int_equal(erofs_names_find(&names, d, "e"), EROFS_NO_NAME);
	assert_int_equal(erofs_dir_at(&names, d)->count, 1);
}

/* ---- many ---- */

static uint32_t random_next(uint32_t *random)
{
	*random = *random * 1664525u + 1013904223u;
	return *random >> 8;
}

/* Against an array of what is there. */
static void random_names(void **state)
{
	enum { DIRS = 8, NAMES = 3000 };
	static uint32_t there[DIRS][NAMES];
	uint32_t dirs[DIRS], random = 11, name;
	char text[16];

	(void)state;
	memset(there, 0, sizeof(there));
	for (uint32_t i = 0; i < DIRS; i++) {
		snprintf(text, sizeof(text), "dir%u", i);
		dirs[i] = add_dir(EROFS_ROOT_DIR, text);
	}
	for (unsigned round = 0; round < 200000; round++) {
		uint32_t d = random_next(&random) % DIRS, n = random_next(&random) % NAMES, *at = &there[d][n];

		snprintf(text, sizeof(text), "%u", n);
		name = erofs_names_find(&names, dirs[d], text);
		assert_int_equal(name, *at);
		if (!*at) {
			*at = add(dirs[d], text, n + 1);
		} else if (random_next(&random) % 3) {
			erofs_names_remove(&names, *at);
			*at = 0;
		} else {
			uint32_t to = random_next(&random) % DIRS;
			int rc = erofs_names_move(&names, *at, dirs[to], text);

			assert_int_equal(rc, there[to][n] != 0);
			if (rc == 0) {
				*at = 0;
				there[to][n] = erofs_names_find(&names, dirs[to], text);
			}
		}
	}
	for (uint32_t d = 0; d < DIRS; d++) {
		uint32_t count = 0, seen = 0;

		for (uint32_t n = 0; n < NAMES; n++)
			count += there[d][n] != 0;
		assert_int_equal(erofs_dir_at(&names, dirs[d])->count, count);
		for (uint32_t i = erofs_names_first(&names, dirs[d]); i; i = erofs_names_next(&names, i)) {
			assert_int_equal(there[d][erofs_name_at(&names, i)->what - 1], i);
			seen++;
		}
		assert_int_equal(seen, count);
	}
}

static void check_sorted(uint32_t dir, uint32_t want)
{
	const struct erofs_name *before = NULL;
	uint32_t count = 0;

	erofs_names_sort(&names, dir);
	for (uint32_t i = erofs_names_first(&names, dir); i; i = erofs_names_next(&names, i)) {
		const struct erofs_name *name = erofs_name_at(&names, i);

		if (before)
			assert_true(erofs_name_compare(erofs_name_text(&names, before), before->len,
						       erofs_name_text(&names, name), name->len) < 0);
		before = name;
		count++;
	}
	assert_int_equal(count, want);
	assert_int_equal(erofs_dir_at(&names, dir)->count, want);
}

/* In order, backwards, at random, in runs, with removed ones, by bytes and not by signed characters. */
static void sorted(void **state)
{
	uint32_t random = 3;
	char text[32];

	(void)state;
	for (uint32_t size = 0; size < 200; size += size < 20 ? 1 : 37) {
		for (unsigned way = 0; way < 6; way++) {
			snprintf(text, sizeof(text), "%u.%u", size, way);

			uint32_t dir = add_dir(EROFS_ROOT_DIR, text), gone = 0;

			for (uint32_t i = 0; i < size; i++) {
				uint32_t n = way == 0	? i
					     : way == 1 ? size - i
					     : way == 2 ? random_next(&random)
					     : way == 3 ? i % 7 * 1000 + i
							: (i ^ 5) * 977;
				uint32_t name;

				if (way == 5)
					snprintf(text, sizeof(text), "%c%c", (int)(1 + n % 46), (int)(i + 50));
				else
					snprintf(text, sizeof(text), way == 2 ? "%x" : "%06u", n);
				if (erofs_names_find(&names, dir, text) != EROFS_NO_NAME) {
					gone++;
					continue;
				}
				name = add(dir, text, i);
				if (way == 4 && i % 3 == 0) {
					erofs_names_remove(&names, name);
					gone++;
				}
			}
			check_sorted(dir, size - gone);
			check_sorted(dir, size - gone);
		}
	}
}

/* ---- what it costs ---- */

static size_t cost(uint32_t count, size_t *text_bytes)
{
	uint32_t dir = add_dir(EROFS_ROOT_DIR, "directory");
	char text[64];

	*text_bytes = 0;
	for (uint32_t i = 0; i < count; i++) {
		*text_bytes += (size_t)snprintf(text, sizeof(text), "package-file-%u.js", i);
		add(dir, text, i);
	}
	return erofs_names_bytes(&names);
}

/* What is begun of a piece of each kind, and of the lists of pieces. */
#define BEGUN_BYTES (size_t)(4096 * 20 + 1024 * 48 + (256 << 10) + 8192)

static void a_name_costs_what_is_said(void **state)
{
	/* just before the table is made anew, just after, and in between */
	static const uint32_t counts[] = {98304 - 2, 98304 + 10, 150000};

	for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
		size_t text, bytes = cost(counts[i], &text);

		assert_true(bytes <= (size_t)counts[i] * 31 + text + text / 1000 + BEGUN_BYTES);
		done(state);
		begin(state);
	}
	/* removed ones do not make the table larger */
	for (unsigned i = 0; i < 300000; i++)
		erofs_names_remove(&names, add(EROFS_ROOT_DIR, i % 2 ? "name" : "other", i));
	assert_true(names.table_cap <= 1024);
}

/* ---- limits ---- */

static void limits(void **state)
{
	static const struct erofs_names_limits few = {.names = 5, .dirs = 2, .text_bytes = 20, .target_bytes = 8};
	char longest[LIMIT_NAME_BYTES + 2];
	uint32_t name, dir;

	(void)state;
	memset(longest, 'x', sizeof(longest));
	longest[LIMIT_NAME_BYTES + 1] = 0;
	assert_int_equal(erofs_names_add(&names, EROFS_ROOT_DIR, longest, EROFS_FIFO, 1, NULL, &name), -ENAMETOOLONG);
	longest[LIMIT_NAME_BYTES] = 0;
	add(EROFS_ROOT_DIR, longest, 1);
	assert_true(names.limits.names == LIMIT_EROFS_NAMES && names.limits.dirs == LIMIT_EROFS_DIRS &&
		    names.limits.text_bytes == LIMIT_EROFS_NAME_BYTES &&
		    names.limits.target_bytes == LIMIT_EROFS_TARGET_BYTES);
	erofs_names_free(&names);
	assert_int_equal(erofs_names_init(&names, &few), 0);
	dir = add_dir(EROFS_ROOT_DIR, "1");
	add_dir(dir, "2");
	assert_int_equal(erofs_names_add_dir(&names, dir, "3", &name), -EFBIG);
	assert_int_equal(erofs_names_find(&names, dir, "3"), EROFS_NO_NAME);
	assert_int_equal(erofs_names_add(&names, dir, "link", EROFS_SYMLINK, 1, "123456789", &name), -EFBIG);
	assert_int_equal(erofs_names_add(&names, dir, "link", EROFS_SYMLINK, 1, "12345678", &name), 0);
	assert_int_equal(erofs_names_add(&names, dir, "more than 20 bytes", EROFS_FIFO, 1, NULL, &name), -EFBIG);
	add(dir, "last", 1);
	assert_int_equal(erofs_names_add(&names, dir, "x", EROFS_FIFO, 1, NULL, &name), -EFBIG);
	assert_int_equal(erofs_dir_at(&names, dir)->count, 3);
}

/* ---- sets of attributes ---- */

static void sets_of_attributes(void **state)
{
	static const struct tar_xattr a[] = {{"user.a", (const uint8_t *)"1\0002", 3},
					     {"user.b", (const uint8_t *)"", 0}};
	static uint8_t large[1u << 20];
	struct erofs_xattr_sets sets = {.seed = 5};
	struct tar_xattr got[LIMIT_XATTRS], many[LIMIT_XATTRS];
	struct cpull_error err = {0};
	uint32_t one, two, same, none = 9;

	(void)state;
	assert_int_equal(erofs_xattr_sets_add(&sets, a, 0, &none, &err), 0);
	assert_int_equal(none, EROFS_NO_XATTRS);
	assert_int_equal(erofs_xattr_sets_get(&sets, none, got), 0);
	assert_int_equal(erofs_xattr_sets_add(&sets, a, 2, &one, &err), 0);
	assert_int_equal(erofs_xattr_sets_add(&sets, a, 1, &two, &err), 0);
	assert_int_equal(erofs_xattr_sets_add(&sets, a, 2, &same, &err), 0);
	assert_true(one == same && one != two && one != EROFS_NO_XATTRS);
	assert_int_equal(erofs_xattr_sets_get(&sets, one, got), 2);
	assert_string_equal(got[0].name, "user.a");
	assert_int_equal(got[0].len, 3);
	assert_memory_equal(got[0].value, "1\0002", 3);
	assert_string_equal(got[1].name, "user.b");
	assert_int_equal(got[1].len, 0);
	/* out of the sets themselves, which move */
	for (size_t i = 0; i < LIMIT_XATTRS; i++)
		many[i] = got[0];
	assert_int_equal(erofs_xattr_sets_add(&sets, many, LIMIT_XATTRS, &two, &err), 0);
	assert_int_equal(erofs_xattr_sets_get(&sets, two, got), LIMIT_XATTRS);
	assert_string_equal(got[LIMIT_XATTRS - 1].name, "user.a");
	for (unsigned i = 0; i < LIMIT_EROFS_DIR_XATTR_BYTES / sizeof(large); i++) {
		const struct tar_xattr x = {"user.large", large, sizeof(large)};
		int rc;

		large[0] = (uint8_t)i;
		rc = erofs_xattr_sets_add(&sets, &x, 1, &two, &err);
		assert_int_equal(rc, i == LIMIT_EROFS_DIR_XATTR_BYTES / sizeof(large) - 1 ? CPULL_ERR_LIMIT : 0);
	}
	assert_non_null(strstr(err.message, "--snapshot overlay"));
	erofs_xattr_sets_free(&sets);
}

#define T(f) cmocka_unit_test_setup_teardown(f, begin, done)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(found_and_removed), T(moved), T(random_names), T(sorted), T(a_name_costs_what_is_said), T(limits),
		T(sets_of_attributes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
