/* SPDX-License-Identifier: Apache-2.0
 *
 * Loop devices: a file as a block device, for reading.
 */
#ifndef SNAPSHOT_LOOP_DEVICE_H
#define SNAPSHOT_LOOP_DEVICE_H

#include "engine/base/util.h"

struct loop_device {
	int fd;
	char path[32];
	bool direct; /* reads go past the page cache of the file */
};

/* Binds the file to a free device, read-only, in blocks of 4096 bytes, with direct I/O where its file system has that.
 * The device is given back by the kernel when nobody has it open or mounted: also after a crash of this process. */
MUST_CHECK int loop_device_bind(int file_fd, struct loop_device *out, struct cpull_error *err);
/* Can devices be asked for? CPULL_ERR_* with the reason when they cannot. Binds none. */
MUST_CHECK int loop_device_possible(struct cpull_error *err);

#endif
