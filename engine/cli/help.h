/* SPDX-License-Identifier: Apache-2.0
 *
 * Help on the program and its commands, made from the tables of options.h.
 */
#ifndef CLI_HELP_H
#define CLI_HELP_H

#include "engine/coco_pull.h"

/* Prints help on the command of that name, on the whole program for NULL. CPULL_ERR_USAGE for no such command. */
int help_print(const char *command, struct cpull_error *err);

#endif
