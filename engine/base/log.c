/* SPDX-License-Identifier: Apache-2.0
 *
 * Log lines to the embedder's function. Called from every thread of the engine; the lock makes it one line at a
 * time.
 */
#include "engine/base/log.h"

#include <stdarg.h>

#define LOG_LINE_BYTES 2048

void log_init(struct log *log, cpull_log_fn fn, void *payload, enum cpull_log_level level)
{
	log->fn = fn;
	log->payload = payload;
	log->level = level;
	pthread_mutex_init(&log->lock, NULL);
}

void log_destroy(struct log *log)
{
	pthread_mutex_destroy(&log->lock);
}

void log_line(struct log *log, enum cpull_log_level level, const char *fmt, ...)
{
	if (!log || !log->fn || level > log->level)
		return;

	char line[LOG_LINE_BYTES];
	va_list args;

	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);

	pthread_mutex_lock(&log->lock);
	log->fn(level, line, log->payload);
	pthread_mutex_unlock(&log->lock);
}
