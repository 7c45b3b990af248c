/* SPDX-License-Identifier: Apache-2.0
 *
 * One number over all that a tree is made of: names, types, modes, owners, times, sizes, contents, link targets,
 * devices, extended attributes. For tests that compare trees; nothing of cmocka, since fuzz targets use it too.
 */
#ifndef TESTS_TREE_HASH_H
#define TESTS_TREE_HASH_H

#include <fcntl.h>
#include <fts.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "engine/base/util.h"

#define TREE_HASH_START 14695981039346656037ull

static inline uint64_t tree_hash_bytes(uint64_t hash, const void *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ ((const uint8_t *)data)[i]) * 1099511628211ull;
	return hash;
}

static inline uint64_t tree_hash_content(uint64_t hash, const char *path)
{
	char block[16384];
	ssize_t n;
	CLEANUP_FD int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	while (fd >= 0 && (n = read(fd, block, sizeof(block))) > 0)
		hash = tree_hash_bytes(hash, block, (size_t)n);
	return hash;
}

/* In whatever order the file system lists them: a sum. */
static inline uint64_t tree_hash_xattrs(const char *path)
{
	static char names[65536], value[65536];
	ssize_t len = llistxattr(path, names, sizeof(names));
	uint64_t sum = 0;

	for (char *name = names; len > 0 && name < names + len; name += strlen(name) + 1) {
		ssize_t n = lgetxattr(path, name, value, sizeof(value));
		uint64_t one = tree_hash_bytes(TREE_HASH_START, name, strlen(name) + 1);

		sum += n > 0 ? tree_hash_bytes(one, value, (size_t)n) : one;
	}
	return sum;
}

static inline uint64_t tree_hash_file(uint64_t hash, const char *path, const char *shown, const struct stat *st)
{
	uint64_t facts[] = {st->st_mode, st->st_uid, st->st_gid, st->st_rdev, (uint64_t)st->st_mtim.tv_sec,
			    (uint64_t)st->st_mtim.tv_nsec, S_ISDIR(st->st_mode) ? 0 : st->st_nlink,
			    S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0, tree_hash_xattrs(path)};
	char target[4096];
	ssize_t n;

	/* nobody sees the time of a whiteout, nor how many share an inode */
	if (S_ISCHR(st->st_mode) && st->st_rdev == 0)
		facts[4] = facts[5] = facts[6] = 0;
	hash = tree_hash_bytes(hash, shown, strlen(shown) + 1);
	hash = tree_hash_bytes(hash, facts, sizeof(facts));
	/* a sparse file may be large beyond reading */
	if (S_ISREG(st->st_mode) && st->st_size < 16 << 20)
		hash = tree_hash_content(hash, path);
	if (S_ISLNK(st->st_mode) && (n = readlink(path, target, sizeof(target))) > 0)
		hash = tree_hash_bytes(hash, target, (size_t)n);
	return hash;
}

static inline int tree_hash_order(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* 0 when it cannot be walked. */
static inline uint64_t tree_hash(const char *root)
{
	char *const roots[] = {(char *)root, NULL};
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, tree_hash_order);
	uint64_t hash = TREE_HASH_START;
	FTSENT *e;

	while (fts && (e = fts_read(fts)))
		if (e->fts_info != FTS_DP)
			hash = tree_hash_file(hash, e->fts_accpath, e->fts_path + strlen(root), e->fts_statp);
	if (fts)
		fts_close(fts);
	return fts ? hash : 0;
}

#endif
