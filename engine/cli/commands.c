/* SPDX-License-Identifier: Apache-2.0
 *
 * The program's commands: each opens the engine, makes the library's call of the same name and prints what it gave.
 * Called once by main() on the main thread. The pull has its own file.
 */
#include "engine/cli/commands.h"

#include <stdio.h>
#include <string.h>

#include "engine/cli/fsck.h"
#include "engine/cli/help.h"
#include "engine/cli/output.h"
#include "engine/cli/pull.h"

static int json_nomem(json_t *object, struct cpull_error *err)
{
	json_decref(object);
	return output_error(err, CPULL_ERR_NOMEM, "out of memory");
}

static int command_mount(struct cpull_engine *engine, const struct options *options, struct cpull_error *err)
{
	const char *name = options->operands[0], *dir = options->operands[1];
	struct cpull_mount_options mount = {.size = sizeof(mount), .read_write = options->read_write};
	int code = cpull_mount(engine, name, dir, &mount, err);

	if (code)
		return code;
	if (options->format == FORMAT_TEXT) {
		puts(dir);
		return CPULL_OK;
	}
	json_t *object = json_object();
	if (json_object_set_new(object, "image", output_json_text(name)) |
	    json_object_set_new(object, "dir", output_json_text(dir)) |
	    json_object_set_new(object, "read_write", json_boolean(options->read_write)))
		return json_nomem(object, err);
	return output_json(object, false, err);
}

static int command_unmount(struct cpull_engine *engine, const struct options *options, struct cpull_error *err)
{
	const char *dir = options->operands[0];
	int code = cpull_unmount(engine, dir, err);

	if (code)
		return code;
	if (options->format == FORMAT_TEXT) {
		puts(dir);
		return CPULL_OK;
	}
	json_t *object = json_object();
	if (json_object_set_new(object, "dir", output_json_text(dir)))
		return json_nomem(object, err);
	return output_json(object, false, err);
}

static int print_removed(const struct cpull_removed *removed, const struct options *options, struct cpull_error *err)
{
	if (options->format == FORMAT_TEXT) {
		printf("removed %zu image%s and %zu layer%s\n", removed->images, removed->images == 1 ? "" : "s",
		       removed->layers, removed->layers == 1 ? "" : "s");
		return CPULL_OK;
	}
	json_t *object = json_object();
	if (json_object_set_new(object, "images", output_json_bytes(removed->images)) |
	    json_object_set_new(object, "layers", output_json_bytes(removed->layers)))
		return json_nomem(object, err);
	return output_json(object, false, err);
}

static int print_list(const struct cpull_images *images, const struct options *options, struct cpull_error *err)
{
	if (options->format == FORMAT_TEXT) {
		output_images_text(images);
		return CPULL_OK;
	}
	json_t *array = json_array();
	for (size_t i = 0; i < cpull_images_count(images); i++)
		if (json_array_append_new(array, output_image_json(cpull_images_get(images, i))))
			return json_nomem(array, err);
	return output_json(array, true, err);
}

static int print_image(const struct cpull_images *images, const struct options *options, struct cpull_error *err)
{
	const struct cpull_image *image = cpull_images_find(images, options->operands[0], err);

	if (!image)
		return err->code ? err->code : CPULL_ERR_NOT_FOUND;
	if (options->format == FORMAT_JSON)
		return output_json(output_image_details_json(image), true, err);
	output_image_details_text(image);
	return CPULL_OK;
}

static int command_images(struct cpull_engine *engine, const struct options *options, struct cpull_error *err)
{
	struct cpull_images *images = NULL;
	int code = cpull_images_load(engine, &images, err);

	if (!code && options->command == COMMAND_LIST)
		code = print_list(images, options, err);
	else if (!code)
		code = print_image(images, options, err);
	cpull_images_free(images);
	return code;
}

static int command_version(const struct options *options, struct cpull_error *err)
{
	static const char *const features[] = {CLI_FEATURES};
	size_t count = sizeof(features) / sizeof(features[0]);

	if (options->format == FORMAT_TEXT) {
		printf("coco-pull %s (libcocopull %s)\nfeatures:", CLI_VERSION, cpull_version());
		for (size_t i = 0; i < count; i++)
			printf(" %s", features[i]);
		putchar('\n');
		return CPULL_OK;
	}
	json_t *array = json_array(), *object = json_object();
	int bad = 0;
	for (size_t i = 0; i < count; i++)
		bad |= json_array_append_new(array, json_string(features[i]));
	if (bad | json_object_set_new(object, "version", json_string(CLI_VERSION)) |
	    json_object_set_new(object, "library_version", json_string(cpull_version())) |
	    json_object_set_new(object, "features", array))
		return json_nomem(object, err);
	return output_json(object, false, err);
}

/* The commands that work on the store and are done in one call. */
static int run_on_store(struct options *options, struct cpull_error *err)
{
	struct progress *progress = progress_new(PROGRESS_NONE, false);
	struct cpull_engine *engine = NULL;
	struct cpull_removed removed = {0};

	if (!progress)
		return output_error(err, CPULL_ERR_NOMEM, "out of memory");
	int code = pull_open_engine(options, progress, &engine, err);
	if (!code)
		switch (options->command) {
		case COMMAND_MOUNT:
			code = command_mount(engine, options, err);
			break;
		case COMMAND_UNMOUNT:
			code = command_unmount(engine, options, err);
			break;
		case COMMAND_RM:
			code = cpull_image_remove(engine, options->operands[0], &removed, err);
			code = code ? code : print_removed(&removed, options, err);
			break;
		case COMMAND_PRUNE:
			code = cpull_prune(engine, &removed, err);
			code = code ? code : print_removed(&removed, options, err);
			break;
		default:
			code = command_images(engine, options, err);
			break;
		}
	cpull_engine_free(engine);
	progress_free(progress);
	return code;
}

int command_run(struct options *options, struct cpull_error *err)
{
	switch (options->command) {
	case COMMAND_PULL:
		return pull_run(options, err);
	case COMMAND_FSCK:
		return fsck_run(options, err);
	case COMMAND_VERSION:
		return command_version(options, err);
	case COMMAND_HELP:
		return help_print(options->operand_count ? options->operands[0] : NULL, err);
	default:
		return run_on_store(options, err);
	}
}
