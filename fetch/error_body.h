/* SPDX-License-Identifier: Apache-2.0
 *
 * What a registry says of an error in the body of its answer.
 */
#ifndef FETCH_ERROR_BODY_H
#define FETCH_ERROR_BODY_H

#include "engine/base/util.h"

/* ": " and the first error of {"errors":[{"code","message"}]}, or the beginning of a short text; "" for pages and for
 * nothing. Printable. */
void error_body_text(const struct bytes *body, char *out, size_t room);

#endif
