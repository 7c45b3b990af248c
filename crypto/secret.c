/* SPDX-License-Identifier: Apache-2.0
 *
 * The secure heap and the wiping of what cannot live in it. Called from every thread; holds the one guard that the
 * process-wide secure heap of OpenSSL needs.
 */
#include "crypto/secret.h"

#include <pthread.h>
#include <string.h>

#include <openssl/crypto.h>

#include "crypto/keys.h"
#include "engine/base/error.h"
#include "engine/base/limits.h"

/* A 4096-bit RSA key takes 1.8 KiB of it, a layer key 128 bytes, an open wrap 8 KiB: enough for forty keys and all
 * jobs, and small enough to be locked under most RLIMIT_MEMLOCK. */
#define SECURE_HEAP_BYTES (128u << 10)
#define SECURE_HEAP_MIN_BYTES 32u
/* What OpenSSL allocates for the heap's maps. It aborts the process when it does not get that. */
#define SECURE_HEAP_MAPS_BYTES (64u << 10)

void secure_heap_init(struct log *log)
{
	/* OpenSSL's init is neither idempotent nor thread-safe; the heap is the process's, and these two with it */
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static bool warned;
	bool warn = false;

	pthread_mutex_lock(&lock);
	if (!CRYPTO_secure_malloc_initialized() && memory_is_there(SECURE_HEAP_MAPS_BYTES) &&
	    CRYPTO_secure_malloc_init(SECURE_HEAP_BYTES, SECURE_HEAP_MIN_BYTES) != 1) {
		warn = !warned;
		warned = true;
	}
	pthread_mutex_unlock(&lock);
	if (warn)
		log_warn(log, "keys may be swapped out: %u bytes of memory could not be locked; raise RLIMIT_MEMLOCK",
			 SECURE_HEAP_BYTES);
}

int secret_new(struct secret *secret, size_t cap, struct cpull_error *err)
{
	*secret = (struct secret){.data = OPENSSL_secure_zalloc(cap + 1), .cap = cap};
	if (!secret->data)
		return error_set(err, CPULL_ERR_NOMEM, "out of secure memory for keys (%zu bytes wanted)", cap);
	return 0;
}

void secret_free(struct secret *secret)
{
	OPENSSL_secure_clear_free(secret->data, secret->cap + 1);
	*secret = (struct secret){0};
}

static void wipe_string(json_t *node)
{
	if (json_is_string(node))
		OPENSSL_cleanse((char *)json_string_value(node), json_string_length(node));
}

/* One container on the way down, and the next child to look at. */
struct wipe_frame {
	json_t *node;
	void *member; /* iterator of an object */
	size_t index; /* of an array */
};

static json_t *next_child(struct wipe_frame *frame)
{
	if (json_is_array(frame->node))
		return json_array_get(frame->node, frame->index++);
	if (!frame->member)
		return NULL;

	json_t *child = json_object_iter_value(frame->member);

	frame->member = json_object_iter_next(frame->node, frame->member);
	return child;
}

static struct wipe_frame frame_of(json_t *node)
{
	return (struct wipe_frame){.node = node, .member = json_is_object(node) ? json_object_iter(node) : NULL};
}

void secret_wipe_json(json_t *node)
{
	/* json_parse() let no deeper document in */
	struct wipe_frame frames[LIMIT_JSON_DEPTH + 1];
	size_t depth = 0;

	wipe_string(node);
	if (!json_is_object(node) && !json_is_array(node))
		return;
	frames[depth++] = frame_of(node);
	while (depth) {
		json_t *child = next_child(&frames[depth - 1]);

		if (!child)
			depth--;
		else if (!json_is_object(child) && !json_is_array(child))
			wipe_string(child);
		else if (depth < ARRAY_LEN(frames))
			frames[depth++] = frame_of(child);
	}
}

void secret_json_free(json_t **node)
{
	secret_wipe_json(*node);
	json_decref(*node);
	*node = NULL;
}

void secret_bytes_free(struct bytes *bytes)
{
	if (bytes->data)
		OPENSSL_cleanse(bytes->data, bytes->cap);
	bytes_free(bytes);
}
