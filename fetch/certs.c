/* SPDX-License-Identifier: Apache-2.0
 *
 * Certificate directories. Called once a pull by registry_new() on the caller's thread; what it read is borrowed by the
 * transfers of that pull. Keys are not read here: libcurl takes their paths.
 */
#include "fetch/certs.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/error.h"
#include "engine/base/limits.h"

static bool ends_with(const char *name, const char *suffix)
{
	size_t len = strlen(name), tail = strlen(suffix);

	return len > tail && !strcmp(name + len - tail, suffix);
}

static bool is_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The first directory there is, or NULL. */
static char *usual_directory(const char *domain)
{
	static const char *const places[] = {"/etc/containers/certs.d", "/etc/docker/certs.d"};
	const char *home = getenv("HOME");
	char *dir = home && *home ? format_string("%s/.config/containers/certs.d/%s", home, domain) : NULL;

	if (dir && is_directory(dir))
		return dir;
	free(dir);
	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		dir = format_string("%s/%s", places[i], domain);
		if (dir && is_directory(dir))
			return dir;
		free(dir);
	}
	return NULL;
}

static int append_file(const char *path, const char *what, struct bytes *out, struct cpull_error *err)
{
	CLEANUP_BYTES struct bytes file = {0};
	int rc = file_read(path, LIMIT_ROOTS_BYTES, what, &file, err);

	if (rc)
		return rc;
	/* a file may end without a newline, and the next PEM header must begin a line */
	rc = bytes_append(out, file.data, file.len, LIMIT_ROOTS_BYTES);
	if (!rc)
		rc = bytes_append(out, "\n", 1, LIMIT_ROOTS_BYTES);
	if (rc)
		return error_set(err, rc, "reading %s %s: more than %u bytes of certificates in all", what, path,
				 LIMIT_ROOTS_BYTES);
	return 0;
}

static int add_root(const char *path, const char *system_roots, struct certs *out, struct cpull_error *err)
{
	if (!out->roots.len && system_roots && access(system_roots, R_OK) == 0) {
		int rc = append_file(system_roots, "system certificates", &out->roots, err);

		if (rc)
			return rc;
	}
	return append_file(path, "root certificate", &out->roots, err);
}

/* The other half of X.cert or X.key must be there. */
static int check_half(const char *dir, const char *name, const char *suffix, const char *other, char **whole,
		      struct cpull_error *err)
{
	*whole = format_string("%s/%.*s%s", dir, (int)(strlen(name) - strlen(suffix)), name, other);
	if (!*whole)
		return error_nomem(err);
	if (access(*whole, R_OK) == 0)
		return 0;

	int num = errno;

	if (num == ENOENT)
		return error_set(err, CPULL_ERR_USAGE, "certificate directory %s: %s is there without its %s", dir,
				 name, other);
	return error_sys(err, CPULL_ERR_USAGE, num, "opening %s", *whole);
}

static int add_entry(const char *dir, const char *name, const char *system_roots, struct log *log,
		     struct certs *out, struct cpull_error *err)
{
	CLEANUP_FREE char *path = format_string("%s/%s", dir, name);
	CLEANUP_FREE char *half = NULL;

	if (!path)
		return error_nomem(err);
	if (ends_with(name, ".crt"))
		return add_root(path, system_roots, out, err);
	if (ends_with(name, ".key"))
		return check_half(dir, name, ".key", ".cert", &half, err);
	if (!ends_with(name, ".cert"))
		return 0;

	int rc = check_half(dir, name, ".cert", ".key", &half, err);

	if (rc)
		return rc;
	if (out->cert) {
		log_warn(log, "certificate directory %s: %s is not used, one client pair is enough", dir, name);
		return 0;
	}
	out->cert = STEAL(path);
	out->key = STEAL(half);
	return 0;
}

static int load(const char *dir, const char *system_roots, struct log *log, struct certs *out,
		struct cpull_error *err)
{
	struct dirent **names = NULL;
	int count = scandir(dir, &names, NULL, alphasort), rc = 0;

	if (count < 0)
		return error_sys(err, CPULL_ERR_NOT_FOUND, errno, "reading the certificate directory %s", dir);
	for (int i = 0; i < count; i++) {
		if (!rc)
			rc = add_entry(dir, names[i]->d_name, system_roots, log, out, err);
		free(names[i]);
	}
	free(names);
	return rc;
}

int certs_load(const char *dir, const char *domain, const char *system_roots, struct log *log, struct certs *out,
	       struct cpull_error *err)
{
	CLEANUP_FREE char *usual = dir ? NULL : usual_directory(domain);

	*out = (struct certs){0};
	if (!dir && !usual)
		return 0;

	int rc = load(dir ? dir : usual, system_roots, log, out, err);

	if (rc)
		certs_free(out);
	return rc;
}

void certs_free(struct certs *certs)
{
	bytes_free(&certs->roots);
	free(certs->cert);
	free(certs->key);
	*certs = (struct certs){0};
}
