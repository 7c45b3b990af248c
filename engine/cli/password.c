/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads the password that --creds left out. Main thread, before the pull starts. The handlers of interrupt.c make
 * read() return, so echo is switched on again on every way out; only a second signal kills, as everywhere. The password
 * lies in locked-out-of-dumps memory (main() forbids dumps) and is wiped as soon as it is copied.
 */
#include "engine/cli/password.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "engine/cli/interrupt.h"
#include "engine/cli/output.h"

#define PASSWORD_BYTES 4096

/* Reads up to a newline or the end into out, NUL-terminated; the length, or -1 with errno. */
static ssize_t read_line(char *out, size_t out_bytes)
{
	size_t len = 0;

	for (;;) {
		char c;
		ssize_t got = read(STDIN_FILENO, &c, 1);

		if (got < 0)
			return -1;
		if (!got || c == '\n')
			break;
		if (len + 1 == out_bytes) {
			errno = E2BIG;
			return -1;
		}
		out[len++] = c;
	}
	out[len] = 0;
	return (ssize_t)len;
}

static int read_password(const char *user, char *out, size_t out_bytes, struct cpull_error *err)
{
	struct termios old;

	if (tcgetattr(STDIN_FILENO, &old))
		return output_error(err, CPULL_ERR_USAGE,
				    "--creds has no password and standard input is no terminal to ask on; "
				    "write USER:PASS, set COCO_PULL_CREDS or use --authfile");
	struct termios quiet = old;
	quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
	quiet.c_lflag |= ICANON | ISIG;

	fputs("Password for ", stderr);
	output_clean(stderr, user);
	fputs(": ", stderr);
	fflush(stderr);
	if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet))
		return output_error(err, CPULL_ERR_INTERNAL, "switching the terminal's echo off: %s", strerror(errno));
	ssize_t len = read_line(out, out_bytes);
	int num = errno;
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
	fputc('\n', stderr);

	if (len < 0 && num == EINTR && interrupt_seen())
		return output_error(err, CPULL_ERR_CANCELLED, "cancelled while asking for the password");
	if (len < 0)
		return output_error(err, CPULL_ERR_USAGE, "reading the password: %s", strerror(num));
	if (!len)
		return output_error(err, CPULL_ERR_USAGE, "no password was given");
	return CPULL_OK;
}

int password_complete(char **creds, struct cpull_error *err)
{
	if (strchr(*creds, ':'))
		return CPULL_OK;

	char password[PASSWORD_BYTES];
	int code = read_password(*creds, password, sizeof(password), err);
	char *joined = NULL;
	if (!code && asprintf(&joined, "%s:%s", *creds, password) < 0)
		code = output_error(err, CPULL_ERR_NOMEM, "out of memory");
	explicit_bzero(password, sizeof(password));
	if (code)
		return code;
	free(*creds);
	*creds = joined;
	return CPULL_OK;
}
