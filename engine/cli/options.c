/* SPDX-License-Identifier: Apache-2.0
 *
 * The option table and its parser. Called once by main() before anything else runs; owns the copies of secrets and
 * lists until options_free(). An error does not stop the reading: only the first is kept, and `--format json` behind
 * it still decides how it is reported. No message repeats a value that can be a secret.
 */
#include "engine/cli/options.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cli/values.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define ENVIRONMENT_NAME_BYTES 64

const struct command_info command_table[COMMAND_COUNT] = {
	[COMMAND_PULL] = {"pull", "IMAGE", 1, 1, "pull, verify, decrypt and unpack an image"},
	[COMMAND_MOUNT] = {"mount", "IMAGE DIR", 2, 2, "mount an image of the store on a directory"},
	[COMMAND_UNMOUNT] = {"unmount", "DIR", 1, 1, "take such a mount down again"},
	[COMMAND_LIST] = {"list", "", 0, 0, "list the images of the store"},
	[COMMAND_RM] = {"rm", "IMAGE", 1, 1, "remove an image and the layers only it uses"},
	[COMMAND_PRUNE] = {"prune", "", 0, 0, "remove layers and leftovers that nothing uses"},
	[COMMAND_INSPECT] = {"inspect", "IMAGE", 1, 1, "show all that is recorded about an image"},
	[COMMAND_FSCK] = {"fsck", "[IMAGE...]", 0, OPERAND_MAX, "check the store, or images in it, for damage"},
	[COMMAND_VERSION] = {"version", "", 0, 0, "show the versions of program and library"},
	[COMMAND_HELP] = {"help", "[COMMAND]", 0, 1, "show help on the program or a command"},
};

static const char *const format_words[] = {"text", "json", NULL};
static const char *const log_level_words[] = {"error", "warn", "info", "debug", NULL};
static const char *const progress_words[] = {"auto", "plain", "json", "none", NULL};
static const char *const io_words[] = {"auto", "uring", "sync", NULL};
static const char *const snapshot_words[] = {"overlay", "erofs", "auto", NULL};

#define ON_PULL COMMAND_BIT(COMMAND_PULL)
#define ON_FSCK COMMAND_BIT(COMMAND_FSCK)
#define ON_STORE                                                                                                    \
	(ON_PULL | COMMAND_BIT(COMMAND_MOUNT) | COMMAND_BIT(COMMAND_UNMOUNT) | COMMAND_BIT(COMMAND_LIST) |          \
	 COMMAND_BIT(COMMAND_RM) | COMMAND_BIT(COMMAND_PRUNE) | COMMAND_BIT(COMMAND_INSPECT) | ON_FSCK)
#define ON_FORMAT (ON_STORE | COMMAND_BIT(COMMAND_VERSION))
#define AT(member) offsetof(struct options, member)

const struct option_info option_table[] = {
	{"store", "DIR", OPTION_TEXT, AT(store), ON_STORE, NULL, "store directory (default /var/lib/coco-pull)"},
	{"format", "text|json", OPTION_CHOICE, AT(format), ON_FORMAT, format_words,
	 "form of what goes to standard output (default text)"},
	{"log-level", "error|warn|info|debug", OPTION_CHOICE, AT(log_level), ON_STORE, log_level_words,
	 "how much to log on standard error (default warn)"},
	{"progress", "auto|plain|json|none", OPTION_CHOICE, AT(progress), ON_PULL | ON_FSCK, progress_words,
	 "form of progress on standard error; auto redraws in place on a terminal and is plain elsewhere"},
	{"platform", "OS/ARCH[/VARIANT]", OPTION_TEXT, AT(platform), ON_PULL, NULL,
	 "platform to pull (default this machine's)"},
	{"jobs", "N", OPTION_COUNT, AT(jobs), ON_PULL | ON_FSCK, NULL,
	 "layers in progress at once; of fsck, its threads (default 4)"},
	{"connections", "N", OPTION_COUNT, AT(connections), ON_PULL, NULL,
	 "connections for one large layer at most, where that is faster (1 to 16, default 8)"},
	{"memory", "SIZE", OPTION_BYTES, AT(memory_bytes), ON_PULL | ON_FSCK, NULL,
	 "memory budget of the process, such as 64M or 1G (default 64M, at least 16M)"},
	{"timeout", "SECONDS", OPTION_DURATION, AT(timeout_ms), ON_PULL, NULL,
	 "deadline for the whole pull, such as 90, 1.5, 30s or 5m (default none)"},
	{"decryption-key", "FILE[:pass=PASS|:file=FILE|:fd=N]", OPTION_LIST, AT(decryption_keys), ON_PULL, NULL,
	 "private key for encrypted layers; may be repeated"},
	{"require-encrypted", "", OPTION_BOOL, AT(require_encrypted), ON_PULL, NULL,
	 "refuse an image with a layer that is not encrypted"},
	{"creds", "USER[:PASS]", OPTION_SECRET, AT(creds), ON_PULL, NULL,
	 "credentials for the registry; without PASS it is asked for on the terminal"},
	{"authfile", "FILE", OPTION_TEXT, AT(authfile), ON_PULL, NULL,
	 "auth.json to use (default: where podman and docker keep theirs)"},
	{"tls-verify", "=BOOL", OPTION_BOOL, AT(tls_verify), ON_PULL, NULL,
	 "check the registry's certificate (default true)"},
	{"cert-dir", "DIR", OPTION_TEXT, AT(cert_dir), ON_PULL, NULL,
	 "directory with *.crt roots and *.cert, *.key client pairs"},
	{"plain-http", "", OPTION_BOOL, AT(plain_http), ON_PULL, NULL,
	 "talk HTTP to the registry; credentials then go over it in the clear"},
	{"io", "auto|uring|sync", OPTION_CHOICE, AT(io), ON_PULL, io_words,
	 "how to write: by io_uring, by plain calls, or whatever is cheaper (default auto)"},
	{"snapshot", "overlay|erofs|auto", OPTION_CHOICE, AT(snapshot), ON_PULL, snapshot_words,
	 "what a layer becomes: a directory, an EROFS image, or that where it can be mounted (default overlay)"},
	{"verity", "", OPTION_BOOL, AT(verity), ON_PULL, NULL,
	 "give each EROFS image a dm-verity hash tree, which --snapshot erofs or auto is needed for"},
	{"durable", "", OPTION_BOOL, AT(durable), ON_PULL, NULL,
	 "sync before the image is recorded, so that it outlives a reboot"},
	{"stats", "", OPTION_BOOL, AT(stats), ON_PULL, NULL, "report where the time went"},
	{"rw", "", OPTION_BOOL, AT(read_write), COMMAND_BIT(COMMAND_MOUNT), NULL,
	 "make the mount writable; unmount throws away what was written"},
};
const size_t option_table_count = COUNT(option_table);

/* Everything the parser needs while it walks over argv. */
struct parser {
	struct options *options;
	struct cpull_error *err;
	bool given[COUNT(option_table)];
	size_t operands_seen; /* the command's word is not one */
	bool command_seen;
};

static void fail(struct parser *parser, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void fail(struct parser *parser, int code, const char *fmt, ...)
{
	if (parser->err->code)
		return;
	parser->err->code = code;

	va_list args;
	va_start(args, fmt);
	vsnprintf(parser->err->message, sizeof(parser->err->message), fmt, args);
	va_end(args);
}

int command_find(const char *name)
{
	for (int i = 0; i < COMMAND_COUNT; i++)
		if (!strcmp(command_table[i].name, name))
			return i;
	return -1;
}

void option_environment_name(const struct option_info *option, char *out, size_t out_bytes)
{
	int at = snprintf(out, out_bytes, "COCO_PULL_%s", option->name);

	for (int i = 0; i < at && (size_t)i < out_bytes; i++) {
		if (out[i] >= 'a' && out[i] <= 'z')
			out[i] = (char)(out[i] - 'a' + 'A');
		else if (out[i] == '-')
			out[i] = '_';
	}
}

/* Edits that turn `a` into `b`, both shorter than 32 bytes; more than any threshold when they are not. */
static unsigned edit_distance(const char *a, const char *b)
{
	enum { MAX = 32 };
	size_t a_len = strlen(a), b_len = strlen(b);
	unsigned row[MAX];

	if (a_len >= MAX || b_len >= MAX)
		return MAX;
	for (size_t j = 0; j <= b_len; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= a_len; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= b_len; j++) {
			unsigned best = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[b_len];
}

/* The option that was likely meant, or NULL: few edits away, or one that begins with what was written. */
static const struct option_info *nearest_option(const char *name)
{
	const struct option_info *best = NULL;
	size_t name_len = strlen(name);
	unsigned best_distance = name_len < 6 ? 3 : 4;

	for (size_t i = 0; i < COUNT(option_table); i++) {
		unsigned distance = edit_distance(name, option_table[i].name);

		if (name_len >= 3 && !strncmp(name, option_table[i].name, name_len))
			distance = 1;
		if (distance < best_distance && distance < name_len) {
			best = &option_table[i];
			best_distance = distance;
		}
	}
	return best;
}

/* `word` is "--name" or "-x", of which `len` bytes are the option: a value behind it may be a secret. */
static void fail_unknown(struct parser *parser, const char *word, size_t len)
{
	char name[64];

	snprintf(name, sizeof(name), "%.*s", (int)(len > 50 ? 50 : len), word);
	const char *bare = name + strspn(name, "-");
	const struct option_info *near = nearest_option(bare);

	if (command_find(bare) >= 0)
		fail(parser, CPULL_ERR_USAGE, "unknown option '%s'; the command is 'coco-pull %s'", name, bare);
	else if (near)
		fail(parser, CPULL_ERR_USAGE, "unknown option '%s'; did you mean '--%s'?", name, near->name);
	else
		fail(parser, CPULL_ERR_USAGE, "unknown option '%s'; 'coco-pull help' lists all", name);
}

static int list_add(struct text_list *list, const char *text, size_t len)
{
	char **items = realloc(list->items, (list->count + 1) * sizeof(*items));

	if (!items)
		return -1;
	list->items = items;
	char *copy = strndup(text, len);
	if (!copy)
		return -1;
	items[list->count++] = copy;
	return 0;
}

static void list_free(struct text_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		explicit_bzero(list->items[i], strlen(list->items[i]));
		free(list->items[i]);
	}
	free(list->items);
	*list = (struct text_list){0};
}

static void set_secret(char **slot, char *value)
{
	if (*slot)
		explicit_bzero(*slot, strlen(*slot));
	free(*slot);
	*slot = value;
}

static int set_choice(const char *const *words, const char *text, int *out)
{
	for (int i = 0; words[i]; i++)
		if (!strcmp(words[i], text)) {
			*out = i;
			return 0;
		}
	return -1;
}

static const char *kind_wants(const struct option_info *option)
{
	switch (option->kind) {
	case OPTION_BOOL:
		return "true or false";
	case OPTION_CHOICE:
		return option->argument;
	case OPTION_COUNT:
		return "a number of at least 1";
	case OPTION_BYTES:
		return "a size such as 64M, 64MiB, 1G or a number of bytes";
	case OPTION_DURATION:
		return "seconds such as 90 or 1.5, or a duration such as 30s or 5m";
	case OPTION_TEXT:
	case OPTION_SECRET:
	case OPTION_LIST:
		break;
	}
	return "a value that is not empty";
}

/* Stores one value; `origin` is "--name" or the variable, for messages. */
static void apply(struct parser *parser, const struct option_info *option, const char *origin, const char *value)
{
	void *slot = (char *)parser->options + option->offset;
	int bad = *value ? 0 : -1;
	char *copy = NULL;

	if (!bad)
		switch (option->kind) {
		case OPTION_TEXT:
			*(const char **)slot = value;
			return;
		case OPTION_SECRET:
			copy = strdup(value);
			if (copy)
				set_secret(slot, copy);
			else
				fail(parser, CPULL_ERR_NOMEM, "out of memory");
			return;
		case OPTION_LIST:
			if (list_add(slot, value, strlen(value)))
				fail(parser, CPULL_ERR_NOMEM, "out of memory");
			return;
		case OPTION_BOOL:
			bad = value_bool(value, slot);
			break;
		case OPTION_CHOICE:
			bad = set_choice(option->words, value, slot);
			break;
		case OPTION_COUNT:
			bad = value_count(value, slot);
			break;
		case OPTION_BYTES:
			bad = value_bytes(value, slot);
			break;
		case OPTION_DURATION:
			bad = value_duration_ms(value, slot);
			break;
		}
	if (bad && (option->kind == OPTION_TEXT || option->kind == OPTION_SECRET || option->kind == OPTION_LIST))
		fail(parser, CPULL_ERR_USAGE, "%s wants %s", origin, kind_wants(option));
	else if (bad)
		fail(parser, CPULL_ERR_USAGE, "%s wants %s, not '%.100s'", origin, kind_wants(option), value);
}

static const struct option_info *find_option(const char *name, size_t len)
{
	for (size_t i = 0; i < COUNT(option_table); i++)
		if (strlen(option_table[i].name) == len && !memcmp(option_table[i].name, name, len))
			return &option_table[i];
	return NULL;
}

/* `ps` shows argv to everybody: what follows the colon of "USER:PASS" and "FILE:pass=…" is blotted out. */
static void blot_secret(const struct option_info *option, char *value)
{
	if (option->kind != OPTION_SECRET && option->kind != OPTION_LIST)
		return;
	char *colon = strchr(value, ':');
	if (colon)
		memset(colon + 1, 'x', strlen(colon + 1));
}

/* argv[i] begins with "--". Returns how many words it took. */
static int parse_long(struct parser *parser, int argc, char **argv, int i)
{
	char *word = argv[i];
	char *equals = strchr(word, '=');
	size_t len = equals ? (size_t)(equals - word) : strlen(word);
	const struct option_info *option = find_option(word + 2, len - 2);
	char origin[ENVIRONMENT_NAME_BYTES];

	if (!option) {
		fail_unknown(parser, word, len);
		return 1;
	}
	snprintf(origin, sizeof(origin), "--%s", option->name);
	parser->given[option - option_table] = true;

	if (option->kind == OPTION_BOOL) {
		/* "--tls-verify false" would switch verification on and pull an image "false". */
		if (!equals && i + 1 < argc && (!strcmp(argv[i + 1], "true") || !strcmp(argv[i + 1], "false")))
			fail(parser, CPULL_ERR_USAGE, "%s takes its value behind '=': %s=%s", origin, origin,
			     argv[i + 1]);
		apply(parser, option, origin, equals ? equals + 1 : "true");
		return 1;
	}
	if (!equals && i + 1 >= argc) {
		fail(parser, CPULL_ERR_USAGE, "%s needs a value: %s %s", origin, origin, option->argument);
		return 1;
	}
	char *value = equals ? equals + 1 : argv[i + 1];
	apply(parser, option, origin, value);
	blot_secret(option, value);
	return equals ? 1 : 2;
}

static void parse_operand(struct parser *parser, const char *word)
{
	struct options *options = parser->options;

	if (!parser->command_seen) {
		int command = command_find(word);

		parser->command_seen = true;
		if (command >= 0) {
			options->command = (enum command)command;
			return;
		}
	}
	if (parser->operands_seen < COUNT(options->operands))
		options->operands[options->operand_count++] = word;
	parser->operands_seen++;
}

static void parse_words(struct parser *parser, int argc, char **argv)
{
	bool options_over = false;

	for (int i = 1; i < argc;) {
		char *word = argv[i];

		if (options_over || word[0] != '-' || !word[1]) {
			parse_operand(parser, word);
		} else if (!strcmp(word, "--")) {
			options_over = true;
		} else if (!strcmp(word, "-h") || !strcmp(word, "--help")) {
			parser->options->help = true;
		} else if (word[1] == '-') {
			i += parse_long(parser, argc, argv, i);
			continue;
		} else {
			fail_unknown(parser, word, 2);
		}
		i++;
	}
}

static void check_options_fit(struct parser *parser)
{
	unsigned bit = COMMAND_BIT(parser->options->command);

	for (size_t i = 0; i < COUNT(option_table); i++)
		if (parser->given[i] && !(option_table[i].commands & bit))
			fail(parser, CPULL_ERR_USAGE, "'%s' has no option --%s; 'coco-pull help %s' shows those it has",
			     command_table[parser->options->command].name, option_table[i].name,
			     command_table[parser->options->command].name);
}

static void check_operands(struct parser *parser)
{
	const struct command_info *command = &command_table[parser->options->command];

	if (!parser->command_seen)
		fail(parser, CPULL_ERR_USAGE, "no image and no command given; 'coco-pull help' shows how");
	else if (parser->operands_seen < command->operand_min || parser->operands_seen > command->operand_max)
		fail(parser, CPULL_ERR_USAGE, "usage is 'coco-pull %s%s%s', but %zu operand%s given", command->name,
		     *command->operands ? " " : "", command->operands, parser->operands_seen,
		     parser->operands_seen == 1 ? " was" : "s were");
	for (size_t i = 0; i < parser->options->operand_count; i++)
		if (!*parser->options->operands[i])
			fail(parser, CPULL_ERR_USAGE, "an operand of '%s' is empty", command->name);
}

/* A variable's list is one value a line. */
static void apply_lines(struct parser *parser, const struct option_info *option, const char *text)
{
	struct text_list *list = (struct text_list *)((char *)parser->options + option->offset);

	while (*text) {
		size_t len = strcspn(text, "\n");

		if (len && list_add(list, text, len))
			fail(parser, CPULL_ERR_NOMEM, "out of memory");
		text += len + (text[len] == '\n');
	}
}

/* Variables that do not fit the command are left alone: they are set once for all of them. */
static void apply_environment(struct parser *parser)
{
	unsigned bit = COMMAND_BIT(parser->options->command);
	char name[ENVIRONMENT_NAME_BYTES];

	for (size_t i = 0; i < COUNT(option_table); i++) {
		const struct option_info *option = &option_table[i];

		if (parser->given[i] || !(option->commands & bit))
			continue;
		option_environment_name(option, name, sizeof(name));
		const char *value = getenv(name);
		if (!value || !*value)
			continue;
		if (option->kind == OPTION_LIST)
			apply_lines(parser, option, value);
		else
			apply(parser, option, name, value);
	}
}

int options_parse(int argc, char **argv, struct options *out, struct cpull_error *err)
{
	struct parser parser = {.options = out, .err = err};

	*out = (struct options){.command = COMMAND_PULL, .tls_verify = true, .log_level = CPULL_LOG_WARN};
	err->code = 0;
	parse_words(&parser, argc, argv);
	check_options_fit(&parser);
	apply_environment(&parser);
	if (out->help && out->command != COMMAND_HELP) {
		/* "coco-pull mount --help" is "coco-pull help mount", and "coco-pull --help" plain "help". */
		out->operand_count = 0;
		if (parser.command_seen)
			out->operands[out->operand_count++] = command_table[out->command].name;
		out->command = COMMAND_HELP;
	} else if (!out->help) {
		check_operands(&parser);
	}
	return err->code;
}

void options_free(struct options *options)
{
	list_free(&options->decryption_keys);
	set_secret(&options->creds, NULL);
}
