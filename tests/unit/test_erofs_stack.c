/* SPDX-License-Identifier: Apache-2.0
 *
 * Mounting images whose layers are EROFS images of the store: what is seen, what one unmount takes down, and what comes
 * after a mount that was killed at any of its steps. Runs as root in a mount namespace of its own, on tmpfs (loop
 * devices) and on ext4 (files, where the kernel mounts those).
 */
#include "layer_fixture.h"

#include <sys/vfs.h>

#include "engine/base/fs.h"
#include "engine/engine.h"
#include "engine/mounts.h"
#include "engine/record.h"
#include "snapshot/erofs_image.h"
#include "snapshot/erofs_mount.h"
#include "snapshot/overlay.h"
#include "snapshot/verity.h"
#include "snapshot/verity_device.h"

#define HELLO "hello"
#define HELLO_DIGEST "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
#define DIGEST_OF(n) "sha256:00000000000000000000000000000000000000000000000000000000000000" n
#define LAYERS_MAX 24

static char base[] = "/tmp/erofs-stack-XXXXXX";
static char store_path[64], target[64];
static struct cpull_engine *engine;

/* ---- kills ---- */

int __real_erofs_mount(const struct erofs_mount *mount, struct log *log, enum erofs_way *way, struct cpull_error *err);
int __wrap_erofs_mount(const struct erofs_mount *mount, struct log *log, enum erofs_way *way, struct cpull_error *err);
int __real_overlay_mount(const struct overlay_mount *mount, struct log *log, struct cpull_error *err);
int __wrap_overlay_mount(const struct overlay_mount *mount, struct log *log, struct cpull_error *err);
int __real_umount2(const char *path, int flags);
int __wrap_umount2(const char *path, int flags);

static int steps_left = -1; /* to the kill; none when negative */

static void step(void)
{
	if (steps_left >= 0 && steps_left-- == 0)
		kill(getpid(), SIGKILL);
}

int __wrap_erofs_mount(const struct erofs_mount *mount, struct log *log, enum erofs_way *way, struct cpull_error *err)
{
	step();

	int rc = __real_erofs_mount(mount, log, way, err);

	step();
	return rc;
}

int __wrap_overlay_mount(const struct overlay_mount *mount, struct log *log, struct cpull_error *err)
{
	int rc = __real_overlay_mount(mount, log, err);

	step();
	return rc;
}

int __wrap_umount2(const char *path, int flags)
{
	int rc = __real_umount2(path, flags);

	step();
	return rc;
}

/* ---- layers ---- */

/* A file in the root, with the layer's number in it; 'w': a whiteout; 'o': the root is opaque. */
struct entry {
	char kind;
	const char *name;
};

static int note_blocks(void *payload, uint64_t block, const void *data, size_t blocks, struct cpull_error *err)
{
	return verity_add(payload, block, data, blocks, err);
}

static void write_image(int fd, int spool_dirfd, unsigned number, const struct entry *entries, size_t count,
			struct verity *verity)
{
	struct erofs_image_options options = {.fd = fd, .spool_dirfd = spool_dirfd, .uuid = {1, (uint8_t)number},
					      .written = verity ? note_blocks : NULL, .payload = verity};
	struct erofs_entry sorted[8];
	struct erofs_attributes attributes = {.mode = S_IFREG | 0640, .uid = 70000, .mtime.tv_sec = MTIME};
	struct erofs_directory root = {.attributes = {.mode = S_IFDIR | 0751, .uid = number, .mtime.tv_sec = MTIME},
				       .entries = sorted, .root = true};
	struct erofs_image_result result;
	struct erofs_image *image;
	uint64_t nid;

	assert_int_equal(erofs_image_new(&options, &image, NULL), 0);
	for (size_t i = 0; i < count; i++) {
		struct erofs_entry *e = &sorted[root.count];
		char text[16];
		const struct tar_data data = {.data = (const uint8_t *)text,
					      .len = (size_t)snprintf(text, sizeof(text), "%u", number)};

		if (entries[i].kind == 'o') {
			root.attributes.opaque = true;
			continue;
		}
		root.count++;
		*e = (struct erofs_entry){.name = entries[i].name, .len = strlen(entries[i].name),
					  .type = EROFS_REGULAR};
		attributes.mode = S_IFREG | 0640;
		if (entries[i].kind == 'w') {
			attributes.mode = S_IFCHR;
			e->type = EROFS_CHAR;
			assert_int_equal(erofs_image_node(image, &attributes, 0, 0, &e->nid, NULL), 0);
			continue;
		}
		assert_int_equal(erofs_image_file_begin(image, &attributes, data.len, false, NULL), 0);
		assert_int_equal(erofs_image_file_data(image, &data, NULL), 0);
		assert_int_equal(erofs_image_file_end(image, &e->nid, NULL), 0);
	}
	assert_int_equal(erofs_image_dir_place(image, &root, &nid, NULL), 0);
	root.parent = nid;
	assert_int_equal(erofs_image_dir_write(image, nid, &root, NULL), 0);
	assert_int_equal(erofs_image_finish(image, nid, &result, NULL), 0);
	erofs_image_free(image);
}

static char keys[LAYERS_MAX][STORE_KEY_BYTES], diff_ids[LAYERS_MAX][80];
static bool with_trees;

static void append_tree(struct verity *verity, int fd, struct layer_image *image)
{
	struct verity_result result;

	assert_int_equal(verity_finish(verity, fd, image->blocks, &result, NULL), 0);
	hex_encode(result.root, sizeof(result.root), image->root_hash);
}

/* Entries in the order of their names. */
static void make_layer(unsigned number, const struct entry *entries, size_t count)
{
	struct layer_wish wish = {.diff_id = diff_ids[number], .form = with_trees ? LAYER_EROFS_VERITY : LAYER_EROFS};
	struct layer_facts facts = {.diff_id = diff_ids[number], .blob_digest = diff_ids[number]};
	struct verity_options options = {.uuid = {1}};
	struct layer_ref ref = {.fd = -1};
	struct verity *verity = NULL;
	struct stage *stage;
	struct stat st;

	snprintf(diff_ids[number], sizeof(diff_ids[number]), DIGEST_OF("%02x"), number);
	store_layer_key(wish.diff_id, NULL, wish.form, keys[number]);
	assert_int_equal(store_stage(engine->store, &wish, &stage, NULL), 1);
	options.spool_dirfd = stage->fd;
	if (with_trees)
		assert_int_equal(verity_new(&options, &verity, NULL), 0);
	write_image(stage->content_fd, stage->fd, number, entries, count, verity);
	assert_int_equal(fstat(stage->content_fd, &st), 0);
	facts.image.blocks = (uint64_t)st.st_size / EROFS_BLOCK_BYTES;
	if (verity)
		append_tree(verity, stage->content_fd, &facts.image);
	verity_free(verity);
	assert_int_equal(store_stage_commit(engine->store, stage, keys[number], &facts, &ref, NULL), 0);
	layer_ref_drop(&ref);
}

/* The image "r.example/NAME:1" of these layers, lowest first. */
static void make_record(const char *name, const unsigned *numbers, size_t count)
{
	struct record_layer layers[LAYERS_MAX];
	char reference[64];
	struct record record = {.reference = reference,
				.manifest_digest = HELLO_DIGEST,
				.config_digest = HELLO_DIGEST,
				.platform = "linux/amd64",
				.wanted = "linux/amd64",
				.manifest = HELLO,
				.config = HELLO,
				.snapshot = CPULL_SNAPSHOT_EROFS,
				.layers = layers,
				.layer_count = count};

	snprintf(reference, sizeof(reference), "r.example/%s:1", name);
	for (size_t i = 0; i < count; i++) {
		unsigned n = numbers[i];
		struct layer_ref ref = {.fd = -1};

		assert_int_equal(store_layer_pin(engine->store, keys[n], &ref, NULL), 1);
		layers[i] = (struct record_layer){.digest = diff_ids[n], .diff_id = diff_ids[n], .media_type = "t",
						  .key = keys[n], .image = ref.image};
		layer_ref_drop(&ref);
	}
	assert_int_equal(record_save(engine->store, &record, NULL), 0);
}

#define LAYER(number, ...) \
	make_layer(number, (const struct entry[]){__VA_ARGS__}, ARRAY_LEN(((const struct entry[]){__VA_ARGS__})))
#define IMAGE(name, ...) \
	make_record(name, (const unsigned[]){__VA_ARGS__}, ARRAY_LEN(((const unsigned[]){__VA_ARGS__})))

/* ---- looking ---- */

/* Mount points at or below a path. */
static unsigned mounts_at(const char *path)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char line[8192], point[4096];
	unsigned n = 0;

	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		n += sscanf(line, "%*s %*s %*s %*s %4095s", point) == 1 && strncmp(point, path, strlen(path)) == 0;
	fclose(file);
	return n;
}

static unsigned loops_now(void)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *e;
	unsigned n = 0;

	assert_non_null(dir);
	while ((e = readdir(dir))) {
		char path[300], text[4096] = "";

		snprintf(path, sizeof(path), "/sys/block/%.200s/loop/backing_file", e->d_name);

		CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0)
			n += strstr(text, ".erofs") && strncmp(text, store_path, strlen(store_path)) == 0;
	}
	closedir(dir);
	return n;
}

/* The kernel lets go of a device a little after the unmount. */
static void must_have_loops(unsigned want)
{
	unsigned n = loops_now();

	for (unsigned i = 0; i < 200 && n != want; i++) {
		usleep(10000);
		n = loops_now();
	}
	assert_int_equal(n, want);
}

static void must_be_clean(void)
{
	char path[80];

	snprintf(path, sizeof(path), "%s/mounts", store_path);
	assert_int_equal(mounts_at(path), 0);
	assert_int_equal(mounts_at(target), 0);
	assert_int_equal(count_names(path), 0);
	must_have_loops(0);
	snprintf(path, sizeof(path), "%s/staging", store_path);
	assert_int_equal(count_names(path), 0);
}

static int mount_it(const char *name, bool rw, struct cpull_error *err)
{
	struct cpull_mount_options o = {.size = sizeof(o), .read_write = rw};

	return cpull_mount(engine, name, target, &o, err);
}

static void must_mount(const char *name, bool rw)
{
	struct cpull_error err;
	char path[80];

	if (mount_it(name, rw, &err))
		fail_msg("%s", err.message);
	snprintf(path, sizeof(path), "%s/mounts", store_path);
	assert_int_equal(mounts_at(path), 0);
	assert_int_equal(mounts_at(target), 1);
}

static void must_unmount(void)
{
	struct cpull_error err;

	if (cpull_unmount(engine, target, &err))
		fail_msg("%s", err.message);
	must_be_clean();
}

/* ---- places ---- */

static bool on_ext4;
static unsigned device_of_each; /* 1 where loop devices are the way */

static int fresh(void **state)
{
	struct cpull_engine_options o = {.size = sizeof(o), .store = store_path};

	(void)state;
	with_trees = false;
	if (!(on_ext4 ? fresh_ext4(base) : fresh_tmpfs(base)))
		return -1;
	snprintf(store_path, sizeof(store_path), "%s/store", base);
	snprintf(target, sizeof(target), "%s/view", base);
	if (mkdir("view", 0755))
		return -1;
	return cpull_engine_new(&o, &engine, NULL);
}

static int done(void **state)
{
	(void)state;
	while (umount2(target, MNT_DETACH) == 0)
		;
	cpull_engine_free(STEAL(engine));
	return chdir("/");
}

/* ---- tests ---- */

static void stack_is_as_of_directories(void **state)
{
	(void)state;
	LAYER(1, {0, "gone"}, {0, "kept"}, {0, "replaced"});
	LAYER(2, {'w', "gone"}, {0, "new"}, {0, "replaced"});
	IMAGE("two", 1, 2);
	must_mount("r.example/two:1", false);
	must_have_loops(2 * device_of_each);
	assert_true(has_content("view/kept", "1") && has_content("view/replaced", "2") && has_content("view/new", "2"));
	assert_false(exists("view/gone"));
	assert_int_equal(count_names("view"), 3);
	CHECK_STAT("view", 0751, 2, 0);
	CHECK_STAT("view/kept", 0640, 70000, 0);
	assert_int_equal(open("view/x", O_WRONLY | O_CREAT, 0600), -1);
	assert_int_equal(errno, EROFS);
	/* what is mounted stays */
	assert_int_equal(cpull_image_remove(engine, "r.example/two:1", NULL, NULL), CPULL_ERR_USAGE);
	assert_int_equal(cpull_prune(engine, NULL, NULL), 0);
	assert_true(has_content("view/new", "2"));
	must_unmount();
	assert_int_equal(cpull_image_remove(engine, "r.example/two:1", NULL, NULL), 0);
	assert_int_equal(store_layer_trusted(engine->store, keys[1], NULL), 0);
}

static void writable_mount_takes_all_with_it(void **state)
{
	(void)state;
	LAYER(1, {0, "a"}, {0, "b"});
	LAYER(2, {0, "c"});
	IMAGE("two", 1, 2);
	IMAGE("one", 1);
	for (int i = 0; i < 2; i++) {
		must_mount(i ? "r.example/one:1" : "r.example/two:1", true);
		must_have_loops((i ? 1 : 2) * device_of_each);
		CHECK_STAT("view", 0751, i ? 1 : 2, 0);

		CLEANUP_FD int fd = open("view/a", O_WRONLY | O_TRUNC | O_CLOEXEC);

		assert_int_equal(write(fd, "own", 3), 3);
		close(steal_fd(&fd));
		assert_int_equal(unlink("view/b"), 0);
		assert_true(has_content("view/a", "own") && !exists("view/b"));
		must_unmount();
	}
}

static void one_layer_needs_no_overlay(void **state)
{
	(void)state;
	LAYER(1, {0, "a"});
	IMAGE("one", 1);
	must_mount("r.example/one:1", false);

	struct statfs fs;

	assert_int_equal(statfs("view", &fs), 0);
	assert_int_equal(fs.f_type, EROFS_MAGIC);
	assert_true(has_content("view/a", "1"));
	must_have_loops(device_of_each);
	assert_int_equal(open("view/x", O_WRONLY | O_CREAT, 0600), -1);
	must_unmount();
}

static void repeated_layers_are_mounted_once(void **state)
{
	(void)state;
	LAYER(1, {0, "own-1"}, {0, "same"});
	LAYER(2, {0, "own-2"}, {0, "same"});
	IMAGE("again", 1, 2, 1);
	must_mount("r.example/again:1", false);
	must_have_loops(2 * device_of_each);
	assert_true(has_content("view/same", "1") && exists("view/own-1") && exists("view/own-2"));
	must_unmount();
}

static void opaque_root_hides_what_is_below(void **state)
{
	(void)state;
	LAYER(1, {0, "below"});
	LAYER(2, {'o', NULL}, {0, "middle"});
	LAYER(3, {0, "top"});
	IMAGE("opaque", 1, 2, 3);
	IMAGE("alone", 1, 2);
	must_mount("r.example/opaque:1", false);
	assert_true(!exists("view/below") && exists("view/middle") && exists("view/top"));
	must_unmount();
	must_mount("r.example/alone:1", false);
	assert_true(!exists("view/below") && exists("view/middle"));
	must_have_loops(device_of_each);
	must_unmount();
}

/* Of `count` layers, each with a file of its own, one that all have, and one that the next one hides. */
static void make_many(unsigned count)
{
	unsigned numbers[LAYERS_MAX];

	for (unsigned i = 0; i < count; i++) {
		char own[16], gone[16], hides[16];

		snprintf(own, sizeof(own), "own-%02u", i);
		snprintf(gone, sizeof(gone), "gone-%02u", i);
		snprintf(hides, sizeof(hides), "gone-%02u", i - 1);
		if (i)
			LAYER(i, {'w', hides}, {0, gone}, {0, own}, {0, "same"});
		else
			LAYER(i, {0, gone}, {0, own}, {0, "same"});
		numbers[i] = i;
	}
	make_record("many", numbers, count);
}

static void must_show_many(unsigned count)
{
	char last[32], number[16];

	snprintf(last, sizeof(last), "view/gone-%02u", count - 1);
	snprintf(number, sizeof(number), "%u", count - 1);
	assert_int_equal(count_names("view"), count + 2);
	assert_true(has_content("view/same", number) && has_content("view/own-00", "0") && exists(last));
}

/* So many are mounted one by one, and one more as one. */
static void many_layers(void **state)
{
	static const unsigned counts[] = {16, 17, LAYERS_MAX};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
		bool merged = counts[i] > 16;

		make_many(counts[i]);
		must_mount("r.example/many:1", false);
		must_show_many(counts[i]);
		must_have_loops((counts[i] + merged) * device_of_each);

		struct statfs fs;

		assert_int_equal(statfs("view", &fs), 0);
		assert_int_equal((unsigned long)fs.f_type == EROFS_MAGIC, merged);
		must_unmount();
		must_mount("r.example/many:1", true);
		must_show_many(counts[i]);
		CHECK_STAT("view", 0751, counts[i] - 1, 0);
		assert_int_equal(unlink("view/same"), 0);
		must_unmount();
	}
}

/* Where there is no room for a merged image, it is done without. */
static void many_layers_without_room(void **state)
{
	struct statfs fs;

	(void)state;
	/* on ext4 directories take blocks, too */
	if (on_ext4)
		return;
	make_many(LAYERS_MAX);

	CLEANUP_FD int fd = open("filler", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_int_equal(statfs(".", &fs), 0);
	assert_int_equal(fallocate(fd, 0, 0, (off_t)(fs.f_bavail - 2) * fs.f_bsize), 0);
	must_mount("r.example/many:1", false);
	must_show_many(LAYERS_MAX);
	assert_int_equal(statfs("view", &fs), 0);
	assert_int_not_equal(fs.f_type, EROFS_MAGIC);
	must_unmount();
}

static void damaged_image_is_named(void **state)
{
	struct cpull_error err = {0};

	(void)state;
	LAYER(1, {0, "a"});
	LAYER(2, {0, "b"});
	IMAGE("damaged", 1, 2);

	CLEANUP_FREE char *path = store_layer_path(engine->store, keys[2]);
	CLEANUP_FD int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_int_equal(pwrite(fd, "no magic", 8, EROFS_SUPER_OFFSET), 8);
	assert_true(mount_it("r.example/damaged:1", false, &err) < 0);
	assert_true(strstr(err.message, "layer 2/2") && strstr(err.message, keys[2]));
	must_be_clean();
	/* of another size it is not even there */
	assert_int_equal(ftruncate(fd, EROFS_BLOCK_BYTES / 2), 0);
	assert_int_equal(mount_it("r.example/damaged:1", false, &err), CPULL_ERR_NOT_FOUND);
	must_be_clean();
}

static void target_that_is_mounted_is_refused(void **state)
{
	struct cpull_error err = {0};

	(void)state;
	LAYER(1, {0, "a"});
	IMAGE("one", 1);
	must_mount("r.example/one:1", false);
	assert_int_equal(mount_it("r.example/one:1", false, &err), CPULL_ERR_USAGE);
	must_unmount();
	/* taken down by somebody else, and then by us */
	must_mount("r.example/one:1", true);
	assert_int_equal(umount2(target, 0), 0);
	must_have_loops(0);
	must_unmount();
}

/* ---- hash trees ---- */

/* Turns a byte round, of the first place where a layer's file has the text. */
static void flip_in_layer(unsigned number, const char *text)
{
	CLEANUP_FREE char *path = store_layer_path(engine->store, keys[number]);
	CLEANUP_FD int fd = open(path, O_RDWR | O_CLOEXEC);
	static char data[1u << 20];
	ssize_t n = read(fd, data, sizeof(data));
	char *at = n > 0 ? memmem(data, (size_t)n, text, strlen(text)) : NULL;

	assert_non_null(at);
	*at ^= 1;
	assert_int_equal(pwrite(fd, at, 1, at - data), 1);
	/* past the caches of what reads it */
	assert_int_equal(fsync(fd), 0);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* What one unmount takes down here is more. */
static void check_trees(unsigned count)
{
	bool checked = verity_device_possible(NULL) == 0;
	unsigned loops = checked ? count + (count > 16) : (count + (count > 16)) * device_of_each;

	with_trees = true;
	make_many(count);
	for (int rw = 0; rw < 2; rw++) {
		must_mount("r.example/many:1", rw);
		must_show_many(count);
		must_have_loops(loops);
		must_unmount();
	}
	flip_in_layer(0, "own-00");

	struct cpull_error err = {0};
	int rc = mount_it("r.example/many:1", false, &err);

	if (!checked) {
		/* nobody notices */
		assert_int_equal(rc, 0);
		must_unmount();
		return;
	}
	/* by whoever is the first to read the block: the merging, or who looks for a name */
	if (rc == 0) {
		assert_int_equal(open("view/own-00", O_RDONLY | O_CLOEXEC), -1);
		assert_int_equal(errno, EIO);
		must_unmount();
	} else if (!strstr(err.message, "layer 1/")) {
		fail_msg("%s", err.message);
	}
	must_be_clean();
}

static void trees_check_what_is_read(void **state)
{
	(void)state;
	check_trees(3);
}

static void trees_check_what_is_merged(void **state)
{
	(void)state;
	check_trees(LAYERS_MAX);
}

/* ---- kills ---- */

/* The number of steps is not reached: the mount is there. */
static bool mount_and_die(const char *name, int steps, bool rw)
{
	int status;

	fflush(NULL);

	pid_t pid = fork();

	if (pid == 0) {
		struct cpull_engine_options o = {.size = sizeof(o), .store = store_path};
		struct cpull_mount_options mount = {.size = sizeof(mount), .read_write = rw};
		struct cpull_engine *own;

		if (cpull_engine_new(&o, &own, NULL))
			_exit(2);
		steps_left = steps;
		_exit(cpull_mount(own, name, target, &mount, NULL) ? 1 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return false;
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	return true;
}

enum cure { CURE_UNMOUNT, CURE_MOUNT, CURE_PRUNE, CURES };

static void cure(enum cure by)
{
	bool alive = overlay_is_mounted(target);
	struct cpull_error err = {0};
	int rc = 0;

	/* what shows the image is a mount like any other */
	if (alive)
		assert_true(has_content("view/a", "1") && has_content("view/b", "2"));
	if (by == CURE_PRUNE)
		rc = cpull_prune(engine, NULL, &err);
	if (by == CURE_MOUNT && !alive)
		rc = mount_it("r.example/two:1", false, &err);
	if (rc)
		fail_msg("%s", err.message);
	if (by == CURE_MOUNT)
		assert_true(has_content("view/a", "1") && has_content("view/b", "2"));
	if ((by != CURE_PRUNE || alive) && cpull_unmount(engine, target, &err))
		fail_msg("%s", err.message);
	must_be_clean();
}

static void die_at_each_step(bool rw)
{
	LAYER(1, {0, "a"});
	LAYER(2, {0, "b"});
	IMAGE("two", 1, 2);
	for (enum cure by = 0; by < CURES; by++) {
		int steps = 0;

		while (!mount_and_die("r.example/two:1", steps, rw)) {
			cure(by);
			steps++;
		}
		/* two mounts with two each, the overlay, and the detaching of both */
		assert_true(steps >= 7);
		cure(by);
	}
	/* and the layers are as they were */
	must_mount("r.example/two:1", false);
	assert_true(has_content("view/a", "1") && has_content("view/b", "2"));
	must_unmount();
}

static void killed_merged_mount_leaves_nothing(void **state)
{
	int steps = 0;

	(void)state;
	make_many(LAYERS_MAX);
	for (; !mount_and_die("r.example/many:1", steps, false); steps++) {
		if (!overlay_is_mounted(target))
			must_mount("r.example/many:1", false);
		must_show_many(LAYERS_MAX);
		must_unmount();
	}
	assert_true(steps >= 4);
	must_show_many(LAYERS_MAX);
	must_unmount();
}

static void killed_mount_leaves_nothing(void **state)
{
	(void)state;
	die_at_each_step(false);
}

static void killed_writable_mount_leaves_nothing(void **state)
{
	(void)state;
	die_at_each_step(true);
}

/* Killed while it takes down: what is left is taken down by the next. */
static void killed_unmount_leaves_nothing(void **state)
{
	(void)state;
	LAYER(1, {0, "a"});
	LAYER(2, {0, "b"});
	IMAGE("two", 1, 2);
	for (enum cure by = 0; by < CURES; by++) {
		must_mount("r.example/two:1", true);
		fflush(NULL);

		pid_t pid = fork();

		if (pid == 0) {
			struct cpull_engine_options o = {.size = sizeof(o), .store = store_path};
			struct cpull_engine *own;

			if (cpull_engine_new(&o, &own, NULL))
				_exit(2);
			steps_left = 0;
			_exit(cpull_unmount(own, target, NULL) ? 1 : 0);
		}
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		assert_false(overlay_is_mounted(target));
		cure(by);
	}
}

/* ---- rounds ---- */

#define T(f) cmocka_unit_test_setup_teardown(f, fresh, done)

static int run_group(const char *name)
{
	const struct CMUnitTest tests[] = {
		T(stack_is_as_of_directories), T(writable_mount_takes_all_with_it), T(one_layer_needs_no_overlay),
		T(repeated_layers_are_mounted_once), T(opaque_root_hides_what_is_below), T(many_layers),
		T(many_layers_without_room), T(trees_check_what_is_read), T(trees_check_what_is_merged),
		T(killed_merged_mount_leaves_nothing),
		T(damaged_image_is_named), T(target_that_is_mounted_is_refused), T(killed_mount_leaves_nothing),
		T(killed_writable_mount_leaves_nothing), T(killed_unmount_leaves_nothing),
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

/* Which way is taken on the file system that we are in? */
static unsigned devices_here(void)
{
	char from[80], to[80];
	struct erofs_mount mount = {.image = from, .target = to};
	enum erofs_way way = EROFS_BY_LOOP;

	snprintf(from, sizeof(from), "%s/try", base);
	snprintf(to, sizeof(to), "%s/tried", base);

	CLEANUP_FD int fd = open("try", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CLEANUP_FD int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	write_image(fd, here, 1, NULL, 0, NULL);
	if (mkdir("tried", 0755) == 0 && __real_erofs_mount(&mount, NULL, &way, NULL) == 0)
		__real_umount2(to, 0);
	return way == EROFS_BY_LOOP || way == EROFS_BY_LOOP_DIRECT ? 1 : 0;
}

int main(void)
{
	struct cpull_error err;
	int failed = 0;

	if (!own_namespace())
		return 0;
	if (!begin_at(base))
		return 1;
	if (erofs_mount_possible(AT_FDCWD, &err)) {
		print_message("skipped: %s\n", err.message);
		end_at(base);
		return 0;
	}
	alarm(110);
	device_of_each = devices_here();
	failed += run_group("EROFS layers on tmpfs");
	if (fresh_ext4(base)) {
		device_of_each = devices_here();
		on_ext4 = true;
		failed += run_group("EROFS layers on ext4");
	}
	end_at(base);
	return failed;
}
