/* SPDX-License-Identifier: Apache-2.0
 *
 * dm-verity devices: a file as a block device, each block of which is checked when it is read.
 */
#ifndef SNAPSHOT_VERITY_DEVICE_H
#define SNAPSHOT_VERITY_DEVICE_H

#include "snapshot/verity_check.h"

struct verity_device {
	int fd;
	char path[48];  /* for erofs_mount() */
	bool own_node;  /* path was made for this, and goes with it */
	bool direct;    /* reads go past the page cache of the file */
};

/* Has the kernel device-mapper and its verity target? 0, or why not. Makes no device; may have modules loaded. */
MUST_CHECK int verity_device_possible(struct cpull_error *err);

/* Makes a read-only device of the image's data blocks, over a loop device of its own; `hint` is for people who look at
 * the list of devices. A block that does not match the root hash reads as EIO, which the kernel's log explains.
 *
 * The device is given back by the kernel, and the loop device with it, when nobody has it open or mounted: also after a
 * crash of this process. So it is to be mounted before verity_device_close().
 *
 * CPULL_ERR_DIGEST when not even the first block matches, as with a wrong root hash; CPULL_ERR_SIZE for a file that is
 * cut; CPULL_ERR_UNSUPPORTED where the kernel cannot; CPULL_ERR_PERMISSION, else CPULL_ERR_STORAGE. */
MUST_CHECK int verity_device_open(const struct verity_image *image, const char *hint, struct verity_device *out,
				  struct cpull_error *err);
/* Also of one that open did not give: then fd is -1. */
void verity_device_close(struct verity_device *device);

#endif
