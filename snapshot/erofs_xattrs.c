/* SPDX-License-Identifier: Apache-2.0
 *
 * Extended attributes for EROFS. Called by the image's builder on its thread; owns nothing.
 *
 * No kernel is asked whether it likes them, so what setxattr(2) would refuse or change is refused or changed here:
 * names, lengths, and ACLs, which are kept apart from the mode but must agree with it.
 */
#include "snapshot/erofs_xattrs.h"

#include <endian.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/erofs_format.h"

#define ACL_HEADER_BYTES sizeof(struct posix_acl_xattr_header)
#define ACL_ENTRY_BYTES sizeof(struct posix_acl_xattr_entry)
#define XATTR_UNIT 4u

static int refuse(const char *name, const char *why, struct cpull_error *err)
{
	char quoted[128];

	return error_set(err, CPULL_ERR_XATTR, "extended attribute %s %s",
			 error_quote(name, strlen(name), quoted, sizeof(quoted)), why);
}

/* ---- ACLs ---- */

struct acl {
	unsigned last; /* the tag before */
	bool named;    /* has entries that a mask limits */
	bool masked;
	uint32_t bits; /* permissions of the mode */
};

/* Tags in their order, each once but those of named users and groups: posix_acl_valid() of the kernel. */
static bool take_acl_entry(struct acl *acl, unsigned tag, uint32_t perm, uint32_t id)
{
	bool again = tag == acl->last && (tag == ACL_USER || tag == ACL_GROUP);

	if (perm > 07 || (tag <= acl->last && !again))
		return false;
	/* what all ACLs have may not be jumped over */
	if ((tag > ACL_USER_OBJ && acl->last < ACL_USER_OBJ) || (tag > ACL_GROUP_OBJ && acl->last < ACL_GROUP_OBJ))
		return false;
	acl->last = tag;
	switch (tag) {
	case ACL_USER_OBJ:
		acl->bits |= perm << 6;
		return true;
	case ACL_GROUP_OBJ:
		acl->bits |= perm << 3;
		return true;
	case ACL_OTHER:
		acl->bits |= perm;
		return true;
	case ACL_MASK:
		acl->masked = true;
		acl->bits = (acl->bits & 0707) | perm << 3;
		return true;
	case ACL_USER:
	case ACL_GROUP:
		acl->named = true;
		return id != UINT32_MAX;
	default:
		return false;
	}
}

static bool parse_acl(const struct tar_xattr *xattr, struct acl *acl)
{
	*acl = (struct acl){0};
	for (size_t at = ACL_HEADER_BYTES; at < xattr->len; at += ACL_ENTRY_BYTES) {
		struct posix_acl_xattr_entry entry;

		memcpy(&entry, xattr->value + at, sizeof(entry));
		if (!take_acl_entry(acl, le16toh(entry.e_tag), le16toh(entry.e_perm), le32toh(entry.e_id)))
			return false;
	}
	return acl->last == ACL_OTHER && (acl->masked || !acl->named);
}

/* 1: to be stored. 0: not, for the mode says all of it, or it is no ACL at all. */
static int check_acl(const struct tar_xattr *xattr, uint32_t *mode, struct attributes_notes *notes,
		     struct cpull_error *err)
{
	struct posix_acl_xattr_header header;
	struct acl acl;

	/* this is how one is taken off */
	if (!xattr->len)
		return 0;
	if (xattr->len < ACL_HEADER_BYTES)
		return refuse(xattr->name, "is no ACL: it is too short", err);
	memcpy(&header, xattr->value, sizeof(header));
	if (le32toh(header.a_version) != POSIX_ACL_XATTR_VERSION) {
		attributes_note_unsupported(notes, xattr->name);
		return 0;
	}
	if (xattr->len == ACL_HEADER_BYTES)
		return 0;
	if ((xattr->len - ACL_HEADER_BYTES) % ACL_ENTRY_BYTES || !parse_acl(xattr, &acl))
		return refuse(xattr->name, "is no valid ACL", err);
	if (strcmp(xattr->name, "system.posix_acl_access"))
		return 1;
	*mode = (*mode & ~0777u) | acl.bits;
	return acl.named || acl.masked;
}

/* ---- the entries ---- */

/* 1: to be stored. */
static int check(const struct tar_xattr *xattr, uint32_t *mode, struct attributes_notes *notes,
		 struct cpull_error *err)
{
	size_t rest;
	int rc = attributes_check(xattr, *mode & S_IFMT, notes, err);

	if (rc <= 0)
		return rc;
	if (!erofs_xattr_split(xattr->name, &rest)) {
		attributes_note_unsupported(notes, xattr->name);
		return 0;
	}
	if (strlen(xattr->name) > LIMIT_NAME_BYTES)
		return refuse(xattr->name, "has too long a name", err);
	if (!attributes_is_acl(xattr->name) && !xattr->name[rest])
		return refuse(xattr->name, "has no name but its prefix", err);
	if (xattr->len > LIMIT_EROFS_XATTR_BYTES)
		return refuse(xattr->name, "has a value of more than 65535 bytes, which EROFS has no room for; pull "
			      "it with --snapshot overlay", err);
	return attributes_is_acl(xattr->name) ? check_acl(xattr, mode, notes, err) : 1;
}

static int append(const struct tar_xattr *xattr, struct bytes *out, struct cpull_error *err)
{
	static const uint8_t zeros[XATTR_UNIT];
	size_t rest = 0;
	unsigned index = erofs_xattr_split(xattr->name, &rest);
	size_t name_len = strlen(xattr->name + rest);
	const struct erofs_xattr_entry entry = {.name_len = (uint8_t)name_len, .name_index = (uint8_t)index,
						.value_len = htole16((uint16_t)xattr->len)};
	int rc = bytes_append(out, &entry, sizeof(entry), LIMIT_EROFS_XATTRS_BYTES);

	if (!rc)
		rc = bytes_append(out, xattr->name + rest, name_len, LIMIT_EROFS_XATTRS_BYTES);
	if (!rc)
		rc = bytes_append(out, xattr->value, xattr->len, LIMIT_EROFS_XATTRS_BYTES);
	if (!rc)
		rc = bytes_append(out, zeros, -out->len % XATTR_UNIT, LIMIT_EROFS_XATTRS_BYTES);
	if (rc == CPULL_ERR_LIMIT)
		return refuse(xattr->name, "and the others of the file take more than 262148 bytes, which EROFS has no "
			      "room for; pull it with --snapshot overlay", err);
	return rc ? error_nomem(err) : 0;
}

static int by_name(const void *a, const void *b)
{
	const struct tar_xattr *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

int erofs_xattrs_encode(const struct erofs_attributes *attributes, struct bytes *out, uint32_t *mode,
			struct attributes_notes *notes, struct cpull_error *err)
{
	static const struct tar_xattr opaque = {.name = "trusted.overlay.opaque", .value = (const uint8_t *)"y",
						.len = 1};
	static const struct erofs_xattr_header header;
	const struct tar_xattr *kept[LIMIT_XATTRS + 1];
	size_t count = 0;
	int rc = 0;

	out->len = 0;
	*mode = attributes->mode;
	if (attributes->xattr_count > LIMIT_XATTRS)
		return error_set(err, CPULL_ERR_LIMIT, "it has more than %u extended attributes", LIMIT_XATTRS);
	for (size_t i = 0; i < attributes->xattr_count; i++) {
		rc = check(&attributes->xattrs[i], mode, notes, err);
		if (rc < 0)
			return rc;
		if (rc)
			kept[count++] = &attributes->xattrs[i];
	}
	if (attributes->opaque)
		kept[count++] = &opaque;
	if (!count)
		return 0;
	qsort(kept, count, sizeof(kept[0]), by_name);
	rc = bytes_append(out, &header, sizeof(header), LIMIT_EROFS_XATTRS_BYTES);
	if (rc)
		return error_nomem(err);
	for (size_t i = 0; !rc && i < count; i++)
		rc = append(kept[i], out, err);
	return rc;
}

/* ---- another mode ---- */

/* One that is stored has a mask: see check_acl(). */
static void chmod_acl(uint8_t *value, size_t len, uint32_t mode)
{
	for (size_t at = ACL_HEADER_BYTES; at + ACL_ENTRY_BYTES <= len; at += ACL_ENTRY_BYTES) {
		struct posix_acl_xattr_entry entry;
		uint16_t perm;

		memcpy(&entry, value + at, sizeof(entry));
		switch (le16toh(entry.e_tag)) {
		case ACL_USER_OBJ:
			perm = mode >> 6 & 07;
			break;
		case ACL_MASK:
			perm = mode >> 3 & 07;
			break;
		case ACL_OTHER:
			perm = mode & 07;
			break;
		default:
			continue;
		}
		entry.e_perm = htole16(perm);
		memcpy(value + at, &entry, sizeof(entry));
	}
}

bool erofs_xattrs_chmod(void *encoded, size_t len, uint32_t mode)
{
	uint8_t *data = encoded;
	size_t at = sizeof(struct erofs_xattr_header);

	while (at < len) {
		struct erofs_xattr_entry entry;

		memcpy(&entry, data + at, sizeof(entry));
		at += sizeof(entry) + entry.name_len;
		if (entry.name_index == EROFS_XATTR_ACL_ACCESS) {
			chmod_acl(data + at, le16toh(entry.value_len), mode);
			return true;
		}
		at += le16toh(entry.value_len);
		at += -at % XATTR_UNIT;
	}
	return false;
}
