/* SPDX-License-Identifier: Apache-2.0
 *
 * A check of the store under way, and the seams between fsck.c (the call and its report), fsck_gather.c (what is to be
 * checked) and fsck_layers.c (the layers, by several threads).
 */
#ifndef ENGINE_FSCK_H
#define ENGINE_FSCK_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/engine.h"
#include "snapshot/contents_index.h"
#include "snapshot/erofs_check.h"

/* What is wrong with one thing. */
struct finding {
	char *path; /* or NULL */
	char *what;
};

/* The first of them in order, and how many there were. Whatever order they come in, the same ones are kept. */
struct findings {
	struct finding *all;
	size_t count, cap;
	uint64_t total;
};

MUST_CHECK int findings_add(struct findings *findings, const char *path, const char *what);
/* Sorts them, and leaves LIMIT_FSCK_LAYER_PROBLEMS. */
void findings_end(struct findings *findings);
void findings_free(struct findings *findings);

struct fsck_layer {
	char *key;
	const char **images; /* references, borrowed of the fsck */
	size_t image_count;
	bool needed;         /* a record that counts names it */
	struct layer_image recorded; /* what the first of them says of its image */
	bool disputed;       /* and another one says otherwise */
	char *diff_id;       /* or NULL */
	char *advice;

	/* under the lock */
	struct findings findings;
	struct block_run *runs; /* damaged blocks of an image */
	size_t run_count;
	bool runs_cut;          /* there are more */
	enum cpull_fsck_state state, told_state;
	enum cpull_check check;
	bool open;              /* what follows is ready to be worked at */
	uint64_t next, units;   /* of its work: begun, and in all */
	unsigned active;        /* threads that are at it */
	uint64_t memory;

	/* while it is open */
	struct layer_exam exam;
	struct contents_index *index;
	uint64_t *sums;

	atomic_uint_fast64_t checked_bytes;
	atomic_uint_fast64_t total_bytes;
	uint64_t told_bytes;
};

/* A problem that is not of a layer's content. */
struct fsck_trouble {
	char *image; /* or NULL */
	char *path;
	char *what;
	char *advice;
};

struct fsck {
	struct cpull_engine *engine;
	struct store *store;
	const struct cpull_fsck_options *options;

	char **images; /* references of all records that count */
	size_t image_count;
	struct fsck_trouble *troubles;
	size_t trouble_count;
	struct fsck_layer *layers; /* by key */
	size_t layer_count;

	pthread_mutex_t lock; /* guards what follows, and of each layer what is said there */
	pthread_cond_t changed;
	size_t opened;        /* layers[0…opened) are open or were */
	size_t done;
	uint64_t memory;      /* of indexes that are loaded */
	unsigned left;        /* threads that run */
	struct cpull_error err; /* the first failure */
	atomic_bool stop;
};

/* Images, layers and mounts: what is to be checked, and what is wrong with their records. */
MUST_CHECK int fsck_gather(struct fsck *fsck, struct cpull_error *err);
MUST_CHECK int fsck_trouble(struct fsck *fsck, const char *image, const char *path, const char *what,
			    const char *advice);
/* Checks the layers. */
MUST_CHECK int fsck_check_layers(struct fsck *fsck, struct cpull_error *err);
/* What is still open of one when the check was ended. */
void fsck_release_layer(struct fsck_layer *layer);

#endif
