"""`python -m detector`: fetches, trains, evaluates and writes the detector. See README.md."""

import argparse
import hashlib
import json
from pathlib import Path

from . import documents, evaluate, export, train, vocabulary

HERE = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m detector", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work"), help="downloads and checkpoints")
    parser.add_argument("--out", type=Path, default=HERE / "model", help="the model's directory")
    parser.add_argument("--layers", default="0,1,2,3,4,5", help="blocks of the base encoder that are kept")
    parser.add_argument("--steps", type=int, default=4000, help="steps of each process")
    parser.add_argument("--minutes", type=float, default=1e9, help="end after this time, wherever it is")
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--name", default="detector", help="name of the checkpoint; an existing one is continued")
    parser.add_argument("--start", type=Path, help="checkpoint whose weights to begin with")
    parser.add_argument("--only", choices=["held", "train", "evaluate", "export"], help="one stage instead of all")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    stages = [args.only] if args.only else ["held", "train", "evaluate", "export"]
    held, checkpoint = args.work / "held.jsonl", args.work / f"{args.name}.pt"
    if "held" in stages:
        print(documents.write_held(held, args.seed, 2, args.work / "wheels"), "held-out documents", flush=True)
    if "train" in stages:
        layers = [int(layer) for layer in args.layers.split(",")]
        train.train(args.work, layers, args.minutes, args.steps, args.rate, args.seed, args.name, args.start,
                    processes=args.processes)
    tokenizer = (args.work / "tokenizer.json").read_bytes() if (args.work / "tokenizer.json").exists() else b""
    if "evaluate" in stages:
        report = evaluate.evaluate(evaluate.load(checkpoint), vocabulary.load(tokenizer), held)
        (args.work / f"{args.name}.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        (args.work / f"{args.name}.md").write_text(evaluate.tables(report))
        print(json.dumps(report["all"]))
    if "export" in stages:
        export.export(checkpoint, tokenizer, args.out)
        for path in sorted(args.out.iterdir()):
            print(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size, path.name)


if __name__ == "__main__":
    main()
