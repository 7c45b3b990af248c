/* SPDX-License-Identifier: Apache-2.0
 *
 * Challenges and token requests as text. Called by exchange.c and token.c on the fetch thread; pure, and fuzzed.
 *
 * The challenge reader takes what registries send and other clients take: tokens and quoted strings, several
 * challenges in one field. It does not take blanks round "=" (RFC 9110 calls them bad white space).
 */
#include "fetch/auth.h"

#include <string.h>
#include <strings.h>

#include "engine/base/error.h"
#include "engine/base/json.h"

/* ---- challenges ---- */

static bool is_token_char(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static size_t token_len(const char *at)
{
	size_t len = 0;

	while (is_token_char(at[len]))
		len++;
	return len;
}

/* Skips blanks and commas; true when a comma was among them. */
static bool skip_separators(const char **at)
{
	bool comma = false;

	for (; **at == ' ' || **at == '\t' || **at == ','; (*at)++)
		comma = comma || **at == ',';
	return comma;
}

/* A quoted string that begins at *at; what does not fit leaves out empty. False when it has no end. */
static bool take_quoted(const char **at, char *out, size_t room)
{
	const char *p = *at + 1;
	size_t len = 0;

	for (; *p && *p != '"'; p++) {
		if (*p == '\\' && p[1])
			p++;
		if (len < room)
			out[len] = *p;
		len++;
	}
	out[len < room ? len : 0] = 0;
	if (*p != '"') {
		out[0] = 0;
		return false;
	}
	*at = p + 1;
	return true;
}

static void take_bare(const char **at, char *out, size_t room)
{
	size_t len = token_len(*at);

	out[0] = 0;
	if (len < room) {
		memcpy(out, *at, len);
		out[len] = 0;
	}
	*at += len;
}

/* Where the value of a parameter goes; the first of two counts. */
static char *member_named(struct challenge *challenge, const char *name, size_t len, size_t *room)
{
	const struct {
		const char *name;
		char *member;
		size_t room;
	} members[] = {
		{"realm", challenge->realm, sizeof(challenge->realm)},
		{"service", challenge->service, sizeof(challenge->service)},
		{"scope", challenge->scope, sizeof(challenge->scope)},
		{"error", challenge->error, sizeof(challenge->error)},
	};

	for (size_t i = 0; i < ARRAY_LEN(members); i++)
		if (strlen(members[i].name) == len && !strncasecmp(members[i].name, name, len)) {
			*room = members[i].room;
			return members[i].member[0] ? NULL : members[i].member;
		}
	return NULL;
}

/* name=value at *at. False when the rest of the field cannot be read. */
static bool take_param(const char **at, size_t name_len, struct challenge *out)
{
	const char *p = *at + name_len + 1;
	char ignored[2];
	size_t room = 0;
	char *member = member_named(out, *at, name_len, &room);

	if (!member) {
		member = ignored;
		room = sizeof(ignored);
	}
	if (*p == '"') {
		if (!take_quoted(&p, member, room))
			return false;
	} else {
		take_bare(&p, member, room);
	}
	*at = p;
	return !*p || *p == ' ' || *p == '\t' || *p == ',';
}

/* name=value. Right behind the scheme "abc=" and "abc==" are a token68 with its padding. */
static bool is_param(const char *at, size_t name_len, bool behind_scheme)
{
	const char *value = at + name_len + 1;

	return name_len && at[name_len] == '=' && (!behind_scheme || *value == '"' || token_len(value));
}

bool challenge_next(const char **at, struct challenge *out)
{
	*out = (struct challenge){0};
	skip_separators(at);

	size_t len = token_len(*at);

	if (len == 0 || len >= sizeof(out->scheme))
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = (*at)[i];

		out->scheme[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
	}
	*at += len;
	for (bool first = true;; first = false) {
		const char *p = *at;
		bool comma = skip_separators(&p);

		len = token_len(p);
		if (is_param(p, len, first && !comma)) {
			*at = p;
			if (take_param(at, len, out))
				continue;
		} else if (len && comma) {
			*at = p; /* another scheme */
			return true;
		} else if (len && first) {
			*at = p + strcspn(p, ","); /* token68, as Negotiate has it */
			continue;
		}
		*at += strlen(*at);
		return true;
	}
}

bool realm_usable(const char *realm, bool plain_http)
{
	const char *host;

	if (!strncasecmp(realm, "https://", 8))
		host = realm + 8;
	else if (plain_http && !strncasecmp(realm, "http://", 7))
		host = realm + 7;
	else
		return false;

	size_t host_len = strcspn(host, "/?#");

	if (host_len == 0 || memchr(host, '@', host_len) || strchr(host, '#'))
		return false;
	for (const char *p = host; *p; p++)
		if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f)
			return false;
	return true;
}

/* ---- what goes into the Authorization field ---- */

static void base64_encode(const char *in, size_t len, char *out)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < len; i += 3) {
		size_t n = MIN(len - i, (size_t)3);
		uint32_t word = 0;

		for (size_t k = 0; k < n; k++)
			word |= (uint32_t)(unsigned char)in[i + k] << (16 - 8 * k);
		for (size_t k = 0; k < 4; k++)
			*out++ = k <= n ? alphabet[word >> (18 - 6 * k) & 63] : '=';
	}
	*out = 0;
}

char *basic_header(const struct credentials *creds)
{
	char *plain = format_string("%s:%s", creds->user, creds->password);
	size_t len = plain ? strlen(plain) : 0;
	char *out = plain ? malloc(6 + (len + 2) / 3 * 4 + 1) : NULL;

	if (out) {
		memcpy(out, "Basic ", 6);
		base64_encode(plain, len, out + 6);
	}
	string_wipe(plain);
	return out;
}

char *bearer_header(const char *token)
{
	return format_string("Bearer %s", token);
}

/* ---- token requests ---- */

static bool append(struct bytes *out, const char *text)
{
	return bytes_append(out, text, strlen(text), SIZE_MAX) == 0;
}

/* Percent-encodes everything but RFC 3986's unreserved. */
static bool append_encoded(struct bytes *out, const char *text, size_t len)
{
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
			     (c && strchr("-._~", c));
		char piece[4] = {'%', hex[c >> 4], hex[c & 15]};

		if (bytes_append(out, plain ? (char *)&c : piece, plain ? 1 : 3, SIZE_MAX))
			return false;
	}
	return true;
}

static bool append_pair(struct bytes *out, const char *separator, const char *name, const char *value)
{
	return append(out, separator) && append(out, name) && append(out, "=") &&
	       append_encoded(out, value, strlen(value));
}

/* One parameter a scope, as containers/image sends them. */
static bool append_scopes(struct bytes *out, const char *separator, const char *scope)
{
	while (*scope) {
		size_t len = strcspn(scope, " ");

		if (len) {
			if (!append(out, separator) || !append(out, "scope=") || !append_encoded(out, scope, len))
				return false;
			separator = "&";
		}
		scope += len + (scope[len] == ' ');
	}
	return true;
}

char *token_url(const struct token_scope *want, const struct credentials *creds)
{
	struct bytes out = {0};
	const char *separator = strchr(want->realm, '?') ? "&" : "?";
	bool ok = append(&out, want->realm);

	if (ok && *want->service) {
		ok = append_pair(&out, separator, "service", want->service);
		separator = "&";
	}
	ok = ok && append_scopes(&out, separator, want->scope);
	if (ok && creds->user && *creds->user)
		ok = append_pair(&out, "&", "account", creds->user);
	if (!ok)
		bytes_free(&out);
	return out.data;
}

/* The token specification's form: scopes are blank-separated in one field. */
char *token_form(const struct token_scope *want, const struct credentials *creds)
{
	/* sized in advance, so that no copy of the token is left behind by a growing buffer */
	size_t room = 3 * (strlen(creds->identity_token) + strlen(want->service) + strlen(want->scope)) + 256;
	struct bytes out = {.data = malloc(room), .cap = room};

	if (!out.data)
		return NULL;
	if (append_pair(&out, "", "grant_type", "refresh_token") && append_pair(&out, "&", "client_id", "coco-pull") &&
	    append_pair(&out, "&", "service", want->service) && append_pair(&out, "&", "scope", want->scope) &&
	    append_pair(&out, "&", "refresh_token", creds->identity_token))
		return out.data;
	string_wipe(out.data);
	return NULL;
}

/* It goes into a header field of the next request. */
static bool token_printable(const char *token)
{
	for (const char *p = token; *p; p++)
		if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f)
			return false;
	return *token != 0;
}

static void wipe_string(json_t *object, const char *key)
{
	json_t *value = json_object_get(object, key);

	if (json_is_string(value))
		explicit_bzero((char *)json_string_value(value), json_string_length(value));
}

int token_reply_parse(const char *text, size_t len, char **token, uint32_t *lifetime_s, struct cpull_error *err)
{
	json_t *root = NULL;
	uint64_t lifetime = 0;
	int rc = json_parse(text, len, CPULL_ERR_AUTH, "token reply", &root, err);

	if (rc)
		return rc;

	const char *found = json_string_at(root, "token");

	if (!found || !*found)
		found = json_string_at(root, "access_token");
	if (!found || !token_printable(found))
		rc = error_set(err, CPULL_ERR_AUTH, "token reply: no usable token or access_token in it");
	else if (!(*token = strdup(found)))
		rc = error_nomem(err);
	json_u64_at(root, "expires_in", &lifetime);
	*lifetime_s = (uint32_t)MIN(MAX(lifetime, AUTH_TOKEN_LIFETIME_MIN_S), AUTH_TOKEN_LIFETIME_MAX_S);
	wipe_string(root, "token");
	wipe_string(root, "access_token");
	wipe_string(root, "refresh_token");
	json_decref(root);
	return rc;
}
