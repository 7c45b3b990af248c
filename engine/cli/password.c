/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads the password that --creds left out. Main thread, before the pull starts. The handlers of interrupt.c end
 * the wait, so echo is switched on again on every way out. The password is wiped as soon as it is copied; main() has
 * forbidden dumps.
 */
#include "engine/cli/password.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "engine/cli/interrupt.h"
#include "engine/cli/output.h"

#define PASSWORD_BYTES 4096

/* Waits for input with the signals of `open_mask` let in; a signal that came earlier counts as well. */
static int wait_input(const sigset_t *open_mask)
{
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

	for (;;) {
		if (interrupt_seen()) {
			errno = EINTR;
			return -1;
		}
		if (ppoll(&input, 1, NULL, open_mask) >= 0)
			return 0;
		if (errno != EINTR)
			return -1;
	}
}

/* Reads up to a newline or the end into out, NUL-terminated; the length, or -1 with errno. */
static ssize_t read_line(char *out, size_t out_bytes, const sigset_t *open_mask)
{
	size_t len = 0;

	for (;;) {
		char c;

		if (wait_input(open_mask))
			return -1;
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

/* Echo is off before the prompt invites to type, and signals are held except while waiting, so that none falls between
 * a look at the flag and the wait. */
static ssize_t ask(const struct termios *quiet, const struct termios *old, const char *user, char *out,
		   size_t out_bytes)
{
	sigset_t held, open_mask;

	sigemptyset(&held);
	sigaddset(&held, SIGINT);
	sigaddset(&held, SIGTERM);
	sigprocmask(SIG_BLOCK, &held, &open_mask);
	ssize_t len = -1;
	if (!tcsetattr(STDIN_FILENO, TCSAFLUSH, quiet)) {
		fputs("Password for ", stderr);
		output_clean(stderr, user);
		fputs(": ", stderr);
		fflush(stderr);
		len = read_line(out, out_bytes, &open_mask);
	}
	int num = errno;
	tcsetattr(STDIN_FILENO, TCSAFLUSH, old);
	fputc('\n', stderr);
	sigprocmask(SIG_SETMASK, &open_mask, NULL);
	errno = num;
	return len;
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

	ssize_t len = ask(&quiet, &old, user, out, out_bytes);
	if (len < 0 && errno == EINTR)
		return output_error(err, CPULL_ERR_CANCELLED, "cancelled while asking for the password");
	if (len < 0)
		return output_error(err, CPULL_ERR_USAGE, "reading the password: %s", strerror(errno));
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
