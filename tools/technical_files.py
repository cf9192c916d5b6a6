#!/usr/bin/env python3
"""How often the anonymizer finds something in technical files that hold no person's data.

    python3 tools/technical_files.py --anonymize target/release/anonymize --seed 1 [-- --backend dense]

Samples 90 files of this machine, READMEs, changelogs, licences and source of crates in ~/.cargo/registry/src and files in
/usr/share/doc, scans them, and prints what was found where. A find on a line that names an author, a copyright holder, a
contributor or an address of mail counts as a person's data; a file with any other find counts as flagged. The rule by
which lines are told apart is `PERSONAL` below; it is rough, so read the list.
"""
import argparse
import gzip
import json
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

#: Kind of file, how many, where, and which names.
KINDS = [
    ("readme", 22, "crates", re.compile(r"^readme", re.I)),
    ("changelog", 16, "crates", re.compile(r"^(changelog|changes|history|news|releases)", re.I)),
    ("licence", 10, "crates", re.compile(r"^(licen[cs]e|copying|unlicense)", re.I)),
    ("source", 26, "crates", re.compile(r"\.(rs|c|h|toml|py)$")),
    ("doc", 16, "doc", re.compile(r"")),
]
BYTES = (400, 16000)
PERSONAL = re.compile(
    r"\S@\S|(^|\W)@\w|copyright|©|\(c\)|author|maintain|contribut|thanks|credit|written by|reported|suggested|"
    r"\bby\b.{0,3}\[?@?[A-Z]|signed-off|co-authored|developed by|on behalf|packaged|upstream contact|github\.com/\w+\)|"
    r"<[^>]*@|~\w+/",
    re.I,
)


def candidates(place, pattern):
    """Files of a kind, sorted."""
    if place == "crates":
        roots = sorted((Path.home() / ".cargo/registry/src").glob("*/*"))
    else:
        roots = sorted(Path("/usr/share/doc").glob("*"))
    for root in roots:
        for path in sorted(root.rglob("*")) if root.is_dir() else []:
            if path.is_file() and not path.is_symlink() and pattern.search(path.name):
                yield path


def text_of(path):
    """The text of a file, unless it is none or of another size."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError):
            return None
    if not BYTES[0] <= len(data) <= BYTES[1]:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def sample(seed):
    """Files with their texts; no two of a kind are of one crate."""
    rng = random.Random(seed)
    for kind, count, place, pattern in KINDS:
        paths, crates = list(candidates(place, pattern)), set()
        rng.shuffle(paths)
        for path in paths:
            crate = path.relative_to(Path.home() / ".cargo/registry/src").parts[1] if place == "crates" else path.parts[4]
            if count == 0:
                break
            text = None if crate in crates else text_of(path)
            if text:
                crates.add(crate)
                count -= 1
                yield f"{kind}:{crate}/{path.name}", text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anonymize", default="target/release/anonymize", help="the program")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quiet", action="store_true", help="print totals only")
    parser.add_argument("--write", type=Path, help="write the files as labelled documents without spans, and end")
    parser.add_argument("options", nargs="*", help="options of `anonymize redact`")
    args = parser.parse_args()
    files = dict(sample(args.seed))
    if args.write:
        lines = [json.dumps({"id": name, "genre": name.split(":")[0], "text": text, "spans": []}) for name, text in files.items()]
        args.write.write_text("\n".join(lines) + "\n")
        return
    lines = "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in files.items())
    command = [args.anonymize, "redact", "--jsonl", "--quiet", *args.options]
    done = subprocess.run(command, input=lines, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    flagged, labels = Counter(), Counter()
    for line in done.stdout.splitlines():
        record = json.loads(line)
        name, text = record["id"], files[record["id"]]
        others = []
        for span in record["spans"]:
            start = text.rfind("\n", 0, span["start"]) + 1
            end = (text + "\n").index("\n", span["end"])
            if not PERSONAL.search(text[start:end]):
                others.append((span, text[start:end].strip()))
                labels[f"{span['label']} ({span['source']})"] += 1
        flagged[name.split(":")[0]] += bool(others)
        if others and not args.quiet:
            print(name)
            for span, around in others[:12]:
                at = text[span["start"]:span["end"]]
                print(f"    {span['label']:18} {span['score']:.2f} {span['source']:12} {at!r} in {around[:110]!r}")
    print(f"{sum(flagged.values())} of {len(files)} files flagged without a person's data: {dict(flagged)}")
    print(labels.most_common(20))


if __name__ == "__main__":
    main()
