/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/loose_ends: what a layer takes over from those below it. Layers are made from tars, tied, stacked as an
 * overlay, and looked at through the mount.
 */
#include "layer_fixture.h"

#include "engine/base/limits.h"
#include "snapshot/overlay.h"

#define LAYERS_MAX 8

static char base[] = "/tmp/loose-ends-XXXXXX";
static char place[64];

/* The layers of one test: 0 is the lowest. */
static struct lower layers[LAYERS_MAX];
static size_t layer_count;

static int fresh(void **state)
{
	(void)state;
	layer_count = 0;
	return fresh_place(base) || !getcwd(place, sizeof(place)) || mkdir("view", 0755) ? -1 : 0;
}

static int done(void **state)
{
	(void)state;
	while (layer_count)
		close_lower(&layers[--layer_count]);
	umount2("view", MNT_DETACH);
	return 0;
}

/* The next layer, tied to all those below it. */
static struct outcome try_layer(struct bytes *tar)
{
	struct lower_layer lowers[LAYERS_MAX];
	char name[16];

	for (size_t i = 0; i < layer_count; i++)
		lowers[i] = layers[layer_count - 1 - i].layer;
	snprintf(name, sizeof(name), "l%zu", layer_count);
	struct outcome out =
	    write_layer(name, tar, (struct how){.tie = true, .lowers = lowers, .lower_count = layer_count});

	if (out.code)
		discard_layer(name);
	else
		layers[layer_count++] = open_lower(name);
	return out;
}

static void layer(struct bytes *tar)
{
	struct outcome out = try_layer(tar);

	if (out.code)
		print_error("%s\n", out.err.message);
	assert_int_equal(out.code, 0);
}

static void layer_fails(struct bytes *tar, int code)
{
	struct outcome out = try_layer(tar);

	if (out.code != code)
		print_error("%d %s\n", out.code, out.err.message);
	assert_int_equal(out.code, code);
	assert_true(out.err.message[0]);
}

static void view(void)
{
	char paths[LAYERS_MAX + 1][96], target[96];
	const char *lowers[LAYERS_MAX + 1];
	struct cpull_error err;

	for (size_t i = 0; i < layer_count; i++) {
		snprintf(paths[i], sizeof(paths[i]), "%s/l%zu", place, i);
		lowers[i] = paths[i];
	}
	snprintf(target, sizeof(target), "%s/view", place);
	struct overlay_mount m = {.lowers = lowers, .lower_count = layer_count, .target = target};
	int rc = overlay_mount(&m, NULL, &err);

	if (rc)
		print_error("%s\n", err.message);
	assert_int_equal(rc, 0);
}

static void implicit_directories_take_after_the_lower_ones(void **state)
{
	struct bytes t = {0};
	char value[8];

	(void)state;
	ADD_DIR(&t, .name = ".", .mode = 0750, .uid = 1, .mtime = 1000);
	ADD_DIR(&t, .name = "etc", .mode = 0711, .uid = 2, .gid = 3, .mtime = 2000);
	tar_xattr(&t, "user.note", "etc", 3);
	ADD_DIR(&t, .name = "etc/conf", .mode = 01770, .uid = 4, .mtime = 3000);
	ADD_DIR(&t, .name = "gone", .mode = 0700);
	ADD_DIR(&t, .name = "cleared", .mode = 0700, .mtime = 4000);
	ADD_DIR(&t, .name = "cleared/sub", .mode = 0700);
	ADD(&t, .name = "file", .data = "x");
	layer(&t);
	ADD_DIR(&t, .name = "etc", .mode = 0701, .mtime = 2500);
	ADD(&t, .name = ".wh.gone");
	layer(&t);
	ADD(&t, .name = "etc/conf/new", .data = "new", .mtime = 77);
	ADD(&t, .name = "gone/new", .data = "new", .mtime = 77);
	ADD(&t, .name = "cleared/sub/new", .data = "new", .mtime = 77);
	ADD(&t, .name = "cleared/.wh..wh..opq");
	ADD(&t, .name = "file/new", .data = "new", .mtime = 77);
	layer(&t);
	view();
	CHECK_STAT("view", 0750, 1, 0);
	assert_int_equal(stat_of("view").st_mtime, 1000);
	CHECK_STAT("view/etc", 0701, 0, 0);
	assert_int_equal(stat_of("view/etc").st_mtime, 2500);
	CHECK_STAT("view/etc/conf", 01770, 4, 0);
	assert_int_equal(stat_of("view/etc/conf").st_mtime, 3000);
	assert_int_equal(lgetxattr("l2/etc/conf", "user.note", value, sizeof(value)), 3);
	/* a whiteout in between, an opaque parent, a file: nothing to take over */
	CHECK_STAT("view/gone", 0755, 0, 0);
	assert_int_equal(stat_of("view/gone").st_mtime, 77);
	CHECK_STAT("view/cleared", 0700, 0, 0);
	assert_int_equal(stat_of("view/cleared").st_mtime, 4000);
	CHECK_STAT("view/cleared/sub", 0755, 0, 0);
	CHECK_STAT("view/file", 0755, 0, 0);
	assert_true(has_content("view/file/new", "new"));
}

static void own_entries_are_kept(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD_DIR(&t, .name = "d", .mode = 0700, .uid = 9);
	ADD_DIR(&t, .name = "r", .mode = 0700, .uid = 9);
	layer(&t);
	ADD(&t, .name = "d/f");
	ADD_DIR(&t, .name = "d", .mode = 0555, .mtime = 5);
	ADD(&t, .name = "r/f");
	ADD(&t, .name = ".wh.r"); /* deleted and made anew */
	layer(&t);
	CHECK_STAT("l1/d", 0555, 0, 0);
	assert_int_equal(stat_of("l1/d").st_mtime, 5);
	CHECK_STAT("l1/r", 0755, 0, 0);
	assert_true(is_opaque("l1/r"));
}

static void without_lower_layers(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD(&t, .name = "a/f", .mtime = 5);
	ADD(&t, .name = "nope/sub/.wh.x");
	ADD(&t, .name = "nope2/.wh..wh..opq");
	layer(&t);
	CHECK_STAT("l0", 0755, 0, 0);
	CHECK_STAT("l0/a", 0755, 0, 0);
	assert_int_equal(stat_of("l0/a").st_mtime, 5);
	assert_false(exists("l0/nope") || exists("l0/nope2")); /* there is nothing to hide in it */
	ADD(&t, .name = "f", .data = "x");
	ADD_LINK(&t, "h", "missing");
	layer_fails(&t, CPULL_ERR_TAR);
}

static void content_follows_a_lower_symlink(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD_SYMLINK(&t, "bin", "usr/bin");
	ADD_SYMLINK(&t, "usr/lib64", "/usr/lib");
	ADD_DIR(&t, .name = "usr/bin", .mode = 0711, .uid = 5, .mtime = 1000);
	ADD(&t, .name = "usr/bin/old", .data = "old");
	ADD(&t, .name = "usr/bin/gone", .data = "gone");
	ADD(&t, .name = "usr/bin/replaced", .data = "1");
	ADD_DIR(&t, .name = "usr/lib/mod", .mode = 0700, .mtime = 2000);
	ADD_SYMLINK(&t, "dangling", "srv/data");
	ADD_SYMLINK(&t, "chain", "link2");
	ADD_SYMLINK(&t, "link2", "./usr/../bin");
	layer(&t);
	ADD(&t, .name = "bin/tool", .data = "tool");
	ADD(&t, .name = "bin/.wh.gone");
	ADD(&t, .name = "bin/replaced", .data = "2");
	ADD(&t, .name = "usr/bin/here", .data = "here");
	ADD(&t, .name = "usr/lib64/mod/a", .data = "a");
	ADD_DIR(&t, .name = "usr/lib64/own", .mode = 0710, .mtime = 3000);
	ADD(&t, .name = "usr/lib64/own/b", .data = "b");
	ADD(&t, .name = "dangling/c", .data = "c");
	ADD(&t, .name = "chain/d", .data = "d");
	ADD_LINK(&t, "bin/hard", "bin/tool");
	ADD_LINK(&t, "bin/hard2", "usr/bin/old");
	layer(&t);
	assert_false(exists("l1/bin") || exists("l1/chain") || exists("l1/usr/lib64") || exists("l1/dangling"));
	view();
	assert_true(links_to("view/bin", "usr/bin") && links_to("view/usr/lib64", "/usr/lib"));
	assert_true(has_content("view/usr/bin/tool", "tool") && has_content("view/usr/bin/here", "here") &&
		    has_content("view/usr/bin/old", "old") && has_content("view/usr/bin/replaced", "2") &&
		    has_content("view/usr/bin/d", "d") && has_content("view/usr/bin/hard2", "old"));
	assert_true(stat_of("l1/usr/bin/hard").st_ino == stat_of("l1/usr/bin/tool").st_ino);
	assert_false(exists("view/usr/bin/gone"));
	assert_true(has_content("view/usr/lib/mod/a", "a") && has_content("view/usr/lib/own/b", "b"));
	assert_true(has_content("view/srv/data/c", "c"));
	CHECK_STAT("view/usr/bin", 0711, 5, 0);
	assert_int_equal(stat_of("view/usr/bin").st_mtime, 1000);
	CHECK_STAT("view/usr/lib/mod", 0700, 0, 0);
	assert_int_equal(stat_of("view/usr/lib/mod").st_mtime, 2000);
	CHECK_STAT("view/usr/lib/own", 0710, 0, 0);
	assert_int_equal(stat_of("view/usr/lib/own").st_mtime, 3000);
}

static void symlinks_that_cannot_be_followed(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD_SYMLINK(&t, "loop", "loop");
	ADD_SYMLINK(&t, "bin", "usr/bin");
	ADD_SYMLINK(&t, "to-file", "file");
	ADD_SYMLINK(&t, "out", "../../../../..");
	ADD(&t, .name = "file", .data = "x");
	ADD_DIR(&t, .name = "usr/bin");
	layer(&t);
	/* the same name from two sides */
	ADD(&t, .name = "bin/tool", .data = "1");
	ADD(&t, .name = "usr/bin/tool", .data = "2");
	layer_fails(&t, CPULL_ERR_UNSUPPORTED);
	ADD(&t, .name = "loop/x", .data = "x");
	layer_fails(&t, CPULL_ERR_UNSUPPORTED);
	/* no directory at its end: ours is put in its place; out of the root is the root */
	ADD(&t, .name = "to-file/x", .data = "x");
	ADD(&t, .name = "out/y", .data = "y");
	/* a link of this layer back to the directory itself */
	ADD(&t, .name = "bin/own", .data = "own");
	ADD_SYMLINK(&t, "usr/bin", "../bin");
	layer(&t);
	assert_true(has_content("l1/to-file/x", "x") && has_content("l1/y", "y"));
	assert_true(has_content("l1/bin/own", "own"));
}

static void directories_merge(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD_SYMLINK(&t, "a", "b");
	ADD_DIR(&t, .name = "b/s/deep", .mode = 0700);
	ADD(&t, .name = "b/s/deep/hidden", .data = "x");
	layer(&t);
	ADD(&t, .name = "a/s/deep/one", .data = "1");
	ADD(&t, .name = "b/s/deep/two", .data = "2");
	ADD_DIR(&t, .name = "a/s", .mode = 0710, .mtime = 7);
	ADD(&t, .name = "a/s/deep/.wh..wh..opq");
	ADD(&t, .name = "b/s/deep/.wh.hidden");
	layer(&t);
	assert_false(exists("l1/a"));
	view();
	assert_true(has_content("view/b/s/deep/one", "1") && has_content("view/b/s/deep/two", "2"));
	assert_int_equal(count_names("view/b/s/deep"), 2);
	CHECK_STAT("view/b/s", 0710, 0, 0);
	assert_int_equal(stat_of("view/b/s").st_mtime, 7);
	CHECK_STAT("view/b/s/deep", 0700, 0, 0);
}

/* Found by comparing random stacks with what another program makes of them, layer upon layer in one tree. */
static void whiteouts_in_directories_of_their_own(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD(&t, .name = "c/f", .data = "f");
	ADD(&t, .name = "keep/f", .data = "f");
	layer(&t);
	/* the second whiteout takes the directory that the first one asked for */
	ADD(&t, .name = "c/d/.wh.x");
	ADD(&t, .name = ".wh.c");
	/* a directory that a whiteout asked for first, and then a file below it */
	ADD(&t, .name = "d/.wh.x");
	ADD(&t, .name = "d/e/f", .data = "f");
	/* nothing below has it: a ghost */
	ADD(&t, .name = "d/e/.wh.x");
	ADD(&t, .name = "keep/.wh.never");
	layer(&t);
	assert_true(is_whiteout("l1/c") && is_whiteout("l1/keep/never"));
	view();
	assert_false(exists("view/c"));
	assert_true(has_content("view/d/e/f", "f"));
	assert_int_equal(count_names("view/d"), 1);
	assert_int_equal(count_names("view/d/e"), 1);
	assert_int_equal(count_names("view/keep"), 1);
}

/* The same where every directory has its entry, so that nothing else makes the layer loose. */
static void whiteouts_in_directories_with_entries(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD_DIR(&t, .name = "./");
	ADD_DIR(&t, .name = "c");
	ADD(&t, .name = "c/f", .data = "f");
	layer(&t);
	ADD_DIR(&t, .name = "./");
	ADD(&t, .name = ".wh.never");
	ADD_DIR(&t, .name = "c", .mtime = 4);
	ADD(&t, .name = "c/.wh.f");
	ADD_DIR(&t, .name = "new", .mtime = 5);
	ADD(&t, .name = "new/.wh.x");
	ADD(&t, .name = "new/f", .data = "f");
	struct outcome out = try_layer(&t);

	assert_int_equal(out.code, 0);
	assert_true(out.loose);
	view();
	assert_int_equal(count_names("view"), 2);
	assert_int_equal(count_names("view/c"), 0);
	assert_int_equal(count_names("view/new"), 1);
	assert_int_equal(stat_of("view/new").st_mtime, 5);
}

/* A layer without others below it is mounted as it is. */
static void whiteouts_in_the_lowest_root(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD_DIR(&t, .name = "./");
	ADD(&t, .name = ".wh.never");
	ADD(&t, .name = "f", .data = "f");
	struct outcome out = try_layer(&t);

	assert_int_equal(out.code, 0);
	assert_true(out.loose);
	assert_int_equal(count_names("l0"), 1);
}

static void links_to_what_the_layer_whites_out(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD_SYMLINK(&t, "a", "d");
	ADD(&t, .name = "d", .data = "file");
	ADD_SYMLINK(&t, "gone", "nowhere");
	layer(&t);
	ADD(&t, .name = ".wh.d");
	ADD(&t, .name = "a/b/f", .data = "f");
	ADD(&t, .name = "gone/.wh.x");
	ADD(&t, .name = "nowhere", .data = "a file now");
	layer(&t);
	view();
	assert_true(links_to("view/a", "d") && has_content("view/d/b/f", "f"));
	assert_true(links_to("view/gone", "nowhere") && has_content("view/nowhere", "a file now"));
}

static void links_to_their_own_parent(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD_SYMLINK(&t, "b", "/");
	ADD_SYMLINK(&t, "c", ".");
	ADD_SYMLINK(&t, "x", "/");
	layer(&t);
	ADD(&t, .name = "b/b/f", .data = "f"); /* is /f */
	ADD(&t, .name = "c/g", .data = "g");
	ADD(&t, .name = "x/.wh.x"); /* the link itself */
	layer(&t);
	view();
	assert_true(has_content("view/f", "f") && has_content("view/g", "g"));
	assert_true(links_to("view/b", "/") && !exists("view/x"));
	assert_int_equal(count_names("view"), 4);
	ADD_DIR(&t, .name = "b/b"); /* would have replaced the link */
	layer_fails(&t, CPULL_ERR_UNSUPPORTED);
}

/* overlayfs itself takes no notice of an opaque root. */
static void an_opaque_root_hides_everything(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD_DIR(&t, .name = "./", .mode = 0700);
	ADD(&t, .name = "old", .data = "old");
	ADD(&t, .name = "d/old", .data = "old");
	layer(&t);
	ADD(&t, .name = "new", .data = "new");
	ADD(&t, .name = ".wh..wh..opq");
	ADD(&t, .name = "d/new", .data = "new");
	layer(&t);
	ADD(&t, .name = "newer", .data = "newer");
	layer(&t);
	view();
	assert_false(exists("view/old") || exists("view/d/old"));
	assert_true(exists("view/new") && exists("view/d/new") && exists("view/newer"));
	CHECK_STAT("view", 0700, 0, 0);
	ADD_LINK(&t, "h", "old");
	layer_fails(&t, CPULL_ERR_TAR);
}

static void hard_links_into_lower_layers(void **state)
{
	struct bytes t = {0};
	uint8_t value[32];
	static const uint8_t capability[20] = {1, 0, 0, 2, 0, 0x20};

	(void)state;
	ADD(&t, .name = "a", .data = "lowest");
	ADD(&t, .name = "hidden", .data = "hidden");
	tar_xattr(&t, "security.capability", capability, sizeof(capability));
	ADD(&t, .name = "usr/cap", .data = "cap", .mode = 04755, .uid = 6, .mtime = 50);
	ADD_SYMLINK(&t, "link", "usr");
	ADD_DIR(&t, .name = "opq");
	ADD(&t, .name = "opq/x", .data = "x");
	layer(&t);
	ADD(&t, .name = "a", .data = "middle");
	ADD(&t, .name = ".wh.hidden");
	ADD(&t, .name = "opq/.wh..wh..opq");
	layer(&t);
	ADD(&t, .name = "dir/keep", .data = "x");
	ADD_LINK(&t, "dir/h", "/a");
	ADD_LINK(&t, "dir/h2", "dir/h"); /* a chain */
	ADD(&t, .type = '1', .name = "c", .link = "link/cap", .mode = 04755, .uid = 6, .mtime = 50);
	ADD_LINK(&t, "s", "link");
	ADD(&t, .name = ".wh.a"); /* a rename, as a tar says it */
	ADD_LINK(&t, "late", "a");
	ADD(&t, .name = "late", .data = "later entry");
	ADD_LINK(&t, "removed/h", "a");
	ADD(&t, .name = "removed", .data = "file now");
	ADD_DIR(&t, .name = "dir", .mtime = 9);
	layer(&t);
	view();
	assert_true(has_content("view/dir/h", "middle"));
	assert_true(stat_of("l2/dir/h").st_ino == stat_of("l2/dir/h2").st_ino);
	assert_int_equal(stat_of("l2/dir/h").st_nlink, 2);
	CHECK_STAT("l2/c", 04755, 6, 0);
	assert_int_equal(stat_of("l2/c").st_mtime, 50);
	assert_int_equal(lgetxattr("l2/c", "security.capability", value, sizeof(value)), 20);
	assert_true(links_to("view/s", "usr"));
	assert_false(exists("view/a"));
	assert_true(has_content("view/late", "later entry") && has_content("view/removed", "file now"));
	assert_int_equal(stat_of("view/dir").st_mtime, 9);

	static const char *bad[] = {"hidden", "opq/x", "missing", "usr", "a/b"};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		ADD_LINK(&t, "h", bad[i]);
		struct outcome out = try_layer(&t);

		assert_int_equal(out.code, CPULL_ERR_TAR);
		assert_non_null(strstr(out.err.message, bad[i]));
	}
}

static void too_many_lower_layers(void **state)
{
	struct bytes t = {0};
	static struct lower_layer many[LIMIT_LAYERS + 1];

	(void)state;
	ADD(&t, .name = "f");
	layer(&t);
	for (size_t i = 0; i < ARRAY_LEN(many); i++)
		many[i] = layers[0].layer;
	ADD(&t, .name = "a/f");
	WRITE_FAILS("l", &t, CPULL_ERR_LIMIT, .tie = true, .lowers = many, .lower_count = ARRAY_LEN(many));
	ADD(&t, .name = "a/f");
	WRITE_OK("m", &t, .tie = true, .lowers = many, .lower_count = LIMIT_LAYERS);
}

/* Hard links to what no layer has: their number, and the text of their names. */
static void more_loose_links_than_are_kept(void **state)
{
	struct bytes t = {0};
	char name[16], target[4000];

	(void)state;
	for (unsigned i = 0; i <= LIMIT_LOOSE_LINKS; i++) {
		snprintf(name, sizeof(name), "h%u", i);
		ADD_LINK(&t, name, "missing");
	}
	struct outcome out = WRITE_FAILS("l", &t, CPULL_ERR_LIMIT, .tie = true);

	assert_non_null(strstr(out.err.message, "hard links"));
	memset(target, 'x', sizeof(target));
	for (size_t i = 200; i < sizeof(target); i += 200)
		target[i] = '/';
	target[sizeof(target) - 1] = 0;
	for (unsigned i = 0; i <= LIMIT_LOOSE_LINK_BYTES / sizeof(target); i++) {
		struct bytes record = {0};

		pax_record(&record, "linkpath", target, strlen(target));
		tar_pax(&t, &record);
		bytes_free(&record);
		snprintf(name, sizeof(name), "h%u", i);
		ADD_LINK(&t, name, "");
	}
	out = WRITE_FAILS("m", &t, CPULL_ERR_LIMIT, .tie = true);
	assert_non_null(strstr(out.err.message, "hard links"));
}

/* LIMIT_SYMLINK_HOPS links in a row are followed, one more is not. */
static void more_symlinks_than_are_followed(void **state)
{
	struct bytes t = {0};
	char name[16], to[16];

	(void)state;
	ADD_DIR(&t, .name = "s0");
	for (unsigned i = 1; i <= LIMIT_SYMLINK_HOPS + 1; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		snprintf(to, sizeof(to), "s%u", i - 1);
		ADD_SYMLINK(&t, name, to);
	}
	layer(&t);
	snprintf(name, sizeof(name), "s%u/f", LIMIT_SYMLINK_HOPS);
	ADD(&t, .name = name, .data = "found");
	layer(&t);
	view();
	assert_true(has_content("view/s0/f", "found"));
	snprintf(name, sizeof(name), "s%u/f", LIMIT_SYMLINK_HOPS + 1);
	ADD(&t, .name = name, .data = "lost");
	layer_fails(&t, CPULL_ERR_UNSUPPORTED);
}

static void no_descriptor_is_left(void **state)
{
	unsigned before = count_fds();

	(void)state;
	for (int i = 0; i < 3; i++) {
		hard_links_into_lower_layers(NULL);
		done(NULL);
		fresh(NULL);
	}
	assert_int_equal(count_fds(), before);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fresh, done)

static int run_group(const char *name)
{
	const struct CMUnitTest tests[] = {
	    T(implicit_directories_take_after_the_lower_ones),
	    T(own_entries_are_kept),
	    T(without_lower_layers),
	    T(content_follows_a_lower_symlink),
	    T(symlinks_that_cannot_be_followed),
	    T(directories_merge),
	    T(whiteouts_in_directories_of_their_own),
	    T(whiteouts_in_directories_with_entries),
	    T(whiteouts_in_the_lowest_root),
	    T(links_to_what_the_layer_whites_out),
	    T(links_to_their_own_parent),
	    T(an_opaque_root_hides_everything),
	    T(hard_links_into_lower_layers),
	    T(too_many_lower_layers),
	    T(more_loose_links_than_are_kept),
	    T(more_symlinks_than_are_followed),
	    T(no_descriptor_is_left),
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
	failed += run_group("loose_ends on tmpfs");
	fixture_helper = FILE_HELPER_FIRST;
	fresh_tmpfs(base);
	failed += run_group("loose_ends on tmpfs with a helper");
	fixture_helper = FILE_HELPER_NEVER;
	if (fresh_ext4(base))
		failed += run_group("loose_ends on ext4");
	fixture_images = true;
	fresh_tmpfs(base);
	failed += run_group("loose_ends in images");
	fixture_images = false;
	fresh_tmpfs(base);
	if (refuse_syscall(SYS_openat2, EPERM))
		failed += run_group("loose_ends without openat2");
	end_at(base);
	return failed;
}
