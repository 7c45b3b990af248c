/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch/hosts: which URLs mean the same host, and that the table stays small.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "fetch/hosts.h"

static void a_host_is_known_by_name_and_port(void **state)
{
	static const char *const same[][2] = {
		{"https://registry.example/v2/", "https://REGISTRY.example:443/v2/a/b?c=d"},
		{"http://registry.example", "http://registry.example:80#x"},
		{"https://[::1]/a", "https://[::1]:443/b"},
		{"https://u:p@registry.example:5000/", "http://registry.example:5000/x@y"},
	};
	static const char *const other[][2] = {
		{"https://registry.example/", "http://registry.example/"},
		{"https://registry.example/", "https://registry.example:444/"},
		{"https://[::1]/a", "https://[::2]/a"},
		{"https://a.example/", "https://b.example/"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(same); i++) {
		struct hosts hosts = {0};

		hosts_hold(&hosts, same[i][0], 5 + i);
		assert_int_equal(hosts_held_until(&hosts, same[i][1]), 5 + i);
		assert_false(hosts_answered(&hosts, same[i][1]));
		hosts_set_answered(&hosts, same[i][1]);
		assert_true(hosts_answered(&hosts, same[i][0]));
	}
	for (size_t i = 0; i < ARRAY_LEN(other); i++) {
		struct hosts hosts = {0};

		hosts_hold(&hosts, other[i][0], 5);
		hosts_set_answered(&hosts, other[i][0]);
		assert_int_equal(hosts_held_until(&hosts, other[i][1]), 0);
		assert_false(hosts_answered(&hosts, other[i][1]));
	}
}

static void the_later_time_counts(void **state)
{
	struct hosts hosts = {0};

	(void)state;
	hosts_hold(&hosts, "http://a/", 7);
	hosts_hold(&hosts, "http://a/", 6);
	assert_int_equal(hosts_held_until(&hosts, "http://a/"), 7);
	hosts_hold(&hosts, "http://a/", 8);
	assert_int_equal(hosts_held_until(&hosts, "http://a/"), 8);
}

static void the_table_is_limited(void **state)
{
	struct hosts hosts = {0};
	char url[400];

	(void)state;
	hosts_set_answered(&hosts, "http://kept/");
	for (unsigned i = 0; i < 3 * HOSTS_MAX; i++) {
		snprintf(url, sizeof(url), "http://h%u/", i);
		hosts_hold(&hosts, url, 1);
		/* whatever is in use stays */
		assert_true(hosts_answered(&hosts, "http://kept/"));
	}
	assert_int_equal(hosts_held_until(&hosts, "http://h0/"), 0);
	assert_int_equal(hosts_held_until(&hosts, url), 1);
}

static void what_names_no_host_is_not_known(void **state)
{
	static const char *const bad[] = {"", "registry.example", "http:/registry.example", "http://", "http:///x",
					  "http://u@/x"};
	struct hosts hosts = {0};
	char url[600] = "http://";

	(void)state;
	memset(url + 7, 'a', HOSTS_NAME_BYTES);
	hosts_hold(&hosts, url, 5);
	assert_int_equal(hosts_held_until(&hosts, url), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		hosts_hold(&hosts, bad[i], 5);
		hosts_set_answered(&hosts, bad[i]);
		assert_int_equal(hosts_held_until(&hosts, bad[i]), 0);
		assert_false(hosts_answered(&hosts, bad[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_host_is_known_by_name_and_port),
		cmocka_unit_test(the_later_time_counts),
		cmocka_unit_test(the_table_is_limited),
		cmocka_unit_test(what_names_no_host_is_not_known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
