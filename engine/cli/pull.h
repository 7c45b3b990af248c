/* SPDX-License-Identifier: Apache-2.0
 *
 * The pull command, and the engine as the options want it.
 */
#ifndef CLI_PULL_H
#define CLI_PULL_H

#include "engine/cli/options.h"
#include "engine/cli/progress.h"

int pull_open_engine(const struct options *options, struct progress *progress, struct cpull_engine **out,
		     struct cpull_error *err);
int pull_run(struct options *options, struct cpull_error *err);

#endif
