/* SPDX-License-Identifier: Apache-2.0
 *
 * A private key file of any form, once without a password and once with one.
 */
#include "crypto/key_ring.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t text[] = "fuzz";
	const struct secret password = {.data = text, .len = 4, .cap = 4};
	struct cpull_error err = {0};
	struct key_ring *ring;

	if (key_ring_new(&ring, NULL))
		return 0;
	for (unsigned i = 0; i < 2; i++) {
		size_t before = key_ring_count(ring);
		int rc = key_ring_add_bytes(ring, "fuzz", (const char *)data, size, i ? &password : NULL, &err);

		if (key_ring_count(ring) != before + !rc || (rc && err.code != rc))
			abort();
	}
	key_ring_free(ring);
	return 0;
}
