/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/tar: extension headers (GNU long names, pax), sparse maps, and the limits on both.
 */
#include "tar_archive.h"

/* ---- pax --------------------------------------------------------------------------------------- */

static void long_names_with_and_without_nul(void **state)
{
	ARCHIVE b = {0};
	char name[300];

	(void)state;
	memset(name, 'n', sizeof(name));
	name[150] = '/';
	name[299] = 0;
	add_extension(&b, 'L', name, 300);
	add_header(&b, make('0', "short", 0));
	add_extension(&b, 'L', name, 299);
	add_header(&b, make('0', "short", 0));
	add_extension(&b, 'K', "target", 6);
	add_header(&b, make('2', "s", 0));
	add_end(&b);

	CLEANUP_FREE char *log = format_string("f %s 644 0:0 0.000000000 0\ndata 0 cbf29ce484222325\n"
					       "f %s 644 0:0 0.000000000 0\ndata 0 cbf29ce484222325\n"
					       "l s -> target 644 0:0 0.000000000 0\nend\n", name, name);
	expect(&b, log);
}

static void empty_long_names_are_refused(void **state)
{
	ARCHIVE none = {0}, nul = {0};

	(void)state;
	add_extension(&none, 'L', "", 0);
	add_file(&none, "x", "");
	expect_code(&none, CPULL_ERR_TAR);
	add_extension(&nul, 'L', "\0abc", 4);
	add_file(&nul, "x", "");
	expect_code(&nul, CPULL_ERR_TAR);
}

/* CVE-2025-62518: the inner archive is data. */
static void size_only_in_the_pax_header(void **state)
{
	ARCHIVE inner = {0}, b = {0};
	struct tar_header h = make('0', "inner.tar", 0);
	char size[32];

	(void)state;
	add_file(&inner, "smuggled", "evil");
	add_end(&inner);
	snprintf(size, sizeof(size), "size=%zu", inner.len);
	add_pax(&b, 'x', size, NULL);
	add_header(&b, h);
	add_padded(&b, inner.data, inner.len);
	add_file(&b, "after", "");
	add_end(&b);

	ARCHIVE log = {0};

	assert_int_equal(run_all(b.data, b.len, &log), 0);
	assert_null(strstr(log.data, "smuggled"));
	assert_non_null(strstr(log.data, "f inner.tar 644 0:0 0.000000000 2048\ndata 2048 "));
	assert_non_null(strstr(log.data, "f after "));
}

/* The size of an L header is its own, whatever a pax header before it says of the entry. */
static void pax_size_is_not_for_other_extensions(void **state)
{
	ARCHIVE b = {0};

	(void)state;
	add_pax(&b, 'x', "size=600", NULL);
	add_extension(&b, 'L', "long", 5);
	add_header(&b, make('0', "short", 0));
	add_padded(&b, (char[600]){0}, 600);
	add_pax(&b, 'x', "size=600", NULL);
	add_header(&b, make('5', "dir", 0));
	add_file(&b, "after", "");
	add_end(&b);
	expect_part(&b, "f long 644 0:0 0.000000000 600\ndata 600 ");
	expect_part(&b, "d dir 644 0:0 0.000000000 0\nf after ");
}

static void pax_values(void **state)
{
	static const struct {
		const char *record, *part;
	} rows[] = {
		{"mtime=1.5", "f x 644 0:0 1.500000000 "},
		{"mtime=1.", "f x 644 0:0 1.000000000 "},
		{"mtime=-86400.25", "f x 644 0:0 -86401.750000000 "},
		{"mtime=-0.5", "f x 644 0:0 -1.500000000 "},
		{"mtime=-7", "f x 644 0:0 -7.000000000 "},
		{"mtime=1.0000000019", "f x 644 0:0 1.000000001 "},
		{"mtime=9223372036854775807", "f x 644 0:0 9223372036854775807."},
		{"mtime=9223372036854775808", NULL},
		{"mtime=-9223372036854775807.9", "f x 644 0:0 -9223372036854775808.100000000 "},
		{"mtime=-9223372036854775808", NULL},
		{"mtime=1e3", NULL},
		{"mtime=.5", NULL},
		{"mtime=-", NULL},
		{"mtime=--1", NULL},
		{"mtime=1.5x", NULL},
		{"mtime=1.5.5", NULL},
		{"mtime= 1", NULL},
		{"uid=2500000000", "f x 644 2500000000:0 "},
		{"uid=4294967294", "f x 644 4294967294:0 "},
		{"uid=4294967295", NULL},
		{"uid=4294967296", NULL},
		{"gid=18446744073709551616", NULL},
		{"gid=-1", NULL},
		{"gid=1.0", NULL},
		{"gid=12", "f x 644 0:12 "},
		{"size=0x1", NULL},
		{"size=-1", NULL},
		{"size=+0", NULL},
		{"size=0", "f x 644 "},
		{"path=", "f x 644 "},
		{"path=y/z", "f y/z 644 "},
		{"hdrcharset=BINARY", "f x 644 "},
		{"LIBARCHIVE.xattr.user.a=YQ==", "f x 644 0:0 0.000000000 0\n"},
		{"LIBARCHIVE.creationtime=1", "f x 644 0:0 0.000000000 0\n"},
		{"MSWINDOWS.rawsd=AQAU", "f x 644 0:0 0.000000000 0\n"},
		{"SCHILY.xattr.=x", NULL},
		{"SCHILY.devmajor=-1", NULL},
		{"GNU.sparse.name=s", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		ARCHIVE b = {0};

		add_pax(&b, 'x', rows[i].record, NULL);
		add_file(&b, "x", "");
		add_end(&b);
		if (rows[i].part)
			expect_part(&b, rows[i].part);
		else
			expect_code(&b, CPULL_ERR_TAR);
	}
}

static void damaged_pax_records(void **state)
{
	static const char *const rows[] = {
		"12 path=abc",        /* no newline, one byte short */
		"12 path=abcd",       /* no newline at its end */
		"0 path=abc\n",       /* length 0 */
		"3 \n=\n",            /* too short for a key */
		"99 path=abc\n",      /* past the header */
		"99999999999999999999999 path=abc\n",
		"18446744073709551617 path=a\n",
		"-12 path=abc\n",
		"+12 path=abc\n",
		"12path=abcd\n",      /* no space */
		" 12 path=abc\n",
		"12 pathabcd\n",      /* no '=' */
		"6 =ab\n",            /* no key */
		"x",
		"12 path=abc\n\n",    /* bytes behind the last record */
		"12 path=abc\n12",
		"1a path=abc\n",
		"12 path=abc\n5 a=b", /* the second is cut */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		for (int global = 0; global < 2; global++) {
			ARCHIVE b = {0};

			add_extension(&b, global ? 'g' : 'x', rows[i], strlen(rows[i]));
			add_file(&b, "x", "");
			add_end(&b);
			expect_code(&b, CPULL_ERR_TAR);
		}
}

static void nul_bytes_in_pax(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		int code;
	} rows[] = {
		{"12 path=a\0b\n", 12, CPULL_ERR_TAR},
		{"16 linkpath=a\0b\n", 16, CPULL_ERR_TAR},
		{"12 pa\0h=abc\n", 12, CPULL_ERR_TAR},
		{"27 SCHILY.xattr.user.a=\0b\0\n", 27, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		ARCHIVE b = {0};

		add_extension(&b, 'x', rows[i].text, rows[i].len);
		add_file(&b, "x", "");
		expect_code(&b, rows[i].code);
		if (!rows[i].code)
			expect_part(&b, " user.a=3:");
	}
}

static void an_empty_pax_header_is_none(void **state)
{
	ARCHIVE b = {0};

	(void)state;
	add_extension(&b, 'x', "", 0);
	add_file(&b, "x", "1");
	add_end(&b);
	expect_part(&b, "f x 644 0:0 0.000000000 1\n");
}

static void the_last_record_wins_and_empty_ones_take_back(void **state)
{
	ARCHIVE b = {0};
	struct tar_header h = make('0', "x", 0);

	(void)state;
	octal(h.mtime, 12, 3);
	add_pax(&b, 'g', "mtime=50", "uid=5", "gid=6", "comment=c", NULL);
	add_pax(&b, 'x', "path=a", "path=b", "mtime=", "uid=7", "uid=", "gid=8", "SCHILY.xattr.user.a=1",
		"SCHILY.xattr.user.b=2", "SCHILY.xattr.user.a=333", "SCHILY.xattr.user.b=", "SCHILY.xattr.user.c=4",
		"SCHILY.xattr.user.overlay.origin=", NULL);
	add_header(&b, h);
	add_header(&b, make('0', "y", 0));
	add_pax(&b, 'g', "mtime=", "uid=9", NULL);
	add_header(&b, h);
	add_end(&b);
	expect_part(&b, "f b 644 0:8 3.000000000 0 user.a=3:c5d3 user.c=1:34\n");
	expect_part(&b, "f y 644 5:6 50.000000000 0\n");
	expect_part(&b, "f x 644 9:6 3.000000000 0\n");
}

/* A field that a pax record replaces may hold anything. */
static void replaced_fields_are_not_read(void **state)
{
	ARCHIVE b = {0};
	struct tar_header h = make('0', "x", 0);

	(void)state;
	memcpy(h.uid, "nonsense", 8);
	memcpy(h.mtime, "moreofthesame", 12);
	add_pax(&b, 'x', "uid=1", "mtime=2", NULL);
	add_header(&b, h);
	expect_part(&b, "f x 644 1:0 2.000000000 0\n");
}

static void devices_by_pax(void **state)
{
	ARCHIVE b = {0};

	(void)state;
	add_pax(&b, 'x', "SCHILY.devmajor=300", "SCHILY.devminor=70000", NULL);
	add_header(&b, make('4', "disk", 0));
	expect_part(&b, "b disk 644 0:0 0.000000000 0 300/70000\n");
}

/* ---- limits ------------------------------------------------------------------------------------ */

static void path_limits(void **state)
{
	static const struct {
		size_t len, part; /* slashes after each `part` bytes */
		int code;
	} rows[] = {
		{4096, 200, 0},
		{4097, 200, CPULL_ERR_LIMIT},
		{300, 255, 0},
		{300, 256, CPULL_ERR_LIMIT},
		{256, 1000, CPULL_ERR_LIMIT},
		{255, 1000, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CLEANUP_FREE char *path = calloc(1, rows[i].len + 1);
		ARCHIVE text = {0}, pax = {0}, gnu = {0}, link = {0}, symlink = {0};

		memset(path, 'p', rows[i].len);
		for (size_t k = rows[i].part; k < rows[i].len; k += rows[i].part + 1)
			path[k] = '/';
		if (path[rows[i].len - 1] == '/')
			path[rows[i].len - 1] = 'p';
		record(&text, "path", path, rows[i].len);
		add_extension(&pax, 'x', text.data, text.len);
		add_file(&pax, "x", "");
		expect_code(&pax, rows[i].code);
		add_extension(&gnu, 'L', path, rows[i].len);
		add_file(&gnu, "x", "");
		expect_code(&gnu, rows[i].code);
		add_extension(&link, 'K', path, rows[i].len);
		add_header(&link, make('1', "x", 0));
		expect_code(&link, rows[i].code);
		/* a symlink's text is not a path until somebody follows it */
		add_extension(&symlink, 'K', path, rows[i].len);
		add_header(&symlink, make('2', "x", 0));
		expect_code(&symlink, rows[i].len > 4096 ? CPULL_ERR_LIMIT : 0);
	}
}

static void a_long_name_over_its_limit_is_refused_before_it_is_read(void **state)
{
	ARCHIVE b = {0};

	(void)state;
	add_header(&b, make('L', "x", LIMIT_PATH_BYTES + 2));
	expect_code(&b, CPULL_ERR_LIMIT);
}

static void pax_header_limit(void **state)
{
	for (size_t over = 0; over < 2; over++)
		for (int global = 0; global < 2; global++) {
			ARCHIVE text = {0}, b = {0};
			CLEANUP_FREE char *value = calloc(1, LIMIT_PAX_BYTES);

			(void)state;
			/* "1048576 comment=" and the newline */
			record(&text, "comment", value, LIMIT_PAX_BYTES + over - 17);
			assert_int_equal(text.len, LIMIT_PAX_BYTES + over);
			add_extension(&b, global ? 'g' : 'x', text.data, text.len);
			add_file(&b, "x", "");
			expect_code(&b, over ? CPULL_ERR_LIMIT : 0);
		}

	ARCHIVE huge = {0};

	add_header(&huge, make('x', "x", 1u << 30));
	expect_code(&huge, CPULL_ERR_LIMIT);
}

static void xattr_limits(void **state)
{
	CLEANUP_FREE char *value = calloc(1, LIMIT_XATTR_VALUE_BYTES + 1);

	(void)state;
	for (size_t over = 0; over < 2; over++) {
		ARCHIVE big = {0}, many = {0}, name = {0}, b = {0}, c = {0}, d = {0};
		char key[300];

		record(&big, "SCHILY.xattr.user.a", value, LIMIT_XATTR_VALUE_BYTES + over);
		add_extension(&b, 'x', big.data, big.len);
		add_file(&b, "x", "");
		expect_code(&b, over ? CPULL_ERR_LIMIT : 0);
		for (size_t i = 0; i < LIMIT_XATTRS + over; i++) {
			snprintf(key, sizeof(key), "SCHILY.xattr.user.%zu", i);
			record(&many, key, "v", 1);
		}
		record(&many, "SCHILY.xattr.user.7", "w", 1); /* one that is there already */
		add_extension(&c, 'x', many.data, many.len);
		add_file(&c, "x", "");
		expect_code(&c, over ? CPULL_ERR_LIMIT : 0);
		memset(key, 'k', sizeof(key));
		memcpy(key, "SCHILY.xattr.user.", 18);
		key[13 + 255 + over] = 0;
		record(&name, key, "v", 1);
		add_extension(&d, 'x', name.data, name.len);
		add_file(&d, "x", "");
		expect_code(&d, over ? CPULL_ERR_LIMIT : 0);
	}
}

/* ---- sparse ------------------------------------------------------------------------------------ */

static void old_pair(uint8_t *pair, uint64_t offset, uint64_t len)
{
	octal(pair, 12, offset);
	octal(pair + 12, 12, len);
}

static struct tar_header make_old_sparse(uint64_t stored, uint64_t size)
{
	struct tar_header h = make('S', "s", stored);

	memcpy(h.magic, "ustar  ", 8);
	octal(h.gnu.real_size, 12, size);
	return h;
}

static void old_sparse_with_more_blocks(void **state)
{
	ARCHIVE b = {0};
	struct tar_header h = make_old_sparse(26 * 10, 100000);
	uint8_t more[TAR_BLOCK_BYTES] = {0};
	char data[260];

	(void)state;
	memset(data, 'd', sizeof(data));
	for (size_t i = 0; i < 4; i++)
		old_pair(h.gnu.sparse + 24 * i, 1000 * i, 10);
	h.gnu.is_extended = 1;
	add_header(&b, h);
	for (size_t i = 0; i < 21; i++)
		old_pair(more + 24 * i, 1000 * (i + 4), 10);
	more[504] = 1;
	add(&b, more, sizeof(more));
	memset(more, 0, sizeof(more));
	old_pair(more, 99990, 10);
	old_pair(more + 24, 100000, 0);
	add(&b, more, sizeof(more));
	add_padded(&b, data, sizeof(data));
	add_file(&b, "after", "");
	add_end(&b);

	struct run want = {.hash = 14695981039346656037ull};

	for (uint64_t i = 0; i < 25; i++)
		hash_data(&want, &(struct tar_data){(uint8_t *)data, 10, 1000 * i});
	hash_data(&want, &(struct tar_data){(uint8_t *)data, 10, 99990});

	CLEANUP_FREE char *part =
		format_string("f s 644 0:0 0.000000000 100000 sparse\ndata 260 %016" PRIx64 "\n", want.hash);

	expect_part(&b, part);
	expect_part(&b, "f after ");
}

static void bad_sparse_maps(void **state)
{
	/* size of the file, stored bytes, and the pairs */
	static const struct {
		uint64_t size, stored, pairs[6];
		int code;
	} rows[] = {
		{4096, 20, {0, 10, 10, 10}, 0},
		{4096, 20, {4076, 20, 4096, 0}, 0},
		{4096, 0, {4096, 0}, 0},
		{12ull << 30, 4, {(12ull << 30) - 4, 4}, 0},
		{4096, 20, {0, 10, 9, 10}, CPULL_ERR_TAR},          /* overlap */
		{4096, 20, {100, 10, 0, 10}, CPULL_ERR_TAR},        /* descending */
		{4096, 20, {4077, 20}, CPULL_ERR_TAR},              /* past the end */
		{4096, 20, {5000, 20}, CPULL_ERR_TAR},
		{4096, 0, {4097, 0}, CPULL_ERR_TAR},
		{4096, 21, {0, 20}, CPULL_ERR_TAR},                 /* more stored than named */
		{4096, 19, {0, 20}, CPULL_ERR_TAR},
		{4096, 0, {0, (1ull << 33) - 1}, CPULL_ERR_TAR},
		{(1ull << 33) - 1, 0, {8, 0, 4, 0}, CPULL_ERR_TAR},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		ARCHIVE old = {0}, list = {0}, text = {0};
		struct tar_header h = make_old_sparse(rows[i].stored, MIN(rows[i].size, (1ull << 33) - 1));
		size_t pairs = 0;
		char map[256] = "GNU.sparse.map=", size[64], lines[512] = "", count[16];

		while (pairs < 3 && (rows[i].pairs[2 * pairs] || rows[i].pairs[2 * pairs + 1])) {
			const uint64_t *p = &rows[i].pairs[2 * pairs];

			old_pair(h.gnu.sparse + 24 * pairs, p[0], p[1]);
			snprintf(map + strlen(map), 64, "%s%" PRIu64 ",%" PRIu64, pairs ? "," : "", p[0], p[1]);
			snprintf(lines + strlen(lines), 64, "%" PRIu64 "\n%" PRIu64 "\n", p[0], p[1]);
			pairs++;
		}
		if (rows[i].size < 1ull << 33) {
			add_header(&old, h);
			add_padded(&old, (char[32]){0}, rows[i].stored);
			expect_code(&old, rows[i].code);
		}
		snprintf(size, sizeof(size), "GNU.sparse.size=%" PRIu64, rows[i].size);
		add_pax(&list, 'x', size, map, NULL);
		add_header(&list, make('0', "s", rows[i].stored));
		add_padded(&list, (char[32]){0}, rows[i].stored);
		expect_code(&list, rows[i].code);
		snprintf(size, sizeof(size), "GNU.sparse.realsize=%" PRIu64, rows[i].size);
		add_pax(&text, 'x', "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=n", size, NULL);
		add_header(&text, make('0', "s", rows[i].stored + 512));
		snprintf(count, sizeof(count), "%zu\n", pairs);

		CLEANUP_FREE char *whole = format_string("%s%s", count, lines);

		add_padded(&text, whole, strlen(whole));
		add_padded(&text, (char[32]){0}, rows[i].stored);
		expect_code(&text, rows[i].code);
	}
}

/* The three spellings of one file: 512 bytes of 'S' at 1024. */
static void sparse_data_lands_where_the_map_says(void **state)
{
	static const char *const files[] = {"gnu-sparse-old", "pax-sparse-0.1", "pax-sparse-1.0"};
	struct run want = {.hash = 14695981039346656037ull};
	uint8_t text[512];

	(void)state;
	memset(text, 'S', sizeof(text));
	hash_data(&want, &(struct tar_data){text, sizeof(text), 1024});

	CLEANUP_FREE char *part = format_string("data 512 %016" PRIx64 "\nend\n", want.hash);

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		CLEANUP_FREE char *name = format_string("layers/%s.tar", files[i]);
		ARCHIVE archive = {0};

		if (!load(name, &archive)) {
			print_message("no shared vectors (COCO_PULL_SHARED)\n");
			skip();
		}
		expect_part(&archive, part);
	}
}

static void negative_old_sparse(void **state)
{
	static const uint8_t minus[12] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};

	(void)state;
	for (int field = 0; field < 3; field++) {
		ARCHIVE b = {0};
		struct tar_header h = make_old_sparse(0, 4096);

		old_pair(h.gnu.sparse, 0, 0);
		memcpy(field == 0 ? h.gnu.sparse : field == 1 ? h.gnu.sparse + 12 : h.gnu.real_size, minus, 12);
		add_header(&b, h);
		expect_code(&b, CPULL_ERR_TAR);
	}
}

static void pax_sparse_headers(void **state)
{
	static const struct {
		const char *records[8];
		int code;
	} rows[] = {
		{{"GNU.sparse.size=99", "GNU.sparse.numblocks=2", "GNU.sparse.offset=1", "GNU.sparse.numbytes=1",
		  "GNU.sparse.offset=50", "GNU.sparse.numbytes=1"}, 0},
		{{"GNU.sparse.size=99", "GNU.sparse.offset=1", "GNU.sparse.numbytes=2"}, 0},
		{{"GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.size=99", "GNU.sparse.map=1,2"}, 0},
		{{"GNU.sparse.size=99", "GNU.sparse.realsize=99", "GNU.sparse.map=1,2"}, 0},
		{{"GNU.sparse.size=99", "GNU.sparse.realsize=98", "GNU.sparse.map=1,2"}, CPULL_ERR_TAR},
		{{"GNU.sparse.size=99", "GNU.sparse.numblocks=3", "GNU.sparse.offset=1", "GNU.sparse.numbytes=2"},
		 CPULL_ERR_TAR},
		{{"GNU.sparse.size=99", "GNU.sparse.offset=1", "GNU.sparse.offset=2"}, CPULL_ERR_TAR},
		{{"GNU.sparse.size=99", "GNU.sparse.numbytes=2"}, CPULL_ERR_TAR},
		{{"GNU.sparse.size=99", "GNU.sparse.offset=1", "GNU.sparse.numbytes=2", "GNU.sparse.offset=5"},
		 CPULL_ERR_TAR},
		{{"GNU.sparse.size=99", "GNU.sparse.offset=1", "GNU.sparse.numbytes=2", "GNU.sparse.map=1,2"},
		 CPULL_ERR_TAR},
		{{"GNU.sparse.size=99", "GNU.sparse.offset=-1", "GNU.sparse.numbytes=2"}, CPULL_ERR_TAR},
		{{"GNU.sparse.map=1,2"}, CPULL_ERR_TAR},
		{{"GNU.sparse.size=99"}, CPULL_ERR_TAR},
		{{"GNU.sparse.size=99", "GNU.sparse.map=1,2,"}, CPULL_ERR_TAR},
		{{"GNU.sparse.size=99", "GNU.sparse.map=1,2,3"}, CPULL_ERR_TAR},
		{{"GNU.sparse.size=99", "GNU.sparse.map=1,,2"}, CPULL_ERR_TAR},
		{{"GNU.sparse.size=99", "GNU.sparse.map=1,-2"}, CPULL_ERR_TAR},
		{{"GNU.sparse.size=8796093022209", "GNU.sparse.map=1,2"}, CPULL_ERR_LIMIT},
		{{"GNU.sparse.major=2", "GNU.sparse.minor=0", "GNU.sparse.size=99"}, CPULL_ERR_TAR},
		{{"GNU.sparse.major=1", "GNU.sparse.minor=1", "GNU.sparse.size=99"}, CPULL_ERR_TAR},
		{{"GNU.sparse.major=1", "GNU.sparse.size=99"}, CPULL_ERR_TAR},
		{{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.size=9", "GNU.sparse.map=1,2"},
		 CPULL_ERR_TAR},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		ARCHIVE b = {0}, text = {0};

		for (size_t k = 0; k < 8 && rows[i].records[k]; k++) {
			const char *equals = strchr(rows[i].records[k], '=');
			CLEANUP_FREE char *key = strndup(rows[i].records[k], (size_t)(equals - rows[i].records[k]));

			record(&text, key, equals + 1, strlen(equals + 1));
		}
		add_extension(&b, 'x', text.data, text.len);
		add_file(&b, "s", "xy");
		add_end(&b);
		expect_code(&b, rows[i].code);
		if (!rows[i].code)
			expect_part(&b, "f s 644 0:0 0.000000000 99 sparse\ndata 2 ");
	}
}

static void sparse_only_for_files(void **state)
{
	ARCHIVE dir = {0}, both = {0}, ustar = {0};
	struct tar_header h = make_old_sparse(2, 99);

	(void)state;
	add_pax(&dir, 'x', "GNU.sparse.size=99", "GNU.sparse.map=1,2", NULL);
	add_header(&dir, make('5', "d", 0));
	expect_code(&dir, CPULL_ERR_TAR);
	old_pair(h.gnu.sparse, 0, 2);
	add_pax(&both, 'x', "GNU.sparse.size=99", "GNU.sparse.map=1,2", NULL);
	add_header(&both, h);
	expect_code(&both, CPULL_ERR_TAR);
	add_header(&ustar, make('S', "s", 0));
	expect_code(&ustar, CPULL_ERR_TAR);
}

static void sparse_text_maps(void **state)
{
	static const struct {
		const char *map;
		size_t data; /* stored behind it, unpadded */
		int code;
	} rows[] = {
		{"1\n5\n3\n", 3, 0},
		{"0\n", 0, 0},
		{"\n", 0, CPULL_ERR_TAR},
		{"1\n\n3\n", 3, CPULL_ERR_TAR},
		{"1\n5 3\n", 3, CPULL_ERR_TAR},
		{"-1\n", 0, CPULL_ERR_TAR},
		{"1\n5\n3", 3, CPULL_ERR_TAR},
		{"2\n5\n3\n", 3, CPULL_ERR_TAR},
		{"65537\n", 0, CPULL_ERR_LIMIT}, /* LIMIT_SPARSE_CHUNKS + 1 */
		{"9999999999999999999\n", 0, CPULL_ERR_TAR},
		{"1\n999999999999999999\n3\n", 3, CPULL_ERR_TAR},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		ARCHIVE b = {0};

		add_pax(&b, 'x', "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=99",
			"GNU.sparse.name=n", NULL);
		add_header(&b, make('0', "s", 512 + rows[i].data));
		add_padded(&b, rows[i].map, strlen(rows[i].map));
		add_padded(&b, (char[512]){0}, rows[i].data);
		add_file(&b, "after", "");
		expect_code(&b, rows[i].code);
		if (!rows[i].code)
			expect_part(&b, "f n 644 0:0 0.000000000 99 sparse\ndata ");
	}
}

/* The map fills several blocks, and 65536 ranges are the most there may be. */
static void the_largest_sparse_map(void **state)
{
	ARCHIVE b = {0}, map = {0}, cut = {0};
	char line[64];

	(void)state;
	add(&map, "65536\n", 6);
	for (unsigned i = 0; i < 65536; i++)
		add(&map, line, (size_t)snprintf(line, sizeof(line), "%u\n1\n", 2 * i));

	size_t padded = (map.len + 511) / 512 * 512;
	CLEANUP_FREE char *data = calloc(1, 65536);

	add_pax(&b, 'x', "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=131072", NULL);
	add_header(&b, make('0', "s", padded + 65536));
	add_padded(&b, map.data, map.len);
	add_padded(&b, data, 65536);
	add_end(&b);
	expect_part(&b, "f s 644 0:0 0.000000000 131072 sparse\ndata 65536 ");
	/* a map that its stored size cuts off */
	add_pax(&cut, 'x', "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=131072", NULL);
	add_header(&cut, make('0', "s", 1024));
	add_padded(&cut, map.data, map.len);
	expect_code(&cut, CPULL_ERR_TAR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(long_names_with_and_without_nul),
		cmocka_unit_test(empty_long_names_are_refused),
		cmocka_unit_test(size_only_in_the_pax_header),
		cmocka_unit_test(pax_size_is_not_for_other_extensions),
		cmocka_unit_test(pax_values),
		cmocka_unit_test(damaged_pax_records),
		cmocka_unit_test(nul_bytes_in_pax),
		cmocka_unit_test(an_empty_pax_header_is_none),
		cmocka_unit_test(the_last_record_wins_and_empty_ones_take_back),
		cmocka_unit_test(replaced_fields_are_not_read),
		cmocka_unit_test(devices_by_pax),
		cmocka_unit_test(path_limits),
		cmocka_unit_test(a_long_name_over_its_limit_is_refused_before_it_is_read),
		cmocka_unit_test(pax_header_limit),
		cmocka_unit_test(xattr_limits),
		cmocka_unit_test(old_sparse_with_more_blocks),
		cmocka_unit_test(bad_sparse_maps),
		cmocka_unit_test(sparse_data_lands_where_the_map_says),
		cmocka_unit_test(negative_old_sparse),
		cmocka_unit_test(pax_sparse_headers),
		cmocka_unit_test(sparse_only_for_files),
		cmocka_unit_test(sparse_text_maps),
		cmocka_unit_test(the_largest_sparse_map),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
