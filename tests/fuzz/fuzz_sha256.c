/* SPDX-License-Identifier: Apache-2.0
 *
 * Our own SHA-256 against OpenSSL's. The input is a list of steps of three bytes: what is called, and with how much at
 * which alignment. Two hashers are updated alone and as a pair, two contexts a block apart share a stream, and all four
 * digests have to be OpenSSL's. On a CPU without SHA instructions only the hashers are left.
 */
#include <string.h>

#include <openssl/evp.h>

#include "crypto/algorithms.h"
#include "crypto/digest.h"
#include "crypto/sha256.h"

#define POOL_BYTES 1024u
#define MAX_STEPS 200u
#define STEP_BYTES 3u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A stream: ours is one of the two, the reference follows it. */
struct stream {
	struct hasher *hasher;
	struct sha256 own;
	EVP_MD_CTX *reference;
};

struct streams {
	struct stream a, b; /* hashers */
	struct stream c, d; /* contexts, d a block ahead */
};

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void start(struct stream *stream, bool hasher)
{
	stream->reference = EVP_MD_CTX_new();
	must(stream->reference && EVP_DigestInit_ex(stream->reference, EVP_sha256(), NULL) == 1);
	if (hasher)
		must(!hasher_new(DIGEST_SHA256, &stream->hasher, NULL));
	else
		sha256_init(&stream->own);
}

static void follow(struct stream *stream, const uint8_t *data, size_t len)
{
	must(EVP_DigestUpdate(stream->reference, data, len) == 1);
}

static void finish(struct stream *stream)
{
	struct digest got;
	uint8_t want[SHA256_BYTES];

	must(EVP_DigestFinal_ex(stream->reference, want, NULL) == 1);
	if (stream->hasher)
		must(!hasher_final(stream->hasher, &got));
	else
		sha256_final(&stream->own, got.value);
	must(!memcmp(got.value, want, sizeof(want)));
	hasher_free(stream->hasher);
	EVP_MD_CTX_free(stream->reference);
}

static void step(struct streams *s, const uint8_t *pool, const uint8_t in[STEP_BYTES], bool own)
{
	size_t len_a = in[1] + (in[0] & 0x10 ? 256 : 0);
	size_t len_b = in[2] + (in[0] & 0x20 ? 256 : 0);
	const uint8_t *from_a = pool + (in[0] >> 6) * 5;
	const uint8_t *from_b = pool + in[1] % 64;

	switch (in[0] % 4) {
	case 0:
		must(!hasher_update(s->a.hasher, from_a, len_a));
		follow(&s->a, from_a, len_a);
		break;
	case 1:
		must(!hasher_update(s->b.hasher, from_b, len_b));
		follow(&s->b, from_b, len_b);
		break;
	case 2:
		must(!hasher_update_pair(s->a.hasher, from_a, len_a, s->b.hasher, from_b, len_b));
		follow(&s->a, from_a, len_a);
		follow(&s->b, from_b, len_b);
		break;
	case 3:
		if (!own)
			break;
		sha256_update_shared(&s->c.own, &s->d.own, from_b, len_b);
		follow(&s->c, from_b, len_b);
		follow(&s->d, from_b, len_b);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool own = algorithms_get()->sha256_ni;
	struct streams s = {0};
	uint8_t pool[POOL_BYTES];

	if (!size)
		return 0;
	for (size_t i = 0; i < sizeof(pool); i++)
		pool[i] = (uint8_t)(data[i % size] + i * 7 + (i >> 8));
	start(&s.a, true);
	start(&s.b, true);
	if (own) {
		start(&s.c, false);
		start(&s.d, false);
		sha256_update(&s.d.own, pool, SHA256_BLOCK_BYTES);
		follow(&s.d, pool, SHA256_BLOCK_BYTES);
	}
	for (size_t i = 0; i < MIN(size / STEP_BYTES, MAX_STEPS); i++)
		step(&s, pool, data + i * STEP_BYTES, own);
	finish(&s.a);
	finish(&s.b);
	if (own) {
		finish(&s.c);
		finish(&s.d);
	}
	return 0;
}
