/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/bulk_writer: sizes and cuts around every alignment, by each way to write, on tmpfs and on ext4; files that
 * go on where they should not; no room; buffers that the kernel does not want to keep. Runs as root in a mount
 * namespace of its own.
 */
#include "layer_fixture.h"

#include <sys/statvfs.h>

#include "snapshot/bulk_writer.h"

#define CHUNK_BYTES 65536u

static char base[] = "/tmp/bulk-XXXXXX";
static bool direct; /* the file system takes direct writes */

/* The byte of a file at an offset: neighbours, blocks and chunks all differ. */
static uint8_t byte_at(uint64_t offset)
{
	return (uint8_t)(offset * 2654435761u >> 11 ^ offset >> 3);
}

struct place {
	struct bulk_writer *writer;
	struct pool *pool;
	struct pool_share *share;
	struct log log;
	char logged[1024];
	int fd;
};

static void note(enum cpull_log_level level, const char *line, void *payload)
{
	struct place *p = payload;

	(void)level;
	snprintf(p->logged, sizeof(p->logged), "%s", line);
}

/* A pool of two chunks, as much as a writer may count on. */
static void set_up(struct place *p, enum cpull_io io)
{
	CLEANUP_FD int dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct bulk_writer_options options = {.dirfd = dirfd, .io = io, .log = &p->log};

	*p = (struct place){.fd = -1};
	log_init(&p->log, note, p, CPULL_LOG_DEBUG);
	assert_int_equal(pool_new(CHUNK_BYTES, 2, &p->pool, NULL), 0);
	assert_int_equal(pool_share_open(p->pool, 2, 2, &p->share), 0);
	assert_int_equal(bulk_writer_new(&options, &p->writer, NULL), 0);
}

static void begin(struct place *p, uint64_t size)
{
	struct cpull_error err;

	unlink("file");
	p->fd = open("file", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(p->fd >= 0);
	if (bulk_writer_begin(p->writer, p->fd, size, &err))
		fail_msg("%s", err.message);
}

/* No chunk and no descriptor is kept. */
static void tear_down(struct place *p)
{
	struct chunk *chunks[2];

	bulk_writer_free(p->writer);
	for (int i = 0; i < 2; i++)
		assert_non_null(chunks[i] = pool_try_get(p->share));
	for (int i = 0; i < 2; i++)
		chunk_put(chunks[i]);
	pool_share_close(p->share);
	pool_free(p->pool);
	log_destroy(&p->log);
	if (p->fd >= 0)
		close(p->fd);
}

/* Bytes [from, to) of the file, the first of them `lead` bytes into a chunk. */
static int feed(struct place *p, size_t lead, uint64_t from, uint64_t to, struct cpull_error *err)
{
	int rc = 0;

	for (lead %= CHUNK_BYTES; from < to && !rc; lead = 0) {
		struct chunk *chunk = pool_try_get(p->share);

		assert_non_null(chunk); /* or the writer keeps more than it may */

		const struct tar_data data = {.data = chunk->data + lead, .len = MIN(CHUNK_BYTES - lead, to - from),
					      .offset = from};

		for (size_t i = 0; i < data.len; i++)
			chunk->data[lead + i] = byte_at(from + i);
		rc = bulk_writer_data(p->writer, chunk, &data, err);
		if (!rc)
			rc = bulk_writer_yield(p->writer, err);
		chunk_put(chunk);
		from += data.len;
	}
	return rc;
}

static void must_feed(struct place *p, size_t lead, uint64_t from, uint64_t to)
{
	struct cpull_error err;

	if (feed(p, lead, from, to, &err))
		fail_msg("%s", err.message);
}

static void end(struct place *p)
{
	struct cpull_error err;

	if (bulk_writer_end(p->writer, &err))
		fail_msg("%s", err.message);
	assert_int_equal(close(steal_fd(&p->fd)), 0);
}

/* Bytes [from, to), which are zero where nothing was written. */
static void check(uint64_t from, uint64_t to, bool zero)
{
	static uint8_t block[1u << 16];
	CLEANUP_FD int fd = open("file", O_RDONLY | O_CLOEXEC);

	while (from < to) {
		ssize_t n = pread(fd, block, MIN(sizeof(block), to - from), (off_t)from);

		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++)
			if (block[i] != (zero ? 0 : byte_at(from + (uint64_t)i)))
				fail_msg("byte %llu differs", (unsigned long long)(from + (uint64_t)i));
		from += (uint64_t)n;
	}
}

static void write_one(struct place *p, uint64_t size, size_t lead)
{
	begin(p, size);
	must_feed(p, lead, 0, size);
	end(p);
	assert_int_equal(stat_of("file").st_size, size);
	check(0, size, false);
}

static void every_alignment(enum cpull_io io, enum bulk_way want)
{
	struct place p;

	set_up(&p, io);
	assert_int_equal(bulk_writer_way(p.writer), BULK_SYNC);
	/* around blocks, with the file's start on a block of the stream */
	for (uint64_t blocks = 0; blocks <= 3; blocks++)
		for (int by = -1; by <= 1; by++)
			write_one(&p, (1u << 20) + blocks * 4096 + (uint64_t)by, 512);
	/* the cuts between chunks at every sector of a block, and at odd places */
	for (size_t lead = 0; lead <= 4096; lead += 512)
		write_one(&p, (1u << 20) + 4096 + 512, lead);
	write_one(&p, (1u << 20) + 4095, 1);
	write_one(&p, (2u << 20) - 1, CHUNK_BYTES - 1);
	/* buffers that are taken again */
	write_one(&p, (9u << 20) + 12345, 1536);
	write_one(&p, 8u << 20, 3);
	assert_int_equal(bulk_writer_way(p.writer), want);
	tear_down(&p);
}

static void plain_writes(void **state)
{
	(void)state;
	every_alignment(CPULL_IO_SYNC, BULK_SYNC);
	/* what the measurements say */
	every_alignment(CPULL_IO_AUTO, BULK_SYNC);
}

static void ring_writes(void **state)
{
	(void)state;
	if (!has_uring())
		skip();
	every_alignment(CPULL_IO_URING, direct ? BULK_URING_DIRECT : BULK_URING);
}

/* Nothing of a direct write may be seen beyond the file's end, also when that grows later. */
static void no_stray_bytes(void **state)
{
	struct place p;

	(void)state;
	if (!has_uring())
		skip();
	set_up(&p, CPULL_IO_URING);
	write_one(&p, (3u << 20) - 5000, 0); /* fills the buffers with other bytes */
	write_one(&p, (1u << 20) + 5000, 0);
	assert_int_equal(truncate("file", (1u << 20) + 20000), 0);
	check((1u << 20) + 5000, (1u << 20) + 20000, true);
	tear_down(&p);
}

/* A tar reader gives such pieces for sparse files only, but nothing here depends on that. */
static void pieces_with_gaps(void **state)
{
	struct place p;

	(void)state;
	if (!has_uring())
		skip();
	set_up(&p, CPULL_IO_URING);
	begin(&p, 4u << 20);
	must_feed(&p, 512, 0, (1u << 20) + 4096 + 300);
	must_feed(&p, 1, 2u << 20, (2u << 20) + 700000);
	must_feed(&p, 0, 3u << 20, 4u << 20);
	end(&p);
	assert_int_equal(stat_of("file").st_size, 4u << 20);
	check(0, (1u << 20) + 4096 + 300, false);
	check((1u << 20) + 4096 + 300, 2u << 20, true);
	check(2u << 20, (2u << 20) + 700000, false);
	check((2u << 20) + 700000, 3u << 20, true);
	check(3u << 20, 4u << 20, false);
	/* and the next one is direct again */
	write_one(&p, (1u << 20) + 1, 0);
	tear_down(&p);
}

/* The file system is full before the file is: a short write, then an error. */
static void no_room(void **state)
{
	static const enum cpull_io ios[] = {CPULL_IO_SYNC, CPULL_IO_URING};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(ios) - !has_uring(); i++) {
		struct cpull_error err = {0};
		struct place p;
		int rc;

		set_up(&p, ios[i]);
		begin(&p, 1u << 20);
		rc = feed(&p, 512, 0, 1u << 30, &err);
		if (!rc)
			rc = bulk_writer_end(p.writer, &err);
		assert_int_equal(rc, CPULL_ERR_SPACE);
		assert_int_equal(err.sys_errno, ENOSPC);
		assert_non_null(strstr(err.message, "writing its data"));
		tear_down(&p);
		unlink("file");
	}
}

static uint64_t room(void)
{
	struct statvfs fs;

	assert_int_equal(statvfs(".", &fs), 0);
	return (uint64_t)fs.f_bavail * fs.f_frsize;
}

/* A size is only what a header says: it claims little, however large it is, and what it claims goes with the data. */
static void a_size_claims_little(void **state)
{
	static const enum cpull_io ios[] = {CPULL_IO_SYNC, CPULL_IO_URING};
	const uint64_t ends[] = {RESERVE_BYTES - 1, RESERVE_BYTES, RESERVE_BYTES + 1, 3 * RESERVE_BYTES + 4096 + 5};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(ios) - !has_uring(); i++) {
		uint64_t before = room(), at = 0;
		struct place p;

		set_up(&p, ios[i]);
		begin(&p, 1ull << 42);
		assert_true(room() + RESERVE_BYTES + (1u << 20) > before);
		for (size_t k = 0; k < ARRAY_LEN(ends); at = ends[k++]) {
			must_feed(&p, 512, at, ends[k]);
			assert_true(room() + ends[k] + RESERVE_BYTES + (1u << 20) > before);
		}
		check(0, RESERVE_BYTES, false);
		tear_down(&p);
		/* and one that is as large as it said */
		set_up(&p, ios[i]);
		for (size_t k = 0; k < ARRAY_LEN(ends); k++)
			write_one(&p, ends[k], 512);
		tear_down(&p);
		unlink("file");
	}
}

/* A lack of room is found where it is reserved. */
static void no_room_to_reserve(void **state)
{
	static const enum cpull_io ios[] = {CPULL_IO_SYNC, CPULL_IO_URING};

	(void)state;
	if (!direct)
		skip();
	for (size_t i = 0; i < ARRAY_LEN(ios) - !has_uring(); i++) {
		struct cpull_error err = {0};
		struct place p;

		set_up(&p, ios[i]);
		begin(&p, 1ull << 34);
		assert_int_equal(feed(&p, 512, 0, 1ull << 34, &err), CPULL_ERR_SPACE);
		assert_non_null(strstr(err.message, "reserving 16777216 bytes"));
		tear_down(&p);
		unlink("file");
	}
}

/* Given up in the middle, with writes under way. */
static void abandoned(void **state)
{
	struct place p;

	(void)state;
	if (!has_uring())
		skip();
	for (uint64_t at = 1; at < 4u << 20; at += 777777) {
		set_up(&p, CPULL_IO_URING);
		begin(&p, 4u << 20);
		must_feed(&p, 512, 0, at);
		tear_down(&p);
	}
}

/* ---- in a child ---- */

static void unprivileged(void **state)
{
	/* enough for the ring itself, which some kernels charge as well */
	const struct rlimit little = {.rlim_cur = 256 << 10, .rlim_max = 256 << 10};
	struct place p;

	(void)state;
	assert_int_equal(chmod(".", 0777), 0);
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &little), 0);
	assert_int_equal(setresgid(65534, 65534, 65534) | setresuid(65534, 65534, 65534), 0);
	if (!has_uring())
		skip();
	set_up(&p, CPULL_IO_URING);
	write_one(&p, (3u << 20) + 5000, 512);
	assert_int_equal(bulk_writer_way(p.writer), direct ? BULK_URING_DIRECT : BULK_URING);
	assert_true(!direct == !strstr(p.logged, "without registered buffers"));
	tear_down(&p);
	unlink("file");
}

static void no_locked_memory(void **state)
{
	in_child(unprivileged, state);
}

static void refused_ring(void **state)
{
	CLEANUP_FD int dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct bulk_writer_options options = {.dirfd = dirfd, .io = CPULL_IO_URING};
	struct bulk_writer *writer;
	struct cpull_error err;

	(void)state;
	if (!refuse_syscall(SYS_io_uring_setup, EPERM))
		skip();
	assert_int_equal(bulk_writer_new(&options, &writer, &err), CPULL_ERR_PERMISSION);
	assert_non_null(strstr(err.message, "--io uring"));
	every_alignment(CPULL_IO_AUTO, BULK_SYNC);
}

static void no_uring(void **state)
{
	in_child(refused_ring, state);
}

/* ---- */

static int run_group(const char *name)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_writes),     cmocka_unit_test(ring_writes),
		cmocka_unit_test(no_stray_bytes),   cmocka_unit_test(pieces_with_gaps),
		cmocka_unit_test(no_room),          cmocka_unit_test(no_room_to_reserve),
		cmocka_unit_test(a_size_claims_little),
		cmocka_unit_test(abandoned),        cmocka_unit_test(no_locked_memory),
		cmocka_unit_test(no_uring),
	};

	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

static bool probe_direct(void)
{
	CLEANUP_FD int fd = open("probe", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	struct statx st;

	return fd >= 0 && statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 && st.stx_mask & STATX_DIOALIGN &&
	       st.stx_dio_offset_align;
}

int main(void)
{
	int failed = 0;

	if (!own_namespace())
		return 0;
	if (!begin_at(base))
		return 1;
	failed += run_group("bulk_writer on tmpfs");
	if (fresh_ext4(base)) {
		direct = probe_direct();
		failed += run_group("bulk_writer on ext4");
	}
	end_at(base);
	return failed ? 1 : 0;
}
