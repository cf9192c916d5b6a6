"""The tokenizer of multilingual-e5-small, cut to the scripts that the detector serves."""

import json
import re
import unicodedata

from tokenizers import Tokenizer

#: Pieces kept per script, most frequent first; Han is split into characters, so only these are kept.
QUOTAS = {
    "LATIN": 21000, "CYRILLIC": 5500, "ARABIC": 3600, "GREEK": 1300, "HEBREW": 1300, "DEVANAGARI": 1600,
    "BENGALI": 1000, "THAI": 1600, "HANGUL": 3200, "KANA": 1600, "CJK": 6500, "COMMON": 1500,
}
#: What stands for a line break, which the normalizer would else turn into a space.
LINE = "¶"
SPECIAL = {"<s>": "[CLS]", "<pad>": "[PAD]", "</s>": "[SEP]", "<unk>": "[UNK]"}
#: Han characters, punctuation and digits in twos are words of their own, with the space before them.
WORDS = r"\p{Han}| ?[\p{P}\p{S}]| ?\p{Nd}{1,2}"


def script(piece: str) -> str | None:
    """The script of a piece, `COMMON` for digits and signs, `None` if it is not served or mixed."""
    found = set()
    for char in piece.strip("▁"):
        name = unicodedata.name(char, "")
        if not char.isalpha() and not unicodedata.category(char).startswith("M"):
            continue
        word = name.split(" ")[0]
        if word in ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"):
            word = "KANA"
        found.add(word)
    if not found:
        return "COMMON"
    return found.pop() if len(found) == 1 and next(iter(found)) in QUOTAS else None


def cut(source: bytes) -> tuple[bytes, list[int]]:
    """The cut `tokenizer.json`, and per kept piece its row in the embeddings."""
    spec = json.loads(source)
    pieces = spec["model"]["vocab"]
    room = dict(QUOTAS)
    kept = []
    for row, (piece, _) in enumerate(pieces):
        if piece in SPECIAL:
            kept.append(row)
            continue
        bare = piece.strip("▁")
        kind = script(piece)
        if row >= len(pieces) - 1 or kind is None:
            continue
        if kind == "CJK" and (len(bare) > 1 or piece != bare or room[kind] <= 0):
            continue
        if kind == "COMMON" and (len(bare) > 2 or (len(bare) == 2 and not bare.isdigit())):
            continue
        # Single characters are kept whatever their place, so that no word of a served script is unknown.
        if room[kind] <= 0 and len(bare) > 1:
            continue
        room[kind] -= 1
        kept.append(row)
    vocab = [[SPECIAL.get(pieces[row][0], pieces[row][0]), pieces[row][1]] for row in kept]
    charsmap = next(step for step in spec["normalizer"]["normalizers"] if step["type"] == "Precompiled")
    replace = lambda pattern, content: {"type": "Replace", "pattern": pattern, "content": content}
    text = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": index, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for index, (name, _) in enumerate(vocab[:4])
        ],
        "normalizer": {"type": "Sequence", "normalizers": [
            replace({"Regex": "[ \t\r]*\n[ \t\r\n]*"}, f"{LINE} "), charsmap, replace({"Regex": " {2,}"}, " "),
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
        ]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}},
                     {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "special_tokens": {name: {"id": name, "ids": [index], "tokens": [name]}
                               for index, name in ((0, "[CLS]"), (2, "[SEP]"))}},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False},
    }
    return json.dumps(text, ensure_ascii=False, separators=(",", ":")).encode(), kept


#: Scripts written without spaces, where a word of the tokenizer is no word.
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def places(text: str, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offsets without the white space at their ends and without overlaps, as the detector has them. A token that stands
    for white space alone has an empty one."""
    result = []
    for index, (start, end) in enumerate(offsets):
        if index + 1 < len(offsets):
            end = max(start, min(end, offsets[index + 1][0]))
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        result.append((start, end))
    return result


def load(data: bytes) -> Tokenizer:
    """The tokenizer of a file's bytes."""
    return Tokenizer.from_str(data.decode())
