/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of what was written into a directory layer, so that it can be checked later: STORE/layers/KEY/contents. It
 * is a log, in the order in which things were done: one who reads it does them again with names alone, and has at the
 * end what has to be there. Directories are known by the inode numbers that they had then, which means nothing outside
 * of the list.
 *
 *     file     header (16 bytes) record...
 *     record   tag (1 byte: type, flags in the upper half), and what the type has:
 *       DIRECTORY   inode              names from here on are in this directory; the first one is the root
 *       FILE        name attributes size sum
 *       SYMLINK     name attributes size sum    size and sum of the target; its mode means nothing
 *       NODE        name attributes device      devices, fifos; the mode with its type
 *       WHITEOUT    name                        in whichever form
 *       LINK        name inode name             another name of what is in that directory by that name
 *       MKDIR       name inode                  its attributes follow when it is settled
 *       SETTLED     attributes                  of the directory
 *       RESTAT      name attributes             of something with several names
 *       GONE        name                        and all that was below it
 *       RENAME      name inode name             to that directory and name
 *     name         length (1 byte, not 0), bytes
 *     attributes   mode [uid gid] mtime [nanoseconds] [sum of extended attributes]
 *     sum          8 bytes as the machine has them; other numbers are 7 bits a byte, low ones first, the last without
 *                  the high bit; mtime zigzag
 *
 * The list may be damaged itself. How long it is and what its bytes sum up to stands in layer.json.
 */
#ifndef SNAPSHOT_CONTENTS_RECORD_H
#define SNAPSHOT_CONTENTS_RECORD_H

#include <time.h>

#include "engine/base/limits.h"
#include "engine/base/util.h"

#define CONTENTS_HEADER_BYTES 16u
#define CONTENTS_HEADER "cpull-contents\0\1"
/* No record is longer. */
#define CONTENTS_RECORD_BYTES 1024u

enum contents_type {
	CONTENTS_DIRECTORY = 1,
	CONTENTS_FILE = 2,
	CONTENTS_SYMLINK = 3,
	CONTENTS_NODE = 4,
	CONTENTS_WHITEOUT = 5,
	CONTENTS_LINK = 6,
	CONTENTS_MKDIR = 7,
	CONTENTS_SETTLED = 8,
	CONTENTS_RESTAT = 9,
	CONTENTS_GONE = 10,
	CONTENTS_RENAME = 11,
};

struct contents_name {
	const char *text; /* no NUL at its end */
	size_t len;
};

struct contents_record {
	enum contents_type type;
	struct contents_name name;
	uint64_t inode;
	struct contents_name other;
	/* attributes */
	uint32_t mode;
	uint32_t uid, gid;
	struct timespec mtime;
	uint64_t xattrs; /* checksum_xattrs(): 0 for none */
	uint64_t size;   /* NODE: the device number */
	uint64_t sum;
	bool sparse; /* FILE: sum is a checksum_sparse() */
};

/* Names have 1 to LIMIT_NAME_BYTES. Returns how many bytes it took. */
size_t contents_encode(const struct contents_record *record, uint8_t out[CONTENTS_RECORD_BYTES]);
/* How many bytes the record takes; 0 when there is none: the data ends within it, or it is damaged. Names point into
 * the data. */
size_t contents_decode(const uint8_t *data, size_t len, struct contents_record *out);

#endif
