/* SPDX-License-Identifier: Apache-2.0
 *
 * Regular files of an EROFS image, and the targets of symlinks. Used by the image's builder on its thread; owns nothing
 * but the map and one block of sparse files, both kept from file to file.
 *
 * The size is known from the start, and with it where every byte goes: whole blocks to the image, the rest behind the
 * inode, which is written first. A sparse file of more than a block becomes a map of chunks, known at its end. Its
 * chunks are as small as LIMIT_EROFS_CHUNKS of them allow, and twice as large for as long as the map says no less then.
 */
#include <assert.h>
#include <endian.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/erofs_image_internal.h"

void erofs_chunks_free(struct erofs_chunks *chunks)
{
	free(STEAL(chunks->map));
	free(STEAL(chunks->partial));
}

static uint64_t blocks_of(uint64_t bytes)
{
	return bytes / EROFS_BLOCK_BYTES + (bytes % EROFS_BLOCK_BYTES > 0);
}

/* ---- flat files ---- */

static int begin_flat(struct erofs_image *image, struct cpull_error *err)
{
	struct erofs_file *file = &image->file;
	size_t tail = file->size % EROFS_BLOCK_BYTES;
	bool inlined;
	int rc = erofs_blocks_check(image->blocks, file->size, err);

	if (!rc)
		rc = erofs_record_place(image, &file->record, tail, &inlined, err);
	if (rc)
		return rc;
	if (inlined)
		file->record.inode.format = htole16(EROFS_FORMAT(EROFS_FLAT_INLINE));
	file->in_blocks = inlined ? file->size - tail : file->size;
	if (file->in_blocks)
		file->record.inode.data = htole32((uint32_t)erofs_blocks_next(image->blocks));
	return erofs_record_write(image, &file->record, err);
}

static int add_flat(struct erofs_image *image, const uint8_t *data, size_t len, struct cpull_error *err)
{
	struct erofs_file *file = &image->file;
	size_t head = file->at < file->in_blocks ? MIN(len, file->in_blocks - file->at) : 0;
	int rc = head ? erofs_blocks_add(image->blocks, data, head, err) : 0;

	file->at += head;
	if (rc || head == len)
		return rc;

	uint64_t tail = file->record.at + file->record.fixed + (file->at - file->in_blocks);

	file->at += len - head;
	return erofs_spool_write(image->spool, tail, data + head, len - head, err);
}

/* Of a file of a block at most: what follows the inode is zeros already. */
static int skip_flat(struct erofs_image *image, uint64_t to, struct cpull_error *err)
{
	struct erofs_file *file = &image->file;
	uint64_t in_blocks = MIN(to, file->in_blocks), from = MIN(file->at, in_blocks);

	file->at = to;
	return erofs_blocks_add_zeros(image->blocks, in_blocks - from, err);
}

/* ---- chunks ---- */

static int begin_chunks(struct erofs_image *image, struct cpull_error *err)
{
	struct erofs_chunks *chunks = &image->chunks;
	uint64_t blocks = blocks_of(image->file.size);

	if (!chunks->map)
		chunks->map = malloc(LIMIT_EROFS_CHUNKS * sizeof(*chunks->map));
	if (!chunks->partial)
		chunks->partial = malloc(EROFS_BLOCK_BYTES);
	if (!chunks->map || !chunks->partial)
		return error_nomem(err);
	for (chunks->bits = 0; blocks > (uint64_t)LIMIT_EROFS_CHUNKS << chunks->bits; chunks->bits++)
		;
	chunks->count = (size_t)((blocks + ((uint64_t)1 << chunks->bits) - 1) >> chunks->bits);
	memset(chunks->map, 0xff, chunks->count * sizeof(*chunks->map)); /* EROFS_HOLE */
	return 0;
}

static int charge_holes(struct erofs_image *image, uint64_t bytes, struct cpull_error *err)
{
	image->hole_bytes += bytes;
	if (image->hole_bytes <= image->max_hole_bytes)
		return 0;
	return error_set(err, CPULL_ERR_LIMIT, "the holes of the layer's sparse files take more than %llu bytes; pull "
			 "it with --snapshot overlay", (unsigned long long)image->max_hole_bytes);
}

static int add_hole(struct erofs_image *image, uint64_t blocks, struct cpull_error *err)
{
	uint64_t bytes = blocks * EROFS_BLOCK_BYTES;
	int rc = charge_holes(image, bytes, err);

	if (!rc)
		rc = erofs_blocks_check(image->blocks, bytes, err);
	return rc ? rc : erofs_blocks_add_zeros(image->blocks, bytes, err);
}

/* The block that file->at is the start of; a chunk that is all zeros so far is not begun for another such block. */
static int add_block(struct erofs_image *image, const uint8_t *block, struct cpull_error *err)
{
	struct erofs_chunks *chunks = &image->chunks;
	uint64_t number = image->file.at / EROFS_BLOCK_BYTES, skipped = number & (((uint64_t)1 << chunks->bits) - 1);
	uint32_t *first = &chunks->map[number >> chunks->bits];

	image->file.at += EROFS_BLOCK_BYTES;
	if (*first == EROFS_HOLE) {
		if (all_zero(block, EROFS_BLOCK_BYTES))
			return 0;

		int rc = erofs_blocks_check(image->blocks, (skipped + 1) * EROFS_BLOCK_BYTES, err);

		if (rc)
			return rc;
		*first = (uint32_t)erofs_blocks_next(image->blocks);
		rc = skipped ? add_hole(image, skipped, err) : 0;
		if (rc)
			return rc;
	}
	return erofs_blocks_add(image->blocks, block, EROFS_BLOCK_BYTES, err);
}

static int add_chunked(struct erofs_image *image, const uint8_t *data, size_t len, struct cpull_error *err)
{
	struct erofs_file *file = &image->file;
	int rc = 0;

	while (!rc && len) {
		size_t held = file->at % EROFS_BLOCK_BYTES, n = MIN(EROFS_BLOCK_BYTES - held, len);

		if (n == EROFS_BLOCK_BYTES) {
			rc = add_block(image, data, err);
		} else {
			memcpy(image->chunks.partial + held, data, n);
			file->at += n;
			if (held + n == EROFS_BLOCK_BYTES) {
				file->at -= EROFS_BLOCK_BYTES;
				rc = add_block(image, image->chunks.partial, err);
			}
		}
		data += n;
		len -= n;
	}
	return rc;
}

/* Zeros up to `to`, both ends at blocks. */
static int skip_blocks(struct erofs_image *image, uint64_t to, struct cpull_error *err)
{
	struct erofs_chunks *chunks = &image->chunks;
	uint64_t chunk_bytes = (uint64_t)EROFS_BLOCK_BYTES << chunks->bits, at = image->file.at;
	int rc = 0;

	while (!rc && at < to) {
		uint64_t next = MIN(to, (at / chunk_bytes + 1) * chunk_bytes);

		if (chunks->map[at / chunk_bytes] != EROFS_HOLE)
			rc = add_hole(image, (next - at) / EROFS_BLOCK_BYTES, err);
		at = next;
	}
	image->file.at = at;
	return rc;
}

static int skip_chunked(struct erofs_image *image, uint64_t to, struct cpull_error *err)
{
	static const uint8_t zeros[EROFS_BLOCK_BYTES];
	struct erofs_file *file = &image->file;
	uint64_t lack = -file->at % EROFS_BLOCK_BYTES, whole;
	int rc = lack ? add_chunked(image, zeros, (size_t)MIN(lack, to - file->at), err) : 0;

	whole = to / EROFS_BLOCK_BYTES * EROFS_BLOCK_BYTES;
	if (!rc && file->at < whole)
		rc = skip_blocks(image, whole, err);
	if (!rc && file->at < to)
		rc = add_chunked(image, zeros, (size_t)(to - file->at), err);
	return rc;
}

/* Do two chunks make one of twice the size? */
static bool can_join(uint32_t a, uint32_t b, unsigned bits)
{
	return a == EROFS_HOLE ? b == EROFS_HOLE : b == (uint64_t)a + (1u << bits);
}

static void join_chunks(struct erofs_chunks *chunks)
{
	while (chunks->count > 1) {
		for (size_t i = 0; i + 1 < chunks->count; i += 2)
			if (!can_join(chunks->map[i], chunks->map[i + 1], chunks->bits))
				return;
		chunks->count = (chunks->count + 1) / 2;
		for (size_t i = 0; i < chunks->count; i++)
			chunks->map[i] = chunks->map[2 * i];
		chunks->bits++;
	}
}

int erofs_chunks_write(struct erofs_image *image, struct erofs_record *record, const uint32_t *map, size_t count,
		       unsigned bits, struct cpull_error *err)
{
	size_t map_bytes = count * sizeof(*map);
	int rc = charge_holes(image, map_bytes, err);
	bool inlined;

	record->fixed += map_bytes;
	if (!rc)
		rc = erofs_record_place(image, record, 0, &inlined, err);
	if (rc)
		return rc;
	image->has_chunks = true;
	record->inode.format = htole16(EROFS_FORMAT(EROFS_CHUNK_BASED));
	record->inode.data = htole32(bits);
	rc = erofs_record_write(image, record, err);
	return rc ? rc : erofs_spool_write(image->spool, record->at + record->fixed - map_bytes, map, map_bytes, err);
}

static int end_chunks(struct erofs_image *image, struct cpull_error *err)
{
	struct erofs_chunks *chunks = &image->chunks;
	struct erofs_record *record = &image->file.record;
	bool inlined;

	join_chunks(chunks);
	if (chunks->count == 1 && chunks->map[0] != EROFS_HOLE) {
		int rc = erofs_record_place(image, record, 0, &inlined, err);

		record->inode.data = htole32(chunks->map[0]);
		return rc ? rc : erofs_record_write(image, record, err);
	}
	for (size_t i = 0; i < chunks->count; i++)
		chunks->map[i] = htole32(chunks->map[i]);
	return erofs_chunks_write(image, record, chunks->map, chunks->count, chunks->bits, err);
}

/* ---- the interface ---- */

int erofs_image_file_begin(struct erofs_image *image, const struct erofs_attributes *attributes, uint64_t size,
			   bool sparse, struct cpull_error *err)
{
	struct erofs_file *file = &image->file;

	assert(!file->open);
	if (size > LIMIT_FILE_BYTES)
		return error_set(err, CPULL_ERR_LIMIT, "it is larger than %llu bytes",
				 (unsigned long long)LIMIT_FILE_BYTES);
	*file = (struct erofs_file){.open = true, .size = size, .sparse = sparse};
	file->chunked = sparse && size > EROFS_BLOCK_BYTES;

	int rc = erofs_record_new(image, attributes, size, &file->record, err);

	if (rc)
		return rc;
	return file->chunked ? begin_chunks(image, err) : begin_flat(image, err);
}

static int skip(struct erofs_image *image, uint64_t to, struct cpull_error *err)
{
	if (!image->file.sparse)
		return error_set(err, CPULL_ERR_INTERNAL, "a piece of its data is missing");
	return image->file.chunked ? skip_chunked(image, to, err) : skip_flat(image, to, err);
}

int erofs_image_file_data(struct erofs_image *image, const struct tar_data *data, struct cpull_error *err)
{
	struct erofs_file *file = &image->file;
	int rc = 0;

	assert(file->open);
	if (data->offset < file->at || data->offset > file->size || data->len > file->size - data->offset)
		return error_set(err, CPULL_ERR_INTERNAL, "%zu bytes at %llu do not belong to it", data->len,
				 (unsigned long long)data->offset);
	if (data->offset > file->at)
		rc = skip(image, data->offset, err);
	if (rc)
		return rc;
	return file->chunked ? add_chunked(image, data->data, data->len, err)
			     : add_flat(image, data->data, data->len, err);
}

int erofs_image_file_end(struct erofs_image *image, uint64_t *nid, struct cpull_error *err)
{
	struct erofs_file *file = &image->file;
	int rc = 0;

	assert(file->open);
	if (file->at < file->size)
		rc = skip(image, file->size, err);
	if (!rc && file->chunked && file->size % EROFS_BLOCK_BYTES) {
		static const uint8_t zeros[EROFS_BLOCK_BYTES];

		rc = add_chunked(image, zeros, -file->size % EROFS_BLOCK_BYTES, err);
	}
	if (!rc)
		rc = file->chunked ? end_chunks(image, err) : erofs_blocks_align(image->blocks, err);
	file->open = false;
	*nid = erofs_record_nid(&file->record);
	return rc;
}

int erofs_file_whole(struct erofs_image *image, const struct erofs_attributes *attributes,
		     const struct tar_data *data, uint64_t *nid, struct cpull_error *err)
{
	int rc = erofs_image_file_begin(image, attributes, data->len, false, err);

	if (!rc)
		rc = erofs_image_file_data(image, data, err);
	return rc ? rc : erofs_image_file_end(image, nid, err);
}
