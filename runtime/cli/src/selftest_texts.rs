//! What `sotto selftest` asks and reads.

/// Ten prompts of different kinds.
pub(super) const PROMPTS: [&str; 10] = [
    "Explain photosynthesis in two sentences.",
    "Write a short poem about the sea in winter.",
    "What is the capital of Australia, and why is it not Sydney?",
    "List five tips for learning a new language.",
    "Write a Python function that reverses a string.",
    "Summarise the plot of Romeo and Juliet for a child.",
    "A train travels 120 kilometres in one and a half hours. What is its average speed?",
    "Translate into French: The library opens at nine in the morning.",
    "Give three arguments for and three against working from home.",
    "Write an email to my landlord about a broken heater.",
];

/// A page of prose, for perplexity.
pub(super) const PROSE: &str = "\
The village lay at the end of a long valley, where the road gave up and turned into a path for goats. In summer the \
people cut hay on the slopes above it and carried it down in large cloth bundles on their heads, and in winter they \
sat in their kitchens and repaired the tools they had broken in summer. There was a church with a wooden tower, a \
school with one room, and a shop that sold flour, nails, sugar and newspapers that were three days old when they \
arrived. Nobody locked a door. The only person who owned a key was the teacher, and she had been given it together \
with the school.

One spring a stranger came up the valley with a theodolite on a mule. He said that he had been sent to measure the \
height of the mountains, because the maps of the ministry did not agree with each other. The farmers listened to him \
politely. They knew how high the mountains were: as high as a man could climb between milking and milking, and then \
some more. But they gave him a room above the shop, and the children carried his red and white poles from one hill to \
the next, and in the evenings he sat outside and wrote numbers into a book with a hard pencil.

He stayed for two summers. By the end of the first he had learned to cut hay, though not well, and by the end of the \
second he had married the teacher. The maps were printed in the capital in the following year. They showed the village \
for the first time, with a small cross for the church, and beside the highest of the mountains there stood a number \
that was exact to the metre. The farmers looked at it for a long time. Then the oldest of them said that it was a good \
map, and that the mountain looked smaller on paper, and went to see after his cows.";

/// A page of program text, for perplexity.
pub(super) const CODE: &str = r#"import csv
from dataclasses import dataclass
from datetime import date, timedelta


@dataclass
class Loan:
    """A book that somebody has taken home."""

    reader: str
    title: str
    taken: date
    weeks: int = 3

    @property
    def due(self) -> date:
        return self.taken + timedelta(weeks=self.weeks)

    def fine(self, today: date, cents_per_day: int = 20) -> int:
        """What is to be paid when the book comes back today, in cents."""
        late = (today - self.due).days
        return max(0, late) * cents_per_day


def read_loans(path: str) -> list[Loan]:
    loans = []
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            taken = date.fromisoformat(row["taken"])
            loans.append(Loan(row["reader"], row["title"], taken, int(row.get("weeks") or 3)))
    return loans


def overdue(loans: list[Loan], today: date) -> dict[str, list[Loan]]:
    """The loans that should have come back, by reader, the oldest first."""
    late: dict[str, list[Loan]] = {}
    for loan in sorted(loans, key=lambda loan: loan.due):
        if loan.due < today:
            late.setdefault(loan.reader, []).append(loan)
    return late


def reminder(reader: str, loans: list[Loan], today: date) -> str:
    lines = [f"Dear {reader},", "", "these books are overdue:"]
    for loan in loans:
        lines.append(f"  {loan.title} (since {loan.due:%d %B %Y}, {loan.fine(today) / 100:.2f})")
    total = sum(loan.fine(today) for loan in loans)
    lines += ["", f"The fine until today is {total / 100:.2f}.", "The library"]
    return "\n".join(lines)


if __name__ == "__main__":
    today = date.today()
    for reader, loans in overdue(read_loans("loans.csv"), today).items():
        print(reminder(reader, loans, today), end="\n\n")
"#;
