#!/usr/bin/env python3
"""Executable reference of the split-phase encrypted linear layer .

Slow, exact, stdlib only: an oracle for the mathematics on a small ring, not for speed.
    python3 split_phase.py                  # prepare, key phase, mask half, body half, decode; prints ok
    python3 split_phase.py --vectors FILE   # also writes every input, random draw and result as JSON
R = Z_q[X]/(X^N+1). A GLWE ciphertext is (mask a, body b); its phase is b - a*s.
"""
import json
import random
import sys

N, TAU = 64, 16                 # ring degree, tokens per batch
PHI = N // TAU                  # rows per mask ciphertext
G = PHI                         # features per public polynomial (any G <= PHI works)
GAMMA = 2 * TAU + 1             # generates the group of PHI automorphisms X -> X^(GAMMA^j)
Q = 1125899906826241            # prime, Q = 1 mod 4096, just under 2^50
LEVELS, BASE, DROP = 2, 15, 20  # signed, top-aligned gadget: DROP + LEVELS*BASE = 50
NOISE_BOUND = 5                 # TUniform(5): |e| <= 32, standard deviation 18.5
BODY_BITS, REPLY_BITS = 40, 32  # what travels per feature and per row
MASK_WORD_BITS = 32             # what travels per coefficient of a mask ciphertext

rng = random.Random(7)


def tuniform():
    """Uniform on [-2^b, 2^b] with the two ends at half weight."""
    return (rng.randrange(1 << (NOISE_BOUND + 2)) + 1 >> 1) - (1 << NOISE_BOUND)


uniform_poly = lambda: [rng.randrange(Q) for _ in range(N)]
noise_poly = lambda: [tuniform() % Q for _ in range(N)]
add = lambda f, g: [(x + y) % Q for x, y in zip(f, g)]
sub = lambda f, g: [(x - y) % Q for x, y in zip(f, g)]
centred = lambda v, q=Q: v - q if v > q // 2 else v
rounded = lambda num, den: (2 * num + den) // (2 * den)          # round to nearest, integers


def mul(f, g):
    """Negacyclic product in R; operands may be signed."""
    out = [0] * N
    for i, fi in enumerate(f):
        if fi:
            for j, gj in enumerate(g):
                if i + j < N:
                    out[i + j] += fi * gj
                else:
                    out[i + j - N] -= fi * gj
    return [v % Q for v in out]


def substitute(f, k, e=0):
    """X^e * f(X^k), k odd."""
    out = [0] * N
    for i, v in enumerate(f):
        p = (i * k + e) % (2 * N)
        out[p % N] = v if p < N else -v % Q
    return out


def digits(f):
    """Signed digits d_i with sum_i d_i * 2^(DROP + BASE*i) = f up to 2^(DROP-1)."""
    out = [[0] * N for _ in range(LEVELS)]
    for n, v in enumerate(f):
        v = rounded(centred(v), 1 << DROP)
        for i in range(LEVELS):
            d = v if i == LEVELS - 1 else (v + (1 << BASE - 1)) % (1 << BASE) - (1 << BASE - 1)
            out[i][n] = d
            v = (v - d) >> BASE
    return out


def prepare(W):
    """Once per model: hint, then the digits of the whole packing chain. Depends on W and public seeds only."""
    d_in, d_out = len(W[0]), len(W)
    A = [uniform_poly() for _ in range(-(-d_in // G))]           # expanded from a seed by both sides
    key_masks = [uniform_poly() for _ in range(LEVELS)]          # likewise: public, the same for every batch
    hint = []
    for row in W:
        h = [0] * N
        for i, w in enumerate(row):
            h = [(x + w * a) % Q for x, a in zip(h, substitute(A[i // G], 1, -(i % G) % (2 * N)))]
        hint.append(h)
    hint += [[0] * N] * (-d_out % PHI)                           # padding: zero rows, never a smaller tree
    blocks = []
    for first in range(0, len(hint), PHI):
        rows = hint[first:first + PHI]
        flat = []                                                # flat[j] = sum_r X^r * sigma^j(H_r)
        for j in range(PHI):
            k, acc = pow(GAMMA, j, 2 * N), [0] * N
            for r, h in enumerate(rows):
                acc = add(acc, substitute(h, k, r))
            flat.append(acc)
        a, chain = flat[PHI - 1], {}
        for j in range(PHI - 1, 0, -1):                          # collapse sigma^j(s) -> sigma^(j-1)(s)
            chain[j] = digits(a)
            a = flat[j - 1]
            for i in range(LEVELS):
                ka = substitute(key_masks[i], pow(GAMMA, j - 1, 2 * N))
                a = sub(a, mul(chain[j][i], ka))
        blocks.append((a, chain))
    return A, key_masks, blocks


def batch_keys(A, key_masks):
    """Once per batch, client: fresh secret, one key-switch key (bodies only), public key, pads."""
    s = [rng.randint(0, 1) for _ in range(N)]
    rotated = substitute(s, GAMMA)
    key_bodies = [add(add(mul(ka, s), noise_poly()), [v << (DROP + BASE * i) for v in rotated])
                  for i, ka in enumerate(key_masks)]
    pk_a = uniform_poly()
    pk = (pk_a, add(mul(pk_a, s), noise_poly()))
    products = [mul(a, s) for a in A]
    pad = lambda feature, t: products[feature // G][feature % G + PHI * t]
    return s, key_bodies, pk, pad


def encrypt_zero(pk):
    """Fresh encryption of zero under the batch's public key."""
    u = [rng.randint(0, 1) for _ in range(N)]
    return add(mul(pk[0], u), noise_poly()), add(mul(pk[1], u), noise_poly())


def mask_half(blocks, key_bodies, zeros):
    """Once per batch, server, no activation involved: a dot product of prepared digits with the key."""
    switch = lambda f: [rounded(v << MASK_WORD_BITS, Q) % (1 << MASK_WORD_BITS) for v in f]
    out = []
    for (a, chain), zero in zip(blocks, zeros):
        b = [0] * N
        for j, d in chain.items():
            for i in range(LEVELS):
                b = sub(b, mul(d[i], substitute(key_bodies[i], pow(GAMMA, j - 1, 2 * N))))
        out.append((switch(add(a, zero[0])), switch(add(b, zero[1]))))   # re-randomised: hides `a`
    return out


def decrypt_masks(s, masks):
    """Client: correction[row, t] = -PHI * (H_row * s)[PHI*t] + noise."""
    correction = {}
    for block, (a, b) in enumerate(masks):
        up = lambda f: [rounded(v * Q, 1 << MASK_WORD_BITS) % Q for v in f]
        ph = sub(up(b), mul(up(a), s))
        for r in range(PHI):
            for t in range(TAU):
                correction[block * PHI + r, t] = ph[r + PHI * t]
    return correction


def encrypt_body(X, pad, t, noise):
    """Client, per token: 40-bit words. Each (batch, input, t) may carry one message, ever."""
    return [rounded(((pad(i, t) + e + x) % Q) << BODY_BITS, Q) % (1 << BODY_BITS)
            for i, (x, e) in enumerate(zip(X, noise))]


def body_half(W, body):
    """Server, per token: u = W*b modulo 2^40, top 32 bits. No key, no state, no q."""
    return [(sum(w * b for w, b in zip(row, body)) + (1 << BODY_BITS - REPLY_BITS - 1) >> BODY_BITS - REPLY_BITS)
            % (1 << REPLY_BITS) for row in W]


def decode(reply, correction, t):
    """Client: centred integers near W*X."""
    out = []
    for j, u in enumerate(reply):
        y = (PHI * rounded(u * Q, 1 << REPLY_BITS) + correction[j, t]) % Q
        out.append(centred(y) / PHI)
    return out


def main():
    d_in, d_out = 23, 10                                         # no multiples of G or PHI
    W = [[rng.randint(-127, 127) for _ in range(d_in)] for _ in range(d_out)]
    A, key_masks, blocks = prepare(W)
    row_norm = max(sum(w * w for w in row) for row in W) ** 0.5
    vectors = {"N": N, "q": Q, "tau": TAU, "g": G, "levels": LEVELS, "base_log": BASE, "drop": DROP, "W": W, "A": A,
               "key_masks": key_masks, "batches": [],
               "blocks": [{"a": a, "digits": {j: d for j, d in chain.items()}} for a, chain in blocks]}
    worst, exact = 0.0, True
    for _ in range(2):                                           # two batches, two secrets, same preparation
        s, key_bodies, pk, pad = batch_keys(A, key_masks)
        zeros = [encrypt_zero(pk) for _ in blocks]
        masks = mask_half(blocks, key_bodies, zeros)
        correction = decrypt_masks(s, masks)
        tokens = []
        for t in range(TAU):
            if t % 2:                                            # fixed point: |W X| cannot overflow (Cauchy-Schwarz)
                x = [rng.gauss(0, 1) * (50 if i == 3 else 1) for i in range(d_in)]
                norm = sum(v * v for v in x) ** 0.5
                scale = Q / 2 * (1 - 2 ** -5) / PHI / (row_norm * norm)
                X = [round(v * scale) for v in x]
            else:                                                # exact integers: scale by delta, round
                scale = 1 << 26
                x = [rng.randint(-7, 7) for _ in range(d_in)]
                X = [v * scale for v in x]
            noise = [tuniform() for _ in range(d_in)]
            body = encrypt_body(X, pad, t, noise)
            reply = body_half(W, body)
            y = decode(reply, correction, t)
            for row, v in zip(W, y):
                true = sum(w * f for w, f in zip(row, x))
                if t % 2:
                    worst = max(worst, abs(v / scale - true) / (row_norm * norm))
                else:
                    exact &= round(v / scale) == true
            tokens.append({"X": X, "noise": noise, "body": body, "reply": reply, "y": y})
        vectors["batches"].append({"s": s, "key_bodies": key_bodies, "public_key": pk, "zeros": zeros, "masks": masks,
                                   "tokens": tokens})
    print(f"worst error relative to max|w| |x|: {worst:.2e}; exact integers: {exact}")
    assert worst < 2e-7 and exact
    if "--vectors" in sys.argv:
        with open(sys.argv[sys.argv.index("--vectors") + 1], "w") as f:
            json.dump(vectors, f)
    print("ok")


if __name__ == "__main__":
    main()
