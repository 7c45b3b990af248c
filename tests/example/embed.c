/* SPDX-License-Identifier: Apache-2.0
 *
 * A small embedder of libcocopull, to copy from: pulls one image with progress, a deadline and a way to cancel, and
 * prints the directories for an overlay's lowerdir, topmost first, one a line.
 *
 *     embed STORE IMAGE [TIMEOUT_MS]
 *
 * SIGINT is blocked in all threads and taken by one that waits for it; it cancels the pull from there. A program with
 * an event loop would do the same from wherever it learns that the caller has lost interest.
 */
#include <coco_pull.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct watcher {
	pthread_t thread;
	struct cpull_pull *pull;
	atomic_bool done;
};

/* Runs on a thread of the library: be quick, and call nothing back but cpull_pull_cancel(). */
static void on_progress(const struct cpull_progress *progress, void *payload)
{
	static const char *const states[] = {"waiting", "pulling", "verified", "reused", "failed"};

	(void)payload;
	fprintf(stderr, "layer %u/%u %s: %" PRIu64 " of %" PRIu64 " bytes\n", progress->layer + 1,
		progress->layer_count, states[progress->state], progress->fetched_bytes, progress->total_bytes);
}

static void *watch(void *payload)
{
	struct watcher *watcher = payload;
	const struct timespec step = {.tv_nsec = 100000000};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	while (!atomic_load(&watcher->done))
		if (sigtimedwait(&set, NULL, &step) == SIGINT)
			cpull_pull_cancel(watcher->pull);
	return NULL;
}

static void print_lowerdirs(const struct cpull_result *result)
{
	for (size_t i = result->layer_count; i-- > 0;)
		puts(result->layers[i].path);
}

static int pull(struct cpull_engine *engine, const char *image, uint32_t timeout_ms, struct cpull_error *err)
{
	const struct cpull_pull_options options = {
		.size = sizeof(options),
		.image = image,
		.timeout_ms = timeout_ms,
		.progress = on_progress,
	};
	struct watcher watcher = {0};

	int code = cpull_pull_start(engine, &options, &watcher.pull, err);
	if (code)
		return code;
	if (pthread_create(&watcher.thread, NULL, watch, &watcher)) {
		cpull_pull_free(watcher.pull);
		err->code = CPULL_ERR_INTERNAL;
		snprintf(err->message, sizeof(err->message), "no thread could be started");
		return err->code;
	}
	code = cpull_pull_wait(watcher.pull, -1, err);
	if (!code)
		print_lowerdirs(cpull_pull_result(watcher.pull));

	/* The watcher must be gone before the pull that it cancels. */
	atomic_store(&watcher.done, true);
	pthread_join(watcher.thread, NULL);
	cpull_pull_free(watcher.pull);
	return code;
}

int main(int argc, char **argv)
{
	struct cpull_engine_options options = {.size = sizeof(options)};
	struct cpull_engine *engine = NULL;
	struct cpull_error err = {0};
	sigset_t set;

	if (argc < 3 || argc > 4) {
		fprintf(stderr, "usage: embed STORE IMAGE [TIMEOUT_MS]\n");
		return CPULL_CLASS_USAGE;
	}
	/* Before any thread starts, so that all of them inherit it. */
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);

	options.store = argv[1];
	int code = cpull_engine_new(&options, &engine, &err);
	if (!code)
		code = pull(engine, argv[2], argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0, &err);
	if (code)
		fprintf(stderr, "embed: %s: %s\n", cpull_code_name(code), err.message);
	cpull_engine_free(engine);
	return (int)cpull_code_class(code);
}
