/* SPDX-License-Identifier: Apache-2.0
 *
 * What a registry, a token server or an auth file can make fetch/auth, fetch/authfile and fetch/retry read. The
 * first byte chooses the parser.
 */
#include <assert.h>
#include <string.h>

#include "fetch/auth.h"
#include "fetch/retry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void challenges(const char *text)
{
	const char *at = text, *before = at;
	struct challenge challenge;

	while (challenge_next(&at, &challenge)) {
		assert(at > before && at <= text + strlen(text));
		assert(challenge.scheme[0]);
		before = at;
		if (realm_usable(challenge.realm, true))
			assert(!strpbrk(challenge.realm, "\r\n \t#"));
	}
}

static void auth_file(const char *text, size_t len, bool legacy)
{
	struct credentials creds = {0};
	int rc = authfile_lookup(text, len, legacy, "h.example", "ns/repo", &creds, NULL);

	assert(!rc || !credentials_known(&creds));
	assert(!creds.user == !creds.password);
	credentials_free(&creds);
}

static void token_reply(const char *text, size_t len)
{
	char *token = NULL;
	uint32_t lifetime_s = 0;

	if (token_reply_parse(text, len, &token, &lifetime_s, NULL) == 0) {
		assert(token && *token && !strpbrk(token, "\r\n "));
		assert(lifetime_s >= AUTH_TOKEN_LIFETIME_MIN_S && lifetime_s <= AUTH_TOKEN_LIFETIME_MAX_S);
	}
	string_wipe(token);
}

static void fields(const char *text)
{
	struct content_range range;
	uint32_t delay_ms;

	if (retry_after_parse(text, 1700000000, &delay_ms))
		assert(delay_ms <= RETRY_DELAY_MAX_MS);
	if (content_range_parse(text, &range))
		assert(range.first <= range.last && (!range.total_known || range.last < range.total));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;

	size_t len = size - 1;
	char *text = malloc(len + 1);

	if (!text)
		return 0;
	memcpy(text, data + 1, len);
	text[len] = 0;
	switch (data[0]) {
	case 'c':
		challenges(text);
		break;
	case 'a':
		auth_file(text, len, false);
		break;
	case 'l':
		auth_file(text, len, true);
		break;
	case 't':
		token_reply(text, len);
		break;
	default:
		fields(text);
	}
	free(text);
	return 0;
}
