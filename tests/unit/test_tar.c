/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/tar: what the shared vectors say, the plain format, and the end of an archive. Every cut of the input gives
 * the same, and what parsers are known to disagree about is refused.
 */
#include <dirent.h>

#include "tar_archive.h"

/* ---- shared vectors ---------------------------------------------------------------------------- */

#define DIR90 "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
#define NAME60 "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"

/* What must be in the log, and the code. */
static const struct {
	const char *file;
	int code;
	const char *part;
} vectors[] = {
	{"layers/absolute.tar", 0, "f /etc/abs 644"},
	{"layers/bad-checksum.tar", CPULL_ERR_TAR, "checksum"},
	{"layers/base256-neg-mtime.tar", 0, "f neg-mtime 644 0:0 -1.000000000 0\n"},
	{"layers/base256-uid.tar", 0, "f big-uid 644 3000000000:0 "},
	{"layers/chardev00.tar", 0, "c ghost 644 0:0 0.000000000 0 0/0\n"},
	{"layers/devnodes.tar", 0, "b dev/blk 644 0:0 0.000000000 0 8/0\np fifo"},
	{"layers/dir-mtime.tar", 0, "d m/ 755 0:0 1000000000.000000000 0\n"},
	{"layers/dot-root.tar", 0, "d ./ 755"},
	{"layers/dotdot.tar", 0, "f ../escape 644"}, /* the layer writer's to refuse */
	{"layers/dup-file.tar", 0, "f x 644 0:0 0.000000000 6\n"},
	{"layers/empty.tar", 0, "end\n"},
	{"layers/garbage-after-eof.tar", 0, "f t 644 0:0 0.000000000 1\ndata 1 "},
	{"layers/gnu-longlink.tar", 0, "l sl -> " DIR90 "/" NAME60 " 644"},
	{"layers/gnu-longname.tar", 0, "f " DIR90 "/" NAME60 " 644"},
	{"layers/gnu-sparse-old.tar", 0, "f sparse 644 0:0 0.000000000 4096 sparse\ndata 512 "},
	{"layers/hardlink.tar", 0, "h bin/b -> bin/a 4755"},
	{"layers/hardlink-escape.tar", 0, "h b -> ../../etc/passwd"},
	{"layers/l1-base.tar", 0, "f c/file3 644"},
	{"layers/no-eof-blocks.tar", 0, "f t 644"},
	{"layers/pax-bad-length.tar", CPULL_ERR_TAR, "pax record"},
	{"layers/pax-empty-value.tar", 0, "f real 644"},
	{"layers/pax-global.tar", 0, "f p 644 0:0 1500000000.000000000 1\n"},
	{"layers/pax-global.tar", 0, "f q 644 0:0 1600000000.000000000 1\n"},
	{"layers/pax-path-size.tar", 0, "f " DIR90 "/" NAME60 " 644 4294967294:2097152 1700000000.123456789 2\n"},
	{"layers/pax-sparse-0.1.tar", 0, "f sparse 644 0:0 0.000000000 4096 sparse\ndata 512 "},
	{"layers/pax-sparse-1.0.tar", 0, "f sparse 644 0:0 0.000000000 4096 sparse\ndata 512 "},
	{"layers/pax-xattr.tar", 0, "security.capability=20:"},
	{"layers/pax-xattr.tar", 0, "user.note="},
	{"layers/pax-xattr-cap3.tar", 0, "security.capability=24:"},
	{"layers/symlink-parent.tar", 0, "l evil -> /tmp 644"},
	{"layers/truncated-body.tar", CPULL_ERR_TAR, "cut after 1024 bytes"},
	{"layers/ustar-prefix.tar", 0, "f " DIR90 "/" NAME60 " 644"},
	{"layers/v7.tar", 0, "d olddir/ 644"},
	{"upstream/tokio-tar/tests/archives/7z_long_path.tar", 0, "d this_is_a_folder"},
	{"upstream/tokio-tar/tests/archives/diff-014-unterminated-pax.tar", CPULL_ERR_TAR, "pax record"},
	{"upstream/tokio-tar/tests/archives/diff-024-pending-pax-boundary.tar", CPULL_ERR_TAR, "entry is missing"},
	{"upstream/tokio-tar/tests/archives/diff-039-truncated-entry-body.tar", CPULL_ERR_TAR, "cut after 512"},
	{"upstream/tokio-tar/tests/archives/empty_filename.tar", 0, "d  755"},
	{"upstream/tokio-tar/tests/archives/pax-header-precedence.tar", 0,
	 "f blob.bin 644 0:0 1234567890.000000000 1024"},
	{"upstream/tokio-tar/tests/archives/pax-hidden-entry.tar", 0, "f file_a 644 0:0 0.000000000 1536\n"},
	{"upstream/tokio-tar/tests/archives/pax-overrides-extension-header.tar", 0,
	 "f longname.txt 0 0:0 0.000000000 2048\n"},
	{"upstream/tokio-tar/tests/archives/pax-phantom-entry.tar", 0, "f file_b 644 0:0 0.000000000 1536\n"},
	{"upstream/tokio-tar/tests/archives/pax.tar", 0, "f Cargo.toml 664 1000:1000 1453146164.953123768 760\n"},
	{"upstream/tokio-tar/tests/archives/simple_missing_last_header.tar", 0, "f c 664"},
	{"upstream/tokio-tar/tests/archives/spaces.tar", 0, "f a 777 0:0 1417682356.000000000 2\n"},
	{"upstream/tokio-tar/tests/archives/sparse-1.tar", 0, "1048588 sparse\ndata 4108 "},
	{"upstream/tokio-tar/tests/archives/sparse-large.tar", 0, "12626929280 sparse\ndata 1664 "},
	{"upstream/tokio-tar/tests/archives/sparse.tar", 0,
	 "f sparse_ext.txt 644 1000:100 1461962011.000000000 45061 sparse\ndata 2565 "},
	{"upstream/tokio-tar/tests/archives/xattrs.tar", 0, "user.pax.flags=3:18922\n"},
	{"erofs/v2-basic.tar", 0, "f neg 644 0:0 -101.750000000 1\n"},
	{"erofs/v2-basic.tar", 0, "c big 644 0:0 1700000000.000000000 0 4095/1048575\n"},
	{"ocicrypt/layer.tar", 0, "end\n"},
};

static void vectors_say_what_they_should(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
		ARCHIVE archive = {0}, log = {0};

		if (!load(vectors[i].file, &archive)) {
			print_message("no shared vectors (COCO_PULL_SHARED): %s\n", vectors[i].file);
			skip();
		}

		int code = run_all(archive.data, archive.len, &log);

		if (code != vectors[i].code || !strstr(log.data, vectors[i].part))
			fail_msg("%s: wanted %d and \"%s\", got %d and\n%s", vectors[i].file, vectors[i].code,
				 vectors[i].part, code, log.data);
	}
}

/* Nothing to compare with, but no cut may change what is said, and nothing may crash. */
static void every_vector_is_the_same_in_any_cut(void **state)
{
	static const char *dirs[] = {"layers", "upstream/tokio-tar/tests/archives", "erofs"};
	const char *shared = getenv("COCO_PULL_SHARED");
	unsigned seen = 0;

	(void)state;
	for (size_t i = 0; shared && i < ARRAY_LEN(dirs); i++) {
		CLEANUP_FREE char *path = format_string("%s/vectors/%s", shared, dirs[i]);
		DIR *dir = opendir(path);

		for (struct dirent *d; dir && (d = readdir(dir));) {
			ARCHIVE archive = {0};
			CLEANUP_FREE char *name = format_string("%s/%s", dirs[i], d->d_name);

			if (d->d_name[0] == '.' || !load(name, &archive) || archive.len > 200000)
				continue;
			run_all(archive.data, archive.len, NULL);
			seen++;
		}
		if (dir)
			closedir(dir);
	}
	if (!seen) {
		print_message("no shared vectors (COCO_PULL_SHARED)\n");
		skip();
	}
}

/* ---- the plain format -------------------------------------------------------------------------- */

static void types_old_and_new(void **state)
{
	ARCHIVE b = {0};
	struct tar_header h;

	(void)state;
	h = make(0, "d/", 0);
	memset(h.magic, 0, 8);
	add_header(&b, h);
	add_header(&b, make('7', "seven", 0));
	add_header(&b, make(0, "nul", 0));
	h = make('2', "link", 0);
	memset(h.link, 'l', 100); /* fills its field: no NUL */
	add_header(&b, h);
	h = make('3', "tty", 99); /* a size without data */
	octal(h.dev_major, 8, 4);
	octal(h.dev_minor, 8, 64);
	octal(h.mode, 8, 0120644); /* only the permission bits count */
	add_header(&b, h);
	h = make('1', "hard", 5);
	memcpy(h.link, "seven", 5);
	add_header(&b, h);
	add_header(&b, make('5', "dir", 512));
	add_header(&b, make('6', "pipe", 0));
	add_end(&b);
	expect(&b, "d d/ 644 0:0 0.000000000 0\n"
		   "f seven 644 0:0 0.000000000 0\ndata 0 cbf29ce484222325\n"
		   "f nul 644 0:0 0.000000000 0\ndata 0 cbf29ce484222325\n"
		   "l link -> llllllllllllllllllllllllllllllllllllllllllllllllll"
		   "llllllllllllllllllllllllllllllllllllllllllllllllll"
		   " 644 0:0 0.000000000 0\n"
		   "c tty 644 0:0 0.000000000 0 4/64\n"
		   "h hard -> seven 644 0:0 0.000000000 0\n"
		   "d dir 644 0:0 0.000000000 0\n"
		   "p pipe 644 0:0 0.000000000 0\nend\n");
}

static void unknown_types_are_refused(void **state)
{
	(void)state;
	for (int type = 1; type < 256; type++) {
		ARCHIVE b = {0};

		if (type < 128 && strchr("01234567xXgLKS", type))
			continue;
		add_header(&b, make((uint8_t)type, "x", 0));
		add_end(&b);
		expect_code(&b, CPULL_ERR_TAR);
	}
}

static void links_need_a_target(void **state)
{
	(void)state;
	for (uint8_t type = '1'; type <= '2'; type++) {
		ARCHIVE b = {0};

		add_header(&b, make(type, "x", 0));
		expect_code(&b, CPULL_ERR_TAR);
	}
}

static void names_keep_their_bytes(void **state)
{
	static const char *const names[] = {"\xff\xfe", "a\nb", "./", "//x", "a/../b", "", "\x80\x01"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		ARCHIVE b = {0};
		CLEANUP_FREE char *line = format_string("d %s 644 0:0 0.000000000 0\nend\n", names[i]);

		add_header(&b, make('5', names[i], 0));
		add_end(&b);
		expect(&b, line);
	}
}

/* What GNU tar, libarchive and Go do not read alike. */
static void files_that_look_like_directories(void **state)
{
	ARCHIVE slash = {0}, data = {0};

	(void)state;
	add_header(&slash, make('0', "d/", 0));
	expect_code(&slash, CPULL_ERR_TAR);
	add_header(&data, make(0, "d/", 512));
	add_padded(&data, "x", 512 - 511);
	expect_code(&data, CPULL_ERR_TAR);
}

static void number_fields(void **state)
{
	static const struct {
		const char *uid; /* 8 bytes */
		long long value; /* -1: an error */
	} rows[] = {
		{"0000644\0", 0644},
		{"    644 ", 0644},
		{"644 \0\0\0\0", 0644},
		{"00000644", 0644}, /* not terminated */
		{"\0\0\0\0\0\0\0\0", 0},
		{"        ", 0},
		{"12\0junk!", 012},
		{"00\0junk!", 0},
		{"\x80\0\0\0\xb2\xd0\x5e\0", 3000000000},
		{"\x80\0\0\0\xff\xff\xff\xfe", 4294967294},
		{"\x80\0\0\0\xff\xff\xff\xff", -1},   /* 2^32 - 1 */
		{"\x80\0\0\x01\0\0\0\0", -1},         /* 2^32 */
		{"\xff\xff\xff\xff\xff\xff\xff\xff", -1}, /* -1 */
		{"\xbf\xff\xff\xff\xff\xff\xff\xff", -1}, /* 2^62 - 1 */
		{"64x\0\0\0\0\0", -1},
		{"648\0\0\0\0\0", -1},
		{"-644\0\0\0\0", -1},
		{"\0" "644\0\0\0", -1}, /* read by some, blank to others */
		{"6 4\0\0\0\0\0", -1},
		{"+644\0\0\0\0", -1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		ARCHIVE b = {0};
		CLEANUP_FREE char *part = format_string("f x 644 %lld:0 ", rows[i].value);
		struct tar_header h = make('0', "x", 0);

		memcpy(h.uid, rows[i].uid, 8);
		add_header(&b, h);
		if (rows[i].value < 0)
			expect_code(&b, CPULL_ERR_TAR);
		else
			expect_part(&b, part);
	}
}

static void size_and_mtime_fields(void **state)
{
	static const struct {
		const char *mtime; /* 12 bytes */
		const char *text;  /* NULL: an error */
	} rows[] = {
		{"777777777777", " 68719476735."},
		{"        12 \0", " 10."},
		{"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", " 9223372036854775807."},
		{"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", " -9223372036854775808."},
		{"\x80\0\0\0\x80\0\0\0\0\0\0\0", NULL},
		{"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", NULL},
		{"\x80\0\0\x01\0\0\0\0\0\0\0\0", NULL},
		{"-1\0\0\0\0\0\0\0\0\0\0", NULL},
	};
	static const struct {
		const char *size;
		int code;
	} sizes[] = {
		{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", CPULL_ERR_TAR},
		{"\x80\0\0\0\0\0\x08\0\0\0\0\x01", CPULL_ERR_LIMIT}, /* LIMIT_FILE_BYTES + 1 */
		{"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", CPULL_ERR_LIMIT},
		{"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", CPULL_ERR_TAR},
		{"12345678901x", CPULL_ERR_TAR},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		ARCHIVE b = {0};
		struct tar_header h = make('0', "x", 0);

		memcpy(h.mtime, rows[i].mtime, 12);
		add_header(&b, h);
		if (rows[i].text)
			expect_part(&b, rows[i].text);
		else
			expect_code(&b, CPULL_ERR_TAR);
	}
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		ARCHIVE b = {0};
		struct tar_header h = make('0', "x", 0);

		memcpy(h.size, sizes[i].size, 12);
		add_header(&b, h);
		expect_code(&b, sizes[i].code);
	}
}

static void signed_checksums_are_taken(void **state)
{
	ARCHIVE b = {0};
	struct tar_header h = make('0', "\xe9t\xe9", 0);
	int sum = 0;

	(void)state;
	memset(h.checksum, ' ', 8);
	for (size_t i = 0; i < sizeof(h); i++)
		sum += ((signed char *)&h)[i];
	octal(h.checksum, 8, (uint64_t)sum);
	add(&b, &h, sizeof(h));
	expect_part(&b, "f \xe9t\xe9 644");
	octal(h.checksum, 8, (uint64_t)sum + 1);
	b.len = 0;
	add(&b, &h, sizeof(h));
	expect_code(&b, CPULL_ERR_TAR);
}

/* ---- the end ----------------------------------------------------------------------------------- */

static void a_cut_is_noticed_at_every_byte(void **state)
{
	ARCHIVE b = {0};
	size_t whole[8];
	unsigned count = 0;

	(void)state;
	whole[count++] = 0;
	add_file(&b, "a", "text");
	whole[count++] = b.len;
	add_pax(&b, 'x', "path=b", NULL);
	add_extension(&b, 'K', "unused", 7);
	add_file(&b, "x", "");
	whole[count++] = b.len;
	add_pax(&b, 'g', "comment=c", NULL);
	whole[count++] = b.len;
	add(&b, (char[512]){0}, 512);
	whole[count++] = b.len;
	add(&b, (char[512]){0}, 512);
	whole[count++] = b.len;
	for (size_t len = 0, next = 0; len <= b.len; len++) {
		struct run run;
		bool fine = next < count && whole[next] == len;

		next += fine;
		run_cut(&run, b.data, len, MAX(len, (size_t)1));
		assert_int_equal(run.code, fine ? 0 : CPULL_ERR_TAR);
		bytes_free(&run.log);
	}
}

static void a_lone_zero_block_is_refused(void **state)
{
	ARCHIVE b = {0};

	(void)state;
	add_file(&b, "a", "1");
	add(&b, (char[512]){0}, 512);
	add_file(&b, "b", "2");
	add_end(&b);
	expect_code(&b, CPULL_ERR_TAR);
}

/* Each letter is a header: x, g, L, K, f for a file, z for the two zero blocks. */
static void sequences_of_headers(void **state)
{
	static const struct {
		const char *headers;
		int code;
		const char *path;
	} rows[] = {
		{"xf", 0, "f from-pax "},
		{"Lf", 0, "f from-L "},
		{"LKxf", 0, "f from-pax "},
		{"xKLf", 0, "f from-pax "},
		{"gxf", 0, "f from-pax "},
		{"gLff", 0, "f from-L 644 0:0 7.000000000 0\ndata 0 cbf29ce484222325\nf name 644 0:0 7.000000000 0\n"},
		{"ggf", 0, "f name "},
		{"xff", 0, "f from-pax 644 0:0 0.000000000 0\ndata 0 cbf29ce484222325\nf name "},
		{"g", 0, ""},
		{"z", 0, "end\n"},
		{"xxf", CPULL_ERR_TAR, ""},
		{"LLf", CPULL_ERR_TAR, ""},
		{"KKf", CPULL_ERR_TAR, ""},
		{"xgf", CPULL_ERR_TAR, ""},
		{"Lgf", CPULL_ERR_TAR, ""},
		{"xLxf", CPULL_ERR_TAR, ""},
		{"LLz", CPULL_ERR_TAR, ""},
		{"Lz", CPULL_ERR_TAR, ""},
		{"Kz", CPULL_ERR_TAR, ""},
		{"xz", CPULL_ERR_TAR, ""},
		{"fx", CPULL_ERR_TAR, ""},
		{"fL", CPULL_ERR_TAR, ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		ARCHIVE b = {0}, log = {0};

		for (const char *c = rows[i].headers; *c; c++) {
			if (*c == 'x')
				add_pax(&b, 'x', "path=from-pax", NULL);
			else if (*c == 'g')
				add_pax(&b, 'g', "mtime=7", "path=global", "size=99", "linkpath=g", NULL);
			else if (*c == 'L')
				add_extension(&b, 'L', "from-L", 7);
			else if (*c == 'K')
				add_extension(&b, 'K', "from-K", 6);
			else if (*c == 'f')
				add_header(&b, make('0', "name", 0));
			else
				add_end(&b);
		}
		if (run_all(b.data, b.len, &log) != rows[i].code || !strstr(log.len ? log.data : "", rows[i].path))
			fail_msg("%s: wanted %d and \"%s\", got\n%s", rows[i].headers, rows[i].code, rows[i].path,
				 log.len ? log.data : "nothing");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vectors_say_what_they_should),
		cmocka_unit_test(every_vector_is_the_same_in_any_cut),
		cmocka_unit_test(types_old_and_new),
		cmocka_unit_test(unknown_types_are_refused),
		cmocka_unit_test(links_need_a_target),
		cmocka_unit_test(names_keep_their_bytes),
		cmocka_unit_test(files_that_look_like_directories),
		cmocka_unit_test(number_fields),
		cmocka_unit_test(size_and_mtime_fields),
		cmocka_unit_test(signed_checksums_are_taken),
		cmocka_unit_test(a_cut_is_noticed_at_every_byte),
		cmocka_unit_test(a_lone_zero_block_is_refused),
		cmocka_unit_test(sequences_of_headers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
