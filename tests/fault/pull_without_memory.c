/* SPDX-License-Identifier: Apache-2.0
 *
 * Fails the allocations of a pull in turn: each run is a process of its own in which the n-th allocation of the whole
 * process, the libraries' included, gives nothing; or the n-th and all after it. A pull must then end with success or
 * with CPULL_ERR_NOMEM, never in a crash, and the store must serve the next pull.
 *
 *     pull_without_memory [--erofs] [IMAGE [DECRYPTION_KEY…]]
 *
 * With --erofs layers become EROFS images with hash trees. Without an image a layout of its own is pulled. COCO_PULL_FAULT_RUNS says how many allocations are tried, evenly
 * spread.
 */
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "engine/coco_pull.h"
#include "tests/unit/oci_layout.h"

#define DEFAULT_RUNS 100
#define RUN_SECONDS 20u

/* ---- allocations ---- */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static atomic_long seen;
static long refuse_from = -1, refuse_to = -1;

static bool refused(void)
{
	long n = atomic_fetch_add_explicit(&seen, 1, memory_order_relaxed);

	if (n < refuse_from || n >= refuse_to)
		return false;
	errno = ENOMEM;
	return true;
}

#pragma GCC visibility push(default) /* so that they are the shared libraries', too */

void *malloc(size_t size)
{
	return refused() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	return refused() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
	return refused() ? NULL : __libc_realloc(old, size);
}

#pragma GCC visibility pop

/* ---- one run ---- */

struct task {
	const char *image;
	const char *const *keys;
	size_t key_count;
	bool erofs;
	char store[100];
};

/* A user of all that has results. */
static int use_images(struct cpull_engine *engine, struct cpull_error *err)
{
	struct cpull_images *images;
	int rc = cpull_images_load(engine, &images, err);

	if (rc)
		return rc;
	for (size_t i = 0; i < cpull_images_count(images); i++)
		cpull_images_find(images, cpull_images_get(images, i)->reference, NULL);
	cpull_images_free(images);
	return cpull_prune(engine, NULL, err);
}

static int use_library(const struct task *task, struct cpull_error *err)
{
	struct cpull_engine_options engine_options = {.size = sizeof(engine_options), .store = task->store};
	struct cpull_pull_options options = {.size = sizeof(options),
					     .image = task->image,
					     .platform = "linux/amd64",
					     .decryption_keys = task->keys,
					     .decryption_key_count = task->key_count,
					     .snapshot = task->erofs ? CPULL_SNAPSHOT_EROFS : CPULL_SNAPSHOT_OVERLAY,
					     .verity = task->erofs};
	struct cpull_engine *engine;
	struct cpull_pull *pull;
	int rc = cpull_engine_new(&engine_options, &engine, err);

	if (rc)
		return rc;
	rc = cpull_pull_start(engine, &options, &pull, err);
	if (!rc) {
		rc = cpull_pull_wait(pull, -1, err);
		if (!rc && cpull_pull_result(pull)->layer_count == 0)
			rc = error_set(err, CPULL_ERR_INTERNAL, "no layers in the result");
		cpull_pull_free(pull);
	}
	if (!rc)
		rc = use_images(engine, err);
	cpull_engine_free(engine);
	return rc;
}

enum outcome { RAN_WELL, RAN_OUT, RAN_BADLY };

/* In the child. */
static enum outcome run(const struct task *task, long from, long to, long *count)
{
	struct cpull_error err = {0};

	alarm(RUN_SECONDS);
	atomic_store(&seen, 0);
	refuse_from = from;
	refuse_to = to;

	int rc = use_library(task, &err);

	refuse_from = refuse_to = -1;
	*count = atomic_load(&seen);
	if (!rc || rc == CPULL_ERR_NOMEM)
		return rc ? RAN_OUT : RAN_WELL;
	/* A byte of a string that jansson has no room for is left out without a word, and the document is then refused;
	 * OpenSSL and libjose take a lack of memory that has passed for a key that does not open. */
	enum cpull_class class = cpull_code_class(rc);

	if (to == from + 1 && (class == CPULL_CLASS_IMAGE || class == CPULL_CLASS_KEY))
		return RAN_OUT;
	fprintf(stderr, "without allocations %ld to %ld: %s: %s\n", from, to, cpull_code_name(rc), err.message);
	return RAN_BADLY;
}

/* The library is never used in this process, so that a child may start it after fork(). */
static enum outcome run_child(const struct task *task, long from, long to, long *count)
{
	pid_t pid = fork();
	int status;

	must(pid >= 0, "fork");
	if (!pid)
		_exit((int)run(task, from, to, count));
	must(waitpid(pid, &status, 0) == pid, "waitpid");
	if (WIFEXITED(status))
		return (enum outcome)WEXITSTATUS(status);
	fprintf(stderr, "without allocations %ld to %ld: ended by signal %d\n", from, to, WTERMSIG(status));
	return RAN_BADLY;
}

static void drop_store(const struct task *task)
{
	struct cpull_error err = {0};

	if (fs_remove_tree(AT_FDCWD, task->store, &err)) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
}

/* ---- all ---- */

/* Something of everything: files, links that have to wait for the layer below, directories nobody names, a whiteout. */
static void make_image(const char *dir)
{
	struct bytes tars[2] = {{0}, {0}};
	char data[20000];

	memset(data, 'd', sizeof(data));
	add_entry(&tars[0], '0', "etc/conf/a", "", data, sizeof(data));
	add_entry(&tars[0], '1', "etc/conf/b", "etc/conf/a", "", 0);
	add_entry(&tars[1], '0', "etc/conf/c", "", data, 700);
	add_entry(&tars[1], '1', "etc/conf/d", "etc/conf/a", "", 0);
	add_entry(&tars[1], '0', "etc/conf/.wh.b", "", "", 0);
	for (int i = 0; i < 2; i++)
		end_tar(&tars[i]);
	make_layout(dir, tars, 2);
	for (int i = 0; i < 2; i++)
		bytes_free(&tars[i]);
}

int main(int argc, char **argv)
{
	char scratch[] = "/tmp/cpull-fault-XXXXXX", dir[64], image[80];
	const char *runs_text = getenv("COCO_PULL_FAULT_RUNS");
	long runs = runs_text ? atol(runs_text) : DEFAULT_RUNS, done = 0, without = 0, bad = 0;
	long *count = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct task task = {.image = image, .erofs = argc > 1 && strcmp(argv[1], "--erofs") == 0};

	argc -= task.erofs;
	argv += task.erofs;
	must(count != MAP_FAILED && mkdtemp(scratch), "scratch");
	snprintf(task.store, sizeof(task.store), "%s/store", scratch);
	snprintf(dir, sizeof(dir), "%s/layout", scratch);
	snprintf(image, sizeof(image), "oci:%s:t", dir);
	if (argc < 2) {
		make_image(dir);
	} else {
		task.image = argv[1];
		task.keys = (const char *const *)argv + 2;
		task.key_count = (size_t)argc - 2;
	}
	must(run_child(&task, -1, -1, count) == RAN_WELL, "a pull with all the memory it wants");

	long total = *count, step = runs > 0 && total > runs ? total / runs : 1;

	for (long n = 0; n < total; n += step) {
		for (int all_after = 0; all_after < 2; all_after++) {
			drop_store(&task);
			enum outcome outcome = run_child(&task, n, all_after ? LONG_MAX : n + 1, count);

			done++;
			without += outcome == RAN_OUT;
			bad += outcome == RAN_BADLY;
		}
		if (run_child(&task, -1, -1, count) != RAN_WELL) {
			fprintf(stderr, "after allocation %ld failed the store is of no use any more\n", n);
			bad++;
		}
	}
	printf("%ld allocations, %ld runs, %ld ended for want of memory, %ld badly\n", total, done, without, bad);
	must(!fs_remove_tree(AT_FDCWD, scratch, NULL), scratch);
	return bad || !without;
}
