/* SPDX-License-Identifier: Apache-2.0
 *
 * The keys that the fuzz targets open wraps with, and that the seeds in corpus/ are wrapped for. Made for this and used
 * nowhere else; RSA of 1024 bits because it is fast.
 */
#ifndef TESTS_FUZZ_FIXED_KEYS_H
#define TESTS_FUZZ_FIXED_KEYS_H

#include <string.h>

#include "crypto/key_ring.h"

static const char fixed_ec_key[] =
	"{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"figbVD66kmeyHTpcrEMFntpYNnkBHz-UA3Af21y96C8\",\"y\":\"SlEB"
	"6M-45dHjVvSH3VPSJPet3uk4ExtaHKIawJYAnlU\",\"d\":\"v6xEdaM1Pn-riN1aRx9VcneODReXCqZWCX7DrjW_kFU\"}";

static const char fixed_rsa_key[] =
	"{\"kty\":\"RSA\",\"n\":\"4Boblwwsw9fBlEeDJDSfhp25E5DNmh-6hiMnFhCPIw3ERBjNHE-hFwWiWvG-WRRBbT7F21T1HRx"
	"fV5OSIcOiVhfga115eyiYqZftMLCnMIRj0aCw1gjOUNCaduYt9pYQ6JSI7s9ctR4iTJtocHl-IfDWhBc5vpaSJeWuEjnMGVs\","
	"\"e\":\"AQAB\",\"d\":\"0jjrhMhQ_e5Zk2V6Ke6Lb1ZplWcS1-_Ho6k6M0KZY4K4iEDTuCkirlwEr1dy_lE4BukJ5fROc154O"
	"ckfHjlM_8A1gl4b_u0xIFBrxUAOh9Y0IJFUZefqV0m-EygVimBhiJU4liRpGmb_8ylLS6_fA7BYmTWyHAWZDxps5CnXy5E\",\"p"
	"\":\"-_gLfZKPIw75WsCctMJdh8HFincXqaArDtvRwFTJHGjz548_dHxbVZvrJ-J66lr8Dd4Gul0HVtOB8eZFsavjVQ\",\"q\":"
	"\"46_umKUESPZsWXkS47fRsWNVMaEsrWGAm83dgyeG-oBzgJ91yVPvJhlSjAXb_r2HgyD1S7E6K1PrkYZLm8Fp7w\",\"dp\":\""
	"ibV1QjoZdMW4Tns6qigYShwDRLv1-MULA2Hsbztndtl9hC7sNVPJ7y36BaBoITF81G9mKfCyFCgguv5pVMNmyQ\",\"dq\":\"Bv"
	"LHhUED8HYUuGZJfUmOzKsLXohcpK3lDtwpdmcuZ1akL7iuD4bQNYlwS3WiURPXntjSo4y1Cb114usGQ6qTYQ\",\"qi\":\"Kv8i"
	"AiR91vYmt6GWXL1fV29evHpVwlnQdRXXenaqFkTz8NEf9wfgNhBKPfh7WqzmI0_sIlz9VF0w3dwUYC4xSA\"}";

/* Without the secure heap, so that AddressSanitizer sees every overrun. Made once, kept to the end. */
static inline const struct key_ring *fixed_keys(void)
{
	static struct key_ring *ring;

	if (!ring && (key_ring_new(&ring, NULL) ||
		      key_ring_add_bytes(ring, "ec", fixed_ec_key, strlen(fixed_ec_key), NULL, NULL) ||
		      key_ring_add_bytes(ring, "rsa", fixed_rsa_key, strlen(fixed_rsa_key), NULL, NULL)))
		abort();
	return ring;
}

#endif
