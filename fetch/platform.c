/* SPDX-License-Identifier: Apache-2.0
 *
 * Platforms: reading "os/arch/variant", the machine's own, and how well one serves another. Names are Go's (GOOS,
 * GOARCH). Called by the engine once a pull and by index.c for each entry of an index, on the caller's thread.
 */
#include "fetch/platform.h"

#include <string.h>

#include "engine/base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#if defined(__x86_64__)
#define MACHINE_ARCH "amd64"
#define MACHINE_VARIANT "" /* by cpuid */
#elif defined(__aarch64__)
#define MACHINE_ARCH "arm64"
#define MACHINE_VARIANT "v8"
#elif defined(__arm__) && __ARM_ARCH >= 7
#define MACHINE_ARCH "arm"
#define MACHINE_VARIANT "v7"
#elif defined(__arm__) && __ARM_ARCH == 6
#define MACHINE_ARCH "arm"
#define MACHINE_VARIANT "v6"
#elif defined(__arm__)
#define MACHINE_ARCH "arm"
#define MACHINE_VARIANT "v5"
#elif defined(__i386__)
#define MACHINE_ARCH "386"
#define MACHINE_VARIANT ""
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
#define MACHINE_ARCH "ppc64le"
#define MACHINE_VARIANT ""
#elif defined(__s390x__)
#define MACHINE_ARCH "s390x"
#define MACHINE_VARIANT ""
#elif defined(__riscv) && __riscv_xlen == 64
#define MACHINE_ARCH "riscv64"
#define MACHINE_VARIANT ""
#elif defined(__loongarch_lp64)
#define MACHINE_ARCH "loong64"
#define MACHINE_VARIANT ""
#else
#error "no GOARCH name is known for this machine"
#endif

/* x86-64 psABI, table 3.1; the vector levels also need the kernel to save the registers (XCR0). */
/* SSE3 SSSE3 CX16 SSE4.1 SSE4.2 POPCNT; LAHF-SAHF */
#define V2_LEAF1_ECX (1u << 0 | 1u << 9 | 1u << 13 | 1u << 19 | 1u << 20 | 1u << 23)
#define V2_EXT1_ECX (1u << 0)
/* FMA MOVBE OSXSAVE AVX F16C; BMI1 AVX2 BMI2; LZCNT; SSE and AVX state */
#define V3_LEAF1_ECX (1u << 12 | 1u << 22 | 1u << 27 | 1u << 28 | 1u << 29)
#define V3_LEAF7_EBX (1u << 3 | 1u << 5 | 1u << 8)
#define V3_EXT1_ECX (1u << 5)
#define V3_XCR0 (1u << 1 | 1u << 2)
/* AVX-512 F DQ CD BW VL; opmask and ZMM state */
#define V4_LEAF7_EBX (1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31)
#define V4_XCR0 (1u << 5 | 1u << 6 | 1u << 7)

unsigned amd64_level(const struct amd64_features *features)
{
	static const struct amd64_features levels[] = {
		{V2_LEAF1_ECX, 0, V2_EXT1_ECX, 0},
		{V3_LEAF1_ECX, V3_LEAF7_EBX, V3_EXT1_ECX, V3_XCR0},
		{0, V4_LEAF7_EBX, 0, V4_XCR0},
	};
	unsigned level = 1;

	for (size_t i = 0; i < ARRAY_LEN(levels); i++, level++)
		if (levels[i].leaf1_ecx & ~features->leaf1_ecx || levels[i].leaf7_ebx & ~features->leaf7_ebx ||
		    levels[i].ext1_ecx & ~features->ext1_ecx || levels[i].xcr0 & ~features->xcr0)
			break;
	return level;
}

static void machine_variant(struct platform *out)
{
#if defined(__x86_64__)
	struct amd64_features features = {0};
	unsigned eax, ebx, ecx, edx;

	if (__get_cpuid(1, &eax, &ebx, &ecx, &edx))
		features.leaf1_ecx = ecx;
	if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
		features.leaf7_ebx = ebx;
	if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx))
		features.ext1_ecx = ecx;
	if (features.leaf1_ecx & bit_OSXSAVE) {
		__asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
		features.xcr0 = eax;
	}
	snprintf(out->variant, sizeof(out->variant), "v%u", amd64_level(&features));
#else
	snprintf(out->variant, sizeof(out->variant), "%s", MACHINE_VARIANT);
#endif
}

/* What uname(1) calls the machines, which people write where Go's name is meant. */
static const char *go_arch(const char *arch)
{
	if (!strcmp(arch, "x86_64"))
		return "amd64";
	if (!strcmp(arch, "aarch64"))
		return "arm64";
	return arch;
}

static bool copy_name(char out[32], const char *text, size_t len)
{
	if (len >= 32)
		return false;
	memcpy(out, text, len);
	out[len] = 0;
	return true;
}

/* One piece of "os/arch/variant". */
static bool parse_piece(const char *text, size_t len, char out[32])
{
	if (!len || !copy_name(out, text, len))
		return false;
	return strspn(out, "abcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

int platform_parse(const char *text, struct platform *out, struct cpull_error *err)
{
	*out = (struct platform){0};
	if (!text) {
		strcpy(out->os, "linux");
		strcpy(out->arch, MACHINE_ARCH);
		machine_variant(out);
		return 0;
	}

	char *pieces[] = {out->os, out->arch, out->variant};
	const char *at = text;
	size_t count = 0;

	for (; count < ARRAY_LEN(pieces); count++) {
		size_t len = strcspn(at, "/");

		if (!parse_piece(at, len, pieces[count]))
			break;
		at += len;
		if (!*at && count >= 1) {
			const char *arch = go_arch(out->arch);

			if (arch != out->arch)
				strcpy(out->arch, arch);
			return 0;
		}
		if (!*at)
			break;
		at++;
	}

	char quoted[160];

	*out = (struct platform){0};
	return error_set(err, CPULL_ERR_USAGE, "platform \"%s\": write os/arch[/variant], such as linux/arm64/v8",
			 error_quote(text, strnlen(text, sizeof(quoted)), quoted, sizeof(quoted)));
}

void platform_format(const struct platform *platform, char out[100])
{
	snprintf(out, 100, "%s/%s%s%s", platform->os, platform->arch, platform->variant[0] ? "/" : "",
		 platform->variant);
}

bool platform_set(struct platform *out, const char *os, const char *arch, const char *variant)
{
	if (copy_name(out->os, os ? os : "", os ? strlen(os) : 0) &&
	    copy_name(out->arch, arch ? arch : "", arch ? strlen(arch) : 0) &&
	    copy_name(out->variant, variant ? variant : "", variant ? strlen(variant) : 0))
		return true;
	*out = (struct platform){0};
	return false;
}

/* Variants of one architecture, the most demanding first; a machine of one also runs those after it. */
static const struct family {
	const char *arch;
	const char *variants[5];
} families[] = {
	{"amd64", {"v4", "v3", "v2", "v1"}},
	{"arm", {"v8", "v7", "v6", "v5"}},
	{"arm64", {"v8"}},
};

/* Place of the variant in its family, or -1. */
static int family_place(const char *arch, const char *variant)
{
	for (size_t i = 0; i < ARRAY_LEN(families); i++) {
		if (strcmp(families[i].arch, arch))
			continue;
		for (int place = 0; families[i].variants[place]; place++)
			if (!strcmp(families[i].variants[place], variant))
				return place;
	}
	return -1;
}

/* Nothing was asked for: an entry without variant, then the family from the top, as containers/image has it. For amd64
 * an unmarked image is v1, so v2 and up are not for whoever did not ask. */
static int rank_unasked(const char *arch, const char *variant)
{
	int place = family_place(arch, variant);

	if (!variant[0])
		return 0;
	if (place < 0 || (!strcmp(arch, "amd64") && strcmp(variant, "v1")))
		return PLATFORM_NO_MATCH;
	return 1 + place;
}

int platform_rank(const struct platform *want, const char *os, const char *arch, const char *variant)
{
	if (!os || !arch || strcmp(os, want->os) || strcmp(arch, want->arch))
		return PLATFORM_NO_MATCH;
	if (!variant)
		variant = "";
	if (!want->variant[0])
		return rank_unasked(arch, variant);
	if (!strcmp(variant, want->variant))
		return 0;
	if (!variant[0])
		return (int)ARRAY_LEN(families[0].variants);

	int wanted = family_place(arch, want->variant);
	int place = family_place(arch, variant);

	return wanted >= 0 && place > wanted ? place - wanted : PLATFORM_NO_MATCH;
}
