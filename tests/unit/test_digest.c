/* SPDX-License-Identifier: Apache-2.0
 *
 * crypto/digest: the grammar of digests, and known answers (FIPS 180-4 examples). Built a second time without our own
 * SHA-256, so that hashers run on OpenSSL's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include <openssl/evp.h>

#include "crypto/algorithms.h"
#include "crypto/digest.h"
#include "crypto/sha256_ni.h"

#define ABC_256 "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define ABC_384                                                                                                        \
	"cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"
#define ABC_512                                                                                                        \
	"ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd"             \
	"454d4423643ce80e2a9ac94fa54ca49f"

static const char *const known[] = {"sha256:" ABC_256, "sha384:" ABC_384, "sha512:" ABC_512};

static void known_answers(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		struct digest want;
		struct digest got;
		struct hasher *hasher;
		char text[DIGEST_TEXT_BYTES];

		assert_int_equal(digest_parse(known[i], &want, NULL), 0);
		digest_format(&want, text);
		assert_string_equal(text, known[i]);
		assert_int_equal(digest_check(&want, "abc", 3, "abc", NULL), 0);
		assert_int_equal(hasher_new(want.algorithm, &hasher, NULL), 0);
		assert_int_equal(hasher_update(hasher, "a", 1), 0);
		assert_int_equal(hasher_update(hasher, "", 0), 0);
		assert_int_equal(hasher_update(hasher, "bc", 2), 0);
		assert_int_equal(hasher_final(hasher, &got), 0);
		assert_true(digest_equal(&want, &got));
		hasher_free(hasher);
	}
	hasher_free(NULL);
}

static void assert_digest_of(struct hasher *hasher, const uint8_t *data, size_t len)
{
	struct digest got;
	uint8_t want[DIGEST_MAX_BYTES];
	unsigned want_len;
	const EVP_MD *md = EVP_sha512();

	assert_int_equal(hasher_final(hasher, &got), 0);
	if (got.algorithm != DIGEST_SHA512)
		md = got.algorithm == DIGEST_SHA256 ? EVP_sha256() : EVP_sha384();
	assert_int_equal(EVP_Digest(data, len, want, &want_len, md, NULL), 1);
	assert_int_equal(got.len, want_len);
	assert_memory_equal(got.value, want, want_len);
	hasher_free(hasher);
}

/* Whatever the two are, and however far each is, a pair does what the two alone would. */
static void pairs_are_two_updates(void **state)
{
	static const struct {
		enum digest_algorithm a, b;
	} kinds[] = {
		{DIGEST_SHA256, DIGEST_SHA256},
		{DIGEST_SHA256, DIGEST_SHA512},
		{DIGEST_SHA384, DIGEST_SHA256},
		{DIGEST_SHA512, DIGEST_SHA512},
	};
	static const size_t lengths[] = {0, 1, 63, 64, 65, 128, 1000};
	static uint8_t data[2048];

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 13 + (i >> 8));
	for (size_t i = 0; i < ARRAY_LEN(kinds) * 70 * ARRAY_LEN(lengths) * ARRAY_LEN(lengths); i++) {
		size_t first_a = i / ARRAY_LEN(kinds) % 70;
		size_t first_b = first_a * 37 % 70;
		size_t len_a = lengths[i / ARRAY_LEN(kinds) / 70 % ARRAY_LEN(lengths)];
		size_t len_b = lengths[i / ARRAY_LEN(kinds) / 70 / ARRAY_LEN(lengths)];
		struct hasher *a;
		struct hasher *b;

		assert_int_equal(hasher_new(kinds[i % ARRAY_LEN(kinds)].a, &a, NULL), 0);
		assert_int_equal(hasher_new(kinds[i % ARRAY_LEN(kinds)].b, &b, NULL), 0);
		assert_int_equal(hasher_update_pair(a, data, first_a, b, data + 3, first_b), 0);
		assert_int_equal(hasher_update_pair(a, data + first_a, len_a, b, data + 3 + first_b, len_b), 0);
		assert_digest_of(a, data, first_a + len_a);
		assert_digest_of(b, data + 3, first_b + len_b);
	}
}

/* Or both builds of this test would test the same. */
static void a_build_may_leave_all_to_openssl(void **state)
{
	(void)state;
#ifdef CRYPTO_NO_SHA_NI
	assert_false(algorithms_get()->sha256_ni);
#else
	assert_int_equal(algorithms_get()->sha256_ni, sha256_ni_present());
#endif
}

static void malformed_digests_are_refused(void **state)
{
	static const struct {
		const char *text;
		int code;
	} bad[] = {
		{"", CPULL_ERR_MANIFEST},
		{"sha256", CPULL_ERR_MANIFEST},
		{"sha256:", CPULL_ERR_MANIFEST},
		{":" ABC_256, CPULL_ERR_MANIFEST},
		{ABC_256, CPULL_ERR_MANIFEST},
		{"sha256:" ABC_256 "0", CPULL_ERR_MANIFEST},
		{"sha256:" ABC_384, CPULL_ERR_MANIFEST},
		{"sha512:" ABC_256, CPULL_ERR_MANIFEST},
		{"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a", CPULL_ERR_MANIFEST},
		{"sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD", CPULL_ERR_MANIFEST},
		{"sha256:../816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", CPULL_ERR_MANIFEST},
		{" sha256:" ABC_256, CPULL_ERR_MANIFEST},
		{"sha256:" ABC_256 "\n", CPULL_ERR_MANIFEST},
		{"SHA256:" ABC_256, CPULL_ERR_MANIFEST},
		{"sha256+:" ABC_256, CPULL_ERR_MANIFEST},
		{"a++b:" ABC_256, CPULL_ERR_MANIFEST},
		{"../x:" ABC_256, CPULL_ERR_MANIFEST},
		{"md5:900150983cd24fb0d6963f7d28e17f72", CPULL_ERR_UNSUPPORTED},
		{"sha256+b64u:" ABC_256, CPULL_ERR_UNSUPPORTED},
		{"sha1:a9993e364706816aba3e25717850c26c9cd0d89d", CPULL_ERR_UNSUPPORTED},
	};
	struct digest out;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct cpull_error err = {0};

		if (digest_parse(bad[i].text, &out, &err) != bad[i].code)
			fail_msg("%s: %d, %s", bad[i].text, err.code, err.message);
		assert_null(strchr(err.message, '\n'));
	}
	assert_int_equal(digest_parse(NULL, &out, NULL), CPULL_ERR_MANIFEST);
}

static void a_mismatch_names_both(void **state)
{
	struct cpull_error err = {0};
	struct digest want;

	(void)state;
	assert_int_equal(digest_parse(known[0], &want, NULL), 0);
	assert_int_equal(digest_check(&want, "abd", 3, "manifest of x", &err), CPULL_ERR_DIGEST);
	assert_memory_equal(err.message, "manifest of x", 13);
	assert_non_null(strstr(err.message, ABC_256));
	assert_non_null(strstr(err.message, "sha256:a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9"));
}

static void equality_takes_algorithm_and_length(void **state)
{
	struct digest a = {.algorithm = DIGEST_SHA256, .len = 32};
	struct digest b = {.algorithm = DIGEST_SHA512, .len = 32};
	struct digest unset = {0};

	(void)state;
	assert_true(digest_equal(&a, &a));
	assert_false(digest_equal(&a, &b));
	assert_false(digest_equal(&unset, &unset));
}

static void *hash_some(void *payload)
{
	struct digest want;

	(void)payload;
	for (unsigned i = 0; i < 200; i++)
		if (digest_parse(known[i % 3], &want, NULL) || digest_check(&want, "abc", 3, "abc", NULL))
			return (void *)1;
	return NULL;
}

static void threads_may_start_at_once(void **state)
{
	pthread_t threads[4];
	void *failed;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, hash_some, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_may_start_at_once), /* first: nothing has been fetched yet */
		cmocka_unit_test(known_answers),
		cmocka_unit_test(pairs_are_two_updates),
		cmocka_unit_test(a_build_may_leave_all_to_openssl),
		cmocka_unit_test(malformed_digests_are_refused),
		cmocka_unit_test(a_mismatch_names_both),
		cmocka_unit_test(equality_takes_algorithm_and_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
