/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes to standard output and how errors are said: results as text and JSON, readable sizes and times, and names
 * from outside made harmless for a terminal.
 */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <jansson.h>
#include <stdio.h>

#include "engine/coco_pull.h"

/* Fills *err and returns `code`. */
int output_error(struct cpull_error *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Prints text with control characters, invalid UTF-8 and direction overrides as \xNN. */
void output_clean(FILE *file, const char *text);
/* A JSON string of any text: what is not UTF-8 in it becomes U+FFFD. NULL becomes null. */
json_t *output_json_text(const char *text);
/* A JSON number; what a signed 64-bit one cannot hold becomes its largest. */
json_t *output_json_bytes(uint64_t bytes);
/* Prints one JSON value and a newline, indented or on one line, and frees it. NULL (out of memory) is an error. */
int output_json(json_t *value, bool indent, struct cpull_error *err);

/* "45.6 MiB", at most 10 characters. */
const char *output_size(uint64_t bytes, char out[16]);
/* "1.23 s". */
const char *output_seconds(uint64_t ns, char out[24]);
/* "2026-11-25T01:41:00Z". */
const char *output_time(int64_t seconds, char out[32]);
/* "2 hours ago". */
const char *output_age(int64_t then, int64_t now, char out[32]);
/* The first 12 hex digits of a digest. */
const char *output_short_digest(const char *digest, char out[13]);

/* The failure on both streams: one line on standard error, and with `json` one object on standard output. */
void output_failure(const struct cpull_error *err, bool json);
/* {"code": …, "class": …, "message": …} */
json_t *output_error_json(const struct cpull_error *err);
/* Flushes and closes standard output; CPULL_ERR_INTERNAL when not all of it could be written. */
int output_close(struct cpull_error *err);

json_t *output_layer_json(const struct cpull_layer *layer, const struct cpull_erofs_layer *erofs, bool with_reused);
/* erofs: one for each layer, or NULL. */
json_t *output_layers_json(const struct cpull_layer *layers, const struct cpull_erofs_layer *erofs, size_t count,
			   bool with_reused);
json_t *output_result_json(const struct cpull_result *result, bool with_stages);
/* Two tables of stages for people, on standard error. */
void output_stats_text(const struct cpull_stats *stats);
/* One line of what a pull did, without a newline. */
void output_summary(FILE *file, const struct cpull_result *result);

json_t *output_image_json(const struct cpull_image *image);
/* The same with manifest and config. */
json_t *output_image_details_json(const struct cpull_image *image);
void output_image_details_text(const struct cpull_image *image);
void output_images_text(const struct cpull_images *images);

#endif
