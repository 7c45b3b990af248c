/* SPDX-License-Identifier: Apache-2.0
 *
 * Thread start. Called by whoever needs a stage to run beside itself; owns nothing.
 */
#include "engine/base/thread.h"

#include <errno.h>
#include <signal.h>

#include "engine/base/error.h"

/* Our frames are small; curl and OpenSSL want some more. */
#define THREAD_STACK_BYTES (512u << 10)

int thread_start(pthread_t *out, const char *name, void *(*run)(void *), void *payload, struct cpull_error *err)
{
	sigset_t all, before;
	pthread_attr_t attr;

	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
	/* a new thread inherits the mask, so it never runs with a signal open */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int num = pthread_create(out, &attr, run, payload);

	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	/* EAGAIN is what glibc makes of a stack or a TLS block that cannot be had, too */
	if (num)
		return error_sys(err, num == EAGAIN ? CPULL_ERR_NOMEM : CPULL_ERR_INTERNAL, num, "starting thread %s",
				 name);
	pthread_setname_np(*out, name);
	return 0;
}
