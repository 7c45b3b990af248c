/* SPDX-License-Identifier: Apache-2.0
 *
 * SIGINT and SIGTERM: the first asks the pull to stop, the second kills the program at once.
 */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

#include <stdbool.h>

/* Installs the handlers; a signal that is ignored already (nohup, a shell's background job) stays so. */
void interrupt_install(void);
/* Has one arrived? */
bool interrupt_seen(void);

#endif
