/* SPDX-License-Identifier: Apache-2.0
 *
 * Two layers of anything, merged: an error with a message, or an image that can be read in full, but for what is on its
 * devices, and that is not larger than the layers give reason for.
 *
 * An input is the length of the upper one's (two bytes, little-endian), and two of packed_image.h.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "packed_image.h"
#include "snapshot/erofs_merge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define LAYERS 2u
#define MAX_NODES 65536u /* both layers together have room for fewer */

struct layer {
	int fd;
	struct erofs_reader *reader;
};

struct walk {
	struct erofs_reader *reader;
	uint64_t nids[MAX_NODES]; /* of directories */
	size_t count;
	uint8_t piece[65536];
};

static void check(bool good)
{
	if (!good)
		abort();
}

static bool open_layer(struct layer *layer, const uint8_t *data, size_t len)
{
	CLEANUP_FREE uint8_t *image = calloc(1, MAX_IMAGE);
	size_t bytes;

	check(image);
	layer->fd = memfd_create("layer", MFD_CLOEXEC);
	check(layer->fd >= 0);
	bytes = unpack_image(data, len, image);
	check(pwrite(layer->fd, image, bytes, 0) == (ssize_t)bytes);
	return erofs_reader_open(layer->fd, &layer->reader, NULL) == 0;
}

static void close_layer(struct layer *layer)
{
	erofs_reader_close(layer->reader);
	if (layer->fd >= 0)
		close(layer->fd);
}

/* ---- what came of it ---- */

static void read_xattrs(struct walk *w, const struct erofs_node *node)
{
	struct erofs_xattrs x;
	int rc;

	erofs_reader_xattrs(node, &x);
	while ((rc = erofs_reader_xattr_next(w->reader, &x, NULL)) > 0) {
		check(!erofs_reader_xattr_value(w->reader, &x, w->piece, NULL));
		check(strcmp(x.name, "trusted.overlay.opaque") != 0);
	}
	check(!rc);
}

static void read_data(struct walk *w, const struct erofs_node *node)
{
	struct erofs_extent extent;
	size_t got;

	for (uint64_t at = 0; at < node->size; at += extent.bytes) {
		int rc = erofs_reader_map(w->reader, node, at, &extent, NULL);

		if (rc == CPULL_ERR_UNSUPPORTED) {
			/* whole blocks are elsewhere: at the end there may be a tail */
			check(S_ISREG(node->mode));
			extent.bytes = EROFS_BLOCK_BYTES;
			at = MAX(at, node->size > 65536 ? node->size - 65536 : 0) & ~(uint64_t)(EROFS_BLOCK_BYTES - 1);
			continue;
		}
		check(!rc);
		check(!erofs_reader_read(w->reader, node, w->piece, MIN(extent.bytes, sizeof(w->piece)), at, &got, NULL));
	}
}

static void read_node(struct walk *w, uint64_t nid, enum erofs_type type)
{
	struct erofs_node node;
	char target[LIMIT_PATH_BYTES];

	check(!erofs_reader_node(w->reader, nid, &node, NULL));
	check(erofs_type_of(node.mode) == type);
	check(type != EROFS_CHAR || node.rdev);
	read_xattrs(w, &node);
	read_data(w, &node);
	if (type == EROFS_SYMLINK)
		check(!erofs_reader_link(w->reader, &node, target, NULL));
	if (type == EROFS_DIRECTORY) {
		check(w->count < MAX_NODES);
		w->nids[w->count++] = nid;
	}
}

static void read_all(struct walk *w)
{
	struct erofs_listing l;
	struct erofs_node dir, node;
	int rc;

	read_node(w, erofs_reader_root(w->reader)->nid, EROFS_DIRECTORY);
	for (size_t i = 0; i < w->count; i++) {
		check(!erofs_reader_node(w->reader, w->nids[i], &dir, NULL));
		erofs_reader_list(&dir, &l);
		while ((rc = erofs_reader_next(w->reader, &l, NULL)) > 0) {
			check(erofs_reader_lookup(w->reader, &dir, l.name, l.name_len, &node, NULL) == 1);
			check(node.nid == l.nid);
			read_node(w, l.nid, l.type);
		}
		check(!rc);
	}
}

static void merge(struct layer *layers)
{
	const struct erofs_merge_layer all[LAYERS] = {{layers[0].reader, "upper"}, {layers[1].reader, "lower"}};
	struct erofs_merge_options options = {.layers = all, .count = LAYERS, .image.uuid = "fuzz"};
	struct erofs_image_result result;
	struct cpull_error err = {0};
	struct walk *w;
	struct log log;
	int rc;

	log_init(&log, NULL, NULL, CPULL_LOG_ERROR);
	options.image.log = &log;
	options.image.fd = memfd_create("merged", MFD_CLOEXEC);
	options.image.spool_dirfd = -1; /* not so much */
	check(options.image.fd >= 0);
	rc = erofs_merge(&options, &result, &err);
	check(rc ? rc == err.code && *err.message : !err.code);
	if (!rc) {
		w = calloc(1, sizeof(*w));
		check(w && !erofs_reader_open(options.image.fd, &w->reader, &err));
		check(erofs_reader_bytes(w->reader) == result.blocks * EROFS_BLOCK_BYTES);
		read_all(w);
		erofs_reader_close(w->reader);
		free(w);
	}
	close(options.image.fd);
	log_destroy(&log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct layer layers[LAYERS] = {{.fd = -1}, {.fd = -1}};
	size_t upper = len > 4 ? data[0] | (size_t)data[1] << 8 : 0;

	if (!upper || upper >= len - 2)
		return 0;
	if (open_layer(&layers[0], data + 2, upper) && open_layer(&layers[1], data + 2 + upper, len - 2 - upper))
		merge(layers);
	for (unsigned i = 0; i < LAYERS; i++)
		close_layer(&layers[i]);
	return 0;
}
