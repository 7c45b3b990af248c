# SPDX-License-Identifier: Apache-2.0
"""The least that a pull can cost on this machine: the sum of the stages that cannot be left out, each at what it takes
alone on one core, from the micro-benchmarks of the same run.

CPU    receive, SHA-256 of the blob, for an encrypted layer HMAC and CTR, inflate or zstd, SHA-256 of the tar, creating
       every entry, writing every byte of content.
wall   on N cores the greater of CPU / N and the longest single stage of any one layer: the stages of a layer overlap,
       but none of these can be split, except for creating and writing files.
A pull can be below the bound only where two stages become one (both hashes of an encrypted layer in one pass).
"""
GIB = 1 << 30
# (name of the part, cost, what of the layer it is paid for)
ALWAYS = (("receive", "receive_s_per_gib", "blob_bytes"), ("sha256 of the blob", "sha256_s_per_gib", "blob_bytes"))
ENCRYPTED = (("hmac", "hmac_s_per_gib", "blob_bytes"), ("ctr", "ctr_s_per_gib", "blob_bytes"))
DECOMPRESS = {"gzip": (("inflate", "inflate_s_per_gib_out", "unpacked_bytes"),),
              "zstd": (("zstd", "zstd_s_per_gib_out", "unpacked_bytes"),), "none": ()}
UNPACKED = (("sha256 of the tar", "sha256_s_per_gib", "unpacked_bytes"),)
# What several threads can share within one layer.
FILES = (("create", "create_s_per_entry", "entries"), ("write", "write_s_per_gib", "data_bytes"))


def layer_parts(layer, costs):
    """{part: CPU seconds} of one layer. decompress_s, where it is known, is what this very blob took."""
    rows = ALWAYS + (ENCRYPTED if layer["encrypted"] else ()) + DECOMPRESS[layer["compression"]] + UNPACKED + FILES
    parts = {name: costs[cost] * layer[what] / (1 if cost.endswith("_per_entry") else GIB) for name, cost, what in rows}
    for name, _, _ in DECOMPRESS[layer["compression"]]:
        parts[name] = layer.get("decompress_s", parts[name])
    return parts


def bound(layers, costs, cores):
    """{"cpu_s", "wall_s", "chain_s", "chain", "parts"} of an image; None where a cost was not measured."""
    parts, chain_s, chain = {}, 0.0, ""
    shared = {name for name, _, _ in FILES}
    try:
        for layer in layers:
            own = layer_parts(layer, costs)
            for name, seconds in own.items():
                parts[name] = parts.get(name, 0.0) + seconds
                if name not in shared and seconds > chain_s:
                    chain_s, chain = seconds, name
    except KeyError:
        return None
    cpu_s = sum(parts.values())
    return {"cpu_s": cpu_s, "wall_s": max(chain_s, cpu_s / cores), "cores": cores, "chain_s": chain_s, "chain": chain,
            "parts": parts}
