/* SPDX-License-Identifier: Apache-2.0
 *
 * The steps of an exchange that exchange.c and exchange_auth.c take in each other. On the fetch thread alone.
 */
#ifndef FETCH_EXCHANGE_STEPS_H
#define FETCH_EXCHANGE_STEPS_H

#include "fetch/exchange.h"

/* A failure that may pass. */
struct exchange_setback {
	struct cpull_error why;
	enum retry_patience patience;
	const char *retry_after; /* the answer's field, or "" */
	const char *asker;       /* URL of the host that asks for it */
};

/* exchange.c */
void exchange_attempt(struct exchange *exchange);
bool exchange_is_foreign(const struct exchange *exchange);
/* True when the host asked to be left alone, whoever it was that it told so: then again later, and not all at once. */
bool exchange_held_back(struct exchange *exchange, const char *url);
/* Starts over after a while, or gives up. */
void exchange_set_back(struct exchange *exchange, const struct exchange_setback *setback);
/* The end. exchange->err is the reason, or all zero. */
void exchange_finish(struct exchange *exchange);
void exchange_finish_with(struct exchange *exchange, int code, const char *why);
void exchange_fail(struct exchange *exchange, int code, int status, const char *why);

/* exchange_auth.c */
/* Makes exchange->authorization what the registry wants. False when a token must be waited for, or it has failed. */
bool exchange_authorize(struct exchange *exchange);
void exchange_drop_authorization(struct exchange *exchange);
void exchange_on_token(void *payload, const struct token_failure *failure);
bool exchange_offers_bearer(const struct transfer_reply *reply);
/* 401, or a 403 that asks for more scope. */
void exchange_answer_challenge(struct exchange *exchange, const struct transfer_reply *reply);
void exchange_refused(struct exchange *exchange, int status);

#endif
