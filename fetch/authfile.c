/* SPDX-License-Identifier: Apache-2.0
 *
 * Credentials from the caller and from auth.json, config.json and .dockercfg. Called once a pull by registry_new() on
 * the caller's thread. The rules are containers/image's: repository and namespace keys count as written, a registry
 * also in the spellings that older clients left behind.
 */
#include "fetch/authfile.h"

#include <string.h>
#include <strings.h>

#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/limits.h"

void credentials_free(struct credentials *creds)
{
	string_wipe(creds->user);
	string_wipe(creds->password);
	string_wipe(creds->identity_token);
	free(creds->origin);
	*creds = (struct credentials){0};
}

/* "user:password" of len bytes; the first colon splits. */
static int take_pair(const char *text, size_t len, const char *colon, struct credentials *out,
		     struct cpull_error *err)
{
	out->user = strndup(text, (size_t)(colon - text));
	out->password = strndup(colon + 1, len - (size_t)(colon - text) - 1);
	return out->user && out->password ? 0 : error_nomem(err);
}

int credentials_from_text(const char *text, struct credentials *out, struct cpull_error *err)
{
	size_t len = strlen(text);
	const char *colon = strchr(text, ':');

	if (len > LIMIT_PASSWORD_BYTES)
		return error_set(err, CPULL_ERR_USAGE, "--creds: longer than %u bytes", LIMIT_PASSWORD_BYTES);
	if (len == 0 || colon == text)
		return error_set(err, CPULL_ERR_USAGE, "--creds: no user name; it is USER[:PASS]");
	out->origin = strdup("--creds");
	if (colon)
		return out->origin ? take_pair(text, len, colon, out, err) : error_nomem(err);
	out->user = strdup(text);
	out->password = strdup("");
	return out->origin && out->user && out->password ? 0 : error_nomem(err);
}

/* ---- one entry ---- */

static int decode_pair(uint8_t *plain, ssize_t len, const char *key, struct credentials *out,
		       struct cpull_error *err)
{
	/* some helpers pad the password with NULs */
	while (len > 0 && !plain[len - 1])
		len--;
	if (memchr(plain, 0, (size_t)len))
		return error_set(err, CPULL_ERR_AUTH, "entry %s: a NUL inside of \"auth\"", key);
	if ((size_t)len > LIMIT_PASSWORD_BYTES)
		return error_set(err, CPULL_ERR_AUTH, "entry %s: \"auth\" holds more than %u bytes", key,
				 LIMIT_PASSWORD_BYTES);

	const char *colon = memchr(plain, ':', (size_t)len);

	/* without a colon docker and podman take it for an empty entry */
	return colon ? take_pair((const char *)plain, (size_t)len, colon, out, err) : 0;
}

static int decode_auth(const char *auth, const char *key, struct credentials *out, struct cpull_error *err)
{
	size_t len = strlen(auth);
	uint8_t *plain = malloc(len / 4 * 3 + 1);

	if (!plain)
		return error_nomem(err);

	ssize_t plain_len = base64_decode(auth, len, plain);
	int rc = plain_len < 0 ? error_set(err, CPULL_ERR_AUTH, "entry %s: \"auth\" is not base64", key)
			       : decode_pair(plain, plain_len, key, out, err);

	explicit_bzero(plain, len / 4 * 3 + 1);
	free(plain);
	return rc;
}

static int take_entry(const char *name, const json_t *entry, bool helper_for_all, struct credentials *out,
		      struct cpull_error *err)
{
	const char *auth = json_string_at(entry, "auth"), *identity = json_string_at(entry, "identitytoken");
	char key[160];

	error_quote(name, strlen(name), key, sizeof(key));
	if (!json_is_object(entry) || (json_object_get(entry, "auth") && !auth))
		return error_set(err, CPULL_ERR_AUTH, "entry %s: not {\"auth\": \"…\"}", key);
	if ((!auth || !*auth) && helper_for_all)
		return error_set(err, CPULL_ERR_AUTH,
				 "entry %s: the secret is with a \"credsStore\" helper, and helper programs are not "
				 "supported yet: give it with --creds or an auth file", key);
	if (auth && *auth) {
		int rc = decode_auth(auth, key, out, err);

		if (rc)
			return rc;
	}
	if (identity && *identity && (out->user || !auth || !*auth)) {
		out->identity_token = strdup(identity);
		if (!out->identity_token)
			return error_nomem(err);
	}
	return 0;
}

/* ---- finding the entry ---- */

struct text {
	const char *at;
	size_t len;
};

static struct text normal_registry(struct text host)
{
	static const char hub[] = "index.docker.io";
	static const char *const aliases[] = {"docker.io", "registry-1.docker.io"};

	for (size_t i = 0; i < ARRAY_LEN(aliases); i++)
		if (host.len == strlen(aliases[i]) && !memcmp(host.at, aliases[i], host.len))
			return (struct text){hub, sizeof(hub) - 1};
	return host;
}

/* Without the scheme, and then (or in the old form always) without what follows the host. */
static struct text normal_key(const char *key, bool legacy)
{
	bool stripped = false;

	if (!strncmp(key, "https://", 8)) {
		key += 8;
		stripped = true;
	} else if (!strncmp(key, "http://", 7)) {
		key += 7;
		stripped = true;
	}
	return normal_registry((struct text){key, stripped || legacy ? strcspn(key, "/") : strlen(key)});
}

/* The entry for the longest of "domain/ns/repo", "domain/ns", …, "domain", as written. */
static const json_t *find_exact(const json_t *auths, const char *domain, const char *path, bool legacy,
				const char **name)
{
	char key[LIMIT_REFERENCE_BYTES + 2];
	int len = legacy ? snprintf(key, sizeof(key), "%s", domain)
			 : snprintf(key, sizeof(key), "%s/%s", domain, path);

	if (len < 0 || (size_t)len >= sizeof(key))
		return NULL;
	for (;;) {
		json_t *entry;
		const char *found;
		char *slash = strrchr(key, '/');

		json_object_foreach((json_t *)auths, found, entry) {
			if (!strcmp(found, key)) {
				*name = found;
				return entry;
			}
		}
		if (!slash)
			return NULL;
		*slash = 0;
	}
}

static const json_t *find_normal(const json_t *auths, const char *domain, bool legacy, const char **name)
{
	struct text want = normal_registry((struct text){domain, strlen(domain)});
	const char *key;
	json_t *entry;

	json_object_foreach((json_t *)auths, key, entry) {
		struct text have = normal_key(key, legacy);

		if (have.len == want.len && !memcmp(have.at, want.at, want.len)) {
			*name = key;
			return entry;
		}
	}
	return NULL;
}

static int lookup(const json_t *root, bool legacy, const char *domain, const char *path, struct credentials *out,
		  struct cpull_error *err)
{
	const json_t *auths = legacy ? root : json_object_get(root, "auths");
	const json_t *helpers = legacy ? NULL : json_object_get(root, "credHelpers");
	const char *helper = json_string_at(helpers, domain), *name = NULL;
	char quoted[96];

	if (!json_is_object(root) || (auths && !json_is_object(auths)) || (helpers && !json_is_object(helpers)))
		return error_set(err, CPULL_ERR_AUTH, "\"auths\" and \"credHelpers\" must be objects");
	if (helper)
		return error_set(err, CPULL_ERR_AUTH,
				 "credentials for %s are with the helper docker-credential-%s, and helper programs are "
				 "not supported yet: give them with --creds or an auth file", domain,
				 error_quote(helper, strlen(helper), quoted, sizeof(quoted)));

	const json_t *entry = find_exact(auths, domain, path, legacy, &name);

	if (!entry)
		entry = find_normal(auths, domain, legacy, &name);
	if (!entry)
		return 0;
	return take_entry(name, entry, !legacy && json_string_at(root, "credsStore"), out, err);
}

static void wipe_entries(json_t *root, bool legacy)
{
	static const char *const secrets[] = {"auth", "identitytoken", "password"};
	json_t *auths = legacy ? root : json_object_get(root, "auths"), *entry;
	const char *key;

	json_object_foreach(auths, key, entry) {
		for (size_t i = 0; i < ARRAY_LEN(secrets); i++) {
			json_t *secret = json_object_get(entry, secrets[i]);

			if (json_is_string(secret))
				explicit_bzero((char *)json_string_value(secret), json_string_length(secret));
		}
	}
}

int authfile_lookup(const char *text, size_t len, bool legacy, const char *domain, const char *path,
		    struct credentials *out, struct cpull_error *err)
{
	json_t *root = NULL;
	int rc = json_parse(text, len, CPULL_ERR_AUTH, "credentials", &root, err);

	if (rc)
		return rc;
	rc = lookup(root, legacy, domain, path, out, err);
	wipe_entries(root, legacy);
	json_decref(root);
	if (rc)
		credentials_free(out);
	return rc;
}

/* ---- files ---- */

/* A file that is not there says nothing when it is one of the usual places. */
static int find_in_file(const char *file, bool must_exist, bool legacy, const char *domain, const char *path,
			struct credentials *out, struct cpull_error *err)
{
	struct bytes text = {0};
	struct cpull_error why = {0};
	int rc = file_read(file, LIMIT_AUTH_FILE_BYTES, "auth file", &text, &why);

	if (rc == CPULL_ERR_NOT_FOUND && !must_exist)
		return 0;
	if (rc)
		return error_set(err, CPULL_ERR_AUTH, "%s", why.message);
	rc = authfile_lookup(text.data, text.len, legacy, domain, path, out, err);
	explicit_bzero(text.data, text.len);
	bytes_free(&text);
	if (rc) {
		error_wrap(err, "auth file %s", file);
		return rc;
	}
	if (!credentials_known(out))
		return 0;
	out->origin = strdup(file);
	return out->origin ? 0 : error_nomem(err);
}

static char *in_directory(const char *variable, const char *file)
{
	const char *dir = getenv(variable);

	return dir && *dir ? format_string("%s/%s", dir, file) : NULL;
}

/* Where podman and docker keep them, in podman's order. */
enum { PLACE_RUNTIME, PLACE_CONFIG, PLACE_DOCKER, PLACE_LEGACY, PLACES };

static char *place(int index)
{
	char *out = NULL;

	switch (index) {
	case PLACE_RUNTIME:
		out = in_directory("XDG_RUNTIME_DIR", "containers/auth.json");
		return out ? out : format_string("/run/containers/%u/auth.json", (unsigned)geteuid());
	case PLACE_CONFIG:
		out = in_directory("XDG_CONFIG_HOME", "containers/auth.json");
		return out ? out : in_directory("HOME", ".config/containers/auth.json");
	case PLACE_DOCKER:
		out = in_directory("DOCKER_CONFIG", "config.json");
		return out ? out : in_directory("HOME", ".docker/config.json");
	case PLACE_LEGACY:
		return in_directory("HOME", ".dockercfg");
	}
	return NULL;
}

int authfile_find(const char *authfile, const char *domain, const char *path, struct credentials *out,
		  struct cpull_error *err)
{
	const char *named = authfile ? authfile : getenv("REGISTRY_AUTH_FILE");

	if (named && *named)
		return find_in_file(named, true, false, domain, path, out, err);
	for (int i = 0; i < PLACES; i++) {
		CLEANUP_FREE char *file = place(i);
		int rc = file ? find_in_file(file, false, i == PLACE_LEGACY, domain, path, out, err) : 0;

		if (rc || credentials_known(out))
			return rc;
	}
	return 0;
}
