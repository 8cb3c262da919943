"""A run's prune curve as files beside its checkpoints: JSON with its provenance, CSV, PNG and PDF."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from td import masks, provenance, report
from td.criteria import GRANULARITIES
from td.curve import MODES, Row, parse_rates, prune_curve
from td.errors import UserError, check_choice, lookup
from td.experiment import load_trained
from td.workdir import load_config, read_json, write_json, write_text


def write_curve(
    workdir: Path,
    rates: str = "0:0.9:0.1",
    granularity: str | None = None,
    mode: str = "dense",
    recalibration_batches: int = 0,
    batch_size: int = 500,
) -> str:
    """Compute the prune curve of a trained run and write it.

    Args:
      workdir: the run's folder; files are named `prune_curve-GRANULARITY-MODE`.
      rates: as `parse_rates` reads them.
      granularity: "weight" or "unit"; None: as trained, else "weight".
      mode: one of `td.curve.MODES`.
      recalibration_batches: as in `prune_curve`.
      batch_size: images a batch.

    Returns:
      The table and the path of the picture, for the screen.

    Raises:
      UserError: malformed rates, an unknown word, no run or no checkpoint.
    """
    shares = parse_rates(rates)
    check_choice("mode", mode, MODES)
    mask = load_config(workdir).mask
    granularity = granularity or mask.get("granularity", "weight")
    check_choice("granularity", granularity, GRANULARITIES)
    has_targets = "evaluation" in inspect.signature(lookup(masks.METHODS, mask.name, "method")).parameters
    if mode == "prune_targets" and not has_targets:
        raise UserError(f"mode 'prune_targets' needs a method with targets; this run used {mask.name!r}")
    shown = "prune_targets" if mode == "prune_targets" else "dense"
    config, run = load_trained(workdir, {"evaluation": shown} if has_targets else {})
    rows = prune_curve(
        run,
        shares,
        granularity=granularity,
        mode=mode,
        batch_size=batch_size,
        recalibration_batches=recalibration_batches,
        seed=config.seed,
    )
    path = workdir / f"prune_curve-{granularity}-{mode}.json"
    name = report.label(config.mask.to_dict())
    content = {
        "method": name,
        "granularity": granularity,
        "mode": mode,
        "step": int(run.state.step),
        "recalibration_batches": recalibration_batches,
        "batch_size": batch_size,
        "rows": [row._asdict() for row in rows],
        **provenance.describe(),
    }
    report.write_csv(path.with_suffix(".csv"), rows)
    report.plot({f"{granularity} pruning, {mode}": {name: rows}}, path)
    write_json(path, content)
    unfinished = f"\n\nnot the end: this is step {run.state.step} of {run.steps}" if run.state.step < run.steps else ""
    return f"{report.table(rows)}{unfinished}\n\npicture: {path.with_suffix('.png')}"


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
        style: "\n".join(f"{title}\n\n{report.comparison(curves, style)}\n" for title, curves in panels.items())
        for style in ("github", "simple")
    }
    write_text(out.with_suffix(".md"), text["github"])
    return f"{text['simple']}\npicture: {out.with_suffix('.png')}"
