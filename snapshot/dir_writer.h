/* SPDX-License-Identifier: Apache-2.0
 *
 * Creates what a layer's entries describe as files of a directory tree, one entry at a time.
 */
#ifndef SNAPSHOT_DIR_WRITER_H
#define SNAPSHOT_DIR_WRITER_H

#include "snapshot/bulk_writer.h"
#include "snapshot/file_jobs.h"
#include "snapshot/tree.h"

struct dir_writer;

/* The tree is one on disk. Borrows it, for longer than its last use, and self. io and helper as in
 * layer_writer_options. */
MUST_CHECK int dir_writer_new(struct tree *tree, const struct attributes_self *self, enum cpull_io io,
			      enum file_helper helper, struct dir_writer **out, struct cpull_error *err);
/* Lets go of chunks and of a file that is still open. */
void dir_writer_free(struct dir_writer *writer);

/* Making something gives 1 when the name is taken. */

/* Opens a new regular file for dir_writer_data(); one at a time. */
MUST_CHECK int dir_writer_open(struct dir_writer *writer, struct tree_place at, const char *name,
			       const struct tar_entry *entry, struct cpull_error *err);
/* data lies in chunk, of which a reference is kept until it is written. */
MUST_CHECK int dir_writer_data(struct dir_writer *writer, struct chunk *chunk, const struct tar_data *data,
			       struct cpull_error *err);
/* Waits for the file's data, sets its attributes, closes it. A small file may be a job, and done later: its error, with
 * its path, comes from the functions that wait. It is no longer open once the last of its data is here. */
MUST_CHECK int dir_writer_close(struct dir_writer *writer, const struct tar_entry *entry, struct cpull_error *err);
bool dir_writer_is_open(const struct dir_writer *writer);
/* Waits until at most one chunk is still held: called when the caller wants the next chunk, which may need to come
 * out of those that are held here. */
MUST_CHECK int dir_writer_yield(struct dir_writer *writer, struct cpull_error *err);
/* As file_jobs_hand_over() and file_jobs_wait(). */
MUST_CHECK int dir_writer_hand_over(struct dir_writer *writer, struct cpull_error *err);
MUST_CHECK int dir_writer_wait(struct dir_writer *writer, struct cpull_error *err);

MUST_CHECK int dir_writer_symlink(struct dir_writer *writer, struct tree_place at, const char *name,
				  const struct tar_entry *entry, struct cpull_error *err);
/* Devices and fifos. CPULL_ERR_WHITEOUT for a character device 0:0, which overlayfs takes for a whiteout. */
MUST_CHECK int dir_writer_node(struct dir_writer *writer, struct tree_place at, const char *name,
			       const struct tar_entry *entry, struct cpull_error *err);
/* Another name for a file; a copy when it has as many as it can have. st is the file's. */
MUST_CHECK int dir_writer_link(struct dir_writer *writer, struct tree_place from, const char *from_name,
			       const struct stat *st, struct tree_place at, const char *name,
			       struct cpull_error *err);
/* A copy of a file of any kind but a directory, with its attributes; from_fd is a directory anywhere. */
MUST_CHECK int dir_writer_copy(struct dir_writer *writer, int from_fd, const char *from_name, const struct stat *st,
			       struct tree_place at, const char *name, struct cpull_error *err);
/* Owner, mode and time of something that exists and has the attributes `st`; those that differ are set. */
MUST_CHECK int dir_writer_restat(struct dir_writer *writer, struct tree_place at, const char *name,
				 const struct stat *st, const struct tar_entry *entry, struct cpull_error *err);

/* No more files will be opened, and dir_writer_wait() was the last call: gives back what only they need, and says the
 * best way that large ones were written by, and what was done by the helper. */
void dir_writer_end_files(struct dir_writer *writer, enum bulk_way *way, struct file_jobs_stats *jobs);

#endif
