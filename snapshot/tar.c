/* SPDX-License-Identifier: Apache-2.0
 *
 * The tar reader: a state machine over 512-byte blocks that takes its input in any cut and gives the same entries for
 * each. The layer writer calls it, one reader a layer, on that layer's thread. It owns one buffer for pax headers and
 * one for sparse maps, both kept from entry to entry; file data stays in the caller's input.
 *
 * Where GNU tar, libarchive and Go read the same bytes differently (a header that is replaced by a second one, one
 * lone zero block, a file whose name ends in a slash) and layers.md does not settle it, the archive is refused: an
 * image must not have one content for a scanner and another for the runtime.
 */
#include "snapshot/tar.h"

#include <string.h>

#include "engine/base/error.h"
#include "snapshot/pax.h"
#include "snapshot/sparse.h"
#include "snapshot/tar_header.h"
#include "snapshot/tar_number.h"

/* Padding up to the next block. */
#define PADDING(n) ((TAR_BLOCK_BYTES - (size_t)((n) % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES)

/* What step functions return beside events and errors: nothing to report yet, go on. */
#define STEP_ON 1000

enum tar_state {
	STATE_HEADER,      /* at a header or the first zero block */
	STATE_LONE_ZERO,   /* one zero block was there, the second must follow */
	STATE_EXTENSION,   /* in the payload of an L, K, x or g header */
	STATE_SPARSE_MORE, /* old GNU sparse: more blocks of pairs follow */
	STATE_SPARSE_TEXT, /* pax 1.0: the map is in front of the data */
	STATE_SPARSE_PAD,  /* … padded to a block */
	STATE_DATA,
	STATE_PADDING,
	STATE_END,
};

/* A name from an L or K header, waiting for its entry. */
struct long_name {
	bool pending;
	char text[LIMIT_PATH_BYTES + 2]; /* one more than allowed, and the NUL */
};

struct tar {
	enum tar_state state;
	int failed;        /* the code of an earlier error */
	uint64_t at;       /* bytes taken since the start */
	uint64_t entry_at; /* where the header under way began */

	uint8_t block[TAR_BLOCK_BYTES]; /* a block that the input's cut went through */
	size_t block_len;

	uint8_t extension; /* its type */
	char *payload;     /* where it goes */
	size_t payload_len, payload_left;
	size_t padding;

	struct long_name name, link;
	bool pax_pending;
	struct pax pax;
	struct pax_attrs global;
	char *pax_text;
	size_t pax_text_cap;

	struct sparse_map map;
	size_t chunk;      /* the next range */
	uint64_t run_at;   /* place in the file of the next data byte */
	uint64_t run_left; /* up to the next hole or the end */
	uint64_t data_left;
	size_t data_padding;

	char header_name[TAR_HEADER_NAME_BYTES];
	char header_link[TAR_HEADER_NAME_BYTES];
	struct tar_entry entry;
	bool in_entry;
};

int tar_new(struct tar **out, struct cpull_error *err)
{
	struct tar *tar = calloc(1, sizeof(*tar));

	if (!tar)
		return error_nomem(err);
	tar->entry.path = tar->entry.link = "";
	*out = tar;
	return 0;
}

void tar_free(struct tar *tar)
{
	if (!tar)
		return;
	sparse_free(&tar->map);
	free(tar->pax_text);
	free(tar);
}

const struct tar_entry *tar_entry(const struct tar *tar)
{
	return &tar->entry;
}

/* ---- input ------------------------------------------------------------------------------------- */

static size_t available(const struct tar_input *in)
{
	return in->len - in->pos;
}

static void advance(struct tar *tar, struct tar_input *in, size_t n)
{
	in->pos += n;
	tar->at += n;
}

/* The next block, from the input where it lies there whole; NULL when more input is needed. */
static const uint8_t *take_block(struct tar *tar, struct tar_input *in)
{
	size_t n = MIN(available(in), TAR_BLOCK_BYTES - tar->block_len);

	if (!n)
		return NULL;

	const uint8_t *data = in->data + in->pos;

	advance(tar, in, n);
	if (n == TAR_BLOCK_BYTES)
		return data;
	memcpy(tar->block + tar->block_len, data, n);
	tar->block_len += n;
	if (tar->block_len < TAR_BLOCK_BYTES)
		return NULL;
	tar->block_len = 0;
	return tar->block;
}

static int check_size(uint64_t size, struct cpull_error *err)
{
	if (size > LIMIT_FILE_BYTES)
		return error_set(err, CPULL_ERR_LIMIT, "a file of %llu bytes is larger than the %llu allowed",
				 (unsigned long long)size, LIMIT_FILE_BYTES);
	return 0;
}

/* ---- what is to be said of an entry ------------------------------------------------------------ */

static int check_path(const char *path, const char *what, struct cpull_error *err)
{
	size_t len = strlen(path);

	if (len > LIMIT_PATH_BYTES)
		return error_set(err, CPULL_ERR_LIMIT, "the %s has %zu bytes, it may have %u", what, len,
				 LIMIT_PATH_BYTES);
	for (const char *part = path; len > LIMIT_NAME_BYTES && *part;) {
		size_t part_len = (size_t)(strchrnul(part, '/') - part);

		if (part_len > LIMIT_NAME_BYTES)
			return error_set(err, CPULL_ERR_LIMIT, "a part of the %s has %zu bytes, it may have %u", what,
					 part_len, LIMIT_NAME_BYTES);
		part += part_len + (part[part_len] == '/');
	}
	return 0;
}

static bool ends_in_slash(const char *path)
{
	size_t len = strlen(path);

	return len && path[len - 1] == '/';
}

static int entry_type(uint8_t type, const char *path, enum tar_type *out, struct cpull_error *err)
{
	switch (type) {
	case 0: /* v7 had no type for directories */
		*out = ends_in_slash(path) ? TAR_DIR : TAR_FILE;
		return 0;
	case '0':
	case '7':
	case 'S':
		*out = TAR_FILE;
		/* GNU tar and libarchive make a directory of it, Go a file */
		if (ends_in_slash(path))
			return error_set(err, CPULL_ERR_TAR, "its type is file, but its name ends in a slash");
		return 0;
	case '1':
		*out = TAR_HARDLINK;
		return 0;
	case '2':
		*out = TAR_SYMLINK;
		return 0;
	case '3':
		*out = TAR_CHAR;
		return 0;
	case '4':
		*out = TAR_BLOCK;
		return 0;
	case '5':
		*out = TAR_DIR;
		return 0;
	case '6':
		*out = TAR_FIFO;
		return 0;
	default:
		return error_set(err, CPULL_ERR_TAR, "type 0x%02x is not known", type);
	}
}

static int entry_path(struct tar *tar, const struct tar_header *h, struct cpull_error *err)
{
	struct tar_entry *e = &tar->entry;

	if (tar->pax_pending && tar->pax.sparse.name)
		e->path = tar->pax.sparse.name;
	else if (tar->pax_pending && tar->pax.path)
		e->path = tar->pax.path;
	else if (tar->name.pending)
		e->path = tar->name.text;
	else
		e->path = tar_header_name(h, tar->header_name);
	tar->in_entry = true;
	return check_path(e->path, "path", err);
}

static int entry_link(struct tar *tar, const struct tar_header *h, struct cpull_error *err)
{
	struct tar_entry *e = &tar->entry;

	e->link = "";
	if (e->type != TAR_HARDLINK && e->type != TAR_SYMLINK)
		return 0;
	if (tar->pax_pending && tar->pax.link) {
		e->link = tar->pax.link;
	} else if (tar->link.pending) {
		e->link = tar->link.text;
	} else {
		e->link = tar_header_link(h, tar->header_link);
	}
	if (!*e->link)
		return error_set(err, CPULL_ERR_TAR, "it is a link without a target");
	if (e->type == TAR_SYMLINK && strlen(e->link) <= LIMIT_PATH_BYTES)
		return 0; /* any text will do */
	return check_path(e->link, "link target", err);
}

/* Local before global before the header's own, which is not even looked at where it does not count. */
static int entry_owner(struct tar *tar, const struct tar_header *h, struct cpull_error *err)
{
	static const struct pax_attrs none;
	const struct pax_attrs *local = tar->pax_pending ? &tar->pax.attrs : &none;
	const struct pax_attrs *global = &tar->global;
	struct tar_entry *e = &tar->entry;
	int64_t seconds = 0;
	int rc = 0;

#define PICK(field) (local->has_##field ? local : global)
	if (PICK(uid)->has_uid == PAX_GIVEN)
		e->uid = PICK(uid)->uid;
	else if ((rc = tar_number_u32(h->uid, sizeof(h->uid), "uid", &e->uid, err)))
		return rc;
	if (PICK(gid)->has_gid == PAX_GIVEN)
		e->gid = PICK(gid)->gid;
	else if ((rc = tar_number_u32(h->gid, sizeof(h->gid), "gid", &e->gid, err)))
		return rc;
	if (PICK(mtime)->has_mtime == PAX_GIVEN) {
		e->mtime = PICK(mtime)->mtime;
		return 0;
	}
#undef PICK
	rc = tar_number_field(h->mtime, sizeof(h->mtime), "mtime", &seconds, err);
	e->mtime = (struct timespec){rc ? 0 : seconds, 0};
	return rc;
}

static int entry_device(struct tar *tar, const struct tar_header *h, struct cpull_error *err)
{
	struct tar_entry *e = &tar->entry;
	const struct pax *pax = tar->pax_pending ? &tar->pax : NULL;
	bool has_fields = tar_header_is_ustar(h) || tar_header_is_gnu(h);
	int rc;

	e->dev_major = e->dev_minor = 0;
	if (e->type != TAR_CHAR && e->type != TAR_BLOCK)
		return 0;
	if (pax && pax->has_dev_major)
		e->dev_major = pax->dev_major;
	else if (has_fields &&
		 (rc = tar_number_u32(h->dev_major, sizeof(h->dev_major), "device's major number", &e->dev_major, err)))
		return rc;
	if (pax && pax->has_dev_minor)
		e->dev_minor = pax->dev_minor;
	else if (has_fields &&
		 (rc = tar_number_u32(h->dev_minor, sizeof(h->dev_minor), "device's minor number", &e->dev_minor, err)))
		return rc;
	return 0;
}

/* ---- data -------------------------------------------------------------------------------------- */

/* The entry is complete: hand it out, its data comes next. */
static int emit_entry(struct tar *tar, struct cpull_error *err)
{
	struct tar_entry *e = &tar->entry;

	tar->pax_pending = false;
	tar->name.pending = false;
	tar->link.pending = false;
	if (e->type != TAR_FILE) {
		tar->state = STATE_HEADER;
		return TAR_ENTRY;
	}
	tar->chunk = 0;
	tar->run_at = 0;
	tar->run_left = 0;
	if (e->sparse) {
		int rc = sparse_check(&tar->map, e->size, tar->data_left, err);

		if (rc)
			return rc;
	} else {
		tar->run_left = e->size;
	}
	tar->state = STATE_DATA;
	return TAR_ENTRY;
}

static int begin_old_sparse(struct tar *tar, const struct tar_header *h, struct cpull_error *err)
{
	struct tar_entry *e = &tar->entry;
	int rc;

	if (!tar_header_is_gnu(h))
		return error_set(err, CPULL_ERR_TAR, "it is GNU sparse in an archive that is not GNU's");
	sparse_reset(&tar->map);
	e->sparse = true;
	if ((rc = tar_number_unsigned(h->gnu.real_size, sizeof(h->gnu.real_size), "sparse size", &e->size, err)) ||
	    (rc = check_size(e->size, err)) ||
	    (rc = sparse_add_pairs(&tar->map, h->gnu.sparse, TAR_SPARSE_PAIRS, err)))
		return rc;
	if (!h->gnu.is_extended)
		return emit_entry(tar, err);
	tar->state = STATE_SPARSE_MORE;
	return STEP_ON;
}

static int begin_file(struct tar *tar, const struct tar_header *h, enum pax_sparse_format format,
		      struct cpull_error *err)
{
	struct tar_entry *e = &tar->entry;
	int rc;

	if (tar->pax_pending && tar->pax.has_size)
		e->size = tar->pax.size;
	if ((rc = check_size(e->size, err)))
		return rc;
	tar->data_left = e->size;
	tar->data_padding = PADDING(e->size);
	if (h->type == 'S')
		return begin_old_sparse(tar, h, err);
	if (format == PAX_NOT_SPARSE)
		return emit_entry(tar, err);
	e->sparse = true;
	e->size = tar->pax.sparse.size;
	if ((rc = check_size(e->size, err)))
		return rc;
	if (format == PAX_SPARSE_0)
		return emit_entry(tar, err);
	sparse_reset(&tar->map);
	tar->state = STATE_SPARSE_TEXT;
	return STEP_ON;
}

static int begin_entry(struct tar *tar, const struct tar_header *h, struct cpull_error *err)
{
	struct tar_entry *e = &tar->entry;
	enum pax_sparse_format format = PAX_NOT_SPARSE;
	uint64_t mode = 0;
	int rc;

	if ((rc = entry_path(tar, h, err)) || (rc = entry_type(h->type, e->path, &e->type, err)) ||
	    (rc = entry_link(tar, h, err)) ||
	    (rc = tar_number_unsigned(h->mode, sizeof(h->mode), "mode", &mode, err)) ||
	    (rc = entry_owner(tar, h, err)) || (rc = entry_device(tar, h, err)) ||
	    (rc = tar_number_unsigned(h->size, sizeof(h->size), "size", &e->size, err)))
		return rc;
	e->mode = (uint32_t)mode & 07777;
	e->sparse = false;
	e->xattrs = tar->pax_pending ? tar->pax.xattrs : NULL;
	e->xattr_count = tar->pax_pending ? tar->pax.xattr_count : 0;
	if (tar->pax_pending && (rc = pax_sparse_format(&tar->pax, &tar->map, &format, err)))
		return rc;
	if (format != PAX_NOT_SPARSE && (e->type != TAR_FILE || h->type == 'S'))
		return error_set(err, CPULL_ERR_TAR, "pax sparse records are for plain files");
	if (e->type == TAR_FILE)
		return begin_file(tar, h, format, err);
	/* GNU tar would skip what the size says, Go would not */
	if (h->type == 0 && (e->size || (tar->pax_pending && tar->pax.has_size && tar->pax.size)))
		return error_set(err, CPULL_ERR_TAR, "it is an old-style directory with data");
	e->size = 0;
	return emit_entry(tar, err);
}

/* ---- extension headers ------------------------------------------------------------------------- */

static int repeated(struct cpull_error *err, uint8_t type)
{
	return error_set(err, CPULL_ERR_TAR, "a second '%c' header for one entry", type);
}

static int reserve_pax_text(struct tar *tar, size_t len, struct cpull_error *err)
{
	size_t cap = MAX(len + 1, (size_t)4096);

	if (tar->pax_text_cap >= cap)
		return 0;

	char *grown = realloc(tar->pax_text, cap);

	if (!grown)
		return error_nomem(err);
	tar->pax_text = grown;
	tar->pax_text_cap = cap;
	return 0;
}

static int begin_pax(struct tar *tar, uint64_t size, struct cpull_error *err)
{
	int rc;

	if (size > LIMIT_PAX_BYTES)
		return error_set(err, CPULL_ERR_LIMIT, "a pax header of %llu bytes is larger than the %u allowed",
				 (unsigned long long)size, LIMIT_PAX_BYTES);
	if ((rc = reserve_pax_text(tar, size, err)))
		return rc;
	tar->payload = tar->pax_text;
	return 0;
}

static int begin_long_name(struct tar *tar, struct long_name *name, uint64_t size, struct cpull_error *err)
{
	/* the name and its NUL */
	if (size > LIMIT_PATH_BYTES + 1)
		return error_set(err, CPULL_ERR_LIMIT, "a name of %llu bytes is longer than the %u allowed",
				 (unsigned long long)size, LIMIT_PATH_BYTES);
	tar->payload = name->text;
	return 0;
}

static int begin_extension(struct tar *tar, const struct tar_header *h, struct cpull_error *err)
{
	uint8_t type = h->type == 'X' ? 'x' : h->type; /* Solaris' own name for it */
	uint64_t size = 0;
	int rc = tar_number_unsigned(h->size, sizeof(h->size), "size", &size, err);

	if (rc)
		return rc;
	/* libarchive refuses a second header, others let it replace the first; and Go forgets the first at a 'g' */
	if ((type == 'x' && tar->pax_pending) || (type == 'L' && tar->name.pending) ||
	    (type == 'K' && tar->link.pending))
		return repeated(err, type);
	if (type == 'g' && (tar->pax_pending || tar->name.pending || tar->link.pending))
		return error_set(err, CPULL_ERR_TAR, "a 'g' header between an entry and its extension headers");
	if (type == 'L')
		rc = begin_long_name(tar, &tar->name, size, err);
	else if (type == 'K')
		rc = begin_long_name(tar, &tar->link, size, err);
	else
		rc = begin_pax(tar, size, err);
	if (rc)
		return rc;
	tar->extension = type;
	tar->payload_len = 0;
	tar->payload_left = size;
	tar->padding = PADDING(size);
	tar->state = STATE_EXTENSION;
	return STEP_ON;
}

static int finish_long_name(struct tar *tar, struct long_name *name, struct cpull_error *err)
{
	name->text[tar->payload_len] = 0;
	if (!name->text[0])
		return error_set(err, CPULL_ERR_TAR, "a '%c' header without a name", tar->extension);
	name->pending = true;
	return 0;
}

static int finish_extension(struct tar *tar, struct cpull_error *err)
{
	tar->state = STATE_PADDING;
	switch (tar->extension) {
	case 'L':
		return finish_long_name(tar, &tar->name, err);
	case 'K':
		return finish_long_name(tar, &tar->link, err);
	case 'g':
		return pax_parse_global(&tar->global, tar->pax_text, tar->payload_len, err);
	default:
		tar->pax_pending = true;
		return pax_parse_local(&tar->pax, &tar->map, tar->pax_text, tar->payload_len, err);
	}
}

static int step_extension(struct tar *tar, struct tar_input *in, struct cpull_error *err)
{
	size_t n = MIN(available(in), tar->payload_left);

	if (n)
		memcpy(tar->payload + tar->payload_len, in->data + in->pos, n);
	advance(tar, in, n);
	tar->payload_len += n;
	tar->payload_left -= n;
	if (tar->payload_left)
		return TAR_MORE;

	int rc = finish_extension(tar, err);

	return rc ? rc : STEP_ON;
}

/* ---- steps ------------------------------------------------------------------------------------- */

static int nothing_pending(const struct tar *tar, struct cpull_error *err)
{
	if (tar->pax_pending || tar->name.pending || tar->link.pending)
		return error_set(err, CPULL_ERR_TAR, "the archive ends, an extension header's entry is missing");
	return 0;
}

static int step_header(struct tar *tar, struct tar_input *in, struct cpull_error *err)
{
	if (!tar->block_len) {
		tar->entry_at = tar->at;
		tar->in_entry = false;
	}

	const uint8_t *block = take_block(tar, in);
	int rc;

	if (!block)
		return TAR_MORE;
	if (!block[0] && tar_header_is_zero(block)) {
		if ((rc = nothing_pending(tar, err)))
			return rc;
		tar->state = tar->state == STATE_LONE_ZERO ? STATE_END : STATE_LONE_ZERO;
		return STEP_ON;
	}
	/* GNU tar and libarchive stop here, Go calls it an error, others go on */
	if (tar->state == STATE_LONE_ZERO)
		return error_set(err, CPULL_ERR_TAR, "a single zero block in the middle of the archive");

	const struct tar_header *h = (const struct tar_header *)block;

	if ((rc = tar_header_check(h, err)))
		return rc;
	switch (h->type) {
	case 'x':
	case 'X':
	case 'g':
	case 'L':
	case 'K':
		return begin_extension(tar, h, err);
	default:
		return begin_entry(tar, h, err);
	}
}

static int step_sparse_more(struct tar *tar, struct tar_input *in, struct cpull_error *err)
{
	const uint8_t *block = take_block(tar, in);

	if (!block)
		return TAR_MORE;

	int rc = sparse_add_pairs(&tar->map, block, TAR_SPARSE_PAIRS_MORE, err);

	if (rc)
		return rc;
	return block[TAR_SPARSE_PAIRS_MORE * SPARSE_PAIR_BYTES] ? STEP_ON : emit_entry(tar, err);
}

static int step_sparse_text(struct tar *tar, struct tar_input *in, struct cpull_error *err)
{
	size_t n = MIN(available(in), tar->data_left);
	size_t used = 0;

	if (!tar->data_left)
		return error_set(err, CPULL_ERR_TAR, "its sparse map is longer than its data");
	if (!n)
		return TAR_MORE;

	int rc = sparse_read_text(&tar->map, in->data + in->pos, n, &used, err);

	if (rc < 0)
		return rc;
	advance(tar, in, used);
	tar->data_left -= used;
	if (rc == 0)
		return STEP_ON;
	/* stored are the map up to a block, then the data: what is left tells where in its block the map ended */
	tar->padding = (tar->data_padding + tar->data_left) % TAR_BLOCK_BYTES;
	if (tar->padding > tar->data_left)
		return error_set(err, CPULL_ERR_TAR, "its sparse map is longer than its data");
	tar->data_left -= tar->padding;
	tar->state = STATE_SPARSE_PAD;
	return STEP_ON;
}

/* Skips padding; its bytes mean nothing. Returns true when it is all gone. */
static bool skip_padding(struct tar *tar, struct tar_input *in)
{
	size_t n = MIN(available(in), tar->padding);

	advance(tar, in, n);
	tar->padding -= n;
	return !tar->padding;
}

static int step_data(struct tar *tar, struct tar_input *in, struct tar_data *data)
{
	while (!tar->run_left && tar->data_left) {
		const struct sparse_chunk *c = &tar->map.chunks[tar->chunk++];

		tar->run_at = c->offset;
		tar->run_left = c->len;
	}
	if (!tar->data_left) {
		tar->padding = tar->data_padding;
		tar->state = STATE_PADDING;
		return TAR_ENTRY_END;
	}

	size_t n = MIN(available(in), tar->run_left);

	if (!n)
		return TAR_MORE;
	*data = (struct tar_data){in->data + in->pos, n, tar->run_at};
	advance(tar, in, n);
	tar->run_at += n;
	tar->run_left -= n;
	tar->data_left -= n;
	return TAR_DATA;
}

static int step(struct tar *tar, struct tar_input *in, struct tar_data *data, struct cpull_error *err)
{
	switch (tar->state) {
	case STATE_HEADER:
	case STATE_LONE_ZERO:
		return step_header(tar, in, err);
	case STATE_EXTENSION:
		return step_extension(tar, in, err);
	case STATE_SPARSE_MORE:
		return step_sparse_more(tar, in, err);
	case STATE_SPARSE_TEXT:
		return step_sparse_text(tar, in, err);
	case STATE_SPARSE_PAD:
		return skip_padding(tar, in) ? emit_entry(tar, err) : TAR_MORE;
	case STATE_DATA:
		return step_data(tar, in, data);
	case STATE_PADDING:
		if (!skip_padding(tar, in))
			return TAR_MORE;
		tar->state = STATE_HEADER;
		return STEP_ON;
	case STATE_END:
		return TAR_END;
	}
	return error_set(err, CPULL_ERR_INTERNAL, "tar reader in no state");
}

static int fail(struct tar *tar, int code, struct cpull_error *err)
{
	char name[256];

	tar->failed = code;
	if (tar->in_entry)
		error_wrap(err, "tar entry \"%s\" at byte %llu",
			   error_quote(tar->entry.path, strlen(tar->entry.path), name, sizeof(name)),
			   (unsigned long long)tar->entry_at);
	else
		error_wrap(err, "tar header at byte %llu", (unsigned long long)tar->entry_at);
	return code;
}

int tar_next(struct tar *tar, struct tar_input *in, struct tar_data *data, struct cpull_error *err)
{
	int rc;

	if (tar->failed)
		return error_set(err, tar->failed, "reading tar after an error");
	do {
		rc = step(tar, in, data, err);
	} while (rc == STEP_ON);
	return rc < 0 ? fail(tar, rc, err) : rc;
}

int tar_finish(struct tar *tar, struct cpull_error *err)
{
	int rc;

	if (tar->failed)
		return error_set(err, tar->failed, "reading tar after an error");
	if (tar->state == STATE_END)
		return 0;
	/* nothing but padding that needs no bytes may lie between an entry and the end */
	bool between = !tar->block_len && (tar->state == STATE_HEADER || tar->state == STATE_LONE_ZERO ||
					   (tar->state == STATE_PADDING && !tar->padding));

	if (!between)
		rc = error_set(err, CPULL_ERR_TAR, "the archive is cut after %llu bytes", (unsigned long long)tar->at);
	else
		rc = nothing_pending(tar, err);
	return rc ? fail(tar, rc, err) : 0;
}
