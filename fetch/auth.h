/* SPDX-License-Identifier: Apache-2.0
 *
 * How a registry asks for authentication and what it is answered: challenges (RFC 9110, 11.6.1), Basic, and the
 * token requests and replies of the distribution project's token specification. Pure: text in, text out.
 * Results that hold a secret say so, and are to be freed with string_wipe().
 */
#ifndef FETCH_AUTH_H
#define FETCH_AUTH_H

#include "fetch/authfile.h"

#define AUTH_TOKEN_LIFETIME_MIN_S 60u
#define AUTH_TOKEN_LIFETIME_MAX_S 86400u

enum auth_scheme { AUTH_NONE, AUTH_BASIC, AUTH_BEARER };

/* One challenge; members are "" when absent or too long to be meant. */
struct challenge {
	char scheme[32]; /* lower case */
	char realm[1024];
	char service[512];
	char scope[2048];
	char error[64];
};

/* Reads the challenge at *at (inside one WWW-Authenticate field) and moves on; false at the end. What cannot be
 * read ends the field, as other clients do it. */
bool challenge_next(const char **at, struct challenge *out);

/* A realm that tokens may be asked from: https, or with plain_http also http; no user name, no blanks. */
bool realm_usable(const char *realm, bool plain_http);

/* "Basic …"; secret. NULL without memory. */
char *basic_header(const struct credentials *creds);
/* "Bearer …"; secret. */
char *bearer_header(const char *token);

/* What a token is for. */
struct token_scope {
	const char *realm;
	const char *service; /* may be "" */
	const char *scope;   /* blank-separated list, not empty */
};

/* The URL of the GET request; holds the user name, nothing secret. */
char *token_url(const struct token_scope *want, const struct credentials *creds);
/* The form of the POST request for an identity token; secret. */
char *token_form(const struct token_scope *want, const struct credentials *creds);

/* Reads the reply into *token (secret) and its lifetime. CPULL_ERR_AUTH. */
MUST_CHECK int token_reply_parse(const char *text, size_t len, char **token, uint32_t *lifetime_s,
				 struct cpull_error *err);

#endif
