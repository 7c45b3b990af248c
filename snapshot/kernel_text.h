/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kernel has to say of a mount that it refuses.
 */
#ifndef SNAPSHOT_KERNEL_TEXT_H
#define SNAPSHOT_KERNEL_TEXT_H

#include <stddef.h>

#define KERNEL_TEXT_BYTES 512u

/* The messages of an fsopen() descriptor, as " (kernel: …; …)", or "" when there are none. Each is read only once. */
void kernel_text_read(int fs, char out[KERNEL_TEXT_BYTES]);

#endif
