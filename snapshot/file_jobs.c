/* SPDX-License-Identifier: Apache-2.0
 *
 * Jobs of small files and the thread that helps with them: see file_jobs.h. Owned by a layer's dir_writer; jobs are in
 * a ring of fixed batches, each job with its open file and a reference of its chunk.
 *
 * The write thread fills a batch and hands it over; the helper takes them in order. So there is one lock, and at most
 * one wake-up, for many files. From the end of a chunk on its jobs get done without the write thread. When all batches
 * are in use the write thread does its own instead, so adding never waits; where it has to wait, it takes what the
 * helper has not begun, and the wait ends with the one batch that the helper is at, however little of the machine that
 * gets. No job ever waits for a chunk.
 */
#include "snapshot/file_jobs.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/base/error.h"
#include "engine/base/thread.h"
#include "snapshot/bulk_writer.h"
#include "snapshot/entry_path.h"

#define BATCHES 3u
#define BATCH_JOBS 16u
/* Jobs are open files, BATCHES * BATCH_JOBS at most. Where the process may have fewer than this there is no helper. */
#define FDS_MIN 512u
#define PATH_BYTES 384u
#define NONE UINT64_MAX

/* So many small files are looked at for whether the thread was busy all the time; less than a hundredth of a second. */
#define FILES_TO_WATCH 512u
#define BUSY_PERCENT 80u

struct file_job {
	int fd;
	struct chunk *chunk;
	const uint8_t *data;
	struct tar_entry entry; /* its strings are the reader's, and gone */
	char path[PATH_BYTES];
};

struct file_batch {
	unsigned count;
	struct file_job jobs[BATCH_JOBS];
};

struct file_jobs {
	const struct attributes_self *self;
	struct log *log;
	bool may_start; /* the helper, which has not been */
	bool started;
	pthread_t thread;

	/* is the write thread what the layer waits for? */
	unsigned watched;
	uint64_t watch_ns, watch_cpu_ns; /* when the first of the watched came */

	/* Batches are numbered. `added` is the one that the write thread fills, its own until it is handed over;
	 * [begun, added) are free to take; below `begun` all are done but `helper_at`. */
	pthread_mutex_t lock;
	pthread_cond_t work, done;
	uint64_t added, begun, helper_at;
	bool asleep;  /* the helper waits for work */
	bool waiting; /* the write thread waits for helper_at */
	bool stop;
	uint64_t failed; /* the first batch that did, or NONE */
	struct cpull_error err;
	struct file_jobs_stats stats;
	struct file_batch batches[BATCHES];
};

static struct file_batch *batch_at(struct file_jobs *jobs, uint64_t number)
{
	return &jobs->batches[number % BATCHES];
}

/* ---- jobs: either thread ---- */

static int write_file(const struct attributes_self *self, const struct file_job *job, struct cpull_error *err)
{
	int rc = bulk_write_plain(job->fd, job->data, job->entry.size, 0, err);

	/* no notes: there are no extended attributes */
	return rc ? rc : attributes_set_new(job->fd, self, &job->entry, NULL, err);
}

static int run(const struct attributes_self *self, struct file_job *job, struct cpull_error *err)
{
	int rc = write_file(self, job, err);

	if (close(job->fd) && errno != EINTR && !rc)
		rc = error_sys(err, CPULL_ERR_STORAGE, errno, "closing it");
	chunk_put(job->chunk);
	return rc ? entry_path_blame(job->path, err) : 0;
}

static void drop(struct file_job *job)
{
	close(job->fd);
	chunk_put(job->chunk);
}

/* Empties a batch that nobody else will. After a failure the rest is dropped. */
static int run_batch(const struct attributes_self *self, struct file_batch *batch, bool wanted,
		     struct cpull_error *err)
{
	int rc = wanted ? 0 : 1;

	for (unsigned i = 0; i < batch->count; i++) {
		if (rc)
			drop(&batch->jobs[i]);
		else
			rc = run(self, &batch->jobs[i], err);
	}
	batch->count = 0;
	return MIN(rc, 0);
}

/* Does a batch that the caller has begun. The lock is held on the way in and out. */
static void run_unlocked(struct file_jobs *jobs, uint64_t number)
{
	struct cpull_error err = {0};
	bool wanted = number < jobs->failed;

	pthread_mutex_unlock(&jobs->lock);

	int rc = run_batch(jobs->self, batch_at(jobs, number), wanted, &err);

	pthread_mutex_lock(&jobs->lock);
	if (rc && number < jobs->failed) {
		jobs->failed = number;
		jobs->err = err;
	}
}

/* ---- the helper ---- */

/* With the lock held. */
static void count_batch(struct file_jobs_stats *stats, const struct file_batch *batch)
{
	stats->files += batch->count;
	for (unsigned i = 0; i < batch->count; i++)
		stats->bytes += batch->jobs[i].entry.size;
}

static void *helper_main(void *payload)
{
	struct file_jobs *jobs = payload;
	uint64_t since = now_ns();

	pthread_mutex_lock(&jobs->lock);
	while (!jobs->stop) {
		if (jobs->begun == jobs->added) {
			uint64_t idle = now_ns();

			jobs->stats.busy_ns += idle - since;
			do {
				jobs->asleep = true;
				pthread_cond_wait(&jobs->work, &jobs->lock);
			} while (!jobs->stop && jobs->begun == jobs->added);
			jobs->asleep = false;
			since = now_ns();
			jobs->stats.wait_ns += since - idle;
			continue;
		}
		jobs->helper_at = jobs->begun++;
		count_batch(&jobs->stats, batch_at(jobs, jobs->helper_at));
		run_unlocked(jobs, jobs->helper_at);
		jobs->helper_at = NONE;
		if (jobs->waiting)
			pthread_cond_signal(&jobs->done);
	}
	jobs->stats.busy_ns += now_ns() - since;
	pthread_mutex_unlock(&jobs->lock);
	return NULL;
}

static bool has_cpus(void)
{
	cpu_set_t cpus;

	/* more than fit into the set: more than one */
	return sched_getaffinity(0, sizeof(cpus), &cpus) || CPU_COUNT(&cpus) > 1;
}

static bool has_descriptors(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= FDS_MIN;
}

/* Without it the layer takes longer, that is all. */
static void start_helper(struct file_jobs *jobs)
{
	struct cpull_error err = {0};

	jobs->may_start = false;
	jobs->started = !thread_start(&jobs->thread, "cpull-files", helper_main, jobs, &err);
	if (!jobs->started)
		log_debug(jobs->log, "no second thread for small files: %s", err.message);
}

static uint64_t cpu_ns(void)
{
	struct timespec used;

	if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used))
		return 0;
	return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

/* Called for each small file. A thread that had a CPU all the while waited neither for input nor for other threads:
 * then it is what the layer waits for, and the machine has room. */
static bool was_busy(struct file_jobs *jobs)
{
	if (jobs->watched++ % FILES_TO_WATCH)
		return false;

	uint64_t now = now_ns(), cpu = cpu_ns();
	uint64_t wall = now - jobs->watch_ns, busy = cpu - jobs->watch_cpu_ns;
	bool first = jobs->watched == 1;

	jobs->watch_ns = now;
	jobs->watch_cpu_ns = cpu;
	return !first && busy >= wall / 100 * BUSY_PERCENT;
}

/* ---- the write thread ---- */

int file_jobs_new(enum file_helper helper, const struct attributes_self *self, struct log *log,
		  struct file_jobs **out, struct cpull_error *err)
{
	struct file_jobs *jobs = calloc(1, sizeof(*jobs));

	if (!jobs)
		return error_nomem(err);
	jobs->self = self;
	jobs->log = log;
	jobs->helper_at = jobs->failed = NONE;
	pthread_mutex_init(&jobs->lock, NULL);
	pthread_cond_init(&jobs->work, NULL);
	pthread_cond_init(&jobs->done, NULL);
	jobs->may_start = helper != FILE_HELPER_NEVER && has_descriptors();
	if (helper == FILE_HELPER_AUTO)
		jobs->may_start &= has_cpus();
	else if (jobs->may_start)
		start_helper(jobs);
	*out = jobs;
	return 0;
}

static void end_helper(struct file_jobs *jobs)
{
	pthread_mutex_lock(&jobs->lock);
	jobs->stop = true;
	pthread_mutex_unlock(&jobs->lock);
	pthread_cond_signal(&jobs->work);
	if (jobs->started)
		pthread_join(jobs->thread, NULL);
	jobs->started = false;
}

void file_jobs_free(struct file_jobs *jobs)
{
	if (!jobs)
		return;
	end_helper(jobs);
	for (; jobs->begun <= jobs->added; jobs->begun++)
		run_batch(jobs->self, batch_at(jobs, jobs->begun), false, NULL);
	pthread_cond_destroy(&jobs->done);
	pthread_cond_destroy(&jobs->work);
	pthread_mutex_destroy(&jobs->lock);
	free(jobs);
}

struct file_jobs_stats file_jobs_end(struct file_jobs *jobs)
{
	assert(jobs->begun == jobs->added && !batch_at(jobs, jobs->added)->count);
	end_helper(jobs);
	return jobs->stats;
}

bool file_jobs_takes(struct file_jobs *jobs, const struct tar_entry *entry)
{
	if (entry->sparse || entry->xattr_count || entry->size > FILE_JOB_BYTES)
		return false;
	if (jobs->may_start && was_busy(jobs))
		start_helper(jobs);
	return jobs->started && strlen(entry->path) < PATH_BYTES;
}

/* With the lock held. The batch that is filled next has to be one that nobody is at. */
static bool has_room(const struct file_jobs *jobs)
{
	return jobs->added + 1 - MIN(jobs->begun, jobs->helper_at) < BATCHES;
}

/* With the lock held: is the helper to be woken for what there is? */
static bool wakes(struct file_jobs *jobs, bool enough)
{
	bool wake = jobs->asleep && jobs->begun < jobs->added && enough;

	jobs->asleep &= !wake;
	return wake;
}

static void hand_over(struct file_jobs *jobs)
{
	bool wake = false;

	pthread_mutex_lock(&jobs->lock);
	if (has_room(jobs)) {
		jobs->added++;
		/* a wake-up costs as much as some files: within a chunk it is for as many as there can be */
		wake = wakes(jobs, !has_room(jobs));
	} else {
		run_unlocked(jobs, jobs->added);
	}
	pthread_mutex_unlock(&jobs->lock);
	if (wake)
		pthread_cond_signal(&jobs->work);
}

void file_jobs_add(struct file_jobs *jobs, int fd, const struct tar_entry *entry, struct chunk *chunk,
		   const uint8_t *data)
{
	struct file_batch *batch = batch_at(jobs, jobs->added);
	struct file_job *job = &batch->jobs[batch->count++];

	assert(!data == (entry->size == 0));
	job->fd = fd;
	job->chunk = chunk;
	job->data = data;
	job->entry = *entry;
	strcpy(job->path, entry->path);
	if (batch->count == BATCH_JOBS)
		hand_over(jobs);
}

/* With the lock held. */
static void take_below(struct file_jobs *jobs, uint64_t number)
{
	while (jobs->begun < number)
		run_unlocked(jobs, jobs->begun++);
}

/* With the lock held. */
static void await_below(struct file_jobs *jobs, uint64_t number)
{
	while (jobs->helper_at < number) {
		jobs->waiting = true;
		pthread_cond_wait(&jobs->done, &jobs->lock);
		jobs->waiting = false;
	}
}

/* With the lock held. */
static int first_failure(struct file_jobs *jobs, struct cpull_error *err)
{
	if (jobs->failed == NONE)
		return 0;
	/* those before it are still to be done, and may fail, too */
	take_below(jobs, jobs->failed);
	await_below(jobs, jobs->failed);
	return error_copy(err, &jobs->err);
}

int file_jobs_hand_over(struct file_jobs *jobs, struct cpull_error *err)
{
	if (!jobs->started)
		return 0;
	if (batch_at(jobs, jobs->added)->count)
		hand_over(jobs);
	pthread_mutex_lock(&jobs->lock);

	int rc = first_failure(jobs, err);
	bool wake = wakes(jobs, true);

	pthread_mutex_unlock(&jobs->lock);
	if (wake)
		pthread_cond_signal(&jobs->work);
	return rc;
}

/* With the lock held. */
static void finish_all(struct file_jobs *jobs)
{
	take_below(jobs, jobs->added);
	run_unlocked(jobs, jobs->added);
	await_below(jobs, jobs->added);
}

int file_jobs_wait(struct file_jobs *jobs, struct cpull_error *err)
{
	if (!jobs->started)
		return 0;
	pthread_mutex_lock(&jobs->lock);
	finish_all(jobs);

	int rc = first_failure(jobs, err);

	pthread_mutex_unlock(&jobs->lock);
	return rc;
}

bool file_jobs_give_way(struct file_jobs *jobs)
{
	pthread_mutex_lock(&jobs->lock);

	bool any = jobs->begun < jobs->added || jobs->helper_at != NONE || batch_at(jobs, jobs->added)->count;

	finish_all(jobs);
	pthread_mutex_unlock(&jobs->lock);
	return any;
}
