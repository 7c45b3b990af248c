/* SPDX-License-Identifier: Apache-2.0
 *
 * Making a hash tree. Called by whoever writes the file, on that thread; owns the hashes of all blocks so far.
 *
 * The tree lies behind the data with its leaves last, so nobody knows the place of a leaf before the layer is at its
 * end: leaves are kept, 32 bytes for each block of data. The newest of them are in a window of memory. Those before it
 * are in a spool file, which is there for files of more than 128 MiB only, is written in order and in large pieces, and
 * takes the few late changes (block 0, which is written last) in place. All the levels above the leaves come of one
 * reading of these, at the end.
 */
#include "snapshot/verity.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "crypto/block_hasher.h"
#include "engine/base/error.h"
#include "engine/base/fs.h"

#define WINDOW_LEAVES (VERITY_MEMORY_BYTES / VERITY_HASH_BYTES)
/* So many blocks of a level are hashed and written at once. */
#define PIECE_BLOCKS 16u
#define PIECE_BYTES (PIECE_BLOCKS * VERITY_BLOCK_BYTES)
#define PIECE_LEAVES (PIECE_BYTES / VERITY_HASH_BYTES)
/* Leaves that change in the spool are written so many at a time. */
#define CHANGED_LEAVES 64u

_Static_assert(VERITY_HASH_BYTES == BLOCK_HASH_BYTES, "hashes are the hasher's");
/* a piece's hashes fill a part of the piece above without rest */
_Static_assert(PIECE_LEAVES % PIECE_BLOCKS == 0 && WINDOW_LEAVES % PIECE_LEAVES == 0, "sizes of pieces");

struct verity {
	struct block_hasher *hasher;
	uint8_t uuid[16];
	uint8_t salt[VERITY_SALT_BYTES];
	size_t salt_len;
	int spool_dirfd; /* borrowed */

	uint64_t count;  /* leaves that there are */
	uint8_t *window; /* those from `base` on */
	uint64_t base;   /* a multiple of WINDOW_LEAVES */
	int spool;       /* those before, or -1 when there are none */
	uint8_t zero_leaf[VERITY_HASH_BYTES]; /* of a block of zeros */
};

/* A level at work: what of it is not written yet. */
struct level {
	uint8_t *piece;
	size_t filled; /* bytes */
	uint64_t next; /* block of the file */
};

struct tree {
	struct verity *verity;
	int fd;
	struct verity_shape shape;
	struct level levels[VERITY_LEVELS]; /* leaves first */
	uint8_t root[VERITY_HASH_BYTES];
};

static int hash(const struct verity *verity, const void *data, size_t blocks, uint8_t *out, struct cpull_error *err)
{
	int rc = block_hasher_run(verity->hasher, data, VERITY_BLOCK_BYTES, blocks, out);

	return rc ? error_set(err, rc, "verity: OpenSSL could not compute a hash") : 0;
}

static int start(struct verity *verity, const struct verity_options *options, struct cpull_error *err)
{
	CLEANUP_FREE uint8_t *zeros = calloc(1, VERITY_BLOCK_BYTES);
	int rc = block_hasher_new(options->salt, options->salt_len, &verity->hasher, err);

	if (rc)
		return rc;
	/* touched as it fills */
	verity->window = malloc(WINDOW_LEAVES * VERITY_HASH_BYTES);
	return zeros && verity->window ? hash(verity, zeros, 1, verity->zero_leaf, err) : error_nomem(err);
}

int verity_new(const struct verity_options *options, struct verity **out, struct cpull_error *err)
{
	*out = NULL;
	if (options->salt_len > VERITY_SALT_BYTES)
		return error_set(err, CPULL_ERR_USAGE, "verity: a salt has %u bytes at most, not %zu",
				 VERITY_SALT_BYTES, options->salt_len);

	struct verity *verity = calloc(1, sizeof(*verity));

	if (!verity)
		return error_nomem(err);
	verity->spool = -1;
	verity->spool_dirfd = options->spool_dirfd;
	memcpy(verity->uuid, options->uuid, sizeof(verity->uuid));
	verity->salt_len = options->salt_len;
	if (options->salt_len)
		memcpy(verity->salt, options->salt, options->salt_len);

	int rc = start(verity, options, err);

	if (rc) {
		verity_free(verity);
		return rc;
	}
	*out = verity;
	return 0;
}

void verity_free(struct verity *verity)
{
	if (!verity)
		return;
	if (verity->spool >= 0)
		close(verity->spool);
	block_hasher_free(verity->hasher);
	free(verity->window);
	free(verity);
}

/* ---- leaves ---- */

static int spool_write(struct verity *verity, uint64_t first, const uint8_t *leaves, size_t count,
		       struct cpull_error *err)
{
	int rc = fs_write_all(verity->spool, leaves, count * VERITY_HASH_BYTES, first * VERITY_HASH_BYTES);

	return rc ? error_sys(err, CPULL_ERR_STORAGE, -rc, "writing the spool of a hash tree") : 0;
}

/* The window is full: what is in it goes to the spool. */
static int spill(struct verity *verity, struct cpull_error *err)
{
	if (verity->spool < 0)
		verity->spool = fs_temp_file(verity->spool_dirfd);
	if (verity->spool < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "making a spool file for a hash tree");

	int rc = spool_write(verity, verity->base, verity->window, WINDOW_LEAVES, err);

	if (!rc)
		verity->base += WINDOW_LEAVES;
	return rc;
}

/* Where in the window leaf `at` goes, which is none of those in the spool, with room for *room more; NULL: see err. */
static uint8_t *window_at(struct verity *verity, uint64_t at, size_t *room, int *rc, struct cpull_error *err)
{
	assert(at >= verity->base && at - verity->base <= WINDOW_LEAVES);
	*rc = at - verity->base == WINDOW_LEAVES ? spill(verity, err) : 0;
	if (*rc)
		return NULL;
	*room = WINDOW_LEAVES - (size_t)(at - verity->base);
	return verity->window + (at - verity->base) * VERITY_HASH_BYTES;
}

static int fill_gap(struct verity *verity, uint64_t end, struct cpull_error *err)
{
	while (verity->count < end) {
		size_t room;
		int rc;
		uint8_t *leaf = window_at(verity, verity->count, &room, &rc, err);

		if (!leaf)
			return rc;
		for (; room && verity->count < end; room--, verity->count++, leaf += VERITY_HASH_BYTES)
			memcpy(leaf, verity->zero_leaf, VERITY_HASH_BYTES);
	}
	return 0;
}

static int change_spooled(struct verity *verity, uint64_t first, const uint8_t *data, size_t blocks,
			  struct cpull_error *err)
{
	uint8_t leaves[CHANGED_LEAVES * VERITY_HASH_BYTES];
	int rc = hash(verity, data, blocks, leaves, err);

	return rc ? rc : spool_write(verity, first, leaves, blocks, err);
}

/* As many of the blocks as are on one side of the window's beginning and end. Returns how many, or an error. */
static int add_some(struct verity *verity, uint64_t first, const uint8_t *data, size_t blocks, size_t *done,
		    struct cpull_error *err)
{
	if (first < verity->base) {
		*done = MIN(MIN(blocks, CHANGED_LEAVES), (size_t)(verity->base - first));
		return change_spooled(verity, first, data, *done, err);
	}

	size_t room;
	int rc;
	uint8_t *leaves = window_at(verity, first, &room, &rc, err);

	*done = leaves ? MIN(blocks, room) : 0;
	return leaves ? hash(verity, data, *done, leaves, err) : rc;
}

int verity_add(struct verity *verity, uint64_t first, const void *data, size_t blocks, struct cpull_error *err)
{
	const uint8_t *at = data;

	if (blocks > VERITY_DATA_BLOCKS || first > VERITY_DATA_BLOCKS - blocks)
		return error_set(err, CPULL_ERR_LIMIT, "verity: a file of more than %u blocks", VERITY_DATA_BLOCKS);

	int rc = fill_gap(verity, first, err);

	while (!rc && blocks) {
		size_t done = 0;

		rc = add_some(verity, first, at, blocks, &done, err);
		first += done;
		at += done * VERITY_BLOCK_BYTES;
		blocks -= done;
		if (!rc)
			verity->count = MAX(verity->count, first);
	}
	return rc;
}

static int spool_read(const struct verity *verity, uint64_t first, uint8_t *out, size_t count, struct cpull_error *err)
{
	size_t len = count * VERITY_HASH_BYTES;
	uint64_t offset = first * VERITY_HASH_BYTES;

	while (len) {
		ssize_t n = pread(verity->spool, out, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_sys(err, CPULL_ERR_STORAGE, n ? errno : EIO, "reading the spool of a hash tree");
		out += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

/* ---- the tree ---- */

/* Writes what there is of a level, and hands its hashes up. */
static int flush_level(struct tree *tree, unsigned k, struct cpull_error *err)
{
	struct level *level = &tree->levels[k], *above = &tree->levels[k + 1];
	bool top = k + 1 == tree->shape.levels;
	size_t blocks = (level->filled + VERITY_BLOCK_BYTES - 1) / VERITY_BLOCK_BYTES;

	memset(level->piece + level->filled, 0, blocks * VERITY_BLOCK_BYTES - level->filled);

	int rc = fs_write_all(tree->fd, level->piece, blocks * VERITY_BLOCK_BYTES, level->next * VERITY_BLOCK_BYTES);

	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "writing the hash tree");
	level->next += blocks;
	level->filled = 0;
	assert(!top || blocks == 1);
	rc = hash(tree->verity, level->piece, blocks, top ? tree->root : above->piece + above->filled, err);
	if (!rc && !top)
		above->filled += blocks * VERITY_HASH_BYTES;
	return rc;
}

/* Flushes the leaves, and above them what that has filled. */
static int carry(struct tree *tree, bool last, struct cpull_error *err)
{
	int rc = 0;

	for (unsigned k = 0; !rc && k < tree->shape.levels && (last || tree->levels[k].filled == PIECE_BYTES); k++)
		if (tree->levels[k].filled)
			rc = flush_level(tree, k, err);
	return rc;
}

static int write_levels(struct tree *tree, struct cpull_error *err)
{
	struct verity *verity = tree->verity;
	int rc = 0;

	for (uint64_t at = 0; !rc && at < verity->count; at += PIECE_LEAVES) {
		size_t count = (size_t)MIN(verity->count - at, (uint64_t)PIECE_LEAVES);
		uint8_t *to = tree->levels[0].piece;

		if (at < verity->base)
			rc = spool_read(verity, at, to, count, err);
		else
			memcpy(to, verity->window + (at - verity->base) * VERITY_HASH_BYTES,
			       count * VERITY_HASH_BYTES);
		tree->levels[0].filled = count * VERITY_HASH_BYTES;
		if (!rc)
			rc = carry(tree, at + count == verity->count, err);
	}
	for (unsigned k = 0; !rc && k < tree->shape.levels; k++)
		assert(tree->levels[k].next == tree->shape.level[k].first + tree->shape.level[k].blocks);
	return rc;
}

static int write_super(struct tree *tree, uint8_t *block, struct cpull_error *err)
{
	struct verity *verity = tree->verity;

	verity_super_fill(block, verity->uuid, verity->count, verity->salt, verity->salt_len);

	int rc = fs_write_all(tree->fd, block, VERITY_BLOCK_BYTES, verity->count * VERITY_BLOCK_BYTES);

	return rc ? error_sys(err, CPULL_ERR_STORAGE, -rc, "writing the hash tree's superblock") : 0;
}

static int write_tree(struct tree *tree, struct cpull_error *err)
{
	CLEANUP_FREE uint8_t *pieces = NULL;

	if (posix_memalign((void **)&pieces, VERITY_BLOCK_BYTES, MAX(tree->shape.levels, 1) * (size_t)PIECE_BYTES))
		return error_nomem(err);
	for (unsigned k = 0; k < tree->shape.levels; k++)
		tree->levels[k] = (struct level){.piece = pieces + k * (size_t)PIECE_BYTES,
						 .next = tree->shape.level[k].first};

	int rc = write_super(tree, pieces, err);

	if (!tree->shape.levels)
		memcpy(tree->root, tree->verity->window, VERITY_HASH_BYTES);
	return rc || !tree->shape.levels ? rc : write_levels(tree, err);
}

int verity_finish(struct verity *verity, int fd, uint64_t data_blocks, struct verity_result *out,
		  struct cpull_error *err)
{
	if (!data_blocks || data_blocks < verity->count || data_blocks > VERITY_DATA_BLOCKS)
		return error_set(err, CPULL_ERR_USAGE, "verity: a tree over %llu blocks, of which %llu were handed in",
				 (unsigned long long)data_blocks, (unsigned long long)verity->count);

	int rc = fill_gap(verity, data_blocks, err);

	if (rc)
		return rc;

	struct tree tree = {.verity = verity, .fd = fd, .shape = verity_shape_of(data_blocks)};

	rc = write_tree(&tree, err);
	if (rc)
		return rc;
	memcpy(out->root, tree.root, sizeof(out->root));
	out->file_blocks = tree.shape.end;
	return 0;
}
