/* SPDX-License-Identifier: Apache-2.0
 *
 * One layer's chain. The open thread owns the blob, the cipher and the decompressor; the write thread owns the digests
 * and the layer writer; chunks go from one to the other through a queue, those of the tar and, for what vouches for
 * them, those of the blob as they were fetched.
 *
 * The first stage that fails closes the queue and cancels the shares, so its neighbour ends too; the first error is the
 * one that is reported, with one exception: when the content turns out bad (no gzip, no tar), both stages go on with
 * the rest of the blob for its digest alone, since a blob that was tampered with must be called that and not a broken
 * image.
 */
#include "engine/layer.h"

#include <stdatomic.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/base/queue.h"
#include "engine/base/thread.h"
#include "engine/decompress.h"
#include "engine/layer_digests.h"

/* What a stage returns when its pool or queue was cancelled by the other one, which has noted the reason. */
#define STOPPED 1

/* What a chunk in the queue is; of a layer that is neither encrypted nor packed it is both. */
#define KIND_TAR 1u
#define KIND_BLOB 2u

/* An encrypted blob is decrypted and decompressed by pieces that stay in the core's cache. */
#define SLICE_BYTES ((size_t)64 << 10)

struct layer_job {
	struct layer_job_options o;
	struct pool_share *in;  /* fetch → open */
	struct pool_share *out; /* open → write */
	struct queue queue;
	struct blob *blob;
	struct layer_cipher *cipher; /* NULL for a plain layer */
	uint8_t *slice;              /* with the cipher: what was decrypted last */
	struct decompress *decompress;
	struct layer_digests *digests;
	struct layer_output *output;
	size_t aside; /* of the windows' memory, for the output */
	pthread_t opener, sink;
	bool opener_started, sink_started;

	uint64_t fetched; /* once the blob is closed */
	atomic_uint_fast64_t unpacked;
	uint64_t unpack_limit;
	struct layer_writer_stats written;
	struct cpull_stage_stats open_stats, write_stats; /* each by its own thread until joined */
	struct cpull_stage_stats fetch_stats; /* once the blob is closed */
	unsigned connections;

	pthread_mutex_t lock;
	struct cpull_error err; /* the first */
	atomic_bool judging;    /* the content is bad, the blob is still hashed */
	atomic_int left;        /* threads still running */
};

/* Failures of the content, which are only as good as the blob it came from. */
static bool is_content_failure(int code)
{
	return code == CPULL_ERR_DECOMPRESS || code == CPULL_ERR_TAR || code == CPULL_ERR_MEDIA_TYPE ||
	       code == CPULL_ERR_WHITEOUT || code == CPULL_ERR_ESCAPE || code == CPULL_ERR_LIMIT ||
	       code == CPULL_ERR_XATTR || code == CPULL_ERR_UNSUPPORTED;
}

/* What vouches for the blob has spoken against it. */
static bool is_blob_verdict(int code)
{
	return code == CPULL_ERR_DIGEST || code == CPULL_ERR_SIZE || code == CPULL_ERR_DECRYPT;
}

/* Against a failure of the content: the blob is another one, or nobody can tell, as the rest of it cannot be had. */
static bool outweighs_content(int code)
{
	switch (cpull_code_class(code)) {
	case CPULL_CLASS_NETWORK:
	case CPULL_CLASS_AUTH:
	case CPULL_CLASS_NOT_FOUND:
		return true;
	default:
		return is_blob_verdict(code);
	}
}

/* First error wins, but over what the content led to wins what is known of the blob; everything that could wait is
 * woken. */
static void job_fail(struct layer_job *job, const struct cpull_error *err)
{
	pthread_mutex_lock(&job->lock);
	if (!job->err.code || (is_content_failure(job->err.code) && outweighs_content(err->code)))
		job->err = *err;
	pthread_mutex_unlock(&job->lock);
	if (is_content_failure(err->code)) {
		atomic_store(&job->judging, true);
	} else {
		queue_close(&job->queue, err->code);
		pool_share_cancel(job->in);
	}
	pool_share_cancel(job->out);
	decompress_cancel(job->decompress);
	job->o.changed(job->o.changed_payload);
}

static int job_code(struct layer_job *job)
{
	pthread_mutex_lock(&job->lock);
	int code = job->err.code;

	pthread_mutex_unlock(&job->lock);
	return code;
}

void layer_job_cancel(struct layer_job *job, int code)
{
	struct cpull_error err = {0};

	error_set(&err, code, "stopped");
	job_fail(job, &err);
}

enum layer_job_state layer_job_state(struct layer_job *job)
{
	int code = job_code(job);

	if (atomic_load(&job->left) == 0)
		return JOB_ENDED;
	if (!code)
		return JOB_RUNNING;
	return is_content_failure(code) ? JOB_JUDGING : JOB_FAILED;
}

static void thread_ends(struct layer_job *job)
{
	if (atomic_fetch_sub(&job->left, 1) == 1)
		job->o.changed(job->o.changed_payload);
}

/* ---- open ---- */

static void hand_over(struct layer_job *job, struct chunk *chunk, unsigned kind)
{
	chunk->kind = kind;
	queue_push(&job->queue, chunk);
}

static void hand_over_tar(struct layer_job *job, struct chunk *chunk)
{
	job->open_stats.bytes += chunk->len;
	hand_over(job, chunk, KIND_TAR);
}

static int check_unpacked(const struct layer_job *job, struct cpull_error *err)
{
	if (job->open_stats.bytes <= job->unpack_limit)
		return 0;
	return error_set(err, CPULL_ERR_LIMIT,
			 "it unpacks to more than %llu bytes from a blob of %llu: a decompression bomb",
			 (unsigned long long)job->unpack_limit, (unsigned long long)job->o.descriptor->size);
}

/* *filling is the output chunk that is not full yet, or NULL. */
static int decompress_bytes(struct layer_job *job, const uint8_t *in, size_t len, struct chunk **filling,
			    struct cpull_error *err)
{
	size_t room = job->o.engine->plan.chunk_bytes;
	struct decompress_io io = {.in = in, .in_len = len};
	bool full;

	do {
		if (!*filling && !(*filling = pool_get(job->out, &job->open_stats.wait_output_ns)))
			return STOPPED;
		io.out = (*filling)->data;
		io.out_len = room;
		io.out_pos = (*filling)->len;

		int rc = decompress_run(job->decompress, &io, err);

		if (rc)
			return rc == CPULL_ERR_CANCELLED ? STOPPED : rc;
		(*filling)->len = (uint32_t)io.out_pos;
		full = io.out_pos == room;
		if (full) {
			hand_over_tar(job, STEAL(*filling));
			rc = check_unpacked(job, err);
			if (rc)
				return rc;
		}
		/* a full output may hide more that the decompressor holds back */
	} while (full || io.in_pos < io.in_len);
	return 0;
}

/* The chunk itself stays as it is, to be hashed. */
static int decrypt_bytes(struct layer_job *job, const uint8_t *in, size_t len, struct chunk **filling,
			 struct cpull_error *err)
{
	int rc = 0;

	for (size_t at = 0; at < len && !rc; at += SLICE_BYTES) {
		size_t n = MIN(len - at, SLICE_BYTES);

		rc = layer_cipher_run(job->cipher, in + at, n, job->slice, err);
		if (!rc)
			rc = decompress_bytes(job, job->slice, n, filling, err);
	}
	return rc;
}

/* Takes over the chunk. */
static int open_chunk(struct layer_job *job, struct chunk *in, struct chunk **filling, struct cpull_error *err)
{
	unsigned kind = KIND_BLOB;
	int rc = 0;

	if (atomic_load(&job->judging)) {
		/* for the digest alone */
	} else if (job->cipher) {
		rc = decrypt_bytes(job, in->data, in->len, filling, err);
	} else if (decompress_kind(job->decompress) == DECOMPRESS_NONE) {
		/* plain tar: the chunk itself goes on, no copy */
		if (*filling)
			hand_over_tar(job, STEAL(*filling));
		job->open_stats.bytes += in->len;
		kind |= KIND_TAR;
		rc = check_unpacked(job, err);
	} else {
		rc = decompress_bytes(job, in->data, in->len, filling, err);
	}
	hand_over(job, in, kind);
	return rc;
}

/* Notes a failure of the content, and has the rest of the blob judged: from then on nothing else that goes wrong with
 * the content or its files matters. Otherwise what is no failure of the content ends the stage. */
static int judge_content(struct layer_job *job, int rc, struct cpull_error *err)
{
	if (is_content_failure(rc))
		job_fail(job, err);
	else if (!atomic_load(&job->judging))
		return rc;
	*err = (struct cpull_error){0};
	return 0;
}

static int open_blob(struct layer_job *job, struct chunk **filling, struct cpull_error *err)
{
	struct chunk *in;
	int rc;

	while (!(rc = blob_read(job->blob, &in, &job->open_stats.wait_input_ns, err)) && in) {
		rc = judge_content(job, open_chunk(job, in, filling, err), err);
		if (rc)
			return rc;
	}
	return rc;
}

static int finish_blob(struct layer_job *job, struct chunk **filling, struct cpull_error *err)
{
	int rc;

	if (atomic_load(&job->judging))
		return 0;
	rc = decompress_finish(job->decompress, err);
	if (!rc && *filling)
		hand_over_tar(job, STEAL(*filling));
	return rc ? rc : check_unpacked(job, err);
}

static void *opener_main(void *payload)
{
	struct layer_job *job = payload;
	struct cpull_error err = {0};
	struct chunk *filling = NULL;
	uint64_t since = now_ns();
	int rc = open_blob(job, &filling, &err);

	if (!rc)
		rc = finish_blob(job, &filling, &err);
	if (rc < 0)
		job_fail(job, &err);
	queue_close(&job->queue, 0);
	chunk_put(filling);
	job->open_stats.wait_output_ns += decompress_waited_ns(job->decompress);
	job->open_stats.busy_ns = now_ns() - since - job->open_stats.wait_input_ns - job->open_stats.wait_output_ns;
	thread_ends(job);
	return NULL;
}

/* ---- write ---- */

static int write_tar(struct layer_job *job, struct chunk *chunk, struct cpull_error *err)
{
	int rc = layer_digests_tar(job->digests, chunk, err);

	if (!rc)
		rc = layer_writer_feed(layer_output_writer(job->output), chunk, err);
	job->write_stats.bytes += chunk->len;
	atomic_fetch_add_explicit(&job->unpacked, chunk->len, memory_order_relaxed);
	return rc;
}

/* Takes over the chunk. */
static int write_chunk(struct layer_job *job, struct chunk *chunk, struct cpull_error *err)
{
	int rc = 0;

	if (chunk->kind & KIND_BLOB) {
		chunk_ref(chunk);
		rc = layer_digests_blob(job->digests, chunk, err);
	}
	if (!rc && chunk->kind & KIND_TAR && !atomic_load(&job->judging))
		rc = judge_content(job, write_tar(job, chunk, err), err);
	chunk_put(chunk);
	return rc;
}

static int write_chunks(struct layer_job *job, struct cpull_error *err)
{
	struct chunk *chunk;
	int rc;

	while (!(rc = queue_pop(&job->queue, &chunk, &job->write_stats.wait_input_ns)) && chunk) {
		rc = write_chunk(job, chunk, err);
		if (rc)
			return rc;
	}
	return rc ? STOPPED : layer_digests_check_blob(job->digests, err);
}

/* What stands alone is sealed here, where other layers do not wait for it. */
static int finish_output(struct layer_job *job, struct cpull_error *err)
{
	struct layer_writer *writer = layer_output_writer(job->output);
	int rc = layer_writer_finish(writer, &job->written, err);

	return rc || layer_writer_has_loose_ends(writer) ? rc : layer_output_seal(job->output, err);
}

static void *sink_main(void *payload)
{
	struct layer_job *job = payload;
	struct cpull_error err = {0};
	uint64_t since = now_ns();
	int rc = write_chunks(job, &err);

	if (!rc && !atomic_load(&job->judging)) {
		rc = layer_digests_check_diff_id(job->digests, &err);
		if (!rc)
			rc = finish_output(job, &err);
	}
	if (rc < 0)
		job_fail(job, &err);
	job->write_stats.busy_ns = now_ns() - since - job->write_stats.wait_input_ns;
	thread_ends(job);
	return NULL;
}

/* ---- life ---- */

static int make_cipher(struct layer_job *job, struct cpull_error *err)
{
	if (!job->o.key)
		return 0;
	job->slice = malloc(SLICE_BYTES);
	return job->slice ? layer_cipher_new(job->o.key, &job->cipher, err) : error_nomem(err);
}

static int make_output(struct layer_job *job, struct cpull_error *err)
{
	const struct layer_output_options options = {.stage = job->o.stage,
						     .diff_id = job->o.diff_id_text,
						     .io = job->o.engine->io,
						     .log = &job->o.engine->log};

	job->aside = layer_output_memory(job->o.stage->form, job->o.engine->io);
	window_bank_set_aside(job->o.engine->windows, job->aside);
	return layer_output_new(&options, &job->output, err);
}

static int make_stages(struct layer_job *job, struct cpull_error *err)
{
	const struct memory_plan *plan = &job->o.engine->plan;
	struct pool *pool = job->o.engine->pool;
	int rc = pool_share_open(pool, SHARE_RESERVED, plan->share_max, &job->in);

	if (!rc)
		rc = pool_share_open(pool, SHARE_RESERVED, plan->share_max, &job->out);
	if (rc)
		return error_set(err, rc, "no memory in the pool for another layer");
	rc = make_cipher(job, err);
	if (!rc)
		rc = decompress_new(job->o.engine->windows, &job->decompress, err);
	if (!rc)
		rc = layer_digests_new(job->o.blob_digest, job->o.key, job->o.diff_id, &job->digests, err);
	if (!rc)
		rc = make_output(job, err);
	if (!rc)
		rc = source_open_blob(job->o.source, job->o.descriptor, job->in, &job->blob, err);
	return rc;
}

int layer_job_start(const struct layer_job_options *options, struct layer_job **out, struct cpull_error *err)
{
	struct layer_job *job = calloc(1, sizeof(*job));
	int rc;

	if (!job)
		return error_nomem(err);
	job->o = *options;
	queue_init(&job->queue);
	pthread_mutex_init(&job->lock, NULL);
	job->unpack_limit = MAX(options->descriptor->size * LIMIT_UNPACK_RATIO, LIMIT_UNPACK_FLOOR_BYTES);
	job->unpack_limit = MIN(job->unpack_limit, LIMIT_UNPACK_BYTES);
	rc = engine_get_memory(options->engine, err);
	if (!rc)
		rc = make_stages(job, err);
	if (rc) {
		layer_job_free(job);
		return rc;
	}
	*out = job;

	/* From here on the outcome comes by changed() and layer_job_finish(), also when a thread cannot be started. */
	atomic_store(&job->left, 3);
	struct cpull_error start_err = {0};

	job->opener_started = !thread_start(&job->opener, "cpull-open", opener_main, job, &start_err);
	if (job->opener_started)
		job->sink_started = !thread_start(&job->sink, "cpull-write", sink_main, job, &start_err);
	if (!job->opener_started || !job->sink_started)
		job_fail(job, &start_err);
	for (int i = job->opener_started + job->sink_started; i < 3; i++)
		thread_ends(job);
	return 0;
}

void layer_job_progress(struct layer_job *job, struct layer_progress *out)
{
	out->fetched_bytes = job->blob ? blob_received(job->blob) : job->fetched;
	out->unpacked_bytes = atomic_load_explicit(&job->unpacked, memory_order_relaxed);
}

/* Gives back all that only a running job needs, above all its shares of the pool: a layer may wait long, and with many
 * others, for those below it. */
static void release_stages(struct layer_job *job)
{
	if (job->blob) {
		job->fetched = blob_received(job->blob);
		blob_stats(job->blob, &job->fetch_stats, &job->connections);
	}
	blob_close(STEAL(job->blob));
	queue_drain(&job->queue);
	layer_digests_free(STEAL(job->digests));
	decompress_free(STEAL(job->decompress));
	layer_cipher_free(STEAL(job->cipher));
	free(STEAL(job->slice));
	pool_share_close(STEAL(job->in));
	pool_share_close(STEAL(job->out));
	if (job->aside)
		window_bank_set_aside_end(job->o.engine->windows, job->aside);
	job->aside = 0;
}

int layer_job_finish(struct layer_job *job, struct cpull_error *err)
{
	if (job->opener_started)
		pthread_join(job->opener, NULL);
	if (job->sink_started)
		pthread_join(job->sink, NULL);
	job->opener_started = job->sink_started = false;
	release_stages(job);
	if (job->err.code && err)
		*err = job->err;
	return job->err.code;
}

struct layer_output *layer_job_output(struct layer_job *job)
{
	return job->output;
}

static void add_stage(struct cpull_stage_stats *sum, const struct cpull_stage_stats *one)
{
	sum->bytes += one->bytes;
	sum->busy_ns += one->busy_ns;
	sum->wait_input_ns += one->wait_input_ns;
	sum->wait_output_ns += one->wait_output_ns;
}

/* What most can be said of all layers. */
static const char *better_io(const char *io, enum bulk_way way)
{
	if (io && (way == BULK_SYNC || strcmp(io, bulk_way_text(BULK_URING_DIRECT)) == 0))
		return io;
	return bulk_way_text(way);
}

void layer_job_add_stats(const struct layer_job *job, struct cpull_stats *stats)
{
	stats->bytes_fetched += job->fetched;
	stats->bytes_unpacked += job->write_stats.bytes;
	stats->entries += job->written.entries;
	stats->io = better_io(stats->io, job->written.bulk_way);
	stats->connections = MAX(stats->connections, job->connections);
	add_stage(&stats->fetch, &job->fetch_stats);
	add_stage(&stats->open, &job->open_stats);
	add_stage(&stats->write, &job->write_stats);
	add_stage(&stats->files, &(struct cpull_stage_stats){.bytes = job->written.helper.bytes,
							     .busy_ns = job->written.helper.busy_ns,
							     .wait_input_ns = job->written.helper.wait_ns});
}

uint64_t layer_job_entries(const struct layer_job *job)
{
	return job->written.entries;
}

void layer_job_free(struct layer_job *job)
{
	if (!job)
		return;
	layer_output_free(job->output); /* it may hold chunks of writes under way */
	release_stages(job);
	queue_destroy(&job->queue);
	pthread_mutex_destroy(&job->lock);
	free(job);
}
