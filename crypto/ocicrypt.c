/* SPDX-License-Identifier: Apache-2.0
 *
 * From the annotations of an encrypted layer to its key: which schemes wrap it, trying each wrap, and strict reading
 * of the public and private options (ocicrypt sheet, sections 2 to 4). Called by the thread that opens the layer,
 * once per layer; owns nothing between calls.
 */
#include <string.h>

#include <openssl/err.h>

#include "crypto/unwrap.h"
#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/limits.h"

#define KEYS_PREFIX "org.opencontainers.image.enc.keys."
#define PUBLIC_OPTIONS "org.opencontainers.image.enc.pubopts"
#define CIPHER_NAME "AES_256_CTR_HMAC_SHA256"
#define QUOTED_BYTES 100
#define MEMORY_PROBE_BYTES (64u << 10)

/* A scheme is the part of an annotation's key behind KEYS_PREFIX; one that ends in a dot has a name behind it. Those
 * that can be unwrapped are tried in this order. */
static const struct scheme {
	const char *name;
	unwrap_fn *unwrap;    /* NULL: not by this build */
	const char *needs; /* then: what it would take */
} schemes[] = {
	{"jwe", jwe_unwrap, NULL},
	{"pkcs7", NULL, "not supported by this build yet: needs a PKCS#7 certificate and key"},
	{"pgp", NULL, "not supported by this build yet: needs an OpenPGP secret key"},
	{"pkcs11", NULL, "not supported by this build yet: needs a PKCS#11 token"},
	{"provider.", NULL, "not supported by this build yet: needs a key provider or key broker"},
};

void reasons_add(struct reasons *reasons, const char *fmt, ...)
{
	size_t room = sizeof(reasons->text) - reasons->len;
	va_list args;

	if (room < 8)
		return;

	int joined = snprintf(reasons->text + reasons->len, room, "%s", reasons->len ? "; " : "");

	reasons->len += (size_t)joined;
	room -= (size_t)joined;
	va_start(args, fmt);
	int len = vsnprintf(reasons->text + reasons->len, room, fmt, args);
	va_end(args);
	reasons->len += MIN((size_t)MAX(len, 0), room - 1);
}

int unwrap_take_try(struct unwrap *unwrap, struct cpull_error *err)
{
	if (!unwrap->tries_left)
		return error_set(err, CPULL_ERR_LIMIT, "the layer's key is wrapped more than %u times",
				 LIMIT_KEY_WRAPS);
	unwrap->tries_left--;
	return 0;
}

static const struct scheme *scheme_of(const char *annotation)
{
	const char *name = annotation + strlen(KEYS_PREFIX);

	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		size_t len = strlen(schemes[i].name);

		if (schemes[i].name[len - 1] == '.' ? !strncmp(name, schemes[i].name, len)
						    : !strcmp(name, schemes[i].name))
			return &schemes[i];
	}
	return NULL;
}

static bool is_wrap(const char *annotation)
{
	return !strncmp(annotation, KEYS_PREFIX, strlen(KEYS_PREFIX));
}

static bool any_wrap(json_t *annotations)
{
	const char *annotation;
	json_t *value;

	json_object_foreach(annotations, annotation, value)
		if (is_wrap(annotation))
			return true;
	return false;
}

/* base64 of an annotation, or of one element of a list, into memory of its own. */
static int decode(const char *text, size_t len, struct bytes *out, struct cpull_error *err)
{
	out->cap = len / 4 * 3 + 1;
	out->data = malloc(out->cap);
	if (!out->data)
		return error_nomem(err);

	ssize_t got = base64_decode(text, len, (uint8_t *)out->data);

	if (got < 0)
		return error_set(err, CPULL_ERR_DECRYPT, "not standard base64 with padding");
	out->len = (size_t)got;
	out->data[out->len] = 0;
	return 0;
}

static int annotation_text(const json_t *value, const char **text, struct cpull_error *err)
{
	if (!json_is_string(value))
		return error_set(err, CPULL_ERR_DECRYPT, "not a string");
	if (json_string_length(value) > LIMIT_ANNOTATION_BYTES)
		return error_set(err, CPULL_ERR_LIMIT, "longer than %u bytes", LIMIT_ANNOTATION_BYTES);
	*text = json_string_value(value);
	return 0;
}

/* Tries the elements of one list. 0 when one opened, CPULL_ERR_KEY when none did, CPULL_ERR_DECRYPT for one that is
 * not base64, which ends the scheme as it does in ocicrypt. The causes are added to *why. */
static int open_list(struct unwrap *unwrap, const struct scheme *scheme, const char *list, struct secret *out,
		     struct reasons *why)
{
	unsigned number = 1;

	for (const char *at = list;; number++) {
		CLEANUP_BYTES struct bytes wrap = {0};
		struct cpull_error cause = {0};
		size_t len = strcspn(at, ",");
		int rc = unwrap_take_try(unwrap, &cause);

		if (!rc)
			rc = decode(at, len, &wrap, &cause);
		if (!rc)
			rc = scheme->unwrap(unwrap, (uint8_t *)wrap.data, wrap.len, out, &cause);
		if (!rc)
			return 0;
		reasons_add(why, "%s %u: %s", scheme->name, number, cause.message);
		if (rc != CPULL_ERR_KEY || !at[len])
			return rc;
		at += len + 1;
	}
}

static void list_unsupported(json_t *annotations, struct reasons *why)
{
	const char *annotation;
	char quoted[QUOTED_BYTES];
	json_t *value;

	json_object_foreach(annotations, annotation, value) {
		if (!is_wrap(annotation))
			continue;

		const char *name = annotation + strlen(KEYS_PREFIX);
		const struct scheme *scheme = scheme_of(annotation);

		if (scheme && scheme->unwrap)
			continue;
		error_quote(name, strlen(name), quoted, sizeof(quoted));
		reasons_add(why, "%s: %s", quoted, scheme ? scheme->needs : "a scheme that is not known");
	}
}

/* Schemes with a name behind the dot have several annotations; none of them can be unwrapped yet, so one look-up by
 * the exact key is enough here. */
static int open_any(const struct key_ring *ring, json_t *annotations, struct secret *out, struct cpull_error *err)
{
	struct unwrap unwrap = {.ring = ring, .tries_left = LIMIT_KEY_WRAPS};
	struct reasons why = {0};
	int worst = CPULL_ERR_KEY;

	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		char key[64];
		const char *list = NULL;
		struct cpull_error cause = {0};

		snprintf(key, sizeof(key), "%s%s", KEYS_PREFIX, schemes[i].name);

		const json_t *value = json_object_get(annotations, key);

		if (!schemes[i].unwrap || !value)
			continue;

		int rc = annotation_text(value, &list, &cause);

		if (rc)
			reasons_add(&why, "%s: %s", schemes[i].name, cause.message);
		else
			rc = open_list(&unwrap, &schemes[i], list, out, &why);
		if (!rc)
			return 0;
		if (rc != CPULL_ERR_KEY && rc != CPULL_ERR_DECRYPT)
			return error_set(err, rc, "unwrapping the layer's key: %s", why.text);
		if (rc == CPULL_ERR_DECRYPT)
			worst = rc;
	}
	list_unsupported(annotations, &why);
	if (!key_ring_count(ring))
		return error_set(err, worst, "it is encrypted, and no private key was given: name one with "
				 "--decryption-key (%s)", why.text);
	return error_set(err, worst, "no wrap of the layer's key opens with the %zu private key%s given: %s",
			 key_ring_count(ring), key_ring_count(ring) == 1 ? "" : "s", why.text);
}

/* A base64 member of exactly `want` bytes into out. The message never has the value: it may be a key. */
static int fixed_member(const json_t *object, const char *name, size_t want, uint8_t *out, struct cpull_error *err)
{
	const json_t *value = json_object_get(object, name);

	if (!value || json_is_null(value))
		return error_set(err, CPULL_ERR_DECRYPT, "%s is missing", name);
	if (!json_is_string(value))
		return error_set(err, CPULL_ERR_DECRYPT, "%s is not a string", name);

	CLEANUP_SECRET struct secret bytes = {0};
	size_t len = json_string_length(value);

	if (len > LIMIT_PRIVATE_OPTIONS_BYTES)
		return error_set(err, CPULL_ERR_DECRYPT, "%s is too long", name);
	if (secret_new(&bytes, len / 4 * 3, err))
		return CPULL_ERR_NOMEM;

	ssize_t got = base64_decode(json_string_value(value), len, bytes.data);

	if (got < 0)
		return error_set(err, CPULL_ERR_DECRYPT, "%s is not standard base64 with padding", name);
	if ((size_t)got != want)
		return error_set(err, CPULL_ERR_DECRYPT, "%s has %zd bytes, and %zu are needed", name, got, want);
	memcpy(out, bytes.data, want);
	return 0;
}

/* Go writes null for an empty map. */
static int cipher_options(const json_t *options, const json_t **out, struct cpull_error *err)
{
	*out = json_object_get(options, "cipheroptions");
	if (!*out || json_is_null(*out))
		*out = NULL;
	else if (!json_is_object(*out))
		return error_set(err, CPULL_ERR_DECRYPT, "cipheroptions is not an object");
	return 0;
}

static int read_public(const json_t *annotation, json_t **options, struct layer_key *key, struct cpull_error *err)
{
	CLEANUP_BYTES struct bytes json = {0};
	const char *text = NULL;
	int rc;

	if (!annotation)
		return error_set(err, CPULL_ERR_DECRYPT, "annotation %s is missing", PUBLIC_OPTIONS);
	rc = annotation_text(annotation, &text, err);
	if (!rc)
		rc = decode(text, strlen(text), &json, err);
	if (!rc)
		rc = json_parse(json.data, json.len, CPULL_ERR_DECRYPT, "options", options, err);
	if (rc)
		return rc;
	if (!json_is_object(*options))
		return error_set(err, CPULL_ERR_DECRYPT, "not a JSON object");

	const char *cipher = json_string_at(*options, "cipher");
	char quoted[QUOTED_BYTES];

	if (!cipher || !*cipher)
		return error_set(err, CPULL_ERR_DECRYPT, "no cipher is named");
	if (strcmp(cipher, CIPHER_NAME))
		return error_set(err, CPULL_ERR_DECRYPT, "cipher \"%s\" is not known, only %s is",
				 error_quote(cipher, strlen(cipher), quoted, sizeof(quoted)), CIPHER_NAME);
	return fixed_member(*options, "hmac", sizeof(key->hmac), key->hmac, err);
}

/* The public options come first in the look-up of an option (section 4). A nonce in neither is refused here, whereas
 * both known libraries make one up and hand out junk. */
static int read_nonce(const json_t *public, const json_t *private, struct layer_key *key, struct cpull_error *err)
{
	const json_t *from_public;
	const json_t *from_private;
	int rc = cipher_options(public, &from_public, err);

	if (!rc)
		rc = cipher_options(private, &from_private, err);
	if (rc)
		return rc;
	return fixed_member(json_object_get(from_public, "nonce") ? from_public : from_private, "nonce",
			    sizeof(key->nonce), key->nonce, err);
}

static int read_private(const struct secret *text, const json_t *public, struct layer_key *key,
			struct cpull_error *err)
{
	CLEANUP_SECRET_JSON json_t *options = NULL;

	/* without the parser's message, which quotes the text */
	if (json_parse((const char *)text->data, text->len, CPULL_ERR_DECRYPT, "options", &options, NULL))
		return error_set(err, CPULL_ERR_DECRYPT, "not valid JSON");
	if (!json_is_object(options))
		return error_set(err, CPULL_ERR_DECRYPT, "not a JSON object");

	/* what it says is not used: it may be empty or name another blob (section 3) */
	const json_t *digest = json_object_get(options, "digest");

	if (digest && !json_is_null(digest) && !json_is_string(digest))
		return error_set(err, CPULL_ERR_DECRYPT, "digest is not a string");

	int rc = fixed_member(options, "symkey", sizeof(key->symkey), key->symkey, err);

	return rc ? rc : read_nonce(public, options, key, err);
}

static int unwrap_into(const struct key_ring *ring, json_t *annotations, struct layer_key *key,
		       struct cpull_error *err)
{
	CLEANUP_JSON json_t *public = NULL;
	CLEANUP_SECRET struct secret private = {0};
	int rc = read_public(json_object_get(annotations, PUBLIC_OPTIONS), &public, key, err);

	if (rc) {
		error_wrap(err, "the layer's public encryption options");
		return rc;
	}
	rc = open_any(ring, annotations, &private, err);
	if (rc)
		return rc;
	rc = read_private(&private, public, key, err);
	if (rc)
		error_wrap(err, "the layer's private encryption options");
	return rc;
}

int ocicrypt_unwrap(const struct key_ring *ring, const json_t *annotations, struct layer_key **out,
		    struct cpull_error *err)
{
	/* jansson has no iteration over a const object */
	json_t *all = (json_t *)annotations;

	*out = NULL;
	if (!any_wrap(all))
		return error_set(err, CPULL_ERR_KEY,
				 "missing key: the layer is encrypted, but has no annotation %s* with its wrapped key",
				 KEYS_PREFIX);

	struct layer_key *key = layer_key_new();

	if (!key)
		return error_set(err, CPULL_ERR_NOMEM, "out of secure memory for keys");

	ERR_set_mark();
	int rc = unwrap_into(ring, all, key, err);
	ERR_pop_to_mark();

	if (rc)
		layer_key_free(key);
	else
		*out = key;
	/* nor do OpenSSL, libjose and jansson tell a lack of memory from a key that does not open */
	return rc && !memory_is_there(MEMORY_PROBE_BYTES) ? error_nomem(err) : rc;
}
