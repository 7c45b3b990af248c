/* SPDX-License-Identifier: Apache-2.0
 *
 * crypto/ocicrypt: from annotations to a layer key. Some come from the shared vectors, among them images that skopeo
 * encrypted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>

#include "crypto/hmac.h"
#include "tests/unit/vectors.h"
#include "tests/unit/wraps.h"

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
		{"{\"symkey\":\"" SYMKEY "\",\"cipheroptions\":{\"nonce\":\"8PHy8/T19vf4+fr7\"}}",
		 "nonce has 12 bytes"},
		{"{\"symkey\":\"" SYMKEY "\",\"cipheroptions\":{\"nonce\":\"8PHy8/T19vf4+fr7/P3+\"}}",
		 "nonce has 15 bytes"},
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
	struct hmac *hmac;
	bool authentic;
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
	assert_int_equal(digest_check(&digest, blob.data, blob.len, "blob", NULL), 0);
	assert_int_equal(hmac_new(key->symkey, &hmac, NULL), 0);
	assert_int_equal(hasher_update(hmac_message(hmac), blob.data, blob.len), 0);
	assert_int_equal(hmac_verify(hmac, key->hmac, &authentic), 0);
	assert_true(authentic);
	hmac_free(hmac);
	assert_int_equal(layer_cipher_new(key, &cipher, NULL), 0);
	assert_int_equal(layer_cipher_run(cipher, (uint8_t *)blob.data, blob.len, (uint8_t *)blob.data, NULL), 0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
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
