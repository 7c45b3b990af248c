/* SPDX-License-Identifier: Apache-2.0
 *
 * crypto/keys: every form of private key that is taken, every way to give a password, and what each other file is
 * called in the message. The key files are made here with OpenSSL and libjose.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include <sys/stat.h>

#include <jose/openssl.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "crypto/key_ring.h"
#include "engine/base/limits.h"
#include "tests/unit/full_secure_heap.h"
#include "tests/unit/vectors.h"

#define PASSWORD "corr:ect horse"

static char dir[] = "/tmp/test_keys.XXXXXX";
static EVP_PKEY *keys[4]; /* RSA, P-256, P-384, P-521 */

/* The path of a file in the test's directory; valid until the next call but one. */
static const char *path_of(const char *name)
{
	static char paths[2][300];
	static unsigned turn;
	char *out = paths[turn++ % 2];

	snprintf(out, sizeof(paths[0]), "%s/%s", dir, name);
	return out;
}

static void write_file(const char *name, const void *data, size_t len)
{
	FILE *f = fopen(path_of(name), "we");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

/* Writes what was put into bio, and frees it. */
static void write_bio(const char *name, BIO *bio)
{
	char *data;
	long len = BIO_get_mem_data(bio, &data);

	assert_true(len > 0);
	write_file(name, data, (size_t)len);
	BIO_free(bio);
}

/* spec, with the file's name put into the test's directory. */
static int add(struct key_ring *ring, const char *spec, struct cpull_error *err)
{
	return key_ring_add(ring, path_of(spec), err);
}

static void must_add(const char *spec, const EVP_PKEY *want)
{
	struct key_ring *ring;
	struct cpull_error err = {0};

	assert_int_equal(key_ring_new(&ring, NULL), 0);
	if (add(ring, spec, &err))
		fail_msg("%s: %s", spec, err.message);
	assert_int_equal(key_ring_count(ring), 1);
	assert_int_equal(EVP_PKEY_eq(ring->keys[0].pkey, want), 1);
	assert_int_equal(ERR_peek_error(), 0);
	key_ring_free(ring);
}

static void must_refuse(const char *spec, const char *why)
{
	struct key_ring *ring;
	struct cpull_error err = {0};

	assert_int_equal(key_ring_new(&ring, NULL), 0);
	if (add(ring, spec, &err) != CPULL_ERR_KEY)
		fail_msg("%s: code %d", spec, err.code);
	assert_int_equal(err.code, CPULL_ERR_KEY);
	if (!strstr(err.message, why))
		fail_msg("%s: \"%s\" does not say \"%s\"", spec, err.message, why);
	assert_null(strchr(err.message, '\n'));
	assert_null(strstr(err.message, "horse"));
	assert_int_equal(key_ring_count(ring), 0);
	assert_int_equal(ERR_peek_error(), 0);
	key_ring_free(ring);
}

static void write_jwk(const char *name, EVP_PKEY *pkey)
{
	CLEANUP_JSON json_t *jwk = jose_openssl_jwk_from_EVP_PKEY(NULL, pkey);
	CLEANUP_FREE char *text = json_dumps(jwk, JSON_INDENT(1));

	assert_non_null(text);
	write_file(name, text, strlen(text));
}

static void all_plain_forms(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		BIO *bio = BIO_new(BIO_s_mem());

		assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, keys[i], NULL, NULL, 0, NULL, NULL), 1);
		write_bio("pkcs8.pem", bio);
		must_add("pkcs8.pem", keys[i]);

		bio = BIO_new(BIO_s_mem());
		assert_int_equal(i2d_PKCS8PrivateKey_bio(bio, keys[i], NULL, NULL, 0, NULL, NULL), 1);
		write_bio("pkcs8.der", bio);
		must_add("pkcs8.der", keys[i]);

		bio = BIO_new(BIO_s_mem());
		assert_true(BIO_puts(bio, "a comment before it\r\n") > 0);
		assert_int_equal(PEM_write_bio_PrivateKey_traditional(bio, keys[i], NULL, NULL, 0, NULL, NULL), 1);
		write_bio("traditional.pem", bio);
		must_add("traditional.pem", keys[i]);

		bio = BIO_new(BIO_s_mem());
		assert_int_equal(i2d_PrivateKey_bio(bio, keys[i]), 1);
		write_bio("traditional.der", bio);
		must_add("traditional.der", keys[i]);

		write_jwk("key.jwk", keys[i]);
		must_add("key.jwk", keys[i]);
	}
}

/* What `openssl ecparam -genkey` writes. */
static void parameters_before_the_key(void **state)
{
	static const char parameters[] =
	    "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
	BIO *bio = BIO_new(BIO_s_mem());

	(void)state;
	assert_true(BIO_puts(bio, parameters) > 0);
	assert_int_equal(PEM_write_bio_PrivateKey_traditional(bio, keys[1], NULL, NULL, 0, NULL, NULL), 1);
	write_bio("parameters.pem", bio);
	must_add("parameters.pem", keys[1]);
}

static void write_encrypted(void)
{
	const unsigned char *password = (const unsigned char *)PASSWORD;
	int len = (int)strlen(PASSWORD);
	BIO *bio = BIO_new(BIO_s_mem());

	assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, keys[0], EVP_aes_256_cbc(), PASSWORD, len, NULL, NULL), 1);
	write_bio("e8.pem", bio);
	bio = BIO_new(BIO_s_mem());
	assert_int_equal(i2d_PKCS8PrivateKey_bio(bio, keys[0], EVP_aes_256_cbc(), PASSWORD, len, NULL, NULL), 1);
	write_bio("e8.der", bio);
	bio = BIO_new(BIO_s_mem());
	assert_int_equal(PEM_write_bio_PrivateKey_traditional(bio, keys[0], EVP_aes_128_cbc(), password, len, NULL,
							      NULL), 1);
	write_bio("legacy.pem", bio);
}

static void passwords(void **state)
{
	static const char *const files[] = {"e8.pem", "e8.der", "legacy.pem"};

	(void)state;
	write_encrypted();
	write_file("password", PASSWORD, strlen(PASSWORD));
	write_file("password.newline", PASSWORD "\n", strlen(PASSWORD) + 1);
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		char spec[400];
		int ends[2];

		snprintf(spec, sizeof(spec), "%s:pass=%s", files[i], PASSWORD);
		must_add(spec, keys[0]);
		snprintf(spec, sizeof(spec), "%s:%s", files[i], PASSWORD);
		must_add(spec, keys[0]);
		snprintf(spec, sizeof(spec), "%s:file=%s/password", files[i], dir);
		must_add(spec, keys[0]);
		assert_int_equal(pipe(ends), 0);
		assert_int_equal(write(ends[1], PASSWORD, strlen(PASSWORD)), strlen(PASSWORD));
		snprintf(spec, sizeof(spec), "%s:fd=%d", files[i], ends[0]);
		must_add(spec, keys[0]); /* the other end is open still */
		close(ends[0]);
		close(ends[1]);

		must_refuse(files[i], "no password was given");
		snprintf(spec, sizeof(spec), "%s:pass=%s", files[i], "wrong horse");
		must_refuse(spec, "password does not open it");
		snprintf(spec, sizeof(spec), "%s:pass=", files[i]);
		must_refuse(spec, "password does not open it");
		snprintf(spec, sizeof(spec), "%s:file=%s/password.newline", files[i], dir);
		must_refuse(spec, "newline");
	}
	must_add("traditional.pem:not=needed", keys[3]);
}

static void bad_passwords(void **state)
{
	char spec[LIMIT_PASSWORD_BYTES + 100];
	int ends[2];

	(void)state;
	must_refuse("e8.pem:fd=", "not a number");
	must_refuse("e8.pem:fd=-1", "not a number");
	must_refuse("e8.pem:fd=3x", "not a number");
	must_refuse("e8.pem:fd=99999999999999999999", "not a number");
	must_refuse("e8.pem:fd=1000000", "Bad file descriptor");
	must_refuse("e8.pem:file=/nowhere/at/all", "No such file");

	memset(spec, 'h', sizeof(spec));
	memcpy(spec, "e8.pem:pass=", 12);
	spec[12 + LIMIT_PASSWORD_BYTES + 1] = 0;
	CLEANUP_FREE char *full = format_string("%s/%s", dir, spec);
	struct key_ring *ring;
	struct cpull_error err = {0};

	assert_int_equal(key_ring_new(&ring, NULL), 0);
	assert_int_equal(key_ring_add(ring, full, &err), CPULL_ERR_KEY);
	assert_non_null(strstr(err.message, "longer than"));
	key_ring_free(ring);

	assert_int_equal(pipe(ends), 0);
	assert_int_equal(write(ends[1], spec + 12, LIMIT_PASSWORD_BYTES + 1), LIMIT_PASSWORD_BYTES + 1);
	snprintf(spec, sizeof(spec), "e8.pem:fd=%d", ends[0]);
	must_refuse(spec, "longer than");
	close(ends[0]);
	close(ends[1]);
	memset(spec, 'h', sizeof(spec));
	write_file("password.long", spec, LIMIT_PASSWORD_BYTES + 1);
	snprintf(spec, sizeof(spec), "e8.pem:file=%s/password.long", dir);
	must_refuse(spec, "larger than");
}

static void write_public(void)
{
	BIO *bio = BIO_new(BIO_s_mem());
	X509 *certificate = X509_new();

	assert_int_equal(PEM_write_bio_PUBKEY(bio, keys[0]), 1);
	write_bio("public.pem", bio);
	bio = BIO_new(BIO_s_mem());
	assert_int_equal(i2d_PUBKEY_bio(bio, keys[1]), 1);
	write_bio("public.der", bio);

	assert_int_equal(X509_set_pubkey(certificate, keys[1]), 1);
	assert_non_null(X509_gmtime_adj(X509_getm_notBefore(certificate), 0));
	assert_non_null(X509_gmtime_adj(X509_getm_notAfter(certificate), 60));
	assert_true(X509_sign(certificate, keys[1], EVP_sha256()) > 0);
	bio = BIO_new(BIO_s_mem());
	assert_int_equal(PEM_write_bio_X509(bio, certificate), 1);
	write_bio("certificate.pem", bio);
	bio = BIO_new(BIO_s_mem());
	assert_int_equal(i2d_X509_bio(bio, certificate), 1);
	write_bio("certificate.der", bio);
	X509_free(certificate);
}

static void write_other_type(const char *name, EVP_PKEY *pkey)
{
	BIO *bio = BIO_new(BIO_s_mem());

	assert_non_null(pkey);
	assert_int_equal(PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL), 1);
	write_bio(name, bio);
	EVP_PKEY_free(pkey);
}

static void other_files_are_named(void **state)
{
	static const struct {
		const char *text;
		const char *why;
	} files[] = {
		{"", "it is empty"},
		{" \n\t\n", "it is empty"},
		{"hello", "no private key"},
		{"\x30\x82\x01\x02\x02\x01", "no private key"},
		{"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\n-----END PRIVATE KEY-----\n", "damaged"},
		{"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\n", "damaged"},
		{"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "OpenSSH"},
		{"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ==\n", "OpenPGP"},
		{"pkcs11:\n  uri: pkcs11:token=x\n", "PKCS#11"},
		{"{\"kty\":\"EC\"", "not valid JSON"},
		{"{\"kty\":\"EC\",\"d\":\"AA\",\"d\":\"AA\"}", "not valid JSON"},
		{"{}", "not a JWK"},
		{"{\"kty\":\"oct\",\"k\":\"AAAA\"}", "not a JWK of type RSA or EC"},
		{"{\"keys\":[{\"kty\":\"EC\"}]}", "set of JWKs"},
		{"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}", "public JWK"},
		{"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\",\"d\":\"AQ\"}", "incomplete"},
		{"{\"kty\":\"EC\",\"crv\":\"secp256k1\",\"x\":\"AA\",\"y\":\"AA\",\"d\":\"AQ\"}", "curve other than"},
		{"{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\",\"d\":17}", "incomplete"},
		{"{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\",\"d\":\"A+/=\"}", "incomplete"},
		{"{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\",\"d\":\"\"}", "incomplete"},
		{"{\"kty\":\"RSA\",\"d\":\"AQAB\"}", "incomplete"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		write_file("other", files[i].text, strlen(files[i].text));
		must_refuse("other", files[i].why);
	}
	write_public();
	must_refuse("public.pem", "public key");
	must_refuse("public.der", "public key");
	must_refuse("certificate.pem", "certificate");
	must_refuse("certificate.der", "certificate");
	write_other_type("ed25519.pem", EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"));
	must_refuse("ed25519.pem", "its type is none");
	write_other_type("k1.pem", EVP_EC_gen("secp256k1"));
	must_refuse("k1.pem", "its type is none");
}

static void files_that_cannot_be_read(void **state)
{
	static char big[LIMIT_KEY_FILE_BYTES + 1];
	struct key_ring *ring;
	struct cpull_error err = {0};

	(void)state;
	must_refuse("not-there", "No such file");
	must_refuse("", "Is a directory");
	memset(big, 'x', sizeof(big));
	write_file("big", big, sizeof(big));
	must_refuse("big", "larger than");

	assert_int_equal(key_ring_new(&ring, NULL), 0);
	assert_int_equal(key_ring_add(ring, "", &err), CPULL_ERR_KEY);
	assert_int_equal(key_ring_add(ring, ":pass=x", &err), CPULL_ERR_KEY);
	assert_int_equal(key_ring_add(ring, NULL, &err), CPULL_ERR_KEY);
	assert_int_equal(key_ring_add(ring, "provider:attestation-agent", &err), CPULL_ERR_KEY);
	assert_non_null(strstr(err.message, "not supported by this build yet"));
	assert_int_equal(key_ring_add(ring, "/no\nwhere", &err), CPULL_ERR_KEY);
	assert_int_equal(err.sys_errno, 2);
	key_ring_free(ring);
	key_ring_free(NULL);
	assert_int_equal(key_ring_count(NULL), 0);
}

/* A parser that quotes what it could not read would put the key into the log. */
static void no_key_byte_in_a_message(void **state)
{
	CLEANUP_JSON json_t *jwk = jose_openssl_jwk_from_EVP_PKEY(NULL, keys[1]);
	CLEANUP_FREE char *text = json_dumps(jwk, JSON_COMPACT);
	const char *d = json_string_at(jwk, "d");
	size_t len = strlen(text);

	(void)state;
	for (size_t cut = 1; cut < len; cut++) {
		struct key_ring *ring;
		struct cpull_error err = {0};

		assert_int_equal(key_ring_new(&ring, NULL), 0);
		assert_int_equal(key_ring_add_bytes(ring, "cut", text, cut, NULL, &err), CPULL_ERR_KEY);
		for (size_t i = 0; d[i + 5]; i++) {
			char window[7] = {0};

			memcpy(window, d + i, 6);
			assert_null(strstr(err.message, window));
		}
		key_ring_free(ring);
	}
}

static void a_full_secure_heap_is_said(void **state)
{
	static struct full_secure_heap heap;
	struct key_ring *ring;
	struct cpull_error err = {0};
	struct layer_key *out;
	CLEANUP_JSON json_t *annotations = json_pack("{s:s}", "org.opencontainers.image.enc.keys.jwe", "");

	(void)state;
	if (!CRYPTO_secure_malloc_initialized())
		skip();
	assert_int_equal(key_ring_new(&ring, NULL), 0);
	secure_heap_fill(&heap);

	int added = add(ring, "pkcs8.pem", &err);
	int unwrapped = ocicrypt_unwrap(ring, annotations, &out, NULL);

	/* before anything is asserted: other tests want it */
	secure_heap_empty(&heap);
	assert_int_equal(added, CPULL_ERR_NOMEM);
	assert_non_null(strstr(err.message, "out of secure memory"));
	assert_int_equal(unwrapped, CPULL_ERR_NOMEM);
	assert_int_equal(add(ring, "pkcs8.pem", &err), 0);
	key_ring_free(ring);
}

static void the_vectors_keys(void **state)
{
	static const char *const names[] = {
		"ocicrypt/private_key.pem",    "ocicrypt/private_key8.pem",	  "ocicrypt/private_key_ec.der",
		"ocicrypt/ec_p256_private.pem", "ocicrypt/RSA_private.jwk",
		"upstream/generated/keys/ec.pem", "upstream/generated/keys/k2.pem",
		"upstream/guest-components/ocicrypt-rs/data/private_key.der",
		"upstream/guest-components/ocicrypt-rs/data/private_key8.der",
	};
	static const char *const others[] = {"ocicrypt/RSA_public.jwk", "ocicrypt/certificate.pem",
					     "ocicrypt/public_key.pem", "ocicrypt/public_key_ec.der",
					     "ocicrypt/passwordfile",	"ocicrypt/pgp-secret-keyring.gpg"};
	struct key_ring *ring;
	struct cpull_error err = {0};

	(void)state;
	if (!vectors_present())
		skip();
	assert_int_equal(key_ring_new(&ring, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		CLEANUP_BYTES struct bytes file = vector_read(names[i]);

		if (key_ring_add_bytes(ring, names[i], file.data, file.len, NULL, &err))
			fail_msg("%s", err.message);
		assert_int_equal(key_ring_count(ring), i + 1);
	}
	for (size_t i = 0; i < ARRAY_LEN(others); i++) {
		CLEANUP_BYTES struct bytes file = vector_read(others[i]);

		assert_int_equal(key_ring_add_bytes(ring, others[i], file.data, file.len, NULL, &err), CPULL_ERR_KEY);
	}
	key_ring_free(ring);
}

static int make_keys(void **state)
{
	unsigned char byte;

	(void)state;
	if (!mkdtemp(dir))
		return -1;
	/* OpenSSL's generators, if made after the secure heap, live in it, where LeakSanitizer cannot see what they
	 * own */
	if (RAND_bytes(&byte, 1) != 1 || RAND_priv_bytes(&byte, 1) != 1)
		return -1;
	secure_heap_init(NULL);
	keys[0] = EVP_RSA_gen(2048);
	keys[1] = EVP_EC_gen("P-256");
	keys[2] = EVP_EC_gen("P-384");
	keys[3] = EVP_EC_gen("P-521");
	return keys[0] && keys[1] && keys[2] && keys[3] ? 0 : -1;
}

static int remove_keys(void **state)
{
	CLEANUP_FREE char *command = format_string("rm -r %s", dir);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		EVP_PKEY_free(keys[i]);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_plain_forms),
		cmocka_unit_test(parameters_before_the_key),
		cmocka_unit_test(passwords),
		cmocka_unit_test(bad_passwords),
		cmocka_unit_test(other_files_are_named),
		cmocka_unit_test(files_that_cannot_be_read),
		cmocka_unit_test(no_key_byte_in_a_message),
		cmocka_unit_test(a_full_secure_heap_is_said),
		cmocka_unit_test(the_vectors_keys),
	};

	return cmocka_run_group_tests(tests, make_keys, remove_keys);
}
