/* SPDX-License-Identifier: Apache-2.0
 *
 * Checking layers: a directory against its list, an image against its sums, and by itself.
 */
#include "layer_fixture.h"

#include <sys/mman.h>

#include "snapshot/checksum.h"
#include "snapshot/erofs_check.h"
#include "snapshot/image_sums.h"

static char base[] = "/tmp/checks-XXXXXX";

/* ---- a directory, with one thing changed ---- */

struct written {
	int root;
	struct list_place list;
};

/* A layer in "l" whose list stays open. */
static struct written write_listed(struct bytes *tar)
{
	struct log log;
	struct dir_fs_options place = {.log = &log};
	struct outcome out = {0};
	const struct how how = {.tie = true};
	struct written w;

	log_init(&log, NULL, NULL, CPULL_LOG_ERROR);
	assert_int_equal(fs_remove_tree(AT_FDCWD, "l", NULL), 0);
	assert_int_equal(mkdir("l", 0755), 0);
	place.dirfd = w.root = open("l", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	w.list = begin_list(&place);
	tar_end(tar);

	struct layer_writer *writer = writer_on(w.list.fs, 0);

	assert_int_equal(feed_all(writer, tar, 65536, &out.err), 0);
	complete_layer(writer, &how, &out, &w.list);
	assert_int_equal(out.code, 0);
	bytes_free(tar);
	log_destroy(&log);
	return w;
}

struct found {
	unsigned count;
	char path[256], what[512];
};

static void note_found(void *payload, const char *path, const char *what)
{
	struct found *found = payload;

	found->count++;
	snprintf(found->path, sizeof(found->path), "%s", path);
	snprintf(found->what, sizeof(found->what), "%s", what);
}

static struct found check_written(const struct written *w)
{
	struct found found = {0};

	check_layer(w->root, w->list.fd, &w->list.facts, note_found, &found);
	return found;
}

static void assert_found(const struct written *w, const char *path, const char *what)
{
	struct found found = check_written(w);

	assert_int_equal(found.count, 1);
	assert_string_equal(found.path, path);
	assert_string_equal(found.what, what);
}

static void end_written(struct written *w)
{
	close(w->root);
	close(w->list.fd);
}

static void flip(const char *path, off_t at)
{
	struct stat st = stat_of(path);
	const struct timespec times[2] = {st.st_mtim, st.st_mtim};
	CLEANUP_FD int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	assert_int_equal(futimens(fd, times), 0);
}

static void files_by_several_names(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD_DIR(&t, .name = "./");
	ADD_DIR(&t, .name = "a");
	ADD(&t, .name = "a/one", .data = "the same");
	ADD_DIR(&t, .name = "b");
	ADD_LINK(&t, "b/two", "a/one");
	ADD_LINK(&t, "three", "a/one");
	/* the first name goes, the others stay */
	ADD(&t, .name = "a/one", .data = "another");

	struct written w = write_listed(&t);
	struct found found;

	assert_int_equal(check_written(&w).count, 0);
	/* one file: told once, whichever name it is */
	flip("l/three", 2);
	found = check_written(&w);
	assert_int_equal(found.count, 1);
	assert_string_equal(found.what, "other data");
	flip("l/three", 2);
	/* a name that has become a file of its own is read */
	assert_int_equal(system("cp -p l/three l/copy && cp -p l/copy l/copy2 && mv l/copy l/three && rm l/copy2 && "
				"touch -d @1500000000 l"), 0);
	assert_int_equal(check_written(&w).count, 0);
	flip("l/three", 2);
	assert_found(&w, "three", "other data");
	end_written(&w);
}

static void data_in_pieces_and_with_holes(void **state)
{
	const size_t len = 3u << 20;
	uint8_t *data = malloc(len);
	struct bytes t = {0};

	(void)state;
	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)(i * 31 + i / 4096);
	ADD_DIR(&t, .name = "./");
	ADD(&t, .name = "large", .data = (const char *)data, .len = len);
	ADD(&t, .name = "middle", .data = (const char *)data, .len = 100000);
	ADD(&t, .name = "empty");

	struct written w = write_listed(&t);

	assert_int_equal(check_written(&w).count, 0);
	for (size_t at = 0; at < len; at += len / 3 - 1) {
		flip("l/large", (off_t)at);
		assert_found(&w, "large", "other data");
		flip("l/large", (off_t)at);
	}
	flip("l/middle", 99999);
	assert_found(&w, "middle", "other data");
	end_written(&w);
	free(data);
}

/* Two attributes of the entry that comes next. */
static void tar_xattrs(struct bytes *tar, const char *a, const void *a_value, size_t a_len, const char *b,
		       const void *b_value, size_t b_len)
{
	struct bytes records = {0};

	pax_record(&records, a, a_value, a_len);
	pax_record(&records, b, b_value, b_len);
	tar_pax(tar, &records);
	bytes_free(&records);
}

static void xattrs_and_acls(void **state)
{
	/* user::rw-, user:5:r--, group::r--, mask::r--, other::--- */
	static const uint8_t acl[] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 5, 0, 0, 0,
				      4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255,
				      32, 0, 0, 0, 255, 255, 255, 255};
	struct bytes t = {0};

	(void)state;
	ADD_DIR(&t, .name = "./");
	tar_xattrs(&t, "SCHILY.xattr.trusted.a", "1", 1, "SCHILY.xattr.trusted.b", "2", 1);
	ADD(&t, .name = "f", .data = "f");
	tar_xattr(&t, "system.posix_acl_access", acl, sizeof(acl));
	ADD(&t, .name = "acl", .data = "f", .mode = 0777);
	tar_xattrs(&t, "SCHILY.xattr.system.posix_acl_default", acl, sizeof(acl), "SCHILY.xattr.trusted.c", "3", 1);
	ADD_DIR(&t, .name = "d");
	tar_xattr(&t, "trusted.link", "x", 1);
	ADD_SYMLINK(&t, "s", "nowhere");

	struct written w = write_listed(&t);

	assert_int_equal(check_written(&w).count, 0);
	assert_int_equal(setxattr("l/f", "trusted.a", "2", 1, 0), 0);
	assert_found(&w, "f", "other extended attributes");
	/* the same values by other names */
	assert_int_equal(setxattr("l/f", "trusted.b", "1", 1, 0), 0);
	assert_found(&w, "f", "other extended attributes");
	assert_int_equal(removexattr("l/f", "trusted.a") | removexattr("l/f", "trusted.b"), 0);
	assert_found(&w, "f", "no extended attributes");
	assert_int_equal(setxattr("l/f", "trusted.a", "1", 1, 0) | setxattr("l/f", "trusted.b", "2", 1, 0), 0);
	assert_int_equal(removexattr("l/d", "system.posix_acl_default"), 0);
	assert_found(&w, "d", "other extended attributes");
	assert_int_equal(setxattr("l/d", "system.posix_acl_default", acl, sizeof(acl), 0), 0);
	assert_int_equal(lremovexattr("l/s", "trusted.link"), 0);
	assert_found(&w, "s", "no extended attributes");
	/* labels that the machine gives by itself do not count */
	assert_int_equal(lsetxattr("l/s", "trusted.link", "x", 1, 0), 0);
	if (setxattr("l/f", "security.SMACK64", "_", 1, 0) == 0)
		assert_int_equal(check_written(&w).count, 0);
	end_written(&w);
}

static void several_differences_are_one_line(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD_DIR(&t, .name = "./");
	ADD(&t, .name = "f", .data = "f");

	struct written w = write_listed(&t);

	assert_int_equal(system("chmod 600 l/f && chown 1:2 l/f && echo longer > l/f"), 0);
	assert_found(&w, "f", "mode 0600 and not 0644, owner 1:2 and not 0:0, another time, 7 bytes and not 1");
	end_written(&w);
}

/* What is not there is told once, and not all that was in it. */
static void missing_directories(void **state)
{
	struct bytes t = {0};

	(void)state;
	ADD_DIR(&t, .name = "./");
	ADD(&t, .name = "a/b/c/f", .data = "f");
	ADD(&t, .name = "a/b/g", .data = "g");

	struct written w = write_listed(&t);

	assert_int_equal(system("rm -r l/a && touch -d @1500000000 l"), 0);
	assert_found(&w, "a", "missing");
	assert_int_equal(system("ln -s / l/a && touch -d @1500000000 l"), 0);
	assert_found(&w, "a", "a symlink and not a directory");
	end_written(&w);
}

static void a_check_can_be_stopped(void **state)
{
	struct bytes t = {0};
	struct contents_index *index;
	struct dir_checker *checker;
	struct found found = {0};
	atomic_bool stop = true;
	atomic_uint_fast64_t bytes = 0;
	const struct check_sink sink = {note_found, &found, &stop, &bytes};

	(void)state;
	ADD(&t, .name = "f", .data = "f");

	struct written w = write_listed(&t);

	assert_int_equal(contents_index_load(w.list.fd, &w.list.facts, &index, NULL), 0);
	assert_int_equal(dir_checker_new(&checker, NULL), 0);
	assert_int_equal(dir_check(checker, w.root, index, 0, &sink, NULL), CPULL_ERR_CANCELLED);
	dir_checker_free(checker);
	contents_index_free(index);
	end_written(&w);
}

/* ---- sums of an image ---- */

static void sums_of_each_range(void **state)
{
	static const uint64_t sizes[] = {1, 2, 256, 257, 258, 600};
	uint8_t *image = malloc(600 * 4096), *buffer = malloc(256 * 4096);

	(void)state;
	for (size_t i = 0; i < 600 * 4096; i++)
		image[i] = (uint8_t)(i * 13 + i / 4096);
	for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
		uint64_t blocks = sizes[s], *loaded = NULL;
		CLEANUP_FD int fd = memfd_create("image", MFD_CLOEXEC);
		CLEANUP_FD int sums_fd = memfd_create("sums", MFD_CLOEXEC);
		struct contents_facts facts;
		struct image_sums *sums;

		assert_int_equal(pwrite(fd, image, blocks * 4096, 0), (ssize_t)(blocks * 4096));
		assert_int_equal(image_sums_new(&sums, NULL), 0);
		/* in pieces of any size */
		for (uint64_t at = 1, n; at < blocks; at += n) {
			n = MIN(blocks - at, at % 2 ? 100u : 300u);
			assert_int_equal(image_sums_add(sums, at, image + at * 4096, n, NULL), 0);
		}
		assert_int_equal(image_sums_add(sums, 0, image, 1, NULL), 0);
		assert_int_equal(image_sums_finish(sums, sums_fd, &facts, NULL), 0);
		image_sums_free(sums);
		assert_int_equal(image_sums_load(sums_fd, &facts, blocks, &loaded, NULL), 0);
		for (uint64_t i = 0; i < image_sums_count(blocks); i++) {
			uint64_t first, count;
			uint8_t byte;

			image_sums_range(blocks, i, &first, &count);
			assert_int_equal(image_sums_check(fd, loaded, blocks, i, buffer, NULL), 0);
			byte = image[(first + count) * 4096 - 1] ^ 1;
			assert_int_equal(pwrite(fd, &byte, 1, (off_t)((first + count) * 4096 - 1)), 1);
			assert_int_equal(image_sums_check(fd, loaded, blocks, i, buffer, NULL), CPULL_ERR_DIGEST);
			byte ^= 1;
			assert_int_equal(pwrite(fd, &byte, 1, (off_t)((first + count) * 4096 - 1)), 1);
		}
		assert_int_equal(ftruncate(fd, (off_t)blocks * 4096 - 1), 0);
		assert_int_equal(image_sums_check(fd, loaded, blocks, image_sums_count(blocks) - 1, buffer, NULL),
				 CPULL_ERR_DIGEST);
		free(loaded);
		/* not as many as the image has blocks */
		assert_int_equal(image_sums_load(sums_fd, &facts, blocks + 256, &loaded, NULL), CPULL_ERR_DIGEST);
		facts.sum ^= 1;
		assert_int_equal(image_sums_load(sums_fd, &facts, blocks, &loaded, NULL), CPULL_ERR_DIGEST);
	}
	free(image);
	free(buffer);
}

/* ---- an image by itself ---- */

struct all_found {
	unsigned count;
	char text[4096];
};

static void note_all(void *payload, const char *path, const char *what)
{
	struct all_found *all = payload;
	size_t len = strlen(all->text);

	all->count++;
	snprintf(all->text + len, sizeof(all->text) - len, "%s: %s\n", path, what);
}

static struct all_found look_through(int fd, const struct block_run *runs, size_t count)
{
	struct all_found all = {0};
	atomic_bool stop = false;
	atomic_uint_fast64_t bytes = 0;
	const struct check_sink sink = {note_all, &all, &stop, &bytes};
	int rc = runs ? erofs_check_owners(fd, runs, count, &sink, NULL) : erofs_check_structure(fd, &sink, NULL);

	assert_int_equal(rc, 0);
	return all;
}

static int write_image(struct bytes *tar)
{
	struct log log;
	struct outcome out = {0};
	struct list_place none = {.fd = -1};
	const struct how how = {.tie = true};

	log_init(&log, NULL, NULL, CPULL_LOG_ERROR);
	tar_end(tar);

	struct image_place place = begin_image("i", CPULL_IO_SYNC, &log);
	struct layer_writer *writer = writer_on(place.fs, 0);

	assert_int_equal(feed_all(writer, tar, 65536, &out.err), 0);
	complete_layer(writer, &how, &out, &none);
	assert_int_equal(out.code, 0);
	bytes_free(tar);
	end_image(&place);
	log_destroy(&log);
	return open("i.erofs", O_RDWR | O_CLOEXEC);
}

static void what_is_in_damaged_blocks(void **state)
{
	char data[3 * 4096];
	struct bytes t = {0};

	(void)state;
	memset(data, 'x', sizeof(data));
	ADD_DIR(&t, .name = "./");
	ADD_DIR(&t, .name = "d");
	ADD(&t, .name = "d/one", .data = data, .len = sizeof(data));
	ADD(&t, .name = "d/two", .data = data, .len = sizeof(data));

	CLEANUP_FD int fd = write_image(&t);
	struct all_found all = look_through(fd, NULL, 0);

	assert_int_equal(all.count, 0);
	/* data goes from block 1 on, as it comes */
	const struct block_run first[] = {{1, 1}}, both[] = {{3, 2}}, two[] = {{3, 1}, {6, 1}}, none[] = {{90, 5}};

	all = look_through(fd, first, 1);
	assert_string_equal(all.text, "d/one: its data is in damaged blocks\n");
	all = look_through(fd, both, 1);
	assert_string_equal(all.text, "d/one: its data is in damaged blocks\nd/two: its data is in damaged blocks\n");
	all = look_through(fd, two, 2);
	assert_string_equal(all.text, "d/one: its data is in damaged blocks\nd/two: its data is in damaged blocks\n");
	assert_int_equal(look_through(fd, none, 1).count, 0);

	const struct block_run metadata[] = {{7, 2}};

	all = look_through(fd, metadata, 1);
	assert_int_equal(all.count, 4);
	assert_non_null(strstr(all.text, "d/two: its inode is in damaged blocks\n"));
}

static void an_image_that_is_none(void **state)
{
	CLEANUP_FD int fd = memfd_create("image", MFD_CLOEXEC);
	const struct block_run all_of_it[] = {{0, 100}};
	struct all_found all;

	(void)state;
	assert_int_equal(ftruncate(fd, 8192), 0);
	all = look_through(fd, NULL, 0);
	assert_int_equal(all.count, 1);
	assert_non_null(strstr(all.text, "no EROFS image"));
	/* there is nobody to name */
	assert_int_equal(look_through(fd, all_of_it, 1).count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_by_several_names),
		cmocka_unit_test(data_in_pieces_and_with_holes),
		cmocka_unit_test(xattrs_and_acls),
		cmocka_unit_test(several_differences_are_one_line),
		cmocka_unit_test(missing_directories),
		cmocka_unit_test(a_check_can_be_stopped),
		cmocka_unit_test(sums_of_each_range),
		cmocka_unit_test(what_is_in_damaged_blocks),
		cmocka_unit_test(an_image_that_is_none),
	};

	if (!own_namespace())
		return 0;
	if (!mkdtemp(base) || !fresh_tmpfs(base))
		return 1;

	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	assert_int_equal(chdir("/"), 0);
	umount2(base, MNT_DETACH);
	rmdir(base);
	return failed;
}
