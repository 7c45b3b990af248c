/* SPDX-License-Identifier: Apache-2.0
 *
 * The tar reader on anything. What it says of an archive must not depend on how the input is cut: the oracle is the
 * archive read whole against the same read in pieces whose sizes come from its first bytes.
 */
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/tar.h"
#include "tar_mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* A running hash of all events; data is hashed by byte and place. */
struct trace {
	uint64_t hash;
	int code;
};

static void mix(struct trace *t, const void *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		t->hash = (t->hash ^ ((const uint8_t *)data)[i]) * 1099511628211ull;
}

static void mix_number(struct trace *t, uint64_t n)
{
	mix(t, &n, sizeof(n));
}

static void mix_entry(struct trace *t, const struct tar_entry *e)
{
	if (strlen(e->path) > LIMIT_PATH_BYTES || strlen(e->link) > LIMIT_PATH_BYTES || e->mode & ~07777u ||
	    e->uid == UINT32_MAX || e->gid == UINT32_MAX || e->mtime.tv_nsec < 0 || e->mtime.tv_nsec > 999999999 ||
	    e->size > LIMIT_FILE_BYTES || e->xattr_count > LIMIT_XATTRS)
		abort();
	mix(t, e->path, strlen(e->path) + 1);
	mix(t, e->link, strlen(e->link) + 1);
	mix_number(t, (uint64_t)e->type << 32 | e->mode);
	mix_number(t, (uint64_t)e->uid << 32 | e->gid);
	mix_number(t, (uint64_t)e->mtime.tv_sec);
	mix_number(t, (uint64_t)e->mtime.tv_nsec);
	mix_number(t, e->size << 1 | e->sparse);
	mix_number(t, (uint64_t)e->dev_major << 32 | e->dev_minor);
	for (size_t i = 0; i < e->xattr_count; i++) {
		mix(t, e->xattrs[i].name, strlen(e->xattrs[i].name) + 1);
		mix_number(t, e->xattrs[i].len);
		mix(t, e->xattrs[i].value, e->xattrs[i].len);
	}
}

/* Returns false when the reader is done. */
static bool feed(struct tar *tar, const uint8_t *piece, size_t len, struct trace *t, struct cpull_error *err)
{
	struct tar_input in = {piece, len, 0};
	struct tar_data data;

	for (;;) {
		int rc = tar_next(tar, &in, &data, err);

		if (in.pos > len)
			abort();
		if (rc == TAR_MORE && in.pos != len)
			abort();
		if (rc == TAR_MORE)
			return true;
		if (rc == TAR_ENTRY) {
			mix_entry(t, tar_entry(tar));
		} else if (rc == TAR_DATA) {
			const struct tar_entry *e = tar_entry(tar);

			if (data.data < piece || data.data + data.len > piece + len || !data.len ||
			    data.offset > e->size || data.len > e->size - data.offset)
				abort();
			for (size_t i = 0; i < data.len; i++) {
				mix_number(t, data.offset + i);
				mix(t, data.data + i, 1);
			}
		} else {
			mix_number(t, (uint64_t)rc);
			t->code = rc < 0 ? rc : t->code;
			if (rc != TAR_ENTRY_END)
				return false;
		}
	}
}

static struct trace trace(const uint8_t *data, size_t len, const uint8_t *cuts, size_t cut_count)
{
	struct trace t = {14695981039346656037ull, 0};
	struct cpull_error err = {0};
	struct tar *tar;
	size_t cut = 0;
	bool more = true;

	if (tar_new(&tar, &err))
		abort();
	for (size_t at = 0; more && at < len;) {
		size_t n = len - at;

		if (cut_count)
			n = MIN(n, cuts[cut % cut_count] + (size_t)1);
		cut++;

		uint8_t *copy = malloc(n);

		if (!copy)
			abort();
		memcpy(copy, data + at, n);
		more = feed(tar, copy, n, &t, &err);
		free(copy);
		at += n;
	}
	if (!t.code)
		t.code = tar_finish(tar, &err);
	if (t.code)
		mix(&t, err.message, strlen(err.message));
	tar_free(tar);
	return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	enum { CUTS = 4 };

	/* the cuts are at the end, so that an archive is an input as it is */
	if (len < CUTS)
		return 0;

	const uint8_t *cuts = data + len - CUTS;
	struct trace whole = trace(data, len, NULL, 0);
	struct trace pieces = trace(data, len, cuts, CUTS);

	if (whole.code != pieces.code || whole.hash != pieces.hash)
		abort();
	return 0;
}
