/* SPDX-License-Identifier: Apache-2.0
 *
 * Starting the library's threads: every signal blocked, since the process' signals are its host's business
 * (a handler that runs on our stack, or a SIGPIPE of ours that ends the host, are faults people reported).
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

#include "engine/base/util.h"

/* `name` shows in ps and gdb, at most 15 characters. CPULL_ERR_INTERNAL with errno in *err. */
MUST_CHECK int thread_start(pthread_t *out, const char *name, void *(*run)(void *), void *payload,
			    struct cpull_error *err);

#endif
