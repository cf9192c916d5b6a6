"""scikit-learn, XGBoost and LightGBM: trains a model on real data, writes its file and rows, and says what it predicts.

Requests: {"op": "train", "data": "spam|breast-cancer|digits", "model": "xgboost|lightgbm|forest|tree|logistic|mlp", "dir": DIR}
Answers: {"model": FILE, "rows": FILE, "labels": [..], "predictions": [..], "accuracy": a, "f1": f, "ms_per_row": t}

spam is Hewlett-Packard's spambase (UCI, CC BY 4.0) as Debian's r-cran-kernlab holds it; the others come with scikit-learn.
"""
import json, os, subprocess, sys, time

import numpy as np


def spam(directory):
    """57 features of 4,601 mails, in random order: the file has spam first."""
    import rdata
    path = os.path.join(directory, "x/usr/lib/R/site-library/kernlab/data/spam.rda")
    if not os.path.exists(path):
        subprocess.run(["apt-get", "download", "-qq", "r-cran-kernlab"], cwd=directory, check=True, stdout=sys.stderr, stderr=sys.stderr)
        deb = [name for name in os.listdir(directory) if name.startswith("r-cran-kernlab")][0]
        subprocess.run(["dpkg", "-x", deb, "x"], cwd=directory, check=True)
    table = rdata.read_rda(path)["spam"]
    y = (table["type"] == "spam").to_numpy().astype(int)
    x = table.drop(columns=["type"]).to_numpy().astype(np.float32)
    order = np.random.default_rng(1).permutation(len(y))
    return x[order], y[order]


def load(name, directory):
    from sklearn import datasets
    if name == "spam":
        return spam(directory)
    x, y = {"breast-cancer": datasets.load_breast_cancer, "digits": datasets.load_digits}[name](return_X_y=True)
    order = np.random.default_rng(1).permutation(len(y))
    return x[order].astype(np.float32), y[order]


def train(name, x, y, path):
    """The trained model, its file, and how it predicts."""
    if name == "xgboost":
        import xgboost
        model = xgboost.XGBClassifier(n_estimators=50, max_depth=3, random_state=1, n_jobs=1).fit(x, y)
        model.save_model(path + ".json")
        return model, path + ".json"
    if name == "lightgbm":
        import lightgbm
        model = lightgbm.LGBMClassifier(n_estimators=50, num_leaves=8, random_state=1, verbose=-1, n_jobs=1).fit(x.astype(float), y)
        model.booster_.save_model(path + ".txt")
        return model, path + ".txt"
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier
    model = {
        "forest": lambda: RandomForestClassifier(n_estimators=50, max_depth=5, random_state=1),
        "tree": lambda: DecisionTreeClassifier(max_depth=6, random_state=1),
        "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        "mlp": lambda: make_pipeline(StandardScaler(), MLPClassifier((64, 32), max_iter=100, random_state=1)),
    }[name]().fit(x, y)
    from skl2onnx import to_onnx
    onnx = to_onnx(model, x[:1], options={id(model): {"zipmap": False}}, target_opset=15)
    with open(path + ".onnx", "wb") as file:
        file.write(onnx.SerializeToString())
    return model, path + ".onnx"


def answer(request):
    from sklearn.metrics import accuracy_score, f1_score
    directory = request["dir"]
    os.makedirs(directory, exist_ok=True)
    x, y = load(request["data"], directory)
    cut = max(len(y) // 2, len(y) - 1000)
    path = os.path.join(directory, f"{request['data']}-{request['model']}")
    model, file = train(request["model"], x[:cut], y[:cut], path)
    test, labels = x[cut:], y[cut:]
    rows = test.astype(float) if request["model"] == "lightgbm" else test
    start = time.perf_counter()
    predictions = model.predict(rows)
    seconds = time.perf_counter() - start
    names = model.booster_.feature_name() if request["model"] == "lightgbm" else [f"f{i}" for i in range(x.shape[1])]
    with open(path + ".csv", "w") as out:
        out.write(",".join(names) + "\n")
        for row in test:
            out.write(",".join(repr(float(value)) for value in row) + "\n")
    return {
        "ok": True,
        "model": file,
        "rows": path + ".csv",
        "labels": [int(label) for label in labels],
        "predictions": [int(label) for label in predictions],
        "accuracy": float(accuracy_score(labels, predictions)),
        "f1": float(f1_score(labels, predictions, average="binary" if len(set(y)) == 2 else "macro")),
        "ms_per_row": seconds * 1e3 / len(labels),
    }


def main():
    print(json.dumps({"ok": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "quit":
            break
        try:
            print(json.dumps(answer(request)), flush=True)
        except Exception as error:  # noqa: BLE001 - the bench says which model failed
            print(json.dumps({"ok": False, "error": f"{type(error).__name__}: {error}"}), flush=True)


if __name__ == "__main__":
    main()
