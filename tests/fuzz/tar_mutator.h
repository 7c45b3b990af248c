/* SPDX-License-Identifier: Apache-2.0
 *
 * libFuzzer's hook for targets that take tar archives: puts the checksums of headers right again after every mutation.
 */
#ifndef TESTS_FUZZ_TAR_MUTATOR_H
#define TESTS_FUZZ_TAR_MUTATOR_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "snapshot/tar_header.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max_len, unsigned seed);
/* libFuzzer's; not there when a corpus is only replayed, and not called then */
__attribute__((weak)) size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max_len);

/* Without it hardly anything would get past a header's checksum. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max_len, unsigned seed)
{
	len = LLVMFuzzerMutate(data, len, max_len);
	for (size_t at = 0; at + TAR_BLOCK_BYTES <= len; at += TAR_BLOCK_BYTES) {
		struct tar_header *h = (struct tar_header *)(data + at);
		unsigned sum = 0;

		if (memcmp(h->magic, "ustar", 5) != 0 || seed % 16 == 0)
			continue;
		memset(h->checksum, ' ', sizeof(h->checksum));
		for (size_t i = 0; i < TAR_BLOCK_BYTES; i++)
			sum += data[at + i];
		snprintf((char *)h->checksum, sizeof(h->checksum), "%06o", sum);
	}
	return len;
}

#endif
