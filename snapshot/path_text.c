/* SPDX-License-Identifier: Apache-2.0
 *
 * The text of a path that is walked by hand. Called by the walks (in a root directory, in names in memory, in a stack
 * of layers) on their threads; owns nothing beyond the struct.
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

char *path_text_room(struct path_text *path)
{
	return path->text[!path->which];
}

int path_text_push(struct path_text *path)
{
	char *out = path_text_room(path);
	size_t n = strnlen(out, LIMIT_PATH_BYTES), rest = strlen(path->rest);

	/* as the kernel says */
	if (!n)
		return -ENOENT;
	if (n == LIMIT_PATH_BYTES || n + 1 + rest >= PATH_TEXT_BYTES)
		return -ENAMETOOLONG;
	if (++path->hops > LIMIT_SYMLINK_HOPS)
		return -ELOOP;
	out[n] = '/';
	memcpy(out + n + 1, path->rest, rest + 1);
	path->which = !path->which;
	path->rest = out;
	return out[0] == '/';
}
