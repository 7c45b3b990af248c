/* SPDX-License-Identifier: Apache-2.0
 *
 * A hash map from 64-bit keys to 32-bit values: keys are inode numbers or XXH3 hashes of names. Nothing is ever
 * taken out; a put replaces.
 */
#ifndef SNAPSHOT_MAP_H
#define SNAPSHOT_MAP_H

#include "engine/base/util.h"

struct map {
	uint64_t *keys; /* 0: the slot is free */
	uint32_t *values;
	size_t cap; /* 0 or a power of two */
	size_t count;
};

/* CPULL_ERR_NOMEM or 0. */
MUST_CHECK int map_put(struct map *map, uint64_t key, uint32_t value);
/* The value of key, or `none`. */
uint32_t map_get(const struct map *map, uint64_t key, uint32_t none);
/* Where the value of key is, until the next put; NULL when there is none. */
uint32_t *map_find(const struct map *map, uint64_t key);
void map_free(struct map *map);

#endif
