/* SPDX-License-Identifier: Apache-2.0
 *
 * The switch between a registry and an OCI layout, and what is common to both: digests are checked before they go
 * into a URL or a path, and a source that was cancelled or whose deadline has passed does nothing more. Called on the
 * pullers' threads.
 */
#include "fetch/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "engine/base/error.h"
#include "fetch/layout.h"
#include "fetch/registry.h"
#include "fetch/stream.h"

struct source {
	enum reference_transport transport;
	struct registry *registry;
	struct layout *layout;
	uint64_t deadline_ms;
	atomic_bool cancelled;
	pthread_mutex_t lock; /* blobs */
	struct blob *blobs;   /* of a layout: those that may have to be woken */
};

struct blob {
	struct source *source;
	struct stream *stream; /* registry */
	/* layout: the reader takes a chunk of the share and fills it from the file */
	int fd;
	char digest[140];
	uint64_t size;
	atomic_uint_fast64_t got, busy_ns, waited_ns;
	struct pool_share *share;
	pthread_mutex_t lock;
	pthread_cond_t cond; /* on CLOCK_MONOTONIC, as deadlines are */
	uint64_t wakes;
	struct blob *next;
};

int source_open(struct fetcher *fetcher, const struct source_options *options, struct source **out,
		struct cpull_error *err)
{
	struct source *source = calloc(1, sizeof(*source));

	if (!source)
		return error_nomem(err);
	pthread_mutex_init(&source->lock, NULL);
	source->transport = options->reference->transport;
	source->deadline_ms = options->deadline_ms;

	int rc = source->transport == REFERENCE_LAYOUT ? layout_open(options->reference->path, &source->layout, err)
						       : registry_new(fetcher, options, &source->registry, err);

	if (rc) {
		source_close(source);
		return rc;
	}
	*out = source;
	return 0;
}

void source_close(struct source *source)
{
	if (!source)
		return;
	registry_free(source->registry);
	layout_close(source->layout);
	pthread_mutex_destroy(&source->lock);
	free(source);
}

static void wake_blob(void *payload)
{
	struct blob *blob = payload;

	pthread_mutex_lock(&blob->lock);
	blob->wakes++;
	pthread_cond_broadcast(&blob->cond);
	pthread_mutex_unlock(&blob->lock);
}

void source_cancel(struct source *source)
{
	atomic_store(&source->cancelled, true);
	if (source->registry)
		registry_cancel(source->registry);
	pthread_mutex_lock(&source->lock);
	for (struct blob *blob = source->blobs; blob; blob = blob->next)
		wake_blob(blob);
	pthread_mutex_unlock(&source->lock);
}

static int check_alive(struct source *source, struct cpull_error *err)
{
	if (atomic_load(&source->cancelled))
		return error_set(err, CPULL_ERR_CANCELLED, "cancelled");
	if (source->deadline_ms && now_ms() >= source->deadline_ms)
		return error_set(err, CPULL_ERR_DEADLINE, "the deadline passed");
	return 0;
}

/* It goes into a URL or a path. */
static int check_digest(const char *digest, struct cpull_error *err)
{
	static const struct {
		const char *prefix;
		size_t hex;
	} kinds[] = {{"sha256:", 64}, {"sha384:", 96}, {"sha512:", 128}};
	char quoted[200];

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		size_t len = strlen(kinds[i].prefix);

		if (strncmp(digest, kinds[i].prefix, len) != 0)
			continue;
		if (strspn(digest + len, "0123456789abcdef") == kinds[i].hex && !digest[len + kinds[i].hex])
			return 0;
	}
	return error_set(err, CPULL_ERR_MANIFEST, "%s is not a digest that is supported",
			 error_quote(digest, strlen(digest), quoted, sizeof(quoted)));
}

void source_document_free(struct source_document *document)
{
	bytes_free(&document->text);
	*document = (struct source_document){0};
}

int source_get_manifest(struct source *source, const char *ref, struct source_document *out, struct cpull_error *err)
{
	int rc = ref ? check_digest(ref, err) : 0;

	*out = (struct source_document){0};

	if (!rc)
		rc = check_alive(source, err);
	if (rc)
		return rc;
	if (source->transport == REFERENCE_REGISTRY)
		return registry_get_manifest(source->registry, ref, out, err);
	/* index.json is an image index whatever its text says; a blob has no type of its own */
	snprintf(out->content_type, sizeof(out->content_type), "%s",
		 ref ? "" : "application/vnd.oci.image.index.v1+json");
	return ref ? layout_read_manifest(source->layout, ref, &out->text, err)
		   : layout_read_index(source->layout, &out->text, err);
}

int source_get_blob(struct source *source, const char *digest, uint64_t size, size_t max, struct bytes *out,
		    struct cpull_error *err)
{
	int rc = check_digest(digest, err);

	if (!rc && size > max)
		rc = error_set(err, CPULL_ERR_LIMIT,
			       "blob %s has %" PRIu64 " bytes, more than the %zu that it may have", digest, size, max);
	if (!rc)
		rc = check_alive(source, err);
	if (rc)
		return rc;
	if (source->transport == REFERENCE_REGISTRY)
		return registry_get_blob(source->registry, digest, size, out, err);
	return layout_read_blob(source->layout, digest, size, out, err);
}

/* ---- blobs ---- */

static void list_blob(struct blob *blob)
{
	struct source *source = blob->source;

	pthread_mutex_lock(&source->lock);
	blob->next = source->blobs;
	source->blobs = blob;
	pthread_mutex_unlock(&source->lock);
	pool_share_set_wake(blob->share, wake_blob, blob);
}

static void unlist_blob(struct blob *blob)
{
	struct source *source = blob->source;
	struct blob **at = &source->blobs;

	pool_share_set_wake(blob->share, NULL, NULL);
	pthread_mutex_lock(&source->lock);
	while (*at != blob)
		at = &(*at)->next;
	*at = blob->next;
	pthread_mutex_unlock(&source->lock);
}

static int start_blob(struct blob *blob, const struct descriptor *desc, struct cpull_error *err)
{
	struct source *source = blob->source;

	if (source->transport == REFERENCE_REGISTRY)
		return registry_open_blob(source->registry, desc, blob->share, &blob->stream, err);

	int rc = layout_open_blob(source->layout, desc->digest, desc->size, &blob->fd, err);

	if (rc)
		return rc;
	posix_fadvise(blob->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	list_blob(blob);
	return 0;
}

int source_open_blob(struct source *source, const struct descriptor *desc, struct pool_share *share,
		     struct blob **out, struct cpull_error *err)
{
	int rc = check_digest(desc->digest, err);

	if (!rc)
		rc = check_alive(source, err);
	if (rc)
		return rc;

	struct blob *blob = calloc(1, sizeof(*blob));
	pthread_condattr_t clock;

	if (!blob)
		return error_nomem(err);
	blob->source = source;
	blob->fd = -1;
	blob->share = share;
	blob->size = desc->size;
	snprintf(blob->digest, sizeof(blob->digest), "%s", desc->digest);
	pthread_mutex_init(&blob->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&blob->cond, &clock);
	pthread_condattr_destroy(&clock);
	rc = start_blob(blob, desc, err);
	if (rc) {
		blob_close(blob);
		return rc;
	}
	*out = blob;
	return 0;
}

/* Until the share may have a chunk, the source is cancelled, or the deadline passes. */
static void wait_for_room(struct blob *blob, uint64_t seen)
{
	uint64_t end_ms = blob->source->deadline_ms;
	struct timespec end = {.tv_sec = (time_t)(end_ms / 1000), .tv_nsec = (long)(end_ms % 1000) * 1000000};
	int num = 0;

	pthread_mutex_lock(&blob->lock);
	while (blob->wakes == seen && num == 0 && !atomic_load(&blob->source->cancelled))
		num = end_ms ? pthread_cond_timedwait(&blob->cond, &blob->lock, &end)
			     : pthread_cond_wait(&blob->cond, &blob->lock);
	pthread_mutex_unlock(&blob->lock);
}

static int get_chunk(struct blob *blob, struct chunk **out, uint64_t *wait_ns, struct cpull_error *err)
{
	uint64_t since = 0;

	for (;;) {
		pthread_mutex_lock(&blob->lock);
		uint64_t seen = blob->wakes;

		pthread_mutex_unlock(&blob->lock);
		int rc = check_alive(blob->source, err);

		*out = rc ? NULL : pool_try_get(blob->share);
		if (rc || *out) {
			uint64_t waited = since ? now_ns() - since : 0;

			if (wait_ns)
				*wait_ns += waited;
			atomic_fetch_add_explicit(&blob->waited_ns, waited, memory_order_relaxed);
			return rc;
		}
		if (!since)
			since = now_ns();
		wait_for_room(blob, seen);
	}
}

static int fill_chunk(struct blob *blob, struct chunk *chunk, struct cpull_error *err)
{
	uint64_t left = blob->size - atomic_load_explicit(&blob->got, memory_order_relaxed);
	size_t want = (size_t)MIN((uint64_t)pool_share_chunk_bytes(blob->share), left);

	while (chunk->len < want) {
		ssize_t n = read(blob->fd, chunk->data + chunk->len, want - chunk->len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "reading blob %s of the layout", blob->digest);
		if (n == 0)
			return error_set(err, CPULL_ERR_SIZE, "blob %s of the layout was cut short while it was read",
					 blob->digest);
		chunk->len += (uint32_t)n;
		atomic_fetch_add_explicit(&blob->got, (uint64_t)n, memory_order_relaxed);
	}
	return 0;
}

static int read_layout(struct blob *blob, struct chunk **out, uint64_t *wait_ns, struct cpull_error *err)
{
	struct chunk *chunk;

	if (blob_received(blob) == blob->size)
		return 0;

	int rc = get_chunk(blob, &chunk, wait_ns, err);

	if (rc)
		return rc;

	uint64_t since = now_ns();

	rc = fill_chunk(blob, chunk, err);
	atomic_fetch_add_explicit(&blob->busy_ns, now_ns() - since, memory_order_relaxed);
	if (rc) {
		chunk_put(chunk);
		return rc;
	}
	*out = chunk;
	return 0;
}

int blob_read(struct blob *blob, struct chunk **out, uint64_t *wait_ns, struct cpull_error *err)
{
	*out = NULL;

	int rc = check_alive(blob->source, err);

	if (rc)
		return rc;
	return blob->stream ? stream_read(blob->stream, out, wait_ns, err) : read_layout(blob, out, wait_ns, err);
}

uint64_t blob_received(const struct blob *blob)
{
	return blob->stream ? stream_received(blob->stream) : atomic_load_explicit(&blob->got, memory_order_relaxed);
}

void blob_stats(const struct blob *blob, struct cpull_stage_stats *out, unsigned *connections)
{
	if (blob->stream) {
		stream_stats(blob->stream, out, connections);
		return;
	}
	*connections = 0;
	*out = (struct cpull_stage_stats){
		.bytes = atomic_load_explicit(&blob->got, memory_order_relaxed),
		.busy_ns = atomic_load_explicit(&blob->busy_ns, memory_order_relaxed),
		.wait_output_ns = atomic_load_explicit(&blob->waited_ns, memory_order_relaxed),
	};
}

void blob_close(struct blob *blob)
{
	if (!blob)
		return;
	if (blob->stream)
		stream_close(blob->stream);
	if (blob->fd >= 0) {
		unlist_blob(blob);
		close(blob->fd);
	}
	pthread_cond_destroy(&blob->cond);
	pthread_mutex_destroy(&blob->lock);
	free(blob);
}
