/* SPDX-License-Identifier: Apache-2.0
 *
 * For the tests of the tar reader: building archives, and running the reader over them whole and in many cuts, all of
 * which must say the same.
 */
#ifndef TEST_TAR_ARCHIVE_H
#define TEST_TAR_ARCHIVE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <inttypes.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/tar.h"
#include "snapshot/tar_header.h"

#define MAX_ARCHIVE (32u << 20)

/* ---- running the reader ------------------------------------------------------------------------ */

struct run {
	struct bytes log; /* one line an entry, one for its data, one for the end */
	struct tar *tar;
	struct cpull_error err;
	uint64_t hash, data_bytes;
	int code;
};

static inline void log_line(struct run *run, const char *fmt, ...) PRINTF_LIKE(2, 3);
static inline void log_line(struct run *run, const char *fmt, ...)
{
	char line[3 * LIMIT_PATH_BYTES];
	va_list args;

	va_start(args, fmt);
	int len = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	assert_int_equal(bytes_append(&run->log, line, MIN((size_t)len, sizeof(line) - 1), MAX_ARCHIVE), 0);
}

static inline void log_entry(struct run *run)
{
	static const char types[] = "fhlcbdp";
	const struct tar_entry *e = tar_entry(run->tar);

	log_line(run, "%c %s%s%s %o %u:%u %lld.%09ld %" PRIu64 "%s", types[e->type], e->path, *e->link ? " -> " : "",
		 e->link, e->mode, e->uid, e->gid, (long long)e->mtime.tv_sec, e->mtime.tv_nsec, e->size,
		 e->sparse ? " sparse" : "");
	if (e->type == TAR_CHAR || e->type == TAR_BLOCK)
		log_line(run, " %u/%u", e->dev_major, e->dev_minor);
	for (size_t i = 0; i < e->xattr_count; i++) {
		uint32_t sum = 0;

		for (size_t k = 0; k < e->xattrs[i].len; k++)
			sum = sum * 31 + e->xattrs[i].value[k];
		log_line(run, " %s=%zu:%x", e->xattrs[i].name, e->xattrs[i].len, sum);
	}
	log_line(run, "\n");
	run->hash = 14695981039346656037ull;
	run->data_bytes = 0;
}

/* The same whatever pieces the data comes in, and another when a byte lands elsewhere. */
static inline void hash_data(struct run *run, const struct tar_data *data)
{
	for (size_t i = 0; i < data->len; i++)
		run->hash = (run->hash ^ data->data[i] ^ (data->offset + i) << 8) * 1099511628211ull;
	run->data_bytes += data->len;
}

/* Feeds one piece; false when the reader wants no more. */
static inline bool feed(struct run *run, const uint8_t *piece, size_t len)
{
	struct tar_input in = {piece, len, 0};
	struct tar_data data;

	for (;;) {
		size_t before = in.pos;
		int rc = tar_next(run->tar, &in, &data, &run->err);

		assert_true(in.pos >= before && in.pos <= in.len);
		switch (rc) {
		case TAR_MORE:
			assert_int_equal(in.pos, in.len);
			return true;
		case TAR_ENTRY:
			log_entry(run);
			break;
		case TAR_DATA:
			assert_true(data.len > 0 && data.data >= piece && data.data + data.len <= piece + len);
			hash_data(run, &data);
			break;
		case TAR_ENTRY_END:
			log_line(run, "data %" PRIu64 " %016" PRIx64 "\n", run->data_bytes, run->hash);
			break;
		case TAR_END:
			log_line(run, "end\n");
			return false;
		default:
			assert_true(rc < 0);
			run->code = rc;
			return false;
		}
	}
}

static inline void run_cut(struct run *run, const void *data, size_t len, size_t piece)
{
	bool more = true;

	*run = (struct run){0};
	assert_int_equal(tar_new(&run->tar, &run->err), 0);
	for (size_t at = 0; more && at < len; at += piece) {
		/* a copy of exactly that size, so that a sanitizer sees a read past it */
		size_t n = MIN(piece, len - at);
		CLEANUP_FREE uint8_t *copy = malloc(n);

		assert_non_null(copy);
		memcpy(copy, (const uint8_t *)data + at, n);
		more = feed(run, copy, n);
	}
	if (!run->code)
		run->code = tar_finish(run->tar, &run->err);
	if (run->code) {
		assert_int_equal(run->err.code, run->code);
		assert_true(strlen(run->err.message) > 10);
		log_line(run, "error %d %s\n", run->code, run->err.message);
		/* it stays that way */
		assert_int_equal(tar_finish(run->tar, NULL), run->code);
	}
	tar_free(run->tar);
}

/* Runs it whole and in many cuts, asserts that all say the same, and returns the code; *log is what they said. */
static inline int run_all(const void *data, size_t len, struct bytes *log)
{
	static const size_t pieces[] = {1, 7, 511, 512, 513, 1000, 65536};
	struct run whole, cut;

	run_cut(&whole, data, len, MAX(len, (size_t)1));
	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		if (len > 200000 && pieces[i] < 500)
			continue;
		run_cut(&cut, data, len, pieces[i]);
		assert_int_equal(cut.code, whole.code);
		if (whole.log.len || cut.log.len)
			assert_string_equal(cut.log.data, whole.log.data);
		bytes_free(&cut.log);
	}
	if (log)
		*log = whole.log;
	else
		bytes_free(&whole.log);
	return whole.code;
}

/* ---- building archives ------------------------------------------------------------------------- */

#define ARCHIVE __attribute__((cleanup(bytes_free))) struct bytes

static inline void add(struct bytes *b, const void *data, size_t len)
{
	assert_int_equal(bytes_append(b, data, len, MAX_ARCHIVE), 0);
}

static inline void add_padded(struct bytes *b, const void *data, size_t len)
{
	static const uint8_t zeros[TAR_BLOCK_BYTES];

	add(b, data, len);
	add(b, zeros, (TAR_BLOCK_BYTES - len % TAR_BLOCK_BYTES) % TAR_BLOCK_BYTES);
}

static inline void add_end(struct bytes *b)
{
	static const uint8_t zeros[2 * TAR_BLOCK_BYTES];

	add(b, zeros, sizeof(zeros));
}

static inline void octal(uint8_t *field, size_t len, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%0*" PRIo64, (int)len - 1, value);
	memcpy(field, text, len);
}

static inline struct tar_header make(uint8_t type, const char *name, uint64_t size)
{
	struct tar_header h = {.type = type};

	memcpy(h.name, name, MIN(strlen(name), sizeof(h.name)));
	octal(h.mode, 8, 0644);
	octal(h.uid, 8, 0);
	octal(h.gid, 8, 0);
	octal(h.size, 12, size);
	octal(h.mtime, 12, 0);
	memcpy(h.magic, "ustar\0" "00", 8);
	return h;
}

static inline void add_header(struct bytes *b, struct tar_header h)
{
	unsigned sum = 0;

	memset(h.checksum, ' ', 8);
	for (size_t i = 0; i < sizeof(h); i++)
		sum += ((uint8_t *)&h)[i];
	octal(h.checksum, 7, sum);
	add(b, &h, sizeof(h));
}

static inline void add_file(struct bytes *b, const char *name, const char *text)
{
	add_header(b, make('0', name, strlen(text)));
	add_padded(b, text, strlen(text));
}

static inline void record(struct bytes *b, const char *key, const void *value, size_t value_len)
{
	size_t body = strlen(key) + value_len + 3, total = body;
	char text[32];

	for (int i = 0; i < 3; i++)
		total = body + (size_t)snprintf(text, sizeof(text), "%zu", total);
	add(b, text, (size_t)snprintf(text, sizeof(text), "%zu ", total));
	add(b, key, strlen(key));
	add(b, "=", 1);
	add(b, value, value_len);
	add(b, "\n", 1);
}

static inline void add_extension(struct bytes *b, uint8_t type, const void *payload, size_t len)
{
	add_header(b, make(type, "ext", len));
	add_padded(b, payload, len);
}

/* "key=value" strings up to NULL */
static inline void add_pax(struct bytes *b, int type, ...)
{
	ARCHIVE text = {0};
	const char *r;
	va_list args;

	va_start(args, type);
	while ((r = va_arg(args, const char *))) {
		const char *equals = strchr(r, '=');
		CLEANUP_FREE char *key = strndup(r, (size_t)(equals - r));

		record(&text, key, equals + 1, strlen(equals + 1));
	}
	va_end(args);
	add_extension(b, (uint8_t)type, text.data, text.len);
}

static inline void expect(const struct bytes *archive, const char *log)
{
	ARCHIVE got = {0};

	run_all(archive->data, archive->len, &got);
	assert_string_equal(got.len ? got.data : "", log);
}

/* `text` must be in the log; it is what an outcome is about */
static inline void expect_part(const struct bytes *archive, const char *text)
{
	ARCHIVE got = {0};

	assert_int_equal(run_all(archive->data, archive->len, &got), 0);
	if (!strstr(got.data, text))
		fail_msg("\"%s\" is not in:\n%s", text, got.data);
}

static inline void expect_code(const struct bytes *archive, int code)
{
	ARCHIVE got = {0};
	int rc = run_all(archive->data, archive->len, &got);

	if (rc != code)
		fail_msg("got %d, wanted %d:\n%s", rc, code, got.len ? got.data : "");
}

static inline bool load(const char *name, struct bytes *out)
{
	const char *shared = getenv("COCO_PULL_SHARED");
	CLEANUP_FREE char *path = shared ? format_string("%s/vectors/%s", shared, name) : NULL;

	return path && file_read(path, MAX_ARCHIVE, "vector", out, NULL) == 0;
}

#endif
