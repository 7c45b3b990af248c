/* SPDX-License-Identifier: Apache-2.0
 *
 * Buffers, encodings, clocks and whole-file reads. Called from every thread; holds nothing.
 */
#include "engine/base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "engine/base/error.h"

int bytes_append(struct bytes *b, const void *data, size_t len, size_t max)
{
	if (len > max || b->len > max - len)
		return CPULL_ERR_LIMIT;
	if (b->len + len + 1 > b->cap) {
		size_t cap = MAX(b->len + len + 1, MAX(b->cap * 2, (size_t)256));
		char *grown = realloc(b->data, cap);

		if (!grown)
			return CPULL_ERR_NOMEM;
		b->data = grown;
		b->cap = cap;
	}
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = 0;
	return 0;
}

void bytes_free(struct bytes *b)
{
	free(b->data);
	*b = (struct bytes){0};
}

/* Reads to the end into memory that is sized by the maximum, not by what the file claims to be. */
static int read_all(int fd, const char *path, size_t max, const char *what, struct bytes *out,
		    struct cpull_error *err)
{
	char block[16384];

	for (;;) {
		ssize_t n = read(fd, block, sizeof(block));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "reading %s %s", what, path);

		int rc = bytes_append(out, block, (size_t)n, max);

		/* a block may have held a key */
		explicit_bzero(block, (size_t)n);
		if (rc == CPULL_ERR_LIMIT)
			return error_set(err, rc, "reading %s %s: it is larger than %zu bytes", what, path, max);
		if (rc)
			return error_nomem(err);
		if (n == 0)
			return 0;
	}
}

int file_read(const char *path, size_t max, const char *what, struct bytes *out, struct cpull_error *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		return error_sys(err, errno == ENOENT ? CPULL_ERR_NOT_FOUND : CPULL_ERR_STORAGE, errno,
				 "opening %s %s", what, path);

	int rc = read_all(fd, path, max, what, out, err);

	if (rc)
		bytes_free(out);
	return rc;
}

static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+')
		return 62;
	if (c == '/')
		return 63;
	return -1;
}

ssize_t base64_decode(const char *text, size_t len, uint8_t *out)
{
	size_t at = 0;

	if (len % 4)
		return -1;
	for (size_t i = 0; i < len; i += 4) {
		bool last = i + 4 == len;
		int pad = last && text[i + 3] == '=' ? 1 + (text[i + 2] == '=') : 0;
		uint32_t word = 0;

		for (int k = 0; k < 4 - pad; k++) {
			int v = base64_value(text[i + (size_t)k]);

			if (v < 0)
				return -1;
			word |= (uint32_t)v << (18 - 6 * k);
		}
		/* the bits that the padding throws away must be zero: one text for one value */
		if ((pad == 1 && (word & 0xff)) || (pad == 2 && (word & 0xffff)))
			return -1;
		for (int k = 0; k < 3 - pad; k++)
			out[at++] = (uint8_t)(word >> (16 - 8 * k));
	}
	return (ssize_t)at;
}

void hex_encode(const uint8_t *data, size_t len, char *out)
{
	static const char hex[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = hex[data[i] >> 4];
		out[2 * i + 1] = hex[data[i] & 15];
	}
	out[2 * len] = 0;
}

bool memory_is_there(size_t bytes)
{
	/* volatile: a compiler takes malloc() with free() behind it for nothing at all that always works */
	void *volatile probe = malloc(bytes);
	bool there = probe != NULL;

	free(probe);
	return there;
}

bool all_zero(const void *data, size_t len)
{
	const uint8_t *at = data;

	for (size_t i = 0; i < len; i++)
		if (at[i])
			return false;
	return true;
}

void string_wipe(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

uint64_t now_ms(void)
{
	return now_ns() / 1000000;
}

char *format_string(const char *fmt, ...)
{
	char *out = NULL;
	va_list args;

	va_start(args, fmt);
	if (vasprintf(&out, fmt, args) < 0)
		out = NULL;
	va_end(args);
	return out;
}
