/* SPDX-License-Identifier: Apache-2.0
 *
 * Whole pulls in some hundred random combinations of jobs, memory, layers of all forms and sizes, slow servers, slow
 * writes by one thread or two, cancels and damage, two images at once that share layers in different orders, most of
 * them with a pool of the very minimum. The outcome that matters is that every one ends, and ends right.
 *
 * COCO_PULL_LOCKUP_TRIALS sets how many, COCO_PULL_LOCKUP_SEED the seed of the first; the next ones follow it. One that
 * does not end is named, and the program aborts so that its threads can be looked at.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/base/ring.h"
#include "engine/engine.h"
#include "snapshot/file_jobs.h"
#include "tests/unit/made_registry.h"

#define TRIALS 120u
#define BOUND_SECONDS 60u /* some ten thousand times what a trial takes */
#define STOCK 32u
#define LARGE STOCK /* one more, so large that it may get several connections */
#define LARGE_BYTES (24u << 20)
#define IMAGE_LAYERS 12u
#define IMAGES 2u

static char scratch[] = "/tmp/cpull-lockup-XXXXXX";
static char key_path[64], layout_path[64];
static struct made_layer stock[STOCK + 1];
static struct made_registry registry;
static bool has_uring; /* with it large files are written by several writes at once, which hold chunks */

/* ---- slow writes ---- */

static atomic_uint slow_write; /* one in so many takes a millisecond; 0: none */

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset)
{
	static atomic_uint calls;
	unsigned every = atomic_load(&slow_write);

	if (every && atomic_fetch_add(&calls, 1) % every == 0)
		made_sleep_us(1000);
	return (ssize_t)syscall(SYS_pwrite64, fd, data, len, offset);
}

/* ---- the helper of the write stage ---- */

static atomic_bool helper_first; /* in every layer, however few files it has */

int __real_file_jobs_new(enum file_helper helper, const struct attributes_self *self, struct log *log,
			 struct file_jobs **out, struct cpull_error *err);
int __wrap_file_jobs_new(enum file_helper helper, const struct attributes_self *self, struct log *log,
			 struct file_jobs **out, struct cpull_error *err);

int __wrap_file_jobs_new(enum file_helper helper, const struct attributes_self *self, struct log *log,
			 struct file_jobs **out, struct cpull_error *err)
{
	return __real_file_jobs_new(atomic_load(&helper_first) ? FILE_HELPER_FIRST : helper, self, log, out, err);
}

/* ---- the stock of layers ---- */

enum content { NOISE, ZEROS, WORDS };

/* The lengths have all relations to a chunk: none, within, exactly one with all headers, one byte more, many. */
static const struct kind {
	enum content content;
	size_t files, bytes;
} kinds[] = {
	{NOISE, 0, 0},
	{NOISE, 1, 0},
	{WORDS, 3, 10},
	{NOISE, 1, 65536 - 512 - 1024},
	{NOISE, 1, 65536 - 512 - 1023},
	{NOISE, 2, 300000},
	{NOISE, 1, 2500000},
	{ZEROS, 1, 4000000},
	{ZEROS, 3, 900000},
	{WORDS, 40, 9000},
	{WORDS, 1, 1500000},
	{NOISE, 200, 700},
};

static void fill(enum content content, char *data, size_t len, uint32_t *seed)
{
	static const char word[] = "a chunk of the pool for each of the stages ";

	for (size_t i = 0; i < len; i++)
		data[i] = content == ZEROS   ? 0
			  : content == NOISE ? (char)made_random(seed)
					     : word[(i + i / 1000) % (sizeof(word) - 1)];
}

static void make_layer(struct made_layer *l, unsigned number, EVP_PKEY *pkey)
{
	static const struct kind large = {NOISE, 1, LARGE_BYTES};
	const struct kind *kind = number == LARGE ? &large : &kinds[number % ARRAY_LEN(kinds)];
	uint32_t seed = number * 7919 + 1;
	char *data = malloc(kind->bytes + 1), name[60];

	must(data, "memory");
	if (number % 2)
		made_add_root(l);
	for (size_t i = 0; i < kind->files; i++) {
		fill(kind->content, data, kind->bytes, &seed);
		/* a directory that is only implied makes the layer wait for those below it */
		snprintf(name, sizeof(name), "%slayer%u-file%zu", number % 5 == 0 ? "shared/" : "", number, i);
		made_add_file(l, name, data, kind->bytes);
	}
	free(data);

	enum made_form form = (enum made_form)(number % 7 % 3);
	static const int gzip_levels[] = {1, 0, 6}, windows[] = {10, 17, 19, 21, 22};

	made_seal(l, form, form == MADE_GZIP ? gzip_levels[number % 3] : windows[number % 5],
		  number % 4 == 3 ? pkey : NULL);
	made_write_blob(layout_path, l->digest, &l->blob);
}

static int make_stock(void **state)
{
	struct ring *ring = NULL;

	(void)state;
	has_uring = ring_new(CPULL_IO_URING, 4, &ring, NULL) == 0;
	ring_free(ring);
	if (!mkdtemp(scratch))
		return -1;
	if (make_keys(state))
		return -1;
	snprintf(key_path, sizeof(key_path), "%s/key.pem", scratch);
	snprintf(layout_path, sizeof(layout_path), "%s/layout", scratch);
	made_write_key(key_path, ec[0]);
	make_layout_dirs(layout_path);
	for (unsigned i = 0; i <= STOCK; i++)
		make_layer(&stock[i], i, ec[0]);
	return 0;
}

static int free_stock(void **state)
{
	for (unsigned i = 0; i <= STOCK; i++)
		made_layer_free(&stock[i]);
	free_keys(state);
	return fs_remove_tree(AT_FDCWD, scratch, NULL);
}

/* ---- a trial ---- */

struct one_pull {
	struct made_image image;
	struct cpull_pull *pull;
	char name[100];
	bool damaged;
	unsigned cancel_at; /* the call of the progress callback that cancels; 0: none does */
	atomic_uint calls;
	pthread_mutex_t lock; /* pull, for the callback */
};

struct trial {
	uint32_t seed, random;
	unsigned jobs;
	uint64_t memory;
	enum cpull_io io;
	struct memory_plan plan;
	bool forced; /* to that plan */
	bool layout;
	unsigned slow_write;
	bool helper;
	unsigned connections;
	unsigned cancel_ms; /* after which the first pull is cancelled; 0: not */
	size_t pulls;
	struct one_pull pull[IMAGES];
	char store[64];
};

static unsigned in_ranges; /* pulls that had several connections for one layer */
static char described[1000]; /* of the trial under way, for the handler */

static void on_alarm(int number)
{
	(void)number;
	static const char head[] = "\nthis trial does not end: ";

	if (write(STDERR_FILENO, head, sizeof(head) - 1) < 0 ||
	    write(STDERR_FILENO, described, strlen(described)) < 0)
		_exit(1);
	abort();
}

static void describe(const struct trial *t)
{
	int len = snprintf(described, sizeof(described),
			   "COCO_PULL_LOCKUP_SEED=%u: jobs %u, memory %llu, io %d, %s plan: %zu chunks of %zu, "
			   "share %zu, jobs %u; %s, slow write %u, helper %d, connections %u, cancel after %u ms;",
			   t->seed, t->jobs, (unsigned long long)t->memory, (int)t->io,
			   t->forced ? "forced" : "its own", t->plan.chunk_count, t->plan.chunk_bytes,
			   t->plan.share_max, t->plan.jobs, t->layout ? "layout" : "registry", t->slow_write,
			   t->helper, t->connections, t->cancel_ms);

	for (size_t i = 0; i < t->pulls; i++) {
		len += snprintf(described + len, sizeof(described) - (size_t)len, " image %zu%s, cancel at call %u:", i,
				t->pull[i].damaged ? " (damaged)" : "", t->pull[i].cancel_at);
		for (size_t k = 0; k < t->pull[i].image.layer_count; k++)
			len += snprintf(described + len, sizeof(described) - (size_t)len, " %td",
					t->pull[i].image.layers[k] - stock);
	}
	snprintf(described + len, sizeof(described) - (size_t)len, "\n");
}

static uint32_t pick(struct trial *t, uint32_t below)
{
	return made_random(&t->random) % below;
}

static bool one_in(struct trial *t, uint32_t n)
{
	return pick(t, n) == 0;
}

static void choose_plan(struct trial *t)
{
	static const size_t chunk_bytes[] = {4096, 16384, 65536};

	t->jobs = 1 + pick(t, 16);
	t->memory = (16u << 20) + (one_in(t, 2) ? pick(t, 9u << 20) : 0);
	t->io = one_in(t, 4) ? CPULL_IO_SYNC : one_in(t, 3) && has_uring ? CPULL_IO_URING : CPULL_IO_AUTO;
	assert_int_equal(memory_plan_make(t->memory, t->jobs, &t->plan, NULL), 0);
	t->forced = !one_in(t, 4);
	if (!t->forced)
		return;
	/* the least that keeps every promise, or little more */
	t->plan.jobs = MIN(t->jobs, t->plan.jobs);
	t->plan.chunk_bytes = chunk_bytes[pick(t, 3)];
	t->plan.chunk_count = 2 * SHARE_RESERVED * t->plan.jobs + (one_in(t, 2) ? pick(t, 5) : 0);
	t->plan.share_max = MAX(one_in(t, 2) ? t->plan.chunk_count / 2 : t->plan.chunk_count, (size_t)SHARE_RESERVED);
}

/* The second image has most of the layers of the first in another order. */
static void choose_images(struct trial *t)
{
	const struct made_layer *layers[IMAGE_LAYERS];
	size_t count = 1 + pick(t, one_in(t, 3) ? IMAGE_LAYERS : 5);

	for (size_t i = 0; i < count; i++)
		layers[i] = &stock[pick(t, STOCK)];
	if (!t->layout && one_in(t, 40))
		layers[pick(t, (uint32_t)count)] = &stock[LARGE];
	t->pulls = one_in(t, 3) ? 2 : 1;
	for (size_t p = 0; p < t->pulls; p++) {
		for (size_t i = count; p && i-- > 1;) {
			size_t other = pick(t, (uint32_t)i + 1);
			const struct made_layer *swap = layers[i];

			layers[i] = layers[other];
			layers[other] = swap;
		}
		if (p && one_in(t, 2))
			layers[pick(t, (uint32_t)count)] = &stock[pick(t, STOCK)];
		made_image_make(&t->pull[p].image, layers, count);
	}
}

static struct made_pace choose_pace(struct trial *t, const struct made_layer *l)
{
	struct made_pace pace = {0};
	size_t len = l->blob.len;

	if (l == &stock[LARGE]) /* so slow that more connections are tried */
		return (struct made_pace){.piece_bytes = 65536, .pause_us = 8000};
	switch (pick(t, 8)) {
	case 0: /* drips */
		pace.piece_bytes = len / 10 + 1;
		pace.pause_us = pick(t, 4000);
		break;
	case 1: /* in small pieces */
		pace.piece_bytes = MAX(len / 60, (size_t)1 + pick(t, 1000));
		pace.pause_us = 1;
		break;
	case 2:
	case 3: /* stalls, perhaps before the first byte */
		pace.stall_at = one_in(t, 3) ? 0 : pick(t, (uint32_t)len + 1);
		pace.stall_ms = 5 + pick(t, 40);
		break;
	default:
		break;
	}
	if (one_in(t, 50))
		pace.cut_at = len / 3;
	return pace;
}

static bool has_layer(const struct made_image *image, const struct made_layer *l)
{
	for (size_t i = 0; i < image->layer_count; i++)
		if (image->layers[i] == l)
			return true;
	return false;
}

static void start_registry(struct trial *t)
{
	bool damage = one_in(t, 8);
	char tag[24];

	registry = (struct made_registry){0};
	for (size_t p = 0; p < t->pulls; p++) {
		const struct made_image *image = &t->pull[p].image;
		struct made_pace paces[IMAGE_LAYERS] = {0};

		for (size_t i = 0; i < image->layer_count; i++)
			paces[i] = choose_pace(t, image->layers[i]);
		snprintf(tag, sizeof(tag), "%zu", p);
		made_registry_add(&registry, tag, image, paces);
	}

	const struct made_layer *bad = t->pull[0].image.layers[pick(t, (uint32_t)t->pull[0].image.layer_count)];

	/* empty layers are all the same to the store, whatever their blobs: one of them is enough */
	damage = damage && bad->file_count;
	if (damage)
		made_item_find(&registry, bad->digest)->pace.wrong = true;
	for (size_t p = 0; p < t->pulls; p++)
		t->pull[p].damaged = damage && has_layer(&t->pull[p].image, bad);
	made_registry_start(&registry);
}

static void choose(struct trial *t, uint32_t seed)
{
	*t = (struct trial){.seed = seed, .random = seed * 2654435761u | 1};
	for (int i = 0; i < 4; i++)
		made_random(&t->random);
	choose_plan(t);
	t->layout = one_in(t, 4);
	choose_images(t);
	t->connections = pick(t, 17);
	t->slow_write = one_in(t, 4) ? 2 + pick(t, 12) : 0;
	t->helper = !one_in(t, 3);
	t->cancel_ms = one_in(t, 8) ? 1 + pick(t, 30) : 0;
	if (!t->cancel_ms && one_in(t, 8))
		t->pull[0].cancel_at = 1 + pick(t, 20);
	snprintf(t->store, sizeof(t->store), "%s/store", scratch);
}

/* ---- running it ---- */

static void on_progress(const struct cpull_progress *progress, void *payload)
{
	struct one_pull *p = payload;

	(void)progress;
	if (atomic_fetch_add(&p->calls, 1) + 1 != p->cancel_at)
		return;
	pthread_mutex_lock(&p->lock);
	cpull_pull_cancel(p->pull);
	pthread_mutex_unlock(&p->lock);
}

static struct cpull_engine *open_engine(const struct trial *t)
{
	struct cpull_engine_options o = {
		.size = sizeof(o), .store = t->store, .memory_bytes = t->memory, .jobs = t->jobs, .io = t->io};
	struct cpull_engine *engine;

	assert_int_equal(cpull_engine_new(&o, &engine, NULL), 0);
	engine->plan = t->plan; /* the pool is made by the first layer */
	return engine;
}

static void start(struct trial *t, size_t i, struct cpull_engine *engine)
{
	const char *keys[] = {key_path};
	struct one_pull *p = &t->pull[i];
	struct cpull_pull_options o = {.size = sizeof(o),
				       .image = p->name,
				       .platform = "linux/amd64",
				       .plain_http = true,
				       .connections = t->connections,
				       .decryption_keys = keys,
				       .decryption_key_count = 1,
				       .progress = on_progress,
				       .progress_payload = p};

	if (t->layout)
		snprintf(p->name, sizeof(p->name), "oci:%s:%zu", layout_path, i);
	else
		snprintf(p->name, sizeof(p->name), "127.0.0.1:%u/made%zu:%zu", registry.server.port, i, i);
	pthread_mutex_init(&p->lock, NULL);
	pthread_mutex_lock(&p->lock); /* the first call has to know the pull */
	assert_int_equal(cpull_pull_start(engine, &o, &p->pull, NULL), 0);
	pthread_mutex_unlock(&p->lock);
}

static void check_end(const struct trial *t, size_t i)
{
	const struct one_pull *p = &t->pull[i];
	bool may_be_cancelled = p->cancel_at || (i == 0 && t->cancel_ms);
	struct cpull_error err = {0};
	int rc = cpull_pull_wait(p->pull, -1, &err);

	if (rc == CPULL_ERR_CANCELLED && may_be_cancelled)
		return;
	if (rc == CPULL_ERR_DIGEST && p->damaged)
		return;
	if (rc || p->damaged)
		fail_msg("image %zu ended with %d: %s\n%s", i, rc, err.message, described);
	if (!made_image_is_there(&p->image, cpull_pull_result(p->pull)))
		fail_msg("image %zu is not right\n%s", i, described);
	in_ranges += cpull_pull_result(p->pull)->stats.connections > 1;
}

static void nothing_is_left(const struct trial *t)
{
	CLEANUP_FREE char *path = format_string("%s/staging", t->store);
	CLEANUP_DIR DIR *dir = fs_list(AT_FDCWD, path);
	const char *name = fs_next_name(dir);

	if (name)
		fail_msg("staging/%s is left\n%s", name, described);
}

static void write_layout(const struct trial *t)
{
	struct made_image images[IMAGES];

	for (size_t p = 0; p < t->pulls; p++)
		images[p] = t->pull[p].image;
	made_write_layout(layout_path, images, t->pulls);
}

static void run_trial(uint32_t seed)
{
	static struct trial t;

	choose(&t, seed);
	if (t.layout)
		write_layout(&t);
	else
		start_registry(&t);
	describe(&t);
	alarm(BOUND_SECONDS);
	atomic_store(&slow_write, t.slow_write);
	atomic_store(&helper_first, t.helper);

	struct cpull_engine *engine = open_engine(&t);

	for (size_t p = 0; p < t.pulls; p++)
		start(&t, p, engine);
	if (t.cancel_ms) {
		made_sleep_us(t.cancel_ms * 1000);
		cpull_pull_cancel(t.pull[0].pull);
	}
	for (size_t p = 0; p < t.pulls; p++)
		check_end(&t, p);
	for (size_t p = 0; p < t.pulls; p++)
		cpull_pull_free(t.pull[p].pull);
	cpull_engine_free(engine);
	nothing_is_left(&t);
	atomic_store(&slow_write, 0);
	if (!t.layout)
		made_registry_stop(&registry);
	for (size_t p = 0; p < t.pulls; p++)
		made_image_free(&t.pull[p].image);
	assert_int_equal(fs_remove_tree(AT_FDCWD, t.store, NULL), 0);
	alarm(0);
}

static uint32_t from_environment(const char *name, uint32_t otherwise)
{
	const char *text = getenv(name);

	return text ? (uint32_t)strtoul(text, NULL, 10) : otherwise;
}

static void every_combination_ends_and_is_right(void **state)
{
	uint32_t seed = from_environment("COCO_PULL_LOCKUP_SEED", 1);
	uint32_t trials = from_environment("COCO_PULL_LOCKUP_TRIALS", TRIALS);

	(void)state;
	print_message("%u trials from seed %u on\n", trials, seed);
	for (uint32_t i = 0; i < trials; i++)
		run_trial(seed + i);
	print_message("%u pulls had several connections for a layer\n", in_ranges);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_combination_ends_and_is_right),
	};
	struct sigaction action = {.sa_handler = on_alarm};

	sigaction(SIGALRM, &action, NULL);
	return cmocka_run_group_tests(tests, make_stock, free_stock);
}
