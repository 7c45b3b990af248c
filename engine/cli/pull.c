/* SPDX-License-Identifier: Apache-2.0
 *
 * The pull command. Runs on the main thread, which waits for the library in steps of a tenth of a second and between
 * them looks for signals and writes progress. Owns engine, pull and progress while it runs.
 */
#include "engine/cli/pull.h"

#include <stdio.h>
#include <string.h>

#include "engine/cli/interrupt.h"
#include "engine/cli/output.h"
#include "engine/cli/password.h"

#define TICK_MS 100

int pull_open_engine(const struct options *options, struct progress *progress, struct cpull_engine **out,
		     struct cpull_error *err)
{
	struct cpull_engine_options engine = {
		.size = sizeof(engine),
		.store = options->store,
		.memory_bytes = options->memory_bytes,
		.jobs = options->jobs,
		.io = (enum cpull_io)options->io,
		.durable = options->durable,
		.log_level = (enum cpull_log_level)options->log_level,
		.log = progress_on_log,
		.log_payload = progress,
	};

	return cpull_engine_new(&engine, out, err);
}

static int start(struct cpull_engine *engine, const struct options *options, struct progress *progress,
		 struct cpull_pull **out, struct cpull_error *err)
{
	struct cpull_pull_options pull = {
		.size = sizeof(pull),
		.image = options->operands[0],
		.platform = options->platform,
		.decryption_keys = (const char *const *)options->decryption_keys.items,
		.decryption_key_count = options->decryption_keys.count,
		.require_encrypted = options->require_encrypted,
		.plain_http = options->plain_http,
		.tls_no_verify = !options->tls_verify,
		.creds = options->creds,
		.authfile = options->authfile,
		.cert_dir = options->cert_dir,
		.timeout_ms = options->timeout_ms,
		.connections = options->connections,
		.snapshot = (enum cpull_snapshot)options->snapshot,
		.verity = options->verity,
		.progress = progress_on_layer,
		.progress_payload = progress,
	};

	return cpull_pull_start(engine, &pull, out, err);
}

static int wait_for(struct cpull_pull *pull, struct progress *progress, struct cpull_error *err)
{
	bool cancelled = false;

	for (;;) {
		int code = cpull_pull_wait(pull, TICK_MS, err);

		if (code <= 0)
			return code;
		if (interrupt_seen() && !cancelled) {
			cancelled = true;
			cpull_pull_cancel(pull);
		}
		progress_tick(progress);
	}
}

static int print_result(const struct cpull_result *result, const struct options *options, struct cpull_error *err)
{
	if (options->stats && options->format == FORMAT_TEXT)
		output_stats_text(&result->stats);
	if (options->format == FORMAT_JSON)
		return output_json(output_result_json(result, options->stats), false, err);
	puts(result->manifest_digest);
	return CPULL_OK;
}

int pull_run(struct options *options, struct cpull_error *err)
{
	struct cpull_engine *engine = NULL;
	struct cpull_pull *pull = NULL;

	interrupt_install();
	if (options->creds) {
		int code = password_complete(&options->creds, err);
		if (code)
			return code;
	}
	struct progress *progress =
		progress_new((enum progress_choice)options->progress, options->log_level >= CPULL_LOG_INFO);
	if (!progress)
		return output_error(err, CPULL_ERR_NOMEM, "out of memory");

	int code = pull_open_engine(options, progress, &engine, err);
	if (!code)
		code = start(engine, options, progress, &pull, err);
	if (!code)
		code = wait_for(pull, progress, err);
	const struct cpull_result *result = code ? NULL : cpull_pull_result(pull);
	if (!code && !result)
		code = output_error(err, CPULL_ERR_INTERNAL, "the library said success and gave no result");
	progress_finish(progress, result);
	if (result)
		code = print_result(result, options, err);
	cpull_pull_free(pull);
	cpull_engine_free(engine);
	progress_free(progress);
	return code;
}
