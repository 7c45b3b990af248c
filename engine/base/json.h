/* SPDX-License-Identifier: Apache-2.0
 *
 * Strict reading of JSON documents with jansson: duplicate keys, trailing bytes, NUL in strings and
 * nesting beyond LIMIT_JSON_DEPTH are refused, since two parsers that read one document differently are an
 * attack (CVE-2014-8179).
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>

#include "engine/base/util.h"

static inline void cleanup_json(json_t **j)
{
	json_decref(*j);
}
#define CLEANUP_JSON __attribute__((cleanup(cleanup_json)))

/* Parses exactly len bytes as one object or array. On failure err gets `code` and a message that begins
 * with `what`; when memory is out CPULL_ERR_NOMEM. */
MUST_CHECK int json_parse(const char *text, size_t len, int code, const char *what, json_t **out,
			  struct cpull_error *err);
/* String member, or NULL when absent, null or not a string. Borrowed. */
const char *json_string_at(const json_t *object, const char *key);
/* Non-negative integer member into *out; false when absent, not an integer, negative or above 2^53. */
bool json_u64_at(const json_t *object, const char *key, uint64_t *out);

#endif
