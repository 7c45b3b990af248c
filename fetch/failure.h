/* SPDX-License-Identifier: Apache-2.0
 *
 * What it means that libcurl gave up: the kind of error, whether another try may help, and words that lead to the cure.
 */
#ifndef FETCH_FAILURE_H
#define FETCH_FAILURE_H

#include <curl/curl.h>

#include "engine/base/util.h"
#include "fetch/retry.h"

/* The facts about a transfer that ended with `rc`, which is not CURLE_OK. */
struct failure {
	CURLcode rc;
	const char *text;  /* libcurl's */
	int os_errno;      /* why the last connection failed, or 0 */
	int socket_errno;  /* of the last socket that could not be made */
	long proxy_status; /* answer to CONNECT, or 0 */
	bool connected;    /* a request went out */
	bool https;        /* over TLS */
	bool answered;     /* somebody had a connection to this host not long ago */
};

/* A CPULL_ERR_*; one printable line into `why`. Asks the system whether there are descriptors left. */
int failure_describe(const struct failure *failure, enum retry_patience *patience, char *why, size_t room);
/* Whatever was said from outside, made printable, and the hint as it is. */
void failure_text(const char *text, const char *hint, char *why, size_t room);
/* Why no descriptors can be had, or NULL when they can. */
const char *failure_no_descriptors(void);

#endif
