"""The paper's numbers, which ship with the package: to compare with, never to be printed as ours."""

import csv
from pathlib import Path
from typing import NamedTuple

from td.errors import UserError

FOLDER = Path(__file__).parent / "published"


class Value(NamedTuple):
    """One published cell, in per cent (BLEU: of 100); `deviation` where the paper gives one."""

    mean: float
    deviation: float | None = None


class Note(NamedTuple):
    """What is wrong, or weak, with some published cells: those of a column from `first` to `last` per cent."""

    column: str
    first: float
    last: float
    text: str

    def covers(self, column: str, percent: float) -> bool:
        """Whether a cell is one of them."""
        return self.column == column and self.first <= percent <= self.last


Columns = dict[str, dict[float, Value]]


def published(name: str) -> Columns:
    """The numbers of one published table."""
    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        raise UserError(f"no published numbers for {name!r}: there are {sorted(p.stem for p in FOLDER.glob('*.csv'))}")
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    names = [name for name in lines[0] if name != "prune_rate" and not name.endswith(" sd")]
    return {name: {float(line["prune_rate"]): _value(line, name) for line in lines if line[name]} for name in names}


def _value(line: dict[str, str], name: str) -> Value:
    deviation = line.get(f"{name} sd")
    return Value(float(line[name]), float(deviation) if deviation else None)


def notes(name: str) -> list[Note]:
    """What is known to be wrong, or weak, with a published table.

    Example:
      >>> [note.covers("l0 1e-06", 50) for note in notes("table4")]
      [True]
    """
    with (FOLDER / "notes.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["table"] == name]
    return [Note(line["column"], float(line["first"]), float(line["last"]), line["note"]) for line in lines]
