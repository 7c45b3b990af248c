/* SPDX-License-Identifier: Apache-2.0
 *
 * The token cache and token requests. exchange.c calls it on the fetch thread. The cache belongs to the fetcher; a
 * fetch under way belongs to its waiters, and ends with the last of them.
 */
#include "fetch/token.h"

#include <string.h>

#include "engine/base/error.h"

struct token {
	char *key; /* token_key as one text; holds the password, and is wiped */
	char *text;
	uint64_t renew_ms;
	struct token *next; /* newest first */
};

struct token_cache {
	struct token *tokens;
};

struct token_fetch {
	struct token_cache *cache;
	struct token_fetch **list;
	struct token_fetch *next;
	struct token_transport transport;
	char *key;
	char *get_url; /* when the realm takes no POST but there is a password to fall back to, else NULL */
	char *authorization;
	struct transfer *transfer;
	struct bytes body;
	bool too_long;
	bool used_secret;
	struct token_wait *waits;
};

static char *key_text(const struct token_key *key)
{
	const struct credentials *c = key->creds;

	return format_string("%s\n%s\n%s\n%s\n%s\n%s\n%s", key->domain, key->scope.realm, key->scope.service,
			     key->scope.scope, c->user ? c->user : "", c->password ? c->password : "",
			     c->identity_token ? c->identity_token : "");
}

/* ---- the cache ---- */

static void token_free(struct token *token)
{
	string_wipe(token->key);
	string_wipe(token->text);
	free(token);
}

struct token_cache *token_cache_new(void)
{
	return calloc(1, sizeof(struct token_cache));
}

void token_cache_free(struct token_cache *cache)
{
	while (cache && cache->tokens) {
		struct token *token = cache->tokens;

		cache->tokens = token->next;
		token_free(token);
	}
	free(cache);
}

void token_cache_drop(struct token_cache *cache, const char *text)
{
	struct token **at = &cache->tokens;

	while (*at) {
		struct token *token = *at;

		if (!strcmp(token->text, text)) {
			*at = token->next;
			token_free(token);
		} else {
			at = &token->next;
		}
	}
}

/* Takes over both strings. One token a key. */
static bool cache_put(struct token_cache *cache, char *key, char *text, uint32_t lifetime_s)
{
	struct token *token = malloc(sizeof(*token)), **at = &cache->tokens;
	unsigned count = 1;

	if (!token) {
		string_wipe(key);
		string_wipe(text);
		return false;
	}
	while (*at) {
		struct token *old = *at;

		if (!strcmp(old->key, key) || ++count > TOKEN_CACHE_ENTRIES) {
			*at = old->next;
			token_free(old);
		} else {
			at = &old->next;
		}
	}
	*token = (struct token){
		.key = key,
		.text = text,
		.renew_ms = now_ms() + lifetime_s * 1000ull - TOKEN_MARGIN_MS,
		.next = cache->tokens,
	};
	cache->tokens = token;
	return true;
}

const char *token_cached(struct token_cache *cache, const struct token_key *key)
{
	char *text = key_text(key);
	const char *found = NULL;
	uint64_t now = now_ms();

	for (struct token *t = cache->tokens; text && t && !found; t = t->next)
		if (t->renew_ms > now && !strcmp(t->key, text))
			found = t->text;
	string_wipe(text);
	return found;
}

/* ---- requests ---- */

static void wipe_body(struct token_fetch *fetch)
{
	if (fetch->body.data)
		explicit_bzero(fetch->body.data, fetch->body.cap);
	bytes_free(&fetch->body);
}

static void fetch_free(struct token_fetch *fetch)
{
	struct token_fetch **at = fetch->list;

	while (*at && *at != fetch)
		at = &(*at)->next;
	if (*at)
		*at = fetch->next;
	transfer_stop(fetch->transfer);
	wipe_body(fetch);
	string_wipe(fetch->key);
	string_wipe(fetch->authorization);
	free(fetch->get_url);
	free(fetch);
}

void token_leave(struct token_wait *wait)
{
	struct token_fetch *fetch = wait->fetch;

	if (!fetch)
		return;

	struct token_wait **at = &fetch->waits;

	while (*at != wait)
		at = &(*at)->next;
	*at = wait->next;
	wait->fetch = NULL;
	if (!fetch->waits)
		fetch_free(fetch);
}

/* Ends the fetch and tells everybody; a waiter may be freed or wait anew in its call. */
static void fetch_end(struct token_fetch *fetch, const struct token_failure *failure)
{
	struct token_wait *waits = fetch->waits;

	for (struct token_wait *w = waits; w; w = w->next)
		w->fetch = NULL;
	fetch->waits = NULL;
	fetch_free(fetch);
	while (waits) {
		struct token_wait *w = waits;

		waits = w->next;
		w->ready(w->payload, failure);
	}
}

static enum transfer_verdict on_body(void *payload, const struct transfer_reply *reply, const uint8_t *data,
				     size_t len, size_t *taken)
{
	struct token_fetch *fetch = payload;

	(void)reply;
	(void)taken;
	/* room for the largest at once: a buffer that grows leaves copies of the token behind */
	if (!fetch->body.data) {
		fetch->body.data = malloc(LIMIT_TOKEN_BYTES + 1);
		fetch->body.cap = fetch->body.data ? LIMIT_TOKEN_BYTES + 1 : 0;
	}
	if (!fetch->body.data || bytes_append(&fetch->body, data, len, LIMIT_TOKEN_BYTES)) {
		fetch->too_long = true;
		return TRANSFER_STOP;
	}
	return TRANSFER_GO_ON;
}

static int fetch_send(struct token_fetch *fetch, const char *url, const char *form, struct cpull_error *err);

/* The path of a failed request: everything but a token in the reply. */
static void describe_failure(const struct token_fetch *fetch, const struct transfer_reply *reply,
			     struct token_failure *out)
{
	*out = (struct token_failure){.code = CPULL_ERR_AUTH, .status = reply->status};
	if (fetch->too_long) {
		out->code = CPULL_ERR_LIMIT;
		snprintf(out->why, sizeof(out->why), "the token reply is longer than %u bytes", LIMIT_TOKEN_BYTES);
	} else if (reply->code) {
		out->code = reply->code;
		out->retry = reply->retry;
		snprintf(out->why, sizeof(out->why), "asking for a token: %s", reply->why);
	} else if (reply->status == 429 || reply->status >= 500) {
		out->code = CPULL_ERR_REGISTRY;
		out->retry = RETRY_LONG;
		memcpy(out->retry_after, reply->retry_after, sizeof(out->retry_after));
		snprintf(out->why, sizeof(out->why), "the token server answered %d", reply->status);
	} else if (reply->status == 401 || reply->status == 403) {
		snprintf(out->why, sizeof(out->why), "the token server refused %s (%d)",
			 fetch->used_secret ? "the credentials" : "a request without credentials", reply->status);
	} else {
		snprintf(out->why, sizeof(out->why), "the token server answered %d", reply->status);
	}
}

/* False when it is no token. */
static bool take_token(struct token_fetch *fetch, struct token_failure *failure)
{
	struct cpull_error err = {0};
	uint32_t lifetime_s = 0;
	char *token = NULL;
	int rc =
	    token_reply_parse(fetch->body.data ? fetch->body.data : "", fetch->body.len, &token, &lifetime_s, &err);

	if (!rc && cache_put(fetch->cache, STEAL(fetch->key), token, lifetime_s))
		return true;
	*failure = (struct token_failure){.code = rc ? rc : CPULL_ERR_NOMEM};
	snprintf(failure->why, sizeof(failure->why), "%s", rc ? err.message : "out of memory");
	return false;
}

static void on_done(void *payload, const struct transfer_reply *reply)
{
	struct token_fetch *fetch = payload;
	struct token_failure failure = {0};
	bool answered = !reply->code && !fetch->too_long;

	fetch->transfer = NULL;
	if (answered && (reply->status == 404 || reply->status == 405) && fetch->get_url) {
		/* no POST here: the older GET with the password, as docker does it */
		CLEANUP_FREE char *url = STEAL(fetch->get_url);

		wipe_body(fetch);
		if (fetch_send(fetch, url, NULL, NULL) == 0)
			return;
	}
	if (answered && reply->status == 200) {
		fetch_end(fetch, take_token(fetch, &failure) ? NULL : &failure);
		return;
	}
	describe_failure(fetch, reply, &failure);
	fetch_end(fetch, &failure);
}

static int fetch_send(struct token_fetch *fetch, const char *url, const char *form, struct cpull_error *err)
{
	struct transfer_request request = {
		.url = url,
		.authorization = form ? NULL : fetch->authorization,
		.form = form,
		.buffer_bytes = TRANSFER_SMALL_BUFFER_BYTES,
		.allow_http = fetch->transport.plain_http,
		.tls = fetch->transport.tls,
		.connect_timeout_ms = fetch->transport.connect_timeout_ms,
		.stall_timeout_ms = fetch->transport.stall_timeout_ms,
		.body = on_body,
		.done = on_done,
		.payload = fetch,
	};

	return transfer_start(fetch->transport.transfers, &request, &fetch->transfer, err);
}

static int fetch_start(struct token_fetch *fetch, const struct token_key *key, struct cpull_error *err)
{
	const struct credentials *creds = key->creds;
	bool password = creds->user && *creds->user && creds->password && *creds->password;
	CLEANUP_FREE char *url = token_url(&key->scope, creds);

	if (!url)
		return error_nomem(err);
	if (password && !(fetch->authorization = basic_header(creds)))
		return error_nomem(err);
	fetch->used_secret = password || creds->identity_token;
	if (!creds->identity_token)
		return fetch_send(fetch, url, NULL, err);

	char *form = token_form(&key->scope, creds);

	if (!form)
		return error_nomem(err);

	int rc = fetch_send(fetch, key->scope.realm, form, err);

	string_wipe(form);
	if (password)
		fetch->get_url = STEAL(url);
	return rc;
}

static struct token_fetch *fetch_under_way(struct token_fetch *list, const char *key)
{
	while (list && (!list->key || strcmp(list->key, key) != 0))
		list = list->next;
	return list;
}

static void wait_for(struct token_fetch *fetch, struct token_wait *wait)
{
	wait->fetch = fetch;
	wait->next = fetch->waits;
	fetch->waits = wait;
}

int token_request(struct token_cache *cache, const struct token_transport *transport, const struct token_key *key,
		  bool own, struct token_wait *wait, struct cpull_error *err)
{
	char *text = key_text(key);

	if (!text)
		return error_nomem(err);

	struct token_fetch *fetch = own ? NULL : fetch_under_way(*transport->fetches, text);

	if (fetch) {
		string_wipe(text);
		wait_for(fetch, wait);
		return 0;
	}
	fetch = calloc(1, sizeof(*fetch));
	if (!fetch) {
		string_wipe(text);
		return error_nomem(err);
	}
	fetch->cache = cache;
	fetch->transport = *transport;
	fetch->list = transport->fetches;
	fetch->key = text;
	fetch->next = *fetch->list;
	*fetch->list = fetch;

	int rc = fetch_start(fetch, key, err);

	if (rc) {
		fetch_free(fetch);
		return rc;
	}
	wait_for(fetch, wait);
	return 0;
}
