"""The result files of a table, read back: what is missing or failed, and every cell in every view."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from ml_collections import ConfigDict

from td.errors import UserError, lookup
from td.io.files import read_json
from td.reproduce.table import Table, mode_of
from td.sweep.point import Point

PUBLISHED = Path(__file__).parent / "published"
CELL = ["column", "prune_rate"]  # index of a table's cells
FIELDS = {"accuracy": ("accuracy", "recalibrated_accuracy"), "bleu": ("bleu",)}  # as trained and recalibrated
FIELDS["accuracy"] += ("reconstructed_accuracy", "reconstructed_recalibrated_accuracy")
LEFT = ["sparsity", "dead_units", "empty_layers"]  # what is left of a network

MODES = {
    "dense": "the whole trained network, then pruned",
    "prune_targets": "the method's targets removed first, then pruned",
    "stochastic": "pruned, dropout still active",
}

SCORINGS = {"dense": "dense", "paper": "the paper's modes"}
UNITS = {"accuracy": "accuracy in per cent", "bleu": "BLEU, uncased"}


class Results(NamedTuple):
    """Results of a table's runs, and the runs without one."""

    scale: str
    files: list[dict[str, Any]]  # contents of the result files
    missing: list[dict[str, Any]]  # column, rates, seed and state of runs without a result
    requested: dict[str, int]  # number of seeds by column
    changes: dict[str, dict[str, str]]  # settings that commands changed, by column


def result_path(folder: Path, name: str, run: str) -> Path:
    """Name the result file of a run."""
    return folder / name / f"{run}.json"


def collect(folder: Path, name: str) -> Results:
    """Read all result files of a table."""
    if not (folder / name / "plan.json").is_file():
        raise UserError(f"no results of {name} in {folder}: run td-reproduce {name} --workdir={folder} first")
    plan = read_json(folder / name / "plan.json")
    for run in (runs := plan["jobs"]):
        result = result_path(folder, name, run["run"])
        run["state"] = Point({}, ConfigDict(), folder / "runs" / run["run"], result).state()
    done = [run for run in runs if run["state"] == "finished"]
    files = [read_json(result_path(folder, name, run["run"])) | {"column": run["column"]} for run in done]
    missing = [run for run in runs if run["state"] != "finished"]
    asked = dict.fromkeys((entry["column"], entry["seed"]) for entry in plan["jobs"])
    requested = dict(Counter(column for column, _ in asked))
    changes = {part["column"]: part["changes"] for part in (*plan["jobs"], *files) if "changes" in part}
    return Results(plan["scale"], files, missing, requested, changes)


def published(name: str) -> pd.DataFrame:
    """Read a table of the paper: `published` in per cent (BLEU: of 100) and `doubted` by cell; "" has no cells."""
    if not name:
        return pd.DataFrame(columns=[*CELL, "published", "doubted"]).set_index(CELL)
    files = {path.stem: path for path in PUBLISHED.glob("*.csv")}
    cells = pd.read_csv(lookup(files, name, "published table")).melt("prune_rate", var_name="column")
    cells = cells[~cells["column"].str.endswith(" sd")].dropna().rename(columns={"value": "published"})
    doubtful = cells.reset_index().merge(notes(name), on="column").query("first <= prune_rate <= last")
    cells["doubted"] = cells.index.isin(doubtful["index"])
    cells["prune_rate"] = (cells["prune_rate"] / 100).round(6)
    return cells.set_index(CELL)


def notes(name: str) -> pd.DataFrame:
    """Read why cells of a published table are wrong or weak: of `column`, from `first` to `last` per cent."""
    return pd.read_csv(PUBLISHED / "notes.csv").query("table == @name")


def markdown(frame: pd.DataFrame, **options: Any) -> str:
    """Format a frame of texts, as Markdown unless `tablefmt` says otherwise."""
    return str(frame.to_markdown(**{"index": False, "tablefmt": "github", "disable_numparse": True, **options}))


def points(table: Table, results: Results) -> pd.DataFrame:
    """List every point of every prune curve, by scoring, column, rate and seed."""
    lines = [
        {"scoring": scoring, "column": file["column"], "seed": file["seed"], **point}
        for scoring in table.scorings
        for file in results.files
        for point in file["curves"].get(mode_of(file["settings"]["mask"], table.granularity, scoring), ())
        if point["prune_rate"] in file["rates"]
    ]
    fields = [field for several in FIELDS.values() for field in several] + LEFT
    found = pd.DataFrame(lines, columns=["scoring", *CELL, "seed", *fields])
    found[fields] = found[fields].astype(float)
    found[list(FIELDS["accuracy"])] *= 100
    return found.fillna({"dead_units": 0.0, "empty_layers": 0.0})


class View(NamedTuple):
    """A table in one scoring and one quantity, as trained, recalibrated, reconstructed, or both."""

    scale: str
    scoring: str
    quantity: str
    recalibrated: bool
    reconstructed: bool
    cells: pd.DataFrame  # by column and prune rate, NaN where there is no value; columns as in `views`

    @property
    def title(self) -> str:
        """Scoring, quantity where it is not accuracy, and state of weights and BatchNorm."""
        state = ["reconstructed"] * self.reconstructed + ["BatchNorm recalibrated"] * self.recalibrated
        quantity = [self.quantity] if self.quantity != "accuracy" else []
        return ", ".join([SCORINGS[self.scoring], *quantity, *(state or ["as trained"])])

    def grid(self, name: str) -> pd.DataFrame:
        """Arrange one number of every cell as rates x columns."""
        return self.cells[name].unstack("column", sort=False)

    def sentence(self) -> str:
        """Describe the quantity shown, and how it was scored."""
        again = ", with BatchNorm statistics estimated again after pruning" if self.recalibrated else ""
        again = ", kept weights solved again layer by layer" * self.reconstructed + again
        units = f"{UNITS[self.quantity][0].upper()}{UNITS[self.quantity][1:]}"
        if self.scoring == "dense":
            return f"{units}: {MODES['dense']}{again}."
        modes = self.cells["mode"].groupby(level="column", sort=False).first()
        listed = [f"In mode `{m}` ({MODES[m]}): {', '.join(modes.index[modes == m])}." for m in modes.unique()]
        return " ".join([f"{units}: each column scored as the released code did{again}.", *listed])


def views(table: Table, results: Results) -> list[View]:
    """Compute a table's cells, with their published values, in every view that has any."""
    rates = sorted({rate for network in table.networks for rate in network.rates})
    every = pd.MultiIndex.from_product([table.columns(), rates], names=CELL)
    methods = {network.column: network.settings["mask"] for network in table.networks}
    theirs = {name: published(name) for name in table.published.values()}
    all_points, found = points(table, results), []
    for scoring in table.scorings:
        modes = [mode_of(methods[column], table.granularity, scoring) for column, _ in every]
        for quantity, name in table.published.items():
            for field in FIELDS[quantity]:
                cells = all_points[all_points["scoring"] == scoring].dropna(subset=field).groupby(CELL)
                stats: dict[str, Any] = {"mean": (field, "mean"), "deviation": (field, "std"), "n": (field, "count")}
                stats |= {"seeds": (field, tuple), **{left: (left, "mean") for left in LEFT}}
                shown = cells.agg(**stats).reindex(every).join(theirs[name]).assign(mode=modes)
                shown["difference"] = shown["mean"] - shown["published"]
                if shown["mean"].notna().any():
                    state = "recalibrated" in field, "reconstructed" in field
                    found.append(View(results.scale, scoring, quantity, *state, shown))
    return found
