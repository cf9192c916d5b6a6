#!/usr/bin/env python3
"""Writes n64.json: golden vectors of the encrypted layer on a ring of 64 coefficients, for both parameter sets and all wire forms.

    python3 vectors.py > n64.json

The mathematics is that of the executable references in reference/ (python3 lean_wire.py and split_phase.py print ok). Five
choices of this crate go beyond them, each a rounding inside one side, and are spelled out here:
  * the fold is kept in steps of 2^(drop - 5), two bytes each;
  * b' is rounded to 24 bits when a server keeps it, and to 22 when it travels ahead;
  * the client rounds a' s to 32 bits, and adds and centres modulo 2^32;
  * decoded values are therefore multiples of q / 2^32 (`y`);
  * the full form uses the same hint (with phi^-1) and fold.
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference"))
import lean_wire as lw  # noqa: E402
import split_phase as sp  # noqa: E402
from split_phase import N, PHI, Q, TAU, add, centred, mul, rng, rounded, sub  # noqa: E402

WORD = 1 << 32
SETS = {"default": (2, 15, 20, 5), "light": (1, 23, 27, 4)}   # levels, base_log, drop, noise bound
FORMS = {"lean": (30, 20, 28, 24), "stateless": (28, 20, 26, 22)}   # body, reply, shared, bits of b'
TOKENS = 5

left = lambda words, bits: [w << 32 - bits for w in words]
switch = lambda poly, bits: [rounded(v << bits, Q) % (1 << bits) for v in poly]
lift = lambda words: [rounded(w * Q, WORD) % Q for w in words]     # left-aligned words to residues


def stepped(fold):
    """The fold in steps, and what is subtracted for it."""
    shift = sp.DROP - 5
    steps = [max(-(1 << 15), min((1 << 15) - 1, (centred(v) + (1 << shift - 1)) >> shift)) for v in fold]
    return steps, [(s << shift) % Q for s in steps]


def dot_product(chain, key_bodies):
    b = [0] * N
    for j, d in chain.items():
        for i in range(sp.LEVELS):
            b = sub(b, mul(d[i], sp.substitute(key_bodies[i], pow(sp.GAMMA, j - 1, 2 * N))))
    return b


def inputs(row_norm, t, d_in):
    """Fixed point that uses the whole range, with an outlier; or small integers at 2^34, which every form decodes."""
    if t % 2:
        x = [rng.gauss(0, 1) * (50 if i == 3 else 1) for i in range(d_in)]
        scale = Q / 2 * (1 - 2 ** -5) / (row_norm * sum(v * v for v in x) ** 0.5)
        return [round(v * scale) for v in x]
    return [rng.randint(-1, 1) << 34 for _ in range(d_in)]


def tokens(W, pad, corrections, kept, body_bits, reply_bits, arithmetic_bits):
    """Bodies, replies and decoded words. corrections: 32-bit words per block; kept: what the server adds, or None."""
    row_norm = max(sum(w * w for w in row) for row in W) ** 0.5
    out = []
    for t in range(TOKENS):
        X = inputs(row_norm, t, len(W[0]))
        noise = [sp.tuniform() for _ in X]
        body = [rounded(((pad(i, t) + e + x) % Q) << body_bits, Q) % (1 << body_bits) for i, (x, e) in enumerate(zip(X, noise))]
        body = [b << arithmetic_bits - body_bits for b in body]
        drop = arithmetic_bits - reply_bits
        reply, y = [], []
        for j, row in enumerate(W):
            at = (j // PHI, j % PHI + PHI * t)
            total = sum(w * b for w, b in zip(row, body)) + (kept[at[0]][at[1]] if kept else 0)
            reply.append((total + (1 << drop - 1) >> drop) % (1 << reply_bits) << 32 - reply_bits)
            y.append(centred((reply[-1] + corrections[at[0]][at[1]]) % WORD, WORD))
            error = centred((rounded(y[-1] * Q, WORD) - sum(w * x for w, x in zip(row, X))) % Q)
            assert abs(error) < 1 << 37, error        # 2^49 is the range; the light set's key switch is about 2^31 here
        out.append({"X": X, "noise": noise, "body": body, "reply": reply, "y": y})
    return out


def full_form(W, A, key_masks, blocks):
    s, key_bodies, pk, pad = sp.batch_keys(A, key_masks)
    zeros = [sp.encrypt_zero(pk) for _ in blocks]
    masks, corrections = [], []
    for (a, chain, fold), zero in zip(blocks, zeros):
        b = sub(add(dot_product(chain, key_bodies), zero[1]), stepped(fold)[1])
        masks.append((switch(add(a, zero[0]), 32), switch(b, 32)))
        product = switch(mul(lift(masks[-1][0]), s), 32)
        corrections.append([(w - p) % WORD for w, p in zip(masks[-1][1], product)])
    batch = {"s": s, "key_bodies": key_bodies, "public_key": pk, "zeros": zeros, "masks": masks,
             "tokens": tokens(W, pad, corrections, None, 40, 32, 40)}
    return {"batches": [batch]}


def session_form(name, W, A, key_masks, blocks, batches):
    body_bits, reply_bits, shared_bits, mask_bits = FORMS[name]
    pk_a = sp.uniform_poly()
    secrets = [[rng.randint(0, 1) for _ in range(N)] for _ in blocks]
    mask_noise = [[sp.tuniform() for _ in range(N)] for _ in blocks]
    hidden = [add(add(a, mul(pk_a, u)), e) for (a, _, _), u, e in zip(blocks, secrets, mask_noise)]
    shared = [left(switch(v, shared_bits), shared_bits) for v in hidden]
    out = {"public_key_mask": pk_a, "secrets": secrets, "mask_noise": mask_noise, "shared_masks": shared, "batches": []}
    for _ in range(batches):                          # a fresh secret each; the shared masks stay
        s, key_bodies, _, pad = sp.batch_keys(A, key_masks)
        pk_b = add(mul(pk_a, s), sp.noise_poly())
        words = []
        for (_, chain, fold), u in zip(blocks, secrets):
            b = sub(add(dot_product(chain, key_bodies), mul(pk_b, u)), stepped(fold)[1])
            words.append(left(switch(b, mask_bits), mask_bits))
        corrections = [[-p % WORD for p in switch(mul(lift(a), s), 32)] for a in shared]
        kept = words
        if name == "stateless":
            corrections = [[(c + w) % WORD for c, w in zip(cs, ws)] for cs, ws in zip(corrections, words)]
            kept = None
        out["batches"].append({"s": s, "key_bodies": key_bodies, "public_key_body": pk_b, "words": words,
                               "tokens": tokens(W, pad, corrections, kept, body_bits, reply_bits, 32)})
    return out


def main():
    lw.remember_inputs()
    vectors = {"N": N, "q": Q, "tau": TAU, "sets": {}}
    for name, gear in SETS.items():
        sp.LEVELS, sp.BASE, sp.DROP, sp.NOISE_BOUND = gear
        W = [[rng.randint(-127, 127) for _ in range(23)] for _ in range(10)]   # multiples of nothing
        A, key_masks, blocks = lw.prepare(W)
        vectors["sets"][name] = {
            "levels": sp.LEVELS, "base_log": sp.BASE, "drop": sp.DROP, "W": W, "A": A, "key_masks": key_masks,
            "blocks": [{"a": a, "digits": chain, "fold": stepped(fold)[0]} for a, chain, fold in blocks],
            "full": full_form(W, A, key_masks, blocks),
            "lean": session_form("lean", W, A, key_masks, blocks, 2),
            "stateless": session_form("stateless", W, A, key_masks, blocks, 1),
        }
    json.dump(vectors, sys.stdout, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main()
