/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of the EROFS builder share: erofs_image.c (inodes, the image), erofs_file.c (regular files),
 * erofs_elsewhere.c (those whose data is on devices), erofs_dir.c.
 */
#ifndef SNAPSHOT_EROFS_IMAGE_INTERNAL_H
#define SNAPSHOT_EROFS_IMAGE_INTERNAL_H

#include "snapshot/erofs_image.h"
#include "snapshot/erofs_spool.h"

/* An inode on its way to the spool: all but its place, and its attributes in image->xattrs. */
struct erofs_record {
	struct erofs_inode inode; /* as on disk */
	size_t fixed;             /* bytes of inode and attributes */
	uint64_t at;              /* in the spool */
};

/* A sparse file's blocks, of which chunks that are all zeros are left out. */
struct erofs_chunks {
	uint32_t *map;    /* first block of each chunk, or EROFS_HOLE; kept from file to file */
	size_t count;
	unsigned bits;    /* a chunk has 1 << bits blocks */
	uint8_t *partial; /* the block that is being put together; likewise */
};

/* The regular file, or the symlink, at work. */
struct erofs_file {
	bool open;
	bool chunked;
	bool sparse;
	uint64_t size;
	uint64_t in_blocks; /* bytes from the start that go to blocks; the others follow the inode */
	uint64_t at;        /* where the next byte goes */
	struct erofs_record record;
};

/* A device's blocks have numbers from `first` on, behind those of the image and of the devices before it. */
struct erofs_range {
	uint32_t first;
	uint32_t blocks;
};

struct erofs_image {
	struct erofs_blocks *blocks;
	struct erofs_spool *spool;
	struct attributes_notes *notes;
	struct attributes_notes own_notes; /* where none are given */
	uint8_t uuid[16];
	struct bytes xattrs; /* of the inode at work */
	uint64_t inodes;
	bool has_chunks;
	uint64_t hole_bytes; /* zeros and maps that stand for holes */
	uint64_t max_hole_bytes;
	struct erofs_file file;
	struct erofs_chunks chunks;
	struct erofs_range *devices;
	size_t device_count;
};

/* The root's place at the start of the spool, so that its number fits the superblock's 16 bits. The number is the inode
 * number, and C libraries hide entries whose number is 0. */
#define EROFS_ROOT_AT EROFS_SLOT_BYTES
#define EROFS_ROOT_END EROFS_BLOCK_BYTES

/* Everything but layout, data and place; one link. */
MUST_CHECK int erofs_record_new(struct erofs_image *image, const struct erofs_attributes *attributes, uint64_t size,
				struct erofs_record *out, struct cpull_error *err);
/* Takes a place; with a tail as in erofs_spool_place(). */
MUST_CHECK int erofs_record_place(struct erofs_image *image, struct erofs_record *record, size_t tail, bool *inlined,
				  struct cpull_error *err);
/* Writes inode and attributes to the place. */
MUST_CHECK int erofs_record_write(struct erofs_image *image, struct erofs_record *record, struct cpull_error *err);
static inline uint64_t erofs_record_nid(const struct erofs_record *record)
{
	return record->at / EROFS_SLOT_BYTES;
}

/* A file with all of its data, not sparse. */
MUST_CHECK int erofs_file_whole(struct erofs_image *image, const struct erofs_attributes *attributes,
				const struct tar_data *data, uint64_t *nid, struct cpull_error *err);
void erofs_chunks_free(struct erofs_chunks *chunks);
/* Gives a record a map of chunks (numbers as on disk), a place, and writes both. */
MUST_CHECK int erofs_chunks_write(struct erofs_image *image, struct erofs_record *record, const uint32_t *map,
				  size_t count, unsigned bits, struct cpull_error *err);

/* Gives the devices their numbers and writes their table to the stream, which is at its start. */
MUST_CHECK int erofs_devices_begin(struct erofs_image *image, const struct erofs_image_options *options,
				   struct cpull_error *err);
/* What the superblock says of them, and the last word on whether the image, now that its size is known, is before
 * their numbers. */
MUST_CHECK int erofs_devices_end(const struct erofs_image *image, uint64_t blocks, struct erofs_super *super,
				 struct cpull_error *err);

#endif
