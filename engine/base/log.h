/* SPDX-License-Identifier: Apache-2.0
 *
 * Log lines to the embedder's function, one at a time, none above the wanted level.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <pthread.h>

#include "engine/base/util.h"

struct log {
	cpull_log_fn fn;
	void *payload;
	enum cpull_log_level level;
	pthread_mutex_t lock;
};

void log_init(struct log *log, cpull_log_fn fn, void *payload, enum cpull_log_level level);
void log_destroy(struct log *log);
/* log == NULL is silent. Never pass a secret. */
void log_line(struct log *log, enum cpull_log_level level, const char *fmt, ...) PRINTF_LIKE(3, 4);

#define log_error(log, ...) log_line(log, CPULL_LOG_ERROR, __VA_ARGS__)
#define log_warn(log, ...) log_line(log, CPULL_LOG_WARN, __VA_ARGS__)
#define log_info(log, ...) log_line(log, CPULL_LOG_INFO, __VA_ARGS__)
#define log_debug(log, ...) log_line(log, CPULL_LOG_DEBUG, __VA_ARGS__)

#endif
