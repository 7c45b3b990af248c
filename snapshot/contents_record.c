/* SPDX-License-Identifier: Apache-2.0
 *
 * Records of a layer's list of contents, to and from bytes. Pure; called by who writes a layer, and by who checks one.
 */
#include "snapshot/contents_record.h"

#include <assert.h>
#include <string.h>

#define TYPE_BITS 0x0fu
#define FLAG_OWNED 0x10u  /* uid and gid are not both 0 */
#define FLAG_NSEC 0x20u
#define FLAG_XATTRS 0x40u
#define FLAG_SPARSE 0x80u

/* What a type has, in this order. */
enum part {
	HAS_NAME = 1 << 0,
	HAS_INODE = 1 << 1,
	HAS_OTHER = 1 << 2,
	HAS_ATTRIBUTES = 1 << 3,
	HAS_SIZE = 1 << 4,
	HAS_SUM = 1 << 5,
};

static unsigned parts_of(unsigned type)
{
	static const uint8_t parts[] = {
		[CONTENTS_DIRECTORY] = HAS_INODE,
		[CONTENTS_FILE] = HAS_NAME | HAS_ATTRIBUTES | HAS_SIZE | HAS_SUM,
		[CONTENTS_SYMLINK] = HAS_NAME | HAS_ATTRIBUTES | HAS_SIZE | HAS_SUM,
		[CONTENTS_NODE] = HAS_NAME | HAS_ATTRIBUTES | HAS_SIZE,
		[CONTENTS_WHITEOUT] = HAS_NAME,
		[CONTENTS_LINK] = HAS_NAME | HAS_INODE | HAS_OTHER,
		[CONTENTS_MKDIR] = HAS_NAME | HAS_INODE,
		[CONTENTS_SETTLED] = HAS_ATTRIBUTES,
		[CONTENTS_RESTAT] = HAS_NAME | HAS_ATTRIBUTES,
		[CONTENTS_GONE] = HAS_NAME,
		[CONTENTS_RENAME] = HAS_NAME | HAS_INODE | HAS_OTHER,
	};

	return type < ARRAY_LEN(parts) ? parts[type] : 0;
}

/* ---- to bytes ---- */

static uint8_t *put_number(uint8_t *at, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		*at++ = (uint8_t)(value | 0x80);
	*at++ = (uint8_t)value;
	return at;
}

static uint8_t *put_name(uint8_t *at, struct contents_name name)
{
	assert(name.len && name.len <= LIMIT_NAME_BYTES);
	*at++ = (uint8_t)name.len;
	return mempcpy(at, name.text, name.len);
}

static uint8_t *put_attributes(uint8_t *at, const struct contents_record *r, unsigned flags)
{
	int64_t sec = r->mtime.tv_sec;

	at = put_number(at, r->mode);
	if (flags & FLAG_OWNED) {
		at = put_number(at, r->uid);
		at = put_number(at, r->gid);
	}
	at = put_number(at, (uint64_t)sec << 1 ^ (uint64_t)(sec >> 63));
	if (flags & FLAG_NSEC)
		at = put_number(at, (uint64_t)r->mtime.tv_nsec);
	return flags & FLAG_XATTRS ? mempcpy(at, &r->xattrs, sizeof(r->xattrs)) : at;
}

size_t contents_encode(const struct contents_record *r, uint8_t out[CONTENTS_RECORD_BYTES])
{
	unsigned parts = parts_of(r->type), flags = 0;
	uint8_t *at = out + 1;

	assert(parts);
	if (parts & HAS_ATTRIBUTES)
		flags = (r->uid || r->gid ? FLAG_OWNED : 0) | (r->mtime.tv_nsec ? FLAG_NSEC : 0) |
			(r->xattrs ? FLAG_XATTRS : 0) | (r->sparse ? FLAG_SPARSE : 0);
	out[0] = (uint8_t)(r->type | flags);
	if (parts & HAS_NAME)
		at = put_name(at, r->name);
	if (parts & HAS_INODE)
		at = put_number(at, r->inode);
	if (parts & HAS_OTHER)
		at = put_name(at, r->other);
	if (parts & HAS_ATTRIBUTES)
		at = put_attributes(at, r, flags);
	if (parts & HAS_SIZE)
		at = put_number(at, r->size);
	if (parts & HAS_SUM)
		at = mempcpy(at, &r->sum, sizeof(r->sum));
	return (size_t)(at - out);
}

/* ---- from bytes ---- */

struct input {
	const uint8_t *at, *end;
	bool bad;
};

static uint64_t take_number(struct input *in, uint64_t max)
{
	uint64_t value = 0;

	for (unsigned shift = 0; in->at < in->end && shift < 64; shift += 7) {
		uint8_t byte = *in->at++;

		if (shift == 63 && byte > 1)
			break;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte & 0x80)
			continue;
		if (value > max)
			break;
		return value;
	}
	in->bad = true;
	return 0;
}

static void take_bytes(struct input *in, void *out, size_t len)
{
	if ((size_t)(in->end - in->at) < len) {
		in->bad = true;
		return;
	}
	memcpy(out, in->at, len);
	in->at += len;
}

/* What could lead out of a directory is no name. */
static bool is_name(struct contents_name name)
{
	return name.len && !memchr(name.text, 0, name.len) && !memchr(name.text, '/', name.len) &&
	       !(name.text[0] == '.' && (name.len == 1 || (name.len == 2 && name.text[1] == '.')));
}

static struct contents_name take_name(struct input *in)
{
	uint8_t len = 0;
	struct contents_name name = {0};

	take_bytes(in, &len, 1);
	if (in->bad || (size_t)(in->end - in->at) < len) {
		in->bad = true;
		return name;
	}
	name = (struct contents_name){(const char *)in->at, len};
	in->at += len;
	in->bad |= !is_name(name);
	return name;
}

static void take_attributes(struct input *in, unsigned flags, struct contents_record *out)
{
	out->mode = (uint32_t)take_number(in, 0177777);
	if (flags & FLAG_OWNED) {
		out->uid = (uint32_t)take_number(in, UINT32_MAX);
		out->gid = (uint32_t)take_number(in, UINT32_MAX);
	}

	uint64_t sec = take_number(in, UINT64_MAX);

	out->mtime.tv_sec = (time_t)(sec >> 1 ^ -(sec & 1));
	if (flags & FLAG_NSEC)
		out->mtime.tv_nsec = (long)take_number(in, 999999999);
	if (flags & FLAG_XATTRS)
		take_bytes(in, &out->xattrs, sizeof(out->xattrs));
	out->sparse = flags & FLAG_SPARSE;
}

size_t contents_decode(const uint8_t *data, size_t len, struct contents_record *out)
{
	struct input in = {data + 1, data + len, false};
	unsigned parts, flags;

	if (!len)
		return 0;
	*out = (struct contents_record){.type = (enum contents_type)(data[0] & TYPE_BITS)};
	parts = parts_of(out->type);
	flags = data[0] & ~TYPE_BITS;
	if (!parts || (flags && !(parts & HAS_ATTRIBUTES)))
		return 0;
	if (parts & HAS_NAME)
		out->name = take_name(&in);
	if (parts & HAS_INODE)
		out->inode = take_number(&in, UINT64_MAX);
	if (parts & HAS_OTHER)
		out->other = take_name(&in);
	if (parts & HAS_ATTRIBUTES)
		take_attributes(&in, flags, out);
	if (parts & HAS_SIZE)
		out->size = take_number(&in, UINT64_MAX);
	if (parts & HAS_SUM)
		take_bytes(&in, &out->sum, sizeof(out->sum));
	return in.bad ? 0 : (size_t)(in.at - data);
}
