/* SPDX-License-Identifier: Apache-2.0
 *
 * Mounting an EROFS image, on the embedder's thread; owns only descriptors for the time of the call.
 *
 * Kernel facts (6.18, and by its sources since 6.12): a regular file can be the source of an EROFS mount if its file
 * system reads pages by read_folio(), which tmpfs and overlayfs do not; then, and before 6.12, the answer is ENOTBLK.
 * The option "directio" is not known before 6.12. It is no option of a mount by loop device, whose direct I/O is the
 * device's. fsconfig() takes 255 bytes of text, mount(2) a path of any length. EROFS is not for user namespaces.
 */
#include "snapshot/erofs_mount.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "snapshot/erofs_format.h"
#include "snapshot/kernel_text.h"
#include "snapshot/loop_device.h"

/* Longest value of fsconfig(FSCONFIG_SET_STRING). */
#define FSCONFIG_TEXT_BYTES 255u
#define TRIED_BYTES (CPULL_MESSAGE_BYTES / 2)
/* Of the paths in a message: the end is what tells one from another. */
#define SHOWN_PATH_BYTES 160u

struct job {
	const struct erofs_mount *mount;
	struct log *log;
	int image_fd;
	int target_fd;
	bool is_device;
	char kernel[KERNEL_TEXT_BYTES]; /* what the kernel had to say, last */
	char tried[TRIED_BYTES];        /* and all of it */
};

static const char *path_end(const char *path)
{
	size_t len = strlen(path);

	return len > SHOWN_PATH_BYTES ? path + len - SHOWN_PATH_BYTES : path;
}

/* ---- the system calls: 0 or -errno ---- */

static int configure(int fs, const char *source, bool direct)
{
	if (fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0) ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "source", source, 0) ||
	    (direct && fsconfig(fs, FSCONFIG_SET_FLAG, "directio", NULL, 0)) ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		return -errno;
	return 0;
}

static int mount_new(struct job *job, const char *source, bool direct)
{
	CLEANUP_FD int fs = fsopen("erofs", FSOPEN_CLOEXEC);

	if (fs < 0)
		return -errno;

	int rc = configure(fs, source, direct);

	if (rc) {
		kernel_text_read(fs, job->kernel);
		return rc;
	}

	CLEANUP_FD int mnt = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY);

	if (mnt < 0 ||
	    move_mount(mnt, "", job->target_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
		return -errno;
	return 0;
}

static int mount_old(const struct job *job, const char *source, bool direct)
{
	char target[64];

	snprintf(target, sizeof(target), "/proc/self/fd/%d", job->target_fd);
	return mount(source, target, "erofs", MS_RDONLY, direct ? "directio" : NULL) ? -errno : 0;
}

static int mount_source(struct job *job, const char *source, bool direct)
{
	job->kernel[0] = 0;
	if (strlen(source) > FSCONFIG_TEXT_BYTES)
		return mount_old(job, source, direct);

	int rc = mount_new(job, source, direct);

	/* not there, or refused by a filter on system calls */
	if (rc != -ENOSYS && rc != -EPERM)
		return rc;
	log_debug(job->log, "mounting %s by mount(2): the new mount API says %s", source, strerrordesc_np(-rc));
	return mount_old(job, source, direct);
}

/* ---- the ways ---- */

static void note(struct job *job, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void note(struct job *job, const char *fmt, ...)
{
	size_t have = strlen(job->tried);
	va_list args;

	if (have)
		have += (size_t)snprintf(job->tried + have, sizeof(job->tried) - have, "; ");
	if (have >= sizeof(job->tried))
		return;
	va_start(args, fmt);
	vsnprintf(job->tried + have, sizeof(job->tried) - have, fmt, args);
	va_end(args);
}

static int try_source(struct job *job, const char *source, bool direct, const char *what)
{
	int rc = mount_source(job, source, direct);

	if (rc)
		note(job, "%s: %s%s", what, strerrordesc_np(-rc), job->kernel);
	return rc;
}

static int try_loop(struct job *job, enum erofs_way *way)
{
	struct loop_device loop;
	struct cpull_error why = {0};
	char what[64];

	if (loop_device_bind(job->image_fd, &loop, &why)) {
		note(job, "by a loop device: %s", why.message);
		return why.sys_errno ? -why.sys_errno : -EIO;
	}
	snprintf(what, sizeof(what), "by %s", loop.path);
	*way = loop.direct ? EROFS_BY_LOOP_DIRECT : EROFS_BY_LOOP;

	int rc = try_source(job, loop.path, false, what);

	/* the mount keeps the device, or nobody does */
	close(loop.fd);
	return rc;
}

/* Was it the file that could not be mounted, rather than what is in it? EINVAL may mean either. */
static bool worth_a_loop(int rc)
{
	return rc == -ENOTBLK || rc == -EINVAL || rc == -EOPNOTSUPP;
}

static int do_mount(struct job *job, enum erofs_way *way)
{
	const char *image = job->mount->image;
	int rc = -EINVAL;

	if (job->is_device) {
		*way = EROFS_BY_DEVICE;
		return try_source(job, image, false, "as a device");
	}
	if (job->mount->direct) {
		*way = EROFS_BY_FILE_DIRECT;
		rc = try_source(job, image, true, "as a file with direct I/O");
	}
	/* not known, or not to this file system */
	if (rc == -EINVAL || rc == -EOPNOTSUPP) {
		*way = EROFS_BY_FILE;
		rc = try_source(job, image, false, "as a file");
	}
	return worth_a_loop(rc) ? try_loop(job, way) : rc;
}

/* ---- the interface ---- */

/* What the kernel finds only when somebody reads, or says in ways that nobody understands. */
static int check_image(struct job *job, struct cpull_error *err)
{
	const char *image = job->mount->image;
	struct erofs_super super;
	struct stat st;

	if (fstat(job->image_fd, &st))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "looking at image %s", image);
	job->is_device = S_ISBLK(st.st_mode);
	if (!S_ISREG(st.st_mode) && !job->is_device)
		return error_set(err, CPULL_ERR_STORAGE, "mounting %s: neither a file nor a block device", image);

	off_t size = lseek(job->image_fd, 0, SEEK_END);
	ssize_t n = pread(job->image_fd, &super, sizeof(super), EROFS_SUPER_OFFSET);

	if (n < 0 || size < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "reading the superblock of image %s", image);
	if ((size_t)n < sizeof(super) || le32toh(super.magic) != EROFS_MAGIC)
		return error_set(err, CPULL_ERR_STORAGE, "mounting %s: not an EROFS image", image);
	if (super.block_bits != EROFS_BLOCK_BITS)
		return error_set(err, CPULL_ERR_UNSUPPORTED, "mounting %s: blocks of 2^%u bytes instead of %u", image,
				 super.block_bits, EROFS_BLOCK_BYTES);

	uint64_t want = (uint64_t)le32toh(super.blocks) << EROFS_BLOCK_BITS;

	if ((uint64_t)size < want)
		return error_set(err, CPULL_ERR_SIZE, "mounting %s: it is cut, %lld bytes of %llu are left", image,
				 (long long)size, (unsigned long long)want);
	return 0;
}

static int fail(const struct job *job, int num, struct cpull_error *err)
{
	int code = num == ENODEV ? CPULL_ERR_UNSUPPORTED : CPULL_ERR_STORAGE;
	const char *hint = num == ENODEV  ? " (the kernel has no EROFS)"
			   : num == EPERM ? " (needs CAP_SYS_ADMIN)"
					  : " (see the kernel's log)";
	struct cpull_error why = {0};

	/* the code and errno only: the text is already in what was tried */
	code = error_sys(&why, code, num, "mounting");
	error_set(err, code, "mounting %s on %s: %s%s", path_end(job->mount->image), path_end(job->mount->target),
		  job->tried, hint);
	if (err)
		err->sys_errno = num;
	return code;
}

int erofs_mount(const struct erofs_mount *mount, struct log *log, enum erofs_way *way, struct cpull_error *err)
{
	struct job job = {.mount = mount, .log = log};
	enum erofs_way taken = EROFS_BY_DEVICE;
	CLEANUP_FD int image = open(mount->image, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (image < 0)
		return error_sys(err, errno == ENOENT ? CPULL_ERR_NOT_FOUND : CPULL_ERR_STORAGE, errno,
				 "opening image %s", mount->image);

	CLEANUP_FD int target = open(mount->target, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (target < 0)
		return error_sys(err, errno == ENOENT ? CPULL_ERR_NOT_FOUND : CPULL_ERR_STORAGE, errno,
				 "opening mount point %s (it must be a directory)", mount->target);
	job.image_fd = image;
	job.target_fd = target;

	int rc = check_image(&job, err);

	if (rc)
		return rc;
	rc = do_mount(&job, &taken);
	if (rc)
		return fail(&job, -rc, err);
	log_debug(log, "mounted %s on %s by %s%s%s", mount->image, mount->target, erofs_way_text(taken),
		  job.tried[0] ? "; not " : "", job.tried);
	if (way)
		*way = taken;
	return 0;
}

const char *erofs_way_text(enum erofs_way way)
{
	switch (way) {
	case EROFS_BY_DEVICE:
		return "device";
	case EROFS_BY_FILE:
		return "file";
	case EROFS_BY_FILE_DIRECT:
		return "file+direct";
	case EROFS_BY_LOOP:
		return "loop";
	case EROFS_BY_LOOP_DIRECT:
		return "loop+direct";
	}
	return "unknown";
}

/* ---- the probe ---- */

/* An image of one block: an empty root. */
static void fill_image(uint8_t block[EROFS_BLOCK_BYTES])
{
	const size_t inode_at = EROFS_SUPER_OFFSET + sizeof(struct erofs_super);
	const struct erofs_super super = {
		.magic = htole32(EROFS_MAGIC),
		.block_bits = EROFS_BLOCK_BITS,
		.root_nid = htole16((uint16_t)(inode_at / EROFS_SLOT_BYTES)),
		.inodes = htole64(1),
		.blocks = htole32(1),
		.uuid = "coco-pull probe",
	};
	struct erofs_dirent entries[2];
	static const char names[] = {'.', '.', '.'};
	const struct erofs_inode root = {
		.format = htole16(EROFS_FORMAT(EROFS_FLAT_INLINE)),
		.mode = htole16(S_IFDIR | 0755),
		.size = htole64(sizeof(entries) + sizeof(names)),
		.nlink = htole32(2),
	};

	/* "." and "..", both the root */
	for (uint16_t i = 0; i < ARRAY_LEN(entries); i++)
		entries[i] = (struct erofs_dirent){.nid = htole64(inode_at / EROFS_SLOT_BYTES),
						   .name_offset = htole16((uint16_t)(sizeof(entries) + i)),
						   .type = EROFS_DIRECTORY};
	memset(block, 0, EROFS_BLOCK_BYTES);
	memcpy(block + EROFS_SUPER_OFFSET, &super, sizeof(super));
	memcpy(block + inode_at, &root, sizeof(root));
	memcpy(block + inode_at + sizeof(root), entries, sizeof(entries));
	memcpy(block + inode_at + sizeof(root) + sizeof(entries), names, sizeof(names));
}

/* Has the kernel read an image in this directory, without a mount that anybody could see. */
static int try_file(int dirfd, struct cpull_error *err)
{
	uint8_t block[EROFS_BLOCK_BYTES];
	char source[64], kernel[KERNEL_TEXT_BYTES];
	CLEANUP_FD int fd = fs_temp_file(dirfd);

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "making a file to try");
	fill_image(block);

	int rc = fs_write_all(fd, block, sizeof(block), 0);

	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "writing a file to try");

	CLEANUP_FD int fs = fsopen("erofs", FSOPEN_CLOEXEC);

	if (fs < 0)
		return error_sys(err, CPULL_ERR_UNSUPPORTED, errno, "the new mount API");
	snprintf(source, sizeof(source), "/proc/self/fd/%d", fd);
	rc = configure(fs, source, false);
	kernel_text_read(fs, kernel);
	return rc ? error_sys(err, CPULL_ERR_UNSUPPORTED, -rc, "mounting a file%s", kernel) : 0;
}

/* Mounts nothing: the kernel goes through all its checks, up to that of the source, which is missing. Then it says
 * EINVAL. Of what is said to a context of the new API nothing gets into the kernel's log. */
static int mount_without_source(void)
{
	CLEANUP_FD int fs = fsopen("erofs", FSOPEN_CLOEXEC);
	int rc;

	if (fs >= 0)
		rc = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
	else if (errno == ENOSYS || errno == EPERM)
		rc = mount(NULL, "/", "erofs", MS_RDONLY, NULL);
	else
		rc = -1;
	return rc ? errno : EINVAL;
}

int erofs_mount_possible(int dirfd, struct cpull_error *err)
{
	struct cpull_error loop = {0};
	int num = mount_without_source();

	if (num == ENODEV)
		return error_set(err, CPULL_ERR_UNSUPPORTED, "the kernel has no EROFS");
	if (num != EINVAL)
		return error_sys(err, CPULL_ERR_UNSUPPORTED, num, "mounting EROFS");
	if (loop_device_possible(&loop) == 0)
		return 0;

	int rc = try_file(dirfd, err);

	return rc ? error_wrap(err, "EROFS by loop device: %s; by the file alone", loop.message) : 0;
}
