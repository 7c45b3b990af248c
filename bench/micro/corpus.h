/* SPDX-License-Identifier: Apache-2.0
 *
 * What the stages work on: a tar of real files and its compressed forms, in memory.
 */
#ifndef MICRO_CORPUS_H
#define MICRO_CORPUS_H

#include "engine/base/util.h"

struct span {
	uint8_t *data;
	size_t len;
};

struct corpus {
	struct span tar, gzip, zstd, zstd_long; /* gzip -6, zstd -3, the same with a window of 128 MiB */
};

/* A tar of about so many bytes of regular files of /usr/lib and /usr/share, in the order of their names. */
MUST_CHECK int corpus_make(size_t bytes, struct corpus *out, struct cpull_error *err);
/* A tar that is there, plain, gzip or zstd. A compressed one is measured as it is. */
MUST_CHECK int corpus_load(const char *path, struct corpus *out, struct cpull_error *err);
void corpus_free(struct corpus *corpus);

/* A file, mapped. */
MUST_CHECK int span_map(const char *path, struct span *out, struct cpull_error *err);
void span_unmap(struct span *span);

/* In one frame; 0 for the level's own window. */
MUST_CHECK int compress_zstd(const struct span *in, int window_log, struct span *out, struct cpull_error *err);

#endif
