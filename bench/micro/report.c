/* SPDX-License-Identifier: Apache-2.0
 *
 * The table and the JSON document, and the bound's costs out of the rows. On the main thread.
 */
#include "bench/micro/report.h"

#include <string.h>

#include "bench/micro/machine.h"
#include "bench/micro/measure.h"
#include "engine/base/error.h"

static const struct {
	const char *name;
	double scale; /* from seconds */
} units[] = {
	[S_PER_GIB] = {"s/GiB", 1},
	[US_PER_FILE] = {"us/file", 1e6},
	[NS_PER_HEADER] = {"ns/header", 1e9},
	[NS_PER_CHUNK] = {"ns/chunk", 1e9},
	[S_PER_BLOB] = {"s", 1},
};

static const char *const cost_names[COST_COUNT] = {
	[COST_RECEIVE] = "receive_s_per_gib",
	[COST_SHA256] = "sha256_s_per_gib",
	[COST_HMAC] = "hmac_s_per_gib",
	[COST_CTR] = "ctr_s_per_gib",
	[COST_INFLATE] = "inflate_s_per_gib_out",
	[COST_ZSTD] = "zstd_s_per_gib_out",
	[COST_CREATE] = "create_s_per_entry",
	[COST_WRITE] = "write_s_per_gib",
};

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct spread spread_of(double *values, unsigned count)
{
	qsort(values, count, sizeof(*values), compare_doubles);
	return (struct spread){.median = values[count / 2], .min = values[0], .max = values[count - 1]};
}

bool report_wants(const struct report *report, const char *stage)
{
	for (size_t i = 0; i < report->only_count; i++)
		if (!strcmp(report->only[i], stage))
			return true;
	return report->only_count == 0;
}

static void print_row(const struct row *row)
{
	double scale = units[row->unit].scale;

	printf("%c %-10s %-38s %9.4g %-9s (%.4g-%.4g)", row->chosen ? '*' : ' ', row->stage, row->name,
	       row->cpu.median * scale, units[row->unit].name, row->cpu.min * scale, row->cpu.max * scale);
	if (row->unit == S_PER_GIB)
		printf("  %.0f MB/s", GIB / 1e6 / row->wall.median);
	else
		printf("  wall %.4g", row->wall.median * scale);
	printf("\n");
	fflush(stdout);
}

int report_row(struct report *report, const struct row *row, struct cpull_error *err)
{
	double scale = units[row->unit].scale;
	double *cost = &report->costs[row->cost];

	print_row(row);
	if (row->cost != COST_NONE && (*cost == 0 || row->cpu.median < *cost))
		*cost = row->cpu.median;
	if (json_array_append_new(report->rows,
				  json_pack("{s:s, s:s, s:b, s:s, s:f, s:f, s:f, s:f}", "stage", row->stage, "name",
					    row->name, "chosen", row->chosen, "unit", units[row->unit].name, "median",
					    row->cpu.median * scale, "min", row->cpu.min * scale, "max",
					    row->cpu.max * scale, "wall", row->wall.median * scale)))
		return error_nomem(err);
	return 0;
}

void report_skip(const struct report *report, const char *stage, const char *name, const char *why)
{
	(void)report;
	printf("  %-10s %-38s left out: %s\n", stage, name, why);
}

double report_cost(const struct report *report, enum cost cost)
{
	double data = report->costs[COST_WRITE] * CREATE_FILE_BYTES / GIB;

	if (cost != COST_CREATE)
		return report->costs[cost];
	if (report->costs[COST_CREATE] == 0 || report->costs[COST_WRITE] == 0)
		return 0;
	return MAX(report->costs[COST_CREATE] - data, 0);
}

void report_costs(const struct report *report)
{
	printf("\ncosts of the bound:");
	for (enum cost cost = COST_NONE + 1; cost < COST_COUNT; cost++)
		if (report_cost(report, cost) > 0)
			printf(" %s %.4g", cost_names[cost], report_cost(report, cost));
	printf("\n");
}

static json_t *costs_json(const struct report *report)
{
	json_t *out = json_object();

	for (enum cost cost = COST_NONE + 1; cost < COST_COUNT; cost++)
		if (report_cost(report, cost) > 0)
			json_object_set_new(out, cost_names[cost], json_real(report_cost(report, cost)));
	return out;
}

int report_save(const struct report *report, const char *path, struct cpull_error *err)
{
	json_t *all = json_pack("{s:o, s:b, s:{s:f, s:f}, s:o, s:O, s:O}", "machine", machine_json(report->dir),
				"quick", report->quick, "spin", "before", report->spin_before, "after",
				report->spin_after, "costs", costs_json(report), "rows", report->rows, "blobs",
				report->blobs);
	int rc;

	if (!all)
		return error_nomem(err);
	rc = json_dump_file(all, path, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
	json_decref(all);
	return rc ? error_set(err, CPULL_ERR_STORAGE, "%s cannot be written", path) : 0;
}
