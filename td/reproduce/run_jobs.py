"""Run the jobs of a request, here or on a cluster: train, score, write a result file each, and the reports."""

import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from td.errors import UserError
from td.evaluate.curve_files import mode_settings
from td.evaluate.options import Options
from td.evaluate.prune_curve import prune_curve
from td.io import log, provenance
from td.io.files import read_json, write_json, write_text
from td.io.interrupt import Stopped, listening
from td.io.progress import progress
from td.io.run_folder import Busy
from td.reproduce.jobs import Job, Request, part_of, planned, progress_of, result_path, write_plan
from td.reproduce.report import write_report
from td.reproduce.table import Table, is_file_name, mode_of
from td.reproduce.table1 import measure_change
from td.train.experiment import load_trained
from td.train.loop import train_rounds

LOG = logging.getLogger(__name__)

RECALIBRATION = {"paper": 20, "short": 20, "small": 8, "cpu": 4, "smoke": 1}  # batches of 500


def reproduce(request: Request) -> str:
    """Run the unfinished jobs of a request, and write the reports."""
    found = planned(request)
    mine = part_of(found, request.part)
    for given in request.tables:
        name = Path(given).stem
        write_plan(request.folder, name, request.scale, [job for _, job in found if job.table == name])
        if is_file_name(given):  # its reports can be made again from this folder alone
            write_text(request.folder / name / f"{name}.py", Path(given).read_text())
    counts: Counter[str] = Counter()
    try:
        with listening() as stops:
            for table, job in progress(mine, unit="run"):
                counts[_run(table, job, request)] += 1
                if stops(0):
                    raise Stopped(f"after {job.run}")
    except BaseException:
        with suppress(UserError, OSError):  # the first error is the one to report
            for name in request.tables:
                write_report(request.configs, request.folder, name)
        raise
    written = [write_report(request.configs, request.folder, name) for name in request.tables]
    counted = ", ".join(f"{count} {state}" for state, count in counts.items())
    text = "\n".join([f"runs: {counted}", *map(str, written)])
    if counts["failed"]:
        LOG.info("%s", text)
        raise UserError(f"{counts['failed']} runs failed, see their .failed.txt files: try again with --retry_failed")
    return text


def submit(request: Request, parts: int, logs: Path, cluster: str, options: Mapping[str, str]) -> str:
    """Submit a request as a Slurm array, one task a part; `options` are of submitit's executor."""
    try:
        import submitit
    except ImportError:
        raise UserError("--launcher=slurm needs submitit: pip install -e '.[slurm]'") from None
    planned(request)
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        executor.update_parameters(name="td", **options)
        requests = [request._replace(part=f"{number}/{parts}") for number in range(1, parts + 1)]
        submitted = executor.map_array(reproduce, requests)
    except (RuntimeError, TypeError, FileNotFoundError) as error:
        raise UserError(f"cannot submit: {error}") from None
    return "submitted: " + ", ".join(job.job_id for job in submitted)


def _run(table: Table, job: Job, request: Request) -> str:
    """Do one job, unless it is done; returns its state."""
    before, path = progress_of(request.folder, job.table, job.run), result_path(request.folder, job.table, job.run)
    if before == "finished" or (before == "failed" and not request.retry_failed):
        return before
    LOG.info("%s: %s, seed %d", job.table, job.network.column, job.seed)
    failure = path.with_suffix(".failed.txt")
    try:
        run_job(job, table, request)
    except (Stopped, KeyboardInterrupt):
        raise
    except Busy:
        return "done elsewhere"
    except Exception as error:  # one failed run does not stop the others
        write_text(failure, f"{type(error).__name__}: {error}\n")
        LOG.error("%s failed: %s", job.run, " ".join(str(error).split()))
        return "failed"
    failure.unlink(missing_ok=True)
    return "done"


def modes_of(table: Table, mask: Mapping[str, Any]) -> list[str]:
    """List the modes that a network is scored in; dense always, for the report's telemetry."""
    own = (mode_of(mask["name"], table.granularity, scoring) for scoring in table.scorings)
    return list(dict.fromkeys(["dense", *own]))


def run_job(job: Job, table: Table, request: Request) -> None:
    """Train a network, resume it, or take the finished one; score it; write its result file."""
    run_folder, path = request.folder / "runs" / job.run, result_path(request.folder, job.table, job.run)
    trained = train_rounds(job.config, run_folder)
    content: dict[str, Any] = {
        "table": job.table,
        "column": job.network.column,
        "rates": job.network.rates,
        "seed": job.seed,
        "scale": request.scale,
        "run": job.run,
        "note": request.data_note,
        "settings": dict(job.network.settings),
        "changes": dict(job.changes),
        "searched": dict(job.tuned),
        "granularity": table.granularity,
        "training": {key: value for key, value in trained.items() if key != "config"},
        "config": trained["config"],
        "telemetry": [line for line in log.read(run_folder) if "targets/changed" in line],
    }
    if table.measure == "change_of_loss":
        content["change_of_loss"] = measure_change(run_folder, path)
    else:
        modes = modes_of(table, job.config.mask.to_dict())
        content["curves"] = {mode: curve(job, table, run_folder, mode, request.scale) for mode in modes}
    write_json(path, content | provenance.describe())


def curve(job: Job, table: Table, run_folder: Path, mode: str, scale: str) -> list[dict[str, Any]]:
    """Compute the prune curve of a trained network, or read it from the run's folder."""
    # With dropout active every batch is one draw, and a few draws are not the mean over all of them.
    batches = RECALIBRATION[scale] * (10 if mode == "stochastic" and scale != "smoke" else 1)
    settings: dict[str, Any] = {"granularity": table.granularity, "mode": mode, "rates": list(job.network.rates)}
    settings |= {"recalibration_batches": batches, "beams": table.beams}
    path = run_folder / f"{job.table}-{mode}.json"
    if path.exists() and (known := read_json(path))["settings"] == settings:
        return known["rows"]
    run, state = load_trained(run_folder, mode_settings(job.config.mask, mode), finished=True)
    options = Options(table.granularity, mode, recalibrate_batch_norm=bool(state.batch_stats))
    options = options._replace(recalibration_batches=batches, bleu=table.beams > 0, beams=table.beams or options.beams)
    rows = [row._asdict() for row in prune_curve(run, state, job.network.rates, options)]
    write_json(path, {"settings": settings, "rows": rows})
    return rows
