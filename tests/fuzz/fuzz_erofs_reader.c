/* SPDX-License-Identifier: Apache-2.0
 *
 * The EROFS reader on anything: everything that can be reached from the root, with a budget. The oracles: a name that
 * a whole listing has is found by a lookup, data read in one piece is the same as in small ones and as by the map,
 * attributes come by name as in the list.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "packed_image.h"
#include "snapshot/erofs_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define MAX_NODES 64u
#define MAX_NAMES 2048u /* of all directories */
#define MAX_READ (64u << 10)

struct walk {
	struct erofs_reader *reader;
	uint64_t nids[MAX_NODES];
	size_t count;
	size_t names;
	uint8_t whole[MAX_READ], pieces[MAX_READ];
};

static void check(bool good)
{
	if (!good)
		abort();
}

/* A window of the data: whole, in pieces, and where the map says it is. */
static void read_window(struct walk *w, const struct erofs_node *node, uint64_t from)
{
	struct erofs_extent extent;
	struct cpull_error err = {0};
	size_t got, piece, want = (size_t)MIN(node->size - from, sizeof(w->whole));

	if (erofs_reader_read(w->reader, node, w->whole, sizeof(w->whole), from, &got, &err)) {
		check(*err.message);
		return;
	}
	check(got == want);
	for (size_t at = 0; at < want; at += piece) {
		size_t n = MIN(want - at, 997);

		check(!erofs_reader_read(w->reader, node, w->pieces + at, n, from + at, &piece, NULL));
		check(piece);
	}
	check(!memcmp(w->whole, w->pieces, want));
	for (size_t at = 0; at < want;) {
		check(!erofs_reader_map(w->reader, node, from + at, &extent, NULL));
		check(extent.bytes && extent.bytes <= node->size - from - at);
		if (extent.place == EROFS_IN_HOLE)
			check(all_zero(w->whole + at, (size_t)MIN(extent.bytes, want - at)));
		else
			check(extent.at < erofs_reader_bytes(w->reader) &&
			      extent.bytes <= erofs_reader_bytes(w->reader) - extent.at);
		at += (size_t)MIN(extent.bytes, want - at);
	}
}

static void read_data(struct walk *w, const struct erofs_node *node)
{
	char target[LIMIT_PATH_BYTES];

	check(node->size <= LIMIT_FILE_BYTES);
	if (!node->size)
		return;
	read_window(w, node, 0);
	if (node->size > MAX_READ)
		read_window(w, node, node->size - 5000);
	if (S_ISLNK(node->mode) && !erofs_reader_link(w->reader, node, target, NULL))
		check(strlen(target) == node->size);
}

static void read_xattrs(struct walk *w, const struct erofs_node *node)
{
	struct erofs_xattrs x;
	size_t len;

	erofs_reader_xattrs(node, &x);
	for (unsigned i = 0; i < 100 && erofs_reader_xattr_next(w->reader, &x, NULL) > 0; i++) {
		check(strlen(x.name) == x.name_len && x.name_len < sizeof(x.name) && x.value_len <= sizeof(w->whole));
		check(!erofs_reader_xattr_value(w->reader, &x, w->whole, NULL));
		check(erofs_reader_xattr_get(w->reader, node, x.name, w->whole, sizeof(w->whole), &len, NULL) == 1);
	}
}

static void add_node(struct walk *w, uint64_t nid)
{
	for (size_t i = 0; i < w->count; i++)
		if (w->nids[i] == nid)
			return;
	if (w->count < MAX_NODES)
		w->nids[w->count++] = nid;
}

/* 0 when the listing comes to its end. */
static int list(struct walk *w, const struct erofs_node *dir, bool all_are_there)
{
	struct cpull_error err = {0};
	struct erofs_listing l;
	struct erofs_node node;
	int rc;

	erofs_reader_list(dir, &l);
	while ((rc = erofs_reader_next(w->reader, &l, &err)) > 0) {
		check(strlen(l.name) == l.name_len && !strchr(l.name, '/'));
		if (++w->names > MAX_NAMES)
			return 1;
		add_node(w, l.nid);

		int found = erofs_reader_lookup(w->reader, dir, l.name, l.name_len, &node, NULL);

		if (all_are_there)
			check(found == 1 ? node.nid == l.nid : found < 0);
	}
	check(!rc || *err.message);
	return rc;
}

static void walk(struct walk *w)
{
	struct cpull_error err = {0};
	struct erofs_node node;

	add_node(w, erofs_reader_root(w->reader)->nid);
	for (size_t i = 0; i < w->count; i++) {
		if (erofs_reader_node(w->reader, w->nids[i], &node, &err)) {
			check(*err.message);
			continue;
		}
		read_data(w, &node);
		read_xattrs(w, &node);
		if (S_ISDIR(node.mode) && !list(w, &node, false))
			check(list(w, &node, true) >= 0);
	}
	if (erofs_reader_find(w->reader, "/d/./f", &node, NULL) > 0)
		check(erofs_type_of(node.mode));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	CLEANUP_FREE uint8_t *image = calloc(1, MAX_IMAGE);
	CLEANUP_FREE struct walk *w = calloc(1, sizeof(*w));
	CLEANUP_FD int fd = memfd_create("fuzz", MFD_CLOEXEC);
	struct cpull_error err = {0};

	check(image && w && fd >= 0);
	if (!len)
		return 0;

	size_t bytes = unpack_image(data, len, image);

	check(pwrite(fd, image, bytes, 0) == (ssize_t)bytes);
	if (erofs_reader_open(fd, &w->reader, &err)) {
		check(!w->reader && *err.message);
		return 0;
	}
	walk(w);
	erofs_reader_close(w->reader);
	return 0;
}
