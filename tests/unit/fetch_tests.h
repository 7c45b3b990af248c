/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests of fetch/ against a server inside of the test: each test runs on both event loops, away from the machine's
 * own files and proxies. Include behind cmocka.h.
 */
#ifndef TESTS_UNIT_FETCH_TESTS_H
#define TESTS_UNIT_FETCH_TESTS_H

#include <stdio.h>

#include "engine/base/log.h"
#include "engine/base/util.h"

#define EACH(fn) {.name = #fn, .test_func = fn}

/* Of the test that is running: its initial state. */
static inline enum cpull_io io_of(void **state)
{
	return *(const enum cpull_io *)*state;
}

/* A log for log_init(): with it TEST_LOG in the environment shows what the fetch thread does. */
static inline void show_log(enum cpull_log_level level, const char *line, void *payload)
{
	(void)level;
	(void)payload;
	fprintf(stderr, "# %llu %s\n", (unsigned long long)now_ms(), line);
}

/* Something that has no period which a chunk or a range could hit. */
static inline void fill_content(uint8_t *content, size_t len)
{
	for (size_t i = 0; i < len; i++)
		content[i] = (uint8_t)((i * 2654435761u) >> 13);
}

/* An argument of the program names the tests to run, "*" and all. */
static inline int run_on_both_loops(const struct CMUnitTest *tests, size_t count, int argc, char **argv)
{
	static enum cpull_io io[] = {CPULL_IO_AUTO, CPULL_IO_SYNC};
	struct CMUnitTest *all = calloc(2 * count, sizeof(*all));

	if (!all)
		return 1;
	setenv("HOME", "/nonexistent", 1);
	setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
	unsetenv("XDG_CONFIG_HOME");
	unsetenv("REGISTRY_AUTH_FILE");
	unsetenv("http_proxy");
	for (size_t i = 0; i < 2 * count; i++) {
		all[i] = tests[i / 2];
		all[i].initial_state = &io[i % 2];
	}
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);

	/* what the macro makes of an array, whose length it has to see */
	int failed = _cmocka_run_group_tests(argv[0], all, 2 * count, NULL, NULL);

	free(all);
	return failed;
}

#endif
