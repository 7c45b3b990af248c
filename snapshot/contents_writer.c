/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of a layer's contents on its way to the file. Used by the layer's writer on its thread; owns a buffer and
 * the sum of what went through it.
 */
#include "snapshot/contents_writer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "snapshot/checksum.h"

#define BUFFER_BYTES ((size_t)64 << 10)

struct contents_writer {
	int dirfd;
	const char *name;
	int fd;          /* -1 while it rests */
	uint8_t *buffer; /* NULL likewise */
	bool begun;
	uint64_t dir; /* the directory that the last record is of */
	struct checksum *sum;
	uint64_t written;
	size_t filled;
};

static int list_error(int num, struct cpull_error *err)
{
	return error_sys(err, CPULL_ERR_STORAGE, num, "writing the list of a layer's contents");
}

/* Has what a record needs. */
static int wake(struct contents_writer *writer, int flags, struct cpull_error *err)
{
	if (!writer->buffer && !(writer->buffer = malloc(BUFFER_BYTES)))
		return error_nomem(err);
	if (writer->fd < 0)
		writer->fd = openat(writer->dirfd, writer->name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC | flags, 0600);
	return writer->fd < 0 ? list_error(errno, err) : 0;
}

int contents_writer_new(int dirfd, const char *name, struct contents_writer **out, struct cpull_error *err)
{
	struct contents_writer *writer = calloc(1, sizeof(*writer));
	int rc;

	if (!writer)
		return error_nomem(err);
	writer->dirfd = dirfd;
	writer->name = name;
	writer->fd = -1;
	rc = wake(writer, O_CREAT | O_EXCL, err);
	if (!rc)
		rc = checksum_new(&writer->sum, err);
	if (rc) {
		contents_writer_free(writer);
		return rc;
	}
	memcpy(writer->buffer, CONTENTS_HEADER, CONTENTS_HEADER_BYTES);
	writer->filled = CONTENTS_HEADER_BYTES;
	checksum_begin(writer->sum);
	*out = writer;
	return 0;
}

void contents_writer_free(struct contents_writer *writer)
{
	if (!writer)
		return;
	checksum_free(writer->sum);
	free(writer->buffer);
	if (writer->fd >= 0)
		close(writer->fd);
	free(writer);
}

static int flush(struct contents_writer *writer, struct cpull_error *err)
{
	int rc = fs_write_all(writer->fd, writer->buffer, writer->filled, writer->written);

	if (rc)
		return list_error(-rc, err);
	checksum_add(writer->sum, writer->buffer, writer->filled);
	writer->written += writer->filled;
	writer->filled = 0;
	if (writer->written <= LIMIT_CONTENTS_BYTES)
		return 0;
	return error_set(err, CPULL_ERR_LIMIT, "the list of a layer's contents is longer than %u bytes",
			 LIMIT_CONTENTS_BYTES);
}

int contents_writer_rest(struct contents_writer *writer, struct cpull_error *err)
{
	int rc = writer->filled ? flush(writer, err) : 0;

	free(STEAL(writer->buffer));
	if (writer->fd >= 0 && close(steal_fd(&writer->fd)) && errno != EINTR && !rc)
		rc = list_error(errno, err);
	return rc;
}

int contents_writer_add(struct contents_writer *writer, uint64_t dir, const struct contents_record *record,
			struct cpull_error *err)
{
	int rc = writer->buffer ? 0 : wake(writer, 0, err);

	if (!rc && BUFFER_BYTES - writer->filled < 2 * CONTENTS_RECORD_BYTES)
		rc = flush(writer, err);
	if (rc)
		return rc;
	if (!writer->begun || writer->dir != dir) {
		const struct contents_record at = {.type = CONTENTS_DIRECTORY, .inode = dir};

		writer->filled += contents_encode(&at, writer->buffer + writer->filled);
		writer->begun = true;
		writer->dir = dir;
	}
	assert(record->type != CONTENTS_DIRECTORY);
	writer->filled += contents_encode(record, writer->buffer + writer->filled);
	return 0;
}

int contents_writer_finish(struct contents_writer *writer, struct contents_facts *out, struct cpull_error *err)
{
	int rc = contents_writer_rest(writer, err);

	*out = (struct contents_facts){.bytes = writer->written, .sum = checksum_end(writer->sum)};
	return rc;
}
