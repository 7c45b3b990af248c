# SPDX-License-Identifier: Apache-2.0
"""Opens the key of an encrypted layer for the shell pipeline, with nothing but openssl(1): JWE with RSA-OAEP and
AES-256-GCM, as skopeo and bench/corpus make it."""
import base64
import json
import subprocess

ENC = "org.opencontainers.image.enc."


def url_bytes(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def openssl(*args, data):
    return subprocess.run(["openssl", *args], input=data, stdout=subprocess.PIPE, check=True).stdout


def layer_key(annotations, private_key):
    """(key, first counter block, HMAC) in hex, or ("-",) where the layer is plain."""
    if ENC + "keys.jwe" not in annotations:
        return ("-",)
    jwe = json.loads(base64.b64decode(annotations[ENC + "keys.jwe"].split(",")[0]))
    content_key = openssl("pkeyutl", "-decrypt", "-inkey", private_key, "-pkeyopt", "rsa_padding_mode:oaep",
                          data=url_bytes(jwe["encrypted_key"]))
    # GCM encrypts as CTR does, from the second counter block on. Its tag is not checked here: a wrong key shows when
    # the layer's HMAC does not match.
    counter = url_bytes(jwe["iv"]) + b"\0\0\0\2"
    options = json.loads(openssl("enc", "-d", "-aes-256-ctr", "-K", content_key.hex(), "-iv", counter.hex(),
                                 data=url_bytes(jwe["ciphertext"])))
    public = json.loads(base64.b64decode(annotations[ENC + "pubopts"]))
    return tuple(base64.b64decode(v).hex() for v in (
        options["symkey"], options["cipheroptions"]["nonce"], public["hmac"]))
