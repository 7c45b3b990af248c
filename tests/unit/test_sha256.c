/* SPDX-License-Identifier: Apache-2.0
 *
 * crypto/sha256: known answers (FIPS 180-4's examples, RFC 6234 section 8.5), and for every length, cut, alignment and
 * phase what OpenSSL says. Skipped where the CPU has no SHA instructions: nobody calls it there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include <openssl/evp.h>

#include "crypto/algorithms.h"
#include "crypto/sha256.h"
#include "engine/base/util.h"

#define BYTES 1024u

static uint8_t data[BYTES];

static bool usable(void)
{
	if (algorithms_get()->sha256_ni)
		return true;
	print_message("skipped: this CPU has no SHA instructions\n");
	return false;
}

static int fill(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 31 + (i >> 8) + 1);
	return 0;
}

static unsigned next(unsigned *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

static void assert_digest_of(struct sha256 *ctx, const uint8_t *bytes, size_t len)
{
	uint8_t got[SHA256_BYTES];
	uint8_t want[SHA256_BYTES];

	assert_int_equal(ctx->len, len);
	sha256_final(ctx, got);
	assert_int_equal(EVP_Digest(bytes, len, want, NULL, EVP_sha256(), NULL), 1);
	assert_memory_equal(got, want, sizeof(got));
}

static void known_answers(void **state)
{
	static const struct {
		const char *message;
		unsigned repeat;
		const char *hex;
	} known[] = {
		{"", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
		 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
		{"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrs"
		 "mnopqrstnopqrstu", 1, "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
		{"a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
		{"0123456701234567012345670123456701234567012345670123456701234567", 10,
		 "594847328451bdfa85056225462cc1d867d877fb388df0ce35f25ab5562bfbb5"},
		{"\x19", 1, "68aa2e2ee5dff96e3355e6c7ee373e3d6a4e17f75f9518d843709c0c9bc3e3d4"},
		{"\xe3\xd7\x25\x70\xdc\xdd\x78\x7c\xe3\x88\x7a\xb2\xcd\x68\x46\x52", 1,
		 "175ee69b02ba9b58e2b0a5fd13819cea573f3940a94f825128cf4209beabb4e8"},
	};

	(void)state;
	if (!usable())
		skip();
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		struct sha256 ctx;
		uint8_t out[SHA256_BYTES];
		char hex[2 * SHA256_BYTES + 1];

		sha256_init(&ctx);
		for (unsigned j = 0; j < known[i].repeat; j++)
			sha256_update(&ctx, known[i].message, strlen(known[i].message));
		sha256_final(&ctx, out);
		hex_encode(out, sizeof(out), hex);
		assert_string_equal(hex, known[i].hex);
	}
}

static void every_length_and_alignment(void **state)
{
	(void)state;
	if (!usable())
		skip();
	for (size_t len = 0; len <= 300; len++)
		for (size_t shift = 0; shift < 16; shift++) {
			struct sha256 ctx;

			sha256_init(&ctx);
			sha256_update(&ctx, len ? data + shift : NULL, len);
			assert_digest_of(&ctx, data + shift, len);
		}
}

static void every_cut(void **state)
{
	unsigned seed = 1;

	(void)state;
	if (!usable())
		skip();
	for (size_t len = 0; len <= 300; len++)
		for (unsigned round = 0; round < 20; round++) {
			struct sha256 ctx;

			sha256_init(&ctx);
			for (size_t at = 0, piece; at < len; at += piece) {
				piece = next(&seed) % (round < 10 ? 80 : 200);
				piece = MIN(piece, len - at);
				sha256_update(&ctx, data + at, piece);
			}
			assert_digest_of(&ctx, data, len);
		}
}

/* One context has a whole block more than the other, as HMAC's inner hash has. */
static void two_over_one_stream(void **state)
{
	static uint8_t prefixed[BYTES + SHA256_BLOCK_BYTES];
	unsigned seed = 2;

	(void)state;
	if (!usable())
		skip();
	memset(prefixed, 0x36, SHA256_BLOCK_BYTES);
	memcpy(prefixed + SHA256_BLOCK_BYTES, data, BYTES);
	for (size_t len = 0; len <= 300; len++)
		for (size_t cut = 0; cut <= len; cut += 1 + next(&seed) % 3) {
			struct sha256 a;
			struct sha256 b;

			sha256_init(&a);
			sha256_init(&b);
			sha256_update(&b, prefixed, SHA256_BLOCK_BYTES);
			sha256_update_shared(&a, &b, cut ? data : NULL, cut);
			sha256_update_shared(&a, &b, data + cut, len - cut);
			assert_digest_of(&a, data, len);
			assert_digest_of(&b, prefixed, SHA256_BLOCK_BYTES + len);
		}
}

static void two_streams_in_every_phase(void **state)
{
	unsigned seed = 3;

	(void)state;
	if (!usable())
		skip();
	for (size_t phase_a = 0; phase_a < SHA256_BLOCK_BYTES; phase_a++)
		for (size_t phase_b = 0; phase_b < SHA256_BLOCK_BYTES; phase_b++) {
			const uint8_t *from_b = data + 1 + next(&seed) % 64;
			size_t len_a = next(&seed) % 400;
			size_t len_b = next(&seed) % 400;
			struct sha256 a;
			struct sha256 b;

			sha256_init(&a);
			sha256_init(&b);
			sha256_update(&a, data, phase_a);
			sha256_update(&b, from_b, phase_b);
			sha256_update_pair(&a, data + phase_a, len_a, &b, from_b + phase_b, len_b);
			sha256_update_pair(&a, NULL, 0, &b, NULL, 0);
			assert_digest_of(&a, data, phase_a + len_a);
			assert_digest_of(&b, from_b, phase_b + len_b);
		}
}

static void two_of_one_length(void **state)
{
	static uint8_t message[2 * BYTES];
	uint8_t got[2][SHA256_BYTES];
	uint8_t want[SHA256_BYTES];
	const uint8_t *from[2] = {data, data + 513};

	(void)state;
	if (!usable())
		skip();
	for (size_t before = 0; before < 2 * SHA256_BLOCK_BYTES; before += 1 + before % 7)
		for (size_t len = 0; len <= 300; len++) {
			struct sha256 start;

			sha256_init(&start);
			sha256_update(&start, data + 7, before);
			sha256_finish_pair(&start, from[0], got[0], from[1], got[1], len);
			assert_int_equal(start.len, before);
			memcpy(message, data + 7, before);
			for (unsigned i = 0; i < 2; i++) {
				memcpy(message + before, from[i], len);
				assert_int_equal(EVP_Digest(message, before + len, want, NULL, EVP_sha256(), NULL), 1);
				assert_memory_equal(got[i], want, sizeof(want));
			}
		}
}

/* More than 2^32 bits, where a length of 32 bits would wrap. */
static void a_long_message(void **state)
{
	static uint8_t zeros[1u << 20];
	EVP_MD_CTX *reference;
	uint8_t got[SHA256_BYTES];
	uint8_t want[SHA256_BYTES];
	struct sha256 ctx;

	(void)state;
	if (!usable())
		skip();
	reference = EVP_MD_CTX_new();
	assert_int_equal(EVP_DigestInit_ex(reference, EVP_sha256(), NULL), 1);
	sha256_init(&ctx);
	for (unsigned i = 0; i <= 512; i++) {
		sha256_update(&ctx, zeros, sizeof(zeros));
		assert_int_equal(EVP_DigestUpdate(reference, zeros, sizeof(zeros)), 1);
	}
	sha256_final(&ctx, got);
	assert_int_equal(EVP_DigestFinal_ex(reference, want, NULL), 1);
	assert_memory_equal(got, want, sizeof(got));
	EVP_MD_CTX_free(reference);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_answers),
		cmocka_unit_test(every_length_and_alignment),
		cmocka_unit_test(every_cut),
		cmocka_unit_test(two_over_one_stream),
		cmocka_unit_test(two_streams_in_every_phase),
		cmocka_unit_test(two_of_one_length),
		cmocka_unit_test(a_long_message),
	};

	return cmocka_run_group_tests(tests, fill, NULL);
}
