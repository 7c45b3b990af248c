/* SPDX-License-Identifier: Apache-2.0
 *
 * A hash map with linear probing, at most three quarters full. Called by a layer's writer on its thread; owns its two
 * arrays.
 */
#include "snapshot/map.h"

#include <assert.h>

#define MAP_FIRST_CAP 64u

static size_t slot_of(const struct map *map, uint64_t key)
{
	/* inode numbers come in runs: Fibonacci hashing spreads them */
	size_t at = (size_t)((key * 0x9e3779b97f4a7c15ull) >> 32) & (map->cap - 1);

	while (map->keys[at] && map->keys[at] != key)
		at = (at + 1) & (map->cap - 1);
	return at;
}

static int grow(struct map *map)
{
	struct map bigger = {.cap = map->cap ? map->cap * 2 : MAP_FIRST_CAP, .count = map->count};

	bigger.keys = calloc(bigger.cap, sizeof(*bigger.keys));
	bigger.values = malloc(bigger.cap * sizeof(*bigger.values));
	if (!bigger.keys || !bigger.values) {
		map_free(&bigger);
		return CPULL_ERR_NOMEM;
	}
	for (size_t i = 0; i < map->cap; i++) {
		if (!map->keys[i])
			continue;

		size_t at = slot_of(&bigger, map->keys[i]);

		bigger.keys[at] = map->keys[i];
		bigger.values[at] = map->values[i];
	}
	map_free(map);
	*map = bigger;
	return 0;
}

int map_put(struct map *map, uint64_t key, uint32_t value)
{
	assert(key != 0);
	if ((map->count + 1) * 4 > map->cap * 3) {
		int rc = grow(map);

		if (rc)
			return rc;
	}

	size_t at = slot_of(map, key);

	map->count += map->keys[at] == 0;
	map->keys[at] = key;
	map->values[at] = value;
	return 0;
}

uint32_t *map_find(const struct map *map, uint64_t key)
{
	if (!map->cap)
		return NULL;

	size_t at = slot_of(map, key);

	return map->keys[at] ? &map->values[at] : NULL;
}

uint32_t map_get(const struct map *map, uint64_t key, uint32_t none)
{
	const uint32_t *value = map_find(map, key);

	return value ? *value : none;
}

void map_free(struct map *map)
{
	free(map->keys);
	free(map->values);
	*map = (struct map){0};
}
