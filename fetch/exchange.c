/* SPDX-License-Identifier: Apache-2.0
 *
 * The state machine of one exchange. registry.c makes, starts, waits for and closes those of documents on the puller's
 * threads; all else here runs on the fetch thread, called by stream.c, transfer.c, token.c and the loop's timers, so it
 * needs no locks but for the hand-over at the end.
 *
 * An attempt is: wait if the registry asked for it, get a token if it wants one, send, take the answer. It always
 * goes to the registry's URL, never to where a redirect led before: signed storage URLs expire. Attempts in a row
 * that bring no new byte are counted and bounded; silence, not the total, is what times out.
 */
#include "fetch/exchange.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "engine/base/error.h"
#include "fetch/error_body.h"
#include "fetch/exchange_steps.h"
#include "fetch/retry.h"

static struct loop *loop_of(const struct exchange *x)
{
	return transfers_loop(x->endpoint->transfers);
}

bool exchange_is_foreign(const struct exchange *x)
{
	return x->place != x->goal->url;
}

/* The next byte of the goal that is wanted. */
static uint64_t position(const struct exchange *x)
{
	return x->first + x->got;
}

/* ---- the end ---- */

/* Takes it off everything that could call it again. */
static void detach(struct exchange *x)
{
	struct loop *loop = loop_of(x);

	transfer_stop(STEAL(x->transfer));
	token_leave(&x->wait);
	loop_timer_clear(loop, &x->deadline);
	loop_timer_clear(loop, &x->again);
	loop_forget(loop, &x->start);
}

/* x->err is the reason, or all zero. */
void exchange_finish(struct exchange *x)
{
	assert(!x->finished);
	x->finished = true;
	detach(x);
	if (x->sink.take) {
		x->sink.ended(x->sink.payload);
		return;
	}
	pthread_mutex_lock(&x->lock);
	x->done = true;
	pthread_cond_broadcast(&x->cond);
	pthread_mutex_unlock(&x->lock);
}

void exchange_finish_with(struct exchange *x, int code, const char *why)
{
	error_set(&x->err, code, "%s of %s/%s: %s", x->goal->what, x->endpoint->domain, x->endpoint->path, why);
	exchange_finish(x);
}

/* ---- attempts that failed ---- */

static uint32_t next_random(struct exchange *x)
{
	x->random ^= x->random << 13;
	x->random ^= x->random >> 17;
	x->random ^= x->random << 5;
	return x->random;
}

void exchange_fail(struct exchange *x, int code, int status, const char *why)
{
	error_set(&x->err, code, "%s of %s/%s%s: %s", x->goal->what, x->endpoint->domain, x->endpoint->path,
		  exchange_is_foreign(x) ? " (from the image's own URL)" : "", why);
	x->err.http_status = status;
	exchange_finish(x);
}

/* Starts over after a while, or gives up. */
void exchange_set_back(struct exchange *x, const struct exchange_setback *s)
{
	struct endpoint *e = x->endpoint;
	bool brief = s->patience == RETRY_BRIEFLY, brought = x->attempt_bytes;
	uint32_t delay_ms, base_ms = s->why.http_status == 429 ? RETRY_DELAY_THROTTLED_MS
				     : brief			? RETRY_DELAY_BRIEF_MS
								: RETRY_DELAY_FIRST_MS;
	bool told = retry_after_parse(s->retry_after, time(NULL), &delay_ms);

	if (told) {
		delay_ms += next_random(x) % RETRY_SPREAD_MS;
		/* told to one, meant for all */
		hosts_hold(transfers_hosts(e->transfers), s->asker, now_ms() + delay_ms);
	}
	if (x->sink.take && !brought && !x->sink.wants_retry(x->sink.payload)) {
		exchange_fail(x, s->why.code, s->why.http_status, s->why.message);
		return;
	}
	if (brought) {
		x->failures = 0;
		base_ms = MIN(base_ms, RETRY_DELAY_PROGRESS_MS);
	}
	x->attempt_bytes = 0;
	if (++x->failures >= (brief ? MIN(e->retries, RETRY_BRIEF_ATTEMPTS) : e->retries)) {
		char text[CPULL_MESSAGE_BYTES];

		if (snprintf(text, sizeof(text), "%s (given up after %u attempts)", s->why.message, x->failures) < 0)
			text[0] = 0;
		exchange_fail(x, s->why.code, s->why.http_status, text);
		return;
	}
	if (!told)
		delay_ms = retry_delay_ms(x->failures, base_ms, next_random(x));
	log_debug(e->log, "%s of %s/%s: %s; again from byte %" PRIu64 " in %u ms", x->goal->what, e->domain, e->path,
		  s->why.message, position(x), delay_ms);
	loop_timer_set(loop_of(x), &x->again, now_ms() + delay_ms);
}

static void retry_reply(struct exchange *x, int code, const struct transfer_reply *reply, const char *why)
{
	struct exchange_setback s = {
		.patience = reply->code ? reply->retry : RETRY_LONG,
		.retry_after = reply->retry_after,
		.asker = x->place,
	};

	error_set(&s.why, code, "%s", why);
	s.why.http_status = reply->status;
	exchange_set_back(x, &s);
}

/* No whole answer came. */
static void no_answer(struct exchange *x, const struct transfer_reply *reply)
{
	if (reply->retry)
		retry_reply(x, reply->code, reply, reply->why);
	else
		exchange_fail(x, reply->code, reply->status, reply->why);
}

/* True when the host asked to be left alone, whoever it was that it told so: then again later, and not all at once. */
bool exchange_held_back(struct exchange *x, const char *url)
{
	uint64_t until = hosts_held_until(transfers_hosts(x->endpoint->transfers), url);

	if (until <= now_ms())
		return false;
	loop_timer_set(loop_of(x), &x->again, until + next_random(x) % RETRY_SPREAD_MS);
	return true;
}

/* ---- taking the content ---- */

static enum transfer_verdict refuse(struct exchange *x, int code, bool retry, const char *why)
{
	error_set(&x->refusal, code, "%s", why);
	x->refusal_retry = retry;
	return TRANSFER_STOP;
}

/* The range that was asked for or the beginning of it, of a blob as long as the descriptor says. */
static bool range_fits(const struct exchange *x, const char *field)
{
	struct content_range range;

	return x->ranged && content_range_parse(field, &range) && range.first == position(x) &&
	       range.last < x->end && (!range.total_known || range.total == x->goal->size);
}

/* The first bytes of an answer with the content: may they be used, and how many are known already? */
static enum transfer_verdict accept_content(struct exchange *x, const struct transfer_reply *reply)
{
	uint64_t rest = x->goal->size;

	x->accepted = true;
	x->token_own = x->scope_widened = false; /* whatever was sent is good: a later 401 means that it expired */
	x->auth_rounds = 0;
	memcpy(x->content_type, reply->content_type, sizeof(x->content_type));
	memcpy(x->content_digest, reply->content_digest, sizeof(x->content_digest));
	if (reply->status == 206) {
		if (!range_fits(x, reply->content_range)) {
			x->unranged = true;
			return refuse(x, CPULL_ERR_REGISTRY, true, "the server sent another range than was asked for");
		}
		rest = x->end - position(x);
	} else if (x->goal->sized) {
		if (x->ranges_only) {
			x->unranged = true;
			return refuse(x, CPULL_ERR_REGISTRY, true, "the server does not send ranges");
		}
		x->skip = position(x);
	} else {
		bytes_free(&x->body); /* documents of unknown length start over */
		x->got = 0;
	}
	if (x->goal->sized && reply->length > 0 && (uint64_t)reply->length > rest) {
		char why[120];

		snprintf(why, sizeof(why), "the server has more than the %" PRIu64 " bytes that the manifest says",
			 x->goal->size);
		return refuse(x, CPULL_ERR_SIZE, false, why);
	}
	if (!x->goal->sized && reply->length > 0 && (uint64_t)reply->length > x->goal->max)
		return refuse(x, CPULL_ERR_LIMIT, false, "longer than any manifest may be");
	return TRANSFER_GO_ON;
}

static enum transfer_verdict into_body(struct exchange *x, const uint8_t *data, size_t len, size_t *taken)
{
	int rc = bytes_append(&x->body, data, len, x->goal->max);
	char why[80];

	if (rc == CPULL_ERR_NOMEM)
		return refuse(x, rc, false, "out of memory");
	if (rc) {
		snprintf(why, sizeof(why), "longer than the %zu bytes that such a document may have", x->goal->max);
		return refuse(x, CPULL_ERR_LIMIT, false, why);
	}
	*taken = len;
	return TRANSFER_GO_ON;
}

static enum transfer_verdict take_content(struct exchange *x, const struct transfer_reply *reply, const uint8_t *data,
					  size_t len, size_t *taken)
{
	size_t known = (size_t)MIN(x->skip, (uint64_t)len), used = 0;
	bool beyond = x->goal->sized && len - known > x->end - position(x);
	enum transfer_verdict verdict;
	char why[120];

	x->skip -= known;
	data += known;
	len -= known;
	/* behind a range there may be the rest of the blob, when the server sends it whole */
	if (beyond && (reply->status == 206 || x->end == x->goal->size)) {
		snprintf(why, sizeof(why), "the server sends more than the %" PRIu64 " bytes that the manifest says",
			 x->goal->size);
		return refuse(x, CPULL_ERR_SIZE, false, why);
	}
	if (beyond)
		len = (size_t)(x->end - position(x));
	verdict = x->sink.take ? x->sink.take(x->sink.payload, data, len, &used) : into_body(x, data, len, &used);
	x->got += used;
	if (x->goal->sized) /* what has to be sent again next time is no progress */
		x->attempt_bytes += used;
	*taken = known + used;
	return beyond && verdict == TRANSFER_GO_ON ? TRANSFER_STOP : verdict;
}

static enum transfer_verdict on_body(void *payload, const struct transfer_reply *reply, const uint8_t *data,
				     size_t len, size_t *taken)
{
	struct exchange *x = payload;
	bool content = reply->status == 200 || (reply->status == 206 && x->goal->sized);

	if (!content || x->pinging) /* an error page: as much as is needed to quote from it */
		return bytes_append(&x->error_body, data, len, LIMIT_ERROR_BODY_BYTES) ? TRANSFER_STOP : TRANSFER_GO_ON;
	if (!x->accepted) {
		enum transfer_verdict verdict = accept_content(x, reply);

		if (verdict != TRANSFER_GO_ON)
			return verdict;
	}
	return take_content(x, reply, data, len, taken);
}

/* ---- judging the answer ---- */

static bool complete(const struct exchange *x)
{
	return x->goal->sized && position(x) == x->end;
}

/* Not there. */
static void next_place(struct exchange *x, int status)
{
	char said[320], why[400];

	if (x->place_next < x->goal->url_count) {
		const char *here = exchange_is_foreign(x) ? "the URL before" : "the registry";

		log_debug(x->endpoint->log, "%s of %s/%s: not at %s, trying the image's own URL", x->goal->what,
			  x->endpoint->domain, x->endpoint->path, here);
		x->place = x->goal->urls[x->place_next++];
		x->failures = 0;
		x->unranged = false;
		exchange_attempt(x);
		return;
	}
	error_body_text(&x->error_body, said, sizeof(said));
	snprintf(why, sizeof(why), "not found (%d)%s", status, said);
	exchange_fail(x, CPULL_ERR_NOT_FOUND, status, why);
}

static void judge_short(struct exchange *x, const struct transfer_reply *reply)
{
	char why[160];

	snprintf(why, sizeof(why), "the server ended after %" PRIu64 " of the %" PRIu64 " bytes that the manifest says",
		 position(x), x->goal->size);
	retry_reply(x, CPULL_ERR_SIZE, reply, why);
}

static void judge_status(struct exchange *x, const struct transfer_reply *reply)
{
	int status = reply->status;
	char said[320], why[400];

	error_body_text(&x->error_body, said, sizeof(said));
	snprintf(why, sizeof(why), "%s answered %d%s",
		 reply->elsewhere ? "the host it was redirected to" : "the registry", status, said);
	/* the image's own URLs are no registry and get no answer to a challenge */
	bool storage = reply->elsewhere || exchange_is_foreign(x);

	if (status == 401 && !storage)
		exchange_answer_challenge(x, reply);
	else if (status == 403 && !storage && x->sent == AUTH_BEARER && !x->scope_widened &&
		 exchange_offers_bearer(reply))
		exchange_answer_challenge(x, reply);
	else if ((status == 401 || status == 403) && !reply->elsewhere)
		exchange_refused(x, status);
	else if (status == 404 && !reply->elsewhere)
		next_place(x, status);
	else if (status == 416 && x->ranged) {
		x->unranged = true;
		retry_reply(x, CPULL_ERR_SIZE, reply,
			    "the server has no bytes there, the manifest says there are more");
	} else if (status == 408 || status == 429 || status >= 500 || (reply->elsewhere && status >= 400))
		/* a storage host refuses a signed URL that has expired: the registry signs another */
		retry_reply(x, status == 404 ? CPULL_ERR_NOT_FOUND : CPULL_ERR_REGISTRY, reply, why);
	else
		exchange_fail(x, CPULL_ERR_REGISTRY, status, why);
}

/* The ping's answer stands for the one that had no challenge. */
static void judge_ping(struct exchange *x, const struct transfer_reply *reply)
{
	x->pinging = false;
	if (reply->code && !reply->stopped) {
		x->pinged = false;
		no_answer(x, reply);
	} else if (reply->status == 401 && reply->challenge_count && !reply->elsewhere) {
		exchange_answer_challenge(x, reply);
	} else {
		exchange_refused(x, 401);
	}
}

static void on_done(void *payload, const struct transfer_reply *reply)
{
	struct exchange *x = payload;

	x->transfer = NULL;
	if (x->pinging) {
		judge_ping(x, reply);
	} else if (x->refusal.code) {
		if (x->refusal_retry)
			retry_reply(x, x->refusal.code, &(struct transfer_reply){.status = reply->status},
				    x->refusal.message);
		else
			exchange_fail(x, x->refusal.code, reply->status, x->refusal.message);
	} else if (complete(x) && x->accepted) {
		exchange_finish(x); /* also when the connection broke right behind the last byte */
	} else if (reply->code && !reply->stopped) {
		no_answer(x, reply);
	} else if (reply->status == 200 || (reply->status == 206 && x->goal->sized)) {
		if (!x->accepted && accept_content(x, reply) == TRANSFER_STOP)
			retry_reply(x, x->refusal.code, reply, x->refusal.message);
		else if (!x->goal->sized || complete(x))
			exchange_finish(x);
		else
			judge_short(x, reply);
	} else {
		judge_status(x, reply);
	}
}

/* ---- an attempt ---- */

static void begin_attempt(struct exchange *x)
{
	x->accepted = false;
	x->skip = 0;
	x->attempt_bytes = 0;
	x->refusal = (struct cpull_error){0};
	x->ranged = x->goal->sized && !x->unranged && !x->pinging && (position(x) > 0 || x->end < x->goal->size);
	bytes_free(&x->error_body);
}

static void send_request(struct exchange *x)
{
	struct endpoint *e = x->endpoint;
	CLEANUP_FREE char *ping = x->pinging ? format_string("%s/v2/", e->base) : NULL;
	struct transfer_request request = {
		.url = ping ? ping : x->place,
		.accept = x->goal->accept,
		.authorization = x->authorization,
		.ranged = x->ranged,
		.range_from = position(x),
		.range_end = x->end < x->goal->size ? x->end : 0,
		.buffer_bytes = !x->sink.take	       ? TRANSFER_SMALL_BUFFER_BYTES
				: x->end < x->goal->size ? TRANSFER_PART_BUFFER_BYTES
							 : TRANSFER_BULK_BUFFER_BYTES,
		.allow_http = e->plain_http || exchange_is_foreign(x),
		.tls = exchange_is_foreign(x) ? &e->foreign_tls : &e->tls,
		.connect_timeout_ms = e->connect_timeout_ms,
		.stall_timeout_ms = e->stall_timeout_ms,
		.body = on_body,
		.done = on_done,
		.payload = x,
	};

	if (transfer_start(e->transfers, &request, &x->transfer, &x->err))
		exchange_finish(x);
}

void exchange_attempt(struct exchange *x)
{
	if (exchange_held_back(x, x->place))
		return;
	begin_attempt(x);
	if (exchange_authorize(x))
		send_request(x);
}

/* ---- called by the loop ---- */

static void on_again(void *payload)
{
	exchange_attempt(payload);
}

static void on_deadline(void *payload)
{
	exchange_finish_with(payload, CPULL_ERR_DEADLINE, "the deadline passed");
}

void exchange_begin(struct exchange *x)
{
	struct endpoint *e = x->endpoint;

	x->next = e->exchanges;
	e->exchanges = x;
	if (atomic_load(&e->cancelled)) {
		exchange_finish_with(x, CPULL_ERR_CANCELLED, "cancelled");
		return;
	}
	if (e->deadline_ms)
		loop_timer_set(loop_of(x), &x->deadline, e->deadline_ms);
	exchange_attempt(x);
}

static void on_start(void *payload)
{
	exchange_begin(payload);
}

void exchange_resume(struct exchange *x)
{
	if (x->transfer)
		transfer_resume(x->transfer);
}

static void take_off_list(struct exchange *x)
{
	struct exchange **at = &x->endpoint->exchanges;

	while (*at && *at != x)
		at = &(*at)->next;
	if (*at)
		*at = x->next;
}

static void on_close(void *payload)
{
	struct exchange *x = payload;

	take_off_list(x);
	if (!x->finished)
		exchange_finish_with(x, CPULL_ERR_CANCELLED, "closed");
	pthread_mutex_lock(&x->lock);
	x->closed = true;
	pthread_cond_broadcast(&x->cond);
	pthread_mutex_unlock(&x->lock);
}

void endpoint_cancel(void *payload)
{
	struct endpoint *e = payload;

	for (struct exchange *x = e->exchanges; x; x = x->next)
		if (!x->finished)
			exchange_finish_with(x, CPULL_ERR_CANCELLED, "cancelled");
}

/* ---- life ---- */

void exchange_goal_free(struct exchange_goal *goal)
{
	for (size_t i = 0; i < goal->url_count; i++)
		free(goal->urls[i]);
	free(goal->what);
	free(goal->url);
	*goal = (struct exchange_goal){0};
}

int exchange_new(struct endpoint *endpoint, const struct exchange_goal *goal, struct exchange **out,
		 struct cpull_error *err)
{
	struct exchange *x = calloc(1, sizeof(*x));

	if (!x)
		return error_nomem(err);
	x->endpoint = endpoint;
	x->goal = goal;
	x->end = goal->size;
	x->place = goal->url;
	x->random = (uint32_t)now_ns() | 1;
	x->start = (struct loop_task){.run = on_start, .payload = x};
	x->close = (struct loop_task){.run = on_close, .payload = x};
	x->deadline = (struct loop_timer){.run = on_deadline, .payload = x};
	x->again = (struct loop_timer){.run = on_again, .payload = x};
	x->wait = (struct token_wait){.ready = exchange_on_token, .payload = x};
	pthread_mutex_init(&x->lock, NULL);
	pthread_cond_init(&x->cond, NULL);
	*out = x;
	return 0;
}

static void exchange_free(struct exchange *x)
{
	exchange_drop_authorization(x);
	bytes_free(&x->body);
	bytes_free(&x->error_body);
	pthread_mutex_destroy(&x->lock);
	pthread_cond_destroy(&x->cond);
	free(x);
}

void exchange_drop(struct exchange *x)
{
	if (!x)
		return;
	take_off_list(x);
	if (!x->finished)
		detach(x);
	exchange_free(x);
}

void exchange_start(struct exchange *x)
{
	loop_post(loop_of(x), &x->start);
}

int exchange_wait(struct exchange *x, struct cpull_error *err)
{
	pthread_mutex_lock(&x->lock);
	while (!x->done)
		pthread_cond_wait(&x->cond, &x->lock);
	pthread_mutex_unlock(&x->lock);
	if (x->err.code && err)
		*err = x->err;
	return x->err.code;
}

void exchange_close(struct exchange *x)
{
	loop_post(loop_of(x), &x->close);
	pthread_mutex_lock(&x->lock);
	while (!x->closed)
		pthread_cond_wait(&x->cond, &x->lock);
	pthread_mutex_unlock(&x->lock);
	exchange_free(x);
}
