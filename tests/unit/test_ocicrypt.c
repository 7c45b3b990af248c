/* SPDX-License-Identifier: Apache-2.0
 *
 * crypto/ocicrypt and crypto/jwe: from annotations to a layer key. Wraps are made here with libjose (and OpenSSL where
 * libjose is known to be wrong), and come from the shared vectors, among them images that skopeo encrypted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include <jose/b64.h>
#include <jose/jwe.h>
#include <jose/jwk.h>
#include <jose/openssl.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "crypto/key_ring.h"
#include "engine/base/limits.h"
#include "tests/unit/vectors.h"

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

static void ring_add(struct key_ring *ring, EVP_PKEY *pkey)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *data;

	assert_int_equal(PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL), 1);
	long len = BIO_get_mem_data(bio, &data);
	assert_int_equal(key_ring_add_bytes(ring, "made", data, (size_t)len, NULL, NULL), 0);
	BIO_free(bio);
}

static json_t *public_jwk(EVP_PKEY *pkey)
{
	static const char *const private[] = {"d", "p", "q", "dp", "dq", "qi"};
	json_t *jwk = jose_openssl_jwk_from_EVP_PKEY(NULL, pkey);

	assert_non_null(jwk);
	for (size_t i = 0; i < ARRAY_LEN(private); i++)
		json_object_del(jwk, private[i]);
	return jwk;
}

/* What libjose of Debian 12 cannot do: a content key wrapped by RSA-OAEP. */
static void wrap_oaep(json_t *jwe, const char *alg, const json_t *cek)
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
static json_t *make_jwe(EVP_PKEY *pkey, const char *alg, const char *enc, const char *text)
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

static char *base64(const void *data, size_t len)
{
	char *out = malloc(len / 3 * 4 + 8);

	assert_non_null(out);
	EVP_EncodeBlock((unsigned char *)out, data, (int)len);
	return out;
}

static char *base64_json(const json_t *json)
{
	CLEANUP_FREE char *text = json_dumps(json, JSON_COMPACT);

	assert_non_null(text);
	return base64(text, strlen(text));
}

/* Annotations with public options and one list; either may be NULL. */
static json_t *annotate(const char *public, const char *scheme, const char *list)
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

static json_t *annotate_jwe(const json_t *jwe)
{
	CLEANUP_FREE char *list = base64_json(jwe);

	return annotate(PUBLIC, "jwe", list);
}

/* ---- asking ---- */

static void no_secret_in(const char *message)
{
	static const char *const secrets[] = {SYMKEY, NONCE};
	char window[7] = {0};

	for (size_t s = 0; s < ARRAY_LEN(secrets); s++)
		for (size_t i = 0; secrets[s][i + 5]; i++) {
			memcpy(window, secrets[s] + i, 6);
			assert_null(strstr(message, window));
		}
}

static void must_open(const struct key_ring *ring, const json_t *annotations)
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

static void must_fail_into(const struct key_ring *ring, const json_t *annotations, int code, const char *why,
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

static void must_fail(const struct key_ring *ring, const json_t *annotations, int code, const char *why)
{
	struct cpull_error err = {0};

	must_fail_into(ring, annotations, code, why, &err);
}

/* ---- what opens ---- */

static void every_algorithm_of_the_list(void **state)
{
	static const char *const encs[] = {"A128GCM",	    "A192GCM",	      "A256GCM",
					   "A128CBC-HS256", "A192CBC-HS384", "A256CBC-HS512"};
	static const char *const algs[] = {"RSA-OAEP", "RSA-OAEP-256", "ECDH-ES+A128KW", "ECDH-ES+A192KW",
					   "ECDH-ES+A256KW"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(algs) * ARRAY_LEN(encs); i++) {
		const char *alg = algs[i / ARRAY_LEN(encs)];
		EVP_PKEY *pkey = alg[0] == 'R' ? rsa : ec[i % 3];
		CLEANUP_JSON json_t *jwe = make_jwe(pkey, alg, encs[i % ARRAY_LEN(encs)], PRIVATE);
		CLEANUP_JSON json_t *annotations = annotate_jwe(jwe);

		must_open(all, annotations);
	}
}

static void compact_form(void **state)
{
	CLEANUP_JSON json_t *jwe = make_jwe(rsa, "RSA-OAEP", "A256GCM", PRIVATE);
	CLEANUP_FREE char *text = format_string(
		" \n%s.%s\n.%s.%s\t.%s \n", json_string_at(jwe, "protected"), json_string_at(jwe, "encrypted_key"),
		json_string_at(jwe, "iv"), json_string_at(jwe, "ciphertext"), json_string_at(jwe, "tag"));
	CLEANUP_FREE char *list = base64(text, strlen(text));
	CLEANUP_JSON json_t *annotations = annotate(PUBLIC, "jwe", list);

	(void)state;
	must_open(all, annotations);
}

/* Encrypts PRIVATE again under a known content key, with additional data that libjose gets wrong. */
static void seal_gcm(json_t *jwe, const uint8_t cek[32], const char *aad)
{
	uint8_t iv[12] = {7};
	uint8_t text[sizeof(PRIVATE)];
	uint8_t tag[16];
	int len;
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	CLEANUP_FREE char *both = format_string("%s.%s", json_string_at(jwe, "protected"), aad);

	assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, cek, iv), 1);
	assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &len, (uint8_t *)both, (int)strlen(both)), 1);
	assert_int_equal(EVP_EncryptUpdate(ctx, text, &len, (const uint8_t *)PRIVATE, strlen(PRIVATE)), 1);
	assert_int_equal(EVP_EncryptFinal_ex(ctx, text + len, &len), 1);
	assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, 16, tag), 1);
	EVP_CIPHER_CTX_free(ctx);
	json_object_set_new(jwe, "iv", jose_b64_enc(iv, sizeof(iv)));
	json_object_set_new(jwe, "ciphertext", jose_b64_enc(text, strlen(PRIVATE)));
	json_object_set_new(jwe, "tag", jose_b64_enc(tag, sizeof(tag)));
	json_object_set_new(jwe, "aad", json_string(aad));
}

static void additional_data_counts(void **state)
{
	static const char *const aads[] = {"", "AA", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2"
						     "d3h5ejAxMjM0NTY3ODktXwQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYm"};
	uint8_t cek[32] = {1, 2, 3};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(aads); i++) {
		CLEANUP_JSON json_t *jwk = public_jwk(ec[0]);
		CLEANUP_JSON json_t *k = json_pack("{s:s,s:o}", "kty", "oct", "k", jose_b64_enc(cek, sizeof(cek)));
		CLEANUP_JSON json_t *jwe = json_pack("{s:s}", "protected", "eyJlbmMiOiJBMjU2R0NNIn0");

		CLEANUP_JSON json_t *rcp = json_pack("{s:{s:s}}", "header", "alg", "ECDH-ES+A256KW");

		assert_true(jose_jwe_enc_jwk(NULL, jwe, rcp, jwk, k));
		seal_gcm(jwe, cek, aads[i]);
		CLEANUP_JSON json_t *good = annotate_jwe(jwe);
		must_open(all, good);
		json_object_set_new(jwe, "aad", json_string("AB"));
		CLEANUP_JSON json_t *other = annotate_jwe(jwe);
		must_fail(all, other, CPULL_ERR_KEY, "tag mismatch");
		json_object_del(jwe, "aad");
		CLEANUP_JSON json_t *gone = annotate_jwe(jwe);
		must_fail(all, gone, CPULL_ERR_KEY, "tag mismatch");
	}

	/* the same with CBC, where libjose is right */
	CLEANUP_JSON json_t *jwk = public_jwk(ec[0]);
	CLEANUP_JSON json_t *cek_json = json_object();
	CLEANUP_JSON json_t *jwe = json_pack("{s:{s:s,s:s},s:s}", "protected", "alg", "ECDH-ES+A256KW", "enc",
					     "A256CBC-HS512", "aad", "QUJD");
	assert_true(jose_jwe_enc_jwk(NULL, jwe, NULL, jwk, cek_json));
	assert_true(jose_jwe_enc_cek(NULL, jwe, cek_json, PRIVATE, strlen(PRIVATE)));
	CLEANUP_JSON json_t *good = annotate_jwe(jwe);
	must_open(all, good);
	json_object_set_new(jwe, "aad", json_string("QUJE"));
	CLEANUP_JSON json_t *other = annotate_jwe(jwe);
	must_fail(all, other, CPULL_ERR_KEY, "tag mismatch");
}

/* Turns the flattened jwe into the general form with `first` as recipient 0; takes over first. */
static json_t *generalize(const json_t *jwe, json_t *first)
{
	json_t *out = json_deep_copy(jwe);
	json_t *header = json_object_get(out, "header");
	json_t *own = json_pack("{s:O}", "encrypted_key", json_object_get(out, "encrypted_key"));

	if (header)
		json_object_set(own, "header", header);
	json_object_del(out, "header");
	json_object_set_new(out, "recipients", json_pack("[o,o]", first, own));
	return out;
}

static void other_recipients_get_their_turn(void **state)
{
	static const char *const bad[] = {
		"{\"header\":{\"alg\":\"RSA1_5\"},\"encrypted_key\":\"AAAA\"}",
		"{\"header\":{\"alg\":\"dir\"}}",
		"{\"header\":{\"alg\":\"PBES2-HS512+A256KW\",\"p2s\":\"AAAA\",\"p2c\":2000000000},"
		"\"encrypted_key\":\"AAAA\"}",
		"{\"header\":{\"alg\":\"ECDH-ES+A256KW\"},\"encrypted_key\":\"AAAA\"}",
		"{\"header\":17,\"encrypted_key\":\"AAAA\"}",
		"17",
	};
	CLEANUP_JSON json_t *jwk = public_jwk(ec[0]);
	CLEANUP_JSON json_t *cek = json_object();
	CLEANUP_JSON json_t *jwe = json_pack("{s:{s:s}}", "protected", "enc", "A256GCM");
	CLEANUP_JSON json_t *rcp = json_pack("{s:{s:s}}", "header", "alg", "ECDH-ES+A128KW");

	(void)state;
	assert_true(jose_jwe_enc_jwk(NULL, jwe, rcp, jwk, cek));
	assert_true(jose_jwe_enc_cek(NULL, jwe, cek, PRIVATE, strlen(PRIVATE)));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		CLEANUP_JSON json_t *general = generalize(jwe, json_loads(bad[i], JSON_DECODE_ANY, NULL));
		CLEANUP_JSON json_t *annotations = annotate_jwe(general);

		must_open(all, annotations);
		json_array_remove(json_object_get(general, "recipients"), 1);
		CLEANUP_JSON json_t *alone = annotate_jwe(general);
		must_fail(all, alone, CPULL_ERR_KEY, "recipient 1: ");
	}
}

static void every_wrap_of_the_list_is_tried(void **state)
{
	CLEANUP_JSON json_t *good = make_jwe(ec[1], "ECDH-ES+A256KW", "A256GCM", PRIVATE);
	CLEANUP_JSON json_t *foreign = make_jwe(stranger, "ECDH-ES+A256KW", "A256GCM", PRIVATE);
	CLEANUP_FREE char *a = base64_json(foreign);
	CLEANUP_FREE char *b = base64_json(good);
	CLEANUP_FREE char *list = format_string("%s,,%s", a, b);
	CLEANUP_FREE char *other = format_string("%s,", a);
	CLEANUP_JSON json_t *annotations = annotate(PUBLIC, "jwe", list);
	CLEANUP_JSON json_t *failing = annotate(PUBLIC, "jwe", other);
	struct key_ring *ring;
	struct cpull_error err = {0};

	(void)state;
	assert_int_equal(key_ring_new(&ring, NULL), 0);
	ring_add(ring, ec[1]);
	ring_add(ring, ec[0]);
	must_open(ring, annotations);
	/* stranger's key is on P-256 too, so ec[0] is tried, and fails */
	must_fail_into(ring, failing, CPULL_ERR_KEY, "jwe 1: ECDH-ES+A256KW, kid \"key-1\": none of the 1 keys", &err);
	assert_non_null(strstr(err.message, "jwe 2: the wrap is empty"));
	key_ring_free(ring);
}

/* ---- JWEs that must not open ---- */

static void protect(json_t *jwe, const char *text)
{
	json_object_set_new(jwe, "protected", jose_b64_enc(text, strlen(text)));
}

static void headers_that_are_refused(void **state)
{
	static const struct {
		const char *text;
		const char *why;
	} bad[] = {
		{"", "protected header is missing, empty"},
		{"x", "not valid JSON"},
		{"[]", "not a JSON object"},
		{"{\"alg\":\"ECDH-ES+A256KW\",\"alg\":\"ECDH-ES+A256KW\",\"enc\":\"A256GCM\"}", "duplicate"},
		{"{}", "alg \"\" is not allowed"},
		{"{\"alg\":17,\"enc\":\"A256GCM\"}", "alg \"\" is not allowed"},
		{"{\"alg\":\"dir\",\"enc\":\"A256GCM\"}", "alg \"dir\" is not allowed"},
		{"{\"alg\":\"RSA1_5\",\"enc\":\"A256GCM\"}", "alg \"RSA1_5\" is not allowed"},
		{"{\"alg\":\"ECDH-ES\",\"enc\":\"A256GCM\"}", "alg \"ECDH-ES\" is not allowed"},
		{"{\"alg\":\"A256KW\",\"enc\":\"A256GCM\"}", "is not allowed"},
		{"{\"alg\":\"A256GCMKW\",\"enc\":\"A256GCM\"}", "is not allowed"},
		{"{\"alg\":\"RSA-OAEP-512\",\"enc\":\"A256GCM\"}", "is not allowed"},
		{"{\"alg\":\"PBES2-HS256+A128KW\",\"p2s\":\"AAAA\",\"p2c\":2000000000,\"enc\":\"A256GCM\"}", "not allowed"},
		{"{\"alg\":\"none\",\"enc\":\"A256GCM\"}", "is not allowed"},
		{"{\"alg\":\"a\\nb\",\"enc\":\"A256GCM\"}", "alg \"a\\x0ab\" is not allowed"},
		{"{\"alg\":\"ECDH-ES+A256KW\"}", "enc \"\" is not allowed"},
		{"{\"alg\":\"ECDH-ES+A256KW\",\"enc\":\"A128CTR\"}", "enc \"A128CTR\" is not allowed"},
		{"{\"alg\":\"ECDH-ES+A256KW\",\"enc\":\"A256GCM\",\"crit\":[\"exp\"]}", "crit"},
		{"{\"alg\":\"ECDH-ES+A256KW\",\"enc\":\"A256GCM\",\"crit\":[]}", "crit"},
		{"{\"alg\":\"ECDH-ES+A256KW\",\"enc\":\"A256GCM\",\"zip\":\"DEF\"}", "zip"},
		{"{\"alg\":\"ECDH-ES+A256KW\",\"enc\":\"A256GCM\",\"epk\":{}}", "given twice"},
		{"{\"alg\":\"ECDH-ES+A256KW\",\"enc\":\"A256GCM\",\"apu\":\"A\"}", "apu or apv"},
		{"{\"alg\":\"ECDH-ES+A256KW\",\"enc\":\"A256GCM\",\"apv\":17}", "apu or apv"},
		/* fine, but not what the tag was made over */
		{"{\"alg\":\"ECDH-ES+A256KW\",\"enc\":\"A256GCM\",\"kid\":\"other\"}", "tag mismatch"},
		{"{\"alg\":\"ECDH-ES+A256KW\",\"enc\":\"A128GCM\"}", "wrapped key has 32 bytes, and A128GCM takes 16"},
	};
	CLEANUP_JSON json_t *jwe = make_jwe(ec[0], "ECDH-ES+A256KW", "A256GCM", PRIVATE);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		protect(jwe, bad[i].text);
		CLEANUP_JSON json_t *annotations = annotate_jwe(jwe);
		must_fail(all, annotations, CPULL_ERR_KEY, bad[i].why);
	}
}

/* A member replaced by JSON text, or taken away. */
static void members_that_are_refused(void **state)
{
	static const struct {
		const char *member;
		const char *value; /* NULL: taken away */
		const char *why;
	} bad[] = {
		{"protected", NULL, "protected header is missing"},
		{"protected", "{\"alg\":\"ECDH-ES+A256KW\",\"enc\":\"A256GCM\"}", "protected header is missing"},
		{"protected", "\"e30=\"", "protected header is missing"},
		{"protected", "\"e31\"", "protected header is not base64url"},
		{"iv", NULL, "iv, ciphertext or tag"},
		{"iv", "\"AAAA\"", "tag mismatch"},
		{"iv", "\"AAAAAAAAAAAAAAAAAAAAAA\"", "tag mismatch"},
		{"iv", "\"AAAAAAAAAAAAAAA=\"", "iv, ciphertext or tag"},
		{"ciphertext", NULL, "iv, ciphertext or tag"},
		{"ciphertext", "\"\"", "tag mismatch"},
		{"ciphertext", "\"A\"", "iv, ciphertext or tag"},
		{"ciphertext", "[]", "iv, ciphertext or tag"},
		{"tag", NULL, "iv, ciphertext or tag"},
		{"tag", "\"\"", "tag mismatch"},
		{"tag", "\"AAAAAA\"", "tag mismatch"}, /* four bytes: a tag that could be guessed */
		{"tag", "\"AAAAAAAAAAAAAAAAAAAAAA\"", "tag mismatch"},
		{"encrypted_key", NULL, "encrypted_key is missing"},
		{"encrypted_key", "\"\"", "encrypted_key is missing"},
		{"encrypted_key", "17", "encrypted_key is missing"},
		{"encrypted_key", "\"AAAA\"", "none of the 2 keys"},
		{"encrypted_key", "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"", "none of the 2 keys"},
		{"aad", "\"+\"", "aad is not base64url"},
		{"aad", "null", "aad is not base64url"},
		{"unprotected", "17", "header is not an object"},
		{"unprotected", "{\"enc\":\"A256GCM\"}", "given twice"},
		{"unprotected", "{\"crit\":[\"x\"]}", "crit"},
		{"unprotected", "{\"zip\":\"DEF\"}", "zip"},
		{"header", NULL, "epk is missing"},
		{"header", "[]", "header is not an object"},
		{"recipients", "[]", "recipients is not an array"},
		{"recipients", "{}", "recipients is not an array"},
		{"recipients", "null", "recipients is not an array"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		CLEANUP_JSON json_t *jwe = make_jwe(ec[0], "ECDH-ES+A256KW", "A256GCM", PRIVATE);

		if (bad[i].value)
			json_object_set_new(jwe, bad[i].member, json_loads(bad[i].value, JSON_DECODE_ANY, NULL));
		else
			json_object_del(jwe, bad[i].member);
		CLEANUP_JSON json_t *annotations = annotate_jwe(jwe);
		must_fail(all, annotations, CPULL_ERR_KEY, bad[i].why);
	}
}

#define ZERO_32 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define ZERO_48 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

static void ephemeral_keys_that_are_refused(void **state)
{
	static const struct {
		const char *epk;
		const char *why;
	} bad[] = {
		{"17", "epk is missing or not an EC key"},
		{"{}", "epk is missing or not an EC key"},
		{"{\"kty\":\"RSA\",\"crv\":\"P-256\"}", "not an EC key"},
		{"{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"" ZERO_32 "\"}", "not an EC key"},
		{"{\"kty\":\"EC\",\"crv\":\"secp256k1\",\"x\":\"" ZERO_32 "\",\"y\":\"" ZERO_32 "\"}", "curve is none of"},
		{"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" ZERO_32 "\",\"y\":\"" ZERO_32 "\"}", "not a point on its curve"},
		{"{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"" ZERO_48 "\",\"y\":\"" ZERO_48 "\"}", "not a point on its curve"},
		{"{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"" ZERO_32 "\",\"y\":\"" ZERO_32 "\"}", "not a public point"},
		{"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" ZERO_32 "\"}", "not a public point"},
		{"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}", "not a public point"},
		{"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" ZERO_32 "\",\"y\":\"" ZERO_32 "\",\"d\":\"AQ\"}", "not a public point"},
	};
	CLEANUP_JSON json_t *jwe = make_jwe(ec[0], "ECDH-ES+A256KW", "A256GCM", PRIVATE);
	json_t *header = json_object_get(jwe, "header");
	CLEANUP_JSON json_t *epk = json_deep_copy(json_object_get(header, "epk"));

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		json_object_set_new(header, "epk", json_loads(bad[i].epk, JSON_DECODE_ANY, NULL));
		CLEANUP_JSON json_t *annotations = annotate_jwe(jwe);
		must_fail(all, annotations, CPULL_ERR_KEY, bad[i].why);
	}

	/* a real point with one coordinate moved: off the curve by a little */
	CLEANUP_FREE char *y = strdup(json_string_at(epk, "y"));
	y[5] = y[5] == 'A' ? 'B' : 'A';
	json_object_set_new(epk, "y", json_string(y));
	json_object_set(header, "epk", epk);
	CLEANUP_JSON json_t *moved = annotate_jwe(jwe);
	must_fail(all, moved, CPULL_ERR_KEY, "not a point on its curve");

	/* a point of another curve than any key that was given */
	CLEANUP_JSON json_t *other = make_jwe(ec[2], "ECDH-ES+A256KW", "A256GCM", PRIVATE);
	CLEANUP_JSON json_t *annotations = annotate_jwe(other);
	struct key_ring *ring;

	assert_int_equal(key_ring_new(&ring, NULL), 0);
	ring_add(ring, ec[0]);
	ring_add(ring, rsa);
	must_fail(ring, annotations, CPULL_ERR_KEY, "no EC key on P-521 was given");
	key_ring_free(ring);
}

static void texts_that_are_no_jwe(void **state)
{
	static const char *const bad[] = {
		"a",	     "a.b.c.d",	 "a.b.c.d.e.f", "....", "e30..AA.AA.AA", "\xff.b.c.d.e", "{", "{\"protected\":",
		"[\"e30\"]", "{} x",	 "{\"iv\":\"\",\"iv\":\"\"}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		CLEANUP_FREE char *list = base64(bad[i], strlen(bad[i]));
		CLEANUP_JSON json_t *annotations = annotate(PUBLIC, "jwe", list);

		must_fail(all, annotations, CPULL_ERR_KEY, "jwe 1: ");
	}
	CLEANUP_JSON json_t *empty = annotate(PUBLIC, "jwe", "");
	must_fail(all, empty, CPULL_ERR_KEY, "the wrap is empty");
}

/* ---- options ---- */

static void public_options_that_are_refused(void **state)
{
	static const struct {
		const char *text;
		const char *why;
	} bad[] = {
		{NULL, "pubopts is missing"},
		{"", "not valid JSON"},
		{"[]", "not a JSON object"},
		{"{}", "no cipher is named"},
		{"{\"cipher\":\"\",\"hmac\":\"" HMAC_TEXT "\"}", "no cipher is named"},
		{"{\"cipher\":null,\"hmac\":\"" HMAC_TEXT "\"}", "no cipher is named"},
		{"{\"cipher\":\"AES_256_CTR\",\"hmac\":\"" HMAC_TEXT "\"}", "cipher \"AES_256_CTR\" is not known"},
		{"{\"cipher\":\"AES_128\",\"hmac\":\"" HMAC_TEXT "\"}", "cipher \"AES_128\" is not known"},
		{"{\"cipher\":\"AES_256_CTR_HMAC_SHA256\"}", "hmac is missing"},
		{"{\"cipher\":\"AES_256_CTR_HMAC_SHA256\",\"hmac\":null}", "hmac is missing"},
		{"{\"cipher\":\"AES_256_CTR_HMAC_SHA256\",\"hmac\":17}", "hmac is not a string"},
		{"{\"cipher\":\"AES_256_CTR_HMAC_SHA256\",\"hmac\":\"\"}", "hmac has 0 bytes"},
		{"{\"cipher\":\"AES_256_CTR_HMAC_SHA256\",\"hmac\":\"AAAA\"}", "hmac has 3 bytes"},
		{"{\"cipher\":\"AES_256_CTR_HMAC_SHA256\",\"hmac\":\"AA-_\"}", "hmac is not standard base64"},
		{"{\"cipher\":\"AES_256_CTR_HMAC_SHA256\",\"hmac\":\"" HMAC_TEXT "\",\"hmac\":\"AAAA\"}", "duplicate"},
		{"{\"cipher\":\"AES_256_CTR_HMAC_SHA256\",\"hmac\":\"" HMAC_TEXT "\",\"cipheroptions\":[]}",
		 "cipheroptions is not an object"},
		{"{\"cipher\":\"AES_256_CTR_HMAC_SHA256\",\"hmac\":\"" HMAC_TEXT "\",\"cipheroptions\":{\"nonce\":\"\"}}",
		 "nonce has 0 bytes"},
	};
	CLEANUP_JSON json_t *jwe = make_jwe(ec[0], "ECDH-ES+A256KW", "A256GCM", PRIVATE);
	CLEANUP_FREE char *list = base64_json(jwe);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		CLEANUP_JSON json_t *annotations = annotate(bad[i].text, "jwe", list);

		must_fail(all, annotations, CPULL_ERR_DECRYPT, bad[i].why);
	}

	CLEANUP_JSON json_t *annotations = annotate(PUBLIC, "jwe", list);
	json_object_set_new(annotations, ENC "pubopts", json_string("e30"));
	must_fail(all, annotations, CPULL_ERR_DECRYPT, "not standard base64");
	json_object_set_new(annotations, ENC "pubopts", json_integer(17));
	must_fail(all, annotations, CPULL_ERR_DECRYPT, "not a string");
}

static void public_options_that_are_taken(void **state)
{
	static const char *const good[] = {
		"{\"cipheroptions\":null,\"hmac\":\"" HMAC_TEXT "\",\"cipher\":\"AES_256_CTR_HMAC_SHA256\"}",
		" {\"cipher\":\"AES_256_CTR_HMAC_SHA256\",\n\"hmac\":\"" HMAC_TEXT "\",\"other\":[]} ",
		/* public comes first in the look-up; the private one is another */
		"{\"cipher\":\"AES_256_CTR_HMAC_SHA256\",\"hmac\":\"" HMAC_TEXT "\",\"cipheroptions\":{\"nonce\":\"" NONCE "\"}}",
	};
	static const char *const privates[] = {
		PRIVATE,
		"{\"cipheroptions\":{\"nonce\":\"" NONCE "\"},\"symkey\":\"" SYMKEY "\",\"more\":{\"a\":[1]}}",
		"{\"symkey\":\"" SYMKEY "\",\"digest\":null,\"cipheroptions\":{\"nonce\":\"AAAAAAAAAAAAAAAAAAAAAA==\"}}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		CLEANUP_JSON json_t *jwe = make_jwe(ec[0], "ECDH-ES+A256KW", "A256GCM", privates[i]);
		CLEANUP_FREE char *list = base64_json(jwe);
		CLEANUP_JSON json_t *annotations = annotate(good[i], "jwe", list);

		must_open(all, annotations);
	}
}

static void private_options_that_are_refused(void **state)
{
	static const struct {
		const char *text;
		const char *why;
	} bad[] = {
		{"", "not valid JSON"},
		{"x", "not valid JSON"},
		{"{\"symkey\":\"" SYMKEY "\"", "not valid JSON"},
		{"{\"symkey\":" SYMKEY "}", "not valid JSON"},
		{"{\"symkey\":\"" SYMKEY "\",\"symkey\":\"" SYMKEY "\"}", "not valid JSON"},
		{"[\"" SYMKEY "\"]", "not a JSON object"},
		{"{}", "symkey is missing"},
		{"{\"symkey\":null}", "symkey is missing"},
		{"{\"symkey\":{\"a\":\"" SYMKEY "\"}}", "symkey is not a string"},
		{"{\"symkey\":\"AAECAwQFBgcICQoLDA0ODw==\",\"digest\":\"\",\"cipheroptions\":{\"nonce\":\"" NONCE "\"}}",
		 "symkey has 16 bytes, and 32 are needed"},
		{"{\"symkey\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\"}", "symkey is not standard base64"},
		{"{\"symkey\":\"__ECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"}", "symkey is not standard base64"},
		{"{\"symkey\":\"" SYMKEY "\",\"digest\":17}", "digest is not a string"},
		{"{\"symkey\":\"" SYMKEY "\"}", "nonce is missing"},
		{"{\"symkey\":\"" SYMKEY "\",\"cipheroptions\":null}", "nonce is missing"},
		{"{\"symkey\":\"" SYMKEY "\",\"cipheroptions\":{}}", "nonce is missing"},
		{"{\"symkey\":\"" SYMKEY "\",\"cipheroptions\":\"x\"}", "cipheroptions is not an object"},
		{"{\"symkey\":\"" SYMKEY "\",\"cipheroptions\":{\"nonce\":\"\"}}", "nonce has 0 bytes"},
		{"{\"symkey\":\"" SYMKEY "\",\"cipheroptions\":{\"nonce\":\"8PHy8/T19vf4+fr7\"}}", "nonce has 12 bytes"},
		{"{\"symkey\":\"" SYMKEY "\",\"cipheroptions\":{\"nonce\":\"8PHy8/T19vf4+fr7/P3+\"}}", "nonce has 15 bytes"},
		{"{\"symkey\":\"" SYMKEY "\",\"cipheroptions\":{\"nonce\":[\"" NONCE "\"]}}", "nonce is not a string"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		CLEANUP_JSON json_t *jwe = make_jwe(ec[0], "ECDH-ES+A256KW", "A256GCM", bad[i].text);
		CLEANUP_JSON json_t *annotations = annotate_jwe(jwe);

		must_fail(all, annotations, CPULL_ERR_DECRYPT, bad[i].why);
	}
}

/* ---- annotations and limits ---- */

static void annotations_without_a_wrap(void **state)
{
	CLEANUP_JSON json_t *options_only = annotate(PUBLIC, NULL, NULL);
	CLEANUP_JSON json_t *empty = json_object();
	CLEANUP_JSON json_t *array = json_array();

	(void)state;
	must_fail(all, NULL, CPULL_ERR_KEY, "missing key");
	must_fail(all, empty, CPULL_ERR_KEY, "missing key");
	must_fail(all, array, CPULL_ERR_KEY, "missing key");
	must_fail(all, options_only, CPULL_ERR_KEY, "missing key");
}

static void other_schemes_are_explained(void **state)
{
	static const char *const schemes[] = {"pkcs7", "pgp", "pkcs11", "provider.attestation-agent"};
	CLEANUP_JSON json_t *jwe = make_jwe(ec[0], "ECDH-ES+A256KW", "A256GCM", PRIVATE);
	CLEANUP_JSON json_t *beside = annotate_jwe(jwe);
	CLEANUP_JSON json_t *unknown = annotate(PUBLIC, "rot13", "AAAA");

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		CLEANUP_JSON json_t *annotations = annotate(PUBLIC, schemes[i], "AAAA");
		CLEANUP_FREE char *why = format_string("%s: not supported by this build yet: needs", schemes[i]);
		CLEANUP_FREE char *key = format_string(ENC "keys.%s", schemes[i]);

		must_fail(all, annotations, CPULL_ERR_KEY, why);
		json_object_set_new(beside, key, json_string("AAAA"));
		must_open(all, beside);
	}
	must_fail(none, beside, CPULL_ERR_KEY, "no EC key on P-256 was given; pkcs7: not supported");
	must_fail(all, unknown, CPULL_ERR_KEY, "rot13: a scheme that is not known");
}

static void lists_that_are_not_base64(void **state)
{
	CLEANUP_JSON json_t *jwe = make_jwe(ec[0], "ECDH-ES+A256KW", "A256GCM", PRIVATE);
	CLEANUP_FREE char *good = base64_json(jwe);
	CLEANUP_FREE char *bad_first = format_string("AA-_,%s", good);
	CLEANUP_FREE char *bad_last = format_string("%s,AA-_", good);
	CLEANUP_FREE char *spaced = format_string("%s, %s", "AAAA", good);
	const char *refused[] = {"AA-_", "e30", "!", bad_first, spaced};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
		CLEANUP_JSON json_t *annotations = annotate(PUBLIC, "jwe", refused[i]);

		must_fail(all, annotations, CPULL_ERR_DECRYPT, "not standard base64");
	}
	CLEANUP_JSON json_t *annotations = annotate(PUBLIC, "jwe", bad_last);
	must_open(all, annotations);
	json_object_set_new(annotations, ENC "keys.jwe", json_true());
	must_fail(all, annotations, CPULL_ERR_DECRYPT, "jwe: not a string");
}

static void limits_hold(void **state)
{
	static char text[LIMIT_ANNOTATION_BYTES + 5];
	CLEANUP_JSON json_t *jwe = make_jwe(stranger, "ECDH-ES+A256KW", "A256GCM", PRIVATE);
	CLEANUP_JSON json_t *recipient = json_pack("{s:O,s:O}", "header", json_object_get(jwe, "header"),
						   "encrypted_key", json_object_get(jwe, "encrypted_key"));
	CLEANUP_JSON json_t *many = json_array();

	(void)state;
	memset(text, ',', LIMIT_KEY_WRAPS);
	text[LIMIT_KEY_WRAPS - 1] = 0; /* as many elements as are allowed */
	CLEANUP_JSON json_t *full = annotate(PUBLIC, "jwe", text);
	must_fail(all, full, CPULL_ERR_KEY, "the wrap is empty");
	text[LIMIT_KEY_WRAPS - 1] = ',';
	text[LIMIT_KEY_WRAPS] = 0;
	CLEANUP_JSON json_t *over = annotate(PUBLIC, "jwe", text);
	must_fail(all, over, CPULL_ERR_LIMIT, "unwrapping");

	for (unsigned i = 0; i <= LIMIT_KEY_WRAPS; i++)
		json_array_append(many, recipient);
	json_object_del(jwe, "header");
	json_object_set(jwe, "recipients", many);
	CLEANUP_JSON json_t *crowd = annotate_jwe(jwe);
	must_fail(none, crowd, CPULL_ERR_LIMIT, "wrapped more than 64 times");

	memset(text, 'A', sizeof(text) - 1);
	CLEANUP_JSON json_t *longest = annotate(PUBLIC, "jwe", text);
	must_fail(all, longest, CPULL_ERR_LIMIT, "longer than");
	json_object_set_new(longest, ENC "pubopts", json_string(text));
	must_fail(all, longest, CPULL_ERR_LIMIT, "longer than");

	memset(text, ' ', sizeof(text));
	text[LIMIT_PRIVATE_OPTIONS_BYTES] = 0;
	memcpy(text, PRIVATE, strlen(PRIVATE));
	CLEANUP_JSON json_t *largest = make_jwe(ec[0], "ECDH-ES+A256KW", "A256GCM", text);
	CLEANUP_JSON json_t *fits = annotate_jwe(largest);
	must_open(all, fits);
	text[LIMIT_PRIVATE_OPTIONS_BYTES] = ' ';
	text[LIMIT_PRIVATE_OPTIONS_BYTES + 1] = 0;
	CLEANUP_JSON json_t *larger = make_jwe(ec[0], "ECDH-ES+A256KW", "A256GCM", text);
	CLEANUP_JSON json_t *too_large = annotate_jwe(larger);
	must_fail(all, too_large, CPULL_ERR_KEY, "longer than encryption options can be");
}

/* Fault K05: each kind of key trouble has a message of its own. */
static void six_troubles_six_messages(void **state)
{
	CLEANUP_JSON json_t *jwe = make_jwe(ec[0], "ECDH-ES+A256KW", "A256GCM", PRIVATE);
	CLEANUP_JSON json_t *no_key = annotate_jwe(jwe);
	CLEANUP_JSON json_t *short_jwe = make_jwe(ec[0], "ECDH-ES+A256KW", "A256GCM",
						  "{\"symkey\":\"AAECAwQFBgcICQoLDA0ODw==\"}");
	CLEANUP_JSON json_t *short_key = annotate_jwe(short_jwe);
	CLEANUP_JSON json_t *not_base64 = annotate(PUBLIC, "jwe", "%%%%");
	CLEANUP_JSON json_t *not_json = annotate(PUBLIC, "jwe", "e3t7");
	CLEANUP_JSON json_t *missing = annotate(PUBLIC, NULL, NULL);
	struct cpull_error err[6] = {0};

	(void)state;
	json_object_set_new(jwe, "tag", json_string("AAAAAAAAAAAAAAAAAAAAAA"));
	CLEANUP_JSON json_t *tag = annotate_jwe(jwe);

	must_fail_into(none, no_key, CPULL_ERR_KEY, "kid \"key-1\": no EC key on P-256 was given", &err[0]);
	must_fail_into(all, short_key, CPULL_ERR_DECRYPT, "symkey has 16 bytes", &err[1]);
	must_fail_into(all, tag, CPULL_ERR_KEY, "tag mismatch", &err[2]);
	must_fail_into(all, not_base64, CPULL_ERR_DECRYPT, "base64", &err[3]);
	must_fail_into(all, not_json, CPULL_ERR_KEY, "not valid JSON", &err[4]);
	must_fail_into(all, missing, CPULL_ERR_KEY, "missing key", &err[5]);
	for (size_t i = 0; i < ARRAY_LEN(err); i++)
		for (size_t k = 0; k < i; k++)
			assert_string_not_equal(err[i].message, err[k].message);
}

static void *unwrap_often(void *payload)
{
	CLEANUP_JSON json_t *annotations = payload;
	struct layer_key *key;

	for (unsigned i = 0; i < 20; i++) {
		if (ocicrypt_unwrap(all, annotations, &key, NULL))
			return all;
		layer_key_free(key);
	}
	return NULL;
}

static void layers_share_a_ring(void **state)
{
	CLEANUP_JSON json_t *jwe = make_jwe(rsa, "RSA-OAEP", "A256GCM", PRIVATE);
	pthread_t threads[4];
	void *failed;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, unwrap_often, annotate_jwe(jwe)), 0);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
}

/* ---- shared vectors ---- */

static struct key_ring *ring_of(const char *vector)
{
	CLEANUP_BYTES struct bytes file = vector_read(vector);
	struct key_ring *ring;

	assert_int_equal(key_ring_new(&ring, NULL), 0);
	assert_int_equal(key_ring_add_bytes(ring, vector, file.data, file.len, NULL, NULL), 0);
	return ring;
}

static void vectors_open(void **state)
{
	static const struct {
		const char *jwe;
		const char *key;
	} pairs[] = {
		{"ocicrypt/jwe-rsa-flat.json", "ocicrypt/private_key.pem"},
		{"ocicrypt/jwe-rsa-flat.json", "ocicrypt/RSA_private.jwk"},
		{"ocicrypt/jwe-rsa-compact.txt", "ocicrypt/private_key8.pem"},
		{"ocicrypt/jwe-ecp256-flat.json", "ocicrypt/ec_p256_private.pem"},
		{"ocicrypt/jwe-general-2.json", "ocicrypt/private_key.pem"},
		{"ocicrypt/jwe-general-2.json", "ocicrypt/private_key_ec.der"},
	};

	(void)state;
	if (!vectors_present())
		skip();
	for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
		CLEANUP_BYTES struct bytes jwe = vector_read(pairs[i].jwe);
		CLEANUP_FREE char *list = base64(jwe.data, jwe.len);
		CLEANUP_JSON json_t *annotations = annotate(PUBLIC, "jwe", list);
		struct key_ring *ring = ring_of(pairs[i].key);

		if (!strstr(pairs[i].key, ".jwk"))
			must_open(ring, annotations);
		else /* another RSA key */
			must_fail(ring, annotations, CPULL_ERR_KEY, "none of the 1 keys that fit opens it");
		key_ring_free(ring);
	}
}

static void the_vectors_manifest_opens(void **state)
{
	static const char *const names[] = {"ocicrypt/private_key.pem", "ocicrypt/ec_p256_private.pem"};

	(void)state;
	if (!vectors_present())
		skip();
	CLEANUP_JSON json_t *manifest = vector_json("ocicrypt/manifest.json");
	const json_t *annotations =
		json_object_get(json_array_get(json_object_get(manifest, "layers"), 0), "annotations");

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct key_ring *ring = ring_of(names[i]);

		must_open(ring, annotations);
		key_ring_free(ring);
	}
	must_fail(none, annotations, CPULL_ERR_KEY, "provider.attestation-agent: not supported by this build yet");
}

/* Unwraps, decrypts and checks one layer of a layout that skopeo encrypted; expected may be NULL. */
static void open_layer(const char *layout, const json_t *layer, const struct key_ring *ring, const json_t *expected)
{
	const char *text = json_string_at(layer, "digest");
	CLEANUP_FREE char *name = format_string("upstream/generated/%s/blobs/sha256/%s", layout, text + 7);
	CLEANUP_BYTES struct bytes blob = vector_read(name);
	struct layer_key *key;
	struct layer_cipher *cipher;
	struct digest digest;
	struct cpull_error err = {0};

	if (ocicrypt_unwrap(ring, json_object_get(layer, "annotations"), &key, &err))
		fail_msg("%s", err.message);
	if (expected) {
		CLEANUP_FREE char *symkey = base64(key->symkey, 32);
		CLEANUP_FREE char *nonce = base64(key->nonce, 16);

		assert_string_equal(symkey, json_string_at(expected, "symkey"));
		assert_string_equal(nonce, json_string_at(expected, "nonce"));
	}
	assert_int_equal(digest_parse(text, &digest, NULL), 0);
	assert_int_equal(layer_cipher_new(&digest, key, &cipher, NULL), 0);
	assert_int_equal(layer_cipher_update(cipher, (uint8_t *)blob.data, blob.len, NULL), 0);
	assert_int_equal(layer_cipher_final(cipher, NULL), 0);
	layer_cipher_free(cipher);
	layer_key_free(key);
	if (strstr(json_string_at(layer, "mediaType"), "zstd"))
		assert_memory_equal(blob.data, "\x28\xb5\x2f\xfd", 4);
	else
		assert_memory_equal(blob.data, "\x1f\x8b\x08", 3);
}

static void images_of_skopeo_open(void **state)
{
	static const struct {
		const char *layout;
		const char *manifest;
		const char *key;
		bool expected;
	} images[] = {
		{"oci-enc-jwe", "df313f65c8cf64785bb6598fffc9f8556952f92a72824a4a6a0c7972c2bcce2f",
		 "upstream/guest-components/image-rs/test_data/private_key_for_tests.pem", true},
		{"oci-enc-jwe-2recipients", "db38acd9d133ea96a692653cd6887cba122cbf90390b1585352308755c7e3033",
		 "upstream/generated/keys/k2.pem", false},
		{"oci-enc-jwe-2recipients", "db38acd9d133ea96a692653cd6887cba122cbf90390b1585352308755c7e3033",
		 "upstream/generated/keys/ec.pem", false},
	};

	(void)state;
	if (!vectors_present())
		skip();
	CLEANUP_JSON json_t *expected = vector_json("upstream/generated/oci-enc-jwe.expected.json");

	for (size_t i = 0; i < ARRAY_LEN(images); i++) {
		CLEANUP_FREE char *name = format_string("upstream/generated/%s/blobs/sha256/%s", images[i].layout,
							images[i].manifest);
		CLEANUP_JSON json_t *manifest = vector_json(name);
		struct key_ring *ring = ring_of(images[i].key);
		const json_t *layers = json_object_get(manifest, "layers");

		assert_int_equal(json_array_size(layers), 3);
		for (size_t k = 0; k < 3; k++)
			open_layer(images[i].layout, json_array_get(layers, k), ring,
				   images[i].expected ? json_array_get(expected, k) : NULL);
		key_ring_free(ring);
	}
}

static int make_keys(void **state)
{
	(void)state;
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

static int free_keys(void **state)
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_algorithm_of_the_list),
		cmocka_unit_test(compact_form),
		cmocka_unit_test(additional_data_counts),
		cmocka_unit_test(other_recipients_get_their_turn),
		cmocka_unit_test(every_wrap_of_the_list_is_tried),
		cmocka_unit_test(headers_that_are_refused),
		cmocka_unit_test(members_that_are_refused),
		cmocka_unit_test(ephemeral_keys_that_are_refused),
		cmocka_unit_test(texts_that_are_no_jwe),
		cmocka_unit_test(public_options_that_are_refused),
		cmocka_unit_test(public_options_that_are_taken),
		cmocka_unit_test(private_options_that_are_refused),
		cmocka_unit_test(annotations_without_a_wrap),
		cmocka_unit_test(other_schemes_are_explained),
		cmocka_unit_test(lists_that_are_not_base64),
		cmocka_unit_test(limits_hold),
		cmocka_unit_test(six_troubles_six_messages),
		cmocka_unit_test(layers_share_a_ring),
		cmocka_unit_test(vectors_open),
		cmocka_unit_test(the_vectors_manifest_opens),
		cmocka_unit_test(images_of_skopeo_open),
	};

	return cmocka_run_group_tests(tests, make_keys, free_keys);
}
