/* SPDX-License-Identifier: Apache-2.0
 *
 * The store's directories, layers and locks. Called from the pull threads and from the API's callers; a struct store is
 * read-only after store_open(), everything else is in the file system and guarded by flock, whose owner is the
 * open file: so it works the same between threads, engines and processes, and a dead owner's lock is free.
 */
#include "engine/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"
#include "engine/base/json.h"

#define LAYER_FILE "layer.json"
#define DURABLE_MARK "durable"
#define TRASH_PREFIX ".trash-"
#define LAYER_VERSION 1

/* ---- opening ---- */

static int read_boot_id(char out[40], struct cpull_error *err)
{
	CLEANUP_BYTES struct bytes text = {0};
	int rc = file_read("/proc/sys/kernel/random/boot_id", 64, "boot id", &text, err);

	if (rc)
		return rc;
	snprintf(out, 40, "%.36s", text.data);
	return 0;
}

/* Makes the path and its parents, like mkdir -p. */
static int make_path(const char *path, struct cpull_error *err)
{
	char part[PATH_MAX];

	if (strlen(path) >= sizeof(part))
		return error_set(err, CPULL_ERR_USAGE, "store path is longer than %d bytes", PATH_MAX - 1);
	for (const char *at = path; *at; at++) {
		if (at[1] != '/' && at[1] != 0)
			continue;
		snprintf(part, sizeof(part), "%.*s", (int)(at - path + 1), path);
		if (mkdir(part, 0755) && errno != EEXIST && errno != EISDIR)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "making store directory %s", part);
	}
	return 0;
}

static int open_dirs(struct store *store, struct cpull_error *err)
{
	static const char *const names[] = {"layers", "staging", "images", "mounts"};
	int *fds[] = {&store->layers_fd, &store->staging_fd, &store->images_fd, &store->mounts_fd};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		/* what is inside is root's: setuid files of images must not be in other users' reach */
		int rc = fs_make_dir(store->fd, names[i], 0700, err);

		if (rc)
			return error_wrap(err, "store %s", store->path);
		*fds[i] = fs_open_dir(store->fd, names[i]);
		if (*fds[i] < 0)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "opening %s of store %s", names[i],
					 store->path);
	}
	return 0;
}

static int trash(struct store *store, int dirfd, const char *name, char out[64])
{
	static atomic_uint serial;

	snprintf(out, 64, TRASH_PREFIX "%d-%u-%lx", (int)getpid(), atomic_fetch_add(&serial, 1),
		 (unsigned long)now_ns());
	return renameat(dirfd, name, store->staging_fd, out);
}

int store_trash(struct store *store, int dirfd, const char *name, struct cpull_error *err)
{
	char away[64];

	if (trash(store, dirfd, name, away) == 0 || errno == ENOENT)
		return 0;
	return error_sys(err, CPULL_ERR_STORAGE, errno, "moving %s out of store %s", name, store->path);
}

static void remove_staged(struct store *store, const char *name)
{
	struct cpull_error err = {0};

	if (fs_remove_tree(store->staging_fd, name, &err))
		log_warn(store->log, "leaving %s/staging/%s behind: %s", store->path, name, err.message);
}

void store_empty_trash(struct store *store)
{
	CLEANUP_DIR DIR *dir = fs_list(store->staging_fd, ".");
	const char *name;

	while (dir && (name = fs_next_name(dir)))
		if (strncmp(name, TRASH_PREFIX, strlen(TRASH_PREFIX)) == 0)
			remove_staged(store, name);
}

/* Removes one thing of staging/ if nobody works on it. */
static void sweep_one(struct store *store, const char *name)
{
	CLEANUP_FD int fd = fs_open_dir(store->staging_fd, name);
	char away[64];

	if (fd < 0) {
		if (errno == ENOTDIR)
			unlinkat(store->staging_fd, name, 0);
		return;
	}
	if (strncmp(name, TRASH_PREFIX, strlen(TRASH_PREFIX)) == 0) {
		remove_staged(store, name);
		return;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) || !fs_same_file(fd, store->staging_fd, name))
		return;
	log_debug(store->log, "sweeping %s, its owner is gone", name);
	if (trash(store, store->staging_fd, name, away) == 0)
		remove_staged(store, away);
}

static void sweep(struct store *store)
{
	CLEANUP_DIR DIR *dir = fs_list(store->staging_fd, ".");
	const char *name;

	while (dir && (name = fs_next_name(dir)))
		sweep_one(store, name);
}

int store_open(const char *path, struct log *log, struct store **out, struct cpull_error *err)
{
	struct store *store = calloc(1, sizeof(*store));
	int rc;

	if (!store)
		return error_nomem(err);
	*store = (struct store){.fd = -1, .layers_fd = -1, .staging_fd = -1, .images_fd = -1, .mounts_fd = -1,
				.log = log};
	rc = make_path(path, err);
	if (!rc && !(store->path = realpath(path, NULL)))
		rc = error_sys(err, CPULL_ERR_STORAGE, errno, "opening store %s", path);
	if (!rc && (store->fd = open(store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		rc = error_sys(err, CPULL_ERR_STORAGE, errno, "opening store %s", path);
	if (!rc)
		rc = open_dirs(store, err);
	if (!rc)
		rc = read_boot_id(store->boot_id, err);
	if (rc) {
		store_close(store);
		return rc;
	}
	sweep(store);
	*out = store;
	return 0;
}

void store_close(struct store *store)
{
	if (!store)
		return;

	int fds[] = {store->fd, store->layers_fd, store->staging_fd, store->images_fd, store->mounts_fd};

	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	free(store->path);
	free(store);
}

int store_lock(struct store *store, enum store_lock_mode mode, struct cpull_error *err)
{
	int fd = openat(store->fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening the lock of store %s", store->path);
	while (flock(fd, mode == STORE_SHARED ? LOCK_SH : LOCK_EX)) {
		if (errno == EINTR)
			continue;

		int num = errno;

		close(fd);
		return error_sys(err, CPULL_ERR_STORAGE, num, "locking store %s", store->path);
	}
	return fd;
}

/* ---- layers ---- */

void store_layer_key(const char *diff_id, const char *parents, enum layer_form form, char out[STORE_KEY_BYTES])
{
	/* no colon: it separates directories in a lowerdir option */
	const char *colon = strchr(diff_id, ':');

	assert(colon);
	snprintf(out, STORE_KEY_BYTES, "%.*s-%s%s%s%s", (int)(colon - diff_id), diff_id, colon + 1, parents ? "." : "",
		 parents ? parents : "", layer_form_suffix(form));
}

char *store_layer_path(const struct store *store, const char *key)
{
	return format_string("%s/layers/%s/%s", store->path, key, layer_form_content(layer_form_of_key(key)));
}

/* The content of the layer behind dirfd; -1 with errno. */
static int open_content(int dirfd, const char *key)
{
	enum layer_form form = layer_form_of_key(key);
	const char *name = layer_form_content(form);

	return layer_form_is_erofs(form) ? openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
					 : fs_open_dir(dirfd, name);
}

bool store_is_absent(int num)
{
	return num == ENOENT || num == ENOTDIR || num == ELOOP || num == EISDIR || num == ENAMETOOLONG;
}

static int layer_error(const struct store *store, const char *key, int num, struct cpull_error *err)
{
	return error_sys(err, CPULL_ERR_STORAGE, num, "looking at %s/layers/%s", store->path, key);
}

/* 1 with the whole file, 0 when there is none, or more than there can be. */
static int read_facts(const struct store *store, int dirfd, const char *key, struct bytes *out, struct cpull_error *err)
{
	CLEANUP_FD int fd = openat(dirfd, LAYER_FILE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char block[4096];
	ssize_t n;

	if (fd < 0)
		return store_is_absent(errno) ? 0 : layer_error(store, key, errno, err);
	while ((n = read(fd, block, sizeof(block))) > 0) {
		int rc = bytes_append(out, block, (size_t)n, LIMIT_RECORD_BYTES);

		if (rc)
			return rc == CPULL_ERR_LIMIT ? 0 : error_nomem(err);
	}
	return n < 0 ? layer_error(store, key, errno, err) : 1;
}

static int has_durable_mark(const struct store *store, int fd, const char *key, struct cpull_error *err)
{
	if (faccessat(fd, DURABLE_MARK, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 1;
	return store_is_absent(errno) ? 0 : layer_error(store, key, errno, err);
}

/* What came encrypted is there for who brings the key, and for nobody else. */
static bool may_have(const json_t *facts, const struct layer_wish *wish)
{
	const json_t *print = json_object_get(facts, "key_print");

	if (wish->any_key || json_is_null(print))
		return true;
	return json_is_string(print) && wish->key_print && strcmp(json_string_value(print), wish->key_print) == 0;
}

/* What of layer.json everybody wants. The strings are the root's. */
struct layer_file {
	json_t *root;
	const char *boot_id, *diff_id;
};

/* Parses it, and what it says of the layer's image. 1 with *out and *image set, 0 when it makes no sense or is of
 * another form than the key's, or an error. The root is the caller's in any case. */
static int parse_facts(const struct store *store, int fd, const char *key, struct layer_file *out,
		       struct layer_image *image, struct cpull_error *err)
{
	enum layer_form form = layer_form_of_key(key);
	CLEANUP_BYTES struct bytes text = {0};
	enum cpull_snapshot snapshot;
	struct cpull_error why = {0};
	int rc = read_facts(store, fd, key, &text, err);

	if (rc <= 0)
		return rc;
	rc = json_parse(text.data, text.len, CPULL_ERR_STORAGE, LAYER_FILE, &out->root, &why);
	if (rc)
		return rc == CPULL_ERR_NOMEM ? error_copy(err, &why) : 0;
	out->boot_id = json_string_at(out->root, "boot_id");
	out->diff_id = json_string_at(out->root, "diff_id");
	return out->boot_id && out->diff_id && snapshot_read(out->root, &snapshot) &&
	       snapshot == layer_form_snapshot(form) && layer_image_read(out->root, form, image);
}

/* Written in this boot, or synced in another? 1, 0 or an error. */
static int outlives(const struct store *store, int fd, const char *key, const struct layer_file *file,
		    struct cpull_error *err)
{
	return strcmp(file->boot_id, store->boot_id) == 0 ? 1 : has_durable_mark(store, fd, key, err);
}

/* Written in this boot, or synced in another, of the key's form, and what is wished for? 1, 0 or an error. No wish: any
 * will do. */
static int trusted(const struct store *store, int fd, const char *key, const struct layer_wish *wish,
		   struct layer_image *image, struct cpull_error *err)
{
	struct layer_file file = {0};
	int rc = parse_facts(store, fd, key, &file, image, err);
	CLEANUP_JSON json_t *root = file.root;

	if (rc <= 0)
		return rc;
	if (wish && (strcmp(file.diff_id, wish->diff_id) != 0 || !may_have(root, wish)))
		return 0;
	return outlives(store, fd, key, &file, err);
}

/* Is the image file as long as it was made? 1, 0 or an error; a directory always is. */
static int is_whole(const struct store *store, int fd, const char *key, const struct layer_image *image,
		    struct cpull_error *err)
{
	struct stat st;

	if (!image->blocks)
		return 1;
	if (fstat(fd, &st))
		return layer_error(store, key, errno, err);
	return S_ISREG(st.st_mode) && (uint64_t)st.st_size == layer_image_bytes(image);
}

/* Under the shared store lock. 1, 0 or an error. */
static int pin(struct store *store, const char *key, const struct layer_wish *wish, struct layer_ref *out,
	       struct cpull_error *err)
{
	CLEANUP_FD int fd = fs_open_dir(store->layers_fd, key);
	CLEANUP_FD int content = fd < 0 ? -1 : open_content(fd, key);

	if (content < 0)
		return store_is_absent(errno) ? 0 : layer_error(store, key, errno, err);

	int rc = trusted(store, fd, key, wish, &out->image, err);

	if (rc > 0)
		rc = is_whole(store, content, key, &out->image, err);
	if (rc <= 0)
		return rc;
	if (flock(content, LOCK_SH | LOCK_NB))
		return layer_error(store, key, errno, err);
	out->fd = steal_fd(&content);
	snprintf(out->key, sizeof(out->key), "%s", key);
	return 1;
}

int store_layer_trusted(struct store *store, const char *key, struct cpull_error *err)
{
	CLEANUP_FD int fd = fs_open_dir(store->layers_fd, key);
	struct layer_image image;

	if (fd < 0)
		return store_is_absent(errno) ? 0 : layer_error(store, key, errno, err);

	int rc = trusted(store, fd, key, NULL, &image, err);

	if (rc <= 0 || !image.blocks)
		return rc;

	CLEANUP_FD int content = open_content(fd, key);

	if (content < 0)
		return store_is_absent(errno) ? 0 : layer_error(store, key, errno, err);
	return is_whole(store, content, key, &image, err);
}

/* What layer.json says of it, into the exam. 1, 0 when it makes no sense, or an error. */
static int read_exam(const struct store *store, int fd, const char *key, struct layer_exam *exam,
		     struct cpull_error *err)
{
	struct layer_file file = {0};
	int rc = parse_facts(store, fd, key, &file, &exam->ref.image, err);
	CLEANUP_JSON json_t *root = file.root;

	if (rc <= 0)
		return rc;
	if (strlen(file.diff_id) >= sizeof(exam->diff_id) || !layer_contents_read(root, &exam->contents) ||
	    !json_u64_at(root, "unpacked_bytes", &exam->unpacked_bytes))
		return 0;
	strcpy(exam->diff_id, file.diff_id);
	rc = outlives(store, fd, key, &file, err);
	exam->state = rc ? LAYER_READY : LAYER_STALE;
	return MIN(rc, 0) ? rc : 1;
}

/* Under the shared store lock; facts are read. */
static int open_exam(const struct store *store, int fd, const char *key, struct layer_exam *exam,
		     struct cpull_error *err)
{
	CLEANUP_FD int content = open_content(fd, key);

	if (content < 0) {
		exam->state = LAYER_EMPTY;
		return store_is_absent(errno) ? 0 : layer_error(store, key, errno, err);
	}

	int rc = is_whole(store, content, key, &exam->ref.image, err);

	if (rc <= 0) {
		exam->state = LAYER_CUT;
		return rc;
	}
	if (flock(content, LOCK_SH | LOCK_NB))
		return layer_error(store, key, errno, err);
	exam->contents_fd = openat(fd, LAYER_CONTENTS_FILE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (exam->contents_fd < 0 && !store_is_absent(errno))
		return layer_error(store, key, errno, err);
	exam->ref.fd = steal_fd(&content);
	snprintf(exam->ref.key, sizeof(exam->ref.key), "%s", key);
	return 0;
}

int store_layer_examine(struct store *store, const char *key, struct layer_exam *out, struct cpull_error *err)
{
	*out = (struct layer_exam){.state = LAYER_ABSENT, .ref.fd = -1, .contents_fd = -1};

	CLEANUP_FD int lock = store_lock(store, STORE_SHARED, err);
	CLEANUP_FD int fd = lock < 0 ? -1 : fs_open_dir(store->layers_fd, key);

	if (lock < 0)
		return lock;
	if (fd < 0)
		return store_is_absent(errno) ? 0 : layer_error(store, key, errno, err);
	out->state = LAYER_UNKNOWN;

	int rc = read_exam(store, fd, key, out, err);

	return rc <= 0 || out->state != LAYER_READY ? MIN(rc, 0) : open_exam(store, fd, key, out, err);
}

void layer_exam_end(struct layer_exam *exam)
{
	layer_ref_drop(&exam->ref);
	if (exam->contents_fd >= 0)
		close(steal_fd(&exam->contents_fd));
}

int store_layer_pin(struct store *store, const char *key, struct layer_ref *out, struct cpull_error *err)
{
	CLEANUP_FD int lock = store_lock(store, STORE_SHARED, err);

	return lock < 0 ? lock : pin(store, key, NULL, out, err);
}

/* With the store locked; as store_layer_find(), for one form. */
static int find_form(struct store *store, const struct layer_wish *wish, enum layer_form form, struct layer_ref *out,
		     struct cpull_error *err)
{
	char key[STORE_KEY_BYTES];

	store_layer_key(wish->diff_id, NULL, form, key);

	int rc = pin(store, key, wish, out, err);

	if (rc || !wish->parents)
		return rc;
	store_layer_key(wish->diff_id, wish->parents, form, key);
	return pin(store, key, wish, out, err);
}

int store_layer_find(struct store *store, const struct layer_wish *wish, struct layer_ref *out,
		     struct cpull_error *err)
{
	CLEANUP_FD int lock = store_lock(store, STORE_SHARED, err);

	if (lock < 0)
		return lock;

	int rc = find_form(store, wish, wish->form, out, err);

	return rc || wish->form != LAYER_EROFS ? rc : find_form(store, wish, LAYER_EROFS_VERITY, out, err);
}

void layer_ref_drop(struct layer_ref *ref)
{
	if (ref->fd >= 0)
		close(ref->fd);
	ref->fd = -1;
}

/* ---- stages ---- */

/* mkdir, open and lock; 0 when somebody came between and it is to be tried again. */
static int own(struct store *store, const char *name, int *out, struct cpull_error *err)
{
	if (mkdirat(store->staging_fd, name, 0700) && errno != EEXIST)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "making staging directory %s/staging/%s",
				 store->path, name);

	CLEANUP_FD int fd = fs_open_dir(store->staging_fd, name);

	if (fd < 0)
		return errno == ENOENT ? 0
				       : error_sys(err, CPULL_ERR_STORAGE, errno, "opening %s/staging/%s",
						   store->path, name);
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		*out = -1;
		return 1;
	}
	if (!fs_same_file(fd, store->staging_fd, name))
		return 0;
	*out = steal_fd(&fd);
	return 1;
}

/* Takes what a dead owner left out of the way: nothing of it is used. */
static int clear_leftover(struct store *store, const char *name, struct cpull_error *err)
{
	char away[64];

	if (trash(store, store->staging_fd, name, away))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "clearing %s/staging/%s", store->path, name);
	remove_staged(store, away);
	return 0;
}

/* Is there an owner that has set the layer aside with these parents? To be asked by the owner of the plain name,
 * without which nobody can set one aside. 1, 0 or an error. */
static int is_set_aside(struct store *store, const struct layer_wish *wish, struct cpull_error *err)
{
	char name[STORE_KEY_BYTES];

	if (!wish->parents)
		return 0;
	store_layer_key(wish->diff_id, wish->parents, wish->form, name);

	CLEANUP_FD int fd = fs_open_dir(store->staging_fd, name);

	if (fd < 0)
		return errno == ENOENT ? 0
				       : error_sys(err, CPULL_ERR_STORAGE, errno, "opening %s/staging/%s",
						   store->path, name);
	if (flock(fd, LOCK_EX | LOCK_NB))
		return 1;
	/* gone from there: committed, dropped or swept */
	return fs_same_file(fd, store->staging_fd, name) ? clear_leftover(store, name, err) : 0;
}

/* The owned and empty directory of that name; 1, 0 or an error as store_stage(). */
static int own_empty(struct store *store, const char *name, int *out, struct cpull_error *err)
{
	CLEANUP_FD int fd = -1;

	for (;;) {
		int rc = own(store, name, &fd, err);

		if (rc < 0)
			return rc;
		if (rc == 0)
			continue;
		if (fd < 0)
			return 0;

		int empty = fs_is_empty(fd);

		if (empty < 0)
			return error_sys(err, CPULL_ERR_STORAGE, -empty, "listing %s/staging/%s", store->path, name);
		if (empty) {
			*out = steal_fd(&fd);
			return 1;
		}
		rc = clear_leftover(store, name, err);
		if (rc)
			return rc;
		close(steal_fd(&fd));
	}
}

/* In the new stage. */
static int make_content(struct store *store, struct stage *stage, struct cpull_error *err)
{
	const char *name = layer_form_content(stage->form);

	if (layer_form_is_erofs(stage->form)) {
		stage->content_fd = openat(stage->fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	} else {
		int rc = fs_make_dir(stage->fd, name, 0755, err);

		if (rc)
			return rc;
		stage->content_fd = fs_open_dir(stage->fd, name);
	}
	if (stage->content_fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening %s/staging/%s/%s", store->path, stage->name,
				 name);
	return 0;
}

int store_stage(struct store *store, const struct layer_wish *wish, struct stage **out, struct cpull_error *err)
{
	char name[STORE_KEY_BYTES];
	CLEANUP_FD int fd = -1;

	store_layer_key(wish->diff_id, NULL, wish->form, name);

	int rc = own_empty(store, name, &fd, err);

	if (rc <= 0)
		return rc;
	rc = is_set_aside(store, wish, err);
	if (rc) {
		unlinkat(store->staging_fd, name, AT_REMOVEDIR);
		return rc < 0 ? rc : 0;
	}

	struct stage *stage = calloc(1, sizeof(*stage));

	if (!stage)
		return error_nomem(err);
	*stage = (struct stage){.fd = steal_fd(&fd), .content_fd = -1, .form = wish->form};
	snprintf(stage->name, sizeof(stage->name), "%s", name);
	rc = make_content(store, stage, err);
	if (rc) {
		store_stage_drop(store, stage);
		return rc;
	}
	*out = stage;
	return 1;
}

int store_stage_set_aside(struct store *store, struct stage *stage, const struct layer_wish *wish,
			  struct cpull_error *err)
{
	char name[STORE_KEY_BYTES];

	store_layer_key(wish->diff_id, wish->parents, wish->form, name);
	if (strcmp(name, stage->name) == 0)
		return 0;
	if (renameat(store->staging_fd, stage->name, store->staging_fd, name))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "setting %s/staging/%s aside", store->path, name);
	memcpy(stage->name, name, sizeof(name));
	return 0;
}

static void stage_free(struct stage *stage)
{
	if (stage->content_fd >= 0)
		close(stage->content_fd);
	if (stage->fd >= 0)
		close(stage->fd);
	free(stage);
}

void store_stage_drop(struct store *store, struct stage *stage)
{
	char away[64];

	if (!stage)
		return;
	/* out of the way first, so that whoever waits for the lock finds a free name at once */
	if (trash(store, store->staging_fd, stage->name, away) == 0)
		remove_staged(store, away);
	stage_free(stage);
}

static int write_facts(const struct store *store, int fd, const struct layer_facts *facts, struct cpull_error *err)
{
	enum cpull_snapshot snapshot = facts->image.blocks ? CPULL_SNAPSHOT_EROFS : CPULL_SNAPSHOT_OVERLAY;
	CLEANUP_JSON json_t *root =
	    json_pack("{s:i, s:s, s:s, s:s?, s:s, s:I, s:I, s:s}", "version", LAYER_VERSION, "diff_id",
		      facts->diff_id, "blob_digest", facts->blob_digest, "key_print", facts->key_print, "boot_id",
		      store->boot_id, "unpacked_bytes", (json_int_t)facts->unpacked_bytes, "entries",
		      (json_int_t)facts->entries, "snapshot", snapshot_text(snapshot));
	bool put = root && !layer_image_put(root, &facts->image) && !layer_contents_put(root, &facts->contents);
	CLEANUP_FREE char *text = put ? json_dumps(root, JSON_INDENT(1)) : NULL;

	if (!text)
		return error_nomem(err);
	return fs_replace_file(fd, LAYER_FILE, text, strlen(text), false, err);
}

static int forget_key(const struct store *store, const char *key, struct cpull_error *err)
{
	CLEANUP_FD int fd = fs_open_dir(store->layers_fd, key);
	CLEANUP_BYTES struct bytes text = {0};
	CLEANUP_JSON json_t *root = NULL;
	int rc = fd < 0 ? -1 : read_facts(store, fd, key, &text, err);

	if (rc <= 0 || json_parse(text.data, text.len, CPULL_ERR_STORAGE, LAYER_FILE, &root, err) ||
	    json_object_set_new(root, "key_print", json_null()))
		return -1;

	CLEANUP_FREE char *changed = json_dumps(root, JSON_INDENT(1));

	return changed ? fs_replace_file(fd, LAYER_FILE, changed, strlen(changed), false, err) : -1;
}

/* The same content has come without encryption: it need not be kept for one key any more. Should this fail, the next
 * pull fetches it again. */
static void open_to_all(const struct store *store, const char *key)
{
	if (forget_key(store, key, NULL))
		log_debug(store->log, "layer %s stays bound to its key", key);
}

static int move_in(struct store *store, const struct stage *stage, const char *key)
{
	return renameat(store->staging_fd, stage->name, store->layers_fd, key);
}

/* Under the shared store lock, which keeps every remover out between the rename and the shared flock. `away` gets the
 * name of what had to make room, for the caller to remove. 1 when a trusted layer is there already, and pinned. */
static int publish(struct store *store, struct stage *stage, const char *key, const struct layer_facts *facts,
		   char away[64], struct layer_ref *out, struct cpull_error *err)
{
	away[0] = 0;
	if (move_in(store, stage, key)) {
		if (errno != ENOTEMPTY && errno != EEXIST)
			return error_sys(err, CPULL_ERR_STORAGE, errno, "committing layer %s", key);

		/* what is there may be in use: it makes room only when it is known to be another boot's or damaged */
		struct layer_wish same = {.diff_id = facts->diff_id, .any_key = true};
		int rc = pin(store, key, &same, out, err);

		if (rc > 0 && !facts->key_print)
			open_to_all(store, key);
		if (rc)
			return rc;
		if (trash(store, store->layers_fd, key, away))
			return error_sys(err, CPULL_ERR_STORAGE, errno, "replacing the untrusted layer %s", key);
		if (move_in(store, stage, key))
			return error_sys(err, CPULL_ERR_STORAGE, errno, "committing layer %s", key);
	}
	if (flock(stage->content_fd, LOCK_SH))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "pinning layer %s", key);
	out->fd = steal_fd(&stage->content_fd);
	out->image = facts->image;
	snprintf(out->key, sizeof(out->key), "%s", key);
	return 0;
}

int store_stage_commit(struct store *store, struct stage *stage, const char *key, const struct layer_facts *facts,
		       struct layer_ref *out, struct cpull_error *err)
{
	assert(layer_form_of_key(key) == stage->form && layer_form_is_erofs(stage->form) == (facts->image.blocks > 0));

	int rc = write_facts(store, stage->fd, facts, err);
	int lock = rc ? rc : store_lock(store, STORE_SHARED, err);
	char away[64] = "";

	rc = lock < 0 ? lock : publish(store, stage, key, facts, away, out, err);
	if (lock >= 0)
		close(lock);
	if (away[0])
		remove_staged(store, away);
	if (rc)
		store_stage_drop(store, stage);
	else
		stage_free(stage);
	return MIN(rc, 0);
}

int store_make_durable(struct store *store, const struct layer_ref *refs, size_t count, struct cpull_error *err)
{
	if (syncfs(store->fd))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "syncing store %s", store->path);
	for (size_t i = 0; i < count; i++) {
		CLEANUP_FD int dir = fs_open_dir(store->layers_fd, refs[i].key);
		CLEANUP_FD int fd = openat(dir, DURABLE_MARK, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

		if (fd < 0 || fsync(fd) || fsync(dir))
			return error_sys(err, CPULL_ERR_STORAGE, errno, "marking layer %s as durable", refs[i].key);
	}
	return 0;
}

int store_layer_durable(struct store *store, const char *key, struct cpull_error *err)
{
	CLEANUP_FD int fd = fs_open_dir(store->layers_fd, key);

	if (fd < 0)
		return store_is_absent(errno) ? 0 : layer_error(store, key, errno, err);
	return has_durable_mark(store, fd, key, err);
}

int store_layer_remove(struct store *store, const char *key, struct cpull_error *err)
{
	CLEANUP_FD int fd = fs_open_dir(store->layers_fd, key);
	CLEANUP_FD int content = fd < 0 ? -1 : open_content(fd, key);

	if (content < 0 && !store_is_absent(errno))
		return layer_error(store, key, errno, err);
	if (content >= 0 && flock(content, LOCK_EX | LOCK_NB))
		/* a pull counts on it */
		return errno == EWOULDBLOCK ? 0 : layer_error(store, key, errno, err);

	int rc = store_trash(store, store->layers_fd, key, err);

	return rc ? rc : 1;
}
