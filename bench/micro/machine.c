/* SPDX-License-Identifier: Apache-2.0
 *
 * The machine: its names, and how much of its second core is there. On the main thread; spinners are its own.
 */
#include "bench/micro/machine.h"

#include <linux/magic.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

#include "engine/base/thread.h"

#define SPINNERS 2u
#define SPIN_STEPS 10000u /* between two looks at the clock, some 10 us */

struct spinner {
	pthread_t thread;
	uint64_t until_ns;
	uint64_t rounds;
};

static void *spin(void *payload)
{
	struct spinner *s = payload;
	uint32_t x = 1;

	while (now_ns() < s->until_ns) {
		for (uint32_t i = 0; i < SPIN_STEPS; i++)
			x = x * 1664525u + 1013904223u;
		/* or the loop would not be there */
		__asm__ volatile("" : : "r"(x));
		s->rounds++;
	}
	return NULL;
}

static uint64_t spin_threads(unsigned count, uint64_t ns)
{
	struct spinner spinners[SPINNERS] = {0};
	uint64_t until = now_ns() + ns, rounds = 0;
	unsigned started = 0;

	for (; started < count; started++) {
		spinners[started].until_ns = until;
		if (thread_start(&spinners[started].thread, "bench-spin", spin, &spinners[started], NULL))
			break;
	}
	for (unsigned i = 0; i < started; i++) {
		pthread_join(spinners[i].thread, NULL);
		rounds += spinners[i].rounds;
	}
	return started == count ? rounds : 0;
}

double machine_spin(uint64_t ns)
{
	uint64_t one = spin_threads(1, ns), two = spin_threads(SPINNERS, ns);

	return one ? (double)two / (double)one : 0;
}

static void cpu_name(char *out, size_t room)
{
	char line[256];
	CLEANUP_FILE FILE *f = fopen("/proc/cpuinfo", "re");

	snprintf(out, room, "unknown");
	while (f && fgets(line, sizeof(line), f)) {
		char *colon = strchr(line, ':');

		if (!colon || strncmp(line, "model name", 10))
			continue;
		line[strcspn(line, "\n")] = 0;
		snprintf(out, room, "%s", colon + 2);
		return;
	}
}

static const char *file_system(const char *dir)
{
	struct statfs fs;

	if (statfs(dir, &fs))
		return "unknown";
	switch ((unsigned long)fs.f_type) {
	case TMPFS_MAGIC:
		return "tmpfs";
	case EXT4_SUPER_MAGIC:
		return "ext4";
	case XFS_SUPER_MAGIC:
		return "xfs";
	case BTRFS_SUPER_MAGIC:
		return "btrfs";
	case OVERLAYFS_SUPER_MAGIC:
		return "overlay";
	default:
		return "other";
	}
}

json_t *machine_json(const char *dir)
{
	struct utsname name;
	char cpu[128];

	uname(&name);
	cpu_name(cpu, sizeof(cpu));
	return json_pack("{s:s, s:i, s:s, s:s, s:s}", "cpu", cpu, "cores", (int)sysconf(_SC_NPROCESSORS_ONLN), "kernel",
			 name.release, "architecture", name.machine, "file_system", file_system(dir));
}

void machine_print(const char *dir)
{
	struct utsname name;
	char cpu[128];

	uname(&name);
	cpu_name(cpu, sizeof(cpu));
	printf("%s, %ld cores, Linux %s, files in %s (%s)\n", cpu, sysconf(_SC_NPROCESSORS_ONLN), name.release, dir,
	       file_system(dir));
}
