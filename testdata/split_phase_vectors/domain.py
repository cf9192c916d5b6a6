"""Writes domain.json: order and root of the transform, and the expansion of the public masks.

Independent of the crate: python integers and the blake3 package (pip install blake3).
    python3 domain.py > domain.json
"""

import json
import struct

from blake3 import blake3

N, Q = 2048, 1125899906826241
ROOT = 765727830662934  # what tfhe-ntt chooses: NTT(X) at position 0
BITS = N.bit_length() - 1


def reversed_bits(k):
    return int(format(k, f"0{BITS}b")[::-1], 2)


def field(value):
    """A number is 8 bytes little-endian; text and bytes come with their length."""
    if isinstance(value, int):
        return struct.pack("<Q", value)
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def expand(context, *fields):
    """BLAKE3 in key-derivation mode: version 2, the fields; words masked to 50 bits, rejected when not below Q."""
    hasher = blake3(derive_key_context=context)
    hasher.update(field(2))
    for value in fields:
        hasher.update(field(value))
    words = struct.iter_unpack("<Q", hasher.digest(length=16 * N))
    words = [w & (1 << 50) - 1 for (w,) in words]
    return [w for w in words if w < Q][:N]


def summary(words):
    packed = b"".join(struct.pack("<Q", w) for w in words)
    return {"first": words[:2], "blake3": blake3(packed).hexdigest()}


def main():
    assert pow(ROOT, N, Q) == Q - 1
    points = [pow(ROOT, 2 * reversed_bits(k) + 1, Q) for k in range(N)]
    instance = ("n2048-q50-t5-tau64", 64, "plain", bytes(range(32)))
    print(json.dumps({
        "root": ROOT,
        "points": summary(points),
        "public_mask_round_1_poly_1": summary(expand("sotto 2026 public mask A", *instance, 1, 1)),
        "key_mask_level_1": summary(expand("sotto 2026 key switch mask ka", *instance, 1)),
        "session_key_mask_seed_6": summary(expand("sotto 2026 session key mask pk_a", *instance, bytes([6] * 32))),
        "public_key_mask_seed_5": summary(expand("sotto 2026 public key mask", bytes([5] * 32))),
    }, indent=1))


if __name__ == "__main__":
    main()
