"""The small search by which settings of small scales are chosen: on held-out training data, never on the test split."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ml_collections import ConfigDict
from tabulate import tabulate

from td.errors import UserError, check_at_least, nearest
from td.evaluate.options import Options
from td.evaluate.prune_curve import Row, prune_curve
from td.evaluate.rates import parse_rates
from td.io import provenance
from td.io.run_folder import flatten, write_json
from td.reproduce.jobs import convert, run_name
from td.reproduce.sweeps import product
from td.train.experiment import load_trained
from td.train.rounds import train_rounds


def candidates(config: ConfigDict, choices: Sequence[str], validation: int) -> list[tuple[dict[str, Any], ConfigDict]]:
    """Every combination of some settings, as configs that hold a part of the training data out."""
    check_at_least("validation", validation, 1)
    known, given = flatten(config.to_dict()), {}
    for choice in choices:
        name, equals, texts = choice.partition("=")
        if name not in known or not equals:
            raise UserError(f"--try={choice} is not understood: write SETTING=VALUE,VALUE; {nearest(name, known)}")
        given[name] = [convert(name, text, known[name]) for text in texts.split(",")]
    listed = []
    for settings in product(given):
        candidate = ConfigDict(config.to_dict())
        candidate.update_from_flattened_dict(settings)
        candidate.data.validation = validation
        listed.append((settings, candidate.lock()))
    return listed


def mean_accuracy(rows: Sequence[Row]) -> float:
    """The mean over the rates of a prune curve, as trained and recalibrated alike."""
    both = [[row.accuracy, row.recalibrated_accuracy] for row in rows]
    return fmean(fmean(value for value in pair if value is not None) for pair in both)


def search(config: ConfigDict, choices: Sequence[str], validation: int, rates: str, folder: Path) -> str:
    """Train every candidate, or go on, prune it and score it on what was held out; write what is known after each."""
    shares = parse_rates(rates)
    found: list[dict[str, Any]] = []
    for settings, candidate in candidates(config, choices, validation):
        run_folder = folder / run_name("search", candidate)
        train_rounds(candidate, run_folder)
        run, state = load_trained(run_folder)
        options = Options(config.granularity, recalibrate_batch_norm=bool(state.batch_stats), recalibration_batches=4)
        rows = prune_curve(run, state, shares, options)
        found.append({"settings": settings, "mean": mean_accuracy(rows), "rows": [row._asdict() for row in rows]})
        found.sort(key=lambda entry: entry["mean"], reverse=True)
        content = {"validation": validation, "config": config.to_dict(), "candidates": found, **provenance.describe()}
        write_json(folder / "search.json", content)
    return tabulate([_line(entry) for entry in found], headers="keys", disable_numparse=True)


def _line(entry: Mapping[str, Any]) -> dict[str, str]:
    rows = entry["rows"]
    settings = entry["settings"].items()
    shown = {name.rpartition(".")[2]: f"{v:g}" if isinstance(v, float) else str(v) for name, v in settings}
    return shown | {
        "mean over the rates %": f"{100 * entry['mean']:.1f}",
        f"at {100 * rows[0]['prune_rate']:g} %": f"{100 * rows[0]['accuracy']:.1f}",
        f"at {100 * rows[-1]['prune_rate']:g} %": f"{100 * rows[-1]['accuracy']:.1f}",
    }
