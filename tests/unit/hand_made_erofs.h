/* SPDX-License-Identifier: Apache-2.0
 *
 * A small EROFS image made in memory, with one of everything that the reader knows, for tests that change one field of
 * it. Include behind cmocka.h.
 */
#ifndef TESTS_UNIT_HAND_MADE_EROFS_H
#define TESTS_UNIT_HAND_MADE_EROFS_H

#include <endian.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "engine/base/util.h"
#include "snapshot/erofs_format.h"

enum {
	MADE_META_BLOCK = 12,
	MADE_SHARED_BLOCK = 11,
	MADE_BLOCKS = 16,
	/* node ids */
	MADE_ROOT = 36,
	MADE_PLAIN = 127, /* half in the next block */
	MADE_INLINE = 134,
	MADE_CHUNKS = 140,
	MADE_INDEXES = 146,
	MADE_LINK = 156,
	MADE_DIR = 160,
	MADE_FILE = 166, /* compact, without data */
	MADE_CHAR = 168,
	MADE_XATTRS = 172,
	MADE_CUT = 511, /* extended, with room for half of it */
	MADE_NIDS = 512,
};

#define MADE_TARGET "dir/file"
#define MADE_SECONDS 1700000001
#define MADE_PLAIN_BYTES (2 * EROFS_BLOCK_BYTES + 100u)
#define MADE_INLINE_BYTES (EROFS_BLOCK_BYTES + 50u)
#define MADE_CHUNKS_BYTES (5 * EROFS_BLOCK_BYTES + 7u)
#define MADE_INDEXES_BYTES (3 * 2 * EROFS_BLOCK_BYTES)

struct made {
	size_t bytes;
	uint8_t *data;
};

struct made_name {
	const char *name;
	size_t len;
	uint64_t nid;
	enum erofs_type type;
};

static inline void made_seal(struct made *m)
{
	struct erofs_super *super = (struct erofs_super *)(m->data + EROFS_SUPER_OFFSET);

	super->checksum = 0;
	super->checksum = htole32(erofs_checksum(super, EROFS_BLOCK_BYTES - EROFS_SUPER_OFFSET));
}

static inline struct made made_new(size_t blocks)
{
	struct made m = {blocks * EROFS_BLOCK_BYTES, calloc(blocks, EROFS_BLOCK_BYTES)};
	struct erofs_super super = {
		.magic = htole32(EROFS_MAGIC),
		.feature_compat = htole32(EROFS_COMPAT_CHECKSUM | EROFS_COMPAT_MTIME),
		.block_bits = EROFS_BLOCK_BITS,
		.root_nid = htole16(MADE_ROOT),
		.epoch = htole64(MADE_SECONDS),
		.blocks = htole32((uint32_t)blocks),
		.meta_block = htole32(MADE_META_BLOCK),
		.xattr_block = htole32(MADE_SHARED_BLOCK),
		.feature_incompat = htole32(EROFS_INCOMPAT_CHUNKED_FILE),
	};

	assert_non_null(m.data);
	memcpy(m.data + EROFS_SUPER_OFFSET, &super, sizeof(super));
	return m;
}

static inline uint8_t *made_at(struct made *m, uint64_t nid)
{
	return m->data + (size_t)MADE_META_BLOCK * EROFS_BLOCK_BYTES + nid * EROFS_SLOT_BYTES;
}

/* What comes behind the inode begins where this returns. */
static inline uint8_t *made_inode(struct made *m, uint64_t nid, uint16_t format, uint32_t mode, uint64_t size,
				  uint32_t data)
{
	struct erofs_inode inode = {
		.format = htole16(format),
		.mode = htole16((uint16_t)mode),
		.size = htole64(size),
		.data = htole32(data),
		.uid = htole32(70000),
		.gid = htole32(80000),
		.mtime = (int64_t)htole64(MADE_SECONDS),
		.mtime_nsec = htole32(5),
		.nlink = htole32(1),
	};

	memcpy(made_at(m, nid), &inode, sizeof(inode));
	return made_at(m, nid) + sizeof(inode);
}

/* Writes names (in order) as a directory's blocks. Returns the directory's size. */
static inline size_t made_names(uint8_t *out, const struct made_name *names, size_t count)
{
	size_t block = 0, size = 0;

	for (size_t first = 0, next; first < count; first = next, block++) {
		size_t used = 0;
		uint8_t *at = out + block * EROFS_BLOCK_BYTES;

		for (next = first; next < count && used + 12 + names[next].len <= EROFS_BLOCK_BYTES; next++)
			used += 12 + names[next].len;
		size = block * EROFS_BLOCK_BYTES + used;
		used = 12 * (next - first);
		for (size_t i = first; i < next; i++) {
			struct erofs_dirent d = {htole64(names[i].nid), htole16((uint16_t)used), names[i].type, 0};

			memcpy(at + 12 * (i - first), &d, sizeof(d));
			memcpy(at + used, names[i].name, names[i].len);
			used += names[i].len;
		}
	}
	return size;
}

static inline void made_xattr(uint8_t **at, unsigned prefix, const char *name, const char *value)
{
	struct erofs_xattr_entry entry = {(uint8_t)strlen(name), (uint8_t)prefix, htole16((uint16_t)strlen(value))};
	size_t len = sizeof(entry) + strlen(name) + strlen(value);

	memcpy(*at, &entry, sizeof(entry));
	memcpy(*at + sizeof(entry), name, strlen(name));
	memcpy(*at + sizeof(entry) + strlen(name), value, strlen(value));
	*at += (len + 3) / 4 * 4;
}

/* Byte i of block b. */
static inline uint8_t made_byte(size_t block, size_t i)
{
	return (uint8_t)(block * 31 + i * 7 + i / 256 + 1);
}

static inline void made_xattrs(struct made *m)
{
	uint8_t *body = made_inode(m, MADE_XATTRS, EROFS_FORMAT(EROFS_FLAT_INLINE), S_IFREG | 0600, 3, 0), *at = body;
	struct erofs_xattr_header header = {.shared_count = 1};
	uint8_t *shared = m->data + (size_t)MADE_SHARED_BLOCK * EROFS_BLOCK_BYTES + 8;

	memcpy(at, &header, sizeof(header));
	at += sizeof(header);
	memcpy(at, &(uint32_t){htole32(2)}, 4);
	at += 4;
	made_xattr(&at, EROFS_XATTR_USER, "one", "first");
	made_xattr(&at, EROFS_XATTR_TRUSTED, "overlay.opaque", "y");
	made_xattr(&at, EROFS_XATTR_ACL_ACCESS, "", "acl value");
	made_xattr(&at, EROFS_XATTR_USER, "empty", "");
	made_xattr(&shared, EROFS_XATTR_SECURITY, "selinux", "label");
	((struct erofs_inode *)made_at(m, MADE_XATTRS))->xattr_icount =
		htole16((uint16_t)(1 + ((size_t)(at - body) - sizeof(header)) / 4));
	memcpy(at, "abc", 3);
}

static inline void made_files(struct made *m)
{
	uint8_t *at;

	made_inode(m, MADE_PLAIN, EROFS_FORMAT(EROFS_FLAT_PLAIN), S_IFREG | 0644, MADE_PLAIN_BYTES, 1);
	at = made_inode(m, MADE_INLINE, EROFS_FORMAT(EROFS_FLAT_INLINE), S_IFREG | 0644, MADE_INLINE_BYTES, 4);
	for (size_t i = 0; i < MADE_INLINE_BYTES - EROFS_BLOCK_BYTES; i++)
		at[i] = made_byte(5, i);
	at = made_inode(m, MADE_CHUNKS, EROFS_FORMAT(EROFS_CHUNK_BASED), S_IFREG | 0644, MADE_CHUNKS_BYTES, 0);
	memcpy(at, (uint32_t[]){htole32(5), EROFS_HOLE, EROFS_HOLE, htole32(6), htole32(7), htole32(6)}, 24);
	at = made_inode(m, MADE_INDEXES, EROFS_FORMAT(EROFS_CHUNK_BASED), S_IFREG | 0644, MADE_INDEXES_BYTES,
			EROFS_CHUNK_INDEXES | 1);
	memcpy(at, (struct erofs_chunk_index[]){{0, 0, htole32(8)}, {0, 0, EROFS_HOLE}, {0, 0, htole32(5)}}, 24);
	at = made_inode(m, MADE_LINK, EROFS_FORMAT(EROFS_FLAT_INLINE), S_IFLNK | 0777, strlen(MADE_TARGET), 0);
	memcpy(at, MADE_TARGET, strlen(MADE_TARGET));
	made_inode(m, MADE_CHAR, EROFS_FORMAT(EROFS_FLAT_PLAIN), S_IFCHR | 0600, 0, erofs_rdev(4095, 1048575));

	*made_at(m, MADE_CUT) = 1;
	/* compact: no format bit 0, owners of 16 bits, the superblock's time */
	memcpy(made_at(m, MADE_FILE) + 4, &(uint16_t){htole16(S_IFREG | 0640)}, 2);
	memcpy(made_at(m, MADE_FILE) + 6, &(uint16_t){htole16(3)}, 2);
	memcpy(made_at(m, MADE_FILE) + 24, &(uint16_t){htole16(1001)}, 2);
	memcpy(made_at(m, MADE_FILE) + 26, &(uint16_t){htole16(1002)}, 2);
}

#define MADE_NAME(name, nid, type) {name, sizeof(name) - 1, nid, type}

static inline struct made made_image(void)
{
	static const struct made_name root[] = {
		MADE_NAME("+plain", MADE_PLAIN, EROFS_REGULAR),	  MADE_NAME(".", MADE_ROOT, EROFS_DIRECTORY),
		MADE_NAME("..", MADE_ROOT, EROFS_DIRECTORY),	  MADE_NAME("char", MADE_CHAR, EROFS_CHAR),
		MADE_NAME("chunks", MADE_CHUNKS, EROFS_REGULAR),  MADE_NAME("dir", MADE_DIR, EROFS_DIRECTORY),
		MADE_NAME("indexes", MADE_INDEXES, EROFS_REGULAR), MADE_NAME("inline", MADE_INLINE, EROFS_REGULAR),
		MADE_NAME("link", MADE_LINK, EROFS_SYMLINK),	  MADE_NAME("xattrs", MADE_XATTRS, EROFS_REGULAR),
	};
	static const struct made_name dir[] = {
		MADE_NAME(".", MADE_DIR, EROFS_DIRECTORY),
		MADE_NAME("..", MADE_ROOT, EROFS_DIRECTORY),
		MADE_NAME("file", MADE_FILE, EROFS_REGULAR),
	};
	struct made m = made_new(MADE_BLOCKS);

	for (size_t block = 1; block < MADE_SHARED_BLOCK; block++)
		for (size_t i = 0; i < EROFS_BLOCK_BYTES; i++)
			m.data[block * EROFS_BLOCK_BYTES + i] = made_byte(block, i);
	made_files(&m);
	made_xattrs(&m);
	for (unsigned i = 0; i < 2; i++) {
		const struct made_name *names = i ? dir : root;
		size_t count = i ? ARRAY_LEN(dir) : ARRAY_LEN(root);
		uint64_t nid = i ? MADE_DIR : MADE_ROOT;
		uint8_t *at = made_inode(&m, nid, EROFS_FORMAT(EROFS_FLAT_INLINE), S_IFDIR | 0755, 0, 0);

		((struct erofs_inode *)made_at(&m, nid))->size = htole64(made_names(at, names, count));
	}
	made_seal(&m);
	return m;
}

static inline int made_fd(const struct made *m)
{
	int fd = memfd_create("made.erofs", MFD_CLOEXEC);

	assert_true(fd >= 0 && pwrite(fd, m->data, m->bytes, 0) == (ssize_t)m->bytes);
	return fd;
}

static inline void made_free(struct made *m)
{
	free(m->data);
}
#define CLEANUP_MADE __attribute__((cleanup(made_free)))

#endif
