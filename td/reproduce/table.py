"""A table as data: the networks of its columns, how they are scored, the published values, and claims."""

import itertools
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from td.base import identity
from td.criteria import GRANULARITIES
from td.errors import UserError, check_choice, nearest
from td.evaluate.options import parse_rates
from td.masks import find
from td.reproduce.claims import Claim
from td.sweep.hyper import Settings

NUMBERS = ("drop_rate", "target_proportion", "proportion", "cost", "survivors")  # of a method, in names of columns


class Request(NamedTuple):
    """Tables to reproduce at a scale.

    Attributes:
      configs: Folder of config files.
      tables: Names of tables, or files of your own.
      folder: Folder for all runs, results and reports.
      changes: Settings to change, as text.
      scale: Size of the runs: paper, short, small, cpu or smoke.
      seeds: Runs of each network.
      only: Column to restrict the table to; repeat it for several.
      reconstruct: Also score with the kept weights solved again layer by layer (td.reconstruct).

    Rarely needed:
      data_note: Remark on the data, for the captions.
    """

    configs: Path
    tables: tuple[str, ...]
    folder: Path
    scale: str = "paper"
    seeds: int = 3
    only: tuple[str, ...] = ()
    reconstruct: bool = False
    data_note: str = ""
    changes: Mapping[str, str] = {}


class Network(NamedTuple):
    """One network of a table, trained once a seed."""

    column: str  # heading of the column whose cells it fills
    config: str  # a file of `configs/` without its suffix, or the absolute path of your own
    settings: Settings  # arguments of that file, and settings of its config
    rates: tuple[float, ...]  # prune rates at which it is scored


class Table(NamedTuple):
    """A table to reproduce."""

    title: str
    networks: tuple[Network, ...]  # a column may have one network for all rates or one for each
    granularity: str = "weight"  # what is pruned
    scorings: tuple[str, ...] = ("dense",)  # "dense": all columns in that mode; "paper": each as the paper scored it
    published: Mapping[str, str] = {"accuracy": ""}  # quantity, accuracy or bleu -> published table, "" for none
    claims: tuple[Claim, ...] = ()
    beams: int = 0  # of beam search; 0 for everything but text
    measure: str = "prune_curve"  # or "change_of_loss", for Table 1
    chance: float = 10.0  # per cent that guessing reaches in the first quantity

    def columns(self) -> list[str]:
        """List the headings of its columns."""
        return list(dict.fromkeys(network.column for network in self.networks))

    def label(self, run: Mapping[str, Any]) -> str:
        """Name one network by its column and, where the column has several, its prune rates."""
        if sum(network.column == run["column"] for network in self.networks) < 2:
            return str(run["column"])
        ends = dict.fromkeys(f"{100 * rate:g}" for rate in (min(run["rates"]), max(run["rates"])))
        return f"{run['column']} at {' to '.join(ends)} %"


def mode_of(mask: str, granularity: str, scoring: str) -> str:
    """Return the mode of a method in a scoring; the paper's is in the method's record."""
    return find(mask).published_modes.get(granularity, "dense") if scoring == "paper" else "dense"


def column_name(settings: Mapping[str, Any]) -> str:
    """Name a column by its method and the method's numbers."""
    given = {name: f"{settings[f'mask.{name}']:g}" for name in NUMBERS if f"mask.{name}" in settings}
    shown = "/".join(number if name == "cost" else number.removeprefix("0") or "0" for name, number in given.items())
    return " ".join(filter(None, [settings["mask"], shown]))


def networks(
    config: str, sweep: Sequence[Settings], *rates: str, granularity: str = "weight", column: str = ""
) -> tuple[Network, ...]:
    """Make one network of each entry of a sweep; tables of weights and of units share the one without a method."""
    shares = tuple(sorted({share for part in rates for share in parse_rates(part)}))
    made = []
    for settings in sweep:
        pruned = {} if find(settings["mask"]).factory is identity else {"granularity": granularity}
        made.append(Network(column or column_name(settings), config, {**settings, **pruned}, shares))
    return tuple(made)


def at_own_rates(
    config: str, settings: Settings, setting: str, rates: Sequence[float], granularity: str
) -> tuple[Network, ...]:
    """Make one column of several networks, each trained for the rate that it is pruned at."""
    settings = {**settings, "granularity": granularity}
    return tuple(Network(settings["mask"], config, {**settings, setting: rate}, (rate,)) for rate in rates)


def is_file_name(name: str) -> bool:
    """Return True for a file of your own, which has a suffix or a folder in its name, unlike the paper's tables."""
    return name.endswith(".py") or len(Path(name).parts) > 1


def load_table(configs: Path, name: str) -> Table:
    """Read a table of `configs/tables` or a file of your own."""
    own = is_file_name(name)
    path = Path(name) if own else configs / "tables" / f"{name}.py"
    if not path.is_file():
        raise UserError(f"no file {name}" if own else f"unknown table {name!r}: {nearest(name, table_names(configs))}")
    table: Table = runpy.run_path(str(path))["get_table"]()
    for one, other in itertools.combinations(table.networks, 2):
        if one.column == other.column and set(one.rates) & set(other.rates):
            raise UserError(f"{path} has two networks for the same cells of {one.column!r}: rename one by column=")
    check_choice("granularity", table.granularity, GRANULARITIES)
    for scoring in table.scorings:
        check_choice("scoring", scoring, ("dense", "paper"))
    for comparison in (each for claim in table.claims for each in claim.comparisons):
        for column, _ in comparison[:2]:
            check_choice("column", column, table.columns())
    return table


def table_names(configs: Path) -> list[str]:
    """List the tables of `configs/tables`."""
    return sorted(path.stem for path in (configs / "tables").glob("*.py"))
