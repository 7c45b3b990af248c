/* SPDX-License-Identifier: Apache-2.0
 *
 * The decompressor on anything. Two oracles: the same input in other pieces must give the same output and verdict, and
 * it must take just the gzip streams that zlib takes, with the same output.
 */
#include <string.h>
#include <zlib.h>

#include "engine/base/error.h"
#include "engine/decompress.h"

#define OUT_BYTES (1u << 20) /* no more than that is looked at */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct result {
	int code;
	bool cut; /* OUT_BYTES was reached */
	enum decompress_kind kind;
	size_t len;
	uint8_t *out;
};

static int feed(struct decompress *d, const uint8_t *piece, size_t len, size_t out_piece, struct result *r)
{
	struct decompress_io io = {.in = piece, .in_len = len};

	do {
		size_t room = MIN(out_piece, OUT_BYTES - r->len);

		io.out = r->out + r->len;
		io.out_len = room;
		io.out_pos = 0;
		if (!room) {
			r->cut = true;
			return 0;
		}

		int rc = decompress_run(d, &io, NULL);

		if (io.in_pos > len || io.out_pos > room)
			abort();
		r->len += io.out_pos;
		if (rc)
			return rc;
		if (io.in_pos != len && io.out_pos != room)
			abort();
	} while (io.out_pos == io.out_len);
	return 0;
}

static struct result run(const uint8_t *data, size_t len, size_t in_piece, size_t out_piece)
{
	struct result r = {.out = malloc(OUT_BYTES)};
	struct window_bank *windows;
	struct decompress *d;

	if (!r.out || window_bank_new(1u << 20, &windows, NULL) || decompress_new(windows, &d, NULL))
		abort();
	for (size_t at = 0; !r.code && !r.cut && at < len; at += in_piece) {
		size_t n = MIN(in_piece, len - at);
		uint8_t *copy = malloc(n);

		if (!copy)
			abort();
		memcpy(copy, data + at, n);
		r.code = feed(d, copy, n, out_piece, &r);
		free(copy);
	}
	if (!r.code && !r.cut)
		r.code = decompress_finish(d, NULL);
	r.kind = decompress_kind(d);
	decompress_free(d);
	window_bank_free(windows);
	return r;
}

/* zlib's own reading of all members; false when it refuses them. */
static bool zlib_run(const uint8_t *data, size_t len, struct result *r)
{
	z_stream s = {.next_in = (uint8_t *)data, .avail_in = (uInt)len, .next_out = r->out, .avail_out = OUT_BYTES};
	int rc;

	if (inflateInit2(&s, 16 + MAX_WBITS) != Z_OK)
		abort();
	do {
		rc = inflate(&s, Z_FINISH);
	} while (rc == Z_STREAM_END && s.avail_in && s.next_in[0] && inflateReset(&s) == Z_OK);
	r->len = OUT_BYTES - s.avail_out;
	for (; rc == Z_STREAM_END && s.avail_in && !*s.next_in; s.avail_in--)
		s.next_in++;

	bool fine = rc == Z_STREAM_END && !s.avail_in;

	inflateEnd(&s);
	return fine;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len < 2)
		return 0;

	/* the cuts are at the end, so that a file is an input as it is */
	size_t in_piece = data[len - 1] + 1u, out_piece = (data[len - 2] + 1u) * 8;
	struct result whole = run(data, len, len, OUT_BYTES), pieces = run(data, len, in_piece, out_piece);

	/* what came out before an error may differ */
	if (whole.cut != pieces.cut && whole.code == pieces.code)
		abort();
	if (!whole.cut && !pieces.cut) {
		if (whole.code != pieces.code || whole.kind != pieces.kind)
			abort();
		if (!whole.code && (whole.len != pieces.len || memcmp(whole.out, pieces.out, whole.len)))
			abort();
	}
	if (whole.kind == DECOMPRESS_GZIP && !whole.cut) {
		if (zlib_run(data, len, &pieces) != !whole.code)
			abort();
		if (!whole.code && (pieces.len != whole.len || memcmp(whole.out, pieces.out, whole.len)))
			abort();
	}
	free(whole.out);
	free(pieces.out);
	return 0;
}
