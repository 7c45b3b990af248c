/* SPDX-License-Identifier: Apache-2.0
 *
 * How well an index entry's platform serves the wanted one, and what this machine is. Private to fetch/; what others
 * use of platforms is in manifest.h. Pure, but for cpuid.
 */
#ifndef FETCH_PLATFORM_H
#define FETCH_PLATFORM_H

#include "fetch/manifest.h"

#define PLATFORM_NO_MATCH (-1)

/* 0 for the best match, larger is worse, PLATFORM_NO_MATCH when the entry is for another platform. Members that an
 * entry does not have are given as NULL; variant NULL is the same as "". */
int platform_rank(const struct platform *want, const char *os, const char *arch, const char *variant);

/* Copies an entry's members; false (and out zeroed) when one is too long for the struct. NULL is "". */
bool platform_set(struct platform *out, const char *os, const char *arch, const char *variant);

/* What cpuid says about an x86-64 CPU: ECX of leaf 1, EBX of leaf 7, ECX of leaf 0x80000001, and XCR0 (0 without
 * OSXSAVE). */
struct amd64_features {
	uint32_t leaf1_ecx;
	uint32_t leaf7_ebx;
	uint32_t ext1_ecx;
	uint32_t xcr0;
};

/* Highest level of the x86-64 psABI that the CPU and the kernel carry, 1 to 4. */
unsigned amd64_level(const struct amd64_features *features);

#endif
