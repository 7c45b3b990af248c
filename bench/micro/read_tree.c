/* SPDX-License-Identifier: Apache-2.0
 *
 * coco-bench-tree: goes through a tree as a container that starts does, and says what that took, as one line of JSON.
 * A program of its own for bench/run, so that every tree is read by the same calls; one thread.
 *
 *	stat DIR...   looks at every entry
 *	read DIR...   reads every regular file
 *	held DIR...   looks at what the page cache has of every regular file, and reads none
 *
 * {"entries": n, "bytes": n, "cpu_s": s, "wall_s": s}: entries are all, bytes those read or held. Mounts inside are
 * left alone. A file with several names is read by each, and held once.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "engine/base/util.h"

#define PIECE_BYTES ((size_t)256 << 10)

struct tree {
	uint64_t entries, bytes;
	uint8_t *piece; /* PIECE_BYTES of data, or what mincore() says of that many pages */
	size_t page_bytes;
	void *several; /* tsearch() tree of files with several names, by device and inode */
};

struct file_id {
	dev_t device;
	ino_t inode;
};

static int compare_ids(const void *a, const void *b)
{
	const struct file_id *x = a, *y = b;

	if (x->device != y->device)
		return x->device < y->device ? -1 : 1;
	return (x->inode > y->inode) - (x->inode < y->inode);
}

/* Has a file with several names been seen by another one? */
static bool seen_before(struct tree *tree, const struct stat *st)
{
	struct file_id *id = malloc(sizeof(*id));

	if (!id)
		err(1, "out of memory");
	*id = (struct file_id){st->st_dev, st->st_ino};

	struct file_id **found = tsearch(id, &tree->several, compare_ids);

	if (!found)
		err(1, "out of memory");
	if (*found == id)
		return false;
	free(id);
	return true;
}

static void read_all(struct tree *tree, int fd, const char *path)
{
	ssize_t n;

	while ((n = read(fd, tree->piece, PIECE_BYTES)) > 0)
		tree->bytes += (uint64_t)n;
	if (n < 0)
		err(1, "reading %s", path);
}

/* By mincore(), as a mapping of overlayfs's file is one of the layer's file, whose pages they are; cachestat() looks at
 * overlayfs's own, which has none. */
static void count_held(struct tree *tree, int fd, const struct stat *st, const char *path)
{
	size_t most = PIECE_BYTES * tree->page_bytes;

	for (off_t at = 0; at < st->st_size; at += (off_t)most) {
		size_t len = (size_t)MIN((uint64_t)(st->st_size - at), (uint64_t)most);
		void *map = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, at);

		if (map == MAP_FAILED || mincore(map, len, tree->piece))
			err(1, "looking for %s in the page cache", path);
		for (size_t i = 0; i < (len + tree->page_bytes - 1) / tree->page_bytes; i++)
			tree->bytes += tree->piece[i] & 1 ? tree->page_bytes : 0;
		munmap(map, len);
	}
}

static void visit_file(struct tree *tree, const FTSENT *entry, char what)
{
	const struct stat *st = entry->fts_statp;

	if (what == 's' || (what == 'h' && (!st->st_size || (st->st_nlink > 1 && seen_before(tree, st)))))
		return;

	CLEANUP_FD int fd = open(entry->fts_accpath, O_RDONLY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);

	if (fd < 0)
		err(1, "opening %s", entry->fts_path);
	if (what == 'r')
		read_all(tree, fd, entry->fts_path);
	else
		count_held(tree, fd, st, entry->fts_path);
}

static void walk(struct tree *tree, char *const *roots, char what)
{
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_XDEV, NULL);
	FTSENT *entry;

	if (!fts)
		err(1, "going through %s", roots[0]);
	while ((errno = 0, entry = fts_read(fts))) {
		if (entry->fts_info == FTS_ERR || entry->fts_info == FTS_DNR || entry->fts_info == FTS_NS) {
			errno = entry->fts_errno;
			err(1, "going through %s", entry->fts_path);
		}
		if (entry->fts_info == FTS_DP)
			continue;
		tree->entries += entry->fts_level > 0;
		if (entry->fts_info == FTS_F)
			visit_file(tree, entry, what);
	}
	if (errno)
		err(1, "going through %s", roots[0]);
	fts_close(fts);
}

static double seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	struct tree tree = {.page_bytes = (size_t)sysconf(_SC_PAGESIZE)};

	if (argc < 3 || (strcmp(argv[1], "stat") && strcmp(argv[1], "read") && strcmp(argv[1], "held"))) {
		fprintf(stderr, "usage: coco-bench-tree stat|read|held DIR...\n");
		return 2;
	}
	tree.piece = malloc(PIECE_BYTES);
	if (!tree.piece)
		err(1, "out of memory");

	double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);

	walk(&tree, argv + 2, argv[1][0]);
	printf("{\"entries\": %llu, \"bytes\": %llu, \"cpu_s\": %.6f, \"wall_s\": %.6f}\n",
	       (unsigned long long)tree.entries, (unsigned long long)tree.bytes,
	       seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu, seconds(CLOCK_MONOTONIC) - wall);
	tdestroy(tree.several, free);
	free(tree.piece);
	return 0;
}
