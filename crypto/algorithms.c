/* SPDX-License-Identifier: Apache-2.0
 *
 * The one-time fetch. Called by digest.c and layer_cipher.c on any thread. What is fetched stays for the life of the
 * process: it is immutable, and giving it back would race with the streams that use it.
 */
#include "crypto/algorithms.h"

#include <pthread.h>

static struct algorithms fetched;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fetch_all(void)
{
	fetched.sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
	fetched.sha384 = EVP_MD_fetch(NULL, "SHA2-384", NULL);
	fetched.sha512 = EVP_MD_fetch(NULL, "SHA2-512", NULL);
	fetched.hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	fetched.aes_256_ctr = EVP_CIPHER_fetch(NULL, "AES-256-CTR", NULL);
}

const struct algorithms *algorithms_get(void)
{
	pthread_once(&once, fetch_all);
	return &fetched;
}
