/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading and checking the map of a sparse file, for the tar reader of one layer. Owns the array of ranges, at most
 * LIMIT_SPARSE_CHUNKS of them.
 */
#include "snapshot/sparse.h"

#include <string.h>

#include "engine/base/error.h"
#include "engine/base/limits.h"
#include "snapshot/tar_number.h"

void sparse_reset(struct sparse_map *map)
{
	struct sparse_chunk *chunks = map->chunks;
	size_t cap = map->cap;

	*map = (struct sparse_map){.chunks = chunks, .cap = cap};
}

void sparse_free(struct sparse_map *map)
{
	free(map->chunks);
	*map = (struct sparse_map){0};
}

int sparse_add(struct sparse_map *map, uint64_t offset, uint64_t len, struct cpull_error *err)
{
	if (map->count == LIMIT_SPARSE_CHUNKS)
		return error_set(err, CPULL_ERR_LIMIT, "its sparse map has more than %u ranges", LIMIT_SPARSE_CHUNKS);
	if (map->count == map->cap) {
		size_t cap = MAX(map->cap * 2, (size_t)64);
		struct sparse_chunk *grown = reallocarray(map->chunks, cap, sizeof(*grown));

		if (!grown)
			return error_nomem(err);
		map->chunks = grown;
		map->cap = cap;
	}
	map->chunks[map->count++] = (struct sparse_chunk){offset, len};
	return 0;
}

int sparse_add_pairs(struct sparse_map *map, const uint8_t *pairs, size_t max, struct cpull_error *err)
{
	for (size_t i = 0; i < max; i++) {
		const uint8_t *pair = pairs + i * SPARSE_PAIR_BYTES;
		int64_t offset = 0, len = 0;
		int rc;

		if (!pair[0])
			return 0;
		if ((rc = tar_number_field(pair, 12, "sparse offset", &offset, err)) ||
		    (rc = tar_number_field(pair + 12, 12, "sparse length", &len, err)))
			return rc;
		if (offset < 0 || len < 0)
			return error_set(err, CPULL_ERR_TAR, "its sparse map has a negative number");
		if ((rc = sparse_add(map, (uint64_t)offset, (uint64_t)len, err)))
			return rc;
	}
	return 0;
}

int sparse_set_list(struct sparse_map *map, const char *text, size_t len, struct cpull_error *err)
{
	const char *end = text + len;
	uint64_t pair[2] = {0};
	unsigned have = 0;

	sparse_reset(map);
	while (text < end) {
		const char *comma = memchr(text, ',', (size_t)(end - text));
		const char *stop = comma ? comma : end;
		int rc = tar_number_decimal(text, (size_t)(stop - text), "sparse map's number", &pair[have], err);

		if (rc)
			return rc;
		if (++have == 2) {
			have = 0;
			if ((rc = sparse_add(map, pair[0], pair[1], err)))
				return rc;
		}
		if (comma && comma + 1 == end)
			return error_set(err, CPULL_ERR_TAR, "its sparse map ends in a comma");
		text = comma ? comma + 1 : end;
	}
	if (have)
		return error_set(err, CPULL_ERR_TAR, "its sparse map has an offset without a length");
	return 0;
}

/* One line of a 1.0 map is complete: the count first, then offsets and lengths in turn. */
static int take_number(struct sparse_map *map, struct cpull_error *err)
{
	uint64_t number = map->number;

	if (!map->digits)
		return error_set(err, CPULL_ERR_TAR, "its sparse map has an empty line");
	map->number = 0;
	map->digits = 0;
	if (map->numbers_got++ == 0) {
		if (number > LIMIT_SPARSE_CHUNKS)
			return error_set(err, CPULL_ERR_LIMIT, "its sparse map has more than %u ranges",
					 LIMIT_SPARSE_CHUNKS);
		map->chunks_due = number;
		return 0;
	}
	if (map->numbers_got % 2 == 0) {
		map->offset = number;
		return 0;
	}
	return sparse_add(map, map->offset, number, err);
}

int sparse_read_text(struct sparse_map *map, const uint8_t *data, size_t len, size_t *used, struct cpull_error *err)
{
	for (size_t i = 0; i < len; i++) {
		unsigned digit = (unsigned)data[i] - '0';

		if (digit <= 9) {
			if (map->digits == 18)
				return error_set(err, CPULL_ERR_TAR, "its sparse map has a number of over 18 digits");
			map->number = map->number * 10 + digit;
			map->digits++;
			continue;
		}
		if (data[i] != '\n')
			return error_set(err, CPULL_ERR_TAR, "its sparse map holds something else than numbers");

		int rc = take_number(map, err);

		if (rc)
			return rc;
		if (map->numbers_got == 1 + 2 * map->chunks_due) {
			*used = i + 1;
			return 1;
		}
	}
	*used = len;
	return 0;
}

int sparse_check(const struct sparse_map *map, uint64_t size, uint64_t stored, struct cpull_error *err)
{
	uint64_t end = 0, total = 0;

	for (size_t i = 0; i < map->count; i++) {
		const struct sparse_chunk *c = &map->chunks[i];

		if (c->offset < end)
			return error_set(err, CPULL_ERR_TAR, "range %zu of its sparse map overlaps or is not in order",
					 i);
		if (c->offset > size || c->len > size - c->offset)
			return error_set(err, CPULL_ERR_TAR, "range %zu of its sparse map passes the file's %llu bytes",
					 i, (unsigned long long)size);
		end = c->offset + c->len;
		total += c->len;
	}
	if (total != stored)
		return error_set(err, CPULL_ERR_TAR, "its sparse map names %llu bytes, %llu are stored",
				 (unsigned long long)total, (unsigned long long)stored);
	return 0;
}
