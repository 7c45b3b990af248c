/* SPDX-License-Identifier: Apache-2.0
 *
 * Option values from text: sizes, durations, booleans, numbers. Pure; each returns 0, or -1 when the text is not one.
 */
#ifndef CLI_VALUES_H
#define CLI_VALUES_H

#include <stdbool.h>
#include <stdint.h>

/* "67108864", "64K", "64M", "64MiB", "1G", "1GiB", "1T"; a suffix counts in powers of 1024. Never 0. */
int value_bytes(const char *text, uint64_t *out);
/* "90", "1.5", "30s", "5m", "1h"; rounded up to a whole millisecond, so that only zero means zero. */
int value_duration_ms(const char *text, uint32_t *out);
/* "true", "false", "1", "0". */
int value_bool(const char *text, bool *out);
/* 1 to UINT32_MAX. */
int value_count(const char *text, unsigned *out);

#endif
