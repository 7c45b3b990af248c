/* SPDX-License-Identifier: Apache-2.0
 *
 * Indexes and manifest lists: the one entry that a pull goes on with, by platform, or by name in a layout's index.json.
 * Called by the engine at most LIMIT_INDEX_DEPTH times a pull, on the caller's thread; the choice owns copies, so the
 * index can go.
 */
#include <string.h>

#include "engine/base/error.h"
#include "fetch/document.h"
#include "fetch/platform.h"
#include "fetch/reference.h"

#define ANNOTATION_ZSTD "io.github.containers.compression.zstd"
#define ANNOTATION_REFERENCE_TYPE "vnd.docker.reference.type" /* BuildKit's attestations */
#define ANNOTATION_REF_NAME "org.opencontainers.image.ref.name"
#define OFFER_BYTES 600 /* of the names that an error message lists */

static const char *const platform_names[] = {"os", "architecture", "variant", NULL};

/* The list in an error message: names once each, until it is full. */
struct offer {
	char text[OFFER_BYTES];
	size_t len;
	bool full;
};

static void offer_add(struct offer *offer, const char *name)
{
	char quoted[QUOTE_BYTES];
	char item[QUOTE_BYTES + 4];

	if (offer->full)
		return;
	size_t len = (size_t)snprintf(item, sizeof(item), " %s,", quote_name(name, quoted));

	if (strstr(offer->text, item))
		return;
	if (offer->len + len + sizeof(" ...") > sizeof(offer->text)) {
		offer->full = true;
		memcpy(offer->text + offer->len, " ...", sizeof(" ..."));
		return;
	}
	memcpy(offer->text + offer->len, item, len + 1);
	offer->len += len;
}

static const char *offer_text(struct offer *offer)
{
	if (!offer->len)
		return " nothing";
	if (!offer->full)
		offer->text[offer->len - 1] = 0; /* the last comma */
	return offer->text;
}

static const char *annotation(const json_t *entry, const char *key)
{
	return json_string_at(json_object_get(entry, "annotations"), key);
}

/* The entries of an index that may be read at all. */
static int entries_of(const json_t *root, const json_t **out, struct cpull_error *err)
{
	*out = json_object_get(root, "manifests");
	if (!json_is_array(*out))
		return error_set(err, CPULL_ERR_MANIFEST, "index: manifests is missing or not an array");
	if (json_array_size(*out) > LIMIT_INDEX_ENTRIES)
		return error_set(err, CPULL_ERR_LIMIT, "index: %zu entries are above the limit of %u",
				 json_array_size(*out), LIMIT_INDEX_ENTRIES);
	return 0;
}

/* What every entry must be for the choice among them to mean the same to every reader; digest and size are checked of
 * the one that is chosen. *platform is NULL when the entry has none. */
static int check_entry(const json_t *entry, size_t number, const json_t **platform, struct cpull_error *err)
{
	char what[40];

	snprintf(what, sizeof(what), "index entry %zu", number);
	if (!json_is_object(entry))
		return error_set(err, CPULL_ERR_MANIFEST, "%s: not an object", what);
	int rc = json_check_spelling(entry, descriptor_names, what, err);

	if (rc)
		return rc;
	if (!json_string_at(entry, "mediaType"))
		return error_set(err, CPULL_ERR_MANIFEST, "%s: mediaType is missing or not a string", what);
	*platform = json_member(entry, "platform");
	if (!*platform)
		return 0;
	if (!json_is_object(*platform))
		return error_set(err, CPULL_ERR_MANIFEST, "%s: platform is not an object", what);
	return json_check_spelling(*platform, platform_names, what, err);
}

static int choose_entry(const json_t *entry, struct index_choice *out, struct cpull_error *err)
{
	struct descriptor desc;
	int rc = descriptor_parse(entry, DESCRIPTOR_DOCUMENT, "chosen index entry", &desc, err);

	if (rc)
		return rc;

	const json_t *platform = json_member(entry, "platform");

	/* Both fit: the digest's grammar and the list of media types bound them. */
	snprintf(out->digest, sizeof(out->digest), "%s", desc.digest);
	snprintf(out->media_type, sizeof(out->media_type), "%s", desc.media_type);
	out->size = desc.size;
	platform_set(&out->platform, json_string_at(platform, "os"), json_string_at(platform, "architecture"),
		     json_string_at(platform, "variant"));
	return 0;
}

/* Readers must pass over media types that they do not know (image-spec, image-index). */
static bool is_document(const json_t *entry)
{
	enum media_kind kind = media_kind_of(json_string_at(entry, "mediaType"));

	return kind == MEDIA_MANIFEST || kind == MEDIA_INDEX;
}

/* Signatures, SBOMs and attestations that stand beside the images and are described as manifests as well. */
static bool is_attached(const json_t *entry, const json_t *platform)
{
	const char *artifact = json_string_at(entry, "artifactType");

	if (annotation(entry, ANNOTATION_REFERENCE_TYPE))
		return true;
	return !platform && artifact && media_kind_of(artifact) != MEDIA_CONFIG;
}

/* The best entry so far. */
struct best {
	const json_t *entry;
	int rank;
	bool zstd;
};

/* Lower rank wins, then zstd, which unpacks fastest, then whoever comes first. */
static void consider(const json_t *entry, int rank, struct best *best)
{
	const char *annotated = annotation(entry, ANNOTATION_ZSTD);
	bool zstd = annotated && !strcmp(annotated, "true");

	if (best->entry && (rank > best->rank || (rank == best->rank && (best->zstd || !zstd))))
		return;
	*best = (struct best){entry, rank, zstd};
}

static void offer_platform(struct offer *offer, const char *os, const char *arch, const char *variant)
{
	char text[QUOTE_BYTES];

	snprintf(text, sizeof(text), "%.40s/%.40s%s%.40s", os ? os : "?", arch ? arch : "?",
		 variant && variant[0] ? "/" : "", variant ? variant : "");
	offer_add(offer, text);
}

int index_choose(const json_t *root, const struct platform *want, struct index_choice *out, struct cpull_error *err)
{
	struct best best = {0};
	struct offer offer = {0};
	const json_t *unmarked = NULL; /* an entry without platform: the last resort */
	const json_t *entries, *entry, *platform;
	size_t i;

	*out = (struct index_choice){0};
	int rc = entries_of(root, &entries, err);

	if (rc)
		return rc;
	json_array_foreach(entries, i, entry) {
		rc = check_entry(entry, i, &platform, err);
		if (rc)
			return rc;
		if (!is_document(entry) || is_attached(entry, platform))
			continue;
		if (!platform) {
			unmarked = unmarked ? unmarked : entry;
			continue;
		}

		const char *os = json_string_at(platform, "os");
		const char *arch = json_string_at(platform, "architecture");
		const char *variant = json_string_at(platform, "variant");
		int rank = platform_rank(want, os, arch, variant);

		if (rank != PLATFORM_NO_MATCH)
			consider(entry, rank, &best);
		offer_platform(&offer, os, arch, variant);
	}
	if (best.entry || unmarked)
		return choose_entry(best.entry ? best.entry : unmarked, out, err);

	char wanted[100];

	platform_format(want, wanted);
	return error_set(err, CPULL_ERR_PLATFORM, "index: nothing for platform %s; on offer:%s", wanted,
			 offer_text(&offer));
}

static bool named(const json_t *entry, const char *ref, bool by_digest)
{
	const char *name = by_digest ? json_string_at(entry, "digest") : annotation(entry, ANNOTATION_REF_NAME);

	return !ref || (name && !strcmp(name, ref));
}

static int no_such_name(const json_t *entries, const char *ref, struct cpull_error *err)
{
	struct offer offer = {0};
	const json_t *entry;
	char quoted[QUOTE_BYTES];
	size_t i;

	json_array_foreach(entries, i, entry) {
		const char *name = annotation(entry, ANNOTATION_REF_NAME);

		if (!name)
			name = json_string_at(entry, "digest");
		if (name)
			offer_add(&offer, name);
	}
	if (!offer.len)
		return error_set(err, CPULL_ERR_NOT_FOUND, "layout: index.json lists no image");
	if (!ref)
		return error_set(err, CPULL_ERR_NOT_FOUND,
				 "layout: %zu images in index.json, name one as oci:DIR:REF; there are:%s",
				 json_array_size(entries), offer_text(&offer));
	return error_set(err, CPULL_ERR_NOT_FOUND, "layout: no image \"%s\" in index.json; there are:%s",
			 quote_name(ref, quoted), offer_text(&offer));
}

int layout_choose(const json_t *root, const char *ref, struct index_choice *out, struct cpull_error *err)
{
	bool by_digest = ref && reference_digest_valid(ref);
	const json_t *found = NULL;
	const json_t *entries, *entry, *platform;
	size_t i;

	*out = (struct index_choice){0};
	int rc = entries_of(root, &entries, err);

	if (rc)
		return rc;
	json_array_foreach(entries, i, entry) {
		rc = check_entry(entry, i, &platform, err);
		if (rc)
			return rc;
		if (!named(entry, ref, by_digest))
			continue;
		/* The same image listed twice is one image; two images of one name are a guess, and none is made. */
		if (found && !json_equal(json_object_get(found, "digest"), json_object_get(entry, "digest")))
			return ref ? error_set(err, CPULL_ERR_MANIFEST,
					       "layout: index.json has two images of that name; name one by digest") :
				     no_such_name(entries, ref, err);
		found = found ? found : entry;
	}
	return found ? choose_entry(found, out, err) : no_such_name(entries, ref, err);
}
