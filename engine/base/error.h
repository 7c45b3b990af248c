/* SPDX-License-Identifier: Apache-2.0
 *
 * Filling a struct cpull_error: once, where the facts are known, wrapped with context on the way up.
 * Every function takes err == NULL, and returns the code it was given, so that `return error_set(…)` reads
 * well.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "engine/base/util.h"

/* Sets code and message. */
int error_set(struct cpull_error *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The same for a system call that failed with errno `num` (positive): ": <strerror>" is appended, and the code
 * is taken from errno: ENOSPC/EDQUOT → SPACE, EACCES/EPERM/EROFS → PERMISSION, ENOENT → NOT_FOUND
 * when `code` is CPULL_ERR_NOT_FOUND, ENOMEM → NOMEM, otherwise `code`. */
int error_sys(struct cpull_error *err, int code, int num, const char *fmt, ...) PRINTF_LIKE(4, 5);

/* Puts "context: " before the message. */
int error_wrap(struct cpull_error *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

int error_nomem(struct cpull_error *err);

/* Hands on an error that was first kept aside, because some codes of the call are no failure of the caller's. */
int error_copy(struct cpull_error *err, const struct cpull_error *from);

/* Copies `text` into `out`, with every control byte and non-printable made visible as \xNN and cut to
 * out_bytes: for names that come from outside and go into a message. Returns out. */
const char *error_quote(const char *text, size_t len, char *out, size_t out_bytes);

#endif
