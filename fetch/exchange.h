/* SPDX-License-Identifier: Apache-2.0
 *
 * One document or blob from a registry, however many requests that takes: authentication, retries, resumption by
 * Range, other places. An exchange runs on the fetch thread; other threads start it, wait for it and close it.
 */
#ifndef FETCH_EXCHANGE_H
#define FETCH_EXCHANGE_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/base/queue.h"
#include "fetch/certs.h"
#include "fetch/token.h"

/* 401s in a row that are answered with something new before giving up. */
#define EXCHANGE_AUTH_ROUNDS 4u
#define EXCHANGE_URLS_MAX 8u

/* What the exchanges of one registry share. Up to `cancel` constant once the first exchange has been started; what
 * follows belongs to the fetch thread. */
struct endpoint {
	struct transfers *transfers;
	struct token_cache *tokens;
	struct log *log;
	char *domain; /* as the reference has it */
	char *path;
	char *base;   /* "https://host[:port]" of the API */
	bool plain_http;
	struct transfer_tls tls;
	struct transfer_tls foreign_tls; /* for an image's own URLs: no client pair */
	struct credentials creds;
	uint64_t deadline_ms;
	uint32_t connect_timeout_ms;
	uint32_t stall_timeout_ms;
	uint32_t retries;
	atomic_bool cancelled;
	struct loop_task cancel;

	struct exchange *exchanges;
	enum auth_scheme scheme; /* what the registry wanted the last time */
	struct challenge challenge;
	struct token_fetch *fetches;
};

struct exchange {
	struct endpoint *endpoint;
	struct exchange *next;

	/* what is wanted; set before the start */
	char *what;         /* "manifest 12" or "blob sha256:…", for messages */
	char *url;          /* at the registry */
	char *urls[EXCHANGE_URLS_MAX]; /* other places, tried in order when the registry has it not */
	size_t url_count;
	const char *accept;
	bool sized;
	uint64_t size;      /* exact size with `sized` */
	size_t max;         /* of `body` */
	struct pool_share *share; /* bytes go into `queue` in its chunks; NULL: into `body` */

	/* the fetch thread's */
	struct loop_task start, resume, close;
	struct loop_timer deadline, again;
	struct transfer *transfer;
	struct token_wait wait;
	const char *place;  /* the URL in use */
	size_t place_next;
	char *authorization;
	enum auth_scheme sent;
	char *token;        /* the one sent */
	bool token_own;     /* fetched for us after another was refused */
	bool own_next;
	bool scope_widened;
	bool pinging, pinged;
	unsigned auth_rounds;
	unsigned failures;  /* attempts in a row that brought nothing */
	bool unranged;      /* Range cannot be trusted here */
	bool ranged;        /* this attempt asked for one */
	bool accepted;      /* this attempt's answer is the content */
	uint64_t skip;      /* bytes of this attempt that are there already */
	uint64_t attempt_bytes;
	struct cpull_error refusal; /* why body() stopped */
	bool refusal_retry;
	struct chunk *chunk; /* being filled */
	struct bytes error_body;
	bool finished;
	uint32_t random;

	/* results */
	struct bytes body;
	char content_type[128];
	char content_digest[136];
	struct queue queue;
	atomic_uint_fast64_t got;
	struct cpull_error err; /* after `done`, or after the queue was closed */
	pthread_mutex_t lock;   /* done, closed */
	pthread_cond_t cond;
	bool done;
	bool closed;
};

/* Takes over both strings, which may be NULL for want of memory. */
MUST_CHECK int exchange_new(struct endpoint *endpoint, char *what, char *url, struct exchange **out,
			    struct cpull_error *err);
void exchange_start(struct exchange *exchange);
/* Until it is over; the code. */
MUST_CHECK int exchange_wait(struct exchange *exchange, struct cpull_error *err);
/* Ends it if need be and frees it; when this returns the fetch thread has let go of it. */
void exchange_close(struct exchange *exchange);

/* The endpoint's `cancel` task: ends every exchange. */
void endpoint_cancel(void *payload);

#endif
