/* SPDX-License-Identifier: Apache-2.0
 *
 * Checking what verity.c made, for fsck, on any number of threads; a call owns its buffers. Every block of the tree is
 * checked against the one above it before it is believed, and used from the memory that was checked: whoever owns the
 * disk may change it meanwhile.
 */
#include "snapshot/verity_check.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "crypto/block_hasher.h"
#include "engine/base/error.h"

#define NONE UINT64_MAX

struct check {
	const struct verity_image *image;
	struct verity_shape shape;
	struct block_hasher *hasher;
	uint8_t *data;              /* of the blocks under one block of leaves */
	uint8_t *path;              /* a block of each level that has been checked, leaves first */
	uint64_t at[VERITY_LEVELS]; /* which of its level, or NONE */
};

static int read_blocks(const struct check *check, uint64_t first, uint8_t *out, size_t blocks, struct cpull_error *err)
{
	size_t len = blocks * VERITY_BLOCK_BYTES;
	uint64_t offset = first * VERITY_BLOCK_BYTES;

	while (len) {
		ssize_t n = pread(check->image->fd, out, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "reading block %llu",
					 (unsigned long long)(offset / VERITY_BLOCK_BYTES));
		if (!n)
			return error_set(err, CPULL_ERR_SIZE, "it ends in block %llu, but has to have %llu of them",
					 (unsigned long long)(offset / VERITY_BLOCK_BYTES),
					 (unsigned long long)check->shape.end);
		out += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int hash(const struct check *check, const uint8_t *data, size_t blocks, uint8_t *out, struct cpull_error *err)
{
	int rc = block_hasher_run(check->hasher, data, VERITY_BLOCK_BYTES, blocks, out);

	return rc ? error_set(err, rc, "OpenSSL could not compute a hash") : 0;
}

static uint8_t *path_block(const struct check *check, unsigned level)
{
	return check->path + level * (size_t)VERITY_BLOCK_BYTES;
}

/* The hash that block `index` of a level has to have (of the data: level -1); what is above it has been checked. */
static const uint8_t *wanted(const struct check *check, int level, uint64_t index)
{
	if (level + 1 == (int)check->shape.levels)
		return check->image->root;
	return path_block(check, (unsigned)(level + 1)) + index % VERITY_HASHES_PER_BLOCK * VERITY_HASH_BYTES;
}

/* Reads and checks one block of the tree. */
static int take_block(struct check *check, unsigned level, uint64_t index, struct cpull_error *err)
{
	uint64_t block = check->shape.level[level].first + index;
	uint8_t got[VERITY_HASH_BYTES];
	int rc;

	check->at[level] = NONE;
	rc = read_blocks(check, block, path_block(check, level), 1, err);
	if (!rc)
		rc = hash(check, path_block(check, level), 1, got, err);
	if (rc)
		return rc;
	if (memcmp(got, wanted(check, (int)level, index), sizeof(got)))
		return error_set(err, CPULL_ERR_DIGEST, level + 1 == check->shape.levels
				 ? "block %llu, the top of its hash tree, does not have the root hash"
				 : "block %llu, of its hash tree, does not match the hash above it",
				 (unsigned long long)block);
	check->at[level] = index;
	return 0;
}

/* Gets a block of leaves, and before it what vouches for it. */
static int take_leaves(struct check *check, uint64_t index, struct cpull_error *err)
{
	int rc = 0;

	for (unsigned k = check->shape.levels; !rc && k-- > 0;) {
		uint64_t of_level = index;

		for (unsigned i = 0; i < k; i++)
			of_level /= VERITY_HASHES_PER_BLOCK;
		if (check->at[k] != of_level)
			rc = take_block(check, k, of_level, err);
	}
	return rc;
}

/* Blocks under one block of leaves. */
static int check_some(struct check *check, uint64_t first, size_t count, struct cpull_error *err)
{
	uint8_t got[VERITY_HASHES_PER_BLOCK * VERITY_HASH_BYTES];
	int rc = check->shape.levels ? take_leaves(check, first / VERITY_HASHES_PER_BLOCK, err) : 0;

	if (!rc)
		rc = read_blocks(check, first, check->data, count, err);
	if (!rc)
		rc = hash(check, check->data, count, got, err);
	for (size_t i = 0; !rc && i < count; i++)
		if (memcmp(got + i * VERITY_HASH_BYTES, wanted(check, -1, first + i), VERITY_HASH_BYTES))
			rc = error_set(err, CPULL_ERR_DIGEST, "block %llu does not match its hash",
				       (unsigned long long)(first + i));
	return rc;
}

/* The root hash says nothing of the superblock, but veritysetup reads it. */
static int check_super(struct check *check, struct cpull_error *err)
{
	const struct verity_image *image = check->image;
	uint8_t want[VERITY_BLOCK_BYTES];
	int rc = read_blocks(check, image->data_blocks, check->data, 1, err);

	if (rc)
		return rc;
	verity_super_fill(want, verity_super_uuid(check->data), image->data_blocks, image->salt, image->salt_len);
	if (memcmp(check->data, want, sizeof(want)))
		return error_set(err, CPULL_ERR_DIGEST, "block %llu is not the superblock of its hash tree",
				 (unsigned long long)image->data_blocks);
	return 0;
}

static int check_range(struct check *check, uint64_t first, uint64_t end, struct cpull_error *err)
{
	int rc = 0;

	for (uint64_t at = first; !rc && at < end;) {
		uint64_t stop = at - at % VERITY_HASHES_PER_BLOCK + VERITY_HASHES_PER_BLOCK;

		stop = MIN(stop, end);
		rc = check_some(check, at, (size_t)(stop - at), err);
		at = stop;
	}
	return !rc && end == check->shape.data_blocks ? check_super(check, err) : rc;
}

int verity_check(const struct verity_image *image, uint64_t first, uint64_t count, struct cpull_error *err)
{
	if (!image->data_blocks || image->data_blocks > VERITY_DATA_BLOCKS || image->salt_len > VERITY_SALT_BYTES)
		return error_set(err, CPULL_ERR_USAGE, "verity: %llu blocks and a salt of %zu bytes are no hash tree",
				 (unsigned long long)image->data_blocks, image->salt_len);
	if (first > image->data_blocks || count > image->data_blocks - first)
		return error_set(err, CPULL_ERR_USAGE, "verity: block %llu is checked of %llu",
				 (unsigned long long)(first + count), (unsigned long long)image->data_blocks);

	struct check check = {.image = image, .shape = verity_shape_of(image->data_blocks)};
	CLEANUP_FREE uint8_t *buffer = NULL;
	size_t blocks = VERITY_HASHES_PER_BLOCK + check.shape.levels;

	/* aligned, so that the file may be read with O_DIRECT */
	if (posix_memalign((void **)&buffer, VERITY_BLOCK_BYTES, blocks * VERITY_BLOCK_BYTES))
		return error_nomem(err);
	check.data = buffer;
	check.path = buffer + (size_t)VERITY_HASHES_PER_BLOCK * VERITY_BLOCK_BYTES;
	memset(check.at, 0xff, sizeof(check.at));

	int rc = block_hasher_new(image->salt, image->salt_len, &check.hasher, err);

	if (!rc)
		rc = check_range(&check, first, first + count, err);
	block_hasher_free(check.hasher);
	return rc;
}
