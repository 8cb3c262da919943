"""The small search by which settings of small scales are chosen: on held-out training data, never on the test split."""

import json
import logging
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
from td.io.files import read_json, write_json
from td.io.interrupt import Stopped, listening
from td.io.run_folder import MACHINE_SETTINGS, RESUMABLE_SETTINGS, flatten
from td.reproduce.jobs import convert, run_name
from td.reproduce.sweeps import product
from td.train.experiment import load_trained
from td.train.rounds import train_rounds

LOG = logging.getLogger(__name__)


def candidates(config: ConfigDict, choices: Sequence[str], validation: int) -> list[tuple[dict[str, Any], ConfigDict]]:
    """Every combination of some settings, as configs that hold a part of the training data out."""
    check_at_least("validation", validation, 1)
    if any(choice.partition("=")[0] == "data.validation" for choice in choices):
        raise UserError("data.validation is the same for all candidates: give --validation")
    known, given = flatten(config.to_dict()), {}
    for choice in choices:
        name, equals, texts = choice.partition("=")
        if name not in known or not equals:
            valid = nearest(name, known) if name not in known else f"as {name}={known[name]}"
            raise UserError(f"--try={choice} is not understood: write SETTING=VALUE,VALUE; {valid}")
        if name in given or name in MACHINE_SETTINGS:
            reason = "is tried twice: give all of its values at once" if name in given else "changes no network"
            raise UserError(f"--try={choice}: {name} {reason}")
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
    """Train every candidate, or go on, prune it and score it on what was held out; write what is known after each.

    Candidates that an earlier search of the same config and rates has scored in this folder stay beside the new ones.
    """
    shares, path, failed = parse_rates(rates), folder / "search.json", []
    same = {"validation": validation, "config": json.loads(config.to_json())}
    found = _known(path, same, shares)
    with listening() as stops:
        for settings, candidate in candidates(config, choices, validation):
            name = run_name("search", candidate)
            if any(entry["run"] == name for entry in found):
                continue
            try:
                rows = _score(candidate, folder / name, shares)
            except UserError as error:  # one that diverges says nothing of the others
                failed.append(f"{settings}: {error}")
                LOG.warning("%s", failed[-1])
            else:
                entry = {"settings": settings, "run": name, "mean": mean_accuracy(rows)}
                found.append({**entry, "rows": [row._asdict() for row in rows]})
                found.sort(key=lambda entry: entry["mean"], reverse=True)
                write_json(path, {**same, "candidates": found, **provenance.describe()})
            if stops(0):
                raise Stopped(f"after {folder / name}")
    if not found:
        raise UserError(f"no candidate could be trained: {'; '.join(failed)}")
    lines = tabulate([_line(entry) for entry in found], headers="keys", disable_numparse=True)
    return "\n".join([lines, *(f"failed: {reason}" for reason in failed)])


def _known(path: Path, same: Mapping[str, Any], shares: Sequence[float]) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    content = read_json(path)
    scored = [entry for entry in content["candidates"] if {"run", "mean", "settings", "rows"} <= set(entry)]
    at = {tuple(row["prune_rate"] for row in entry["rows"]) for entry in scored}
    ours, theirs = (_computed(of) for of in (same, content))
    if ours != theirs or not at <= {tuple(shares)}:
        raise UserError(f"{path} is a search with another config, --validation or --rates: choose another folder")
    return scored


def _computed(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a search depends on, not where its data lie."""
    settings = flatten({"config": content["config"], "validation": content["validation"]})
    return {name: value for name, value in settings.items() if name.removeprefix("config.") not in RESUMABLE_SETTINGS}


def _score(candidate: ConfigDict, run_folder: Path, shares: Sequence[float]) -> list[Row]:
    train_rounds(candidate, run_folder)
    run, state = load_trained(run_folder, finished=True)
    options = Options(candidate.granularity)
    if state.batch_stats:
        options = options._replace(recalibrate_batch_norm=True, recalibration_batches=4)
    return prune_curve(run, state, shares, options)


def _line(entry: Mapping[str, Any]) -> dict[str, str]:
    rows = entry["rows"]
    settings = entry["settings"].items()
    shown = {name: f"{v:g}" if isinstance(v, float) else str(v) for name, v in settings}
    return shown | {
        "mean over the rates %": f"{100 * entry['mean']:.1f}",
        f"at {100 * rows[0]['prune_rate']:g} %": f"{100 * rows[0]['accuracy']:.1f}",
        f"at {100 * rows[-1]['prune_rate']:g} %": f"{100 * rows[-1]['accuracy']:.1f}",
    }
