/* SPDX-License-Identifier: Apache-2.0
 *
 * SHA-256's compression of whole blocks (FIPS 180-4, section 6.2.2) by the SHA extensions of x86-64. A state is H0 to
 * H7 of section 5.3.3, in that order. Where sha256_ni_present() says no, which it always does on other architectures
 * and in builds with CRYPTO_NO_SHA_NI, nothing else of this file may be called.
 */
#ifndef CRYPTO_SHA256_NI_H
#define CRYPTO_SHA256_NI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Asks the CPU, which in a confidential guest may mean an exit to the hypervisor: ask once (algorithms_get()). */
bool sha256_ni_present(void);

/* One state, one stream. */
void sha256_ni_blocks(uint32_t state[8], const uint8_t *data, size_t blocks);
/* Two states over the same stream, whose message schedule is computed once. */
void sha256_ni_blocks_shared(uint32_t a[8], uint32_t b[8], const uint8_t *data, size_t blocks);
/* Two states, a stream each, as many blocks of both. */
void sha256_ni_blocks_pair(uint32_t a[8], const uint8_t *data_a, uint32_t b[8], const uint8_t *data_b, size_t blocks);

#endif
