/* SPDX-License-Identifier: Apache-2.0
 *
 * One blob of a registry as chunks in order, over one connection or, where that is faster, in parts over several. The
 * puller opens, reads and closes it; in between it lives on the fetch thread.
 */
#ifndef FETCH_STREAM_H
#define FETCH_STREAM_H

#include "engine/base/queue.h"
#include "fetch/exchange.h"

/* What a zero in struct source_options stands for. A blob of which less than this is left is not split: setting up
 * connections would take longer than what they save. */
#define STREAM_RANGES_BYTES (8ull << 20)
#define STREAM_CONNECTIONS 8u
/* A part is no longer than this, so that a large pool does not make the first ones wait for each other long. */
#define STREAM_PART_BYTES (8ull << 20)
/* How long the one connection waits where it is to end, for the second one's first byte. A server that keeps it waiting
 * longer serves one after the other. */
#define STREAM_ANSWER_MS 3000u

struct stream;

/* Takes the goal over, also on failure. Bytes come in chunks of `share`, which is the caller's. */
MUST_CHECK int stream_open(struct endpoint *endpoint, struct exchange_goal *goal, struct pool_share *share,
			   struct stream **out, struct cpull_error *err);
/* As blob_read(), blob_received() and blob_stats() of source.h. */
MUST_CHECK int stream_read(struct stream *stream, struct chunk **out, uint64_t *wait_ns, struct cpull_error *err);
uint64_t stream_received(const struct stream *stream);
void stream_stats(const struct stream *stream, struct cpull_stage_stats *out, unsigned *connections);
/* When this returns the fetch thread has let go of it. */
void stream_close(struct stream *stream);

#endif
