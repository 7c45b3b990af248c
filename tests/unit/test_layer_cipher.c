/* SPDX-License-Identifier: Apache-2.0
 *
 * crypto/layer_cipher: known answers, every way to cut the blob, and where keys live. What is expected comes from
 * OpenSSL's one-shot functions, and for the counter's wrap from the shared vectors.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include <openssl/evp.h>

#include "crypto/keys.h"
#include "crypto/layer_cipher.h"
#include "tests/unit/full_secure_heap.h"
#include "tests/unit/vectors.h"

#define BLOB_BYTES (70u << 10)

/* Runs data through in pieces of `piece` bytes, in place or to somewhere else. */
static void run(const struct layer_key *key, const uint8_t *in, size_t len, size_t piece, uint8_t *out)
{
	struct layer_cipher *cipher;

	assert_int_equal(layer_cipher_new(key, &cipher, NULL), 0);
	for (size_t at = 0; at < len; at += piece)
		assert_int_equal(layer_cipher_run(cipher, in + at, MIN(piece, len - at), out + at, NULL), 0);
	layer_cipher_free(cipher);
}

static void every_cut_gives_the_same(void **state)
{
	static const size_t pieces[] = {1, 15, 16, 17, 63, 64, 65, 4096, 16383, 16384, 16385, 65536, BLOB_BYTES};
	static uint8_t plain[BLOB_BYTES], sealed[BLOB_BYTES], opened[BLOB_BYTES];
	struct layer_key *key = layer_key_new();
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int out_len;

	(void)state;
	assert_non_null(key);
	for (size_t i = 0; i < sizeof(key->symkey); i++)
		key->symkey[i] = (uint8_t)(i * 7 + 1);
	memset(key->nonce, 0xff, sizeof(key->nonce)); /* the counter wraps after the first block */
	for (size_t i = 0; i < BLOB_BYTES; i++)
		plain[i] = (uint8_t)(i * 31 + (i >> 8));
	assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_256_ctr(), NULL, key->symkey, key->nonce), 1);
	assert_int_equal(EVP_EncryptUpdate(ctx, sealed, &out_len, plain, BLOB_BYTES), 1);
	EVP_CIPHER_CTX_free(ctx);
	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		memset(opened, 0, sizeof(opened));
		run(key, sealed, BLOB_BYTES, pieces[i], opened);
		assert_memory_equal(opened, plain, BLOB_BYTES);
	}
	run(key, opened, BLOB_BYTES, 4096, opened);
	assert_memory_equal(opened, sealed, BLOB_BYTES);
	layer_key_free(key);
}

static void hex_bytes(const json_t *object, const char *name, uint8_t *out, size_t len)
{
	const char *hex = json_string_at(object, name);

	assert_int_equal(strlen(hex), 2 * len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(sscanf(hex + 2 * i, "%2hhx", &out[i]), 1);
}

static void counter_wraps_over_all_bytes(void **state)
{
	uint8_t plain[48];
	uint8_t cipher[48];

	(void)state;
	if (!vectors_present())
		skip();
	CLEANUP_JSON json_t *vector = vector_json("ocicrypt/ctr-wrap.json");
	struct layer_key *key = layer_key_new();

	hex_bytes(vector, "key", key->symkey, 32);
	hex_bytes(vector, "nonce", key->nonce, 16);
	hex_bytes(vector, "plain", plain, 48);
	hex_bytes(vector, "cipher", cipher, 48);
	run(key, cipher, 48, 5, cipher);
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

	hex_bytes(summary, "symkey", key->symkey, 32);
	hex_bytes(summary, "nonce", key->nonce, 16);
	run(key, (uint8_t *)blob.data, blob.len, 50, (uint8_t *)blob.data);
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

	layer_key_free(key);
	layer_key_free(NULL);
	layer_cipher_free(NULL);
}

/* It hashes the key, so it needs a place there as well. */
static void a_print_is_made_in_the_secure_heap(void **state)
{
	struct layer_key *key = layer_key_new();
	char print[LAYER_KEY_PRINT_BYTES];
	struct cpull_error err = {0};
	static struct full_secure_heap heap;

	(void)state;
	assert_non_null(key);
	if (!CRYPTO_secure_malloc_initialized())
		skip();
	assert_int_equal(layer_key_print(key, print, &err), 0);
	secure_heap_fill(&heap);
	assert_int_equal(layer_key_print(key, print, &err), CPULL_ERR_NOMEM);
	assert_non_null(strstr(err.message, "out of secure memory"));
	secure_heap_empty(&heap);
	assert_int_equal(layer_key_print(key, print, &err), 0);
	layer_key_free(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_live_in_the_secure_heap),
		cmocka_unit_test(a_print_is_made_in_the_secure_heap),
		cmocka_unit_test(every_cut_gives_the_same),
		cmocka_unit_test(counter_wraps_over_all_bytes),
		cmocka_unit_test(the_vectors_layer_decrypts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
