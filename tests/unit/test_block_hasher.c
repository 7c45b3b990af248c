/* SPDX-License-Identifier: Apache-2.0
 *
 * crypto/block_hasher against OpenSSL: block lengths around the cuts of SHA-256, odd and even numbers, salts. Built a
 * second time without SHA instructions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include <openssl/evp.h>

#include "crypto/block_hasher.h"

#define MOST_BLOCKS 5u
#define MOST_BYTES 4096u
#define MOST_SALT 256u

static uint8_t data[MOST_BLOCKS * MOST_BYTES + 1];
static uint8_t salt[MOST_SALT];

static int fill(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 31 + (i >> 8) * 7 + 1);
	for (size_t i = 0; i < sizeof(salt); i++)
		salt[i] = (uint8_t)(i * 3 + 5);
	return 0;
}

static void check(size_t salt_len, size_t block_bytes, size_t blocks, size_t shift)
{
	static uint8_t message[MOST_SALT + MOST_BYTES];
	uint8_t got[(MOST_BLOCKS + 1) * BLOCK_HASH_BYTES];
	uint8_t want[BLOCK_HASH_BYTES];
	struct block_hasher *hasher;

	memset(got, 0xee, sizeof(got));
	assert_int_equal(block_hasher_new(salt_len ? salt : NULL, salt_len, &hasher, NULL), 0);
	/* a second run is as the first */
	for (unsigned run = 0; run < 2; run++)
		assert_int_equal(block_hasher_run(hasher, data + shift, block_bytes, blocks, got), 0);
	block_hasher_free(hasher);
	memcpy(message, salt, salt_len);
	for (size_t i = 0; i < blocks; i++) {
		memcpy(message + salt_len, data + shift + i * block_bytes, block_bytes);
		assert_int_equal(EVP_Digest(message, salt_len + block_bytes, want, NULL, EVP_sha256(), NULL), 1);
		assert_memory_equal(got + i * BLOCK_HASH_BYTES, want, sizeof(want));
	}
	assert_int_equal(got[blocks * BLOCK_HASH_BYTES], 0xee);
}

static void every_block_has_its_hash(void **state)
{
	static const size_t salts[] = {0, 1, 32, 55, 63, 64, 65, 256};
	static const size_t lengths[] = {0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 512, 4095, 4096};

	(void)state;
	for (size_t s = 0; s < ARRAY_LEN(salts); s++)
		for (size_t l = 0; l < ARRAY_LEN(lengths); l++)
			for (size_t blocks = 0; blocks <= MOST_BLOCKS; blocks++)
				check(salts[s], lengths[l], blocks, blocks & 1);
}

static void nothing_to_free(void **state)
{
	(void)state;
	block_hasher_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_block_has_its_hash),
		cmocka_unit_test(nothing_to_free),
	};

	return cmocka_run_group_tests(tests, fill, NULL);
}
