/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/tar: what each archive says, that every cut of the input gives the same, and that what parsers are known to
 * disagree about is refused. Archives are the shared vectors and ones built here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <inttypes.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/tar.h"
#include "snapshot/tar_header.h"

#define MAX_ARCHIVE (32u << 20)

/* ---- running the reader ------------------------------------------------------------------------ */

struct run {
	struct bytes log; /* one line an entry, one for its data, one for the end */
	struct tar *tar;
	struct cpull_error err;
	uint64_t hash, data_bytes;
	int code;
};

static void log_line(struct run *run, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void log_line(struct run *run, const char *fmt, ...)
{
	char line[3 * LIMIT_PATH_BYTES];
	va_list args;

	va_start(args, fmt);
	int len = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	assert_int_equal(bytes_append(&run->log, line, MIN((size_t)len, sizeof(line) - 1), MAX_ARCHIVE), 0);
}

static void log_entry(struct run *run)
{
	static const char types[] = "fhlcbdp";
	const struct tar_entry *e = tar_entry(run->tar);

	log_line(run, "%c %s%s%s %o %u:%u %lld.%09ld %" PRIu64 "%s", types[e->type], e->path, *e->link ? " -> " : "",
		 e->link, e->mode, e->uid, e->gid, (long long)e->mtime.tv_sec, e->mtime.tv_nsec, e->size,
		 e->sparse ? " sparse" : "");
	if (e->type == TAR_CHAR || e->type == TAR_BLOCK)
		log_line(run, " %u/%u", e->dev_major, e->dev_minor);
	for (size_t i = 0; i < e->xattr_count; i++) {
		uint32_t sum = 0;

		for (size_t k = 0; k < e->xattrs[i].len; k++)
			sum = sum * 31 + e->xattrs[i].value[k];
		log_line(run, " %s=%zu:%x", e->xattrs[i].name, e->xattrs[i].len, sum);
	}
	log_line(run, "\n");
	run->hash = 14695981039346656037ull;
	run->data_bytes = 0;
}

/* The same whatever pieces the data comes in, and another when a byte lands elsewhere. */
static void hash_data(struct run *run, const struct tar_data *data)
{
	for (size_t i = 0; i < data->len; i++)
		run->hash = (run->hash ^ data->data[i] ^ (data->offset + i) << 8) * 1099511628211ull;
	run->data_bytes += data->len;
}

/* Feeds one piece; false when the reader wants no more. */
static bool feed(struct run *run, const uint8_t *piece, size_t len)
{
	struct tar_input in = {piece, len, 0};
	struct tar_data data;

	for (;;) {
		size_t before = in.pos;
		int rc = tar_next(run->tar, &in, &data, &run->err);

		assert_true(in.pos >= before && in.pos <= in.len);
		switch (rc) {
		case TAR_MORE:
			assert_int_equal(in.pos, in.len);
			return true;
		case TAR_ENTRY:
			log_entry(run);
			break;
		case TAR_DATA:
			assert_true(data.len > 0 && data.data >= piece && data.data + data.len <= piece + len);
			hash_data(run, &data);
			break;
		case TAR_ENTRY_END:
			log_line(run, "data %" PRIu64 " %016" PRIx64 "\n", run->data_bytes, run->hash);
			break;
		case TAR_END:
			log_line(run, "end\n");
			return false;
		default:
			assert_true(rc < 0);
			run->code = rc;
			return false;
		}
	}
}

static void run_cut(struct run *run, const void *data, size_t len, size_t piece)
{
	bool more = true;

	*run = (struct run){0};
	assert_int_equal(tar_new(&run->tar, &run->err), 0);
	for (size_t at = 0; more && at < len; at += piece) {
		/* a copy of exactly that size, so that a sanitizer sees a read past it */
		size_t n = MIN(piece, len - at);
		CLEANUP_FREE uint8_t *copy = malloc(n);

		assert_non_null(copy);
		memcpy(copy, (const uint8_t *)data + at, n);
		more = feed(run, copy, n);
	}
	if (!run->code)
		run->code = tar_finish(run->tar, &run->err);
	if (run->code) {
		assert_int_equal(run->err.code, run->code);
		assert_true(strlen(run->err.message) > 10);
		log_line(run, "error %d %s\n", run->code, run->err.message);
		/* it stays that way */
		assert_int_equal(tar_finish(run->tar, NULL), run->code);
	}
	tar_free(run->tar);
}

/* Runs it whole and in many cuts, asserts that all say the same, and returns the code; *log is what they said. */
static int run_all(const void *data, size_t len, struct bytes *log)
{
	static const size_t pieces[] = {1, 7, 511, 512, 513, 1000, 65536};
	struct run whole, cut;

	run_cut(&whole, data, len, MAX(len, (size_t)1));
	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		if (len > 200000 && pieces[i] < 500)
			continue;
		run_cut(&cut, data, len, pieces[i]);
		assert_int_equal(cut.code, whole.code);
		if (whole.log.len || cut.log.len)
			assert_string_equal(cut.log.data, whole.log.data);
		bytes_free(&cut.log);
	}
	if (log)
		*log = whole.log;
	else
		bytes_free(&whole.log);
	return whole.code;
}

/* ---- building archives ------------------------------------------------------------------------- */

#define ARCHIVE __attribute__((cleanup(bytes_free))) struct bytes

static void add(struct bytes *b, const void *data, size_t len)
{
	assert_int_equal(bytes_append(b, data, len, MAX_ARCHIVE), 0);
}

static void add_padded(struct bytes *b, const void *data, size_t len)
{
	static const uint8_t zeros[TAR_BLOCK_BYTES];

	add(b, data, len);
	add(b, zeros, (TAR_BLOCK_BYTES - len % TAR_BLOCK_BYTES) % TAR_BLOCK_BYTES);
}

static void add_end(struct bytes *b)
{
	static const uint8_t zeros[2 * TAR_BLOCK_BYTES];

	add(b, zeros, sizeof(zeros));
}

static void octal(uint8_t *field, size_t len, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%0*" PRIo64, (int)len - 1, value);
	memcpy(field, text, len);
}

static struct tar_header make(uint8_t type, const char *name, uint64_t size)
{
	struct tar_header h = {.type = type};

	memcpy(h.name, name, MIN(strlen(name), sizeof(h.name)));
	octal(h.mode, 8, 0644);
	octal(h.uid, 8, 0);
	octal(h.gid, 8, 0);
	octal(h.size, 12, size);
	octal(h.mtime, 12, 0);
	memcpy(h.magic, "ustar\0" "00", 8);
	return h;
}

static void add_header(struct bytes *b, struct tar_header h)
{
	unsigned sum = 0;

	memset(h.checksum, ' ', 8);
	for (size_t i = 0; i < sizeof(h); i++)
		sum += ((uint8_t *)&h)[i];
	octal(h.checksum, 7, sum);
	add(b, &h, sizeof(h));
}

static void add_file(struct bytes *b, const char *name, const char *text)
{
	add_header(b, make('0', name, strlen(text)));
	add_padded(b, text, strlen(text));
}

static void record(struct bytes *b, const char *key, const void *value, size_t value_len)
{
	size_t body = strlen(key) + value_len + 3, total = body;
	char text[32];

	for (int i = 0; i < 3; i++)
		total = body + (size_t)snprintf(text, sizeof(text), "%zu", total);
	add(b, text, (size_t)snprintf(text, sizeof(text), "%zu ", total));
	add(b, key, strlen(key));
	add(b, "=", 1);
	add(b, value, value_len);
	add(b, "\n", 1);
}

static void add_extension(struct bytes *b, uint8_t type, const void *payload, size_t len)
{
	add_header(b, make(type, "ext", len));
	add_padded(b, payload, len);
}

/* "key=value" strings up to NULL */
static void add_pax(struct bytes *b, int type, ...)
{
	ARCHIVE text = {0};
	const char *r;
	va_list args;

	va_start(args, type);
	while ((r = va_arg(args, const char *))) {
		const char *equals = strchr(r, '=');
		CLEANUP_FREE char *key = strndup(r, (size_t)(equals - r));

		record(&text, key, equals + 1, strlen(equals + 1));
	}
	va_end(args);
	add_extension(b, (uint8_t)type, text.data, text.len);
}

static void expect(const struct bytes *archive, const char *log)
{
	ARCHIVE got = {0};

	run_all(archive->data, archive->len, &got);
	assert_string_equal(got.len ? got.data : "", log);
}

/* `text` must be in the log; it is what an outcome is about */
static void expect_part(const struct bytes *archive, const char *text)
{
	ARCHIVE got = {0};

	assert_int_equal(run_all(archive->data, archive->len, &got), 0);
	if (!strstr(got.data, text))
		fail_msg("\"%s\" is not in:\n%s", text, got.data);
}

static void expect_code(const struct bytes *archive, int code)
{
	ARCHIVE got = {0};
	int rc = run_all(archive->data, archive->len, &got);

	if (rc != code)
		fail_msg("got %d, wanted %d:\n%s", rc, code, got.len ? got.data : "");
}

/* ---- shared vectors ---------------------------------------------------------------------------- */

static bool load(const char *name, struct bytes *out)
{
	const char *shared = getenv("COCO_PULL_SHARED");
	CLEANUP_FREE char *path = shared ? format_string("%s/vectors/%s", shared, name) : NULL;

	return path && file_read(path, MAX_ARCHIVE, "vector", out, NULL) == 0;
}

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
	{"upstream/tokio-tar/tests/archives/pax-header-precedence.tar", 0, "f blob.bin 644 0:0 1234567890.000000000 1024"},
	{"upstream/tokio-tar/tests/archives/pax-hidden-entry.tar", 0, "f file_a 644 0:0 0.000000000 1536\n"},
	{"upstream/tokio-tar/tests/archives/pax-overrides-extension-header.tar", 0, "f longname.txt 0 0:0 0.000000000 2048\n"},
	{"upstream/tokio-tar/tests/archives/pax-phantom-entry.tar", 0, "f file_b 644 0:0 0.000000000 1536\n"},
	{"upstream/tokio-tar/tests/archives/pax.tar", 0, "f Cargo.toml 664 1000:1000 1453146164.953123768 760\n"},
	{"upstream/tokio-tar/tests/archives/simple_missing_last_header.tar", 0, "f c 664"},
	{"upstream/tokio-tar/tests/archives/spaces.tar", 0, "f a 777 0:0 1417682356.000000000 2\n"},
	{"upstream/tokio-tar/tests/archives/sparse-1.tar", 0, "1048588 sparse\ndata 4108 "},
	{"upstream/tokio-tar/tests/archives/sparse-large.tar", 0, "12626929280 sparse\ndata 1664 "},
	{"upstream/tokio-tar/tests/archives/sparse.tar", 0, "f sparse_ext.txt 644 1000:100 1461962011.000000000 45061 sparse\ndata 2565 "},
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
		   "l link -> llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll"
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
		{"\x80\0\0\0\0\0\x08\0\0\0\0\x01", CPULL_ERR_LIMIT}, /* 2^43 + 1 */
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
		{{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.size=9", "GNU.sparse.map=1,2"}, CPULL_ERR_TAR},
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
		{"65537\n", 0, CPULL_ERR_LIMIT},
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
