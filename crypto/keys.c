/* SPDX-License-Identifier: Apache-2.0
 *
 * The key ring: key specs as skopeo and ctr take them, and the files they name. Filled by the thread that starts a
 * pull, read by the layers' threads. Owns the keys as EVP_PKEYs; file contents and passwords are wiped before it
 * returns.
 *
 * The formats are those of ocicrypt and more: SEC1 in PEM, encrypted PKCS#8 and legacy encrypted PEM.
 */
#include "crypto/keys.h"

#include <errno.h>
#include <string.h>

#include <jose/b64.h>
#include <jose/openssl.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "crypto/key_ring.h"
#include "crypto/secret.h"
#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/limits.h"

#define QUOTED_BYTES 300
#define SECURE_PROBE_BYTES 4000 /* what reading the largest usual key takes at once */
#define MEMORY_PROBE_BYTES (64u << 10)

/* What the password callback is told, and tells. */
struct password {
	const struct secret *given; /* NULL: there is none */
	bool wanted;      /* the file turned out to be encrypted */
};

int key_ring_new(struct key_ring **out, struct cpull_error *err)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : error_nomem(err);
}

size_t key_ring_count(const struct key_ring *ring)
{
	return ring ? ring->count : 0;
}

void key_ring_free(struct key_ring *ring)
{
	if (!ring)
		return;
	for (size_t i = 0; i < ring->count; i++)
		EVP_PKEY_free(ring->keys[i].pkey);
	free(ring->keys);
	free(ring);
}

/* Without a callback OpenSSL would ask on the terminal. */
static int give_password(char *buf, int size, int writing, void *payload)
{
	struct password *password = payload;

	(void)writing;
	password->wanted = true;
	if (!password->given || password->given->len > (size_t)size)
		return -1;
	memcpy(buf, password->given->data, password->given->len);
	return (int)password->given->len;
}

static EVP_PKEY *read_pem(const char *data, size_t len, struct password *password)
{
	BIO *bio = BIO_new_mem_buf(data, (int)len);
	EVP_PKEY *pkey = bio ? PEM_read_bio_PrivateKey(bio, NULL, give_password, password) : NULL;

	BIO_free(bio);
	return pkey;
}

static EVP_PKEY *read_der(const char *data, size_t len, struct password *password)
{
	const unsigned char *at = (const unsigned char *)data;
	EVP_PKEY *pkey = d2i_AutoPrivateKey(NULL, &at, (long)len);

	if (pkey)
		return pkey;

	BIO *bio = BIO_new_mem_buf(data, (int)len);

	pkey = bio ? d2i_PKCS8PrivateKey_bio(bio, NULL, give_password, password) : NULL;
	BIO_free(bio);
	return pkey;
}

/* libjose makes a public key of a JWK whose "d" it cannot decode. */
static bool is_base64url(const json_t *value)
{
	CLEANUP_SECRET struct secret bytes = {0};
	size_t len = json_is_string(value) ? jose_b64_dec(value, NULL, 0) : 0;

	return len && len <= LIMIT_KEY_FILE_BYTES && !secret_new(&bytes, len, NULL) &&
	       jose_b64_dec(value, bytes.data, len) == len;
}

/* NULL with *why set when it is JSON, but no private JWK. The parser's own message is not used: it quotes the text. */
static EVP_PKEY *read_jwk(const char *data, size_t len, const char **why)
{
	CLEANUP_SECRET_JSON json_t *jwk = NULL;

	*why = "it begins like a JWK, but is not valid JSON";
	if (json_parse(data, len, CPULL_ERR_KEY, "JWK", &jwk, NULL) || !json_is_object(jwk))
		return NULL;

	const char *kty = json_string_at(jwk, "kty");

	*why = json_object_get(jwk, "keys") ? "it is a set of JWKs; give a file with the one key"
					    : "it is JSON, but not a JWK of type RSA or EC";
	if (!kty || (strcmp(kty, "RSA") && strcmp(kty, "EC")))
		return NULL;
	*why = "it is a public JWK; the private one is needed";
	if (!json_object_get(jwk, "d"))
		return NULL;
	*why = "its JWK is incomplete, inconsistent or of a curve other than P-256, P-384 and P-521";

	EVP_PKEY *pkey = is_base64url(json_object_get(jwk, "d")) ? jose_openssl_jwk_to_EVP_PKEY(NULL, jwk) : NULL;

	if (pkey)
		*why = NULL;
	return pkey;
}

static bool holds(const char *data, size_t len, const char *text)
{
	return memmem(data, len, text, strlen(text)) != NULL;
}

static bool is_der_certificate(const char *data, size_t len)
{
	const unsigned char *at = (const unsigned char *)data;
	X509 *certificate = d2i_X509(NULL, &at, (long)len);

	X509_free(certificate);
	return certificate != NULL;
}

static bool is_der_public_key(const char *data, size_t len)
{
	const unsigned char *at = (const unsigned char *)data;
	EVP_PKEY *pkey = d2i_PUBKEY(NULL, &at, (long)len);

	EVP_PKEY_free(pkey);
	return pkey != NULL;
}

/* The file is no private key that opens; says what it is instead. */
static const char *describe_other(const char *data, size_t len, const struct password *password)
{
	if (password->wanted && password->given)
		return "the password does not open it (a newline at the end of a password file counts)";
	if (password->wanted)
		return "it is encrypted, and no password was given (FILE:pass=…, FILE:file=… or FILE:fd=…)";
	if (holds(data, len, "-----BEGIN CERTIFICATE") || is_der_certificate(data, len))
		return "it is a certificate; the private key that belongs to it is needed";
	if (holds(data, len, "PUBLIC KEY-----") || is_der_public_key(data, len))
		return "it is a public key; the private key is needed";
	if (holds(data, len, "-----BEGIN OPENSSH"))
		return "it is in OpenSSH's own format; convert a copy with ssh-keygen -p -m PKCS8";
	if (holds(data, len, "-----BEGIN PGP"))
		return "it is an OpenPGP key, which is not supported by this build yet";
	if (len >= 7 && !memcmp(data, "pkcs11:", 7))
		return "it names a key in a PKCS#11 token, which is not supported by this build yet";
	if (holds(data, len, "PRIVATE KEY-----"))
		return "its PEM block is damaged";
	return "it holds no private key in PEM, DER or JWK form";
}

/* The JOSE name of the curve, or NULL. */
static const char *curve_of(const EVP_PKEY *pkey)
{
	static const char *const names[][2] = {
		{"prime256v1", "P-256"},
		{"secp384r1", "P-384"},
		{"secp521r1", "P-521"},
	};
	char group[64];

	if (EVP_PKEY_get_group_name(pkey, group, sizeof(group), NULL) != 1)
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (!strcmp(group, names[i][0]))
			return names[i][1];
	return NULL;
}

static EVP_PKEY *read_any(const char *data, size_t len, struct password *password, const char **why)
{
	size_t space = 0;

	*why = NULL;
	while (space < len && memchr(" \t\r\n", data[space], 4))
		space++;
	if (space == len) {
		*why = "it is empty";
		return NULL;
	}
	if (data[space] == '{')
		return read_jwk(data, len, why);

	EVP_PKEY *pkey = holds(data, len, "-----BEGIN ") ? read_pem(data, len, password)
							 : read_der(data, len, password);

	if (!pkey)
		*why = describe_other(data, len, password);
	return pkey;
}

/* Takes over pkey. */
static int append(struct key_ring *ring, EVP_PKEY *pkey, const char *curve, struct cpull_error *err)
{
	struct private_key *grown = reallocarray(ring->keys, ring->count + 1, sizeof(*grown));

	if (!grown) {
		EVP_PKEY_free(pkey);
		return error_nomem(err);
	}
	ring->keys = grown;
	ring->keys[ring->count++] = (struct private_key){.pkey = pkey, .curve = curve};
	return 0;
}

int key_ring_add_bytes(struct key_ring *ring, const char *name, const char *data, size_t len,
		       const struct secret *password, struct cpull_error *err)
{
	char quoted[QUOTED_BYTES];
	struct password state = {.given = password};
	const char *why = NULL;

	/* what OpenSSL thinks of the formats that did not fit is not for the caller's queue */
	ERR_set_mark();
	EVP_PKEY *pkey = read_any(data, len, &state, &why);
	bool rsa = pkey && EVP_PKEY_get_base_id(pkey) == EVP_PKEY_RSA;
	const char *curve = pkey && EVP_PKEY_get_base_id(pkey) == EVP_PKEY_EC ? curve_of(pkey) : NULL;
	ERR_pop_to_mark();

	if (pkey && !rsa && !curve) {
		EVP_PKEY_free(pkey);
		pkey = NULL;
		why = "its type is none that layer keys are wrapped for (RSA, or EC on P-256, P-384 or P-521)";
	}
	if (pkey)
		return append(ring, pkey, curve, err);

	/* OpenSSL's decoders take a full secure heap, and a lack of memory, for a damaged key */
	CLEANUP_SECRET struct secret probe = {0};

	if (secret_new(&probe, SECURE_PROBE_BYTES, err))
		return CPULL_ERR_NOMEM;
	if (!memory_is_there(MEMORY_PROBE_BYTES))
		return error_nomem(err);
	return error_set(err, CPULL_ERR_KEY, "private key %s: %s",
			 error_quote(name, strlen(name), quoted, sizeof(quoted)), why);
}

/* One read of what is there, as ocicrypt does: a pipe whose other end stays open must not block us. */
static int password_from_fd(const char *number, struct secret *out, struct cpull_error *err)
{
	char *end;

	errno = 0;
	long fd = strtol(number, &end, 10);

	if (*number < '0' || *number > '9' || *end || errno || fd > INT32_MAX)
		return error_set(err, CPULL_ERR_KEY, "the descriptor after fd= is not a number");
	if (secret_new(out, LIMIT_PASSWORD_BYTES + 1, err))
		return CPULL_ERR_NOMEM;

	ssize_t got;

	do
		got = read((int)fd, out->data, out->cap);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return error_sys(err, CPULL_ERR_KEY, errno, "reading the password from descriptor %ld", fd);
	if ((size_t)got > LIMIT_PASSWORD_BYTES)
		return error_set(err, CPULL_ERR_KEY, "the password from descriptor %ld is longer than %u bytes", fd,
				 LIMIT_PASSWORD_BYTES);
	out->len = (size_t)got;
	out->data[out->len] = 0;
	return 0;
}

static int password_from_text(const char *text, size_t len, struct secret *out, struct cpull_error *err)
{
	if (len > LIMIT_PASSWORD_BYTES)
		return error_set(err, CPULL_ERR_KEY, "the password is longer than %u bytes", LIMIT_PASSWORD_BYTES);
	if (secret_new(out, len, err))
		return CPULL_ERR_NOMEM;
	memcpy(out->data, text, len);
	out->len = len;
	return 0;
}

/* The part behind FILE: of a key spec (ocicrypt sheet, section 12). */
static int password_from_spec(const char *spec, struct secret *out, struct cpull_error *err)
{
	CLEANUP_SECRET_BYTES struct bytes file = {0};

	if (!strncmp(spec, "pass=", 5))
		return password_from_text(spec + 5, strlen(spec + 5), out, err);
	if (!strncmp(spec, "fd=", 3))
		return password_from_fd(spec + 3, out, err);
	if (strncmp(spec, "file=", 5))
		return password_from_text(spec, strlen(spec), out, err);

	int rc = file_read(spec + 5, LIMIT_PASSWORD_BYTES, "password file", &file, err);

	return rc ? rc : password_from_text(file.data ? file.data : "", file.len, out, err);
}

/* Whatever is wrong with a key is CPULL_ERR_KEY to the caller, also a file that is not there: CPULL_ERR_NOT_FOUND
 * would look like a missing image. errno stays in *err. */
static int as_key_error(int rc, const char *name, struct cpull_error *err)
{
	char quoted[QUOTED_BYTES];

	if (rc == CPULL_ERR_NOMEM)
		return rc;
	error_wrap(err, "private key %s", error_quote(name, strlen(name), quoted, sizeof(quoted)));
	if (err)
		err->code = CPULL_ERR_KEY;
	return CPULL_ERR_KEY;
}

int key_ring_add(struct key_ring *ring, const char *spec, struct cpull_error *err)
{
	CLEANUP_SECRET struct secret password = {0};
	CLEANUP_SECRET_BYTES struct bytes file = {0};

	if (!spec || !*spec || *spec == ':')
		return error_set(err, CPULL_ERR_KEY, "a private key's spec is empty; give FILE or FILE:pass=…");
	if (!strncmp(spec, "provider:", 9))
		return error_set(err, CPULL_ERR_KEY,
				 "a private key's spec begins with provider: key providers are not supported by this "
				 "build yet");

	const char *colon = strchr(spec, ':');
	CLEANUP_FREE char *name = strndup(spec, colon ? (size_t)(colon - spec) : strlen(spec));

	if (!name)
		return error_nomem(err);

	int rc = colon ? password_from_spec(colon + 1, &password, err) : 0;

	if (!rc)
		/* a file of this size is read into one allocation up to 16 KiB, so that no copy stays behind */
		rc = file_read(name, LIMIT_KEY_FILE_BYTES, "file", &file, err);
	if (rc)
		return as_key_error(rc, name, err);
	return key_ring_add_bytes(ring, name, file.data ? file.data : "", file.len,
				  colon ? &password : NULL, err);
}
