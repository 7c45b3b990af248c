/* SPDX-License-Identifier: Apache-2.0
 *
 * Each decompressor by its own interface, streaming. Used by the corpus, the inflate stage and the blobs, on the main
 * thread.
 */
#include "bench/micro/unpack.h"

#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "bench/micro/micro_config.h"
#include "config.h"
#include "engine/base/error.h"
#include "engine/decompress.h"

#ifdef HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif
#ifdef HAVE_ZLIB_NG
#include <zlib-ng.h>
#endif

/* What the product hands to its decompressor at a time, and the libraries that count in 32 bits. */
#define STEP_BYTES ((size_t)256 << 10)
#define WINDOWS_BYTES ((size_t)256 << 20)

static int emit(struct unpack_sink *sink, uint8_t *data, size_t len, struct cpull_error *err)
{
	sink->bytes += len;
	return sink->take && len ? sink->take(sink->payload, data, len, err) : 0;
}

static int damaged(struct cpull_error *err, const char *by)
{
	return error_set(err, CPULL_ERR_DECOMPRESS, "%s cannot unpack the data", by);
}

#ifdef HAVE_ISAL
int unpack_isal(const struct span *in, struct unpack_sink *sink, struct cpull_error *err)
{
	CLEANUP_FREE struct inflate_state *s = malloc(sizeof(*s));
	CLEANUP_FREE uint8_t *out = malloc(UNPACK_CHUNK_BYTES);
	uint8_t *end = in->data + in->len;

	if (!s || !out)
		return error_nomem(err);
	isal_inflate_init(s);
	s->crc_flag = ISAL_GZIP;
	s->next_in = in->data;
	for (;;) {
		s->avail_in = (uint32_t)MIN((size_t)(end - s->next_in), STEP_BYTES);
		s->next_out = out;
		s->avail_out = UNPACK_CHUNK_BYTES;
		if (isal_inflate(s))
			return damaged(err, "ISA-L");

		int rc = emit(sink, out, (size_t)(s->next_out - out), err);

		if (rc)
			return rc;
		if (s->block_state == ISAL_BLOCK_FINISH) {
			/* the next member, or padding */
			if (end - s->next_in < 2 || s->next_in[0] != 0x1f)
				return 0;
			isal_inflate_reset(s);
			s->crc_flag = ISAL_GZIP;
		} else if (s->next_in == end && s->next_out == out) {
			return damaged(err, "ISA-L");
		}
	}
}
#else
int unpack_isal(const struct span *in, struct unpack_sink *sink, struct cpull_error *err)
{
	(void)in;
	(void)sink;
	return error_set(err, CPULL_ERR_UNSUPPORTED, "built without ISA-L");
}
#endif

/* zlib and zlib-ng, which differ in their names alone. */
#define UNPACK_LIKE_ZLIB(by, stream_type, init, run, reset, end_fn)                                                    \
	CLEANUP_FREE uint8_t *out = malloc(UNPACK_CHUNK_BYTES);                                                        \
	const uint8_t *end = in->data + in->len;                                                                       \
	stream_type s = {.next_in = in->data};                                                                         \
	int rc = 0, state;                                                                                             \
	if (!out || init(&s, 15 + 16) != Z_OK)                                                                         \
		return error_nomem(err);                                                                               \
	do {                                                                                                           \
		s.avail_in = (uint32_t)MIN((size_t)(end - s.next_in), STEP_BYTES);                                     \
		s.next_out = out;                                                                                      \
		s.avail_out = UNPACK_CHUNK_BYTES;                                                                      \
		state = run(&s, Z_NO_FLUSH);                                                                           \
		if (state != Z_OK && state != Z_STREAM_END)                                                            \
			rc = damaged(err, by);                                                                         \
		else                                                                                                   \
			rc = emit(sink, out, UNPACK_CHUNK_BYTES - s.avail_out, err);                                   \
		if (state == Z_STREAM_END && end - s.next_in >= 2 && *s.next_in == 0x1f)                               \
			state = reset(&s);                                                                             \
	} while (!rc && state != Z_STREAM_END);                                                                        \
	end_fn(&s);                                                                                                    \
	return rc

int unpack_zlib(const struct span *in, struct unpack_sink *sink, struct cpull_error *err)
{
	UNPACK_LIKE_ZLIB("zlib", z_stream, inflateInit2, inflate, inflateReset, inflateEnd);
}

#ifdef HAVE_ZLIB_NG
int unpack_zlib_ng(const struct span *in, struct unpack_sink *sink, struct cpull_error *err)
{
	UNPACK_LIKE_ZLIB("zlib-ng", zng_stream, zng_inflateInit2, zng_inflate, zng_inflateReset, zng_inflateEnd);
}
#else
int unpack_zlib_ng(const struct span *in, struct unpack_sink *sink, struct cpull_error *err)
{
	(void)in;
	(void)sink;
	return error_set(err, CPULL_ERR_UNSUPPORTED, "built without zlib-ng");
}
#endif

static int zstd_frames(ZSTD_DCtx *ctx, const struct span *in, uint8_t *out, struct unpack_sink *sink,
		       struct cpull_error *err)
{
	ZSTD_inBuffer i = {.src = in->data};
	bool full;

	do {
		ZSTD_outBuffer o = {.dst = out, .size = UNPACK_CHUNK_BYTES};

		if (i.pos == i.size)
			i.size = MIN(in->len, i.size + STEP_BYTES);

		size_t left = ZSTD_decompressStream(ctx, &o, &i);

		if (ZSTD_isError(left) || (i.pos == in->len && o.pos < o.size && left))
			return damaged(err, "zstd");

		int rc = emit(sink, out, o.pos, err);

		if (rc)
			return rc;
		full = o.pos == o.size;
	} while (full || i.pos < in->len);
	return 0;
}

int unpack_zstd(const struct span *in, struct unpack_sink *sink, struct cpull_error *err)
{
	CLEANUP_FREE uint8_t *out = malloc(UNPACK_CHUNK_BYTES);
	ZSTD_DCtx *ctx = ZSTD_createDCtx();
	int rc;

	if (!out || !ctx)
		rc = error_nomem(err);
	else if (ZSTD_isError(ZSTD_DCtx_setParameter(ctx, ZSTD_d_windowLogMax, LIMIT_ZSTD_WINDOW_LOG)))
		rc = damaged(err, "zstd");
	else
		rc = zstd_frames(ctx, in, out, sink, err);
	ZSTD_freeDCtx(ctx);
	return rc;
}

static int run_product(struct decompress *d, const struct span *in, uint8_t *out, struct unpack_sink *sink,
		       struct cpull_error *err)
{
	struct decompress_io io = {.in = in->data, .out = out, .out_len = UNPACK_CHUNK_BYTES};
	bool full;

	do {
		if (io.in_pos == io.in_len)
			io.in_len = MIN(in->len, io.in_len + STEP_BYTES);
		io.out_pos = 0;

		int rc = decompress_run(d, &io, err);

		if (!rc)
			rc = emit(sink, out, io.out_pos, err);
		if (rc)
			return rc;
		full = io.out_pos == io.out_len;
	} while (full || io.in_pos < in->len);
	return decompress_finish(d, err);
}

int unpack_product(const struct span *in, struct unpack_sink *sink, struct cpull_error *err)
{
	CLEANUP_FREE uint8_t *out = malloc(UNPACK_CHUNK_BYTES);
	struct window_bank *windows = NULL;
	struct decompress *d = NULL;
	int rc = out ? window_bank_new(WINDOWS_BYTES, &windows, err) : error_nomem(err);

	if (!rc)
		rc = decompress_new(windows, &d, err);
	if (!rc)
		rc = run_product(d, in, out, sink, err);
	decompress_free(d);
	window_bank_free(windows);
	return rc;
}

unpack_fn unpack_bound(const struct span *in)
{
	static const uint8_t gzip[] = {0x1f, 0x8b}, zstd[] = {0x28, 0xb5, 0x2f, 0xfd};

	if (in->len > sizeof(zstd) && !memcmp(in->data, zstd, sizeof(zstd)))
		return unpack_zstd;
	if (in->len <= sizeof(gzip) || memcmp(in->data, gzip, sizeof(gzip)))
		return NULL;
#ifdef HAVE_ISAL
	return unpack_isal;
#else
	return unpack_zlib;
#endif
}
