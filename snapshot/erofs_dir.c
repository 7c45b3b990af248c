/* SPDX-License-Identifier: Apache-2.0
 *
 * Directories of an EROFS image. Used by the image's builder on its thread; owns nothing.
 *
 * A directory is blocks of entries, each with its names behind them, in one order throughout, "." and ".." where they
 * belong in it: some names come before ".". How long it is follows from the lengths of the names in their order, so
 * its inode gets a place before the numbers of what it names are known.
 */
#include <assert.h>
#include <endian.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/erofs_image_internal.h"

static const struct erofs_entry dots[] = {{.name = ".", .len = 1, .type = EROFS_DIRECTORY},
					  {.name = "..", .len = 2, .type = EROFS_DIRECTORY}};

/* Goes through the entries with "." and ".." among them. */
struct cursor {
	const struct erofs_directory *dir;
	size_t next;
	size_t dots; /* of these are out */
};

int erofs_name_compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
	int order = memcmp(a, b, MIN(a_len, b_len));

	return order ? order : (a_len > b_len) - (a_len < b_len);
}

/* The next entry, or NULL. */
static const struct erofs_entry *look(const struct cursor *c, bool *is_dot)
{
	const struct erofs_entry *entry = c->next < c->dir->count ? &c->dir->entries[c->next] : NULL;
	const struct erofs_entry *dot = c->dots < ARRAY_LEN(dots) ? &dots[c->dots] : NULL;

	*is_dot = dot && (!entry || erofs_name_compare(dot->name, dot->len, entry->name, entry->len) < 0);
	return *is_dot ? dot : entry;
}

static void step(struct cursor *c, bool is_dot)
{
	if (is_dot)
		c->dots++;
	else
		c->next++;
}

/* How many entries the next block takes, and the bytes of it that they use. Moves on behind them. */
static size_t take_block(struct cursor *c, size_t *used)
{
	const struct erofs_entry *entry;
	size_t count = 0;
	bool is_dot;

	*used = 0;
	while ((entry = look(c, &is_dot)) && *used + sizeof(struct erofs_dirent) + entry->len <= EROFS_BLOCK_BYTES) {
		*used += sizeof(struct erofs_dirent) + entry->len;
		count++;
		step(c, is_dot);
	}
	return count;
}

static uint64_t size_of(const struct erofs_directory *dir)
{
	struct cursor c = {.dir = dir};
	uint64_t size = 0;
	size_t used;

	while (take_block(&c, &used))
		/* the block before is not the last, and so takes all of its room */
		size = (size + EROFS_BLOCK_BYTES - 1) / EROFS_BLOCK_BYTES * EROFS_BLOCK_BYTES + used;
	return size;
}

static bool is_name(const struct erofs_entry *entry)
{
	if (!entry->len || entry->len > LIMIT_NAME_BYTES || memchr(entry->name, '/', entry->len) ||
	    memchr(entry->name, 0, entry->len))
		return false;
	for (size_t i = 0; i < ARRAY_LEN(dots); i++)
		if (erofs_name_compare(entry->name, entry->len, dots[i].name, dots[i].len) == 0)
			return false;
	return true;
}

/* A kernel finds nothing in a directory that is out of order, and never says so. */
static int check_names(const struct erofs_directory *dir, struct cpull_error *err)
{
	for (size_t i = 0; i < dir->count; i++) {
		const struct erofs_entry *entry = &dir->entries[i], *before = i ? entry - 1 : entry;
		char quoted[128];

		if (is_name(entry) &&
		    (!i || erofs_name_compare(before->name, before->len, entry->name, entry->len) < 0))
			continue;
		return error_set(err, CPULL_ERR_INTERNAL, "a directory's entry %s is no name, or out of order",
				 error_quote(entry->name, entry->len, quoted, sizeof(quoted)));
	}
	return 0;
}

/* In the place that is kept for it. Its entries are in blocks when they do not. */
static bool fits_root(const struct erofs_record *record, size_t tail)
{
	bool inlined = erofs_spool_inlines(EROFS_ROOT_AT, record->fixed, tail);

	return EROFS_ROOT_AT + record->fixed + (inlined ? tail : 0) <= EROFS_ROOT_END;
}

int erofs_image_dir_place(struct erofs_image *image, const struct erofs_directory *dir, uint64_t *nid,
			  struct cpull_error *err)
{
	uint64_t size = size_of(dir);
	size_t tail = size % EROFS_BLOCK_BYTES;
	struct erofs_record record;
	bool inlined;
	int rc = check_names(dir, err);

	if (!rc)
		rc = erofs_record_new(image, &dir->attributes, size, &record, err);
	if (rc)
		return rc;
	if (dir->root && fits_root(&record, tail)) {
		record.at = EROFS_ROOT_AT;
		image->inodes++;
	} else {
		rc = erofs_record_place(image, &record, tail, &inlined, err);
	}
	*nid = erofs_record_nid(&record);
	if (!rc && dir->root && *nid > UINT16_MAX)
		return error_set(err, CPULL_ERR_XATTR, "extended attributes of %zu bytes on the layer's root are more "
				 "than EROFS has room for; pull it with --snapshot overlay", image->xattrs.len);
	return rc;
}

/* ---- the second pass ---- */

/* The next block, zeros behind what it uses. */
static size_t fill_block(struct cursor *c, uint64_t nid, uint8_t *block)
{
	struct cursor names = *c;
	size_t used, count = take_block(c, &used), name_at = count * sizeof(struct erofs_dirent);

	for (size_t i = 0; i < count; i++) {
		bool is_dot;
		const struct erofs_entry *entry = look(&names, &is_dot);
		uint64_t to = !is_dot ? entry->nid : names.dots == 0 || names.dir->root ? nid : names.dir->parent;
		const struct erofs_dirent dirent = {.nid = htole64(to), .name_offset = htole16((uint16_t)name_at),
						    .type = (uint8_t)entry->type};

		memcpy(block + i * sizeof(dirent), &dirent, sizeof(dirent));
		memcpy(block + name_at, entry->name, entry->len);
		name_at += entry->len;
		step(&names, is_dot);
	}
	memset(block + used, 0, EROFS_BLOCK_BYTES - used);
	return used;
}

static uint32_t links_of(const struct erofs_directory *dir)
{
	uint32_t links = 2;

	for (size_t i = 0; i < dir->count; i++)
		links += dir->entries[i].type == EROFS_DIRECTORY;
	return links;
}

static int write_entries(struct erofs_image *image, const struct erofs_directory *dir,
			 const struct erofs_record *record, uint64_t in_blocks, struct cpull_error *err)
{
	struct cursor c = {.dir = dir};
	uint8_t block[EROFS_BLOCK_BYTES];
	int rc = 0;

	for (uint64_t at = 0; !rc && at < in_blocks; at += EROFS_BLOCK_BYTES) {
		fill_block(&c, erofs_record_nid(record), block);
		rc = erofs_blocks_add(image->blocks, block, sizeof(block), err);
	}

	size_t used = rc ? 0 : fill_block(&c, erofs_record_nid(record), block);

	return used ? erofs_spool_write(image->spool, record->at + record->fixed, block, used, err) : rc;
}

int erofs_image_dir_write(struct erofs_image *image, uint64_t nid, const struct erofs_directory *dir,
			  struct cpull_error *err)
{
	uint64_t size = size_of(dir), in_blocks = size;
	size_t tail = size % EROFS_BLOCK_BYTES;
	struct erofs_record record;
	int rc = erofs_record_new(image, &dir->attributes, size, &record, err);

	if (!rc)
		rc = erofs_blocks_check(image->blocks, size, err);
	if (rc)
		return rc;
	record.at = nid * EROFS_SLOT_BYTES;
	if (erofs_spool_inlines(record.at, record.fixed, tail)) {
		record.inode.format = htole16(EROFS_FORMAT(EROFS_FLAT_INLINE));
		in_blocks -= tail;
	}
	if (in_blocks)
		record.inode.data = htole32((uint32_t)erofs_blocks_next(image->blocks));
	record.inode.nlink = htole32(links_of(dir));
	rc = erofs_record_write(image, &record, err);
	return rc ? rc : write_entries(image, dir, &record, in_blocks, err);
}
