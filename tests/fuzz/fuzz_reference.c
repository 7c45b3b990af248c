/* SPDX-License-Identifier: Apache-2.0
 *
 * Image names. Beyond not crashing: a name that was taken is made of harmless characters, and its canonical text gives
 * the same reference again.
 */
#include <string.h>

#include "fetch/reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static void check_registry(const struct reference *ref)
{
	if (!ref->domain || !ref->path || !ref->name || (!ref->tag && !ref->digest))
		abort();
	if (strstr(ref->path, "..") || ref->path[strspn(ref->path, "abcdefghijklmnopqrstuvwxyz0123456789._-/")])
		abort();
	for (const char *c = ref->name; *c; c++)
		if (*c <= ' ' || *c > '~')
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP_FREE char *text = malloc(size + 1);
	struct reference ref, again;
	struct cpull_error err;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	int rc = reference_parse(text, &ref, &err);

	if (rc) {
		if (rc != CPULL_ERR_USAGE || ref.name || !err.message[0])
			abort();
		return 0;
	}
	if (ref.transport == REFERENCE_REGISTRY)
		check_registry(&ref);
	if (ref.digest && !reference_digest_valid(ref.digest))
		abort();
	rc = reference_parse(ref.name, &again, &err);
	if (rc && ref.transport == REFERENCE_REGISTRY) /* a layout's path may have grown past the limit */
		abort();
	if (!rc && (!same(ref.name, again.name) || !same(ref.path, again.path) || !same(ref.tag, again.tag) ||
		    !same(ref.digest, again.digest)))
		abort();
	reference_free(&again);
	reference_free(&ref);
	return 0;
}
