"""Prune curves as files: computed from a run folder, written to it, read back, compared."""

import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import pandas as pd
from ml_collections import ConfigDict

from td import masks
from td.errors import UserError, check_choice
from td.evaluate.curve_tables import COST_AXES, Curves, as_text, cost_table, has_costs, label, table
from td.evaluate.options import DEFAULT, OWN, Options, as_trained, parse_rates
from td.evaluate.plots import plot
from td.evaluate.prune_curve import Row, prune_curve
from td.evaluate.translate import bleu
from td.io import provenance
from td.io.files import Path, absolute, read_json, replacing, write_json, write_text
from td.io.run_folder import load_config
from td.train.experiment import load_trained

LOG = logging.getLogger(__name__)

SAME_TIME = 1.15  # largest relative difference of two timings of one network on an idle machine


def curve_path(workdir: Path, options: Options, config: ConfigDict) -> Path:
    """Name the file of a run's curve with these options, complete ones."""
    return workdir / f"{'-'.join(['prune_curve', options.granularity, options.mode, *_special(options, config)])}.json"


def _special(options: Options, config: ConfigDict) -> list[str]:
    """List the options that the name of a curve shows."""
    special = [options.criterion.replace(":", ".")] if options.criterion != OWN else []
    special += [options.scope.replace(":", "of")] if options.scope != config.mask.get("scope", "unit") else []
    special += [f"{options.rates_by}-{options.budget}"] if options.rates_by else []
    return special + ([f"round{options.round_to}"] if options.round_to > 1 else [])


def write_curve(workdir: Path, rates: str = "0:0.9:0.1", options: Options = DEFAULT, *, finished: bool = False) -> str:
    """Compute the prune curve of a trained run, and write it to the run's folder; returns its tables."""
    shares, config = parse_rates(rates), load_config(workdir)
    options = as_trained(options, config)
    if isinstance(workdir, pathlib.Path) and not os.access(workdir, os.W_OK):
        raise UserError(f"cannot write to {workdir}, where its curve goes: copy it to a folder of your own")
    run, state = load_trained(workdir, mode_settings(config.mask, options.mode), finished=finished)
    rows = prune_curve(run, state, shares, options)
    about = {
        "method": ", ".join([label(config.mask.to_dict()), *_special(options, config)]),
        **options._asdict(),
        "rates": shares,
        "step": int(state.step),
        "finished": int(state.step) == run.steps,
        **({"bleu_signature": bleu([""], [""])[1]} if options.bleu else {}),
    }
    path = curve_path(workdir, options, config)
    _warn_of_loss(path, rows, options.seed)
    hardware = write_files(path, about, rows)["hardware"]
    parts = [table(rows)]
    if options.compact:
        machine = f"{hardware['devices']}, {hardware['processor']}, {hardware['cores']} cores"
        repeats = f"ms: medians of {options.timing_repeats} calls, interleaved across networks, on {machine}"
        parts += ["compacted", cost_table({"": rows}), repeats]
    if state.step < run.steps:
        parts.append(f"not the end: this is step {state.step} of {run.steps}")
    return "\n\n".join([*parts, f"picture: {path.with_suffix('.png')}"])


def write_files(path: Path, about: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Write a curve as JSON, CSV and a picture; returns the content of the JSON file."""
    content = {**about, "rows": [row._asdict() for row in rows], **provenance.describe()}
    with replacing(path.with_suffix(".csv")) as temporary:
        pd.DataFrame(rows, dtype=object).to_csv(temporary, index=False)
    plot({f"{about['granularity']} pruning, {about['mode']}": {about["method"]: rows}}, path)
    write_json(path, content)
    return content


def _warn_of_loss(path: Path, rows: Sequence[Row], seed: int) -> None:
    """Warn where a curve is replaced by one that lacks some of its rates or columns, or has another seed."""
    if not path.exists():
        return
    with suppress(UserError):
        before, now = (pd.DataFrame(of).dropna(axis="columns", how="all") for of in (read_curve(path).rows, rows))
        lost = [f"{rate:g}" for rate in before.prune_rate if rate not in set(now.prune_rate)]
        lost += sorted(set(before) - set(now))
        before_seed = read_json(path).get("seed", seed)
        lost += [f"seed {before_seed}"] if before_seed != seed else []
        if lost:
            LOG.warning("%s is replaced, which had %s", path, ", ".join(lost))


def mode_settings(mask: ConfigDict, mode: str) -> dict[str, Any]:
    """Return the settings of a run's method that scoring in a mode needs, of those that the method has."""
    taken = masks.find(mask.name).arguments
    if mode == "prune_targets" and "evaluation" not in taken:
        raise UserError(f"mode 'prune_targets' needs a method with targets; this run used {mask.name!r}")
    wanted: dict[str, Any] = {"evaluation": "prune_targets" if mode == "prune_targets" else "dense"}
    if mode == "stochastic":
        wanted["local"] = False  # a draw of the weights themselves, so that it can be pruned and measured
    return {name: value for name, value in wanted.items() if name in taken}


class Curve(NamedTuple):
    """A prune curve in a file: method, pruning, scoring, and the rows."""

    label: str
    granularity: str
    mode: str
    rows: list[Row]


def read_curve(path: Path) -> Curve:
    """Read a prune curve back, from its file or as the only one of a run folder."""
    if path.is_dir():
        found = sorted(path.glob("prune_curve-*.json"))
        if len(found) != 1:
            listed = f": give one of {', '.join(map(str, found))}" if found else ": run td-prune-curve first"
            raise UserError(f"{path} has {len(found)} prune curves{listed}")
        path = found[0]
    content = read_json(path)
    try:
        rows = [Row(**row) for row in content["rows"]]
        return Curve(content["method"], content["granularity"], content["mode"], rows)
    except (KeyError, TypeError):
        raise UserError(f"{path} is not a prune curve: give a run folder, or its prune_curve-*.json") from None


def compare(paths: Sequence[Path], out: Path, x: str = "rate") -> str:
    """Compare curves, files or run folders, in one picture and one table; `x` names the horizontal axis."""
    check_choice("x", x, COST_AXES)
    if out.suffix not in (".png", ".pdf", ".md"):
        out = out.with_name(f"{out.name}.png")
    panels: dict[str, dict[str, list[Row]]] = {}
    for path in paths:
        curve = read_curve(path)
        folder = absolute(path if path.is_dir() else path.parent)
        if x != "rate" and not has_costs(curve.rows):
            how = f"--granularity={curve.granularity} --mode={curve.mode} --compact"
            raise UserError(f"{path} has no {x}: measure it by td-prune-curve --workdir={folder} {how}")
        panel = panels.setdefault(f"{curve.granularity} pruning, {curve.mode}", {})
        name = curve.label if curve.label not in panel else f"{curve.label} ({folder.name})"
        if name in panel:
            raise UserError(f"{path} is the second curve called {name!r}: give each once")
        panel[name] = curve.rows
    if x.startswith("latency"):
        _warn_of_load(panels)
    plot(panels, out, dict.fromkeys(panels, COST_AXES[x]))
    write_text(out.with_suffix(".md"), as_text(panels, "github"))
    return f"{as_text(panels, 'simple')}\npicture: {out.with_suffix('.png')}"


def _warn_of_load(panels: Mapping[str, Curves]) -> None:
    """Warn where equal networks took unequal times: the machine was busier for one curve than for another."""
    rows = pd.DataFrame(row for curves in panels.values() for rows in curves.values() for row in rows)
    whole = rows[rows.prune_rate == 0].groupby(["parameters", "flops"]).milliseconds_128
    for low, high in whole.agg(["min", "max"]).itertuples(index=False):
        if high > SAME_TIME * low:
            LOG.warning(
                "unpruned networks of one size took %.3g to %.3g ms at batch 128: the machine was busier for some of "
                "these curves, and their times do not compare; measure them again",
                low,
                high,
            )
