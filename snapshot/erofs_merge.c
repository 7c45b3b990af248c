/* SPDX-License-Identifier: Apache-2.0
 *
 * Merging EROFS layers to one image: the walk through their directories. Called by who mounts them, on its thread; owns
 * the image's builder and the names of the directories on the way from the root to the one at work.
 *
 * A merged directory's names are those of all its layers, sorted, of which those that are hidden are taken out. It gets
 * its number, then what is no directory in it its inodes, then one directory after the other is gone into; when all of
 * them are done, it is written. Directories of a damaged layer may contain each other: their depth is bounded, and so is
 * all that comes from one layer.
 */
#include "snapshot/erofs_merge.h"

#include <string.h>
#include <sys/stat.h>

#include "engine/base/error.h"
#include "snapshot/erofs_merge_internal.h"
#include "snapshot/overlay_marks.h"

#define FIRST_CAP 64u

/* A name of a directory on the way. */
struct erofs_item {
	uint64_t nid; /* the layer's; the merged image's once the inode is written, or placed */
	uint32_t name_at;
	uint16_t layer;
	uint8_t name_len;
	uint8_t type; /* enum erofs_type, or 0: a directory that merges into the one before */
};
_Static_assert(sizeof(struct erofs_item) == 16, "struct erofs_item");

/* A directory on the way. Its items are those up to the next frame's first. */
struct erofs_frame {
	size_t first;
	size_t next;    /* the item to look at */
	size_t names;   /* bytes of names before */
	uint64_t nid;
	uint64_t source; /* its number in the topmost layer that has it */
	size_t layer;
};

/* ---- growing ---- */

static void *grow(void *array, size_t *cap, size_t size)
{
	size_t more = *cap ? *cap * 2 : FIRST_CAP;
	void *grown = reallocarray(array, more, size);

	if (grown)
		*cap = more;
	return grown;
}

#define ROOM(array, count, cap)                                          \
	({                                                               \
		void *grown_ = (array);                                  \
		if ((count) == (cap))                                    \
			grown_ = grow((array), &(cap), sizeof(*(array))); \
		if (grown_)                                              \
			(array) = grown_;                                \
		grown_ != NULL;                                          \
	})

static int push_item(struct erofs_merge *m, struct erofs_item item, const char *name, struct cpull_error *err)
{
	item.name_at = (uint32_t)m->names.len;
	if (!ROOM(m->items, m->item_count, m->item_cap))
		return error_nomem(err);

	int rc = bytes_append(&m->names, name, item.name_len, UINT32_MAX);

	if (rc == CPULL_ERR_LIMIT)
		return error_set(err, rc, "the names of directories in each other take more than %u bytes", UINT32_MAX);
	if (rc)
		return error_nomem(err);
	m->items[m->item_count++] = item;
	return 0;
}

/* Which layer it is that an error speaks of. */
static int in_layer(const struct erofs_merge *m, size_t layer, int rc, struct cpull_error *err)
{
	return rc < 0 ? error_wrap(err, "layer %s", m->options->layers[layer].name) : rc;
}

/* ---- names ---- */

/* All of a layer's directory, behind the items that are there. */
static int list_dir(struct erofs_merge *m, size_t layer, uint64_t nid, struct cpull_error *err)
{
	struct erofs_reader *reader = m->options->layers[layer].image;
	struct erofs_node node;
	struct erofs_listing l;
	int rc = erofs_merge_node(m, layer, nid, EROFS_DIRECTORY, &node, err);

	if (!rc)
		rc = erofs_merge_charge(m, layer, node.xattr_bytes, err);
	if (rc)
		return rc;
	erofs_reader_list(&node, &l);
	while ((rc = erofs_reader_next(reader, &l, err)) > 0) {
		struct erofs_item item = {.nid = l.nid, .layer = (uint16_t)layer, .name_len = (uint8_t)l.name_len,
					  .type = (uint8_t)l.type};

		if (!m->budgets[layer].entries--)
			return error_set(err, CPULL_ERR_LIMIT, "it has more than %llu entries",
					 (unsigned long long)m->options->max_entries);
		rc = erofs_merge_charge(m, layer, sizeof(struct erofs_dirent) + l.name_len, err);
		if (!rc)
			rc = push_item(m, item, l.name, err);
		if (rc)
			return rc;
	}
	return rc;
}

static int compare_names(const struct erofs_merge *m, const struct erofs_item *a, const struct erofs_item *b)
{
	return erofs_name_compare(m->names.data + a->name_at, a->name_len, m->names.data + b->name_at, b->name_len);
}

static int by_name_and_layer(const void *a, const void *b, void *merge)
{
	const struct erofs_item *x = a, *y = b;
	int order = compare_names(merge, x, y);

	return order ? order : (x->layer > y->layer) - (x->layer < y->layer);
}

/* ---- what is hidden ---- */

/* 1, 0 or an error, as below. The builder makes no others than these devices. */
static int is_whiteout(struct erofs_merge *m, const struct erofs_item *item, struct cpull_error *err)
{
	struct erofs_node node;

	if (item->type != EROFS_CHAR)
		return 0;

	int rc = erofs_merge_node(m, item->layer, item->nid, EROFS_CHAR, &node, err);

	return rc ? in_layer(m, item->layer, rc, err) : !node.rdev;
}

static int is_opaque(struct erofs_merge *m, const struct erofs_item *item, struct cpull_error *err)
{
	struct cpull_error why = {0};
	struct erofs_node node;
	char value = 0;
	size_t len = 0;
	int rc = erofs_merge_node(m, item->layer, item->nid, EROFS_DIRECTORY, &node, &why);

	if (!rc && node.xattr_bytes)
		rc = erofs_reader_xattr_get(m->options->layers[item->layer].image, &node, OVERLAY_TRUSTED_OPAQUE,
					    &value, 1, &len, &why);
	/* another value, however long, is no mark */
	if (rc >= 0 || rc == CPULL_ERR_LIMIT)
		return rc > 0 && len == 1 && value == 'y';
	return in_layer(m, item->layer, error_copy(err, &why), err);
}

/* Of items[i…end), which have one name: appends to items[0…*out) what is shown, and behind a directory those that
 * merge into it. */
static int keep_shown(struct erofs_merge *m, size_t i, size_t end, size_t *out, struct cpull_error *err)
{
	bool dir = m->items[i].type == EROFS_DIRECTORY;
	int rc = is_whiteout(m, &m->items[i], err);

	if (rc)
		return MIN(rc, 0);
	m->items[(*out)++] = m->items[i];
	while (dir && ++i < end) {
		/* the one before, wherever it is by now */
		rc = is_opaque(m, &m->items[*out - 1], err);
		if (rc)
			return MIN(rc, 0);
		if (m->items[i].type != EROFS_DIRECTORY)
			break;
		m->items[*out] = m->items[i];
		(*out)++;
	}
	return 0;
}

static int hide(struct erofs_merge *m, size_t first, struct cpull_error *err)
{
	size_t out = first;
	int rc = 0;

	for (size_t i = first, end; !rc && i < m->item_count; i = end) {
		size_t from = out;

		for (end = i + 1; end < m->item_count && !compare_names(m, &m->items[i], &m->items[end]); end++)
			;
		rc = keep_shown(m, i, end, &out, err);
		for (size_t k = from + 1; k < out; k++)
			m->items[k].type = 0;
	}
	m->item_count = out;
	return rc;
}

/* ---- directories ---- */

static struct erofs_frame *top(const struct erofs_merge *m)
{
	return &m->frames[m->depth - 1];
}

/* The directory at work, for the builder. */
static int describe(struct erofs_merge *m, struct erofs_directory *out, struct cpull_error *err)
{
	const struct erofs_frame *frame = top(m);
	struct erofs_node node;
	int rc = erofs_merge_node(m, frame->layer, frame->source, EROFS_DIRECTORY, &node, err);

	*out = (struct erofs_directory){.root = m->depth == 1,
					.parent = m->depth == 1 ? frame->nid : m->frames[m->depth - 2].nid};
	if (!rc)
		rc = erofs_merge_attributes(m, frame->layer, &node, &out->attributes, err);
	for (size_t i = frame->first; !rc && i < m->item_count; i++) {
		const struct erofs_item *item = &m->items[i];

		if (!item->type)
			continue;
		if (!ROOM(m->entries, out->count, m->entry_cap))
			return error_nomem(err);
		m->entries[out->count++] = (struct erofs_entry){.name = m->names.data + item->name_at,
								.len = item->name_len, .nid = item->nid,
								.type = (enum erofs_type)item->type};
	}
	out->entries = m->entries;
	return rc;
}

/* The names of a merged directory: of the item and of those behind it that merge into it. */
static int list_all(struct erofs_merge *m, size_t at, struct cpull_error *err)
{
	size_t first = m->item_count, last = at + 1;

	while (last < first && !m->items[last].type)
		last++;
	for (size_t i = at; i < last; i++) {
		struct erofs_item source = m->items[i];
		int rc = in_layer(m, source.layer, list_dir(m, source.layer, source.nid, err), err);

		if (rc)
			return rc;
	}
	if (last - at > 1)
		qsort_r(m->items + first, m->item_count - first, sizeof(*m->items), by_name_and_layer, m);
	return hide(m, first, err);
}

/* A directory's own number, and the inodes of what is none in it. */
static int place(struct erofs_merge *m, struct cpull_error *err)
{
	struct erofs_directory dir;
	int rc = describe(m, &dir, err);

	if (!rc)
		rc = erofs_image_dir_place(m->image, &dir, &top(m)->nid, err);
	rc = in_layer(m, top(m)->layer, rc, err);
	for (size_t i = top(m)->first; !rc && i < m->item_count; i++) {
		struct erofs_item *item = &m->items[i];

		if (!item->type || item->type == EROFS_DIRECTORY)
			continue;
		rc = erofs_merge_copy(m, item->layer, (enum erofs_type)item->type, &item->nid, err);
		rc = in_layer(m, item->layer, rc, err);
	}
	return rc;
}

/* Goes into the directory that an item of the one above is. */
static int enter(struct erofs_merge *m, size_t at, struct cpull_error *err)
{
	const struct erofs_item item = m->items[at];

	if (m->depth == LIMIT_PATH_DEPTH)
		return error_set(err, CPULL_ERR_LIMIT, "layer %s: more than %u directories in each other",
				 m->options->layers[item.layer].name, LIMIT_PATH_DEPTH);
	if (!ROOM(m->frames, m->depth, m->frame_cap))
		return error_nomem(err);
	m->frames[m->depth++] = (struct erofs_frame){.first = m->item_count, .next = m->item_count,
						     .names = m->names.len, .source = item.nid, .layer = item.layer};

	int rc = list_all(m, at, err);

	if (!rc)
		rc = place(m, err);
	m->items[at].nid = top(m)->nid;
	return rc;
}

/* All in it is written: writes the directory, and is back in the one above. */
static int leave(struct erofs_merge *m, struct cpull_error *err)
{
	struct erofs_directory dir;
	int rc = describe(m, &dir, err);

	if (!rc)
		rc = erofs_image_dir_write(m->image, top(m)->nid, &dir, err);
	if (rc)
		return in_layer(m, top(m)->layer, rc, err);
	m->item_count = top(m)->first;
	m->names.len = top(m)->names;
	m->depth--;
	return 0;
}

/* The next directory in the one at work, or the items' count. */
static size_t next_dir(struct erofs_merge *m)
{
	struct erofs_frame *frame = top(m);

	while (frame->next < m->item_count && m->items[frame->next].type != EROFS_DIRECTORY)
		frame->next++;
	return frame->next;
}

static int walk(struct erofs_merge *m, struct cpull_error *err)
{
	int rc = enter(m, 0, err);

	while (!rc && m->depth) {
		size_t at = next_dir(m);

		if (at == m->item_count) {
			rc = leave(m, err);
		} else {
			top(m)->next++;
			rc = enter(m, at, err);
		}
	}
	return rc;
}

/* ---- the whole ---- */

/* The layers' roots as one item. */
static int push_roots(struct erofs_merge *m, struct cpull_error *err)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < m->options->count; i++) {
		const struct erofs_item item = {.nid = erofs_reader_root(m->options->layers[i].image)->nid,
						.layer = (uint16_t)i, .type = i ? 0 : EROFS_DIRECTORY};

		rc = push_item(m, item, "", err);
		if (!rc)
			rc = is_opaque(m, &item, err);
	}
	return MIN(rc, 0);
}

static int begin(struct erofs_merge *m, struct cpull_error *err)
{
	const struct erofs_merge_options *options = m->options;
	CLEANUP_FREE struct erofs_device *devices = calloc(options->count, sizeof(*devices));
	struct erofs_image_options image = options->image;

	m->budgets = calloc(options->count, sizeof(*m->budgets));
	if (!devices || !m->budgets)
		return error_nomem(err);
	for (size_t i = 0; i < options->count; i++) {
		const struct erofs_reader *layer = options->layers[i].image;
		struct erofs_device *device = &devices[erofs_merge_device(m, i)];

		m->budgets[i] = (struct erofs_budget){.entries = options->max_entries,
						      .bytes = erofs_reader_bytes(layer)};
		device->blocks = (uint32_t)(erofs_reader_bytes(layer) / EROFS_BLOCK_BYTES);
		memcpy(device->uuid, erofs_reader_uuid(layer), sizeof(device->uuid));
	}
	image.devices = devices;
	image.device_count = options->count;
	return erofs_image_new(&image, &m->image, err);
}

static void end(struct erofs_merge *m)
{
	erofs_image_free(m->image);
	free(m->budgets);
	map_free(&m->links);
	bytes_free(&m->xattrs.text);
	free(m->chunks);
	free(m->items);
	bytes_free(&m->names);
	free(m->frames);
	free(m->entries);
	free(m);
}

int erofs_merge(const struct erofs_merge_options *options, struct erofs_image_result *out, struct cpull_error *err)
{
	struct erofs_merge_options all = *options;
	struct erofs_merge *m;

	if (!options->count || options->count > LIMIT_LAYERS)
		return error_set(err, CPULL_ERR_LIMIT, "merging %zu EROFS layers: 1 to %u can be", options->count,
				 LIMIT_LAYERS);
	if (!all.max_entries)
		all.max_entries = LIMIT_LAYER_ENTRIES;
	m = calloc(1, sizeof(*m));
	if (!m)
		return error_nomem(err);
	m->options = &all;

	int rc = begin(m, err);

	if (!rc)
		rc = push_roots(m, err);
	if (!rc)
		rc = walk(m, err);
	if (!rc)
		rc = erofs_image_finish(m->image, m->items[0].nid, out, err);
	end(m);
	return rc ? error_wrap(err, "merging EROFS layers") : 0;
}
