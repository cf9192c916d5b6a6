#!/usr/bin/env python3
"""Values removed whole, characters that leak, and clean documents flagged, by genre or language, with 95 % bootstrap intervals.

    python3 tools/removed_values.py testdata/pii/free-h.jsonl --anonymize target/release/anonymize --options "--backend dense"

Runs `anonymize redact --jsonl --per-document` on labelled documents. A value is removed if every letter and digit of it is
covered by some find, whatever its type.
"""
import argparse
import json
import random
import subprocess
import sys
from collections import defaultdict

#: Types that are off by default.
QUIET = {"ORGANIZATION", "DATE"}


def score(document, spans):
    """Values removed and all, characters leaked, personal, redacted without need and others."""
    text = document["text"]
    hit, gold = [False] * len(text), [False] * len(text)
    for span in spans:
        hit[span["start"]:span["end"]] = [True] * (span["end"] - span["start"])
    removed = total = 0
    for span in document["spans"]:
        inside = range(span["start"], span["end"])
        if span["label"] in QUIET:
            for at in inside:
                hit[at] = False
            continue
        total += 1
        removed += all(hit[at] for at in inside if text[at].isalnum())
        for at in inside:
            gold[at] = True
    count = lambda wanted: sum(1 for at, char in enumerate(text) if char.isalnum() and wanted(at))
    return {"removed": removed, "values": total, "leaked": count(lambda at: gold[at] and not hit[at]),
            "personal": count(lambda at: gold[at]), "over": count(lambda at: hit[at] and not gold[at]),
            "rest": count(lambda at: not gold[at])}


def rates(rows):
    """Removed, leak and over-redaction in percent."""
    ratio = lambda over, under: 100 * sum(row[over] for row in rows) / max(1, sum(row[under] for row in rows))
    return ratio("removed", "values"), ratio("leaked", "personal"), ratio("over", "rest")


def line(name, rows):
    rng = random.Random(1)
    draws = [rates(rng.choices(rows, k=len(rows))) for _ in range(300)]
    cells = []
    for index, value in enumerate(rates(rows)):
        ordered = sorted(draw[index] for draw in draws)
        cells.append(f"{value:.1f} ({ordered[7]:.1f} to {ordered[292]:.1f})")
    clean = [row for row in rows if not row["personal"]]
    flagged = sum(row["over"] > 0 for row in clean)
    return f"| {name} | {len(rows)} | {sum(row['values'] for row in rows)} | {' | '.join(cells)} | {flagged} of {len(clean)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="labelled documents")
    parser.add_argument("--anonymize", default="target/release/anonymize", help="the program")
    parser.add_argument("--by", default="genre", help="field to group by")
    parser.add_argument("--options", default="", help="options of `anonymize redact`")
    args = parser.parse_args()
    for path in args.sets:
        documents = [json.loads(one) for one in open(path, encoding="utf-8")]
        lines = "".join(json.dumps({"id": one["id"], "text": one["text"]}) + "\n" for one in documents)
        command = [args.anonymize, "redact", "--jsonl", "--quiet", "--per-document", *args.options.split()]
        done = subprocess.run(command, input=lines, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        found = {one["id"]: one["spans"] for one in map(json.loads, done.stdout.splitlines())}
        groups = defaultdict(list)
        for document in documents:
            groups[document[args.by]].append(score(document, found[document["id"]]))
        print(f"{path}\n| {args.by} | documents | values | removed, % | leak, % | over-redaction, % | clean flagged |")
        print("|---|---|---|---|---|---|---|")
        print(line("all", [row for rows in groups.values() for row in rows]))
        for name, rows in sorted(groups.items()):
            print(line(name, rows))


if __name__ == "__main__":
    main()
