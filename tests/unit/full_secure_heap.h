/* SPDX-License-Identifier: Apache-2.0
 *
 * A secure heap that is used up, for tests of what then happens.
 */
#ifndef TESTS_UNIT_FULL_SECURE_HEAP_H
#define TESTS_UNIT_FULL_SECURE_HEAP_H

#include <openssl/crypto.h>

struct full_secure_heap {
	void *held[16384];
	size_t count;
};

/* From the largest pieces down to the smallest, so that no hole of any size is left. */
static inline void secure_heap_fill(struct full_secure_heap *heap)
{
	for (size_t size = 1u << 20; size; size /= 2) {
		void *piece;

		while ((piece = OPENSSL_secure_malloc(size))) {
			assert_true(heap->count < sizeof(heap->held) / sizeof(heap->held[0]));
			heap->held[heap->count++] = piece;
		}
	}
}

static inline void secure_heap_empty(struct full_secure_heap *heap)
{
	while (heap->count)
		OPENSSL_secure_free(heap->held[--heap->count]);
}

#endif
