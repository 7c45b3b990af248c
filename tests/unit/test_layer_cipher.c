/* SPDX-License-Identifier: Apache-2.0
 *
 * crypto/layer_cipher: known answers, every way to cut the blob, and everything that must not pass. What is expected
 * comes from OpenSSL's one-shot functions, and for the counter's wrap from the shared vectors. Built a second time
 * without our own SHA-256, so that OpenSSL makes digest and HMAC.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "crypto/algorithms.h"
#include "crypto/keys.h"
#include "crypto/layer_cipher.h"
#include "tests/unit/vectors.h"

#define BLOB_BYTES (70u << 10) /* several slices and a part of one */

/* A plain text, its encryption, and what vouches for it. Zeroed before the first use. */
struct sealed {
	uint8_t plain[BLOB_BYTES];
	uint8_t cipher[BLOB_BYTES];
	size_t len;
	struct digest digest;
	struct layer_key *key;
};

static void digest_of(enum digest_algorithm algorithm, const void *data, size_t len, struct digest *out)
{
	struct hasher *hasher;

	assert_int_equal(hasher_new(algorithm, &hasher, NULL), 0);
	assert_int_equal(hasher_update(hasher, data, len), 0);
	assert_int_equal(hasher_final(hasher, out), 0);
	hasher_free(hasher);
}

static void seal(struct sealed *s, size_t len, enum digest_algorithm algorithm)
{
	int out_len;
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

	layer_key_free(s->key);
	s->len = len;
	s->key = layer_key_new();
	assert_non_null(s->key);
	for (size_t i = 0; i < sizeof(s->key->symkey); i++)
		s->key->symkey[i] = (uint8_t)(i * 7 + 1);
	memset(s->key->nonce, 0xff, sizeof(s->key->nonce)); /* the counter wraps after the first block */
	for (size_t i = 0; i < len; i++)
		s->plain[i] = (uint8_t)(i * 31 + (i >> 8));
	assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_256_ctr(), NULL, s->key->symkey, s->key->nonce), 1);
	assert_int_equal(EVP_EncryptUpdate(ctx, s->cipher, &out_len, s->plain, (int)len), 1);
	EVP_CIPHER_CTX_free(ctx);
	assert_non_null(HMAC(EVP_sha256(), s->key->symkey, 32, s->cipher, len, s->key->hmac, NULL));
	digest_of(algorithm, s->cipher, len, &s->digest);
}

/* Runs data through in pieces of `piece` bytes. */
static int run(const struct digest *digest, const struct layer_key *key, uint8_t *data, size_t len, size_t piece,
	       struct cpull_error *err)
{
	struct layer_cipher *cipher;

	assert_int_equal(layer_cipher_new(digest, key, &cipher, err), 0);
	for (size_t at = 0; at < len; at += piece)
		assert_int_equal(layer_cipher_update(cipher, data + at, MIN(piece, len - at), err), 0);

	int rc = layer_cipher_final(cipher, err);

	layer_cipher_free(cipher);
	return rc;
}

static void every_chunking_gives_the_same(void **state)
{
	static const size_t pieces[] = {1, 15, 16, 17, 63, 64, 65, 4096, 16383, 16384, 16385, 65536, BLOB_BYTES};
	static struct sealed s;
	static uint8_t data[BLOB_BYTES];

	(void)state;
	seal(&s, BLOB_BYTES, DIGEST_SHA256);
	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		memcpy(data, s.cipher, s.len);
		assert_int_equal(run(&s.digest, s.key, data, s.len, pieces[i], NULL), 0);
		assert_memory_equal(data, s.plain, s.len);
	}
	layer_key_free(s.key);
}

static void other_digests_and_lengths(void **state)
{
	static const size_t lengths[] = {0, 1, 63, 64, 16384, 16385};
	static const enum digest_algorithm algorithms[] = {DIGEST_SHA256, DIGEST_SHA384, DIGEST_SHA512};
	static struct sealed s;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lengths) * ARRAY_LEN(algorithms); i++) {
		seal(&s, lengths[i / ARRAY_LEN(algorithms)], algorithms[i % ARRAY_LEN(algorithms)]);
		assert_int_equal(run(&s.digest, s.key, s.cipher, s.len, 1000, NULL), 0);
		assert_memory_equal(s.cipher, s.plain, s.len);
	}
	layer_key_free(s.key);
}

static void damage_never_passes(void **state)
{
	static struct sealed s;
	struct cpull_error err = {0};
	char want[DIGEST_TEXT_BYTES];

	(void)state;
	seal(&s, 40000, DIGEST_SHA256);
	digest_format(&s.digest, want);

	/* one bit of the ciphertext, digest left alone */
	s.cipher[12345] ^= 4;
	assert_int_equal(run(&s.digest, s.key, s.cipher, s.len, 8192, &err), CPULL_ERR_DIGEST);
	assert_non_null(strstr(err.message, want));

	/* the digest fitted to it (fault K02) */
	seal(&s, 40000, DIGEST_SHA256);
	s.cipher[39999] ^= 128;
	digest_of(DIGEST_SHA256, s.cipher, s.len, &s.digest);
	assert_int_equal(run(&s.digest, s.key, s.cipher, s.len, 8192, &err), CPULL_ERR_DECRYPT);
	assert_non_null(strstr(err.message, "HMAC"));

	/* cut short, digest fitted */
	seal(&s, 40000, DIGEST_SHA256);
	digest_of(DIGEST_SHA256, s.cipher, s.len - 1, &s.digest);
	assert_int_equal(run(&s.digest, s.key, s.cipher, s.len - 1, 8192, &err), CPULL_ERR_DECRYPT);

	/* an HMAC that is wrong in its last bit */
	seal(&s, 40000, DIGEST_SHA256);
	s.key->hmac[31] ^= 1;
	assert_int_equal(run(&s.digest, s.key, s.cipher, s.len, 8192, &err), CPULL_ERR_DECRYPT);

	/* the HMAC right, the descriptor's digest wrong */
	seal(&s, 40000, DIGEST_SHA256);
	s.digest.value[31] ^= 1;
	assert_int_equal(run(&s.digest, s.key, s.cipher, s.len, 8192, &err), CPULL_ERR_DIGEST);
	layer_key_free(s.key);
}

static void hex_bytes(const json_t *object, const char *name, uint8_t *out, size_t len)
{
	const char *hex = json_string_at(object, name);

	assert_int_equal(strlen(hex), 2 * len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(sscanf(hex + 2 * i, "%2hhx", &out[i]), 1);
}

/* RFC 4231, section 4, cases 1 to 4. HMAC pads its key with zeros, as those here are padded to a layer key. */
static void hmac_known_answers(void **state)
{
	static const struct {
		const char *key, *data;
		unsigned repeat; /* of data */
		const char *hmac;
	} known[] = {
		{"\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b", "Hi There", 1,
		 "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		{"Jefe", "what do ya want for nothing?", 1,
		 "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{"\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa",
		 "\xdd", 50,
		 "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
		{"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13"
		 "\x14\x15\x16\x17\x18\x19",
		 "\xcd", 50, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		struct layer_key *key = layer_key_new();
		uint8_t data[64];
		size_t len = 0;
		struct digest digest;

		memcpy(key->symkey, known[i].key, strlen(known[i].key));
		for (unsigned j = 0; j < sizeof(key->hmac); j++)
			assert_int_equal(sscanf(known[i].hmac + 2 * (size_t)j, "%2hhx", &key->hmac[j]), 1);
		for (unsigned j = 0; j < known[i].repeat; j++) {
			memcpy(data + len, known[i].data, strlen(known[i].data));
			len += strlen(known[i].data);
		}
		digest_of(DIGEST_SHA256, data, len, &digest);
		assert_int_equal(run(&digest, key, data, len, 7, NULL), 0);
		layer_key_free(key);
	}
}

static void counter_wraps_over_all_bytes(void **state)
{
	uint8_t plain[48];
	uint8_t cipher[48];
	struct digest digest;

	(void)state;
	if (!vectors_present())
		skip();
	CLEANUP_JSON json_t *vector = vector_json("ocicrypt/ctr-wrap.json");
	struct layer_key *key = layer_key_new();

	hex_bytes(vector, "key", key->symkey, 32);
	hex_bytes(vector, "nonce", key->nonce, 16);
	hex_bytes(vector, "plain", plain, 48);
	hex_bytes(vector, "cipher", cipher, 48);
	assert_non_null(HMAC(EVP_sha256(), key->symkey, 32, cipher, 48, key->hmac, NULL));
	digest_of(DIGEST_SHA256, cipher, 48, &digest);
	assert_int_equal(run(&digest, key, cipher, 48, 5, NULL), 0);
	assert_memory_equal(cipher, plain, 48);
	layer_key_free(key);
}

static void the_vectors_layer_decrypts(void **state)
{
	(void)state;
	if (!vectors_present())
		skip();
	CLEANUP_JSON json_t *summary = vector_json("ocicrypt/SUMMARY.json");
	CLEANUP_BYTES struct bytes blob = vector_read("ocicrypt/layer.tar.gz.enc");
	CLEANUP_BYTES struct bytes plain = vector_read("ocicrypt/layer.tar.gz");
	struct layer_key *key = layer_key_new();
	struct digest digest;

	hex_bytes(summary, "symkey", key->symkey, 32);
	hex_bytes(summary, "nonce", key->nonce, 16);
	hex_bytes(summary, "hmac_sha256", key->hmac, 32);
	assert_int_equal(digest_parse(json_string_at(summary, "enc_sha256"), &digest, NULL), 0);
	assert_int_equal(run(&digest, key, (uint8_t *)blob.data, blob.len, 50, NULL), 0);
	assert_int_equal(blob.len, plain.len);
	assert_memory_equal(blob.data, plain.data, plain.len);
	layer_key_free(key);
}

static void keys_live_in_the_secure_heap(void **state)
{
	(void)state;
	secure_heap_init(NULL);
	secure_heap_init(NULL);

	struct layer_key *key = layer_key_new();

	assert_non_null(key);
	assert_int_equal(CRYPTO_secure_allocated(key), 1);

	/* OpenSSL keeps its HMAC's state elsewhere */
	struct digest digest = {.algorithm = DIGEST_SHA256, .len = 32};
	struct layer_cipher *cipher;
	size_t used = CRYPTO_secure_used();

	assert_int_equal(layer_cipher_new(&digest, key, &cipher, NULL), 0);
	assert_true(CRYPTO_secure_used() > used || !algorithms_get()->sha256_ni);
	layer_cipher_free(cipher);
	assert_int_equal(CRYPTO_secure_used(), used);
	layer_key_free(key);
	layer_key_free(NULL);
	layer_cipher_free(NULL);
}

/* Where the HMAC's state has no place in the secure heap, it is said, and nothing is left behind. */
static void a_full_secure_heap_is_said(void **state)
{
	struct digest digest = {.algorithm = DIGEST_SHA256, .len = 32};
	struct layer_key *key = layer_key_new();
	struct layer_cipher *cipher;
	struct cpull_error err = {0};
	void *held[1024];
	size_t count = 0;

	(void)state;
	if (!CRYPTO_secure_malloc_initialized() || !algorithms_get()->sha256_ni)
		skip();
	while (count < ARRAY_LEN(held) && (held[count] = OPENSSL_secure_malloc(256)))
		count++;
	assert_true(count < ARRAY_LEN(held));
	assert_int_equal(layer_cipher_new(&digest, key, &cipher, &err), CPULL_ERR_NOMEM);
	assert_non_null(strstr(err.message, "out of secure memory"));
	assert_null(cipher);
	while (count)
		OPENSSL_secure_free(held[--count]);
	assert_int_equal(layer_cipher_new(&digest, key, &cipher, &err), 0);
	layer_cipher_free(cipher);
	layer_key_free(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_live_in_the_secure_heap),
		cmocka_unit_test(a_full_secure_heap_is_said),
		cmocka_unit_test(every_chunking_gives_the_same),
		cmocka_unit_test(other_digests_and_lengths),
		cmocka_unit_test(damage_never_passes),
		cmocka_unit_test(hmac_known_answers),
		cmocka_unit_test(counter_wraps_over_all_bytes),
		cmocka_unit_test(the_vectors_layer_decrypts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
