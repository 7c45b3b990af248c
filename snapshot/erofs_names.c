/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of a layer in memory. Used by erofs_fs.c on the thread of one layer's writer; owns nothing but memory.
 *
 * A removed name stays where it is, in the list of its directory and in the table, until the one is sorted and the
 * other made anew: taking it out would need the name before it. The table's slots hold some bits of the hash, so that
 * names are hardly ever looked at in vain. Images choose names, hence the seed; what comes of them does not depend on
 * it.
 */
#include "snapshot/erofs_names.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "snapshot/erofs_image.h"

#define FIRST_PIECES 16u
#define FIRST_SLOTS 1024u
#define NUMBER_BITS 24u
#define NUMBER_MASK ((1u << NUMBER_BITS) - 1)
/* So many sorted lists, each of twice as many runs as the one before, hold any number of names. */
#define SORT_LISTS 32u

_Static_assert(LIMIT_EROFS_NAMES <= NUMBER_MASK, "a slot has 24 bits for the number of a name");
_Static_assert(sizeof(struct erofs_name) == 20 && sizeof(struct erofs_dir) == 48, "what the header says");

/* ---- memory ---- */

static int add_piece(struct erofs_pieces *pieces, size_t bytes)
{
	if (pieces->count == pieces->cap) {
		uint32_t cap = pieces->cap ? pieces->cap * 2 : FIRST_PIECES;
		char **grown = realloc(pieces->pieces, cap * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		pieces->pieces = grown;
		pieces->cap = cap;
	}

	char *piece = malloc(bytes);

	if (!piece)
		return -ENOMEM;
	pieces->pieces[pieces->count++] = piece;
	return 0;
}

static void free_pieces(struct erofs_pieces *pieces)
{
	for (uint32_t i = 0; i < pieces->count; i++)
		free(pieces->pieces[i]);
	free(pieces->pieces);
}

size_t erofs_names_bytes(const struct erofs_names *names)
{
	return sizeof(*names) + names->table_cap * sizeof(*names->table) +
	       names->names.count * EROFS_NAMES_A_PIECE * sizeof(struct erofs_name) +
	       names->dirs.count * EROFS_DIRS_A_PIECE * sizeof(struct erofs_dir) +
	       (size_t)names->texts.count * EROFS_TEXT_PIECE_BYTES +
	       (names->names.cap + names->dirs.cap + names->texts.cap) * sizeof(char *);
}

static int new_name(struct erofs_names *names, struct erofs_name name, uint32_t *out)
{
	if (names->name_count > names->limits.names)
		return -EFBIG;
	if (names->name_count == names->names.count * EROFS_NAMES_A_PIECE &&
	    add_piece(&names->names, EROFS_NAMES_A_PIECE * sizeof(name)))
		return -ENOMEM;
	*out = names->name_count++;
	*erofs_name_at(names, *out) = name;
	return 0;
}

static int new_dir(struct erofs_names *names, uint32_t name, uint32_t *out)
{
	if (names->dir_count > names->limits.dirs)
		return -EFBIG;
	if (names->dir_count == names->dirs.count * EROFS_DIRS_A_PIECE &&
	    add_piece(&names->dirs, EROFS_DIRS_A_PIECE * sizeof(struct erofs_dir)))
		return -ENOMEM;
	*out = names->dir_count++;
	*erofs_dir_at(names, *out) = (struct erofs_dir){.name = name, .mode = 0700};
	return 0;
}

/* Room for a text that lies in one piece. */
static int text_room(struct erofs_names *names, size_t len, uint32_t *at, char **out)
{
	uint64_t end = (uint64_t)names->texts.count * EROFS_TEXT_PIECE_BYTES;

	if (end - names->text_end < len) {
		if (end > UINT32_MAX - EROFS_TEXT_PIECE_BYTES)
			return -EFBIG;
		if (add_piece(&names->texts, EROFS_TEXT_PIECE_BYTES))
			return -ENOMEM;
		names->text_end = (uint32_t)end;
	}
	*at = names->text_end;
	*out = names->texts.pieces[*at / EROFS_TEXT_PIECE_BYTES] + *at % EROFS_TEXT_PIECE_BYTES;
	names->text_end += (uint32_t)len;
	return 0;
}

/* A name, and behind it a symlink's target with its length. */
static int add_text(struct erofs_names *names, const char *text, size_t len, const char *target, uint32_t *at)
{
	uint16_t target_len = target ? (uint16_t)strlen(target) : 0;
	size_t all = len + (target ? sizeof(target_len) + target_len : 0);
	char *to;

	if (len > names->limits.text_bytes - names->text_bytes ||
	    target_len > names->limits.target_bytes - names->target_bytes)
		return -EFBIG;

	int rc = text_room(names, all, at, &to);

	if (rc)
		return rc;
	memcpy(to, text, len);
	if (target) {
		memcpy(to + len, &target_len, sizeof(target_len));
		memcpy(to + len + sizeof(target_len), target, target_len);
	}
	names->text_bytes += (uint32_t)len;
	names->target_bytes += target_len;
	return 0;
}

/* ---- the table ---- */

static uint64_t hash_of(const struct erofs_names *names, uint32_t dir, const char *text, size_t len)
{
	return XXH3_64bits_withSeed(text, len, names->seed ^ ((uint64_t)dir << 32 | dir));
}

static uint32_t tag_of(uint64_t hash)
{
	return (uint32_t)(hash >> 56) << NUMBER_BITS;
}

/* The slot of a name, be it removed, else the one that it would get. */
static uint32_t *probe(const struct erofs_names *names, uint32_t dir, const char *text, size_t len, uint64_t hash)
{
	uint32_t mask = names->table_cap - 1;

	for (uint32_t at = (uint32_t)hash & mask;; at = (at + 1) & mask) {
		uint32_t *slot = &names->table[at];

		if (!*slot)
			return slot;
		if ((*slot ^ tag_of(hash)) >> NUMBER_BITS)
			continue;

		const struct erofs_name *name = erofs_name_at(names, *slot & NUMBER_MASK);

		if (name->dir == dir && name->len == len && memcmp(erofs_name_text(names, name), text, len) == 0)
			return slot;
	}
}

/* Removed names are left out. */
static int new_table(struct erofs_names *names)
{
	uint32_t cap = MAX(names->table_cap, FIRST_SLOTS);

	while ((names->live + 1) > cap / 2)
		cap *= 2;

	uint32_t *table = calloc(cap, sizeof(*table)), *old = names->table;

	if (!table)
		return -ENOMEM;
	names->table = table;
	names->table_cap = cap;
	names->table_used = 0;
	for (uint32_t i = EROFS_NO_NAME + 1; i < names->name_count; i++) {
		const struct erofs_name *name = erofs_name_at(names, i);

		if (!name->type)
			continue;

		uint64_t hash = hash_of(names, name->dir, erofs_name_text(names, name), name->len);
		uint32_t at = (uint32_t)hash & (cap - 1);

		while (table[at])
			at = (at + 1) & (cap - 1);
		table[at] = i | tag_of(hash);
		names->table_used++;
	}
	free(old);
	return 0;
}

uint32_t erofs_names_find(const struct erofs_names *names, uint32_t dir, const char *text)
{
	size_t len = strlen(text);
	uint32_t name = *probe(names, dir, text, len, hash_of(names, dir, text, len)) & NUMBER_MASK;

	return name != EROFS_NO_NAME && erofs_name_at(names, name)->type ? name : EROFS_NO_NAME;
}

/* ---- beginning and end ---- */

int erofs_names_init(struct erofs_names *out, const struct erofs_names_limits *limits)
{
	static const struct erofs_names_limits usual = {LIMIT_EROFS_NAMES, LIMIT_EROFS_DIRS, LIMIT_EROFS_NAME_BYTES,
							LIMIT_EROFS_TARGET_BYTES};
	uint32_t name, dir;

	*out = (struct erofs_names){.limits = limits ? *limits : usual};
	/* without a seed nothing breaks: collisions hurt only whoever made them */
	if (getrandom(&out->seed, sizeof(out->seed), GRND_NONBLOCK) < 0)
		out->seed = now_ns();
	if (new_table(out) || new_name(out, (struct erofs_name){.type = EROFS_DIRECTORY}, &name) ||
	    new_dir(out, name, &dir))
		return CPULL_ERR_NOMEM;
	assert(name == EROFS_NO_NAME && dir == EROFS_ROOT_DIR);
	return 0;
}

void erofs_names_free(struct erofs_names *names)
{
	free_pieces(&names->names);
	free_pieces(&names->dirs);
	free_pieces(&names->texts);
	free(names->table);
	*names = (struct erofs_names){0};
}

/* ---- changing ---- */

int erofs_names_add(struct erofs_names *names, uint32_t dir, const char *text, enum erofs_type type, uint32_t what,
		    const char *target, uint32_t *name)
{
	size_t len = strlen(text);
	uint64_t hash = hash_of(names, dir, text, len);
	uint32_t *slot = probe(names, dir, text, len, hash), at, old = *slot & NUMBER_MASK;
	struct erofs_dir *d = erofs_dir_at(names, dir);

	assert(len);
	if (len > LIMIT_NAME_BYTES)
		return -ENAMETOOLONG;
	if (!erofs_dir_is_there(names, dir))
		return -ENOENT;
	if (old && erofs_name_at(names, old)->type)
		return 1;
	if (!old && (names->table_used + 1) * 4 > names->table_cap * 3) {
		int rc = new_table(names);

		if (rc)
			return rc;
		slot = probe(names, dir, text, len, hash);
	}

	int rc = add_text(names, text, len, target, &at);

	if (!rc)
		rc = new_name(names, (struct erofs_name){.dir = dir, .next = d->first, .text = at, .what = what,
							 .len = (uint8_t)len, .type = (uint8_t)type}, name);
	if (rc)
		return rc;
	names->table_used += !*slot;
	*slot = *name | tag_of(hash);
	names->live++;
	d->first = *name;
	d->count++;
	return 0;
}

int erofs_names_add_dir(struct erofs_names *names, uint32_t dir, const char *text, uint32_t *out)
{
	uint32_t name, made = names->dir_count;
	int rc = erofs_names_add(names, dir, text, EROFS_DIRECTORY, made, NULL, &name);

	if (rc)
		return rc;
	rc = new_dir(names, name, out);
	if (rc) {
		erofs_name_at(names, name)->type = 0;
		names->live--;
		erofs_dir_at(names, dir)->count--;
	}
	return rc;
}

void erofs_names_remove(struct erofs_names *names, uint32_t name)
{
	struct erofs_name *n = erofs_name_at(names, name);

	assert(name != EROFS_NO_NAME && n->type);
	assert(n->type != EROFS_DIRECTORY || !erofs_dir_at(names, n->what)->count);
	n->type = 0;
	names->live--;
	erofs_dir_at(names, n->dir)->count--;
}

static bool is_below(const struct erofs_names *names, uint32_t dir, uint32_t above)
{
	while (dir != EROFS_ROOT_DIR && dir != above)
		dir = erofs_name_at(names, erofs_dir_at(names, dir)->name)->dir;
	return dir == above;
}

int erofs_names_move(struct erofs_names *names, uint32_t name, uint32_t dir, const char *text)
{
	const struct erofs_name from = *erofs_name_at(names, name);
	char target[LIMIT_PATH_BYTES];
	uint32_t to;

	/* in the kernel's order */
	if (!erofs_dir_is_there(names, dir))
		return -ENOENT;
	if (erofs_names_find(names, dir, text) != EROFS_NO_NAME)
		return 1;
	if (from.type == EROFS_DIRECTORY && is_below(names, dir, from.what))
		return -EINVAL;
	if (from.type == EROFS_SYMLINK)
		erofs_names_target(names, name, target);

	int rc = erofs_names_add(names, dir, text, from.type, from.what, from.type == EROFS_SYMLINK ? target : NULL,
				 &to);

	if (rc)
		return rc;
	if (from.type == EROFS_DIRECTORY)
		erofs_dir_at(names, from.what)->name = to;
	erofs_name_at(names, name)->type = 0;
	names->live--;
	erofs_dir_at(names, from.dir)->count--;
	return 0;
}

void erofs_names_target(const struct erofs_names *names, uint32_t name, char *out)
{
	const struct erofs_name *n = erofs_name_at(names, name);
	const char *text = erofs_name_text(names, n);
	uint16_t len;

	assert(n->type == EROFS_SYMLINK);
	memcpy(&len, text + n->len, sizeof(len));
	memcpy(out, text + n->len + sizeof(len), len);
	out[len] = 0;
}

/* ---- a directory's names ---- */

static uint32_t skip_removed(const struct erofs_names *names, uint32_t name)
{
	while (name != EROFS_NO_NAME && !erofs_name_at(names, name)->type)
		name = erofs_name_at(names, name)->next;
	return name;
}

uint32_t erofs_names_first(struct erofs_names *names, uint32_t dir)
{
	struct erofs_dir *d = erofs_dir_at(names, dir);

	/* emptying a directory takes the first one again and again */
	d->first = skip_removed(names, d->first);
	return d->first;
}

uint32_t erofs_names_next(const struct erofs_names *names, uint32_t name)
{
	return skip_removed(names, erofs_name_at(names, name)->next);
}

static bool is_before(const struct erofs_names *names, uint32_t a, uint32_t b)
{
	const struct erofs_name *x = erofs_name_at(names, a), *y = erofs_name_at(names, b);

	return erofs_name_compare(erofs_name_text(names, x), x->len, erofs_name_text(names, y), y->len) < 0;
}

/* Takes those off the list's start that are in order, be it backwards: so they are when a tar has them sorted. */
static uint32_t take_run(const struct erofs_names *names, uint32_t *list)
{
	uint32_t first = *list, last = first, name = erofs_names_next(names, first);

	if (name != EROFS_NO_NAME && is_before(names, name, first)) {
		while (name != EROFS_NO_NAME && is_before(names, name, first)) {
			uint32_t rest = erofs_names_next(names, name);

			erofs_name_at(names, name)->next = first;
			first = name;
			name = rest;
		}
	} else {
		while (name != EROFS_NO_NAME && is_before(names, last, name)) {
			erofs_name_at(names, last)->next = name;
			last = name;
			name = erofs_names_next(names, name);
		}
	}
	erofs_name_at(names, last)->next = EROFS_NO_NAME;
	*list = name;
	return first;
}

static uint32_t merge(const struct erofs_names *names, uint32_t a, uint32_t b)
{
	uint32_t first = EROFS_NO_NAME, *end = &first;

	while (a != EROFS_NO_NAME && b != EROFS_NO_NAME) {
		uint32_t *from = is_before(names, b, a) ? &b : &a;

		*end = *from;
		end = &erofs_name_at(names, *from)->next;
		*from = *end;
	}
	*end = a != EROFS_NO_NAME ? a : b;
	return first;
}

void erofs_names_sort(struct erofs_names *names, uint32_t dir)
{
	uint32_t lists[SORT_LISTS] = {0}, list = erofs_names_first(names, dir), all = EROFS_NO_NAME;

	while (list != EROFS_NO_NAME) {
		uint32_t run = take_run(names, &list);
		unsigned i;

		for (i = 0; lists[i] != EROFS_NO_NAME; i++) {
			run = merge(names, lists[i], run);
			lists[i] = EROFS_NO_NAME;
		}
		lists[i] = run;
	}
	for (unsigned i = 0; i < SORT_LISTS; i++)
		all = merge(names, lists[i], all);
	erofs_dir_at(names, dir)->first = all;
}

const char *erofs_names_path(const struct erofs_names *names, uint32_t dir, char *out, size_t len)
{
	size_t at = len - 1;

	out[at] = 0;
	while (dir != EROFS_ROOT_DIR) {
		const struct erofs_name *name = erofs_name_at(names, erofs_dir_at(names, dir)->name);

		if (at < (size_t)name->len + 1)
			break;
		if (at < len - 1)
			out[--at] = '/';
		at -= name->len;
		memcpy(out + at, erofs_name_text(names, name), name->len);
		dir = name->dir;
	}
	return out + at;
}
