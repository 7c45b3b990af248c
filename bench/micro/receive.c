/* SPDX-License-Identifier: Apache-2.0
 *
 * Receiving a blob from loopback: libcurl with receive buffers of different sizes, with and without TLS, and recv(2)
 * without any library. Only this side's CPU time counts; the server is another process. The bytes are dropped. On the
 * main thread.
 */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "bench/micro/blob_server.h"
#include "bench/micro/stages.h"
#include "engine/base/error.h"

#define BLOB_BYTES ((size_t)64 << 20) /* more than a cache holds */
#define RECV_BYTES ((size_t)256 << 10)

struct receive {
	const struct blob_server *server;
	bool tls;
	long buffer_bytes; /* of libcurl's */
	CURL *easy;        /* kept, and with it its connection */
	int fd;            /* the same without libcurl */
	size_t got;
};

static size_t drop(char *data, size_t one, size_t len, void *payload)
{
	struct receive *r = payload;

	(void)data;
	(void)one;
	r->got += len;
	return len;
}

static int curl_open(struct receive *r, struct cpull_error *err)
{
	char url[64];

	snprintf(url, sizeof(url), "http%s://127.0.0.1:%u/blob", r->tls ? "s" : "", r->server->port);
	r->easy = curl_easy_init();
	if (!r->easy)
		return error_nomem(err);
	curl_easy_setopt(r->easy, CURLOPT_URL, url);
	curl_easy_setopt(r->easy, CURLOPT_BUFFERSIZE, r->buffer_bytes);
	curl_easy_setopt(r->easy, CURLOPT_WRITEFUNCTION, drop);
	curl_easy_setopt(r->easy, CURLOPT_WRITEDATA, r);
	curl_easy_setopt(r->easy, CURLOPT_NOPROXY, "*");
	/* the server made its certificate a moment ago; what is measured is the record layer */
	curl_easy_setopt(r->easy, CURLOPT_SSL_VERIFYPEER, 0L);
	curl_easy_setopt(r->easy, CURLOPT_SSL_VERIFYHOST, 0L);
	return 0;
}

static int pass_curl(void *payload, struct cpull_error *err)
{
	struct receive *r = payload;
	int rc = 0;

	if (r->tls && !r->server->pid)
		return error_set(err, CPULL_ERR_UNSUPPORTED, "built without libssl");
	if (!r->easy)
		rc = curl_open(r, err);
	if (rc)
		return rc;
	r->got = 0;

	CURLcode done = curl_easy_perform(r->easy);

	if (done != CURLE_OK || r->got != BLOB_BYTES)
		return error_set(err, CPULL_ERR_NETWORK, "receiving: %s", curl_easy_strerror(done));
	return 0;
}

static int socket_open(struct receive *r, struct cpull_error *err)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				 .sin_port = htons((uint16_t)r->server->port)};

	r->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (r->fd < 0 || connect(r->fd, (struct sockaddr *)&at, sizeof(at)))
		return error_sys(err, CPULL_ERR_NETWORK, errno, "connecting to loopback");
	return 0;
}

static int pass_recv(void *payload, struct cpull_error *err)
{
	static const char request[] = "GET /blob HTTP/1.1\r\n\r\n";
	CLEANUP_FREE uint8_t *buf = malloc(RECV_BYTES);
	struct receive *r = payload;
	size_t got = 0, want = BLOB_BYTES;
	int rc = r->fd >= 0 ? 0 : socket_open(r, err);

	if (rc || !buf)
		return rc ? rc : error_nomem(err);
	if (send(r->fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0)
		return error_sys(err, CPULL_ERR_NETWORK, errno, "asking");
	while (got < want) {
		ssize_t n = recv(r->fd, buf, RECV_BYTES, 0);

		if (n <= 0)
			return error_set(err, CPULL_ERR_NETWORK, "the blob is cut");
		if (!got) /* the header comes with the first bytes, in one piece as it was sent */
			want += (size_t)((uint8_t *)memmem(buf, (size_t)n, "\r\n\r\n", 4) + 4 - buf);
		got += (size_t)n;
	}
	return 0;
}

int measure_receive(struct report *report, const struct corpus *corpus, struct cpull_error *err)
{
	CLEANUP_FREE uint8_t *blob = malloc(BLOB_BYTES);
	struct blob_server plain = {0}, tls = {0};
	struct receive r[] = {
		{&plain, false, 16 << 10, NULL, -1, 0},
		{&plain, false, 32 << 10, NULL, -1, 0},
		{&plain, false, 512 << 10, NULL, -1, 0},
		{&tls, true, 16 << 10, NULL, -1, 0},
		{&tls, true, 512 << 10, NULL, -1, 0},
		{&plain, false, 0, NULL, -1, 0},
	};
	const double gib = (double)BLOB_BYTES / GIB;
	const struct bench_case cases[] = {
		{"receive", "libcurl, 16 KiB buffer", false, COST_NONE, S_PER_GIB, gib, pass_curl, NULL, &r[0]},
		{"receive", "libcurl, 32 KiB buffer", false, COST_RECEIVE, S_PER_GIB, gib, pass_curl, NULL, &r[1]},
		{"receive", "libcurl, 512 KiB buffer", true, COST_RECEIVE, S_PER_GIB, gib, pass_curl, NULL, &r[2]},
		{"receive", "libcurl, 16 KiB buffer, TLS", false, COST_NONE, S_PER_GIB, gib, pass_curl, NULL, &r[3]},
		{"receive", "libcurl, 512 KiB buffer, TLS", true, COST_NONE, S_PER_GIB, gib, pass_curl, NULL, &r[4]},
		{"receive", "recv 256 KiB, no library", false, COST_NONE, S_PER_GIB, gib, pass_recv, NULL, &r[5]},
	};
	int rc = blob ? 0 : error_nomem(err);

	for (size_t at = 0; !rc && at < BLOB_BYTES; at += MIN(corpus->gzip.len, BLOB_BYTES - at))
		memcpy(blob + at, corpus->gzip.data, MIN(corpus->gzip.len, BLOB_BYTES - at));
	if (!rc)
		rc = blob_server_start(blob, BLOB_BYTES, false, &plain, err);
	if (!rc && blob_server_start(blob, BLOB_BYTES, true, &tls, NULL) == CPULL_ERR_UNSUPPORTED)
		tls.pid = 0;
	if (!rc && curl_global_init(CURL_GLOBAL_DEFAULT))
		rc = error_set(err, CPULL_ERR_INTERNAL, "libcurl cannot be set up");
	if (!rc)
		rc = measure(report, cases, ARRAY_LEN(cases), err);
	for (size_t i = 0; i < ARRAY_LEN(r); i++) {
		curl_easy_cleanup(r[i].easy);
		if (r[i].fd >= 0)
			close(r[i].fd);
	}
	blob_server_stop(&plain);
	blob_server_stop(&tls);
	return rc;
}
