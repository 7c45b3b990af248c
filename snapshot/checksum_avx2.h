/* SPDX-License-Identifier: Apache-2.0
 *
 * The same sums with wider registers, where the CPU has them.
 */
#ifndef SNAPSHOT_CHECKSUM_AVX2_H
#define SNAPSHOT_CHECKSUM_AVX2_H

#include <stddef.h>
#include <stdint.h>

#ifdef __x86_64__
/* To be asked before each of the others. */
static inline int checksum_avx2_usable(void)
{
	return __builtin_cpu_supports("avx2");
}

uint64_t checksum_avx2_of(const void *data, size_t len);
/* XXH3_64bits_update(). */
void checksum_avx2_add(void *state, const void *data, size_t len);
#else
#define checksum_avx2_usable() 0
#define checksum_avx2_of(data, len) ((uint64_t)0)
#define checksum_avx2_add(state, data, len) ((void)0)
#endif

#endif
