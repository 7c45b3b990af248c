/* SPDX-License-Identifier: Apache-2.0
 *
 * The records of pax headers, for the tar reader of one layer. Pure: what it finds points into the caller's text, which
 * therefore lives as long as the entry.
 */
#include "snapshot/pax.h"

#include <string.h>

#include "engine/base/error.h"
#include "snapshot/tar_number.h"

enum pax_key {
	KEY_OTHER,
	KEY_PATH,
	KEY_LINKPATH,
	KEY_SIZE,
	KEY_UID,
	KEY_GID,
	KEY_MTIME,
	KEY_DEVMAJOR,
	KEY_DEVMINOR,
	KEY_XATTR,
	KEY_SPARSE_MAJOR,
	KEY_SPARSE_MINOR,
	KEY_SPARSE_NAME,
	KEY_SPARSE_SIZE,
	KEY_SPARSE_BLOCKS,
	KEY_SPARSE_OFFSET,
	KEY_SPARSE_LENGTH,
	KEY_SPARSE_MAP,
	KEY_SPARSE_OTHER,
};

static const struct {
	const char *name;
	size_t len;
	enum pax_key key;
	bool prefix;
} keys[] = {
#define EXACT(text, key) {text, sizeof(text) - 1, key, false}
	EXACT("mtime", KEY_MTIME),
	EXACT("path", KEY_PATH),
	EXACT("linkpath", KEY_LINKPATH),
	EXACT("size", KEY_SIZE),
	EXACT("uid", KEY_UID),
	EXACT("gid", KEY_GID),
	EXACT("SCHILY.devmajor", KEY_DEVMAJOR),
	EXACT("SCHILY.devminor", KEY_DEVMINOR),
	EXACT("GNU.sparse.major", KEY_SPARSE_MAJOR),
	EXACT("GNU.sparse.minor", KEY_SPARSE_MINOR),
	EXACT("GNU.sparse.name", KEY_SPARSE_NAME),
	EXACT("GNU.sparse.size", KEY_SPARSE_SIZE),
	EXACT("GNU.sparse.realsize", KEY_SPARSE_SIZE),
	EXACT("GNU.sparse.numblocks", KEY_SPARSE_BLOCKS),
	EXACT("GNU.sparse.offset", KEY_SPARSE_OFFSET),
	EXACT("GNU.sparse.numbytes", KEY_SPARSE_LENGTH),
	EXACT("GNU.sparse.map", KEY_SPARSE_MAP),
#undef EXACT
	{"SCHILY.xattr.", 13, KEY_XATTR, true},
	{"GNU.sparse.", 11, KEY_SPARSE_OTHER, true},
};

struct record {
	const char *key, *value; /* NUL-terminated in place */
	size_t key_len, value_len;
};

static enum pax_key find_key(const struct record *r)
{
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		if ((keys[i].prefix ? r->key_len >= keys[i].len : r->key_len == keys[i].len) &&
		    memcmp(r->key, keys[i].name, keys[i].len) == 0)
			return keys[i].key;
	return KEY_OTHER;
}

/* "%d %s=%s\n", the number counting the whole record, itself included. Moves *at behind it. */
static int next_record(char *text, size_t len, size_t *at, struct record *out, struct cpull_error *err)
{
	char *start = text + *at;
	size_t left = len - *at;
	char *space = memchr(start, ' ', MIN(left, (size_t)20));
	uint64_t total = 0;

	if (!space)
		return error_set(err, CPULL_ERR_TAR, "pax record without a length at its byte %zu", *at);

	size_t digits = (size_t)(space - start);
	int rc = tar_number_decimal(start, digits, "pax record's length", &total, err);

	if (rc)
		return rc;
	/* the least there is: a space, one byte of key, '=' and the newline */
	if (total > left || total < digits + 4)
		return error_set(err, CPULL_ERR_TAR, "pax record at its byte %zu claims %llu bytes, %zu are there", *at,
				 (unsigned long long)total, left);
	if (start[total - 1] != '\n')
		return error_set(err, CPULL_ERR_TAR, "pax record at its byte %zu does not end in a newline", *at);

	char *key = space + 1, *end = start + total - 1;
	char *equals = memchr(key, '=', (size_t)(end - key));

	if (!equals || equals == key)
		return error_set(err, CPULL_ERR_TAR, "pax record at its byte %zu has no key or no '='", *at);
	if (memchr(key, 0, (size_t)(equals - key)))
		return error_set(err, CPULL_ERR_TAR, "pax record at its byte %zu has a NUL in its key", *at);
	*equals = 0;
	*end = 0;
	*out = (struct record){key, equals + 1, (size_t)(equals - key), (size_t)(end - equals) - 1};
	*at += total;
	return 0;
}

/* Decimal seconds with an optional sign and fraction; digits past the nanosecond are dropped. */
static int parse_time(const struct record *r, struct timespec *out, struct cpull_error *err)
{
	bool negative = r->value[0] == '-';
	const char *text = r->value + negative;
	size_t len = r->value_len - negative;
	const char *dot = memchr(text, '.', len);
	size_t whole = dot ? (size_t)(dot - text) : len;
	uint64_t seconds = 0;
	long ns = 0, unit = 100000000;
	int rc = tar_number_decimal(text, whole, "pax mtime", &seconds, err);

	if (rc)
		return rc;
	for (size_t i = whole + 1; i < len; i++) {
		unsigned digit = (unsigned)(text[i] - '0');

		if (digit > 9)
			return error_set(err, CPULL_ERR_TAR, "the pax mtime is not a decimal number");
		ns += (long)digit * unit;
		unit /= 10;
	}
	*out = (struct timespec){negative ? -(time_t)seconds : (time_t)seconds, ns};
	if (negative && ns) {
		out->tv_sec--;
		out->tv_nsec = 1000000000 - ns;
	}
	return 0;
}

/* -1 would be "leave it as it is" to chown(). */
static int parse_id(const struct record *r, const char *what, uint32_t *out, struct cpull_error *err)
{
	uint64_t value = 0;
	int rc = tar_number_decimal(r->value, r->value_len, what, &value, err);

	if (rc)
		return rc;
	if (value >= UINT32_MAX)
		return error_set(err, CPULL_ERR_TAR, "the %s %llu is out of range", what, (unsigned long long)value);
	*out = (uint32_t)value;
	return 0;
}

static int apply_attr(struct pax_attrs *attrs, enum pax_key key, const struct record *r, enum pax_presence empty,
		      struct cpull_error *err)
{
	enum pax_presence presence = r->value_len ? PAX_GIVEN : empty;
	bool given = r->value_len > 0;

	switch (key) {
	case KEY_MTIME:
		attrs->has_mtime = presence;
		return given ? parse_time(r, &attrs->mtime, err) : 0;
	case KEY_UID:
		attrs->has_uid = presence;
		return given ? parse_id(r, "pax uid", &attrs->uid, err) : 0;
	case KEY_GID:
		attrs->has_gid = presence;
		return given ? parse_id(r, "pax gid", &attrs->gid, err) : 0;
	default:
		return 0;
	}
}

static int parse_path(const struct record *r, const char **out, struct cpull_error *err)
{
	if (memchr(r->value, 0, r->value_len))
		return error_set(err, CPULL_ERR_TAR, "the pax %s has a NUL in it", r->key);
	*out = r->value_len ? r->value : NULL;
	return 0;
}

static int parse_number(const struct record *r, bool *has, uint64_t *out, struct cpull_error *err)
{
	*has = r->value_len > 0;
	return *has ? tar_number_decimal(r->value, r->value_len, r->key, out, err) : 0;
}

static int parse_dev(const struct record *r, bool *has, uint32_t *out, struct cpull_error *err)
{
	*has = r->value_len > 0;
	return *has ? parse_id(r, r->key, out, err) : 0;
}

/* The last value of a name wins, an empty one takes it back (layers.md §10). */
static int apply_xattr(struct pax *pax, const struct record *r, struct cpull_error *err)
{
	const char *name = r->key + 13;
	size_t name_len = r->key_len - 13;
	size_t i = 0;

	if (!name_len)
		return error_set(err, CPULL_ERR_TAR, "an extended attribute has no name");
	if (name_len > LIMIT_NAME_BYTES)
		return error_set(err, CPULL_ERR_LIMIT, "an extended attribute's name has %zu bytes, it may have %u",
				 name_len, LIMIT_NAME_BYTES);
	if (r->value_len > LIMIT_XATTR_VALUE_BYTES)
		return error_set(err, CPULL_ERR_LIMIT, "an extended attribute has %zu bytes, it may have %u",
				 r->value_len, LIMIT_XATTR_VALUE_BYTES);
	while (i < pax->xattr_count && strcmp(pax->xattrs[i].name, name) != 0)
		i++;
	if (!r->value_len) {
		if (i == pax->xattr_count)
			return 0;
		pax->xattr_count--;
		memmove(&pax->xattrs[i], &pax->xattrs[i + 1], (pax->xattr_count - i) * sizeof(pax->xattrs[0]));
		return 0;
	}
	if (i == LIMIT_XATTRS)
		return error_set(err, CPULL_ERR_LIMIT, "it has more than %u extended attributes", LIMIT_XATTRS);
	pax->xattrs[i] = (struct tar_xattr){name, (const uint8_t *)r->value, r->value_len};
	pax->xattr_count = MAX(pax->xattr_count, i + 1);
	return 0;
}

/* 0.0 repeats two keys in turn, one pair a range. */
static int sparse_0_0(struct pax_sparse *s, struct sparse_map *map, bool is_offset, const struct record *r,
		      struct cpull_error *err)
{
	uint64_t number = 0;
	int rc = tar_number_decimal(r->value, r->value_len, r->key, &number, err);

	if (rc)
		return rc;
	if (is_offset == s->offset_open || s->has_map)
		return error_set(err, CPULL_ERR_TAR, "its sparse offsets and lengths do not alternate");
	s->offset_open = is_offset;
	if (!is_offset)
		return sparse_add(map, s->offset, number, err);
	s->offset = number;
	return 0;
}

static int apply_sparse(struct pax_sparse *s, struct sparse_map *map, enum pax_key key, const struct record *r,
			struct cpull_error *err)
{
	uint64_t size = s->size;
	bool had_size = s->has_size;
	int rc;

	s->used |= r->value_len > 0;
	switch (key) {
	case KEY_SPARSE_MAJOR:
		return parse_number(r, &s->has_major, &s->major, err);
	case KEY_SPARSE_MINOR:
		return parse_number(r, &s->has_minor, &s->minor, err);
	case KEY_SPARSE_BLOCKS:
		return parse_number(r, &s->has_blocks, &s->blocks, err);
	case KEY_SPARSE_SIZE:
		if ((rc = parse_number(r, &s->has_size, &s->size, err)))
			return rc;
		/* "size" and "realsize" are read in different order by different parsers */
		if (had_size && s->has_size && size != s->size)
			return error_set(err, CPULL_ERR_TAR, "it has two sparse sizes");
		return 0;
	case KEY_SPARSE_NAME:
		return parse_path(r, &s->name, err);
	case KEY_SPARSE_OFFSET:
	case KEY_SPARSE_LENGTH:
		return sparse_0_0(s, map, key == KEY_SPARSE_OFFSET, r, err);
	case KEY_SPARSE_MAP:
		if (map->count && !s->has_map)
			return error_set(err, CPULL_ERR_TAR, "it has two sparse maps");
		s->has_map = r->value_len > 0;
		return sparse_set_list(map, r->value, r->value_len, err);
	default:
		return 0;
	}
}

static int apply_local(struct pax *pax, struct sparse_map *map, const struct record *r, struct cpull_error *err)
{
	enum pax_key key = find_key(r);

	switch (key) {
	case KEY_OTHER:
		return 0;
	case KEY_PATH:
		return parse_path(r, &pax->path, err);
	case KEY_LINKPATH:
		return parse_path(r, &pax->link, err);
	case KEY_SIZE:
		return parse_number(r, &pax->has_size, &pax->size, err);
	case KEY_DEVMAJOR:
		return parse_dev(r, &pax->has_dev_major, &pax->dev_major, err);
	case KEY_DEVMINOR:
		return parse_dev(r, &pax->has_dev_minor, &pax->dev_minor, err);
	case KEY_XATTR:
		return apply_xattr(pax, r, err);
	case KEY_UID:
	case KEY_GID:
	case KEY_MTIME:
		return apply_attr(&pax->attrs, key, r, PAX_EMPTY, err);
	default:
		return apply_sparse(&pax->sparse, map, key, r, err);
	}
}

int pax_parse_local(struct pax *pax, struct sparse_map *map, char *text, size_t len, struct cpull_error *err)
{
	struct record r;
	size_t at = 0;
	int rc;

	/* all but the xattrs, which their count empties */
	memset(pax, 0, offsetof(struct pax, xattrs));
	pax->xattr_count = 0;
	sparse_reset(map);
	while (at < len)
		if ((rc = next_record(text, len, &at, &r, err)) || (rc = apply_local(pax, map, &r, err)))
			return rc;
	return 0;
}

int pax_parse_global(struct pax_attrs *attrs, char *text, size_t len, struct cpull_error *err)
{
	struct record r;
	size_t at = 0;
	int rc;

	while (at < len)
		if ((rc = next_record(text, len, &at, &r, err)) ||
		    (rc = apply_attr(attrs, find_key(&r), &r, PAX_ABSENT, err)))
			return rc;
	return 0;
}

int pax_sparse_format(const struct pax *pax, const struct sparse_map *map, enum pax_sparse_format *out,
		      struct cpull_error *err)
{
	const struct pax_sparse *s = &pax->sparse;
	bool is_1_0 = s->has_major && s->major == 1;

	*out = PAX_NOT_SPARSE;
	if (!s->used)
		return 0;
	if (s->has_major != s->has_minor || (s->has_major && (s->major > 1 || s->minor > (is_1_0 ? 0 : 1))))
		return error_set(err, CPULL_ERR_TAR, "its sparse format is not known");
	if (!s->has_size)
		return error_set(err, CPULL_ERR_TAR, "it is sparse without a size");
	if (s->offset_open)
		return error_set(err, CPULL_ERR_TAR, "its sparse map has an offset without a length");
	if (is_1_0 && map->count)
		return error_set(err, CPULL_ERR_TAR, "it has two sparse maps");
	/* without a count an empty map may as well be a map that got lost */
	if (!is_1_0 && (s->has_blocks ? s->blocks != map->count : !map->count))
		return error_set(err, CPULL_ERR_TAR, "its sparse map has %zu ranges, its header says %llu", map->count,
				 (unsigned long long)s->blocks);
	*out = is_1_0 ? PAX_SPARSE_1_0 : PAX_SPARSE_0;
	return 0;
}
