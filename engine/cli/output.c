/* SPDX-License-Identifier: Apache-2.0
 *
 * The forms of what the program says: harmless text, sizes, times, errors, JSON. Called from the commands on the main
 * thread; owns nothing. Images and results have their forms in output_image.c.
 */
#include "engine/cli/output.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int output_error(struct cpull_error *err, int code, const char *fmt, ...)
{
	*err = (struct cpull_error){.code = code};

	va_list args;
	va_start(args, fmt);
	vsnprintf(err->message, sizeof(err->message), fmt, args);
	va_end(args);
	return code;
}

/* Length of the UTF-8 sequence at p and its code point; 0 when there is none. Reads no further than the NUL. */
static size_t decode_utf8(const unsigned char *p, uint32_t *out)
{
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;

	if (len < 2) {
		*out = p[0];
		return len;
	}
	uint32_t code = p[0] & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		if (p[i] >> 6 != 2)
			return 0;
		code = code << 6 | (p[i] & 0x3f);
	}
	if (code < smallest[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	*out = code;
	return len;
}

/* C0, DEL and C1 move cursors and set titles; the direction overrides make a name read as another one. */
static bool is_harmless(uint32_t code)
{
	return code >= 0x20 && !(code >= 0x7f && code < 0xa0) && !(code >= 0x200e && code <= 0x200f) &&
	       !(code >= 0x2028 && code <= 0x202e) && !(code >= 0x2066 && code <= 0x2069);
}

void output_clean(FILE *file, const char *text)
{
	const unsigned char *p = (const unsigned char *)(text ? text : "");

	while (*p) {
		uint32_t code = 0;
		size_t len = decode_utf8(p, &code);

		if (len && is_harmless(code)) {
			fwrite(p, 1, len, file);
			p += len;
			continue;
		}
		for (size_t i = 0; i < (len ? len : 1); i++)
			fprintf(file, "\\x%02x", p[i]);
		p += len ? len : 1;
	}
}

json_t *output_json_text(const char *text)
{
	if (!text)
		return json_null();
	json_t *plain = json_string(text);
	if (plain)
		return plain;

	/* A path may be any bytes, and an error message may have been cut within a character. */
	char *clean = malloc(strlen(text) * 3 + 1);
	if (!clean)
		return NULL;
	char *at = clean;
	for (const unsigned char *p = (const unsigned char *)text; *p;) {
		uint32_t code;
		size_t len = decode_utf8(p, &code);

		if (len)
			at = mempcpy(at, p, len);
		else
			at = mempcpy(at, "\xef\xbf\xbd", 3);
		p += len ? len : 1;
	}
	*at = 0;
	plain = json_string(clean);
	free(clean);
	return plain;
}

json_t *output_json_bytes(uint64_t bytes)
{
	return json_integer(bytes > INT64_MAX ? INT64_MAX : (json_int_t)bytes);
}

int output_json(json_t *value, bool indent, struct cpull_error *err)
{
	/* ASCII only: what an image says of itself cannot steer a terminal, and every parser reads it. */
	size_t flags = JSON_ENSURE_ASCII | JSON_ENCODE_ANY | (indent ? JSON_INDENT(2) : JSON_COMPACT);
	char *text = value ? json_dumps(value, flags) : NULL;

	json_decref(value);
	if (!text)
		return output_error(err, CPULL_ERR_NOMEM, "out of memory while writing JSON");
	puts(text);
	free(text);
	return CPULL_OK;
}

const char *output_size(uint64_t bytes, char out[16])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	unsigned unit = 0;

	/* 1023.95 would be printed as 1024.0. */
	for (; value >= 1023.95 && unit < 6; unit++)
		value /= 1024;
	if (unit)
		snprintf(out, 16, "%.1f %s", value, units[unit]);
	else
		snprintf(out, 16, "%u B", (unsigned)bytes);
	return out;
}

const char *output_seconds(uint64_t ns, char out[24])
{
	snprintf(out, 24, "%.2f s", (double)ns / 1e9);
	return out;
}

const char *output_time(int64_t seconds, char out[32])
{
	time_t when = (time_t)seconds;
	struct tm parts;

	if (!gmtime_r(&when, &parts) || !strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &parts))
		snprintf(out, 32, "@%" PRId64, seconds);
	return out;
}

const char *output_age(int64_t then, int64_t now, char out[32])
{
	static const struct {
		int64_t seconds;
		const char *name;
	} units[] = {{365 * 86400, "year"}, {30 * 86400, "month"}, {7 * 86400, "week"}, {86400, "day"},
		     {3600, "hour"},	    {60, "minute"},	   {1, "second"}};
	int64_t age;

	if (__builtin_sub_overflow(now, then, &age) || age < 1) {
		snprintf(out, 32, "now");
		return out;
	}
	size_t i = 0;
	while (age < units[i].seconds)
		i++;
	int64_t count = age / units[i].seconds;
	snprintf(out, 32, "%" PRId64 " %s%s ago", count, units[i].name, count == 1 ? "" : "s");
	return out;
}

const char *output_short_digest(const char *digest, char out[13])
{
	const char *colon = digest ? strchr(digest, ':') : NULL;

	snprintf(out, 13, "%.12s", colon ? colon + 1 : digest ? digest : "");
	for (char *p = out; *p; p++)
		if (*p <= ' ' || *p > '~')
			*p = '?';
	return out;
}

json_t *output_error_json(const struct cpull_error *err)
{
	json_t *body = json_object();
	int bad = json_object_set_new(body, "code", json_string(cpull_code_name(err->code))) |
		  json_object_set_new(body, "class", json_integer(cpull_code_class(err->code))) |
		  json_object_set_new(body, "message", output_json_text(err->message));

	if (err->sys_errno)
		bad |= json_object_set_new(body, "errno", json_integer(err->sys_errno));
	if (err->http_status)
		bad |= json_object_set_new(body, "http_status", json_integer(err->http_status));
	if (!bad)
		return body;
	json_decref(body);
	return NULL;
}

static json_t *failure_json(const struct cpull_error *err)
{
	json_t *whole = json_object();

	if (!json_object_set_new(whole, "error", output_error_json(err)))
		return whole;
	json_decref(whole);
	return NULL;
}

void output_failure(const struct cpull_error *err, bool json)
{
	struct cpull_error ignored;

	fputs("coco-pull: error: ", stderr);
	output_clean(stderr, *err->message ? err->message : cpull_code_name(err->code));
	fputc('\n', stderr);
	if (json)
		output_json(failure_json(err), false, &ignored);
}

int output_close(struct cpull_error *err)
{
	bool failed = ferror(stdout);

	errno = 0;
	if (fflush(stdout))
		failed = true;
	int num = errno;
	if (fclose(stdout) && !failed) {
		failed = true;
		num = errno;
	}
	if (!failed)
		return CPULL_OK;
	int code = output_error(err, CPULL_ERR_INTERNAL, "writing to standard output: %s",
				num ? strerror(num) : "not everything was taken");
	err->sys_errno = num;
	return code;
}
