/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a layer is written to, by its form: a directory tree, or an EROFS image whose blocks a hash tree is made of
 * while they are written; and what is kept to check it by: a list of the directory tree, or sums of an image without a
 * hash tree. Used by the layer's write thread, and after that by the pull's; owns the writer, and with it
 * the struct layer_fs.
 */
#include "engine/layer_output.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "crypto/digest.h"
#include "engine/base/error.h"
#include "snapshot/dir_fs.h"
#include "snapshot/erofs_fs.h"
#include "snapshot/erofs_reader.h"
#include "snapshot/erofs_spool.h"
#include "snapshot/image_sums.h"
#include "snapshot/recorded_fs.h"
#include "snapshot/verity.h"

struct layer_output {
	struct layer_output_options o;
	struct layer_writer *writer; /* owns fs */
	struct layer_fs *fs;
	struct verity *verity;   /* of LAYER_EROFS_VERITY */
	struct image_sums *sums; /* of LAYER_EROFS */
	uint8_t uuid[16];
	struct layer_image image;
	struct contents_facts contents;
};

/* Of the content alone, so that a layer becomes the same image wherever it is pulled; no two layers of a stack have the
 * same. The bits that make it a UUID of version 8 keep it from being zero, which overlayfs takes for none. */
static int make_uuid(const char *diff_id, uint8_t out[16], struct cpull_error *err)
{
	static const char what[] = "coco-pull EROFS layer 1 ";
	CLEANUP_FREE char *text = format_string("%s%s", what, diff_id);
	struct digest digest;

	if (!text)
		return error_nomem(err);

	int rc = digest_compute(DIGEST_SHA256, text, strlen(text), "layer's UUID", &digest, err);

	if (rc)
		return rc;
	memcpy(out, digest.value, 16);
	out[6] = (out[6] & 0x0f) | 0x80;
	out[8] = (out[8] & 0x3f) | 0x80;
	return 0;
}

static int note_blocks(void *payload, uint64_t block, const void *data, size_t blocks, struct cpull_error *err)
{
	struct layer_output *output = payload;

	return output->verity ? verity_add(output->verity, block, data, blocks, err)
			      : image_sums_add(output->sums, block, data, blocks, err);
}


static int make_verity(struct layer_output *output, struct cpull_error *err)
{
	struct verity_options options = {.spool_dirfd = output->o.stage->fd};

	memcpy(options.uuid, output->uuid, sizeof(options.uuid));
	return verity_new(&options, &output->verity, err);
}

static int make_image_fs(struct layer_output *output, struct cpull_error *err)
{
	struct erofs_image_options options = {.fd = output->o.stage->content_fd,
					      .spool_dirfd = output->o.stage->fd,
					      .io = output->o.io,
					      .log = output->o.log,
					      .written = note_blocks,
					      .payload = output};
	int rc = make_uuid(output->o.diff_id, output->uuid, err);

	if (!rc)
		rc = output->o.stage->form == LAYER_EROFS_VERITY ? make_verity(output, err)
								 : image_sums_new(&output->sums, err);
	memcpy(options.uuid, output->uuid, sizeof(options.uuid));
	return rc ? rc : erofs_fs_new(&options, &output->fs, err);
}

static int make_dir_fs(struct layer_output *output, struct cpull_error *err)
{
	const struct dir_fs_options options = {
		.dirfd = output->o.stage->content_fd, .io = output->o.io, .log = output->o.log};
	struct layer_fs *disk;
	int rc = dir_fs_new(&options, &disk, err);

	return rc ? rc : recorded_fs_new(disk, output->o.stage->fd, LAYER_CONTENTS_FILE, &output->fs, err);
}

static int make_fs(struct layer_output *output, struct cpull_error *err)
{
	return layer_form_is_erofs(output->o.stage->form) ? make_image_fs(output, err) : make_dir_fs(output, err);
}

size_t layer_output_memory(enum layer_form form, enum cpull_io io)
{
	size_t blocks = EROFS_BLOCKS_MEMORY_BYTES * (io == CPULL_IO_SYNC ? 1 : 2);

	if (!layer_form_is_erofs(form))
		return 0;
	return blocks + EROFS_SPOOL_MEMORY_BYTES + (form == LAYER_EROFS_VERITY ? VERITY_MEMORY_BYTES : 0);
}

int layer_output_new(const struct layer_output_options *options, struct layer_output **out, struct cpull_error *err)
{
	struct layer_output *output = calloc(1, sizeof(*output));
	struct layer_writer_options writer = {0};
	int rc;

	if (!output)
		return error_nomem(err);
	output->o = *options;
	rc = make_fs(output, err);
	writer.fs = output->fs;
	if (!rc)
		rc = layer_writer_new(&writer, &output->writer, err);
	if (rc) {
		layer_output_free(output);
		return rc;
	}
	*out = output;
	return 0;
}

void layer_output_free(struct layer_output *output)
{
	if (!output)
		return;
	layer_writer_free(output->writer);
	verity_free(output->verity);
	image_sums_free(output->sums);
	free(output);
}

struct layer_writer *layer_output_writer(struct layer_output *output)
{
	return output->writer;
}

/* ---- tying ---- */

static int open_lowers(const struct layer_output *output, const struct layer_ref *const *refs, size_t count,
		       struct lower_layer *out, struct cpull_error *err)
{
	for (size_t i = 0; i < count; i++) {
		out[i] = (struct lower_layer){.dirfd = refs[i]->fd};
		if (!layer_form_is_erofs(output->o.stage->form))
			continue;
		out[i].dirfd = -1;

		int rc = erofs_reader_open(refs[i]->fd, &out[i].image, err);

		if (rc)
			return error_wrap(err, "the layer below, %s", refs[i]->key);
	}
	return 0;
}

int layer_output_tie(struct layer_output *output, const struct layer_ref *const *lowers, size_t count,
		     struct cpull_error *err)
{
	CLEANUP_FREE struct lower_layer *opened = calloc(count + 1, sizeof(*opened));

	if (!opened)
		return error_nomem(err);

	int rc = open_lowers(output, lowers, count, opened, err);

	if (!rc)
		rc = layer_writer_tie(output->writer, opened, count, err);
	for (size_t i = 0; i < count; i++)
		erofs_reader_close(opened[i].image);
	return rc;
}

/* ---- the end ---- */

static int seal_tree(struct layer_output *output, struct cpull_error *err)
{
	struct verity_result result;
	int rc = verity_finish(output->verity, output->o.stage->content_fd, output->image.blocks, &result, err);

	if (!rc)
		hex_encode(result.root, sizeof(result.root), output->image.root_hash);
	return rc;
}

static int seal_sums(struct layer_output *output, struct cpull_error *err)
{
	CLEANUP_FD int fd = openat(output->o.stage->fd, LAYER_CONTENTS_FILE,
				   O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "making %s of a layer", LAYER_CONTENTS_FILE);
	return image_sums_finish(output->sums, fd, &output->contents, err);
}

int layer_output_seal(struct layer_output *output, struct cpull_error *err)
{
	int rc = layer_writer_seal(output->writer, err);

	if (rc)
		return rc;
	if (layer_form_is_erofs(output->o.stage->form)) {
		output->image.blocks = erofs_fs_result(output->fs)->blocks;
		return output->verity ? seal_tree(output, err) : seal_sums(output, err);
	}
	output->contents = *recorded_fs_facts(output->fs);
	return 0;
}

const struct contents_facts *layer_output_contents(const struct layer_output *output)
{
	return &output->contents;
}

const struct layer_image *layer_output_image(const struct layer_output *output)
{
	return &output->image;
}
