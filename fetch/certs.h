/* SPDX-License-Identifier: Apache-2.0
 *
 * The certificates of one registry: a directory with *.crt (roots beside the system's) and X.cert + X.key (a client
 * pair), as podman and docker lay them out.
 */
#ifndef FETCH_CERTS_H
#define FETCH_CERTS_H

#include "engine/base/log.h"

struct certs {
	struct bytes roots; /* PEM: the system's and the directory's; empty when the directory has none */
	char *cert;         /* client pair, paths, or NULL */
	char *key;
};

/* Reads dir; with dir NULL the first certs.d/<domain> directory there is, if any. `system_roots` is the file with
 * the system's, or NULL. CPULL_ERR_USAGE, and the codes of file_read(). */
MUST_CHECK int certs_load(const char *dir, const char *domain, const char *system_roots, struct log *log,
			  struct certs *out, struct cpull_error *err);
void certs_free(struct certs *certs);

#endif
