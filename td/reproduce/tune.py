"""Tune settings on training data that is held out, never on the test split."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from ml_collections import ConfigDict
from tabulate import tabulate

from td.errors import UserError, check_at_least
from td.evaluate.options import Options, parse_rates
from td.evaluate.prune_curve import prune_curve
from td.io import provenance
from td.io.files import read_json, write_json
from td.io.interrupt import Stopped, listening
from td.io.run_folder import RESUMABLE_SETTINGS, flatten
from td.reproduce.jobs import run_name
from td.train.config import variants
from td.train.experiment import load_trained
from td.train.loop import train_rounds

LOG = logging.getLogger(__name__)


def candidates(config: ConfigDict, choices: Sequence[str], validation: int) -> list[tuple[dict[str, Any], ConfigDict]]:
    """Make a config of every combination of some settings, with `validation` training examples held out."""
    check_at_least("validation", validation, 1)
    found = []
    for settings in variants(choices, flatten(config.to_dict())):
        candidate = ConfigDict(config.to_dict())
        candidate.update_from_flattened_dict({**settings, "data.validation": validation})
        found.append((settings, candidate.lock()))
    return found


def tune(config: ConfigDict, choices: Sequence[str], validation: int, rates: str, folder: Path) -> str:
    """Train every candidate, prune it and score it on what was held out; rerun to resume or to add candidates."""
    shares, path, failed = parse_rates(rates), folder / "tune.json", []
    same = {"validation": validation, "config": json.loads(config.to_json())}
    found = _known(path, same, shares)
    with listening() as stops:
        for settings, candidate in candidates(config, choices, validation):
            name = run_name("tune", candidate)
            if any(entry["run"] == name for entry in found):
                continue
            try:
                rows = _score(candidate, folder / name, shares)
            except UserError as error:  # one that diverges says nothing of the others
                failed.append(f"{settings}: {error}")
                LOG.warning("%s", failed[-1])
            else:
                both = pd.DataFrame(rows)[["accuracy", "recalibrated_accuracy"]].astype(float)
                mean = float(both.mean(axis="columns").mean())  # as trained and recalibrated alike
                found.append({"settings": settings, "run": name, "mean": mean, "rows": rows})
                found.sort(key=lambda entry: entry["mean"], reverse=True)
                write_json(path, {**same, "candidates": found, **provenance.describe()})
            if stops(0):
                raise Stopped(f"after {folder / name}")
    if not found:
        raise UserError(f"no candidate could be trained: {'; '.join(failed)}")
    lines = tabulate([_line(entry) for entry in found], headers="keys", disable_numparse=True)
    return "\n".join([lines, *(f"failed: {reason}" for reason in failed)])


def _known(path: Path, same: Mapping[str, Any], shares: Sequence[float]) -> list[dict[str, Any]]:
    """Read the candidates that an earlier command has scored in this folder."""
    if not path.exists():
        return []
    content = read_json(path)
    ours, theirs = (flatten({key: of[key] for key in same}) for of in (same, content))
    changed = {key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)}
    at = {tuple(row["prune_rate"] for row in entry["rows"]) for entry in content["candidates"]}
    if changed - {f"config.{key}" for key in RESUMABLE_SETTINGS} or not at <= {tuple(shares)}:
        raise UserError(f"{path} has another config, --validation or --rates: choose another folder")
    return content["candidates"]


def _score(candidate: ConfigDict, run_folder: Path, shares: Sequence[float]) -> list[dict[str, Any]]:
    train_rounds(candidate, run_folder)
    run, state = load_trained(run_folder, finished=True)
    options = Options(candidate.granularity, recalibrate_batch_norm=bool(state.batch_stats), recalibration_batches=4)
    return [row._asdict() for row in prune_curve(run, state, shares, options)]


def _line(entry: Mapping[str, Any]) -> dict[str, str]:
    shown = {name: f"{v:g}" if isinstance(v, float) else str(v) for name, v in entry["settings"].items()}
    shown["mean over the rates %"] = f"{100 * entry['mean']:.1f}"
    ends = (entry["rows"][0], entry["rows"][-1])
    return shown | {f"at {100 * row['prune_rate']:g} %": f"{100 * row['accuracy']:.1f}" for row in ends}
