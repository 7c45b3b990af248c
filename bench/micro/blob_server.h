/* SPDX-License-Identifier: Apache-2.0
 *
 * The other side of a transfer: the least of HTTP servers, in a process of its own, so that its work is not counted.
 */
#ifndef MICRO_BLOB_SERVER_H
#define MICRO_BLOB_SERVER_H

#include "engine/base/util.h"

struct blob_server {
	int pid;
	unsigned port;
};

/* Serves `len` bytes at `data` on every path of a loopback port, until stopped or its parent ends. With tls by a
 * certificate of its own making: CPULL_ERR_UNSUPPORTED where libssl is not built in. */
MUST_CHECK int blob_server_start(const uint8_t *data, size_t len, bool tls, struct blob_server *out,
				 struct cpull_error *err);
void blob_server_stop(struct blob_server *server);

#endif
