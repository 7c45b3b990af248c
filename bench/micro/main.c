/* SPDX-License-Identifier: Apache-2.0
 *
 * coco-bench-micro: what each stage of a pull takes on this machine, beside the ways that were rejected, and the bound
 * that follows. One main thread; everything it writes is in a directory of its own that goes at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/micro/machine.h"
#include "bench/micro/stages.h"
#include "engine/base/error.h"
#include "engine/base/fs.h"

#define BLOBS_MAX 512

static const struct stage {
	const char *names[2]; /* that --only knows it by, and its rows */
	int (*measure)(struct report *report, const struct corpus *corpus, struct cpull_error *err);
} stages[] = {
	{{"receive"}, measure_receive},
	{{"hash"}, measure_hashes},
	{{"inflate", "zstd"}, measure_inflate},
	{{"tar"}, measure_tar},
	{{"create"}, measure_create},
	{{"write"}, measure_write},
	{{"image"}, measure_image},
	{{"handover"}, measure_handover},
};

static const char usage[] =
	"usage: coco-bench-micro [OPTION...]\n"
	"Measures the stages of a pull one by one; * marks what coco-pull does. Figures are CPU seconds of this\n"
	"process: median (least-most); MB/s are by the clock.\n"
	"  --quick          short turns, small data: some seconds in all, for a smoke test or a regression check\n"
	"  --turns N        turns of each row, odd (default 3, at most 9)\n"
	"  --only STAGE     only this one, can be repeated: receive hash inflate zstd tar create write image\n"
	"                   handover\n"
	"  --bound-only     only the rows that the bound may use\n"
	"  --dir DIR        where files are written (default /dev/shm, or TMPDIR)\n"
	"  --tar FILE       measure on this tar (plain, gzip or zstd) and not on files of /usr\n"
	"  --blob FILE      compute the bound of this layer's blob, can be repeated; FILE,encrypted if it comes so\n"
	"  --json FILE      write everything there\n";

struct options {
	struct report report;
	const char *dir, *tar, *json;
	const char *blobs[BLOBS_MAX];
	size_t blob_count;
};

static bool has_name(const struct stage *stage, const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(stage->names) && stage->names[i]; i++)
		if (!strcmp(stage->names[i], name))
			return true;
	return false;
}

static bool is_stage(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(stages); i++)
		if (has_name(&stages[i], name))
			return true;
	return false;
}

static bool is_wanted(const struct report *report, const struct stage *stage)
{
	for (size_t i = 0; i < report->only_count; i++)
		if (has_name(stage, report->only[i]))
			return true;
	return report->only_count == 0;
}

static bool take_option(struct options *o, int option, const char *value)
{
	switch (option) {
	case 'q':
		o->report.quick = true;
		return true;
	case 'n':
		o->report.turns = (unsigned)strtoul(value, NULL, 10);
		return o->report.turns % 2 == 1 && o->report.turns <= REPORT_TURNS;
	case 'o':
		if (o->report.only_count == REPORT_ONLY || !is_stage(value))
			return false;
		o->report.only[o->report.only_count++] = value;
		return true;
	case 'B':
		o->report.bound_only = true;
		return true;
	case 'd':
		o->dir = value;
		return true;
	case 't':
		o->tar = value;
		return true;
	case 'b':
		if (o->blob_count == BLOBS_MAX)
			return false;
		o->blobs[o->blob_count++] = value;
		return true;
	case 'j':
		o->json = value;
		return true;
	default:
		return false;
	}
}

static bool parse(int argc, char **argv, struct options *o)
{
	static const struct option known[] = {
		{"quick", no_argument, NULL, 'q'},	{"turns", required_argument, NULL, 'n'},
		{"only", required_argument, NULL, 'o'},	{"bound-only", no_argument, NULL, 'B'},
		{"dir", required_argument, NULL, 'd'},	{"tar", required_argument, NULL, 't'},
		{"blob", required_argument, NULL, 'b'},	{"json", required_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},	{0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (option == 'h') {
			fputs(usage, stdout);
			exit(0);
		}
		if (!take_option(o, option, optarg))
			return false;
	}
	return optind == argc;
}

static const char *default_dir(void)
{
	const char *dir = getenv("TMPDIR");

	return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : dir && *dir ? dir : "/tmp";
}

static int run_stages(struct options *o, const struct corpus *corpus, struct cpull_error *err)
{
	struct report *report = &o->report;
	uint64_t spin_ns = report->quick ? 50000000 : 300000000;
	int rc = 0;

	report->spin_before = machine_spin(spin_ns);
	for (size_t i = 0; !rc && i < ARRAY_LEN(stages); i++)
		if (is_wanted(report, &stages[i]))
			rc = stages[i].measure(report, corpus, err);
	if (!rc)
		report_costs(report);
	if (!rc)
		rc = measure_blobs(report, o->blobs, o->blob_count, err);
	report->spin_after = machine_spin(spin_ns);
	printf("two spinning threads against one: %.2f before, %.2f after\n", report->spin_before, report->spin_after);
	return rc;
}

static int run(struct options *o, struct cpull_error *err)
{
	struct corpus corpus = {0};
	size_t bytes = o->report.quick ? (size_t)12 << 20 : (size_t)96 << 20;
	int rc = o->tar ? corpus_load(o->tar, &corpus, err) : corpus_make(bytes, &corpus, err);

	machine_print(o->report.dir);
	if (!rc)
		rc = run_stages(o, &corpus, err);
	if (!rc && o->json)
		rc = report_save(&o->report, o->json, err);
	corpus_free(&corpus);
	return rc;
}

/* Runs in a new directory, and removes it. */
static int run_in_dir(struct options *o, struct cpull_error *err)
{
	CLEANUP_FREE char *dir = format_string("%s/coco-bench-XXXXXX", o->dir ? o->dir : default_dir());
	struct cpull_error ignored;
	int rc;

	if (!dir)
		return error_nomem(err);
	if (!mkdtemp(dir))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "making a directory %s", dir);
	o->report.dir = dir;
	rc = run(o, err);
	if (fs_remove_tree(AT_FDCWD, dir, &ignored))
		fprintf(stderr, "coco-bench-micro: left behind: %s\n", dir);
	return rc;
}

int main(int argc, char **argv)
{
	struct options o = {.report = {.turns = 3}};
	struct cpull_error err = {0};
	int rc;

	if (!parse(argc, argv, &o)) {
		fputs(usage, stderr);
		return 2;
	}
	o.report.turn_ns = o.report.quick ? 20000000 : 300000000;
	o.report.rows = json_array();
	o.report.blobs = json_array();
	rc = run_in_dir(&o, &err);
	if (rc)
		fprintf(stderr, "coco-bench-micro: %s\n", err.message);
	json_decref(o.report.rows);
	json_decref(o.report.blobs);
	return rc ? 1 : 0;
}
