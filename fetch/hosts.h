/* SPDX-License-Identifier: Apache-2.0
 *
 * What a fetcher knows of the hosts it talks to, whoever it was that asked: which have answered, and which want to be
 * left alone for a while. On the fetch thread alone.
 */
#ifndef FETCH_HOSTS_H
#define FETCH_HOSTS_H

#include "engine/base/util.h"

/* More than pulls at one time need; the one that was not used for longest goes. */
#define HOSTS_MAX 32u
#define HOSTS_ANSWERED_MS 120000u /* for so long a host that answered counts as being there */
#define HOSTS_NAME_BYTES 264u /* a name of 255 and a port */

struct hosts {
	struct host {
		char name[HOSTS_NAME_BYTES]; /* "host:port" */
		uint64_t used;
		uint64_t held_until_ms;
		uint64_t answered_ms; /* the last time, 0 for never */
	} list[HOSTS_MAX];
	uint64_t uses;
};

/* All take a URL; one without a host, or with too long a one, is never known. */

/* A connection was made: what fails in the next minutes may be over soon. */
void hosts_set_answered(struct hosts *hosts, const char *url);
bool hosts_answered(struct hosts *hosts, const char *url);
/* Nobody is to ask it before then (now_ms()'s clock). A later time counts, an earlier one does not. */
void hosts_hold(struct hosts *hosts, const char *url, uint64_t until_ms);
/* 0 when it was never asked for. */
uint64_t hosts_held_until(struct hosts *hosts, const char *url);

#endif
