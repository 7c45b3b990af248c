/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a tar without doing anything with it: what a header takes. On the main thread.
 */
#include "bench/micro/read_tar.h"

#include "bench/micro/stages.h"
#include "bench/micro/unpack.h"
#include "engine/base/error.h"

struct tar_count {
	struct tar *tar;
	uint64_t entries, file_bytes;
};

int tar_count_new(struct tar_count **out, struct cpull_error *err)
{
	struct tar_count *c = calloc(1, sizeof(*c));
	int rc = c ? tar_new(&c->tar, err) : error_nomem(err);

	if (rc)
		free(c);
	else
		*out = c;
	return rc;
}

void tar_count_free(struct tar_count *count)
{
	if (!count)
		return;
	tar_free(count->tar);
	free(count);
}

int tar_count_take(void *payload, uint8_t *data, size_t len, struct cpull_error *err)
{
	struct tar_count *c = payload;
	struct tar_input in = {.data = data, .len = len};
	struct tar_data piece;
	int event;

	while ((event = tar_next(c->tar, &in, &piece, err)) != TAR_MORE && event != TAR_END) {
		if (event < 0)
			return event;
		if (event == TAR_ENTRY)
			c->entries++;
		else if (event == TAR_DATA)
			c->file_bytes += piece.len;
	}
	return 0;
}

uint64_t tar_count_entries(const struct tar_count *count)
{
	return count->entries;
}

uint64_t tar_count_file_bytes(const struct tar_count *count)
{
	return count->file_bytes;
}

static int count_tar(const struct span *tar, uint64_t *entries, struct cpull_error *err)
{
	struct tar_count *count = NULL;
	int rc = tar_count_new(&count, err);

	for (size_t at = 0; !rc && at < tar->len; at += UNPACK_CHUNK_BYTES)
		rc = tar_count_take(count, tar->data + at, MIN(tar->len - at, (size_t)UNPACK_CHUNK_BYTES), err);
	if (!rc)
		*entries = count->entries;
	tar_count_free(count);
	return rc;
}

static int pass_tar(void *payload, struct cpull_error *err)
{
	uint64_t entries;

	return count_tar(payload, &entries, err);
}

int measure_tar(struct report *report, const struct corpus *corpus, struct cpull_error *err)
{
	uint64_t entries = 0;
	int rc = count_tar(&corpus->tar, &entries, err);

	if (rc)
		return rc;

	const struct bench_case cases[] = {
		{"tar", "tar_next", true, COST_NONE, NS_PER_HEADER, (double)entries, pass_tar, NULL,
		 (void *)&corpus->tar},
	};

	return measure(report, cases, ARRAY_LEN(cases), err);
}
