/* SPDX-License-Identifier: Apache-2.0
 *
 * coco_pull.h — the one public header of libcocopull: pull, verify, decrypt and unpack a container
 * image into layers for an overlay, directories or EROFS images, and mount it.
 *
 * Conventions that hold for every function here
 *  - It returns 0 (CPULL_OK) or a negative CPULL_ERR_* code, and fills *err when err is not NULL.
 *  - Strings are UTF-8 and NUL-terminated; what you pass in is copied, what you get out is borrowed from
 *    the object it came from and lives as long as that object, unless said otherwise.
 *  - Option structs begin with `size`: set it to sizeof(struct …), zero the rest, set what you need. A
 *    zero member means its default, so a caller built against an older header keeps working.
 *  - No global state, no output, no signal handlers, no exit. All signals are blocked in the library's
 *    threads, descriptors are close-on-exec. Calls on different objects may run on any threads at once;
 *    an engine may be used from several threads, a pull from one thread plus cpull_pull_cancel().
 *  - The library's own stacks are its own; a calling thread needs at most 128 KiB of stack.
 *  - After fork() a child may exec() or _exit(), and call nothing of this library.
 */
#ifndef COCO_PULL_H
#define COCO_PULL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

/* ---- errors ------------------------------------------------------------------------------------ */

/* What went wrong. The numbers are part of the ABI. */
enum cpull_code {
	CPULL_OK = 0,
	CPULL_ERR_INTERNAL = -1,    /* a fault of this library, or of the machine */
	CPULL_ERR_USAGE = -2,       /* an argument or option cannot be used */
	CPULL_ERR_NOMEM = -3,       /* out of memory */
	CPULL_ERR_CANCELLED = -4,   /* cpull_pull_cancel() was called */
	CPULL_ERR_DEADLINE = -5,    /* the caller's deadline passed */
	CPULL_ERR_NETWORK = -10,    /* name, connection, TLS or protocol trouble */
	CPULL_ERR_STALLED = -11,    /* connected, but no bytes for too long */
	CPULL_ERR_REGISTRY = -12,   /* the registry answered with an error */
	CPULL_ERR_AUTH = -13,       /* credentials missing, refused or unusable */
	CPULL_ERR_NOT_FOUND = -14,  /* no such image, blob, record or file */
	CPULL_ERR_MANIFEST = -20,   /* manifest, index or config malformed */
	CPULL_ERR_MEDIA_TYPE = -21, /* a media type that is unknown or contradicts the content */
	CPULL_ERR_PLATFORM = -22,   /* nothing for the wanted platform */
	CPULL_ERR_UNSUPPORTED = -23,/* well-formed, but not something this build can do */
	CPULL_ERR_LIMIT = -24,      /* a named limit was passed */
	CPULL_ERR_DIGEST = -30,     /* content does not match its digest */
	CPULL_ERR_SIZE = -31,       /* content does not match its size */
	CPULL_ERR_DIFF_ID = -32,    /* the unpacked tar does not match the config's diff_id */
	CPULL_ERR_DECOMPRESS = -40, /* gzip or zstd stream damaged or cut */
	CPULL_ERR_TAR = -41,        /* tar stream damaged or cut */
	CPULL_ERR_ESCAPE = -42,     /* an entry that points outside its layer */
	CPULL_ERR_WHITEOUT = -43,   /* a whiteout that names nothing that can be whited out */
	CPULL_ERR_XATTR = -44,      /* an attribute that cannot be stored */
	CPULL_ERR_KEY = -50,        /* no key, or none that opens the layer's wrap */
	CPULL_ERR_DECRYPT = -51,    /* ciphertext not authentic, or encryption options malformed */
	CPULL_ERR_POLICY = -60,     /* signature or encryption policy says no */
	CPULL_ERR_STORAGE = -70,    /* reading or writing the store failed */
	CPULL_ERR_SPACE = -71,      /* no space or quota left */
	CPULL_ERR_PERMISSION = -72, /* the process may not do this */
};

/* Coarse class of a code; the numbers are the exit statuses of the coco-pull program. */
enum cpull_class {
	CPULL_CLASS_OK = 0,
	CPULL_CLASS_OTHER = 1,
	CPULL_CLASS_USAGE = 2,
	CPULL_CLASS_NETWORK = 3,
	CPULL_CLASS_AUTH = 4,
	CPULL_CLASS_DIGEST = 5,
	CPULL_CLASS_KEY = 6,
	CPULL_CLASS_POLICY = 7,
	CPULL_CLASS_IMAGE = 8,
	CPULL_CLASS_STORAGE = 9,
	CPULL_CLASS_NOT_FOUND = 10,
	CPULL_CLASS_DEADLINE = 124,
	CPULL_CLASS_CANCELLED = 130,
};

#define CPULL_MESSAGE_BYTES 1024

/* One error, owned by the caller. `message` is one line: what was being done to what, why it failed, and
 * where it helps what to do. It never holds a secret. */
struct cpull_error {
	int code;        /* enum cpull_code */
	int sys_errno;   /* errno of the system call that failed, or 0 */
	int http_status; /* status of the registry's answer, or 0 */
	char message[CPULL_MESSAGE_BYTES];
};

/* Class of a code; CPULL_CLASS_OTHER for a number this version does not know. */
enum cpull_class cpull_code_class(int code);
/* Short fixed name of a code in lower case, such as "digest" or "diff_id"; never NULL. */
const char *cpull_code_name(int code);
/* Version of the library as "MAJOR.MINOR.PATCH". */
const char *cpull_version(void);

/* ---- engine ------------------------------------------------------------------------------------ */

enum cpull_io {
	CPULL_IO_AUTO = 0,  /* per operation whatever is cheaper here */
	CPULL_IO_URING = 1, /* insist on io_uring; an error where the kernel refuses it */
	CPULL_IO_SYNC = 2,  /* plain system calls only */
};

enum cpull_log_level { CPULL_LOG_ERROR = 0, CPULL_LOG_WARN = 1, CPULL_LOG_INFO = 2, CPULL_LOG_DEBUG = 3 };

/* Receives one log line without a newline; called from any of the engine's threads, one at a time. */
typedef void (*cpull_log_fn)(enum cpull_log_level level, const char *line, void *payload);

struct cpull_engine_options {
	size_t size;           /* sizeof(struct cpull_engine_options) */
	const char *store;     /* store directory, made if missing; default "/var/lib/coco-pull" */
	uint64_t memory_bytes; /* budget of the whole process, default 64 MiB, at least 16 MiB */
	unsigned jobs;         /* layers in progress at once, default 4 */
	enum cpull_io io;
	bool durable;          /* sync before an image is recorded, so that it outlives a reboot */
	enum cpull_log_level log_level;
	cpull_log_fn log;      /* NULL: no logging */
	void *log_payload;
	uint64_t reserved[8];  /* must be zero */
};

struct cpull_engine;

/* Opens the store and sweeps what dead pulls left in it; no thread is started before it is needed.
 *
 * Keep one engine for many pulls: it keeps connections, buffers and decoders. The library holds on to nothing
 * once an engine is freed, but glibc's malloc does: with its default arenas a process that makes and frees
 * engines over and over grows by some 10 MiB over the first 1000 before it levels off. Such a process sets
 * mallopt(M_ARENA_MAX, 1) before the first. */
int cpull_engine_new(const struct cpull_engine_options *options, struct cpull_engine **out,
		     struct cpull_error *err);
/* Every pull of the engine must have been freed. NULL is fine. */
void cpull_engine_free(struct cpull_engine *engine);

/* ---- pull -------------------------------------------------------------------------------------- */

enum cpull_layer_state {
	CPULL_LAYER_WAITING = 0,
	CPULL_LAYER_PULLING = 1,
	CPULL_LAYER_VERIFIED = 2, /* all digests and the MAC are right, and it is in the store */
	CPULL_LAYER_REUSED = 3,   /* it was in the store already */
	CPULL_LAYER_FAILED = 4,   /* it is why the pull failed; the others keep the state they had then */
};

/* Progress of one layer. Strings live for the duration of the call. */
struct cpull_progress {
	unsigned layer;        /* 0 is the lowest */
	unsigned layer_count;
	const char *digest;    /* blob digest "sha256:…" */
	enum cpull_layer_state state;
	uint64_t fetched_bytes;
	uint64_t total_bytes;  /* blob size */
	uint64_t unpacked_bytes;
	bool encrypted;
};

/* Called on a thread of the library, one call at a time, at every change of state and otherwise at most
 * about ten times a second per layer. It must not call back into the library except cpull_pull_cancel(). */
typedef void (*cpull_progress_fn)(const struct cpull_progress *progress, void *payload);

/* What a layer is unpacked into. */
enum cpull_snapshot {
	CPULL_SNAPSHOT_OVERLAY = 0, /* a directory, which anybody can put into the lowerdir of an overlay */
	CPULL_SNAPSHOT_EROFS = 1,   /* one file, an EROFS image; cpull_mount() mounts each and an overlay of them all */
	CPULL_SNAPSHOT_AUTO = 2,    /* EROFS where this kernel could mount it from the store, else directories */
};

struct cpull_pull_options {
	size_t size;                       /* sizeof(struct cpull_pull_options) */
	const char *image;                 /* "host[:port]/repo[:tag][@digest]" or "oci:DIR[:REF]" */
	const char *platform;              /* "os/arch[/variant]", default this machine's */
	const char *const *decryption_keys;/* FILE[:pass=…|:file=…|:fd=…], as skopeo takes them */
	size_t decryption_key_count;
	bool require_encrypted;            /* refuse an image with a layer that is not encrypted */
	bool plain_http;                   /* talk HTTP; credentials then go over it */
	bool tls_no_verify;                /* accept any certificate */
	const char *creds;                 /* "USER[:PASS]" for the image's registry */
	const char *authfile;              /* auth.json; default: the places podman and docker look at */
	const char *cert_dir;              /* *.crt roots, *.cert + *.key client pairs */
	uint32_t timeout_ms;               /* deadline for the whole pull, 0 for none */
	cpull_progress_fn progress;
	void *progress_payload;
	uint32_t connections;              /* for one large blob, if that is faster: 1 to 16, default 8; 1 means that no
					    * blob is ever asked for in ranges unless a connection breaks */
	enum cpull_snapshot snapshot;
	bool verity;                       /* each EROFS image gets a dm-verity hash tree, by which it can be checked
					    * whenever it is read; not with CPULL_SNAPSHOT_OVERLAY */
	uint8_t reserved_bytes[7];         /* must be zero */
	uint64_t reserved[6];              /* must be zero */
};

struct cpull_layer {
	const char *digest;
	const char *diff_id;
	const char *media_type;
	uint64_t size;  /* blob bytes */
	bool encrypted;
	bool reused;    /* it was in the store already */
	const char *path; /* absolute; the directory that goes into lowerdir, or the file of an EROFS image */
};

/* What there is to say of a layer that is an EROFS image. The hash tree has format 1 of dm-verity, SHA-256, blocks of
 * 4096 bytes for data and hashes, and no salt; its superblock, as veritysetup(8) has it, is behind the data, the tree
 * behind that. */
struct cpull_erofs_layer {
	uint64_t file_bytes;   /* the file: image, and hash tree where there is one */
	uint64_t data_blocks;  /* the image, in blocks of 4096 bytes; behind it is the superblock */
	const char *root_hash; /* of the hash tree, 64 hex digits; NULL without a tree */
	uint64_t reserved[5];
};

/* Where the time of one pull went, summed over its layers. A stage waits on input while nothing is there
 * to work on, and on output while the stage after it holds all memory there is, or other layers all there is
 * for zstd windows. Layers are in progress at once, so sums may be longer than the pull took. */
struct cpull_stage_stats {
	uint64_t bytes;
	uint64_t busy_ns;
	uint64_t wait_input_ns;
	uint64_t wait_output_ns;
};

struct cpull_stats {
	uint64_t bytes_fetched;
	uint64_t bytes_unpacked;  /* uncompressed tar bytes */
	uint64_t entries;         /* tar entries applied */
	uint64_t wall_ms;
	uint64_t peak_rss_bytes;  /* of the whole process */
	struct cpull_stage_stats open;  /* decrypt, decompress */
	struct cpull_stage_stats write; /* digest, HMAC, diff_id, tar, files */
	const char *io;           /* what bulk writes used: "sync", "uring", "uring+direct" (past the page cache) */
	struct cpull_stage_stats fetch; /* all that came from the network, even twice; busy: handing it on */
	uint32_t connections;     /* the most that worked on one layer at once, 0 without a registry */
	struct cpull_stage_stats files; /* the part of write that a second thread did: data and attributes of small
					 * files; 0 where none was started */
	uint64_t reserved[16];    /* room for more */
};

struct cpull_result {
	const char *reference; /* canonical name */
	const char *manifest_digest;
	const char *config_digest;
	const char *platform;
	const struct cpull_layer *layers; /* lowest first */
	size_t layer_count;
	struct cpull_stats stats;
	enum cpull_snapshot snapshot; /* OVERLAY or EROFS */
	const struct cpull_erofs_layer *erofs_layers; /* one for each of layers; NULL with OVERLAY */
};

struct cpull_pull;

/* Starts a pull and returns at once; *out is there also for a pull that will fail later. */
int cpull_pull_start(struct cpull_engine *engine, const struct cpull_pull_options *options,
		     struct cpull_pull **out, struct cpull_error *err);
/* Waits until the pull has ended, at most timeout_ms (negative: for ever). Returns 1 while it still runs,
 * otherwise how it ended: 0, or the negative code that is also in *err. May be called again. */
int cpull_pull_wait(struct cpull_pull *pull, int timeout_ms, struct cpull_error *err);
/* Asks a pull to stop; returns at once, from any thread. Nothing it wrote becomes visible. */
void cpull_pull_cancel(struct cpull_pull *pull);
/* The result after cpull_pull_wait() returned 0, else NULL. Lives as long as the pull. */
const struct cpull_result *cpull_pull_result(const struct cpull_pull *pull);
/* Cancels the pull if it still runs, waits for its threads, and frees it. NULL is fine. */
void cpull_pull_free(struct cpull_pull *pull);

/* ---- store ------------------------------------------------------------------------------------- */

/* One image of the store. */
struct cpull_image {
	const char *reference;
	const char *manifest_digest;
	const char *config_digest;
	const char *platform;
	const struct cpull_layer *layers; /* lowest first */
	size_t layer_count;
	int64_t pulled_at;       /* seconds since the epoch */
	bool durable;
	const char *manifest;    /* the verified manifest, JSON text */
	const char *config;      /* the verified image config, JSON text */
	enum cpull_snapshot snapshot; /* OVERLAY or EROFS */
	const struct cpull_erofs_layer *erofs_layers; /* one for each of layers; NULL with OVERLAY */
};

struct cpull_images;

/* All images that can be used now, sorted by reference. */
int cpull_images_load(struct cpull_engine *engine, struct cpull_images **out, struct cpull_error *err);
size_t cpull_images_count(const struct cpull_images *images);
const struct cpull_image *cpull_images_get(const struct cpull_images *images, size_t index);
/* The image that `name` stands for (a reference in any spelling, or a manifest digest or a prefix of at
 * least 12 hex digits of it), or NULL with CPULL_ERR_NOT_FOUND in *err. */
const struct cpull_image *cpull_images_find(const struct cpull_images *images, const char *name,
					    struct cpull_error *err);
void cpull_images_free(struct cpull_images *images);

/* What a removal did. */
struct cpull_removed {
	size_t images;
	size_t layers;
};

/* Removes an image's record and the layers that nothing else uses. CPULL_ERR_USAGE while it is mounted. */
int cpull_image_remove(struct cpull_engine *engine, const char *name, struct cpull_removed *out,
		       struct cpull_error *err);
/* Removes layers that no image, mount or running pull uses, records that cannot be trusted, and leftovers. */
int cpull_prune(struct cpull_engine *engine, struct cpull_removed *out, struct cpull_error *err);

/* ---- check ------------------------------------------------------------------------------------- */

/* By what a layer was checked. */
enum cpull_check {
	CPULL_CHECK_NONE = 0,      /* nothing is recorded that it could be checked by: an older version pulled it */
	CPULL_CHECK_STRUCTURE = 1, /* an EROFS image of which nothing is recorded: all of it can be read */
	CPULL_CHECK_SUMS = 2,      /* checksums (XXH3) of all that was written, against accidents */
	CPULL_CHECK_VERITY = 3,    /* the hash tree of an EROFS image (SHA-256) */
};

enum cpull_fsck_state {
	CPULL_FSCK_WAITING = 0,
	CPULL_FSCK_CHECKING = 1,
	CPULL_FSCK_SOUND = 2,
	CPULL_FSCK_DAMAGED = 3,
	CPULL_FSCK_UNCHECKED = 4, /* CPULL_CHECK_NONE */
};

/* Progress of one layer. Strings live for the duration of the call. */
struct cpull_fsck_progress {
	size_t layer;
	size_t layer_count;
	const char *name;      /* of the layer in the store */
	enum cpull_fsck_state state;
	uint64_t checked_bytes;
	uint64_t total_bytes;  /* of the files, or of the image; 0 while it is not known */
	uint64_t problems;     /* so far */
};

struct cpull_fsck_options {
	size_t size;               /* sizeof(struct cpull_fsck_options) */
	const char *const *images; /* as for cpull_images_find(); none: everything in the store */
	size_t image_count;
	/* Called on the calling thread, for every layer whose state has changed, and about ten times a second for those
	 * that are being checked, and with NULL where there is nothing to tell. Anything but 0 cancels the check. */
	int (*progress)(const struct cpull_fsck_progress *progress, void *payload);
	void *progress_payload;
	uint64_t reserved[8];      /* must be zero */
};

struct cpull_fsck_layer {
	const char *name;
	const char *diff_id;        /* NULL when that is lost */
	const char *const *images;  /* references of those that use it */
	size_t image_count;
	enum cpull_snapshot snapshot;
	enum cpull_check check;
	uint64_t checked_bytes;
	uint64_t problems;
	uint64_t reserved[6];
};

/* Something that is not as it was written. */
struct cpull_problem {
	const char *const *images; /* references of those that it concerns */
	size_t image_count;
	const char *layer;         /* its name, or NULL */
	const char *path;          /* in the layer, any bytes, "" for its root; or in the store; NULL for the whole */
	const char *what;
	const char *advice;        /* what to do */
	uint64_t reserved[4];
};

struct cpull_fsck_report {
	size_t image_count;
	const struct cpull_fsck_layer *layers;   /* sorted by name */
	size_t layer_count;
	const struct cpull_problem *problems;    /* sorted: records and mounts, then by layer and path; at most 128 of
						  * a layer */
	size_t problem_count;
	uint64_t problem_total;                  /* those included that are not in `problems` */
	uint64_t unchecked_layers;               /* CPULL_CHECK_NONE */
	uint64_t checked_bytes;
	uint64_t wall_ms;
	uint64_t reserved[8];
};

/* Checks images, or everything in the store, against what was recorded when it was pulled, with as many threads as the
 * engine has jobs. Changes nothing. Layers are pinned while they are checked, others may pull, mount and remove images
 * meanwhile. Returns 0 when all is well, and CPULL_ERR_DIGEST when something is not: *out is there in both cases, to be
 * freed by cpull_fsck_free(). Otherwise the check came to no end, and *out is NULL. */
int cpull_fsck(struct cpull_engine *engine, const struct cpull_fsck_options *options,
	       const struct cpull_fsck_report **out, struct cpull_error *err);
/* NULL is fine. */
void cpull_fsck_free(const struct cpull_fsck_report *report);

/* ---- mount ------------------------------------------------------------------------------------- */

struct cpull_mount_options {
	size_t size;          /* sizeof(struct cpull_mount_options) */
	bool read_write;      /* with an upper directory of its own, removed by cpull_unmount() */
	uint64_t reserved[8]; /* must be zero */
};

/* Mounts an image of the store on an existing directory. */
int cpull_mount(struct cpull_engine *engine, const char *name, const char *dir,
		const struct cpull_mount_options *options, struct cpull_error *err);
/* Takes a mount made by cpull_mount() down again and removes what it wrote. */
int cpull_unmount(struct cpull_engine *engine, const char *dir, struct cpull_error *err);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif
#endif
