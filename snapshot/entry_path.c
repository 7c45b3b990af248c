/* SPDX-License-Identifier: Apache-2.0
 *
 * Cleaning and classifying the names of tar entries. Pure functions, called by the writers for every entry and for
 * the targets of hard links; whiteouts as in the OCI image specification, layer.md.
 */
#include "snapshot/entry_path.h"

#include <string.h>

#include "engine/base/error.h"

#define WHITEOUT ".wh."
#define METADATA ".wh..wh."
#define OPAQUE ".wh..wh..opq"

static int add_component(struct entry_path *out, const char *name, size_t len, struct cpull_error *err)
{
	if (len > LIMIT_NAME_BYTES)
		return error_set(err, CPULL_ERR_LIMIT, "a component of %zu bytes; the limit is %u", len,
				 LIMIT_NAME_BYTES);
	if (out->len + 1 + len >= sizeof(out->text))
		return error_set(err, CPULL_ERR_LIMIT, "a path of %u bytes or more", LIMIT_PATH_BYTES);
	out->parent_len = out->len;
	if (out->len)
		out->text[out->len++] = '/';
	out->name = out->len;
	memcpy(out->text + out->len, name, len);
	out->len += len;
	out->text[out->len] = 0;
	return 0;
}

int entry_path_clean(const char *raw, struct entry_path *out, struct cpull_error *err)
{
	size_t depth = 0;

	out->text[0] = 0;
	out->len = out->parent_len = out->name = 0;
	for (const char *p = raw; *p; p += *p == '/') {
		const char *name = p;
		size_t len = (size_t)(strchrnul(p, '/') - p);

		p += len;
		if (len == 0 || (len == 1 && name[0] == '.'))
			continue;
		if (len == 2 && memcmp(name, "..", 2) == 0)
			return error_set(err, CPULL_ERR_ESCAPE, "a path with \"..\" in it");
		if (++depth > LIMIT_PATH_DEPTH)
			return error_set(err, CPULL_ERR_LIMIT, "a path more than %u components deep",
					 LIMIT_PATH_DEPTH);

		int rc = add_component(out, name, len, err);

		if (rc)
			return rc;
	}
	return 0;
}

static bool begins(const char *text, size_t len, const char *with)
{
	size_t n = strlen(with);

	return len >= n && memcmp(text, with, n) == 0;
}

static bool equals(const char *text, size_t len, const char *other)
{
	return len == strlen(other) && memcmp(text, other, len) == 0;
}

/* What the parents say; ENTRY_PLAIN when they have no say. */
static int kind_of_parents(const struct entry_path *path, enum entry_kind *out, struct cpull_error *err)
{
	for (size_t at = 0; at < path->parent_len;) {
		const char *name = path->text + at;
		size_t len = (size_t)(strchrnul(name, '/') - name);
		bool last = at + len == path->parent_len;

		if (at == 0 && last && equals(name, len, PLNK_DIR)) {
			*out = ENTRY_LINKED;
			return 0;
		}
		if (begins(name, len, METADATA) && !equals(name, len, OPAQUE)) {
			*out = ENTRY_METADATA;
			return 0;
		}
		if (begins(name, len, WHITEOUT))
			return error_set(err, CPULL_ERR_WHITEOUT, "an entry below a whiteout marker");
		at += len + 1;
	}
	*out = ENTRY_PLAIN;
	return 0;
}

int entry_path_kind(const struct entry_path *path, enum entry_kind *out, struct cpull_error *err)
{
	const char *name = entry_path_name(path);
	size_t len = path->len - path->name;

	*out = ENTRY_PLAIN;
	/* as nearly all are */
	if (!strstr(path->text, WHITEOUT))
		return 0;

	int rc = kind_of_parents(path, out, err);

	if (rc || *out == ENTRY_METADATA || !begins(name, len, WHITEOUT))
		return rc;
	if (*out == ENTRY_LINKED) {
		*out = ENTRY_METADATA;
		return 0;
	}
	if (equals(name, len, OPAQUE)) {
		*out = ENTRY_OPAQUE;
		return 0;
	}
	if (begins(name, len, METADATA)) {
		*out = ENTRY_METADATA;
		return 0;
	}

	const char *hidden = entry_path_hidden(path);

	if (!*hidden || strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0)
		return error_set(err, CPULL_ERR_WHITEOUT, "a whiteout that names no file");
	*out = ENTRY_WHITEOUT;
	return 0;
}

int entry_path_blame(const char *raw, struct cpull_error *err)
{
	char quoted[512];

	return error_wrap(err, "entry \"%s\"", error_quote(raw, strlen(raw), quoted, sizeof(quoted)));
}
