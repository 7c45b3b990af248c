/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/decompress: what comes out, that every cut of input and output gives the same, and what is refused. Built
 * twice, for either inflater.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "engine/base/error.h"
#include "engine/decompress.h"

#define MAX_BYTES (64u << 20)
#define WINDOW_BYTES (8u << 20)
#define BYTES __attribute__((cleanup(bytes_free))) struct bytes

/* ---- running ----------------------------------------------------------------------------------- */

struct result {
	int code;
	enum decompress_kind kind;
	struct bytes out;
	struct cpull_error err;
};

static void result_free(struct result *r)
{
	bytes_free(&r->out);
}

#define RESULT __attribute__((cleanup(result_free))) struct result

static void add(struct bytes *b, const void *data, size_t len)
{
	assert_int_equal(bytes_append(b, data, len, MAX_BYTES), 0);
}

/* Feeds one piece until it is used up and the output is not full. */
static int feed(struct decompress *d, const uint8_t *piece, size_t len, size_t out_piece, struct result *r)
{
	struct decompress_io io = {.in = piece, .in_len = len};
	CLEANUP_FREE uint8_t *out = malloc(out_piece);

	assert_non_null(out);
	do {
		io.out = out;
		io.out_len = out_piece;
		io.out_pos = 0;

		int rc = decompress_run(d, &io, &r->err);

		assert_true(io.in_pos <= io.in_len && io.out_pos <= io.out_len);
		if (rc)
			return rc;
		add(&r->out, out, io.out_pos);
		assert_true(io.in_pos == io.in_len || io.out_pos == io.out_len);
	} while (io.out_pos == io.out_len);
	return 0;
}

static void run_cut(const struct bytes *data, size_t in_piece, size_t out_piece, size_t window, struct result *r)
{
	struct decompress *d;

	*r = (struct result){0};
	struct window_bank *windows;

	assert_int_equal(window_bank_new(window, &windows, &r->err), 0);
	assert_int_equal(decompress_new(windows, &d, &r->err), 0);
	for (size_t at = 0; !r->code && at < data->len; at += in_piece) {
		size_t n = MIN(in_piece, data->len - at);
		CLEANUP_FREE uint8_t *copy = malloc(n); /* a sanitizer sees a read past it */

		assert_non_null(copy);
		memcpy(copy, data->data + at, n);
		r->code = feed(d, copy, n, out_piece, r);
	}
	if (!r->code)
		r->code = decompress_finish(d, &r->err);
	if (r->code) {
		assert_int_equal(r->err.code, r->code);
		assert_int_equal(decompress_finish(d, NULL), r->code);
	}
	r->kind = decompress_kind(d);
	decompress_free(d);
	window_bank_free(windows);
}

static void run_all(const struct bytes *data, struct result *r)
{
	static const size_t pieces[][2] = {{1, 65536}, {65536, 1}, {1, 1}, {7, 3},
					    {4096, 4096}, {65536, 65536}, {1000, 262144}};

	run_cut(data, MAX(data->len, (size_t)1), 1u << 20, WINDOW_BYTES, r);
	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		RESULT cut = {0};

		if (data->len + r->out.len > 150000 && MIN(pieces[i][0], pieces[i][1]) < 100)
			continue;
		run_cut(data, pieces[i][0], pieces[i][1], WINDOW_BYTES, &cut);
		assert_int_equal(cut.code, r->code);
		assert_int_equal(cut.kind, r->kind);
		if (!r->code) {
			assert_int_equal(cut.out.len, r->out.len);
			if (r->out.len)
				assert_memory_equal(cut.out.data, r->out.data, r->out.len);
		}
	}
}

static void expect_code(const struct bytes *data, int code)
{
	RESULT r = {0};

	run_all(data, &r);
	if (r.code != code)
		fail_msg("got %d, wanted %d: %s", r.code, code, r.err.message);
}

static void expect_bytes(const struct bytes *data, enum decompress_kind kind, const void *want, size_t len)
{
	RESULT r = {0};

	run_all(data, &r);
	if (r.code)
		fail_msg("got %d: %s", r.code, r.err.message);
	assert_int_equal(r.kind, kind);
	assert_int_equal(r.out.len, len);
	if (len)
		assert_memory_equal(r.out.data, want, len);
}

/* ---- making ------------------------------------------------------------------------------------ */

/* Neither random nor constant: matches near and far, and literals. */
static void fill(uint8_t *p, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len; i++) {
		seed = seed * 1664525 + 1013904223;
		p[i] = seed >> 29 || i < 40000 ? (uint8_t)(seed >> 24) & 0x3f : p[i - 1 - (seed >> 8) % 33000 % i];
	}
}

struct member {
	uint8_t flags;
	const char *name, *comment;
	const uint8_t *extra;
	uint16_t extra_len;
	int level, strategy;
	int header_crc_off; /* added to the right value */
};

static void add_deflate(struct bytes *b, const void *data, size_t len, int level, int strategy)
{
	z_stream s = {0};
	size_t cap = len + len / 100 + 1000;
	CLEANUP_FREE uint8_t *out = malloc(cap);

	assert_int_equal(deflateInit2(&s, level, Z_DEFLATED, -15, 8, strategy), Z_OK);
	s.next_in = (uint8_t *)data;
	s.avail_in = (uInt)len;
	s.next_out = out;
	s.avail_out = (uInt)cap;
	assert_int_equal(deflate(&s, Z_FINISH), Z_STREAM_END);
	add(b, out, s.total_out);
	deflateEnd(&s);
}

static void add_le(struct bytes *b, uint64_t value, size_t len)
{
	for (; len; len--, value >>= 8)
		add(b, &(uint8_t){(uint8_t)value}, 1);
}

static void add_member(struct bytes *b, const void *data, size_t len, const struct member *m)
{
	size_t start = b->len;

	add(b, (uint8_t[]){0x1f, 0x8b, 8, m->flags, 1, 2, 3, 4, 0, 255}, 10);
	if (m->flags & 4) {
		add_le(b, m->extra_len, 2);
		add(b, m->extra, m->extra_len);
	}
	if (m->flags & 8)
		add(b, m->name, strlen(m->name) + 1);
	if (m->flags & 16)
		add(b, m->comment, strlen(m->comment) + 1);
	if (m->flags & 2)
		add_le(b, crc32(0, (uint8_t *)b->data + start, (uInt)(b->len - start)) + (unsigned)m->header_crc_off,
		       2);
	add_deflate(b, data, len, m->level, m->strategy);
	add_le(b, crc32(0, data, (uInt)len), 4);
	add_le(b, len, 4);
}

static void add_gzip(struct bytes *b, const void *data, size_t len)
{
	add_member(b, data, len, &(struct member){.level = 6});
}

static void add_frame(struct bytes *b, const void *data, size_t len, int checksum, int content_size, int window_log)
{
	ZSTD_CCtx *ctx = ZSTD_createCCtx();
	size_t cap = ZSTD_compressBound(len);
	CLEANUP_FREE uint8_t *out = malloc(cap);
	ZSTD_inBuffer in = {data, len, 0};
	ZSTD_outBuffer o = {out, cap, 0};

	ZSTD_CCtx_setParameter(ctx, ZSTD_c_checksumFlag, checksum);
	ZSTD_CCtx_setParameter(ctx, ZSTD_c_contentSizeFlag, content_size);
	if (content_size)
		ZSTD_CCtx_setPledgedSrcSize(ctx, len);
	if (window_log)
		ZSTD_CCtx_setParameter(ctx, ZSTD_c_windowLog, window_log);
	/* two calls, so that the size is not guessed from the first */
	ZSTD_inBuffer half = {data, content_size ? 0 : len / 2, 0};

	assert_false(ZSTD_isError(ZSTD_compressStream2(ctx, &o, &half, ZSTD_e_continue)));
	in.pos = half.pos;
	assert_int_equal(ZSTD_compressStream2(ctx, &o, &in, ZSTD_e_end), 0);
	add(b, out, o.pos);
	ZSTD_freeCCtx(ctx);
}

static void add_skippable(struct bytes *b, unsigned which, const void *data, uint32_t len)
{
	add_le(b, 0x184d2a50u + which, 4);
	add_le(b, len, 4);
	add(b, data, len);
}

static bool load(const char *name, struct bytes *out)
{
	const char *shared = getenv("COCO_PULL_SHARED");
	CLEANUP_FREE char *path = shared ? format_string("%s/vectors/%s", shared, name) : NULL;

	if (path && file_read(path, MAX_BYTES, "vector", out, NULL) == 0)
		return true;
	print_message("no shared vectors (COCO_PULL_SHARED): %s\n", name);
	return false;
}

/* ---- tests ------------------------------------------------------------------------------------- */

static void vectors(void **state)
{
	static const struct {
		const char *file;
		int code;
		const char *same_as; /* NULL: not looked at */
	} rows[] = {
		{"layers/multi-member.tar.gz", 0, "layers/l1-base.tar"},
		{"layers/gz-trailing-zeros.tar.gz", 0, "layers/l1-base.tar"},
		{"layers/gz-trailing-garbage.tar.gz", CPULL_ERR_DECOMPRESS, NULL},
		{"layers/gz-bad-crc.tar.gz", CPULL_ERR_DECOMPRESS, NULL},
		{"layers/gz-truncated.tar.gz", CPULL_ERR_DECOMPRESS, NULL},
		{"layers/zstd-multi.tar.zst", 0, "layers/l1-base.tar"},
		{"layers/zstd-chunked-shape.tar.zst", 0, "layers/l1-base.tar"},
		{"layers/estargz-shape.tar.gz", 0, NULL},
		{"layers/l1-base.tar", 0, "layers/l1-base.tar"},
		{"ocicrypt/layer.tar.gz", 0, "ocicrypt/layer.tar"},
		{"upstream/containers-image/pkg/compression/fixtures/Hello.gz", 0,
		 "upstream/containers-image/pkg/compression/fixtures/Hello.uncompressed"},
		{"upstream/containers-image/pkg/compression/fixtures/Hello.zst", 0,
		 "upstream/containers-image/pkg/compression/fixtures/Hello.uncompressed"},
		{"upstream/containers-image/pkg/compression/fixtures/Hello.bz2", CPULL_ERR_MEDIA_TYPE, NULL},
		{"upstream/containers-image/pkg/compression/fixtures/Hello.xz", CPULL_ERR_MEDIA_TYPE, NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		BYTES data = {0}, want = {0};
		RESULT r = {0};

		if (!load(rows[i].file, &data))
			skip();
		run_all(&data, &r);
		if (r.code != rows[i].code)
			fail_msg("%s: got %d, wanted %d: %s", rows[i].file, r.code, rows[i].code, r.err.message);
		if (!rows[i].same_as)
			continue;
		if (!load(rows[i].same_as, &want))
			skip();
		assert_int_equal(r.out.len, want.len);
		assert_memory_equal(r.out.data, want.data, want.len);
	}
}

static void plain_and_empty(void **state)
{
	/* what begins like a magic, and is none */
	static const char *const texts[] = {"", "usr/bin/x", "BZh9a", "BZh91AY&SX/", "P*N/file",
					   "(\xb5/x", "\xfd\67zXY", "(", "Z"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		BYTES b = {0};

		/* as the name that a tar begins with */
		add(&b, texts[i], strlen(texts[i]));
		if (i)
			add(&b, (char[512]){0}, 512);
		expect_bytes(&b, DECOMPRESS_NONE, b.data, b.len);
	}
}

static void too_short_to_tell(void **state)
{
	static const char *const texts[] = {"\x1f", "\x28\xb5", "\x28\xb5\x2f", "BZh9", "\xfd\67zX", "\x5f*M"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		BYTES b = {0};

		add(&b, texts[i], strlen(texts[i]));
		expect_code(&b, CPULL_ERR_DECOMPRESS);
	}
}

static void known_but_not_supported(void **state)
{
	static const char *const texts[] = {"\xfd\67zXZ\0\0\x04", "BZh91AY&SY\x12",
					   "BZh5\x17\x72\x45\x38\x50\x90\141bcd"};
	static const size_t lens[] = {8, 11, 14};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		BYTES b = {0};

		add(&b, texts[i], lens[i]);
		expect_code(&b, CPULL_ERR_MEDIA_TYPE);
	}
}

static void gzip_members_with_every_field(void **state)
{
	static const uint8_t extra[] = {'I', 'G', 4, 0, 1, 2, 3, 4};
	CLEANUP_FREE uint8_t *data = malloc(100000);
	CLEANUP_FREE uint8_t *big_extra = calloc(1, 65535);
	BYTES b = {0}, want = {0};

	(void)state;
	fill(data, 100000, 7);
	add_member(&b, data, 700, &(struct member){.flags = 31, .name = "layer.tar", .comment = "one", .extra = extra,
						   .extra_len = 8, .level = 9});
	add(&want, data, 700);
	add_member(&b, "", 0, &(struct member){.flags = 4, .extra = extra, .level = 1});
	add_member(&b, data, 100000, &(struct member){.flags = 16 | 2, .comment = "two", .level = 6});
	add(&want, data, 100000);
	add_member(&b, data, 5000, &(struct member){.flags = 4 | 2, .extra = big_extra, .extra_len = 65535,
						    .level = 0});
	add(&want, data, 5000);
	add_member(&b, data, 300, &(struct member){.flags = 8, .name = "", .level = 6, .strategy = Z_FIXED});
	add(&want, data, 300);
	add_gzip(&b, "", 0);
	expect_bytes(&b, DECOMPRESS_GZIP, want.data, want.len);
}

static void gzip_of_many_shapes(void **state)
{
	static const size_t sizes[] = {0, 1, 31, 4096, 32767, 32768, 65536, 65537, 131072 + 258, 1u << 20};
	static const int levels[] = {0, 1, 6, 9};
	CLEANUP_FREE uint8_t *data = malloc(1u << 20);

	(void)state;
	fill(data, 1u << 20, 3);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (size_t k = 0; k < ARRAY_LEN(levels); k++) {
			BYTES b = {0};

			add_member(&b, data, sizes[i], &(struct member){.level = levels[k]});
			expect_bytes(&b, DECOMPRESS_GZIP, data, sizes[i]);
		}
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		BYTES b = {0};
		CLEANUP_FREE uint8_t *zeros = calloc(1, 1u << 20);

		add_gzip(&b, zeros, sizes[i]);
		expect_bytes(&b, DECOMPRESS_GZIP, zeros, sizes[i]);
	}
}

/* A member that ends where a buffer ends, of input or of output. */
static void gzip_boundaries_on_buffer_boundaries(void **state)
{
	static const size_t sizes[] = {4096, 65536, 1u << 20};
	CLEANUP_FREE uint8_t *data = malloc(1u << 20);

	(void)state;
	fill(data, 1u << 20, 5);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		BYTES b = {0}, want = {0};
		struct result r;

		for (int k = 0; k < 3; k++) {
			add_gzip(&b, data, sizes[i]);
			add(&want, data, sizes[i]);
		}

		size_t member = b.len / 3;

		for (size_t in = member - 9; in <= member + 11; in++)
			for (size_t out = sizes[i] - 1; out <= sizes[i] + 1; out++) {
				run_cut(&b, in, out, WINDOW_BYTES, &r);
				assert_int_equal(r.code, 0);
				assert_int_equal(r.out.len, want.len);
				assert_memory_equal(r.out.data, want.data, want.len);
				result_free(&r);
				if (sizes[i] > 65536)
					in += 3; /* enough of the big ones */
			}
	}
}

static void gzip_cut_anywhere(void **state)
{
	CLEANUP_FREE uint8_t *data = malloc(3000);
	BYTES b = {0};
	size_t first;

	(void)state;
	fill(data, 3000, 9);
	add_member(&b, data, 3000, &(struct member){.flags = 31, .name = "n", .comment = "c", .extra = data,
						    .extra_len = 5, .level = 6});
	first = b.len;
	add_gzip(&b, data, 100);
	for (size_t len = 1; len <= b.len; len++) {
		struct bytes cut = {b.data, len, len};
		RESULT r = {0};

		run_cut(&cut, len, 1u << 16, WINDOW_BYTES, &r);
		assert_int_equal(r.code, len == first || len == b.len ? 0 : CPULL_ERR_DECOMPRESS);
	}
}

/* Every byte but those that mean nothing is vouched for by something. */
static void gzip_damage_is_noticed(void **state)
{
	CLEANUP_FREE uint8_t *data = malloc(3000);
	BYTES b = {0};

	(void)state;
	fill(data, 3000, 11);
	add_member(&b, data, 3000, &(struct member){.flags = 2, .level = 6});
	for (size_t i = 0; i < b.len; i++) {
		RESULT r = {0};

		b.data[i] ^= 0x20;
		run_cut(&b, b.len, 1u << 16, WINDOW_BYTES, &r);
		/* without its first two bytes it is no gzip at all */
		assert_int_equal(r.code, i < 2 ? 0 : CPULL_ERR_DECOMPRESS);
		assert_true(i >= 2 || r.kind == DECOMPRESS_NONE);
		b.data[i] ^= 0x20;
	}
}

static void gzip_headers_that_are_refused(void **state)
{
	(void)state;
	for (int bit = 0; bit < 3; bit++) {
		BYTES b = {0};

		add_member(&b, "x", 1, &(struct member){.flags = (uint8_t)(0x20 << bit), .level = 6});
		expect_code(&b, CPULL_ERR_DECOMPRESS);
	}

	BYTES method = {0}, crc = {0}, second = {0};

	add_gzip(&method, "x", 1);
	method.data[2] = 7;
	expect_code(&method, CPULL_ERR_DECOMPRESS);
	add_member(&crc, "x", 1, &(struct member){.flags = 2 | 8, .name = "n", .header_crc_off = 1, .level = 6});
	expect_code(&crc, CPULL_ERR_DECOMPRESS);
	/* a damaged second member: at once, and no loop */
	add_gzip(&second, "x", 1);
	add(&second, "\x1f\x8b\x08\x00garbage and more garbage, over and over", 42);
	expect_code(&second, CPULL_ERR_DECOMPRESS);
}

static void what_follows_gzip(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		int code;
	} rows[] = {
		{"\0", 1, 0},
		{"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 27, 0},
		{"garbage", 7, CPULL_ERR_DECOMPRESS},
		{"g", 1, CPULL_ERR_DECOMPRESS},
		{"\0\0g", 3, CPULL_ERR_DECOMPRESS},
		{"\x1f", 1, CPULL_ERR_DECOMPRESS},
		{"\x1f\x8b", 2, CPULL_ERR_DECOMPRESS},
		{"\x28\xb5\x2f\xfd", 4, CPULL_ERR_DECOMPRESS},
		/* zeros, then a member */
		{"\0\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\0\0\0\0\0\0\0\0\0", 21, CPULL_ERR_DECOMPRESS},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		BYTES b = {0};

		add_gzip(&b, "text", 4);
		add(&b, rows[i].text, rows[i].len);
		expect_code(&b, rows[i].code);
		if (!rows[i].code)
			expect_bytes(&b, DECOMPRESS_GZIP, "text", 4);
	}
}

static void zstd_frames(void **state)
{
	CLEANUP_FREE uint8_t *data = malloc(3u << 20);
	BYTES small = {0}, want = {0};

	(void)state;
	fill(data, 3u << 20, 21);
	add_skippable(&small, 0, "", 0);
	for (size_t len = 0; len < 100000; len = len * 3 + 250) {
		add_frame(&small, data, len, len & 1, len & 2, 0);
		add(&want, data, len);
		add_skippable(&small, (unsigned)len & 15, data, (uint32_t)len % 700);
	}
	expect_bytes(&small, DECOMPRESS_ZSTD, want.data, want.len);

	BYTES big = {0};

	add_frame(&big, data, 3u << 20, 1, 1, 20);
	expect_bytes(&big, DECOMPRESS_ZSTD, data, 3u << 20);
}

static void zstd_cut_anywhere(void **state)
{
	CLEANUP_FREE uint8_t *data = malloc(3000);
	BYTES b = {0};
	size_t ends[3];

	(void)state;
	fill(data, 3000, 9);
	add_frame(&b, data, 3000, 1, 1, 0);
	ends[0] = b.len;
	add_skippable(&b, 3, "abc", 3);
	ends[1] = b.len;
	add_frame(&b, data, 100, 0, 0, 0);
	ends[2] = b.len;
	for (size_t len = 1; len <= b.len; len++) {
		struct bytes cut = {b.data, len, len};
		bool whole = len == ends[0] || len == ends[1] || len == ends[2];
		RESULT r = {0};

		run_cut(&cut, len, 1u << 16, WINDOW_BYTES, &r);
		assert_int_equal(r.code, whole ? 0 : CPULL_ERR_DECOMPRESS);
	}
}

static void zstd_damage_is_noticed(void **state)
{
	CLEANUP_FREE uint8_t *data = malloc(3000);
	BYTES b = {0};

	(void)state;
	fill(data, 3000, 13);
	add_frame(&b, data, 3000, 1, 1, 0);
	for (size_t i = 4; i < b.len; i++) {
		RESULT r = {0};

		b.data[i] ^= 0x20;
		run_cut(&b, b.len, 1u << 16, WINDOW_BYTES, &r);
		/* a changed header may also ask for another window */
		assert_true(r.code == CPULL_ERR_DECOMPRESS || (i < 8 && r.code == CPULL_ERR_LIMIT));
		b.data[i] ^= 0x20;
	}
}

static void zstd_that_is_refused(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		int code;
	} rows[] = {
		{"g", 1, CPULL_ERR_DECOMPRESS},
		{"garbage", 7, CPULL_ERR_DECOMPRESS},
		{"\0\0\0\0", 4, CPULL_ERR_DECOMPRESS},
		{"\x1f\x8b\x08\0", 4, CPULL_ERR_DECOMPRESS},
		{"\x27\xb5\x2f\xfd", 4, CPULL_ERR_DECOMPRESS}, /* zstd 0.7's magic */
		{"\x28\xb5\x2f\xfd\x21\x01\x00", 7, CPULL_ERR_DECOMPRESS}, /* dictionary 1 */
		{"\x28\xb5\x2f\xfd\x23\0\0\0\x80\x00", 10, CPULL_ERR_DECOMPRESS},
		{"\x28\xb5\x2f\xfd\x21\x00\x00\x01\x00\x00", 10, 0}, /* dictionary 0 is none */
		{"\x28\xb5\x2f\xfd\x28\x00\x01\x00\x00", 9, CPULL_ERR_DECOMPRESS}, /* reserved bit */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		BYTES b = {0};

		add_frame(&b, "text", 4, 1, 1, 0);
		add(&b, rows[i].text, rows[i].len);
		expect_code(&b, rows[i].code);
	}

	BYTES skippable = {0};

	add_skippable(&skippable, 0, "abc", 3);
	add_skippable(&skippable, 15, "", 0);
	expect_code(&skippable, CPULL_ERR_DECOMPRESS);
}

static void zstd_windows_have_a_limit(void **state)
{
	static const struct {
		const char *text; /* a frame with one empty last block */
		size_t len;
		int code;
	} rows[] = {
		{"\x28\xb5\x2f\xfd\x00\x68\x01\x00\x00", 9, 0},               /* 8 MiB */
		{"\x28\xb5\x2f\xfd\x00\x69\x01\x00\x00", 9, CPULL_ERR_LIMIT}, /* 9 MiB */
		{"\x28\xb5\x2f\xfd\x00\x70\x01\x00\x00", 9, CPULL_ERR_LIMIT}, /* 16 MiB */
		{"\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00", 9, CPULL_ERR_LIMIT}, /* 3.75 TiB */
		/* one segment of 8 MiB + 1 */
		{"\x28\xb5\x2f\xfd\xa0\x01\x00\x80\x00\x01\x00\x00", 12, CPULL_ERR_LIMIT},
		{"\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00", 16, CPULL_ERR_LIMIT},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		BYTES b = {0};

		add(&b, rows[i].text, rows[i].len);
		expect_code(&b, rows[i].code);
	}

	/* with memory enough the second is fine, and its message said how much that is */
	BYTES b = {0};
	RESULT r = {0}, more = {0}, most = {0};

	add(&b, rows[1].text, rows[1].len);
	run_cut(&b, 9, 100, WINDOW_BYTES, &r);
	assert_non_null(strstr(r.err.message, "--memory 14M"));
	run_cut(&b, 9, 100, 16u << 20, &more);
	assert_int_equal(more.code, 0);

	/* 2^27 is the most, whatever the caller says */
	BYTES large = {0};

	add(&large, "\x28\xb5\x2f\xfd\x00\x89\x01\x00\x00", 9);
	run_cut(&large, 9, 100, (size_t)1 << 40, &most);
	assert_int_equal(most.code, CPULL_ERR_LIMIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vectors),
		cmocka_unit_test(plain_and_empty),
		cmocka_unit_test(too_short_to_tell),
		cmocka_unit_test(known_but_not_supported),
		cmocka_unit_test(gzip_members_with_every_field),
		cmocka_unit_test(gzip_of_many_shapes),
		cmocka_unit_test(gzip_boundaries_on_buffer_boundaries),
		cmocka_unit_test(gzip_cut_anywhere),
		cmocka_unit_test(gzip_damage_is_noticed),
		cmocka_unit_test(gzip_headers_that_are_refused),
		cmocka_unit_test(what_follows_gzip),
		cmocka_unit_test(zstd_frames),
		cmocka_unit_test(zstd_cut_anywhere),
		cmocka_unit_test(zstd_damage_is_noticed),
		cmocka_unit_test(zstd_that_is_refused),
		cmocka_unit_test(zstd_windows_have_a_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
