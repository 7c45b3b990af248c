/* SPDX-License-Identifier: Apache-2.0
 *
 * A layer's list of contents, damaged in any way that its sum does not show: an index that holds together, or an error.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/base/fs.h"
#include "snapshot/checksum.h"
#include "snapshot/contents_index.h"

static void require(bool right)
{
	if (!right)
		abort();
}

static void look_through(const struct contents_index *index, struct contents_view *view)
{
	uint32_t names = 0;

	for (uint32_t d = 0; d < index->dir_count; d++) {
		const struct contents_dir *dir = &index->dirs[d];
		char path[LIMIT_PATH_BYTES], name[LIMIT_NAME_BYTES + 1];

		require(contents_dir_lives(index, d) || !dir->count);
		if (contents_dir_lives(index, d) && contents_view_path(view, index, d, path, NULL) == 0)
			require((d == CONTENTS_ROOT) == !*path);
		for (uint32_t i = dir->first; i < dir->first + dir->count; i++) {
			const struct contents_entry *entry = &index->entries[i];
			struct contents_record record;
			uint32_t at = 0;

			require(entry->dir == d);
			require(contents_view_name(view, index, entry->name_at, name, NULL) == 0);
			require(contents_index_find(index, d, name) == entry);
			if (entry->is_dir)
				require(contents_dir_lives(index, entry->node) && index->dirs[entry->node].parent == d);
			else
				at = contents_index_attributes(index, entry);
			require(entry->is_dir || contents_view_read(view, index, at, &record, NULL) == 0);
		}
		names += dir->count;
	}
	require(names == index->entry_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct contents_facts facts = {.bytes = CONTENTS_HEADER_BYTES + size};
	CLEANUP_FREE uint8_t *whole = malloc(facts.bytes);
	CLEANUP_FD int fd = memfd_create("contents", MFD_CLOEXEC);
	struct contents_index *index = NULL;
	struct contents_view *view = NULL;

	if (!whole || fd < 0)
		return 0;
	memcpy(whole, CONTENTS_HEADER, CONTENTS_HEADER_BYTES);
	memcpy(whole + CONTENTS_HEADER_BYTES, data, size);
	facts.sum = checksum_of(whole, facts.bytes);
	if (fs_write_all(fd, whole, facts.bytes, 0))
		return 0;
	if (contents_index_load(fd, &facts, &index, NULL) == 0 && contents_view_new(&view, NULL) == 0)
		look_through(index, view);
	contents_view_free(view);
	contents_index_free(index);
	return 0;
}
