/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading the kernel's messages of a mount. For overlay.c and erofs_mount.c, on the embedder's thread; owns nothing.
 */
#include "snapshot/kernel_text.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void kernel_text_read(int fs, char out[KERNEL_TEXT_BYTES])
{
	char line[256];
	size_t have = 0;
	ssize_t n;

	out[0] = 0;
	while ((n = read(fs, line, sizeof(line) - 1)) > 0) {
		if (line[n - 1] == '\n')
			n--;
		line[n] = 0;
		snprintf(out + have, KERNEL_TEXT_BYTES - have, "%s%s", have ? "; " : " (kernel: ", line);
		have = strlen(out);
	}
	if (have && have + 1 < KERNEL_TEXT_BYTES)
		strcat(out, ")");
}
