/* SPDX-License-Identifier: Apache-2.0
 *
 * io_uring and its fallback. One thread owns a ring: the fetch thread (polls, time-outs, wake-ups) or a layer's write
 * stage (bulk writes). The only file that knows liburing.
 *
 * Kernel facts it leans on: completions beyond the completion queue are kept by the kernel (IORING_FEAT_NODROP,
 * 5.5) and flushed at the next enter, so none is lost; a poll that is removed still completes (-ECANCELED), so a slot
 * is reused only after that completion was seen; ring memory is charged to RLIMIT_MEMLOCK by some (before 5.12, and
 * 6.18), registered memory by all, unless the process has CAP_IPC_LOCK.
 */
#include "engine/base/ring.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif
#include <time.h>

#include "engine/base/error.h"
#include "engine/base/fs.h"

enum slot_state { SLOT_FREE, SLOT_PENDING, SLOT_ABANDONED };

/* One operation in flight. */
struct slot {
	enum slot_state state;
	enum ring_op op;
	uint64_t token;
	int fd;
	short events;
	/* writes: what is left, since a short write is continued here */
	const uint8_t *data;
	size_t left;
	size_t done;
	uint64_t offset;
};

struct ring {
	bool uring;
	struct io_uring io;
	int wake_fd;
	bool wake_armed;
	unsigned count;
	unsigned pending; /* slots not free */
	struct slot *slots;
	struct iovec registered; /* buffer 0 of the kernel's table, or empty */
	struct pollfd *pollfds; /* fallback: one a slot and one for wake_fd */
};

#define WAKE_USER_DATA UINT64_MAX
#define IGNORE_USER_DATA (UINT64_MAX - 1)

/* What stands in the way, in words that lead to the cure. */
static const char *refusal(int num)
{
	switch (num) {
	case EPERM:
		return "the kernel refuses io_uring (kernel.io_uring_disabled, or a seccomp filter)";
	case ENOSYS:
		return "io_uring is not there (old kernel, or a seccomp filter)";
	case ENOMEM:
		return "no locked memory for io_uring (RLIMIT_MEMLOCK)";
	default:
		return "io_uring cannot be set up";
	}
}

static bool probe_ops(struct io_uring *io)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(io);
	bool ok = probe && io_uring_opcode_supported(probe, IORING_OP_POLL_ADD) &&
		  io_uring_opcode_supported(probe, IORING_OP_POLL_REMOVE) &&
		  io_uring_opcode_supported(probe, IORING_OP_WRITE) &&
		  io_uring_opcode_supported(probe, IORING_OP_WRITE_FIXED) && (io->features & IORING_FEAT_NODROP) &&
		  (io->features & IORING_FEAT_EXT_ARG);

	if (probe)
		io_uring_free_probe(probe);
	return ok;
}

/* A seccomp filter may allow the set-up and refuse the enter, which would show only when the ring is in use. */
static int probe_enter(struct io_uring *io)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(io);
	struct io_uring_cqe *cqe;

	io_uring_prep_nop(sqe);
	int rc = io_uring_submit_and_wait(io, 1);

	if (rc < 0)
		return -rc;
	if (io_uring_peek_cqe(io, &cqe))
		return EIO;
	io_uring_cqe_seen(io, cqe);
	return 0;
}

/* liburing maps and unmaps by system calls of its own, which the thread sanitizer does not see: a ring in memory where
 * another one was would race with it. */
#ifdef __SANITIZE_THREAD__
static char ring_memory;

static void memory_taken(void)
{
	__tsan_acquire(&ring_memory);
}

static void memory_given_back(void)
{
	__tsan_release(&ring_memory);
}
#else
static void memory_taken(void)
{
}

static void memory_given_back(void)
{
}
#endif

static void end_uring(struct ring *ring)
{
	memory_given_back();
	io_uring_queue_exit(&ring->io);
}

static int setup_uring(struct ring *ring, unsigned entries)
{
	int rc = io_uring_queue_init(entries, &ring->io, 0);

	if (rc < 0)
		return -rc;
	memory_taken();

	int num = probe_ops(&ring->io) ? probe_enter(&ring->io) : ENOSYS;

	if (num) {
		end_uring(ring);
		return num;
	}
	ring->uring = true;
	return 0;
}

int ring_new(enum cpull_io io, unsigned entries, struct ring **out, struct cpull_error *err)
{
	struct ring *ring = calloc(1, sizeof(*ring));

	if (!ring)
		return error_nomem(err);
	ring->count = entries;
	ring->slots = calloc(entries, sizeof(*ring->slots));
	ring->pollfds = calloc(entries + 1, sizeof(*ring->pollfds));
	ring->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!ring->slots || !ring->pollfds || ring->wake_fd < 0) {
		int num = errno;

		ring_free(ring);
		return error_sys(err, CPULL_ERR_INTERNAL, num, "making an event loop");
	}

	int num = io == CPULL_IO_SYNC ? 0 : setup_uring(ring, entries);

	if (num && io == CPULL_IO_URING) {
		ring_free(ring);
		return error_sys(err, CPULL_ERR_UNSUPPORTED, num, "--io uring: %s; --io auto does without",
				 refusal(num));
	}
	*out = ring;
	return 0;
}

bool ring_is_uring(const struct ring *ring)
{
	return ring->uring;
}

static struct slot *find_poll(struct ring *ring, uint64_t token)
{
	for (unsigned i = 0; i < ring->count; i++)
		if (ring->slots[i].state == SLOT_PENDING && ring->slots[i].op == RING_POLL &&
		    ring->slots[i].token == token)
			return &ring->slots[i];
	return NULL;
}

static struct slot *free_slot(struct ring *ring)
{
	for (unsigned i = 0; i < ring->count; i++)
		if (ring->slots[i].state == SLOT_FREE)
			return &ring->slots[i];
	return NULL;
}

static void slot_release(struct ring *ring, struct slot *slot)
{
	slot->state = SLOT_FREE;
	ring->pending--;
}

static struct slot *slot_take(struct ring *ring, enum ring_op op, int fd, uint64_t token)
{
	struct slot *slot = free_slot(ring);

	if (!slot)
		return NULL;
	*slot = (struct slot){.state = SLOT_PENDING, .op = op, .fd = fd, .token = token};
	ring->pending++;
	return slot;
}

/* A submission entry; a full queue is handed to the kernel first. */
static struct io_uring_sqe *get_sqe(struct ring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->io);

	if (sqe)
		return sqe;
	io_uring_submit(&ring->io);
	return io_uring_get_sqe(&ring->io);
}

static uint64_t slot_index(const struct ring *ring, const struct slot *slot)
{
	return (uint64_t)(slot - ring->slots);
}

int ring_poll(struct ring *ring, int fd, short events, uint64_t token)
{
	ring_poll_cancel(ring, token);

	struct slot *slot = slot_take(ring, RING_POLL, fd, token);

	if (!slot)
		return CPULL_ERR_LIMIT;
	slot->events = events;
	if (!ring->uring)
		return 0;

	struct io_uring_sqe *sqe = get_sqe(ring);

	if (!sqe) {
		slot_release(ring, slot);
		return CPULL_ERR_INTERNAL;
	}
	io_uring_prep_poll_add(sqe, fd, (unsigned)events);
	io_uring_sqe_set_data64(sqe, slot_index(ring, slot));
	return 0;
}

void ring_poll_cancel(struct ring *ring, uint64_t token)
{
	struct slot *slot = find_poll(ring, token);

	if (!slot)
		return;
	if (!ring->uring) {
		slot_release(ring, slot);
		return;
	}

	struct io_uring_sqe *sqe = get_sqe(ring);

	slot->state = SLOT_ABANDONED; /* free once its completion was seen */
	if (!sqe)
		return;
	io_uring_prep_poll_remove(sqe, slot_index(ring, slot));
	io_uring_sqe_set_data64(sqe, IGNORE_USER_DATA);
	/* the caller closes fd next, and the kernel must have the request before a new file takes the number */
	io_uring_submit(&ring->io);
}

int ring_register(struct ring *ring, const struct iovec *memory)
{
	assert(!ring->registered.iov_len);
	if (!ring->uring)
		return -ENOSYS;

	int rc = io_uring_register_buffers(&ring->io, memory, 1);

	if (rc == 0)
		ring->registered = *memory;
	return MIN(rc, 0);
}

static bool is_registered(const struct ring *ring, const uint8_t *data, size_t len)
{
	uintptr_t start = (uintptr_t)ring->registered.iov_base, at = (uintptr_t)data;
	size_t room = ring->registered.iov_len;

	return at >= start && at - start < room && len <= room - (at - start);
}

static int queue_write(struct ring *ring, struct slot *slot)
{
	struct io_uring_sqe *sqe = get_sqe(ring);
	const uint8_t *data = slot->data + slot->done;
	unsigned len = (unsigned)MIN(slot->left, (size_t)1 << 30);

	if (!sqe)
		return CPULL_ERR_INTERNAL;
	if (is_registered(ring, data, len))
		io_uring_prep_write_fixed(sqe, slot->fd, data, len, slot->offset + slot->done, 0);
	else
		io_uring_prep_write(sqe, slot->fd, data, len, slot->offset + slot->done);
	io_uring_sqe_set_data64(sqe, slot_index(ring, slot));
	return 0;
}

int ring_write(struct ring *ring, int fd, const void *buf, size_t len, uint64_t offset, uint64_t token)
{
	struct slot *slot = slot_take(ring, RING_WRITE, fd, token);

	if (!slot)
		return CPULL_ERR_LIMIT;
	slot->data = buf;
	slot->left = len;
	slot->offset = offset;
	if (!ring->uring)
		return 0;

	int rc = queue_write(ring, slot);

	if (rc)
		slot_release(ring, slot);
	return rc;
}

static void emit(struct ring_event *events, int *n, const struct slot *slot, int result)
{
	events[(*n)++] = (struct ring_event){.op = slot->op, .result = result, .token = slot->token};
}

/* A write came back: done, failed, or to be continued. */
static bool write_done(struct slot *slot, int res)
{
	if (res < 0)
		return true;
	slot->done += (size_t)res;
	slot->left -= (size_t)res;
	return slot->left == 0 || res == 0;
}

static int write_result(const struct slot *slot, int res)
{
	if (res < 0)
		return res;
	return slot->left ? -EIO : (int)slot->done;
}

static void drain_wake(struct ring *ring)
{
	uint64_t count;

	while (read(ring->wake_fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

static void complete_slot(struct ring *ring, struct slot *slot, int res, struct ring_event *events, int *n)
{
	if (slot->state == SLOT_ABANDONED) {
		slot_release(ring, slot);
		return;
	}
	if (slot->op == RING_WRITE) {
		bool again = res == -EINTR || res == -EAGAIN;

		if (!again && write_done(slot, res)) {
			emit(events, n, slot, write_result(slot, res));
			slot_release(ring, slot);
			return;
		}
		if (queue_write(ring, slot)) {
			emit(events, n, slot, -EIO);
			slot_release(ring, slot);
		}
		return;
	}
	emit(events, n, slot, res);
	slot_release(ring, slot);
}

static int reap(struct ring *ring, struct ring_event *events, unsigned max)
{
	struct io_uring_cqe *cqe;
	int n = 0;

	while ((unsigned)n < max && io_uring_peek_cqe(&ring->io, &cqe) == 0) {
		uint64_t data = io_uring_cqe_get_data64(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&ring->io, cqe);
		if (data == WAKE_USER_DATA) {
			ring->wake_armed = false;
			drain_wake(ring);
			events[n++] = (struct ring_event){.op = RING_WAKE};
		} else if (data != IGNORE_USER_DATA) {
			assert(data < ring->count);
			complete_slot(ring, &ring->slots[data], res, events, &n);
		}
	}
	return n;
}

static void arm_wake(struct ring *ring)
{
	if (ring->wake_armed)
		return;

	struct io_uring_sqe *sqe = get_sqe(ring);

	if (!sqe)
		return;
	io_uring_prep_poll_add(sqe, ring->wake_fd, POLLIN);
	io_uring_sqe_set_data64(sqe, WAKE_USER_DATA);
	ring->wake_armed = true;
}

/* A wait with a time-out of zero has the kernel set up a timer and sleep until it fires: more than a direct write
 * costs. */
static int look_uring(struct ring *ring, struct ring_event *events, unsigned max)
{
	int rc = io_uring_submit_and_get_events(&ring->io);

	if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
		return CPULL_ERR_INTERNAL;
	return reap(ring, events, max);
}

static int wait_uring(struct ring *ring, int timeout_ms, struct ring_event *events, unsigned max)
{
	uint64_t end = timeout_ms < 0 ? 0 : now_ms() + (uint64_t)timeout_ms;

	arm_wake(ring);
	if (!timeout_ms)
		return look_uring(ring, events, max);
	for (;;) {
		int n = reap(ring, events, max);

		if (n) {
			io_uring_submit(&ring->io);
			return n;
		}

		struct __kernel_timespec ts = {0}, *wait = NULL;

		if (timeout_ms >= 0) {
			uint64_t now = now_ms(), left = end > now ? end - now : 0;

			ts.tv_sec = (long long)(left / 1000);
			ts.tv_nsec = (long long)(left % 1000) * 1000000;
			wait = &ts;
		}

		struct io_uring_cqe *cqe;
		int rc = io_uring_submit_and_wait_timeout(&ring->io, &cqe, 1, wait, NULL);

		if (rc == -ETIME)
			return reap(ring, events, max);
		if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
			return CPULL_ERR_INTERNAL;
		/* what is refused for now (no memory) comes back at once, however long the wait was to be */
		if (rc < 0 && wait && !ts.tv_sec && !ts.tv_nsec)
			return reap(ring, events, max);
		if (rc == -EAGAIN)
			nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
}

static void write_sync(struct slot *slot, struct ring_event *events, int *n)
{
	int rc = fs_write_all(slot->fd, slot->data, slot->left, slot->offset);

	emit(events, n, slot, rc ? rc : (int)slot->left);
}

static int run_writes(struct ring *ring, struct ring_event *events, unsigned max)
{
	int n = 0;

	for (unsigned i = 0; i < ring->count && (unsigned)n < max; i++) {
		struct slot *slot = &ring->slots[i];

		if (slot->state != SLOT_PENDING || slot->op != RING_WRITE)
			continue;
		write_sync(slot, events, &n);
		slot_release(ring, slot);
	}
	return n;
}

static int wait_sync(struct ring *ring, int timeout_ms, struct ring_event *events, unsigned max)
{
	int n = run_writes(ring, events, max);
	nfds_t fds = 0;

	if (n)
		return n;
	for (unsigned i = 0; i < ring->count; i++)
		if (ring->slots[i].state == SLOT_PENDING)
			ring->pollfds[fds++] =
			    (struct pollfd){.fd = ring->slots[i].fd, .events = ring->slots[i].events};
	ring->pollfds[fds] = (struct pollfd){.fd = ring->wake_fd, .events = POLLIN};

	int rc = poll(ring->pollfds, fds + 1, timeout_ms);

	if (rc < 0)
		return errno == EINTR ? 0 : CPULL_ERR_INTERNAL;
	if (ring->pollfds[fds].revents) {
		drain_wake(ring);
		events[n++] = (struct ring_event){.op = RING_WAKE};
	}
	fds = 0;
	for (unsigned i = 0; i < ring->count && (unsigned)n < max; i++) {
		struct slot *slot = &ring->slots[i];

		if (slot->state != SLOT_PENDING)
			continue;
		if (ring->pollfds[fds].revents) {
			emit(events, &n, slot, ring->pollfds[fds].revents);
			slot_release(ring, slot);
		}
		fds++;
	}
	return n;
}

int ring_wait(struct ring *ring, int timeout_ms, struct ring_event *events, unsigned max)
{
	assert(max > 0);
	return ring->uring ? wait_uring(ring, timeout_ms, events, max) : wait_sync(ring, timeout_ms, events, max);
}

void ring_wake(struct ring *ring)
{
	uint64_t one = 1;

	/* EAGAIN means the counter is full, and then the owner is awake anyway */
	while (write(ring->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

/* The kernel may still write from our caller's buffers: wait until it has let go of every one. */
static void wait_idle(struct ring *ring)
{
	struct ring_event events[16];

	for (unsigned i = 0; i < ring->count; i++)
		if (ring->slots[i].state == SLOT_PENDING && ring->slots[i].op == RING_POLL)
			ring_poll_cancel(ring, ring->slots[i].token);
	while (ring->pending && wait_uring(ring, 1000, events, ARRAY_LEN(events)) >= 0)
		;
}

void ring_free(struct ring *ring)
{
	if (!ring)
		return;
	if (ring->uring) {
		wait_idle(ring);
		end_uring(ring);
	}
	if (ring->wake_fd >= 0)
		close(ring->wake_fd);
	free(ring->pollfds);
	free(ring->slots);
	free(ring);
}
