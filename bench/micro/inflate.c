/* SPDX-License-Identifier: Apache-2.0
 *
 * Decompression of the corpus: the product's, the libraries by themselves, and what was rejected. libdeflate wants the
 * whole blob and room for the whole tar, which no pull in fixed memory has: it shows what that costs. On the main
 * thread.
 */
#include <zstd.h>

#include "bench/micro/micro_config.h"
#include "bench/micro/stages.h"
#include "bench/micro/unpack.h"
#include "engine/base/error.h"

#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif

/* A layer so small that what it takes to start shows. */
#define SMALL_BYTES ((size_t)256 << 10)
#define SMALL_LAYERS 64u

struct inflate_job {
	const struct span *packed;
	size_t unpacked_bytes;
	unpack_fn unpack;
};

static int pass_unpack(void *payload, struct cpull_error *err)
{
	const struct inflate_job *job = payload;
	struct unpack_sink sink = {0};
	int rc = job->unpack(job->packed, &sink, err);

	if (rc)
		return rc;
	if (sink.bytes != job->unpacked_bytes)
		return error_set(err, CPULL_ERR_INTERNAL, "it unpacks to a wrong length");
	return 0;
}

/* ---- libdeflate ---- */

struct whole {
	const struct corpus *corpus;
	uint8_t *out;
};

static int pass_libdeflate(void *payload, struct cpull_error *err)
{
#ifdef HAVE_LIBDEFLATE
	struct whole *w = payload;
	const struct corpus *c = w->corpus;
	struct libdeflate_decompressor *d;
	size_t made = 0;

	if (!w->out && !(w->out = malloc(c->tar.len)))
		return error_nomem(err);
	d = libdeflate_alloc_decompressor();
	if (!d)
		return error_nomem(err);

	bool ok = libdeflate_gzip_decompress(d, c->gzip.data, c->gzip.len, w->out, c->tar.len, &made) ==
		  LIBDEFLATE_SUCCESS;

	libdeflate_free_decompressor(d);
	return ok && made == c->tar.len ? 0 : error_set(err, CPULL_ERR_UNSUPPORTED, "not one gzip member");
#else
	(void)payload;
	return error_set(err, CPULL_ERR_UNSUPPORTED, "built without libdeflate");
#endif
}

/* ---- contexts of zstd ---- */

struct small_layers {
	struct span packed;
	uint8_t *out;
	ZSTD_DCtx *kept;
};

static int unpack_small(struct small_layers *s, ZSTD_DCtx *ctx, struct cpull_error *err)
{
	ZSTD_inBuffer in = {.src = s->packed.data, .size = s->packed.len};
	ZSTD_outBuffer out = {.dst = s->out, .size = SMALL_BYTES};

	if (!ctx || ZSTD_isError(ZSTD_DCtx_reset(ctx, ZSTD_reset_session_only)) ||
	    ZSTD_decompressStream(ctx, &out, &in) != 0)
		return error_set(err, CPULL_ERR_INTERNAL, "zstd cannot unpack the data");
	return 0;
}

static int pass_fresh(void *payload, struct cpull_error *err)
{
	struct small_layers *s = payload;
	int rc = 0;

	for (unsigned i = 0; !rc && i < SMALL_LAYERS; i++) {
		ZSTD_DCtx *ctx = ZSTD_createDCtx();

		rc = unpack_small(s, ctx, err);
		ZSTD_freeDCtx(ctx);
	}
	return rc;
}

static int pass_reused(void *payload, struct cpull_error *err)
{
	struct small_layers *s = payload;
	int rc = 0;

	for (unsigned i = 0; !rc && i < SMALL_LAYERS; i++)
		rc = unpack_small(s, s->kept, err);
	return rc;
}

static int small_open(struct small_layers *s, const struct corpus *corpus, struct cpull_error *err)
{
	const struct span part = {.data = corpus->tar.data, .len = MIN(corpus->tar.len, SMALL_BYTES)};

	s->out = malloc(SMALL_BYTES);
	s->kept = ZSTD_createDCtx();
	if (!s->out || !s->kept)
		return error_nomem(err);
	return compress_zstd(&part, 0, &s->packed, err);
}

static void small_close(struct small_layers *s)
{
	free(s->packed.data);
	free(s->out);
	ZSTD_freeDCtx(s->kept);
}

int measure_inflate(struct report *report, const struct corpus *c, struct cpull_error *err)
{
	const double gib = (double)c->tar.len / GIB, small_gib = (double)SMALL_BYTES * SMALL_LAYERS / GIB;
	struct inflate_job gzip = {&c->gzip, c->tar.len, unpack_product}, isal = {&c->gzip, c->tar.len, unpack_isal},
			   zlib = {&c->gzip, c->tar.len, unpack_zlib}, ng = {&c->gzip, c->tar.len, unpack_zlib_ng},
			   zstd = {&c->zstd, c->tar.len, unpack_product}, alone = {&c->zstd, c->tar.len, unpack_zstd},
			   window = {&c->zstd_long, c->tar.len, unpack_zstd};
	struct whole whole = {.corpus = c};
	struct small_layers small = {0};
	const struct bench_case cases[] = {
		{"inflate", "gzip, decompress", true, COST_NONE, S_PER_GIB, gib, pass_unpack, NULL, &gzip},
		{"inflate", "gzip, ISA-L", false, COST_INFLATE, S_PER_GIB, gib, pass_unpack, NULL, &isal},
		{"inflate", "gzip, zlib", false, COST_INFLATE, S_PER_GIB, gib, pass_unpack, NULL, &zlib},
		{"inflate", "gzip, zlib-ng", false, COST_INFLATE, S_PER_GIB, gib, pass_unpack, NULL, &ng},
		{"inflate", "gzip, libdeflate, whole blob", false, COST_NONE, S_PER_GIB, gib, pass_libdeflate, NULL,
		 &whole},
		{"zstd", "zstd, decompress", true, COST_NONE, S_PER_GIB, gib, pass_unpack, NULL, &zstd},
		{"zstd", "zstd, libzstd", false, COST_ZSTD, S_PER_GIB, gib, pass_unpack, NULL, &alone},
		{"zstd", "zstd, libzstd, 128 MiB window", false, COST_NONE, S_PER_GIB, gib, pass_unpack, NULL, &window},
		{"zstd", "layers of 256 KiB, fresh context", false, COST_NONE, S_PER_GIB, small_gib, pass_fresh, NULL,
		 &small},
		{"zstd", "layers of 256 KiB, reused context", true, COST_NONE, S_PER_GIB, small_gib, pass_reused, NULL,
		 &small},
	};
	int rc = small_open(&small, c, err);

	if (!rc)
		rc = measure(report, cases, ARRAY_LEN(cases), err);
	small_close(&small);
	free(whole.out);
	return rc;
}
