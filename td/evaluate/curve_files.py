"""Prune curves as files: computed from a run folder, written beside it, read back, put side by side."""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from td import masks
from td.errors import UserError, check_choice
from td.evaluate import report
from td.evaluate.cost_axes import COST_AXES, cost_table, has_costs
from td.evaluate.options import DEFAULT, OWN, Options, as_trained, check_drawn
from td.evaluate.prune_curve import Row, prune_curve, read_row
from td.evaluate.rates import parse_rates
from td.evaluate.translate import bleu
from td.io import provenance
from td.io.run_folder import load_config, read_json, write_json, write_text
from td.train.experiment import load_trained

LOG = logging.getLogger(__name__)

SAME_TIME = 1.15
"""Two timings of one network on an idle machine differ by less."""


def write_curve(workdir: Path, rates: str = "0:0.9:0.1", options: Options = DEFAULT) -> str:
    """Compute the prune curve of a trained run, and write `prune_curve-GRANULARITY-MODE` beside it.

    A criterion or a scope that is not the run's own becomes part of the name, and widths that were rounded.
    """
    shares, config = parse_rates(rates), load_config(workdir)
    check_drawn(options)
    options = as_trained(options, config)
    if not os.access(workdir, os.W_OK):
        raise UserError(f"cannot write to {workdir}, where its curve goes: copy it to a folder of your own")
    run, state = load_trained(workdir, mode_settings(config.mask, options.mode))
    rows = prune_curve(run, state, shares, options)
    special = [options.criterion.replace(":", ".")] if options.criterion != OWN else []
    special += [options.scope.replace(":", "of")] if options.scope != config.mask.get("scope", "unit") else []
    special += [f"round{options.round_to}"] if options.round_to > 1 else []
    name = ", ".join([report.label(config.mask.to_dict()), *special])
    content = {
        "method": name,
        "granularity": options.granularity,
        "mode": options.mode,
        "criterion": options.criterion,
        "scope": options.scope,
        "criterion_examples": options.criterion_examples,
        "seed": options.seed,
        "step": int(state.step),
        "recalibration_batches": options.recalibration_batches if options.recalibrate_batch_norm else 0,
        "batch_size": options.batch_size,
        **({"beams": options.beams, "bleu_signature": bleu([""], [""])[1]} if options.bleu else {}),
        **({"round_to": options.round_to, "calls": options.calls} if options.compact else {}),
        "rows": [row._asdict() for row in rows],
        **provenance.describe(),
    }
    path = workdir / f"{'-'.join(['prune_curve', options.granularity, options.mode, *special])}.json"
    _tell_of_lost(path, rows, options.seed)
    report.write_csv(path.with_suffix(".csv"), rows)
    report.plot({f"{options.granularity} pruning, {options.mode}": {name: rows}}, path)
    write_json(path, content)
    unfinished = f"\n\nnot the end: this is step {state.step} of {run.steps}" if state.step < run.steps else ""
    costs = f"\n\n{costs_in_words(name, rows, content)}" if options.compact else ""
    return f"{report.table(rows)}{costs}{unfinished}\n\npicture: {path.with_suffix('.png')}"


def _tell_of_lost(path: Path, rows: Sequence[Row], seed: int) -> None:
    """Say so where a curve is replaced by one without its rates or its columns, or of another seed."""
    if not path.exists():
        return
    with suppress(UserError):
        there, theirs = read_curve(path).rows, read_json(path).get("seed", seed)
        measured, now = (
            {name for row in of for name, v in row._asdict().items() if v is not None} for of in (there, rows)
        )
        lost = [f"{row.prune_rate:g}" for row in there if row.prune_rate not in {row.prune_rate for row in rows}]
        lost += [*sorted(measured - now), *([f"seed {theirs}"] if theirs != seed else [])]
        if lost:
            LOG.warning("%s is replaced, which had %s", path, ", ".join(lost))


def costs_in_words(name: str, rows: Sequence[Row], content: Mapping[str, Any]) -> str:
    """The table of compacted networks, and what they were timed on."""
    hardware = content["hardware"]
    machine = f"{hardware['devices']}, {hardware['processor']}, {hardware['cores']} cores"
    return f"compacted\n\n{cost_table({name: rows})}\n\nms: medians of {content['calls']} calls in turns on {machine}"


def mode_settings(mask: ConfigDict, mode: str) -> dict[str, Any]:
    """The settings of a run's method that scoring in a mode wants, of those that the method has."""
    taken = masks.find(mask.name).arguments
    if mode == "prune_targets" and "evaluation" not in taken:
        raise UserError(f"mode 'prune_targets' needs a method with targets; this run used {mask.name!r}")
    wanted: dict[str, Any] = {"evaluation": "prune_targets" if mode == "prune_targets" else "dense"}
    if mode == "stochastic":
        wanted["local"] = False  # a draw of the weights themselves, so that it can be pruned and measured
    return {name: value for name, value in wanted.items() if name in taken}


class Curve(NamedTuple):
    """A prune curve as it was written: what was trained, how it was pruned and scored, and the rows."""

    label: str
    granularity: str
    mode: str
    rows: list[Row]


def read_curve(path: Path) -> Curve:
    """Read a prune curve back."""
    content = read_json(path)
    try:
        rows = [read_row(row) for row in content["rows"]]
        texts = [content[key] for key in ("method", "granularity", "mode")]
        if not rows or not all(isinstance(text, str) for text in texts):
            raise TypeError("no rows, or what should be text is not")
        return Curve(texts[0], texts[1], texts[2], rows)
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is not a prune curve: give the prune_curve-*.json of a run") from None


def compare(paths: Sequence[Path], out: Path, x: str = "rate") -> str:
    """Put several prune curves into one picture and one table, those of one granularity and mode into one panel.

    Two of one label are told apart by their folders' names. `x` is what accuracy is drawn against.
    """
    check_choice("x", x, COST_AXES)
    if not out.name:
        raise UserError(f"--out={out} is not a name of a picture: give one, as comparison.png")
    if out.suffix not in (".png", ".pdf", ".md"):
        out = out.with_name(f"{out.name}.png")
    panels: dict[str, dict[str, list[Row]]] = {}
    for path in paths:
        curve = read_curve(path)
        if x != "rate" and not has_costs(curve.rows):
            raise UserError(
                f"{path} has no {x}: python scripts/prune_curve.py --workdir={path.absolute().parent} "
                f"--granularity={curve.granularity} --mode={curve.mode} --compact measures it"
            )
        panel = panels.setdefault(f"{curve.granularity} pruning, {curve.mode}", {})
        label = curve.label if curve.label not in panel else f"{curve.label} ({path.absolute().parent.name})"
        if label in panel:
            raise UserError(f"{path} is the second curve called {label!r}: give each once")
        panel[label] = curve.rows
    if x.startswith("latency"):
        warn_of_load(panels)
    report.plot(panels, out, dict.fromkeys(panels, COST_AXES[x]))
    text = {style: in_words(panels, style) for style in ("github", "simple")}
    write_text(out.with_suffix(".md"), text["github"])
    return f"{text['simple']}\npicture: {out.with_suffix('.png')}"


def warn_of_load(panels: Mapping[str, report.Curves]) -> None:
    """Say so where equal networks took unequal times: the machine was not as busy for one curve as for another."""
    taken: dict[tuple[int, int], list[float]] = {}
    for row in (row for curves in panels.values() for rows in curves.values() for row in rows if row.prune_rate == 0):
        taken.setdefault((row.parameters or 0, row.flops or 0), []).append(row.milliseconds_128 or 0.0)
    for times in taken.values():
        if max(times) > SAME_TIME * min(times):
            LOG.warning(
                "unpruned networks of one size took %.3g to %.3g ms at batch 128: the machine was busier for some of "
                "these curves, and their times do not compare; measure them again",
                min(times),
                max(times),
            )


def in_words(panels: Mapping[str, report.Curves], style: str) -> str:
    """The tables of a comparison: accuracies side by side, then what compacted networks cost."""
    tables = [
        f"{title}{quantity.suffix}\n\n{report.comparison(curves, style, quantity)}\n"
        for title, curves, quantity in report.quantities(panels)
    ]
    for title, curves in panels.items():
        measured = {name: rows for name, rows in curves.items() if has_costs(rows)}
        tables += [f"{title}, compacted\n\n{cost_table(measured, style)}\n"] if measured else []
    return "\n".join(tables)
