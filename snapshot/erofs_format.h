/* SPDX-License-Identifier: Apache-2.0
 *
 * EROFS on disk, as far as it is written and read here: uncompressed, blocks of 4096 bytes, extended inodes only.
 * Source: the kernel's fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst. All numbers are little-endian;
 * structs are packed, and their members go through the le*toh() and htole*() functions.
 */
#ifndef SNAPSHOT_EROFS_FORMAT_H
#define SNAPSHOT_EROFS_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define EROFS_BLOCK_BITS 12u
#define EROFS_BLOCK_BYTES (1u << EROFS_BLOCK_BITS)
#define EROFS_SUPER_OFFSET 1024u
#define EROFS_MAGIC 0xe0f5e1e2u
#define EROFS_SLOT_BYTES 32u /* a node id counts these from the metadata's first block */

enum erofs_compat {
	EROFS_COMPAT_CHECKSUM = 0x1,
	EROFS_COMPAT_MTIME = 0x2,
};

enum erofs_incompat {
	EROFS_INCOMPAT_CHUNKED_FILE = 0x4,
	EROFS_INCOMPAT_DEVICE_TABLE = 0x8,
};

struct erofs_super {
	uint32_t magic;
	uint32_t checksum; /* erofs_checksum() of the block from here on, with this being 0 */
	uint32_t feature_compat;
	uint8_t block_bits;
	uint8_t ext_slots;
	uint16_t root_nid; /* within 2 MiB of the metadata's start */
	uint64_t inodes;
	uint64_t epoch;
	uint32_t epoch_nsec;
	uint32_t blocks;
	uint32_t meta_block; /* where node id 0 is */
	uint32_t xattr_block;
	uint8_t uuid[16];
	uint8_t volume_name[16]; /* NUL-terminated */
	uint32_t feature_incompat;
	uint16_t compression;
	uint16_t extra_devices;
	uint16_t device_slot; /* in units of EROFS_DEVICE_BYTES */
	uint8_t dir_block_bits;
	uint8_t xattr_prefix_count;
	uint32_t xattr_prefix_start;
	uint64_t packed_nid;
	uint8_t reserved[24];
} __attribute__((packed));
_Static_assert(sizeof(struct erofs_super) == 128, "struct erofs_super");

enum erofs_layout {
	EROFS_FLAT_PLAIN = 0,  /* blocks in a row */
	EROFS_FLAT_INLINE = 2, /* the same, and what is no whole block behind the inode */
	EROFS_CHUNK_BASED = 4, /* a map of chunks behind the inode */
};

/* bit 0: extended; bits 1 to 3: the layout */
#define EROFS_FORMAT(layout) ((uint16_t)(1u | (unsigned)(layout) << 1))

struct erofs_inode {
	uint16_t format;
	uint16_t xattr_icount; /* 0, or 1 + (bytes of attributes - 12) / 4 */
	uint16_t mode;
	uint16_t reserved;
	uint64_t size;
	uint32_t data; /* first block, device number, or for chunks the EROFS_CHUNK_* format */
	uint32_t ino;
	uint32_t uid;
	uint32_t gid;
	int64_t mtime;
	uint32_t mtime_nsec;
	uint32_t nlink;
	uint8_t reserved2[16];
} __attribute__((packed));
_Static_assert(sizeof(struct erofs_inode) == 64, "struct erofs_inode");

#define EROFS_CHUNK_BITS 0x1fu   /* log2 of the chunk's blocks */
#define EROFS_CHUNK_INDEXES 0x20u /* struct erofs_chunk_index, else bare block numbers */
#define EROFS_HOLE UINT32_MAX

struct erofs_chunk_index {
	uint16_t block_high; /* 0 */
	uint16_t device;     /* 0: this image */
	uint32_t block;
} __attribute__((packed));

struct erofs_dirent {
	uint64_t nid;
	uint16_t name_offset; /* in the block */
	uint8_t type;         /* enum erofs_type */
	uint8_t reserved;
} __attribute__((packed));
_Static_assert(sizeof(struct erofs_dirent) == 12, "struct erofs_dirent");

enum erofs_type {
	EROFS_REGULAR = 1,
	EROFS_DIRECTORY,
	EROFS_CHAR,
	EROFS_BLOCK,
	EROFS_FIFO,
	EROFS_SOCKET,
	EROFS_SYMLINK,
};

struct erofs_xattr_header {
	uint32_t name_filter;
	uint8_t shared_count;
	uint8_t reserved[7];
} __attribute__((packed));
_Static_assert(sizeof(struct erofs_xattr_header) == 12, "struct erofs_xattr_header");

/* Followed by the name without its prefix and the value, padded to a multiple of 4. */
struct erofs_xattr_entry {
	uint8_t name_len;
	uint8_t name_index; /* enum erofs_xattr_prefix */
	uint16_t value_len;
} __attribute__((packed));

enum erofs_xattr_prefix {
	EROFS_XATTR_USER = 1,
	EROFS_XATTR_ACL_ACCESS,
	EROFS_XATTR_ACL_DEFAULT,
	EROFS_XATTR_TRUSTED,
	EROFS_XATTR_SECURITY = 6,
};

#define EROFS_DEVICE_BYTES 128u
#define EROFS_DEVICE_TAG_BYTES 64u

/* Of the table of devices. The image's blocks and those of its devices have numbers out of one space: where a number
 * is not one of the image's own, it is of the device whose numbers it lies among. */
struct erofs_device_slot {
	char tag[EROFS_DEVICE_TAG_BYTES]; /* zeros behind the text */
	uint32_t blocks;
	uint32_t first; /* the number of the device's block 0; 0: it has none */
	uint8_t reserved[56];
} __attribute__((packed));
_Static_assert(sizeof(struct erofs_device_slot) == EROFS_DEVICE_BYTES, "struct erofs_device_slot");

/* CRC-32C, not inverted at the end, as the superblock has it. */
uint32_t erofs_checksum(const void *data, size_t len);
/* What a device's slot says of the EROFS image that it is: its UUID in hexadecimal. */
void erofs_device_tag(const uint8_t uuid[16], char tag[EROFS_DEVICE_TAG_BYTES]);
/* The enum erofs_type of a file mode, 0 when it is none. */
uint8_t erofs_type_of(uint32_t mode);
/* Device numbers as on disk. */
uint32_t erofs_rdev(uint32_t major, uint32_t minor);
/* Splits an attribute's name: the prefix's number, and where in `name` the rest begins; 0 for a name that EROFS has no
 * prefix for. */
unsigned erofs_xattr_split(const char *name, size_t *rest);
/* The text of a prefix, NULL when there is none of that number. */
const char *erofs_xattr_prefix(unsigned index);

#endif
