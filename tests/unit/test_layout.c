/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch/layout behind fetch/source: an OCI layout on disk, what a hostile one holds, and reading it where the kernel
 * has no openat2().
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "engine/base/limits.h"
#include "fetch/source.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX
#define CHUNK_BYTES 4096u
#define BLOB_BYTES (3 * CHUNK_BYTES + 77)

struct fixture {
	char dir[64];
	struct fetcher *fetcher;
	struct source *source;
	struct pool *pool;
	struct pool_share *share;
	struct reference reference;
	struct source_options options;
	struct cpull_error err;
};

static void put(const struct fixture *f, const char *name, const void *data, size_t len)
{
	CLEANUP_FREE char *path = format_string("%s/%s", f->dir, name);
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(data, 1, len, file), len);
	assert_int_equal(fclose(file), 0);
}

static void put_text(const struct fixture *f, const char *name, const char *text)
{
	put(f, name, text, strlen(text));
}

static void make_dir(const struct fixture *f, const char *name)
{
	CLEANUP_FREE char *path = format_string("%s/%s", f->dir, name);

	assert_int_equal(mkdir(path, 0700), 0);
}

static void fill(uint8_t *data)
{
	for (size_t i = 0; i < BLOB_BYTES; i++)
		data[i] = (uint8_t)(i * 7 + i / 256);
}

static void set_up(struct fixture *f)
{
	uint8_t data[BLOB_BYTES];

	memset(f, 0, sizeof(*f));
	snprintf(f->dir, sizeof(f->dir), "/tmp/test_layout.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	put_text(f, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
	put_text(f, "index.json", "{\"schemaVersion\":2}");
	make_dir(f, "blobs");
	make_dir(f, "blobs/sha256");
	fill(data);
	put(f, "blobs/sha256/" HEX, data, sizeof(data));
	f->reference = (struct reference){.transport = REFERENCE_LAYOUT, .path = f->dir};
	f->options = (struct source_options){.reference = &f->reference};
	assert_int_equal(fetcher_new(CPULL_IO_AUTO, NULL, &f->fetcher, NULL), 0);
	assert_int_equal(pool_new(CHUNK_BYTES, 4, &f->pool, NULL), 0);
	assert_int_equal(pool_share_open(f->pool, 2, 2, &f->share), 0);
}

static void open_source(struct fixture *f)
{
	assert_int_equal(source_open(f->fetcher, &f->options, &f->source, &f->err), 0);
}

static void tear_down(struct fixture *f)
{
	CLEANUP_FREE char *command = format_string("rm -r %s", f->dir);

	source_close(f->source);
	fetcher_free(f->fetcher);
	pool_share_close(f->share);
	pool_free(f->pool);
	assert_int_equal(system(command), 0);
}

static int read_whole(struct fixture *f, uint64_t size)
{
	struct descriptor desc = {.digest = DIGEST, .size = size};
	uint8_t want[BLOB_BYTES];
	struct blob *blob;
	struct chunk *chunk;
	uint64_t total = 0;
	int rc = source_open_blob(f->source, &desc, f->share, &blob, &f->err);

	if (rc)
		return rc;
	fill(want);
	while ((rc = blob_read(blob, &chunk, NULL, &f->err)) == 0 && chunk) {
		if (memcmp(chunk->data, want + total, chunk->len) != 0)
			rc = CPULL_ERR_DIGEST;
		total += chunk->len;
		chunk_put(chunk);
	}
	if (!rc && (total != size || blob_received(blob) != size))
		rc = CPULL_ERR_SIZE;
	blob_close(blob);
	return rc;
}

static void layouts_are_read(void **state)
{
	struct fixture f;
	struct source_document document;
	struct bytes text = {0};

	(void)state;
	set_up(&f);
	open_source(&f);
	assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), 0);
	assert_string_equal(document.text.data, "{\"schemaVersion\":2}");
	assert_string_equal(document.content_type, "application/vnd.oci.image.index.v1+json");
	source_document_free(&document);
	assert_int_equal(source_get_manifest(f.source, DIGEST, &document, &f.err), 0);
	assert_int_equal(document.text.len, BLOB_BYTES);
	assert_string_equal(document.content_type, "");
	source_document_free(&document);
	assert_int_equal(source_get_blob(f.source, DIGEST, BLOB_BYTES, 1 << 20, &text, &f.err), 0);
	assert_int_equal(text.len, BLOB_BYTES);
	bytes_free(&text);
	assert_int_equal(read_whole(&f, BLOB_BYTES), 0);
	assert_int_equal(read_whole(&f, BLOB_BYTES - 1), CPULL_ERR_SIZE);
	assert_int_equal(read_whole(&f, BLOB_BYTES + 1), CPULL_ERR_SIZE);
	assert_int_equal(source_get_blob(f.source, DIGEST, 5, 1 << 20, &text, &f.err), CPULL_ERR_SIZE);
	assert_int_equal(source_get_blob(f.source, DIGEST, BLOB_BYTES, 5, &text, &f.err), CPULL_ERR_LIMIT);
	assert_int_equal(source_get_manifest(f.source, "sha256:../../oci-layout", &document, &f.err),
			 CPULL_ERR_MANIFEST);
	assert_int_equal(source_get_manifest(f.source, "sha512:" HEX HEX, &document, &f.err), CPULL_ERR_NOT_FOUND);
	assert_null(document.text.data);
	tear_down(&f);
}

static void other_directories_are_no_layouts(void **state)
{
	static const struct {
		const char *text;
		int code;
	} rows[] = {
		{"{\"imageLayoutVersion\":\"2.0.0\"}", CPULL_ERR_UNSUPPORTED}, {"{}", CPULL_ERR_MANIFEST},
		{"", CPULL_ERR_MANIFEST}, {NULL, CPULL_ERR_NOT_FOUND},
	};
	struct fixture f;
	char big[8192];

	(void)state;
	set_up(&f);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CLEANUP_FREE char *path = format_string("%s/oci-layout", f.dir);

		if (rows[i].text)
			put_text(&f, "oci-layout", rows[i].text);
		else
			assert_int_equal(unlink(path), 0);
		assert_int_equal(source_open(f.fetcher, &f.options, &f.source, &f.err), rows[i].code);
		assert_non_null(strstr(f.err.message, f.dir));
	}
	memset(big, ' ', sizeof(big));
	put(&f, "oci-layout", big, sizeof(big));
	assert_int_equal(source_open(f.fetcher, &f.options, &f.source, &f.err), CPULL_ERR_LIMIT);
	f.reference.path = "/nonexistent";
	assert_int_equal(source_open(f.fetcher, &f.options, &f.source, &f.err), CPULL_ERR_NOT_FOUND);
	f.source = NULL;
	tear_down(&f);
}

static void manifests_are_limited(void **state)
{
	struct fixture f;
	struct source_document document;

	(void)state;
	set_up(&f);
	open_source(&f);
	CLEANUP_FREE char *path = format_string("%s/index.json", f.dir);
	assert_int_equal(truncate(path, LIMIT_MANIFEST_BYTES), 0);
	assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), 0);
	source_document_free(&document);
	assert_int_equal(truncate(path, LIMIT_MANIFEST_BYTES + 1), 0);
	assert_int_equal(source_get_manifest(f.source, NULL, &document, &f.err), CPULL_ERR_LIMIT);
	assert_null(document.text.data);
	tear_down(&f);
}

/* In place of the blob: a link out, a link to /proc, a FIFO, a directory. Zero when every one was refused. */
static int hostile_blobs(struct fixture *f)
{
	static const char *const links[] = {"/etc/hostname", "../../../../etc/hostname", "/proc/self/exe"};
	CLEANUP_FREE char *path = format_string("%s/blobs/sha256/" HEX, f->dir);

	for (size_t i = 0; i < ARRAY_LEN(links) + 2; i++) {
		struct source_document document;

		if (unlink(path) && rmdir(path))
			return 1;
		if (i < ARRAY_LEN(links) ? symlink(links[i], path)
					 : i == ARRAY_LEN(links) ? mkfifo(path, 0600) : mkdir(path, 0700))
			return 2;
		if (source_get_manifest(f->source, DIGEST, &document, &f->err) != CPULL_ERR_STORAGE ||
		    document.text.data)
			return 3;
		if (read_whole(f, BLOB_BYTES) != CPULL_ERR_STORAGE)
			return 4;
	}
	return 0;
}

static void hostile_layouts_lead_nowhere(void **state)
{
	struct fixture f;

	(void)state;
	set_up(&f);
	open_source(&f);
	assert_int_equal(hostile_blobs(&f), 0);
	tear_down(&f);
}

/* From here on this process's openat2() fails with ENOSYS. */
static bool forbid_openat2(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = ARRAY_LEN(filter), .filter = filter};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 && syscall(SYS_openat2, -1, "", NULL, 0) < 0 &&
	       errno == ENOSYS;
}

static int read_without_openat2(struct fixture *f)
{
	if (!forbid_openat2())
		return 77;
	if (source_open(f->fetcher, &f->options, &f->source, &f->err))
		return 10;
	if (read_whole(f, BLOB_BYTES))
		return 11;

	int rc = hostile_blobs(f);

	source_close(f->source);
	f->source = NULL;
	return rc;
}

static void old_kernels_are_walked_through(void **state)
{
	struct fixture f;
	int status;

	(void)state;
	set_up(&f);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(read_without_openat2(&f));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	tear_down(&f);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		print_message("no seccomp filter can be set here\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void *cancel_soon(void *payload)
{
	usleep(100000);
	source_cancel(payload);
	return NULL;
}

/* Both chunks are out, so the third read waits for room. */
static int read_without_giving_back(struct fixture *f, struct blob *blob)
{
	struct chunk *held[3] = {0};
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(held) && !rc; i++)
		rc = blob_read(blob, &held[i], NULL, &f->err);
	for (size_t i = 0; i < ARRAY_LEN(held); i++)
		chunk_put(held[i]);
	return rc;
}

static void waiting_for_room_can_be_ended(void **state)
{
	struct descriptor desc = {.digest = DIGEST, .size = BLOB_BYTES};
	struct fixture f;
	struct blob *blob;
	pthread_t thread;

	(void)state;
	set_up(&f);
	f.options.deadline_ms = now_ms() + 100;
	open_source(&f);
	assert_int_equal(source_open_blob(f.source, &desc, f.share, &blob, &f.err), 0);
	assert_int_equal(read_without_giving_back(&f, blob), CPULL_ERR_DEADLINE);
	blob_close(blob);
	source_close(f.source);

	f.options.deadline_ms = 0;
	open_source(&f);
	assert_int_equal(source_open_blob(f.source, &desc, f.share, &blob, &f.err), 0);
	uint64_t since = now_ms();
	assert_int_equal(pthread_create(&thread, NULL, cancel_soon, f.source), 0);
	assert_int_equal(read_without_giving_back(&f, blob), CPULL_ERR_CANCELLED);
	assert_true(now_ms() - since < 900);
	pthread_join(thread, NULL);
	blob_close(blob);
	tear_down(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layouts_are_read),
		cmocka_unit_test(other_directories_are_no_layouts),
		cmocka_unit_test(manifests_are_limited),
		cmocka_unit_test(hostile_layouts_lead_nowhere),
		cmocka_unit_test(old_kernels_are_walked_through),
		cmocka_unit_test(waiting_for_room_can_be_ended),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
