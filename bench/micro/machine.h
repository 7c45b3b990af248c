/* SPDX-License-Identifier: Apache-2.0
 *
 * What the figures were measured on.
 */
#ifndef MICRO_MACHINE_H
#define MICRO_MACHINE_H

#include <jansson.h>

#include "engine/base/util.h"

/* What two spinning threads get done against one, in about twice `ns`. 0 where no thread can be started. */
double machine_spin(uint64_t ns);
/* A new reference; `dir` is where files are written. */
json_t *machine_json(const char *dir);
/* The same as a line. */
void machine_print(const char *dir);

#endif
