/* SPDX-License-Identifier: Apache-2.0
 *
 * What is mounted from the store: a directory a mount in STORE/mounts, so that the layers under it are kept, and so
 * that an unmount knows what to take away.
 */
#ifndef ENGINE_MOUNTS_H
#define ENGINE_MOUNTS_H

#include "engine/store.h"

/* Calls fn with the key of every layer that a live mount uses; a negative answer ends the walk and is returned. */
MUST_CHECK int mounts_each_key(struct store *store, int (*fn)(const char *key, void *payload), void *payload,
			       struct cpull_error *err);
/* CPULL_ERR_USAGE naming the directory when a live mount shows the image. */
MUST_CHECK int mounts_refuse_if_used(struct store *store, const char *reference, struct cpull_error *err);
/* What is wrong with a mount that is, or may be, alive: dir and reference are NULL where its record makes no sense. */
typedef int (*mounts_wrong_fn)(void *payload, const char *id, const char *dir, const char *reference, const char *what,
			       struct cpull_error *err);
/* Looks at all mounts of the store and changes nothing. An answer of fn that is not 0 ends it, and is returned. */
MUST_CHECK int mounts_examine(struct store *store, mounts_wrong_fn fn, void *payload, struct cpull_error *err);
/* Removes what dead mounts left: another boot's, or unmounted without us in this mount namespace. The store is locked
 * exclusive by the caller. */
MUST_CHECK int mounts_sweep(struct store *store, struct cpull_error *err);

#endif
