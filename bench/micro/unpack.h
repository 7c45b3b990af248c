/* SPDX-License-Identifier: Apache-2.0
 *
 * Ways to unpack a compressed tar from memory. What comes out goes through one buffer of 256 KiB and to a sink.
 */
#ifndef MICRO_UNPACK_H
#define MICRO_UNPACK_H

#include "bench/micro/corpus.h"

#define UNPACK_CHUNK_BYTES (256u << 10)

/* Gets every piece that comes out; `take` may be NULL. */
struct unpack_sink {
	int (*take)(void *payload, uint8_t *data, size_t len, struct cpull_error *err);
	void *payload;
	uint64_t bytes; /* counted for the caller */
};

typedef int (*unpack_fn)(const struct span *in, struct unpack_sink *sink, struct cpull_error *err);

MUST_CHECK int unpack_isal(const struct span *in, struct unpack_sink *sink, struct cpull_error *err);
MUST_CHECK int unpack_zlib(const struct span *in, struct unpack_sink *sink, struct cpull_error *err);
MUST_CHECK int unpack_zlib_ng(const struct span *in, struct unpack_sink *sink, struct cpull_error *err);
/* With a context of its own. */
MUST_CHECK int unpack_zstd(const struct span *in, struct unpack_sink *sink, struct cpull_error *err);
/* As the product does it, whatever it is. */
MUST_CHECK int unpack_product(const struct span *in, struct unpack_sink *sink, struct cpull_error *err);

/* The one of the above that the bound counts with: ISA-L (zlib where that is not built in) or zstd; NULL for what is
 * not compressed. */
unpack_fn unpack_bound(const struct span *in);

#endif
