/* SPDX-License-Identifier: Apache-2.0
 *
 * A registry inside of the test: serves made images over http_server.h, with ranges, and each blob at a pace of its
 * own. Content and paces are set before it starts and left alone until it has stopped.
 */
#ifndef TESTS_UNIT_MADE_REGISTRY_H
#define TESTS_UNIT_MADE_REGISTRY_H

#include <stdatomic.h>

#include "tests/unit/http_server.h"
#include "tests/unit/made_image.h"

/* Zero: as fast as it goes. */
struct made_pace {
	size_t piece_bytes; /* in pieces of so many bytes, with a pause before each */
	unsigned pause_us;
	size_t stall_at;    /* silent for a while before this byte */
	unsigned stall_ms;
	bool wrong;         /* one byte is another one */
	size_t cut_at;      /* the connection breaks here the first time */
	bool missing;       /* 404 */
	bool gone;          /* 404 from the second time on */
};

struct made_item {
	const char *digest;
	const char *type; /* NULL: a blob */
	const struct bytes *data;
	struct made_pace pace;
	atomic_uint served;
};

#define MADE_ITEMS 160u
#define MADE_TAGS 8u

struct made_registry {
	struct server server;
	struct made_item items[MADE_ITEMS];
	size_t item_count;
	struct {
		char name[32];
		const struct made_image *image;
	} tags[MADE_TAGS];
	size_t tag_count;
	atomic_uint manifest_requests, blob_requests;
};

static inline struct made_item *made_item_find(struct made_registry *r, const char *digest)
{
	for (size_t i = 0; i < r->item_count; i++)
		if (strcmp(r->items[i].digest, digest) == 0)
			return &r->items[i];
	return NULL;
}

static inline void made_item_add(struct made_registry *r, const char *digest, const char *type,
				 const struct bytes *data, const struct made_pace *pace)
{
	if (made_item_find(r, digest))
		return;
	must(r->item_count < MADE_ITEMS, "room for another blob");
	r->items[r->item_count++] = (struct made_item){.digest = digest, .type = type, .data = data,
						       .pace = pace ? *pace : (struct made_pace){0}};
}

/* Of a layer that two images have, the first one's pace counts. paces: one a layer, or NULL. */
static inline void made_registry_add(struct made_registry *r, const char *tag, const struct made_image *image,
				     const struct made_pace *paces)
{
	must(r->tag_count < MADE_TAGS, "room for another tag");
	snprintf(r->tags[r->tag_count].name, sizeof(r->tags[0].name), "%s", tag);
	r->tags[r->tag_count++].image = image;
	made_item_add(r, image->manifest.digest, "application/vnd.oci.image.manifest.v1+json", &image->manifest.text,
		      NULL);
	made_item_add(r, image->config.digest, NULL, &image->config.text, NULL);
	for (size_t i = 0; i < image->layer_count; i++)
		made_item_add(r, image->layers[i]->digest, NULL, &image->layers[i]->blob, paces ? &paces[i] : NULL);
}

static inline void made_sleep_us(unsigned us)
{
	nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = (long)(us % 1000000) * 1000}, NULL);
}

/* The bytes from `from` up to `end`, at the item's pace. */
static inline bool made_send(struct server *server, int fd, struct made_item *item, size_t from, size_t end)
{
	const struct made_pace *pace = &item->pace;
	bool cut = atomic_fetch_add(&item->served, 1) == 0 && pace->cut_at;

	while (from < end) {
		size_t stop = end;

		if (pace->piece_bytes) {
			stop = MIN(end, from + pace->piece_bytes);
			made_sleep_us(pace->pause_us);
		}
		if (pace->stall_ms && from == pace->stall_at)
			made_sleep_us(pace->stall_ms * 1000);
		if (from < pace->stall_at)
			stop = MIN(stop, pace->stall_at);
		if (cut && from >= pace->cut_at)
			return false;
		if (cut)
			stop = MIN(stop, pace->cut_at);

		size_t wrong = item->data->len / 2;

		if (pace->wrong && from <= wrong && wrong < stop) {
			char byte = (char)(item->data->data[wrong] ^ 1);

			if (!server_send(server, fd, item->data->data + from, wrong - from) ||
			    !server_send(server, fd, &byte, 1))
				return false;
			from = wrong + 1;
		}
		if (!server_send(server, fd, item->data->data + from, stop - from))
			return false;
		from = stop;
	}
	return true;
}

static inline bool made_reply(struct server *server, int fd, const struct request *request, struct made_item *item)
{
	size_t len = item->data->len, from = request->ranged ? (size_t)request->from : 0, end = len;
	char range[100] = "", head[600];

	if (request->ranged && request->to < len)
		end = (size_t)request->to + 1;
	if (from >= len && request->ranged)
		return server_reply(server, fd, 416, "", "");
	if (request->ranged)
		snprintf(range, sizeof(range), "Content-Range: bytes %zu-%zu/%zu\r\n", from, end - 1, len);
	snprintf(head, sizeof(head), "HTTP/1.1 %d Text\r\nContent-Length: %zu\r\nContent-Type: %s\r\n%s"
		 "Docker-Content-Digest: %s\r\nAccept-Ranges: bytes\r\n\r\n", request->ranged ? 206 : 200, end - from,
		 item->type ? item->type : "application/octet-stream", range, item->digest);
	return server_send(server, fd, head, strlen(head)) &&
	       (!strcmp(request->method, "HEAD") || made_send(server, fd, item, from, end));
}

/* "/v2/<any name>/manifests/<tag or digest>", "/v2/<any name>/blobs/<digest>". */
static inline bool made_answer(struct server *server, int fd, const struct request *request)
{
	struct made_registry *r = server->payload;
	const char *manifest = strstr(request->path, "/manifests/"), *blob = strstr(request->path, "/blobs/");
	const char *digest = manifest ? manifest + strlen("/manifests/") : blob ? blob + strlen("/blobs/") : "";

	if (manifest)
		atomic_fetch_add(&r->manifest_requests, 1);
	else
		atomic_fetch_add(&r->blob_requests, 1);
	for (size_t i = 0; manifest && i < r->tag_count; i++)
		if (strcmp(r->tags[i].name, digest) == 0)
			digest = r->tags[i].image->manifest.digest;

	struct made_item *item = made_item_find(r, digest);

	if (!item || item->pace.missing || (item->pace.gone && atomic_load(&item->served)))
		return server_reply(server, fd, 404, "", "{\"errors\":[{\"code\":\"BLOB_UNKNOWN\"}]}");
	return made_reply(server, fd, request, item);
}

static inline void made_registry_start(struct made_registry *r)
{
	must(!server_start(&r->server, made_answer, r), "server");
}

static inline void made_registry_stop(struct made_registry *r)
{
	server_stop(&r->server);
}

#endif
