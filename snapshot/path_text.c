/* SPDX-License-Identifier: Apache-2.0
 *
 * The text of a path that is walked by hand. Called by the two walks, the one in a root directory and the one in a
 * stack of layers, on their threads; owns nothing beyond the struct.
 */
#include "snapshot/path_text.h"

#include <errno.h>
#include <string.h>

int path_text_init(struct path_text *path, const char *text)
{
	size_t len = strlen(text);

	path->which = path->hops = 0;
	path->rest = path->text[0];
	if (len >= PATH_TEXT_BYTES)
		return -ENAMETOOLONG;
	memcpy(path->text[0], text, len + 1);
	return 0;
}

int path_text_next(struct path_text *path, char *name)
{
	size_t len;

	do {
		while (*path->rest == '/')
			path->rest++;
		len = strcspn(path->rest, "/");
		if (len > LIMIT_NAME_BYTES)
			return -ENAMETOOLONG;
		memcpy(name, path->rest, len);
		name[len] = 0;
		path->rest += len;
	} while (strcmp(name, ".") == 0);
	return len > 0;
}

int path_text_follow(struct path_text *path, int dirfd, const char *name)
{
	char *out = path->text[!path->which];
	size_t rest = strlen(path->rest);
	ssize_t n = readlinkat(dirfd, name, out, LIMIT_PATH_BYTES);

	if (n < 0)
		return -errno;
	if (n == LIMIT_PATH_BYTES || (size_t)n + 1 + rest >= PATH_TEXT_BYTES)
		return -ENAMETOOLONG;
	if (++path->hops > LIMIT_SYMLINK_HOPS)
		return -ELOOP;
	out[n] = '/';
	memcpy(out + n + 1, path->rest, rest + 1);
	path->which = !path->which;
	path->rest = out;
	return out[0] == '/';
}
