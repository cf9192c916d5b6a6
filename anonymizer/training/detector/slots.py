"""Values for the slots of templates: people, addresses, numbers. All of them are made up."""

import random
import re
import string
import tomllib
import unicodedata
from functools import cache
from pathlib import Path

from faker import Faker

DATA = Path(__file__).parent.parent / "data"
#: Parts of a value: text, and its label if it has one.
Parts = list[tuple[str, str | None]]


@cache
def tables() -> dict:
    """`data/locales.toml`."""
    return tomllib.loads((DATA / "locales.toml").read_text())


@cache
def faker(locale: str) -> Faker:
    fake = Faker(locale)
    fake.seed_instance(7)
    return fake


def elements(provider, *names: str) -> list[str]:
    """The lists of a Faker provider by these names, joined."""
    found: list[str] = []
    for name in names:
        value = getattr(provider, name, None)
        if value:
            found.extend(value)
    return found


@cache
def names(locale: str) -> tuple[list[str], list[str], list[str]]:
    """Given names of women, of men, and surnames of a locale."""
    fake = faker(locale)
    person = next(provider for provider in fake.get_providers() if ".person" in type(provider).__module__)
    female = elements(person, "first_names_female", "first_names")
    male = elements(person, "first_names_male", "first_names")
    last = elements(person, "last_names", "last_names_male", "last_names_female")
    clean = lambda values: sorted({value if isinstance(value, str) else value[0] for value in values})
    female, male, last = clean(female), clean(male), clean(last)
    if not last:
        last = sorted({fake.last_name() for _ in range(600)})
    if not female or not male:
        female = male = sorted({fake.first_name() for _ in range(600)})
    return female, male, last


@cache
def places(locale: str) -> tuple[list[str], list[str], list[str]]:
    """Cities, streets and states of a locale."""
    fake = faker(locale)
    def draw(method: str, count: int) -> list[str]:
        call = getattr(fake, method, None)
        if call is None:
            return []
        try:
            return sorted({call() for _ in range(count)})
        except AttributeError:
            return []
    state = draw("state", 150) or draw("administrative_unit", 150) or draw("region", 150) or draw("province", 150)
    return draw("city", 900), draw("street_name", 900), state


LATIN = str.maketrans({"ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "ß": "ss", "æ": "ae", "đ": "d", "ı": "i", "þ": "th"})


def ascii_only(text: str) -> str:
    """Without accents; other scripts stay."""
    flat = unicodedata.normalize("NFKD", text.translate(LATIN))
    return "".join(char for char in flat if not unicodedata.combining(char) or ord(char) > 0x36f)


class Person:
    """A made-up person; `language` decides the order of the names and the form of the address."""

    def __init__(self, rng: random.Random, language: str):
        self.rng = rng
        table = tables()["language"][language]
        local = rng.random() < 0.8
        self.table = table
        self.locale = rng.choice(table["locales"] if local else tables()["foreign"])
        if not local and language in tables()["own_script"] and rng.random() < 0.5:
            self.locale = rng.choice(table["locales"])
        self.language = language if self.locale in table["locales"] else self.locale[:2]
        female, male, last = names(self.locale)
        self.given = rng.choice(female if rng.random() < 0.5 else male)
        self.surname = rng.choice(last)
        # Names that no list has: the beginning of one and the end of another.
        if rng.random() < 0.25:
            self.surname = splice(rng, self.surname, rng.choice(last))
        if rng.random() < 0.12:
            self.given = splice(rng, self.given, rng.choice(female))
        if rng.random() < 0.05 and self.spaced():
            self.surname = f"{self.surname}-{rng.choice(last)}"
        if rng.random() < 0.03 and self.spaced():
            self.given = f"{self.given}{rng.choice('- ')}{rng.choice(female)}"
        latin = ascii_only(self.given + self.surname).isascii()
        if latin:
            first, second = handle(self.given), handle(self.surname)
        else:
            female, male, last = names(rng.choice(["en_US", "de_DE", "es_ES", "pl_PL", "tr_TR", "en_IN"]))
            first, second = handle(rng.choice(female + male)), handle(rng.choice(last))
        self.handles = first or "user", second or "nn"
        self.domain = rng.choice(tables()["domains"]).replace("*", handle(rng.choice(names("en_US")[2])))

    def spaced(self) -> bool:
        """Whether names are written with a space between."""
        return not any(ord(char) > 0x2e7f for char in self.given)

    def order(self) -> str:
        """Whether the surname comes first."""
        return "last" if self.locale[:2] in ("zh", "ja", "ko", "hu", "vi") else "first"

    def full(self, form: str = "") -> Parts:
        given, surname = (self.given, "GIVEN_NAME"), (self.surname, "SURNAME")
        if form == "last":
            return [surname, (", " if self.spaced() else self.rng.choice([", ", "、", " "]), None), given]
        if form == "eastern":
            return [surname, (" " if self.spaced() else "", None), given]
        if form == "initial" and self.spaced():
            return [(f"{self.given[0]}.", "GIVEN_NAME"), (" ", None), surname]
        if self.order() == "last":
            gap = " " if self.spaced() else self.rng.choice(["", "", "", " "])
            return [surname, (gap, None), given]
        middle = self.rng.random()
        if middle < 0.06:
            initial = self.rng.choice(self.given if self.given.isupper() else string.ascii_uppercase)
            return [given, (" ", None), (f"{initial}.", "GIVEN_NAME"), (" ", None), surname]
        return [given, (" ", None), surname]

    def user(self) -> str:
        first, second = self.handles
        rng = self.rng
        number = str(rng.choice([rng.randrange(100), rng.randrange(1950, 2012), rng.randrange(1000)]))
        forms = [first + second, first[0] + second, first + "_" + second, first + number, second + number,
                 first + "." + second, first + second[0], "x" + first + "x", first + "_" + number, second[:6] + first[:2],
                 f"the_{first}", f"{rng.choice(tables()['handle_words'])}{rng.choice(['_', '', '.', '-'])}{first}",
                 rng.choice(tables()["handle_words"]) + rng.choice(tables()["handle_words"]) + number]
        return rng.choice(forms)

    def email(self) -> str:
        first, second = self.handles
        rng = self.rng
        local = rng.choice([f"{first}.{second}", f"{first[0]}.{second}", f"{first}{second}", f"{second}.{first}",
                            f"{first}_{second}", f"{first}", f"{first}{rng.randrange(100)}", f"{second}",
                            f"{first}+{rng.choice(['news', 'shop', 'work'])}", self.user()])
        return f"{local}@{self.domain}"

    def address(self, lines: bool = False) -> Parts:
        """An address in the form of the person's country."""
        country = self.locale[3:]
        forms = tables()["address"]
        form = self.rng.choice(forms.get(country) or forms[self.table["country"]])
        form = form.replace("|", "\n" if lines else self.rng.choice([", ", ", ", ", ", " ", "; ", " - "]))
        return fill(form, lambda slot: self.part(slot))

    def part(self, slot: str) -> Parts:
        rng, fake = self.rng, faker(self.locale)
        cities, streets, states = places(self.locale)
        if slot == "city":
            city = rng.choice(cities)
            return [(splice(rng, city, rng.choice(cities)) if rng.random() < 0.1 else city, "CITY")]
        if slot == "street":
            street = rng.choice(streets)
            names_of = names(self.locale)[2]
            if rng.random() < 0.35 and self.locale[3:] in tables()["street_form"]:
                form = rng.choice(tables()["street_form"][self.locale[3:]])
                street = form.replace("*", rng.choice(names_of if rng.random() < 0.6 else cities))
            return [(re.sub(r"\s*\d.*$", "", street) or street, "STREET_NAME")]
        if slot == "bnum":
            number = str(rng.choice([rng.randrange(1, 100), rng.randrange(1, 300), rng.randrange(1, 9999)]))
            return [(number + rng.choice(["", "", "", "", "", "a", "b", "B", " c", "/2", "-4"]), "BUILDING_NUMBER")]
        if slot == "unit":
            forms = tables()["unit"].get(self.language) or tables()["unit"]["en"]
            number = rng.choice([str(rng.randrange(1, 60)), f"{rng.randrange(1, 30)}{rng.choice('ABC')}"])
            return [(rng.choice(forms).replace("*", number), "SECONDARY_ADDRESS")]
        if slot == "zip":
            return [(postcode(rng, self.locale, fake), "ZIP_CODE")]
        if slot == "state":
            if self.locale in ("en_US",) and rng.random() < 0.6:
                return [(fake.state_abbr(), "STATE")]
            return [(rng.choice(states), "STATE")] if states else [(rng.choice(cities), "CITY")]
        raise KeyError(slot)


def postcode(rng: random.Random, locale: str, fake: Faker) -> str:
    form = tables()["postcode"].get(locale[3:])
    if form:
        return digits(rng, rng.choice(form) if isinstance(form, list) else form)
    return str(fake.postcode())


def splice(rng: random.Random, one: str, other: str) -> str:
    """The beginning of one name and the end of another."""
    if len(one) < 4 or len(other) < 4 or " " in one + other:
        return one
    return one[:rng.randrange(2, len(one) - 1)] + other[rng.randrange(2, len(other) - 1):].lower()


def handle(name: str) -> str:
    return re.sub(r"[^a-z]", "", ascii_only(name).lower())


def digits(rng: random.Random, form: str) -> str:
    """`#` is a digit, `%` one from 1 to 9, `?` a capital, `^` a small letter, `&` a hexadecimal digit."""
    kinds = {"#": string.digits, "%": "123456789", "?": "ABCDEFGHJKLMNPRSTUVWXYZ", "^": string.ascii_lowercase,
             "&": "0123456789abcdef", "~": string.ascii_letters + string.digits}
    return "".join(rng.choice(kinds[char]) if char in kinds else char for char in form)


def fill(form: str, value) -> Parts:
    """The parts of a form whose `{slots}` are replaced by what `value` gives. `[[LABEL|text]]` is literal, `{{` and `}}` are
    braces."""
    parts: Parts = []
    at = 0
    for match in re.finditer(r"\{\{|\}\}|\{([a-z_]+\d?)\}|\[\[([A-Z_]+)\|([^\]]*)\]\]", form):
        parts.append((form[at:match.start()], None))
        if match[1]:
            parts.extend(value(match[1]))
        else:
            parts.append((match[3], match[2]) if match[2] else (match[0][0], None))
        at = match.end()
    parts.append((form[at:], None))
    return [part for part in parts if part[0]]


class Filler:
    """Values for one document: slots with the same number belong to the same person."""

    def __init__(self, rng: random.Random, language: str):
        self.rng = rng
        self.language = language
        self.people: dict[str, Person] = {}
        self.memory: dict[str, Parts] = {}

    def person(self, number: str) -> Person:
        if number not in self.people:
            self.people[number] = Person(self.rng, self.language)
        return self.people[number]

    def __call__(self, slot: str) -> Parts:
        name, number = (slot[:-1], slot[-1]) if slot[-1].isdigit() else (slot, "")
        if name in ("num", "money", "time", "ref", "version", "product", "hex", "uuid", "date", "org", "word"):
            return self.value(name, number)
        if slot not in self.memory:
            self.memory[slot] = self.value(name, number)
        return self.memory[slot]

    def value(self, name: str, number: str) -> Parts:
        rng, table = self.rng, tables()
        person = self.person(number)
        if name == "name":
            form = "" if rng.random() < 0.85 else rng.choice(["initial", "eastern", ""])
            return person.full(form)
        if name in ("last_first", "eastern", "initial"):
            return person.full({"last_first": "last"}.get(name, name))
        if name == "given":
            return [(person.given, "GIVEN_NAME")]
        if name == "surname":
            return [(person.surname, "SURNAME")]
        if name == "email":
            return [(person.email(), "EMAIL")]
        if name in ("user", "handle"):
            return [(("@" if name == "handle" else "") + person.user(), "USER_NAME")]
        if name in ("city", "street", "bnum", "unit", "zip", "state"):
            return person.part(name)
        if name == "addr":
            return person.address()
        if name == "block":
            return person.address(lines=True)
        if name == "phone":
            forms = table["phone"].get(person.locale[3:]) or table["phone"]["any"]
            form = rng.choice(forms if rng.random() < 0.8 else table["phone"]["any"])
            return [(digits(rng, form), "PHONE_NUMBER")]
        if name == "url":
            return [(digits(rng, rng.choice(table["profile"])).replace("*", person.user()), "URL")]
        if name in ("dob", "date"):
            return [(self.date(person, birth=name == "dob"), "BIRTH_DATE" if name == "dob" else "DATE")]
        if name == "age":
            return [(str(rng.randrange(2, 98)), "AGE")]
        if name == "org":
            return [(self.organization(person), "ORGANIZATION")]
        if name == "iban":
            return [(iban(rng, table), "BANK_ACCOUNT")]
        if name == "coords":
            sign = lambda bound: f"{rng.uniform(-bound, bound):.{rng.choice([4, 5, 6])}f}"
            form = rng.choice(["a, b", "a,b", "a b", "dms"])
            if form == "dms":
                part = lambda bound, sides: f"{rng.randrange(bound)}°{rng.randrange(60)}'{rng.randrange(60)}\"{rng.choice(sides)}"
                return [(f"{part(90, 'NS')} {part(180, 'EW')}", "COORDINATES")]
            return [(form.replace("b", sign(180)).replace("a", sign(90)), "COORDINATES")]
        if name == "password":
            return [(self.password(), "PASSWORD")]
        if name in table["number"]:
            entry = table["number"][name]
            local = entry.get(person.locale[3:])
            return [(digits(rng, rng.choice(local or entry["any"])), entry["label"])]
        if name in table["plain"]:
            return [(digits(rng, rng.choice(table["plain"][name])), None)]
        if name == "money":
            amount = f"{rng.choice([rng.randrange(1, 99), rng.randrange(100, 99999)])}"
            amount += rng.choice(["", "", ".00", ",50", ".99"])
            return [(rng.choice(["{} €", "€{}", "${}", "{} USD", "£{}", "{} zł", "{} kr", "₹{}", "¥{}", "{} EUR"]).format(amount), None)]
        raise KeyError(name)

    def date(self, person: Person, birth: bool) -> str:
        rng = self.rng
        year = rng.randrange(1930, 2020) if birth else rng.randrange(2005, 2028)
        months = tables()["months"].get(person.language) or tables()["months"]["en"]
        month, day = rng.randrange(1, 13), rng.randrange(1, 29)
        forms = [f"{day:02}.{month:02}.{year}", f"{year}-{month:02}-{day:02}", f"{day:02}/{month:02}/{year}",
                 f"{day}.{month}.{year}", f"{month:02}/{day:02}/{year}", f"{day:02}-{month:02}-{year}",
                 f"{day} {months[month - 1]} {year}", f"{day}. {months[month - 1]} {year}",
                 f"{months[month - 1]} {day}, {year}", f"{day:02}.{month:02}.{year % 100:02}"]
        if person.language in ("zh", "ja"):
            forms += [f"{year}年{month}月{day}日"] * 6
        if person.language == "ko":
            forms += [f"{year}년 {month}월 {day}일"] * 6
        if not birth:
            forms += [f"{day} {months[month - 1]}", f"{day}.{month}."]
        return rng.choice(forms)

    def organization(self, person: Person) -> str:
        rng = self.rng
        forms = tables()["organization"].get(person.language) or tables()["organization"]["en"]
        words = tables()["handle_words"]
        form = rng.choice(forms)
        form = form.replace("*", rng.choice(names(person.locale)[2]), 1)
        return form.replace("$", rng.choice(words).capitalize() + rng.choice(["", "", rng.choice(words)]))

    def password(self) -> str:
        rng = self.rng
        words = tables()["handle_words"]
        return rng.choice([
            rng.choice(words).capitalize() + str(rng.randrange(10, 9999)) + rng.choice(["!", "", "#", "$", "?"]),
            rng.choice(words) + rng.choice("-_.!") + rng.choice(words) + rng.choice(["", str(rng.randrange(100))]),
            "".join(rng.choice(string.ascii_letters + string.digits + "!#$%*+-?_") for _ in range(rng.randrange(8, 18))),
            rng.choice(words).replace("e", "3").replace("a", "@").capitalize() + digits(rng, "##"),
            "-".join(rng.choice(words) for _ in range(4)),
        ])


def iban(rng: random.Random, table: dict) -> str:
    """An IBAN with the right check digits."""
    country, form = rng.choice(sorted(table["iban"].items()))
    body = digits(rng, form)
    number = "".join(str(int(char, 36)) for char in body + country + "00")
    whole = f"{country}{98 - int(number) % 97:02}{body}"
    return " ".join(whole[at:at + 4] for at in range(0, len(whole), 4)) if rng.random() < 0.5 else whole
