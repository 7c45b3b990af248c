/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a layer: written three times, whole by one thread, with a helper in pieces whose sizes come from the last
 * bytes, and into an image, tied to a lower layer each time. The first two must fail alike or leave the same tree. The
 * image may refuse what it has no room for, else it must be readable, and for root the same tree. The lower layer and
 * what lies beside the layer must stay as they were.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "snapshot/dir_fs.h"
#include "snapshot/erofs_fs.h"
#include "snapshot/layer_writer.h"
#include "tar_mutator.h"
#include "tests/image_hash.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define CUTS 4u
#define MAX_BYTES (1u << 20)
#define HOLE_BYTES (4u << 20)

/* base/canary, base/lower: never to be changed; base/0, base/1, base/2: the layer's versions. */
static struct {
	char base[64];
	int fd;
	int image_fd; /* the lower layer as an image */
	struct lower_layer below, below_image;
	uint64_t canary, lower;
} place;

static void check(bool good)
{
	if (!good)
		abort();
}

static uint64_t hash_of(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", place.base, name);
	return tree_hash(path);
}

static void leave(void)
{
	check(fs_remove_tree(AT_FDCWD, place.base, NULL) == 0);
}

/* ---- the lower layer, of both kinds ---- */

static void make_file(struct layer_fs *fs, const char *path, const char *text)
{
	const char *slash = strrchr(path, '/');
	char parent[64] = "";
	const struct tar_entry entry = {.mode = 0644, .size = strlen(text), .uid = geteuid(), .gid = getegid()};
	const struct tar_data data = {.data = (const uint8_t *)text, .len = strlen(text)};

	memcpy(parent, path, slash ? (size_t)(slash - path) : 0);

	int dir = fs->ops->open(fs, parent, LAYER_DIR_NAMES);

	check(dir >= 0 && fs->ops->file_open(fs, dir, slash ? slash + 1 : path, &entry, NULL) == 0);
	check(fs->ops->file_data(fs, NULL, &data, NULL) == 0 && fs->ops->file_close(fs, &entry, NULL) == 0);
	fs->ops->close(fs, dir);
}

static void make_link(struct layer_fs *fs, const char *name, const char *parent, const char *target)
{
	const struct tar_entry entry = {.link = target, .uid = geteuid(), .gid = getegid()};
	int dir = fs->ops->open(fs, parent, LAYER_DIR_NAMES);

	check(dir >= 0 && fs->ops->symlink(fs, dir, name, &entry, NULL) == 0);
	fs->ops->close(fs, dir);
}

/* What the names in the corpus have below them. */
static void make_lower(struct layer_fs *fs)
{
	static const char *const dirs[][3] = {{"", "usr", "usr"}, {"usr", "bin", "usr/bin"}, {"", "a", "a"},
					      {"a", "b", "a/b"}, {"", "", ""}};
	static const char *const links[][3] = {{"bin", "", "usr/bin"},	      {"r", "", "/"},
					       {"here", "a", "."},	      {"out", "", "../../canary"},
					       {"loop", "", "loop"},	      {"c", "a", "b"}};
	struct layer_fs_stats stats;
	struct stat st;

	check(fs->ops->reset_root(fs, &st, NULL) == 0);
	for (size_t i = 0; *dirs[i][1]; i++) {
		int dir = fs->ops->open(fs, dirs[i][0], LAYER_DIR_NAMES);

		check(dir >= 0 && fs->ops->mkdir(fs, dir, dirs[i][1], &st) == 0);
		fs->ops->close(fs, dir);
	}
	for (size_t i = 0; i < ARRAY_LEN(links); i++)
		make_link(fs, links[i][0], links[i][1], links[i][2]);
	make_file(fs, "f", "f");
	make_file(fs, "a/x", "x");
	make_file(fs, "a/b/y", "y");
	make_file(fs, "usr/bin/tool", "tool");
	check(fs->ops->wait(fs, NULL) == 0);
	for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
		int dir = fs->ops->open(fs, dirs[i][2], LAYER_DIR_CONTENT);

		check(dir >= 0 && fs->ops->set_stat(fs, dir, geteuid(), getegid(), 0750,
						    (struct timespec){.tv_sec = 1}, NULL) == 0);
		fs->ops->close(fs, dir);
	}
	fs->ops->end_files(fs, &stats);
	check(fs->ops->finish(fs, NULL) == 0);
	fs->ops->free(fs);
}

static struct layer_fs *open_dir_fs(const char *name, bool helper, struct log *log, int *fd)
{
	struct dir_fs_options options = {.io = CPULL_IO_SYNC, .log = log,
					 .helper = helper ? FILE_HELPER_FIRST : FILE_HELPER_NEVER};
	struct layer_fs *fs = NULL;

	check(mkdirat(place.fd, name, 0700) == 0);
	*fd = options.dirfd = fs_open_dir(place.fd, name);
	check(options.dirfd >= 0 && dir_fs_new(&options, &fs, NULL) == 0);
	return fs;
}

static struct layer_fs *open_erofs_fs(const char *name, struct log *log, int *fd)
{
	struct erofs_image_options options = {.spool_dirfd = place.fd, .uuid = {1}, .io = CPULL_IO_SYNC, .log = log,
					      .max_hole_bytes = HOLE_BYTES};
	struct layer_fs *fs = NULL;

	*fd = options.fd = openat(place.fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	check(options.fd >= 0 && erofs_fs_new(&options, &fs, NULL) == 0);
	return fs;
}

static void make_canary(void)
{
	static const char *const files[] = {"canary/f", "canary/d/f"};

	check(mkdirat(place.fd, "canary", 0750) == 0 && mkdirat(place.fd, "canary/d", 0750) == 0);
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		CLEANUP_FD int fd = openat(place.fd, files[i], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

		check(fd >= 0 && write(fd, "alive", 5) == 5);
	}
}

static void make_place(void)
{
	struct log log;

	log_init(&log, NULL, NULL, CPULL_LOG_ERROR);
	strcpy(place.base, access("/dev/shm", W_OK) ? "/tmp/fuzz-layer-XXXXXX" : "/dev/shm/fuzz-layer-XXXXXX");
	check(mkdtemp(place.base) && atexit(leave) == 0);
	place.fd = open(place.base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	make_canary();
	make_lower(open_dir_fs("lower", false, &log, &place.below.dirfd));
	make_lower(open_erofs_fs("lower.erofs", &log, &place.image_fd));
	place.below_image.dirfd = -1;
	check(erofs_reader_open(place.image_fd, &place.below_image.image, NULL) == 0);
	place.canary = hash_of("canary");
	place.lower = hash_of("lower");
	check(image_hash(place.below_image.image) == place.lower);
	log_destroy(&log);
}

/* ---- the layer ---- */

static int feed(struct layer_writer *writer, const uint8_t *data, size_t len, const uint8_t *cuts,
		struct pool_share *share, struct cpull_error *err)
{
	int rc = 0;

	for (size_t at = 0, cut = 0; !rc && at < len; cut++) {
		struct chunk *chunk = pool_get(share, NULL);
		size_t n = cuts ? MIN(len - at, cuts[cut % CUTS] * (size_t)7 + 1) : len - at;

		memcpy(chunk->data, data + at, n);
		chunk->len = (uint32_t)n;
		at += n;
		rc = layer_writer_feed(writer, chunk, err);
		chunk_put(chunk);
	}
	return rc;
}

/* fs is taken over. */
static int write_layer(struct layer_fs *fs, const struct lower_layer *below, const uint8_t *data, size_t len,
		       const uint8_t *cuts, struct cpull_error *err)
{
	struct layer_writer_options options = {.fs = fs};
	struct layer_writer *writer;
	struct pool *pool;
	struct pool_share *share;

	check(pool_new(MAX_BYTES, 2, &pool, err) == 0);
	check(pool_share_open(pool, 2, 2, &share) == 0);
	check(layer_writer_new(&options, &writer, err) == 0);

	int rc = feed(writer, data, len, cuts, share, err);

	if (!rc)
		rc = layer_writer_finish(writer, NULL, err);
	if (!rc)
		rc = layer_writer_tie(writer, below, 1, err);
	if (!rc)
		rc = layer_writer_seal(writer, err);
	check(rc <= 0 && (rc == 0 || (err->code == rc && err->message[0] && rc != CPULL_ERR_INTERNAL)));
	check(rc || !layer_writer_has_loose_ends(writer));
	layer_writer_free(writer);
	pool_share_close(share);
	pool_free(pool);
	return rc;
}

static int write_dir(const char *name, const uint8_t *data, size_t len, const uint8_t *cuts)
{
	struct cpull_error err = {0};
	struct log log;
	int fd;

	log_init(&log, NULL, NULL, CPULL_LOG_ERROR);

	int rc = write_layer(open_dir_fs(name, cuts, &log, &fd), &place.below, data, len, cuts, &err);

	close(fd);
	log_destroy(&log);
	return rc;
}

/* The layer's fault, and not for want of rights, room or memory. */
static bool blames_layer(int code)
{
	return code <= CPULL_ERR_MANIFEST && code > CPULL_ERR_STORAGE;
}

static void write_image(const uint8_t *data, size_t len, const uint8_t *cuts, int as_dir)
{
	struct cpull_error err = {0};
	struct erofs_reader *reader = NULL;
	struct log log;
	int fd;

	log_init(&log, NULL, NULL, CPULL_LOG_ERROR);

	int rc = write_layer(open_erofs_fs("2", &log, &fd), &place.below_image, data, len, cuts, &err);

	/* what has no room in an image, and what needs no rights there */
	check(rc == as_dir || (rc && strstr(err.message, "--snapshot overlay")) || (as_dir && !blames_layer(as_dir)));
	if (!rc) {
		check(erofs_reader_open(fd, &reader, NULL) == 0);

		uint64_t hash = image_hash(reader);

		check(hash != 0 && (as_dir || geteuid() || hash == hash_of("0")));
		erofs_reader_close(reader);
	}
	close(fd);
	log_destroy(&log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	/* the cuts are at the end, so that an archive is an input as it is */
	if (len < CUTS || len > MAX_BYTES)
		return 0;
	if (!place.base[0])
		make_place();

	int whole = write_dir("0", data, len, NULL), pieces = write_dir("1", data, len, data + len - CUTS);

	check(whole == pieces);
	check(whole || hash_of("0") == hash_of("1"));
	write_image(data, len, data + len - CUTS, whole);
	check(hash_of("canary") == place.canary && hash_of("lower") == place.lower);
	check(image_hash(place.below_image.image) == place.lower);
	check(fs_remove_tree(place.fd, "0", NULL) == 0 && fs_remove_tree(place.fd, "1", NULL) == 0 &&
	      fs_remove_tree(place.fd, "2", NULL) == 0);
	return 0;
}
