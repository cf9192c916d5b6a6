#!/usr/bin/env python3
"""Reference of the lean wire form: masks stay at the server, one short word per row comes back .

    python3 lean_wire.py                  # the protocol on a small ring, noise against the formulas, exact mode; prints ok
    python3 lean_wire.py --vectors FILE   # also writes every input, random draw and result as JSON
What is not defined here is that of split_phase.py.
"""
import json
import math
import sys
import split_phase as sp
from split_phase import N, PHI, TAU, Q, add, centred, mul, rng, rounded, sub, tuniform

SHARED_BITS = 28      # S: per coefficient of the shared mask a', sent once per session
BODY_BITS = 30        # B: per feature and token, up; kept left-aligned in 32-bit words
REPLY_BITS = 20       # R: per row and token, down; nothing else comes down
WORD = 32             # the server's wrapping arithmetic

switch = lambda v, bits: rounded(v << bits, Q) % (1 << bits)       # Z_q -> Z_(2^bits)
lift = lambda v, bits: rounded(v * Q, 1 << bits) % Q               # and back
HALF_SECRET = [1] * N                                              # twice the mean of a binary secret


def prepare(W):
    """split_phase.prepare with the hint multiplied by PHI^-1 mod q, so that the packed phase is -(H s) itself, and with the
    mean of the chain's rounding errors: they are known now, and s has mean 1/2. Returns A, key masks, blocks (a, chain, fold)."""
    A, key_masks, blocks = sp.prepare(W)
    # The hint is linear in A: prepare's A times PHI is the client's A, and its hint is then PHI^-1 times that of the client's A.
    A = [[v * PHI % Q for v in f] for f in A]
    out = []
    for a, chain in blocks:
        fold = [0] * N
        for j in range(PHI - 1, 0, -1):
            value = [sum(d[n] << (sp.DROP + sp.BASE * i) for i, d in enumerate(chain[j])) % Q for n in range(N)]
            fold = add(fold, mul(sub(CHAIN_INPUTS[id(chain)][j], value), sp.substitute(HALF_SECRET, pow(sp.GAMMA, j, 2 * N))))
        out.append((a, chain, [(centred(v) >> 1) % Q for v in fold]))   # halve the integer, not modulo q
    return A, key_masks, out


CHAIN_INPUTS = {}     # chain -> {j: the polynomial whose digits are chain[j]}


def remember_inputs():
    """Makes split_phase.digits keep what it decomposes: only the reference needs this, a real prepare has it at hand."""
    plain, inputs = sp.digits, []

    def digits(f):
        inputs.append(f)
        return plain(f)
    sp.digits = digits
    original = sp.prepare

    def prepare_and_keep(W):
        inputs.clear()
        A, key_masks, blocks = original(W)
        it = iter(inputs)
        for _, chain in blocks:
            CHAIN_INPUTS[id(chain)] = {j: next(it) for j in range(PHI - 1, 0, -1)}
        return A, key_masks, blocks
    sp.prepare = prepare_and_keep


def shared_masks(blocks, pk_a):
    """Server, once per session: a' = a + pk_a*u + e_a, switched to S bits. u and e_a come from the server's secret."""
    secrets, sent = [], []
    for a, _, _ in blocks:
        u = [rng.randint(0, 1) for _ in range(N)]
        sent.append([switch(v, SHARED_BITS) for v in add(add(a, mul(pk_a, u)), sp.noise_poly())])
        secrets.append(u)
    return secrets, sent


def mask_words(blocks, key_bodies, pk_b, secrets):
    """Server, once per batch: b' = b + pk_b*u - fold, switched to words; kept, not sent."""
    out = []
    for (_, chain, fold), u in zip(blocks, secrets):
        b = [0] * N
        for j, d in chain.items():
            for i in range(sp.LEVELS):
                b = sub(b, mul(d[i], sp.substitute(key_bodies[i], pow(sp.GAMMA, j - 1, 2 * N))))
        out.append([switch(v, WORD) for v in sub(add(b, mul(pk_b, u)), fold)])
    return out


def client_products(s, sent):
    """Client, once per batch: a'*s. A secret, like s itself."""
    return [mul([lift(v, SHARED_BITS) for v in a], s) for a in sent]


def encrypt_body(X, pad, t, noise):
    return [switch((pad(i, t) + e + x) % Q, BODY_BITS) << WORD - BODY_BITS for i, (x, e) in enumerate(zip(X, noise))]


def answer(W, body, words, t):
    """Server, online: W b + b' in wrapping 32-bit words, the top R bits, rounded. No q, no key."""
    drop = WORD - REPLY_BITS
    return [((sum(w * b for w, b in zip(row, body)) + words[j // PHI][j % PHI + PHI * t]) % (1 << WORD) + (1 << drop - 1) >> drop)
            % (1 << REPLY_BITS) for j, row in enumerate(W)]


def decode(reply, products, t):
    return [centred((lift(v, REPLY_BITS) - products[j // PHI][j % PHI + PHI * t]) % Q) for j, v in enumerate(reply)]


def predicted(row_norm):
    """Standard deviation of a decoded value, by source."""
    sigma2 = 18.47 ** 2
    w = [1 << sp.BASE, 1 << (50 - sp.DROP - sp.BASE * (sp.LEVELS - 1))]
    V = N * sigma2 * sum(v * v for v in w) / 12 + 4 ** sp.DROP / 12 * (N / 4)       # N/4: the mean of s is folded away
    return {"key switch": math.sqrt(V * (PHI - 1)), "rerandomisation": math.sqrt(sigma2 * N), "shared": Q / 2 ** SHARED_BITS * math.sqrt(N / 2 / 12),
            "body": row_norm * math.sqrt(sigma2 + (Q / 2 ** BODY_BITS) ** 2 / 12), "reply": Q / 2 ** REPLY_BITS / math.sqrt(12)}


def exact_delta(row_norm):
    """Smallest power of two that decodes integers exactly: half of it covers the reply's rounding (bounded) and 7 deviations of the rest."""
    parts = predicted(row_norm)
    rest = math.sqrt(sum(v * v for k, v in parts.items() if k != "reply"))
    return 1 << math.ceil(math.log2(2 * (Q / 2 ** (REPLY_BITS + 1) + 7 * rest)))


def main():
    remember_inputs()
    d_in, d_out = 23, 10
    W = [[rng.randint(-127, 127) for _ in range(d_in)] for _ in range(d_out)]
    A, key_masks, blocks = prepare(W)
    pk_a = sp.uniform_poly()                                     # from the session's seed, expanded by both sides
    secrets, sent = shared_masks(blocks, pk_a)
    row_norm = max(sum(w * w for w in row) for row in W) ** 0.5
    delta, errors, exact = exact_delta(row_norm), [], True
    vectors = {"N": N, "q": Q, "tau": TAU, "body_bits": BODY_BITS, "reply_bits": REPLY_BITS, "shared_bits": SHARED_BITS, "W": W, "A": A,
               "key_masks": key_masks, "public_key_mask": pk_a, "session_secrets": secrets, "shared_masks": sent, "batches": [],
               "blocks": [{"a": a, "digits": chain, "fold": fold} for a, chain, fold in blocks]}
    for _ in range(6):                                           # a fresh secret each; the shared mask stays
        s, key_bodies, _, pad = sp.batch_keys(A, key_masks)
        pk_b = add(mul(pk_a, s), sp.noise_poly())
        words = mask_words(blocks, key_bodies, pk_b, secrets)
        products, tokens = client_products(s, sent), []
        for t in range(TAU):
            if t % 2:
                x = [rng.gauss(0, 1) * (50 if i == 3 else 1) for i in range(d_in)]
                scale = Q / 2 * (1 - 2 ** -5) / (row_norm * sum(v * v for v in x) ** 0.5)
                X = [round(v * scale) for v in x]
            else:
                x = [rng.randint(-1, 1) for _ in range(d_in)]
                X = [v * delta for v in x]
            noise = [tuniform() for _ in x]
            body = encrypt_body(X, pad, t, noise)
            reply = answer(W, body, words, t)
            y = decode(reply, products, t)
            for row, v in zip(W, y):
                if t % 2:
                    errors.append(v - sum(w * f for w, f in zip(row, X)))
                elif 2 * abs(sum(w * f for w, f in zip(row, x))) * delta < Q:
                    exact &= round(v / delta) == sum(w * f for w, f in zip(row, x))
            tokens.append({"X": X, "noise": noise, "body": body, "reply": reply, "y": y})
        vectors["batches"].append({"s": s, "key_bodies": key_bodies, "pk_b": pk_b, "words": words, "tokens": tokens})
    measured = (sum(e * e for e in errors) / len(errors)) ** 0.5
    parts = predicted(math.sqrt(sum(sum(w * w for w in row) for row in W) / d_out))
    total = math.sqrt(sum(v * v for v in parts.values()))
    print({k: f"2^{math.log2(v):.1f}" for k, v in parts.items()}, f"total 2^{math.log2(total):.2f}, measured 2^{math.log2(measured):.2f}; exact at delta 2^{delta.bit_length() - 1}: {exact}")
    assert abs(math.log2(measured / total)) < 0.25 and exact
    if "--vectors" in sys.argv:
        with open(sys.argv[sys.argv.index("--vectors") + 1], "w") as f:
            json.dump(vectors, f)
    print("ok")


if __name__ == "__main__":
    main()
