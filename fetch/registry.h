/* SPDX-License-Identifier: Apache-2.0
 *
 * A repository at a registry: the network half of source.h, one a source. The fetcher lives here too, since
 * nothing else needs it.
 */
#ifndef FETCH_REGISTRY_H
#define FETCH_REGISTRY_H

#include "fetch/source.h"

struct registry;
struct stream;

MUST_CHECK int registry_new(struct fetcher *fetcher, const struct source_options *options, struct registry **out,
			    struct cpull_error *err);
void registry_free(struct registry *registry);
void registry_cancel(struct registry *registry);

/* As their namesakes of source.h; digests are valid, and deadline and cancellation have been looked at. */
MUST_CHECK int registry_get_manifest(struct registry *registry, const char *ref, struct source_document *out,
				     struct cpull_error *err);
MUST_CHECK int registry_get_blob(struct registry *registry, const char *digest, uint64_t size, struct bytes *out,
				 struct cpull_error *err);
/* To be read and closed as a stream. */
MUST_CHECK int registry_open_blob(struct registry *registry, const struct descriptor *desc,
				  struct pool_share *share, struct stream **out, struct cpull_error *err);

#endif
