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

static int stage_for(struct store *store, const char *parents, struct stage **out)
{
	struct layer_wish wish = {.diff_id = DIFF_ID, .parents = parents};

	return store_stage(store, &wish, out, NULL);
}

static int set_aside(struct store *store, struct stage *stage, const char *parents)
{
	struct layer_wish wish = {.diff_id = DIFF_ID, .parents = parents};

	return store_stage_set_aside(store, stage, &wish, NULL);
}

static int find(struct store *store, const char *parents, struct layer_ref *out, struct cpull_error *err)
{
	struct layer_wish wish = {.diff_id = DIFF_ID, .parents = parents};

	return store_layer_find(store, &wish, out, err);
}

static void commit_layer(struct store *store, const char *parents, struct layer_ref *ref)
{
	struct stage *stage;
	char key[STORE_KEY_BYTES];

	assert_int_equal(stage_for(store, "p1", &stage), 1);
	assert_int_equal(mkdirat(stage->content_fd, "inside", 0755), 0);
	store_layer_key(DIFF_ID, parents, LAYER_DIRECTORY, key);
	assert_int_equal(store_stage_commit(store, stage, key, &facts, ref, NULL), 0);
}

static void stage_has_one_owner(void **state)
{
	struct store *store = open_store();
	struct stage *stage, *other;

	(void)state;
	assert_int_equal(stage_for(store, "p1", &stage), 1);
	assert_int_equal(stage_for(store, "p1", &other), 0);
	/* opening the store again must not sweep what is under way */
	struct store *again = open_store();
	assert_int_equal(stage_for(again, "p1", &other), 0);
	assert_true(fs_same_file(stage->fd, store->staging_fd, stage->name));
	store_stage_drop(store, stage);
	assert_int_equal(stage_for(again, "p1", &other), 1);
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
	assert_int_equal(stage_for(store, "p1", &stage), 1);
	assert_int_equal(set_aside(store, stage, "p1"), 0);
	assert_int_equal(set_aside(store, stage, "p1"), 0);
	assert_int_equal(stage_for(again, "p1", &other), 0);
	assert_int_equal(stage_for(again, "p2", &other), 1);
	assert_int_equal(set_aside(again, other, "p2"), 0);
	store_stage_drop(again, other);
	store_stage_drop(store, stage);
	/* a dead owner's is no one's */
	assert_int_equal(mkdirat(store->staging_fd,
				 "sha256-00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff.p1", 0700),
			 0);
	assert_int_equal(stage_for(again, "p1", &other), 1);
	assert_int_equal(set_aside(again, other, "p1"), 0);
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
	assert_int_equal(stage_for(store, NULL, &stage), 1);
	store_layer_key(DIFF_ID, NULL, LAYER_DIRECTORY, key);
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

/* ---- EROFS layers ---- */

#define ROOT_HASH "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

/* Two blocks, with a hash tree two more: the superblock and one block of hashes. */
static const struct layer_image plain_image = {.blocks = 2}, tree_image = {.blocks = 2, .root_hash = ROOT_HASH};

static void commit_image(struct store *store, const char *parents, const struct layer_image *image,
			 struct layer_ref *ref)
{
	struct layer_wish wish = {.diff_id = DIFF_ID, .parents = "p1",
				  .form = image->root_hash[0] ? LAYER_EROFS_VERITY : LAYER_EROFS};
	struct layer_facts image_facts = facts;
	struct stage *stage;
	char key[STORE_KEY_BYTES];

	image_facts.image = *image;
	assert_int_equal(store_stage(store, &wish, &stage, NULL), 1);
	assert_int_equal(ftruncate(stage->content_fd, (off_t)layer_image_bytes(image)), 0);
	store_layer_key(DIFF_ID, parents, wish.form, key);
	assert_int_equal(store_stage_commit(store, stage, key, &image_facts, ref, NULL), 0);
}

static int find_image(struct store *store, enum layer_form form, struct layer_ref *out)
{
	struct layer_wish wish = {.diff_id = DIFF_ID, .parents = "abc", .form = form};

	return store_layer_find(store, &wish, out, NULL);
}

static void remove_layer(struct store *store, struct layer_ref *ref)
{
	CLEANUP_FD int lock = store_lock(store, STORE_EXCLUSIVE, NULL);

	assert_true(lock >= 0);
	layer_ref_drop(ref);
	assert_int_equal(store_layer_remove(store, ref->key, NULL), 1);
}

static void forms_of_a_layer_are_layers_of_their_own(void **state)
{
	struct store *store = open_store();
	struct layer_ref dir = {.fd = -1}, image = {.fd = -1}, tree = {.fd = -1}, found = {.fd = -1};
	struct stat st;

	(void)state;
	commit_layer(store, NULL, &dir);
	assert_int_equal(find_image(store, LAYER_EROFS, &found), 0);
	commit_image(store, "abc", &plain_image, &image);
	assert_non_null(strstr(image.key, "ff.abc.erofs"));
	assert_int_equal(find_image(store, LAYER_EROFS_VERITY, &found), 0);
	assert_int_equal(find_image(store, LAYER_EROFS, &found), 1);
	assert_string_equal(found.key, image.key);
	assert_int_equal(found.image.blocks, 2);
	assert_int_equal(fstat(found.fd, &st), 0);
	assert_true(S_ISREG(st.st_mode) && st.st_size == 2 * VERITY_BLOCK_BYTES && (st.st_mode & 0777) == 0600);
	layer_ref_drop(&found);

	commit_image(store, NULL, &tree_image, &tree);
	assert_int_equal(find_image(store, LAYER_EROFS_VERITY, &found), 1);
	assert_string_equal(found.image.root_hash, ROOT_HASH);
	layer_ref_drop(&found);
	/* one with a tree will do for who wants none */
	remove_layer(store, &image);
	assert_int_equal(find_image(store, LAYER_EROFS, &found), 1);
	assert_string_equal(found.key, tree.key);

	/* pinned twice */
	CLEANUP_FD int lock = store_lock(store, STORE_EXCLUSIVE, NULL);
	layer_ref_drop(&found);
	assert_int_equal(store_layer_remove(store, tree.key, NULL), 0);
	close(steal_fd(&lock));
	remove_layer(store, &tree);
	assert_int_equal(find_image(store, LAYER_EROFS, &found), 0);
	remove_layer(store, &dir);
	store_empty_trash(store);
	store_close(store);
}

static void stages_of_two_forms_do_not_meet(void **state)
{
	struct layer_wish wish = {.diff_id = DIFF_ID, .parents = "p1", .form = LAYER_EROFS};
	struct store *store = open_store();
	struct stage *dir, *image, *other;

	(void)state;
	assert_int_equal(stage_for(store, "p1", &dir), 1);
	assert_int_equal(store_stage(store, &wish, &image, NULL), 1);
	assert_int_equal(store_stage(store, &wish, &other, NULL), 0);
	assert_int_equal(store_stage_set_aside(store, image, &wish, NULL), 0);
	assert_int_equal(store_stage(store, &wish, &other, NULL), 0);
	store_stage_drop(store, image);
	store_stage_drop(store, dir);
	store_close(store);
}

static void write_layer_json(struct store *store, const char *key, const char *text)
{
	char path[STORE_KEY_BYTES + 16];

	snprintf(path, sizeof(path), "%s", key);
	CLEANUP_FD int fd = fs_open_dir(store->layers_fd, path);

	assert_int_equal(fs_replace_file(fd, "layer.json", text, strlen(text), false, NULL), 0);
}

/* What layer.json says of an image has to be what such a layer has, to the letter. */
static void unsound_facts_are_not_believed(void **state)
{
#define VERITY_JSON(root, blocks, offset, salt, algorithm) \
	"\"verity\":{\"root_hash\":\"" root "\",\"data_blocks\":" blocks ",\"hash_offset\":" offset \
	",\"salt\":\"" salt "\",\"algorithm\":\"" algorithm "\"}"
	static const struct {
		const char *facts;
		int found;
	} rows[] = {
		{"\"snapshot\":\"erofs\",\"blocks\":2," VERITY_JSON(ROOT_HASH, "2", "8192", "", "sha256"), 1},
		{"\"snapshot\":\"overlay\",\"blocks\":2," VERITY_JSON(ROOT_HASH, "2", "8192", "", "sha256"), 0},
		{"\"snapshot\":7,\"blocks\":2," VERITY_JSON(ROOT_HASH, "2", "8192", "", "sha256"), 0},
		{"\"snapshot\":\"squashfs\",\"blocks\":2," VERITY_JSON(ROOT_HASH, "2", "8192", "", "sha256"), 0},
		{"\"blocks\":2," VERITY_JSON(ROOT_HASH, "2", "8192", "", "sha256"), 0},
		{"\"snapshot\":\"erofs\"," VERITY_JSON(ROOT_HASH, "2", "8192", "", "sha256"), 0},
		{"\"snapshot\":\"erofs\",\"blocks\":2", 0},
		{"\"snapshot\":\"erofs\",\"blocks\":0," VERITY_JSON(ROOT_HASH, "0", "0", "", "sha256"), 0},
		{"\"snapshot\":\"erofs\",\"blocks\":-1," VERITY_JSON(ROOT_HASH, "2", "8192", "", "sha256"), 0},
		{"\"snapshot\":\"erofs\",\"blocks\":4294967296,"
		 VERITY_JSON(ROOT_HASH, "4294967296", "17592186044416", "", "sha256"), 0},
		{"\"snapshot\":\"erofs\",\"blocks\":2," VERITY_JSON(ROOT_HASH, "3", "8192", "", "sha256"), 0},
		{"\"snapshot\":\"erofs\",\"blocks\":2," VERITY_JSON(ROOT_HASH, "2", "4096", "", "sha256"), 0},
		{"\"snapshot\":\"erofs\",\"blocks\":2," VERITY_JSON(ROOT_HASH, "2", "8192", "00", "sha256"), 0},
		{"\"snapshot\":\"erofs\",\"blocks\":2," VERITY_JSON(ROOT_HASH, "2", "8192", "", "sha512"), 0},
		{"\"snapshot\":\"erofs\",\"blocks\":2," VERITY_JSON("00", "2", "8192", "", "sha256"), 0},
		{"\"snapshot\":\"erofs\",\"blocks\":2," VERITY_JSON("", "2", "8192", "", "sha256"), 0},
		/* another size than that of the file */
		{"\"snapshot\":\"erofs\",\"blocks\":3," VERITY_JSON(ROOT_HASH, "3", "12288", "", "sha256"), 0},
	};
	struct store *store = open_store();
	struct layer_ref ref = {.fd = -1}, found = {.fd = -1};
	char text[1024];

	(void)state;
	commit_image(store, NULL, &tree_image, &ref);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		snprintf(text, sizeof(text), "{\"diff_id\":\"" DIFF_ID "\",\"key_print\":null,\"boot_id\":\"%s\",%s}",
			 store->boot_id, rows[i].facts);
		write_layer_json(store, ref.key, text);

		int rc = find_image(store, LAYER_EROFS_VERITY, &found);

		if (rc != rows[i].found || store_layer_trusted(store, ref.key, NULL) != rows[i].found)
			fail_msg("row %zu: %d", i, rc);
		if (rc)
			layer_ref_drop(&found);
	}
	remove_layer(store, &ref);
	store_close(store);
}

static void cut_image_is_not_trusted(void **state)
{
	struct store *store = open_store();
	struct layer_ref ref = {.fd = -1}, found = {.fd = -1};
	struct stat st, again;

	(void)state;
	commit_image(store, NULL, &plain_image, &ref);
	assert_int_equal(ftruncate(ref.fd, VERITY_BLOCK_BYTES), 0);
	assert_int_equal(find_image(store, LAYER_EROFS, &found), 0);
	assert_int_equal(store_layer_trusted(store, ref.key, NULL), 0);
	assert_int_equal(fstat(ref.fd, &st), 0);
	/* a new pull replaces it */
	commit_image(store, NULL, &plain_image, &found);
	assert_int_equal(fstat(found.fd, &again), 0);
	assert_true(again.st_size == 2 * VERITY_BLOCK_BYTES && again.st_ino != st.st_ino);
	layer_ref_drop(&ref);
	remove_layer(store, &found);
	store_close(store);
}

static void durable_image_outlives_the_boot(void **state)
{
	struct store *store = open_store();
	struct layer_ref ref = {.fd = -1};

	(void)state;
	commit_image(store, NULL, &tree_image, &ref);
	assert_int_equal(store_make_durable(store, &ref, 1, NULL), 0);
	layer_ref_drop(&ref);
	strcpy(store->boot_id, "another boot");
	assert_int_equal(find_image(store, LAYER_EROFS_VERITY, &ref), 1);
	assert_int_equal(store_layer_durable(store, ref.key, NULL), 1);
	remove_layer(store, &ref);
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

static void record_has_one_kind_of_layers(void **state)
{
	struct store *store = open_store();
	struct record_layer layers[2] = {
		{.digest = DIFF_ID, .diff_id = DIFF_ID, .media_type = "t", .key = "sha256-k.erofs",
		 .image = plain_image},
		{.digest = DIFF_ID, .diff_id = DIFF_ID, .media_type = "t", .key = "sha256-k.abc.verity.erofs",
		 .image = tree_image}};
	struct record back, record = {.reference = "r.example/erofs:1",
				      .manifest_digest = HELLO_DIGEST,
				      .config_digest = HELLO_DIGEST,
				      .platform = "linux/amd64",
				      .wanted = "linux/amd64",
				      .manifest = HELLO,
				      .config = HELLO,
				      .snapshot = CPULL_SNAPSHOT_EROFS,
				      .layers = layers,
				      .layer_count = 2};

	(void)state;
	assert_int_equal(record_save(store, &record, NULL), 0);
	assert_int_equal(record_load(store, record.reference, &back, NULL), 1);
	assert_int_equal(back.snapshot, CPULL_SNAPSHOT_EROFS);
	assert_int_equal(back.layers[0].image.blocks, 2);
	assert_string_equal(back.layers[0].image.root_hash, "");
	assert_string_equal(back.layers[1].image.root_hash, ROOT_HASH);
	record_free(&back);
	/* a directory among images, and the other way round */
	layers[0].key = "sha256-k";
	assert_int_equal(record_save(store, &record, NULL), 0);
	assert_int_equal(record_load(store, record.reference, &back, NULL), 0);
	layers[0].key = "sha256-k.erofs";
	record.snapshot = CPULL_SNAPSHOT_OVERLAY;
	assert_int_equal(record_save(store, &record, NULL), 0);
	assert_int_equal(record_load(store, record.reference, &back, NULL), 0);
	/* an image of which nothing is known */
	record.snapshot = CPULL_SNAPSHOT_EROFS;
	layers[0].image.blocks = 0;
	assert_int_equal(record_save(store, &record, NULL), 0);
	assert_int_equal(record_load(store, record.reference, &back, NULL), 0);
	assert_int_equal(record_remove(store, record.reference, NULL), 0);
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
	store_layer_key(DIFF_ID, NULL, LAYER_DIRECTORY, key);
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
		cmocka_unit_test(forms_of_a_layer_are_layers_of_their_own),
		cmocka_unit_test(stages_of_two_forms_do_not_meet),
		cmocka_unit_test(unsound_facts_are_not_believed),
		cmocka_unit_test(cut_image_is_not_trusted),
		cmocka_unit_test(durable_image_outlives_the_boot),
		cmocka_unit_test(damaged_record_is_not_believed),
		cmocka_unit_test(record_has_one_kind_of_layers),
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
