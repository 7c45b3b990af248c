/* SPDX-License-Identifier: Apache-2.0
 *
 * The product's layer writer, fed from memory.
 */
#ifndef MICRO_LAYER_FEED_H
#define MICRO_LAYER_FEED_H

#include "engine/base/util.h"

struct layer_feed;

/* A tar of `dirs` directories with `files` files each, of file_bytes bytes. */
MUST_CHECK int layer_feed_new(unsigned dirs, unsigned files, size_t file_bytes, struct layer_feed **out,
			      struct cpull_error *err);
/* Writes it into the empty directory behind dirfd. */
MUST_CHECK int layer_feed_run(struct layer_feed *feed, int dirfd, enum cpull_io io, struct cpull_error *err);
/* Writes it into a new EROFS image in that directory. */
MUST_CHECK int layer_feed_image(struct layer_feed *feed, int dirfd, enum cpull_io io, struct cpull_error *err);
void layer_feed_free(struct layer_feed *feed);

#endif
