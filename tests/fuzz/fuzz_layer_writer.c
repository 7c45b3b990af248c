/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a layer: written twice, whole by one thread, and with a helper in pieces whose sizes come from the last
 * bytes, tied to a lower layer both times. Both must fail alike or leave the same tree; the lower layer and what lies
 * beside the layer must stay as they were.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "snapshot/dir_fs.h"
#include "snapshot/layer_writer.h"
#include "tar_mutator.h"
#include "tests/tree_hash.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define CUTS 4u
#define MAX_BYTES (1u << 20)

/* base/canary, base/lower: never to be changed; base/0, base/1: the layer's two versions. */
static struct {
	char base[64];
	int fd;
	struct lower_layer below;
	uint64_t canary, lower;
} place;

static void check(bool good)
{
	if (!good)
		abort();
}

static void path_of(const char *name, char out[128])
{
	snprintf(out, 128, "%s/%s", place.base, name);
}

static uint64_t hash_of(const char *name)
{
	char path[128];

	path_of(name, path);
	return tree_hash(path);
}

static void make_file(const char *name, const char *text)
{
	CLEANUP_FD int fd = openat(place.fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	check(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

static void leave(void)
{
	check(fs_remove_tree(AT_FDCWD, place.base, NULL) == 0);
}

/* What the names in the corpus have below them. */
static void make_place(void)
{
	static const char *const dirs[] = {"canary",	    "canary/d", "lower",    "lower/usr",
					   "lower/usr/bin", "lower/a",	"lower/a/b"};
	static const char *const links[][2] = {{"usr/bin", "lower/bin"}, {"/", "lower/r"},
					       {".", "lower/a/here"},	 {"../../canary", "lower/out"},
					       {"loop", "lower/loop"},	 {"b", "lower/a/c"}};

	strcpy(place.base, access("/dev/shm", W_OK) ? "/tmp/fuzz-layer-XXXXXX" : "/dev/shm/fuzz-layer-XXXXXX");
	check(mkdtemp(place.base) && atexit(leave) == 0);
	place.fd = open(place.base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
		check(mkdirat(place.fd, dirs[i], 0750) == 0);
	for (size_t i = 0; i < ARRAY_LEN(links); i++)
		check(symlinkat(links[i][0], place.fd, links[i][1]) == 0);
	make_file("canary/f", "alive");
	make_file("canary/d/f", "alive");
	make_file("lower/f", "f");
	make_file("lower/a/x", "x");
	make_file("lower/a/b/y", "y");
	make_file("lower/usr/bin/tool", "tool");
	place.below.dirfd = openat(place.fd, "lower", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check(place.below.dirfd >= 0);
	place.canary = hash_of("canary");
	place.lower = hash_of("lower");
}

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

static int write_layer(const char *name, const uint8_t *data, size_t len, const uint8_t *cuts)
{
	struct cpull_error err = {0};
	struct dir_fs_options dir = {.io = CPULL_IO_SYNC, .helper = cuts ? FILE_HELPER_FIRST : FILE_HELPER_NEVER};
	struct layer_writer_options options = {0};
	struct layer_writer *writer;
	struct pool *pool;
	struct pool_share *share;
	struct log log;

	log_init(&log, NULL, NULL, CPULL_LOG_ERROR);
	check(mkdirat(place.fd, name, 0700) == 0);
	dir.log = &log;
	dir.dirfd = fs_open_dir(place.fd, name);
	check(pool_new(MAX_BYTES, 2, &pool, &err) == 0);
	check(pool_share_open(pool, 2, 2, &share) == 0);
	check(dir_fs_new(&dir, &options.fs, &err) == 0);
	check(layer_writer_new(&options, &writer, &err) == 0);

	int rc = feed(writer, data, len, cuts, share, &err);

	if (!rc)
		rc = layer_writer_finish(writer, NULL, &err);
	if (!rc)
		rc = layer_writer_tie(writer, &place.below, 1, &err);
	if (!rc)
		rc = layer_writer_seal(writer, &err);
	check(rc <= 0 && (rc == 0 || (err.code == rc && err.message[0] && rc != CPULL_ERR_INTERNAL)));
	check(rc || !layer_writer_has_loose_ends(writer));
	layer_writer_free(writer);
	pool_share_close(share);
	pool_free(pool);
	close(dir.dirfd);
	log_destroy(&log);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	/* the cuts are at the end, so that an archive is an input as it is */
	if (len < CUTS || len > MAX_BYTES)
		return 0;
	if (!place.base[0])
		make_place();

	int whole = write_layer("0", data, len, NULL), pieces = write_layer("1", data, len, data + len - CUTS);

	check(whole == pieces);
	check(whole || hash_of("0") == hash_of("1"));
	check(hash_of("canary") == place.canary && hash_of("lower") == place.lower);
	check(fs_remove_tree(place.fd, "0", NULL) == 0 && fs_remove_tree(place.fd, "1", NULL) == 0);
	return 0;
}
