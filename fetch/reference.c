/* SPDX-License-Identifier: Apache-2.0
 *
 * Image names. The grammar is that of distribution/reference, split from the right: digest, tag, then domain and path.
 * Called by the engine once a pull and by the store when it looks an image up, on the caller's thread. A parsed
 * reference owns its strings. Only a layout's directory touches the machine (realpath).
 */
#include "fetch/reference.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/base/limits.h"

#define HUB_DOMAIN "docker.io"
#define HUB_DOMAIN_ALIAS "index.docker.io"
#define HUB_NAMESPACE "library/"
#define LAYOUT_PREFIX "oci:"
#define TAG_BYTES 128u
#define PATH_BYTES 255u
#define DOMAIN_BYTES 261u /* 255 of a DNS name, a colon, five digits */

/* A piece of the text that is being parsed. */
struct span {
	const char *at;
	size_t len;
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static bool is_upper(char c)
{
	return c >= 'A' && c <= 'Z';
}

static bool is_alnum(char c)
{
	return is_digit(c) || is_lower(c) || is_upper(c);
}

static bool is_hex(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f');
}

static bool all_hex(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!is_hex(text[i]))
			return false;
	return true;
}

static bool has_upper(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if (is_upper(s.at[i]))
			return true;
	return false;
}

static bool span_is(struct span s, const char *text)
{
	return s.len == strlen(text) && !memcmp(s.at, text, s.len);
}

bool reference_digest_valid(const char *text)
{
	static const struct {
		const char *prefix;
		size_t digits;
	} algorithms[] = {{"sha256:", 64}, {"sha384:", 96}, {"sha512:", 128}};

	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
		size_t prefix_len = strlen(algorithms[i].prefix);

		if (!strncmp(text, algorithms[i].prefix, prefix_len))
			return strlen(text + prefix_len) == algorithms[i].digits &&
			       all_hex(text + prefix_len, algorithms[i].digits);
	}
	return false;
}

static int refuse(const char *text, struct cpull_error *err, const char *why)
{
	char quoted[300];

	return error_set(err, CPULL_ERR_USAGE, "image name \"%s\": %s",
			 error_quote(text, strnlen(text, sizeof(quoted)), quoted, sizeof(quoted)), why);
}

/* comp *("." comp), or "[" hex and colons "]"; then an optional port. */
static const char *domain_fault(struct span s)
{
	size_t i = 0;

	if (s.len > DOMAIN_BYTES)
		return "the host is too long";
	if (s.len && s.at[0] == '[') {
		for (i = 1; i < s.len && (is_hex(s.at[i]) || (s.at[i] >= 'A' && s.at[i] <= 'F') || s.at[i] == ':');)
			i++;
		if (i == 1 || i == s.len || s.at[i++] != ']')
			return "the IPv6 address in brackets is malformed";
	} else {
		for (char before = '.'; i < s.len && s.at[i] != ':'; before = s.at[i++]) {
			bool edge = before == '.' || s.at[i] == '.';

			if (!is_alnum(s.at[i]) && s.at[i] != '-' && s.at[i] != '.')
				return "the host has a character that host names do not have";
			if (edge && !(is_alnum(s.at[i]) || is_alnum(before)))
				return "the host has an empty piece, or one that begins or ends with '-'";
		}
		if (!i || !is_alnum(s.at[i - 1]))
			return "the host has an empty piece, or one that begins or ends with '-'";
	}
	if (i == s.len)
		return NULL;
	if (s.at[i++] != ':' || i == s.len)
		return "the port is missing behind the host's ':'";
	for (; i < s.len; i++)
		if (!is_digit(s.at[i]))
			return "the port is not a number";
	return NULL;
}

/* Length of the separator ("." "_" "__" or any number of "-") at the start of s; 0 when there is none. */
static size_t separator_len(struct span s)
{
	size_t len = 0;

	if (s.at[0] == '.')
		return 1;
	if (s.at[0] == '_')
		return s.len > 1 && s.at[1] == '_' ? 2 : 1;
	while (len < s.len && s.at[len] == '-')
		len++;
	return len;
}

/* pc *("/" pc) with pc runs of [a-z0-9] joined by separators. */
static const char *path_fault(struct span s)
{
	bool in_run = false;

	if (!s.len)
		return "the repository is missing";
	if (has_upper(s))
		return "the repository must be lower case";
	for (size_t i = 0; i < s.len;) {
		if (is_digit(s.at[i]) || is_lower(s.at[i])) {
			in_run = true;
			i++;
			continue;
		}
		size_t len = s.at[i] == '/' ? 1 : separator_len((struct span){s.at + i, s.len - i});

		if (!len)
			return "the repository has a character other than a-z 0-9 . _ - /";
		if (!in_run)
			return "the repository has a piece that does not begin and end with a-z 0-9, or two "
			       "separators in a row";
		in_run = false;
		i += len;
	}
	return in_run ? NULL : "the repository must end with a-z 0-9";
}

static const char *tag_fault(struct span s)
{
	if (!s.len)
		return "the tag behind ':' is empty";
	if (s.len > TAG_BYTES)
		return "the tag is longer than 128 characters";
	if (!is_alnum(s.at[0]) && s.at[0] != '_')
		return "the tag must begin with a letter, a digit or '_'";
	for (size_t i = 1; i < s.len; i++)
		if (!is_alnum(s.at[i]) && !strchr("_.-", s.at[i]))
			return "the tag has a character other than A-Z a-z 0-9 _ . -";
	return NULL;
}

/* Faults of the text as a whole, which would otherwise be reported as something odd further down. */
static const char *text_fault(const char *text, size_t len)
{
	if (!len)
		return "it is empty";
	if (len > LIMIT_REFERENCE_BYTES)
		return "it is longer than 512 bytes";
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return "it has a blank, a control character or one that is not ASCII";
	if (strstr(text, "://"))
		return "write it without a scheme, as host[:port]/repository[:tag][@digest]";
	if (len == 64 && all_hex(text, len))
		return "64 hex digits alone are an image ID, which no registry knows; write repository@sha256:…";
	return NULL;
}

/* What the text is made of, defaults filled in. */
struct parts {
	struct span domain;
	struct span path;
	struct span tag;    /* at NULL: none */
	struct span digest; /* at NULL: none */
	const char *namespace;
};

/* The first piece is a host only when it cannot be a repository's piece; otherwise "foo/bar" would ask a host
 * "foo" (rule of distribution/reference, splitDockerDomain). */
static void split_domain(struct span name, struct parts *parts)
{
	const char *slash = memchr(name.at, '/', name.len);
	struct span first = {name.at, slash ? (size_t)(slash - name.at) : 0};

	if (slash && (span_is(first, "localhost") || memchr(first.at, '.', first.len) ||
		      memchr(first.at, ':', first.len) || has_upper(first))) {
		parts->domain = first;
		parts->path = (struct span){slash + 1, name.len - first.len - 1};
	} else {
		parts->domain = (struct span){HUB_DOMAIN, strlen(HUB_DOMAIN)};
		parts->path = name;
	}
	if (span_is(parts->domain, HUB_DOMAIN_ALIAS))
		parts->domain = (struct span){HUB_DOMAIN, strlen(HUB_DOMAIN)};
	parts->namespace = span_is(parts->domain, HUB_DOMAIN) && !memchr(parts->path.at, '/', parts->path.len) ?
				   HUB_NAMESPACE : "";
}

static const char *split(const char *text, size_t len, struct parts *parts)
{
	struct span name = {text, len};
	const char *at = memchr(text, '@', len);

	if (at) {
		name.len = (size_t)(at - text);
		parts->digest = (struct span){at + 1, len - name.len - 1};
		if (!reference_digest_valid(at + 1))
			return "what follows '@' must be sha256:, sha384: or sha512: and as many lower-case hex digits "
			       "as it has";
	}

	const char *slash = memrchr(name.at, '/', name.len);
	size_t last = slash ? (size_t)(slash + 1 - name.at) : 0;
	const char *colon = memrchr(name.at + last, ':', name.len - last);

	if (colon) {
		parts->tag = (struct span){colon + 1, name.len - (size_t)(colon + 1 - name.at)};
		name.len = (size_t)(colon - name.at);
		const char *fault = tag_fault(parts->tag);

		if (fault)
			return fault;
	} else if (!at) {
		parts->tag = (struct span){"latest", strlen("latest")};
	}

	split_domain(name, parts);
	const char *fault = domain_fault(parts->domain);

	if (!fault)
		fault = path_fault(parts->path);
	if (!fault && strlen(parts->namespace) + parts->path.len > PATH_BYTES)
		fault = "the repository is longer than 255 characters";
	return fault;
}

static char *span_dup(struct span s)
{
	return s.at ? strndup(s.at, s.len) : NULL;
}

static int parse_registry(const char *text, struct reference *out, struct cpull_error *err)
{
	struct parts parts = {0};
	size_t len = strnlen(text, LIMIT_REFERENCE_BYTES + 1);
	const char *fault = text_fault(text, len);

	if (!fault)
		fault = split(text, len, &parts);
	if (fault)
		return refuse(text, err, fault);

	out->transport = REFERENCE_REGISTRY;
	out->domain = span_dup(parts.domain);
	out->path = format_string("%s%.*s", parts.namespace, (int)parts.path.len, parts.path.at);
	out->tag = span_dup(parts.tag);
	out->digest = span_dup(parts.digest);
	if (!out->domain || !out->path || (parts.tag.at && !out->tag) || (parts.digest.at && !out->digest))
		return error_nomem(err);

	out->name = format_string("%s/%s%s%s%s%s", out->domain, out->path, out->tag ? ":" : "",
				  out->tag ? out->tag : "", out->digest ? "@" : "", out->digest ? out->digest : "");
	return out->name ? 0 : error_nomem(err);
}

/* Names in a layout are freer than tags: containers/image takes alphanumeric runs joined by one of -._:@+ or by "--",
 * in pieces separated by "/". */
static bool layout_ref_valid(const char *ref)
{
	bool in_run = false;

	for (; *ref; ref++) {
		if (is_alnum(*ref)) {
			in_run = true;
			continue;
		}
		if (!in_run || !strchr("-._:@+/", *ref))
			return false;
		if (ref[0] == '-' && ref[1] == '-')
			ref++;
		in_run = false;
	}
	return in_run;
}

static const char *layout_fault(const char *dir, size_t dir_len, const char *ref)
{
	if (!dir_len)
		return "the directory is missing, write oci:DIR[:REF]";
	if (dir_len >= LIMIT_PATH_BYTES)
		return "the directory's name is too long";
	for (size_t i = 0; i < dir_len; i++)
		if ((unsigned char)dir[i] < ' ' || dir[i] == 0x7f)
			return "the directory's name has a control character";
	if (!ref)
		return NULL;
	if (strnlen(ref, LIMIT_REFERENCE_BYTES + 1) > LIMIT_REFERENCE_BYTES)
		return "what follows the directory is longer than 512 bytes";
	return layout_ref_valid(ref) ? NULL : "what follows the directory's ':' is not a name of an image in a layout";
}

/* The directory as it is named everywhere from here on. One that does not exist is an error for whoever opens it, not
 * for the parser, so it is only made absolute. */
static int absolute_dir(const char *dir, char **out, struct cpull_error *err)
{
	*out = realpath(dir, NULL);
	if (*out)
		return 0;
	if (errno == ENOMEM)
		return error_nomem(err);
	if (dir[0] == '/') {
		*out = strdup(dir);
		return *out ? 0 : error_nomem(err);
	}

	CLEANUP_FREE char *cwd = getcwd(NULL, 0);

	if (!cwd)
		return error_sys(err, CPULL_ERR_USAGE, errno, "making the layout's directory absolute");
	*out = format_string("%s/%s", strcmp(cwd, "/") ? cwd : "", dir);
	return *out ? 0 : error_nomem(err);
}

static int parse_layout(const char *text, struct reference *out, struct cpull_error *err)
{
	const char *dir = text + strlen(LAYOUT_PREFIX);
	const char *colon = strchr(dir, ':');
	const char *ref = colon ? colon + 1 : NULL;
	size_t dir_len = colon ? (size_t)(colon - dir) : strlen(dir);
	const char *fault = layout_fault(dir, dir_len, ref);

	if (fault)
		return refuse(text, err, fault);

	CLEANUP_FREE char *given = strndup(dir, dir_len);

	if (!given)
		return error_nomem(err);
	out->transport = REFERENCE_LAYOUT;
	int rc = absolute_dir(given, &out->path, err);

	if (rc)
		return rc;
	if (strchr(out->path, ':'))
		return refuse(text, err, "the directory's absolute path has a ':', which makes its name ambiguous");

	if (ref && reference_digest_valid(ref))
		out->digest = strdup(ref);
	else if (ref)
		out->tag = strdup(ref);
	if (ref && !out->digest && !out->tag)
		return error_nomem(err);
	out->name = format_string(LAYOUT_PREFIX "%s%s%s", out->path, ref ? ":" : "", ref ? ref : "");
	return out->name ? 0 : error_nomem(err);
}

int reference_parse(const char *text, struct reference *out, struct cpull_error *err)
{
	*out = (struct reference){0};
	int rc = strncmp(text, LAYOUT_PREFIX, strlen(LAYOUT_PREFIX)) ? parse_registry(text, out, err) :
								      parse_layout(text, out, err);

	if (rc)
		reference_free(out);
	return rc;
}

void reference_free(struct reference *reference)
{
	free(reference->domain);
	free(reference->path);
	free(reference->tag);
	free(reference->digest);
	free(reference->name);
	*reference = (struct reference){0};
}
