/* SPDX-License-Identifier: Apache-2.0
 *
 * What a pull costs besides the layers: requests and connections as a registry counts them, and threads, rings, pools
 * and syncs that are not there unless something needs them. No test looks at a clock.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/engine.h"
#include "tests/unit/made_registry.h"

#define LAYERS 5u

static char scratch[] = "/tmp/cpull-start-XXXXXX";
static struct made_layer layers[LAYERS];
static struct made_image one, many;
static struct made_registry registry;
static atomic_uint syncs;

/* ---- what the library calls ---- */

int syncfs(int fd)
{
	atomic_fetch_add(&syncs, 1);
	return (int)syscall(SYS_syncfs, fd);
}

int fsync(int fd)
{
	atomic_fetch_add(&syncs, 1);
	return (int)syscall(SYS_fsync, fd);
}

/* ---- the registry and the layout ---- */

static int make_images(void **state)
{
	const struct made_layer *list[LAYERS];
	char path[64], data[3000];

	(void)state;
	if (!mkdtemp(scratch))
		return -1;
	snprintf(path, sizeof(path), "%s/layout", scratch);
	make_layout_dirs(path);
	for (unsigned i = 0; i < LAYERS; i++) {
		char name[20];

		memset(data, (int)('a' + i), sizeof(data));
		snprintf(name, sizeof(name), "file%u", i);
		made_add_root(&layers[i]);
		made_add_file(&layers[i], name, data, sizeof(data));
		made_seal(&layers[i], MADE_GZIP, 6, NULL);
		made_write_blob(path, layers[i].digest, &layers[i].blob);
		list[i] = &layers[i];
	}
	made_image_make(&one, list, 1);
	made_image_make(&many, list, LAYERS);
	made_write_layout(path, &many, 1);
	return 0;
}

static int free_images(void **state)
{
	(void)state;
	made_image_free(&one);
	made_image_free(&many);
	for (size_t i = 0; i < LAYERS; i++)
		made_layer_free(&layers[i]);
	return fs_remove_tree(AT_FDCWD, scratch, NULL);
}

static int start_registry(void **state)
{
	(void)state;
	registry = (struct made_registry){0};
	made_registry_add(&registry, "one", &one, NULL);
	made_registry_add(&registry, "many", &many, NULL);
	made_registry_start(&registry);
	return 0;
}

static int stop_registry(void **state)
{
	char store[64];

	(void)state;
	made_registry_stop(&registry);
	snprintf(store, sizeof(store), "%s/store", scratch);
	return fs_remove_tree(AT_FDCWD, store, NULL);
}

struct counts {
	unsigned manifests, blobs, connections;
};

static void assert_counts(struct counts want)
{
	pthread_mutex_lock(&registry.server.lock);
	unsigned connections = registry.server.connection_count;

	pthread_mutex_unlock(&registry.server.lock);
	assert_int_equal(atomic_load(&registry.manifest_requests), want.manifests);
	assert_int_equal(atomic_load(&registry.blob_requests), want.blobs);
	assert_int_equal(connections, want.connections);
}

/* ---- pulls ---- */

static struct cpull_engine *open_engine(unsigned jobs, bool durable)
{
	char store[64];
	struct cpull_engine_options o = {.size = sizeof(o), .store = store, .jobs = jobs, .durable = durable};
	struct cpull_engine *engine;

	snprintf(store, sizeof(store), "%s/store", scratch);
	assert_int_equal(cpull_engine_new(&o, &engine, NULL), 0);
	return engine;
}

static const char *by_tag(const char *tag, char out[200])
{
	snprintf(out, 200, "127.0.0.1:%u/start:%s", registry.server.port, tag);
	return out;
}

static const char *by_digest(const struct made_image *image, char out[200])
{
	snprintf(out, 200, "127.0.0.1:%u/start@%s", registry.server.port, image->manifest.digest);
	return out;
}

static const char *of_layout(char out[200])
{
	snprintf(out, 200, "oci:%s/layout:0", scratch);
	return out;
}

static void pull_in(struct cpull_engine *engine, const char *name, const struct made_image *image, bool reused)
{
	struct cpull_pull_options o = {
		.size = sizeof(o), .image = name, .platform = "linux/amd64", .plain_http = true};
	struct cpull_error err = {0};
	struct cpull_pull *pull;

	assert_int_equal(cpull_pull_start(engine, &o, &pull, NULL), 0);
	if (cpull_pull_wait(pull, -1, &err))
		fail_msg("%s", err.message);

	const struct cpull_result *result = cpull_pull_result(pull);

	assert_true(made_image_is_there(image, result));
	for (size_t i = 0; i < result->layer_count; i++)
		assert_int_equal(result->layers[i].reused, reused);
	cpull_pull_free(pull);
}

static void pull_anew(const char *name, const struct made_image *image, bool reused)
{
	struct cpull_engine *engine = open_engine(1, false);

	pull_in(engine, name, image, reused);
	cpull_engine_free(engine);
}

/* ---- requests and connections ---- */

static void one_layer_takes_three_requests_on_one_connection(void **state)
{
	char name[200];

	(void)state;
	pull_anew(by_tag("one", name), &one, false);
	assert_counts((struct counts){.manifests = 1, .blobs = 2, .connections = 1});
}

static void layers_in_turn_share_the_connection(void **state)
{
	char name[200];

	(void)state;
	pull_anew(by_digest(&many, name), &many, false);
	assert_counts((struct counts){.manifests = 1, .blobs = 1 + LAYERS, .connections = 1});
}

static void there_are_no_more_connections_than_layers_at_once(void **state)
{
	struct cpull_engine *engine = open_engine(3, false);
	char name[200];

	(void)state;
	pull_in(engine, by_tag("many", name), &many, false);
	cpull_engine_free(engine);
	assert_int_equal(atomic_load(&registry.blob_requests), 1 + LAYERS);
	assert_true(registry.server.connection_count <= 3);
}

static void an_engine_keeps_its_connection(void **state)
{
	struct cpull_engine *engine = open_engine(1, false);
	char name[200];

	(void)state;
	pull_in(engine, by_tag("one", name), &one, false);
	pull_in(engine, by_digest(&one, name), &one, true);
	pull_in(engine, by_tag("one", name), &one, true);
	cpull_engine_free(engine);
	assert_counts((struct counts){.manifests = 3, .blobs = 3, .connections = 1});
}

static void again_by_tag_takes_one_request(void **state)
{
	char name[200];

	(void)state;
	pull_anew(by_tag("many", name), &many, false);
	pull_anew(by_tag("many", name), &many, true);
	assert_counts((struct counts){.manifests = 2, .blobs = 1 + LAYERS, .connections = 2});
}

static void again_by_digest_takes_none(void **state)
{
	char name[200];

	(void)state;
	pull_anew(by_digest(&many, name), &many, false);
	pull_anew(by_digest(&many, name), &many, true);
	assert_counts((struct counts){.manifests = 1, .blobs = 1 + LAYERS, .connections = 1});
}

/* ---- threads, rings, memory ---- */

static bool any_link(const char *dir, const char *target)
{
	CLEANUP_DIR DIR *list = fs_list(AT_FDCWD, dir);
	const char *name;
	char text[200];
	bool found = false;

	must(list, dir);
	while ((name = fs_next_name(list))) {
		ssize_t len = readlinkat(dirfd(list), name, text, sizeof(text) - 1);

		text[MAX(len, 0)] = 0;
		found = found || strcmp(text, target) == 0;
	}
	return found;
}

static bool fetches(void)
{
	return made_has_thread("cpull-fetch") || any_link("/proc/self/fd", "anon_inode:[io_uring]");
}

static void an_engine_starts_nothing(void **state)
{
	struct cpull_engine *engine = open_engine(4, false);

	(void)state;
	assert_false(made_has_thread("cpull-"));
	assert_false(fetches());
	assert_null(engine->pool);
	cpull_engine_free(engine);
}

static void a_layout_needs_no_network(void **state)
{
	struct cpull_engine *engine = open_engine(4, false);
	char name[200];

	(void)state;
	pull_in(engine, of_layout(name), &many, false);
	assert_false(fetches());
	cpull_engine_free(engine);
	engine = open_engine(4, false);
	pull_in(engine, of_layout(name), &many, true);
	assert_false(fetches());
	assert_null(engine->pool);
	cpull_engine_free(engine);
}

static void again_by_digest_needs_no_network(void **state)
{
	struct cpull_engine *engine = open_engine(4, false);
	char name[200];

	(void)state;
	pull_in(engine, by_digest(&many, name), &many, false);
	assert_true(fetches());
	cpull_engine_free(engine);
	assert_false(fetches());
	engine = open_engine(4, false);
	pull_in(engine, by_digest(&many, name), &many, true);
	assert_false(fetches());
	assert_null(engine->pool);
	cpull_engine_free(engine);
}

/* ---- syncs ---- */

static unsigned syncs_of(const char *name, bool durable, bool reused)
{
	struct cpull_engine *engine = open_engine(1, durable);

	atomic_store(&syncs, 0);
	pull_in(engine, name, &many, reused);
	cpull_engine_free(engine);
	return atomic_load(&syncs);
}

static bool is_durable(void)
{
	struct cpull_engine *engine = open_engine(1, false);
	struct cpull_images *images;

	assert_int_equal(cpull_images_load(engine, &images, NULL), 0);
	assert_int_equal(cpull_images_count(images), 1);

	bool durable = cpull_images_get(images, 0)->durable;

	cpull_images_free(images);
	cpull_engine_free(engine);
	return durable;
}

static void what_is_durable_is_synced_once(void **state)
{
	char name[200];

	(void)state;
	by_tag("many", name);
	assert_int_equal(syncs_of(name, false, false), 0);
	assert_false(is_durable());
	assert_true(syncs_of(name, true, true) > 0);
	assert_true(is_durable());
	assert_int_equal(syncs_of(name, true, true), 0);
	/* whoever asks for less leaves it as it is */
	assert_int_equal(syncs_of(name, false, true), 0);
	assert_true(is_durable());
}

/* A layer that lost its mark, as one that was fetched again does. */
static void a_layer_without_a_mark_is_synced_again(void **state)
{
	CLEANUP_FREE char *mark = NULL;
	char name[200], key[STORE_KEY_BYTES];

	(void)state;
	by_tag("many", name);
	assert_true(syncs_of(name, true, false) > 0);
	store_layer_key(layers[2].diff_id, NULL, LAYER_DIRECTORY, key);
	mark = format_string("%s/store/layers/%s/durable", scratch, key);
	assert_int_equal(unlink(mark), 0);
	assert_true(syncs_of(name, true, true) > 0);
	assert_int_equal(access(mark, F_OK), 0);
}

#define WITH_REGISTRY(test) cmocka_unit_test_setup_teardown(test, start_registry, stop_registry)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_REGISTRY(one_layer_takes_three_requests_on_one_connection),
		WITH_REGISTRY(layers_in_turn_share_the_connection),
		WITH_REGISTRY(there_are_no_more_connections_than_layers_at_once),
		WITH_REGISTRY(an_engine_keeps_its_connection),
		WITH_REGISTRY(again_by_tag_takes_one_request),
		WITH_REGISTRY(again_by_digest_takes_none),
		WITH_REGISTRY(an_engine_starts_nothing),
		WITH_REGISTRY(a_layout_needs_no_network),
		WITH_REGISTRY(again_by_digest_needs_no_network),
		WITH_REGISTRY(what_is_durable_is_synced_once),
		WITH_REGISTRY(a_layer_without_a_mark_is_synced_again),
	};

	alarm(110);
	return cmocka_run_group_tests(tests, make_images, free_images);
}
