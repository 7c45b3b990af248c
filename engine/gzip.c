/* SPDX-License-Identifier: Apache-2.0
 *
 * gzip for decompress.c: the members' headers are read here, byte by byte, the same for both inflaters; an inflater is
 * given the deflate data and checks the trailer. On the thread of the layer it belongs to; owns the inflater's state
 * (90 KB for ISA-L, window included).
 */
#include "engine/gzip.h"

#include "config.h"
#include "engine/base/error.h"

#if defined(HAVE_ISAL) && !defined(DECOMPRESS_FORCE_ZLIB)
#define USE_ISAL 1
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>
#else
#define USE_ISAL 0
#include <zlib.h>
#endif

/* Both libraries count in 32 bits, and ISA-L 2.30 adds to the count it is given. */
#define STEP_BYTES ((size_t)1 << 30)

/* RFC 1952 §2.3.1 */
enum {
	FLAG_TEXT = 1,
	FLAG_HEADER_CRC = 2,
	FLAG_EXTRA = 4,
	FLAG_NAME = 8,
	FLAG_COMMENT = 16,
	FLAGS_RESERVED = 0xe0,
};

enum gzip_state {
	GZIP_HEADER,     /* the ten bytes that are always there */
	GZIP_EXTRA_LEN,
	GZIP_EXTRA,
	GZIP_NAME,
	GZIP_COMMENT,
	GZIP_HEADER_CRC,
	GZIP_BODY,
	GZIP_TRAILER,    /* zlib only: ISA-L reads it itself */
	GZIP_BETWEEN,    /* after a member: another one, zero bytes or the end */
	GZIP_ZEROS,      /* zero bytes to the end */
};

struct gzip {
	enum gzip_state state;
	size_t field_len;  /* bytes of the present header field so far */
	uint8_t field[10];
	uint8_t flags;
	uint16_t extra_left;
	uint32_t header_crc;
#if USE_ISAL
	struct inflate_state inflate;
#else
	z_stream inflate;
	uint32_t crc, size; /* of the member's output, the size mod 2^32 */
#endif
};

/* ---- the inflaters ----------------------------------------------------------------------------- */

#if USE_ISAL

static uint32_t add_crc(uint32_t crc, const uint8_t *data, size_t len)
{
	return crc32_gzip_refl(crc, data, len);
}

static int inflater_init(struct gzip *g, struct cpull_error *err)
{
	(void)err;
	isal_inflate_init(&g->inflate);
	/* The trailer is ISA-L's to read: part of it may be in its bit buffer already, which in 2.30 there is no way to
	 * get back out of. */
	g->inflate.crc_flag = ISAL_GZIP_NO_HDR_VER;
	return 0;
}

static void inflater_free(struct gzip *g)
{
	(void)g;
}

static int inflater_reset(struct gzip *g)
{
	isal_inflate_reset(&g->inflate);
	return 0;
}

static int isal_failed(int rc, struct cpull_error *err)
{
	switch (rc) {
	case ISAL_INVALID_BLOCK:
		return error_set(err, CPULL_ERR_DECOMPRESS, "gzip data is damaged (deflate block)");
	case ISAL_INVALID_SYMBOL:
		return error_set(err, CPULL_ERR_DECOMPRESS, "gzip data is damaged (deflate code)");
	case ISAL_INVALID_LOOKBACK:
		return error_set(err, CPULL_ERR_DECOMPRESS, "gzip data is damaged (deflate distance)");
	case ISAL_INCORRECT_CHECKSUM:
		return error_set(err, CPULL_ERR_DECOMPRESS, "gzip member does not match its CRC32 or size");
	default:
		return error_set(err, CPULL_ERR_DECOMPRESS, "gzip data is damaged (%d)", rc);
	}
}

static int inflater_run(struct gzip *g, struct decompress_io *io, struct cpull_error *err)
{
	struct inflate_state *s = &g->inflate;

	s->next_in = (uint8_t *)io->in + io->in_pos;
	s->avail_in = (uint32_t)MIN(io->in_len - io->in_pos, STEP_BYTES);
	s->next_out = io->out + io->out_pos;
	s->avail_out = (uint32_t)MIN(io->out_len - io->out_pos, STEP_BYTES);

	int rc = isal_inflate(s);

	/* by the pointers: after an error inside its fast loop the counts are off by that loop's margins (2.30) */
	io->in_pos = (size_t)(s->next_in - io->in);
	io->out_pos = (size_t)(s->next_out - io->out);
	if (rc)
		return isal_failed(rc, err);
	if (s->block_state == ISAL_BLOCK_FINISH)
		g->state = GZIP_BETWEEN;
	return 0;
}

#else

static uint32_t add_crc(uint32_t crc, const uint8_t *data, size_t len)
{
	return (uint32_t)crc32_z(crc, data, len);
}

static int inflater_init(struct gzip *g, struct cpull_error *err)
{
	int rc = inflateInit2(&g->inflate, -MAX_WBITS);

	if (rc == Z_MEM_ERROR)
		return error_nomem(err);
	return rc == Z_OK ? 0 : error_set(err, CPULL_ERR_INTERNAL, "zlib does not start (%d)", rc);
}

static void inflater_free(struct gzip *g)
{
	inflateEnd(&g->inflate);
}

static int inflater_reset(struct gzip *g)
{
	g->crc = 0;
	g->size = 0;
	return inflateReset(&g->inflate);
}

static int inflater_run(struct gzip *g, struct decompress_io *io, struct cpull_error *err)
{
	z_stream *s = &g->inflate;
	uint32_t in = (uint32_t)MIN(io->in_len - io->in_pos, STEP_BYTES);
	uint32_t out = (uint32_t)MIN(io->out_len - io->out_pos, STEP_BYTES);
	uint8_t *start = io->out + io->out_pos;

	s->next_in = (uint8_t *)io->in + io->in_pos;
	s->avail_in = in;
	s->next_out = start;
	s->avail_out = out;

	int rc = inflate(s, Z_NO_FLUSH);
	uint32_t made = out - s->avail_out;

	io->in_pos += in - s->avail_in;
	io->out_pos += made;
	g->crc = add_crc(g->crc, start, made);
	g->size += made;
	if (rc == Z_STREAM_END) {
		g->state = GZIP_TRAILER;
		g->field_len = 0;
	} else if (rc == Z_MEM_ERROR) {
		return error_nomem(err);
	} else if (rc != Z_OK && rc != Z_BUF_ERROR) {
		return error_set(err, CPULL_ERR_DECOMPRESS, "gzip data is damaged (%s)", s->msg ? s->msg : "deflate");
	}
	return 0;
}

#endif

/* ---- headers and what is between members ------------------------------------------------------- */

static uint16_t load_le16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

/* Every byte of a header but its CRC goes through here. Returns false when there is none. */
static bool next_byte(struct gzip *g, struct decompress_io *io, uint8_t *out)
{
	if (io->in_pos == io->in_len)
		return false;
	*out = io->in[io->in_pos++];
	g->header_crc = add_crc(g->header_crc, out, 1);
	return true;
}

/* Gathers `len` bytes in g->field; false when more input is needed. */
static bool take_field(struct gzip *g, struct decompress_io *io, size_t len)
{
	while (g->field_len < len)
		if (!next_byte(g, io, &g->field[g->field_len]))
			return false;
		else
			g->field_len++;
	g->field_len = 0;
	return true;
}

/* The next part of the header that the flags say is there. */
static void next_part(struct gzip *g, enum gzip_state from)
{
	static const uint8_t needs[] = {
		[GZIP_EXTRA_LEN] = FLAG_EXTRA,
		[GZIP_NAME] = FLAG_NAME,
		[GZIP_COMMENT] = FLAG_COMMENT,
		[GZIP_HEADER_CRC] = FLAG_HEADER_CRC,
	};

	for (g->state = from; g->state < GZIP_BODY; g->state++)
		if (g->flags & needs[g->state])
			return;
}

static int step_header(struct gzip *g, struct cpull_error *err)
{
	const uint8_t *f = g->field;

	if (f[0] != 0x1f || f[1] != 0x8b)
		return error_set(err, CPULL_ERR_DECOMPRESS, "what follows a gzip member is no other one");
	if (f[2] != 8)
		return error_set(err, CPULL_ERR_DECOMPRESS, "gzip method %u is not known, only deflate (8) is", f[2]);
	if (f[3] & FLAGS_RESERVED)
		return error_set(err, CPULL_ERR_DECOMPRESS, "gzip header with reserved flags 0x%02x", f[3]);
	g->flags = f[3];
	next_part(g, GZIP_EXTRA_LEN);
	return 0;
}

/* One part of the header; returns 1 when more input is needed. */
static int step_part(struct gzip *g, struct decompress_io *io, struct cpull_error *err)
{
	uint8_t byte = 0;
	uint32_t crc = g->header_crc;

	switch (g->state) {
	case GZIP_HEADER:
		return take_field(g, io, 10) ? step_header(g, err) : 1;
	case GZIP_EXTRA_LEN:
		if (!take_field(g, io, 2))
			return 1;
		g->extra_left = load_le16(g->field);
		g->state = GZIP_EXTRA;
		return 0;
	case GZIP_EXTRA:
		for (; g->extra_left; g->extra_left--)
			if (!next_byte(g, io, &byte))
				return 1;
		next_part(g, GZIP_NAME);
		return 0;
	case GZIP_NAME:
	case GZIP_COMMENT:
		do {
			if (!next_byte(g, io, &byte))
				return 1;
		} while (byte);
		next_part(g, g->state + 1);
		return 0;
	default:
		/* the CRC is not part of what it covers; a cut in its middle must not change that */
		if (!take_field(g, io, 2)) {
			g->header_crc = crc;
			return 1;
		}
		if (load_le16(g->field) != (uint16_t)crc)
			return error_set(err, CPULL_ERR_DECOMPRESS, "gzip header does not match its CRC16");
		g->state = GZIP_BODY;
		return 0;
	}
}

#if !USE_ISAL
static uint32_t load_le32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int step_trailer(struct gzip *g, struct decompress_io *io, struct cpull_error *err)
{
	if (!take_field(g, io, 8))
		return 1;
	if (load_le32(g->field) != g->crc || load_le32(g->field + 4) != g->size)
		return error_set(err, CPULL_ERR_DECOMPRESS, "gzip member does not match its CRC32 or size");
	g->state = GZIP_BETWEEN;
	return 0;
}
#endif

/* Zero bytes to the end are padding (tape blocks); anything else is refused, wherever the input is cut. */
static int step_between(struct gzip *g, struct decompress_io *io, struct cpull_error *err)
{
	if (io->in_pos == io->in_len)
		return 1;
	if (g->state == GZIP_BETWEEN && io->in[io->in_pos]) {
		g->state = GZIP_HEADER;
		g->header_crc = 0;
		if (inflater_reset(g))
			return error_set(err, CPULL_ERR_INTERNAL, "the inflater does not start again");
		return 0;
	}
	g->state = GZIP_ZEROS;
	for (; io->in_pos < io->in_len; io->in_pos++)
		if (io->in[io->in_pos])
			return error_set(err, CPULL_ERR_DECOMPRESS, "gzip data is followed by something else");
	return 1;
}

/* Returns 1 when the input is used up and all that can be put out is, or the output is full. */
static int step_body(struct gzip *g, struct decompress_io *io, struct cpull_error *err)
{
	size_t in_pos = io->in_pos, out_pos = io->out_pos;

	if (io->out_pos == io->out_len)
		return 1;

	int rc = inflater_run(g, io, err);

	if (rc || g->state != GZIP_BODY)
		return rc;
	if (in_pos == io->in_pos && out_pos == io->out_pos) {
		/* neither wants anything: it must be waiting for input */
		if (io->in_pos < io->in_len)
			return error_set(err, CPULL_ERR_DECOMPRESS, "gzip data makes no progress");
		return 1;
	}
	return 0;
}

int gzip_new(struct gzip **out, struct cpull_error *err)
{
	struct gzip *g = calloc(1, sizeof(*g));

	if (!g)
		return error_nomem(err);

	int rc = inflater_init(g, err);

	if (rc)
		free(g);
	else
		*out = g;
	return rc;
}

void gzip_free(struct gzip *g)
{
	if (!g)
		return;
	inflater_free(g);
	free(g);
}

int gzip_run(struct gzip *g, struct decompress_io *io, struct cpull_error *err)
{
	int rc;

	do {
		switch (g->state) {
		case GZIP_BODY:
			rc = step_body(g, io, err);
			break;
		case GZIP_BETWEEN:
		case GZIP_ZEROS:
			rc = step_between(g, io, err);
			break;
#if !USE_ISAL
		case GZIP_TRAILER:
			rc = step_trailer(g, io, err);
			break;
#endif
		default:
			rc = step_part(g, io, err);
			break;
		}
	} while (rc == 0);
	return rc < 0 ? rc : 0;
}

int gzip_finish(const struct gzip *g, struct cpull_error *err)
{
	if (g->state == GZIP_BETWEEN || g->state == GZIP_ZEROS)
		return 0;
	return error_set(err, CPULL_ERR_DECOMPRESS, "gzip data is cut in a member's %s",
			 g->state == GZIP_BODY	  ? "data" :
			 g->state == GZIP_TRAILER ? "trailer" :
						    "header");
}
