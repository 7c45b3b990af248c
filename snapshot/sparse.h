/* SPDX-License-Identifier: Apache-2.0
 *
 * The map of a sparse file: which ranges of it the archive stores. It arrives in one of four spellings (old GNU,
 * pax 0.0, 0.1, 1.0; layers.md §2) and is checked as a whole before a byte of the file is handed out.
 */
#ifndef SNAPSHOT_SPARSE_H
#define SNAPSHOT_SPARSE_H

#include "engine/base/util.h"

#define SPARSE_PAIR_BYTES 24 /* old GNU: offset and length, 12 bytes each */

struct sparse_chunk {
	uint64_t offset, len;
};

/* Zeroed is empty. The array is kept from file to file. */
struct sparse_map {
	struct sparse_chunk *chunks;
	size_t count, cap;
	/* where the reading of a 1.0 map stands */
	uint64_t number;      /* the digits so far */
	unsigned digits;
	uint64_t numbers_got; /* whole numbers so far, the count included */
	uint64_t chunks_due;
	uint64_t offset;
};

void sparse_reset(struct sparse_map *map);
void sparse_free(struct sparse_map *map);
MUST_CHECK int sparse_add(struct sparse_map *map, uint64_t offset, uint64_t len, struct cpull_error *err);
/* Old GNU: up to `max` pairs of header fields; one that begins with NUL ends them. */
MUST_CHECK int sparse_add_pairs(struct sparse_map *map, const uint8_t *pairs, size_t max, struct cpull_error *err);
/* pax 0.1: "offset,length,offset,length…"; replaces what is there. */
MUST_CHECK int sparse_set_list(struct sparse_map *map, const char *text, size_t len, struct cpull_error *err);
/* pax 1.0: lines in front of the data, in any cut. *used says how many bytes it took; returns 1 when the map is
 * whole, 0 when it wants more. */
MUST_CHECK int sparse_read_text(struct sparse_map *map, const uint8_t *data, size_t len, size_t *used,
				struct cpull_error *err);
/* Ascending, without overlap, inside `size`, and `stored` bytes in all. */
MUST_CHECK int sparse_check(const struct sparse_map *map, uint64_t size, uint64_t stored, struct cpull_error *err);

#endif
