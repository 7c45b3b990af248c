/* SPDX-License-Identifier: Apache-2.0
 *
 * libcurl's multi-socket interface on the fetch thread's loop; failure.c apart, the only file that knows libcurl.
 * exchange.c and token.c start transfers here and are called back here, all on the loop's thread. It owns the multi
 * handle, its connections and the easy handles.
 *
 * libcurl facts it leans on:
 *  - an Authorization line given as a custom header is dropped on a redirect to another host, port or scheme while
 *    CURLOPT_UNRESTRICTED_AUTH is off (7.58; port and scheme since 7.83), and stays off a proxy's CONNECT with
 *    CURLHEADER_SEPARATE;
 *  - the data of a write callback that answered CURL_WRITEFUNC_PAUSE is handed in again from its first byte, so a
 *    part of it may be used if that many are skipped the next time;
 *  - without CURLOPT_QUICK_EXIT, removing a handle waits for its name look-up, which may take minutes;
 *  - copies of the header list live in libcurl's own memory and cannot be wiped.
 */
#include "fetch/transfer.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "config.h"
#include "engine/base/error.h"
#include "fetch/failure.h"

/* With no more of them than this all connections are the first ones of a blob. */
#define EXTRA_SPARED_DESCRIPTORS 64u

struct transfers {
	struct loop *loop;
	CURLM *multi;
	struct loop_timer timer;
	struct log *log;
	struct hosts hosts;
	uint64_t received; /* body bytes */
	unsigned extra, extra_max;
};

struct transfer {
	struct transfers *transfers;
	struct transfer_request request; /* its strings are not kept: libcurl copies them */
	CURL *easy;
	struct curl_slist *headers;
	struct loop_timer silence;
	uint64_t last_ms;      /* when something arrived */
	size_t carried;        /* bytes used of the data that a pause hands in again */
	size_t header_bytes;
	uint64_t body_bytes;
	unsigned content_ranges;
	bool connected;
	bool paused;
	bool in_body;
	bool https;            /* the request under way is over TLS */
	bool downgraded;
	bool headers_too_long;
	int fd;                /* the socket in use, -1 for none; libcurl tells it only at the end */
	int socket_errno;      /* of the last socket that could not be made */
	char *url;
	struct transfer_reply reply;
	char why[CURL_ERROR_SIZE];
};

/* libcurl's one-time set-up is process-wide by nature and safe to run beside another user's; the lock makes our
 * own fetchers take turns. There is no counterpart: other users of libcurl in the process may still need it. */
static int curl_once(struct cpull_error *err)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static bool ready;

	pthread_mutex_lock(&lock);
	if (!ready)
		ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
	bool ok = ready;

	pthread_mutex_unlock(&lock);
	return ok ? 0 : error_set(err, CPULL_ERR_INTERNAL, "libcurl cannot be set up");
}

/* ---- how a transfer ended ---- */

static const char *effective_url(struct transfer *t)
{
	const char *url = NULL;

	curl_easy_getinfo(t->easy, CURLINFO_EFFECTIVE_URL, &url);
	return url ? url : "";
}

static void set_end(struct transfer_reply *reply, int code, enum retry_patience retry, const char *why)
{
	reply->code = code;
	reply->retry = retry;
	failure_text(why, "", reply->why, sizeof(reply->why));
}

static void describe_curl(struct transfer *t, CURLcode rc)
{
	struct failure failure = {
		.rc = rc,
		.text = *t->why ? t->why : curl_easy_strerror(rc),
		.socket_errno = t->socket_errno,
		.connected = t->connected,
		.https = t->https,
		.answered = hosts_answered(&t->transfers->hosts, effective_url(t)),
	};

	long os_errno = 0;

	curl_easy_getinfo(t->easy, CURLINFO_HTTP_CONNECTCODE, &failure.proxy_status);
	curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &os_errno);
	failure.os_errno = (int)os_errno;
	t->reply.code = failure_describe(&failure, &t->reply.retry, t->reply.why, sizeof(t->reply.why));
}

static void describe_end(struct transfer *t, CURLcode rc)
{
	struct transfer_reply *reply = &t->reply;

	if (rc == CURLE_OK || reply->stopped || reply->code)
		return;
	/* before 8.6 libcurl reports a header line beyond its own maximum as a lack of memory */
	if (t->headers_too_long || (rc == CURLE_OUT_OF_MEMORY && t->connected && !t->in_body))
		set_end(reply, CPULL_ERR_LIMIT, RETRY_NEVER, "the answer's header is too long");
	else if (t->downgraded)
		set_end(reply, CPULL_ERR_REGISTRY, RETRY_NEVER, "a redirect leads from HTTPS to plain HTTP");
	else
		describe_curl(t, rc);
}

/* ---- the answer's header ---- */

static void keep_field(char *out, size_t room, const char *value, size_t len)
{
	*out = 0;
	if (len >= room)
		return;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)value[i] < 0x20 || value[i] == 0x7f)
			return;
	memcpy(out, value, len);
	out[len] = 0;
}

static void drop_challenges(struct transfer_reply *reply)
{
	while (reply->challenge_count)
		free(reply->challenges[--reply->challenge_count]);
}

/* A status line: of a further hop, or of the answer after an interim one. */
static void begin_answer(struct transfer *t)
{
	drop_challenges(&t->reply);
	t->reply.content_type[0] = 0;
	t->reply.content_range[0] = 0;
	t->reply.content_digest[0] = 0;
	t->reply.retry_after[0] = 0;
	t->content_ranges = 0;
}

static void take_field(struct transfer *t, const char *name, size_t name_len, const char *value, size_t len)
{
	struct transfer_reply *reply = &t->reply;

	if (name_len == 12 && !strncasecmp(name, "Content-Type", 12)) {
		keep_field(reply->content_type, sizeof(reply->content_type), value, len);
	} else if (name_len == 13 && !strncasecmp(name, "Content-Range", 13)) {
		/* two of them are one too many to believe either */
		keep_field(reply->content_range, t->content_ranges++ ? 0 : sizeof(reply->content_range), value, len);
	} else if (name_len == 21 && !strncasecmp(name, "Docker-Content-Digest", 21)) {
		keep_field(reply->content_digest, sizeof(reply->content_digest), value, len);
	} else if (name_len == 11 && !strncasecmp(name, "Retry-After", 11)) {
		keep_field(reply->retry_after, sizeof(reply->retry_after), value, len);
	} else if (name_len == 16 && !strncasecmp(name, "WWW-Authenticate", 16)) {
		if (reply->challenge_count < TRANSFER_CHALLENGES &&
		    (reply->challenges[reply->challenge_count] = strndup(value, len)))
			reply->challenge_count++;
	}
}

static size_t on_header(char *line, size_t one, size_t len, void *payload)
{
	struct transfer *t = payload;
	const char *colon = memchr(line, ':', len);

	(void)one;
	t->last_ms = now_ms();
	t->header_bytes += len;
	if (t->header_bytes > LIMIT_HEADER_BYTES) {
		t->headers_too_long = true;
		return 0;
	}
	if (len >= 5 && !memcmp(line, "HTTP/", 5)) {
		begin_answer(t);
	} else if (colon) {
		const char *value = colon + 1, *end = line + len;

		while (value < end && (*value == ' ' || *value == '\t'))
			value++;
		while (end > value && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ' || end[-1] == '\t'))
			end--;
		take_field(t, line, (size_t)(colon - line), value, (size_t)(end - value));
	}
	return len;
}

/* ---- the answer's body ---- */

static char *origin_part(CURLU *url, CURLUPart part)
{
	char *text = NULL;

	return curl_url_get(url, part, &text, CURLU_DEFAULT_PORT) == CURLUE_OK ? text : NULL;
}

static bool same_part(CURLU *a, CURLU *b, CURLUPart part)
{
	char *x = origin_part(a, part), *y = origin_part(b, part);
	bool same = x && y && !strcasecmp(x, y);

	curl_free(x);
	curl_free(y);
	return same;
}

static bool same_origin(const char *one, const char *other)
{
	CURLU *a = curl_url(), *b = curl_url();
	bool same = a && b && curl_url_set(a, CURLUPART_URL, one, 0) == CURLUE_OK &&
		    curl_url_set(b, CURLUPART_URL, other, 0) == CURLUE_OK && same_part(a, b, CURLUPART_SCHEME) &&
		    same_part(a, b, CURLUPART_HOST) && same_part(a, b, CURLUPART_PORT);

	curl_url_cleanup(a);
	curl_url_cleanup(b);
	return same;
}

/* Status, length and origin of what has been answered so far. */
static void refresh_reply(struct transfer *t)
{
	long status = 0, redirects = 0;
	curl_off_t length = -1;

	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(t->easy, CURLINFO_REDIRECT_COUNT, &redirects);
	curl_easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	t->reply.status = (int)status;
	t->reply.length = length;
	t->reply.elsewhere = redirects > 0 && !same_origin(effective_url(t), t->url);
}

static size_t on_body(char *data, size_t one, size_t len, void *payload)
{
	struct transfer *t = payload;
	size_t skip = MIN(t->carried, len), taken = 0;

	(void)one;
	if (len == 0)
		return 0;
	t->last_ms = now_ms();
	if (!t->in_body) {
		t->in_body = true;
		refresh_reply(t);
	}
	switch (t->request.body(t->request.payload, &t->reply, (const uint8_t *)data + skip, len - skip, &taken)) {
	case TRANSFER_GO_ON:
		t->carried -= skip;
		t->body_bytes += len - skip;
		t->transfers->received += len - skip;
		return len;
	case TRANSFER_PAUSE:
		t->carried = skip + taken;
		t->body_bytes += taken;
		t->transfers->received += taken;
		t->paused = true;
		return CURL_WRITEFUNC_PAUSE;
	case TRANSFER_STOP:
		break;
	}
	t->reply.stopped = true;
	return 0;
}

/* ---- the end ---- */

static void transfer_free(struct transfer *t)
{
	struct transfers *ts = t->transfers;

	loop_timer_clear(ts->loop, &t->silence);
	if (t->easy) {
		curl_multi_remove_handle(ts->multi, t->easy);
		curl_easy_cleanup(t->easy);
	}
	curl_slist_free_all(t->headers);
	drop_challenges(&t->reply);
	free(t->url);
	free(t);
}

/* Queries hold signatures and tokens, user information holds passwords: neither is logged. */
static void log_end(struct transfer *t)
{
	const char *host = strstr(t->url, "://"), *at;
	int len = (int)strcspn(t->url, "?#");

	host = host ? host + 3 : t->url;
	at = memchr(host, '@', strcspn(host, "/?#"));
	if (at)
		host = at + 1;
	log_debug(t->transfers->log, "%s %.*s → %d, %llu bytes%s%s%s", t->request.form ? "POST" : "GET",
		  len - (int)(host - t->url), host, t->reply.status, (unsigned long long)t->body_bytes,
		  t->reply.elsewhere ? ", redirected" : "", t->reply.code ? ": " : "", t->reply.why);
}

static void transfer_end(struct transfer *t, CURLcode rc)
{
	struct transfers *ts = t->transfers;

	refresh_reply(t);
	describe_end(t, rc);
	log_end(t);
	/* out of the multi handle first, so that the connection is free for whatever done() starts */
	curl_multi_remove_handle(ts->multi, t->easy);
	t->request.done(t->request.payload, &t->reply);
	transfer_free(t);
}

/* This thread may be late, or the whole machine was stopped for a while: bytes that wait for us are no silence. */
static bool has_unread(const struct transfer *t)
{
	struct pollfd poller = {.fd = t->fd, .events = POLLIN};

	return poll(&poller, 1, 0) > 0 && (poller.revents & POLLIN);
}

static void on_silence(void *payload)
{
	struct transfer *t = payload;
	uint64_t now = now_ms();
	bool due = now >= t->last_ms + t->request.stall_timeout_ms;

	/* while paused it is we who do not read, and before that CURLOPT_CONNECTTIMEOUT_MS counts */
	if (t->paused || !t->connected || (due && has_unread(t)))
		t->last_ms = now;
	if (now < t->last_ms + t->request.stall_timeout_ms) {
		loop_timer_set(t->transfers->loop, &t->silence, t->last_ms + t->request.stall_timeout_ms);
		return;
	}

	char why[64];

	snprintf(why, sizeof(why), "no bytes for %u ms", t->request.stall_timeout_ms);
	set_end(&t->reply, CPULL_ERR_STALLED, RETRY_LONG, why);
	transfer_end(t, CURLE_OPERATION_TIMEDOUT);
}

static void reap(struct transfers *ts)
{
	CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(ts->multi, &left))) {
		char *private = NULL;
		CURLcode rc = msg->data.result;

		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &private);
		transfer_end((struct transfer *)private, rc);
	}
}

/* ---- libcurl on the loop ---- */

static void on_socket_ready(void *payload, int fd, short events)
{
	struct transfers *ts = payload;
	int mask = 0, running;

	if (events & (POLLIN | POLLHUP | POLLRDHUP))
		mask |= CURL_CSELECT_IN;
	if (events & POLLOUT)
		mask |= CURL_CSELECT_OUT;
	if (events & (POLLERR | POLLNVAL))
		mask |= CURL_CSELECT_ERR;
	curl_multi_socket_action(ts->multi, fd, mask, &running);
	reap(ts);
}

static void on_curl_timer(void *payload)
{
	struct transfers *ts = payload;
	int running;

	curl_multi_socket_action(ts->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	reap(ts);
}

static int on_want_socket(CURL *easy, curl_socket_t fd, int what, void *payload, void *socket_payload)
{
	struct transfers *ts = payload;
	struct loop_watch *watch = socket_payload;
	char *private = NULL;
	short events = 0;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);

	struct transfer *t = (struct transfer *)private; /* NULL for libcurl's own handle, which closes what is idle */

	if (t)
		t->fd = what != CURL_POLL_REMOVE ? fd : t->fd == fd ? -1 : t->fd;
	if (what == CURL_POLL_REMOVE) {
		if (watch) {
			curl_multi_assign(ts->multi, fd, NULL);
			loop_watch_remove(ts->loop, watch);
			free(watch);
		}
		return 0;
	}
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= POLLIN;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= POLLOUT;
	if (!watch) {
		watch = calloc(1, sizeof(*watch));
		if (!watch)
			return -1;
		*watch = (struct loop_watch){.run = on_socket_ready, .payload = ts, .fd = fd};
		loop_watch_add(ts->loop, watch);
		curl_multi_assign(ts->multi, fd, watch);
	}
	loop_watch_set(watch, events);
	return 0;
}

static int on_want_timer(CURLM *multi, long timeout_ms, void *payload)
{
	struct transfers *ts = payload;

	(void)multi;
	if (timeout_ms < 0)
		loop_timer_clear(ts->loop, &ts->timer);
	else
		loop_timer_set(ts->loop, &ts->timer, now_ms() + (uint64_t)timeout_ms);
	return 0;
}

/* The library promises close-on-exec descriptors. */
static curl_socket_t on_open_socket(void *payload, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct transfer *t = payload;

	(void)purpose;
	curl_socket_t fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);

	t->socket_errno = fd < 0 ? errno : 0;
	return fd;
}

/* Connected (again): the request is about to go out. */
static int on_connected(void *payload, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	struct transfer *t = payload;
	const char *url = effective_url(t);

	(void)remote_ip;
	(void)local_ip;
	(void)remote_port;
	(void)local_port;

	bool https = !strncasecmp(url, "https:", 6);

	if (t->https && !https) {
		t->downgraded = true;
		return CURL_PREREQFUNC_ABORT;
	}
	t->https = https;
	t->connected = true;
	t->last_ms = now_ms();
	hosts_set_answered(&t->transfers->hosts, url);
	return CURL_PREREQFUNC_OK;
}

/* Files and directories need descriptors more than speed does. */
static unsigned extra_connections_max(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur <= EXTRA_SPARED_DESCRIPTORS)
		return 0;
	return (unsigned)MIN((limit.rlim_cur - EXTRA_SPARED_DESCRIPTORS) / 4, (rlim_t)TRANSFER_EXTRA_CONNECTIONS);
}

int transfers_new(enum cpull_io io, struct log *log, struct transfers **out, struct cpull_error *err)
{
	int rc = curl_once(err);

	if (rc)
		return rc;

	struct transfers *ts = calloc(1, sizeof(*ts));

	if (!ts)
		return error_nomem(err);
	ts->log = log;
	ts->extra_max = extra_connections_max();
	ts->timer = (struct loop_timer){.run = on_curl_timer, .payload = ts};
	ts->multi = curl_multi_init();
	if (!ts->multi) {
		free(ts);
		return error_nomem(err);
	}
	curl_multi_setopt(ts->multi, CURLMOPT_SOCKETFUNCTION, on_want_socket);
	curl_multi_setopt(ts->multi, CURLMOPT_SOCKETDATA, ts);
	curl_multi_setopt(ts->multi, CURLMOPT_TIMERFUNCTION, on_want_timer);
	curl_multi_setopt(ts->multi, CURLMOPT_TIMERDATA, ts);
	curl_multi_setopt(ts->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, TRANSFER_CONNECTIONS);
	rc = loop_new(io, &ts->loop, err);
	if (rc) {
		const char *why = failure_no_descriptors();

		curl_multi_cleanup(ts->multi);
		free(ts);
		return why ? error_set(err, CPULL_ERR_STORAGE, "%s", why) : rc;
	}
	*out = ts;
	return 0;
}

void transfers_free(struct transfers *ts)
{
	if (!ts)
		return;
	loop_stop(ts->loop);
	/* closes the idle connections, which takes their watches out of the loop */
	curl_multi_cleanup(ts->multi);
	loop_free(ts->loop);
	free(ts);
}

struct loop *transfers_loop(struct transfers *ts)
{
	return ts->loop;
}

struct hosts *transfers_hosts(struct transfers *ts)
{
	return &ts->hosts;
}

uint64_t transfers_received(const struct transfers *ts)
{
	return ts->received;
}

bool transfers_take_extra(struct transfers *ts)
{
	if (ts->extra >= ts->extra_max)
		return false;
	ts->extra++;
	return true;
}

void transfers_give_extra(struct transfers *ts)
{
	ts->extra--;
}

const char *transfer_system_roots(void)
{
	return curl_version_info(CURLVERSION_NOW)->cainfo;
}

/* ---- a request ---- */

static bool add_header(struct transfer *t, const char *name, const char *value)
{
	if (!value)
		return true;

	char *line = format_string("%s: %s", name, value);
	struct curl_slist *grown = line ? curl_slist_append(t->headers, line) : NULL;

	if (line)
		explicit_bzero(line, strlen(line));
	free(line);
	if (grown)
		t->headers = grown;
	return grown;
}

static bool set_headers(struct transfer *t, const struct transfer_request *request)
{
	/* digests are of the bytes as stored: nobody may compress them on the way */
	return add_header(t, "Accept-Encoding", "identity") && add_header(t, "Accept", request->accept) &&
	       add_header(t, "Authorization", request->authorization) &&
	       curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers) == CURLE_OK;
}

static bool set_tls(CURL *easy, const struct transfer_tls *tls)
{
	if (!tls)
		return true;
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, tls->no_verify ? 0l : 1l);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, tls->no_verify ? 0l : 2l);
	if (tls->cert && (curl_easy_setopt(easy, CURLOPT_SSLCERT, tls->cert) != CURLE_OK ||
			  curl_easy_setopt(easy, CURLOPT_SSLKEY, tls->key) != CURLE_OK))
		return false;
	if (!tls->roots || !tls->roots->len)
		return true;

	struct curl_blob blob = {.data = tls->roots->data, .len = tls->roots->len, .flags = CURL_BLOB_NOCOPY};

	return curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob) == CURLE_OK;
}

static void set_callbacks(struct transfer *t)
{
	CURL *easy = t->easy;

	curl_easy_setopt(easy, CURLOPT_PRIVATE, t);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->why);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_connected);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, t);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, t);
}

static bool set_request(struct transfer *t, const struct transfer_request *request)
{
	CURL *easy = t->easy;
	/* the first option limits redirects, too; on_connected() sees to it that none leads from HTTPS to HTTP */
	const char *protocols = request->allow_http ? "http,https" : "https";
	char range[48], range_end[24] = "";

	set_callbacks(t);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1l);
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1l);
#endif
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "coco-pull/" CPULL_VERSION);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_HTTP_CONTENT_DECODING, 0l);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, request->buffer_bytes);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)request->connect_timeout_ms);
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, request->form ? 0l : 1l);
	curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)LIMIT_REDIRECTS);
	curl_easy_setopt(easy, CURLOPT_UNRESTRICTED_AUTH, 0l);
	curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	curl_easy_setopt(easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1l); /* they come from servers and images */
	curl_easy_setopt(easy, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1l);
	if (request->ranged) {
		if (request->range_end)
			snprintf(range_end, sizeof(range_end), "%llu", (unsigned long long)request->range_end - 1);
		snprintf(range, sizeof(range), "%llu-%s", (unsigned long long)request->range_from, range_end);
		curl_easy_setopt(easy, CURLOPT_RANGE, range);
	}
	if (request->form && curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, request->form) != CURLE_OK)
		return false;
	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, protocols) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, protocols) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_URL, request->url) == CURLE_OK && set_headers(t, request) &&
	       set_tls(easy, request->tls);
}

int transfer_start(struct transfers *ts, const struct transfer_request *request, struct transfer **out,
		   struct cpull_error *err)
{
	struct transfer *t = calloc(1, sizeof(*t));

	if (!t)
		return error_nomem(err);
	t->transfers = ts;
	t->request = *request;
	t->request.url = t->request.accept = t->request.authorization = NULL;
	t->silence = (struct loop_timer){.run = on_silence, .payload = t};
	t->reply.length = -1;
	t->fd = -1;
	t->url = strdup(request->url);
	t->easy = curl_easy_init();
	if (!t->url || !t->easy || !set_request(t, request)) {
		transfer_free(t);
		return error_nomem(err);
	}
	t->last_ms = now_ms();
	if (curl_multi_add_handle(ts->multi, t->easy) != CURLM_OK) {
		transfer_free(t);
		return error_set(err, CPULL_ERR_INTERNAL, "libcurl does not take another transfer");
	}
	loop_timer_set(ts->loop, &t->silence, t->last_ms + request->stall_timeout_ms);
	*out = t;
	return 0;
}

void transfer_resume(struct transfer *t)
{
	if (!t->paused)
		return;
	t->paused = false;
	t->last_ms = now_ms();

	CURLcode rc = curl_easy_pause(t->easy, CURLPAUSE_CONT);

	if (rc != CURLE_OK)
		transfer_end(t, rc);
}

void transfer_stop(struct transfer *t)
{
	if (t)
		transfer_free(t);
}
