/* SPDX-License-Identifier: Apache-2.0
 *
 * What is recorded of a layer's bytes to find damage: XXH3 of 64 bits. Against accidents only: whoever wants to can
 * make other bytes with the same sum.
 */
#ifndef SNAPSHOT_CHECKSUM_H
#define SNAPSHOT_CHECKSUM_H

#include "engine/base/util.h"

/* For one stream of bytes after the other, used by one thread. */
struct checksum;

MUST_CHECK int checksum_new(struct checksum **out, struct cpull_error *err);
void checksum_free(struct checksum *sum);

void checksum_begin(struct checksum *sum);
void checksum_add(struct checksum *sum, const void *data, size_t len);
/* Of all bytes since checksum_begin(). */
uint64_t checksum_end(struct checksum *sum);
/* The same of bytes that lie in one piece. */
uint64_t checksum_of(const void *data, size_t len);
uint64_t checksum_seeded(const void *data, size_t len, uint64_t seed);

/* Of a file with holes, wherever they are: of the number and the bytes of each block of CHECKSUM_BLOCK_BYTES that is
 * not all zeros. Pieces come in the order of their offsets and do not overlap; what is between them is zeros. */
#define CHECKSUM_BLOCK_BYTES 4096u
void checksum_sparse_begin(struct checksum *sum);
void checksum_sparse_add(struct checksum *sum, const void *data, size_t len, uint64_t offset);
uint64_t checksum_sparse_end(struct checksum *sum);

#endif
