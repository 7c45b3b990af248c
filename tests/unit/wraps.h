/* SPDX-License-Identifier: Apache-2.0
 *
 * Keys, wraps and annotations for the tests of crypto/jwe and crypto/ocicrypt. Wraps are made with libjose, and with
 * OpenSSL where libjose is known to be wrong. Include behind cmocka.h; one program includes it once.
 */
#ifndef TESTS_UNIT_WRAPS_H
#define TESTS_UNIT_WRAPS_H

#include <string.h>

#include <jose/b64.h>
#include <jose/jwe.h>
#include <jose/jwk.h>
#include <jose/openssl.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>

#include "crypto/key_ring.h"
#include "engine/base/json.h"
#include "engine/base/limits.h"

#define ENC "org.opencontainers.image.enc."
#define SYMKEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define NONCE "8PHy8/T19vf4+fr7/P3+/w=="
#define PRIVATE "{\"symkey\":\"" SYMKEY "\",\"digest\":\"\",\"cipheroptions\":{\"nonce\":\"" NONCE "\"}}"
#define HMAC_TEXT "7qFMCr1gNaC4pJjldgxkFgE0QF0sjMXwDqIled3Miz4="
#define PUBLIC "{\"cipher\":\"AES_256_CTR_HMAC_SHA256\",\"hmac\":\"" HMAC_TEXT "\",\"cipheroptions\":{}}"

static EVP_PKEY *rsa;
static EVP_PKEY *ec[3]; /* P-256, P-384, P-521 */
static EVP_PKEY *stranger;
static struct key_ring *all; /* stranger, then the others */
static struct key_ring *none;

/* ---- making wraps ---- */

static inline void ring_add(struct key_ring *ring, EVP_PKEY *pkey)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *data;

	assert_int_equal(PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL), 1);
	long len = BIO_get_mem_data(bio, &data);
	assert_int_equal(key_ring_add_bytes(ring, "made", data, (size_t)len, NULL, NULL), 0);
	BIO_free(bio);
}

static inline json_t *public_jwk(EVP_PKEY *pkey)
{
	static const char *const private[] = {"d", "p", "q", "dp", "dq", "qi"};
	json_t *jwk = jose_openssl_jwk_from_EVP_PKEY(NULL, pkey);

	assert_non_null(jwk);
	for (size_t i = 0; i < ARRAY_LEN(private); i++)
		json_object_del(jwk, private[i]);
	return jwk;
}

/* What libjose of Debian 12 cannot do: a content key wrapped by RSA-OAEP. */
static inline void wrap_oaep(json_t *jwe, const char *alg, const json_t *cek)
{
	const char *hash = strcmp(alg, "RSA-OAEP") ? "SHA256" : "SHA1";
	uint8_t key[64];
	uint8_t wrapped[512];
	size_t key_len = jose_b64_dec(json_object_get(cek, "k"), key, sizeof(key));
	size_t len = sizeof(wrapped);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(rsa, NULL);

	assert_true(key_len <= sizeof(key));
	assert_int_equal(EVP_PKEY_encrypt_init(ctx), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_oaep_md_name(ctx, hash, NULL), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_mgf1_md_name(ctx, hash, NULL), 1);
	assert_int_equal(EVP_PKEY_encrypt(ctx, wrapped, &len, key, key_len), 1);
	EVP_PKEY_CTX_free(ctx);
	json_object_set_new(jwe, "encrypted_key", jose_b64_enc(wrapped, len));
}

/* A flattened JWE for pkey. */
static inline json_t *make_jwe(EVP_PKEY *pkey, const char *alg, const char *enc, const char *text)
{
	CLEANUP_JSON json_t *jwk = public_jwk(pkey);
	CLEANUP_JSON json_t *cek = json_pack("{s:s}", "alg", enc);
	json_t *jwe = json_pack("{s:{s:s,s:s,s:s}}", "protected", "alg", alg, "enc", enc, "kid", "key-1");

	assert_true(jose_jwk_gen(NULL, cek));
	if (pkey == rsa)
		wrap_oaep(jwe, alg, cek);
	else
		assert_true(jose_jwe_enc_jwk(NULL, jwe, NULL, jwk, cek));
	assert_true(jose_jwe_enc_cek(NULL, jwe, cek, text, strlen(text)));
	assert_true(json_is_string(json_object_get(jwe, "protected")));
	return jwe;
}

static inline char *base64(const void *data, size_t len)
{
	char *out = malloc(len / 3 * 4 + 8);

	assert_non_null(out);
	EVP_EncodeBlock((unsigned char *)out, data, (int)len);
	return out;
}

static inline char *base64_json(const json_t *json)
{
	CLEANUP_FREE char *text = json_dumps(json, JSON_COMPACT);

	assert_non_null(text);
	return base64(text, strlen(text));
}

/* Annotations with public options and one list; either may be NULL. */
static inline json_t *annotate(const char *public, const char *scheme, const char *list)
{
	CLEANUP_FREE char *options = public ? base64(public, strlen(public)) : NULL;
	CLEANUP_FREE char *key = format_string(ENC "keys.%s", scheme ? scheme : "");
	json_t *out = json_object();

	if (public)
		assert_int_equal(json_object_set_new(out, ENC "pubopts", json_string(options)), 0);
	if (list)
		assert_int_equal(json_object_set_new(out, key, json_string(list)), 0);
	return out;
}

static inline json_t *annotate_jwe(const json_t *jwe)
{
	CLEANUP_FREE char *list = base64_json(jwe);

	return annotate(PUBLIC, "jwe", list);
}

/* ---- asking ---- */

static inline void no_secret_in(const char *message)
{
	static const char *const secrets[] = {SYMKEY, NONCE};
	char window[7] = {0};

	for (size_t s = 0; s < ARRAY_LEN(secrets); s++)
		for (size_t i = 0; secrets[s][i + 5]; i++) {
			memcpy(window, secrets[s] + i, 6);
			assert_null(strstr(message, window));
		}
}

static inline void must_open(const struct key_ring *ring, const json_t *annotations)
{
	struct layer_key *key;
	struct cpull_error err = {0};

	if (ocicrypt_unwrap(ring, annotations, &key, &err))
		fail_msg("%s", err.message);
	for (uint8_t i = 0; i < 32; i++)
		assert_int_equal(key->symkey[i], i);
	for (uint8_t i = 0; i < 16; i++)
		assert_int_equal(key->nonce[i], 0xf0 + i);
	assert_int_equal(key->hmac[0], 0xee);
	assert_int_equal(key->hmac[31], 0x3e);
	assert_int_equal(ERR_peek_error(), 0);
	layer_key_free(key);
}

static inline void must_fail_into(const struct key_ring *ring, const json_t *annotations, int code, const char *why,
			   struct cpull_error *err)
{
	struct layer_key *key;

	int rc = ocicrypt_unwrap(ring, annotations, &key, err);

	assert_int_equal(rc, err->code);
	assert_null(key);
	if (err->code != code || !strstr(err->message, why))
		fail_msg("code %d, \"%s\" does not say \"%s\"", err->code, err->message, why);
	assert_null(strchr(err->message, '\n'));
	no_secret_in(err->message);
	assert_int_equal(ERR_peek_error(), 0);
}

static inline void must_fail(const struct key_ring *ring, const json_t *annotations, int code, const char *why)
{
	struct cpull_error err = {0};

	must_fail_into(ring, annotations, code, why, &err);
}

/* ---- keys ---- */

static inline int make_keys(void **state)
{
	unsigned char byte;

	(void)state;
	/* OpenSSL's generators, if made after the secure heap, live in it, where LeakSanitizer cannot see what they
	 * own */
	if (RAND_bytes(&byte, 1) != 1 || RAND_priv_bytes(&byte, 1) != 1)
		return -1;
	secure_heap_init(NULL);
	rsa = EVP_RSA_gen(2048);
	stranger = EVP_EC_gen("P-256");
	ec[0] = EVP_EC_gen("P-256");
	ec[1] = EVP_EC_gen("P-384");
	ec[2] = EVP_EC_gen("P-521");
	if (key_ring_new(&all, NULL) || key_ring_new(&none, NULL))
		return -1;

	EVP_PKEY *other = EVP_EC_gen("P-256");

	ring_add(all, other);
	EVP_PKEY_free(other);
	ring_add(all, rsa);
	for (size_t i = 0; i < ARRAY_LEN(ec); i++)
		ring_add(all, ec[i]);
	return 0;
}

static inline int free_keys(void **state)
{
	(void)state;
	key_ring_free(all);
	key_ring_free(none);
	EVP_PKEY_free(rsa);
	EVP_PKEY_free(stranger);
	for (size_t i = 0; i < ARRAY_LEN(ec); i++)
		EVP_PKEY_free(ec[i]);
	return 0;
}

#endif
