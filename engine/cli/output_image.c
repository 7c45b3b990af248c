/* SPDX-License-Identifier: Apache-2.0
 *
 * Images and pull results as JSON and as text for people. Called from the commands on the main thread; borrows what
 * it is given and hands out JSON that the caller owns. Any of the JSON functions returns NULL when memory is out.
 */
#include "engine/cli/output.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Frees a half-built object, so that "out of memory" is never a result with a key missing. */
static json_t *whole_or_null(json_t *object, int bad)
{
	if (!bad)
		return object;
	json_decref(object);
	return NULL;
}

static int put_text(json_t *object, const char *key, const char *text)
{
	return json_object_set_new(object, key, output_json_text(text));
}

static int put_bytes(json_t *object, const char *key, uint64_t bytes)
{
	return json_object_set_new(object, key, output_json_bytes(bytes));
}

static int put_bool(json_t *object, const char *key, bool value)
{
	return json_object_set_new(object, key, json_boolean(value));
}

static const char *snapshot_word(enum cpull_snapshot snapshot)
{
	return snapshot == CPULL_SNAPSHOT_EROFS ? "erofs" : "overlay";
}

/* What veritysetup(8) wants to know. */
static json_t *verity_json(const struct cpull_erofs_layer *erofs)
{
	json_t *object = json_object();
	int bad = put_text(object, "root_hash", erofs->root_hash) |
		  put_bytes(object, "data_blocks", erofs->data_blocks) |
		  put_bytes(object, "hash_offset", erofs->data_blocks * 4096) | put_text(object, "salt", "") |
		  put_text(object, "algorithm", "sha256");

	return whole_or_null(object, bad);
}

json_t *output_layer_json(const struct cpull_layer *layer, const struct cpull_erofs_layer *erofs, bool with_reused)
{
	json_t *object = json_object();
	int bad = put_text(object, "digest", layer->digest) | put_text(object, "diff_id", layer->diff_id) |
		  put_text(object, "media_type", layer->media_type) | put_bytes(object, "size", layer->size) |
		  put_bool(object, "encrypted", layer->encrypted) | put_text(object, "path", layer->path);

	if (erofs)
		bad |= put_bytes(object, "file_bytes", erofs->file_bytes);
	if (erofs && erofs->root_hash)
		bad |= json_object_set_new(object, "verity", verity_json(erofs));
	if (with_reused)
		bad |= put_bool(object, "reused", layer->reused);
	return whole_or_null(object, bad);
}

json_t *output_layers_json(const struct cpull_layer *layers, const struct cpull_erofs_layer *erofs, size_t count,
			   bool with_reused)
{
	json_t *array = json_array();
	int bad = 0;

	for (size_t i = 0; i < count; i++)
		bad |= json_array_append_new(array,
					     output_layer_json(&layers[i], erofs ? &erofs[i] : NULL, with_reused));
	return whole_or_null(array, bad);
}

static json_t *stage_json(const struct cpull_stage_stats *stage)
{
	json_t *object = json_object();
	int bad = put_bytes(object, "bytes", stage->bytes) | put_bytes(object, "busy_ns", stage->busy_ns) |
		  put_bytes(object, "wait_input_ns", stage->wait_input_ns) |
		  put_bytes(object, "wait_output_ns", stage->wait_output_ns);

	return whole_or_null(object, bad);
}

static json_t *stats_json(const struct cpull_stats *stats, bool with_stages)
{
	json_t *object = json_object();
	int bad = put_bytes(object, "bytes_fetched", stats->bytes_fetched) |
		  put_bytes(object, "bytes_unpacked", stats->bytes_unpacked) |
		  put_bytes(object, "wall_ms", stats->wall_ms) |
		  put_bytes(object, "peak_rss_bytes", stats->peak_rss_bytes);

	if (with_stages) {
		json_t *stages = json_object();

		bad |= put_bytes(object, "entries", stats->entries) | put_text(object, "io", stats->io) |
		       put_bytes(object, "connections", stats->connections) |
		       json_object_set_new(stages, "fetch", stage_json(&stats->fetch)) |
		       json_object_set_new(stages, "open", stage_json(&stats->open)) |
		       json_object_set_new(stages, "write", stage_json(&stats->write)) |
		       json_object_set_new(stages, "files", stage_json(&stats->files)) |
		       json_object_set_new(object, "stages", stages);
	}
	return whole_or_null(object, bad);
}

json_t *output_result_json(const struct cpull_result *result, bool with_stages)
{
	json_t *object = json_object();
	int bad = put_text(object, "reference", result->reference) |
		  put_text(object, "manifest_digest", result->manifest_digest) |
		  put_text(object, "config_digest", result->config_digest) |
		  put_text(object, "platform", result->platform) |
		  put_text(object, "snapshot", snapshot_word(result->snapshot)) |
		  json_object_set_new(object, "layers",
				      output_layers_json(result->layers, result->erofs_layers, result->layer_count,
							 true)) |
		  json_object_set_new(object, "stats", stats_json(&result->stats, with_stages));

	return whole_or_null(object, bad);
}

static void print_stage(const char *name, const struct cpull_stage_stats *stage)
{
	char bytes[16], busy[24], input[24], output[24];

	fprintf(stderr, "%-7s%11s%12s%13s%14s\n", name, output_size(stage->bytes, bytes),
		output_seconds(stage->busy_ns, busy), output_seconds(stage->wait_input_ns, input),
		output_seconds(stage->wait_output_ns, output));
}

void output_stats_text(const struct cpull_stats *stats)
{
	fprintf(stderr, "%-7s%11s%12s%13s%14s\n", "STAGE", "BYTES", "BUSY", "WAIT INPUT", "WAIT OUTPUT");
	print_stage("fetch", &stats->fetch);
	print_stage("open", &stats->open);
	print_stage("write", &stats->write);
	print_stage("files", &stats->files);
	fprintf(stderr, "%" PRIu64 " entries, bulk writes by %s", stats->entries, stats->io ? stats->io : "?");
	if (stats->connections)
		fprintf(stderr, ", at most %u connection%s a layer", stats->connections,
			stats->connections == 1 ? "" : "s");
	fputc('\n', stderr);
}

void output_summary(FILE *file, const struct cpull_result *result)
{
	char fetched[16], unpacked[16], memory[16], wall[24];
	size_t reused = 0;

	for (size_t i = 0; i < result->layer_count; i++)
		reused += result->layers[i].reused;
	output_clean(file, result->reference);
	fputs(" (", file);
	output_clean(file, result->platform);
	fprintf(file, "): %zu layer%s", result->layer_count, result->layer_count == 1 ? "" : "s");
	if (reused)
		fprintf(file, ", %zu of them already in the store", reused);
	fprintf(file, "; %s fetched, %s unpacked in %s, peak memory %s",
		output_size(result->stats.bytes_fetched, fetched), output_size(result->stats.bytes_unpacked, unpacked),
		output_seconds(result->stats.wall_ms * 1000000, wall),
		output_size(result->stats.peak_rss_bytes, memory));
}

/* Is there a hash tree for every layer? */
static bool has_trees(const struct cpull_image *image)
{
	for (size_t i = 0; i < image->layer_count; i++)
		if (!image->erofs_layers || !image->erofs_layers[i].root_hash)
			return false;
	return true;
}

static uint64_t image_bytes(const struct cpull_image *image)
{
	uint64_t total = 0;

	for (size_t i = 0; i < image->layer_count; i++)
		total += image->layers[i].size;
	return total;
}

json_t *output_image_json(const struct cpull_image *image)
{
	char when[32];
	json_t *object = json_object();
	int bad = put_text(object, "reference", image->reference) |
		  put_text(object, "manifest_digest", image->manifest_digest) |
		  put_text(object, "config_digest", image->config_digest) |
		  put_text(object, "platform", image->platform) |
		  put_text(object, "pulled_at", output_time(image->pulled_at, when)) |
		  put_bool(object, "durable", image->durable) |
		  put_text(object, "snapshot", snapshot_word(image->snapshot)) |
		  put_bytes(object, "size", image_bytes(image)) |
		  json_object_set_new(object, "layers",
				      output_layers_json(image->layers, image->erofs_layers, image->layer_count,
							 false));

	return whole_or_null(object, bad);
}

/* The engine verified and parsed the text; should it not parse here, it is better shown than lost. */
static json_t *document_json(const char *text)
{
	json_t *document = text ? json_loads(text, JSON_ALLOW_NUL, NULL) : NULL;

	return document ? document : output_json_text(text);
}

json_t *output_image_details_json(const struct cpull_image *image)
{
	json_t *object = output_image_json(image);
	int bad = json_object_set_new(object, "config", document_json(image->config)) |
		  json_object_set_new(object, "manifest", document_json(image->manifest));

	return whole_or_null(object, bad);
}

static void print_line(const char *label, const char *text)
{
	printf("%-12s", label);
	output_clean(stdout, text);
	putchar('\n');
}

/* "Cmd" and its like: strings as they are, arrays on one line as JSON, so that words with blanks can be told apart. */
static void print_config_value(const char *label, const json_t *value)
{
	if (json_is_string(value) && json_string_length(value)) {
		print_line(label, json_string_value(value));
		return;
	}
	if (!json_array_size(value) && !json_object_size(value))
		return;
	char *text = json_dumps(value, JSON_ENSURE_ASCII | JSON_COMPACT);
	if (text)
		print_line(label, text);
	free(text);
}

static void print_config(const char *text)
{
	static const struct {
		const char *key;
		const char *label;
	} lines[] = {{"User", "User:"},	      {"WorkingDir", "Directory:"}, {"Entrypoint", "Entrypoint:"},
		     {"Cmd", "Command:"},     {"ExposedPorts", "Ports:"},   {"Volumes", "Volumes:"},
		     {"StopSignal", "Signal:"}};
	json_t *config = text ? json_loads(text, JSON_ALLOW_NUL, NULL) : NULL;
	const json_t *run = json_object_get(config, "config");
	const json_t *item;
	const char *key;
	size_t i;

	print_config_value("Created:", json_object_get(config, "created"));
	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		print_config_value(lines[i].label, json_object_get(run, lines[i].key));
	json_array_foreach(json_object_get(run, "Env"), i, item)
		print_config_value(i ? "" : "Environment:", item);
	i = 0;
	json_object_foreach(json_object_get(run, "Labels"), key, item) {
		printf("%-12s", i++ ? "" : "Labels:");
		output_clean(stdout, key);
		putchar('=');
		output_clean(stdout, json_string_value(item));
		putchar('\n');
	}
	json_decref(config);
}

static void print_erofs_layer(const struct cpull_erofs_layer *erofs)
{
	char size[16];

	printf("       %s on disk", output_size(erofs->file_bytes, size));
	if (erofs->root_hash)
		printf(", root hash %s", erofs->root_hash);
	putchar('\n');
}

void output_image_details_text(const struct cpull_image *image)
{
	char when[32], age[32], size[16];

	print_line("Reference:", image->reference);
	print_line("Manifest:", image->manifest_digest);
	print_line("Config:", image->config_digest);
	print_line("Platform:", image->platform);
	printf("%-12s%s (%s)\n", "Pulled:", output_time(image->pulled_at, when),
	       output_age(image->pulled_at, (int64_t)time(NULL), age));
	printf("%-12s%s\n", "Durable:", image->durable ? "yes" : "no, for this boot only");
	printf("%-12s%s%s\n", "Snapshot:", snapshot_word(image->snapshot),
	       has_trees(image) ? ", with hash trees" : "");
	print_config(image->config);
	printf("%-12s%zu, %s\n", "Layers:", image->layer_count, output_size(image_bytes(image), size));
	for (size_t i = 0; i < image->layer_count; i++) {
		const struct cpull_layer *layer = &image->layers[i];

		printf("%5zu  ", i + 1);
		output_clean(stdout, layer->digest);
		printf("\n       %s, ", output_size(layer->size, size));
		output_clean(stdout, layer->media_type);
		printf("%s\n       ", layer->encrypted ? ", encrypted" : "");
		output_clean(stdout, layer->path);
		putchar('\n');
		if (image->erofs_layers)
			print_erofs_layer(&image->erofs_layers[i]);
	}
}

void output_images_text(const struct cpull_images *images)
{
	size_t count = cpull_images_count(images);
	int reference_columns = 9, platform_columns = 8;
	int64_t now = (int64_t)time(NULL);

	for (size_t i = 0; i < count; i++) {
		const struct cpull_image *image = cpull_images_get(images, i);
		int reference = (int)strlen(image->reference), platform = (int)strlen(image->platform);

		reference_columns = reference > reference_columns ? reference : reference_columns;
		platform_columns = platform > platform_columns ? platform : platform_columns;
	}
	printf("%-*s  %-12s  %-*s  %-12s  %6s  %10s  %s\n", reference_columns, "REFERENCE", "DIGEST",
	       platform_columns, "PLATFORM", "SNAPSHOT", "LAYERS", "SIZE", "PULLED");
	for (size_t i = 0; i < count; i++) {
		const struct cpull_image *image = cpull_images_get(images, i);
		char digest[13], size[16], age[32];

		output_clean(stdout, image->reference);
		printf("%*s  %-12s  ", reference_columns - (int)strlen(image->reference), "",
		       output_short_digest(image->manifest_digest, digest));
		output_clean(stdout, image->platform);
		printf("%*s  %-12s  %6zu  %10s  %s\n", platform_columns - (int)strlen(image->platform), "",
		       has_trees(image) ? "erofs+verity" : snapshot_word(image->snapshot), image->layer_count,
		       output_size(image_bytes(image), size),
		       output_age(image->pulled_at, now, age));
	}
}
