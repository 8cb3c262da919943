"""The paper's values, which ship with the package: to compare with, never to be printed as ours."""

from pathlib import Path

import pandas as pd

from td.errors import lookup

FOLDER = Path(__file__).parent / "published"
CELL = ["column", "prune_rate"]  # index of a table's cells


def published(name: str) -> pd.DataFrame:
    """Read a published table: `published` in per cent (BLEU: of 100) and `doubted` by cell; "" has no cells."""
    if not name:
        return pd.DataFrame(columns=[*CELL, "published", "doubted"]).set_index(CELL)
    files = {path.stem: path for path in FOLDER.glob("*.csv")}
    cells = pd.read_csv(lookup(files, name, "published table")).melt("prune_rate", var_name="column")
    cells = cells[~cells["column"].str.endswith(" sd")].dropna().rename(columns={"value": "published"})
    doubtful = cells.reset_index().merge(notes(name), on="column").query("first <= prune_rate <= last")
    cells["doubted"] = cells.index.isin(doubtful["index"])
    cells["prune_rate"] = (cells["prune_rate"] / 100).round(6)
    return cells.set_index(CELL)


def notes(name: str) -> pd.DataFrame:
    """Read why cells of a published table are wrong or weak: of `column`, from `first` to `last` per cent."""
    return pd.read_csv(FOLDER / "notes.csv").query("table == @name")
