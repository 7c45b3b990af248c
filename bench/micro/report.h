/* SPDX-License-Identifier: Apache-2.0
 *
 * What the program says: a table as it goes, and one JSON document at the end.
 *
 * {"machine": {"cpu", "cores", "kernel", "file_system"}, "quick": bool,
 *  "spin": {"before": x, "after": y},      what two spinning threads get against one: 2.0 on two free cores
 *  "costs": {"receive_s_per_gib", "sha256_s_per_gib", "hmac_s_per_gib", "ctr_s_per_gib", "inflate_s_per_gib_out",
 *            "zstd_s_per_gib_out", "create_s_per_entry", "write_s_per_gib"},
 *  "rows": [{"stage", "name", "chosen", "unit", "median", "min", "max", "wall"}, …],
 *  "blobs": [see blobs.c]}
 *
 * A cost is the least median among the rows that may stand for it: ways to do that stage alone, on one core, in bounded
 * memory. The bound of an image is the sum of its stages at these costs; merging two stages into one is how a program
 * gets below it. create_s_per_entry is what a file of 4 KiB takes less what its data takes at write_s_per_gib, so that
 * entries and bytes add up. A cost that was not measured is not there.
 */
#ifndef MICRO_REPORT_H
#define MICRO_REPORT_H

#include <jansson.h>

#include "engine/base/util.h"

#define REPORT_TURNS 9
#define REPORT_ONLY 16

enum unit { S_PER_GIB, US_PER_FILE, NS_PER_HEADER, NS_PER_CHUNK, S_PER_BLOB };

enum cost {
	COST_NONE,
	COST_RECEIVE,
	COST_SHA256,
	COST_HMAC,
	COST_CTR,
	COST_INFLATE,
	COST_ZSTD,
	COST_CREATE, /* per file of CREATE_FILE_BYTES, with its data */
	COST_WRITE,
	COST_COUNT,
};

#define CREATE_FILE_BYTES 4096u

/* Seconds per unit of whatever it is a spread of. */
struct spread {
	double median, min, max;
};

struct row {
	const char *stage, *name;
	bool chosen;
	enum cost cost;
	enum unit unit;
	struct spread cpu, wall;
};

struct report {
	bool quick, bound_only;
	unsigned turns;
	uint64_t turn_ns;
	const char *dir; /* where files are written */
	const char *only[REPORT_ONLY];
	size_t only_count;
	double costs[COST_COUNT]; /* seconds per GiB or file; 0: not measured */
	double spin_before, spin_after;
	json_t *rows, *blobs;
};

/* `values` is sorted. */
struct spread spread_of(double *values, unsigned count);
/* Is this stage to be measured? */
bool report_wants(const struct report *report, const char *stage);
/* Prints a row and keeps it. */
MUST_CHECK int report_row(struct report *report, const struct row *row, struct cpull_error *err);
void report_skip(const struct report *report, const char *stage, const char *name, const char *why);
/* Seconds per GiB, or per entry for COST_CREATE; 0 when it was not measured. */
double report_cost(const struct report *report, enum cost cost);
void report_costs(const struct report *report);
MUST_CHECK int report_save(const struct report *report, const char *path, struct cpull_error *err);

#endif
