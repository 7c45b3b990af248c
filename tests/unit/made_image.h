/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests of a whole pull: images of this test's own making in every form that a layer can have, what their layers
 * must look like when they are unpacked, and an OCI layout of them. made_registry.h serves them. Include behind
 * cmocka.h; one program includes it once.
 */
#ifndef TESTS_UNIT_MADE_IMAGE_H
#define TESTS_UNIT_MADE_IMAGE_H

#include <openssl/hmac.h>
#include <zlib.h>
#include <zstd.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "engine/coco_pull.h"
#include "tests/unit/oci_layout.h"
#include "tests/unit/wraps.h"

enum made_form { MADE_TAR, MADE_GZIP, MADE_ZSTD };

struct made_file {
	char name[60];
	size_t at, len; /* its data in the tar */
};

struct made_layer {
	struct bytes tar;
	struct made_file *files;
	size_t file_count;
	enum made_form form;
	struct bytes blob;
	char digest[DIGEST_TEXT_BYTES];
	char diff_id[DIGEST_TEXT_BYTES];
	char *annotations; /* JSON, of an encrypted layer */
};

struct made_text {
	struct bytes text;
	char digest[DIGEST_TEXT_BYTES];
};

struct made_image {
	struct made_text config, manifest;
	const struct made_layer **layers;
	size_t layer_count;
};

/* xorshift: a seed names all that is made of it. */
static inline uint32_t made_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

static inline void made_digest(const struct bytes *data, char out[DIGEST_TEXT_BYTES])
{
	struct digest digest;

	must(!digest_compute(DIGEST_SHA256, data->data, data->len, "test data", &digest, NULL), "hashing");
	digest_format(&digest, out);
}

/* ---- layers ---- */

static inline void made_add_file(struct made_layer *l, const char *name, const void *data, size_t len)
{
	l->files = realloc(l->files, (l->file_count + 1) * sizeof(*l->files));
	must(l->files, "memory");

	struct made_file *file = &l->files[l->file_count++];

	*file = (struct made_file){.at = l->tar.len + 512, .len = len};
	snprintf(file->name, sizeof(file->name), "%s", name);
	add_entry(&l->tar, '0', name, "", data, len);
}

/* To be added first. A layer without it takes its root's attributes from those below it, and waits for them. */
static inline void made_add_root(struct made_layer *l)
{
	add_entry(&l->tar, '5', "./", "", "", 0);
}

static inline void made_reserve(struct bytes *out, size_t room)
{
	out->data = malloc(room);
	must(out->data, "memory");
	out->cap = room;
}

/* level: of gzip 0 to 9; of zstd the logarithm of its window. */
static inline void made_compress(struct made_layer *l, int level)
{
	if (l->form == MADE_TAR) {
		add_bytes(&l->blob, l->tar.data, l->tar.len);
	} else if (l->form == MADE_GZIP) {
		z_stream z = {0};

		must(deflateInit2(&z, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK, "deflate");
		made_reserve(&l->blob, deflateBound(&z, l->tar.len));
		z.next_in = (Bytef *)l->tar.data;
		z.avail_in = (uInt)l->tar.len;
		z.next_out = (Bytef *)l->blob.data;
		z.avail_out = (uInt)l->blob.cap;
		must(deflate(&z, Z_FINISH) == Z_STREAM_END, "deflate");
		l->blob.len = z.total_out;
		deflateEnd(&z);
	} else {
		ZSTD_CCtx *z = ZSTD_createCCtx();
		ZSTD_inBuffer in = {l->tar.data, l->tar.len, 0};

		made_reserve(&l->blob, ZSTD_compressBound(l->tar.len));
		ZSTD_outBuffer out = {l->blob.data, l->blob.cap, 0};

		ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, 1);
		ZSTD_CCtx_setParameter(z, ZSTD_c_windowLog, level);
		/* in two steps, so that the length is not in the header and the whole window is asked for */
		in.size = l->tar.len / 2;
		must(!ZSTD_isError(ZSTD_compressStream2(z, &out, &in, ZSTD_e_flush)), "zstd");
		in.size = l->tar.len;
		must(ZSTD_compressStream2(z, &out, &in, ZSTD_e_end) == 0, "zstd");
		l->blob.len = out.pos;
		ZSTD_freeCCtx(z);
	}
}

/* Encrypts the blob for the key, as ocicrypt does. */
static inline void made_encrypt(struct made_layer *l, EVP_PKEY *pkey)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t symkey[32], nonce[16], mac[32];
	int len;

	for (uint8_t i = 0; i < 32; i++)
		symkey[i] = i;
	for (uint8_t i = 0; i < 16; i++)
		nonce[i] = 0xf0 + i;
	must(EVP_EncryptInit_ex(ctx, EVP_aes_256_ctr(), NULL, symkey, nonce) == 1 &&
		     EVP_EncryptUpdate(ctx, (uint8_t *)l->blob.data, &len, (uint8_t *)l->blob.data,
				       (int)l->blob.len) == 1 &&
		     HMAC(EVP_sha256(), symkey, 32, (uint8_t *)l->blob.data, l->blob.len, mac, NULL),
	     "encrypting");
	EVP_CIPHER_CTX_free(ctx);

	CLEANUP_FREE char *mac_text = base64(mac, sizeof(mac));
	CLEANUP_FREE char *public = format_string("{\"cipher\":\"AES_256_CTR_HMAC_SHA256\",\"hmac\":\"%s\","
						  "\"cipheroptions\":{}}", mac_text);
	CLEANUP_JSON json_t *jwe = make_jwe(pkey, "ECDH-ES+A256KW", "A256GCM", PRIVATE);
	CLEANUP_FREE char *list = base64_json(jwe);
	CLEANUP_JSON json_t *annotations = annotate(public, "jwe", list);

	l->annotations = json_dumps(annotations, JSON_COMPACT);
	must(l->annotations, "memory");
}

/* With the files in it: makes the blob. No key: not encrypted. */
static inline void made_seal(struct made_layer *l, enum made_form form, int level, EVP_PKEY *pkey)
{
	end_tar(&l->tar);
	l->form = form;
	made_digest(&l->tar, l->diff_id);
	made_compress(l, level);
	if (pkey)
		made_encrypt(l, pkey);
	made_digest(&l->blob, l->digest);
}

static inline void made_layer_free(struct made_layer *l)
{
	bytes_free(&l->tar);
	bytes_free(&l->blob);
	free(l->files);
	free(l->annotations);
	*l = (struct made_layer){0};
}

/* True when the directory has the layer's files with their content. */
static inline bool made_layer_is_at(const struct made_layer *l, const char *path)
{
	for (size_t i = 0; i < l->file_count; i++) {
		const struct made_file *file = &l->files[i];
		CLEANUP_FREE char *name = format_string("%s/%s", path, file->name);
		CLEANUP_BYTES struct bytes got = {0};

		if (file_read(name, LAYOUT_MAX, "unpacked file", &got, NULL) || got.len != file->len ||
		    (got.len && memcmp(got.data, l->tar.data + file->at, got.len) != 0)) {
			print_message("%s is not what it should be\n", name);
			return false;
		}
	}
	return true;
}

static inline bool made_image_is_there(const struct made_image *image, const struct cpull_result *result)
{
	if (!result || result->layer_count != image->layer_count)
		return false;
	for (size_t i = 0; i < image->layer_count; i++)
		if (!made_layer_is_at(image->layers[i], result->layers[i].path))
			return false;
	return true;
}

/* ---- images ---- */

static inline void made_add_descriptor(struct bytes *out, const struct made_layer *l)
{
	static const char *const types[] = {"layer.v1.tar", "layer.v1.tar+gzip", "layer.v1.tar+zstd"};
	CLEANUP_FREE char *text = format_string(
		"{\"mediaType\":\"application/vnd.oci.image.%s%s\",\"digest\":\"%s\",\"size\":%zu%s%s}",
		types[l->form], l->annotations ? "+encrypted" : "", l->digest, l->blob.len,
		l->annotations ? ",\"annotations\":" : "", l->annotations ? l->annotations : "");

	must(text, "memory");
	add_text(out, text);
}

/* The layers lowest first; they must outlive the image. */
static inline void made_image_make(struct made_image *image, const struct made_layer *const *layers, size_t count)
{
	char text[512];

	*image = (struct made_image){.layers = calloc(count, sizeof(*image->layers)), .layer_count = count};
	must(image->layers, "memory");
	memcpy(image->layers, layers, count * sizeof(*layers));
	add_text(&image->config.text,
		 "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[");
	for (size_t i = 0; i < count; i++) {
		snprintf(text, sizeof(text), "%s\"%s\"", i ? "," : "", layers[i]->diff_id);
		add_text(&image->config.text, text);
	}
	add_text(&image->config.text, "]}}");
	made_digest(&image->config.text, image->config.digest);
	snprintf(text, sizeof(text),
		 "{\"schemaVersion\":2," OCI_TYPE("manifest.v1+json") ",\"config\":{" OCI_TYPE("config.v1+json")
		 ",\"digest\":\"%s\",\"size\":%zu},\"layers\":[",
		 image->config.digest, image->config.text.len);
	add_text(&image->manifest.text, text);
	for (size_t i = 0; i < count; i++) {
		add_text(&image->manifest.text, i ? "," : "");
		made_add_descriptor(&image->manifest.text, layers[i]);
	}
	add_text(&image->manifest.text, "]}");
	made_digest(&image->manifest.text, image->manifest.digest);
}

static inline void made_image_free(struct made_image *image)
{
	bytes_free(&image->config.text);
	bytes_free(&image->manifest.text);
	free(image->layers);
	*image = (struct made_image){0};
}

static inline void made_write_blob(const char *dir, const char *digest, const struct bytes *data)
{
	CLEANUP_FREE char *path = format_string("%s/blobs/sha256/%s", dir, digest + strlen("sha256:"));

	write_file(path, data->data, data->len);
}

/* Puts images into a layout that make_layout_dirs() has made, as the tags "0", "1" and so on. */
static inline void made_write_layout(const char *dir, const struct made_image *images, size_t count)
{
	CLEANUP_BYTES struct bytes index = {0};
	CLEANUP_FREE char *path = format_string("%s/index.json", dir);
	char text[512];

	add_text(&index, "{\"schemaVersion\":2,\"manifests\":[");
	for (size_t i = 0; i < count; i++) {
		snprintf(text, sizeof(text),
			 "%s{" OCI_TYPE("manifest.v1+json") ",\"digest\":\"%s\",\"size\":%zu,"
			 "\"annotations\":{\"org.opencontainers.image.ref.name\":\"%zu\"}}",
			 i ? "," : "", images[i].manifest.digest, images[i].manifest.text.len, i);
		add_text(&index, text);
		made_write_blob(dir, images[i].config.digest, &images[i].config.text);
		made_write_blob(dir, images[i].manifest.digest, &images[i].manifest.text);
	}
	add_text(&index, "]}");
	write_file(path, index.data, index.len);
}

/* ---- keys ---- */

static inline void made_write_key(const char *path, EVP_PKEY *pkey)
{
	FILE *f = fopen(path, "w");

	must(f && PEM_write_PrivateKey(f, pkey, NULL, NULL, 0, NULL, NULL) == 1 && !fclose(f), path);
}

/* Of this process, with a name that begins so. */
static inline bool made_has_thread(const char *wanted)
{
	CLEANUP_DIR DIR *list = fs_list(AT_FDCWD, "/proc/self/task");
	const char *name;
	bool found = false;

	must(list, "/proc/self/task");
	while ((name = fs_next_name(list))) {
		CLEANUP_FREE char *path = format_string("/proc/self/task/%s/comm", name);
		CLEANUP_BYTES struct bytes comm = {0};

		/* one may end meanwhile */
		if (!file_read(path, 64, "thread name", &comm, NULL))
			found = found || strncmp(comm.data, wanted, strlen(wanted)) == 0;
	}
	return found;
}

#endif
