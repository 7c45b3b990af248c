/* SPDX-License-Identifier: Apache-2.0
 *
 * crypto/hmac: known answers, OpenSSL's HMAC for every way to cut a message, alone and beside other hashes, and where
 * what is derived from the key lives. Built a second time without our own SHA-256.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/hmac.h>

#include "crypto/algorithms.h"
#include "crypto/hmac.h"
#include "crypto/keys.h"
#include "tests/unit/full_secure_heap.h"

#define MESSAGE_BYTES (9u << 10)

static bool is_hmac_of(const uint8_t key[32], const void *data, size_t len, size_t piece, const uint8_t want[32])
{
	struct hmac *hmac;
	bool right;

	assert_int_equal(hmac_new(key, &hmac, NULL), 0);
	for (size_t at = 0; at < len; at += piece)
		assert_int_equal(hasher_update(hmac_message(hmac), (const uint8_t *)data + at, MIN(piece, len - at)),
				 0);
	assert_int_equal(hmac_verify(hmac, want, &right), 0);
	hmac_free(hmac);
	return right;
}

/* RFC 4231, section 4, cases 1 to 4. HMAC pads its key with zeros, as those here are padded to 32 bytes. */
static void known_answers(void **state)
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
		uint8_t key[32] = {0}, want[32], data[64];
		size_t len = 0;

		memcpy(key, known[i].key, strlen(known[i].key));
		for (size_t j = 0; j < sizeof(want); j++)
			assert_int_equal(sscanf(known[i].hmac + 2 * j, "%2hhx", &want[j]), 1);
		for (unsigned j = 0; j < known[i].repeat; j++) {
			memcpy(data + len, known[i].data, strlen(known[i].data));
			len += strlen(known[i].data);
		}
		assert_true(is_hmac_of(key, data, len, 7, want));
		want[31] ^= 1;
		assert_false(is_hmac_of(key, data, len, 7, want));
	}
}

static void every_cut_gives_what_openssl_gives(void **state)
{
	static const size_t pieces[] = {1, 63, 64, 65, 4096, MESSAGE_BYTES};
	static const size_t lengths[] = {0, 1, 55, 56, 63, 64, 65, MESSAGE_BYTES - 1, MESSAGE_BYTES};
	static uint8_t message[MESSAGE_BYTES];
	const uint8_t key[32] = {1, 2, 3};
	uint8_t want[32];

	(void)state;
	for (size_t i = 0; i < MESSAGE_BYTES; i++)
		message[i] = (uint8_t)(i * 31 + (i >> 8));
	for (size_t i = 0; i < ARRAY_LEN(lengths) * ARRAY_LEN(pieces); i++) {
		size_t len = lengths[i / ARRAY_LEN(pieces)];

		assert_non_null(HMAC(EVP_sha256(), key, sizeof(key), message, len, want, NULL));
		assert_true(is_hmac_of(key, message, len, pieces[i % ARRAY_LEN(pieces)], want));
	}
}

/* With a digest over the same bytes, and with one over others. */
static void beside_others_it_is_the_same(void **state)
{
	static const enum digest_algorithm algorithms[] = {DIGEST_SHA256, DIGEST_SHA512};
	static uint8_t message[MESSAGE_BYTES], other[MESSAGE_BYTES];
	const uint8_t key[32] = {7};
	uint8_t want[32];

	(void)state;
	for (size_t i = 0; i < MESSAGE_BYTES; i++) {
		message[i] = (uint8_t)(i * 13 + (i >> 7));
		other[i] = (uint8_t)(i * 5 + 1);
	}
	assert_non_null(HMAC(EVP_sha256(), key, sizeof(key), message, MESSAGE_BYTES, want, NULL));
	for (size_t i = 0; i < 2 * ARRAY_LEN(algorithms); i++) {
		enum digest_algorithm algorithm = algorithms[i / 2];
		bool shared = i % 2, right;
		struct hasher *hasher;
		struct digest got, expected;
		struct hmac *hmac;

		assert_int_equal(hmac_new(key, &hmac, NULL), 0);
		assert_int_equal(hasher_new(algorithm, &hasher, NULL), 0);
		for (size_t at = 0, n; at < MESSAGE_BYTES; at += n) {
			n = MIN((size_t)777, MESSAGE_BYTES - at);
			if (shared)
				assert_int_equal(hasher_update_shared(hasher, hmac_message(hmac), message + at, n), 0);
			else
				assert_int_equal(hasher_update_pair(hmac_message(hmac), message + at, n, hasher,
								    other + at, n), 0);
		}
		assert_int_equal(hmac_verify(hmac, want, &right), 0);
		assert_true(right);
		assert_int_equal(hasher_final(hasher, &got), 0);
		assert_int_equal(digest_compute(algorithm, shared ? message : other, MESSAGE_BYTES, "it", &expected,
						NULL), 0);
		assert_true(digest_equal(&got, &expected));
		hasher_free(hasher);
		hmac_free(hmac);
	}
}

/* The key cannot be had from where it is not wiped. OpenSSL keeps the state of its own hashes elsewhere. */
static void what_comes_of_the_key_is_in_the_secure_heap(void **state)
{
	const uint8_t key[32] = {9};
	struct hmac *hmac;

	(void)state;
	secure_heap_init(NULL);
	secure_heap_init(NULL);

	size_t used = CRYPTO_secure_used();

	assert_int_equal(hmac_new(key, &hmac, NULL), 0);
	assert_int_equal(CRYPTO_secure_allocated(hmac_message(hmac)), 1);
	assert_true(CRYPTO_secure_used() > used);
	hmac_free(hmac);
	hmac_free(NULL);
	assert_int_equal(CRYPTO_secure_used(), used);
}

/* Where it has no place there, that is said, and nothing is left behind. */
static void a_full_secure_heap_is_said(void **state)
{
	const uint8_t key[32] = {9};
	struct cpull_error err = {0};
	static struct full_secure_heap heap;
	void *pieces[] = {OPENSSL_secure_malloc(64), OPENSSL_secure_malloc(128)};
	struct hmac *hmac;

	(void)state;
	if (!CRYPTO_secure_malloc_initialized())
		skip();
	secure_heap_fill(&heap);
	assert_int_equal(hmac_new(key, &hmac, &err), CPULL_ERR_NOMEM);
	assert_non_null(strstr(err.message, "out of secure memory"));
	assert_null(hmac);
	/* with room for the first piece, or two, but not for all */
	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		OPENSSL_secure_free(pieces[i]);
		assert_int_equal(hmac_new(key, &hmac, &err), CPULL_ERR_NOMEM);
	}
	secure_heap_empty(&heap);
	assert_int_equal(hmac_new(key, &hmac, &err), 0);
	hmac_free(hmac);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_comes_of_the_key_is_in_the_secure_heap),
		cmocka_unit_test(a_full_secure_heap_is_said),
		cmocka_unit_test(known_answers),
		cmocka_unit_test(every_cut_gives_what_openssl_gives),
		cmocka_unit_test(beside_others_it_is_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
