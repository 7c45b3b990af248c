/* SPDX-License-Identifier: Apache-2.0
 *
 * Cleanup attributes, steal helpers and the few functions of general use that have no other home.
 */
#ifndef BASE_UTIL_H
#define BASE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/coco_pull.h"

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define MUST_CHECK __attribute__((warn_unused_result))

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_file(FILE **f)
{
	if (*f)
		fclose(*f);
}

#define CLEANUP_FREE __attribute__((cleanup(cleanup_free)))
#define CLEANUP_FD __attribute__((cleanup(cleanup_fd)))
#define CLEANUP_FILE __attribute__((cleanup(cleanup_file)))

/* Hands a pointer out of a variable that has a cleanup attribute. */
#define STEAL(p)                       \
	({                             \
		__typeof__(p) p_ = (p); \
		(p) = NULL;            \
		p_;                    \
	})

static inline int steal_fd(int *fd)
{
	int out = *fd;

	*fd = -1;
	return out;
}

/* A growing byte buffer with a hard maximum; NUL-terminated behind `len` once anything was added. */
struct bytes {
	char *data;
	size_t len;
	size_t cap;
};

/* Appends; CPULL_ERR_LIMIT when the total would pass `max`, CPULL_ERR_NOMEM, or 0. */
MUST_CHECK int bytes_append(struct bytes *b, const void *data, size_t len, size_t max);
void bytes_free(struct bytes *b);
#define CLEANUP_BYTES __attribute__((cleanup(bytes_free)))

/* Reads a file of at most `max` bytes into *out, NUL-terminated. Fills err (kind by errno: not found,
 * permission, storage; CPULL_ERR_LIMIT when it is larger). `what` names it in the message ("auth file"). */
MUST_CHECK int file_read(const char *path, size_t max, const char *what, struct bytes *out,
			 struct cpull_error *err);

/* Standard alphabet, padded, strict. Returns the length or -1. `out` needs len / 4 * 3 bytes. */
ssize_t base64_decode(const char *text, size_t len, uint8_t *out);

/* Lower-case hex; out needs 2 * len + 1 bytes. */
void hex_encode(const uint8_t *data, size_t len, char *out);

/* Frees a string that held a secret, wiped first. NULL is fine. */
void string_wipe(char *secret);

/* Can so much be allocated now? For libraries that say of the data what is true of the memory. */
bool memory_is_there(size_t bytes);

bool all_zero(const void *data, size_t len);
/* Of a struct of `size` bytes, of which `known` are known here: is the rest zero? */
static inline bool tail_is_zero(const void *data, size_t size, size_t known)
{
	return size <= known || all_zero((const char *)data + known, size - known);
}

/* Monotonic clock. */
uint64_t now_ns(void);
uint64_t now_ms(void);

/* asprintf that returns NULL on failure. */
char *format_string(const char *fmt, ...) PRINTF_LIKE(1, 2);

#endif
