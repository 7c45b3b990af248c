/* SPDX-License-Identifier: Apache-2.0
 *
 * The second half of writing a small file, for two threads: a layer's write thread makes the name, and what comes after
 * (data, attributes, close) is a job for a helper thread. Whatever depends on the order of entries (names, what they
 * replace, where a path leads) stays with the write thread.
 */
#ifndef SNAPSHOT_FILE_JOBS_H
#define SNAPSHOT_FILE_JOBS_H

#include "engine/base/log.h"
#include "engine/base/pool.h"
#include "snapshot/attributes.h"

struct file_jobs;

enum file_helper {
	FILE_HELPER_AUTO,  /* once files are seen to be what the layer waits for, and there is a CPU for it */
	FILE_HELPER_NEVER,
	FILE_HELPER_FIRST, /* from the first file on */
};

/* Beyond, the copy is what costs, and a file waits in too many chunks. */
#define FILE_JOB_BYTES (64u << 10)

/* All functions are for one thread. `self` and `log` are borrowed. */
MUST_CHECK int file_jobs_new(enum file_helper helper, const struct attributes_self *self, struct log *log,
			     struct file_jobs **out, struct cpull_error *err);
/* Jobs that nobody has begun are dropped. */
void file_jobs_free(struct file_jobs *jobs);

/* Is this file, which comes next, one for a job? This is where the helper is started, if at all. */
bool file_jobs_takes(struct file_jobs *jobs, const struct tar_entry *entry);
/* Takes over fd, an empty file that was created with the entry's mode, and the caller's reference of chunk, in which
 * data[0…entry->size) lies (NULL when the file stays empty). Never waits. */
void file_jobs_add(struct file_jobs *jobs, int fd, const struct tar_entry *entry, struct chunk *chunk,
		   const uint8_t *data);
/* Both give the error of the first job, in order of adding, that failed, with its entry's path. */

/* At the end of each chunk: from then on all jobs get done, and their chunks come back, without another call. */
MUST_CHECK int file_jobs_hand_over(struct file_jobs *jobs, struct cpull_error *err);
/* Until none is left. */
MUST_CHECK int file_jobs_wait(struct file_jobs *jobs, struct cpull_error *err);
/* Closes all files: true when there was any. */
bool file_jobs_give_way(struct file_jobs *jobs);

/* What the helper did. */
struct file_jobs_stats {
	uint64_t files;
	uint64_t bytes;
	uint64_t busy_ns;
	uint64_t wait_ns; /* there was no job */
};

/* No more jobs, and none is left: ends the helper. */
struct file_jobs_stats file_jobs_end(struct file_jobs *jobs);

#endif
