/* SPDX-License-Identifier: Apache-2.0
 *
 * The store: committed layers, what is being staged, image records, mounts, and the locks that let many pulls, mounts
 * and removals of many processes share it.
 *
 *   STORE/lock          shared while a layer is looked up, committed or a record is written; exclusive while something
 *                       is taken away. Held for moments only.
 *   STORE/layers/KEY/   layer.json and the content: fs/, or layer.erofs. KEY is "sha256-<hex>" of the diff_id, with
 *                       ".<parents>" behind it when the content depends on the layers below, and ".erofs" or
 *                       ".verity.erofs" behind that for an EROFS image. The content is flock'ed shared by every pull
 *                       that counts on it. contents is what to check it by, unless it has a hash tree.
 *   STORE/staging/KEY/  what is under way; its directory is flock'ed by the owner, so a dead owner's is known by its
 *                       lock being free. KEY is without parents until the layer is unpacked, and with them while it
 *                       waits for those below: see store_stage_set_aside(). ".trash-*" is on its way out.
 *   STORE/images/       one record an image, named by the hash of its reference.
 *   STORE/mounts/       one directory a mount: mount.json, upper/ and work/ of a writable one, and lower/, where EROFS
 *                       images are mounted until the overlay over them is.
 *
 * A layer is trusted in the boot that wrote it, and in later ones only when it has the `durable` mark, which is made
 * after everything was synced.
 */
#ifndef ENGINE_STORE_H
#define ENGINE_STORE_H

#include "engine/base/limits.h"
#include "engine/base/log.h"
#include "engine/layer_form.h"

#define STORE_KEY_BYTES 192
#define STORE_PARENTS_HEX 32

struct store {
	char *path; /* absolute */
	int fd;     /* STORE */
	int layers_fd, staging_fd, images_fd, mounts_fd;
	char boot_id[40];
	struct log *log;
};

MUST_CHECK int store_open(const char *path, struct log *log, struct store **out, struct cpull_error *err);
void store_close(struct store *store);

enum store_lock_mode { STORE_SHARED, STORE_EXCLUSIVE };
/* Returns a descriptor whose closing unlocks, or a negative code. */
MUST_CHECK int store_lock(struct store *store, enum store_lock_mode mode, struct cpull_error *err);

/* ---- layers ---- */

/* A committed layer that is pinned: nobody removes it before layer_ref_drop(). */
struct layer_ref {
	int fd; /* its content: the root directory or the image file, flock'ed shared; -1 when unset */
	char key[STORE_KEY_BYTES];
	struct layer_image image;
};

/* KEY of a diff_id; parents NULL for a layer that stands alone. */
void store_layer_key(const char *diff_id, const char *parents, enum layer_form form, char out[STORE_KEY_BYTES]);
/* The look-ups return 1 for a layer that is there and trusted, 0 for one that is not, and an error when that cannot
 * be told now (no descriptors, no memory, no access): a layer in use must not be taken for a missing or a damaged
 * one. */

/* What a pull looks for. */
struct layer_wish {
	const char *diff_id;
	const char *parents;   /* NULL: only a layer that stands alone */
	enum layer_form form;  /* an image with a hash tree will do where one without is wished for */
	const char *key_print; /* of the layer's key, which a layer that came encrypted is kept for; NULL: plain */
	bool any_key;          /* whoever it came encrypted for */
};

/* Pins what it finds into *out, under the plain key or the one with `parents`. An image file that has not the size
 * it was written with is not trusted. */
MUST_CHECK int store_layer_find(struct store *store, const struct layer_wish *wish, struct layer_ref *out,
				struct cpull_error *err);
/* The same for an exact key of a record, whoever it came encrypted for. */
MUST_CHECK int store_layer_pin(struct store *store, const char *key, struct layer_ref *out, struct cpull_error *err);
/* Pins nothing and takes no lock, so it may be called with the store locked. */
MUST_CHECK int store_layer_trusted(struct store *store, const char *key, struct cpull_error *err);
void layer_ref_drop(struct layer_ref *ref);

/* Why a layer is, or is not, looked at by a pull. */
enum layer_state {
	LAYER_READY,
	LAYER_ABSENT,
	LAYER_STALE,   /* of another boot, and not durable */
	LAYER_UNKNOWN, /* layer.json is missing or makes no sense */
	LAYER_EMPTY,   /* its content is missing */
	LAYER_CUT,     /* its image has not the size it was written with */
};

/* A layer to be checked. */
struct layer_exam {
	enum layer_state state;
	struct layer_ref ref; /* pinned when LAYER_READY */
	int contents_fd;      /* the file to check it by; -1 when it is not there */
	struct contents_facts contents; /* what was noted of it: 0 bytes for nothing */
	uint64_t unpacked_bytes;
	char diff_id[160]; /* "" when layer.json does not say */
};

/* Pins it if it is ready. An error when that cannot be told now. */
MUST_CHECK int store_layer_examine(struct store *store, const char *key, struct layer_exam *out,
				   struct cpull_error *err);
void layer_exam_end(struct layer_exam *exam);
/* "STORE/layers/KEY/fs" or "STORE/layers/KEY/layer.erofs"; to be freed. */
char *store_layer_path(const struct store *store, const char *key);

/* What layer.json says. */
struct layer_facts {
	const char *diff_id;
	const char *blob_digest;
	const char *key_print; /* of the key that it came encrypted with; NULL: plain */
	uint64_t unpacked_bytes;
	uint64_t entries;
	struct layer_image image;
	struct contents_facts contents; /* of the file to check it by; 0 bytes for none */
};

/* A layer under way, owned by this process. */
struct stage {
	int fd;         /* the staging directory, flock'ed exclusive */
	int content_fd; /* its fs/, empty, or its layer.erofs, empty and open for reading and writing */
	enum layer_form form;
	char name[STORE_KEY_BYTES];
};

/* For diff_id, parents and form of a wish. 1 with *out set; 0 when another owner is at work on it, or has set it aside
 * with the same parents (ask again later); negative: an error. */
int store_stage(struct store *store, const struct layer_wish *wish, struct stage **out, struct cpull_error *err);
/* The layer is unpacked and depends on those below it: from now on the stage keeps only owners of the same parents
 * waiting. Without this, pulls of two images that have the same layers in another order would wait for each other
 * for ever: each owns the layer that is the other one's lower. With it, who waits for a stage of some parents waits
 * for an owner that waits for nothing but stages of fewer parents. */
MUST_CHECK int store_stage_set_aside(struct store *store, struct stage *stage, const struct layer_wish *wish,
				     struct cpull_error *err);
/* Makes the stage a layer under `key`, of the stage's form, and pins it; where a trusted one is already, that one is
 * pinned and the stage goes. Takes over the stage, also on failure. */
MUST_CHECK int store_stage_commit(struct store *store, struct stage *stage, const char *key,
				  const struct layer_facts *facts, struct layer_ref *out, struct cpull_error *err);
/* Removes a stage and all in it. NULL is fine. */
void store_stage_drop(struct store *store, struct stage *stage);
/* Syncs everything written so far and marks the layers as durable. */
MUST_CHECK int store_make_durable(struct store *store, const struct layer_ref *refs, size_t count,
				  struct cpull_error *err);
/* Has it that mark? 1, 0 or an error. */
MUST_CHECK int store_layer_durable(struct store *store, const char *key, struct cpull_error *err);

/* ---- shared by records and mounts ---- */

/* Moves layers/key into the trash, if no one has it pinned; 1 when it went. The store must be locked exclusive. */
MUST_CHECK int store_layer_remove(struct store *store, const char *key, struct cpull_error *err);
/* Moves anything of the store into the trash: at once, however large it is. Missing is fine. */
MUST_CHECK int store_trash(struct store *store, int dirfd, const char *name, struct cpull_error *err);
/* Deletes what is in the trash. To be called without a lock: it may take long. */
void store_empty_trash(struct store *store);
/* Did the system call say that the file is not there, or is no file of ours? Anything else says nothing about the
 * file. */
bool store_is_absent(int num);

#endif
