#!/usr/bin/env python3
"""Writes the development set of the anonymizer: invented documents with the spans that should be found.

    python3 tools/make_pii_set.py testdata/pii/dev.jsonl testdata/pii/handwritten.txt > testdata/pii/handwritten.jsonl

The second file's documents are written by hand (`### genre`, then text with `[[LABEL|value]]`); they are only converted.
Python 3.9+, standard library only, deterministic. One JSON object per line:
{"id", "genre", "text", "spans": [{"start", "end", "label"}]}, offsets in Unicode code points, half-open.

Templates hold fields: `{p.given}` is the given name of the document's first person, `{q.given}` of the second,
`{n.order}` a value that is *not* personal data (order numbers, versions, amounts, dates of events ...). Everything
else is literal. No value belongs to a real person: names are combined at random, phone numbers use ranges set aside
for fiction where a country has them, cards and IBANs have valid check digits and invented numbers.
"""
import json
import random
import re
import sys

SEED = 20260104

GIVEN = """Alice Marcus Priya Mohammed Olga Chen Fatima José Björn Aoife Kwame Yuki Ingrid Rafael Zoë Tobias Leila Nikhil
Hannah Oluwaseun Matteo Siobhán Dmitri Grace Emre Noor Walter Beatriz Jamal Svetlana Henrik Camila Ravi Naomi Pierre
Anneliese Tyrone Mei Gulnara Eoin Thandiwe Lucía Bartholomew Xiomara Vikram Ewa Kofi Margarethe Desmond Aaliyah Jun
Esperanza Caleb Ayşe Timothy Renée Ibrahim Philippa Sven Chiamaka Gareth Mary-Jane Jean-Luc Anna Will Mark Rose April
Hope Dean""".split()
SURNAME = """Thornton Okafor Gupta Nguyen Kowalski O'Brien García Lindqvist Haddad Tanaka Ferrari Schneider Abubakar
Petrova MacLeod Vandenberg Silva Johansson Mbeki Castellanos Whitfield Yilmaz Dubois Hernández Rasmussen Chowdhury
Blackwood Papadopoulos Novak Fitzgerald Iyer Osei Müller Sørensen Delacroix Takahashi Bianchi Quintero Ashworth
Svensson Al-Rashid Smith-Jones Moreau Zielinski Achebe Ramanathan Bergström Lombardi Kaplan Oyelaran Weatherby
Villanueva Stone Banks Young Park Rivers Bishop Price Long""".split()
US = [("Springfield", "Illinois", "IL", "627"), ("Austin", "Texas", "TX", "787"), ("Portland", "Oregon", "OR", "972"),
      ("Savannah", "Georgia", "GA", "314"), ("Boise", "Idaho", "ID", "837"), ("Albany", "New York", "NY", "122"),
      ("Santa Fe", "New Mexico", "NM", "875"), ("Duluth", "Minnesota", "MN", "558"), ("Reno", "Nevada", "NV", "895"),
      ("Fort Collins", "Colorado", "CO", "805"), ("Charlotte", "North Carolina", "NC", "282"),
      ("Tampa", "Florida", "FL", "336"), ("Spokane", "Washington", "WA", "992"), ("Omaha", "Nebraska", "NE", "681")]
UK = [("Leeds", "LS1 {d}{A}{A}"), ("Bristol", "BS8 {d}{A}{A}"), ("Norwich", "NR2 {d}{A}{A}"),
      ("Glasgow", "G12 {d}{A}{A}"), ("London", "SW1A {d}{A}{A}"), ("Cardiff", "CF10 {d}{A}{A}")]
EU = [("Freiburg", "Baden-Württemberg", "791{d}{d}"), ("Lyon", "Auvergne-Rhône-Alpes", "6900{d}"),
      ("Rotterdam", "Zuid-Holland", "30{d}{d} {A}{A}"), ("Graz", "Styria", "80{d}{d}"), ("Bologna", "Emilia-Romagna", "401{d}{d}"),
      ("Málaga", "Andalusia", "290{d}{d}"), ("München", "Bavaria", "80{d}{d}{d}"), ("Gothenburg", "Västra Götaland", "411 {d}{d}")]
US_STREET = """Maple Street|Oak Avenue|Willow Creek Road|Birchwood Lane|Sunset Boulevard|Elm St|Harbor View Drive|
Old Mill Rd|5th Avenue|Martin Luther King Jr Blvd|Juniper Court|N Lakeshore Dr|County Road 14|Peachtree Pl""".replace("\n", "").split("|")
UK_STREET = "High Street|Station Road|Church Lane|Victoria Terrace|King's Crescent|Mill Hill|Rosemary Gardens".split("|")
EU_STREET = "Hauptstraße|Rue des Lilas|Via Garibaldi|Calle de Alcalá|Kaiserstraße|Lindenweg|Avenue Jean Jaurès|Prinsengracht".split("|")
DOMAIN = "example.com example.org mailbox.example inbox.example.net corp-mail.example webpost.example.co.uk".split()


def digits(rng, n):
    return "".join(str(rng.randrange(10)) for _ in range(n))


def fill(rng, pattern):
    """`{d}` a digit, `{D}` 1-9, `{N}` 2-9, `{A}` a capital letter."""
    pick = {"d": lambda: str(rng.randrange(10)), "D": lambda: str(rng.randrange(1, 10)), "N": lambda: str(rng.randrange(2, 10)),
            "A": lambda: rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ")}
    return re.sub(r"\{([dDNA])\}", lambda m: pick[m[1]](), pattern)


def luhn_card(rng):
    prefix, length = rng.choice([("4", 16), ("51", 16), ("55", 16), ("34", 15), ("6011", 16)])
    body = prefix + digits(rng, length - len(prefix) - 1)
    total = 0
    for i, c in enumerate(reversed(body)):
        v = int(c) * (2 if i % 2 == 0 else 1)
        total += v - 9 if v > 9 else v
    number = body + str(-total % 10)
    if length == 15:
        return rng.choice([number, f"{number[:4]} {number[4:10]} {number[10:]}"])
    return rng.choice([number, " ".join(re.findall("....", number)), "-".join(re.findall("....", number))])


def iban(rng):
    country, pattern = rng.choice([("DE", "{d}" * 18), ("GB", "NWBK" + "{d}" * 14), ("NL", "ABNA" + "{d}" * 10),
                                   ("FR", "{d}" * 23), ("ES", "{d}" * 20)])
    bban = fill(rng, pattern)
    number = int("".join(str(int(c, 36)) for c in bban + country + "00"))
    value = f"{country}{98 - number % 97:02d}{bban}"
    return rng.choice([value, " ".join(re.findall("..?.?.?", value))])


def routing(rng):
    d = [int(c) for c in rng.choice(["01", "02", "03", "06", "11", "12"]) + digits(rng, 6)]
    total = 3 * (d[0] + d[3] + d[6]) + 7 * (d[1] + d[4] + d[7]) + d[2] + d[5]
    return "".join(map(str, d)) + str(-total % 10)


class Person:
    """A person whose every value stays the same through one document."""

    def __init__(self, rng):
        self.rng, self.values = rng, {}
        self.region = rng.choice(["us", "us", "us", "uk", "eu"])
        if self.region == "us":
            self.place = rng.choice(US)
        elif self.region == "uk":
            self.place = rng.choice(UK)
        else:
            self.place = rng.choice(EU)

    def get(self, field):
        if field not in self.values:
            self.values[field] = getattr(self, field)()
        return self.values[field]

    given = lambda self: ("GIVEN_NAME", self.rng.choice(GIVEN))
    givens = lambda self: ("GIVEN_NAME", self.rng.choice(GIVEN) + " " + self.rng.choice(GIVEN))
    surname = lambda self: ("SURNAME", self.rng.choice(SURNAME))

    def lower(self):
        return ("GIVEN_NAME", self.get("given")[1].lower())

    def upper(self):
        return ("SURNAME", self.get("surname")[1].upper())

    def email(self):
        plain = lambda s: re.sub(r"[^a-z]", "", s.lower().translate(str.maketrans("éöøßáíúşëüıç", "eoosaiuseuic"))) or "x"
        g, s = plain(self.get("given")[1]), plain(self.get("surname")[1])
        local = self.rng.choice([f"{g}.{s}", f"{g[0]}{s}", f"{g}_{s}{self.rng.randrange(99)}", f"{s}.{g}+news", f"{g}{self.rng.randrange(1950, 2005)}"])
        return ("EMAIL", f"{local}@{self.rng.choice(DOMAIN)}")

    def phone(self):
        r = self.rng
        us = ["({N}{d}{d}) 555-01{d}{d}", "{N}{d}{d}-555-01{d}{d}", "+1 {N}{d}{d} 555 01{d}{d}", "{N}{d}{d}.555.01{d}{d}", "+1{N}{d}{d}55501{d}{d}", "1-{N}{d}{d}-555-01{d}{d}"]
        uk = ["07700 900{d}{d}{d}", "+44 7700 900{d}{d}{d}", "020 7946 0{d}{d}{d}", "0113 496 0{d}{d}{d}", "+44 (0)20 7946 0{d}{d}{d}"]
        eu = ["+49 30 23125 {d}{d}{d}", "+33 1 99 00 {d}{d} {d}{d}", "0{D}{d}{d}/55 {d}{d} {d}{d}", "+31 6 {d}{d}{d}{d}{d}{d}{d}{d}", "+39 06 5{d}{d}{d} {d}{d}{d}{d}", "+34 6{d}{d} {d}{d} {d}{d} {d}{d}"]
        pattern = r.choice({"us": us, "uk": uk, "eu": eu}[self.region])
        return ("PHONE_NUMBER", fill(r, pattern))

    building = lambda self: ("BUILDING_NUMBER", fill(self.rng, self.rng.choice(["{D}{d}{d}{d}", "{D}{d}{d}", "{D}{d}", "{D}", "{D}{d}B"])))
    city = lambda self: ("CITY", self.place[0])

    def street(self):
        return ("STREET_NAME", self.rng.choice({"us": US_STREET, "uk": UK_STREET, "eu": EU_STREET}[self.region]))

    def secondary(self):
        return ("SECONDARY_ADDRESS", fill(self.rng, self.rng.choice(["Apt {D}{A}", "Suite {D}{d}{d}", "Unit {D}{d}", "Apartment {d}{d}", "Floor {D}", "Flat {D}", "#{D}{d}{d}"])))

    def state(self):
        if self.region == "us":
            return ("STATE", self.place[self.rng.choice([1, 2])])
        return ("STATE", self.place[1] if self.region == "eu" else self.rng.choice(["England", "Scotland", "Wales"]))

    def zip(self):
        if self.region == "us":
            return ("ZIP_CODE", self.place[3] + digits(self.rng, 2) + self.rng.choice(["", "", "-" + digits(self.rng, 4)]))
        return ("ZIP_CODE", fill(self.rng, self.place[-1]))

    def ssn(self):
        r = self.rng
        area = r.choice([x for x in range(101, 665)])
        sep = r.choice(["-", "-", "-", " "])
        return ("SSN", f"{area}{sep}{r.randrange(10, 99)}{sep}{r.randrange(1000, 9999)}")

    def tax(self):
        return ("TAX_ID", fill(self.rng, self.rng.choice(["9{d}{d}-7{d}-{d}{d}{d}{d}", "{D}{d}-{d}{d}{d}{d}{d}{d}{d}", "DE{d}{d}{d}{d}{d}{d}{d}{d}{d}", "{D}{d} {d}{d}{d} {d}{d}{d} {d}{d}{d}", "GB{d}{d}{d}{d}{d}{d}{d}{d}{d}"])))

    iban = lambda self: ("BANK_ACCOUNT", iban(self.rng))
    account = lambda self: ("BANK_ACCOUNT", "".join([str(self.rng.randrange(1, 10)), digits(self.rng, self.rng.choice([7, 9, 11]))]))
    routing = lambda self: ("ROUTING_NUMBER", routing(self.rng))
    government = lambda self: ("GOVERNMENT_ID", fill(self.rng, self.rng.choice(["{A}{A} {d}{d} {d}{d} {d}{d} {A}", "{A}{d}{d}{d}{d}{d}{d}{d}{A}", "{d}{d}{d}{d} {d}{d}{d}{d} {d}{d}{d}{d}", "ID-{d}{d}{d}{d}{d}{d}{d}", "{A}{A}{A}{d}{d}{d}{d}{d}{d}"])))
    passport = lambda self: ("PASSPORT", fill(self.rng, self.rng.choice(["{A}{d}{d}{d}{d}{d}{d}{d}{d}", "{d}{d}{d}{d}{d}{d}{d}{d}{d}", "{A}{A}{d}{d}{d}{d}{d}{d}{d}", "C{d}{A}{d}{d}{A}{d}{d}{d}"])))
    license = lambda self: ("DRIVERS_LICENSE", fill(self.rng, self.rng.choice(["{A}{d}{d}{d}-{d}{d}{d}{d}-{d}{d}{d}{d}", "{A}{d}{d}{d}{d}{d}{d}{d}", "{d}{d}{d}{d}{d}{d}{d}{d}", "{A}{A}{A}{A}{A}{d}{d}{d}{d}{d}{d}{A}{A}{d}{A}{A}"])))
    card = lambda self: ("CREDIT_CARD_NUMBER", luhn_card(self.rng))

    def ip(self):
        r = self.rng
        v4 = r.choice(["192.0.2.", "198.51.100.", "203.0.113."]) + str(r.randrange(1, 255))
        v6 = r.choice([f"2001:db8::{r.randrange(1, 65535):x}", f"2001:db8:{r.randrange(65535):x}:{r.randrange(65535):x}::{r.randrange(1, 4096):x}"])
        return ("IP_ADDRESS", r.choice([v4, v4, v6]))

    def url(self):
        name = re.sub(r"[^a-z]", "", self.get("surname")[1].lower()) or "user"
        return ("URL", self.rng.choice([f"https://www.example.com/in/{name}", f"http://{name}.example.org", f"https://git.example.net/{name}/dotfiles", f"www.{name}-studio.example", f"https://social.example/@{name}?tab=posts"]))


class Nothing:
    """Values that are not personal data."""

    def __init__(self, rng):
        self.rng = rng

    def get(self, field):
        r = self.rng
        return (None, {
            "order": lambda: fill(r, r.choice(["#{D}{d}{d}{d}{d}", "ORD-{d}{d}{d}{d}{d}{d}", "{A}{A}-{D}{d}{d}{d}", "SO{d}{d}{d}{d}{d}"])),
            "ticket": lambda: fill(r, r.choice(["#{D}{d}{d}{d}", "INC00{d}{d}{d}{d}{d}", "CASE-{D}{d}{d}{d}{d}"])),
            "version": lambda: fill(r, r.choice(["v{D}.{d}.{d}", "{D}.{d}{d}.{d}", "{D}.{d}.{d}.{d}", "{D}.{d}-rc{D}"])),
            "amount": lambda: r.choice(["$", "€", "£", "USD "]) + fill(r, r.choice(["{D}{d}.{d}{d}", "{D},{d}{d}{d}.00", "{D}{d}{d}", "{D}{d}{d},{d}{d}{d}"])),
            "date": lambda: r.choice([f"{r.randrange(1, 29)} March 2025", f"2025-{r.randrange(1, 13):02d}-{r.randrange(1, 29):02d}", f"October {r.randrange(1, 29)}", f"{r.randrange(1, 13)}/{r.randrange(1, 29)}/2025", "next Thursday"]),
            "time": lambda: f"{r.randrange(7, 22)}:{r.choice(['00', '15', '30', '45'])}",
            "product": lambda: r.choice(["ThinkPad X1 Carbon Gen 11", "iPhone 15 Pro", "Makita DHP484 drill", "Bosch Series 6 dishwasher", "PlayStation 5", "Model 3 wall charger", "Dyson V15", "Kindle Paperwhite", "HP LaserJet 4250"]),
            "company": lambda: r.choice(["Northwind Traders", "Contoso Ltd", "Globex Corporation", "Blue Heron Logistics", "Acme Industrial Supply", "Initech", "Brightwater Energy"]),
            "role": lambda: r.choice(["software engineer", "project manager", "nurse practitioner", "accountant", "data analyst", "warehouse supervisor", "electrician"]),
            "drug": lambda: r.choice(["metformin 500 mg twice daily", "lisinopril 10 mg", "amoxicillin 875 mg", "atorvastatin 20 mg at night", "salbutamol inhaler as needed"]),
            "hash": lambda: "".join(r.choice("0123456789abcdef") for _ in range(40)),
            "percent": lambda: f"{r.randrange(1, 99)}.{r.randrange(10)} %",
            "count": lambda: f"{r.randrange(2, 900)}",
        }[field]())


ADDRESSES = {
    "us": ["{p.building} {p.street}, {p.city}, {p.state} {p.zip}", "{p.building} {p.street}, {p.secondary}, {p.city}, {p.state} {p.zip}",
           "{p.building} {p.street}\n{p.secondary}\n{p.city}, {p.state} {p.zip}", "{p.building} {p.street} in {p.city}"],
    "uk": ["{p.building} {p.street}, {p.city} {p.zip}", "{p.secondary}, {p.building} {p.street}, {p.city}, {p.zip}", "{p.building} {p.street}\n{p.city}\n{p.zip}"],
    "eu": ["{p.street} {p.building}, {p.zip} {p.city}", "{p.building} {p.street}, {p.zip} {p.city}, {p.state}", "{p.street} {p.building}\n{p.zip} {p.city}"],
}

# genre -> (openings, sentences, closings, how they are joined)
GENRES = {
    "email": (
        ["Subject: Re: {n.order}\n\nHi {p.given},", "From: {q.given} {q.surname} <{q.email}>\nTo: {p.email}\nDate: {n.date}\n\nDear {p.given} {p.surname},", "Hello {p.given},\n", "Dear Ms. {p.surname},", "Good morning Mr {p.surname},"],
        ["Thanks for your call about {n.product}.", "I have updated your address to {ADDRESS}.", "You can reach me on {q.phone} any day after {n.time}.", "Could you confirm that {p.email} is still the right address?", "{q.given} {q.surname} from {n.company} will join us on {n.date}.", "The invoice over {n.amount} went out on {n.date}.", "Please send the signed form back by {n.date}.", "My colleague {q.given} is out until {n.date}, so write to {q.email} instead.", "The transfer goes to {p.iban}.", "The slides are at {q.url}."],
        ["Best regards,\n{q.given} {q.surname}\n{n.company}\nTel. {q.phone}", "Cheers,\n{q.given}", "Kind regards\n{q.given} {q.surname}\n{q.email} | {q.url}", "Thanks!\n{q.given}"], "\n"),
    "chat": (
        ["hey {p.lower} u there?", "[{n.time}] {p.given}: hi! quick question", "hi its {p.lower} from the gym", "{p.given}: are we still on for {n.date}?"],
        ["yeah my new number is {p.phone}", "send it to {p.email} pls", "im at {p.building} {p.street} rn", "lol {q.lower} said the same thing", "can u drop it off? {ADDRESS}", "my zip is {p.zip} if that helps", "ok see you at {n.time}", "did {q.given} {q.surname} pay you back the {n.amount}?", "that update ({n.version}) broke everything again", "we moved to {p.city} last month", "{q.given}'s birthday is {n.date} right?"],
        ["k bye", "thx {q.lower}!!", "ttyl", "👍 call me: {p.phone}"], "\n"),
    "medical": (
        ["Patient: {p.given} {p.surname}, DOB redacted, MRN on file.", "DISCHARGE SUMMARY\nName: {p.surname}, {p.given}\nAdmitted: {n.date}", "Referral for {p.given} {p.surname} to cardiology.", "Progress note, {n.date}. Mr. {p.surname} presents with chest pain."],
        ["Currently takes {n.drug}.", "Blood pressure 128/82, heart rate 71, temperature 36.8.", "Emergency contact: {q.given} {q.surname}, {q.phone}.", "Lives at {ADDRESS}.", "SSN {p.ssn} verified at intake.", "Insurance asks for the national ID {p.government}.", "Dr. {q.surname} reviewed the MRI and saw no acute findings.", "Mrs. {q.surname} accompanies the patient.", "Follow-up on {n.date} at {n.time}.", "HbA1c is 6.4 and LDL 131 mg/dL.", "Patient portal invitations go to {p.email}."],
        ["Signed, {q.given} {q.surname}, MD", "Dictated but not read.", "Call {p.phone} with the results."], "\n"),
    "support": (
        ["Ticket {n.ticket} opened by {p.given} {p.surname}", "Customer {p.given} {p.surname} ({p.email}) writes:", "Issue {n.ticket}: cannot sign in"],
        ["My {n.product} stopped working after the update to {n.version}.", "I was charged {n.amount} twice on card {p.card}.", "The last login came from {p.ip}.", "Please ship the replacement to {ADDRESS}.", "Callback number: {p.phone}.", "Order {n.order} never arrived.", "Agent {q.given} promised a refund on {n.date}.", "I tried to reset it {n.count} times.", "Error code 0x80070057 appears every time.", "The account number on the statement is {p.account}.", "Screenshot is at {p.url}."],
        ["Regards, {p.given}", "Assigned to {q.given} {q.surname}.", "Status: waiting for customer"], "\n"),
    "cv": (
        ["{p.given} {p.surname}\n{p.email} | {p.phone} | {p.city}, {p.state}", "Curriculum Vitae\n{p.givens} {p.surname}\n{ADDRESS}\n{p.phone}", "{p.given} {p.upper}\n{p.url}\n{p.email}"],
        ["{n.role} at {n.company}, 2019 to 2023", "Led a team of {n.count} people and cut costs by {n.percent}", "Skills: Python 3.11, Kubernetes, Excel, forklift licence", "B.Sc. in Physics, 2014", "Languages: English, German (B2), Spanish", "Reference: {q.given} {q.surname}, {q.phone}", "Portfolio: {p.url}", "Reference: Dr {q.given} {q.surname} ({q.email})"],
        ["Hobbies: chess, sailing", "Driving licence no. {p.license}", "Available from {n.date}"], "\n"),
    "invoice": (
        ["INVOICE {n.order}\nBill to:\n{p.given} {p.surname}\n{ADDRESS}", "Invoice no. {n.order}, {n.date}\nCustomer: {p.given} {p.surname}"],
        ["1 x {n.product}   {n.amount}", "Total due: {n.amount}", "Payment by bank transfer: IBAN {p.iban}", "Account number: {p.account}\nRouting number: {p.routing}", "Tax ID: {p.tax}", "VAT ID {p.tax}", "Paid with card {p.card}, exp. 09/27", "Questions? {q.email} or {q.phone}", "Terms: 30 days net", "ABA {p.routing}, acct {p.account}"],
        ["Thank you for your business.", "Please quote {n.order} with your payment.", "Contact: {q.given} {q.surname}"], "\n"),
    "legal": (
        ["THIS AGREEMENT is made on {n.date} between {p.given} {p.surname}, residing at {ADDRESS} (the \"Tenant\"), and {n.company} (the \"Landlord\").", "I, {p.givens} {p.surname}, declare under penalty of perjury:", "Deposition of {p.given} {p.surname}, taken {n.date}."],
        ["The Tenant shall pay {n.amount} per month.", "Passport number {p.passport} was presented as proof of identity.", "My Social Security number is {p.ssn}.", "The driver's license {p.license} issued by the State of {p.state} was examined.", "Counsel for the plaintiff, {q.given} {q.surname}, objected.", "Section 4.2 survives termination of this Agreement.", "Notices go to {q.email} with a copy to {q.building} {q.street}, {q.city}.", "The witness, {q.given} {q.surname}, signed on {n.date}.", "Mr. {p.surname} shall be bound by clause 12(b).", "Taxpayer identification number: {p.tax}."],
        ["Signed: {p.given} {p.surname}", "IN WITNESS WHEREOF the parties have executed this Agreement.", "Notary public, commission expires 2027"], "\n\n"),
    "code_log": (
        ["2025-03-04T11:02:17Z INFO auth user={p.email} ip={p.ip} status=200", "// maintainer: {p.given} {p.surname} <{p.email}>\nfn main() {{", "{n.date} 10:15:03 WARN login failed for {p.email} from {p.ip}"],
        ["2025-03-04T11:02:18Z DEBUG cache hit ratio=0.93 shard=12 latency_ms=41", "commit {n.hash}", "Author: {q.given} {q.surname} <{q.email}>", "ERROR connection reset by peer 10240/65536 retries={n.count}", "{\"user\": {\"first\": \"{p.given}\", \"last\": \"{p.surname}\", \"phone\": \"{p.phone}\", \"zip\": \"{p.zip}\"}}", "let version = \"{n.version}\"; // pinned", "payload: card={p.card}&amount=1999", "    at com.initech.billing.Invoice.render(Invoice.java:214)", "GET /api/v2/items?page=3&size=50 from {q.ip}", "SELECT * FROM orders WHERE total > 1500 LIMIT 100;"],
        ["exit code 137", "# reviewed by {q.given}", "}} // end"], "\n"),
    "form": (
        ["First name: {p.given}\nLast name: {p.surname}", "APPLICATION FORM\nFull name: {p.given} {p.surname}", "Name: {p.surname}, {p.givens}"],
        ["Email: {p.email}", "Phone: {p.phone}", "Street: {p.building} {p.street}\nCity: {p.city}\nState: {p.state}\nZIP: {p.zip}", "Address: {ADDRESS}", "SSN: {p.ssn}", "Passport No: {p.passport}", "Driver's License: {p.license}", "Government ID: {p.government}", "Bank account: {p.account}", "Routing no: {p.routing}", "IBAN: {p.iban}", "TIN: {p.tax}", "Newsletter: yes", "Application date: {n.date}", "Credit card: {p.card}", "Reference code: {n.order}", "National Insurance number: {p.government}"],
        ["Signature: ____________", "Emergency contact: {q.given} {q.surname} {q.phone}", "I agree to the terms and conditions."], "\n"),
    "social": (
        ["So happy for {p.given} and {q.given}!! 🎉", "Anyone know a good plumber in {p.city}?", "PSA: someone is using my name ({p.given} {p.surname}) to scam people", "Just moved into our new place on {p.street} 😍"],
        ["DM me or text {p.phone}.", "Shoutout to {q.given} {q.surname} for the help.", "New blog post: {p.url}", "I never use {p.email} for that.", "Come by {p.building} {p.street} on {n.date}.", "{n.count} likes and counting!", "Best pizza in {p.state}, no contest.", "The {n.product} is worth every penny.", "Follow {p.url} for more."],
        ["#grateful #newhome", "RT if you agree", "xo, {p.given}"], " "),
    "travel": (
        ["Booking confirmation for {p.given} {p.surname}, flight on {n.date}", "Your itinerary, Mr {p.surname}:", "Hotel reservation {n.order}\nGuest: {p.given} {p.surname}"],
        ["Passenger passport: {p.passport}", "Second traveller: {q.given} {q.surname}, passport {q.passport}", "Seat 14C, gate opens at {n.time}", "Pickup at {ADDRESS}", "Contact during the trip: {p.phone}", "The flight lands in {q.city} at {n.time}.", "Paid {n.amount} with {p.card}", "Baggage allowance 23 kg", "Manage your booking at {p.url}", "We emailed the voucher to {p.email}.", "Renter's license {p.license}, issued in {p.state}"],
        ["Have a pleasant journey.", "Questions: {q.phone}", "Check-in closes 45 minutes before departure."], "\n"),
    "banking": (
        ["Dear {p.given} {p.surname}, a transfer of {n.amount} was made from your account {p.account}.", "Wire instructions for {p.given} {p.surname}", "KYC record: {p.surname}, {p.given}"],
        ["Beneficiary: {q.given} {q.surname}, IBAN {q.iban}", "Routing number {p.routing}, account {p.account}", "Card ending is hidden, full number {p.card}", "Tax identification number {p.tax}", "Residential address: {ADDRESS}", "SSN on file: {p.ssn}", "ID document: passport {p.passport}", "Verified by phone at {p.phone} on {n.date}", "Online access from {p.ip} at {n.time}", "Balance after posting: {n.amount}", "National identity card {p.government}", "Reference {n.order}"],
        ["If this was not you, call us at once.", "Relationship manager: {q.given} {q.surname}", "Interest accrues at {n.percent} per year."], "\n"),
    "letter_de_fr_es": (
        ["Sehr geehrte Frau {p.surname},", "Bonjour {p.given} {p.surname},", "Estimado señor {p.surname}:", "Hallo {p.given},"],
        ["bitte überweisen Sie {n.amount} auf das Konto {p.iban}.", "Meine neue Adresse lautet {ADDRESS}.", "Sie erreichen mich unter {q.phone}.", "Mon numéro de téléphone est le {p.phone}.", "Mi correo es {p.email}.", "Votre commande {n.order} a été expédiée.", "Vivo en {p.city}.", "Mein Kollege {q.given} {q.surname} meldet sich am {n.date}."],
        ["Mit freundlichen Grüßen\n{q.given} {q.surname}", "Cordialement,\n{q.given} {q.surname}", "Saludos,\n{q.given}"], "\n"),
}

CLEAN = """The quarterly report shows revenue up 12.4 % to $3,482,000, driven by the cloud segment. Operating margin rose to 18.1 %, and the board approved a dividend of $0.42 per share payable on 15 June 2025. Headcount stayed flat at 1,204.
Release 4.18.2 fixes a memory leak in the scheduler, upgrades OpenSSL to 3.0.13 and drops support for Python 3.8. Run `make clean && make -j8` before installing. See chapter 7.3.1 of the manual.
Preheat the oven to 180 degrees. Mix 250 g flour, 3 eggs and 120 ml milk. Bake for 35 minutes, let it cool for 10 and serve with rosemary butter. Serves 4 to 6.
The committee met on 12 May and again on 3 June. It adopted items 1 to 7 of the agenda without changes and deferred item 8. The next meeting starts at 14:30 in room 204.
Photosynthesis turns light, water and carbon dioxide into sugar and oxygen. The light reactions take place in the thylakoid membrane; the Calvin cycle fixes carbon in the stroma.
Our warranty covers parts and labour for 24 months. It does not cover damage from water, misuse or batteries. Keep the receipt: order number SO48213 or serial number HX-20-4471-B is needed for claims.
ERROR 2025-02-11 08:14:55,201 worker-17 Timeout after 30000 ms; retry 3/5; queue depth 1042; build 20250211.4; sha 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b
Interest rates were left unchanged at 4.25 per cent. Analysts had expected a cut of 25 basis points. The index closed at 18,442, up 0.7 %, while oil fell to $71.20 a barrel.
To install the shelf, drill two 8 mm holes 40 cm apart, insert the plugs and tighten the screws. Maximum load 25 kg. Part numbers 104.882.17 and 602.114.90 are included.
The home team won 3-1 after extra time in front of 54,120 spectators. The second goal came in the 78th minute. They now lead the table with 61 points from 29 games.
Thank you for contacting us. Your request has been received and will be handled within 2 business days. Please do not reply to this message.
Sort the list with quicksort, which takes O(n log n) on average. For n = 1000000 the loop ran in 84 ms on an 8-core machine with 32 GB of RAM and Linux 6.8.0-45.
The study enrolled 412 participants aged 18 to 65; 207 received the drug and 205 a placebo. The primary endpoint improved by 1.8 points (95 % CI 0.9 to 2.7, p = 0.003).
Heavy rain is expected from Tuesday, with up to 60 mm in 24 hours. Temperatures stay between 8 and 13 degrees. Ferries may be cancelled at short notice.
ISBN 978-0-306-40615-7, second edition, 348 pages. The book covers Bayes networks, Markov chains and Gaussian processes, with 120 exercises and solutions online.
The printer shows code E-05. Turn it off, wait 60 seconds, remove the tray and check for jammed paper. If the message persists, update the firmware to 2.14.
Meeting notes: budget approved, hiring frozen until Q3, migration to Kubernetes 1.29 done for 14 of 22 services, next review on 2025-04-02 at 10:00.
A Bessel filter has the flattest group delay, a Butterworth filter the flattest passband. The Fourier transform of a Gaussian is again a Gaussian.
Apply for a building permit with form 12-B. The fee is $85. Processing takes 10 to 15 working days; incomplete applications are returned.
The museum is open Tuesday to Sunday from 10:00 to 18:00. Tickets cost 12 euros, children under 6 go free. The audio guide is available in nine languages.
Use port 8080 for HTTP and 8443 for HTTPS, set max_connections to 500 and the timeout to 30s. Bind to 0.0.0.0 only in containers; localhost is the default.
Chapter 3. The rain had stopped by the time the train reached the coast, and the old lighthouse stood dark against the water. Nobody had tended it for thirty years.
This agreement is governed by the laws in force at the seat of the supplier. Should any provision be invalid, the remaining provisions stay in force. Clause 9.3 applies accordingly.
Versions 1.2.3.4 and 1.2.3.5 of the driver are affected. CVE-2024-31497 has a score of 5.9. Upgrade to 1.2.4.0 or disable the module.
Dishwasher tablets 60-pack, EAN 4006381333931, aisle 7, shelf 3. Price 11.49, was 14.99. Limit 4 per household. Offer ends Sunday.
Der Zug fährt um 9:42 von Gleis 7 und kommt um 12:15 an. Im Speisewagen gibt es Kaffee und belegte Brote. Die Sitzplätze 31 bis 48 sind reserviert.
Le conseil a adopté le budget de 2,4 millions d'euros. Les travaux commenceront au printemps et dureront dix-huit mois.
La reunión empieza a las 16:00 en la sala 3. Traed el informe del segundo trimestre y las cifras de ventas.
I think the second option is better, the colours are warmer and the text is easier to read. Could we also make the button bigger? No rush, end of the week is fine.
git rebase -i HEAD~3 && git push --force-with-lease origin main # then tag v2.0.0-beta.1 and wait for the pipeline (about 14 min)
Battery: 5000 mAh, charging 67 W, display 6.67 inch, 2712 x 1220 pixels, 120 Hz, weight 199 g, protection IP68. Available in black, sand and mint.
To whom it may concern: the parking area behind the building will be resurfaced between 3 and 7 November. Please move all vehicles by 7:00 on the first day.
function area(r) { return Math.PI * r ** 2; } // unit test: area(2) === 12.566370614359172
Dear customer, your parcel is on its way. Tracking code 00340434161094042557. Expected delivery: Friday between 11:00 and 13:00.
What is the difference between a mortgage and a lease? Explain it to a twelve-year-old in three sentences, and give one example with numbers.
The committee thanks all volunteers. This year 312 trees were planted, 4.5 km of hedges were restored and 27 nest boxes put up. Next year's target is 400 trees.
CHANGELOG 0.9.14: added dark mode, fixed #2231 and #2240, removed the deprecated flag --legacy-auth. Minimum supported compiler 1.74.
Patients with asthma should avoid beta blockers. A normal resting heart rate is 60 to 100 beats per minute; oxygen saturation should be above 94 %.
Please translate the following into plain English: the party of the first part shall indemnify and hold harmless the party of the second part.
Room 12 has 30 seats, a projector and two whiteboards. Room 14 seats 18. Book either one through the intranet at least two days ahead.""".split("\n")


def render(rng, template, people):
    """Fills a template; returns text and spans."""
    region = people["p"].region
    template = template.replace("{ADDRESS}", rng.choice(ADDRESSES[region]))
    text, spans = "", []
    for part in re.split(r"(\{[pqn]\.\w+\}|\{\{|\}\})", template):
        if part in ("{{", "}}"):
            text += part[0]
        elif re.fullmatch(r"\{[pqn]\.\w+\}", part):
            label, value = people[part[1]].get(part[3:-1])
            if label:
                spans.append({"start": len(text), "end": len(text) + len(value), "label": label})
            text += value
        else:
            text += part
    return text, spans


def document(rng, genre):
    openings, sentences, closings, joint = GENRES[genre]
    people = {"p": Person(rng), "q": Person(rng), "n": Nothing(rng)}
    parts = [rng.choice(openings)] + rng.sample(sentences, rng.randrange(2, 7)) + [rng.choice(closings)]
    text, spans = "", []
    for i, part in enumerate(parts):
        if i:
            text += joint
        more, found = render(rng, part, people)
        spans += [{**s, "start": s["start"] + len(text), "end": s["end"] + len(text)} for s in found]
        text += more
    return text, spans


def handwritten(source):
    """Documents of `### genre` and marked text."""
    for number, part in enumerate(re.split(r"^### ", source, flags=re.M)[1:]):
        genre, marked = part.split("\n", 1)
        text, spans = "", []
        for piece in re.split(r"(\[\[[A-Z_]+\|.*?\]\])", marked.rstrip("\n")):
            field = re.fullmatch(r"\[\[([A-Z_]+)\|(.*)\]\]", piece)
            value = field[2] if field else piece
            if field:
                spans.append({"start": len(text), "end": len(text) + len(value), "label": field[1]})
            text += value
        yield {"id": f"hand-{number:02d}-{genre}", "genre": genre, "text": text, "spans": spans}


def main():
    rng = random.Random(SEED)
    documents = []
    for genre in GENRES:
        for i in range(22):
            text, spans = document(rng, genre)
            documents.append({"id": f"{genre}-{i:02d}", "genre": genre, "text": text, "spans": spans})
    for i, text in enumerate(CLEAN):
        documents.append({"id": f"clean-{i:02d}", "genre": "clean", "text": text, "spans": []})
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        for entry in documents:
            for span in entry["spans"]:
                assert 0 <= span["start"] < span["end"] <= len(entry["text"])
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    print(f"{len(documents)} documents, {sum(len(d['spans']) for d in documents)} spans", file=sys.stderr)
    if len(sys.argv) > 2:
        for entry in handwritten(open(sys.argv[2], encoding="utf-8").read()):
            print(json.dumps(entry, ensure_ascii=False))


if __name__ == "__main__":
    main()
