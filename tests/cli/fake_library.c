/* SPDX-License-Identifier: Apache-2.0
 *
 * The library, played, for the tests of the program: coco_pull.h with behaviour that the image's name chooses.
 *   ok                three layers over 300 ms: the second encrypted, the third in the store already
 *   quick             the same at once, without a word of progress
 *   erofs             the same with EROFS images, of which the second has a hash tree
 *   slow              three layers that take for ever; ends by cancel or deadline
 *   stuck             the same, deaf to cancel
 *   crawl             one layer that takes 6 seconds
 *   many              sixty layers, four at a time, over 600 ms
 *   log               like ok, and logs a line of each level
 *   fail/NAME         fails after one layer with the code of that name
 *   sys, http, hostile, cut   errors with errno, with a status, with control characters, ending within a character
 * FAKE_ECHO names a file that gets the options the library was given, as JSON. The pull runs on a thread of its own
 * with all signals blocked, as the library's do.
 */
#include "engine/coco_pull.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>

#include "engine/base/error.h"
#include "engine/base/util.h"

#define STEP_MS 20
#define LAYERS_MAX 60

struct cpull_engine {
	struct cpull_engine_options options;
};

struct fake_layer {
	char digest[72];
	enum cpull_layer_state state;
	uint64_t fetched_bytes;
};

struct cpull_pull {
	struct cpull_engine *engine;
	char *image;
	cpull_progress_fn progress;
	void *progress_payload;
	uint32_t timeout_ms;
	pthread_t thread;

	pthread_mutex_t lock;
	pthread_cond_t ended_cond;
	bool ended;
	bool cancelled;
	struct cpull_error err;

	struct fake_layer layers[LAYERS_MAX];
	unsigned layer_count;
	struct cpull_layer result_layers[LAYERS_MAX];
	struct cpull_result result;
};

#define BLOB_BYTES 10000000ull

#define ROOT_HASH "00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff"

static const struct cpull_erofs_layer erofs_layers[] = {
	{.file_bytes = 40960, .data_blocks = 10},
	{.file_bytes = 49152, .data_blocks = 10, .root_hash = ROOT_HASH},
	{.file_bytes = 4096, .data_blocks = 1},
};

const char *cpull_version(void)
{
	return "9.8.7";
}

static void echo(const char *what, json_t *object)
{
	const char *path = getenv("FAKE_ECHO");
	FILE *file = path ? fopen(path, "a") : NULL;

	if (file) {
		struct rlimit core;
		getrlimit(RLIMIT_CORE, &core);
		json_object_set_new(object, "what", json_string(what));
		json_object_set_new(object, "dumpable", json_integer(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)));
		json_object_set_new(object, "core_limit", json_integer((json_int_t)core.rlim_max));
		json_dumpf(object, file, JSON_COMPACT);
		fputc('\n', file);
		fclose(file);
	}
	json_decref(object);
}

static json_t *text_or_null(const char *text)
{
	return text ? json_string(text) : json_null();
}

int cpull_engine_new(const struct cpull_engine_options *options, struct cpull_engine **out, struct cpull_error *err)
{
	json_t *object = json_object();

	json_object_set_new(object, "size_is_right", json_boolean(options->size == sizeof(*options)));
	json_object_set_new(object, "store", text_or_null(options->store));
	json_object_set_new(object, "memory_bytes", json_integer((json_int_t)options->memory_bytes));
	json_object_set_new(object, "jobs", json_integer(options->jobs));
	json_object_set_new(object, "io", json_integer(options->io));
	json_object_set_new(object, "durable", json_boolean(options->durable));
	json_object_set_new(object, "log_level", json_integer(options->log_level));
	echo("engine", object);
	if (options->store && !strcmp(options->store, "/refused"))
		return error_sys(err, CPULL_ERR_STORAGE, EACCES, "opening the store '/refused'");
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return error_nomem(err);
	(*out)->options = *options;
	return CPULL_OK;
}

void cpull_engine_free(struct cpull_engine *engine)
{
	free(engine);
}

static void sleep_ms(unsigned ms)
{
	struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};

	nanosleep(&time, NULL);
}

static bool is_image(const struct cpull_pull *pull, const char *name)
{
	return !strcmp(pull->image, name);
}

static void report(struct cpull_pull *pull, unsigned index)
{
	const struct fake_layer *layer = &pull->layers[index];
	struct cpull_progress progress = {
		.layer = index,
		.layer_count = pull->layer_count,
		.digest = layer->digest,
		.state = layer->state,
		.fetched_bytes = layer->fetched_bytes,
		.total_bytes = BLOB_BYTES,
		.unpacked_bytes = layer->fetched_bytes * 3,
		.encrypted = index == 1,
	};

	if (pull->progress)
		pull->progress(&progress, pull->progress_payload);
}

static void set_state(struct cpull_pull *pull, unsigned index, enum cpull_layer_state state)
{
	pull->layers[index].state = state;
	report(pull, index);
}

/* Moves a layer on over `ms`; an error when the pull is to end. ms 0: for ever. */
static int move(struct cpull_pull *pull, unsigned first, unsigned count, unsigned ms)
{
	for (unsigned at = 0; !ms || at < ms; at += STEP_MS) {
		sleep_ms(STEP_MS);
		pthread_mutex_lock(&pull->lock);
		bool cancelled = pull->cancelled && !is_image(pull, "stuck");
		pthread_mutex_unlock(&pull->lock);
		if (cancelled)
			return error_set(&pull->err, CPULL_ERR_CANCELLED, "pulling '%s' was cancelled", pull->image);
		if (pull->timeout_ms && pull->timeout_ms <= at)
			return error_set(&pull->err, CPULL_ERR_DEADLINE, "pulling '%s' took longer than %u ms",
					 pull->image, pull->timeout_ms);
		for (unsigned i = first; i < first + count && i < pull->layer_count; i++) {
			uint64_t bytes = ms ? BLOB_BYTES * (at + STEP_MS) / ms : at * 1000ull;

			pull->layers[i].fetched_bytes = bytes < BLOB_BYTES ? bytes : BLOB_BYTES;
			report(pull, i);
		}
	}
	return CPULL_OK;
}

static int run_layers(struct cpull_pull *pull, unsigned at_once, unsigned ms)
{
	for (unsigned i = 0; i < pull->layer_count; i += at_once) {
		unsigned end = i + at_once < pull->layer_count ? i + at_once : pull->layer_count;

		for (unsigned k = i; k < end; k++)
			set_state(pull, k, CPULL_LAYER_PULLING);
		int code = move(pull, i, at_once, ms);
		if (code)
			return code;
		for (unsigned k = i; k < end; k++)
			set_state(pull, k, CPULL_LAYER_VERIFIED);
	}
	return CPULL_OK;
}

static int run_ok(struct cpull_pull *pull)
{
	set_state(pull, 2, CPULL_LAYER_REUSED);
	for (unsigned i = 0; i < 2; i++) {
		set_state(pull, i, CPULL_LAYER_PULLING);
		int code = move(pull, i, 1, 150);
		if (code)
			return code;
		set_state(pull, i, CPULL_LAYER_VERIFIED);
	}
	return CPULL_OK;
}

static int run_fail(struct cpull_pull *pull)
{
	const char *name = pull->image + strlen("fail/");

	set_state(pull, 0, CPULL_LAYER_PULLING);
	move(pull, 0, 1, 40);
	set_state(pull, 0, CPULL_LAYER_FAILED);
	for (int code = -1; code > -100; code--)
		if (!strcmp(cpull_code_name(code), name))
			return error_set(&pull->err, code, "pulling '%s': %s", pull->image, name);
	return error_set(&pull->err, CPULL_ERR_USAGE, "no code is called '%s'", name);
}

static void log_all(struct cpull_pull *pull)
{
	const struct cpull_engine_options *options = &pull->engine->options;
	static const char *const lines[] = {"an error line", "a warning", "some information", "a detail \033[31m"};

	for (int level = CPULL_LOG_ERROR; level <= (int)options->log_level; level++)
		options->log((enum cpull_log_level)level, lines[level], options->log_payload);
}

static int script(struct cpull_pull *pull)
{
	if (is_image(pull, "sys"))
		return error_sys(&pull->err, CPULL_ERR_STORAGE, ENOSPC, "writing layer 2");
	if (is_image(pull, "hostile"))
		return error_set(&pull->err, CPULL_ERR_ESCAPE,
				 "entry 'a\033[2J\n\xc2\x9b\xe2\x80\xae\xff' leaves its layer");
	if (is_image(pull, "cut"))
		return error_set(&pull->err, CPULL_ERR_TAR, "entry 'caf\xc3");
	if (is_image(pull, "http")) {
		error_set(&pull->err, CPULL_ERR_REGISTRY, "the registry answered 503");
		pull->err.http_status = 503;
		return CPULL_ERR_REGISTRY;
	}
	if (is_image(pull, "quick") || is_image(pull, "erofs"))
		return CPULL_OK;
	for (unsigned i = 0; i < pull->layer_count; i++)
		report(pull, i);
	if (!strncmp(pull->image, "fail/", 5))
		return run_fail(pull);
	if (is_image(pull, "slow") || is_image(pull, "stuck"))
		return run_layers(pull, 3, 0);
	if (is_image(pull, "crawl"))
		return run_layers(pull, 1, 6000);
	if (is_image(pull, "many"))
		return run_layers(pull, 4, 40);
	if (is_image(pull, "log"))
		log_all(pull);
	return run_ok(pull);
}

static void *run(void *payload)
{
	struct cpull_pull *pull = payload;
	int code = script(pull);

	pthread_mutex_lock(&pull->lock);
	pull->err.code = code;
	pull->ended = true;
	pthread_cond_broadcast(&pull->ended_cond);
	pthread_mutex_unlock(&pull->lock);
	return NULL;
}

static void plan(struct cpull_pull *pull)
{
	pull->layer_count = is_image(pull, "many") ? LAYERS_MAX : is_image(pull, "crawl") ? 1 : 3;
	for (unsigned i = 0; i < pull->layer_count; i++) {
		snprintf(pull->layers[i].digest, sizeof(pull->layers[i].digest), "sha256:%02x%062x", i + 0xa0, i);
		pull->result_layers[i] = (struct cpull_layer){
			.digest = pull->layers[i].digest,
			.diff_id = "sha256:d1ff00000000000000000000000000000000000000000000000000000000d1ff",
			.media_type = i == 1 ? "application/vnd.oci.image.layer.v1.tar+gzip+encrypted" :
					       "application/vnd.oci.image.layer.v1.tar+gzip",
			.size = BLOB_BYTES,
			.encrypted = i == 1,
			.reused = i == 2,
			.path = i ? "/store/layers/x/fs" : "/store/\xff/fs",
		};
	}
	pull->result = (struct cpull_result){
		.reference = "example.org/image:latest",
		.manifest_digest = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
		.config_digest = "sha256:c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0",
		.platform = "linux/amd64",
		.layers = pull->result_layers,
		.layer_count = pull->layer_count,
		.stats = {.bytes_fetched = 20000000, .bytes_unpacked = 60000000, .entries = 1234, .wall_ms = 300,
			  .peak_rss_bytes = UINT64_MAX, .open = {60000000, 111, 222, 333},
			  .write = {60000000, 444, 555, 666}, .io = "uring",
			  .fetch = {20000000, 777, 888, 999}, .connections = 4,
			  .files = {30000000, 123, 456, 0}},
	};
	if (is_image(pull, "erofs")) {
		pull->result.snapshot = CPULL_SNAPSHOT_EROFS;
		pull->result.erofs_layers = erofs_layers;
	}
}

static void echo_pull(const struct cpull_pull_options *options)
{
	json_t *object = json_object(), *keys = json_array();

	for (size_t i = 0; i < options->decryption_key_count; i++)
		json_array_append_new(keys, json_string(options->decryption_keys[i]));
	json_object_set_new(object, "size_is_right", json_boolean(options->size == sizeof(*options)));
	json_object_set_new(object, "image", text_or_null(options->image));
	json_object_set_new(object, "platform", text_or_null(options->platform));
	json_object_set_new(object, "decryption_keys", keys);
	json_object_set_new(object, "require_encrypted", json_boolean(options->require_encrypted));
	json_object_set_new(object, "plain_http", json_boolean(options->plain_http));
	json_object_set_new(object, "tls_no_verify", json_boolean(options->tls_no_verify));
	json_object_set_new(object, "creds", text_or_null(options->creds));
	json_object_set_new(object, "authfile", text_or_null(options->authfile));
	json_object_set_new(object, "cert_dir", text_or_null(options->cert_dir));
	json_object_set_new(object, "timeout_ms", json_integer(options->timeout_ms));
	json_object_set_new(object, "connections", json_integer(options->connections));
	json_object_set_new(object, "snapshot", json_integer(options->snapshot));
	json_object_set_new(object, "verity", json_boolean(options->verity));
	echo("pull", object);
}

int cpull_pull_start(struct cpull_engine *engine, const struct cpull_pull_options *options, struct cpull_pull **out,
		     struct cpull_error *err)
{
	struct cpull_pull *pull = calloc(1, sizeof(*pull));

	echo_pull(options);
	if (!pull)
		return error_nomem(err);
	pull->engine = engine;
	pull->image = strdup(options->image);
	pull->progress = options->progress;
	pull->progress_payload = options->progress_payload;
	pull->timeout_ms = options->timeout_ms;
	pthread_mutex_init(&pull->lock, NULL);
	pthread_cond_init(&pull->ended_cond, NULL);
	plan(pull);

	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int num = pthread_create(&pull->thread, NULL, run, pull);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (num) {
		free(pull->image);
		free(pull);
		return error_sys(err, CPULL_ERR_INTERNAL, num, "starting a thread");
	}
	*out = pull;
	return CPULL_OK;
}

int cpull_pull_wait(struct cpull_pull *pull, int timeout_ms, struct cpull_error *err)
{
	struct timespec until;
	int num = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += (timeout_ms % 1000) * 1000000l;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&pull->lock);
	while (!pull->ended && !num)
		num = timeout_ms < 0 ? pthread_cond_wait(&pull->ended_cond, &pull->lock) :
				       pthread_cond_timedwait(&pull->ended_cond, &pull->lock, &until);
	int code = pull->ended ? pull->err.code : 1;
	if (code < 0 && err)
		*err = pull->err;
	pthread_mutex_unlock(&pull->lock);
	return code;
}

void cpull_pull_cancel(struct cpull_pull *pull)
{
	pthread_mutex_lock(&pull->lock);
	pull->cancelled = true;
	pthread_mutex_unlock(&pull->lock);
}

const struct cpull_result *cpull_pull_result(const struct cpull_pull *pull)
{
	return pull->ended && !pull->err.code ? &pull->result : NULL;
}

void cpull_pull_free(struct cpull_pull *pull)
{
	if (!pull)
		return;
	cpull_pull_cancel(pull);
	pthread_join(pull->thread, NULL);
	pthread_mutex_destroy(&pull->lock);
	pthread_cond_destroy(&pull->ended_cond);
	free(pull->image);
	free(pull);
}

/* ---- store: two images, always ---- */

static const struct cpull_layer stored_layers[] = {
	{.digest = "sha256:a000000000000000000000000000000000000000000000000000000000000000",
	 .diff_id = "sha256:d1ff00000000000000000000000000000000000000000000000000000000d1ff",
	 .media_type = "application/vnd.oci.image.layer.v1.tar+zstd", .size = 1536, .path = "/store/layers/a/fs"},
	{.digest = "sha256:b000000000000000000000000000000000000000000000000000000000000000",
	 .diff_id = "sha256:d2ff00000000000000000000000000000000000000000000000000000000d2ff",
	 .media_type = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", .size = 2048, .encrypted = true,
	 .path = "/store/layers/b/fs"},
};

static const char stored_config[] =
	"{\"created\":\"2026-01-02T03:04:05Z\",\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{"
	"\"User\":\"1000\",\"Env\":[\"PATH=/bin\",\"A=b\"],\"Entrypoint\":[\"/bin/sh\",\"-c\"],\"Cmd\":null,"
	"\"Labels\":{\"evil\":\"\\u001b[2Jname\",\"ok\":\"caf\\u00e9\"}},\"rootfs\":{\"type\":\"layers\"}}";

struct cpull_images {
	struct cpull_image images[2];
};

int cpull_images_load(struct cpull_engine *engine, struct cpull_images **out, struct cpull_error *err)
{
	(void)engine;
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return error_nomem(err);
	(*out)->images[0] = (struct cpull_image){
		.reference = "registry.example.org/debian:12",
		.manifest_digest = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
		.config_digest = "sha256:c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0",
		.platform = "linux/amd64",
		.layers = stored_layers,
		.layer_count = 2,
		.pulled_at = 1764034860,
		.durable = true,
		.manifest = "{\"schemaVersion\":2,\"layers\":[]}",
		.config = stored_config,
	};
	(*out)->images[1] = (*out)->images[0];
	(*out)->images[1].reference = "example.org/a/much/longer/name:tag";
	(*out)->images[1].platform = "linux/arm64/v8";
	(*out)->images[1].layer_count = 1;
	(*out)->images[1].pulled_at = time(NULL) - 7200;
	(*out)->images[1].durable = false;
	(*out)->images[1].snapshot = CPULL_SNAPSHOT_EROFS;
	(*out)->images[1].erofs_layers = &erofs_layers[1];
	return CPULL_OK;
}

size_t cpull_images_count(const struct cpull_images *images)
{
	(void)images;
	return getenv("FAKE_EMPTY") ? 0 : 2;
}

const struct cpull_image *cpull_images_get(const struct cpull_images *images, size_t index)
{
	return &images->images[index];
}

const struct cpull_image *cpull_images_find(const struct cpull_images *images, const char *name,
					    struct cpull_error *err)
{
	for (size_t i = 0; i < 2; i++)
		if (!strcmp(images->images[i].reference, name))
			return &images->images[i];
	error_set(err, CPULL_ERR_NOT_FOUND, "the store has no image '%s'", name);
	return NULL;
}

void cpull_images_free(struct cpull_images *images)
{
	free(images);
}

int cpull_image_remove(struct cpull_engine *engine, const char *name, struct cpull_removed *out,
		       struct cpull_error *err)
{
	(void)engine;
	if (!strcmp(name, "mounted"))
		return error_set(err, CPULL_ERR_USAGE, "image 'mounted' is mounted; unmount it first");
	*out = (struct cpull_removed){1, 2};
	return CPULL_OK;
}

int cpull_prune(struct cpull_engine *engine, struct cpull_removed *out, struct cpull_error *err)
{
	(void)engine;
	(void)err;
	*out = (struct cpull_removed){0, 1};
	return CPULL_OK;
}

/* ---- fsck: an image name says what is found ---- */

static const char *const fsck_images[] = {"registry.example.org/debian:12", "example.org/\033evil:1"};

static const struct cpull_fsck_layer fsck_layers[] = {
	{.name = "sha256-aa", .diff_id = "sha256:aa", .images = fsck_images, .image_count = 1,
	 .check = CPULL_CHECK_SUMS, .checked_bytes = 1536, .problems = 130},
	{.name = "sha256-bb.verity.erofs", .images = fsck_images, .image_count = 2,
	 .snapshot = CPULL_SNAPSHOT_EROFS, .check = CPULL_CHECK_VERITY, .checked_bytes = 4096},
};

static const struct cpull_problem fsck_problems[] = {
	{.path = "images/x.json", .what = "the record is no JSON", .advice = "pull it again"},
	{.images = fsck_images, .image_count = 2, .layer = "sha256-aa", .what = "its content is missing",
	 .advice = "do something"},
	{.images = fsck_images, .image_count = 2, .layer = "sha256-aa", .path = "", .what = "another time",
	 .advice = "do something"},
	{.images = fsck_images, .image_count = 2, .layer = "sha256-aa", .path = "etc/\xff\033[2J", .what = "other data",
	 .advice = "do something"},
};

static int play_fsck(const struct cpull_fsck_options *options, struct cpull_error *err)
{
	struct cpull_fsck_progress p = {
		.layer = 1, .layer_count = 2, .name = "sha256-bb.verity.erofs", .total_bytes = 4096};
	bool slow = options->image_count && !strcmp(options->images[0], "slow");
	int rc = 0;

	for (int i = 0; !rc && i < (slow ? 1000 : 3); i++) {
		p.state = i && !slow ? CPULL_FSCK_SOUND : CPULL_FSCK_CHECKING;
		p.checked_bytes = i ? 4096 : 0;
		rc = options->progress(i == 2 ? NULL : &p, options->progress_payload);
		if (slow)
			usleep(10000);
	}
	return rc ? error_set(err, CPULL_ERR_CANCELLED, "the check was cancelled") : 0;
}

int cpull_fsck(struct cpull_engine *engine, const struct cpull_fsck_options *options,
	       const struct cpull_fsck_report **out, struct cpull_error *err)
{
	static struct cpull_fsck_report report;
	bool bad = options->image_count && !strcmp(options->images[0], "bad");

	(void)engine;
	*out = NULL;
	if (options->image_count && !strcmp(options->images[0], "none"))
		return error_set(err, CPULL_ERR_NOT_FOUND, "image none is not in the store; pull it first");

	int rc = play_fsck(options, err);

	if (rc)
		return rc;
	report = (struct cpull_fsck_report){.image_count = 2, .layers = fsck_layers, .layer_count = 2,
					    .checked_bytes = 5632, .wall_ms = 7, .unchecked_layers = 1};
	if (bad) {
		report.problems = fsck_problems;
		report.problem_count = 4;
		report.problem_total = 131;
	}
	*out = &report;
	return bad ? error_set(err, CPULL_ERR_DIGEST, "checking the store: 131 problems") : 0;
}

void cpull_fsck_free(const struct cpull_fsck_report *report)
{
	(void)report;
}

int cpull_mount(struct cpull_engine *engine, const char *name, const char *dir,
		const struct cpull_mount_options *options, struct cpull_error *err)
{
	struct stat st;
	json_t *object = json_object();

	(void)engine;
	json_object_set_new(object, "size_is_right", json_boolean(options->size == sizeof(*options)));
	json_object_set_new(object, "image", json_string(name));
	json_object_set_new(object, "read_write", json_boolean(options->read_write));
	echo("mount", object);
	if (stat(dir, &st))
		return error_sys(err, errno == ENOENT ? CPULL_ERR_NOT_FOUND : CPULL_ERR_STORAGE, errno,
				 "mounting on '%s'", dir);
	return CPULL_OK;
}

int cpull_unmount(struct cpull_engine *engine, const char *dir, struct cpull_error *err)
{
	(void)engine;
	if (!strcmp(dir, "/nothing"))
		return error_set(err, CPULL_ERR_NOT_FOUND, "nothing is mounted on '%s'", dir);
	return CPULL_OK;
}
