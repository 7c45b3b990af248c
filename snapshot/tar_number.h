/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers as tar writes them: octal or base-256 in header fields, decimal in pax records and sparse maps. Pure.
 */
#ifndef SNAPSHOT_TAR_NUMBER_H
#define SNAPSHOT_TAR_NUMBER_H

#include "engine/base/util.h"

/* A header field of `len` bytes: octal, or base-256 when its top bit is set (layers.md §2). An empty field is 0.
 * `what` names it in the message ("size"). CPULL_ERR_TAR for anything else, and for what int64_t does not hold. */
MUST_CHECK int tar_number_field(const uint8_t *field, size_t len, const char *what, int64_t *out,
				struct cpull_error *err);
/* The same for what cannot be negative. */
MUST_CHECK int tar_number_unsigned(const uint8_t *field, size_t len, const char *what, uint64_t *out,
				   struct cpull_error *err);
/* The same below UINT32_MAX, which is -1 and tells chown() to leave the owner alone. */
MUST_CHECK int tar_number_u32(const uint8_t *field, size_t len, const char *what, uint32_t *out,
			      struct cpull_error *err);
/* One or more decimal digits and nothing else. CPULL_ERR_TAR otherwise, and for what int64_t does not hold. */
MUST_CHECK int tar_number_decimal(const char *text, size_t len, const char *what, uint64_t *out,
				  struct cpull_error *err);

#endif
