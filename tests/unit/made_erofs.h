/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests that make EROFS images: files in an image's root and what they are to be, and the judges of what came of
 * it: fsck.erofs, where there is one, and as root the kernel, by a loop device and a comparison with what went in.
 */
#ifndef TESTS_MADE_EROFS_H
#define TESTS_MADE_EROFS_H

#include "layer_fixture.h"

#include <linux/loop.h>
#include <sys/ioctl.h>

#include "engine/base/fs.h"
#include "snapshot/erofs_image.h"
#include "snapshot/erofs_spool.h"

#define BLOCK 4096u
#define IMAGE "image"
#define ROOT_MODE (S_IFDIR | 0755)

static char base[] = "/tmp/erofs-XXXXXX";
static bool can_mount, can_check;

/* ---- making one ---- */

struct range {
	uint64_t from, to;
};

/* What was put into the image under a name of the root. */
struct made {
	char name[256];
	struct erofs_attributes attributes;
	uint64_t size, seed;
	uint32_t major, minor, links;
	const char *target;
	const struct range *data; /* of a sparse file, ended by an empty one */
};

struct maker {
	struct erofs_image *image;
	struct erofs_image_options options;
	struct erofs_image_result result;
	struct log log;
	unsigned warnings;
	struct erofs_attributes root;
	struct made *made;
	struct erofs_entry *entries;
	size_t count;
	size_t cut; /* data comes in pieces of so many bytes */
	uint64_t next_block;
	uint64_t sum; /* of all blocks as they were told */
	bool mounted;
	int loop;
};

__attribute__((unused)) static uint8_t byte_at(uint64_t offset)
{
	return (uint8_t)(offset * 2654435761u >> 11 ^ offset >> 3) | 1;
}

__attribute__((unused)) static uint64_t add_to_sum(uint64_t sum, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t word;

		memcpy(&word, data + i, 8);
		sum = (sum ^ word) * 0x100000001b3u;
	}
	return sum;
}

/* Blocks are told in order, the first one last, and until it is there the file is no image. */
__attribute__((unused)) static int note_blocks(void *payload, uint64_t block, const void *data,
					       size_t blocks, struct cpull_error *err)
{
	struct maker *m = payload;

	(void)err;
	if (block) {
		assert_int_equal(block, m->next_block);
		m->next_block += blocks;
	} else {
		char magic[4] = {0};

		assert_int_equal(blocks, 1);
		assert_true(pread(m->options.fd, magic, 4, 1024) == 4 || m->next_block == 1);
		assert_memory_equal(magic, "\0\0\0\0", 4);
	}
	m->sum = add_to_sum(m->sum, data, blocks * BLOCK);
	return 0;
}

__attribute__((unused)) static void begin_with(struct maker *m, struct erofs_image_options options)
{
	*m = (struct maker){.root = {.mode = ROOT_MODE, .mtime.tv_sec = MTIME}, .options = options, .cut = 65536 - 512,
			    .next_block = 1, .loop = -1};
	unlink(IMAGE);
	m->options.fd = open(IMAGE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	m->options.spool_dirfd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(m->options.fd >= 0 && m->options.spool_dirfd >= 0);
	memset(m->options.uuid, 0x5a, sizeof(m->options.uuid));
	log_init(&m->log, count_warning, &m->warnings, CPULL_LOG_DEBUG);
	m->options.log = &m->log;
	m->options.written = note_blocks;
	m->options.payload = m;

	struct cpull_error err;

	if (erofs_image_new(&m->options, &m->image, &err))
		fail_msg("%s", err.message);
}

__attribute__((unused)) static void begin(struct maker *m)
{
	begin_with(m, (struct erofs_image_options){0});
}

__attribute__((unused)) static struct made *add(struct maker *m, const char *name, uint32_t mode)
{
	if (m->count % 1024 == 0) {
		m->made = realloc(m->made, (m->count + 1024) * sizeof(*m->made));
		m->entries = realloc(m->entries, (m->count + 1024) * sizeof(*m->entries));
		assert_true(m->made && m->entries);
	}

	struct made *made = &m->made[m->count];

	*made = (struct made){.attributes = {.mode = mode, .uid = 70000, .gid = 4000000000u,
					     .mtime = {.tv_sec = MTIME, .tv_nsec = 123456789}},
			      .links = 1};
	snprintf(made->name, sizeof(made->name), "%s", name);
	m->entries[m->count] = (struct erofs_entry){.len = strlen(name), .type = (enum erofs_type)erofs_type_of(mode)};
	m->count++;
	return made;
}

__attribute__((unused)) static uint64_t *nid_of(struct maker *m, const struct made *made)
{
	return &m->entries[made - m->made].nid;
}

__attribute__((unused)) static int feed_range(struct maker *m, const struct made *made, struct range range,
					      struct cpull_error *err)
{
	static uint8_t piece[1u << 20];
	int rc = 0;

	while (!rc && range.from < range.to) {
		const struct tar_data data = {.data = piece, .len = MIN(m->cut, range.to - range.from),
					      .offset = range.from};

		for (size_t i = 0; i < data.len; i++)
			piece[i] = byte_at(made->seed + range.from + i);
		rc = erofs_image_file_data(m->image, &data, err);
		memset(piece, 0xee, data.len); /* it may be something else at once */
		range.from += data.len;
	}
	return rc;
}

/* made is what add() gave, filled in. */
__attribute__((unused)) static int put_file(struct maker *m, struct made *made, struct cpull_error *err)
{
	const struct range all[] = {{0, made->size}, {0, 0}};
	int rc = erofs_image_file_begin(m->image, &made->attributes, made->size, made->data, err);

	for (const struct range *r = made->data ? made->data : all; !rc && r->to; r++)
		rc = feed_range(m, made, *r, err);
	return rc ? rc : erofs_image_file_end(m->image, nid_of(m, made), err);
}

__attribute__((unused)) static struct made *add_file(struct maker *m, const char *name, uint64_t size)
{
	struct made *made = add(m, name, S_IFREG | 0644);

	made->size = size;
	made->seed = m->count * 7919;
	OK(put_file(m, made, err));
	return made;
}

__attribute__((unused)) static struct made *add_symlink(struct maker *m, const char *name, const char *target)
{
	struct made *made = add(m, name, S_IFLNK | 0777);

	made->target = target;
	made->size = strlen(target);
	OK(erofs_image_symlink(m->image, &made->attributes, target, nid_of(m, made), err));
	return made;
}

__attribute__((unused)) static struct made *add_node(struct maker *m, const char *name, uint32_t mode,
						     uint32_t major, uint32_t minor)
{
	struct made *made = add(m, name, mode);

	made->major = major;
	made->minor = minor;
	OK(erofs_image_node(m->image, &made->attributes, major, minor, nid_of(m, made), err));
	return made;
}

__attribute__((unused)) static int by_name(const void *a, const void *b)
{
	const struct erofs_entry *x = a, *y = b;

	return erofs_name_compare(x->name, x->len, y->name, y->len);
}

/* ---- judging it ---- */

__attribute__((unused)) static int loop_for(const char *path)
{
	CLEANUP_FD int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	char name[32];

	for (int i = 0; control >= 0 && fd >= 0 && i < 16; i++) {
		const struct loop_config config = {.fd = (unsigned)fd,
						   .info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR};
		int number = ioctl(control, LOOP_CTL_GET_FREE), loop;

		snprintf(name, sizeof(name), "/dev/loop%d", number);
		loop = number < 0 ? -1 : open(name, O_RDONLY | O_CLOEXEC);
		if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &config) == 0)
			return loop;
		if (loop >= 0)
			close(loop);
		if (loop < 0 || errno != EBUSY)
			return -1;
	}
	return -1;
}

__attribute__((unused)) static bool mount_image(struct maker *m)
{
	char source[64], device[64];
	ssize_t n;

	m->loop = loop_for(IMAGE);
	if (m->loop < 0)
		return false;
	snprintf(source, sizeof(source), "/proc/self/fd/%d", m->loop);
	n = readlink(source, device, sizeof(device) - 1);
	assert_true(n > 0);
	device[n] = 0;
	assert_true(mkdir("mnt", 0700) == 0 || errno == EEXIST);
	if (mount(device, "mnt", "erofs", MS_RDONLY, NULL) == 0)
		return true;
	close(steal_fd(&m->loop));
	return false;
}

__attribute__((unused)) static void run_fsck(void)
{
	if (!can_check)
		return;
	if (system("fsck.erofs " IMAGE " >fsck.log 2>&1") != 0) {
		assert_int_equal(system("cat fsck.log >&2"), 0);
		fail_msg("fsck.erofs does not like the image");
	}
}

__attribute__((unused)) static uint8_t want_byte(const struct made *made, uint64_t at)
{
	if (!made->data)
		return byte_at(made->seed + at);
	for (const struct range *r = made->data; r->to; r++)
		if (at >= r->from && at < r->to)
			return byte_at(made->seed + at);
	return 0;
}

__attribute__((unused)) static void check_bytes(const struct made *made, int fd, struct range range)
{
	static uint8_t got[1u << 16];

	while (range.from < range.to) {
		ssize_t n = pread(fd, got, MIN(sizeof(got), range.to - range.from), (off_t)range.from);

		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++)
			if (got[i] != want_byte(made, range.from + (uint64_t)i))
				fail_msg("%s: byte %llu differs", made->name,
					 (unsigned long long)range.from + (unsigned long long)i);
		range.from += (uint64_t)n;
	}
}

__attribute__((unused)) static void check_content(const struct made *made)
{
	CLEANUP_FD int fd = open(made->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	assert_true(fd >= 0);
	if (made->size < 64u << 20) {
		check_bytes(made, fd, (struct range){0, made->size});
		return;
	}
	/* around what is there, and the end */
	for (const struct range *r = made->data; r->to; r++)
		check_bytes(made, fd, (struct range){r->from - MIN(r->from, 70000), MIN(r->to + 70000, made->size)});
	check_bytes(made, fd, (struct range){made->size - 70000, made->size});
}

__attribute__((unused)) static void check_made(const struct made *made)
{
	struct stat st;

	assert_int_equal(lstat(made->name, &st), 0);
	assert_int_equal(st.st_mode, made->attributes.mode);
	assert_int_equal(st.st_uid, made->attributes.uid);
	assert_int_equal(st.st_gid, made->attributes.gid);
	assert_int_equal(st.st_mtim.tv_sec, made->attributes.mtime.tv_sec);
	assert_int_equal(st.st_mtim.tv_nsec, made->attributes.mtime.tv_nsec);
	assert_int_equal(st.st_nlink, made->links);
	assert_true(st.st_ino > 0); /* or C libraries hide it */
	if (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode))
		assert_int_equal(st.st_size, made->size);
	if (S_ISREG(st.st_mode))
		check_content(made);
	if (S_ISLNK(st.st_mode))
		assert_true(links_to(made->name, made->target));
	if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
		assert_int_equal(st.st_rdev, makedev(made->major, made->minor));
}

__attribute__((unused)) static void check_file_sum(const struct maker *m)
{
	CLEANUP_FD int fd = open(IMAGE, O_RDONLY | O_CLOEXEC);
	uint64_t size = (uint64_t)stat_of(IMAGE).st_size, sum = 0;
	uint8_t block[BLOCK];

	assert_int_equal(size, m->result.blocks * BLOCK);
	assert_int_equal(m->next_block, m->result.blocks);
	for (uint64_t at = BLOCK; at < size; at += BLOCK) {
		assert_int_equal(pread(fd, block, BLOCK, (off_t)at), BLOCK);
		sum = add_to_sum(sum, block, BLOCK);
	}
	assert_int_equal(pread(fd, block, BLOCK, 0), BLOCK);
	assert_int_equal(add_to_sum(sum, block, BLOCK), m->sum);
}

/* Ends the image, whose root's other entries `m` has, and leaves it mounted at "mnt" with the working directory there
 * if that can be. */
__attribute__((unused)) static void end_root(struct maker *m, uint64_t root)
{
	OK(erofs_image_finish(m->image, root, &m->result, err));
	erofs_image_free(m->image);
	m->image = NULL;
	check_file_sum(m);
	run_fsck();
	m->mounted = can_mount && mount_image(m);
	if (can_mount)
		assert_true(m->mounted);
	if (m->mounted)
		assert_int_equal(chdir("mnt"), 0);
	for (const struct made *made = m->made; m->mounted && made < m->made + m->count; made++)
		if (!S_ISDIR(made->attributes.mode))
			check_made(made);
}

__attribute__((unused)) static struct erofs_directory root_of(struct maker *m)
{
	struct erofs_entry *sorted = m->entries;

	for (size_t i = 0; i < m->count; i++)
		sorted[i].name = m->made[i].name;
	if (m->count)
		qsort(sorted, m->count, sizeof(*sorted), by_name);
	return (struct erofs_directory){.attributes = m->root, .entries = sorted, .count = m->count, .root = true};
}

__attribute__((unused)) static void end(struct maker *m)
{
	struct erofs_directory root = root_of(m);
	uint64_t nid;

	OK(erofs_image_dir_place(m->image, &root, &nid, err));
	OK(erofs_image_dir_write(m->image, nid, &root, err));
	end_root(m, nid);
}

__attribute__((unused)) static void done(struct maker *m)
{
	erofs_image_free(m->image);
	if (m->mounted) {
		assert_int_equal(chdir(".."), 0);
		assert_int_equal(umount2("mnt", MNT_DETACH), 0);
	}
	if (m->loop >= 0)
		close(m->loop);
	close(m->options.fd);
	close(m->options.spool_dirfd);
	log_destroy(&m->log);
	free(m->made);
	free(m->entries);
}

/* ---- running ---- */

__attribute__((unused)) static bool runs(const char *command)
{
	return system(command) == 0;
}

/* Whatever the test before has left. */
__attribute__((unused)) static int clean(void **state)
{
	(void)state;
	if (chdir(base))
		return -1;
	umount2("mnt", MNT_DETACH);
	umount2("tiny", MNT_DETACH);
	return 0;
}

#define TEST(f) cmocka_unit_test_setup(f, clean)

__attribute__((unused)) static bool kernel_mounts(void)
{
	struct maker m;
	bool mounts;

	begin(&m);
	end(&m);
	mounts = mount_image(&m);
	m.mounted = mounts;
	if (mounts)
		assert_int_equal(chdir("mnt"), 0);
	done(&m);
	return mounts;
}

/* The tests in a place of their own: as root on tmpfs and on ext4, else in a directory. Without the one that
 * COCO_PULL_SKIP_TEST names. */
__attribute__((unused)) static int run_all(int (*run)(const char *name))
{
	bool root = own_namespace();
	const char *left_out = getenv("COCO_PULL_SKIP_TEST");
	int failed;

	if (left_out)
		cmocka_set_skip_filter(left_out);

	can_check = runs("fsck.erofs -V >/dev/null 2>&1") || runs("fsck.erofs -h >/dev/null 2>&1");
	if (!can_check)
		print_message("skipped: fsck.erofs, which is not here\n");
	if (root ? !begin_at(base) : !mkdtemp(base) || chdir(base))
		return 1;
	can_mount = root && kernel_mounts();
	if (!can_mount)
		print_message("skipped: mounting, which takes root, a loop device and EROFS in the kernel\n");
	failed = run("tmpfs");
	if (can_mount && fresh_ext4(base))
		failed += run("ext4");
	if (root)
		end_at(base);
	else if (chdir("/") == 0)
		failed += fs_remove_tree(AT_FDCWD, base, NULL) != 0;
	return failed ? 1 : 0;
}

#endif
