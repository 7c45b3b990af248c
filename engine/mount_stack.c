/* SPDX-License-Identifier: Apache-2.0
 *
 * Mounting the layers of an image, for mounts.c, on the embedder's thread; owns what it mounts until the target has it.
 *
 * EROFS images are mounted in the mount's own directory, lower/0, lower/1 …, and an overlay over these on the target.
 * Then they are detached: an overlay has a private copy of the mount of each of its layers (tried on 6.18), so that the
 * target's unmount is the last of them, and their loop devices are freed with it. What is left mounted in lower/ when
 * the process is killed is found there by its names, without a list of mounts.
 */
#include "engine/mount_stack.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "snapshot/erofs_mount.h"
#include "snapshot/overlay.h"

#define LOWER_DIR "lower"

static char *mount_path(const struct mount_stack *stack, const char *name)
{
	return format_string("%s/mounts/%s/%s", stack->store->path, stack->id, name);
}

/* ---- EROFS images ---- */

/* The mount point of layer i, which is made. */
static int make_point(const struct mount_stack *stack, int dirfd, size_t i, char **out, struct cpull_error *err)
{
	char name[32];

	snprintf(name, sizeof(name), LOWER_DIR "/%zu", i);
	*out = mount_path(stack, name);
	return *out ? fs_make_dir(dirfd, name, 0700, err) : error_nomem(err);
}

static int mount_image(const struct mount_stack *stack, size_t i, const char *point, struct cpull_error *err)
{
	CLEANUP_FREE char *image = store_layer_path(stack->store, stack->image->layers[i].key);
	/* what is read is in the page cache once, as the content of files */
	const struct erofs_mount mount = {.image = image, .target = point, .direct = true};
	int rc = image ? erofs_mount(&mount, stack->store->log, NULL, err) : error_nomem(err);

	return rc ? error_wrap(err, "layer %zu/%zu", i + 1, stack->image->layer_count) : 0;
}

/* The layer below that is the same, or i itself. */
static size_t first_like(const struct record *image, size_t i)
{
	size_t k = 0;

	while (strcmp(image->layers[k].key, image->layers[i].key) != 0)
		k++;
	return k;
}

static int mount_images(const struct mount_stack *stack, char **lowers, struct cpull_error *err)
{
	CLEANUP_FD int fd = fs_open_dir(stack->store->mounts_fd, stack->id);
	int rc;

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening %s/mounts/%s", stack->store->path, stack->id);
	rc = fs_make_dir(fd, LOWER_DIR, 0700, err);

	for (size_t i = 0; !rc && i < stack->image->layer_count; i++) {
		size_t like = first_like(stack->image, i);

		if (like < i) {
			lowers[i] = strdup(lowers[like]);
			rc = lowers[i] ? 0 : error_nomem(err);
			continue;
		}
		rc = make_point(stack, fd, i, &lowers[i], err);
		if (!rc)
			rc = mount_image(stack, i, lowers[i], err);
	}
	return rc;
}

static int detach(const char *path, struct cpull_error *err)
{
	while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		;
	if (errno == EINVAL || errno == ENOENT)
		return 0;
	return error_sys(err, CPULL_ERR_STORAGE, errno, "unmounting %s", path);
}

int mount_stack_clear(struct store *store, const char *id, struct cpull_error *err)
{
	CLEANUP_FREE char *lower = format_string("%s/mounts/%s/" LOWER_DIR, store->path, id);
	CLEANUP_FD int fd = fs_open_dir(store->mounts_fd, id);
	CLEANUP_DIR DIR *dir = fd < 0 ? NULL : fs_list(fd, LOWER_DIR);
	const char *name;

	if (!lower)
		return error_nomem(err);
	if (!dir)
		return store_is_absent(errno) ? 0 : error_sys(err, CPULL_ERR_STORAGE, errno, "listing %s", lower);
	while ((name = fs_next_name(dir))) {
		CLEANUP_FREE char *path = format_string("%s/%s", lower, name);
		int rc = path ? detach(path, err) : error_nomem(err);

		if (rc)
			return rc;
	}
	return errno ? error_sys(err, CPULL_ERR_STORAGE, errno, "listing %s", lower) : 0;
}

/* ---- the stack ---- */

static int layer_paths(const struct mount_stack *stack, char **lowers, struct cpull_error *err)
{
	for (size_t i = 0; i < stack->image->layer_count; i++)
		if (!(lowers[i] = store_layer_path(stack->store, stack->image->layers[i].key)))
			return error_nomem(err);
	return 0;
}

static int mount_overlay(const struct mount_stack *stack, char **lowers, struct cpull_error *err)
{
	CLEANUP_FREE char *upper = mount_path(stack, "upper");
	CLEANUP_FREE char *work = mount_path(stack, "work");
	struct overlay_mount mount = {.lowers = (const char *const *)lowers,
				      .lower_count = stack->image->layer_count,
				      .upper = stack->read_write ? upper : NULL,
				      .work = stack->read_write ? work : NULL,
				      .target = stack->target};

	return upper && work ? overlay_mount(&mount, stack->store->log, err) : error_nomem(err);
}

int mount_stack_make(const struct mount_stack *stack, struct cpull_error *err)
{
	bool images = stack->image->snapshot == CPULL_SNAPSHOT_EROFS;
	char **lowers = calloc(stack->image->layer_count, sizeof(*lowers));
	int rc;

	if (!lowers)
		return error_nomem(err);
	rc = images ? mount_images(stack, lowers, err) : layer_paths(stack, lowers, err);
	if (!rc)
		rc = mount_overlay(stack, lowers, err);
	for (size_t i = 0; i < stack->image->layer_count; i++)
		free(lowers[i]);
	free(lowers);
	if (!images)
		return rc;

	struct cpull_error why = {0};

	/* what is not detached is when the target is unmounted */
	if (mount_stack_clear(stack->store, stack->id, &why))
		log_warn(stack->store->log, "after mounting %s: %s", stack->target, why.message);
	return rc;
}
