/* SPDX-License-Identifier: Apache-2.0
 *
 * Access to the shared test data (COCO_PULL_SHARED). Where it isn't there, the test that wants it is skipped with a
 * line that says so. Include behind cmocka.h.
 */
#ifndef TESTS_UNIT_VECTORS_H
#define TESTS_UNIT_VECTORS_H

#include "engine/base/json.h"
#include "engine/base/util.h"

/* True when the shared data is on this machine; says so when it is not. Then the test calls skip(). */
static inline bool vectors_present(void)
{
	const char *shared = getenv("COCO_PULL_SHARED");

	if (shared && !access(shared, R_OK))
		return true;
	printf("skipped: no shared test data (COCO_PULL_SHARED=%s)\n", shared ? shared : "");
	return false;
}

/* The file vectors/<name>; fails the test when it cannot be read. */
static inline struct bytes vector_read(const char *name)
{
	CLEANUP_FREE char *path = format_string("%s/vectors/%s", getenv("COCO_PULL_SHARED"), name);
	struct bytes out = {0};

	assert_non_null(path);
	if (file_read(path, 64u << 20, "test vector", &out, NULL))
		fail_msg("cannot read %s", path);
	return out;
}

/* The same, parsed. */
static inline json_t *vector_json(const char *name)
{
	CLEANUP_BYTES struct bytes text = vector_read(name);
	json_t *out = NULL;

	assert_int_equal(json_parse(text.data, text.len, CPULL_ERR_MANIFEST, name, &out, NULL), 0);
	return out;
}

#endif
