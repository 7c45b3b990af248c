/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/layer_digests: the digests of a layer and its HMAC, however the chunks of blob and tar follow each other. What
 * is expected comes from one-shot functions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include <openssl/hmac.h>

#include "engine/layer_digests.h"

#define CHUNK_BYTES 4096u
#define CHUNKS 8u
#define DATA_BYTES (20u * CHUNK_BYTES)

struct fixture {
	struct pool *pool;
	struct pool_share *share;
	struct layer_digests *digests;
	struct cpull_error err;
	uint8_t blob[DATA_BYTES], tar[DATA_BYTES];
	size_t blob_at, tar_at;
};

static void digest_of(enum digest_algorithm algorithm, const uint8_t *data, size_t len, struct digest *out)
{
	assert_int_equal(digest_compute(algorithm, data, len, "test data", out, NULL), 0);
}

/* Of a key that is not all zeros, with the HMAC of the first `len` bytes of the blob. */
static struct layer_key *key_for(const uint8_t *blob, size_t len)
{
	struct layer_key *key = layer_key_new();

	assert_non_null(key);
	for (size_t i = 0; i < sizeof(key->symkey); i++)
		key->symkey[i] = (uint8_t)(i * 7 + 1);
	assert_non_null(HMAC(EVP_sha256(), key->symkey, sizeof(key->symkey), blob, len, key->hmac, NULL));
	return key;
}

static void set_up(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	for (size_t i = 0; i < DATA_BYTES; i++) {
		f->blob[i] = (uint8_t)((i * 2654435761u) >> 13);
		f->tar[i] = (uint8_t)((i * 2246822519u) >> 11);
	}
	assert_int_equal(pool_new(CHUNK_BYTES, CHUNKS, &f->pool, NULL), 0);
	assert_int_equal(pool_share_open(f->pool, CHUNKS, CHUNKS, &f->share), 0);
}

static void tear_down(struct fixture *f)
{
	layer_digests_free(f->digests);
	pool_share_close(f->share);
	pool_free(f->pool); /* asserts that every chunk has come back */
}

/* A chunk that is not there would be one that the fixture's digests hold for too long. */
static struct chunk *fill(struct fixture *f, const uint8_t *data, size_t *at, size_t len)
{
	struct chunk *chunk = pool_try_get(f->share);

	assert_non_null(chunk);
	memcpy(chunk->data, data + *at, len);
	chunk->len = (uint32_t)len;
	*at += len;
	return chunk;
}

static void feed_blob(struct fixture *f, size_t len)
{
	assert_int_equal(layer_digests_blob(f->digests, fill(f, f->blob, &f->blob_at, len), &f->err), 0);
}

static void feed_tar(struct fixture *f, size_t len)
{
	struct chunk *chunk = fill(f, f->tar, &f->tar_at, len);

	assert_int_equal(layer_digests_tar(f->digests, chunk, &f->err), 0);
	chunk_put(chunk);
}

/* Upper case: of the blob, lower case: of the tar; L a full chunk, S a short one. */
static void any_order_gives_the_same(void **state)
{
	static const char *const orders[] = {
		"", "L", "l", "Ll", "lL", "LLLL", "llll", "LlLl", "LllLll", "LLlLLl", "SlSlSl", "LsLsLs", "lSLsSLlS",
		"LLLLLLLLLLl", "LlllLlllL", "Lsssssssssssl", "LsLllsSll",
	};
	static const enum digest_algorithm algorithms[] = {DIGEST_SHA256, DIGEST_SHA512};
	static struct fixture f;

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_LEN(orders) * ARRAY_LEN(algorithms); i++) {
		const char *order = orders[i / 2 / ARRAY_LEN(algorithms)];
		struct digest blob, diff_id;
		struct layer_key *key = NULL;
		size_t lens[2] = {0};

		for (const char *c = order; *c; c++)
			lens[*c > 'Z'] += *c == 'L' || *c == 'l' ? CHUNK_BYTES : 777;
		set_up(&f);
		digest_of(algorithms[i / 2 % ARRAY_LEN(algorithms)], f.blob, lens[0], &blob);
		digest_of(DIGEST_SHA256, f.tar, lens[1], &diff_id);
		if (i % 2)
			key = key_for(f.blob, lens[0]);
		assert_int_equal(layer_digests_new(&blob, key, &diff_id, &f.digests, &f.err), 0);
		layer_key_free(key);
		for (const char *c = order; *c; c++)
			(*c > 'Z' ? feed_tar : feed_blob)(&f, *c == 'L' || *c == 'l' ? CHUNK_BYTES : 777);
		assert_int_equal(layer_digests_check_blob(f.digests, &f.err), 0);
		assert_int_equal(layer_digests_check_diff_id(f.digests, &f.err), 0);
		tear_down(&f);
	}
}

/* One byte of either, in a chunk that is hashed alone and in one that has a partner. */
static void damage_never_passes(void **state)
{
	static struct fixture f;

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		bool in_blob = i & 1, paired = i & 2, late = i & 4;
		struct digest blob, diff_id;

		set_up(&f);
		digest_of(DIGEST_SHA256, f.blob, 3 * CHUNK_BYTES, &blob);
		digest_of(DIGEST_SHA256, f.tar, 3 * CHUNK_BYTES, &diff_id);
		(in_blob ? f.blob : f.tar)[late ? 3 * CHUNK_BYTES - 1 : 0] ^= 1;
		assert_int_equal(layer_digests_new(&blob, NULL, &diff_id, &f.digests, &f.err), 0);
		for (unsigned n = 0; n < 3; n++) {
			feed_blob(&f, CHUNK_BYTES);
			if (paired)
				feed_tar(&f, CHUNK_BYTES);
		}
		while (f.tar_at < 3 * CHUNK_BYTES)
			feed_tar(&f, CHUNK_BYTES);
		assert_int_equal(layer_digests_check_blob(f.digests, &f.err), in_blob ? CPULL_ERR_DIGEST : 0);
		assert_int_equal(layer_digests_check_diff_id(f.digests, &f.err), in_blob ? 0 : CPULL_ERR_DIFF_ID);
		tear_down(&f);
	}
}

/* The digest fitted to what was changed: only the HMAC can tell (fault K02). */
static void only_who_has_the_key_can_change_the_blob(void **state)
{
	static struct fixture f;
	struct cpull_error err;

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		struct digest blob, diff_id;
		struct layer_key *key;

		set_up(&f);
		err = (struct cpull_error){0};
		key = key_for(f.blob, 2 * CHUNK_BYTES);
		if (i == 0)
			f.blob[0] ^= 1;
		else if (i == 1)
			f.blob[2 * CHUNK_BYTES - 1] ^= 128;
		else if (i == 2)
			key->hmac[31] ^= 1;
		else if (i == 3)
			key->symkey[0] ^= 1;
		digest_of(DIGEST_SHA256, f.blob, i == 4 ? CHUNK_BYTES : 2 * CHUNK_BYTES, &blob);
		if (i == 5) /* and where the digest is wrong too, that is what is said */
			blob.value[31] ^= 1;
		digest_of(DIGEST_SHA256, f.tar, 2 * CHUNK_BYTES, &diff_id);
		assert_int_equal(layer_digests_new(&blob, key, &diff_id, &f.digests, &err), 0);
		layer_key_free(key);
		while (f.blob_at < (i == 4 ? CHUNK_BYTES : 2 * CHUNK_BYTES))
			feed_blob(&f, CHUNK_BYTES);
		while (f.tar_at < 2 * CHUNK_BYTES)
			feed_tar(&f, CHUNK_BYTES);
		assert_int_equal(layer_digests_check_blob(f.digests, &err),
				 i == 5 ? CPULL_ERR_DIGEST : CPULL_ERR_DECRYPT);
		assert_non_null(strstr(err.message, i == 5 ? "digest" : "HMAC"));
		assert_int_equal(layer_digests_check_diff_id(f.digests, &f.err), 0);
		tear_down(&f);
	}
}

/* More of them than the share has: fetch would wait for ever. */
static void one_chunk_is_held_and_no_more(void **state)
{
	static struct fixture f;
	struct digest digest;
	struct chunk *held[CHUNKS];

	(void)state;
	set_up(&f);
	digest_of(DIGEST_SHA256, f.tar, 0, &digest);
	assert_int_equal(layer_digests_new(&digest, NULL, &digest, &f.digests, &f.err), 0);
	feed_blob(&f, CHUNK_BYTES);
	feed_blob(&f, CHUNK_BYTES);
	for (size_t i = 0; i + 1 < CHUNKS; i++) {
		held[i] = pool_try_get(f.share);
		assert_non_null(held[i]);
	}
	assert_null(pool_try_get(f.share));
	for (size_t i = 0; i + 1 < CHUNKS; i++)
		chunk_put(held[i]);
	tear_down(&f); /* with one still waiting */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_order_gives_the_same),
		cmocka_unit_test(damage_never_passes),
		cmocka_unit_test(only_who_has_the_key_can_change_the_blob),
		cmocka_unit_test(one_chunk_is_held_and_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
