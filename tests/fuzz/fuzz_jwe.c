/* SPDX-License-Identifier: Apache-2.0
 *
 * One JWE, as it stands in an annotation once base64 is off, with keys that open the seeds.
 */
#include "crypto/unwrap.h"
#include "engine/base/limits.h"
#include "tests/fuzz/fixed_keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct unwrap unwrap = {.ring = fixed_keys(), .tries_left = LIMIT_KEY_WRAPS};
	CLEANUP_SECRET struct secret out = {0};
	struct cpull_error err = {0};

	if (!jwe_unwrap(&unwrap, data, size, &out, &err) && out.len > LIMIT_PRIVATE_OPTIONS_BYTES)
		abort();
	return 0;
}
