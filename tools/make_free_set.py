#!/usr/bin/env python3
"""Converts the free documents of the anonymizer: `### language genre`, then text with `[[LABEL|value]]`.

    python3 tools/make_free_set.py testdata/pii/free-g.txt > testdata/pii/free-g.jsonl

The genre in the output is the language, so that `anonymize eval` scores by language.
"""
import json
import sys
from pathlib import Path

from make_pii_set import handwritten


def main():
    path = Path(sys.argv[1])
    for number, entry in enumerate(handwritten(path.read_text(encoding="utf-8"))):
        language, genre = entry["genre"].split()
        clean = genre == "clean"
        assert clean == (not entry["spans"]), entry["genre"]
        entry["id"], entry["genre"] = f"{path.stem}-{number:02d}-{language}-{genre}", language
        print(json.dumps(entry, ensure_ascii=False))


if __name__ == "__main__":
    main()
