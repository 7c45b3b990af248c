/* SPDX-License-Identifier: Apache-2.0
 *
 * Mount and unmount for the API's callers, and the records of both. Whoever mounts or unmounts holds the flock of
 * the mount's own directory, so that two never work on one target; what lies in a directory whose lock is free and
 * whose mount is gone was left behind. A mount is made under the shared store lock, its record first: no removal
 * comes between.
 */
#include "engine/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "crypto/digest.h"
#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "engine/engine.h"
#include "engine/mount_stack.h"
#include "engine/record.h"
#include "snapshot/overlay.h"

#define MOUNT_FILE "mount.json"
#define MOUNT_ID_HEX 32

struct mount_record {
	json_t *root;
	const char *dir;
	const char *reference;
	const char *boot_id;
	uint64_t mount_ns;
	json_t *keys;
};

static void mount_record_free(struct mount_record *m)
{
	json_decref(m->root);
	*m = (struct mount_record){0};
}

static uint64_t mount_namespace(void)
{
	struct stat st;

	return stat("/proc/self/ns/mnt", &st) ? 0 : (uint64_t)st.st_ino;
}

/* One record a target: its name is the hash of the target's path. */
static int mount_id(const char *dir, char out[MOUNT_ID_HEX + 1], struct cpull_error *err)
{
	struct digest digest;
	int rc = digest_compute(DIGEST_SHA256, dir, strlen(dir), "mount's name", &digest, err);

	if (rc)
		return rc;
	hex_encode(digest.value, MOUNT_ID_HEX / 2, out);
	return 0;
}

/* 1 with *out set, 0 when there is no sound one, or an error when that cannot be told now. */
static int mount_read(struct store *store, const char *id, struct mount_record *out, struct cpull_error *err)
{
	CLEANUP_FREE char *path = format_string("%s/mounts/%s/" MOUNT_FILE, store->path, id);
	CLEANUP_BYTES struct bytes text = {0};
	struct cpull_error why = {0};
	int rc;

	*out = (struct mount_record){0};
	if (!path)
		return error_nomem(err);
	rc = file_read(path, LIMIT_RECORD_BYTES, "mount record", &text, &why);
	if (rc)
		return rc == CPULL_ERR_NOT_FOUND || rc == CPULL_ERR_LIMIT ? 0 : error_copy(err, &why);
	rc = json_parse(text.data, text.len, CPULL_ERR_STORAGE, "mount record", &out->root, &why);
	if (rc)
		return rc == CPULL_ERR_NOMEM ? error_copy(err, &why) : 0;
	out->dir = json_string_at(out->root, "dir");
	out->reference = json_string_at(out->root, "reference");
	out->boot_id = json_string_at(out->root, "boot_id");
	out->keys = json_object_get(out->root, "layers");
	if (out->dir && out->reference && out->boot_id && json_is_array(out->keys) &&
	    json_u64_at(out->root, "mount_ns", &out->mount_ns))
		return 1;
	mount_record_free(out);
	return 0;
}

static bool of_this_boot(const struct store *store, const struct mount_record *m)
{
	return strcmp(m->boot_id, store->boot_id) == 0;
}

/* Can the list of mounts be read at all? Without it nothing is known to be gone. */
static bool can_see_mounts(void)
{
	CLEANUP_FD int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);

	return fd >= 0;
}

/* A mount of another mount namespace cannot be seen from here: it counts as alive until the next boot. */
static bool mount_alive(const struct store *store, const struct mount_record *m)
{
	if (!of_this_boot(store, m))
		return false;
	return m->mount_ns != mount_namespace() || overlay_is_mounted(m->dir) || !can_see_mounts();
}

/* Locks the directory of a mount, waiting for its owner; makes it if it is missing and `make` is set. Returns the
 * descriptor whose closing unlocks. */
static int mount_own(struct store *store, const char *id, bool make, struct cpull_error *err)
{
	for (;;) {
		if (make && mkdirat(store->mounts_fd, id, 0700) && errno != EEXIST)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "making %s/mounts/%s", store->path, id);

		CLEANUP_FD int fd = fs_open_dir(store->mounts_fd, id);

		if (fd < 0 && errno == ENOENT && make)
			continue;
		if (fd < 0 && errno == ENOENT)
			return error_set(err, CPULL_ERR_NOT_FOUND, "nothing of this store is mounted there");
		if (fd < 0)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "opening %s/mounts/%s", store->path, id);
		while (flock(fd, LOCK_EX))
			if (errno != EINTR)
				return error_sys(err, CPULL_ERR_STORAGE, errno, "locking %s/mounts/%s", store->path,
						 id);
		if (fs_same_file(fd, store->mounts_fd, id))
			return steal_fd(&fd);
	}
}

/* Moves an owned directory of a mount that is gone into the trash, unmounting what is still mounted in there. */
static int clear_away(struct store *store, const char *id, struct cpull_error *err)
{
	int rc = mount_stack_clear(store, id, err);

	return rc ? rc : store_trash(store, store->mounts_fd, id, err);
}

typedef int (*mount_fn)(struct store *store, const char *id, const struct mount_record *m, void *payload,
			struct cpull_error *err);

/* Calls fn for every entry of mounts/; m is NULL where there is no sound record. */
static int each_mount(struct store *store, mount_fn fn, void *payload, struct cpull_error *err)
{
	CLEANUP_DIR DIR *dir = fs_list(store->mounts_fd, ".");
	const char *id;

	if (!dir)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "listing the mounts of store %s", store->path);
	while ((id = fs_next_name(dir))) {
		struct mount_record m;
		int rc = mount_read(store, id, &m, err);

		if (rc >= 0)
			rc = fn(store, id, rc ? &m : NULL, payload, err);
		mount_record_free(&m);
		if (rc)
			return rc;
	}
	return errno ? error_sys(err, CPULL_ERR_STORAGE, errno, "listing the mounts of store %s", store->path) : 0;
}

struct key_walk {
	int (*fn)(const char *key, void *payload);
	void *payload;
};

static int walk_keys(struct store *store, const char *id, const struct mount_record *m, void *payload,
		     struct cpull_error *err)
{
	const struct key_walk *walk = payload;
	size_t i;
	json_t *key;

	(void)id;
	if (!m || !mount_alive(store, m))
		return 0;
	json_array_foreach(m->keys, i, key) {
		int rc = json_is_string(key) ? walk->fn(json_string_value(key), walk->payload) : 0;

		if (rc)
			return error_set(err, rc, "listing the layers of mount %s", m->dir);
	}
	return 0;
}

int mounts_each_key(struct store *store, int (*fn)(const char *key, void *payload), void *payload,
		    struct cpull_error *err)
{
	struct key_walk walk = {fn, payload};

	return each_mount(store, walk_keys, &walk, err);
}

static int refuse_reference(struct store *store, const char *id, const struct mount_record *m, void *payload,
			    struct cpull_error *err)
{
	(void)id;
	if (!m || strcmp(m->reference, payload) != 0 || !mount_alive(store, m))
		return 0;
	return error_set(err, CPULL_ERR_USAGE, "%s is mounted on %s; unmount it first", m->reference, m->dir);
}

int mounts_refuse_if_used(struct store *store, const char *reference, struct cpull_error *err)
{
	return each_mount(store, refuse_reference, (void *)reference, err);
}

static int sweep_mount(struct store *store, const char *id, const struct mount_record *m, void *payload,
		       struct cpull_error *err)
{
	CLEANUP_FD int fd = fs_open_dir(store->mounts_fd, id);

	(void)payload;
	if (m && mount_alive(store, m))
		return 0;
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? 0
					    : error_sys(err, CPULL_ERR_STORAGE, errno, "locking %s/mounts/%s",
							store->path, id);
	if (fd < 0 && !store_is_absent(errno))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening %s/mounts/%s", store->path, id);
	return clear_away(store, id, err);
}

int mounts_sweep(struct store *store, struct cpull_error *err)
{
	return each_mount(store, sweep_mount, NULL, err);
}

/* ---- examine ---- */

struct examine {
	mounts_wrong_fn fn;
	void *payload;
};

/* Has it a record at all? Without, or while somebody is at work on it, it is no mount yet, or none any more. */
static bool has_record(const struct store *store, const char *id)
{
	CLEANUP_FD int fd = fs_open_dir(store->mounts_fd, id);

	return fd >= 0 && faccessat(fd, MOUNT_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0 &&
	       flock(fd, LOCK_SH | LOCK_NB) == 0;
}

static int examine_mount(struct store *store, const char *id, const struct mount_record *m, void *payload,
			 struct cpull_error *err)
{
	const struct examine *examine = payload;
	size_t i;
	json_t *key;

	if (!m) {
		if (!has_record(store, id))
			return 0;
		return examine->fn(examine->payload, id, NULL, NULL, "the mount's record makes no sense", err);
	}
	if (!mount_alive(store, m))
		return 0;
	json_array_foreach(m->keys, i, key) {
		const char *name = json_string_value(key);
		int rc = name && !strchr(name, '/') && *name != '.' ? store_layer_trusted(store, name, err) : 0;

		if (!rc)
			return examine->fn(examine->payload, id, m->dir, m->reference,
					   "a layer that is mounted is missing, or its layer.json makes no sense", err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int mounts_examine(struct store *store, mounts_wrong_fn fn, void *payload, struct cpull_error *err)
{
	struct examine examine = {fn, payload};

	return each_mount(store, examine_mount, &examine, err);
}

/* ---- mount ---- */

static int write_mount_record(struct store *store, int fd, const struct record *image, const char *dir, bool rw,
			      struct cpull_error *err)
{
	json_t *keys = json_array();

	for (size_t i = 0; keys && i < image->layer_count; i++)
		json_array_append_new(keys, json_string(image->layers[i].key));

	CLEANUP_JSON json_t *root = json_pack("{s:i, s:s, s:s, s:s, s:s, s:I, s:b, s:o}", "version", 1, "dir", dir,
					      "reference", image->reference, "manifest_digest", image->manifest_digest,
					      "boot_id", store->boot_id, "mount_ns", (json_int_t)mount_namespace(),
					      "read_write", rw, "layers", keys);
	CLEANUP_FREE char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;

	if (!text)
		return error_nomem(err);
	return fs_replace_file(fd, MOUNT_FILE, text, strlen(text), false, err);
}

/* Upper and work directory of a writable mount, and the record, in the mount's fresh directory. */
static int fill_mount_dir(struct store *store, int fd, const struct record *image, const char *dir, bool rw,
			  struct cpull_error *err)
{
	int rc = rw ? fs_make_dir(fd, "upper", 0755, err) : 0;

	if (rw && !rc)
		rc = fs_make_dir(fd, "work", 0700, err);
	return rc ? rc : write_mount_record(store, fd, image, dir, rw, err);
}

/* Owns the mount's directory with nothing in it: what a dead mount left is moved out of the way. Returns a
 * descriptor. */
static int own_fresh(struct store *store, const char *id, const char *dir, struct cpull_error *err)
{
	for (;;) {
		struct mount_record old;
		int fd = mount_own(store, id, true, err);

		if (fd < 0)
			return fd;

		int rc = mount_read(store, id, &old, err);
		bool alive = rc > 0 && mount_alive(store, &old);

		mount_record_free(&old);
		if (alive)
			rc = error_set(err, CPULL_ERR_USAGE, "%s is mounted already; unmount it first", dir);

		int empty = rc < 0 ? 0 : fs_is_empty(fd);

		if (empty == 1)
			return fd;
		if (empty < 0)
			rc = error_sys(err, CPULL_ERR_STORAGE, -empty, "listing %s/mounts/%s", store->path, id);
		if (rc >= 0)
			rc = clear_away(store, id, err);
		close(fd);
		if (rc)
			return rc;
	}
}

/* The image's record by any of its names. */
static int find_record(struct cpull_engine *engine, const char *name, struct record *out, struct cpull_error *err)
{
	struct cpull_images *images;
	int rc = cpull_images_load(engine, &images, err);

	if (rc)
		return rc;

	const struct cpull_image *image = cpull_images_find(images, name, err);

	rc = CPULL_ERR_NOT_FOUND;
	if (image)
		rc = record_load(engine->store, image->reference, out, err);
	if (image && rc == 0)
		rc = error_set(err, CPULL_ERR_NOT_FOUND, "the record of %s has just gone; pull it again",
			       image->reference);
	rc = MIN(rc, 0);
	cpull_images_free(images);
	return rc;
}

/* With the layers pinned. */
static int mount_pinned(struct cpull_engine *engine, const struct record *image, const char *dir, bool rw,
			struct cpull_error *err)
{
	struct store *store = engine->store;
	char id[MOUNT_ID_HEX + 1];
	int rc = mount_id(dir, id, err);

	if (rc)
		return rc;

	CLEANUP_FD int fd = own_fresh(store, id, dir, err);

	if (fd < 0)
		return fd;

	/* until the mount can be seen, a removal that has looked for mounts must not go on to the layers */
	CLEANUP_FD int lock = store_lock(store, STORE_SHARED, err);
	const struct mount_stack stack = {.store = store, .id = id, .image = image, .target = dir, .read_write = rw};

	rc = lock < 0 ? lock : fill_mount_dir(store, fd, image, dir, rw, err);
	if (!rc)
		rc = mount_stack_make(&stack, err);
	if (rc && clear_away(store, id, NULL))
		log_warn(&engine->log, "leaving %s/mounts/%s behind", store->path, id);
	return rc;
}

static int mount_record_on(struct cpull_engine *engine, const struct record *image, const char *dir, bool rw,
			   struct cpull_error *err)
{
	struct layer_ref *refs = calloc(image->layer_count, sizeof(*refs));

	if (!refs)
		return error_nomem(err);

	int rc = record_layers_ready(engine->store, image, refs, err);

	if (rc == 0)
		rc = error_set(err, CPULL_ERR_NOT_FOUND, "a layer of %s has just gone; pull it again",
			       image->reference);
	if (rc > 0) {
		rc = mount_pinned(engine, image, dir, rw, err);
		for (size_t i = 0; i < image->layer_count; i++)
			layer_ref_drop(&refs[i]);
		store_empty_trash(engine->store);
	}
	free(refs);
	return rc;
}

static int read_mount_options(const struct cpull_mount_options *given, struct cpull_mount_options *out,
			      struct cpull_error *err)
{
	*out = (struct cpull_mount_options){0};
	if (!given)
		return 0;
	if (given->size < offsetof(struct cpull_mount_options, reserved) || given->size > 4096)
		return error_set(err, CPULL_ERR_USAGE, "mount options: size is not set to the size of the struct");
	memcpy(out, given, MIN(given->size, sizeof(*out)));
	if (!all_zero(out->reserved, sizeof(out->reserved)) || !tail_is_zero(given, given->size, sizeof(*out)))
		return error_set(err, CPULL_ERR_USAGE,
				 "mount options: members that this version does not know are not zero");
	return 0;
}

int cpull_mount(struct cpull_engine *engine, const char *name, const char *dir,
		const struct cpull_mount_options *options, struct cpull_error *err)
{
	struct cpull_mount_options o;
	struct record image;
	char real[PATH_MAX];
	int rc = read_mount_options(options, &o, err);

	if (rc)
		return rc;
	if (!realpath(dir, real))
		return error_sys(err, errno == ENOENT ? CPULL_ERR_NOT_FOUND : CPULL_ERR_STORAGE, errno,
				 "mounting on %s", dir);
	rc = find_record(engine, name, &image, err);
	if (rc)
		return rc;
	rc = mount_record_on(engine, &image, real, o.read_write, err);
	if (rc)
		error_wrap(err, "mounting %s on %s", image.reference, real);
	record_free(&image);
	return rc;
}

/* With the mount's directory owned. */
static int unmount_owned(struct store *store, const char *id, const char *dir, struct cpull_error *err)
{
	struct mount_record m;
	int rc = mount_read(store, id, &m, err);
	bool ours = rc > 0 && of_this_boot(store, &m), elsewhere = ours && m.mount_ns != mount_namespace();

	mount_record_free(&m);
	if (rc < 0)
		return rc;
	if (!rc)
		rc = error_set(err, CPULL_ERR_NOT_FOUND, "unmounting %s: nothing of this store is mounted there", dir);
	else if (elsewhere)
		return error_set(err, CPULL_ERR_USAGE,
				 "unmounting %s: it was mounted in another mount namespace; unmount it there", dir);
	/* after a crash, a reboot or a plain umount(8) only what it left is to be taken away */
	else
		rc = ours && overlay_is_mounted(dir) ? overlay_unmount(dir, err) : 0;
	if (rc && rc != CPULL_ERR_NOT_FOUND)
		return rc;

	int cleared = clear_away(store, id, rc ? NULL : err);

	return rc ? rc : cleared;
}

int cpull_unmount(struct cpull_engine *engine, const char *dir, struct cpull_error *err)
{
	struct store *store = engine->store;
	char real[PATH_MAX], id[MOUNT_ID_HEX + 1];

	if (!realpath(dir, real))
		return error_sys(err, errno == ENOENT ? CPULL_ERR_NOT_FOUND : CPULL_ERR_STORAGE, errno,
				 "unmounting %s", dir);

	int rc = mount_id(real, id, err);

	if (rc)
		return rc;

	int fd = mount_own(store, id, false, err);

	if (fd < 0) {
		error_wrap(err, "unmounting %s", real);
		return fd;
	}
	rc = unmount_owned(store, id, real, err);
	close(fd);
	store_empty_trash(store);
	return rc;
}
