/* SPDX-License-Identifier: Apache-2.0
 *
 * Mounting layer directories as an overlay, and taking it down. Called by the engine on the embedder's thread; owns
 * only descriptors for the time of the call.
 *
 * Kernel facts (tried on 6.18): lowerdir+ takes one layer a call since 6.8, as text up to 255 bytes, beyond that as a
 * descriptor (since about 6.13) or as its name in /proc; upperdir and workdir lose the backslashes of their text.
 * mount(2) has one page for everything, and its separators need escapes. The fallback therefore names layers by
 * descriptor numbers relative to /proc/self/fd, from a thread that has a working directory of its own: 500 of them fit,
 * whatever the paths are. The same directory twice is refused (ELOOP), and fewer than two layers without an upper one
 * are no overlay.
 */
#include "snapshot/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "engine/base/error.h"
#include "engine/base/limits.h"
#include "snapshot/attributes.h"
#include "snapshot/kernel_text.h"
#include "snapshot/overlay_marks.h"

/* Longest value of fsconfig(FSCONFIG_SET_STRING). */
#define FSCONFIG_TEXT_BYTES 255u
/* mount(2) copies one page and cuts the rest. */
#define MOUNT_DATA_BYTES 4096u
#define HELPER_STACK_BYTES (128u << 10)

struct job {
	const struct overlay_mount *mount;
	const char **lowers; /* topmost first, each once */
	size_t count;
	int target_fd;
	bool userxattr;
	char kernel[KERNEL_TEXT_BYTES]; /* what the kernel had to say */
};

/* ---- what is asked for ---- */

/* overlayfs does not look whether a layer's root is opaque (tried on 6.18): the image's own ".wh..wh..opq" would hide
 * nothing there. */
static int has_opaque_root(const char *path, bool *out, struct cpull_error *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening layer %s", path);
	*out = overlay_marks_opaque(fd);
	return 0;
}

/* The topmost of each: what lies under a second copy is added and hidden again by the upper one. */
static int pick_lowers(struct job *job, struct cpull_error *err)
{
	const struct overlay_mount *m = job->mount;

	job->lowers = calloc(m->lower_count ? m->lower_count : 1, sizeof(*job->lowers));
	if (!job->lowers)
		return error_nomem(err);
	for (size_t i = m->lower_count; i-- > 0;) {
		bool opaque = false;
		size_t k = 0;

		while (k < job->count && strcmp(job->lowers[k], m->lowers[i]) != 0)
			k++;
		if (k < job->count)
			continue;
		job->lowers[job->count++] = m->lowers[i];

		int rc = has_opaque_root(m->lowers[i], &opaque, err);

		if (rc)
			return rc;
		if (opaque)
			break;
	}
	if (job->count > LIMIT_LAYERS)
		return error_set(err, CPULL_ERR_LIMIT, "mounting %zu layers: an overlay takes %u at most", job->count,
				 LIMIT_LAYERS);
	return 0;
}

/* trusted.* attributes, overlayfs's usual ones, belong to the initial user namespace. */
static bool in_user_namespace(void)
{
	char text[64] = "";
	unsigned long inside, outside, length;
	CLEANUP_FD int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (n <= 0 || sscanf(text, "%lu %lu %lu", &inside, &outside, &length) != 3)
		return false;
	return inside != 0 || outside != 0 || length != 4294967295ul;
}

/* What `/` shows is the upper's root. */
static int dress_upper(const struct job *job, struct log *log, struct cpull_error *err)
{
	struct attributes_notes notes = {.log = log};
	CLEANUP_FD int from = open(job->lowers[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_FD int to = open(job->mount->upper, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	const struct attributes_file file = {.fd = to, .type = S_IFDIR};
	struct stat st;

	if (from < 0 || fstat(from, &st))
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening layer %s", job->lowers[0]);
	if (to < 0)
		return error_sys(err, CPULL_ERR_STORAGE, errno, "opening upper directory %s", job->mount->upper);

	int rc = attributes_set_stat(to, st.st_uid, st.st_gid, st.st_mode & 07777, st.st_mtim, err);

	if (!rc)
		rc = attributes_copy(from, &file, &notes, err);
	if (rc && err)
		error_wrap(err, "upper directory %s", job->mount->upper);
	return rc;
}

/* ---- the new mount API ---- */

/* As a descriptor, for a path that cannot be given as text. Kernels before 6.13 or so take that as text, too. */
static int set_dir_fd(int fs, const char *key, const char *path)
{
	CLEANUP_FD int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	char text[64];

	if (fd < 0)
		return -errno;
	if (fsconfig(fs, FSCONFIG_SET_FD, key, NULL, fd) == 0)
		return 0;
	snprintf(text, sizeof(text), "/proc/self/fd/%d", fd);
	return fsconfig(fs, FSCONFIG_SET_STRING, key, text, 0) ? -errno : 0;
}

static int set_dir(int fs, const char *key, const char *path)
{
	if (strlen(path) > FSCONFIG_TEXT_BYTES || strchr(path, '\\'))
		return set_dir_fd(fs, key, path);
	return fsconfig(fs, FSCONFIG_SET_STRING, key, path, 0) ? -errno : 0;
}

static int configure(const struct job *job, int fs)
{
	int rc = fsconfig(fs, FSCONFIG_SET_STRING, "source", "overlay", 0) ? -errno : 0;

	for (size_t i = 0; !rc && i < job->count; i++)
		rc = set_dir(fs, "lowerdir+", job->lowers[i]);
	if (!rc && job->mount->upper)
		rc = set_dir(fs, "upperdir", job->mount->upper);
	if (!rc && job->mount->upper)
		rc = set_dir(fs, "workdir", job->mount->work);
	if (!rc && job->userxattr && fsconfig(fs, FSCONFIG_SET_FLAG, "userxattr", NULL, 0))
		rc = -errno;
	if (!rc && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		rc = -errno;
	return rc;
}

static int attach(const struct job *job, int mnt)
{
	return move_mount(mnt, "", job->target_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) ? -errno : 0;
}

static int mount_new(struct job *job)
{
	CLEANUP_FD int fs = fsopen("overlay", FSOPEN_CLOEXEC);

	if (fs < 0)
		return -errno;

	int rc = configure(job, fs);

	if (rc) {
		kernel_text_read(fs, job->kernel);
		return rc;
	}

	CLEANUP_FD int mnt = fsmount(fs, FSMOUNT_CLOEXEC, job->mount->upper ? 0 : MOUNT_ATTR_RDONLY);

	return mnt < 0 ? -errno : attach(job, mnt);
}

/* ---- mount(2) ---- */

struct legacy {
	const struct job *job;
	char data[MOUNT_DATA_BYTES];
	size_t len;
	int *fds;
	size_t fd_count;
	int result;
};

/* Opens a directory and appends its number. */
static int add_dir(struct legacy *l, const char *before, const char *path)
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	l->fds[l->fd_count++] = fd;

	int n = snprintf(l->data + l->len, sizeof(l->data) - l->len, "%s%d", before, fd);

	if (n < 0 || (size_t)n >= sizeof(l->data) - l->len)
		return -E2BIG;
	l->len += (size_t)n;
	return 0;
}

static void *legacy_thread(void *payload)
{
	struct legacy *l = payload;
	char target[64];

	snprintf(target, sizeof(target), "/proc/self/fd/%d", l->job->target_fd);
	/* the working directory of the process is the embedder's */
	if (unshare(CLONE_FS) || chdir("/proc/self/fd") ||
	    mount("overlay", target, "overlay", l->job->mount->upper ? 0 : MS_RDONLY, l->data))
		l->result = -errno;
	return NULL;
}

static int run_thread(struct legacy *l)
{
	pthread_t thread;
	pthread_attr_t attr;
	sigset_t all, old;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, HELPER_STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);

	int rc = pthread_create(&thread, &attr, legacy_thread, l);

	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (rc)
		return -rc;
	pthread_join(thread, NULL);
	return l->result;
}

static int legacy_options(struct legacy *l)
{
	const struct job *job = l->job;
	int rc = 0;

	for (size_t i = 0; !rc && i < job->count; i++)
		rc = add_dir(l, i ? ":" : "lowerdir=", job->lowers[i]);
	if (!rc && job->mount->upper)
		rc = add_dir(l, ",upperdir=", job->mount->upper);
	if (!rc && job->mount->upper)
		rc = add_dir(l, ",workdir=", job->mount->work);
	if (!rc && job->userxattr) {
		static const char option[] = ",userxattr";

		if (l->len + sizeof(option) > sizeof(l->data))
			return -E2BIG;
		memcpy(l->data + l->len, option, sizeof(option));
	}
	return rc;
}

static int mount_legacy(const struct job *job)
{
	CLEANUP_FREE struct legacy *l = calloc(1, sizeof(*l));
	CLEANUP_FREE int *fds = calloc(job->count + 2, sizeof(*fds));

	if (!l || !fds)
		return -ENOMEM;
	l->job = job;
	l->fds = fds;

	int rc = legacy_options(l);

	if (!rc)
		rc = run_thread(l);
	for (size_t i = 0; i < l->fd_count; i++)
		close(fds[i]);
	return rc;
}

/* ---- one layer, read-only ---- */

static int bind_new(const struct job *job)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
	CLEANUP_FD int mnt = open_tree(AT_FDCWD, job->lowers[0], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (mnt < 0 || mount_setattr(mnt, "", AT_EMPTY_PATH, &attr, sizeof(attr)))
		return -errno;
	return attach(job, mnt);
}

/* The flags of the mount that the layer is in: dropping one may not be ours to decide. */
static unsigned long inherited_flags(const char *path)
{
	static const struct {
		unsigned long st, ms;
	} flags[] = {{ST_NOSUID, MS_NOSUID},   {ST_NODEV, MS_NODEV},           {ST_NOEXEC, MS_NOEXEC},
		     {ST_NOATIME, MS_NOATIME}, {ST_NODIRATIME, MS_NODIRATIME}, {ST_RELATIME, MS_RELATIME}};
	struct statvfs fs;
	unsigned long out = 0;

	if (statvfs(path, &fs))
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(flags); i++)
		if (fs.f_flag & flags[i].st)
			out |= flags[i].ms;
	return out;
}

static int bind_legacy(const struct job *job)
{
	const char *target = job->mount->target;

	if (mount(job->lowers[0], target, NULL, MS_BIND, NULL))
		return -errno;
	if (mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | inherited_flags(job->lowers[0]), NULL) == 0)
		return 0;

	int rc = -errno;

	umount2(target, UMOUNT_NOFOLLOW);
	return rc;
}

/* ---- the interface ---- */

/* The new way failed in a manner that the old one may not. */
static bool worth_the_old_way(int rc)
{
	return rc == -ENOSYS || rc == -EPERM || rc == -EINVAL || rc == -EOPNOTSUPP;
}

static int fail(const struct job *job, int num, struct cpull_error *err)
{
	const char *target = job->mount->target;

	if (num == ENODEV)
		return error_sys(err, CPULL_ERR_UNSUPPORTED, num, "mounting %s: the kernel has no overlay file system",
				 target);
	if (num == EPERM)
		return error_sys(err, CPULL_ERR_PERMISSION, num, "mounting %zu layers on %s (needs CAP_SYS_ADMIN)%s",
				 job->count, target, job->kernel);
	return error_sys(err, CPULL_ERR_STORAGE, num, "mounting %zu layers on %s%s", job->count, target, job->kernel);
}

static int do_mount(struct job *job, struct log *log, struct cpull_error *err)
{
	bool bind = job->count == 1 && !job->mount->upper;
	int rc = bind ? bind_new(job) : mount_new(job);

	if (worth_the_old_way(rc)) {
		log_debug(log, "mounting %s by mount(2): the new mount API says %s%s", job->mount->target,
			  strerrordesc_np(-rc), job->kernel);
		rc = bind ? bind_legacy(job) : mount_legacy(job);
	}
	return rc ? fail(job, -rc, err) : 0;
}

static int check(const struct overlay_mount *mount, struct cpull_error *err)
{
	if (!mount->lower_count)
		return error_set(err, CPULL_ERR_USAGE, "mounting %s: no layers", mount->target);
	if (!mount->upper != !mount->work)
		return error_set(err, CPULL_ERR_USAGE, "mounting %s: an upper directory needs a work directory and the "
				 "other way round", mount->target);
	return 0;
}

int overlay_mount(const struct overlay_mount *mount, struct log *log, struct cpull_error *err)
{
	struct job job = {.mount = mount, .userxattr = in_user_namespace()};
	int rc = check(mount, err);

	if (rc)
		return rc;

	CLEANUP_FD int target = open(mount->target, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (target < 0)
		return error_sys(err, errno == ENOENT ? CPULL_ERR_NOT_FOUND : CPULL_ERR_STORAGE, errno,
				 "opening mount point %s (it must be a directory)", mount->target);
	job.target_fd = target;
	rc = pick_lowers(&job, err);
	if (!rc && mount->upper)
		rc = dress_upper(&job, log, err);
	if (!rc)
		rc = do_mount(&job, log, err);
	free(job.lowers);
	return rc;
}

int overlay_unmount(const char *target, struct cpull_error *err)
{
	if (umount2(target, UMOUNT_NOFOLLOW) == 0)
		return 0;
	switch (errno) {
	case EINVAL:
		return error_sys(err, CPULL_ERR_USAGE, errno, "unmounting %s: nothing is mounted there", target);
	case EBUSY:
		return error_sys(err, CPULL_ERR_USAGE, errno, "unmounting %s: something still uses it", target);
	case ENOENT:
		return error_sys(err, CPULL_ERR_NOT_FOUND, errno, "unmounting %s", target);
	default:
		return error_sys(err, CPULL_ERR_STORAGE, errno, "unmounting %s", target);
	}
}

static bool is_octal(char c)
{
	return c >= '0' && c <= '7';
}

/* Is field (up to the next space, \ooo for odd characters) the text? */
static bool field_is(const char *field, const char *text)
{
	while (*field && *field != ' ') {
		unsigned char c = (unsigned char)*field++;

		if (c == '\\' && is_octal(field[0]) && is_octal(field[1]) && is_octal(field[2])) {
			c = (unsigned char)((field[0] - '0') << 6 | (field[1] - '0') << 3 | (field[2] - '0'));
			field += 3;
		}
		if (c != (unsigned char)*text++)
			return false;
	}
	return *text == 0;
}

bool overlay_is_mounted(const char *target)
{
	CLEANUP_FREE char *path = realpath(target, NULL);
	CLEANUP_FILE FILE *file = fopen("/proc/self/mountinfo", "re");
	CLEANUP_FREE char *line = NULL;
	size_t cap = 0;

	while (path && file && getline(&line, &cap, file) > 0) {
		const char *field = line;

		/* id, parent, device, root, then the mount point */
		for (int i = 0; field && i < 4; i++) {
			field = strchr(field, ' ');
			field += field != NULL;
		}
		if (field && field_is(field, path))
			return true;
	}
	return false;
}
