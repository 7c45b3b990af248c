/* SPDX-License-Identifier: Apache-2.0
 *
 * One document, or one range of a blob, from a registry, however many requests that takes: authentication, retries,
 * resumption by Range, other places. An exchange runs on the fetch thread. One with a sink belongs to its owner there;
 * for one without, other threads start it, wait for it and close it.
 */
#ifndef FETCH_EXCHANGE_H
#define FETCH_EXCHANGE_H

#include <pthread.h>
#include <stdatomic.h>

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
	unsigned connections;   /* at most so many for one blob */
	uint64_t ranges_bytes;  /* a blob of which less is left is not split */
	uint32_t pace_ms;       /* how often a stream looks at its rate */
	atomic_bool cancelled;
	struct loop_task cancel;

	struct exchange *exchanges;
	enum auth_scheme scheme; /* what the registry wanted the last time */
	struct challenge challenge;
	struct token_fetch *fetches;
	bool no_ranges; /* it was found not to serve them */
};

/* What is wanted and where it is. Exchanges that fetch parts of one blob share it; constant while there is any. */
struct exchange_goal {
	char *what;                    /* "manifest 12" or "blob sha256:…", for messages */
	char *url;                     /* at the registry */
	char *urls[EXCHANGE_URLS_MAX]; /* other places, tried in order when the registry has it not */
	size_t url_count;
	const char *accept;
	bool sized;
	uint64_t size; /* exact size with `sized` */
	size_t max;    /* of `body` */
};

/* Who takes the bytes of a range, on the fetch thread. None of these may drop the exchange. */
struct exchange_sink {
	/* Bytes from where the last call ended. As `body` of a transfer_request; exchange_resume() ends a pause. */
	enum transfer_verdict (*take)(void *payload, const uint8_t *data, size_t len, size_t *taken);
	/* An attempt failed in a way that may pass, and brought nothing: is it worth another one? */
	bool (*wants_retry)(void *payload);
	/* It is over; exchange->err tells how. */
	void (*ended)(void *payload);
	void *payload;
};

struct exchange {
	struct endpoint *endpoint;
	struct exchange *next;

	/* set before the start */
	const struct exchange_goal *goal;
	uint64_t first;            /* of a sized goal: the bytes [first, end) */
	uint64_t end;
	struct exchange_sink sink; /* without `take` bytes go into `body` */
	bool ranges_only;          /* an answer that begins before what is wanted is not skipped into, but a failure */

	/* the fetch thread's */
	struct loop_task start, close;
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
	struct bytes error_body;
	uint64_t got;       /* content bytes of all attempts */
	bool finished;
	uint32_t random;

	/* results */
	struct bytes body;
	char content_type[128];
	char content_digest[136];
	struct cpull_error err; /* once `finished`, for other threads `done` */
	pthread_mutex_t lock;   /* done, closed */
	pthread_cond_t cond;
	bool done;
	bool closed;
};

/* Frees what the goal owns. */
void exchange_goal_free(struct exchange_goal *goal);

/* Of the whole goal, which is borrowed. */
MUST_CHECK int exchange_new(struct endpoint *endpoint, const struct exchange_goal *goal, struct exchange **out,
			    struct cpull_error *err);

/* ---- without a sink, from any thread ---- */

void exchange_start(struct exchange *exchange);
/* Until it is over; the code. */
MUST_CHECK int exchange_wait(struct exchange *exchange, struct cpull_error *err);
/* Ends it if need be and frees it; when this returns the fetch thread has let go of it. */
void exchange_close(struct exchange *exchange);

/* ---- with a sink, on the fetch thread ---- */

/* May call the sink. */
void exchange_begin(struct exchange *exchange);
/* Goes on after the sink made it pause. May call the sink. */
void exchange_resume(struct exchange *exchange);
/* Ends it if need be, without ended(), and frees it. Not from within a call of its sink. NULL is fine. */
void exchange_drop(struct exchange *exchange);

/* The endpoint's `cancel` task: ends every exchange. */
void endpoint_cancel(void *payload);

#endif
