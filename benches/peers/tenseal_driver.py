"""TenSEAL (CKKS on Microsoft SEAL): encrypted vector times clear matrix, one ciphertext per token.

N = 8192, moduli 60+40+60 bits: 128-bit secure by SEAL's own tables. The matrix product is TenSEAL's diagonal method.
"""

from importlib.metadata import version

import numpy as np
import tenseal as ts

from driver import now_ms, serve

state = {}


def setup(tokens, d_in, d_out, seed):
    rng = np.random.default_rng(seed)
    start = now_ms()
    context = ts.context(ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 60])
    context.global_scale = 2**40
    context.generate_galois_keys()
    keygen_ms = now_ms() - start
    w = rng.integers(-127, 128, size=(d_in, d_out)).astype(float)
    state.update(context=context, x=rng.normal(size=(tokens, d_in)), w=w, rows=w.tolist())
    public = context.serialize(save_public_key=True, save_secret_key=False, save_galois_keys=True, save_relin_keys=False)
    return {
        "keygen_ms": keygen_ms,
        "key_bytes": len(public),
        "version": version("tenseal"),
        "precision": "real inputs, 8-bit weights, scale 2^40",
    }


def run():
    s = state
    t0 = now_ms()
    encrypted = [ts.ckks_vector(s["context"], token.tolist()) for token in s["x"]]
    t1 = now_ms()
    product = [token.mm(s["rows"]) for token in encrypted]
    t2 = now_ms()
    got = np.array([token.decrypt() for token in product])
    t3 = now_ms()
    want = s["x"] @ s["w"]
    error = float(np.sqrt(((got - want) ** 2).mean()) / np.sqrt((want**2).mean()))
    return {"encrypt_ms": t1 - t0, "server_ms": t2 - t1, "decrypt_ms": t3 - t2, "error": error}


serve({"setup": setup, "run": run})
