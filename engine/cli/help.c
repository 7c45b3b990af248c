/* SPDX-License-Identifier: Apache-2.0
 *
 * Help text, made from the option and command tables so that it cannot fall behind them. Main thread; owns nothing.
 */
#include "engine/cli/help.h"

#include <stdio.h>
#include <string.h>

#include "engine/cli/options.h"
#include "engine/cli/output.h"

#define HELP_COLUMNS 80
#define HELP_INDENT 6

/* Prints `text` word by word, continued lines indented. */
static void print_wrapped(const char *text, size_t indent)
{
	size_t column = indent;

	printf("%*s", (int)indent, "");
	while (*text) {
		size_t len = strcspn(text, " ");

		if (column > indent && column + 1 + len > HELP_COLUMNS) {
			printf("\n%*s", (int)indent, "");
			column = indent;
		} else if (column > indent) {
			putchar(' ');
			column++;
		}
		printf("%.*s", (int)len, text);
		column += len;
		text += len;
		text += strspn(text, " ");
	}
	putchar('\n');
}

static void print_options(unsigned commands)
{
	for (size_t i = 0; i < option_table_count; i++) {
		const struct option_info *option = &option_table[i];

		if (!(option->commands & commands))
			continue;
		printf("  --%s%s%s\n", option->name, *option->argument && *option->argument != '=' ? " " : "",
		       option->argument);
		print_wrapped(option->help, HELP_INDENT);
	}
	puts("  -h, --help");
	print_wrapped("show help on the command", HELP_INDENT);
}

static void print_environment(void)
{
	puts("\nEach option can also come from the environment as COCO_PULL_ and its name in\n"
	     "capitals with underscores, such as COCO_PULL_STORE or COCO_PULL_TLS_VERIFY=false;\n"
	     "the command line wins.");
}

static void print_command(const struct command_info *command)
{
	unsigned bit = COMMAND_BIT((unsigned)(command - command_table));

	printf("Usage: coco-pull %s%s%s [options]\n", command->name, *command->operands ? " " : "",
	       command->operands);
	if (bit == COMMAND_BIT(COMMAND_PULL))
		puts("       coco-pull IMAGE [options]");
	printf("\n%c%s.\n\nOptions:\n", command->summary[0] - 'a' + 'A', command->summary + 1);
	print_options(bit);
	print_environment();
}

static void print_program(void)
{
	puts("Usage: coco-pull [COMMAND] [OPERANDS] [options]\n"
	     "       coco-pull IMAGE             the same as coco-pull pull IMAGE\n"
	     "\n"
	     "Pulls, verifies, decrypts and unpacks container images in a fixed amount of memory.\n"
	     "IMAGE is HOST[:PORT]/REPO[:TAG][@DIGEST] or oci:DIR[:REF]. Options may stand anywhere;\n"
	     "-- ends them.\n"
	     "\nCommands:");
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		printf("  %-9s%-12s%s\n", command_table[i].name, command_table[i].operands, command_table[i].summary);
	puts("\nOptions ('coco-pull help COMMAND' shows those of one command):");
	print_options(~0u);
	print_environment();
	puts("\nExit status: 0 success, 1 other, 2 usage, 3 network, 4 credentials, 5 digest, 6 key,\n"
	     "7 policy, 8 image, 9 storage, 10 not found, 124 deadline, 130 cancelled.");
}

int help_print(const char *command, struct cpull_error *err)
{
	if (!command) {
		print_program();
		return CPULL_OK;
	}
	int found = command_find(command);
	if (found < 0)
		return output_error(err, CPULL_ERR_USAGE, "there is no command '%.100s'; 'coco-pull help' lists all",
				    command);
	print_command(&command_table[found]);
	return CPULL_OK;
}
