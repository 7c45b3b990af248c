/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of a layer's contents: records, writing it, and what is there in the end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "snapshot/checksum.h"
#include "snapshot/contents_index.h"

#define NAME(text) {text, sizeof(text) - 1}

/* ---- records ---- */

static const struct contents_record all_records[] = {
	{.type = CONTENTS_DIRECTORY, .inode = 1},
	{.type = CONTENTS_DIRECTORY, .inode = UINT64_MAX},
	{.type = CONTENTS_FILE, .name = NAME("f"), .mode = 0644, .mtime = {.tv_sec = 1700000000}, .size = 5, .sum = 7},
	{.type = CONTENTS_FILE, .name = NAME("g"), .mode = 07777, .uid = UINT32_MAX, .gid = 1, .xattrs = UINT64_MAX,
	 .mtime = {-1, 999999999}, .size = UINT64_MAX, .sum = UINT64_MAX, .sparse = true},
	{.type = CONTENTS_FILE, .name = NAME("h"), .gid = 1, .mtime = {.tv_sec = INT64_MAX}},
	{.type = CONTENTS_FILE, .name = NAME("i"), .mtime = {.tv_sec = INT64_MIN}},
	{.type = CONTENTS_SYMLINK, .name = NAME("s"), .size = 4095, .sum = 1},
	{.type = CONTENTS_NODE, .name = NAME("n"), .mode = 060600, .size = 0x102},
	{.type = CONTENTS_WHITEOUT, .name = NAME("w")},
	{.type = CONTENTS_LINK, .name = NAME("l"), .inode = 300, .other = NAME("target")},
	{.type = CONTENTS_MKDIR, .name = NAME("d"), .inode = 2},
	{.type = CONTENTS_SETTLED, .mode = 0755, .uid = 1, .gid = 2, .mtime = {.tv_sec = 3}},
	{.type = CONTENTS_RESTAT, .name = NAME("f"), .mode = 0600},
	{.type = CONTENTS_GONE, .name = NAME("...")},
	{.type = CONTENTS_RENAME, .name = NAME("a"), .inode = 1, .other = NAME("\xff\n")},
};

static bool same_name(struct contents_name a, struct contents_name b)
{
	return a.len == b.len && (!a.len || memcmp(a.text, b.text, a.len) == 0);
}

static void assert_same(const struct contents_record *a, const struct contents_record *b)
{
	assert_int_equal(a->type, b->type);
	assert_true(same_name(a->name, b->name));
	assert_true(a->inode == b->inode);
	assert_true(same_name(a->other, b->other));
	assert_int_equal(a->mode, b->mode);
	assert_int_equal(a->uid, b->uid);
	assert_int_equal(a->gid, b->gid);
	assert_true(a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec == b->mtime.tv_nsec);
	assert_true(a->xattrs == b->xattrs && a->size == b->size && a->sum == b->sum);
	assert_int_equal(a->sparse, b->sparse);
}

static void records_come_back(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(all_records); i++) {
		uint8_t bytes[CONTENTS_RECORD_BYTES];
		struct contents_record back;
		size_t len = contents_encode(&all_records[i], bytes);

		assert_in_range(len, 1, CONTENTS_RECORD_BYTES);
		assert_int_equal(contents_decode(bytes, len, &back), len);
		assert_same(&all_records[i], &back);
		for (size_t cut = 0; cut < len; cut++)
			assert_int_equal(contents_decode(bytes, cut, &back), 0);
	}
}

static void longest_record_fits(void **state)
{
	char name[LIMIT_NAME_BYTES];
	uint8_t bytes[CONTENTS_RECORD_BYTES];
	struct contents_record back;

	(void)state;
	memset(name, 'x', sizeof(name));

	const struct contents_record longest[] = {
		{.type = CONTENTS_FILE, .name = {name, sizeof(name)}, .mode = 0177777, .uid = UINT32_MAX,
		 .gid = UINT32_MAX, .mtime = {INT64_MIN, 999999999}, .xattrs = 1, .size = UINT64_MAX, .sum = 1},
		{.type = CONTENTS_RENAME, .name = {name, sizeof(name)}, .inode = UINT64_MAX,
		 .other = {name, sizeof(name)}},
	};

	for (size_t i = 0; i < ARRAY_LEN(longest); i++) {
		size_t len = contents_encode(&longest[i], bytes);

		assert_in_range(len, 1, CONTENTS_RECORD_BYTES);
		assert_int_equal(contents_decode(bytes, len, &back), len);
		assert_same(&longest[i], &back);
	}
}

static void refused_records(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} rows[] = {
#define ROW(text) {text, sizeof(text) - 1}
		ROW("\x00\x01"),             /* no such type */
		ROW("\x0c\x01"),
		ROW("\x11\x01"),             /* a flag that it cannot have */
		ROW("\x0a\x00"),             /* an empty name */
		ROW("\x0a\x01."),            /* names that lead elsewhere */
		ROW("\x0a\x02.."),
		ROW("\x0a\x03" "a/b"),
		ROW("\x0a\x02" "a\0"),
		ROW("\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), /* more than 64 bits */
		ROW("\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
		ROW("\x08\x80\x80\x04\x00"), /* more mode than there is */
		ROW("\x18\x00\x80\x80\x80\x80\x10\x00\x00"), /* an owner of more than 32 bits */
		ROW("\x28\x00\x00\x80\x94\xeb\xdc\x03"),     /* a whole second of nanoseconds */
#undef ROW
	};
	struct contents_record out;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_int_equal(contents_decode((const uint8_t *)rows[i].bytes, rows[i].len, &out), 0);
}

/* ---- lists ---- */

struct list {
	int fd;
	struct contents_writer *writer;
	struct contents_facts facts;
};

static struct list begin(void)
{
	static const char name[] = "test-contents.list";
	struct list list = {0};
	struct cpull_error err;

	unlink(name);
	if (contents_writer_new(AT_FDCWD, name, &list.writer, &err))
		fail_msg("%s", err.message);
	list.fd = open(name, O_RDWR | O_CLOEXEC);
	assert_true(list.fd >= 0);
	return list;
}

static void put(struct list *list, uint64_t dir, struct contents_record record)
{
	assert_int_equal(contents_writer_add(list->writer, dir, &record, NULL), 0);
}

#define PUT(list, dir, ...) put((list), (dir), (struct contents_record){__VA_ARGS__})

static void end(struct list *list)
{
	assert_int_equal(contents_writer_finish(list->writer, &list->facts, NULL), 0);
	contents_writer_free(STEAL(list->writer));
	unlink("test-contents.list");
}

static int load(const struct list *list, struct contents_index **out)
{
	struct cpull_error err = {0};
	int rc = contents_index_load(list->fd, &list->facts, out, &err);

	assert_int_equal(rc, err.code);
	return rc;
}

static struct contents_index *load_well(struct list *list)
{
	struct contents_index *index;

	end(list);
	assert_int_equal(load(list, &index), 0);
	return index;
}

static void assert_refused(struct list *list)
{
	struct contents_index *index;

	end(list);
	assert_int_equal(load(list, &index), CPULL_ERR_DIGEST);
	close(list->fd);
}

/* The size that the list has for a file, or -1. */
static long size_of(const struct contents_index *index, uint32_t dir, const char *name)
{
	const struct contents_entry *entry = contents_index_find(index, dir, name);
	struct contents_view *view;
	struct contents_record record;

	if (!entry || entry->is_dir)
		return -1;
	assert_int_equal(contents_view_new(&view, NULL), 0);
	assert_int_equal(contents_view_read(view, index, entry->node, &record, NULL), 0);
	contents_view_free(view);
	return (long)record.size;
}

static uint32_t dir_at(const struct contents_index *index, uint32_t dir, const char *name)
{
	const struct contents_entry *entry = contents_index_find(index, dir, name);

	assert_non_null(entry);
	assert_true(entry->is_dir);
	return entry->node;
}

static void assert_path(const struct contents_index *index, uint32_t dir, const char *path)
{
	struct contents_view *view;
	char out[LIMIT_PATH_BYTES];

	assert_int_equal(contents_view_new(&view, NULL), 0);
	assert_int_equal(contents_view_path(view, index, dir, out, NULL), 0);
	assert_string_equal(out, path);
	contents_view_free(view);
}

static void the_last_word_counts(void **state)
{
	struct list list = begin();

	(void)state;
	PUT(&list, 10, .type = CONTENTS_FILE, .name = NAME("f"), .size = 1);
	PUT(&list, 10, .type = CONTENTS_MKDIR, .name = NAME("d"), .inode = 20);
	PUT(&list, 20, .type = CONTENTS_FILE, .name = NAME("f"), .size = 2);
	PUT(&list, 10, .type = CONTENTS_GONE, .name = NAME("f"));
	PUT(&list, 10, .type = CONTENTS_FILE, .name = NAME("f"), .size = 3);
	/* gone with all in it, and its inode number is another's */
	PUT(&list, 10, .type = CONTENTS_GONE, .name = NAME("d"));
	PUT(&list, 10, .type = CONTENTS_MKDIR, .name = NAME("e"), .inode = 20);
	PUT(&list, 20, .type = CONTENTS_FILE, .name = NAME("g"), .size = 4);

	struct contents_index *index = load_well(&list);

	assert_int_equal(index->entry_count, 3);
	assert_int_equal(size_of(index, CONTENTS_ROOT, "f"), 3);
	assert_null(contents_index_find(index, CONTENTS_ROOT, "d"));
	assert_int_equal(size_of(index, dir_at(index, CONTENTS_ROOT, "e"), "g"), 4);
	assert_int_equal(size_of(index, dir_at(index, CONTENTS_ROOT, "e"), "f"), -1);
	assert_path(index, CONTENTS_ROOT, "");
	assert_path(index, dir_at(index, CONTENTS_ROOT, "e"), "e");
	assert_false(contents_dir_lives(index, 1));
	assert_true(contents_dir_lives(index, 2));
	contents_index_free(index);
	close(list.fd);
}

static void moved_directories(void **state)
{
	struct list list = begin();

	(void)state;
	PUT(&list, 1, .type = CONTENTS_MKDIR, .name = NAME("a"), .inode = 2);
	PUT(&list, 2, .type = CONTENTS_MKDIR, .name = NAME("b"), .inode = 3);
	PUT(&list, 3, .type = CONTENTS_FILE, .name = NAME("f"), .size = 1);
	PUT(&list, 1, .type = CONTENTS_MKDIR, .name = NAME("usr"), .inode = 4);
	PUT(&list, 1, .type = CONTENTS_RENAME, .name = NAME("a"), .inode = 4, .other = NAME("c"));
	PUT(&list, 3, .type = CONTENTS_RENAME, .name = NAME("f"), .inode = 1, .other = NAME("g"));
	PUT(&list, 3, .type = CONTENTS_FILE, .name = NAME("f"), .size = 2);
	PUT(&list, 3, .type = CONTENTS_SETTLED, .mode = 0700);

	struct contents_index *index = load_well(&list);
	uint32_t usr = dir_at(index, CONTENTS_ROOT, "usr"), c = dir_at(index, usr, "c"), b = dir_at(index, c, "b");

	assert_int_equal(index->entry_count, 5);
	assert_null(contents_index_find(index, CONTENTS_ROOT, "a"));
	assert_path(index, b, "usr/c/b");
	assert_int_equal(size_of(index, b, "f"), 2);
	assert_int_equal(size_of(index, CONTENTS_ROOT, "g"), 1);
	assert_true(index->dirs[b].settled_at);
	assert_false(index->dirs[c].settled_at);
	contents_index_free(index);
	close(list.fd);
}

static void links_share_what_they_name(void **state)
{
	struct list list = begin();

	(void)state;
	PUT(&list, 1, .type = CONTENTS_FILE, .name = NAME("a"), .size = 1);
	PUT(&list, 1, .type = CONTENTS_MKDIR, .name = NAME("d"), .inode = 2);
	PUT(&list, 2, .type = CONTENTS_LINK, .name = NAME("b"), .inode = 1, .other = NAME("a"));
	PUT(&list, 1, .type = CONTENTS_GONE, .name = NAME("a"));
	PUT(&list, 1, .type = CONTENTS_FILE, .name = NAME("a"), .size = 9);
	PUT(&list, 1, .type = CONTENTS_LINK, .name = NAME("c"), .inode = 2, .other = NAME("b"));
	PUT(&list, 1, .type = CONTENTS_RESTAT, .name = NAME("c"), .mode = 0600);

	struct contents_index *index = load_well(&list);
	uint32_t d = dir_at(index, CONTENTS_ROOT, "d");
	const struct contents_entry *b = contents_index_find(index, d, "b");
	const struct contents_entry *c = contents_index_find(index, CONTENTS_ROOT, "c");
	const struct contents_entry *a = contents_index_find(index, CONTENTS_ROOT, "a");

	assert_int_equal(size_of(index, CONTENTS_ROOT, "a"), 9);
	assert_int_equal(size_of(index, CONTENTS_ROOT, "c"), 1);
	assert_int_equal(size_of(index, d, "b"), 1);
	assert_int_equal(contents_index_attributes(index, b), contents_index_attributes(index, c));
	assert_int_not_equal(contents_index_attributes(index, b), b->node);
	assert_int_equal(contents_index_attributes(index, a), a->node);
	assert_true(contents_index_is_first(index, a));
	assert_int_equal(contents_index_is_first(index, b) + contents_index_is_first(index, c), 1);
	contents_index_free(index);
	close(list.fd);
}

static void many_names(void **state)
{
	const uint32_t count = 20000;
	struct list list = begin();
	char name[16];

	(void)state;
	for (uint32_t i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		PUT(&list, 1, .type = CONTENTS_FILE, .name = {name, strlen(name)}, .size = i);
		if (i % 3 == 0)
			PUT(&list, 1, .type = CONTENTS_GONE, .name = {name, strlen(name)});
		if (i % 1000 == 0)
			assert_int_equal(contents_writer_rest(list.writer, NULL), 0);
	}

	struct contents_index *index = load_well(&list);

	assert_int_equal(index->dirs[CONTENTS_ROOT].count, index->entry_count);
	for (uint32_t i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		assert_int_equal(size_of(index, CONTENTS_ROOT, name), i % 3 ? (long)i : -1);
	}
	contents_index_free(index);
	close(list.fd);
}

/* ---- lists that are damaged ---- */

static struct list sample(void)
{
	struct list list = begin();

	PUT(&list, 1, .type = CONTENTS_FILE, .name = NAME("a"), .mode = 0644, .size = 1, .sum = 5);
	PUT(&list, 1, .type = CONTENTS_MKDIR, .name = NAME("d"), .inode = 2);
	PUT(&list, 2, .type = CONTENTS_LINK, .name = NAME("b"), .inode = 1, .other = NAME("a"));
	PUT(&list, 1, .type = CONTENTS_SETTLED, .mode = 0755);
	end(&list);
	return list;
}

static void every_damaged_byte_is_found(void **state)
{
	struct list list = sample();
	struct contents_index *index;

	(void)state;
	for (uint64_t at = 0; at < list.facts.bytes; at++) {
		uint8_t byte, other;

		assert_int_equal(pread(list.fd, &byte, 1, (off_t)at), 1);
		for (unsigned bit = 0; bit < 8; bit++) {
			other = byte ^ (uint8_t)(1u << bit);
			assert_int_equal(fs_write_all(list.fd, &other, 1, at), 0);
			assert_int_equal(load(&list, &index), CPULL_ERR_DIGEST);
		}
		assert_int_equal(fs_write_all(list.fd, &byte, 1, at), 0);
	}
	assert_int_equal(load(&list, &index), 0);
	contents_index_free(index);
	close(list.fd);
}

static void another_length_is_found(void **state)
{
	struct list list = sample();
	struct contents_index *index;

	(void)state;
	assert_int_equal(ftruncate(list.fd, (off_t)list.facts.bytes + 1), 0);
	assert_int_equal(load(&list, &index), CPULL_ERR_DIGEST);

	struct list longer = {.fd = list.fd, .facts = {.bytes = (uint64_t)LIMIT_CONTENTS_BYTES + 1}};

	assert_int_equal(ftruncate(list.fd, (off_t)longer.facts.bytes), 0);
	assert_int_equal(load(&longer, &index), CPULL_ERR_DIGEST);
	for (uint64_t len = list.facts.bytes; len-- > 0;) {
		struct list cut = {.fd = list.fd, .facts = {.bytes = len}};
		CLEANUP_FREE uint8_t *bytes = malloc(len + 1);

		assert_int_equal(ftruncate(list.fd, (off_t)len), 0);
		assert_int_equal(load(&list, &index), CPULL_ERR_DIGEST);
		/* and where layer.json was changed along with it: a shorter list may make sense, or not */
		assert_int_equal(pread(list.fd, bytes, len, 0), (ssize_t)len);
		cut.facts.sum = checksum_of(bytes, len);
		if (load(&cut, &index) == 0)
			contents_index_free(index);
	}
	close(list.fd);
}

static void lists_without_sense(void **state)
{
	struct list list = begin();

	(void)state;
	assert_refused(&list); /* nothing but its header */
	list = begin();
	PUT(&list, 1, .type = CONTENTS_RESTAT, .name = NAME("a"));
	assert_refused(&list);
	list = begin();
	PUT(&list, 1, .type = CONTENTS_SETTLED);
	PUT(&list, 2, .type = CONTENTS_SETTLED);
	assert_refused(&list); /* a directory from nowhere */
	list = begin();
	PUT(&list, 0, .type = CONTENTS_SETTLED);
	assert_refused(&list);
	list = begin();
	PUT(&list, 1, .type = CONTENTS_MKDIR, .name = NAME("d"), .inode = 2);
	PUT(&list, 1, .type = CONTENTS_LINK, .name = NAME("e"), .inode = 1, .other = NAME("d"));
	assert_refused(&list); /* a link to a directory */
	list = begin();
	PUT(&list, 1, .type = CONTENTS_LINK, .name = NAME("e"), .inode = 1, .other = NAME("d"));
	assert_refused(&list);
	list = begin();
	PUT(&list, 1, .type = CONTENTS_MKDIR, .name = NAME("d"), .inode = 2);
	PUT(&list, 1, .type = CONTENTS_RESTAT, .name = NAME("d"));
	assert_refused(&list);
	list = begin();
	PUT(&list, 1, .type = CONTENTS_FILE, .name = NAME("f"));
	PUT(&list, 1, .type = CONTENTS_RENAME, .name = NAME("f"), .inode = 7, .other = NAME("g"));
	assert_refused(&list);
}

/* A directory moved into itself is nowhere, and nothing goes round in circles. */
static void a_circle_is_not_there(void **state)
{
	struct list list = begin();

	(void)state;
	PUT(&list, 1, .type = CONTENTS_MKDIR, .name = NAME("a"), .inode = 2);
	PUT(&list, 2, .type = CONTENTS_MKDIR, .name = NAME("b"), .inode = 3);
	PUT(&list, 3, .type = CONTENTS_MKDIR, .name = NAME("c"), .inode = 4);
	PUT(&list, 1, .type = CONTENTS_RENAME, .name = NAME("a"), .inode = 3, .other = NAME("a"));

	struct contents_index *index = load_well(&list);

	assert_int_equal(index->entry_count, 0);
	for (uint32_t d = 1; d < index->dir_count; d++)
		assert_false(contents_dir_lives(index, d));
	contents_index_free(index);
	close(list.fd);
}

/* ---- sums ---- */

/* Figures of XXH3 with 64 bits, by libxxhash: what was written on one machine is checked on another. */
static void sums_are_xxh3(void **state)
{
	static uint8_t data[100000];
	static const struct {
		size_t len;
		uint64_t sum;
	} rows[] = {
		{0, 0x2d06800538d394c2},
		{1, 0xc44bdff4074eecdb},
		{16, 0x9da23836adf2be1e},
		{240, 0x4917a75c0ef8eed7},
		{241, 0x541b19226f0052e8},
		{1024, 0x71bee625238addb4},
		{1025, 0xd9b414f4e1bbf7ad},
		{4096, 0x5c722d9ceb6f9064},
		{100000, 0xb25cea78018497ff},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 256);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct checksum *sum;

		assert_true(checksum_of(data, rows[i].len) == rows[i].sum);
		assert_int_equal(checksum_new(&sum, NULL), 0);
		checksum_begin(sum);
		for (size_t at = 0; at < rows[i].len; at += 333)
			checksum_add(sum, data + at, MIN(rows[i].len - at, (size_t)333));
		assert_true(checksum_end(sum) == rows[i].sum);
		checksum_free(sum);
	}
}

static uint64_t sum_of_pieces(const uint8_t *data, size_t len, size_t piece, size_t from)
{
	struct checksum *sum;

	assert_int_equal(checksum_new(&sum, NULL), 0);
	checksum_sparse_begin(sum);
	for (size_t at = from; at < len; at += piece)
		checksum_sparse_add(sum, data + at, MIN(piece, len - at), at);

	uint64_t out = checksum_sparse_end(sum);

	checksum_free(sum);
	return out;
}

static void holes_do_not_count(void **state)
{
	static uint8_t data[5 * CHECKSUM_BLOCK_BYTES + 100];
	static const size_t pieces[] = {1, 100, 512, 4095, 4096, 4097, 10000, sizeof(data)};

	(void)state;
	memset(data + 2 * CHECKSUM_BLOCK_BYTES + 7, 'x', 5000);
	data[sizeof(data) - 1] = 1;

	uint64_t whole = sum_of_pieces(data, sizeof(data), sizeof(data), 0);

	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		assert_int_equal(sum_of_pieces(data, sizeof(data), pieces[i], 0), whole);
		assert_int_equal(sum_of_pieces(data, sizeof(data), pieces[i], 2 * CHECKSUM_BLOCK_BYTES + 7), whole);
	}
	data[sizeof(data) - 1] = 2;
	assert_int_not_equal(sum_of_pieces(data, sizeof(data), sizeof(data), 0), whole);
	/* the same bytes at another place */
	data[sizeof(data) - 1] = 0;
	data[4 * CHECKSUM_BLOCK_BYTES + 99] = 1;
	assert_int_not_equal(sum_of_pieces(data, sizeof(data), sizeof(data), 0), whole);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_come_back),
		cmocka_unit_test(longest_record_fits),
		cmocka_unit_test(refused_records),
		cmocka_unit_test(the_last_word_counts),
		cmocka_unit_test(moved_directories),
		cmocka_unit_test(links_share_what_they_name),
		cmocka_unit_test(many_names),
		cmocka_unit_test(every_damaged_byte_is_found),
		cmocka_unit_test(another_length_is_found),
		cmocka_unit_test(lists_without_sense),
		cmocka_unit_test(a_circle_is_not_there),
		cmocka_unit_test(sums_are_xxh3),
		cmocka_unit_test(holes_do_not_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
