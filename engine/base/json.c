/* SPDX-License-Identifier: Apache-2.0
 *
 * Strict JSON reading. jansson has duplicate keys and trailing bytes covered by flags; its nesting limit (2048) is
 * fixed at its build and deep enough to matter for a small stack, so the depth is checked before it sees the text.
 */
#include "engine/base/json.h"

#include <string.h>

#include "engine/base/error.h"
#include "engine/base/limits.h"

#define JSON_INTEGER_MAX (1ll << 53)

/* Brackets outside of strings; whether they match is jansson's business. */
static bool too_deep(const char *text, size_t len)
{
	unsigned depth = 0;
	bool quoted = false;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		if (quoted) {
			if (c == '\\')
				i++;
			else if (c == '"')
				quoted = false;
		} else if (c == '"') {
			quoted = true;
		} else if (c == '{' || c == '[') {
			if (++depth > LIMIT_JSON_DEPTH)
				return true;
		} else if ((c == '}' || c == ']') && depth) {
			depth--;
		}
	}
	return false;
}

int json_parse(const char *text, size_t len, int code, const char *what, json_t **out, struct cpull_error *err)
{
	json_error_t why;

	if (too_deep(text, len))
		return error_set(err, code, "%s: JSON nested more than %u deep", what, LIMIT_JSON_DEPTH);

	*out = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	if (!*out)
		/* jansson takes a lack of memory for an invalid token: the same fault again, with memory to be had, is
		 * one */
		*out = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	if (*out)
		return 0;
	if (!memory_is_there(2 * len + 4096))
		return error_nomem(err);

	char quoted[JSON_ERROR_TEXT_LENGTH * 4 + 1];

	error_quote(why.text, strnlen(why.text, sizeof(why.text)), quoted, sizeof(quoted));
	return error_set(err, code, "%s: not valid JSON at byte %d: %s", what, why.position, quoted);
}

const char *json_string_at(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

bool json_u64_at(const json_t *object, const char *key, uint64_t *out)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > JSON_INTEGER_MAX)
		return false;
	*out = (uint64_t)json_integer_value(value);
	return true;
}
