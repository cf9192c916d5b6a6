#!/usr/bin/env python3
"""Writes the strangers' set of the anonymizer: labelled documents that its rules were not made from.

    python3 tools/make_strangers_set.py testdata/pii/strangers.txt testdata/pii/strangers-a.jsonl testdata/pii/strangers-b.jsonl

The first file holds documents, `### genre`, then text with fields. Halves a and b take the documents of a genre in turn
and share neither texts nor names, cities and streets; a document with fields is written twice, for two pairs of people.
Python 3.9+, standard library only, deterministic. Format and conventions as in `make_pii_set.py`.

Fields: `{g}` given name, `{s}` surname, `{name}` both in western order, `{last}` surname first ("Sato, Kenji"),
`{east}` surname first without a comma, `{addr}` one line, `{block}` several lines, and so on (see `Person`). `{g2}` is
the second person's. `{g.l}` is lower case, `{s.u}` upper case. `[[LABEL|value]]` is a literal value.
"""
import json
import random
import re
import sys

SEED = 90417

# country: given names | surnames | (city, region, postcode) | streets | address | phones | identity number | tax number
# Names, places and streets are halved: the first half for a, the second for b.
PLACES = {
    "IN": ("Ananya Lakshmi Harpreet Devansh", "Venkataraman Bhattacharya Chauhan Mukherjee",
           [("Pune", "Maharashtra", "4110{d}{d}"), ("Kochi", "Kerala", "6820{d}{d}")], ["Bajirao Road", "Chittoor Road"],
           "{b} {st}, {c}, {r} {z}", ["+91 98{d}{d}{d} {d}{d}{d}{d}{d}", "098{d}{d}-{d}{d}{d}{d}{d}{d}"],
           ("Aadhaar", "{D}{d}{d}{d} {d}{d}{d}{d} {d}{d}{d}{d}"), ("PAN", "{A}{A}{A}P{A}{d}{d}{d}{d}{A}")),
    "NG": ("Ngozi Babatunde Ifeoma Chinedu", "Okonkwo Adeyemi Nwosu Balogun",
           [("Ibadan", "Oyo State", "2002{d}{d}"), ("Enugu", "Enugu State", "4001{d}{d}")], ["Awolowo Avenue", "Ogui Road"],
           "{b} {st}, {c} {z}, {r}", ["+234 803 {d}{d}{d} {d}{d}{d}{d}", "0803 {d}{d}{d} {d}{d}{d}{d}"],
           ("NIN", "{D}{d}{d}{d}{d}{d}{d}{d}{d}{d}{d}"), ("TIN", "{D}{d}{d}{d}{d}{d}{d}{d}-0001")),
    "JP": ("Haruka Kenji Sakura Takumi", "Sato Ishikawa Fujimoto Nakagawa",
           [("Sendai", "Miyagi", "980-08{d}{d}"), ("Kanazawa", "Ishikawa", "920-09{d}{d}")], ["Jozenji-dori", "Korinbo"],
           "{b} {st}, {c}, {r} {z}", ["+81 90-{d}{d}{d}{d}-{d}{d}{d}{d}", "090-{d}{d}{d}{d}-{d}{d}{d}{d}"],
           ("My Number", "{d}{d}{d}{d} {d}{d}{d}{d} {d}{d}{d}{d}"), ("tax number", "T{D}{d}{d}{d}{d}{d}{d}{d}{d}{d}{d}{d}{d}")),
    "KR": ("Jiwoo Minjun Seoyeon Hyunwoo", "Hwang Baek Kwon Shin",
           [("Daegu", "Gyeongsang", "419{d}{d}"), ("Gwangju", "Jeolla", "614{d}{d}")], ["Dongseong-ro", "Chungjang-ro"],
           "{b} {st}, {c} {z}", ["+82 10-{d}{d}{d}{d}-{d}{d}{d}{d}", "010-{d}{d}{d}{d}-{d}{d}{d}{d}"],
           ("resident registration number", "8{d}0{D}1{d}-1{d}{d}{d}{d}{d}{d}"), ("tax ID", "{D}{d}{d}-{d}{d}-{d}{d}{d}{d}{d}")),
    "BR": ("Thiago Larissa Joaquim Fernanda", "Nascimento Teixeira Carvalho Figueiredo",
           [("Curitiba", "Paraná", "80{d}{d}{d}-{d}{d}{d}"), ("Recife", "Pernambuco", "50{d}{d}{d}-{d}{d}{d}")],
           ["Rua XV de Novembro", "Avenida Boa Viagem"], "{st}, {b}, {c}, {r}, {z}",
           ["+55 41 9{d}{d}{d}{d}-{d}{d}{d}{d}", "(81) 9{d}{d}{d}{d}-{d}{d}{d}{d}"],
           ("RG", "{d}{d}.{d}{d}{d}.{d}{d}{d}-{d}"), ("CPF", "{d}{d}{d}.{d}{d}{d}.{d}{d}{d}-{d}{d}")),
    "PL": ("Agnieszka Wojciech Zbigniew Małgorzata", "Wiśniewska Krawczyk Jabłoński Szymańska",
           [("Wrocław", "Lower Silesia", "50-{d}{d}{d}"), ("Gdynia", "Pomerania", "81-{d}{d}{d}")], ["ul. Świdnicka", "ul. Morska"],
           "{st} {b}, {z} {c}", ["+48 6{d}{d} {d}{d}{d} {d}{d}{d}", "6{d}{d}-{d}{d}{d}-{d}{d}{d}"],
           ("PESEL", "8{d}0{D}1{d}{d}{d}{d}{d}{d}"), ("NIP", "{D}{d}{d}-{d}{d}{d}-{d}{d}-{d}{d}")),
    "FI": ("Aino Juhani Päivi Veikko", "Korhonen Mäkinen Virtanen Hämäläinen",
           [("Tampere", "Pirkanmaa", "331{d}{d}"), ("Oulu", "North Ostrobothnia", "901{d}{d}")], ["Hämeenkatu", "Kirkkokatu"],
           "{st} {b}, {z} {c}", ["+358 40 {d}{d}{d} {d}{d}{d}{d}", "040 {d}{d}{d} {d}{d}{d}{d}"],
           ("henkilötunnus", "1{d}0{D}8{d}-{d}{d}{d}{A}"), ("VAT number", "FI{D}{d}{d}{d}{d}{d}{d}{d}")),
    "HU": ("Zsófia Gergő Katalin Bálint", "Szabó Horváth Kovács Németh",
           [("Debrecen", "Hajdú-Bihar", "40{d}{d}"), ("Szeged", "Csongrád", "67{d}{d}")], ["Piac utca", "Kárász utca"],
           "{z} {c}, {st} {b}", ["+36 30 {d}{d}{d} {d}{d}{d}{d}", "06 30 {d}{d}{d} {d}{d}{d}{d}"],
           ("identity card", "{d}{d}{d}{d}{d}{d}{A}{A}"), ("tax number", "8{d}{d}{d}{d}{d}{d}{d}{d}{d}")),
    "IE": ("Saoirse Cormac Niamh Diarmuid", "O'Sullivan Gallagher Mac Giolla Ní Bhriain".replace("Mac Giolla", "MacGiolla").replace("Ní Bhriain", "NíBhriain"),
           [("Limerick", "Munster", "V94 {A}{d}{d}{d}"), ("Sligo", "Connacht", "F91 {A}{d}{d}{d}")], ["O'Connell Street", "Wine Street"],
           "{b} {st}, {c}, {z}", ["+353 86 {d}{d}{d} {d}{d}{d}{d}", "086 {d}{d}{d} {d}{d}{d}{d}"],
           ("PPS number", "{D}{d}{d}{d}{d}{d}{d}{A}{A}"), ("VAT number", "IE{D}{d}{d}{d}{d}{d}{d}{A}{A}")),
    "AU": ("Lachlan Matilda Darcy Imogen", "Pemberton Hargreaves Callaghan Drummond",
           [("Geelong", "VIC", "32{d}{d}"), ("Cairns", "Queensland", "48{d}{d}")], ["Moorabool Street", "Sheridan Street"],
           "{u}, {b} {st}, {c} {r} {z}", ["+61 4{d}{d} {d}{d}{d} {d}{d}{d}", "04{d}{d} {d}{d}{d} {d}{d}{d}"],
           ("Medicare number", "{D}{d}{d}{d} {d}{d}{d}{d}{d} {d}"), ("TFN", "{D}{d}{d} {d}{d}{d} {d}{d}{d}")),
    "CA": ("Étienne Marisol Declan Solveig", "Tremblay Beaulieu Sinclair Wojnarowski",
           [("Gatineau", "Quebec", "J8X {d}{A}{d}"), ("Saskatoon", "SK", "S7K {d}{A}{d}")], ["Boulevard Saint-Joseph", "Broadway Avenue"],
           "{b} {st}, {u}, {c}, {r} {z}", ["+1 819 555 01{d}{d}", "306-555-01{d}{d}"],
           ("SIN", "{D}{d}{d} {d}{d}{d} {d}{d}{d}"), ("business number", "{D}{d}{d}{d}{d}{d}{d}{d}{d}")),
    "ZA": ("Sipho Nomvula Pieter Lerato", "Dlamini Mokoena Botha Khumalo",
           [("Durban", "KwaZulu-Natal", "40{d}{d}"), ("Polokwane", "Limpopo", "06{d}{d}")], ["Florida Road", "Landdros Mare Street"],
           "{b} {st}, {c}, {z}, {r}", ["+27 82 {d}{d}{d} {d}{d}{d}{d}", "082 {d}{d}{d} {d}{d}{d}{d}"],
           ("ID number", "8{d}0{D}1{d}{d}{d}{d}{d}08{d}"), ("tax number", "{D}{d}{d}{d}{d}{d}{d}{d}{d}{d}")),
    "US": ("Marguerite Demetrius Juniper Cornelius", "Hollingsworth Abernathy Trujillo Vandermeer",
           [("Chattanooga", "TN", "374{d}{d}"), ("Bozeman", "Montana", "597{d}{d}")], ["Frazier Ave", "W Babcock St"],
           "{b} {st}, {u}, {c}, {r} {z}", ["(423) 555-01{d}{d}", "406.555.01{d}{d}"],
           ("military ID", "{D}{d}{d}{d}{d}{d}{d}{d}{d}{d}"), ("EIN", "{D}{d}-{d}{d}{d}{d}{d}{d}{d}")),
    "GB": ("Rhiannon Alasdair Gwendolyn Hamish", "Featherstone Llewellyn Macpherson Braithwaite",
           [("Swansea", "Wales", "SA1 {d}{A}{A}"), ("Dundee", "Scotland", "DD1 {d}{A}{A}")], ["Wind Street", "Perth Road"],
           "{u}, {b} {st}, {c}, {z}", ["07700 900{d}{d}{d}", "+44 1632 960{d}{d}{d}"],
           ("National Insurance number", "QQ {d}{d} {d}{d} {d}{d} {A}"), ("UTR", "{D}{d}{d}{d}{d} {d}{d}{d}{d}{d}")),
    "DE": ("Friedhelm Annegret Jonas Wiebke", "Brinkmann Oberhauser Kesselring Steinbach",
           [("Bielefeld", "Nordrhein-Westfalen", "336{d}{d}"), ("Rostock", "Mecklenburg-Vorpommern", "180{d}{d}")], ["Detmolder Straße", "Kröpeliner Straße"],
           "{st} {b}, {z} {c}", ["+49 171 39200{d}{d}", "0521 / {d}{d}{d} {d}{d}{d}"],
           ("Personalausweis", "L{d}{A}{d}{d}{A}{A}{d}{d}"), ("Steuer-ID", "{D}{d} {d}{d}{d} {d}{d}{d} {d}{d}{d}")),
    "IT": ("Ludovica Giancarlo Ornella Raffaele", "Santangelo Mastroianni Bellucci Pellegrino",
           [("Parma", "Emilia-Romagna", "431{d}{d}"), ("Lecce", "Apulia", "731{d}{d}")], ["Via Cavour", "Corso Vittorio Emanuele II"],
           "{st} {b}, {z} {c}", ["+39 340 {d}{d}{d} {d}{d}{d}{d}", "0521 {d}{d}{d}{d}{d}{d}"],
           ("carta d'identità", "CA{d}{d}{d}{d}{d}{A}{A}"), ("codice fiscale", "{A}{A}{A}{A}{A}{A}8{d}{A}{d}{d}{A}{d}{d}{d}{A}")),
    "ES": ("Macarena Íñigo Remedios Álvaro", "Echeverría Montalbán Zubiri Carrasco",
           [("Zaragoza", "Aragón", "500{d}{d}"), ("Cádiz", "Andalucía", "110{d}{d}")], ["Calle Alfonso I", "Calle Ancha"],
           "{st} {b}, {u}, {z} {c}", ["+34 6{d}{d} {d}{d}{d} {d}{d}{d}", "976 {d}{d} {d}{d} {d}{d}"],
           ("DNI", "{d}{d}{d}{d}{d}{d}{d}{d}{A}"), ("NIE", "X{d}{d}{d}{d}{d}{d}{d}{A}")),
    "TR": ("Gülşen Kemal Çağla Oğuzhan", "Yıldırım Karadağ Özdemir Şahin",
           [("Eskişehir", "Eskişehir", "261{d}{d}"), ("Trabzon", "Trabzon", "611{d}{d}")], ["İki Eylül Caddesi", "Uzun Sokak"],
           "{st} No: {b}, {z} {c}", ["+90 532 {d}{d}{d} {d}{d} {d}{d}", "0532 {d}{d}{d} {d}{d} {d}{d}"],
           ("T.C. kimlik no", "{D}{d}{d}{d}{d}{d}{d}{d}{d}{d}{d}"), ("vergi no", "{D}{d}{d}{d}{d}{d}{d}{d}{d}{d}")),
    "VN": ("Thảo Quang Hương Khánh", "Trịnh Đặng Phạm Huỳnh",
           [("Đà Nẵng", "Quảng Nam", "550{d}{d}"), ("Cần Thơ", "Mekong Delta", "940{d}{d}")], ["Bạch Đằng", "Hai Bà Trưng"],
           "{b} {st}, {c} {z}", ["+84 91 {d}{d}{d} {d}{d}{d}{d}", "091 {d}{d}{d} {d}{d}{d}{d}"],
           ("citizen ID", "0{d}{d}{d}{d}{d}{d}{d}{d}{d}{d}{d}"), ("tax code", "{D}{d}{d}{d}{d}{d}{d}{d}{d}{d}")),
    "AE": ("Khadija Faisal Maryam Tariq", "Al-Mansoori El-Sayed Bin-Hamad Qureshi",
           [("Sharjah", "Sharjah", "{D}{d}{d}{d}{d}"), ("Fujairah", "Fujairah", "{D}{d}{d}{d}{d}")], ["King Faisal Street", "Hamad Bin Abdulla Road"],
           "{u}, {b} {st}, {c}", ["+971 50 {d}{d}{d} {d}{d}{d}{d}", "050 {d}{d}{d} {d}{d}{d}{d}"],
           ("Emirates ID", "784-19{d}{d}-{d}{d}{d}{d}{d}{d}{d}-{d}"), ("TRN", "100{d}{d}{d}{d}{d}{d}{d}{d}{d}{d}{d}{d}")),
}
HOSTS = [["postbox.example", "mail.kestrel.example", "fjordnet.example"], ["letterbox.example", "tuamail.example", "nimbus.example"]]
UNITS = [["Flat 2C", "Unit 14", "Apt. 709"], ["3rd floor", "Suite 40", "Apartment 12B"]]
ASCII = str.maketrans("áäãàâåąćçčđéèęëěğíîïıłńñóöőôøřśşšúüűùýźżžẵ", "aaaaaaacccdeeeeegiiiilnnooooorsssuuuuyzzza")


def fill(rng, pattern):
    """`{d}` a digit, `{D}` 1-9, `{A}` a capital letter."""
    pick = {"d": lambda: str(rng.randrange(10)), "D": lambda: str(rng.randrange(1, 10)), "A": lambda: rng.choice("ABCDEFGHJKLMNPRSTWXYZ")}
    return re.sub(r"\{([dDA])\}", lambda m: pick[m[1]](), pattern)


def marked(label, value):
    return f"[[{label}|{value}]]"


def plain(text):
    import unicodedata
    text = unicodedata.normalize("NFKD", text.lower().translate(ASCII).replace("ı", "i").replace("đ", "d"))
    return re.sub(r"[^a-z]", "", text)


def check_digit(body):
    total = sum(sum(divmod(int(c) * (2 - i % 2), 10)) for i, c in enumerate(reversed(body)))
    return str(-total % 10)


class Person:
    """Fields of one person; each is drawn once and stays."""

    def __init__(self, rng, half, country):
        (self.rng, self.half, self.drawn) = (rng, half, {})
        names, surnames, places, streets, self.address, phones, self.identity, self.taxed = PLACES[country]
        (names, surnames) = (names.split(), surnames.split())
        (self.given, self.surname) = (names[2 * half + rng.randrange(2)], surnames[2 * half + rng.randrange(2)])
        (self.place, self.street_name) = (places[half], streets[half])
        self.phones = phones

    def get(self, field):
        if field not in self.drawn:
            self.drawn[field] = getattr(self, field)()
        return self.drawn[field]

    g = lambda self: marked("GIVEN_NAME", self.given)
    s = lambda self: marked("SURNAME", self.surname)
    name = lambda self: f"{self.g()} {self.s()}"
    last = lambda self: f"{self.s()}, {self.g()}"
    east = lambda self: f"{self.s()} {self.g()}"
    city = lambda self: marked("CITY", self.place[0])
    region = lambda self: marked("STATE", self.place[1])
    zip = lambda self: marked("ZIP_CODE", fill(self.rng, self.place[2]))
    street = lambda self: marked("STREET_NAME", self.street_name)
    number = lambda self: marked("BUILDING_NUMBER", fill(self.rng, self.rng.choice(["{D}", "{D}{d}", "{D}{d}{d}", "{D}{d}a"])))
    unit = lambda self: marked("SECONDARY_ADDRESS", self.rng.choice(UNITS[self.half]))
    phone = lambda self: marked("PHONE_NUMBER", fill(self.rng, self.phones[self.rng.randrange(2)]))
    idname = lambda self: self.identity[0]
    id = lambda self: marked("GOVERNMENT_ID", fill(self.rng, self.identity[1]))
    taxname = lambda self: self.taxed[0]
    tax = lambda self: marked("TAX_ID", fill(self.rng, self.taxed[1]))
    passport = lambda self: marked("PASSPORT", fill(self.rng, self.rng.choice(["{A}{A}{d}{d}{d}{d}{d}{d}{d}", "{A}{d}{d}{d}{d}{d}{d}{d}", "{D}{d}{d}{d}{d}{d}{d}{d}{d}"])))
    license = lambda self: marked("DRIVERS_LICENSE", fill(self.rng, self.rng.choice(["{A}{d}{d}{d}{d}{d}{d}{d}{d}{d}", "{d}{d}{d}{d}{d}{d}{d}{d}{d}", "{A}{A}-{d}{d}{d}{d}{d}{d}", "{D}{d}/{d}{d}/{d}{d}{d}{d}"])))
    account = lambda self: marked("BANK_ACCOUNT", fill(self.rng, "{D}{d}{d}{d}{d}{d}{d}{d}{d}{d}"))
    ssn = lambda self: marked("SSN", fill(self.rng, "2{D}{d}-{D}{D}-{D}{d}{d}{d}"))

    def addr(self):
        parts = {"b": self.get("number"), "st": self.get("street"), "c": self.get("city"), "r": self.get("region"), "z": self.get("zip"), "u": self.get("unit")}
        return re.sub(r"\{(b|st|c|r|z|u)\}", lambda m: parts[m[1]], self.address)

    def block(self):
        return self.get("addr").replace(", ", "\n")

    def email(self):
        (g, s) = (plain(self.given), plain(self.surname))
        local = self.rng.choice([f"{g}.{s}", f"{s}{self.rng.randrange(10, 99)}", f"{g[:1]}.{s}", f"{g}-{s}"])
        return marked("EMAIL", f"{local}@{self.rng.choice(HOSTS[self.half])}")

    def handle(self):
        return marked("URL", self.rng.choice([f"https://{plain(self.surname)}.example/about", f"www.{plain(self.given)}{plain(self.surname)}.example", f"https://pictures.example/u/{plain(self.given)}_{plain(self.surname)}"]))

    def ip(self):
        return marked("IP_ADDRESS", self.rng.choice(["192.0.2.{n}", "203.0.113.{n}", "2001:db8:{x}::{n}"]).replace("{n}", str(self.rng.randrange(2, 250))).replace("{x}", f"{self.rng.randrange(4096, 65535):x}"))

    def card(self):
        body = self.rng.choice(["4", "53", "2221"])
        body += fill(self.rng, "{d}" * (15 - len(body)))
        return marked("CREDIT_CARD_NUMBER", " ".join(re.findall("....", body + check_digit(body))))

    def iban(self):
        (country, length) = self.rng.choice([("PL", 24), ("FI", 14), ("CH", 17), ("IT", None)])
        bban = fill(self.rng, "{d}" * length) if length else fill(self.rng, "{A}" + "{d}" * 22)
        number = int("".join(str(int(c, 36)) for c in bban + country + "00"))
        value = f"{country}{98 - number % 97:02d}{bban}"
        return marked("BANK_ACCOUNT", self.rng.choice([value, " ".join(re.findall("..?.?.?", value))]))

    def routing(self):
        body = "0" + fill(self.rng, "{D}{d}{d}{d}{d}{d}{d}")
        total = sum(w * int(c) for w, c in zip((3, 7, 1, 3, 7, 1, 3, 7), body))
        return marked("ROUTING_NUMBER", body + str(-total % 10))


def cased(text, how):
    change = {"l": str.lower, "u": str.upper}[how]
    return re.sub(r"\[\[([A-Z_]+)\|(.*?)\]\]", lambda m: marked(m[1], change(m[2])), text)


def written(template, people):
    """A template with its fields filled, still marked."""
    def value(field):
        found = people[1 if field[2] else 0].get(field[1])
        return cased(found, field[3]) if field[3] else found
    return re.sub(r"\{([a-z]+)(2?)(?:\.([lu]))?\}", value, template)


def unmarked(text):
    """Text and spans of a marked text."""
    (out, spans) = ("", [])
    for piece in re.split(r"(\[\[[A-Z_]+\|.*?\]\])", text):
        field = re.fullmatch(r"\[\[([A-Z_]+)\|(.*)\]\]", piece)
        value = field[2] if field else piece
        if field:
            spans.append({"start": len(out), "end": len(out) + len(value), "label": field[1]})
        out += value
    return out, spans


def main():
    source = open(sys.argv[1], encoding="utf-8").read()
    seen, halves = {}, ([], [])
    for part in re.split(r"^### ", source, flags=re.M)[1:]:
        (genre, template) = part.rstrip("\n").split("\n", 1)
        turn = seen[genre] = seen.get(genre, -1) + 1
        half = turn % 2
        rng = random.Random(f"{SEED} {genre} {turn}")
        pinned = re.match(r"@([A-Z ]+)\n", template)
        template = template[pinned.end():] if pinned else template
        for copy in range(2 if re.search(r"\{[a-z]+2?(\.[lu])?\}", template) else 1):
            countries = rng.sample((pinned[1].split() if pinned else sorted(PLACES)) * 2, 2)
            (text, spans) = unmarked(written(template, [Person(rng, half, country) for country in countries]))
            halves[half].append({"id": f"{genre}-{turn:02d}-{copy}", "genre": genre, "text": text, "spans": spans})
    for path, documents in zip(sys.argv[2:], halves):
        with open(path, "w", encoding="utf-8") as file:
            for entry in documents:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        print(f"{path}: {len(documents)} documents, {sum(not d['spans'] for d in documents)} clean, {sum(len(d['spans']) for d in documents)} spans", file=sys.stderr)


if __name__ == "__main__":
    main()
