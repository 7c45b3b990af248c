/* SPDX-License-Identifier: Apache-2.0
 *
 * Credentials for one repository: from the caller, or from the auth.json and config.json files of podman and docker.
 */
#ifndef FETCH_AUTHFILE_H
#define FETCH_AUTHFILE_H

#include "engine/base/util.h"

/* Owned strings; all NULL when there are none. */
struct credentials {
	char *user;
	char *password;       /* NULL only without a user */
	char *identity_token; /* an OAuth2 refresh token, or NULL */
	char *origin;         /* "--creds", or the file, for messages */
};

void credentials_free(struct credentials *creds);
static inline bool credentials_known(const struct credentials *creds)
{
	return creds->user || creds->identity_token;
}

/* "USER[:PASS]" as the caller gives it. CPULL_ERR_USAGE. */
MUST_CHECK int credentials_from_text(const char *text, struct credentials *out, struct cpull_error *err);

/* Looks up domain/path in the text of one file. `legacy` is the form of ~/.dockercfg. Leaves *out empty when the
 * file says nothing. A file that cannot be understood, or that leaves the answer to a helper program, is
 * CPULL_ERR_AUTH: never a silent pull without credentials. */
MUST_CHECK int authfile_lookup(const char *text, size_t len, bool legacy, const char *domain, const char *path,
			       struct credentials *out, struct cpull_error *err);

/* The same over the caller's file, or when that is NULL over the usual places, in order. */
MUST_CHECK int authfile_find(const char *authfile, const char *domain, const char *path, struct credentials *out,
			     struct cpull_error *err);

#endif
