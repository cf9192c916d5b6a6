#!/usr/bin/env python3
"""Writes the mixed set of the anonymizer: labelled documents with values as the package Faker makes them.

    pip install faker==40.63.0
    PYTHONHASHSEED=0 python3 tools/make_mixed_set.py testdata/pii/mixed.txt testdata/pii/mixed-c.jsonl testdata/pii/mixed-d.jsonl

The first file holds documents, `### genre`, then text. Halves c and d take the documents of a genre in turn. Format and
conventions as in `make_pii_set.py`; literal values are marked `[[LABEL|value]]`. Fields are filled by Faker: `{g}` given
name, `{s}` surname, `{name}` both, `{addr}` one line as the country writes it, and so on (see `Person`); `{g2}` is the
second person's, `{g.l}` lower case. A document may begin with `@locale`; else the first person is from the United States
in half of the documents.
"""
import json
import random
import re
import sys

from faker import Faker
from make_strangers_set import unmarked, written

SEED = 733021
ELSEWHERE = ["en_GB", "en_CA", "en_AU", "en_IN", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "pt_BR", "sv_SE"]
ADDRESSES = {"en_US": "{number} {street}, {city}, {region} {zip}", "en_CA": "{number} {street}, {city}, {region} {zip}",
             "en_AU": "{unit}, {number} {street}, {city} {region} {zip}", "en_GB": "{number} {street}, {city}, {zip}",
             "en_IN": "{number} {street}, {city} {zip}", "fr_FR": "{number} {street}, {zip} {city}",
             "pt_BR": "{street}, {number}, {city}, {zip}"}
CONTINENTAL = "{street} {number}, {zip} {city}"
HOSTS = ["pinegrove.example", "mailhaven.example.org", "quicknote.example.net"]
ASCII = str.maketrans("áàâäãåąçćéèêëęíìîïłñńóòôöõøśšúùûüýźż", "aaaaaaacceeeeeiiiilnnoooooossuuuuyzz")


class Person:
    """Fields of one person; each is drawn once and stays."""

    def __init__(self, rng, locale):
        (self.rng, self.locale, self.fake, self.drawn) = (rng, locale, Faker(locale), {})
        self.fake.seed_instance(rng.randrange(1 << 30))

    def get(self, field):
        if field not in self.drawn:
            self.drawn[field] = getattr(self, field)()
        return self.drawn[field]

    def raw(self, label, value):
        return f"[[{label}|{value}]]"

    def plain(self, field):
        value = re.sub(r"\[\[[A-Z_]+\||\]\]", "", self.get(field)).lower().translate(ASCII)
        return re.sub(r"[^a-z]", "", value.replace("ß", "ss")) or "x"

    g = lambda self: self.raw("GIVEN_NAME", self.fake.first_name())
    s = lambda self: self.raw("SURNAME", self.fake.last_name())
    name = lambda self: f"{self.get('g')} {self.get('s')}"
    city = lambda self: self.raw("CITY", self.fake.city())
    zip = lambda self: self.raw("ZIP_CODE", self.fake.postcode())
    street = lambda self: self.raw("STREET_NAME", self.fake.street_name())
    number = lambda self: self.raw("BUILDING_NUMBER", self.fake.building_number().strip("/, "))
    phone = lambda self: self.raw("PHONE_NUMBER", self.fake.phone_number())
    ssn = lambda self: self.raw("SSN", us(self.rng).ssn())
    ein = lambda self: self.raw("TAX_ID", us(self.rng).ein())
    iban = lambda self: self.raw("BANK_ACCOUNT", self.fake.iban())
    account = lambda self: self.raw("BANK_ACCOUNT", us(self.rng).numerify("%#########"))
    routing = lambda self: self.raw("ROUTING_NUMBER", us(self.rng).aba())
    passport = lambda self: self.raw("PASSPORT", us(self.rng).passport_number())
    ip = lambda self: self.raw("IP_ADDRESS", self.rng.choice([self.fake.ipv4_public(), self.fake.ipv4_public(), self.fake.ipv6()]))

    def region(self):
        if self.locale == "en_US":
            return self.raw("STATE", self.rng.choice([self.fake.state(), self.fake.state_abbr(include_territories=False)]))
        if self.locale in ("en_CA", "en_AU"):
            return self.raw("STATE", self.fake.province_abbr() if self.locale == "en_CA" else self.fake.state_abbr())
        return self.raw("STATE", us(self.rng).state())

    def unit(self):
        value = us(self.rng).secondary_address() if self.locale != "en_GB" else f"Flat {self.rng.randrange(1, 60)}"
        return self.raw("SECONDARY_ADDRESS", value)

    def addr(self):
        pattern = ADDRESSES.get(self.locale, CONTINENTAL)
        return re.sub(r"\{(\w+)\}", lambda m: self.get(m[1]), pattern)

    def email(self):
        (g, s) = (self.plain("g"), self.plain("s"))
        local = self.rng.choice([f"{g}{s}", f"{g[0]}{s}", f"{s}{g}", f"{g}.{s}", f"{s}{self.rng.randrange(10, 99)}"])
        return self.raw("EMAIL", f"{local}@{self.rng.choice(HOSTS)}")

    def card(self):
        number = us(self.rng).credit_card_number(self.rng.choice(["visa16", "mastercard", "amex", "discover"]))
        spaced = " ".join(re.findall("....", number)) if len(number) == 16 else number
        return self.raw("CREDIT_CARD_NUMBER", self.rng.choice([number, spaced]))

    def license(self):
        return self.raw("DRIVERS_LICENSE", us(self.rng).bothify(self.rng.choice(["?#######", "#########", "?###-####-####", "??######"])).upper())


def us(rng):
    """A Faker of the United States that continues `rng`."""
    fake = Faker("en_US")
    fake.seed_instance(rng.randrange(1 << 30))
    return fake


def main():
    source = open(sys.argv[1], encoding="utf-8").read()
    (seen, halves) = ({}, ([], []))
    for part in re.split(r"^### ", source, flags=re.M)[1:]:
        (genre, template) = part.rstrip("\n").split("\n", 1)
        turn = seen[genre] = seen.get(genre, -1) + 1
        rng = random.Random(f"{SEED} {genre} {turn}")
        pinned = re.match(r"@([A-Za-z_]+)\n", template)
        template = template[pinned.end():] if pinned else template
        for copy in range(2 if re.search(r"\{[a-z]+2?(\.l)?\}", template) else 1):
            home = pinned[1] if pinned else rng.choice(["en_US", rng.choice(ELSEWHERE)])
            people = [Person(rng, home), Person(rng, rng.choice([home, rng.choice(ELSEWHERE)]))]
            (text, spans) = unmarked(written(template, people))
            halves[turn % 2].append({"id": f"{genre}-{turn:02d}-{copy}", "genre": genre, "text": text, "spans": spans})
    for path, documents in zip(sys.argv[2:], halves):
        with open(path, "w", encoding="utf-8") as file:
            for entry in documents:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        clean = sum(not entry["spans"] for entry in documents)
        print(f"{path}: {len(documents)} documents, {clean} clean, {sum(len(d['spans']) for d in documents)} spans", file=sys.stderr)


if __name__ == "__main__":
    main()
