/* SPDX-License-Identifier: Apache-2.0
 *
 * The annotations of a layer, as a JSON object, with keys that open the seeds.
 */
#include "crypto/key_ring.h"
#include "engine/base/json.h"
#include "tests/fuzz/fixed_keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP_JSON json_t *annotations = NULL;
	struct layer_key *key = NULL;
	struct cpull_error err = {0};

	if (json_parse((const char *)data, size, CPULL_ERR_MANIFEST, "annotations", &annotations, &err))
		return 0;

	int rc = ocicrypt_unwrap(fixed_keys(), annotations, &key, &err);

	if (rc ? key || err.code != rc || !*err.message : !key)
		abort();
	layer_key_free(key);
	return 0;
}
