/* SPDX-License-Identifier: Apache-2.0
 *
 * Extended attributes in an EROFS image: the part of the reader for those of an inode's own and those it shares with
 * others, as mkfs.erofs writes them. On the reader's thread; owns nothing.
 */
#include "snapshot/erofs_reader_internal.h"

#include <endian.h>
#include <string.h>

#include "engine/base/error.h"

void erofs_reader_xattrs(const struct erofs_node *node, struct erofs_xattrs *out)
{
	out->at = node->xattr_at;
	out->end = node->xattr_at + node->xattr_bytes;
	out->shared_left = 0;
	out->begun = false;
	out->nid = node->nid;
}

/* The header, and the numbers of shared attributes behind it. */
static int begin_xattrs(struct erofs_reader *r, struct erofs_xattrs *x, struct cpull_error *err)
{
	struct erofs_xattr_header header;
	int rc = erofs_copy_out(r, &header, sizeof(header), x->at, err);

	if (rc)
		return rc;
	x->at += sizeof(header);
	x->begun = true;
	if (header.shared_count > (x->end - x->at) / sizeof(uint32_t))
		return erofs_damaged(err, x->nid, "it has more shared attributes than room for their numbers");
	x->shared_at = x->at;
	x->shared_left = header.shared_count;
	x->at += header.shared_count * sizeof(uint32_t);
	return 0;
}

/* The entry at `at`, which ends before `end`. */
static int take_xattr(struct erofs_reader *r, struct erofs_xattrs *x, uint64_t at, uint64_t end,
		      struct cpull_error *err)
{
	struct erofs_xattr_entry entry;

	if (end < at || end - at < sizeof(entry))
		return erofs_damaged(err, x->nid, "an attribute is not where attributes are");

	int rc = erofs_copy_out(r, &entry, sizeof(entry), at, err);

	if (rc)
		return rc;

	const char *prefix = erofs_xattr_prefix(entry.name_index);
	size_t prefix_len = prefix ? strlen(prefix) : 0;

	at += sizeof(entry);
	x->value_at = at + entry.name_len;
	x->value_len = le16toh(entry.value_len);
	x->name_len = prefix_len + entry.name_len;
	if (!prefix)
		return erofs_unsupported(err, x->nid, "an attribute's name has an unknown prefix");
	if ((prefix[prefix_len - 1] == '.') != (entry.name_len > 0))
		return erofs_damaged(err, x->nid, "an attribute's name is incomplete, or too long");
	if (entry.name_len + x->value_len > end - at)
		return erofs_damaged(err, x->nid, "an attribute is longer than the place for attributes");
	memcpy(x->name, prefix, prefix_len);
	rc = erofs_copy_out(r, x->name + prefix_len, entry.name_len, at, err);
	if (rc)
		return rc;
	x->name[x->name_len] = 0;
	if (strlen(x->name) != x->name_len)
		return erofs_damaged(err, x->nid, "there is a NUL in an attribute's name");
	return 0;
}

static int next_shared(struct erofs_reader *r, struct erofs_xattrs *x, struct cpull_error *err)
{
	uint32_t number;
	int rc = erofs_copy_out(r, &number, sizeof(number), x->shared_at, err);

	if (!rc)
		rc = take_xattr(r, x, r->xattr_at + (uint64_t)le32toh(number) * sizeof(number), r->bytes, err);
	x->shared_at += sizeof(number);
	x->shared_left--;
	return rc ? rc : 1;
}

int erofs_reader_xattr_next(struct erofs_reader *reader, struct erofs_xattrs *xattrs, struct cpull_error *err)
{
	int rc = 0;

	if (!xattrs->begun && xattrs->at < xattrs->end)
		rc = begin_xattrs(reader, xattrs, err);
	if (rc)
		return rc;
	if (xattrs->shared_left)
		return next_shared(reader, xattrs, err);
	if (xattrs->at >= xattrs->end)
		return 0;
	rc = take_xattr(reader, xattrs, xattrs->at, xattrs->end, err);
	if (rc)
		return rc;
	/* the next one is at a multiple of four, as inodes are */
	xattrs->at = (xattrs->value_at + xattrs->value_len + 3) / 4 * 4;
	return 1;
}

int erofs_reader_xattr_value(struct erofs_reader *reader, const struct erofs_xattrs *xattrs, void *out,
			     struct cpull_error *err)
{
	return erofs_copy_out(reader, out, xattrs->value_len, xattrs->value_at, err);
}

int erofs_reader_xattr_get(struct erofs_reader *reader, const struct erofs_node *node, const char *name, void *out,
			   size_t max, size_t *len, struct cpull_error *err)
{
	struct erofs_xattrs x;
	int rc;

	erofs_reader_xattrs(node, &x);
	while ((rc = erofs_reader_xattr_next(reader, &x, err)) > 0) {
		if (strcmp(x.name, name))
			continue;
		if (x.value_len > max)
			return error_set(err, CPULL_ERR_LIMIT,
					 "EROFS inode %llu: the value of an attribute has %zu bytes, and at most "
					 "%zu are taken",
					 (unsigned long long)node->nid, x.value_len, max);
		*len = x.value_len;
		rc = erofs_reader_xattr_value(reader, &x, out, err);
		return rc ? rc : 1;
	}
	return rc;
}
