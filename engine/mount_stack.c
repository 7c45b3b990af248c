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
#include "engine/mount_images.h"
#include "snapshot/overlay.h"

static char *mount_path(const struct mount_stack *stack, const char *name)
{
	return format_string("%s/mounts/%s/%s", stack->store->path, stack->id, name);
}

/* ---- EROFS images ---- */

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
	CLEANUP_FREE char *lower = format_string("%s/mounts/%s/" MOUNT_LOWER_DIR, store->path, id);
	CLEANUP_FD int fd = fs_open_dir(store->mounts_fd, id);
	CLEANUP_DIR DIR *dir = fd < 0 ? NULL : fs_list(fd, MOUNT_LOWER_DIR);
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

static int mount_overlay(const struct mount_stack *stack, char *const *lowers, size_t count, struct cpull_error *err)
{
	CLEANUP_FREE char *upper = mount_path(stack, "upper");
	CLEANUP_FREE char *work = mount_path(stack, "work");
	struct overlay_mount mount = {.lowers = (const char *const *)lowers,
				      .lower_count = count,
				      .upper = stack->read_write ? upper : NULL,
				      .work = stack->read_write ? work : NULL,
				      .target = stack->target};

	return upper && work ? overlay_mount(&mount, stack->store->log, err) : error_nomem(err);
}

static int mount_dirs(const struct mount_stack *stack, struct cpull_error *err)
{
	size_t count = stack->image->layer_count;
	char **lowers = calloc(count, sizeof(*lowers));
	int rc = lowers ? 0 : error_nomem(err);

	for (size_t i = 0; !rc && i < count; i++)
		if (!(lowers[i] = store_layer_path(stack->store, stack->image->layers[i].key)))
			rc = error_nomem(err);
	if (!rc)
		rc = mount_overlay(stack, lowers, count, err);
	for (size_t i = 0; lowers && i < count; i++)
		free(lowers[i]);
	free(lowers);
	return rc;
}

static int mount_erofs(const struct mount_stack *stack, struct cpull_error *err)
{
	struct cpull_error why = {0};
	struct image_points points;
	int rc = mount_images(stack, &points, err);

	if (!rc)
		rc = mount_overlay(stack, points.paths, points.count, err);
	image_points_free(&points);
	/* what is not detached here is when the target is unmounted */
	if (mount_stack_clear(stack->store, stack->id, &why))
		log_warn(stack->store->log, "after mounting %s: %s", stack->target, why.message);
	return rc;
}

int mount_stack_make(const struct mount_stack *stack, struct cpull_error *err)
{
	return stack->image->snapshot == CPULL_SNAPSHOT_EROFS ? mount_erofs(stack, err) : mount_dirs(stack, err);
}
