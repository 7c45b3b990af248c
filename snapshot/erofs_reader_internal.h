/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the EROFS reader share: the image's blocks, and the words for an inode that is bad.
 */
#ifndef SNAPSHOT_EROFS_READER_INTERNAL_H
#define SNAPSHOT_EROFS_READER_INTERNAL_H

#include "engine/base/error.h"
#include "snapshot/erofs_reader.h"

/* Lookups of neighbours touch the directory's block, and those of the inodes and their maps. */
#define EROFS_CACHE_BLOCKS 8u

struct erofs_cached_block {
	uint64_t block;
	uint64_t used; /* by the reader's clock */
	uint8_t data[EROFS_BLOCK_BYTES];
};

struct erofs_reader {
	int fd;
	uint64_t bytes;
	uint64_t meta_at;  /* of node id 0 */
	uint64_t xattr_at; /* of the shared attributes */
	struct timespec epoch;
	uint8_t uuid[16];
	bool has_devices; /* which have blocks with numbers behind those of the image */
	struct erofs_node root;
	uint64_t clock;
	struct erofs_cached_block cache[EROFS_CACHE_BLOCKS];
};

bool erofs_inside(const struct erofs_reader *r, uint64_t at, uint64_t len);
/* A block of the image, good until the next call here or below; NULL with err. The caller has checked that it is
 * inside, as for the next one. */
const uint8_t *erofs_block_get(struct erofs_reader *r, uint64_t block, struct cpull_error *err);
/* Through the cache, for what is small. */
MUST_CHECK int erofs_copy_out(struct erofs_reader *r, void *out, size_t len, uint64_t at, struct cpull_error *err);

/* One of the inodes is bad. In the header so that a compiler sees that they never return 0. */
static inline int erofs_damaged(struct cpull_error *err, uint64_t nid, const char *what)
{
	error_set(err, CPULL_ERR_STORAGE, "EROFS inode %llu is damaged: %s", (unsigned long long)nid, what);
	return CPULL_ERR_STORAGE;
}

static inline int erofs_unsupported(struct cpull_error *err, uint64_t nid, const char *what)
{
	error_set(err, CPULL_ERR_UNSUPPORTED, "EROFS inode %llu cannot be read without a mount: %s",
		  (unsigned long long)nid, what);
	return CPULL_ERR_UNSUPPORTED;
}

#endif
