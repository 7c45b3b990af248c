/* SPDX-License-Identifier: Apache-2.0
 *
 * Turns the tar bytes of one layer into what overlayfs takes as a lower, wherever it is written to: one writer a layer,
 * used by one thread. What depends on the layers below (the attributes of directories that the tar only implies, hard
 * links to files that only a lower layer has, paths through a symlink of a lower layer, whiteouts that may have nothing
 * to hide) is left as "loose ends" and tied once those are there.
 */
#ifndef SNAPSHOT_LAYER_WRITER_H
#define SNAPSHOT_LAYER_WRITER_H

#include "snapshot/layer_fs.h"

struct layer_writer;

struct layer_writer_options {
	struct layer_fs *fs;  /* what the layer is written to, empty; taken over, also on failure */
	uint64_t max_entries; /* 0: LIMIT_LAYER_ENTRIES */
};

struct layer_writer_stats {
	uint64_t entries;
	uint64_t file_bytes;
	enum bulk_way bulk_way; /* the best that bulk writes went by */
	struct file_jobs_stats helper;
};

MUST_CHECK int layer_writer_new(const struct layer_writer_options *options, struct layer_writer **out,
				struct cpull_error *err);
/* The next tar bytes, chunk->data[0…len). The writer takes a reference of its own where it needs the bytes longer
 * than the call. Errors name the entry. Bytes after the end of the archive are ignored. */
MUST_CHECK int layer_writer_feed(struct layer_writer *writer, struct chunk *chunk, struct cpull_error *err);
/* No more bytes: waits for writes under way, sets the attributes of directories. */
MUST_CHECK int layer_writer_finish(struct layer_writer *writer, struct layer_writer_stats *out,
				   struct cpull_error *err);
/* After finish: does the layer depend on those below it? */
bool layer_writer_has_loose_ends(const struct layer_writer *writer);
/* Ties the loose ends against the lower layers, TOPMOST FIRST (all complete, all of the kind that this one is). With
 * count 0 the defaults stay, and a hard link without target is CPULL_ERR_TAR. */
MUST_CHECK int layer_writer_tie(struct layer_writer *writer, const struct lower_layer *lowers, size_t count,
				struct cpull_error *err);
/* After finish, and tie where there are loose ends: nothing of the layer is left to be written. */
MUST_CHECK int layer_writer_seal(struct layer_writer *writer, struct cpull_error *err);
void layer_writer_free(struct layer_writer *writer);

#endif
