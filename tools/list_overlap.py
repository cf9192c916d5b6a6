#!/usr/bin/env python3
"""Prints, per word list of the anonymizer, how many of its words occur in the labelled documents of testdata/pii.

A list most of whose words occur there was probably grown from these documents: their scores flatter it.

    python3 tools/list_overlap.py [SET.jsonl ...]
"""

import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def lists(data: Path) -> dict[str, set[str]]:
    """Words by list, over all data files."""
    found: dict[str, set[str]] = {}
    for path in sorted(data.rglob("*.toml")):
        for name, value in tomllib.loads(path.read_text(encoding="utf-8")).items():
            if isinstance(value, dict):
                for label, words in value.items():
                    key = name if isinstance(words, str) else f"{name}.{label}"
                    found.setdefault(key, set()).update([words] if isinstance(words, str) else words)
            elif isinstance(value, list):
                words = [word if isinstance(word, str) else word["name"] for word in value]
                found.setdefault(name, set()).update(words)
    found.pop("forms", None)
    return found


def occurs(word: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word.strip().lower())}(?!\w)", text) is not None


def main() -> None:
    sets = [Path(path) for path in sys.argv[1:]] or sorted((ROOT / "testdata/pii").glob("*.jsonl"))
    documents = [json.loads(line)["text"] for path in sets for line in path.read_text(encoding="utf-8").splitlines()]
    text = "\n".join(documents).lower()
    print(f"{len(documents)} documents\n{'list':<36} {'words':>6} {'occur':>6} {'share':>6}")
    for name, words in sorted(lists(ROOT / "anonymizer/data").items()):
        count = sum(occurs(word, text) for word in words)
        print(f"{name:<36} {len(words):>6} {count:>6} {100 * count / len(words):>5.0f}%")


if __name__ == "__main__":
    main()
