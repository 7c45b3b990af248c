/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads a layer's list of contents and does again, with names alone, what was done when the layer was written. Called
 * by a thread that checks layers; the index is then read by all of them, each with a view of its own.
 *
 * The list may be damaged in any way: whatever it says gives an index or an error. Names are told apart by hashes with
 * a seed of this run, so that an image cannot bring names that are taken for each other.
 */
#include "snapshot/contents_index.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "engine/base/error.h"
#include "snapshot/checksum.h"

#define READ_BYTES ((size_t)64 << 10)
#define FIRST_CAP 64u
#define SLOT_FREE 0u /* others are numbers of entries, plus 1 */
#define SLOT_GONE UINT32_MAX

/* Of a directory: no name is its own, one is, that is being looked at, and what came of it. */
enum { UNNAMED, NAMED, WALKED, LIVES, GONE };

struct replay {
	struct contents_index *index;
	uint32_t entry_cap, dir_cap;
	struct map by_inode; /* → number of the directory */
	uint32_t *slots;     /* open addressing over entries */
	uint32_t slot_count, slots_used;
	uint32_t dir;
};

static int senseless(struct cpull_error *err, const char *why)
{
	return error_set(err, CPULL_ERR_DIGEST, "the list of the layer's contents is damaged: %s", why);
}

/* ---- names ---- */

static uint64_t key_of(const struct contents_index *index, uint32_t dir, const char *name, size_t len)
{
	uint64_t key = checksum_seeded(name, len, index->seed ^ dir * 0x9e3779b97f4a7c15ull);

	return key ? key : 1;
}

static uint32_t *slot_of(struct replay *r, uint64_t key)
{
	uint32_t mask = r->slot_count - 1, at = (uint32_t)key & mask;

	while (r->slots[at] != SLOT_FREE &&
	       (r->slots[at] == SLOT_GONE || r->index->entries[r->slots[at] - 1].key != key))
		at = (at + 1) & mask;
	return &r->slots[at];
}

static int grow_slots(struct replay *r)
{
	uint32_t count = FIRST_CAP;

	/* at most three quarters full, and half of that after growing unless names went */
	while (count / 8 * 3 < r->index->entry_count + 1)
		count *= 2;

	uint32_t *slots = calloc(count, sizeof(*slots));

	if (!slots)
		return CPULL_ERR_NOMEM;
	free(r->slots);
	r->slots = slots;
	r->slot_count = count;
	r->slots_used = 0;
	for (uint32_t i = 0; i < r->index->entry_count; i++) {
		if (!r->index->entries[i].key)
			continue;
		*slot_of(r, r->index->entries[i].key) = i + 1;
		r->slots_used++;
	}
	return 0;
}

static struct contents_entry *find(struct replay *r, uint32_t dir, struct contents_name name)
{
	uint32_t slot = *slot_of(r, key_of(r->index, dir, name.text, name.len));

	return slot == SLOT_FREE ? NULL : &r->index->entries[slot - 1];
}

/* Gives the name to something new; a thing that has it loses it. */
static int set(struct replay *r, uint32_t dir, struct contents_name name, struct contents_entry entry,
	       struct cpull_error *err)
{
	struct contents_index *index = r->index;

	entry.dir = dir;
	entry.key = key_of(index, dir, name.text, name.len);

	uint32_t *slot = slot_of(r, entry.key);

	if (*slot != SLOT_FREE) {
		index->entries[*slot - 1] = entry;
		return 0;
	}
	if (index->entry_count == LIMIT_CONTENTS_NAMES)
		return senseless(err, "more names than a layer can have");
	if (index->entry_count == r->entry_cap) {
		uint32_t cap = r->entry_cap ? r->entry_cap + r->entry_cap / 2 : FIRST_CAP;
		struct contents_entry *grown = realloc(index->entries, cap * sizeof(*grown));

		if (!grown)
			return error_nomem(err);
		index->entries = grown;
		r->entry_cap = cap;
	}
	index->entries[index->entry_count++] = entry;
	*slot = index->entry_count;
	r->slots_used++;
	return r->slots_used >= r->slot_count / 4 * 3 && grow_slots(r) ? error_nomem(err) : 0;
}

static void drop(struct replay *r, struct contents_entry *entry)
{
	*slot_of(r, entry->key) = SLOT_GONE;
	entry->key = 0;
}

/* ---- records ---- */

static int add_dir(struct replay *r, uint64_t inode, uint32_t parent, uint32_t name_at, struct cpull_error *err)
{
	struct contents_index *index = r->index;

	if (!inode)
		return senseless(err, "a directory without an inode number");
	if (index->dir_count == r->dir_cap) {
		uint32_t cap = r->dir_cap ? r->dir_cap + r->dir_cap / 2 : FIRST_CAP;
		struct contents_dir *grown = realloc(index->dirs, cap * sizeof(*grown));

		if (!grown)
			return error_nomem(err);
		index->dirs = grown;
		r->dir_cap = cap;
	}
	/* the number of one that is gone may be used again */
	if (map_put(&r->by_inode, inode, index->dir_count))
		return error_nomem(err);
	index->dirs[index->dir_count++] = (struct contents_dir){.parent = parent, .name_at = name_at};
	return 0;
}

static int dir_of(struct replay *r, uint64_t inode, uint32_t *out, struct cpull_error *err)
{
	*out = inode ? map_get(&r->by_inode, inode, CONTENTS_NONE) : CONTENTS_NONE;
	return *out == CONTENTS_NONE ? senseless(err, "it names a directory that it has not made") : 0;
}

static int apply_directory(struct replay *r, const struct contents_record *record, struct cpull_error *err)
{
	if (r->index->dir_count)
		return dir_of(r, record->inode, &r->dir, err);
	r->dir = CONTENTS_ROOT;
	return add_dir(r, record->inode, CONTENTS_NONE, 0, err);
}

static int apply_mkdir(struct replay *r, const struct contents_record *record, uint32_t at, struct cpull_error *err)
{
	struct contents_entry entry = {.name_at = at, .node = r->index->dir_count, .is_dir = true};
	int rc = add_dir(r, record->inode, r->dir, at, err);

	return rc ? rc : set(r, r->dir, record->name, entry, err);
}

static int apply_link(struct replay *r, const struct contents_record *record, uint32_t at, struct cpull_error *err)
{
	uint32_t dir;
	int rc = dir_of(r, record->inode, &dir, err);
	struct contents_entry *target = rc ? NULL : find(r, dir, record->other);

	if (rc)
		return rc;
	if (!target || target->is_dir)
		return senseless(err, "a link to what is not there");
	target->linked = true;

	struct contents_entry entry = *target;

	entry.name_at = at;
	return set(r, r->dir, record->name, entry, err);
}

static int apply_rename(struct replay *r, const struct contents_record *record, struct contents_entry *entry,
			uint32_t at, struct cpull_error *err)
{
	struct contents_entry moved = *entry;
	uint32_t dir;
	int rc = dir_of(r, record->inode, &dir, err);

	if (rc)
		return rc;
	drop(r, entry);
	moved.name_at = at;
	if (moved.is_dir) {
		r->index->dirs[moved.node].parent = dir;
		r->index->dirs[moved.node].name_at = at;
	}
	return set(r, dir, record->other, moved, err);
}

static int apply_to_entry(struct replay *r, const struct contents_record *record, uint32_t at, struct cpull_error *err)
{
	struct contents_entry *entry = find(r, r->dir, record->name);

	if (!entry)
		return record->type == CONTENTS_GONE ? 0 : senseless(err, "it changes what is not there");
	if (record->type == CONTENTS_RENAME)
		return apply_rename(r, record, entry, at, err);
	if (record->type == CONTENTS_GONE)
		drop(r, entry);
	else if (entry->is_dir)
		return senseless(err, "it takes a directory for a file");
	else if (map_put(&r->index->restats, entry->node, at))
		return error_nomem(err);
	return 0;
}

static int apply(struct replay *r, const struct contents_record *record, uint32_t at, struct cpull_error *err)
{
	if (record->type != CONTENTS_DIRECTORY && !r->index->dir_count)
		return senseless(err, "it does not begin with the root");
	switch (record->type) {
	case CONTENTS_DIRECTORY:
		return apply_directory(r, record, err);
	case CONTENTS_FILE:
	case CONTENTS_SYMLINK:
	case CONTENTS_NODE:
	case CONTENTS_WHITEOUT:
		return set(r, r->dir, record->name, (struct contents_entry){.name_at = at, .node = at}, err);
	case CONTENTS_LINK:
		return apply_link(r, record, at, err);
	case CONTENTS_MKDIR:
		return apply_mkdir(r, record, at, err);
	case CONTENTS_SETTLED:
		r->index->dirs[r->dir].settled_at = at;
		return 0;
	case CONTENTS_RESTAT:
	case CONTENTS_GONE:
	case CONTENTS_RENAME:
		return apply_to_entry(r, record, at, err);
	}
	return senseless(err, "an unknown record");
}

/* ---- the file ---- */

/* What is there of it; less than len only at the end. */
static int read_at(int fd, uint8_t *out, size_t len, uint64_t offset, size_t *got, struct cpull_error *err)
{
	*got = 0;
	while (*got < len) {
		ssize_t n = pread(fd, out + *got, len - *got, (off_t)(offset + *got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "reading the list of the layer's contents");
		if (n == 0)
			break;
		*got += (size_t)n;
	}
	return 0;
}

/* Applies what is whole in data[0…len), which lies at `offset` of the file; *used says how much that is. */
static int apply_all(struct replay *r, const uint8_t *data, size_t len, uint64_t offset, bool last, size_t *used,
		     struct cpull_error *err)
{
	size_t at = *used;
	int rc = 0;

	while (!rc && at < len && (last || len - at >= CONTENTS_RECORD_BYTES)) {
		struct contents_record record;
		size_t n = contents_decode(data + at, len - at, &record);

		rc = n ? apply(r, &record, (uint32_t)(offset + at), err) : senseless(err, "a malformed record");
		at += n;
	}
	*used = at;
	return rc;
}

static int read_all(struct replay *r, const struct contents_facts *facts, uint8_t *block, struct checksum *sum,
		    struct cpull_error *err)
{
	size_t held = 0, got, used = CONTENTS_HEADER_BYTES;
	int rc = 0, judged = 0;

	checksum_begin(sum);
	for (uint64_t at = 0; !rc && at < facts->bytes; at += got) {
		rc = read_at(r->index->fd, block + held, (size_t)MIN(READ_BYTES - held, facts->bytes - at), at, &got,
			     err);
		if (!rc && !got)
			rc = senseless(err, "it ends too early");
		if (rc)
			break;
		checksum_add(sum, block + held, got);
		if (at == 0 && (got < CONTENTS_HEADER_BYTES || memcmp(block, CONTENTS_HEADER, CONTENTS_HEADER_BYTES)))
			judged = senseless(err, "it is of another kind or version");
		/* the sum is the better explanation of a record that makes no sense */
		if (!judged)
			judged = apply_all(r, block, held + got, at - held, at + got == facts->bytes, &used, err);
		if (judged == CPULL_ERR_NOMEM)
			rc = judged;
		if (judged)
			used = held + got;
		held = held + got - used;
		memmove(block, block + used, held);
		used = 0;
	}
	if (!rc && checksum_end(sum) != facts->sum)
		return senseless(err, "its bytes are not those that were written");
	return rc ? rc : judged;
}

/* ---- the end ---- */

/* LIVES or GONE for the directory and all above it. */
static void walk_up(struct contents_index *index, uint32_t dir)
{
	struct contents_dir *dirs = index->dirs;
	uint32_t at = dir;

	for (; dirs[at].state == NAMED; at = dirs[at].parent)
		dirs[at].state = WALKED;

	/* back at one that was walked: a circle */
	uint8_t state = dirs[at].state == LIVES ? LIVES : GONE;

	for (at = dir; dirs[at].state == WALKED; at = dirs[at].parent)
		dirs[at].state = state;
}

static int by_place(const void *a, const void *b)
{
	const struct contents_entry *x = a, *y = b;

	if (x->dir != y->dir)
		return x->dir < y->dir ? -1 : 1;
	return x->key < y->key ? -1 : x->key > y->key;
}

/* Leaves the names that are there, in the order of their directories. */
static int settle(struct contents_index *index)
{
	uint32_t count = 0;
	int rc = 0;

	for (uint32_t i = 0; i < index->entry_count; i++)
		if (index->entries[i].key && index->entries[i].is_dir)
			index->dirs[index->entries[i].node].state = NAMED;
	index->dirs[CONTENTS_ROOT].state = LIVES;
	for (uint32_t d = 0; d < index->dir_count; d++)
		walk_up(index, d);
	for (uint32_t i = 0; i < index->entry_count; i++)
		if (index->entries[i].key && index->dirs[index->entries[i].dir].state == LIVES)
			index->entries[count++] = index->entries[i];
	index->entry_count = count;
	if (count)
		qsort(index->entries, count, sizeof(*index->entries), by_place);
	for (uint32_t i = 0; !rc && i < count; i++) {
		const struct contents_entry *entry = &index->entries[i];
		struct contents_dir *dir = &index->dirs[entry->dir];

		dir->first = dir->count ? dir->first : i;
		dir->count++;
		if (entry->linked && map_get(&index->firsts, entry->node, CONTENTS_NONE) == CONTENTS_NONE)
			rc = map_put(&index->firsts, entry->node, i);
	}
	return rc;
}

static int load(struct replay *r, const struct contents_facts *facts, struct cpull_error *err)
{
	CLEANUP_FREE uint8_t *block = malloc(READ_BYTES);
	struct checksum *sum = NULL;
	struct stat st;
	int rc = block && !grow_slots(r) ? checksum_new(&sum, err) : error_nomem(err);

	if (!rc && fstat(r->index->fd, &st))
		rc = error_sys(err, CPULL_ERR_STORAGE, errno, "looking at the list of the layer's contents");
	if (!rc && ((uint64_t)st.st_size != facts->bytes || facts->bytes > LIMIT_CONTENTS_BYTES))
		rc = senseless(err, "it has not the length that it was written with");
	if (!rc)
		rc = read_all(r, facts, block, sum, err);
	if (!rc && !r->index->dir_count)
		rc = senseless(err, "it is empty");
	if (!rc && settle(r->index))
		rc = error_nomem(err);
	checksum_free(sum);
	return rc;
}

int contents_index_load(int fd, const struct contents_facts *facts, struct contents_index **out,
			struct cpull_error *err)
{
	struct contents_index *index = calloc(1, sizeof(*index));
	struct replay r = {.index = index};

	if (!index)
		return error_nomem(err);
	index->fd = fd;
	index->bytes = (uint32_t)facts->bytes;
	if (getrandom(&index->seed, sizeof(index->seed), GRND_NONBLOCK) < 0)
		index->seed = now_ns();

	int rc = load(&r, facts, err);

	free(r.slots);
	map_free(&r.by_inode);
	if (rc)
		contents_index_free(index);
	else
		*out = index;
	return rc;
}

void contents_index_free(struct contents_index *index)
{
	if (!index)
		return;
	map_free(&index->restats);
	map_free(&index->firsts);
	free(index->entries);
	free(index->dirs);
	free(index);
}

/* ---- looking up ---- */

bool contents_dir_lives(const struct contents_index *index, uint32_t dir)
{
	return index->dirs[dir].state == LIVES;
}

const struct contents_entry *contents_index_find(const struct contents_index *index, uint32_t dir, const char *name)
{
	uint64_t key = key_of(index, dir, name, strlen(name));
	const struct contents_entry *from = index->entries + index->dirs[dir].first;
	uint32_t low = 0, high = index->dirs[dir].count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (from[middle].key == key)
			return &from[middle];
		if (from[middle].key < key)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

bool contents_index_is_first(const struct contents_index *index, const struct contents_entry *entry)
{
	uint32_t number = (uint32_t)(entry - index->entries);

	return !entry->linked || map_get(&index->firsts, entry->node, number) == number;
}

uint32_t contents_index_attributes(const struct contents_index *index, const struct contents_entry *entry)
{
	return map_get(&index->restats, entry->node, entry->node);
}

/* ---- records ---- */

struct contents_view {
	uint64_t seed; /* of the index that it is of */
	uint64_t at;   /* offset of what is held */
	size_t len;
	uint8_t bytes[READ_BYTES];
};

int contents_view_new(struct contents_view **out, struct cpull_error *err)
{
	struct contents_view *view = malloc(sizeof(*view));

	if (!view)
		return error_nomem(err);
	view->seed = view->at = view->len = 0;
	*out = view;
	return 0;
}

void contents_view_free(struct contents_view *view)
{
	free(view);
}

int contents_view_read(struct contents_view *view, const struct contents_index *index, uint32_t at,
		       struct contents_record *out, struct cpull_error *err)
{
	uint64_t want = MIN((uint64_t)at + CONTENTS_RECORD_BYTES, index->bytes);

	if (view->seed != index->seed || at < view->at || want > view->at + view->len) {
		size_t len = (size_t)MIN(READ_BYTES, index->bytes - at);
		int rc = read_at(index->fd, view->bytes, len, at, &view->len, err);

		view->seed = index->seed;
		view->at = at;
		if (rc) {
			view->len = 0;
			return rc;
		}
	}
	if (at - view->at < view->len &&
	    contents_decode(view->bytes + (at - view->at), view->len - (size_t)(at - view->at), out))
		return 0;
	return senseless(err, "it changed while it was read");
}

int contents_view_name(struct contents_view *view, const struct contents_index *index, uint32_t name_at,
		       char out[LIMIT_NAME_BYTES + 1], struct cpull_error *err)
{
	struct contents_record record;
	int rc = contents_view_read(view, index, name_at, &record, err);

	if (rc)
		return rc;

	struct contents_name name = record.type == CONTENTS_RENAME ? record.other : record.name;

	memcpy(out, name.text ? name.text : "", name.len);
	out[name.len] = 0;
	return 0;
}

int contents_view_path(struct contents_view *view, const struct contents_index *index, uint32_t dir,
		       char out[LIMIT_PATH_BYTES], struct cpull_error *err)
{
	size_t at = LIMIT_PATH_BYTES - 1;

	/* from its end: the last name is known first */
	out[at] = 0;
	for (uint32_t d = dir; d != CONTENTS_ROOT; d = index->dirs[d].parent) {
		char name[LIMIT_NAME_BYTES + 1];
		int rc = contents_view_name(view, index, index->dirs[d].name_at, name, err);
		size_t len = rc ? 0 : strlen(name);

		if (rc)
			return rc;
		if (len + 1 > at)
			return senseless(err, "a path that is too long");
		if (out[at])
			out[--at] = '/';
		at -= len;
		memcpy(out + at, name, len);
	}
	memmove(out, out + at, LIMIT_PATH_BYTES - at);
	return 0;
}
