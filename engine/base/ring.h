/* SPDX-License-Identifier: Apache-2.0
 *
 * io_uring with a fallback to plain calls behind one small interface: the event loop of the fetch thread (polls
 * of sockets, a time-out, wake-ups from other threads) and the queue of bulk writes. One thread owns a ring;
 * only ring_wake() may be called from others. liburing is seen in ring.c alone.
 */
#ifndef BASE_RING_H
#define BASE_RING_H

#include <sys/uio.h>

#include "engine/base/util.h"

struct ring;

enum ring_op { RING_POLL, RING_WRITE, RING_WAKE };

/* A completion. For RING_POLL `result` holds the poll events, for RING_WRITE the bytes written; negative is -errno. */
struct ring_event {
	enum ring_op op;
	int result;
	uint64_t token;
};

/* Makes a ring with room for `entries` operations in flight. io AUTO probes io_uring and falls back silently,
 * URING fails with a message that names the cause (seccomp, kernel.io_uring_disabled, RLIMIT_MEMLOCK), SYNC
 * uses poll(2) and pwrite(2). */
MUST_CHECK int ring_new(enum cpull_io io, unsigned entries, struct ring **out, struct cpull_error *err);
void ring_free(struct ring *ring);
bool ring_is_uring(const struct ring *ring);

/* One-shot poll for events (POLLIN|POLLOUT). A poll of the same token replaces the one before. */
MUST_CHECK int ring_poll(struct ring *ring, int fd, short events, uint64_t token);
/* Forgets the poll; no event for the token comes after this returns. Must be called before fd is closed. */
void ring_poll_cancel(struct ring *ring, uint64_t token);

/* Lets the kernel keep hold of memory that writes come from, so that it need not look up and pin pages for each: once a
 * ring, at most 1 GiB. All of it is resident from then on until the ring is freed, which must be before the memory is,
 * and charged to RLIMIT_MEMLOCK. 0, or -errno: writes work all the same. */
MUST_CHECK int ring_register(struct ring *ring, const struct iovec *memory);

/* Writes buf at offset; the buffer and fd must live until the event came. Short writes are completed inside, so an
 * event has the whole length or an error. */
MUST_CHECK int ring_write(struct ring *ring, int fd, const void *buf, size_t len, uint64_t offset,
			  uint64_t token);

/* Submits what is pending and waits until at least one event is there or timeout_ms passed (negative: for ever, 0:
 * no wait). Returns the number of events (0 on time-out) or a negative code. */
int ring_wait(struct ring *ring, int timeout_ms, struct ring_event *events, unsigned max);
/* Makes the owner's ring_wait() return with a RING_WAKE event. From any thread, async-signal-safe. */
void ring_wake(struct ring *ring);

#endif
