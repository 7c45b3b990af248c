/* SPDX-License-Identifier: Apache-2.0
 *
 * The coco-pull program: prepares the process, reads the options, runs the command, and turns how it ended into an exit
 * status, which is the number of the error's class.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/cli/commands.h"
#include "engine/cli/options.h"
#include "engine/cli/output.h"

/* A descriptor 0, 1 or 2 that the caller closed would be given to the next file or socket, and text written into it.
 * A closed standard output stays one that cannot be written, so that a lost result is noticed. */
static void fill_standard_descriptors(void)
{
	static const int modes[] = {O_RDWR, O_RDONLY, O_RDWR};

	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd)
			_exit(CPULL_CLASS_OTHER);
}

/* Keys and tokens lie in memory: no core dump of it, and no other process of the user attaches. */
static void forbid_dumps(void)
{
	struct rlimit none = {0, 0};

	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	setrlimit(RLIMIT_CORE, &none);
}

/* A pull holds a descriptor for each layer, and the usual soft limit of 1024 is meant for programs that use
 * select(). */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	struct options options;
	struct cpull_error err = {0};

	fill_standard_descriptors();
	forbid_dumps();
	raise_descriptor_limit();
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stderr, NULL, _IOLBF, BUFSIZ);

	int code = options_parse(argc, argv, &options, &err);
	if (!code)
		code = command_run(&options, &err);
	if (code) {
		err.code = code;
		output_failure(&err, options.format == FORMAT_JSON && !options.reported);
	}
	struct cpull_error close_err = {0};
	int close_code = output_close(&close_err);
	if (close_code && !code) {
		code = close_code;
		output_failure(&close_err, false);
	}
	options_free(&options);
	return (int)cpull_code_class(code);
}
