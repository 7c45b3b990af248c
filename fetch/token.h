/* SPDX-License-Identifier: Apache-2.0
 *
 * Bearer tokens: a cache that a fetcher keeps, and the requests that fill it. On the fetch thread alone, but for
 * making and freeing the cache.
 */
#ifndef FETCH_TOKEN_H
#define FETCH_TOKEN_H

#include "fetch/auth.h"
#include "fetch/transfer.h"

/* Renewed so long before it expires. */
#define TOKEN_MARGIN_MS 5000u
/* More than an image needs; the oldest goes. */
#define TOKEN_CACHE_ENTRIES 64u

struct token_cache;
struct token_fetch;

struct token_cache *token_cache_new(void);
void token_cache_free(struct token_cache *cache);
/* A token that was refused is not handed out again. */
void token_cache_drop(struct token_cache *cache, const char *token);

/* Who may use a token: the registry and the credentials are part of it, so that no registry gets at the token
 * of another by naming its realm. All borrowed. */
struct token_key {
	const char *domain;
	struct token_scope scope;
	const struct credentials *creds;
};

/* Why there is no token. */
struct token_failure {
	int code; /* CPULL_ERR_* */
	int status;
	enum retry_patience retry;
	char retry_after[64];
	char why[CPULL_MESSAGE_BYTES];
};

/* Somebody who waits for a token; embedded in an exchange. */
struct token_wait {
	void (*ready)(void *payload, const struct token_failure *failure); /* NULL: it is in the cache now */
	void *payload;
	struct token_fetch *fetch; /* set while it waits */
	struct token_wait *next;
};

/* How to ask; borrowed until the last waiter is gone. The list is that of one registry, whose exchanges share a
 * fetch that is under way. */
struct token_transport {
	struct transfers *transfers;
	const struct transfer_tls *tls;
	bool plain_http;
	uint32_t connect_timeout_ms;
	uint32_t stall_timeout_ms;
	struct token_fetch **fetches;
};

/* The cached token, or NULL. Borrowed until the next call to this module. */
const char *token_cached(struct token_cache *cache, const struct token_key *key);
/* Asks for one; ready() is called later, never from in here. `own`: do not join a fetch that is under way. */
MUST_CHECK int token_request(struct token_cache *cache, const struct token_transport *transport,
			     const struct token_key *key, bool own, struct token_wait *wait,
			     struct cpull_error *err);
/* No call after this. The last waiter's leaving ends the fetch. */
void token_leave(struct token_wait *wait);

#endif
