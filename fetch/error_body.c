/* SPDX-License-Identifier: Apache-2.0
 *
 * Bodies of error answers (distribution-spec, "Error Codes"). Called by exchange.c on the fetch thread; pure.
 */
#include "fetch/error_body.h"

#include <string.h>

#include "engine/base/error.h"
#include "engine/base/json.h"

void error_body_text(const struct bytes *body, char *out, size_t room)
{
	CLEANUP_JSON json_t *root = NULL;
	char quoted[300];

	*out = 0;
	if (!body->len || memchr(body->data, '<', MIN(body->len, (size_t)16)))
		return;
	if (json_parse(body->data, body->len, CPULL_ERR_REGISTRY, "", &root, NULL)) {
		error_quote(body->data, strcspn(body->data, "\r\n"), quoted, 160);
		if (*quoted && *quoted != '{')
			snprintf(out, room, ": %s", quoted);
		return;
	}

	const json_t *first = json_array_get(json_object_get(root, "errors"), 0);
	const char *message = json_string_at(first, "message"), *code = json_string_at(first, "code");

	if (!message || !*message)
		message = code;
	if (message && *message)
		snprintf(out, room, ": %s", error_quote(message, strlen(message), quoted, sizeof(quoted)));
}
