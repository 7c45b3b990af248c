/* SPDX-License-Identifier: Apache-2.0
 *
 * A small HTTP/1.1 server inside of the test: loopback, a free port, a thread a connection. What it answers is the
 * test's function. Nothing here knows registries.
 */
#ifndef TESTS_HTTP_SERVER_H
#define TESTS_HTTP_SERVER_H

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "engine/base/util.h"

#define SERVER_CONNECTIONS 128

struct request {
	char method[8];
	char path[1024]; /* with the query */
	char head[8192]; /* all lines */
	char body[2048];
	bool ranged;
	uint64_t from;
	uint64_t to; /* the last byte asked for, UINT64_MAX for all that follow */
	char authorization[512];
	unsigned number; /* of all requests of this server, from 1 */
	unsigned path_number; /* of those with the same path */
};

struct server;
/* Returns whether the connection may be used again. */
typedef bool (*server_fn)(struct server *server, int fd, const struct request *request);

struct server {
	int listener;
	uint16_t port;
	server_fn fn;
	void *payload;
	pthread_t thread;
	pthread_mutex_t lock; /* the rest */
	bool stopping;
	unsigned requests;
	unsigned authorized; /* requests with an Authorization field */
	struct {
		char path[1024];
		unsigned count;
	} paths[64];
	struct connection {
		struct server *server;
		pthread_t thread;
		int fd;
	} connections[SERVER_CONNECTIONS];
	unsigned connection_count;
};

static inline bool server_stopping(struct server *server)
{
	pthread_mutex_lock(&server->lock);
	bool stopping = server->stopping;

	pthread_mutex_unlock(&server->lock);
	return stopping;
}

/* Keeps silent until the client goes away or the server stops. */
static inline void server_hang(struct server *server, int fd)
{
	char byte;

	while (!server_stopping(server)) {
		struct pollfd poller = {.fd = fd, .events = POLLIN | POLLRDHUP};

		if (poll(&poller, 1, 20) > 0 && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
			return;
	}
}

static inline bool server_send(struct server *server, int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len) {
		ssize_t n = send(fd, at, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			struct pollfd poller = {.fd = fd, .events = POLLOUT};

			if (server_stopping(server))
				return false;
			poll(&poller, 1, 20);
			continue;
		}
		if (n <= 0)
			return false;
		at += n;
		len -= (size_t)n;
	}
	return true;
}

__attribute__((format(printf, 3, 4))) static inline bool server_printf(struct server *server, int fd,
									const char *fmt, ...)
{
	char text[4096];
	va_list args;

	va_start(args, fmt);
	int len = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return server_send(server, fd, text, (size_t)len);
}

/* A whole answer; fields are "Name: value\r\n" each. */
static inline bool server_reply(struct server *server, int fd, int status, const char *fields, const char *body)
{
	return server_printf(server, fd, "HTTP/1.1 %d Text\r\nContent-Length: %zu\r\n%s\r\n%s", status, strlen(body),
			     fields, body);
}

static inline void server_note(struct server *server, struct request *request)
{
	pthread_mutex_lock(&server->lock);
	request->number = ++server->requests;
	server->authorized += request->authorization[0] != 0;
	for (size_t i = 0; i < ARRAY_LEN(server->paths); i++) {
		if (server->paths[i].count && strcmp(server->paths[i].path, request->path) != 0)
			continue;
		memcpy(server->paths[i].path, request->path, sizeof(request->path));
		request->path_number = ++server->paths[i].count;
		break;
	}
	pthread_mutex_unlock(&server->lock);
}

static inline unsigned server_requests(struct server *server)
{
	pthread_mutex_lock(&server->lock);
	unsigned n = server->requests;

	pthread_mutex_unlock(&server->lock);
	return n;
}

/* The same once it is `want`, or after two seconds: a client that gave up early may be ahead of the server's thread,
 * but what it sent is counted in the end, and what it never sent is not. */
static inline unsigned server_requests_soon(struct server *server, unsigned want)
{
	for (int i = 0; i < 200 && server_requests(server) != want; i++)
		poll(NULL, 0, 10);
	return server_requests(server);
}

static inline void server_copy_field(const char *head, const char *name, char *out, size_t room)
{
	const char *at = strcasestr(head, name);

	out[0] = 0;
	if (!at)
		return;
	at += strlen(name);
	snprintf(out, room, "%.*s", (int)strcspn(at, "\r\n"), at);
}

static inline bool server_read(int fd, struct request *request)
{
	size_t len = 0;
	char *end = NULL, length[32];

	memset(request, 0, sizeof(*request));
	while (!end) {
		size_t room = sizeof(request->head) - 1 - len;
		ssize_t n = room ? recv(fd, request->head + len, room, 0) : 0;

		if (n <= 0)
			return false;
		len += (size_t)n;
		/* a TLS greeting: as other servers do, say in plain HTTP that this is none */
		if ((unsigned char)request->head[0] < ' ') {
			static const char no[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";

			send(fd, no, sizeof(no) - 1, MSG_NOSIGNAL);
			return false;
		}
		end = strstr(request->head, "\r\n\r\n");
	}
	if (sscanf(request->head, "%7s %1023s", request->method, request->path) != 2)
		return false;
	end[2] = 0;
	server_copy_field(request->head, "\nAuthorization: ", request->authorization, sizeof(request->authorization));
	server_copy_field(request->head, "\nContent-Length: ", length, sizeof(length));

	char *range = strcasestr(request->head, "\nRange: bytes=");

	request->ranged = range;
	request->from = range ? strtoull(range + 14, &range, 10) : 0;
	request->to = range && range[0] == '-' && range[1] >= '0' && range[1] <= '9' ? strtoull(range + 1, NULL, 10)
										     : UINT64_MAX;

	size_t want = strtoul(length, NULL, 10), have = len - (size_t)(end + 4 - request->head);

	if (want >= sizeof(request->body))
		return false;
	memcpy(request->body, end + 4, have < want ? have : want);
	while (have < want) {
		ssize_t n = recv(fd, request->body + have, want - have, 0);

		if (n <= 0)
			return false;
		have += (size_t)n;
	}
	return true;
}

static inline void *server_connection(void *payload)
{
	struct connection *connection = payload;
	struct server *server = connection->server;
	struct request *request = malloc(sizeof(*request));

	while (request && server_read(connection->fd, request)) {
		server_note(server, request);
		if (!server->fn(server, connection->fd, request))
			break;
	}
	free(request);
	shutdown(connection->fd, SHUT_RDWR);
	return NULL;
}

static inline void *server_accept(void *payload)
{
	struct server *server = payload;

	for (;;) {
		int fd = accept(server->listener, NULL, NULL), on = 1;

		if (fd < 0 && (errno == EMFILE || errno == ENFILE) && !server_stopping(server)) {
			poll(NULL, 0, 10); /* a test took them all */
			continue;
		}
		if (fd < 0)
			return NULL;
		/* or a head without a body waits for the client's delayed acknowledgement */
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		pthread_mutex_lock(&server->lock);
		if (server->stopping || server->connection_count == SERVER_CONNECTIONS) {
			close(fd);
		} else {
			struct connection *c = &server->connections[server->connection_count++];

			c->server = server;
			c->fd = fd;
			if (pthread_create(&c->thread, NULL, server_connection, c)) {
				close(fd);
				server->connection_count--;
			}
		}
		pthread_mutex_unlock(&server->lock);
	}
}

/* Zero, or the test cannot go on. Port 0: any that is free. */
static inline int server_start_at(struct server *server, server_fn fn, void *payload, uint16_t port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
	socklen_t len = sizeof(address);
	int on = 1;

	memset(server, 0, sizeof(*server));
	server->fn = fn;
	server->payload = payload;
	pthread_mutex_init(&server->lock, NULL);
	server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (server->listener < 0 || setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(server->listener, (struct sockaddr *)&address, len) || listen(server->listener, 64) ||
	    getsockname(server->listener, (struct sockaddr *)&address, &len))
		return -1;
	server->port = ntohs(address.sin_port);
	return pthread_create(&server->thread, NULL, server_accept, server);
}

static inline int server_start(struct server *server, server_fn fn, void *payload)
{
	return server_start_at(server, fn, payload, 0);
}

static inline void server_stop(struct server *server)
{
	pthread_mutex_lock(&server->lock);
	server->stopping = true;
	for (unsigned i = 0; i < server->connection_count; i++)
		shutdown(server->connections[i].fd, SHUT_RDWR);
	pthread_mutex_unlock(&server->lock);
	shutdown(server->listener, SHUT_RDWR);
	pthread_join(server->thread, NULL);
	for (unsigned i = 0; i < server->connection_count; i++) {
		pthread_join(server->connections[i].thread, NULL);
		close(server->connections[i].fd);
	}
	close(server->listener);
	pthread_mutex_destroy(&server->lock);
}

#endif
