/* SPDX-License-Identifier: Apache-2.0
 *
 * The builder of EROFS images: inodes, what consists of one alone, and the image as a whole. Used by one layer's writer
 * on its thread; owns the stream of blocks and the spool of inodes.
 *
 * The file: block 0 with the superblock, the table of devices, data of files in their order, blocks of directories, the
 * spool. A node number
 * is a place in the spool, in units of 32 bytes, so it is known before the spool's own place is.
 */
#include "snapshot/erofs_image.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

#include "engine/base/error.h"
#include "snapshot/erofs_image_internal.h"

/* What the kernel's device numbers hold; beyond, they would be cut, 4096:0 to 0:0 for one. */
#define MAJOR_MAX 0xfffu
#define MINOR_MAX 0xfffffu
/* PATH_MAX without its NUL: longer ones cannot be followed. */
#define TARGET_BYTES 4095u
#define XATTR_UNIT 4u

int erofs_image_new(const struct erofs_image_options *options, struct erofs_image **out, struct cpull_error *err)
{
	const struct erofs_blocks_options blocks = {.fd = options->fd, .io = options->io, .log = options->log,
						    .written = options->written, .payload = options->payload};
	struct erofs_image *image = calloc(1, sizeof(*image));
	bool inlined;
	uint64_t at;

	if (!image)
		return error_nomem(err);
	image->own_notes.log = options->log;
	image->notes = options->notes ? options->notes : &image->own_notes;
	memcpy(image->uuid, options->uuid, sizeof(image->uuid));
	image->max_hole_bytes = options->max_hole_bytes ? options->max_hole_bytes : LIMIT_EROFS_HOLE_BYTES;

	int rc = erofs_blocks_new(&blocks, &image->blocks, err);

	if (!rc)
		rc = erofs_spool_new(options->spool_dirfd, &image->spool, err);
	if (!rc)
		rc = erofs_spool_place(image->spool, EROFS_ROOT_END, 0, &at, &inlined, err);
	if (!rc && options->device_count)
		rc = erofs_devices_begin(image, options, err);
	if (rc) {
		erofs_image_free(image);
		return rc;
	}
	*out = image;
	return 0;
}

void erofs_image_free(struct erofs_image *image)
{
	if (!image)
		return;
	erofs_blocks_free(image->blocks);
	erofs_spool_free(image->spool);
	erofs_chunks_free(&image->chunks);
	bytes_free(&image->xattrs);
	free(image->devices);
	free(image);
}

enum bulk_way erofs_image_way(const struct erofs_image *image)
{
	return erofs_blocks_way(image->blocks);
}

/* ---- inodes ---- */

static int set_stat(struct erofs_inode *inode, const struct erofs_attributes *attributes, uint32_t mode,
		    struct cpull_error *err)
{
	if (attributes->mtime.tv_nsec < 0 || attributes->mtime.tv_nsec > 999999999)
		return error_set(err, CPULL_ERR_INTERNAL, "a time with %ld nanoseconds", attributes->mtime.tv_nsec);
	inode->mode = htole16((uint16_t)mode);
	inode->uid = htole32(attributes->uid);
	inode->gid = htole32(attributes->gid);
	inode->mtime = (int64_t)htole64((uint64_t)attributes->mtime.tv_sec);
	inode->mtime_nsec = htole32((uint32_t)attributes->mtime.tv_nsec);
	return 0;
}

int erofs_record_new(struct erofs_image *image, const struct erofs_attributes *attributes, uint64_t size,
		     struct erofs_record *out, struct cpull_error *err)
{
	uint32_t mode;
	int rc = erofs_xattrs_encode(attributes, &image->xattrs, &mode, image->notes, err);

	*out = (struct erofs_record){.inode = {.size = htole64(size), .nlink = htole32(1)}};
	if (!rc)
		rc = set_stat(&out->inode, attributes, mode, err);
	if (rc)
		return rc;

	size_t len = image->xattrs.len;

	if (len)
		out->inode.xattr_icount = htole16((uint16_t)(1 + (len - sizeof(struct erofs_xattr_header)) /
								     XATTR_UNIT));
	out->inode.format = htole16(EROFS_FORMAT(EROFS_FLAT_PLAIN));
	out->fixed = sizeof(struct erofs_inode) + len;
	return 0;
}

int erofs_record_place(struct erofs_image *image, struct erofs_record *record, size_t tail, bool *inlined,
		       struct cpull_error *err)
{
	image->inodes++;
	return erofs_spool_place(image->spool, record->fixed, tail, &record->at, inlined, err);
}

int erofs_record_write(struct erofs_image *image, struct erofs_record *record, struct cpull_error *err)
{
	record->inode.ino = htole32((uint32_t)erofs_record_nid(record));

	int rc = erofs_spool_write(image->spool, record->at, &record->inode, sizeof(record->inode), err);

	if (rc || !image->xattrs.len)
		return rc;
	return erofs_spool_write(image->spool, record->at + sizeof(record->inode), image->xattrs.data,
				 image->xattrs.len, err);
}

int erofs_image_symlink(struct erofs_image *image, const struct erofs_attributes *attributes, const char *target,
			uint64_t *nid, struct cpull_error *err)
{
	const struct tar_data data = {.data = (const uint8_t *)target, .len = strlen(target)};

	assert(erofs_type_of(attributes->mode) == EROFS_SYMLINK);
	if (!data.len)
		return error_set(err, CPULL_ERR_TAR, "a symlink without a target");
	if (data.len > TARGET_BYTES)
		return error_set(err, CPULL_ERR_LIMIT, "the symlink's target has %zu bytes, of which Linux takes %u",
				 data.len, TARGET_BYTES);
	return erofs_file_whole(image, attributes, &data, nid, err);
}

int erofs_image_node(struct erofs_image *image, const struct erofs_attributes *attributes, uint32_t major,
		     uint32_t minor, uint64_t *nid, struct cpull_error *err)
{
	struct erofs_record record;
	uint8_t type = erofs_type_of(attributes->mode);
	bool device = type == EROFS_CHAR || type == EROFS_BLOCK, inlined;

	assert(device || type == EROFS_FIFO || type == EROFS_SOCKET);
	if (device && (major > MAJOR_MAX || minor > MINOR_MAX))
		return error_set(err, CPULL_ERR_TAR, "device number %u:%u is out of range", major, minor);

	int rc = erofs_record_new(image, attributes, 0, &record, err);

	if (!rc)
		rc = erofs_record_place(image, &record, 0, &inlined, err);
	if (rc)
		return rc;
	if (device)
		record.inode.data = htole32(erofs_rdev(major, minor));
	*nid = erofs_record_nid(&record);
	return erofs_record_write(image, &record, err);
}

/* Fields of an inode that lie side by side. */
static int patch(struct erofs_image *image, uint64_t nid, const struct erofs_inode *inode, size_t from, size_t end,
		 struct cpull_error *err)
{
	assert(nid * EROFS_SLOT_BYTES < erofs_spool_bytes(image->spool));
	return erofs_spool_write(image->spool, nid * EROFS_SLOT_BYTES + from, (const uint8_t *)inode + from, end - from,
				 err);
}

int erofs_image_set_links(struct erofs_image *image, uint64_t nid, uint32_t links, struct cpull_error *err)
{
	const struct erofs_inode inode = {.nlink = htole32(links)};

	return patch(image, nid, &inode, offsetof(struct erofs_inode, nlink), offsetof(struct erofs_inode, reserved2),
		     err);
}

/* Its entries would go on to say what the old mode did. */
static int chmod_acl(struct erofs_image *image, uint64_t nid, uint32_t mode, struct cpull_error *err)
{
	uint64_t at = nid * EROFS_SLOT_BYTES;
	struct erofs_inode inode;
	int rc = erofs_spool_read(image->spool, at, &inode, sizeof(inode), err);
	unsigned count = le16toh(inode.xattr_icount);

	if (rc || !count || (le16toh(inode.mode) & 0777) == (mode & 0777))
		return rc;

	size_t len = sizeof(struct erofs_xattr_header) + (size_t)(count - 1) * XATTR_UNIT;
	CLEANUP_FREE uint8_t *xattrs = malloc(len);

	if (!xattrs)
		return error_nomem(err);
	at += sizeof(inode);
	rc = erofs_spool_read(image->spool, at, xattrs, len, err);
	if (rc || !erofs_xattrs_chmod(xattrs, len, mode))
		return rc;
	return erofs_spool_write(image->spool, at, xattrs, len, err);
}

int erofs_image_set_stat(struct erofs_image *image, uint64_t nid, const struct erofs_attributes *attributes,
			 struct cpull_error *err)
{
	struct erofs_inode inode = {0};
	int rc = set_stat(&inode, attributes, attributes->mode, err);

	if (!rc)
		rc = chmod_acl(image, nid, attributes->mode, err);
	if (!rc)
		rc = patch(image, nid, &inode, offsetof(struct erofs_inode, mode),
			   offsetof(struct erofs_inode, reserved), err);
	return rc ? rc : patch(image, nid, &inode, offsetof(struct erofs_inode, uid),
			       offsetof(struct erofs_inode, nlink), err);
}

/* ---- the whole ---- */

static int add_blocks(void *payload, const void *data, size_t len, struct cpull_error *err)
{
	return erofs_blocks_add(payload, data, len, err);
}

/* Block 0. */
static int write_super(struct erofs_image *image, uint64_t root, uint64_t meta_block, uint64_t blocks,
		       struct cpull_error *err)
{
	_Alignas(EROFS_BLOCK_BYTES) uint8_t first[EROFS_BLOCK_BYTES] = {0};
	struct erofs_super super = {
		.magic = htole32(EROFS_MAGIC),
		.feature_compat = htole32(EROFS_COMPAT_CHECKSUM | EROFS_COMPAT_MTIME),
		.block_bits = EROFS_BLOCK_BITS,
		.root_nid = htole16((uint16_t)root),
		.inodes = htole64(image->inodes),
		.blocks = htole32((uint32_t)blocks),
		.meta_block = htole32((uint32_t)meta_block),
		.feature_incompat = htole32(image->has_chunks ? EROFS_INCOMPAT_CHUNKED_FILE : 0),
	};

	int rc = erofs_devices_end(image, blocks, &super, err);

	if (rc)
		return rc;
	memcpy(super.uuid, image->uuid, sizeof(super.uuid));
	memcpy(first + EROFS_SUPER_OFFSET, &super, sizeof(super));
	super.checksum = htole32(erofs_checksum(first + EROFS_SUPER_OFFSET, sizeof(first) - EROFS_SUPER_OFFSET));
	memcpy(first + EROFS_SUPER_OFFSET, &super, sizeof(super));
	return erofs_blocks_first(image->blocks, first, err);
}

int erofs_image_rest(struct erofs_image *image, struct cpull_error *err)
{
	assert(!image->file.open);
	erofs_chunks_free(&image->chunks);

	int rc = erofs_blocks_rest(image->blocks, err);

	return rc ? rc : erofs_spool_rest(image->spool, err);
}

int erofs_image_finish(struct erofs_image *image, uint64_t root, struct erofs_image_result *out,
		       struct cpull_error *err)
{
	uint64_t meta_block = erofs_blocks_next(image->blocks), blocks = 0;

	assert(!image->file.open && root <= UINT16_MAX);

	int rc = erofs_blocks_check(image->blocks, erofs_spool_bytes(image->spool) + EROFS_BLOCK_BYTES, err);

	if (!rc)
		rc = erofs_spool_drain(image->spool, add_blocks, image->blocks, err);
	if (!rc)
		rc = erofs_blocks_align(image->blocks, err);
	if (!rc) {
		blocks = erofs_blocks_next(image->blocks);
		rc = erofs_blocks_flush(image->blocks, err);
	}
	if (!rc)
		rc = write_super(image, root, meta_block, blocks, err);
	if (rc)
		return rc;
	*out = (struct erofs_image_result){.blocks = blocks, .inodes = image->inodes,
					   .way = erofs_blocks_way(image->blocks)};
	return 0;
}
