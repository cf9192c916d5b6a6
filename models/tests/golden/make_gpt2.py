#!/usr/bin/env python3
"""Writes gpt2_tiny.safetensors: a 2-layer GPT-2 of random weights, some ids and their logits.

    python3 make_gpt2.py gpt2_tiny.safetensors

Needs numpy only. The forward pass below is written from the model's description (Radford et al. 2019, and
Hugging Face's names and layouts), in float64 and without a cache, so that it shares nothing with the Rust code.
"""
import json
import sys

import numpy as np

VOCAB, HIDDEN, INNER, LAYERS, HEADS, POSITIONS, EPS = 61, 24, 40, 2, 3, 16, 1e-5


def weights(rng):
    def normal(*shape, scale=0.3, mean=0.0):
        return (mean + scale * rng.standard_normal(shape)).astype(np.float32)

    tensors = {"transformer.wte.weight": normal(VOCAB, HIDDEN), "transformer.wpe.weight": normal(POSITIONS, HIDDEN)}

    def norm(name):
        tensors[name + ".weight"] = normal(HIDDEN, mean=1.0)
        tensors[name + ".bias"] = normal(HIDDEN)

    def conv1d(name, rows, columns):  # stored [in, out]
        tensors[name + ".weight"] = normal(columns, rows)
        tensors[name + ".bias"] = normal(rows)

    for layer in range(LAYERS):
        block = f"transformer.h.{layer}."
        norm(block + "ln_1")
        conv1d(block + "attn.c_attn", 3 * HIDDEN, HIDDEN)
        conv1d(block + "attn.c_proj", HIDDEN, HIDDEN)
        norm(block + "ln_2")
        conv1d(block + "mlp.c_fc", INNER, HIDDEN)
        conv1d(block + "mlp.c_proj", HIDDEN, INNER)
    norm("transformer.ln_f")
    return tensors


def forward(tensors, ids):
    t = {name.removeprefix("transformer."): value.astype(np.float64) for name, value in tensors.items()}

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * t[name + ".weight"] + t[name + ".bias"]

    def linear(x, name):
        return x @ t[name + ".weight"] + t[name + ".bias"]

    def gelu_new(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    n, width = len(ids), HIDDEN // HEADS
    h = t["wte.weight"][ids] + t["wpe.weight"][:n]
    for layer in range(LAYERS):
        block = f"h.{layer}."
        q, k, v = np.split(linear(norm(h, block + "ln_1"), block + "attn.c_attn"), 3, axis=-1)
        heads = []
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            scores = q[:, part] @ k[:, part].T / np.sqrt(width)
            scores[np.triu_indices(n, 1)] = -np.inf
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(scores / scores.sum(-1, keepdims=True) @ v[:, part])
        h = h + linear(np.concatenate(heads, -1), block + "attn.c_proj")
        h = h + linear(gelu_new(linear(norm(h, block + "ln_2"), block + "mlp.c_fc")), block + "mlp.c_proj")
    return norm(h, "ln_f") @ t["wte.weight"].T


def save(path, tensors, metadata):
    names = {"float32": "F32", "uint32": "U32"}
    header, data = {"__metadata__": metadata}, b""
    for name, value in sorted(tensors.items()):
        raw = np.ascontiguousarray(value).tobytes()
        header[name] = {
            "dtype": names[value.dtype.name],
            "shape": list(value.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)


def main():
    rng = np.random.default_rng(20191105)
    tensors = weights(rng)
    ids = rng.integers(0, VOCAB, 13)
    logits = forward(tensors, ids).astype(np.float32)
    tensors["golden.logits"] = logits
    tensors["golden.ids"] = ids.astype(np.float32)
    config = {
        "model_type": "gpt2", "vocab_size": VOCAB, "n_embd": HIDDEN, "n_inner": INNER, "n_layer": LAYERS,
        "n_head": HEADS, "n_positions": POSITIONS, "layer_norm_epsilon": EPS, "activation_function": "gelu_new",
    }
    save(sys.argv[1], tensors, {"config": json.dumps(config)})


main()
