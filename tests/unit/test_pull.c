/* SPDX-License-Identifier: Apache-2.0
 *
 * The library's promises about pulls, kept on OCI layouts of this test's own making: turns, progress, options of
 * other versions, cancelling from odd places, and which error is the one that is told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "engine/base/limits.h"
#include "engine/coco_pull.h"
#include "tests/unit/made_registry.h"

static char scratch[] = "/tmp/cpull-pull-XXXXXX";

static int make_scratch(void **state)
{
	(void)state;
	return mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state)
{
	(void)state;
	return fs_remove_tree(AT_FDCWD, scratch, NULL);
}

/* An image of `count` layers of `bytes` each; returns "oci:DIR:t". */
static const char *make_image(const char *name, size_t count, size_t bytes, char out[128])
{
	struct bytes *tars = calloc(count, sizeof(*tars));
	char *data = malloc(bytes), dir[100];

	must(tars && data, "memory");
	snprintf(dir, sizeof(dir), "%s/%s", scratch, name);
	for (size_t i = 0; i < count; i++) {
		char file[64];

		memset(data, (int)('a' + i % 26), bytes);
		snprintf(file, sizeof(file), "%s-%zu", name, i);
		add_entry(&tars[i], '0', file, "", data, bytes);
		end_tar(&tars[i]);
	}
	make_layout(dir, tars, count);
	for (size_t i = 0; i < count; i++)
		bytes_free(&tars[i]);
	free(tars);
	free(data);
	snprintf(out, 128, "oci:%s:t", dir);
	return out;
}

static struct cpull_engine *open_engine(const char *store, unsigned jobs)
{
	char path[100];
	struct cpull_engine_options o = {.size = sizeof(o), .store = path, .jobs = jobs};
	struct cpull_engine *engine;

	snprintf(path, sizeof(path), "%s/%s", scratch, store);
	assert_int_equal(cpull_engine_new(&o, &engine, NULL), 0);
	return engine;
}

static struct cpull_pull *start(struct cpull_engine *engine, const char *image, cpull_progress_fn progress,
				void *payload)
{
	struct cpull_pull_options o = {.size = sizeof(o),
				       .image = image,
				       .platform = "linux/amd64",
				       .progress = progress,
				       .progress_payload = payload};
	struct cpull_pull *pull;

	assert_int_equal(cpull_pull_start(engine, &o, &pull, NULL), 0);
	return pull;
}

/* ---- turns ---- */

static void small_pull_gets_its_turn(void **state)
{
	struct cpull_engine *engine = open_engine("turns", 1);
	char big_image[128], small_image[128];

	(void)state;
	make_image("many", 60, 400000, big_image);
	make_image("one", 1, 1000, small_image);

	struct cpull_pull *big = start(engine, big_image, NULL, NULL);
	struct cpull_pull *small = start(engine, small_image, NULL, NULL);

	assert_int_equal(cpull_pull_wait(small, 60000, NULL), 0);
	assert_int_equal(cpull_pull_wait(big, 0, NULL), 1);
	assert_int_equal(cpull_pull_wait(big, 60000, NULL), 0);
	cpull_pull_free(big);
	cpull_pull_free(small);
	cpull_engine_free(engine);
}

/* Many at once, some cancelled in the middle: each ends, and the places are all there afterwards. */
static void places_are_given_back(void **state)
{
	struct cpull_engine *engine = open_engine("places", 2);
	struct cpull_pull *pulls[24];
	char image[128], last[128];

	(void)state;
	make_image("shared", 6, 300000, image);
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < ARRAY_LEN(pulls); i++)
			pulls[i] = start(engine, image, NULL, NULL);
		for (size_t i = 0; i < ARRAY_LEN(pulls); i += 3)
			cpull_pull_cancel(pulls[i]);
		for (size_t i = 0; i < ARRAY_LEN(pulls); i++) {
			int rc = cpull_pull_wait(pulls[i], 60000, NULL);

			assert_true(rc == 0 || (i % 3 == 0 && rc == CPULL_ERR_CANCELLED));
			cpull_pull_free(pulls[i]);
		}
		assert_int_equal(cpull_image_remove(engine, image, NULL, NULL), 0);
	}
	make_image("after", 3, 1000, last);
	pulls[0] = start(engine, last, NULL, NULL);
	assert_int_equal(cpull_pull_wait(pulls[0], 60000, NULL), 0);
	cpull_pull_free(pulls[0]);
	cpull_engine_free(engine);
}

/* ---- progress ---- */

struct seen {
	struct cpull_pull *pull;
	pthread_mutex_t lock;
	unsigned calls, failed;
	enum cpull_layer_state last[8];
	bool cancel;
};

static void note(const struct cpull_progress *progress, void *payload)
{
	struct seen *seen = payload;

	pthread_mutex_lock(&seen->lock);
	seen->calls++;
	seen->last[progress->layer % 8] = progress->state;
	seen->failed += progress->state == CPULL_LAYER_FAILED;
	if (seen->cancel && seen->pull)
		cpull_pull_cancel(seen->pull);
	pthread_mutex_unlock(&seen->lock);
}

static void every_layer_ends_ready(void **state)
{
	struct cpull_engine *engine = open_engine("progress", 4);
	struct seen seen = {.lock = PTHREAD_MUTEX_INITIALIZER};
	char image[128];

	(void)state;
	make_image("progress-image", 4, 3000000, image);
	struct cpull_pull *pull = start(engine, image, note, &seen);

	assert_int_equal(cpull_pull_wait(pull, -1, NULL), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(seen.last[i], CPULL_LAYER_VERIFIED);
	/* a change of state each, and bytes at most every tenth of a second */
	assert_true(seen.calls <= 4 * (3 + cpull_pull_result(pull)->stats.wall_ms / 100 + 1));
	cpull_pull_free(pull);
	cpull_engine_free(engine);
}

/* A hard link to what no layer has is found out when the layer is tied to those below it. */
static void culprit_is_reported(void **state)
{
	struct cpull_engine *engine = open_engine("culprit", 4);
	struct seen seen = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct bytes tars[2] = {{0}, {0}};
	struct cpull_error err;
	char dir[100], image[128];

	(void)state;
	add_entry(&tars[0], '0', "base", "", "x", 1);
	add_entry(&tars[1], '1', "link", "nowhere/at-all", "", 0);
	for (int i = 0; i < 2; i++)
		end_tar(&tars[i]);
	snprintf(dir, sizeof(dir), "%s/culprit-image", scratch);
	make_layout(dir, tars, 2);
	for (int i = 0; i < 2; i++)
		bytes_free(&tars[i]);
	snprintf(image, sizeof(image), "oci:%s:t", dir);

	struct cpull_pull *pull = start(engine, image, note, &seen);

	assert_true(cpull_pull_wait(pull, -1, &err) < 0);
	assert_non_null(strstr(err.message, "layer 2/2"));
	assert_int_equal(seen.failed, 1);
	assert_int_equal(seen.last[1], CPULL_LAYER_FAILED);
	cpull_pull_free(pull);
	cpull_engine_free(engine);
}

static void cancel_from_the_callback(void **state)
{
	struct cpull_engine *engine = open_engine("callback", 2);
	struct seen seen = {.lock = PTHREAD_MUTEX_INITIALIZER, .cancel = true};
	char image[128];

	(void)state;
	make_image("callback-image", 8, 2000000, image);
	pthread_mutex_lock(&seen.lock); /* the first call has to know the pull */
	struct cpull_pull *pull = start(engine, image, note, &seen);

	assert_null(cpull_pull_result(pull));
	seen.pull = pull;
	pthread_mutex_unlock(&seen.lock);
	assert_int_equal(cpull_pull_wait(pull, 10000, NULL), CPULL_ERR_CANCELLED);
	assert_int_equal(seen.failed, 0);
	cpull_pull_free(pull);
	cpull_engine_free(engine);
}

static void *wait_for_it(void *payload)
{
	return (void *)(intptr_t)cpull_pull_wait(payload, -1, NULL);
}

/* Freed without waiting, waited for by many, cancelled twice and after the end. */
static void odd_orders_are_fine(void **state)
{
	struct cpull_engine *engine = open_engine("orders", 2);
	pthread_t waiters[4];
	char image[128];

	(void)state;
	make_image("orders-image", 4, 2000000, image);
	cpull_pull_free(start(engine, image, NULL, NULL));

	struct cpull_pull *pull = start(engine, image, NULL, NULL);

	for (size_t i = 0; i < ARRAY_LEN(waiters); i++)
		assert_int_equal(pthread_create(&waiters[i], NULL, wait_for_it, pull), 0);
	for (size_t i = 0; i < ARRAY_LEN(waiters); i++) {
		void *rc;

		pthread_join(waiters[i], &rc);
		assert_int_equal((intptr_t)rc, 0);
	}
	cpull_pull_cancel(pull);
	cpull_pull_cancel(pull);
	assert_int_equal(cpull_pull_wait(pull, 0, NULL), 0);
	assert_int_equal(cpull_pull_result(pull)->layer_count, 4);
	cpull_pull_free(pull);
	cpull_pull_free(NULL);
	cpull_engine_free(engine);
	cpull_engine_free(NULL);
}

/* ---- bad content, and more that goes wrong ---- */

static atomic_bool full;

/* What the library writes with. Fails once the layer's other thread has come to its end. */
ssize_t pwrite(int fd, const void *data, size_t len, off_t offset)
{
	if (!atomic_load(&full))
		return (ssize_t)syscall(SYS_pwrite64, fd, data, len, offset);
	while (made_has_thread("cpull-open"))
		usleep(1000);
	errno = ENOSPC;
	return -1;
}

/* The content turns out bad while a file is being written, which then fails too: what counts is the blob. */
static void a_full_store_hides_no_tampering(void **state)
{
	struct cpull_engine *engine = open_engine("full", 1);
	struct made_layer layer = {0};
	const struct made_layer *layers[] = {&layer};
	struct made_image image = {0};
	struct cpull_error err = {0};
	uint32_t seed = 1;
	char dir[100], name[128], *noise = malloc(1u << 20);

	(void)state;
	must(noise, "memory");
	for (size_t i = 0; i < 1u << 20; i++)
		noise[i] = (char)made_random(&seed);
	snprintf(dir, sizeof(dir), "%s/tampered", scratch);
	snprintf(name, sizeof(name), "oci:%s:0", dir);
	make_layout_dirs(dir);
	made_add_file(&layer, "noise", noise, 1u << 20);
	made_seal(&layer, MADE_GZIP, 1, NULL);
	made_image_make(&image, layers, 1);
	made_write_layout(dir, &image, 1);
	layer.blob.data[layer.blob.len - 6] ^= 1; /* of the CRC-32 */
	made_write_blob(dir, layer.digest, &layer.blob);

	atomic_store(&full, true);

	struct cpull_pull *pull = start(engine, name, NULL, NULL);

	assert_int_equal(cpull_pull_wait(pull, -1, &err), CPULL_ERR_DIGEST);
	atomic_store(&full, false);
	cpull_pull_free(pull);
	cpull_engine_free(engine);
	made_image_free(&image);
	made_layer_free(&layer);
	free(noise);
}

/* The content turns out bad, and then the rest of the blob cannot be had: nobody can tell whose fault that is, and
 * trying again may help. */
static void bad_content_is_no_verdict_without_the_blob(void **state)
{
	static struct made_registry registry;
	const struct made_pace pace = {.cut_at = 1u << 20, .gone = true};
	struct cpull_engine *engine = open_engine("gone", 1);
	struct made_layer layer = {0};
	const struct made_layer *layers[] = {&layer};
	struct made_image image = {0};
	struct cpull_error err = {0};
	struct cpull_pull_options o = {.size = sizeof(o), .platform = "linux/amd64", .plain_http = true};
	struct cpull_pull *pull;
	uint32_t seed = 1;
	char name[100], *noise = malloc(2u << 20);

	(void)state;
	must(noise, "memory");
	for (size_t i = 0; i < 2u << 20; i++)
		noise[i] = (char)made_random(&seed);
	made_add_file(&layer, "noise", noise, 2u << 20);
	layer.tar.data[0] ^= 1; /* of the first header */
	made_seal(&layer, MADE_GZIP, 1, NULL);
	made_image_make(&image, layers, 1);
	registry = (struct made_registry){0};
	made_registry_add(&registry, "gone", &image, &pace);
	made_registry_start(&registry);
	snprintf(name, sizeof(name), "127.0.0.1:%u/it:gone", registry.server.port);
	o.image = name;
	assert_int_equal(cpull_pull_start(engine, &o, &pull, NULL), 0);
	assert_int_equal(cpull_pull_wait(pull, -1, &err), CPULL_ERR_NOT_FOUND);
	cpull_pull_free(pull);
	cpull_engine_free(engine);
	made_registry_stop(&registry);
	made_image_free(&image);
	made_layer_free(&layer);
	free(noise);
}

/* ---- limits ---- */

/* Puts an index over what the layout's index.json names, which then names the index. */
static void wrap_in_index(const char *dir)
{
	static const char platform[] = ",\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}";
	static const char tag[] = ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"t\"}";
	struct bytes old = {0}, index = {0};
	struct layout_blob blob;
	char path[128], text[512];

	snprintf(path, sizeof(path), "%s/index.json", dir);
	assert_int_equal(file_read(path, LAYOUT_MAX, "index", &old, NULL), 0);

	char *at = strstr(old.data, tag);

	assert_non_null(at);
	add_bytes(&index, old.data, (size_t)(at - old.data));
	add_text(&index, platform);
	add_text(&index, at + strlen(tag));
	put_blob(dir, &index, &blob);
	snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"manifests\":[{" OCI_TYPE("index.v1+json")
		 ",\"digest\":\"%s\",\"size\":%zu%s}]}", blob.digest, blob.len, tag);
	write_file(path, text, strlen(text));
	bytes_free(&old);
	bytes_free(&index);
}

static void indexes_nest_so_deep_and_no_deeper(void **state)
{
	struct cpull_engine *engine = open_engine("nested", 1);
	struct cpull_error err;
	char image[128], dir[100];

	(void)state;
	make_image("nested-image", 1, 100, image);
	snprintf(dir, sizeof(dir), "%s/nested-image", scratch);
	for (unsigned depth = 1; depth <= LIMIT_INDEX_DEPTH + 1; depth++) {
		wrap_in_index(dir);

		struct cpull_pull *pull = start(engine, image, NULL, NULL);
		int rc = cpull_pull_wait(pull, -1, &err);

		assert_int_equal(rc, depth <= LIMIT_INDEX_DEPTH ? 0 : CPULL_ERR_LIMIT);
		cpull_pull_free(pull);
	}
	assert_non_null(strstr(err.message, "nested"));
	cpull_engine_free(engine);
}

/* ---- options ---- */

static void so_many_connections_and_no_more(void **state)
{
	struct cpull_pull_options o = {.size = sizeof(o), .image = "oci:/nowhere", .connections = LIMIT_CONNECTIONS};
	struct cpull_engine *engine = open_engine("connections", 0);
	struct cpull_error err = {0};
	struct cpull_pull *pull;

	(void)state;
	assert_int_equal(cpull_pull_start(engine, &o, &pull, &err), CPULL_ERR_NOT_FOUND);
	o.connections++;
	err = (struct cpull_error){0};
	assert_int_equal(cpull_pull_start(engine, &o, &pull, &err), CPULL_ERR_USAGE);
	assert_non_null(strstr(err.message, "17 connections"));
	o.connections = UINT32_MAX;
	assert_int_equal(cpull_pull_start(engine, &o, &pull, NULL), CPULL_ERR_USAGE);
	cpull_engine_free(engine);
}

/* An older caller's structs, of the same size and zero in what it does not know, ask for what there was then. */
_Static_assert(sizeof(struct cpull_pull_options) == 160 && offsetof(struct cpull_pull_options, connections) == 96,
	       "what callers were built against");
_Static_assert(CPULL_SNAPSHOT_OVERLAY == 0 && sizeof(struct cpull_layer) == 48, "what callers were built against");

static void hash_trees_want_images(void **state)
{
	struct cpull_pull_options o = {.size = sizeof(o), .image = "oci:/nowhere", .verity = true};
	struct cpull_engine *engine = open_engine("snapshots", 0);
	struct cpull_error err = {0};
	struct cpull_pull *pull;

	(void)state;
	assert_int_equal(cpull_pull_start(engine, &o, &pull, &err), CPULL_ERR_USAGE);
	assert_non_null(strstr(err.message, "erofs"));
	o.snapshot = CPULL_SNAPSHOT_EROFS;
	assert_int_equal(cpull_pull_start(engine, &o, &pull, NULL), CPULL_ERR_NOT_FOUND);
	o.snapshot = CPULL_SNAPSHOT_AUTO + 1;
	assert_int_equal(cpull_pull_start(engine, &o, &pull, NULL), CPULL_ERR_USAGE);
	o.snapshot = CPULL_SNAPSHOT_AUTO;
	o.reserved_bytes[6] = 1;
	assert_int_equal(cpull_pull_start(engine, &o, &pull, NULL), CPULL_ERR_USAGE);
	cpull_engine_free(engine);
}

/* A newer caller's members must not be passed over in silence: one of them may be a policy. */
static void unknown_members_are_refused(void **state)
{
	struct {
		struct cpull_engine_options known;
		uint64_t newer;
	} engine_options = {.known = {.size = sizeof(engine_options), .store = scratch}, .newer = 1};
	struct {
		struct cpull_pull_options known;
		uint64_t newer;
	} pull_options = {.known = {.size = sizeof(pull_options), .image = "oci:/nowhere"}, .newer = 1};
	struct {
		struct cpull_mount_options known;
		uint64_t newer;
	} mount_options = {.known = {.size = sizeof(mount_options)}, .newer = 1};
	struct cpull_engine *engine = open_engine("options", 0), *refused;
	struct cpull_pull *pull;

	(void)state;
	assert_int_equal(cpull_engine_new(&engine_options.known, &refused, NULL), CPULL_ERR_USAGE);
	assert_int_equal(cpull_pull_start(engine, &pull_options.known, &pull, NULL), CPULL_ERR_USAGE);
	assert_int_equal(cpull_mount(engine, "x", scratch, &mount_options.known, NULL), CPULL_ERR_USAGE);
	engine_options.newer = pull_options.newer = mount_options.newer = 0;
	engine_options.known.reserved[7] = 1;
	assert_int_equal(cpull_engine_new(&engine_options.known, &refused, NULL), CPULL_ERR_USAGE);
	assert_int_equal(cpull_pull_start(engine, &pull_options.known, &pull, NULL), CPULL_ERR_NOT_FOUND);
	assert_int_equal(cpull_mount(engine, "x", scratch, &mount_options.known, NULL), CPULL_ERR_NOT_FOUND);
	pull_options.known.size = 8;
	assert_int_equal(cpull_pull_start(engine, &pull_options.known, &pull, NULL), CPULL_ERR_USAGE);
	assert_null(pull);
	assert_int_equal(cpull_pull_start(engine, NULL, &pull, NULL), CPULL_ERR_USAGE);
	cpull_engine_free(engine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_pull_gets_its_turn),
		cmocka_unit_test(places_are_given_back),
		cmocka_unit_test(every_layer_ends_ready),
		cmocka_unit_test(culprit_is_reported),
		cmocka_unit_test(cancel_from_the_callback),
		cmocka_unit_test(odd_orders_are_fine),
		cmocka_unit_test(a_full_store_hides_no_tampering),
		cmocka_unit_test(bad_content_is_no_verdict_without_the_blob),
		cmocka_unit_test(indexes_nest_so_deep_and_no_deeper),
		cmocka_unit_test(so_many_connections_and_no_more),
		cmocka_unit_test(hash_trees_want_images),
		cmocka_unit_test(unknown_members_are_refused),
	};

	alarm(110);
	return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
