/* SPDX-License-Identifier: Apache-2.0
 *
 * One HTTP request and its answer, redirects included, over libcurl's multi interface on the fetch thread. Knows
 * nothing of registries: no retries, no tokens. Everything but transfers_new() and transfers_free() is called, and
 * calls back, on the loop's thread.
 */
#ifndef FETCH_TRANSFER_H
#define FETCH_TRANSFER_H

#include "engine/base/limits.h"
#include "engine/base/log.h"
#include "fetch/hosts.h"
#include "fetch/loop.h"
#include "fetch/retry.h"

/* What a zero in struct source_options stands for. */
#define TRANSFER_CONNECT_TIMEOUT_MS 30000u
#define TRANSFER_STALL_TIMEOUT_MS 60000u
#define TRANSFER_RETRIES 5u

/* libcurl takes 0.67 CPU s/GiB with its 16 KiB buffer and 0.41 with 512 KiB. */
#define TRANSFER_BULK_BUFFER_BYTES (512l << 10)
#define TRANSFER_PART_BUFFER_BYTES (128l << 10) /* there may be many at once */
#define TRANSFER_SMALL_BUFFER_BYTES (32l << 10)
#define TRANSFER_CONNECTIONS 96l
/* Beyond the first of each blob, of all blobs together; fewer where RLIMIT_NOFILE is low. */
#define TRANSFER_EXTRA_CONNECTIONS 32u
#define TRANSFER_CHALLENGES 8u

struct transfers;
struct transfer;

/* Borrowed by every transfer that names it. */
struct transfer_tls {
	bool no_verify;
	const struct bytes *roots; /* PEM, in place of libcurl's own; NULL or empty for those */
	const char *cert;          /* client pair, paths of PEM files, or NULL */
	const char *key;
};

struct transfer_reply {
	int code;           /* 0: the whole answer came, whatever its status; CPULL_ERR_NETWORK, _STALLED, _LIMIT … */
	enum retry_patience retry; /* with `code` */
	bool stopped;       /* body() said TRANSFER_STOP */
	bool elsewhere;     /* a redirect led to another host, port or scheme, whose answer this is */
	int status;         /* HTTP status, 0 when there was none */
	int64_t length;     /* Content-Length, -1 when there was none */
	char content_type[128]; /* header fields: "" when absent, too long, or given twice with care needed */
	char content_range[128];
	char content_digest[136]; /* Docker-Content-Digest */
	char retry_after[64];
	char *challenges[TRANSFER_CHALLENGES]; /* WWW-Authenticate fields, one each */
	size_t challenge_count;
	char why[400];      /* what went wrong, for a message; printable */
};

enum transfer_verdict { TRANSFER_GO_ON, TRANSFER_PAUSE, TRANSFER_STOP };

struct transfer_request {
	const char *url;
	const char *accept;        /* header value or NULL */
	const char *authorization; /* header value or NULL; sent to url's own scheme, host and port only */
	const char *form;          /* body of a POST, or NULL for GET; redirects of a POST are not followed */
	uint64_t range_from;       /* with `ranged`: "Range: bytes=<from>-", and with `range_end` up to there */
	uint64_t range_end;
	bool ranged;
	long buffer_bytes;         /* what libcurl receives at once */
	bool allow_http;           /* plain HTTP may be asked and be redirected to (never from HTTPS) */
	const struct transfer_tls *tls;
	uint32_t connect_timeout_ms;
	uint32_t stall_timeout_ms;
	/* Body bytes of the last answer; reply has its status and fields. On TRANSFER_PAUSE *taken says how
	 * many were used; the rest comes again after transfer_resume(). Must not call transfer_stop(). */
	enum transfer_verdict (*body)(void *payload, const struct transfer_reply *reply, const uint8_t *data,
				      size_t len, size_t *taken);
	/* The end; the transfer is gone when this returns. Not called after transfer_stop(). */
	void (*done)(void *payload, const struct transfer_reply *reply);
	void *payload;
};

/* Starts the loop. */
MUST_CHECK int transfers_new(enum cpull_io io, struct log *log, struct transfers **out, struct cpull_error *err);
/* Joins the thread; every transfer must have ended. NULL is fine. */
void transfers_free(struct transfers *transfers);
struct loop *transfers_loop(struct transfers *transfers);
struct hosts *transfers_hosts(struct transfers *transfers);
/* Body bytes of all transfers so far. */
uint64_t transfers_received(const struct transfers *transfers);
/* One more connection beyond the first of a blob; false when there are as many as there may be. */
bool transfers_take_extra(struct transfers *transfers);
void transfers_give_extra(struct transfers *transfers);
/* The file with the system's root certificates, or NULL when libcurl was built without one. Any thread. */
const char *transfer_system_roots(void);

/* Copies the request except for what tls points to. On failure nothing was started and done() is not called. */
MUST_CHECK int transfer_start(struct transfers *transfers, const struct transfer_request *request,
			      struct transfer **out, struct cpull_error *err);
/* Goes on after TRANSFER_PAUSE; may call body() and done(). */
void transfer_resume(struct transfer *transfer);
/* Ends it now, without done(). NULL is fine. */
void transfer_stop(struct transfer *transfer);

#endif
