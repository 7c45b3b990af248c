/* SPDX-License-Identifier: Apache-2.0
 *
 * The three kernels, from FIPS 180-4 and Intel's "SHA Extensions" (the instructions' reference in the Software
 * Developer's Manual). Called by sha256.c on any thread; own nothing.
 *
 * SHA256RNDS2 does two rounds and needs four cycles before the next two of the same state can start, but two before
 * two of another state can: one stream alone is bound by that latency, at the speed of OpenSSL's code (2.2 GB/s on
 * the reference machine, idle). Two states side by side fill the gap, to 3.2 GB/s over two streams. Two states over
 * one stream (1.7 GB/s, where one after the other makes 1.1) save the message schedule besides. Other arrangements
 * measured the same or worse: half-round offsets between the two, the schedule of a block ahead of its rounds, round
 * inputs handed over in memory, SHA256MSG2 replaced by AVX-512.
 */
#include "crypto/sha256_ni.h"

#if defined(__x86_64__) && !defined(CRYPTO_NO_SHA_NI)

#include <cpuid.h>
#include <immintrin.h>

#define TARGET __attribute__((target("sha,sse4.1,ssse3")))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define BLOCK_BYTES 64u

/* Section 4.2.2. */
static const uint32_t round_constants[64] __attribute__((aligned(16))) = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* The working variables as SHA256RNDS2 wants them, the first-named in the highest word. */
struct lane {
	__m128i abef;
	__m128i cdgh;
};

INLINE struct lane lane_load(const uint32_t state[8])
{
	__m128i dcba = _mm_loadu_si128((const __m128i *)state);
	__m128i hgfe = _mm_loadu_si128((const __m128i *)(state + 4));
	__m128i cdab = _mm_shuffle_epi32(dcba, 0xb1);
	__m128i efgh = _mm_shuffle_epi32(hgfe, 0x1b);

	return (struct lane){.abef = _mm_alignr_epi8(cdab, efgh, 8), .cdgh = _mm_blend_epi16(efgh, cdab, 0xf0)};
}

INLINE void lane_store(uint32_t state[8], struct lane lane)
{
	__m128i feba = _mm_shuffle_epi32(lane.abef, 0x1b);
	__m128i dchg = _mm_shuffle_epi32(lane.cdgh, 0xb1);

	_mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xf0));
	_mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

/* Step 4 of section 6.2.2: the working variables are added to the block's initial hash value. */
INLINE void lane_add(struct lane *lane, struct lane before)
{
	lane->abef = _mm_add_epi32(lane->abef, before.abef);
	lane->cdgh = _mm_add_epi32(lane->cdgh, before.cdgh);
}

/* Four rounds with four words of W + K. Two rounds on, a, b, e and f have become c, d, g and h; so the instruction
 * returns only the other half, and the two registers change roles. */
INLINE void four_rounds(struct lane *lane, __m128i wk)
{
	lane->cdgh = _mm_sha256rnds2_epu32(lane->cdgh, lane->abef, wk);
	lane->abef = _mm_sha256rnds2_epu32(lane->abef, lane->cdgh, _mm_shuffle_epi32(wk, 0x0e));
}

/* The block's sixteen words, big-endian in memory, are the first sixteen of the message schedule. */
INLINE void words_load(__m128i w[4], const uint8_t *data)
{
	const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);

	for (unsigned i = 0; i < 4; i++)
		w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)data + i), swap);
}

/* The four words that follow the sixteen of w, of which w[i] is the oldest:
 * W[t] = sigma1(W[t-2]) + W[t-7] + sigma0(W[t-15]) + W[t-16]. SHA256MSG1 adds the last two terms, SHA256MSG2 the first,
 * also where W[t-2] is among the four itself. */
INLINE __m128i words_next(const __m128i w[4], unsigned i)
{
	__m128i oldest = _mm_sha256msg1_epu32(w[i], w[(i + 1) & 3]);
	__m128i seven_ago = _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4);

	return _mm_sha256msg2_epu32(_mm_add_epi32(oldest, seven_ago), w[(i + 3) & 3]);
}

/* A kernel's inputs. b is NULL with one state, wb is NULL where b takes a's words; both are known when this is
 * compiled, so that each kernel gets code of its own. */
struct lanes {
	struct lane *a, *b;
	__m128i *wa, *wb;
};

INLINE void step(struct lanes s, const __m128i *k, unsigned i, bool extend)
{
	__m128i wk = _mm_add_epi32(s.wa[i], k[i]);

	four_rounds(s.a, wk);
	if (s.b)
		four_rounds(s.b, s.wb ? _mm_add_epi32(s.wb[i], k[i]) : wk);
	if (extend) {
		s.wa[i] = words_next(s.wa, i);
		if (s.wb)
			s.wb[i] = words_next(s.wb, i);
	}
}

INLINE void sixteen_rounds(struct lanes s, const __m128i *k, bool extend)
{
	step(s, k, 0, extend);
	step(s, k, 1, extend);
	step(s, k, 2, extend);
	step(s, k, 3, extend);
}

INLINE void all_rounds(struct lanes s)
{
	const __m128i *k = (const __m128i *)round_constants;

	sixteen_rounds(s, k, true);
	sixteen_rounds(s, k + 4, true);
	sixteen_rounds(s, k + 8, true);
	sixteen_rounds(s, k + 12, false);
}

bool sha256_ni_present(void)
{
	unsigned a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
		return false;
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

TARGET void sha256_ni_blocks(uint32_t state[8], const uint8_t *data, size_t blocks)
{
	struct lane lane = lane_load(state);

	for (; blocks; blocks--, data += BLOCK_BYTES) {
		struct lane before = lane;
		__m128i w[4];

		words_load(w, data);
		all_rounds((struct lanes){.a = &lane, .wa = w});
		lane_add(&lane, before);
	}
	lane_store(state, lane);
}

TARGET void sha256_ni_blocks_shared(uint32_t a[8], uint32_t b[8], const uint8_t *data, size_t blocks)
{
	struct lane lane_a = lane_load(a);
	struct lane lane_b = lane_load(b);

	for (; blocks; blocks--, data += BLOCK_BYTES) {
		struct lane before_a = lane_a;
		struct lane before_b = lane_b;
		__m128i w[4];

		words_load(w, data);
		all_rounds((struct lanes){.a = &lane_a, .b = &lane_b, .wa = w});
		lane_add(&lane_a, before_a);
		lane_add(&lane_b, before_b);
	}
	lane_store(a, lane_a);
	lane_store(b, lane_b);
}

TARGET void sha256_ni_blocks_pair(uint32_t a[8], const uint8_t *data_a, uint32_t b[8], const uint8_t *data_b,
				  size_t blocks)
{
	struct lane lane_a = lane_load(a);
	struct lane lane_b = lane_load(b);

	for (; blocks; blocks--, data_a += BLOCK_BYTES, data_b += BLOCK_BYTES) {
		struct lane before_a = lane_a;
		struct lane before_b = lane_b;
		__m128i wa[4];
		__m128i wb[4];

		words_load(wa, data_a);
		words_load(wb, data_b);
		all_rounds((struct lanes){.a = &lane_a, .b = &lane_b, .wa = wa, .wb = wb});
		lane_add(&lane_a, before_a);
		lane_add(&lane_b, before_b);
	}
	lane_store(a, lane_a);
	lane_store(b, lane_b);
}

#else /* no such instructions: sha256_ni_present() keeps everyone away from the rest */

#include <assert.h>

bool sha256_ni_present(void)
{
	return false;
}

void sha256_ni_blocks(uint32_t state[8], const uint8_t *data, size_t blocks)
{
	(void)state, (void)data, (void)blocks;
	assert(false);
}

void sha256_ni_blocks_shared(uint32_t a[8], uint32_t b[8], const uint8_t *data, size_t blocks)
{
	(void)a, (void)b, (void)data, (void)blocks;
	assert(false);
}

void sha256_ni_blocks_pair(uint32_t a[8], const uint8_t *data_a, uint32_t b[8], const uint8_t *data_b, size_t blocks)
{
	(void)a, (void)data_a, (void)b, (void)data_b, (void)blocks;
	assert(false);
}

#endif
