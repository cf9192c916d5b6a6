"""concrete-ml-extensions: encrypted [tokens, d_in] times clear [d_in, d_out], LWE packing key switch, CPU.

Unsigned operands sized so that the product keeps to the 27 bits that its default parameters reserve.
"""

import math
from importlib.metadata import version

import numpy as np
import concrete_ml_extensions as fhext

from driver import now_ms, serve

state = {}


def setup(tokens, d_in, d_out, seed):
    rng = np.random.default_rng(seed)
    params = fhext.MatmulCryptoParameters.deserialize(fhext.default_params())
    start = now_ms()
    private_key, compression_key = fhext.create_private_key(params)
    keygen_ms = now_ms() - start
    # 4-bit weights, and inputs as wide as 27 bits allow: sum of d_in products of two random operands.
    input_bits = max(1, 27 - 1 - 4 - math.ceil(math.log2(d_in)))
    state.update(
        params=params,
        private_key=private_key,
        compression_key=compression_key,
        x=rng.integers(0, 2**input_bits, size=(tokens, d_in), dtype=np.uint64),
        w=rng.integers(0, 2**4, size=(d_in, d_out), dtype=np.uint64),
        # Outputs are packed 2048 to a ciphertext; the last one may be part full.
        valid=d_out % 2048 or 2048,
    )
    key_bytes = len(compression_key.serialize()) if hasattr(compression_key, "serialize") else None
    return {
        "keygen_ms": keygen_ms,
        "key_bytes": key_bytes,
        "version": version("concrete-ml-extensions"),
        "precision": f"{input_bits}-bit inputs, 4-bit weights",
    }


def run():
    s = state
    t0 = now_ms()
    encrypted = fhext.encrypt_matrix(pkey=s["private_key"], crypto_params=s["params"], data=s["x"])
    t1 = now_ms()
    product = fhext.matrix_multiplication(
        encrypted_matrix=encrypted, data=s["w"], compression_key=s["compression_key"]
    )
    t2 = now_ms()
    got = fhext.decrypt_matrix(product, s["private_key"], s["params"], s["valid"])
    t3 = now_ms()
    want = (s["x"] @ s["w"]).astype(np.int64)
    error = got.astype(np.int64)[:, : want.shape[1]] - want
    relative = float(np.sqrt((error.astype(float) ** 2).mean()) / np.sqrt((want.astype(float) ** 2).mean()))
    return {"encrypt_ms": t1 - t0, "server_ms": t2 - t1, "decrypt_ms": t3 - t2, "error": relative}


serve({"setup": setup, "run": run})
