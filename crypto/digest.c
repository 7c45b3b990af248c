/* SPDX-License-Identifier: Apache-2.0
 *
 * SHA-2 digests as OCI descriptors write them (image-spec, descriptor.md, "Digests"). Called from every thread; a
 * hasher belongs to the one that made it. It runs on our own SHA-256 where the CPU has the instructions, so that it can
 * be paired with another, and else on an EVP context that it owns.
 */
#include "crypto/digest.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "crypto/algorithms.h"
#include "crypto/sha256.h"
#include "engine/base/error.h"

#define QUOTED_BYTES 200

static const struct {
	const char *name;
	enum digest_algorithm algorithm;
	uint32_t len;
} known[] = {
	{"sha256", DIGEST_SHA256, 32},
	{"sha384", DIGEST_SHA384, 48},
	{"sha512", DIGEST_SHA512, 64},
};

struct hasher {
	EVP_MD_CTX *ctx; /* NULL: sha256 is what is used */
	struct sha256 sha256;
	enum digest_algorithm algorithm;
	bool secret; /* in the secure heap */
};

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* The grammar's algorithm part: [a-z0-9]+ joined by single [+._-]. */
static bool algorithm_grammar(const char *text, size_t len)
{
	bool separator = true; /* none may come first */

	for (size_t i = 0; i < len; i++) {
		bool is_separator = memchr("+._-", text[i], 4) != NULL;
		bool word = (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= '0' && text[i] <= '9');

		if (!word && (!is_separator || separator))
			return false;
		separator = is_separator;
	}
	return !separator;
}

static int malformed(const char *text, int code, const char *why, struct cpull_error *err)
{
	char quoted[QUOTED_BYTES];

	error_quote(text, strnlen(text, QUOTED_BYTES), quoted, sizeof(quoted));
	return error_set(err, code, "digest \"%s\": %s", quoted, why);
}

static int parse_hex(const char *text, const char *hex, struct digest *out, struct cpull_error *err)
{
	if (strnlen(hex, 2 * (size_t)out->len + 1) != 2 * (size_t)out->len)
		return malformed(text, CPULL_ERR_MANIFEST, "not as long as its algorithm says", err);
	for (uint32_t i = 0; i < out->len; i++) {
		int high = hex_value(hex[2 * i]);
		int low = hex_value(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return malformed(text, CPULL_ERR_MANIFEST, "not lower-case hexadecimal", err);
		out->value[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

int digest_parse(const char *text, struct digest *out, struct cpull_error *err)
{
	*out = (struct digest){0};
	if (!text)
		return error_set(err, CPULL_ERR_MANIFEST, "digest is missing");

	const char *colon = strchr(text, ':');
	size_t name_len = colon ? (size_t)(colon - text) : 0;

	if (!algorithm_grammar(text, name_len))
		return malformed(text, CPULL_ERR_MANIFEST, "not of the form algorithm:hex", err);
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		if (name_len != strlen(known[i].name) || memcmp(text, known[i].name, name_len))
			continue;
		out->algorithm = known[i].algorithm;
		out->len = known[i].len;
		return parse_hex(text, colon + 1, out, err);
	}
	return malformed(text, CPULL_ERR_UNSUPPORTED, "algorithm not supported (sha256, sha384 and sha512 are)", err);
}

void digest_format(const struct digest *digest, char out[DIGEST_TEXT_BYTES])
{
	const char *name = "unset";

	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (known[i].algorithm == digest->algorithm)
			name = known[i].name;

	int at = snprintf(out, DIGEST_TEXT_BYTES, "%s:", name);

	hex_encode(digest->value, MIN(digest->len, DIGEST_MAX_BYTES), out + at);
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
	return a->algorithm == b->algorithm && a->len == b->len && a->len && a->len <= DIGEST_MAX_BYTES &&
	       !CRYPTO_memcmp(a->value, b->value, a->len);
}

static const EVP_MD *md_of(enum digest_algorithm algorithm)
{
	const struct algorithms *all = algorithms_get();

	switch (algorithm) {
	case DIGEST_SHA256:
		return all->sha256;
	case DIGEST_SHA384:
		return all->sha384;
	case DIGEST_SHA512:
		return all->sha512;
	}
	return NULL;
}

static int start_evp(struct hasher *hasher, struct cpull_error *err)
{
	const EVP_MD *md = md_of(hasher->algorithm);

	if (!md)
		return error_set(err, CPULL_ERR_INTERNAL, "OpenSSL's providers have no digest of number %d",
				 hasher->algorithm);
	hasher->ctx = EVP_MD_CTX_new();
	return hasher->ctx && EVP_DigestInit_ex2(hasher->ctx, md, NULL) == 1 ? 0 : error_nomem(err);
}

/* Takes over the zeroed hasher. */
static int start(struct hasher *hasher, enum digest_algorithm algorithm, struct hasher **out, struct cpull_error *err)
{
	int rc = 0;

	hasher->algorithm = algorithm;
	if (algorithm == DIGEST_SHA256 && algorithms_get()->sha256_ni)
		sha256_init(&hasher->sha256);
	else
		rc = start_evp(hasher, err);
	if (rc) {
		hasher_free(hasher);
		return rc;
	}
	*out = hasher;
	return 0;
}

int hasher_new(enum digest_algorithm algorithm, struct hasher **out, struct cpull_error *err)
{
	struct hasher *hasher = calloc(1, sizeof(*hasher));

	*out = NULL;
	return hasher ? start(hasher, algorithm, out, err) : error_nomem(err);
}

int hasher_new_secret(enum digest_algorithm algorithm, struct hasher **out, struct cpull_error *err)
{
	struct hasher *hasher = OPENSSL_secure_zalloc(sizeof(*hasher));

	*out = NULL;
	if (!hasher)
		return error_set(err, CPULL_ERR_NOMEM, "out of secure memory for a hash (%zu bytes wanted)",
				 sizeof(*hasher));
	hasher->secret = true;
	return start(hasher, algorithm, out, err);
}

int hasher_update(struct hasher *hasher, const void *data, size_t len)
{
	if (hasher->ctx)
		return EVP_DigestUpdate(hasher->ctx, data, len) == 1 ? 0 : CPULL_ERR_INTERNAL;
	sha256_update(&hasher->sha256, data, len);
	return 0;
}

int hasher_update_pair(struct hasher *a, const void *data_a, size_t len_a, struct hasher *b, const void *data_b,
		       size_t len_b)
{
	if (a->ctx || b->ctx) {
		int rc = hasher_update(a, data_a, len_a);

		return rc ? rc : hasher_update(b, data_b, len_b);
	}
	sha256_update_pair(&a->sha256, data_a, len_a, &b->sha256, data_b, len_b);
	return 0;
}

int hasher_update_shared(struct hasher *a, struct hasher *b, const void *data, size_t len)
{
	if (a->ctx || b->ctx)
		return hasher_update_pair(a, data, len, b, data, len);
	sha256_update_shared(&a->sha256, &b->sha256, data, len);
	return 0;
}

int hasher_final(struct hasher *hasher, struct digest *out)
{
	unsigned len = 0;

	*out = (struct digest){.algorithm = hasher->algorithm};
	if (!hasher->ctx) {
		sha256_final(&hasher->sha256, out->value);
		out->len = SHA256_BYTES;
		return 0;
	}
	if (EVP_DigestFinal_ex(hasher->ctx, out->value, &len) != 1)
		return CPULL_ERR_INTERNAL;
	out->len = len;
	return 0;
}

void hasher_free(struct hasher *hasher)
{
	if (!hasher)
		return;
	EVP_MD_CTX_free(hasher->ctx);
	if (hasher->secret) {
		OPENSSL_secure_clear_free(hasher, sizeof(*hasher));
		return;
	}
	OPENSSL_cleanse(hasher, sizeof(*hasher)); /* the tail may be of a secret */
	free(hasher);
}

int digest_compute(enum digest_algorithm algorithm, const void *data, size_t len, const char *what, struct digest *out,
		   struct cpull_error *err)
{
	struct hasher *hasher;
	int rc = hasher_new(algorithm, &hasher, err);

	if (rc)
		return rc;
	rc = hasher_update(hasher, data, len);
	if (!rc)
		rc = hasher_final(hasher, out);
	hasher_free(hasher);
	return rc ? error_set(err, rc, "%s: OpenSSL could not compute its digest", what) : 0;
}

int digest_verify(const struct digest *want, const struct digest *got, const char *what, struct cpull_error *err)
{
	char want_text[DIGEST_TEXT_BYTES];
	char got_text[DIGEST_TEXT_BYTES];

	if (digest_equal(want, got))
		return 0;
	digest_format(want, want_text);
	digest_format(got, got_text);
	return error_set(err, CPULL_ERR_DIGEST, "%s has digest %s, but %s was expected", what, got_text, want_text);
}

int digest_check(const struct digest *want, const void *data, size_t len, const char *what, struct cpull_error *err)
{
	struct digest got;
	int rc = digest_compute(want->algorithm, data, len, what, &got, err);

	return rc ? rc : digest_verify(want, &got, what, err);
}
