/* SPDX-License-Identifier: Apache-2.0
 *
 * What is in a tar, by the product's reader.
 */
#ifndef MICRO_READ_TAR_H
#define MICRO_READ_TAR_H

#include "snapshot/tar.h"

struct tar_count;

MUST_CHECK int tar_count_new(struct tar_count **out, struct cpull_error *err);
void tar_count_free(struct tar_count *count);
/* The next bytes; what an unpack_sink takes. */
MUST_CHECK int tar_count_take(void *payload, uint8_t *data, size_t len, struct cpull_error *err);
uint64_t tar_count_entries(const struct tar_count *count);
uint64_t tar_count_file_bytes(const struct tar_count *count);

#endif
