/* SPDX-License-Identifier: Apache-2.0
 *
 * Mounting an EROFS image, on the embedder's thread; owns only descriptors for the time of the call: one for each
 * device, of which the kernel opens its own by way of /proc/self/fd. So what was checked is what is mounted, and names
 * are short: fsconfig() takes 255 bytes of text, mount(2) one page for all options, which is enough for 163 devices.
 *
 * Kernel facts (6.18, and by its sources since 6.12): a regular file can be the source of an EROFS mount if its file
 * system reads pages by read_folio(), which tmpfs and overlayfs do not; then, and before 6.12, the answer is ENOTBLK.
 * The option "directio" is not known before 6.12. It is no option of a mount by loop device, whose direct I/O is the
 * device's. mount(2) takes a source of any length. EROFS is not for user namespaces. Devices (since 5.16; the table's
 * number has 16 bits) are files where the image is one, whatever their file system, and block devices where it is one.
 * Without any the kernel takes the image for all of them in one, and what is read is not there, or wrong.
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
#include "engine/base/limits.h"
#include "snapshot/erofs_format.h"
#include "snapshot/kernel_text.h"
#include "snapshot/loop_device.h"

/* Longest value of fsconfig(FSCONFIG_SET_STRING). */
#define FSCONFIG_TEXT_BYTES 255u
/* mount(2) copies one page and cuts the rest. */
#define MOUNT_DATA_BYTES 4096u
#define TRIED_BYTES (CPULL_MESSAGE_BYTES / 2)
/* Of the paths in a message: the end is what tells one from another. */
#define SHOWN_PATH_BYTES 160u

/* One of the image's devices. */
struct device {
	int fd; /* the file; its loop device once it has one */
	bool is_block;
};

struct job {
	const struct erofs_mount *mount;
	struct log *log;
	int image_fd;
	int target_fd;
	bool is_device;
	bool has_block_devices; /* among the others */
	struct device *devices;
	size_t device_count; /* that are open */
	bool no_loop; /* a loop device was wanted, and could not be had */
	char kernel[KERNEL_TEXT_BYTES]; /* what the kernel had to say, last */
	char tried[TRIED_BYTES];        /* and all of it */
};

static const char *path_end(const char *path)
{
	size_t len = strlen(path);

	return len > SHOWN_PATH_BYTES ? path + len - SHOWN_PATH_BYTES : path;
}

/* ---- the system calls: 0 or -errno ---- */

#define FD_PATH_BYTES sizeof("/proc/self/fd/2147483647")

static const char *fd_path(int fd, char out[FD_PATH_BYTES])
{
	snprintf(out, FD_PATH_BYTES, "/proc/self/fd/%d", fd);
	return out;
}

static int configure(int fs, const char *source, const struct device *devices, size_t count, bool direct)
{
	char path[FD_PATH_BYTES];

	if (fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0) ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "source", source, 0) ||
	    (direct && fsconfig(fs, FSCONFIG_SET_FLAG, "directio", NULL, 0)))
		return -errno;
	for (size_t i = 0; i < count; i++)
		if (fsconfig(fs, FSCONFIG_SET_STRING, "device", fd_path(devices[i].fd, path), 0))
			return -errno;
	return fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) ? -errno : 0;
}

static int mount_new(struct job *job, const char *source, bool direct)
{
	CLEANUP_FD int fs = fsopen("erofs", FSOPEN_CLOEXEC);

	if (fs < 0)
		return -errno;

	int rc = configure(fs, source, job->devices, job->device_count, direct);

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
	char target[FD_PATH_BYTES], path[FD_PATH_BYTES], options[MOUNT_DATA_BYTES];
	size_t len = (size_t)snprintf(options, sizeof(options), "%s", direct ? "directio," : "");

	for (size_t i = 0; i < job->device_count && len < sizeof(options); i++)
		len += (size_t)snprintf(options + len, sizeof(options) - len, "device=%s,",
					fd_path(job->devices[i].fd, path));
	if (len >= sizeof(options))
		return -E2BIG;
	return mount(source, fd_path(job->target_fd, target), "erofs", MS_RDONLY, options) ? -errno : 0;
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

static int bind_loop(struct job *job, int fd, const char *what, struct loop_device *out)
{
	struct cpull_error why = {0};

	if (loop_device_bind(fd, out, &why) == 0)
		return 0;
	note(job, "%s: %s", what, why.message);
	job->no_loop = true;
	return why.sys_errno ? -why.sys_errno : -EIO;
}

/* Gives every device that is a file a loop device. After an error some have one. */
static int bind_devices(struct job *job)
{
	for (size_t i = 0; i < job->device_count; i++) {
		struct device *device = &job->devices[i];
		struct loop_device loop;
		char what[64];

		if (device->is_block)
			continue;
		snprintf(what, sizeof(what), "device %zu by a loop device", i + 1);

		int rc = bind_loop(job, device->fd, what, &loop);

		if (rc)
			return rc;
		close(device->fd);
		*device = (struct device){.fd = loop.fd, .is_block = true};
	}
	return 0;
}

static int try_device(struct job *job)
{
	int rc = bind_devices(job);

	return rc ? rc : try_source(job, job->mount->image, false, "as a device");
}

static int try_loop(struct job *job, enum erofs_way *way)
{
	struct loop_device loop;
	char what[64];
	int rc = bind_loop(job, job->image_fd, "by a loop device", &loop);

	if (rc)
		return rc;
	snprintf(what, sizeof(what), "by %s", loop.path);
	*way = loop.direct ? EROFS_BY_LOOP_DIRECT : EROFS_BY_LOOP;
	rc = bind_devices(job);
	if (!rc)
		rc = try_source(job, loop.path, false, what);

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
		return try_device(job);
	}
	if (job->has_block_devices)
		return try_loop(job, way);
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

/* ---- what is mounted ---- */

/* The superblock of an image; what the kernel finds only when somebody reads, or says in ways that nobody
 * understands. */
static int read_super(int fd, const char *image, bool *is_block, struct erofs_super *super, struct cpull_error *err)
{
	struct stat st;

	if (fstat(fd, &st))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "looking at image %s", image);
	*is_block = S_ISBLK(st.st_mode);
	if (!S_ISREG(st.st_mode) && !*is_block)
		return error_set(err, CPULL_ERR_STORAGE, "mounting %s: neither a file nor a block device", image);

	off_t size = lseek(fd, 0, SEEK_END);
	ssize_t n = pread(fd, super, sizeof(*super), EROFS_SUPER_OFFSET);

	if (n < 0 || size < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "reading the superblock of image %s", image);
	if ((size_t)n < sizeof(*super) || le32toh(super->magic) != EROFS_MAGIC)
		return error_set(err, CPULL_ERR_STORAGE, "mounting %s: not an EROFS image", image);
	if (super->block_bits != EROFS_BLOCK_BITS)
		return error_set(err, CPULL_ERR_UNSUPPORTED, "mounting %s: blocks of 2^%u bytes instead of %u", image,
				 super->block_bits, EROFS_BLOCK_BYTES);

	uint64_t want = (uint64_t)le32toh(super->blocks) << EROFS_BLOCK_BITS;

	if ((uint64_t)size < want)
		return error_set(err, CPULL_ERR_SIZE, "mounting %s: it is cut, %lld bytes of %llu are left", image,
				 (long long)size, (unsigned long long)want);
	return 0;
}

/* ---- devices ---- */

static int open_image(const char *path, struct cpull_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	return fd >= 0 ? fd : error_sys(err, errno == ENOENT ? CPULL_ERR_NOT_FOUND : CPULL_ERR_STORAGE, errno,
					"opening image %s", path);
}

/* The next one, which has to be what its slot in the table says. */
static int add_device(struct job *job, uint64_t slot_at, struct cpull_error *err)
{
	const char *path = job->mount->devices[job->device_count];
	struct device *device = &job->devices[job->device_count];
	struct erofs_device_slot slot;
	struct erofs_super super;
	char tag[EROFS_DEVICE_TAG_BYTES];

	if (pread(job->image_fd, &slot, sizeof(slot), (off_t)slot_at) != (ssize_t)sizeof(slot))
		return error_set(err, CPULL_ERR_STORAGE, "mounting %s: its table of devices cannot be read",
				 job->mount->image);
	device->fd = open_image(path, err);
	if (device->fd < 0)
		return device->fd;
	job->device_count++;

	int rc = read_super(device->fd, path, &device->is_block, &super, err);

	if (rc)
		return rc;
	job->has_block_devices |= device->is_block;
	erofs_device_tag(super.uuid, tag);
	if (memcmp(tag, slot.tag, sizeof(tag)) || super.blocks != slot.blocks)
		return error_set(err, CPULL_ERR_STORAGE, "mounting %s: %s is not its device %zu; merge the layers "
				 "again", path_end(job->mount->image), path_end(path), job->device_count);
	return 0;
}

static int add_devices(struct job *job, const struct erofs_super *super, struct cpull_error *err)
{
	bool table = le32toh(super->feature_incompat) & EROFS_INCOMPAT_DEVICE_TABLE;
	size_t has = table ? le16toh(super->extra_devices) : 0, given = job->mount->device_count;
	uint64_t at = (uint64_t)le16toh(super->device_slot) * EROFS_DEVICE_BYTES;
	int rc = 0;

	if (given > LIMIT_LAYERS)
		return error_set(err, CPULL_ERR_LIMIT, "mounting %s: %zu devices, and at most %u are taken",
				 job->mount->image, given, LIMIT_LAYERS);
	if (has != given)
		return error_set(err, CPULL_ERR_STORAGE, "mounting %s: it has %zu devices, not %zu", job->mount->image,
				 has, given);
	if (!given)
		return 0;
	job->devices = calloc(given, sizeof(*job->devices));
	if (!job->devices)
		return error_nomem(err);
	for (size_t i = 0; !rc && i < given; i++)
		rc = add_device(job, at + i * EROFS_DEVICE_BYTES, err);
	return rc;
}

static void close_devices(struct job *job)
{
	for (size_t i = 0; i < job->device_count; i++)
		close(job->devices[i].fd);
	free(job->devices);
}

/* ---- the interface ---- */

static const char *advice(const struct job *job, int num)
{
	if (job->no_loop)
		return "this takes loop devices: load the kernel's module \"loop\" and have /dev/loop-control, or pull "
		       "with --snapshot overlay";
	switch (num) {
	case ENODEV:
		return "the kernel has no EROFS: load its module \"erofs\", or pull with --snapshot overlay";
	case EPERM:
		return "needs CAP_SYS_ADMIN";
	case E2BIG:
		return "more devices than mount(2) takes, and fsopen(2) is not there";
	default:
		return "see the kernel's log";
	}
}

static int fail(const struct job *job, int num, struct cpull_error *err)
{
	int code = num == ENODEV && !job->no_loop ? CPULL_ERR_UNSUPPORTED
		   : num == E2BIG		  ? CPULL_ERR_LIMIT
						  : CPULL_ERR_STORAGE;
	struct cpull_error why = {0};

	/* the code and errno only: the text is already in what was tried */
	code = error_sys(&why, code, num, "mounting");
	error_set(err, code, "mounting %s on %s: %s (%s)", path_end(job->mount->image),
		  path_end(job->mount->target), job->tried, advice(job, num));
	if (err)
		err->sys_errno = num;
	return code;
}

static int run(struct job *job, enum erofs_way *way, struct cpull_error *err)
{
	const struct erofs_mount *mount = job->mount;
	struct erofs_super super;
	int rc = read_super(job->image_fd, mount->image, &job->is_device, &super, err);

	if (!rc)
		rc = add_devices(job, &super, err);
	if (rc)
		return rc;
	rc = do_mount(job, way);
	if (rc)
		return fail(job, -rc, err);
	log_debug(job->log, "mounted %s on %s by %s%s%s", mount->image, mount->target, erofs_way_text(*way),
		  job->tried[0] ? "; not " : "", job->tried);
	return 0;
}

int erofs_mount(const struct erofs_mount *mount, struct log *log, enum erofs_way *way, struct cpull_error *err)
{
	struct job job = {.mount = mount, .log = log};
	enum erofs_way taken = EROFS_BY_DEVICE;
	CLEANUP_FD int image = open_image(mount->image, err);

	if (image < 0)
		return image;

	CLEANUP_FD int target = open(mount->target, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (target < 0)
		return error_sys(err, errno == ENOENT ? CPULL_ERR_NOT_FOUND : CPULL_ERR_STORAGE, errno,
				 "opening mount point %s (it must be a directory)", mount->target);
	job.image_fd = image;
	job.target_fd = target;

	int rc = run(&job, &taken, err);

	close_devices(&job);
	if (!rc && way)
		*way = taken;
	return rc;
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
	rc = configure(fs, source, NULL, 0, false);
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
