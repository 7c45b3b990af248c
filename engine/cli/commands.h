/* SPDX-License-Identifier: Apache-2.0
 *
 * The program's commands.
 */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "engine/cli/options.h"

/* Does what was asked for and prints the result. May complete options->creds with a password from the terminal. */
int command_run(struct options *options, struct cpull_error *err);

#endif
