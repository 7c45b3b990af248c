/* SPDX-License-Identifier: Apache-2.0
 *
 * The few computations that EROFS's format asks for. Pure; for the writer and the reader.
 */
#include "snapshot/erofs_format.h"

#include <string.h>
#include <sys/stat.h>

#include "engine/base/util.h"

#define CASTAGNOLI 0x82f63b78u /* reflected */

static const struct {
	enum erofs_xattr_prefix index;
	const char *text;
} prefixes[] = {
	{EROFS_XATTR_USER, "user."},
	{EROFS_XATTR_TRUSTED, "trusted."},
	{EROFS_XATTR_SECURITY, "security."},
	/* whole names: nothing follows them */
	{EROFS_XATTR_ACL_ACCESS, "system.posix_acl_access"},
	{EROFS_XATTR_ACL_DEFAULT, "system.posix_acl_default"},
};

uint32_t erofs_checksum(const void *data, size_t len)
{
	const uint8_t *at = data;
	uint32_t crc = UINT32_MAX;

	/* 3 KiB once an image: not worth a table */
	while (len--) {
		crc ^= *at++;
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? CASTAGNOLI : 0);
	}
	return crc;
}

void erofs_device_tag(const uint8_t uuid[16], char tag[EROFS_DEVICE_TAG_BYTES])
{
	memset(tag, 0, EROFS_DEVICE_TAG_BYTES);
	hex_encode(uuid, 16, tag);
}

uint8_t erofs_type_of(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return EROFS_REGULAR;
	case S_IFDIR:
		return EROFS_DIRECTORY;
	case S_IFCHR:
		return EROFS_CHAR;
	case S_IFBLK:
		return EROFS_BLOCK;
	case S_IFIFO:
		return EROFS_FIFO;
	case S_IFSOCK:
		return EROFS_SOCKET;
	case S_IFLNK:
		return EROFS_SYMLINK;
	default:
		return 0;
	}
}

uint32_t erofs_rdev(uint32_t major, uint32_t minor)
{
	return (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
}

unsigned erofs_xattr_split(const char *name, size_t *rest)
{
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		size_t len = strlen(prefixes[i].text);
		bool whole = prefixes[i].text[len - 1] != '.';

		if (strncmp(name, prefixes[i].text, len) || (whole && name[len]))
			continue;
		*rest = len;
		return prefixes[i].index;
	}
	return 0;
}

const char *erofs_xattr_prefix(unsigned index)
{
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
		if (prefixes[i].index == index)
			return prefixes[i].text;
	return NULL;
}
