/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/layer_fs: the two kinds of it do the same. Operations at random go to a directory and to an image at once;
 * every answer is compared, and in the end what is in the directory with what is in the mounted image. Runs as root.
 */
#include "layer_fixture.h"

#include <fts.h>

#include "tests/tree_hash.h"

#define HANDLES 6u
#define NAMES 7u
#define DEPTH_MAX 6u

static char base[] = "/tmp/layer-fs-XXXXXX";

static int fresh(void **state)
{
	(void)state;
	return fresh_place(base);
}

/* Both kinds; `handles` are pairs for the same directory. */
struct twins {
	struct layer_fs *fs[2];
	int handles[HANDLES][2];
	uint32_t random;
	unsigned step;
	struct log log;
	struct image_place image;
	int dirfd;
	unsigned files;
};

static uint32_t draw(struct twins *t, uint32_t below)
{
	t->random = t->random * 1664525u + 1013904223u;
	return (t->random >> 8) % below;
}

static const char *draw_name(struct twins *t)
{
	static const char *names[NAMES] = {"a", "b", "c", "dir", "+", "longer-name", "\xff"};

	return names[draw(t, NAMES)];
}

/* With symlinks, "..", and all that a path may have in it. */
static const char *draw_path(struct twins *t, char out[256])
{
	unsigned parts = draw(t, DEPTH_MAX);

	strcpy(out, draw(t, 4) ? "" : "/");
	for (unsigned i = 0; i < parts; i++) {
		strcat(out, draw(t, 6) ? draw_name(t) : draw(t, 2) ? ".." : ".");
		if (i + 1 < parts || !draw(t, 3))
			strcat(out, draw(t, 9) ? "/" : "//");
	}
	return out;
}

/* A path that says where things are: no link, no "..". */
static const char *draw_plain_path(struct twins *t, char out[256])
{
	unsigned parts = draw(t, 4);

	out[0] = 0;
	for (unsigned i = 0; i < parts; i++) {
		strcat(out, i ? "/" : "");
		strcat(out, draw_name(t));
	}
	return out;
}

static void same(struct twins *t, const char *what, int dir, int image)
{
	if (dir != image)
		fail_msg("step %u, %s: %d in a directory, %d in an image", t->step, what, dir, image);
}

/* Errors that are the same by code and errno; messages are each kind's own. */
static void same_errors(struct twins *t, const char *what, int dir, int image, const struct cpull_error *err)
{
	if (dir != image || (dir < 0 && err[0].sys_errno != err[1].sys_errno))
		fail_msg("step %u, %s: %d (%s) in a directory, %d (%s) in an image", t->step, what, dir,
			 dir < 0 ? err[0].message : "", image, image < 0 ? err[1].message : "");
}

/* The same names have the same files: numbers differ, but are equal or not in both. */
static void same_stat(struct twins *t, const struct stat *a, const struct stat *b)
{
	same(t, "type", (int)(a->st_mode & S_IFMT), (int)(b->st_mode & S_IFMT));
	if (!S_ISDIR(a->st_mode) && !(S_ISCHR(a->st_mode) && a->st_rdev == 0))
		same(t, "links", (int)a->st_nlink, (int)b->st_nlink);
}

static void put_handle(struct twins *t, int dir, int image)
{
	unsigned i = 1 + draw(t, HANDLES - 1);

	same(t, "handle", MIN(dir, 0), MIN(image, 0));
	if (dir < 0)
		return;
	t->fs[0]->ops->close(t->fs[0], t->handles[i][0]);
	t->fs[1]->ops->close(t->fs[1], t->handles[i][1]);
	t->handles[i][0] = dir;
	t->handles[i][1] = image;
}

/* ---- operations ---- */

/* user::rwx user:5:rw- group::r-x mask::rwx other::--- */
static const uint8_t acl[] = {2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 6, 0, 5, 0, 0, 0,
			      4, 0, 5, 0, 255, 255, 255, 255, 16, 0, 7, 0, 255, 255, 255, 255,
			      32, 0, 0, 0, 255, 255, 255, 255};
static const uint8_t capability[20] = {1, 0, 0, 2, 0, 0x20};

static struct tar_entry draw_entry(struct twins *t, enum tar_type type)
{
	return (struct tar_entry){.type = type, .mode = draw(t, 010000), .uid = draw(t, 100000), .gid = draw(t, 3),
				  .mtime = {.tv_sec = (time_t)draw(t, 2000000), .tv_nsec = (long)draw(t, 1000000)},
				  .dev_major = 1, .dev_minor = draw(t, 300)};
}

static void make_file(struct twins *t, unsigned h, const char *name)
{
	static const struct tar_xattr xattrs[] = {{"security.capability", capability, sizeof(capability)},
						  {"system.posix_acl_access", acl, sizeof(acl)},
						  {"user.note", acl, 3},
						  {"user.overlay.whiteout", acl, 0}};
	struct tar_entry entry = draw_entry(t, TAR_FILE);
	struct cpull_error err[2];
	char content[40];
	int rc[2];

	entry.xattrs = xattrs + draw(t, 2);
	entry.xattr_count = draw(t, 4);
	entry.size = (uint64_t)snprintf(content, sizeof(content), "file %u", t->files++);
	for (unsigned k = 0; k < 2; k++) {
		struct layer_fs *fs = t->fs[k];
		const struct tar_data data = {.data = (const uint8_t *)content, .len = entry.size};

		rc[k] = fs->ops->file_open(fs, t->handles[h][k], name, &entry, &err[k]);
		if (rc[k])
			continue;
		assert_true(fs->ops->file_is_open(fs));
		assert_int_equal(fs->ops->file_data(fs, NULL, &data, NULL), 0);
		assert_int_equal(fs->ops->file_close(fs, &entry, NULL), 0);
		assert_false(fs->ops->file_is_open(fs));
	}
	same_errors(t, "file", rc[0], rc[1], err);
}

static void make_other(struct twins *t, unsigned h, const char *name)
{
	enum tar_type types[] = {TAR_SYMLINK, TAR_SYMLINK, TAR_CHAR, TAR_BLOCK, TAR_FIFO};
	struct tar_entry entry = draw_entry(t, types[draw(t, ARRAY_LEN(types))]);
	struct cpull_error err[2];
	char target[256] = "", path[256];
	int rc[2];

	snprintf(target, sizeof(target), "%s", draw_path(t, path));
	entry.link = *target ? target : "a";
	for (unsigned k = 0; k < 2; k++)
		rc[k] = entry.type == TAR_SYMLINK
			    ? t->fs[k]->ops->symlink(t->fs[k], t->handles[h][k], name, &entry, &err[k])
			    : t->fs[k]->ops->node(t->fs[k], t->handles[h][k], name, &entry, &err[k]);
	same_errors(t, "symlink or node", rc[0], rc[1], err);
}

static void make_dir(struct twins *t, unsigned h, const char *name)
{
	struct stat st[2];
	int rc[2];

	for (unsigned k = 0; k < 2; k++)
		rc[k] = t->fs[k]->ops->mkdir(t->fs[k], t->handles[h][k], name, &st[k]);
	same(t, "mkdir", rc[0], rc[1]);
	if (rc[0] == 0)
		same_stat(t, &st[0], &st[1]);
}

static void make_whiteout(struct twins *t, unsigned h, const char *name)
{
	struct cpull_error err[2];
	struct stat st;
	int rc[2];

	for (unsigned k = 0; k < 2; k++) {
		if (t->fs[k]->ops->stat(t->fs[k], t->handles[h][k], name, &st) != -ENOENT)
			return;
		rc[k] = t->fs[k]->ops->make_whiteout(t->fs[k], t->handles[h][k], name, false, &err[k]);
	}
	same_errors(t, "whiteout", rc[0], rc[1], err);
}

static void make_link(struct twins *t, unsigned h, const char *name)
{
	unsigned from = draw(t, HANDLES);
	const char *from_name = draw_name(t);
	const struct tar_entry entry = draw_entry(t, TAR_FILE);
	struct cpull_error err[2];
	struct stat st[2];
	int rc[2], found[2];

	for (unsigned k = 0; k < 2; k++) {
		struct layer_fs *fs = t->fs[k];

		found[k] = fs->ops->stat(fs, t->handles[from][k], from_name, &st[k]);
		/* never asked for */
		if (found[k] == 0 && (S_ISDIR(st[k].st_mode) ||
				      fs->ops->is_whiteout(fs, t->handles[from][k], from_name, &st[k])))
			return;
		if (found[k])
			continue;
		rc[k] = fs->ops->link(fs, t->handles[from][k], from_name, &st[k], t->handles[h][k], name, &err[k]);
		if (!rc[k] && entry.mode % 2)
			assert_int_equal(fs->ops->restat(fs, t->handles[h][k], name, &st[k], &entry, &err[k]), 0);
	}
	same(t, "file to be linked", found[0], found[1]);
	if (!found[0])
		same_errors(t, "link", rc[0], rc[1], err);
}

static void remove_name(struct twins *t, unsigned h, const char *name)
{
	bool dir = draw(t, 2);
	int rc[2];

	for (unsigned k = 0; k < 2; k++)
		rc[k] = dir ? t->fs[k]->ops->rmdir(t->fs[k], t->handles[h][k], name)
			    : t->fs[k]->ops->unlink(t->fs[k], t->handles[h][k], name);
	same(t, dir ? "rmdir" : "unlink", rc[0], rc[1]);
}

static void count_gone(void *payload, ino_t ino)
{
	(void)ino;
	++*(unsigned *)payload;
}

static void remove_tree(struct twins *t, unsigned h, const char *name)
{
	struct cpull_error err[2];
	unsigned gone[2] = {0};
	int rc[2];

	for (unsigned k = 0; k < 2; k++)
		rc[k] = t->fs[k]->ops->remove_tree(t->fs[k], t->handles[h][k], name, count_gone, &gone[k], &err[k]);
	same_errors(t, "remove_tree", rc[0], rc[1], err);
	/* the kernel may be asked more than once */
	assert_true(gone[0] >= gone[1] && !gone[0] == !gone[1]);
}

static void rename_name(struct twins *t, unsigned h, const char *name)
{
	unsigned to = draw(t, HANDLES);
	const char *to_name = draw_name(t);
	int rc[2];

	for (unsigned k = 0; k < 2; k++)
		rc[k] = t->fs[k]->ops->rename(t->fs[k], t->handles[h][k], name, t->handles[to][k], to_name);
	same(t, "rename", rc[0], rc[1]);
}

static int make_missing(void *payload, int handle, const char *name)
{
	struct layer_fs *fs = payload;
	struct stat st;

	if (name[0] == '+')
		return -ENOTTY;
	return fs->ops->mkdir(fs, handle, name, &st);
}

static void walk(struct twins *t)
{
	char path[256];
	unsigned how = draw(t, 4);
	int handles[2];

	if (how == 3)
		draw_plain_path(t, path);
	else
		draw_path(t, path);
	for (unsigned k = 0; k < 2; k++) {
		struct layer_fs *fs = t->fs[k];

		handles[k] = how == 3	? fs->ops->open(fs, path, draw(t, 1) ? LAYER_DIR_CONTENT : LAYER_DIR_NAMES)
			     : how == 2 ? fs->ops->follow_making(fs, path, make_missing, fs)
					: fs->ops->follow(fs, path);
	}
	if (handles[0] < 0 || handles[1] < 0)
		same(t, path, MIN(handles[0], 0), MIN(handles[1], 0));
	put_handle(t, handles[0], handles[1]);
}

static void look(struct twins *t, unsigned h, const char *name)
{
	char target[2][LIMIT_PATH_BYTES];
	struct stat st[2];
	bool whiteout[2] = {false, false};
	int rc[2], link[2];

	for (unsigned k = 0; k < 2; k++) {
		struct layer_fs *fs = t->fs[k];

		rc[k] = fs->ops->stat(fs, t->handles[h][k], name, &st[k]);
		link[k] = fs->ops->read_link(fs, t->handles[h][k], name, target[k]);
		if (!rc[k])
			whiteout[k] = fs->ops->is_whiteout(fs, t->handles[h][k], name, &st[k]);
	}
	same(t, "stat", rc[0], rc[1]);
	same(t, "read_link", link[0], link[1]);
	same(t, "is_whiteout", whiteout[0], whiteout[1]);
	if (!rc[0])
		same_stat(t, &st[0], &st[1]);
	if (!link[0])
		assert_string_equal(target[0], target[1]);
}

/* ---- lists ---- */

struct listing {
	struct layer_fs *fs;
	int handle;
	char names[NAMES][16];
	unsigned count;
	unsigned remove; /* those whose number in order is a multiple are removed on the way */
};

static int note_name(void *payload, const char *name, struct cpull_error *err)
{
	struct listing *l = payload;

	(void)err;
	assert_true(l->count < NAMES);
	strcpy(l->names[l->count++], name);
	if (l->remove && (unsigned char)name[0] % l->remove == 0)
		(void)!l->fs->ops->unlink(l->fs, l->handle, name);
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void list_names(struct twins *t)
{
	struct listing lists[2] = {{.remove = draw(t, 4)}};
	struct cpull_error err[2];
	char path[256];
	int rc[2];

	draw_plain_path(t, path);
	lists[1].remove = lists[0].remove;
	for (unsigned k = 0; k < 2; k++) {
		struct layer_fs *fs = lists[k].fs = t->fs[k];

		lists[k].handle = fs->ops->open(fs, path, LAYER_DIR_CONTENT);
		if (lists[k].handle < 0)
			continue;
		rc[k] = fs->ops->list(fs, lists[k].handle, note_name, &lists[k], &err[k]);
		fs->ops->close(fs, lists[k].handle);
		qsort(lists[k].names, lists[k].count, sizeof(lists[k].names[0]), by_text);
	}
	same(t, "opening", MIN(lists[0].handle, 0), MIN(lists[1].handle, 0));
	if (lists[0].handle < 0)
		return;
	same_errors(t, "list", rc[0], rc[1], err);
	same(t, "names in a directory", (int)lists[0].count, (int)lists[1].count);
	assert_memory_equal(lists[0].names, lists[1].names, lists[0].count * sizeof(lists[0].names[0]));
}

/* ---- the end ---- */

static void settle(struct twins *t, const char *path)
{
	const struct tar_xattr xattrs[] = {{"user.a", (const uint8_t *)"1", 1},
					   {"system.posix_acl_default", acl, sizeof(acl)},
					   {"system.posix_acl_access", acl, sizeof(acl)},
					   {"trusted.b", (const uint8_t *)path, strlen(path)},
					   {"user.overlay.opaque", (const uint8_t *)"y", 1}};
	const struct tar_entry e = draw_entry(t, TAR_DIR);
	enum attributes_part part = draw(t, 2) ? ATTRIBUTES_ALL : ATTRIBUTES_NO_ACL;
	unsigned first = draw(t, ARRAY_LEN(xattrs)), count = draw(t, (uint32_t)(ARRAY_LEN(xattrs) - first) + 1);
	bool opaque = draw(t, 3) == 0, again = draw(t, 2), replace = draw(t, 2);

	for (unsigned k = 0; k < 2; k++) {
		struct layer_fs *fs = t->fs[k];
		int handle = fs->ops->open(fs, path, LAYER_DIR_CONTENT);

		assert_true(handle >= 0);
		if (opaque)
			assert_int_equal(fs->ops->set_opaque(fs, handle, NULL), 0);
		if (again)
			assert_int_equal(fs->ops->set_xattrs(fs, handle, xattrs, 1, part, false, NULL), 0);
		assert_int_equal(fs->ops->set_stat(fs, handle, e.uid, e.gid, e.mode, e.mtime, NULL), 0);
		assert_int_equal(fs->ops->set_xattrs(fs, handle, xattrs + first, count, part, replace, NULL), 0);
		fs->ops->close(fs, handle);
	}
}

/* Every directory, children first: what is done in one changes its time. */
static void settle_all(struct twins *t)
{
	char *const roots[] = {(char *)"dir", NULL};
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	FTSENT *e;

	assert_non_null(fts);
	while ((e = fts_read(fts)))
		if (e->fts_info == FTS_DP)
			settle(t, e->fts_pathlen > 4 ? e->fts_path + 4 : "");
	fts_close(fts);
}

static void begin_twins(struct twins *t, uint32_t seed)
{
	struct dir_fs_options options = {.io = CPULL_IO_SYNC, .log = &t->log};
	struct stat st;

	*t = (struct twins){.random = seed};
	log_init(&t->log, NULL, NULL, CPULL_LOG_ERROR);
	assert_int_equal(mkdir("dir", 0700) | mkdir("image", 0700), 0);
	t->dirfd = options.dirfd = open("dir", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(dir_fs_new(&options, &t->fs[0], NULL), 0);
	t->image = begin_image("image", CPULL_IO_SYNC, &t->log);
	t->fs[1] = t->image.fs;
	for (unsigned k = 0; k < 2; k++) {
		assert_int_equal(t->fs[k]->ops->reset_root(t->fs[k], &st, NULL), 0);
		for (unsigned h = 1; h < HANDLES; h++)
			t->handles[h][k] = t->fs[k]->ops->open(t->fs[k], "", LAYER_DIR_NAMES);
		t->handles[0][k] = t->fs[k]->root;
	}
}

static void end_twins(struct twins *t)
{
	struct layer_fs_stats stats;
	struct cpull_error err;

	for (unsigned k = 0; k < 2; k++) {
		for (unsigned h = 1; h < HANDLES; h++)
			t->fs[k]->ops->close(t->fs[k], t->handles[h][k]);
		assert_int_equal(t->fs[k]->ops->wait(t->fs[k], NULL), 0);
	}
	settle_all(t);
	for (unsigned k = 0; k < 2; k++) {
		t->fs[k]->ops->end_files(t->fs[k], &stats);
		if (t->fs[k]->ops->finish(t->fs[k], &err))
			fail_msg("%s", err.message);
		t->fs[k]->ops->free(t->fs[k]);
	}
	close(t->dirfd);
	end_image(&t->image);
	mount_written("image");
	if (tree_hash("dir") != tree_hash("image")) {
		(void)!system("for d in dir image; do (cd $d && find . -printf '%P %y%m %U:%G %T@ %n %l\n' "
			      "-exec getfattr -hd -m - '{}' ';' | sort -s) >$d.txt; done; diff dir.txt image.txt >&2");
		fail_msg("what is in the directory differs from what is in the image");
	}
	discard_layer("image");
	assert_int_equal(system("rm -r dir && mkdir image && rm -r image"), 0);
	log_destroy(&t->log);
}

static void both_do_the_same(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 60; seed++) {
		struct twins t;

		begin_twins(&t, seed * 7919);
		for (t.step = 0; t.step < 400; t.step++) {
			unsigned h = draw(&t, HANDLES), what = draw(&t, 30);
			const char *name = draw_name(&t);

			if (what < 5)
				make_dir(&t, h, name);
			else if (what < 8)
				make_file(&t, h, name);
			else if (what < 12)
				make_other(&t, h, name);
			else if (what < 13)
				make_whiteout(&t, h, name);
			else if (what < 16)
				make_link(&t, h, name);
			else if (what < 18)
				remove_name(&t, h, name);
			else if (what < 19)
				remove_tree(&t, h, name);
			else if (what < 21)
				rename_name(&t, h, name);
			else if (what < 27)
				walk(&t);
			else if (what < 29)
				look(&t, h, name);
			else
				list_names(&t);
		}
		end_twins(&t);
	}
}

#define T(f) cmocka_unit_test_setup(f, fresh)

int main(void)
{
	const struct CMUnitTest tests[] = {T(both_do_the_same)};

	if (!own_namespace())
		return 0;
	if (!begin_at(base))
		return 1;
	fixture_images = true;

	int failed = cmocka_run_group_tests_name("layer_fs", tests, NULL, NULL);

	end_at(base);
	return failed;
}
