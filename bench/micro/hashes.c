/* SPDX-License-Identifier: Apache-2.0
 *
 * Hashing and decrypting: OpenSSL's calls one by one, what the product makes of them, and XXH3 as the measure of what
 * reading alone takes. A pass is some MiB of the corpus, a chunk at a time, as the product gets them; decryption in
 * place runs on a copy. On the main thread.
 */
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <xxhash.h>

#include "bench/micro/stages.h"
#include "crypto/hmac.h"
#include "crypto/layer_cipher.h"
#include "engine/base/error.h"

#define CHUNK_BYTES ((size_t)256 << 10)
#define SLICE_BYTES ((size_t)64 << 10)
#define PASS_BYTES ((size_t)8 << 20)

struct hashes {
	uint8_t *data; /* PASS_BYTES */
	EVP_MD *sha256;
	EVP_MAC *hmac;
	EVP_CIPHER *ctr, *gcm;
	EVP_MD_CTX *digest_ctx;
	EVP_MAC_CTX *mac_ctx;
	EVP_CIPHER_CTX *cipher_ctx;
	struct layer_key *key;
};

static int failed(struct cpull_error *err, const char *what)
{
	return error_set(err, CPULL_ERR_INTERNAL, "%s fails", what);
}

/* ---- OpenSSL, one call a chunk ---- */

static int pass_sha256(void *payload, struct cpull_error *err)
{
	struct hashes *h = payload;
	uint8_t out[EVP_MAX_MD_SIZE];
	bool ok = EVP_DigestInit_ex(h->digest_ctx, h->sha256, NULL);

	for (size_t at = 0; at < PASS_BYTES; at += CHUNK_BYTES)
		ok &= EVP_DigestUpdate(h->digest_ctx, h->data + at, CHUNK_BYTES);
	return ok && EVP_DigestFinal_ex(h->digest_ctx, out, NULL) ? 0 : failed(err, "EVP_Digest");
}

static int pass_hmac(void *payload, struct cpull_error *err)
{
	static const uint8_t key[32] = {1};
	struct hashes *h = payload;
	uint8_t out[EVP_MAX_MD_SIZE];
	size_t len;
	bool ok = EVP_MAC_init(h->mac_ctx, key, sizeof(key), NULL);

	for (size_t at = 0; at < PASS_BYTES; at += CHUNK_BYTES)
		ok &= EVP_MAC_update(h->mac_ctx, h->data + at, CHUNK_BYTES);
	return ok && EVP_MAC_final(h->mac_ctx, out, &len, sizeof(out)) ? 0 : failed(err, "EVP_MAC");
}

static int decrypt(struct hashes *h, const EVP_CIPHER *cipher, struct cpull_error *err)
{
	static const uint8_t key[32] = {1}, iv[16] = {2};
	bool ok = EVP_DecryptInit_ex(h->cipher_ctx, cipher, NULL, key, iv);
	int len;

	for (size_t at = 0; at < PASS_BYTES; at += CHUNK_BYTES)
		ok &= EVP_DecryptUpdate(h->cipher_ctx, h->data + at, &len, h->data + at, (int)CHUNK_BYTES);
	return ok ? 0 : failed(err, "EVP_Decrypt");
}

static int pass_ctr(void *payload, struct cpull_error *err)
{
	struct hashes *h = payload;

	return decrypt(h, h->ctr, err);
}

static int pass_gcm(void *payload, struct cpull_error *err)
{
	struct hashes *h = payload;

	return decrypt(h, h->gcm, err);
}

static int pass_xxh3(void *payload, struct cpull_error *err)
{
	struct hashes *h = payload;
	uint64_t sum = 0;

	(void)err;
	for (size_t at = 0; at < PASS_BYTES; at += CHUNK_BYTES)
		sum ^= XXH3_64bits(h->data + at, CHUNK_BYTES);
	__asm__ volatile("" : : "r"(sum));
	return 0;
}

/* Digest, HMAC and CTR of each chunk while it is in cache, each by its own call. */
static int pass_three_calls(void *payload, struct cpull_error *err)
{
	static const uint8_t key[32] = {1}, iv[16] = {2};
	struct hashes *h = payload;
	uint8_t out[EVP_MAX_MD_SIZE], *data = h->data;
	size_t mac_len;
	int len;
	bool ok = EVP_DigestInit_ex(h->digest_ctx, h->sha256, NULL) &&
		  EVP_MAC_init(h->mac_ctx, key, sizeof(key), NULL) &&
		  EVP_DecryptInit_ex(h->cipher_ctx, h->ctr, NULL, key, iv);

	for (; data < h->data + PASS_BYTES; data += CHUNK_BYTES) {
		ok &= EVP_DigestUpdate(h->digest_ctx, data, CHUNK_BYTES);
		ok &= EVP_MAC_update(h->mac_ctx, data, CHUNK_BYTES);
		ok &= EVP_DecryptUpdate(h->cipher_ctx, data, &len, data, (int)CHUNK_BYTES);
	}
	ok = ok && EVP_DigestFinal_ex(h->digest_ctx, out, NULL) &&
	     EVP_MAC_final(h->mac_ctx, out, &mac_len, sizeof(out));
	return ok ? 0 : failed(err, "digest, HMAC and CTR");
}

/* ---- the product ---- */

static int pass_hasher(void *payload, struct cpull_error *err)
{
	struct hashes *h = payload;
	struct hasher *hasher = NULL;
	struct digest out;
	int rc = hasher_new(DIGEST_SHA256, &hasher, err);

	for (size_t at = 0; !rc && at < PASS_BYTES; at += CHUNK_BYTES)
		rc = hasher_update(hasher, h->data + at, CHUNK_BYTES);
	if (!rc)
		rc = hasher_final(hasher, &out);
	hasher_free(hasher);
	return rc;
}

/* What a plain layer's blob and tar are hashed with: here both are of one length, the best case. */
static int pass_pair(void *payload, struct cpull_error *err)
{
	struct hashes *h = payload;
	struct hasher *a = NULL, *b = NULL;
	struct digest out;
	int rc = hasher_new(DIGEST_SHA256, &a, err);

	if (!rc)
		rc = hasher_new(DIGEST_SHA256, &b, err);
	for (size_t at = 0; !rc && at < PASS_BYTES; at += 2 * CHUNK_BYTES)
		rc = hasher_update_pair(a, h->data + at, CHUNK_BYTES, b, h->data + at + CHUNK_BYTES, CHUNK_BYTES);
	if (!rc)
		rc = hasher_final(a, &out);
	if (!rc)
		rc = hasher_final(b, &out);
	hasher_free(a);
	hasher_free(b);
	return rc;
}

/* What vouches for an encrypted layer where no tar is at hand to be hashed beside it, and its decryption. */
static int pass_shared(void *payload, struct cpull_error *err)
{
	struct hashes *h = payload;
	struct layer_cipher *cipher = NULL;
	struct hasher *hasher = NULL;
	struct hmac *hmac = NULL;
	struct digest out;
	bool right;
	int rc = layer_cipher_new(h->key, &cipher, err);

	if (!rc)
		rc = hasher_new(DIGEST_SHA256, &hasher, err);
	if (!rc)
		rc = hmac_new(h->key->symkey, &hmac, err);
	for (size_t at = 0; !rc && at < PASS_BYTES; at += SLICE_BYTES) {
		rc = hasher_update_shared(hasher, hmac_message(hmac), h->data + at, SLICE_BYTES);
		if (!rc)
			rc = layer_cipher_run(cipher, h->data + at, SLICE_BYTES, h->data + at, err);
	}
	if (!rc)
		rc = hasher_final(hasher, &out);
	if (!rc)
		rc = hmac_verify(hmac, h->key->hmac, &right);
	hasher_free(hasher);
	hmac_free(hmac);
	layer_cipher_free(cipher);
	return rc;
}

/* The same for a blob with a tar twice its length beside it: a third of the pass is blob, two thirds are tar. */
static int pass_beside(void *payload, struct cpull_error *err)
{
	struct hashes *h = payload;
	struct hasher *hasher = NULL, *tar = NULL;
	struct hmac *hmac = NULL;
	struct digest out;
	bool right;
	int rc = hasher_new(DIGEST_SHA256, &hasher, err);

	if (!rc)
		rc = hasher_new(DIGEST_SHA256, &tar, err);
	if (!rc)
		rc = hmac_new(h->key->symkey, &hmac, err);
	for (size_t at = 0; !rc && at + 3 * CHUNK_BYTES <= PASS_BYTES; at += 3 * CHUNK_BYTES) {
		const uint8_t *blob = h->data + at;

		rc = hasher_update_pair(hasher, blob, CHUNK_BYTES, tar, blob + CHUNK_BYTES, CHUNK_BYTES);
		if (!rc)
			rc = hasher_update_pair(hmac_message(hmac), blob, CHUNK_BYTES, tar, blob + 2 * CHUNK_BYTES,
						CHUNK_BYTES);
	}
	if (!rc)
		rc = hasher_final(hasher, &out);
	if (!rc)
		rc = hasher_final(tar, &out);
	if (!rc)
		rc = hmac_verify(hmac, h->key->hmac, &right);
	hasher_free(hasher);
	hasher_free(tar);
	hmac_free(hmac);
	return rc;
}

/* ---- life ---- */

static int hashes_open(struct hashes *h, const struct corpus *corpus, struct cpull_error *err)
{
	OSSL_PARAM digest[] = {OSSL_PARAM_construct_utf8_string("digest", (char *)"SHA256", 0),
			       OSSL_PARAM_construct_end()};

	h->data = malloc(PASS_BYTES);
	if (!h->data)
		return error_nomem(err);
	for (size_t at = 0; at < PASS_BYTES; at += MIN(corpus->gzip.len, PASS_BYTES - at))
		memcpy(h->data + at, corpus->gzip.data, MIN(corpus->gzip.len, PASS_BYTES - at));
	h->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	h->hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	h->ctr = EVP_CIPHER_fetch(NULL, "AES-256-CTR", NULL);
	h->gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	h->digest_ctx = EVP_MD_CTX_new();
	h->cipher_ctx = EVP_CIPHER_CTX_new();
	h->mac_ctx = h->hmac ? EVP_MAC_CTX_new(h->hmac) : NULL;
	h->key = layer_key_new();
	if (!h->sha256 || !h->ctr || !h->gcm || !h->digest_ctx || !h->cipher_ctx || !h->mac_ctx || !h->key ||
	    !EVP_MAC_CTX_set_params(h->mac_ctx, digest))
		return failed(err, "setting up OpenSSL");
	return 0;
}

static void hashes_close(struct hashes *h)
{
	free(h->data);
	EVP_MD_free(h->sha256);
	EVP_MAC_free(h->hmac);
	EVP_CIPHER_free(h->ctr);
	EVP_CIPHER_free(h->gcm);
	EVP_MD_CTX_free(h->digest_ctx);
	EVP_MAC_CTX_free(h->mac_ctx);
	EVP_CIPHER_CTX_free(h->cipher_ctx);
	layer_key_free(h->key);
}

int measure_hashes(struct report *report, const struct corpus *corpus, struct cpull_error *err)
{
	struct hashes h = {0};
	const double gib = (double)PASS_BYTES / GIB;
	/* of blob, whose two hashes are free but for what the tar's alone would have taken */
	const double beside = (double)(PASS_BYTES / CHUNK_BYTES / 3 * CHUNK_BYTES) / GIB;
	const struct bench_case cases[] = {
		{"hash", "SHA-256, EVP", false, COST_SHA256, S_PER_GIB, gib, pass_sha256, NULL, &h},
		{"hash", "SHA-256, hasher", true, COST_SHA256, S_PER_GIB, gib, pass_hasher, NULL, &h},
		{"hash", "SHA-256, two streams, hasher", true, COST_NONE, S_PER_GIB, gib, pass_pair, NULL, &h},
		{"hash", "HMAC-SHA-256, EVP", false, COST_HMAC, S_PER_GIB, gib, pass_hmac, NULL, &h},
		{"hash", "AES-256-CTR, EVP", false, COST_CTR, S_PER_GIB, gib, pass_ctr, NULL, &h},
		{"hash", "AES-256-GCM, EVP", false, COST_NONE, S_PER_GIB, gib, pass_gcm, NULL, &h},
		{"hash", "XXH3", false, COST_NONE, S_PER_GIB, gib, pass_xxh3, NULL, &h},
		{"hash", "digest + HMAC + CTR, three EVP calls", false, COST_NONE, S_PER_GIB, gib, pass_three_calls,
		 NULL, &h},
		{"hash", "digest + HMAC + CTR, one message schedule", true, COST_NONE, S_PER_GIB, gib, pass_shared,
		 NULL, &h},
		{"hash", "digest + HMAC, a tar beside them", true, COST_NONE, S_PER_GIB, beside, pass_beside, NULL, &h},
	};
	int rc = hashes_open(&h, corpus, err);

	if (!rc)
		rc = measure(report, cases, ARRAY_LEN(cases), err);
	hashes_close(&h);
	return rc;
}
