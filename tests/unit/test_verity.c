/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/verity and verity_check: trees of every number of levels, against a plain computation, against veritysetup
 * where that is installed, and against the images' roots of the test vectors; what is changed is found and named. Runs
 * as root, with a tmpfs of its own.
 */
#include "layer_fixture.h"

#include <openssl/evp.h>

#include "snapshot/verity.h"
#include "snapshot/verity_check.h"
#include "vectors.h"

#define BLOCK VERITY_BLOCK_BYTES
#define HASH VERITY_HASH_BYTES
#define UUID_TEXT "11111111-1111-1111-1111-111111111111"
/* Leaves that the maker keeps in memory. */
#define WINDOW 32768u

static char base[] = "/tmp/verity-XXXXXX";
static const char salt[] = "a salt of this test's own, and odd";
static bool has_veritysetup;

/* ---- files ---- */

static void fill_block(uint8_t block[BLOCK], uint64_t number)
{
	uint64_t word = number * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i < BLOCK; i += sizeof(word)) {
		word = word * 6364136223846793005ull + 1442695040888963407ull;
		memcpy(block + i, &word, sizeof(word));
	}
}

static void read_at(int fd, void *out, size_t len, uint64_t offset)
{
	assert_int_equal(pread(fd, out, len, (off_t)offset), (ssize_t)len);
}

static void write_at(int fd, const void *data, size_t len, uint64_t offset)
{
	assert_int_equal(pwrite(fd, data, len, (off_t)offset), (ssize_t)len);
}

static int make_file(const char *name, uint64_t blocks)
{
	static uint8_t many[64][BLOCK];
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	for (uint64_t at = 0; at < blocks;) {
		size_t n = 0;

		for (; n < ARRAY_LEN(many) && at + n < blocks; n++)
			fill_block(many[n], at + n);
		write_at(fd, many, n * BLOCK, at * BLOCK);
		at += n;
	}
	return fd;
}

/* ---- a tree the plain way ---- */

static void hash_block(const void *data, size_t salt_len, uint8_t out[HASH])
{
	static uint8_t message[VERITY_SALT_BYTES + BLOCK];

	memcpy(message, salt, salt_len);
	memcpy(message + salt_len, data, BLOCK);
	assert_int_equal(EVP_Digest(message, salt_len + BLOCK, out, NULL, EVP_sha256(), NULL), 1);
}

static void plain_root(int fd, uint64_t blocks, size_t salt_len, uint8_t root[HASH])
{
	CLEANUP_FREE uint8_t *hashes = calloc(blocks + 128, HASH);
	uint8_t block[BLOCK];

	assert_non_null(hashes);
	for (uint64_t i = 0; i < blocks; i++) {
		read_at(fd, block, BLOCK, i * BLOCK);
		hash_block(block, salt_len, hashes + i * HASH);
	}
	while (blocks > 1) {
		uint64_t above = (blocks + 127) / 128;

		memset(hashes + blocks * HASH, 0, (above * 128 - blocks) * HASH);
		for (uint64_t i = 0; i < above; i++)
			hash_block(hashes + i * BLOCK, salt_len, hashes + i * HASH);
		blocks = above;
	}
	memcpy(root, hashes, HASH);
}

/* ---- making and checking ---- */

static struct verity *new_tree(size_t salt_len)
{
	struct verity_options options = {.salt = salt, .salt_len = salt_len, .spool_dirfd = AT_FDCWD};
	struct verity *out;
	struct cpull_error err;

	memset(options.uuid, 0x11, sizeof(options.uuid));
	if (verity_new(&options, &out, &err))
		fail_msg("%s", err.message);
	return out;
}

static void add(struct verity *verity, uint64_t first, const void *data, size_t blocks)
{
	struct cpull_error err;

	if (verity_add(verity, first, data, blocks, &err))
		fail_msg("%s", err.message);
}

static void add_from_file(struct verity *verity, int fd, uint64_t first, size_t blocks)
{
	CLEANUP_FREE uint8_t *data = malloc(blocks * BLOCK);

	read_at(fd, data, blocks * BLOCK, first * BLOCK);
	add(verity, first, data, blocks);
}

static struct verity_image finish(struct verity *verity, int fd, uint64_t blocks, size_t salt_len)
{
	struct verity_image image = {.fd = fd, .data_blocks = blocks, .salt = salt, .salt_len = salt_len};
	struct verity_result result;
	struct cpull_error err;

	if (verity_finish(verity, fd, blocks, &result, &err))
		fail_msg("%s", err.message);
	verity_free(verity);
	memcpy(image.root, result.root, sizeof(image.root));
	assert_int_equal(lseek(fd, 0, SEEK_END), (off_t)(result.file_blocks * BLOCK));
	return image;
}

/* As an image is written: all but the first block in pieces, some of it again, the first last. */
static struct verity_image append_tree(int fd, uint64_t blocks, size_t salt_len)
{
	struct verity *verity = new_tree(salt_len);
	uint64_t at = 1;

	for (size_t piece = 1; at < blocks; piece = piece % 97 + 1) {
		size_t n = (size_t)MIN(blocks - at, (uint64_t)piece);
		uint8_t other[BLOCK] = {1};

		if (piece == 13)
			add(verity, at, other, 1);
		add_from_file(verity, fd, at, n);
		at += n;
	}
	add_from_file(verity, fd, 0, 1);
	return finish(verity, fd, blocks, salt_len);
}

static void must_be_sound(const struct verity_image *image, uint64_t first, uint64_t count)
{
	struct cpull_error err;

	if (verity_check(image, first, count, &err))
		fail_msg("%s", err.message);
}

static void must_say(const struct verity_image *image, uint64_t first, uint64_t count, int code, const char *why)
{
	struct cpull_error err = {0};

	assert_int_equal(verity_check(image, first, count, &err), code);
	if (err.code != code || strstr(err.message, why) != err.message)
		fail_msg("code %d, \"%s\" does not begin with \"%s\"", err.code, err.message, why);
}

static void root_hex(const struct verity_image *image, char out[2 * HASH + 1])
{
	hex_encode(image->root, HASH, out);
}

/* ---- veritysetup ---- */

static int run(char *command)
{
	int status = system(command);

	free(command);
	return status;
}

static void salt_hex(size_t salt_len, char out[2 * VERITY_SALT_BYTES + 1])
{
	strcpy(out, "-");
	if (salt_len)
		hex_encode((const uint8_t *)salt, salt_len, out);
}

/* veritysetup accepts the file `name`, and makes the same one from its data. */
static void compare_with_veritysetup(const char *name, const struct verity_image *image)
{
	char root[2 * HASH + 1], hex[2 * VERITY_SALT_BYTES + 1];
	unsigned long long data = image->data_blocks * BLOCK;

	if (!has_veritysetup)
		return;
	root_hex(image, root);
	salt_hex(image->salt_len, hex);
	assert_int_equal(run(format_string("veritysetup verify %s %s --hash-offset=%llu %s", name, name, data, root)),
			 0);
	assert_int_equal(run(format_string("head -c %llu %s >theirs && veritysetup format theirs theirs "
					   "--hash-offset=%llu --uuid=" UUID_TEXT " --salt=%s >said && "
					   "cmp %s theirs && grep -q %s said",
					   data, name, data, hex, name, root)),
			 0);
	unlink("theirs");
}

/* ---- tests ---- */

static void every_shape(void **state)
{
	static const uint64_t sizes[] = {1, 2, 3, 127, 128, 129, 255, 256, 257, 2049, 16383, 16384, 16385};

	(void)state;
	for (size_t i = 0; i < 2 * ARRAY_LEN(sizes); i++) {
		uint64_t blocks = sizes[i / 2];
		size_t salt_len = i % 2 ? sizeof(salt) - 1 : 0;
		CLEANUP_FD int fd = make_file("image", blocks);
		struct verity_image image = append_tree(fd, blocks, salt_len);
		uint8_t want[HASH];

		plain_root(fd, blocks, salt_len, want);
		assert_memory_equal(image.root, want, HASH);
		must_be_sound(&image, 0, blocks);
		must_be_sound(&image, blocks / 2, blocks - blocks / 2);
		must_be_sound(&image, blocks / 3, blocks / 5);
		must_be_sound(&image, blocks, 0);
		compare_with_veritysetup("image", &image);
		unlink("image");
	}
}

static void shapes_as_computed(void **state)
{
	struct verity_shape shape = verity_shape_of(VERITY_DATA_BLOCKS);

	(void)state;
	assert_int_equal(shape.levels, VERITY_LEVELS);
	assert_int_equal(shape.level[0].blocks, 1u << 25);
	assert_int_equal(shape.level[4].blocks, 1);
	assert_int_equal(shape.level[4].first, (uint64_t)VERITY_DATA_BLOCKS + 1);
	assert_int_equal(shape.level[0].first + shape.level[0].blocks, shape.end);
	shape = verity_shape_of(1);
	assert_int_equal(shape.levels, 0);
	assert_int_equal(shape.end, 2);
}

/* The longest salt that there can be, and lengths around SHA-256's blocks. */
static void every_salt(void **state)
{
	static uint8_t long_salt[VERITY_SALT_BYTES + 1];
	static const size_t lengths[] = {1, 63, 64, 65, VERITY_SALT_BYTES};
	struct verity_options options = {.salt = long_salt, .salt_len = sizeof(long_salt), .spool_dirfd = AT_FDCWD};
	char hex[2 * sizeof(long_salt) + 1];
	struct cpull_error err;
	struct verity *verity;

	(void)state;
	for (size_t i = 0; i < sizeof(long_salt); i++)
		long_salt[i] = (uint8_t)(i * 7 + 1);
	assert_int_equal(verity_new(&options, &verity, &err), CPULL_ERR_USAGE);
	assert_null(verity);
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		CLEANUP_FD int fd = make_file("image", 5);

		options.salt_len = lengths[i];
		assert_int_equal(verity_new(&options, &verity, NULL), 0);
		add_from_file(verity, fd, 0, 5);

		struct verity_image image = finish(verity, fd, 5, lengths[i]);

		image.salt = long_salt;
		must_be_sound(&image, 0, 5);
		if (has_veritysetup) {
			char root[2 * HASH + 1];

			root_hex(&image, root);
			hex_encode(long_salt, lengths[i], hex);
			assert_int_equal(run(format_string("veritysetup verify --hash-offset=20480 image image %s", root)),
					 0);
			assert_int_equal(run(format_string("veritysetup dump --hash-offset=20480 image | grep -q '%s$'",
							   hex)), 0);
		}
		image.salt_len = sizeof(long_salt);
		must_say(&image, 0, 5, CPULL_ERR_USAGE, "verity: 5 blocks and a salt of 257 bytes");
	}
}

static void vectors_have_their_roots(void **state)
{
	const char *name;
	json_t *entry;
	unsigned checked = 0;

	(void)state;
	if (!vectors_present())
		skip();

	CLEANUP_JSON json_t *index = vector_json("erofs/index.json");

	json_object_foreach(index, name, entry) {
		const char *want = json_string_value(json_object_get(entry, "verity_root"));
		CLEANUP_FREE char *path = format_string("erofs/%s", name);
		CLEANUP_BYTES struct bytes data = vector_read(path);
		/* the vectors are images; trees are what their roots say */
		uint64_t blocks = (uint64_t)json_integer_value(json_object_get(entry, "blocks"));
		CLEANUP_FD int fd = open("image", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		char root[2 * HASH + 1];

		if (!want)
			continue;
		assert_true(data.len >= blocks * BLOCK);
		write_at(fd, data.data, blocks * BLOCK, 0);

		struct verity_image image = append_tree(fd, blocks, 0);

		root_hex(&image, root);
		assert_string_equal(root, want);
		must_be_sound(&image, 0, blocks);
		checked++;
	}
	assert_true(checked >= 4);
}

/* More leaves than are kept in memory, most of them of a hole; changes on both sides of what is in the spool. */
static void a_spool_and_late_changes(void **state)
{
	static const uint64_t late[] = {0, 1, WINDOW - 1, WINDOW, 2 * WINDOW - 3, 2 * WINDOW + 4};
	static uint8_t many[300][BLOCK];
	uint64_t blocks = 2 * WINDOW + 5 + ARRAY_LEN(many);
	CLEANUP_FD int fd = open("image", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct verity *verity = new_tree(0);
	uint8_t block[BLOCK];
	unsigned fds = count_fds();
	uint8_t want[HASH];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(many); i++)
		fill_block(many[i], i);
	/* a piece that lies across the end of the window, and is then half in the spool */
	for (unsigned round = 0; round < 2; round++) {
		memset(many[7], (int)round, BLOCK);
		write_at(fd, many, sizeof(many), (WINDOW - 150) * (uint64_t)BLOCK);
		add(verity, WINDOW - 150, many, ARRAY_LEN(many));
	}
	assert_int_equal(count_fds(), fds + 1);
	assert_int_equal(count_names("."), 1);
	for (size_t i = 0; i < ARRAY_LEN(late); i++) {
		fill_block(block, late[i]);
		write_at(fd, block, BLOCK, late[i] * BLOCK);
		add(verity, late[i], block, 1);
	}
	assert_int_equal(ftruncate(fd, (off_t)(blocks * BLOCK)), 0);

	struct verity_image image = finish(verity, fd, blocks, 0);

	assert_int_equal(count_fds(), fds);
	plain_root(fd, blocks, 0, want);
	assert_memory_equal(image.root, want, HASH);
	must_be_sound(&image, WINDOW - 500, 1000);
	must_be_sound(&image, blocks - 1000, 1000);
}

/* As on file systems that have no files without a name. */
static bool refuse_tmpfile(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_TMPFILE & ~O_DIRECTORY, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = ARRAY_LEN(code), .filter = code};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0) == 0;
}

static void a_spool_with_a_name(void **state)
{
	if (!refuse_tmpfile())
		skip();
	assert_int_equal(open(".", O_TMPFILE | O_RDWR, 0600), -1);
	assert_int_equal(errno, EOPNOTSUPP);
	a_spool_and_late_changes(state);
}

static void without_tmpfile(void **state)
{
	(void)state;
	in_child(a_spool_with_a_name, NULL);
}

static void a_few_zero_blocks(void **state)
{
	CLEANUP_FD int fd = open("image", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct verity *verity = new_tree(0);
	uint8_t want[HASH];

	(void)state;
	assert_int_equal(ftruncate(fd, 200 * BLOCK), 0);

	struct verity_image image = finish(verity, fd, 200, 0);

	plain_root(fd, 200, 0, want);
	assert_memory_equal(image.root, want, HASH);
	compare_with_veritysetup("image", &image);
}

/* One byte anywhere is found, named, and found by whoever has it in his range only. */
static void changed_blocks_are_named(void **state)
{
	const uint64_t blocks = 300;
	CLEANUP_FD int fd = make_file("image", blocks);
	struct verity_image image = append_tree(fd, blocks, 3);
	/* superblock at 300, top at 301, three blocks of leaves from 302 */
	static const struct {
		uint64_t block;
		unsigned byte;
		uint64_t first, count; /* a range that is concerned */
		const char *why;
	} rows[] = {
		{0, 0, 0, 128, "block 0 does not match its hash"},
		{127, 4095, 0, 128, "block 127 does not match its hash"},
		{128, 1, 128, 128, "block 128 does not match its hash"},
		{299, 77, 290, 10, "block 299 does not match its hash"},
		{300, 3, 299, 1, "block 300 is not the superblock"},
		{300, 600, 256, 44, "block 300 is not the superblock"},
		{301, 0, 0, 1, "block 301, the top of its hash tree, does not have the root hash"},
		{301, 4000, 280, 1, "block 301, the top of its hash tree, does not have the root hash"},
		{302, 5, 0, 1, "block 302, of its hash tree, does not match the hash above it"},
		{304, 4095, 256, 1, "block 304, of its hash tree, does not match the hash above it"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t offset = rows[i].block * BLOCK + rows[i].byte;
		bool top = rows[i].block == 301;
		uint8_t byte;

		read_at(fd, &byte, 1, offset);
		byte ^= 0x40;
		write_at(fd, &byte, 1, offset);
		must_say(&image, 0, blocks, CPULL_ERR_DIGEST, rows[i].why);
		must_say(&image, rows[i].first, rows[i].count, CPULL_ERR_DIGEST, rows[i].why);
		if (!top)
			must_be_sound(&image, rows[i].first >= 256 ? 0 : 256, rows[i].first >= 256 ? 128 : 44);
		byte ^= 0x40;
		write_at(fd, &byte, 1, offset);
		must_be_sound(&image, 0, blocks);
	}
}

static void the_first_of_many_is_named(void **state)
{
	CLEANUP_FD int fd = make_file("image", 1000);
	struct verity_image image = append_tree(fd, 1000, 0);

	(void)state;
	for (uint64_t block = 400; block < 900; block += 7)
		write_at(fd, "changed", 7, block * BLOCK);
	must_say(&image, 0, 1000, CPULL_ERR_DIGEST, "block 400 ");
	must_say(&image, 401, 599, CPULL_ERR_DIGEST, "block 407 ");
	must_be_sound(&image, 0, 400);
}

static void other_parameters_do_not_fit(void **state)
{
	CLEANUP_FD int fd = make_file("image", 200);
	struct verity_image image = append_tree(fd, 200, 8), other = image;

	(void)state;
	other.salt_len = 7;
	must_say(&other, 0, 200, CPULL_ERR_DIGEST, "block 201, the top");
	other = image;
	other.root[31] ^= 1;
	must_say(&other, 0, 200, CPULL_ERR_DIGEST, "block 201, the top");
	other = image;
	other.data_blocks = 199;
	must_say(&other, 0, 199, CPULL_ERR_DIGEST, "block 200, the top");
	other.data_blocks = 1;
	must_say(&other, 0, 1, CPULL_ERR_DIGEST, "block 0 does not match");
	other.data_blocks = 0;
	must_say(&other, 0, 0, CPULL_ERR_USAGE, "verity: 0 blocks");
	other.data_blocks = (uint64_t)VERITY_DATA_BLOCKS + 1;
	must_say(&other, 0, 1, CPULL_ERR_USAGE, "verity: 4294967296 blocks");
	must_say(&image, 0, 201, CPULL_ERR_USAGE, "verity: block 201 is checked of 200");
	must_say(&image, 2, UINT64_MAX, CPULL_ERR_USAGE, "verity: block ");
}

static void a_short_file_is_said_to_be_short(void **state)
{
	CLEANUP_FD int fd = make_file("image", 200);
	struct verity_image image = append_tree(fd, 200, 0);

	(void)state;
	/* 200 of data, superblock, top, two of leaves */
	assert_int_equal(ftruncate(fd, 203 * BLOCK + 5), 0);
	must_say(&image, 0, 200, CPULL_ERR_SIZE, "it ends in block 203, but has to have 204");
	assert_int_equal(ftruncate(fd, 100), 0);
	must_say(&image, 0, 200, CPULL_ERR_SIZE, "it ends in block 201, but has to have 204");
}

static void what_cannot_be_read_or_written(void **state)
{
	CLEANUP_FD int fd = make_file("image", 200);
	struct verity_image image = append_tree(fd, 200, 0);
	CLEANUP_FD int write_only = open("image", O_WRONLY | O_CLOEXEC);
	CLEANUP_FD int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	struct verity_result result;
	struct verity *verity = new_tree(0);
	struct cpull_error err;

	(void)state;
	image.fd = write_only;
	must_say(&image, 0, 200, CPULL_ERR_STORAGE, "reading block 201: ");
	add_from_file(verity, fd, 0, 100);
	assert_int_equal(verity_finish(verity, full, 200, &result, &err), CPULL_ERR_SPACE);
	assert_non_null(strstr(err.message, "superblock"));
	assert_int_equal(verity_finish(verity, fd, 99, &result, &err), CPULL_ERR_USAGE);
	assert_int_equal(verity_add(verity, VERITY_DATA_BLOCKS, &result, 1, &err), CPULL_ERR_LIMIT);
	assert_int_equal(verity_add(verity, 1, &result, SIZE_MAX, &err), CPULL_ERR_LIMIT);
	verity_free(verity);
	verity = new_tree(0);
	assert_int_equal(verity_finish(verity, fd, 0, &result, &err), CPULL_ERR_USAGE);
	verity_free(verity);
	verity_free(NULL);
}

static void no_room_for_a_spool(void **state)
{
	struct verity_options options = {.spool_dirfd = -1};
	struct verity *verity;
	struct cpull_error err;
	uint8_t block[BLOCK] = {0};

	(void)state;
	assert_int_equal(verity_new(&options, &verity, &err), 0);
	assert_int_equal(verity_add(verity, WINDOW - 1, block, 1, &err), 0);
	assert_int_equal(verity_add(verity, WINDOW, block, 1, &err), CPULL_ERR_STORAGE);
	assert_non_null(strstr(err.message, "spool file"));
	verity_free(verity);
}

static int fresh(void **state)
{
	(void)state;
	return fresh_tmpfs(base) ? 0 : -1;
}

#define T(f) cmocka_unit_test_setup(f, fresh)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_shape), T(shapes_as_computed), T(every_salt), T(vectors_have_their_roots),
		T(a_spool_and_late_changes), T(without_tmpfile), T(a_few_zero_blocks),
		T(changed_blocks_are_named), T(the_first_of_many_is_named), T(other_parameters_do_not_fit),
		T(a_short_file_is_said_to_be_short), T(what_cannot_be_read_or_written), T(no_room_for_a_spool),
	};
	char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";

	if (!own_namespace())
		return 0;
	putenv(path);
	has_veritysetup = system("veritysetup --version >/dev/null 2>&1") == 0;
	if (!has_veritysetup)
		print_message("skipped: no veritysetup to compare with\n");
	if (!begin_at(base))
		return 1;

	int failed = cmocka_run_group_tests_name("verity", tests, NULL, NULL);

	end_at(base);
	return failed;
}
