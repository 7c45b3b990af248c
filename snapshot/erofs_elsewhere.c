/* SPDX-License-Identifier: Apache-2.0
 *
 * Regular files of an EROFS image whose data is in other images, its devices. Used by the image's builder on its
 * thread; owns where the devices' block numbers begin.
 *
 * An inode says where its blocks are by number only. The kernel takes a number for a device's that lies in the range
 * which the table of devices gives that one (erofs_map_dev(), since 5.16, as the table itself). So an inode is as long
 * as in the image that it comes from, whatever its layout, tail and all. The other way, a number of the device with
 * every chunk (EROFS_CHUNK_INDEXES), has no layout with a tail: that would take a block of 4096 bytes.
 *
 * The ranges end where numbers do: how many blocks the image has itself is known only when it is done.
 */
#include <endian.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/erofs_image_internal.h"

#define TABLE_BLOCK 1u

/* ---- the table ---- */

static int take_numbers(struct erofs_image *image, const struct erofs_image_options *options, struct cpull_error *err)
{
	uint64_t all = 0;

	if (options->device_count > LIMIT_LAYERS)
		return error_set(err, CPULL_ERR_LIMIT, "an EROFS image of %zu others: at most %u are taken",
				 options->device_count, LIMIT_LAYERS);
	for (size_t i = 0; i < options->device_count; i++)
		all += options->devices[i].blocks;
	/* the last number means a hole, and some are left for the image */
	if (all >= LIMIT_EROFS_BYTES / EROFS_BLOCK_BYTES)
		return error_set(err, CPULL_ERR_LIMIT, "%llu blocks in all: EROFS has numbers for %llu",
				 (unsigned long long)all,
				 (unsigned long long)(LIMIT_EROFS_BYTES / EROFS_BLOCK_BYTES));
	image->devices = calloc(options->device_count, sizeof(*image->devices));
	if (!image->devices)
		return error_nomem(err);
	image->device_count = options->device_count;

	uint32_t next = (uint32_t)(LIMIT_EROFS_BYTES / EROFS_BLOCK_BYTES - all);

	for (size_t i = 0; i < options->device_count; i++) {
		image->devices[i] = (struct erofs_range){.first = next, .blocks = options->devices[i].blocks};
		next += options->devices[i].blocks;
	}
	return 0;
}

int erofs_devices_begin(struct erofs_image *image, const struct erofs_image_options *options, struct cpull_error *err)
{
	int rc = take_numbers(image, options, err);

	for (size_t i = 0; !rc && i < image->device_count; i++) {
		struct erofs_device_slot slot = {.blocks = htole32(image->devices[i].blocks),
						 .first = htole32(image->devices[i].first)};

		erofs_device_tag(options->devices[i].uuid, slot.tag);
		rc = erofs_blocks_add(image->blocks, &slot, sizeof(slot), err);
	}
	return rc ? rc : erofs_blocks_align(image->blocks, err);
}

int erofs_devices_end(const struct erofs_image *image, uint64_t blocks, struct erofs_super *super,
		      struct cpull_error *err)
{
	if (!image->device_count)
		return 0;
	if (blocks > image->devices[0].first)
		return error_set(err, CPULL_ERR_LIMIT, "%llu blocks of an EROFS image, and %u are left by its devices",
				 (unsigned long long)blocks, image->devices[0].first);
	super->feature_incompat |= htole32(EROFS_INCOMPAT_DEVICE_TABLE);
	super->extra_devices = htole16((uint16_t)image->device_count);
	super->device_slot = htole16(TABLE_BLOCK * EROFS_BLOCK_BYTES / EROFS_DEVICE_BYTES);
	return 0;
}

/* ---- files ---- */

static int outside(const struct erofs_elsewhere *where, struct cpull_error *err)
{
	return error_set(err, CPULL_ERR_INTERNAL, "blocks of a file that device %zu has not", where->device);
}

static int add_flat(struct erofs_image *image, struct erofs_record *record, const struct erofs_elsewhere *where,
		    struct cpull_error *err)
{
	const struct erofs_range *device = &image->devices[where->device];
	size_t tail = where->tail ? where->size % EROFS_BLOCK_BYTES : 0;
	uint64_t blocks = (where->size - tail + EROFS_BLOCK_BYTES - 1) / EROFS_BLOCK_BYTES;
	bool inlined;
	int rc;

	if (!blocks || blocks > device->blocks || where->block > device->blocks - blocks)
		return outside(where, err);
	record->inode.data = htole32(device->first + where->block);
	if (!tail) {
		rc = erofs_record_place(image, record, 0, &inlined, err);
		return rc ? rc : erofs_record_write(image, record, err);
	}
	image->inodes++;
	record->inode.format = htole16(EROFS_FORMAT(EROFS_FLAT_INLINE));
	rc = erofs_spool_place_inlined(image->spool, record->fixed, tail, &record->at, err);
	if (!rc)
		rc = erofs_record_write(image, record, err);
	return rc ? rc : erofs_spool_write(image->spool, record->at + record->fixed, where->tail, tail, err);
}

/* Of a chunk it is only the file's part that the device has to have; the first block stands for it here. */
static int add_chunked(struct erofs_image *image, struct erofs_record *record, const struct erofs_elsewhere *where,
		       struct cpull_error *err)
{
	const struct erofs_range *device = &image->devices[where->device];

	for (size_t i = 0; i < where->chunks; i++) {
		uint32_t block = where->map[i];

		if (block != EROFS_HOLE && block >= device->blocks)
			return outside(where, err);
		where->map[i] = htole32(block == EROFS_HOLE ? block : device->first + block);
	}
	return erofs_chunks_write(image, record, where->map, where->chunks, where->bits, err);
}

int erofs_image_file_elsewhere(struct erofs_image *image, const struct erofs_attributes *attributes,
			       const struct erofs_elsewhere *where, uint64_t *nid, struct cpull_error *err)
{
	struct erofs_record record;

	if (where->device >= image->device_count)
		return outside(where, err);

	int rc = erofs_record_new(image, attributes, where->size, &record, err);

	if (!rc)
		rc = where->map ? add_chunked(image, &record, where, err) : add_flat(image, &record, where, err);
	*nid = erofs_record_nid(&record);
	return rc;
}
