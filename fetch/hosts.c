/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of hosts. transfer.c owns it and notes who answers, exchange.c asks and notes who wants to be left alone;
 * all on the fetch thread.
 */
#include "fetch/hosts.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* "host:port" in lower case, "" when there is none. */
static void name_of(const char *url, char out[HOSTS_NAME_BYTES])
{
	const char *host = strstr(url, "://");

	*out = 0;
	if (!host)
		return;
	host += 3;

	size_t len = strcspn(host, "/?#");
	const char *at = memrchr(host, '@', len);

	if (at) {
		len -= (size_t)(at + 1 - host);
		host = at + 1;
	}

	/* of an IPv6 address only what is behind its bracket can be a port */
	const char *bracket = memrchr(host, ']', len), *from = bracket ? bracket : host;
	bool port = memchr(from, ':', len - (size_t)(from - host));
	int n = snprintf(out, HOSTS_NAME_BYTES, "%.*s%s", (int)len, host,
			 port ? "" : !strncasecmp(url, "https:", 6) ? ":443" : ":80");

	if (!len || n < 0 || (size_t)n >= HOSTS_NAME_BYTES)
		*out = 0;
	for (char *c = out; *c; c++)
		*c = (char)tolower((unsigned char)*c);
}

/* NULL when it is not known. */
static struct host *find(struct hosts *hosts, const char *name)
{
	for (size_t i = 0; *name && i < HOSTS_MAX; i++)
		if (!strcmp(hosts->list[i].name, name)) {
			hosts->list[i].used = ++hosts->uses;
			return &hosts->list[i];
		}
	return NULL;
}

static struct host *find_or_make(struct hosts *hosts, const char *url)
{
	char name[HOSTS_NAME_BYTES];

	name_of(url, name);

	struct host *host = find(hosts, name), *oldest = hosts->list;

	if (host || !*name)
		return host;
	for (size_t i = 0; i < HOSTS_MAX; i++)
		if (hosts->list[i].used < oldest->used)
			oldest = &hosts->list[i];
	*oldest = (struct host){.used = ++hosts->uses};
	memcpy(oldest->name, name, sizeof(name));
	return oldest;
}

static struct host *known(struct hosts *hosts, const char *url)
{
	char name[HOSTS_NAME_BYTES];

	name_of(url, name);
	return find(hosts, name);
}

void hosts_set_answered(struct hosts *hosts, const char *url)
{
	struct host *host = find_or_make(hosts, url);

	if (host)
		host->answered_ms = now_ms();
}

bool hosts_answered(struct hosts *hosts, const char *url)
{
	const struct host *host = known(hosts, url);

	return host && host->answered_ms && now_ms() - host->answered_ms < HOSTS_ANSWERED_MS;
}

void hosts_hold(struct hosts *hosts, const char *url, uint64_t until_ms)
{
	struct host *host = find_or_make(hosts, url);

	if (host)
		host->held_until_ms = MAX(host->held_until_ms, until_ms);
}

uint64_t hosts_held_until(struct hosts *hosts, const char *url)
{
	const struct host *host = known(hosts, url);

	return host ? host->held_until_ms : 0;
}
