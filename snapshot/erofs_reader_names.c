/* SPDX-License-Identifier: Apache-2.0
 *
 * Names in an EROFS image: the part of the reader that looks them up and lists them. On the reader's thread; owns
 * nothing. A directory is blocks of entries that all are in one order, so a search halves the blocks by their first
 * names, then the entries of one.
 */
#include "snapshot/erofs_reader_internal.h"

#include <endian.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/error.h"

/* One block of a directory, good until another block of the image is read. */
struct dir_block {
	uint64_t nid;
	const uint8_t *data;
	size_t bytes;
	unsigned count;
};

struct dir_entry {
	uint64_t nid;
	unsigned type;
	const char *name;
	size_t name_len;
};

static struct erofs_dirent dirent_at(const struct dir_block *block, unsigned i)
{
	struct erofs_dirent out;

	memcpy(&out, block->data + i * sizeof(out), sizeof(out));
	return out;
}

static uint64_t dir_blocks(const struct erofs_node *dir)
{
	return dir->size / EROFS_BLOCK_BYTES + (dir->size % EROFS_BLOCK_BYTES != 0);
}

static int dir_block_get(struct erofs_reader *r, const struct erofs_node *dir, uint64_t number, struct dir_block *out,
			 struct cpull_error *err)
{
	uint64_t offset = number * EROFS_BLOCK_BYTES;
	struct erofs_extent extent;
	int rc = erofs_reader_map(r, dir, offset, &extent, err);

	if (rc)
		return rc;

	/* whole blocks are blocks of the image, and a tail is inside of one */
	const uint8_t *data = erofs_block_get(r, extent.at / EROFS_BLOCK_BYTES, err);

	if (!data)
		return CPULL_ERR_STORAGE;
	*out = (struct dir_block){
		.nid = dir->nid,
		.data = data + extent.at % EROFS_BLOCK_BYTES,
		.bytes = (size_t)MIN(dir->size - offset, EROFS_BLOCK_BYTES),
	};

	size_t first = out->bytes < sizeof(struct erofs_dirent) ? 0 : le16toh(dirent_at(out, 0).name_offset);

	if (!first || first % sizeof(struct erofs_dirent) || first >= out->bytes)
		return erofs_damaged(err, dir->nid, "a block of the directory says a wrong number of entries");
	out->count = (unsigned)(first / sizeof(struct erofs_dirent));
	return 0;
}

static int dir_entry_get(const struct dir_block *block, unsigned i, struct dir_entry *out, struct cpull_error *err)
{
	struct erofs_dirent dirent = dirent_at(block, i);
	size_t at = le16toh(dirent.name_offset), end = block->bytes;

	if (i + 1 < block->count)
		end = le16toh(dirent_at(block, i + 1).name_offset);
	if (at < block->count * sizeof(dirent) || end > block->bytes || at >= end)
		return erofs_damaged(err, block->nid, "a name is not where the names of its directory are");
	out->nid = le64toh(dirent.nid);
	out->type = dirent.type;
	out->name = (const char *)block->data + at;
	out->name_len = i + 1 < block->count ? end - at : strnlen(out->name, end - at);
	if (!out->name_len || out->name_len > LIMIT_NAME_BYTES || memchr(out->name, 0, out->name_len) ||
	    memchr(out->name, '/', out->name_len))
		return erofs_damaged(err, block->nid,
				     "a name in the directory has a NUL or a slash, or not 1 to 255 bytes");
	return 0;
}

/* The order of a directory: by bytes, the shorter one first. */
static int compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
	int out = memcmp(a, b, MIN(a_len, b_len));

	return out ? out : (a_len > b_len) - (a_len < b_len);
}

/* The last block that does not begin behind the name, in *out. 1, 0 when all do. */
static int search_blocks(struct erofs_reader *r, const struct erofs_node *dir, const char *name, size_t len,
			 struct dir_block *out, struct cpull_error *err)
{
	uint64_t low = 0, high = dir_blocks(dir);
	struct dir_entry first;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		int rc = dir_block_get(r, dir, middle, out, err);

		if (!rc)
			rc = dir_entry_get(out, 0, &first, err);
		if (rc)
			return rc;
		if (compare(first.name, first.name_len, name, len) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low)
		return 0;

	int rc = dir_block_get(r, dir, low - 1, out, err);

	return rc ? rc : 1;
}

/* 1, 0, or an error. */
static int search_names(const struct dir_block *block, const char *name, size_t len, struct dir_entry *out,
			struct cpull_error *err)
{
	unsigned low = 0, high = block->count;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		int rc = dir_entry_get(block, middle, out, err);

		if (rc)
			return rc;

		int order = compare(out->name, out->name_len, name, len);

		if (!order)
			return 1;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return 0;
}

int erofs_reader_lookup(struct erofs_reader *reader, const struct erofs_node *dir, const char *name, size_t len,
			struct erofs_node *out, struct cpull_error *err)
{
	struct dir_block block;
	struct dir_entry entry;
	uint64_t nid = dir->nid; /* out may be dir */

	if (!S_ISDIR(dir->mode) || !len || len > LIMIT_NAME_BYTES)
		return 0;

	int rc = search_blocks(reader, dir, name, len, &block, err);

	if (rc > 0)
		rc = search_names(&block, name, len, &entry, err);
	if (rc <= 0)
		return rc;
	rc = erofs_reader_node(reader, entry.nid, out, err);
	if (rc)
		return rc;
	if (erofs_type_of(out->mode) != entry.type)
		return erofs_damaged(err, nid, "a name in the directory has another type than its inode");
	return 1;
}

int erofs_reader_find(struct erofs_reader *reader, const char *path, struct erofs_node *out, struct cpull_error *err)
{
	*out = reader->root;
	for (size_t len; *path; path += len) {
		path += strspn(path, "/");
		len = strcspn(path, "/");
		if (!len || (len == 1 && *path == '.'))
			continue;
		if (len == 2 && memcmp(path, "..", 2) == 0)
			return error_set(err, CPULL_ERR_USAGE, "a path to look up in an EROFS image has a \"..\"");

		int rc = erofs_reader_lookup(reader, out, path, len, out, err);

		if (rc <= 0)
			return rc;
	}
	return 1;
}

void erofs_reader_list(const struct erofs_node *dir, struct erofs_listing *out)
{
	out->dir = *dir;
	out->block = 0;
	out->index = 0;
	out->name_len = 0;
}

static bool is_dots(const struct erofs_listing *l)
{
	return l->name[0] == '.' && (l->name_len == 1 || (l->name_len == 2 && l->name[1] == '.'));
}

/* One entry, whatever it is. 1, 0 at the end, or an error. */
static int list_one(struct erofs_reader *r, struct erofs_listing *l, struct cpull_error *err)
{
	struct dir_block block;
	struct dir_entry entry;

	if (l->block >= dir_blocks(&l->dir))
		return 0;

	int rc = dir_block_get(r, &l->dir, l->block, &block, err);

	if (!rc && l->index >= block.count)
		rc = erofs_damaged(err, l->dir.nid, "the directory changed while it was read");
	if (!rc)
		rc = dir_entry_get(&block, l->index, &entry, err);
	if (rc)
		return rc;
	/* else not every name that is listed would be found by a search */
	if (l->name_len && compare(l->name, l->name_len, entry.name, entry.name_len) >= 0)
		return erofs_damaged(err, l->dir.nid, "the names of the directory are not in order");
	if (entry.type < EROFS_REGULAR || entry.type > EROFS_SYMLINK)
		return erofs_damaged(err, l->dir.nid, "a name in the directory has no type");
	l->nid = entry.nid;
	l->type = (enum erofs_type)entry.type;
	l->name_len = entry.name_len;
	memcpy(l->name, entry.name, entry.name_len);
	l->name[entry.name_len] = 0;
	if (++l->index == block.count) {
		l->index = 0;
		l->block++;
	}
	return 1;
}

int erofs_reader_next(struct erofs_reader *reader, struct erofs_listing *listing, struct cpull_error *err)
{
	int rc;

	if (!S_ISDIR(listing->dir.mode))
		return error_set(err, CPULL_ERR_USAGE, "EROFS inode %llu is no directory",
				 (unsigned long long)listing->dir.nid);
	do
		rc = list_one(reader, listing, err);
	while (rc > 0 && is_dots(listing));
	return rc;
}
