"""A run's prune curve as files beside its checkpoints: JSON with its provenance, CSV, PNG and PDF."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from td import masks, provenance, report, scopes
from td.criteria import CRITERIA, GRANULARITIES
from td.curve import MODES, OWN, Row, prune_curve
from td.errors import UserError, check_choice, lookup
from td.experiment import load_trained
from td.rates import parse_rates
from td.translate import bleu, run_translate
from td.workdir import load_config, read_json, write_json, write_text


def write_curve(
    workdir: Path,
    rates: str = "0:0.9:0.1",
    granularity: str | None = None,
    mode: str | None = None,
    criterion: str = OWN,
    scope: str | None = None,
    criterion_examples: int = 1000,
    recalibration_batches: int = 0,
    batch_size: int = 500,
    beams: int = 0,
) -> str:
    """Compute the prune curve of a trained run and write it.

    Args:
      workdir: the run's folder; files are named `prune_curve-GRANULARITY-MODE`.
      rates: as `parse_rates` reads them.
      granularity: "weight" or "unit"; None: as trained, else "weight".
      mode: one of `td.curve.MODES`; None: "prune_targets" if that is how the run was evaluated, else "dense".
      criterion: "own" or a key of `td.criteria.CRITERIA`; another than "own" becomes part of the files' names.
      scope: as in `td.prune_mask`; None: as trained, else "unit"; another one becomes part of the files' names.
      criterion_examples: as in `prune_curve`.
      recalibration_batches: as in `prune_curve`.
      batch_size: images or sentences a batch.
      beams: of the search whose translations are scored by BLEU, too; 0: no BLEU.

    Returns:
      The table and the path of the picture, for the screen.

    Raises:
      UserError: malformed rates, an unknown word, no run or no checkpoint.
    """
    shares = parse_rates(rates)
    config = load_config(workdir)
    mask = config.mask
    mode = mode or mask.get("evaluation", "dense")
    check_choice("mode", mode, MODES)
    granularity = granularity or config.get("granularity", "weight")
    check_choice("granularity", granularity, GRANULARITIES)
    as_trained = mask.get("scope", "unit")
    scope = scope or as_trained
    scopes.check_scope(scope, granularity)
    check_choice("criterion", criterion, (OWN, *CRITERIA))
    config, run = load_trained(workdir, mode_settings(mask, mode))
    rows = prune_curve(
        run,
        shares,
        granularity=granularity,
        mode=mode,
        criterion=criterion,
        scope=scope,
        criterion_examples=criterion_examples,
        batch_size=batch_size,
        recalibration_batches=recalibration_batches,
        translate=run_translate(run, beams) if beams else None,
        seed=config.seed,
    )
    special = [criterion] * (criterion != OWN) + [scope.replace(":", "of")] * (scope != as_trained)
    path = workdir / f"{'-'.join(['prune_curve', granularity, mode, *special])}.json"
    name = ", ".join([report.label(config.mask.to_dict()), *special])
    content = {
        "method": name,
        "granularity": granularity,
        "mode": mode,
        "criterion": criterion,
        "scope": scope,
        "criterion_examples": criterion_examples,
        "step": int(run.state.step),
        "recalibration_batches": recalibration_batches,
        "batch_size": batch_size,
        **({"beams": beams, "bleu_signature": bleu([""], [""])[1]} if beams else {}),
        "rows": [row._asdict() for row in rows],
        **provenance.describe(),
    }
    report.write_csv(path.with_suffix(".csv"), rows)
    report.plot({f"{granularity} pruning, {mode}": {name: rows}}, path)
    write_json(path, content)
    unfinished = f"\n\nnot the end: this is step {run.state.step} of {run.steps}" if run.state.step < run.steps else ""
    return f"{report.table(rows)}{unfinished}\n\npicture: {path.with_suffix('.png')}"


def mode_settings(mask: ConfigDict, mode: str) -> dict[str, Any]:
    """The settings of a run's method that scoring in a mode wants, of those that the method has.

    Args:
      mask: the method's section of the run's config.
      mode: one of `td.curve.MODES`.

    Returns:
      What to override.

    Raises:
      UserError: the method has no targets that could be removed.

    Example:
      >>> mode_settings(ConfigDict({"name": "targeted"}), "prune_targets")
      {'evaluation': 'prune_targets'}
    """
    taken = inspect.signature(lookup(masks.METHODS, mask.name, "method")).parameters
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
    """Read a prune curve back.

    Args:
      path: the JSON file.

    Returns:
      The `Curve`.

    Raises:
      UserError: it cannot be read, or is something else.
    """
    content = read_json(path)
    try:
        rows = [Row(**row) for row in content["rows"]]
        return Curve(content["method"], content["granularity"], content["mode"], rows)
    except (KeyError, TypeError):
        raise UserError(f"{path} is no prune curve: give the prune_curve-*.json of a run") from None


def compare(paths: Sequence[Path], out: Path) -> str:
    """Put several prune curves into one picture and one table.

    Args:
      paths: JSON files of `write_curve`, one curve each; those of one granularity and mode share a panel. Two of one
        label are told apart by their folders' names.
      out: the picture's path; `.png`, `.pdf` and a Markdown table `.md` are written.

    Returns:
      The tables, for the screen.

    Raises:
      UserError: a file cannot be read, is given twice, or has other rates than the others of its panel.
    """
    panels: dict[str, dict[str, list[Row]]] = {}
    for path in paths:
        curve = read_curve(path)
        panel = panels.setdefault(f"{curve.granularity} pruning, {curve.mode}", {})
        label = curve.label if curve.label not in panel else f"{curve.label} ({path.absolute().parent.name})"
        if label in panel:
            raise UserError(f"{path} is the second curve called {label!r}: give each once")
        if any([row.prune_rate for row in curve.rows] != [row.prune_rate for row in rows] for rows in panel.values()):
            raise UserError(f"{path} has other prune rates than the curves before it: give all the same --rates")
        panel[label] = curve.rows
    report.plot(panels, out)
    text = {
        style: "\n".join(
            f"{title}{quantity.suffix}\n\n{report.comparison(curves, style, quantity)}\n"
            for title, curves, quantity in report.quantities(panels)
        )
        for style in ("github", "simple")
    }
    write_text(out.with_suffix(".md"), text["github"])
    return f"{text['simple']}\npicture: {out.with_suffix('.png')}"
