/* SPDX-License-Identifier: Apache-2.0
 *
 * One layer's chain, on two threads: open (decryption, decompression) and write (digests and HMAC, tar, files), with a
 * queue of chunks between them.
 */
#ifndef ENGINE_LAYER_H
#define ENGINE_LAYER_H

#include "crypto/layer_cipher.h"
#include "engine/engine.h"
#include "engine/layer_output.h"

struct layer_job;

struct layer_job_options {
	struct cpull_engine *engine;
	struct source *source;
	const struct descriptor *descriptor; /* borrowed for the job's life, like the rest */
	const struct digest *blob_digest;
	const struct digest *diff_id;
	const char *diff_id_text;
	const struct layer_key *key; /* NULL for a plain layer */
	struct stage *stage;
	/* Called on the job's threads when layer_job_state() has changed. */
	void (*changed)(void *payload);
	void *changed_payload;
};

enum layer_job_state {
	JOB_RUNNING,
	JOB_FAILED,  /* it will not succeed, and its threads wait for nothing but the source: cancel that */
	JOB_JUDGING, /* its content is bad; the rest of the blob is read to tell a tampered blob from a bad image */
	JOB_ENDED,   /* both threads are through */
};

/* What a job has done so far; readable from any thread. */
struct layer_progress {
	uint64_t fetched_bytes;
	uint64_t unpacked_bytes;
};

/* Starts both threads. */
MUST_CHECK int layer_job_start(const struct layer_job_options *options, struct layer_job **out,
			       struct cpull_error *err);
/* Makes both threads end soon with `code`, unless they have ended already. Any thread. */
void layer_job_cancel(struct layer_job *job, int code);
enum layer_job_state layer_job_state(struct layer_job *job);
void layer_job_progress(struct layer_job *job, struct layer_progress *out);
/* Joins the threads and returns the outcome: 0 when every byte was there, all digests and the HMAC are right, and
 * all of it is written: it is sealed, unless it has loose ends. */
int layer_job_finish(struct layer_job *job, struct cpull_error *err);
/* After layer_job_finish() returned 0: to tie loose ends, and seal. */
struct layer_output *layer_job_output(struct layer_job *job);
/* Adds the job's figures to the pull's. */
void layer_job_add_stats(const struct layer_job *job, struct cpull_stats *stats);
uint64_t layer_job_entries(const struct layer_job *job);
void layer_job_free(struct layer_job *job);

#endif
