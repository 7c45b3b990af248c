/* SPDX-License-Identifier: Apache-2.0
 *
 * Binding a file to a loop device. For erofs_mount.c, on the embedder's thread; owns descriptors for the time of the
 * call, and hands one of the device out.
 *
 * Kernel facts: which device is free is only known when it is bound, others may ask at the same time. LOOP_CONFIGURE
 * (5.8) binds in one step; before that there is a moment between LOOP_SET_FD and LOOP_SET_STATUS64 when a crash leaves
 * the device bound. Drivers answer EINVAL to what they do not know. Direct I/O that the file system has not is silently
 * left off.
 */
#include "snapshot/loop_device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>

#include "engine/base/error.h"

#define CONTROL "/dev/loop-control"
/* Each time that we lose the race for a device somebody else has got one. */
#define TRIES 256u
#define LOOP_BLOCK_BYTES 4096u
#define FLAGS (LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR)

static int open_control(struct cpull_error *err)
{
	int fd = open(CONTROL, O_RDWR | O_CLOEXEC);

	return fd >= 0 ? fd : error_sys(err, CPULL_ERR_STORAGE, errno, "opening " CONTROL);
}

int loop_device_possible(struct cpull_error *err)
{
	CLEANUP_FD int control = open_control(err);

	return MIN(control, 0);
}

/* 0 or -errno, as all below. */
static int bind_in_steps(int fd, int file_fd)
{
	const struct loop_info64 info = {.lo_flags = FLAGS};

	if (ioctl(fd, LOOP_SET_FD, file_fd))
		return -errno;
	if (ioctl(fd, LOOP_SET_STATUS64, &info)) {
		int rc = -errno;

		ioctl(fd, LOOP_CLR_FD, 0);
		return rc;
	}
	/* the mount sets the block size that it wants; direct I/O is a saving and no need */
	if (ioctl(fd, LOOP_SET_BLOCK_SIZE, (unsigned long)LOOP_BLOCK_BYTES) == 0)
		ioctl(fd, LOOP_SET_DIRECT_IO, 1ul);
	return 0;
}

static int bind_file(int fd, int file_fd)
{
	const struct loop_config config = {
		.fd = (uint32_t)file_fd,
		.block_size = LOOP_BLOCK_BYTES,
		.info = {.lo_flags = FLAGS | LO_FLAGS_DIRECT_IO},
	};

	if (ioctl(fd, LOOP_CONFIGURE, &config) == 0)
		return 0;
	return errno == EINVAL || errno == ENOTTY ? bind_in_steps(fd, file_fd) : -errno;
}

static bool lost_the_race(int num)
{
	/* bound, or removed, by somebody else meanwhile */
	return num == EBUSY || num == ENXIO || num == EAGAIN;
}

static int bind_some(int control, int file_fd, struct loop_device *out, const char **what)
{
	int number = ioctl(control, LOOP_CTL_GET_FREE);

	*what = "asking for";
	if (number < 0)
		return -errno;
	snprintf(out->path, sizeof(out->path), "/dev/loop%d", number);
	*what = "opening";

	CLEANUP_FD int fd = open(out->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	*what = "binding the image to";

	struct loop_info64 info = {0};
	int rc = bind_file(fd, file_fd);

	if (rc)
		return rc;
	out->direct = ioctl(fd, LOOP_GET_STATUS64, &info) == 0 && (info.lo_flags & LO_FLAGS_DIRECT_IO);
	out->fd = steal_fd(&fd);
	return 0;
}

int loop_device_bind(int file_fd, struct loop_device *out, struct cpull_error *err)
{
	const char *what = "";
	int rc = -EBUSY;

	*out = (struct loop_device){.fd = -1, .path = "a loop device"};

	CLEANUP_FD int control = open_control(err);

	if (control < 0)
		return control;
	for (unsigned i = 0; i < TRIES && rc && lost_the_race(-rc); i++)
		rc = bind_some(control, file_fd, out, &what);
	return rc ? error_sys(err, CPULL_ERR_STORAGE, -rc, "%s %s", what, out->path) : 0;
}
