/* SPDX-License-Identifier: Apache-2.0
 *
 * Mounting EROFS layers, for mount_stack.c, on the embedder's thread; owns the devices and readers it opens until they
 * are mounted. A few layers are mounted each by itself. More are merged into one image first, whose devices they are:
 * an overlay asks its layers one after the other for every name.
 *
 * Where all layers have a hash tree and the kernel has dm-verity, everything that is read is checked against the root
 * hashes of the record: the layers, by whoever merges them too, and the merged image, whose tree is made with it.
 */
#include "engine/mount_images.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "crypto/digest.h"
#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "snapshot/erofs_merge.h"
#include "snapshot/erofs_mount.h"
#include "snapshot/verity.h"
#include "snapshot/verity_device.h"

/* So many layers are mounted each by itself. Merging takes a mount of its own some milliseconds for every thousand
 * files; see docs/internals.md. */
#define SEPARATE_MOUNTS 16u
#define MERGED_FILE "merged.erofs"

/* What is mounted of a layer: its file, or a device that checks it. */
struct source {
	size_t layer; /* of the image */
	char *path;
	int fd;
	struct verity_device device; /* fd -1 when there is none; else it is the path's and `fd` */
};

struct job {
	const struct mount_stack *stack;
	int dirfd;              /* the mount's directory */
	struct source *sources; /* topmost first, each layer once */
	size_t count;
	bool verity;
};

static int storage_error(const struct job *job, const char *what, const char *name, struct cpull_error *err)
{
	return error_sys(err, CPULL_ERR_STORAGE, errno, "%s %s/mounts/%s/%s", what, job->stack->store->path,
			 job->stack->id, name);
}

/* ---- sources ---- */

/* Lower-case hex, as long as a hash: layer_image_read() has seen to that. */
static void decode_root(const char *hex, uint8_t out[VERITY_HASH_BYTES])
{
	for (size_t i = 0; i < VERITY_HASH_BYTES; i++) {
		unsigned byte = 0;

		sscanf(hex + 2 * i, "%2x", &byte);
		out[i] = (uint8_t)byte;
	}
}

static int open_verity(struct source *source, const struct layer_image *image, const char *hint,
		       struct cpull_error *err)
{
	CLEANUP_FD int file = steal_fd(&source->fd);
	struct verity_image verity = {.fd = file, .data_blocks = image->blocks};
	int rc;

	decode_root(image->root_hash, verity.root);
	rc = verity_device_open(&verity, hint, &source->device, err);
	if (rc)
		return rc;
	source->fd = source->device.fd;
	free(source->path);
	source->path = strdup(source->device.path);
	return source->path ? 0 : error_nomem(err);
}

static int open_source(const struct job *job, struct source *source, struct cpull_error *err)
{
	const struct record_layer *layer = &job->stack->image->layers[source->layer];

	source->path = store_layer_path(job->stack->store, layer->key);
	if (!source->path)
		return error_nomem(err);
	source->fd = open(source->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (source->fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening %s", source->path);
	return job->verity ? open_verity(source, &layer->image, layer->key, err) : 0;
}

static void close_source(struct source *source)
{
	if (source->device.fd >= 0)
		verity_device_close(&source->device);
	else if (source->fd >= 0)
		close(source->fd);
	source->device.fd = source->fd = -1;
	free(STEAL(source->path));
}

static int wrap_layer(const struct job *job, const struct source *source, int rc, struct cpull_error *err)
{
	if (rc && err)
		error_wrap(err, "layer %zu/%zu", source->layer + 1, job->stack->image->layer_count);
	return rc;
}

/* The topmost of each: what lies under a second copy is added and hidden again by the upper one. */
static int pick_layers(struct job *job, struct cpull_error *err)
{
	const struct record *image = job->stack->image;

	job->sources = calloc(image->layer_count, sizeof(*job->sources));
	if (!job->sources)
		return error_nomem(err);
	for (size_t i = image->layer_count; i-- > 0;) {
		size_t k = 0;

		while (k < job->count && strcmp(image->layers[job->sources[k].layer].key, image->layers[i].key) != 0)
			k++;
		if (k == job->count)
			job->sources[job->count++] = (struct source){.layer = i, .fd = -1, .device.fd = -1};
	}
	return 0;
}

/* Where the kernel cannot check what is read, that is said, as somebody went to the length of hash trees. */
static bool choose_verity(const struct job *job)
{
	const struct record *image = job->stack->image;
	struct cpull_error why = {0};

	for (size_t i = 0; i < image->layer_count; i++)
		if (!image->layers[i].image.root_hash[0])
			return false;
	if (verity_device_possible(&why) == 0)
		return true;
	log_warn(job->stack->store->log, "%s: what is read is not checked against the hash trees: %s",
		 job->stack->target, why.message);
	return false;
}

/* ---- mount points ---- */

static int add_point(const struct job *job, struct image_points *out, struct cpull_error *err)
{
	char name[32];
	int rc;

	snprintf(name, sizeof(name), MOUNT_LOWER_DIR "/%zu", out->count);
	out->paths[out->count] = format_string("%s/mounts/%s/%s", job->stack->store->path, job->stack->id, name);
	if (!out->paths[out->count])
		return error_nomem(err);
	rc = fs_make_dir(job->dirfd, name, 0700, err);
	if (!rc)
		out->count++;
	else
		free(STEAL(out->paths[out->count]));
	return rc;
}

void image_points_free(struct image_points *points)
{
	for (size_t i = 0; i < points->count; i++)
		free(points->paths[i]);
	free(points->paths);
	*points = (struct image_points){0};
}

/* ---- each by itself ---- */

static int mount_source(const struct job *job, struct source *source, struct image_points *out,
			struct cpull_error *err)
{
	int rc = open_source(job, source, err);

	if (!rc)
		rc = add_point(job, out, err);
	if (rc)
		return rc;

	/* so what is read is in the page cache once, as the content of files */
	const struct erofs_mount mount = {
		.image = source->path, .target = out->paths[out->count - 1], .direct = true};

	rc = erofs_mount(&mount, job->stack->store->log, NULL, err);
	if (!rc)
		close_source(source); /* the mount has it */
	return rc;
}

static int mount_each(const struct job *job, struct image_points *out, struct cpull_error *err)
{
	int rc = 0;

	for (size_t i = job->count; !rc && i-- > 0;)
		rc = wrap_layer(job, &job->sources[i], mount_source(job, &job->sources[i], out, err), err);
	return rc;
}

/* ---- merged ---- */

/* A UUID of version 8, of what the merged image is of. */
static int merged_uuid(const struct job *job, uint8_t out[16], struct cpull_error *err)
{
	struct hasher *hasher;
	struct digest digest;
	int rc = hasher_new(DIGEST_SHA256, &hasher, err);

	if (rc)
		return rc;
	for (size_t i = 0; !rc && i < job->count; i++) {
		const char *key = job->stack->image->layers[job->sources[i].layer].key;

		rc = hasher_update(hasher, key, strlen(key) + 1);
	}
	if (!rc)
		rc = hasher_final(hasher, &digest);
	hasher_free(hasher);
	if (rc)
		return error_set(err, rc, "computing the UUID of a merged image");
	memcpy(out, digest.value, 16);
	out[6] = (out[6] & 0x0f) | 0x80;
	out[8] = (out[8] & 0x3f) | 0x80;
	return 0;
}

static int note_blocks(void *payload, uint64_t block, const void *data, size_t blocks, struct cpull_error *err)
{
	return verity_add(payload, block, data, blocks, err);
}

static int open_layers(const struct job *job, struct erofs_merge_layer *layers, struct cpull_error *err)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < job->count; i++) {
		struct source *source = &job->sources[i];

		rc = open_source(job, source, err);
		if (!rc)
			rc = erofs_reader_open(source->fd, &layers[i].image, err);
		layers[i].name = job->stack->image->layers[source->layer].key;
		rc = wrap_layer(job, source, rc, err);
	}
	return rc;
}

/* Writes the merged image to fd. */
static int write_merged(const struct job *job, int fd, struct verity *verity, struct layer_image *out,
			struct cpull_error *err)
{
	CLEANUP_FREE struct erofs_merge_layer *layers = calloc(job->count, sizeof(*layers));
	struct erofs_merge_options options = {
		.layers = layers,
		.count = job->count,
		.image = {.fd = fd, .spool_dirfd = job->dirfd, .log = job->stack->store->log,
			  .written = verity ? note_blocks : NULL, .payload = verity}};
	struct erofs_image_result result;
	int rc = layers ? merged_uuid(job, options.image.uuid, err) : error_nomem(err);

	if (!rc)
		rc = open_layers(job, layers, err);
	if (!rc)
		rc = erofs_merge(&options, &result, err);
	if (!rc)
		out->blocks = result.blocks;
	for (size_t i = 0; layers && i < job->count; i++)
		erofs_reader_close(layers[i].image);
	return rc;
}

/* The merged image in `fd`, with a hash tree where the layers are read by theirs. */
static int make_merged(const struct job *job, int fd, struct layer_image *out, struct cpull_error *err)
{
	const struct verity_options options = {.spool_dirfd = job->dirfd};
	struct verity_result result;
	struct verity *verity = NULL;
	int rc = job->verity ? verity_new(&options, &verity, err) : 0;

	if (!rc)
		rc = write_merged(job, fd, verity, out, err);
	if (!rc && verity)
		rc = verity_finish(verity, fd, out->blocks, &result, err);
	if (!rc && verity)
		hex_encode(result.root, sizeof(result.root), out->root_hash);
	verity_free(verity);
	return rc;
}

static int mount_merged_file(const struct job *job, struct source *merged, struct image_points *out,
			     struct cpull_error *err)
{
	CLEANUP_FREE const char **devices = calloc(job->count, sizeof(*devices));
	int rc = devices ? add_point(job, out, err) : error_nomem(err);

	if (rc)
		return rc;
	for (size_t i = 0; i < job->count; i++)
		devices[i] = job->sources[job->count - 1 - i].path;

	const struct erofs_mount mount = {.image = merged->path, .target = out->paths[out->count - 1], .direct = true,
					  .devices = devices, .device_count = job->count};

	return erofs_mount(&mount, job->stack->store->log, NULL, err);
}

static int mount_merged(const struct job *job, struct image_points *out, struct cpull_error *err)
{
	struct source merged = {.fd = -1, .device.fd = -1};
	struct layer_image image = {0};
	int rc = 0;

	merged.path = format_string("%s/mounts/%s/" MERGED_FILE, job->stack->store->path, job->stack->id);
	if (!merged.path)
		return error_nomem(err);
	merged.fd = openat(job->dirfd, MERGED_FILE, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (merged.fd < 0)
		rc = storage_error(job, "making", MERGED_FILE, err);
	if (!rc)
		rc = make_merged(job, merged.fd, &image, err);
	if (!rc && job->verity)
		rc = open_verity(&merged, &image, "merged", err);
	if (!rc)
		rc = mount_merged_file(job, &merged, out, err);
	close_source(&merged);
	for (size_t i = 0; i < job->count; i++)
		close_source(&job->sources[i]);
	return rc;
}

/* What is no reason not to mount them all. */
static bool go_on_without(int code)
{
	return code == CPULL_ERR_SPACE || code == CPULL_ERR_LIMIT || code == CPULL_ERR_UNSUPPORTED;
}

static int mount_all(const struct job *job, struct image_points *out, struct cpull_error *err)
{
	struct cpull_error why = {0};
	int rc;

	if (job->count <= SEPARATE_MOUNTS)
		return mount_each(job, out, err);
	rc = mount_merged(job, out, &why);
	if (!rc || !go_on_without(rc))
		return rc ? error_copy(err, &why) : 0;
	log_info(job->stack->store->log, "%s: %zu layers are mounted one by one: %s", job->stack->target, job->count,
		 why.message);
	(void)!unlinkat(job->dirfd, MERGED_FILE, 0);
	/* its mount point serves the lowest layer */
	while (out->count)
		free(STEAL(out->paths[--out->count]));
	return mount_each(job, out, err);
}

/* ---- the interface ---- */

int mount_images(const struct mount_stack *stack, struct image_points *out, struct cpull_error *err)
{
	CLEANUP_FD int dirfd = fs_open_dir(stack->store->mounts_fd, stack->id);
	struct job job = {.stack = stack, .dirfd = dirfd};
	int rc;

	*out = (struct image_points){.paths = calloc(stack->image->layer_count, sizeof(*out->paths))};
	if (!out->paths)
		return error_nomem(err);
	if (dirfd < 0)
		return storage_error(&job, "opening", "", err);
	rc = fs_make_dir(dirfd, MOUNT_LOWER_DIR, 0700, err);
	if (!rc)
		rc = pick_layers(&job, err);
	job.verity = !rc && choose_verity(&job);
	if (!rc)
		rc = mount_all(&job, out, err);
	for (size_t i = 0; i < job.count; i++)
		close_source(&job.sources[i]);
	free(job.sources);
	return rc;
}
