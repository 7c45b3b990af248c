/* SPDX-License-Identifier: Apache-2.0
 *
 * Sets of extended attributes in memory. Used by erofs_fs.c on the thread of one layer's writer; owns them.
 *
 * A set: its bytes behind this number, then for each attribute the length of its value, its name with the NUL, and the
 * value. The numbers are not aligned.
 */
#include "snapshot/erofs_xattr_sets.h"

#include <assert.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/base/error.h"

void erofs_xattr_sets_free(struct erofs_xattr_sets *sets)
{
	bytes_free(&sets->data);
	map_free(&sets->by_hash);
}

static int append(struct bytes *data, const void *from, size_t len)
{
	return bytes_append(data, from, len, LIMIT_EROFS_DIR_XATTR_BYTES);
}

static int append_all(struct bytes *data, const struct tar_xattr *xattrs, size_t count)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < count; i++) {
		uint32_t len = (uint32_t)xattrs[i].len;

		rc = append(data, &len, sizeof(len));
		if (!rc)
			rc = append(data, xattrs[i].name, strlen(xattrs[i].name) + 1);
		if (!rc)
			rc = append(data, xattrs[i].value, len);
	}
	return rc;
}

static uint32_t length_at(const struct erofs_xattr_sets *sets, uint32_t at)
{
	uint32_t len;

	memcpy(&len, sets->data.data + at, sizeof(len));
	return len;
}

/* Adds the set that `own` is, unless it is there. */
static int keep(struct erofs_xattr_sets *sets, const struct bytes *own, uint32_t *out)
{
	uint64_t hash = XXH3_64bits_withSeed(own->data, own->len, sets->seed);
	uint32_t len = (uint32_t)own->len, there = map_get(&sets->by_hash, hash ? hash : 1, EROFS_NO_XATTRS);

	if (there != EROFS_NO_XATTRS && length_at(sets, there) == len &&
	    memcmp(sets->data.data + there + sizeof(len), own->data, len) == 0) {
		*out = there;
		return 0;
	}

	uint8_t none = 0;
	int rc = sets->data.len ? 0 : append(&sets->data, &none, sizeof(none));

	*out = (uint32_t)sets->data.len;
	if (!rc)
		rc = append(&sets->data, &len, sizeof(len));
	if (!rc)
		rc = append(&sets->data, own->data, len);
	return rc ? rc : map_put(&sets->by_hash, hash ? hash : 1, *out);
}

int erofs_xattr_sets_add(struct erofs_xattr_sets *sets, const struct tar_xattr *xattrs, size_t count, uint32_t *out,
			 struct cpull_error *err)
{
	CLEANUP_BYTES struct bytes own = {0};
	int rc;

	assert(count <= LIMIT_XATTRS);
	*out = EROFS_NO_XATTRS;
	if (!count)
		return 0;
	rc = append_all(&own, xattrs, count);
	if (!rc)
		rc = keep(sets, &own, out);
	if (rc == CPULL_ERR_LIMIT)
		return error_set(err, rc, "the extended attributes of the layer's directories take more than %u bytes; "
				 "pull it with --snapshot overlay", LIMIT_EROFS_DIR_XATTR_BYTES);
	return rc ? error_nomem(err) : 0;
}

size_t erofs_xattr_sets_get(const struct erofs_xattr_sets *sets, uint32_t set, struct tar_xattr out[LIMIT_XATTRS])
{
	size_t count = 0;

	if (set == EROFS_NO_XATTRS)
		return 0;
	for (uint32_t at = set + (uint32_t)sizeof(uint32_t), end = at + length_at(sets, set); at < end;) {
		uint32_t len = length_at(sets, at);
		const char *name = sets->data.data + at + sizeof(len);
		const char *value = name + strlen(name) + 1;

		assert(count < LIMIT_XATTRS);
		out[count++] = (struct tar_xattr){.name = name, .value = (const uint8_t *)value, .len = len};
		at = (uint32_t)(value - sets->data.data) + len;
	}
	return count;
}
