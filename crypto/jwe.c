/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening one JWE (RFC 7516) with a key ring: compact, flattened or general form. Called through the table of
 * ocicrypt.c by the thread that opens a layer; owns nothing between calls.
 *
 * libjose does ECDH-ES with AES key wrap and AES-CBC-HMAC. Two things are done here with EVP instead: RSA-OAEP, because
 * libjose before version 12 lacks it when built against OpenSSL 3 (its commit 58112df), and AES-GCM,
 * because with an "aad" member libjose reads as many bytes of it as "protected" has, past its end (up to version 14).
 *
 * What reaches libjose has been checked first, in documents that hold only the members it needs, for this is what it
 * does with hostile ones:
 *  - it takes every algorithm that it knows, also dir, RSA1_5 and PBES2 with any iteration count: hence the whitelist;
 *  - it ignores "crit", and inflates "zip" before the tag is checked: both are refused;
 *  - it takes duplicate header members silently: refused;
 *  - with a JWK without "d", ECDH takes the public x as the secret: never passed;
 *  - its plaintext grows byte by byte through realloc(): it gets a secure buffer of the right size;
 *  - it prints to stderr: it gets a silent configuration.
 */
#include <ctype.h>
#include <string.h>

#include <jose/b64.h>
#include <jose/jwe.h>
#include <jose/openssl.h>
#include <openssl/crypto.h>
#include <openssl/rsa.h>

#include "crypto/unwrap.h"
#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/limits.h"

#define QUOTED_BYTES 80
#define GCM_IV_BYTES 12
#define GCM_TAG_BYTES 16
/* What libjose takes of apu and apv. */
#define PARTY_BYTES 1024u

/* The whitelists (ocicrypt sheet, section 6). */
static const struct key_algorithm {
	const char *name;
	const char *oaep; /* the hash of RSA-OAEP and its MGF1; NULL: ECDH-ES */
} key_algorithms[] = {
	{"RSA-OAEP", "SHA1"},     {"RSA-OAEP-256", "SHA256"}, {"ECDH-ES+A128KW", NULL},
	{"ECDH-ES+A192KW", NULL}, {"ECDH-ES+A256KW", NULL},
};

static const struct content_algorithm {
	const char *name;
	size_t key_bytes;
	const char *gcm; /* OpenSSL's name; NULL: AES-CBC-HMAC */
} content_algorithms[] = {
	{"A128GCM", 16, "AES-128-GCM"}, {"A192GCM", 24, "AES-192-GCM"}, {"A256GCM", 32, "AES-256-GCM"},
	{"A128CBC-HS256", 32, NULL},    {"A192CBC-HS384", 48, NULL},    {"A256CBC-HS512", 64, NULL},
};

static const struct {
	const char *name;
	size_t field_bytes;
} curves[] = {{"P-256", 32}, {"P-384", 48}, {"P-521", 66}};

/* A JWE whose shared parts have been checked. */
struct jwe {
	json_t *root;
	json_t *protected;  /* decoded */
	json_t *recipients; /* borrowed array; NULL: root is the only recipient */
	jose_cfg_t *cfg;
};

/* One recipient of it. */
struct recipient {
	json_t *node;   /* borrowed */
	json_t *header; /* the union of all headers that count for it */
	const struct key_algorithm *key_algorithm;
	const struct content_algorithm *content;
};

static void silent(void *misc, const char *file, int line, uint64_t err, const char *fmt, va_list args)
{
	(void)misc, (void)file, (void)line, (void)err, (void)fmt, (void)args;
}

static void jwe_free(struct jwe *jwe)
{
	json_decref(jwe->root);
	json_decref(jwe->protected);
	if (jwe->cfg)
		jose_cfg_decref(jwe->cfg);
}

static int malformed(struct cpull_error *err, const char *why)
{
	return error_set(err, CPULL_ERR_KEY, "JWE malformed: %s", why);
}

/* Decoded length of a base64url member, or -1 when it is absent or cannot be one. */
static ssize_t b64url_length(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);
	const char *text = json_string_value(value);
	size_t len = json_string_length(value);

	if (!text || len % 4 == 1 || strspn(text, JOSE_B64_MAP) != len)
		return -1;
	return (ssize_t)(len / 4 * 3 + (len % 4 ? len % 4 - 1 : 0));
}

/* Five base64url parts into the JSON form. White space is dropped, as in go-jose. */
static int parse_compact(const char *text, size_t len, json_t **out, struct cpull_error *err)
{
	static const char *const names[] = {"protected", "encrypted_key", "iv", "ciphertext", "tag"};
	CLEANUP_FREE char *packed = malloc(len + 1);
	CLEANUP_JSON json_t *root = json_object();
	size_t packed_len = 0;
	size_t part = 0;

	if (!packed || !root)
		return error_nomem(err);
	for (size_t i = 0; i < len; i++)
		if (!isspace((unsigned char)text[i]))
			packed[packed_len++] = text[i];
	packed[packed_len] = '.';
	for (size_t at = 0; at <= packed_len; part++) {
		size_t end = (size_t)((char *)memchr(packed + at, '.', packed_len + 1 - at) - packed);

		/* refuses what is not UTF-8 */
		if (part >= ARRAY_LEN(names) ||
		    json_object_set_new(root, names[part], json_stringn(packed + at, end - at)))
			return malformed(err, "neither a JSON object nor five parts of base64url");
		at = end + 1;
	}
	if (part != ARRAY_LEN(names))
		return malformed(err, "neither a JSON object nor five parts of base64url");
	*out = STEAL(root);
	return 0;
}

static int parse_protected(struct jwe *jwe, struct cpull_error *err)
{
	ssize_t len = b64url_length(jwe->root, "protected");

	if (len <= 0)
		return malformed(err, "the protected header is missing, empty or not base64url");

	CLEANUP_FREE char *text = malloc((size_t)len);

	if (!text)
		return error_nomem(err);
	if (jose_b64_dec(json_object_get(jwe->root, "protected"), text, (size_t)len) != (size_t)len)
		return malformed(err, "the protected header is not base64url");

	int rc = json_parse(text, (size_t)len, CPULL_ERR_KEY, "JWE malformed: protected header", &jwe->protected, err);

	if (!rc && !json_is_object(jwe->protected))
		return malformed(err, "the protected header is not a JSON object");
	return rc;
}

static int parse_json(struct jwe *jwe, const char *text, size_t len, struct cpull_error *err)
{
	int rc = json_parse(text, len, CPULL_ERR_KEY, "JWE malformed", &jwe->root, err);

	if (rc)
		return rc;
	/* skopeo leaves a top-level encrypted_key beside recipients, so that is no contradiction */
	jwe->recipients = json_object_get(jwe->root, "recipients");
	if (jwe->recipients && (!json_is_array(jwe->recipients) || !json_array_size(jwe->recipients)))
		return malformed(err, "recipients is not an array with members");
	return 0;
}

static int jwe_parse(struct jwe *jwe, const char *text, size_t len, struct cpull_error *err)
{
	static const char *const members[] = {"iv", "ciphertext", "tag"};
	size_t space = 0;
	int rc;

	while (space < len && isspace((unsigned char)text[space]))
		space++;
	if (space == len)
		return error_set(err, CPULL_ERR_KEY, "the wrap is empty");
	rc = text[space] == '{' ? parse_json(jwe, text, len, err) : parse_compact(text, len, &jwe->root, err);
	if (!rc)
		rc = parse_protected(jwe, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < ARRAY_LEN(members); i++)
		if (b64url_length(jwe->root, members[i]) < 0)
			return malformed(err, "iv, ciphertext or tag is missing or not base64url");
	if (b64url_length(jwe->root, "ciphertext") > LIMIT_PRIVATE_OPTIONS_BYTES)
		return malformed(err, "its content is longer than encryption options can be");
	if (json_object_get(jwe->root, "aad") && b64url_length(jwe->root, "aad") < 0)
		return malformed(err, "aad is not base64url");

	jwe->cfg = jose_cfg();
	if (!jwe->cfg)
		return error_nomem(err);
	jose_cfg_set_err_func(jwe->cfg, silent, NULL);
	return 0;
}

/* Adds a header to the union; RFC 7516, section 4: the names must be disjoint. */
static int merge_header(json_t *into, json_t *from, struct cpull_error *err)
{
	const char *name;
	json_t *value;

	if (!from)
		return 0;
	if (!json_is_object(from))
		return malformed(err, "a header is not an object");
	json_object_foreach(from, name, value) {
		if (json_object_get(into, name))
			return malformed(err, "a header parameter is given twice");
		if (json_object_set(into, name, value))
			return error_nomem(err);
	}
	return 0;
}

static int check_algorithms(struct recipient *recipient, struct cpull_error *err)
{
	const char *alg = json_string_at(recipient->header, "alg");
	const char *enc = json_string_at(recipient->header, "enc");
	char quoted[QUOTED_BYTES];

	for (size_t i = 0; alg && i < ARRAY_LEN(key_algorithms); i++)
		if (!strcmp(alg, key_algorithms[i].name))
			recipient->key_algorithm = &key_algorithms[i];
	for (size_t i = 0; enc && i < ARRAY_LEN(content_algorithms); i++)
		if (!strcmp(enc, content_algorithms[i].name))
			recipient->content = &content_algorithms[i];
	if (!recipient->key_algorithm)
		return error_set(err, CPULL_ERR_KEY, "alg \"%s\" is not allowed",
				 alg ? error_quote(alg, strlen(alg), quoted, sizeof(quoted)) : "");
	if (!recipient->content)
		return error_set(err, CPULL_ERR_KEY, "enc \"%s\" is not allowed",
				 enc ? error_quote(enc, strlen(enc), quoted, sizeof(quoted)) : "");
	return 0;
}

static int check_party(const json_t *header, const char *name, struct cpull_error *err)
{
	ssize_t len = b64url_length(header, name);

	if (json_object_get(header, name) && (len < 0 || len > (ssize_t)PARTY_BYTES))
		return malformed(err, "apu or apv is not base64url, or too long");
	return 0;
}

/* An ephemeral key that is not a point of its curve would give our key away bit by bit (invalid-curve attack). */
static int check_epk(const struct jwe *jwe, const json_t *header, struct cpull_error *err)
{
	json_t *epk = json_object_get(header, "epk");
	const char *kty = json_string_at(epk, "kty");
	const char *crv = json_string_at(epk, "crv");
	size_t field_bytes = 0;

	if (!kty || !crv || strcmp(kty, "EC"))
		return malformed(err, "epk is missing or not an EC key");
	for (size_t i = 0; i < ARRAY_LEN(curves); i++)
		if (!strcmp(crv, curves[i].name))
			field_bytes = curves[i].field_bytes;
	if (!field_bytes)
		return malformed(err, "epk's curve is none of P-256, P-384 and P-521");
	if (b64url_length(epk, "x") != (ssize_t)field_bytes || b64url_length(epk, "y") != (ssize_t)field_bytes ||
	    json_object_get(epk, "d"))
		return malformed(err, "epk is not a public point of its curve's size");

	EVP_PKEY *point = jose_openssl_jwk_to_EVP_PKEY(jwe->cfg, epk);
	bool valid = point != NULL;

	EVP_PKEY_free(point);
	return valid ? 0 : malformed(err, "epk is not a point on its curve");
}

static int recipient_parse(const struct jwe *jwe, json_t *node, struct recipient *recipient, struct cpull_error *err)
{
	recipient->node = node;
	recipient->header = json_copy(jwe->protected);
	if (!recipient->header)
		return error_nomem(err);
	if (!json_is_object(node))
		return malformed(err, "a recipient is not an object");

	int rc = merge_header(recipient->header, json_object_get(jwe->root, "unprotected"), err);

	if (!rc)
		rc = merge_header(recipient->header, json_object_get(node, "header"), err);
	if (rc)
		return rc;
	if (json_object_get(recipient->header, "crit"))
		return error_set(err, CPULL_ERR_KEY, "it has critical extensions (crit), and none is known");
	if (json_object_get(recipient->header, "zip"))
		return error_set(err, CPULL_ERR_KEY, "its content is compressed (zip), which is not allowed");
	if (b64url_length(node, "encrypted_key") <= 0)
		return malformed(err, "encrypted_key is missing, empty or not base64url");
	rc = check_algorithms(recipient, err);
	if (rc || recipient->key_algorithm->oaep)
		return rc;
	rc = check_party(recipient->header, "apu", err);
	if (!rc)
		rc = check_party(recipient->header, "apv", err);
	return rc ? rc : check_epk(jwe, recipient->header, err);
}

/* Is it worth trying? */
static bool key_fits(const struct private_key *key, const struct recipient *recipient)
{
	if (recipient->key_algorithm->oaep)
		return !key->curve &&
		       b64url_length(recipient->node, "encrypted_key") == EVP_PKEY_get_size(key->pkey);
	return key->curve &&
	       !strcmp(key->curve, json_string_at(json_object_get(recipient->header, "epk"), "crv"));
}

/* A copy of the named members alone. */
static json_t *pick(const json_t *from, const char *const *names)
{
	json_t *out = json_object();

	for (; out && *names; names++) {
		json_t *value = json_object_get(from, *names);

		if (value && json_object_set(out, *names, value)) {
			json_decref(out);
			return NULL;
		}
	}
	return out;
}

static int rsa_oaep(const struct recipient *recipient, const struct private_key *key, struct secret *cek,
		    struct cpull_error *err)
{
	const char *hash = recipient->key_algorithm->oaep;
	uint8_t wrapped[OPENSSL_RSA_MAX_MODULUS_BITS / 8];
	size_t len = jose_b64_dec(json_object_get(recipient->node, "encrypted_key"), wrapped, sizeof(wrapped));

	if (len > sizeof(wrapped))
		return CPULL_ERR_KEY;
	/* OpenSSL wants room for a whole block, whatever comes out */
	if (secret_new(cek, len, err))
		return CPULL_ERR_NOMEM;
	cek->len = cek->cap;

	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL);
	bool opened = ctx && EVP_PKEY_decrypt_init(ctx) == 1 &&
		      EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) == 1 &&
		      EVP_PKEY_CTX_set_rsa_oaep_md_name(ctx, hash, NULL) == 1 &&
		      EVP_PKEY_CTX_set_rsa_mgf1_md_name(ctx, hash, NULL) == 1 &&
		      EVP_PKEY_decrypt(ctx, cek->data, &cek->len, wrapped, len) == 1;

	EVP_PKEY_CTX_free(ctx);
	return opened ? 0 : CPULL_ERR_KEY;
}

/* The content key as libjose's JSON, or NULL. */
static json_t *ecdh_es_json(const struct jwe *jwe, const struct recipient *recipient, const struct private_key *key)
{
	static const char *const shared[] = {"protected", "unprotected", NULL};
	static const char *const own[] = {"header", "encrypted_key", NULL};
	CLEANUP_JSON json_t *outer = pick(jwe->root, shared);
	CLEANUP_JSON json_t *inner = pick(recipient->node, own);
	CLEANUP_SECRET_JSON json_t *jwk = jose_openssl_jwk_from_EVP_PKEY(jwe->cfg, key->pkey);

	if (!outer || !inner || !jwk || !json_object_get(jwk, "d"))
		return NULL;
	return jose_jwe_dec_jwk(jwe->cfg, outer, inner, jwk);
}

static int ecdh_es(const struct jwe *jwe, const struct recipient *recipient, const struct private_key *key,
		   struct secret *cek, struct cpull_error *err)
{
	CLEANUP_JSON json_t *json = ecdh_es_json(jwe, recipient, key);
	json_t *k = json_object_get(json, "k");
	ssize_t len = b64url_length(json, "k");
	int rc = CPULL_ERR_KEY;

	if (len >= 0 && secret_new(cek, (size_t)len, err))
		rc = CPULL_ERR_NOMEM;
	else if (len >= 0) {
		cek->len = jose_b64_dec(k, cek->data, cek->cap);
		rc = cek->len == cek->cap ? 0 : CPULL_ERR_KEY;
	}
	/* only this: its other strings are shared with the headers */
	secret_wipe_json(k);
	return rc;
}

static bool gcm_aad(EVP_CIPHER_CTX *ctx, const json_t *root)
{
	const json_t *aad = json_object_get(root, "aad");
	const json_t *protected = json_object_get(root, "protected");
	int len;

	/* the received text, not a re-serialization (RFC 7516, section 5.2, step 15) */
	if (EVP_DecryptUpdate(ctx, NULL, &len, (const uint8_t *)json_string_value(protected),
			      (int)json_string_length(protected)) != 1)
		return false;
	return !aad || (EVP_DecryptUpdate(ctx, NULL, &len, (const uint8_t *)".", 1) == 1 &&
			EVP_DecryptUpdate(ctx, NULL, &len, (const uint8_t *)json_string_value(aad),
					  (int)json_string_length(aad)) == 1);
}

static bool gcm_decrypt(EVP_CIPHER_CTX *ctx, const struct jwe *jwe, const EVP_CIPHER *cipher,
			const struct secret *cek, struct secret *out)
{
	uint8_t iv[GCM_IV_BYTES];
	uint8_t tag[GCM_TAG_BYTES];
	uint8_t text[LIMIT_PRIVATE_OPTIONS_BYTES];
	size_t text_len = jose_b64_dec(json_object_get(jwe->root, "ciphertext"), text, sizeof(text));
	int len;

	if (text_len > out->cap ||
	    b64url_length(jwe->root, "iv") != sizeof(iv) || b64url_length(jwe->root, "tag") != sizeof(tag) ||
	    jose_b64_dec(json_object_get(jwe->root, "iv"), iv, sizeof(iv)) != sizeof(iv) ||
	    jose_b64_dec(json_object_get(jwe->root, "tag"), tag, sizeof(tag)) != sizeof(tag))
		return false;
	if (EVP_DecryptInit_ex2(ctx, cipher, cek->data, iv, NULL) != 1 || !gcm_aad(ctx, jwe->root) ||
	    EVP_DecryptUpdate(ctx, out->data, &len, text, (int)text_len) != 1 ||
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, sizeof(tag), tag) != 1)
		return false;
	out->len = (size_t)len;
	return EVP_DecryptFinal_ex(ctx, out->data + len, &len) == 1;
}

static bool open_gcm(const struct jwe *jwe, const struct content_algorithm *content, const struct secret *cek,
		     struct secret *out)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, content->gcm, NULL);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	bool opened = cipher && ctx && gcm_decrypt(ctx, jwe, cipher, cek, out);

	EVP_CIPHER_CTX_free(ctx);
	EVP_CIPHER_free(cipher);
	return opened;
}

static bool open_cbc(const struct jwe *jwe, const struct content_algorithm *content, const struct secret *cek,
		     struct secret *out)
{
	static const char *const members[] = {"protected", "unprotected", "iv", "tag", "aad", NULL};
	CLEANUP_JSON json_t *sealed = pick(jwe->root, members);
	/* with alg, since enc may be in a recipient's header, where libjose does not look for it here */
	CLEANUP_SECRET_JSON json_t *key = json_pack("{s:s,s:s,s:o}", "kty", "oct", "alg", content->name, "k",
						    jose_b64_enc(cek->data, cek->len));
	const json_t *text = json_object_get(jwe->root, "ciphertext");

	if (!sealed || !key)
		return false;
	out->len = out->cap;

	jose_io_auto_t *sink = jose_io_buffer(jwe->cfg, out->data, &out->len);
	jose_io_auto_t *cipher = sink ? jose_jwe_dec_cek_io(jwe->cfg, sealed, key, sink) : NULL;
	jose_io_auto_t *decoder = cipher ? jose_b64_dec_io(cipher) : NULL;

	return decoder && decoder->feed(decoder, json_string_value(text), json_string_length(text)) &&
	       decoder->done(decoder);
}

static int open_content(const struct jwe *jwe, const struct content_algorithm *content, const struct secret *cek,
			struct secret *out, struct cpull_error *err)
{
	if (cek->len != content->key_bytes)
		return error_set(err, CPULL_ERR_KEY, "the wrapped key has %zu bytes, and %s takes %zu", cek->len,
				 content->name, content->key_bytes);
	if (secret_new(out, LIMIT_PRIVATE_OPTIONS_BYTES, err))
		return CPULL_ERR_NOMEM;
	if (content->gcm ? open_gcm(jwe, content, cek, out) : open_cbc(jwe, content, cek, out)) {
		out->data[out->len] = 0;
		return 0;
	}
	secret_free(out);
	return error_set(err, CPULL_ERR_KEY, "a key opens it, but its content is not authentic (tag mismatch)");
}

/* How the recipient is addressed, for a message. */
static const char *addressed(const struct recipient *recipient, char out[2 * QUOTED_BYTES])
{
	const char *kid = json_string_at(recipient->header, "kid");
	char quoted[QUOTED_BYTES];

	if (kid)
		snprintf(out, 2 * QUOTED_BYTES, "%s, kid \"%s\"", recipient->key_algorithm->name,
			 error_quote(kid, strlen(kid), quoted, sizeof(quoted)));
	else
		snprintf(out, 2 * QUOTED_BYTES, "%s", recipient->key_algorithm->name);
	return out;
}

static int no_key_opens(const struct recipient *recipient, unsigned tried, struct cpull_error *err)
{
	const char *curve = json_string_at(json_object_get(recipient->header, "epk"), "crv");
	char who[2 * QUOTED_BYTES];

	addressed(recipient, who);
	if (tried)
		return error_set(err, CPULL_ERR_KEY, "%s: none of the %u keys that fit opens it", who, tried);
	if (recipient->key_algorithm->oaep)
		return error_set(err, CPULL_ERR_KEY, "%s: no RSA key of %zd bits was given", who,
				 8 * b64url_length(recipient->node, "encrypted_key"));
	return error_set(err, CPULL_ERR_KEY, "%s: no EC key on %s was given", who, curve);
}

static int recipient_open(const struct jwe *jwe, const struct recipient *recipient, const struct key_ring *ring,
			  struct secret *out, struct cpull_error *err)
{
	unsigned tried = 0;

	for (size_t i = 0; i < key_ring_count(ring); i++) {
		if (!key_fits(&ring->keys[i], recipient))
			continue;
		tried++;

		CLEANUP_SECRET struct secret cek = {0};
		int rc = recipient->key_algorithm->oaep ? rsa_oaep(recipient, &ring->keys[i], &cek, err)
							: ecdh_es(jwe, recipient, &ring->keys[i], &cek, err);

		if (rc != CPULL_ERR_KEY)
			return rc ? rc : open_content(jwe, recipient->content, &cek, out, err);
	}
	return no_key_opens(recipient, tried, err);
}

static int try_recipient(const struct jwe *jwe, json_t *node, struct unwrap *unwrap, struct secret *out,
			 struct cpull_error *err)
{
	struct recipient recipient = {0};
	int rc = recipient_parse(jwe, node, &recipient, err);

	if (!rc)
		rc = recipient_open(jwe, &recipient, unwrap->ring, out, err);
	json_decref(recipient.header);
	return rc;
}

/* go-jose fails the whole JWE for one recipient that is not allowed; here the others still get their turn. */
static int try_all(const struct jwe *jwe, struct unwrap *unwrap, struct secret *out, struct cpull_error *err)
{
	struct reasons why = {0};

	for (size_t i = 0; i < json_array_size(jwe->recipients); i++) {
		struct cpull_error cause = {0};
		int rc = i ? unwrap_take_try(unwrap, err) : 0; /* the list's element has taken one */

		if (rc)
			return rc;
		rc = try_recipient(jwe, json_array_get(jwe->recipients, i), unwrap, out, &cause);
		if (!rc)
			return 0;
		if (rc != CPULL_ERR_KEY)
			return error_set(err, rc, "%s", cause.message);
		reasons_add(&why, "recipient %zu: %s", i + 1, cause.message);
	}
	return error_set(err, CPULL_ERR_KEY, "%s", why.text);
}

int jwe_unwrap(struct unwrap *unwrap, const uint8_t *wrap, size_t len, struct secret *out, struct cpull_error *err)
{
	struct jwe jwe = {0};
	int rc = jwe_parse(&jwe, (const char *)wrap, len, err);

	if (!rc && jwe.recipients)
		rc = try_all(&jwe, unwrap, out, err);
	else if (!rc)
		rc = try_recipient(&jwe, jwe.root, unwrap, out, err);
	jwe_free(&jwe);
	return rc;
}
