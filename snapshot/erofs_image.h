/* SPDX-License-Identifier: Apache-2.0
 *
 * Builds an EROFS image in one pass, in bounded memory, in the order in which a layer brings things: data goes to the
 * image as it comes, inodes to a spool, directories follow when all of that is there, and the superblock comes last:
 * until then the file is no image. The same calls give the same bytes. What has which name is the caller's to know;
 * nothing is kept for a file.
 */
#ifndef SNAPSHOT_EROFS_IMAGE_H
#define SNAPSHOT_EROFS_IMAGE_H

#include "snapshot/erofs_blocks.h"
#include "snapshot/erofs_xattrs.h"

/* Another EROFS image, in which data of this one is. */
struct erofs_device {
	uint8_t uuid[16];
	uint32_t blocks;
};

/* For one image, used by one thread. After an error only erofs_image_free() may follow. */
struct erofs_image;

struct erofs_image_options {
	int fd;          /* a new, empty file, open for writing; borrowed */
	int spool_dirfd; /* where a temporary file without a name may be made; borrowed */
	uint8_t uuid[16]; /* not zero, and not another image's: overlayfs tells layers by it */
	enum cpull_io io;
	struct log *log;
	struct attributes_notes *notes; /* borrowed; NULL: notes of its own */
	erofs_written_fn written; /* or NULL */
	void *payload;
	uint64_t max_hole_bytes; /* 0: LIMIT_EROFS_HOLE_BYTES */
	const struct erofs_device *devices; /* not needed behind erofs_image_new() */
	size_t device_count;
};

struct erofs_image_result {
	uint64_t blocks; /* of EROFS_BLOCK_BYTES: the whole file */
	uint64_t inodes;
	enum bulk_way way; /* the best that was taken */
};

MUST_CHECK int erofs_image_new(const struct erofs_image_options *options, struct erofs_image **out,
			       struct cpull_error *err);
void erofs_image_free(struct erofs_image *image);

/* The best way of writing that was taken so far. */
enum bulk_way erofs_image_way(const struct erofs_image *image);

/* No file is at work, and it may be long until the next call: next to no memory is held. */
MUST_CHECK int erofs_image_rest(struct erofs_image *image, struct cpull_error *err);

/* Everything has one link, and a directory two and one for each directory in it, until erofs_image_set_links(). */

/* A regular file; one at a time. Data comes in order; sparse says that pieces may be missing: they read as zeros, and
 * take no room where whole chunks are. attributes are used until erofs_image_file_end(). */
MUST_CHECK int erofs_image_file_begin(struct erofs_image *image, const struct erofs_attributes *attributes,
				      uint64_t size, bool sparse, struct cpull_error *err);
/* Nothing of it is needed after the call. */
MUST_CHECK int erofs_image_file_data(struct erofs_image *image, const struct tar_data *data, struct cpull_error *err);
MUST_CHECK int erofs_image_file_end(struct erofs_image *image, uint64_t *nid, struct cpull_error *err);

/* Where the blocks of a file are. */
struct erofs_elsewhere {
	size_t device; /* which of erofs_image_options.devices */
	uint64_t size;
	/* all of them in a row … */
	uint32_t block;   /* the first */
	const void *tail; /* the last size % EROFS_BLOCK_BYTES bytes, or NULL: they are in a block like all others */
	/* … or, where there is a map, chunks of 1 << bits blocks */
	uint32_t *map; /* the first block of each, or EROFS_HOLE; not to be read any more behind the call */
	size_t chunks;
	unsigned bits;
};

/* A regular file whose blocks are on a device. It has some: what is only a tail is a file like others. */
MUST_CHECK int erofs_image_file_elsewhere(struct erofs_image *image, const struct erofs_attributes *attributes,
					  const struct erofs_elsewhere *where, uint64_t *nid, struct cpull_error *err);

MUST_CHECK int erofs_image_symlink(struct erofs_image *image, const struct erofs_attributes *attributes,
				   const char *target, uint64_t *nid, struct cpull_error *err);
/* Devices, fifos, sockets. 0:0 as a character device is a whiteout. */
MUST_CHECK int erofs_image_node(struct erofs_image *image, const struct erofs_attributes *attributes, uint32_t major,
				uint32_t minor, uint64_t *nid, struct cpull_error *err);

/* Change what was written, of any inode but a directory whose erofs_image_dir_write() is still to come. An access ACL
 * follows the mode. */
MUST_CHECK int erofs_image_set_links(struct erofs_image *image, uint64_t nid, uint32_t links,
				     struct cpull_error *err);
MUST_CHECK int erofs_image_set_stat(struct erofs_image *image, uint64_t nid, const struct erofs_attributes *attributes,
				    struct cpull_error *err);

struct erofs_entry {
	const char *name; /* need not end with a NUL */
	size_t len;
	uint64_t nid;
	enum erofs_type type;
};

/* A directory's entries without "." and "..", in the order of erofs_name_compare(), none twice. */
struct erofs_directory {
	struct erofs_attributes attributes;
	const struct erofs_entry *entries;
	size_t count;
	bool root;
	uint64_t parent; /* the root's is itself */
};

/* Below, equal or above zero: unsigned bytes, a shorter name before a longer one that begins with it. */
int erofs_name_compare(const char *a, size_t a_len, const char *b, size_t b_len);
/* Directories in two passes: this one gives each its number, and of the entries only the names count. */
MUST_CHECK int erofs_image_dir_place(struct erofs_image *image, const struct erofs_directory *dir, uint64_t *nid,
				     struct cpull_error *err);
/* With the same attributes and names as before; once for each, best in the order of the first pass. */
MUST_CHECK int erofs_image_dir_write(struct erofs_image *image, uint64_t nid, const struct erofs_directory *dir,
				     struct cpull_error *err);

/* All of it is in the file, unless the kernel fails to write it back; nothing is synced. */
MUST_CHECK int erofs_image_finish(struct erofs_image *image, uint64_t root, struct erofs_image_result *out,
				  struct cpull_error *err);

#endif
