/* SPDX-License-Identifier: Apache-2.0
 *
 * Every length that comes from outside has its maximum here, with the reason for the number. A should-fail
 * test stands behind each.
 */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

/* Registry and image documents. 4 MiB is what containers/image takes for a manifest and a config. */
#define LIMIT_MANIFEST_BYTES (4u << 20)
#define LIMIT_CONFIG_BYTES (4u << 20)
#define LIMIT_TOKEN_BYTES (256u << 10)
#define LIMIT_ERROR_BODY_BYTES (64u << 10)
#define LIMIT_HEADER_BYTES (64u << 10)
#define LIMIT_REFERENCE_BYTES 512u
#define LIMIT_INDEX_ENTRIES 4096u
#define LIMIT_INDEX_DEPTH 2u
#define LIMIT_JSON_DEPTH 64u
/* overlayfs takes 500 lower directories; more cannot be mounted, so more is not pulled. */
#define LIMIT_LAYERS 500u
#define LIMIT_BLOB_BYTES (1ull << 40)
#define LIMIT_REDIRECTS 10u
#define LIMIT_ANNOTATION_BYTES (1u << 20)

/* Files of the machine's own that the caller names. */
#define LIMIT_KEY_FILE_BYTES (1u << 20)
#define LIMIT_AUTH_FILE_BYTES (1u << 20)
#define LIMIT_PASSWORD_BYTES 4096u
#define LIMIT_ROOTS_BYTES (8u << 20) /* a system's bundle is 200 KiB */
#define LIMIT_KEY_WRAPS 64u /* wrapped copies of one layer key that are tried */
#define LIMIT_PRIVATE_OPTIONS_BYTES 4096u /* ocicrypt's own are 193 bytes */

/* Tar. A path longer than PATH_MAX cannot be created; a pax header of 1 MiB holds any set of xattrs. */
#define LIMIT_PATH_BYTES 4096u
#define LIMIT_NAME_BYTES 255u
#define LIMIT_PATH_DEPTH 1024u
#define LIMIT_PAX_BYTES (1u << 20)
#define LIMIT_XATTR_VALUE_BYTES (64u << 10) /* the kernel's XATTR_SIZE_MAX */
#define LIMIT_XATTRS 256u
/* What a layer's writer keeps until the end: ACLs of directories (real images have a handful of different ones), and
 * hard links to files of lower layers with their names. Tar bytes compress a thousand times, memory does not. */
#define LIMIT_ACL_BYTES (4u << 20)
#define LIMIT_LOOSE_LINKS 65536u
#define LIMIT_LOOSE_LINK_BYTES (16u << 20)
#define LIMIT_SPARSE_CHUNKS 65536u
#define LIMIT_FILE_BYTES (1ull << 43)
#define LIMIT_LAYER_ENTRIES (8u << 20)
#define LIMIT_SYMLINK_HOPS 40u /* the kernel's own */

/* An EROFS image. Block numbers have 32 bits, the highest of which means a hole. */
#define LIMIT_EROFS_BYTES (0xffffffffull << 12)
/* Its inodes, inlined data included: LIMIT_LAYER_ENTRIES of the largest tails are half of it. */
#define LIMIT_EROFS_SPOOL_BYTES (64ull << 30)
/* The format has 16 bits for the length of a value, and as many for that of an inode's attributes in units of 4. */
#define LIMIT_EROFS_XATTR_BYTES 65535u
#define LIMIT_EROFS_XATTRS_BYTES (12u + 65534u * 4)
/* The map of a sparse file, in memory while the file comes: 256 KiB. */
#define LIMIT_EROFS_CHUNKS 65536u
/* Zeros and maps that stand for the holes of sparse files: a header of a few hundred bytes can ask for a lot. */
#define LIMIT_EROFS_HOLE_BYTES (16ull << 30)
/* What is kept of a layer until its directories are written behind all else: 31 bytes and its text for a name, targets of
 * symlinks, some 250 bytes for a directory (a short path can ask for a thousand of them), and those attributes of
 * directories that are not the same as another's. */
#define LIMIT_EROFS_NAMES (8u << 20)
#define LIMIT_EROFS_NAME_BYTES (512u << 20)
#define LIMIT_EROFS_TARGET_BYTES (64u << 20)
#define LIMIT_EROFS_DIRS (1u << 20)
#define LIMIT_EROFS_DIR_XATTR_BYTES (16u << 20)

/* Decompression. A layer may unpack to 1000 times its blob plus a floor that lets small, very
 * compressible layers through (deflate reaches 1032:1 at most), and never to more than the total. */
#define LIMIT_UNPACK_RATIO 1000ull
#define LIMIT_UNPACK_FLOOR_BYTES (256ull << 20)
#define LIMIT_UNPACK_BYTES (1ull << 40)
#define LIMIT_ZSTD_WINDOW_LOG 27 /* what zstd itself takes without being asked */

/* The store. */
/* An image's record: manifest and config as JSON strings, which is twice their length when all of it is quotes, and
 * some hundred bytes a layer. */
#define LIMIT_RECORD_BYTES (20u << 20)
#define LIMIT_JOBS 64u
/* The list of a layer's contents, which is read by 32-bit offsets: LIMIT_LAYER_ENTRIES of the longest names. */
#define LIMIT_CONTENTS_BYTES UINT32_MAX
/* Names in it that are there in the end. */
#define LIMIT_CONTENTS_NAMES (2 * LIMIT_LAYER_ENTRIES)
/* What a check lists; beyond, it counts. */
#define LIMIT_FSCK_LAYER_PROBLEMS 128u
#define LIMIT_FSCK_PROBLEMS 4096u
#define LIMIT_CONNECTIONS 16u /* for one blob */

#endif
