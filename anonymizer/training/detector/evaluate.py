"""Figures of a model on the held-out half, by its own labels alone: no rule of the anonymizer helps here."""

import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from . import vocabulary
from .labels import CLASSES
from .train import Classifier

#: Types that are not reported unless they are switched on.
QUIET = {"ORGANIZATION", "DATE"}


def load(checkpoint: Path) -> Classifier:
    """The model of a checkpoint."""
    saved = torch.load(checkpoint, map_location="cpu")
    vocabulary_size, hidden = saved["model"]["word.weight"].shape
    sizes = {"hidden": hidden, "inner": saved["model"]["blocks.0.fi.weight"].shape[0], "heads": 12,
             "positions": saved["model"]["pos.weight"].shape[0], "types": 2}
    model = Classifier(sizes, len(saved["layers"]), vocabulary_size)
    model.load_state_dict(saved["model"])
    return model.eval()


@torch.no_grad()
def found(model: Classifier, tokenizer, text: str, threshold: float = 0.5) -> list[tuple[int, int, str]]:
    """Character ranges that the model takes for personal, each with its likeliest type. Neighbours are not joined."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    places = vocabulary.places(text, encoding.offsets)
    result, room = [], 200
    for start in range(0, len(encoding.ids), room):
        ids = torch.tensor([[0, *encoding.ids[start:start + room], 2]])
        probabilities = model(ids)[0].float().softmax(1)[1:-1].numpy()
        for (begin, end), row in zip(places[start:start + room], probabilities):
            quiet = sum(row[CLASSES.index(f"{mark}-{label}")] for label in QUIET for mark in "BI")
            if begin < end and 1 - row[0] - quiet >= threshold:
                result.append((begin, end, CLASSES[1 + int(row[1:].argmax())][2:]))
    return result


def evaluate(model: Classifier, tokenizer, path: Path) -> dict:
    """Values removed whole, characters that leak, characters redacted too much, clean documents flagged; each by language,
    genre and, of values, type, with 95 % bootstrap intervals over documents."""
    rows = []
    for line in path.read_text().splitlines():
        made = json.loads(line)
        text = made["text"]
        hit = np.zeros(len(text), bool)
        for start, end, _ in found(model, tokenizer, text):
            hit[start:end] = True
        gold = np.zeros(len(text), bool)
        values = []
        for span in made["spans"]:
            if span["label"] in QUIET:
                hit[span["start"]:span["end"]] = False
                continue
            gold[span["start"]:span["end"]] = True
            inside = [hit[at] for at in range(span["start"], span["end"]) if text[at].isalnum()]
            values.append((span["label"], all(inside)))
        letters = np.array([char.isalnum() for char in text], bool)
        rows.append({"language": made["language"], "genre": made["genre"], "values": values,
                     "leaked": int((gold & ~hit & letters).sum()), "personal": int((gold & letters).sum()),
                     "over": int((hit & ~gold & letters).sum()), "rest": int((~gold & letters).sum())})
    report = {"all": figures(rows)}
    for key in ("language", "genre"):
        groups = defaultdict(list)
        for row in rows:
            groups[row[key]].append(row)
        report[key] = {name: figures(group) for name, group in sorted(groups.items())}
    types = defaultdict(lambda: [0, 0])
    for row in rows:
        for label, removed in row["values"]:
            types[label][0] += removed
            types[label][1] += 1
    report["type"] = {label: {"removed": round(good / count, 4), "values": count}
                      for label, (good, count) in sorted(types.items())}
    return report


def figures(rows: list[dict]) -> dict:
    """The figures of some documents."""
    rng = random.Random(1)
    clean = [row for row in rows if not row["personal"]]
    def of(sample):
        values = [removed for row in sample for _, removed in row["values"]]
        ratio = lambda over, under: sum(row[over] for row in sample) / max(1, sum(row[under] for row in sample))
        return {"removed": sum(values) / max(1, len(values)), "leak": ratio("leaked", "personal"),
                "over": ratio("over", "rest")}
    draws = [of(rng.choices(rows, k=len(rows))) for _ in range(200)]
    interval = lambda name: [round(float(np.percentile([draw[name] for draw in draws], at)), 4) for at in (2.5, 97.5)]
    got = of(rows)
    return {"documents": len(rows), "values": sum(len(row["values"]) for row in rows),
            **{name: [round(got[name], 4), *interval(name)] for name in got},
            "clean": len(clean), "clean_flagged": sum(row["over"] > 0 for row in clean)}


def tables(report: dict) -> str:
    """The figures as tables for the model card."""
    percent = lambda value: f"{value * 100:.1f}"
    def row(name: str, got: dict) -> str:
        interval = lambda key: f"{percent(got[key][0])} ({percent(got[key][1])} to {percent(got[key][2])})"
        return (f"| {name} | {got['documents']} | {got['values']} | {interval('removed')} | {interval('leak')} | "
                f"{interval('over')} | {got['clean_flagged']} of {got['clean']} |")
    lines = []
    for key in ("language", "genre"):
        lines += [f"| {key} | documents | values | removed, % | leak, % | over-redaction, % | clean flagged |",
                  "|---|---|---|---|---|---|---|", row("all", report["all"])]
        lines += [row(name, got) for name, got in report[key].items() if key == "language" or got["documents"] >= 10]
        lines.append("")
    lines += ["| type | values | removed, % |", "|---|---|---|"]
    lines += [f"| {label} | {got['values']} | {percent(got['removed'])} |" for label, got in report["type"].items()]
    return "\n".join(lines) + "\n"
