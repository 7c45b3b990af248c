/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/erofs_reader: a made image with one of everything, one field of it changed at a time, and names everywhere
 * in big directories.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>

#include "erofs_text.h"
#include "hand_made_erofs.h"

/* ---- the made image ---- */

static struct erofs_reader *made_open(struct made *m, int *fd)
{
	struct cpull_error err = {0};
	struct erofs_reader *r;

	*fd = made_fd(m);
	if (erofs_reader_open(*fd, &r, &err))
		fail_msg("%s", err.message);
	return r;
}

static void made_find(struct erofs_reader *r, const char *path, struct erofs_node *out)
{
	assert_int_equal(erofs_reader_find(r, path, out, NULL), 1);
}

static void test_attributes(void **state)
{
	(void)state;
	CLEANUP_MADE struct made m = made_image();
	CLEANUP_FD int fd = -1;
	struct erofs_reader *r = made_open(&m, &fd);
	struct erofs_node n;
	char target[LIMIT_PATH_BYTES];

	assert_int_equal(erofs_reader_bytes(r), m.bytes);
	assert_int_equal(erofs_reader_root(r)->nid, MADE_ROOT);
	made_find(r, "+plain", &n);
	assert_int_equal(n.mode, S_IFREG | 0644);
	assert_int_equal(n.uid, 70000);
	assert_int_equal(n.gid, 80000);
	assert_int_equal(n.mtime.tv_sec, MADE_SECONDS);
	assert_int_equal(n.mtime.tv_nsec, 5);
	assert_int_equal(n.size, MADE_PLAIN_BYTES);
	assert_int_equal(n.nlink, 1);
	/* compact */
	made_find(r, "/dir/./file/", &n);
	assert_int_equal(n.mode, S_IFREG | 0640);
	assert_int_equal(n.uid, 1001);
	assert_int_equal(n.gid, 1002);
	assert_int_equal(n.nlink, 3);
	assert_int_equal(n.mtime.tv_sec, MADE_SECONDS);
	made_find(r, "char", &n);
	assert_int_equal(major(n.rdev), 4095);
	assert_int_equal(minor(n.rdev), 1048575);
	made_find(r, "link", &n);
	assert_int_equal(erofs_reader_link(r, &n, target, NULL), 0);
	assert_string_equal(target, MADE_TARGET);
	made_find(r, "", &n);
	assert_int_equal(n.nid, MADE_ROOT);
	erofs_reader_close(r);
}

static void test_paths_that_are_not_there(void **state)
{
	static const char *const paths[] = {"no", "dir/no", "char/x", "link/file", "+plain/", "di", "dirx", "+plain/x"};
	(void)state;
	CLEANUP_MADE struct made m = made_image();
	CLEANUP_FD int fd = -1;
	struct erofs_reader *r = made_open(&m, &fd);
	struct erofs_node n;
	char name[LIMIT_NAME_BYTES + 2];

	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		/* as with what is a file: a slash at the end is passed over */
		assert_int_equal(erofs_reader_find(r, paths[i], &n, NULL), i == 4);
	assert_int_equal(erofs_reader_find(r, "dir/../dir", &n, NULL), CPULL_ERR_USAGE);
	memset(name, 'a', sizeof(name));
	assert_int_equal(erofs_reader_lookup(r, erofs_reader_root(r), name, LIMIT_NAME_BYTES, &n, NULL), 0);
	assert_int_equal(erofs_reader_lookup(r, erofs_reader_root(r), name, sizeof(name), &n, NULL), 0);
	assert_int_equal(erofs_reader_lookup(r, erofs_reader_root(r), "", 0, &n, NULL), 0);
	assert_int_equal(erofs_reader_lookup(r, erofs_reader_root(r), "..", 2, &n, NULL), 1);
	assert_int_equal(n.nid, MADE_ROOT);
	erofs_reader_close(r);
}

static uint8_t expected_byte(const char *path, uint64_t at)
{
	static const uint32_t chunks[] = {5, EROFS_HOLE, EROFS_HOLE, 6, 7, 6};
	static const uint32_t indexes[] = {8, 9, EROFS_HOLE, EROFS_HOLE, 5, 6};
	size_t block = (size_t)(at / EROFS_BLOCK_BYTES), in = (size_t)(at % EROFS_BLOCK_BYTES);

	if (strcmp(path, "+plain") == 0)
		return made_byte(1 + block, in);
	if (strcmp(path, "inline") == 0)
		return made_byte(4 + block, in);

	uint32_t from = strcmp(path, "chunks") == 0 ? chunks[block] : indexes[block];

	return from == EROFS_HOLE ? 0 : made_byte(from, in);
}

/* Every offset class against the content, and the map against what was read. */
static void check_data(struct erofs_reader *r, const char *path)
{
	static uint8_t buffer[8 * EROFS_BLOCK_BYTES];
	static const size_t lens[] = {1, 7, 4095, 4096, 4097, sizeof(buffer)};
	struct erofs_extent extent;
	struct erofs_node n;
	size_t got;

	made_find(r, path, &n);
	for (size_t l = 0; l < ARRAY_LEN(lens); l++)
		for (uint64_t at = 0; at <= n.size + 1; at += 509) {
			assert_int_equal(erofs_reader_read(r, &n, buffer, lens[l], at, &got, NULL), 0);
			assert_int_equal(got, at < n.size ? MIN(lens[l], n.size - at) : 0);
			for (size_t i = 0; i < got; i += got > 16 ? got - 1 : 1)
				assert_int_equal(buffer[i], expected_byte(path, at + i));
		}
	assert_int_equal(erofs_reader_read(r, &n, buffer, sizeof(buffer), 0, &got, NULL), 0);
	for (size_t i = 0; i < got; i++)
		assert_int_equal(buffer[i], expected_byte(path, i));
	for (uint64_t at = 0; at < n.size; at += extent.bytes) {
		assert_int_equal(erofs_reader_map(r, &n, at, &extent, NULL), 0);
		assert_true(extent.bytes && extent.bytes <= n.size - at);
		assert_true(extent.place != EROFS_IN_BLOCKS || extent.at % EROFS_BLOCK_BYTES == 0);
	}
}

static void test_data(void **state)
{
	(void)state;
	CLEANUP_MADE struct made m = made_image();
	CLEANUP_FD int fd = -1;
	struct erofs_reader *r = made_open(&m, &fd);
	struct erofs_extent extent;
	struct erofs_node n;

	check_data(r, "+plain");
	check_data(r, "inline");
	check_data(r, "chunks");
	check_data(r, "indexes");

	made_find(r, "chunks", &n);
	assert_int_equal(erofs_reader_map(r, &n, EROFS_BLOCK_BYTES + 1, &extent, NULL), 0);
	assert_int_equal(extent.place, EROFS_IN_HOLE);
	assert_int_equal(extent.bytes, 2 * EROFS_BLOCK_BYTES - 1);
	assert_int_equal(erofs_reader_map(r, &n, 3 * EROFS_BLOCK_BYTES, &extent, NULL), 0);
	assert_int_equal(extent.place, EROFS_IN_BLOCKS);
	assert_int_equal(extent.at, 6 * EROFS_BLOCK_BYTES);
	assert_int_equal(extent.bytes, 2 * EROFS_BLOCK_BYTES);
	made_find(r, "inline", &n);
	assert_int_equal(erofs_reader_map(r, &n, EROFS_BLOCK_BYTES + 1, &extent, NULL), 0);
	assert_int_equal(extent.place, EROFS_IN_TAIL);
	erofs_reader_close(r);
}

static void test_xattrs(void **state)
{
	static const struct {
		const char *name, *value;
	} wanted[] = {
		{"security.selinux", "label"}, {"user.one", "first"}, {"trusted.overlay.opaque", "y"},
		{"system.posix_acl_access", "acl value"}, {"user.empty", ""},
	};
	(void)state;
	CLEANUP_MADE struct made m = made_image();
	CLEANUP_FD int fd = -1;
	struct erofs_reader *r = made_open(&m, &fd);
	struct erofs_xattrs x;
	struct erofs_node n;
	char value[16];
	size_t len;

	made_find(r, "xattrs", &n);
	erofs_reader_xattrs(&n, &x);
	for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
		assert_int_equal(erofs_reader_xattr_next(r, &x, NULL), 1);
		assert_string_equal(x.name, wanted[i].name);
		assert_int_equal(x.value_len, strlen(wanted[i].value));
		assert_int_equal(erofs_reader_xattr_get(r, &n, wanted[i].name, value, sizeof(value), &len, NULL), 1);
		assert_int_equal(len, strlen(wanted[i].value));
		assert_memory_equal(value, wanted[i].value, len);
	}
	assert_int_equal(erofs_reader_xattr_next(r, &x, NULL), 0);
	assert_int_equal(erofs_reader_xattr_get(r, &n, "user.on", value, sizeof(value), &len, NULL), 0);
	assert_int_equal(erofs_reader_xattr_get(r, &n, "user.one", value, 4, &len, NULL), CPULL_ERR_LIMIT);
	assert_int_equal(erofs_reader_read(r, &n, value, sizeof(value), 0, &len, NULL), 0);
	assert_int_equal(len, 3);
	assert_memory_equal(value, "abc", 3);
	erofs_reader_close(r);
}

/* ---- one field changed ---- */

#define SUPER(field) EROFS_SUPER_OFFSET + offsetof(struct erofs_super, field), sizeof(((struct erofs_super *)0)->field)
#define META ((size_t)MADE_META_BLOCK * EROFS_BLOCK_BYTES)
#define BEHIND(nid) (META + (size_t)(nid) * EROFS_SLOT_BYTES + sizeof(struct erofs_inode))
#define INODE(nid, field)                                                                   \
	META + (size_t)(nid) * EROFS_SLOT_BYTES + offsetof(struct erofs_inode, field), \
		sizeof(((struct erofs_inode *)0)->field)
#define DIRENT(nid, i, field)                                               \
	BEHIND(nid) + 12 * (i) + offsetof(struct erofs_dirent, field), \
		sizeof(((struct erofs_dirent *)0)->field)

/* Where the attributes begin, behind the header and one shared number; each padded to four. */
#define XATTR_SHARED_COUNT (BEHIND(MADE_XATTRS) + 4)
#define XATTR_SHARED_ID (BEHIND(MADE_XATTRS) + 12)
#define XATTR_ONE (BEHIND(MADE_XATTRS) + 16)
#define XATTR_OPAQUE (XATTR_ONE + 12)
#define XATTR_ACL (XATTR_OPAQUE + 20)

static const struct {
	const char *what;
	size_t at, len;
	uint64_t value;
	int code;
	const char *part; /* of the message */
	bool keep_sum;
} changes[] = {
	/* superblock */
	{"magic", SUPER(magic), 0xe0f5e1e3, CPULL_ERR_STORAGE, "magic"},
	{"checksum", SUPER(checksum), 1, CPULL_ERR_STORAGE, "checksum", true},
	{"what is summed", 4000, 1, 1, CPULL_ERR_STORAGE, "checksum", true},
	{"no checksum, so none is checked", SUPER(feature_compat), EROFS_COMPAT_MTIME, 0, "", true},
	{"unknown compatible features", SUPER(feature_compat), 0xffffff03, 0, ""},
	{"block size 512", SUPER(block_bits), 9, CPULL_ERR_UNSUPPORTED, "2^9 bytes"},
	{"block size 2^255", SUPER(block_bits), 255, CPULL_ERR_UNSUPPORTED, "2^255"},
	{"directory blocks", SUPER(dir_block_bits), 1, CPULL_ERR_UNSUPPORTED, "directories"},
	{"compression feature", SUPER(feature_incompat), 1, CPULL_ERR_UNSUPPORTED, "compressed"},
	{"long prefixes", SUPER(feature_incompat), 0x40, CPULL_ERR_UNSUPPORTED, "0x40"},
	{"device table", SUPER(feature_incompat), 0xc, 0, ""},
	{"compression algorithm", SUPER(compression), 2, CPULL_ERR_UNSUPPORTED, "compressed"},
	{"no blocks", SUPER(blocks), 0, CPULL_ERR_STORAGE, "cut short"},
	{"more blocks than the file", SUPER(blocks), MADE_BLOCKS + 1, CPULL_ERR_STORAGE, "cut short"},
	{"most blocks", SUPER(blocks), UINT32_MAX, CPULL_ERR_STORAGE, "cut short"},
	{"metadata at the end", SUPER(meta_block), MADE_BLOCKS, CPULL_ERR_STORAGE, "inodes"},
	{"metadata far out", SUPER(meta_block), UINT32_MAX, CPULL_ERR_STORAGE, "inodes"},
	{"metadata elsewhere", SUPER(meta_block), 1, CPULL_ERR_UNSUPPORTED, "inode 36"},
	{"shared attributes far out", SUPER(xattr_block), UINT32_MAX, CPULL_ERR_STORAGE, "attributes"},
	{"root is nothing", SUPER(root_nid), 300, CPULL_ERR_STORAGE, "type"},
	{"root is a file", SUPER(root_nid), MADE_PLAIN, CPULL_ERR_STORAGE, "no directory"},
	{"root is cut off by the end", SUPER(root_nid), MADE_CUT, CPULL_ERR_STORAGE, "inside"},
	{"root behind the image", SUPER(root_nid), MADE_NIDS, CPULL_ERR_STORAGE, "inside"},
	{"root far out", SUPER(root_nid), 0xffff, CPULL_ERR_STORAGE, "inside"},
	{"nanoseconds of compact inodes", SUPER(epoch_nsec), 1000000000, CPULL_ERR_STORAGE, "nanoseconds"},
	/* inodes */
	{"compressed layout", INODE(MADE_PLAIN, format), 1 | 1 << 1, CPULL_ERR_UNSUPPORTED, "compressed"},
	{"compact compressed layout", INODE(MADE_PLAIN, format), 1 | 3 << 1, CPULL_ERR_UNSUPPORTED, "compressed"},
	{"layout 5", INODE(MADE_PLAIN, format), 1 | 5 << 1, CPULL_ERR_UNSUPPORTED, "layout"},
	{"format bits", INODE(MADE_PLAIN, format), 1 | 1 << 4, CPULL_ERR_UNSUPPORTED, "format"},
	{"no type", INODE(MADE_PLAIN, mode), 0644, CPULL_ERR_STORAGE, "type"},
	{"another type", INODE(MADE_PLAIN, mode), S_IFIFO | 0644, CPULL_ERR_STORAGE, "another type"},
	{"block behind the end", INODE(MADE_PLAIN, data), MADE_BLOCKS - 2, CPULL_ERR_STORAGE, "its data"},
	{"block far out", INODE(MADE_PLAIN, data), UINT32_MAX, CPULL_ERR_STORAGE, "its data"},
	{"size behind the end", INODE(MADE_PLAIN, size), (MADE_BLOCKS - 1) * 4096 + 1, CPULL_ERR_STORAGE, "its data"},
	{"negative size", INODE(MADE_PLAIN, size), 1ull << 63, CPULL_ERR_STORAGE, "negative"},
	{"largest size", INODE(MADE_PLAIN, size), INT64_MAX, CPULL_ERR_LIMIT, "at most"},
	{"one byte over the limit", INODE(MADE_PLAIN, size), LIMIT_FILE_BYTES + 1, CPULL_ERR_LIMIT, "at most"},
	{"tail crosses its block", INODE(MADE_INLINE, size), 4095, CPULL_ERR_STORAGE, "last bytes"},
	{"full last block is no tail", INODE(MADE_INLINE, size), 8192, CPULL_ERR_STORAGE, "last bytes"},
	{"inline data far out", INODE(MADE_INLINE, data), UINT32_MAX, CPULL_ERR_STORAGE, "its data"},
	{"inline data ignored", INODE(MADE_LINK, data), UINT32_MAX, 0, ""},
	{"nanoseconds", INODE(MADE_PLAIN, mtime_nsec), 1000000000, CPULL_ERR_STORAGE, "nanoseconds"},
	{"negative nanoseconds", INODE(MADE_PLAIN, mtime_nsec), UINT32_MAX, CPULL_ERR_STORAGE, "nanoseconds"},
	{"time before 1970", INODE(MADE_PLAIN, mtime), (uint64_t)-1, 0, ""},
	{"no links", INODE(MADE_PLAIN, nlink), 0, 0, ""},
	{"a device with a size", INODE(MADE_CHAR, size), 1ull << 62, 0, ""},
	{"empty target", INODE(MADE_LINK, size), 0, CPULL_ERR_STORAGE, "target"},
	{"target of 4096", INODE(MADE_LINK, size), 4096, CPULL_ERR_STORAGE, ""},
	{"NUL in a target", BEHIND(MADE_LINK) + 2, 1, 0, CPULL_ERR_STORAGE, "NUL"},
	/* chunks */
	{"chunk format", INODE(MADE_CHUNKS, data), 0x40, CPULL_ERR_UNSUPPORTED, "chunks"},
	{"chunk format's high half", INODE(MADE_CHUNKS, data), 0x10000, CPULL_ERR_UNSUPPORTED, "chunks"},
	{"largest chunks", INODE(MADE_CHUNKS, data), 31, 0, ""}, /* one, of which blocks 5 to 10 are there */
	{"map behind the end", INODE(MADE_CHUNKS, size), LIMIT_FILE_BYTES, CPULL_ERR_STORAGE, "map"},
	{"chunk behind the end", BEHIND(MADE_CHUNKS), 4, MADE_BLOCKS, CPULL_ERR_STORAGE, "a chunk"},
	{"last hole but one", BEHIND(MADE_CHUNKS), 4, UINT32_MAX - 1, CPULL_ERR_STORAGE, "a chunk"},
	{"index behind the end", BEHIND(MADE_INDEXES) + 4, 4, MADE_BLOCKS - 1, CPULL_ERR_STORAGE, "a chunk"},
	{"another device", BEHIND(MADE_INDEXES) + 2, 2, 1, CPULL_ERR_UNSUPPORTED, "another device"},
	{"48-bit blocks", BEHIND(MADE_INDEXES), 2, 1, CPULL_ERR_UNSUPPORTED, "32 bits"},
	{"directory of chunks", INODE(MADE_DIR, format), EROFS_FORMAT(EROFS_CHUNK_BASED), CPULL_ERR_UNSUPPORTED,
	 "chunks"},
	/* directories */
	{"no names", DIRENT(MADE_DIR, 0, name_offset), 0, CPULL_ERR_STORAGE, "number of entries"},
	{"half an entry", DIRENT(MADE_DIR, 0, name_offset), 38, CPULL_ERR_STORAGE, "number of entries"},
	{"more entries than bytes", DIRENT(MADE_DIR, 0, name_offset), 48, CPULL_ERR_STORAGE, "number of entries"},
	{"entries far out", DIRENT(MADE_DIR, 0, name_offset), 65532, CPULL_ERR_STORAGE, "number of entries"},
	{"name offsets go back", DIRENT(MADE_DIR, 1, name_offset), 36, CPULL_ERR_STORAGE, "names"},
	{"name offset in the entries", DIRENT(MADE_DIR, 2, name_offset), 12, CPULL_ERR_STORAGE, "names"},
	{"name offset behind the block", DIRENT(MADE_DIR, 2, name_offset), 5000, CPULL_ERR_STORAGE, "names"},
	{"NUL in a name", BEHIND(MADE_DIR) + 36 + 1, 1, 0, CPULL_ERR_STORAGE, "NUL"},
	{"slash in a name", BEHIND(MADE_DIR) + 36 + 4, 1, '/', CPULL_ERR_STORAGE, "slash"},
	{"names out of order", BEHIND(MADE_DIR) + 36 + 3, 1, '!', CPULL_ERR_STORAGE, "order"},
	{"type of a name", DIRENT(MADE_DIR, 2, type), EROFS_SYMLINK, CPULL_ERR_STORAGE, "another type"},
	{"no type of a name", DIRENT(MADE_DIR, 2, type), 0, CPULL_ERR_STORAGE, "no type"},
	{"type 8 of a name", DIRENT(MADE_DIR, 2, type), 8, CPULL_ERR_STORAGE, "no type"},
	{"inode far out", DIRENT(MADE_DIR, 2, nid), UINT64_MAX, CPULL_ERR_STORAGE, "inside"},
	{"inode whose address wraps", DIRENT(MADE_DIR, 2, nid), 1ull << 59, CPULL_ERR_STORAGE, "inside"},
	{"directory's size is in an entry", INODE(MADE_DIR, size), 11, CPULL_ERR_STORAGE, "number of entries"},
	{"directory's size has no names", INODE(MADE_DIR, size), 36, CPULL_ERR_STORAGE, "number of entries"},
	{"empty directory", INODE(MADE_DIR, size), 0, 0, ""},
	/* attributes */
	{"attributes behind the end", INODE(MADE_XATTRS, xattr_icount), 0xffff, CPULL_ERR_STORAGE, "attributes"},
	{"attributes cut", INODE(MADE_XATTRS, xattr_icount), 6, CPULL_ERR_STORAGE, "longer than"},
	{"attributes without any", INODE(MADE_XATTRS, xattr_icount), 1, CPULL_ERR_STORAGE, "shared"},
	{"only a header", INODE(MADE_PLAIN, xattr_icount), 1, 0, ""},
	{"more shared than room", XATTR_SHARED_COUNT, 1, 255, CPULL_ERR_STORAGE, "shared"},
	{"shared far out", XATTR_SHARED_ID, 4, UINT32_MAX, CPULL_ERR_STORAGE, "attributes"},
	{"shared at the end", XATTR_SHARED_ID, 4, (MADE_BLOCKS - MADE_SHARED_BLOCK) * 1024, CPULL_ERR_STORAGE, ""},
	{"unknown prefix", XATTR_ONE + 1, 1, 0x81, CPULL_ERR_UNSUPPORTED, "prefix"},
	{"name too long", XATTR_ONE, 1, 255, CPULL_ERR_STORAGE, "longer than"},
	{"name missing", XATTR_ONE, 1, 0, CPULL_ERR_STORAGE, "incomplete"},
	{"name where there is none", XATTR_ACL, 1, 1, CPULL_ERR_STORAGE, "incomplete"},
	{"NUL in an attribute's name", XATTR_ONE + 4, 1, 0, CPULL_ERR_STORAGE, "NUL"},
	{"value too long", XATTR_ONE + 2, 2, 0xffff, CPULL_ERR_STORAGE, "longer than"},
};

static void check_change(size_t i, const struct made *base)
{
	struct made m = *base;
	CLEANUP_BYTES struct bytes text = {0};
	struct cpull_error err = {0};
	uint64_t value = htole64(changes[i].value);

	m.data = malloc(m.bytes);
	assert_non_null(m.data);
	memcpy(m.data, base->data, m.bytes);
	memcpy(m.data + changes[i].at, &value, changes[i].len);
	if (!changes[i].keep_sum)
		made_seal(&m);

	CLEANUP_FD int fd = made_fd(&m);
	int rc = describe_image(fd, &text, &err);

	if (rc != changes[i].code || (rc && (!*err.message || !strstr(err.message, changes[i].part))))
		fail_msg("%s: %d \"%s\", not %d \"…%s…\"", changes[i].what, rc, rc ? err.message : "",
			 changes[i].code, changes[i].part);
	free(m.data);
}

static void test_changed(void **state)
{
	(void)state;
	CLEANUP_MADE struct made m = made_image();

	for (size_t i = 0; i < ARRAY_LEN(changes); i++)
		check_change(i, &m);
}

/* A directory that names its parent is fine here: the walk in this file is what would have to stop. */
static void test_cycle_is_the_callers(void **state)
{
	(void)state;
	CLEANUP_MADE struct made m = made_image();
	struct erofs_dirent *file = (struct erofs_dirent *)(m.data + BEHIND(MADE_DIR)) + 2;
	CLEANUP_FD int fd = -1;
	struct erofs_node n;

	file->nid = htole64(MADE_DIR);
	file->type = EROFS_DIRECTORY;

	struct erofs_reader *r = made_open(&m, &fd);

	made_find(r, "dir/file/file/file", &n);
	assert_int_equal(n.nid, MADE_DIR);
	erofs_reader_close(r);
}

/* Whatever is cut off, and whatever byte is another: an answer or an error, and a sanitizer that is content. */
static void test_cut_and_flipped(void **state)
{
	(void)state;
	CLEANUP_MADE struct made m = made_image();

	for (size_t bytes = 0; bytes <= m.bytes; bytes += 1000) {
		CLEANUP_BYTES struct bytes text = {0};
		struct made cut = {bytes, m.data};
		CLEANUP_FD int fd = made_fd(&cut);
		struct cpull_error err = {0};

		assert_int_equal(describe_image(fd, &text, &err), CPULL_ERR_STORAGE);
		assert_true(*err.message);
	}
	for (size_t at = BEHIND(MADE_ROOT) - sizeof(struct erofs_inode); at < BEHIND(MADE_XATTRS) + 80; at++) {
		CLEANUP_BYTES struct bytes text = {0};

		if (at == BEHIND(MADE_ROOT) + 256) /* nothing between the root's names and the files */
			at = META + MADE_PLAIN * EROFS_SLOT_BYTES;
		m.data[at] ^= 0xff;

		CLEANUP_FD int fd = made_fd(&m);
		int rc = describe_image(fd, &text, NULL);

		assert_true(rc == 0 || rc == CPULL_ERR_STORAGE || rc == CPULL_ERR_UNSUPPORTED || rc == CPULL_ERR_LIMIT);
		m.data[at] ^= 0xff;
	}
}

/* The image gets shorter under the reader. */
static void test_cut_while_read(void **state)
{
	(void)state;
	CLEANUP_MADE struct made m = made_image();
	CLEANUP_FD int fd = -1;
	struct erofs_reader *r = made_open(&m, &fd);
	struct cpull_error err = {0};
	struct erofs_node n;
	char buffer[EROFS_BLOCK_BYTES];
	size_t got;

	made_find(r, "+plain", &n);
	assert_int_equal(ftruncate(fd, 2 * EROFS_BLOCK_BYTES + 1), 0);
	assert_int_equal(erofs_reader_read(r, &n, buffer, sizeof(buffer), 0, &got, &err), 0);
	assert_int_equal(erofs_reader_read(r, &n, buffer, sizeof(buffer), 4096, &got, &err), CPULL_ERR_STORAGE);
	assert_non_null(strstr(err.message, "ends at byte 8193"));
	assert_int_equal(erofs_reader_node(r, MADE_NIDS - 2, &n, &err), CPULL_ERR_STORAGE);
	assert_non_null(strstr(err.message, "ends at byte"));
	erofs_reader_close(r);
}

static void test_what_is_no_image(void **state)
{
	(void)state;
	CLEANUP_FD int dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct cpull_error err = {0};
	struct erofs_reader *r;

	assert_int_equal(erofs_reader_open(dir, &r, &err), CPULL_ERR_STORAGE);
	assert_non_null(strstr(err.message, "neither a file nor a block device"));
	assert_null(r);
	assert_int_equal(erofs_reader_open(-1, &r, &err), CPULL_ERR_STORAGE);
}

static void test_wrong_kind_of_node(void **state)
{
	(void)state;
	CLEANUP_MADE struct made m = made_image();
	CLEANUP_FD int fd = -1;
	struct erofs_reader *r = made_open(&m, &fd);
	struct erofs_listing l;
	struct erofs_node n;
	char target[LIMIT_PATH_BYTES];

	made_find(r, "+plain", &n);
	assert_int_equal(erofs_reader_link(r, &n, target, NULL), CPULL_ERR_USAGE);
	erofs_reader_list(&n, &l);
	assert_int_equal(erofs_reader_next(r, &l, NULL), CPULL_ERR_USAGE);
	erofs_reader_close(r);
}

/* ---- big directories ---- */

#define DIR_FIRST_BLOCK MADE_BLOCKS

/* Names of many lengths in order: a number, and for every 50th one 255 bytes of it. */
static void number_name(char *out, size_t i)
{
	size_t len = (size_t)sprintf(out, "n%07zu", i);

	if (i % 50 == 7)
		while (len < LIMIT_NAME_BYTES)
			out[len++] = (char)('a' + i % 26);
	else
		for (size_t k = 0; k < i % 23; k++)
			out[len++] = 'x';
	out[len] = 0;
}

static struct made big_directory(size_t count)
{
	struct made_name *names = calloc(count + 2, sizeof(*names));
	char(*text)[LIMIT_NAME_BYTES + 1] = calloc(count, sizeof(*text));
	struct made m = made_new(DIR_FIRST_BLOCK + 2 + count * 300 / EROFS_BLOCK_BYTES);

	assert_true(names && text);
	names[0] = (struct made_name){".", 1, MADE_ROOT, EROFS_DIRECTORY};
	names[1] = (struct made_name){"..", 2, MADE_ROOT, EROFS_DIRECTORY};
	for (size_t i = 0; i < count; i++) {
		number_name(text[i], i);
		names[i + 2] = (struct made_name){text[i], strlen(text[i]), MADE_FILE, EROFS_REGULAR};
	}
	made_files(&m);
	made_inode(&m, MADE_ROOT, EROFS_FORMAT(EROFS_FLAT_PLAIN), S_IFDIR | 0755,
		   made_names(m.data + (size_t)DIR_FIRST_BLOCK * EROFS_BLOCK_BYTES, names, count + 2), DIR_FIRST_BLOCK);
	made_seal(&m);
	free(names);
	free(text);
	return m;
}

static void check_big_directory(size_t count)
{
	CLEANUP_MADE struct made m = big_directory(count);
	CLEANUP_FD int fd = -1;
	struct erofs_reader *r = made_open(&m, &fd);
	const struct erofs_node *root = erofs_reader_root(r);
	char name[LIMIT_NAME_BYTES + 2];
	struct erofs_listing l;
	struct erofs_node n;

	erofs_reader_list(root, &l);
	for (size_t i = 0; i < count; i++) {
		number_name(name, i);

		size_t len = strlen(name);

		assert_int_equal(erofs_reader_next(r, &l, NULL), 1);
		assert_string_equal(l.name, name);
		assert_int_equal(erofs_reader_lookup(r, root, name, len, &n, NULL), 1);
		assert_int_equal(n.nid, MADE_FILE);
		/* its neighbours on both sides */
		assert_int_equal(erofs_reader_lookup(r, root, name, len - 1, &n, NULL), 0);
		name[len] = 'x';
		assert_int_equal(erofs_reader_lookup(r, root, name, len + 1, &n, NULL), 0);
	}
	assert_int_equal(erofs_reader_next(r, &l, NULL), 0);
	assert_int_equal(erofs_reader_lookup(r, root, "..", 2, &n, NULL), 1);
	assert_int_equal(erofs_reader_lookup(r, root, "!", 1, &n, NULL), 0);
	assert_int_equal(erofs_reader_lookup(r, root, "\xff", 1, &n, NULL), 0);
	erofs_reader_close(r);
}

static void test_big_directories(void **state)
{
	static const size_t counts[] = {0, 1, 2, 170, 1000, 20000};
	(void)state;

	for (size_t i = 0; i < ARRAY_LEN(counts); i++)
		check_big_directory(counts[i]);
}

static void test_name_of_256(void **state)
{
	(void)state;
	CLEANUP_MADE struct made m = made_image();
	CLEANUP_BYTES struct bytes text = {0};
	char longest[LIMIT_NAME_BYTES + 1];
	struct made_name name = {longest, sizeof(longest), MADE_FILE, EROFS_REGULAR};
	uint8_t *at = made_inode(&m, MADE_DIR, EROFS_FORMAT(EROFS_FLAT_PLAIN), S_IFDIR | 0755, 12 + sizeof(longest), 1);
	struct cpull_error err = {0};

	assert_non_null(at);
	memset(longest, 'n', sizeof(longest));
	made_names(m.data + EROFS_BLOCK_BYTES, &name, 1);

	CLEANUP_FD int fd = made_fd(&m);

	assert_int_equal(describe_image(fd, &text, &err), CPULL_ERR_STORAGE);
	assert_non_null(strstr(err.message, "1 to 255 bytes"));
}

/* Blocks that are out of order among each other. */
static void test_blocks_out_of_order(void **state)
{
	(void)state;
	CLEANUP_MADE struct made m = big_directory(1000);
	CLEANUP_FREE uint8_t *block = malloc(EROFS_BLOCK_BYTES);
	CLEANUP_BYTES struct bytes text = {0};
	uint8_t *at = m.data + (size_t)(DIR_FIRST_BLOCK + 1) * EROFS_BLOCK_BYTES;
	struct cpull_error err = {0};

	assert_non_null(block);
	memcpy(block, at, EROFS_BLOCK_BYTES);
	memcpy(at, at + EROFS_BLOCK_BYTES, EROFS_BLOCK_BYTES);
	memcpy(at + EROFS_BLOCK_BYTES, block, EROFS_BLOCK_BYTES);

	CLEANUP_FD int fd = made_fd(&m);

	assert_int_equal(describe_image(fd, &text, &err), CPULL_ERR_STORAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_attributes),
		cmocka_unit_test(test_paths_that_are_not_there),
		cmocka_unit_test(test_data),
		cmocka_unit_test(test_xattrs),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_cycle_is_the_callers),
		cmocka_unit_test(test_cut_and_flipped),
		cmocka_unit_test(test_cut_while_read),
		cmocka_unit_test(test_what_is_no_image),
		cmocka_unit_test(test_wrong_kind_of_node),
		cmocka_unit_test(test_big_directories),
		cmocka_unit_test(test_name_of_256),
		cmocka_unit_test(test_blocks_out_of_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
