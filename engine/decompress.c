/* SPDX-License-Identifier: Apache-2.0
 *
 * What a layer's bytes are packed in, decided by their first bytes, and the way out of it: plain bytes are copied, gzip
 * goes to gzip.c, zstd frames are walked here and decoded by libzstd. Called by the layer's pipeline on one thread;
 * owns one decoder for all its members and frames; that of zstd is on loan from the engine's window bank.
 *
 * Frames are told apart here and not by libzstd, so that what is refused (a window too large, a dictionary, bytes that
 * are no frame) does not depend on how the input is cut, and so that no memory is taken before its size is known.
 */
#include "engine/decompress.h"

#include <stdatomic.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "engine/base/error.h"
#include "engine/gzip.h"

#define MIN_WINDOW_BYTES ((size_t)1 << 20) /* smaller loans would only be changed more often */
#define MAGIC_BYTES 10 /* of the longest one below */
#define ZSTD_MAGIC 0xfd2fb528u
#define ZSTD_SKIPPABLE 0x184d2a50u /* … to 5f */
#define FRAME_HEADER_BYTES 18u     /* magic, descriptor, window, dictionary id 4, content size 8: all there can be */

enum zstd_state {
	ZSTD_MAGIC_BYTES, /* at a frame's start, or at the end */
	ZSTD_DESCRIPTOR,  /* the byte that says how long the header is */
	ZSTD_HEADER,
	ZSTD_BODY,
	ZSTD_SKIP_LEN,
	ZSTD_SKIP,
};

struct zstd {
	struct window_lease lease;
	enum zstd_state state;
	uint8_t header[FRAME_HEADER_BYTES];
	size_t header_len, header_due;
	uint32_t skip_left;
	bool any_frame; /* one that holds data */
	bool out_full;  /* more output may be waiting without any input */
};

struct decompress {
	enum decompress_kind kind;
	struct window_bank *windows;
	atomic_bool cancelled;
	uint64_t waited_ns; /* for windows */
	uint64_t in_total; /* input taken so far, for messages */
	int failed;
	uint8_t magic[MAGIC_BYTES]; /* first bytes, until the kind is decided and they are passed on */
	size_t magic_len, magic_pos;
	struct gzip *gzip;
	struct zstd zstd;
};

int decompress_new(struct window_bank *windows, struct decompress **out, struct cpull_error *err)
{
	struct decompress *d = calloc(1, sizeof(*d));

	if (!d)
		return error_nomem(err);
	d->windows = windows;
	*out = d;
	return 0;
}

void decompress_free(struct decompress *d)
{
	if (!d)
		return;
	gzip_free(d->gzip);
	window_bank_give(d->windows, &d->zstd.lease);
	free(d);
}

void decompress_cancel(struct decompress *d)
{
	atomic_store(&d->cancelled, true);
	window_bank_wake(d->windows);
}

uint64_t decompress_waited_ns(const struct decompress *d)
{
	return d->waited_ns;
}

enum decompress_kind decompress_kind(const struct decompress *d)
{
	return d->kind;
}

static uint32_t load_le32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* ---- the kind ---------------------------------------------------------------------------------- */

static const struct magic {
	size_t len;
	uint8_t bytes[MAGIC_BYTES];
	uint8_t mask_at; /* this byte's low nibble is free; 0: none */
	enum decompress_kind kind;
	const char *unsupported;
} magics[] = {
	{2, {0x1f, 0x8b}, 0, DECOMPRESS_GZIP, NULL},
	{4, {0x28, 0xb5, 0x2f, 0xfd}, 0, DECOMPRESS_ZSTD, NULL},
	{6, {0xfd, '7', 'z', 'X', 'Z', 0}, 0, DECOMPRESS_NONE, "xz"},
	/* "BZh" alone begins file names too: with the block's magic, or the end's of an empty file */
	{10, {'B', 'Z', 'h', '0', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59}, 3, DECOMPRESS_NONE, "bzip2"},
	{10, {'B', 'Z', 'h', '0', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90}, 3, DECOMPRESS_NONE, "bzip2"},
};

static bool magic_fits(const struct magic *m, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (i == m->mask_at && i ? (bytes[i] & 0xf0) != (m->bytes[i] & 0xf0) : bytes[i] != m->bytes[i])
			return false;
	return true;
}

/* Skippable frames have sixteen magics that differ in their first byte. */
static bool is_skippable(const uint8_t *bytes, size_t len)
{
	static const uint8_t magic[4] = {0x50, 0x2a, 0x4d, 0x18};

	for (size_t i = 0; i < len; i++)
		if ((i ? bytes[i] : bytes[i] & 0xf0) != magic[i])
			return false;
	return true;
}

/* UNDECIDED while the bytes may still become a magic. */
static int decide(const uint8_t *bytes, size_t len, enum decompress_kind *out, struct cpull_error *err)
{
	*out = DECOMPRESS_NONE;
	if (is_skippable(bytes, MIN(len, (size_t)4))) {
		*out = len < 4 ? DECOMPRESS_UNDECIDED : DECOMPRESS_ZSTD;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(magics); i++) {
		const struct magic *m = &magics[i];

		if (!magic_fits(m, bytes, MIN(len, m->len)))
			continue;
		if (len < m->len) {
			*out = DECOMPRESS_UNDECIDED;
			return 0;
		}
		if (m->unsupported)
			return error_set(err, CPULL_ERR_MEDIA_TYPE,
					 "the layer is packed with %s, only gzip, zstd and plain tar are supported",
					 m->unsupported);
		*out = m->kind;
		return 0;
	}
	return 0;
}

static int start_decoder(struct decompress *d, struct cpull_error *err)
{
	if (d->kind == DECOMPRESS_GZIP)
		return gzip_new(&d->gzip, err);
	return 0;
}

static int find_kind(struct decompress *d, struct decompress_io *io, struct cpull_error *err)
{
	while (d->kind == DECOMPRESS_UNDECIDED && io->in_pos < io->in_len) {
		d->magic[d->magic_len++] = io->in[io->in_pos++];

		int rc = decide(d->magic, d->magic_len, &d->kind, err);

		if (rc)
			return rc;
	}
	return start_decoder(d, err);
}

/* ---- plain ------------------------------------------------------------------------------------- */

static void run_plain(struct decompress_io *io)
{
	size_t n = MIN(io->in_len - io->in_pos, io->out_len - io->out_pos);

	if (n)
		memcpy(io->out + io->out_pos, io->in + io->in_pos, n);
	io->in_pos += n;
	io->out_pos += n;
}

/* ---- zstd (RFC 8878) --------------------------------------------------------------------------- */

/* Gathers header bytes up to `len`; false when more input is needed. */
static bool take_header(struct zstd *z, struct decompress_io *io, size_t len)
{
	size_t n = MIN(len - z->header_len, io->in_len - io->in_pos);

	if (n)
		memcpy(z->header + z->header_len, io->in + io->in_pos, n);
	z->header_len += n;
	io->in_pos += n;
	return z->header_len == len;
}

static int step_magic(struct zstd *z, struct decompress_io *io, struct cpull_error *err)
{
	if (!take_header(z, io, 4))
		return 1;

	uint32_t magic = load_le32(z->header);

	if (magic == ZSTD_MAGIC) {
		z->state = ZSTD_DESCRIPTOR;
		return 0;
	}
	if ((magic & 0xfffffff0) != ZSTD_SKIPPABLE)
		return error_set(err, CPULL_ERR_DECOMPRESS, "zstd data is followed by something else");
	z->header_len = 0;
	z->state = ZSTD_SKIP_LEN;
	return 0;
}

/* Length of the whole header, by its descriptor byte (RFC 8878 §3.1.1.1). */
static size_t header_bytes(uint8_t descriptor)
{
	static const uint8_t dictionary[] = {0, 1, 2, 4};
	static const uint8_t content[] = {0, 2, 4, 8};
	bool single = descriptor & 0x20;

	return 5u + !single + dictionary[descriptor & 3] +
	       ((descriptor >> 6) == 0 && single ? 1u : content[descriptor >> 6]);
}

static uint64_t load_le(const uint8_t *p, size_t len)
{
	uint64_t value = 0;

	for (size_t i = len; i-- > 0;)
		value = value << 8 | p[i];
	return value;
}

static int check_window(const struct decompress *d, uint64_t window, struct cpull_error *err)
{
	unsigned long long need = window, have = window_bank_total(d->windows);

	if (need > 1ull << LIMIT_ZSTD_WINDOW_LOG)
		return error_set(err, CPULL_ERR_LIMIT,
				 "zstd frame needs a window of %llu bytes, more than the %llu ever allowed", need,
				 1ull << LIMIT_ZSTD_WINDOW_LOG);
	if (need > have)
		return error_set(
		    err, CPULL_ERR_LIMIT,
		    "zstd frame needs a window of %llu MiB, the memory budget has %llu for that: use --memory "
		    "%lluM",
		    need >> 20, have >> 20, (unsigned long long)(window_bank_budget(window) + (1u << 20) - 1) >> 20);
	return 0;
}

/* Has a decoder with room for the window, waiting for one if need be. Its own is given back before a larger one is
 * asked for. */
static int take_window(struct decompress *d, uint64_t window, struct cpull_error *err)
{
	struct window_lease *lease = &d->zstd.lease;
	size_t room = MIN_WINDOW_BYTES;

	if (lease->decoder && lease->window_bytes >= window)
		return 0;
	while (room < window)
		room *= 2;
	window_bank_give(d->windows, lease);

	int rc = window_bank_take(d->windows, MIN(room, window_bank_total(d->windows)), &d->cancelled, lease,
				  &d->waited_ns);

	return rc ? error_set(err, rc, "taking a zstd window of %llu bytes", (unsigned long long)window) : 0;
}

/* The header is complete: may the frame be decoded, and with what window? */
static int check_frame(const struct decompress *d, uint64_t *out, struct cpull_error *err)
{
	const uint8_t *h = d->zstd.header;
	uint8_t descriptor = h[4];
	bool single = descriptor & 0x20;
	size_t dictionary_len = (size_t[]){0, 1, 2, 4}[descriptor & 3];
	size_t dictionary_at = 5u + !single, content_at = dictionary_at + dictionary_len;
	size_t content_len = d->zstd.header_due - content_at;
	uint64_t content = load_le(h + content_at, content_len) + (content_len == 2 ? 256 : 0);

	if (load_le(h + dictionary_at, dictionary_len))
		return error_set(err, CPULL_ERR_DECOMPRESS, "zstd frame needs a dictionary, layers have none");
	if (single) {
		*out = content; /* all of it is the window */
	} else {
		uint64_t base = 1ull << (10 + (h[5] >> 3)), window = base + base / 8 * (h[5] & 7);

		/* libzstd takes no more than the content needs, where that is told */
		*out = content_len ? MIN(window, content) : window;
	}
	return check_window(d, *out, err);
}

static int zstd_failed(size_t rc, struct cpull_error *err)
{
	if (ZSTD_getErrorCode(rc) == ZSTD_error_memory_allocation)
		return error_nomem(err);
	return error_set(err, CPULL_ERR_DECOMPRESS, "zstd data is damaged (%s)", ZSTD_getErrorName(rc));
}

static int begin_frame(struct decompress *d, struct cpull_error *err)
{
	struct zstd *z = &d->zstd;
	uint64_t window = 0;
	int rc = check_frame(d, &window, err);

	if (!rc)
		rc = take_window(d, window, err);
	if (rc)
		return rc;

	ZSTD_inBuffer in = {z->header, z->header_len, 0};
	ZSTD_outBuffer out = {NULL, 0, 0};
	size_t left = ZSTD_decompressStream(z->lease.decoder, &out, &in);

	if (ZSTD_isError(left))
		return zstd_failed(left, err);
	if (in.pos < in.size)
		return error_set(err, CPULL_ERR_INTERNAL, "libzstd reads a frame header of another length");
	z->any_frame = true;
	z->out_full = false;
	z->state = ZSTD_BODY;
	return 0;
}

/* Returns 1 when the input is used up, or the output is full. */
static int step_body(struct zstd *z, struct decompress_io *io, struct cpull_error *err)
{
	/* libzstd takes a number of calls that get nowhere for a fault of the caller */
	if (io->out_pos == io->out_len || (io->in_pos == io->in_len && !z->out_full))
		return 1;

	ZSTD_inBuffer in = {io->in, io->in_len, io->in_pos};
	ZSTD_outBuffer out = {io->out, io->out_len, io->out_pos};
	size_t left = ZSTD_decompressStream(z->lease.decoder, &out, &in);

	io->in_pos = in.pos;
	io->out_pos = out.pos;
	z->out_full = out.pos == out.size;
	if (ZSTD_isError(left))
		return zstd_failed(left, err);
	if (left == 0) {
		z->header_len = 0;
		z->state = ZSTD_MAGIC_BYTES;
		return 0;
	}
	return z->out_full || io->in_pos == io->in_len;
}

static int step_zstd(struct decompress *d, struct decompress_io *io, struct cpull_error *err)
{
	struct zstd *z = &d->zstd;

	switch (z->state) {
	case ZSTD_MAGIC_BYTES:
		return step_magic(z, io, err);
	case ZSTD_DESCRIPTOR:
		if (!take_header(z, io, 5))
			return 1;
		z->header_due = header_bytes(z->header[4]);
		z->state = ZSTD_HEADER;
		return 0;
	case ZSTD_HEADER:
		return take_header(z, io, z->header_due) ? begin_frame(d, err) : 1;
	case ZSTD_BODY:
		return step_body(z, io, err);
	case ZSTD_SKIP_LEN:
		if (!take_header(z, io, 4))
			return 1;
		z->skip_left = load_le32(z->header);
		z->state = ZSTD_SKIP;
		return 0;
	case ZSTD_SKIP:
		break;
	}

	size_t n = MIN(io->in_len - io->in_pos, (size_t)z->skip_left);

	io->in_pos += n;
	z->skip_left -= (uint32_t)n;
	if (z->skip_left)
		return 1;
	z->header_len = 0;
	z->state = ZSTD_MAGIC_BYTES;
	return 0;
}

static int run_zstd(struct decompress *d, struct decompress_io *io, struct cpull_error *err)
{
	int rc;

	do {
		rc = step_zstd(d, io, err);
	} while (rc == 0);
	return rc < 0 ? rc : 0;
}

static int finish_zstd(const struct zstd *z, struct cpull_error *err)
{
	if (z->state != ZSTD_MAGIC_BYTES || z->header_len)
		return error_set(err, CPULL_ERR_DECOMPRESS, "zstd data is cut in a frame");
	if (!z->any_frame)
		return error_set(err, CPULL_ERR_DECOMPRESS, "zstd data has no frame that holds anything");
	return 0;
}

/* ---- all --------------------------------------------------------------------------------------- */

static int run_kind(struct decompress *d, struct decompress_io *io, struct cpull_error *err)
{
	switch (d->kind) {
	case DECOMPRESS_GZIP:
		return gzip_run(d->gzip, io, err);
	case DECOMPRESS_ZSTD:
		return run_zstd(d, io, err);
	case DECOMPRESS_NONE:
		run_plain(io);
		return 0;
	case DECOMPRESS_UNDECIDED:
		break;
	}
	return 0;
}

/* The bytes that the kind was told by come first. */
static int run_magic(struct decompress *d, struct decompress_io *io, struct cpull_error *err)
{
	struct decompress_io first = *io;

	first.in = d->magic;
	first.in_len = d->magic_len;
	first.in_pos = d->magic_pos;

	int rc = run_kind(d, &first, err);

	d->magic_pos = first.in_pos;
	io->out_pos = first.out_pos;
	return rc;
}

static int run(struct decompress *d, struct decompress_io *io, struct cpull_error *err)
{
	int rc = 0;

	if (d->kind == DECOMPRESS_UNDECIDED && ((rc = find_kind(d, io, err)) || d->kind == DECOMPRESS_UNDECIDED))
		return rc;
	if (d->magic_pos < d->magic_len && ((rc = run_magic(d, io, err)) || d->magic_pos < d->magic_len))
		return rc;
	return run_kind(d, io, err);
}

int decompress_run(struct decompress *d, struct decompress_io *io, struct cpull_error *err)
{
	size_t in_pos = io->in_pos;

	if (d->failed)
		return error_set(err, d->failed, "decompressing after an error");

	int rc = run(d, io, err);

	d->in_total += io->in_pos - in_pos;
	if (rc) {
		d->failed = rc;
		error_wrap(err, "decompressing at byte %llu", (unsigned long long)d->in_total);
	}
	return rc;
}

int decompress_finish(struct decompress *d, struct cpull_error *err)
{
	int rc = 0;

	if (d->failed)
		return error_set(err, d->failed, "decompressing after an error");
	switch (d->kind) {
	case DECOMPRESS_GZIP:
		rc = gzip_finish(d->gzip, err);
		break;
	case DECOMPRESS_ZSTD:
		rc = finish_zstd(&d->zstd, err);
		break;
	case DECOMPRESS_UNDECIDED:
		/* nothing at all is plain, and what comes next decides about it */
		if (d->magic_len)
			rc = error_set(err, CPULL_ERR_DECOMPRESS, "%zu bytes are neither gzip, zstd nor tar",
				       d->magic_len);
		else
			d->kind = DECOMPRESS_NONE;
		break;
	case DECOMPRESS_NONE:
		break;
	}
	if (rc)
		error_wrap(err, "decompressing ends at byte %llu", (unsigned long long)d->in_total);
	return rc;
}
