/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading an EROFS image without a mount. Called by what looks into lower layers, by the check of a store and by the
 * merging of metadata, on one thread each; owns a few blocks of the image and borrows its descriptor.
 *
 * Every block that is looked at is a private copy, and what a number in it says is checked against the image's size
 * there and then: the file may change while it is read. Nothing is allocated by a number from the image, every loop
 * moves on through something that is bounded by the image's size.
 */
#include "snapshot/erofs_reader_internal.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "engine/base/error.h"

#define NO_BLOCK UINT64_MAX

/* Written by mkfs.erofs for small files with small owners. Kernel: struct erofs_inode_compact. */
struct compact_inode {
	uint16_t format;
	uint16_t xattr_icount;
	uint16_t mode;
	uint16_t nlink;
	uint32_t size;
	uint32_t reserved;
	uint32_t data;
	uint32_t ino;
	uint16_t uid;
	uint16_t gid;
	uint32_t reserved2;
} __attribute__((packed));
_Static_assert(sizeof(struct compact_inode) == 32, "struct compact_inode");

/* ---- bytes of the image ---- */

bool erofs_inside(const struct erofs_reader *r, uint64_t at, uint64_t len)
{
	return len <= r->bytes && at <= r->bytes - len;
}

static int read_exact(int fd, void *out, size_t len, uint64_t at, struct cpull_error *err)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(fd, (uint8_t *)out + done, len - done, (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "reading an EROFS image at byte %llu",
					 (unsigned long long)(at + done));
		if (!n)
			return error_set(err, CPULL_ERR_STORAGE, "an EROFS image ends at byte %llu, inside of its data",
					 (unsigned long long)(at + done));
		done += (size_t)n;
	}
	return 0;
}

const uint8_t *erofs_block_get(struct erofs_reader *r, uint64_t block, struct cpull_error *err)
{
	struct erofs_cached_block *oldest = &r->cache[0];

	assert(erofs_inside(r, block * EROFS_BLOCK_BYTES, EROFS_BLOCK_BYTES));
	r->clock++;
	for (size_t i = 0; i < EROFS_CACHE_BLOCKS; i++) {
		struct erofs_cached_block *c = &r->cache[i];

		if (c->block == block) {
			c->used = r->clock;
			return c->data;
		}
		if (c->used < oldest->used)
			oldest = c;
	}
	oldest->block = NO_BLOCK;
	if (read_exact(r->fd, oldest->data, EROFS_BLOCK_BYTES, block * EROFS_BLOCK_BYTES, err))
		return NULL;
	oldest->block = block;
	oldest->used = r->clock;
	return oldest->data;
}

int erofs_copy_out(struct erofs_reader *r, void *out, size_t len, uint64_t at, struct cpull_error *err)
{
	assert(erofs_inside(r, at, len));
	for (size_t done = 0; done < len;) {
		size_t in_block = (size_t)((at + done) % EROFS_BLOCK_BYTES);
		size_t n = MIN(len - done, EROFS_BLOCK_BYTES - in_block);
		const uint8_t *block = erofs_block_get(r, (at + done) / EROFS_BLOCK_BYTES, err);

		if (!block)
			return CPULL_ERR_STORAGE;
		memcpy((uint8_t *)out + done, block + in_block, n);
		done += n;
	}
	return 0;
}

/* ---- superblock ---- */

static int check_features(const struct erofs_super *super, struct cpull_error *err)
{
	uint32_t unknown = le32toh(super->feature_incompat) &
			   ~(uint32_t)(EROFS_INCOMPAT_CHUNKED_FILE | EROFS_INCOMPAT_DEVICE_TABLE);

	if (super->block_bits != EROFS_BLOCK_BITS || super->dir_block_bits)
		return error_set(err, CPULL_ERR_UNSUPPORTED,
				 "the EROFS image has blocks of 2^%u bytes, and of 2^%u blocks in directories: only 4096 "
				 "bytes and 1 are read",
				 super->block_bits, super->dir_block_bits);
	if (unknown || super->compression)
		return error_set(err, CPULL_ERR_UNSUPPORTED,
				 "the EROFS image is compressed, or uses what is not read here (features 0x%x, "
				 "compression 0x%x)",
				 unknown, le16toh(super->compression));
	return 0;
}

static int check_super(uint8_t *block, struct cpull_error *err)
{
	struct erofs_super super;

	memcpy(&super, block + EROFS_SUPER_OFFSET, sizeof(super));
	if (le32toh(super.magic) != EROFS_MAGIC)
		return error_set(err, CPULL_ERR_STORAGE, "this is no EROFS image: the magic number is 0x%x",
				 le32toh(super.magic));
	if (super.block_bits == EROFS_BLOCK_BITS && le32toh(super.feature_compat) & EROFS_COMPAT_CHECKSUM) {
		memset(block + EROFS_SUPER_OFFSET + offsetof(struct erofs_super, checksum), 0, sizeof(super.checksum));

		uint32_t sum = erofs_checksum(block + EROFS_SUPER_OFFSET, EROFS_BLOCK_BYTES - EROFS_SUPER_OFFSET);

		if (sum != le32toh(super.checksum))
			return error_set(err, CPULL_ERR_STORAGE,
					 "the EROFS image's superblock is damaged: its checksum is 0x%x, not 0x%x", sum,
					 le32toh(super.checksum));
	}
	return check_features(&super, err);
}

static int take_super(struct erofs_reader *r, uint64_t file_bytes, struct cpull_error *err)
{
	/* not from the cache: the checksum is taken with the field zeroed, and nothing but the superblock is wanted */
	uint8_t block[EROFS_BLOCK_BYTES];
	struct erofs_super super;

	if (file_bytes < sizeof(block))
		return error_set(err, CPULL_ERR_STORAGE, "this is no EROFS image: it has only %llu bytes",
				 (unsigned long long)file_bytes);

	int rc = read_exact(r->fd, block, sizeof(block), 0, err);

	if (!rc)
		rc = check_super(block, err);
	if (rc)
		return rc;
	memcpy(&super, block + EROFS_SUPER_OFFSET, sizeof(super));
	r->bytes = (uint64_t)le32toh(super.blocks) * EROFS_BLOCK_BYTES;
	r->meta_at = (uint64_t)le32toh(super.meta_block) * EROFS_BLOCK_BYTES;
	r->xattr_at = (uint64_t)le32toh(super.xattr_block) * EROFS_BLOCK_BYTES;
	r->epoch = (struct timespec){(time_t)le64toh(super.epoch), (long)le32toh(super.epoch_nsec)};
	r->has_devices = le32toh(super.feature_incompat) & EROFS_INCOMPAT_DEVICE_TABLE && super.extra_devices;
	memcpy(r->uuid, super.uuid, sizeof(r->uuid));
	if (!r->bytes || r->bytes > file_bytes || r->meta_at >= r->bytes || r->xattr_at >= r->bytes)
		return error_set(err, CPULL_ERR_STORAGE,
				 "the EROFS image is cut short or damaged: %llu bytes, of which it says it has %llu, "
				 "its inodes from %llu on and its shared attributes from %llu on",
				 (unsigned long long)file_bytes, (unsigned long long)r->bytes,
				 (unsigned long long)r->meta_at, (unsigned long long)r->xattr_at);
	rc = erofs_reader_node(r, le16toh(super.root_nid), &r->root, err);
	if (!rc && !S_ISDIR(r->root.mode))
		rc = erofs_damaged(err, r->root.nid, "the root is no directory");
	return rc;
}

int erofs_reader_open(int fd, struct erofs_reader **out, struct cpull_error *err)
{
	off_t size;
	struct stat st;

	*out = NULL;
	if (fstat(fd, &st))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "looking at an EROFS image");
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return error_set(err, CPULL_ERR_STORAGE, "this is no EROFS image: neither a file nor a block device");
	size = S_ISREG(st.st_mode) ? st.st_size : lseek(fd, 0, SEEK_END);
	if (size < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "looking at an EROFS image");

	CLEANUP_FREE struct erofs_reader *r = calloc(1, sizeof(*r));

	if (!r)
		return error_nomem(err);
	r->fd = fd;
	for (size_t i = 0; i < EROFS_CACHE_BLOCKS; i++)
		r->cache[i].block = NO_BLOCK;

	int rc = take_super(r, (uint64_t)size, err);

	if (!rc)
		*out = STEAL(r);
	return rc;
}

void erofs_reader_close(struct erofs_reader *reader)
{
	free(reader);
}

uint64_t erofs_reader_bytes(const struct erofs_reader *reader)
{
	return reader->bytes;
}

const uint8_t *erofs_reader_uuid(const struct erofs_reader *reader)
{
	return reader->uuid;
}

const struct erofs_node *erofs_reader_root(const struct erofs_reader *reader)
{
	return &reader->root;
}

/* ---- inodes ---- */

/* As the kernel's new_decode_dev() has it. */
static dev_t device_of(uint32_t rdev)
{
	return makedev(rdev >> 8 & 0xfff, (rdev & 0xff) | (rdev >> 12 & 0xfff00));
}

/* Both kinds of inode as the extended one. Returns the record's length on disk, or an error. */
static int take_inode(struct erofs_reader *r, uint64_t nid, uint64_t at, struct erofs_inode *out,
		      struct cpull_error *err)
{
	struct compact_inode small;
	int rc = erofs_copy_out(r, &small, sizeof(small), at, err);

	if (rc)
		return rc;
	if (le16toh(small.format) & 1) {
		if (!erofs_inside(r, at, sizeof(*out)))
			return erofs_damaged(err, nid, "it is not inside of the image");
		rc = erofs_copy_out(r, out, sizeof(*out), at, err);
		return rc ? rc : (int)sizeof(*out);
	}
	*out = (struct erofs_inode){
		.format = small.format,
		.xattr_icount = small.xattr_icount,
		.mode = small.mode,
		.size = htole64(le32toh(small.size)),
		.data = small.data,
		.uid = htole32(le16toh(small.uid)),
		.gid = htole32(le16toh(small.gid)),
		.mtime = (int64_t)htole64((uint64_t)r->epoch.tv_sec),
		.mtime_nsec = htole32((uint32_t)r->epoch.tv_nsec),
		.nlink = htole32(le16toh(small.nlink)),
	};
	return (int)sizeof(small);
}

/* Blocks of another device, whose end is not known. */
static bool is_elsewhere(const struct erofs_reader *r, uint64_t at)
{
	return r->has_devices && at >= r->bytes;
}

/* A file's last blocks cannot be known to be its own, but they are blocks of this image. */
static int check_flat(const struct erofs_reader *r, struct erofs_node *node, struct cpull_error *err)
{
	uint64_t whole = node->size;

	if (!node->size)
		return 0;
	if (node->layout == EROFS_FLAT_INLINE) {
		whole = (node->size - 1) / EROFS_BLOCK_BYTES * EROFS_BLOCK_BYTES;

		uint64_t tail = node->size - whole;

		if (node->behind % EROFS_BLOCK_BYTES + tail > EROFS_BLOCK_BYTES || !erofs_inside(r, node->behind, tail))
			return erofs_damaged(err, node->nid, "its last bytes are not in the inode's block");
	}

	uint64_t at = (uint64_t)node->data * EROFS_BLOCK_BYTES;

	if (whole && !erofs_inside(r, at, whole) && !is_elsewhere(r, at))
		return erofs_damaged(err, node->nid, "its data is not inside of the image");
	return 0;
}

static unsigned chunk_entry_bytes(const struct erofs_node *node)
{
	return node->data & EROFS_CHUNK_INDEXES ? sizeof(struct erofs_chunk_index) : sizeof(uint32_t);
}

static uint64_t chunk_bytes(const struct erofs_node *node)
{
	return (uint64_t)EROFS_BLOCK_BYTES << (node->data & EROFS_CHUNK_BITS);
}

static int check_chunks(const struct erofs_reader *r, struct erofs_node *node, struct cpull_error *err)
{
	uint64_t unit = chunk_entry_bytes(node);

	if (node->data & ~(EROFS_CHUNK_BITS | EROFS_CHUNK_INDEXES))
		return erofs_unsupported(err, node->nid, "its chunks have an unknown format");
	if (!S_ISREG(node->mode))
		return erofs_unsupported(err, node->nid, "it has chunks and is no regular file");
	node->behind = (node->behind + unit - 1) / unit * unit;
	node->chunk_count = node->size / chunk_bytes(node) + (node->size % chunk_bytes(node) != 0);
	if (!erofs_inside(r, node->behind, node->chunk_count * unit))
		return erofs_damaged(err, node->nid, "its map of chunks is not inside of the image");
	return 0;
}

static int check_data(const struct erofs_reader *r, struct erofs_node *node, struct cpull_error *err)
{
	if (node->size >> 63)
		return erofs_damaged(err, node->nid, "its size is negative");
	if (node->size > LIMIT_FILE_BYTES)
		return error_set(err, CPULL_ERR_LIMIT, "EROFS inode %llu has %llu bytes, and at most %llu are read",
				 (unsigned long long)node->nid, (unsigned long long)node->size,
				 (unsigned long long)LIMIT_FILE_BYTES);
	switch ((unsigned)node->layout) {
	case EROFS_FLAT_PLAIN:
	case EROFS_FLAT_INLINE:
		return check_flat(r, node, err);
	case EROFS_CHUNK_BASED:
		return check_chunks(r, node, err);
	case 1:
	case 3:
		return erofs_unsupported(err, node->nid, "it is compressed");
	default:
		return erofs_unsupported(err, node->nid, "its layout is unknown");
	}
}

static bool has_data(const struct erofs_node *node)
{
	return S_ISREG(node->mode) || S_ISDIR(node->mode) || S_ISLNK(node->mode);
}

static int check_node(const struct erofs_reader *r, struct erofs_node *node, struct cpull_error *err)
{
	if (!erofs_type_of(node->mode))
		return erofs_damaged(err, node->nid, "its type is none");
	if (node->mtime.tv_nsec > 999999999)
		return erofs_damaged(err, node->nid, "its time has more than 999999999 nanoseconds");
	if (!erofs_inside(r, node->xattr_at, node->xattr_bytes))
		return erofs_damaged(err, node->nid, "its attributes are not inside of the image");
	if (has_data(node))
		return check_data(r, node, err);
	/* the kernel takes the number and leaves the rest alone */
	node->rdev = S_ISCHR(node->mode) || S_ISBLK(node->mode) ? device_of(node->data) : 0;
	node->size = 0;
	node->layout = EROFS_FLAT_PLAIN;
	return 0;
}

int erofs_reader_node(struct erofs_reader *reader, uint64_t nid, struct erofs_node *out, struct cpull_error *err)
{
	struct erofs_inode inode;

	/* the metadata begins before the image's end, and all of it is whole blocks */
	if (nid >= (reader->bytes - reader->meta_at) / EROFS_SLOT_BYTES)
		return erofs_damaged(err, nid, "it is not inside of the image");

	uint64_t at = reader->meta_at + nid * EROFS_SLOT_BYTES;
	int record = take_inode(reader, nid, at, &inode, err);

	if (record < 0)
		return record;

	unsigned icount = le16toh(inode.xattr_icount), format = le16toh(inode.format);

	*out = (struct erofs_node){
		.nid = nid,
		.size = le64toh(inode.size),
		.mode = le16toh(inode.mode),
		.uid = le32toh(inode.uid),
		.gid = le32toh(inode.gid),
		.nlink = le32toh(inode.nlink),
		.mtime = {(time_t)le64toh((uint64_t)inode.mtime), (long)le32toh(inode.mtime_nsec)},
		.layout = (enum erofs_layout)(format >> 1 & 7),
		.data = le32toh(inode.data),
		.xattr_bytes = icount ? (uint32_t)sizeof(struct erofs_xattr_header) + 4 * (icount - 1) : 0,
		.xattr_at = at + (uint64_t)record,
	};
	out->behind = out->xattr_at + out->xattr_bytes;
	if (format >> 4)
		return erofs_unsupported(err, nid, "its format is unknown");
	return check_node(reader, out, err);
}

/* ---- data ---- */

static int on_another_device(const struct erofs_node *node, struct cpull_error *err)
{
	return erofs_unsupported(err, node->nid, "its data is on another device");
}

/* One entry of a map, decoded: the block, or EROFS_HOLE. */
static int take_chunk(const struct erofs_node *node, const uint8_t *entry, uint32_t *block, struct cpull_error *err)
{
	struct erofs_chunk_index index;

	if (!(node->data & EROFS_CHUNK_INDEXES)) {
		memcpy(block, entry, sizeof(*block));
		*block = le32toh(*block);
		return 0;
	}
	memcpy(&index, entry, sizeof(index));
	*block = le32toh(index.block);
	if (*block == EROFS_HOLE)
		return 0;
	if (index.device)
		return on_another_device(node, err);
	if (index.block_high)
		return erofs_unsupported(err, node->nid, "its block numbers have more than 32 bits");
	return 0;
}

/* Chunks that follow on each other are one extent, as far as one block of the map tells. */
static int map_chunks(struct erofs_reader *r, const struct erofs_node *node, uint64_t offset, struct erofs_extent *out,
		      struct cpull_error *err)
{
	uint64_t chunk = chunk_bytes(node), first = offset / chunk, end;
	unsigned unit = chunk_entry_bytes(node);
	uint64_t at = node->behind + first * unit;
	size_t in_block = (size_t)(at % EROFS_BLOCK_BYTES);
	uint64_t count = MIN((EROFS_BLOCK_BYTES - in_block) / unit, node->chunk_count - first);
	const uint8_t *map = erofs_block_get(r, at / EROFS_BLOCK_BYTES, err);
	uint32_t block, next;

	if (!map)
		return CPULL_ERR_STORAGE;

	int rc = take_chunk(node, map + in_block, &block, err);

	if (rc)
		return rc;

	uint64_t step = block == EROFS_HOLE ? 0 : chunk / EROFS_BLOCK_BYTES, n = 1;

	for (; n < count; n++)
		if (take_chunk(node, map + in_block + n * unit, &next, NULL) || next != block + n * step ||
		    (step && next == EROFS_HOLE))
			break;
	end = MIN((first + n) * chunk, node->size);
	out->place = step ? EROFS_IN_BLOCKS : EROFS_IN_HOLE;
	out->at = step ? (uint64_t)block * EROFS_BLOCK_BYTES + offset % chunk : 0;
	out->bytes = end - offset;
	if (step && is_elsewhere(r, out->at))
		return on_another_device(node, err);
	if (step && !erofs_inside(r, out->at, out->bytes))
		return erofs_damaged(err, node->nid, "a chunk is not inside of the image");
	return 0;
}

int erofs_reader_map(struct erofs_reader *reader, const struct erofs_node *node, uint64_t offset,
		     struct erofs_extent *out, struct cpull_error *err)
{
	assert(offset < node->size);
	if (node->layout == EROFS_CHUNK_BASED)
		return map_chunks(reader, node, offset, out, err);

	uint64_t whole = node->size;

	if (node->layout == EROFS_FLAT_INLINE)
		whole = (node->size - 1) / EROFS_BLOCK_BYTES * EROFS_BLOCK_BYTES;
	if (offset >= whole) {
		*out = (struct erofs_extent){EROFS_IN_TAIL, node->size - offset, node->behind + (offset - whole)};
		return 0;
	}
	*out = (struct erofs_extent){EROFS_IN_BLOCKS, whole - offset,
				     (uint64_t)node->data * EROFS_BLOCK_BYTES + offset};
	return is_elsewhere(reader, out->at) ? on_another_device(node, err) : 0;
}

/* Tails are next to their inodes, which are in the cache; blocks of data would only push those out. */
static int read_extent(struct erofs_reader *r, const struct erofs_extent *extent, void *out, size_t len,
		       struct cpull_error *err)
{
	switch (extent->place) {
	case EROFS_IN_BLOCKS:
		return read_exact(r->fd, out, len, extent->at, err);
	case EROFS_IN_TAIL:
		return erofs_copy_out(r, out, len, extent->at, err);
	case EROFS_IN_HOLE:
		break;
	}
	memset(out, 0, len);
	return 0;
}

int erofs_reader_read(struct erofs_reader *reader, const struct erofs_node *node, void *out, size_t len,
		      uint64_t offset, size_t *got, struct cpull_error *err)
{
	struct erofs_extent extent;

	*got = 0;
	while (*got < len && offset < node->size) {
		int rc = erofs_reader_map(reader, node, offset, &extent, err);
		size_t n = rc ? 0 : (size_t)MIN(len - *got, extent.bytes);

		if (!rc)
			rc = read_extent(reader, &extent, (uint8_t *)out + *got, n, err);
		if (rc)
			return rc;
		*got += n;
		offset += n;
	}
	return 0;
}

int erofs_reader_link(struct erofs_reader *reader, const struct erofs_node *node, char *out, struct cpull_error *err)
{
	size_t len;

	if (!S_ISLNK(node->mode))
		return error_set(err, CPULL_ERR_USAGE, "EROFS inode %llu is no symlink", (unsigned long long)node->nid);
	if (!node->size || node->size >= LIMIT_PATH_BYTES)
		return erofs_damaged(err, node->nid, "a symlink's target has 1 to 4095 bytes");

	int rc = erofs_reader_read(reader, node, out, (size_t)node->size, 0, &len, err);

	if (rc)
		return rc;
	out[len] = 0;
	if (strlen(out) != len)
		return erofs_damaged(err, node->nid, "there is a NUL in a symlink's target");
	return 0;
}
