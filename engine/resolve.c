/* SPDX-License-Identifier: Apache-2.0
 *
 * Resolving a reference. Runs on the pull's thread. Every document is hashed before it is parsed, and the bytes that
 * are parsed are the bytes that were hashed.
 */
#include "engine/resolve.h"

#include <string.h>

#include "engine/base/error.h"

/* A tag says nothing about the bytes, but the registry may. What it says in an algorithm that is known here has to
 * be true: otherwise something on the way changed the bytes, or gave an old document under a new name. */
static int check_claim(const struct source_document *document, struct cpull_error *err)
{
	struct digest claim;
	int rc = digest_parse(document->digest, &claim, NULL);

	if (!claim.algorithm)
		return 0; /* none that is known here, or no header at all */
	if (rc)
		return error_set(err, CPULL_ERR_DIGEST,
				 "manifest: Docker-Content-Digest is \"%s\", which no manifest has", document->digest);
	rc = digest_check(&claim, document->text.data, document->text.len, "manifest", err);
	return rc ? error_wrap(err, "it is not what the registry's Docker-Content-Digest says") : 0;
}

/* Bytes of a manifest or index: from the record when the digest is known there, else from the source and checked. */
static int get_document(struct source *source, const char *digest_text, const struct record *known,
			struct source_document *out, struct cpull_error *err)
{
	struct digest digest;
	int rc = digest_text ? digest_parse(digest_text, &digest, err) : 0;

	*out = (struct source_document){0};
	if (rc)
		return rc;
	if (digest_text && known && strcmp(known->manifest_digest, digest_text) == 0) {
		rc = bytes_append(&out->text, known->manifest, strlen(known->manifest), LIMIT_MANIFEST_BYTES);
		return rc ? error_nomem(err) : 0;
	}
	rc = source_get_manifest(source, digest_text, out, err);
	if (!rc)
		rc = digest_text ? digest_check(&digest, out->text.data, out->text.len, "manifest", err)
				 : check_claim(out, err);
	if (rc)
		source_document_free(out);
	return rc;
}

static int check_size(const struct bytes *text, uint64_t want, const char *what, struct cpull_error *err)
{
	if (text->len == want)
		return 0;
	return error_set(err, CPULL_ERR_SIZE, "%s has %zu bytes, its descriptor says %llu", what, text->len,
			 (unsigned long long)want);
}

static int text_digest(const struct bytes *text, char out[DIGEST_TEXT_BYTES], struct cpull_error *err)
{
	struct digest digest;
	int rc = digest_compute(DIGEST_SHA256, text->data, text->len, "manifest", &digest, err);

	if (!rc)
		digest_format(&digest, out);
	return rc;
}

/* Follows a chosen entry of an index, replacing text and *root. */
static int follow_choice(struct source *source, const struct index_choice *choice, const struct record *known,
			 struct resolved *out, enum document_kind *kind, json_t **root, struct cpull_error *err)
{
	struct source_document document;
	int rc;

	bytes_free(&out->manifest_text);
	json_decref(STEAL(*root));
	rc = get_document(source, choice->digest, known, &document, err);
	out->manifest_text = document.text;
	if (!rc)
		rc = check_size(&out->manifest_text, choice->size, "manifest", err);
	if (!rc)
		rc = document_parse(out->manifest_text.data, out->manifest_text.len,
				    document.content_type[0] ? document.content_type : choice->media_type, kind, root,
				    err);
	if (!rc)
		snprintf(out->manifest_digest, sizeof(out->manifest_digest), "%s", choice->digest);
	return rc;
}

/* An index leads to a manifest, perhaps over one more index. */
static int walk_indexes(struct source *source, const struct platform *want, const struct record *known,
			struct resolved *out, enum document_kind kind, json_t **root, struct cpull_error *err)
{
	for (unsigned depth = 0; kind == DOCUMENT_INDEX; depth++) {
		struct index_choice choice;

		if (depth == LIMIT_INDEX_DEPTH)
			return error_set(err, CPULL_ERR_LIMIT, "indexes nested more than %u deep", LIMIT_INDEX_DEPTH);

		int rc = index_choose(*root, want, &choice, err);

		if (!rc)
			rc = follow_choice(source, &choice, known, out, &kind, root, err);
		if (rc)
			return rc;
	}
	return 0;
}

/* The document that the reference names, before any index is followed. */
static int first_document(struct source *source, const struct reference *reference, const struct record *known,
			  struct resolved *out, enum document_kind *kind, json_t **root, struct cpull_error *err)
{
	struct source_document document;
	int rc = get_document(source, reference->digest, known, &document, err);

	out->manifest_text = document.text;
	if (!rc)
		rc = document_parse(out->manifest_text.data, out->manifest_text.len, document.content_type, kind, root,
				    err);
	if (rc)
		return rc;
	if (reference->digest) {
		snprintf(out->manifest_digest, sizeof(out->manifest_digest), "%s", reference->digest);
		return 0;
	}
	return text_digest(&out->manifest_text, out->manifest_digest, err);
}

/* A layout's index.json names images by annotation; it is an index of references, not of platforms. */
static int first_of_layout(struct source *source, const struct reference *reference, const struct record *known,
			   struct resolved *out, enum document_kind *kind, json_t **root, struct cpull_error *err)
{
	struct source_document document;
	struct index_choice choice;
	int rc = get_document(source, NULL, NULL, &document, err);

	out->manifest_text = document.text;
	if (!rc)
		rc = json_parse(out->manifest_text.data, out->manifest_text.len, CPULL_ERR_MANIFEST, "index.json", root,
				err);
	if (!rc)
		rc = layout_choose(*root, reference->digest ? reference->digest : reference->tag, &choice, err);
	return rc ? rc : follow_choice(source, &choice, known, out, kind, root, err);
}

static int get_config(struct source *source, const struct record *known, struct resolved *out, struct cpull_error *err)
{
	const struct descriptor *desc = &out->manifest.config;
	struct digest digest;
	int rc = digest_parse(desc->digest, &digest, err);

	if (!rc && known && strcmp(known->config_digest, desc->digest) == 0)
		rc = bytes_append(&out->config_text, known->config, strlen(known->config), LIMIT_CONFIG_BYTES)
			     ? error_nomem(err)
			     : 0;
	else if (!rc)
		rc = source_get_blob(source, desc->digest, desc->size, LIMIT_CONFIG_BYTES, &out->config_text, err);
	if (!rc)
		rc = check_size(&out->config_text, desc->size, "image config", err);
	if (!rc)
		rc = digest_check(&digest, out->config_text.data, out->config_text.len, "image config", err);
	return rc;
}

/* One digest of each kind a layer; the lists must pair up. */
static int pair_layers(struct resolved *out, struct cpull_error *err)
{
	size_t count = out->manifest.layer_count;

	if (out->config.diff_id_count != count)
		return error_set(err, CPULL_ERR_MANIFEST, "the manifest has %zu layers, the image config %zu diff_ids",
				 count, out->config.diff_id_count);
	if (count == 0)
		return error_set(err, CPULL_ERR_UNSUPPORTED, "the image has no layers");
	out->blob_digests = calloc(count, sizeof(*out->blob_digests));
	out->diff_ids = calloc(count, sizeof(*out->diff_ids));
	if (!out->blob_digests || !out->diff_ids)
		return error_nomem(err);
	for (size_t i = 0; i < count; i++) {
		int rc = digest_parse(out->manifest.layers[i].digest, &out->blob_digests[i], err);

		if (!rc)
			rc = digest_parse(out->config.diff_ids[i], &out->diff_ids[i], err);
		if (rc)
			return error_wrap(err, "layer %zu", i + 1);
	}
	return 0;
}

static int parse_config(struct resolved *out, struct cpull_error *err)
{
	int rc = image_config_parse(out->config_text.data, out->config_text.len, &out->config, err);

	if (rc)
		return rc;
	platform_format(&out->config.platform, out->platform);
	return pair_layers(out, err);
}

int resolve_image(struct source *source, const struct reference *reference, const struct platform *want,
		  const struct record *known, struct log *log, struct resolved *out, struct cpull_error *err)
{
	CLEANUP_JSON json_t *root = NULL;
	enum document_kind kind;
	int rc;

	*out = (struct resolved){0};
	rc = reference->transport == REFERENCE_LAYOUT
		     ? first_of_layout(source, reference, known, out, &kind, &root, err)
		     : first_document(source, reference, known, out, &kind, &root, err);
	if (!rc)
		rc = walk_indexes(source, want, known, out, kind, &root, err);
	if (!rc)
		rc = manifest_from_json(STEAL(root), &out->manifest, err);
	if (!rc)
		rc = get_config(source, known, out, err);
	if (!rc)
		rc = parse_config(out, err);
	if (rc) {
		resolved_free(out);
		return rc;
	}
	if (out->config.platform.arch[0] && strcmp(want->arch, out->config.platform.arch) != 0)
		log_warn(log, "%s is for %s, not for %s/%s", reference->name, out->platform, want->os, want->arch);
	return 0;
}

int resolve_record(const struct record *known, struct resolved *out, struct cpull_error *err)
{
	CLEANUP_JSON json_t *root = NULL;
	enum document_kind kind;
	int rc;

	*out = (struct resolved){0};
	snprintf(out->manifest_digest, sizeof(out->manifest_digest), "%s", known->manifest_digest);
	rc = bytes_append(&out->manifest_text, known->manifest, strlen(known->manifest), LIMIT_MANIFEST_BYTES);
	if (!rc)
		rc = bytes_append(&out->config_text, known->config, strlen(known->config), LIMIT_CONFIG_BYTES);
	if (rc)
		error_nomem(err);
	if (!rc)
		rc = document_parse(out->manifest_text.data, out->manifest_text.len, NULL, &kind, &root, err);
	if (!rc)
		rc = manifest_from_json(STEAL(root), &out->manifest, err);
	if (!rc)
		rc = parse_config(out, err);
	if (rc)
		resolved_free(out);
	return rc;
}

void resolved_free(struct resolved *resolved)
{
	free(resolved->blob_digests);
	free(resolved->diff_ids);
	image_config_free(&resolved->config);
	manifest_free(&resolved->manifest);
	bytes_free(&resolved->config_text);
	bytes_free(&resolved->manifest_text);
	*resolved = (struct resolved){0};
}
