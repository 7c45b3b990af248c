/* SPDX-License-Identifier: Apache-2.0
 *
 * An OCI image layout on disk: index.json and blobs, opened beneath the directory's descriptor. Whoever calls
 * looks at cancellation and deadline.
 */
#ifndef FETCH_LAYOUT_H
#define FETCH_LAYOUT_H

#include "fetch/manifest.h"

struct layout;

/* Checks oci-layout, too. CPULL_ERR_NOT_FOUND, CPULL_ERR_UNSUPPORTED, CPULL_ERR_STORAGE. */
MUST_CHECK int layout_open(const char *dir, struct layout **out, struct cpull_error *err);
void layout_close(struct layout *layout);

/* index.json's text. */
MUST_CHECK int layout_read_index(struct layout *layout, struct bytes *out, struct cpull_error *err);
/* A manifest or index, of at most LIMIT_MANIFEST_BYTES. Digests here are valid. */
MUST_CHECK int layout_read_manifest(struct layout *layout, const char *digest, struct bytes *out,
				    struct cpull_error *err);
/* A whole blob of exactly `size` bytes. */
MUST_CHECK int layout_read_blob(struct layout *layout, const char *digest, size_t size, struct bytes *out,
				struct cpull_error *err);
/* A descriptor of a blob that has exactly `size` bytes. */
MUST_CHECK int layout_open_blob(struct layout *layout, const char *digest, uint64_t size, int *fd,
				struct cpull_error *err);

#endif
