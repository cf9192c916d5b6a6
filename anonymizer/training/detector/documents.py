"""Labelled documents from the committed wordings.

A wording belongs to one half for ever: `half` hashes its text. Training sees the half `train` only, with any values; the
half `held` is for the figures. Words of form fields are halved in the same way.
"""

import hashlib
import json
import random
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from . import messages, noise
from .slots import DATA, Filler, Parts, fill, tables

#: Start, end (code points) and label.
Spans = list[tuple[int, int, str]]


@dataclass
class Document:
    """A text with its personal data."""

    text: str
    spans: Spans
    language: str
    genre: str
    tags: list[str] = field(default_factory=list)

    def json(self, name: str) -> str:
        spans = [{"start": start, "end": end, "label": label} for start, end, label in self.spans]
        return json.dumps({"id": name, "genre": self.genre, "language": self.language, "text": self.text,
                           "spans": spans}, ensure_ascii=False)


def half(text: str) -> str:
    """`train` or `held`, by the hash of a wording."""
    return "held" if hashlib.sha256(text.strip().encode()).digest()[0] & 1 else "train"


@cache
def wordings(folder: str = "") -> dict[str, list[tuple[str, str]]]:
    """Genre and text of all wordings by language. A file is `<language>[-anything].txt`; wordings begin with `### genre`,
    or, under a genre that ends in `*`, each line is one."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted((DATA / folder).glob("*.txt")):
        language = path.stem.split("-")[0]
        for block in path.read_text().split("### ")[1:]:
            genre, _, text = block.partition("\n")
            genre = genre.strip()
            texts = [text.strip("\n")]
            if genre.endswith("*"):
                genre, texts = genre[:-1], [line.replace("\\n", "\n") for line in text.splitlines() if line.strip()]
            found.setdefault(language, []).extend((genre, one) for one in texts if one.strip())
    return found


@cache
def fields() -> dict[str, dict[str, list[str]]]:
    """Per language and slot, the words before a value: `data/fields.toml`."""
    return tomllib.loads((DATA / "fields.toml").read_text())


def assemble(parts: Parts) -> tuple[str, Spans]:
    """Text and spans of parts."""
    text, spans = "", []
    for piece, label in parts:
        if label:
            spans.append((len(text), len(text) + len(piece), label))
        text += piece
    return text, spans


class Writer:
    """Writes documents of one half."""

    def __init__(self, seed: int, which: str, wheels: Path):
        self.rng = random.Random(f"{seed}-{which}")
        self.which = which
        pick = lambda source: {language: [entry for entry in entries if half(entry[1]) == which]
                               for language, entries in source.items()}
        self.personal = pick(wordings())
        self.clean = pick(wordings("clean"))
        self.messages = pick(messages.texts(wheels))
        self.lengths = {id(entries): [len(text) ** 0.5 for _, text in entries]
                        for source in (self.personal, self.clean, self.messages) for entries in source.values()}
        self.fields = {language: {slot: [word for word in words if half(word) == which] or words[:1]
                                  for slot, words in slots.items()} for language, slots in fields().items()}
        self.languages = [language for language in tables()["language"] if self.personal.get(language)]
        weight = lambda language: 6 if language == "en" else 2 if language in ("de", "fr", "es", "it", "pt", "nl") else 1
        self.weights = [weight(language) for language in self.languages]

    def language(self) -> str:
        return self.rng.choices(self.languages, self.weights)[0]

    def from_wording(self, language: str, genre: str, form: str) -> Document:
        """One wording with values."""
        filler = Filler(self.rng, language)
        text, spans = assemble(fill(form, filler))
        return Document(text, spans, language, genre)

    def form_parts(self, language: str) -> Parts:
        """Key and value pairs in one of many notations, or a table."""
        rng = self.rng
        # Programs write English keys around values of any language.
        words = self.fields.get(language if rng.random() < 0.75 else "en") or self.fields["en"]
        filler = Filler(rng, language)
        slots = rng.sample(sorted(words), min(len(words), rng.randrange(1, 8)))
        rows = [(rng.choice(words[slot]), filler(slot)) for slot in slots]
        return noise.notation(rng, rows, lambda slot: Filler(rng, language)(slot), slots)

    def bare(self, language: str) -> Parts:
        """Values alone, without a word around them."""
        rng = self.rng
        filler = Filler(rng, language)
        slots = ["name", "name", "last_first", "email", "phone", "addr", "addr", "block", "iban", "name", "eastern"]
        parts: Parts = []
        gap = rng.choice(["\n", ", ", " ", "; ", " / ", "\t", " | "])
        for slot in rng.sample(slots, rng.randrange(1, 5)):
            if parts:
                parts.append((gap, None))
            parts.extend(filler(slot))
        return parts

    def document(self) -> Document:
        """A document for training: wordings joined, forms, bare values, clean texts, with noise."""
        rng = self.rng
        language = self.language()
        kind = rng.random()
        if kind < 0.20:
            text, spans = assemble(self.form_parts(language))
            made = Document(text, spans, language, "form")
        elif kind < 0.26:
            text, spans = assemble(self.bare(language))
            made = Document(text, spans, language, "bare")
        elif kind < 0.42:
            made = self.clean_document(language)
        else:
            made = self.joined(language)
        return noise.disturb(rng, made)

    def draw(self, pool: list[tuple[str, str]]) -> tuple[str, str]:
        """One of a language's wordings; long ones come oftener than short ones, with the root of their length."""
        return self.rng.choices(pool, self.lengths[id(pool)])[0]

    def clean_document(self, language: str) -> Document:
        rng = self.rng
        if rng.random() < 0.35:
            language = "en"
        pool = self.clean.get(language) or self.clean["en"]
        if rng.random() < 0.4:
            pool = self.messages.get(language) or pool
        parts = [self.from_wording(language, *self.draw(pool)) for _ in range(rng.randrange(1, 4))]
        return join(rng, parts)

    def joined(self, language: str) -> Document:
        """Wordings of one language, sometimes with clean ones between, as one document."""
        rng = self.rng
        pool, clean = self.personal[language], self.clean.get(language) or []
        parts = []
        for _ in range(rng.choice([1, 1, 1, 2, 2, 3])):
            part = self.draw(clean if clean and rng.random() < 0.2 else pool)
            parts.append(self.from_wording(language, *part))
        return join(rng, parts)


def join(rng: random.Random, parts: list[Document]) -> Document:
    """Documents one after the other."""
    text, spans = "", []
    gap = rng.choice(["\n", "\n\n", " ", "\n", " "])
    for part in parts:
        if text:
            text += gap
        spans.extend((start + len(text), end + len(text), label) for start, end, label in part.spans)
        text += part.text
    return Document(text, spans, parts[0].language, parts[0].genre)


def write_held(path: Path, seed: int, fills: int, wheels: Path) -> int:
    """Writes the held-out half: every wording `fills` times, forms and bare values; no noise is added to wordings."""
    writer = Writer(seed, "held", wheels)
    lines = []
    for language in writer.languages:
        for index, (genre, form) in enumerate(writer.personal[language]):
            for time in range(fills):
                made = writer.from_wording(language, genre, form)
                lines.append(made.json(f"held-{language}-{index:03}-{time}"))
        for index in range(6):
            text, spans = assemble(writer.form_parts(language))
            lines.append(Document(text, spans, language, "form").json(f"held-{language}-form-{index}"))
        for index, (genre, form) in enumerate(writer.clean.get(language, [])):
            made = writer.from_wording(language, genre, form)
            made.genre = f"clean_{genre}"
            lines.append(made.json(f"held-{language}-clean-{index:03}"))
        messages_of = writer.messages.get(language, [])
        for index, (genre, form) in enumerate(writer.rng.sample(messages_of, min(10, len(messages_of)))):
            made = writer.from_wording(language, genre, form)
            made.genre = f"clean_{genre}"
            lines.append(made.json(f"held-{language}-message-{index:03}"))
    path.write_text("\n".join(lines) + "\n")
    return len(lines)
