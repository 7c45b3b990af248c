/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes the list of a directory layer's contents (contents_record.h) while the layer is written.
 */
#ifndef SNAPSHOT_CONTENTS_WRITER_H
#define SNAPSHOT_CONTENTS_WRITER_H

#include "snapshot/contents_record.h"

/* Of the whole list, to be kept elsewhere. */
struct contents_facts {
	uint64_t bytes; /* 0: there is no list */
	uint64_t sum;
};

/* For one list, used by one thread. Takes 64 KiB and a descriptor. */
struct contents_writer;

/* Makes the file, which must not be there. Both are borrowed. */
MUST_CHECK int contents_writer_new(int dirfd, const char *name, struct contents_writer **out, struct cpull_error *err);
void contents_writer_free(struct contents_writer *writer);

/* What was done in the directory with this inode number; the first is the root. Not CONTENTS_DIRECTORY. */
MUST_CHECK int contents_writer_add(struct contents_writer *writer, uint64_t dir, const struct contents_record *record,
				   struct cpull_error *err);
/* Nothing will come for a while, perhaps nothing more: takes next to nothing until the next call. */
MUST_CHECK int contents_writer_rest(struct contents_writer *writer, struct cpull_error *err);
/* All of it is in the file; nothing is synced. */
MUST_CHECK int contents_writer_finish(struct contents_writer *writer, struct contents_facts *out,
				      struct cpull_error *err);

#endif
