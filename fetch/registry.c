/* SPDX-License-Identifier: Apache-2.0
 *
 * A repository at a registry: its URLs, its credentials and certificates, and the blocking calls of source.h over
 * exchanges. Called on the pullers' threads. Owns the fetcher (one a library engine) and one endpoint a source.
 */
#include "fetch/registry.h"

#include <pthread.h>
#include <string.h>
#include <strings.h>

#include "engine/base/error.h"
#include "fetch/pace.h"
#include "fetch/stream.h"

/* All in one field, and the OCI types first: some registries read only the first (R18). Never schema 1. */
#define MANIFEST_TYPES                                                                                  \
	"application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "         \
	"application/vnd.docker.distribution.manifest.v2+json, "                                        \
	"application/vnd.docker.distribution.manifest.list.v2+json"

/* ---- the fetcher ---- */

struct fetcher {
	enum cpull_io io;
	struct log *log;
	pthread_mutex_t lock;
	struct transfers *transfers; /* made with the first request */
	struct token_cache *tokens;
};

int fetcher_new(enum cpull_io io, struct log *log, struct fetcher **out, struct cpull_error *err)
{
	struct fetcher *fetcher = calloc(1, sizeof(*fetcher));

	if (!fetcher)
		return error_nomem(err);
	fetcher->io = io;
	fetcher->log = log;
	fetcher->tokens = token_cache_new();
	if (!fetcher->tokens) {
		free(fetcher);
		return error_nomem(err);
	}
	pthread_mutex_init(&fetcher->lock, NULL);
	*out = fetcher;
	return 0;
}

void fetcher_free(struct fetcher *fetcher)
{
	if (!fetcher)
		return;
	transfers_free(fetcher->transfers);
	token_cache_free(fetcher->tokens);
	pthread_mutex_destroy(&fetcher->lock);
	free(fetcher);
}

static int fetcher_start(struct fetcher *fetcher, struct transfers **out, struct cpull_error *err)
{
	int rc = 0;

	pthread_mutex_lock(&fetcher->lock);
	if (!fetcher->transfers)
		rc = transfers_new(fetcher->io, fetcher->log, &fetcher->transfers, err);
	*out = fetcher->transfers;
	pthread_mutex_unlock(&fetcher->lock);
	return rc;
}

/* ---- the registry ---- */

struct registry {
	struct fetcher *fetcher;
	pthread_mutex_t lock; /* started */
	bool started;         /* endpoint.transfers is set */
	char *ref;            /* what the reference names: digest, else tag */
	struct certs certs;
	struct endpoint endpoint;
};

/* docker.io is a name, not a host. */
static const char *api_host(const char *domain)
{
	return !strcmp(domain, "docker.io") ? "registry-1.docker.io" : domain;
}

static int set_names(struct registry *registry, const struct source_options *options, struct cpull_error *err)
{
	const struct reference *reference = options->reference;
	struct endpoint *e = &registry->endpoint;

	registry->ref = strdup(reference->digest ? reference->digest : reference->tag ? reference->tag : "latest");
	e->domain = strdup(reference->domain);
	e->path = strdup(reference->path);
	e->base = format_string("%s://%s", options->plain_http ? "http" : "https", api_host(reference->domain));
	return registry->ref && e->domain && e->path && e->base ? 0 : error_nomem(err);
}

static int set_credentials(struct endpoint *e, const struct source_options *options, struct cpull_error *err)
{
	if (options->creds)
		return credentials_from_text(options->creds, &e->creds, err);
	return authfile_find(options->authfile, e->domain, e->path, &e->creds, err);
}

static int set_certs(struct registry *registry, const struct source_options *options, struct cpull_error *err)
{
	struct endpoint *e = &registry->endpoint;
	int rc = certs_load(options->cert_dir, e->domain, transfer_system_roots(), registry->fetcher->log,
			    &registry->certs, err);

	if (rc)
		return rc;
	e->tls = (struct transfer_tls){
		.no_verify = options->tls_no_verify,
		.roots = &registry->certs.roots,
		.cert = registry->certs.cert,
		.key = registry->certs.key,
	};
	e->foreign_tls = e->tls;
	e->foreign_tls.cert = e->foreign_tls.key = NULL;
	return 0;
}

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
	return value ? value : fallback;
}

int registry_new(struct fetcher *fetcher, const struct source_options *options, struct registry **out,
		 struct cpull_error *err)
{
	struct registry *registry = calloc(1, sizeof(*registry));

	if (!registry)
		return error_nomem(err);
	pthread_mutex_init(&registry->lock, NULL);
	registry->fetcher = fetcher;

	struct endpoint *e = &registry->endpoint;

	e->tokens = fetcher->tokens;
	e->log = fetcher->log;
	e->plain_http = options->plain_http;
	e->deadline_ms = options->deadline_ms;
	e->connect_timeout_ms = or_default(options->connect_timeout_ms, TRANSFER_CONNECT_TIMEOUT_MS);
	e->stall_timeout_ms = or_default(options->stall_timeout_ms, TRANSFER_STALL_TIMEOUT_MS);
	e->retries = or_default(options->retries, TRANSFER_RETRIES);
	e->connections = or_default(options->connections, STREAM_CONNECTIONS);
	e->ranges_bytes = options->ranges_bytes ? options->ranges_bytes : STREAM_RANGES_BYTES;
	e->pace_ms = or_default(options->pace_ms, PACE_TICK_MS);
	e->cancel = (struct loop_task){.run = endpoint_cancel, .payload = e};

	int rc = set_names(registry, options, err);

	if (!rc)
		rc = set_credentials(e, options, err);
	if (!rc)
		rc = set_certs(registry, options, err);
	if (rc) {
		registry_free(registry);
		return rc;
	}
	*out = registry;
	return 0;
}

/* A task that is run after all that were posted before it, among them a cancellation's. */
struct barrier {
	struct loop_task task;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool passed;
};

static void pass_barrier(void *payload)
{
	struct barrier *barrier = payload;

	pthread_mutex_lock(&barrier->lock);
	barrier->passed = true;
	pthread_cond_broadcast(&barrier->cond);
	pthread_mutex_unlock(&barrier->lock);
}

static void wait_for_tasks(struct loop *loop)
{
	struct barrier barrier = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

	barrier.task = (struct loop_task){.run = pass_barrier, .payload = &barrier};
	loop_post(loop, &barrier.task);
	pthread_mutex_lock(&barrier.lock);
	while (!barrier.passed)
		pthread_cond_wait(&barrier.cond, &barrier.lock);
	pthread_mutex_unlock(&barrier.lock);
	pthread_cond_destroy(&barrier.cond);
	pthread_mutex_destroy(&barrier.lock);
}

void registry_free(struct registry *registry)
{
	if (!registry)
		return;

	struct endpoint *e = &registry->endpoint;

	if (registry->started)
		wait_for_tasks(transfers_loop(e->transfers));
	free(registry->ref);
	free(e->domain);
	free(e->path);
	free(e->base);
	credentials_free(&e->creds);
	certs_free(&registry->certs);
	pthread_mutex_destroy(&registry->lock);
	free(registry);
}

void registry_cancel(struct registry *registry)
{
	struct endpoint *e = &registry->endpoint;

	atomic_store(&e->cancelled, true);
	/* an exchange that is started after this sees the flag, one that was started before is ended by the task */
	pthread_mutex_lock(&registry->lock);
	if (registry->started)
		loop_post(transfers_loop(e->transfers), &e->cancel);
	pthread_mutex_unlock(&registry->lock);
}

static int ensure_started(struct registry *registry, struct cpull_error *err)
{
	int rc = 0;

	pthread_mutex_lock(&registry->lock);
	if (!registry->started)
		rc = fetcher_start(registry->fetcher, &registry->endpoint.transfers, err);
	registry->started = rc == 0;
	pthread_mutex_unlock(&registry->lock);
	return rc;
}

/* ---- documents ---- */

/* kind: "manifests" or "blobs". */
static int make_goal(struct registry *registry, const char *kind, const char *ref, struct exchange_goal *out,
		     struct cpull_error *err)
{
	const struct endpoint *e = &registry->endpoint;
	int rc = ensure_started(registry, err);

	*out = (struct exchange_goal){0};
	if (rc)
		return rc;
	out->what = format_string("%.*s %s", (int)strlen(kind) - 1, kind, ref);
	out->url = format_string("%s/v2/%s/%s/%s", e->base, e->path, kind, ref);
	if (out->what && out->url)
		return 0;
	exchange_goal_free(out);
	return error_nomem(err);
}

/* Fetches it, and hands over the body. */
static int run_document(struct registry *registry, struct exchange_goal *goal, struct source_document *out,
			struct cpull_error *err)
{
	struct exchange *x;
	int rc = exchange_new(&registry->endpoint, goal, &x, err);

	if (!rc) {
		exchange_start(x);
		rc = exchange_wait(x, err);
		if (!rc) {
			out->text = x->body;
			x->body = (struct bytes){0};
			snprintf(out->content_type, sizeof(out->content_type), "%s", x->content_type);
			snprintf(out->digest, sizeof(out->digest), "%s", x->content_digest);
		}
		exchange_close(x);
	}
	exchange_goal_free(goal);
	return rc;
}

int registry_get_manifest(struct registry *registry, const char *ref, struct source_document *out,
			  struct cpull_error *err)
{
	struct exchange_goal goal;
	int rc = make_goal(registry, "manifests", ref ? ref : registry->ref, &goal, err);

	if (rc)
		return rc;
	goal.accept = MANIFEST_TYPES;
	goal.max = LIMIT_MANIFEST_BYTES;
	return run_document(registry, &goal, out, err);
}

int registry_get_blob(struct registry *registry, const char *digest, uint64_t size, struct bytes *out,
		      struct cpull_error *err)
{
	struct source_document document = {0};
	struct exchange_goal goal;
	int rc = make_goal(registry, "blobs", digest, &goal, err);

	if (rc)
		return rc;
	goal.sized = true;
	goal.size = size;
	goal.max = size;
	rc = run_document(registry, &goal, &document, err);
	*out = document.text;
	return rc;
}

/* ---- blobs ---- */

/* The image's own URLs are only a hint: those that are not HTTP are passed over, and so is one that there is no memory
 * for. */
static void take_urls(struct exchange_goal *goal, const json_t *urls)
{
	for (size_t i = 0; i < json_array_size(urls) && goal->url_count < EXCHANGE_URLS_MAX; i++) {
		const char *url = json_string_value(json_array_get(urls, i));

		if (!url || (strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0))
			continue;
		goal->urls[goal->url_count] = strdup(url);
		goal->url_count += goal->urls[goal->url_count] != NULL;
	}
}

int registry_open_blob(struct registry *registry, const struct descriptor *desc, struct pool_share *share,
		       struct stream **out, struct cpull_error *err)
{
	struct exchange_goal goal;
	int rc = make_goal(registry, "blobs", desc->digest, &goal, err);

	if (rc)
		return rc;
	goal.sized = true;
	goal.size = desc->size;
	take_urls(&goal, desc->urls);
	return stream_open(&registry->endpoint, &goal, share, out, err);
}
