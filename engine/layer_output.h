/* SPDX-License-Identifier: Apache-2.0
 *
 * What a layer's tar is written to: the directory or the image file of a stage, by the layer's writer.
 */
#ifndef ENGINE_LAYER_OUTPUT_H
#define ENGINE_LAYER_OUTPUT_H

#include "engine/store.h"
#include "snapshot/layer_writer.h"

struct layer_output;

struct layer_output_options {
	const struct stage *stage; /* borrowed for the output's life, like the rest */
	const char *diff_id;
	enum cpull_io io;
	struct log *log;
};

/* What an output takes until its layer is finished, beside names: what counts is what was not thought of when the
 * budget was split, which is none for a directory. */
size_t layer_output_memory(enum layer_form form, enum cpull_io io);

MUST_CHECK int layer_output_new(const struct layer_output_options *options, struct layer_output **out,
				struct cpull_error *err);
/* To feed, finish and tie. */
struct layer_writer *layer_output_writer(struct layer_output *output);
/* lowers: of the same form, topmost first. */
MUST_CHECK int layer_output_tie(struct layer_output *output, const struct layer_ref *const *lowers, size_t count,
				struct cpull_error *err);
/* The layer is complete and tied: writes the rest of it, hash tree included. */
MUST_CHECK int layer_output_seal(struct layer_output *output, struct cpull_error *err);
/* After that. */
const struct layer_image *layer_output_image(const struct layer_output *output);
const struct contents_facts *layer_output_contents(const struct layer_output *output);
void layer_output_free(struct layer_output *output);

#endif
