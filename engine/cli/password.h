/* SPDX-License-Identifier: Apache-2.0
 *
 * Asking for a password on the terminal.
 */
#ifndef CLI_PASSWORD_H
#define CLI_PASSWORD_H

#include "engine/coco_pull.h"

/* Turns "USER" into "USER:PASS" in *creds (owned by the caller, replaced) with a password read from standard input
 * without echo, and leaves "USER:PASS" alone. CPULL_ERR_USAGE when standard input is no terminal,
 * CPULL_ERR_CANCELLED when it was interrupted. */
int password_complete(char **creds, struct cpull_error *err);

#endif
