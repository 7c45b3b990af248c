/* SPDX-License-Identifier: Apache-2.0
 *
 * gzip (ISA-L, or zlib where it is not built in), zstd and plain behind one call: the kind is decided by the
 * first bytes. Pure, bounded memory, one thread.
 */
#ifndef ENGINE_DECOMPRESS_H
#define ENGINE_DECOMPRESS_H

#include "engine/base/limits.h"
#include "engine/base/util.h"
#include "engine/window_bank.h"

struct decompress;

enum decompress_kind { DECOMPRESS_UNDECIDED, DECOMPRESS_NONE, DECOMPRESS_GZIP, DECOMPRESS_ZSTD };

/* Takes input from in[in_pos…in_len) and writes output to out[out_pos…out_len), moving both positions. */
struct decompress_io {
	const uint8_t *in;
	size_t in_len, in_pos;
	uint8_t *out;
	size_t out_len, out_pos;
};

/* `windows` is borrowed and must outlive the decompressor. */
MUST_CHECK int decompress_new(struct window_bank *windows, struct decompress **out, struct cpull_error *err);
/* Works until the input is used up or the output is full. CPULL_ERR_DECOMPRESS, with the offset in the message;
 * CPULL_ERR_LIMIT for a window that is too large (the message says which --memory would do);
 * CPULL_ERR_MEDIA_TYPE for a compression that is recognised but not supported (bzip2, xz);
 * CPULL_ERR_CANCELLED after decompress_cancel(). It waits while other layers use up the memory for windows. */
MUST_CHECK int decompress_run(struct decompress *decompress, struct decompress_io *io, struct cpull_error *err);
/* The input has ended: CPULL_ERR_DECOMPRESS when it is cut. Call it only after a run that did not fill its output. */
MUST_CHECK int decompress_finish(struct decompress *decompress, struct cpull_error *err);
/* Ends a wait for a window, now and from now on. Any thread. */
void decompress_cancel(struct decompress *decompress);
/* How long it waited for windows so far. */
uint64_t decompress_waited_ns(const struct decompress *decompress);
enum decompress_kind decompress_kind(const struct decompress *decompress);
void decompress_free(struct decompress *decompress);

#endif
