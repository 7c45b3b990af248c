/* SPDX-License-Identifier: Apache-2.0
 *
 * The program's signal handlers. They run on the main thread, as the library blocks all signals in its own, and only
 * count: cpull_pull_cancel() takes locks, so the main loop calls it. The one global of the program, as a handler has
 * no other way to say something.
 */
#include "engine/cli/interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t seen;

static void on_signal(int number)
{
	if (!seen) {
		seen = 1;
		return;
	}
	/* Pending until this handler returns; the parent then sees the death by signal that it asked for. */
	signal(number, SIG_DFL);
	raise(number);
}

static void install(int number)
{
	struct sigaction old;

	if (sigaction(number, NULL, &old) || old.sa_handler == SIG_IGN)
		return;
	/* Without SA_RESTART, so that a write to a stuck terminal ends too. */
	struct sigaction action = {.sa_handler = on_signal};
	sigemptyset(&action.sa_mask);
	sigaction(number, &action, NULL);
}

void interrupt_install(void)
{
	install(SIGINT);
	install(SIGTERM);
}

bool interrupt_seen(void)
{
	return seen;
}
