/* SPDX-License-Identifier: Apache-2.0
 *
 * What an exchange does about a registry that wants to know who asks: it answers challenges, gets tokens, and says what
 * was refused. Called by exchange.c on the fetch thread; what it learns of the registry is kept in the endpoint.
 */
#include "fetch/exchange_steps.h"

#include <string.h>

#include "engine/base/error.h"
#include "fetch/error_body.h"

/* ---- refusals ---- */

void exchange_refused(struct exchange *x, int status)
{
	const struct endpoint *e = x->endpoint;
	char said[320], user[80], why[CPULL_MESSAGE_BYTES];

	error_body_text(&x->error_body, said, sizeof(said));
	if (exchange_is_foreign(x)) {
		snprintf(why, sizeof(why), "the server refused it (%d)%s; no credentials are ever sent there", status,
			 said);
	} else if (!credentials_known(&e->creds)) {
		snprintf(why, sizeof(why),
			 "the registry refused it (%d)%s; no credentials were used: give them with --creds or an auth "
			 "file, or check the name", status, said);
	} else {
		const char *name = e->creds.user ? e->creds.user : "an identity token";

		snprintf(why, sizeof(why), "the registry refused it (%d)%s; credentials of %s from %s were used",
			 status, said, error_quote(name, strlen(name), user, sizeof(user)), e->creds.origin);
	}
	exchange_fail(x, CPULL_ERR_AUTH, status, why);
}

/* ---- authentication ---- */

static struct token_key token_key_of(const struct exchange *x, char *own_scope, size_t room)
{
	const struct endpoint *e = x->endpoint;

	snprintf(own_scope, room, "repository:%s:pull", e->path);
	return (struct token_key){
		.domain = e->domain,
		.scope = {
			.realm = e->challenge.realm,
			.service = e->challenge.service,
			.scope = e->challenge.scope[0] ? e->challenge.scope : own_scope,
		},
		.creds = &e->creds,
	};
}

void exchange_on_token(void *payload, const struct token_failure *failure)
{
	struct exchange *x = payload;

	if (!failure) {
		x->token_own = x->own_next;
		x->own_next = false;
		exchange_attempt(x);
		return;
	}
	if (failure->retry) {
		struct exchange_setback s = {
			.patience = failure->retry,
			.retry_after = failure->retry_after,
			.asker = x->endpoint->challenge.realm,
		};

		error_set(&s.why, failure->code, "%s", failure->why);
		s.why.http_status = failure->status;
		exchange_set_back(x, &s);
		return;
	}
	if (failure->code == CPULL_ERR_AUTH && (failure->status == 401 || failure->status == 403)) {
		const struct credentials *creds = &x->endpoint->creds;
		char why[CPULL_MESSAGE_BYTES];

		if (credentials_known(creds))
			snprintf(why, sizeof(why), "%.512s, which are from %s", failure->why, creds->origin);
		else
			snprintf(why, sizeof(why), "%.512s; give them with --creds or an auth file", failure->why);
		exchange_fail(x, CPULL_ERR_AUTH, failure->status, why);
		return;
	}
	exchange_fail(x, failure->code, failure->status, failure->why);
}

void exchange_drop_authorization(struct exchange *x)
{
	string_wipe(STEAL(x->authorization));
	string_wipe(STEAL(x->token));
	x->sent = AUTH_NONE;
}

/* Makes x->authorization what the registry wants. False when a token must be waited for, or the exchange failed. */
bool exchange_authorize(struct exchange *x)
{
	struct endpoint *e = x->endpoint;
	char own_scope[LIMIT_REFERENCE_BYTES + 32];

	exchange_drop_authorization(x);
	if (exchange_is_foreign(x) || x->pinging || e->scheme == AUTH_NONE)
		return true;
	if (e->scheme == AUTH_BASIC) {
		x->authorization = basic_header(&e->creds);
	} else {
		struct token_key key = token_key_of(x, own_scope, sizeof(own_scope));
		const char *token = x->own_next ? NULL : token_cached(e->tokens, &key);

		if (!token && exchange_held_back(x, key.scope.realm))
			return false;
		if (!token) {
			struct token_transport transport = {
				.transfers = e->transfers,
				.tls = &e->tls,
				.plain_http = e->plain_http,
				.connect_timeout_ms = e->connect_timeout_ms,
				.stall_timeout_ms = e->stall_timeout_ms,
				.fetches = &e->fetches,
			};

			if (token_request(e->tokens, &transport, &key, x->own_next, &x->wait, &x->err))
				exchange_finish(x);
			return false;
		}
		x->token = strdup(token);
		x->authorization = x->token ? bearer_header(x->token) : NULL;
	}
	x->sent = e->scheme;
	if (!x->authorization)
		exchange_finish_with(x, CPULL_ERR_NOMEM, "out of memory");
	return x->authorization;
}

/* The best challenge that can be met: a token, else Basic. */
static enum auth_scheme choose_challenge(const struct exchange *x, const struct transfer_reply *reply,
					 struct challenge *out)
{
	enum auth_scheme best = AUTH_NONE;
	struct challenge one;

	for (size_t i = 0; i < reply->challenge_count; i++) {
		const char *at = reply->challenges[i];

		while (challenge_next(&at, &one)) {
			enum auth_scheme scheme = AUTH_NONE;

			if (!strcmp(one.scheme, "bearer") && realm_usable(one.realm, x->endpoint->plain_http))
				scheme = AUTH_BEARER;
			else if (!strcmp(one.scheme, "basic"))
				scheme = AUTH_BASIC;
			if (scheme > best) {
				best = scheme;
				*out = one;
			}
		}
	}
	return best;
}

bool exchange_offers_bearer(const struct transfer_reply *reply)
{
	struct challenge one;

	for (size_t i = 0; i < reply->challenge_count; i++) {
		const char *at = reply->challenges[i];

		while (challenge_next(&at, &one))
			if (!strcmp(one.scheme, "bearer"))
				return true;
	}
	return false;
}

/* 401, or a 403 that asks for more scope. */
void exchange_answer_challenge(struct exchange *x, const struct transfer_reply *reply)
{
	struct endpoint *e = x->endpoint;
	struct challenge challenge = {0};
	enum auth_scheme scheme = choose_challenge(x, reply, &challenge);
	bool widen = scheme == AUTH_BEARER && !strcmp(challenge.error, "insufficient_scope") && !x->scope_widened;

	if (x->token)
		token_cache_drop(e->tokens, x->token);
	if (scheme == AUTH_NONE && !reply->challenge_count && !x->pinged) {
		/* some registries challenge at the API's root alone */
		x->pinging = x->pinged = true;
		exchange_attempt(x);
		return;
	}
	if (scheme == AUTH_NONE && exchange_offers_bearer(reply)) {
		exchange_fail(x, CPULL_ERR_AUTH, reply->status,
		     "the registry names no usable token server (it must be an https URL, unless --plain-http is "
		     "given)");
		return;
	}
	if (scheme == AUTH_NONE || x->sent == AUTH_BASIC || ++x->auth_rounds > EXCHANGE_AUTH_ROUNDS ||
	    (x->token_own && !widen) || (scheme == AUTH_BASIC && x->sent == AUTH_NONE && !e->creds.user)) {
		exchange_refused(x, reply->status);
		return;
	}
	x->scope_widened = x->scope_widened || widen;
	x->token_own = false;
	if (scheme == AUTH_BASIC && x->sent == AUTH_BEARER) {
		/* a stale token can make a registry offer what it never takes: ask again as a stranger */
		e->scheme = AUTH_NONE;
		exchange_attempt(x);
		return;
	}
	x->own_next = x->sent == AUTH_BEARER;
	e->scheme = scheme;
	e->challenge = challenge;
	exchange_attempt(x);
}
