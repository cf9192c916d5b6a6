"""What happens to text on its way: notations of forms, case, typing, OCR, quoting, line breaks."""

import random

from .slots import Parts, ascii_only


def notation(rng: random.Random, rows, again, slots) -> Parts:
    """Pairs of a key and the parts of a value, written down in one of many ways. `again` draws another value of a slot, for
    tables with several rows."""
    kind = rng.random()
    if kind < 0.2 and len(rows) > 1:
        return table(rng, rows, again, slots)
    before, between, after = rng.choice([
        ("", ": ", "\n"), ("", ": ", "\n"), ("", ":", "\n"), ("", " : ", "\n"), ("", " = ", "\n"), ("", "=", "\n"), ("", "=", "&"),
        ("", "\t", "\n"), ("", "\n", "\n"), ("", "\n", "\n\n"), ("- ", ": ", "\n"), ("* ", " - ", "\n"), ("", ": ", ", "), ("", " ", ", "),
        ("", " ", "\n"), ("", ": ", "; "), ("", "=", " "), ("  \"", "\": \"", "\",\n"), ("\"", "\":\"", "\","), ("'", "': '", "', "),
        ("<b>", "</b> ", "<br>\n"), ("<tr><td>", "</td><td>", "</td></tr>\n"), ("<dt>", "</dt><dd>", "</dd>"), ("| ", " | ", " |\n"),
        ("**", "**: ", "\n"), ("", " -> ", "\n"), ("", "......: ", "\n"), ("[", "] ", "\n"), ("", ": [", "]\n"), ("<", ">", "</>\n"),
        ("", "：", "\n"), ("  ", ": ", "\n"), ("# ", "\n", "\n"), ("(", ": ", ") "), ("• ", " – ", "\n"), ("", "='", "' "),
    ])
    parts: Parts = []
    key_case = rng.choice([str, str, str, str.lower, str.upper, snake])
    for key, value in rows:
        parts.append((before + key_case(key) + between, None))
        parts.extend(flat(value, "\"" in before or between == "="))
        parts.append((after, None))
    if before.strip() == "\"":
        parts = [("{\n", None), *parts, ("}", None)]
    return parts


def snake(key: str) -> str:
    return key.lower().replace(" ", "_")


def flat(value: Parts, one_line: bool) -> Parts:
    return [(text.replace("\n", ", ") if one_line else text, label) for text, label in value]


def table(rng: random.Random, rows, again, slots) -> Parts:
    """Keys in a line, then a few lines of values."""
    gap = rng.choice([",", ";", "\t", " | ", ", ", "|"])
    case = rng.choice([str, str.lower, snake, str.upper])
    parts: Parts = []
    if rng.random() < 0.8:
        parts.append((gap.join(case(key) for key, _ in rows) + "\n", None))
    for line in range(rng.randrange(1, 5)):
        for index, (_, value) in enumerate(rows):
            value = flat(value if line == 0 else again(slots[index]), True)
            if gap.strip() == ",":
                quote = any("," in text for text, _ in value) or rng.random() < 0.1
                value = [("\"", None), *value, ("\"", None)] if quote else value
            parts.extend(([(gap, None)] if index else []) + value)
        parts.append(("\n", None))
    return parts


def disturb(rng: random.Random, made):
    """A document with noise, in place; spans follow the text."""
    chance = rng.random()
    if chance < 0.07:
        recase(made, str.lower, None)
    elif chance < 0.12:
        recase(made, str.upper, None)
    elif chance < 0.15:
        recase(made, str.lower, made.spans)
    elif chance < 0.17:
        recase(made, str.upper, [span for span in made.spans if span[2] in ("SURNAME", "CITY")])
    if rng.random() < 0.06:
        recase(made, ascii_only, None)
    if rng.random() < 0.05:
        rewrite(rng, made, ocr, rng.choice([0.01, 0.03]))
    if rng.random() < 0.06:
        rewrite(rng, made, typing, rng.choice([0.005, 0.02]))
    if rng.random() < 0.08:
        rewrite(rng, made, wrap, rng.choice([0.05, 0.15]))
    if rng.random() < 0.05:
        substitute(made, "\n", rng.choice(["\n> ", " ", "\\n", "<br>", "\r\n", "\n    ", "\n\n"]))
    if rng.random() < 0.03:
        substitute(made, "&", "&amp;")
    return made


def recase(made, change, spans) -> None:
    """Changes case, in all of the text or in spans. Letters that would change their length stay."""
    chars = list(made.text)
    ranges = [(0, len(chars))] if spans is None else [(start, end) for start, end, _ in spans]
    for start, end in ranges:
        for at in range(start, end):
            changed = change(chars[at])
            if len(changed) == 1:
                chars[at] = changed
    made.text = "".join(chars)


def rewrite(rng: random.Random, made, change, rate: float) -> None:
    """Replaces single characters by what `change` gives, at a rate."""
    pieces = [change(rng, char) if rng.random() < rate else char for char in made.text]
    apply(made, pieces)


def apply(made, pieces: list[str]) -> None:
    """Takes a text whose every character became a piece; spans follow."""
    starts, at = [], 0
    for piece in pieces:
        starts.append(at)
        at += len(piece)
    starts.append(at)
    made.text = "".join(pieces)
    moved = [(starts[start], starts[end], label) for start, end, label in made.spans]
    made.spans = [(start, end, label) for start, end, label in moved if start < end]


def substitute(made, old: str, new: str) -> None:
    apply(made, [new if char == old else char for char in made.text])


OCR = {"0": "O", "O": "0", "1": "l", "l": "1", "I": "l", "5": "S", "S": "5", "B": "8", "8": "B", "m": "rn", "e": "c", "a": "o",
       "g": "q", "i": "í", ".": ",", ",": ".", "u": "ii", "h": "b", "Z": "2", "6": "b", "t": "f"}


def ocr(rng: random.Random, char: str) -> str:
    return OCR.get(char, char + rng.choice(["", " ", "", "'"]) if char.isalnum() else char)


def typing(rng: random.Random, char: str) -> str:
    if not char.isalpha():
        return rng.choice([char, char + char, char])
    return rng.choice([char + char, "", char.swapcase() if len(char.swapcase()) == 1 else char, rng.choice("aeioustrn")])


def wrap(rng: random.Random, char: str) -> str:
    return rng.choice(["\n", "\n", "  "]) if char == " " else char
