/* SPDX-License-Identifier: Apache-2.0
 *
 * What was asked for: command, operands and options, from the command line and the environment. One table of options
 * drives parsing, the environment and the help text; a test compares it with the man page.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "engine/coco_pull.h"

enum command {
	COMMAND_PULL,
	COMMAND_MOUNT,
	COMMAND_UNMOUNT,
	COMMAND_LIST,
	COMMAND_RM,
	COMMAND_PRUNE,
	COMMAND_INSPECT,
	COMMAND_FSCK,
	COMMAND_VERSION,
	COMMAND_HELP,
};
#define COMMAND_COUNT (COMMAND_HELP + 1)
#define COMMAND_BIT(c) (1u << (c))

#define OPERAND_MAX 64 /* images of fsck */

struct command_info {
	const char *name;
	const char *operands; /* as help shows them */
	size_t operand_min;
	size_t operand_max;
	const char *summary;
};

/* The numbers are positions in the table's lists of words. */
enum format { FORMAT_TEXT, FORMAT_JSON };
enum progress_choice { PROGRESS_AUTO, PROGRESS_PLAIN, PROGRESS_JSON, PROGRESS_NONE };

enum option_kind {
	OPTION_TEXT,     /* const char *, borrowed from argv or the environment */
	OPTION_SECRET,   /* char *, owned and wiped */
	OPTION_LIST,     /* struct text_list, owned and wiped: key specifications hold passwords */
	OPTION_BOOL,     /* bool; its value only behind '=' */
	OPTION_CHOICE,   /* int, the word's position */
	OPTION_COUNT,    /* unsigned */
	OPTION_BYTES,    /* uint64_t */
	OPTION_DURATION, /* uint32_t, milliseconds */
};

struct option_info {
	const char *name; /* without dashes */
	const char *argument; /* as help shows it, "" for a plain switch */
	enum option_kind kind;
	size_t offset; /* in struct options */
	unsigned commands; /* COMMAND_BIT()s of those that take it */
	const char *const *words; /* OPTION_CHOICE: NULL-terminated */
	const char *help;
};

struct text_list {
	char **items;
	size_t count;
};

struct options {
	enum command command;
	const char *operands[OPERAND_MAX]; /* borrowed from argv */
	size_t operand_count;

	const char *store; /* NULL: the library's default */
	int format;
	int log_level;
	int progress;
	const char *platform;
	unsigned jobs;
	unsigned connections;
	uint64_t memory_bytes;
	uint32_t timeout_ms;
	struct text_list decryption_keys;
	bool require_encrypted;
	char *creds;
	const char *authfile;
	bool tls_verify;
	const char *cert_dir;
	bool plain_http;
	int io;
	int snapshot;
	bool verity;
	bool durable;
	bool stats;
	bool read_write;
	bool help;
	bool reported; /* set by the command: standard output says already how it ended */
};

extern const struct command_info command_table[COMMAND_COUNT];
extern const struct option_info option_table[];
extern const size_t option_table_count;

/* Fills *out, which the caller frees whatever is returned: after an error `format` still says how to report it.
 * Passwords in argv are overwritten once they have been copied. */
int options_parse(int argc, char **argv, struct options *out, struct cpull_error *err);
void options_free(struct options *options);
/* The command with that name, or -1. */
int command_find(const char *name);
/* "COCO_PULL_" and the option's name in capitals with underscores. */
void option_environment_name(const struct option_info *option, char *out, size_t out_bytes);

#endif
