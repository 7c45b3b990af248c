/* SPDX-License-Identifier: Apache-2.0
 *
 * What manifest.c, index.c and config.c share: media types and the checks of a descriptor. Private to fetch/. Pure.
 */
#ifndef FETCH_DOCUMENT_H
#define FETCH_DOCUMENT_H

#include "fetch/manifest.h"

#define MEDIA_OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define MEDIA_OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define MEDIA_OCI_CONFIG "application/vnd.oci.image.config.v1+json"
#define MEDIA_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define MEDIA_DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"
#define MEDIA_DOCKER_CONFIG "application/vnd.docker.container.image.v1+json"

enum media_kind {
	MEDIA_OTHER,
	MEDIA_GENERIC, /* says nothing about the content, as "application/json" */
	MEDIA_SCHEMA1,
	MEDIA_MANIFEST,
	MEDIA_INDEX,
	MEDIA_CONFIG,
};

/* Exact, lower case, without parameters. */
enum media_kind media_kind_of(const char *type);

/* What a descriptor stands for decides on its media types and its largest size. */
enum descriptor_use { DESCRIPTOR_CONFIG, DESCRIPTOR_LAYER, DESCRIPTOR_DOCUMENT };

/* Checks media type, digest, size, annotations and urls of a descriptor. `what` names it in messages ("layer 3"). */
MUST_CHECK int descriptor_parse(const json_t *object, enum descriptor_use use, const char *what,
				struct descriptor *out, struct cpull_error *err);

/* Member that is there and not null, else NULL. Borrowed. */
json_t *json_member(const json_t *object, const char *key);

/* Refuses a key that is one of `names` (NULL-terminated) in another case: a reader written in Go takes "Layers" for
 * "layers", so the document would be two documents. */
MUST_CHECK int json_check_spelling(const json_t *object, const char *const *names, const char *what,
				   struct cpull_error *err);
extern const char *const descriptor_names[];

/* A name from outside for use in a message. */
#define QUOTE_BYTES 160
const char *quote_name(const char *text, char out[QUOTE_BYTES]);

#endif
