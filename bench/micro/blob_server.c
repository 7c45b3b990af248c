/* SPDX-License-Identifier: Apache-2.0
 *
 * A process a connection: it reads a request to its empty line, answers with the blob, and takes the next request. The
 * server is forked by the receive stage while that has no threads; it works on memory it shares with its parent and
 * never returns.
 */
#include "bench/micro/blob_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "bench/micro/micro_config.h"
#include "engine/base/error.h"

#ifdef HAVE_LIBSSL
#include <openssl/ssl.h>
#include <openssl/x509.h>
#else
typedef void SSL; /* never made */
typedef void SSL_CTX;
#endif

#define REQUEST_BYTES 4096u
#define PIECE_BYTES ((size_t)256 << 10)

/* ---- TLS ---- */

#ifdef HAVE_LIBSSL

/* P-256, self-signed, good for an hour. */
static SSL_CTX *tls_new(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();
	X509_NAME *name = cert ? X509_get_subject_name(cert) : NULL;
	bool ok = ctx && key && cert && ASN1_INTEGER_set(X509_get_serialNumber(cert), 1) &&
		  X509_gmtime_adj(X509_getm_notBefore(cert), 0) && X509_gmtime_adj(X509_getm_notAfter(cert), 3600) &&
		  X509_set_pubkey(cert, key) &&
		  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"127.0.0.1", -1, -1, 0) &&
		  X509_set_issuer_name(cert, name) && X509_sign(cert, key, EVP_sha256()) &&
		  SSL_CTX_use_certificate(ctx, cert) == 1 && SSL_CTX_use_PrivateKey(ctx, key) == 1;

	X509_free(cert);
	EVP_PKEY_free(key);
	if (ok)
		return ctx;
	SSL_CTX_free(ctx);
	return NULL;
}

static SSL *tls_accept(SSL_CTX *ctx, int fd)
{
	SSL *ssl = SSL_new(ctx);

	if (ssl && SSL_set_fd(ssl, fd) == 1 && SSL_accept(ssl) == 1)
		return ssl;
	SSL_free(ssl);
	return NULL;
}

static ssize_t tls_read(SSL *ssl, void *data, size_t len)
{
	return SSL_read(ssl, data, (int)len);
}

static ssize_t tls_write(SSL *ssl, const void *data, size_t len)
{
	return SSL_write(ssl, data, (int)len);
}

static void tls_end(SSL *ssl)
{
	SSL_free(ssl);
}

#else

static SSL_CTX *tls_new(void)
{
	return NULL;
}

static SSL *tls_accept(SSL_CTX *ctx, int fd)
{
	(void)ctx;
	(void)fd;
	return NULL;
}

static ssize_t tls_read(SSL *ssl, void *data, size_t len)
{
	(void)ssl;
	(void)data;
	(void)len;
	return -1;
}

static ssize_t tls_write(SSL *ssl, const void *data, size_t len)
{
	(void)ssl;
	(void)data;
	(void)len;
	return -1;
}

static void tls_end(SSL *ssl)
{
	(void)ssl;
}

#endif

/* ---- HTTP ---- */

static bool send_all(int fd, SSL *ssl, const uint8_t *data, size_t len)
{
	while (len) {
		size_t piece = MIN(len, PIECE_BYTES);
		ssize_t n = ssl ? tls_write(ssl, data, piece) : send(fd, data, piece, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		data += n;
		len -= (size_t)n;
	}
	return true;
}

static bool read_request(int fd, SSL *ssl)
{
	char request[REQUEST_BYTES];
	size_t len = 0;

	while (len < sizeof(request)) {
		ssize_t n = ssl ? tls_read(ssl, request + len, sizeof(request) - len)
				: recv(fd, request + len, sizeof(request) - len, 0);

		if (n <= 0)
			return false;
		len += (size_t)n;
		if (memmem(request, len, "\r\n\r\n", 4))
			return true;
	}
	return false;
}

static void serve(int fd, SSL_CTX *ctx, const uint8_t *data, size_t len)
{
	SSL *ssl = ctx ? tls_accept(ctx, fd) : NULL;
	char head[128];
	int head_len = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", len);

	if (ctx && !ssl)
		return;
	while (read_request(fd, ssl))
		if (!send_all(fd, ssl, (const uint8_t *)head, (size_t)head_len) || !send_all(fd, ssl, data, len))
			break;
	tls_end(ssl);
}

__attribute__((noreturn)) static void server_main(int listener, const uint8_t *data, size_t len, bool tls)
{
	SSL_CTX *ctx = tls ? tls_new() : NULL;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
	while (!tls || ctx) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0 && fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			serve(fd, ctx, data, len);
			_exit(0);
		}
		if (fd >= 0)
			close(fd);
	}
	_exit(1);
}

int blob_server_start(const uint8_t *data, size_t len, bool tls, struct blob_server *out, struct cpull_error *err)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t at_len = sizeof(at);
	CLEANUP_FD int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

#ifndef HAVE_LIBSSL
	if (tls)
		return error_set(err, CPULL_ERR_UNSUPPORTED, "built without libssl");
#endif
	if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof(at)) || listen(listener, 8) ||
	    getsockname(listener, (struct sockaddr *)&at, &at_len))
		return error_sys(err, CPULL_ERR_NETWORK, errno, "listening on loopback");
	fflush(NULL);

	pid_t pid = fork();

	if (pid < 0)
		return error_sys(err, CPULL_ERR_INTERNAL, errno, "starting a server");
	if (pid == 0)
		server_main(listener, data, len, tls);
	*out = (struct blob_server){.pid = pid, .port = ntohs(at.sin_port)};
	return 0;
}

void blob_server_stop(struct blob_server *server)
{
	if (server->pid <= 0)
		return;
	kill(server->pid, SIGKILL);
	waitpid(server->pid, NULL, 0);
	server->pid = 0;
}
