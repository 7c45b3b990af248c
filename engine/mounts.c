/* SPDX-License-Identifier: Apache-2.0
 *
 * Mount and unmount for the API's callers, and the records of both. A mount's record is written before the mount is made, so
 * that no layer can go between.
 */
#include "engine/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "crypto/digest.h"
#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "engine/engine.h"
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

static uint64_t mount_namespace(void)
{
	struct stat st;

	return stat("/proc/self/ns/mnt", &st) ? 0 : (uint64_t)st.st_ino;
}

/* One record a target: its name is the hash of the target's path. */
static int mount_id(const char *dir, char out[MOUNT_ID_HEX + 1], struct cpull_error *err)
{
	struct hasher *hasher;
	struct digest digest;
	int rc = hasher_new(DIGEST_SHA256, &hasher, err);

	if (rc)
		return rc;
	rc = hasher_update(hasher, dir, strlen(dir));
	if (!rc)
		rc = hasher_final(hasher, &digest);
	hasher_free(hasher);
	if (rc)
		return error_set(err, rc, "hashing a mount's name");
	hex_encode(digest.value, MOUNT_ID_HEX / 2, out);
	return 0;
}

static bool mount_read(struct store *store, const char *id, struct mount_record *out)
{
	CLEANUP_FREE char *path = format_string("%s/mounts/%s/" MOUNT_FILE, store->path, id);
	CLEANUP_BYTES struct bytes text = {0};

	*out = (struct mount_record){0};
	if (!path || file_read(path, LIMIT_RECORD_BYTES, "mount record", &text, NULL) ||
	    json_parse(text.data, text.len, CPULL_ERR_STORAGE, "mount record", &out->root, NULL))
		return false;
	out->dir = json_string_at(out->root, "dir");
	out->reference = json_string_at(out->root, "reference");
	out->boot_id = json_string_at(out->root, "boot_id");
	out->keys = json_object_get(out->root, "layers");
	if (out->dir && out->reference && out->boot_id && json_is_array(out->keys) &&
	    json_u64_at(out->root, "mount_ns", &out->mount_ns))
		return true;
	json_decref(out->root);
	return false;
}

/* A mount of another mount namespace cannot be seen from here: it counts as alive until the next boot. */
static bool mount_alive(const struct store *store, const struct mount_record *m)
{
	if (strcmp(m->boot_id, store->boot_id) != 0)
		return false;
	return m->mount_ns != mount_namespace() || overlay_is_mounted(m->dir);
}

typedef int (*mount_fn)(struct store *store, const char *id, const struct mount_record *m, void *payload,
			struct cpull_error *err);

/* Calls fn for every entry of mounts/; m is NULL where the record cannot be read. */
static int each_mount(struct store *store, mount_fn fn, void *payload, struct cpull_error *err)
{
	CLEANUP_DIR DIR *dir = fs_list(store->mounts_fd, ".");
	const struct dirent *entry;
	int rc = 0;

	if (!dir)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "listing the mounts of store %s", store->path);
	while (!rc && (entry = readdir(dir))) {
		struct mount_record m;

		if (entry->d_name[0] == '.')
			continue;
		if (mount_read(store, entry->d_name, &m)) {
			rc = fn(store, entry->d_name, &m, payload, err);
			json_decref(m.root);
		} else {
			rc = fn(store, entry->d_name, NULL, payload, err);
		}
	}
	return rc;
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
	(void)payload;
	return m && mount_alive(store, m) ? 0 : fs_remove_tree(store->mounts_fd, id, err);
}

int mounts_sweep(struct store *store, struct cpull_error *err)
{
	return each_mount(store, sweep_mount, NULL, err);
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

/* A fresh directory for the mount, with upper/ and work/ when it is to be written to. */
static int make_mount_dir(struct store *store, const char *id, const struct record *image, const char *dir, bool rw,
			  struct cpull_error *err)
{
	struct mount_record old;

	if (mount_read(store, id, &old)) {
		bool alive = mount_alive(store, &old);

		json_decref(old.root);
		if (alive)
			return error_set(err, CPULL_ERR_USAGE, "%s is mounted already; unmount it first", dir);
	}

	CLEANUP_FD int lock = store_lock(store, STORE_SHARED, err);
	int rc = lock < 0 ? lock : fs_remove_tree(store->mounts_fd, id, err);

	if (rc)
		return rc;
	if (mkdirat(store->mounts_fd, id, 0700))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "making %s/mounts/%s", store->path, id);

	CLEANUP_FD int fd = fs_open_dir(store->mounts_fd, id);

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening %s/mounts/%s", store->path, id);
	if (rw)
		rc = fs_make_dir(fd, "upper", 0755, err);
	if (rw && !rc)
		rc = fs_make_dir(fd, "work", 0700, err);
	return rc ? rc : write_mount_record(store, fd, image, dir, rw, err);
}

static int mount_layers(struct cpull_engine *engine, const char *id, const struct record *image, const char *dir,
			bool rw, struct cpull_error *err)
{
	const char **lowers = calloc(image->layer_count, sizeof(*lowers));
	CLEANUP_FREE char *upper = format_string("%s/mounts/%s/upper", engine->store->path, id);
	CLEANUP_FREE char *work = format_string("%s/mounts/%s/work", engine->store->path, id);
	int rc = lowers && upper && work ? 0 : CPULL_ERR_NOMEM;

	for (size_t i = 0; !rc && i < image->layer_count; i++)
		if (!(lowers[i] = store_layer_path(engine->store, image->layers[i].key)))
			rc = CPULL_ERR_NOMEM;
	if (rc) {
		error_nomem(err);
	} else {
		struct overlay_mount mount = {.lowers = lowers,
					      .lower_count = image->layer_count,
					      .upper = rw ? upper : NULL,
					      .work = rw ? work : NULL,
					      .target = dir};

		rc = overlay_mount(&mount, &engine->log, err);
	}
	for (size_t i = 0; lowers && i < image->layer_count; i++)
		free((char *)lowers[i]);
	free(lowers);
	return rc;
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
	if (image && record_load(engine->store, image->reference, out))
		rc = 0;
	else if (image)
		error_set(err, rc, "the record of %s has just gone; pull it again", image->reference);
	cpull_images_free(images);
	return rc;
}

static int mount_record_on(struct cpull_engine *engine, const struct record *image, const char *dir, bool rw,
			   struct cpull_error *err)
{
	struct layer_ref *refs = calloc(image->layer_count, sizeof(*refs));
	char id[MOUNT_ID_HEX + 1];
	int rc = refs ? mount_id(dir, id, err) : error_nomem(err);

	if (!rc && !record_layers_ready(engine->store, image, refs)) {
		free(refs);
		return error_set(err, CPULL_ERR_NOT_FOUND, "a layer of %s has just gone; pull it again",
				 image->reference);
	}
	if (rc) {
		free(refs);
		return rc;
	}
	rc = make_mount_dir(engine->store, id, image, dir, rw, err);
	if (!rc && (rc = mount_layers(engine, id, image, dir, rw, err)))
		if (fs_remove_tree(engine->store->mounts_fd, id, NULL))
			log_warn(&engine->log, "leaving %s/mounts/%s behind", engine->store->path, id);
	for (size_t i = 0; i < image->layer_count; i++)
		layer_ref_drop(&refs[i]);
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

int cpull_unmount(struct cpull_engine *engine, const char *dir, struct cpull_error *err)
{
	struct store *store = engine->store;
	struct mount_record m;
	char real[PATH_MAX], id[MOUNT_ID_HEX + 1];

	if (!realpath(dir, real))
		return error_sys(err, errno == ENOENT ? CPULL_ERR_NOT_FOUND : CPULL_ERR_STORAGE, errno,
				 "unmounting %s", dir);

	int rc = mount_id(real, id, err);

	if (rc)
		return rc;
	if (!mount_read(store, id, &m))
		return error_set(err, CPULL_ERR_NOT_FOUND, "unmounting %s: nothing of this store is mounted there", real);
	json_decref(m.root);
	/* after a crash or a plain umount(8) only what it left is to be taken away */
	if (overlay_is_mounted(real)) {
		rc = overlay_unmount(real, err);
		if (rc)
			return rc;
	}

	CLEANUP_FD int lock = store_lock(store, STORE_SHARED, err);

	return lock < 0 ? lock : fs_remove_tree(store->mounts_fd, id, err);
}
