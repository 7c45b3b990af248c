/* SPDX-License-Identifier: Apache-2.0
 *
 * snapshot/lower_layer and the stack of them: a directory and the image that was made of it give the same answers.
 */
#include "layer_fixture.h"

#include "dir_image.h"
#include "snapshot/erofs_reader.h"
#include "snapshot/stack_view.h"

static char base[] = "/tmp/lower-layer-XXXXXX";

static int fresh(void **state)
{
	(void)state;
	return fresh_place(base);
}

static void make(const char *commands)
{
	if (system(commands) != 0)
		fail_msg("%s", commands);
}

/* One layer of both kinds. */
struct both {
	struct lower_layer dir, image;
	int image_fd;
};

static void open_both(struct both *both, const char *dir, int image_fd)
{
	struct cpull_error err = {0};

	*both = (struct both){.dir.dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), .image.dirfd = -1,
			      .image_fd = image_fd};
	assert_true(both->dir.dirfd >= 0 && image_fd >= 0);
	if (erofs_reader_open(image_fd, &both->image.image, &err))
		fail_msg("%s", err.message);
}

static struct both make_both(const char *dir)
{
	struct both both;
	char image[64];

	snprintf(image, sizeof(image), "%s.erofs", dir);
	open_both(&both, dir, dir_image_make(dir, image));
	return both;
}

static void close_both(struct both *both)
{
	erofs_reader_close(both->image.image);
	close(both->image_fd);
	close(both->dir.dirfd);
}

static void same_node(const struct lower_node *a, const struct lower_node *b)
{
	assert_int_equal(a->whiteout, b->whiteout);
	assert_int_equal(a->st.st_mode, b->st.st_mode);
	assert_int_equal(a->st.st_uid, b->st.st_uid);
	assert_int_equal(a->st.st_gid, b->st.st_gid);
	assert_int_equal(a->st.st_rdev, b->st.st_rdev);
	assert_int_equal(a->st.st_mtim.tv_sec, b->st.st_mtim.tv_sec);
	assert_int_equal(a->st.st_mtim.tv_nsec, b->st.st_mtim.tv_nsec);
	if (!S_ISDIR(a->st.st_mode))
		assert_int_equal(a->st.st_size, b->st.st_size);
}

/* What both say: the type, 'w' for a whiteout, or 0 with *num an errno. */
static char ask_both(const struct both *both, const char *path, int *num)
{
	struct lower_node a, b;
	int rc = lower_layer_find(&both->dir, path, &a), image_rc = lower_layer_find(&both->image, path, &b);

	if (rc != image_rc)
		print_error("%s: %d %d\n", path, rc, image_rc);
	assert_int_equal(rc, image_rc);
	*num = -rc;
	if (rc)
		return 0;
	same_node(&a, &b);
	if (a.whiteout)
		return 'w';
	switch (a.st.st_mode & S_IFMT) {
	case S_IFDIR:
		return 'd';
	case S_IFREG:
		return 'f';
	case S_IFLNK:
		return 'l';
	default:
		return 'n';
	}
}

static void both_kinds_find_the_same(void **state)
{
	static const struct {
		const char *path;
		char type;
		int num;
	} cases[] = {
		{"", 'd', 0},	     {"d", 'd', 0},	    {"d/f", 'f', 0},	 {"d/e/f/g/h", 'f', 0},
		{"l", 'l', 0},	     {"w", 'w', 0},	    {"null", 'n', 0},	 {"fifo", 'n', 0},
		{"empty", 'f', 0},   {"d/w", 'w', 0},	    {"none", 0, ENOENT}, {"d/none", 0, ENOENT},
		{"d/f/x", 0, ENOTDIR}, {"none/x", 0, ENOENT}, {"w/x", 0, ENOTDIR},
	};
	char path[400];
	int num;

	(void)state;
	make("mkdir -p l0/d/e/f/g && cd l0 && echo f > d/f && echo h > d/e/f/g/h && ln -s /d/e l && mknod w c 0 0 && "
	     "mknod d/w c 0 0 && mknod null c 1 3 && mkfifo fifo && touch empty && chown 70000:80000 d/f && "
	     "chmod 4751 d/f && chmod 1777 d/e && touch -d @1234567890.123456789 d/f d/e && touch -d @-5 empty");

	struct both both = make_both("l0");

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char type = ask_both(&both, cases[i].path, &num);

		if (type != cases[i].type || num != cases[i].num)
			print_error("%s: %c %d\n", cases[i].path, type, num);
		assert_true(type == cases[i].type && num == cases[i].num);
	}
	memset(path, 'x', LIMIT_NAME_BYTES + 1);
	path[LIMIT_NAME_BYTES + 1] = 0;
	assert_true(ask_both(&both, path, &num) == 0 && num == ENAMETOOLONG);
	close_both(&both);
}

static void both_kinds_read_links(void **state)
{
	char long_target[4096], a[LIMIT_PATH_BYTES], b[LIMIT_PATH_BYTES];
	static const struct {
		const char *path;
		int rc;
	} cases[] = {{"l", 0},	      {"d/up", 0},	  {"long", 0},	    {"d", -EINVAL},
		     {"f", -EINVAL}, {"none", -ENOENT}, {"f/l", -ENOTDIR}};

	(void)state;
	memset(long_target, 'x', sizeof(long_target) - 1);
	long_target[4095] = 0;
	make("mkdir -p l0/d && ln -s /d/e l0/l && ln -s ../.. l0/d/up && touch l0/f");
	assert_int_equal(symlink(long_target, "l0/long"), 0);

	struct both both = make_both("l0");

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(lower_layer_link(&both.dir, cases[i].path, a), cases[i].rc);
		assert_int_equal(lower_layer_link(&both.image, cases[i].path, b), cases[i].rc);
		if (!cases[i].rc)
			assert_string_equal(a, b);
	}
	close_both(&both);
}

static void both_kinds_know_opaque_directories(void **state)
{
	static const struct {
		const char *path;
		int rc;
	} cases[] = {{"", 0}, {"o", 1}, {"o/d", 0}, {"d", 0}, {"d/o", 1}, {"f", -ENOTDIR}, {"none", -ENOENT}};

	(void)state;
	make("mkdir -p l0/o/d l0/d/o && touch l0/f");
	assert_int_equal(setxattr("l0/o", OVERLAY_TRUSTED_OPAQUE, "y", 1, 0), 0);
	assert_int_equal(setxattr("l0/d/o", OVERLAY_TRUSTED_OPAQUE, "y", 1, 0), 0);

	struct both both = make_both("l0");

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(lower_layer_opaque(&both.dir, cases[i].path), cases[i].rc);
		assert_int_equal(lower_layer_opaque(&both.image, cases[i].path), cases[i].rc);
	}
	close_both(&both);
}

/* The forms that overlayfs knows beside those, in an image that keeps all attributes. */
static void marks_by_attribute(void **state)
{
	static const struct {
		const char *path, *name, *value;
		int opaque; /* or -1: is it a whiteout? */
		char type;
	} marks[] = {
		{"d/tw", OVERLAY_TRUSTED_WHITEOUT, "y", -1, 'w'},   {"d/uw", OVERLAY_USER_WHITEOUT, "y", -1, 'w'},
		{"d/long", OVERLAY_USER_WHITEOUT, "yes", -1, 'w'},  {"d/none", OVERLAY_USER_WHITEOUT, "", -1, 'w'},
		{"d/full", OVERLAY_TRUSTED_WHITEOUT, "y", -1, 'f'}, {"d/other", "user.overlay.else", "y", -1, 'f'},
		{"t", OVERLAY_TRUSTED_OPAQUE, "y", 1, 0},	    {"u", OVERLAY_USER_OPAQUE, "y", 1, 0},
		{"d", OVERLAY_TRUSTED_OPAQUE, "x", 0, 0},	    {"yy", OVERLAY_TRUSTED_OPAQUE, "yy", 0, 0},
		{"nothing", OVERLAY_USER_OPAQUE, "", 0, 0},
	};
	int num;

	(void)state;
	make("mkdir -p l0/d l0/t l0/u l0/yy l0/nothing && cd l0/d && touch tw uw long none other && echo x > full");
	for (size_t i = 0; i < ARRAY_LEN(marks); i++) {
		char path[64];

		snprintf(path, sizeof(path), "l0/%s", marks[i].path);
		if (setxattr(path, marks[i].name, marks[i].value, strlen(marks[i].value), 0)) {
			assert_int_equal(errno, EOPNOTSUPP);
			print_message("skipped: user.* attributes, which the file system does not have\n");
			skip();
		}
	}
	if (system("mkfs.erofs l0.erofs l0 >/dev/null 2>&1") != 0) {
		print_message("skipped: mkfs.erofs, which is not here\n");
		skip();
	}

	struct both both;

	open_both(&both, "l0", open("l0.erofs", O_RDONLY | O_CLOEXEC));
	for (size_t i = 0; i < ARRAY_LEN(marks); i++) {
		if (marks[i].opaque < 0) {
			assert_int_equal(ask_both(&both, marks[i].path, &num), marks[i].type);
			continue;
		}
		assert_int_equal(lower_layer_opaque(&both.dir, marks[i].path), marks[i].opaque);
		assert_int_equal(lower_layer_opaque(&both.image, marks[i].path), marks[i].opaque);
	}
	close_both(&both);
}

/* Whatever is found or not, an image that cannot be read is no layer without the name. */
static void damaged_images_are_no_answer(void **state)
{
	static uint8_t noise[4096];
	char target[LIMIT_PATH_BYTES];
	struct lower_node node;
	struct stat st;

	(void)state;
	make("mkdir -p l0/d && cd l0/d && for i in $(seq 300); do touch a-rather-long-name-$i; done && ln -s x l");

	struct both both = make_both("l0");
	int fd = open("l0.erofs", O_WRONLY | O_CLOEXEC);

	memset(noise, 0xff, sizeof(noise));
	assert_int_equal(fstat(fd, &st), 0);
	for (off_t at = 4096; at < st.st_size; at += 4096)
		assert_int_equal(pwrite(fd, noise, sizeof(noise), at), sizeof(noise));
	close(fd);
	assert_int_equal(lower_layer_find(&both.image, "", &node), 0); /* it is known already */
	assert_int_equal(lower_layer_find(&both.image, "d/a-rather-long-name-7", &node), -EIO);
	assert_int_equal(lower_layer_find(&both.image, "d/none", &node), -EIO);
	assert_int_equal(lower_layer_opaque(&both.image, "d/a-rather-long-name-9"), -EIO);
	assert_int_equal(lower_layer_link(&both.image, "d/l", target), -EIO);
	close_both(&both);
}

/* ---- stacks ---- */

static void make_stack(void)
{
	make("mkdir -p l0/d l0/o l1/d/sub l1/o l1/x l1/over && touch l0/d/f l1/d/f l1/d/g l1/o/hidden l1/x/y "
	     "l0/over && mknod l0/x c 0 0 && ln -s /d/sub l1/l && ln -s l/../g l1/m && ln -s n l1/n && "
	     "ln -s ../d/sub/.. l0/d/up");
	assert_int_equal(setxattr("l0/o", OVERLAY_TRUSTED_OPAQUE, "y", 1, 0), 0);
}

static void stacks_of_both_kinds_show_the_same(void **state)
{
	static const char *const paths[] = {
		"",	   "d",	 "d/f",	  "d/g",	   "d/sub",	"o",	       "o/hidden", "x",	   "x/y",
		"over",	   "over/z", "none/n", "d/sub/none", "d/f/x",	"l",	       "l/x",	   "l/new/x", "m",
		"n",	   "n/x", "/",	  "../../d/./f", "none/../d", "none/a/../b", "d/up",	   "d/up/f",
		"d/up/../o/hidden",
	};
	struct stack_view dirs, images;
	struct stack_node a, b;
	char a_out[LIMIT_PATH_BYTES], b_out[LIMIT_PATH_BYTES];
	unsigned found = 0, errors = 0;

	(void)state;
	make_stack();

	struct both layers[] = {make_both("l0"), make_both("l1")};
	const struct lower_layer of_dirs[] = {layers[0].dir, layers[1].dir};
	const struct lower_layer of_images[] = {layers[0].image, layers[1].image};

	assert_int_equal(stack_view_init(&dirs, of_dirs, 2), 0);
	assert_int_equal(stack_view_init(&images, of_images, 2), 0);
	for (size_t i = 0; i < 2 * ARRAY_LEN(paths); i++) {
		const char *path = paths[i / 2];
		int rc = stack_view_resolve(&dirs, path, i % 2, a_out, &a);

		assert_int_equal(stack_view_resolve(&images, path, i % 2, b_out, &b), rc);
		errors += rc != 0;
		if (rc)
			continue;
		assert_string_equal(a_out, b_out);
		assert_int_equal(a.layer, b.layer);
		if (a.layer == 2)
			continue;
		assert_int_equal(a.st.st_mode, b.st.st_mode);
		found++;
	}
	assert_true(found > 20 && errors > 3);
	stack_view_free(&dirs);
	stack_view_free(&images);
	close_both(&layers[0]);
	close_both(&layers[1]);
}

#define T(f) cmocka_unit_test_setup(f, fresh)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(both_kinds_find_the_same), T(both_kinds_read_links), T(both_kinds_know_opaque_directories),
		T(marks_by_attribute), T(damaged_images_are_no_answer), T(stacks_of_both_kinds_show_the_same),
	};

	if (!own_namespace())
		return 0;
	if (!begin_at(base))
		return 1;

	int failed = cmocka_run_group_tests_name("lower layers", tests, NULL, NULL);

	end_at(base);
	return failed;
}
