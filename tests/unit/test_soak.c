/* SPDX-License-Identifier: Apache-2.0
 *
 * Hundreds of pulls in one process, good ones and all sorts of failing ones, with removals between them: afterwards the
 * process has as many descriptors and threads and as much memory as after the first few, whether the engine was kept or
 * made anew for each pull.
 *
 * COCO_PULL_SOAK_ROUNDS sets how many rounds there are; a round has KINDS pulls.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <malloc.h>
#include <unistd.h>

#include "tests/unit/made_registry.h"

#define ROUNDS 20u
#define WARM_UP 4u
/* What malloc has given out, to the byte but for libcurl's idle connections: some 2.5 KiB each. */
#define HEAP_TOLERANCE (16u << 10)
#define RSS_TOLERANCE_KIB 512u
#define MEMORY_BYTES (16u << 20)
/* The chunks of a kept engine's pool, which are touched when first used. */
#define POOL_KIB (MEMORY_BYTES / 16 * 3 >> 10)

#if defined(__has_feature)
#define HAS_FEATURE(name) __has_feature(name)
#else
#define HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_THREAD__) || HAS_FEATURE(thread_sanitizer)
#define THREADS 2u /* the sanitizer has one, too */
#else
#define THREADS 1u
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || HAS_FEATURE(address_sanitizer) || \
	HAS_FEATURE(thread_sanitizer)
#define OWN_MALLOC false /* a sanitizer's keeps what was freed */
#else
#define OWN_MALLOC true
#endif

#define LAYERS 11u

static char scratch[] = "/tmp/cpull-soak-XXXXXX";
static char key_path[64], layout_path[64], store_path[64];
static struct made_layer layers[LAYERS];
static struct made_image plain, encrypted, damaged, incomplete, slow;
static struct made_registry registry;
static uint16_t port;

static void make_layer(unsigned number)
{
	static const int levels[] = {0, 6, 19};
	struct made_layer *l = &layers[number];
	uint32_t seed = number + 1;
	size_t len = number == 1 ? 1500000 : 40000;
	char *data = malloc(len), name[60];

	must(data, "memory");
	for (size_t i = 0; i < len; i++)
		data[i] = (char)(i % 3 ? made_random(&seed) : 0);
	if (number % 2)
		made_add_root(l);
	for (unsigned i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "%slayer%u-file%u", number == 2 ? "implied/" : "", number, i);
		made_add_file(l, name, data, len / (i + 1));
	}
	free(data);
	made_seal(l, (enum made_form)(number % 3), levels[number % 3], number == 3 || number == 4 ? ec[0] : NULL);
}

static void make_image(struct made_image *image, unsigned first, unsigned last)
{
	const struct made_layer *list[LAYERS];

	for (unsigned i = first; i <= last; i++)
		list[i - first] = &layers[i];
	made_image_make(image, list, last - first + 1);
}

static int make_images(void **state)
{
	if (!mkdtemp(scratch) || make_keys(state))
		return -1;
	snprintf(key_path, sizeof(key_path), "%s/key.pem", scratch);
	snprintf(layout_path, sizeof(layout_path), "%s/layout", scratch);
	made_write_key(key_path, ec[0]);
	make_layout_dirs(layout_path);
	for (unsigned i = 0; i < LAYERS; i++) {
		make_layer(i);
		made_write_blob(layout_path, layers[i].digest, &layers[i].blob);
	}
	make_image(&plain, 0, 2);
	make_image(&encrypted, 3, 4);
	make_image(&damaged, 5, 6);
	make_image(&incomplete, 7, 8);
	make_image(&slow, 9, 10);
	made_write_layout(layout_path, &plain, 1);
	return 0;
}

static int free_images(void **state)
{
	struct made_image *images[] = {&plain, &encrypted, &damaged, &incomplete, &slow};

	for (size_t i = 0; i < ARRAY_LEN(images); i++)
		made_image_free(images[i]);
	for (size_t i = 0; i < LAYERS; i++)
		made_layer_free(&layers[i]);
	free_keys(state);
	return fs_remove_tree(AT_FDCWD, scratch, NULL);
}

/* It runs while a round does, so that none of it is there when the process is measured. */
static void start_registry(void)
{
	struct made_pace wrong[] = {{0}, {.wrong = true}}, missing[] = {{0}, {.missing = true}};
	struct made_pace drip[] = {{0}, {.piece_bytes = 1000, .pause_us = 5000}};

	registry = (struct made_registry){0};
	made_registry_add(&registry, "plain", &plain, NULL);
	made_registry_add(&registry, "encrypted", &encrypted, NULL);
	made_registry_add(&registry, "wrong", &damaged, wrong);
	made_registry_add(&registry, "missing", &incomplete, missing);
	made_registry_add(&registry, "slow", &slow, drip);
	must(!server_start_at(&registry.server, made_answer, &registry, port), "server");
	port = registry.server.port;
}

/* ---- what the process has ---- */

struct holdings {
	unsigned files, sockets, threads;
	unsigned long rss_kib;
	size_t heap_bytes;
};

static unsigned count_entries(const char *path, const char *type, bool of_type)
{
	CLEANUP_DIR DIR *dir = fs_list(AT_FDCWD, path);
	unsigned count = 0;
	const char *name;
	char target[200];

	must(dir, path);
	while ((name = fs_next_name(dir))) {
		ssize_t len = type ? readlinkat(dirfd(dir), name, target, sizeof(target)) : 0;

		count += !type || (len > 0 && (strncmp(target, type, strlen(type)) == 0) == of_type);
	}
	return count;
}

static unsigned long rss_kib(void)
{
	CLEANUP_FILE FILE *f = fopen("/proc/self/status", "re");
	unsigned long kib = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmRSS: %lu kB", &kib) == 1)
			break;
	return kib;
}

/* threads: how many there should be. One that has been joined is seen in /proc a moment longer. */
static struct holdings take_stock(unsigned threads)
{
	struct holdings h;

	for (int i = 0; i < 200 && count_entries("/proc/self/task", NULL, true) > threads; i++)
		made_sleep_us(5000);
	malloc_trim(0);
	h.threads = count_entries("/proc/self/task", NULL, true);
	h.files = count_entries("/proc/self/fd", "socket:", false);
	h.sockets = count_entries("/proc/self/fd", "socket:", true);
	h.rss_kib = rss_kib();
	h.heap_bytes = mallinfo2().uordblks + mallinfo2().hblkhd;
	return h;
}

/* ---- the pulls ---- */

static struct cpull_engine *open_engine(void)
{
	struct cpull_engine_options o = {.size = sizeof(o), .store = store_path, .memory_bytes = MEMORY_BYTES};
	struct cpull_engine *engine;

	assert_int_equal(cpull_engine_new(&o, &engine, NULL), 0);
	return engine;
}

static struct cpull_pull *start(struct cpull_engine *engine, const char *name, bool with_key)
{
	const char *keys[] = {key_path};
	struct cpull_pull_options o = {.size = sizeof(o),
				       .image = name,
				       .platform = "linux/amd64",
				       .plain_http = true,
				       .decryption_keys = keys,
				       .decryption_key_count = with_key};
	struct cpull_pull *pull;

	assert_int_equal(cpull_pull_start(engine, &o, &pull, NULL), 0);
	return pull;
}

/* One of everything, in this order. */
static const struct kind {
	const char *name; /* NULL: the layout */
	const struct made_image *image;
	bool with_key;
	bool by_digest;
	bool cancel;
	int code;
} kinds[] = {
	{"plain", &plain, false, false, false, 0},
	{"encrypted", &encrypted, true, false, false, 0},
	{"encrypted", &encrypted, false, false, false, CPULL_ERR_KEY},
	{"wrong", &damaged, true, false, false, CPULL_ERR_DIGEST},
	{"missing", &incomplete, false, false, false, CPULL_ERR_NOT_FOUND},
	{"nothing", &incomplete, false, false, false, CPULL_ERR_NOT_FOUND},
	{"slow", &slow, false, false, true, CPULL_ERR_CANCELLED},
	{"plain", &plain, false, false, false, 0},
	{"plain", &plain, false, true, false, 0},
	{NULL, &plain, false, false, false, 0},
};

#define KINDS ARRAY_LEN(kinds)

static void run_kind(struct cpull_engine *engine, const struct kind *kind)
{
	char name[200];
	struct cpull_error err = {0};

	if (!kind->name)
		snprintf(name, sizeof(name), "oci:%s:0", layout_path);
	else
		snprintf(name, sizeof(name), "127.0.0.1:%u/soak%s%s", port, kind->by_digest ? "@" : ":",
			 kind->by_digest ? kind->image->manifest.digest : kind->name);

	struct cpull_pull *pull = start(engine, name, kind->with_key);

	if (kind->cancel) {
		made_sleep_us(10000);
		cpull_pull_cancel(pull);
	}
	int rc = cpull_pull_wait(pull, -1, &err);

	if (rc != kind->code)
		fail_msg("%s ended with %d: %s", name, rc, err.message);
	if (!rc)
		assert_true(made_image_is_there(kind->image, cpull_pull_result(pull)));
	cpull_pull_free(pull);
}

/* All images; or one, and what nothing uses. */
static void tidy(struct cpull_engine *engine, unsigned round)
{
	struct cpull_images *images;

	assert_int_equal(cpull_images_load(engine, &images, NULL), 0);
	assert_int_equal(cpull_images_count(images), 4);
	for (size_t i = 0; i < cpull_images_count(images) && (round % 3 || i == 0); i++)
		assert_int_equal(cpull_image_remove(engine, cpull_images_get(images, i)->reference, NULL, NULL), 0);
	cpull_images_free(images);
	assert_int_equal(cpull_prune(engine, NULL, NULL), 0);
}

static void run_round(struct cpull_engine *kept, unsigned round)
{
	struct cpull_engine *engine = kept;

	start_registry();
	for (size_t i = 0; i < KINDS; i++) {
		if (!kept)
			engine = open_engine();
		run_kind(engine, &kinds[i]);
		if (i == KINDS - 1)
			tidy(engine, round);
		if (!kept)
			cpull_engine_free(engine);
	}
	made_registry_stop(&registry);
}

static void report(const char *when, const struct holdings *h)
{
	print_message("%s: %u files, %u sockets, %u threads, RSS %lu KiB, heap %zu bytes\n", when, h->files,
		      h->sockets, h->threads, h->rss_kib, h->heap_bytes);
}

static void soak(bool keep)
{
	const char *text = getenv("COCO_PULL_SOAK_ROUNDS");
	unsigned rounds = text ? (unsigned)strtoul(text, NULL, 10) : ROUNDS;
	/* what a kept engine has running is its fetch thread, and what idles are connections of a few layers */
	unsigned threads = THREADS + keep, idle = keep ? 4 : 0;

	snprintf(store_path, sizeof(store_path), "%s/store-%s", scratch, keep ? "kept" : "renewed");

	struct cpull_engine *kept = keep ? open_engine() : NULL;
	struct holdings early = {0};

	for (unsigned i = 0; i < WARM_UP; i++) {
		run_round(kept, i);

		struct holdings h = take_stock(threads);

		early = (struct holdings){.files = h.files,
					  .threads = h.threads,
					  .sockets = MAX(early.sockets, h.sockets),
					  .rss_kib = MAX(early.rss_kib, h.rss_kib),
					  .heap_bytes = MAX(early.heap_bytes, h.heap_bytes)};
	}
	report("warm", &early);
	for (unsigned i = 0; i < rounds; i++)
		run_round(kept, i);

	struct holdings late = take_stock(threads);

	report("in the end", &late);
	cpull_engine_free(kept);
	assert_int_equal(late.files, early.files);
	assert_int_equal(late.threads, threads);
	assert_true(late.sockets <= early.sockets + idle);
	if (!OWN_MALLOC)
		return;
	assert_true(late.heap_bytes <= early.heap_bytes + HEAP_TOLERANCE);
	assert_true(late.rss_kib <= early.rss_kib + RSS_TOLERANCE_KIB + (keep ? POOL_KIB : 0));
}

static void nothing_grows_in_an_engine(void **state)
{
	(void)state;
	soak(true);
}

static void nothing_grows_from_engine_to_engine(void **state)
{
	(void)state;
	soak(false);
}

/* glibc gives each new thread one of eight arenas a core, each of which keeps up to a megabyte for later use, and there
 * are caches of the threads; which of them a pull meets is chance. What remains without them is the library's. */
static void without_malloc_caches(char **argv)
{
	if (getenv("GLIBC_TUNABLES"))
		return;
	setenv("GLIBC_TUNABLES",
	       "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0:glibc.malloc.mmap_threshold=131072", 1);
	execv("/proc/self/exe", argv);
	perror("starting anew");
	exit(1);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_grows_in_an_engine),
		cmocka_unit_test(nothing_grows_from_engine_to_engine),
	};

	(void)argc;
	if (OWN_MALLOC)
		without_malloc_caches(argv);
	return cmocka_run_group_tests(tests, make_images, free_images);
}
