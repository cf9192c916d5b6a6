"""Concrete ML's XGBClassifier and LogisticRegression, n_bits 6, executed under TFHE on the same data as ours.

Requests: {"op": "train", "data": .., "model": "xgboost|logistic", "dir": DIR, "rows": n}
Answers: {"accuracy": of the quantized model in clear on all test rows, "ms_per_row": under TFHE, "rows": n, "compile_s": s}
"""
import json, sys, time

import numpy as np

from classical_driver import load


def answer(request):
    from concrete.ml.sklearn import LogisticRegression, XGBClassifier

    x, y = load(request["data"], request["dir"])
    cut = max(len(y) // 2, len(y) - 1000)
    if request["model"] == "xgboost":
        model = XGBClassifier(n_bits=6, n_estimators=50, max_depth=3, random_state=1, n_jobs=1)
    else:
        x = (x - x[:cut].mean(axis=0)) / (x[:cut].std(axis=0) + 1e-9)
        model = LogisticRegression(n_bits=6)
    model.fit(x[:cut], y[:cut])
    accuracy = float(np.mean(model.predict(x[cut:]) == y[cut:]))
    start = time.perf_counter()
    model.compile(x[:cut])
    model.fhe_circuit.client.keygen(force=True)
    compile_s = time.perf_counter() - start
    times = []
    for row in x[cut : cut + request["rows"]]:
        start = time.perf_counter()
        model.predict(row[None], fhe="execute")
        times.append((time.perf_counter() - start) * 1e3)
    return {"ok": True, "accuracy": accuracy, "ms_per_row": float(np.median(times)), "rows": len(times), "compile_s": compile_s}


print(json.dumps({"ok": True}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "quit":
        break
    try:
        print(json.dumps(answer(request)), flush=True)
    except Exception as error:  # noqa: BLE001 - the bench says which model failed
        print(json.dumps({"ok": False, "error": f"{type(error).__name__}: {error}"}), flush=True)
