/* SPDX-License-Identifier: Apache-2.0
 *
 * A gzip stream of any number of members (RFC 1952), inflated by ISA-L, or by zlib where that is not built in.
 */
#ifndef ENGINE_GZIP_H
#define ENGINE_GZIP_H

#include "engine/decompress.h"

struct gzip;

MUST_CHECK int gzip_new(struct gzip **out, struct cpull_error *err);
/* As decompress_run(). The message does not name the offset: the caller knows it. */
MUST_CHECK int gzip_run(struct gzip *gzip, struct decompress_io *io, struct cpull_error *err);
/* As decompress_finish(). */
MUST_CHECK int gzip_finish(const struct gzip *gzip, struct cpull_error *err);
void gzip_free(struct gzip *gzip);

#endif
