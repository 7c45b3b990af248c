/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests of stacks of EROFS layers: trees made into images from lists of what is in them, and two mounted trees
 * compared entry by entry.
 */
#ifndef TESTS_MADE_LAYERS_H
#define TESTS_MADE_LAYERS_H

#include "made_erofs.h"

#include <fts.h>

/* Something in a layer. */
struct thing {
	const char *path; /* "": the root */
	uint32_t mode;    /* 0: a regular file, 0644, or a directory, 0755 */
	bool dir;
	uint64_t size;
	const char *to; /* a symlink's target; of a regular file, the path that it is another name of */
	uint32_t major, minor;
	uint32_t uid, gid;
	int64_t mtime; /* 0: MTIME */
	bool opaque;
	const struct tar_xattr *xattrs;
	size_t xattr_count;
	const struct range *data; /* of a sparse file, ended by an empty one */
	/* set when it is written */
	uint64_t nid;
	uint32_t links;
};

struct layer {
	struct thing *things;
	size_t count;
	uint8_t id; /* makes contents and UUIDs differ */
};

#define PUT(layer, ...) layer_put((layer), (struct thing){.path = __VA_ARGS__})
#define PUT_DIR(layer, ...) layer_put((layer), (struct thing){.dir = true, .path = __VA_ARGS__})
#define PUT_LINK(layer, from, what) \
	layer_put((layer), (struct thing){.path = (from), .mode = S_IFLNK | 0777, .to = (what)})
#define PUT_WHITEOUT(layer, what) layer_put((layer), (struct thing){.path = (what), .mode = S_IFCHR})

__attribute__((unused)) static void layer_begin(struct layer *l, uint8_t id)
{
	*l = (struct layer){.id = id};
}

__attribute__((unused)) static struct thing *layer_find(const struct layer *l, const char *path)
{
	for (size_t i = 0; i < l->count; i++)
		if (!strcmp(l->things[i].path, path))
			return &l->things[i];
	return NULL;
}

/* The directory has to be there before; only the root is by itself. */
__attribute__((unused)) static void layer_put(struct layer *l, struct thing thing)
{
	if (l->count % 1024 == 0) {
		l->things = realloc(l->things, (l->count + 1024) * sizeof(*l->things));
		assert_non_null(l->things);
	}
	thing.path = strdup(thing.path);
	if (!thing.mode)
		thing.mode = thing.dir ? ROOT_MODE : S_IFREG | 0644;
	thing.mtime = thing.mtime ? thing.mtime : MTIME;
	l->things[l->count++] = thing;
}

static size_t parent_len(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash - path) : 0;
}

static const char *last_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The root first, then by directory and in its order. */
static int by_place(const void *a, const void *b)
{
	const struct thing *x = a, *y = b;
	size_t x_len = parent_len(x->path), y_len = parent_len(y->path);

	if (!*x->path || !*y->path)
		return !*y->path - !*x->path;

	int order = erofs_name_compare(x->path, x_len, y->path, y_len);

	if (order)
		return order;
	return erofs_name_compare(last_name(x->path), strlen(last_name(x->path)), last_name(y->path),
				  strlen(last_name(y->path)));
}

static struct erofs_attributes attributes_of(const struct thing *t)
{
	return (struct erofs_attributes){.mode = t->mode, .uid = t->uid, .gid = t->gid,
					 .mtime = {.tv_sec = t->mtime, .tv_nsec = 123456789}, .xattrs = t->xattrs,
					 .xattr_count = t->xattr_count, .opaque = t->opaque};
}

static void write_range(struct erofs_image *image, uint64_t seed, struct range range)
{
	static uint8_t piece[1u << 16];

	while (range.from < range.to) {
		const struct tar_data data = {.data = piece, .len = MIN(sizeof(piece), range.to - range.from),
					      .offset = range.from};

		for (size_t i = 0; i < data.len; i++)
			piece[i] = byte_at(seed + range.from + i);
		OK(erofs_image_file_data(image, &data, err));
		range.from += data.len;
	}
}

static void write_thing(const struct layer *l, struct erofs_image *image, struct thing *t)
{
	const struct erofs_attributes attributes = attributes_of(t);
	const struct range all[] = {{0, t->size}, {0, 0}};
	uint64_t seed = l->id * 7919u + t->size;

	if (S_ISLNK(t->mode)) {
		OK(erofs_image_symlink(image, &attributes, t->to, &t->nid, err));
	} else if (!S_ISREG(t->mode)) {
		OK(erofs_image_node(image, &attributes, t->major, t->minor, &t->nid, err));
	} else if (!t->to) {
		OK(erofs_image_file_begin(image, &attributes, t->size, t->data, err));
		for (const struct range *r = t->data ? t->data : all; r->to; r++)
			write_range(image, seed, *r);
		OK(erofs_image_file_end(image, &t->nid, err));
	}
	t->links++;
}

static void tie_links(struct layer *l, struct erofs_image *image)
{
	for (size_t i = 0; i < l->count; i++) {
		struct thing *t = &l->things[i], *to;

		if (!S_ISREG(t->mode) || !t->to)
			continue;
		to = layer_find(l, t->to);
		assert_non_null(to);
		t->nid = to->nid;
		OK(erofs_image_set_links(image, to->nid, ++to->links, err));
	}
}

/* The directory's part of the sorted list, as the builder wants it. */
static struct erofs_entry *entries_of(const struct layer *l, const struct thing *dir, size_t *count)
{
	size_t len = strlen(dir->path), low = 1, high = l->count, first;
	struct erofs_entry *entries;

	while (low < high) {
		size_t middle = (low + high) / 2;
		const char *path = l->things[middle].path;

		if (erofs_name_compare(path, parent_len(path), dir->path, len) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	first = low;
	while (low < l->count && parent_len(l->things[low].path) == len &&
	       !memcmp(l->things[low].path, dir->path, len))
		low++;
	*count = low - first;
	entries = calloc(*count + 1, sizeof(*entries));
	assert_non_null(entries);
	for (size_t i = 0; i < *count; i++) {
		const struct thing *t = &l->things[first + i];

		entries[i] = (struct erofs_entry){.name = last_name(t->path), .len = strlen(last_name(t->path)),
						  .nid = t->nid, .type = (enum erofs_type)erofs_type_of(t->mode)};
	}
	return entries;
}

static uint64_t write_dirs(struct layer *l, struct erofs_image *image, bool write)
{
	for (size_t i = 0; i < l->count; i++) {
		struct thing *t = &l->things[i];

		if (!S_ISDIR(t->mode))
			continue;

		size_t count;
		struct erofs_entry *entries = entries_of(l, t, &count);
		CLEANUP_FREE char *above = strndup(t->path, parent_len(t->path));
		const struct erofs_directory dir = {.attributes = attributes_of(t), .entries = entries, .count = count,
						    .root = !*t->path,
						    .parent = write ? layer_find(l, above)->nid : 0};

		if (write)
			OK(erofs_image_dir_write(image, t->nid, &dir, err));
		else
			OK(erofs_image_dir_place(image, &dir, &t->nid, err));
		free(entries);
	}
	return l->things[0].nid;
}

/* Writes it to a new file, and frees it. */
__attribute__((unused)) static void layer_write(struct layer *l, const char *path)
{
	struct erofs_image_options options = {.uuid = {l->id, 1, [15] = 7}};
	struct erofs_image_result result;
	struct erofs_image *image;
	struct log log;

	if (!layer_find(l, ""))
		PUT_DIR(l, "");
	qsort(l->things, l->count, sizeof(*l->things), by_place);
	unlink(path);
	log_init(&log, NULL, NULL, CPULL_LOG_ERROR);
	options.log = &log;
	options.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	options.spool_dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	OK(erofs_image_new(&options, &image, err));
	for (size_t i = 0; i < l->count; i++)
		if (!S_ISDIR(l->things[i].mode))
			write_thing(l, image, &l->things[i]);
	tie_links(l, image);
	write_dirs(l, image, false);
	OK(erofs_image_finish(image, write_dirs(l, image, true), &result, err));
	erofs_image_free(image);
	log_destroy(&log);
	close(options.fd);
	close(options.spool_dirfd);
	for (size_t i = 0; i < l->count; i++)
		free((char *)l->things[i].path);
	free(l->things);
	*l = (struct layer){0};
}

/* ---- comparing ---- */

/* Which inode of the one tree is which of the other's, of files with several names. */
struct twins {
	struct {
		dev_t dev;
		ino_t a, b;
	} all[4096];
	size_t count;
};

static void check_twins(struct twins *t, const char *path, const struct stat *a, const struct stat *b)
{
	for (size_t i = 0; i < t->count; i++) {
		bool same = t->all[i].a == a->st_ino && t->all[i].dev == a->st_dev;

		if (same != (t->all[i].b == b->st_ino))
			fail_msg("%s: not a name of the same file in both trees", path);
		if (same)
			return;
	}
	assert_true(t->count < ARRAY_LEN(t->all));
	t->all[t->count].dev = a->st_dev;
	t->all[t->count].a = a->st_ino;
	t->all[t->count++].b = b->st_ino;
}

static void check_same_bytes(const char *path, int a, int b, uint64_t from, uint64_t to)
{
	static char x[1u << 17], y[1u << 17];

	while (from < to) {
		size_t want = MIN(sizeof(x), to - from);

		if (pread(a, x, want, (off_t)from) != (ssize_t)want || pread(b, y, want, (off_t)from) != (ssize_t)want)
			fail_msg("%s: cannot be read at %llu", path, (unsigned long long)from);
		if (memcmp(x, y, want))
			fail_msg("%s: differs between %llu and %zu bytes on", path, (unsigned long long)from, want);
		from += want;
	}
}

/* All of it, or of what is large some hundred places. */
static void check_same_content(const char *a_path, const char *b_path, uint64_t size)
{
	CLEANUP_FD int a = open(a_path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	CLEANUP_FD int b = open(b_path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	assert_true(a >= 0 && b >= 0);
	if (size <= 16u << 20) {
		check_same_bytes(b_path, a, b, 0, size);
		return;
	}
	for (uint64_t i = 0; i < 128; i++) {
		uint64_t at = size / 128 * i & ~4095ull;

		check_same_bytes(b_path, a, b, at, MIN(size, at + 32768));
	}
	check_same_bytes(b_path, a, b, size - 70000, size);
}

static size_t list_xattrs(const char *path, char names[65536])
{
	ssize_t len = llistxattr(path, names, 65536);

	if (len < 0)
		fail_msg("%s: no list of attributes: %s", path, strerror(errno));
	return (size_t)len;
}

/* Every attribute of `a` is one of `b`. */
static size_t check_xattrs(const char *a, const char *b)
{
	static char names[65536], x[65536], y[65536];
	size_t len = list_xattrs(a, names), count = 0;

	for (const char *name = names; name < names + len; name += strlen(name) + 1, count++) {
		ssize_t n = lgetxattr(a, name, x, sizeof(x));

		if (n < 0 || lgetxattr(b, name, y, sizeof(y)) != n || memcmp(x, y, (size_t)n))
			fail_msg("%s: attribute %s differs", b, name);
	}
	return count;
}

static void check_same(struct twins *t, const char *a, const struct stat *x, const char *b)
{
	char to_a[4096], to_b[4096];
	struct stat y;

	if (lstat(b, &y))
		fail_msg("%s is not there", b);
	/* a directory of several layers has one link in an overlay */
	bool merged = S_ISDIR(x->st_mode) && x->st_nlink == 1;

	if (x->st_mode != y.st_mode || x->st_uid != y.st_uid || x->st_gid != y.st_gid || x->st_rdev != y.st_rdev ||
	    x->st_mtim.tv_sec != y.st_mtim.tv_sec || x->st_mtim.tv_nsec != y.st_mtim.tv_nsec ||
	    (!merged && x->st_nlink != y.st_nlink) || (!S_ISDIR(x->st_mode) && x->st_size != y.st_size))
		fail_msg("%s: mode %o %o owner %u %u links %lu %lu size %lld %lld time %lld %lld", b, x->st_mode,
			 y.st_mode, x->st_uid, y.st_uid, (unsigned long)x->st_nlink, (unsigned long)y.st_nlink,
			 (long long)x->st_size, (long long)y.st_size, (long long)x->st_mtim.tv_sec,
			 (long long)y.st_mtim.tv_sec);
	assert_true(y.st_ino > 0);
	if (check_xattrs(a, b) != check_xattrs(b, a))
		fail_msg("%s: other attributes", b);
	if (S_ISLNK(x->st_mode)) {
		ssize_t n = readlink(a, to_a, sizeof(to_a));

		assert_true(n > 0 && readlink(b, to_b, sizeof(to_b)) == n && !memcmp(to_a, to_b, (size_t)n));
	}
	if (S_ISREG(x->st_mode)) {
		check_same_content(a, b, (uint64_t)x->st_size);
		if (x->st_nlink > 1)
			check_twins(t, b, x, &y);
	}
}

static FTS *walk_tree(const char *root)
{
	char *const roots[] = {(char *)root, NULL};
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);

	assert_non_null(fts);
	return fts;
}

/* Everything in mounted tree `a` is in `b`, the same, and nothing else. How much there is. */
__attribute__((unused)) static size_t check_same_trees(const char *a, const char *b)
{
	struct twins *twins = calloc(1, sizeof(*twins));
	FTS *fts = walk_tree(a);
	size_t in_a = 0, in_b = 0;
	FTSENT *e;

	while ((e = fts_read(fts))) {
		/* overlayfs lists whiteouts where there is nothing below */
		if (e->fts_info == FTS_DP || e->fts_info == FTS_NS)
			continue;

		CLEANUP_FREE char *other = format_string("%s%s", b, e->fts_path + strlen(a));

		assert_int_not_equal(e->fts_info, FTS_ERR);
		assert_int_not_equal(e->fts_info, FTS_DNR);
		check_same(twins, e->fts_path, e->fts_statp, other);
		in_a++;
	}
	fts_close(fts);
	fts = walk_tree(b);
	while ((e = fts_read(fts))) {
		assert_int_not_equal(e->fts_info, FTS_NS);
		in_b += e->fts_info != FTS_DP;
	}
	fts_close(fts);
	free(twins);
	assert_int_equal(in_a, in_b);
	return in_a;
}

#endif
