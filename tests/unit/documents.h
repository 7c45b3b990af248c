/* SPDX-License-Identifier: Apache-2.0
 *
 * JSON documents for the tests of fetch/: good ones with one piece changed, and ones of a given length. Include behind
 * cmocka.h.
 */
#ifndef TESTS_UNIT_DOCUMENTS_H
#define TESTS_UNIT_DOCUMENTS_H

#include <string.h>

#include "engine/base/util.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HEX32 "0123456789abcdef0123456789abcdef"
#define DIGEST_A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define DIGEST_B "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define DIGEST_C "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define DIGEST_D "sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"

/* One piece of a good document replaced, and what parsing it must then give. */
struct change {
	const char *from;
	const char *to;
	int code;
};

/* `text` with the first `from` replaced by `to`; fails when there is none. */
static inline char *replaced(const char *text, const char *from, const char *to)
{
	const char *at = strstr(text, from);

	assert_non_null(at);
	char *out = format_string("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));

	assert_non_null(out);
	return out;
}

/* `head`, `count` times `item` with commas between, `tail`. */
static inline char *repeated(const char *head, const char *item, size_t count, const char *tail)
{
	struct bytes out = {0};

	assert_int_equal(bytes_append(&out, head, strlen(head), SIZE_MAX), 0);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(bytes_append(&out, ",", i != 0, SIZE_MAX), 0);
		assert_int_equal(bytes_append(&out, item, strlen(item), SIZE_MAX), 0);
	}
	assert_int_equal(bytes_append(&out, tail, strlen(tail), SIZE_MAX), 0);
	return out.data;
}

static inline void assert_message(const struct cpull_error *err, int code)
{
	assert_int_equal(err->code, code);
	assert_true(strlen(err->message) > 15);
	assert_true(strlen(err->message) < sizeof(err->message) - 1);
	for (const char *c = err->message; *c; c++)
		assert_true((unsigned char)*c >= ' ' && *c != 0x7f);
}

#endif
