"""One run of a table: train, score in its modes, write one result file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from td import metrics, provenance
from td.curve import prune_curve
from td.curve_files import mode_settings
from td.experiment import load_trained
from td.reproduce.change_of_loss import measure_change
from td.reproduce.plan import RECALIBRATION, Job
from td.reproduce.table import Table, paper_mode
from td.rounds import train_rounds
from td.translate import run_translate
from td.workdir import read_json, write_json


def result_path(folder: Path, job: Job) -> Path:
    """Where the result of a job is written.

    Args:
      folder: of all tables.
      job: the job.

    Returns:
      A path of a JSON file.
    """
    return folder / job.table / f"{job.run}.json"


def modes_of(table: Table, mask: Mapping[str, Any]) -> list[str]:
    """The modes that a network must be scored in.

    Args:
      table: the table.
      mask: the method's section of a config.

    Returns:
      "dense", and the paper's mode for this method where the table is scored as the paper's and that is another one.

    Example:
      >>> table = Table("", (), "unit", ("dense", "paper"), {})
      >>> modes_of(table, {"name": "dropout"}), modes_of(table, {"name": "targeted"})
      (['dense'], ['dense', 'stochastic'])
    """
    modes = ["dense", *([paper_mode(mask["name"], table.granularity)] if "paper" in table.scorings else [])]
    return list(dict.fromkeys(modes))


def run_job(job: Job, table: Table, folder: Path, scale: str, note: str) -> None:
    """Train a network, or go on, or take the finished one; score it; write its result file.

    Args:
      job: what to do.
      table: the job's.
      folder: of all tables; networks are in its `runs`, result files in a folder for each table.
      scale: for the result file, and how many batches recalibrate BatchNorm.
      note: on the data, for the result file.

    Raises:
      UserError: as `td.train.train`.
      Stopped: as `td.train.train`.
    """
    trained = train_rounds(job.config, folder / "runs" / job.run)
    watched = [line for line in metrics.read(folder / "runs" / job.run) if "targets/changed" in line]
    content: dict[str, Any] = {
        "table": job.table,
        "column": job.network.column,
        "rates": job.network.rates,
        "seed": job.seed,
        "scale": scale,
        "run": job.run,
        "note": note,
        "settings": dict(job.network.settings),
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
    """The prune curve of a trained network, read from the run's folder where it was computed before.

    Args:
      job: what was trained.
      table: the job's.
      run_folder: the run's.
      mode: one of `td.curve.MODES`.
      scale: decides how many batches recalibrate BatchNorm.

    Returns:
      One dict a rate, as `td.curve.Row` has it.
    """
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
    _, run = load_trained(run_folder, mode_settings(job.config.mask, mode))
    rows = prune_curve(
        run,
        job.network.rates,
        granularity=table.granularity,
        mode=mode,
        recalibration_batches=batches if run.state.batch_stats else 0,
        translate=run_translate(run, table.beams) if table.beams else None,
        seed=job.seed,
    )
    shown = [row._asdict() for row in rows]
    write_json(path, {"settings": settings, "rows": shown})
    return shown
