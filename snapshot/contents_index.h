/* SPDX-License-Identifier: Apache-2.0
 *
 * What a layer's list of contents (contents_record.h) says is there in the end, to be looked up directory by directory.
 * Takes some 40 bytes a name; the names themselves, and what is known of each, stay in the file.
 */
#ifndef SNAPSHOT_CONTENTS_INDEX_H
#define SNAPSHOT_CONTENTS_INDEX_H

#include "snapshot/contents_writer.h"
#include "snapshot/map.h"

#define CONTENTS_ROOT 0u
#define CONTENTS_NONE UINT32_MAX

struct contents_entry {
	uint64_t key;     /* of directory and name */
	uint32_t dir;
	uint32_t name_at; /* offset of the record that gave it its name */
	uint32_t node;    /* offset of the record that made it; of a directory its number */
	bool is_dir;
	bool linked;      /* there may be other names with this node */
};

struct contents_dir {
	uint32_t parent;
	uint32_t name_at;    /* as in its entry; the root's is 0 */
	uint32_t settled_at; /* offset of its attributes, 0 for none */
	uint32_t first, count; /* of its entries */
	uint8_t state;
};

struct contents_index {
	int fd; /* borrowed */
	uint32_t bytes;
	uint64_t seed; /* for names; no other index has the same */
	struct contents_entry *entries; /* by dir and key */
	uint32_t entry_count;
	struct contents_dir *dirs;
	uint32_t dir_count;
	struct map restats; /* node → offset of newer attributes */
	struct map firsts;  /* node with several names → number of its first entry */
};

/* fd is borrowed for as long as the index. CPULL_ERR_DIGEST for a list that is not what the facts say, or makes no
 * sense; other errors say nothing about the list. */
MUST_CHECK int contents_index_load(int fd, const struct contents_facts *facts, struct contents_index **out,
				   struct cpull_error *err);
void contents_index_free(struct contents_index *index);

/* Is the directory there in the end? */
bool contents_dir_lives(const struct contents_index *index, uint32_t dir);
/* The entry of that name, or NULL. */
const struct contents_entry *contents_index_find(const struct contents_index *index, uint32_t dir, const char *name);
/* Is it the only entry of its node, or the first one? */
bool contents_index_is_first(const struct contents_index *index, const struct contents_entry *entry);
/* Where the attributes of something that is no directory are. */
uint32_t contents_index_attributes(const struct contents_index *index, const struct contents_entry *entry);

/* Records of the file, for one thread. */
struct contents_view;

MUST_CHECK int contents_view_new(struct contents_view **out, struct cpull_error *err);
void contents_view_free(struct contents_view *view);
/* The record at an offset that the index gave. Names are good until the next call with the view. */
MUST_CHECK int contents_view_read(struct contents_view *view, const struct contents_index *index, uint32_t at,
				  struct contents_record *out, struct cpull_error *err);
/* The name of an entry or a directory by its name_at, NUL-terminated. */
MUST_CHECK int contents_view_name(struct contents_view *view, const struct contents_index *index, uint32_t name_at,
				  char out[LIMIT_NAME_BYTES + 1], struct cpull_error *err);
/* The path of a directory that is there in the end, "" for the root. CPULL_ERR_DIGEST when it is longer than any can
 * be. */
MUST_CHECK int contents_view_path(struct contents_view *view, const struct contents_index *index, uint32_t dir,
				  char out[LIMIT_PATH_BYTES], struct cpull_error *err);

#endif
