/* SPDX-License-Identifier: Apache-2.0
 *
 * Merged lookups in lower layers, for tying a layer's loose ends. Used by one thread; owns the levels of the
 * directory it looked at last, so that neighbours are found without starting at the root.
 *
 * overlayfs's rules: a name is looked up from the top; a whiteout ends the search, so does anything that is no
 * directory; directories of the same name merge until one is opaque.
 */
#include "snapshot/stack_view.h"

#include <errno.h>
#include <string.h>

#include "snapshot/path_text.h"

#define FIRST_CAP 16u

static void layers_add(struct stack_level *level, size_t i)
{
	level->layers[i / 64] |= 1ull << (i % 64);
}

static bool layers_have(const struct stack_level *level, size_t i)
{
	return level->layers[i / 64] >> (i % 64) & 1;
}

int stack_view_init(struct stack_view *view, const struct lower_layer *layers, size_t count)
{
	*view = (struct stack_view){.layers = layers, .count = count, .cap = FIRST_CAP, .depth = 1};
	if (count > LIMIT_LAYERS)
		return -E2BIG;
	view->levels = calloc(view->cap, sizeof(*view->levels));
	if (!view->levels)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		int opaque = lower_layer_opaque(&layers[i], "");

		if (opaque < 0) {
			stack_view_free(view);
			return opaque;
		}
		layers_add(&view->levels[0], i);
		if (opaque)
			break;
	}
	return 0;
}

void stack_view_free(struct stack_view *view)
{
	free(view->levels);
	*view = (struct stack_view){0};
}

static int push(struct stack_view *view, const struct stack_level *level)
{
	if (view->depth == view->cap) {
		struct stack_level *grown = realloc(view->levels, view->cap * 2 * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		view->levels = grown;
		view->cap *= 2;
	}
	view->levels[view->depth++] = *level;
	return 0;
}

static const struct stack_level *top(const struct stack_view *view)
{
	return &view->levels[view->depth - 1];
}

/* Up to the root when there is nothing above. */
static void pop(struct stack_view *view)
{
	if (view->depth > 1)
		view->depth--;
	view->path[top(view)->path_len] = 0;
}

/* Appends a name to the current path, for the calls below; the caller cuts it off again. */
static int append_name(struct stack_view *view, const char *name, size_t len)
{
	size_t at = top(view)->path_len;

	if (at + 1 + len >= sizeof(view->path))
		return -ENAMETOOLONG;
	if (at)
		view->path[at++] = '/';
	memcpy(view->path + at, name, len);
	view->path[at + len] = 0;
	return (int)(at + len);
}

/* Looks a name up in the current directory. For a directory *next is its level. The path has the name appended. */
static int look(struct stack_view *view, const char *name, size_t len, struct stack_node *out,
		struct stack_level *next)
{
	const struct stack_level *here = top(view);
	int path_len = append_name(view, name, len);
	struct lower_node node;

	if (path_len < 0)
		return path_len;
	*next = (struct stack_level){.path_len = (uint16_t)path_len};
	out->layer = view->count;
	for (size_t i = 0; i < view->count; i++) {
		if (!layers_have(here, i))
			continue;

		int rc = lower_layer_find(&view->layers[i], view->path, &node);

		if (rc == -ENOENT)
			continue;
		if (rc)
			return rc;

		bool first = out->layer == view->count;

		if (node.whiteout || (!first && !S_ISDIR(node.st.st_mode)))
			break;
		if (first) {
			out->layer = i;
			out->st = node.st;
		}
		if (!S_ISDIR(node.st.st_mode))
			break;
		layers_add(next, i);

		/* an error, too: for want of a descriptor a hidden file must not come back */
		int opaque = lower_layer_opaque(&view->layers[i], view->path);

		if (opaque)
			return MIN(opaque, 0);
	}
	return 0;
}

static bool is_dir(const struct stack_view *view, const struct stack_node *node)
{
	return node->layer < view->count && S_ISDIR(node->st.st_mode);
}

/* Leaves directories that path[0…len) is not in. */
static void keep_common(struct stack_view *view, const char *path, size_t len)
{
	while (view->depth > 1) {
		size_t have = top(view)->path_len;

		if (have <= len && memcmp(view->path, path, have) == 0 && (have == len || path[have] == '/'))
			break;
		pop(view);
	}
	view->path[top(view)->path_len] = 0;
}

static int root_node(struct stack_view *view, struct stack_node *out)
{
	struct lower_node node = {0};
	int rc = view->count ? lower_layer_find(&view->layers[0], "", &node) : 0;

	out->layer = 0;
	out->st = node.st;
	return rc;
}

int stack_view_find(struct stack_view *view, const char *path, struct stack_node *out)
{
	size_t len = strlen(path);
	size_t parent_len = len;
	struct stack_level next;

	if (!len)
		return root_node(view, out);
	while (parent_len && path[parent_len] != '/')
		parent_len--;
	keep_common(view, path, parent_len);
	for (size_t at = top(view)->path_len; at < len;) {
		at += path[at] == '/';

		size_t n = strcspn(path + at, "/");
		int rc = look(view, path + at, n, out, &next);

		if (rc)
			return rc;
		at += n;
		if (at == len)
			break;
		if (!is_dir(view, out)) {
			out->layer = view->count;
			break;
		}
		rc = push(view, &next);
		if (rc)
			return rc;
	}
	view->path[top(view)->path_len] = 0;
	return 0;
}

/* ---- with symlinks ---- */

struct resolving {
	struct stack_view *view;
	struct path_text todo;
};

static int follow_link(struct resolving *r, const struct stack_node *node)
{
	int rc = lower_layer_link(&r->view->layers[node->layer], r->view->path, path_text_room(&r->todo));

	if (!rc)
		rc = path_text_push(&r->todo);
	if (rc < 0)
		return rc;
	if (rc)
		r->view->depth = 1;
	r->view->path[top(r->view)->path_len] = 0;
	return 0;
}

/* Behind a name that is not there: ".." is taken as text, since there is nothing to follow. */
static int append_missing(const struct resolving *r, char *out)
{
	size_t len = strlen(r->view->path), least = top(r->view)->path_len;
	const char *p = r->todo.rest;

	memcpy(out, r->view->path, len + 1);
	while (*p) {
		size_t n = strcspn(p, "/");

		if (n == 2 && memcmp(p, "..", 2) == 0) {
			while (len > least && out[--len] != '/')
				;
			/* back in what is there: no kernel would come this way */
			if (len <= least)
				return -ENOENT;
		} else if (n && !(n == 1 && *p == '.')) {
			if (len + 1 + n >= LIMIT_PATH_BYTES)
				return -ENAMETOOLONG;
			if (len)
				out[len++] = '/';
			memcpy(out + len, p, n);
			len += n;
		}
		out[len] = 0;
		p += n + (p[n] == '/');
	}
	return 0;
}

/* One component. 1: the path ends here. */
static int resolve_step(struct resolving *r, const char *name, bool follow, struct stack_node *node)
{
	struct stack_level next;
	int rc = look(r->view, name, strlen(name), node, &next);

	if (rc)
		return rc;
	const char *rest = r->todo.rest;
	bool last = rest[strspn(rest, "/.")] == 0 && !strstr(rest, "..");

	if (node->layer == r->view->count)
		return 1;
	if (S_ISLNK(node->st.st_mode) && (follow || !last))
		return follow_link(r, node);
	if (S_ISDIR(node->st.st_mode))
		return push(r->view, &next);
	return last ? 1 : -ENOTDIR;
}

static int resolve_run(struct resolving *r, bool follow, char *out, struct stack_node *node)
{
	char name[LIMIT_NAME_BYTES + 1];

	r->view->depth = 1;
	r->view->path[0] = 0;

	int rc = root_node(r->view, node);

	while (!rc && (rc = path_text_next(&r->todo, name)) > 0) {
		rc = 0;
		if (strcmp(name, "..") == 0)
			pop(r->view);
		else
			rc = resolve_step(r, name, follow, node);
	}
	if (rc >= 0)
		rc = append_missing(r, out);
	r->view->path[top(r->view)->path_len] = 0;
	return rc;
}

int stack_view_resolve(struct stack_view *view, const char *path, bool follow, char *out, struct stack_node *node)
{
	CLEANUP_FREE struct resolving *r = malloc(sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->view = view;

	int rc = path_text_init(&r->todo, path);

	if (!rc)
		rc = resolve_run(r, follow, out, node);

	/* ".." may have led away from what was looked at last */
	return rc ? rc : stack_view_find(view, out, node);
}
