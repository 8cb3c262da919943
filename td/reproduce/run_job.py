"""One run of a table: train, score in its modes, write one result file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from td.evaluate.curve_files import mode_settings
from td.evaluate.options import Options
from td.evaluate.prune_curve import prune_curve
from td.io import log, provenance
from td.io.files import read_json, write_json
from td.reproduce.jobs import RECALIBRATION, Job
from td.reproduce.table import Table, paper_mode
from td.reproduce.taylor import measure_change
from td.train.experiment import load_trained
from td.train.rounds import train_rounds


def result_path(folder: Path, job: Job) -> Path:
    """Where the result of a job is written."""
    return folder / job.table / f"{job.run}.json"


def modes_of(table: Table, mask: Mapping[str, Any]) -> list[str]:
    """The modes that a network must be scored in."""
    modes = ["dense", *([paper_mode(mask["name"], table.granularity)] if "paper" in table.scorings else [])]
    return list(dict.fromkeys(modes))


def run_job(job: Job, table: Table, folder: Path, scale: str, note: str) -> None:
    """Train a network, or go on, or take the finished one; score it; write its result file."""
    trained = train_rounds(job.config, folder / "runs" / job.run)
    watched = [line for line in log.read(folder / "runs" / job.run) if "targets/changed" in line]
    content: dict[str, Any] = {
        "table": job.table,
        "column": job.network.column,
        "rates": job.network.rates,
        "seed": job.seed,
        "scale": scale,
        "run": job.run,
        "note": note,
        "settings": dict(job.network.settings),
        "changes": dict(job.changes),
        "searched": dict(job.searched),
        "granularity": table.granularity,
        "training": {key: value for key, value in trained.items() if key != "config"},
        "config": trained["config"],
        "telemetry": watched,
    }
    if table.measure == "change_of_loss":
        content["change_of_loss"] = measure_change(folder / "runs" / job.run, result_path(folder, job))
    else:
        modes = modes_of(table, job.config.mask.to_dict())
        content["curves"] = {mode: curve(job, table, folder / "runs" / job.run, mode, scale) for mode in modes}
    write_json(result_path(folder, job), content | provenance.describe())


def curve(job: Job, table: Table, run_folder: Path, mode: str, scale: str) -> list[dict[str, Any]]:
    """The prune curve of a trained network, read from the run's folder where it was computed before."""
    # With dropout active every batch is one draw, and a few draws are not the mean over all of them.
    batches = RECALIBRATION[scale] * (10 if mode == "stochastic" and scale != "smoke" else 1)
    settings = {
        "granularity": table.granularity,
        "mode": mode,
        "rates": list(job.network.rates),
        "recalibration_batches": batches,
        "beams": table.beams,
    }
    path = run_folder / f"{job.table}-{mode}.json"
    if path.exists():
        known = read_json(path)
        if known["settings"] == settings:
            return known["rows"]
    run, state = load_trained(run_folder, mode_settings(job.config.mask, mode), finished=True)
    options = Options(table.granularity, mode)
    if state.batch_stats:
        options = options._replace(recalibrate_batch_norm=True, recalibration_batches=batches)
    if table.beams:
        options = options._replace(bleu=True, beams=table.beams)
    rows = [row._asdict() for row in prune_curve(run, state, job.network.rates, options)]
    write_json(path, {"settings": settings, "rows": rows})
    return rows
