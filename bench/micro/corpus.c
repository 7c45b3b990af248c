/* SPDX-License-Identifier: Apache-2.0
 *
 * Makes the data: files of /usr as tar(1) writes them. On the main thread, before anything is measured; what it makes
 * belongs to the caller. tar reads the names from a memory file and writes into a pipe, so that no disk is needed.
 */
#include "bench/micro/corpus.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <zlib.h>
#include <zstd.h>

#include "bench/micro/unpack.h"
#include "engine/base/error.h"
#include "engine/base/limits.h"

/* One library must not be half of the data. */
#define FILE_MAX_BYTES (8u << 20)
#define CORPUS_MAX_BYTES ((size_t)4 << 30)

extern char **environ;

int span_map(const char *path, struct span *out, struct cpull_error *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening %s", path);
	if (st.st_size == 0)
		return error_set(err, CPULL_ERR_USAGE, "%s is empty", path);

	void *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);

	if (at == MAP_FAILED)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "mapping %s", path);
	*out = (struct span){.data = at, .len = (size_t)st.st_size};
	return 0;
}

void span_unmap(struct span *span)
{
	if (span->data)
		munmap(span->data, span->len);
	*span = (struct span){0};
}

/* ---- the selection ---- */

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* Writes the names of regular files below `top`, NUL after each, until they have `bytes`. */
static int list_files(FILE *names, char *top, size_t bytes, struct cpull_error *err)
{
	char *tops[] = {top, NULL};
	FTS *fts = fts_open(tops, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
	uint64_t sum = 0;
	FTSENT *entry;

	if (!fts)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "listing %s", top);
	while (sum < bytes && (entry = fts_read(fts))) {
		/* an empty file says nothing, and one that nobody may read makes tar fail */
		if (entry->fts_info != FTS_F || entry->fts_statp->st_size > FILE_MAX_BYTES ||
		    access(entry->fts_path, R_OK))
			continue;
		fwrite(entry->fts_path, 1, (size_t)entry->fts_pathlen + 1, names);
		sum += (uint64_t)entry->fts_statp->st_size;
	}
	fts_close(fts);
	return 0;
}

/* A memory file with the names, at its start. */
static int make_list(size_t bytes, int *out, struct cpull_error *err)
{
	char lib[] = "/usr/lib", share[] = "/usr/share";
	CLEANUP_FD int fd = memfd_create("names", MFD_CLOEXEC);
	CLEANUP_FILE FILE *names = fd < 0 ? NULL : fdopen(dup(fd), "w");

	if (!names)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "making the list of files");

	int rc = list_files(names, lib, bytes / 2, err);

	if (!rc)
		rc = list_files(names, share, bytes / 2, err);
	if (!rc && (fflush(names) || lseek(fd, 0, SEEK_SET) < 0))
		rc = error_sys(err, CPULL_ERR_STORAGE, errno, "writing the list of files");
	if (!rc)
		*out = steal_fd(&fd);
	return rc;
}

/* ---- tar ---- */

static int spawn_tar(int names, int out, pid_t *pid, struct cpull_error *err)
{
	char *argv[] = {"tar", "--null", "--no-recursion", "--numeric-owner", "--format=gnu", "--warning=none",
			"-P",  "-T",     "-",              "-cf",             "-",            NULL};
	posix_spawn_file_actions_t actions;
	int rc;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, names, 0);
	posix_spawn_file_actions_adddup2(&actions, out, 1);
	rc = posix_spawnp(pid, "tar", &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return rc ? error_sys(err, CPULL_ERR_INTERNAL, rc, "starting tar") : 0;
}

static int read_all(int fd, struct bytes *out, struct cpull_error *err)
{
	CLEANUP_FREE char *buf = malloc(1u << 20);
	ssize_t n;

	if (!buf)
		return error_nomem(err);
	while ((n = read(fd, buf, 1u << 20)) > 0) {
		int rc = bytes_append(out, buf, (size_t)n, CORPUS_MAX_BYTES);

		if (rc)
			return error_set(err, rc, "keeping the tar");
	}
	return n < 0 ? error_sys(err, CPULL_ERR_STORAGE, errno, "reading from tar") : 0;
}

static int make_tar(size_t bytes, struct span *out, struct cpull_error *err)
{
	CLEANUP_FD int names = -1;
	struct bytes tar = {0};
	int pipes[2], status = 0;
	pid_t pid = -1;
	int rc = make_list(bytes, &names, err);

	if (rc)
		return rc;
	if (pipe2(pipes, O_CLOEXEC))
		return error_sys(err, CPULL_ERR_INTERNAL, errno, "making a pipe");
	rc = spawn_tar(names, pipes[1], &pid, err);
	close(pipes[1]);
	if (!rc)
		rc = read_all(pipes[0], &tar, err);
	close(pipes[0]);
	if (pid > 0 && waitpid(pid, &status, 0) == pid && status && !rc)
		rc = error_set(err, CPULL_ERR_INTERNAL, "tar fails on files of /usr");
	if (rc)
		bytes_free(&tar);
	else
		*out = (struct span){.data = (uint8_t *)tar.data, .len = tar.len};
	return rc;
}

/* ---- compressed ---- */

static int compress_gzip(const struct span *in, struct span *out, struct cpull_error *err)
{
	z_stream s = {.next_in = in->data, .avail_in = (uint32_t)in->len};

	if (in->len > UINT32_MAX)
		return error_set(err, CPULL_ERR_LIMIT, "a tar of more than 4 GiB is not compressed here");
	if (deflateInit2(&s, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return error_nomem(err);

	size_t room = deflateBound(&s, in->len);

	out->data = malloc(room);
	s.next_out = out->data;
	s.avail_out = (uint32_t)MIN(room, UINT32_MAX);

	bool ok = out->data && deflate(&s, Z_FINISH) == Z_STREAM_END;

	out->len = room - s.avail_out;
	deflateEnd(&s);
	return ok ? 0 : error_set(err, CPULL_ERR_INTERNAL, "zlib cannot compress the tar");
}

int compress_zstd(const struct span *in, int window_log, struct span *out, struct cpull_error *err)
{
	ZSTD_CCtx *ctx = ZSTD_createCCtx();
	size_t room = ZSTD_compressBound(in->len), made = 0;

	out->data = malloc(room);

	bool ok = ctx && out->data && !ZSTD_isError(ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, 3)) &&
		  !ZSTD_isError(ZSTD_CCtx_setParameter(ctx, ZSTD_c_windowLog, window_log));

	/* a window of that size even where all of it would fit a smaller one: what a stream has */
	if (ok && window_log)
		ok = !ZSTD_isError(ZSTD_CCtx_setParameter(ctx, ZSTD_c_contentSizeFlag, 0)) &&
		     !ZSTD_isError(ZSTD_CCtx_setParameter(ctx, ZSTD_c_enableLongDistanceMatching, 1));
	if (ok) {
		made = ZSTD_compress2(ctx, out->data, room, in->data, in->len);
		ok = !ZSTD_isError(made);
	}
	ZSTD_freeCCtx(ctx);
	out->len = made;
	return ok ? 0 : error_set(err, CPULL_ERR_INTERNAL, "zstd cannot compress the tar");
}

static int compress_missing(struct corpus *c, struct cpull_error *err)
{
	int rc = c->gzip.data ? 0 : compress_gzip(&c->tar, &c->gzip, err);

	if (!rc && !c->zstd.data)
		rc = compress_zstd(&c->tar, 0, &c->zstd, err);
	return rc ? rc : compress_zstd(&c->tar, LIMIT_ZSTD_WINDOW_LOG, &c->zstd_long, err);
}

int corpus_make(size_t bytes, struct corpus *out, struct cpull_error *err)
{
	int rc = make_tar(bytes, &out->tar, err);

	return rc ? rc : compress_missing(out, err);
}

static int keep(void *payload, uint8_t *data, size_t len, struct cpull_error *err)
{
	int rc = bytes_append(payload, data, len, CORPUS_MAX_BYTES);

	return rc ? error_set(err, rc, "keeping the tar") : 0;
}

int corpus_load(const char *path, struct corpus *out, struct cpull_error *err)
{
	struct bytes file = {0}, tar = {0};
	struct unpack_sink sink = {.take = keep, .payload = &tar};
	int rc = file_read(path, CORPUS_MAX_BYTES, "tar", &file, err);
	struct span packed = {.data = (uint8_t *)file.data, .len = file.len};
	unpack_fn unpack = rc ? NULL : unpack_bound(&packed);

	if (rc)
		return rc;
	if (!unpack) {
		out->tar = packed;
	} else {
		*(unpack == unpack_zstd ? &out->zstd : &out->gzip) = packed;
		rc = unpack(&packed, &sink, err);
		out->tar = (struct span){.data = (uint8_t *)tar.data, .len = tar.len};
	}
	return rc ? rc : compress_missing(out, err);
}

void corpus_free(struct corpus *corpus)
{
	free(corpus->tar.data);
	free(corpus->gzip.data);
	free(corpus->zstd.data);
	free(corpus->zstd_long.data);
}
