/* SPDX-License-Identifier: Apache-2.0
 *
 * Making a dm-verity device over an image. For mounting, on the embedder's thread; owns descriptors for the time of the
 * call, and hands one of the device out.
 *
 * By five ioctls of <linux/dm-ioctl.h>. libdevmapper has more than that: state and a log of the process's own, and a
 * semaphore shared with udev, which has to run for it.
 *
 * Kernel facts: a device that is open can be marked to be removed with its last user (3.13), and still be opened by
 * others until then. Its gendisk, and so its node, is there since the table was loaded (5.15; before that since the
 * device was made). Table and device are read-only by a flag of the load. devtmpfs has a node for every device; any
 * other /dev has those that somebody made. To ask for a target's version loads its module (5.5).
 */
#include "snapshot/verity_device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "engine/base/error.h"
#include "snapshot/loop_device.h"

#define CONTROL "/dev/" DM_DIR "/" DM_CONTROL_NODE
#define SECTOR_BYTES 512u
/* Of the hint, in a device's name: of a digest enough to tell one from another. */
#define HINT_BYTES 80
/* The numbers and names of a table, without the hashes. */
#define TABLE_BYTES (128u + 2 * VERITY_HASH_BYTES + 2 * VERITY_SALT_BYTES)

struct request {
	struct dm_ioctl head;
	struct dm_target_spec spec;
	char text[TABLE_BYTES];
};
_Static_assert(offsetof(struct request, spec) == sizeof(struct dm_ioctl), "struct request");

struct job {
	const struct verity_image *image;
	struct loop_device loop;
	int control;
	char name[DM_NAME_LEN];
	dev_t device;
};

/* ---- the ioctls: 0 or -errno ---- */

static struct request request_for(const char *name, uint32_t flags)
{
	struct request out = {.head = {.version = {DM_VERSION_MAJOR, 0, 0},
				       .data_size = sizeof(struct request),
				       .data_start = offsetof(struct request, spec),
				       .flags = flags}};

	snprintf(out.head.name, sizeof(out.head.name), "%s", name);
	return out;
}

static int ask(int control, unsigned long what, struct request *request)
{
	return ioctl(control, what, request) ? -errno : 0;
}

static int ask_of(const struct job *job, unsigned long what, uint32_t flags)
{
	struct request request = request_for(job->name, flags);

	return ask(job->control, what, &request);
}

static int create(struct job *job)
{
	struct request request = request_for(job->name, 0);
	int rc = ask(job->control, DM_DEV_CREATE, &request);

	/* encoded as glibc does it */
	job->device = (dev_t)request.head.dev;
	return rc;
}

static int load(const struct job *job)
{
	const struct verity_image *image = job->image;
	struct request request = request_for(job->name, DM_READONLY_FLAG);
	unsigned long long data = image->data_blocks;
	char root[2 * VERITY_HASH_BYTES + 1], salt[2 * VERITY_SALT_BYTES + 1] = "-";
	struct stat st;

	if (fstat(job->loop.fd, &st))
		return -errno;
	hex_encode(image->root, VERITY_HASH_BYTES, root);
	if (image->salt_len)
		hex_encode(image->salt, image->salt_len, salt);
	request.head.target_count = 1;
	request.spec.length = data * (VERITY_BLOCK_BYTES / SECTOR_BYTES);
	snprintf(request.spec.target_type, sizeof(request.spec.target_type), "verity");
	/* format, both devices, both block sizes, blocks, where the tree begins: behind the superblock */
	snprintf(request.text, sizeof(request.text), "1 %u:%u %u:%u %u %u %llu %llu sha256 %s %s", major(st.st_rdev),
		 minor(st.st_rdev), major(st.st_rdev), minor(st.st_rdev), VERITY_BLOCK_BYTES, VERITY_BLOCK_BYTES, data,
		 data + 1, root, salt);
	return ask(job->control, DM_TABLE_LOAD, &request);
}

/* Has the device met a block that was not what it should be? */
static bool found_wrong(const struct job *job)
{
	struct request request = request_for(job->name, 0);

	return ask(job->control, DM_TABLE_STATUS, &request) == 0 && request.head.target_count == 1 &&
	       strcmp(request.text, "C") == 0;
}

/* ---- the node ---- */

static bool is_node(const struct job *job, const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == job->device;
}

static int open_node(const struct job *job, struct verity_device *out, struct cpull_error *err)
{
	snprintf(out->path, sizeof(out->path), "/dev/dm-%u", minor(job->device));
	if (!is_node(job, out->path)) {
		snprintf(out->path, sizeof(out->path), "/dev/coco-pull-dm-%u", minor(job->device));
		/* one with this name was left by a crash */
		if (mknod(out->path, S_IFBLK | 0600, job->device) && (errno != EEXIST || !is_node(job, out->path)))
			return error_sys(err, CPULL_ERR_STORAGE, errno, "making the device node %s", out->path);
		out->own_node = true;
	}
	out->fd = open(out->path, O_RDONLY | O_CLOEXEC);
	return out->fd >= 0 ? 0 : error_sys(err, CPULL_ERR_STORAGE, errno, "opening %s", out->path);
}

void verity_device_close(struct verity_device *device)
{
	if (device->own_node)
		unlink(device->path);
	if (device->fd >= 0)
		close(device->fd);
	*device = (struct verity_device){.fd = -1};
}

/* ---- the device ---- */

static int open_control(struct cpull_error *err)
{
	int fd = open(CONTROL, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	return error_sys(err, CPULL_ERR_UNSUPPORTED, errno,
			 "opening " CONTROL " (verified mounts need device-mapper, the kernel's module dm-mod)");
}

int verity_device_possible(struct cpull_error *err)
{
	struct request request = request_for("verity", 0);
	CLEANUP_FD int control = open_control(err);

	if (control < 0)
		return control;

	int rc = ask(control, DM_GET_TARGET_VERSION, &request);

	return rc ? error_sys(err, CPULL_ERR_UNSUPPORTED, -rc,
			      "asking device-mapper for its target \"verity\" (the kernel's module dm-verity)")
		  : 0;
}

static int check_image(const struct verity_image *image, struct cpull_error *err)
{
	struct stat st;

	if (!image->data_blocks || image->data_blocks > VERITY_DATA_BLOCKS || image->salt_len > VERITY_SALT_BYTES)
		return error_set(err, CPULL_ERR_USAGE, "verity: %llu blocks and a salt of %zu bytes",
				 (unsigned long long)image->data_blocks, image->salt_len);
	if (fstat(image->fd, &st))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "looking at the image");

	uint64_t want = verity_shape_of(image->data_blocks).end * VERITY_BLOCK_BYTES;

	if ((uint64_t)st.st_size < want)
		return error_set(err, CPULL_ERR_SIZE, "it is cut: %lld bytes of %llu, image and hash tree, are left",
				 (long long)st.st_size, (unsigned long long)want);
	return 0;
}

/* The number of the loop device is in it: while that is bound there is no other device of this name. */
static void make_name(struct job *job, const char *hint)
{
	snprintf(job->name, sizeof(job->name), "coco-pull-%s-%.*s", job->loop.path + strlen("/dev/"), HINT_BYTES, hint);
	for (char *p = job->name; *p; p++)
		if (!(*p >= '0' && *p <= '9') && !(*p >= 'A' && *p <= 'Z') && !(*p >= 'a' && *p <= 'z') &&
		    !strchr("-_.", *p))
			*p = '_';
}

/* From when it is marked nothing is left of the device, whatever becomes of this process. */
static int activate(struct job *job, struct verity_device *out, struct cpull_error *err)
{
	int rc = load(job);

	if (rc)
		return error_sys(err, rc == -EINVAL ? CPULL_ERR_UNSUPPORTED : CPULL_ERR_STORAGE, -rc,
				 "loading the table of %s (see the kernel's log)", job->name);
	rc = open_node(job, out, err);
	if (rc)
		return rc;
	rc = ask_of(job, DM_DEV_REMOVE, DM_DEFERRED_REMOVE);
	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "marking %s to be removed after use", job->name);
	rc = ask_of(job, DM_DEV_SUSPEND, 0);
	return rc ? error_sys(err, CPULL_ERR_STORAGE, -rc, "activating %s", job->name) : 0;
}

/* Without it a wrong root hash would be the mount's trouble, which has no words for it. */
static int read_first(const struct job *job, const struct verity_device *device, struct cpull_error *err)
{
	uint8_t block[VERITY_BLOCK_BYTES];
	ssize_t n = pread(device->fd, block, sizeof(block), 0);

	if (n == (ssize_t)sizeof(block))
		return 0;
	if (n < 0 && found_wrong(job))
		return error_set(err, CPULL_ERR_DIGEST, "the image was changed, or this is not its root hash: its "
				 "first block does not match (fsck tells more)");
	return error_sys(err, CPULL_ERR_STORAGE, n < 0 ? errno : EIO, "reading the first block by %s", device->path);
}

static int make_device(struct job *job, const char *hint, struct verity_device *out, struct cpull_error *err)
{
	make_name(job, hint);

	int rc = create(job);

	if (rc)
		return error_sys(err, CPULL_ERR_STORAGE, -rc, "making the device-mapper device %s", job->name);
	out->direct = job->loop.direct;
	rc = activate(job, out, err);
	if (!rc)
		rc = read_first(job, out, err);
	if (rc) {
		verity_device_close(out);
		/* where it was not marked, or not even opened; else there is nothing any more */
		ask_of(job, DM_DEV_REMOVE, DM_DEFERRED_REMOVE);
	}
	return rc;
}

int verity_device_open(const struct verity_image *image, const char *hint, struct verity_device *out,
		       struct cpull_error *err)
{
	struct job job = {.image = image};

	*out = (struct verity_device){.fd = -1};

	int rc = check_image(image, err);

	if (rc)
		return rc;

	CLEANUP_FD int control = open_control(err);

	if (control < 0)
		return control;
	job.control = control;
	rc = loop_device_bind(image->fd, &job.loop, err);
	if (rc)
		return rc;
	rc = make_device(&job, hint, out, err);
	/* the table holds the loop device, or nobody does */
	close(job.loop.fd);
	return rc;
}
