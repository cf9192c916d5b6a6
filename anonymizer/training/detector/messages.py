"""Texts without personal data from Django (BSD licence): its messages in many languages, and its source code."""

import ast
import re
from functools import cache
from pathlib import Path

from . import sources

LOCALES = {"zh": ["zh_Hans", "zh_Hant"], "no": ["nb"], "pt": ["pt", "pt_BR"]}
#: What may stand beside a person's data.
PERSONAL = re.compile(r"@|author|copyright|license|maintainer|thanks|\bby [A-Z]", re.IGNORECASE)


def entries(po: str) -> list[tuple[str, str]]:
    """The pairs of a .po file: message and translation."""
    pairs = []
    for block in po.split("\n\n"):
        text = {"msgid": "", "msgstr": ""}
        key = None
        for line in block.splitlines():
            head, _, rest = line.partition(" ")
            if head in text or head == "msgstr[0]":
                key = head[:6]
                text[key] += ast.literal_eval(rest)
            elif line.startswith('"') and key:
                text[key] += ast.literal_eval(line)
            elif not line.startswith("#"):
                key = None
        pairs.append((text["msgid"], text["msgstr"]))
    return pairs[1:]


@cache
def texts(wheels: Path) -> dict[str, list[tuple[str, str]]]:
    """Genre and text by language, as `documents.wordings` gives them. Braces are doubled: these are no forms."""
    wheel = sources.fetch(sources.MESSAGES, wheels)
    found: dict[str, list[tuple[str, str]]] = {}
    for name in sorted(wheel.namelist()):
        if name.endswith("/django.po"):
            locale = name.split("/locale/")[1].split("/")[0]
            language = next((one for one, all_of in LOCALES.items() if locale in all_of), locale)
            for message, translation in entries(wheel.read(name).decode()):
                text = message if locale == "en" else translation
                if 12 <= len(text) <= 400:
                    found.setdefault(language, []).append(("message", escaped(text)))
        elif name.endswith(".py") and "/locale/" not in name:
            lines = wheel.read(name).decode().splitlines()
            for start in range(0, len(lines), 40):
                chunk = "\n".join(lines[start:start + 6]).strip("\n")
                if len(chunk) > 80 and not PERSONAL.search(chunk):
                    found.setdefault("en", []).append(("code", escaped(chunk)))
    return {language: sorted(set(texts)) for language, texts in found.items()}


def escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}").replace("[[", "[ [")
