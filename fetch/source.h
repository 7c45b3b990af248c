/* SPDX-License-Identifier: Apache-2.0
 *
 * Where an image comes from, a registry or an OCI layout on disk, behind one set of calls. A source belongs to
 * one pull; the fetcher (one thread, curl multi on the ring, connections and tokens kept) to the engine and is shared
 * by its sources. Bytes are handed out unverified: whoever calls checks digests.
 */
#ifndef FETCH_SOURCE_H
#define FETCH_SOURCE_H

#include "engine/base/log.h"
#include "engine/base/pool.h"
#include "fetch/manifest.h"
#include "fetch/reference.h"

struct fetcher;
struct source;
struct blob;

/* Makes a fetcher; its thread and ring start with the first registry request. Thread-safe from here on. */
MUST_CHECK int fetcher_new(enum cpull_io io, struct log *log, struct fetcher **out, struct cpull_error *err);
/* All sources must have been closed. NULL is fine. */
void fetcher_free(struct fetcher *fetcher);

struct source_options {
	const struct reference *reference; /* copied */
	const char *creds;     /* "USER[:PASS]" or NULL */
	const char *authfile;  /* or NULL: the usual places */
	const char *cert_dir;  /* or NULL */
	bool plain_http;
	bool tls_no_verify;
	uint64_t deadline_ms;  /* on now_ms()'s clock, 0 for none: blocking calls return CPULL_ERR_DEADLINE */
	unsigned connections;  /* at most so many for one blob, 0 for the default, 1 for never a second one */
	/* Transport limits; zero means the default of fetch/transfer.h. For the tests. */
	uint32_t connect_timeout_ms;
	uint32_t stall_timeout_ms;
	uint32_t retries;
	uint64_t ranges_bytes;
	uint32_t pace_ms;
};

/* No network yet. Reads the auth file, so that a bad one is an error here. */
MUST_CHECK int source_open(struct fetcher *fetcher, const struct source_options *options, struct source **out,
			   struct cpull_error *err);
/* Every blob must have been closed. NULL is fine. */
void source_close(struct source *source);
/* Ends every blocking call on the source and its blobs with CPULL_ERR_CANCELLED, now and from now on. Any thread. */
void source_cancel(struct source *source);

/* A manifest or index as it came. */
struct source_document {
	struct bytes text;
	char content_type[128]; /* the header or the layout's media type, "" when there is none */
	char digest[136];       /* what the registry says that it is (Docker-Content-Digest), "" when it says nothing */
};

void source_document_free(struct source_document *document);
#define CLEANUP_DOCUMENT __attribute__((cleanup(source_document_free)))

/* Blocking. The raw bytes of a manifest or index, at most LIMIT_MANIFEST_BYTES. `ref` NULL: what the reference names
 * (its digest, else its tag; for a layout index.json's own text, to be given to layout_choose()); otherwise a digest.
 * On failure *out needs no freeing. */
MUST_CHECK int source_get_manifest(struct source *source, const char *ref, struct source_document *out,
				   struct cpull_error *err);
/* Blocking. A small blob (the config) of exactly `size` bytes, size at most max. */
MUST_CHECK int source_get_blob(struct source *source, const char *digest, uint64_t size, size_t max,
			       struct bytes *out, struct cpull_error *err);

/* Starts streaming a blob of desc->size bytes into chunks of `share` (which the caller opened with at least 2 reserved
 * and closes after blob_close()). Resumes after broken connections; the stream never has more or fewer bytes than size
 * without an error. For a registry the bytes come from the fetch thread, for a layout blob_read() reads the file. */
MUST_CHECK int source_open_blob(struct source *source, const struct descriptor *desc, struct pool_share *share,
				struct blob **out, struct cpull_error *err);
/* The next chunk in order, full except for the last; *out NULL at the end. The caller owns the reference and
 * may change the bytes. Blocks; adds the wait to *wait_ns. */
MUST_CHECK int blob_read(struct blob *blob, struct chunk **out, uint64_t *wait_ns, struct cpull_error *err);
/* Bytes received so far up to the first that is missing, from any thread. */
uint64_t blob_received(const struct blob *blob);
/* Where the time of the fetch went, and the highest number of connections that worked on it at once, from any thread.
 * Bytes are those that came, also those that came again after a connection was given up. Waiting for output is not
 * getting a chunk of the share. */
void blob_stats(const struct blob *blob, struct cpull_stage_stats *out, unsigned *connections);
/* Stops the transfer if it still runs. NULL is fine. */
void blob_close(struct blob *blob);

#endif
