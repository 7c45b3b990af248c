/* SPDX-License-Identifier: Apache-2.0
 *
 * crypto/jwe through ocicrypt_unwrap(): every form and algorithm that is taken, and each that is refused with its
 * reason.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/wraps.h"

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
	/* shorter and longer than the protected header */
	static const char *const aads[] = {"", "AA",
					   "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2"};
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
		"{\"header\":{\"alg\":\"PBES2-HS512+A256KW\",\"p2c\":2000000000},\"encrypted_key\":\"AAAA\"}",
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
		{"{\"alg\":\"PBES2-HS256+A128KW\",\"p2s\":\"AAAA\",\"p2c\":2000000000,\"enc\":\"A256GCM\"}",
		 "not allowed"},
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
		{"{\"kty\":\"EC\",\"crv\":\"secp256k1\",\"x\":\"" ZERO_32 "\",\"y\":\"" ZERO_32 "\"}",
		 "curve is none of"},
		{"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" ZERO_32 "\",\"y\":\"" ZERO_32 "\"}",
		 "not a point on its curve"},
		{"{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"" ZERO_48 "\",\"y\":\"" ZERO_48 "\"}",
		 "not a point on its curve"},
		{"{\"kty\":\"EC\",\"crv\":\"P-384\",\"x\":\"" ZERO_32 "\",\"y\":\"" ZERO_32 "\"}",
		 "not a public point"},
		{"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" ZERO_32 "\"}", "not a public point"},
		{"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}", "not a public point"},
		{"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" ZERO_32 "\",\"y\":\"" ZERO_32 "\",\"d\":\"AQ\"}",
		 "not a public point"},
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
	};

	return cmocka_run_group_tests(tests, make_keys, free_keys);
}
