/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch/failure: what is tried again, for how long, and what is said.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fetch/failure.h"

static void failures_are_told_apart(void **state)
{
	static const struct {
		struct failure failure;
		int code;
		enum retry_patience patience;
		const char *says;
	} rows[] = {
		/* nobody there; gone a moment ago */
		{{CURLE_COULDNT_CONNECT, "Failed to connect", .os_errno = ECONNREFUSED}, CPULL_ERR_NETWORK, RETRY_BRIEFLY, "refused"},
		{{CURLE_COULDNT_CONNECT, "Failed to connect"}, CPULL_ERR_NETWORK, RETRY_BRIEFLY, "connect"},
		{{CURLE_COULDNT_CONNECT, "Connection refused", .answered = true}, CPULL_ERR_NETWORK, RETRY_LONG, ""},
		{{CURLE_OPERATION_TIMEDOUT, "timeout"}, CPULL_ERR_NETWORK, RETRY_BRIEFLY, ""},
		{{CURLE_OPERATION_TIMEDOUT, "timeout", .connected = true}, CPULL_ERR_NETWORK, RETRY_LONG, ""},
		{{CURLE_OPERATION_TIMEDOUT, "timeout", .answered = true}, CPULL_ERR_NETWORK, RETRY_LONG, ""},
		{{CURLE_COULDNT_RESOLVE_HOST, "Could not resolve host: x"}, CPULL_ERR_NETWORK, RETRY_NEVER, "cannot be resolved"},
		{{CURLE_COULDNT_RESOLVE_HOST, "", .answered = true}, CPULL_ERR_NETWORK, RETRY_LONG, "cannot be resolved"},
		{{CURLE_COULDNT_RESOLVE_PROXY, "Could not resolve proxy: x"}, CPULL_ERR_NETWORK, RETRY_NEVER, "proxy"},
		/* broken in the middle */
		{{CURLE_RECV_ERROR, "Connection reset", .connected = true}, CPULL_ERR_NETWORK, RETRY_LONG, ""},
		{{CURLE_GOT_NOTHING, "Empty reply", .connected = true}, CPULL_ERR_NETWORK, RETRY_LONG, ""},
		/* a proxy's word */
		{{CURLE_RECV_ERROR, "CONNECT", .proxy_status = 403}, CPULL_ERR_NETWORK, RETRY_NEVER, "https_proxy"},
		{{CURLE_RECV_ERROR, "CONNECT", .proxy_status = 502}, CPULL_ERR_NETWORK, RETRY_BRIEFLY, "https_proxy"},
		{{CURLE_RECV_ERROR, "reset", .proxy_status = 200}, CPULL_ERR_NETWORK, RETRY_LONG, ""},
		/* TLS: only what the network did may pass */
		{{CURLE_PEER_FAILED_VERIFICATION, "self signed", .answered = true}, CPULL_ERR_NETWORK, RETRY_NEVER, "--cert-dir"},
		{{CURLE_SSL_CONNECT_ERROR, "OpenSSL SSL_connect: Connection reset by peer"}, CPULL_ERR_NETWORK, RETRY_LONG, ""},
		{{CURLE_SSL_CONNECT_ERROR, "error:0A000126:SSL routines::unexpected eof while reading"}, CPULL_ERR_NETWORK,
		 RETRY_LONG, ""},
		{{CURLE_SSL_CONNECT_ERROR, "error:0A000410:SSL routines::sslv3 alert handshake failure", .answered = true},
		 CPULL_ERR_NETWORK, RETRY_NEVER, ""},
		{{CURLE_SSL_CONNECT_ERROR, "error:0A00010B:SSL routines::wrong version number"}, CPULL_ERR_NETWORK, RETRY_NEVER,
		 "--plain-http"},
		{{CURLE_RECV_ERROR, "error:0A00045C:SSL routines::tlsv13 alert certificate required", .connected = true},
		 CPULL_ERR_NETWORK, RETRY_NEVER, "X.cert"},
		/* what no later try changes */
		{{CURLE_COULDNT_CONNECT, "", .socket_errno = EMFILE, .answered = true}, CPULL_ERR_STORAGE, RETRY_NEVER,
		 "RLIMIT_NOFILE"},
		{{CURLE_COULDNT_CONNECT, "", .socket_errno = ENFILE}, CPULL_ERR_STORAGE, RETRY_NEVER, "fs.file-max"},
		{{CURLE_COULDNT_CONNECT, "", .socket_errno = EAFNOSUPPORT}, CPULL_ERR_NETWORK, RETRY_BRIEFLY, ""},
		{{CURLE_UNSUPPORTED_PROTOCOL, "Received HTTP/0.9 when not allowed"}, CPULL_ERR_NETWORK, RETRY_NEVER, "HTTPS"},
		{{CURLE_UNSUPPORTED_PROTOCOL, "Protocol \"ftp\" disabled"}, CPULL_ERR_REGISTRY, RETRY_NEVER, "redirects"},
		{{CURLE_TOO_MANY_REDIRECTS, "Maximum (10) redirects followed"}, CPULL_ERR_REGISTRY, RETRY_NEVER, "redirects"},
		{{CURLE_OUT_OF_MEMORY, "Out of memory"}, CPULL_ERR_NOMEM, RETRY_NEVER, ""},
		{{CURLE_WEIRD_SERVER_REPLY, "evil\n\x1b[0m"}, CPULL_ERR_NETWORK, RETRY_NEVER, "evil\\x0a\\x1b[0m"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		enum retry_patience patience;
		char why[400];

		assert_int_equal(failure_describe(&rows[i].failure, &patience, why, sizeof(why)), rows[i].code);
		assert_int_equal(patience, rows[i].patience);
		assert_non_null(strstr(why, rows[i].says));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(failures_are_told_apart)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
