/* SPDX-License-Identifier: Apache-2.0
 *
 * A blob's parts. The puller's thread opens, reads and closes a stream; everything else runs on the fetch thread, and
 * whatever starts, ends or frees an exchange runs in on_work(), a task of its own, never within a call of an exchange.
 *
 * The first request asks for all of the blob. When pace.c wants more connections, that transfer is given an end, and
 * what is behind it is asked for in ranges; it goes on to the end of the blob after all if the first range does not
 * come. Parts are of whole chunks. The first one of the list, the head, has the bytes that are next in order and pushes
 * its chunks as they fill; the others keep theirs until they are the head.
 *
 * Nothing can lock up, although all parts use one share, because only the head ever waits for a chunk: every other part
 * has all its chunks before it is asked for, and parts get chunks strictly in order, so that those behind a head that
 * lacks one have none.
 */
#include "fetch/stream.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "engine/base/error.h"
#include "fetch/pace.h"

/* Chunks of a share that are left to the stage behind, which works on one and has the next one ready. */
#define CHUNKS_FOR_READER 2u

struct part {
	struct stream *stream;
	struct part *next;
	struct exchange *exchange; /* NULL: not asked for yet */
	uint64_t pos;              /* the next byte that comes */
	uint64_t end;
	bool open;                 /* takes chunks as it goes; the last of the list, and the head */
	bool cut;                  /* its exchange goes on behind `end` */
	bool extra;                /* counted as an extra connection */
	bool answered;
	uint64_t waiting_ns;       /* since when its transfer is paused for want of a chunk, 0: it is not */
	bool at_end;               /* its transfer is paused because of `end` */
	struct chunk *filling;
	struct chunk *spare;
	size_t spare_count;
	struct chunk *full;        /* in order; they wait for their turn */
	struct chunk **full_tail;
};

struct stream {
	struct endpoint *endpoint;
	struct exchange_goal goal;
	struct pool_share *share;
	struct loop_task start, work, close;
	struct loop_timer tick, answer;

	/* the fetch thread's */
	struct part *parts;
	uint64_t next;           /* the first byte that belongs to no part */
	struct pace pace;
	bool refused, refused_for_good;
	bool waited;             /* since the last tick */
	uint64_t tick_ns, tick_cpu_ns, tick_bytes, tick_all_bytes;
	bool over;
	const char *place;       /* as in struct exchange: what the last head learned */
	size_t place_next;
	bool unranged;

	/* for other threads */
	struct queue queue;
	struct cpull_error err;  /* before the queue is closed */
	atomic_uint_fast64_t in_order, arrived, busy_ns, paused_ns, begun_ns, ended_ns;
	atomic_uint connections;
	pthread_mutex_t lock;    /* closed */
	pthread_cond_t cond;
	bool closed;
};

static struct loop *loop_of(const struct stream *s)
{
	return transfers_loop(s->endpoint->transfers);
}

static void add(atomic_uint_fast64_t *sum, uint64_t n)
{
	atomic_fetch_add_explicit(sum, n, memory_order_relaxed);
}

static void want_work(struct stream *s)
{
	loop_post(loop_of(s), &s->work);
}

/* ---- a part ---- */

static bool is_head(const struct part *part)
{
	return part->stream->parts == part;
}

static bool is_complete(const struct part *part)
{
	return part->pos == part->end;
}

static void put_list(struct chunk *chunk)
{
	while (chunk) {
		struct chunk *next = chunk->next;

		chunk_put(chunk);
		chunk = next;
	}
}

static void give_extra_back(struct part *part)
{
	if (part->extra)
		transfers_give_extra(part->stream->endpoint->transfers);
	part->extra = false;
}

static void part_free(struct part *part)
{
	exchange_drop(part->exchange);
	give_extra_back(part);
	chunk_put(part->filling);
	put_list(part->spare);
	put_list(part->full);
	free(part);
}

/* Chunks that the rest of it will need beyond those it has. */
static size_t chunks_lacking(const struct part *part)
{
	size_t room = pool_share_chunk_bytes(part->stream->share);
	uint64_t have = part->spare_count * room + (part->filling ? room - part->filling->len : 0);
	uint64_t need = part->end - part->pos;

	return need > have ? (size_t)((need - have + room - 1) / room) : 0;
}

static struct chunk *next_chunk(struct part *part)
{
	struct chunk *chunk = part->spare;

	if (!chunk)
		return is_head(part) ? pool_try_get(part->stream->share) : NULL;
	part->spare = chunk->next;
	part->spare_count--;
	chunk->next = NULL;
	return chunk;
}

static void put_full(struct part *part)
{
	struct chunk *chunk = STEAL(part->filling);

	if (is_head(part)) {
		queue_push(&part->stream->queue, chunk);
		return;
	}
	chunk->next = NULL;
	*part->full_tail = chunk;
	part->full_tail = &chunk->next;
}

/* ---- called by a part's exchange ---- */

static enum transfer_verdict fill(struct part *part, const uint8_t *data, size_t len, size_t *taken)
{
	size_t room = pool_share_chunk_bytes(part->stream->share);

	while (*taken < len) {
		if (!part->filling)
			part->filling = next_chunk(part);
		if (!part->filling)
			return TRANSFER_PAUSE; /* the share wakes us */

		size_t n = MIN(len - *taken, room - part->filling->len);

		memcpy(part->filling->data + part->filling->len, data + *taken, n);
		part->filling->len += (uint32_t)n;
		part->pos += n;
		*taken += n;
		if (part->filling->len == room || is_complete(part))
			put_full(part);
	}
	return TRANSFER_GO_ON;
}

static enum transfer_verdict on_content(void *payload, const uint8_t *data, size_t len, size_t *taken)
{
	struct part *part = payload;
	struct stream *s = part->stream;
	uint64_t since = now_ns(), now;
	size_t mine = (size_t)MIN((uint64_t)len, part->end - part->pos);
	enum transfer_verdict verdict = fill(part, data, mine, taken);

	now = now_ns();
	add(&s->busy_ns, now - since);
	add(&s->arrived, *taken);
	if (is_head(part))
		add(&s->in_order, *taken);
	if (!part->answered) {
		part->answered = true;
		want_work(s);
	}
	if (verdict == TRANSFER_PAUSE) {
		assert(is_head(part));
		part->waiting_ns = now;
		s->waited = true;
	} else if (part->cut && is_complete(part)) {
		want_work(s);
		part->at_end = mine < len;
		return part->at_end ? TRANSFER_PAUSE : TRANSFER_GO_ON;
	}
	return verdict;
}

static bool on_setback(void *payload)
{
	return is_head(payload);
}

static void on_ended(void *payload)
{
	struct part *part = payload;
	struct stream *s = part->stream;

	if (part->exchange->err.code && !is_head(part) && !is_complete(part)) {
		s->refused = true;
		s->refused_for_good = s->refused_for_good || part->exchange->unranged;
	}
	want_work(s);
}

/* ---- the end ---- */

static void end_stream(struct stream *s, const struct cpull_error *err)
{
	s->over = true;
	loop_timer_clear(loop_of(s), &s->tick);
	loop_timer_clear(loop_of(s), &s->answer);
	loop_forget(loop_of(s), &s->start);
	loop_forget(loop_of(s), &s->work);
	while (s->parts) {
		struct part *part = s->parts;

		s->parts = part->next;
		part_free(part);
	}
	if (err)
		s->err = *err;
	atomic_store_explicit(&s->ended_ns, now_ns(), memory_order_relaxed);
	queue_close(&s->queue, s->err.code);
}

static void end_without_memory(struct stream *s)
{
	struct cpull_error err = {0};

	error_nomem(&err);
	end_stream(s, &err);
}

/* ---- parts come and go ---- */

/* Asks for it. */
static int part_begin(struct part *part)
{
	struct stream *s = part->stream;
	struct exchange *x;
	int rc = exchange_new(s->endpoint, &s->goal, &x, NULL);

	if (rc)
		return rc;
	x->first = part->pos;
	x->end = part->end;
	x->sink = (struct exchange_sink){
		.take = on_content, .wants_retry = on_setback, .ended = on_ended, .payload = part};
	x->ranges_only = !is_head(part);
	x->place = s->place ? s->place : s->goal.url;
	x->place_next = s->place_next;
	x->unranged = s->unranged;
	part->exchange = x;
	exchange_begin(x);
	return 0;
}

/* The next `len` bytes that belong to nobody yet. NULL: no memory. */
static struct part *add_part(struct stream *s, uint64_t len)
{
	struct part *part = calloc(1, sizeof(*part)), **at = &s->parts;

	if (!part)
		return NULL;
	part->stream = s;
	part->pos = s->next;
	part->end = s->next += MIN(len, s->goal.size - s->next);
	part->full_tail = &part->full;
	while (*at)
		at = &(*at)->next;
	*at = part;
	return part;
}

/* Everything from `part` on belongs to nobody again. */
static void drop_from(struct stream *s, struct part **at)
{
	struct part *part = *at;

	*at = NULL;
	while (part) {
		struct part *next = part->next;

		part_free(part);
		part = next;
	}
	s->next = 0;
	for (part = s->parts; part; part = part->next)
		s->next = part->end;
}

/* The head goes on to the end of the blob, as it was asked to. */
static void uncut(struct stream *s, struct part *head)
{
	head->cut = false;
	head->open = true;
	head->end = s->next = s->goal.size;
	loop_timer_clear(loop_of(s), &s->answer);
	if (head->at_end) {
		head->at_end = false;
		exchange_resume(head->exchange);
	}
	want_work(s); /* it may have failed meanwhile, which was of no interest */
}

/* One connection has to do: what is complete behind the head is kept, what is not is left to it. */
static void keep_one(struct stream *s)
{
	struct part *head = s->parts, **at;

	if (!head)
		return;
	at = &head->next;
	while (*at && is_complete(*at))
		at = &(*at)->next;
	drop_from(s, at);
	if (head->cut && !head->next)
		uncut(s, head);
}

static void take_refusal(struct stream *s)
{
	struct endpoint *e = s->endpoint;

	log_debug(e->log, "%s of %s/%s: a further connection was refused, going on with one", s->goal.what, e->domain,
		  e->path);
	e->no_ranges = e->no_ranges || s->refused_for_good;
	pace_refused(&s->pace, s->refused_for_good);
	s->refused = false;
	keep_one(s);
}

/* The first range's first byte did not come in time. */
static void on_no_answer(void *payload)
{
	struct stream *s = payload;
	const struct part *heir = s->parts->next;

	s->refused = true;
	/* it may be us who did not ask, since the host wants to be left alone for a while */
	s->refused_for_good = heir && heir->exchange && heir->exchange->transfer;
	want_work(s);
}

/* May the cut head end, since somebody else has what follows? */
static bool has_heir(struct stream *s, struct part *head)
{
	struct part *heir = head->next;

	if (heir && heir->answered)
		return true;
	if (heir && heir->exchange) {
		if (!s->answer.armed)
			loop_timer_set(loop_of(s), &s->answer, now_ms() + STREAM_ANSWER_MS);
		return false;
	}
	/* there was no chunk for it: it is not the network that is short */
	pace_give_back(&s->pace);
	keep_one(s);
	return false;
}

/* The head is done; its successor hands over what it has. */
static int next_head(struct stream *s)
{
	struct part *done = s->parts, *head = done->next;

	s->place = done->exchange->place;
	s->place_next = done->exchange->place_next;
	s->unranged = done->exchange->unranged;
	loop_timer_clear(loop_of(s), &s->answer);
	s->parts = head;
	part_free(done);
	if (!head)
		return 0;
	give_extra_back(head);
	while (head->full) {
		struct chunk *chunk = head->full;

		head->full = chunk->next;
		add(&s->in_order, chunk->len);
		queue_push(&s->queue, chunk);
	}
	head->full_tail = &head->full;
	if (head->filling)
		add(&s->in_order, head->filling->len);
	if (!head->exchange)
		return part_begin(head);
	head->exchange->ranges_only = false;
	return 0;
}

/* True when there is a new head, and more may be done at once. */
static bool advance(struct stream *s)
{
	struct part *head = s->parts;
	struct exchange *x = head ? head->exchange : NULL;

	if (!x)
		return false;
	if (x->finished && x->err.code && !(head->cut && is_complete(head))) {
		struct cpull_error err = x->err;

		end_stream(s, &err);
		return false;
	}
	if (!is_complete(head) || !(head->cut ? has_heir(s, head) : x->finished))
		return false;
	if (next_head(s)) {
		end_without_memory(s);
		return false;
	}
	return true;
}

/* ---- more of them ---- */

static size_t share_chunks(const struct stream *s)
{
	size_t max = pool_share_max(s->share);

	return max > CHUNKS_FOR_READER ? max - CHUNKS_FOR_READER : 0;
}

/* So that one more part than there are connections finds room. */
static uint64_t part_bytes(const struct stream *s)
{
	size_t room = pool_share_chunk_bytes(s->share);
	size_t chunks = share_chunks(s) / (s->pace.connections + 1);

	return (uint64_t)MAX(MIN(chunks, (size_t)(STREAM_PART_BYTES / room)), (size_t)1) * room;
}

/* Gives an end to a head that goes on to the end of the blob. */
static void cut_head(struct stream *s)
{
	struct part *head = s->parts;
	size_t room = pool_share_chunk_bytes(s->share);
	uint64_t end = (head->pos + room - 1) / room * room + part_bytes(s);

	if (end + s->endpoint->ranges_bytes > s->goal.size) {
		pace_give_back(&s->pace);
		return;
	}
	head->end = s->next = end;
	head->open = false;
	head->cut = true;
}

/* In order; true when every part has all that it needs. Asks for those that have. */
static bool provide(struct stream *s)
{
	for (struct part *part = s->parts; part; part = part->next) {
		while (!part->open && chunks_lacking(part)) {
			struct chunk *chunk = pool_try_get(s->share);

			if (!chunk)
				return false;
			chunk->next = part->spare;
			part->spare = chunk;
			part->spare_count++;
		}
		if (!part->exchange && part_begin(part)) {
			s->refused = true;
			want_work(s);
			return false;
		}
	}
	return true;
}

static void resume_head(struct part *head)
{
	struct stream *s = head->stream;

	if (!head->waiting_ns)
		return;
	if (!head->filling)
		head->filling = next_chunk(head);
	if (!head->filling)
		return;
	add(&s->paused_ns, now_ns() - head->waiting_ns);
	head->waiting_ns = 0;
	exchange_resume(head->exchange);
}

/* Parts that have a connection or will need one. */
static unsigned at_work(const struct stream *s)
{
	unsigned n = 0;

	for (const struct part *part = s->parts; part; part = part->next)
		n += !part->exchange || !part->exchange->finished;
	return n;
}

static void note_connections(struct stream *s)
{
	unsigned n = 0;

	for (const struct part *part = s->parts; part; part = part->next)
		n += part->exchange && !part->exchange->finished;
	if (n > atomic_load_explicit(&s->connections, memory_order_relaxed))
		atomic_store_explicit(&s->connections, n, memory_order_relaxed);
}

/* Returns false when there is no memory for what has to be. */
static bool ask_for_more(struct stream *s)
{
	if (!s->parts) {
		bool all = s->pace.connections == 1;
		struct part *head = add_part(s, all ? s->goal.size : part_bytes(s));

		if (!head)
			return false;
		head->open = all;
		if (part_begin(head))
			return false;
	}
	if (s->pace.connections > 1 && s->parts->open)
		cut_head(s);
	while (provide(s) && s->pace.connections > 1 && s->next < s->goal.size &&
	       at_work(s) < s->pace.connections && transfers_take_extra(s->endpoint->transfers)) {
		struct part *part = add_part(s, part_bytes(s));

		if (!part) {
			transfers_give_extra(s->endpoint->transfers);
			break;
		}
		part->extra = true;
	}
	return true;
}

static void on_work(void *payload)
{
	struct stream *s = payload;

	if (s->over)
		return;
	if (s->refused)
		take_refusal(s);
	while (advance(s))
		;
	if (s->over)
		return;
	if (!s->parts && s->next == s->goal.size) {
		end_stream(s, NULL);
		return;
	}
	if (!ask_for_more(s)) {
		end_without_memory(s);
		return;
	}
	for (struct part *part = s->parts; part; part = part->next)
		if (part->exchange && part->exchange->finished)
			give_extra_back(part);
	note_connections(s);
	resume_head(s->parts);
}

/* ---- measuring ---- */

static uint64_t thread_cpu_ns(void)
{
	struct timespec t = {0};

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void take_marks(struct stream *s)
{
	s->tick_ns = now_ns();
	s->tick_cpu_ns = thread_cpu_ns();
	s->tick_bytes = atomic_load_explicit(&s->arrived, memory_order_relaxed);
	s->tick_all_bytes = transfers_received(s->endpoint->transfers);
	s->waited = s->parts && s->parts->waiting_ns;
}

static void on_tick(void *payload)
{
	struct stream *s = payload;
	uint64_t ns = now_ns() - s->tick_ns;
	unsigned before = s->pace.connections;
	struct pace_sample sample = {
		.bytes = atomic_load_explicit(&s->arrived, memory_order_relaxed) - s->tick_bytes,
		.all_bytes = transfers_received(s->endpoint->transfers) - s->tick_all_bytes,
		.ns = ns,
		.waited = s->waited || thread_cpu_ns() - s->tick_cpu_ns > ns / 2,
		.settling = s->parts && s->parts->cut,
	};

	if (s->endpoint->no_ranges && s->pace.connections == 1)
		pace_refused(&s->pace, true);
	pace_tick(&s->pace, &sample);
	if (s->pace.connections != before) {
		log_debug(s->endpoint->log, "%s of %s/%s: %u connections instead of %u, at %" PRIu64 " KiB/s",
			  s->goal.what, s->endpoint->domain, s->endpoint->path, s->pace.connections, before,
			  sample.ns ? sample.bytes * 1000000 / sample.ns * 1000 / 1024 : 0);
		want_work(s);
	}
	take_marks(s);
	if (!pace_is_settled(&s->pace))
		loop_timer_set(loop_of(s), &s->tick, now_ms() + s->endpoint->pace_ms);
}

/* ---- hand-over ---- */

static void on_start(void *payload)
{
	struct stream *s = payload;
	size_t chunks = share_chunks(s);
	unsigned max = s->endpoint->no_ranges ? 1 : s->endpoint->connections;

	/* a chunk for each, and one to go on with */
	pace_init(&s->pace, (unsigned)MIN((size_t)max, chunks > 1 ? chunks - 1 : 1));
	atomic_store_explicit(&s->begun_ns, now_ns(), memory_order_relaxed);
	if (!ask_for_more(s)) {
		end_without_memory(s);
		return;
	}
	note_connections(s);
	take_marks(s);
	if (!pace_is_settled(&s->pace) && s->goal.size > s->endpoint->ranges_bytes)
		loop_timer_set(loop_of(s), &s->tick, now_ms() + s->endpoint->pace_ms);
}

/* By the pool, on whatever thread gave a chunk back and under the pool's lock. */
static void wake_for_room(void *payload)
{
	want_work(payload);
}

static void on_close(void *payload)
{
	struct stream *s = payload;
	struct cpull_error err = {0};

	if (!s->over) {
		error_set(&err, CPULL_ERR_CANCELLED, "closed");
		end_stream(s, &err);
	}
	loop_forget(loop_of(s), &s->work);
	pthread_mutex_lock(&s->lock);
	s->closed = true;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

/* ---- called by the puller ---- */

int stream_open(struct endpoint *endpoint, struct exchange_goal *goal, struct pool_share *share, struct stream **out,
		struct cpull_error *err)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (!s) {
		exchange_goal_free(goal);
		return error_nomem(err);
	}
	s->endpoint = endpoint;
	s->goal = *goal;
	*goal = (struct exchange_goal){0};
	s->share = share;
	s->start = (struct loop_task){.run = on_start, .payload = s};
	s->work = (struct loop_task){.run = on_work, .payload = s};
	s->close = (struct loop_task){.run = on_close, .payload = s};
	s->tick = (struct loop_timer){.run = on_tick, .payload = s};
	s->answer = (struct loop_timer){.run = on_no_answer, .payload = s};
	queue_init(&s->queue);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	pool_share_set_wake(share, wake_for_room, s);
	loop_post(loop_of(s), &s->start);
	*out = s;
	return 0;
}

int stream_read(struct stream *s, struct chunk **out, uint64_t *wait_ns, struct cpull_error *err)
{
	int rc = queue_pop(&s->queue, out, wait_ns);

	if (rc && err)
		*err = s->err;
	return rc;
}

uint64_t stream_received(const struct stream *s)
{
	return atomic_load_explicit(&s->in_order, memory_order_relaxed);
}

void stream_stats(const struct stream *s, struct cpull_stage_stats *out, unsigned *connections)
{
	uint64_t begun = atomic_load_explicit(&s->begun_ns, memory_order_relaxed);
	uint64_t ended = atomic_load_explicit(&s->ended_ns, memory_order_relaxed);
	uint64_t life = begun ? (ended ? ended : now_ns()) - begun : 0, used;

	out->bytes = atomic_load_explicit(&s->arrived, memory_order_relaxed);
	out->busy_ns = atomic_load_explicit(&s->busy_ns, memory_order_relaxed);
	out->wait_output_ns = atomic_load_explicit(&s->paused_ns, memory_order_relaxed);
	used = out->busy_ns + out->wait_output_ns;
	out->wait_input_ns = life > used ? life - used : 0;
	*connections = atomic_load_explicit(&s->connections, memory_order_relaxed);
}

void stream_close(struct stream *s)
{
	/* no new wake from here on; one that was posted is taken back by on_close() */
	pool_share_set_wake(s->share, NULL, NULL);
	loop_post(loop_of(s), &s->close);
	pthread_mutex_lock(&s->lock);
	while (!s->closed)
		pthread_cond_wait(&s->cond, &s->lock);
	pthread_mutex_unlock(&s->lock);
	exchange_goal_free(&s->goal);
	queue_destroy(&s->queue);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->cond);
	free(s);
}
