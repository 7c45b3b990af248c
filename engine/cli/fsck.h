/* SPDX-License-Identifier: Apache-2.0
 *
 * The fsck command.
 */
#ifndef CLI_FSCK_H
#define CLI_FSCK_H

#include "engine/cli/options.h"

/* Sets options->reported when the report, with the error in it, has gone to standard output. */
int fsck_run(struct options *options, struct cpull_error *err);

#endif
