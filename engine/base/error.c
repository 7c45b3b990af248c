/* SPDX-License-Identifier: Apache-2.0
 *
 * Error objects: filled once where the facts are known, wrapped on the way up. Called from every thread, each on its
 * own object.
 */
#include "engine/base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

static const struct {
	int code;
	enum cpull_class class;
	const char *name;
} codes[] = {
	{CPULL_OK, CPULL_CLASS_OK, "ok"},
	{CPULL_ERR_INTERNAL, CPULL_CLASS_OTHER, "internal"},
	{CPULL_ERR_USAGE, CPULL_CLASS_USAGE, "usage"},
	{CPULL_ERR_NOMEM, CPULL_CLASS_OTHER, "memory"},
	{CPULL_ERR_CANCELLED, CPULL_CLASS_CANCELLED, "cancelled"},
	{CPULL_ERR_DEADLINE, CPULL_CLASS_DEADLINE, "deadline"},
	{CPULL_ERR_NETWORK, CPULL_CLASS_NETWORK, "network"},
	{CPULL_ERR_STALLED, CPULL_CLASS_NETWORK, "stalled"},
	{CPULL_ERR_REGISTRY, CPULL_CLASS_NETWORK, "registry"},
	{CPULL_ERR_AUTH, CPULL_CLASS_AUTH, "auth"},
	{CPULL_ERR_NOT_FOUND, CPULL_CLASS_NOT_FOUND, "not_found"},
	{CPULL_ERR_MANIFEST, CPULL_CLASS_IMAGE, "manifest"},
	{CPULL_ERR_MEDIA_TYPE, CPULL_CLASS_IMAGE, "media_type"},
	{CPULL_ERR_PLATFORM, CPULL_CLASS_IMAGE, "platform"},
	{CPULL_ERR_UNSUPPORTED, CPULL_CLASS_IMAGE, "unsupported"},
	{CPULL_ERR_LIMIT, CPULL_CLASS_IMAGE, "limit"},
	{CPULL_ERR_DIGEST, CPULL_CLASS_DIGEST, "digest"},
	{CPULL_ERR_SIZE, CPULL_CLASS_DIGEST, "size"},
	{CPULL_ERR_DIFF_ID, CPULL_CLASS_DIGEST, "diff_id"},
	{CPULL_ERR_DECOMPRESS, CPULL_CLASS_IMAGE, "decompress"},
	{CPULL_ERR_TAR, CPULL_CLASS_IMAGE, "tar"},
	{CPULL_ERR_ESCAPE, CPULL_CLASS_IMAGE, "escape"},
	{CPULL_ERR_WHITEOUT, CPULL_CLASS_IMAGE, "whiteout"},
	{CPULL_ERR_XATTR, CPULL_CLASS_STORAGE, "xattr"},
	{CPULL_ERR_KEY, CPULL_CLASS_KEY, "key"},
	{CPULL_ERR_DECRYPT, CPULL_CLASS_KEY, "decrypt"},
	{CPULL_ERR_POLICY, CPULL_CLASS_POLICY, "policy"},
	{CPULL_ERR_STORAGE, CPULL_CLASS_STORAGE, "storage"},
	{CPULL_ERR_SPACE, CPULL_CLASS_STORAGE, "space"},
	{CPULL_ERR_PERMISSION, CPULL_CLASS_STORAGE, "permission"},
};

enum cpull_class cpull_code_class(int code)
{
	for (size_t i = 0; i < ARRAY_LEN(codes); i++)
		if (codes[i].code == code)
			return codes[i].class;
	return CPULL_CLASS_OTHER;
}

const char *cpull_code_name(int code)
{
	for (size_t i = 0; i < ARRAY_LEN(codes); i++)
		if (codes[i].code == code)
			return codes[i].name;
	return "unknown";
}

static void start(struct cpull_error *err, int code)
{
	err->code = code;
	err->sys_errno = 0;
	err->http_status = 0;
	err->message[0] = 0;
}

int error_set(struct cpull_error *err, int code, const char *fmt, ...)
{
	if (!err)
		return code;
	start(err, code);

	va_list args;
	va_start(args, fmt);
	vsnprintf(err->message, sizeof(err->message), fmt, args);
	va_end(args);
	return code;
}

/* The class of trouble that errno itself names beats the one the caller expected. */
static int code_of_errno(int code, int num)
{
	switch (num) {
	case ENOSPC:
	case EDQUOT:
		return CPULL_ERR_SPACE;
	case EACCES:
	case EPERM:
	case EROFS:
		return CPULL_ERR_PERMISSION;
	case ENOMEM:
		return CPULL_ERR_NOMEM;
	default:
		return code;
	}
}

int error_sys(struct cpull_error *err, int code, int num, const char *fmt, ...)
{
	code = code_of_errno(code, num);
	if (!err)
		return code;
	start(err, code);
	err->sys_errno = num;

	va_list args;
	va_start(args, fmt);
	int len = vsnprintf(err->message, sizeof(err->message), fmt, args);
	va_end(args);

	char text[128];
	const char *reason = strerror_r(num, text, sizeof(text)); /* GNU's returns the string */
	if (len >= 0 && (size_t)len < sizeof(err->message))
		snprintf(err->message + len, sizeof(err->message) - (size_t)len, ": %s", reason);
	return code;
}

int error_wrap(struct cpull_error *err, const char *fmt, ...)
{
	if (!err)
		return CPULL_ERR_INTERNAL;

	char inner[CPULL_MESSAGE_BYTES];
	memcpy(inner, err->message, sizeof(inner));

	va_list args;
	va_start(args, fmt);
	int len = vsnprintf(err->message, sizeof(err->message), fmt, args);
	va_end(args);
	if (len >= 0 && (size_t)len < sizeof(err->message))
		snprintf(err->message + len, sizeof(err->message) - (size_t)len, ": %s", inner);
	return err->code;
}

int error_nomem(struct cpull_error *err)
{
	return error_set(err, CPULL_ERR_NOMEM, "out of memory");
}

int error_copy(struct cpull_error *err, const struct cpull_error *from)
{
	if (err)
		*err = *from;
	return from->code;
}

const char *error_quote(const char *text, size_t len, char *out, size_t out_bytes)
{
	static const char hex[] = "0123456789abcdef";
	size_t at = 0;

	for (size_t i = 0; i < len && at + 5 < out_bytes; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c >= 0x20 && c != 0x7f && c != '\\') {
			out[at++] = (char)c;
			continue;
		}
		out[at++] = '\\';
		out[at++] = 'x';
		out[at++] = hex[c >> 4];
		out[at++] = hex[c & 15];
	}
	out[at] = 0;
	return out;
}
