/* SPDX-License-Identifier: Apache-2.0
 *
 * OpenSSL's algorithms, fetched once per process image from the default library context: a fetch takes locks and walks
 * the providers, which is too dear per layer. And whether the CPU has what our own SHA-256 takes.
 */
#ifndef CRYPTO_ALGORITHMS_H
#define CRYPTO_ALGORITHMS_H

#include <stdbool.h>

#include <openssl/evp.h>

struct algorithms {
	EVP_MD *sha256;
	EVP_MD *sha384;
	EVP_MD *sha512;
	EVP_CIPHER *aes_256_ctr;
	bool sha256_ni; /* crypto/sha256.h can be used */
};

/* From any thread. A member is NULL when no loaded provider has the algorithm. */
const struct algorithms *algorithms_get(void);

#endif
