/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums of an image's blocks. Made on the thread that writes the image, and owned there; checked by any number of
 * threads, which share what was loaded.
 */
#include "snapshot/image_sums.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "snapshot/checksum.h"

#define HEADER "cpull-imagesums\1"
#define HEADER_BYTES 16u
#define FIRST_CAP 64u

struct image_sums {
	struct checksum *sum; /* of the range at work */
	uint64_t next;        /* the block that has to come */
	uint64_t *sums;       /* sums[0] is block 0's */
	size_t count, cap;
};

int image_sums_new(struct image_sums **out, struct cpull_error *err)
{
	struct image_sums *sums = calloc(1, sizeof(*sums));
	int rc;

	if (!sums)
		return error_nomem(err);
	rc = checksum_new(&sums->sum, err);
	sums->sums = malloc(FIRST_CAP * sizeof(*sums->sums));
	if (!rc && !sums->sums)
		rc = error_nomem(err);
	if (rc) {
		image_sums_free(sums);
		return rc;
	}
	sums->cap = FIRST_CAP;
	sums->count = 1;
	sums->next = 1;
	checksum_begin(sums->sum);
	*out = sums;
	return 0;
}

void image_sums_free(struct image_sums *sums)
{
	if (!sums)
		return;
	checksum_free(sums->sum);
	free(sums->sums);
	free(sums);
}

static int end_range(struct image_sums *sums, struct cpull_error *err)
{
	if (sums->count == sums->cap) {
		uint64_t *grown = realloc(sums->sums, sums->cap * 2 * sizeof(*grown));

		if (!grown)
			return error_nomem(err);
		sums->sums = grown;
		sums->cap *= 2;
	}
	sums->sums[sums->count++] = checksum_end(sums->sum);
	checksum_begin(sums->sum);
	return 0;
}

int image_sums_add(struct image_sums *sums, uint64_t block, const void *data, size_t blocks, struct cpull_error *err)
{
	const uint8_t *from = data;
	int rc = 0;

	if (block == 0) {
		assert(blocks == 1);
		sums->sums[0] = checksum_of(data, IMAGE_SUMS_BLOCK_BYTES);
		return 0;
	}
	assert(block == sums->next);
	while (!rc && blocks) {
		size_t n = MIN(blocks, (size_t)(IMAGE_SUMS_BLOCKS - (sums->next - 1) % IMAGE_SUMS_BLOCKS));

		checksum_add(sums->sum, from, n * IMAGE_SUMS_BLOCK_BYTES);
		from += n * IMAGE_SUMS_BLOCK_BYTES;
		blocks -= n;
		sums->next += n;
		if ((sums->next - 1) % IMAGE_SUMS_BLOCKS == 0)
			rc = end_range(sums, err);
	}
	return rc;
}

int image_sums_finish(struct image_sums *sums, int fd, struct contents_facts *out, struct cpull_error *err)
{
	int rc = (sums->next - 1) % IMAGE_SUMS_BLOCKS ? end_range(sums, err) : 0;
	size_t len = sums->count * sizeof(*sums->sums);

	if (rc)
		return rc;
	rc = fs_write_all(fd, HEADER, HEADER_BYTES, 0);
	if (!rc)
		rc = fs_write_all(fd, sums->sums, len, HEADER_BYTES);
	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "writing the checksums of an image");
	checksum_begin(sums->sum);
	checksum_add(sums->sum, HEADER, HEADER_BYTES);
	checksum_add(sums->sum, sums->sums, len);
	*out = (struct contents_facts){.bytes = HEADER_BYTES + len, .sum = checksum_end(sums->sum)};
	return 0;
}

/* ---- checking ---- */

uint64_t image_sums_count(uint64_t blocks)
{
	return 1 + (blocks - 1 + IMAGE_SUMS_BLOCKS - 1) / IMAGE_SUMS_BLOCKS;
}

void image_sums_range(uint64_t blocks, uint64_t number, uint64_t *first, uint64_t *count)
{
	*first = number ? 1 + (number - 1) * IMAGE_SUMS_BLOCKS : 0;
	*count = number ? MIN((uint64_t)IMAGE_SUMS_BLOCKS, blocks - *first) : 1;
}

/* All of it is there, or *got says how much. */
static int read_all(int fd, void *out, size_t len, uint64_t offset, size_t *got)
{
	for (*got = 0; *got < len;) {
		ssize_t n = pread(fd, (char *)out + *got, len - *got, (off_t)(offset + *got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		*got += (size_t)n;
	}
	return 0;
}

static int load(int fd, const struct contents_facts *facts, uint8_t *whole, struct cpull_error *err)
{
	struct stat st;
	size_t got = 0;
	int rc = fstat(fd, &st) ? -errno : read_all(fd, whole, facts->bytes, 0, &got);

	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "reading the checksums of the image");
	if ((uint64_t)st.st_size != facts->bytes || got < facts->bytes || memcmp(whole, HEADER, HEADER_BYTES) != 0 ||
	    checksum_of(whole, facts->bytes) != facts->sum)
		return error_set(err, CPULL_ERR_DIGEST, "the checksums of the image are damaged");
	return 0;
}

int image_sums_load(int fd, const struct contents_facts *facts, uint64_t blocks, uint64_t **out,
		    struct cpull_error *err)
{
	uint64_t count = image_sums_count(blocks);

	if (facts->bytes != HEADER_BYTES + count * sizeof(uint64_t))
		return error_set(err, CPULL_ERR_DIGEST, "the checksums of the image are damaged: not as many as it has "
				 "blocks");

	CLEANUP_FREE uint8_t *whole = malloc(facts->bytes);
	int rc = whole ? load(fd, facts, whole, err) : error_nomem(err);

	if (rc)
		return rc;
	*out = malloc(count * sizeof(uint64_t));
	if (!*out)
		return error_nomem(err);
	memcpy(*out, whole + HEADER_BYTES, count * sizeof(uint64_t));
	return 0;
}

int image_sums_check(int image_fd, const uint64_t *sums, uint64_t blocks, uint64_t number, void *buffer,
		     struct cpull_error *err)
{
	uint64_t first, count;
	size_t got = 0;

	image_sums_range(blocks, number, &first, &count);

	size_t len = (size_t)count * IMAGE_SUMS_BLOCK_BYTES;
	int rc = read_all(image_fd, buffer, len, first * IMAGE_SUMS_BLOCK_BYTES, &got);

	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "reading blocks %llu to %llu", (unsigned long long)first,
				 (unsigned long long)(first + count - 1));
	if (got == len && checksum_of(buffer, len) == sums[number])
		return 0;
	return error_set(err, CPULL_ERR_DIGEST, got < len ? "blocks %llu to %llu are cut off"
		       : "blocks %llu to %llu are not what was written", (unsigned long long)first,
		       (unsigned long long)(first + count - 1));
}
