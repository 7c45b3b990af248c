/* SPDX-License-Identifier: Apache-2.0
 *
 * From libcurl's codes and texts to ours. Called by transfer.c on the fetch thread. The texts that are looked at are
 * libcurl's and OpenSSL's own, which no code tells apart.
 */
#include "fetch/failure.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "engine/base/error.h"

static const struct {
	CURLcode rc;
	int code;
	enum retry_patience retry;
	const char *hint;
} ends[] = {
	{CURLE_COULDNT_RESOLVE_HOST, CPULL_ERR_NETWORK, RETRY_NEVER,
	 "; the name cannot be resolved: check its spelling, and the machine's DNS settings"},
	{CURLE_COULDNT_RESOLVE_PROXY, CPULL_ERR_NETWORK, RETRY_NEVER,
	 "; the name of the proxy cannot be resolved: check https_proxy and http_proxy"},
	{CURLE_COULDNT_CONNECT, CPULL_ERR_NETWORK, RETRY_BRIEFLY, ""},
	{CURLE_OPERATION_TIMEDOUT, CPULL_ERR_NETWORK, RETRY_LONG, ""},
	{CURLE_PARTIAL_FILE, CPULL_ERR_NETWORK, RETRY_LONG, ""},
	{CURLE_RECV_ERROR, CPULL_ERR_NETWORK, RETRY_LONG, ""},
	{CURLE_SEND_ERROR, CPULL_ERR_NETWORK, RETRY_LONG, ""},
	{CURLE_GOT_NOTHING, CPULL_ERR_NETWORK, RETRY_LONG, ""},
	{CURLE_SSL_CONNECT_ERROR, CPULL_ERR_NETWORK, RETRY_LONG, ""},
	{CURLE_HTTP2, CPULL_ERR_NETWORK, RETRY_LONG, ""},
	{CURLE_HTTP2_STREAM, CPULL_ERR_NETWORK, RETRY_LONG, ""},
	{CURLE_PEER_FAILED_VERIFICATION, CPULL_ERR_NETWORK, RETRY_NEVER,
	 "; the certificate is not accepted: give its CA with --cert-dir, or accept any with --tls-verify=false"},
	{CURLE_SSL_CACERT_BADFILE, CPULL_ERR_NETWORK, RETRY_NEVER,
	 "; the roots of --cert-dir or of the system cannot be loaded"},
	{CURLE_SSL_CERTPROBLEM, CPULL_ERR_NETWORK, RETRY_NEVER, "; the client certificate or key cannot be used"},
	{CURLE_LOGIN_DENIED, CPULL_ERR_REGISTRY, RETRY_NEVER, "; an URL with a user name in it is not followed"},
	{CURLE_TOO_MANY_REDIRECTS, CPULL_ERR_REGISTRY, RETRY_NEVER, ""},
	{CURLE_OUT_OF_MEMORY, CPULL_ERR_NOMEM, RETRY_NEVER, ""},
};

void failure_text(const char *text, const char *hint, char *why, size_t room)
{
	char quoted[300];

	error_quote(text, strlen(text), quoted, sizeof(quoted));
	snprintf(why, room, "%s%s", quoted, hint);
}

/* OpenSSL's ways of saying that the bytes it got are no TLS. */
static bool peer_speaks_no_tls(const char *text)
{
	return strstr(text, "wrong version number") || strstr(text, "packet length too long") ||
	       strstr(text, "http request") || strstr(text, "unknown protocol");
}

/* In TLS 1.3 a server that misses the client's certificate says so after the handshake, as a read error. */
static bool peer_wants_certificate(const char *text)
{
	return strstr(text, "certificate required") || strstr(text, "alert bad certificate") ||
	       strstr(text, "alert unknown ca");
}

/* EMFILE or ENFILE when no more descriptors can be had, else 0. Looking up a name takes two at once. */
static int descriptors_errno(void)
{
	int pair[2];

	if (pipe2(pair, O_CLOEXEC))
		return errno == EMFILE || errno == ENFILE ? errno : 0;
	close(pair[0]);
	close(pair[1]);
	return 0;
}

static const char *no_descriptors(int num)
{
	if (num == EMFILE)
		return "no file descriptors left; raise RLIMIT_NOFILE or lower --jobs";
	return num == ENFILE ? "no file descriptors left in the whole system (fs.file-max)" : NULL;
}

const char *failure_no_descriptors(void)
{
	return no_descriptors(descriptors_errno());
}

/* libcurl says neither of a resolver nor of a file that this is what they failed of. */
static const char *lacks_descriptors(const struct failure *f)
{
	switch (f->rc) {
	case CURLE_COULDNT_CONNECT:
		return no_descriptors(f->socket_errno);
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
		return failure_no_descriptors();
	default:
		return NULL;
	}
}

/* What the table below cannot tell by the code alone; NULL for all the rest. */
static const char *hint_by_text(const struct failure *f)
{
	if (f->rc == CURLE_SSL_CONNECT_ERROR && peer_speaks_no_tls(f->text))
		return "; the server does not speak TLS: for a registry on plain HTTP use --plain-http";
	if (peer_wants_certificate(f->text))
		return "; the server wants a client certificate that it knows: X.cert and X.key in --cert-dir";
	return NULL;
}

/* Nobody waits long for a host that was never there. */
static enum retry_patience patience_for(const struct failure *f, enum retry_patience usual)
{
	switch (f->rc) {
	case CURLE_SSL_CONNECT_ERROR:
		/* what OpenSSL itself objects to stays so; what the system says, or an end in the middle, may not */
		return !strncmp(f->text, "error:", 6) && !strstr(f->text, "unexpected eof") ? RETRY_NEVER : usual;
	case CURLE_OPERATION_TIMEDOUT:
		if (f->connected)
			return usual;
		return f->answered ? RETRY_LONG : RETRY_BRIEFLY;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
		return f->answered ? RETRY_LONG : usual;
	default:
		return usual;
	}
}

static int describe_protocol(const struct failure *f, char *why, size_t room)
{
	if (strstr(f->text, "HTTP/0.9")) {
		failure_text("the answer is not HTTP", f->https ? "" : "; the server may want HTTPS (no --plain-http)",
			     why, room);
		return CPULL_ERR_NETWORK;
	}
	failure_text(f->text, "; redirects lead to HTTPS only, or with --plain-http also to HTTP", why, room);
	return CPULL_ERR_REGISTRY;
}

int failure_describe(const struct failure *f, enum retry_patience *patience, char *why, size_t room)
{
	const char *lack = lacks_descriptors(f), *hint = hint_by_text(f);
	char reason[140], text[128];

	*patience = RETRY_NEVER;
	if (lack) {
		failure_text(lack, "", why, room);
		return CPULL_ERR_STORAGE;
	}
	if (f->rc == CURLE_RECV_ERROR && !f->connected && f->proxy_status >= 300) {
		*patience = f->proxy_status >= 500 ? RETRY_BRIEFLY : RETRY_NEVER;
		failure_text(f->text, "; the proxy does not let it through: check https_proxy and no_proxy", why, room);
		return CPULL_ERR_NETWORK;
	}
	if (f->rc == CURLE_COULDNT_CONNECT && f->os_errno) {
		*patience = patience_for(f, RETRY_BRIEFLY);
		snprintf(reason, sizeof(reason), ": %s", strerror_r(f->os_errno, text, sizeof(text)));
		failure_text(f->text, reason, why, room);
		return CPULL_ERR_NETWORK;
	}
	if (f->rc == CURLE_UNSUPPORTED_PROTOCOL)
		return describe_protocol(f, why, room);
	for (size_t i = 0; !hint && i < ARRAY_LEN(ends); i++)
		if (ends[i].rc == f->rc) {
			*patience = patience_for(f, ends[i].retry);
			failure_text(f->text, ends[i].hint, why, room);
			return ends[i].code;
		}
	failure_text(f->text, hint ? hint : "", why, room);
	return CPULL_ERR_NETWORK;
}
