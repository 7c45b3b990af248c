/* SPDX-License-Identifier: Apache-2.0
 *
 * Image names: "host[:port]/repo[:tag][@digest]" with the Docker Hub defaults, and "oci:DIR[:REF]". Grammar of
 * distribution/reference. Pure.
 */
#ifndef FETCH_REFERENCE_H
#define FETCH_REFERENCE_H

#include "engine/base/util.h"

enum reference_transport { REFERENCE_REGISTRY, REFERENCE_LAYOUT };

struct reference {
	enum reference_transport transport;
	char *domain; /* registry: "host[:port]", "docker.io" for short names; layout: NULL */
	char *path;   /* registry: repository without host; layout: the directory */
	char *tag;    /* registry: "latest" when neither tag nor digest was given; layout: the REF or NULL */
	char *digest; /* "sha256:…" or NULL; it decides where both are there */
	char *name;   /* canonical text: "docker.io/library/debian:12", "oci:/abs/dir:ref" */
};

/* Parses text; on failure CPULL_ERR_USAGE with a message that says what is wrong with it. *out is zeroed first
 * and owned by the caller. A layout's DIR is made absolute (realpath where it exists). */
MUST_CHECK int reference_parse(const char *text, struct reference *out, struct cpull_error *err);
void reference_free(struct reference *reference);

/* True when text is "sha256:<64>", "sha384:<96>" or "sha512:<128>", lower-case hex, exactly. */
bool reference_digest_valid(const char *text);

#endif
