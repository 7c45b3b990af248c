/* SPDX-License-Identifier: Apache-2.0
 *
 * The one-time fetch. Called by digest.c and layer_cipher.c on any thread. What is fetched stays for the life of the
 * process: it is immutable, and giving it back would race with the streams that use it.
 */
#include "crypto/algorithms.h"

#include <pthread.h>
#include <stdbool.h>

#include "crypto/sha256_ni.h"

static bool fetch_all(struct algorithms *out)
{
	if (!out->sha256)
		out->sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
	if (!out->sha384)
		out->sha384 = EVP_MD_fetch(NULL, "SHA2-384", NULL);
	if (!out->sha512)
		out->sha512 = EVP_MD_fetch(NULL, "SHA2-512", NULL);
	if (!out->aes_256_ctr)
		out->aes_256_ctr = EVP_CIPHER_fetch(NULL, "AES-256-CTR", NULL);
	out->sha256_ni = sha256_ni_present();
	return out->sha256 && out->sha384 && out->sha512 && out->aes_256_ctr;
}

/* Not pthread_once(): what could not be fetched for a lack of memory can be later. */
const struct algorithms *algorithms_get(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct algorithms fetched;
	static bool complete;

	pthread_mutex_lock(&lock);
	if (!complete)
		complete = fetch_all(&fetched);
	pthread_mutex_unlock(&lock);
	return &fetched;
}
