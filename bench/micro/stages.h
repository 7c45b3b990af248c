/* SPDX-License-Identifier: Apache-2.0
 *
 * The stages of a byte's path, each with the ways that were weighed against each other.
 */
#ifndef MICRO_STAGES_H
#define MICRO_STAGES_H

#include "bench/micro/corpus.h"
#include "bench/micro/measure.h"

MUST_CHECK int measure_receive(struct report *report, const struct corpus *corpus, struct cpull_error *err);
MUST_CHECK int measure_hashes(struct report *report, const struct corpus *corpus, struct cpull_error *err);
MUST_CHECK int measure_inflate(struct report *report, const struct corpus *corpus, struct cpull_error *err);
MUST_CHECK int measure_tar(struct report *report, const struct corpus *corpus, struct cpull_error *err);
MUST_CHECK int measure_create(struct report *report, const struct corpus *corpus, struct cpull_error *err);
MUST_CHECK int measure_write(struct report *report, const struct corpus *corpus, struct cpull_error *err);
MUST_CHECK int measure_image(struct report *report, const struct corpus *corpus, struct cpull_error *err);
MUST_CHECK int measure_handover(struct report *report, const struct corpus *corpus, struct cpull_error *err);

/* What the bound of these very blobs is; after the stages, whose costs it uses. FILE or FILE,encrypted: the plain bytes
 * of a layer that is encrypted in the registry. */
MUST_CHECK int measure_blobs(struct report *report, const char *const *files, size_t count, struct cpull_error *err);

#endif
