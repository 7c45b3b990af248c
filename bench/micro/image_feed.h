/* SPDX-License-Identifier: Apache-2.0
 *
 * The product's builder of EROFS images, without the tar reader in front of it.
 */
#ifndef MICRO_IMAGE_FEED_H
#define MICRO_IMAGE_FEED_H

#include "engine/base/util.h"

struct image_feed;

/* `dirs` directories with `files` files each, of file_bytes bytes. */
MUST_CHECK int image_feed_new(unsigned dirs, unsigned files, size_t file_bytes, struct image_feed **out,
			      struct cpull_error *err);
/* Writes it as a new file into the directory behind dirfd; all files have the same data. */
MUST_CHECK int image_feed_run(struct image_feed *feed, int dirfd, const uint8_t *data, struct cpull_error *err);
void image_feed_free(struct image_feed *feed);

#endif
