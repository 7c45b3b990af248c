/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests of a whole pull: writes OCI layouts whose layers are plain tars of a few files.
 */
#ifndef TEST_OCI_LAYOUT_H
#define TEST_OCI_LAYOUT_H

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "crypto/digest.h"
#include "engine/base/util.h"

#define LAYOUT_MAX (64u << 20)

/* What a test asks of its own machine. */
static inline void must(bool ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	abort();
}

static inline void add_bytes(struct bytes *b, const void *data, size_t len)
{
	must(!bytes_append(b, data, len, LAYOUT_MAX), "memory");
}

static inline void add_text(struct bytes *b, const char *text)
{
	add_bytes(b, text, strlen(text));
}

static inline void write_file(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "w");

	must(f && fwrite(data, 1, len, f) == len && !fclose(f), path);
}

/* One entry of a ustar archive; `type` is '0' for a file of len bytes, '1' for a hard link to `link`, '5' for a
 * directory. */
static inline void add_entry(struct bytes *tar, char type, const char *name, const char *link, const void *data,
			     size_t len)
{
	static const char zeros[512];
	char header[512] = "";
	unsigned sum = 0;

	snprintf(header, 100, "%s", name);
	snprintf(header + 100, 8, "%07o", type == '5' ? 0755 : 0644);
	snprintf(header + 108, 8, "%07o", 0);
	snprintf(header + 116, 8, "%07o", 0);
	snprintf(header + 124, 12, "%011zo", len);
	snprintf(header + 136, 12, "%011o", 0);
	memset(header + 148, ' ', 8);
	header[156] = type;
	snprintf(header + 157, 100, "%s", link);
	memcpy(header + 257, "ustar\00000", 8);
	for (size_t i = 0; i < sizeof(header); i++)
		sum += (unsigned char)header[i];
	snprintf(header + 148, 8, "%06o", sum);
	add_bytes(tar, header, sizeof(header));
	add_bytes(tar, data, len);
	if (len % 512)
		add_bytes(tar, zeros, 512 - len % 512);
}

static inline void end_tar(struct bytes *tar)
{
	static const char zeros[1024];

	add_bytes(tar, zeros, sizeof(zeros));
}

struct layout_blob {
	char digest[DIGEST_TEXT_BYTES];
	size_t len;
};

static inline void put_blob(const char *dir, const struct bytes *data, struct layout_blob *out)
{
	struct hasher *hasher;
	struct digest digest;
	char path[512];

	must(!hasher_new(DIGEST_SHA256, &hasher, NULL) && !hasher_update(hasher, data->data, data->len) &&
		     !hasher_final(hasher, &digest),
	     "hashing");
	hasher_free(hasher);
	digest_format(&digest, out->digest);
	out->len = data->len;
	snprintf(path, sizeof(path), "%s/blobs/sha256/%s", dir, out->digest + strlen("sha256:"));
	write_file(path, data->data, data->len);
}

static inline void make_layout_dirs(const char *dir)
{
	static const char *const subs[] = {"", "/blobs", "/blobs/sha256"};
	static const char version[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
	char path[512];

	for (size_t i = 0; i < ARRAY_LEN(subs); i++) {
		snprintf(path, sizeof(path), "%s%s", dir, subs[i]);
		must(!mkdir(path, 0755), path);
	}
	snprintf(path, sizeof(path), "%s/oci-layout", dir);
	write_file(path, version, strlen(version));
}

#define OCI_TYPE(what) "\"mediaType\":\"application/vnd.oci.image." what "\""

/* A layout of one image, tag "t", with these tars as its layers, lowest first. The directory must not be there. */
static inline void make_layout(const char *dir, const struct bytes *tars, size_t count)
{
	struct bytes config = {0}, manifest = {0}, index = {0}, layers = {0};
	struct layout_blob blob;
	char text[512];

	make_layout_dirs(dir);
	add_text(&config,
		 "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[");
	for (size_t i = 0; i < count; i++) {
		put_blob(dir, &tars[i], &blob);
		snprintf(text, sizeof(text), "%s\"%s\"", i ? "," : "", blob.digest);
		add_text(&config, text);
		snprintf(text, sizeof(text), "%s{" OCI_TYPE("layer.v1.tar") ",\"digest\":\"%s\",\"size\":%zu}",
			 i ? "," : "", blob.digest, blob.len);
		add_text(&layers, text);
	}
	add_text(&config, "]}}");
	put_blob(dir, &config, &blob);
	snprintf(text, sizeof(text),
		 "{\"schemaVersion\":2," OCI_TYPE("manifest.v1+json") ",\"config\":{" OCI_TYPE("config.v1+json")
		 ",\"digest\":\"%s\",\"size\":%zu},\"layers\":[",
		 blob.digest, blob.len);
	add_text(&manifest, text);
	add_bytes(&manifest, layers.data, layers.len);
	add_text(&manifest, "]}");
	put_blob(dir, &manifest, &blob);
	snprintf(text, sizeof(text),
		 "{\"schemaVersion\":2,\"manifests\":[{" OCI_TYPE("manifest.v1+json")
		 ",\"digest\":\"%s\",\"size\":%zu,\"annotations\":{\"org.opencontainers.image.ref.name\":\"t\"}}]}",
		 blob.digest, blob.len);
	add_text(&index, text);
	snprintf(text, sizeof(text), "%s/index.json", dir);
	write_file(text, index.data, index.len);
	bytes_free(&config);
	bytes_free(&manifest);
	bytes_free(&index);
	bytes_free(&layers);
}

#endif
