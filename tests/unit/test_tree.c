/* SPDX-License-Identifier: Apache-2.0
 *
 * The parts that the layer writers share: names of entries, path resolution in a root (both ways give the same), the
 * directory records, and merged lookups in a stack.
 */
#include "layer_fixture.h"

#include "snapshot/dir_fs.h"
#include "snapshot/map.h"
#include "snapshot/stack_view.h"
#include "snapshot/tree.h"

static char base[] = "/tmp/tree-XXXXXX";

static int fresh(void **state)
{
	(void)state;
	return fresh_place(base);
}

static void names_are_cleaned(void **state)
{
	static const struct {
		const char *raw, *text, *name;
		size_t parent_len;
	} good[] = {
		{"", "", "", 0},          {"./", "", "", 0},         {"///.//", "", "", 0},  {"a", "a", "a", 0},
		{"/a", "a", "a", 0},      {"./a//b/./", "a/b", "b", 1}, {"a/...", "a/...", "...", 1},
		{"..a/b..", "..a/b..", "b..", 3},
	};
	static const char *escaping[] = {"..", "../x", "a/..", "a/../b", "/..", "a/b/../../.."};
	struct entry_path path;
	char text[LIMIT_PATH_BYTES + 300];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(entry_path_clean(good[i].raw, &path, NULL), 0);
		assert_string_equal(path.text, good[i].text);
		assert_string_equal(entry_path_name(&path), good[i].name);
		assert_int_equal(path.parent_len, good[i].parent_len);
	}
	for (size_t i = 0; i < ARRAY_LEN(escaping); i++)
		assert_int_equal(entry_path_clean(escaping[i], &path, NULL), CPULL_ERR_ESCAPE);

	memset(text, 'x', sizeof(text));
	text[LIMIT_NAME_BYTES] = 0;
	assert_int_equal(entry_path_clean(text, &path, NULL), 0);
	text[LIMIT_NAME_BYTES] = 'x';
	text[LIMIT_NAME_BYTES + 1] = 0;
	assert_int_equal(entry_path_clean(text, &path, NULL), CPULL_ERR_LIMIT);
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = i % 200 ? 'x' : '/';
	text[LIMIT_PATH_BYTES] = 0; /* one less without the slash in front */
	assert_int_equal(entry_path_clean(text, &path, NULL), 0);
	assert_int_equal(path.len, LIMIT_PATH_BYTES - 1);
	text[LIMIT_PATH_BYTES] = 'x';
	text[LIMIT_PATH_BYTES + 1] = 0;
	assert_int_equal(entry_path_clean(text, &path, NULL), CPULL_ERR_LIMIT);
	for (size_t i = 0; i < LIMIT_PATH_DEPTH; i++)
		memcpy(text + 2 * i, "d/", 3);
	assert_int_equal(entry_path_clean(text, &path, NULL), 0);
	memcpy(text + 2 * LIMIT_PATH_DEPTH, "d", 2);
	assert_int_equal(entry_path_clean(text, &path, NULL), CPULL_ERR_LIMIT);
}

static void names_are_told_apart(void **state)
{
	static const struct {
		const char *raw;
		int kind; /* or the error */
	} cases[] = {
		{"a", ENTRY_PLAIN},
		{".wh", ENTRY_PLAIN},
		{"a/.whx", ENTRY_PLAIN},
		{".wh.a", ENTRY_WHITEOUT},
		{"d/.wh.a.wh.b", ENTRY_WHITEOUT},
		{".wh....", ENTRY_WHITEOUT}, /* of "..." */
		{".wh..x", ENTRY_WHITEOUT},
		{".wh..wh..opq", ENTRY_OPAQUE},
		{"d/.wh..wh..opq", ENTRY_OPAQUE},
		{".wh..wh.aufs", ENTRY_METADATA},
		{".wh..wh.", ENTRY_METADATA},
		{".wh..wh.orph/a/b", ENTRY_METADATA},
		{".wh..wh.plnk", ENTRY_METADATA},
		{".wh..wh.plnk/1.2", ENTRY_LINKED},
		{".wh..wh.plnk/.wh.x", ENTRY_METADATA},
		{".wh..wh.plnk/a/b", ENTRY_METADATA},
		{"d/.wh..wh.plnk/1.2", ENTRY_METADATA},
		{".wh.", CPULL_ERR_WHITEOUT},
		{".wh..", CPULL_ERR_WHITEOUT},
		{"d/.wh...", CPULL_ERR_WHITEOUT},
		{".wh.a/b", CPULL_ERR_WHITEOUT},
		{".wh..wh..opq/b", CPULL_ERR_WHITEOUT},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct entry_path path;
		enum entry_kind kind;

		assert_int_equal(entry_path_clean(cases[i].raw, &path, NULL), 0);
		int rc = entry_path_kind(&path, &kind, NULL);

		if ((rc ? rc : (int)kind) != cases[i].kind)
			print_error("%s\n", cases[i].raw);
		assert_int_equal(rc ? rc : (int)kind, cases[i].kind);
	}
}

static void maps_hold_what_was_put(void **state)
{
	struct map map = {0};

	(void)state;
	assert_int_equal(map_get(&map, 1, 99), 99);
	for (uint32_t i = 1; i <= 100000; i++)
		assert_int_equal(map_put(&map, (uint64_t)i << (i % 3 ? 0 : 32), i), 0);
	assert_int_equal(map_put(&map, 1, 7), 0);
	assert_int_equal(map_get(&map, 1, 0), 7);
	for (uint32_t i = 2; i <= 100000; i++)
		assert_int_equal(map_get(&map, (uint64_t)i << (i % 3 ? 0 : 32), 0), i);
	assert_int_equal(map_get(&map, 100001, 99), 99);
	assert_int_equal(map.count, 100000);
	map_free(&map);
}

/* The kernel's resolution and ours agree, on good paths and on bad ones. */
static void both_resolutions_agree(void **state)
{
	static const char *parts[] = {"a",    "b",   "c",    "..",   ".",    "up",  "abs",
				      "loop", "far", "self", "file", "none", "root"};
	struct resolve_root root = {.fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
	uint32_t random = 1;
	unsigned found = 0;

	(void)state;
	close(resolve_dir(&root, "."));
	if (root.no_openat2) { /* an old kernel, or qemu-user */
		close(root.fd);
		skip();
	}
	assert_int_equal(mkdir("a", 0755) | mkdir("a/b", 0755) | mkdir("a/b/c", 0755) | mkdir("b", 0755), 0);
	static const char *dirs[] = {".", "a", "a/b", "a/b/c", "b"};
	for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
		static const char *links[][2] = {{"up", "../../a"},
						 {"abs", "/a/b"},
						 {"loop", "loop2"},
						 {"loop2", "loop"},
						 {"far", "/../../../../../../../tmp"},
						 {"self", "."},
						 {"root", "/"}};
		char path[64];

		for (size_t k = 0; k < ARRAY_LEN(links); k++) {
			snprintf(path, sizeof(path), "%s/%s", dirs[i], links[k][0]);
			assert_int_equal(symlink(links[k][1], path), 0);
		}
		snprintf(path, sizeof(path), "%s/file", dirs[i]);
		close(creat(path, 0600));
	}
	for (int i = 0; i < 20000; i++) {
		char path[256] = "";

		for (int k = 0; k < 1 + i % 6; k++) {
			random = random * 1664525u + 1013904223u;
			strcat(path, k ? "/" : random >> 30 ? "" : "/");
			strcat(path, parts[(random >> 8) % ARRAY_LEN(parts)]);
		}
		int kernel = resolve_dir(&root, path), ours = resolve_walk(&root, path, NULL, NULL);

		assert_false(root.no_openat2);
		if ((kernel < 0) != (ours < 0) || (kernel < 0 && kernel != ours))
			print_error("%s: %d %d\n", path, kernel, ours);
		assert_int_equal(kernel < 0 ? kernel : 0, ours < 0 ? ours : 0);
		if (kernel < 0)
			continue;
		struct stat a, b;

		assert_int_equal(fstat(kernel, &a) | fstat(ours, &b), 0);
		assert_true(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
		close(kernel);
		close(ours);
		found++;
	}
	assert_true(found > 1000);
	close(root.fd);
}

/* "a/../a/../…" through a deep directory is cut off before it costs minutes. */
static void a_walk_has_an_end(void **state)
{
	struct resolve_root root = {.fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), .no_openat2 = true};
	char target[4096] = "";

	(void)state;
	for (int i = 0; i < 800; i++)
		strcat(target, "a/../");
	strcat(target, "next0");
	assert_int_equal(mkdir("a", 0755), 0);
	for (int i = 0; i < 30; i++) {
		char from[16], to[4200];

		snprintf(from, sizeof(from), "next%d", i);
		snprintf(to, sizeof(to), "%.4050s%d", target, i + 1);
		to[strlen(to) - 1 - (i + 1 > 9)] = 0;
		snprintf(to + strlen(to) - 1, 8, "%d", i + 1);
		assert_int_equal(symlink(to, from), 0);
	}
	uint64_t start = now_ms();

	assert_int_equal(resolve_dir(&root, "next0"), -ELOOP);
	assert_true(now_ms() - start < 5000);
	close(root.fd);
}

static void plain_paths_have_no_links(void **state)
{
	struct resolve_root roots[2] = {{.fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)}};

	(void)state;
	roots[1] = (struct resolve_root){.fd = roots[0].fd, .no_openat2 = true};
	assert_int_equal(mkdir("a", 0755) | mkdir("a/b", 0755) | symlink("a", "s") | symlink("b", "a/t"), 0);
	for (size_t i = 0; i < 2; i++) {
		int fd = resolve_plain(&roots[i], "a/b", O_RDONLY | O_DIRECTORY);

		assert_true(fd >= 0);
		close(fd);
		fd = resolve_plain(&roots[i], "", O_RDONLY | O_DIRECTORY);
		assert_true(fd >= 0);
		close(fd);
		assert_true(resolve_plain(&roots[i], "s/b", O_RDONLY | O_DIRECTORY) < 0);
		assert_true(resolve_plain(&roots[i], "a/t", O_RDONLY | O_DIRECTORY) < 0);
		assert_int_equal(resolve_plain(&roots[i], "a/none", O_RDONLY | O_DIRECTORY), -ENOENT);
	}
	close(roots[0].fd);
}

static void records_follow_the_directories(void **state)
{
	struct tree *tree;
	struct tree_place at, other;
	uint32_t dir, again;
	char path[LIMIT_PATH_BYTES];
	int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	const struct dir_fs_options options = {.dirfd = fd, .io = CPULL_IO_SYNC};
	struct layer_fs *fs;

	(void)state;
	assert_int_equal(dir_fs_new(&options, &fs, NULL), 0);
	assert_int_equal(tree_new(fs, &tree, NULL), 0);
	assert_int_equal(tree_parent(tree, "a/b/c", 5, &at, NULL), 0);
	assert_string_equal(tree_path(tree, at.dir, path), "a/b/c");
	assert_true(tree->dirs[at.dir].flags & TREE_IMPLICIT);
	assert_int_equal(tree_mkdir(tree, at, "d", &dir, NULL), 0);
	assert_int_equal(tree_mkdir(tree, at, "d", &again, NULL), 1);
	assert_int_equal(symlinkat("a/b", fd, "s"), 0);
	/* another way to the same directory */
	assert_int_equal(tree_lookup(tree, "s/c/d", 5, &other, NULL), 0);
	assert_int_equal(other.dir, dir);
	assert_int_equal(tree_lookup(tree, "s/none", 6, &other, NULL), 1);
	/* more parents than the cache has */
	for (unsigned i = 0; i < 3 * TREE_CACHE; i++) {
		int n = snprintf(path, sizeof(path), "many/%u", i);

		assert_int_equal(tree_parent(tree, path, (size_t)n, &other, NULL), 0);
	}
	assert_int_equal(tree_parent(tree, "a/b", 3, &at, NULL), 0);
	assert_int_equal(tree_clear(tree, at, "c", NULL), 0);
	assert_true(tree->dirs[dir].flags & TREE_DEAD);
	assert_int_equal(tree_parent(tree, "a/b/c/d", 7, &at, NULL), 0);
	assert_true(at.dir != dir);
	/* a directory that somebody else made is not ours to touch */
	assert_int_equal(mkdir("a/foreign", 0755), 0);
	assert_int_equal(tree_parent(tree, "a/foreign", 9, &at, NULL), CPULL_ERR_STORAGE);
	tree_free(tree);
	fs->ops->free(fs);
	close(fd);
}

static void a_stack_shows_what_an_overlay_would(void **state)
{
	struct stack_view view;
	struct stack_node node;
	char out[LIMIT_PATH_BYTES];
	struct lower_layer layers[2] = {0};

	(void)state;
	assert_int_equal(
	    system("mkdir -p top/d top/o bottom/d/sub bottom/o bottom/x && touch top/d/f bottom/d/f "
		   "bottom/d/g bottom/o/hidden bottom/x/y top/over && mkdir bottom/over && "
		   "mknod top/x c 0 0 && ln -s /d/sub bottom/l && ln -s l/../g bottom/m && ln -s n bottom/n"),
	    0);
	assert_int_equal(setxattr("top/o", "trusted.overlay.opaque", "y", 1, 0), 0);
	layers[0].dirfd = open("top", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	layers[1].dirfd = open("bottom", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(stack_view_init(&view, layers, 2), 0);
	static const struct {
		const char *path;
		size_t layer;
	} finds[] = {{"d", 0},      {"d/f", 0}, {"d/g", 1},   {"d/sub", 1}, {"o", 0},      {"o/hidden", 2},
		     {"x", 2},      {"x/y", 2}, {"over", 0},  {"over/z", 2}, {"none/n", 2}, {"d/sub/none", 2},
		     {"d/f/x", 2},  {"", 0},    {"l", 1},     {"l/x", 2},    {"d/g", 1}};
	for (size_t i = 0; i < ARRAY_LEN(finds); i++) {
		assert_int_equal(stack_view_find(&view, finds[i].path, &node), 0);
		if (node.layer != finds[i].layer)
			print_error("%s\n", finds[i].path);
		assert_int_equal(node.layer, finds[i].layer);
	}
	static const struct {
		const char *path, *out;
		size_t layer;
		bool follow;
		int rc;
	} ways[] = {{"l", "l", 1, false, 0},
		    {"l", "d/sub", 1, true, 0},
		    {"l/new/x", "d/sub/new/x", 2, true, 0},
		    {"m", "d/g", 1, true, 0},
		    {"../../d/./f", "d/f", 0, true, 0},
		    {"n", "", 0, true, -ELOOP},
		    {"n", "n", 1, false, 0},
		    {"d/f/x", "", 0, true, -ENOTDIR},
		    {"none/../d", "", 0, true, -ENOENT},
		    {"none/a/../b", "none/b", 2, true, 0},
		    {"/", "", 0, true, 0},
		    {"d/..", "", 0, true, 0}};
	for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
		int rc = stack_view_resolve(&view, ways[i].path, ways[i].follow, out, &node);

		if (rc != ways[i].rc)
			print_error("%s: %d\n", ways[i].path, rc);
		assert_int_equal(rc, ways[i].rc);
		if (rc)
			continue;
		assert_string_equal(out, ways[i].out);
		assert_int_equal(node.layer, ways[i].layer);
	}
	stack_view_free(&view);
	close(layers[0].dirfd);
	close(layers[1].dirfd);
}

#define T(f) cmocka_unit_test_setup(f, fresh)

int main(void)
{
	const struct CMUnitTest pure[] = {
		cmocka_unit_test(names_are_cleaned), cmocka_unit_test(names_are_told_apart),
		cmocka_unit_test(maps_hold_what_was_put),
	};
	const struct CMUnitTest rooted[] = {
		T(both_resolutions_agree), T(a_walk_has_an_end), T(plain_paths_have_no_links),
		T(records_follow_the_directories), T(a_stack_shows_what_an_overlay_would),
	};
	int failed = cmocka_run_group_tests_name("pure", pure, NULL, NULL);

	if (!own_namespace())
		return failed;
	if (!begin_at(base))
		return 1;
	failed += cmocka_run_group_tests_name("tree", rooted, NULL, NULL);
	end_at(base);
	return failed;
}
