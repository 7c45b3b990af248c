/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/store and engine/record: ownership of stages, commit, trust across boots, pins against removal; and the
 * split of the memory budget.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "crypto/digest.h"
#include "engine/base/fs.h"
#include "engine/engine.h"
#include "engine/record.h"

#define DIFF_ID "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static char scratch[] = "/tmp/cpull-store-XXXXXX";

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

static struct store *open_store(void)
{
	struct store *store;
	char path[64];

	snprintf(path, sizeof(path), "%s/a/store", scratch);
	assert_int_equal(store_open(path, NULL, &store, NULL), 0);
	return store;
}

static const struct layer_facts facts = {.diff_id = DIFF_ID, .blob_digest = DIFF_ID};

static int find(struct store *store, const char *parents, struct layer_ref *out, struct cpull_error *err)
{
	struct layer_wish wish = {.diff_id = DIFF_ID, .parents = parents};

	return store_layer_find(store, &wish, out, err);
}

static void commit_layer(struct store *store, const char *parents, struct layer_ref *ref)
{
	struct stage *stage;
	char key[STORE_KEY_BYTES];

	assert_int_equal(store_stage(store, DIFF_ID, "p1", &stage, NULL), 1);
	assert_int_equal(mkdirat(stage->root_fd, "inside", 0755), 0);
	store_layer_key(DIFF_ID, parents, key);
	assert_int_equal(store_stage_commit(store, stage, key, &facts, ref, NULL), 0);
}

static void stage_has_one_owner(void **state)
{
	struct store *store = open_store();
	struct stage *stage, *other;

	(void)state;
	assert_int_equal(store_stage(store, DIFF_ID, "p1", &stage, NULL), 1);
	assert_int_equal(store_stage(store, DIFF_ID, "p1", &other, NULL), 0);
	/* opening the store again must not sweep what is under way */
	struct store *again = open_store();
	assert_int_equal(store_stage(again, DIFF_ID, "p1", &other, NULL), 0);
	assert_true(fs_same_file(stage->fd, store->staging_fd, stage->name));
	store_stage_drop(store, stage);
	assert_int_equal(store_stage(again, DIFF_ID, "p1", &other, NULL), 1);
	store_stage_drop(again, other);
	store_close(again);
	store_close(store);
}

/* A finished layer that waits for those below it is in nobody's way who has others below it. */
static void stage_set_aside_keeps_only_its_own_kind_waiting(void **state)
{
	struct store *store = open_store(), *again = open_store();
	struct stage *stage, *other;

	(void)state;
	assert_int_equal(store_stage(store, DIFF_ID, "p1", &stage, NULL), 1);
	assert_int_equal(store_stage_set_aside(store, stage, DIFF_ID, "p1", NULL), 0);
	assert_int_equal(store_stage_set_aside(store, stage, DIFF_ID, "p1", NULL), 0);
	assert_int_equal(store_stage(again, DIFF_ID, "p1", &other, NULL), 0);
	assert_int_equal(store_stage(again, DIFF_ID, "p2", &other, NULL), 1);
	assert_int_equal(store_stage_set_aside(again, other, DIFF_ID, "p2", NULL), 0);
	store_stage_drop(again, other);
	store_stage_drop(store, stage);
	/* a dead owner's is no one's */
	assert_int_equal(mkdirat(store->staging_fd,
				 "sha256-00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff.p1", 0700),
			 0);
	assert_int_equal(store_stage(again, DIFF_ID, "p1", &other, NULL), 1);
	assert_int_equal(store_stage_set_aside(again, other, DIFF_ID, "p1", NULL), 0);
	store_stage_drop(again, other);
	store_close(again);
	store_close(store);
}

static void dead_owner_is_swept(void **state)
{
	struct store *store = open_store();

	(void)state;
	/* what a killed process leaves: a staging directory with content and no lock */
	assert_int_equal(mkdirat(store->staging_fd, "sha256-dead", 0700), 0);
	assert_int_equal(mkdirat(store->staging_fd, "sha256-dead/fs", 0700), 0);
	assert_int_equal(mkdirat(store->staging_fd, "sha256-dead/fs/.1", 0), 0);
	store_close(store);
	store = open_store();
	assert_int_equal(faccessat(store->staging_fd, "sha256-dead", F_OK, 0), -1);
	store_close(store);
}

static void committed_layer_is_found_and_pinned(void **state)
{
	struct store *store = open_store();
	struct layer_ref ref = {.fd = -1}, second = {.fd = -1};

	(void)state;
	assert_int_equal(find(store, "abc", &ref, NULL), 0);
	commit_layer(store, NULL, &ref);
	assert_int_equal(find(store, "abc", &second, NULL), 1);
	assert_string_equal(second.key, ref.key);
	assert_int_equal(faccessat(second.fd, "inside", F_OK, 0), 0);

	int lock = store_lock(store, STORE_EXCLUSIVE, NULL);
	assert_int_equal(store_layer_remove(store, ref.key, NULL), 0);
	layer_ref_drop(&ref);
	assert_int_equal(store_layer_remove(store, second.key, NULL), 0);
	layer_ref_drop(&second);
	assert_int_equal(store_layer_remove(store, second.key, NULL), 1);
	close(lock);
	assert_int_equal(find(store, "abc", &second, NULL), 0);
	store_close(store);
}

static void layer_of_other_parents_is_another(void **state)
{
	struct store *store = open_store();
	struct layer_ref ref = {.fd = -1}, other = {.fd = -1};

	(void)state;
	commit_layer(store, "parents1", &ref);
	assert_int_equal(find(store, "parents2", &other, NULL), 0);
	assert_int_equal(find(store, "parents1", &other, NULL), 1);
	layer_ref_drop(&ref);
	layer_ref_drop(&other);

	int lock = store_lock(store, STORE_EXCLUSIVE, NULL);
	assert_int_equal(store_layer_remove(store, ref.key, NULL), 1);
	close(lock);
	store_close(store);
}

static void encrypted_layer_is_for_its_key_only(void **state)
{
	static const struct layer_facts locked = {.diff_id = DIFF_ID, .blob_digest = DIFF_ID, .key_print = "k1"};
	struct layer_wish wish = {.diff_id = DIFF_ID, .key_print = "k1"};
	struct store *store = open_store();
	struct layer_ref ref = {.fd = -1}, second = {.fd = -1};
	struct stage *stage;
	char key[STORE_KEY_BYTES];

	(void)state;
	assert_int_equal(store_stage(store, DIFF_ID, NULL, &stage, NULL), 1);
	store_layer_key(DIFF_ID, NULL, key);
	assert_int_equal(store_stage_commit(store, stage, key, &locked, &ref, NULL), 0);
	assert_int_equal(store_layer_find(store, &wish, &second, NULL), 1);
	layer_ref_drop(&second);
	wish.key_print = "k2";
	assert_int_equal(store_layer_find(store, &wish, &second, NULL), 0);
	assert_int_equal(find(store, NULL, &second, NULL), 0);
	/* a pull that came by the content without a key opens it to all, and leaves it where it is */
	commit_layer(store, NULL, &second);
	assert_int_equal(faccessat(second.fd, "inside", F_OK, 0), -1);
	layer_ref_drop(&second);
	assert_int_equal(find(store, NULL, &second, NULL), 1);
	layer_ref_drop(&second);
	layer_ref_drop(&ref);
	assert_int_equal(fs_remove_tree(store->layers_fd, key, NULL), 0);
	store_close(store);
}

static void another_boot_is_not_trusted(void **state)
{
	struct store *store = open_store();
	struct layer_ref ref = {.fd = -1};

	(void)state;
	commit_layer(store, NULL, &ref);
	layer_ref_drop(&ref);
	strcpy(store->boot_id, "another boot");
	assert_int_equal(find(store, "p", &ref, NULL), 0);
	/* and a new pull replaces it */
	commit_layer(store, NULL, &ref);
	assert_int_equal(store_make_durable(store, &ref, 1, NULL), 0);
	layer_ref_drop(&ref);
	strcpy(store->boot_id, "a third boot");
	assert_int_equal(find(store, "p", &ref, NULL), 1);
	layer_ref_drop(&ref);
	store_close(store);
}

#define HELLO "hello"
#define HELLO_DIGEST "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

static void damaged_record_is_not_believed(void **state)
{
	struct store *store = open_store();
	struct record_layer layer = {.digest = DIFF_ID, .diff_id = DIFF_ID, .media_type = "t", .key = "sha256-k"};
	struct record record = {.reference = "r.example/a:b",
				.manifest_digest = HELLO_DIGEST,
				.config_digest = HELLO_DIGEST,
				.platform = "linux/amd64",
				.wanted = "linux/amd64",
				.manifest = HELLO,
				.config = HELLO,
				.layers = &layer,
				.layer_count = 1};
	struct record back;

	(void)state;
	assert_int_equal(record_save(store, &record, NULL), 0);
	assert_int_equal(record_load(store, "r.example/a:b", &back, NULL), 1);
	assert_string_equal(back.manifest, HELLO);
	assert_int_equal(record_layers_ready(store, &back, NULL, NULL), 0);
	record_free(&back);
	assert_int_equal(record_load(store, "r.example/a:c", &back, NULL), 0);
	record.manifest = "hellO";
	assert_int_equal(record_save(store, &record, NULL), 0);
	assert_int_equal(record_load(store, "r.example/a:b", &back, NULL), 0);
	record.manifest = HELLO;
	layer.key = "../../etc";
	assert_int_equal(record_save(store, &record, NULL), 0);
	assert_int_equal(record_load(store, "r.example/a:b", &back, NULL), 0);
	store_close(store);
}

/* The next descriptor that is opened fails, whatever it is for. */
static void without_descriptors(struct rlimit *before)
{
	int next = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(next >= 0);
	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, before), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)next, before->rlim_max}), 0);
}

/* What cannot be looked at is neither missing nor damaged: nothing is removed for it. */
static void trouble_with_looking_is_no_verdict(void **state)
{
	char path[64], key[STORE_KEY_BYTES];
	struct cpull_engine_options o = {.size = sizeof(o), .store = path};
	struct record_layer layer = {.digest = DIFF_ID, .diff_id = DIFF_ID, .media_type = "t", .key = key};
	struct record record = {.reference = "r.example/kept:1",
				.manifest_digest = HELLO_DIGEST,
				.config_digest = HELLO_DIGEST,
				.platform = "linux/amd64",
				.wanted = "linux/amd64",
				.manifest = HELLO,
				.config = HELLO,
				.layers = &layer,
				.layer_count = 1};
	struct layer_ref ref = {.fd = -1};
	struct cpull_engine *engine;
	struct cpull_images *images;
	struct record back;
	struct rlimit limit;

	(void)state;
	snprintf(path, sizeof(path), "%s/looking", scratch);
	assert_int_equal(cpull_engine_new(&o, &engine, NULL), 0);

	struct store *store = engine->store;

	commit_layer(store, NULL, &ref);
	layer_ref_drop(&ref);
	store_layer_key(DIFF_ID, NULL, key);
	assert_int_equal(record_save(store, &record, NULL), 0);

	without_descriptors(&limit);
	int rcs[] = {cpull_prune(engine, NULL, NULL),
		     cpull_image_remove(engine, "r.example/kept:1", NULL, NULL),
		     cpull_images_load(engine, &images, NULL),
		     find(store, NULL, &ref, NULL),
		     store_layer_trusted(store, key, NULL),
		     record_load(store, "r.example/kept:1", &back, NULL)};

	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (size_t i = 0; i < ARRAY_LEN(rcs); i++)
		assert_int_equal(rcs[i], CPULL_ERR_STORAGE);

	/* with one descriptor more the directory can be listed and nothing in it can be read */
	int spare = open("/dev/null", O_RDONLY | O_CLOEXEC), lock = open("/dev/null", O_RDONLY | O_CLOEXEC);

	without_descriptors(&limit);
	close(spare);
	close(lock);
	int rc = cpull_prune(engine, NULL, NULL);

	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(rc, CPULL_ERR_STORAGE);
	assert_int_equal(record_load(store, "r.example/kept:1", &back, NULL), 1);
	assert_int_equal(record_layers_ready(store, &back, NULL, NULL), 1);
	record_free(&back);
	cpull_engine_free(engine);
}

/* Two of one diff_id came to be (from stages of different parents): the first one stays, whoever uses it. */
static void commit_leaves_a_trusted_layer_alone(void **state)
{
	struct store *store = open_store();
	struct layer_ref first = {.fd = -1}, second = {.fd = -1};

	(void)state;
	commit_layer(store, "twice", &first);
	assert_int_equal(mkdirat(first.fd, "mark", 0755), 0);
	commit_layer(store, "twice", &second);
	assert_int_equal(faccessat(second.fd, "mark", F_OK, 0), 0);
	assert_int_equal(faccessat(first.fd, "mark", F_OK, 0), 0);
	layer_ref_drop(&first);
	layer_ref_drop(&second);
	assert_int_equal(fs_remove_tree(store->layers_fd, second.key, NULL), 0);
	store_close(store);
}

/* The longest documents there can be, all of it quotes, make a record that can be read again; a longer file is none. */
static void record_has_room_for_every_image(void **state)
{
	struct store *store = open_store();
	struct record_layer layer = {.digest = DIFF_ID, .diff_id = DIFF_ID, .media_type = "t", .key = "sha256-k"};
	char *quotes = malloc(LIMIT_MANIFEST_BYTES + 1), text[DIGEST_TEXT_BYTES];
	struct hasher *hasher;
	struct digest digest;
	struct record back;

	(void)state;
	assert_non_null(quotes);
	memset(quotes, '"', LIMIT_MANIFEST_BYTES);
	quotes[LIMIT_MANIFEST_BYTES] = 0;
	assert_int_equal(hasher_new(DIGEST_SHA256, &hasher, NULL), 0);
	assert_int_equal(hasher_update(hasher, quotes, LIMIT_MANIFEST_BYTES), 0);
	assert_int_equal(hasher_final(hasher, &digest), 0);
	hasher_free(hasher);
	digest_format(&digest, text);

	struct record record = {.reference = "r.example/long:1",
				.manifest_digest = text,
				.config_digest = text,
				.platform = "linux/amd64",
				.wanted = "linux/amd64",
				.manifest = quotes,
				.config = quotes,
				.layers = &layer,
				.layer_count = 1};

	assert_int_equal(LIMIT_MANIFEST_BYTES, LIMIT_CONFIG_BYTES);
	assert_int_equal(record_save(store, &record, NULL), 0);
	assert_int_equal(record_load(store, "r.example/long:1", &back, NULL), 1);
	record_free(&back);
	free(quotes);

	int fd = openat(store->images_fd, "long", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	assert_int_equal(ftruncate(fd, LIMIT_RECORD_BYTES + 1), 0);
	close(fd);
	assert_int_equal(record_load_file(store, "long", &back, NULL), 0);
	store_close(store);
}

static void remove_tree_gives_up_on_what_stays(void **state)
{
	char path[64], inside[80];
	int flags = FS_IMMUTABLE_FL, none = 0;

	(void)state;
	snprintf(path, sizeof(path), "%s/stays", scratch);
	snprintf(inside, sizeof(inside), "%s/inside", path);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(mkdir(inside, 0700), 0);

	int fd = open(inside, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (ioctl(fd, FS_IOC_SETFLAGS, &flags)) {
		close(fd);
		print_message("no immutable directories here\n");
		skip();
	}
	int rc = fs_remove_tree(AT_FDCWD, path, NULL);

	assert_int_equal(ioctl(fd, FS_IOC_SETFLAGS, &none), 0);
	close(fd);
	assert_int_equal(rc, CPULL_ERR_PERMISSION);
	assert_int_equal(fs_remove_tree(AT_FDCWD, path, NULL), 0);
}

static void remove_tree_takes_any_depth(void **state)
{
	char path[64];
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/deep", scratch);
	assert_int_equal(mkdir(path, 0700), 0);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 3000; i++) {
		char name[16];

		/* names that the removal itself would like to use */
		snprintf(name, sizeof(name), ".%d", i % 7);
		assert_int_equal(mkdirat(fd, name, 0700), 0);
		close(openat(fd, "f", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));

		int next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		close(fd);
		fd = next;
	}
	close(fd);
	assert_int_equal(fs_remove_tree(AT_FDCWD, path, NULL), 0);
	assert_int_equal(access(path, F_OK), -1);
}

static void budget_covers_every_promise(void **state)
{
	struct memory_plan plan;

	(void)state;
	assert_int_equal(memory_plan_make((16 << 20) - 1, 0, &plan, NULL), CPULL_ERR_USAGE);
	assert_int_equal(memory_plan_make(0, LIMIT_JOBS + 1, &plan, NULL), CPULL_ERR_USAGE);
	for (uint64_t mib = 16; mib <= 1024; mib += 3)
		for (unsigned jobs = 0; jobs <= LIMIT_JOBS; jobs++) {
			assert_int_equal(memory_plan_make(mib << 20, jobs, &plan, NULL), 0);
			assert_true(plan.jobs >= 1);
			assert_true(plan.chunk_count >= (size_t)plan.jobs * 2 * SHARE_RESERVED);
			assert_true(plan.chunk_count * plan.chunk_bytes + plan.window_bytes <= mib << 20);
		}
}

static void budget_has_two_usual_windows(void **state)
{
	struct memory_plan plan;

	(void)state;
	assert_int_equal(memory_plan_make(24 << 20, 0, &plan, NULL), 0);
	assert_true(plan.window_bytes >= 16 << 20);
	/* what a message advises is enough */
	for (uint64_t window = 1; window <= 1ull << LIMIT_ZSTD_WINDOW_LOG; window += (window / 7) + 1)
		assert_true(window_bank_share(window_bank_budget(window)) >= window);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stage_has_one_owner),
		cmocka_unit_test(stage_set_aside_keeps_only_its_own_kind_waiting),
		cmocka_unit_test(dead_owner_is_swept),
		cmocka_unit_test(committed_layer_is_found_and_pinned),
		cmocka_unit_test(layer_of_other_parents_is_another),
		cmocka_unit_test(encrypted_layer_is_for_its_key_only),
		cmocka_unit_test(another_boot_is_not_trusted),
		cmocka_unit_test(damaged_record_is_not_believed),
		cmocka_unit_test(trouble_with_looking_is_no_verdict),
		cmocka_unit_test(commit_leaves_a_trusted_layer_alone),
		cmocka_unit_test(record_has_room_for_every_image),
		cmocka_unit_test(remove_tree_gives_up_on_what_stays),
		cmocka_unit_test(remove_tree_takes_any_depth),
		cmocka_unit_test(budget_covers_every_promise),
		cmocka_unit_test(budget_has_two_usual_windows),
	};

	return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
