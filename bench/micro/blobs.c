/* SPDX-License-Identifier: Apache-2.0
 *
 * The bound of given blobs: their own time of decompression, measured, and the rest from the costs of the stages. On
 * the main thread, after the stages. Each blob becomes
 * {"file", "compression", "encrypted", "bytes", "tar_bytes", "entries", "file_bytes",
 *  "unpack_s": {"median", "min", "max"},
 *  "bound_s": {"receive", "sha256_blob", "hmac", "ctr", "unpack", "sha256_tar", "create", "write", "total"}}
 */
#include <string.h>

#include "bench/micro/read_tar.h"
#include "bench/micro/stages.h"
#include "bench/micro/unpack.h"
#include "engine/base/error.h"

#define ENCRYPTED ",encrypted"

struct blob_facts {
	char *file;
	bool encrypted;
	struct span packed;
	unpack_fn unpack; /* NULL: a plain tar */
	uint64_t tar_bytes, entries, file_bytes;
	struct spread unpack_s;
};

static int look_inside(struct blob_facts *b, struct cpull_error *err)
{
	struct tar_count *count = NULL;
	int rc = tar_count_new(&count, err);
	struct unpack_sink sink = {.take = tar_count_take, .payload = count};

	if (rc)
		return rc;
	if (b->unpack) {
		rc = b->unpack(&b->packed, &sink, err);
	} else {
		rc = tar_count_take(count, b->packed.data, b->packed.len, err);
		sink.bytes = b->packed.len;
	}
	b->tar_bytes = sink.bytes;
	b->entries = tar_count_entries(count);
	b->file_bytes = tar_count_file_bytes(count);
	tar_count_free(count);
	return rc;
}

/* Passes as short as the blob is: turns are filled up with them, as for any stage. */
static int time_unpacking(const struct report *report, struct blob_facts *b, struct cpull_error *err)
{
	double seconds[REPORT_TURNS];

	for (unsigned turn = 0; b->unpack && turn < report->turns; turn++) {
		uint64_t from = cpu_ns(), passes = 0;

		do {
			struct unpack_sink sink = {0};
			int rc = b->unpack(&b->packed, &sink, err);

			if (rc)
				return rc;
			passes++;
		} while (cpu_ns() - from < report->turn_ns / 4);
		seconds[turn] = (double)(cpu_ns() - from) / 1e9 / (double)passes;
	}
	if (b->unpack)
		b->unpack_s = spread_of(seconds, report->turns);
	return 0;
}

static const char *compression(const struct blob_facts *b)
{
	return !b->unpack ? "none" : b->unpack == unpack_zstd ? "zstd" : "gzip";
}

/* The bound's parts as a new object, printed as well. NULL for a lack of memory. */
static json_t *bound_of(const struct report *report, const struct blob_facts *b)
{
	const double gib = (double)b->packed.len / GIB, tar_gib = (double)b->tar_bytes / GIB;
	const double sha256 = report_cost(report, COST_SHA256), opened_gib = b->encrypted ? gib : 0;
	const struct {
		const char *name;
		double s;
	} parts[] = {
		{"receive", report_cost(report, COST_RECEIVE) * gib},
		{"sha256_blob", sha256 * gib},
		{"hmac", report_cost(report, COST_HMAC) * opened_gib},
		{"ctr", report_cost(report, COST_CTR) * opened_gib},
		{"unpack", b->unpack_s.median},
		{"sha256_tar", sha256 * tar_gib},
		{"create", report_cost(report, COST_CREATE) * (double)b->entries},
		{"write", report_cost(report, COST_WRITE) * (double)b->file_bytes / GIB},
	};
	json_t *out = json_object();
	double total = 0;
	int rc = out ? 0 : -1;

	printf("  bound of %s:", b->file);
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		total += parts[i].s;
		printf(" %s %.4f", parts[i].name, parts[i].s);
		rc |= json_object_set_new(out, parts[i].name, json_real(parts[i].s));
	}
	printf(", total %.4f s\n", total);
	rc |= json_object_set_new(out, "total", json_real(total));
	if (!rc)
		return out;
	json_decref(out);
	return NULL;
}

static int add_blob(struct report *report, const struct blob_facts *b, struct cpull_error *err)
{
	json_t *one = json_pack("{s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:{s:f, s:f, s:f}, s:o}", "file", b->file,
				"compression", compression(b), "encrypted", b->encrypted, "bytes",
				(json_int_t)b->packed.len, "tar_bytes", (json_int_t)b->tar_bytes, "entries",
				(json_int_t)b->entries, "file_bytes", (json_int_t)b->file_bytes, "unpack_s", "median",
				b->unpack_s.median, "min", b->unpack_s.min, "max", b->unpack_s.max, "bound_s",
				bound_of(report, b));

	return json_array_append_new(report->blobs, one) ? error_nomem(err) : 0;
}

static int measure_blob(struct report *report, const char *file, struct cpull_error *err)
{
	struct blob_facts b = {0};
	CLEANUP_FREE char *path = strdup(file);
	size_t len = strlen(file), mark = strlen(ENCRYPTED);
	int rc;

	if (!path)
		return error_nomem(err);
	b.file = path;
	b.encrypted = len > mark && !strcmp(path + len - mark, ENCRYPTED);
	if (b.encrypted)
		path[len - mark] = 0;
	rc = span_map(path, &b.packed, err);
	if (rc)
		return rc;
	b.unpack = unpack_bound(&b.packed);
	rc = look_inside(&b, err);
	if (!rc)
		rc = time_unpacking(report, &b, err);
	if (!rc)
		rc = add_blob(report, &b, err);
	span_unmap(&b.packed);
	return rc ? error_wrap(err, "blob %s", path) : 0;
}

int measure_blobs(struct report *report, const char *const *files, size_t count, struct cpull_error *err)
{
	for (size_t i = 0; i < count; i++) {
		int rc = measure_blob(report, files[i], err);

		if (rc)
			return rc;
	}
	return 0;
}
